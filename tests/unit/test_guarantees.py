"""The guarantees hold on simulated truth, and a broken estimator breaks them."""

import dataclasses
import math
from typing import Any

import pytest

from isobench import stats
from isobench.analysis import verdict
from isobench.model import Interval, Status
from isobench.report import selftest as view
from isobench.selftest import guarantees, planted, simulate
from isobench.selftest.guarantees import Figure, Finding, Result
from isobench.selftest.scenarios import SCENARIOS
from isobench.selftest.simulate import Place
from isobench.stats import ratio

QUIET = SCENARIOS[0]
REPLICATIONS = 500
ANY = Place(scenario="it", ratio=1.0, length="10")


@pytest.fixture(scope="module")
def whole() -> Result:
    control = planted.run(replications=REPLICATIONS, seed=1)
    return guarantees.check(simulate.run(replications=REPLICATIONS), control)


@pytest.fixture(scope="module")
def quiet() -> Result:
    return guarantees.check(simulate.run(replications=REPLICATIONS, scenarios=[QUIET]))


# ---- what is guaranteed


def test_every_guarantee_holds(whole: Result) -> None:
    assert [view.finding_text(one) for one in whole.broken] == []
    assert view.sentence(whole).startswith(f"All {len(whole.findings)} guarantees hold")


def test_every_scenario_has_a_guarantee_unless_it_says_why_not(whole: Result) -> None:
    for scenario in SCENARIOS:
        held = [one for one in whole.findings if one.place.scenario == scenario.name]
        assert bool(held) is not bool(scenario.limit)


def test_what_is_guaranteed_is_what_the_method_says(whole: Result) -> None:
    bounds = {view.figure_text(one): (one.low, one.high) for one in whole.findings}
    assert bounds["drift, true ratio 1.00, 10 blocks: 95 % interval misses it"] == (0.02, 0.09)
    assert bounds["drift, true ratio 1.00, stopped: reported interval contains it"] == (0.95, 1)
    assert bounds["drift, true ratio 1.05, stopped: called near-native"] == (0, 0.05)
    assert bounds["drift, true ratio 1.05, 15 blocks: called slower"] == (0, 0.05)
    assert bounds["drift, true ratio 1.00, 30 blocks: called faster"] == (0, 0.05)
    assert bounds["quiet, true ratio 1.10, stopped: called slower"] == (0.9, 1)
    assert bounds["quiet, true ratio 100.00, left: called slower"] == (0.9, 1)
    assert bounds["stalls, true ratio 1.02, left: called slower"] == (0, 0.05)
    assert bounds["stalls, true ratio 2.00, left: called near-native"] == (0, 0.05)
    assert bounds["heavy tails, true ratio 1.05, left: called slower"] == (0, 0.05)
    assert bounds["drift, true ratio 1.10, left: reported interval contains it"] == (0.95, 1)
    assert bounds["alike blocks, true ratio 1.02, left: reported interval contains it"] == (0.94, 1)
    biased = "bias: native 5 % faster, true ratio 1.05, 60 blocks: a wrong verdict"
    assert bounds[biased] == (0, 0.05)
    assert not any(one.startswith("bias: native 2 %") for one in bounds)


def test_only_alike_blocks_have_a_weaker_guarantee_and_the_sentence_says_so(whole: Result) -> None:
    assert [one.name for one in SCENARIOS if one.weaker] == ["alike blocks"]
    weaker = "For alike blocks the guarantee is weaker: verdicts are wrong in 5 % at most, and the"
    assert weaker in view.sentence(whole)
    assert "contains the true ratio in 94 % at least." in view.sentence(whole)
    assert any("alike blocks: a weaker guarantee" in one for one in view.notes(whole))


def test_naive_practice_finds_differences_where_there_are_none(whole: Result) -> None:
    for scenario in ("quiet", "drift", "trend", "stalls"):
        naive = whole.simulation.row(scenario, 1.0, "15").naive_alarms
        assert naive is not None
        assert naive > 0.09 > whole.simulation.row(scenario, 1.0, "15").alarms


# ---- what breaks it


def scaled(interval: Interval, factor: float) -> Interval:
    middle = math.log(interval.low * interval.high) / 2
    reach = factor * (math.log(interval.high) - middle)
    return dataclasses.replace(
        interval, low=math.exp(middle - reach), high=math.exp(middle + reach)
    )


