"""Access to a summary by name: cells by target and workload, headings, gaps."""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from isobench.model import FEW_CODES, TIME, Metric, Status, Technology
from isobench.model.wording import level_text, series_text
from isobench.report.sections.figures import amount_text, interval_text, ratio_text
from isobench.report.sections.marks import MARKS, Mark, of_metric
from isobench.storage.schema import (
    Bounds,
    CellSummary,
    ClaimResult,
    ClassMeanSummary,
    GapSummary,
    RunSummary,
    Summary,
    TargetSummary,
    WarmupSummary,
)
from isobench.workloads import classes

_T = TypeVar("_T")
START_CLASS: Final = classes.START_UP
REFERENCE: Final = "native"
_NARROW: Final = 0.1
"""An interval with a smaller half width, as a share of the ratio, justifies a third digit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """A target as the heading of a column or row."""

    name: str
    technology: str
    control: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """A row of figures: the time of a workload, or another of its metrics."""

    name: str
    """Of the workload; of another metric with that: "app.pages: faults"."""
    group: str
    """The class of the workload."""
    # A number and not the name: names of the user's own workloads need not be valid ids of HTML.
    anchor: str
    summary: str
    operation: str
    """What one value is the time of."""
    metric: Metric = TIME

    @property
    def label(self) -> str:
        """Its name, with the unit of any metric but time."""
        return self.name if self.metric.is_time else f"{self.name} ({self.metric.unit.in_answers})"


@dataclass(frozen=True, slots=True)
class Figure:
    """The ratio to native of a cell, or of the mean of a class, with its texts and its mark."""

    data: CellSummary | ClassMeanSummary

    @property
    def target(self) -> str:
        """The target."""
        return self.data.target

    @property
    def place(self) -> str:
        """The row of the cell: its workload, with the metric if that is not time. For a mean, the
        class.
        """
        if isinstance(self.data, CellSummary):
            return series_text(self.data.workload, self.data.metric)
        return self.data.group

    @property
    def row(self) -> str:
        """The name of its row: of a mean "cpu: mean"."""
        return self.place if isinstance(self.data, CellSummary) else mean_of(self.data.group)

    @property
    def is_time(self) -> bool:
        """Whether it is about time; means always are."""
        return not isinstance(self.data, CellSummary) or self.data.metric == TIME.name

    @property
    def group(self) -> str:
        """The class of workloads."""
        return self.data.group

    @property
    def value(self) -> float | None:
        """Seconds per operation, or the value of another metric; None for a mean."""
        return self.data.value if isinstance(self.data, CellSummary) else None

    @property
    def reference(self) -> float | None:
        """Native's value; None for a mean."""
        return self.data.reference if isinstance(self.data, CellSummary) else None

    @property
    def noise(self) -> float | None:
        """The noise floor of a mean. None for a cell: its workload has one."""
        return None if isinstance(self.data, CellSummary) else self.data.noise

    @property
    def ratio(self) -> float | None:
        """Time over native; of any metric, above 1 is worse."""
        return self.data.ratio

    @property
    def bounds(self) -> Bounds | None:
        """The ends of the interval of the ratio."""
        return self.data.interval

    @property
    def digits(self) -> int:
        """The significant digits of a time, two or three."""
        # As many as the interval justifies, and two even for a wide one: 25.5 ms would be "30 ms".
        if self.bounds is None or not self.ratio:
            return 3
        half = (self.bounds[1] - self.bounds[0]) / 2 / self.ratio
        return 3 if half < _NARROW else 2

    @property
    def mark(self) -> Mark:
        """The mark of the verdict."""
        # "Too few blocks" has a mark of its own. It is what a short run shows everywhere, and must
        # not look like evidence against a cell.
        if self.data.status is Status.UNPROVEN and FEW_CODES.intersection(self.data.doubt_codes):
            return MARKS["few"]
        mark = MARKS[self.data.status or Status.INCONCLUSIVE]
        return mark if self.is_time else of_metric(mark)

    @property
    def value_text(self) -> str:
        """The value with its unit; nothing for a mean."""
        if self.value is None or not isinstance(self.data, CellSummary):
            return ""
        return amount_text(self.value, self.data.unit, self.digits)

    @property
    def reference_text(self) -> str:
        """Native's value in the same blocks, with its unit; nothing for a mean."""
        if not isinstance(self.data, CellSummary):
            return ""
        # Beside native's own time, which has three: "110" there would read as another "109".
        return amount_text(self.data.reference, self.data.unit, max(3, self.digits))

    @property
    def ratio_text(self) -> str:
        """The ratio with the digits that its interval justifies, or a dash."""
        return ratio_text(self.ratio, self.bounds)

    @property
    def interval_text(self) -> str:
        """The interval with as many decimals as the ratio, and its level where that is not the
        usual one; empty where there is none.
        """
        if self.ratio is None or self.bounds is None:
            return ""
        return interval_text(self.bounds, self.ratio) + level_text(self.data.level)


