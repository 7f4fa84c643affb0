/* The program behind the contract suite: says what it was given, and ends as it is told.
 *
 *     PAYLOAD say ARGUMENT...     one JSON string a line for each argument, in order
 *     PAYLOAD end CODE            "out" and "err" on the two streams, then exit CODE
 *     PAYLOAD linger TOKEN        starts a child; both sleep for ten minutes; TOKEN is to be found in their arguments
 *     PAYLOAD sleep TOKEN         sleeps for ten minutes: that child
 *     PAYLOAD wait NONCE TOKEN    says NONCE at once, and leaves a second later
 *     PAYLOAD find TOKEN          how many other processes that can be seen here have TOKEN among their arguments
 *     PAYLOAD linger-and-find TOKEN   the same, with a child that sleeps meanwhile
 *     PAYLOAD see NAME            the value of an environment variable, or null
 *     PAYLOAD flood COUNT         so many times 64 KiB on standard output
 *     PAYLOAD may WHAT OBJECT     the errno with which the kernel refuses it, 0 where it does not:
 *                                 read PATH, create PATH (removed again), execute PATH, connect PORT (TCP on 127.0.0.1),
 *                                 listen PORT, reach NAME (an abstract Unix socket), signal PID, personality 0
 *     PAYLOAD bytes               each byte once, in order, on standard output and on standard error
 *     PAYLOAD signal NUMBER       ends itself by a signal
 *
 * In a guest of isobench's, and nowhere else:
 *     PAYLOAD crash               makes the kernel panic
 *     PAYLOAD hang-up             kills the parent of its parent: what serves the connection
 *     PAYLOAD console TEXT        writes TEXT to the console, a line of its own
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static void nap_ms(int64_t milliseconds) {
    int64_t pause[2] = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    ib_sys(__NR_nanosleep, pause, 0);
}
static void nap(int64_t seconds) { nap_ms(seconds * 1000); }

/* Start a child that sleeps, with the token among its arguments. */
static long sleeper(struct ib *ib, char *self, char *token) {
    char *interpreter = (char *)ib_env(ib, "ISOBENCH_INTERPRETER");
    char *words[] = {interpreter, self, "sleep", token, NULL};
    return ib_spawn(interpreter ? interpreter : self, interpreter ? words : words + 1, ib->environment);
}

/* Whether /proc/PID/cmdline holds the token as a word of its own, and not the one to be found: whoever looks for it has
 * it, too, and need not know under which number it is seen here. */
static int has_word(const char *digits, const char *token) {
    static char path[64], words[4096];
    size_t n = 0, length = ib_length(token) + 1;
    for (const char *s = "/proc/"; *s; s++) path[n++] = *s;
    for (; *digits && n < 40; digits++) path[n++] = *digits;
    for (const char *s = "/cmdline"; *s; s++) path[n++] = *s;
    path[n] = 0;
    ib_long fd = ib_open(path, IB_O_RDONLY, 0);
    if (fd < 0) return 0;
    ib_long got = ib_read((int)fd, words, sizeof words);
    ib_close((int)fd);
    for (ib_long at = 0; at + (ib_long)length <= got; at++)
        if ((at == 0 || words[at - 1] == 0) && ib_same(words + at, token, length))
            return at < 6 || !ib_same(words + at - 5, "find", 5);
    return 0;
}

static uint64_t others_with(const char *token) {
    static char entries[32768];
    ib_long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
    uint64_t count = 0;
    if (fd < 0) return 0;
    while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
        for (ib_long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
            char *name = entries + at + 19;
            if (*name >= '1' && *name <= '9') count += (uint64_t)has_word(name, token);
        }
    ib_close((int)fd);
    return count;
}

/* The parent of a process, by /proc/PID/stat, which has it behind the name in brackets and the state. */
static uint64_t parent_of(uint64_t pid) {
    static char path[64], stat[1024];
    size_t n = 0, d = 0;
    char digits[20];
    for (const char *s = "/proc/"; *s; s++) path[n++] = *s;
    do digits[d++] = (char)('0' + pid % 10);
    while (pid /= 10);
    while (d) path[n++] = digits[--d];
    for (const char *s = "/stat"; *s; s++) path[n++] = *s;
    path[n] = 0;
    ib_long fd = ib_open(path, IB_O_RDONLY, 0), got = fd < 0 ? 0 : ib_read((int)fd, stat, sizeof stat - 1);
    for (ib_long at = got; at-- > 0;)
        if (stat[at] == ')') return ib_number(stat + at + 4);
    return 0;
}

