"""Blocks of rounds: turns, records, and failures of payloads that wait."""

import contextlib
import threading
from collections.abc import Collection, Sequence
from typing import Any

import pytest

from isobench.model import Block, Cause, Gap, Record, Sample, Turns, Visit, Work
from isobench.model.errors import NotApplicableError, SessionError
from isobench.model.units import TargetName
from isobench.payload import wire
from isobench.plugins.testing import FakeSession, FakeTarget, Fault, Script
from isobench.run import measure, rounds, sessions, waiting
from tests.unit.test_measure import (
    BOX,
    COLD,
    INSIDE,
    LOOP,
    LOOPS,
    NATIVE,
    Make,
    Sink,
    fake,
    one_machine,
    said,
)
from tests.unit.test_measure import runner as runner  # noqa: PLC0414 - a fixture of that module
from tests.unit.test_measure import workshop as workshop  # noqa: PLC0414 - the same

CONTROL = TargetName("native#2")
LABELS = (NATIVE, CONTROL, BOX)
WORK = Work(workload=LOOP, loops=LOOPS, iterations=6, untimed_share=0.25)


def block(labels: Sequence[TargetName] = LABELS, number: int = 1) -> Block:
    visits = [Visit(block=number, target=label, workload=LOOP) for label in labels]
    return Block(number=number, sessions=tuple(labels), visits=tuple(visits))


def measured(bench: measure.Runner, work: Work = WORK, **options: Any) -> list[Record]:
    """Return the records of one block of rounds."""
    made = rounds.Rounds(bench, NATIVE, seed=3)
    made.block(block(**options), {LOOP: work}, sessions.OpeningFailures(), lambda _: None)
    sink: Any = bench.sink
    assert isinstance(sink, Sink)
    return sink.records


def times(records: Sequence[Record], label: TargetName) -> list[Sample]:
    found = [r for r in records if isinstance(r, Sample) and r.metric == "time"]
    return [sample for sample in found if sample.target == label]


def test_every_label_has_one_time_in_every_round(runner: Make) -> None:
    records = measured(runner(fake()))
    assert not [r for r in records if isinstance(r, Gap)]
    for label in LABELS:
        assert sorted(sample.iteration for sample in times(records, label)) == [*range(6)]
        assert {sample.operations for sample in times(records, label)} == {LOOPS}


def test_a_payload_is_started_once_and_asked_for_each_turn(runner: Make) -> None:
    box = fake()
    measured(runner(box))
    assert box.runs(LOOP) == 1
    (command,) = [each for each in box.received if each.argv[0] == LOOP]
    assert command.argv[2:4] == ("ask", str(LOOPS))
    assert command.environment["ISOBENCH_STDIN"] == "1"


def test_samples_have_the_number_of_their_session_and_the_usual_metrics(runner: Make) -> None:
    records = measured(runner(fake(scripts=said(LOOP, Script(facts={"io.cached_percent": 3})))))
    mine = [r for r in records if isinstance(r, Sample) and r.target == BOX]
    assert {sample.session for sample in mine} == {1}
    assert {sample.metric for sample in mine} == {
        *("time", "warmup", "span.guest", "span.host", "dispatch", "turns", "fastest-turns"),
        *("trimmed-turn", "bounded-turns", "one-loop-turn", "median-one-loop-turn"),
        "fact.io.cached_percent",
    }


