"""What payloads report of their turns, against what the host saw of them: of a target and native,
and of two targets.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from isobench.analysis import summary
from isobench.analysis.cells import Analysis
from isobench.analysis.frames import hiding_blocks
from isobench.claims import load
from isobench.comparison.changes import compare, compare_targets
from isobench.comparison.result import ComparisonOptions
from isobench.comparison.result import Status as Standing
from isobench.evidence.host_time import ONE_LOOP
from isobench.history import entry
from isobench.model import FASTEST_TURNS, TURNS, Clock, Sample, Schedule, Status, Verdict
from isobench.model.units import TargetName, WorkloadName
from isobench.storage import reader
from tests.unit.conftest import BASE_SECONDS, ITERATIONS, OPERATIONS, Synthetic, sample

SIEVE = WorkloadName("cpu.sieve")
TURN = BASE_SECONDS * OPERATIONS * 1e9
WAY = 0.02 * TURN


@dataclass(kw_only=True)
class InTurns(Synthetic):
    """A run whose payloads took turns, of which the host saw as much as they report or more."""

    more: Mapping[str, float] = field(default_factory=dict)
    """target -> how many times what it reports the host saw; 1 where nothing is said."""
    some: frozenset[int] = frozenset(range(100))
    """The blocks in which it saw more."""
    late: Mapping[str, float] = field(default_factory=dict)
    """target -> how many of native's turns each of its answers is late, those for one loop too."""
    fastest: Mapping[str, float] = field(default_factory=dict)
    """target -> how long the host saw the fastest turns work, of what the payload reports."""
    schedule: Schedule = Schedule.ROUNDS

    def _samples(self) -> Iterable[Sample]:
        reported: dict[tuple[int, str], float] = defaultdict(float)
        for each in super()._samples():
            reported[each.block, each.target] += each.value
            yield each
        for (block, target), value in reported.items():
            times = self.more.get(target, 1.0) if block in self.some else 1.0
            way = WAY + TURN * self.late.get(target, 0.0)
            seen = round(value * times + ITERATIONS * way)
            host = Clock.HOST
            yield sample(
                block, target, SIEVE, seen, metric=TURNS, operations=ITERATIONS, clock=host
            )
            yield sample(block, target, SIEVE, round(way), metric=ONE_LOOP, clock=host)
            if self.fastest:
                own = value / ITERATIONS * self.fastest.get(target, 1.0) + way
                yield sample(block, target, SIEVE, round(own), metric=FASTEST_TURNS, clock=host)


def written(path: Path, ratios: Mapping[str, float], seed: int = 1, **more: object) -> Path:
    cells = {(target, SIEVE): ratio for target, ratio in ratios.items()}
    about = {"id": f"2024010{seed}T030405Z-abcdef"}
    return InTurns(ratios=cells, seed=seed, about=about, **more).write(path)  # type: ignore[arg-type]


def analysed(path: Path, ratios: Mapping[str, float], **more: object) -> Analysis:
    return Analysis(reader.load(written(path, ratios, **more)))  # type: ignore[arg-type]


def verdict_of(analysis: Analysis) -> Verdict:
    cell = analysis.cell(SIEVE, TargetName("box"))
    assert cell is not None
    return cell.verdict


def against(analysis: Analysis, target: str, reference: str) -> tuple[Status, set[str]]:
    found = analysis.contrast(SIEVE, TargetName(target), reference=TargetName(reference))
    assert found is not None
    return found[0].status, {doubt.code for doubt in found[0].doubts if doubt.blocks}


def test_honest_targets_are_compared_with_each_other(tmp_path: Path) -> None:
    found = analysed(tmp_path / "run", {"three": 3.0, "also": 3.0, "five": 5.0})
    assert against(found, "three", "also") == (Status.NEAR_NATIVE, set())
    assert against(found, "three", "five") == (Status.FASTER, set())
    assert against(found, "five", "three") == (Status.SLOWER, set())


