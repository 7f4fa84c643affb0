/* The start-up payload: it prints the nonce and exits. PAYLOAD NONCE [PROGRAM ARGUMENT...]
 *
 * With PROGRAM, a file in its own directory, it executes that program in its place after the nonce. If an instance takes long to
 * start, the one whose start was timed then provides the evidence. Exit code 127: the program could not be executed.
 * ISOBENCH_INTERPRETER has the same meaning as in syscall.fork-exec.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.nonce = argc > 1 ? argv[1] : "", .environment = environment};
    ib_hello(&ib);
    if (argc < 3) return 0;
    static char path[4096];
    size_t folder = 0, n = 0;
    for (size_t i = 0; argv[0][i]; i++)
        if (argv[0][i] == '/') folder = i + 1;
    const char *parts[] = {argv[0], argv[2]};
    const size_t lengths[] = {folder, ib_length(argv[2])};
    if (lengths[0] + lengths[1] >= sizeof path) return 127;
    for (int p = 0; p < 2; p++)
        for (size_t i = 0; i < lengths[p]; i++) path[n++] = parts[p][i];
    argv[2] = path;
    const char *interpreter = ib_env(&ib, "ISOBENCH_INTERPRETER");
    argv[1] = (char *)interpreter;
    if (interpreter) ib_sys(__NR_execve, interpreter, argv + 1, environment);
    else ib_sys(__NR_execve, path, argv + 2, environment);
    return 127;
}
