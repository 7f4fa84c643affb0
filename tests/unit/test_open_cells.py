"""What would settle a cell without a verdict: a command with its time, or nothing."""

import dataclasses

import pytest

from isobench.analysis.open_cells import Pace, best_command, minutes_of, open_cells
from isobench.model import Doubt, Estimate, Interval, Status, Verdict
from isobench.model.bounds import MOST_WANTED
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.schema import OpenCell

RESUME = "isobench run --resume"
PACE = Pace(blocks=20, planned=200, seconds_per_block=6.0, visits_per_block=30, resume=RESUME)
MARGIN = 1.05


def estimate(low: float, high: float, *, sessions: int = 0) -> Estimate:
    interval = Interval(low=low, high=high, level=0.97)
    return Estimate(
        ratio=(low * high) ** 0.5,
        interval=interval,
        equivalence=interval,
        check=None,
        p_equivalence=0.5,
        standard_error=0.01,
        deviation=0.01,
        blocks=20,
        method="t",
        sessions=sessions,
    )


def verdict(
    found: Estimate | None,
    *doubts: Doubt,
    status: Status = Status.INCONCLUSIVE,
    metric: str = "time",
) -> Verdict:
    return Verdict(
        target=TargetName("docker"),
        workload=WorkloadName("cpu.sieve"),
        metric=metric,
        status=status,
        estimate=found,
        doubts=doubts,
    )


def only(judged: Verdict, needed: int | None, pace: Pace = PACE) -> OpenCell:
    (found,) = open_cells([(judged, needed)], pace, MARGIN)
    return found


@pytest.mark.parametrize("status", [Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER])
def test_a_decided_cell_is_not_open(status: Status) -> None:
    judged = verdict(estimate(0.99, 1.01), status=status)
    assert list(open_cells([(judged, None)], PACE, MARGIN)) == []


def test_a_cell_that_more_blocks_settle_has_a_command_with_their_time() -> None:
    # 1.2 x 60 blocks, of which there are 20: 52 blocks of 6 s, and the start.
    found = only(verdict(estimate(0.99, 1.06)), 60)
    assert found.command == "isobench run --resume --budget 10m"
    assert found.sentence == (
        "docker at cpu.sieve takes at most 1.06x native's time:"
        " faster is excluded, near-native and slower are not."
    )
    assert found.excluded == (Status.FASTER,)


def test_more_blocks_than_a_resumed_run_has_by_default_are_asked_for() -> None:
    pace = dataclasses.replace(PACE, planned=1000)
    assert only(verdict(estimate(0.99, 1.06)), 500, pace).command == (
        "isobench run --resume --budget 60m --max-blocks 600"
    )


def test_what_the_plan_has_no_room_for_needs_a_run_of_its_own() -> None:
    pace = dataclasses.replace(PACE, planned=60)
    # A tenth of the visits: docker and native twice. 120 blocks of 0.6 s, and the start.
    assert only(verdict(estimate(0.99, 1.06)), 100, pace).command == (
        "isobench run --targets docker --workloads cpu.sieve --budget 2m"
    )


ARGV = (
    *("run", "-t", "docker,podman", "-w", "cpu", "--budget", "9m", "--config", "a b.toml"),
    *("--margin=3%", "--min-time", "0.05s", "-o", "mine", "-q", "--max-blocks", "60"),
)
SEPARATE = dataclasses.replace(PACE, planned=60, argv=ARGV)


def test_a_run_of_its_own_measures_as_this_one_did() -> None:
    """Without its configuration there may be no target of this name, and at another margin the
    blocks would be others.
    """
    assert only(verdict(estimate(0.99, 1.06)), 100, SEPARATE).command == (
        "isobench run --config 'a b.toml' --margin 3% --min-time 0.05s"
        " --targets docker --workloads cpu.sieve --budget 2m"
    )