def _permalink(target: str, row: str) -> str:
    """Return an anchor from names, which may have any characters."""
    return "cell-" + re.sub(r"[^A-Za-z0-9.]+", "-", f"{target}-{row}")


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A summary, and its entries by name."""

    summary: Summary
    workloads: tuple[Workload, ...]
    """Each with its time; the rows of their other metrics are `series`."""
    series: Mapping[str, tuple[Workload, ...]]
    """The rows of all other metrics, by workload."""
    cells: Mapping[tuple[str, str], Figure]
    """By target and row: a workload, or one of its other metrics."""
    class_means: Mapping[tuple[str, str], Figure]
    """By target and class; only those with a mean."""
    claims: Mapping[str, ClaimResult]

    @property
    def run(self) -> RunSummary:
        """The entries about the whole run."""
        return self.summary.run

    @property
    def targets(self) -> tuple[TargetSummary, ...]:
        """The targets, in the order of the run."""
        return self.summary.targets

    @functools.cached_property
    def noise(self) -> dict[str, float]:
        """The known noise floors, by row, as shares."""
        floors = self.run.noise | {
            series_text(workload, metric): floor
            for workload, own in self.run.metric_noise.items()
            for metric, floor in own.items()
        }
        return {name: floor for name, floor in floors.items() if floor is not None}

    @functools.cached_property
    def doubts(self) -> Mapping[str, tuple[Figure, ...]]:
        """The figures that each doubt is about, by its text."""
        found: dict[str, list[Figure]] = {}
        for figure in (*self.cells.values(), *self.class_means.values()):
            for doubt in figure.data.doubts:
                found.setdefault(doubt, []).append(figure)
        return {text: tuple(figures) for text, figures in found.items()}

    @functools.cached_property
    def doubt_anchors(self) -> Mapping[str, str]:
        """The anchors of the doubts about figures, by their texts."""
        return {text: f"doubt-{number}" for number, text in enumerate(self.doubts, 1)}

    @functools.cached_property
    def _anchors(self) -> Mapping[tuple[str, str], str]:
        """The anchors of rows, by target and row: the same in all runs with such a cell."""
        found: dict[tuple[str, str], str] = {}
        taken: set[str] = set()
        for number, heading in enumerate(self.columns(), 1):
            for group, workloads in self.groups():
                for row in self.rows(workloads):
                    # The starts of a target share a row.
                    what = "starts" if group == START_CLASS else row.name
                    found[heading.name, row.name] = _permalink(heading.name, what)
                found[heading.name, mean_of(group)] = _permalink(heading.name, mean_of(group))
            mine = {key: anchor for key, anchor in found.items() if key[0] == heading.name}
            # Two names may differ in signs alone.
            if taken & {*mine.values()}:
                found |= {key: f"{anchor}-{number}" for key, anchor in mine.items()}
            taken |= {*mine.values()}
        return found

    def anchor_of(self, target: str, row: str) -> str:
        """Return the anchor of the row of a target in a plot; empty where there is none."""
        return self._anchors.get((target, row), "")

    # A run may have thousands of cells and of gaps: each is looked for once, not for each cell.

    @functools.cached_property
    def _gaps(self) -> Mapping[tuple[str, str], GapSummary]:
        """The first gap of each target and row."""
        return {(gap.target, row_of(gap)): gap for gap in reversed(self.summary.gaps)}

    @functools.cached_property
    def _gaps_of_targets(self) -> Mapping[str, GapSummary]:
        """The first gap of each target."""
        return {gap.target: gap for gap in reversed(self.summary.gaps)}

    def gap(self, target: str, row: str) -> GapSummary | None:
        """Return the gap of a cell, or else of its whole target; None where there is none."""
        workload, *_ = row.split(": ")
        found = (self._gaps.get((target, name)) for name in (row, workload, ""))
        return next((gap for gap in found if gap is not None), None)

    def gap_of_target(self, target: str) -> GapSummary | None:
        """Return the gap of a whole target, or else its first one; None where there is none."""
        return self._gaps.get((target, "")) or self._gaps_of_targets.get(target)

    def columns(self) -> tuple[Heading, ...]:
        """Return the targets with numbers, in the order of the run; the control last."""
        return self._columns

    @functools.cached_property
    def _columns(self) -> tuple[Heading, ...]:
        names = {cell.target for cell in self.cells.values()}
        listed = [heading_of(one) for one in self.targets if one.name in names]
        # The control has cells and is not in the list of targets.
        unlisted = sorted(names - {heading.name for heading in listed})
        headings = [*listed, *(_heading(name, "") for name in unlisted)]
        headings = [heading for heading in headings if heading.name != REFERENCE]
        return tuple(sorted(headings, key=lambda heading: heading.control))

    def reference(self, row: str) -> float | None:
        """Return native's value in the cell of the row with the most blocks; None: unknown."""
        return self._references.get(row)

    @functools.cached_property
    def _references(self) -> Mapping[str, float | None]:
        found = {}
        for row, cells in self.cells_by_row.items():
            known = (cell for cell in cells if cell.reference)
            most = max(known, key=lambda cell: cell.data.blocks, default=None)
            found[row] = most.reference if most else None
        return found

    @functools.cached_property
    def cells_by_row(self) -> Mapping[str, Sequence[Figure]]:
        """The cells of each row: of a workload, or of one of its other metrics."""
        return _grouped(self.cells.values(), lambda cell: cell.place)

    @functools.cached_property
    def cells_by_class(self) -> Mapping[str, Sequence[Figure]]:
        """The cells of each class of workloads that has any."""
        return _grouped(self.cells.values(), lambda cell: cell.group)

    @functools.cached_property
    def warmup_profiles(self) -> Mapping[str, Sequence[WarmupSummary]]:
        """The warm-up profiles of each workload."""
        return _grouped(self.summary.warmup_profiles, lambda one: one.workload)

    @functools.cached_property
    def averaged(self) -> frozenset[str]:
        """The classes that have a mean in some target."""
        return frozenset(mean.group for mean in self.class_means.values())

    def groups(self) -> tuple[tuple[str, tuple[Workload, ...]], ...]:
        """Return the classes with their workloads, in order; start-up is last."""
        ordered = sorted(self._classes.items(), key=lambda item: item[0] == START_CLASS)
        return tuple((group, tuple(workloads)) for group, workloads in ordered)

    @functools.cached_property
    def _classes(self) -> Mapping[str, Sequence[Workload]]:
        return _grouped(self.workloads, lambda workload: workload.group)

    def of_class(self, group: str) -> tuple[Workload, ...]:
        """Return the workloads of a class."""
        return tuple(self._classes.get(group, ()))

    def rows(self, workloads: Iterable[Workload]) -> tuple[Workload, ...]:
        """Return the rows of these workloads: of each its time, then its other metrics."""
        return tuple(
            row for workload in workloads for row in (workload, *self.series.get(workload.name, ()))
        )


