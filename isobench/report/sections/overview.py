"""The overview at the top of a report: each class of workloads at each target in short."""

from collections.abc import Sequence
from dataclasses import dataclass

from isobench.model import Status
from isobench.model.wording import NOTHING, listed
from isobench.report.sections.figures import ratio_text, seconds_text
from isobench.report.sections.lookup import (
    START_CLASS,
    Figure,
    Heading,
    Lookup,
    class_title,
    heading_of,
)
from isobench.report.sections.marks import MARKS, Mark
from isobench.report.sections.phrases import gap_mark, other_levels
from isobench.report.signs import DASH
from isobench.storage.schema import Bounds, OverviewEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewCell:
    """A class of workloads at a target."""

    figure: str
    """The mean of the class, the ratio of its only workload, or a range; for starts, times."""
    interval: str
    """The interval of the figure; for starts, their ratios."""
    mark: Mark
    worst: str
    """The workload with the highest ratio, and the ratio; of a class with one workload its name."""
    worst_mark: Mark | None
    """None: there is only one workload, whose mark is `mark`."""
    anchor: str
    """The row of the worst workload."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverviewRow:
    """A target, with a cell for each class."""

    target: Heading
    cells: tuple[OverviewCell, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """Targets by classes of workloads."""

    classes: tuple[str, ...]
    rows: tuple[OverviewRow, ...]
    legend: tuple[Mark, ...]
    note: str
    """Which classes rest on one workload; empty: none does."""
    levels: str
    """The levels of intervals that do not have the usual one; empty: all have it."""


def overview(lookup: Lookup) -> Overview | None:
    """Return the overview of a run; None where its summary has none."""
    entries: dict[tuple[str, str], OverviewEntry] = {
        (one.target, one.group): one for one in lookup.summary.answers.overview
    }
    groups = list(dict.fromkeys(group for _, group in entries))
    named = {target for target, _ in entries}
    headings = [heading_of(one) for one in lookup.targets if one.name in named]
    rows = tuple(
        OverviewRow(
            target=heading,
            cells=tuple(_cell(lookup, heading.name, one, entries) for one in groups),
        )
        for heading in headings
    )
    if not rows:
        return None
    cells = [cell for row in rows for cell in row.cells]
    used = {mark.kind for cell in cells for mark in (cell.mark, cell.worst_mark) if mark}
    legend = tuple(mark for kind, mark in MARKS.items() if kind in used)
    single = [one for one in groups if one != START_CLASS and len(lookup.of_class(one)) == 1]
    return Overview(
        classes=tuple(map(class_title, groups)),
        rows=rows,
        legend=legend,
        note=_note(single),
        levels=other_levels(lookup),
    )


def _note(single: Sequence[str]) -> str:
    """Return a warning that other work of some classes may cost something else."""
    if not single:
        return ""
    rest = "rests on one workload" if len(single) == 1 else "rest on one workload each"
    return f"{listed([*map(class_title, single)])} {rest}: other work may cost more or less."


def _cell(
    lookup: Lookup, target: str, group: str, entries: dict[tuple[str, str], OverviewEntry]
) -> OverviewCell:
    entry = entries.get((target, group))
    if entry is None:
        names = [one.name for one in lookup.of_class(group)]
        mark = gap_mark(lookup, target, names[0] if names else "")
        return OverviewCell(
            figure=NOTHING, interval="", mark=mark, worst="", worst_mark=None, anchor=""
        )
    worst = lookup.cells.get((target, entry.worst or ""))
    mean = lookup.class_means.get((target, group))
    shown = mean or (worst if entry.cells == 1 else None)
    figure, interval = _figures(entry, shown, worst)
    found = (lookup.cells.get((target, one.name)) for one in lookup.of_class(group))
    marks = {one.mark for one in found if one is not None}
    return OverviewCell(
        figure=figure or NOTHING,
        interval=interval,
        mark=shown.mark if shown else _mark(entry, worst, marks),
        worst=_worst(entry, worst),
        worst_mark=worst.mark if worst and entry.cells > 1 else None,
        anchor=lookup.anchor_of(target, entry.worst) if worst and entry.worst else "",
    )


def _figures(entry: OverviewEntry, shown: Figure | None, worst: Figure | None) -> tuple[str, str]:
    """Return the figure of a cell, and what stands beside it."""
    if entry.seconds is not None:
        ends = dict.fromkeys(seconds_text(end, 2) for end in entry.seconds)
        return " to ".join(ends), _span(entry.ratios, worst)
    if shown is not None:
        return shown.ratio_text, shown.interval_text
    return _span(entry.ratios, worst), ""


def _span(ratios: Bounds | None, worst: Figure | None) -> str:
    """Return a range of ratios, of which the worst stands beside it; empty for none."""
    if ratios is None:
        return ""
    low, high = map(ratio_text, ratios)
    if worst is not None and worst.ratio == ratios[1]:
        # With a wide interval it has fewer digits, and may look smaller than the lowest.
        high = worst.ratio_text
        low = high if float(low[:-1]) >= float(high[:-1]) else low
    return high if low == high else f"{low[:-1]}{DASH}{high}"


def _mark(entry: OverviewEntry, worst: Figure | None, marks: set[Mark]) -> Mark:
    if entry.status is None:
        return MARKS["mixed"]
    if entry.status is not Status.UNPROVEN:
        return MARKS[entry.status]
    # The marks of cells know which of them only have too few blocks. Without any ratio none is the
    # worst, and all must agree.
    if worst is not None:
        return worst.mark
    return next(iter(marks)) if len(marks) == 1 else MARKS[entry.status]


def _worst(entry: OverviewEntry, worst: Figure | None) -> str:
    if worst is None:
        return ""
    name = worst.place.partition(".")[2] or worst.place
    alone = entry.cells == 1 and entry.seconds is None
    return name if alone else f"{name} {worst.ratio_text}"
