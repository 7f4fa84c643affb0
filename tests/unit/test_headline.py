"""The headline says what the verdicts say, and nothing else."""

import dataclasses
import re

import pytest

from isobench.analysis.headline import headline
from isobench.model import Estimate, Interval, Status, Technology, Verdict
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.schema import OpenCell

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
    return " ".join(headline(cells, TECHNOLOGIES, quick=quick, complete=complete, margin=1.05))


def test_it_names_near_native_and_slower_targets_with_ratios() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR),
        cell("namespaces", "cpu.sieve", 1.01, NEAR),
        cell("qemu-user-aarch64", "cpu.sieve", 2.31, SLOWER),
        cell("qemu-user-aarch64", "cpu.matmul", 28.4, SLOWER),
    )
    assert text == (
        "CPU work is near-native (within 5 %) in docker and namespaces;"
        " slower in qemu-user-aarch64 (2.3-28x). No cell is undecided."
    )


def test_each_class_has_its_sentence_cpu_first() -> None:
    text = headline_of(
        cell("docker", "startup.cold", 541.0, SLOWER),
        cell("docker", "io.fsync", 1.0, NEAR),
        cell("docker", "cpu.sieve", 1.0, NEAR),
        cell("docker", "custom.thing", 1.2, SLOWER),
    )
    places = [text.index(name) for name in ("CPU work is", "I/O is", "Start-up is", "custom is")]
    assert places == sorted(places)
    assert "slower in docker (540x)" in text
    assert "slower in docker (1.20x)" in text


def test_an_undecided_cell_is_counted() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR), cell("docker", "cpu.threads", 1.1, OPEN)
    )
    assert text.startswith("CPU work is partly near-native (within 5 %) in docker.")
    assert "1 of 2 cells is undecided" in text


def test_one_slower_cell_keeps_a_target_from_being_called_near_native() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR), cell("docker", "cpu.sha256", 1.2, SLOWER)
    )
    assert text.startswith("CPU work is partly slower in docker (sha256 1.20x).")


@pytest.mark.parametrize("other", [NEAR, OPEN, UNPROVEN])
def test_a_class_is_slower_only_where_all_its_cells_are(other: Status) -> None:
    cells = [cell("docker", f"syscall.{n}", 1.5 + n, SLOWER) for n in range(3)]
    assert headline_of(*cells).startswith("System calls are slower in docker (1.50-3.5x).")
    text = headline_of(*cells, cell("docker", "syscall.yield", 0.9, other))
    assert text.startswith(
        "System calls are partly slower in docker (3 of 4 workloads, 1.50-3.5x)."
    )


def test_a_class_is_faster_only_where_all_its_cells_are() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 0.8, FASTER),
        cell("bubblewrap", "cpu.sieve", 0.7, FASTER),
        cell("bubblewrap", "cpu.sha256", 1.0, NEAR),
    )
    assert text.startswith(
        "CPU work is faster, unexplained, in docker;"
        " partly faster, unexplained, in bubblewrap (sieve 0.70x)."
    )


def test_a_target_that_is_slower_and_faster_is_named_for_both() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 0.8, FASTER),
        cell("docker", "cpu.sha256", 1.2, SLOWER),
        cell("docker", "cpu.matmul", 1.0, NEAR),
    )
    assert text.startswith(
        "CPU work is partly slower in docker (sha256 1.20x);"
        " partly faster, unexplained, in docker (sieve 0.80x)."
    )


def test_of_many_targets_that_are_partly_slower_only_the_worst_is_named() -> None:
    cells = [
        each
        for n in range(4)
        for each in (
            cell(f"t-{n}", "cpu.sieve", 2.0 + n, SLOWER),
            cell(f"t-{n}", "cpu.sha256", 1.0, OPEN),
        )
    ]
    assert headline_of(*cells).startswith(
        "CPU work is partly slower in 4 targets (2.0-5.0x, worst t-3)."
    )


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


def test_undecided_targets_are_named() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.02, OPEN),
        cell("docker", "cpu.matmul", 1.3, OPEN),
        cell("bubblewrap", "cpu.sieve", None, OPEN),
    )
    assert text.startswith("CPU work is undecided in docker and bubblewrap.")


def test_of_many_targets_only_the_worst_is_named() -> None:
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
        "CPU work is near-native (within 5 %) in 6 targets;"
        " partly near-native in 5 targets; slower in 5 targets (2.0-6.0x, worst slow-4)."
    )


def test_a_quick_run_of_many_targets_is_still_one_sentence() -> None:
    cells = [cell(f"t-{n}", "cpu.sieve", 1.0 + n, OPEN) for n in range(9)]
    assert "CPU work: 9 targets (1.00-9.0x, worst t-8)." in headline_of(*cells, quick=True)


def test_the_term_near_native_is_explained_once() -> None:
    text = headline_of(
        cell("docker", "cpu.sieve", 1.0, NEAR), cell("docker", "syscall.getppid", 1.0, NEAR)
    )
    assert text.count("(within 5 %)") == 1
    assert "System calls are near-native in docker." in text


