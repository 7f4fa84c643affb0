/* The launcher of the target `namespaces`: it makes a container from features of the kernel only.
 *
 *     _launch UID GID ROOT SCRATCH [CGROUP_PROCS...] -- PROGRAM [ARGUMENT...]
 *
 * UID and GID are the IDs outside of the container's root user. ROOT becomes the read-only root directory; it must contain
 * the empty directories proc, dev and scratch, and SCRATCH is mounted on the last one. The launcher first moves itself into
 * each cgroup whose cgroup.procs file is given. Then it sets up user, mount, PID, network, IPC, UTS and cgroup namespaces,
 * calls pivot_root, drops all capabilities, sets no-new-privileges and a seccomp filter, and executes PROGRAM as the first
 * process. Its exit code is that of PROGRAM (128 + n for signal n), or 125 with a line on standard error if it cannot start
 * PROGRAM. It needs no privilege if the kernel lets users make user namespaces.
 *
 *     _launch tie PROGRAM [ARGUMENT...]
 *
 * executes a helper that must not outlive isobench.
 *
 *     _launch tool [cgroup CGROUP_PROCS | cover DIRECTORY]... -- PROGRAM [ARGUMENT...]
 *
 * executes a tool that makes containers and must not outlive isobench. It first moves itself into each cgroup whose
 * cgroup.procs file is given, and mounts an empty tmpfs on each directory in a separate mount namespace. What the tool writes
 * there (locks, sockets, lists of its containers) then disappears with it.
 *
 *     _launch guard UID GID PROGRAM [ARGUMENT...]
 *
 * executes PROGRAM as this user, with a watcher. When PROGRAM or the process that started it has ended, the watcher kills the
 * whole process group at once; the launcher must be its leader. This is for a user-mode kernel: if only the kernel were killed,
 * the processes of its guest would go on as processes of the host.
 *
 * Sources: user_namespaces(7), mount_namespaces(7), pivot_root(2), prctl(2).
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "launcher.h"
#include "request.h"

#define MS_RDONLY 1
#define MS_NOSUID 2
#define MS_NODEV 4
#define MS_NOEXEC 8
#define MS_REMOUNT 32
#define MS_BIND 4096
#define MS_REC 16384
#define MS_PRIVATE (1 << 18)
#define MS_RELATIME (1 << 21)

#define WORK "/tmp"
#define NEW "/tmp/new"

static void put_file(const char *path, const char *text, size_t n) {
    long fd = must(path, ib_open(path, IB_O_WRONLY, 0));
    must(path, ib_write((int)fd, text, n));
    ib_close((int)fd);
}

/* ---- file systems ---------------------------------------------------------------------------------- */

static void descriptor_path(char path[32], long fd) {
    const char *p = "/proc/self/fd/";
    size_t n = 0;
    while (p[n]) path[n] = p[n], n++;
    if (fd >= 10) path[n++] = (char)('0' + fd / 10);
    path[n++] = (char)('0' + fd % 10);
    path[n] = 0;
}

/* Add restrictions to a bind mount. It must keep those that it has: in a user namespace they are locked, and a remount
 * without them fails (mount_namespaces(7)). */
static void restrict_mount(const char *path, unsigned long more) {
    uint64_t s[16] = {0};
    must("statfs of a mount", ib_sys(__NR_statfs, path, s));
    unsigned long flags = s[10] & 0xc0f; /* ro nosuid nodev noexec noatime nodiratime: the same bits in statfs and mount */
    if (s[10] & 0x1000) flags |= MS_RELATIME;
    must("remount", ib_sys(__NR_mount, 0, path, 0, MS_REMOUNT | MS_BIND | flags | more, 0));
}

static void bind_descriptor(long fd, const char *where, unsigned long more) {
    char path[32];
    descriptor_path(path, fd);
    must(where, ib_sys(__NR_mount, path, where, 0, MS_BIND, 0));
    restrict_mount(where, more);
}

