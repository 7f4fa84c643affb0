"""A section of the report: the cells with the highest ratios. Its template is the file beside."""

from collections.abc import Iterator

from isobench.report.markup import escaped, items
from isobench.report.sections import Lookup, Section
from isobench.report.sections.lookup import Figure

MOST = 3


def slowest(found: Lookup) -> tuple[Figure, ...] | None:
    """Return the slowest cells, the slowest first; None where nothing has a ratio."""
    cells = [cell for cell in found.cells.values() if cell.ratio is not None]
    return tuple(sorted(cells, key=lambda cell: -(cell.ratio or 0.0))[:MOST]) or None


def markdown(view: tuple[Figure, ...]) -> Iterator[str]:
    """Yield its one paragraph in summary.md."""
    yield items(escaped(f"{cell.target}, {cell.place}: {cell.ratio_text}") for cell in view)


SLOWEST = Section(
    anchor="slowest",
    title="The slowest cells",
    template="slowest.html.j2",
    build=slowest,
    markdown=markdown,
)
