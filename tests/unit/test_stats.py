"""Statistics against known answers, independent implementations and properties."""

import dataclasses
import itertools
import math
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from isobench.model import Estimate, Interval
from isobench.stats import (
    block_log_ratios,
    blocks_needed,
    drift,
    estimate,
    estimates,
    half_width,
    holm,
    narrow,
    outlying_blocks,
    quantile_lower,
    quantile_upper,
    sessions_alike,
    signed_rank_interval,
    student_quantile,
    tails,
    values_needed,
)

Floats = NDArray[np.float64]

logs = st.floats(-3, 3, allow_subnormal=False)
log_lists = st.lists(logs, min_size=3, max_size=40)


def array(*values: float) -> Floats:
    return np.array(values, dtype=np.float64)


def noisy(blocks: int, *, ratio: float = 1.0, spread: float = 0.02, seed: int = 1) -> Floats:
    generator = np.random.default_rng(seed)
    return math.log(ratio) + spread * generator.standard_normal(blocks)


def sure(found: Estimate | None) -> Estimate:
    assert found is not None
    return found


# Block log-ratios


def test_a_block_is_the_log_ratio_of_the_medians_of_its_iterations() -> None:
    subject = np.array([[2.0, 2.0, 90.0], [3.0, 1.0, 2.0]])
    reference = np.array([[1.0, 1.0, 1.0], [4.0, 4.0, 0.1]])
    assert block_log_ratios(subject, reference) == pytest.approx([math.log(2), math.log(0.5)])


def test_partners_of_a_block_may_differ_in_iterations() -> None:
    assert block_log_ratios(np.array([[2.0, 4.0]]), np.array([[3.0]])) == pytest.approx([0.0])


@pytest.mark.parametrize(
    ("subject", "reference"),
    [
        (np.ones((3, 2)), np.ones((2, 2))),
        (np.ones(3), np.ones(3)),
        (np.ones((3, 2)), np.ones(3)),
        (np.ones((3, 0)), np.ones((3, 1))),
    ],
)
def test_rows_that_do_not_pair_are_refused(subject: Floats, reference: Floats) -> None:
    with pytest.raises(ValueError, match="rows must pair"):
        block_log_ratios(subject, reference)


@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -1.0])
def test_a_time_that_is_none_is_refused_on_either_side(bad: float) -> None:
    good, spoilt = np.ones((2, 2)), np.array([[1.0, 1.0], [bad, 1.0]])
    for pair in ((good, spoilt), (spoilt, good)):
        with pytest.raises(ValueError, match="finite and above zero"):
            block_log_ratios(*pair)


# Estimate


def test_the_trimmed_interval_is_the_one_yuens_test_inverts() -> None:
    values = noisy(23, ratio=1.3, spread=0.1)
    found = sure(estimate(values))
    for interval in (found.interval, found.equivalence):
        for end in (interval.low, interval.high):
            # Against an all but constant sample Yuen's test is the one-sample trimmed test.
            constant = math.log(end) + np.linspace(-1e-9, 1e-9, 23)
            p = scipy_stats.ttest_ind(values, constant, equal_var=False, trim=0.2).pvalue
            assert p == pytest.approx(1 - interval.level)
    assert found.interval.level == 0.97
    assert found.equivalence.level == 0.90
    assert found.ratio == pytest.approx(math.exp(scipy_stats.trim_mean(values, 0.2)))
    assert found.method == "trimmed-t 20 %"
    assert found.blocks == 23


def test_winsorised_deviation_and_error_are_those_worked_out_by_hand() -> None:
    # Ten blocks, two off either end: 3 3 3 4 5 6 7 8 8 8, six kept.
    found = sure(estimate(array(1, 2, 3, 4, 5, 6, 7, 8, 9, 10) / 10))
    assert found.ratio == pytest.approx(math.exp(0.55))
    assert found.deviation == pytest.approx(math.sqrt(42.5 / 9) / 10)
    assert found.standard_error == pytest.approx(math.sqrt(42.5 / 30) / 10)


