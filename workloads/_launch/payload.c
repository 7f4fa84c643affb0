/* The launcher behind the target `namespaces`: a container made of the kernel's own parts and nothing else.
 *
 *     _launch UID GID ROOT SCRATCH [CGROUP_PROCS...] -- PROGRAM [ARGUMENT...]
 *
 * UID and GID are who the container's root is outside. ROOT becomes the read-only root directory and must hold
 * the empty directories proc, dev and scratch; SCRATCH is mounted on the last of them. The launcher first moves itself
 * into each cgroup whose cgroup.procs file is named. Then: user, mount, PID, network, IPC, UTS and cgroup namespaces,
 * pivot_root, no capability, no-new-privileges, a seccomp filter, and PROGRAM as the first process.
 * It exits as PROGRAM does (128 + n for a signal), and with 125 and a line on standard error if it could not start it.
 * It needs no privilege where the kernel lets users make user namespaces.
 *
 *     _launch tie PROGRAM [ARGUMENT...]
 *
 * PROGRAM, which dies with the process that started it.
 *
 *     _launch guard UID GID PROGRAM [ARGUMENT...]
 *
 * PROGRAM as this user, with a watcher beside it: when PROGRAM has ended, or the process that started it, the watcher kills the
 * whole process group, of which the launcher must be the first, in one instant. For a user-mode kernel: killed by itself it
 * would let its guest's processes loose on the host.
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "request.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define NEW_NAMESPACES 0x7e020000 /* user, mount, PID, network, IPC, UTS, cgroup */
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

__attribute__((noreturn)) static void give_up(const char *what, long result) {
    ib_filled = 0;
    ib_text("isobench launcher: ");
    ib_text(what);
    ib_text(": errno ");
    ib_decimal(result < 0 ? (uint64_t)-result : 0);
    ib_byte('\n');
    ib_write(2, ib_buffer, ib_filled);
    ib_exit(125);
}
static long must(const char *what, long result) {
    if (result < 0) give_up(what, result);
    return result;
}

static void put_file(const char *path, const char *text, size_t n) {
    long fd = must(path, ib_open(path, IB_O_WRONLY, 0));
    must(path, ib_write((int)fd, text, n));
    ib_close((int)fd);
}

/* ---- what the container's root may not ask of the kernel: the list that Docker's default profile refuses ---- */

static const int refused[] = {
    __NR_acct,          __NR_add_key,       __NR_adjtimex,          __NR_bpf,
    __NR_chroot,        __NR_clock_adjtime, __NR_clock_settime,     __NR_delete_module,
    __NR_finit_module,  __NR_fsconfig,      __NR_fsmount,           __NR_fsopen,
    __NR_fspick,        __NR_init_module,   __NR_io_uring_enter,    __NR_io_uring_register,
    __NR_io_uring_setup, __NR_kcmp,         __NR_kexec_file_load,   __NR_kexec_load,
    __NR_keyctl,        __NR_lookup_dcookie, __NR_mbind,            __NR_migrate_pages,
    __NR_mount,         __NR_mount_setattr, __NR_move_mount,        __NR_move_pages,
    __NR_name_to_handle_at, __NR_nfsservctl, __NR_open_by_handle_at, __NR_open_tree,
    __NR_perf_event_open, __NR_personality, __NR_pidfd_getfd,       __NR_pivot_root,
    __NR_process_madvise, __NR_process_vm_readv, __NR_process_vm_writev, __NR_ptrace,
    __NR_quotactl,      __NR_quotactl_fd,   __NR_reboot,            __NR_request_key,
    __NR_setdomainname, __NR_sethostname,   __NR_setns,             __NR_settimeofday,
    __NR_set_mempolicy, __NR_swapoff,       __NR_swapon,            __NR_syslog,
    __NR_umount2,       __NR_unshare,       __NR_userfaultfd,       __NR_vhangup,
#ifdef __x86_64__
    __NR_ioperm,        __NR_iopl,          __NR_create_module,     __NR_get_kernel_syms,
    __NR_query_module,  __NR_uselib,        __NR_ustat,             __NR_sysfs,
    __NR__sysctl,       __NR_modify_ldt,    __NR_vserver,
#endif
};

#if defined(__x86_64__)
#define THIS_ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define THIS_ARCH AUDIT_ARCH_AARCH64
#else
#define THIS_ARCH AUDIT_ARCH_RISCV64
#endif
#define COUNT(a) (sizeof(a) / sizeof *(a))

static struct sock_filter filter[COUNT(refused) + 16];

