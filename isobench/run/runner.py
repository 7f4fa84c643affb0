"""Drive a plan against targets; write every record at once; decide nothing about what it means."""

import contextlib
import gc
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final, Protocol, Self

from isobench.evidence import host, prove
from isobench.model import (
    Abi,
    Block,
    BlockHealth,
    Cause,
    Clock,
    Environment,
    Evidence,
    ExpectationCheck,
    Gap,
    LimitCheck,
    Need,
    Plan,
    Record,
    Sample,
    Scope,
    Stage,
    Start,
    Visit,
    Work,
    Workload,
)
from isobench.model.errors import IsobenchError, NotApplicableError, SessionError
from isobench.model.plan import actual, is_look
from isobench.model.units import SECOND, Nanoseconds, TargetName, Unit, WorkloadName, seconds
from isobench.payload import wire
from isobench.payload.build import EVIDENCE, STARTUP
from isobench.payload.stage import Workshop
from isobench.plugins import guard
from isobench.plugins.api import (
    BEGIN,
    Channel,
    Completed,
    Exclusive,
    Launcher,
    NullSpawner,
    Restarter,
    Session,
    Target,
    Witness,
)

EVIDENCE_TIMEOUT: Final = seconds(60)
MOST_FAILURES: Final = 3
"""After so many failed openings in a row a target is left alone."""
MOST_PADDING: Final = 1024
"""The environment's size is random up to this: it moves the stack (Mytkowicz et al., 2009)."""
SESSION: Final = WorkloadName("session")
"""Stands for a workload in the gap of a session that could not be closed."""
REPEATED_SHARE: Final = 0.2
"""Most blocks that may be measured again for a broken rule."""


_PLUGIN_HINT: Final = "this is a fault of the target's plug-in: tell its author"


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Append one record."""

    def sync(self) -> None:
        """Make safe what was written."""

    def log(self, name: str, text: bytes) -> None:
        """Keep what something said on standard error."""

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Keep how the host fared in a block."""


class Ear:
    """Listens to a payload's output for its first line, and stamps the host clock when it comes.

    The one place where a start-up is timed: everything else only hands on bytes.
    """

    def __init__(self) -> None:
        self._wanted = b""
        self._said = b""
        self.asked = 0
        self.arrived: int | None = None
        self.last = 0
        self.marks: dict[str, int] = {}
        self.begun = False

    def ask(self, nonce: str) -> None:
        """Begin to wait for the payload with this nonce: the clock starts now."""
        self.expect(wire.hello(nonce))

    def expect(self, wanted: bytes) -> None:
        """Begin to wait for these bytes: the clock starts now."""
        self._wanted, self._said, self.arrived = wanted, b"", None
        self.marks, self.begun = {}, False
        self.asked = time.monotonic_ns()

    def heard(self, chunk: bytes, at: int | None = None) -> None:
        """Take a piece of standard output, and when it came where isobench's spawner says so."""
        now = self.last = time.monotonic_ns() if at is None else at
        if self.arrived is None:
            self._said = (self._said + chunk)[: 1 << 16]
            if self._wanted in self._said:
                self.arrived = now

    def mark(self, name: str) -> None:
        """Take the name of a phase that passes; BEGIN sets the clock to zero, once."""
        now = time.monotonic_ns()
        if name != BEGIN:
            self.marks.setdefault(name, now - self.asked)
        elif not self.begun and self.arrived is None:
            self.begun, self.asked, self.marks = True, now, {}

    def exclude(self, nanoseconds: int) -> None:
        """Leave out what has just passed between asking isobench's spawner and its clone."""
        if self.arrived is None:
            self.asked += nanoseconds


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What one session showed of itself."""

    environment: Environment
    checks: tuple[ExpectationCheck, ...]

    @property
    def broken(self) -> str:
        """The expectations that were not met, in words."""
        return prove.broken(self.checks)

    @property
    def way_out(self) -> str:
        """What to change for them to be kept, where they say so."""
        return prove.way_out(self.checks)


@dataclass(kw_only=True)
class Opened:
    """A session that is open."""

    session: Session
    number: int
    """Which one of its target it is, from 1."""
    blocks_left: int
    """How many blocks it may still serve, the one at hand among them."""
    close: Callable[[], None]
    proof: Proof | None = None
    """What it showed of itself at its opening."""
    proving: float = 0.0
    """Seconds that its latest proof took."""
    spoilt: bool = False
    """Something went wrong in it: it serves no further block."""
    away: bool = False
    """It is closed, since an instance of an exclusive target was to be started; to be opened again
    before its next use.
    """
    again: "Callable[[], Opened]" = field(init=False)
    """Opens it again."""
    fault: Gap | None = None
    """Why that could not be done."""

    def part(self) -> None:
        """Close it for now."""
        if not self.away:
            self.away = True
            self.close()

    def distrust(self, proof: Proof) -> str:
        """Return why this session is not to be trusted, in words; empty where it is.

        A session that serves several blocks must stay on the machine that it was opened on.
        """
        first, self.proof = self.proof, self.proof or proof
        if proof.broken or first is None:
            return proof.broken
        before, now = (p.environment.value("kernel.boot_id") for p in (first, proof))
        if before == now:
            return ""
        return f"another machine answers: kernel.boot_id was {before!r} at first, and is {now!r}"


class Sessions:
    """The open sessions of a run; each serves as many blocks as the plan says.

    A context: leaving it closes whatever is open, the latest first.
    """

    def __init__(
        self,
        blocks_per_session: Mapping[TargetName, int] | None = None,
        highest: Mapping[TargetName, int] | None = None,
    ) -> None:
        """Take how many blocks one session of a target serves (one where nothing is said), and the
        numbers that earlier sessions of this run have had.
        """
        self._blocks_per_session = blocks_per_session or {}
        self._highest = dict(highest or {})
        self._open: dict[TargetName, Opened] = {}
        self._stack = contextlib.ExitStack()

    def get(self, label: TargetName) -> Opened | None:
        """Return the session that is open, or None."""
        return self._open.get(label)

    def open(self, label: TargetName, enter: Callable[[contextlib.ExitStack], Session]) -> Opened:
        """Open a session, or the one anew that is away; `enter` gives the stack what closes it."""
        # Held by the whole from before it is opened: nothing that comes between leaves it open.
        own = self._stack.enter_context(contextlib.ExitStack())
        session = enter(own)
        self._highest[label] = self._highest.get(label, 0) + 1
        number, served = self._highest[label], self._blocks_per_session.get(label, 1)
        again = self._open.get(label)
        if again is not None:  # those who hold it go on with the new one
            again.session, again.number, again.close = session, number, own.close
            again.proof, again.away, again.blocks_left = None, False, max(1, again.blocks_left)
            return again
        opened = self._open[label] = Opened(
            session=session, number=number, blocks_left=served, close=own.close
        )
        return opened

    def spoil(self, label: TargetName) -> None:
        """Let a session serve no further block, where one is open."""
        if label in self._open:
            self._open[label].spoilt = True

    def end_block(self) -> None:
        """Close the sessions that have served their last block, the latest first."""
        for label, opened in reversed([*self._open.items()]):
            opened.blocks_left -= 1
            if opened.spoilt or opened.blocks_left <= 0:
                del self._open[label]
                opened.close()

    def __enter__(self) -> Self:
        """Hold sessions from here on."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close whatever is open."""
        self._open.clear()
        self._stack.__exit__(kind, error, trace)


