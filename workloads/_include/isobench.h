/* isobench.h - what a payload may use: system calls, one clock, JSON lines, threads.
 *
 * A payload includes this file and defines `ib_work`:
 *
 *     #include "isobench.h"
 *     static uint64_t ib_work(struct ib *ib, uint64_t loops) { ... return checksum; }
 *
 * It is built without a C library, for every ISA by the same compiler with the same flags: a ratio then compares
 * isolation, not two C libraries, and a first build takes milliseconds. With `libc = true` in workload.toml a
 * workload is linked with musl; everything here works there as well.
 *
 * Invocation:  PAYLOAD NONCE ITERATIONS LOOPS [ARGUMENT...]
 *              PAYLOAD NONCE ask LOOPS [ARGUMENT...]      iterations on request: see below
 * Output, one JSON object a line (the reader is isobench/payload/wire.py):
 *     {"isobench":1,"nonce":"...","clock_ns":C}     sent at once: the host records when it arrives
 *     {"fact":"io.filesystem","value":"0xef53","source":"statfs"}
 *     {"warmup_ns":N}                               the first iteration, which is shown and not used
 *     {"i":0,"ns":N,"ops":N}                        one line for each iteration
 *     {"end":ITERATIONS,"check":"%016x","steady":true,"nonce":"...","clock_ns":C}
 *     {"error":"what failed","errno":N}             in place of the end
 * All lines but the first are buffered until the end, so that output does not disturb an iteration.
 *
 * With "ask" the payload waits after the warm-up. Each line of its standard input, "TIMED UNTIMED", requests one iteration of TIMED
 * loops (1 to LOOPS) after an untimed pass of UNTIMED loops (0: none), which brings back the caches that others have used meanwhile.
 * The warm-up and each of these iterations are sent at once, the iterations with two keys more: {"i":0,"ns":N,"ops":N,"loops":N,
 * "check":"%016x"}. The line "end" ends the run, as does the end of the input.
 */
#ifndef ISOBENCH_H
#define ISOBENCH_H

#include <stddef.h>
#include <stdint.h>

/* The result of ib_sys: wide enough for a pointer, a file size or a time; on Windows and wasm32 long has 32 bits. */
typedef long long ib_long;

/* The header for the system that the payload runs on; on_linux.h lists what such a header defines. */
#if defined(_WIN32)
#define IB_SYSTEM "on_windows.h"
#elif defined(__wasm__)
#define IB_SYSTEM "on_wasi.h"
#else
#define IB_SYSTEM "on_linux.h"
#endif
#include IB_SYSTEM

/* ---- functions that the compiler may call ---------------------------------------------------- */

#ifndef ISOBENCH_LIBC
__attribute__((used)) void *memcpy(void *restrict to, const void *restrict from, size_t n) {
    unsigned char *t = to;
    const unsigned char *f = from;
    while (n--) *t++ = *f++;
    return to;
}
__attribute__((used)) void *memset(void *to, int value, size_t n) {
    unsigned char *t = to;
    while (n--) *t++ = (unsigned char)value;
    return to;
}
#else
#include <string.h>
#endif

static inline size_t ib_length(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}
static inline int ib_same(const char *a, const char *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (a[i] != b[i]) return 0;
    return 1;
}
static inline uint64_t ib_number(const char *s) {
    uint64_t v = 0;
    while (*s >= '0' && *s <= '9') v = v * 10 + (uint64_t)(*s++ - '0');
    return v;
}

/* ---- output ---------------------------------------------------------------------------------- */

static char ib_buffer[65536];
static size_t ib_filled;

