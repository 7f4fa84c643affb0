"""What a command would replace, or leave out without a word: refused before it does anything."""

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isobench.cli import _complete, _gate, _outputs
from isobench.cli._front import cli
from isobench.history import alarm, store
from isobench.model.errors import TimeIsUpError
from isobench.report import write
from isobench.report.write import Outcome
from isobench.storage import reader
from tests.unit.command import Done

Write = Callable[..., Path]
Run = Callable[..., Done]


# ---- reports


@pytest.fixture
def packed(synthetic: Write, somewhere: Path) -> Path:
    path = synthetic(about={"id": "one"})
    shutil.make_archive(str(somewhere / "thesis"), "zip", path)
    return somewhere / "thesis.zip"


def test_the_report_of_a_zip_replaces_no_file_of_the_user(isobench: Run, packed: Path) -> None:
    mine = packed.parent / "thesis" / "summary.md"
    mine.parent.mkdir()
    mine.write_text("my thesis")
    done = isobench("report", packed, "-q")
    assert done.code == 2
    assert "thesis/summary.md is there already" in done.words
    assert "--output" in done.words
    assert mine.read_text() == "my thesis"
    assert isobench("report", packed, "-q", "-o", mine.parent).code == 0


def test_the_report_of_a_zip_is_written_again(isobench: Run, packed: Path) -> None:
    for _ in range(2):
        assert isobench("report", packed, "-q").code == 0


def test_the_report_of_a_zip_follows_no_link(isobench: Run, packed: Path, somewhere: Path) -> None:
    (somewhere / "elsewhere").mkdir()
    (somewhere / "thesis").symlink_to("elsewhere")
    done = isobench("verify", packed, "-q")
    assert done.code == 2
    assert "thesis is a link" in done.words
    assert [*(somewhere / "elsewhere").iterdir()] == []


def test_a_report_does_not_replace_that_of_another_run(
    isobench: Run, packed: Path, synthetic: Write
) -> None:
    other = synthetic(name="other", about={"id": "two"})
    done = isobench("report", packed, "-q", "-o", other)
    assert done.code == 2
    assert "is another run" in done.words
    assert not (other / "summary.json").exists()


def test_names_that_are_no_utf8_are_exported_with_escapes(tmp_path: Path) -> None:
    _outputs.write(str(tmp_path / "out"), "run s\udcff")
    assert (tmp_path / "out").read_text() == "run s\\udcff"


# ---- options without effect


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("-w", "cpu"), "--workloads"),
        (("--budget", "5s"), "--budget"),
        (("-r", "7"), "--blocks"),
        (("-o", "nowhere"), "--output"),
    ],
)
def test_noise_of_a_run_takes_no_options_of_measuring(
    words: tuple[str, ...], flag: str, isobench: Run, synthetic: Write
) -> None:
    done = isobench("noise", synthetic(), *words)
    assert done.code == 2
    assert f"{flag} cannot be used with a RUN" in done.words


def test_an_export_of_noise_is_checked_before_measuring(isobench: Run) -> None:
    done = isobench("noise", "--export-json", "nowhere/x.json")
    assert done.code == 2
    assert "nowhere does not exist" in done.words


