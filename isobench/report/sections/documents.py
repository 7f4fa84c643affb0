"""The section Documents: the documents' table with the results of this run."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isobench.model import ClaimStatus, Status, Technology
from isobench.model.wording import decimals, joined
from isobench.report.markup import breaks, escaped, quote, table
from isobench.report.sections.figures import seconds_text
from isobench.report.sections.lookup import (
    START_CLASS,
    Figure,
    Lookup,
    class_title,
)
from isobench.report.sections.marks import AGREEMENTS, IN_PART, MARKS, Mark
from isobench.report.sections.phrases import (
    Missing,
    kernel_relation,
    missing_of,
    start_kind,
    version_of,
)
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact
from isobench.report.signs import DASH, TIMES
from isobench.storage.schema import ClaimResult, TargetSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cell of the table: what the documents say, what this run found, whether they agree."""

    says: str
    found: str
    agreement: Mark | None
    """None: the documents say nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """The performance of a technology in one class of workloads."""

    name: str
    mark: Mark
    text: str
    agreement: Mark | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A technology of the documents' table, or one that was measured and is not in it."""

    title: str
    origin: str
    """The part of the documents with these sentences: the table or the prose; empty: none."""
    about: str
    """What the technology is, where the documents do not say it."""
    kernel: Finding
    performance_says: str
    axes: tuple[Axis, ...]
    startup: str
    examples_says: str
    ran: tuple[Fact, ...]
    """The targets that ran, with their versions."""
    missing: tuple[Missing, ...]
    """The targets that could not run here, or have no numbers."""
    left_out: tuple[str, ...]
    """The targets that could run, but did not fit into the budget."""
    empty: str
    """Why no target has numbers; empty where one has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Document:
    """What the documents say about a technology, and the claims that test it."""

    technology: Technology
    origin: str
    about: str = ""
    kernel: str = ""
    performance: str = ""
    examples: str = ""
    kernel_claim: str = ""
    performance_claim: str = ""
    shares_kernel: bool = False
    expected: Status | None = None
    """The verdict that agrees with the documents; None: they say nothing."""


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
        # The documents' table has no column for sandboxes: their prose describes them.
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


_ABOUT: Final[Mapping[Technology, str]] = {
    Technology.PARAVIRTUAL: (
        "A Linux kernel that runs as a process of the host, and uses the host's system calls in"
        " place of hardware. There is no hypervisor, so that it is no evidence for sentences on"
        " virtual machines. The documents do not describe it."
    ),
}
"""What a technology is that the documents do not describe."""


def columns(lookup: Lookup) -> tuple[Column, ...]:
    """Return a column for each technology of the documents, in their order; then one for each
    other technology of the run.
    """
    return tuple(_column(lookup, each) for each in (*_DOCUMENTS, *_others(lookup)))


def _others(lookup: Lookup) -> Iterator[_Document]:
    """Yield the technologies of the run of which the documents say nothing."""
    known = {Technology.NATIVE, *(document.technology for document in _DOCUMENTS)}
    for technology in dict.fromkeys(target.technology for target in lookup.targets):
        if technology not in known:
            about = _ABOUT.get(technology, "The documents do not describe this technology.")
            yield _Document(technology=technology, origin="", about=about)


def _without_numbers(missing: Sequence[Missing], left_out: Sequence[str]) -> Iterator[str]:
    """Yield the reasons why targets have no numbers."""
    unavailable = [one.name for one in missing if one.status == "unavailable"]
    # These could run. They failed, or the run ended before their first visit.
    available = [one.name for one in missing if one.status != "unavailable"]
    if unavailable:
        yield f"{joined(unavailable)} could not run here"
    if left_out:
        yield f"{joined(left_out)} left out to keep the budget"
    if available:
        yield f"{joined(available)} gave no numbers"


def _column(lookup: Lookup, document: _Document) -> Column:
    # Without variations: a target with an option turned off is not what the documents describe.
    targets = [
        target
        for target in lookup.targets
        if target.technology is document.technology and not target.variation_of
    ]
    ran = [target for target in targets if target.measured]
    lacking = [target for target in targets if not target.measured]
    left_out = tuple(target.name for target in lacking if target.left_out)
    missing = tuple(missing_of(lookup, each) for each in lacking if not each.left_out)
    if ran:
        empty = ""
    elif lacking:
        empty = f"Nothing measured: {'; '.join(_without_numbers(missing, left_out))}."
    else:
        empty = "Nothing measured: this run had no target of this technology."
    return Column(
        title=document.technology.heading,
        origin=document.origin,
        about=document.about,
        kernel=_kernel(lookup, document, ran),
        performance_says=document.performance,
        axes=_axes(lookup, document, ran),
        startup=_start_line(lookup, ran),
        examples_says=document.examples,
        ran=tuple(Fact(label=target.name, value=version_of(target)) for target in ran),
        missing=missing,
        left_out=left_out,
        empty=empty,
    )


def _tested(claim: ClaimResult | None, axis: str = "") -> ClaimStatus | None:
    """Return the status of a claim (in one class of workloads); None where it was not tested."""
    if claim is None:
        return None
    status = claim.axes.get(axis) if axis else claim.status
    return None if status is ClaimStatus.UNTESTED else status


def _kernel(lookup: Lookup, document: _Document, ran: Sequence[TargetSummary]) -> Finding:
    seen: dict[str, list[TargetSummary]] = {"same": [], "unlike": [], "": []}
    for target in ran:
        seen[kernel_relation(target)].append(target)
    parts = []
    if seen["same"]:
        parts.append(f"The host's kernel, shared (same boot_id in {_names(seen['same'])})")
    if seen["unlike"]:
        parts.append(f"A kernel of its own (other boot_id or build in {_names(seen['unlike'])})")
    if seen[""]:
        parts.append(f"The kernel could not be identified in {_names(seen[''])}")
    machines = sorted({machine for target in ran if (machine := _machine(target))})
    if machines and document.technology is Technology.EMULATION:
        parts.append(f"Processor seen inside: {joined(machines)}")
    agreement = _kernel_agreement(lookup, document, {key for key, names in seen.items() if names})
    if agreement is IN_PART and document.technology is Technology.EMULATION:
        parts.append(
            f"In part: {_names(seen['same'])} translates the program alone, and the host's kernel"
            " serves its calls"
        )
    elif agreement is IN_PART:
        parts.append(f"In part: this is not so in {_names(seen['unlike'])}")
    return Finding(
        says=document.kernel, found=" ".join(f"{part}." for part in parts), agreement=agreement
    )


def _kernel_agreement(lookup: Lookup, document: _Document, seen: set[str]) -> Mark | None:
    """Return whether the kernels that were seen agree with the documents."""
    if not document.kernel:
        return None
    if not seen:
        return AGREEMENTS[ClaimStatus.UNTESTED]
    if document.technology is Technology.EMULATION and "same" in seen:
        # QEMU in user mode emulates the processor, but system calls go to the host's kernel:
        # "Emulated" is then only half true.
        return IN_PART
    expected, other = ("same", "unlike") if document.shares_kernel else ("unlike", "same")
    status = _tested(lookup.claims.get(document.kernel_claim))
    if status is None and other in seen:
        status = ClaimStatus.REFUTED
    elif status is None and seen == {expected}:
        status = ClaimStatus.SUPPORTED
    elif status is ClaimStatus.SUPPORTED and other in seen:
        # The claim is about some targets, and another one differs: gVisor has a kernel of its own.
        return IN_PART
    return AGREEMENTS[status or ClaimStatus.INCONCLUSIVE]


def _names(targets: Iterable[TargetSummary]) -> str:
    return joined(target.name for target in targets)


def _machine(target: TargetSummary) -> str:
    inside = (one.inside for one in target.expectations if one.key == "machine")
    return str(next(inside, None) or "")


def _axes(lookup: Lookup, document: _Document, ran: Sequence[TargetSummary]) -> tuple[Axis, ...]:
    names = {target.name for target in ran}
    axes = []
    for group, _ in lookup.groups():
        timed = [cell for cell in lookup.cells_by_class.get(group, ()) if cell.is_time]
        cells = [cell for cell in timed if cell.target in names]
        if group == START_CLASS or not cells:
            continue
        kinds = Counter(cell.mark.kind for cell in cells)
        axes.append(
            Axis(
                name=class_title(group),
                mark=MARKS[_common_kind(kinds)],
                text=_spread(cells, kinds),
                agreement=_performance_agreement(lookup, document, group, kinds),
            )
        )
    return tuple(axes)


def _performance_agreement(
    lookup: Lookup, document: _Document, group: str, kinds: Mapping[str, int]
) -> Mark | None:
    """Return whether the verdicts of a class agree with the documents."""
    if document.expected is None:
        return None
    # The claim decides where it was tested: it may have a margin of its own.
    status = _tested(lookup.claims.get(document.performance_claim), group)
    return AGREEMENTS[status or _agreement(kinds, document.expected)]


def _common_kind(kinds: Mapping[str, int]) -> str:
    """Return one mark for several cells: their common one, or "mixed", or "inconclusive"."""
    decided = set(kinds) & {Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER}
    if len(kinds) == 1:
        return next(iter(kinds))
    return "mixed" if len(decided) > 1 else Status.INCONCLUSIVE


def _agreement(kinds: Mapping[str, int], expected: Status) -> ClaimStatus:
    """Compare a sentence with all cells. One other verdict refutes it; one undecided cell leaves it
    inconclusive.
    """
    if set(kinds) & ({Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER} - {expected}):
        return ClaimStatus.REFUTED
    return ClaimStatus.SUPPORTED if set(kinds) == {expected} else ClaimStatus.INCONCLUSIVE


def _spread(cells: Sequence[Figure], kinds: Mapping[str, int]) -> str:
    ratios = sorted((cell.ratio, decimals(cell.ratio, cell.bounds)) for cell in cells if cell.ratio)
    if not ratios:
        return "no ratio"
    low, high = (f"{ratio:.{min(2, places)}f}" for ratio, places in (ratios[0], ratios[-1]))
    is_one = float(low) == float(high)
    text = f"{min(low, high, key=len)}{TIMES}" if is_one else f"{low}{DASH}{high}{TIMES}"
    if len(kinds) == 1:
        return text
    return f"{text}: {joined(f'{kinds[kind]} {kind}' for kind in MARKS if kind in kinds)}"


def _start_line(lookup: Lookup, ran: Sequence[TargetSummary]) -> str:
    names = {target.name for target in ran}
    parts = []
    for workload in lookup.of_class(START_CLASS):
        times = sorted(
            (cell.value, seconds_text(cell.value, 2))
            for cell in lookup.cells_by_row.get(workload.name, ())
            if cell.target in names and cell.value is not None
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
    agreement = f"**{kernel.agreement.word}**" if kernel.agreement else ""
    return breaks((_quoted(kernel.says), escaped(column.about), seen, agreement))


def _quoted(sentence: str) -> str:
    """Return what the documents say as a quotation; empty where they say nothing."""
    return quote(sentence) if sentence else ""


def _performance_cell(column: Column) -> str:
    startup = f"Start-up, separately: {escaped(column.startup)}" if column.startup else ""
    axes = map(_axis_line, column.axes)
    empty = "" if column.axes else escaped(column.empty)
    return breaks((_quoted(column.performance_says), *axes, startup, empty))


def _axis_line(axis: Axis) -> str:
    agreement = f" (**{axis.agreement.word}**)" if axis.agreement else ""
    return f"{escaped(axis.name)}: {axis.mark.word} {escaped(axis.text)}{agreement}"


def _examples_cell(column: Column) -> str:
    missing = map(_missing_line, column.missing)
    out = f"Left out to keep the budget: {', '.join(column.left_out)}" if column.left_out else ""
    nothing = "" if column.ran or column.missing or out else escaped(column.empty)
    ran = (escaped(f"{one.label}: {one.value.shown}") for one in column.ran)
    return breaks((_quoted(column.examples_says), *ran, *missing, escaped(out), nothing))


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
