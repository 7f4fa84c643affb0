"""Runs a plan: measures every visit and writes its records at once. Analysis is done elsewhere."""

import contextlib
import gc
import itertools
import secrets
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Final

from isobench.evidence import cpu_share, host
from isobench.model import (
    SESSION,
    Abi,
    Block,
    Cause,
    Clock,
    Environment,
    Evidence,
    Gap,
    Leaving,
    LimitCheck,
    Plan,
    Record,
    Sample,
    Scope,
    Stage,
    Unavailable,
    Visit,
    Work,
    Workload,
)
from isobench.model.bounds import MOST_FACT_TEXT, MOST_FACTS_SEEN
from isobench.model.cleaning import is_name
from isobench.model.errors import NotApplicableError, PayloadError, SessionError
from isobench.model.plan import actual, without_left
from isobench.model.units import SECOND, TargetName, Unit, WorkloadName
from isobench.payload import wire
from isobench.payload.stage import Workshop
from isobench.plugins import guard
from isobench.plugins.api import Exclusive, Lacks, Session, Target
from isobench.run.context import Context, StartTimer
from isobench.run.own_cpu import OwnCpu
from isobench.run.proving import (
    FailedError,
    Prover,
    Sink,
    TimedOutError,
    UnprovenError,
    demand_same,
    gap,
    gap_of,
    gap_of_opening,
)
from isobench.run.sessions import OpeningFailures, OpenSession, Sessions
from isobench.run.startup import OneByOne, Starts
from isobench.stats import sequential

# On a machine that is always noisy, repeating more would only spend the budget.
REPEATED_SHARE: Final = 0.2
"""The share of blocks that may be measured again because of a broken rule."""
_STEADY: Final = frozenset({"io.filesystem", "syscall.call", "cpu.threads"})
"""Facts of payloads on which doubts rest. A target with which one changes is not one target."""
_STEADY_IN_SESSIONS: Final = (
    *("machine", "kernel.name", "kernel.release", "kernel.version", "cpu.hypervisor"),
    *("security.seccomp", "security.no_new_privs", "security.cap_effective", "cpu.usable"),
    *("host.disk_cache", "host.cpu_model", cpu_share.WEIGHTS),
)
"""The same of the evidence of sessions: which system it is, and what decides how fast system calls
and CPUs are. A machine that isobench does not start has one boot_id as well.
"""


