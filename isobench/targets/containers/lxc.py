"""LXC, by `lxc-execute`: lxc-execute(1) and lxc.container.conf(5).

Containers of root are privileged, which is LXC's default. Containers of an ordinary user have a
user namespace, in which root is that user.
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

from isobench.config import redaction
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
"""Prefixes of the names of an instance's cgroups."""
_DEFAULTS: Final = Path("/usr/share/lxc/config")
_SIZE: Final = re.compile(r"([1-9]\d{0,8})\s*(MiB|GiB)", re.ASCII)
_RANGE: Final = re.compile(r"(\d{1,10}):([1-9]\d{0,9})", re.ASCII)
_BRIDGE: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,14}", re.ASCII)
_MOST_LOGGED: Final = 1 << 20
"""Bytes of a log in which an error is looked for."""
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")
_ERROR: Final = re.compile(r" ERROR +\S+ - \S+:\d+ - (.*)")
"""A line of LXC's log: name, time, "ERROR", component, "file:function:line - ", message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settings:
    """One set of settings to start containers with."""

    defaults: bool
    """Whether the distribution's defaults (common.conf) are included."""
    unconfined: bool
    """Whether to start without AppArmor's profile, which may be missing, or forbid the start."""

    @property
    def description(self) -> str:
        defaults = "the distribution's defaults" if self.defaults else "no defaults"
        return defaults + (", no AppArmor profile" if self.unconfined else "")


_working: dict["LxcTarget", _Settings] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ids:
    """A container's users and groups as ranges: the id inside, the host's id, how many."""

    users: Sequence[tuple[int, int, int]]
    groups: Sequence[tuple[int, int, int]]