def test_starts_are_given_in_time_and_as_a_ratio() -> None:
    cells = [
        cell("docker", "startup.cold", 500.0, SLOWER),
        cell("bubblewrap", "startup.cold", 10.0, SLOWER),
        cell("docker", "startup.exec", 170.0, SLOWER),
    ]
    times = {
        (TargetName("docker"), WorkloadName("startup.cold")): (0.18, 0.00036),
        (TargetName("bubblewrap"), WorkloadName("startup.cold")): (0.0038, 0.00036),
        (TargetName("docker"), WorkloadName("startup.exec")): (0.05, 0.0003),
    }
    first, *_ = headline(cells, TECHNOLOGIES, quick=False, complete=True, margin=1.05, starts=times)
    assert first == (
        "A cold start takes 3.8 ms in bubblewrap and 180 ms in docker,"
        " 10-500x native's 360 \N{MICRO SIGN}s."
    )


def test_an_exec_start_has_its_article() -> None:
    cells = [cell("docker", "startup.exec", 170.0, SLOWER)]
    times = {(TargetName("docker"), WorkloadName("startup.exec")): (0.05, 0.0003)}
    first, *_ = headline(cells, TECHNOLOGIES, quick=False, complete=True, margin=1.05, starts=times)
    assert first.startswith("An exec start takes 50 ms in docker")


def test_of_many_starts_the_shortest_and_the_longest_are_named() -> None:
    names = [TargetName(f"t-{n}") for n in range(4)]
    cells = [cell(name, "startup.warm", 2.0, SLOWER) for name in names]
    times = {(name, WorkloadName("startup.warm")): (n + 1.0, 0.5) for n, name in enumerate(names)}
    first, *_ = headline(cells, TECHNOLOGIES, quick=True, complete=True, margin=1.05, starts=times)[
        1:
    ]
    assert first == "A warm start takes 1.0 s (t-0) to 4.0 s (t-3), 2.0x native's 500 ms."


@pytest.mark.parametrize(
    ("natives", "end"),
    [
        ((None, 0.5), "2.0 s in bubblewrap and 2.0 s in docker, not 500 ms."),
        ((0.5, None), "2.0 s in bubblewrap and 2.0 s in docker, not 500 ms."),
        ((None, None), "2.0 s in bubblewrap and 2.0 s in docker; native's is not known."),
    ],
)
def test_natives_start_is_said_where_it_is_known(
    natives: tuple[float | None, float | None], end: str
) -> None:
    names = [TargetName(name) for name in ("docker", "bubblewrap")]
    cells = [cell(name, "startup.cold", None, UNPROVEN) for name in names]
    times = {
        (name, WorkloadName("startup.cold")): (2.0, native)
        for name, native in zip(names, natives, strict=True)
    }
    first, *_ = headline(cells, TECHNOLOGIES, quick=False, complete=True, margin=1.05, starts=times)
    assert first == f"A cold start takes {end}"


def test_what_is_undecided_comes_with_the_command_that_settles_most_of_it() -> None:
    cells = [cell("docker", f"cpu.{n}", 1.02, OPEN) for n in range(4)]
    commands = ["isobench run --resume --budget 3m"] * 2 + ["isobench run --resume --budget 1h", ""]
    undecided = [
        OpenCell(target=one.target, workload=one.workload, command=command)
        for one, command in zip(cells, commands, strict=True)
    ]
    *_, last = headline(
        cells, TECHNOLOGIES, quick=False, complete=True, margin=1.05, open_cells=undecided
    )
    assert last == (
        "4 of 4 cells are undecided: isobench run --resume --budget 3m would settle 2 of them."
    )


def test_near_native_cells_that_do_not_hold_together_are_counted() -> None:
    weak = cell("namespaces", "cpu.sieve", 1.01, NEAR)
    assert weak.estimate is not None
    weak = dataclasses.replace(
        weak, estimate=dataclasses.replace(weak.estimate, p_equivalence=0.03)
    )
    assert "Holm" not in headline_of(cell("docker", "cpu.sieve", 1.0, NEAR), weak)
    others = [cell("docker", f"cpu.{n}", 1.0, OPEN) for n in range(9)]
    others = [
        dataclasses.replace(
            one, estimate=one.estimate and dataclasses.replace(one.estimate, p_equivalence=0.5)
        )
        for one in others
    ]
    text = headline_of(cell("docker", "cpu.sieve", 1.0, NEAR), weak, *others)
    assert (
        "1 of 2 near-native verdicts also hold for all cells together (Holm's correction);"
        " namespaces cpu.sieve holds alone." in text
    )


def test_five_targets_take_about_sixty_words() -> None:
    classes = ("cpu", "syscall", "io")
    names = ["namespaces", "docker", "podman", "bubblewrap", "qemu-user-aarch64"]
    cells = [
        each
        for name in names
        for group in classes
        for each in (
            cell(name, f"{group}.one", 1.0, NEAR),
            cell(name, f"{group}.two", 1.5, SLOWER if name > "n" else OPEN),
        )
    ]
    times = {(TargetName(name), WorkloadName("startup.cold")): (0.1, 0.0003) for name in names}
    cells += [cell(name, "startup.cold", 300.0, SLOWER) for name in names]
    sentences = headline(cells, TECHNOLOGIES, quick=False, complete=True, margin=1.05, starts=times)
    # A figure and its unit are one word.
    text = re.sub(r"(?<=\d) (?=%|\w?s\b)", "", " ".join(sentences))
    assert len(text.split()) <= 70
