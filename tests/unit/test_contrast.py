"""Two sides against each other: known answers, and coverage of simulated truth."""

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from isobench.stats import (
    Location,
    beside_history,
    between_histories,
    between_runs,
    blocks_for_width,
    estimate,
    holm,
    inflations,
    locate,
    smallest_effect,
    spread_of_block,
)

SPREAD = 0.015
"""Of one visit, on the log scale."""


def location(mean: float = 0.0, error: float = 0.01, freedom: float = 8) -> Location:
    return Location(
        mean=mean, error=error, deviation=0.03 if error else 0.0, freedom=freedom, method="t"
    )


def covers(found: Location, truth: float, level: float = 0.97) -> bool:
    interval = found.interval(level)
    return interval.low <= math.exp(truth) <= interval.high


# ---- one run a side


def test_the_change_of_two_runs_is_the_ratio_of_their_ratios() -> None:
    found = between_runs(location(math.log(1.1)), location(math.log(1.21)), floors=(0.0, 0.0))
    assert math.exp(found.mean) == pytest.approx(1.1)


def test_two_runs_without_trimming_or_floors_give_welchs_interval() -> None:
    rng = np.random.default_rng(3)
    base, head = rng.normal(0, 0.02, 4), rng.normal(0.05, 0.06, 4)
    found = between_runs(locate(base), locate(head), floors=(0.0, 0.0))
    welch = scipy_stats.ttest_ind(head, base, equal_var=False)
    assert found.freedom == pytest.approx(welch.df)
    assert found.p_difference == pytest.approx(welch.pvalue)
    low, high = welch.confidence_interval(0.97)
    assert found.interval(0.97).low == pytest.approx(math.exp(low))
    assert found.interval(0.97).high == pytest.approx(math.exp(high))


def test_two_runs_with_trimming_give_yuens_interval() -> None:
    rng = np.random.default_rng(4)
    base, head = rng.normal(0, 0.02, 15), rng.normal(0.05, 0.06, 20)
    found = between_runs(locate(base), locate(head), floors=(0.0, 0.0))
    yuen = scipy_stats.ttest_ind(head, base, equal_var=False, trim=0.2)
    assert found.freedom == pytest.approx(yuen.df)
    assert found.p_difference == pytest.approx(yuen.pvalue)


def test_noise_floors_widen_the_interval_as_squares_and_weaken_the_p_value() -> None:
    base, head = location(), location(math.log(1.1))
    bare = between_runs(base, head, floors=(0.0, 0.0))
    wide = between_runs(base, head, floors=(0.03, 0.04))
    assert wide.shared == pytest.approx(math.hypot(math.log(1.03), math.log(1.04)))
    reach = math.log(wide.interval(0.97).high) - math.log(bare.interval(0.97).high)
    assert reach == pytest.approx(wide.shared)
    assert wide.p_difference > bare.p_difference


def test_an_effect_within_the_floors_is_no_effect() -> None:
    found = between_runs(location(), location(math.log(1.02)), floors=(0.02, 0.02))
    assert found.p_difference == 1.0


def test_a_timer_that_cannot_tell_blocks_apart_on_one_side_gives_no_p_value() -> None:
    found = between_runs(location(error=0.0), location(math.log(2)), floors=(0.0, 0.0))
    assert (found.error, found.p_difference) == (0.0, 1.0)


# ---- several runs a side


def test_two_histories_give_welchs_interval_of_the_run_estimates() -> None:
    rng = np.random.default_rng(5)
    base, head = rng.normal(0, 0.02, 4), rng.normal(0.05, 0.06, 6)
    sides = [[location(float(mean), error=1e-6) for mean in side] for side in (base, head)]
    found = between_histories(*sides)
    welch = scipy_stats.ttest_ind(head, base, equal_var=False)
    assert found.freedom == pytest.approx(welch.df)
    assert found.p_difference == pytest.approx(welch.pvalue)
    assert "4 and 6 run estimates" in found.method


def test_a_side_of_one_run_borrows_the_spread_of_the_other() -> None:
    head = np.array([0.05, 0.08, 0.02, 0.06])
    found = between_histories([location(0.0, 1e-6)], [location(float(m), 1e-6) for m in head])
    assert found.freedom == 3
    assert found.error == pytest.approx(np.std(head, ddof=1) * math.sqrt(1 + 1 / 4))
    assert found.method.startswith("pooled t")


def test_runs_that_agree_by_luck_are_no_surer_than_their_blocks() -> None:
    found = between_histories([location()] * 2, [location(0.1)] * 2)
    assert found.error == pytest.approx(0.01)


@pytest.mark.parametrize("sizes", [(1, 1), (0, 2), (2, 0)])
def test_histories_need_several_runs(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="two histories"):
        between_histories([location()] * sizes[0], [location()] * sizes[1])


# ---- coverage


