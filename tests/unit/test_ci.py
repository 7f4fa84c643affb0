"""What jobs of GitHub Actions are given: the summary of the job, and annotations."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.cli import _ci

Write = Callable[..., Path]

CLAIM = """
[[claims]]
id = "fast"
assert = { kind = "equivalent", margin = "5%", targets = ["box"], workloads = ["cpu.sieve"] }
"""


def test_the_answers_come_first_and_the_figures_are_folded() -> None:
    made = _ci.summary("# Title\n\n- answer\n\n## Ratios\n\n| a |\n", 10_000)
    head, _, folded = made.partition("<details>")
    assert "- answer" in head
    assert "## Ratios" in folded
    assert folded.rstrip().endswith("</details>")


def test_the_summary_keeps_the_limit_and_names_the_artifact() -> None:
    text = "# Title\n\n- answer\n\n## Ratios\n\n" + "| \N{EURO SIGN} |\n" * 10_000
    for room in (500, 20_000):
        made = _ci.summary(text, room)
        assert len(made.encode()) <= room
        assert "artifact" in made
        assert "- answer" in made
    assert _ci.summary(text, 10) == ""


def test_what_a_job_has_already_written_counts(
    isobench: Callable[..., Any],
    synthetic: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "summary"
    target.write_text("x" * (_ci.MOST_SUMMARY - 300) + "\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    assert isobench("report", synthetic(), "-q").code == 0
    assert target.stat().st_size <= _ci.MOST_SUMMARY


def test_a_report_writes_the_summary_of_the_job(
    isobench: Callable[..., Any],
    synthetic: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = tmp_path / "summary"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(target))
    assert isobench("report", synthetic(), "-q").code == 0
    assert "<details>" in target.read_text()


def test_a_summary_that_cannot_be_written_ends_nothing(
    isobench: Callable[..., Any], synthetic: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", "/nowhere/at/all")
    done = isobench("report", synthetic(), "-q")
    assert done.code == 0
    assert "no summary of the job" in done.err


def test_refuted_claims_of_ones_own_are_annotations_and_the_documents_sentences_are_none(
    isobench: Callable[..., Any],
    synthetic: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    own = tmp_path / "mine.toml"
    own.write_text(CLAIM)
    path = synthetic({("box", "cpu.sieve"): 2.0})
    done = isobench("verify", path, "--claims", own, "--fail-on", "claim")
    assert done.code == 1
    lines = [line for line in done.err.splitlines() if line.startswith("::")]
    assert len(lines) == 1
    assert lines[0].startswith("::error title=Claim fast is refuted::")
    done = isobench("verify", path, "--claims", own)
    assert "::warning title=Claim fast is refuted::" in done.err
    assert done.code == 0


def test_texts_cannot_end_an_annotation_or_begin_another() -> None:
    assert _ci._escaped("a\n::error::b%", _ci._ESCAPED) == "a%0A::error::b%25"
    assert _ci._escaped("a,b:c", _ci._ESCAPED_TITLE) == "a%2Cb%3Ac"
