"""Two runs, two histories of runs, or two targets of one run, compared with each other.

Runs are not interleaved, so only ratios to native are compared, never times. One run does not show
how much runs differ. With one run on each side the noise floors of both stand in for that; with
several, the spread of the runs is used (`stats.between_runs`, `stats.between_histories`). Two
targets of one run are paired block by block.

A change is a regression where the interval's bound lies beyond the smallest effect that matters, it
is significant after Holm's correction for all cells, and it is larger than the noise floor. It is
suspected until new blocks show it again (`gate`).
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench import model, stats
from isobench.analysis import verdict
from isobench.analysis.cells import LEVEL, Analysis
from isobench.comparison import compatibility, gate, sides
from isobench.comparison.result import (
    SEVERAL,
    Change,
    Comparison,
    ComparisonOptions,
    Figure,
    Mode,
    RunIdentity,
    Status,
)
from isobench.comparison.sides import AnalysedSide, Cell
from isobench.evidence import doubts
from isobench.evidence.host_time import HostCheck
from isobench.model import Doubt, Metric
from isobench.model.errors import IncomparableError
from isobench.model.units import LARGEST_EXPONENT, TargetName, WorkloadName
from isobench.model.wording import percent_text
from isobench.stats import Location
from isobench.storage.reader import Run

ALPHA: Final = 0.05
_FEWEST_RUNS: Final = 4
"""Of both sides together, where the run is the unit. With three, Student's t has one degree of
freedom, and an interval of 97 % is twenty times as wide as the runs differ.
"""
_UNBALANCED: Final = 2
_REFUSING: Final = frozenset({"unlike", "too-few-runs"})
"""Doubts that leave a cell without a figure for its change."""
_RUN_IS_UNIT: Final = frozenset({"quick"})
"""Doubts that do not matter where runs, and not their blocks, are the unit."""


def compare(
    base: Sequence[Run],
    head: Sequence[Run],
    options: ComparisonOptions,
    *,
    confirmation: Run | None = None,
) -> Comparison:
    """Return how HEAD's ratios to native changed from BASE's.

    `confirmation` is a further run of HEAD, which must show every change again. UsageError: a run
    is named twice, or has measured nothing. IncomparableError: the sides have no cell in common, or
    their processors differ and `anyway` is not set. A cell whose programs differ gets no change and
    a doubt.
    """
    further = [] if confirmation is None else [confirmation]
    sides.refuse_duplicates([*base, *head, *further])
    differences = compatibility.differences(base, [*head, *further])
    sides.refuse_other_processors(differences, options)
    both = AnalysedSide.of(base), AnalysedSide.of(head)
    again = AnalysedSide.of(further)
    for side in (*both, again):
        sides.refuse_empty(side)
    cells = sides.common_cells(*both, options)
    changes = _judged([_between_sides(*both, cell, options) for cell in cells], options)
    changes = gate.confirmed_by_history(changes)
    if confirmation is not None:
        present = again.cells()
        suspects = [Cell(*one.cell) for one in changes if one.suspected and one.cell in present]
        fresh = [_between_sides(both[0], again, cell, options) for cell in suspects]
        changes = gate.confirmed_by_run(changes, _judged(fresh, options))
    several = max(len(base), len(head)) >= SEVERAL
    return Comparison(
        mode=Mode.HISTORIES if several else Mode.RUNS,
        base=both[0].identity,
        head=both[1].identity,
        confirmation=None if confirmation is None else RunIdentity.of(confirmation),
        options=options,
        differences=differences,
        native_changes=tuple(sides.native_changes(*both)),
        changes=tuple(changes),
        absences=tuple(sides.absences(*both, options)),
    )


def compare_targets(
    run: Run,
    base: TargetName,
    head: TargetName,
    options: ComparisonOptions,
    *,
    confirmation: Run | None = None,
) -> Comparison:
    """Return how one target of a run differs from another.

    Both were interleaved: what all targets of a run share cancels out in each pair of visits.
    UsageError: a target is not in the run, is its reference, or is both of them. IncomparableError:
    the two have no workload in common.
    """
    further = [] if confirmation is None else [confirmation]
    sides.refuse_duplicates([run, *further])
    differences = compatibility.differences([run], further)
    sides.refuse_other_processors(differences, options)
    both = AnalysedSide.of([run], base), AnalysedSide.of([run], head)
    again = AnalysedSide.of(further)
    for side in (both[0], again):
        sides.refuse_empty(side)
        for analysis in side.runs:
            sides.refuse_unknown_targets(analysis, (base, head))
            sides.refuse_reference(analysis, (base, head))
    analysis = both[0].runs[0]
    cells = [
        (name, metric)
        for metric in analysis.metrics
        for name in analysis.of(metric).workloads
        if sides.is_chosen_workload(name, options)
    ]
    changes = _judged(_between_targets(analysis, cells, base, head, options), options)
    if not changes:
        raise IncomparableError(
            f"{base} and {head} have no workload in common in {run.path}",
            hint=f"isobench run --targets {base},{head}",
        )
    if confirmation is not None:
        suspected = [(one.workload, one.metric.name) for one in changes if one.suspected]
        fresh = _between_targets(again.runs[0], suspected, base, head, options)
        changes = gate.confirmed_by_run(changes, _judged(fresh, options))
    return Comparison(
        mode=Mode.TARGETS,
        base=both[0].identity,
        head=both[1].identity,
        confirmation=None if confirmation is None else RunIdentity.of(confirmation),
        options=options,
        differences=differences,
        native_changes=(),
        changes=tuple(changes),
        absences=(),
    )


# ---- one cell


def _between_sides(
    base: AnalysedSide, head: AnalysedSide, cell: Cell, options: ComparisonOptions
) -> Change:
    """Return the change of a cell, not yet judged."""
    target, workload, _ = cell
    metric = base.measured(cell)
    located = base.locations(cell), head.locations(cell)
    several = max(map(len, located)) >= SEVERAL
    floors = base.noise_floor(cell), head.noise_floor(cell)
    doubts = [
        *_obstacles(base, cell, "BASE", several=several),
        *_obstacles(head, cell, "HEAD", several=several),
        *_differing_metric(base, head, cell),
        *_differing_work(base, head, cell, options),
    ]
    if _are_too_few(located):
        doubts.append(_too_few(*map(len, located)))
    refused = any(doubt.code in _REFUSING and doubt.blocks for doubt in doubts)
    return Change(
        target=target,
        workload=workload,
        metric=metric,
        workload_class=_class_of(base.runs[0], workload),
        base=_figure(base, cell, floors[0]),
        head=_figure(head, cell, floors[1]),
        location=None if refused else _between(*located, floors, metric),
        noise=_joint_noise(*floors),
        doubts=tuple(doubts),
        against={
            **_against(
                _around_median(base, cell),
                _around_median(head, cell),
                ("BASE", "HEAD"),
                options.minimum_effect,
            ),
            **_unseen((base, cell), (head, cell), ("BASE", "HEAD")),
        },
    )


def _between(
    base: Sequence[Location],
    head: Sequence[Location],
    floors: tuple[float | None, float | None],
    metric: Metric,
) -> Location | None:
    """Return ln(HEAD / BASE), or None where a side has no ratio to native."""
    if not base or not head:
        return None
    if max(len(base), len(head)) >= SEVERAL:
        return stats.between_histories(base, head)
    # With an unknown floor the change gets no verdict (`_judge`), so zero does no harm here.
    known = (floors[0] or 0.0, floors[1] or 0.0)
    return stats.between_runs(base[0], head[0], floors=known, counted=not metric.is_clocked)


def _are_too_few(located: Sequence[Sequence[Location]]) -> bool:
    """Return whether the runs of both sides together do not show how much runs differ."""
    sizes = [len(one) for one in located]
    return min(sizes) > 0 and max(sizes) >= SEVERAL and sum(sizes) < _FEWEST_RUNS


def _too_few(base: int, head: int) -> Doubt:
    return Doubt(
        code="too-few-runs",
        detail=f"too few runs: {base} and {head} do not show how much runs differ",
        advice=f"compare at least {_FEWEST_RUNS} runs, or one run with one",
        blocks=True,
    )


def _joint_noise(base: float | None, head: float | None) -> float | None:
    """Return the noise floor of the ratio of two sides with these floors."""
    if base is None or head is None:
        return None
    # Two runs are disturbed independently, so the squares of their errors are added.
    found = math.hypot(math.log1p(base), math.log1p(head))
    return math.expm1(min(found, LARGEST_EXPONENT))


def _class_of(analysis: Analysis, workload: WorkloadName) -> str:
    return analysis.classes.get(workload, workload.partition(".")[0])


def _figure(side: AnalysedSide, cell: Cell, noise: float | None) -> Figure:
    target, workload, metric = cell
    located = side.locations(cell)
    blocks = sum(analysis.log_ratios(workload, target).size for analysis in side.by_metric(metric))
    return Figure(
        ratio=math.exp(statistics.fmean(one.mean for one in located)) if located else None,
        interval=located[0].interval(LEVEL) if len(located) == 1 else None,
        blocks=int(blocks),
        runs=len(located),
        noise=noise,
    )


def _obstacles(side: AnalysedSide, cell: Cell, name: str, *, several: bool) -> Iterator[Doubt]:
    """Yield the doubts that rule out a verdict within a run already, each once."""
    target, workload, metric = cell
    found: dict[str, Doubt] = {}
    for analysis in side.by_metric(metric):
        analysed = analysis.cell(workload, target)
        for doubt in analysed.verdict.doubts if analysed is not None else ():
            # The change is compared with the noise floor, not with each side's margin.
            if doubt.blocks and doubt.code != "noise-floor":
                found.setdefault(doubt.code, doubt)
    for doubt in found.values():
        if not (several and doubt.code in _RUN_IS_UNIT):
            yield replace(doubt, detail=f"{name}: {doubt.detail}")


def _around_median(side: AnalysedSide, cell: Cell) -> NDArray[np.float64]:
    """Return the block log-ratios of a side's runs, each less the median of its run: (blocks,)."""
    target, workload, metric = cell
    found = [analysis.log_ratios(workload, target) for analysis in side.by_metric(metric)]
    return np.concatenate([*map(_less_median, found), np.zeros(0)])