@pytest.mark.parametrize(
    ("blocks", "method"), [(3, "t"), (4, "t"), (5, "t"), (6, "trimmed-t 20 %")]
)
def test_few_blocks_are_not_trimmed_and_the_method_says_so(blocks: int, method: str) -> None:
    values = noisy(blocks)
    found = sure(estimate(values))
    assert found.method == method
    assert (found.check is None) == (blocks < 6)
    if method == "t":
        plain = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.97)
        assert found.interval.low == pytest.approx(math.exp(plain.low))
        assert found.interval.high == pytest.approx(math.exp(plain.high))


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_fewer_than_three_blocks_give_no_estimate(blocks: int) -> None:
    assert estimate(np.zeros(blocks)) is None


def test_the_equivalence_p_value_is_the_larger_of_two_one_sided_tests() -> None:
    values, bound = noisy(5, ratio=1.02), math.log(1.05)
    above = scipy_stats.ttest_1samp(values, -bound, alternative="greater").pvalue
    below = scipy_stats.ttest_1samp(values, bound, alternative="less").pvalue
    assert sure(estimate(values)).p_equivalence == pytest.approx(max(above, below))


@pytest.mark.parametrize("ratio", [0.9, 0.96, 1.0, 1.03, 1.2])
def test_the_equivalence_test_passes_exactly_when_its_interval_fits_the_margin(
    ratio: float,
) -> None:
    for seed in range(40):
        found = sure(estimate(noisy(12, ratio=ratio, spread=0.04, seed=seed), margin=1.05))
        inside = found.equivalence.low > 1 / 1.05 and found.equivalence.high < 1.05
        assert inside == (found.p_equivalence < 0.05)


def test_equal_blocks_have_no_error_and_prove_nothing() -> None:
    found = sure(estimate(np.full(12, 0.1)))
    assert found.standard_error == 0
    assert found.deviation == 0
    assert found.p_equivalence == 1
    assert found.interval.low == found.interval.high == found.ratio


@pytest.mark.parametrize("sessions", [None, np.repeat([1, 2, 3], 4)])
def test_blocks_that_are_equal_but_for_some_have_the_error_of_all(sessions: Any) -> None:
    values = np.full(12, 0.1)
    values[[3, 7]] = 2.0  # one of two of the sessions, whose medians stay equal
    found = sure(estimate(values, sessions=sessions))
    assert found.deviation == 0
    assert found.standard_error > np.std(values) / math.sqrt(12)
    assert found.sessions == (0 if sessions is None else 3)
    assert found.ratio == pytest.approx(math.exp(0.1))
    assert found.interval.low < 0.6
    assert found.interval.high > 2


@pytest.mark.parametrize(
    "bad",
    [
        {"log_ratios": np.zeros((3, 3))},
        {"log_ratios": array(0, 1, math.nan)},
        {"log_ratios": array(0, 1, 2), "level": 1.0},
        {"log_ratios": array(0, 1, 2), "margin": 1.0},
        {"log_ratios": array(0, 1, 2), "margin": math.nan},
    ],
)
def test_nonsense_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"log-ratios|level|margin"):
        estimate(**bad)


@given(log_lists)
def test_an_estimate_lies_in_its_intervals_and_the_wider_level_holds_the_narrower(
    values: list[float],
) -> None:
    found = sure(estimate(array(*values)))
    tiny = 1e-9
    assert found.interval.low <= found.equivalence.low * (1 + tiny)
    assert found.equivalence.low <= found.ratio * (1 + tiny)
    assert found.ratio <= found.equivalence.high * (1 + tiny)
    assert found.equivalence.high <= found.interval.high * (1 + tiny)
    assert 0 <= found.p_equivalence <= 1


@given(log_lists)
def test_swapping_subject_and_reference_inverts_the_estimate(values: list[float]) -> None:
    there, back = sure(estimate(array(*values))), sure(estimate(-array(*values)))
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert back.interval.low == pytest.approx(1 / there.interval.high)
    if there.check is None or back.check is None:
        assert there.check is back.check
    else:
        assert back.check.low == pytest.approx(1 / there.check.high)


