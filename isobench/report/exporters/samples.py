"""The samples of a run as CSV."""

from isobench.report.write import Outcome
from isobench.storage import reader, records


def csv(outcome: Outcome) -> str:
    """Return all samples as CSV, one line each, as measured."""
    return records.csv(reader.load(outcome.source).samples)