@dataclass(frozen=True, kw_only=True)
class LxcTarget:
    """A container of LXC on a root directory that holds only the payloads."""

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
    """"none": a network namespace with only a loopback interface; "host": the host's network; or
    the name of a bridge ("lxcbr0"), to which a virtual link is made.
    """
    hardening: Literal["distribution", "none"] = "distribution"
    """"distribution": the distribution's defaults (common.conf: a filter of system calls, dropped
    capabilities, a list of devices) where containers start with them; "none": LXC's own alone.
    """
    memory: str = ""
    """Maximum memory, as "512MiB" or "2GiB"; empty: no limit."""
    pids: int = 0
    """Maximum number of processes; 0: no limit."""
    idmap: str = ""
    """The host's users and groups that the container has, as "100000:65536". Empty: for root all of
    them; for an ordinary user this user as root, and the subordinate ids.
    """

    def __post_init__(self) -> None:
        """Check the options. ValueError: one is invalid."""
        if self.network not in ("none", "host") and not _BRIDGE.fullmatch(self.network):
            raise ValueError(
                f'network = {self.network!r}: write "none", "host" or the name of a bridge'
            )
        if self.memory and not _SIZE.fullmatch(self.memory):
            raise ValueError(f'memory = {self.memory!r}: write it as "512MiB" or "2GiB"')
        if self.pids < 0:
            raise ValueError(f"pids = {self.pids}: write a number of processes; 0: no limit")
        if self.idmap and not _RANGE.fullmatch(self.idmap):
            raise ValueError(f'idmap = {self.idmap!r}: write it as "100000:65536"')

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What evidence must show with these options and for this user."""
        mapped = bool(self.idmap) or os.geteuid() != 0
        return (
            *_oscontainer.EXPECTATIONS,
            *((_oscontainer.PRIVATE_NETWORK,) if self.network != "host" else ()),
            *((_oscontainer.PRIVATE_USERS,) if mapped else ()),
            *(_oscontainer.limited(name, value) for name, (_, value) in self._limits().items()),
            # LXC puts its own init into the container as process 1. The root directory holds only
            # isobench's programs, so that nothing else can have put it there.
            _oscontainer.first_process("lxc"),
            _oscontainer.maker("lxc-execute"),
        )

    @property
    def limitable(self) -> Sequence[Resource]:
        """What this user can limit: an ordinary user gets cgroups only on some hosts."""
        return (Resource.MEMORY, Resource.PROCESSES) if os.geteuid() == 0 else ()

    def limited(self, limits: Limits) -> "LxcTarget":
        """Return this target with these limits, started with the same settings."""
        limited = replace(self, memory=f"{limits.memory >> 20}MiB", pids=limits.processes)
        if self in _working:
            _working[limited] = _working[self]
        return limited

    def _limits(self) -> dict[str, tuple[str, int]]:
        """Return the cgroup's file and the value of each limit that is set, by its name."""
        found = {}
        size = _SIZE.fullmatch(self.memory)
        if size is not None:
            value = int(size.group(1)) << (30 if size.group(2) == "GiB" else 20)
            file = "memory.max" if _oscontainer.is_unified() else "memory.limit_in_bytes"
            # The kernel rounds down to pages: the evidence compares what it reads back.
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
        return Available(version=f"LXC {version}, {kind}, {settings.description}")

    def _lacking(self) -> Unavailable | None:
        """Return what an ordinary user lacks, or None."""
        # An unprivileged container needs more than one user, and only these set-uid programs write
        # such a map: user_namespaces(7), newuidmap(1).
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
        """Return the first settings with which a container starts. SessionError: none do."""
        if self in _working:
            return _working[self]
        errors = []
        with prefixes.probe_root() as root:
            for settings in self._candidates():
                error = self._start_error(settings, root.parent)
                if not error:
                    _working[self] = settings
                    return settings
                errors.append(error)
        raise SessionError(
            f"lxc-execute is installed, but no container starts: {errors[0]}",
            hint=_hint(errors[0]),
        )

    def _candidates(self) -> Iterator[_Settings]:
        wanted = self.hardening == "distribution" and (_DEFAULTS / "common.conf").is_file()
        for defaults in (True, False) if wanted else (False,):
            for unconfined in (False, True):
                yield _Settings(defaults=defaults, unconfined=unconfined)

    def _start_error(self, settings: _Settings, folder: Path) -> str:
        """Run the probe program in a container; return "" if it answered, else the error."""
        try:
            with (
                _oscontainer.trial(folder, ownership.mine()) as instance,
                self._prepared(instance, settings) as prefix,
            ):
                argv = [*prefix, _oscontainer.program("answer")]
                done = _oscontainer.answers(argv, environment=_environment(instance))
                return "" if done is None else _reason(instance, done.stderr)
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
                settings=settings.description,
                limits={name: file for name, (file, _) in self._limits().items()},
                reason=lambda: _logged(instance),
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
                reason=lambda stderr: f"lxc-execute: {_reason(instance, stderr)}",
            )  # fmt: skip

    @contextlib.contextmanager
    def _prepared(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        variables: Mapping[str, str] | None = None,
    ) -> Iterator[list[str]]:
        """Write an instance's configuration, and yield the command prefix.

        `variables` are the environment variables of the program in the container. SessionError:
        the container's users cannot reach its files, or a value has a newline.
        """
        ids = self._ids()
        if os.geteuid() == 0 and ids is not None:
            self._give_files(instance, ids)
        lines = self._configuration(instance, settings, ids, variables or {})
        configuration = instance.folder / "config"
        configuration.write_text("".join(f"{key} = {value}\n" for key, value in lines))
        containers = instance.folder / "containers"
        containers.mkdir()
        try:
            yield _command(instance, configuration, containers)
        finally:
            for folder in _found_cgroups(instance.name):
                _oscontainer.remove_cgroup(folder)

    def _give_files(self, instance: _oscontainer.Instance, ids: _Ids) -> None:
        instance.give(ids.users[0][1], ids.groups[0][1])
        closed = processes.closed_folder(instance.folder)
        if closed is not None:
            raise SessionError(
                f"the users of idmap = {self.idmap!r} cannot pass {closed}",
                hint='XDG_CACHE_HOME=/var/cache isobench run --targets lxc; or idmap = ""',
            )

    def _configuration(
        self,
        instance: _oscontainer.Instance,
        settings: _Settings,
        ids: _Ids | None,
        variables: Mapping[str, str],
    ) -> list[tuple[str, str]]:
        """Return the lines of a container's configuration. SessionError: a value has a newline."""
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
            # The cgroup of the monitor while the container is removed. The default is one cgroup
            # for all containers of the host.
            ("lxc.cgroup.dir.monitor.pivot", f"lxc.pivot.{instance.name}"),
            *_network(self.network),
        ]
        lines += _idmap(ids)
        # Keys of the other version are accepted, and limit nothing (LXC 5).
        version = "cgroup2" if _oscontainer.is_unified() else "cgroup"
        for file, value in self._limits().values():
            lines.append((f"lxc.{version}.{file}", str(value)))
        lines += [("lxc.environment", f"{key}={value}") for key, value in variables.items()]
        for key, text in lines:
            if "\n" in text:
                raise SessionError(f"{key} cannot be {text!r}: LXC allows no newline in a value")
        return lines

    def _ids(self) -> _Ids | None:
        """Return the container's users and groups; None: all of the host's (privileged)."""
        if self.idmap:
            first, _, count = self.idmap.partition(":")
            return _Ids(users=[(0, int(first), int(count))], groups=[(0, int(first), int(count))])
        if os.geteuid() == 0:
            return None
        # The container's root is this user: a home directory is often closed to all others, and
        # the container's files are in it.
        users, groups = (
            [(0, own, 1), *((1, *found) for found in (_subordinate(file),) if found)]
            for file, own in zip(_SUBORDINATE, (os.geteuid(), os.getegid()), strict=True)
        )
        return _Ids(users=users, groups=groups)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the cgroups of runs that have died. Their containers have died with them."""
        del cached  # nothing is kept between runs
        return [*processes.sweep(alive), *_oscontainer.sweep_cgroups(_CGROUPS, alive)]


def _program() -> str | None:
    return shutil.which("lxc-execute")


def _command(instance: _oscontainer.Instance, configuration: Path, containers: Path) -> list[str]:
    # Root's locks are in /run/lxc; a tmpfs over it removes them with the container. An ordinary
    # user's are in XDG_RUNTIME_DIR, which is the instance's folder.
    cover = ("cover", _oscontainer.covered("/run/lxc", "/run")) if os.geteuid() == 0 else ()
    # fmt: off
    return [
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


def _idmap(ids: _Ids | None) -> list[tuple[str, str]]:
    if ids is None:
        return []
    return [
        ("lxc.idmap", f"{kind} {inside} {outside} {count}")
        for kind, ranges in (("u", ids.users), ("g", ids.groups))
        for inside, outside, count in ranges
    ]


def _environment(instance: _oscontainer.Instance) -> dict[str, str]:
    """Return the environment of lxc-execute itself, which its container does not get."""
    mine = {key: os.environ[key] for key in ("HOME",) if key in os.environ}
    # Newer versions of LXC get a cgroup for an ordinary user's container from systemd, over D-Bus.
    bus = Path(f"/run/user/{os.geteuid()}/bus")
    if bus.exists():
        mine["DBUS_SESSION_BUS_ADDRESS"] = f"unix:path={bus}"
    runtime = {"XDG_RUNTIME_DIR": str(instance.folder)}
    return {**prefixes.host_path(), **processes.tied(), **mine, **runtime}


def _network(network: str) -> list[tuple[str, str]]:
    match network:
        case "none":  # "none" of LXC is the host's network
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
    """Return a path with the octal escapes of fstab(5)."""
    return "".join(f"\\{ord(c):03o}" if c in " \t\\" else c for c in str(path))


def _logged(instance: _oscontainer.Instance) -> str:
    """Return the first error in LXC's log, the cause of all later ones; empty: there is none."""
    with contextlib.suppress(OSError):
        with instance.log.open("rb") as file:
            beginning = file.read(_MOST_LOGGED).decode(errors="replace")
        for line in beginning.splitlines():
            found = _ERROR.search(line)
            if found is not None:
                return redaction.beginning(found.group(1), 500)
    return ""


