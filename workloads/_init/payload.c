/* The first process of isobench's guest. It reads these files of the initial RAM disk, any of which may be absent:
 *
 *     /guest/modules    paths of kernel modules, one a line, in the order of loading (absent: all are built in)
 *     /guest/address    IPv4 address, netmask bits and interface: "10.0.2.15 24 eth0" (absent: no network)
 *     /guest/server     the SSH server and its arguments, one a line; each connection becomes its standard input
 *     /guest/request    a request (request.h) to execute before anything else is started
 *     /guest/root       a block device whose file system becomes the root directory; its own init takes over
 *
 * It reports events on the console as marks, lines of the form "isobench: WHAT":
 *     init                this program runs
 *     exit N              a request has ended with exit code N
 *     ready               it waits for connections and requests
 *     stopped             nothing runs any more, as requested
 *     failed WHAT ERRNO   something could not be done
 * A second serial port carries standard output of requests, and receives further requests. A third one carries their standard
 * error. The null request powers the guest off. As `_init serve PORT` this program is a service of a complete guest: it
 * executes /guest/request and further requests, and has the guest's own init power off.
 *
 * Without an SSH server only requests run in the guest. Each then ends with all processes that it has started, and the host
 * can stop it.
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "request.h"

static char text[65536];
static int console = 1, port_out = -1, port_err = -1;
static int first_process; /* 0: a service under another init */
static int requests_only; /* only requests run here: there is no SSH server */
static int children = -1; /* a signalfd that is readable when a child has ended */

/* Write a mark to the console. */
static void report(const char *what, const char *detail, long number, int numbered) {
    char line[256], digits[20];
    size_t n = 0, d = 0;
    /* The line break comes first: a program or the kernel may have written an unfinished line. */
    const char *const parts[] = {"\nisobench: ", what, *detail ? " " : "", detail, numbered ? " " : ""};
    for (int i = 0; i < 5; i++)
        for (const char *s = parts[i]; *s && n < 200; s++) line[n++] = *s;
    if (numbered) {
        uint64_t v = (uint64_t)(number < 0 ? -number : number);
        do digits[d++] = (char)('0' + v % 10);
        while (v /= 10);
        while (d) line[n++] = digits[--d];
    }
    line[n++] = '\n';
    ib_write(console, line, n);
}
static void failed(const char *what, long result) { report("failed", what, result, 1); }

static long read_file(const char *path) {
    long fd = ib_open(path, IB_O_RDONLY, 0), n = 0, r;
    if (fd < 0) return fd;
    while (n < (long)sizeof text - 1 && (r = ib_read((int)fd, text + n, sizeof text - 1 - (size_t)n)) > 0) n += r;
    ib_close((int)fd);
    text[n] = 0;
    return n;
}

/* Return the next line of `text` that is not empty, NUL-terminated, and advance *at; NULL at the end. */
static char *next_line(char **at) {
    char *line = *at;
    if (!*line) return NULL;
    char *end = line;
    while (*end && *end != '\n') end++;
    *at = *end ? end + 1 : end;
    *end = 0;
    return *line ? line : next_line(at);
}

static long mount_at(const char *source, const char *target, const char *type, uint64_t flags, const char *data) {
    ib_sys(__NR_mkdirat, IB_AT_FDCWD, target, 0755);
    return ib_sys(__NR_mount, source, target, type, flags, data);
}

/* Open a serial port in raw mode, so that it changes no byte: struct termios of the kernel with all flags clear. */
static int open_port(const char *name) {
    struct {
        uint32_t input, output, control, local;
        uint8_t line, characters[19];
    } settings = {0, 0, 0x18b2 /* B115200 CS8 CREAD CLOCAL */, 0, 0, {0}};
    settings.characters[6] = 1; /* VMIN */
    long fd = ib_open(name, IB_O_RDWR | 0400 /* NOCTTY */, 0);
    if (fd < 0) return (int)fd;
    long r = ib_sys(__NR_ioctl, fd, 0x5402 /* TCSETS */, &settings);
    return r < 0 ? (int)r : (int)fd;
}
static void drain(int fd) { ib_sys(__NR_ioctl, fd, 0x5409 /* TCSBRK */, 1); }

