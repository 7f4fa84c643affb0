/* on_windows.h - what isobench.h needs of the system, implemented with the Windows API and Linux's semantics.
 *
 * It defines the names of on_linux.h, so that payloads have one source. `ib_sys` takes the same numbers and returns the same
 * results. It calls what a program for Windows would call for the purpose, and returns -38 (ENOSYS) if Windows has nothing
 * for it. IB_CALL names the call, since the report must show what was compared. Paths are UTF-8 with slashes; a path that
 * begins with a slash is one of the host under Wine.
 */
#ifndef IB_ENTRY

#if !defined(__x86_64__)
#error "on_windows.h knows x86_64"
#endif
#define IB_MACHINE "x86_64"

static inline size_t ib_length(const char *s);
static inline int ib_same(const char *a, const char *b, size_t n);
static inline uint64_t ib_number(const char *s);
__attribute__((noreturn)) static void ib_fail(const char *what, ib_long result);

/* ---- the Windows API ------------------------------------------------------------------------- */

typedef wchar_t ib_wide; /* 16 bits here */
typedef void *ib_handle;
#define IB_IMPORT __declspec(dllimport)
#define IB_INVALID ((ib_handle)(intptr_t)-1)

struct ib_overlapped {
    uint64_t internal[2], offset;
    ib_handle event;
};
struct ib_found { /* WIN32_FIND_DATAW */
    uint32_t attributes, times[6], size[2], reserved[2];
    ib_wide name[260], short_name[14];
};
struct ib_startup { /* STARTUPINFOW */
    uint32_t size;
    ib_wide *reserved, *desktop, *title;
    uint32_t geometry[7], flags;
    uint16_t show, more_size;
    void *more;
    ib_handle streams[3];
};
struct ib_started { /* PROCESS_INFORMATION */
    ib_handle process, thread;
    uint32_t process_number, thread_number;
};

IB_IMPORT ib_handle GetStdHandle(uint32_t which);
IB_IMPORT ib_handle CreateFileW(const ib_wide *, uint32_t access, uint32_t share, void *, uint32_t how, uint32_t flags, ib_handle);
IB_IMPORT int ReadFile(ib_handle, void *, uint32_t, uint32_t *, struct ib_overlapped *);
IB_IMPORT int WriteFile(ib_handle, const void *, uint32_t, uint32_t *, struct ib_overlapped *);
IB_IMPORT int FlushFileBuffers(ib_handle);
IB_IMPORT int SetFilePointerEx(ib_handle, int64_t, int64_t *, uint32_t);
IB_IMPORT int CloseHandle(ib_handle);
IB_IMPORT int DeleteFileW(const ib_wide *);
IB_IMPORT int CreateHardLinkW(const ib_wide *, const ib_wide *, void *);
IB_IMPORT int MoveFileExW(const ib_wide *, const ib_wide *, uint32_t);
IB_IMPORT int GetFileAttributesExW(const ib_wide *, int, void *);
IB_IMPORT int SetCurrentDirectoryW(const ib_wide *);
IB_IMPORT ib_handle FindFirstFileW(const ib_wide *, struct ib_found *);
IB_IMPORT int FindNextFileW(ib_handle, struct ib_found *);
IB_IMPORT int FindClose(ib_handle);
IB_IMPORT int CreateProcessW(const ib_wide *, ib_wide *, void *, void *, int, uint32_t, void *, const ib_wide *, struct ib_startup *, struct ib_started *);
IB_IMPORT uint32_t WaitForSingleObject(ib_handle, uint32_t);
IB_IMPORT int GetExitCodeProcess(ib_handle, uint32_t *);
IB_IMPORT int TerminateProcess(ib_handle, uint32_t);
IB_IMPORT ib_handle CreateThread(void *, size_t, uint32_t (*)(void *), void *, uint32_t, uint32_t *);
IB_IMPORT __attribute__((noreturn)) void ExitProcess(uint32_t);
IB_IMPORT ib_handle GetCurrentProcess(void);
IB_IMPORT uint32_t GetCurrentProcessId(void);
IB_IMPORT int GetProcessAffinityMask(ib_handle, uint64_t *, uint64_t *);
IB_IMPORT int SwitchToThread(void);
IB_IMPORT void Sleep(uint32_t);
IB_IMPORT void *VirtualAlloc(void *, size_t, uint32_t, uint32_t);
IB_IMPORT int QueryPerformanceCounter(int64_t *);
IB_IMPORT int QueryPerformanceFrequency(int64_t *);
IB_IMPORT uint32_t GetLastError(void);
IB_IMPORT ib_wide *GetCommandLineW(void);
IB_IMPORT ib_wide *GetEnvironmentStringsW(void);
IB_IMPORT uint32_t GetModuleFileNameW(void *, ib_wide *, uint32_t);
IB_IMPORT void *GetModuleHandleW(const ib_wide *);
IB_IMPORT void *GetProcAddress(void *, const char *);
IB_IMPORT int GlobalMemoryStatusEx(uint64_t *);
IB_IMPORT void GetNativeSystemInfo(void *);
IB_IMPORT int32_t NtQueryInformationProcess(ib_handle, int, void *, uint32_t, uint32_t *);

