"""What tools that make containers of a root directory share (systemd-nspawn, LXC): an instance's
files and name, the launcher that they are started by, and what the host sees of them.
"""

import contextlib
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isobench.model import Command, Evidence, Expectation, Fact, Leftover, Relation, Stage, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, seconds
from isobench.plugins.api import Completed
from isobench.targets.containers import _cgroup
from isobench.targets.shared import agents, elf, processes

CGROUPS: Final = Path("/sys/fs/cgroup")
MOUNT_POINTS: Final = (
    *("dev", "etc", "isobench", "proc", "root", "run", "scratch", "sys", "tmp", "usr", "var"),
)
"""What a root directory must hold to be taken for that of an operating system."""
TOOL_FAILURES: Final = (1, 255)
"""The exit codes by which both tools say that they have failed; a payload may have them, too."""
_PATIENCE: Final = 100

EXPECTATIONS: Final = (
    # Both tools show a boot id of their own: the evidence looks beneath it.
    Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
    *(
        Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
        for space in ("cgroup", "ipc", "mnt", "pid", "uts")
    ),
    Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
)
PRIVATE_NETWORK: Final = Expectation(key="ns.net", relation=Relation.UNLIKE_HOST)
PRIVATE_USERS: Final = Expectation(key="ns.user", relation=Relation.UNLIKE_HOST)

# What `_launch tool` does (workloads/_launch/payload.c), for a probe, which runs before any payload
# is built.
_STAND_IN: Final = """
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
    """One container's name and its files; both tell whose it is."""

    name: str
    folder: Path
    """Whatever belongs to it alone; gone at the end."""
    programs: Path
    """What it sees as /isobench."""
    scratch: Path
    """What it sees as /scratch."""
    launcher: Sequence[str]
    """What executes words of `_launch tool`."""

    @property
    def root(self) -> Path:
        """Its root directory: mount points and nothing else."""
        return self.folder / "root"

    @property
    def log(self) -> Path:
        """Where the tool writes what it has to say."""
        return self.folder / "log"

    def give(self, user: int, group: int) -> None:
        """Make the container's root the owner of what it may write."""
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
        # Whatever the umask: the container's users are not the host's.
        for path in (folder, made.root, *made.root.iterdir()):
            path.chmod(0o755)
        yield made
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def instance(stage: Stage, kind: str) -> contextlib.AbstractContextManager[Instance]:
    """Make the files of a container that shows a stage's programs."""
    return _instance(
        stage.scratch,
        stage.owner,
        programs=stage.root / Stage.INSIDE.lstrip("/"),
        scratch=processes.private_scratch(stage.scratch, kind),
        launcher=(str(stage.tools["_launch"]), "tool"),
    )


@contextlib.contextmanager
def trial(folder: Path, owner: str) -> Iterator[Instance]:
    """Make the files of a container that shows `answer`, the smallest program that answers."""
    abi = host_abi()
    assert abi is not None  # who asks has looked
    programs, scratch = folder / "programs", folder / "scratch"
    for made in (programs, scratch):
        made.mkdir(exist_ok=True)
        made.chmod(0o755)
    (programs / "answer").write_bytes(elf.probe_program(abi.machine))
    (programs / "answer").chmod(0o755)
    stand_in = (sys.executable, "-I", "-S", "-c", _STAND_IN)
    with _instance(
        folder, owner, programs=programs, scratch=scratch, launcher=stand_in
    ) as instance_:
        yield instance_


def answers(argv: Sequence[str], *, environment: Mapping[str, str]) -> Completed | None:
    """Start a trial; return how it ended where it did not answer, and None where it did.

    A container that answers and yet has something to say on standard error has not answered.
    """
    try:
        done = processes.run(argv, timeout=seconds(20), env=environment)
    except OSError as error:
        return Completed(exit_code=None, stdout=b"", stderr=str(error).encode())
    clean = done.exit_code == 0 and done.stdout == elf.ANSWER and not done.stderr
    return None if clean else done


def covered(*candidates: str) -> str:
    """Return the first of these directories that exists, to be covered; the last must."""
    return next(path for path in candidates if Path(path).is_dir())