def test_what_is_compared_with_a_target_that_lies_is_unproven(tmp_path: Path) -> None:
    # It takes three times as long as native too, and reports half of that.
    found = analysed(tmp_path / "run", {"three": 3.0, "half": 1.5, "liar": 1.5}, more={"liar": 2.0})
    for pair in (("three", "liar"), ("half", "liar"), ("liar", "three"), ("liar", "half")):
        status, codes = against(found, *pair)
        assert (status, codes) == (Status.UNPROVEN, {"host-time"}), pair


CLAIMS = """
[[claims]]
id = "below"
quote = "It takes less than 1.7 times as long."
kind = "bound"
targets = ["box"]
workloads = ["cpu"]
below_ratio = 1.7

[[claims]]
id = "brief"
quote = "An operation takes less than 3.4 µs."
kind = "bound"
targets = ["box"]
workloads = ["cpu"]
below_seconds = 3.4e-6
"""


ABOVE = """
[[claims]]
id = "above"
quote = "It takes more than 1.1 times as long."
kind = "bound"
targets = ["box"]
workloads = ["cpu"]
above_ratio = 1.1

[[claims]]
id = "more"
quote = "It takes more than 2 times as long."
kind = "bound"
targets = ["box"]
workloads = ["cpu"]
above_ratio = 2.0
"""


@pytest.mark.parametrize(("times", "status"), [(1.0, "supported"), (2.0, "inconclusive")])
def test_a_bound_needs_times_that_the_host_saw(times: float, status: str, tmp_path: Path) -> None:
    # The interval reaches across the margin: the cell has no verdict that the host could deny.
    path = written(tmp_path / "run", {"box": 1.06}, noise=0.04, more={"box": times})
    run = reader.load(path)
    found = summary.summarise(run, load(CLAIMS, origin="claims.toml"))
    assert {one.id: one.status for one in found.claims} == dict.fromkeys(("below", "brief"), status)
    (cell,) = [one for one in found.cells if one.target == "box"]
    assert cell.status == ("inconclusive" if times == 1 else "unproven")


def test_a_change_needs_times_that_the_host_saw(tmp_path: Path) -> None:
    base = reader.load(written(tmp_path / "base", {"box": 3.0}))
    honest = reader.load(written(tmp_path / "honest", {"box": 1.06}, seed=2, noise=0.04))
    lying = reader.load(
        written(tmp_path / "lying", {"box": 1.06}, seed=3, noise=0.04, more={"box": 2.83})
    )
    options = ComparisonOptions()
    standing = {
        name: compare([base], [head], options).changes[0].status
        for name, head in (("honest", honest), ("lying", lying))
    }
    assert standing == {"honest": Standing.IMPROVEMENT, "lying": Standing.UNPROVEN}
    both = reader.load(
        written(tmp_path / "both", {"three": 3.0, "box": 1.06}, noise=0.04, more={"box": 2.83})
    )
    (change,) = compare_targets(both, TargetName("three"), TargetName("box"), options).changes
    assert change.status is Standing.UNPROVEN


@pytest.mark.parametrize("blocks", [3, 6])
def test_work_that_is_hidden_in_some_blocks_makes_nothing_near_native(
    blocks: int, tmp_path: Path
) -> None:
    some = frozenset(range(2, 2 + blocks))
    found = analysed(tmp_path / "run", {"box": 1.0}, more={"box": 2.0}, some=some)
    verdict = verdict_of(found)
    assert verdict.status is Status.UNPROVEN
    (doubt,) = [one for one in verdict.doubts if one.blocks]
    assert doubt.code == "host-time"
    assert f"in {blocks} of 15 blocks" in doubt.detail


def test_blocks_in_which_a_payload_hides_work_are_counted() -> None:
    def count(own: Sequence[float], native: Sequence[float] = ()) -> int:
        parts = (np.array([*some, *[0.9] * (10 - len(some))]) for some in (own, native))
        return hiding_blocks(*parts)

    assert count([0.85, 0.64, 0.62]) == 0
    assert count([0.62, 0.3]) == 2
    # Answers for one loop that are late make a part larger in other blocks.
    assert count([0.3, 0.3, 2.0, 2.0]) == 2
    # Stalls of the machine meet both sides.
    assert count([0.3, 0.3], [0.9, 0.9, 0.3]) == 2
    assert count([0.3, 0.3], [0.9, 0.9, 0.3, 0.3]) == 0


