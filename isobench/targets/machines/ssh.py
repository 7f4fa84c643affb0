"""Any machine or guest that SSH reaches, optionally with commands that start and stop it.

    [targets.my-esxi]
    kind = "ssh"
    host = "debian-on-esxi"          # a name of ~/.ssh/config, or of the network
    preset = "esxi"
    machine = "debian"

The stage is copied by SFTP, into a new folder that is removed after the session. isobench's agent
executes the payloads from it, so that no shell interprets an argument. Evidence from inside proves
what the machine is: with another hypervisor than the preset's, or with none for the class
virtualization, the target is unproven. Clocks of two machines are never compared.
"""

import contextlib
import difflib
import functools
import re
import secrets
import shlex
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Final, Literal, NamedTuple

from isobench.model import (
    MACHINES,
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Fact,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
    linux_abi,
)
from isobench.model.cleaning import LONGEST_FACT, cleaned
from isobench.model.errors import NotApplicableError, SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import deadlines, ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.machines import _facts, _machine, _ssh, _ssh_host
from isobench.targets.shared import agent_request, closing, hypervisors

_AGENT: Final = "_agent"
_NULL_TIMEOUT: Final = Nanoseconds(30 * SECOND)
_PROBE_TIMEOUT: Final = 8.0
"""Seconds that each step of a probe's login may take."""
_REMOVE_TIMEOUT: Final = 300.0
"""Seconds that removing the folder of a session may take."""
_BRIEF: Final = 3.0
"""The same after an interruption."""
_NEXT: Final = "the next session there removes it"
# The path becomes a part of the command that starts the agent: a shell on the other host reads it.
_SAFE: Final = re.compile(r"/[A-Za-z0-9._/-]*")
"""Absolute paths without a character that is special to a shell."""
# Of what OpenSSH itself permits in names: a ProxyCommand is given to a shell with the name in it.
_HOST: Final = re.compile(r"[A-Za-z0-9._:][A-Za-z0-9._:-]*(%[A-Za-z0-9._-]+)?", re.ASCII)
_USER: Final = re.compile(r"[A-Za-z0-9._+@][A-Za-z0-9._+@-]*", re.ASCII)
_EXAMPLE: Final = '[targets.my-machine] / kind = "ssh" / host = "name-in-ssh-config"'
_LAST_PORT: Final = 65535
_WITNESSED: Final = ("host.ssh_server", "host.ssh_cipher", "host.preset", "host.folder")
"""Further facts, which a session itself provides."""
_UNAME_ALIASES: Final = {"amd64": "x86_64", "arm64": "aarch64"}
"""Other names of the same ISAs."""
_PresetName = Literal[
    "", "libvirt", "esxi", "vsphere", "vmware-workstation", "virtualbox", "hyper-v", "wsl", "wsl-1"
]
# fmt: off
_Class = Literal[
    "", "virtualization", "emulation", "paravirtual", "containerization", "sandbox", "translation",
]
# fmt: on


class _System(NamedTuple):
    """The output of `uname -srm`."""

    system: str
    release: str
    machine: str

    @property
    def abi(self) -> Abi | None:
        """The ABI to build payloads for; None if isobench does not support it."""
        return linux_abi(_UNAME_ALIASES.get(self.machine, self.machine))


def _identify(link: _ssh_host.Link) -> _System:
    """Return system and ISA. Raises SessionError if isobench has no payloads for them."""
    code, output = link.execute("uname -srm")
    words = output.split()
    if code != 0 or len(words) != len(_System._fields):
        raise SessionError(
            f"`uname -srm` on {link.to.alias} prints {output[:80]!r}, exit code {code}",
            hint="use a Linux machine, and an account with a shell",
        )
    found = _System(*(cleaned(word, longest=LONGEST_FACT) for word in words))
    if found.system != "Linux" or found.abi is None:
        raise SessionError(
            f"isobench has no payloads for {found.system} on {found.machine} ({link.to.alias})",
            hint=f"use Linux on one of {', '.join(MACHINES)}",
        )
    return found


