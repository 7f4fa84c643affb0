"""Ratios to native: the overview of all cells, and one plot per class of workloads."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import Better, Status
from isobench.model.wording import NOTHING, counted, joined
from isobench.report.markup import escaped, table
from isobench.report.sections.figures import TIMES, amount_text, percent_text
from isobench.report.sections.lookup import (
    START_CLASS,
    Figure,
    Heading,
    Lookup,
    Workload,
    class_title,
    mean_of,
)
from isobench.report.sections.marks import MARKS, Mark
from isobench.report.sections.phrases import gap_detail, gap_mark, sessions_of, tails_of
from isobench.report.sections.scale import Scale, Tick, scale_of, ticks_of
from isobench.report.sections.section import Section
from isobench.report.sections.warmup import WarmupRow, warmup_profiles
from isobench.storage.schema import CellSummary
from isobench.workloads import classes

_MEAN: Final = "Geometric mean of this class's ratios, block by block"
_LACKING: Final = "no mean, for want of some workload of the class"
_METRICS: Final = (
    "Other metrics: the value over native's, or native's over the value where higher is better;"
    f" above 1{TIMES} is worse."
)
_MOST_COLUMNS: Final = 8
"""More targets than this are rows of the overview: there are never so many workloads."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """A cell of the overview; `detail` is the whole of it in words."""

    ratio: str
    mark: Mark
    detail: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """One workload of the overview, a cell per target."""

    workload: str
    short: str
    """Its name without its class."""
    anchor: str
    summary: str
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGroup:
    """The workloads of one class in the overview."""

    title: str
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """Workloads by targets."""

    targets: tuple[Heading, ...]
    groups: tuple[MatrixGroup, ...]
    legend: tuple[Mark, ...]
    many: bool
    """So many targets that they are better rows than columns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A dot and its interval on a log axis, in percent of its width."""

    point: float
    low: float
    high: float
    blocks: str
    """An SVG path with one tick per block, in a box of 1000 by 10."""
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotRow:
    """One target at one workload."""

    target: Heading
    value: str
    ratio: str
    interval: str
    mark: Mark
    strip: Strip | None
    tails: str
    note: str
    doubts: str
    """How many doubts there are, in words; empty for none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotGroup:
    """One workload: a row per target; its noise floor on the axis, of no width when unknown."""

    anchor: str
    workload: str
    summary: str
    reference: str
    noise: str
    noise_low: float
    noise_high: float
    rows: tuple[PlotRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One class of workloads on one log axis; places in percent of its width."""

    anchor: str
    title: str
    lead: str
    ticks: tuple[Tick, ...]
    one: float
    margin_low: float
    margin_high: float
    groups: tuple[PlotGroup, ...]
    warmup_profiles: tuple[WarmupRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratios:
    """The overview, and a plot per class."""

    matrix: Matrix
    panels: tuple[Panel, ...]
    margin: str
    metrics: str
    """What the ratios of other metrics than time are; empty where there are none."""


def ratios(found: Lookup) -> Ratios:
    """Return the ratios of a run."""
    return Ratios(
        matrix=matrix(found),
        panels=tuple(_panels(found)),
        margin=percent_text(found.run.margin),
        metrics=_METRICS if found.series else "",
    )


def matrix(found: Lookup) -> Matrix:
    """Return the overview: workloads by class, by targets as `Lookup.columns` has them."""
    targets = found.columns()
    groups = []
    for group, workloads in found.groups():
        rows = tuple(
            MatrixRow(
                workload=workload.label,
                short=workload.name.partition(".")[2] or workload.name,
                anchor="start-up" if group == START_CLASS else workload.anchor,
                summary=workload.summary,
                cells=tuple(_matrix_cell(found, target.name, workload.name) for target in targets),
            )
            for workload in found.rows(workloads)
        )
        if mean := _mean_anchor(found, group, workloads):
            row = MatrixRow(
                workload=mean_of(group),
                short="mean",
                anchor=mean,
                summary=_MEAN,
                cells=tuple(_mean_cell(found, target.name, group) for target in targets),
            )
            rows = (*rows, row)
        groups.append(MatrixGroup(title=class_title(group), rows=rows))
    used = {cell.mark.kind for group in groups for row in group.rows for cell in row.cells}
    legend = tuple(mark for kind, mark in MARKS.items() if kind in used)
    many = len(targets) > _MOST_COLUMNS
    return Matrix(targets=targets, groups=tuple(groups), legend=legend, many=many)


def _matrix_cell(found: Lookup, target: str, workload: str) -> MatrixCell:
    cell = found.cells.get((target, workload))
    if cell is None:
        return MatrixCell(
            ratio=NOTHING,
            mark=gap_mark(found, target, workload),
            detail=gap_detail(found, target, workload),
        )
    detail = f"{target}, {workload}: {cell.ratio_text} {cell.interval_text}".strip()
    return MatrixCell(ratio=cell.ratio_text, mark=cell.mark, detail=detail)


def _mean_anchor(found: Lookup, group: str, workloads: Sequence[Workload]) -> str:
    """Return where the means of a class stand; empty where it has none."""
    if not any(mean.group == group for mean in found.class_means.values()):
        return ""
    return f"mean-with-{workloads[0].anchor}"


def _mean_cell(found: Lookup, target: str, group: str) -> MatrixCell:
    mean = found.class_means.get((target, group))
    if mean is None:
        return MatrixCell(ratio=NOTHING, mark=MARKS["gap"], detail=f"{target}: {_LACKING}")
    detail = f"{target}, mean of {class_title(group)}: {mean.ratio_text} {mean.interval_text}"
    return MatrixCell(ratio=mean.ratio_text, mark=mean.mark, detail=detail)


def _panels(found: Lookup) -> Iterator[Panel]:
    """Yield one plot per class with cells, start-up excepted: that has its own part."""
    drawn = [
        (group, workloads)
        for group, workloads in found.groups()
        if group != START_CLASS and any(cell.group == group for cell in found.cells.values())
    ]
    for number, (group, workloads) in enumerate(drawn, 1):
        yield _panel(found, number, group, workloads)


def _panel(found: Lookup, number: int, group: str, workloads: Sequence[Workload]) -> Panel:
    cells = [cell for cell in found.cells.values() if cell.group == group]
    drawn = [v for c in cells for v in (c.ratio, *(c.bounds or ())) if v is not None]
    margin = found.run.margin
    scale = scale_of(drawn, 1 / (1 + 2 * margin), 1 + 2 * margin)
    return Panel(
        anchor=f"class-{number}",
        title=class_title(group),
        lead=classes.get(group).lead,
        ticks=ticks_of(scale, lambda value: f"{value:g}{TIMES}"),
        one=scale(1),
        margin_low=scale(1 / (1 + margin)),
        margin_high=scale(1 + margin),
        groups=(
            *(_plot_group(found, workload, scale) for workload in found.rows(workloads)),
            *_mean_group(found, group, workloads, scale),
        ),
        warmup_profiles=warmup_profiles(found, group),
    )


def _plot_group(found: Lookup, workload: Workload, scale: Scale) -> PlotGroup:
    floor = found.noise.get(workload.name)
    rows = tuple(
        _plot_row(found, heading, workload, scale)
        for heading in found.columns()
        if (heading.name, workload.name) in found.cells or found.gap(heading.name, workload.name)
    )
    unit = workload.metric.unit.in_answers
    reference = amount_text(found.reference(workload.name), unit)
    timed = workload.operation and workload.metric.is_time
    per = f" for {workload.operation}" if timed else ""
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


def _plot_row(found: Lookup, heading: Heading, workload: Workload, scale: Scale) -> PlotRow:
    cell = found.cells.get((heading.name, workload.name))
    if cell is None:
        return PlotRow(
            target=heading,
            value="",
            ratio=NOTHING,
            interval="",
            mark=gap_mark(found, heading.name, workload.name),
            strip=None,
            tails="",
            note=gap_detail(found, heading.name, workload.name),
            doubts="",
        )
    row = _row_of(heading, cell, scale)
    # The largest values are the slow end only where lower is better.
    return replace(row, tails="") if workload.metric.better is Better.HIGHER else row


def _mean_group(
    found: Lookup, group: str, workloads: Sequence[Workload], scale: Scale
) -> Iterator[PlotGroup]:
    """Yield the means of a class, a row per target, where there are any."""
    anchor = _mean_anchor(found, group, workloads)
    if not anchor:
        return
    means = [(one, found.class_means.get((one.name, group))) for one in found.columns()]
    floors = (mean.noise for _, mean in means if mean is not None)
    floor = next((one for one in floors if one is not None), None)
    yield PlotGroup(
        anchor=anchor,
        workload=f"mean of {class_title(group)}",
        summary=_MEAN,
        reference="",
        noise=_noise(floor),
        noise_low=scale(1 / (1 + (floor or 0))),
        noise_high=scale(1 + (floor or 0)),
        rows=tuple(_row_of(one, mean, scale) for one, mean in means if mean is not None),
    )


def _row_of(heading: Heading, figure: Figure, scale: Scale) -> PlotRow:
    count = len(figure.data.doubts)
    notes = (_served(figure), _needed(figure), _unlike(figure))
    return PlotRow(
        target=heading,
        value=figure.value_text,
        ratio=figure.ratio_text,
        interval=figure.interval_text,
        mark=figure.mark,
        strip=_strip(figure, scale),
        tails=tails_of(figure),
        note="; ".join(part for part in notes if part),
        doubts=counted(count, "doubt") if count else "",
    )


def _served(figure: Figure) -> str:
    sessions = sessions_of(figure)
    if sessions is None:
        return ""
    return f"{counted(figure.data.blocks, 'block')} in {counted(sessions, 'session')}"


def _needed(figure: Figure) -> str:
    needed = figure.data.blocks_needed
    if (
        needed is None
        or needed <= figure.data.blocks
        or figure.data.status is not Status.INCONCLUSIVE
    ):
        return ""
    return f"about {needed} blocks would tell"


def _unlike(figure: Figure) -> str:
    """Return which workloads a mean hides."""
    names = () if isinstance(figure.data, CellSummary) else figure.data.unlike
    return f"but not {joined(names)}" if names else ""


def _strip(figure: Figure, scale: Scale) -> Strip | None:
    if figure.ratio is None:
        return None
    low, high = figure.bounds or (figure.ratio, figure.ratio)
    # A block off the axis would be drawn at its edge, as if it had been measured there.
    blocks = (_exp(one) for one in figure.data.log_ratios)
    inside = [block for block in blocks if scale.low <= block <= scale.high]
    words = f"{figure.target} at {figure.place}: {figure.ratio_text}"
    return Strip(
        point=scale(figure.ratio),
        low=scale(low),
        high=scale(high),
        blocks="".join(f"M{10 * scale(block):.0f} 0v10" for block in inside),
        label=f"{words}, interval {figure.interval_text}, {figure.mark.word}",
    )


def _exp(value: float) -> float:
    """Return e to the power of a log-ratio, held where a float can hold it."""
    return math.exp(max(-100.0, min(100.0, value)))


def _markdown(view: Ratios) -> Iterator[str]:
    matrix = view.matrix
    if not matrix.targets or not matrix.groups:
        return
    yield "## Ratios to native"
    margin = f"\N{PLUS-MINUS SIGN}{view.margin}"
    yield f"Time over native: above 1 is slower. Near-native: shown to lie within {margin}."
    if view.metrics:
        yield escaped(view.metrics)
    yield table(
        ["Workload", *(escaped(target.name) for target in matrix.targets)],
        (
            [escaped(row.workload), *(escaped(f"{c.ratio} {c.mark.word}") for c in row.cells)]
            for group in matrix.groups
            for row in group.rows
        ),
    )


RATIOS: Final = Section(
    anchor="ratios",
    title="Ratios",
    template="ratios.html.j2",
    build=ratios,
    markdown=_markdown,
)
