/* One turn of the sieve of Eratosthenes for each byte of standard input: it answers with the nanoseconds that the turn took.
 *
 *     turns PASSES
 */
#define ISOBENCH_MAIN
#include "isobench.h"

#define LIMIT 65536
static unsigned char composite[LIMIT / 2];

static int ib_main(int argc, char **argv, char **environment) {
    (void)environment;
    uint64_t passes = argc > 1 ? ib_number(argv[1]) : 1, check = 0;
    char request = 0;
    while (ib_read(0, &request, 1) == 1) {
        uint64_t began = ib_now();
        for (uint64_t i = 0; i < passes; i++) check = ib_mix(check, ib_sieve(composite, LIMIT - 2 * (uint32_t)(i % 512)));
        ib_decimal(ib_now() - began);
        ib_byte(' ');
        ib_hex(check, 16);
        ib_byte('\n');
        ib_flush();
    }
    return 0;
}
