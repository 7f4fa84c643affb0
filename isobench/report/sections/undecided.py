"""The section Undecided: the cells without a verdict, and what would settle each of them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.model import commands
from isobench.model.wording import counted, series_text
from isobench.report.markup import escaped, items
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.marks import MARKS, Mark
from isobench.report.sections.section import Section
from isobench.report.signs import TIMES
from isobench.storage.schema import OpenCell

_RATIO: Final = re.compile(r"(?<= )([\d.,]+)x(?=[ ,])")


@dataclass(frozen=True, slots=True, kw_only=True)
class UndecidedCell:
    """A cell without a verdict."""

    name: str
    """Target and workload: "docker at cpu.sieve"."""
    mark: Mark
    sentence: str
    """What is known of it, and why no command settles it if none does."""
    anchor: str

    @property
    def known(self) -> str:
        """The sentence without the name of the cell at its beginning."""
        return self.sentence.removeprefix(self.name).lstrip()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settling:
    """A command, and the cells that it would settle."""

    command: str
    """Empty: no longer run would settle the cells."""
    cells: tuple[UndecidedCell, ...]

    @property
    def names(self) -> str:
        """The cells in words."""
        return ", ".join(cell.name for cell in self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class Undecided:
    """The cells without a verdict."""

    count: str
    """Their number, in words."""
    resuming: tuple[Settling, ...]
    """Commands that continue this run, the shortest first."""
    separate: tuple[Settling, ...]
    """Commands that begin a run of one cell."""
    never: tuple[UndecidedCell, ...]
    """Cells that no longer run would settle."""


def undecided(lookup: Lookup) -> Undecided | None:
    """Return the cells without a verdict; None where there are none."""
    cells = lookup.summary.answers.open_cells
    if not cells:
        return None
    by_command: dict[str, list[UndecidedCell]] = {}
    for cell in cells:
        by_command.setdefault(cell.command, []).append(_cell(lookup, cell))
    never = by_command.pop("", [])
    ways = [Settling(command=one, cells=tuple(own)) for one, own in by_command.items()]
    ways.sort(key=lambda way: commands.budget_of(way.command) or 0.0)
    return Undecided(
        count=counted(len(cells), "cell"),
        resuming=tuple(way for way in ways if commands.resumes(way.command)),
        separate=tuple(way for way in ways if not commands.resumes(way.command)),
        never=tuple(never),
    )


def _cell(lookup: Lookup, cell: OpenCell) -> UndecidedCell:
    row = series_text(cell.workload, cell.metric)
    figure = lookup.cells.get((cell.target, row))
    return UndecidedCell(
        name=f"{cell.target} at {row}",
        mark=figure.mark if figure else MARKS["inconclusive"],
        # Of ratios alone: names may end in an x.
        sentence=_RATIO.sub(rf"\1{TIMES}", cell.sentence),
        anchor=lookup.anchor_of(cell.target, row) if figure else "",
    )


def _markdown(view: Undecided) -> Iterator[str]:
    yield f"## Undecided: {view.count}"
    if view.resuming or view.separate:
        yield items(_way(way) for way in (*view.resuming, *view.separate))
    if view.never:
        yield items(escaped(cell.sentence) for cell in view.never)


def _way(way: Settling) -> str:
    return f"`{way.command.replace('`', '')}` would settle {escaped(way.names)}."


UNDECIDED: Final = Section(
    anchor="undecided",
    title="Undecided",
    template="undecided.html.j2",
    build=undecided,
    markdown=_markdown,
)