/* The name of a call for facts. */
#define IB_CALL(name) IB_CALL_##name
#define IB_CALL_clock_gettime "QueryPerformanceCounter"
#define IB_CALL_close "CloseHandle"
#define IB_CALL_execve "CreateProcess"
#define IB_CALL_fdatasync "FlushFileBuffers"
#define IB_CALL_getppid "NtQueryInformationProcess(ProcessBasicInformation)"
#define IB_CALL_linkat "CreateHardLink"
#define IB_CALL_openat "CreateFile"
#define IB_CALL_pwrite64 "WriteFile"
#define IB_CALL_read "ReadFile"
#define IB_CALL_renameat2 "MoveFileEx"
#define IB_CALL_sched_getaffinity "GetProcessAffinityMask"
#define IB_CALL_sched_yield "SwitchToThread"
#define IB_CALL_statfs "/proc/self/mountinfo"
#define IB_CALL_statx "GetFileAttributesEx"
#define IB_CALL_sysinfo "GlobalMemoryStatusEx"
#define IB_CALL_unlinkat "DeleteFile"
#define IB_CALL_wait4 "WaitForSingleObject"
#define IB_CALL_write "WriteFile"

/* ---- text: UTF-16 in the API, UTF-8 here; unpaired surrogates are kept in both directions ------- */

#define IB_PATH 4096

static inline size_t ib_to_utf8(const ib_wide *from, char *to, size_t size) { /* the length, or 0 if it is too long */
    size_t n = 0;
    for (; *from; from++) {
        uint32_t c = *from;
        if (c >= 0xd800 && c < 0xdc00 && from[1] >= 0xdc00 && from[1] < 0xe000)
            c = 0x10000 + ((c - 0xd800) << 10) + (uint32_t)(*++from - 0xdc00);
        int more = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
        if (n + (size_t)more + 2 > size) return 0;
        static const unsigned char first[] = {0, 0xc0, 0xe0, 0xf0};
        to[n++] = (char)(first[more] | c >> 6 * more);
        while (more--) to[n++] = (char)(0x80 | (c >> 6 * more & 0x3f));
    }
    to[n] = 0;
    return n;
}

static inline size_t ib_to_wide(const char *from, ib_wide *to, size_t size) {
    size_t n = 0;
    while (*from) {
        unsigned char lead = (unsigned char)*from++;
        int more = lead < 0xc0 ? 0 : lead < 0xe0 ? 1 : lead < 0xf0 ? 2 : 3;
        uint32_t c = more ? lead & (0x3fu >> more) : lead;
        while (more-- && *from) c = c << 6 | (*from++ & 0x3f);
        if (n + 3 > size) return 0;
        if (c >= 0x10000) {
            to[n++] = (ib_wide)(0xd800 + ((c - 0x10000) >> 10));
            c = 0xdc00 + ((c - 0x10000) & 0x3ff);
        }
        to[n++] = (ib_wide)c;
    }
    to[n] = 0;
    return n;
}

