/* The spawner: it starts one program at a time for isobench, takes time stamps, and forwards the program's output.
 *
 * Its standard output is a stream socket, over which it gets requests and sends messages. A request is 20 bytes (five 32-bit
 * numbers: the length of what follows, the number of paths, of arguments and of variables, and 1 if there is a directory), then
 * NUL-terminated strings: the directory, the paths to try in this order, the arguments, the variables. No shell interprets them.
 *
 * A message is 16 bytes (kind, length of what follows, a time of CLOCK_MONOTONIC in nanoseconds), then that many bytes, padded
 * to a multiple of eight. All numbers in it have 64 bits:
 *     1 started   time: just before the clone; the process number
 *     2 failed    an errno: nothing was started
 *     3 out       time: when these bytes of standard output became readable
 *     4 err       the same for standard error
 *     5 exited    time: when the end became visible; the exit code, or minus the signal
 *     6 end       the program and both streams have ended: the next request may be sent
 *
 * Each program is a child of this small process, made with CLONE_VM | CLONE_VFORK: no memory is copied, and no interpreter runs
 * between the time stamp and the clone. When isobench closes the socket, or ends in any way, this program kills the process
 * group of the running program and exits.
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "request.h"

enum { CONTROL = 1, MOST_REQUEST = 1 << 21, MOST_STRINGS = 1 << 16, CHUNK = 1 << 16 };
enum { STARTED = 1, FAILED, OUT, ERR, EXITED, END };
#define VFORK 0x4111 /* CLONE_VM, CLONE_VFORK, SIGCHLD */
#define ENDED (IB_READABLE | 0x18) /* POLLIN, POLLERR, POLLHUP */

struct message {
    uint32_t kind, length;
    uint64_t stamp;
};

static char request[MOST_REQUEST + 1];
static char *strings[MOST_STRINGS];
static char sending[4 * CHUNK];
static size_t filled, deferred; /* bytes to be sent; so many of them may wait for more (see listen_to) */
static char stack[65536] __attribute__((aligned(16)));

static struct {
    char *folder, **paths, **arguments, **variables;
    int out[2], err[2]; /* pipes */
    volatile int failure; /* errno of a failure in the child, which shares this memory until its exec */
} job;
static long child; /* 0: none */

/* isobench has ended, or has closed the socket: kill the running program, wait up to 10 s for its end, exit. */
__attribute__((noreturn)) static void hang_up(void) {
    if (child) {
        int64_t patience[2] = {10, 0};
        ib_sys(__NR_kill, -child, 9);
        ib_sys(__NR_kill, child, 9);
        struct ib_poll ended = {(int)ib_sys(__NR_pidfd_open, child, 0), IB_READABLE, 0};
        if (ib_sys(__NR_ppoll, &ended, 1, patience, 0, 8) > 0) ib_sys(__NR_wait4, child, 0, 1 /* WNOHANG */, 0);
    }
    ib_exit(0);
}

static void flush(void) {
    for (size_t done = 0; done < filled;) {
        long n = ib_sys(__NR_sendto, CONTROL, sending + done, filled - done, 0x4000 /* MSG_NOSIGNAL */, 0, 0);
        if (n == -4 /* EINTR */) continue;
        if (n <= 0) hang_up();
        done += (size_t)n;
    }
    filled = deferred = 0;
}

/* Make room for a message with its data; return the place of the data. */
static char *room(void) {
    if (filled + sizeof(struct message) + CHUNK > sizeof sending) flush();
    return sending + filled + sizeof(struct message);
}
static void queue(uint32_t kind, uint64_t stamp, uint32_t length) {
    struct message *m = (struct message *)(sending + filled);
    m->kind = kind;
    m->length = length;
    m->stamp = stamp;
    filled += sizeof *m + ((length + 7u) & ~7u);
}
static void queue_number(uint32_t kind, uint64_t stamp, long number) {
    *(int64_t *)room() = number;
    queue(kind, stamp, 8);
}

/* The child. It runs on a separate stack in the spawner's memory; the spawner waits until its exec (CLONE_VFORK, clone(2)). */
static void in_child(void *unused) {
    (void)unused;
    long r = 0, first = 0;
    ib_sys(__NR_setsid);
    /* For the case that the spawner is killed. Children of the program are not affected: fork clears the setting. */
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
    ib_sys(__NR_dup3, job.out[1], 1, 0);
    ib_sys(__NR_dup3, job.err[1], 2, 0);
    if (job.folder) r = ib_sys(__NR_chdir, job.folder);
    for (char **path = job.paths; r >= 0 && *path; path++) {
        r = ib_sys(__NR_execve, *path, job.arguments, job.variables);
        /* As in a search of PATH: the error for a file that cannot be executed is more useful than ENOENT for another one. */
        if (r != -2 /* ENOENT */ && r != -20 /* ENOTDIR */ && !first) first = r;
        if (path[1]) r = 0;
    }
    job.failure = (int)-(first ? first : r ? r : -2);
    ib_exit(127);
}

