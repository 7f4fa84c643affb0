"""Texts about targets and cells that several sections share."""

import math
from dataclasses import dataclass
from typing import Final

from isobench.model.wording import counted, joined, level_text
from isobench.report.sections.figures import amount_text
from isobench.report.sections.lookup import Figure, Lookup
from isobench.report.sections.marks import Mark
from isobench.report.sections.values import Value, value_of
from isobench.storage.schema import CellSummary, TargetSummary

_OTHER_NATIVE: Final = math.log(1.02)
"""From here on native's time in the blocks of a cell is worth a note."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A target without numbers, the reason, and what to type."""

    name: str
    status: str
    reason: Value
    hint: Value


def version_of(target: TargetSummary) -> Value:
    """Return the version of a target."""
    return value_of(target.version, "version not known")


def kernel_relation(target: TargetSummary) -> str:
    """Return how a target's kernel compares with the host's: "same", "unlike", or "" (unknown)."""
    relation = target.evidence.get("kernel.boot_id", "")
    if relation in {"same", "unlike"}:
        return relation
    # gVisor's kernel has no boot_id. Another version proves another kernel; the same version proves
    # nothing.
    return "unlike" if target.evidence.get("kernel.version") == "unlike" else ""


def missing_of(lookup: Lookup, target: TargetSummary) -> Missing:
    """Return why a target has no numbers and what to type; its gaps say so if it does not."""
    gap = lookup.gap_of_target(target.name)
    return Missing(
        name=target.name,
        status=target.status,
        reason=value_of(target.reason or (gap.detail if gap else ""), "no reason was recorded"),
        hint=value_of(target.hint or (gap.hint if gap else ""), ""),
    )


def gap_mark(lookup: Lookup, target: str, workload: str) -> Mark:
    """Return the mark of a cell without a number; its word is the cause."""
    gap = lookup.gap(target, workload)
    return Mark(kind="gap", word=gap.cause if gap else "not measured", sign="-")


def gap_detail(lookup: Lookup, target: str, workload: str) -> str:
    """Return why a cell has no number, clipped; empty where no reason is recorded."""
    gap = lookup.gap(target, workload)
    return value_of(gap.detail if gap else "", "").shown


def start_kind(workload: str) -> str:
    """Return the kind of start that a workload measures: "cold" of "startup.cold"."""
    return workload.partition(".")[2] or workload


def sessions_of(figure: Figure) -> int | None:
    """Return the number of sessions of a cell; None where each block had its own."""
    sessions = figure.data.sessions
    return sessions if sessions and sessions < figure.data.blocks else None


def other_levels(lookup: Lookup) -> str:
    """Return the levels of intervals that do not have the usual one; empty: all have it."""
    figures = (*lookup.cells.values(), *lookup.class_means.values())
    levels = sorted({figure.data.level for figure in figures if figure.ratio is not None})
    return joined(text.removeprefix(" at ") for text in map(level_text, levels) if text)


def tails_of(figure: Figure) -> str:
    """Return the slow end of a cell: tail quantiles and the largest value; empty for a mean."""
    cell = figure.data
    if not isinstance(cell, CellSummary):
        return ""
    quantiles = (("p95", cell.p95), ("p99", cell.p99))
    parts = [f"{name} {_quantile(at, cell.unit)}" for name, at in quantiles]
    if cell.maximum is not None:
        parts.append(f"largest {amount_text(cell.maximum, cell.unit)}")
    if cell.outlying_blocks:
        parts.append(counted(cell.outlying_blocks, "outlying block"))
    return "; ".join(parts)


def _quantile(value: float | None, unit: str) -> str:
    return "n too small" if value is None else amount_text(value, unit)


def native_note(lookup: Lookup, figure: Figure) -> str:
    """Return native's time in the blocks of a cell, where it was another one; else why the quotient
    of the times that are shown is not the ratio. Empty where it is.
    """
    usual, then = lookup.reference(figure.row), figure.reference
    if not usual or not then:
        return ""
    if abs(math.log(then / usual)) >= _OTHER_NATIVE:
        return f"native in the same blocks: {figure.reference_text}"
    # A ratio is the mean of those of the blocks, and each time a median over them.
    if figure.value and figure.bounds and figure.is_time:
        low, high = figure.bounds
        if not low <= figure.value / then <= high:
            return "times varied from block to block: their quotient is not the mean of the ratios"
    return ""
