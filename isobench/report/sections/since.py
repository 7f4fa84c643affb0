"""The section Since the runs before: cells that have changed in the history of this machine."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.model.wording import interval_text, series_text, times_text
from isobench.report.markup import escaped, table
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.section import Section
from isobench.report.signs import TIMES
from isobench.storage.schema import HistoryCell

_CHANGED: Final = ("regression", "improvement")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A cell that has changed."""

    target: str
    workload: str
    anchor: str
    before: str
    now: str
    change: str
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Since:
    """A run beside its history."""

    headline: str
    changes: tuple[Change, ...]


def since(lookup: Lookup) -> Since | None:
    """Return how a run compares with the runs before it; None: it was not compared."""
    found = lookup.summary.history
    if found is None:
        return None
    changes = (one for one in found.cells if one.outcome in _CHANGED)
    return Since(headline=found.headline, changes=tuple(_change(lookup, one) for one in changes))


def _change(lookup: Lookup, cell: HistoryCell) -> Change:
    row = series_text(cell.workload, cell.metric)
    return Change(
        target=cell.target,
        workload=row,
        anchor=lookup.anchor_of(cell.target, row),
        before=_times(times_text(cell.before)),
        now=_times(times_text(cell.now)),
        change=f"{_times(times_text(cell.change))} {interval_text(cell.interval)}".strip(),
        outcome=f"{'confirmed' if cell.confirmed else 'suspected'} {cell.outcome}",
    )


def _times(text: str) -> str:
    return text.replace("x", TIMES)


def _markdown(view: Since) -> Iterator[str]:
    yield "## Since the runs before"
    yield escaped(view.headline)
    if view.changes:
        head = ["Target", "Workload", "Before", "Now", "Change", "Outcome"]
        rows = (
            (one.target, one.workload, one.before, one.now, one.change, one.outcome)
            for one in view.changes
        )
        yield table(head, ([*map(escaped, row)] for row in rows))


SINCE: Final = Section(
    anchor="since",
    title="Since the runs before",
    template="since.html.j2",
    build=since,
    markdown=_markdown,
)
