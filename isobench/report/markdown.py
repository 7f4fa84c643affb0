"""Renders the view of a run as Markdown: for summary.md, summaries of CI jobs and comments."""

from collections.abc import Iterable

from isobench.report.markup import breaks, escaped, items, table
from isobench.report.sections.overview import Overview, OverviewCell
from isobench.report.sections.section import Report
from isobench.report.sections.values import Fact


def markdown(view: Report) -> str:
    """Return the machine, the answers, the facts that identify the run, and the sections with
    Markdown.
    """
    parts = [f"# {view.title}"]
    if view.machine:
        parts.append(_facts(view.machine))
    parts.append(items(map(escaped, view.answers)))
    if view.overview is not None:
        parts.append(_overview(view.overview))
        notes = " ".join(filter(None, (view.overview.note, view.calls)))
        parts += [escaped(notes)] if notes else []
    if view.remarks:
        parts.append(escaped(view.remarks))
    parts += [f"> **{escaped(one.title)}.** {escaped(one.text)}" for one in view.banners]
    parts.append(items(f"{escaped(f.label)}: {escaped(f.value.shown)}" for f in view.run))
    for part in view.parts:
        parts += part.markdown()
    return "\n\n".join(parts) + "\n"


def _facts(facts: Iterable[Fact]) -> str:
    return "; ".join(f"{escaped(one.label)}: {escaped(one.value.shown)}" for one in facts) + "."


def _overview(view: Overview) -> str:
    """Return the overview as a table."""
    head = ["", *map(escaped, view.classes)]
    rows = ([escaped(row.target.name), *map(_cell, row.cells)] for row in view.rows)
    return table(head, rows)


def _cell(cell: OverviewCell) -> str:
    if cell.mark.kind == "gap":
        return escaped(cell.mark.word)
    worst = f"worst: {cell.worst}" if cell.worst_mark else cell.worst
    first = f"**{escaped(cell.figure)}** {escaped(f'{cell.interval} {cell.mark.word}')}"
    return breaks((first, escaped(worst)))
