/* A request to execute a program. isobench sends it to its agent and to the first process of its guests.
 *
 * A message is a 32-bit number of arguments, a 32-bit number of variables, then that many NUL-terminated strings; the first one is
 * the path of the program. On a stream (not a SOCK_SEQPACKET socket) the message's length in bytes precedes it, 32 bits. All numbers
 * are little-endian, as on every ISA that payloads are built for. No shell interprets an argument.
 *
 * A message without arguments is the null request, which executes nothing. With one variable, whatever it is, it is the request to
 * stop what runs; with two, the second one is a line for the standard input of what runs.
 */
#ifndef ISOBENCH_REQUEST_H
#define ISOBENCH_REQUEST_H
#include "isobench.h"

static char ib_request[32769];
static char *ib_strings[514];

struct ib_command {
    char **arguments; /* NULL-terminated; NULL for the null request */
    char **variables;
    int stop; /* of a null request: kill what runs */
    char *input; /* of a null request: a line for the standard input of what runs, or NULL */
};

/* Parse a message of `n` bytes in ib_request: 0, or minus errno. */
static inline int ib_request_parse(long n, struct ib_command *command) {
    if (n < 8 || n >= (long)sizeof ib_request) return -22;
    uint32_t argc = *(uint32_t *)ib_request, envc = *(uint32_t *)(ib_request + 4);
    command->arguments = command->variables = NULL;
    command->stop = argc == 0 && envc == 1;
    command->input = NULL;
    if (argc == 0 && envc != 2) return 0;
    if (argc > 500 || envc > 500 || argc + envc + 2 > sizeof ib_strings / sizeof *ib_strings) return -7 /* E2BIG */;
    ib_request[n] = 0;
    char *p = ib_request + 8;
    uint32_t slot = 0;
    for (uint32_t i = 0; i < argc + envc; i++) {
        if (p >= ib_request + n) return -22;
        if (i == argc) ib_strings[slot++] = NULL;
        ib_strings[slot++] = p;
        p += ib_length(p) + 1;
    }
    if (envc == 0) ib_strings[slot++] = NULL;
    ib_strings[slot] = NULL;
    if (argc == 0) {
        command->input = ib_strings[2]; /* after the NULL that ends the arguments, and the first variable */
        return 0;
    }
    command->arguments = ib_strings;
    command->variables = ib_strings + argc + 1;
    return 0;
}

static inline int ib_read_exactly(int fd, char *to, long n) {
    for (long done = 0; done < n;) {
        long r = ib_read(fd, to + done, (size_t)(n - done));
        if (r == -4 /* EINTR */) continue;
        if (r <= 0) return r < 0 ? (int)r : -32 /* EPIPE */;
        done += r;
    }
    return 0;
}

/* Read a message with its length from a stream and parse it: 0, or minus errno. */
static inline int ib_request_read(int fd, struct ib_command *command) {
    uint32_t n = 0;
    int r = ib_read_exactly(fd, (char *)&n, 4);
    if (r < 0) return r;
    if (n >= sizeof ib_request) return -7;
    if ((r = ib_read_exactly(fd, ib_request, (long)n)) < 0) return r;
    return ib_request_parse((long)n, command);
}

/* Whether a program reads lines that the host sends: then its environment has ISOBENCH_STDIN. */
static inline int ib_reads_lines(const struct ib_command *command) {
    for (char **v = command->variables; *v; v++)
        if (ib_same(*v, "ISOBENCH_STDIN=", 15)) return 1;
    return 0;
}

/* Execute a program with these streams (`in` below 0: /dev/null); does not return. */
__attribute__((noreturn)) static inline void ib_execute(const struct ib_command *command, int in, int out, int err) {
    if (out != 1) ib_sys(__NR_dup3, out, 1, 0);
    if (err != 2) ib_sys(__NR_dup3, err, 2, 0);
    long from = in < 0 ? ib_open("/dev/null", IB_O_RDONLY, 0) : in;
    if (from > 0) ib_sys(__NR_dup3, from, 0, 0);
    else if (from < 0) ib_close(0);
    ib_sys(__NR_execve, command->arguments[0], command->arguments, command->variables);
    ib_exit(127);
}

/* The exit code that shells and SSH report for a wait status: 128 + N for signal N. */
static inline int ib_exit_code(int status) { return status & 0x7f ? 128 + (status & 0x7f) : status >> 8 & 0xff; }

static inline long ib_fork(void) { return ib_sys(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0); }

/* A signalfd for SIGCHLD, to wait for children and other descriptors at the same time, or minus errno. */
static inline long ib_children_fd(void) {
    uint64_t set = 1u << 16; /* SIGCHLD is 17 */
    ib_sys(__NR_rt_sigprocmask, 0 /* SIG_BLOCK */, &set, 0, 8);
    return ib_sys(__NR_signalfd4, -1, &set, 8, 02000000 | 04000 /* CLOEXEC, NONBLOCK */);
}
static inline void ib_unblock_signals(void) {
    uint64_t none = 0;
    ib_sys(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, &none, 0, 8);
}

struct ib_poll {
    int fd;
    short events, revents;
};
#define IB_READABLE 1
static inline long ib_wait_any(struct ib_poll *fds, uint64_t n) { return ib_sys(__NR_ppoll, fds, n, 0, 0, 8); }

#endif
