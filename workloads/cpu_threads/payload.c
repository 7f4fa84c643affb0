/* cpu.threads - the work of cpu.sieve, divided among one thread for each usable CPU. It shows whether all CPUs are available.
 *
 * The amount of work does not depend on the number of threads. The checksum does not either: it is a sum, since threads
 * finish in any order.
 */
#include "isobench.h"

#define MOST 256
#define LIMIT 8192
struct part {
    struct ib_thread thread;
    uint64_t first, step, loops, sum;
    unsigned char composite[LIMIT / 2];
    char apart[64]; /* keeps parts in separate cache lines: threads would slow each other down otherwise */
};
static struct part parts[MOST];

static void run(void *argument) {
    struct part *p = argument;
    uint64_t sum = 0;
    for (uint64_t i = p->first; i < p->loops; i += p->step) sum += ib_mix(i, ib_sieve(p->composite, LIMIT - 2 * (uint32_t)(i % 64)));
    p->sum = sum;
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    uint64_t n = ib_cpus();
    if (n > MOST) n = MOST;
    if (ib->iteration < 0) {
        ib_fact_number("cpu.threads", n, IB_CALL(sched_getaffinity));
        /* One CPU needs no thread. The attempt fails nevertheless on a system that has none, as this workload should there. */
        ib_thread_start(&parts[0].thread, run, &parts[0]);
        ib_thread_join(&parts[0].thread);
    }
    for (uint64_t i = 0; i < n; i++) {
        parts[i].first = i;
        parts[i].step = n;
        parts[i].loops = loops;
    }
    for (uint64_t i = 1; i < n; i++) ib_thread_start(&parts[i].thread, run, &parts[i]);
    run(&parts[0]);
    uint64_t sum = parts[0].sum;
    for (uint64_t i = 1; i < n; i++) {
        ib_thread_join(&parts[i].thread);
        sum += parts[i].sum;
    }
    return sum;
}