def far(path: Path, ratios: Mapping[str, float], name: str, **more: object) -> Path:
    """Write a run in which all answers of a target are late: the host does not see its work."""
    return written(path, ratios, late={name: 3.0}, **more)  # type: ignore[arg-type]


def test_a_bound_needs_work_that_the_host_sees(tmp_path: Path) -> None:
    run = reader.load(far(tmp_path / "run", {"box": 1.3}, "box"))
    found = summary.summarise(run, load(CLAIMS + ABOVE, origin="claims.toml"))
    (cell,) = [one for one in found.cells if one.target == "box"]
    assert cell.status == "slower"
    assert {one.id: one.status for one in found.claims} == {
        **dict.fromkeys(("below", "brief", "more"), "inconclusive"),
        "above": "supported",
    }


def test_nothing_is_slower_than_a_target_whose_work_the_host_does_not_see(tmp_path: Path) -> None:
    path = far(tmp_path / "run", {"three": 3.0, "half": 1.3, "box": 1.3}, "box")
    found = Analysis(reader.load(path))
    assert against(found, "three", "box") == (Status.UNPROVEN, {"host-time"})
    assert against(found, "half", "box") == (Status.UNPROVEN, {"host-time"})


def test_an_improvement_needs_work_that_the_host_sees(tmp_path: Path) -> None:
    sides = [(name, ratio) for name in ("box", "native#2") for ratio in (3.0, 1.3)]
    runs = {
        (name, ratio): reader.load(far(tmp_path / f"{n}", {"box": ratio}, name, seed=n))
        for n, (name, ratio) in enumerate(sides, 1)
    }
    options = ComparisonOptions()

    def standing(base: float, head: float, name: str) -> Standing:
        return compare([runs[name, base]], [runs[name, head]], options).changes[0].status

    assert standing(3.0, 1.3, "native#2") is Standing.IMPROVEMENT
    assert standing(3.0, 1.3, "box") is Standing.UNPROVEN
    assert standing(1.3, 3.0, "box") is Standing.REGRESSION


@pytest.mark.parametrize("late", [0.0, 0.3])
def test_work_that_is_hidden_in_some_blocks_is_seen_behind_a_longer_way(
    late: float, tmp_path: Path
) -> None:
    found = analysed(
        tmp_path / "run",
        {"box": 1.0},
        more={"box": 2.5},
        some=frozenset(range(2, 7)),
        late=dict.fromkeys(("native", "native#2", "box"), late),
    )
    verdict = verdict_of(found)
    assert verdict.status is Status.UNPROVEN
    assert {doubt.code for doubt in verdict.doubts if doubt.blocks} == {"host-time"}


@pytest.mark.parametrize("fastest", [1.0, 2.5])
def test_turns_that_are_slow_but_for_the_fastest_are_not_near_native(
    fastest: float, tmp_path: Path
) -> None:
    # Interruptions do not make four of five turns ten times as long.
    path = written(tmp_path / "run", {"box": 1.0}, more={"box": 8.0}, fastest={"box": fastest})
    found = Analysis(reader.load(path))
    check = found.host_check(SIEVE, TargetName("box"))
    assert check is not None
    assert check.least > 5
    verdict = verdict_of(found)
    assert verdict.status is Status.UNPROVEN


def test_a_regression_needs_a_base_whose_work_the_host_sees(tmp_path: Path) -> None:
    path = far(tmp_path / "run", {"three": 3.0, "half": 1.3, "box": 1.3}, "box")
    run, base = reader.load(path), TargetName("box")
    for head in ("three", "half"):
        (change,) = compare_targets(run, base, TargetName(head), ComparisonOptions()).changes
        assert change.status is Standing.UNPROVEN


def test_a_history_keeps_no_ratio_that_only_a_payload_reports(tmp_path: Path) -> None:
    for late, status in ((0.0, "slower"), (3.0, "unproven")):
        path = written(tmp_path / f"{late}", {"box": 1.3}, late={"box": late})
        (found,) = [row for row in entry.rows_of(reader.load(path)) if row.target == "box"]
        assert found.status == status
