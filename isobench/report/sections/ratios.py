"""Ratios to native: the overview of all cells, and one plot per class of workloads."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

from isobench.model import Status
from isobench.report.sections.figures import NOTHING, TIMES, percent_text, seconds_text
from isobench.report.sections.marks import MARKS
from isobench.report.sections.phrases import gap_mark, sessions_of, tails_of
from isobench.report.sections.run import (
    START_CLASS,
    Cell,
    Run,
    Workload,
    class_title,
    groups_of,
    mean_of,
)
from isobench.report.sections.scale import Scale, scale_of, ticks_of
from isobench.report.sections.shapes import (
    Heading,
    Matrix,
    MatrixCell,
    MatrixGroup,
    MatrixRow,
    Panel,
    PlotGroup,
    PlotRow,
    Strip,
)
from isobench.report.sections.values import amount_of, clean, counted, listed, number_of, value_of
from isobench.report.sections.warmup import warmup_profiles
from isobench.workloads import classes

_MEAN: Final = "Geometric mean of this class's ratios, block by block"
_LACKING: Final = "no mean, for want of some workload of the class"
_MOST_COLUMNS: Final = 8
"""More targets than this are rows of the overview: there are never so many workloads."""


def matrix(run: Run) -> Matrix:
    """Return the overview: workloads by class, by targets as `Run.columns` has them."""
    targets = run.columns()
    groups = []
    for group, workloads in groups_of(run):
        rows = tuple(
            MatrixRow(
                workload=workload.name,
                short=workload.name.partition(".")[2] or workload.name,
                anchor="start-up" if group == START_CLASS else workload.anchor,
                summary=workload.summary,
                cells=tuple(_matrix_cell(run, target.name, workload.name) for target in targets),
            )
            for workload in workloads
        )
        if mean := _suite_anchor(run, group, workloads):
            row = MatrixRow(
                workload=mean_of(group),
                short="mean",
                anchor=mean,
                summary=_MEAN,
                cells=tuple(_suite_cell(run, target.name, group) for target in targets),
            )
            rows = (*rows, row)
        groups.append(MatrixGroup(title=class_title(group), rows=rows))
    used = {cell.mark.kind for group in groups for row in group.rows for cell in row.cells}
    legend = tuple(mark for kind, mark in MARKS.items() if kind in used)
    many = len(targets) > _MOST_COLUMNS
    return Matrix(targets=targets, groups=tuple(groups), legend=legend, many=many)


def _matrix_cell(run: Run, target: str, workload: str) -> MatrixCell:
    cell = run.cells.get((target, workload))
    if cell is None:
        why = value_of((run.gap(target, workload) or {}).get("detail"), "").shown
        return MatrixCell(ratio=NOTHING, mark=gap_mark(run, target, workload), detail=why)
    detail = f"{target}, {workload}: {cell.ratio_text} {cell.interval_text}".strip()
    return MatrixCell(ratio=cell.ratio_text, mark=cell.mark, detail=detail)


def _suite_anchor(run: Run, group: str, workloads: Sequence[Workload]) -> str:
    """Return where the means of a class stand; empty where it has none."""
    if not any(suite.group == group for suite in run.class_means.values()):
        return ""
    return f"mean-with-{workloads[0].anchor}"


def _suite_cell(run: Run, target: str, group: str) -> MatrixCell:
    suite = run.class_means.get((target, group))
    if suite is None:
        return MatrixCell(ratio=NOTHING, mark=MARKS["gap"], detail=f"{target}: {_LACKING}")
    detail = f"{target}, mean of {class_title(group)}: {suite.ratio_text} {suite.interval_text}"
    return MatrixCell(ratio=suite.ratio_text, mark=suite.mark, detail=detail)


def panels(run: Run) -> tuple[Panel, ...]:
    """Return one plot per class with cells, start-up excepted: that has its own part."""
    found: list[Panel] = []
    for group, workloads in groups_of(run):
        cells = [cell for cell in run.cells.values() if cell.group == group]
        if group == START_CLASS or not cells:
            continue
        drawn = [v for c in cells for v in (c.ratio, *(c.bounds or ())) if v is not None]
        scale = scale_of(drawn, 1 / (1 + 2 * run.margin), 1 + 2 * run.margin)
        found.append(
            Panel(
                anchor=f"class-{len(found) + 1}",
                title=class_title(group),
                lead=classes.get(group).lead,
                ticks=ticks_of(scale, lambda value: f"{value:g}{TIMES}"),
                one=scale(1),
                margin_low=scale(1 / (1 + run.margin)),
                margin_high=scale(1 + run.margin),
                groups=(
                    *(_plot_group(run, workload, scale) for workload in workloads),
                    *_suite_group(run, group, workloads, scale),
                ),
                warmup_profiles=warmup_profiles(run, group),
            )
        )
    return tuple(found)


def _plot_group(run: Run, workload: Workload, scale: Scale) -> PlotGroup:
    floor = run.noise.get(workload.name)
    rows = tuple(
        _plot_row(run, heading, workload, scale)
        for heading in run.columns()
        if (heading.name, workload.name) in run.cells or run.gap(heading.name, workload.name)
    )
    reference = seconds_text(run.reference(workload.name))
    per = f" for {workload.operation}" if workload.operation else ""
    return PlotGroup(
        anchor=workload.anchor,
        workload=workload.name,
        summary=workload.summary,
        reference=f"native: {reference}{per}",
        noise=_noise(floor),
        noise_low=scale(1 / (1 + (floor or 0))),
        noise_high=scale(1 + (floor or 0)),
        rows=rows,
    )


def _noise(floor: float | None) -> str:
    return "noise floor not known" if floor is None else f"noise floor {percent_text(floor)}"


def _plot_row(run: Run, heading: Heading, workload: Workload, scale: Scale) -> PlotRow:
    cell = run.cells.get((heading.name, workload.name))
    if cell is None:
        gap = run.gap(heading.name, workload.name) or {}
        return PlotRow(
            target=heading,
            value="",
            ratio=NOTHING,
            interval="",
            mark=gap_mark(run, heading.name, workload.name),
            strip=None,
            tails="",
            note=value_of(gap.get("detail"), "").shown,
            doubts="",
        )
    return _row_of(heading, cell, scale)


def _suite_group(
    run: Run, group: str, workloads: Sequence[Workload], scale: Scale
) -> Iterator[PlotGroup]:
    """Yield the means of a class, a row per target, where there are any."""
    anchor = _suite_anchor(run, group, workloads)
    if not anchor:
        return
    found = [(one, run.class_means.get((one.name, group))) for one in run.columns()]
    floors = (amount_of(suite.raw.get("noise")) for _, suite in found if suite is not None)
    floor = next((one for one in floors if one is not None), None)
    yield PlotGroup(
        anchor=anchor,
        workload=f"mean of {class_title(group)}",
        summary=_MEAN,
        reference="",
        noise=_noise(floor),
        noise_low=scale(1 / (1 + (floor or 0))),
        noise_high=scale(1 + (floor or 0)),
        rows=tuple(_row_of(one, suite, scale) for one, suite in found if suite is not None),
    )


def _row_of(heading: Heading, cell: Cell, scale: Scale) -> PlotRow:
    doubts = cell.raw.get("doubts")
    count = len(doubts) if isinstance(doubts, list | tuple) else 0
    return PlotRow(
        target=heading,
        value="" if cell.value is None else seconds_text(cell.value, cell.digits),
        ratio=cell.ratio_text,
        interval=cell.interval_text,
        mark=cell.mark,
        strip=_strip(cell, scale),
        tails=tails_of(cell),
        note="; ".join(part for part in (_served(cell), _needed(cell), _unlike(cell)) if part),
        doubts=counted(count, "doubt") if count else "",
    )


def _served(cell: Cell) -> str:
    sessions, blocks = sessions_of(cell), number_of(cell.raw.get("blocks"))
    if sessions is None or blocks is None:
        return ""
    return f"{counted(int(blocks), 'block')} in {counted(sessions, 'session')}"


def _needed(cell: Cell) -> str:
    needed = number_of(cell.raw.get("blocks_needed"))
    run = number_of(cell.raw.get("blocks")) or 0
    if needed is None or needed <= run or cell.status != Status.INCONCLUSIVE:
        return ""
    return f"about {needed:.0f} blocks would tell"


def _unlike(cell: Cell) -> str:
    """Return which workloads a mean hides."""
    names = cell.raw.get("unlike")
    told = [clean(name) for name in names] if isinstance(names, list | tuple) else []
    return f"but not {listed(told)}" if told else ""


def _strip(cell: Cell, scale: Scale) -> Strip | None:
    if cell.ratio is None:
        return None
    low, high = cell.bounds or (cell.ratio, cell.ratio)
    logs = cell.raw.get("log_ratios")
    blocks = [number_of(one) for one in logs] if isinstance(logs, list | tuple) else []
    # A block off the axis would be drawn at its edge, as if it had been measured there.
    inside = [b for b in blocks if b is not None and scale.low <= _exp(b) <= scale.high]
    words = f"{cell.target} at {cell.workload}: {cell.ratio_text}, interval {cell.interval_text}"
    return Strip(
        point=scale(cell.ratio),
        low=scale(low),
        high=scale(high),
        blocks="".join(f"M{10 * scale(_exp(block)):.0f} 0v10" for block in inside),
        label=f"{words}, {cell.mark.word}",
    )


def _exp(value: float) -> float:
    """Return e to the power of a log-ratio, held where a float can hold it."""
    return math.exp(max(-100.0, min(100.0, value)))
