"""Two runs, two histories of runs, or two targets of one run, held against each other.

Runs are not interleaved, so that only ratios to native are compared, never times. What one run
shares as a whole cannot be seen in it: from one run a side the noise floors of both stand in for
it, from several the spread of the runs is taken instead (`stats.between_runs`,
`stats.between_histories`). Two targets of one run are paired block by block.

The gate for a regression: the interval's bound lies beyond the smallest effect that matters; it is
significant after Holm's correction for all cells; it is larger than the noise floor; and it shows
again in blocks measured anew. Without the last it is suspected.
"""

import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final, Self

import msgspec
import numpy as np

from isobench import stats
from isobench.analysis.headline import listed
from isobench.analysis.summaries import LEVEL, Analysis
from isobench.analysis.verdict import interval_text, percent_text, ratio_text
from isobench.comparison import compatibility
from isobench.comparison.compatibility import Difference, Gravity
from isobench.model import Doubt, Interval
from isobench.model.errors import UsageError
from isobench.model.plan import second
from isobench.model.units import TargetName, WorkloadName
from isobench.stats import Location
from isobench.storage.run_folder import FORMAT, Run

ALPHA: Final = 0.05
NATIVE_CHANGED: Final = math.log(1.05)
_UNIT_IS_RUN: Final = frozenset({"few-blocks", "quick"})
"""Doubts that do not matter where runs, and not their blocks, are the unit."""
_MOST_NAMED: Final = 4
_SEVERAL: Final = 2


class Status(StrEnum):
    """What HEAD is against BASE in one cell."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    SAME = "same"
    INCONCLUSIVE = "inconclusive"
    UNPROVEN = "unproven"


CHANGED: Final = frozenset({Status.REGRESSION, Status.IMPROVEMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One side of a cell: its ratio to native."""

    ratio: float
    interval: Interval | None
    """None where several runs stand behind the ratio, of which it is the mean."""
    blocks: int
    """Of all its runs."""
    runs: int
    noise: float | None
    """Its noise floor (0.012: 1.2 %), the median of its runs'."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One cell of both sides: HEAD's ratio to native over BASE's; more than 1 costs more."""

    target: TargetName
    workload: WorkloadName
    group: str
    base: Figure
    head: Figure
    location: Location | None
    """ln(HEAD / BASE); None where there are too few blocks for it, or it is not to be had."""
    noise: float | None
    """The noise floor of the comparison; None: unknown."""
    p_adjusted: float = 1.0
    status: Status = Status.UNPROVEN
    confirmed: bool | None = None
    """Whether blocks measured anew showed a regression or an improvement again; None: there were
    none. Two sides of several runs each confirm by themselves.
    """
    doubts: tuple[Doubt, ...] = ()

    def interval(self, level: float = LEVEL) -> Interval | None:
        """Return the interval of the change."""
        return None if self.location is None else self.location.interval(level)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is compared, and how strictly. Shares as fractions."""

    minimum_effect: float = 0.05
    targets: tuple[str, ...] = ()
    """Only these; none: all that both sides have."""
    workloads: tuple[str, ...] = ()
    """Names or classes; likewise."""
    anyway: bool = False
    """Go on where machines or programs differ, and say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Side:
    """The runs of one side, and for two targets of one run, which of them it is."""

    runs: tuple[Analysis, ...]
    target: TargetName | None = None

    @classmethod
    def of(cls, runs: Sequence[Run], target: TargetName | None = None) -> Self:
        return cls(runs=tuple(Analysis(run) for run in runs), target=target)

    @property
    def plain(self) -> list[Run]:
        return [one.run for one in self.runs]

    def cells(self) -> dict[tuple[TargetName, WorkloadName], None]:
        """Return the cells in which any run has a value, native and its control left out."""
        return {
            (target, workload): None
            for one in self.runs
            for workload in one.workloads
            for target in one.targets
            if target not in (one.reference, second(one.reference))
            and one.column(workload, target) is not None
        }


