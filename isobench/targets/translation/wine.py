"""Wine: a program for Windows, its system calls translated to those of this host's kernel.

The program's own instructions run as they are; what it asks of Windows, Wine's libraries ask of
Linux, and what processes of Windows share (handles, windows, the registry) a server keeps for them.
So there are two kinds of calls: those that stay in the process, and those that cross to the server
and back. Wine isolates nothing: a program sees the host's files as drive Z:.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

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
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import elf, processes
from isobench.targets.translation import _pe, _wine

_PROGRAMS: Final = "i"
_SCRATCH: Final = "s"
_INSTALL: Final = "isobench doctor --install wine"


@dataclass(frozen=True, kw_only=True)
class WineTarget:
    """Programs for Windows on x86-64, each session in a prefix and with a server of its own."""

    name: ClassVar[TargetName] = TargetName("wine")
    technology: ClassVar[Technology] = Technology.TRANSLATION
    abi: ClassVar[Abi | None] = Abi.PE_X86_64
    executes: ClassVar[Sequence[str]] = ("loader",)
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        # A program for Windows, as it lies in memory, and Wine's library that answers it: what
        # ran was neither a program for Linux that a loader just executed, nor Windows itself.
        Expectation(key="payload.format", relation=Relation.EQUALS, value="PE"),
        Expectation(key="wine.version", relation=Relation.UNLIKE_HOST),
        # The processor that answers is the host's: no emulator stands between.
        Expectation(key="machine", relation=Relation.SAME_AS_HOST),
        Expectation(key="cpu.hypervisor", relation=Relation.SAME_AS_HOST),
    )

    server: Literal["kept", "fresh"] = "kept"
    """Whether Wine's server goes on between the programs of a session ("kept"), or each program
    starts one of its own ("fresh"), as where programs for Windows are started now and then.
    """
    loader: str = ""
    """The program that starts one for Windows, as "/opt/wine-stable/bin/wine64"; empty: the one
    that is installed.
    """

    @property
    def starts(self) -> Mapping[str, str]:
        """What a start spans."""
        again = (
            "its server and services run already"
            if self.server == "kept"
            else "its server and services are started anew each time"
        )
        return {
            "cold": "Wine is started in a prefix made just before: its server, its services, then"
            " the program",
            "warm": f"Wine is started in a prefix that has been used; {again}",
            "exec": f"the same operation as warm, in the session's prefix; {again}",
        }

    def probe(self) -> Availability:
        """Run the smallest program for Windows."""
        if host_abi() is not Abi.ELF_X86_64:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="payloads for Windows are for x86-64 alone, and this host is no Linux on it",
                hint="run isobench on such a machine",
            )
        try:
            wine = _wine.find(self.loader)
            said = _wine.complaint(wine, _pe.answering(), elf.ANSWER)
        except _wine.MissingError as error:
            hint = "mend [targets.wine] loader" if self.loader else _INSTALL
            return Unavailable(lack=Lack.TOOL, what=str(error), hint=hint)
        except (SessionError, OSError) as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=f"{_INSTALL}; try again")
        if said:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{wine.loader} does not run a program for Windows: {said}",
                hint=f"see what it says: WINEPREFIX=/tmp/try {wine.loader} wineboot --init",
            )
        return Available(version=f"{wine.version}, {self.server} server")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Make a prefix, start its server."""
        with self._instance(stage) as session:
            session.wake()
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a program where no server runs; the services that come with it end after it."""
        with self._instance(stage) as session:
            command.on_phase(BEGIN)
            return session.alone(command, timeout=timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator["_Startable"]:
        """Keep a prefix, and with it its server."""
        with self.open(stage) as session:
            yield _Startable(session=session, command=command)

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the prefix that all others are copies of."""
        _wine.base(self._installed(), say)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End servers, services and programs that a killed run has left; remove their prefixes."""
        return [*processes.sweep(alive), *_wine.sweep(alive, cached=cached)]

    def _installed(self) -> _wine.Wine:
        try:
            return _wine.find(self.loader)
        except _wine.MissingError as error:
            raise SessionError(f"{error} is not there", hint=_INSTALL) from None

    @contextlib.contextmanager
    def _instance(self, stage: Stage) -> Iterator["_Session"]:
        wine = self._installed()
        scratch = processes.private_scratch(stage.scratch, "wine")
        # Shallow for what runs inside, as in a container: a look-up of a long path would be
        # measured as if it were Wine.
        drives = {_PROGRAMS: stage.root / "isobench", _SCRATCH: scratch}
        with _wine.instance(wine, drives, stage.owner) as prefix:
            yield _Session(wine=wine, prefix=prefix, kept=self.server == "kept")


class _Session:
    """A prefix, and a server where one is kept."""

    def __init__(self, *, wine: _wine.Wine, prefix: Path, kept: bool) -> None:
        self._wine, self._prefix, self._kept = wine, prefix, kept
        self._over = ""

    def wake(self) -> None:
        """Start the server and the services, none of which holds a stream of ours."""
        if self._kept:
            _wine.wake(self._wine, self._prefix)

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        if self._over:
            raise SessionError(self._over)
        return self._run(command, timeout) if self._kept else self.alone(command, timeout=timeout)

    def alone(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program with a server of its own."""
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
            # A program's children are none of its process's for the host: all that runs in the
            # prefix ends with it.
            _wine.end(self._prefix)
            if self._kept:
                self._over = "the time limit ended all that ran in this prefix"
        elif not done.stdout and done.stderr.startswith(b"wine"):
            raise SessionError(f"Wine: {processes.last_line(done.stderr)}")
        return done

    def witness(self) -> Iterable[Evidence]:
        """Yield which Wine it was."""
        yield Evidence(key="host.wine", value=self._wine.version, source="--version")
        yield Evidence(key="host.wine.loader", value=str(self._wine.loader), source="PATH")
        kept = "kept" if self._kept else "fresh"
        yield Evidence(key="host.wine.server", value=kept, source="isobench.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Startable:
    """A prefix in which the same program is started again and again."""

    session: _Session
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        return self.session.run(self.command, timeout=timeout)
