/* io.seq-write - write a new file in pieces of 1 MiB and wait until the device has stored it (fdatasync).
 *
 * One loop is 1 MiB. The file is read back afterwards, which is not timed: the checksum covers what the file system
 * returns.
 */
#include "isobench.h"

#define PIECE (1 << 20)
static unsigned char *piece;

static void fill(uint64_t seed) {
    uint64_t *p = (uint64_t *)piece, x = seed * 0x9e3779b97f4a7c15u + 1;
    for (int i = 0; i < PIECE / 8; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = x;
    }
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    char path[512];
    ib_scratch_path(ib, path, sizeof path, ".write");
    if (!piece && !(piece = ib_pages(PIECE))) ib_fail("no memory", -12);
    if (ib->iteration < 0) ib_fact_filesystem("io.filesystem", ib->scratch);
    ib_fact_calls(ib, IB_CALL(write) " " IB_CALL(fdatasync));
    fill(1);
    ib_long fd = ib_open(path, IB_O_RDWR | IB_O_CREAT | IB_O_EXCL, 0600);
    if (fd < 0) ib_fail("create a file in the scratch directory", fd);
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        ib_long n = ib_write((int)fd, piece, PIECE);
        if (n != PIECE) {
            n = ib_cut_short((int)fd, piece, PIECE, n);
            ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
            ib_fail("write to the scratch directory", n);
        }
    }
    ib_long r = ib_sys(__NR_fdatasync, fd);
    ib_stop(ib);
    uint64_t check = loops;
    ib_sys(__NR_lseek, fd, 0, 0);
    for (uint64_t i = 0; i < loops; i++) {
        ib_long n = ib_read((int)fd, piece, PIECE);
        if (n != PIECE) ib_fail("read back from the scratch directory", n);
        for (int at = 0; at < PIECE / 8; at += 512) check = ib_mix(check, ((uint64_t *)piece)[at]);
    }
    ib_close((int)fd);
    ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
    if (r < 0) ib_fail("fdatasync", r);
    return check;
}
