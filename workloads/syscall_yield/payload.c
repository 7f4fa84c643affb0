/* syscall.yield - offer the processor to others: a call that the kernel answers alone.
 *
 * Beside syscall.getppid it tells two kinds of calls apart where one technology has both: under Wine this one goes
 * straight to the kernel, the other to a server process and back.
 */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    ib_fact_calls(ib, IB_CALL(sched_yield));
    uint64_t answered = 0;
    for (uint64_t i = 0; i < loops; i++) answered += ib_sys(__NR_sched_yield) >= 0;
    return answered;
}
