/* on_wasi.h - what isobench.h needs of the system, in WebAssembly, implemented with WASI preview 1.
 *
 * It defines the names of on_linux.h, so that payloads have one source. ib_sys takes Linux's numbers and returns a result or
 * minus a Linux errno. It calls WASI. Without a counterpart in WASI the result is -38 (ENOSYS): for processes, threads, /proc
 * and mapped memory.
 *
 * WASI has no current directory: chdir stores a descriptor to which paths are relative. An absolute path is looked up in the
 * granted directory that is its longest prefix. Without one, WASI is called nevertheless and refuses: this file does not
 * decide what a payload may access.
 *
 * Source: github.com/WebAssembly/WASI, "WASI preview 1" (wasi_snapshot_preview1.witx).
 */
#ifndef IB_ENTRY
#include <asm/unistd_64.h> /* only for the names: WASI has no numbers */

#define IB_MACHINE "wasm32"

/* The WASI function that implements a call of Linux, for facts. */
#define IB_CALL(name) IB_CALL_##name
#define IB_CALL_clock_gettime "clock_time_get"
#define IB_CALL_close "fd_close"
#define IB_CALL_execve "execve"
#define IB_CALL_fdatasync "fd_datasync"
#define IB_CALL_getppid "getppid"
#define IB_CALL_linkat "path_link"
#define IB_CALL_openat "path_open"
#define IB_CALL_pwrite64 "fd_pwrite"
#define IB_CALL_read "fd_read"
#define IB_CALL_renameat2 "path_rename"
#define IB_CALL_sched_getaffinity "sched_getaffinity"
#define IB_CALL_sched_yield "sched_yield"
#define IB_CALL_statfs "statfs"
#define IB_CALL_statx "path_filestat_get"
#define IB_CALL_sysinfo "sysinfo"
#define IB_CALL_unlinkat "path_unlink_file"
#define IB_CALL_wait4 "wait4"
#define IB_CALL_write "fd_write"

/* ---- WASI ------------------------------------------------------------------------------------ */

#define IB_WASI(name) \
    __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) int32_t ib_wasi_##name
struct ib_vector {
    const void *at;
    size_t size;
};
struct ib_stat {
    uint64_t device, inode, kind, links, size, accessed, modified, changed;
};
struct ib_granted {
    uint32_t kind, length;
};
IB_WASI(args_sizes_get)(size_t *count, size_t *bytes);
IB_WASI(args_get)(char **argv, char *strings);
IB_WASI(environ_sizes_get)(size_t *count, size_t *bytes);
IB_WASI(environ_get)(char **variables, char *strings);
IB_WASI(clock_time_get)(int32_t clock, uint64_t precision, uint64_t *nanoseconds);
IB_WASI(fd_advise)(int32_t fd, uint64_t offset, uint64_t length, int32_t advice);
IB_WASI(fd_close)(int32_t fd);
IB_WASI(fd_datasync)(int32_t fd);
IB_WASI(fd_sync)(int32_t fd);
IB_WASI(fd_read)(int32_t fd, const struct ib_vector *to, size_t count, size_t *n);
IB_WASI(fd_write)(int32_t fd, const struct ib_vector *from, size_t count, size_t *n);
IB_WASI(fd_pread)(int32_t fd, const struct ib_vector *to, size_t count, uint64_t offset, size_t *n);
IB_WASI(fd_pwrite)(int32_t fd, const struct ib_vector *from, size_t count, uint64_t offset, size_t *n);
IB_WASI(fd_seek)(int32_t fd, int64_t offset, int32_t whence, uint64_t *at);
IB_WASI(fd_prestat_get)(int32_t fd, struct ib_granted *granted);
IB_WASI(fd_prestat_dir_name)(int32_t fd, char *name, size_t length);
IB_WASI(path_open)(int32_t fd, int32_t follow, const char *path, size_t length, int32_t how, uint64_t rights,
                   uint64_t inherited, int32_t flags, int32_t *opened);
IB_WASI(path_filestat_get)(int32_t fd, int32_t follow, const char *path, size_t length, struct ib_stat *stat);
IB_WASI(path_create_directory)(int32_t fd, const char *path, size_t length);
IB_WASI(path_remove_directory)(int32_t fd, const char *path, size_t length);
IB_WASI(path_readlink)(int32_t fd, const char *path, size_t length, char *to, size_t size, size_t *n);
IB_WASI(path_link)(int32_t fd, int32_t follow, const char *path, size_t length, int32_t to, const char *name, size_t name_length);
IB_WASI(path_rename)(int32_t fd, const char *path, size_t length, int32_t to, const char *name, size_t name_length);
IB_WASI(path_unlink_file)(int32_t fd, const char *path, size_t length);
IB_WASI(poll_oneoff)(const void *wanted, void *events, size_t count, size_t *n);
IB_WASI(sched_yield)(void);
__attribute__((import_module("wasi_snapshot_preview1"), import_name("proc_exit"), noreturn)) void ib_wasi_proc_exit(
    int32_t code);