static void confine(void) {
    unsigned n = 0;
#define STEP(code_, jt_, jf_, k_) \
    filter[n++] = (struct sock_filter){.code = (code_), .jt = (jt_), .jf = (jf_), .k = (uint32_t)(k_)}
    STEP(BPF_LD | BPF_W | BPF_ABS, 0, 0, 4); /* the architecture */
    STEP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, THIS_ARCH);
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    STEP(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0); /* the number */
#ifdef __x86_64__
    STEP(BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000); /* the x32 calls have numbers of their own */
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 38);
#endif
    STEP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, __NR_clone3); /* its flags lie in memory: no filter can read them */
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 38);
    STEP(BPF_JMP | BPF_JEQ | BPF_K, 0, 3, __NR_clone);
    STEP(BPF_LD | BPF_W | BPF_ABS, 0, 0, 16); /* clone's flags */
    STEP(BPF_JMP | BPF_JSET | BPF_K, COUNT(refused) + 1, 0, NEW_NAMESPACES);
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    for (unsigned i = 0; i < COUNT(refused); i++)
        STEP(BPF_JMP | BPF_JEQ | BPF_K, COUNT(refused) - i, 0, refused[i]);
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW);
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 1);
    struct sock_fprog program = {.len = (unsigned short)n, .filter = filter};
    must("no_new_privs", ib_sys(__NR_prctl, 38, 1, 0, 0, 0));
    must("seccomp", ib_sys(__NR_prctl, 22, 2, &program));
}

static void drop_capabilities(void) {
    for (long c = 0; c < 64; c++)
        if (ib_sys(__NR_prctl, 24 /* PR_CAPBSET_DROP */, c, 0, 0, 0) < 0) break;
    ib_sys(__NR_prctl, 47 /* PR_CAP_AMBIENT */, 4 /* clear all */, 0, 0, 0);
    uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
    must("capset", ib_sys(__NR_capset, header, none));
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

/* A bind mount with more restrictions keeps those it has: in a user namespace they are locked. */
static void restrict_mount(const char *path, unsigned long more) {
    uint64_t s[16] = {0};
    must("statfs of a mount", ib_sys(__NR_statfs, path, s));
    unsigned long flags = s[10] & 0xc0f; /* ro nosuid nodev noexec noatime nodiratime: same bits in both worlds */
    if (s[10] & 0x1000) flags |= MS_RELATIME;
    must("remount", ib_sys(__NR_mount, 0, path, 0, MS_REMOUNT | MS_BIND | flags | more, 0));
}

static void bind_descriptor(long fd, const char *where, unsigned long more) {
    char path[32];
    descriptor_path(path, fd);
    must(where, ib_sys(__NR_mount, path, where, 0, MS_BIND, 0));
    restrict_mount(where, more);
}

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
    if (fd < 0) return; /* a kernel without IPv4 has no loopback to raise */
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
    if (ib_read(o->ready[0], &go, 1) != 1) ib_exit(125); /* the launcher has died or said why */
    /* Opened in this mount namespace, or they could not be bound, and before the change of user, or directories
     * closed to everyone but their owner could not be passed. */
    long root = directory(o->root), scratch = directory(o->scratch);
    must("setgid", ib_sys(__NR_setresgid, 0, 0, 0));
    must("setuid", ib_sys(__NR_setresuid, 0, 0, 0));
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9); /* a change of user clears it: so after it */
    ib_sys(__NR_setsid);
    build_root(root, scratch);
    must("sethostname", ib_sys(__NR_sethostname, "isobench", 8));
    raise_loopback();
    drop_capabilities();
    confine();
    /* Only the three standard streams go on: every other descriptor was opened close-on-exec. */
    give_up(o->program[0], ib_sys(__NR_execve, o->program[0], o->program, o->environment));
}

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

__attribute__((noreturn)) static void watch(long starter, long program) {
    struct ib_poll ends[2] = {{(int)starter, IB_READABLE, 0}, {(int)program, IB_READABLE, 0}};
    while (ib_wait_any(ends, 2) == -4 /* EINTR */) {
    }
    ib_sys(__NR_kill, 0, 9); /* itself, too */
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
    /* Should the watcher be killed by itself: a user-mode kernel ends its guest's processes at this signal. After the
     * change of user, which clears it. */
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 15);
    give_up(program[0], ib_sys(__NR_execve, program[0], program, environment));
}

static int ib_main(int argc, char **argv, char **environment) {
    if (argc > 4 && ib_same(argv[1], "guard", 6)) guard(argv[2], argv[3], argv + 4, environment);
    if (argc > 2 && ib_same(argv[1], "tie", 4)) { /* a helper process that must not outlive isobench */
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
    ib_close(0); /* the socket or pipe is the program's alone: its end must be seen when the host closes it */
    ib_close(1); /* and output ends when the program's side of it ends */
    int status = 0;
    long r;
    while ((r = ib_sys(__NR_wait4, pid, &status, 0, 0)) == -4) {
    }
    must("wait", r);
    return status & 127 ? 128 + (status & 127) : status >> 8 & 255;
}
