"""Prints the view of a run in a terminal or a pipe, at any width.

Colour only repeats what the words say: NO_COLOR and pipes lose nothing.
"""

import textwrap
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from isobench.report.console import Writer
from isobench.report.sections import Report
from isobench.report.sections.claims import CLAIMS, ClaimView, claim_counts
from isobench.report.sections.gaps import GAPS
from isobench.report.sections.overview import Overview, OverviewCell
from isobench.report.sections.ratios import RATIOS, Matrix, MatrixCell, Ratios
from isobench.report.sections.startup import START_UP, StartUp
from isobench.report.sections.undecided import UNDECIDED
from isobench.report.sections.variations import VARIATIONS
from isobench.report.signs import TIMES

_STYLES: Final = {
    "near-native": "green",
    "supported": "green",
    "slower": "red",
    "refuted": "red",
    "faster": "blue",
    "unproven": "magenta",
}
# For consoles whose encoding is ASCII, as with LANG=C.
# Names of targets are wrapped at this width, so that several columns fit into a terminal.
_NAME_WIDTH: Final = 11
# The workload of a plug-in may have any name.
_LONGEST_NAME: Final = 24
_PAD: Final = 2
_MOST_LINES: Final = 6
# Of more targets, the overview has one line each.
_MOST_WITH_WORST: Final = 6


def render(view: Report, console: Console) -> None:
    """Print the machine, ratios, start-up, what is undecided, gaps, variations and claims; then the
    overview and the answers.
    """
    # The answers come last: in a terminal, that is next to the prompt.
    writer = Writer(console)
    _machine(writer, view)
    for banner in view.banners:
        writer.line(f"{banner.title}. {banner.text}", "bold red")
    writer.line()
    ratios, startup = RATIOS.of(view), START_UP.of(view)
    if ratios is not None and ratios.matrix.targets and ratios.matrix.groups:
        _ratios(writer, ratios)
    if startup is not None and startup.rows:
        _startup(writer, startup)
    _undecided(writer, view)
    _gaps(writer, view)
    _variations(writer, view)
    _claims(writer, view)
    writer.line()
    if view.overview is not None:
        _overview(writer, view.overview)
    for sentence in view.answers:
        writer.line(sentence, "bold")
    if view.remarks:
        writer.line(view.remarks)
    writer.line("; ".join(f"{fact.label.lower()} {fact.value.shown}" for fact in view.run), "dim")


def _machine(writer: Writer, view: Report) -> None:
    for fact in view.machine:
        writer.line(f"{fact.label}: {fact.value.shown}", "dim")


def _ratios(writer: Writer, view: Ratios) -> None:
    matrix = view.matrix
    names = [row.workload for group in matrix.groups for row in group.rows]
    first = min(max(map(len, names), default=0), _LONGEST_NAME)
    # Targets that do not fit next to each other go into further tables. rich would narrow the
    # columns until names and ratios break in the middle.
    for begin, end in _parts(writer, matrix, first):
        writer.console.print(_table(writer, matrix, begin, end))
    legend = [f"{mark.sign} {mark.word}" for mark in matrix.legend]
    writer.line(f"Time over native; more than 1{TIMES} is slower. {', '.join(legend)}.", "dim")
    if view.levels:
        writer.line(view.levels, "dim")
    if view.metrics:
        writer.line(view.metrics, "dim")
    writer.line(f"Near-native: shown to lie within \N{PLUS-MINUS SIGN}{view.margin}.", "dim")
    if any(mark.kind == "unproven" for mark in matrix.legend):
        writer.line("Why a cell is unproven: report.html, under Gaps and doubts.", "dim")