@pytest.mark.parametrize(
    "variables", [{}, {"COMP_WORDS": "isobench run", "COMP_CWORD": "x"}], ids=["none", "no number"]
)
def test_a_shell_that_asks_in_a_wrong_way_gets_no_traceback(
    variables: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_ISOBENCH_COMPLETE", "zsh_complete")
    for name in ("COMP_WORDS", "COMP_CWORD"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit) as caught:
        _complete.answer(cli)
    assert caught.value.code == 2


# ---- the time limit of a command that measures twice


@pytest.fixture
def suspected(synthetic: Write, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Outcome:
    """A run one of whose cells is suspected to be slower than before."""
    path = synthetic()
    outcome = write.answer(path, path)

    def judge(rows: Any, _past: Any, **_: Any) -> list[alarm.Finding]:
        first, *others = [alarm.Finding(row=row, outcome=alarm.Outcome.UNCHANGED) for row in rows]
        return [replace(first, outcome=alarm.Outcome.REGRESSION), *others]

    monkeypatch.setattr(alarm, "judge", judge)
    monkeypatch.setattr(_gate, "store_at", lambda _: store.Store(tmp_path / "store"))
    return outcome


def beside(
    outcome: Outcome, second: Callable[..., Outcome], timeout: float | None = 60.0
) -> _gate.BesideHistory:
    options = {"store": None, "confirm": True, "timeout": timeout, "targets": ()}
    return _gate.beside_history(outcome, options, second, lambda _: None, 40.0)


def test_measuring_again_has_what_is_left_of_the_time_limit(suspected: Outcome) -> None:
    limits = []

    def second(options: Mapping[str, Any]) -> Outcome:
        limits.append(options["timeout"])
        return replace(suspected, timed_out=True)

    found = beside(suspected, second)
    assert limits == [20.0]
    assert found.timed_out
    assert found.found.findings[0].confirmed is None
    assert (suspected.folder / "history.json").exists()


def test_nothing_is_measured_again_after_the_time_limit(suspected: Outcome) -> None:
    def second(_: Mapping[str, Any]) -> Outcome:
        raise AssertionError

    assert beside(suspected, second, timeout=30.0).timed_out


def test_a_time_limit_before_measuring_again_leaves_the_findings(suspected: Outcome) -> None:
    def second(_: Mapping[str, Any]) -> Outcome:
        raise TimeIsUpError("passed", hint="more")

    found = beside(suspected, second)
    assert found.timed_out
    assert reader.load(suspected.folder).history is not None


def test_what_is_measured_again_decides_about_the_findings(suspected: Outcome) -> None:
    found = beside(suspected, lambda _: suspected).found
    assert found.findings[0].confirmed is False
    assert not found.is_alarm
    assert "did not show it again" in (suspected.folder / "history.json").read_text()


def test_an_interruption_of_measuring_again_is_one_of_the_command(suspected: Outcome) -> None:
    found = beside(suspected, lambda _: replace(suspected, interrupted=True), timeout=None)
    assert found.interrupted


def test_a_user_without_a_home_is_told_what_to_set(
    isobench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", home)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    done = isobench("run", "-n")
    assert done.code == 2
    assert "set HOME or XDG_CACHE_HOME" in done.words


def test_an_export_does_not_replace_the_run_itself(isobench: Run, synthetic: Write) -> None:
    path = synthetic()
    before = (path / "run.json").read_bytes()
    done = isobench("report", path, "-q", "--export-json", path / "run.json")
    assert done.code == 2
    assert "a file of the run itself" in done.words
    assert (path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "name",
    ["run.json", "plan.json", "records.jsonl", "history.json", "state/blocks.jsonl", "logs/x.log"],
)
def test_no_output_replaces_a_file_of_a_run(
    name: str, isobench: Run, synthetic: Write, somewhere: Path
) -> None:
    # The store has no runs: nothing is read before the check.
    path = synthetic()
    again = synthetic(name="again", about={"id": "again"})
    for folder in ("state", "logs"):
        (path / folder).mkdir(exist_ok=True)
    (somewhere / "way").symlink_to(path / name)
    before = {one: one.read_bytes() for one in path.rglob("*") if one.is_file()}
    for target in (path / name, somewhere / "way"):
        for words in (
            ("report", path, "-q", "--export-json", target),
            ("verify", again, "-q", "--export-csv", target),
            ("noise", again, "-q", "--export-json", target),
            ("compare", path, again, "-q", "--export-markdown", target),
            ("pack", again, "-o", target),
            ("history", "list", "--store", "hs", "--export-csv", target),
            ("history", "show", "--store", "hs", "--export-csv", target),
            ("history", "trend", "--store", "hs", "-o", target),
            ("history", "trend", "--store", "hs", "--export-json", target),
            ("history", "export", "--store", "hs", target),
            ("run", "-t", "native", "-o", "new", "--export-csv", target),
        ):
            done = isobench(*words)
            assert done.code == 2, words
            assert "a file of the run itself" in done.words, words
    assert {one: one.read_bytes() for one in path.rglob("*") if one.is_file()} == before


def test_the_records_of_a_run_that_begins_are_no_export(isobench: Run, somewhere: Path) -> None:
    (somewhere / "new").mkdir()
    done = isobench("run", "-t", "native", "-o", "new", "--export-csv", "new/records.jsonl")
    assert done.code == 2
    assert "new/records.jsonl: this is a file of the run itself" in done.words


def test_an_export_does_not_replace_the_zip_of_a_run_and_a_bundle_may(
    isobench: Run, packed: Path, synthetic: Write
) -> None:
    before = packed.read_bytes()
    done = isobench("noise", packed, "-q", "--export-json", packed)
    assert done.code == 2
    assert "a file of the run itself" in done.words
    assert packed.read_bytes() == before
    assert isobench("pack", synthetic(name="other"), "-o", packed).code == 0


def test_no_output_replaces_a_file_of_a_history(isobench: Run, synthetic: Write) -> None:
    pytest.importorskip("duckdb", reason="the extra history is not installed")
    path = synthetic()
    assert isobench("history", "add", path, "--store", "hs").code == 0
    files = [one for one in Path("hs").rglob("*") if one.is_file() and one.name != ".lock"]
    assert len(files) == 2
    before = [one.read_bytes() for one in files]
    for target in files:
        for words in (
            ("pack", path, "-o", target),
            ("report", path, "-q", "--export-csv", target),
            ("history", "list", "--store", "hs", "--export-json", target),
            ("history", "export", "--store", "hs", target),
        ):
            done = isobench(*words)
            assert done.code == 2, words
            assert "a file of a history itself" in done.words, words
    assert [one.read_bytes() for one in files] == before
    assert isobench("history", "export", "--store", "hs", Path("hs/all.csv")).code == 0


def test_reports_and_other_files_in_the_folder_of_a_run_may_be_replaced(
    isobench: Run, synthetic: Write
) -> None:
    path = synthetic()
    for name in ("report.html", "summary.md", "mine.json"):
        for _ in range(2):
            assert isobench("report", path, "-q", "--export-json", path / name).code == 0
    # It is called like a file of a run, and is of none.
    Path("out").mkdir()
    for _ in range(2):
        assert isobench("report", path, "-q", "--export-json", "out/run.json").code == 0


def test_a_variation_that_is_no_utf8_is_refused(isobench: Run) -> None:
    done = isobench("run", "-n", "-t", "native", "--vary", "landlock.network=bad\udcff")
    assert done.code == 2
    assert "--vary landlock.network=bad" in done.words


def test_an_export_may_be_a_pipe_of_the_shell() -> None:
    reading, writing = os.pipe()
    _outputs.write(f"/dev/fd/{writing}", "text")
    os.close(writing)
    with os.fdopen(reading) as stream:
        assert stream.read() == "text"