def _equals(key: str, value: Fact) -> Expectation:
    return Expectation(key=key, relation=Relation.EQUALS, value=value)


def _check_fact(key: str) -> None:
    """Raise ValueError for the key of a fact that does not exist."""
    known = {*_facts.known(), *_WITNESSED}
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1) or sorted(known)
        raise ValueError(f'expect: there is no fact "{key}"; use {", ".join(near)}')


def _of_class(technology: Technology, abi: Abi | None) -> tuple[Expectation, ...]:
    """Return the expectations of a class."""
    own_kernel = Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST)
    x86 = abi is Abi.ELF_X86_64
    match technology:
        case Technology.VIRTUALIZATION if x86:
            return (
                own_kernel,
                _equals("cpu.hypervisor_bit", value=True),
                *hypervisors.SIGNED,
                # User-mode Linux executes CPUID on the host, and so shows the host's hypervisor.
                Expectation(
                    key="cpu.vendor", relation=Relation.OTHER_THAN, value="User Mode Linux"
                ),
            )
        case Technology.EMULATION if x86:
            return (own_kernel, _equals("cpu.hypervisor", "TCGTCGTCGTCG"))
        # Other ISAs have no instruction like CPUID: see `SshTarget._unprovable`.
        case (
            Technology.VIRTUALIZATION
            | Technology.EMULATION
            | Technology.PARAVIRTUAL
            | Technology.TRANSLATION
        ):
            return (own_kernel,)
        case _:
            return (Expectation(key="ns.pid", relation=Relation.UNLIKE_HOST),)


