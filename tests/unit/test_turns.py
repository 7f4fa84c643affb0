"""How long the turns of targets are, and in which order they come."""

from dataclasses import replace

import pytest

from isobench.model import Turns, Work
from isobench.model.units import TargetName, WorkloadName
from isobench.run import turns

NATIVE, CONTROL, BOX, SLOW = (TargetName(n) for n in ("native", "native#2", "box", "slow"))
SIEVE = WorkloadName("cpu.sieve")
LABELS = [NATIVE, CONTROL, BOX, SLOW]
WORK = Work(
    workload=SIEVE,
    loops=800,
    iterations=10,
    untimed_share=0.25,
    turns={SLOW: Turns(loops=100, rounds=4)},
)


def of(slowdown: float, *, interactive: bool = True, loops: int = 800) -> Turns | None:
    return turns.of_target(
        loops=loops, rounds=25, native=0.008, slowdown=slowdown, interactive=interactive
    )


@pytest.mark.parametrize("slowdown", [0.5, 1.0, 2.0, 5.0])
def test_a_target_that_is_not_far_slower_has_the_turns_of_native(slowdown: float) -> None:
    assert of(slowdown) is None


@pytest.mark.parametrize(
    ("slowdown", "loops", "rounds"),
    [
        (10.0, 400, 10),  # turns of 40 ms, twice native's time in all
        (50.0, 80, 10),
        (160.0, 50, 5),  # native's turn beside it is half a millisecond
        (10_000.0, 50, 3),  # the fewest
    ],
)
def test_a_slow_target_has_less_work_in_fewer_rounds(
    slowdown: float, loops: int, rounds: int
) -> None:
    assert of(slowdown) == Turns(loops=loops, rounds=rounds)


def test_work_is_never_less_than_one_loop() -> None:
    assert of(100.0, loops=1) == Turns(loops=1, rounds=3)


def test_a_target_that_must_start_programs_has_few_turns_of_full_length() -> None:
    assert of(1.0, interactive=False) == Turns(loops=800, rounds=5)


def test_a_target_with_a_quota_has_few_long_turns() -> None:
    found = turns.of_target(
        loops=800, rounds=25, native=0.008, slowdown=1.0, interactive=True, throttled=True
    )
    assert found == Turns(loops=25_000, rounds=5)  # a quarter of a second natively


@pytest.mark.parametrize(
    ("seconds", "starts"), [(0.5, 3), (0.033, 3), (0.02, 5), (0.004, 25), (0.0005, 50), (0.0, 50)]
)
def test_a_target_that_starts_fast_starts_more_often(seconds: float, starts: int) -> None:
    assert turns.starts(fewest=3, most=50, seconds=seconds) == starts


def test_the_payload_of_native_can_make_the_turns_beside_every_target() -> None:
    longer = Work(
        workload=SIEVE, loops=800, iterations=10, turns={BOX: Turns(loops=9000, rounds=5)}
    )
    assert turns.most_loops(longer, NATIVE, reference=NATIVE) == 9000
    assert turns.most_loops(longer, CONTROL, reference=NATIVE) == 800
    assert turns.most_loops(WORK, NATIVE, reference=NATIVE) == 800
    assert turns.most_loops(WORK, SLOW, reference=NATIVE) == 100


def rounds(seed: str = "1/1") -> list[list[turns.Turn]]:
    return [list(each) for each in turns.order(WORK, LABELS, reference=NATIVE, seed=seed)]


def test_every_label_has_one_turn_a_round_and_a_slow_one_fewer() -> None:
    found = rounds()
    assert len(found) == 10
    for one in found:
        named = sorted(turn.label for turn in one)
        assert named in (
            ["box", "native", "native#2"],
            ["box", "native", "native#2", "native#slow", "slow"],
        )
    assert sum(turn.label == SLOW for one in found for turn in one) == 4


def test_rounds_of_a_slow_target_are_spread_evenly() -> None:
    at = [i for i, one in enumerate(rounds()) if any(turn.label == SLOW for turn in one)]
    assert at == [2, 4, 7, 9]


def test_native_makes_the_turn_beside_a_slow_target_with_as_many_loops() -> None:
    beside = next(turn for one in rounds() for turn in one if turn.label == "native#slow")
    assert (beside.process, beside.loops, beside.untimed) == (NATIVE, 100, 25)


def test_the_order_is_random_and_the_same_for_the_same_seed() -> None:
    assert rounds() == rounds()
    assert rounds("1/2") != rounds()
    assert len({tuple(turn.label for turn in one) for one in rounds()}) > 3


def test_without_native_nobody_has_a_turn_beside_a_slow_target() -> None:
    found = turns.order(WORK, [BOX, SLOW], reference=NATIVE, seed="1")
    assert {turn.label for one in found for turn in one} == {BOX, SLOW}


# ---- blocks that some have left ------------------------------------------------------------------

TIMED = Work(
    workload=SIEVE,
    loops=800,
    iterations=10,
    turns={SLOW: Turns(loops=100, rounds=4)},
    seconds={NATIVE: 0.1, CONTROL: 0.1, BOX: 0.2, SLOW: 0.4},
)


OTHER = replace(TIMED, workload=WorkloadName("io.fsync"))


def times(*labels: TargetName, opening: float = 100.0, work: Work = TIMED) -> float:
    """Return how many times the rounds a block has in which one workload has these labels left."""
    return turns.times([work], {SIEVE: labels}, opening=opening)


def test_with_all_labels_a_block_is_as_planned() -> None:
    assert times(*LABELS) == 1
    assert turns.scaled(TIMED, 1) == TIMED


def test_more_rounds_are_of_the_same_work() -> None:
    left = turns.scaled(TIMED, 2)
    assert left.iterations == 20
    assert left.turns == {SLOW: Turns(loops=100, rounds=8)}
    assert left.loops == 800


def test_those_that_stay_get_the_time_of_those_that_have_left() -> None:
    assert times(NATIVE, CONTROL, BOX) == pytest.approx(2)
    assert times(NATIVE, CONTROL) == pytest.approx(4)


def test_they_also_get_the_time_of_workloads_that_all_have_left() -> None:
    found = turns.times([TIMED, OTHER], {SIEVE: [NATIVE, CONTROL, BOX]}, opening=100.0)
    assert found == pytest.approx(4)


def test_a_block_has_more_rounds_only_until_they_take_as_long_as_its_sessions_to_open() -> None:
    assert times(NATIVE, CONTROL, opening=0.5) == pytest.approx(2.5)
    assert times(NATIVE, CONTROL, opening=0.1) == 1


def test_the_more_rounds_are_limited() -> None:
    long = replace(TIMED, seconds={NATIVE: 0.01, SLOW: 10.0})
    assert times(NATIVE, work=long) == turns.MOST_TIMES


def test_a_plan_without_times_stays_as_it_is() -> None:
    assert times(NATIVE, work=WORK) == 1
