/* The launcher of the target `landlock`: it restricts itself and then executes a program in its place.
 *
 *     _confine [network] [unfiltered] ROOT SCRATCH -- PROGRAM [ARGUMENT...]
 *
 * It makes no namespace, mounts nothing and needs no privilege. In this order it sets no-new-privileges and a Landlock ruleset,
 * drops all capabilities, and installs the seccomp filter of launcher.h unless `unfiltered` is given. Then it executes PROGRAM:
 * there is no further process, and the exit code is PROGRAM's. If a step fails, it exits with 125 and a line on standard error,
 * and does not execute PROGRAM.
 *
 * What the ruleset allows, beneath which directory or file:
 *     ROOT                read, list, execute
 *     SCRATCH             read, list, write, truncate, make and remove files and directories, rename among them
 *     /proc, /sys         read and list: how many CPUs, which namespaces, which processes
 *     /dev/null, zero, full, random, urandom     read and write
 * All other files, and all other rights to these, are refused (EACCES). If the kernel's Landlock supports it, these are refused
 * as well: bind or connect of a TCP socket (ABI 4; `network` allows it), ioctl on devices (ABI 5), connections to abstract Unix
 * sockets and signals to processes outside (ABI 6).
 *
 * Source: landlock(7).
 */
#define ISOBENCH_MAIN
#include "isobench.h"
#include "launcher.h"

/* The kernel's interface, since <linux/landlock.h> of an older compiler lacks its newer parts. */
#define CREATE_RULESET 444
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define EXECUTE 1u
#define WRITE_FILE 2u
#define READ_FILE 4u
#define READ_DIRECTORY 8u
#define REMOVE_DIRECTORY 16u
#define REMOVE_FILE 32u
#define MAKE_DIRECTORY 128u
#define MAKE_FILE 256u
#define REFER 8192u    /* rename from one directory to another; ABI 2 */
#define TRUNCATE 16384u /* ABI 3 */
#define NETWORK 3u     /* bind, connect; ABI 4 */
#define SCOPES 3u      /* abstract Unix sockets, signals; ABI 6 */

struct ruleset {
    uint64_t files, network, scoped;
};
struct beneath {
    uint64_t allowed;
    int32_t directory;
} __attribute__((packed));

/* All rights to files that this ABI can refuse. The bits are numbered without a gap. */
static uint64_t files_of(long abi) {
    if (abi < 2) return (1u << 13) - 1;
    if (abi < 3) return (1u << 14) - 1;
    if (abi < 5) return (1u << 15) - 1;
    return (1u << 16) - 1;
}

static long place(const char *path) { return ib_open(path, 010000000 /* O_PATH */, 0); }

static void allow(long rules, const struct ruleset *r, long fd, uint64_t rights) {
    if (fd < 0) return; /* without the file nothing need be allowed */
    struct beneath rule = {.allowed = rights & r->files, .directory = (int32_t)fd};
    must("landlock_add_rule", ib_sys(ADD_RULE, rules, 1 /* beneath a path */, &rule, 0));
    ib_close((int)fd);
}

static void confine(const char *root, const char *scratch, int network) {
    static const char *const devices[] = {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"};
    long abi = must("Landlock", ib_sys(CREATE_RULESET, 0, 0, 1 /* which version */));
    struct ruleset r = {.files = files_of(abi)};
    if (abi >= 4 && !network) r.network = NETWORK;
    if (abi >= 6) r.scoped = SCOPES;
    long rules = must("landlock_create_ruleset", ib_sys(CREATE_RULESET, &r, sizeof r, 0));
    allow(rules, &r, must(root, place(root)), READ_FILE | READ_DIRECTORY | EXECUTE);
    allow(rules, &r, must(scratch, place(scratch)),
          READ_FILE | READ_DIRECTORY | WRITE_FILE | TRUNCATE | MAKE_FILE | MAKE_DIRECTORY | REMOVE_FILE |
              REMOVE_DIRECTORY | REFER);
    allow(rules, &r, place("/proc"), READ_FILE | READ_DIRECTORY);
    allow(rules, &r, place("/sys"), READ_FILE | READ_DIRECTORY);
    for (unsigned i = 0; i < COUNT(devices); i++)
        allow(rules, &r, place(devices[i]), READ_FILE | WRITE_FILE | TRUNCATE);
    must("landlock_restrict_self", ib_sys(RESTRICT_SELF, rules, 0));
    ib_close((int)rules);
}

static int ib_main(int argc, char **argv, char **environment) {
    int at = 1, network = 0, unfiltered = 0;
    for (; at < argc && argv[at][0] != '/'; at++) {
        if (ib_same(argv[at], "network", 8)) network = 1;
        else if (ib_same(argv[at], "unfiltered", 11)) unfiltered = 1;
        else give_up("unknown argument: use network or unfiltered", 0);
    }
    if (argc < at + 4 || !ib_same(argv[at + 2], "--", 3))
        give_up("usage: _confine [network] [unfiltered] ROOT SCRATCH -- PROGRAM [ARGUMENT...]", 0);
    ib_sys(__NR_prctl, 1 /* PR_SET_PDEATHSIG */, 9);
    must("no_new_privs", ib_sys(__NR_prctl, 38, 1, 0, 0, 0)); /* without it only root may restrict itself */
    confine(argv[at], argv[at + 1], network);
    drop_capabilities();
    if (!unfiltered) filter_system_calls();
    char **program = argv + at + 3;
    give_up(program[0], ib_sys(__NR_execve, program[0], program, environment));
}