@given(log_lists, st.randoms(use_true_random=False))
def test_the_order_of_blocks_does_not_matter(values: list[float], random: Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    assert estimate(array(*shuffled)) == estimate(array(*values))


@given(st.lists(st.floats(-1, 1), min_size=10, max_size=30))
def test_a_fifth_of_wild_blocks_cannot_carry_the_ratio_away(values: list[float]) -> None:
    wild = array(*values)
    wild[: wild.size // 5] = 50.0
    assert sure(estimate(wild)).ratio <= math.exp(1.0) * (1 + 1e-9)


def test_a_spread_beyond_floats_still_gives_finite_bounds() -> None:
    found = sure(estimate(array(-900.0, 0.0, 900.0)))
    assert math.isfinite(found.interval.high)
    assert found.interval.low > 0


# Sessions


def labels(*sizes: int) -> NDArray[np.int64]:
    """Return session labels: so many blocks of the first, so many of the second, ..."""
    return np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)


def apart(blocks: int, served: int, *, between: float, seed: int) -> tuple[Floats, Any]:
    """Return blocks with a spread of 2 % within sessions and `between` times that among them."""
    generator = np.random.default_rng(seed)
    sessions = np.arange(blocks, dtype=np.int64) // served
    shared = between * 0.02 * generator.standard_normal(blocks)
    return 0.02 * generator.standard_normal(blocks) + shared[sessions], sessions


@given(log_lists)
def test_blocks_with_a_session_each_are_answered_as_if_nothing_were_known_of_sessions(
    values: list[float],
) -> None:
    distinct = -np.arange(len(values), dtype=np.int64)
    assert estimate(array(*values), sessions=distinct) == estimate(array(*values))


def test_sessions_that_differ_are_what_the_interval_counts() -> None:
    values = array(0.10, 0.11, 0.12, 0.30, 0.31, 0.90, 0.20, 0.21, 0.22)
    found = sure(estimate(values, sessions=labels(3, 3, 3)))
    medians = array(0.11, 0.31, 0.21)
    expected = scipy_stats.ttest_1samp(medians, 0).confidence_interval(0.97)
    assert found.ratio == pytest.approx(math.exp(0.21))
    assert found.interval.low == pytest.approx(math.exp(expected.low))
    assert found.interval.high == pytest.approx(math.exp(expected.high))
    assert (found.sessions, found.blocks) == (3, 9)
    assert found.method == "t of 3 session medians"
    assert found.standard_error == pytest.approx(0.1 / math.sqrt(3))
    assert found.check is None


def test_from_six_sessions_on_the_second_opinion_ranks_their_medians() -> None:
    medians = array(0.1, 0.4, 0.2, 0.6, 0.3, 0.5)
    found = sure(estimate(np.repeat(medians, 3), sessions=labels(3, 3, 3, 3, 3, 3)))
    assert found.sessions == 6
    assert found.check == signed_rank_interval(medians, level=0.90)


def test_sessions_that_are_alike_are_pooled_and_the_method_says_so() -> None:
    values = array(1, 5, 9, 2, 6, 7, 3, 4, 8) / 100
    sessions = labels(3, 3, 3)
    found, plain = sure(estimate(values, sessions=sessions)), sure(estimate(values))
    assert sessions_alike(values, sessions) > 0.5
    assert found.interval == plain.interval
    assert found.check == plain.check
    assert (found.sessions, found.method) == (0, f"{plain.method}, 3 sessions pooled")


def test_a_single_session_is_named_since_nothing_shows_what_another_would_give() -> None:
    values = noisy(12)
    found, plain = sure(estimate(values, sessions=labels(12))), sure(estimate(values))
    assert found.interval == plain.interval
    assert found.method == f"{plain.method}, one session"


def test_equal_sessions_of_a_coarse_timer_have_no_error_and_prove_nothing() -> None:
    found = sure(estimate(np.full(12, 0.1), sessions=labels(4, 4, 4)))
    assert (found.standard_error, found.p_equivalence) == (0, 1)


def test_sessions_that_a_coarse_timer_separates_exactly_are_not_pooled() -> None:
    sessions = labels(4, 4, 4)
    assert sessions_alike(sessions / 10, sessions) == 0
    assert sure(estimate(sessions / 10, sessions=sessions)).sessions == 3


def test_the_test_of_sessions_is_the_one_way_f_test_on_ranks() -> None:
    values, sessions = noisy(14, spread=0.1), labels(5, 5, 4)
    ranks = scipy_stats.rankdata(values)
    groups = [ranks[sessions == label] for label in range(3)]
    assert sessions_alike(values, sessions) == pytest.approx(scipy_stats.f_oneway(*groups).pvalue)


@pytest.mark.parametrize("sessions", [labels(5), labels(1, 1, 1, 1, 1)])
def test_one_session_or_one_a_block_cannot_be_tested(sessions: Any) -> None:
    assert sessions_alike(array(1, 2, 3, 4, 5), sessions) == 1


def test_sessions_that_do_not_pair_with_blocks_are_refused() -> None:
    for function in (estimate, sessions_alike):
        with pytest.raises(ValueError, match="each block needs a session"):
            function(noisy(9), sessions=labels(3, 3))


@given(log_lists, st.integers(1, 6))
def test_swapping_subject_and_reference_inverts_the_estimate_with_sessions_too(
    values: list[float], served: int
) -> None:
    sessions = np.arange(len(values), dtype=np.int64) // served
    there = sure(estimate(array(*values), sessions=sessions))
    back = sure(estimate(-array(*values), sessions=sessions))
    assert back.ratio == pytest.approx(1 / there.ratio)
    assert back.interval.high == pytest.approx(1 / there.interval.low)


def covered(between: float, *, aware: bool, blocks: int = 15, served: int = 5) -> float:
    """Return how often a nominal 95 % interval holds the true ratio of 1."""
    held = 0
    for seed in range(400):
        values, sessions = apart(blocks, served, between=between, seed=seed)
        found = sure(estimate(values, sessions=sessions if aware else None, level=0.95))
        held += found.interval.low <= 1 <= found.interval.high
    return held / 400


def test_intervals_cover_where_three_sessions_differ_and_would_not_if_that_were_ignored() -> None:
    assert covered(1.0, aware=True) >= 0.91
    assert covered(1.0, aware=False) <= 0.85


def test_intervals_cover_where_sessions_are_alike() -> None:
    assert covered(0.0, aware=True) >= 0.93


# Many cells at one go


@pytest.mark.parametrize("served", [None, 1, 2, 5, 99])
@pytest.mark.parametrize("blocks", [3, 5, 6, 15, 30])
def test_many_cells_at_one_go_are_answered_as_each_alone(blocks: int, served: int | None) -> None:
    generator = np.random.default_rng(blocks)
    rows = 0.02 * generator.standard_normal((40, blocks))
    rows[0] = 0.1  # a timer that cannot tell blocks apart
    sessions = None if served is None else np.arange(blocks, dtype=np.int64) // served
    if sessions is not None:  # some rows are pooled, some are not
        rows += (0.03 * generator.standard_normal((40, blocks)) * (np.arange(40) % 2)[:, None])[
            :, sessions
        ]
    together = estimates(rows, sessions=sessions, uncertainty=0.01, level=0.95, margin=1.02)
    alone = [
        estimate(row, sessions=sessions, uncertainty=0.01, level=0.95, margin=1.02) for row in rows
    ]
    assert together == alone


def test_many_cells_of_fewer_than_three_blocks_have_no_estimates() -> None:
    assert estimates(np.zeros((4, 2))) == []


def test_no_cells_have_no_estimates() -> None:
    assert estimates(np.zeros((0, 12))) == []


def test_many_cells_are_rows() -> None:
    with pytest.raises(ValueError, match="log-ratios"):
        estimates(np.zeros(12))


# An error that all blocks share


@given(log_lists, st.floats(0, 0.2))
def test_an_error_that_all_blocks_share_widens_every_interval_by_itself(
    values: list[float], share: float
) -> None:
    plain = sure(estimate(array(*values)))
    wide = sure(estimate(array(*values), uncertainty=share))
    assert wide.ratio == plain.ratio
    assert wide.uncertainty == share
    for one, other in ((wide.interval, plain.interval), (wide.equivalence, plain.equivalence)):
        assert one.low == pytest.approx(other.low / (1 + share))
        assert one.high == pytest.approx(other.high * (1 + share))
    if plain.check is not None:
        assert wide.check is not None
        assert wide.check.high == pytest.approx(plain.check.high * (1 + share))
        assert wide.check.low == pytest.approx(plain.check.low / (1 + share))


@pytest.mark.parametrize("ratio", [0.98, 1.0, 1.03])
def test_the_equivalence_test_still_passes_exactly_when_its_interval_fits_the_margin(
    ratio: float,
) -> None:
    outcomes = set()
    for seed in range(40):
        blocks = noisy(12, ratio=ratio, spread=0.02, seed=seed)
        found = sure(estimate(blocks, margin=1.05, uncertainty=0.02))
        inside = found.equivalence.low > 1 / 1.05 and found.equivalence.high < 1.05
        outcomes.add(inside)
        assert inside == (found.p_equivalence < 0.05)
    assert True in outcomes or ratio != 1.0


@pytest.mark.parametrize("bad", [-0.01, math.nan, math.inf])
def test_an_uncertainty_that_is_no_share_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="uncertainty"):
        estimate(noisy(9), uncertainty=bad)


