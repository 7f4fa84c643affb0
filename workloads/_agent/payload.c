/* The agent: the first process of an instance that stays open, where the technology has no "exec" of its own.
 *
 * `_agent` alone waits and reaps (an engine executes the payloads). `_agent serve` answers requests on its
 * standard input, a SOCK_SEQPACKET socket. A request is one message: a 32-bit argument count, a 32-bit
 * variable count, then that many NUL-ended strings, with two descriptors attached (SCM_RIGHTS): standard output and
 * standard error of the program to be executed. The answer is one 32-bit number: the wait status, or minus errno.
 * The program writes straight to the host's pipes: nothing is relayed, no time is added.
 */
#define ISOBENCH_MAIN
#include "isobench.h"

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

static char request[32768];
static char *strings[512];

static long serve(void) {
    union {
        uint64_t aligned[8];
        struct {
            uint64_t length;
            int level, type;
            int fds[8];
        } header;
    } control = {{0}};
    struct iovec_ iov = {request, sizeof request - 1};
    struct message m = {.iov = &iov, .iov_count = 1, .control = &control, .control_length = sizeof control};
    long n = ib_sys(__NR_recvmsg, 0, &m, 0x40000000 /* MSG_CMSG_CLOEXEC */);
    if (n == -4 /* EINTR */) return 0;
    if (n <= 0) ib_exit(0); /* the host closed its end: the instance is over */
    int answer = -22;
    if (n < 8 || control.header.type != 1 || control.header.length < 24) goto reply;
    uint32_t argc = *(uint32_t *)request, envc = *(uint32_t *)(request + 4);
    if (argc == 0 || argc + envc + 2 > sizeof strings / sizeof *strings) goto reply;
    request[n] = 0;
    char *p = request + 8;
    uint32_t slot = 0;
    for (uint32_t i = 0; i < argc + envc; i++) {
        if (p >= request + n) goto reply;
        if (i == argc) strings[slot++] = NULL;
        strings[slot++] = p;
        p += ib_length(p) + 1;
    }
    if (envc == 0) strings[slot++] = NULL;
    strings[slot] = NULL;
    long pid = ib_sys(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0);
    if (pid == 0) {
        ib_sys(__NR_dup3, control.header.fds[0], 1, 0);
        ib_sys(__NR_dup3, control.header.fds[1], 2, 0);
        long nothing = ib_open("/dev/null", IB_O_RDONLY, 0);
        if (nothing >= 0) ib_sys(__NR_dup3, nothing, 0, 0);
        else ib_close(0);
        ib_sys(__NR_execve, strings[0], strings, strings + argc + 1);
        ib_exit(127);
    }
    ib_close(control.header.fds[0]);
    ib_close(control.header.fds[1]);
    control.header.length = 0;
    answer = (int)pid;
    if (pid > 0) {
        int status = 0;
        long r;
        /* Orphans of the payload come to the first process of a PID namespace: reap them on the way. */
        do r = ib_sys(__NR_wait4, -1, &status, 0, 0);
        while (r != pid && (r > 0 || r == -4));
        answer = r == pid ? status : (int)r;
        while (ib_sys(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0) > 0) {
        }
    }
reply:
    if (control.header.type == 1 && control.header.length >= 24) {
        ib_close(control.header.fds[0]);
        ib_close(control.header.fds[1]);
    }
    ib_sys(__NR_write, 0, &answer, sizeof answer);
    return 0;
}

static int ib_main(int argc, char **argv, char **environment) {
    (void)environment;
    if (argc > 1 && ib_same(argv[1], "serve", 6)) {
        ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
        for (;;) serve();
    }
    for (;;) {
        while (ib_sys(__NR_wait4, -1, 0, 0, 0) > 0) {
        }
        /* No child now, and children of an engine's "exec" are not ours: look again every now and then. */
        int64_t pause[2] = {1, 0};
        ib_sys(__NR_nanosleep, pause, 0);
    }
}
