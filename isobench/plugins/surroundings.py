"""Keeps what a whole process shares as isobench has it: the working folder, to which relative paths
lead; the umask, by which others could write what isobench makes; handlers of signals and the timer,
by which a run ends; the clocks, by which it measures; and what else would end, empty or falsify
what is measured of others.
"""

import contextlib
import datetime as dt
import os
import resource
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final

from isobench.model.errors import PluginError

_unreported: Final[list[PluginError]] = []
_blamed: Final[set[tuple[str, str]]] = set()


@contextlib.contextmanager
def kept(blame: str, place: str) -> Iterator[None]:
    """Surround a call of a plug-in's code: what it has changed is changed back, and noted as a
    fault. `blame` says whose code it is, `place` which call.
    """
    shared = [(what, get(), get, put) for what, get, put in _SHARED]
    timer = _Timer()
    try:
        # By its descriptor: the path may lead elsewhere by then.
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it was removed: nothing to return to
        before = None
    try:
        yield
    finally:
        for what, value, get, put in shared:
            if get() != value:
                put(value)
                _note(blame, place, what, is_back=get() == value)
        if timer.was_changed():
            timer.go_on()
            _note(blame, place, "the timer")
        if before is not None:
            try:
                if not _is_here(before):
                    os.fchdir(before)
                    _note(blame, place, "the working folder")
            finally:
                os.close(before)


