"""The documents' table: what they say of each technology beside what the run found."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.model import ClaimStatus, Status, Technology
from isobench.model.wording import decimals, joined
from isobench.report.markup import breaks, escaped, quote, table
from isobench.report.sections.figures import DASH, TIMES, seconds_text
from isobench.report.sections.lookup import (
    START_CLASS,
    Figure,
    Lookup,
    class_title,
)
from isobench.report.sections.marks import AGREEMENTS, IN_PART, MARKS, Mark
from isobench.report.sections.phrases import Missing, missing_of, start_kind, version_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact
from isobench.storage.schema import ClaimResult, TargetSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the documents say in one place, what this run found, and whether the two agree."""

    says: str
    found: str
    agreement: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The performance of one technology in one class of workloads."""

    name: str
    mark: Mark
    text: str
    agreement: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One technology of the documents' table."""

    title: str
    origin: str
    """Where the documents say it: in their table or in prose."""
    kernel: Finding
    performance_says: str
    axes: tuple[Axis, ...]
    startup: str
    examples_says: str
    ran: tuple[Fact, ...]
    """The targets that ran, with their versions."""
    missing: tuple[Missing, ...]
    """The targets that could not run here or gave no numbers."""
    left_out: tuple[str, ...]
    """The targets that could run, and for which the budget had no room."""
    empty: str
    """Why the column holds no measurement; empty text where it does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What the documents say of one technology, and the claims that test it."""

    technology: Technology
    origin: str
    kernel: str
    performance: str
    examples: str
    kernel_claim: str = ""
    performance_claim: str = ""
    shares_kernel: bool
    expected: Status


_DOCUMENTS: Final = (
    _Document(
        technology=Technology.VIRTUALIZATION,
        origin="the documents' table",
        kernel="Guest OS",
        performance="Near-native",
        examples="VMware, Hyper-V",
        kernel_claim="kernel-vm",
        performance_claim="perf-vm",
        shares_kernel=False,
        expected=Status.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.CONTAINERIZATION,
        origin="the documents' table",
        kernel="Shared Host OS",
        performance="Near-native",
        examples="Docker, Kubernetes",
        kernel_claim="kernel-container",
        performance_claim="perf-container",
        shares_kernel=True,
        expected=Status.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.EMULATION,
        origin="the documents' table",
        kernel="Emulated",
        performance="Slower",
        examples="QEMU",
        kernel_claim="kernel-emulation",
        performance_claim="perf-emulation",
        shares_kernel=False,
        expected=Status.SLOWER,
    ),
    _Document(
        technology=Technology.TRANSLATION,
        origin="the documents' table",
        kernel="Host OS",
        performance="Near-native",
        examples="WINE",
        kernel_claim="kernel-translation",
        performance_claim="perf-translation",
        shares_kernel=True,
        expected=Status.NEAR_NATIVE,
    ),
    _Document(
        technology=Technology.SANDBOX,
        origin="the documents' prose",
        kernel="It shares the host OS and kernel",
        performance="minimal overhead",
        examples="Sandboxie-Plus",
        kernel_claim="sandbox-kernel",
        performance_claim="overhead-sandbox",
        shares_kernel=True,
        expected=Status.NEAR_NATIVE,
    ),
)


def columns(found: Lookup) -> tuple[Column, ...]:
    """Return one column per technology that the documents name, in their order."""
    return tuple(_column(found, document) for document in _DOCUMENTS)


def _without_numbers(missing: Sequence[Missing], left_out: Sequence[str]) -> Iterator[str]:
    """Yield who could not run, who was left out, and who could and has no numbers: its turn may not
    have come.
    """
    unable = [one.name for one in missing if one.status == "unavailable"]
    able = [one.name for one in missing if one.status != "unavailable"]
    if unable:
        yield f"{joined(unable)} could not run here"
    if left_out:
        yield f"{joined(left_out)} left out to keep the budget"
    if able:
        yield f"{joined(able)} gave no numbers"


