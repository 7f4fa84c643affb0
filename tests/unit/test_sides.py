"""Which runs may be compared, and which cells both sides have."""

import dataclasses
from typing import Any

import pytest

from isobench.comparison.result import ComparisonOptions
from isobench.model import Cause, Gap, Work
from isobench.model.errors import IncomparableError, UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.report import comparison as view
from tests.comparisons import FSYNC, SIEVE, MakeRun, cell, compared, document


def test_a_run_is_not_compared_with_itself(make_run: MakeRun) -> None:
    one = make_run()
    with pytest.raises(UsageError, match="given twice"):
        compared(one, one)
    with pytest.raises(UsageError, match="given twice"):
        compared(one, make_run(), confirmation=one)


HOST = {"cpu": "none", "cpus": 4, "kernel": "6.1", "filesystem": "ext4"}


def test_another_kernel_is_compared_and_noted(make_run: MakeRun) -> None:
    base, head = make_run(about={"host": HOST}), make_run(about={"host": HOST | {"kernel": "6.2"}})
    made = compared(base, head)
    assert cell(made)["standing"] == "same"
    assert not list(view.warnings(made))
    assert "kernel: 6.1 -> 6.2" in list(view.notes(made))


def test_another_cpu_is_compared_by_ratios_with_a_warning(make_run: MakeRun) -> None:
    base, head = make_run(about={"host": HOST}), make_run(about={"host": HOST | {"cpu": "other"}})
    made = compared(base, head)
    assert cell(made)["standing"] == "same"
    (warning,) = view.warnings(made)
    assert "only ratios to native" in warning
    assert "cpu: none -> other" in warning


def test_another_processor_is_refused_unless_it_is_requested(make_run: MakeRun) -> None:
    base, head = (
        make_run(about={"host": HOST | {"machine": name}}) for name in ("x86_64", "aarch64")
    )
    with pytest.raises(IncomparableError, match="machine: x86_64 -> aarch64") as caught:
        compared(base, head)
    assert "--anyway" in caught.value.hint
    assert caught.value.exit_code == 7
    made = compared(base, head, ComparisonOptions(anyway=True))
    assert cell(made)["standing"] == "same"
    assert any("--anyway" in warning for warning in view.warnings(made))


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
    with pytest.raises(IncomparableError, match=r"BASE has box \(cpu\.sieve\); HEAD has jar"):
        compared(make_run(), make_run({("jar", "io.fsync"): 1.0}))


def test_a_run_that_ended_before_it_measured_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="no block with a value") as caught:
        compared(make_run(), make_run(blocks=0))
    # It has no plan either, without which --resume refuses it.
    assert caught.value.hint == "begin a new run: isobench run; or name another run"


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


def test_a_native_that_took_no_time_has_not_changed(make_run: MakeRun) -> None:
    base, head = make_run(), make_run()
    samples = head.samples.assign(value=head.samples["value"] * (head.samples["target"] == "box"))
    made = compared(base, dataclasses.replace(head, samples=samples))
    assert not made.native_changes


def test_targets_and_workloads_may_be_chosen(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0, ("jar", "cpu.sieve"): 1.0}
    made = compared(
        make_run(ratios), make_run(ratios), ComparisonOptions(targets=("box",), workloads=("io",))
    )
    assert [one.cell for one in made.changes] == [("box", "io.fsync", "time")]
