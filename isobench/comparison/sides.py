"""The analysed runs of each side: the cells that both have, and checks that reject runs."""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Self

from isobench.analysis.cells import Analysis
from isobench.comparison import compatibility
from isobench.comparison.compatibility import Difference, Gravity
from isobench.comparison.result import (
    Absence,
    ComparisonOptions,
    NativeChange,
    RunIdentity,
    Side,
)
from isobench.model import TIME, Gap, Metric, commands
from isobench.model.errors import IncomparableError, UsageError
from isobench.model.plan import second
from isobench.model.units import TargetName, WorkloadName
from isobench.stats import Location
from isobench.storage.reader import Run


class Cell(NamedTuple):
    """One metric of a workload in a target."""

    target: TargetName
    workload: WorkloadName
    metric: str = TIME.name


# Native's times are not interleaved with those of another run, so that small differences are
# normal.
_NATIVE_CHANGED: Final = math.log(1.05)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnalysedSide:
    """The runs of one side."""

    runs: tuple[Analysis, ...]
    target: TargetName | None = None
    """The target that this side is, where two targets of one run are compared."""

    @classmethod
    def of(cls, runs: Iterable[Run], target: TargetName | None = None) -> Self:
        """Analyse the runs of a side."""
        return cls(runs=tuple(Analysis(run) for run in runs), target=target)

    @property
    def identity(self) -> Side:
        """The side as the result names it."""
        return Side(
            target=self.target, runs=tuple(RunIdentity.of(analysis.run) for analysis in self.runs)
        )

    @property
    def plain_runs(self) -> list[Run]:
        """The runs as they were read."""
        return [analysis.run for analysis in self.runs]

    def cells(self) -> dict[Cell, None]:
        """Return the cells in which any run has a value, native and its control left out."""
        # A dict, since a set does not keep the order of the report.
        return {
            Cell(target, workload, metric): None
            for analysis in self.runs
            for metric in analysis.metrics
            for workload in analysis.of(metric).workloads
            for target in analysis.targets
            if target not in (analysis.reference, second(analysis.reference))
            and analysis.of(metric).column(workload, target) is not None
        }

    def by_metric(self, metric: str) -> tuple[Analysis, ...]:
        """Return the analysis of one metric of each run that has it."""
        return tuple(run.of(metric) for run in self.runs if metric in run.metrics)

    def measured(self, cell: Cell) -> Metric:
        """Return the metric of a cell, from the first run that has it."""
        return next(
            analysis.measured(cell.workload)
            for analysis in self.by_metric(cell.metric)
            if cell.workload in analysis.workloads
        )

    def locations(self, cell: Cell) -> list[Location]:
        """Return the mean log-ratio to native of each run that has one."""
        target, workload, metric = cell
        found = (analysis.location(workload, target) for analysis in self.by_metric(metric))
        return [location for location in found if location is not None]

    def noise_floor(self, cell: Cell) -> float | None:
        """Return the noise floor of a cell, the median over its runs."""
        # The median, so that one noisy run does not hide the changes of a whole history.
        target, workload, metric = cell
        floors = [
            floor
            for analysis in self.by_metric(metric)
            if analysis.location(workload, target) is not None
            and (floor := analysis.noise.get(workload)) is not None
        ]
        return statistics.median(floors) if floors else None


# ---- which runs are refused


def refuse_duplicates(runs: Sequence[Run]) -> None:
    """Raise UsageError where one run is named twice."""
    seen: dict[object, Run] = {}
    for run in runs:
        # A copy of a run in another folder has the same id.
        key = RunIdentity.of(run).id or run.path.resolve()
        if key in seen:
            other = "" if seen[key].path == run.path else f" ({seen[key].path} and {run.path})"
            raise UsageError(
                f"run {key} is given twice{other}: it would be compared with itself",
                hint="name two different runs; to compare two targets of one run: isobench compare"
                " RUN --targets A,B",
            )
        seen[key] = run


def refuse_empty(side: AnalysedSide) -> None:
    """Raise UsageError where a run has measured nothing."""
    for analysis in side.runs:
        if analysis.run.samples.empty or not analysis.blocks:
            raise UsageError(
                f"{analysis.run.path} has no block with a value: it ended before it measured",
                hint=f"{analysis.run.way_on}; or name another run",
            )


def refuse_unknown_targets(analysis: Analysis, names: Iterable[TargetName]) -> None:
    """Raise UsageError where a run has no values of a target."""
    for name in names:
        if name not in analysis.targets:
            raise UsageError(
                f"{analysis.run.path} has no values of {name!r}",
                hint=f"it has: {', '.join(analysis.targets)}",
            )


