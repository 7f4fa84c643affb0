"""Measures blocks in rounds: all payloads of a workload wait in their sessions, and in each round
every target makes one short iteration, in random order and one at a time.

The noise of a shared machine lives between 10 ms and seconds. Visits of a second each leave it in
the ratio of two targets; turns of some milliseconds meet the same noise, which cancels out.
"""

import itertools
import secrets
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from isobench.evidence import host_time
from isobench.model import (
    Block,
    Gap,
    Record,
    Sample,
    Scope,
    Visit,
    Work,
    Workload,
)
from isobench.model.plan import actual
from isobench.model.units import Nanoseconds, TargetName, WorkloadName
from isobench.payload import wire
from isobench.plugins import guard
from isobench.plugins.api import Completed, Interactive, Session
from isobench.run import turns
from isobench.run.context import Context
from isobench.run.measure import Runner, undisturbed
from isobench.run.proving import TimedOutError, gap_of
from isobench.run.sessions import OpeningFailures, OpenSession, Sessions
from isobench.run.startup import OneByOne
from isobench.run.turns import Turn
from isobench.run.waiting import EndedError, LateError, Waiting

_PATIENCE: Final = 3
"""A payload may wait for so many times the time limit of one iteration."""
_ONE_LOOP_TURNS: Final = 3
"""Turns of one loop, spread over the rounds of a block. They show what a turn takes beside its
timed pass. They come after turns of others, as all turns do: right after its own turn a program is
awake, and what it needs is in the caches.
"""
_LOOPS_OF_A_TURN: Final = 8
"""Turns of fewer loops are not much longer than those of one loop, which then show nothing."""


