"""The value of a block that was measured in rounds."""

import numpy as np
import pandas as pd
import pytest

from isobench.analysis import rounds
from isobench.model.units import TargetName

NATIVE = TargetName("native")


def frame(rows: list[tuple[int, str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["block", "target", "iteration", "amount"])


def turns(
    ratio: float, drift: list[float], block: int = 1, target: str = "box"
) -> list[tuple[int, str, int, float]]:
    """Return turns of native and of a target on a machine whose speed changes all the time."""
    both = [(block, "native", i, speed) for i, speed in enumerate(drift)]
    return both + [(block, target, i, ratio * speed) for i, speed in enumerate(drift)]


def test_noise_that_both_sides_of_a_round_share_cancels_out() -> None:
    drift = [1.0, 3.0, 1.5, 9.0, 1.2, 0.7, 2.0, 5.0]
    found = rounds.levels(frame(turns(1.02, drift)), NATIVE)
    assert found.loc[1, "box"] / found.loc[1, "native"] == pytest.approx(1.02, rel=1e-12)
    assert found.loc[1, "native"] == pytest.approx(np.exp(np.median(np.log(drift))))


def test_turns_that_an_interruption_has_hit_are_left_out() -> None:
    rows = turns(1.1, [1.0] * 10)
    rows[3] = (1, "native", 3, 40.0)
    rows[17] = (1, "box", 7, 50.0)
    found = rounds.levels(frame(rows), NATIVE)
    assert found.loc[1, "box"] / found.loc[1, "native"] == pytest.approx(1.1, rel=1e-9)


def test_a_slow_target_is_compared_with_the_turns_beside_it() -> None:
    rows = turns(1.0, [1.0] * 6)
    rows += [(1, "native#slow", i, 2.0) for i in (1, 3, 5)]
    rows += [(1, "slow", i, 80.0) for i in (1, 3, 5)]
    found = rounds.levels(frame(rows), NATIVE)
    assert found.loc[1, "slow"] / found.loc[1, "native"] == pytest.approx(40.0)
    assert set(found.columns) == {"native", "box", "slow"}


def test_a_round_without_its_other_side_does_not_count() -> None:
    rows = [row for row in turns(2.0, [1.0, 1.0, 1.0, 7.0]) if row[:3] != (1, "native", 3)]
    found = rounds.levels(frame(rows), NATIVE)
    assert found.loc[1, "box"] / found.loc[1, "native"] == pytest.approx(2.0)


def test_blocks_are_kept_apart_and_a_block_without_native_has_no_value() -> None:
    rows = turns(2.0, [1.0] * 5) + turns(3.0, [1.0] * 5, block=2)
    rows += [(3, "box", i, 1.0) for i in range(5)]
    found = rounds.levels(frame(rows), NATIVE)
    ratios = (found["box"] / found["native"]).dropna()
    assert ratios.to_dict() == pytest.approx({1: 2.0, 2: 3.0})


def test_without_native_there_are_no_levels() -> None:
    assert rounds.levels(frame([(1, "box", 0, 1.0)]), NATIVE).empty


def test_the_error_of_a_block_that_comes_from_its_rounds_is_the_spread_of_such_blocks() -> None:
    rng = np.random.default_rng(4)
    noisy = np.exp(0.05 * rng.standard_normal((300, 25)))
    rows = [(b, "native", i, 1.0) for b in range(300) for i in range(25)]
    rows += [(b, "box", i, float(noisy[b, i])) for b in range(300) for i in range(25)]
    turns_of_blocks = frame(rows)
    found = rounds.error(turns_of_blocks, NATIVE, TargetName("box"))
    levels = rounds.levels(turns_of_blocks, NATIVE)
    # Blocks differ by their rounds alone here.
    assert found == pytest.approx(np.log(levels["box"] / levels["native"]).std(), rel=0.25)


def test_the_error_of_rounds_is_unknown_from_few_of_them_or_of_one_side() -> None:
    assert rounds.error(frame(turns(1.0, [1.0, 2.0])), NATIVE, TargetName("box")) is None
    assert rounds.error(frame(turns(1.0, [1.0] * 9)), NATIVE, TargetName("jar")) is None


def interrupted(seed: int, share: float, slowdown: float) -> pd.DataFrame:
    """Return 40 blocks of turns of which the scheduler interrupts some, native's more often."""
    rng = np.random.default_rng(seed)
    shape = (40, 25)
    sides = {"native": 1.0, "box": slowdown}
    rows = []
    for target, length in sides.items():
        times = length * np.exp(0.004 * rng.standard_normal(shape))
        hit = rng.random(shape) < (1.3 * share if target == "native" else share)
        times += hit * rng.exponential(1.0, shape)
        rows += [(b, target, i, float(times[b, i])) for b in range(40) for i in range(25)]
    return frame(rows)


def test_on_a_busy_machine_the_fastest_turns_show_the_ratio_that_interruptions_hide() -> None:
    turns_of_blocks = interrupted(1, 0.5, 1.02)
    both = [
        rounds.levels(turns_of_blocks, NATIVE, estimator)
        for estimator in (rounds.by_fastest, rounds.by_round)
    ]
    fast, paired = (np.log(found["box"] / found["native"]) for found in both)
    # A little too low: fewer of native's turns are left to be the fastest of.
    assert np.exp(fast.mean()) == pytest.approx(1.02, abs=0.004)
    assert fast.std() < 0.2 * paired.std()
    # Native is interrupted more often, which makes the target look faster than it is.
    assert np.exp(paired.mean()) < 1.0


def test_without_interruptions_both_estimators_agree() -> None:
    turns_of_blocks = interrupted(2, 0.0, 1.3)
    for estimator in (rounds.by_fastest, rounds.by_round):
        found = rounds.levels(turns_of_blocks, NATIVE, estimator)
        ratio = np.exp(np.log(found["box"] / found["native"]).mean())
        assert ratio == pytest.approx(1.3, rel=0.001)


def test_of_a_target_with_a_quota_every_turn_counts() -> None:
    rows = [(1, "native", i, 1.0) for i in range(5)]
    rows += [(1, "box", i, 1.0 if i < 2 else 2.0) for i in range(5)]
    fast = rounds.levels(frame(rows), NATIVE, rounds.by_fastest)
    whole = rounds.levels(frame(rows), NATIVE, rounds.by_fastest, whole=[TargetName("box")])
    assert fast.loc[1, "box"] / fast.loc[1, "native"] == pytest.approx(1.0)
    assert whole.loc[1, "box"] / whole.loc[1, "native"] > 1.5


def test_the_fastest_turns_of_a_slow_target_are_compared_with_as_many_beside_it() -> None:
    rows = turns(1.0, [1.0] * 25)
    rows += [(1, "native#slow", i, t) for i, t in enumerate((2.0, 3.0, 4.0))]
    rows += [(1, "slow", i, 40.0 * t) for i, t in enumerate((4.0, 3.0, 2.0))]
    found = rounds.levels(frame(rows), NATIVE, rounds.by_fastest)
    assert found.loc[1, "slow"] / found.loc[1, "native"] == pytest.approx(40.0)
