"""The section Ratios: the overview of all cells, and a plot for each class of workloads."""

import math
import shlex
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import Better, Status
from isobench.model.wording import NOTHING, counted, joined, level_text, ratio_text
from isobench.report.markup import escaped, table
from isobench.report.sections import header
from isobench.report.sections.figures import amount_text, interval_text, percent_text
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
from isobench.report.sections.phrases import (
    gap_detail,
    gap_mark,
    native_note,
    other_levels,
    sessions_of,
    tails_of,
)
from isobench.report.sections.scale import Scale, Tick, scale_of, ticks_of
from isobench.report.sections.section import Section
from isobench.report.sections.warmup import WarmupRow, warmup_profiles
from isobench.report.signs import DASH, SPACE, TIMES
from isobench.storage.schema import CellSummary
from isobench.workloads import classes

_MEAN: Final = "Geometric mean of this class's ratios, block by block"
_NO_MEAN: Final = "no mean, because a workload of the class has no ratio"
_FEWEST_OF_STEPS: Final = 2
_METRICS: Final = (
    "Other metrics: the value over native's, or native's over the value where higher is better."
    f" Above 1{TIMES} is worse."
)
# With more targets than this, the overview has targets as rows and workloads as columns: so many
# columns of targets would not fit on a page.
_MOST_COLUMNS: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixCell:
    """A cell of the overview."""

    ratio: str
    mark: Mark
    detail: str
    """The cell in words, for its tooltip."""
    interval: str = ""
    """Its interval without brackets, with an asterisk where its level is not the usual one; empty
    where there is none.
    """
    anchor: str = ""
    """That of its row in a plot; empty: it has none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixRow:
    """A workload of the overview, with a cell for each target."""

    workload: str
    short: str
    """Its name without the class."""
    anchor: str
    summary: str
    cells: tuple[MatrixCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixGroup:
    """The workloads of a class in the overview."""

    title: str
    rows: tuple[MatrixRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Matrix:
    """The overview: workloads by targets."""

    targets: tuple[Heading, ...]
    groups: tuple[MatrixGroup, ...]
    legend: tuple[Mark, ...]
    many: bool
    """Whether there are so many targets that the page shows them as rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Strip:
    """A ratio and its interval on the axis of a plot. Positions are in percent of its width."""

    point: float
    low: float
    high: float
    blocks: str
    """An SVG path with one tick for each block, in a box of 1000 by 10."""
    label: str
    """The same in words, for screen readers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """The blocks of a cell, one by one."""

    ratios: str
    """Their ratios in the order of measuring, with commas."""
    steps: str
    """An SVG path of their cumulative distribution, in a box of 1000 by 100."""
    low: str
    high: str
    """The ends of its axis."""
    label: str
    """The distribution in words, for screen readers."""
    command: str
    """A command that shows the samples of the cell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotRow:
    """A target at a workload."""

    target: Heading
    value: str
    ratio: str
    interval: str
    mark: Mark
    strip: Strip | None
    tails: str
    note: str
    doubts: tuple[str, ...]
    """The anchors of its doubts."""
    anchor: str
    blocks: Blocks | None = None
    """None: the cell has no block, or is the mean of a class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlotGroup:
    """A workload, with a row for each target."""

    anchor: str
    workload: str
    summary: str
    reference: str
    noise: str
    noise_low: float
    """The ends of the noise floor on the axis, in percent; both at 1 where it is unknown."""
    noise_high: float
    rows: tuple[PlotRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A class of workloads on one logarithmic axis. Positions are in percent of its width."""

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
    """The view of the ratios."""

    matrix: Matrix
    panels: tuple[Panel, ...]
    margin: str
    levels: str
    """A sentence on the intervals with an asterisk; empty where there are none."""
    metrics: str
    """What the ratios of other metrics than time are; empty where there are none."""


def ratios(lookup: Lookup) -> Ratios:
    """Return the view of the ratios of a run."""
    return Ratios(
        matrix=matrix(lookup),
        panels=tuple(_panels(lookup)),
        margin=percent_text(lookup.run.margin),
        levels=_levels(lookup),
        metrics=_METRICS if lookup.series else "",
    )


def _levels(lookup: Lookup) -> str:
    """Return the sentence on intervals that do not have the usual level; empty: all have it."""
    named = other_levels(lookup)
    return f"* An interval at {named}: the cell left the run when it was decided." if named else ""


def matrix(lookup: Lookup) -> Matrix:
    """Return the overview, with the targets of `Lookup.columns`."""
    targets = lookup.columns()
    groups = tuple(
        MatrixGroup(
            title=class_title(group), rows=tuple(_matrix_rows(lookup, targets, group, workloads))
        )
        for group, workloads in lookup.groups()
    )
    used = {cell.mark.kind for group in groups for row in group.rows for cell in row.cells}
    legend = tuple(mark for kind, mark in MARKS.items() if kind in used)
    many = len(targets) > _MOST_COLUMNS
    return Matrix(targets=targets, groups=groups, legend=legend, many=many)