def is_interactive(session: Session | None) -> bool:
    """Return whether a payload can wait in a session."""
    able: object = session  # whatever the plug-in yielded: an ability is no part of its type
    return isinstance(able, Interactive) and able.interactive


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A turn that was made: whose sample it is, in which round, and when it was answered."""

    label: TargetName
    round: int | None
    """Below 0: a warm-up pass. None: a turn of one loop, which is no sample."""
    loops: int
    at: float
    taken: int
    """Nanoseconds from the request to the answer."""

    @property
    def is_counted(self) -> bool:
        """Whether it is a sample, and no warm-up pass."""
        return self.round is not None and self.round >= 0


@dataclass(kw_only=True)
class _Player:
    """One label of a block at one workload: it makes turns, and has records in the end."""

    runner: Runner
    visit: Visit
    workload: Workload
    work: Work
    opened: OpenSession
    most_loops: int
    """Of any of its turns. A payload that waits warms up with as many."""
    records: Sequence[Record] = ()
    is_over: bool = False
    """Whether it makes no further turn."""

    def start(self) -> None:
        """Prepare the turns."""

    def turn(self, turn: Turn, number: int) -> None:
        """Make a turn in a round."""
        raise NotImplementedError

    def one_loop(self, turn: Turn) -> None:
        """Make the same turn with one loop, if its program waits."""

    def finish(self) -> Sequence[Record]:
        """End what runs, and return all records."""
        return self.records

    def abandon(self) -> None:
        """End what runs after an interruption. There are no records."""
        self.finish()

    def add(self, found: Sequence[Record]) -> None:
        """Add the records of a turn. Of an incomplete visit only the gap counts."""
        gaps = [record for record in found if isinstance(record, Gap)]
        self.is_over = bool(gaps)
        self.records = gaps or [*self.records, *found]


@dataclass(kw_only=True)
class _Waiter(_Player):
    """A payload that waits in a session."""

    nonce: str = field(default_factory=lambda: secrets.token_hex(8))
    done: list[_Done] = field(default_factory=list)
    is_late: bool = False
    """Whether it did not answer in time."""

    def __post_init__(self) -> None:
        """Make the context, which is that of the whole visit."""
        self.context: Context = self.runner.context(self.visit)
        self.waiting: Waiting | None = None

    @property
    def _timeout(self) -> Nanoseconds:
        return self.workload.timeout

    def start(self) -> None:
        """Start the payload, and wait until it has warmed up."""
        self.records = self.runner.attempt(self.visit, self._start)
        self.is_over = self.is_over or bool(self.records)

    def _start(self) -> tuple[Record, ...]:
        self.runner.demand_possible(self.visit, self.workload)
        session = guard.unwrapped(self.opened.session)
        command = self.context.command(
            self.workload.program, self.nonce, wire.ASK, str(self.most_loops), *self.workload.args
        )
        self.context.timer.expect_hello(self.nonce)
        limit = Nanoseconds(_PATIENCE * self._timeout)
        self.waiting = Waiting(lambda listening: session.run(listening, timeout=limit), command)
        try:
            self.waiting.expect(wire.WARM, self._timeout)
        except LateError:
            self.is_late = True
        except EndedError:
            pass
        else:
            for number in range(1, self.work.warmups):
                self._ask(self.visit.target, -number, self.most_loops, 0)
            return ()
        return self._finish()

    def turn(self, turn: Turn, number: int) -> None:
        """Request an iteration, and wait for it. Why it fails is found at the end."""
        self._ask(turn.label, number, turn.loops, turn.untimed)

    def one_loop(self, turn: Turn) -> None:
        """Request one loop after the turn's untimed pass."""
        if turn.loops >= _LOOPS_OF_A_TURN:
            self._ask(turn.label, None, 1, turn.untimed)

    def _ask(self, label: TargetName, number: int | None, loops: int, untimed: int) -> None:
        if self.is_over:
            return
        assert self.waiting is not None
        sent_at = time.monotonic_ns()
        try:
            self.waiting.send(wire.request(loops, untimed))
            self.waiting.expect(wire.ITERATION, self._timeout)
        except (EndedError, LateError) as error:
            self.is_over, self.is_late = True, isinstance(error, LateError)
            return
        taken = time.monotonic_ns() - sent_at
        at = round(time.monotonic() - self.runner.began, 4)
        self.done.append(_Done(label=label, round=number, loops=loops, at=at, taken=taken))

    def finish(self) -> Sequence[Record]:
        """End the payload, check what it has printed, and return its samples."""
        if self.waiting is not None and not self.records:
            self.records = self.runner.attempt(self.visit, self._finish)
        return self.runner.of_session(self.opened, self.records)

    def abandon(self) -> None:
        """Request the payload to end. Who waits for one that hangs keeps the user waiting."""
        if self.waiting is not None:
            self.waiting.abandon()

    def _finish(self) -> tuple[Record, ...]:
        done = self._end()
        reply = self.runner.prover.reply(
            done, self.visit.target, nonce=self.nonce, iterations=len(self.done)
        )
        self.runner.check_answer(self.workload, replace(self.work, loops=self.most_loops), reply)
        for asked, iteration in zip(self.done, reply.iterations, strict=True):
            if iteration.loops != asked.loops:
                raise wire.WrongAnswerError(
                    f"the payload made {iteration.loops} loops instead of {asked.loops}"
                )
            self.runner.check_same(self.workload, asked.loops, iteration.check)
        return tuple(self._samples(reply))

    def _end(self) -> Completed:
        assert self.waiting is not None
        try:
            done = self.waiting.end(self._timeout)
        except LateError:
            raise TimedOutError from None
        if self.is_late:
            raise TimedOutError
        return done

    def _samples(self, reply: wire.Reply) -> Iterator[Record]:
        yield from self.runner.rest_of(self.context, reply)
        yield from self._host_samples(reply)
        for asked, iteration in zip(self.done, reply.iterations, strict=True):
            if asked.round is not None:
                visit = replace(self.visit, target=asked.label)
                yield replace(self.runner.pass_of(visit, iteration, asked.round), at=asked.at)

    def _host_samples(self, reply: wire.Reply) -> Iterator[Record]:
        """Yield what the host saw of the turns: the times of all, of the fastest and of the median,
        how much it saw of what the payload reports, and the times of turns of one loop.
        """
        for label in dict.fromkeys(one.label for one in self.done):
            pairs = [
                (done, iteration)
                for done, iteration in zip(self.done, reply.iterations, strict=True)
                if done.label == label
            ]
            own = [pair for pair in pairs if pair[0].is_counted]
            if not own:
                continue
            visit = replace(self.visit, target=label)
            for one in host_time.seen(
                reported=[iteration.nanoseconds for _, iteration in own],
                taken=[done.taken for done, _ in own],
                one_loop=[done.taken for done, _ in pairs if done.round is None],
            ):
                yield self.runner.sample(
                    visit, one.metric, one.value, operations=one.turns, clock=one.clock
                )


class _Starter(_Player):
    """A target without a stream to its programs: each turn is a visit of one iteration."""

    def turn(self, turn: Turn, number: int) -> None:
        """Start a program for one iteration."""
        work = replace(self.work, loops=turn.loops, iterations=1, warmups=1)
        found = self.runner.visit_in_session(self.opened, self.visit, work)
        self.add(
            [
                replace(record, iteration=number) if isinstance(record, Sample) else record
                for record in found
            ]
        )


