"""The headline says what the verdicts say, and nothing else."""

import dataclasses

import pytest

from isobench.analysis.headline import headline
from isobench.model import Estimate, Interval, Status, Technology, Verdict
from isobench.model.units import TargetName, WorkloadName

TECHNOLOGIES = {
    TargetName(name): technology
    for name, technology in {
        "native": Technology.NATIVE,
        "namespaces": Technology.CONTAINERIZATION,
        "docker": Technology.CONTAINERIZATION,
        "bubblewrap": Technology.SANDBOX,
        "qemu-user-aarch64": Technology.EMULATION,
    }.items()
}
NEAR, SLOWER, FASTER = Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER
OPEN, UNPROVEN = Status.INCONCLUSIVE, Status.UNPROVEN


def cell(target: str, workload: str, ratio: float | None, status: Status) -> Verdict:
    interval = Interval(low=0.9, high=1.1, level=0.9)
    estimate = ratio and Estimate(
        ratio=ratio,
        interval=interval,
        equivalence=interval,
        check=None,
        p_equivalence=1e-6,
        standard_error=0.01,
        deviation=0.01,
        blocks=12,
        method="t",
    )
    return Verdict(
        target=TargetName(target),
        workload=WorkloadName(workload),
        status=status,
        estimate=estimate or None,
    )


def headline_of(*cells: Verdict, quick: bool = False, complete: bool = True) -> str:
    return headline(cells, TECHNOLOGIES, quick=quick, complete=complete, margin=1.05)


def test_it_names_near_native_and_slower_targets_with_ratios() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR),
        cell("namespaces", "cpu.sieve", 1.01, NEAR),
        cell("qemu-user-aarch64", "cpu.sieve", 2.31, SLOWER),
        cell("qemu-user-aarch64", "cpu.matmul", 28.4, SLOWER),
    )
    assert text == (
        "CPU work: near-native in docker and namespaces; slower in qemu-user-aarch64 (2.3-28x)."
        " Near-native means shown within 5 %. No cell is undecided."
    )


def test_each_class_has_its_sentence_cpu_first() -> None:
    text = headline_of(
        cell("docker", "startup.cold", 541.0, SLOWER),
        cell("docker", "io.fsync", 1.0, NEAR),
        cell("docker", "cpu.sieve", 1.0, NEAR),
        cell("docker", "custom.thing", 1.2, SLOWER),
    )
    places = [text.index(name) for name in ("CPU work:", "I/O:", "Start-up:", "custom:")]
    assert places == sorted(places)
    assert "slower in docker (540x)" in text
    assert "slower in docker (1.20x)" in text


def test_an_undecided_cell_is_counted() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR), cell("docker", "cpu.threads", 1.1, OPEN)
    )
    assert "partly near-native in docker (1 of 2 cells)" in text
    assert ": near-native" not in text
    assert "1 of 2 cells are undecided" in text


def test_one_slower_cell_keeps_a_target_from_being_called_near_native() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR), cell("docker", "cpu.sha256", 1.2, SLOWER)
    )
    assert "near-native in" not in text
    assert "slower in docker (1.20x)" in text


@pytest.mark.parametrize("status", [OPEN, UNPROVEN])
def test_a_target_without_any_verdict_is_undecided(status: Status) -> None:
    assert "undecided in docker" in headline_of(cell("docker", "cpu.sieve", 1.0, status))


def test_faster_targets_are_called_unexplained() -> None:
    assert "faster, unexplained, in docker" in headline_of(cell("docker", "cpu.sieve", 0.8, FASTER))


def test_native_and_its_control_are_left_out() -> None:
    assert headline_of(
        cell("native#2", "cpu.sieve", 1.0, NEAR), cell("native", "cpu.sieve", 1.0, NEAR)
    ) == ("Nothing was measured except native.")


def test_a_quick_run_gives_ratios_and_no_verdicts() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 0.97, UNPROVEN),
        cell("docker", "cpu.matmul", 1.02, UNPROVEN),
        cell("bubblewrap", "cpu.sieve", None, UNPROVEN),
        quick=True,
    )
    assert text == (
        "Quick run: ratios to native, no verdicts."
        " CPU work: docker 0.97-1.02x; bubblewrap without a figure."
    )


def test_a_run_that_was_cut_short_is_called_partial() -> None:
    assert headline_of(cell("docker", "cpu.sieve", 1.0, NEAR), complete=False).endswith(
        "The run was cut short: these answers are partial."
    )
    assert (
        headline_of(complete=False) == "Nothing was measured except native. The run was cut short."
    )


def test_undecided_targets_are_named_with_their_ratios() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.02, OPEN),
        cell("docker", "cpu.matmul", 1.3, OPEN),
        cell("bubblewrap", "cpu.sieve", None, OPEN),
    )
    assert text.startswith("CPU work: undecided in docker (1.02-1.30x) and bubblewrap.")


def test_of_many_targets_only_some_are_named() -> None:
    calm = [cell(f"calm-{n}", "cpu.sieve", 1.0, NEAR) for n in range(6)]
    partly = [
        each
        for n in range(5)
        for each in (
            cell(f"part-{n}", "cpu.sieve", 1.0, NEAR),
            cell(f"part-{n}", "cpu.matmul", 1.1, OPEN),
        )
    ]
    slow = [cell(f"slow-{n}", "cpu.sieve", 2.0 + n, SLOWER) for n in (2, 0, 4, 3, 1)]
    assert headline_of(*calm, *partly, *slow).startswith(
        "CPU work: near-native in 6 targets (calm-0, calm-1, calm-2 and 3 more);"
        " partly near-native in 5 targets (part-0, part-1, part-2 and 2 more);"
        " slower in 5 targets (2.0-6.0x, from slow-0 to slow-4)."
    )


def test_a_quick_run_of_many_targets_is_still_one_sentence() -> None:
    cells = [cell(f"t-{n}", "cpu.sieve", 1.0 + n, OPEN) for n in range(9)]
    assert "CPU work: 9 targets (1.00-9.0x, from t-0 to t-8)." in headline_of(*cells, quick=True)


def test_near_native_cells_that_do_not_hold_together_are_counted() -> None:
    weak = cell("namespaces", "cpu.sieve", 1.01, NEAR)
    assert weak.estimate is not None
    weak = dataclasses.replace(
        weak, estimate=dataclasses.replace(weak.estimate, p_equivalence=0.03)
    )
    text = headline_of(cell("docker", "cpu.sieve", 1.0, NEAR), weak)
    assert "within 5 %. No" in text
    others = [cell("docker", f"cpu.{n}", 1.0, OPEN) for n in range(9)]
    others = [
        dataclasses.replace(
            one, estimate=one.estimate and dataclasses.replace(one.estimate, p_equivalence=0.5)
        )
        for one in others
    ]
    text = headline_of(cell("docker", "cpu.sieve", 1.0, NEAR), weak, *others)
    assert "within 5 % in each cell; for all cells together, 1 of 2 hold (Holm)." in text
