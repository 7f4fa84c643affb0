/* The agent: the first process of an instance that stays open. It executes payloads if the technology has no "exec" itself.
 *
 * `_agent` without arguments reaps children and waits for SIGTERM, at which it exits. An engine executes the payloads.
 *
 * `_agent serve` executes requests (request.h) that it reads from its standard input, a SOCK_SEQPACKET socket. Two or three
 * descriptors are attached to each (SCM_RIGHTS): standard output, standard error and, if there is one, standard input of the
 * program. The reply is one 32-bit number: the wait status, or minus errno. The program writes directly to the host's pipes, so
 * that the agent adds no time to its output.
 *
 * `_agent once`, or `_agent -c ANYTHING` as a login shell is called, reads one request from its standard input, executes it with
 * its own output streams, and exits with its exit code. What follows the request goes to the standard input of a program that
 * reads lines (request.h). If standard input ends before the program does, the other side has closed the connection: the program and all its descendants are killed.
 * The null request exits with 0, so that only the cost of the
 * channel is measured.
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "request.h"

struct iovec_ {
    void *base;
    uint64_t length;
};
struct message {
    void *name;
    uint32_t name_length, pad;
    struct iovec_ *iov;
    uint64_t iov_count;
    void *control;
    uint64_t control_length;
    int flags;
};

/* How many descriptors a control message of so many bytes carries: its header has 16, each descriptor 4. */
static int descriptors(uint64_t length) { return length < 16 ? 0 : (int)(length - 16) / 4; }

static long serve(void) {
    union {
        uint64_t aligned[8];
        struct {
            uint64_t length;
            int level, type;
            int fds[8];
        } header;
    } control = {{0}};
    struct iovec_ iov = {ib_request, sizeof ib_request - 1};
    struct message m = {.iov = &iov, .iov_count = 1, .control = &control, .control_length = sizeof control};
    long n = ib_sys(__NR_recvmsg, 0, &m, 0x40000000 /* MSG_CMSG_CLOEXEC */);
    if (n == -4 /* EINTR */) return 0;
    if (n <= 0) ib_exit(0); /* the host has closed its end: the instance ends */
    int answer = -22;
    struct ib_command command;
    if (control.header.type != 1 || control.header.length < 24) goto reply;
    if ((answer = ib_request_parse(n, &command)) < 0 || !command.arguments) goto reply;
    long pid = ib_fork();
    if (pid == 0) {
        int in = descriptors(control.header.length) > 2 ? control.header.fds[2] : -1;
        ib_execute(&command, in, control.header.fds[0], control.header.fds[1]);
    }
    for (int i = 0; i < descriptors(control.header.length); i++) ib_close(control.header.fds[i]);
    control.header.length = 0;
    answer = (int)pid;
    if (pid > 0) {
        int status = 0;
        long r;
        /* Orphans of the payload become children of the first process of a PID namespace: they must be reaped. */
        do r = ib_sys(__NR_wait4, -1, &status, 0, 0);
        while (r != pid && (r > 0 || r == -4));
        answer = r == pid ? status : (int)r;
        while (ib_sys(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0) > 0) {
        }
    }
reply:
    if (control.header.type == 1)
        for (int i = 0; i < descriptors(control.header.length); i++) ib_close(control.header.fds[i]);
    ib_sys(__NR_write, 0, &answer, sizeof answer);
    return 0;
}

/* The parent of a process, from /proc/PID/stat: after the last ")" follow the state and the parent (proc(5)). The name of the
 * program before it may itself contain parentheses. */
