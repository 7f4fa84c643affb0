/* cpu.dial - work that can be made longer by a known share and computes the same: BASE steps of a generator a loop,
 * and so many thousandths of BASE more as the dial says: the first argument, or ISOBENCH_DIAL; 0 without.
 *
 * A step is Marsaglia's xorshift: three shifts and three exclusive ors that wait for each other, so that time goes
 * by steps and by nothing else. What the dial adds goes into a sink, and not into the checksum.
 */
#include "isobench.h"

#define BASE 20000

static volatile uint64_t sink;
static volatile uint64_t nothing; /* 0, which no compiler may know */

/* Not in line: what the dial adds must be the same instructions. */
__attribute__((noinline)) static uint64_t walk(uint64_t x, uint64_t steps) {
    while (steps--) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
    }
    return x;
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    const char *dial = ib->arguments[0] ? ib->arguments[0] : ib_env(ib, "ISOBENCH_DIAL");
    uint64_t more = dial ? ib_number(dial) * BASE / 1000 : 0;
    uint64_t state = 88172645463325252u, steps = 0, check = 0, added = 0;
    for (uint64_t i = 0; i < loops; i++) {
        state = walk(state, BASE);
        check = ib_mix(check, state);
        uint64_t further = walk(state, more);
        added = ib_mix(added, further);
        /* The next loop waits for this one's last step: else a processor would begin it beside what was added. */
        state ^= further & nothing;
        steps += BASE + more;
    }
    sink = added;
    if (ib->iteration < 0) {
        char text[17];
        for (int digit = 0; digit < 16; digit++) text[digit] = "0123456789abcdef"[added >> (60 - 4 * digit) & 15];
        ib_fact_n("dial.added", text, 16, "the states after what the dial added");
        ib_fact_number("dial.steps", steps, "counted in one iteration");
    }
    return check;
}