static void ib_flush(void) {
    size_t done = 0;
    while (done < ib_filled) {
        ib_long n = ib_write(1, ib_buffer + done, ib_filled - done);
        if (n == -4 /* EINTR */) continue;
        if (n <= 0) ib_exit(74); /* the reader has closed the stream; EX_IOERR of sysexits.h */
        done += (size_t)n;
    }
    ib_filled = 0;
}
static void ib_byte(char c) {
    if (ib_filled == sizeof ib_buffer) ib_flush();
    ib_buffer[ib_filled++] = c;
}
static void ib_text(const char *s) {
    while (*s) ib_byte(*s++);
}
static void ib_decimal(uint64_t v) {
    char digits[20];
    int n = 0;
    do digits[n++] = (char)('0' + v % 10);
    while (v /= 10);
    while (n) ib_byte(digits[--n]);
}
static void ib_hex(uint64_t v, int width) {
    for (int shift = (width - 1) * 4; shift >= 0; shift -= 4) ib_byte("0123456789abcdef"[v >> shift & 15]);
}
/* Print a JSON string. Bytes outside printable ASCII become \u00XX: files of a kernel are not always UTF-8. */
static void ib_quoted_n(const char *s, size_t n) {
    ib_byte('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c == '"' || c == '\\') {
            ib_byte('\\');
            ib_byte((char)c);
        } else if (c < 32 || c > 126) {
            ib_text("\\u00");
            ib_hex(c, 2);
        } else {
            ib_byte((char)c);
        }
    }
    ib_byte('"');
}
static void ib_quoted(const char *s) { ib_quoted_n(s, ib_length(s)); }

/* ---- the run --------------------------------------------------------------------------------- */

struct ib {
    const char *self;    /* argv[0], a path */
    const char *nonce;   /* printed unchanged */
    const char *scratch; /* a writable directory, or NULL */
    char **arguments;    /* the arguments after LOOPS, NULL-terminated */
    char **environment;
    uint64_t iterations; /* how many there are, or so far: an iteration is the last one if iteration + 1 is this */
    uint64_t loops;      /* of the current iteration */
    uint64_t most_loops; /* of any iteration: those of the warm-up */
    uint64_t elapsed;    /* of the current iteration, ns */
    uint64_t started;
    uint64_t operations; /* of the current iteration; 0: as many as loops */
    int iteration;       /* -1 during the warm-up */
    int own_timing;      /* ib_start was called: only the time between ib_start and ib_stop counts */
};

static inline void ib_start(struct ib *ib) {
    ib->own_timing = 1;
    ib->started = ib_now();
}
static inline void ib_stop(struct ib *ib) { ib->elapsed += ib_now() - ib->started; }

static inline const char *ib_env(struct ib *ib, const char *name) {
    size_t n = ib_length(name);
    for (char **e = ib->environment; *e; e++) {
        size_t i = 0;
        while (i < n && (*e)[i] == name[i]) i++;
        if (i == n && (*e)[n] == '=') return *e + n + 1;
    }
    return NULL;
}

/* Why a write to a file wrote only `n` of `size` bytes, as minus errno. On a full disk the kernel writes what fits, and returns
 * the error only for the rest. */
static inline ib_long ib_cut_short(int fd, const void *p, size_t size, ib_long n) {
    if (n < 0) return n;
    ib_long r = ib_write(fd, (const char *)p + n, size - (size_t)n);
    return r < 0 ? r : 0;
}

/* Print what failed, with the errno in a result of ib_sys, and exit. */
__attribute__((noreturn)) static void ib_fail(const char *what, ib_long result) {
    ib_text("{\"error\":");
    ib_quoted(what);
    ib_text(",\"errno\":");
    ib_decimal(result < 0 ? (uint64_t)-result : 0);
    ib_text("}\n");
    ib_flush();
    ib_exit(70);
}

static void ib_fact_n(const char *key, const char *value, size_t n, const char *source) {
    ib_text("{\"fact\":");
    ib_quoted(key);
    ib_text(",\"value\":");
    ib_quoted_n(value, n);
    ib_text(",\"source\":");
    ib_quoted(source);
    ib_text("}\n");
}
static inline void ib_fact(const char *key, const char *value, const char *source) {
    ib_fact_n(key, value, ib_length(value), source);
}
/* `literal` is written as it stands: a number, true, false or null. */
static inline void ib_fact_literal(const char *key, const char *literal, const char *source) {
    ib_text("{\"fact\":");
    ib_quoted(key);
    ib_text(",\"value\":");
    ib_text(literal);
    ib_text(",\"source\":");
    ib_quoted(source);
    ib_text("}\n");
}
static inline void ib_fact_number(const char *key, uint64_t value, const char *source) {
    ib_text("{\"fact\":");
    ib_quoted(key);
    ib_text(",\"value\":");
    ib_decimal(value);
    ib_text(",\"source\":");
    ib_quoted(source);
    ib_text("}\n");
}

