"""Any machine or guest that SSH reaches, with commands that start and stop it where there are some.

    [targets.my-esxi]
    kind = "ssh"
    host = "debian-on-esxi"          # a name of ~/.ssh/config, or of the network
    preset = "esxi"
    machine = "debian"

The stage goes there by SFTP, into a folder of its own that is gone after the session; isobench's
agent executes the payloads from it, so that no shell sees an argument. What the machine is shows
from inside: a hypervisor that is not the preset's, or none where the class is virtualization, is
unproven. No clock of one machine is compared with another's.
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
from isobench.model.errors import NotApplicableError, SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.machines import _facts, _machine, _ssh, _ssh_host
from isobench.targets.shared import agent_request

_AGENT: Final = "_agent"
_NULL_TIMEOUT: Final = Nanoseconds(30 * SECOND)
_PROBE_TIMEOUT: Final = 8.0
"""Seconds that each step of a probe's login may take."""
_SAFE: Final = re.compile(r"/[A-Za-z0-9._/-]*")
"""Paths that no shell of the other side reads as anything but a path."""
_EXAMPLE: Final = '[targets.my-machine] / kind = "ssh" / host = "name-in-ssh-config"'
_LAST_PORT: Final = 65535
_WITNESSED: Final = ("host.ssh_server", "host.ssh_cipher", "host.preset", "host.folder")
"""What a session says of itself besides."""
_SPELLED: Final = {"amd64": "x86_64", "arm64": "aarch64"}
_PresetName = Literal[
    "", "libvirt", "esxi", "vsphere", "vmware-workstation", "virtualbox", "hyper-v", "wsl", "wsl-1"
]
_Class = Literal["", "virtualization", "emulation", "containerization", "sandbox", "translation"]


class _System(NamedTuple):
    """What a machine says it is."""

    system: str
    release: str
    machine: str

    @property
    def abi(self) -> Abi | None:
        """What payloads must be built for; None: isobench has none for it."""
        name = _SPELLED.get(self.machine, self.machine)
        return linux_abi(name)


def _identify(link: _ssh_host.Link) -> _System:
    """Ask which ISA it is; SessionError where isobench has no payloads for it."""
    code, said = link.execute("uname -srm")
    words = said.split()
    if code != 0 or len(words) != len(_System._fields):
        raise SessionError(
            f"{link.to.alias} answers `uname -srm` with {said[:80]!r}, exit code {code}",
            hint="isobench wants a Linux machine, and an account with a shell",
        )
    system = _System(*words)
    if system.system != "Linux" or system.abi is None:
        raise SessionError(
            f"{link.to.alias} is {system.system} on {system.machine}: isobench has no payloads for it",
            hint=f"use Linux on one of {', '.join(MACHINES)}",
        )
    return system


def _equals(key: str, value: Fact) -> Expectation:
    return Expectation(key=key, relation=Relation.EQUALS, value=value)


def _check_fact(key: str) -> None:
    """ValueError: there is no such fact."""
    known = {*_facts.known(), *_WITNESSED}
    if key not in known:
        near = difflib.get_close_matches(key, known, n=1) or sorted(known)
        raise ValueError(f'expect: there is no fact "{key}"; there is {", ".join(near)}')


def _of_class(technology: Technology, abi: Abi | None) -> tuple[Expectation, ...]:
    """Return what a class must show from inside."""
    own_kernel = Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST)
    x86 = abi is Abi.ELF_X86_64
    match technology:
        case Technology.VIRTUALIZATION if x86:
            return (
                own_kernel,
                _equals("cpu.hypervisor_bit", value=True),
                # What QEMU translates is emulation, whoever started it.
                Expectation(
                    key="cpu.hypervisor", relation=Relation.OTHER_THAN, value="TCGTCGTCGTCG"
                ),
            )
        case Technology.EMULATION if x86:
            return (own_kernel, _equals("cpu.hypervisor", "TCGTCGTCGTCG"))
        case Technology.VIRTUALIZATION | Technology.EMULATION | Technology.TRANSLATION:
            return (own_kernel,)
        case _:
            return (Expectation(key="ns.pid", relation=Relation.UNLIKE_HOST),)


