"""What systemd-nspawn and LXC share: tools that make a container from a root directory.

An instance's files and name, the launcher that starts the tool, and what the host sees of a
container.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.evidence import cpu_share
from isobench.model import Command, Evidence, Expectation, Fact, Leftover, Relation, Stage, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins.api import Completed
from isobench.targets.shared import agents, cgroups, elf, processes

CGROUPS: Final = Path("/sys/fs/cgroup")
MOUNT_POINTS: Final = (
    *("dev", "etc", "isobench", "proc", "root", "run", "scratch", "sys", "tmp", "usr", "var"),
)
"""The directories of an empty root directory. systemd-nspawn refuses a root without /usr."""
TOOL_FAILURES: Final = (1, 255)
"""The exit codes of both tools when they fail. A payload may have them as well."""
_PATIENCE: Final = 100
"""Attempts to remove a cgroup, 10 ms apart."""

EXPECTATIONS: Final = (
    # Both tools mount an invented boot id over the kernel's. The evidence payload looks below it,
    # in a mount namespace of its own.
    Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
    *(
        Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
        for space in ("cgroup", "ipc", "mnt", "pid", "uts")
    ),
    Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
)
PRIVATE_NETWORK: Final = Expectation(key="ns.net", relation=Relation.UNLIKE_HOST)
PRIVATE_USERS: Final = Expectation(key="ns.user", relation=Relation.UNLIKE_HOST)

# Does in Python what `_launch tool` does (workloads/_launch/payload.c): a probe runs before any
# payload is built. prctl(1, 9) kills the tool when isobench dies; 0x20000 is CLONE_NEWNS, 0x44000
# MS_REC | MS_PRIVATE, and 6 is MS_NOSUID | MS_NODEV.
_LAUNCHER_STAND_IN: Final = """
import ctypes, os, sys
c = ctypes.CDLL(None, use_errno=True)
def must(what, result):
    if result < 0:
        sys.exit("%s: %s" % (what, os.strerror(ctypes.get_errno())))
words = sys.argv[1:]
end = words.index("--")
c.prctl(1, 9)
own = False
for verb, path in zip(words[0:end:2], words[1:end:2]):
    if verb == "cgroup":
        with open(path, "w") as file:
            file.write("0")
        continue
    if not own:
        must("mount namespace", c.unshare(0x20000))
        must("private mounts", c.mount(None, b"/", None, 0x44000, None))
        own = True
    must(path, c.mount(b"tmpfs", os.fsencode(path), b"tmpfs", 6, b"mode=755"))
os.execv(words[end + 1], words[end + 1:])
"""


# ---- an instance's files -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """One container's name, which contains its owner's, and its files."""

    name: str
    folder: Path
    """Holds everything that belongs to this container alone; removed at the end."""
    programs: Path
    """The directory that the container sees as /isobench."""
    scratch: Path
    """The directory that the container sees as /scratch."""
    launcher: Sequence[str]
    """The command that executes the arguments of `_launch tool`."""

    @property
    def root(self) -> Path:
        """Its root directory: mount points and nothing else."""
        return self.folder / "root"

    @property
    def log(self) -> Path:
        """The tool's log file."""
        return self.folder / "log"

    def give(self, user: int, group: int) -> None:
        """Make this user and group the owners of the directories that the container writes to."""
        for path in (self.root, *self.root.iterdir(), self.scratch):
            os.chown(path, user, group)


@contextlib.contextmanager
def _instance(
    parent: Path, owner: str, *, programs: Path, scratch: Path, launcher: Sequence[str]
) -> Iterator[Instance]:
    name = f"{owner}-{os.urandom(4).hex()}"
    folder = parent / name
    made = Instance(name=name, folder=folder, programs=programs, scratch=scratch, launcher=launcher)
    try:
        for mount_point in MOUNT_POINTS:
            (made.root / mount_point).mkdir(parents=True)
        # Open to all users whatever the umask is: the container's users may be others.
        for path in (folder, made.root, *made.root.iterdir()):
            path.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def instance(stage: Stage, kind: str) -> contextlib.AbstractContextManager[Instance]:
    """Make the files of a container that sees a stage's programs; `kind` is the target's name."""
    return _instance(
        stage.scratch,
        stage.owner,
        programs=stage.root / Stage.INSIDE.lstrip("/"),
        scratch=processes.private_scratch(stage.scratch, kind),
        launcher=(str(stage.tools["_launch"]), "tool"),
    )


@contextlib.contextmanager
def trial(folder: Path, owner: str) -> Iterator[Instance]:
    """Make the files of a container that sees `answer`, the probe program.

    The caller has checked that this host has payloads.
    """
    abi = host_abi()
    assert abi is not None
    programs, scratch = folder / "programs", folder / "scratch"
    for made in (programs, scratch):
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    (programs / "answer").write_bytes(elf.probe_program(abi.machine))
    (programs / "answer").chmod(0o755)
    stand_in = (sys.executable, "-I", "-S", "-c", _LAUNCHER_STAND_IN)
    with _instance(
        folder, owner, programs=programs, scratch=scratch, launcher=stand_in
    ) as instance_:
        yield instance_


def answers(argv: Sequence[str], *, environment: Mapping[str, str]) -> Completed | None:
    """Run a command that ends in the probe program; return None if it answered, else its result."""
    # With output on standard error it has not answered: settings with which a tool prints warnings
    # are not the right ones, and payloads share its standard error.
    try:
        done = processes.run(argv, timeout=seconds(20), env=environment)
    except OSError as error:
        return Completed(exit_code=None, stdout=b"", stderr=str(error).encode())
    clean = done.exit_code == 0 and done.stdout == elf.ANSWER and not done.stderr
    return None if clean else done


