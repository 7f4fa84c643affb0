/* io.fsync - overwrite 4 KiB of a file and wait until the device has stored it, as a database does for each commit. */
struct ib;
static void cleanup(struct ib *ib);
#define IB_CLEANUP cleanup
#include "isobench.h"

#define BLOCK 4096
#define BLOCKS 64
static unsigned char block[BLOCK];
static char path[512];
static ib_long fd = -1;

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    if (ib->iteration < 0) {
        ib_scratch_path(ib, path, sizeof path, ".fsync");
        ib_fact_filesystem("io.filesystem", ib->scratch);
        ib_fact_calls(ib, IB_CALL(pwrite64) " " IB_CALL(fdatasync));
        fd = ib_open(path, IB_O_RDWR | IB_O_CREAT | IB_O_EXCL, 0600);
        if (fd < 0) ib_fail("create a file in the scratch directory", fd);
        for (int i = 0; i < BLOCKS; i++) { /* the timed part overwrites these blocks, so that it allocates none */
            ib_long n = ib_write((int)fd, block, BLOCK);
            if (n != BLOCK) ib_fail("write to the scratch directory", n);
        }
        ib_sys(__NR_fsync, fd);
    }
    uint64_t check = 0;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        block[i % BLOCK] = (unsigned char)(i + 1);
        ib_long n = ib_sys(__NR_pwrite64, fd, block, BLOCK, i % BLOCKS * BLOCK);
        if (n != BLOCK) ib_fail("write to the scratch directory", n);
        ib_long r = ib_sys(__NR_fdatasync, fd);
        if (r < 0) ib_fail("fdatasync", r);
        check += (uint64_t)n;
    }
    ib_stop(ib);
    return check;
}

static void cleanup(struct ib *ib) {
    (void)ib;
    ib_close((int)fd);
    ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
}
