"""Copies of files that are in the folder of the run already."""

from isobench.report.write import MARKDOWN, PAGE, Outcome
from isobench.storage.documents import SUMMARY


def summary(outcome: Outcome) -> str:
    """Return summary.json."""
    return (outcome.folder / SUMMARY).read_text(encoding="utf-8")


def markdown(outcome: Outcome) -> str:
    """Return summary.md."""
    return (outcome.folder / MARKDOWN).read_text(encoding="utf-8")


def page(outcome: Outcome) -> str:
    """Return report.html."""
    return (outcome.folder / PAGE).read_text(encoding="utf-8")