static long stream_to(const char *name, size_t length, int family, int listening) {
    unsigned char address[110] = {(unsigned char)family, 0};
    for (size_t i = 0; i < length; i++) address[2 + i] = (unsigned char)name[i];
    long fd = ib_sys(__NR_socket, family, 1 /* SOCK_STREAM */ | 02000000, 0);
    return fd < 0 ? fd : ib_sys(listening ? __NR_bind : __NR_connect, fd, address, 2 + length);
}

/* What the kernel says to a thing that a sandbox may refuse: 0 or more, or minus errno. */
static long attempt(const char *what, const char *object) {
    if (ib_same(what, "read", 5)) return ib_open(object, IB_O_RDONLY, 0);
    if (ib_same(what, "create", 7)) {
        long fd = ib_open(object, IB_O_WRONLY | IB_O_CREAT | IB_O_EXCL, 0600);
        return fd < 0 ? fd : ib_sys(__NR_unlinkat, IB_AT_FDCWD, object, 0);
    }
    if (ib_same(what, "execute", 8)) {
        char *words[] = {(char *)object, NULL};
        return ib_sys(__NR_execve, object, words, words + 1);
    }
    if (ib_same(what, "signal", 7)) return ib_sys(__NR_kill, ib_number(object), 0);
    if (ib_same(what, "personality", 12)) return ib_sys(__NR_personality, 0);
    if (ib_same(what, "reach", 6)) {
        char name[100] = {0};
        size_t n = ib_length(object) < 99 ? ib_length(object) : 99;
        for (size_t i = 0; i < n; i++) name[1 + i] = object[i];
        return stream_to(name, n + 1, 1 /* AF_UNIX */, 0);
    }
    uint64_t port = ib_number(object);
    char internet[14] = {(char)(port >> 8), (char)port, 127, 0, 0, 1};
    return stream_to(internet, sizeof internet, 2 /* AF_INET */, ib_same(what, "listen", 7));
}

/* What harms whatever machine it runs on: refused unless this is a guest that isobench has made. */
static int harm(int argc, char **argv) {
    if (ib_sys(__NR_faccessat, IB_AT_FDCWD, "/guest/.", 0, 0) < 0) return 77;
    if (ib_same(argv[1], "crash", 6)) {
        ib_long fd = ib_open("/proc/sysrq-trigger", IB_O_WRONLY, 0);
        if (fd >= 0) ib_write((int)fd, "c", 1);
    } else if (ib_same(argv[1], "hang-up", 8)) {
        uint64_t server = parent_of(parent_of((uint64_t)ib_sys(__NR_getpid)));
        if (server > 1) ib_sys(__NR_kill, server, 9);
        nap(600);
    } else if (argc > 2) {
        ib_long fd = ib_open("/dev/console", IB_O_WRONLY | 0400 /* NOCTTY */, 0);
        ib_write((int)fd, "\n", 1);
        ib_write((int)fd, argv[2], ib_length(argv[2]));
        ib_write((int)fd, "\n", 1);
        return fd < 0;
    }
    return 1;
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
        sleeper(&ib, argv[0], argv[2]);
        nap(600);
    } else if (ib_same(argv[1], "sleep", 6)) {
        nap(600);
    } else if (ib_same(argv[1], "wait", 5)) {
        ib_text(argv[2]);
        ib_flush();
        nap(1);
    } else if (ib_same(argv[1], "linger-and-find", 16)) {
        ib_long child = sleeper(&ib, argv[0], argv[2]);
        uint64_t mine = others_with(argv[2]);
        for (int tries = 0; !mine && tries < 100; tries++) { /* it may not have been executed yet */
            nap_ms(20);
            mine = others_with(argv[2]);
        }
        ib_decimal(mine);
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
    } else if (ib_same(argv[1], "flood", 6)) {
        for (uint64_t left = ib_number(argv[2]) * 65536; left; left--) ib_byte(left % 64 ? 'x' : '\n');
    } else if (ib_same(argv[1], "may", 4) && argc > 3) {
        long r = attempt(argv[2], argv[3]);
        ib_decimal(r < 0 ? (uint64_t)-r : 0);
        ib_byte('\n');
    } else if (ib_same(argv[1], "bytes", 6)) {
        for (int i = 0; i < 256; i++) ib_byte((char)i);
        ib_write(2, ib_buffer, ib_filled);
    } else if (ib_same(argv[1], "signal", 7)) {
        ib_sys(__NR_kill, ib_sys(__NR_getpid), ib_number(argv[2]));
    } else if (ib_same(argv[1], "crash", 6) || ib_same(argv[1], "hang-up", 8) || ib_same(argv[1], "console", 8)) {
        return harm(argc, argv);
    }
    ib_flush();
    return 0;
}