def covered(*candidates: str) -> str:
    """Return the first of these directories that exists, to mount over. The last must exist."""
    return next(path for path in candidates if Path(path).is_dir())


def program(stage_name: str) -> str:
    """Return the path inside a container of a program of the stage."""
    return f"{Stage.INSIDE}/{stage_name}"


# ---- running something in it ---------------------------------------------------------------------


def launch(
    argv: Sequence[str],
    command: Command,
    *,
    timeout: Nanoseconds,
    environment: Mapping[str, str],
    reason: Callable[[bytes], str],
) -> Completed:
    """Run a tool's command to its end. SessionError: the tool itself has failed.

    `reason` returns the tool's error from its standard error.
    """
    try:
        done = processes.run(argv, timeout=timeout, env=environment, command=command)
    except OSError as error:
        raise SessionError(f"{argv[0]} cannot be executed: {error}") from None
    # Payloads print a line before they can fail: without output, this exit code is the tool's.
    if done.exit_code in TOOL_FAILURES and not done.stdout:
        raise SessionError(reason(done.stderr))
    return done


class ContainerSession:
    """An open container, and what the host sees of it."""

    interactive: ClassVar[bool] = True

    def __init__(
        self,
        agent: agents.AgentSession,
        *,
        settings: str,
        limits: Mapping[str, str],
        reason: Callable[[], str],
    ) -> None:
        """Take the agent in the container, and three facts about the container.

        `settings` describes how it was started. `limits` are the files of its cgroup that hold
        its limits, by the limits' names. `reason` returns the tool's logged error, if any.
        """
        self._agent, self._settings, self._limits, self._reason = agent, settings, limits, reason

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Let the agent execute a program. SessionError, with the reason: the container is gone."""
        try:
            return self._agent.run(command, timeout=timeout)
        except SessionError as error:
            reason = self._reason()
            raise SessionError(
                f"{error}: {reason}" if reason else str(error), hint=error.hint
            ) from None

    def witness(self) -> Iterable[Evidence]:
        """Yield which program made the container, how it was started, and its limits in force."""
        monitor = self._agent.pid
        first = processes.first_in_pid_namespace(monitor)
        parent = processes.parent(first) if first is not None else None
        source = f"/proc/{parent}/exe"
        yield Evidence(key="host.container.maker", value=_executable(parent), source=source)
        yield Evidence(
            key="host.container.first_pid", value=first, source=f"descendants of {monitor}"
        )
        yield Evidence(key="host.container.settings", value=self._settings, source="isobench")
        yield from cpu_share.evidence(first)
        for name, file in self._limits.items():
            path, value = _limit(first, file)
            yield Evidence(key=f"host.limit.{name}", value=value, source=path)


def first_process(executable: str) -> Expectation:
    """Return the expectation that the container's first process is this program."""
    return Expectation(key="process.first", relation=Relation.CONTAINS, value=executable)


def maker(executable: str) -> Expectation:
    """Return the expectation that the parent of the container's first process is this program."""
    return Expectation(key="host.container.maker", relation=Relation.CONTAINS, value=executable)


def limited(name: str, value: int) -> Expectation:
    """Return the expectation that a limit can be read back from the container's cgroup."""
    return Expectation(key=f"host.limit.{name}", relation=Relation.EQUALS, value=value)


def _executable(pid: int | None) -> str | None:
    try:
        return str(Path(f"/proc/{pid}/exe").readlink())
    except OSError:
        return None


def _limit(pid: int | None, file: str) -> tuple[str, Fact]:
    """Return the path and the value of a limit of a process; None where it cannot be read."""
    for path in (folder / file for folder in cgroups_of(pid)):
        with contextlib.suppress(OSError, ValueError):
            return str(path), int(path.read_text())
    return file, None


# ---- cgroups -------------------------------------------------------------------------------------


def is_unified() -> bool:
    """Return whether all controllers belong to cgroup v2."""
    return (CGROUPS / "cgroup.controllers").is_file()


def cgroups_of(pid: int | str | None) -> list[Path]:
    """Return the folders of a process's cgroups, where this host mounts them.

    Source: /proc/PID/cgroup of cgroups(7).
    """
    found = []
    try:
        lines = _membership(pid).read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
        # cgroup v2 has no name here: it is mounted at the root, or at "unified" where systemd uses
        # both versions. Controllers of v1 that are mounted together ("cpu,cpuacct") usually have a
        # link for the first of them.
        mounted = ["unified", ""] if not name else [name, name.partition(",")[0]]
        for hierarchy in dict.fromkeys(mounted):
            folder = CGROUPS / hierarchy / path.lstrip("/")
            if folder.is_dir():
                found.append(folder)
                break
    return found


def _membership(pid: int | str | None) -> Path:
    return Path(f"/proc/{pid}/cgroup")


def remove_cgroup(folder: Path) -> str:
    """Remove a cgroup and those below it, without processes; return what is wrong, or ""."""
    return cgroups.remove(folder, attempts=_PATIENCE)


def sweep_cgroups(prefixes: Sequence[str], alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the cgroups PREFIX + owner + "-…" of runs that have died.

    Return one result for each container, which may have a cgroup in several hierarchies.
    """
    errors: dict[str, list[str]] = {}
    for prefix in prefixes:
        for folder in cgroups.below(CGROUPS, [prefix]):
            name = folder.name.removeprefix(prefix)
            if not alive(name.rpartition("-")[0]):
                errors.setdefault(name, []).append(remove_cgroup(folder))
    return [
        Leftover(what=f"cgroups of {name}", failure="; ".join(filter(None, failures)))
        for name, failures in errors.items()
    ]
