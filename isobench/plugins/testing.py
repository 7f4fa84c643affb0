"""A fake target that follows a script, for tests of the runner and of plug-ins that wrap targets.

    target = FakeTarget(
        name=TargetName("box"),
        scripts={"cpu.sieve": (Script(fault=Fault.SILENT), Script(durations=(2_000_000,)))},
    )

The first run of cpu.sieve in `box` prints nothing, every later one reports iterations of 2 ms. The
target starts no processes and never sleeps. `target.history` lists the calls in order.
"""

import contextlib
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from queue import SimpleQueue
from typing import ClassVar, Final

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
"""The program for which a fake returns its facts."""
STARTUP: Final = "_startup"
"""The program that prints only its first line, and then executes the program in its arguments."""
SOURCE: Final = "script"
"""The source of a fake's facts."""
_AVAILABLE: Final = Available(version="fake 1")
# PROGRAM NONCE; further arguments are a command to execute.
_ONLY_NONCE: Final = 2
# PROGRAM NONCE ITERATIONS LOOPS: the arguments of a timed run.
_TIMED: Final = 4
_ASK: Final = "ask"
"""In the place of ITERATIONS: one iteration for each line of standard input."""


class Fault(StrEnum):
    """What goes wrong in a run."""

    NONE = "none"
    SILENT = "silent"  # exits with 0 and prints nothing
    CUT_SHORT = "cut-short"  # stops before its last line, exit code as scripted
    WRONG_NONCE = "wrong-nonce"
    ONE_TOO_FEW = "one-too-few"  # an iteration is missing
    BACKWARDS = "backwards"  # its clock ends where it began, or before
    ERROR_LINE = "error-line"  # reports what failed, exits with 70
    TIME_OUT = "time-out"  # stopped at the time limit: no exit code
    GONE = "gone"  # the session breaks: SessionError


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """The output of a fake payload in one run."""

    durations: tuple[int, ...] = (1_000_000,)
    """Nanoseconds of its iterations, repeated if there are more iterations."""
    warmup: int = 1_000_000
    """Nanoseconds of the untimed first iteration."""
    operations: int | None = None
    """Operations per iteration; None: as many as loops."""
    check: str | None = None
    """Its checksum; None: the correct one, which depends on program and loops only."""
    steady: bool = True
    facts: Mapping[str, Fact] = field(default_factory=dict)
    """The facts about its environment that it reports."""
    fault: Fault = Fault.NONE
    exit_code: int = 0
    stderr: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedCommand:
    """One command that a fake has received."""

    argv: tuple[str, ...]
    timeout: Nanoseconds
    environment: Mapping[str, str]


def correct_check(program: str, loops: int) -> str:
    """Return the checksum that every fake computes unless its script has another."""
    return hashlib.sha256(f"{program} {loops}".encode()).hexdigest()[:16]


def reply(argv: Sequence[str], script: Script) -> Completed:
    """Return output and end of a payload with these arguments; SessionError for GONE."""
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
    return _completed([*_lines(program, nonce, iterations, loops, script)], script)


def _completed(lines: list[Mapping[str, Fact]], script: Script) -> Completed:
    """Return the end of a payload that prints these lines, or less where the script says so."""
    exit_code = script.exit_code
    if script.fault is Fault.CUT_SHORT:
        lines.pop()
    elif script.fault is Fault.ERROR_LINE:
        lines[-1] = {"error": "the fake payload failed", "errno": 5}
        exit_code = exit_code or 70
    return Completed(exit_code=exit_code, stdout=_text(lines), stderr=script.stderr)


def _lines(
    program: str, nonce: str, iterations: int, loops: int, script: Script
) -> Iterator[Mapping[str, Fact]]:
    """Yield the lines of a payload, in the order of workloads/_include/isobench.h."""
    yield {"isobench": 1, "nonce": nonce, "clock_ns": 0}
    if program == STARTUP:
        return
    for key, value in script.facts.items():
        yield {"fact": key, "value": value, "source": SOURCE}
    if iterations:
        yield {"warmup_ns": script.warmup}
    reported = iterations - (script.fault is Fault.ONE_TOO_FEW)
    took = 0
    for i, duration in enumerate(itertools.islice(itertools.cycle(script.durations), reported)):
        took += duration
        operations = loops if script.operations is None else script.operations
        yield {"i": i, "ns": duration, "ops": operations}
    check = correct_check(program, loops) if script.check is None else script.check
    span = script.warmup * bool(iterations) + took
    if script.fault is Fault.BACKWARDS:
        span = 0
    end: dict[str, Fact] = {"end": reported, "check": check, "steady": script.steady}
    yield {**end, "nonce": nonce, "clock_ns": span}