/* Open two consecutive ports; `names` is the name of the first one. */
static void open_ports(const char *names) {
    char path[64] = "/dev/";
    size_t n = 5;
    if (!names) names = "ttyS1";
    for (; *names && n < 60; names++) path[n++] = *names;
    path[n] = 0;
    if ((port_out = open_port(path)) < 0) failed(path, port_out);
    path[n - 1]++;
    if ((port_err = open_port(path)) < 0) failed(path, port_err);
}

/* A user-mode kernel runs its guest's processes as processes of the host, and intercepts their system calls. If only the kernel
 * is killed, they go on, and their system calls reach the host. There this process is not number 1: it exits at once. */
static void stay_inside(void) {
    if (first_process && ib_sys(__NR_getpid) != 1) ib_exit(1);
}

static void power_off(void) {
    stay_inside();
    ib_sys(__NR_sync);
    if (!first_process) {
        ib_sys(__NR_kill, 1, 38 /* SIGRTMIN+4: systemd starts poweroff.target, see systemd(1) */);
        return;
    }
    ib_sys(__NR_umount2, "/scratch", 0);
    for (;;) {
        ib_sys(__NR_reboot, 0xfee1dead, 672274793, 0x4321fedc /* POWER_OFF */, NULL);
        ib_sys(__NR_reboot, 0xfee1dead, 672274793, 0x01234567 /* RESTART: if the machine cannot power off */, NULL);
    }
}

/* Kill a process through a pidfd. A number could be that of a process of the host by now (see stay_inside); a pidfd that was
 * opened in the guest refers to nothing there. */
static void end_one(long pid) {
    long fd = ib_sys(__NR_pidfd_open, pid, 0);
    stay_inside();
    if (fd < 0) return;
    ib_sys(__NR_pidfd_send_signal, fd, 9, 0, 0);
    ib_close((int)fd);
}

/* Kill all other processes and wait for their end. Kernel threads ignore signals. */
static void end_all_others(void) {
    static char entries[32768];
    for (int round = 0; round < 1000; round++) {
        long fd = ib_open("/proc", IB_O_RDONLY | IB_O_DIRECTORY, 0), n, r;
        while ((r = ib_sys(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0)) > 0 || r == -4) {
        }
        if (r == -10 /* ECHILD */ || fd < 0) round = 1000; /* orphans become children of process 1: none is left */
        else
            while ((n = ib_sys(__NR_getdents64, fd, entries, sizeof entries)) > 0)
                for (long at = 0; at < n; at += *(uint16_t *)(entries + at + 16)) {
                    long pid = (long)ib_number(entries + at + 19);
                    if (pid > 1) end_one(pid);
                }
        if (fd >= 0) ib_close((int)fd);
    }
}

/* Wait until a child ends (0) or the host requests to stop what runs (1). Lines for the program's standard input go to `input`. */
static int wait_for_child_or_stop(int input) {
    struct ib_poll fds[2] = {{children, IB_READABLE, 0}, {port_out, IB_READABLE, 0}};
    for (;;) {
        char ignored[128];
        ib_wait_any(fds, 2);
        stay_inside();
        if (fds[0].revents) {
            ib_read(children, ignored, sizeof ignored);
            return 0;
        }
        if (fds[1].revents & IB_READABLE) {
            struct ib_command command;
            int r = ib_request_read(port_out, &command);
            if (r == 0 && command.stop) return 1;
            if (r == 0 && command.input) {
                if (input >= 0) ib_write(input, command.input, ib_length(command.input));
                continue;
            }
            if (r == 0 && !command.arguments) power_off();
            failed("request while another runs", r);
        } else if (fds[1].revents) {
            fds[1].fd = -1;
        }
    }
}

