"""Reads the evidence of a session, and makes gaps from failures."""

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
    Fact,
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
PLUGIN_HINT: Final = "this is a bug of the target's plug-in: report it to its author"
_MOST_QUOTED: Final = 300
"""So many characters of standard error are part of a gap. The log has all."""
_MOST_DETAIL: Final = 600


class Sink(Protocol):
    """The destination of records and logs."""

    def write(self, record: Record) -> None:
        """Append one record."""

    def sync(self) -> None:
        """Write all records to the disk."""

    def log(self, name: str, text: bytes) -> None:
        """Append what a target's programs wrote to standard error to its log."""

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Write the state of the host during a block, and whether the block counts."""


class TimedOutError(Exception):
    """A command was stopped at its time limit."""


class FailedError(IsobenchError):
    """A command ran and did not reply."""


class UnprovenError(IsobenchError):
    """An expectation was not met."""


@dataclass(frozen=True, kw_only=True)
class Proof:
    """The evidence of one session, compared with the expectations of its target."""

    environment: Environment
    checks: tuple[ExpectationCheck, ...]

    @property
    def unmet(self) -> str:
        """The expectations that were not met, as text; empty: all were met."""
        return prove.unmet(self.checks)

    @property
    def hint(self) -> str:
        """What to change, from the expectations that were not met; may be empty."""
        return prove.hints(self.checks)

    def demand(self) -> None:
        """Raise UnprovenError if an expectation was not met."""
        if self.unmet:
            raise UnprovenError(self.unmet, hint=self.hint)


def demand_same(key: str, before: Fact, now: Fact) -> None:
    """Raise UnprovenError if a fact of a target differs from what it was before."""
    if before != now:
        raise UnprovenError(
            f"the target has changed during the run: {key} was {before!r} and is now {now!r}"
        )


def log_name(label: TargetName) -> str:
    """Return the name of a target's log."""
    return label.replace("#", "-")


def quoted(stderr: bytes) -> str:
    """Return the end of standard error as printable text."""
    # The end, where programs say what has failed.
    return wire.printable(stderr.decode(errors="replace").strip()[-_MOST_QUOTED:])


@dataclass(kw_only=True)
class Prover:
    """Reads the replies of payloads, and compares evidence with expectations."""

    targets: Mapping[TargetName, Target]
    canary: str
    """The path of a file on the host that no isolated process may read."""
    sink: Sink
    reference: Environment | None = None
    """Native's evidence. It is the first that is read."""
    proofs: dict[TargetName, Proof] = field(default_factory=dict)
    """The proof of the latest session of each target."""

    def prove(self, context: Context, run: Callable[[Command], Completed]) -> Proof:
        """Run the evidence payload, and compare its facts with the target's expectations."""
        nonce = secrets.token_hex(8)
        context.timer.expect_hello(nonce)
        done = run(context.command(EVIDENCE, nonce, self.canary))
        return self.proof(context.visit.target, done, nonce)

    def proof(self, label: TargetName, done: Completed, nonce: str) -> Proof:
        """Read the reply of an evidence payload."""
        target = self.targets[actual(label)]
        reply = self.reply(done, label, nonce=nonce, iterations=0)
        environment = prove.gather(prove.reported_inside(reply.facts))
        # Native is tried first, so that its evidence is the reference of all others.
        if self.reference is None:
            self.reference = environment
        expectations = prove.from_inside(target.expectations, environment)
        checks = prove.check(expectations, host=self.reference, inside=environment)
        return Proof(environment=environment, checks=checks)

    def prove_session(self, context: Context, session: Session) -> Proof:
        """Prove an open session, including facts that only the host sees."""
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
        """Return the reply of a payload; its standard error goes to the log.

        TimedOutError: it was stopped at the time limit. FailedError: it gave no reply or failed.
        WrongAnswerError: the reply is to another request.
        """
        # Checked only now, after the clock has stopped.
        guard.completed(done)
        self.sink.log(log_name(label), done.stderr)
        if done.exit_code is None:
            raise TimedOutError
        stderr = quoted(done.stderr)
        ended = f"exit code {done.exit_code}" + (f"; {stderr}" if stderr else "")
        try:
            reply = wire.read(done.stdout, nonce=nonce, iterations=iterations)
        except wire.WireError as error:
            raise FailedError(f"{error}; {ended}") from None
        if done.exit_code != 0:
            raise FailedError(f"the payload replied and then failed: {ended}")
        return reply

    def keep_log(self, label: TargetName, error: Exception) -> None:
        """Write the log of an instance that broke."""
        if isinstance(error, SessionError):
            self.sink.log(log_name(label), error.log.encode(errors="backslashreplace"))


# ---- gaps ----------------------------------------------------------------------------------------


def gap(visit: Visit, cause: Cause, detail: str, hint: str = "") -> Gap:
    """Return the gap of a visit."""
    # The texts may come from inside a target, so they are made printable and cut.
    return Gap(
        block=visit.block,
        target=visit.target,
        workload=visit.workload,
        cause=cause,
        detail=wire.printable(detail, _MOST_DETAIL),
        hint=wire.printable(str(hint), _MOST_DETAIL),
    )


def gap_of_opening(visit: Visit, error: Exception) -> Gap:
    """Return the gap of a session that could not be opened or proved."""
    match error:
        case UnprovenError():
            facts = f"state/{actual(visit.target)}-pre.json in the folder of the run has the facts"
            return gap(visit, Cause.UNPROVEN, str(error), hint=error.hint or facts)
        case TimedOutError():
            return gap(visit, Cause.TIMED_OUT, "the evidence payload did not end")
        case IsobenchError():
            return gap(visit, Cause.FAILED, str(error), hint=error.hint)
        case wire.WrongAnswerError():
            return gap(visit, Cause.FAILED, str(error))
        case OSError() | RuntimeError() if (of_machine := guard.machine_error(error)) is not None:
            return gap(visit, Cause.FAILED, str(of_machine), hint=of_machine.hint)
        case _:
            return gap(visit, Cause.FAILED, f"{type(error).__name__}: {error}", hint=PLUGIN_HINT)


def gap_of(visit: Visit, other: Gap) -> Gap:
    """Return the gap of a session as the gap of one of its cells."""
    return gap(visit, other.cause, other.detail, other.hint)
