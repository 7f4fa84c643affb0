"""What jobs of GitHub Actions expect: a summary of the job, and annotations.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from isobench.config import bounded, redaction
from isobench.model.wording import counted
from isobench.report.write import MARKDOWN

if TYPE_CHECKING:
    from isobench.history.alarm import Finding
    from isobench.history.beside import Beside
    from isobench.report.write import Outcome
    from isobench.storage.schema import Summary

MOST_SUMMARY: Final = 1 << 20
"""Bytes of the summaries of a step: a larger file is not shown at all."""
_FOLDED: Final = "## "
"""From this heading on the summary is folded."""
_MOST_ANNOTATIONS: Final = 10
"""GitHub shows so many errors, and so many warnings, of a step."""
_ESCAPED: Final = (("%", "%25"), ("\r", "%0D"), ("\n", "%0A"))
_ESCAPED_TITLE: Final = (*_ESCAPED, (":", "%3A"), (",", "%2C"))


def publish(outcome: "Outcome", fail_on: Sequence[str], beside: "Beside | None" = None) -> None:
    """Write the summary of the job and the annotations, where GitHub Actions asks for them.

    `beside`: how the run compares with the history; None: it was not compared.
    """
    if target := os.environ.get("GITHUB_STEP_SUMMARY"):
        _write_summary(Path(target), outcome, beside)
    if os.environ.get("GITHUB_ACTIONS") == "true":
        for line in annotations(outcome.summary, fail_on, beside.findings if beside else ()):
            # Standard error, which GitHub reads too: standard output may be an export.
            click.echo(line, err=True)


def _write_summary(target: Path, outcome: "Outcome", beside: "Beside | None") -> None:
    try:
        bounded.check_replaceable(target)
        text = outcome.text(MARKDOWN)
        room = MOST_SUMMARY - (target.stat().st_size if target.exists() else 0)
        with target.open("a", encoding="utf-8") as stream:
            stream.write(summary(text, room, _history(beside)))
    except OSError as error:
        click.echo(f"isobench: {target}: {error.strerror}: no summary of the job", err=True)


def _history(beside: "Beside | None") -> str:
    """Return the part about the history."""
    if beside is None:
        return ""
    from isobench.report import history as view
    from isobench.report import sheet

    return sheet.markdown(sheet.redacted(view.findings(beside, only_changed=True)))


def summary(text: str, room: int, history: str = "") -> str:
    """Return the Markdown of a job: answers and overview first, the rest folded.

    It has at most `room` bytes. What has no room is in the folder of the run.
    """
    head, heading, rest = text.partition(f"\n{_FOLDED}")
    head = f"{history.strip()}\n\n{head.strip()}\n".lstrip()
    folded = f"\n<details><summary>All figures</summary>\n\n{heading.lstrip()}{rest}\n</details>\n"
    if len((head + folded).encode()) <= room:
        return head + folded
    note = "\n_The full report is in the folder of the run: upload it as an artifact._\n"
    most = max(0, room - len(note.encode()) - 1)
    cut = head.encode()[:most].decode(errors="ignore")
    # Not in the middle of a row.
    cut = cut if len(cut) == len(head) else cut[: cut.rfind("\n") + 1]
    return cut + note if len(note) < room else ""


def annotations(
    summary: "Summary", fail_on: Sequence[str], findings: "Sequence[Finding]"
) -> Iterator[str]:
    """Yield a line for each refuted claim of the user's and each changed cell, the worst first."""
    errors = [*_regressions(findings, fail_on), *_claims(summary, fail_on)]
    for level in ("error", "warning"):
        own = [(title, text) for kind, title, text in errors if kind == level]
        more = len(own) - _MOST_ANNOTATIONS
        if more > 0:
            last = ("isobench", f"{counted(more + 1, 'finding')} more: see the summary of the job")
            own = [*own[: _MOST_ANNOTATIONS - 1], last]
        for title, text in own:
            yield f"::{level} title={_escaped(title, _ESCAPED_TITLE)}::{_escaped(text, _ESCAPED)}"


def _regressions(
    findings: "Sequence[Finding]", fail_on: Sequence[str]
) -> Iterator[tuple[str, str, str]]:
    from isobench.report import history as view

    for one in findings:
        if one.outcome == "regression":
            fails = one.is_alarm and "regression" in fail_on
            title = f"{'Confirmed' if one.confirmed else 'Suspected'} regression"
            yield "error" if fails else "warning", title, view.finding_text(one)


def _claims(summary: "Summary", fail_on: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for claim in summary.claims:
        kind = "documents" if claim.is_documents else "claim"
        if claim.status == "refuted" and (kind == "claim" or kind in fail_on):
            level = "error" if kind in fail_on else "warning"
            yield level, f"Claim {claim.id} is refuted", claim.sentence


def _escaped(text: str, table: Sequence[tuple[str, str]]) -> str:
    text = redaction.text(text)
    for character, code in table:
        text = text.replace(character, code)
    return text