/* Bind mounts of the host's devices: mknod is not permitted in a user namespace. */
static void make_devices(void) {
    static const char *const names[] = {"null", "zero", "full", "random", "urandom"};
    must("mount of /dev", ib_sys(__NR_mount, "tmpfs", NEW "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "size=64k,mode=755"));
    for (unsigned i = 0; i < COUNT(names); i++) {
        char from[32] = "/dev/", to[32] = NEW "/dev/";
        size_t f = 5, t = sizeof(NEW "/dev/") - 1;
        for (size_t j = 0; j <= ib_length(names[i]); j++) from[f + j] = to[t + j] = names[i][j];
        long fd = must(to, ib_open(to, IB_O_WRONLY | IB_O_CREAT, 0644));
        ib_close((int)fd);
        must(from, ib_sys(__NR_mount, from, to, 0, MS_BIND, 0));
    }
}

static void build_root(long root, long scratch) {
    must("private mounts", ib_sys(__NR_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0));
    must("mount of a working tmpfs on " WORK,
         ib_sys(__NR_mount, "tmpfs", WORK, "tmpfs", MS_NOSUID | MS_NODEV, "size=64k,mode=755"));
    must("mkdir", ib_sys(__NR_mkdirat, IB_AT_FDCWD, NEW, 0755));
    bind_descriptor(root, NEW, MS_RDONLY | MS_NOSUID | MS_NODEV);
    make_devices();
    bind_descriptor(scratch, NEW "/scratch", MS_NOSUID | MS_NODEV);
    must("mount of /proc", ib_sys(__NR_mount, "proc", NEW "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, 0));
    must("chdir", ib_sys(__NR_chdir, NEW));
    /* Both arguments may be the same: the old root is then mounted over the new one, and unmounted next (pivot_root(2)). */
    must("pivot_root", ib_sys(__NR_pivot_root, ".", "."));
    must("umount of the old root", ib_sys(__NR_umount2, ".", 2 /* MNT_DETACH */));
    must("chdir", ib_sys(__NR_chdir, "/"));
}

static void raise_loopback(void) {
    struct {
        char name[16];
        short flags;
        char rest[22];
    } request = {.name = "lo", .flags = 1 /* IFF_UP */};
    long fd = ib_sys(__NR_socket, 2, 2 | 02000000, 0);
    if (fd < 0) return; /* a kernel without IPv4 has no loopback interface to bring up */
    ib_sys(__NR_ioctl, fd, 0x8914 /* SIOCSIFFLAGS */, &request);
    ib_close((int)fd);
}

/* ---- the two sides --------------------------------------------------------------------------------- */

struct order {
    const char *uid, *gid;
    const char *root, *scratch;
    char **program, **environment;
    int ready[2];
};

static long directory(const char *path) {
    return must(path, ib_open(path, 010000000 /* O_PATH */ | IB_O_DIRECTORY, 0));
}

__attribute__((noreturn)) static void inside(struct order *o) {
    char go = 0;
    ib_close(o->ready[1]);
    if (ib_read(o->ready[0], &go, 1) != 1) ib_exit(125); /* the launcher has ended, and has printed the reason */
    /* Opened after the change of mount namespace: directories of another namespace cannot be bind-mounted. Opened before the
     * change of user: afterwards directories that only their owner may enter would be out of reach. */
    long root = directory(o->root), scratch = directory(o->scratch);
    must("setgid", ib_sys(__NR_setresgid, 0, 0, 0));
    must("setuid", ib_sys(__NR_setresuid, 0, 0, 0));
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9); /* after the change of user, which clears it */
    ib_sys(__NR_setsid);
    build_root(root, scratch);
    must("sethostname", ib_sys(__NR_sethostname, "isobench", 8));
    raise_loopback();
    drop_capabilities();
    filter_system_calls();
    /* The program inherits only the three standard streams: all other descriptors are close-on-exec. */
    give_up(o->program[0], ib_sys(__NR_execve, o->program[0], o->program, o->environment));
}

/* An unprivileged user may map one ID, and must deny setgroups before the map of groups (user_namespaces(7)). */
static void map_users(const struct order *o, long pid) {
    static const char *const files[] = {"/uid_map", "/setgroups", "/gid_map"};
    for (int i = 0; i < 3; i++) {
        char path[64], line[64];
        size_t n = 0, l = 0, digits = 0;
        char reversed[20];
        for (const char *p = "/proc/"; *p; p++) path[n++] = *p;
        for (long v = pid; v; v /= 10) reversed[digits++] = (char)('0' + v % 10);
        while (digits) path[n++] = reversed[--digits];
        for (const char *p = files[i]; *p; p++) path[n++] = *p;
        path[n] = 0;
        if (i == 1) {
            for (const char *p = "deny"; *p; p++) line[l++] = *p;
        } else {
            line[l++] = '0';
            line[l++] = ' ';
            for (const char *p = i ? o->gid : o->uid; *p && l < 40; p++) line[l++] = *p;
            line[l++] = ' ';
            line[l++] = '1';
        }
        put_file(path, line, l);
    }
}

static void cover(const char *directory) {
    static int own_mounts;
    if (!own_mounts++) {
        must("mount namespace", ib_sys(__NR_unshare, 0x20000 /* CLONE_NEWNS */));
        must("private mounts", ib_sys(__NR_mount, 0, "/", 0, MS_REC | MS_PRIVATE, 0));
    }
    must(directory, ib_sys(__NR_mount, "tmpfs", directory, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755"));
}

__attribute__((noreturn)) static void execute_tool(int argc, char **argv, char **environment) {
    int at = 2;
    for (; at + 1 < argc && !ib_same(argv[at], "--", 3); at += 2) {
        if (ib_same(argv[at], "cgroup", 7)) put_file(argv[at + 1], "0", 1);
        else if (ib_same(argv[at], "cover", 6)) cover(argv[at + 1]);
        else give_up(argv[at], -22);
    }
    if (at + 1 >= argc || !ib_same(argv[at], "--", 3)) give_up("no program after --", 0);
    give_up(argv[at + 1], ib_sys(__NR_execve, argv[at + 1], argv + at + 1, environment));
}

__attribute__((noreturn)) static void watch(long starter, long program) {
    struct ib_poll ends[2] = {{(int)starter, IB_READABLE, 0}, {(int)program, IB_READABLE, 0}};
    while (ib_wait_any(ends, 2) == -4 /* EINTR */) {
    }
    ib_sys(__NR_kill, 0, 9); /* the process group, with this process: one system call reaches all at the same time */
    ib_exit(0);
}

__attribute__((noreturn)) static void guard(const char *uid, const char *gid, char **program, char **environment) {
    long starter = must("pidfd_open", ib_sys(__NR_pidfd_open, ib_sys(__NR_getppid), 0));
    long self = must("pidfd_open", ib_sys(__NR_pidfd_open, ib_sys(__NR_getpid), 0));
    if (must("fork", ib_fork()) == 0) watch(starter, self);
    ib_close((int)starter);
    ib_close((int)self);
    if (ib_sys(__NR_geteuid) == 0) must("setgroups", ib_sys(__NR_setgroups, 0, 0));
    must("setgid", ib_sys(__NR_setresgid, ib_number(gid), ib_number(gid), ib_number(gid)));
    must("setuid", ib_sys(__NR_setresuid, ib_number(uid), ib_number(uid), ib_number(uid)));
    /* For the case that the watcher is killed: at SIGTERM a user-mode kernel ends the processes of its guest. It is set after
     * the change of user, which clears it. */
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 15);
    give_up(program[0], ib_sys(__NR_execve, program[0], program, environment));
}

static int ib_main(int argc, char **argv, char **environment) {
    if (argc > 2 && ib_same(argv[1], "tool", 5)) {
        ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
        execute_tool(argc, argv, environment);
    }
    if (argc > 4 && ib_same(argv[1], "guard", 6)) guard(argv[2], argv[3], argv + 4, environment);
    if (argc > 2 && ib_same(argv[1], "tie", 4)) {
        ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
        give_up(argv[2], ib_sys(__NR_execve, argv[2], argv + 2, environment));
    }
    if (argc < 7) give_up("usage: _launch UID GID ROOT SCRATCH [CGROUP_PROCS...] -- PROGRAM [ARGUMENT...]", 0);
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
    struct order o = {.uid = argv[1], .gid = argv[2], .root = argv[3], .scratch = argv[4]};
    o.environment = environment;
    int at = 5;
    for (; at < argc && !ib_same(argv[at], "--", 3); at++) put_file(argv[at], "0", 1);
    if (at + 1 >= argc) give_up("no program after --", 0);
    o.program = argv + at + 1;
    must("pipe", ib_sys(__NR_pipe2, o.ready, 02000000));
    long pid = ib_sys(__NR_clone, NEW_NAMESPACES | 17 /* SIGCHLD */, 0, 0, 0, 0);
    if (pid == 0) inside(&o);
    must("clone with new namespaces", pid);
    ib_close(o.ready[0]);
    map_users(&o, pid);
    must("start of the first process", ib_write(o.ready[1], "g", 1));
    ib_close(o.ready[1]);
    ib_close(0); /* only the program may hold its input and output: the host and the program must see the end of a stream */
    ib_close(1); /* when the other side closes it, while this process still waits */
    int status = 0;
    long r;
    while ((r = ib_sys(__NR_wait4, pid, &status, 0, 0)) == -4) {
    }
    must("wait", r);
    return status & 127 ? 128 + (status & 127) : status >> 8 & 255;
}
