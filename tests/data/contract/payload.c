/* The program behind the contract suite: says what it was given, and ends as it is told.
 *
 *     PAYLOAD say ARGUMENT...     one JSON string a line for each argument, in order
 *     PAYLOAD end CODE            "out" and "err" on the two streams, then exit CODE
 *     PAYLOAD linger TOKEN        forks a child; both sleep for ten minutes; TOKEN is to be found in their arguments
 *     PAYLOAD wait NONCE TOKEN    says NONCE at once, and leaves a second later
 *     PAYLOAD see NAME            the value of an environment variable, or null
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static void nap(int64_t seconds) {
    int64_t pause[2] = {seconds, 0};
    ib_sys(__NR_nanosleep, pause, 0);
}

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.environment = environment};
    if (ib_env(&ib, "ISOBENCH_TIED")) ib_sys(__NR_prctl, 1, 9);
    if (argc < 2) return 1;
    if (ib_same(argv[1], "say", 4)) {
        for (int i = 2; i < argc; i++) {
            ib_quoted(argv[i]);
            ib_byte('\n');
        }
    } else if (ib_same(argv[1], "end", 4)) {
        ib_write(2, "err\n", 4);
        ib_text("out\n");
        ib_flush();
        return (int)ib_number(argv[2]);
    } else if (ib_same(argv[1], "linger", 7)) {
        ib_sys(__NR_clone, 17, 0, 0, 0, 0);
        nap(600);
    } else if (ib_same(argv[1], "wait", 5)) {
        ib_text(argv[2]);
        ib_flush();
        nap(1);
    } else if (ib_same(argv[1], "see", 4)) {
        const char *value = ib_env(&ib, argv[2]);
        if (value) ib_quoted(value);
        else ib_text("null");
        ib_byte('\n');
    }
    ib_flush();
    return 0;
}