def _less_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values - np.median(values) if values.size else values


def _against(
    base: NDArray[np.float64], head: NDArray[np.float64], names: tuple[str, str], effect: float
) -> Mapping[Status, Doubt]:
    """Return by status the doubt that a side has slow blocks, which the estimate leaves out.

    The log-ratios of each side are around their median, (blocks,). Stalls of the machine meet both
    sides: there is none where one has less than twice as much of them as the other.
    """
    sides = base, head
    slow = [stats.slow_blocks(side, math.log1p(effect)) for side in sides]
    # What they would add to the mean of all blocks.
    added = [own.sum() / max(1, side.size) for own, side in zip(slow, sides, strict=True)]
    place = int(added[1] > added[0])
    found = verdict.slow_doubt(
        slow[place],
        sides[place].size,
        than="the median",
        advice="find out what differs in these blocks: see the log-ratios of the runs",
    )
    if found is None or added[place] < _UNBALANCED * added[1 - place]:
        return {}
    doubt = replace(found, detail=f"{names[place]}: {found.detail}")
    # A regression stands, and so does an improvement on a BASE that is slow in some blocks.
    return dict.fromkeys((Status.SAME, Status.IMPROVEMENT)[: 1 + place], doubt)


def _unseen(
    base: tuple[AnalysedSide, Cell], head: tuple[AnalysedSide, Cell], names: tuple[str, str]
) -> Mapping[Status, Doubt]:
    """Return by status the doubt that the host does not see how fast one of two sides of these
    names is. That it has become slower is what its payload itself reports.
    """
    sides = ((head, names[1], Status.IMPROVEMENT), (base, names[0], Status.REGRESSION))
    return {
        each: doubts.of_hidden_work(f"{name}'s")
        for side, name, status in sides
        if _is_hidden(*side)
        for each in (Status.SAME, status)
    }