@dataclass(frozen=True, kw_only=True)
class SshTarget:
    """A machine that is reached by SSH."""

    name: ClassVar[TargetName] = TargetName("ssh")
    executes: ClassVar[Sequence[str]] = ("tool", "start", "stop", "status")

    host: str = ""
    """A name of ~/.ssh/config, or of the network."""
    user: str = ""
    port: int = 0
    key: str = ""
    """Path of a private key; empty: as ~/.ssh/config says, the agent's, the usual files."""
    class_: _Class = ""
    """Empty: the preset's, which is virtualization for all but wsl-1; virtualization without."""
    preset: _PresetName = ""
    machine: str = ""
    """The machine's name in the preset's tool."""
    tool: str | list[str] = ""
    """Words in place of the preset's tool: "virsh -c qemu:///system", "ssh windows wsl.exe"."""
    start: str | list[str] = ""
    """A command in place of the preset's; a string is split at spaces, as a shell does."""
    stop: str | list[str] = ""
    status: str | list[str] = ""
    """Its exit code 0 says that the machine runs; without it, an SSH server that answers does."""
    start_timeout: float = 300.0
    """Seconds within which SSH must answer."""
    stop_timeout: float = 120.0
    directory: str = "/tmp"  # noqa: S108 - of the other machine; what goes there has a secret name
    """Where the stage is put there; programs must be executable in it."""
    isa: Literal["", "x86_64", "aarch64", "riscv64"] = ""
    """Of a machine that does not run when it is asked; else it is found."""
    expect: dict[str, str | int | bool] = field(default_factory=dict)
    """Facts that must be seen inside besides: {"machine.product" = "KVM Server"}."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if not _SAFE.fullmatch(self.directory) or "/.." in self.directory:
            raise ValueError(f'directory = "{self.directory}": a plain absolute path is wanted')
        if self.host.startswith("-") or any(c.isspace() for c in self.host):
            raise ValueError(f'host = "{self.host}": no name of a host')
        if bool(self.preset) != bool(self.machine):
            raise ValueError("preset and machine belong together")
        if self.start_timeout <= 0 or self.stop_timeout <= 0:
            raise ValueError("start_timeout and stop_timeout are seconds above zero")
        cycle = self._cycle  # its own errors are told at once
        if cycle is not None and not (cycle.start and cycle.stop):
            raise ValueError("start and stop belong together")
        if not 0 <= self.port <= _LAST_PORT:
            raise ValueError(f"port = {self.port}: a port is a number from 1 to {_LAST_PORT}")
        for key in self.expect:
            _check_fact(key)

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def technology(self) -> Technology:
        """The class the user gave it, else the preset's."""
        if self.class_:
            return Technology(self.class_)
        if self.preset:
            return _machine.PRESETS[self.preset].technology
        return Technology.VIRTUALIZATION

    @functools.cached_property
    def _cycle(self) -> _machine.LifeCycle | None:
        """The commands of its life cycle; None: it is there, or it is not."""
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
        )

    @functools.cached_property
    def _life(self) -> _machine.Machine | None:
        if self._cycle is None:
            return None
        return _machine.Machine(
            cycle=self._cycle,
            is_reachable=lambda: _ssh_host.is_reachable(self._address(), timeout=_PROBE_TIMEOUT),
            start_timeout=self.start_timeout,
            stop_timeout=self.stop_timeout,
        )

    @functools.cached_property
    def _learned(self) -> "_Learned":
        return _Learned()

    @property
    def abi(self) -> Abi | None:
        """What the probe found, or what the configuration says; None: this host's own."""
        if self._learned.abi is not None:
            return self._learned.abi
        return linux_abi(self.isa)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What must be seen from inside for its class and its preset to be true."""
        abi = self.abi or host_abi()
        preset = _machine.PRESETS[self.preset].expectations if self.preset else ()
        expected = [_equals(key, value) for key, value in self.expect.items()]
        found: dict[tuple[str, Relation], Expectation] = {}
        for expectations, option, value in (
            (preset, "preset", self.preset),
            (expected, "expect", ""),
            (_of_class(self.technology, abi), "class", str(self.technology)),
            ([] if abi is None else [_equals("machine", abi.machine)], "isa", self.isa),
        ):
            stated = f'{option} = "{value}"' if value else option
            hint = f"{self.host} contradicts {stated} in isobench.toml: mend that"
            for expectation in expectations:
                found[expectation.key, expectation.relation] = replace(expectation, hint=hint)
        apart = _equals("host.canary_readable", value=False)
        hint = f"{self.host} sees the files of this machine: name another one, host = …"
        return (*found.values(), replace(apart, hint=hint))

    @property
    def exclusive(self) -> bool:
        """There is one such machine: to be started, it must not be in use."""
        return self._cycle is not None

    @property
    def starts(self) -> Mapping[str, str]:
        """What its start-up figures span."""
        span = (
            "power-on by the life cycle's start command: from its execution to the nonce over SSH;"
            " firmware, kernel, services, network and SSH server are part of it, and so is copying"
            " two small programs there"
        )
        nothing = "not measured: isobench was given no command that starts this machine"
        return {
            "cold": span if self.exclusive else nothing,
            "warm": f"the same once more: {span}" if self.exclusive else nothing,
            "exec": "a command over the open SSH connection, in a channel of its own",
        }

    def _address(self) -> _ssh_host.Address:
        return _ssh_host.address(self.host, user=self.user, port=self.port, key=self.key)

    # ---- probing ---------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Log in and look, where the machine runs. Starts nothing."""
        if not self.host:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="no host is configured",
                hint=f"isobench.toml: {_EXAMPLE}",
            )
        tool = "" if self._cycle is None else _machine.missing_tool(self._cycle)
        if tool:
            return Unavailable(
                lack=Lack.TOOL, what=tool, hint="install it, or say where it is: tool = …"
            )
        try:
            version = self._if_stopped() or self._if_running()
        except SessionError as error:
            hint = error.hint or _ssh_host.login_command(self._address())
            return Unavailable(lack=Lack.SERVICE, what=str(error), hint=hint)
        return self._unprovable() or Available(version=version)

    def _if_stopped(self) -> str:
        """Say that the machine does not run, and would be started; nothing where it runs."""
        if self._life is None or self._life.is_running():
            return ""
        self._address()
        return f"{self.preset or 'a machine'} that does not run now and is started when it is used"

    def _if_running(self) -> str:
        with _ssh_host.link(self._address(), timeout=_PROBE_TIMEOUT) as link:
            system = _identify(link)
            with link.files() as files:
                self._check_folder(files)
            self._learned.abi = system.abi
            return f"{link.server}, Linux {system.release}, {system.machine}"

    def _unprovable(self) -> Unavailable | None:
        """Return why nothing inside could show the class, or None."""
        abi = self.abi or host_abi()
        told = any(p.key.startswith(("machine.", "kernel.release")) for p in self.expectations)
        silent = self.technology in (Technology.VIRTUALIZATION, Technology.EMULATION)
        if abi is Abi.ELF_X86_64 or not silent or told:
            return None
        return Unavailable(
            lack=Lack.PLATFORM,
            what=f"no instruction of {'this ISA' if abi is None else abi.machine} tells whether"
            f" {self.host} is a machine of {self.technology}",
            hint='say what its firmware shows: expect = { "machine.vendor" = "QEMU" }'
            " (cat /sys/class/dmi/id/sys_vendor, or /sys/firmware/devicetree/base/model)",
        )

    def _check_folder(self, files: _ssh_host.Files) -> None:
        if not files.is_folder(self.directory):
            raise SessionError(
                f"there is no folder {self.directory} on {self.host}",
                hint='name one: directory = "/var/tmp"',
            )

    # ---- instances -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["Session"]:
        """Start the machine unless it runs, log in, bring the stage there."""
        with self._session(stage, stage.on_phase, fresh=False) as session:
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start the machine, log in, bring the programs, run the command, shut the machine down."""
        if not self.exclusive:
            raise NotApplicableError(
                "isobench was given no command that starts this machine",
                hint='give it start = "…" and stop = "…", or a preset and machine = "…"',
            )
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
                    f"{self.host} is {system.machine}, and its payloads were built for"
                    f" {expected and expected.machine}",
                    hint=f'say so, since it did not run when it was asked: isa = "{system.machine}"',
                )
            folder = stack.enter_context(self._staged(link, stage, programs))
            on_phase("stage")
            connection = _ssh.Connection(
                link.transport, f"exec {folder}/isobench/{_AGENT} once", lambda: ""
            )
            _check_agent(connection, self.directory)
            yield Session(link=link, connection=connection, folder=folder, target=self)

    @contextlib.contextmanager
    def _staged(
        self, link: _ssh_host.Link, stage: Stage, programs: Iterable[str] | None
    ) -> Iterator[str]:
        """Bring the stage there; yield its folder, and remove it at the end."""
        base = self.directory.rstrip("/")
        folder = f"{base}/{stage.owner}-{secrets.token_hex(6)}"
        if not _SAFE.fullmatch(folder):
            raise SessionError(f"{folder} is no plain path")
        source = stage.root / "isobench"
        names = (
            sorted(path.name for path in source.iterdir()) if programs is None else sorted(programs)
        )
        try:
            with link.files() as files:
                self._check_folder(files)
                self._learned.hold(folder)
                for path in (folder, f"{folder}/isobench", f"{folder}/scratch"):
                    files.make_folder(path)
                for name in names:
                    files.put_program(source / name, f"{folder}/isobench/{name}")
                self._remove_leftovers(files, base, folder)
            yield folder
        finally:
            # Where the connection is lost, so is the way to the folder: the next session removes
            # it, in this run or in another one.
            self._learned.drop(folder)
            with contextlib.suppress(SessionError), link.files() as files:
                files.remove(folder)
                self._learned.forget(folder)

    def _remove_leftovers(self, files: _ssh_host.Files, base: str, beside: str) -> None:
        """Remove what sessions have left that could not do so themselves."""
        for name in files.folders_of_owner(base or "/", beside):
            path = f"{base}/{name}"
            whose = name.rpartition("-")[0]
            dead = whose.startswith("isobench-") and not ownership.alive(whose)
            if dead or self._learned.is_left(path):
                files.remove(path)
                self._learned.forget(path)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Stop machines that a killed run had started. Folders on machines go at the next session
        there: nothing is connected to unasked.
        """
        del cached  # nothing is kept between runs
        return _machine.sweep(alive)