def test_no_number_of_blocks_averages_a_shared_error_away() -> None:
    assert blocks_needed(dataclasses.replace(planned(), uncertainty=0.06)) is None
    more = blocks_needed(dataclasses.replace(planned(), uncertainty=0.02))
    assert more is not None
    assert more > (blocks_needed(planned()) or 0)


# Hodges-Lehmann


@pytest.mark.parametrize("level", [0.90, 0.95, 0.97])
@pytest.mark.parametrize("blocks", [6, 9, 14])
def test_the_signed_rank_interval_holds_exactly_what_the_test_does_not_reject(
    blocks: int, level: float
) -> None:
    values = noisy(blocks, spread=0.3, seed=blocks)
    found = signed_rank_interval(values, level=level)
    if found is None:
        assert 2**-blocks > (1 - level) / 2
        return
    low, high, step = math.log(found.low), math.log(found.high), 1e-9
    for place, rejected in (
        (low - step, True),
        (low + step, False),
        (high - step, False),
        (high + step, True),
    ):
        p = scipy_stats.wilcoxon(values - place, method="exact").pvalue
        assert (p <= 1 - level) == rejected


def test_six_blocks_give_their_range_at_95_percent_and_nothing_at_97() -> None:
    values = array(0.5, 0.1, 0.4, 0.2, 0.6, 0.3)
    found = signed_rank_interval(values, level=0.95)
    assert found is not None
    assert (found.low, found.high) == pytest.approx((math.exp(0.1), math.exp(0.6)))
    assert signed_rank_interval(values, level=0.97) is None