/* Execute a request and wait for its end. Other children that end meanwhile are reaped. */
static void perform(const struct ib_command *command) {
    int input[2] = {-1, -1};
    if (requests_only && ib_reads_lines(command)) ib_sys(__NR_pipe2, input, IB_O_CLOEXEC);
    long pid = ib_fork();
    if (pid == 0) {
        ib_unblock_signals();
        ib_sys(__NR_setsid);
        ib_execute(command, input[0], port_out, port_err);
    }
    int status = 126 << 8, stopped = 0;
    while (pid > 0) {
        long r = ib_sys(__NR_wait4, -1, &status, requests_only ? 1 /* WNOHANG */ : 0, 0);
        if (r == pid || (r < 0 && r != -4)) break;
        if (r == 0 && wait_for_child_or_stop(input[1])) {
            stopped = 1;
            end_one(pid);
        }
    }
    if (requests_only) end_all_others();
    for (int i = 0; i < 2; i++)
        if (input[i] >= 0) ib_close(input[i]);
    drain(port_out); /* the host must have all output before the mark of the end */
    drain(port_err);
    report("exit", "", ib_exit_code(status), 1);
    if (stopped) report("stopped", "", 0, 0);
}

static void load_modules(void) {
    if (read_file("/guest/modules") < 0) return;
    for (char *at = text, *path; (path = next_line(&at));) {
        long fd = ib_open(path, IB_O_RDONLY, 0);
        size_t n = ib_length(path);
        /* The kernel decompresses a module whose name does not end in ".ko" (MODULE_INIT_COMPRESSED_FILE). */
        int packed = n > 3 && !ib_same(path + n - 3, ".ko", 3);
        long r = fd < 0 ? fd : ib_sys(__NR_finit_module, fd, "", packed ? 4 : 0);
        if (r < 0 && r != -17 /* EEXIST */) failed(path, r);
        if (fd >= 0) ib_close((int)fd);
    }
}

struct interface {
    char name[16];
    union {
        struct {
            uint16_t family, port;
            uint8_t address[4], zero[8];
        } in;
        int16_t flags;
        uint8_t room[24];
    } u;
};

static long set_address(long s, const char *name, const uint8_t address[4], uint64_t bits) {
    struct interface i = {0};
    for (int n = 0; name[n] && n < 15; n++) i.name[n] = name[n];
    i.u.in.family = 2; /* AF_INET */
    for (int n = 0; n < 4; n++) i.u.in.address[n] = address[n];
    long r = ib_sys(__NR_ioctl, s, 0x8916 /* SIOCSIFADDR */, &i);
    if (r < 0) return r;
    uint32_t mask = bits ? ~(uint32_t)0 << (32 - bits) : 0;
    for (int n = 0; n < 4; n++) i.u.in.address[n] = (uint8_t)(mask >> (24 - 8 * n));
    if ((r = ib_sys(__NR_ioctl, s, 0x891c /* SIOCSIFNETMASK */, &i)) < 0) return r;
    struct interface up = {0};
    for (int n = 0; n < 16; n++) up.name[n] = i.name[n];
    up.u.flags = 0x41; /* UP RUNNING */
    return ib_sys(__NR_ioctl, s, 0x8914 /* SIOCSIFFLAGS */, &up);
}

