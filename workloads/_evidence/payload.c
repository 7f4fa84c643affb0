/* Prints facts from inside a session, one JSON line each. The expectations of a target are checked against them.
 *
 * PAYLOAD NONCE CANARY     CANARY is the path of a file on the host that no isolated process may read.
 * A fact that could not be read is null.
 *
 * As a program for Windows it gets some facts from Wine, and the others from the host's files.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

static char content[16384];

#if defined(_WIN32)
/* The host's number of this process, under Wine. Wine opens files on behalf of a program, so that /proc/self may be another
 * process. It is found by the nonce among its arguments; of several, the one with the highest number is the youngest. */
static uint64_t own_number(const char *nonce) {
    static char entries[65536], words[4096];
    static uint64_t found;
    long fd = found ? -1 : ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
    size_t length = ib_length(nonce) + 1;
    while (fd >= 0 && (n = (long)ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
        for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
            char path[64] = "/proc/", *digits = entries + at + 19;
            size_t end = 6;
            if (*digits < '1' || *digits > '9') continue;
            for (const char *s = digits; *s && end < 40; s++) path[end++] = *s;
            for (const char *s = "/cmdline"; *s; s++) path[end++] = *s;
            long file = ib_open(path, IB_O_RDONLY, 0), got = file < 0 ? 0 : ib_read((int)file, words, sizeof words);
            if (file >= 0) ib_close((int)file);
            for (long w = 1; w + (long)length <= got; w++)
                if (!words[w - 1] && ib_same(words + w, nonce, length) && ib_number(digits) > found)
                    found = ib_number(digits);
        }
    if (fd >= 0) ib_close((int)fd);
    return found;
}
static const char *nonce_of_this;

/* "/proc/self/status" -> "/proc/1234/status". If the process is not found, no file has the result's path. */
static const char *own_path(const char *path) {
    static char own[256];
    size_t skipped = ib_same(path, "/proc/self/", 11) ? 11 : 0, n = 6, d = 0;
    char digits[20];
    if (!skipped) return path;
    for (size_t i = 0; i < 6; i++) own[i] = path[i];
    uint64_t number = own_number(nonce_of_this);
    do digits[d++] = (char)('0' + number % 10);
    while (number /= 10);
    while (d) own[n++] = digits[--d];
    own[n++] = '/';
    for (const char *s = path + skipped; *s && n + 1 < sizeof own; s++) own[n++] = *s;
    own[n] = 0;
    return own;
}

static void *look_up(const ib_wide *library, const char *name) {
    void *module = GetModuleHandleW(library);
    return module ? GetProcAddress(module, name) : NULL;
}

static void system_facts(const char *self) {
    const char *(*version)(void) = (const char *(*)(void))look_up(L"ntdll.dll", "wine_get_version");
    void (*host)(const char **, const char **) =
        (void (*)(const char **, const char **))look_up(L"ntdll.dll", "wine_get_host_version");
    if (version) ib_fact("wine.version", version(), "wine_get_version");
    else ib_fact_literal("wine.version", "null", "wine_get_version");
    if (host) {
        const char *name = "", *release = "";
        host(&name, &release);
        ib_fact("kernel.name", name, "wine_get_host_version");
        ib_fact("kernel.release", release, "wine_get_host_version");
    }
    uint16_t information[24] = {0};
    GetNativeSystemInfo(information);
    if (information[0] == 9) ib_fact("machine", "x86_64", "GetNativeSystemInfo");
    else ib_fact_number("machine", information[0], "GetNativeSystemInfo");
    /* The image of this program in memory begins with the headers of its file: "MZ", and at 60 the offset of "PE". */
    const char *image = GetModuleHandleW(NULL);
    const char *header = image && image[0] == 'M' && image[1] == 'Z' ? image + *(const uint32_t *)(image + 60) : NULL;
    if (header && ib_same(header, "PE\0", 4)) ib_fact("payload.format", "PE", "image header");
    else ib_fact_literal("payload.format", "null", "image header");
    ib_fact("process.executable", self, "GetModuleFileName");
}
#else
static const char *own_path(const char *path) { return path; }

static void link_fact(const char *key, const char *path);
static void system_facts(const char *self) {
    static const char *const keys[] = {"kernel.name", "kernel.hostname", "kernel.release", "kernel.version", "machine"};
    static char names[6][65];
    (void)self;
    ib_long r = ib_sys(__NR_uname, names);
    for (int i = 0; i < 5; i++)
        if (r == 0) ib_fact(keys[i], names[i], "uname");
        else ib_fact_literal(keys[i], "null", "uname");
#if defined(__wasm__)
    ib_fact("payload.format", "WebAssembly", "compiler");
#else
    ib_fact("payload.format", "ELF", "compiler");
#endif
    ib_fact("wine.version", "", "not a program for Windows");
    link_fact("process.executable", "/proc/thread-self/exe");
}
#endif

static ib_long slurp(const char *path) {
    path = own_path(path);
    ib_long fd = ib_open(path, IB_O_RDONLY, 0), n = 0, r;
    if (fd < 0) return fd;
    while (n < (ib_long)sizeof content - 1 && (r = ib_read((int)fd, content + n, sizeof content - 1 - (size_t)n)) > 0)
        n += r;
    ib_close((int)fd);
    content[n] = 0;
    return n;
}

static void file_fact(const char *key, const char *path) {
    ib_long n = slurp(path);
    while (n > 0 && (content[n - 1] == '\n' || content[n - 1] == ' ' || content[n - 1] == 0)) n--;
    if (n < 0) ib_fact_literal(key, "null", path);
    else ib_fact_n(key, content, n > 2048 ? 2048 : (size_t)n, path);
}

static void link_fact(const char *key, const char *path) {
    char target[512];
    ib_long n = ib_sys(__NR_readlinkat, IB_AT_FDCWD, path, target, sizeof target);
    if (n < 0) ib_fact_literal(key, "null", path);
    else ib_fact_n(key, target, (size_t)n, path);
}

/* Whether something is mounted on this path: the fifth field of a line of mountinfo (proc(5)). */
static int is_mount_point(const char *path) {
    size_t length = ib_length(path);
    if (slurp("/proc/self/mountinfo") < 0) return 0;
    for (char *line = content; *line;) {
        char *end = line, *field = line;
        while (*end && *end != '\n') end++;
        for (int i = 0; i < 4; i++) {
            while (field < end && *field != ' ') field++;
            if (field < end) field++;
        }
        if ((size_t)(end - field) > length && ib_same(field, path, length) && field[length] == ' ') return 1;
        line = *end ? end + 1 : end;
    }
    return 0;
}

/* systemd-nspawn and LXC mount an invented boot ID over the kernel's. A child process unmounts it in its own mount namespace, and
 * reads the kernel's. If it may not do so, the fact is null: the invented ID says nothing about the kernel. */
static void boot_id_fact(void) {
    static const char path[] = "/proc/sys/kernel/random/boot_id";
    char seen[64];
    int ends[2];
    long n = 0;
    if (!is_mount_point(path)) {
        file_fact("kernel.boot_id", path);
        return;
    }
    file_fact("kernel.boot_id_shown", path);
    ib_flush();
    if (ib_sys(__NR_pipe2, ends, 0) == 0) {
        long pid = ib_sys(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
        if (pid == 0) {
            if (ib_sys(__NR_unshare, 0x20000 /* CLONE_NEWNS */) < 0) ib_exit(1);
            if (ib_sys(__NR_mount, 0, "/", 0, 0x44000 /* MS_REC | MS_PRIVATE */, 0) < 0) ib_exit(1);
            /* There may be several mounts, one over the other. mountinfo also lists mounts that are out of reach, so that statfs
             * decides whether the file is now the kernel's own. */
            while (ib_sys(__NR_umount2, path, 2 /* MNT_DETACH */) == 0) {
            }
            uint64_t system[16] = {0};
            if (ib_sys(__NR_statfs, path, system) < 0 || system[0] != 0x9fa0 /* PROC_SUPER_MAGIC */) ib_exit(1);
            if ((n = slurp(path)) > 0) ib_write(ends[1], content, (size_t)n);
            ib_exit(0);
        }
        ib_close(ends[1]);
        n = pid > 0 ? ib_read(ends[0], seen, sizeof seen) : 0;
        ib_close(ends[0]);
        if (pid > 0) ib_sys(__NR_wait4, pid, 0, 0, 0);
    }
    while (n > 0 && seen[n - 1] == '\n') n--;
    if (n > 0) ib_fact_n("kernel.boot_id", seen, (size_t)n, "/proc/sys/kernel/random/boot_id, beneath what is mounted on it");
    else ib_fact_literal("kernel.boot_id", "null", "/proc/sys/kernel/random/boot_id, beneath what is mounted on it");
}

/* The vendor of the processor as the kernel reports it. A user-mode kernel reports its own name. */
static void vendor_fact(void) {
    ib_long n = slurp("/proc/cpuinfo");
    for (char *line = content; n > 0 && *line;) {
        char *end = line, *value = line;
        while (*end && *end != '\n') end++;
        while (value < end && *value != ':') value++;
        if (ib_same(line, "vendor_id", 9) && value + 2 <= end) {
            ib_fact_n("cpu.vendor", value + 2, (size_t)(end - value - 2), "/proc/cpuinfo");
            return;
        }
        line = *end ? end + 1 : end;
    }
    ib_fact_literal("cpu.vendor", "null", "/proc/cpuinfo");
}

/* Whether this kernel can mount files of the host that executes it. A user-mode kernel can, unless hostfs is disabled. */
static void hostfs_fact(void) {
    static const char name[] = "\thostfs\n";
    ib_long n = slurp("/proc/filesystems");
    int found = 0;
    for (ib_long i = 0; i + 8 <= n; i++) found |= ib_same(content + i, name, 8);
    ib_fact_literal("filesystem.hostfs", n < 0 ? "null" : found ? "true" : "false", "/proc/filesystems");
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
    ib_long n = slurp("/proc/self/mountinfo");
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

/* The root of a mount within its file system: the fourth field of the line in mountinfo. */
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
    ib_long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
    uint64_t count = 0;
    if (fd < 0) {
        ib_fact_literal("processes.visible", "null", "/proc");
        return;
    }
    while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
        for (ib_long at = 0; at < n; at += *(uint16_t *)(entries + at + 16))
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
    ib_fact_number("clock.cost_ns", cost, IB_CALL(clock_gettime));
    ib_fact_number("clock.step_ns", smallest, IB_CALL(clock_gettime));
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
        while (length && vendor[length - 1] == 0) length--; /* KVM's "KVMKVMKVM" is padded with zeros */
        ib_fact_n("cpu.hypervisor", vendor, length, "CPUID 0x40000000");
    } else {
        ib_fact("cpu.hypervisor", "", "CPUID 0x40000000");
    }
#else
    ib_fact_literal("cpu.hypervisor", "null", "no CPUID on this ISA");
#endif
    uint64_t mask[128];
    if (ib_sys(__NR_sched_getaffinity, 0, sizeof mask, mask) > 0) ib_fact_number("cpu.usable", ib_cpus(), IB_CALL(sched_getaffinity));
    else ib_fact_literal("cpu.usable", "null", IB_CALL(sched_getaffinity));
}

/* In WebAssembly: the directories that the engine has granted. Nothing else of the host is visible. */
static void granted_directories(void) {
#if defined(__wasm__)
    static char names[2304];
    size_t n = 0;
    for (int i = 0; i < ib_grants; i++) {
        if (n) names[n++] = ' ';
        for (size_t j = 0; j < ib_granted[i].length; j++) names[n++] = ib_granted[i].name[j];
    }
    ib_fact_n("wasi.directories", names, n, "fd_prestat_dir_name");
#endif
}

/* The errno of a TCP connection to a local port without a listener: ECONNREFUSED (111), or EACCES (13) if a policy forbids
 * the attempt. */
static void loopback_fact(void) {
    struct {
        uint16_t family;
        uint8_t port[2], address[4], rest[8];
    } nobody = {.family = 2 /* AF_INET */, .port = {0, 1}, .address = {127, 0, 0, 1}};
    ib_long fd = ib_sys(__NR_socket, 2, 1 /* SOCK_STREAM */ | 02000000 | 04000 /* CLOEXEC, NONBLOCK */, 0);
    if (fd < 0) {
        ib_fact_literal("net.loopback_errno", "null", "socket");
        return;
    }
    ib_long r = ib_sys(__NR_connect, fd, &nobody, sizeof nobody);
    ib_fact_number("net.loopback_errno", r < 0 ? (uint64_t)-r : 0, "connect");
    ib_close((int)fd);
}

/* gVisor's kernel log begins with its name, in a format that Linux does not use. Nothing else of a log is printed: the log of
 * a host may contain confidential data. */
static void sentry_fact(void) {
    static const char first[] = "<6>[   0.000000] Starting gVisor...\n";
    long n = ib_sys(__NR_syslog, 3 /* SYSLOG_ACTION_READ_ALL */, content, sizeof content - 1);
    if (n < 0) ib_fact_literal("kernel.sentry", "null", "syslog");
    else ib_fact("kernel.sentry", n >= (long)sizeof first - 1 && ib_same(content, first, sizeof first - 1) ? "gVisor" : "", "syslog");
}

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.nonce = argc > 1 ? argv[1] : "", .environment = environment};
    ib_hello(&ib);
