/* Facts from inside a session, one JSON line each: what the promises of a target are held against.
 *
 * PAYLOAD NONCE CANARY     CANARY is the path of a file planted on the host that no isolated process may read.
 * A fact that could not be read is null: looked, and could not.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static char content[16384];

static long slurp(const char *path) {
    long fd = ib_open(path, IB_O_RDONLY, 0), n = 0, r;
    if (fd < 0) return fd;
    while (n < (long)sizeof content - 1 && (r = ib_read((int)fd, content + n, sizeof content - 1 - (size_t)n)) > 0)
        n += r;
    ib_close((int)fd);
    content[n] = 0;
    return n;
}

static void file_fact(const char *key, const char *path) {
    long n = slurp(path);
    while (n > 0 && (content[n - 1] == '\n' || content[n - 1] == ' ' || content[n - 1] == 0)) n--;
    if (n < 0) ib_fact_literal(key, "null", path);
    else ib_fact_n(key, content, n > 2048 ? 2048 : (size_t)n, path);
}

static void link_fact(const char *key, const char *path) {
    char target[512];
    long n = ib_sys(__NR_readlinkat, IB_AT_FDCWD, path, target, sizeof target);
    if (n < 0) ib_fact_literal(key, "null", path);
    else ib_fact_n(key, target, (size_t)n, path);
}

static void status_fact(const char *key, const char *field) {
    size_t length = ib_length(field);
    for (char *line = content; *line;) {
        char *end = line;
        while (*end && *end != '\n') end++;
        if ((size_t)(end - line) > length && ib_same(line, field, length) && line[length] == ':') {
            char *value = line + length + 1;
            while (*value == ' ' || *value == '\t') value++;
            ib_fact_n(key, value, (size_t)(end - value), "/proc/self/status");
            return;
        }
        line = *end ? end + 1 : end;
    }
    ib_fact_literal(key, "null", "/proc/self/status");
}

static void root_mount_facts(void) {
    long n = slurp("/proc/self/mountinfo");
    if (n < 0) {
        ib_fact_literal("mount.root", "null", "/proc/self/mountinfo");
        return;
    }
    uint64_t mounts = 0;
    char *root = NULL, *root_end = NULL;
    for (char *line = content; *line;) {
        char *end = line, *field = line;
        while (*end && *end != '\n') end++;
        mounts++;
        for (int i = 0; i < 4; i++) { /* the fifth field is the mount point */
            while (field < end && *field != ' ') field++;
            if (field < end) field++;
        }
        if (field + 1 < end && field[0] == '/' && field[1] == ' ') root = field, root_end = end;
        line = *end ? end + 1 : end;
    }
    if (root) ib_fact_n("mount.root", root, (size_t)(root_end - root), "/proc/self/mountinfo");
    else ib_fact_literal("mount.root", "null", "/proc/self/mountinfo");
    ib_fact_number("mount.count", mounts, "/proc/self/mountinfo");
}

/* What lies behind one mount point, within its own file system: the fourth field of its line. */
static void mount_source_fact(const char *key, const char *point) {
    size_t length = ib_length(point);
    if (slurp("/proc/self/mountinfo") < 0) content[0] = 0;
    for (char *line = content; *line;) {
        char *end = line, *field[6] = {0};
        int fields = 0;
        while (*end && *end != '\n') end++;
        for (char *at = line; at < end && fields < 6; at++)
            if (at == line || at[-1] == ' ') field[fields++] = at;
        if (fields == 6 && field[5] == field[4] + length + 1 && ib_same(field[4], point, length)) {
            ib_fact_n(key, field[3], (size_t)(field[4] - field[3] - 1), "/proc/self/mountinfo");
            return;
        }
        line = *end ? end + 1 : end;
    }
    ib_fact_literal(key, "null", "/proc/self/mountinfo");
}

static void visible_processes(void) {
    static char entries[32768];
    long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
    uint64_t count = 0;
    if (fd < 0) {
        ib_fact_literal("processes.visible", "null", "/proc");
        return;
    }
    while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
        for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16))
            if (entries[at + 19] >= '1' && entries[at + 19] <= '9') count++;
    ib_close((int)fd);
    ib_fact_number("processes.visible", count, "/proc");
}

static void interfaces(void) {
    static char names[1024];
    size_t n = 0;
    if (slurp("/proc/self/net/dev") < 0) {
        ib_fact_literal("net.interfaces", "null", "/proc/self/net/dev");
        return;
    }
    int line_number = 0;
    for (char *line = content; *line;) {
        char *end = line;
        while (*end && *end != '\n') end++;
        if (line_number++ >= 2) {
            while (*line == ' ') line++;
            if (n) names[n++] = ' ';
            while (line < end && *line != ':' && n + 2 < sizeof names) names[n++] = *line++;
        }
        line = *end ? end + 1 : end;
    }
    ib_fact_n("net.interfaces", names, n, "/proc/self/net/dev");
}

static void clock_facts(void) {
    uint64_t before = ib_now(), smallest = ~(uint64_t)0;
    for (int i = 0; i < 1000; i++) ib_now();
    uint64_t cost = (ib_now() - before) / 1001;
    for (int i = 0; i < 200; i++) {
        uint64_t a = ib_now(), b = a;
        for (int tries = 0; b == a && tries < 1000000; tries++) b = ib_now();
        if (b != a && b - a < smallest) smallest = b - a;
    }
    ib_fact_number("clock.cost_ns", cost, "clock_gettime");
    ib_fact_number("clock.step_ns", smallest, "clock_gettime");
}

