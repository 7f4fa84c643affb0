"""The results of a comparison as types. `report.comparison` writes the text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from isobench.analysis.cells import LEVEL, loss_doubts
from isobench.comparison.compatibility import Difference
from isobench.model import TIME, Cause, Doubt, Interval, Metric
from isobench.model.units import TargetName, WorkloadName
from isobench.stats import Location
from isobench.storage.reader import Run

SEVERAL: Final = 2
"""From so many runs on a side, the unit is the run and not the block."""


class Mode(StrEnum):
    """What the two sides are."""

    RUNS = "runs"  # one run each
    HISTORIES = "histories"  # several runs on at least one side
    TARGETS = "targets"  # two targets of one run


class Status(StrEnum):
    """How HEAD compares with BASE in one cell."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    UNPROVEN = "unproven"


CHANGED: Final = frozenset({Status.REGRESSION, Status.IMPROVEMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonOptions:
    """What is compared, and how strictly. Shares are fractions: 0.05 is 5 %."""

    minimum_effect: float = 0.05
    """The smallest change that matters."""
    targets: tuple[str, ...] = ()
    """Only these targets; empty: all that both sides have."""
    workloads: tuple[str, ...] = ()
    """Only these workloads or classes of workloads; empty: all that both sides have."""
    anyway: bool = False
    """Compare different machines and programs too, with a warning."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One side of a cell: its ratio to native."""

    ratio: float | None
    """None where no block has a value of both the cell and native."""
    interval: Interval | None
    """None where `ratio` is the mean of several runs."""
    blocks: int
    """The blocks of all its runs."""
    runs: int
    noise: float | None
    """Its noise floor (0.012: 1.2 %): the median of its runs' floors. None: unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One cell of both sides: HEAD's ratio to native over BASE's. Above 1, HEAD is worse in the
    metric: slower, or larger.
    """

    target: TargetName
    workload: WorkloadName
    metric: Metric = TIME
    workload_class: str
    base: Figure
    head: Figure
    location: Location | None
    """ln(HEAD / BASE). None: too few blocks, or the cell is not comparable."""
    noise: float | None
    """The noise floor of the comparison. None: unknown."""
    p_adjusted: float = 1.0
    """The p value of "no difference" after Holm's correction for all cells."""
    status: Status = Status.UNPROVEN
    confirmed: bool | None = None
    """Whether new blocks show a regression or an improvement again. None: there are no such blocks.
    Where both sides have several runs, these confirm the change.
    """
    doubts: tuple[Doubt, ...] = ()
    against: Mapping[Status, Doubt] = field(default_factory=dict)
    """Doubts that matter for one status each: it would be none."""

    @property
    def cell(self) -> tuple[TargetName, WorkloadName, str]:
        """The target, the workload and the name of the metric."""
        return self.target, self.workload, self.metric.name

    @property
    def ratio(self) -> float | None:
        """HEAD's ratio to native over BASE's."""
        return None if self.location is None else math.exp(self.location.mean)

    @property
    def suspected(self) -> bool:
        """Whether it is a regression or an improvement that was seen in one run only."""
        return self.status in CHANGED and self.confirmed is None

    @property
    def is_exact(self) -> bool:
        """Whether every block gave the same ratio of counted values: it has no error to test."""
        no_error = self.location is not None and self.location.error == 0
        return no_error and not self.metric.is_clocked

    @property
    def p_difference(self) -> float:
        """The p value of "no difference"; an exact one differs or does not. 1: not comparable."""
        if self.location is None:
            return 1.0
        if self.is_exact:
            return 0.0 if abs(self.location.mean) > self.location.shared else 1.0
        return self.location.p_difference

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Return the interval of the change."""
        return None if self.location is None else self.location.interval(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Absence:
    """A cell that only one side has."""

    target: TargetName
    workload: WorkloadName
    metric: str = TIME.name
    lacking: str
    """The side that does not have it: "base" or "head"."""
    cause: Cause | None
    """Why, from the first gap of that side. None: it has no gap."""
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NativeChange:
    """A workload in which native's own time differs: HEAD's median over BASE's."""

    workload: WorkloadName
    ratio: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunIdentity:
    """Identifies a run, and says what it lost. Values that run.json does not have are None."""

    id: str | None
    started: str | None
    machine: str | None
    tool_version: str | None
    path: str
    losses: tuple[str, ...] = ()
    """Which of its records are missing or damaged, in sentences."""

    @classmethod
    def of(cls, run: Run) -> Self:
        """Return the identity of a run."""
        metadata = run.metadata
        return cls(
            id=metadata.id,
            started=metadata.started,
            machine=metadata.machine,
            tool_version=metadata.tool_version,
            path=str(run.path),
            losses=tuple(f"{doubt.detail}: {doubt.advice}" for doubt in loss_doubts(run)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One side of a comparison."""

    target: TargetName | None
    """The target, where two targets of one run are compared."""
    runs: tuple[RunIdentity, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The whole result of a comparison."""

    mode: Mode
    base: Side
    head: Side
    confirmation: RunIdentity | None
    """The further run of HEAD that must show every change again."""
    options: ComparisonOptions
    differences: tuple[Difference, ...]
    """What differs in machines, tools and targets."""
    native_changes: tuple[NativeChange, ...]
    """The largest change first."""
    changes: tuple[Change, ...]
    absences: tuple[Absence, ...]
