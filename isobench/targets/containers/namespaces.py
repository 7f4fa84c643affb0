"""A container made by isobench's own launcher (workloads/_launch/payload.c): nothing to install.

It has the parts that documents name as a container's: user, mount, PID, network, IPC, UTS and
cgroup namespaces, pivot_root to a root that holds only the payload, no capability,
no-new-privileges, a seccomp filter, and a cgroup of its own where this user may make one.
"""

import contextlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from isobench.config import paths
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    Limits,
    Relation,
    Resource,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import agents, cgroups, disks, prefixes, processes, userns

_NOBODY: Final = 65534
_ATTEMPTS: Final = 50
"""Attempts to remove a cgroup, 10 ms apart."""
_CGROUPS: Final = Path("/sys/fs/cgroup")
_V1: Final = ("memory", "pids", "cpu", "blkio")
_PERIOD: Final = 100_000
"""Microseconds of a period of the CPU quota: the kernel's default."""
_FILES: Final = {
    Resource.CPU: ("cpu.max", "cpu.cfs_quota_us"),
    Resource.MEMORY: ("memory.max", "memory.limit_in_bytes"),
    Resource.PROCESSES: ("pids.max",),
    Resource.IO: ("io.max", "blkio.throttle.write_bps_device"),
}
"""The cgroup files that set a limit: of v2, then of v1 (cgroup-v2.rst and cgroup-v1/)."""
_MIN_PROCESSES: Final = 8
_MIN_QUOTA, _MAX_QUOTA = 0.01, 4096.0

