"""What payloads report of their turns, against what the host saw of them: of a target and native,
and of two targets.
"""

import itertools
import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobench.analysis import rounds, summary
from isobench.analysis.cells import Analysis
from isobench.analysis.frames import hiding_blocks
from isobench.claims import load
from isobench.comparison.changes import compare, compare_targets
from isobench.comparison.result import ComparisonOptions
from isobench.comparison.result import Status as Standing
from isobench.evidence import host_time
from isobench.evidence.host_time import ONE_LOOP
from isobench.history import entry
from isobench.model import (
    BOUNDED_TURNS,
    FASTEST_TURNS,
    TRIMMED_TURN,
    TURNS,
    Clock,
    Plan,
    Sample,
    Schedule,
    Status,
    Verdict,
)
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
    sides = itertools.product(("box", "native#2"), (3.0, 1.3))
    runs = {
        (name, ratio): reader.load(far(tmp_path / f"{n}", {"box": ratio}, name, seed=n))
        for n, (name, ratio) in enumerate(sides, 1)
    }
    options = ComparisonOptions()

    def standing(base: float, head: float, far_base: str, far_head: str) -> Standing:
        found = compare([runs[far_base, base]], [runs[far_head, head]], options)
        return found.changes[0].status

    seen, hidden = "native#2", "box"
    assert standing(3.0, 1.3, seen, seen) is Standing.IMPROVEMENT
    assert standing(3.0, 1.3, seen, hidden) is Standing.UNPROVEN
    assert standing(1.3, 3.0, seen, hidden) is Standing.REGRESSION
    # BASE may be as slow as HEAD in truth.
    assert standing(1.3, 3.0, hidden, seen) is Standing.UNPROVEN
    assert standing(1.3, 3.0, hidden, hidden) is Standing.UNPROVEN
    assert standing(3.0, 1.3, hidden, hidden) is Standing.UNPROVEN


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


@pytest.mark.parametrize("estimator", [rounds.by_fastest, rounds.by_round])
@pytest.mark.parametrize("odd", [(3, 0.05), (6, 1.03)], ids=["remembered", "honest"])
def test_blocks_of_two_kinds_hide_nothing_of_the_turns_that_count(
    odd: tuple[int, float],
    estimator: rounds.Estimator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They make the host's interval wide, and an honest giant turn is most of a block's time."""
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    blocks = itertools.count()
    size, fast = odd

    def turns(rng: random.Random, target: str) -> tuple[list[float], list[float], list[float]]:
        usual = [rng.gauss(1.0, 0.004) for _ in range(25)]
        ways = [rng.lognormvariate(math.log(0.01), 0.2) for _ in range(28)]
        if target != "box":
            return usual, usual, ways
        reported = [1.03 * one for one in usual]
        is_odd = next(blocks) < size
        takes = [one * (fast if is_odd else 2.0) for one in usual]
        if not is_odd:
            reported[7] = takes[7] = 100.0
        return reported, takes, ways

    made = ByTurn(ratios={("box", SIEVE): 1.0}, turns=turns, pilot=False).write(tmp_path / "run")
    found = verdict_of(Analysis(reader.load(made)))
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}


@pytest.mark.parametrize(
    ("estimator", "untimed", "blocks"),
    [
        (
            rounds.by_fastest, 0.0,
            [(2.1, 0.63), (2.22, 1.0), (4.26, 1.28), (2.18, 0.71), (2.28, 0.82)],
        ),
        # One block hides everything.
        (rounds.by_fastest, 0.0, [(1.45, 0.0)] * 4 + [(20.0, 0.0)]),
        (rounds.by_round, 0.0, [(1.6, 0.5)] * 3 + [(20.0, 0.5)]),
        (
            rounds.by_fastest, 0.25,
            [(2.48, 1.12), (10.18, 3.12), (2.04, 0.64), (1.75, 1.09), (2.19, 0.72), (2.56, 1.54),
             (1.2, 0.45), (2.25, 1.4)],
        ),
        (
            rounds.by_round, 0.0,
            [(2.06, 0.65), (3.72, 0.0), (2.07, 0.62), (1.78, 0.54), (2.05, 0.62), (0.01, 0.0),
             (0.02, 0.01), (2.1, 0.64), (1.85, 0.67), (1.82, 0.37), (2.17, 0.99), (1.75, 0.58)],
        ),
    ],
)  # fmt: skip
def test_slowness_that_differs_between_blocks_hides_nothing(
    estimator: rounds.Estimator,
    untimed: float,
    blocks: Sequence[tuple[float, float]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Found by a search. The host's interval is wide, and giant turns are reported as they are.

    In each block the turns take so many times native's, and answers for one loop are late.
    """
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    each = iter(blocks)

    def turns(rng: random.Random, target: str) -> tuple[list[float], list[float], list[float]]:
        usual = [rng.gauss(1.0, 0.004) for _ in range(25)]
        ways = [rng.lognormvariate(math.log(0.01), 0.2) for _ in range(28)]
        if target != "box":
            ways[:3] = [one + untimed for one in ways[:3]]
            return usual, [(1 + untimed) * one for one in usual], ways
        factor, late = next(each)
        reported, takes = [1.03 * one for one in usual], [factor * one for one in usual]
        reported[7] = takes[7] = 500.0
        ways[:3] = [max(late, one) for one in ways[:3]]
        return reported, takes, ways  # without the untimed pass

    made = ByTurn(
        ratios={("box", SIEVE): 1.0},
        turns=turns,
        untimed_share=untimed,
        blocks=len(blocks),
        pilot=False,
    ).write(tmp_path / "run")
    found = verdict_of(Analysis(reader.load(made)))
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}