/* Converts WASI's error numbers, which are in alphabetical order, to Linux's. The last one is ENOTCAPABLE: EPERM. */
static inline ib_long ib_minus_errno(int32_t error) {
    static const unsigned char numbers[77] = {
        0,   7,   13,  98,  99,  97,  11,  114, 9,   74,  16,  125, 10,  103, 111, 104, 35,  89,  33, 122,
        17,  14,  27,  113, 43,  84,  115, 4,   22,  5,   106, 21,  40,  24,  31,  90,  72,  36,  100, 102,
        101, 23,  105, 19,  2,   8,   37,  67,  12,  42,  92,  28,  38,  107, 20,  39,  131, 88,  95, 25,
        6,   75,  130, 1,   32,  71,  93,  91,  34,  30,  29,  3,   116, 110, 26,  18,  1};
    return error < 0 || error > 76 ? -5 /* EIO */ : -(ib_long)numbers[error];
}

/* ---- paths ----------------------------------------------------------------------------------- */

#define IB_AT_FDCWD (-100)
#define IB_O_RDONLY 0
#define IB_O_WRONLY 1
#define IB_O_RDWR 2
#define IB_O_CREAT 0100
#define IB_O_EXCL 0200
#define IB_O_TRUNC 01000
#define IB_O_DIRECTORY 0200000
#define IB_O_CLOEXEC 02000000

#define IB_MOST_GRANTED 8
static struct {
    size_t length;
    char name[256];
} ib_granted[IB_MOST_GRANTED]; /* descriptor 3 and those that follow */
static int32_t ib_grants, ib_current = -1;

static void ib_see_granted(void) {
    struct ib_granted found;
    for (int32_t fd = 3; ib_grants < IB_MOST_GRANTED && ib_wasi_fd_prestat_get(fd, &found) == 0; fd++) {
        if (found.length >= sizeof ib_granted[0].name) continue;
        if (ib_wasi_fd_prestat_dir_name(fd, ib_granted[ib_grants].name, found.length)) return;
        ib_granted[ib_grants++].length = found.length;
    }
    if (ib_grants) ib_current = 3;
}

struct ib_place {
    int32_t fd;
    const char *path;
    size_t length;
};
static struct ib_place ib_located(int32_t fd, const char *path) {
    struct ib_place place = {fd == IB_AT_FDCWD ? ib_current : fd, path, 0};
    while (path[place.length]) place.length++;
    if (path[0] != '/') return place;
    size_t best = 0;
    place.fd = 3;
    for (int32_t i = 0; i < ib_grants; i++) {
        size_t n = 0, length = ib_granted[i].length;
        while (length > 1 && ib_granted[i].name[length - 1] == '/') length--;
        while (n < length && path[n] == ib_granted[i].name[n]) n++;
        if (n < length || n < best || (n > 1 && path[n] && path[n] != '/')) continue;
        best = n;
        place.fd = 3 + i;
    }
    place.path += best;
    place.length -= best;
    while (best && *place.path == '/') place.path++, place.length--;
    if (best && place.length == 0) place.path = ".", place.length = 1;
    return place;
}

static ib_long ib_wasi_openat(int32_t fd, const char *path, ib_long flags) {
    struct ib_place place = ib_located(fd, path);
    int32_t opened = -1, how = 0;
    /* Rights of a descriptor: read, seek, tell, advise, readdir, filestat_get ... */
    uint64_t rights = 1 << 1 | 1 << 2 | 1 << 5 | 1 << 7 | 1 << 14 | 1 << 21;
    if (flags & 3) rights |= 1 << 0 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 22; /* datasync, sync, write, allocate, set_size */
    if ((flags & 3) == IB_O_WRONLY) rights &= ~(uint64_t)(1 << 1);
    if (flags & IB_O_DIRECTORY) rights = 0x1fffffff & ~(uint64_t)(1 << 6); /* ... and all rights for what is below it */
    if (flags & IB_O_CREAT) how |= 1;
    if (flags & IB_O_DIRECTORY) how |= 2;
    if (flags & IB_O_EXCL) how |= 4;
    if (flags & IB_O_TRUNC) how |= 8;
    uint64_t inherited = flags & IB_O_DIRECTORY ? 0x1fffffff : 0;
    int32_t error = ib_wasi_path_open(place.fd, 1, place.path, place.length, how, rights, inherited, 0, &opened);
    return error ? ib_minus_errno(error) : opened;
}