/* A path in the form of Windows. Wine shows the host's paths under \\?\unix. */
static inline int ib_path(const char *path, ib_wide *to, size_t size) {
    static const ib_wide below[] = L"\\\\?\\unix";
    size_t n = 0;
    if (path[0] == '/' && path[1] != '/')
        while (below[n]) to[n] = below[n], n++;
    size_t length = ib_to_wide(path, to + n, size - n - 1);
    if (!length) return 0;
    for (ib_wide *c = to + n; *c; c++)
        if (*c == '/') *c = '\\';
    n += length;
    if (to[n - 1] == ':') to[n] = '\\', to[n + 1] = 0; /* "i:" is the current directory of the drive, "i:\" its root */
    return 1;
}

/* ---- errors and descriptors -------------------------------------------------------------------- */

static int64_t ib_last_error(void) { /* minus the errno with the same meaning */
    static const unsigned char pairs[][2] = {
        {2, 2 /* ENOENT */}, {3, 2}, {6, 9 /* EBADF */}, {8, 12 /* ENOMEM */}, {14, 12}, {5, 13 /* EACCES */},
        {32, 16 /* EBUSY */}, {80, 17 /* EEXIST */}, {183, 17}, {87, 22 /* EINVAL */}, {123, 2}, {112, 28 /* ENOSPC */},
        {39, 28}, {109, 32 /* EPIPE */}, {232, 32}, {206, 36 /* ENAMETOOLONG */}, {193, 8 /* ENOEXEC */}, {1, 38}, {50, 38}};
    uint32_t error = GetLastError();
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        if (pairs[i][0] == error) return -(int64_t)pairs[i][1];
    return -5 /* EIO */;
}

#define IB_MOST_FILES 64
struct ib_file {
    ib_handle handle;
    struct ib_found *entry; /* of a directory: the next entry to return */
};
static struct ib_file ib_files[IB_MOST_FILES];
static struct ib_found ib_entry_found; /* one directory may be open at a time */

static inline int64_t ib_new_file(ib_handle handle, struct ib_found *entry) {
    for (int fd = 3; fd < IB_MOST_FILES; fd++)
        if (!ib_files[fd].handle) {
            ib_files[fd].handle = handle;
            ib_files[fd].entry = entry;
            return fd;
        }
    return -24 /* EMFILE */;
}
static inline ib_handle ib_file(int64_t fd) {
    if (fd < 0 || fd >= IB_MOST_FILES) return NULL;
    return fd < 3 ? GetStdHandle((uint32_t)(-10 - fd)) : ib_files[fd].handle;
}

#define IB_AT_FDCWD (-100)
#define IB_O_RDONLY 0
#define IB_O_WRONLY 1
#define IB_O_RDWR 2
#define IB_O_CREAT 0100
#define IB_O_EXCL 0200
#define IB_O_TRUNC 01000
#define IB_O_CLOEXEC 02000000
#define IB_O_DIRECTORY 0200000

static inline int64_t ib_open_directory(ib_wide *path) {
    size_t n = 0;
    while (path[n]) n++;
    path[n] = '\\', path[n + 1] = '*', path[n + 2] = 0;
    ib_handle handle = FindFirstFileW(path, &ib_entry_found);
    return handle == IB_INVALID ? ib_last_error() : ib_new_file(handle, &ib_entry_found);
}

