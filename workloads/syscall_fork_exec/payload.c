/* syscall.fork-exec - fork, execute this file, wait for its exit, as a shell does for each command.
 *
 * If the kernel cannot execute a file of a foreign ISA itself, ISOBENCH_INTERPRETER is the program that is executed with
 * this file as its argument, as binfmt_misc would do it.
 */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    static const char *name;
    if (!name) name = ib_own_name(ib);
    const char *interpreter = ib_env(ib, "ISOBENCH_INTERPRETER");
    char *direct[] = {(char *)name, "leave", NULL};
    char *through[] = {(char *)interpreter, (char *)name, "leave", NULL};
    const char *program = interpreter ? interpreter : name;
    char **argv = interpreter ? through : direct;
    ib_fact_calls(ib, IB_CALL(execve) " " IB_CALL(wait4));
    uint64_t left = 0;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        ib_long pid = ib_spawn(program, argv, ib->environment);
        if (pid < 0) ib_fail(IB_CALL(execve), pid);
        int status = -1;
        ib_long r = ib_sys(__NR_wait4, pid, &status, 0, 0);
        if (r != pid) ib_fail("wait4", r);
        if (status != 7 << 8) ib_fail("the executed child did not run: execve was refused", 0);
        left++;
    }
    ib_stop(ib);
    return left;
}
