"""Keeps signals from interrupting what must be done as a whole."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Final

_INTERRUPTIONS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let the handlers of interruptions run only at the end of this context.

    For the few lines between a start of a process and the note that it exists, and for those that
    end processes: a second Ctrl-C must not leave an orphan. In other threads than the main one,
    where no handler runs, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrived: dict[int, None] = {}

    def note(number: int, _frame: FrameType | None) -> None:
        arrived[number] = None

    before = {}
    try:
        for number in _INTERRUPTIONS:
            handler = signal.getsignal(number)
            if callable(handler):
                before[number] = signal.signal(number, note)
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for caught in arrived:
            signal.raise_signal(caught)
