/* app.pages - map a page, write to it, unmap it: every page is a fault, which the kernel counts.
 *
 * What it prints as facts is of its last iteration. The kernel's count begins before the program does, so only
 * differences of it say something of the work. (The peak of resident memory, ru_maxrss, is no such number: it outlives
 * execve, so that a start by a large process would stand in it.)
 */
#include "isobench.h"

struct usage {
    long of_user[2], of_system[2], peak, shared, data, stack, minor_faults, major_faults, others[8];
};

static long faults(void) {
    struct usage usage = {0};
    ib_long r = ib_sys(__NR_getrusage, 0 /* RUSAGE_SELF */, &usage);
    if (r < 0) ib_fail("getrusage", r);
    return usage.minor_faults;
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    uint64_t written = 0, began = ib_now();
    long before = faults();
    for (uint64_t i = 0; i < loops; i++) {
        ib_long page = ib_sys(__NR_mmap, 0, 4096, 3 /* read, write */, 0x22 /* private, anonymous */, -1, 0);
        if (page < 0 && page > -4096) ib_fail("mmap", page);
        *(volatile unsigned char *)(uintptr_t)page = 1;
        written += *(volatile unsigned char *)(uintptr_t)page;
        ib_sys(__NR_munmap, page, 4096);
    }
    long counted = faults() - before;
    uint64_t took = ib_now() - began;
    if (ib->iteration + 1 == (int)ib->iterations) {
        ib_fact_number("memory.faults", (uint64_t)counted, "getrusage");
        ib_fact_number("memory.pages_per_s", took ? loops * 1000000000u / took : 0, "its own clock");
    }
    return written;
}