@dataclass(kw_only=True)
class _Starts(_Player):
    """The starts that a workload times: each turn is one start."""

    one_by_one: OneByOne | None = None

    def start(self) -> None:
        """Prepare and prove what the starts need, which may take two starts."""
        self.add(self.runner.attempt(self.visit, self._prepare, calls=3))

    def _prepare(self) -> tuple[Record, ...]:
        self.runner.demand_possible(self.visit, self.workload)
        session, context = guard.unwrapped(self.opened.session), self.runner.context(self.visit)
        own = self.work.turns.get(self.visit.target)
        work = self.work if own is None else replace(self.work, iterations=own.rounds)
        self.one_by_one = self.runner.one_by_one(context, work, session)
        return tuple(next(self.one_by_one))

    def turn(self, turn: Turn, number: int) -> None:
        """Make the next start, if there is one: a target that is slow to start makes only one."""
        del turn, number
        starts = self.one_by_one
        assert starts is not None
        self.add(self.runner.attempt(self.visit, lambda: tuple(next(starts, ()))))

    def finish(self) -> Sequence[Record]:
        """Remove what was prepared, and return all records."""
        found = self.runner.attempt(self.visit, self._close) or self.records
        if self.workload.scope is Scope.SESSION:
            return found  # each start had its own instance
        return self.runner.of_session(self.opened, found)

    def _close(self) -> tuple[Record, ...]:
        if self.one_by_one is not None:
            self.one_by_one.close()
        return ()


class Rounds:
    """Measures blocks in rounds."""

    def __init__(self, runner: Runner, reference: TargetName, seed: int) -> None:
        """Take the runner of a run, and the reference and the seed of its plan."""
        self._runner, self._reference, self._seed = runner, reference, seed
        self._openings: list[float] = []
        """Seconds that the sessions of each block took to open."""

    def block(
        self,
        block: Block,
        work: Mapping[WorkloadName, Work],
        failures: OpeningFailures,
        tick: Callable[[Visit], None],
        kept: Sessions | None = None,
    ) -> None:
        """Measure one block like `Runner.block`, but in rounds."""
        runner, began = self._runner, time.monotonic()
        groups = [
            (name, [*group])
            for name, group in itertools.groupby(block.visits, lambda visit: visit.workload)
        ]
        left = {name: {visit.target for visit in visits} for name, visits in groups}
        with undisturbed(), runner.sessions(block, failures, kept) as (good, bad):
            # Sessions that serve several blocks are opened in one of them: the mean is of all.
            self._openings.append(time.monotonic() - began)
            times = turns.times(work.values(), left, opening=statistics.fmean(self._openings))
            for name, visits in groups:
                self._workload(visits, turns.scaled(work[name], times), good, bad, tick)

    def _workload(
        self,
        visits: Sequence[Visit],
        work: Work,
        good: Mapping[TargetName, OpenSession],
        bad: Mapping[TargetName, Gap],
        tick: Callable[[Visit], None],
    ) -> None:
        """Measure one workload of a block."""
        runner, players = self._runner, dict[TargetName, _Player]()
        is_cut = False
        try:
            for visit in visits:
                tick(visit)
                if visit.target in bad:
                    runner.write((gap_of(visit, bad[visit.target]),))
                    continue
                players[visit.target] = player = self._player(visit, work, good[visit.target])
                if not player.is_over:
                    player.start()
            self._turns(players, work, f"{self._seed}/{visits[0].block}")
        except BaseException as error:
            is_cut = not isinstance(error, Exception)
            raise
        finally:  # whatever happens, no payload is left waiting
            # Native's checksum is the one that all others are compared with.
            for label in sorted(players, key=lambda label: actual(label) != self._reference):
                # Ctrl-C in the middle of a turn: what is missing is no fault of the payload.
                if is_cut:
                    players[label].abandon()
                else:
                    runner.write(players[label].finish())

    def _turns(self, players: Mapping[TargetName, _Player], work: Work, seed: str) -> None:
        """Let all make their turns, one at a time."""
        orders = [*turns.order(work, [*players], reference=self._reference, seed=seed)]
        every = {turn.label: turn for order in orders for turn in order}
        last = _ONE_LOOP_TURNS - 1
        at = {round(n * (len(orders) - 1) / last) for n in range(_ONE_LOOP_TURNS)}
        # Whose own turn, or start, was the longest ago comes first.
        before = [every[label] for label in players if label in every]
        with self._runner.own_cpu.counting():
            for number, order in enumerate(orders):
                if number in at:
                    for turn in {turn.label: turn for turn in (*before, *every.values())}.values():
                        players[turn.process].one_loop(turn)
                for turn in order:
                    player = players[turn.process]
                    if not player.is_over:
                        player.turn(turn, number)
                before = [*order]

    def _player(self, visit: Visit, work: Work, opened: OpenSession) -> _Player:
        """Return what makes the turns of a label. It is over if its session cannot be used."""
        runner, workload = self._runner, self._runner.workloads[visit.workload]
        fault = runner.make_ready(opened, visit)
        return _kind_of(workload, opened)(
            runner=runner,
            visit=visit,
            workload=workload,
            work=work,
            opened=opened,
            most_loops=turns.most_loops(work, visit.target, reference=self._reference),
            records=() if fault is None else (fault,),
            is_over=fault is not None,
        )


def _kind_of(workload: Workload, opened: OpenSession) -> type[_Player]:
    if workload.scope is not Scope.LOOP:
        return _Starts
    return _Waiter if is_interactive(opened.session) else _Starter
