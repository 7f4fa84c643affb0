"""Blocks of pairs: at the same time, each on half of the CPUs, whatever goes wrong on one side."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from isobench.model import Block, Cause, Command, Gap, Plan, Record, Sample, Schedule, Stage, plan
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed
from isobench.plugins.testing import FakeSession, FakeTarget, Fault, Script
from isobench.run import duet, measure, sessions
from tests.unit.test_measure import BOX, INSIDE, LOOP, NATIVE, OTHER, WORK, Sink, quiet_but
from tests.unit.test_measure import runner as runner  # noqa: PLC0414 - a fixture of that module
from tests.unit.test_measure import workshop as workshop  # noqa: PLC0414 - the same

CPUS: duet.Halves = ((0,), (1,))
CONTROL = plan.second(NATIVE)
BESIDE = TargetName("native#box")
PAIRS = {frozenset({CONTROL, NATIVE}), frozenset({BOX, BESIDE})}
SOON = 20.0
Make = Callable[..., measure.Runner]

pytestmark = pytest.mark.skipif(
    not {0, 1} <= os.sched_getaffinity(0), reason="CPU 0 and CPU 1 cannot both be used here"
)


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A program that was run: for which label, on which CPUs, and what the target was told."""

    label: str
    affinity: frozenset[int]
    told: str
    thread: int


@dataclass(frozen=True, kw_only=True)
class Spied(FakeTarget):
    """A fake that notes where it is asked from, and waits for whoever runs beside it."""

    seen: list[Seen] = field(default_factory=list)
    meet: Callable[[], object] = lambda: None

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[FakeSession]:
        with FakeTarget.open(self, stage):
            yield SpiedSession(target=self, stage=stage)

    def note(self, command: Command, stage: Stage) -> None:
        if command.argv[0] in (LOOP, OTHER):
            self.seen.append(
                Seen(
                    label=command.environment["ISOBENCH_TARGET"],
                    affinity=frozenset(os.sched_getaffinity(0)),
                    told=stage.cpus,
                    thread=threading.get_ident(),
                )
            )
            self.meet()


class SpiedSession(FakeSession):
    """A session of it, which knows its stage."""

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        target: Any = self.target
        target.note(command, self.stage)
        return FakeSession.run(self, command, timeout=timeout)


def spied(
    make: Make, meet: Callable[[], object] = lambda: None, **box: Any
) -> tuple[measure.Runner, list[Seen]]:
    """Return a bench of native and one target, and the list that both note in."""
    seen: list[Seen] = []
    native = Spied(
        name=NATIVE,
        inside={"kernel.boot_id": "b", "ns.pid": "pid:[1]"},
        seen=seen,
        meet=meet,
        scripts={LOOP: (Script(durations=(10,)),)},
    )
    other = Spied(**({"name": BOX, "inside": INSIDE, "seen": seen, "meet": meet} | box))
    return replace(make(), targets={NATIVE: native, BOX: other}), seen


def planned(blocks: int = 1) -> Plan:
    return plan.make(
        [NATIVE, BOX],
        [WORK[LOOP], WORK[OTHER]],
        reference=NATIVE,
        blocks=blocks,
        seed=3,
        schedule=Schedule.DUET,
    )


def measure_blocks(runner: measure.Runner, *blocks: Block) -> list[Record]:
    """Return what some blocks record."""
    faults = sessions.OpeningFailures()
    with duet.Duet(runner, CPUS) as both:
        for block in blocks:
            both.block(block, WORK, faults, lambda _: None)
    sink: Any = runner.sink
    assert isinstance(sink, Sink)
    return sink.records


def closed(runner: measure.Runner) -> bool:
    """Say whether every session of a bench that was opened is closed."""
    fakes: list[Any] = list(runner.targets.values())
    return all(each.opened == each.closed for each in fakes)


# ---- halves


@pytest.mark.parametrize(
    ("cpus", "cores", "expected"),
    [
        ((0, 1), "01", ((0,), (1,))),
        ((0, 1, 2, 3), "0101", ((0, 2), (1, 3))),
        ((0, 1, 2, 3), "0123", ((0, 1), (2, 3))),
        ((0, 1, 2), "012", ((0,), (2,))),
        ((4, 6), "0123456", ((4,), (6,))),
        ((3,), "0123", None),
        ((), "", None),
    ],
)
def test_halves_are_of_one_size_and_part_no_core_where_they_need_not(
    cpus: tuple[int, ...], cores: str, expected: duet.Halves | None
) -> None:
    assert duet.halves(cpus, lambda cpu: cores[cpu]) == expected


def test_the_kernel_says_which_threads_share_a_core(monkeypatch: pytest.MonkeyPatch) -> None:
    assert duet.siblings(0)
    monkeypatch.setattr(duet, "_SIBLINGS", "/nowhere/{}")
    assert duet.siblings(7) == "7"


# ---- blocks