def _reason(instance: _oscontainer.Instance, stderr: bytes) -> str:
    return _logged(instance) or processes.last_line(stderr)


def _hint(error: str) -> str:
    if "newuidmap" in error or "newgidmap" in error or "mapping" in error:
        return (
            f'grep "^{_user()}:" /etc/subuid /etc/subgid; sudo usermod'
            f" --add-subuids 100000-165535 --add-subgids 100000-165535 {_user()}"
        )
    if "bridge" in error or "veth" in error or "network" in error:
        return 'ip link show type bridge; or [targets.lxc] network = "none"'
    if "cgroup" in error and _oscontainer.is_unified():
        return "systemd-run --user --scope --property=Delegate=yes isobench run --targets lxc"
    if "cgroup" in error:
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
    """Return this user's first range in a file of subuid(5): first id and count; or None."""
    mine = {_user(), str(os.geteuid())}
    with contextlib.suppress(OSError):
        for line in file.read_text().splitlines():
            owner, _, found = line.partition(":")
            if owner in mine and _RANGE.fullmatch(found):
                first, _, count = found.partition(":")
                return int(first), int(count)
    return None


# ---- cgroups -------------------------------------------------------------------------------------


def _found_cgroups(name: str) -> Iterator[Path]:
    """Yield what is left of an instance's cgroups."""
    # LXC makes them below the cgroup of this process or of process 1, or beside it.
    parents = dict.fromkeys(
        above
        for folder in (*_oscontainer.cgroups_of("self"), *_oscontainer.cgroups_of(1))
        for above in (folder, folder.parent)
    )
    for parent in parents:
        for prefix in _CGROUPS:
            if (parent / f"{prefix}{name}").is_dir():
                yield parent / f"{prefix}{name}"
