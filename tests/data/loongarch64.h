/* loongarch64.h - what isobench.h needs of an ISA that it does not know: LoongArch, 64 bits, on Linux. */
#define IB_MACHINE "loongarch64"

static inline long ib_syscall(long n, long a, long b, long c, long d, long e, long f) {
    register long a7 __asm__("$a7") = n;
    register long a0 __asm__("$a0") = a;
    register long a1 __asm__("$a1") = b;
    register long a2 __asm__("$a2") = c;
    register long a3 __asm__("$a3") = d;
    register long a4 __asm__("$a4") = e;
    register long a5 __asm__("$a5") = f;
    __asm__ volatile("syscall 0"
                     : "+r"(a0)
                     : "r"(a7), "r"(a1), "r"(a2), "r"(a3), "r"(a4), "r"(a5)
                     : "$t0", "$t1", "$t2", "$t3", "$t4", "$t5", "$t6", "$t7", "$t8", "memory");
    return a0;
}

/* ib_clone(flags, stack, parent's id, child's id, function, argument): the child calls the function and ends. */
#define IB_CLONE                                                           \
    "addi.d $a1,$a1,-16\nst.d $a4,$a1,0\nst.d $a5,$a1,8\nmove $a4,$zero\n" \
    "li.w $a7,220\nsyscall 0\nbeqz $a0,1f\nret\n"                          \
    "1: ld.d $t0,$sp,0\nld.d $a0,$sp,8\naddi.d $sp,$sp,16\n"               \
    "jirl $ra,$t0,0\nli.w $a0,0\nli.w $a7,93\nsyscall 0\n"

/* The entry point: ib_entry(stack), on a stack of whole 16 bytes. */
#define IB_START "move $fp,$zero\nmove $a0,$sp\nbstrins.d $sp,$zero,3,0\nbl ib_entry\n"
