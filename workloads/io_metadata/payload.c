/* io.metadata - link, stat, rename and unlink an empty file: work on directories and inodes, without data and syncs.
 *
 * The file is created once for each iteration, before the clock starts. A creation would cost what the file system's
 * history makes it cost: ext4 without a journal searches for an inode that was not deleted in the last minutes
 * (recently_deleted in fs/ext4/ialloc.c), and one and the same payload took 18 to 800 microseconds a file by the
 * directory that it worked in.
 */
#include "isobench.h"

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    char file[512], before[512], after[512];
    ib_scratch_path(ib, file, sizeof file, ".file");
    ib_scratch_path(ib, before, sizeof before, ".before");
    ib_scratch_path(ib, after, sizeof after, ".after");
    if (ib->iteration < 0) ib_fact_filesystem("io.filesystem", ib->scratch);
    ib_fact_calls(ib, IB_CALL(linkat) " " IB_CALL(statx) " " IB_CALL(renameat2) " " IB_CALL(unlinkat));
    ib_long fd = ib_open(file, IB_O_RDWR | IB_O_CREAT | IB_O_EXCL, 0600);
    if (fd < 0) ib_fail("create a file in the scratch directory", fd);
    ib_close((int)fd);
    uint64_t check = 0;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        uint64_t status[32]; /* struct statx is 256 bytes */
        ib_long r = ib_sys(__NR_linkat, IB_AT_FDCWD, file, IB_AT_FDCWD, before, 0);
        if (r < 0) ib_fail("linkat", r);
        r = ib_sys(__NR_statx, IB_AT_FDCWD, before, 0, 0x7ff, status);
        if (r < 0) ib_fail("statx", r);
        r = ib_sys(__NR_renameat2, IB_AT_FDCWD, before, IB_AT_FDCWD, after, 0);
        if (r < 0) ib_fail("renameat2", r);
        r = ib_sys(__NR_unlinkat, IB_AT_FDCWD, after, 0);
        if (r < 0) ib_fail("unlinkat", r);
        check += 4;
    }
    ib_stop(ib);
    ib_sys(__NR_unlinkat, IB_AT_FDCWD, file, 0);
    return check;
}
