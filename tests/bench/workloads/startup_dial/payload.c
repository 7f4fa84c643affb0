/* startup.dial - a start that waits for 20 ms before it says its nonce, and so many thousandths of that longer as the
 * dial says: PAYLOAD NONCE [DIAL], or ISOBENCH_DIAL; 0 without.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

#define BASE_NS 20000000u

static int ib_main(int argc, char **argv, char **environment) {
    struct ib ib = {.nonce = argc > 1 ? argv[1] : "", .environment = environment};
    const char *dial = argc > 2 ? argv[2] : ib_env(&ib, "ISOBENCH_DIAL");
    uint64_t wait = BASE_NS + (dial ? ib_number(dial) * (BASE_NS / 1000) : 0);
    int64_t span[2] = {(int64_t)(wait / 1000000000u), (int64_t)(wait % 1000000000u)}; /* a struct timespec */
    ib_long r = ib_sys(__NR_nanosleep, span, 0);
    if (r < 0) ib_fail("nanosleep", r);
    ib_hello(&ib);
    return 0;
}