def bend(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """Make all intervals so many times as wide as they should be."""
    quantile, ranked = ratio.student_quantile, ratio._signed_rank_intervals
    monkeypatch.setattr(
        ratio, "student_quantile", lambda level, freedom: factor * quantile(level, freedom)
    )
    monkeypatch.setattr(
        ratio,
        "_signed_rank_intervals",
        lambda *given: [scaled(one, factor) for one in ranked(*given)],
    )


def broken_by(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, wrong: object
) -> list[str]:
    monkeypatch.setattr(module, name, wrong)
    return broken()


def broken() -> list[str]:
    result = guarantees.check(simulate.run(replications=300, scenarios=[QUIET]))
    assert f"{len(result.broken)} of" in view.sentence(result)
    return [view.figure_text(one) for one in result.broken]


def test_intervals_half_as_wide_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    bend(monkeypatch, 0.5)
    found = broken()
    assert "quiet, true ratio 1.00, 15 blocks: 95 % interval misses it" in found
    assert "quiet, true ratio 1.00, 15 blocks: reported interval contains it" in found
    assert "quiet, true ratio 1.00, stopped: reported interval contains it" in found
    assert "quiet, true ratio 1.05, left: called near-native" in found
    assert "quiet, true ratio 1.05, left: reported interval contains it" in found


def test_intervals_twice_as_wide_break_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    bend(monkeypatch, 2.0)
    found = broken()
    assert "quiet, true ratio 1.00, 15 blocks: 95 % interval misses it" in found


def test_intervals_four_times_as_wide_decide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bend(monkeypatch, 4.0)
    found = broken()
    assert "quiet, true ratio 1.00, stopped: called near-native" in found
    assert "quiet, true ratio 1.00, left: called near-native" in found


def test_an_estimator_that_is_off_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stats.block_log_ratios
    broken = broken_by(
        monkeypatch, stats, "block_log_ratios", lambda *sides: right(*sides) + math.log(1.02)
    )
    assert "quiet, true ratio 1.00, 15 blocks: reported interval contains it" in broken


def test_a_verdict_by_the_ratio_alone_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verdict.judge

    def wrong(**options: Any) -> Any:
        judged = right(**options)
        near = judged.estimate is not None and judged.estimate.ratio < options["margin"]
        return dataclasses.replace(judged, status=Status.NEAR_NATIVE if near else Status.SLOWER)

    broken = broken_by(monkeypatch, verdict, "judge", wrong)
    assert "quiet, true ratio 1.05, 15 blocks: called near-native" in broken
    assert "quiet, true ratio 1.05, stopped: called slower" in broken


def test_what_else_is_simulated_does_not_change_a_scenario(whole: Result, quiet: Result) -> None:
    assert [one for one in whole.simulation.rows if one.scenario == "quiet"] == list(
        quiet.simulation.rows
    )


@pytest.mark.parametrize(
    ("rate", "low", "high", "exact", "held"),
    [
        (0.95, 0.95, 1.0, False, True),
        (0.93, 0.95, 1.0, False, True),  # 2.05 standard errors of 500 runs
        (0.92, 0.95, 1.0, False, False),
        (0.07, 0.0, 0.05, False, True),
        (0.08, 0.0, 0.05, False, False),
        (0.09, 0.02, 0.09, True, True),
        (0.092, 0.02, 0.09, True, False),
        (0.018, 0.02, 0.09, True, False),
    ],
)
def test_a_guarantee_is_broken_by_more_than_chance_explains(
    rate: float, low: float, high: float, exact: bool, held: bool
) -> None:
    finding = Finding(
        place=ANY, figure=Figure.COVERAGE, rate=rate, runs=500, low=low, high=high, exact=exact
    )
    assert finding.held is held


def test_families_are_figures_and_no_guarantee(whole: Result) -> None:
    found = whole.simulation.families
    assert found is not None
    assert found.families == REPLICATIONS * 8 // 20  # the crude timer has none
    assert found.own > 0.5  # of twenty cells at 5 % each
    assert found.adjusted < 0.15
    assert not any("Holm" in view.figure_text(one) for one in whole.findings)
