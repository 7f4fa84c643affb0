"""LXC: the containers of a whole system that Docker once grew from, by `lxc-execute`.

Run by root they are privileged, as LXC's are by default; run by an ordinary user they have a user
namespace, in which their root is that user.
"""

import contextlib
import os
import pwd
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Leftover,
    Limits,
    Resource,
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

_CGROUPS: Final = ("lxc.payload.", "lxc.monitor.", "lxc.pivot.")
"""How the cgroups of an instance begin, before its name."""
_DEFAULTS: Final = Path("/usr/share/lxc/config")
_SIZE: Final = re.compile(r"([1-9]\d{0,8})\s*(MiB|GiB)", re.ASCII)
_RANGE: Final = re.compile(r"(\d{1,10}):([1-9]\d{0,9})", re.ASCII)
_BRIDGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ERROR: Final = re.compile(r" ERROR +\S+ - \S+:\d+ - (.*)")
"""A line of LXC's log: name, time, "ERROR", part, "file:function:line - ", and then the words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """One way to ask for a container."""

    defaults: bool
    """Whether the distribution's defaults are included."""
    unconfined: bool
    """Whether AppArmor's profile is left out: its file may be missing, or forbid the start."""

    @property
    def words(self) -> str:
        defaults = "the distribution's defaults" if self.defaults else "no defaults"
        return defaults + (", no AppArmor profile" if self.unconfined else "")