def simulated(
    rng: np.random.Generator, truth: float, between: float, blocks: int
) -> tuple[Location, float]:
    """Return a run's location and its noise floor: native, native again, and a target."""
    native, again, target = SPREAD * rng.standard_normal((3, blocks))
    shift = truth + between * rng.standard_normal()
    control = estimate(again - native)
    assert control is not None
    floor = max(control.equivalence.high, 1 / control.equivalence.low) - 1
    return locate(shift + target - native), floor


@pytest.mark.parametrize("between", [0.0, 0.005, 0.01])
def test_two_runs_cover_the_truth_while_runs_differ_by_less_than_their_floors(
    between: float,
) -> None:
    rng = np.random.default_rng(6)
    truth, covered = math.log(1.1), 0
    for _ in range(400):
        base, one = simulated(rng, 0.0, between, 15)
        head, other = simulated(rng, truth, between, 15)
        covered += covers(between_runs(base, head, floors=(one, other)), truth)
    assert covered / 400 >= 0.96


def test_two_runs_without_their_floors_would_not() -> None:
    rng = np.random.default_rng(7)
    covered = 0
    for _ in range(400):
        (base, _), (head, _) = (simulated(rng, 0.0, 0.01, 15) for _ in range(2))
        covered += covers(between_runs(base, head, floors=(0.0, 0.0)), 0.0)
    assert covered / 400 < 0.85


@pytest.mark.parametrize(
    ("sizes", "between"),
    [
        ((3, 3), (0.0, 0.0)),
        ((3, 3), (0.03, 0.03)),
        ((2, 5), (0.03, 0.003)),
        ((5, 2), (0.03, 0.003)),
        ((1, 4), (0.02, 0.02)),
    ],
)
def test_histories_cover_the_truth_however_much_runs_differ(
    sizes: tuple[int, int], between: tuple[float, float]
) -> None:
    rng = np.random.default_rng(8)
    truth, covered = math.log(1.2), 0
    for _ in range(400):
        base, head = (
            [simulated(rng, mean, spread, 12)[0] for _ in range(size)]
            for size, spread, mean in zip(sizes, between, (0.0, truth), strict=True)
        )
        covered += covers(between_histories(base, head), truth)
    assert covered / 400 >= 0.95


@pytest.mark.parametrize("runs", [2, 3, 5])
def test_a_cell_that_varies_more_than_all_others_raises_no_more_false_alarms(runs: int) -> None:
    rng = np.random.default_rng(5)
    spreads, error, false = np.array([0.003] * 11 + [0.03]), 0.004, 0
    for _ in range(300):
        nights = rng.normal(0, np.hypot(spreads, error), (runs + 1, 12))
        base = [[location(mean, error) for mean in cell] for cell in nights[:-1].T]
        found = [
            beside_history(one, location(mean, error), inflation)
            for one, mean, inflation in zip(base, nights[-1], inflations(base), strict=True)
        ]
        p_values = np.array([1.0 if one is None else one.p_difference for one in found])
        false += bool(holm(p_values).min() < 0.01)
    assert false / 300 <= 0.02


# ---- planning


def test_a_smaller_effect_takes_more_blocks_and_a_quieter_machine() -> None:
    sizes = [smallest_effect(0.02, n) for n in (3, 10, 20, 60)]
    assert sizes == sorted(sizes, reverse=True)
    assert smallest_effect(0.04, 20) > smallest_effect(0.02, 20)


def test_the_smallest_effect_is_shown_nine_times_out_of_ten() -> None:
    rng = np.random.default_rng(9)
    effect = math.log1p(smallest_effect(0.02 * 1.12, 20))  # what trimming costs normal blocks
    shown = 0
    for _ in range(500):
        interval = locate(effect + 0.02 * rng.standard_normal(20)).interval(0.97)
        shown += interval.low > 1
    assert 0.85 <= shown / 500 <= 0.95


def test_the_blocks_for_a_width_give_about_that_width() -> None:
    spread = 0.06
    needed = blocks_for_width(spread, 0.025)
    assert needed is not None
    for blocks, narrow in ((needed, True), (needed - 1, False)):
        kept = blocks - 2 * int(0.2 * blocks)
        reach = scipy_stats.t.ppf(0.985, kept - 1) * spread / math.sqrt(blocks)
        assert bool(reach <= math.log1p(0.025)) is narrow
    assert blocks_for_width(0.001, 0.025) == 10
    assert blocks_for_width(2.0, 0.025) is None


def test_the_spread_of_a_block_is_what_the_interval_is_made_of() -> None:
    found = estimate(0.02 * np.random.default_rng(1).standard_normal(20))
    assert found is not None
    assert spread_of_block(found) / math.sqrt(20) == pytest.approx(found.standard_error)


def test_too_few_blocks_have_no_smallest_effect() -> None:
    with pytest.raises(ValueError, match="3 blocks"):
        smallest_effect(0.02, 2)