# ---- the documents


def compare(
    base: Sequence[Run], head: Sequence[Run], asked: Asked, *, confirm: Run | None = None
) -> dict[str, Any]:
    """Return how HEAD's ratios to native stand to BASE's, as a document for JSON.

    UsageError: one run is there twice, nothing was measured in one, the sides have no cell in
    common, or their machines differ and `anyway` was not asked for. Cells of other programs are
    refused one by one, as unlike.
    """
    extra = [] if confirm is None else [confirm]
    _refuse_twice([*base, *head, *extra])
    found = compatibility.differences(base, [*head, *extra])
    _refuse(found, asked)
    sides = _Side.of(base), _Side.of(head)
    for side in (*sides, _Side.of(extra)):
        _refuse_empty(side)
    keys = _common(*sides, asked)
    changes = _judged([_changed(*sides, key, asked) for key in keys], asked)
    # Where each side was measured several times, the fresh blocks are in the interval already.
    changes = [
        _confirmed(one, again=True) if min(one.base.runs, one.head.runs) >= _SEVERAL else one
        for one in changes
    ]
    if confirm is not None:
        changes = _held_against(_Side.of(extra), sides[0], changes, asked)
    return _document(
        "histories" if max(len(base), len(head)) >= _SEVERAL else "runs",
        changes, sides, asked, found, absent=_absent(*sides, asked), confirm=confirm,
    )  # fmt: skip


def compare_targets(
    run: Run, base: TargetName, head: TargetName, asked: Asked, *, confirm: Run | None = None
) -> dict[str, Any]:
    """Return how one target of a run stands to another, as a document for JSON.

    Both were interleaved: what the run shares drops out of every pair of visits. UsageError: a
    target is not in the run, or there is nothing to compare.
    """
    extra = [] if confirm is None else [confirm]
    _refuse_twice([run, *extra])
    found = compatibility.differences([run], extra)
    _refuse(found, asked)
    sides = _Side.of([run], base), _Side.of([run], head)
    again = _Side.of(extra)
    for side in (sides[0], again):
        _refuse_empty(side)
        for one in side.runs:
            _refuse_unknown(one, (base, head))
    analysis = sides[0].runs[0]
    names = [w for w in analysis.workloads if _wanted_workload(w, asked)]
    changes = _judged([c for w in names for c in _paired(analysis, w, base, head)], asked)
    if not changes:
        raise UsageError(
            f"{base} and {head} have no workload in common in {run.path}",
            hint=f"isobench run --targets {base},{head}",
        )
    if confirm is not None:
        suspects = [one for one in changes if one.status in CHANGED]
        fresh = [c for s in suspects for c in _paired(again.runs[0], s.workload, base, head)]
        changes = _settled(changes, _judged(fresh, asked))
    return _document("targets", changes, sides, asked, found, absent=[], confirm=confirm)


# ---- what is refused


def _refuse_twice(runs: Sequence[Run]) -> None:
    seen: dict[object, Run] = {}
    for run in runs:
        key = run.about.get("id") or run.path.resolve()
        if key in seen:
            other = "" if seen[key].path == run.path else f" ({seen[key].path} and {run.path})"
            raise UsageError(
                f"run {key} is there twice{other}: it would be compared with itself",
                hint="name two different runs; two targets of one run: isobench compare RUN"
                " --targets A,B",
            )
        seen[key] = run


def _refuse_empty(side: _Side) -> None:
    for one in side.runs:
        if one.run.samples.empty or not one.blocks:
            raise UsageError(
                f"{one.run.path} has no block with a value: it ended before it measured",
                hint="isobench run --resume goes on with it, or name another run",
            )


def _refuse_unknown(one: Analysis, names: Sequence[TargetName]) -> None:
    for name in names:
        if name not in one.targets:
            raise UsageError(
                f"{one.run.path} has no values of {name!r}",
                hint=f"it has: {', '.join(one.targets)}",
            )