static inline int64_t ib_do_open(const char *name, int64_t flags) {
    ib_wide path[IB_PATH];
    if (!ib_path(name, path, IB_PATH - 4)) return -36;
    if (flags & IB_O_DIRECTORY) return ib_open_directory(path);
    static const uint32_t access[] = {0x80000000, 0x40000000, 0xc0000000, 0};
    uint32_t how = flags & IB_O_CREAT ? flags & IB_O_EXCL ? 1 : flags & IB_O_TRUNC ? 2 : 4 : flags & IB_O_TRUNC ? 5 : 3;
    ib_handle handle = CreateFileW(path, access[flags & 3], 7 /* share read, write, delete */, NULL, how, 0x80 /* normal */, NULL);
    return handle == IB_INVALID ? ib_last_error() : ib_new_file(handle, NULL);
}
static inline int64_t ib_do_close(int64_t fd) {
    if (fd < 3 || fd >= IB_MOST_FILES || !ib_files[fd].handle) return -9;
    int done = ib_files[fd].entry ? FindClose(ib_files[fd].handle) : CloseHandle(ib_files[fd].handle);
    ib_files[fd].handle = NULL;
    return done ? 0 : ib_last_error();
}
static inline int64_t ib_do_read(int64_t fd, void *to, uint64_t size) {
    uint32_t n = 0;
    if (ReadFile(ib_file(fd), to, (uint32_t)size, &n, NULL)) return n;
    int64_t error = ib_last_error();
    return error == -32 ? 0 : error; /* a pipe without a writer: end of file */
}
static inline int64_t ib_do_write(int64_t fd, const void *from, uint64_t size, struct ib_overlapped *where) {
    uint32_t n = 0;
    return WriteFile(ib_file(fd), from, (uint32_t)size, &n, where) ? (int64_t)n : ib_last_error();
}
/* Directory entries in the form of getdents64: 19 bytes, of which those at 16 are the length of the entry, then the name. */
static inline int64_t ib_do_entries(int64_t fd, char *to, uint64_t size) {
    struct ib_found *entry = fd < 3 || fd >= IB_MOST_FILES ? NULL : ib_files[fd].entry;
    uint64_t n = 0;
    if (!entry) return -20 /* ENOTDIR */;
    while (entry->name[0] && n + 19 + sizeof entry->name * 2 < size) {
        size_t length = (19 + ib_to_utf8(entry->name, to + n + 19, size - n - 19) + 8) & ~(size_t)7;
        *(uint16_t *)(to + n + 16) = (uint16_t)length;
        n += length;
        if (!FindNextFileW(ib_files[fd].handle, entry)) entry->name[0] = 0;
    }
    return (int64_t)n;
}

/* ---- processes ----------------------------------------------------------------------------------- */

static struct {
    int64_t number;
    ib_handle handle;
} ib_children[16];

/* Join words to a command line, quoted so that programs split it into the same words (see ib_take_apart). */
static inline int ib_command_line(char **words, ib_wide *line, size_t size) {
    size_t n = 0;
    for (; *words; words++) {
        ib_wide word[IB_PATH];
        size_t length = ib_to_wide(*words, word, IB_PATH), slashes = 0;
        if (n + 2 * length + 5 > size || (!length && **words)) return 0;
        line[n++] = '"';
        for (size_t i = 0; i < length; i++) {
            if (word[i] == '"')
                for (slashes++; slashes; slashes--) line[n++] = '\\';
            slashes = word[i] == '\\' ? slashes + 1 : 0;
            line[n++] = word[i];
        }
        while (slashes--) line[n++] = '\\';
        line[n++] = '"';
        line[n++] = ' ';
    }
    line[n ? n - 1 : 0] = 0;
    return n != 0;
}

