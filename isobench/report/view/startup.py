"""Start-up: how long each kind of start takes, and what a target's figures span."""

from collections.abc import Iterable, Sequence

from isobench.model import Technology
from isobench.report.view.figures import seconds_text
from isobench.report.view.marks import MARKS
from isobench.report.view.phrases import gap_mark, start_kind, tails_of
from isobench.report.view.run import REFERENCE, START_CLASS, Run, Workload, heading_of
from isobench.report.view.scale import Scale, scale_of, ticks_of
from isobench.report.view.shapes import (
    Fact,
    Heading,
    StartCell,
    StartKind,
    StartMeaning,
    StartRow,
    StartUp,
)
from isobench.report.view.values import clean, listed, mapping_of, value_of


def start_up(run: Run) -> StartUp | None:
    """Return how long starting takes, native first; None where no start was measured."""
    workloads = [workload for workload in run.workloads if workload.group == START_CLASS]
    cells = [cell for cell in run.cells.values() if cell.group == START_CLASS]
    if not cells:
        return None
    times = [time for cell in cells for time in (cell.value, cell.reference) if time]
    scale = scale_of(times, 0.001, 0.1)
    started = {cell.target for cell in cells}
    native = heading_of(REFERENCE, Technology.NATIVE)
    rows = [_start_row(run, native, workloads, scale)]
    rows += [_start_row(run, one, workloads, scale) for one in run.columns() if one.name in started]
    return StartUp(
        kinds=tuple(StartKind(name=start_kind(one.name), summary=one.summary) for one in workloads),
        ticks=ticks_of(scale, lambda value: seconds_text(value, 1)),
        rows=tuple(rows),
        meanings=tuple(_meanings(run)),
    )


def _meanings(run: Run) -> Iterable[StartMeaning]:
    for target in run.targets:
        sentences = tuple(
            Fact(label=clean(kind), value=value_of(sentence))
            for kind, sentence in mapping_of(target.raw.get("starts")).items()
        )
        if sentences and not target.heading.control:
            yield StartMeaning(target=target.name, sentences=sentences)


def _start_row(run: Run, heading: Heading, workloads: Sequence[Workload], scale: Scale) -> StartRow:
    cells = tuple(_start_cell(run, heading, workload, scale) for workload in workloads)
    words = listed(f"{cell.kind} {cell.value}" for cell in cells if cell.place is not None)
    return StartRow(target=heading, cells=cells, label=f"{heading.name}: {words}")


def _start_cell(run: Run, heading: Heading, workload: Workload, scale: Scale) -> StartCell:
    cell = run.cells.get((heading.name, workload.name))
    kind = start_kind(workload.name)
    if cell is not None:
        return StartCell(
            kind=kind,
            value=seconds_text(cell.value, cell.digits),
            ratio=cell.ratio_text,
            interval=cell.interval_text,
            tails=tails_of(cell),
            mark=cell.mark,
            place=scale(cell.value) if cell.value else None,
        )
    native = run.reference(workload.name) if heading.name == REFERENCE else None
    mark = MARKS["reference"] if native else gap_mark(run, heading.name, workload.name)
    return StartCell(
        kind=kind,
        value=seconds_text(native),
        ratio="",
        interval="",
        tails="",
        mark=mark,
        place=scale(native) if native else None,
    )