/* Print once, in the warm-up, which system calls a payload uses. On other systems than Linux they are others. */
static inline void ib_fact_calls(struct ib *ib, const char *calls) {
    if (ib->iteration < 0) ib_fact("syscall.call", calls, "the payload's source");
}

/* Print the file system of `path` as its magic number (statfs(2)). */
static inline void ib_fact_filesystem(const char *key, const char *path) {
    uint64_t buffer[16] = {0};
    if (ib_sys(__NR_statfs, path, buffer) < 0) {
        ib_fact_literal(key, "null", IB_CALL(statfs));
        return;
    }
    ib_text("{\"fact\":");
    ib_quoted(key);
    ib_text(",\"value\":\"0x");
    ib_hex(buffer[0] & 0xffffffffu, 8);
    ib_text("\",\"source\":\"" IB_CALL(statfs) "\"}\n");
}

/* The name of a file in the scratch directory that no other visit uses.
 *
 * It is relative, and the scratch directory becomes the current one. Paths are long on the host and short in a container: the
 * look-up of a long path would be measured as if it were an effect of the isolation. (With full paths, open and close were 16 %
 * faster in containers.) */
static inline void ib_scratch_path(struct ib *ib, char *path, size_t size, const char *suffix) {
    if (!ib->scratch) ib_fail("no scratch directory: ISOBENCH_SCRATCH is not set", 0);
    ib_long r = ib_sys(__NR_chdir, ib->scratch);
    if (r < 0) ib_fail("chdir to the scratch directory", r);
    const char *parts[] = {ib->nonce, suffix};
    size_t n = 0;
    for (int p = 0; p < 2; p++)
        for (const char *s = parts[p]; *s; s++) {
            if (n + 1 >= size) ib_fail("the scratch path is too long", 0);
            path[n++] = *s;
        }
    path[n] = 0;
}

/* Make the directory of the payload's own file the current one, and return the file's name. A look-up then has one component,
 * wherever the file is. */
static inline const char *ib_own_name(struct ib *ib) {
    char folder[4096];
    size_t slash = 0, n = ib_length(ib->self);
    for (size_t i = 0; i < n; i++)
        if (ib->self[i] == '/') slash = i;
    if (slash == 0 || slash >= sizeof folder) return ib->self;
    for (size_t i = 0; i < slash; i++) folder[i] = ib->self[i];
    folder[slash] = 0;
    ib_long r = ib_sys(__NR_chdir, folder);
    if (r < 0) ib_fail("chdir to the payload's own directory", r);
    return ib->self + slash + 1;
}

static inline uint64_t ib_mix(uint64_t a, uint64_t b) { /* a checksum step: order matters */
    a ^= b + 0x9e3779b97f4a7c15u + (a << 6) + (a >> 2);
    a *= 0xff51afd7ed558ccdu;
    return a ^ a >> 33;
}

/* ---- work that several payloads share ------------------------------------------------------------ */

/* The number of primes below `limit`, by the sieve of Eratosthenes over the odd numbers; `composite` has limit / 2
 * bytes. */
static inline uint64_t ib_sieve(unsigned char *composite, uint32_t limit) {
    uint32_t half = limit / 2;
    for (uint32_t i = 0; i < half; i++) composite[i] = 0;
    uint64_t primes = 1; /* 2 */
    for (uint32_t i = 1; i < half; i++) {
        if (composite[i]) continue;
        uint32_t p = 2 * i + 1;
        primes++;
        for (uint64_t m = (uint64_t)p * p / 2; m < half; m += p) composite[m] = 1;
    }
    return primes;
}

/* ---- entry ----------------------------------------------------------------------------------- */

static inline void ib_hello(struct ib *ib) {
    ib_text("{\"isobench\":1,\"nonce\":");
    ib_quoted(ib->nonce);
    ib_text(",\"clock_ns\":");
    ib_decimal(ib_now());
    ib_text("}\n");
    ib_flush();
}

#ifdef ISOBENCH_MAIN
static int ib_main(int argc, char **argv, char **environment); /* a tool, not a workload */
#else
static uint64_t ib_work(struct ib *ib, uint64_t loops);

/* Not inlined: there is one copy of the work for the warm-up, untimed passes and iterations. With a copy at each place the
 * compiler made other code of it for Windows than for Linux, and the sieve was a quarter faster there. */
