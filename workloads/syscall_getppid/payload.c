/* syscall.getppid - the cheapest system call that always enters the kernel. (C libraries have cached getpid, and the vDSO
 * implements clock_gettime in user space: see vdso(7).) */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    ib_fact_calls(ib, IB_CALL(getppid));
    uint64_t answered = 0;
    if (ib->iteration < 0) {
        ib_long parent = ib_sys(__NR_getppid);
        if (parent < 0) ib_fail("getppid", parent);
    }
    for (uint64_t i = 0; i < loops; i++) answered += ib_sys(__NR_getppid) >= 0;
    return answered;
}
