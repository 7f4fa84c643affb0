"""The overview: each class of workloads at each target in short."""

from typing import Any

from isobench.analysis.overview import overview
from isobench.model import Status
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.schema import CellSummary, ClassMeanSummary

NEAR, SLOWER, OPEN = Status.NEAR_NATIVE, Status.SLOWER, Status.INCONCLUSIVE


def cell(target: str, workload: str, ratio: float | None, status: Status, **more: Any) -> Any:
    return CellSummary(
        target=TargetName(target),
        workload=WorkloadName(workload),
        group=workload.partition(".")[0],
        ratio=ratio,
        interval=None if ratio is None else (0.9 * ratio, 1.1 * ratio),
        status=status,
        **more,
    )


def test_a_class_of_one_workload_has_its_figure_and_verdict() -> None:
    (found,) = overview([cell("jar", "io.fsync", 1.3, SLOWER, level=0.999)], [])
    assert (found.ratio, found.status, found.level) == (1.3, SLOWER, 0.999)
    assert (found.worst, found.cells, found.undecided) == ("io.fsync", 1, 0)
    assert found.seconds is None


def test_a_class_of_several_has_its_mean_and_its_worst_workload() -> None:
    cells = [cell("jar", "cpu.a", 1.0, NEAR), cell("jar", "cpu.b", 1.2, OPEN)]
    mean = ClassMeanSummary(
        group="cpu", target=TargetName("jar"), ratio=1.1, interval=(1.0, 1.2), status=OPEN
    )
    (found,) = overview(cells, [mean])
    assert (found.ratio, found.interval, found.status) == (1.1, (1.0, 1.2), OPEN)
    assert (found.ratios, found.worst, found.worst_status) == ((1.0, 1.2), "cpu.b", OPEN)
    assert (found.cells, found.undecided) == (2, 1)


def test_without_a_mean_the_verdict_is_the_one_that_all_share() -> None:
    mixed = [cell("jar", "io.a", 1.0, NEAR), cell("jar", "io.b", 2.0, SLOWER)]
    alike = [cell("box", "io.a", 3.0, SLOWER), cell("box", "io.b", 2.0, SLOWER)]
    first, second = overview([*mixed, *alike], [])
    assert (first.ratio, first.status, first.ratios) == (None, None, (1.0, 2.0))
    assert (second.status, second.worst) == (SLOWER, "io.a")


def test_starts_have_times_and_stand_last() -> None:
    starts = [
        cell("jar", "startup.cold", 9.0, SLOWER, value=0.2),
        cell("jar", "startup.exec", 3.0, SLOWER, value=0.01),
    ]
    first, second = overview([*starts, cell("jar", "cpu.a", 1.0, NEAR, value=0.1)], [])
    assert (first.group, first.seconds) == ("cpu", None)
    assert (second.seconds, second.worst) == ((0.01, 0.2), "startup.cold")


def test_only_times_count_and_a_class_without_a_ratio_has_none() -> None:
    rate = cell("jar", "cpu.a", 7.0, SLOWER, metric="rate")
    (found,) = overview([rate, cell("jar", "cpu.b", None, Status.UNPROVEN)], [])
    assert (found.ratio, found.ratios, found.worst, found.undecided) == (None, None, None, 1)
