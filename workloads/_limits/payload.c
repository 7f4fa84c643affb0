/* Tries to exceed limits, and reports how far it came. PAYLOAD NONCE MILLISECONDS BYTES PROCESSES MEBIBYTES
 *
 *     MILLISECONDS  how long every usable CPU is kept busy
 *     BYTES         how much is written past the page cache, for at most a second
 *     PROCESSES     how many further processes are started
 *     MEBIBYTES     how much memory one of them fills
 *
 * It does not know the limits: isobench compares the results with what was set. Memory comes last, since its enforcement may
 * kill all processes here.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

#define CHUNK (256 * 1024)
#if defined(__aarch64__)
#define O_DIRECT 0200000
#else
#define O_DIRECT 040000
#endif
#define O_DSYNC 010000
#define MOST_PROCESSES 4096
#define SIGKILL 9

static char content[4096];

/* The number after a word at the beginning of a line of a file, or -1 if there is no such line. */
static int64_t counter(const char *path, const char *word) {
    long fd = ib_open(path, IB_O_RDONLY, 0);
    long n = fd < 0 ? -1 : ib_read((int)fd, content, sizeof content - 1);
    size_t length = ib_length(word);
    if (fd >= 0) ib_close((int)fd);
    if (n < 0) return -1;
    content[n] = 0;
    if (!length) return (int64_t)ib_number(content);
    for (char *line = content; *line;) {
        if (ib_same(line, word, length) && line[length] == ' ') return (int64_t)ib_number(line + length + 1);
        while (*line && *line != '\n') line++;
        if (*line) line++;
    }
    return -1;
}

struct source {
    const char *path, *word;
};
/* Files with the counters of a cgroup as a container sees them: version 2, then version 1. */
static const struct source THROTTLED[] = {{"/sys/fs/cgroup/cpu.stat", "nr_throttled"},
                                          {"/sys/fs/cgroup/cpu/cpu.stat", "nr_throttled"},
                                          {"/sys/fs/cgroup/cpu,cpuacct/cpu.stat", "nr_throttled"}};
static const struct source REFUSED[] = {{"/sys/fs/cgroup/pids.events", "max"}, {"/sys/fs/cgroup/pids/pids.events", "max"}};
static const struct source KILLED[] = {{"/sys/fs/cgroup/memory.events", "oom_kill"},
                                       {"/sys/fs/cgroup/memory/memory.oom_control", "oom_kill"}};

static int64_t count(const struct source *sources, int n, const char **path) {
    for (int i = 0; i < n; i++) {
        int64_t seen = counter(sources[i].path, sources[i].word);
        *path = sources[i].path;
        if (seen >= 0) return seen;
    }
    return -1;
}

static void counted(const char *key, const struct source *sources, int n, int64_t before) {
    const char *path = "";
    int64_t after = count(sources, n, &path);
    if (before < 0 || after < before) ib_fact_literal(key, "null", path);
    else ib_fact_number(key, (uint64_t)(after - before), path);
}

static long child(void) {
    long pid = ib_sys(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
    if (pid == 0) ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, SIGKILL);
    return pid;
}

static void processors(uint64_t milliseconds) {
    static long pids[256];
    const char *path;
    int64_t before = count(THROTTLED, 3, &path);
    uint64_t spent = 0, started = ib_now(), end = started + milliseconds * 1000000u, n = ib_cpus();
    if (n > 256) n = 256;
    for (uint64_t i = 0; i < n; i++) {
        pids[i] = child();
        if (pids[i] < 0) ib_fail("a process that keeps a CPU busy", pids[i]);
        if (pids[i] == 0) {
            while (ib_now() < end) {
            }
            ib_exit(0);
        }
    }
    for (uint64_t i = 0; i < n; i++) {
        int64_t usage[18] = {0}; /* struct rusage: seconds and microseconds of user time, then of system time */
        ib_sys(__NR_wait4, pids[i], 0, 0, usage);
        spent += (uint64_t)((usage[0] + usage[2]) * 1000000 + usage[1] + usage[3]);
    }
    uint64_t wall = (ib_now() - started) / 1000;
    ib_fact_number("limit.cpu.permille", wall ? spent * 1000 / wall : 0, "wait4");
    ib_fact_number("limit.cpu.usable", n, "sched_getaffinity");
    counted("limit.cpu.throttled", THROTTLED, 3, before);
}

