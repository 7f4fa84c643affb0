"""Wine: programs for Windows, whose system calls are translated to those of this host's kernel.

The processor executes the program's own instructions. Wine's libraries implement the calls of
Windows with those of Linux. A server holds what processes of Windows share: handles, windows, the
registry. So some calls stay in the process, and others go to the server and back. Wine isolates
nothing: a program sees the host's files as drive Z:.
"""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.evidence import cpu_share
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
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import elf, processes
from isobench.targets.translation import _pe, _wine

_PROGRAMS: Final = "i"
"""Letter of the drive with the programs."""
_SCRATCH: Final = "s"
"""Letter of the drive that is the scratch directory."""
_INSTALL: Final = "isobench doctor --install wine"


@dataclass(frozen=True, kw_only=True)
class WineTarget:
    """Programs for Windows on x86-64. Each session has its own prefix and server."""

    name: ClassVar[TargetName] = TargetName("wine")
    technology: ClassVar[Technology] = Technology.TRANSLATION
    abi: ClassVar[Abi | None] = Abi.PE_X86_64
    executes: ClassVar[Sequence[str]] = ("loader",)
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        # The payload finds the PE headers of its own image, and a function that only Wine's ntdll
        # has: it was neither a program for Linux nor did it run on Windows.
        Expectation(key="payload.format", relation=Relation.EQUALS, value="PE"),
        Expectation(key="wine.version", relation=Relation.UNLIKE_HOST),
        # CPUID is the host's: no emulator of a processor is involved.
        Expectation(key="machine", relation=Relation.SAME_AS_HOST),
        Expectation(key="cpu.hypervisor", relation=Relation.SAME_AS_HOST),
    )

    server: Literal["kept", "fresh"] = "kept"
    """kept: Wine's server keeps running between the programs of a session. fresh: each program
    starts a new server, as for users who start programs for Windows now and then.
    """
    loader: str = ""
    """Path of Wine's loader: "/opt/wine-stable/bin/wine64". Empty: `_wine.find` searches one."""

    @property
    def starts(self) -> Mapping[str, str]:
        """What each start-up figure covers."""
        again = (
            "its server and services run already"
            if self.server == "kept"
            else "its server and services are started again each time"
        )
        return {
            "cold": "Wine is started in a new prefix: its server, its services, then the program",
            "warm": f"Wine is started in a prefix that has been used; {again}",
            "exec": f"a program is started in the session's prefix; {again}",
        }

    def probe(self) -> Availability:
        """Run a program of a few bytes for Windows."""
        if host_abi() is not Abi.ELF_X86_64:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="payloads for Windows are built for x86-64 only, which this host is not",
                hint="run isobench on Linux on x86-64",
            )
        try:
            wine = _wine.find(self.loader)
            problem = _wine.trial_error(wine, _pe.probe_program(), elf.ANSWER)
        except _wine.MissingError as error:
            hint = "fix loader in [targets.wine]" if self.loader else _INSTALL
            return Unavailable(lack=Lack.TOOL, what=str(error), hint=hint)
        except (SessionError, OSError) as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=f"{_INSTALL}; try again")
        if problem:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{wine.loader} does not run a program for Windows: {problem}",
                hint="see its output: WINEPREFIX=/tmp/try"
                f" {commands.path(wine.loader)} wineboot --init",
            )
        return Available(version=f"{wine.version}, {self.server} server")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Make a prefix and start its server."""
        with self._instance(stage) as session:
            # A cold start of server and services takes 0.7 s: it is no part of the programs' times.
            session.start_server()
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a program without a running server; its server and services end after it."""
        with self._instance(stage) as session:
            command.on_phase(BEGIN)
            return session.run_with_new_server(command, timeout=timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator["_Startable"]:
        """Yield a prefix in which the program can be started again; its server keeps running."""
        with self.open(stage) as session:
            yield _Startable(session=session, command=command)

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the prefix that instances are copies of; `say` gets a line before that."""
        _wine.base(self._installed(), say)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End servers, services and programs of killed runs; remove their prefixes."""
        return [*processes.sweep(alive), *_wine.sweep(alive, cached=cached)]

    def _installed(self) -> _wine.Wine:
        try:
            return _wine.find(self.loader)
        except _wine.MissingError as error:
            raise SessionError(f"Wine is incomplete: missing {error}", hint=_INSTALL) from None

    @contextlib.contextmanager
    def _instance(self, stage: Stage) -> Iterator["_Session"]:
        wine = self._installed()
        scratch = processes.private_scratch(stage.scratch, "wine")
        # Drives make paths short, as in a container: the look-up of a long path would otherwise be
        # measured as a cost of Wine.
        drives = {_PROGRAMS: stage.root / "isobench", _SCRATCH: scratch}
        with _wine.instance(wine, drives, stage.owner) as prefix:
            yield _Session(wine=wine, prefix=prefix, kept=self.server == "kept")


class _Session:
    """A prefix, and with `kept` a server that keeps running."""

    interactive: ClassVar[bool] = True

    def __init__(self, *, wine: _wine.Wine, prefix: Path, kept: bool) -> None:
        self._wine, self._prefix, self._kept = wine, prefix, kept
        self._end_reason = ""

    def start_server(self) -> None:
        """Start the server and the services before any program has streams that they inherit."""
        if self._kept:
            _wine.start_server(self._wine, self._prefix)

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        if self._end_reason:
            raise SessionError(self._end_reason)
        if self._kept:
            return self._run(command, timeout)
        return self.run_with_new_server(command, timeout=timeout)

    def run_with_new_server(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program that starts a new server, and end that server."""
        return self._run(command, timeout, end_survivors=lambda: _wine.end(self._prefix))

    def _run(
        self,
        command: Command,
        timeout: Nanoseconds,
        end_survivors: Callable[[], None] | None = None,
    ) -> Completed:
        variables = command.environ(f"{_SCRATCH.upper()}:\\")
        try:
            done = processes.run(
                [self._wine.loader, f"{_PROGRAMS.upper()}:\\{command.argv[0]}", *command.argv[1:]],
                timeout=timeout,
                env={**variables, **self._wine.environment(self._prefix)},
                command=command,
                end_survivors=end_survivors,
            )
        except OSError as error:
            raise SessionError(f"{self._wine.loader} cannot be executed: {error}") from None
        if done.exit_code is None:
            # For the host, children of a program for Windows are no children of its process: only
            # killing everything in the prefix ends them.
            _wine.end(self._prefix)
            if self._kept:
                self._end_reason = "a time limit has ended all processes of this prefix"
        # Messages of the loader begin with its name; no payload prints such a line.
        elif not done.stdout and done.stderr.startswith(b"wine"):
            raise SessionError(f"Wine: {processes.last_line(done.stderr)}")
        return done

    def witness(self) -> Iterable[Evidence]:
        """Yield facts about the installation of Wine."""
        yield Evidence(key="host.wine", value=self._wine.version, source="--version")
        yield Evidence(key="host.wine.loader", value=str(self._wine.loader), source="PATH")
        kept = "kept" if self._kept else "fresh"
        yield Evidence(key="host.wine.server", value=kept, source="isobench.toml")
        # Wine's processes inherit the cgroup of this one.
        yield from cpu_share.evidence(os.getpid())


@dataclass(frozen=True, slots=True, kw_only=True)
class _Startable:
    """A prefix in which the same program can be started any number of times."""

    session: _Session
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        return self.session.run(self.command, timeout=timeout)
