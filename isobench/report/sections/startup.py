"""Start-up: how long each kind of start takes, and what a target's figures span."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.model.wording import joined
from isobench.report.markup import escaped, items, table
from isobench.report.sections.figures import seconds_text
from isobench.report.sections.lookup import (
    REFERENCE,
    START_CLASS,
    Heading,
    Lookup,
    Workload,
    is_control,
    native_heading,
)
from isobench.report.sections.marks import MARKS, Mark
from isobench.report.sections.phrases import gap_mark, start_kind, tails_of
from isobench.report.sections.scale import Scale, Tick, scale_of, ticks_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact, value_of
from isobench.storage.schema import StartPhases

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
_SPAWNERS: Final = {
    "vfork": "isobench's spawner",
    "subprocess": "Python's subprocess, which every figure of this run holds",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCell:
    """A kind of start of a target; `place` in percent of the time axis, None without a number."""

    kind: str
    value: str
    ratio: str
    interval: str
    tails: str
    mark: Mark
    place: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRow:
    """The starts of one target."""

    target: Heading
    cells: tuple[StartCell, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartKind:
    """A kind of start and what it spans."""

    name: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMeaning:
    """What a target's start-up figures span, in its own sentences."""

    target: str
    sentences: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A phase of a start: what passed, and when."""

    name: str
    at: str
    first: bool
    """It is the one that is timed: the nonce."""
    place: float
    """Where on the axis of its start, in per cent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesView:
    """The phases of one kind of start in one target, in their order."""

    target: str
    kind: str
    steps: tuple[Step, ...]
    channel: str
    """What the way to a session and back costs, in words; empty: it has no way of its own."""
    words: str
    """All of it in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """How long starting takes."""

    kinds: tuple[StartKind, ...]
    ticks: tuple[Tick, ...]
    rows: tuple[StartRow, ...]
    remains: tuple[str, ...]
    """What of native's figures the kernel takes for any program, a sentence for each kind."""
    start_phases: tuple[PhasesView, ...]
    meanings: tuple[StartMeaning, ...]


def start_up(found: Lookup) -> StartUp:
    """Return how long starting takes, native first; no rows where no start was measured."""
    workloads = found.of_class(START_CLASS)
    cells = [cell for cell in found.cells.values() if cell.group == START_CLASS]
    if not cells:
        return StartUp(kinds=(), ticks=(), rows=(), remains=(), start_phases=(), meanings=())
    times = [time for cell in cells for time in (cell.value, cell.reference) if time]
    scale = scale_of(times, 0.001, 0.1)
    started = {cell.target for cell in cells}
    rows = [_start_row(found, native_heading(), workloads, scale)]
    rows += [
        _start_row(found, one, workloads, scale) for one in found.columns() if one.name in started
    ]
    return StartUp(
        kinds=tuple(StartKind(name=start_kind(one.name), summary=one.summary) for one in workloads),
        ticks=ticks_of(scale, lambda value: seconds_text(value, 1)),
        rows=tuple(rows),
        remains=tuple(_remains(found)),
        start_phases=tuple(view for one in found.summary.start_phases if (view := _phases(one))),
        meanings=tuple(_meanings(found)),
    )


def _remains(found: Lookup) -> Iterator[str]:
    """Yield how much of native's starts is the kernel's part of starting anything at all."""
    for one in found.summary.null_spawns:
        by = _SPAWNERS.get(one.spawner or "", "the same means")
        amount = f"{seconds_text(one.seconds, 2)} for these, started by {by}"
        if one.seconds > one.native:
            amount += "; it is no faster than native's payload: the machine was too busy to tell"
        yield (
            f"{start_kind(one.workload)}: native's {seconds_text(one.native, 2)} hold the kernel's"
            f" clone, execution and first output; the smallest program takes {amount}"
        )


def _meanings(found: Lookup) -> Iterator[StartMeaning]:
    for target in found.targets:
        if target.starts and not is_control(target.name):
            sentences = (
                Fact(label=kind, value=value_of(said)) for kind, said in target.starts.items()
            )
            yield StartMeaning(target=target.name, sentences=tuple(sentences))


def _phases(one: StartPhases) -> PhasesView | None:
    """Return the phases of a start; None where the nonce and the end are all there is to show."""
    passed = [(phase.name, phase.seconds) for phase in one.phases[:_MOST_STEPS]]
    passed = [(name, at) for name, at in passed if at >= 0]
    if not ({name for name, _ in passed} - {"nonce", "gone"}) and one.channel is None:
        return None
    last = max((at for _, at in passed), default=0) or 1.0
    steps = tuple(_step(name, at, last) for name, at in passed)
    channel = (
        ""
        if one.channel is None
        else f"the channel alone, asked of it apart: {seconds_text(one.channel, 2)}"
    )
    words = [*(f"{step.at} {step.name}" for step in steps), *([channel] if channel else [])]
    return PhasesView(
        target=one.target,
        kind=start_kind(one.workload),
        steps=steps,
        channel=channel,
        words=", ".join(words),
    )


def _step(name: str, at: float, last: float) -> Step:
    return Step(
        name=_PHASES.get(name, name),
        at=seconds_text(at, 3),
        first=name == "nonce",
        place=round(100 * at / last, 2),
    )


def _start_row(
    found: Lookup, heading: Heading, workloads: Sequence[Workload], scale: Scale
) -> StartRow:
    cells = tuple(_start_cell(found, heading, workload, scale) for workload in workloads)
    words = joined(f"{cell.kind} {cell.value}" for cell in cells if cell.place is not None)
    return StartRow(target=heading, cells=cells, label=f"{heading.name}: {words}")


def _start_cell(found: Lookup, heading: Heading, workload: Workload, scale: Scale) -> StartCell:
    cell = found.cells.get((heading.name, workload.name))
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
    native = found.reference(workload.name) if heading.name == REFERENCE else None
    mark = MARKS["reference"] if native else gap_mark(found, heading.name, workload.name)
    return StartCell(
        kind=kind,
        value=seconds_text(native),
        ratio="",
        interval="",
        tails="",
        mark=mark,
        place=scale(native) if native else None,
    )


def _markdown(view: StartUp) -> Iterator[str]:
    if not view.rows:
        return
    yield "## Start-up"
    head = ["Target", *(escaped(kind.name) for kind in view.kinds)]
    yield table(
        head, ([escaped(row.target.name), *map(_cell_line, row.cells)] for row in view.rows)
    )
    if view.remains:
        yield items(map(escaped, view.remains))
    if view.start_phases:
        yield items(
            f"{escaped(f'{phases.target}, {phases.kind}')}: {escaped(phases.words)}"
            for phases in view.start_phases
        )


def _cell_line(cell: StartCell) -> str:
    if cell.place is None:
        return escaped(cell.mark.word)
    return escaped(f"{cell.value} ({cell.ratio} {cell.interval})" if cell.ratio else cell.value)


START_UP: Final = Section(
    anchor="start-up",
    title="Start-up",
    template="startup.html.j2",
    build=start_up,
    markdown=_markdown,
)