static ib_long ib_wasi_chdir(const char *path) {
    struct ib_place place = ib_located(IB_AT_FDCWD, path);
    ib_long fd = place.fd;
    if (place.length != 1 || *place.path != '.') fd = ib_wasi_openat(IB_AT_FDCWD, path, IB_O_DIRECTORY);
    if (fd < 0) return fd;
    if (ib_current >= 3 + ib_grants && fd != ib_current) ib_wasi_fd_close(ib_current);
    ib_current = (int32_t)fd;
    return 0;
}

static ib_long ib_wasi_statx(int32_t fd, const char *path, ib_long flags, void *to) {
    struct ib_place place = ib_located(fd, path);
    struct ib_stat seen;
    int32_t follow = !(flags & 0x100 /* AT_SYMLINK_NOFOLLOW */);
    int32_t error = ib_wasi_path_filestat_get(place.fd, follow, place.path, place.length, &seen);
    if (error) return ib_minus_errno(error);
    uint64_t *wide = to;
    for (int i = 0; i < 32; i++) wide[i] = 0;
    /* Fields of struct statx: stx_nlink, stx_ino, stx_size. The device is left out: wasmtime returns one for all files. */
    wide[2] = seen.links & 0xffffffffu;
    wide[4] = seen.inode;
    wide[5] = seen.size;
    return 0;
}

static ib_long ib_wasi_sleep(const int64_t *span) {
    uint64_t wanted[6] = {0}, event[4]; /* a clock to wait for: its number in [2], nanoseconds in [3] */
    size_t n = 0;
    wanted[2] = 1;
    wanted[3] = (uint64_t)span[0] * 1000000000u + (uint64_t)span[1];
    return ib_minus_errno(ib_wasi_poll_oneoff(wanted, event, 1, &n));
}

/* ---- system calls ---------------------------------------------------------------------------- */

/* Always inlined: with a constant number the compiler leaves only one call. */
__attribute__((always_inline)) static inline ib_long ib_syscall(ib_long number, ib_long a, ib_long b, ib_long c, ib_long d,
                                                                ib_long e) {
    int32_t fd = (int32_t)a, error;
    const char *path = (const char *)(uintptr_t)b;
    size_t n = 0;
    uint64_t at = 0;
    struct ib_vector vector = {path, (size_t)c};
    struct ib_place place, other;
    switch (number) {
        case __NR_read: error = ib_wasi_fd_read(fd, &vector, 1, &n); break;
        case __NR_write: error = ib_wasi_fd_write(fd, &vector, 1, &n); break;
        case __NR_pread64: error = ib_wasi_fd_pread(fd, &vector, 1, (uint64_t)d, &n); break;
        case __NR_pwrite64: error = ib_wasi_fd_pwrite(fd, &vector, 1, (uint64_t)d, &n); break;
        case __NR_lseek:
            error = ib_wasi_fd_seek(fd, b, (int32_t)c, &at);
            return error ? ib_minus_errno(error) : (ib_long)at;
        case __NR_close: error = ib_wasi_fd_close(fd); break;
        case __NR_fsync: error = ib_wasi_fd_sync(fd); break;
        case __NR_fdatasync: error = ib_wasi_fd_datasync(fd); break;
        case __NR_fadvise64: {
            /* Linux: normal, random, sequential, willneed, dontneed, noreuse */
            static const unsigned char advice[6] = {0, 2, 1, 3, 4, 5};
            if (d < 0 || d > 5) return -22;
            error = ib_wasi_fd_advise(fd, (uint64_t)b, (uint64_t)c, advice[d]);
            break;
        }
        case __NR_openat: return ib_wasi_openat(fd, path, c);
        case __NR_chdir: return ib_wasi_chdir((const char *)(uintptr_t)a);
        case __NR_statx: return ib_wasi_statx(fd, path, c, (void *)(uintptr_t)e);
        case __NR_mkdirat:
            place = ib_located(fd, path);
            error = ib_wasi_path_create_directory(place.fd, place.path, place.length);
            break;
        case __NR_unlinkat:
            place = ib_located(fd, path);
            error = c & 0x200 /* AT_REMOVEDIR */ ? ib_wasi_path_remove_directory(place.fd, place.path, place.length)
                                                 : ib_wasi_path_unlink_file(place.fd, place.path, place.length);
            break;
        case __NR_linkat:
            place = ib_located(fd, path);
            other = ib_located((int32_t)c, (const char *)(uintptr_t)d);
            error = ib_wasi_path_link(place.fd, 0, place.path, place.length, other.fd, other.path, other.length);
            break;
        case __NR_renameat2:
            if (e) return -38; /* WASI has no flags for this */
            place = ib_located(fd, path);
            other = ib_located((int32_t)c, (const char *)(uintptr_t)d);
            error = ib_wasi_path_rename(place.fd, place.path, place.length, other.fd, other.path, other.length);
            break;
        case __NR_readlinkat:
            place = ib_located(fd, path);
            error = ib_wasi_path_readlink(place.fd, place.path, place.length, (char *)(uintptr_t)c, (size_t)d, &n);
            break;
        case __NR_clock_gettime:
            error = ib_wasi_clock_time_get((int32_t)a, 1, &at);
            ((int64_t *)(uintptr_t)b)[0] = (int64_t)(at / 1000000000u);
            ((int64_t *)(uintptr_t)b)[1] = (int64_t)(at % 1000000000u);
            break;
        case __NR_nanosleep: return ib_wasi_sleep((const int64_t *)(uintptr_t)a);
        case __NR_sched_yield: error = ib_wasi_sched_yield(); break;
        default: return -38; /* ENOSYS */
    }
    return error ? ib_minus_errno(error) : (ib_long)n;
}

