"""The section Start-up: the time of each kind of start, its phases, and what it includes."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.model import Technology
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
from isobench.report.sections.phrases import gap_mark, native_note, start_kind, tails_of
from isobench.report.sections.scale import Scale, Tick, scale_of, ticks_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact, value_of
from isobench.storage.schema import StartPhases

_PHASES: Final = {
    "engine.created": "container created",
    "pod.created": "pod accepted by the cluster",
    "pod.attached": "container of the pod attached",
    "engine.started": "container started",
    "guest.output": "first output of the guest",
    "init": "first process of the guest",
    "state.restored": "state restored",
    "nonce": "nonce of the payload",
    "ssh": "SSH server ready",
    "shutdown.asked": "shutdown requested",
    "process.gone": "process ended",
    "gone": "everything ended",
}
_NO_MACHINES: Final = {
    Technology.EMULATION: "a machine whose instructions are all translated, which is far slower",
    Technology.PARAVIRTUAL: "a kernel that runs as a process, without a hypervisor",
}
"""What has a kernel of its own, and is no virtual machine."""
# A plug-in can report any number of phases.
_MOST_STEPS: Final = 20
_SPAWNERS: Final = {
    "vfork": "isobench's spawner",
    "subprocess": "Python's subprocess, whose own time is in all figures of this run",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class StartCell:
    """A kind of start of a target."""

    kind: str
    value: str
    ratio: str
    interval: str
    tails: str
    native: str
    """Native's time beside it, in words, where that is another than its own row shows."""
    mark: Mark
    place: float | None
    """The position on the time axis in percent of its width; None: there is no number."""
    doubts: tuple[str, ...] = ()
    """The anchors of its doubts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRow:
    """The starts of one target."""

    target: Heading
    anchor: str
    cells: tuple[StartCell, ...]
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartKind:
    """A kind of start, and what it measures."""

    name: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StartMeaning:
    """What the start-up figures of a target include, in its own sentences."""

    target: str
    sentences: tuple[Fact, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A phase of a start, and its time."""

    name: str
    at: str
    timed: bool
    """Whether it is the phase that ends the measured time: the nonce."""
    place: float
    """The position on the axis of this start, in percent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasesView:
    """The phases of one kind of start of one target, in order."""

    target: str
    kind: str
    steps: tuple[Step, ...]
    channel: str
    """The time of the channel alone, in words; empty: the target has none (see `Channel`)."""
    words: str
    """All phases in one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartUp:
    """The view of start-up."""

    kinds: tuple[StartKind, ...]
    ticks: tuple[Tick, ...]
    rows: tuple[StartRow, ...]
    no_machine: str
    """That no virtual machine is among them, and what is none; empty where one is."""
    null_spawns: tuple[str, ...]
    """Sentences about the start of the smallest program, one for each kind of start."""
    start_phases: tuple[PhasesView, ...]
    meanings: tuple[StartMeaning, ...]


def start_up(lookup: Lookup) -> StartUp:
    """Return the view of start-up, native first; without rows where no start was measured."""
    workloads = lookup.of_class(START_CLASS)
    cells = [cell for cell in lookup.cells.values() if cell.group == START_CLASS]
    if not cells:
        return StartUp(
            kinds=(), ticks=(), rows=(), no_machine="", null_spawns=(), start_phases=(), meanings=()
        )
    times = [time for cell in cells for time in (cell.value, cell.reference) if time]
    scale = scale_of(times, 0.001, 0.1)  # at least from 1 ms to 100 ms, for runs of native alone
    started = {cell.target for cell in cells}
    rows = [_start_row(lookup, native_heading(), workloads, scale)]
    rows += [
        _start_row(lookup, one, workloads, scale) for one in lookup.columns() if one.name in started
    ]
    return StartUp(
        kinds=tuple(StartKind(name=start_kind(one.name), summary=one.summary) for one in workloads),
        ticks=ticks_of(scale, lambda value: seconds_text(value, 1)),
        rows=tuple(rows),
        no_machine=_no_machine(lookup, started),
        null_spawns=tuple(_null_spawns(lookup)),
        start_phases=tuple(view for one in lookup.summary.start_phases if (view := _phases(one))),
        meanings=tuple(_meanings(lookup)),
    )