def _column(found: Lookup, document: _Document) -> Column:
    targets = [
        target
        for target in found.targets
        if target.technology is document.technology and not target.variation_of
    ]
    ran = [target for target in targets if target.measured]
    lacking = [target for target in targets if not target.measured]
    left_out = tuple(target.name for target in lacking if target.left_out)
    missing = tuple(missing_of(found, each) for each in lacking if not each.left_out)
    if ran:
        empty = ""
    elif lacking:
        empty = f"Nothing measured: {'; '.join(_without_numbers(missing, left_out))}."
    else:
        empty = "Nothing measured: this run had no target of this kind."
    return Column(
        title=document.technology.heading,
        origin=document.origin,
        kernel=_kernel(found, document, ran),
        performance_says=document.performance,
        axes=_axes(found, document, ran),
        startup=_start_line(found, ran),
        examples_says=document.examples,
        ran=tuple(Fact(label=target.name, value=version_of(target)) for target in ran),
        missing=missing,
        left_out=left_out,
        empty=empty,
    )


def _tested(claim: ClaimResult | None, axis: str = "") -> ClaimStatus | None:
    """Return what a claim says (of one axis), or None where it says nothing that was tested."""
    if claim is None:
        return None
    status = claim.axes.get(axis) if axis else claim.status
    return None if status is ClaimStatus.UNTESTED else status


def _kernel(found: Lookup, document: _Document, ran: Sequence[TargetSummary]) -> Finding:
    seen: dict[str, list[TargetSummary]] = {"same": [], "unlike": [], "": []}
    for target in ran:
        seen[_kernel_relation(target)].append(target)
    parts = []
    if seen["same"]:
        parts.append(f"The host's kernel, shared (same boot_id in {_names(seen['same'])})")
    if seen["unlike"]:
        parts.append(f"A kernel of its own (other boot_id or build in {_names(seen['unlike'])})")
    if seen[""]:
        parts.append(f"Could not be read in {_names(seen[''])}")
    machines = sorted({machine for target in ran if (machine := _machine(target))})
    if machines and document.technology is Technology.EMULATION:
        parts.append(f"Processor shown inside: {joined(machines)}")
    return Finding(
        says=document.kernel,
        found=" ".join(f"{part}." for part in parts),
        agreement=_kernel_agreement(found, document, {key for key, names in seen.items() if names}),
    )


def _kernel_relation(target: TargetSummary) -> str:
    """Return how a target's kernel stands to the host's: "same", "unlike", or nothing."""
    relation = target.evidence.get("kernel.boot_id", "")
    if relation in {"same", "unlike"}:
        return relation
    # It has no boot_id, and it is another build.
    return "unlike" if target.evidence.get("kernel.version") == "unlike" else ""


def _kernel_agreement(found: Lookup, document: _Document, seen: set[str]) -> Mark:
    """Return whether the boot_id relations that were seen are what the documents say."""
    if not seen:
        return AGREEMENTS[ClaimStatus.UNTESTED]
    if document.technology is Technology.EMULATION and "same" in seen:
        # User mode emulates the processor and leaves the kernel the host's: no plain yes or no.
        return IN_PART
    expected, other = ("same", "unlike") if document.shares_kernel else ("unlike", "same")
    status = _tested(found.claims.get(document.kernel_claim))
    if status is None and other in seen:
        status = ClaimStatus.REFUTED
    elif status is None and seen == {expected}:
        status = ClaimStatus.SUPPORTED
    return AGREEMENTS[status or ClaimStatus.INCONCLUSIVE]


def _names(targets: Iterable[TargetSummary]) -> str:
    return joined(target.name for target in targets)


def _machine(target: TargetSummary) -> str:
    inside = (one.inside for one in target.expectations if one.key == "machine")
    return str(next(inside, None) or "")


def _axes(found: Lookup, document: _Document, ran: Sequence[TargetSummary]) -> tuple[Axis, ...]:
    names = {target.name for target in ran}
    axes = []
    for group, _ in found.groups():
        timed = [cell for cell in found.cells.values() if cell.is_time]
        cells = [cell for cell in timed if cell.group == group and cell.target in names]
        if group == START_CLASS or not cells:
            continue
        kinds = Counter(cell.mark.kind for cell in cells)
        status = _tested(found.claims.get(document.performance_claim), group)
        axes.append(
            Axis(
                name=class_title(group),
                mark=MARKS[_together(kinds)],
                text=_spread(cells, kinds),
                agreement=AGREEMENTS[status or _agreement(kinds, document.expected)],
            )
        )
    return tuple(axes)


