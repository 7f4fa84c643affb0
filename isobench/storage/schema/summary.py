"""summary.json: the answers of a run. Scripts read it: keys are added, and never renamed."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct, field

from isobench.config import redaction
from isobench.model import (
    Cause,
    ClaimKind,
    ClaimStatus,
    Doubt,
    Evidence,
    LimitCheck,
    Schedule,
    Status,
    TargetStatus,
    Technology,
)
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.schema.history import History
from isobench.storage.schema.metadata import LeftOut, PayloadEntry, WorkloadEntry
from isobench.storage.schema.state import CheckedExpectation
from isobench.storage.schema.values import (
    FORMAT,
    Amount,
    Bounds,
    Count,
    Facts,
    Integer,
    Positive,
    check_order,
    moment_of,
)


class RunSummary(Struct, frozen=True, kw_only=True):
    """The run: the main entries of run.json, and what holds for all cells."""

    id: str | None = None
    started: str | None = None
    finished: str | None = None
    seed: Integer | None = None
    quick: bool | None = None
    machine: str | None = None
    tool_version: str | None = None
    argv: tuple[str, ...] | None = None
    margin: Positive = 0.05
    budget_seconds: Amount | None = None
    elapsed_seconds: Amount | None = None
    stopped: str | None = None
    host: Facts | None = None
    compiler: str | None = None
    flags: str | None = None
    payloads: tuple[PayloadEntry, ...] | None = None
    complete: bool = True
    interrupted: bool = False
    noise: dict[str, Amount | None] = field(default_factory=dict)
    """The noise floor of the time of each workload, as a share; None: unknown."""
    metric_noise: dict[str, dict[str, Amount | None]] = field(default_factory=dict)
    """The noise floors of all other metrics, by workload and metric."""
    level: Positive = 0.97
    """The confidence of the intervals of ratios."""
    schedule: Schedule = Schedule.BLOCKS
    blocks: Count | None = None
    blocks_planned: Count | None = None
    blocks_invalid: Count | None = None
    own_cpu_percent: Amount | None = None
    """What isobench itself used of one CPU during the turns of payloads: the median of blocks."""
    doubts: tuple[Doubt, ...] = ()
    left_out: LeftOut | None = None
    headline: str = ""
    remarks: tuple[str, ...] = ()
    """Sentences at the end of the headline: what is missing, that the machine was busy."""
    records: str = "records.jsonl"
    """The name of the file with the records, in the folder of the run."""

    @property
    def began(self) -> datetime | None:
        """The start of the run, in UTC; None: not recorded."""
        return moment_of(self.started)

    @property
    def ended(self) -> datetime | None:
        """The end of the run, in UTC; None: it has not ended."""
        return moment_of(self.finished)


class OverviewEntry(Struct, frozen=True, kw_only=True):
    """A class of workloads at one target in short; only times."""

    group: str = field(name="class")
    target: TargetName
    ratio: Positive | None = None
    """The mean of the class, or the ratio of its only workload; None: it has neither."""
    interval: Bounds | None = None
    level: Positive = 0.97
    status: Status | None = field(default=None, name="standing")
    """The verdict on `ratio`; without one, the verdict that all workloads share. None: they
    differ.
    """
    ratios: Bounds | None = None
    """The lowest and the highest ratio of its workloads."""
    seconds: Bounds | None = None
    """The shortest and the longest start; None in all other classes."""
    worst: WorkloadName | None = None
    """The workload with the highest ratio."""
    worst_status: Status | None = None
    cells: Count = 0
    undecided: Count = 0


class OpenCell(Struct, frozen=True, kw_only=True):
    """A cell without a verdict, and what would settle it."""

    target: TargetName
    workload: WorkloadName
    metric: str = "time"
    excluded: tuple[Status, ...] = ()
    """The outcomes that its interval excludes."""
    command: str = ""
    """The command that would settle it, with its time; empty: no longer run would."""
    sentence: str = ""


class Answers(Struct, frozen=True, kw_only=True):
    """The answers that a person reads first."""

    sentences: tuple[str, ...] = ()
    """The headline, a sentence for each question, without the remarks."""
    overview: tuple[OverviewEntry, ...] = ()
    open_cells: tuple[OpenCell, ...] = ()
    seconds_per_block: Amount | None = None
    """Of the last blocks of the run."""


class ParityDifference(Struct, frozen=True, kw_only=True):
    """A difference between native and a target other than the isolation."""

    label: str
    native: str
    target: str


class TargetSummary(Struct, frozen=True, kw_only=True):
    """A target of the run; where it has no numbers, `reason` and `hint` say why."""

    name: TargetName
    technology: Technology = field(name="class")
    asked: bool = False
    left_out: bool = False
    variation_of: TargetName | None = None
    status: TargetStatus
    version: str | None = None
    reason: str | None = None
    hint: str | None = None
    evidence: dict[str, str] = field(default_factory=dict)
    """How each fact compares with the host's: "same", "unlike" or "unknown"."""
    expectations: tuple[CheckedExpectation, ...] = field(default=(), name="promises")
    limits: tuple[LimitCheck, ...] = ()
    facts: tuple[Evidence, ...] = ()
    parity: tuple[ParityDifference, ...] = ()
    starts: dict[str, str] = field(default_factory=dict)

    @property
    def measured(self) -> bool:
        """Whether the target has numbers."""
        return self.status is TargetStatus.MEASURED