def test_the_signed_rank_interval_covers_at_least_its_level_over_all_signs() -> None:
    sizes = array(1, 2, 4, 8, 16, 32, 64, 128) / 100
    covered = 0
    for signs in itertools.product((-1, 1), repeat=sizes.size):
        found = signed_rank_interval(sizes * np.array(signs), level=0.90)
        assert found is not None
        covered += found.low <= 1 <= found.high
    # 1 - 2 P(sum <= 5), ten of 256 sums: the exact test of eight blocks at 10 %.
    assert covered / 256 == pytest.approx(1 - 2 * 10 / 256)


# Self-test of the method


def test_native_against_native_alarms_about_as_often_as_expectationd() -> None:
    generator = np.random.default_rng(7)
    alarms = 0
    for _ in range(1500):
        blocks = 0.02 * generator.standard_normal(15)
        blocks[generator.random(15) < 0.05] += math.log(1.5)
        found = sure(estimate(blocks, level=0.95))
        alarms += not found.interval.low <= 1 <= found.interval.high
    assert 0.02 <= alarms / 1500 <= 0.09


def test_a_ratio_on_the_margin_is_called_near_native_one_time_in_twenty() -> None:
    generator = np.random.default_rng(8)
    called = sum(
        sure(estimate(math.log(1.05) + 0.02 * generator.standard_normal(15))).p_equivalence < 0.05
        for _ in range(1500)
    )
    assert 0.03 <= called / 1500 <= 0.07