_working: dict["LxcTarget", _Settings] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """Which of the host's users and groups a container has: its id, the host's id, how many."""

    users: Sequence[tuple[int, int, int]]
    groups: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class LxcTarget:
    """A container of LXC's: the payloads on a root directory that holds nothing else."""

    name: ClassVar[TargetName] = TargetName("lxc")
    technology: ClassVar[Technology] = Technology.CONTAINERIZATION
    abi: ClassVar[Abi | None] = None
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "lxc-execute is executed on a root directory made just before, with programs that"
        " no container has run",
        "warm": "lxc-execute is executed again with the same programs: it keeps no stopped"
        " container",
        "exec": "isobench's agent in an open container forks and executes the payload",
    }

    network: str = "none"
    """"none": a network namespace with a loopback interface alone; "host": the host's network; or
    the name of a bridge ("lxcbr0") to which a virtual link is made.
    """
    hardening: Literal["distribution", "none"] = "distribution"
    """"distribution": what its own containers have (common.conf: a filter of system calls, some
    capabilities dropped, a list of devices) where that starts; "none": LXC alone.
    """
    memory: str = ""
    """Most memory, as "512MiB" or "2GiB"; empty: no limit."""
    pids: int = 0
    """Most processes; 0: no limit."""
    idmap: str = ""
    """Users and groups of the host's that the container has, as "100000:65536". Empty: all of them
    for root; for an ordinary user himself as root, and his subordinate ones."""

    def __post_init__(self) -> None:
        """Refuse what is no size, no number, no name and no range."""
        if self.network not in ("none", "host") and not _BRIDGE.fullmatch(self.network):
            raise ValueError(
                f'network = {self.network!r} is neither "none", "host" nor the name of a bridge'
            )
        if self.memory and not _SIZE.fullmatch(self.memory):
            raise ValueError(f'memory = {self.memory!r}: write it as "512MiB" or "2GiB"')
        if self.pids < 0:
            raise ValueError(f"pids = {self.pids} is no number of processes")
        if self.idmap and not _RANGE.fullmatch(self.idmap):
            raise ValueError(f'idmap = {self.idmap!r}: write it as "100000:65536"')

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Return what must be seen, as the options are and for this user."""
        mapped = bool(self.idmap) or os.geteuid() != 0
        return (
            *_oscontainer.EXPECTATIONS,
            *((_oscontainer.PRIVATE_NETWORK,) if self.network != "host" else ()),
            *((_oscontainer.PRIVATE_USERS,) if mapped else ()),
            *(_oscontainer.limited(name, value) for name, (_, value) in self._limits().items()),
            # On a root directory without any program but isobench's, only LXC can have put its own
            # there.
            _oscontainer.first_process("lxc"),
            _oscontainer.maker("lxc-execute"),
        )

    @property
    def limitable(self) -> Sequence[Resource]:
        """What root limits; an ordinary user's LXC is given no cgroup on every host."""
        return (Resource.MEMORY, Resource.PROCESSES) if os.geteuid() == 0 else ()

    def limited(self, limits: Limits) -> "LxcTarget":
        """Return the same container with these limits, started with the same settings."""
        limited = replace(self, memory=f"{limits.memory >> 20}MiB", pids=limits.processes)
        if self in _working:
            _working[limited] = _working[self]
        return limited

    def _limits(self) -> dict[str, tuple[str, int]]:
        """Return the file and the value of each limit that is asked for, by its name."""
        found = {}
        size = _SIZE.fullmatch(self.memory)
        if size is not None:
            value = int(size.group(1)) << (30 if size.group(2) == "GiB" else 20)
            file = "memory.max" if _oscontainer.unified() else "memory.limit_in_bytes"
            found["memory"] = file, value - value % _PAGE
        if self.pids:
            found["pids"] = "pids.max", self.pids
        return found

    # ---- probing ---------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Find settings with which a container starts and answers."""
        if _program() is None:
            return Unavailable(
                lack=Lack.TOOL, what="lxc-execute", hint="isobench doctor --install lxc"
            )
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="no payloads for this host", hint="use Linux on x86_64"
            )
        lacking = self._lacking()
        if lacking is not None:
            return lacking
        try:
            settings = self._settings()
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
        version = processes.output_of([_program() or "", "--version"]) or "?"
        kind = "privileged" if os.geteuid() == 0 and not self.idmap else "unprivileged"
        return Available(version=f"LXC {version}, {kind}, {settings.words}")

    def _lacking(self) -> Unavailable | None:
        """Say what an ordinary user lacks, or return None."""
        if os.geteuid() == 0:
            return None
        if shutil.which("newuidmap") is None or shutil.which("newgidmap") is None:
            return Unavailable(
                lack=Lack.TOOL, what="newuidmap", hint="isobench doctor --install lxc"
            )
        for file in _SUBORDINATE:
            if _subordinate(file) is None:
                return Unavailable(
                    lack=Lack.PERMISSION,
                    what=f"this user has no subordinate ids in {file}",
                    hint="sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535"
                    f" {_user()}",
                )
        return None

    def _settings(self) -> _Settings:
        """Return settings with which a container starts; SessionError when none do."""
        if self in _working:
            return _working[self]
        complaints = []
        with prefixes.probe_root() as root:
            for settings in self._ladder():
                complaint = self._trial(settings, root.parent)
                if not complaint:
                    _working[self] = settings
                    return settings
                complaints.append(complaint)
        raise SessionError(
            f"lxc-execute is there, but no container starts: {complaints[0]}",
            hint=_hint(complaints[0]),
        )

    def _ladder(self) -> Iterator[_Settings]:
        wanted = self.hardening == "distribution" and (_DEFAULTS / "common.conf").is_file()
        for defaults in (True, False) if wanted else (False,):
            for unconfined in (False, True):
                yield _Settings(defaults=defaults, unconfined=unconfined)

    def _trial(self, settings: _Settings, folder: Path) -> str:
        """Return why a container did not answer, or nothing."""
        try:
            with (
                _oscontainer.trial(folder, ownership.mine()) as instance,
                self._prepared(instance, settings) as prefix,
            ):
                argv = [*prefix, _oscontainer.program("answer")]
                done = _oscontainer.answers(argv, environment=_environment(instance))
                return "" if done is None else _why(instance, done.stderr)
        except (OSError, SessionError) as error:
            return str(error)

    # ---- running ---------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_oscontainer.ContainerSession]:
        """Start a container whose command is the agent."""
        settings = self._settings()
        with (
            _oscontainer.instance(stage, self.name) as instance,
            self._prepared(instance, settings) as prefix,
            prefixes.opened(prefix, environment=_environment(instance)) as agent,
        ):
            yield _oscontainer.ContainerSession(
                agent,
                settings=settings.words,
                limits={name: file for name, (file, _) in self._limits().items()},
                why=lambda: _logged(instance),
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
                timeout=timeout, environment=_environment(instance),
                why=lambda stderr: f"lxc-execute: {_why(instance, stderr)}",
            )  # fmt: skip

    @contextlib.contextmanager
    def _prepared(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Write an instance's configuration; yield the command before the command."""
        ids = self._ids()
        if os.geteuid() == 0 and ids is not None:
            instance.give(ids.users[0][1], ids.groups[0][1])
            closed = _oscontainer.closed(instance.folder)
            if closed is not None:
                raise SessionError(
                    f"the users of idmap = {self.idmap!r} cannot pass {closed}",
                    hint='XDG_CACHE_HOME=/var/cache isobench run --targets lxc; or idmap = ""',
                )
        lines = self._configuration(instance, settings, ids, variables or {})
        configuration = instance.folder / "config"
        configuration.write_text("".join(f"{key} = {value}\n" for key, value in lines))
        containers = instance.folder / "containers"
        containers.mkdir()
        # Locks: an ordinary user's lie where XDG_RUNTIME_DIR says.
        cover = ("cover", _oscontainer.covered("/run/lxc", "/run")) if os.geteuid() == 0 else ()
        # fmt: off
        command = [
            *instance.launcher,
            *cover,
            "--",
            _program() or "lxc-execute",
            "--quiet",
            f"--lxcpath={containers}",
            f"--name={instance.name}",
            f"--rcfile={configuration}",
            f"--logfile={instance.log}", "--logpriority=ERROR",
            "--",
        ]
        # fmt: on
        try:
            yield command
        finally:
            for folder in _found_cgroups(instance.name):
                _oscontainer.remove_cgroup(folder)

    def _configuration(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        ids: _Ids | None,
        variables: Mapping[str, str],
    ) -> list[tuple[str, str]]:
        """Return the lines of a container's configuration; SessionError for what would be two."""
        lines: list[tuple[str, str]] = []
        if settings.defaults:
            lines.append(("lxc.include", str(_DEFAULTS / "common.conf")))
            if ids is not None:
                lines.append(("lxc.include", str(_DEFAULTS / "userns.conf")))
        else:
            lines.append(("lxc.mount.auto", "proc:mixed sys:ro"))
        if settings.unconfined:
            lines.append(("lxc.apparmor.profile", "unconfined"))
        lines += [
            ("lxc.rootfs.path", f"dir:{instance.root}"),
            ("lxc.uts.name", "isobench"),
            ("lxc.mount.entry", f"{_escaped(instance.programs)} isobench none bind,ro 0 0"),
            ("lxc.mount.entry", f"{_escaped(instance.scratch)} scratch none bind 0 0"),
            # Where the monitor waits at the end; by default for all containers of the host's.
            ("lxc.cgroup.dir.monitor.pivot", f"lxc.pivot.{instance.name}"),
            *_network(self.network),
        ]
        if ids is not None:
            for kind, ranges in (("u", ids.users), ("g", ids.groups)):
                for inside, outside, count in ranges:
                    lines.append(("lxc.idmap", f"{kind} {inside} {outside} {count}"))
        version = "cgroup2" if _oscontainer.unified() else "cgroup"
        for file, value in self._limits().values():
            lines.append((f"lxc.{version}.{file}", str(value)))
        lines += [("lxc.environment", f"{key}={value}") for key, value in variables.items()]
        for key, text in lines:
            if "\n" in text:
                raise SessionError(f"{key} cannot be {text!r}: a line of LXC's holds no newline")
        return lines

    def _ids(self) -> _Ids | None:
        """Return the ids that the container has; None: all, as a privileged one does."""
        if self.idmap:
            first, _, count = self.idmap.partition(":")
            return _Ids(users=[(0, int(first), int(count))], groups=[(0, int(first), int(count))])
        if os.geteuid() == 0:
            return None
        # Its root is this user, so that a home closed to all others can be passed.
        users, groups = (
            [(0, own, 1), *((1, *found) for found in (_subordinate(file),) if found)]
            for file, own in zip(_SUBORDINATE, (os.geteuid(), os.getegid()), strict=True)
        )
        return _Ids(users=users, groups=groups)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what runs that have died left: their containers ended with them, the cgroups
        stay.
        """
        del cached  # nothing is kept between runs
        return [*processes.sweep(alive), *_oscontainer.sweep_cgroups(_CGROUPS, alive)]


def _program() -> str | None:
    return shutil.which("lxc-execute")


def _environment(instance: _oscontainer.Instance) -> dict[str, str]:
    """Return the variables of lxc-execute itself; the container gets none of them."""
    mine = {key: os.environ[key] for key in ("HOME",) if key in os.environ}
    # To put an ordinary user's container into a cgroup, newer ones ask systemd.
    bus = Path(f"/run/user/{os.geteuid()}/bus")
    if bus.exists():
        mine["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    runtime = {"XDG_RUNTIME_DIR": str(instance.folder)}
    return {**prefixes.host_path(), **processes.tied(), **mine, **runtime}


def _network(network: str) -> list[tuple[str, str]]:
    match network:
        case "none":
            return [("lxc.net.0.type", "empty")]
        case "host":
            return [("lxc.net.0.type", "none")]
        case bridge:
            return [
                ("lxc.net.0.type", "veth"),
                ("lxc.net.0.link", bridge),
                ("lxc.net.0.flags", "up"),
            ]


def _escaped(path: Path) -> str:
    """Return a path as a line of fstab has it."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\\" else c for c in str(path))


