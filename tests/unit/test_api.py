"""The Python interface: runs as frames, runs compared, and what a run is asked for."""

import contextlib
import errno
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import isobench
from isobench import api
from isobench.comparison.result import Comparison
from isobench.config.options import RunOptions
from isobench.model import Command, Stage
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import Nanoseconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed, Session
from isobench.report.write import Outcome
from isobench.run import cleanup, lifecycle, selection
from isobench.run.inside import Inside
from isobench.targets.native import NativeTarget

Write = Callable[..., Path]
CLAIMS = """
[[claims]]
id = "mine"
when = "workload =~ '^cpu\\\\.' and target == 'docker'"
assert = { kind = "equivalent", margin = "5%" }
"""


# ---- a run that was measured ---------------------------------------------------------------------


def columns_in(documentation: str) -> list[str]:
    """Return the columns that a docstring names after "Columns:"."""
    _, _, text = documentation.partition("Columns:")
    sentence = text.partition(". ")[0] if ". " in text else text
    plain = "".join(c for c in _without_parentheses(sentence) if c.isalnum() or c in "_ ,")
    return [word.strip() for word in plain.split(",") if word.strip()]


def _without_parentheses(text: str) -> str:
    depth, kept = 0, []
    for char in text:
        depth += char == "("
        if not depth:
            kept.append(char)
        depth -= char == ")"
    return "".join(kept)


@pytest.mark.parametrize("name", ["samples", "gaps", "cells", "verdicts", "claims"])
def test_the_documented_columns_are_those_of_the_frame(name: str, synthetic: Write) -> None:
    frame = getattr(isobench.load(synthetic()), name)
    assert isinstance(frame, pd.DataFrame)
    assert sorted(frame.columns) == sorted(columns_in(getattr(api.Run, name).__doc__))


def test_cells_and_verdicts_are_those_of_the_summary(synthetic: Write) -> None:
    run = isobench.load(synthetic())
    assert len(run.cells) == len(run.verdicts) == len(run.summary.cells) > 0
    for row, cell in zip(run.cells.itertuples(), run.summary.cells, strict=True):
        assert (row.target, row.workload, row.ratio) == (cell.target, cell.workload, cell.ratio)
        assert cell.interval is not None
        assert (row.lower, row.upper) == tuple(cell.interval)
    assert set(run.verdicts["status"]) <= {
        *("near-native", "slower", "faster", "inconclusive", "unproven")
    }
    assert str(run) == run.summary.run.headline != ""


def test_a_frame_that_was_changed_changes_no_other(synthetic: Write) -> None:
    run = isobench.load(synthetic())
    samples = run.samples
    samples["value"] = 0
    assert (run.samples["value"] > 0).any()


