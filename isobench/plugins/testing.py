"""A target that answers as a payload would, to a script: for tests of the runner, and of plug-ins
that wrap targets.

    target = FakeTarget(
        name=TargetName("box"),
        scripts={"cpu.sieve": (Script(fault=Fault.SILENT), Script(durations=(2_000_000,)))},
    )

The first run of cpu.sieve in `box` says nothing, every later one reports iterations of 2 ms.
Nothing is started, nothing sleeps; `target.history` tells what was asked of it, in order.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Fact,
    Stage,
    Technology,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed

EVIDENCE: Final = "_evidence"
"""The program that a fake answers with its facts."""
STARTUP: Final = "_startup"
"""The program that only says its first line, and then becomes the one named by its arguments."""
SOURCE: Final = "script"
"""Where a fake's facts say that they were read."""
_AVAILABLE: Final = Available(version="fake 1")
_ONLY_NONCE: Final = 2
"""PROGRAM NONCE: more words name a program to become."""
_TIMED: Final = 4
"""PROGRAM NONCE ITERATIONS LOOPS: so many words make a timed run."""


class Fault(StrEnum):
    """What goes wrong in a run."""

    NONE = "none"
    SILENT = "silent"  # exits with 0 and says nothing
    CUT_SHORT = "cut-short"  # stops before its last line, exit code as scripted
    WRONG_NONCE = "wrong-nonce"
    ONE_TOO_FEW = "one-too-few"  # an iteration is missing
    BACKWARDS = "backwards"  # its clock ends where it began, or before
    ERROR_LINE = "error-line"  # says what failed, exits with 70
    TIME_OUT = "time-out"  # stopped at the time limit: no exit code
    GONE = "gone"  # the session breaks: SessionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """What a fake payload says in one run."""

    durations: tuple[int, ...] = (1_000_000,)
    """Nanoseconds of its iterations; begun anew when there are more iterations than these."""
    warmup: int = 1_000_000
    """Nanoseconds of the untimed first iteration."""
    operations: int | None = None
    """Operations an iteration; None: as many as loops."""
    check: str | None = None
    """Its checksum; None: one that depends on program and loops alone, as an honest one does."""
    steady: bool = True
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """What it sees of its surroundings."""
    fault: Fault = Fault.NONE
    exit_code: int = 0
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One command that a fake was given."""

    argv: tuple[str, ...]
    timeout: Nanoseconds
    environment: Mapping[str, str]


def honest_check(program: str, loops: int) -> str:
    """Return the checksum that every fake computes unless its script names another."""
    return hashlib.sha256(f"{program} {loops}".encode()).hexdigest()[:16]


def reply(argv: Sequence[str], script: Script) -> Completed:
    """Return what a payload called with `argv` says and how it ends; `SessionError` for GONE."""
    program, nonce = argv[0], argv[1]
    match script.fault:
        case Fault.GONE:
            raise SessionError("the fake session broke", hint="as its script says")
        case Fault.TIME_OUT:
            return Completed(exit_code=None, stdout=b"", stderr=script.stderr)
        case Fault.SILENT:
            return Completed(exit_code=0, stdout=b"", stderr=script.stderr)
        case Fault.WRONG_NONCE:
            nonce = "0" * len(nonce)
        case _:
            pass
    timed = len(argv) >= _TIMED and program != STARTUP
    iterations, loops = (int(argv[2]), int(argv[3])) if timed else (0, 1)
    lines = list(_lines(program, nonce, iterations, loops, script))
    exit_code = script.exit_code
    if script.fault is Fault.CUT_SHORT:
        lines.pop()
    elif script.fault is Fault.ERROR_LINE:
        lines[-1] = {"error": "the fake payload failed", "errno": 5}
        exit_code = exit_code or 70
    stdout = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
    return Completed(exit_code=exit_code, stdout=stdout.encode(), stderr=script.stderr)


def _lines(
    program: str, nonce: str, iterations: int, loops: int, script: Script
) -> Iterator[Mapping[str, Fact]]:
    """Yield the lines of workloads/_include/isobench.h in their order."""
    yield {"isobench": 1, "nonce": nonce, "clock_ns": 0}
    if program == STARTUP:
        return
    for key, value in script.facts.items():
        yield {"fact": key, "value": value, "source": SOURCE}
    if iterations:
        yield {"warmup_ns": script.warmup}
    said = iterations - (script.fault is Fault.ONE_TOO_FEW)
    took = 0
    for i, duration in enumerate(itertools.islice(itertools.cycle(script.durations), said)):
        took += duration
        operations = loops if script.operations is None else script.operations
        yield {"i": i, "ns": duration, "ops": operations}
    check = honest_check(program, loops) if script.check is None else script.check
    span = script.warmup * bool(iterations) + took
    if script.fault is Fault.BACKWARDS:
        span = 0
    end: dict[str, Fact] = {"end": said, "check": check, "steady": script.steady}
    yield {**end, "nonce": nonce, "clock_ns": span}


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTarget:
    """A target that starts nothing and answers to a script.

    `scripts` has, for a program, a script for each of its runs in turn; the last one lasts. So do
    `openings`: the reason of a `SessionError` for each opening, or "" for one that succeeds.
    """

    name: TargetName
    technology: Technology = Technology.SANDBOX
    abi: Abi | None = None
    expectations: tuple[Expectation, ...] = ()
    availability: Availability = _AVAILABLE
    scripts: Mapping[str, tuple[Script, ...]] = field(default_factory=dict)
    inside: Mapping[str, Fact] = field(default_factory=dict)
    """What the evidence payload sees, unless a script for `_evidence` says otherwise."""
    witnessed: Mapping[str, Fact] = field(default_factory=dict)
    """What the host sees of its sessions."""
    openings: tuple[str, ...] = ("",)
    history: list[str] = field(default_factory=list)
    """What happened, in order: "open NAME", "run PROGRAM", "close NAME". May be shared by several
    fakes.
    """
    asked: list[Asked] = field(default_factory=list)
    """Every command, with its environment as it was then."""

    @property
    def opened(self) -> int:
        """How many sessions were asked for, those refused among them."""
        return self.history.count(f"open {self.name}")

    @property
    def closed(self) -> int:
        """How many sessions were closed."""
        return self.history.count(f"close {self.name}")

    def runs(self, program: str) -> int:
        """Return how often a program was run."""
        return sum(each.argv[0] == program for each in self.asked)

    def probe(self) -> Availability:
        """Answer as set."""
        return self.availability

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["FakeSession"]:
        """Open a session, or refuse to, as `openings` says."""
        reason = self.openings[min(self.opened, len(self.openings) - 1)]
        self.history.append(f"open {self.name}")
        if reason:
            raise SessionError(reason, hint="as its script says")
        try:
            yield FakeSession(target=self, stage=stage)
        finally:
            self.history.append(f"close {self.name}")

    def answer(self, command: Command, timeout: Nanoseconds) -> Completed:
        """Note a command and answer it by its script."""
        argv, program = command.argv, command.argv[0]
        default = Script(facts=self.inside if program == EVIDENCE else {})
        scripts = self.scripts.get(program) or (default,)
        script = scripts[min(self.runs(program), len(scripts) - 1)]
        self.history.append(f"run {program}")
        environment = command.environ("/scratch")
        self.asked.append(Asked(argv=argv, timeout=timeout, environment=environment))
        done = reply(argv, script)
        if done.stdout:
            command.on_output(done.stdout)
        if program != STARTUP or len(argv) <= _ONLY_NONCE or done.exit_code != 0:
            return done
        then = self.answer(replace(command, argv=argv[2:]), timeout)
        return Completed(
            exit_code=then.exit_code,
            stdout=done.stdout + then.stdout,
            stderr=done.stderr + then.stderr,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSession:
    """A session of a fake; a `Witness`, too."""

    target: FakeTarget
    stage: Stage

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Answer to the target's script."""
        return self.target.answer(command, timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the host sees of this session, as set."""
        for key, value in self.target.witnessed.items():
            yield Evidence(key=key, value=value, source=SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEngine(FakeTarget):
    """A fake that can also launch an instance for one command, and keep a stopped one: a
    `Launcher` and a `Restarter`. Its history has "launch NAME", "stop NAME", "start NAME" and
    "remove NAME" besides.
    """

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Answer from an instance of its own."""
        del stage  # it starts nothing
        self.history.append(f"launch {self.name}")
        command.on_phase("engine.created")
        return self.answer(command, timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator["FakeStopped"]:
        """Keep an instance that answers at each start."""
        del stage  # it starts nothing
        self.history.append(f"stop {self.name}")
        try:
            yield FakeStopped(target=self, command=command)
        finally:
            self.history.append(f"remove {self.name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeStopped:
    """A stopped instance of a fake engine."""

    target: FakeEngine
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Answer to the target's script."""
        self.target.history.append(f"start {self.target.name}")
        return self.target.answer(self.command, timeout)