/* Configure the network and listen for SSH: the listening socket, or minus errno. */
static long listen_for_ssh(void) {
    static const uint8_t home[4] = {127, 0, 0, 1};
    if (read_file("/guest/address") < 0) return -2;
    uint8_t address[4] = {0};
    char *p = text;
    for (int i = 0; i < 4; i++) {
        address[i] = (uint8_t)ib_number(p);
        while (*p >= '0' && *p <= '9') p++;
        if (*p) p++;
    }
    uint64_t bits = ib_number(p);
    while (*p && *p != ' ') p++;
    if (*p) p++;
    char *name = p;
    while (*p && *p != '\n') p++;
    *p = 0;
    long s = ib_sys(__NR_socket, 2, 2 /* DGRAM */ | 02000000, 0), r;
    if (s < 0) return s;
    set_address(s, "lo", home, 8);
    for (int tries = 0; (r = set_address(s, name, address, bits)) == -19 /* ENODEV */ && tries < 500; tries++) {
        int64_t pause[2] = {0, 10000000}; /* drivers look for their devices in the background */
        ib_sys(__NR_nanosleep, pause, 0);
    }
    ib_close((int)s);
    if (r < 0) return r;
    struct {
        uint16_t family;
        uint8_t port[2];
        uint32_t address;
        uint8_t zero[8];
    } here = {2, {0, 22}, 0, {0}};
    s = ib_sys(__NR_socket, 2, 1 /* STREAM */ | 02000000, 0);
    int one = 1;
    ib_sys(__NR_setsockopt, s, 1, 2 /* REUSEADDR */, &one, sizeof one);
    if ((r = ib_sys(__NR_bind, s, &here, sizeof here)) < 0) return r;
    if ((r = ib_sys(__NR_listen, s, 16)) < 0) return r;
    return s;
}

static char server[4096];
static char *server_words[64];

static void prepare_server(void) {
    long n = read_file("/guest/server");
    int words = 0;
    if (n < 0 || n >= (long)sizeof server) return;
    for (long i = 0; i <= n; i++) server[i] = text[i];
    for (char *at = server, *word; words < 63 && (word = next_line(&at));) server_words[words++] = word;
}

static void accept_ssh(int listening) {
    long c = ib_sys(__NR_accept4, listening, 0, 0, 02000000 /* CLOEXEC */);
    if (c < 0) return;
    int one = 1;
    /* Nagle's algorithm and delayed acknowledgements cost 40 ms a command. */
    ib_sys(__NR_setsockopt, c, 6, 1 /* TCP_NODELAY */, &one, sizeof one);
    if (ib_fork() == 0) {
        static char *const variables[] = {"PATH=/bin", "HOME=/root", NULL};
        ib_unblock_signals();
        ib_sys(__NR_setsid);
        ib_sys(__NR_dup3, c, 0, 0);
        ib_sys(__NR_dup3, c, 1, 0);
        ib_sys(__NR_dup3, console, 2, 0);
        failed(server_words[0], ib_sys(__NR_execve, server_words[0], server_words, variables));
        ib_exit(127);
    }
    ib_close((int)c);
}

__attribute__((noreturn)) static void serve(int listening) {
    children = (int)ib_children_fd();
    requests_only = first_process && !server_words[0];
    struct ib_poll fds[3] = {{children, IB_READABLE, 0}, {port_out, IB_READABLE, 0}, {listening, IB_READABLE, 0}};
    report("ready", "", 0, 0);
    for (;;) {
        char ignored[128];
        ib_wait_any(fds, listening < 0 ? 2 : 3);
        stay_inside();
        if (fds[0].revents) {
            ib_read(children, ignored, sizeof ignored);
            while (ib_sys(__NR_wait4, -1, 0, 1 /* WNOHANG */, 0) > 0) {
            }
        }
        if (fds[1].revents & IB_READABLE) {
            struct ib_command command;
            int r = ib_request_read(port_out, &command);
            if (r < 0) failed("request", r);
            else if (command.stop) report("stopped", "", 0, 0); /* the program ended before the request came */
            else if (command.input) continue;                   /* the same */
            else if (!command.arguments) power_off();
            else perform(&command);
        } else if (fds[1].revents) {
            fds[1].fd = -1; /* a port without a carrier is always readable: poll would return at once, for ever */
        }
        if (listening >= 0 && fds[2].revents) accept_ssh(listening);
    }
}

/* Make the file system of a block device the root directory, and execute its init. In an initial RAM disk pivot_root is not
 * possible: the new root is moved over the old one (Documentation/filesystems/ramfs-rootfs-initramfs.rst). */
