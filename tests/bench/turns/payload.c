/* One turn of the sieve of Eratosthenes for each byte of standard input: it answers with the nanoseconds that the turn took.
 *
 *     turns PASSES [UNTIMED]
 *
 * UNTIMED passes come before the timed ones of each turn.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

#define LIMIT 65536
static unsigned char composite[LIMIT / 2];

static uint64_t pass(uint64_t check, uint64_t i) {
    return ib_mix(check, ib_sieve(composite, LIMIT - 2 * (uint32_t)(i % 512)));
}

static int ib_main(int argc, char **argv, char **environment) {
    (void)environment;
    uint64_t passes = argc > 1 ? ib_number(argv[1]) : 1, untimed = argc > 2 ? ib_number(argv[2]) : 0, check = 0;
    char request = 0;
    while (ib_read(0, &request, 1) == 1) {
        for (uint64_t i = 0; i < untimed; i++) check = pass(check, i);
        uint64_t began = ib_now();
        for (uint64_t i = 0; i < passes; i++) check = pass(check, i);
        ib_decimal(ib_now() - began);
        ib_byte(' ');
        ib_hex(check, 16);
        ib_byte('\n');
        ib_flush();
    }
    return 0;
}