def _matrix_rows(
    lookup: Lookup, targets: Sequence[Heading], group: str, workloads: Sequence[Workload]
) -> Iterator[MatrixRow]:
    """Yield the rows of a class: its workloads, then its mean where it has one."""
    for workload in lookup.rows(workloads):
        yield MatrixRow(
            workload=workload.label,
            short=workload.name.partition(".")[2] or workload.name,
            # Start-up has a section of its own, and no plot here.
            anchor="start-up" if group == START_CLASS else workload.anchor,
            summary=workload.summary,
            cells=tuple(_matrix_cell(lookup, target.name, workload.name) for target in targets),
        )
    if mean := _mean_anchor(lookup, group, workloads):
        yield MatrixRow(
            workload=mean_of(group),
            short="mean",
            anchor=mean,
            summary=_MEAN,
            cells=tuple(_mean_cell(lookup, target.name, group) for target in targets),
        )


def _matrix_cell(lookup: Lookup, target: str, workload: str) -> MatrixCell:
    cell = lookup.cells.get((target, workload))
    if cell is None:
        return MatrixCell(
            ratio=NOTHING,
            mark=gap_mark(lookup, target, workload),
            detail=gap_detail(lookup, target, workload),
        )
    detail = f"{target}, {workload}: {cell.ratio_text} {cell.interval_text}".strip()
    return MatrixCell(
        ratio=cell.ratio_text,
        mark=cell.mark,
        detail=detail,
        interval=_compact(cell),
        anchor=lookup.anchor_of(target, workload),
    )


def _mean_anchor(lookup: Lookup, group: str, workloads: Sequence[Workload]) -> str:
    """Return the anchor of the means of a class; empty where it has none."""
    if group not in lookup.averaged:
        return ""
    return f"mean-with-{workloads[0].anchor}"


def _mean_cell(lookup: Lookup, target: str, group: str) -> MatrixCell:
    mean = lookup.class_means.get((target, group))
    if mean is None:
        return MatrixCell(ratio=NOTHING, mark=MARKS["gap"], detail=f"{target}: {_NO_MEAN}")
    detail = f"{target}, mean of {class_title(group)}: {mean.ratio_text} {mean.interval_text}"
    return MatrixCell(ratio=mean.ratio_text, mark=mean.mark, detail=detail, interval=_compact(mean))


def _compact(figure: Figure) -> str:
    """Return an interval for a narrow column: "0.99-1.07"."""
    if figure.ratio is None or figure.bounds is None:
        return ""
    low, high = interval_text(figure.bounds, figure.ratio).strip("[]").split(", ")
    return f"{low}{DASH}{high}{'*' if level_text(figure.data.level) else ''}"


def _panels(lookup: Lookup) -> Iterator[Panel]:
    """Yield a plot for each class with cells, except start-up, which has a section of its own."""
    drawn = [
        (group, workloads)
        for group, workloads in lookup.groups()
        if group != START_CLASS and group in lookup.cells_by_class
    ]
    for number, (group, workloads) in enumerate(drawn, 1):
        yield _panel(lookup, number, group, workloads)


def _panel(lookup: Lookup, number: int, group: str, workloads: Sequence[Workload]) -> Panel:
    cells = lookup.cells_by_class[group]
    drawn = [v for c in cells for v in (c.ratio, *(c.bounds or ())) if v is not None]
    margin = lookup.run.margin
    # At least twice the margin on both sides: the margin is drawn as a band around 1.
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
            *(_plot_group(lookup, workload, scale) for workload in lookup.rows(workloads)),
            *_mean_group(lookup, group, workloads, scale),
        ),
        warmup_profiles=warmup_profiles(lookup, group),
    )


def _plot_group(lookup: Lookup, workload: Workload, scale: Scale) -> PlotGroup:
    floor = lookup.noise.get(workload.name)
    rows = tuple(
        _plot_row(lookup, heading, workload, scale)
        for heading in lookup.columns()
        if (heading.name, workload.name) in lookup.cells or lookup.gap(heading.name, workload.name)
    )
    unit = workload.metric.unit.in_answers
    reference = amount_text(lookup.reference(workload.name), unit)
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


def _plot_row(lookup: Lookup, heading: Heading, workload: Workload, scale: Scale) -> PlotRow:
    cell = lookup.cells.get((heading.name, workload.name))
    if cell is None:
        return PlotRow(
            target=heading,
            value="",
            ratio=NOTHING,
            interval="",
            mark=gap_mark(lookup, heading.name, workload.name),
            strip=None,
            tails="",
            note=gap_detail(lookup, heading.name, workload.name),
            doubts=(),
            anchor=lookup.anchor_of(heading.name, workload.name),
        )
    row = _row_of(lookup, heading, cell, scale)
    # The largest values are the slow end only where lower is better.
    return replace(row, tails="") if workload.metric.better is Better.HIGHER else row