def _together(kinds: Mapping[str, int]) -> str:
    """Return one word for several cells: their standing if shared, mixed if verdicts differ."""
    decided = set(kinds) & {Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "mixed" if len(decided) > 1 else Status.INCONCLUSIVE


def _agreement(kinds: Mapping[str, int], expected: Status) -> ClaimStatus:
    """Hold a sentence against every cell: one verdict refutes it, one open cell leaves it open."""
    if set(kinds) & ({Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER} - {expected}):
        return ClaimStatus.REFUTED
    return ClaimStatus.SUPPORTED if set(kinds) == {expected} else ClaimStatus.INCONCLUSIVE


def _spread(cells: Sequence[Figure], kinds: Mapping[str, int]) -> str:
    ratios = sorted((cell.ratio, decimals(cell.ratio, cell.bounds)) for cell in cells if cell.ratio)
    if not ratios:
        return "no ratio"
    low, high = (f"{ratio:.{min(2, places)}f}" for ratio, places in (ratios[0], ratios[-1]))
    text = f"{high}{TIMES}" if low == high else f"{low}{DASH}{high}{TIMES}"
    if len(kinds) == 1:
        return text
    return f"{text}: {joined(f'{kinds[kind]} {kind}' for kind in MARKS if kind in kinds)}"


def _start_line(found: Lookup, ran: Sequence[TargetSummary]) -> str:
    names = {target.name for target in ran}
    parts = []
    for workload in found.workloads:
        cells = [cell for key, cell in found.cells.items() if key[1] == workload.name]
        times = sorted(
            (cell.value, seconds_text(cell.value, min(2, cell.digits)))
            for cell in cells
            if workload.group == START_CLASS and cell.target in names and cell.value is not None
        )
        if times:
            low, high = times[0][1], times[-1][1]
            spread = high if low == high else f"{low} to {high}"
            parts.append(f"{start_kind(workload.name)} {spread}")
    return "; ".join(parts)


def _markdown(found: Sequence[Column]) -> Iterator[str]:
    yield "## What the documents say, and what this run found"
    yield table(
        ["", *(escaped(column.title) for column in found)],
        (
            ["Kernel", *map(_kernel_cell, found)],
            ["Performance", *map(_performance_cell, found)],
            ["Examples", *map(_examples_cell, found)],
        ),
    )


def _kernel_cell(column: Column) -> str:
    kernel = column.kernel
    seen = escaped(kernel.found or column.empty)
    return breaks((quote(kernel.says), seen, f"**{kernel.agreement.word}**"))


def _performance_cell(column: Column) -> str:
    startup = f"Start-up, apart: {escaped(column.startup)}" if column.startup else ""
    axes = map(_axis_line, column.axes)
    empty = "" if column.axes else escaped(column.empty)
    return breaks((quote(column.performance_says), *axes, startup, empty))


def _axis_line(axis: Axis) -> str:
    return (
        f"{escaped(axis.name)}: {axis.mark.word} {escaped(axis.text)} (**{axis.agreement.word}**)"
    )


def _examples_cell(column: Column) -> str:
    missing = map(_missing_line, column.missing)
    out = f"Left out to keep the budget: {', '.join(column.left_out)}" if column.left_out else ""
    nothing = "" if column.ran or column.missing or out else escaped(column.empty)
    ran = (escaped(f"{one.label}: {one.value.shown}") for one in column.ran)
    return breaks((quote(column.examples_says), *ran, *missing, escaped(out), nothing))


def _missing_line(one: Missing) -> str:
    text = f"{one.name} ({one.status}): {one.reason.shown}"
    return escaped(f"{text}; {one.hint.shown}" if one.hint.shown else text)


DOCUMENTS: Final = Section(
    anchor="documents",
    title="Documents",
    template="documents.html.j2",
    build=columns,
    markdown=_markdown,
)