def test_an_improvement_between_targets_needs_turns_that_are_shorter(tmp_path: Path) -> None:
    """Two that take the same time report 1.03 and 1.25 times native's, and answer late."""

    def compared(name: str, box: tuple[float, float], two: tuple[float, float]) -> Standing:
        """Each of the targets takes, and reports, so many times native's work."""
        late = 0.45

        def turns(rng: random.Random, target: str) -> tuple[list[float], list[float], list[float]]:
            takes, reports = {"box": box, "two": two}.get(target, (1.0, 1.0))
            usual = [rng.gauss(1.0, 0.004) for _ in range(25)]
            ways = [rng.lognormvariate(math.log(0.01), 0.2) for _ in range(28)]
            if target in {"box", "two"}:
                ways[:3] = [one + late for one in ways[:3]]
                ways[3:] = [one + late * (takes == reports) for one in ways[3:]]
            return [reports * one for one in usual], [takes * one for one in usual], ways

        path = ByTurn(
            ratios={("box", SIEVE): 1.0, ("two", SIEVE): 1.0},
            turns=turns,
            measured=("native", "native#2", "box", "two"),
            pilot=False,
        ).write(tmp_path / name)
        run = reader.load(path)
        options = ComparisonOptions()
        (change,) = compare_targets(run, TargetName("two"), TargetName("box"), options).changes
        return change.status

    assert compared("lies", (1.5, 1.03), (1.5, 1.25)) is Standing.UNPROVEN
    assert compared("honest", (1.03, 1.03), (1.5, 1.5)) is Standing.IMPROVEMENT


@pytest.mark.parametrize("metric", [TURNS, FASTEST_TURNS, TRIMMED_TURN, BOUNDED_TURNS, ONE_LOOP])
def test_times_of_zero_in_changed_records_are_no_error(metric: str, tmp_path: Path) -> None:
    by_turn(tmp_path / "run")
    records = tmp_path / "run" / "records.jsonl"
    changed = [
        {**line, "value": 0} if (line.get("metric"), line.get("block")) == (metric, 3) else line
        for line in map(json.loads, records.read_text().splitlines())
    ]
    assert sum(line.get("value") == 0 for line in changed) == 3
    records.write_text("".join(f"{json.dumps(line)}\n" for line in changed))
    found = verdict_of(Analysis(reader.load(tmp_path / "run")))
    assert found.status in {Status.NEAR_NATIVE, Status.UNPROVEN}


