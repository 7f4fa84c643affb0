"""Names and a seed -> the order of measuring."""

import math
from collections import Counter
from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench.model import Plan, Schedule, Work, plan
from isobench.model.units import TargetName, WorkloadName

NATIVE = TargetName("native")
TARGETS = [NATIVE, TargetName("docker"), TargetName("podman")]
WORK = [
    Work(workload=WorkloadName(name), loops=10, iterations=5)
    for name in ("cpu.sieve", "io.fsync", "startup.cold")
]
CONTROL = plan.second(NATIVE)


def make(seed: int = 1, blocks: int = 4, *, schedule: Schedule = Schedule.BLOCKS) -> Plan:
    return plan.make(TARGETS, WORK, reference=NATIVE, blocks=blocks, seed=seed, schedule=schedule)


def test_the_second_visit_of_native_has_a_label_that_leads_back_to_native() -> None:
    assert CONTROL != NATIVE
    assert plan.actual(CONTROL) == NATIVE
    assert plan.actual(TargetName("docker")) == "docker"


@given(st.integers(min_value=0, max_value=2**31), st.integers(min_value=1, max_value=8))
def test_every_block_holds_every_cell_once_and_native_twice(seed: int, blocks: int) -> None:
    made = make(seed, blocks)
    assert [block.number for block in made.blocks] == list(range(1, blocks + 1))
    for block in made.blocks:
        cells = Counter((visit.target, visit.workload) for visit in block.visits)
        expected = {(t, w.workload): 1 for t in [*TARGETS, CONTROL] for w in WORK}
        assert cells == expected
        assert sorted(block.sessions) == sorted([*TARGETS, CONTROL])
        assert all(visit.block == block.number for visit in block.visits)


@given(st.integers(min_value=0, max_value=2**31))
def test_all_targets_of_a_workload_follow_each_other(seed: int) -> None:
    for block in make(seed).blocks:
        order = [visit.workload for visit in block.visits]
        changes = sum(a != b for a, b in pairwise(order))
        assert changes == len(WORK) - 1


def test_the_same_seed_gives_the_same_plan_and_another_seed_another() -> None:
    assert make(seed=7) == make(seed=7)
    assert make(seed=7).blocks != make(seed=8).blocks


def test_a_longer_plan_begins_as_the_shorter_one() -> None:
    assert make(blocks=9).blocks[:4] == make(blocks=4).blocks


def test_orders_differ_from_block_to_block() -> None:
    orders = {tuple(v.target for v in block.visits) for block in make(blocks=20).blocks}
    assert len(orders) > 10
    assert len({block.sessions for block in make(blocks=20).blocks}) > 5


def test_over_many_blocks_no_target_is_always_first() -> None:
    first = Counter(block.visits[0].target for block in make(blocks=400).blocks)
    assert all(60 < first[target] < 140 for target in [*TARGETS, CONTROL])


def test_a_sequential_schedule_keeps_the_order_given() -> None:
    made = make(schedule=Schedule.SEQUENTIAL)
    first = [(v.workload, v.target) for v in made.blocks[0].visits]
    assert first == [(w.workload, t) for w in WORK for t in [*TARGETS, CONTROL]]
    assert made.blocks[0].sessions == (*TARGETS, CONTROL)


def test_in_duets_each_target_is_followed_by_native_under_a_label_of_its_own() -> None:
    for block in make(schedule=Schedule.DUET).blocks:
        pairs = list(zip(block.visits[::2], block.visits[1::2], strict=True))
        assert all(one.workload == other.workload for one, other in pairs)
        assert {(one.target, other.target) for one, other in pairs} == {
            (CONTROL, NATIVE),
            ("docker", "native#docker"),
            ("podman", "native#podman"),
        }
        assert len(pairs) == 3 * len(WORK)
        assert set(block.sessions) == {v.target for v in block.visits}
        assert len(block.sessions) == 6


def test_duets_are_in_random_order_too() -> None:
    blocks = make(schedule=Schedule.DUET, blocks=20).blocks
    assert len({tuple(v.target for v in block.visits) for block in blocks}) > 10


@pytest.mark.parametrize(
    ("label", "is_one"),
    [("native", False), ("native#2", False), ("docker", False), ("native#docker", True)],
)
def test_a_partner_is_native_beside_some_other_target(label: str, is_one: bool) -> None:
    assert plan.is_partner(NATIVE, TargetName(label)) is is_one
    if not is_one:
        assert plan.actual(plan.partner(NATIVE, TargetName(label))) == NATIVE