def _refuse(found: Iterable[Difference], asked: Asked) -> None:
    """Refuse other machines."""
    unlike = [one for one in found if one.gravity is Gravity.REFUSED]
    if unlike and not asked.anyway:
        told = "; ".join(compatibility.told(unlike))
        raise UsageError(
            f"the runs are of different machines: {told}",
            hint="--anyway compares all the same and keeps the warning; a fair comparison measures"
            " both sides on one machine",
        )


def _wanted_workload(workload: WorkloadName, asked: Asked) -> bool:
    names = {workload, workload.partition(".")[0]}
    return not asked.workloads or bool(names & set(asked.workloads))


def _wanted(cell: tuple[TargetName, WorkloadName], asked: Asked) -> bool:
    return (not asked.targets or cell[0] in asked.targets) and _wanted_workload(cell[1], asked)


def _common(base: _Side, head: _Side, asked: Asked) -> list[tuple[TargetName, WorkloadName]]:
    first, other = base.cells(), head.cells()
    common = [cell for cell in first if cell in other and _wanted(cell, asked)]
    if common:
        return common
    described = [
        f"{name} has {', '.join(dict.fromkeys(t for t, _ in cells)) or 'native alone'}"
        f" ({', '.join(dict.fromkeys(w for _, w in cells)) or 'no workload'})"
        for name, cells in (("BASE", first), ("HEAD", other))
    ]
    chosen = " among those that were asked for" if asked.targets or asked.workloads else ""
    raise UsageError(
        f"no target and workload in common{chosen}: {'; '.join(described)}",
        hint="measure both with the same --targets and --workloads",
    )


def _absent(base: _Side, head: _Side, asked: Asked) -> list[dict[str, str]]:
    """Return the cells that one side alone has, and what the other says of them."""
    cells = {"base": base.cells(), "head": head.cells()}
    found = []
    for has, lacks, side in (("base", "head", head), ("head", "base", base)):
        for target, workload in cells[has]:
            if (target, workload) in cells[lacks] or not _wanted((target, workload), asked):
                continue
            gaps = [
                gap
                for one in side.runs
                for gap in one.run.gaps
                if (gap.target, gap.workload) == (target, workload)
            ]
            found.append(
                {
                    "target": target,
                    "workload": workload,
                    "lacking": lacks,
                    "cause": str(gaps[0].cause) if gaps else "not-measured",
                    "detail": gaps[0].detail if gaps else "it was not measured there",
                }
            )
    return found


# ---- one cell


def _changed(
    base: _Side, head: _Side, cell: tuple[TargetName, WorkloadName], asked: Asked
) -> Change:
    target, workload = cell
    located = [_located(side, cell) for side in (base, head)]
    several = max(map(len, located)) >= _SEVERAL
    floors = [_floor(side, cell) for side in (base, head)]
    doubts = [
        *_obstacles(base, cell, "BASE", several=several),
        *_obstacles(head, cell, "HEAD", several=several),
        *_unlike(base, head, cell, asked),
    ]
    known = [floor for floor in floors if floor is not None]
    noise = None
    if len(known) == len(floors):
        noise = math.expm1(math.hypot(*map(math.log1p, known)))
    location = None
    refused = any(doubt.code == "unlike" and doubt.blocks for doubt in doubts)
    if all(located) and not refused:
        if several:
            location = stats.between_histories(*located)
        else:
            (one,), (other,) = located
            spread = (floors[0] or 0.0, floors[1] or 0.0)
            location = stats.between_runs(one, other, floors=spread)
    return Change(
        target=target,
        workload=workload,
        group=base.runs[0].classes.get(workload, workload.partition(".")[0]),
        base=_figure(base, cell, floors[0]),
        head=_figure(head, cell, floors[1]),
        location=location,
        noise=noise,
        doubts=tuple(doubts),
    )


