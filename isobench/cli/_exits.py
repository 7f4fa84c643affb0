"""Exit codes, and the findings that --fail-on can name."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from isobench.cli import INTERRUPTED
from isobench.model import FAILED_CAUSES
from isobench.model.errors import CellFailedError, UnavailableError, UsageError

if TYPE_CHECKING:
    from isobench.report.write import Outcome
    from isobench.storage.schema import ClaimResult

TIMED_OUT: Final = 124  # as timeout(1) of coreutils does
NOISY: Final = 4
CLAIM_FAILED: Final = 1
GUARANTEE_BROKEN: Final = 1
REGRESSED: Final = 1
FAILURES: Final = ("claim", "documents", "regression", "error", "noisy", "skipped")
VERIFY_FAILURES: Final = ("claim", "documents", "error", "noisy", "skipped")
COMPARISON_FAILURES: Final = ("regression", "error", "noisy")
HISTORY_FAILURES: Final = ("regression",)
NOISE_FAILURES: Final = ("noisy",)


def refuse_unknown(
    kinds: Sequence[str], known: Sequence[str] = FAILURES, flag: str = "--fail-on"
) -> None:
    """Check the values of an option that takes a list. UsageError: one is not in `known`."""
    for kind in kinds:
        if kind not in known:
            raise UsageError(
                f"{flag}: {kind!r} is none of {', '.join(known)}",
                hint=f"for example {flag} {known[0]}",
            )


def exit_code(
    outcome: "Outcome",
    fail_on: Sequence[str],
    judged: "Sequence[ClaimResult] | None" = None,
    *,
    alarmed: bool = False,
) -> int:
    """Return the exit code of a run. `judged` are the claims that count; None: all. `alarmed`: a
    regression is confirmed.

    The order is that of severity: a run that did not end says nothing certain about claims.
    """
    summary = outcome.summary
    claims = summary.claims if judged is None else judged
    # Interruptions come first: a run that did not end may lack what would refute a claim.
    if outcome.interrupted:
        return INTERRUPTED
    if outcome.timed_out:
        return TIMED_OUT
    refuted = [claim for claim in claims if claim.status == "refuted"]
    # The documents' sentences are refuted on many healthy machines: they count only when asked for.
    if "claim" in fail_on and any(not claim.is_documents for claim in refuted):
        return CLAIM_FAILED
    if "documents" in fail_on and any(claim.is_documents for claim in refuted):
        return CLAIM_FAILED
    if alarmed:
        return REGRESSED
    # Failed cells need no --fail-on: something that was measured is broken.
    if any(gap.cause in FAILED_CAUSES for gap in summary.gaps):
        return CellFailedError.exit_code
    # A target that the user named must be able to run. Those that isobench found by itself need
    # not, unless the caller wants it ("skipped").
    if any(
        target.status == "unavailable" and (target.asked or "skipped" in fail_on)
        for target in summary.targets
    ):
        return UnavailableError.exit_code
    unsure = any(cell.status == "unproven" for cell in summary.cells)
    if "noisy" in fail_on and (unsure or summary.run.doubts):
        return NOISY
    return 0
