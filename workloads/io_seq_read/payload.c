/* io.seq-read - read a file from its beginning in pieces of 1 MiB, after dropping it from the page cache.
 *
 * Before each pass the file's pages are dropped (posix_fadvise DONTNEED), and mincore(2) counts those that stayed. The
 * fact io.cached_percent shows how much was read from memory; it is null if that is unknown. Caches of a hypervisor or of
 * the device itself are not visible here.
 */
struct ib;
static void cleanup(struct ib *ib);
#define IB_CLEANUP cleanup
#include "isobench.h"

#define PIECE (1 << 20)
static unsigned char *piece;
static uint64_t worst_cached;
static int cannot_tell;
static char path[512];

static void make(uint64_t loops) {
    ib_long fd = ib_open(path, IB_O_RDWR | IB_O_CREAT | IB_O_EXCL, 0600);
    if (fd < 0) ib_fail("create a file in the scratch directory", fd);
    uint64_t x = 88172645463325252u;
    for (uint64_t i = 0; i < loops; i++) {
        for (int at = 0; at < PIECE / 8; at++) {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            ((uint64_t *)piece)[at] = x;
        }
        ib_long n = ib_write((int)fd, piece, PIECE);
        if (n != PIECE) {
            n = ib_cut_short((int)fd, piece, PIECE, n);
            ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
            ib_fail("write to the scratch directory", n);
        }
    }
    ib_long r = ib_sys(__NR_fsync, fd);
    if (r < 0) ib_fail("fsync", r);
    ib_close((int)fd);
}

static uint64_t cached_percent(int fd, uint64_t bytes) {
    static unsigned char resident[1 << 16]; /* 256 MiB of 4 KiB pages: workload.toml keeps below it */
    uint64_t pages = bytes / 4096, in = 0;
    if (pages > sizeof resident) return 100;
    ib_long map = ib_sys(__NR_mmap, 0, bytes, 1, 1 /* shared */, fd, 0);
    cannot_tell |= map < 0 && map > -4096;
    if (cannot_tell) return 0;
    ib_long r = ib_sys(__NR_mincore, map, bytes, resident);
    ib_sys(__NR_munmap, map, bytes);
    cannot_tell |= r < 0;
    for (uint64_t i = 0; i < pages; i++) in += resident[i] & 1;
    return (in * 100 + pages - 1) / pages;
}

static uint64_t ib_work(struct ib *ib, uint64_t loops) {
    if (ib->iteration < 0) {
        ib_scratch_path(ib, path, sizeof path, ".read");
        if (!(piece = ib_pages(PIECE))) ib_fail("no memory", -12);
        ib_fact_filesystem("io.filesystem", ib->scratch);
        ib_fact_calls(ib, IB_CALL(read));
        make(loops);
    }
    ib_long fd = ib_open(path, IB_O_RDONLY, 0);
    if (fd < 0) ib_fail("open the file to read", fd);
    ib_sys(__NR_fadvise64, fd, 0, 0, 4 /* POSIX_FADV_DONTNEED */);
    uint64_t cached = cached_percent((int)fd, loops * PIECE);
    if (ib->iteration >= 0 && cached > worst_cached) worst_cached = cached;
    uint64_t check = loops;
    ib_start(ib);
    for (uint64_t i = 0; i < loops; i++) {
        ib_long n = ib_read((int)fd, piece, PIECE);
        if (n != PIECE) ib_fail("read from the scratch directory", n);
        for (int at = 0; at < PIECE / 8; at += 512) check = ib_mix(check, ((uint64_t *)piece)[at]);
    }
    ib_stop(ib);
    ib_close((int)fd);
    return check;
}

static void cleanup(struct ib *ib) {
    (void)ib;
    ib_sys(__NR_unlinkat, IB_AT_FDCWD, path, 0);
    if (cannot_tell) ib_fact_literal("io.cached_percent", "null", "mincore");
    else ib_fact_number("io.cached_percent", worst_cached, "mincore");
}