static uint64_t parent_of(const char *digits) {
    static char path[64], stat[1024];
    size_t n = 0;
    for (const char *s = "/proc/"; *s; s++) path[n++] = *s;
    for (; *digits && n < 40; digits++) path[n++] = *digits;
    for (const char *s = "/stat"; *s; s++) path[n++] = *s;
    path[n] = 0;
    long fd = ib_open(path, IB_O_RDONLY, 0);
    if (fd < 0) return 0;
    long got = ib_read((int)fd, stat, sizeof stat - 1);
    ib_close((int)fd);
    if (got <= 0) return 0;
    stat[got] = 0;
    char *after = NULL;
    for (char *s = stat; *s; s++)
        if (*s == ')') after = s;
    return after && after[1] && after[2] && after[3] ? ib_number(after + 4) : 0;
}

/* Kill all descendants, one generation in each round: when a process ends, its children become children of this subreaper. */
static void kill_descendants(void) {
    static char entries[32768];
    uint64_t self = (uint64_t)ib_sys(__NR_getpid);
    for (int round = 0; round < 1000; round++) {
        long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n;
        int found = 0;
        if (fd < 0) return;
        while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
            for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
                char *name = entries + at + 19;
                if (*name < '1' || *name > '9' || parent_of(name) != self) continue;
                long child = (long)ib_number(name);
                ib_sys(__NR_kill, child, 9);
                while (ib_sys(__NR_wait4, child, 0, 0, 0) == -4) {
                } /* not for any child: this one's children are now children of this process, and may never end */
                found = 1;
            }
        ib_close((int)fd);
        if (!found) return;
    }
}

static int once(void) {
    struct ib_command command;
    int r = ib_request_read(0, &command);
    if (r < 0) return 125;
    if (!command.arguments) return 0;
    ib_sys(__NR_prctl, 36 /* PR_SET_CHILD_SUBREAPER */, 1);
    long children = ib_children_fd();
    int input[2] = {-1, -1};
    if (ib_reads_lines(&command) && ib_sys(__NR_pipe2, input, IB_O_CLOEXEC) < 0) return 126;
    long pid = ib_fork();
    if (pid == 0) {
        ib_unblock_signals();
        ib_sys(__NR_setsid);
        ib_execute(&command, input[0], 1, 2);
    }
    if (pid < 0) return 126;
    struct ib_poll fds[2] = {{0, IB_READABLE, 0}, {(int)children, IB_READABLE, 0}};
    for (;;) {
        char bytes[128];
        ib_wait_any(fds, 2);
        if (fds[1].revents) {
            int status = 0;
            long ended;
            ib_read((int)children, bytes, sizeof bytes);
            while ((ended = ib_sys(__NR_wait4, -1, &status, 1 /* WNOHANG */, 0)) > 0)
                if (ended == pid) {
                    kill_descendants();
                    return ib_exit_code(status);
                }
        }
        if (fds[0].revents) {
            long n = ib_read(0, bytes, sizeof bytes);
            if (n <= 0) {
                kill_descendants();
                return 137;
            }
            /* This process keeps the other end of the pipe open: a program that does not read gets no signal, and no more than a
             * pipe holds (pipe(7)) is ever sent. */
            if (input[1] >= 0) ib_write(input[1], bytes, (size_t)n);
        }
    }
}

static int ib_main(int argc, char **argv, char **environment) {
    (void)environment;
    if (argc > 1 && ib_same(argv[1], "serve", 6)) {
        ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
        for (;;) serve();
    }
    if (argc > 1 && (ib_same(argv[1], "once", 5) || ib_same(argv[1], "-c", 3))) return once();
    /* The first process of a PID namespace gets only signals that it handles or blocks (pid_namespaces(7)). Without this an
     * engine would send SIGTERM without effect, and wait before it kills. Both signals are blocked and read one by one. */
    uint64_t wanted = 1u << 16 | 1u << 14; /* SIGCHLD is 17, SIGTERM 15 */
    ib_sys(__NR_rt_sigprocmask, 0 /* SIG_BLOCK */, &wanted, 0, 8);
    for (;;) {
        while (ib_sys(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0) > 0) {
        }
        if (ib_sys(__NR_rt_sigtimedwait, &wanted, 0, 0, 8) == 15) return 0;
    }
}