@dataclass(kw_only=True)
class Runner:
    """The state of measuring in one run."""

    targets: Mapping[TargetName, Target]
    workloads: Mapping[WorkloadName, Workload]
    workshop: Workshop
    host_abi: Abi
    sink: Sink
    run_id: str
    stages: dict[Abi, Stage] = field(default_factory=dict)
    answers: dict[tuple[WorkloadName, int], str] = field(default_factory=dict)
    """The checksums computed first, by workload and loops: native's, which is tried first."""
    began: float = field(default_factory=time.monotonic)
    seen: dict[tuple[TargetName, WorkloadName], dict[str, Evidence]] = field(default_factory=dict)
    """The facts that payloads reported, such as the file system of their files: the latest of each
    key, and None where one was not visible once. Further keys are not kept once a target has many
    (`model.bounds`): with them its state could not be read any more.
    """
    first_seen: dict[tuple[TargetName, str], Environment] = field(default_factory=dict)
    """The evidence of the first session of each target, by target and CPUs."""
    evidence_before: Mapping[TargetName, Mapping[str, Evidence]] = field(default_factory=dict)
    """The evidence of the part of the run that is resumed, by target and key."""
    expensive: set[TargetName] = field(default_factory=set)
    """Targets that are slow to start: a visit starts only one instance of them."""
    limits: dict[TargetName, tuple[LimitCheck, ...]] = field(default_factory=dict)
    """The results of the limit tests, by target."""
    unavailable: Mapping[TargetName, Unavailable] = field(default_factory=dict)
    """Targets of a resumed plan that cannot run any more."""
    unbuilt: Mapping[tuple[WorkloadName, Abi], PayloadError] = field(default_factory=dict)
    """The payloads of plug-ins' workloads that could not be built. Their cells become gaps."""
    block_number: int = 0
    """The number of the block that is being measured."""
    own_cpu: OwnCpu = field(default_factory=OwnCpu)
    argv: tuple[str, ...] = ()
    """The command line of the run, from which commands for the user are derived."""

    def __post_init__(self) -> None:
        """Make the prover and the timer of starts."""
        self.prover = Prover(targets=self.targets, canary=str(self.workshop.canary), sink=self.sink)
        self.starts = Starts(
            prover=self.prover,
            workshop=self.workshop,
            stage=self.stage,
            abi=self.abi,
            sample=self.sample,
            expensive=self.expensive,
        )

    def abi(self, target: Target) -> Abi:
        """Return the ABI of the payloads for this target."""
        return target.abi or self.host_abi

    def stage(self, target: Target) -> Stage:
        """Return the stage for a target. It is made at first use, one for each ABI."""
        abi = self.abi(target)
        # Targets of one ABI share a stage, so that an image or a copy of it is made once.
        if abi not in self.stages:
            self.stages[abi] = self.workshop.stage(abi)
        return self.stages[abi]

    def context(self, visit: Visit, *, timer: StartTimer | None = None, cpus: str = "") -> Context:
        """Return the context of a visit."""
        return Context.of(visit, self.run_id, timer=timer, cpus=cpus)

    def sample(
        self,
        visit: Visit,
        metric: str,
        value: int,
        *,
        clock: Clock,
        iteration: int = 0,
        operations: int = 1,
        unit: Unit = Unit.NANOSECOND,
    ) -> Sample:
        """Return a sample of a visit. Its time is now."""
        return Sample(
            block=visit.block,
            target=visit.target,
            workload=visit.workload,
            metric=metric,
            iteration=iteration,
            value=value,
            unit=unit,
            operations=operations,
            clock=clock,
            at=round(time.monotonic() - self.began, 4),
        )

    # ---- visits ----------------------------------------------------------------------------------

    def visit(
        self, visit: Visit, work: Work, session: Session | None, context: Context | None = None
    ) -> tuple[Record, ...]:
        """Measure one cell once. Any failure becomes a Gap with its cause."""
        workload = self.workloads[visit.workload]
        context = context or self.context(visit)
        # In addition to the timed starts there are at most two for the evidence.
        calls = 1 if workload.scope is Scope.LOOP else work.iterations + 2

        def measured() -> tuple[Record, ...]:
            own = None if session is None else guard.unwrapped(session)
            return self._visit(context, work, own)

        return self.attempt(visit, measured, calls=calls)

    def attempt(
        self, visit: Visit, measured: Callable[[], tuple[Record, ...]], *, calls: int = 1
    ) -> tuple[Record, ...]:
        """Return the records that a function measures for a visit. Any failure becomes a Gap.

        It may call the target so many times, each with the time limit of the workload.
        """
        # The plug-in's own objects are called, without their guard: no code stands between a
        # request and its answer. Results are checked when the clock has stopped.
        target, workload = self.targets[actual(visit.target)], self.workloads[visit.workload]
        try:
            with guard.guard_visit(target, calls * (workload.timeout / SECOND + guard.GRACE)):
                return self._attempt(visit, workload, measured)
        except BaseException as error:  # noqa: BLE001 - whatever a plug-in raises becomes a gap
            fault = guard.fault(
                target, error, "run" if workload.scope is not Scope.SESSION else "a start"
            )
            self.prover.keep_log(visit.target, fault)
            return (gap(visit, Cause.FAILED, str(fault), hint=fault.hint),)

    def _visit(self, context: Context, work: Work, session: Session | None) -> tuple[Record, ...]:
        workload = self.workloads[context.visit.workload]
        self.demand_possible(context.visit, workload)
        match workload.scope:
            case Scope.LOOP | Scope.EXEC if session is None:
                raise FailedError("no session")
            case Scope.LOOP:
                assert session is not None
                return self._loop(context, work, workload, session)
            case Scope.EXEC | Scope.SESSION:
                one_by_one = self.one_by_one(context, work, session)
                return tuple(itertools.chain.from_iterable(one_by_one))

    def one_by_one(self, context: Context, work: Work, session: Session | None) -> OneByOne:
        """Return the starts of a visit, which are made while it is iterated over."""
        workload = self.workloads[context.visit.workload]
        if workload.scope is Scope.SESSION:
            return self.starts.of_instances(context, work, workload)
        assert session is not None
        return self.starts.in_session(context, work, workload, session)

    def _attempt(
        self, visit: Visit, workload: Workload, measured: Callable[[], tuple[Record, ...]]
    ) -> tuple[Record, ...]:
        try:
            return measured()
        except TimedOutError:
            return (gap(visit, Cause.TIMED_OUT, f"not done after {workload.timeout / 1e9:g} s"),)
        except wire.WrongAnswerError as error:
            new = actual(visit.target) == "native"
            hint = "for a new payload, copy this checksum to its workload.toml" if new else ""
            return (gap(visit, Cause.WRONG_ANSWER, str(error), hint),)
        except UnprovenError as error:
            return (gap_of_opening(visit, error),)
        except (FailedError, SessionError, NotApplicableError) as error:
            self.prover.keep_log(visit.target, error)
            nothing = isinstance(error, NotApplicableError)
            cause = Cause.NOT_APPLICABLE if nothing else Cause.FAILED
            return (gap(visit, cause, str(error), hint=error.hint),)

    def demand_possible(self, visit: Visit, workload: Workload) -> None:
        """Raise NotApplicableError where the target's ABI, the target or this host does not meet
        the needs of the workload; FailedError where its payload could not be built.
        """
        target = self.targets[actual(visit.target)]
        abi = self.abi(target)
        offered = target.lacks if isinstance(target, Lacks) else {}
        lack = workload.lack(abi.lacks, offered, host.lacks())
        if lack:
            raise NotApplicableError(lack)
        if (error := self.unbuilt.get((workload.name, abi))) is not None:
            blame = f"bug of a workload in {workload.plugin}: report it to its author"
            raise FailedError(str(error), hint=f"{error.hint}; {blame}")

    def _loop(
        self, context: Context, work: Work, workload: Workload, session: Session
    ) -> tuple[Record, ...]:
        """Run a payload that times its own iterations."""
        # The nonce is random, so that no output of another program or of an earlier run can count.
        nonce, timer = secrets.token_hex(8), context.timer
        # A payload makes one warm-up pass itself. More of them are its first iterations.
        numbers = [*range(-1, -work.warmups, -1), *range(work.iterations)]
        iterations = len(numbers)
        command = context.command(
            workload.program, nonce, str(iterations), str(work.loops), *workload.args
        )
        timer.expect_hello(nonce)
        done = session.run(command, timeout=workload.timeout)
        reply = self.prover.reply(done, context.visit.target, nonce=nonce, iterations=iterations)
        self.check_answer(workload, work, reply)
        passes = zip(reply.iterations, numbers, strict=True)
        return (
            *self.rest_of(context, reply),
            *(self.pass_of(context.visit, *each) for each in passes),
        )

    def rest_of(self, context: Context, reply: wire.Reply) -> Iterator[Sample]:
        """Yield what a payload shows beside its iterations: its first pass, spans, facts.

        FailedError: an iteration took no time by its clock, or the host did not see its first line,
        so that nothing holds its times against the host's clock.
        """
        visit, timer = context.visit, context.timer
        if timer.taken is None or timer.arrived_at is None:
            raise FailedError(
                "isobench did not see the first line of its output arrive, as the protocol spells"
                " it: nothing shows how long it ran by the host's clock",
                hint="let the session pass all output to command.on_output as it arrives, and the"
                " payload print its first line first",
            )
        _demand_times(visit, reply)
        self._note_facts(context, reply.facts)
        if reply.warmup is not None and reply.iterations:
            yield self.sample(
                visit, "warmup", reply.warmup, operations=reply.iterations[0].operations,
                clock=Clock.GUEST,
            )  # fmt: skip
        host = timer.last_output_at - timer.arrived_at
        yield from self._spans(visit, reply, dispatch=timer.taken, host=host)
        yield from self._counted(visit, reply)

    def pass_of(self, visit: Visit, measured: wire.Iteration, number: int) -> Sample:
        """Return the sample of an iteration. One with a number below 0 is a warm-up pass."""
        return self.sample(
            visit,
            "time" if number >= 0 else "warmup",
            measured.nanoseconds,
            iteration=abs(number),
            operations=measured.operations,
            clock=Clock.GUEST,
        )

    def _spans(
        self, visit: Visit, reply: wire.Reply, *, dispatch: int, host: int
    ) -> Iterator[Sample]:
        """Yield the span from the first line to the last by both clocks, and the time from the
        request to the first line (`dispatch`).
        """
        # Each clock has its own sample, and no difference is taken here: the analysis compares them
        # to find a wrong clock (evidence.clock).
        yield self.sample(visit, "span.guest", reply.span, clock=Clock.GUEST)
        yield self.sample(visit, "span.host", host, clock=Clock.HOST)
        yield self.sample(visit, "dispatch", dispatch, clock=Clock.HOST)

    def _counted(self, visit: Visit, reply: wire.Reply) -> Iterator[Sample]:
        """Yield the facts that are numbers as samples. The last one of each key counts. Facts of
        metrics have the unit of the metric, others are counts. A key that is no name is left out,
        and so is one that is not kept (`seen`).
        """
        metrics = self.workloads[visit.workload].metrics.values()
        units = {metric.fact: metric.unit for metric in metrics}
        kept = self.seen.get((actual(visit.target), visit.workload), {})
        for fact in {fact.key: fact for fact in reply.facts}.values():
            if fact.key not in kept and fact.key not in units:
                continue
            # bool is a subclass of int in Python, but true is not a number in records.jsonl.
            if isinstance(fact.value, bool) or not isinstance(fact.value, int):
                continue
            if is_name(f"fact.{fact.key}"):
                unit = units.get(fact.key, Unit.COUNT)
                yield self.sample(
                    visit, f"fact.{fact.key}", fact.value, clock=Clock.GUEST, unit=unit
                )

    def check_answer(self, workload: Workload, work: Work, reply: wire.Reply) -> None:
        """Compare a checksum with the known one, and with native's for the same work."""
        if not reply.steady:
            raise wire.WrongAnswerError("the iterations of one visit have different checksums")
        # Times are divided by the operations: a target could make itself faster by their number.
        for made in reply.iterations:
            loops = work.loops if made.loops is None else made.loops
            if made.operations != loops and not workload.counts_operations:
                raise wire.WrongAnswerError(
                    f"the payload reports {made.operations} operations for {loops} loops"
                )
        # A compiler that removes the work, or a translator that computes it wrongly, is fast: so no
        # time counts without the right checksum.
        known = workload.answer
        if known is not None and known.loops == work.loops and reply.check != known.check:
            raise wire.WrongAnswerError(f"the checksum is {reply.check} instead of {known.check}")
        self.check_same(workload, work.loops, reply.check)

    def check_same(self, workload: Workload, loops: int, check: str) -> None:
        """Raise WrongAnswerError where as many loops gave another checksum before."""
        expected = self.answers.setdefault((workload.name, loops), check)
        if check != expected:
            raise wire.WrongAnswerError(f"the checksum is {check} instead of native's {expected}")

    def _note_facts(self, context: Context, facts: Sequence[Evidence]) -> None:
        """Store the facts that a payload reported, as far as there is room. UnprovenError: one on
        which doubts rest differs from that of an earlier visit.
        """
        if not facts:
            return
        visit, target = context.visit, actual(context.visit.target)
        others = (own.values() for (name, _), own in self.seen.items() if name == target)
        room = MOST_FACT_TEXT - sum(map(_size, itertools.chain.from_iterable(others)))
        kept = self.seen.get((target, visit.workload), {})
        # A program of a duet has other CPUs in each block.
        steady = _STEADY - {"cpu.threads"} if context.cpus else _STEADY
        for fact in facts:
            before = kept.get(fact.key)
            if before is not None and fact.key in steady:
                demand_same(fact.key, before.value, fact.value)
            # What was not visible once is not known of the cell.
            if before is not None and before.value is None:
                continue
            more = _size(fact) - (0 if before is None else _size(before))
            if more <= room and (before is not None or len(kept) < MOST_FACTS_SEEN):
                kept[fact.key] = fact
                room -= more
        if kept:
            self.seen[target, visit.workload] = kept

    # ---- sessions --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def sessions(
        self,
        block: Block,
        failures: OpeningFailures,
        kept: Sessions | None = None,
        *,
        cpus: str = "",
    ) -> Iterator[tuple[dict[TargetName, OpenSession], dict[TargetName, Gap]]]:
        """Open a session for each target, or use the one `kept` from the block before; prove each.

        Yields the proven sessions, and a gap for each of the others. At the end the sessions are
        closed that serve no further block; without `kept`, all.
        """
        self.block_number = block.number
        good: dict[TargetName, OpenSession] = {}
        bad: dict[TargetName, Gap] = {}
        with contextlib.ExitStack() as stack:
            kept = stack.enter_context(Sessions()) if kept is None else kept
            # All sessions of a block are open at the same time, so that the targets of a workload
            # can be visited one right after the other.
            for label in block.sessions:
                opening = Visit(block=block.number, target=label, workload=WorkloadName(""))
                if lacking := self.unavailable.get(actual(label)):
                    reason = f"it cannot run here any more: {lacking.reason}"
                    bad[label] = gap(opening, Cause.UNAVAILABLE, reason, lacking.hint)
                    continue
                context = self.context(opening, cpus=cpus)
                try:
                    good[label] = self._ready(context, failures, kept)
                    failures.clear(label)
                except Exception as error:  # noqa: BLE001 - as in `visit`
                    self.prover.keep_log(label, error)
                    bad[label] = gap_of_opening(opening, error)
                    if bad[label].cause is Cause.FAILED:
                        failures.count(label, bad[label].detail)
                    kept.discard(label)
            yield good, bad
            kept.end_block()

    def _ready(self, context: Context, failures: OpeningFailures, kept: Sessions) -> OpenSession:
        """Return a session that was just proved. UnprovenError: it does not meet expectations."""
        label = context.visit.target
        opened = kept.get(label)
        if opened is None and failures.given_up(label):
            raise SessionError(failures.why[label])
        if opened is None or opened.is_suspended:
            opened = self._open(context, kept)
        return self._proven(context, opened)

    def _open(self, context: Context, kept: Sessions) -> OpenSession:
        label = context.visit.target
        target = self.targets[actual(label)]
        opened = kept.open(label, lambda stack: self._enter(stack, context, target))
        opened.reopen = lambda: self._open(context, kept)
        return opened

    def _proven(self, context: Context, opened: OpenSession) -> OpenSession:
        began = time.monotonic()
        target = self.targets[actual(context.visit.target)]
        with guard.within(target, "its evidence", guard.PROOF_LIMIT):
            proof = self.prover.prove_session(context, opened.session)
        opened.proving = time.monotonic() - began
        name = actual(context.visit.target)
        try:
            opened.verify(proof)
            self._check_steady(context, target, proof.environment)
        except UnprovenError:
            # The state of a target shows which expectations are not met. The facts of another
            # machine do not stand in place of those that its numbers come from.
            if proof.unmet:
                self.prover.proofs[name] = proof
            raise
        self.prover.proofs[name] = proof
        return opened

    def _check_steady(self, context: Context, target: Target, now: Environment) -> None:
        """Compare a session with the first one. UnprovenError: it is not of the same target."""
        # The state of a target has one value of each fact: all blocks must have had that.
        key = (actual(context.visit.target), context.cpus)
        earlier = {} if context.cpus else self.evidence_before.get(key[0], {})
        first = self.first_seen.setdefault(key, Environment(facts={**now.facts, **earlier}))
        is_elsewhere = isinstance(target, Exclusive) and not target.exclusive
        for name in (*_STEADY_IN_SESSIONS, *(("kernel.boot_id",) if is_elsewhere else ())):
            demand_same(name, first.value(name), now.value(name))

    def open(self, context: Context, target: Target) -> contextlib.AbstractContextManager[Session]:
        """Return the context of a new session of a target, which `context` listens to."""
        return target.open(context.of_stage(self.stage(target)))

    def _enter(self, stack: contextlib.ExitStack, context: Context, target: Target) -> Session:
        """Open a session that the stack closes. A failure of closing becomes a gap of its own."""
        label = context.visit.target
        manager = self.open(context, target)
        with guard.within(target, "open", guard.OPEN_LIMIT):
            session = manager.__enter__()

        def leave(
            kind: type[BaseException] | None,
            error: BaseException | None,
            trace: TracebackType | None,
        ) -> None:
            # What was measured still counts, but something may be left on the host.
            try:
                with guard.within(target, "the end of open", guard.CLOSE_LIMIT):
                    manager.__exit__(kind, error, trace)
            except Exception as fault:  # noqa: BLE001 - as in `visit`
                self.prover.keep_log(label, fault)
                closing = Visit(block=self.block_number, target=label, workload=SESSION)
                found = gap_of_opening(closing, fault)
                self.sink.write(replace(found, detail=f"it could not be closed: {found.detail}"))

        stack.push(leave)
        return session

    # ---- blocks ----------------------------------------------------------------------------------

    def block(
        self,
        block: Block,
        work: Mapping[WorkloadName, Work],
        failures: OpeningFailures,
        tick: Callable[[Visit], None],
        kept: Sessions | None = None,
    ) -> None:
        """Measure one block. Every planned cell yields at least one record.

        Sessions `kept` from the block before are used again if they may serve this one too.
        """
        with undisturbed(), self.sessions(block, failures, kept) as (good, bad):
            for visit in block.visits:
                tick(visit)
                self.write(self.visit_of(visit, work[visit.workload], good, bad))

    def visit_of(
        self,
        visit: Visit,
        work: Work,
        good: Mapping[TargetName, OpenSession],
        bad: Mapping[TargetName, Gap],
    ) -> Sequence[Record]:
        """Measure one cell of a block once, or return the gap of its session."""
        if visit.target in bad:
            return (gap_of(visit, bad[visit.target]),)
        return self.visit_in_session(good.get(visit.target), visit, work)

    def write(self, records: Sequence[Record]) -> None:
        """Write the records of a visit to the disk: a crash of the machine loses one at most."""
        for record in records:
            self.sink.write(record)
        self.sink.sync()

    def visit_in_session(
        self,
        opened: OpenSession | None,
        visit: Visit,
        work: Work,
        context: Context | None = None,
    ) -> Sequence[Record]:
        """Measure one cell once like `visit_in`, with the number of the session in its samples."""
        records = self.visit_in(opened, visit, work, context)
        if opened is None or self.workloads[visit.workload].scope is Scope.SESSION:
            return records  # each start had its own instance
        return self.of_session(opened, records)

    def of_session(self, opened: OpenSession, records: Sequence[Record]) -> Sequence[Record]:
        """Return the records with the number of their session."""
        # A session with a failure may be damaged, so that the next block gets a new one.
        opened.is_discarded |= any(isinstance(record, Gap) for record in records)
        return [
            replace(record, session=opened.number) if isinstance(record, Sample) else record
            for record in records
        ]

    def visit_in(
        self,
        opened: OpenSession | None,
        visit: Visit,
        work: Work,
        context: Context | None = None,
    ) -> Sequence[Record]:
        """Measure one cell once, in an open session where it needs one."""
        if (fault := self.make_ready(opened, visit)) is not None:
            return (fault,)
        return self.visit(visit, work, None if opened is None else opened.session, context)

    def make_ready(self, opened: OpenSession | None, visit: Visit) -> Gap | None:
        """Prepare the session of an exclusive target for a visit. Return the gap if that fails.

        It is closed before an instance is started, and opened and proved again before its next use.
        """
        target = self.targets[actual(visit.target)]
        # There can be only one instance of such a target, and a session is one.
        if opened is None or not (isinstance(target, Exclusive) and target.exclusive):
            return None
        if self.workloads[visit.workload].scope is Scope.SESSION:
            opened.suspend()
            return None
        fault = self._reopened(opened, visit)
        return None if fault is None else gap_of(visit, fault)

    def _reopened(self, opened: OpenSession, visit: Visit) -> Gap | None:
        """Open and prove a session again if it is suspended. Return the gap if that fails."""
        if opened.is_suspended and opened.fault is None:
            try:
                self._proven(self.context(visit), opened.reopen())
            except Exception as error:  # noqa: BLE001 - as in `visit`
                self.prover.keep_log(visit.target, error)
                opened.is_discarded, opened.fault = True, gap_of_opening(visit, error)
        return opened.fault


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Turn off Python's garbage collection while a block is measured."""
    gc.collect()
    # `freeze` exempts what is loaded already from later collections. Without it every block
    # collects over all modules, which takes a tenth of a second with pandas:
    # https://docs.python.org/3/library/gc.html#gc.freeze
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _size(fact: Evidence) -> int:
    return len(fact.key) + len(str(fact.value))


