"""systemd-nspawn, the container manager of systemd. Source: systemd-nspawn(1)."""

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
"""Prefix of the name of an instance's cgroup. nspawn makes two cgroups in it, "payload" and
"supervisor", and leaves both behind.
"""
LINK: Final = "ve-isob"
"""Prefix of the name of the host's end of a virtual link. The kernel allows 15 characters."""
_RANGE: Final = re.compile(r"(\d{1,10}):(\d{1,10})", re.ASCII)
_USERS: Final = 65536
_FIRST_BASE, _LAST_BASE = 0x00080000, 0x6FFF0000
"""The range of nspawn's `--private-users=pick`: UIDS-GIDS.md of systemd."""
_NETWORKS: Final = ("none", "host", "veth")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """One set of arguments to start containers with."""

    description: str
    arguments: Sequence[str]


_CANDIDATES: Final = (
    _Settings(
        description="in a cgroup of isobench's, not registered",
        arguments=("--register=no", "--keep-unit"),
    ),
    _Settings(description="in a scope of systemd's, not registered", arguments=("--register=no",)),
)
"""The first needs no running systemd. Without `--register=no` nspawn connects to machined, and
without `--keep-unit` to systemd: "Failed to open system bus" where these do not run.
"""

_working: dict["NspawnTarget", _Settings] = {}


@dataclass(frozen=True, kw_only=True)
class NspawnTarget:
    """A container of systemd-nspawn on a root directory that holds only the payloads."""

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
    """"none": a network namespace with only a loopback interface; "host": the host's network,
    nspawn's default; "veth": a network namespace with a virtual link to the host.
    """
    private_users: str = "no"
    """User namespace, as `--private-users`: "no", nspawn's default; "pick": a random range of 65536
    users; or a range, "600000:65536".
    """
    seccomp: bool = True
    """Whether nspawn's own filter of system calls is in force, as it is by default."""

    def __post_init__(self) -> None:
        """Check the options. ValueError: one is invalid."""
        if self.network not in _NETWORKS:
            raise ValueError(f"network = {self.network!r}: write one of {', '.join(_NETWORKS)}")
        if self.private_users not in ("no", "pick") and not _RANGE.fullmatch(self.private_users):
            raise ValueError(
                f'private_users = {self.private_users!r}: write "no", "pick" or a range, as in'
                ' "600000:65536"'
            )

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What evidence must show with these options."""
        private_users = self.private_users != "no"
        return (
            *_oscontainer.EXPECTATIONS,
            *((_oscontainer.PRIVATE_NETWORK,) if self.network != "host" else ()),
            *((_oscontainer.PRIVATE_USERS,) if private_users else ()),
            # nspawn writes this into /run. The root directory was empty, so that no other program
            # can have written it.
            Expectation(key="container.manager", relation=Relation.EQUALS, value="systemd-nspawn"),
            # With --as-pid2 a stub of nspawn is the first process. In another user namespace the
            # kernel does not let the payload read which program that is.
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
                what="systemd-nspawn needs root",
                hint="sudo isobench run --targets nspawn",
            )
        try:
            settings = self._settings()
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
        output = processes.output_of([_program() or "", "--version"]) or "systemd"
        return Available(version=f"{output.splitlines()[0]}, {settings.description}")

    def _settings(self) -> _Settings:
        """Return the first settings with which a container starts. SessionError: none do."""
        if self in _working:
            return _working[self]
        errors = []
        with prefixes.probe_root() as root:
            for settings in _CANDIDATES:
                done = self._start_error(settings, root.parent)
                if done is None:
                    _working[self] = settings
                    return settings
                errors.append(processes.last_line(done.stderr))
        raise SessionError(
            f"systemd-nspawn is installed, but no container starts: {errors[0]}",
            hint="systemd-nspawn --directory=/ --ephemeral --register=no true",
        )

    def _start_error(self, settings: _Settings, folder: Path) -> Completed | None:
        """Run the probe program in a container; return None if it answered, else its result."""
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
                agent, settings=settings.description, limits={}, reason=_no_addition
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
                timeout=timeout, environment=self._environment(), reason=_reason,
            )  # fmt: skip

    def _environment(self) -> dict[str, str]:
        """Return the environment of nspawn itself, which its container does not get."""
        off = {} if self.seccomp else {"SYSTEMD_SECCOMP": "0"}
        return {**prefixes.host_path(), **processes.tied(), **off}

    @contextlib.contextmanager
    def _prepared(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Make an instance's cgroup, give its files to its users, and yield the command prefix.

        `variables` are the environment variables of the program in the container.
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
            # A tmpfs over its own directory: otherwise it leaves files there, and where /run is no
            # tmpfs it prints "Attempted to remove disk file system".
            "cover", _oscontainer.covered("/run/systemd/nspawn", "/run/systemd", "/run"),
            "--",
            _program() or "systemd-nspawn",
            "--quiet",
            "--settings=no",  # no .nspawn file of this host changes the container
            f"--machine={instance.name}",
            "--hostname=isobench",
            f"--directory={instance.root}",
            f"--bind-ro={_quoted(instance.programs)}:{Stage.INSIDE}",
            f"--bind={_quoted(instance.scratch)}:{agents.INSIDE.scratch}",
            # Nothing is written into the root directory that only a whole system needs.
            "--link-journal=no", "--resolv-conf=off", "--timezone=off",
            # --as-pid2 is for programs that are not made to be process 1. Without --pipe the
            # streams would go through a pseudo terminal.
            "--as-pid2", "--pipe",
            *settings.arguments,
            *_network(self.network, instance),
            f"--private-users={'no' if users is None else '{}:{}'.format(*users)}",
            *(f"--setenv={key}={value}" for key, value in variables.items()),
            "--",
        ]
        # fmt: on

    def _users(self) -> tuple[int, int] | None:
        """Return the host's number of the container's first user, and how many it has; or None."""
        if self.private_users == "no":
            return None
        if self.private_users == "pick":
            # Chosen here, from nspawn's own range: the scratch directory, which is outside of the
            # root, must get the same owner before nspawn starts.
            ranges = (_LAST_BASE - _FIRST_BASE) // _USERS + 1
            return _FIRST_BASE + int.from_bytes(os.urandom(4)) % ranges * _USERS, _USERS
        first, _, count = self.private_users.partition(":")
        return int(first), int(count)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the cgroups of runs that have died. Their containers have died with them."""
        del cached  # nothing is kept between runs
        return [*processes.sweep(alive), *_oscontainer.sweep_cgroups([_CGROUP], alive)]