def _logged(instance: _oscontainer.Instance) -> str:
    """Return the first error that LXC has logged, or nothing: the later ones follow from it."""
    with contextlib.suppress(OSError):
        for line in instance.log.read_text(errors="replace").splitlines():
            found = _ERROR.search(line)
            if found is not None:
                return found.group(1)[:500]
    return ""


def _why(instance: _oscontainer.Instance, stderr: bytes) -> str:
    return _logged(instance) or processes.last_line(stderr)


def _hint(said: str) -> str:
    if "newuidmap" in said or "newgidmap" in said or "mapping" in said:
        return (
            f'grep "^{_user()}:" /etc/subuid /etc/subgid; sudo usermod'
            f" --add-subuids 100000-165535 --add-subgids 100000-165535 {_user()}"
        )
    if "bridge" in said or "veth" in said or "network" in said:
        return 'ip link show type bridge; or [targets.lxc] network = "none"'
    if "cgroup" in said and _oscontainer.unified():
        return "systemd-run --user --scope --property=Delegate=yes isobench run --targets lxc"
    if "cgroup" in said:
        return 'on cgroup v1 root alone sets limits: [targets.lxc] memory = "", pids = 0, or sudo'
    return "lxc-checkconfig"


# ---- subordinate ids -----------------------------------------------------------------------------

_SUBORDINATE: Final = (Path("/etc/subuid"), Path("/etc/subgid"))


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _subordinate(file: Path) -> tuple[int, int] | None:
    """Return the first range of this user's in a file, first and count; None where he has none."""
    mine = {_user(), str(os.geteuid())}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            whose, _, found = line.partition(":")
            if whose in mine and _RANGE.fullmatch(found):
                first, _, count = found.partition(":")
                return int(first), int(count)
    return None


# ---- cgroups -------------------------------------------------------------------------------------


def _found_cgroups(name: str) -> Iterator[Path]:
    """Yield what is left of an instance's cgroups: beneath this process's, or the first one's."""
    parents = dict.fromkeys(
        above
        for folder in (*_oscontainer.cgroups_of("self"), *_oscontainer.cgroups_of(1))
        for above in (folder, folder.parent)
    )
    for parent in parents:
        for prefix in _CGROUPS:
            if (parent / f"{prefix}{name}").is_dir():
                yield parent / f"{prefix}{name}"