# Tails


def test_p95_takes_59_values_and_p99_takes_299() -> None:
    assert values_needed(quantile=0.95) == 59
    assert values_needed(quantile=0.99) == 299
    assert quantile_upper(np.arange(58.0), quantile=0.95) is None
    assert quantile_upper(np.arange(59.0), quantile=0.95) == 58.0
    assert quantile_upper(np.arange(298.0), quantile=0.99) is None
    assert quantile_upper(np.arange(299.0), quantile=0.99) == 298.0


def test_the_bounds_of_a_median_take_five_values_and_mirror_each_other() -> None:
    values = array(5, 3, 1, 4, 2)
    assert values_needed(quantile=0.5) == 5
    assert quantile_upper(values, quantile=0.5) == 5
    assert quantile_lower(values) == 1
    assert quantile_lower(values[:4]) is None


@given(st.sampled_from([0.5, 0.8, 0.9, 0.95]), st.integers(1, 150))
def test_the_upper_bound_is_the_smallest_value_with_enough_confidence(
    quantile: float, count: int
) -> None:
    found = quantile_upper(np.arange(count, dtype=np.float64), quantile=quantile)
    rank = count if found is None else int(found)
    confidence = scipy_stats.binom.cdf(rank, count, quantile)
    smaller = scipy_stats.binom.cdf(rank - 1, count, quantile)
    if found is None:
        assert smaller < 0.95
        assert count < values_needed(quantile=quantile)
    else:
        assert confidence >= 0.95 > smaller


@pytest.mark.parametrize("bad", [0.0, 1.0, math.nan])
def test_a_share_outside_zero_to_one_is_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="quantile"):
        quantile_upper(np.arange(9.0), quantile=bad)
    with pytest.raises(ValueError, match="confidence"):
        quantile_upper(np.arange(9.0), confidence=bad)


def test_a_stalled_block_is_outlying_and_ordinary_ones_are_not() -> None:
    values = noisy(20, ratio=3.0)
    values[4] += 0.5
    assert np.flatnonzero(outlying_blocks(values)).tolist() == [4]


def test_tails_of_few_visits_leave_quantiles_open_and_give_the_maximum() -> None:
    found = tails(array(1, 2, 9), array(0, 0, 0, 1))
    assert (found.p95, found.p99) == (None, None)
    assert found.maximum == 9
    assert found.values == 3
    assert found.outlying_blocks == 1
    assert found.outlying_rate == 0.25


def test_tails_of_many_values_have_both_quantiles_of_them() -> None:
    found = tails(np.arange(300.0), noisy(30))
    assert found.p95 is not None
    assert found.p99 is not None
    assert (found.p95, found.p99) == (pytest.approx(284.05), pytest.approx(296.01))
    assert found.maximum == 299


def test_visits_without_complete_blocks_have_no_outlying_ones() -> None:
    found = tails(array(1.0), np.zeros(0))
    assert (found.outlying_blocks, found.outlying_rate) == (0, 0.0)


def test_no_visits_have_no_tails() -> None:
    with pytest.raises(ValueError, match="at least one value"):
        tails(np.zeros(0), np.zeros(0))


# Drift


def test_a_steady_slowing_is_found_with_its_size() -> None:
    at = np.linspace(0, 600, 40)
    found = drift(0.1 * np.exp(0.05 * at / 600), at)
    assert found is not None
    assert found.change == pytest.approx(math.expm1(0.05))
    assert found.low == pytest.approx(found.change)
    assert found.p < 1e-9
    assert found.notable


def test_a_change_below_three_percent_is_no_matter_however_sure() -> None:
    at = np.linspace(0, 600, 40)
    found = drift(np.exp(0.02 * at / 600), at)
    assert found is not None
    assert found.p < 1e-9
    assert not found.notable