#if defined(_WIN32)
    nonce_of_this = ib.nonce;
#endif
    system_facts(argv[0]);
    ib_fact("payload.machine", IB_MACHINE, "compiler");
    granted_directories();
    boot_id_fact();
    static const char *const spaces[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"};
    for (int i = 0; i < 8; i++) {
        char key[16] = "ns.", path[32] = "/proc/self/ns/";
        for (size_t j = 0; j <= ib_length(spaces[i]); j++) key[3 + j] = path[14 + j] = spaces[i][j];
        link_fact(key, path);
    }
    file_fact("kernel.banner", "/proc/version");
    sentry_fact();
    file_fact("machine.vendor", "/sys/class/dmi/id/sys_vendor");
    file_fact("machine.product", "/sys/class/dmi/id/product_name");
    file_fact("machine.model", "/sys/firmware/devicetree/base/model");
    file_fact("user.uid_map", "/proc/self/uid_map");
    file_fact("clock.time_offsets", "/proc/self/timens_offsets");
    file_fact("clock.source", "/sys/devices/system/clocksource/clocksource0/current_clocksource");
    file_fact("cgroup.path", "/proc/self/cgroup");
    file_fact("container.manager", "/run/host/container-manager");
    file_fact("security.label", "/proc/self/attr/current");
    file_fact("memory.huge_pages", "/sys/kernel/mm/transparent_hugepage/enabled");
    link_fact("process.first", "/proc/1/exe");
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
    loopback_fact();
    processor_facts();
    vendor_fact();
    hostfs_fact();
    clock_facts();
    uint64_t memory[14] = {0}; /* struct sysinfo: totalram is the fifth word, its unit a 32-bit number near the end */
    if (ib_sys(__NR_sysinfo, memory) == 0) {
        uint32_t unit = ((uint32_t *)memory)[26];
        ib_fact_number("memory.total_mib", memory[4] * (unit ? unit : 1) >> 20, IB_CALL(sysinfo));
    } else {
        ib_fact_literal("memory.total_mib", "null", IB_CALL(sysinfo));
    }
    ib_fact_filesystem("filesystem.root", "/");
    const char *scratch = ib_env(&ib, "ISOBENCH_SCRATCH");
    if (scratch) ib_fact_filesystem("filesystem.scratch", scratch);
    else ib_fact_literal("filesystem.scratch", "null", "ISOBENCH_SCRATCH");
    uint64_t limit[2] = {0, 0};
    if (ib_sys(__NR_prlimit64, 0, 7 /* NOFILE */, 0, limit) == 0)
        ib_fact_number("limit.open_files", limit[0], "prlimit64");
    else ib_fact_literal("limit.open_files", "null", "prlimit64");
    if (argc > 2) {
        ib_long fd = ib_open(argv[2], IB_O_RDONLY, 0);
        ib_fact_literal("host.canary_readable", fd >= 0 ? "true" : "false", argv[2]);
        /* ENOENT (2): not visible. EACCES (13): visible, but forbidden. */
        ib_fact_number("host.canary_errno", fd >= 0 ? 0 : (uint64_t)-fd, argv[2]);
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
