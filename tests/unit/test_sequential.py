"""When cells leave before the end of a run: levels, analyses, and blocks that are alike."""

import math

import numpy as np
import pytest

from isobench.stats import sequential
from isobench.stats.sequential import RULE, is_analysis, may_stop, widening


def test_before_the_end_the_level_is_the_same_after_any_share_of_the_budget() -> None:
    assert {RULE.level(share) for share in (0.01, 0.3, 0.999)} == {0.999}


def test_at_the_end_of_the_budget_and_beyond_it_the_level_is_the_last_one() -> None:
    assert RULE.level(1.0) == RULE.level(1.02) == 0.97


def test_a_share_of_nothing_has_no_level() -> None:
    with pytest.raises(ValueError, match="share of the budget above 0"):
        RULE.level(0.0)


def test_the_error_spent_grows_with_each_analysis_and_jumps_at_the_end() -> None:
    assert RULE.spent(0) == 0.0
    assert RULE.spent(4) == pytest.approx(4 * 0.0005)
    assert RULE.spent(4, ended=True) == pytest.approx(4 * 0.0005 + 0.015)


def test_as_many_analyses_as_three_hundred_blocks_have_stay_within_five_percent() -> None:
    count = sum(map(is_analysis, range(301)))
    assert count == 23
    assert RULE.spent(count, ended=True) < 0.05


def test_a_rule_is_found_again_by_the_name_that_a_run_records() -> None:
    assert sequential.RULES[RULE.name] is RULE


def test_cells_may_leave_after_each_fifth_more_blocks() -> None:
    early = [blocks for blocks in range(62) if is_analysis(blocks)]
    assert early == [5, 6, 7, 8, 10, 12, 14, 17, 20, 24, 29, 35, 42, 50, 60]
    assert [blocks for blocks in range(61, 130) if is_analysis(blocks)] == [72, 86, 103, 124]


def test_narrow_intervals_may_end_a_run_from_the_tenth_block_on() -> None:
    assert [blocks for blocks in range(31) if may_stop(blocks)] == [10, 12, 14, 17, 20, 24, 29]
    assert all(map(is_analysis, filter(may_stop, range(301))))


def _autocorrelated(rows: int, blocks: int, memory: float) -> np.ndarray:
    rng = np.random.default_rng(4)
    found = rng.standard_normal((rows, blocks))
    for block in range(1, blocks):
        found[:, block] = memory * found[:, block - 1] + math.sqrt(1 - memory**2) * found[:, block]
    return found


def test_independent_blocks_are_widened_little() -> None:
    assert np.mean(widening(_autocorrelated(400, 60, 0.0))) == pytest.approx(1.05, abs=0.02)


def test_blocks_that_resemble_their_neighbours_count_as_fewer_blocks() -> None:
    """An autocorrelation of 0.5 leaves a third of the blocks: the error grows by the root of 3.
    Winsorising takes a little of it away.
    """
    found = widening(_autocorrelated(400, 400, 0.5))
    assert np.mean(found) == pytest.approx(math.sqrt(3), rel=0.1)


def test_alternating_blocks_are_never_widened_nor_narrowed() -> None:
    alternating = np.tile([0.01, -0.01], 10)[np.newaxis]
    assert widening(alternating).tolist() == [1.0]


def test_the_widening_is_limited_even_where_every_block_continues_the_last_one() -> None:
    assert widening(np.linspace(0, 1, 40)[np.newaxis]).tolist() == [pytest.approx(2.0)]


def test_few_blocks_and_equal_blocks_are_not_widened() -> None:
    assert widening(np.linspace(0, 1, 9)[np.newaxis]).tolist() == [1.0]
    assert widening(np.full((2, 20), 0.3)).tolist() == [1.0, 1.0]


def test_one_stalled_block_does_not_hide_that_blocks_are_alike() -> None:
    rows = _autocorrelated(200, 100, 0.5)
    rows[:, 50] += 40
    assert np.mean(widening(rows)) > 1.5