def test_a_history_keeps_no_ratio_that_only_a_payload_reports(tmp_path: Path) -> None:
    for late, status in ((0.0, "slower"), (3.0, "unproven")):
        path = written(tmp_path / f"{late}", {"box": 1.3}, late={"box": late})
        (found,) = [row for row in entry.rows_of(reader.load(path)) if row.target == "box"]
        assert found.status == status


@dataclass(kw_only=True)
class ByTurn(Synthetic):
    """A run whose payloads took turns, of which the host's times are made one by one."""

    turns: Callable[[random.Random, str], tuple[list[float], list[float], list[float]]]
    """Takes a target; returns what it reports of the turns of a block, what they really took, and
    the ways of requests and answers, with three more for turns of one loop; native's turns take 1.
    The untimed pass is a part of what they took, and of the three.
    """
    untimed_share: float = 0.0
    is_older: bool = False
    """Without what older versions did not record."""
    measured: Sequence[str] = ("native", "native#2", "box")
    schedule: Schedule = Schedule.ROUNDS

    def _plan(self) -> Plan:
        plan = super()._plan()
        work = [replace(one, untimed_share=self.untimed_share) for one in plan.work]
        return replace(plan, work=tuple(work))

    def _samples(self) -> Iterable[Sample]:
        rng = random.Random(self.seed)  # noqa: S311 - figures to repeat, not a secret
        for block in range(1, self.blocks + 1):
            for target in self.measured:
                reported, work, ways = (
                    [round(TURN * one) for one in each] for each in self.turns(rng, target)
                )
                for number, value in enumerate(reported):
                    yield sample(
                        block, target, SIEVE, value, iteration=number, operations=OPERATIONS
                    )
                taken = [sum(pair) for pair in zip(work, ways[3:], strict=True)]
                for one in host_time.seen(reported=reported, taken=taken, one_loop=ways[:3]):
                    if self.is_older and one.metric in NEWER:
                        continue
                    yield sample(
                        *(block, target, SIEVE, one.value),
                        metric=one.metric, operations=one.turns, clock=one.clock,
                    )  # fmt: skip


NEWER = {TRIMMED_TURN, BOUNDED_TURNS, host_time.MEDIAN_ONE_LOOP}
Work = Callable[[list[float]], list[float]]


def by_turn(
    path: Path,
    *,
    work: Work = lambda usual: usual,
    reports: Work = lambda work: work,
    way: float = 0.02,
    varies: float = 0.2,
    interrupted: tuple[float, float] = (0.0, 0.0),
    stall: float = 0.5,
    native_way: float = 0.01,
    late: Sequence[float] = (0.0, 0.0, 0.0),
    untimed: float = 0.0,
    leaves_out: bool = False,
    is_older: bool = False,
) -> Verdict:
    """Return the verdict on a target which works and reports so; native's turns take 1 and are
    reported so. Each answer of the target takes `way`, which `varies` on the log scale, and one of
    native `native_way`. So many turns of both are `interrupted` for about the time of a `stall`.
    The target's answers for one loop are `late` by so much. Each turn has an `untimed`
    pass of this share, which the target may leave out but for turns of one loop.
    """

    def turns(rng: random.Random, target: str) -> tuple[list[float], list[float], list[float]]:
        mine = target == "box"
        usual = [rng.gauss(1.0, 0.004) for _ in range(25)]
        done = work(usual) if mine else usual
        stalled = [*done]
        for number in rng.sample(range(len(done)), round(interrupted[mine] * len(done))):
            stalled[number] += stall * rng.uniform(0.5, 1.5)
        middle, spread = (way, varies) if mine else (native_way, 0.2)
        ways = [rng.lognormvariate(math.log(middle), spread) for _ in range(28)]
        ways[:3] = [one + more * mine for one, more in zip(ways[:3], late, strict=True)]
        passes = [untimed * one for one in done]
        ways[:3] = [one + passes[0] for one in ways[:3]]
        taken = [sum(pair) for pair in zip(stalled, passes, strict=True)]
        took = stalled if mine and leaves_out else taken
        return reports(stalled) if mine else stalled, took, ways

    made = ByTurn(
        ratios={("box", SIEVE): 1.0},
        turns=turns,
        untimed_share=untimed,
        pilot=False,
        is_older=is_older,
    ).write(path)
    return verdict_of(Analysis(reader.load(made)))


