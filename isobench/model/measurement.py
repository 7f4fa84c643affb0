"""Types of measuring: what is run, in which order, and the results."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from isobench.model.isolation import Abi, Need
from isobench.model.units import Nanoseconds, Sha256, TargetName, Unit, WorkloadName


class Scope(StrEnum):
    """What one sample spans. It decides which clock takes the time."""

    LOOP = "loop"  # a batch of operations inside the payload; its own clock
    EXEC = "exec"  # one process in an open session; host clock
    SESSION = "session"  # one instance from the request to its nonce; host clock


class Start(StrEnum):
    """Which kind of start a workload of scope SESSION times."""

    COLD = "cold"
    WARM = "warm"


class Clock(StrEnum):
    """Which clock took a value. Times of two clocks are never subtracted from each other."""

    GUEST = "guest"
    HOST = "host"


class Better(StrEnum):
    """Which values of a metric are the better ones."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A quantity of a workload that is compared with native's."""

    name: str
    unit: Unit
    better: Better = Better.LOWER
    fact: str = ""
    """The key of the number that the payload prints once per visit. Empty for time, which isobench
    takes for every iteration or start.
    """

    @property
    def is_time(self) -> bool:
        """Whether it is the time of iterations or starts, which every workload has."""
        return self.name == "time"

    @property
    def is_clocked(self) -> bool:
        """Whether its values depend on a clock, which may be wrong or too coarse. Other values are
        counted, so that equal values mean that nothing differs.
        """
        return self.unit in (Unit.NANOSECOND, Unit.OPERATIONS_PER_SECOND)

    @property
    def recorded_as(self) -> str:
        """The name of its samples in records.jsonl."""
        return self.name if self.is_time else f"fact.{self.fact}"


