/* syscall.open-close - open the payload's own file and close it: a path look-up, permission checks, a descriptor. */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    static const char *name;
    ib_fact_calls(ib, IB_CALL(openat) " " IB_CALL(close));
    if (!name) name = ib_own_name(ib);
    uint64_t opened = 0;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        ib_long fd = ib_open(name, IB_O_RDONLY, 0);
        if (fd < 0) ib_fail("open of the payload's own file", fd);
        opened += ib_close((int)fd) == 0;
    }
    ib_stop(ib);
    return opened;
}