static void hand_over(const char *device, const char *disk) {
    for (int tries = 0; tries < 500 && ib_sys(__NR_faccessat, IB_AT_FDCWD, device, 0, 0) < 0; tries++) {
        int64_t pause[2] = {0, 10000000};
        ib_sys(__NR_nanosleep, pause, 0);
    }
    long r = mount_at(device, "/newroot", "ext4", 0, "");
    if (r < 0) {
        failed(device, r);
        return;
    }
    static const char *const carried[] = {"dev", "proc", "sys", "isobench", "guest"};
    for (int i = 0; i < 5; i++) {
        char from[32] = "/", to[48] = "/newroot/";
        for (size_t n = 0; n <= ib_length(carried[i]); n++) from[1 + n] = to[9 + n] = carried[i][n];
        ib_sys(__NR_mkdirat, IB_AT_FDCWD, to, 0755);
        r = ib_sys(__NR_mount, from, to, "", i < 3 ? 8192 /* MOVE */ : 4096 /* BIND */, "");
        if (r < 0) failed(to, r);
    }
    if (disk && (r = mount_at(disk, "/newroot/scratch", "ext4", 0, "")) < 0) failed("mount of /scratch", r);
    ib_sys(__NR_chdir, "/newroot");
    if ((r = ib_sys(__NR_mount, ".", "/", "", 8192, "")) < 0) failed("move of the root", r);
    ib_sys(__NR_chroot, ".");
    ib_sys(__NR_chdir, "/");
    static char *const arguments[] = {"/sbin/init", NULL};
    static char *const variables[] = {"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/", "TERM=dumb", NULL};
    failed("/sbin/init", ib_sys(__NR_execve, arguments[0], arguments, variables));
}

static void perform_first(void) {
    long fd = ib_open("/guest/request", IB_O_RDONLY, 0);
    if (fd < 0) return;
    struct ib_command command;
    int r = ib_request_read((int)fd, &command);
    ib_close((int)fd);
    if (r < 0) failed("request", r);
    else if (command.arguments) perform(&command);
}

static int ib_main(int argc, char **argv, char **environment) {
    if (argc > 1 && ib_same(argv[1], "serve", 6)) {
        console = (int)ib_open("/dev/console", IB_O_RDWR | 0400 /* NOCTTY */, 0);
        open_ports(argc > 2 ? argv[2] : NULL);
        perform_first();
        serve(-1);
    }
    struct ib ib = {.environment = environment};
    first_process = 1;
    mount_at("dev", "/dev", "devtmpfs", 0, "");
    mount_at("proc", "/proc", "proc", 0, "");
    mount_at("sys", "/sys", "sysfs", 0, "");
    /* The kernel opens /dev/console before a driver of the serial port may be there: open it again. */
    long fd = ib_open("/dev/console", IB_O_RDWR, 0);
    if (fd >= 0) {
        console = (int)fd;
        for (int i = 0; i < 3; i++)
            if (fd != i) ib_sys(__NR_dup3, fd, i, 0);
    }
    report("init", "", 0, 0);
    if (read_file("/guest/root") > 0) {
        char device[64] = {0};
        for (int n = 0; n < 63 && text[n] > ' '; n++) device[n] = text[n];
        load_modules();
        hand_over(device, ib_sys(__NR_faccessat, IB_AT_FDCWD, "/dev/vdb", 0, 0) == 0 ? "/newroot/dev/vdb" : NULL);
        power_off();
    }
    open_ports(ib_env(&ib, "ISOBENCH_PORTS")); /* the kernel passes unknown NAME=VALUE options on as variables */
    perform_first(); /* before the modules: the nonce of a start-up should come as early as possible */
    load_modules();
    static char *const disks[] = {"/dev/vda", "/dev/nvme0n1", "/dev/ubda"};
    for (int i = 0; i < 3; i++)
        if (ib_sys(__NR_faccessat, IB_AT_FDCWD, disks[i], 0, 0) == 0) {
            long r = mount_at(disks[i], "/scratch", "ext4", 0, "");
            if (r < 0) failed("mount of /scratch", r);
            break;
        }
    prepare_server();
    long listening = server_words[0] ? listen_for_ssh() : -1;
    if (server_words[0] && listening < 0) failed("network", listening);
    serve((int)listening);
}
