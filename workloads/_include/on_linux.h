/* on_linux.h - what isobench.h needs of the system, implemented with Linux system calls. No other system has all of them.
 *
 * A system's header defines IB_MACHINE, ib_sys with __NR_* numbers, IB_CALL, IB_O_*, ib_exit, ib_pages, ib_clock_ns, ib_spawn,
 * ib_cpus, threads and, if IB_ENTRY is defined, the entry point. It is included twice, since the entry point must come last.
 *
 * Source: syscall(2), clone(2).
 */
#ifndef IB_ENTRY
#include <asm/unistd.h>

#if defined(__x86_64__)
#define IB_MACHINE "x86_64"
#elif defined(__aarch64__)
#define IB_MACHINE "aarch64"
#elif defined(__riscv) && __riscv_xlen == 64
#define IB_MACHINE "riscv64"
#elif defined(IB_MACHINE_HEADER)
/* Another ISA, of a plug-in's toolchain. Its header defines IB_MACHINE, ib_syscall as below, and the instructions of
 * ib_clone and of _start as the strings IB_CLONE and IB_START. */
#include IB_MACHINE_HEADER
#else
#error "isobench.h knows x86_64, aarch64 and riscv64; for another ISA a toolchain names its IB_MACHINE_HEADER"
#endif

/* ---- system calls ---------------------------------------------------------------------------- */

#ifndef IB_MACHINE_HEADER
static inline long ib_syscall(long n, long a, long b, long c, long d, long e, long f) {
#if defined(__x86_64__)
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(r)
                     : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return r;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = n;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
#else
    register long a7 __asm__("a7") = n;
    register long a0 __asm__("a0") = a;
    register long a1 __asm__("a1") = b;
    register long a2 __asm__("a2") = c;
    register long a3 __asm__("a3") = d;
    register long a4 __asm__("a4") = e;
    register long a5 __asm__("a5") = f;
    __asm__ volatile("ecall"
                     : "+r"(a0)
                     : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
                     : "memory");
    return a0;
#endif
}
#endif