/* Start a program with the variables and streams of this one: its number, or minus errno. */
static inline long ib_spawn(const char *program, char **words, char **environment) {
    (void)environment; /* no payload changes the variables: a child inherits them */
    static ib_wide line[32768];
    ib_wide path[IB_PATH];
    struct ib_startup startup = {.size = sizeof startup, .flags = 0x100 /* with the streams */};
    struct ib_started started;
    for (int i = 0; i < 3; i++) startup.streams[i] = ib_file(i);
    if (!ib_path(program, path, IB_PATH - 4) || !ib_command_line(words, line, 32768)) return -7 /* E2BIG */;
    size_t slot = 0;
    while (slot < 16 && ib_children[slot].handle) slot++;
    if (slot == 16) return -11 /* EAGAIN */;
    if (!CreateProcessW(path, line, NULL, NULL, 1, 0, NULL, NULL, &startup, &started)) return (long)ib_last_error();
    CloseHandle(started.thread);
    ib_children[slot].number = started.process_number;
    ib_children[slot].handle = started.process;
    return (long)started.process_number;
}
static inline int64_t ib_do_wait(int64_t number, int *status) {
    for (size_t i = 0; i < 16; i++) {
        if (!ib_children[i].handle || ib_children[i].number != number) continue;
        uint32_t code = 0;
        WaitForSingleObject(ib_children[i].handle, 0xffffffff);
        GetExitCodeProcess(ib_children[i].handle, &code);
        CloseHandle(ib_children[i].handle);
        ib_children[i].handle = NULL;
        if (status) *status = (int)(code & 0xff) << 8;
        return number;
    }
    return -10 /* ECHILD */;
}
static inline int64_t ib_do_kill(int64_t number) {
    for (size_t i = 0; i < 16; i++)
        if (ib_children[i].handle && ib_children[i].number == number)
            return TerminateProcess(ib_children[i].handle, 137) ? 0 : ib_last_error();
    return -3 /* ESRCH */;
}
/* Windows cannot replace a process by another program: start it, wait, exit with its exit code. */
static inline int64_t ib_do_execute(const char *program, char **words) {
    long number = ib_spawn(program, words, NULL);
    if (number < 0) return number;
    int status = 0;
    ib_do_wait(number, &status);
    ExitProcess((uint32_t)status >> 8);
}
static inline int64_t ib_do_parent(void) {
    struct {
        uint64_t words[4], own, parent;
    } basic;
    return NtQueryInformationProcess(GetCurrentProcess(), 0, &basic, sizeof basic, NULL) ? -5 : (int64_t)basic.parent;
}

/* The magic number of the file system of a path, by the type in the host's list of mounts. */
static inline int64_t ib_do_filesystem(const char *path, uint64_t *result) {
    static const struct {
        const char *name;
        uint32_t magic;
    } known[] = {{"ext4", 0xef53}, {"ext3", 0xef53}, {"ext2", 0xef53}, {"xfs", 0x58465342}, {"btrfs", 0x9123683e},
                 {"overlay", 0x794c7630}, {"tmpfs", 0x01021994}, {"ramfs", 0x858458f6}, {"zfs", 0x2fc12fc1},
                 {"fuse", 0x65735546}, {"nfs4", 0x6969}, {"nfs", 0x6969}, {"9p", 0x01021997}, {"virtiofs", 0x6a656a63},
                 {"f2fs", 0xf2f52010}, {"cifs", 0xff534d42}};
    static char mounts[65536];
    ib_wide wide[IB_PATH];
    char *(*to_unix)(const ib_wide *) =
        (char *(*)(const ib_wide *))GetProcAddress(GetModuleHandleW(L"kernel32.dll"), "wine_get_unix_file_name");
    if (!to_unix) return -38;
    if (!ib_path(path, wide, IB_PATH - 4)) return -36;
    const char *unix_path = to_unix(wide);
    if (!unix_path) return ib_last_error();
    int64_t fd = ib_do_open("/proc/self/mountinfo", IB_O_RDONLY), n = 0, r, best = -1, magic = -38;
    if (fd < 0) return fd;
    while ((r = ib_do_read(fd, mounts + n, sizeof mounts - 1 - (uint64_t)n)) > 0) n += r;
    ib_do_close(fd);
    mounts[n] = 0;
    for (char *line = mounts, *end; *line; line = *end ? end + 1 : end) {
        char *point = line, *kind;
        for (end = line; *end && *end != '\n'; end++) {
        }
        for (int field = 0; field < 4 && point < end; point++) field += *point == ' '; /* the fifth is the mount point */
        for (kind = point; kind < end && !ib_same(kind, " - ", 3); kind++) {
        }
        int64_t length = 0;
        while (point + length < end && point[length] != ' ') length++;
        if (length == 1) length = 0; /* "/" begins every path */
        if (kind >= end || length < best || !ib_same(unix_path, point, (size_t)length)) continue;
        if (length && unix_path[length] != '/' && unix_path[length]) continue;
        best = length;
        magic = -38;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
            size_t size = ib_length(known[i].name);
            if (ib_same(kind + 3, known[i].name, size) && kind[3 + size] == ' ') magic = known[i].magic;
        }
    }
    if (magic < 0) return magic;
    *result = (uint64_t)magic;
    return 0;
}

