"""Manages the open sessions of a run, and how many blocks each still serves."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Self

from isobench.model import Gap
from isobench.model.units import TargetName
from isobench.plugins.api import Session
from isobench.run.proving import Proof, UnprovenError

MOST_FAILURES: Final = 3
"""After so many failed openings in a row a target is not opened again."""


@dataclass(kw_only=True)
class OpenSession:
    """A session that is open."""

    session: Session
    number: int
    """Its number among the sessions of its target, from 1."""
    blocks_left: int
    """How many blocks it may still serve, including the current one."""
    close: Callable[[], None]
    proof: Proof | None = None
    """Its proof at its opening."""
    proving: float = 0.0
    """Seconds that its latest proof took."""
    is_discarded: bool = False
    """Whether something failed in it, so that it serves no further block."""
    is_suspended: bool = False
    """Whether it is closed for a start of an instance of its exclusive target. It must be opened
    again before its next use.
    """
    reopen: "Callable[[], OpenSession]" = field(init=False)
    fault: Gap | None = None
    """Why it could not be opened again."""

    def suspend(self) -> None:
        """Close it until its next use."""
        if not self.is_suspended:
            self.is_suspended = True
            self.close()

    def verify(self, proof: Proof) -> None:
        """Check a proof. UnprovenError: an expectation is not met, or another machine answers."""
        # A session that serves several blocks must stay on one machine. The kernel makes a new boot
        # id at each boot: random(4), /proc/sys/kernel/random/boot_id.
        first, self.proof = self.proof, self.proof or proof
        proof.demand()
        if first is None:
            return
        before, now = (p.environment.value("kernel.boot_id") for p in (first, proof))
        if before != now:
            raise UnprovenError(
                f"another machine answers: kernel.boot_id was {before!r} and is now {now!r}",
                hint=proof.hint,
            )


class Sessions:
    """The open sessions of a run. Each serves as many blocks as planned.

    At the end of its context all sessions are closed, the latest first.
    """

    def __init__(
        self,
        blocks_per_session: Mapping[TargetName, int] | None = None,
        highest: Mapping[TargetName, int] | None = None,
    ) -> None:
        """Take how many blocks one session of a target serves (default: one), and the highest
        session numbers that were used before in this run.
        """
        self._blocks_per_session = blocks_per_session or {}
        self._highest = dict(highest or {})
        self._open: dict[TargetName, OpenSession] = {}
        self._stack = contextlib.ExitStack()

    def get(self, label: TargetName) -> OpenSession | None:
        """Return the open session of a target, or None."""
        return self._open.get(label)

    def open(
        self, label: TargetName, enter: Callable[[contextlib.ExitStack], Session]
    ) -> OpenSession:
        """Open a session, or open a suspended one again. `enter` opens it on a stack that closes
        it.
        """
        # Its stack is part of the common one before the session is opened: an exception at any time
        # closes the session.
        own = self._stack.enter_context(contextlib.ExitStack())
        session = enter(own)
        self._highest[label] = self._highest.get(label, 0) + 1
        number, served = self._highest[label], self._blocks_per_session.get(label, 1)
        again = self._open.get(label)
        # A suspended session stays the same object, since its users have references to it.
        if again is not None:
            again.session, again.number, again.close = session, number, own.close
            again.proof, again.is_suspended, again.blocks_left = (
                None,
                False,
                max(1, again.blocks_left),
            )
            return again
        opened = self._open[label] = OpenSession(
            session=session, number=number, blocks_left=served, close=own.close
        )
        return opened

    def discard(self, label: TargetName) -> None:
        """Let the open session of a target, if any, serve no further block."""
        if label in self._open:
            self._open[label].is_discarded = True

    def end_block(self) -> None:
        """Close the sessions that have served their last block, the latest first."""
        for label, opened in reversed([*self._open.items()]):
            opened.blocks_left -= 1
            if opened.is_discarded or opened.blocks_left <= 0:
                del self._open[label]
                opened.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close whatever is open."""
        # Each session has a stack of its own within the common one, which closes them in reverse.
        self._open.clear()
        self._stack.__exit__(kind, error, trace)


class OpeningFailures:
    """Counts failed openings in a row, so that a broken target does not use up the budget."""

    def __init__(self) -> None:
        self._counts: dict[TargetName, int] = {}
        self.why: dict[TargetName, str] = {}

    def count(self, label: TargetName, why: str) -> None:
        """Count a failed opening."""
        self._counts[label] = self._counts.get(label, 0) + 1
        self.why[label] = why

    def clear(self, label: TargetName) -> None:
        """Start counting again, after a successful opening."""
        self._counts[label] = 0

    def given_up(self, label: TargetName) -> bool:
        """Return whether the target is not opened again."""
        return self._counts.get(label, 0) >= MOST_FAILURES