static void disk(struct ib *ib, uint64_t bytes) {
    static char chunk[CHUNK] __attribute__((aligned(4096)));
    char path[256];
    ib->scratch = ib_env(ib, "ISOBENCH_SCRATCH");
    ib_scratch_path(ib, path, sizeof path, ".limits");
    uint64_t written = 0, began = ib_now();
    long fd = ib_open(path, IB_O_WRONLY | IB_O_CREAT | IB_O_TRUNC | O_DIRECT | O_DSYNC, 0600), n = fd;
    while (fd >= 0 && written < bytes && ib_now() - began < 1000000000u) {
        n = ib_write((int)fd, chunk, CHUNK);
        if (n <= 0) break;
        written += (uint64_t)n;
    }
    uint64_t taken = ib_now() - began;
    if (fd >= 0) ib_close((int)fd);
    ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
    if (n <= 0 || !taken) {
        ib_fact_literal("limit.io.bytes_per_second", "null", "write, direct and synchronous");
        return;
    }
    ib_fact_number("limit.io.bytes_per_second", written * 1000 / (taken / 1000000 + 1), "write, direct and synchronous");
}

static void processes(uint64_t wanted) {
    static long pids[MOST_PROCESSES];
    const char *path;
    int64_t before = count(REFUSED, 2, &path);
    uint64_t started = 0;
    long refused = 0;
    while (started < wanted && started < MOST_PROCESSES) {
        long pid = child();
        if (pid == 0)
            for (;;) ib_sys(__NR_ppoll, 0, 0, 0, 0, 0);
        if (pid < 0) {
            refused = -pid;
            break;
        }
        pids[started++] = pid;
    }
    for (uint64_t i = 0; i < started; i++) ib_sys(__NR_kill, pids[i], SIGKILL);
    for (uint64_t i = 0; i < started; i++) ib_sys(__NR_wait4, pids[i], 0, 0, 0);
    ib_fact_number("limit.processes.started", started, "clone");
    ib_fact_number("limit.processes.errno", (uint64_t)refused, "clone");
    counted("limit.processes.refused", REFUSED, 2, before);
}

static void memory(uint64_t mebibytes) {
    const char *path;
    int64_t before = count(KILLED, 2, &path);
    /* Shared with the child, so that this process knows how much the child had filled when it was killed. */
    long shared = ib_sys(__NR_mmap, 0, 4096, 3, 0x21 /* shared, anonymous */, -1, 0);
    if (shared < 0 && shared > -4096) ib_fail("a page to share", shared);
    volatile uint64_t *filled = (volatile uint64_t *)shared;
    long pid = child();
    if (pid < 0) ib_fail("a process that fills memory", pid);
    if (pid == 0) {
        /* The kernel's OOM killer should choose this process, and neither its parent nor another one. */
        long fd = ib_open("/proc/self/oom_score_adj", IB_O_WRONLY, 0);
        if (fd >= 0) ib_write((int)fd, "1000", 4);
        for (uint64_t i = 0; i < mebibytes; i++) {
            volatile char *page = ib_pages(1 << 20);
            if (!page) ib_exit(12);
            for (size_t at = 0; at < 1 << 20; at += 4096) page[at] = 1;
            *filled = i + 1;
        }
        ib_exit(0);
    }
    int status = 0;
    ib_sys(__NR_wait4, pid, &status, 0, 0);
    ib_fact_number("limit.memory.filled_mib", *filled, "mmap");
    ib_fact_number("limit.memory.signal", (uint64_t)(status & 127), "wait4");
    ib_fact_number("limit.memory.exit", (uint64_t)(status >> 8 & 255), "wait4");
    counted("limit.memory.kills", KILLED, 2, before);
}

static int ib_main(int argc, char **argv, char **environment) {
    if (argc < 6) ib_fail("usage: PAYLOAD NONCE MILLISECONDS BYTES PROCESSES MEBIBYTES", 0);
    struct ib ib = {.self = argv[0], .nonce = argv[1], .environment = environment};
    if (ib_env(&ib, "ISOBENCH_TIED")) ib_sys(__NR_prctl, 1, SIGKILL);
    ib_hello(&ib);
    processors(ib_number(argv[2]));
    disk(&ib, ib_number(argv[3]));
    processes(ib_number(argv[4]));
    memory(ib_number(argv[5]));
    ib_text("{\"end\":0,\"check\":\"\",\"steady\":true,\"nonce\":");
    ib_quoted(ib.nonce);
    ib_text(",\"clock_ns\":");
    ib_decimal(ib_now());
    ib_text("}\n");
    ib_flush();
    return 0;
}