def test_the_latest_run_is_read_where_none_is_named(
    synthetic: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = tmp_path / "results"
    results.mkdir()
    monkeypatch.setenv("ISOBENCH_RESULTS_DIR", str(results))
    with pytest.raises(UsageError, match="there is no run"):
        isobench.load()
    (results / "latest").symlink_to(synthetic())
    assert isobench.load().cells.equals(isobench.load("latest").cells)


def test_a_zip_is_read_as_its_folder_is(synthetic: Write, tmp_path: Path) -> None:
    folder = synthetic()
    packed = shutil.make_archive(str(tmp_path / "run"), "zip", folder)
    assert isobench.load(packed).cells.equals(isobench.load(folder).cells)
    assert isobench.load(packed).page is None


def test_runs_are_compared_as_the_command_line_does(synthetic: Write) -> None:
    sides = [{"name": f"run{seed}", "seed": seed, "about": {"id": f"{seed}"}} for seed in (1, 2)]
    base, head = (isobench.load(synthetic(**side)) for side in sides)
    found = isobench.compare(base, head)
    assert isinstance(found, Comparison)
    assert found.changes
    with pytest.raises(UsageError):
        isobench.compare(base, base)
    wrong: Any
    for wrong in (5, 1, 0, -1.0, float("nan"), float("inf"), "5%", None):
        with pytest.raises(UsageError, match=r"minimum_effect is a share .* 0\.05 is 5 %"):
            isobench.compare(base, head, minimum_effect=wrong)


# ---- what a run is asked for ---------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, synthetic: Write) -> list[RunOptions]:
    """The options that a run was asked for; nothing is measured."""
    seen: list[RunOptions] = []

    def run(self: lifecycle.Lifecycle, _chosen: object) -> Outcome:
        seen.append(self.options)
        summary = isobench.load(place := synthetic()).summary
        return Outcome(folder=place, source=place, summary=summary)

    monkeypatch.setattr(cleanup, "sweep", lambda *_, **__: None)
    monkeypatch.setattr(selection, "choose", lambda *_: None)
    monkeypatch.setattr(selection, "prepare", lambda *_: None)
    monkeypatch.setattr(lifecycle.Lifecycle, "run", run)
    return seen


def test_what_is_asked_for_is_measured(asked: list[RunOptions], tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(CLAIMS)
    run = isobench.measure(
        ["docker"], ["cpu"], budget="2m", seed=3, margin=0.1, claims=tmp_path / "mine.toml"
    )
    assert isinstance(run, isobench.Run)
    (options,) = asked
    assert (options.targets, options.workloads) == (("docker",), ("cpu",))
    assert (options.budget, options.seed, options.margin) == (120.0, 3, 0.1)
    assert [claim.id for claim in options.claims] == ["mine"]


@pytest.mark.parametrize(
    ("given", "budget", "quick"),
    [
        ({}, 300.0, False),
        ({"budget": 7}, 7.0, False),
        ({"quick": True}, 55.0, True),
        ({"quick": True, "budget": "20s"}, 20.0, True),
    ],
)
def test_a_budget_is_seconds_or_a_text(
    given: dict[str, Any], budget: float, quick: bool, asked: list[RunOptions]
) -> None:
    isobench.measure(**given)
    assert (asked[0].budget, asked[0].quick) == (budget, quick)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"budget": "5x"}, "'5x' is not a duration"),
        ({"targets": ["dokcer"]}, "no target is called 'dokcer'"),
        ({"workloads": ["cpu.siev"]}, "no workload or class is called 'cpu.siev'"),
        ({"claims": "/nowhere.toml"}, "/nowhere.toml"),
        ({"config": "/nowhere.toml"}, "/nowhere.toml"),
        ({"folders": ["/nowhere"]}, "/nowhere"),
        ({"margin": 5}, "margin is a share between 0 and 1, where 0.05 is 5 %, not 5"),
        ({"margin": float("nan")}, "margin is a share"),
        ({"margin": "5%"}, "margin is a share"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_starts(
    given: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        isobench.measure(**given)


def test_a_name_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'nonsense'"):
        isobench.nonsense  # noqa: B018


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = "import sys, isobench; print(sorted({'pandas', 'numpy', 'msgspec'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_folder_of_programs_of_ones_own_has_an_owner_and_goes_with_the_sessions() -> None:
    inside = Inside("native")
    folder = inside._folder
    assert ownership.owner_of(folder.name) == ownership.mine()
    inside.close()
    assert not folder.exists()


class OneLimit:
    """A session whose instance a time limit ends, as that of a container or of a guest."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.has_ended = False

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        if self.has_ended:
            raise SessionError("the instance is gone")
        done = self.session.run(command, timeout=timeout)
        self.has_ended = done.exit_code is None
        return done


def test_after_a_time_limit_the_next_run_has_a_new_session(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[OneLimit] = []
    closed: list[OneLimit] = []
    of_native = NativeTarget.open

    @contextlib.contextmanager
    def open_session(self: NativeTarget, stage: Stage) -> Iterator[OneLimit]:
        with of_native(self, stage) as session:
            opened.append(OneLimit(session))
            try:
                yield opened[-1]
            finally:
                closed.append(opened[-1])

    monkeypatch.setattr(NativeTarget, "open", open_session)
    inside = Inside("native")
    try:
        assert inside.run("echo", "1").stdout == b"1\n"
        before = opened[-1]
        assert inside.run("echo", "2").stdout == b"2\n"
        assert opened[-1] is before
        assert inside.run("sleep", "60", timeout=0.2).exit_code is None
        # At once, so that nothing of it lies in the way of the next one.
        assert closed[-1] is before
        assert inside.run("echo", "3").stdout == b"3\n"
        assert opened[-1] is not before
    finally:
        inside.close()
    assert len(closed) == len(opened)


def test_a_configuration_that_is_not_used_is_named_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    own = tmp_path / "isobench.toml"
    own.write_text("[targets.landlock]\nseccomp = false\n")
    with pytest.warns(UserWarning, match=r"isobench.toml is ignored: .*config='isobench.toml'"):
        api._configured(None)
    own.chmod(0o666)
    with pytest.warns(UserWarning, match=f"{own} is ignored: everyone may write it"):
        api._configured(None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        api._configured(None)
        api._configured("isobench.toml")


def test_a_second_run_of_the_process_at_the_same_time_is_refused(
    asked: list[RunOptions], monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[str] = []

    def choose(*_: object) -> None:
        if not refused:
            refused.append("")
            with pytest.raises(UsageError) as caught:
                isobench.measure(["docker"], ["cpu"])
            refused[0] = str(caught.value)

    monkeypatch.setattr(selection, "choose", choose)
    isobench.measure(["docker"], ["cpu"])
    assert "is running already" in refused[0]
    assert len(asked) == 1


@pytest.mark.usefixtures("asked")
def test_a_step_that_cannot_be_shown_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def say(_: str) -> None:
        raise OSError(errno.EIO, "the terminal is closed")

    def prepare(_chosen: object, _options: object, hand_on: Callable[[str], None]) -> None:
        hand_on("a step")

    monkeypatch.setattr(selection, "prepare", prepare)
    assert isinstance(isobench.measure(["docker"], ["cpu"], say=say), isobench.Run)