class CellSummary(Struct, frozen=True, kw_only=True):
    """One metric of one target at one workload.

    Times are in seconds for one operation or one start. Other metrics are in their unit for one
    visit.
    """

    target: TargetName
    workload: WorkloadName
    group: str = field(name="class")
    metric: str = "time"
    unit: str = "seconds"
    value: Amount | None = None
    """The median over the visits of the target."""
    reference: Amount | None = None
    """The median over the visits of native in the same blocks."""
    ratio: Positive | None = None
    """Target over native; where higher is better, native over target. Above 1 is worse."""
    interval: Bounds | None = None
    level: Positive = 0.97
    equivalence: Bounds | None = None
    p_equivalence: Amount | None = None
    p_equivalence_together: Amount | None = None
    """`p_equivalence`, adjusted for all cells of the run (Holm 1979)."""
    method: str | None = None
    blocks: Count = 0
    sessions: Count | None = None
    visits: Count = 0
    status: Status = field(default=Status.INCONCLUSIVE, name="standing")
    doubts: tuple[str, ...] = ()
    doubt_codes: tuple[str, ...] = ()
    operation: str = ""
    clock: str = ""
    median_bounds: tuple[Amount, Amount] | None = None
    p95: Amount | None = None
    p99: Amount | None = None
    """Quantiles of the single values of the run. None: there are too few values."""
    maximum: Amount | None = None
    outlying_blocks: Count | None = None
    blocks_needed: Count | None = None
    log_ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the intervals. ValueError: one ends below its beginning."""
        check_order(self.interval, self.equivalence, self.median_bounds)


class ClassMeanSummary(Struct, frozen=True, kw_only=True):
    """A class of workloads at one target: the geometric mean of its ratios, block by block."""

    group: str = field(name="class")
    target: TargetName
    workloads: tuple[WorkloadName, ...] = ()
    lacking: tuple[WorkloadName, ...] = ()
    ratio: Positive | None = None
    interval: Bounds | None = None
    level: Positive = 0.97
    equivalence: Bounds | None = None
    p_equivalence: Amount | None = None
    blocks: Count = 0
    sessions: Count | None = None
    noise: Amount | None = None
    status: Status | None = field(default=None, name="standing")
    doubts: tuple[str, ...] = ()
    doubt_codes: tuple[str, ...] = ()
    blocks_needed: Count | None = None
    unlike: tuple[WorkloadName, ...] = ()
    log_ratios: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check the intervals. ValueError: one ends below its beginning."""
        check_order(self.interval, self.equivalence)


class VariationSummary(Struct, frozen=True, kw_only=True):
    """The effect of one option of a target at one workload."""

    target: TargetName
    base: TargetName
    option: str
    value: str
    workload: WorkloadName
    metric: str = "time"
    effect: Positive
    """The unchanged target over the target with the option changed; above 1, the option costs."""
    interval: Bounds
    level: Positive = 0.97
    status: Status = field(name="standing")
    share: float | None = None
    """The share of the overhead over native that the option explains; None: no overhead."""
    share_interval: tuple[float | None, float | None] | None = None
    """None as an end: the interval is open on that side."""
    blocks: Count = 0
    sentence: str = ""

    def __post_init__(self) -> None:
        """Check the intervals. ValueError: one ends below its beginning."""
        check_order(self.interval)