@dataclass(kw_only=True)
class Bench:
    """All that measuring needs; one for a run."""

    targets: Mapping[TargetName, Target]
    workloads: Mapping[WorkloadName, Workload]
    workshop: Workshop
    host_abi: Abi
    sink: Sink
    run_id: str
    ear: Ear = field(default_factory=Ear)
    environment: dict[str, str] = field(default_factory=dict)
    stages: dict[Abi, Stage] = field(default_factory=dict)
    reference: Environment | None = None
    """What the evidence payload sees natively."""
    answers: dict[tuple[WorkloadName, int], str] = field(default_factory=dict)
    """Native's checksum, by workload and loops."""
    began: float = field(default_factory=time.monotonic)
    seen: dict[tuple[TargetName, WorkloadName], dict[str, Evidence]] = field(default_factory=dict)
    """What payloads saw of their surroundings: the file system they really wrote to."""
    expensive: set[TargetName] = field(default_factory=set)
    """Targets of which a visit starts one instance and no more, since that takes long."""
    proofs: dict[TargetName, Proof] = field(default_factory=dict)
    """What the latest session of each target showed of itself."""
    limits: dict[TargetName, tuple[LimitCheck, ...]] = field(default_factory=dict)
    """The limits that were pushed past, of the targets that set some."""
    block_number: int = 0
    """The block that is being measured."""

    def abi(self, target: Target) -> Abi:
        """Return what payloads for this target are built for."""
        return target.abi or self.host_abi

    def stage(self, target: Target) -> Stage:
        """Return the stage for a target, made at first use."""
        abi = self.abi(target)
        if abi not in self.stages:
            ear = self.ear
            self.stages[abi] = self.workshop.stage(
                abi, self.environment, ear.heard, ear.mark, ear.exclude
            )
        return self.stages[abi]

    def dress(self, visit: Visit) -> None:
        """Set the variables that the next payload will see: clean, known, of random size."""
        self.environment.clear()
        self.environment.update(
            ISOBENCH="1",
            ISOBENCH_RUN_ID=self.run_id,
            ISOBENCH_TARGET=visit.target,
            ISOBENCH_WORKLOAD=visit.workload,
            ISOBENCH_BLOCK=str(visit.block),
            ISOBENCH_PADDING="x" * secrets.randbelow(MOST_PADDING),
        )

    # ---- evidence --------------------------------------------------------------------------------

    def prove(self, label: TargetName, run: Callable[[list[str]], Completed]) -> Proof:
        """Run the evidence payload and hold the target's expectations against what it saw."""
        nonce = secrets.token_hex(8)
        self.ear.ask(nonce)
        done = run([EVIDENCE, nonce, str(self.workshop.canary)])
        return self._proof(label, done, nonce)

    def _proof(self, label: TargetName, done: Completed, nonce: str) -> Proof:
        """Read what an evidence payload has said."""
        target = self.targets[actual(label)]
        reply = self._reply(done, label, nonce=nonce, iterations=0)
        environment = prove.gather(reply.facts)
        if self.reference is None:
            self.reference = environment
        expectations = prove.from_inside(target.expectations, environment)
        checks = prove.hold(expectations, host=self.reference, inside=environment)
        return Proof(environment=environment, checks=checks)

    def prove_session(self, label: TargetName, session: Session) -> Proof:
        """Prove an open session, its host side included."""
        proof = self.prove(label, lambda argv: session.run(argv, timeout=EVIDENCE_TIMEOUT))
        said = session.witness() if isinstance(session, Witness) else ()
        seen = prove.gather((*proof.environment.facts.values(), *said))
        assert self.reference is not None  # `prove` has taken it
        expectations = self.targets[actual(label)].expectations
        return Proof(
            environment=seen, checks=prove.hold(expectations, host=self.reference, inside=seen)
        )

    def facts(
        self,
        label: TargetName,
        session: Session,
        program: str,
        words: Iterable[str],
        *,
        timeout: Nanoseconds,
    ) -> Environment:
        """Run one of isobench's own programs in a session and return the facts that it says.

        IsobenchError: it did not answer, or the session is gone.
        """
        nonce = secrets.token_hex(8)
        self.ear.ask(nonce)
        done = session.run([program, nonce, *words], timeout=timeout)
        try:
            return prove.gather(self._reply(done, label, nonce=nonce, iterations=0).facts)
        except _TimedOutError:
            raise SessionError(f"{program} was not done after {timeout / 1e9:g} s") from None
        except wire.WrongAnswerError as error:
            raise SessionError(str(error)) from None

    def _reply(
        self, done: Completed, label: TargetName, *, nonce: str, iterations: int
    ) -> wire.Reply:
        guard.completed(done)
        self.sink.log(label.replace("#", "-"), done.stderr)
        if done.exit_code is None:
            raise _TimedOutError
        said = wire.printable(done.stderr.decode(errors="replace").strip()[-300:])
        ended = f"exit code {done.exit_code}" + (f"; {said}" if said else "")
        try:
            reply = wire.read(done.stdout, nonce=nonce, iterations=iterations)
        except wire.WireError as error:
            raise _FailedError(f"{error}; {ended}") from None
        if done.exit_code != 0:
            raise _FailedError(f"the payload answered and then failed: {ended}")
        return reply

    # ---- visits ----------------------------------------------------------------------------------

    def visit(self, visit: Visit, work: Work, session: Session | None) -> tuple[Record, ...]:
        """Measure one cell once; whatever goes wrong becomes a Gap with its cause."""
        target, workload = self.targets[actual(visit.target)], self.workloads[visit.workload]
        # What is started but not timed is evidence, at most twice.
        calls = 1 if workload.scope is Scope.LOOP else work.iterations + 2
        try:
            with guard.attending(target, calls * (workload.timeout / SECOND + guard.GRACE)):
                return self._visit(visit, work, None if session is None else guard.direct(session))
        except BaseException as error:  # noqa: BLE001 - whatever a plug-in raises is a gap, not our end
            fault = guard.fault(
                target, error, "run" if workload.scope is not Scope.SESSION else "a start"
            )
            self._keep_log(visit.target, fault)
            return (_gap(visit, Cause.FAILED, str(fault), hint=fault.hint),)

    def _visit(self, visit: Visit, work: Work, session: Session | None) -> tuple[Record, ...]:
        workload = self.workloads[visit.workload]
        self.dress(visit)
        try:
            self._demand_possible(visit, workload)
            match workload.scope:
                case Scope.LOOP | Scope.EXEC if session is None:
                    raise _FailedError("no session")
                case Scope.LOOP:
                    assert session is not None
                    return self._loop(visit, work, workload, session)
                case Scope.EXEC:
                    assert session is not None
                    run = session.run
                    starts = self._starts(
                        visit, work, lambda argv: run(argv, timeout=workload.timeout)
                    )
                    return (*starts, *self._channel_cost(visit, session))
                case Scope.SESSION:
                    return self._instances(visit, work, workload)
        except _TimedOutError:
            return (_gap(visit, Cause.TIMED_OUT, f"not done after {workload.timeout / 1e9:g} s"),)
        except wire.WrongAnswerError as error:
            new = actual(visit.target) == "native"
            hint = "a new payload? then this is the check of its workload.toml" if new else ""
            return (_gap(visit, Cause.WRONG_ANSWER, str(error), hint),)
        except _UnprovenError as error:
            return (_unopened(visit, error),)
        except (_FailedError, SessionError, NotApplicableError) as error:
            self._keep_log(visit.target, error)
            nothing = isinstance(error, NotApplicableError)
            cause = Cause.NOT_APPLICABLE if nothing else Cause.FAILED
            return (_gap(visit, cause, str(error), hint=error.hint),)

    def _demand_possible(self, visit: Visit, workload: Workload) -> None:
        """Raise NotApplicableError where programs of the target's ABI cannot do the work at all."""
        lack = workload.lack(self.abi(self.targets[actual(visit.target)]))
        if lack:
            raise NotApplicableError(lack)

    def _keep_log(self, label: TargetName, error: Exception) -> None:
        """Keep what an instance said of its end."""
        if isinstance(error, SessionError):
            self.sink.log(label.replace("#", "-"), error.log.encode(errors="backslashreplace"))

    def _loop(
        self, visit: Visit, work: Work, workload: Workload, session: Session
    ) -> tuple[Record, ...]:
        nonce = secrets.token_hex(8)
        # A payload has one pass before its iterations; more of them are its first iterations.
        early = work.warmups - 1
        iterations = early + work.iterations
        argv = [workload.program, nonce, str(iterations), str(work.loops), *workload.args]
        self.ear.ask(nonce)
        done = session.run(argv, timeout=workload.timeout)
        asked, first, last = self.ear.asked, self.ear.arrived, self.ear.last
        reply = self._reply(done, visit.target, nonce=nonce, iterations=iterations)
        self._hold_answer(workload, work, reply)
        _demand_times(visit, reply)

        def sample(
            metric: str, iteration: int, value: int, operations: int, clock: Clock
        ) -> Sample:
            return self._sample(
                visit,
                metric=metric,
                iteration=iteration,
                value=value,
                operations=operations,
                clock=clock,
            )

        records: list[Record] = [
            sample("time", i, measured.nanoseconds, measured.operations, Clock.GUEST)
            for i, measured in enumerate(reply.iterations[early:])
        ]
        if reply.warmup is not None:
            passes = [reply.warmup, *(each.nanoseconds for each in reply.iterations[:early])]
            records += [
                sample("warmup", i, value, reply.iterations[0].operations, Clock.GUEST)
                for i, value in enumerate(passes)
            ]
        if first is not None:
            # The same span by both clocks, each on its own, to see whether the inner one can be
            # trusted.
            records.append(sample("span.guest", 0, reply.span, 1, Clock.GUEST))
            records.append(sample("span.host", 0, last - first, 1, Clock.HOST))
            records.append(sample("dispatch", 0, first - asked, 1, Clock.HOST))
        records += [
            sample(f"fact.{fact.key}", 0, fact.value, 1, Clock.GUEST)
            for fact in {fact.key: fact for fact in reply.facts}.values()  # the last word counts
            if isinstance(fact.value, int)
        ]
        self._note_facts(visit, reply.facts)
        return tuple(records)

    def _hold_answer(self, workload: Workload, work: Work, reply: wire.Reply) -> None:
        """Hold a checksum against the known one, and against native's for the same work."""
        if not reply.steady:
            raise wire.WrongAnswerError("the iterations of one visit computed different things")
        known = workload.answer
        if known is not None and known.loops == work.loops and reply.check != known.check:
            raise wire.WrongAnswerError(f"checksum {reply.check}, and {known.check} is right")
        expected = self.answers.setdefault((workload.name, work.loops), reply.check)
        if reply.check != expected:
            raise wire.WrongAnswerError(f"checksum {reply.check}, and native's is {expected}")

    def _note_facts(self, visit: Visit, facts: Sequence[Evidence]) -> None:
        """Keep what a payload saw of its surroundings (the file system it really ran on)."""
        for fact in facts:
            self.seen.setdefault((actual(visit.target), visit.workload), {})[fact.key] = fact

    def _sample(
        self,
        visit: Visit,
        *,
        metric: str,
        iteration: int,
        value: int,
        operations: int,
        clock: Clock,
    ) -> Sample:
        return Sample(
            block=visit.block,
            target=visit.target,
            workload=visit.workload,
            metric=metric,
            iteration=iteration,
            value=value,
            unit=Unit.NANOSECOND,
            operations=operations,
            clock=clock,
            at=round(time.monotonic() - self.began, 4),
        )

    # ---- start-ups -------------------------------------------------------------------------------

    def _starts(
        self, visit: Visit, work: Work, start: Callable[[list[str]], Completed], nonce: str = ""
    ) -> tuple[Record, ...]:
        """Time `work.iterations` starts, from asking to the nonce; each must exit cleanly."""
        records: list[Record] = []
        program = self.workloads[visit.workload].program
        for iteration in range(work.iterations):
            sent = nonce or secrets.token_hex(8)
            self.ear.ask(sent)
            done = start([program, sent])
            gone = time.monotonic_ns()
            guard.completed(done)
            if done.exit_code is None:
                raise _TimedOutError
            self.sink.log(visit.target.replace("#", "-"), done.stderr)
            if self.ear.arrived is None or done.exit_code != 0:
                said = wire.printable(done.stderr.decode(errors="replace").strip()[-300:])
                raise _FailedError(f"no nonce came back; exit code {done.exit_code}; {said}")
            spans = {"time": self.ear.arrived - self.ear.asked, "gone": gone - self.ear.asked}
            _demand_span(spans["time"])
            records += self._started(visit, iteration, spans)
        return tuple(records)

    def _started(self, visit: Visit, iteration: int, spans: Mapping[str, int]) -> Iterator[Sample]:
        """Yield the samples of one start, its phases among them."""
        phases = {f"phase.{name}": at for name, at in self.ear.marks.items()}
        for metric, value in {**spans, **phases}.items():
            yield self._sample(
                visit,
                metric=metric,
                iteration=iteration,
                value=value,
                operations=1,
                clock=Clock.HOST,
            )

    def _channel_cost(self, visit: Visit, session: Session) -> Iterator[Sample]:
        """Time the null command, where a session has one: the way to it and back."""
        if not isinstance(session, Channel):
            return
        asked = time.monotonic_ns()
        done = session.null(timeout=EVIDENCE_TIMEOUT)
        taken = time.monotonic_ns() - asked
        guard.completed(done)
        if done.exit_code == 0:
            yield self._sample(
                visit, metric="channel", iteration=0, value=taken, operations=1, clock=Clock.HOST
            )

    def _instances(self, visit: Visit, work: Work, workload: Workload) -> tuple[Record, ...]:
        target = guard.direct(self.targets[actual(visit.target)])
        stage, timeout = self.stage(target), workload.timeout
        if actual(visit.target) in self.expensive:
            if workload.program == STARTUP and Need.PROCESSES not in self.abi(target).lacks:
                return self._proven_start(visit, workload, target, stage)
            work = replace(work, iterations=1)
        if workload.start is Start.WARM and isinstance(target, Restarter):
            restarter = target

            def restart(argv: list[str]) -> Completed:
                with restarter.stopped(stage, argv) as instance:
                    return instance.start(timeout=EVIDENCE_TIMEOUT)

            self._demand_proof(visit.target, restart)
            nonce = secrets.token_hex(8)
            with target.stopped(stage, [workload.program, nonce]) as instance:
                instance.start(timeout=timeout)  # the first start of a new instance is a cold one
                return self._starts(visit, work, lambda _: instance.start(timeout=timeout), nonce)
        launch = self._launcher(target)
        # Evidence from an instance started the same way; it also leaves caches as the timed ones
        # will find them.
        self._demand_proof(visit.target, lambda argv: launch(stage, argv, EVIDENCE_TIMEOUT))
        nulls = isinstance(target, NullSpawner) and visit.target == target.name
        records: list[Record] = []
        for iteration in range(work.iterations):
            with self._stage_of_a_start(stage, workload, target) as own:
                one = Work(workload=work.workload, loops=1, iterations=1)
                found = self._starts(visit, one, lambda argv: launch(own, argv, timeout))
            records += [_renumbered(record, iteration) for record in found]
        for iteration in range(work.iterations if nulls else 0):
            with self._stage_of_a_start(stage, workload, target) as own:
                records.append(self._null_spawn(visit, iteration, target, own))
        return tuple(records)

    def _stage_of_a_start(
        self, stage: Stage, workload: Workload, target: Target
    ) -> contextlib.AbstractContextManager[Stage]:
        """Return the stage of one start: a cold one has a root that no other has used."""
        if workload.start is Start.WARM:
            return contextlib.nullcontext(stage)
        return self.workshop.fresh(stage, self.abi(target))

    def _null_spawn(self, visit: Visit, iteration: int, target: Target, stage: Stage) -> Sample:
        """Time one start of the smallest program: what native's start-up holds of the kernel's."""
        assert isinstance(target, NullSpawner)
        self.ear.expect(b"")
        done = target.null(stage, timeout=EVIDENCE_TIMEOUT)
        if self.ear.arrived is None or done.exit_code != 0:
            raise _FailedError(f"the smallest program did not answer: exit code {done.exit_code}")
        value = self.ear.arrived - self.ear.asked
        return self._sample(
            visit, metric="spawn", iteration=iteration, value=value, operations=1, clock=Clock.HOST
        )

    def _proven_start(
        self, visit: Visit, workload: Workload, target: Target, stage: Stage
    ) -> tuple[Record, ...]:
        """Time one start of an instance that then proves itself; no proof, no number.

        There is no "gone" among the samples: its end would hold the evidence.
        """
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        argv = [STARTUP, first, EVIDENCE, second, str(self.workshop.canary)]
        timeout = workload.timeout
        with contextlib.ExitStack() as stack:
            if workload.start is Start.WARM and isinstance(target, Restarter):
                instance = stack.enter_context(target.stopped(stage, argv))
                instance.start(timeout=timeout)  # as in `_instances`: a cold one
                self.ear.ask(first)
                done = instance.start(timeout=timeout)
            else:
                launch = self._launcher(target)
                if workload.start is not Start.WARM:
                    stage = stack.enter_context(self.workshop.fresh(stage, self.abi(target)))
                self.ear.ask(first)
                done = launch(stage, argv, timeout)
            asked, arrived = self.ear.asked, self.ear.arrived
        guard.completed(done)
        if done.exit_code is None:
            raise _TimedOutError
        if arrived is None:
            said = wire.printable(done.stderr.decode(errors="replace").strip()[-300:])
            raise _FailedError(f"no nonce came back; exit code {done.exit_code}; {said}")
        _, _, after = done.stdout.partition(wire.hello(first))
        evidence = replace(done, stdout=after.partition(b"\n")[2])
        proof = self._proof(visit.target, evidence, second)
        if proof.broken:
            raise _UnprovenError(proof.broken, hint=proof.way_out)
        _demand_span(arrived - asked)
        return tuple(self._started(visit, 0, {"time": arrived - asked}))

    def _demand_proof(self, label: TargetName, run: Callable[[list[str]], Completed]) -> None:
        """Run the evidence payload in an instance started the same way; no proof, no number."""
        proof = self.prove(label, run)
        if proof.broken:
            raise _UnprovenError(proof.broken, hint=proof.way_out)

    def _launcher(self, target: Target) -> Callable[[Stage, list[str], Nanoseconds], Completed]:
        if isinstance(target, Launcher):
            return lambda stage, argv, timeout: target.launch(stage, argv, timeout=timeout)

        def open_and_run(stage: Stage, argv: list[str], timeout: Nanoseconds) -> Completed:
            with target.open(stage) as session:
                return session.run(argv, timeout=timeout)

        return open_and_run

    # ---- blocks ----------------------------------------------------------------------------------

    @contextlib.contextmanager
    def sessions(
        self, block: Block, faults: "Faults", held: Sessions | None = None
    ) -> Iterator[tuple[dict[TargetName, Opened], dict[TargetName, Gap]]]:
        """Open a session per target, or take the one `held` from the block before; prove each.

        Yields the good ones, and a gap for each bad one. At the end those are closed that serve no
        further block; without `held` all are.
        """
        self.block_number = block.number
        good: dict[TargetName, Opened] = {}
        bad: dict[TargetName, Gap] = {}
        with contextlib.ExitStack() as stack:
            held = stack.enter_context(Sessions()) if held is None else held
            for label in block.sessions:
                opening = Visit(block=block.number, target=label, workload=WorkloadName(""))
                self.dress(opening)
                try:
                    good[label] = self._ready(label, faults, held)
                    faults.clear(label)
                except Exception as error:  # noqa: BLE001 - as in `visit`
                    self._keep_log(label, error)
                    bad[label] = _unopened(opening, error)
                    if bad[label].cause is Cause.FAILED:
                        faults.count(label, bad[label].detail)
                    held.spoil(label)
            yield good, bad
            held.end_block()

    def _ready(self, label: TargetName, faults: "Faults", held: Sessions) -> Opened:
        """Return a session that has just proved itself; _UnprovenError where it could not."""
        opened = held.get(label)
        if opened is None and faults.given_up(label):
            raise SessionError(faults.why[label])
        if opened is None or opened.away:
            opened = self._open(label, held)
        return self._proven(label, opened)

    def _open(self, label: TargetName, held: Sessions) -> Opened:
        target = self.targets[actual(label)]
        opened = held.open(label, lambda stack: self._enter(stack, label, target))
        opened.again = lambda: self._open(label, held)
        return opened

    def _proven(self, label: TargetName, opened: Opened) -> Opened:
        began = time.monotonic()
        proof = self.proofs[actual(label)] = self.prove_session(label, opened.session)
        opened.proving = time.monotonic() - began
        why = opened.distrust(proof)
        if why:
            raise _UnprovenError(why, hint=proof.way_out)
        return opened

    def _enter(self, stack: contextlib.ExitStack, label: TargetName, target: Target) -> Session:
        """Open a session that the stack will close; a close that fails is a gap of its own: what
        was measured counts, and something may be left behind.
        """
        context = target.open(self.stage(target))
        session = context.__enter__()

        def leave(
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            try:
                context.__exit__(kind, error, trace)
            except Exception as fault:  # noqa: BLE001 - as in `visit`
                self._keep_log(label, fault)
                closing = Visit(block=self.block_number, target=label, workload=SESSION)
                gap = _unopened(closing, fault)
                self.sink.write(replace(gap, detail=f"it could not be closed: {gap.detail}"))

        stack.push(leave)
        return session

    def block(
        self,
        block: Block,
        work: Mapping[WorkloadName, Work],
        faults: "Faults",
        tick: Callable[[Visit], None],
        held: Sessions | None = None,
    ) -> None:
        """Measure one block; every planned cell yields at least one record.

        Sessions `held` from the block before are used again where they may be.
        """
        with undisturbed(), self.sessions(block, faults, held) as (good, bad):
            for visit in block.visits:
                tick(visit)
                if visit.target in bad:
                    records: Sequence[Record] = (gap_of(visit, bad[visit.target]),)
                else:
                    records = self.visit_told(good.get(visit.target), visit, work[visit.workload])
                for record in records:
                    self.sink.write(record)
                self.sink.sync()

    def visit_told(self, opened: Opened | None, visit: Visit, work: Work) -> Sequence[Record]:
        """Measure one cell once as `visit_in` does, and say in its records in which session."""
        return self._told(visit, opened, self.visit_in(opened, visit, work))

    def visit_in(self, opened: Opened | None, visit: Visit, work: Work) -> Sequence[Record]:
        """Measure one cell once, in an open session where it needs one.

        The session of an exclusive target is closed while instances of it are started, and opened
        and proved anew for what comes then.
        """
        target = self.targets[actual(visit.target)]
        if opened is not None and isinstance(target, Exclusive) and target.exclusive:
            if self.workloads[visit.workload].scope is Scope.SESSION:
                opened.part()
            elif (fault := self._rejoin(opened, visit)) is not None:
                return (gap_of(visit, fault),)
        return self.visit(visit, work, None if opened is None else opened.session)

    def _rejoin(self, opened: Opened, visit: Visit) -> Gap | None:
        """Open and prove a session again that is away; return why that cannot be done."""
        if opened.away and opened.fault is None:
            try:
                self._proven(visit.target, opened.again())
            except Exception as error:  # noqa: BLE001 - as in `visit`
                self._keep_log(visit.target, error)
                opened.spoilt, opened.fault = True, _unopened(visit, error)
        return opened.fault

    def _told(
        self, visit: Visit, opened: Opened | None, records: Sequence[Record]
    ) -> Sequence[Record]:
        """Say in the records of a cell in which session they were measured."""
        if opened is None or self.workloads[visit.workload].scope is Scope.SESSION:
            return records  # measured in instances of their own
        # A session in which anything went wrong may be half dead: the next block has a new one.
        opened.spoilt |= any(isinstance(record, Gap) for record in records)
        return [
            record if isinstance(record, Gap) else replace(record, session=opened.number)
            for record in records
        ]


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Keep Python from looking for garbage while a block is measured."""
    gc.collect()
    # Looked at once: else every block pays for all modules, a tenth of a second with pandas.
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Faults:
    """Counts failed openings in a row: a broken target must not cost the whole budget."""

    def __init__(self) -> None:
        self._counts: dict[TargetName, int] = {}
        self.why: dict[TargetName, str] = {}

    def count(self, label: TargetName, why: str) -> None:
        """Note a failed opening."""
        self._counts[label] = self._counts.get(label, 0) + 1
        self.why[label] = why

    def clear(self, label: TargetName) -> None:
        """Note a good one."""
        self._counts[label] = 0

    def given_up(self, label: TargetName) -> bool:
        """Say whether to leave it alone."""
        return self._counts.get(label, 0) >= MOST_FAILURES


def _demand_times(visit: Visit, reply: wire.Reply) -> None:
    """Raise where an iteration took no time at all: it can be no part of a ratio.

    In the trial it may: a coarse clock may not see the little work there.
    """
    nothing = sum(each.nanoseconds == 0 for each in reply.iterations)
    if nothing and visit.block > 0:
        raise _FailedError(
            f"{nothing} of {len(reply.iterations)} iterations took 0 ns by the clock inside, which"
            " is too coarse for them",
            hint="--min-time 100ms makes iterations longer",
        )


def _demand_span(nanoseconds: int) -> None:
    """Raise where a start took no time at all: its clock was begun when it was over."""
    if nanoseconds <= 0:
        raise _FailedError(f"the start took {nanoseconds} ns by its own marks", hint=_PLUGIN_HINT)


def _fault(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


class _TimedOutError(Exception):
    """A command was stopped at its time limit."""


class _FailedError(IsobenchError):
    """A command ran and gave no reply."""


class _UnprovenError(IsobenchError):
    """An expectation was not met."""


def _gap(visit: Visit, cause: Cause, detail: str, hint: str = "") -> Gap:
    return Gap(
        block=visit.block,
        target=visit.target,
        workload=visit.workload,
        cause=cause,
        detail=wire.printable(detail, 600),
        hint=wire.printable(str(hint), 600),
    )


def _unopened(visit: Visit, error: Exception) -> Gap:
    """Return the gap of a session that could not be opened, or could not be proved."""
    match error:
        case _UnprovenError():
            seen = f"state/{actual(visit.target)}-pre.json in the folder of the run: what was seen"
            return _gap(visit, Cause.UNPROVEN, str(error), hint=error.hint or seen)
        case _TimedOutError():
            return _gap(visit, Cause.TIMED_OUT, "the evidence payload did not end")
        case IsobenchError():
            return _gap(visit, Cause.FAILED, str(error), hint=error.hint)
        case wire.WrongAnswerError():
            return _gap(visit, Cause.FAILED, str(error))
        case _:
            return _gap(visit, Cause.FAILED, _fault(error), hint=_PLUGIN_HINT)


def gap_of(visit: Visit, gap: Gap) -> Gap:
    """Return the gap of a session as that of a cell which it leaves without a value."""
    return _gap(visit, gap.cause, gap.detail, gap.hint)


def _renumbered(record: Record, iteration: int) -> Record:
    return record if isinstance(record, Gap) else replace(record, iteration=iteration)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """When to stop."""

    budget_end: float
    """time.monotonic at which no further block may begin to overrun."""
    minimum_blocks: int
    """So many are measured even when they overrun the budget."""
    maximum_blocks: int
    look: Callable[[int], bool]
    """Called whenever `plan.is_look`: precise enough?"""


OneBlock = Callable[
    [Block, Mapping[WorkloadName, Work], Faults, Callable[[Visit], None], Sessions | None], None
]
"""As `Bench.block`."""


def measure(
    bench: Bench,
    plan: Plan,
    limits: Limits,
    *,
    tick: Callable[[Visit, int], None],
    begun: int = 0,
    repeated: int = 0,
    sessions: Mapping[TargetName, int] | None = None,
    one_block: OneBlock | None = None,
) -> tuple[int, str]:
    """Measure blocks until all are done, the budget is spent, or all is precise enough.

    A resumed run goes on after the `begun` blocks it had, `repeated` of them invalid; the last of
    them may be incomplete, and what it has still counts; `sessions` has the highest session number
    of each target so far. `one_block` measures a block in place of the bench. Returns how many
    valid blocks there are, and why it stopped: "blocks", "budget" or "precision".
    """
    try:
        with Sessions(plan.blocks_per_session, sessions) as held:
            return _measure(
                bench, plan, limits, held, one_block or bench.block,
                tick=tick, begun=begun, repeated=repeated,
            )  # fmt: skip
    finally:
        gc.unfreeze()


def _measure(
    bench: Bench,
    plan: Plan,
    limits: Limits,
    held: Sessions,
    one_block: OneBlock,
    *,
    tick: Callable[[Visit, int], None],
    begun: int,
    repeated: int,
) -> tuple[int, str]:
    work = {item.workload: item for item in plan.work}
    faults, meter = Faults(), host.Meter()
    valid, longest = begun - repeated, 0.0
    for block in plan.blocks[begun:]:
        if valid >= limits.maximum_blocks:
            break
        began = time.monotonic()
        if valid >= limits.minimum_blocks and began + longest > limits.budget_end:
            return valid, "budget"
        one_block(block, work, faults, lambda visit: tick(visit, valid), held)  # noqa: B023
        longest = max(longest * 0.9, time.monotonic() - began)
        health = meter.lap(block.number)
        spared = repeated >= REPEATED_SHARE * (valid + 1) or time.monotonic() > limits.budget_end
        is_valid = not health.broken_rules or spared
        repeated += not is_valid
        valid += is_valid
        bench.sink.health(health, valid=is_valid)
        if is_valid and is_look(valid) and limits.look(valid):
            return valid, "precision"
    return valid, "blocks"
