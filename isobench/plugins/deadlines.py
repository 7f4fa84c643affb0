"""Time limits of calls of targets: one rule for probes, sweeps, openings, visits and closings.

Every such call runs inside `within`. Three things end a call that does not end by itself:

- Code that waits asks how many seconds it has left (`left`), and waits no longer.
- Code whose wait another thread must end registers how (`cut_by`): the end of a child process with
  its process group, the end of a socket. A watching thread does that at the limit.
- In the main thread, an alarm (SIGALRM) raises an exception in the code that still waits.

After its limit a call has `GRACE` seconds to clean up. An interrupted caller ends the calls of
other threads by `Deadline.cancel`.
"""

import contextlib
import heapq
import itertools
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from types import FrameType
from typing import Final, Generic, TypeVar

from isobench.model.errors import SessionError

GRACE: Final = 5.0
"""Seconds that a call has beyond its limit, to clean up."""
# Code may catch the exception of an alarm (`except BaseException`): so it repeats.
_ALARM_INTERVAL: Final = 1.0
_T = TypeVar("_T")


class TimeLimitError(BaseException):
    """Raised by an alarm in code of the main thread that exceeds its limit."""

    # A BaseException, which an `except Exception` of the code does not catch.


class DeadlineError(SessionError):
    """A call of a target did not end within its limit."""


class Deadline:
    """The time limit of one call, and how its waits are ended."""

    def __init__(self, limit: float, outer: "Deadline | None" = None) -> None:
        """Begin now. `limit` is in seconds; the call ends with the one around it, `outer`."""
        self.limit = limit
        self.at = time.monotonic() + limit
        if outer is not None:
            self.at = min(self.at, outer.at)
        self.is_cut = False
        """Whether its waits were ended from outside."""
        self._cuts: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._lock = threading.Lock()

    @property
    def remaining(self) -> float:
        """Seconds until the end of its waits: the limit, and once that has passed, its grace."""
        now = time.monotonic()
        return max(0.0, self.at - now if now < self.at else self.at + GRACE - now)

    @property
    def is_over(self) -> bool:
        """Whether the limit has passed, or the call was cancelled."""
        return self.is_cut or time.monotonic() >= self.at

    def register(self, cut: Callable[[], None]) -> int:
        """Register a function that ends a wait; return its number."""
        with self._lock:
            number = next(self._numbers)
            self._cuts[number] = cut
        return number

    def forget(self, number: int) -> None:
        """Remove a registered function: its wait has ended."""
        with self._lock:
            self._cuts.pop(number, None)

    def cancel(self) -> None:
        """End all waits of this call now."""
        # The grace for cleaning up begins now.
        self.at = min(self.at, time.monotonic())
        self.cut()

    def cut(self) -> None:
        """End all waits. Those that begin later have the time that is left."""
        self.is_cut = True
        with self._lock:
            cuts, self._cuts = [*self._cuts.values()], {}
        for cut in cuts:
            with contextlib.suppress(Exception):
                cut()


_current: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


def left(seconds: float) -> float:
    """Return how long a wait of `seconds` may take in this call. DeadlineError: no time is left."""
    deadline = _current.get()
    if deadline is None:
        return seconds
    remaining = deadline.remaining
    if remaining <= 0:
        raise DeadlineError(f"it did not end within {deadline.limit:g} s")
    return min(seconds, remaining)


def at_the_end(cut: Callable[[], None]) -> None:
    """Let `cut` end something that this call has begun, if the call does not end by itself."""
    deadline = _current.get()
    if deadline is not None:
        deadline.register(cut)


@contextlib.contextmanager
def cut_by(cut: Callable[[], None]) -> Iterator[None]:
    """Surround a wait that `cut` ends from another thread."""
    deadline = _current.get()
    if deadline is None:
        yield
        return
    number = deadline.register(cut)
    try:
        yield
    finally:
        deadline.forget(number)


@contextlib.contextmanager
def ended_after(seconds: float, cut: Callable[[], None]) -> Iterator[None]:
    """Surround a wait that has no limit of its own: `cut` ends it after so many seconds, or with
    the call around it.
    """
    deadline = Deadline(seconds, _current.get())
    deadline.register(cut)
    _watcher.watch(deadline)
    try:
        with cut_by(cut):
            yield
    finally:
        _watcher.forget(deadline)


@contextlib.contextmanager
def watched(limit: float) -> Iterator[Deadline]:
    """Limit the waits of a call to so many seconds. What it does without waiting is not limited."""
    deadline = Deadline(limit, _current.get())
    token = _current.set(deadline)
    # The main thread has an alarm, which needs no other thread that wakes up.
    watching = threading.current_thread() is not threading.main_thread()
    if watching:
        _watcher.watch(deadline)
    try:
        yield deadline
    finally:
        if watching:
            _watcher.forget(deadline)
        _current.reset(token)