def closed(path: Path) -> Path | None:
    """Return the outermost directory on the way to a path that is closed to other users."""
    above = [*reversed(path.parents), path]
    return next((folder for folder in above if not folder.stat().st_mode & 0o001), None)


def program(stage_name: str) -> str:
    """Return the path inside of a program of the stage."""
    return f"{Stage.INSIDE}/{stage_name}"


# ---- running something in it ---------------------------------------------------------------------


def launch(
    argv: Sequence[str],
    command: Command,
    *,
    timeout: Nanoseconds,
    environment: Mapping[str, str],
    why: Callable[[bytes], str],
) -> Completed:
    """Run a tool's command to its end; SessionError where the tool itself has failed.

    `why` returns the reason from what was said on standard error. A payload speaks before it can
    fail: so an exit code of the tool's and not a word on standard output is the tool's failure.
    """
    try:
        done = processes.run(argv, timeout=timeout, env=environment, command=command)
    except OSError as error:
        raise SessionError(f"{argv[0]} cannot be executed: {error}") from None
    if done.exit_code in TOOL_FAILURES and not done.stdout:
        raise SessionError(why(done.stderr))
    return done


class ContainerSession:
    """An open container, and what the host sees of it."""

    def __init__(
        self,
        agent: agents.AgentSession,
        *,
        settings: str,
        limits: Mapping[str, str],
        why: Callable[[], str],
    ) -> None:
        """Take the agent in the container; how the container was asked for, in words; the file
        of its cgroup that holds each limit that was asked for, by the limit's name; and what says
        what the tool has logged.
        """
        self._agent, self._settings, self._limits, self._why = agent, settings, limits, why

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Have the agent execute a program."""
        try:
            return self._agent.run(command, timeout=timeout)
        except SessionError as error:
            why = self._why()
            raise SessionError(f"{error}: {why}" if why else str(error), hint=error.hint) from None

    def witness(self) -> Iterable[Evidence]:
        """Yield who made the container, how it was asked for, and the limits that are in force."""
        monitor = self._agent.pid
        first = processes.first_in_pid_namespace(monitor)
        parent = processes.parent(first) if first is not None else None
        source = f"/proc/{parent}/exe"
        yield Evidence(key="host.container.maker", value=_executable(parent), source=source)
        yield Evidence(
            key="host.container.first_pid", value=first, source=f"descendants of {monitor}"
        )
        yield Evidence(key="host.container.settings", value=self._settings, source="isobench")
        for name, file in self._limits.items():
            path, value = _limit(first, file)
            yield Evidence(key=f"host.limit.{name}", value=value, source=path)


def first_process(executable: str) -> Expectation:
    """Return the expectation that the first process of the container is this program."""
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
    """Return where a limit of a process stands and what it is; None where it cannot be read."""
    for path in (folder / file for folder in cgroups_of(pid)):
        with contextlib.suppress(OSError, ValueError):
            return str(path), int(path.read_text())
    return file, None


# ---- cgroups -------------------------------------------------------------------------------------


def unified() -> bool:
    """Say whether all controllers are those of cgroup v2."""
    return (CGROUPS / "cgroup.controllers").is_file()


def cgroups_of(pid: int | str | None) -> list[Path]:
    """Return the folders of a process's cgroups, as this host mounts them."""
    found = []
    try:
        lines = _membership(pid).read_text().splitlines()
    except OSError:
        return []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        name = controllers.removeprefix("name=")
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
    """Remove a cgroup and those below it, of which no process is left; return what is wrong, or
    nothing.
    """
    return _cgroup.remove(folder, attempts=_PATIENCE)


def sweep_cgroups(prefixes: Sequence[str], alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the cgroups PREFIX + owner + "-…" of runs that have died; return one result for each
    container, however many hierarchies it was in.
    """
    errors: dict[str, list[str]] = {}
    for prefix in prefixes:
        for folder in _cgroup.below(CGROUPS, [prefix]):
            name = folder.name.removeprefix(prefix)
            if not alive(name.rpartition("-")[0]):
                errors.setdefault(name, []).append(remove_cgroup(folder))
    return [
        Leftover(what=f"cgroups of {name}", failure="; ".join(filter(None, said)))
        for name, said in errors.items()
    ]
