"""The documents' table: what they say of each technology beside what the run found."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from isobench.model import ClaimStatus, Status, Technology
from isobench.report.sections.figures import DASH, TIMES, decimals, seconds_text
from isobench.report.sections.marks import AGREEMENTS, IN_PART, MARKS
from isobench.report.sections.phrases import missing_of, start_kind, version_of
from isobench.report.sections.run import (
    START_CLASS,
    TECHNOLOGIES,
    Cell,
    Run,
    Target,
    class_title,
    groups_of,
)
from isobench.report.sections.shapes import Axis, Column, Fact, Finding, Mark, Missing
from isobench.report.sections.values import clean, items_of, listed, mapping_of


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


def columns(run: Run) -> tuple[Column, ...]:
    """Return one column per technology that the documents name, in their order."""
    return tuple(_column(run, document) for document in _DOCUMENTS)


def _without_numbers(missing: Sequence[Missing], left_out: Sequence[str]) -> Iterator[str]:
    """Yield who could not run, who was left out, and who could and has no numbers: its turn may not
    have come.
    """
    unable = [one.name for one in missing if one.status == "unavailable"]
    able = [one.name for one in missing if one.status != "unavailable"]
    if unable:
        yield f"{listed(unable)} could not run here"
    if left_out:
        yield f"{listed(left_out)} left out to keep the budget"
    if able:
        yield f"{listed(able)} gave no numbers"


def _column(run: Run, document: _Document) -> Column:
    targets = [
        target
        for target in run.targets
        if target.technology == document.technology and not target.raw.get("variation_of")
    ]
    ran = [target for target in targets if target.measured]
    lacking = [target for target in targets if not target.measured]
    left_out = tuple(target.name for target in lacking if target.raw.get("left_out"))
    missing = tuple(missing_of(run, each) for each in lacking if each.name not in left_out)
    if ran:
        empty = ""
    elif lacking:
        empty = f"Nothing measured: {'; '.join(_without_numbers(missing, left_out))}."
    else:
        empty = "Nothing measured: this run had no target of this kind."
    return Column(
        title=TECHNOLOGIES[document.technology],
        origin=document.origin,
        kernel=_kernel(run, document, ran),
        performance_says=document.performance,
        axes=_axes(run, document, ran),
        startup=_start_line(run, ran),
        examples_says=document.examples,
        ran=tuple(Fact(label=target.name, value=version_of(target)) for target in ran),
        missing=missing,
        left_out=left_out,
        empty=empty,
    )


def _claim_standing(claim: Mapping[str, Any] | None, axis: str = "") -> ClaimStatus | None:
    """Return what a claim says (of one axis), or None where it says nothing that was tested."""
    if claim is None:
        return None
    spelled = mapping_of(claim.get("axes")).get(axis) if axis else claim.get("standing")
    tested = {status.value: status for status in ClaimStatus}
    found = tested.get(clean(spelled))
    return None if found is ClaimStatus.UNTESTED else found


def _kernel(run: Run, document: _Document, ran: Sequence[Target]) -> Finding:
    seen: dict[str, list[Target]] = {"same": [], "unlike": [], "": []}
    for target in ran:
        evidence = mapping_of(target.raw.get("evidence"))
        relation = clean(evidence.get("kernel.boot_id"))
        if relation not in seen and clean(evidence.get("kernel.version")) == "unlike":
            relation = "unlike"  # it has no boot_id, and it is another build
        seen[relation if relation in seen else ""].append(target)
    parts = []
    if seen["same"]:
        parts.append(f"The host's kernel, shared (same boot_id in {_names(seen['same'])})")
    if seen["unlike"]:
        parts.append(f"A kernel of its own (other boot_id or build in {_names(seen['unlike'])})")
    if seen[""]:
        parts.append(f"Could not be read in {_names(seen[''])}")
    machines = sorted({machine for target in ran if (machine := _machine(target))})
    if machines and document.technology is Technology.EMULATION:
        parts.append(f"Processor shown inside: {listed(machines)}")
    return Finding(
        says=document.kernel,
        found=" ".join(f"{part}." for part in parts),
        agreement=_kernel_agreement(run, document, {key for key, names in seen.items() if names}),
    )


def _kernel_agreement(run: Run, document: _Document, seen: set[str]) -> Mark:
    """Return whether the boot_id relations that were seen are what the documents say."""
    if not seen:
        return AGREEMENTS[ClaimStatus.UNTESTED]
    if document.technology is Technology.EMULATION and "same" in seen:
        # User mode emulates the processor and leaves the kernel the host's: no plain yes or no.
        return IN_PART
    expected, other = ("same", "unlike") if document.shares_kernel else ("unlike", "same")
    status = _claim_standing(run.claims.get(document.kernel_claim))
    if status is None and other in seen:
        status = ClaimStatus.REFUTED
    elif status is None and seen == {expected}:
        status = ClaimStatus.SUPPORTED
    return AGREEMENTS[status or ClaimStatus.INCONCLUSIVE]


def _names(targets: Iterable[Target]) -> str:
    return listed(target.name for target in targets)


def _machine(target: Target) -> str:
    for expectation in items_of(target.raw.get("promises")):
        if expectation.get("key") == "machine":
            return clean(expectation.get("inside"))
    return ""


def _axes(run: Run, document: _Document, ran: Sequence[Target]) -> tuple[Axis, ...]:
    names = {target.name for target in ran}
    axes = []
    for group, _ in groups_of(run):
        cells = [c for c in run.cells.values() if c.group == group and c.target in names]
        if group == START_CLASS or not cells:
            continue
        kinds = Counter(cell.mark.kind for cell in cells)
        status = _claim_standing(run.claims.get(document.performance_claim), group)
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


def _spread(cells: Sequence[Cell], kinds: Mapping[str, int]) -> str:
    ratios = sorted((cell.ratio, decimals(cell.ratio, cell.bounds)) for cell in cells if cell.ratio)
    if not ratios:
        return "no ratio"
    low, high = (f"{ratio:.{min(2, places)}f}" for ratio, places in (ratios[0], ratios[-1]))
    text = f"{high}{TIMES}" if low == high else f"{low}{DASH}{high}{TIMES}"
    if len(kinds) == 1:
        return text
    return f"{text}: {listed(f'{kinds[kind]} {kind}' for kind in MARKS if kind in kinds)}"


def _start_line(run: Run, ran: Sequence[Target]) -> str:
    names = {target.name for target in ran}
    parts = []
    for workload in run.workloads:
        cells = [cell for key, cell in run.cells.items() if key[1] == workload.name]
        found = sorted(
            (cell.value, seconds_text(cell.value, min(2, cell.digits)))
            for cell in cells
            if workload.group == START_CLASS and cell.target in names and cell.value is not None
        )
        if found:
            low, high = found[0][1], found[-1][1]
            spread = high if low == high else f"{low} to {high}"
            parts.append(f"{start_kind(workload.name)} {spread}")
    return "; ".join(parts)