@contextlib.contextmanager
def within(limit: float, what: str) -> Iterator[Deadline]:
    """Limit a call to so many seconds. DeadlineError: it took longer; `what` is its name there."""
    with watched(limit) as deadline:
        try:
            with alarm(limit + GRACE):
                yield deadline
        except (Exception, TimeLimitError) as error:
            if not deadline.is_over and not isinstance(error, TimeLimitError):
                raise
            raise DeadlineError(f"{what} did not end within {limit:g} s") from None
        # A result that came late is one.


@contextlib.contextmanager
def alarm(limit: float) -> Iterator[None]:
    """Raise TimeLimitError within this context after so many seconds, in the main thread only."""
    # There is one timer per process: setitimer(2). An alarm that is set already (the time limit of
    # the run, an outer call) is set again at the end, and stays in force where it is due earlier.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    due, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < due <= limit:
        yield
        return
    # An alarm between the end of the context and the reset of the timer must not raise.
    over: list[bool] = []

    def on_alarm(_number: int, _frame: FrameType | None) -> None:
        if not over:
            raise TimeLimitError(f"{limit:g} s")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, limit, _ALARM_INTERVAL)
            yield
        finally:
            over.append(True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # None: the handler was not installed from Python.
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if due:
            # Zero would turn the timer off: setitimer(2).
            signal.setitimer(signal.ITIMER_REAL, max(due - (time.monotonic() - began), 0.001))


class _Flag:
    """What one thread waits for and another sets. A wait of `threading.Event` that a second signal
    interrupts, while it ends for a first one, leaves its lock as it must not be.
    """

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        self._is_set = True
        self._lock.release()

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> None:
        if not self._is_set and self._lock.acquire(timeout=min(seconds, threading.TIMEOUT_MAX)):
            self._lock.release()


class Call(Generic[_T]):
    """A call in a thread of its own, whose waits are limited."""

    def __init__(self, call: Callable[[], _T], limit: float) -> None:
        """Begin now. `limit` is in seconds."""
        self._call, self._limit = call, limit
        self._result: _T | None = None
        self.error: BaseException | None = None
        self._deadline: Deadline | None = None
        # Not Thread.join and is_alive: until Python 3.13 a thread whose join is interrupted by the
        # exception of a signal counts as ended.
        self._began, self._ended = _Flag(), _Flag()
        # A daemon, so that a call that hangs does not keep isobench from ending.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            with watched(self._limit) as self._deadline:
                self._began.set()
                self._result = self._call()
        except BaseException as error:  # noqa: BLE001 - the caller reports it
            self.error = error
        finally:
            self._ended.set()

    def join(self, until: float) -> None:
        """Wait for its end, until then (time.monotonic)."""
        self._ended.wait(max(0.0, until - time.monotonic()))

    @property
    def has_ended(self) -> bool:
        """Whether it has returned or raised."""
        return self._ended.is_set()

    @property
    def result(self) -> _T | None:
        """What it returned; None where it did not return."""
        return self._result

    @property
    def stack(self) -> str:
        """Where it is at the moment."""
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - there is no other way
        return "".join(traceback.format_stack(frame))

    def cancel(self) -> None:
        """End its waits."""
        self._began.wait(1)
        if self._deadline is not None:
            self._deadline.cancel()


class _Watcher:
    """A thread that ends the waits of calls at their limits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: list[tuple[float, int, Deadline]] = []
        self._watched: set[Deadline] = set()
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    def watch(self, deadline: Deadline) -> None:
        with self._changed:
            self._watched.add(deadline)
            heapq.heappush(self._due, (deadline.at, next(self._numbers), deadline))
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._watch, daemon=True, name="deadlines")
                self._thread.start()
            # A later limit changes nothing for the thread: it need not wake up in a measurement.
            elif self._due[0][2] is deadline:
                self._changed.notify()

    def forget(self, deadline: Deadline) -> None:
        with self._changed:
            self._watched.discard(deadline)

    def _watch(self) -> None:
        while True:
            with self._changed:
                while self._due and self._due[0][2] not in self._watched:
                    heapq.heappop(self._due)
                wait = self._due[0][0] - time.monotonic() if self._due else None
                if wait is None or wait > 0:
                    self._changed.wait(wait)
                    continue
                _, _, deadline = heapq.heappop(self._due)
                if not deadline.is_cut:
                    # Again after the grace: for what a call began while it cleaned up.
                    entry = (deadline.at + GRACE, next(self._numbers), deadline)
                    heapq.heappush(self._due, entry)
            deadline.cut()


_watcher: Final = _Watcher()