def test_a_drift_without_measure_stays_a_number() -> None:
    at = np.array([0.0, 1e-4, 2e-4, 3e-4, 4e-4, 1e9])
    found = drift(np.exp(np.arange(6.0)), at)
    assert found is not None
    assert all(math.isfinite(each) for each in (found.change, found.low, found.high))


def test_noise_alone_is_not_called_drift() -> None:
    at = np.arange(20.0)
    found = drift(np.exp(noisy(20, spread=0.05)), at)
    assert found is not None
    assert found.low < 0 < found.high
    assert not found.notable


def test_a_constant_native_has_not_drifted() -> None:
    found = drift(np.full(8, 0.1), np.arange(8.0))
    assert found is not None
    assert (found.change, found.p, found.notable) == (0.0, 1.0, False)


def test_a_large_change_in_few_values_is_not_sure_enough_to_note() -> None:
    found = drift(array(1.0, 1.5, 1.2, 1.6), array(0, 1, 2, 3))
    assert found is not None
    assert found.change > 0.03
    assert found.p > 0.01
    assert not found.notable


def test_drift_wants_four_values_at_different_times() -> None:
    assert drift(array(1, 2, 3), array(1, 2, 3)) is None
    assert drift(array(1, 2, 3, 4), array(5, 5, 5, 5)) is None
    assert drift(array(1, 2, 3, 0), array(1, 2, 3, 4)) is None  # the timer is too coarse


@pytest.mark.parametrize(
    ("seconds", "at"),
    [
        (array(1, 2, 3, 4), array(1, 2, 3)),
        (np.ones((2, 2)), np.ones((2, 2))),
        (array(1, 2, 3, -1), array(1, 2, 3, 4)),
        (array(1, 2, 3, 4), array(1, 2, 3, math.nan)),
    ],
)
def test_drift_refuses_what_it_cannot_read(seconds: Floats, at: Floats) -> None:
    with pytest.raises(ValueError, match=r"pair|finite"):
        drift(seconds, at)


# Plan


def planned(*, ratio: float = 1.0, block_spread: float = 0.05, blocks: int = 10) -> Estimate:
    interval = Interval(low=ratio, high=ratio, level=0.9)
    return Estimate(
        ratio=ratio,
        interval=interval,
        equivalence=interval,
        check=None,
        p_equivalence=1.0,
        standard_error=block_spread / math.sqrt(blocks),
        deviation=block_spread,
        blocks=blocks,
        method="t",
    )


def test_blocks_needed_are_a_little_more_than_by_the_normal_formula() -> None:
    # (1.645 + 1.645)^2 (0.05 / ln 1.05)^2 = 11.4 in the middle of the margin,
    # (1.645 + 1.282)^2 (0.10 / ln 1.05)^2 = 36.0 as far outside as the middle is inside.
    # Of 11 blocks 7 are kept, of 36 22: Student's quantiles are wider.
    assert blocks_needed(planned()) == 15
    assert blocks_needed(planned(ratio=1.05**2, block_spread=0.1)) == 39
    assert blocks_needed(planned(ratio=1.05**-2, block_spread=0.1)) == 39


def test_a_higher_level_of_the_interval_needs_more_blocks() -> None:
    higher = dataclasses.replace(planned(), interval=Interval(low=1.0, high=1.0, level=0.97))
    assert (blocks_needed(higher) or 0) > (blocks_needed(planned()) or 0)


def test_three_blocks_are_enough_where_they_hardly_differ() -> None:
    assert blocks_needed(planned(block_spread=0.001)) == 3


def test_beyond_the_table_of_quantiles_the_normal_ones_go_on() -> None:
    near, far = (blocks_needed(planned(ratio=ratio)) or 0 for ratio in (1.0465, 1.0467))
    assert 1800 < near <= 2000 < far < 2200


def test_no_number_of_blocks_decides_a_ratio_on_the_margin() -> None:
    assert blocks_needed(planned(ratio=1.05)) is None


def test_more_blocks_in_the_same_sessions_are_not_expectationd_to_help() -> None:
    assert blocks_needed(dataclasses.replace(planned(), sessions=3)) is None


def test_no_number_of_blocks_is_known_without_spread() -> None:
    assert blocks_needed(planned(block_spread=0.0)) is None


