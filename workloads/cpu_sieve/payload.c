/* cpu.sieve - the sieve of Eratosthenes over the odd numbers below 65,536: integers, branches, L1 cache. */
#include "isobench.h"

#define LIMIT 65536
static unsigned char composite[LIMIT / 2];

static uint64_t sieve(uint32_t limit) {
    uint32_t half = limit / 2;
    for (uint32_t i = 0; i < half; i++) composite[i] = 0;
    uint64_t primes = 1; /* 2 */
    for (uint32_t i = 1; i < half; i++) {
        if (composite[i]) continue;
        uint32_t p = 2 * i + 1;
        primes++;
        for (uint64_t m = (uint64_t)p * p / 2; m < half; m += p) composite[m] = 1;
    }
    return primes;
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    (void)ib;
    uint64_t check = 0;
    /* The limit moves with the loop: no two passes are the same, none can be left out. */
    for (uint64_t i = 0; i < loops; i++) check = ib_mix(check, sieve(LIMIT - 2 * (uint32_t)(i % 512)));
    return check;
}