def _with(side: _Side, cell: tuple[TargetName, WorkloadName]) -> Iterator[Analysis]:
    """Yield the runs of a side that have a ratio for a cell."""
    target, workload = cell
    for one in side.runs:
        if one.location(workload, target) is not None:
            yield one


def _located(side: _Side, cell: tuple[TargetName, WorkloadName]) -> list[Location]:
    target, workload = cell
    found = (one.location(workload, target) for one in side.runs)
    return [one for one in found if one is not None]


def _floor(side: _Side, cell: tuple[TargetName, WorkloadName]) -> float | None:
    """Return the noise floor of a side: of several runs the median, so that one bad night does not
    blind a whole history.
    """
    floors = [one.noise.get(cell[1]) for one in _with(side, cell)]
    known = [floor for floor in floors if floor is not None]
    return statistics.median(known) if known else None


def _figure(side: _Side, cell: tuple[TargetName, WorkloadName], noise: float | None) -> Figure:
    target, workload = cell
    located = _located(side, cell)
    blocks = sum(one.log_ratios(workload, target).size for one in side.runs)
    mean = statistics.fmean(one.mean for one in located) if located else math.nan
    return Figure(
        ratio=math.exp(mean),
        interval=located[0].interval(LEVEL) if len(located) == 1 else None,
        blocks=int(blocks),
        runs=len(located),
        noise=noise,
    )


def _obstacles(
    side: _Side, cell: tuple[TargetName, WorkloadName], name: str, *, several: bool
) -> Iterator[Doubt]:
    """Yield what takes the verdict away already within a run, each once."""
    target, workload = cell
    told: dict[str, Doubt] = {}
    for one in side.runs:
        made = one.cell(workload, target)
        for doubt in made.verdict.doubts if made is not None else ():
            # The floor is weighed against the change, not against each side's margin.
            if doubt.blocks and doubt.code != "noise-floor":
                told.setdefault(doubt.code, doubt)
    for doubt in told.values():
        if not (several and doubt.code in _UNIT_IS_RUN):
            yield replace(doubt, detail=f"{name}: {doubt.detail}")


def _unlike(
    base: _Side, head: _Side, cell: tuple[TargetName, WorkloadName], asked: Asked
) -> Iterator[Doubt]:
    target, workload = cell
    runs = [*base.plain, *head.plain]
    program = compatibility.other_program(runs, workload, (base.runs[0].reference, target))
    if program:
        yield Doubt(
            code="unlike",
            detail=f"unlike: {program}",
            advice="measure both with one isobench and one compiler; --anyway compares it",
            blocks=not asked.anyway,
        )
    work = compatibility.other_work(runs, workload)
    if work:
        yield Doubt(
            code="other-work",
            detail=work,
            advice="--min-time and --budget alike in both runs make iterations alike",
        )


def _paired(
    one: Analysis, workload: WorkloadName, base: TargetName, head: TargetName
) -> Iterator[Change]:
    """Yield the change of one workload between two targets of a run, where both have values."""
    cells = [one.cell(workload, name) for name in (base, head)]
    if any(cell is None for cell in cells):
        return
    doubts: list[Doubt] = []
    for name in (base, head):
        side = _Side(runs=(one,))
        doubts += _obstacles(side, (name, workload), name, several=False)
    noise = one.noise.get(workload)
    side = _Side(runs=(one,))
    yield Change(
        target=head,
        workload=workload,
        group=one.classes.get(workload, workload.partition(".")[0]),
        base=_figure(side, (base, workload), noise),
        head=_figure(side, (head, workload), noise),
        location=one.between(workload, base, head),
        noise=noise,
        doubts=tuple(doubts),
    )


# ---- the gate


def _judged(changes: Sequence[Change], asked: Asked) -> list[Change]:
    """Return the changes with their standings: Holm's correction takes all of them together."""
    p_values = [1.0 if one.location is None else one.location.p_difference for one in changes]
    adjusted = stats.holm(np.array(p_values, dtype=np.float64))
    return [
        _judge(replace(one, p_adjusted=float(p)), asked.minimum_effect)
        for one, p in zip(changes, adjusted, strict=True)
    ]