/* ---- ib_sys ---------------------------------------------------------------------------------------- */

enum {
    __NR_chdir, __NR_clock_gettime, __NR_clone, __NR_close, __NR_execve, __NR_exit_group, __NR_faccessat, __NR_fadvise64,
    __NR_fdatasync, __NR_fsync, __NR_getdents64, __NR_getpid, __NR_getppid, __NR_kill, __NR_linkat, __NR_lseek, __NR_mincore,
    __NR_mmap, __NR_munmap, __NR_nanosleep, __NR_openat, __NR_prctl, __NR_prlimit64, __NR_pwrite64, __NR_read,
    __NR_readlinkat, __NR_renameat2, __NR_sched_getaffinity, __NR_sched_yield, __NR_statfs, __NR_statx, __NR_sysinfo,
    __NR_uname, __NR_unlinkat, __NR_wait4, __NR_write,
    /* Payloads use these, too; here they return ENOSYS. */
    __NR_bind, __NR_connect, __NR_mount, __NR_personality, __NR_pipe2, __NR_socket, __NR_syslog, __NR_umount2, __NR_unshare,
};

static inline int64_t ib_ok(int done) { return done ? 0 : ib_last_error(); }

/* Always inlined: with a constant number the compiler removes the switch. */
static inline __attribute__((always_inline)) int64_t ib_call(int n, int64_t a, int64_t b, int64_t c, int64_t d, int64_t e, int64_t f) {
    (void)e, (void)f;
    switch (n) {
    case __NR_chdir: {
        ib_wide path[IB_PATH];
        return ib_path((const char *)a, path, IB_PATH - 4) ? ib_ok(SetCurrentDirectoryW(path)) : -36;
    }
    case __NR_close: return ib_do_close(a);
    case __NR_execve: return ib_do_execute((const char *)a, (char **)b);
    case __NR_exit_group: ExitProcess((uint32_t)a);
    case __NR_faccessat:
    case __NR_statx: {
        ib_wide path[IB_PATH];
        uint64_t seen[5];
        return ib_path((const char *)b, path, IB_PATH - 4) ? ib_ok(GetFileAttributesExW(path, 0, seen)) : -36;
    }
    case __NR_fdatasync:
    case __NR_fsync: return ib_ok(FlushFileBuffers(ib_file(a)));
    case __NR_getdents64: return ib_do_entries(a, (char *)b, (uint64_t)c);
    case __NR_getpid: return GetCurrentProcessId();
    case __NR_getppid: return ib_do_parent();
    case __NR_kill: return ib_do_kill(a);
    case __NR_linkat: {
        ib_wide from[IB_PATH], to[IB_PATH];
        if (!ib_path((const char *)b, from, IB_PATH - 4) || !ib_path((const char *)d, to, IB_PATH - 4)) return -36;
        return ib_ok(CreateHardLinkW(to, from, NULL));
    }
    case __NR_lseek: {
        int64_t at = 0;
        return SetFilePointerEx(ib_file(a), b, &at, (uint32_t)c) ? at : ib_last_error();
    }
    case __NR_nanosleep: Sleep((uint32_t)(((int64_t *)a)[0] * 1000 + ((int64_t *)a)[1] / 1000000)); return 0;
    case __NR_openat: return ib_do_open((const char *)b, c);
    case __NR_pwrite64: {
        struct ib_overlapped where = {.offset = (uint64_t)d};
        return ib_do_write(a, (const void *)b, (uint64_t)c, &where);
    }
    case __NR_read: return ib_do_read(a, (void *)b, (uint64_t)c);
    case __NR_renameat2: {
        ib_wide from[IB_PATH], to[IB_PATH];
        if (!ib_path((const char *)b, from, IB_PATH - 4) || !ib_path((const char *)d, to, IB_PATH - 4)) return -36;
        return ib_ok(MoveFileExW(from, to, 1 /* in the place of what is there */));
    }
    case __NR_sched_getaffinity: return GetProcessAffinityMask(GetCurrentProcess(), (uint64_t *)c, &(uint64_t){0}) ? 8 : -22;
    case __NR_sched_yield: SwitchToThread(); return 0;
    case __NR_statfs: return ib_do_filesystem((const char *)a, (uint64_t *)b);
    case __NR_sysinfo: {
        uint64_t memory[8] = {sizeof memory};
        if (!GlobalMemoryStatusEx(memory)) return ib_last_error();
        ((uint64_t *)a)[4] = memory[1];
        return 0;
    }
    case __NR_unlinkat: {
        ib_wide path[IB_PATH];
        return ib_path((const char *)b, path, IB_PATH - 4) ? ib_ok(DeleteFileW(path)) : -36;
    }
    case __NR_wait4: return ib_do_wait(a, (int *)b);
    case __NR_write: return ib_do_write(a, (const void *)b, (uint64_t)c, NULL);
    default: return -38 /* ENOSYS */;
    }
}
#define IB_ARGUMENT_7(n, a, b, c, d, e, f, ...) \
    ib_call((n), (int64_t)(a), (int64_t)(b), (int64_t)(c), (int64_t)(d), (int64_t)(e), (int64_t)(f))