def test_a_run_of_its_own_has_the_margin_of_this_one_wherever_that_came_from() -> None:
    pace = dataclasses.replace(SEPARATE, argv=None)
    (found,) = open_cells([(verdict(estimate(0.98, 1.04)), 100)], pace, 1.03)
    assert found.command.startswith("isobench run --targets docker --workloads cpu.sieve --budget")
    assert found.command.endswith(" --margin 3%")


def test_a_variation_is_measured_beside_its_base() -> None:
    variations = {TargetName("docker"): (TargetName("box"), "box.network=a b")}
    pace = dataclasses.replace(SEPARATE, argv=None, variations=variations)
    # 120 blocks of 4 visits of 30, each block of 6 s.
    assert only(verdict(estimate(0.99, 1.06)), 100, pace).command == (
        "isobench run --vary 'box.network=a b' --targets box --workloads cpu.sieve --budget 2m"
    )


@pytest.mark.parametrize("planned", [60, 200])
def test_a_run_that_would_stop_before_it_decides_is_told_to_go_on(planned: int) -> None:
    # The ratio is 0.1 % below the margin, and a run stops at intervals of 0.25 %.
    near = verdict(estimate(1.0478, 1.0502))
    pace = dataclasses.replace(PACE, planned=planned)
    assert only(near, 100, pace).command.endswith(" --target-precision 0.0477%")
    # One that stops late enough does not need to be told.
    typed = ("run", "--target-precision", "0.02%")
    late = dataclasses.replace(pace, precision=0.0002, argv=typed)
    assert only(near, 100, late).command.count("--target-precision") == (planned == 60)
    assert "0.0477%" not in only(near, 100, late).command
    # A resumed run keeps its own precision, and another one need not.
    typed = ("run", "--target-precision", "5%")
    wide = dataclasses.replace(pace, precision=0.05, argv=typed)
    assert "--target-precision 5%" not in only(near, 100, wide).command
    command = only(verdict(estimate(1.0, 1.06)), 100, wide).command
    assert command.count("--target-precision") == (planned == 200)


def test_long_budgets_are_in_hours() -> None:
    pace = dataclasses.replace(PACE, seconds_per_block=60.0, planned=1000)
    assert "--budget 3h" in only(verdict(estimate(0.99, 1.06)), 160, pace).command


@pytest.mark.parametrize("needed", [None, 1001])
def test_a_ratio_too_near_the_margin_is_never_settled(needed: int | None) -> None:
    found = only(verdict(estimate(1.0, 1.11)), needed)
    assert found.command == ""
    assert found.sentence.endswith(
        "No longer run will settle it: the ratio is too near the margin for its noise."
    )


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.93, 1.02, "at least 0.93x native's time: slower is excluded, faster and near-native"),
        (0.90, 1.20, "0.90x to 1.20x native's time: nothing is excluded."),
    ],
)
def test_the_sentence_says_which_outcomes_are_excluded(low: float, high: float, words: str) -> None:
    assert words in only(verdict(estimate(low, high)), 60).sentence


def test_what_either_of_two_estimators_leaves_is_not_excluded() -> None:
    wide = Interval(low=0.97, high=1.09, level=0.97)
    found = dataclasses.replace(estimate(0.98, 1.03), check=wide)
    seen = only(verdict(found), 40)
    assert seen.excluded == (Status.FASTER,)
    assert "takes at most 1.09x native's time, by either of two estimators: faster" in seen.sentence
    wider = dataclasses.replace(found, check=Interval(low=0.9, high=1.09, level=0.97))
    assert "0.90x to 1.09x native's time, by either of two" in only(verdict(wider), 40).sentence
    # An interval that decides nothing itself needs no second one.
    own = dataclasses.replace(estimate(0.99, 1.06), check=wide)
    assert "at most 1.06x native's time: faster" in only(verdict(own), 40).sentence


def test_a_doubt_that_withholds_the_verdict_is_the_reason_and_excludes_nothing() -> None:
    doubt = Doubt(code="x", detail="the timer is too coarse", advice="a", blocks=True)
    found = only(verdict(estimate(1.2, 1.3), doubt, status=Status.UNPROVEN), 5)
    assert (found.command, found.excluded) == ("", ())
    assert found.sentence == (
        "docker at cpu.sieve takes 1.20x to 1.30x native's time."
        " More blocks alone do not settle it: the timer is too coarse."
    )


