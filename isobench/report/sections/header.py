"""The header of a report: headline, the facts that identify the run, warnings."""

import re
from collections import Counter
from collections.abc import Iterator
from statistics import median
from typing import Final

from isobench.evidence import prove
from isobench.model import Schedule, Technology
from isobench.model.wording import counted, joined
from isobench.report.sections.figures import duration_text, percent_text
from isobench.report.sections.lookup import Lookup, is_control
from isobench.report.sections.marks import MARKS
from isobench.report.sections.phrases import sessions_of
from isobench.report.sections.section import Banner
from isobench.report.sections.values import Fact, value_of
from isobench.storage.schema import HostFact, TargetSummary

TITLE: Final = "What isolation costs on this machine"
"""The title of every report."""
_KVM: Final = "KVMKVMKVM"
_SCHEDULES: Final = {Schedule.DUET: ", in duets", Schedule.SEQUENTIAL: ", not in random order"}


def _when(lookup: Lookup) -> str:
    begun, ended = lookup.run.began, lookup.run.ended
    if begun is None:
        return lookup.run.started or "not recorded"
    text = f"{begun.day} {begun:%B %Y, %H:%M}"
    if ended is None:
        return f"{text} UTC, not finished"
    pattern = "%H:%M" if begun.date() == ended.date() else "%d %B %Y, %H:%M"
    return f"{text} to {ended.strftime(pattern)} UTC"


def _blocks(lookup: Lookup) -> str:
    run = lookup.run
    if run.blocks is None:
        return "not recorded"
    planned = run.blocks_planned
    text = f"{run.blocks}" if planned is None else f"{run.blocks} (at most {planned})"
    text += _SCHEDULES.get(run.schedule, "")
    # A cell that has left has the level of an interim analysis.
    left = [one.data for one in lookup.cells.values() if one.data.level not in (None, run.level)]
    if fewest := min((one.blocks for one in left), default=0):
        text += f"; {counted(len(left), 'cell')} left earlier, from block {fewest} on"
    invalid = run.blocks_invalid
    return f"{text}; {invalid} discarded as disturbed" if invalid else text


def shared_sessions(lookup: Lookup) -> str:
    """Return the number of sessions of each target that has fewer than one for each block."""
    found: dict[str, list[int]] = {}
    for cell in lookup.cells.values():
        if (sessions := sessions_of(cell)) is not None:
            found.setdefault(cell.target, []).append(sessions)
    # Cells that left early had fewer of them.
    ends = {target: dict.fromkeys((min(own), max(own))) for target, own in found.items()}
    return joined(f"{' to '.join(map(str, own))} of {target}" for target, own in ends.items())


def _budget(lookup: Lookup) -> str:
    elapsed, budget = duration_text(lookup.run.elapsed_seconds), lookup.run.budget_seconds
    return (
        f"{elapsed} used, no limit set"
        if budget is None
        else f"{elapsed} of {duration_text(budget)}"
    )


def machine(lookup: Lookup) -> tuple[Fact, ...]:
    """Return the facts about the machine that every figure depends on, with its load and noise."""
    host = lookup.run.host or {}
    pairs = (
        ("Machine", lookup.run.machine or "not recorded"),
        ("Kernel", host.get("kernel")),
        ("Native", _native(host.get("virtualization"))),
        ("KVM", _kvm(lookup)),
        ("Load", _load(lookup)),
        ("Noise", _noise(lookup)),
    )
    return tuple(Fact(label=label, value=value_of(value)) for label, value in pairs if value)


def _native(virtualization: HostFact) -> str:
    """Return whether the machine is itself a guest; empty where that is unknown."""
    text = str(virtualization or "")
    if "guest" in text:
        return f"itself a {text}"
    return "no hypervisor is visible below it" if text else ""


def _kvm(lookup: Lookup) -> str:
    """Return whether a virtual machine of KVM was measured, and if not, why."""
    device = str((lookup.run.host or {}).get("kvm") or "")
    machines = [one for one in lookup.targets if one.technology is Technology.VIRTUALIZATION]
    if measured := [one.name for one in machines if one.measured and _is_of_kvm(one)]:
        return f"measured in {joined(measured)}"
    reason = next((one.reason for one in machines if one.name == "kvm" and one.reason), "")
    if reason:
        return f"not measured: {reason}"
    tried = "" if device.startswith("no ") else "; whether a guest runs on it was not tried"
    return f"not measured: the run was of other targets ({device}{tried})" if device else ""


