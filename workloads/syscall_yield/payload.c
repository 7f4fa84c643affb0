/* syscall.yield - yield the processor to other threads, a call that only the kernel is involved in.
 *
 * Together with syscall.getppid it distinguishes two kinds of calls: under Wine this one goes directly to the kernel, the
 * other one to a server process and back.
 */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    ib_fact_calls(ib, IB_CALL(sched_yield));
    uint64_t answered = 0;
    for (uint64_t i = 0; i < loops; i++) answered += ib_sys(__NR_sched_yield) >= 0;
    return answered;
}