def _judge(change: Change, effect: float) -> Change:
    """Return a change with its standing at the smallest effect that matters (0.05: 5 %)."""
    location = change.location
    if location is None or any(doubt.blocks for doubt in change.doubts):
        return replace(change, status=Status.UNPROVEN)
    if change.noise is None:
        return _unproven(change, "noise-floor", "the noise floor is unknown",
                         "see the gaps of native's second visit")  # fmt: skip
    if location.error == 0:
        return _unproven(change, "timer-limited", "the timer cannot tell blocks apart",
                         "a larger --min-time")  # fmt: skip
    reported, narrow = location.interval(LEVEL), location.interval(stats.EQUIVALENCE_LEVEL)
    beyond = reported.low >= 1 + effect or reported.high <= 1 / (1 + effect)
    if beyond and change.p_adjusted < ALPHA:
        if abs(location.mean) <= math.log1p(change.noise):
            return _unproven(
                change, "noise-floor",
                f"native against native differs by up to {percent_text(change.noise)}",
                "measure on a quieter machine, or more blocks",
            )  # fmt: skip
        worse = location.mean > 0
        return replace(change, status=Status.REGRESSION if worse else Status.IMPROVEMENT)
    if 1 / (1 + effect) < narrow.low and narrow.high < 1 + effect:
        if change.noise > effect:
            return _unproven(
                change, "noise-floor",
                f"native against native differs by up to {percent_text(change.noise)}, which is"
                f" more than {percent_text(effect)}",
                "measure on a quieter machine, or more blocks",
            )  # fmt: skip
        return replace(change, status=Status.SAME)
    return replace(change, status=Status.INCONCLUSIVE)


def _unproven(change: Change, code: str, detail: str, advice: str) -> Change:
    doubt = Doubt(code=code, detail=detail, advice=advice, blocks=True)
    return replace(change, status=Status.UNPROVEN, doubts=(*change.doubts, doubt))


def _held_against(
    again: _Side, base: _Side, changes: Sequence[Change], asked: Asked
) -> list[Change]:
    """Return the changes after a further run of HEAD was held against BASE."""
    suspects = [one for one in changes if one.status in CHANGED and not one.confirmed]
    has = again.cells()
    cells = [(s.target, s.workload) for s in suspects if (s.target, s.workload) in has]
    return _settled(changes, _judged([_changed(base, again, key, asked) for key in cells], asked))


def _settled(changes: Sequence[Change], fresh: Sequence[Change]) -> list[Change]:
    """Return the changes: those that fresh blocks show again are confirmed, those that they do not
    are open. What the fresh blocks do not have stays suspected.
    """
    by_cell = {(one.target, one.workload): one for one in fresh}
    found = []
    for one in changes:
        other = by_cell.get((one.target, one.workload))
        if other is None or one.status not in CHANGED:
            found.append(one)
            continue
        again = other.status is one.status
        interval = other.interval()
        seen = "nothing" if interval is None else interval_text(interval)
        found.append(_confirmed(one, again=again, seen=seen))
    return found


def _confirmed(change: Change, *, again: bool, seen: str = "") -> Change:
    if change.status not in CHANGED:
        return change
    if again:
        return replace(change, confirmed=True)
    doubt = Doubt(
        code="not-confirmed",
        detail=f"suspected to be a {change.status}; fresh blocks did not show it again: {seen}",
        advice="measure both sides again, with more blocks",
    )
    return replace(
        change,
        status=Status.INCONCLUSIVE,
        confirmed=False,
        doubts=(*change.doubts, doubt),
    )


# ---- the document in words