def _is_hidden(side: AnalysedSide, cell: Cell) -> bool:
    target, workload, metric = cell
    return any(analysis.is_hidden(workload, target) for analysis in side.by_metric(metric))


def _differing_metric(base: AnalysedSide, head: AnalysedSide, cell: Cell) -> Iterator[Doubt]:
    """Yield the doubt that the sides have two metrics of one name."""
    before, after = base.measured(cell), head.measured(cell)
    if before != after:
        yield Doubt(
            code="unlike",
            detail=f"unlike: {cell.metric} is not the same in both:"
            f" {_defined(before)}, and {_defined(after)}",
            advice="measure both with one workload.toml",
            blocks=True,
        )


def _defined(metric: Metric) -> str:
    return f"{metric.fact} in {metric.unit}, {metric.better} is better"


def _differing_work(
    base: AnalysedSide, head: AnalysedSide, cell: Cell, options: ComparisonOptions
) -> Iterator[Doubt]:
    """Yield doubts where the sides ran other programs, or iterations of another length."""
    target, workload, _ = cell
    runs = [*base.plain_runs, *head.plain_runs]
    program = compatibility.other_program(runs, workload, (base.runs[0].reference, target))
    if program:
        yield Doubt(
            code="unlike",
            detail=f"unlike: {program}",
            advice="measure both with one isobench and one compiler; --anyway compares it",
            blocks=not options.anyway,
        )
    work = compatibility.other_work(runs, workload)
    if work:
        yield Doubt(
            code="other-work",
            detail=work,
            advice="the same --min-time and --budget in both runs give iterations of one length",
        )