/* Parse a request: 0, or minus errno. */
static long parse(const uint32_t *header) {
    uint32_t length = header[0], counts[3] = {header[1], header[2], header[3]}, slot = 0;
    if (!length || !counts[0] || !counts[1]) return -22;
    if ((uint64_t)counts[0] + counts[1] + counts[2] + 3 > MOST_STRINGS) return -7 /* E2BIG */;
    char *p = request, *end = request + length;
    if (end[-1]) return -22;
    job.folder = NULL;
    if (header[4]) {
        job.folder = p;
        p += ib_length(p) + 1;
    }
    char ***lists[] = {&job.paths, &job.arguments, &job.variables};
    for (int list = 0; list < 3; list++) {
        *lists[list] = strings + slot;
        for (uint32_t i = 0; i < counts[list]; i++) {
            if (p >= end) return -22;
            strings[slot++] = p;
            p += ib_length(p) + 1;
        }
        strings[slot++] = NULL;
    }
    return p == end ? 0 : -22;
}

static void close_pipe(int *ends) {
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0) ib_close(ends[i]);
}

/* The exit code of a child, which is not reaped (WNOWAIT): until then no other process can get its number or its group's. */
static long exit_code(void) {
    int info[32] = {0}; /* siginfo_t: the code is the third number, the status the seventh */
    ib_sys(__NR_waitid, 1 /* P_PID */, child, info, 0x01000004 /* WEXITED | WNOWAIT */, 0);
    return info[2] == 1 /* CLD_EXITED */ ? info[6] : -info[6];
}

/* Forward bytes of a stream; close it at its end. */
static void forward(struct ib_poll *stream, uint32_t kind, uint64_t now) {
    if (stream->fd < 0 || !(stream->revents & ENDED)) return;
    long n = ib_read(stream->fd, room(), CHUNK);
    if (n > 0) queue(kind, now, (uint32_t)n);
    else if (n != -4 /* EINTR */) {
        ib_close(stream->fd);
        stream->fd = -1;
    }
}

static void listen_to(int end) {
    struct ib_poll fds[4] = {
        {job.out[0], IB_READABLE, 0}, {job.err[0], IB_READABLE, 0}, {end, IB_READABLE, 0}, {CONTROL, IB_READABLE, 0}};
    int exited = 0;
    deferred = filled; /* "started" alone is not sent: it would wake isobench, which would compete for a CPU with the start */
    while (!exited || fds[0].fd >= 0 || fds[1].fd >= 0) {
        int64_t at_once[2] = {0, 0};
        int waiting = filled > deferred;
        long n = ib_sys(__NR_ppoll, fds, 4, waiting ? at_once : 0, 0, 8);
        uint64_t now = ib_now();
        if (n == 0 && waiting) flush();
        if (n <= 0) continue;
        forward(&fds[0], OUT, now);
        forward(&fds[1], ERR, now);
        if (fds[2].fd >= 0 && fds[2].revents) {
            exited = 1;
            fds[2].fd = -1;
            queue_number(EXITED, now, exit_code());
        }
        if (fds[3].revents) hang_up(); /* isobench sends nothing while a program runs: the socket is closed */
    }
}

static void run(void) {
    job.out[0] = job.out[1] = job.err[0] = job.err[1] = -1;
    job.failure = 0;
    long r = ib_sys(__NR_pipe2, job.out, IB_O_CLOEXEC);
    if (r >= 0) r = ib_sys(__NR_pipe2, job.err, IB_O_CLOEXEC);
    if (r < 0) goto failed;
    uint64_t began = ib_now();
    r = ib_clone(VFORK, stack + sizeof stack, NULL, NULL, in_child, NULL);
    if (r < 0) goto failed;
    child = r;
    ib_close(job.out[1]);
    ib_close(job.err[1]);
    job.out[1] = job.err[1] = -1;
    r = job.failure ? -job.failure : ib_sys(__NR_pidfd_open, child, 0);
    if (r >= 0) {
        queue_number(STARTED, began, child);
        listen_to((int)r);
        ib_close((int)r);
        job.out[0] = job.err[0] = -1;
    } else {
        ib_sys(__NR_kill, child, 9);
    }
    while (ib_sys(__NR_wait4, child, 0, 0, 0) == -4 /* EINTR */) {
    }
    child = 0;
    if (r >= 0) {
        room();
        queue(END, ib_now(), 0);
        flush();
        return;
    }
failed:
    close_pipe(job.out);
    close_pipe(job.err);
    queue_number(FAILED, ib_now(), -r);
    flush();
}

static int ib_main(int argc, char **argv, char **environment) {
    (void)argc, (void)argv, (void)environment;
    for (;;) {
        uint32_t header[5];
        if (ib_read_exactly(CONTROL, (char *)header, sizeof header) < 0) return 0;
        if (header[0] > MOST_REQUEST) return 1;
        if (ib_read_exactly(CONTROL, request, (long)header[0]) < 0) return 0;
        request[header[0]] = 0;
        long r = parse(header);
        if (r >= 0) run();
        else {
            queue_number(FAILED, ib_now(), -r);
            flush();
        }
    }
}
