"""The sessions that are open in a run, and how many blocks each still serves."""

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
"""After so many failed openings in a row a target is left alone."""


@dataclass(kw_only=True)
class OpenSession:
    """A session that is open."""

    session: Session
    number: int
    """Which one of its target it is, from 1."""
    blocks_left: int
    """How many blocks it may still serve, the current one among them."""
    close: Callable[[], None]
    proof: Proof | None = None
    """What it showed of itself at its opening."""
    proving: float = 0.0
    """Seconds that its latest proof took."""
    is_discarded: bool = False
    """Something went wrong in it: it serves no further block."""
    is_suspended: bool = False
    """It is closed, since an instance of an exclusive target was to be started; to be opened again
    before its next use.
    """
    reopen: "Callable[[], OpenSession]" = field(init=False)
    fault: Gap | None = None
    """Why it could not be opened again."""

    def suspend(self) -> None:
        """Close it for now."""
        if not self.is_suspended:
            self.is_suspended = True
            self.close()

    def verify(self, proof: Proof) -> None:
        """Take a new proof. UnprovenError: an expectation is not met, or another machine answers.

        A session that serves several blocks must stay on the machine that it was opened on.
        """
        first, self.proof = self.proof, self.proof or proof
        proof.demand()
        if first is None:
            return
        before, now = (p.environment.value("kernel.boot_id") for p in (first, proof))
        if before != now:
            raise UnprovenError(
                f"another machine answers: kernel.boot_id was {before!r} at first, and is {now!r}",
                hint=proof.hint,
            )


class Sessions:
    """The open sessions of a run; each serves as many blocks as the plan says.

    A context: leaving it closes whatever is open, the latest first.
    """

    def __init__(
        self,
        blocks_per_session: Mapping[TargetName, int] | None = None,
        highest: Mapping[TargetName, int] | None = None,
    ) -> None:
        """Take how many blocks one session of a target serves (default: one), and the numbers that
        earlier sessions of this run have had.
        """
        self._blocks_per_session = blocks_per_session or {}
        self._highest = dict(highest or {})
        self._open: dict[TargetName, OpenSession] = {}
        self._stack = contextlib.ExitStack()

    def get(self, label: TargetName) -> OpenSession | None:
        """Return the session that is open, or None."""
        return self._open.get(label)

    def open(
        self, label: TargetName, enter: Callable[[contextlib.ExitStack], Session]
    ) -> OpenSession:
        """Open a session, or open a suspended one again; `enter` gives the stack what closes it."""
        # The stack holds it from before it is opened: whatever comes between, it is closed.
        own = self._stack.enter_context(contextlib.ExitStack())
        session = enter(own)
        self._highest[label] = self._highest.get(label, 0) + 1
        number, served = self._highest[label], self._blocks_per_session.get(label, 1)
        again = self._open.get(label)
        if again is not None:  # those who hold it go on with the new one
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
        """Let a session serve no further block, where one is open."""
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


class OpeningFailures:
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
        """Return whether the target is left alone."""
        return self._counts.get(label, 0) >= MOST_FAILURES
