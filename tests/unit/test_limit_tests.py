"""What is made of limits that a program pushed past, from what it said with them and without."""

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

import pytest

from isobench.evidence import prove
from isobench.model import (
    Abi,
    Environment,
    Evidence,
    LimitCheck,
    Limits,
    Resource,
    Stage,
    Technology,
)
from isobench.model.errors import SessionError
from isobench.model.units import TargetName
from isobench.payload import stage
from isobench.plugins.api import Limiter, Session, Target
from isobench.plugins.testing import FakeTarget
from isobench.run import limit_tests, measure
from tests.unit.test_measure import NATIVE, Sink
from tests.unit.test_measure import workshop as workshop  # noqa: PLC0414 - a fixture of theirs

ALL = tuple(Resource)
WITHOUT = {
    "limit.cpu.permille": 1980,
    "limit.memory.filled_mib": 128,
    "limit.processes.started": 128,
    "limit.io.bytes_per_second": 200 << 20,
}
WITH = {
    "limit.cpu.permille": 510,
    "limit.cpu.throttled": 12,
    "limit.memory.filled_mib": 63,
    "limit.memory.signal": 9,
    "limit.memory.exit": 0,
    "limit.memory.kills": 1,
    "limit.processes.started": 62,
    "limit.processes.errno": 11,
    "limit.processes.refused": 1,
    "limit.io.bytes_per_second": 8 << 20,
}


def environment(facts: Mapping[str, int | None]) -> Environment:
    said = (Evidence(key=key, value=value, source="test") for key, value in facts.items())
    return prove.gather(said)


def judged(
    inside: Mapping[str, int | None], without: Mapping[str, int | None] = WITHOUT
) -> dict[Resource, LimitCheck]:
    found = limit_tests.judge(environment(inside), environment(without))
    return {check.resource: check for check in found}


def test_limits_that_stop_a_program_have_held() -> None:
    checks = judged(WITH)
    assert {resource: check.held for resource, check in checks.items()} == dict.fromkeys(ALL, True)
    memory = checks[Resource.MEMORY]
    assert (memory.limit, memory.reached, memory.native, memory.unit) == (64, 63, 128, "MiB")
    assert [checks[r].counted for r in ALL] == [12, 1, 1, None]


@pytest.mark.parametrize(
    ("resource", "key", "value"),
    [
        (Resource.CPU, "limit.cpu.permille", 601),
        (Resource.MEMORY, "limit.memory.filled_mib", 65),
        (Resource.PROCESSES, "limit.processes.started", 65),
        (Resource.IO, "limit.io.bytes_per_second", 10 << 20),
    ],
)
def test_a_program_that_came_past_a_limit_shows_that_it_did_not_hold(
    resource: Resource, key: str, value: int
) -> None:
    checks = judged({**WITH, key: value})
    assert [each.resource for each in checks.values() if each.held is False] == [resource]


def test_a_quota_is_counted_by_the_period_and_may_be_passed_by_a_little() -> None:
    assert judged({**WITH, "limit.cpu.permille": 599})[Resource.CPU].held is True


@pytest.mark.parametrize("key", WITHOUT)
def test_what_natively_stays_below_the_limit_shows_nothing(key: str) -> None:
    checks = judged(WITH, {**WITHOUT, key: 1})
    unknown = [check for check in checks.values() if check.held is None]
    assert len(unknown) == 1
    assert unknown[0].why.startswith("natively")


@pytest.mark.parametrize(
    ("changes", "resource"),
    [
        ({"limit.memory.signal": 11}, Resource.MEMORY),
        ({"limit.memory.signal": 0}, Resource.MEMORY),
        ({"limit.processes.errno": 1}, Resource.PROCESSES),
    ],
)
def test_what_something_else_stopped_shows_nothing(
    changes: Mapping[str, int], resource: Resource
) -> None:
    check = judged({**WITH, **changes})[resource]
    assert (check.held, check.why) == (None, "something other than a limit stopped the program")


def test_memory_that_was_refused_instead_of_killed_for_has_held() -> None:
    changes = {"limit.memory.signal": 0, "limit.memory.exit": 12}
    assert judged({**WITH, **changes})[Resource.MEMORY].held is True


def test_what_was_not_to_be_seen_is_unknown() -> None:
    check = judged({**WITH, "limit.io.bytes_per_second": None})[Resource.IO]
    assert (check.held, check.reached) == (None, None)
    assert check.why


def test_a_counter_out_of_sight_is_no_number() -> None:
    assert judged({**WITH, "limit.cpu.throttled": None})[Resource.CPU].counted is None


# ---- in an instance


@dataclass(frozen=True, kw_only=True)
class Box(FakeTarget):
    """A container whose instances say what they are told to."""

    technology: Technology = Technology.CONTAINERIZATION
    limitable: Collection[Resource] = (Resource.CPU, Resource.MEMORY)
    broken: str = ""
    asked: list[Limits] = field(default_factory=list)

    def limited(self, limits: Limits) -> "Box":
        self.asked.append(limits)
        return self

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Session]:
        if self.broken and self.asked:
            raise SessionError(self.broken)
        with super().open(stage) as session:
            yield session


@pytest.fixture
def runner(workshop: stage.Workshop) -> Callable[..., measure.Runner]:
    def make(*targets: Target) -> measure.Runner:
        native = FakeTarget(name=NATIVE, inside={"kernel.boot_id": "b"})
        made = measure.Runner(
            targets={NATIVE: native} | {target.name: target for target in targets},
            workloads={}, workshop=workshop, host_abi=Abi.ELF_X86_64, sink=Sink(), run_id="unit",
        )  # fmt: skip
        made.prover.reference = environment({})
        return made

    return make


def test_only_containers_that_can_set_limits_are_tested() -> None:
    box = Box(name=TargetName("box"))
    assert isinstance(box, Limiter)
    assert limit_tests.limits_something(box)
    assert not limit_tests.limits_something(replace(box, limitable=()))
    assert not limit_tests.limits_something(replace(box, technology=Technology.SANDBOX))
    assert not limit_tests.limits_something(FakeTarget(name=TargetName("box")))


def test_an_instance_that_does_not_open_leaves_its_limits_unknown_with_the_reason(
    runner: Callable[..., measure.Runner],
) -> None:
    box = Box(name=TargetName("box"), broken="no cgroup for you")
    checks = limit_tests.check_limits(runner(box), box.name, environment(WITHOUT))
    assert [(check.resource, check.held, check.why) for check in checks] == [
        (Resource.CPU, None, "no cgroup for you"),
        (Resource.MEMORY, None, "no cgroup for you"),
    ]
    assert box.asked == [limit_tests.LIMITS]


def test_an_instance_that_says_nothing_of_use_leaves_them_unknown(
    runner: Callable[..., measure.Runner],
) -> None:
    box = Box(name=TargetName("box"))
    checks = limit_tests.check_limits(runner(box), box.name, environment(WITHOUT))
    assert [check.held for check in checks] == [None, None]
    assert all(check.why for check in checks)


def test_an_engine_that_fails_when_it_is_asked_for_its_limits_leaves_them_unknown(
    runner: Callable[..., measure.Runner],
) -> None:
    class Failing(FakeTarget):
        technology = Technology.CONTAINERIZATION

        @property
        def limitable(self) -> Collection[Resource]:
            raise SessionError("the database is locked")

        def limited(self, limits: Limits) -> "Failing":
            del limits
            return self

    box = Failing(name=TargetName("box"))
    assert not limit_tests.limits_something(box)
    assert limit_tests.check_limits(runner(box), box.name, environment(WITHOUT)) == ()
