"""One cell's verdict, every rule of it, and the words it is put in."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench import stats
from isobench.analysis.verdict import judge, noise_floor
from isobench.evidence.host_time import HostCheck
from isobench.model import Doubt, Estimate, Interval, Metric, Status, Verdict
from isobench.model.units import TargetName, Unit, WorkloadName
from isobench.model.wording import interval_text

NEAR, SLOWER, FASTER = Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER
INCONCLUSIVE, UNPROVEN = Status.INCONCLUSIVE, Status.UNPROVEN


def estimated(
    low: float, high: float, *, check: tuple[float, float] | None = None, blocks: int = 15
) -> Estimate:
    """Return an estimate whose interval, at both levels, is [low, high]."""
    return Estimate(
        ratio=math.sqrt(low * high),
        interval=Interval(low=low, high=high, level=0.97),
        equivalence=Interval(low=low, high=high, level=0.90),
        check=None if check is None else Interval(low=check[0], high=check[1], level=0.90),
        p_equivalence=0.5,
        standard_error=0.01,
        deviation=0.03,
        blocks=blocks,
        method="trimmed-t 20 %",
    )


def judged(estimate: Estimate | None, **given: Any) -> Verdict:
    defaults: dict[str, Any] = {
        "target": TargetName("docker"),
        "workload": WorkloadName("cpu.sieve"),
        "noise": 0.01,
        "margin": 1.05,
    }
    return judge(estimate=estimate, **(defaults | given))


def codes(verdict: Verdict) -> list[str]:
    return [doubt.code for doubt in verdict.doubts]


def only_doubt(verdict: Verdict) -> Doubt:
    assert len(verdict.doubts) == 1
    return verdict.doubts[0]


# Noise floor


@pytest.mark.parametrize(
    ("low", "high", "floor"), [(0.99, 1.02, 0.02), (0.96, 1.01, 1 / 0.96 - 1), (1.01, 1.03, 0.03)]
)
def test_the_noise_floor_is_the_bound_of_the_control_further_from_one(
    low: float, high: float, floor: float
) -> None:
    assert noise_floor(estimated(low, high)) == pytest.approx(floor)


def test_the_noise_floor_is_unknown_without_a_control_or_without_spread() -> None:
    assert noise_floor(None) is None
    assert noise_floor(dataclasses.replace(estimated(1, 1), deviation=0.0)) is None


# Standings


@pytest.mark.parametrize(
    ("low", "high", "status"),
    [
        (0.99, 1.02, NEAR),
        (0.953, 1.049, NEAR),
        (1.001, 1.002, NEAR),
        (1.06, 1.10, SLOWER),
        (8.0, 28.0, SLOWER),
        (0.80, 0.94, FASTER),
        (0.99, 1.06, INCONCLUSIVE),
        (0.94, 1.01, INCONCLUSIVE),
        (0.90, 1.20, INCONCLUSIVE),
        (1.04, 1.08, INCONCLUSIVE),
        (0.92, 0.96, INCONCLUSIVE),
    ],
)
def test_the_reported_interval_against_the_margin_makes_the_standing(
    low: float, high: float, status: Status
) -> None:
    assert judged(estimated(low, high)).status is status


def test_the_margin_moves_the_standing() -> None:
    assert judged(estimated(1.06, 1.10), margin=1.2).status is NEAR
    assert judged(estimated(0.99, 1.02), margin=1.01).status is INCONCLUSIVE


@given(st.floats(0.5, 2), st.floats(1, 1.5))
def test_swapping_subject_and_native_swaps_slower_and_faster(low: float, width: float) -> None:
    there = judged(estimated(low, low * width)).status
    back = judged(estimated(1 / (low * width), 1 / low)).status
    assert back is {SLOWER: FASTER, FASTER: SLOWER}.get(there, there)


@given(st.floats(0.5, 2), st.floats(1, 1.5), st.floats(1.001, 1.5), st.none() | st.floats(0, 0.5))
def test_no_verdict_says_more_than_its_interval(
    low: float, width: float, margin: float, noise: float | None
) -> None:
    high = low * width
    match judged(estimated(low, high), margin=margin, noise=noise).status:
        case Status.NEAR_NATIVE:
            assert 1 / margin <= low <= high <= margin
            assert noise is not None
        case Status.SLOWER:
            assert noise is not None
            assert low > margin
        case Status.FASTER:
            assert noise is not None
            assert high < 1 / margin
        case Status.INCONCLUSIVE | Status.UNPROVEN:
            pass


def test_a_decided_cell_has_no_doubts_of_its_own() -> None:
    assert judged(estimated(0.99, 1.02)).doubts == ()
    assert judged(estimated(1.2, 1.3)).doubts == ()


def test_faster_than_native_asks_for_an_explanation_and_stands() -> None:
    verdict = judged(estimated(0.80, 0.90))
    doubt = only_doubt(verdict)
    assert verdict.status is FASTER
    assert doubt.code == "faster-than-native"
    assert not doubt.blocks
    assert "0.85x native" in doubt.detail


def test_the_control_faster_than_its_twin_is_no_finding_about_isolation() -> None:
    assert judged(estimated(0.80, 0.90), target=TargetName("native#2")).doubts == ()


@pytest.mark.parametrize(
    ("interval", "seen", "is_known", "status"),
    [
        ((1.26, 1.32), (0.9, 1.35), True, SLOWER),
        ((1.26, 1.32), (0.9, 1.26), True, SLOWER),
        ((1.26, 1.32), (0.9, 1.17), True, UNPROVEN),
        ((1.26, 1.32), (0.9, 1.0), True, UNPROVEN),
        ((1.06, 1.10), (0.9, 1.03), True, UNPROVEN),
        ((39.0, 41.0), (0.9, 37.0), True, SLOWER),
        ((39.0, 41.0), (0.9, 30.0), True, UNPROVEN),
        # The way of requests and answers hides the work.
        ((1.26, 1.32), (0.9, 1.0), False, SLOWER),
        ((0.98, 1.02), (1.0, 6.0), True, NEAR),
        ((0.98, 1.02), (1.05, 6.1), True, NEAR),
        ((0.98, 1.02), (1.06, 6.12), True, UNPROVEN),
        ((0.98, 1.02), (2.0, 8.0), True, UNPROVEN),
        ((0.98, 1.02), (2.0, 8.0), False, NEAR),
        # It moves most of its time to turns that do not count.
        ((4.8, 5.2), (5.0, 14.0), True, SLOWER),
        ((4.8, 5.2), (5.7, 15.4), True, SLOWER),
        ((4.8, 5.2), (6.0, 16.0), True, UNPROVEN),
        ((4.8, 5.2), (19.0, 42.0), True, UNPROVEN),
        ((0.4, 0.5), (0.52, 0.6), True, FASTER),
        ((0.4, 0.5), (0.6, 0.7), True, UNPROVEN),
    ],
)
def test_no_verdict_contradicts_what_the_host_saw(
    interval: tuple[float, float], seen: tuple[float, float], is_known: bool, status: Status
) -> None:
    least, most = seen
    host = HostCheck(
        share=1.0,
        share_upper=1.05,
        least=least if is_known else 0.0,
        most=most if is_known else math.inf,
        turns_most=math.inf,
        way=0.05,
        whole=0.8,
        whole_lower=0.75,
        of_all=1.0,
        hiding=0,
        blocks=10,
        is_known=is_known,
    )
    verdict = judged(estimated(*interval), host=host)
    assert verdict.status is status
    others = ["faster-than-native"] if status is FASTER else []
    assert codes(verdict) == (["host-time"] if status is UNPROVEN else others)
    if status is UNPROVEN:
        doubt = only_doubt(verdict)
        assert doubt.blocks
        assert f"the host saw {interval_text(seen)} times" in doubt.detail


@pytest.mark.parametrize("margin", [1.0, 0.95, math.nan])
def test_a_margin_that_is_none_is_refused(margin: float) -> None:
    with pytest.raises(ValueError, match="margin"):
        judged(estimated(0.99, 1.02), margin=margin)


# What takes the verdict away


def test_no_estimate_is_unproven() -> None:
    verdict = judged(None)
    doubt = only_doubt(verdict)
    assert verdict.status is UNPROVEN
    assert doubt.code == "no-estimate"
    assert doubt.blocks
    assert "--blocks 10" in doubt.advice


def test_where_only_blocks_lack_the_advice_is_more_of_them_and_not_to_look_for_gaps() -> None:
    doubt = only_doubt(judged(None, is_short=True))
    assert (doubt.code, doubt.blocks) == ("few-blocks", True)
    assert doubt.advice == "measure more blocks: at least 10 (--blocks 10)"
    # With an estimate there are enough.
    assert judged(estimated(0.99, 1.02), is_short=True).status is NEAR


def test_a_blocking_doubt_takes_the_verdict_away_and_others_do_not() -> None:
    doubt = Doubt(code="steal", detail="4 % stolen", advice="another host", blocks=False)
    blocking = dataclasses.replace(doubt, blocks=True)
    assert judged(estimated(0.99, 1.02), doubts=[doubt]).status is NEAR
    assert judged(estimated(0.99, 1.02), doubts=[doubt]).doubts == (doubt,)
    assert judged(estimated(0.99, 1.02), doubts=[blocking]).status is UNPROVEN
    assert judged(None, doubts=[blocking]).doubts[0] is blocking


def test_a_quick_look_gives_no_verdict_and_says_how_many_blocks_it_had() -> None:
    verdict = judged(estimated(0.99, 1.02, blocks=5), quick=True)
    assert verdict.status is UNPROVEN
    assert codes(verdict) == ["quick"]
    assert "5 blocks" in only_doubt(verdict).detail


@pytest.mark.parametrize("blocks", [3, 6, 9])
def test_few_blocks_decide_where_their_interval_does(blocks: int) -> None:
    assert judged(estimated(0.99, 1.02, blocks=blocks)).status is NEAR
    assert judged(estimated(3.5, 4.6, blocks=blocks)).status is SLOWER
    assert judged(estimated(0.9, 1.2, blocks=blocks)).status is INCONCLUSIVE


def test_the_90_percent_interval_decides_nothing() -> None:
    wide = dataclasses.replace(
        estimated(0.94, 1.06), equivalence=Interval(low=0.97, high=1.03, level=0.90)
    )
    verdict = judged(wide)
    assert verdict.status is INCONCLUSIVE
    assert "the 97 % interval" in only_doubt(verdict).detail


@pytest.mark.parametrize(("error", "detail"), [(0.0, "15 blocks"), (0.01, "most of 15 blocks")])
def test_a_timer_too_coarse_gives_no_verdict(error: float, detail: str) -> None:
    coarse = dataclasses.replace(estimated(1.01, 1.01), standard_error=error, deviation=0.0)
    verdict = judged(coarse)
    assert verdict.status is UNPROVEN
    assert codes(verdict) == ["timer-limited"]
    assert only_doubt(verdict).detail.startswith(f"{detail} gave the same ratio")


COUNT = Metric(name="faults", unit=Unit.COUNT, fact="memory.faults")


@pytest.mark.parametrize(
    ("blocks", "status"),
    [
        ([0.0] * 6, NEAR),
        ([0.0] * 5, UNPROVEN),
        ([0.0] * 3, UNPROVEN),
        # Of which trimming keeps equal ones alone.
        ([0.0, 0.0, 0.09, 0.0, 0.0, 0.0], INCONCLUSIVE),
        ([0.0] * 8 + [0.4] * 2, INCONCLUSIVE),
        ([0.0] * 9 + [0.01], NEAR),
    ],
)
def test_counts_are_exact_where_all_of_enough_blocks_agree(
    blocks: list[float], status: Status
) -> None:
    found = stats.estimate(np.array(blocks))
    assert found is not None
    verdict = judged(found, metric=COUNT)
    assert verdict.status is status
    assert (found.interval.low < found.interval.high) == (len(set(blocks)) > 1)
    assert codes(verdict) == {UNPROVEN: ["few-blocks"], INCONCLUSIVE: ["wide-interval"]}.get(
        status, []
    )


# Slow blocks


@pytest.mark.parametrize(
    ("low", "high", "slow", "fast", "status"),
    [
        (0.99, 1.01, 3, 0, UNPROVEN),
        (0.99, 1.01, 3, 1, UNPROVEN),
        # Stalls of the machine meet native as well.
        (0.99, 1.01, 3, 2, NEAR),
        (0.99, 1.01, 2, 0, NEAR),
        (0.80, 0.90, 3, 0, UNPROVEN),
        (1.10, 1.20, 3, 0, SLOWER),
    ],
)
def test_slow_blocks_that_trimming_leaves_out_speak_against_a_target(
    low: float, high: float, slow: int, fast: int, status: Status
) -> None:
    middle = math.log(math.sqrt(low * high)) + 0.001 * np.arange(15)
    blocks = np.concatenate(
        [middle[slow + fast :], np.full(slow, math.log(2.0)), np.full(fast, -math.log(2.0))]
    )
    verdict = judged(estimated(low, high), log_ratios=blocks)
    assert verdict.status is status
    assert ("slow-blocks" in codes(verdict)) == (status is UNPROVEN)
    if status is UNPROVEN:
        (doubt,) = (one for one in verdict.doubts if one.code == "slow-blocks")
        assert doubt.detail.startswith("3 of 15 blocks are 2.00x native or more")


@pytest.mark.parametrize("check", [(0.99, 1.03), (0.99, 1.40)])
def test_slow_blocks_count_whether_the_second_estimator_confirms_or_not(
    check: tuple[float, float],
) -> None:
    blocks = np.concatenate([0.001 * np.arange(12), np.full(3, math.log(2.0))])
    verdict = judged(estimated(0.99, 1.02, check=check), log_ratios=blocks)
    assert (verdict.status, codes(verdict)) == (UNPROVEN, ["slow-blocks"])


def test_blocks_within_the_margin_are_not_slow() -> None:
    blocks = np.concatenate([0.0001 * np.arange(12), np.full(3, math.log(1.04))])
    assert judged(estimated(0.99, 1.01), log_ratios=blocks).status is NEAR


# Noise


def bias(low: float, high: float) -> Interval:
    return Interval(low=low, high=high, level=0.99)


@pytest.mark.parametrize(("low", "high"), [(0.99, 1.02), (1.10, 1.20), (0.8, 0.9)])
def test_a_wide_noise_floor_alone_withholds_nothing(low: float, high: float) -> None:
    assert judged(estimated(low, high), noise=0.3).status is judged(estimated(low, high)).status


def test_a_bias_that_could_have_made_a_cell_near_native_withholds_that() -> None:
    assert judged(estimated(0.99, 1.02), bias=bias(1.01, 1.025)).status is NEAR
    verdict = judged(estimated(0.99, 1.02), bias=bias(1.01, 1.035))
    assert verdict.status is UNPROVEN
    assert codes(verdict) == ["control-bias"]
    assert only_doubt(verdict).blocks
    assert "[1.01, 1.03] at 99 %" in only_doubt(verdict).detail


@pytest.mark.parametrize(("low", "high"), [(1.08, 1.20), (1 / 1.20, 1 / 1.08)])
def test_a_bias_as_large_as_the_effect_withholds_it(low: float, high: float) -> None:
    """Whichever of the two visits is the slower one: the bias may lie with either."""
    for small, large in ((1.01, 1.02), (1 / 1.02, 1 / 1.01)):
        assert judged(estimated(low, high), bias=bias(small, large)).status in {SLOWER, FASTER}
    for small, large in ((1.01, 1.04), (1 / 1.04, 1 / 1.01)):
        verdict = judged(estimated(low, high), bias=bias(small, large))
        assert verdict.status is UNPROVEN
        assert codes(verdict) == ["control-bias"]


def test_a_bias_does_not_touch_what_is_far_from_the_margin() -> None:
    assert judged(estimated(200, 260), bias=bias(1.02, 1.09)).status is SLOWER


@pytest.mark.parametrize(("low", "high"), [(0.99, 1.02), (1.10, 1.20), (0.8, 0.9)])
def test_an_unknown_noise_floor_forbids_every_verdict(low: float, high: float) -> None:
    verdict = judged(estimated(low, high), noise=None)
    assert verdict.status is UNPROVEN
    assert codes(verdict) == ["noise-floor"]
    assert only_doubt(verdict).blocks
    assert "unknown" in only_doubt(verdict).detail


def test_an_inconclusive_cell_is_so_whatever_the_control_shows() -> None:
    assert judged(estimated(0.9, 1.2), noise=None).status is INCONCLUSIVE
    assert judged(estimated(0.9, 1.2), bias=bias(1.1, 1.5)).status is INCONCLUSIVE


# Second opinion and advice


@pytest.mark.parametrize(
    ("interval", "check"),
    [((0.99, 1.02), (0.99, 1.06)), ((1.06, 1.2), (1.04, 1.2)), ((0.8, 0.9), (0.8, 0.97))],
)
def test_two_estimators_that_disagree_decide_nothing(
    interval: tuple[float, float], check: tuple[float, float]
) -> None:
    verdict = judged(estimated(*interval, check=check), blocks_needed=40)
    assert verdict.status is INCONCLUSIVE
    assert codes(verdict) == ["estimators-disagree"]
    assert "about 40 blocks would decide" in only_doubt(verdict).advice


def test_two_estimators_that_agree_decide() -> None:
    assert judged(estimated(0.99, 1.02, check=(0.98, 1.03))).status is NEAR
    for check in ((0.99, 1.07), (0.99, 1.04)):
        assert codes(judged(estimated(0.99, 1.06, check=check))) == ["wide-interval"]


def test_disagreement_behind_a_bias_stays_unproven_and_both_are_told() -> None:
    verdict = judged(estimated(0.99, 1.02, check=(0.99, 1.06)), bias=bias(1.05, 1.2))
    assert verdict.status is UNPROVEN
    assert codes(verdict) == ["control-bias", "estimators-disagree"]


def test_a_wide_interval_is_told_with_the_blocks_that_would_decide() -> None:
    doubt = only_doubt(judged(estimated(0.99, 1.06), blocks_needed=40))
    assert doubt.code == "wide-interval"
    assert not doubt.blocks
    assert "[0.99, 1.06]" in doubt.detail
    assert doubt.advice == "about 40 blocks would decide: --max-blocks 40 and a larger --budget"


def test_advice_never_asks_for_no_more_blocks_than_there_were() -> None:
    assert "about 16 blocks" in only_doubt(judged(estimated(0.99, 1.06), blocks_needed=12)).advice


@pytest.mark.parametrize("blocks_needed", [None, 1001])
def test_where_no_sane_number_of_blocks_decides_the_distance_to_the_margin_is_told(
    blocks_needed: int | None,
) -> None:
    doubt = only_doubt(judged(estimated(1.03, 1.06), blocks_needed=blocks_needed))
    assert "0.49 % from the margin" in doubt.advice
    assert "--margin" in doubt.advice