def refuse_reference(analysis: Analysis, names: Sequence[TargetName]) -> None:
    """Raise UsageError where the reference is one of the targets to compare, or both are one."""
    # What is compared are ratios to the reference. Its own is 1 in each block, by definition.
    if analysis.reference in names:
        raise UsageError(
            f"{analysis.reference} is no target to compare: all ratios of a run are to"
            f" {analysis.reference} already",
            hint=f"isobench report {commands.path(analysis.run.path)} compares each target with"
            f" {analysis.reference}",
        )
    if len(set(names)) < len(names):
        raise UsageError(
            f"{names[0]} is given twice: it would be compared with itself",
            hint="name two different targets of the run",
        )


def refuse_other_processors(found: Iterable[Difference], options: ComparisonOptions) -> None:
    """Raise IncomparableError where processors differ, unless `anyway` is set."""
    refused = [difference for difference in found if difference.gravity is Gravity.REFUSED]
    if refused and not options.anyway:
        raise IncomparableError(
            "the runs are of different processors:"
            f" {'; '.join(compatibility.descriptions(refused))}",
            hint="--anyway compares them and keeps the warning; a fair comparison measures both"
            " sides on one machine",
        )


# ---- which cells both sides have


def is_chosen_workload(workload: WorkloadName, options: ComparisonOptions) -> bool:
    """Return whether a workload was selected, by name or by class, or nothing was."""
    names = {workload, workload.partition(".")[0]}
    return not options.workloads or bool(names & set(options.workloads))


def _is_chosen(cell: Cell, options: ComparisonOptions) -> bool:
    return (not options.targets or cell.target in options.targets) and is_chosen_workload(
        cell.workload, options
    )


def common_cells(base: AnalysedSide, head: AnalysedSide, options: ComparisonOptions) -> list[Cell]:
    """Return the chosen cells that both sides have; IncomparableError: there is none."""
    first, other = base.cells(), head.cells()
    common = [cell for cell in first if cell in other and _is_chosen(cell, options)]
    if common:
        return common
    described = [
        f"{name} has {', '.join(dict.fromkeys(cell.target for cell in cells)) or 'only native'}"
        f" ({', '.join(dict.fromkeys(cell.workload for cell in cells)) or 'no workload'})"
        for name, cells in (("BASE", first), ("HEAD", other))
    ]
    chosen = " among the selected ones" if options.targets or options.workloads else ""
    raise IncomparableError(
        f"no target and workload in common{chosen}: {'; '.join(described)}",
        hint="measure both with the same --targets and --workloads",
    )


def absences(
    base: AnalysedSide, head: AnalysedSide, options: ComparisonOptions
) -> Iterator[Absence]:
    """Yield the chosen cells that only one side has, with the first gap of the other."""
    base_cells, head_cells = base.cells(), head.cells()
    for has, lacks, name, side in (
        (base_cells, head_cells, "head", head),
        (head_cells, base_cells, "base", base),
    ):
        gaps = [gap for run in side.plain_runs for gap in run.gaps]
        first = {(gap.target, gap.workload): gap for gap in reversed(gaps)}
        for cell in has:
            if cell not in lacks and _is_chosen(cell, options):
                yield _absence(cell, name, first.get((cell.target, cell.workload)))


def _absence(cell: Cell, name: str, gap: Gap | None) -> Absence:
    return Absence(
        target=cell.target,
        workload=cell.workload,
        metric=cell.metric,
        lacking=name,
        cause=gap.cause if gap else None,
        detail=gap.detail if gap else "",
    )


# ---- native itself


def native_changes(base: AnalysedSide, head: AnalysedSide) -> list[NativeChange]:
    """Return the workloads in which native's own time changed by more than 5 %, the largest change
    first. The likely cause is a change of the machine.
    """
    found = []
    for workload in base.runs[0].workloads:
        before, after = _native_medians(base, workload), _native_medians(head, workload)
        if before and after:
            ratio = statistics.median(after) / statistics.median(before)
            if abs(math.log(ratio)) > _NATIVE_CHANGED:
                found.append(NativeChange(workload=workload, ratio=ratio))
    return sorted(found, key=lambda change: -abs(math.log(change.ratio)))


def _native_medians(side: AnalysedSide, workload: WorkloadName) -> list[float]:
    """Return native's median of each run that has values of it; one of 0 has no ratio."""
    columns = (analysis.column(workload, analysis.reference) for analysis in side.runs)
    values = (column.dropna() for column in columns if column is not None)
    medians = [float(column.median()) for column in values if not column.empty]
    return [median for median in medians if median > 0]
