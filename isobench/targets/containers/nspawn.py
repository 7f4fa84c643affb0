"""systemd-nspawn: the container manager that comes with systemd."""

import contextlib
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.containers import _oscontainer
from isobench.targets.shared import agents, prefixes, processes

_CGROUP: Final = "nspawn."
"""How the cgroup of an instance begins, before its name: nspawn makes two of its own in it, called
"payload" and "supervisor", and leaves both behind.
"""
LINK: Final = "ve-isob"
"""How the host's end of a virtual link begins; its name has 15 characters at most."""
_RANGE: Final = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_USERS: Final = 65536
_FIRST_BASE, _LAST_BASE = 0x00080000, 0x6FFF0000
"""Where nspawn's own `--private-users=pick` looks for a range (systemd's UIDS-GIDS.md)."""
_NETWORKS: Final = ("none", "host", "veth")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """One way to ask for a container."""

    words: str
    arguments: Sequence[str]


_LADDER: Final = (
    _Settings(
        words="in a cgroup of isobench's, not registered",
        arguments=("--register=no", "--keep-unit"),
    ),
    _Settings(words="in a scope of systemd's, not registered", arguments=("--register=no",)),
)
"""What starts without systemd as the first process comes first: it depends on the least."""

_working: dict["NspawnTarget", _Settings] = {}


