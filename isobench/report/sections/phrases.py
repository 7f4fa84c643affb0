"""What several parts of a report say of a target or a cell, in the same words."""

from isobench.report.sections.figures import seconds_text
from isobench.report.sections.run import Cell, Run, Target
from isobench.report.sections.shapes import Mark, Missing, Value
from isobench.report.sections.values import amount_of, clean, counted, number_of, value_of


def version_of(target: Target) -> Value:
    """Return the version of what isolates a target, as it was read."""
    return value_of(target.raw.get("version"), "version not known")


def missing_of(run: Run, target: Target) -> Missing:
    """Return why a target has no numbers and what to type, from itself or else its gaps."""
    gap = run.gap(target.name, "") or next(
        (gap for gap in run.gaps if clean(gap.get("target")) == target.name), {}
    )
    return Missing(
        name=target.name,
        status=target.status,
        reason=value_of(target.raw.get("reason") or gap.get("detail"), "no reason was recorded"),
        hint=value_of(target.raw.get("hint") or gap.get("hint"), ""),
    )


def gap_mark(run: Run, target: str, workload: str) -> Mark:
    """Return the mark of a cell without a number: its word is the cause."""
    gap = run.gap(target, workload)
    cause = clean(gap.get("cause")) if gap else ""
    return Mark(kind="gap", word=cause or "not measured", sign="-")


def start_kind(workload: str) -> str:
    """Return the kind of start that a workload measures: "cold" of "startup.cold"."""
    return workload.partition(".")[2] or workload


def sessions_of(cell: Cell) -> int | None:
    """Return how many sessions served the blocks of a cell, or None where each had its own."""
    sessions, blocks = (number_of(cell.raw.get(name)) for name in ("sessions", "blocks"))
    if sessions is None or blocks is None or not 0 < sessions < blocks:
        return None
    return int(sessions)


def tails_of(cell: Cell) -> str:
    """Return the slow end: tail quantiles where the sample allows them, and the largest value."""
    parts = []
    for name in ("p95", "p99"):
        if name in cell.raw:
            found = amount_of(cell.raw[name])
            parts.append(f"{name} {'n too small' if found is None else seconds_text(found)}")
    largest = amount_of(cell.raw.get("maximum"))
    if largest is not None:
        parts.append(f"largest {seconds_text(largest)}")
    outlying = amount_of(cell.raw.get("outlying_blocks"))
    if outlying:
        parts.append(f"{counted(int(outlying), 'outlying block')}")
    return "; ".join(parts)