TIME: Final = Metric(name="time", unit=Unit.NANOSECOND)
SESSION: Final = WorkloadName("session")
"""The workload of a gap of a session that could not be closed: what was measured in it counts."""
TURNS: Final = "turns"
"""The metric of the host's time of all turns of a visit; its operations are their number."""
FASTEST_TURNS: Final = "fastest-turns"
"""The same of the fastest turns of a visit."""
TRIMMED_TURN: Final = "trimmed-turn"
"""The host's time of a turn of a visit, of those without the fastest and the slowest fifth."""
BOUNDED_TURNS: Final = "bounded-turns"
"""What the payload reports of all turns of a visit, of each at most the host's time of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The checksum that a payload must compute in `loops` loops, on every ISA."""

    loops: int
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is measured: one folder with workload.toml and payload.c."""

    name: WorkloadName
    summary: str
    scope: Scope
    operation: str
    """What one operation is, in words. `summary.json` has seconds per operation."""
    source: Path
    timeout: Nanoseconds
    metrics: Mapping[str, Metric]
    """The metrics by name. Time is always one of them."""
    args: tuple[str, ...] = ()
    answer: Answer | None = None
    most_loops: int | None = None
    counts_operations: bool = False
    """Whether the payload counts its operations itself. Otherwise each loop is one."""
    start: Start | None = None
    libc: bool = False
    needs: tuple[Need, ...] = ()
    plugin: str = ""
    """The distribution and version of the plug-in that adds it; empty: it is in-tree."""

    def lack(self, *lacks: Mapping[Need, str]) -> str:
        """Return why it cannot run; empty: it can. `lacks` are the needs that an ABI, a target or
        the host does not meet, with the reasons.
        """
        return next((each[need] for need in self.needs for each in lacks if need in each), "")

    @property
    def class_name(self) -> str:
        """The class of the workload: the part of its name before the dot."""
        return self.name.partition(".")[0]

    @property
    def program(self) -> str:
        """The file name of its payload in a stage."""
        # A source in a folder with an underscore serves several workloads, and is built once.
        return self.name if self.source.parent.name[0] != "_" else self.source.parent.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """A built program."""

    program: str
    abi: Abi
    path: Path
    sha256: Sha256
    compiler: str
    flags: tuple[str, ...]


class OnOutput(Protocol):
    """Receives standard output, piece by piece."""

    def __call__(self, chunk: bytes, /, at: int | None = None) -> None:
        """Receive a piece. `at` is the time of its arrival by time.monotonic_ns(); None: now.

        Only isobench's own spawner passes `at`; a target never does.
        """
        ...


OnStdin = Callable[[Callable[[bytes], None]], None]
"""Receives a function that writes to the standard input of a program. It raises OSError or
SessionError where nobody reads any more.
"""


def _ignore(_: object, /, at: int | None = None) -> None:
    """Ignore output, phases and durations."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of the stage to run, its environment, and the listeners for its output and phases.

    Each call has its own command, so that two sessions can run at the same time.
    """

    argv: tuple[str, ...]
    """`argv[0]` is the bare name of a file in the stage's `isobench/` directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables of the program without the scratch directory, which `environ` adds."""
    on_output: OnOutput = _ignore
    """Call it with every piece of standard output as it arrives: the listener takes the time."""
    on_phase: Callable[[str], None] = _ignore
    """Call it with the name of each phase of a start when the phase ends ("engine.created")."""
    on_stdin: OnStdin | None = None
    """Call it once, when the program is about to run, with a function that writes bytes to the
    program's standard input. None: the program gets an empty one. Only sessions with the ability
    `Interactive` get commands with it.
    """
    exclude: Callable[[int], None] = _ignore
    """Call it with nanoseconds that isobench's own code has just spent: they are subtracted from
    the start-up time. Only isobench's spawner uses it.
    """

    def environ(self, scratch: str) -> dict[str, str]:
        """Return all variables. `scratch` is the path of the scratch directory inside."""
        variables = {**self.environment, "ISOBENCH_SCRATCH": scratch}
        # isobench's agent gives a program a pipe as standard input where this is set: request.h.
        return variables if self.on_stdin is None else {**variables, "ISOBENCH_STDIN": "1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """The files that a target makes visible in its sessions.

    `root` is a directory with the payloads in `isobench/` and the empty mount points `dev`, `proc`,
    `scratch`, `sys` and `tmp`: it can be used as a root directory. Its content never changes while
    a session is open.
    """

    root: Path
    digest: Sha256
    """Hash of the content of `root`; targets name the images they make from it after this."""
    tools: Mapping[str, Path] = field(default_factory=dict)
    """isobench's own programs for the host side, by name (`_launch`)."""
    scratch: Path
    """A writable directory on the host for the files of I/O workloads."""
    owner: str
    """The owner of containers and the like, for labels and names: see `plugins.ownership`."""
    cpus: str = ""
    """The CPUs for the sessions of this stage, as in "0,2-3"; empty: no restriction. Processes that
    a target starts itself inherit them; a target must pass them to an engine.
    """
    on_phase: Callable[[str], None] = _ignore
    """Call it with the name of each phase of opening a session when the phase ends."""

    INSIDE = "/isobench"
    """Where the payloads are when `root` is the root directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """How a target takes part in the rounds of a block."""

    loops: int
    """Loops of its turn. Where they are fewer than the workload's, native has a turn of as many
    loops beside it, under the label of a partner.
    """
    rounds: int
    """In how many of the rounds it has a turn. They are spread evenly."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much work one iteration of a workload is in this run. It is the same for every target,
    but for those in `turns`.
    """

    workload: WorkloadName
    loops: int
    iterations: int
    """Iterations of a visit, or the rounds of a block, in which each target has one iteration."""
    warmups: int = 1
    """Passes of as many loops before the iterations. They are recorded as warm-up."""
    untimed_share: float = 0.0
    """Before each iteration of a round, a pass of this share of its loops is not timed: it brings
    back the caches that others have used meanwhile.
    """
    turns: Mapping[TargetName, Turns] = field(default_factory=dict)
    """Targets that are too slow for as many rounds or loops, or that must start a program for each
    turn.
    """
    seconds: Mapping[TargetName, float] = field(default_factory=dict)
    """About how long each label takes in a block of rounds, by the trial."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One cell of one block: a workload in a target, measured once (all its iterations)."""

    block: int
    target: TargetName
    workload: WorkloadName


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Every cell once, in random order. `sessions` is the order in which sessions are opened; those
    that are still open from the block before are used again.
    """

    number: int
    sessions: tuple[TargetName, ...]
    visits: tuple[Visit, ...]


class Schedule(StrEnum):
    """In which order the visits of a block run."""

    ROUNDS = "rounds"  # payloads wait, and take short turns in random order
    BLOCKS = "blocks"  # one at a time, in random order
    DUET = "duet"  # each target at the same time as native
    SEQUENTIAL = "sequential"  # one at a time, always in the same order


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The blocks and their order, fixed before measuring starts."""

    seed: int
    reference: TargetName
    work: tuple[Work, ...]
    blocks: tuple[Block, ...]
    schedule: Schedule = Schedule.BLOCKS
    expensive: tuple[TargetName, ...] = ()
    """Targets whose sessions were slow to open in the trial. A visit that times their starts makes
    one start only, whatever the iterations of its work.
    """
    blocks_per_session: Mapping[TargetName, int] = field(default_factory=dict)
    """How many blocks one session of a target serves; one for targets that are not listed."""


class Cause(StrEnum):
    """Why there is no number."""

    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    TIMED_OUT = "timed-out"
    UNPROVEN = "unproven"
    WRONG_ANSWER = "wrong-answer"
    NOT_APPLICABLE = "not-applicable"
    INTERRUPTED = "interrupted"


FAILED_CAUSES: Final = frozenset(
    {Cause.FAILED, Cause.TIMED_OUT, Cause.WRONG_ANSWER, Cause.UNPROVEN}
)
"""The causes that mean a failure: `isobench run` ends with exit code 6."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One measured value, as measured."""

    block: int
    target: TargetName
    workload: WorkloadName
    metric: str
    iteration: int
    value: int
    unit: Unit
    operations: int
    """How many operations `value` spans."""
    clock: Clock
    at: float
    """Host time of the record, in seconds since the run began."""
    # Records of the same session are not independent: the analysis tests whether sessions differ.
    session: int = 0
    """The number of the session among those of the target in this run, from 1. 0: it served this
    block only. That is so for a start of an instance, and for all records of versions of isobench
    that did not use sessions for several blocks.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A value that is missing, and why."""

    block: int
    target: TargetName
    workload: WorkloadName
    cause: Cause
    detail: str
    hint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaving:
    """A cell that was decided at an interim analysis, and is not measured any further."""

    block: int
    """The last block that it took part in."""
    target: TargetName
    workload: WorkloadName
    share: float
    """The share of the budget that was spent at that analysis, 0 to 1."""


Record = Sample | Gap | Leaving
