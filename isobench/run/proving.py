"""Evidence from a session, and the gap that stands for it where there is none."""

import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from isobench.evidence import prove
from isobench.model import (
    BlockHealth,
    Cause,
    Command,
    Environment,
    ExpectationCheck,
    Gap,
    Record,
    Visit,
)
from isobench.model.errors import IsobenchError, SessionError
from isobench.model.plan import actual
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.payload import wire
from isobench.payload.build import EVIDENCE
from isobench.plugins import guard
from isobench.plugins.api import Completed, Session, Target, Witness
from isobench.run.context import Context

EVIDENCE_TIMEOUT: Final = seconds(60)
PLUGIN_HINT: Final = "this is a fault of the target's plug-in: tell its author"
_MOST_QUOTED: Final = 300
"""Characters of standard error that a gap quotes."""
_MOST_DETAIL: Final = 600


class Sink(Protocol):
    """Where records go."""

    def write(self, record: Record) -> None:
        """Append one record."""

    def sync(self) -> None:
        """Make safe what was written."""

    def log(self, name: str, text: bytes) -> None:
        """Keep what a target's programs wrote to standard error."""

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Keep what the host did in a block."""


class TimedOutError(Exception):
    """A command was stopped at its time limit."""


class FailedError(IsobenchError):
    """A command ran and gave no reply."""


class UnprovenError(IsobenchError):
    """An expectation was not met."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """What one session showed of itself."""

    environment: Environment
    checks: tuple[ExpectationCheck, ...]

    @property
    def unmet(self) -> str:
        """The expectations that were not met, in words; empty when all were."""
        return prove.unmet(self.checks)

    @property
    def hint(self) -> str:
        """What to change for them to be met, where they say so."""
        return prove.hints(self.checks)

    def demand(self) -> None:
        """UnprovenError: an expectation was not met."""
        if self.unmet:
            raise UnprovenError(self.unmet, hint=self.hint)


def log_name(label: TargetName) -> str:
    """Return the name under which the log of a target is kept."""
    return label.replace("#", "-")


def quoted(stderr: bytes) -> str:
    """Return the end of what was written to standard error, printable."""
    return wire.printable(stderr.decode(errors="replace").strip()[-_MOST_QUOTED:])


@dataclass(kw_only=True)
class Prover:
    """Reads what payloads answer, and compares what they saw with what is expected."""

    targets: Mapping[TargetName, Target]
    canary: str
    """The path of the file planted on the host that no isolated process may read."""
    sink: Sink
    reference: Environment | None = None
    """What the evidence payload sees natively."""
    proofs: dict[TargetName, Proof] = field(default_factory=dict)
    """What the latest session of each target showed of itself."""

    def prove(self, context: Context, run: Callable[[Command], Completed]) -> Proof:
        """Run the evidence payload and compare what it saw with what the target must show."""
        nonce = secrets.token_hex(8)
        context.timer.expect_hello(nonce)
        done = run(context.command(EVIDENCE, nonce, self.canary))
        return self.proof(context.visit.target, done, nonce)

    def proof(self, label: TargetName, done: Completed, nonce: str) -> Proof:
        """Read what an evidence payload has answered."""
        target = self.targets[actual(label)]
        reply = self.reply(done, label, nonce=nonce, iterations=0)
        environment = prove.gather(reply.facts)
        if self.reference is None:
            self.reference = environment
        expectations = prove.from_inside(target.expectations, environment)
        checks = prove.check(expectations, host=self.reference, inside=environment)
        return Proof(environment=environment, checks=checks)

    def prove_session(self, context: Context, session: Session) -> Proof:
        """Prove an open session, with what the host sees of it."""
        proof = self.prove(context, lambda command: session.run(command, timeout=EVIDENCE_TIMEOUT))
        witnessed = session.witness() if isinstance(session, Witness) else ()
        seen = prove.gather((*proof.environment.facts.values(), *witnessed))
        assert self.reference is not None  # `proof` has taken it
        expectations = self.targets[actual(context.visit.target)].expectations
        checks = prove.check(expectations, host=self.reference, inside=seen)
        return Proof(environment=seen, checks=checks)

    def facts(
        self,
        context: Context,
        session: Session,
        program: str,
        words: Iterable[str],
        *,
        timeout: Nanoseconds,
    ) -> Environment:
        """Run one of isobench's own programs in a session and return the facts that it prints.

        IsobenchError: it did not answer, or the session is gone.
        """
        nonce = secrets.token_hex(8)
        context.timer.expect_hello(nonce)
        done = session.run(context.command(program, nonce, *words), timeout=timeout)
        try:
            reply = self.reply(done, context.visit.target, nonce=nonce, iterations=0)
        except TimedOutError:
            raise SessionError(f"{program} was not done after {timeout / 1e9:g} s") from None
        except wire.WrongAnswerError as error:
            raise SessionError(str(error)) from None
        return prove.gather(reply.facts)

    def reply(
        self, done: Completed, label: TargetName, *, nonce: str, iterations: int
    ) -> wire.Reply:
        """Return what a payload answered; its standard error goes to the log."""
        guard.completed(done)
        self.sink.log(log_name(label), done.stderr)
        if done.exit_code is None:
            raise TimedOutError
        said = quoted(done.stderr)
        ended = f"exit code {done.exit_code}" + (f"; {said}" if said else "")
        try:
            reply = wire.read(done.stdout, nonce=nonce, iterations=iterations)
        except wire.WireError as error:
            raise FailedError(f"{error}; {ended}") from None
        if done.exit_code != 0:
            raise FailedError(f"the payload answered and then failed: {ended}")
        return reply

    def keep_log(self, label: TargetName, error: Exception) -> None:
        """Keep what an instance wrote before its end."""
        if isinstance(error, SessionError):
            self.sink.log(log_name(label), error.log.encode(errors="backslashreplace"))


# ---- gaps ----------------------------------------------------------------------------------------


def gap(visit: Visit, cause: Cause, detail: str, hint: str = "") -> Gap:
    """Return the gap of a visit; its texts may come from inside and are cleaned."""
    return Gap(
        block=visit.block,
        target=visit.target,
        workload=visit.workload,
        cause=cause,
        detail=wire.printable(detail, _MOST_DETAIL),
        hint=wire.printable(str(hint), _MOST_DETAIL),
    )


def gap_of_opening(visit: Visit, error: Exception) -> Gap:
    """Return the gap of a session that could not be opened, or could not be proved."""
    match error:
        case UnprovenError():
            seen = f"state/{actual(visit.target)}-pre.json in the folder of the run: what was seen"
            return gap(visit, Cause.UNPROVEN, str(error), hint=error.hint or seen)
        case TimedOutError():
            return gap(visit, Cause.TIMED_OUT, "the evidence payload did not end")
        case IsobenchError():
            return gap(visit, Cause.FAILED, str(error), hint=error.hint)
        case wire.WrongAnswerError():
            return gap(visit, Cause.FAILED, str(error))
        case _:
            return gap(visit, Cause.FAILED, f"{type(error).__name__}: {error}", hint=PLUGIN_HINT)


def gap_of(visit: Visit, other: Gap) -> Gap:
    """Return the gap of a session as that of a cell that it leaves without a value."""
    return gap(visit, other.cause, other.detail, other.hint)