#define IB_ARGUMENT_6(n, a, b, c, d, e, ...) \
    ib_syscall((n), (ib_long)(a), (ib_long)(b), (ib_long)(c), (ib_long)(d), (ib_long)(e))
/* ib_sys(number, up to six arguments): the result, or minus errno. */
#define ib_sys(...) IB_ARGUMENT_6(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline ib_long ib_open(const char *path, int flags, int mode) {
    return ib_sys(__NR_openat, IB_AT_FDCWD, path, flags, mode);
}
static inline ib_long ib_close(int fd) { return ib_sys(__NR_close, fd); }
static inline ib_long ib_read(int fd, void *p, size_t n) { return ib_sys(__NR_read, fd, p, n); }
static inline ib_long ib_write(int fd, const void *p, size_t n) { return ib_sys(__NR_write, fd, p, n); }

/* WASI's exit codes end at 125: larger ones become 125. */
__attribute__((noreturn)) static inline void ib_exit(int code) { ib_wasi_proc_exit(code >= 0 && code < 126 ? code : 125); }

static inline void *ib_pages(size_t bytes) { /* new memory filled with zeros, or NULL */
    size_t before = __builtin_wasm_memory_grow(0, (bytes + 65535) / 65536);
    return before == (size_t)-1 ? NULL : (void *)(before * 65536);
}

static inline ib_long ib_spawn(const char *program, char **words, char **environment) {
    (void)program, (void)words, (void)environment;
    return -38; /* ENOSYS: there are no processes */
}

static inline uint64_t ib_clock_ns(int clock) {
    uint64_t now = 0;
    ib_wasi_clock_time_get(clock, 1, &now);
    return now;
}
/* The target's monotonic clock in nanoseconds. It is for durations; clocks of host and target are never subtracted. */
static inline uint64_t ib_now(void) { return ib_clock_ns(1); }

__attribute__((noreturn)) static void ib_fail(const char *what, ib_long result);

/* ---- threads: there are none ----------------------------------------------------------------- */

struct ib_thread {
    int alive;
};
__attribute__((noreturn)) static inline void ib_thread_start(struct ib_thread *t, void (*f)(void *), void *argument) {
    (void)t, (void)f, (void)argument;
    ib_fail("start of a thread", -38);
}
static inline void ib_thread_join(struct ib_thread *t) { (void)t; }
static inline uint64_t ib_cpus(void) { return 1; }

#else /* IB_ENTRY */

/* A NULL-terminated list of strings from WASI (arguments or variables), or NULL if there is no memory for it. */
static char **ib_strings_of(int32_t (*measure)(size_t *, size_t *), int32_t (*get)(char **, char *), size_t *count) {
    size_t bytes = 0;
    if (measure(count, &bytes)) return NULL;
    char **list = ib_pages((*count + 1) * sizeof *list + bytes);
    if (!list || get(list, (char *)(list + *count + 1))) return NULL;
    list[*count] = NULL;
    return list;
}

#ifdef ISOBENCH_LIBC
int main(int argc, char **argv) {
    size_t count;
    char **variables = ib_strings_of(ib_wasi_environ_sizes_get, ib_wasi_environ_get, &count);
    ib_see_granted();
    return variables ? ib_main(argc, argv, variables) : 71;
}
#else
__attribute__((export_name("_start"))) void _start(void) {
    size_t argc, count;
    char **argv = ib_strings_of(ib_wasi_args_sizes_get, ib_wasi_args_get, &argc);
    char **variables = ib_strings_of(ib_wasi_environ_sizes_get, ib_wasi_environ_get, &count);
    if (!argv || !variables) ib_exit(71);
    ib_see_granted();
    ib_exit(ib_main((int)argc, argv, variables));
}
#endif

#endif