/* ib_sys(number, up to six arguments): the result, or minus errno. */
#define ib_sys(...) IB_ARGUMENT_7(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

static inline long ib_open(const char *path, int flags, int mode) {
    (void)mode; /* there are no permission bits */
    return (long)ib_do_open(path, flags);
}
static inline long ib_close(int fd) { return (long)ib_do_close(fd); }
static inline long ib_read(int fd, void *p, size_t n) { return (long)ib_do_read(fd, p, n); }
static inline long ib_write(int fd, const void *p, size_t n) { return (long)ib_do_write(fd, p, n, NULL); }
__attribute__((noreturn)) static inline void ib_exit(int code) { ExitProcess((uint32_t)code); }

static inline void *ib_pages(size_t bytes) { /* anonymous memory, or NULL */
    return VirtualAlloc(NULL, bytes, 0x3000 /* reserve, commit */, 4 /* read, write */);
}

/* The monotonic clock, whatever `clock` is. */
static inline uint64_t ib_clock_ns(int clock) {
    static int64_t frequency;
    int64_t now = 0;
    (void)clock;
    if (!frequency) QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    if (frequency == 10000000) return (uint64_t)now * 100; /* Wine's frequency: without a division */
    return (uint64_t)(now / frequency) * 1000000000u + (uint64_t)(now % frequency) * 1000000000u / (uint64_t)frequency;
}
static inline uint64_t ib_now(void) { return ib_clock_ns(1); }

/* ---- threads --------------------------------------------------------------------------------- */

struct ib_thread {
    ib_handle handle;
    void (*function)(void *);
    void *argument;
};
static inline uint32_t ib_thread_run(void *thread) {
    struct ib_thread *t = thread;
    t->function(t->argument);
    return 0;
}
static inline void ib_thread_start(struct ib_thread *t, void (*f)(void *), void *argument) {
    t->function = f;
    t->argument = argument;
    t->handle = CreateThread(NULL, 65536, ib_thread_run, t, 0, NULL);
    if (!t->handle) ib_fail("CreateThread", (long)ib_last_error());
}
static inline void ib_thread_join(struct ib_thread *t) {
    WaitForSingleObject(t->handle, 0xffffffff);
    CloseHandle(t->handle);
}