#define IB_ARGUMENT_7(n, a, b, c, d, e, f, ...) \
    ib_syscall((n), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* ib_sys(number, up to six arguments): the result, or minus errno. The result may be an address, which needs 64 bits. */
#define ib_sys(...) IB_ARGUMENT_7(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* The name of a call for facts. Other systems have other calls for the same purpose. */
#define IB_CALL(name) #name

#define IB_AT_FDCWD (-100)
#define IB_O_RDONLY 0
#define IB_O_WRONLY 1
#define IB_O_RDWR 2
#define IB_O_CREAT 0100
#define IB_O_EXCL 0200
#define IB_O_TRUNC 01000
#define IB_O_CLOEXEC 02000000
#if defined(__aarch64__)
#define IB_O_DIRECTORY 040000
#else
#define IB_O_DIRECTORY 0200000
#endif

static inline long ib_open(const char *path, int flags, int mode) {
    return ib_sys(__NR_openat, IB_AT_FDCWD, path, flags | IB_O_CLOEXEC, mode);
}
static inline long ib_close(int fd) { return ib_sys(__NR_close, fd); }
static inline long ib_read(int fd, void *p, size_t n) { return ib_sys(__NR_read, fd, p, n); }
static inline long ib_write(int fd, const void *p, size_t n) { return ib_sys(__NR_write, fd, p, n); }

__attribute__((noreturn)) static inline void ib_exit(int code) {
    for (;;) ib_sys(__NR_exit_group, code);
}

static inline void *ib_pages(size_t bytes) { /* anonymous memory, or NULL */
    long p = ib_sys(__NR_mmap, 0, bytes, 3 /* read, write */, 0x22 /* private, anonymous */, -1, 0);
    return p < 0 && p > -4096 ? NULL : (void *)p;
}

/* Start a program as a child: its number, or minus errno. One that cannot be executed exits with 99. */
static inline long ib_spawn(const char *program, char **words, char **environment) {
    long pid = ib_sys(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
    if (pid) return pid;
    ib_sys(__NR_execve, program, words, environment);
    ib_exit(99);
}

static inline uint64_t ib_clock_ns(int clock) {
    int64_t t[2] = {0, 0};
    ib_sys(__NR_clock_gettime, clock, t);
    return (uint64_t)t[0] * 1000000000u + (uint64_t)t[1];
}
/* The target's monotonic clock in nanoseconds. It is for durations; clocks of host and target are never subtracted. */
static inline uint64_t ib_now(void) { return ib_clock_ns(1); }

__attribute__((noreturn)) static void ib_fail(const char *what, ib_long result);

/* ---- threads --------------------------------------------------------------------------------- */

#ifndef ISOBENCH_LIBC
long ib_clone(long flags, void *stack, void *ptid, void *ctid, void (*f)(void *), void *argument);
#if defined(IB_MACHINE_HEADER)
__asm__(".text\n.global ib_clone\n.type ib_clone,@function\nib_clone:\n" IB_CLONE);
#elif defined(__x86_64__)
__asm__(".text\n.global ib_clone\n.type ib_clone,@function\nib_clone:\n"
        "sub $16,%rsi\nmov %r8,(%rsi)\nmov %r9,8(%rsi)\nmov %rcx,%r10\nxor %r8d,%r8d\n"
        "mov $56,%eax\nsyscall\ntest %eax,%eax\njz 1f\nret\n"
        "1: xor %ebp,%ebp\npop %rax\npop %rdi\ncall *%rax\nmov $60,%eax\nxor %edi,%edi\nsyscall\n");
#elif defined(__aarch64__)
__asm__(".text\n.global ib_clone\n.type ib_clone,@function\nib_clone:\n"
        "stp x4,x5,[x1,#-16]!\nmov x4,x3\nmov x3,#0\nmov x8,#220\nsvc 0\ncbz x0,1f\nret\n"
        "1: ldp x9,x0,[sp],#16\nmov x29,#0\nblr x9\nmov x0,#0\nmov x8,#93\nsvc 0\n");
#else
__asm__(".text\n.global ib_clone\n.type ib_clone,@function\nib_clone:\n"
        "addi a1,a1,-16\nsd a4,0(a1)\nsd a5,8(a1)\nmv a4,a3\nli a3,0\nli a7,220\necall\n"
        "beqz a0,1f\nret\n1: ld t0,0(sp)\nld a0,8(sp)\naddi sp,sp,16\njalr t0\n"
        "li a0,0\nli a7,93\necall\n");
#endif

/* The flags of a POSIX thread library. QEMU's user-mode emulation accepts no other set for a thread. */
#define IB_THREAD_FLAGS 0x250f00 /* VM FS FILES SIGHAND THREAD SYSVSEM CHILD_CLEARTID */
struct ib_thread {
    volatile int alive;
};
static inline void ib_thread_start(struct ib_thread *t, void (*f)(void *), void *argument) {
    const size_t stack = 65536;
    char *p = ib_pages(stack);
    if (!p) ib_fail("no memory for a thread's stack", -12);
    t->alive = 1;
    long r = ib_clone(IB_THREAD_FLAGS, p + stack, NULL, (void *)&t->alive, f, argument);
    if (r < 0) ib_fail("clone of a thread", r);
}
static inline void ib_thread_join(struct ib_thread *t) {
    int seen;
    while ((seen = t->alive)) ib_sys(__NR_futex, &t->alive, 0 /* FUTEX_WAIT */, seen, NULL);
}
#endif

/* How many CPUs this process may run on. */
static inline uint64_t ib_cpus(void) {
    uint64_t mask[128] = {0}, n = 0;
    long bytes = ib_sys(__NR_sched_getaffinity, 0, sizeof mask, mask);
    for (long i = 0; i < bytes / 8; i++)
        for (uint64_t m = mask[i]; m; m &= m - 1) n++;
    return n ? n : 1;
}

#else /* IB_ENTRY */

#ifdef ISOBENCH_LIBC
int main(int argc, char **argv, char **environment) { return ib_main(argc, argv, environment); }
#else
__attribute__((noreturn, used)) void ib_entry(long *stack) {
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    ib_exit(ib_main(argc, argv, argv + argc + 1));
}
#if defined(IB_MACHINE_HEADER)
__asm__(".text\n.global _start\n_start:\n" IB_START);
#elif defined(__x86_64__)
__asm__(".text\n.global _start\n_start:\nxor %ebp,%ebp\nmov %rsp,%rdi\nand $-16,%rsp\ncall ib_entry\n");
#elif defined(__aarch64__)
__asm__(".text\n.global _start\n_start:\nmov x29,#0\nmov x0,sp\nand x1,x0,#-16\nmov sp,x1\nbl ib_entry\n");
#else
__asm__(".text\n.global _start\n_start:\n.option push\n.option norelax\nla gp,__global_pointer$\n"
        ".option pop\nmv a0,sp\nandi sp,sp,-16\ncall ib_entry\n");
#endif
#endif

#endif
