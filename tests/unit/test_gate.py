"""What a further run confirms, and what makes a comparison fail."""

from typing import Any

import pytest

from isobench.cli._exits import COMPARISON_FAILURES
from isobench.comparison import gate
from isobench.comparison.gate import Failure
from isobench.model import Cause, Gap
from isobench.model.units import TargetName, WorkloadName
from isobench.report import comparison as view
from tests.comparisons import FSYNC, SIEVE, MakeRun, cell, compared


def test_a_further_run_confirms_a_regression(make_run: MakeRun) -> None:
    base, head, again = make_run({SIEVE: 1.0}), make_run({SIEVE: 1.3}), make_run({SIEVE: 1.3})
    made = compared(base, head, confirmation=again)
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", True)
    assert "1 confirmed regression: box cpu.sieve 1.30x" in view.headline(made)


def test_a_further_run_that_does_not_show_it_again_leaves_it_open(make_run: MakeRun) -> None:
    base, head, again = make_run({SIEVE: 1.0}), make_run({SIEVE: 1.3}), make_run({SIEVE: 1.0})
    found = cell(compared(base, head, confirmation=again))
    assert (found["standing"], found["confirmed"]) == ("inconclusive", False)
    assert found["doubt_codes"] == ["not-confirmed"]


def test_a_further_run_without_the_cell_leaves_it_suspected(make_run: MakeRun) -> None:
    base, head = make_run({SIEVE: 1.0, FSYNC: 1.0}), make_run({SIEVE: 1.3, FSYNC: 1.0})
    made = compared(base, head, confirmation=make_run({FSYNC: 1.0}))
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", None)
    assert "does not have this cell" in view.headline(made)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"about": {"quick": True}}, "a quick look of 15 blocks"),
        ({"blocks": 2}, "the run has too few blocks"),
        ({"missing": {("native#2", "cpu.sieve"): frozenset(range(16))}}, "noise floor is unknown"),
    ],
)
@pytest.mark.parametrize("ratio", [1.0, 1.3])
def test_a_further_run_that_cannot_tell_leaves_it_suspected(
    options: dict[str, Any], reason: str, ratio: float, make_run: MakeRun
) -> None:
    again = make_run({SIEVE: ratio}, **options)
    made = compared(make_run({SIEVE: 1.0}), make_run({SIEVE: 1.3}), confirmation=again)
    found = cell(made)
    assert (found["standing"], found["confirmed"]) == ("regression", None)
    assert found["doubt_codes"] == ["confirmation-unproven"]
    assert reason in found["doubts"][0]
    assert "could not tell" in view.headline(made)


def test_a_comparison_fails_by_confirmed_regressions_only(make_run: MakeRun) -> None:
    base, head, again = make_run({SIEVE: 1.0}), make_run({SIEVE: 1.3}), make_run({SIEVE: 1.3})
    assert gate.failures(compared(base, head)) == set()
    assert gate.failures(compared(base, head, confirmation=again)) == {Failure.REGRESSION}
    assert gate.failures(compared(head, base, confirmation=make_run({SIEVE: 1.0}))) == set()


def test_a_cell_without_a_verdict_is_noisy(make_run: MakeRun) -> None:
    assert gate.failures(compared(make_run(), make_run(about={"quick": True}))) == {Failure.NOISY}


@pytest.mark.parametrize(
    ("cause", "expected"), [(Cause.FAILED, {Failure.ERROR}), (Cause.UNAVAILABLE, set())]
)
def test_a_cell_that_failed_in_head_is_an_error_and_one_that_cannot_run_is_none(
    cause: Cause, expected: set[Failure], make_run: MakeRun
) -> None:
    gap = Gap(
        block=1,
        target=TargetName("box"),
        workload=WorkloadName("io.fsync"),
        cause=cause,
        detail="the disk is full",
    )
    whole, part = make_run({SIEVE: 1.0, FSYNC: 1.0}), make_run({SIEVE: 1.0}, gaps=[gap])
    assert gate.failures(compared(whole, part)) == expected
    assert gate.failures(compared(part, whole)) == set(), "BASE lacks it"


def test_the_command_line_knows_the_kinds_of_failures() -> None:
    assert set(COMPARISON_FAILURES) == set(Failure)