def test_both_of_a_pair_run_at_the_same_time(runner: Make) -> None:
    barrier = threading.Barrier(2)  # whoever comes alone breaks it
    made, seen = spied(runner, lambda: barrier.wait(SOON))
    records = measure_blocks(made, *planned().blocks)
    assert not [record for record in records if isinstance(record, Gap)]
    met = [frozenset({a.label, b.label}) for a, b in zip(seen[::2], seen[1::2], strict=True)]
    assert set(met) == PAIRS
    assert len(met) == 4
    assert len({each.thread for each in seen}) == 2
    spans = {(r.target, r.workload, r.metric): r.value for r in records if isinstance(r, Sample)}
    for label in (NATIVE, CONTROL, BOX, BESIDE):
        assert 0 <= spans[label, LOOP, "overlap"] <= spans[label, LOOP, "span.host"]
    times = [r for r in records if isinstance(r, Sample) and r.metric == "time"]
    assert {r.target for r in times} == {NATIVE, CONTROL, BOX, BESIDE}
    assert closed(made)


def test_cpus_are_swapped_from_block_to_block_and_passed_to_engines(runner: Make) -> None:
    made, seen = spied(runner)
    measure_blocks(made, *planned(2).blocks)
    assert all(each.told == ",".join(map(str, sorted(each.affinity))) for each in seen)
    for label in (NATIVE, CONTROL, BOX, BESIDE):
        where = [each.affinity for each in seen if each.label == label]
        assert where[:2] == [where[0]] * 2
        assert set(where) == {frozenset({0}), frozenset({1})}
        assert where[2:] == [where[2]] * 2
    assert os.sched_getaffinity(0) >= {0, 1}


def test_each_side_says_who_it_measures(runner: Make) -> None:
    made, seen = spied(runner)
    records = measure_blocks(made, *planned().blocks)
    durations = {
        r.target: r.value
        for r in records
        if isinstance(r, Sample) and r.metric == "time" and r.workload == LOOP
    }
    assert durations == {NATIVE: 10, CONTROL: 10, BESIDE: 10, BOX: 1_000_000}
    assert {each.label for each in seen} == {NATIVE, CONTROL, BOX, BESIDE}


def test_a_session_that_does_not_open_is_a_gap_and_its_partner_goes_on(runner: Make) -> None:
    made, _ = spied(runner, openings=("no room",))
    records = measure_blocks(made, *planned().blocks)
    gaps = [record for record in records if isinstance(record, Gap)]
    assert {(gap.target, gap.workload) for gap in gaps} == {(BOX, LOOP), (BOX, OTHER)}
    assert all("no room" in gap.detail for gap in gaps)
    assert {r.target for r in records if isinstance(r, Sample)} == {NATIVE, CONTROL, BESIDE}
    assert closed(replace(made, targets={NATIVE: made.targets[NATIVE]}))


def test_a_program_that_fails_is_a_gap_and_its_partner_goes_on(runner: Make) -> None:
    made, _ = spied(runner, scripts={LOOP: (Script(fault=Fault.SILENT),)})
    records = measure_blocks(made, *planned().blocks)
    (gap,) = (record for record in records if isinstance(record, Gap))
    assert (gap.target, gap.workload, gap.cause) == (BOX, LOOP, Cause.FAILED)
    times = {(r.target, r.workload) for r in records if isinstance(r, Sample)}
    assert {(BESIDE, LOOP), (BESIDE, OTHER), (BOX, OTHER)} <= times
    assert closed(made)


@pytest.fixture
def heeding() -> Iterator[None]:
    """Heed Ctrl-C, which whoever runs the tests in the background of a shell has ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeding")
def test_ctrl_c_ends_what_runs_on_both_sides(runner: Make) -> None:
    running = threading.Barrier(2)

    def linger() -> None:
        if running.wait(SOON) == 0:
            os.kill(os.getpid(), signal.SIGINT)  # heard by the main thread, which waits for both
        fakes: list[Any] = list(made.targets.values())
        end = time.monotonic() + SOON
        while sum(each.closed for each in fakes) < 4:
            if time.monotonic() > end:
                raise SessionError("nobody has closed these sessions")
            time.sleep(0.001)
        over.append(threading.get_ident())
        raise SessionError("the session is gone")

    over: list[int] = []
    made, _ = spied(runner, linger)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        measure_blocks(made, *planned().blocks)
    assert len(set(over)) == 2
    assert closed(made)
    assert threading.active_count() == before


def test_a_run_of_duets_goes_through_all_its_blocks(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    made, _ = spied(runner)
    limits = measure.StopRules(
        budget_end=float("inf"),
        minimum_blocks=3,
        maximum_blocks=3,
        analyse=lambda _: measure.Analysed(),
    )
    with duet.Duet(made, CPUS) as both:
        done, why = measure.measure(
            made, planned(3), limits, tick=lambda *_: None, one_block=both.block
        )
    sink: Any = made.sink
    samples = [record for record in sink.records if isinstance(record, Sample)]
    assert {(r.block, r.session) for r in samples} == {(1, 1), (2, 2), (3, 3)}
    assert (done, why) == (3, "blocks")
    assert closed(made)