def test_turns_of_one_loop_come_after_turns_of_others_and_with_the_same_untimed_pass(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests: list[tuple[TargetName, int | None, int, int]] = []
    ask = rounds._Waiter._ask

    def recorded(self: Any, *request: Any) -> None:
        requests.append(request)
        ask(self, *request)

    monkeypatch.setattr(rounds._Waiter, "_ask", recorded)
    records = measured(runner(fake()))
    labels = [request[0] for request in requests]
    for label in LABELS:
        mine = [
            n for n, (whose, number, *_) in enumerate(requests) if (whose, number) == (label, None)
        ]
        assert len(mine) == 3
        assert {requests[n][2:] for n in mine} == {(1, LOOPS // 4)}
        # The program sleeps meanwhile, and others use the caches, as before any other turn.
        assert all(n == 0 or labels[n - 1] != label for n in mine)
    taken = [r for r in records if isinstance(r, Sample) and r.metric == "one-loop-turn"]
    assert {sample.target for sample in taken} == {*LABELS}


def test_native_beside_a_slow_target_has_turns_of_one_loop_of_its_own(runner: Make) -> None:
    work = Work(workload=LOOP, loops=LOOPS, iterations=6, turns={BOX: Turns(loops=10, rounds=3)})
    records = measured(runner(fake()), work)
    taken = [r for r in records if isinstance(r, Sample) and r.metric == "one-loop-turn"]
    assert {sample.target for sample in taken} == {*LABELS, "native#box"}


def test_a_slow_target_has_fewer_turns_and_native_a_turn_beside_each(runner: Make) -> None:
    work = Work(workload=LOOP, loops=LOOPS, iterations=6, turns={BOX: Turns(loops=10, rounds=3)})
    records = measured(runner(fake()), work)
    slow, beside = times(records, BOX), times(records, TargetName("native#box"))
    assert [s.iteration for s in slow] == [s.iteration for s in beside] == [1, 3, 5]
    assert {s.operations for s in slow} == {s.operations for s in beside} == {10}
    assert len(times(records, NATIVE)) == 6


def test_more_warm_up_passes_are_recorded_as_warm_up(runner: Make) -> None:
    work = Work(workload=LOOP, loops=LOOPS, iterations=2, warmups=3)
    records = measured(runner(fake()), work)
    warm = [r for r in records if isinstance(r, Sample) and r.metric == "warmup"]
    assert sorted(r.iteration for r in warm if r.target == BOX) == [0, 1, 2]
    assert len(times(records, BOX)) == 2


@pytest.mark.parametrize(
    ("script", "cause", "words"),
    [
        (Script(fault=Fault.SILENT), Cause.FAILED, "did not print its first line"),
        (Script(fault=Fault.CUT_SHORT, exit_code=3), Cause.FAILED, "stopped before its last line"),
        (Script(fault=Fault.ERROR_LINE), Cause.FAILED, "the fake payload failed"),
        (Script(fault=Fault.WRONG_NONCE), Cause.WRONG_ANSWER, "another nonce"),
        (Script(fault=Fault.ONE_TOO_FEW), Cause.WRONG_ANSWER, "8 iterations instead of 9"),
        (Script(fault=Fault.BACKWARDS), Cause.FAILED, "ran backwards"),
        (Script(fault=Fault.GONE), Cause.FAILED, "the fake session broke"),
        (Script(fault=Fault.TIME_OUT), Cause.TIMED_OUT, "not done after 60 s"),
        (Script(check="0" * 16), Cause.WRONG_ANSWER, "the checksum is 0000000000000000 instead of"),
        (Script(operations=0), Cause.FAILED, "is not a line of the protocol"),
        (Script(durations=(0, 5)), Cause.FAILED, "took 0 ns"),
        (Script(steady=False), Cause.WRONG_ANSWER, "different checksums"),
    ],
)
def test_whatever_goes_wrong_in_a_payload_is_a_gap_of_its_cell_alone(
    runner: Make, script: Script, cause: Cause, words: str
) -> None:
    records = measured(runner(fake(scripts=said(LOOP, script))))
    (gap,) = [r for r in records if isinstance(r, Gap)]
    assert (gap.target, gap.cause) == (BOX, cause)
    assert words in gap.detail
    assert not times(records, BOX)
    assert len(times(records, NATIVE)) == len(times(records, CONTROL)) == 6


def test_native_decides_which_checksum_is_right_whoever_comes_first(runner: Make) -> None:
    bench = runner(fake(scripts=said(LOOP, Script(check="f" * 16))))
    records = measured(bench, labels=(BOX, NATIVE))
    assert {r.target for r in records if isinstance(r, Gap)} == {BOX}


class _Deaf(FakeTarget):
    """A target whose sessions pass nothing on to their programs."""

    def open(self, stage: Any) -> Any:
        target = self

        class Session:
            def run(self, command: Any, *, timeout: Any) -> Any:
                return FakeSession(target=target, stage=stage).run(command, timeout=timeout)

        return contextlib.nullcontext(Session())


def test_a_target_without_a_stream_starts_a_program_for_each_turn(runner: Make) -> None:
    box = _Deaf(name=BOX, inside=INSIDE)
    work = Work(workload=LOOP, loops=LOOPS, iterations=6, turns={BOX: Turns(loops=LOOPS, rounds=2)})
    records = measured(runner(box), work)
    assert [sample.iteration for sample in times(records, BOX)] == [2, 5]
    assert box.runs(LOOP) == 2
    assert len(times(records, NATIVE)) == 6


def test_of_a_target_that_fails_in_a_later_turn_no_number_is_left(runner: Make) -> None:
    scripts = said(LOOP, Script(), Script(fault=Fault.SILENT))
    work = Work(workload=LOOP, loops=LOOPS, iterations=6, turns={BOX: Turns(loops=LOOPS, rounds=3)})
    box = _Deaf(name=BOX, inside=INSIDE, scripts=scripts)
    records = measured(runner(box), work)
    assert not times(records, BOX)
    assert box.runs(LOOP) == 2
    assert [r.cause for r in records if isinstance(r, Gap)] == [Cause.FAILED]


def test_starts_are_measured_as_visits(runner: Make) -> None:
    bench = runner(fake())
    visits = tuple(Visit(block=1, target=label, workload=COLD) for label in LABELS)
    one = Block(number=1, sessions=LABELS, visits=visits)
    work = Work(workload=COLD, loops=1, iterations=2)
    rounds.Rounds(bench, NATIVE, seed=3).block(
        one, {COLD: work}, sessions.OpeningFailures(), lambda _: None
    )
    sink: Any = bench.sink
    assert len(times(sink.records, BOX)) == 2


def test_a_target_that_starts_slowly_has_fewer_starts_in_a_block(runner: Make) -> None:
    bench = runner(fake())
    visits = tuple(Visit(block=1, target=label, workload=COLD) for label in LABELS)
    work = Work(workload=COLD, loops=1, iterations=6, turns={BOX: Turns(loops=1, rounds=2)})
    rounds.Rounds(bench, NATIVE, seed=3).block(
        Block(number=1, sessions=LABELS, visits=visits),
        {COLD: work},
        sessions.OpeningFailures(),
        lambda _: None,
    )
    sink: Any = bench.sink
    assert [len(times(sink.records, label)) for label in (NATIVE, BOX)] == [6, 2]


def test_an_interruption_ends_every_payload_that_waits(runner: Make) -> None:
    before = {*threading.enumerate()}  # other tests of this process leave payloads that hang
    bench = runner(fake())
    ticks: list[Visit] = []

    def tick(visit: Visit) -> None:
        ticks.append(visit)
        if len(ticks) == len(LABELS):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        rounds.Rounds(bench, NATIVE, seed=3).block(
            block(), {LOOP: WORK}, sessions.OpeningFailures(), tick
        )
    # Two payloads were waiting, and have ended. Nothing of the block is recorded.
    assert not waiting_threads(before)
    sink: Any = bench.sink
    assert not sink.records


def test_an_interruption_does_not_wait_for_a_payload_that_hangs(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runner(fake())
    waited: list[Any] = []
    monkeypatch.setattr(waiting.Waiting, "end", lambda _, timeout: waited.append(timeout))

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(rounds._Waiter, "turn", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rounds.Rounds(bench, NATIVE, seed=3).block(
            block(), {LOOP: WORK}, sessions.OpeningFailures(), lambda _: None
        )
    assert waited == []


def waiting_threads(before: Collection[threading.Thread]) -> list[str]:
    """Return the new threads that still wait for a payload after a moment."""
    found = [one for one in threading.enumerate() if one not in before and "(_run)" in one.name]
    for one in found:
        one.join(timeout=5)
    return [one.name for one in found if one.is_alive()]


def test_an_interruption_in_a_turn_is_no_fault_of_the_payload(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = runner(fake())
    expect, lines = waiting.Waiting.expect, []

    def interrupted(self: waiting.Waiting, beginning: bytes, timeout: Any) -> None:
        expect(self, beginning, timeout)
        lines.append(beginning)
        if len(lines) == 8:  # the payload has answered, and the answer is not recorded yet
            raise KeyboardInterrupt

    monkeypatch.setattr(waiting.Waiting, "expect", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rounds.Rounds(bench, NATIVE, seed=3).block(
            block(), {LOOP: WORK}, sessions.OpeningFailures(), lambda _: None
        )
    sink: Any = bench.sink
    assert not sink.records


def test_a_session_that_cannot_be_used_for_a_start_is_a_gap(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(session: Any) -> Any:
        if getattr(session, "target", None) is box:
            raise SessionError("the plug-in is broken")
        return session

    box = fake()
    bench = runner(box)
    monkeypatch.setattr(rounds.guard, "unwrapped", refuse)
    visits = tuple(Visit(block=1, target=label, workload=COLD) for label in LABELS)
    rounds.Rounds(bench, NATIVE, seed=3).block(
        Block(number=1, sessions=LABELS, visits=visits),
        {COLD: Work(workload=COLD, loops=1, iterations=2)},
        sessions.OpeningFailures(),
        lambda _: None,
    )
    sink: Any = bench.sink
    (gap,) = [r for r in sink.records if isinstance(r, Gap)]
    assert (gap.target, gap.detail) == (BOX, "the plug-in is broken")
    assert len(times(sink.records, NATIVE)) == 2


def test_a_cell_that_cannot_begin_is_a_gap_and_makes_no_turn(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    possible = measure.Runner.demand_possible

    def demand(self: Any, visit: Visit, workload: Any) -> None:
        if visit.target == BOX:
            raise NotApplicableError("this host has no second CPU any more")
        possible(self, visit, workload)

    monkeypatch.setattr(measure.Runner, "demand_possible", demand)
    records = measured(runner(fake()))
    assert [r.target for r in records if isinstance(r, Gap)] == [BOX]
    assert len(times(records, NATIVE)) == len(times(records, CONTROL)) == 6


def test_an_exclusive_session_that_does_not_come_back_costs_its_own_cells_alone(
    runner: Make,
) -> None:
    bench = runner(one_machine(openings=("", "it is gone")))
    visits = [
        Visit(block=1, target=label, workload=workload)
        for workload in (COLD, LOOP)
        for label in LABELS
    ]
    work = {COLD: Work(workload=COLD, loops=1, iterations=2), LOOP: WORK}
    rounds.Rounds(bench, NATIVE, seed=3).block(
        Block(number=1, sessions=LABELS, visits=tuple(visits)),
        work,
        sessions.OpeningFailures(),
        lambda _: None,
    )
    sink: Any = bench.sink
    (gap,) = [r for r in sink.records if isinstance(r, Gap)]
    assert (gap.target, gap.workload, gap.detail) == (BOX, LOOP, "it is gone")
    assert len([r for r in times(sink.records, CONTROL) if r.workload == LOOP]) == 6


def test_a_payload_that_was_late_while_it_warmed_up_is_asked_for_nothing_more(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = waiting.Waiting.send

    def sending(self: waiting.Waiting, data: bytes) -> None:
        sent.append(data)
        # The program ends, as any does.
        if data == wire.END:
            send(self, data)

    def late(_: waiting.Waiting, beginning: bytes, timeout: Any) -> None:
        if beginning == wire.ITERATION:
            raise waiting.LateError

    monkeypatch.setattr(waiting.Waiting, "expect", late)
    monkeypatch.setattr(waiting.Waiting, "send", sending)
    measured(runner(fake()), Work(workload=LOOP, loops=LOOPS, iterations=6, warmups=2))
    assert len([data for data in sent if data != wire.END]) == len(LABELS)