_METHODS: Final = {
    "runs": "One run a side, and the block is the unit: Yuen-Welch interval of the ratio of trimmed"
    " mean ratios to native. How much one run differs from the next cannot be seen in one run a"
    " side: the noise floors of both runs (native against native) stand in for it and widen every"
    " interval. Several runs a side (--base, --head) show it.",
    "histories": "Several runs a side, and the run is the unit: t interval of the run estimates"
    " of ratios to native, so that what differs between runs is in it.",
    "targets": "Both targets were interleaved in one run: trimmed t interval of block log-ratios"
    " of the one to the other; what the run shares drops out.",
}


def _document(
    mode: str,
    changes: Sequence[Change],
    sides: tuple[_Side, _Side],
    asked: Asked,
    found: Sequence[Difference],
    *,
    absent: Sequence[dict[str, str]],
    confirm: Run | None,
) -> dict[str, Any]:
    return {
        "schema_version": FORMAT,
        "mode": mode,
        "base": _named(sides[0]),
        "head": _named(sides[1]),
        "confirm": None if confirm is None else _about(confirm),
        "minimum_effect": asked.minimum_effect,
        "level": LEVEL,
        "alpha": ALPHA,
        "method": _METHODS[mode],
        "anyway": asked.anyway,
        "differences": [msgspec.to_builtins(one) for one in found],
        "warnings": list(_warnings(found)),
        "notes": [
            *compatibility.told(one for one in found if one.gravity is not Gravity.REFUSED),
            *(() if mode == "targets" else _native_changed(*sides)),
        ],
        "cells": [_cell(one) for one in changes],
        "absent": list(absent),
        "headline": _headline(mode, changes, sides, asked, confirm=confirm),
    }


def _warnings(found: Iterable[Difference]) -> Iterator[str]:
    unlike = [one for one in found if one.gravity is Gravity.REFUSED]
    if unlike:
        yield f"Different machines, compared all the same: {'; '.join(compatibility.told(unlike))}."


def _about(run: Run) -> dict[str, Any]:
    keys = ("id", "started", "machine", "tool_version")
    return {**{key: run.about.get(key) for key in keys}, "path": str(run.path)}


def _named(side: _Side) -> dict[str, Any]:
    return {"target": side.target, "runs": [_about(one.run) for one in side.runs]}


def _cell(one: Change) -> dict[str, Any]:
    interval, narrow = one.interval(), one.interval(stats.EQUIVALENCE_LEVEL)
    location = one.location
    return {
        "target": one.target,
        "workload": one.workload,
        "class": one.group,
        "base": _side(one.base),
        "head": _side(one.head),
        "change": None if location is None else math.exp(location.mean),
        "interval": None if interval is None else [interval.low, interval.high],
        "equivalence": None if narrow is None else [narrow.low, narrow.high],
        "p": None if location is None else location.p_difference,
        "p_adjusted": one.p_adjusted,
        "noise": one.noise,
        "method": None if location is None else location.method,
        "standing": one.status,
        "confirmed": one.confirmed,
        "doubts": [f"{doubt.detail}: {doubt.advice}" for doubt in one.doubts],
        "doubt_codes": [doubt.code for doubt in one.doubts],
    }


def _side(one: Figure) -> dict[str, Any]:
    return {
        "ratio": one.ratio if math.isfinite(one.ratio) else None,
        "interval": None if one.interval is None else [one.interval.low, one.interval.high],
        "blocks": one.blocks,
        "runs": one.runs,
        "noise": one.noise,
    }


def _native_changed(base: _Side, head: _Side) -> Iterator[str]:
    """Yield a note where native itself is not what it was: the machine, most likely."""
    changed = {}
    for workload in base.runs[0].workloads:
        both = [
            [
                float(column.dropna().median())
                for one in side.runs
                if (column := one.column(workload, one.reference)) is not None
                and not column.dropna().empty
            ]
            for side in (base, head)
        ]
        if all(both):
            ratio = statistics.median(both[1]) / statistics.median(both[0])
            if abs(math.log(ratio)) > NATIVE_CHANGED:
                changed[workload] = ratio
    if changed:
        ordered = sorted(changed, key=lambda name: -abs(math.log(changed[name])))
        told = [f"{name} {ratio_text(changed[name])}x" for name in ordered[:_MOST_NAMED]]
        more = len(ordered) - len(told)
        yield (
            "native itself took another time in HEAD than in BASE: "
            f"{listed([*told, f'{more} more'] if more else told)}. Only ratios to native are"
            " compared, but what slows native may slow a target more, or less."
        )