@pytest.mark.parametrize("estimator", [rounds.by_fastest, rounds.by_round])
@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"way": 0.19, "varies": 0.5}, id="answers that vary"),
        pytest.param({"way": 0.27, "varies": 0.35}, id="slow answers"),
        pytest.param({"interrupted": (0.01, 0.1), "stall": 3.0}, id="more stalls than native's"),
        pytest.param({"untimed": 0.25}, id="an untimed pass"),
        pytest.param({"untimed": 0.25, "way": 0.3, "native_way": 0.3}, id="two slow ones"),
        pytest.param(
            {"untimed": 0.25, "way": 0.3, "interrupted": (0.3, 0.3)}, id="slow and untimed"
        ),
    ],
)
def test_an_honest_target_stays_near_native(
    more: Mapping[str, Any],
    estimator: rounds.Estimator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    found = by_turn(tmp_path / "run", **more)
    assert (found.status, [one for one in found.doubts if one.blocks]) == (Status.NEAR_NATIVE, [])


@pytest.mark.parametrize("estimator", [rounds.by_fastest, rounds.by_round])
@pytest.mark.parametrize("native_way", [0.01, 0.3, 0.45])
@pytest.mark.parametrize(
    "lie",
    [
        (0.25, 2.1, 1.035, 0.42),
        (0.25, 1.9, 1.03, 0.37),
        (0.25, 1.8, 1.03, 0.33),
        (0.0, 1.8, 1.03, 0.62),
        (0.0, 2.3, 1.03, 0.75),
    ],
)
def test_a_pass_that_is_left_out_hides_nothing(
    lie: tuple[float, float, float, float],
    native_way: float,
    estimator: rounds.Estimator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Answers for one loop are late, as if they followed that pass."""
    untimed, factor, reported, late = lie
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    found = by_turn(
        tmp_path / "run",
        work=lambda usual: [factor * one for one in usual],
        reports=lambda work: [reported / factor * one for one in work],
        late=[late] * 3,
        native_way=native_way,
        untimed=untimed,
        leaves_out=True,
    )
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}


@pytest.mark.parametrize("is_older", [False, True])
def test_on_a_busy_machine_an_honest_target_keeps_its_verdict(
    is_older: bool, tmp_path: Path
) -> None:
    """Interruptions bring the ratio of all turns closer to 1, and a side may have more of them."""
    slower = by_turn(
        tmp_path / "slower",
        work=lambda usual: [1.3 * one for one in usual],
        interrupted=(0.6, 0.6),
        stall=1.0,
        is_older=is_older,
    )
    assert (slower.status, [one for one in slower.doubts if one.blocks]) == (Status.SLOWER, [])
    more = by_turn(tmp_path / "more", interrupted=(0.2, 0.5), stall=1.0, is_older=is_older)
    # What the other turns of an older run took is known from their sum alone.
    assert more.status is (Status.UNPROVEN if is_older else Status.NEAR_NATIVE)


def four_of_five(work: list[float]) -> list[float]:
    """Let all turns but every fifth take half as long again."""
    return [one if number % 5 == 0 else 1.5 * one for number, one in enumerate(work)]


def to_one(work: list[float]) -> list[float]:
    """Report native's time of all turns but the first, which has the rest of all."""
    return [1.0 + sum(work) - len(work), *[1.0] * (len(work) - 1)]


def to_some(work: list[float]) -> list[float]:
    """Report native's time of all turns but twelve, which have the rest of all."""
    rest = (sum(work) - len(work)) / 12
    return [1.0 + rest] * 12 + [1.0] * (len(work) - 12)


@pytest.mark.parametrize("estimator", [rounds.by_fastest, rounds.by_round])
@pytest.mark.parametrize("reports", [to_one, to_some])
@pytest.mark.parametrize(
    "work", [four_of_five, lambda usual: [1.5 * one for one in usual]], ids=["some", "all"]
)
def test_time_that_is_moved_to_a_few_turns_is_unproven(
    work: Work,
    reports: Work,
    estimator: rounds.Estimator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    found = by_turn(tmp_path / "run", work=work, reports=reports)
    assert found.status is Status.UNPROVEN
    assert {one.code for one in found.doubts if one.blocks} == {"host-time"}


def few_giants(size: int, giant: float, others: int, factor: float) -> Work:
    """Let so many turns take `giant` times as long, and so many others `factor` times."""

    def work(usual: list[float]) -> list[float]:
        factors = [giant] * size + [factor] * others + [1.0] * (len(usual) - size - others)
        return [one * times for one, times in zip(usual, factors, strict=True)]

    return work


def all_but(size: int, factor: float) -> Work:
    """Report so many times the time of all turns but the first ones."""
    return lambda work: [*work[:size], *(one * factor for one in work[size:])]


def hidden_twelve(work: list[float]) -> list[float]:
    """Report native's time of seven slow turns, and the truth of the five giants before them."""
    return [*work[:5], *[1.0] * 7, *work[12:]]


@pytest.mark.parametrize(
    ("work", "reports"),
    [
        (few_giants(5, 10.0, 7, 2.0), hidden_twelve),
        (few_giants(5, 50.0, 7, 4.5), hidden_twelve),
        (few_giants(2, 20.0, 0, 1.0), all_but(2, 1.2)),
        (few_giants(5, 50.0, 0, 1.0), all_but(5, 2.1)),
        (few_giants(1, 240.0, 0, 1.0), all_but(1, 2.0)),
    ],
)
def test_a_few_long_turns_hide_nothing_in_ratios_of_rounds(
    work: Work, reports: Work, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They take most of the time, so that a false time of the others is a small part of it."""
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: rounds.by_round)
    found = by_turn(tmp_path / "run", work=work, reports=reports)
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}


@pytest.mark.parametrize("estimator", [rounds.by_fastest, rounds.by_round])
@pytest.mark.parametrize(
    "lie",
    [(1.0, 0.66, 0.36), (1.4, 0.64, 0.53), (1.5, 0.63, 0.6), (1.6, 0.63, 0.6)],
    ids=lambda lie: f"{lie[0]} times as long",
)
def test_late_answers_for_two_of_three_turns_of_one_loop_hide_nothing(
    lie: tuple[float, float, float],
    estimator: rounds.Estimator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    factor, part, late = lie
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    found = by_turn(
        tmp_path / "run",
        work=lambda usual: [factor * one for one in usual],
        reports=lambda work: [part * one for one in work],
        late=(0.0, late, late),
    )
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}


@pytest.mark.parametrize(
    ("estimator", "giants", "lie"),
    [
        (rounds.by_round, (5, 500.0), (5.0, 1.0, 4.0)),
        (rounds.by_round, (1, 240.0), (2.0, 1.0, 1.0)),
        (rounds.by_round, (5, 50.0), (1.5, 0.94, 0.58)),
        (rounds.by_fastest, (20, 50.0), (5.0, 1.0, 4.0)),
        (rounds.by_fastest, (20, 50.0), (1.3, 0.9, 0.42)),
        (rounds.by_fastest, (20, 3.0), (2.0, 1.0, 1.0)),
        # The way takes a fifth to a third of a turn that counts.
        (rounds.by_round, (5, 50.0), (3.0, 1.0, 0.84)),
        (rounds.by_round, (5, 500.0), (20.0, 1.0, 5.6)),
        (rounds.by_fastest, (20, 10.0), (3.0, 1.0, 0.84)),
        (rounds.by_fastest, (20, 50.0), (20.0, 1.0, 5.6)),
    ],
)
def test_a_few_long_turns_make_no_late_answer_short(
    estimator: rounds.Estimator,
    giants: tuple[int, float],
    lie: tuple[float, float, float],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (size, times), (factor, reported, late) = giants, lie
    monkeypatch.setattr(Analysis, "_estimator", lambda *_: estimator)
    found = by_turn(
        tmp_path / "run",
        work=few_giants(size, times, 25 - size, factor),
        reports=lambda work: [*work[:size], *[reported] * (25 - size)],
        late=[late] * 3,
    )
    assert found.status is Status.UNPROVEN
    assert "host-time" in {one.code for one in found.doubts if one.blocks}