__attribute__((noinline)) static uint64_t ib_iterate(struct ib *ib) {
    ib->elapsed = 0;
    ib->operations = 0;
    ib->own_timing = 0;
    uint64_t before = ib_now();
    uint64_t check = ib_work(ib, ib->loops);
    uint64_t after = ib_now();
    if (!ib->own_timing) ib->elapsed = after - before;
    return check;
}

/* Wait for a line that requests an iteration, and make its untimed pass. 0: there is none, or it is another line. `iterations` is
 * then such that every timed iteration is the last one so far, and an untimed pass is not: a payload may print facts of the last. */
static int ib_asked(struct ib *ib, uint64_t done) {
    static char input[128];
    static size_t filled, used; /* input[0 .. filled), of which `used` bytes belong to the line before */
    size_t end = 0;
    for (size_t i = used; i < filled; i++) input[i - used] = input[i];
    filled -= used;
    for (;; end++) {
        while (end == filled) {
            ib_long n = filled < sizeof input ? ib_read(0, input + filled, sizeof input - filled) : 0;
            if (n == -4 /* EINTR */) continue;
            if (n <= 0) return 0;
            filled += (size_t)n;
        }
        if (input[end] == '\n') break;
    }
    used = end + 1;
    input[end] = 0;
    const char *second = input;
    while (*second && *second != ' ') second++;
    uint64_t timed = ib_number(input), untimed = *second ? ib_number(second + 1) : 0;
    if (timed == 0 || timed > ib->most_loops || untimed > ib->most_loops) return 0;
    ib->iteration = (int)done;
    ib->iterations = done + 2;
    if ((ib->loops = untimed)) ib_iterate(ib);
    ib->loops = timed;
    ib->iterations = done + 1;
    return 1;
}

static int ib_main(int argc, char **argv, char **environment) {
    if (argc == 2 && ib_same(argv[1], "leave", 6)) return 7; /* the child of syscall.fork-exec */
    if (argc < 4) ib_fail("usage: PAYLOAD NONCE ITERATIONS LOOPS [ARGUMENT...]", 0);
    struct ib ib = {.self = argv[0], .nonce = argv[1], .arguments = argv + 4, .environment = environment};
    int ask = ib_same(argv[2], "ask", 4);
    ib.iterations = ask ? 1 : ib_number(argv[2]);
    ib.most_loops = ib.loops = ib_number(argv[3]);
    ib.scratch = ib_env(&ib, "ISOBENCH_SCRATCH");
    /* A process of the host must not outlive isobench. Inside an instance this would be wrong: the parent there is a helper
     * of an engine that exits at once, so that the payload would be killed. The instance is ended by other means. */
    if (ib_env(&ib, "ISOBENCH_TIED")) ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
    ib_hello(&ib);
    ib.iteration = -1;
    uint64_t check = ib_iterate(&ib);
    int steady = 1;
    ib_text("{\"warmup_ns\":");
    ib_decimal(ib.elapsed);
    ib_text("}\n");
    if (ask) ib_flush();
    uint64_t i = 0;
    for (; ask ? ib_asked(&ib, i) : i < ib.iterations; i++) {
        ib.iteration = (int)i;
        uint64_t own = ib_iterate(&ib);
        if (!ask && own != check) steady = 0;
        ib_text("{\"i\":");
        ib_decimal(i);
        ib_text(",\"ns\":");
        ib_decimal(ib.elapsed);
        ib_text(",\"ops\":");
        ib_decimal(ib.operations ? ib.operations : ib.loops);
        if (ask) {
            ib_text(",\"loops\":");
            ib_decimal(ib.loops);
            ib_text(",\"check\":\"");
            ib_hex(own, 16);
            ib_byte('"');
        }
        ib_text("}\n");
        if (ask) ib_flush();
    }
#ifdef IB_CLEANUP
    IB_CLEANUP(&ib);
#endif
    ib_text("{\"end\":");
    ib_decimal(i);
    ib_text(",\"check\":\"");
    ib_hex(check, 16);
    ib_text(steady ? "\",\"steady\":true,\"nonce\":" : "\",\"steady\":false,\"nonce\":");
    ib_quoted(ib.nonce);
    ib_text(",\"clock_ns\":");
    ib_decimal(ib_now());
    ib_text("}\n");
    ib_flush();
    return 0;
}
#endif

#define IB_ENTRY
#include IB_SYSTEM

#endif