def _mean_group(
    lookup: Lookup, group: str, workloads: Sequence[Workload], scale: Scale
) -> Iterator[PlotGroup]:
    """Yield the means of a class, with a row for each target, where there are any."""
    anchor = _mean_anchor(lookup, group, workloads)
    if not anchor:
        return
    means = [(one, lookup.class_means.get((one.name, group))) for one in lookup.columns()]
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
        rows=tuple(_row_of(lookup, one, mean, scale) for one, mean in means if mean is not None),
    )


def _row_of(lookup: Lookup, heading: Heading, figure: Figure, scale: Scale) -> PlotRow:
    notes = (
        _sessions_note(figure),
        native_note(lookup, figure),
        _blocks_note(figure),
        _exceptions_note(figure),
    )
    return PlotRow(
        target=heading,
        value=figure.value_text,
        ratio=figure.ratio_text,
        # Only a level that stands behind the interval may begin a new line.
        interval=figure.interval_text.replace(", ", f",{SPACE}").replace(" %", f"{SPACE}%"),
        mark=figure.mark,
        strip=_strip(figure, scale),
        tails=tails_of(figure),
        note="; ".join(part for part in notes if part),
        doubts=tuple(lookup.doubt_anchors[one] for one in dict.fromkeys(figure.data.doubts)),
        anchor=lookup.anchor_of(heading.name, figure.row),
        blocks=_blocks(lookup, figure),
    )


def _blocks(lookup: Lookup, figure: Figure) -> Blocks | None:
    data = figure.data
    if not isinstance(data, CellSummary) or len(data.log_ratios) < _FEWEST_OF_STEPS:
        return None
    ratios = [_exp(one) for one in data.log_ratios]
    logs = sorted(max(-100.0, min(100.0, one)) for one in data.log_ratios)
    first, span = logs[0], (logs[-1] - logs[0]) or 1.0
    path, height = "M0 100", 100.0
    for number, one in enumerate(logs, 1):
        across, height = 1000 * (one - first) / span, 100 - 100 * number / len(logs)
        path += f"H{across:.0f}V{height:.0f}"
    middle = ratio_text(_exp(statistics.median(data.log_ratios)))
    low, high = ratio_text(_exp(logs[0])), ratio_text(_exp(logs[-1]))
    wanted = f'.target == "{data.target}" and .workload == "{data.workload}"'
    return Blocks(
        ratios=", ".join(map(ratio_text, ratios)),
        steps=path,
        low=low,
        high=high,
        label=f"{len(logs)} blocks from {low} to {high}, half of them below {middle}",
        command=f"jq -c {shlex.quote(f'select({wanted})')} {header.records(lookup)}",
    )


def _sessions_note(figure: Figure) -> str:
    sessions = sessions_of(figure)
    if sessions is None:
        return ""
    return f"{counted(figure.data.blocks, 'block')} in {counted(sessions, 'session')}"


def _blocks_note(figure: Figure) -> str:
    """Return how many blocks would decide an inconclusive cell; empty where that is unknown."""
    needed = figure.data.blocks_needed
    if (
        needed is None
        or needed <= figure.data.blocks
        or figure.data.status is not Status.INCONCLUSIVE
    ):
        return ""
    return f"about {needed} blocks would decide"


def _exceptions_note(figure: Figure) -> str:
    """Return the workloads whose verdicts differ from that of their mean."""
    names = () if isinstance(figure.data, CellSummary) else figure.data.unlike
    return f"except {joined(names)}" if names else ""


def _strip(figure: Figure, scale: Scale) -> Strip | None:
    if figure.ratio is None:
        return None
    low, high = figure.bounds or (figure.ratio, figure.ratio)
    # The scale would draw a block beyond the axis at its end, as if it had been measured there.
    blocks = (_exp(one) for one in figure.data.log_ratios)
    inside = [block for block in blocks if scale.low <= block <= scale.high]
    words = f"{figure.target} at {figure.place}: {figure.ratio_text}"
    return Strip(
        point=scale(figure.ratio),
        low=scale(low),
        high=scale(high),
        # Whole numbers in a wide box keep the page small: each block of each cell has a tick.
        blocks="".join(f"M{10 * scale(block):.0f} 0v10" for block in inside),
        label=f"{words}, interval {figure.interval_text}, {figure.mark.word}",
    )


def _exp(value: float) -> float:
    # A log-ratio from a stranger's summary.json can be any number; math.exp raises OverflowError
    # above 709.
    return math.exp(max(-100.0, min(100.0, value)))


def _words(cell: MatrixCell) -> str:
    return " ".join(part for part in (cell.ratio, cell.interval, cell.mark.word) if part)


def _markdown(view: Ratios) -> Iterator[str]:
    matrix = view.matrix
    if not matrix.targets or not matrix.groups:
        return
    yield "## Ratios to native"
    margin = f"\N{PLUS-MINUS SIGN}{view.margin}"
    yield f"Time over native: above 1 is slower. Near-native: shown to lie within {margin}."
    if view.levels:
        yield escaped(view.levels)
    if view.metrics:
        yield escaped(view.metrics)
    yield table(
        ["Workload", *(escaped(target.name) for target in matrix.targets)],
        (
            [escaped(row.workload), *(escaped(_words(c)) for c in row.cells)]
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
