"""The overview of a run: each class of workloads at each target in short. Pure."""

from collections.abc import Iterable, Iterator, Sequence

from isobench.analysis.open_cells import DECIDED
from isobench.model import TIME, Status
from isobench.storage.schema import CellSummary, ClassMeanSummary, OverviewEntry
from isobench.workloads import classes


def overview(
    cells: Iterable[CellSummary], means: Iterable[ClassMeanSummary]
) -> Iterator[OverviewEntry]:
    """Yield an entry for each target and class that has cells, by class in the order of the
    report, then by target in the order of `cells`. Only times count.
    """
    together: dict[tuple[str, str], list[CellSummary]] = {}
    for cell in cells:
        if cell.metric == TIME.name:
            together.setdefault((cell.group, cell.target), []).append(cell)
    known: dict[tuple[str, str], ClassMeanSummary] = {
        (mean.group, mean.target): mean for mean in means if mean.ratio is not None
    }
    for key in sorted(together, key=lambda key: classes.rank(key[0])):
        yield _entry(together[key], known.get(key))


def _entry(cells: Sequence[CellSummary], mean: ClassMeanSummary | None) -> OverviewEntry:
    figure = mean or (cells[0] if len(cells) == 1 else None)
    with_ratio = [cell for cell in cells if cell.ratio is not None]
    ratios = sorted(cell.ratio for cell in with_ratio if cell.ratio is not None)
    # A start of no time is in records that were changed: it has no place on a scale.
    seconds = sorted(cell.value for cell in cells if cell.value)
    worst = max(with_ratio, key=lambda cell: cell.ratio or 0, default=None)
    is_start = cells[0].group == classes.START_UP
    return OverviewEntry(
        group=cells[0].group,
        target=cells[0].target,
        ratio=figure.ratio if figure else None,
        interval=figure.interval if figure else None,
        level=(figure or cells[0]).level,
        status=figure.status if figure else _shared(cells),
        ratios=(ratios[0], ratios[-1]) if ratios else None,
        seconds=(seconds[0], seconds[-1]) if is_start and seconds else None,
        worst=worst.workload if worst else None,
        worst_status=worst.status if worst else None,
        cells=len(cells),
        undecided=sum(cell.status not in DECIDED for cell in cells),
    )


def _shared(cells: Sequence[CellSummary]) -> Status | None:
    """Return the verdict that all cells share; None: they differ."""
    first, *others = dict.fromkeys(cell.status for cell in cells)
    return None if others else first