def _is_of_kvm(target: TargetSummary) -> bool:
    """Return whether evidence shows KVM: QEMU's monitor on this host, or the signature inside."""
    facts = prove.gather(target.facts)
    return facts.value("host.accelerator") == "kvm" or facts.value("cpu.hypervisor") == _KVM


def _load(lookup: Lookup) -> str:
    load = (lookup.run.host or {}).get("load")
    if load is None or isinstance(load, str | bool):
        return ""
    busy = any(doubt.code == "busy-host" for doubt in lookup.run.doubts)
    return f"{load:.1f} when the run began" + (": busy" if busy else "")


def _noise(lookup: Lookup) -> str:
    """Return how far native's two visits differ; empty where that is unknown."""
    floors = {name: floor for name, floor in lookup.run.noise.items() if floor is not None}
    if not floors:
        return ""
    most = max(floors, key=lambda name: floors[name])
    middle = percent_text(median(floors.values()))
    if len(floors) == 1:
        return f"native measured twice may differ by {middle}"
    return (
        f"native measured twice may differ by {middle} (median of workloads), at most"
        f" {percent_text(floors[most])} ({most})"
    )


def run_line(lookup: Lookup) -> tuple[Fact, ...]:
    """Return the facts that identify the run: times, blocks, budget, seed and id."""
    run, sessions = lookup.run, shared_sessions(lookup)
    pairs = (
        ("Measured", _when(lookup)),
        ("Blocks", _blocks(lookup)),
        *((("Sessions", sessions),) if sessions else ()),
        ("Time", _budget(lookup)),
        ("Seed", run.seed),
        ("Run", run.id),
    )
    return tuple(Fact(label=label, value=value_of(value, "not recorded")) for label, value in pairs)


def banners(lookup: Lookup) -> Iterator[Banner]:
    """Yield the warnings about the whole run: quick, partial, empty."""
    if lookup.run.quick:
        text = "There are too few blocks for verdicts. The ratios are only a first estimate."
        yield Banner(kind="quick", title="Quick: no verdicts", text=text)
    if lookup.run.interrupted:
        text = "What was measured before is valid. Cells may be missing, and intervals are wide."
        yield Banner(kind="interrupted", title="Interrupted: partial", text=text)
    elif not lookup.run.complete:
        text = "The run did not reach the end of its plan. Cells may be missing."
        yield Banner(kind="interrupted", title="Incomplete", text=text)
    if not lookup.cells:
        text = "No cell has a number. Gaps and doubts shows the reasons, and what to do."
        yield Banner(kind="empty", title="Nothing was measured", text=text)


def records(lookup: Lookup) -> str:
    """Return the name of the file with the records, safe as a relative link."""
    # The name may come from a stranger's summary.json. Only a plain file name becomes a link: a
    # path or a URL could lead anywhere.
    name = lookup.run.records
    return name if re.fullmatch(r"[\w-][\w.-]*", name, re.ASCII) else "records.jsonl"


def remarks(lookup: Lookup) -> str:
    """Return the remarks of the headline: what is missing, and that the machine was busy."""
    return " ".join(lookup.run.remarks)


def headline(lookup: Lookup) -> str:
    """Return the headline of the summary without its remarks; where it has none, the number of
    cells by outcome.
    """
    text = lookup.run.headline.removesuffix(remarks(lookup)).rstrip()
    if text:
        return text
    timed = [cell for cell in lookup.cells.values() if cell.is_time]
    cells = [cell for cell in timed if not is_control(cell.target)]
    counts = Counter(cell.mark.word for cell in cells)
    if not counts:
        return "This run measured nothing."
    parts = joined(f"{counts[word]} {word}" for word in MARKS if counts[word])
    return f"{counted(counts.total(), 'cell')} measured: {parts}."


def answers(lookup: Lookup) -> tuple[str, ...]:
    """Return the sentences of the headline; of a summary that has only a headline, that."""
    return lookup.summary.answers.sentences or (headline(lookup),)