# Does in a child what the launcher does, and prints the first step that fails with its errno.
# 0x7e020000 is CLONE_NEW* for all namespaces but time, 0x44000 MS_REC | MS_PRIVATE, 6 is
# MS_NOSUID | MS_NODEV, and 14 adds MS_NOEXEC. A mapping of gids needs setgroups denied first:
# user_namespaces(7). A fork is needed, as unshare puts only children into the new PID namespace.
_TRY_STEPS: Final = """
import ctypes, os, sys
c = ctypes.CDLL(None, use_errno=True)
def must(what, result):
    if result < 0:
        print(what, ctypes.get_errno(), sep=":"); sys.stdout.flush(); os._exit(1)
uid, gid = os.getuid(), os.getgid()
must("unshare", c.unshare(0x7e020000))
try:
    open("/proc/self/uid_map", "w").write("0 %d 1" % uid)
    open("/proc/self/setgroups", "w").write("deny")
    open("/proc/self/gid_map", "w").write("0 %d 1" % gid)
except OSError as error:
    print("uid_map", error.errno, sep=":"); sys.stdout.flush(); os._exit(1)
pid = os.fork()
if pid == 0:
    must("private", c.mount(None, b"/", None, 0x44000, None))
    must("tmpfs", c.mount(b"tmpfs", b"/tmp", b"tmpfs", 6, None))
    os.mkdir("/tmp/proc")
    must("proc", c.mount(b"proc", b"/tmp/proc", b"proc", 14, None))
    os._exit(0)
os._exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@dataclass(frozen=True, kw_only=True)
class NamespacesTarget:
    """A container without an engine. Its options are the limits of its cgroup."""

    name: ClassVar[TargetName] = TargetName("namespaces")
    technology: ClassVar[Technology] = Technology.CONTAINERIZATION
    abi: ClassVar[Abi | None] = None
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        *(
            Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
            for space in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
        ),
        Expectation(key="security.seccomp", relation=Relation.EQUALS, value="2"),
        Expectation(key="security.no_new_privs", relation=Relation.EQUALS, value="1"),
        Expectation(
            key="security.cap_effective", relation=Relation.EQUALS, value="0000000000000000"
        ),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "the launcher is executed on a root made just before; the payload is process 1",
        "warm": "the launcher is executed again on the same root: there are no stopped instances",
        "exec": "isobench's agent in an open container forks and executes the payload",
    }

    pids: int = 1024
    """Maximum number of processes (pids.max), at least 8."""
    memory: str = ""
    """Maximum memory in bytes, or as "512MiB"; empty: no limit."""
    cpu_quota: float = 0.0
    """Maximum CPU time, in CPUs: 0.5 is half of one; 0: no limit."""
    write_limit: str = ""
    """Maximum bytes a second to the scratch directory's disk, as "8MiB"; empty: no limit."""

    def __post_init__(self) -> None:
        """Check the limits. ValueError: one is too small for any payload, or not a limit."""
        if self.pids < _MIN_PROCESSES:
            raise ValueError(f"pids = {self.pids}: write {_MIN_PROCESSES} or more")
        if self.cpu_quota and not _MIN_QUOTA <= self.cpu_quota < _MAX_QUOTA:
            raise ValueError(f"cpu_quota = {self.cpu_quota:g}: write CPUs, as in 0.5; 0: no limit")

    def probe(self) -> Availability:
        """Try all system calls that the launcher makes."""
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="Linux namespaces", hint="run isobench on Linux"
            )
        try:
            done = processes.run(
                [sys.executable, "-I", "-S", "-c", _TRY_STEPS], timeout=seconds(20), env=os.environ
            )
        except OSError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint="try again")
        if done.exit_code != 0:
            return _refusal(*map(processes.text, (done.stdout, done.stderr)))
        if lacking := self._not_limited():
            return Unavailable(
                lack=Lack.PERMISSION,
                what=f"{' and '.join(lacking)} cannot be set: this user may make no cgroup for it",
                hint=f"run isobench as root, or remove {' and '.join(lacking)} from isobench.toml",
            )
        kind = "rootful" if os.geteuid() == 0 else "rootless"
        groups = "with" if _cgroup_folders("probe") else "without"
        return Available(version=f"Linux {os.uname().release}, {kind}, {groups} a cgroup")

    def _not_limited(self) -> list[str]:
        """Return the options whose limit no cgroup here takes. A target under the name of a limit
        must have it.
        """
        wanted = {
            "memory": (Resource.MEMORY, self.memory),
            "cpu_quota": (Resource.CPU, self.cpu_quota),
            "write_limit": (Resource.IO, self.write_limit),
            "pids": (Resource.PROCESSES, self.pids != type(self).pids),
        }
        if not any(value for _, value in wanted.values()):
            return []
        with _cgroups(self, ownership.mine(), paths.cache()) as (_, limits):
            taken = {Path(path).name for path, value in limits.items() if _is_limit(value)}
        return [
            option
            for option, (resource, value) in wanted.items()
            if value and taken.isdisjoint(_FILES[resource])
        ]

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a container whose first process is the agent."""
        with (
            _cgroups(self, stage.owner, stage.scratch) as (groups, limits),
            prefixes.opened(_launcher(stage, groups), environment={}) as session,
        ):
            yield _Session(session, limits)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a container whose first process is the payload; the cgroup is part of the start."""
        command.on_phase(BEGIN)
        with _cgroups(self, stage.owner, stage.scratch) as (groups, _):
            return prefixes.launch(
                _launcher(stage, groups), command,
                timeout=timeout, environment={}, own_failure=prefixes.OWN_FAILURE,
            )  # fmt: skip

    @property
    def limitable(self) -> Sequence[Resource]:
        """The resources that a cgroup of this user can limit."""
        with _cgroups(self, ownership.mine(), None) as (folders, _):
            return [
                resource
                for resource, files in _FILES.items()
                if any((folder / file).exists() for folder in folders for file in files)
            ]

    def limited(self, limits: Limits) -> "NamespacesTarget":
        """Return this target with these limits."""
        return replace(
            self,
            cpu_quota=limits.cpus,
            memory=str(limits.memory),
            pids=limits.processes,
            write_limit=str(limits.write_rate),
        )

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the cgroups of runs that have died. Their containers have died with them."""
        del cached  # nothing is kept between runs
        removed = []
        for folder in _found_cgroups():
            if alive(folder.name.rpartition("-")[0]):
                continue
            error = cgroups.remove(folder, attempts=_ATTEMPTS)
            removed.append(Leftover(what=f"cgroup {folder}", failure=error))
        return removed


class _Session:
    """An open container, and the limits that were set from outside."""

    interactive: ClassVar[bool] = True

    def __init__(self, agent: agents.AgentSession, limits: Mapping[str, str]) -> None:
        self._agent, self._limits = agent, limits

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        return self._agent.run(command, timeout=timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield the limits of the container's cgroup, and which share of the CPU it gets."""
        yield from self._agent.witness()
        if not self._limits:
            yield Evidence(
                key="host.cgroup", value="none: this user may not make one", source="mkdir"
            )
        for path, value in self._limits.items():
            yield Evidence(key=f"host.cgroup.{Path(path).name}", value=value, source=path)


def _launcher(stage: Stage, groups: Sequence[Path]) -> list[str]:
    scratch = processes.private_scratch(stage.scratch, "namespaces")
    uid, gid = os.getuid(), os.getgid()
    if uid == 0:
        # The container's root is not the host's: it maps to a user who owns nothing but the scratch
        # directory.
        uid = gid = _NOBODY
        os.chown(scratch, uid, gid)
    return [
        *(str(stage.tools["_launch"]), str(uid), str(gid), str(stage.root), str(scratch)),
        *(str(group / "cgroup.procs") for group in groups),
        "--",
    ]