def _headline(
    mode: str,
    changes: Sequence[Change],
    sides: tuple[_Side, _Side],
    asked: Asked,
    *,
    confirm: Run | None,
) -> str:
    """Return what was found and how sure it is."""
    effect = percent_text(asked.minimum_effect)
    names = (
        f"{sides[1].target} against {sides[0].target}" if mode == "targets" else "HEAD against BASE"
    )
    cells = f"{len(changes)} cell{'' if len(changes) == 1 else 's'}"
    return " ".join(
        (
            f"{names}, {cells}: {_found(changes, effect, mode)}.",
            *_sureness(mode, changes, sides, confirm=confirm),
        )
    )


def _found(changes: Sequence[Change], effect: str, mode: str) -> str:
    parts = []
    for status, confirmed, words in (
        (Status.REGRESSION, True, "confirmed regression"),
        (Status.REGRESSION, None, "suspected regression"),
        (Status.IMPROVEMENT, True, "confirmed improvement"),
        (Status.IMPROVEMENT, None, "suspected improvement"),
    ):
        own = [c for c in changes if (c.status, c.confirmed) == (status, confirmed)]
        if own:
            plural = words if len(own) == 1 else f"{words}s"
            parts.append(f"{len(own)} {plural}: {_figures(own, mode)}")
    if not any(change.status is Status.REGRESSION for change in changes):
        parts.insert(0, f"no regression of {effect} or more is shown")
    for status, words in (
        (Status.SAME, f"the same within {effect}"),
        (Status.INCONCLUSIVE, "inconclusive"),
        (Status.UNPROVEN, "unproven"),
    ):
        count = sum(change.status is status for change in changes)
        if count:
            parts.append(f"{count} {words}")
    return "; ".join(parts)


def _figures(changes: Sequence[Change], mode: str) -> str:
    """Name cells with their changes, the largest first."""
    ordered = sorted(changes, key=lambda c: -abs(c.location.mean) if c.location else 0.0)
    told = [
        f"{'' if mode == 'targets' else f'{one.target} '}{one.workload}"
        f" {ratio_text(math.exp(one.location.mean))}x"
        f" {interval_text(one.location.interval(LEVEL))}"
        for one in ordered[:_MOST_NAMED]
        if one.location is not None
    ]
    more = len(ordered) - len(told)
    return listed([*told, f"{more} more"] if more else told)


def _sureness(
    mode: str, changes: Sequence[Change], sides: tuple[_Side, _Side], *, confirm: Run | None
) -> Iterator[str]:
    suspected = any(one.status in CHANGED and one.confirmed is None for one in changes)
    level = f"{100 * LEVEL:g} %"
    if mode == "runs":
        yield (
            f"Intervals ({level}) hold the noise floors of both runs in place of what differs"
            " between runs, which one run a side cannot show."
        )
    elif mode == "histories":
        sizes = " and ".join(str(len(side.runs)) for side in sides)
        yield f"Intervals ({level}) are of {sizes} runs, and hold what differs between them."
    else:
        yield f"Intervals ({level}) are of visits paired in the same blocks."
    if any(one.status is Status.INCONCLUSIVE for one in changes):
        more = "more blocks" if mode == "targets" else "more blocks in each run, or more runs,"
        yield (
            f"Inconclusive: {more} would narrow the interval; isobench noise RUN tells how many"
            " blocks this machine needs."
        )
    if suspected:
        again = "a further run that shows it again (--confirm RUN) makes it sure"
        if confirm is not None:
            again = "the run to confirm it does not have that cell"
        yield f"Suspected: seen once; {again}."