def _umask() -> int:
    """Return the umask, which only a change shows: umask(2). Meanwhile it permits nobody more."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# Without SIGCHLD no exit code of a child is known, and SIGPIPE ends a process that writes to one.
_SIGNALS: Final = (
    *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM),
    *(signal.SIGCHLD, signal.SIGPIPE, signal.SIGUSR1, signal.SIGUSR2),
    *(signal.SIGPROF, signal.SIGVTALRM, signal.SIGXCPU, signal.SIGXFSZ),
)


def _handlers() -> list[Any]:
    return [signal.getsignal(each) for each in _SIGNALS]


def _handle(handlers: list[Any]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return  # only that one may
    for each, handler in zip(_SIGNALS, handlers, strict=True):
        if handler is not None:  # not one of Python
            signal.signal(each, handler)


def _streams() -> tuple[Any, Any]:
    return sys.stdout, sys.stderr


def _use(streams: tuple[Any, Any]) -> None:
    sys.stdout, sys.stderr = streams


def _blocked() -> set[int]:
    return signal.pthread_sigmask(signal.SIG_BLOCK, ())


def _block(signals: set[int]) -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, signals)


_LIMITS: Final = (
    *(resource.RLIMIT_FSIZE, resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK),
    *(resource.RLIMIT_CPU, resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC),
)


def _limits() -> list[tuple[int, int]]:
    return [resource.getrlimit(each) for each in _LIMITS]


def _limit(sizes: list[tuple[int, int]]) -> None:
    for each, (size, most) in zip(_LIMITS, sizes, strict=True):
        # Where the bound of a limit was lowered too, only root may raise it again.
        for bound in (most, resource.getrlimit(each)[1]):
            with contextlib.suppress(OSError, ValueError):
                resource.setrlimit(each, (_lower(size, bound), bound))
                break


def _lower(size: int, bound: int) -> int:
    known = [each for each in (size, bound) if each != resource.RLIM_INFINITY]
    return min(known, default=resource.RLIM_INFINITY)


_OTHER_TIMERS: Final = (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
"""Those of time on a CPU, which isobench does not use."""


def _timers() -> list[bool]:
    return [signal.getitimer(each)[0] > 0 for each in _OTHER_TIMERS]


def _stop_timers(were_on: list[bool]) -> None:
    for each, was_on in zip(_OTHER_TIMERS, were_on, strict=True):
        if not was_on:
            signal.setitimer(each, 0.0)


def _user() -> tuple[int, int]:
    return os.geteuid(), os.getegid()


def _be(user: tuple[int, int]) -> None:
    with contextlib.suppress(OSError):  # it has given up all rights
        os.seteuid(user[0])
        os.setegid(user[1])


def _stay_in(group: int) -> None:
    with contextlib.suppress(OSError):  # it has a session of its own now
        os.setpgid(0, group)


def _environment() -> tuple[MutableMapping[str, str], Mapping[str, str]]:
    return os.environ, dict(os.environ)


def _set_environment(before: tuple[Any, Mapping[str, str]]) -> None:
    os.environ, variables = before
    for name in {*os.environ} - {*variables}:
        del os.environ[name]
    os.environ.update(variables)


def _cpus() -> set[int]:
    return os.sched_getaffinity(0)


def _use_cpus(cpus: set[int]) -> None:
    with contextlib.suppress(OSError):  # they were taken away from isobench meanwhile
        os.sched_setaffinity(0, cpus)


_CLOCKS: Final = (
    *((time, name) for name in ("time", "monotonic", "perf_counter", "process_time")),
    *((time, f"{name}_ns") for name in ("time", "monotonic", "perf_counter", "process_time")),
    *((time, name) for name in ("sleep", "gmtime", "localtime", "strftime")),
    *((dt, name) for name in ("datetime", "date")),
)


def _clocks() -> list[Any]:
    return [getattr(module, name) for module, name in _CLOCKS]


def _set_clocks(clocks: list[Any]) -> None:
    for (module, name), clock in zip(_CLOCKS, clocks, strict=True):
        setattr(module, name, clock)


def _fatal() -> tuple[Sequence[Any], Mapping[str, str]]:
    """Return which warnings raise, and what NumPy does with errors of numbers."""
    numpy: Any = sys.modules.get("numpy")
    of_numpy = dict(numpy.geterr()) if hasattr(numpy, "geterr") else _NUMPY
    return [each for each in warnings.filters if each[0] == "error"], of_numpy


def _set_fatal(before: tuple[Sequence[Any], Mapping[str, str]]) -> None:
    fatal, of_numpy = before
    warnings.filters[:] = [  # type: ignore[index]
        each for each in warnings.filters if each[0] != "error" or each in fatal
    ]
    if (numpy := sys.modules.get("numpy")) is not None:
        numpy.seterr(**of_numpy)


_NUMPY: Final = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}
"""What NumPy does from its import on."""
_SHARED: Final[tuple[tuple[str, Callable[[], Any], Callable[[Any], object]], ...]] = (
    ("the user", _user, _be),  # first: others may need its rights
    ("the process group", os.getpgrp, _stay_in),  # to which a terminal sends Ctrl-C
    ("the timers of CPU time", _timers, _stop_timers),
    ("the clocks", _clocks, _set_clocks),
    ("the umask", _umask, os.umask),
    ("the recursion limit", sys.getrecursionlimit, sys.setrecursionlimit),
    ("handlers of signals", _handlers, _handle),
    ("the blocked signals", _blocked, _block),
    ("the standard streams", _streams, _use),
    ("the limits of resources", _limits, _limit),
    ("the environment variables", _environment, _set_environment),
    ("the CPUs", _cpus, _use_cpus),
    ("the time limit of sockets", socket.getdefaulttimeout, socket.setdefaulttimeout),
    ("the fatal warnings", _fatal, _set_fatal),
)
"""What else is kept: its name, how it is seen, and how it is set."""


class _Timer:
    """The timer of limits as it was: setitimer(2)."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._left, self._interval = signal.getitimer(signal.ITIMER_REAL)

    def was_changed(self) -> bool:
        """Return whether it would not go off as it would have."""
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        if not self._left:
            return left > 0
        remaining = self._remaining()
        if not left:
            # One that goes off once may have done so.
            return bool(self._interval) or remaining > _TOLERANCE
        return interval != self._interval or left > max(remaining, interval) + _TOLERANCE

    def go_on(self) -> None:
        """Let it go off when it would have."""
        if threading.current_thread() is threading.main_thread():
            left = max(self._remaining(), 0.001) if self._left else 0.0
            signal.setitimer(signal.ITIMER_REAL, left, self._interval)

    def _remaining(self) -> float:
        return self._left - (time.monotonic() - self._began)


_TOLERANCE: Final = 1.0
"""Seconds by which the timer may be off, as on a busy machine."""


def _is_here(folder: int) -> bool:
    """Return whether a folder is the working folder."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(folder), os.stat("."))  # noqa: PTH116 - as the other
    return False


def _note(blame: str, place: str, what: str, *, is_back: bool = True) -> None:
    if (blame, what) not in _blamed:
        _blamed.add((blame, what))
        then = "it was changed back" if is_back else "this cannot be changed back"
        text = f"{place} changed {what} of isobench; {then}"
        _unreported.append(PluginError(text, hint=blame))


def take_unreported() -> list[PluginError]:
    """Return the faults that were not reported yet. Each is returned once."""
    taken = list(_unreported)
    _unreported.clear()
    return taken
