"""Landlock: a process confines itself, without privileges, namespaces or an installed tool.

The restrictions are those of programs with a built-in sandbox: no-new-privileges, a Landlock
ruleset, a seccomp filter, no capabilities. isobench's launcher (workloads/_confine/payload.c, which
lists what the ruleset allows) sets them up and then executes the payload in its place. So this
target differs from native only in what the kernel checks.

Sources: landlock(7); Documentation/userspace-api/landlock.rst of the Linux kernel.
"""

import contextlib
import ctypes
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins.api import Completed
from isobench.targets.shared import agents, prefixes, processes

_WITH_TCP: Final = 4
"""The first ABI of Landlock that can refuse TCP."""
_FORBIDDEN: Final = 13
"""EACCES: the file exists and a policy refuses it. In a container the same file gives ENOENT."""
_ENOSYS, _EPERM, _EOPNOTSUPP = 38, 1, 95

# A child process makes all system calls of the launcher, and then checks that the kernel refuses
# what it should and nothing else. It prints the first failure as STEP:ERRNO. It is a separate
# process, since a restriction cannot be undone. The numbers: 444 to 446 are the system calls of
# Landlock, 0x1fff are the rights to files of ABI 1, prctl 38 is PR_SET_NO_NEW_PRIVS, and prctl 22
# is PR_SET_SECCOMP, whose null pointer gives EFAULT (14) if filters are supported.
_TRIAL: Final = """
import ctypes, os, socket, struct, sys
c = ctypes.CDLL(None, use_errno=True)
def end(what, error):
    print(what, error, sep=":"); sys.stdout.flush(); os._exit(1)
def call(what, *words):
    result = c.syscall(*(ctypes.c_long(w) if isinstance(w, int) else w for w in words))
    if result < 0:
        end(what, ctypes.get_errno())
    return result
abi = call("landlock", 444, 0, 0, 1)
rights = struct.pack("<QQQ", 0x1fff, 3 if abi >= 4 else 0, 3 if abi >= 6 else 0)
rules = call("ruleset", 444, rights, 24, 0)
inside = os.open("/proc", os.O_PATH)
call("rule", 445, rules, 1, struct.pack("<Qi", 12, inside), 0)
if c.prctl(38, 1, 0, 0, 0) < 0:
    end("no_new_privs", ctypes.get_errno())
call("restrict", 446, rules, 0)
if c.prctl(22, 2, None) < 0 and ctypes.get_errno() != 14:
    end("seccomp", ctypes.get_errno())
try:
    os.close(os.open("/proc/self/status", os.O_RDONLY))
except OSError as error:
    end("inside", error.errno)
try:
    os.open("/", os.O_RDONLY)
    end("outside", 0)
except OSError as error:
    if error.errno != 13:
        end("outside", error.errno)
if abi >= 4:
    result = socket.socket().connect_ex(("127.0.0.1", 1))
    if result != 13:
        end("tcp", result)
"""


def _abi() -> int:
    """Return the version of the kernel's Landlock, or minus errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    found = libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    return found if found >= 0 else -ctypes.get_errno()


@dataclass(frozen=True, kw_only=True)
class LandlockTarget:
    """A process of this host under Landlock and seccomp; it sees the host's paths and processes.

    Of the file system it may open the stage's root directory, its scratch directory, /proc, /sys
    and five devices.
    """

    name: ClassVar[TargetName] = TargetName("landlock")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "a launcher confines itself and executes a new copy of the program in its place",
        "warm": "the same with the same copy: there is no instance that could be stopped",
        "exec": "isobench's agent, which is confined, forks and executes the payload",
    }

    network: bool = False
    """Allow it to bind and connect TCP sockets. A kernel before 6.7 cannot refuse them."""
    seccomp: bool = True
    """Also filter system calls, with the list that Docker's default profile refuses."""

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Facts of a confined process of the host, which is in no container.

        It shares the host's namespaces. A forbidden file is visible, and gives EACCES.
        """
        same, equals = Relation.SAME_AS_HOST, Relation.EQUALS
        filters = Relation.UNLIKE_HOST if self.seccomp else same
        expectations = [
            Expectation(key="kernel.boot_id", relation=same),
            *(
                Expectation(key=f"ns.{space}", relation=same)
                for space in ("ipc", "mnt", "net", "pid", "user", "uts")
            ),
            Expectation(key="security.no_new_privs", relation=equals, value="1"),
            Expectation(key="security.cap_effective", relation=equals, value="0" * 16),
            # Compared with the host's: if isobench itself runs in a container, every process has a
            # filter, and only an additional one is this target's.
            Expectation(key="security.seccomp_filters", relation=filters),
            Expectation(key="host.canary_readable", relation=equals, value=False),
            Expectation(key="host.canary_errno", relation=equals, value=_FORBIDDEN),
        ]
        if self.seccomp:
            expectations.append(Expectation(key="security.seccomp", relation=equals, value="2"))
        if self._refuses_tcp():
            expectations.append(
                Expectation(key="net.loopback_errno", relation=equals, value=_FORBIDDEN)
            )
        return tuple(expectations)

    def _refuses_tcp(self) -> bool:
        return not self.network and _abi() >= _WITH_TCP

    def probe(self) -> Availability:
        """Confine a process, and check that the kernel refuses what it should and nothing else."""
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Landlock", hint="run isobench on Linux")
        try:
            done = processes.run(
                # -I -S: nothing of the user's own Python set-up is executed.
                [sys.executable, "-I", "-S", "-c", _TRIAL],
                timeout=seconds(20),
                env=os.environ,
            )
        except OSError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint="try again")
        if done.exit_code != 0:
            return _refusal(*map(processes.text, (done.stdout, done.stderr)))
        abi = _abi()
        without = "" if abi >= _WITH_TCP else ", which cannot refuse TCP"
        return Available(version=f"Landlock ABI {abi}{without}, Linux {os.uname().release}")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a confined agent. What it executes inherits the restrictions."""
        view = _view(stage)
        with prefixes.opened(
            self._prefix(stage), environment=processes.tied(), view=view
        ) as session:
            yield _Session(session)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start the payload confined."""
        return prefixes.launch(
            self._prefix(stage), command, timeout=timeout, environment={},
            view=_view(stage), own_failure=prefixes.OWN_FAILURE,
        )  # fmt: skip

    def _prefix(self, stage: Stage) -> list[str]:
        words = {"network": self.network, "unfiltered": not self.seccomp}
        return [
            str(stage.tools["_confine"]),
            *(word for word, wanted in words.items() if wanted),
            *(str(stage.root), str(_scratch(stage)), "--"),
        ]

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End processes of killed runs."""
        del cached  # this target keeps nothing between runs
        return processes.sweep(alive)


