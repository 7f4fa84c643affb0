"""The time limit of a command that measures, from its start to the end of measuring."""

import contextlib
import signal
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from isobench.model.errors import TimeIsUpError
from isobench.model.wording import duration_text


class TimeLimit:
    """Interrupts the command after so many seconds by a KeyboardInterrupt, as Ctrl-C does."""

    def __init__(self, seconds: float | None) -> None:
        """Take the limit; None: there is none. It counts from the beginning of the context."""
        self.has_expired = False
        self._seconds = seconds

    def _on_alarm(self, *_: object) -> None:
        self.has_expired = True
        # As for Ctrl-C, so that the same code cleans up and writes the report.
        raise KeyboardInterrupt

    def __enter__(self) -> Self:
        """Begin."""
        if self._seconds is not None:
            signal.signal(signal.SIGALRM, self._on_alarm)
            signal.setitimer(signal.ITIMER_REAL, self._seconds)
        return self

    def stop(self) -> None:
        """End the limit: what follows may take as long as it needs."""
        if self._seconds is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)

    @contextlib.contextmanager
    def ending(self) -> Iterator[None]:
        """End the limit at the end of this context."""
        try:
            yield
        finally:
            self.stop()

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """End the limit. TimeIsUpError: it has interrupted the command outside of a run."""
        self.stop()
        if self.has_expired and isinstance(error, KeyboardInterrupt):
            assert self._seconds is not None
            raise TimeIsUpError(
                f"the time limit of {duration_text(self._seconds)} has passed before anything was"
                " measured",
                hint="--timeout with more time; isobench doctor shows what is slow to answer",
            ) from None