def _no_machine(lookup: Lookup, started: Collection[str]) -> str:
    """Return that no start of a virtual machine was measured; empty where one was."""
    mine = [one for one in lookup.targets if one.name in started]
    if any(one.technology is Technology.VIRTUALIZATION for one in mine):
        return ""
    kernels = [
        (one.name, _NO_MACHINES[one.technology])
        for one in mine
        if one.technology in _NO_MACHINES and one.evidence.get("kernel.boot_id") == "unlike"
    ]
    others = "".join(f" {name} is {what}." for name, what in kernels)
    return f"No start of a virtual machine was measured.{others}"


def _null_spawns(lookup: Lookup) -> Iterator[str]:
    """Yield the part of native's starts that the kernel needs for any program."""
    for one in lookup.summary.null_spawns:
        by = _SPAWNERS.get(one.spawner or "", "the same means")
        native, least = (seconds_text(each, 2) for each in (one.native, one.seconds))
        if one.seconds <= one.native:
            found = (
                f"{least} of it is what the kernel needs to start any program, measured with the"
                f" smallest one, started by {by}"
            )
        else:
            found = (
                f"the smallest program, started by {by}, takes {least}: the machine was too busy to"
                " show the kernel's part"
            )
        yield f"{start_kind(one.workload)}: native takes {native}; {found}"


def _meanings(lookup: Lookup) -> Iterator[StartMeaning]:
    for target in lookup.targets:
        if target.starts and not is_control(target.name):
            sentences = (
                Fact(label=kind, value=value_of(text)) for kind, text in target.starts.items()
            )
            yield StartMeaning(target=target.name, sentences=tuple(sentences))


def _phases(one: StartPhases) -> PhasesView | None:
    """Return the phases of a start; None where it has no phase but the nonce and the end."""
    phases = [(phase.name, phase.seconds) for phase in one.phases[:_MOST_STEPS]]
    phases = [(name, at) for name, at in phases if at >= 0]
    if not ({name for name, _ in phases} - {"nonce", "gone"}) and one.channel is None:
        return None
    last = max((at for _, at in phases), default=0) or 1.0
    steps = tuple(_step(name, at, last) for name, at in phases)
    channel = (
        ""
        if one.channel is None
        else f"the channel alone, measured separately: {seconds_text(one.channel, 2)}"
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
        timed=name == "nonce",
        place=round(100 * at / last, 2),
    )


def _start_row(
    lookup: Lookup, heading: Heading, workloads: Sequence[Workload], scale: Scale
) -> StartRow:
    cells = tuple(_start_cell(lookup, heading, workload, scale) for workload in workloads)
    words = joined(f"{cell.kind} {cell.value}" for cell in cells if cell.place is not None)
    anchors = (lookup.anchor_of(heading.name, workload.name) for workload in workloads)
    return StartRow(
        target=heading,
        anchor=next(filter(None, anchors), ""),
        cells=cells,
        label=f"{heading.name}: {words}",
    )


def _start_cell(lookup: Lookup, heading: Heading, workload: Workload, scale: Scale) -> StartCell:
    cell = lookup.cells.get((heading.name, workload.name))
    kind = start_kind(workload.name)
    if cell is not None:
        return StartCell(
            kind=kind,
            value=seconds_text(cell.value, cell.digits),
            ratio=cell.ratio_text,
            interval=cell.interval_text,
            tails=tails_of(cell),
            native=native_note(lookup, cell),
            mark=cell.mark,
            place=scale(cell.value) if cell.value else None,
            doubts=tuple(lookup.doubt_anchors[one] for one in dict.fromkeys(cell.data.doubts)),
        )
    native = lookup.reference(workload.name) if heading.name == REFERENCE else None
    mark = MARKS["reference"] if native else gap_mark(lookup, heading.name, workload.name)
    return StartCell(
        kind=kind,
        value=seconds_text(native),
        ratio="",
        interval="",
        tails="",
        native="",
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
    if view.no_machine:
        yield escaped(view.no_machine)
    if view.null_spawns:
        yield items(map(escaped, view.null_spawns))
    if view.start_phases:
        yield items(
            f"{escaped(f'{phases.target}, {phases.kind}')}: {escaped(phases.words)}"
            for phases in view.start_phases
        )


def _cell_line(cell: StartCell) -> str:
    if cell.place is None:
        return escaped(cell.mark.word)
    beside = f"; {cell.native}" if cell.native else ""
    text = f"{cell.value} ({cell.ratio} {cell.interval}{beside})" if cell.ratio else cell.value
    return escaped(text)


START_UP: Final = Section(
    anchor="start-up",
    title="Start-up",
    template="startup.html.j2",
    build=start_up,
    markdown=_markdown,
)