def _between_targets(
    analysis: Analysis,
    cells: Iterable[tuple[WorkloadName, str]],
    base: TargetName,
    head: TargetName,
    options: ComparisonOptions,
) -> list[Change]:
    """Return the changes between two targets of a run in each workload and metric of which both
    have values, not yet judged.
    """
    return [
        _between_target_cells(analysis.of(metric), workload, base, head, options)
        for workload, metric in cells
        if all(analysis.of(metric).cell(workload, name) is not None for name in (base, head))
    ]


def _between_target_cells(
    analysis: Analysis,
    workload: WorkloadName,
    base: TargetName,
    head: TargetName,
    options: ComparisonOptions,
) -> Change:
    side = AnalysedSide(runs=(analysis,))
    around = _less_median(analysis.log_ratios(workload, head, base))
    metric = analysis.measured(workload)
    paired = analysis.estimate(workload, head, reference=base)
    few = None if paired is None else verdict.few_equal_counts(paired, metric)
    noise = analysis.noise.get(workload)
    cells = [Cell(name, workload, analysis.metric) for name in (base, head)]
    location = analysis.between(workload, base, head)
    check = analysis.host_check(workload, head, base)
    return Change(
        target=head,
        workload=workload,
        metric=metric,
        workload_class=_class_of(analysis, workload),
        base=_figure(side, cells[0], noise),
        head=_figure(side, cells[1], noise),
        location=location,
        noise=noise,
        doubts=(
            *(
                doubt
                for cell in cells
                for doubt in _obstacles(side, cell, cell.target, several=False)
            ),
            *([few] if few else ()),
        ),
        # Of pairs, blocks in which BASE is slow are those in which HEAD is as fast.
        against={
            **_against(-around, around, (base, head), options.minimum_effect),
            **({} if location is None else _seen_otherwise(check, location, base, options)),
            **_unseen((side, cells[0]), (side, cells[1]), (base, head)),
        },
    )