def _split_command(command: str | Sequence[str], option: str) -> tuple[str, ...]:
    """Return the words of a command; ValueError that names the option: it cannot be taken apart."""
    try:
        return tuple(shlex.split(command) if isinstance(command, str) else command)
    except ValueError as error:
        raise ValueError(f"{option} = {command}: {str(error).lower()}") from None


def _is_program(stage: Stage, word: str) -> bool:
    return "/" not in word and bool(word) and (stage.root / "isobench" / word).is_file()


def _check_agent(connection: _ssh.Connection, directory: str) -> None:
    """Execute the agent, and nothing by it."""
    done = connection.run(agent_request.NULL, timeout=_NULL_TIMEOUT, on_output=lambda _: None)
    if done.exit_code != 0:
        said = done.stderr.decode(errors="replace").strip()[-200:]
        raise SessionError(
            f"no program can be executed in {directory} there: exit code {done.exit_code}; {said}",
            hint='name a folder that is not mounted noexec: directory = "/var/tmp"',
        )


@dataclass(kw_only=True)
class _Learned:
    """What a target learns while it is used."""

    abi: Abi | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _folders: dict[str, bool] = field(default_factory=dict)
    """Folders on the other side; whether a session still lives in them."""

    def hold(self, folder: str) -> None:
        """Note that a session has a folder."""
        with self._lock:
            self._folders[folder] = True

    def drop(self, folder: str) -> None:
        """Note that its session is over."""
        with self._lock:
            self._folders[folder] = False

    def forget(self, folder: str) -> None:
        """Note that it is removed."""
        with self._lock:
            self._folders.pop(folder, None)

    def is_left(self, folder: str) -> bool:
        """Say whether it was a session's that is over."""
        with self._lock:
            return self._folders.get(folder) is False


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A login, and isobench's agent at its other end."""

    link: _ssh_host.Link
    connection: _ssh.Connection
    folder: str
    target: SshTarget

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Have the agent execute a program."""
        words = [f"{self.folder}/isobench/{command.argv[0]}", *command.argv[1:]]
        message = agent_request.framed(words, command.environ(f"{self.folder}/scratch"))
        return self.connection.run(message, timeout=timeout, on_output=command.on_output)

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Open a channel, execute the agent, ask for nothing."""
        return self.connection.run(agent_request.NULL, timeout=timeout, on_output=lambda _: None)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the connection and the configuration say."""
        said: Mapping[str, tuple[Fact, str]] = {
            "host.ssh_server": (self.link.server, "SSH banner"),
            "host.ssh_cipher": (self.link.cipher, "SSH key exchange"),
            "host.preset": (self.target.preset or None, "preset"),
            "host.folder": (self.target.directory, "directory"),
        }
        for key, (value, source) in said.items():
            yield Evidence(key=key, value=value, source=source)
