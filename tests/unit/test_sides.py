"""Which runs may be compared, and which cells both sides have."""

import dataclasses
from typing import Any

import pytest

from isobench.comparison.result import ComparisonOptions
from isobench.model import Cause, Gap, Work
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.report import comparison as view
from tests.comparisons import FSYNC, SIEVE, MakeRun, cell, compared, document


def test_a_run_is_not_compared_with_itself(make_run: MakeRun) -> None:
    one = make_run()
    with pytest.raises(UsageError, match="given twice"):
        compared(one, one)
    with pytest.raises(UsageError, match="given twice"):
        compared(one, make_run(), confirmation=one)


def test_another_machine_is_refused_unless_it_is_requested(make_run: MakeRun) -> None:
    host = {"cpu": "none", "cpus": 4, "kernel": "6.2", "filesystem": "ext4"}
    base, head = make_run(), make_run(about={"host": host})
    with pytest.raises(UsageError, match=r"kernel: 6\.1 -> 6\.2") as caught:
        compared(base, head)
    assert "--anyway" in caught.value.hint
    made = compared(base, head, ComparisonOptions(anyway=True))
    assert cell(made)["standing"] == "same"
    assert any("kernel" in warning for warning in view.warnings(made))


def programs(sha: str) -> dict[str, Any]:
    item = {"program": "cpu.sieve", "abi": "x86_64-linux", "sha256": sha * 64, "compiler": "c"}
    return {"payloads": [item | {"flags": []}]}


def test_a_cell_of_another_program_is_unlike_and_the_others_are_compared(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    base, head = make_run(ratios, about=programs("a")), make_run(ratios, about=programs("b"))
    made = compared(base, head)
    assert (cell(made)["standing"], cell(made)["change"]) == ("unproven", None)
    assert cell(made)["doubt_codes"] == ["unlike"]
    assert view.status_text(made.changes[0]) == "unlike"
    assert cell(made, "io.fsync")["standing"] == "same"
    anyway = cell(compared(base, head, ComparisonOptions(anyway=True)))
    assert (anyway["standing"], anyway["doubt_codes"]) == ("same", ["unlike"])


def test_unlike_numbers_of_loops_are_reported(make_run: MakeRun) -> None:
    base, head = make_run(), make_run()
    work = (Work(workload=WorkloadName("cpu.sieve"), loops=100_000, iterations=3),)
    head = dataclasses.replace(head, plan=dataclasses.replace(head.plan, work=work))
    found = cell(compared(base, head))
    assert found["doubt_codes"] == ["other-work"]
    assert found["standing"] == "same"


def test_no_cell_in_common_says_what_there_is(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match=r"BASE has box \(cpu\.sieve\); HEAD has jar"):
        compared(make_run(), make_run({("jar", "io.fsync"): 1.0}))


def test_a_run_that_ended_before_it_measured_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="no block with a value"):
        compared(make_run(), make_run(blocks=0))


def test_a_cell_of_one_side_is_listed_with_the_gap_of_the_other(make_run: MakeRun) -> None:
    gap = Gap(
        block=1,
        target=TargetName("box"),
        workload=WorkloadName("io.fsync"),
        cause=Cause.FAILED,
        detail="the disk is full",
    )
    made = compared(make_run({SIEVE: 1.0, FSYNC: 1.0}), make_run(gaps=[gap]))
    assert document(made)["absent"] == [
        {
            "target": "box",
            "workload": "io.fsync",
            "metric": "time",
            "lacking": "head",
            "cause": "failed",
            "detail": "the disk is full",
        }
    ]


def test_targets_and_workloads_may_be_chosen(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0, ("jar", "cpu.sieve"): 1.0}
    made = compared(
        make_run(ratios), make_run(ratios), ComparisonOptions(targets=("box",), workloads=("io",))
    )
    assert [one.cell for one in made.changes] == [("box", "io.fsync", "time")]
