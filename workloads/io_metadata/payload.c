/* io.metadata - create, stat, rename and unlink an empty file: work on directories and inodes, without data and syncs. */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    char before[512], after[512];
    ib_scratch_path(ib, before, sizeof before, ".before");
    ib_scratch_path(ib, after, sizeof after, ".after");
    if (ib->iteration < 0) ib_fact_filesystem("io.filesystem", ib->scratch);
    ib_fact_calls(ib, IB_CALL(openat) " " IB_CALL(close) " " IB_CALL(statx) " " IB_CALL(renameat2) " " IB_CALL(unlinkat));
    uint64_t check = 0;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        uint64_t status[32]; /* struct statx is 256 bytes */
        ib_long fd = ib_open(before, IB_O_RDWR | IB_O_CREAT | IB_O_EXCL, 0600);
        if (fd < 0) ib_fail("create a file in the scratch directory", fd);
        ib_close((int)fd);
        ib_long r = ib_sys(__NR_statx, IB_AT_FDCWD, before, 0, 0x7ff, status);
        if (r < 0) ib_fail("statx", r);
        r = ib_sys(__NR_renameat2, IB_AT_FDCWD, before, IB_AT_FDCWD, after, 0);
        if (r < 0) ib_fail("renameat2", r);
        r = ib_sys(__NR_unlinkat, IB_AT_FDCWD, after, 0);
        if (r < 0) ib_fail("unlinkat", r);
        check += 4;
    }
    ib_stop(ib);
    return check;
}
