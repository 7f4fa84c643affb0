"""Nouns of measuring: what is run, in which order, and what came back."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final, Protocol

from isobench.model.isolation import Abi, Need
from isobench.model.units import Nanoseconds, Sha256, TargetName, Unit, WorkloadName


class Scope(StrEnum):
    """What one sample spans, hence whose clock times it."""

    LOOP = "loop"  # a batch of operations inside the payload; its own clock
    EXEC = "exec"  # one process in a session already open; host clock
    SESSION = "session"  # one instance from asking for it to its nonce; host clock


class Start(StrEnum):
    """Which start a workload of scope SESSION asks for."""

    COLD = "cold"
    WARM = "warm"


class Clock(StrEnum):
    """Whose clock took a value. Clocks of two domains are never subtracted."""

    GUEST = "guest"
    HOST = "host"


class Better(StrEnum):
    """Which values of a metric are the better ones."""

    LOWER = "lower"
    HIGHER = "higher"


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """What of a workload is compared with native's."""

    name: str
    unit: Unit
    better: Better = Better.LOWER
    fact: str = ""
    """The key of the number that the payload prints once a visit; empty for time, which isobench
    takes of every iteration or start.
    """

    @property
    def is_time(self) -> bool:
        """Whether it is the time of iterations or starts, which every workload has."""
        return self.name == "time"

    @property
    def is_clocked(self) -> bool:
        """Whether its values depend on a clock, which may be wrong or too coarse. All others are
        counted: equal values are equal.
        """
        return self.unit in (Unit.NANOSECOND, Unit.OPERATIONS_PER_SECOND)

    @property
    def recorded_as(self) -> str:
        """What its samples are called in records.jsonl."""
        return self.name if self.is_time else f"fact.{self.fact}"


TIME: Final = Metric(name="time", unit=Unit.NANOSECOND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a payload must compute in `loops` loops, on every ISA."""

    loops: int
    check: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is measured. Data, not code: one folder with workload.toml and payload.c."""

    name: WorkloadName
    summary: str
    scope: Scope
    operation: str
    """What one operation is, in words; `summary.json` gives seconds per operation."""
    source: Path
    timeout: Nanoseconds
    metrics: Mapping[str, Metric]
    """By name; time is always among them."""
    args: tuple[str, ...] = ()
    answer: Answer | None = None
    most_loops: int | None = None
    start: Start | None = None
    libc: bool = False
    needs: tuple[Need, ...] = ()
    plugin: str = ""
    """The distribution and version that it is from, where a plug-in adds it."""

    def lack(self, *lacks: Mapping[Need, str]) -> str:
        """Return why it cannot run where these needs are not met, of an ABI, a target or the host;
        empty: it can.
        """
        return next((each[need] for need in self.needs for each in lacks if need in each), "")

    @property
    def group(self) -> str:
        """The class of the workload: what stands before the dot."""
        return self.name.partition(".")[0]

    @property
    def program(self) -> str:
        """The file name of its payload in a stage."""
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
    """Takes a piece of standard output."""

    def __call__(self, chunk: bytes, /, at: int | None = None) -> None:
        """Take it. `at` is the time of its arrival by time.monotonic_ns(); without it, now.

        A target has no time to give: only isobench's own spawner takes one.
        """
        ...


def _ignore(_: object, /, at: int | None = None) -> None:
    """Listen to nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A program of the stage to be run, and who listens to it.

    Each call carries its own command, so that two sessions can run at the same time.
    """

    argv: tuple[str, ...]
    """`argv[0]` is the bare name of a file in the stage's `isobench/` directory."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """The variables that the program sees, without the scratch directory: see `environ`."""
    on_output: OnOutput = _ignore
    """Call it with every piece of standard output as it arrives: the caller takes the time there.
    """
    on_phase: Callable[[str], None] = _ignore
    """Call it with the name of each phase of a start as it passes ("engine.created")."""
    exclude: Callable[[int], None] = _ignore
    """Takes nanoseconds of a start that have just passed in isobench's own service: the figure
    leaves them out. For isobench's spawner alone.
    """

    def environ(self, scratch: str) -> dict[str, str]:
        """Return all variables, for a scratch directory that is seen inside as `scratch`."""
        return {**self.environment, "ISOBENCH_SCRATCH": scratch}


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a target shows its sessions.

    `root` is a directory with the payloads in `isobench/` and the empty mount points `proc`, `dev`,
    `tmp` and `scratch`: usable as a root directory as it is. Its content never changes while a
    session is open.
    """

    root: Path
    digest: Sha256
    """Hash of the content of `root`: the name of an image made from it."""
    tools: Mapping[str, Path] = field(default_factory=dict)
    """Programs of isobench's own for the host side, by name (`_launch`)."""
    scratch: Path
    """A writable directory on the host for the input and output of I/O workloads."""
    owner: str
    """Whom containers and the like belong to: "isobench-PID-STARTTIME", for labels and names."""
    cpus: str = ""
    """The CPUs that sessions of this stage are confined to, as in "0,2-3"; empty: none are named.
    Processes that a target starts itself have them already; an engine that starts them must be
    told.
    """
    on_phase: Callable[[str], None] = _ignore
    """Call it with the name of each phase as it passes while a session is opened."""

    INSIDE = "/isobench"
    """Where the payloads lie when `root` is the root directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """How much work one iteration of a workload is in this run: the same for every target."""

    workload: WorkloadName
    loops: int
    iterations: int
    warmups: int = 1
    """Passes of as many loops before the iterations, told apart from them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """One cell of one block: a workload at a target, measured once (all its iterations)."""

    block: int
    target: TargetName
    workload: WorkloadName


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Every cell once, in random order; a session per target, opened in random order where it is
    not open from the block before.
    """

    number: int
    sessions: tuple[TargetName, ...]
    visits: tuple[Visit, ...]


class Schedule(StrEnum):
    """How the visits of a block follow each other."""

    BLOCKS = "blocks"  # one at a time, in random order
    DUET = "duet"  # each target at the same time as native
    SEQUENTIAL = "sequential"  # one at a time, in one order


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Blocks and their order, fixed before measuring."""

    seed: int
    reference: TargetName
    work: tuple[Work, ...]
    blocks: tuple[Block, ...]
    schedule: Schedule = Schedule.BLOCKS
    expensive: tuple[TargetName, ...] = ()
    """Targets whose sessions were dear to open when every cell was tried. A visit of theirs that
    times starts makes one, however many iterations its work says.
    """
    blocks_per_session: Mapping[TargetName, int] = field(default_factory=dict)
    """How many blocks one session of a target serves; one where nothing is said."""


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
"""The causes of gaps that should not be there."""


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
    """Host time of the record, seconds since the run began."""
    session: int = 0
    """Which session of the target in this run, from 1. 0: one that served this block alone - an
    instance of its own for a start-up, and every record of a version that kept no sessions.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """No value, and why."""

    block: int
    target: TargetName
    workload: WorkloadName
    cause: Cause
    detail: str
    hint: str = ""


Record = Sample | Gap