def _program() -> str | None:
    return shutil.which("systemd-nspawn")


def _network(network: str, instance: _oscontainer.Instance) -> tuple[str, ...]:
    if network == "host":
        return ()
    if network == "none":
        return ("--private-network",)
    # --network-veth would derive the link's name from the container's, and warn that it is too
    # long.
    return (f"--network-veth-extra={LINK}{instance.name[-8:]}:host0",)


def _quoted(path: Path) -> str:
    """Return a path with the escapes of a bind option, in which a colon ends the path."""
    return str(path).replace("\\", "\\\\").replace(":", "\\:")


def _reason(stderr: bytes) -> str:
    return f"systemd-nspawn: {processes.last_line(stderr)}"


def _no_addition() -> str:
    """Return nothing: the error already contains nspawn's last line."""
    return ""


def _cgroup_parents() -> list[Path]:
    """Return the folders in which to make an instance's cgroup: where nspawn looks for its own."""
    # Under v1 nspawn uses the hierarchy "name=systemd", and "unified" beside it in a hybrid setup.
    if _oscontainer.is_unified():
        return [_oscontainer.CGROUPS]
    named = (_oscontainer.CGROUPS / "systemd", _oscontainer.CGROUPS / "unified")
    return [folder for folder in named if os.access(folder / "cgroup.procs", os.W_OK)]