#if defined(__x86_64__)
static void cpuid(uint32_t leaf, uint32_t r[4]) {
    __asm__ volatile("cpuid" : "=a"(r[0]), "=b"(r[1]), "=c"(r[2]), "=d"(r[3]) : "a"(leaf), "c"(0));
}
#endif

static void processor_facts(void) {
#if defined(__x86_64__)
    uint32_t r[4];
    cpuid(1, r);
    int hypervisor = r[2] >> 31 & 1;
    ib_fact_literal("cpu.hypervisor_bit", hypervisor ? "true" : "false", "CPUID 1 ECX 31");
    if (hypervisor) {
        char vendor[12];
        cpuid(0x40000000, r);
        size_t length = 12;
        for (int i = 0; i < 12; i++) vendor[i] = (char)(r[1 + i / 4] >> (8 * (i % 4)));
        while (length && vendor[length - 1] == 0) length--; /* KVM fills up with zeros */
        ib_fact_n("cpu.hypervisor", vendor, length, "CPUID 0x40000000");
    } else {
        ib_fact("cpu.hypervisor", "", "CPUID 0x40000000");
    }
#else
    ib_fact_literal("cpu.hypervisor", "null", "no CPUID on this ISA");
#endif
    ib_fact_number("cpu.usable", ib_cpus(), "sched_getaffinity");
}

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.nonce = argc > 1 ? argv[1] : "", .environment = environment};
    ib_hello(&ib);
    static char names[6][65];
    if (ib_sys(__NR_uname, names) == 0) {
        ib_fact("kernel.name", names[0], "uname");
        ib_fact("kernel.hostname", names[1], "uname");
        ib_fact("kernel.release", names[2], "uname");
        ib_fact("kernel.version", names[3], "uname");
        ib_fact("machine", names[4], "uname");
    }
    ib_fact("payload.machine", IB_MACHINE, "compiler");
    file_fact("kernel.boot_id", "/proc/sys/kernel/random/boot_id");
    static const char *const spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    for (int i = 0; i < 8; i++) {
        char key[16] = "ns.", path[32] = "/proc/self/ns/";
        for (size_t j = 0; j <= ib_length(spaces[i]); j++) key[3 + j] = path[14 + j] = spaces[i][j];
        link_fact(key, path);
    }
    file_fact("kernel.banner", "/proc/version");
    file_fact("machine.vendor", "/sys/class/dmi/id/sys_vendor");
    file_fact("machine.product", "/sys/class/dmi/id/product_name");
    file_fact("machine.model", "/sys/firmware/devicetree/base/model");
    file_fact("user.uid_map", "/proc/self/uid_map");
    file_fact("clock.time_offsets", "/proc/self/timens_offsets");
    file_fact("clock.source", "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    file_fact("cgroup.path", "/proc/self/cgroup");
    file_fact("security.label", "/proc/self/attr/current");
    file_fact("memory.huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled");
    link_fact("process.executable", "/proc/thread-self/exe");
    if (slurp("/proc/self/status") < 0) content[0] = 0;
    status_fact("user.uid", "Uid");
    status_fact("process.ns_pid", "NSpid");
    status_fact("security.seccomp", "Seccomp");
    status_fact("security.seccomp_filters", "Seccomp_filters");
    status_fact("security.no_new_privs", "NoNewPrivs");
    status_fact("security.cap_effective", "CapEff");
    status_fact("security.cap_bounding", "CapBnd");
    status_fact("security.store_bypass", "Speculation_Store_Bypass");
    root_mount_facts();
    mount_source_fact("mount.termination_log", "/dev/termination-log");
    visible_processes();
    interfaces();
    processor_facts();
    clock_facts();
    uint64_t memory[14] = {0}; /* struct sysinfo: totalram is the fifth word, its unit a 32-bit number near the end */
    if (ib_sys(__NR_sysinfo, memory) == 0) {
        uint32_t unit = ((uint32_t *)memory)[26];
        ib_fact_number("memory.total_mib", memory[4] * (unit ? unit : 1) >> 20, "sysinfo");
    }
    ib_fact_filesystem("filesystem.root", "/");
    const char *scratch = ib_env(&ib, "ISOBENCH_SCRATCH");
    if (scratch) ib_fact_filesystem("filesystem.scratch", scratch);
    else ib_fact_literal("filesystem.scratch", "null", "ISOBENCH_SCRATCH");
    uint64_t limit[2] = {0, 0};
    if (ib_sys(__NR_prlimit64, 0, 7 /* NOFILE */, 0, limit) == 0)
        ib_fact_number("limit.open_files", limit[0], "prlimit64");
    if (argc > 2) {
        long fd = ib_open(argv[2], IB_O_RDONLY, 0);
        ib_fact_literal("host.canary_readable", fd >= 0 ? "true" : "false", argv[2]);
        if (fd >= 0) ib_close((int)fd);
    }
    ib_text("{\"end\":0,\"check\":\"\",\"steady\":true,\"nonce\":");
    ib_quoted(ib.nonce);
    ib_text(",\"clock_ns\":");
    ib_decimal(ib_now());
    ib_text("}\n");
    ib_flush();
    return 0;
}
