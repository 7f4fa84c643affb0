/* The program behind the contract suite: says what it was given, and ends as it is told.
 *
 *     PAYLOAD say ARGUMENT...     one JSON string a line for each argument, in order
 *     PAYLOAD end CODE            "out" and "err" on the two streams, then exit CODE
 *     PAYLOAD linger TOKEN        forks a child; both sleep for ten minutes; TOKEN is to be found in their arguments
 *     PAYLOAD wait NONCE TOKEN    says NONCE at once, and leaves a second later
 *     PAYLOAD find TOKEN          how many other processes that can be seen here have TOKEN among their arguments
 *     PAYLOAD linger-and-find TOKEN   the same, with a child that sleeps meanwhile
 *     PAYLOAD see NAME            the value of an environment variable, or null
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static void nap(int64_t seconds) {
    int64_t pause[2] = {seconds, 0};
    ib_sys(__NR_nanosleep, pause, 0);
}

/* Whether /proc/PID/cmdline holds the token as a word of its own. */
static int has_word(const char *digits, const char *token) {
    static char path[64], words[4096];
    size_t n = 0, length = ib_length(token) + 1;
    for (const char *s = "/proc/"; *s; s++) path[n++] = *s;
    for (; *digits && n < 40; digits++) path[n++] = *digits;
    for (const char *s = "/cmdline"; *s; s++) path[n++] = *s;
    path[n] = 0;
    long fd = ib_open(path, IB_O_RDONLY, 0);
    if (fd < 0) return 0;
    long got = ib_read((int)fd, words, sizeof words);
    ib_close((int)fd);
    for (long at = 0; at + (long)length <= got; at++)
        if ((at == 0 || words[at - 1] == 0) && ib_same(words + at, token, length)) return 1;
    return 0;
}

static uint64_t others_with(const char *token) {
    static char entries[32768];
    long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
    uint64_t count = 0, self = (uint64_t)ib_sys(__NR_getpid);
    if (fd < 0) return 0;
    while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
        for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
            char *name = entries + at + 19;
            if (*name >= '1' && *name <= '9' && ib_number(name) != self) count += (uint64_t)has_word(name, token);
        }
    ib_close((int)fd);
    return count;
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
    } else if (ib_same(argv[1], "linger-and-find", 16)) {
        long child = ib_sys(__NR_clone, 17, 0, 0, 0, 0);
        if (child == 0) nap(600);
        ib_decimal(others_with(argv[2]));
        ib_byte('\n');
        ib_flush();
        ib_sys(__NR_kill, child, 9);
        ib_sys(__NR_wait4, child, 0, 0, 0);
    } else if (ib_same(argv[1], "find", 5)) {
        ib_decimal(others_with(argv[2]));
        ib_byte('\n');
    } else if (ib_same(argv[1], "see", 4)) {
        const char *value = ib_env(&ib, argv[2]);
        if (value) ib_quoted(value);
        else ib_text("null");
        ib_byte('\n');
    }
    ib_flush();
    return 0;
}
