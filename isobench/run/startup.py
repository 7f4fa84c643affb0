"""Times starts: of processes in an open session, and of whole instances, cold and warm.

A start lasts from the request to the arrival of the payload's nonce, by the host's clock. Without
the nonce a start that fails would be the fastest one.

The starts of a visit are generators, which yield after each start: so starts of several targets can
take turns.
"""

import contextlib
import secrets
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import (
    Abi,
    Clock,
    Command,
    Need,
    Record,
    Sample,
    Stage,
    Start,
    Work,
    Workload,
)
from isobench.model.cleaning import LONGEST_NAME, as_name
from isobench.model.plan import actual
from isobench.model.units import Nanoseconds, TargetName
from isobench.payload import wire
from isobench.payload.build import EVIDENCE, STARTUP
from isobench.payload.stage import Workshop
from isobench.plugins import guard
from isobench.plugins.api import (
    Channel,
    Completed,
    Launcher,
    NullSpawner,
    Restarter,
    Session,
    Target,
)
from isobench.run.context import Context
from isobench.run.proving import (
    EVIDENCE_TIMEOUT,
    PLUGIN_HINT,
    FailedError,
    Prover,
    TimedOutError,
    log_name,
    quoted,
)

_LONGEST_PHASE: Final = LONGEST_NAME - len("phase.")
_Launch = Callable[[Stage, Command, Nanoseconds], Completed]
OneByOne = Generator[Sequence[Record], None, None]
"""Yields the records of a visit, start by start, after a first item without records: what the
starts need is prepared and proved.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Starts:
    """Times starts."""

    prover: Prover
    workshop: Workshop
    stage: Callable[[Target], Stage]
    abi: Callable[[Target], Abi]
    sample: Callable[..., Sample]
    """Makes a sample of a visit: `sample(visit, metric, value, iteration=…, clock=…)`."""
    expensive: set[TargetName]
    """Targets that are slow to start: a visit starts only one instance of them."""

    # ---- processes in an open session ------------------------------------------------------------

    def in_session(
        self, context: Context, work: Work, workload: Workload, session: Session
    ) -> OneByOne:
        """Time starts of a process in an open session."""
        run, timeout = session.run, workload.timeout
        yield ()
        for iteration in range(work.iterations):
            found = self._time(
                context, iteration, workload, lambda command: run(command, timeout=timeout)
            )
            is_last = iteration == work.iterations - 1
            yield (*found, *self._channel_cost(context, session)) if is_last else found

    def _time(
        self,
        context: Context,
        iteration: int,
        workload: Workload,
        start: Callable[[Command], Completed],
        nonce: str = "",
    ) -> Sequence[Record]:
        """Time one start, from the request to the nonce. It must exit with 0."""
        timer, sent = context.timer, nonce or secrets.token_hex(8)
        command = context.command(workload.program, sent)
        timer.expect_hello(sent)
        done = start(command)
        # Until the target's call returns: this includes the end of its helper processes.
        gone = time.monotonic_ns() - timer.begun_at
        self._demand_start(context, done)
        assert timer.taken is not None  # `_demand_start` has checked that
        _demand_span(timer.taken)
        return tuple(self._samples(context, iteration, {"time": timer.taken, "gone": gone}))

    def _demand_start(self, context: Context, done: Completed) -> None:
        """Raise TimedOutError or FailedError where a program did not start or exit with 0."""
        _demand_end(done)
        self.prover.sink.log(log_name(context.visit.target), done.stderr)
        if context.timer.arrived_at is None or done.exit_code != 0:
            raise _no_nonce(done)

    def _samples(
        self, context: Context, iteration: int, spans: Mapping[str, int]
    ) -> Iterator[Sample]:
        """Yield the samples of one start, its phases among them."""
        # A plug-in may call its phases as it likes; metrics of records are names.
        phases = {
            f"phase.{as_name(name, longest=_LONGEST_PHASE)}": at
            for name, at in context.timer.phases.items()
        }
        for metric, value in {**spans, **phases}.items():
            yield self.sample(context.visit, metric, value, iteration=iteration, clock=Clock.HOST)

    def _channel_cost(self, context: Context, session: Session) -> Iterator[Sample]:
        """Time a request that executes nothing, if the session has this ability."""
        if not isinstance(session, Channel):
            return
        begun = time.monotonic_ns()
        done = session.null(timeout=EVIDENCE_TIMEOUT)
        taken = time.monotonic_ns() - begun
        guard.completed(done)
        if done.exit_code == 0:
            yield self.sample(context.visit, "channel", taken, clock=Clock.HOST)

    # ---- whole instances -------------------------------------------------------------------------

    def of_instances(self, context: Context, work: Work, workload: Workload) -> OneByOne:
        """Time starts of instances. An instance that was started in the same way proves them."""
        label = context.visit.target
        target = guard.unwrapped(self.prover.targets[actual(label)])
        stage = context.of_stage(self.stage(target))
        # A fast target has a separate instance for its evidence, which would otherwise be part of
        # the time until everything has ended. For a slow one a second start costs too much.
        if actual(label) in self.expensive:
            if workload.program == STARTUP and Need.PROCESSES not in self.abi(target).lacks:
                yield ()
                yield self._proven_start(context, workload, target, stage)
                return
            work = replace(work, iterations=1)
        if workload.start is Start.WARM and isinstance(target, Restarter):
            yield from self._restarts(context, work, workload, target, stage)
        else:
            yield from self._launches(context, work, workload, target, stage)

    def _restarts(
        self, context: Context, work: Work, workload: Workload, target: Restarter, stage: Stage
    ) -> OneByOne:
        """Time starts of one stopped instance."""

        def restart(command: Command) -> Completed:
            with target.stopped(stage, command) as instance:
                return instance.start(timeout=EVIDENCE_TIMEOUT)

        self.prover.prove(context, restart).demand()
        # The command of a stopped instance is fixed, so all its starts have the same nonce.
        nonce, timeout = secrets.token_hex(8), workload.timeout
        with target.stopped(stage, context.command(workload.program, nonce)) as instance:
            # The first start of a new instance is a cold one.
            instance.start(timeout=timeout)
            yield ()
            for iteration in range(work.iterations):
                yield self._time(
                    context, iteration, workload, lambda _: instance.start(timeout=timeout), nonce
                )

    def _launches(
        self, context: Context, work: Work, workload: Workload, target: Target, stage: Stage
    ) -> OneByOne:
        """Time starts of new instances."""
        launch, timeout = _launcher(target), workload.timeout
        # The evidence comes from an instance that is started in the same way. It also brings caches
        # into the state that all timed starts find.
        self.prover.prove(
            context, lambda command: launch(stage, command, EVIDENCE_TIMEOUT)
        ).demand()
        yield ()
        for iteration in range(work.iterations):
            with self._stage_of_a_start(stage, workload, target) as own:
                found = self._time(
                    context,
                    iteration,
                    workload,
                    lambda command: launch(own, command, timeout),
                )
            # Once per block: not again for the control, "native#2".
            if isinstance(target, NullSpawner) and context.visit.target == target.name:
                with self._stage_of_a_start(stage, workload, target) as own:
                    found = (*found, self._null_spawn(context, iteration, target, own))
            yield found

    def _stage_of_a_start(
        self, stage: Stage, workload: Workload, target: Target
    ) -> contextlib.AbstractContextManager[Stage]:
        """Return the stage of one start. A cold start has a root directory of its own."""
        if workload.start is Start.WARM:
            return contextlib.nullcontext(stage)
        return self.workshop.fresh(stage, self.abi(target))

    def _null_spawn(
        self, context: Context, iteration: int, target: NullSpawner, stage: Stage
    ) -> Sample:
        """Time one start of the smallest program, which shows the kernel's part of it."""
        # The program prints something and does not only exit: so it is timed to the same event as a
        # payload. Any output will do.
        context.timer.expect(b"")
        done = target.null(stage, context.command(), timeout=EVIDENCE_TIMEOUT)
        if context.timer.taken is None or done.exit_code != 0:
            raise FailedError(f"the smallest program printed nothing: exit code {done.exit_code}")
        return self.sample(
            context.visit, "spawn", context.timer.taken, iteration=iteration, clock=Clock.HOST
        )

    def _proven_start(
        self, context: Context, workload: Workload, target: Target, stage: Stage
    ) -> tuple[Record, ...]:
        """Time one start of an instance that then becomes the evidence payload by execve(2).

        An instance of a slow target is started only once this way. There is no sample "gone", since
        it would include the evidence.
        """
        first, second = secrets.token_hex(8), secrets.token_hex(8)
        command = context.command(STARTUP, first, EVIDENCE, second, self.prover.canary)
        with contextlib.ExitStack() as stack:
            if workload.start is Start.WARM and isinstance(target, Restarter):
                instance = stack.enter_context(target.stopped(stage, command))
                instance.start(timeout=workload.timeout)  # a cold start, as in `_restarts`
                context.timer.expect_hello(first)
                done = instance.start(timeout=workload.timeout)
            else:
                if workload.start is not Start.WARM:
                    stage = stack.enter_context(self.workshop.fresh(stage, self.abi(target)))
                launch = _launcher(target)
                context.timer.expect_hello(first)
                done = launch(stage, command, workload.timeout)
            taken = context.timer.taken
        _demand_end(done)
        if taken is None:
            raise _no_nonce(done)
        # The first line is that of the start-up program; the output of the evidence payload
        # follows.
        _, _, after = done.stdout.partition(wire.hello(first))
        evidence = replace(done, stdout=after.partition(b"\n")[2])
        self.prover.proof(context.visit.target, evidence, second).demand()
        _demand_span(taken)
        return tuple(self._samples(context, 0, {"time": taken}))


def _launcher(target: Target) -> _Launch:
    """Return the function that starts one instance of a target for one command."""
    if isinstance(target, Launcher):
        return lambda stage, command, timeout: target.launch(stage, command, timeout=timeout)

    # Without the ability to launch, a start is opening a session and running a program in it.
    def open_and_run(stage: Stage, command: Command, timeout: Nanoseconds) -> Completed:
        with target.open(stage) as session:
            return session.run(command, timeout=timeout)

    return open_and_run


def _demand_end(done: Completed) -> None:
    """Raise TimedOutError where a program was stopped at its time limit."""
    guard.completed(done)
    if done.exit_code is None:
        raise TimedOutError


def _no_nonce(done: Completed) -> FailedError:
    return FailedError(f"no nonce came back; exit code {done.exit_code}; {quoted(done.stderr)}")


def _demand_span(nanoseconds: int) -> None:
    """Raise FailedError where a start took no time: BEGIN was reported after the start."""
    if nanoseconds <= 0:
        raise FailedError(f"the start took {nanoseconds} ns by its own phases", hint=PLUGIN_HINT)