def _demand_times(visit: Visit, reply: wire.Reply) -> None:
    """Raise FailedError where an iteration took 0 ns, which no ratio can use."""
    # In the trial (block 0) there is so little work that a coarse clock may show nothing.
    nothing = sum(each.nanoseconds == 0 for each in reply.iterations)
    if nothing and visit.block > 0:
        raise FailedError(
            f"{nothing} of {len(reply.iterations)} iterations took 0 ns by the clock inside, which"
            " is too coarse",
            hint="--min-time 100ms makes iterations longer",
        )


@dataclass(frozen=True, kw_only=True)
class StopRules:
    """When a run stops."""

    budget_end: float
    """time.monotonic() at the end of the budget. A block starts only if it will end before."""
    minimum_blocks: int
    """So many blocks are measured even if they exceed the budget."""
    maximum_blocks: int
    analyse: Callable[[int], "Analysed"]
    """Called at each interim analysis with the number of valid blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysed:
    """What an interim analysis has found."""

    leaving: Collection[tuple[WorkloadName, TargetName]] = ()
    """The cells that are decided and leave."""
    share: float = 1.0
    """The share of the budget that was spent."""
    stop: str = ""
    """Why the run stops: "precision", all intervals are narrow enough, or "decided". Empty: it goes
    on.
    """


OneBlock = Callable[
    [Block, Mapping[WorkloadName, Work], OpeningFailures, Callable[[Visit], None], Sessions | None],
    None,
]
"""A function with the parameters of `Runner.block`."""


def measure(
    runner: Runner,
    plan: Plan,
    rules: StopRules,
    *,
    tick: Callable[[Visit, int], None],
    begun: int = 0,
    repeated: int = 0,
    sessions: Mapping[TargetName, int] | None = None,
    one_block: OneBlock | None = None,
    left: Collection[tuple[WorkloadName, TargetName]] = (),
) -> tuple[int, str]:
    """Measure blocks until all are done, the budget is spent, or an analysis ends the run. Cells
    leave when an interim analysis has decided them; those in `left` have left already.

    A resumed run continues after its `begun` blocks, of which `repeated` were invalid. The last one
    may be incomplete; its records still count. `sessions` has the highest session number of each
    target so far. `one_block` measures a block instead of `Runner.block`. Returns the number of
    valid blocks, and why it stopped: "blocks", "budget", "precision" or "decided".
    """
    try:
        with Sessions(plan.blocks_per_session, sessions) as kept:
            return _measure(
                runner, plan, rules, kept, one_block or runner.block,
                tick=tick, begun=begun, repeated=repeated, left=set(left),
            )  # fmt: skip
    finally:  # what `undisturbed` has frozen can be collected again
        gc.unfreeze()


def _measure(
    runner: Runner,
    plan: Plan,
    rules: StopRules,
    kept: Sessions,
    one_block: OneBlock,
    *,
    tick: Callable[[Visit, int], None],
    begun: int,
    repeated: int,
    left: set[tuple[WorkloadName, TargetName]],
) -> tuple[int, str]:
    work = {item.workload: item for item in plan.work}
    failures, meter = OpeningFailures(), host.Meter()
    valid, longest = begun - repeated, 0.0
    for whole in plan.blocks[begun:]:
        block = without_left(whole, left, plan.reference)
        if not block.visits:
            return valid, "decided"
        for label in {*whole.sessions} - {*block.sessions}:
            kept.discard(label)
        if valid >= rules.maximum_blocks:
            break
        began = time.monotonic()
        if valid >= rules.minimum_blocks and began + longest > rules.budget_end:
            return valid, "budget"
        one_block(block, work, failures, lambda visit: tick(visit, valid), kept)  # noqa: B023
        # A single slow block is forgotten after some others: the next one is likely shorter.
        longest = max(longest * 0.9, time.monotonic() - began)
        health = replace(meter.lap(block.number), own_cpu_percent=runner.own_cpu.take())
        # Blocks are not repeated without end, nor after the end of the budget.
        spared = repeated >= REPEATED_SHARE * (valid + 1) or time.monotonic() > rules.budget_end
        is_valid = not health.broken_rules or spared
        repeated += not is_valid
        valid += is_valid
        runner.sink.health(health, valid=is_valid)
        if not is_valid or not sequential.is_analysis(valid):
            continue
        found = rules.analyse(valid)
        for workload, target in found.leaving:
            left.add((workload, target))
            runner.sink.write(
                Leaving(block=block.number, target=target, workload=workload, share=found.share)
            )
        runner.sink.sync()
        if found.stop:
            return valid, found.stop
    return valid, "blocks"
