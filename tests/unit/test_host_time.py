"""What the host's times of turns show of the times that a payload reports."""

import random
import statistics

import pandas as pd
import pytest

from isobench.analysis.frames import _reported_of_counted
from isobench.evidence.host_time import (
    Turns,
    evened,
    fastest_count,
    is_known,
    of_all,
    one_of_trimmed,
    trimmed_mean,
)


def turns(*, work: float, reported: float, way: float, untimed: float, count: int = 10) -> Turns:
    """Return turns of `work` ns each; `way` and `untimed` are what they take beside it."""
    rest = way + untimed
    return Turns(
        reported=count * reported,
        seen=count * (work + rest),
        count=count,
        rest=rest,
        untimed=count * 0.25 * reported,
    )


@pytest.mark.parametrize("untimed", [250, 400, 1000])
def test_an_untimed_pass_may_be_slower_than_a_timed_one(untimed: float) -> None:
    # What it needs is not in the caches yet: in a guest that is translated it takes twice as long.
    found = turns(work=1000, reported=1000, way=50, untimed=untimed)
    assert found.share == pytest.approx(1.0)
    assert found.work == pytest.approx(1000)


def test_what_a_payload_leaves_out_of_its_timed_pass_is_seen() -> None:
    found = turns(work=1000, reported=800, way=50, untimed=250)
    assert found.share == pytest.approx(0.8)


SHORT = turns(work=1000, reported=1000, way=250, untimed=250)
LONG = turns(work=1000, reported=1000, way=400, untimed=250)
UNKNOWN = Turns(reported=10.0, seen=10.0, count=1, rest=None)


@pytest.mark.parametrize("bad", [LONG, UNKNOWN], ids=["long", "unknown"])
def test_a_long_or_unknown_way_makes_the_host_know_nothing(bad: Turns) -> None:
    assert is_known([(SHORT, SHORT)] * 3)
    for pair in ((bad, SHORT), (SHORT, bad)):
        assert not is_known([pair] * 2 + [(SHORT, SHORT)])
    # One block of three is not the middle one.
    assert is_known([(bad, SHORT), (SHORT, SHORT), (SHORT, SHORT)])
    assert not is_known([])


SLOW_ON_PURPOSE = turns(work=10, reported=300, way=990, untimed=75)
THIRD = turns(work=1000, reported=300, way=10, untimed=75)


def test_late_answers_for_one_loop_in_some_blocks_hide_nothing() -> None:
    # Before, so little was left of the turns of those blocks that all of it seemed to be reported.
    assert SLOW_ON_PURPOSE.share > 10
    found = evened([SLOW_ON_PURPOSE] * 4 + [THIRD] * 5)
    assert [one.share < 0.6 for one in found] == [True] * 9
    assert found[4:] == [THIRD] * 5


@pytest.mark.parametrize("bad", [UNKNOWN, turns(work=1000, reported=1000, way=50, untimed=1000)])
def test_blocks_that_are_alike_are_left_as_they_are(bad: Turns) -> None:
    assert evened([bad] * 3) == [bad] * 3
    assert evened([SHORT, bad, SHORT])[0] == SHORT


def test_work_that_is_hidden_in_some_blocks_is_seen_in_the_sum_of_all() -> None:
    honest = turns(work=1000, reported=1000, way=10, untimed=250)
    hiding = turns(work=10_000, reported=1000, way=10, untimed=250)
    # All of the target's turns against native's work.
    assert of_all([(honest, honest)] * 3) == pytest.approx(1000 / 1260)
    assert of_all([(hiding, honest)] * 3 + [(honest, honest)] * 6) < 0.4
    with pytest.raises(ValueError, match="no turns"):
        of_all([])


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 25])
def test_the_counted_turns_of_all_blocks_are_those_of_each(count: int) -> None:
    rng = random.Random(count)  # noqa: S311 - figures to repeat, not a secret
    values = pd.Series([rng.lognormvariate(0, 1) for _ in range(3 * count)])
    found = _reported_of_counted(values, pd.Series([4, 1, 7] * count))
    for place, block in enumerate((4, 1, 7)):
        own = values[place::3].tolist()
        fastest = statistics.fmean(sorted(own)[: fastest_count(count)])
        assert found["fastest_reported"][block] == pytest.approx(fastest)
        assert found["trimmed_reported"][block] == pytest.approx(one_of_trimmed(own))
    assert all(one.empty for one in _reported_of_counted(values[values < 0], values).values())


def test_the_mean_of_few_is_their_median() -> None:
    assert trimmed_mean([9.0, 1.0, 2.0, 3.0]) == statistics.median([9.0, 1.0, 2.0, 3.0])
    assert trimmed_mean([9.0, 1.0, 2.0, 4.0, 0.0]) == pytest.approx(7 / 3)
    with pytest.raises(statistics.StatisticsError):
        trimmed_mean([])
