"""The samples of a run as they were measured."""

from isobench.report.write import Outcome
from isobench.storage import reader, records


def csv(outcome: Outcome) -> str:
    """Return all samples as CSV, a line each."""
    return records.csv(reader.load(outcome.source).samples)