class _Session:
    """A confined agent."""

    interactive: ClassVar[bool] = True

    def __init__(self, agent: agents.AgentSession) -> None:
        self._agent = agent

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        return self._agent.run(command, timeout=timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield the ABI of Landlock, which no file shows that the evidence payload could read, and
        which share of the CPU the sandbox gets.
        """
        yield from self._agent.witness()
        yield Evidence(
            key="host.landlock.abi", value=_abi(), source="landlock_create_ruleset(VERSION)"
        )


def _scratch(stage: Stage) -> Path:
    return processes.private_scratch(stage.scratch, "landlock")


def _view(stage: Stage) -> agents.View:
    return agents.View(
        programs=str(stage.root / "isobench"),
        scratch=str(_scratch(stage)),
        variables=processes.tied(),
    )


_LSM: Final = Path("/sys/kernel/security/lsm")


def _refusal(failure: str, stderr: str) -> Unavailable:
    """Return what a failure of the trial means; `failure` is STEP:ERRNO as it printed it."""
    step, _, text = failure.partition(":")
    number = int(text) if text.isdigit() else 0
    reason = os.strerror(number) if number else stderr.strip()[-200:] or "it was not refused"
    # EOPNOTSUPP: the kernel has Landlock, but the parameter lsm= did not enable it at boot.
    if (step, number) == ("landlock", _EOPNOTSUPP):
        with contextlib.suppress(OSError):
            others = f"landlock,{_LSM.read_text().strip()}"
            return _switched_off(others)
        return _switched_off("landlock,lockdown,yama,integrity,apparmor")
    if (step, number) == ("landlock", _ENOSYS):
        return Unavailable(
            lack=Lack.VERSION,
            what=f"Linux {os.uname().release} has no Landlock",
            hint="run Linux 5.13 or newer, built with CONFIG_SECURITY_LANDLOCK=y",
        )
    # A seccomp filter of a container refuses with EPERM system calls that it does not list.
    if number == _EPERM and step in ("landlock", "ruleset", "rule", "restrict"):
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"a policy forbids the use of Landlock ({step}: {reason})",
            hint="in a container, start it with a seccomp profile that allows landlock_*:"
            " --security-opt seccomp=unconfined",
        )
    # Emulated kernels may accept the system calls and enforce nothing.
    if step in ("inside", "outside", "tcp"):
        return Unavailable(
            lack=Lack.RUNTIME,
            what=f"Landlock refuses too much or too little ({step}: {reason})",
            hint="run isobench on Linux itself, not on an emulated kernel; uname -a shows which",
        )
    return Unavailable(
        lack=Lack.RUNTIME,
        what=f"no process can confine itself here ({step or 'no output'}: {reason})",
        hint="grep -E 'LANDLOCK|SECCOMP' /boot/config-$(uname -r): all must be =y",
    )


def _switched_off(order: str) -> Unavailable:
    return Unavailable(
        lack=Lack.SERVICE,
        what="this kernel was booted without Landlock",
        hint=f"add lsm={order} to the kernel's command line (GRUB_CMDLINE_LINUX in"
        " /etc/default/grub, then sudo update-grub), and reboot",
    )
