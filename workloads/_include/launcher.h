/* launcher.h - what isobench's launchers share: their error messages, a seccomp filter, dropping capabilities.
 *
 * A launcher includes it after isobench.h.
 */
#ifndef ISOBENCH_LAUNCHER_H
#define ISOBENCH_LAUNCHER_H
#include "isobench.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>

#define NEW_NAMESPACES 0x7e020000 /* user, mount, PID, network, IPC, UTS, cgroup */
#define COUNT(a) (sizeof(a) / sizeof *(a))

/* Print what failed, and exit with 125, a code that no program of a stage uses. */
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

/* ---- system calls that are refused: those that Docker's default seccomp profile does not allow ---------------- */

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

static struct sock_filter filter[COUNT(refused) + 16];

static inline void filter_system_calls(void) {
    unsigned n = 0;
#define STEP(code_, jt_, jf_, k_) \
    filter[n++] = (struct sock_filter){.code = (code_), .jt = (jt_), .jf = (jf_), .k = (uint32_t)(k_)}
    STEP(BPF_LD | BPF_W | BPF_ABS, 0, 0, 4); /* the architecture */
    STEP(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, THIS_ARCH);
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_KILL_PROCESS);
    STEP(BPF_LD | BPF_W | BPF_ABS, 0, 0, 0); /* the number */
#ifdef __x86_64__
    STEP(BPF_JMP | BPF_JGE | BPF_K, 0, 1, 0x40000000); /* the x32 ABI has other numbers for the same calls (seccomp(2)) */
    STEP(BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | 38);
#endif
    /* clone3 has its flags in memory, which no filter can read. ENOSYS makes C libraries use clone. */
    STEP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, __NR_clone3);
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

static inline void drop_capabilities(void) {
    for (long c = 0; c < 64; c++)
        if (ib_sys(__NR_prctl, 24 /* PR_CAPBSET_DROP */, c, 0, 0, 0) < 0) break;
    ib_sys(__NR_prctl, 47 /* PR_CAP_AMBIENT */, 4 /* clear all */, 0, 0, 0);
    uint32_t header[2] = {0x20080522, 0}, none[6] = {0};
    must("capset", ib_sys(__NR_capset, header, none));
}

#endif
