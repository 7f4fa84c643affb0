"""What a budget has room for: by usual costs, one of each kind first."""

import itertools
from pathlib import Path
from typing import Any

import pytest

from isobench.config.options import RunOptions
from isobench.model import TIME, Scope, Start, Technology, Workload
from isobench.model.units import TargetName, WorkloadName, seconds
from isobench.plugins.registry import announced
from isobench.run import budget_room
from isobench.run.budget_room import (
    Room,
    block_seconds,
    cost_of,
    round_robin,
    that_fit,
    wanted_blocks,
)

KINDS = {
    "native": Technology.NATIVE,
    "namespaces": Technology.CONTAINERIZATION,
    "docker": Technology.CONTAINERIZATION,
    "podman": Technology.CONTAINERIZATION,
    "bubblewrap": Technology.SANDBOX,
    "gvisor": Technology.SANDBOX,
    "qemu": Technology.EMULATION,
    "wine": Technology.TRANSLATION,
}
NAMES = [TargetName(name) for name in KINDS]


def workload(name: str, scope: Scope) -> Workload:
    return Workload(
        name=WorkloadName(name),
        summary="nothing",
        scope=scope,
        operation="one loop",
        source=Path("payload.c"),
        timeout=seconds(60),
        metrics={"time": TIME},
        answer=None,
        start=Start.COLD if scope is Scope.SESSION else None,
    )


WORKLOADS = {
    each.name: each
    for each in (
        workload("cpu.sieve", Scope.LOOP),
        workload("cpu.matmul", Scope.LOOP),
        workload("io.fsync", Scope.LOOP),
        workload("startup.cold", Scope.SESSION),
        workload("startup.exec", Scope.EXEC),
    )
}


def room(*asked: str, busy: float = 1.0, **options: Any) -> Room:
    return Room(
        options=RunOptions(**options),
        kinds={name: str(name) for name in NAMES},
        technologies={TargetName(name): kind for name, kind in KINDS.items()},
        requested=[TargetName(name) for name in ("native", *asked)],
        busy=busy,
    )


def test_the_first_of_each_group_comes_before_the_second_of_any() -> None:
    assert round_robin(["a1", "a2", "b1", "a3", "b2"], lambda item: item[0]) == [
        "a1", "b1", "a2", "b2", "a3",
    ]  # fmt: skip


def test_a_candidate_that_does_not_fit_makes_room_for_a_smaller_one_after_it() -> None:
    assert that_fit([1], [50, 3, 2], lambda some: sum(some) <= 6) == [1, 3, 2]


def test_a_large_budget_has_room_for_everything() -> None:
    assert room(budget=86400.0).choose(NAMES, WORKLOADS) == (NAMES, list(WORKLOADS))


def test_a_small_budget_measures_one_of_each_kind_that_is_cheap_before_all_of_one_kind() -> None:
    targets, names = room(budget=60.0).choose(NAMES, WORKLOADS)
    assert targets == ["native", "namespaces", "docker", "bubblewrap"]
    assert names == list(WORKLOADS)


def test_where_not_every_workload_fits_the_one_that_stands_for_its_class_stays() -> None:
    _, names = room("docker", busy=3.0, budget=60.0).choose(NAMES, WORKLOADS)
    assert names == ["cpu.sieve", "io.fsync"]


def test_what_was_requested_by_name_is_always_measured() -> None:
    targets, _ = room("qemu", "wine", budget=5.0).choose(NAMES, WORKLOADS)
    assert targets == ["native", "qemu", "wine"]


def test_workloads_give_way_where_what_was_requested_does_not_fit_with_all_of_them() -> None:
    asked = ("docker", "podman")
    _, names = room(*asked, budget=60.0).choose(NAMES, WORKLOADS)
    assert 0 < len(names) < len(WORKLOADS)
    assert names == [name for name in WORKLOADS if name in names]
    named = room(*asked, budget=60.0, workloads=tuple(WORKLOADS))
    assert named.choose(NAMES, WORKLOADS)[1] == list(WORKLOADS)


@pytest.mark.parametrize("budget", [1e-6, 1.0, 5.0, 20.0, 60.0, 300.0])
def test_something_is_always_compared_with_native(budget: float) -> None:
    targets, names = room(budget=budget).choose(NAMES, WORKLOADS)
    assert len(targets) > 1
    assert names
    assert room(budget=budget).choose(NAMES[:1], WORKLOADS)[0] == ["native"]


def test_a_larger_budget_never_measures_less() -> None:
    budgets = [10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 3600.0]
    found = [room(budget=budget).choose(NAMES, WORKLOADS) for budget in budgets]
    for (few, fewer), (many, more) in itertools.pairwise(found):
        assert set(fewer) <= set(more)
        assert len(few) * len(fewer) <= len(many) * len(more)


def test_a_busy_machine_measures_less_in_the_same_time() -> None:
    quiet, busy = (room(busy=b, budget=120.0).choose(NAMES, WORKLOADS)[0] for b in (1.0, 4.0))
    assert set(busy) < set(quiet)


@pytest.mark.parametrize("busy", [1.0, 4.0])
def test_the_command_for_what_was_left_out_asks_for_a_budget_that_has_room(busy: float) -> None:
    some = room(budget=5.0, workloads=("cpu",), busy=busy)
    words = some.command(NAMES, WORKLOADS).split()
    assert words[:-1] == ["isobench", "run", "--workloads", "cpu", "--budget"]
    minutes = int(words[-1].removesuffix("m"))
    again = room(budget=60.0 * minutes, busy=busy)
    assert again.choose(NAMES, WORKLOADS) == (NAMES, list(WORKLOADS))


def test_the_command_for_what_was_left_out_finds_the_same_targets_and_workloads() -> None:
    argv = ("run", "--config", "my.toml", "--workload-folder", "mine", "--budget", "5s")
    command = room(budget=5.0, argv=argv).command(NAMES, WORKLOADS)
    assert command.startswith("isobench run --config my.toml --workload-folder mine --budget ")


def test_room_is_left_beside_the_blocks_that_verdicts_need() -> None:
    assert wanted_blocks(RunOptions(minimum_blocks=10)) == 13
    assert wanted_blocks(RunOptions(minimum_blocks=10, maximum_blocks=10)) == 10
    assert wanted_blocks(RunOptions(quick=True, maximum_blocks=5)) == 5


def test_starts_of_an_expensive_target_are_counted_once() -> None:
    starts = [WORKLOADS[WorkloadName("startup.cold")]]
    cheap, expensive = cost_of("docker"), cost_of("qemu")
    assert block_seconds(cheap, starts, RunOptions(starts=3)) == cheap.opening + 4 * cheap.start
    assert (
        block_seconds(expensive, starts, RunOptions(starts=3)) < expensive.opening + expensive.start
    )


def test_every_target_that_comes_with_isobench_has_a_usual_cost() -> None:
    assert set(budget_room.COSTS) == set(announced())
    assert cost_of("of somebody else's") == budget_room.UNKNOWN
