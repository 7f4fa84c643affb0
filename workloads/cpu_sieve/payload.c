/* cpu.sieve - the sieve of Eratosthenes over the odd numbers below 65,536: integers, branches, L1 cache. */
#include "isobench.h"

#define LIMIT 65536
static unsigned char composite[LIMIT / 2];

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    (void)ib;
    uint64_t check = 0;
    /* The limit changes with the loop: no two passes are the same, so that the compiler can leave none out. */
    for (uint64_t i = 0; i < loops; i++) check = ib_mix(check, ib_sieve(composite, LIMIT - 2 * (uint32_t)(i % 512)));
    return check;
}
