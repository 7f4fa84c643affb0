"""Start-up: how long each kind of start takes, and what a target's figures span."""

from collections.abc import Iterable, Sequence
from typing import Final

from isobench.model import Technology
from isobench.report.sections.figures import seconds_text
from isobench.report.sections.marks import MARKS
from isobench.report.sections.phrases import gap_mark, start_kind, tails_of
from isobench.report.sections.run import REFERENCE, START_CLASS, Run, Workload, heading_of
from isobench.report.sections.scale import Scale, scale_of, ticks_of
from isobench.report.sections.shapes import (
    Fact,
    Heading,
    StartCell,
    StartKind,
    StartMeaning,
    StartPhases,
    StartRow,
    StartUp,
    Step,
)
from isobench.report.sections.values import clean, items_of, listed, mapping_of, number_of, value_of

_PHASES: Final = {
    "engine.created": "container created",
    "pod.created": "pod accepted by the cluster",
    "pod.attached": "its container runs, and is attached to",
    "engine.started": "container started",
    "guest.output": "the guest's first output",
    "init": "its first process",
    "state.restored": "state restored",
    "nonce": "the payload's nonce",
    "ssh": "SSH answers",
    "shutdown.asked": "asked to power off",
    "process.gone": "process gone",
    "gone": "gone",
}
_MOST_STEPS: Final = 20


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
        remains=tuple(_remains(run)),
        start_phases=tuple(_start_phases(run)),
        meanings=tuple(_meanings(run)),
    )


_SPAWNERS: Final = {
    "vfork": "isobench's spawner",
    "subprocess": "Python's subprocess, which every figure of this run holds",
}


def _remains(run: Run) -> Iterable[str]:
    """Yield how much of native's starts is the kernel's part of starting anything at all."""
    for raw in run.null_spawns:
        least, native = number_of(raw.get("seconds")), number_of(raw.get("native"))
        if least is None or native is None:
            continue
        kind = start_kind(clean(raw.get("workload")))
        by = _SPAWNERS.get(clean(raw.get("spawner")), "the same means")
        amount = f"{seconds_text(least, 2)} for these, started by {by}"
        if least > native:
            amount += "; it is no faster than native's payload: the machine was too busy to tell"
        yield (
            f"{kind}: native's {seconds_text(native, 2)} hold the kernel's clone, execution and"
            f" first output; the smallest program takes {amount}"
        )


def _meanings(run: Run) -> Iterable[StartMeaning]:
    for target in run.targets:
        sentences = tuple(
            Fact(label=clean(kind), value=value_of(sentence))
            for kind, sentence in mapping_of(target.raw.get("starts")).items()
        )
        if sentences and not target.heading.control:
            yield StartMeaning(target=target.name, sentences=sentences)


def _start_phases(run: Run) -> Iterable[StartPhases]:
    """Yield the ladders that have a phase to show beside the nonce and the end."""
    for raw in run.start_phases:
        phases = [
            (clean(phase.get("name")), number_of(phase.get("seconds")))
            for phase in items_of(raw.get("phases"))[:_MOST_STEPS]
        ]
        told = [(name, at) for name, at in phases if at is not None and at >= 0]
        cost = number_of(raw.get("channel"))
        if not ({name for name, _ in told} - {"nonce", "gone"}) and cost is None:
            continue
        last = max((at for _, at in told), default=0) or 1.0
        steps = tuple(
            Step(
                name=_PHASES.get(name, name),
                at=seconds_text(at, 3),
                first=name == "nonce",
                place=round(100 * at / last, 2),
            )
            for name, at in told
        )
        channel = (
            "" if cost is None else f"the channel alone, asked of it apart: {seconds_text(cost, 2)}"
        )
        yield StartPhases(
            target=clean(raw.get("target")),
            kind=start_kind(clean(raw.get("workload"))),
            steps=steps,
            channel=channel,
            words=", ".join(
                [*(f"{step.at} {step.name}" for step in steps), *([channel] if channel else [])]
            ),
        )


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