def test_a_run_that_is_not_where_it_was_measured_is_not_continued() -> None:
    """`isobench run --resume` would continue another one."""
    here = only(verdict(estimate(0.98, 1.06)), 40)
    assert here.command.startswith(RESUME)
    moved = dataclasses.replace(PACE, resume="")
    command = only(verdict(estimate(0.98, 1.06)), 40, moved).command
    assert command.startswith("isobench run --targets docker --workloads cpu.sieve --budget")


def test_more_blocks_than_a_user_may_ask_for_are_not_asked_for() -> None:
    assert MOST_WANTED == 1000
    pace = dataclasses.replace(PACE, planned=2000)
    judged = verdict(estimate(0.99, 1.06))
    # A fifth more than are needed: 833 become 1000.
    assert "--max-blocks 1000" in only(judged, 833, pace).command
    for needed in (834, 1000):
        found = only(judged, needed, pace)
        assert found.command == ""
        assert "No longer run will settle it" in found.sentence
    # Those of the cell may be fewer than those of the run, which is what a resumed run counts.
    later = dataclasses.replace(pace, blocks=900)
    assert only(judged, 200, later).command.startswith("isobench run --targets docker")


def test_sessions_that_differ_need_more_sessions() -> None:
    found = only(verdict(estimate(0.9, 1.2, sessions=3)), None)
    assert found.command == ""
    assert "(--launch fresh)" in found.sentence


FEW = Doubt(code="few-blocks", detail="too few", advice="--blocks 10", blocks=True)


@pytest.mark.parametrize(
    ("planned", "command"),
    [
        (200, "isobench run --resume --budget 2m"),
        (2, "isobench run --targets docker --workloads cpu.sieve --budget 1m"),
    ],
)
def test_where_only_blocks_lack_more_of_them_settle_it(planned: int, command: str) -> None:
    pace = dataclasses.replace(PACE, blocks=2, planned=planned)
    found = only(verdict(None, FEW, status=Status.UNPROVEN), None, pace)
    assert found.command == command
    assert found.sentence == "docker at cpu.sieve has no ratio: too few blocks."
    assert found.excluded == ()


def test_where_something_else_withholds_the_verdict_too_more_blocks_alone_do_not_settle_it() -> (
    None
):
    doubt = Doubt(code="x", detail="the CPU was contended", advice="a", blocks=True)
    found = only(verdict(None, FEW, doubt, status=Status.UNPROVEN), None)
    assert found.command == ""
    assert found.sentence == (
        "docker at cpu.sieve has no ratio: too few blocks."
        " More blocks alone do not settle it: the CPU was contended."
    )


def test_a_cell_without_a_ratio_says_so() -> None:
    found = only(verdict(None), None)
    assert found.sentence == "docker at cpu.sieve has no ratio. See its gaps."


def test_another_metric_is_better_or_worse() -> None:
    sentence = only(verdict(estimate(0.99, 1.06), metric="peak"), 60).sentence
    assert sentence == (
        "docker at cpu.sieve: peak is at most 1.06x native's value:"
        " better is excluded, near-native and worse are not."
    )


def settled(*commands: str) -> list[OpenCell]:
    return [
        OpenCell(target=TargetName("t"), workload=WorkloadName("w"), command=one)
        for one in commands
    ]


def test_the_best_command_resumes_the_run_and_settles_half_of_what_any_settles() -> None:
    three, hour = "isobench run --resume --budget 3m", "isobench run --resume --budget 1h"
    other = "isobench run --targets t --workloads w --budget 1m"
    assert best_command(settled(hour, three, three, other, "")) == (three, 2)
    assert best_command(settled(hour)) == (hour, 1)
    assert best_command(settled(other, "")) == ("", 0)
    assert (minutes_of(hour), minutes_of(three), minutes_of(other)) == (60, 3, None)