def _seen_otherwise(
    check: HostCheck | None, location: Location, base: TargetName, options: ComparisonOptions
) -> Mapping[Status, Doubt]:
    """Return by status the doubt that the host saw something else of a target beside `base`."""
    if check is None:
        return {}
    interval, margin = location.interval(LEVEL), 1 + options.minimum_effect
    is_open = {
        Status.IMPROVEMENT: not check.is_faster_as_far_as_seen,
        Status.SAME: check.is_hidden,
        Status.REGRESSION: False,
    }
    return {
        status: doubts.of_unseen_speed(check, as_verdict, interval, margin, than=base)
        for status, as_verdict in _AS_VERDICT.items()
        if is_open[status] or check.excludes(as_verdict, interval, margin)
    }


_AS_VERDICT: Final = {
    Status.IMPROVEMENT: model.Status.FASTER,
    Status.SAME: model.Status.NEAR_NATIVE,
    Status.REGRESSION: model.Status.SLOWER,
}


# ---- judging


def _judged(changes: Sequence[Change], options: ComparisonOptions) -> list[Change]:
    """Return the changes with their status. Holm's correction is for all of them together."""
    # Among many cells some are significant by chance at 5 %: the correction keeps the probability
    # of any such finding in the whole comparison at 5 %.
    p_values = [one.p_difference for one in changes]
    adjusted = stats.holm(np.array(p_values, dtype=np.float64))
    judged = (
        _judge(replace(change, p_adjusted=float(p)), options.minimum_effect)
        for change, p in zip(changes, adjusted, strict=True)
    )
    return [
        _withheld(change, change.against[change.status])
        if change.status in change.against
        else change
        for change in judged
    ]


def _judge(change: Change, effect: float) -> Change:
    """Return a change with its status at the smallest effect that matters (0.05: 5 %)."""
    location = change.location
    if location is None or any(doubt.blocks for doubt in change.doubts):
        return replace(change, status=Status.UNPROVEN)
    if change.noise is None:
        return _unproven(change, "noise-floor", "the noise floor is unknown",
                         "see the gaps of native's second visit")  # fmt: skip
    if location.error == 0 and not change.is_exact:
        return _unproven(change, "timer-limited", "the timer cannot tell blocks apart",
                         "a larger --min-time")  # fmt: skip
    # A change must be proven to be large enough: the bound of the interval decides, not its middle.
    reported, narrow = location.interval(LEVEL), location.interval(stats.EQUIVALENCE_LEVEL)
    beyond = reported.low >= 1 + effect or reported.high <= 1 / (1 + effect)
    if beyond and change.p_adjusted < ALPHA:
        return _beyond_effect(change, location, change.noise)
    # Two one-sided tests at 5 %: "no significant difference" alone does not mean equal.
    if 1 / (1 + effect) < narrow.low and narrow.high < 1 + effect:
        return _within_effect(change, effect, change.noise)
    return replace(change, status=Status.INCONCLUSIVE)


def _beyond_effect(change: Change, location: Location, noise: float) -> Change:
    if abs(location.mean) <= math.log1p(noise):
        return _hidden_by_noise(change, f"by up to {percent_text(noise)}")
    worse = location.mean > 0
    return replace(change, status=Status.REGRESSION if worse else Status.IMPROVEMENT)


def _within_effect(change: Change, effect: float, noise: float) -> Change:
    if noise > effect:
        extent = f"by up to {percent_text(noise)}, which is more than {percent_text(effect)}"
        return _hidden_by_noise(change, extent)
    return replace(change, status=Status.SAME)


def _hidden_by_noise(change: Change, extent: str) -> Change:
    return _unproven(change, "noise-floor", f"native against native differs {extent}",
                     "measure on a quieter machine, or more blocks")  # fmt: skip


def _unproven(change: Change, code: str, detail: str, advice: str) -> Change:
    return _withheld(change, Doubt(code=code, detail=detail, advice=advice, blocks=True))


def _withheld(change: Change, doubt: Doubt) -> Change:
    return replace(change, status=Status.UNPROVEN, doubts=(*change.doubts, doubt))
