"""Confirms changes by new blocks, and decides which findings make `--fail-on` fail."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from enum import StrEnum

from isobench.comparison.result import CHANGED, SEVERAL, Change, Comparison, Status
from isobench.model import FAILED_CAUSES, Doubt
from isobench.model.wording import interval_text


class Failure(StrEnum):
    """A kind of finding for `--fail-on`."""

    # Only a confirmed one: at 5 % one run in twenty finds a change where there is none.
    REGRESSION = "regression"
    ERROR = "error"  # HEAD could not measure a cell that BASE has
    NOISY = "noisy"  # a cell without a verdict


def failures(comparison: Comparison) -> frozenset[Failure]:
    """Return the kinds of findings that a comparison has."""
    # A cell that BASE could not measure is no error of HEAD.
    lost = [absence for absence in comparison.absences if absence.lacking == "head"]
    found = {
        Failure.REGRESSION: any(
            change.status is Status.REGRESSION and change.confirmed for change in comparison.changes
        ),
        Failure.ERROR: any(absence.cause in FAILED_CAUSES for absence in lost),
        Failure.NOISY: any(change.status is Status.UNPROVEN for change in comparison.changes),
    }
    return frozenset(kind for kind, present in found.items() if present)


def confirmed_by_history(changes: Iterable[Change]) -> list[Change]:
    """Return the changes, confirmed where both sides have several runs."""
    # Each run has new blocks, and the interval is computed from the spread among runs.
    return [
        replace(change, confirmed=True)
        if change.status in CHANGED and min(change.base.runs, change.head.runs) >= SEVERAL
        else change
        for change in changes
    ]


def confirmed_by_run(changes: Sequence[Change], again: Iterable[Change]) -> list[Change]:
    """Return the changes after a further run. `again` has the changes of this run.

    A change that it shows again is confirmed. One that it does not show again becomes inconclusive.
    One whose cell it does not have, or has no verdict on, stays suspected.
    """
    by_cell = {change.cell: change for change in again}
    return [
        change
        if change.status not in CHANGED or change.cell not in by_cell
        else _confirmed(change, by_cell[change.cell])
        for change in changes
    ]


def _confirmed(change: Change, again: Change) -> Change:
    if again.status is change.status:
        return replace(change, confirmed=True)
    if again.status is Status.UNPROVEN:
        return replace(change, doubts=(*change.doubts, _unjudged(again)))
    interval = again.interval()
    seen = "nothing" if interval is None else interval_text(interval.ends)
    doubt = Doubt(
        code="not-confirmed",
        detail=f"suspected to be a {change.status}; the further run did not show it again: {seen}",
        advice="measure both sides again, with more blocks",
    )
    return replace(
        change,
        status=Status.INCONCLUSIVE,
        confirmed=False,
        doubts=(*change.doubts, doubt),
    )


def _unjudged(again: Change) -> Doubt:
    """Return the doubt that a further run has no verdict, and so shows neither."""
    reasons = [doubt.detail for doubt in again.doubts if doubt.blocks]
    return Doubt(
        code="confirmation-unproven",
        detail=f"the further run could not tell: {'; '.join(reasons) or 'it has too few blocks'}",
        advice="measure HEAD again, and confirm with that run",
    )
