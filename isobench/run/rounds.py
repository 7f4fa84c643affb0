"""Measures blocks in rounds: all payloads of a workload wait in their sessions, and in each round
every target makes one short iteration, in random order and one at a time.

The noise of a shared machine lives between 10 ms and seconds. Visits of a second each leave it in
the ratio of two targets; turns of some milliseconds meet the same noise, which cancels out.
"""

import itertools
import random
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from isobench.model import Block, Clock, Gap, Record, Sample, Scope, Visit, Work, Workload
from isobench.model.plan import actual
from isobench.model.units import Nanoseconds, TargetName, WorkloadName
from isobench.payload import wire
from isobench.plugins import guard
from isobench.plugins.api import Completed, Exclusive, Interactive, Session
from isobench.run import turns
from isobench.run.context import Context
from isobench.run.measure import Runner, undisturbed
from isobench.run.proving import TimedOutError, gap_of
from isobench.run.sessions import OpeningFailures, OpenSession, Sessions
from isobench.run.turns import Turn
from isobench.run.waiting import EndedError, LateError, Waiting

_PATIENCE = 3
"""A payload may wait for so many times the time limit of one iteration."""


def is_interactive(session: Session | None) -> bool:
    """Return whether a payload can wait in a session."""
    able: object = session  # whatever the plug-in yielded: an ability is no part of its type
    return isinstance(able, Interactive) and able.interactive


@dataclass(frozen=True, slots=True, kw_only=True)
class _Done:
    """A turn that was made: whose sample it is, in which round, and when it was answered."""

    label: TargetName
    round: int
    """Below 0: a warm-up pass."""
    loops: int
    at: float


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

    def turn(self, turn: Turn, number: int) -> None:
        """Make a turn in a round."""
        raise NotImplementedError

    def finish(self) -> Sequence[Record]:
        """End what runs, and return all records."""
        return self.records


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
        self.is_over = bool(self.records)

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

    def _ask(self, label: TargetName, number: int, loops: int, untimed: int) -> None:
        assert self.waiting is not None
        try:
            self.waiting.send(wire.request(loops, untimed))
            self.waiting.expect(wire.ITERATION, self._timeout)
        except (EndedError, LateError) as error:
            self.is_over, self.is_late = True, isinstance(error, LateError)
            return
        at = round(time.monotonic() - self.runner.began, 4)
        self.done.append(_Done(label=label, round=number, loops=loops, at=at))

    def finish(self) -> Sequence[Record]:
        """End the payload, check what it has printed, and return its samples."""
        if self.waiting is not None and not self.records:
            self.records = self.runner.attempt(self.visit, self._finish)
        return self.runner.of_session(self.opened, self.records)

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
        rest = [*self.runner.rest_of(self.context, reply)]
        for asked, iteration in zip(self.done, reply.iterations, strict=True):
            sample = self.runner.sample(
                replace(self.visit, target=asked.label),
                "time" if asked.round >= 0 else "warmup",
                iteration.nanoseconds,
                iteration=abs(asked.round),
                operations=iteration.operations,
                clock=Clock.GUEST,
            )
            yield replace(sample, at=asked.at)
        yield from rest


@dataclass(kw_only=True)
class _Starter(_Player):
    """A target without a stream to its programs: each turn is a visit of one iteration."""

    def turn(self, turn: Turn, number: int) -> None:
        """Start a program for one iteration."""
        work = replace(self.work, loops=turn.loops, iterations=1, warmups=1)
        found = self.runner.visit_in_session(self.opened, self.visit, work)
        self.is_over = any(isinstance(record, Gap) for record in found)
        numbered = [
            replace(record, iteration=number) if isinstance(record, Sample) else record
            for record in found
        ]
        # Of an incomplete visit only the gap counts.
        self.records = [r for r in found if isinstance(r, Gap)] or [*self.records, *numbered]


class _Starts:
    """The starts of one label at one workload, which take turns with those of others."""

    def __init__(
        self, runner: Runner, visit: Visit, work: Work, opened: OpenSession | None
    ) -> None:
        """Take a label of a block. Nothing is started yet."""
        self._runner, self.visit, self._opened = runner, visit, opened
        session = None if opened is None else guard.unwrapped(opened.session)
        self._starts = runner.one_by_one(runner.context(visit), work, session)
        self.records: list[Record] = []
        self.is_over = False

    def turn(self, *, is_first: bool = False) -> None:
        """Make the next start; the first turn prepares and proves."""

        def next_start() -> tuple[Record, ...]:
            if is_first:
                self._runner.demand_possible(
                    self.visit, self._runner.workloads[self.visit.workload]
                )
            found = next(self._starts, None)
            self.is_over = found is None
            return tuple(found or ())

        # For the evidence there are at most two starts more.
        found = self._runner.attempt(self.visit, next_start, calls=3)
        if any(isinstance(record, Gap) for record in found):
            # Of an incomplete visit only the gap counts.
            self.records, self.is_over = [*found], True
        else:
            self.records += found

    def finish(self) -> Sequence[Record]:
        """Remove what was prepared, and return all records."""
        closing = self._runner.attempt(self.visit, self._close)
        self.records = [*closing] or self.records
        is_session = self._runner.workloads[self.visit.workload].scope is Scope.SESSION
        if self._opened is None or is_session:
            return self.records  # each start had its own instance
        return self._runner.of_session(self._opened, self.records)

    def _close(self) -> tuple[Record, ...]:
        self._starts.close()
        return ()