def _parts(writer: Writer, matrix: Matrix, first: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last column of each table, of which as many fit as possible."""
    widths = [
        _PAD
        + max(
            _name_width(target.name),
            *(len(_short(row.cells[place])) for group in matrix.groups for row in group.rows),
        )
        for place, target in enumerate(matrix.targets)
    ]
    begin, used = 0, first + _PAD
    for place, width in enumerate(widths):
        if place > begin and used + width > writer.console.width:
            yield begin, place
            begin, used = place, first + _PAD
        used += width
    yield begin, len(widths)


def _name_width(name: str) -> int:
    return max(map(len, textwrap.wrap(name, _NAME_WIDTH)), default=1)


def _cells(matrix: Matrix) -> Iterator[str]:
    for group in matrix.groups:
        for row in group.rows:
            yield from map(_short, row.cells)


def _short(cell: MatrixCell) -> str:
    if cell.mark.kind == "gap":
        return cell.mark.word
    return " ".join(part for part in (cell.ratio, cell.interval, cell.mark.sign) if part)


def _table(writer: Writer, matrix: Matrix, begin: int, end: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _PAD, 0, 0), show_edge=False)
    table.add_column("")
    for target in matrix.targets[begin:end]:
        name = "\n".join(textwrap.wrap(target.name, _NAME_WIDTH)) or "?"
        table.add_column(writer.text(name), justify="right", vertical="bottom")
    for group in matrix.groups:
        for row in group.rows:
            cells = [_styled(writer, cell) for cell in row.cells[begin:end]]
            table.add_row(writer.text(row.workload), *cells)
        table.add_row()
    return table


def _styled(writer: Writer, cell: MatrixCell) -> Text:
    style = "dim" if cell.mark.kind == "gap" else _STYLES.get(cell.mark.kind, "")
    return writer.text(_short(cell), style)


def _startup(writer: Writer, startup: StartUp) -> None:
    writer.line()
    writer.line("Start-up", "bold")
    writer.line(
        "Ratios are computed block by block: they can differ from the quotient of two medians, and"
        " more so where a target left early.",
        "dim",
    )
    for place, kind in enumerate(startup.kinds):
        cells = [(row.target.name, row.cells[place]) for row in startup.rows]
        found = [
            f"{name} {cell.value}" + (f" ({cell.ratio})" if cell.ratio else "")
            for name, cell in cells
            if cell.place is not None
        ]
        writer.line(f"{kind.name}: {', '.join(found) or 'not measured'}", indent=_PAD)
    for sentence in startup.null_spawns:
        writer.line(sentence, indent=_PAD)
    for phases in startup.start_phases:
        writer.line(f"{phases.target}, {phases.kind}: {phases.words}", indent=_PAD)


def _overview(writer: Writer, view: Overview) -> None:
    """Print the overview, in as many tables as its classes need."""
    short = len(view.rows) > _MOST_WITH_WORST
    cells = [[_overview_cell(cell, short=short) for cell in row.cells] for row in view.rows]
    first = max(_name_width(row.target.name) for row in view.rows) + _PAD
    begin, used = 0, first
    for place, name in enumerate(view.classes):
        lines = [line for row in cells for line in row[place].split("\n")]
        width = max(map(len, [name, *lines])) + _PAD
        if place > begin and used + width > writer.console.width:
            writer.console.print(_overview_table(writer, view, cells, begin, place))
            writer.line()
            begin, used = place, first
        used += width
    writer.console.print(_overview_table(writer, view, cells, begin, len(view.classes)))
    legend = ", ".join(f"{mark.sign} {mark.word}" for mark in view.legend)
    below = "" if short else " Below it, the workload with the highest ratio."
    writer.line(f"The mean of each class, for starts the times.{below} {legend}.", "dim")
    writer.line()


def _overview_cell(cell: OverviewCell, *, short: bool) -> str:
    if cell.mark.kind == "gap":
        return cell.mark.word
    first = f"{cell.figure} {cell.mark.sign}"
    if short:
        return first
    second = f"{cell.worst} {cell.worst_mark.sign}" if cell.worst_mark else cell.worst
    return "\n".join(part for part in (first, second) if part)


def _overview_table(
    writer: Writer, view: Overview, cells: Sequence[Sequence[str]], begin: int, end: int
) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _PAD, 0, 0), show_edge=False)
    table.add_column("")
    for name in view.classes[begin:end]:
        table.add_column(writer.text(name), justify="left", no_wrap=True)
    for row, texts in zip(view.rows, cells, strict=True):
        name = "\n".join(textwrap.wrap(row.target.name, _NAME_WIDTH)) or "?"
        styled = [
            writer.text(text, _STYLES.get(cell.mark.kind, ""))
            for cell, text in zip(row.cells[begin:end], texts[begin:end], strict=True)
        ]
        table.add_row(writer.text(name), *styled)
    return table


def _undecided(writer: Writer, view: Report) -> None:
    """Print the commands that settle cells, and what is known of the others."""
    found = UNDECIDED.of(view)
    if found is None:
        return
    writer.line()
    writer.line(f"Undecided: {found.count}", "bold")
    for way in found.resuming:
        writer.line(f"{way.names} would be settled by", indent=_PAD)
        writer.command(f"-> {way.command}", "cyan", indent=2 * _PAD)
    for way in found.separate[:_MOST_LINES]:
        writer.line(f"{way.names} would be settled by", indent=_PAD)
        writer.command(f"-> {way.command}", "cyan", indent=2 * _PAD)
    for cell in found.never[:_MOST_LINES]:
        writer.line(cell.sentence, indent=_PAD)
    more = len(found.separate[_MOST_LINES:]) + len(found.never[_MOST_LINES:])
    if more:
        writer.line(f"{more} more: report.html, under Undecided.", "dim", indent=_PAD)


def _gaps(writer: Writer, view: Report) -> None:
    found = GAPS.of(view)
    if found is None or not found.gaps:
        return
    writer.line()
    writer.line("Gaps", "bold")
    for gap in found.gaps:
        writer.line(f"{gap.target}, {gap.workloads}: {gap.cause}: {gap.detail.shown}", indent=_PAD)
        if gap.hint.shown:
            writer.line(f"-> {gap.hint.full or gap.hint.shown}", "cyan", indent=2 * _PAD)


def _variations(writer: Writer, view: Report) -> None:
    """Print the effects of single options, a line for each workload."""
    for one in VARIATIONS.of(view) or ():
        writer.line()
        writer.line(f"{one.base} with {one.change}", "bold")
        for effect in one.effects:
            words = f"{effect.mark.sign} {effect.workload}: {effect.sentence}"
            writer.line(words, _STYLES.get(effect.mark.kind, ""), indent=_PAD)


def _claims(writer: Writer, view: Report) -> None:
    """Print a line for each tested claim, and the figures where a claim is refuted."""
    claims = CLAIMS.of(view)
    if claims is None or not claims.all:
        return
    writer.line()
    writer.line(f"The documents' sentences: {claims.counts}", "bold")
    for claim in claims.tested:
        line = f"{claim.mark.sign} {claim.mark.word}: {_quoted(claim)}"
        writer.line(line, _style(claim), indent=_PAD)
        if claim.mark.kind == "refuted":
            writer.line(claim.sentence, "dim", indent=2 * _PAD)


def verification(
    view: Report,
    ids: Collection[str],
    console: Console,
    *,
    published: bool = False,
    short: bool = False,
) -> None:
    """Print the status of the claims with these ids, the figures, and what would change it.

    `published` adds figures that others have published. `short` leaves only the last lines.
    """
    writer = Writer(console)
    claims = CLAIMS.of(view)
    chosen = [claim for claim in claims.all if claim.id in ids] if claims else []
    for claim in () if short else chosen:
        writer.line(f"{claim.mark.sign} {claim.mark.word}: {_quoted(claim)}", _style(claim))
        writer.line(claim.sentence, indent=_PAD)
        # The sentence of an untested claim already says what a test needs.
        if claim.change and claim.mark.kind != "untested":
            writer.line(f"What would change this: {claim.change}.", "dim", indent=_PAD)
        for one in claim.published if published else ():
            writer.line(f"Published: {one.figure} - {one.source}", "dim", indent=_PAD)
    if not short:
        writer.line()
    counts = claim_counts(chosen)
    writer.line(f"Of {len(chosen)} claims: {counts}." if chosen else "No claim was judged.", "bold")
    writer.line(f"Judged on run {view.id}.", "dim")


def _style(claim: ClaimView) -> str:
    return _STYLES.get(claim.mark.kind, "")


def _quoted(claim: ClaimView) -> str:
    axes = ", ".join(f"{axis.name} {axis.mark.word}" for axis in claim.axes)
    # Classes that all have the status of the claim add nothing to it.
    differ = len({axis.mark.kind for axis in claim.axes}) > 1
    about = f" - {axes}" if differ else ""
    return f'"{claim.quote}" ({claim.id}){about}'
