"""How a command ends: what isobench has to remove is removed first, and code of plug-ins that still
runs then has a bound.

Python waits for threads when it ends, and calls what was registered with `atexit`, without a limit.
"""

import atexit
import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NoReturn, TypeVar, cast

LIMIT: Final = 10.0
"""Seconds that threads and `atexit` handlers of plug-ins have after the end of a command."""
_CLEAN_UP_LIMIT: Final = 2.0
_FROM_USERS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LATE: Final = (
    f"isobench: threads or atexit handlers of a plug-in were still running {LIMIT:g} s after the"
    " end, and were left\n"
)
_Own = TypeVar("_Own", bound=Callable[[], Any])
_own: Final[list[Callable[[], Any]]] = []


def at_end(function: _Own) -> _Own:
    """Let a function of isobench's run when it ends, the last one first. It may run twice."""
    _own.append(function)
    return function


@atexit.register
def clean_up() -> None:
    """Run what was registered with `at_end`. An error ends none of the others."""
    for function in reversed(_own):
        with contextlib.suppress(Exception):
            function()


def end(code: int) -> NoReturn:
    """End this process with an exit code after plug-ins have run in it: Python's own end, within
    LIMIT seconds. An interruption ends it at once.
    """
    # What the caller has let isobench ignore, as nohup does, stays ignored.
    heeded = [each for each in _FROM_USERS if signal.getsignal(each) is not signal.SIG_IGN]
    # A second Ctrl-C must not interrupt what is removed.
    _handle(heeded, signal.SIG_IGN)
    clean_up()
    _flush()
    # Python runs handlers of signals between two steps of the main thread, which may wait for ever.
    # It writes their numbers to this pipe at once.
    try:
        reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        threading.Thread(target=_end_early, args=(code, reading), daemon=True).start()
    except (OSError, RuntimeError):  # the system refuses them: there would be no bound
        os._exit(code)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _handle(heeded, lambda *_: None)
    # What Python does when it ends, in its order. Its finalizers come after that: they have nothing
    # to do for a process that ends, and no bound would hold in them.
    last: tuple[Callable[[], Any], ...] = (
        cast("Any", threading)._shutdown,  # noqa: SLF001 - it also ends idle executors
        atexit._run_exitfuncs,  # noqa: SLF001 - nothing else calls them
    )
    for call in last:
        with contextlib.suppress(BaseException):
            call()
    _flush()
    os._exit(code)


def _handle(numbers: Iterable[int], handler: Any) -> None:  # noqa: ANN401 - as signal.signal has it
    for number in numbers:
        signal.signal(number, handler)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _end_early(code: int, reading: int) -> None:
    """End this process at LIMIT, or at an interruption."""
    until = time.monotonic() + LIMIT
    waiting = select.poll()
    waiting.register(reading, select.POLLIN)
    while (left := until - time.monotonic()) > 0:
        if waiting.poll(1000 * left) and not set(_FROM_USERS).isdisjoint(os.read(reading, 64)):
            os._exit(code)
    # In threads of their own: a pipe may be full, and a thread that is left may fill a folder.
    for call in (_say_late, clean_up):
        thread = threading.Thread(target=call, daemon=True)
        with contextlib.suppress(RuntimeError):
            thread.start()
            thread.join(_CLEAN_UP_LIMIT)
    os._exit(code)


def _say_late() -> None:
    with contextlib.suppress(OSError):
        os.write(2, _LATE.encode())