@dataclass(frozen=True, kw_only=True)
class SshTarget:
    """A machine that SSH reaches."""

    name: ClassVar[TargetName] = TargetName("ssh")
    # A preset and a name of its tool are commands as well: they start and stop that machine. A host
    # is one that the user's keys open.
    executes: ClassVar[Sequence[str]] = (
        "host",
        *("tool", "start", "stop", "status", "preset", "machine"),
    )

    host: str = ""
    """A name of ~/.ssh/config, or of the network."""
    user: str = ""
    port: int = 0
    key: str = ""
    """Path of a private key. Empty: as OpenSSH would choose one (ssh_config(5))."""
    class_: _Class = ""
    """Empty: the preset's class, or virtualization without a preset."""
    preset: _PresetName = ""
    machine: str = ""
    """The machine's name in the preset's tool."""
    tool: str | list[str] = ""
    """A command in place of the preset's tool: "virsh -c qemu:///system", "ssh windows wsl.exe"."""
    start: str | list[str] = ""
    """A command in place of the preset's. A string is split at spaces, as by a shell."""
    stop: str | list[str] = ""
    status: str | list[str] = ""
    """A command that exits with 0 while the machine runs, and with another code while it is off.
    126 and 127 say that it was not executed (sh(1p)). Empty: the SSH server is tried.
    """
    start_timeout: float = 300.0
    """Seconds within which SSH must answer."""
    stop_timeout: float = 120.0
    directory: str = "/tmp"  # noqa: S108 - on the other machine; the stage has a secret name
    """Folder on the machine for the stage. It must not be mounted noexec."""
    isa: Literal["", "x86_64", "aarch64", "riscv64"] = ""
    """ISA of a machine that does not run at the time of the probe. Otherwise the probe finds it."""
    expect: dict[str, str | int | bool] = field(default_factory=dict)
    """Further facts that evidence must show: {"machine.product" = "KVM Server"}."""

    def __post_init__(self) -> None:
        """Raise ValueError for options that are invalid."""
        if not _SAFE.fullmatch(self.directory) or "/.." in self.directory:
            raise ValueError(f'directory = "{self.directory}": write a plain absolute path')
        # A name that begins with "-" would be an option in the ssh commands of hints.
        if self.host and _HOST.fullmatch(self.host) is None:
            raise ValueError(f"host = {self.host!r}: write the name of a host")
        if self.user and _USER.fullmatch(self.user) is None:
            raise ValueError(f"user = {self.user!r}: write the name of a user")
        if bool(self.preset) != bool(self.machine):
            raise ValueError("set both preset and machine, or neither")
        if self.start_timeout <= 0 or self.stop_timeout <= 0:
            raise ValueError("start_timeout and stop_timeout: write seconds above zero")
        cycle = self._cycle  # raises ValueError for an invalid command
        if cycle is not None and not (cycle.start and cycle.stop):
            raise ValueError("set both start and stop, or neither")
        if not 0 <= self.port <= _LAST_PORT:
            raise ValueError(f"port = {self.port}: write a number from 1 to {_LAST_PORT}")
        for key in self.expect:
            _check_fact(key)

    # ---- class, ABI and expectations -------------------------------------------------------------

    @property
    def technology(self) -> Technology:
        """The configured class, or the preset's."""
        if self.class_:
            return Technology(self.class_)
        if self.preset:
            return _machine.PRESETS[self.preset].technology
        return Technology.VIRTUALIZATION

    @functools.cached_property
    def _cycle(self) -> _machine.LifeCycle | None:
        """The commands of its life cycle; None if isobench cannot start or stop it."""
        start, stop = _split_command(self.start, "start"), _split_command(self.stop, "stop")
        status = _split_command(self.status, "status")
        if not self.preset:
            own = _machine.LifeCycle(start=start, stop=stop, status=status)
            return own if start or stop or status else None
        given = _machine.from_preset(self.preset, self.machine, _split_command(self.tool, "tool"))
        return _machine.LifeCycle(
            start=start or given.start,
            stop=stop or given.stop,
            status=status or given.status,
            running_pattern="" if status else given.running_pattern,
            off_pattern="" if status else given.off_pattern,
        )

    @functools.cached_property
    def _life(self) -> _machine.Machine | None:
        if self._cycle is None:
            return None
        return _machine.Machine(
            cycle=self._cycle,
            is_reachable=self._is_reachable,
            start_timeout=self.start_timeout,
            stop_timeout=self.stop_timeout,
        )

    def _is_reachable(self) -> bool:
        """Return whether its SSH server answers. Raises StateError if something else does."""
        try:
            return _ssh_host.is_reachable(self._address(), timeout=_PROBE_TIMEOUT)
        except _ssh_host.UnclearError as error:
            raise _machine.StateError(str(error), hint=error.hint) from None

    @functools.cached_property
    def _learned(self) -> "_Learned":
        return _Learned()

    @property
    def abi(self) -> Abi | None:
        """The ABI that the probe found or the configuration names; None: the one of this host."""
        if self._learned.abi is not None:
            return self._learned.abi
        return linux_abi(self.isa)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """Facts that prove the class and the preset. Each hint names the option that is wrong."""
        abi = self.abi or host_abi()
        preset = _machine.PRESETS[self.preset].expectations if self.preset else ()
        expected = [_equals(key, value) for key, value in self.expect.items()]
        found: dict[tuple[str, Relation, Fact], Expectation] = {}
        for expectations, option, value in (
            (preset, "preset", self.preset),
            (expected, "expect", ""),
            (_of_class(self.technology, abi), "class", str(self.technology)),
            ([] if abi is None else [_equals("machine", abi.machine)], "isa", self.isa),
        ):
            stated = f'{option} = "{value}"' if value else option
            hint = f"fix {stated} in isobench.toml: facts of {self.host} contradict it"
            # A later source replaces the expectation of an earlier one. A fact has one value, and
            # there are many that it must not have.
            for one in expectations:
                value_not = one.value if one.relation is Relation.OTHER_THAN else None
                found[one.key, one.relation, value_not] = replace(one, hint=hint)
        separate = _equals("host.canary_readable", value=False)
        hint = f"set another host = …: {self.host} can read the files of this machine"
        return (*found.values(), replace(separate, hint=hint))

    @property
    def exclusive(self) -> bool:
        """Whether isobench starts it: there is one such machine, which must not be in use then."""
        return self._cycle is not None

    @property
    def starts(self) -> Mapping[str, str]:
        """What each start-up figure covers."""
        span = (
            "power-on: from the execution of the start command to the nonce over SSH; it includes"
            " firmware, kernel, services, network and SSH server, and copying two small programs"
        )
        nothing = "not measured: the configuration has no command that starts this machine"
        return {
            "cold": span if self.exclusive else nothing,
            "warm": f"the same again: {span}" if self.exclusive else nothing,
            "exec": "a command over the open SSH connection, in a new channel",
        }

    def _address(self) -> _ssh_host.Address:
        return _ssh_host.address(self.host, user=self.user, port=self.port, key=self.key)

    # ---- probing ---------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Log in if the machine runs, and identify it. The probe starts no machine."""
        if not self.host:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="no host is configured",
                hint=f"write into isobench.toml: {_EXAMPLE}",
            )
        tool = "" if self._cycle is None else _machine.missing_tool(self._cycle)
        if tool:
            return Unavailable(
                lack=Lack.TOOL, what=tool, hint='install it, or set its path: tool = "/path/…"'
            )
        try:
            version = self._if_stopped() or self._if_running()
        except SessionError as error:
            hint = error.hint or _ssh_host.login_command(self._address())
            return Unavailable(lack=Lack.SERVICE, what=str(error), hint=hint)
        return self._unprovable() or Available(version=version)

    def _if_stopped(self) -> str:
        """Return a version for a machine that does not run; an empty string if it runs."""
        if self._life is None or self._life.is_running():
            return ""
        self._address()  # raises SessionError for an invalid configuration of SSH
        return f"{self.preset or 'a machine'} that does not run now; isobench starts it for a run"

    def _if_running(self) -> str:
        with _ssh_host.link(self._address(), timeout=_PROBE_TIMEOUT) as link:
            system = _identify(link)
            with link.files() as files:
                self._check_folder(files)
            self._learned.abi = system.abi
            return f"{link.server}, Linux {system.release}, {system.machine}"

    def _unprovable(self) -> Unavailable | None:
        """Return why no evidence could prove the class, or None.

        On x86-64 CPUID names the hypervisor. On other ISAs only the firmware's strings show it,
        and the user must state what they are.
        """
        abi = self.abi or host_abi()
        stated = any(p.key.startswith(("machine.", "kernel.release")) for p in self.expectations)
        needs_proof = self.technology in (Technology.VIRTUALIZATION, Technology.EMULATION)
        if abi is Abi.ELF_X86_64 or not needs_proof or stated:
            return None
        return Unavailable(
            lack=Lack.PLATFORM,
            what=f"no instruction of {'this ISA' if abi is None else abi.machine} can prove that"
            f" the class of {self.host} is {self.technology}",
            hint='set what its firmware shows: expect = { "machine.vendor" = "QEMU" }'
            " (cat /sys/class/dmi/id/sys_vendor, or /sys/firmware/devicetree/base/model)",
        )

    def _check_folder(self, files: _ssh_host.Files) -> None:
        if not files.is_folder(self.directory):
            raise SessionError(
                f"there is no folder {self.directory} on {self.host}",
                hint='set another folder: directory = "/var/tmp"',
            )

    # ---- instances -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["Session"]:
        """Start the machine unless it runs, log in, copy the stage."""
        with self._session(stage, stage.on_phase, fresh=False) as session:
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start the machine, log in, copy the programs, run the command, shut the machine down."""
        if not self.exclusive:
            raise NotApplicableError(
                "the configuration has no command that starts this machine",
                hint='set start = "…" and stop = "…", or preset = "…" and machine = "…"',
            )
        # Only the programs that the command needs: copying all of them would be timed.
        programs = {_AGENT, *(word for word in command.argv if _is_program(stage, word))}
        with self._session(stage, command.on_phase, fresh=True, programs=programs) as session:
            return session.run(command, timeout=timeout)

    @contextlib.contextmanager
    def _session(
        self,
        stage: Stage,
        on_phase: Callable[[str], None],
        *,
        fresh: bool,
        programs: Iterable[str] | None = None,
    ) -> Iterator["Session"]:
        expected = self.abi or host_abi()
        life = self._life
        with contextlib.ExitStack() as stack:
            if life is not None:
                stack.enter_context(life.keep_running(on_phase, begin=BEGIN if fresh else ""))
            retry_for = self.start_timeout if life is not None else 0.0
            link = stack.enter_context(_ssh_host.link(self._address(), retry_for=retry_for))
            on_phase("ssh")
            system = _identify(link)
            if system.abi is not expected:
                raise SessionError(
                    f"{self.host} is {system.machine}, but payloads were built for"
                    f" {expected and expected.machine}",
                    hint=f'set isa = "{system.machine}": the machine was off during the probe',
                )
            folder = stack.enter_context(self._staged(link, stage, programs))
            on_phase("stage")
            # exec: the account's shell is replaced by the agent, and adds no process to each
            # command. Nothing else watches the machine, so that there is no reason to report.
            connection = _ssh.Connection(
                link.transport, f"exec {folder}/isobench/{_AGENT} once", lambda: ""
            )
            _check_agent(connection, self.directory)
            yield Session(link=link, connection=connection, folder=folder, target=self)

    @contextlib.contextmanager
    def _staged(
        self, link: _ssh_host.Link, stage: Stage, programs: Iterable[str] | None
    ) -> Iterator[str]:
        """Copy the stage to the machine; yield its folder, and remove it at the end."""
        base = self.directory.rstrip("/")
        # A random name: in a folder like /tmp no other user can make it first.
        folder = f"{base}/{stage.owner}-{secrets.token_hex(6)}"
        if not _SAFE.fullmatch(folder):
            raise SessionError(f"{folder} is not a plain path")
        source = stage.root / "isobench"
        names = (
            sorted(path.name for path in source.iterdir()) if programs is None else sorted(programs)
        )

        def leave(first: BaseException | None) -> None:
            self._learned.drop(folder)
            if self._learned.is_left(folder):
                self._remove_own(link, folder, first)

        with closing.closed_at_end(leave):
            with link.files() as files:
                self._check_folder(files)
                self._learned.hold(folder)
                # Held before it is made: other sessions must not remove it as a leftover.
                for path in (folder, f"{folder}/isobench", f"{folder}/scratch"):
                    files.make_folder(path)
                for name in names:
                    files.put_program(source / name, f"{folder}/isobench/{name}")
                self._remove_leftovers(files, base, folder)
            yield folder

    def _remove_own(self, link: _ssh_host.Link, folder: str, first: BaseException | None) -> None:
        """Remove the folder of a session that ends with the error `first`, or in order.

        SessionError: it stays.
        """
        interrupted = first is not None and not isinstance(first, Exception)
        limit = _BRIEF if interrupted else _REMOVE_TIMEOUT
        try:
            if not link.transport.is_active():
                raise SessionError("the connection is lost", hint=_NEXT)
            with deadlines.within(limit, "the removal"), link.files() as files:
                files.remove(folder)
        except SessionError as error:
            ownership.doubt()
            why = f"the folder {folder} stays on {self.host}: {error}"
            raise SessionError(why, hint=error.hint or _NEXT) from None
        self._learned.forget(folder)

    def _remove_leftovers(self, files: _ssh_host.Files, base: str, own: str) -> None:
        """Remove folders of earlier sessions that lost their connection; `own` is this one's."""
        for name in files.folders_of_owner(base or "/", own):
            path = f"{base}/{name}"
            owner = name.rpartition("-")[0]
            dead = owner.startswith("isobench-") and not ownership.alive(owner)
            if dead or self._learned.is_left(path):
                try:
                    files.remove(path)
                except _ssh_host.ListingError as error:
                    why = f"the folder {path} stays on {self.host}: {error}"
                    raise SessionError(why, hint=error.hint) from None
                self._learned.forget(path)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Stop machines that a killed run had started.

        The next session removes folders on machines: a sweep connects to no machine. After an
        interruption of this process it reports those that this has left.
        """
        del cached  # nothing is kept between runs
        left = [] if alive(ownership.mine()) else self._learned.take_left()
        folders = [Leftover(what=f"folder {path} on {self.host}", failure=_NEXT) for path in left]
        return [*_machine.sweep(alive), *folders]


def _split_command(command: str | Sequence[str], option: str) -> tuple[str, ...]:
    """Return the words of a command. Raises ValueError with the option if it cannot be split."""
    try:
        return tuple(shlex.split(command) if isinstance(command, str) else command)
    except ValueError as error:
        raise ValueError(f"{option} = {command}: {str(error).lower()}") from None


def _is_program(stage: Stage, word: str) -> bool:
    return "/" not in word and bool(word) and (stage.root / "isobench" / word).is_file()


def _check_agent(connection: _ssh.Connection, directory: str) -> None:
    """Execute the agent without a program. Raises SessionError if that fails."""
    done = connection.run(agent_request.NULL, timeout=_NULL_TIMEOUT, on_output=lambda _: None)
    if done.exit_code != 0:
        errors = done.stderr.decode(errors="replace").strip()[-200:]
        raise SessionError(
            f"no program can be executed in {directory} on the machine: exit code"
            f" {done.exit_code}; {errors}",
            hint='set a folder that is not mounted noexec: directory = "/var/tmp"',
        )


@dataclass(kw_only=True)
class _Learned:
    """What a target learns while it is used. Sessions may run in several threads."""

    abi: Abi | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _folders: dict[str, bool] = field(default_factory=dict)
    """Folder on the machine -> whether its session is open."""

    def hold(self, folder: str) -> None:
        """Record that an open session uses a folder."""
        with self._lock:
            self._folders[folder] = True

    def drop(self, folder: str) -> None:
        """Record that the session of a folder has ended."""
        with self._lock:
            if folder in self._folders:
                self._folders[folder] = False

    def forget(self, folder: str) -> None:
        """Record that a folder is removed."""
        with self._lock:
            self._folders.pop(folder, None)

    def is_left(self, folder: str) -> bool:
        """Return whether a session that has ended left this folder."""
        with self._lock:
            return self._folders.get(folder) is False

    def take_left(self) -> list[str]:
        """Return the folders that sessions that have ended left, once."""
        with self._lock:
            left = [folder for folder, is_open in self._folders.items() if not is_open]
            for folder in left:
                del self._folders[folder]
            return left


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login with isobench's agent at the other end."""

    link: _ssh_host.Link
    connection: _ssh.Connection
    folder: str
    target: SshTarget
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute a program by the agent."""
        words = [f"{self.folder}/isobench/{command.argv[0]}", *command.argv[1:]]
        message = agent_request.framed(words, command.environ(f"{self.folder}/scratch"))
        return self.connection.run(
            message, timeout=timeout, on_output=command.on_output, on_stdin=command.on_stdin
        )

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Open a channel and execute the agent without a program: the cost of the channel."""
        return self.connection.run(agent_request.NULL, timeout=timeout, on_output=lambda _: None)

    def witness(self) -> Iterable[Evidence]:
        """Yield facts about the connection and the configuration."""
        facts: Mapping[str, tuple[Fact, str]] = {
            "host.ssh_server": (self.link.server, "SSH banner"),
            "host.ssh_cipher": (self.link.cipher, "SSH key exchange"),
            "host.preset": (self.target.preset or None, "preset"),
            "host.folder": (self.target.directory, "directory"),
        }
        for key, (value, source) in facts.items():
            yield Evidence(key=key, value=value, source=source)
