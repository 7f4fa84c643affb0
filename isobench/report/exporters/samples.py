"""The samples of a run as CSV."""

from isobench.report.write import Outcome
from isobench.storage import records


def csv(outcome: Outcome) -> str:
    """Return all samples as CSV, one line each, as measured."""
    return records.csv(outcome.run().samples)