class Rounds:
    """Measures blocks in rounds."""

    def __init__(self, runner: Runner, reference: TargetName, seed: int) -> None:
        """Take the runner of a run, and the reference and the seed of its plan."""
        self._runner, self._reference, self._seed = runner, reference, seed

    def block(
        self,
        block: Block,
        work: Mapping[WorkloadName, Work],
        failures: OpeningFailures,
        tick: Callable[[Visit], None],
        kept: Sessions | None = None,
    ) -> None:
        """Measure one block like `Runner.block`, but workloads that time their own iterations in
        rounds.
        """
        runner = self._runner
        with undisturbed(), runner.sessions(block, failures, kept) as (good, bad):
            for name, visits in itertools.groupby(block.visits, lambda visit: visit.workload):
                is_loop = runner.workloads[name].scope is Scope.LOOP
                measure = self._rounds if is_loop else self._starts
                measure([*visits], work[name], good, bad, tick)

    def _rounds(
        self,
        visits: Sequence[Visit],
        work: Work,
        good: Mapping[TargetName, OpenSession],
        bad: Mapping[TargetName, Gap],
        tick: Callable[[Visit], None],
    ) -> None:
        """Measure one workload of a block."""
        runner, players = self._runner, dict[TargetName, _Player]()
        try:
            for visit in visits:
                tick(visit)
                if visit.target in bad:
                    runner.write(runner.visit_of(visit, work, good, bad))
                    continue
                players[visit.target] = player = self._player(visit, work, good[visit.target])
                if isinstance(player, _Waiter) and not player.is_over:
                    player.start()
            self._turns(players, work, f"{self._seed}/{visits[0].block}")
        finally:  # whatever happens, no payload is left waiting
            # Native's checksum is the one that all others are compared with.
            for label in sorted(players, key=lambda label: actual(label) != self._reference):
                runner.write(players[label].finish())

    def _starts(
        self,
        visits: Sequence[Visit],
        work: Work,
        good: Mapping[TargetName, OpenSession],
        bad: Mapping[TargetName, Gap],
        tick: Callable[[Visit], None],
    ) -> None:
        """Measure one workload of a block that times starts: one start of each target in turn."""
        runner, made = self._runner, list[_Starts]()
        try:
            for visit in visits:
                tick(visit)
                opened = good.get(visit.target)
                fault = bad.get(visit.target) or self._fault(visit, opened)
                if fault is not None:
                    runner.write((gap_of(visit, fault),))
                    continue
                made.append(_Starts(runner, visit, work, opened))
                made[-1].turn(is_first=True)
            rng = random.Random(f"{self._seed}/{visits[0].block}/{work.workload}")  # noqa: S311 - an order to replay, not a secret
            while left := [each for each in made if not each.is_over]:
                rng.shuffle(left)
                for each in left:
                    each.turn()
        finally:  # whatever happens, no instance is left
            for each in made:
                runner.write(each.finish())

    def _fault(self, visit: Visit, opened: OpenSession | None) -> Gap | None:
        """Prepare the session of an exclusive target: it is closed before an instance is started,
        and opened again before a process is started in it. Return the gap if that fails.
        """
        runner, target = self._runner, self._runner.targets[actual(visit.target)]
        if opened is None or not (isinstance(target, Exclusive) and target.exclusive):
            return None
        if runner.workloads[visit.workload].scope is not Scope.SESSION:
            return runner.reopened(opened, visit)
        opened.suspend()
        return None

    def _turns(self, players: Mapping[TargetName, _Player], work: Work, seed: str) -> None:
        """Let all make their turns, one at a time."""
        orders = turns.order(work, [*players], reference=self._reference, seed=seed)
        for number, order in enumerate(orders):
            for turn in order:
                player = players[turn.process]
                if not player.is_over:
                    player.turn(turn, number)

    def _player(self, visit: Visit, work: Work, opened: OpenSession) -> _Player:
        """Return what makes the turns of a label. It is over if its session cannot be used."""
        runner, fault = self._runner, self._fault(visit, opened)
        records = () if fault is None else (gap_of(visit, fault),)
        kind = _Waiter if is_interactive(opened.session) else _Starter
        return kind(
            runner=runner,
            visit=visit,
            workload=runner.workloads[visit.workload],
            work=work,
            opened=opened,
            most_loops=turns.most_loops(work, visit.target, reference=self._reference),
            records=records,
            is_over=bool(records),
        )