@dataclass(frozen=True, kw_only=True)
class NspawnTarget:
    """A container of systemd-nspawn's: the payloads on a root directory that holds nothing else."""

    name: ClassVar[TargetName] = TargetName("nspawn")
    technology: ClassVar[Technology] = Technology.CONTAINERIZATION
    abi: ClassVar[Abi | None] = None
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "systemd-nspawn is executed on a root directory made just before, with programs"
        " that no container has run",
        "warm": "systemd-nspawn is executed again with the same programs: it keeps no stopped"
        " container",
        "exec": "isobench's agent in an open container forks and executes the payload",
    }

    network: str = "none"
    """"none": a network namespace with a loopback interface alone; "host": the host's network, as
    nspawn does by itself; "veth": a virtual link to the host besides.
    """
    private_users: str = "no"
    """User namespace, as `--private-users`: "no", as nspawn does by itself; "pick": 65536 users
    that nothing else here is likely to have; or a range, "600000:65536".
    """
    seccomp: bool = True
    """Whether nspawn's own filter of system calls is in force, as it is by default."""

    def __post_init__(self) -> None:
        """Refuse what nspawn would."""
        if self.network not in _NETWORKS:
            raise ValueError(f"network = {self.network!r} is none of {', '.join(_NETWORKS)}")
        if self.private_users not in ("no", "pick") and not _RANGE.fullmatch(self.private_users):
            raise ValueError(
                f'private_users = {self.private_users!r} is neither "no", "pick" nor a range such'
                ' as "600000:65536"'
            )

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Return what must be seen, as the options are."""
        private_users = self.private_users != "no"
        return (
            *_oscontainer.EXPECTATIONS,
            *((_oscontainer.PRIVATE_NETWORK,) if self.network != "host" else ()),
            *((_oscontainer.PRIVATE_USERS,) if private_users else ()),
            # Its root directory is made with nothing in it: who else would have written this?
            Expectation(key="container.manager", relation=Relation.EQUALS, value="systemd-nspawn"),
            # Its stub is the first process; the kernel shows that to none whose users are others.
            *((_oscontainer.first_process("systemd-nspawn"),) if not private_users else ()),
            _oscontainer.maker("systemd-nspawn"),
        )

    def probe(self) -> Availability:
        """Find settings with which a container starts and answers."""
        if _program() is None:
            return Unavailable(
                lack=Lack.TOOL, what="systemd-nspawn", hint="isobench doctor --install nspawn"
            )
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="no payloads for this host", hint="use Linux on x86_64"
            )
        if os.geteuid() != 0:
            return Unavailable(
                lack=Lack.PERMISSION,
                what="systemd-nspawn makes containers for root alone",
                hint="sudo isobench run --targets nspawn",
            )
        try:
            settings = self._settings()
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
        said = processes.output_of([_program() or "", "--version"]) or "systemd"
        return Available(version=f"{said.splitlines()[0]}, {settings.words}")

    def _settings(self) -> _Settings:
        """Return settings with which a container starts; SessionError when none do."""
        if self in _working:
            return _working[self]
        complaints = []
        with prefixes.probe_root() as root:
            for settings in _LADDER:
                done = self._trial(settings, root.parent)
                if done is None:
                    _working[self] = settings
                    return settings
                complaints.append(processes.last_line(done.stderr))
        raise SessionError(
            f"systemd-nspawn is there, but no container starts: {complaints[0]}",
            hint="systemd-nspawn --directory=/ --ephemeral --register=no true, to see what it says",
        )

    def _trial(self, settings: _Settings, folder: Path) -> Completed | None:
        """Return how a container ended that did not answer, or None."""
        try:
            with (
                _oscontainer.trial(folder, ownership.mine()) as instance,
                self._prepared(instance, settings) as prefix,
            ):
                argv = [*prefix, _oscontainer.program("answer")]
                return _oscontainer.answers(argv, environment=self._environment())
        except OSError as error:
            return Completed(exit_code=None, stdout=b"", stderr=str(error).encode())

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_oscontainer.ContainerSession]:
        """Start a container whose command is the agent."""
        settings = self._settings()
        with (
            _oscontainer.instance(stage, self.name) as instance,
            self._prepared(instance, settings) as prefix,
            prefixes.opened(prefix, environment=self._environment()) as agent,
        ):
            yield _oscontainer.ContainerSession(
                agent, settings=settings.words, limits={}, why=_nothing_more
            )

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a container whose command is the payload."""
        variables = command.environ(agents.INSIDE.scratch)
        with (
            _oscontainer.instance(stage, self.name) as instance,
            self._prepared(instance, self._settings(), variables) as prefix,
        ):
            return _oscontainer.launch(
                [*prefix, _oscontainer.program(command.argv[0]), *command.argv[1:]], command,
                timeout=timeout, environment=self._environment(), why=_why,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """Return the variables of nspawn itself; the container gets none of them."""
        off = {} if self.seccomp else {"SYSTEMD_SECCOMP": "0"}
        return {**prefixes.host_path(), **processes.tied(), **off}

    @contextlib.contextmanager
    def _prepared(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Make an instance's cgroup, give its files to its users; yield the command before the
        command.
        """
        users = self._users()
        if users is not None:
            instance.give(users[0], users[0])
        folders = [parent / f"{_CGROUP}{instance.name}" for parent in _cgroup_parents()]
        try:
            for folder in folders:
                folder.mkdir()
            yield self._arguments(instance, settings, users, folders, variables or {})
        finally:
            for folder in folders:
                _oscontainer.remove_cgroup(folder)

    def _arguments(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        users: tuple[int, int] | None,
        cgroups: Sequence[Path],
        variables: Mapping[str, str],
    ) -> list[str]:
        # fmt: off
        return [
            *instance.launcher,
            *(word for folder in cgroups for word in ("cgroup", str(folder / "cgroup.procs"))),
            # It leaves directories there, and complains where /run is no tmpfs.
            "cover", _oscontainer.covered("/run/systemd/nspawn", "/run/systemd", "/run"),
            "--",
            _program() or "systemd-nspawn",
            "--quiet",
            "--settings=no",  # nobody's files say what this container is
            f"--machine={instance.name}",
            "--hostname=isobench",
            f"--directory={instance.root}",
            f"--bind-ro={_quoted(instance.programs)}:{Stage.INSIDE}",
            f"--bind={_quoted(instance.scratch)}:{agents.INSIDE.scratch}",
            # What it would write into the root directory serves a whole system.
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            "--as-pid2", "--pipe",
            *settings.arguments,
            *_network(self.network, instance),
            f"--private-users={'no' if users is None else '{}:{}'.format(*users)}",
            *(f"--setenv={key}={value}" for key, value in variables.items()),
            "--",
        ]
        # fmt: on

    def _users(self) -> tuple[int, int] | None:
        """Return the first of the host's users that the container has, and how many."""
        if self.private_users == "no":
            return None
        if self.private_users == "pick":
            # Chosen here, where nspawn would: what lies outside its root must be its users', too.
            ranges = (_LAST_BASE - _FIRST_BASE) // _USERS + 1
            return _FIRST_BASE + int.from_bytes(os.urandom(4)) % ranges * _USERS, _USERS
        first, _, count = self.private_users.partition(":")
        return int(first), int(count)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what runs that have died left: their containers ended with them, the cgroups
        stay.
        """
        del cached  # nothing is kept between runs
        return [*processes.sweep(alive), *_oscontainer.sweep_cgroups([_CGROUP], alive)]


def _program() -> str | None:
    return shutil.which("systemd-nspawn")


def _network(network: str, instance: _oscontainer.Instance) -> tuple[str, ...]:
    if network == "host":
        return ()
    if network == "none":
        return ("--private-network",)
    # By itself it names the link after the container, and warns that this name is too long.
    return (f"--network-veth-extra={LINK}{instance.name[-8:]}:host0",)


def _quoted(path: Path) -> str:
    """Return a path as nspawn takes it in a bind: a colon ends it, unless it is escaped."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")


def _why(stderr: bytes) -> str:
    return f"systemd-nspawn: {processes.last_line(stderr)}"


def _nothing_more() -> str:
    """Add nothing: nspawn's last line is in the error already."""
    return ""


def _cgroup_parents() -> list[Path]:
    """Return where nspawn looks for the cgroup that it is in."""
    if _oscontainer.unified():
        return [_oscontainer.CGROUPS]
    named = (_oscontainer.CGROUPS / "systemd", _oscontainer.CGROUPS / "unified")
    return [folder for folder in named if os.access(folder / "cgroup.procs", os.W_OK)]