class Phase(Struct, frozen=True, kw_only=True):
    """A phase of a start, and its time in seconds from the beginning of the start."""

    name: str
    seconds: float


class StartPhases(Struct, frozen=True, kw_only=True):
    """The phases of one kind of start of one target, in order."""

    target: TargetName
    workload: WorkloadName
    phases: tuple[Phase, ...] = ()
    channel: float | None = None
    """The time of a command that executes nothing in an open session, in seconds: see `Channel`."""


class NullSpawn(Struct, frozen=True, kw_only=True):
    """The start of the smallest program, next to native's start; medians in seconds."""

    workload: WorkloadName
    seconds: Amount
    native: Amount
    starts: Count = 0
    spawner: str | None = None


class WarmupSummary(Struct, frozen=True, kw_only=True):
    """The passes of the visits of a cell, in order: warm-up passes first, then timed ones."""

    target: TargetName
    workload: WorkloadName
    warmups: Count
    timed: Count
    visits: Count = 0
    passes: tuple[float | None, ...] = ()
    """Each pass over the median of the timed passes of its visit; the median over visits."""
    late: Count = 0
    """How many of the first timed passes are slower than those after them."""


class GapSummary(Struct, frozen=True, kw_only=True):
    """Why a cell has no number. With an empty workload: why a whole target has none."""

    target: TargetName
    workload: WorkloadName
    cause: Cause
    detail: str = ""
    hint: str = ""
    metric: str = ""
    """The one metric that is lacking; empty: the whole cell."""
    times: Count = 1


class PublishedFigure(Struct, frozen=True, kw_only=True):
    """A figure that others have published."""

    subject: str
    measured: str
    figure: str
    source: str
    conditions: str = ""
    opened: bool = False
    """Whether the source itself was read; otherwise a later text cites it."""


class ClaimResult(Struct, frozen=True, kw_only=True):
    """A claim, and what this run shows about it."""

    id: str
    status: ClaimStatus = field(name="standing")
    sentence: str = ""
    quote: str = ""
    kind: ClaimKind | None = None
    axes: dict[str, ClaimStatus] = field(default_factory=dict)
    """The status in each class of workloads."""
    change: str = ""
    """What would change the status."""
    origin: str = ""
    """The name of the file with the claim."""
    is_documents: bool = field(default=False, name="documents")
    """Whether it is a sentence of the documents, and not the user's own claim."""
    published: tuple[PublishedFigure, ...] = ()


class Summary(Struct, frozen=True, kw_only=True):
    """The content of summary.json."""

    schema_version: int = FORMAT
    run: RunSummary = field(default_factory=RunSummary)
    answers: Answers = field(default_factory=Answers)
    """Empty in runs of versions that only had `run.headline`."""
    workloads: tuple[WorkloadEntry, ...] = ()
    targets: tuple[TargetSummary, ...] = ()
    cells: tuple[CellSummary, ...] = ()
    class_means: tuple[ClassMeanSummary, ...] = field(default=(), name="suites")
    variations: tuple[VariationSummary, ...] = ()
    start_phases: tuple[StartPhases, ...] = field(default=(), name="ladders")
    null_spawns: tuple[NullSpawn, ...] = ()
    """Empty in runs of versions without null spawns."""
    warmup_profiles: tuple[WarmupSummary, ...] = field(default=(), name="courses")
    gaps: tuple[GapSummary, ...] = ()
    claims: tuple[ClaimResult, ...] = ()
    history: History | None = None
    """How the run compares with the runs before it; None: it was not compared."""

    def redacted(self) -> "Summary":
        """Return the summary without secrets, and without names where these are left out."""
        return redaction.plain(self)

    def with_texts(self, change: Callable[[str], str]) -> "Summary":
        """Return the summary with `change` applied to each text.

        `change` must leave the values of enumerations ("near-native") as they are.
        """
        return msgspec.convert(_changed(msgspec.to_builtins(self), change), Summary)


def _changed(value: Any, change: Callable[[str], str]) -> Any:  # noqa: ANN401 - plain data
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {key: _changed(each, change) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(each, change) for each in value]
    return value
