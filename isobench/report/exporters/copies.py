"""Copies of files that are in the folder of the run already."""

from isobench.report.write import MARKDOWN, PAGE, Outcome
from isobench.storage.documents import SUMMARY


def summary(outcome: Outcome) -> str:
    """Return summary.json."""
    return outcome.text(SUMMARY)


def markdown(outcome: Outcome) -> str:
    """Return summary.md."""
    return outcome.text(MARKDOWN)


def page(outcome: Outcome) -> str:
    """Return report.html."""
    return outcome.text(PAGE)