@given(st.floats(1.0, 1.04), st.floats(0.001, 0.01))
def test_coming_closer_to_the_margin_takes_no_fewer_blocks(ratio: float, step: float) -> None:
    near, far = blocks_needed(planned(ratio=ratio + step)), blocks_needed(planned(ratio=ratio))
    assert near is None or (far is not None and near >= far)


def test_the_planned_blocks_mostly_decide() -> None:
    needed = blocks_needed(planned(block_spread=0.05 * 1.07))
    assert needed is not None
    called = sum(
        sure(estimate(noisy(needed, spread=0.05, seed=seed))).p_equivalence < 0.05
        for seed in range(400)
    )
    assert called / 400 >= 0.85


def test_holm_gives_the_textbook_answer_in_the_order_given() -> None:
    assert holm(array(0.01, 0.04, 0.03, 0.005)) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm(np.zeros(0)).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_holm_only_raises_p_values_keeps_their_order_and_stays_below_bonferroni(
    values: list[float],
) -> None:
    raw = array(*values)
    adjusted = holm(raw)
    assert np.all(adjusted >= raw)
    assert np.all(adjusted <= np.minimum(raw * raw.size, 1.0))
    order = np.argsort(raw, kind="stable")
    assert np.all(np.diff(adjusted[order]) >= 0)


@pytest.mark.parametrize("bad", [array(0.5, 1.1), array(math.nan), np.zeros((2, 2))])
def test_holm_refuses_what_is_no_probability(bad: Floats) -> None:
    with pytest.raises(ValueError, match="probability"):
        holm(bad)


# Precision


def test_half_the_width_of_an_interval_is_a_relative_change() -> None:
    interval = Interval(low=1 / 1.025, high=1.025, level=0.97)
    assert half_width(interval) == pytest.approx(0.025)
    shifted = dataclasses.replace(interval, low=2 / 1.025, high=2 * 1.025)
    assert half_width(shifted) == pytest.approx(0.025)


def test_estimates_are_narrow_when_the_widest_is() -> None:
    wide, tight = sure(estimate(noisy(20, spread=0.1))), sure(estimate(noisy(20)))
    width = half_width(wide.interval)
    assert half_width(tight.interval) < width
    assert narrow([wide, tight], width)
    assert not narrow([wide, tight], width * 0.99)
    assert narrow([tight], width * 0.99)


def test_nothing_is_narrow_where_nothing_was_estimated() -> None:
    assert not narrow([], 1.0)


@pytest.mark.parametrize("freedom", [2, 5, 40])
def test_the_quantile_of_student_is_scipys(freedom: int) -> None:
    expected = scipy_stats.t.ppf(0.985, freedom)
    assert student_quantile(0.97, freedom) == pytest.approx(expected)


# Quantiles of values that are alike within a block


def test_values_of_one_block_count_as_one_value_in_the_bound_of_a_quantile() -> None:
    """Of single values the bounds are those of order statistics, with and without blocks."""
    values = noisy(60)
    for own, bound in ((0.95, quantile_upper), (0.5, quantile_upper), (0.95, quantile_lower)):
        assert bound(values, quantile=own, blocks=np.arange(60)) == bound(values, quantile=own)
    many, blocks = np.repeat(noisy(58), 25), np.repeat(np.arange(58), 25)
    assert quantile_upper(many, blocks=blocks) is None
    assert quantile_upper(np.append(many, 9.0), blocks=np.append(blocks, 58)) == 9.0


def test_the_bound_of_a_quantile_holds_where_blocks_differ() -> None:
    """Turns of one block lie ten times as near to each other as to those of others."""
    random, missed, runs = np.random.default_rng(6), 0, 300
    blocks = np.repeat(np.arange(60), 25)
    for _ in range(runs):
        own = random.normal(0, 0.1, (60, 1)) + random.normal(0, 0.01, (60, 25))
        found = quantile_upper(own.ravel(), blocks=blocks)
        missed += found is not None and found < 1.645 * math.hypot(0.1, 0.01)
    assert missed < 0.05 * runs
