"""Keeps signals from interrupting what must be done as a whole."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

_FROM_USERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_INTERRUPTIONS: Final = (*_FROM_USERS, signal.SIGALRM)


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


@contextlib.contextmanager
def first_postponed(tell: Callable[[], None]) -> Iterator[None]:
    """Let the first interruption in this context only `tell`; the next one raises its exception.

    For work that the user would miss and that cannot be begun again: it may import, and an import
    that was broken off fails from then on. `tell` is called in a thread, since a handler may run
    while the main thread is printing; it has ended when the context ends. In other threads than the
    main one, where no handler runs, this does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    telling = threading.Thread(target=tell, daemon=True)
    before: dict[int, Callable[[int, FrameType | None], object]] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        restore()
        # Another signal may have arrived since this function began.
        if telling.ident is None:
            telling.start()
        # A handler may prepare for the next signal, as that of a terminal that is closed does. It
        # gets no frame: in an import it would send the signal again, which is then the next one.
        with contextlib.suppress(KeyboardInterrupt):
            before[number](number, None)

    try:
        for number in _FROM_USERS:
            known = signal.getsignal(number)
            if callable(known):
                before[number] = known
                signal.signal(number, note)
        yield
    finally:
        if telling.ident is None:
            restore()
        else:
            telling.join()