/* How many CPUs this process may run on. */
static inline uint64_t ib_cpus(void) {
    uint64_t mask = 0, all = 0, n = 0;
    GetProcessAffinityMask(GetCurrentProcess(), &mask, &all);
    for (; mask; mask &= mask - 1) n++;
    return n ? n : 1;
}

#else /* IB_ENTRY */

/* The compiler calls this for a stack frame of more than a page, with its size in rax. Windows extends a stack only by its next
 * page (the guard page), so that each page must be touched in turn. */
#ifndef ISOBENCH_LIBC
__asm__(".text\n.global ___chkstk_ms\n___chkstk_ms:\n"
        "push %rcx\npush %rax\nlea 24(%rsp),%rcx\n" /* where the stack pointer was before the call */
        "1: cmp $4096,%rax\njb 2f\nsub $4096,%rcx\norb $0,(%rcx)\nsub $4096,%rax\njmp 1b\n"
        "2: sub %rax,%rcx\norb $0,(%rcx)\npop %rax\npop %rcx\nret\n");
#endif

/* Split a command line into words. Source: Microsoft, "Parsing C command-line arguments". */
static int ib_take_apart(const ib_wide *line, ib_wide *to, ib_wide **words, int most) {
    int quoted = 0, n = 0;
    words[n++] = to; /* in the first word, the program, quotes are special and backslashes are not */
    for (; *line && (quoted || (*line != ' ' && *line != '\t')); line++) {
        if (*line == '"') quoted = !quoted;
        else *to++ = *line;
    }
    *to++ = 0;
    for (;;) {
        while (*line == ' ' || *line == '\t') line++;
        if (!*line || n == most) return n;
        words[n++] = to;
        for (quoted = 0; *line && (quoted || (*line != ' ' && *line != '\t'));) {
            size_t slashes = 0;
            while (*line == '\\') slashes++, line++;
            if (*line != '"') {
                while (slashes--) *to++ = '\\';
                if (*line && (quoted || (*line != ' ' && *line != '\t'))) *to++ = *line++;
                continue;
            }
            for (size_t i = 0; i < slashes / 2; i++) *to++ = '\\';
            line++;
            if (slashes % 2) *to++ = '"';
            else if (quoted && *line == '"') *to++ = *line++;
            else quoted = !quoted;
        }
        *to++ = 0;
    }
}

/* Call ib_main with the program's path with slashes, its arguments and its variables, as on other systems. */
static int ib_begin(void) {
    enum { MOST_WORDS = 512, MOST_VARIABLES = 1024, TEXT = 1 << 18 };
    static char *words[MOST_WORDS + 1], *variables[MOST_VARIABLES + 1];
    static ib_wide *wide[MOST_WORDS], parsed[32768 + MOST_WORDS], own[IB_PATH];
    char *text = ib_pages(TEXT);
    size_t used = 0;
    if (!text) ExitProcess(71);
    int argc = ib_take_apart(GetCommandLineW(), parsed, wide, MOST_WORDS), count = 0;
    if (GetModuleFileNameW(NULL, own, IB_PATH)) wide[0] = own;
    for (ib_wide *c = wide[0]; *c; c++)
        if (*c == '\\') *c = '/';
    for (int i = 0; i < argc; i++) {
        words[i] = text + used;
        size_t n = ib_to_utf8(wide[i], text + used, TEXT - used);
        if (!n && *wide[i]) ExitProcess(71);
        used += n + 1;
    }
    for (ib_wide *v = GetEnvironmentStringsW(); v && *v && count < MOST_VARIABLES; count++) {
        variables[count] = text + used;
        size_t n = ib_to_utf8(v, text + used, TEXT - used);
        if (!n) ExitProcess(71);
        used += n + 1;
        while (*v++) {
        }
    }
    return ib_main(argc, words, variables);
}

#ifdef ISOBENCH_LIBC
int main(void) { return ib_begin(); }
#else
__attribute__((noreturn, used)) void ib_entry(void) { ExitProcess((uint32_t)ib_begin()); }
#endif

#endif