def reply_to_requests(command: Command, script: Script) -> Completed:
    """Return output and end of a payload that makes an iteration for each line that it is sent."""
    assert command.on_stdin is not None
    requests: SimpleQueue[bytes] = SimpleQueue()
    command.on_stdin(requests.put)
    program, nonce, _, most = command.argv[:4]
    whole = [*_lines(program, nonce, 1, int(most), replace(script, fault=Fault.NONE))]
    lines, end = whole[:-2], dict(whole[-1])
    _send(command, lines)
    took, asked = script.warmup, 0
    while (words := requests.get().split()) != [b"end"]:
        duration, loops = script.durations[asked % len(script.durations)], int(words[0])
        line: dict[str, Fact] = {
            "i": asked,
            "ns": duration,
            "ops": loops if script.operations is None else script.operations,
            "loops": loops,
            "check": correct_check(program, loops) if script.check is None else script.check,
        }
        _send(command, [line])
        lines.append(line)
        took, asked = took + duration, asked + 1
    if script.fault is Fault.ONE_TOO_FEW:
        del lines[-1]
        asked -= 1
    end |= {"end": asked, "clock_ns": 0 if script.fault is Fault.BACKWARDS else took}
    done = _completed([*lines, end], script)
    command.on_output(done.stdout[len(_text(lines)) :])
    return done


def _text(lines: Iterable[Mapping[str, Fact]]) -> bytes:
    return "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines).encode()


def _send(command: Command, lines: Iterable[Mapping[str, Fact]]) -> None:
    command.on_output(_text(lines))


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeTarget:
    """A target that starts no processes and follows a script.

    `scripts` has a script for each run of a program, in order; the last one is used for all later
    runs. `openings` likewise has the message of a SessionError for each opening, or "" for success.
    """

    name: TargetName
    technology: Technology = Technology.SANDBOX
    abi: Abi | None = None
    expectations: tuple[Expectation, ...] = ()
    availability: Availability = _AVAILABLE
    scripts: Mapping[str, tuple[Script, ...]] = field(default_factory=dict)
    inside: Mapping[str, Fact] = field(default_factory=dict)
    """The facts of the evidence payload, unless there is a script for `_evidence`."""
    witnessed: Mapping[str, Fact] = field(default_factory=dict)
    """The facts about its sessions that only the host sees."""
    openings: tuple[str, ...] = ("",)
    history: list[str] = field(default_factory=list)
    """The calls in order: "open NAME", "run PROGRAM", "close NAME". Several fakes may share a list.
    """
    received: list[ReceivedCommand] = field(default_factory=list)
    """Every command with its environment."""

    @property
    def opened(self) -> int:
        """How often a session was opened, including failures."""
        return self.history.count(f"open {self.name}")

    @property
    def closed(self) -> int:
        """How many sessions were closed."""
        return self.history.count(f"close {self.name}")

    def runs(self, program: str) -> int:
        """Return how often a program was run."""
        return sum(each.argv[0] == program for each in self.received)

    def probe(self) -> Availability:
        """Return `availability`."""
        return self.availability

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["FakeSession"]:
        """Open a session; SessionError as in `openings`."""
        reason = self.openings[min(self.opened, len(self.openings) - 1)]
        self.history.append(f"open {self.name}")
        if reason:
            raise SessionError(reason, hint="as its script says")
        try:
            yield FakeSession(target=self, stage=stage)
        finally:
            self.history.append(f"close {self.name}")

    def answer(self, command: Command, timeout: Nanoseconds) -> Completed:
        """Record a command and return what its script says."""
        argv, program = command.argv, command.argv[0]
        default = Script(facts=self.inside if program == EVIDENCE else {})
        scripts = self.scripts.get(program) or (default,)
        script = scripts[min(self.runs(program), len(scripts) - 1)]
        self.history.append(f"run {program}")
        environment = command.environ("/scratch")
        self.received.append(ReceivedCommand(argv=argv, timeout=timeout, environment=environment))
        speaks = script.fault not in (Fault.GONE, Fault.TIME_OUT, Fault.SILENT, Fault.WRONG_NONCE)
        if argv[2:3] == (_ASK,) and speaks:
            return reply_to_requests(command, script)
        done = reply([*argv[:2], *("1" if word == _ASK else word for word in argv[2:])], script)
        if done.stdout:
            command.on_output(done.stdout)
        if program != STARTUP or len(argv) <= _ONLY_NONCE or done.exit_code != 0:
            return done
        # As _startup does: it replaces itself by the program in its arguments.
        then = self.answer(replace(command, argv=argv[2:]), timeout)
        return Completed(
            exit_code=then.exit_code,
            stdout=done.stdout + then.stdout,
            stderr=done.stderr + then.stderr,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeSession:
    """A session of a fake. It is a `Witness` too."""

    target: FakeTarget
    stage: Stage
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Return what the script of the program says."""
        return self.target.answer(command, timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield the facts of `witnessed`."""
        for key, value in self.target.witnessed.items():
            yield Evidence(key=key, value=value, source=SOURCE)


@dataclass(frozen=True, slots=True, kw_only=True)
class FakeEngine(FakeTarget):
    """A fake that is a `Launcher` and a `Restarter` too. Its history also has "launch NAME", "stop
    NAME", "start NAME" and "remove NAME".
    """

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Return what the script of the program says, from a new instance."""
        del stage  # it starts nothing
        self.history.append(f"launch {self.name}")
        command.on_phase("engine.created")
        return self.answer(command, timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator["FakeStopped"]:
        """Make an instance that follows the script at each start."""
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
        """Return what the script of the program says."""
        self.target.history.append(f"start {self.target.name}")
        return self.target.answer(self.command, timeout)