def heading_of(target: TargetSummary) -> Heading:
    """Return the heading of a target."""
    return _heading(target.name, target.technology.heading)


def _heading(name: str, technology: str) -> Heading:
    control = is_control(name)
    return Heading(name=name, technology="A/A control" if control else technology, control=control)


def is_control(name: str) -> bool:
    """Return whether a target is the A/A control, native's second visit ("native#2")."""
    return name.startswith(f"{REFERENCE}#")


def native_heading() -> Heading:
    """Return the heading of native."""
    return _heading(REFERENCE, Technology.NATIVE.heading)


def mean_of(group: str) -> str:
    """Return the name of the mean of a class, next to the names of its workloads."""
    return f"{group}: mean"


def class_title(group: str) -> str:
    """Return the title of a class of workloads."""
    return classes.get(group).title or "Other"


def row_of(gap: GapSummary) -> str:
    """Return the row that a gap is in: a workload, or one of its other metrics."""
    return series_text(gap.workload, gap.metric or TIME.name)


def look_up(summary: Summary) -> Lookup:
    """Return access to a summary by name."""
    means = (mean for mean in summary.class_means if mean.ratio is not None)
    workloads, figures = _workloads(summary), [Figure(cell) for cell in summary.cells]
    return Lookup(
        summary=summary,
        workloads=workloads,
        series=_series(summary, workloads),
        cells={(figure.target, figure.place): figure for figure in figures},
        class_means={(mean.target, mean.group): Figure(mean) for mean in means},
        claims={claim.id: claim for claim in summary.claims},
    )


def _series(summary: Summary, workloads: Iterable[Workload]) -> dict[str, tuple[Workload, ...]]:
    """Return the rows of all metrics but time, by workload."""
    declared: dict[str, list[Metric]] = {
        one.name: [metric for metric in one.metrics if not metric.is_time]
        for one in summary.workloads
    }
    return {
        workload.name: tuple(_row_of_metric(workload, metric) for metric in declared[workload.name])
        for workload in workloads
        if declared.get(workload.name)
    }


def _row_of_metric(workload: Workload, metric: Metric) -> Workload:
    return replace(
        workload,
        name=series_text(workload.name, metric.name),
        anchor=f"{workload.anchor}-{metric.name}",
        summary=f"{metric.fact}, in {metric.unit.in_answers}: {metric.better} is better",
        metric=metric,
    )


def _grouped(every: Iterable[_T], key: Callable[[_T], str]) -> dict[str, list[_T]]:
    """Return items by a key, in their order."""
    found: dict[str, list[_T]] = {}
    for one in every:
        found.setdefault(key(one), []).append(one)
    return found


def _workloads(summary: Summary) -> tuple[Workload, ...]:
    """Return the workloads, sorted by class."""
    # A cell of a workload that is not listed still gets its row.
    known = {one.name: (one.group, one.summary, one.operation) for one in summary.workloads}
    for cell in summary.cells:
        known.setdefault(cell.workload, (cell.group, "", cell.operation))
    workloads: Sequence[Workload] = [
        Workload(
            name=name,
            group=group or name.partition(".")[0],
            anchor=f"workload-{index}",
            summary=about,
            operation=operation,
        )
        for index, (name, (group, about, operation)) in enumerate(known.items(), start=1)
    ]
    return tuple(sorted(workloads, key=lambda one: classes.rank(one.group)))