# ---- cgroups -------------------------------------------------------------------------------------


def _cgroup_folders(name: str) -> list[Path]:
    """Return the folders of a new cgroup of this name; empty where this user may make none."""
    # v2 has one tree; each controller of v1 has its own.
    if (_CGROUPS / "cgroup.controllers").is_file():
        parents = [_CGROUPS]
    else:
        parents = [_CGROUPS / controller for controller in _V1 if (_CGROUPS / controller).is_dir()]
    return [parent / name for parent in parents if os.access(parent, os.W_OK)]


def _limits(target: NamespacesTarget, folder: Path, scratch: Path | None) -> dict[str, str]:
    """Return the value of each file that sets a limit, in both versions of cgroups."""
    # The caller writes those that exist.
    wanted = {"pids.max": str(target.pids)}
    memory, rate = _bytes("memory", target.memory), _bytes("write_limit", target.write_limit)
    if memory is not None:
        wanted |= {"memory.max": str(memory), "memory.limit_in_bytes": str(memory)}
    if target.cpu_quota:
        quota = int(target.cpu_quota * _PERIOD)
        wanted |= {"cpu.max": f"{quota} {_PERIOD}", "cpu.cfs_quota_us": str(quota)}
    disk = None if rate is None or scratch is None else disks.disk_under(scratch)
    if disk is not None:
        _, numbers = disk
        wanted["io.max"] = f"{numbers} wbps={rate}"
        wanted["blkio.throttle.write_bps_device"] = f"{numbers} {rate}"
    return {str(folder / name): value for name, value in wanted.items()}


def _is_limit(value: str) -> bool:
    """Return whether a file of a cgroup, as read back, says that there is a limit."""
    return value != "" and not value.startswith(("max", "-1"))


def _bytes(option: str, text: str) -> int | None:
    if not text:
        return None
    for suffix, factor in (("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30), ("", 1)):
        digits = text.removesuffix(suffix)
        if text.endswith(suffix) and digits.isdigit():
            return int(digits) * factor
    raise SessionError(
        f"{option} = {text!r} is not a size", hint=f'[targets.namespaces] {option} = "512MiB"'
    )


@contextlib.contextmanager
def _cgroups(
    target: NamespacesTarget, owner: str, scratch: Path | None
) -> Iterator[tuple[Sequence[Path], Mapping[str, str]]]:
    """Make a cgroup, yield its folders and the limits as read back by file, and remove it."""
    made: list[Path] = []
    limits: dict[str, str] = {}
    try:
        for folder in _cgroup_folders(f"{owner}-{os.urandom(4).hex()}"):
            try:
                folder.mkdir()
            except OSError:
                continue
            made.append(folder)
            for path, value in _limits(target, folder, scratch).items():
                # A controller may not be enabled here, and a value may be rounded.
                if Path(path).exists():
                    with contextlib.suppress(OSError):
                        Path(path).write_text(value)
                        limits[path] = Path(path).read_text().strip()
        yield made, limits
    finally:
        for folder in made:
            cgroups.remove(folder, attempts=_ATTEMPTS)


def _found_cgroups() -> list[Path]:
    parents = [_CGROUPS, *(_CGROUPS / controller for controller in _V1)]
    return [folder for parent in parents for folder in cgroups.children(parent)]


_CONTAINERS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))


def _refusal(output: str, stderr: str) -> Unavailable:
    step, _, number = output.partition(":")
    reason = os.strerror(int(number)) if number.isdigit() else stderr.strip()[-200:] or "unknown"
    if any(path.exists() for path in _CONTAINERS):
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"isobench runs in a container that may not make another ({step}: {reason})",
            hint="run it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined"
            " --security-opt systempaths=unconfined",
        )
    # Ubuntu's AppArmor allows the namespace, and denies its privileges at the next step.
    if step in ("unshare", "uid_map") or userns.forbidding_settings():
        return userns.refusal(f"{step}: {reason}")
    return Unavailable(
        lack=Lack.PERMISSION,
        what=f"a user namespace may not mount here ({step}: {reason})",
        # The kernel refuses a new proc where parts of the present one are hidden by mounts
        # (mount_too_revealing() in fs/namespace.c).
        hint="find what is mounted over /proc: grep ' /proc/' /proc/self/mountinfo",
    )