@pytest.mark.parametrize("schedule", Schedule)
def test_a_cell_that_is_left_out_is_in_no_block(schedule: Schedule) -> None:
    without = frozenset({(TargetName("docker"), WorkloadName("io.fsync"))})
    made = plan.make(
        TARGETS, WORK, reference=NATIVE, blocks=3, seed=1, schedule=schedule, without=without
    )
    for block in made.blocks:
        cells = {(visit.target, visit.workload) for visit in block.visits}
        assert not cells & without
        # Three targets and the control; in duets three pairs: a pair is left out as one.
        assert len(cells) == (18 - 2 if schedule is Schedule.DUET else 12 - 1)


def test_leaving_out_a_cell_of_native_leaves_out_its_control_too() -> None:
    without = frozenset({(NATIVE, WorkloadName("io.fsync"))})
    made = plan.make(TARGETS, WORK, reference=NATIVE, blocks=1, seed=1, without=without)
    cells = {(visit.target, visit.workload) for visit in made.blocks[0].visits}
    assert (NATIVE, "io.fsync") not in cells
    assert (CONTROL, "io.fsync") not in cells


def test_leaving_out_a_cell_changes_no_other_cells_order() -> None:
    without = frozenset({(TargetName("docker"), WorkloadName("io.fsync"))})
    part = plan.make(TARGETS, WORK, reference=NATIVE, blocks=3, seed=1, without=without)
    for whole, less in zip(make(seed=1, blocks=3).blocks, part.blocks, strict=True):
        kept = [v for v in whole.visits if (v.target, v.workload) not in without]
        assert kept == list(less.visits)


@given(st.integers(min_value=3, max_value=1000))
def test_one_session_serves_as_many_blocks_as_leave_three_sessions(blocks: int) -> None:
    served = plan.blocks_per_session(blocks)
    assert math.ceil(blocks / served) >= plan.FEWEST_SESSIONS
    assert math.ceil(blocks / (served + 2)) <= plan.FEWEST_SESSIONS


@pytest.mark.parametrize(
    ("blocks", "served"), [(1, 1), (2, 1), (3, 1), (5, 2), (10, 3), (15, 5), (60, 20)]
)
def test_few_blocks_have_a_session_each(blocks: int, served: int) -> None:
    assert plan.blocks_per_session(blocks) == served


def test_the_plan_says_whose_sessions_serve_several_blocks() -> None:
    docker = TargetName("docker")
    made = plan.make(
        TARGETS, WORK, reference=NATIVE, blocks=2, seed=1, expensive=[docker],
        blocks_per_session={docker: 5},
    )  # fmt: skip
    assert (made.expensive, made.blocks_per_session) == ((docker,), {docker: 5})
    assert msgspec.json.decode(msgspec.json.encode(made), type=Plan) == made
    assert (make().expensive, make().blocks_per_session) == ((), {})


def test_the_plan_says_how_much_work_a_cell_is_for_all_targets_alike() -> None:
    assert make().work == tuple(WORK)


def test_a_block_without_targets_stays_whole_when_nothing_has_left() -> None:
    whole = plan.block(1, [NATIVE, CONTROL], [item.workload for item in WORK], seed=1)
    assert plan.without_left(whole, (), NATIVE) == whole


def test_a_workload_leaves_with_its_last_cell_and_a_session_with_its_last_use() -> None:
    first, other = (item.workload for item in WORK[:2])
    docker, podman = TARGETS[1:]
    whole = plan.block(1, [*TARGETS, CONTROL], [first, other], seed=1)
    left = {(first, docker), (first, podman), (other, docker)}
    rest = plan.without_left(whole, left, NATIVE)
    assert {(v.workload, v.target) for v in rest.visits} == {
        (other, podman),
        (other, NATIVE),
        (other, CONTROL),
    }
    assert set(rest.sessions) == {podman, NATIVE, CONTROL}
    # The order of what remains is as it was.
    assert [v for v in whole.visits if v in rest.visits] == list(rest.visits)


def test_in_a_duet_the_reference_beside_a_target_leaves_with_it() -> None:
    first, other = (item.workload for item in WORK[:2])
    docker = TARGETS[1]
    whole = plan.block(1, [*TARGETS, CONTROL], [first, other], seed=1, duet=NATIVE)
    rest = plan.without_left(whole, {(first, docker)}, NATIVE)
    gone = {(v.workload, v.target) for v in set(whole.visits) - set(rest.visits)}
    assert gone == {(first, docker), (first, plan.partner(NATIVE, docker))}
