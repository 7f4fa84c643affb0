"""Guards calls of plug-ins of other distributions. Whatever a plug-in does wrong becomes a
`PluginError`, which names the distribution and has the traceback.

`checked` wraps a target. The wrapper has the same abilities (for `isinstance`), checks the types of
all results, sends what the plug-in prints to standard error, and limits the time of each call.

For what it times, the runner uses the plug-in's own objects (`unwrapped`), so that the guard adds
nothing to the time. There one `guard_visit` surrounds a whole visit, `completed` checks the results
when the clock has stopped, and `fault` finds out which code raised an exception.

A time limit is an alarm (SIGALRM) whose handler raises an exception in the plug-in's code. Python
runs signal handlers in the main thread only (https://docs.python.org/3/library/signal.html), so
calls from other threads (a duet's) have no limit. Probes and sweeps run in their own threads, and
isobench stops waiting for them at their limit. isobench's own targets are limited by `deadlines`.
"""

import contextlib
import errno
import functools
import opcode
import os
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_AS, getrlimit
from types import TracebackType
from typing import Any, Final, TypeVar, cast

from isobench.config import cache, paths, redaction
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    Limits,
    Need,
    Relation,
    Resource,
    Stage,
    Technology,
    Unavailable,
)
from isobench.model.bounds import LARGEST, MOST_FACT_TEXT, MOST_FACTS
from isobench.model.cleaning import LONGEST
from isobench.model.errors import (
    IsobenchError,
    NotApplicableError,
    PluginError,
    SessionError,
    UsageError,
)
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import deadlines, stdout, surroundings
from isobench.plugins.api import (
    Channel,
    Completed,
    Exclusive,
    Explains,
    Interactive,
    Lacks,
    Launcher,
    Limiter,
    Preparer,
    Restarter,
    Session,
    Startable,
    Sweeper,
    Target,
    Throttled,
    Witness,
)
from isobench.plugins.deadlines import TimeLimitError
from isobench.plugins.signals import uninterrupted

PROBE_LIMIT: Final = 60.0
"""Seconds until all probes must have ended."""
LOAD_LIMIT: Final = 60.0
ATTRIBUTE_LIMIT: Final = 10.0
_DESCRIBING_LIMIT: Final = 5.0
OPEN_LIMIT: Final = 1800.0
"""Long, since a first opening may have to download an image."""
CLOSE_LIMIT: Final = 120.0
PROOF_LIMIT: Final = 300.0
# Making a guest downloads and unpacks a whole system.
PREPARE_LIMIT: Final = 3600.0
SWEEP_LIMIT: Final = 120.0
GRACE: Final = 30.0
"""Seconds that a command may take beyond its time limit."""
_STRAY: Final = 1
"""The exit code of a process that a plug-in has forked and lost."""
_MOST_TEXT: Final = 500
_MOST_TRACEBACK: Final = 1 << 16
_MOST_ITEMS: Final = 1000
"""Items of a list that a plug-in returns, such as leftovers."""
# The log in the cache belongs to no run, so nothing else limits its size.
_MOST_LOG: Final = 1 << 20
_BLAME_UNKNOWN: Final = "this is a bug of the target's plug-in: report it to its author"
_SPACE: Final = "free space there (df -h), or name folders on another disk: XDG_CACHE_HOME, TMPDIR"
_OPEN_FILES: Final = "raise the limit of open files (ulimit -n), or measure fewer targets at once"
_MACHINE_HINTS: Final[Mapping[int, str]] = {
    errno.ENOSPC: _SPACE,
    errno.EDQUOT: _SPACE,
    errno.EROFS: "make it writable, or name other folders: XDG_CACHE_HOME, TMPDIR",
    errno.EMFILE: _OPEN_FILES,
    errno.ENFILE: _OPEN_FILES,
    errno.EAGAIN: "raise the limit of processes and threads (ulimit -u; pids.max of the cgroup, of"
    " a container: --pids-limit), or measure fewer targets at once",
    errno.ENOMEM: "free memory, or raise the limit of it (memory.max of the cgroup, of a container:"
    " --memory)",
}
"""Errors that are the machine's, whatever code they end: errno(3)."""
_PACKAGE_PATH: Final = f"{Path(__file__).parents[1]}{os.sep}"
_LIBRARY_PATH: Final = f"{Path(opcode.__file__).parent}{os.sep}"
_RAISE_OPCODE: Final = opcode.opmap["RAISE_VARARGS"]

_T = TypeVar("_T")
_pending: Final[dict[str, list[str]]] = {}
"""Tracebacks of errors before a run, by target, until a run writes them to its logs."""


# ---- which code is at fault ----------------------------------------------------------------------


def _describe(error: BaseException) -> str:
    """Return an exception as text, even one that cannot be printed."""
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except (KeyboardInterrupt, TimeLimitError):  # its own __str__ does not end
        raise
    except BaseException:  # noqa: BLE001 - its own __str__ raises
        text = type(error).__name__
    return _beginning(text, _MOST_TEXT)


def _texts_of(error: BaseException) -> tuple[str, str]:
    """Return an exception as text, and its traceback. Its own code makes these, and has a limit."""
    try:
        with _limited(_DESCRIBING_LIMIT):
            return _describe(error), "".join(traceback.format_exception(error))
    except TimeLimitError:
        return type(error).__name__, "its text did not end\n"


def _beginning(text: str, most: int) -> str:
    """Return the beginning of a text of any length, without secrets."""
    # Looking for secrets takes minutes in a text without a bound. Half a secret, where this cuts,
    # is not recognized: so twice as much is searched as is kept.
    return redaction.beginning(text[: 2 * most], most)


def _bounded(text: str, most: int = LONGEST) -> str:
    """Return a text of a plug-in as it is, or of a long one the beginning."""
    return text if len(text) <= most else f"{_beginning(text, most - 1)}\N{HORIZONTAL ELLIPSIS}"


def _bounded_error(error: BaseException) -> BaseException:
    """Return an error with texts of bounded length: itself, if it has such."""
    if not isinstance(error, SessionError | NotApplicableError):
        return error
    found, hint, log = str(error), error.hint, getattr(error, "log", "")
    if max(len(found), len(hint)) <= LONGEST and len(log) <= _MOST_LOG:
        return error
    found, hint = _bounded(found), _bounded(hint)
    if isinstance(error, NotApplicableError):
        return NotApplicableError(found, hint=hint)
    return SessionError(found, hint=hint, log=log[:_MOST_LOG])


def _innermost(error: BaseException) -> TracebackType | None:
    """Return the traceback entry where an exception was raised, or None."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _raised_by_isobench(error: BaseException) -> bool:
    """Return whether isobench's own code raised this."""
    trace = _innermost(error)
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_PACKAGE_PATH)


def _raised_explicitly(error: BaseException) -> bool:
    """Return whether a `raise` statement outside isobench raised this."""
    # A KeyboardInterrupt of Ctrl-C appears at any instruction, and the one of a `raise` statement
    # at RAISE_VARARGS: https://docs.python.org/3/library/dis.html#opcode-RAISE_VARARGS. The
    # standard library does not count: asyncio.run, for one, raises a KeyboardInterrupt for a
    # Ctrl-C.
    trace = _innermost(error)
    if trace is None or _raised_by_isobench(error):
        return False
    code = trace.tb_frame.f_code
    in_library = (
        code.co_filename.startswith(_LIBRARY_PATH) and "site-packages" not in code.co_filename
    )
    return code.co_code[trace.tb_lasti] == _RAISE_OPCODE and not in_library


def _is_no_fault(error: BaseException) -> bool:
    """Return whether an exception is allowed: one of the interface, or the user's Ctrl-C."""
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return not _raised_explicitly(error)
    return isinstance(error, SessionError | NotApplicableError) and _has_texts(error)


def _has_texts(error: IsobenchError) -> bool:
    """Return whether message, hint and log of an error can be used as text."""
    try:
        texts = (str(error), error.hint, getattr(error, "log", ""))
    except BaseException:  # noqa: BLE001 - its own __str__ raises
        return False
    return all(isinstance(text, str) for text in texts)


class MachineError(SessionError):
    """The machine lacks what any code needs: space on a disk, open files, processes. No code is at
    fault.
    """


def machine_error(error: BaseException) -> MachineError | None:
    """Return the error to report where the machine is at fault; None: it is not."""
    number = _error_number(error)
    if number not in _MACHINE_HINTS:
        return None
    hint = _MACHINE_HINTS[number]
    space, _ = getrlimit(RLIMIT_AS)
    # The stack of a thread needs it too: pthread_create(3) then reports EAGAIN.
    if number in (errno.EAGAIN, errno.ENOMEM) and space != RLIM_INFINITY:
        hint = f"raise the limit of the address space (ulimit -v: {space >> 10} KiB); or {hint}"
    if number == errno.ENOMEM and not isinstance(error, OSError):
        return MachineError("not enough memory", hint=hint)
    # Where writing fails, and not opening, Python names no file.
    places = getattr(error, "filename", None) or (
        "a new process or thread"
        if number in (errno.EAGAIN, errno.ENOMEM)
        else "a library"
        if isinstance(error, ImportError)
        else f"{paths.cache()} or {os.environ.get('TMPDIR', '/tmp')}"  # noqa: S108 - its name
    )
    return MachineError(f"{places}: {os.strerror(number)}"[:_MOST_TEXT], hint=hint)


def _error_number(error: BaseException) -> int:
    """Return the error number of errno(3) for what the system has refused; 0: nothing."""
    match error:
        case OSError():
            return error.errno or 0
        case MemoryError():
            return errno.ENOMEM
        # Python has no type for a thread that the system refuses: pthread_create(3), EAGAIN.
        case RuntimeError() if str(error) == "can't start new thread":
            return errno.EAGAIN
        # Nor for a library that dlopen(3) cannot load: its message says why. The first is that of
        # mmap(2) without memory.
        case ImportError():
            reasons = {
                "failed to map segment": errno.ENOMEM,
                **{os.strerror(each): each for each in (errno.ENOMEM, errno.EMFILE, errno.ENFILE)},
            }
            text = "".join(traceback.format_exception(error))  # packages wrap it in their own
            return next((reasons[each] for each in reasons if each in text), 0)
        case _:
            return 0


@dataclass(frozen=True, kw_only=True)
class PluginInfo:
    """The name of a plug-in and its distribution, to be named in errors."""

    name: str
    distribution: str
    version: str = ""
    noun: str = "plug-in"
    """Its kind for messages: "plug-in" for a target, else as in "exporter"."""

    @property
    def blame(self) -> str:
        """Which plug-in is at fault, and what to do."""
        place = f"{self.distribution} {self.version}".strip()
        return f"bug of the {self.noun} {self.name} in {place}: report it to its author"

    def fault(self, error: BaseException, place: str, *, in_run: bool = True) -> SessionError:
        """Return the error to report for an exception that was raised in `place`. An exception that
        is allowed is raised again.

        The runner writes the traceback to the logs of its run. Outside of a run (`in_run` is false)
        it goes to the log in the cache.
        """
        if isinstance(error, PluginError) or _is_no_fault(error):
            raise _bounded_error(error)
        # An IsobenchError has a message for the user, and needs no traceback.
        if isinstance(error, IsobenchError) and _has_texts(error):
            return SessionError(_bounded(str(error)), hint=_bounded(error.hint))
        if (of_machine := machine_error(error)) is not None:
            return of_machine
        late = isinstance(error, TimeLimitError)
        text, trace = _texts_of(error)
        what = f"{place} did not end within {error}" if late else f"{place}: {text}"
        return self.error(what, f"{place}:\n{trace}", in_run=in_run)

    def error(self, what: str, log: str, *, in_run: bool) -> PluginError:
        """Return the error for a bug. Outside of a run, write its traceback to the log in the
        cache.
        """
        log = f"{self.blame}\n{_bounded(log, _MOST_TRACEBACK)}"
        key = self.name if self.noun == "plug-in" else f"{self.noun} {self.name}"
        where = (
            f"logs/{self.name}.log in the folder of the run" if in_run else _append_to_log(key, log)
        )
        hint = f"{self.blame}; traceback: {where}" if where else self.blame
        return PluginError(what, hint=hint, log=log)

    @contextlib.contextmanager
    def loading(self, place: str) -> Iterator[None]:
        """Surround loading and making the plug-in: exceptions become SessionErrors."""
        try:
            with self.surrounded(place, LOAD_LIMIT):
                yield
        except BaseException as error:
            # That is a mistake in the user's configuration, and no bug of the plug-in.
            if isinstance(error, UsageError) and _raised_by_isobench(error):
                raise
            raise self.fault(error, place, in_run=False) from None

    @contextlib.contextmanager
    def calling(self, place: str, limit: float) -> Iterator[None]:
        """Surround a call of a plug-in that is not a target, with a limit of `limit` seconds."""
        try:
            with self.surrounded(place, limit):
                yield
        except BaseException as error:  # noqa: BLE001 - whatever it raises is reported
            raise self.fault(error, place, in_run=False) from None

    @contextlib.contextmanager
    def surrounded(self, place: str, limit: float) -> Iterator[None]:
        """Surround code of the plug-in: redirect output, limit the time, keep what it shares with
        isobench.
        """
        # Several threads run at the same time: nobody knows which has changed what. `_in_parallel`
        # keeps it for all of them.
        in_main = threading.current_thread() is threading.main_thread()
        keeping = surroundings.kept(self.blame, place) if in_main else contextlib.nullcontext()
        with stdout.to_stderr(), _limited(limit), keeping:
            yield


def _append_to_log(name: str, log: str) -> str:
    """Append a traceback to the log in the cache, and return its path; "" if that fails."""
    # It is kept twice: a run that follows has the traceback in its logs, all others in the cache.
    log = redaction.text(log)
    _pending.setdefault(name, []).append(log)
    try:
        path = cache.made() / "plugins.log"
        if path.exists() and path.stat().st_size > _MOST_LOG:
            path.unlink()
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {log.rstrip()}\n\n")
    except (OSError, UsageError):
        return ""
    return str(path)


def write_pending_logs(names: Iterable[str], log: Callable[[str, bytes], None]) -> None:
    """Write the tracebacks of errors before the run to its logs, by calling `log(name, text)`."""
    for name in names:
        for text in _pending.pop(name, ()):
            # Messages of exceptions may contain surrogates, which UTF-8 cannot encode.
            log(name, text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def _limited(limit: float) -> Iterator[None]:
    """Raise `TimeLimitError` within this context after so many seconds. Threads other than the main
    one are not limited, but their waits are.
    """
    process = os.getpid()
    with deadlines.watched(limit), deadlines.alarm(limit):
        try:
            yield
        finally:
            # A plug-in has forked, and its child comes back: as a second isobench it would write
            # into the same run, and end what the first one has started. It ends before anything
            # else: another thread may have held a lock when it was made, which nobody frees there.
            if os.getpid() != process:
                os._exit(_STRAY)


# ---- types of results ----------------------------------------------------------------------------


def _type_name(value: object) -> str:
    """Return the type of a value with its article."""
    name = "None" if value is None else type(value).__name__
    return name if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _require_type(value: object, kinds: "type | tuple[type, ...]", what: str, wanted: str) -> None:
    # bool is a subclass of int, but True is not an exit code.
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise TypeError(f"{what} is {_type_name(value)}, not {wanted}")


def completed(done: object) -> Completed:
    """Return the result of a command; TypeError: it is not a valid `Completed`."""
    _require_type(done, Completed, "what came back", "a Completed")
    assert isinstance(done, Completed)
    _require_type(done.exit_code, (int, type(None)), "exit_code", "an int or None")
    _require_type(done.stdout, bytes, "stdout", "bytes")
    _require_type(done.stderr, bytes, "stderr", "bytes")
    return done


def _availability(answer: object) -> Availability:
    _require_type(answer, (Available, Unavailable), "what came back", "an Available or Unavailable")
    if isinstance(answer, Available):
        _require_type(answer.version, str, "version", "a str")
        return replace(answer, version=_bounded(answer.version))
    assert isinstance(answer, Unavailable)
    _require_type(answer.lack, Lack, "lack", "a Lack")
    _require_type(answer.what, str, "what", "a str")
    _require_type(answer.hint, str, "hint", "a str")
    return replace(answer, what=_bounded(answer.what), hint=_bounded(answer.hint))


def _technology(value: object) -> Technology:
    _require_type(value, Technology, "technology", "a Technology")
    return cast("Technology", value)


def _abi(value: object) -> Abi | None:
    _require_type(value, (Abi, type(None)), "abi", "an Abi or None")
    return cast("Abi | None", value)


def _name(value: object) -> TargetName:
    _require_type(value, str, "name", "a str")
    return TargetName(str(value))


def _expectations(value: object) -> tuple[Expectation, ...]:
    _require_type(value, (tuple, list), "expectations", "a tuple")
    _require_few(cast("tuple[object, ...]", value), "expectations")
    for expectation in cast("tuple[object, ...]", value):
        _require_type(expectation, Expectation, "one of expectations", "an Expectation")
        assert isinstance(expectation, Expectation)
        _require_type(expectation.key, str, "the key of an expectation", "a str")
        _require_type(
            expectation.relation, Relation, f"the relation of {expectation.key}", "a Relation"
        )
        _require_type(expectation.hint, str, f"the hint of {expectation.key}", "a str")
        if not isinstance(expectation.value, str | int | None):
            raise TypeError(
                f"the value of {expectation.key} is {_type_name(expectation.value)}, not a fact"
            )
        if len(expectation.key) + len(str(expectation.value)) > LONGEST:
            raise ValueError(f"an expectation has more than {LONGEST} characters")
    found = cast("tuple[Expectation, ...]", value)
    return tuple(replace(each, hint=_bounded(each.hint)) for each in found)


def _require_few(value: Sized, what: str) -> None:
    if len(value) > _MOST_ITEMS:
        raise ValueError(f"{what}: more than {_MOST_ITEMS}")


def _starts(value: object) -> Mapping[str, str]:
    _require_type(value, Mapping, "starts", "a mapping of texts")
    _require_few(cast("Mapping[object, object]", value), "starts")
    for key, text in cast("Mapping[object, object]", value).items():
        _require_type(key, str, "a key of starts", "a str")
        _require_type(text, str, f"starts[{key!r}]", "a str")
    found = cast("Mapping[str, str]", value)
    return {_bounded(key): _bounded(text) for key, text in found.items()}


def _lacks(value: object) -> Mapping[Need, str]:
    _require_type(value, Mapping, "lacks", "a mapping from Need to a text")
    for need, why in cast("Mapping[object, object]", value).items():
        _require_type(need, Need, "a key of lacks", "a Need")
        _require_type(why, str, f"lacks[{need}]", "a str")
    return {need: _bounded(why) for need, why in cast("Mapping[Need, str]", value).items()}


def _exclusive(value: object) -> bool:
    _require_type(value, bool, "exclusive", "a bool")
    return value is True


def _quota(value: object) -> float:
    _require_type(value, (int, float), "cpu_quota", "a number of CPUs")
    return float(cast("float", value))


def _limitable(value: object) -> Collection[Resource]:
    _require_type(value, (tuple, list, set, frozenset), "limitable", "a collection of Resource")
    for resource in cast("Collection[object]", value):
        _require_type(resource, Resource, "one of limitable", "a Resource")
    return frozenset(cast("Collection[Resource]", value))


def _leftovers(value: object) -> list[Leftover]:
    _require_type(value, (tuple, list), "what sweep returned", "a list of Leftover")
    _require_few(cast("Sequence[object]", value), "what sweep returned")
    for found in cast("Sequence[object]", value):
        _require_type(found, Leftover, "one of what sweep returned", "a Leftover")
        _require_type(cast("Leftover", found).what, str, "what of a Leftover", "a str")
        _require_type(cast("Leftover", found).failure, str, "failure of a Leftover", "a str")
    return [
        Leftover(what=_bounded(each.what), failure=_bounded(each.failure))
        for each in cast("Sequence[Leftover]", value)
    ]


def _evidence(value: object) -> list[Evidence]:
    found: list[Evidence] = []
    size = 0
    for fact in cast("Iterable[object]", value):
        _require_type(fact, Evidence, "one of the facts", "an Evidence")
        assert isinstance(fact, Evidence)
        _require_type(fact.key, str, "the key of a fact", "a str")
        _require_type(fact.source, str, f"the source of {fact.key}", "a str")
        if not fact.key.startswith("host."):
            raise ValueError(f'{fact.key}: the facts of a witness begin with "host."')
        if not isinstance(fact.value, str | int | None):
            raise TypeError(f"the value of {fact.key} is {_type_name(fact.value)}, not a fact")
        if isinstance(fact.value, int) and abs(fact.value) > LARGEST:
            raise ValueError(f"the value of {fact.key} has more than 62 bits")
        found.append(fact)
        size += fact.size
        if len(found) > MOST_FACTS or size > MOST_FACT_TEXT:
            raise ValueError(
                f"more than {MOST_FACTS} facts, or more than {MOST_FACT_TEXT} characters of them"
            )
    return found


def _require_ability(value: object, ability: type, what: str, wanted: str) -> None:
    if not isinstance(value, ability):
        raise TypeError(f"{what} is {_type_name(value)}, not {wanted}")


# ---- the wrappers --------------------------------------------------------------------------------


class _Context(AbstractContextManager[_T]):
    """Enters and leaves a context of a plug-in, and wraps what it yields."""

    def __init__(
        self,
        target: "CheckedTarget",
        place: str,
        make: Callable[[], AbstractContextManager[Any]],
        wrap: Callable[[object], _T],
    ) -> None:
        self._target, self._place, self._make, self._wrap = target, place, make, wrap
        self._inner: AbstractContextManager[Any] | None = None

    def __enter__(self) -> _T:
        with self._target.calling(self._place, OPEN_LIMIT):
            inner = self._make()
            _require_ability(inner, AbstractContextManager, "what came back", "a context manager")
            entered = inner.__enter__()
            self._inner = inner  # from here on it must be closed
            try:
                return self._wrap(entered)
            except TypeError:
                inner.__exit__(None, None, None)
                raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        assert self._inner is not None  # __enter__ has set it
        try:
            with self._target.closing(f"the end of {self._place}", CLOSE_LIMIT, error):
                # The result is ignored: a plug-in must not suppress an exception, which may be a
                # Ctrl-C.
                self._inner.__exit__(kind, error, trace)
        except BaseException as again:
            if again is not error:  # the with statement raises `error` again by itself
                raise


class _CheckedSession:
    """A session of a plug-in."""

    def __init__(self, target: "CheckedTarget", inner: Session) -> None:
        self.target, self.inner = target, inner

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program of the stage."""
        with self.target.calling("run", timeout / SECOND + GRACE):
            return completed(self.inner.run(command, timeout=timeout))


class _WitnessSession(_CheckedSession):
    def witness(self) -> Iterable[Evidence]:
        """Return the facts that only the host sees."""
        with self.target.calling("witness", GRACE):
            return _evidence(cast("Witness", self.inner).witness())


class _ChannelSession(_CheckedSession):
    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Send a request that executes nothing."""
        with self.target.calling("null", timeout / SECOND + GRACE):
            return completed(cast("Channel", self.inner).null(timeout=timeout))


class _InteractiveSession(_CheckedSession):
    @property
    def interactive(self) -> bool:
        """Whether programs get a standard input."""
        with self.target.calling("interactive", ATTRIBUTE_LIMIT):
            return cast("Interactive", self.inner).interactive is True


class _CheckedInstance:
    """A stopped instance of a plug-in."""

    def __init__(self, target: "CheckedTarget", inner: Startable) -> None:
        self.target, self.inner = target, inner

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Start it and wait for its end."""
        with self.target.calling("start", timeout / SECOND + GRACE):
            return completed(self.inner.start(timeout=timeout))


class CheckedTarget:
    """A target of another distribution. The subclasses below add its abilities."""

    def __init__(self, inner: Target, info: PluginInfo) -> None:
        """Read the attributes that do not change; PluginError: one has a wrong type."""
        self.inner, self.info = inner, info
        self.broken: SessionError | None = None
        """Why the target is broken; its code is then no longer called. None: it is not."""
        with info.loading("its attributes"):
            self.name = _name(inner.name)
            self.technology = _technology(inner.technology)
            self.abi = _abi(inner.abi)
            _expectations(inner.expectations)

    def __getattr__(self, name: str) -> object:
        """Return an attribute of the plug-in's target, such as an option."""
        # An ability that this class does not have must not come from the plug-in unchecked.
        if name in _NEVER_DELEGATED:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @contextlib.contextmanager
    def calling(self, place: str, limit: float, *, in_run: bool = True) -> Iterator[None]:
        """Surround a call of the plug-in. SessionError: it is broken, or the call failed."""
        if self.broken is not None:
            raise self.broken
        with self.closing(place, limit, None, in_run=in_run):
            yield

    @contextlib.contextmanager
    def closing(
        self, place: str, limit: float, propagating: BaseException | None, *, in_run: bool = True
    ) -> Iterator[None]:
        """Surround a call of the plug-in, even of a broken one. `propagating` is an exception that
        passes through it.
        """
        try:
            with self.info.surrounded(place, limit):
                yield
        except BaseException as error:
            if error is propagating:
                raise
            raise self.fault(error, place, in_run=in_run) from None

    def fault(self, error: BaseException, place: str, *, in_run: bool = True) -> SessionError:
        """Return the error to report for an exception in `place`: see `PluginInfo.fault`."""
        found = self.info.fault(error, place, in_run=in_run)
        # After one time limit the target is broken: each further call may take as long again.
        if isinstance(error, TimeLimitError):
            self.broken = found
        return found

    def fact(self, name: str, check: Callable[[object], _T], otherwise: _T) -> _T:
        """Return an attribute. If that fails, the target is broken, and `otherwise` is returned."""
        try:
            with self.calling(name, ATTRIBUTE_LIMIT, in_run=False):
                return check(getattr(self.inner, name))
        except SessionError as error:
            self.broken = self.broken or error
            return otherwise

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """The facts that a session must show; SessionError: they cannot be read."""
        with self.calling("expectations", ATTRIBUTE_LIMIT):
            return _expectations(self.inner.expectations)

    def probe(self) -> Availability:
        """Return whether it can run here, and whether its attributes are well formed."""
        try:
            with self.calling("probe", PROBE_LIMIT, in_run=False):
                answer = _availability(self.inner.probe())
            # Read here, so that a broken attribute shows before the run and not in the middle of
            # it.
            for name in ("starts", "exclusive", "limitable", "lacks"):
                if isinstance(answer, Available) and name in type(self).facts:
                    getattr(self, name)
            if self.broken is not None:
                raise self.broken
        except SessionError as error:
            return _unavailable(error)
        return answer

    facts: frozenset[str] = frozenset()

    def open(self, stage: Stage) -> AbstractContextManager[Session]:
        """Start a new instance."""

        def wrap(entered: object) -> Session:
            if not callable(getattr(entered, "run", None)):
                raise TypeError(f"open yielded {_type_name(entered)}, which has no run")
            session = cast("Session", entered)
            kinds = [kind for kind, has in _SESSIONS.items() if isinstance(session, has)]
            wrapped_object: Session = _class_with("CheckedSession", *(kinds or [_CheckedSession]))(
                self, session
            )
            return wrapped_object

        return _Context(self, "open", lambda: self.inner.open(stage), wrap)


class _Launches(CheckedTarget):
    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a new instance that runs the command."""
        with self.calling("launch", timeout / SECOND + GRACE):
            return completed(cast("Launcher", self.inner).launch(stage, command, timeout=timeout))


class _Restarts(CheckedTarget):
    def stopped(self, stage: Stage, command: Command) -> AbstractContextManager[Startable]:
        """Make an instance that runs the command at each start."""

        def wrap(entered: object) -> Startable:
            _require_ability(entered, Startable, "what stopped yielded", "a Startable")
            return _CheckedInstance(self, cast("Startable", entered))

        inner = cast("Restarter", self.inner)
        return _Context(self, "stopped", lambda: inner.stopped(stage, command), wrap)


class _Excludes(CheckedTarget):
    @property
    def exclusive(self) -> bool:
        """Whether there can be only one instance at a time."""
        return self.fact("exclusive", _exclusive, otherwise=False)


class _Limits(CheckedTarget):
    @property
    def limitable(self) -> Collection[Resource]:
        """The resources that it can limit here."""
        return self.fact("limitable", _limitable, frozenset())

    def limited(self, limits: Limits) -> Target:
        """Return the same target with limits."""
        with self.calling("limited", ATTRIBUTE_LIMIT):
            inner = cast("Limiter", self.inner).limited(limits)
            _require_ability(inner, Target, "what limited returned", "a Target")
            return checked(inner, self.info)


class _Throttles(CheckedTarget):
    @property
    def cpu_quota(self) -> float:
        """CPUs that an instance may use; 0: no limit."""
        return self.fact("cpu_quota", _quota, 0.0)


class _Prepares(CheckedTarget):
    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the files that are kept between runs."""
        with self.calling("prepare", PREPARE_LIMIT, in_run=False):
            cast("Preparer", self.inner).prepare(lambda text: say(_bounded(text)))


class _Sweeps(CheckedTarget):
    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what dead runs have left. An error is one of the results."""
        try:
            with self.calling("sweep", SWEEP_LIMIT, in_run=False):
                return _leftovers(cast("Sweeper", self.inner).sweep(alive, cached=cached))
        except SessionError as error:
            what = f"what {self.name} may have left"
            return [Leftover(what=what, failure=f"{error} → {error.hint}")]


class _Lacking(CheckedTarget):
    @property
    def lacks(self) -> Mapping[Need, str]:
        """What its sessions cannot offer, with the reason."""
        return self.fact("lacks", _lacks, {})


class _Explaining(CheckedTarget):
    @property
    def starts(self) -> Mapping[str, str]:
        """One sentence for each kind of start."""
        return self.fact("starts", _starts, {})


_ABILITIES: Final[Mapping[type, type]] = {
    _Launches: Launcher,
    _Restarts: Restarter,
    _Excludes: Exclusive,
    _Limits: Limiter,
    _Throttles: Throttled,
    _Prepares: Preparer,
    _Sweeps: Sweeper,
    _Lacking: Lacks,
    _Explaining: Explains,
}
_SESSIONS: Final[Mapping[type, type]] = {
    _WitnessSession: Witness,
    _ChannelSession: Channel,
    _InteractiveSession: Interactive,
}
_ATTRIBUTES: Final[Mapping[type, str]] = {
    _Excludes: "exclusive",
    _Limits: "limitable",
    _Throttles: "cpu_quota",
    _Lacking: "lacks",
    _Explaining: "starts",
}


_NEVER_DELEGATED: Final = frozenset(
    {"inner", "info", "broken", "launch", "stopped", "exclusive", "limitable", "limited"}
    | {"prepare", "sweep", "starts", "lacks", "cpu_quota"}
)


@functools.cache
def _class_with(name: str, *kinds: type) -> Callable[..., Any]:
    """Return a class with these abilities."""
    # `isinstance` with a runtime Protocol looks for the attributes of an object, and an ability
    # that a plug-in does not have must not be found: so each combination of abilities has its own
    # class.
    facts = frozenset(_ATTRIBUTES[kind] for kind in kinds if kind in _ATTRIBUTES)
    return type(name, kinds, {"facts": facts})


def checked(inner: Target, info: PluginInfo) -> Target:
    """Return a wrapper of a plug-in's target; SessionError: its attributes are invalid."""
    with info.loading("its attributes"):
        kinds = [kind for kind, ability in _ABILITIES.items() if isinstance(inner, ability)]
    wrapped_object: Target = _class_with("CheckedTarget", *(kinds or [CheckedTarget]))(inner, info)
    return wrapped_object


# ---- for the runner ------------------------------------------------------------------------------


def unwrapped(wrapped: _T) -> _T:
    """Return the plug-in's own target or session, for what is timed. An object that is not wrapped
    is returned as it is. SessionError: the target is broken.
    """
    if not isinstance(wrapped, CheckedTarget | _CheckedSession):
        return wrapped
    target = wrapped if isinstance(wrapped, CheckedTarget) else wrapped.target
    if target.broken is not None:
        raise target.broken
    return cast("_T", wrapped.inner)


def guard_visit(target: Target, limit: float) -> AbstractContextManager[None]:
    """Surround a visit that calls the plug-in's own objects: redirect output, limit the time."""
    if isinstance(target, CheckedTarget):
        return target.info.surrounded("the visit", limit)
    return within(target, "the visit", limit)


def within(target: Target, place: str, limit: float) -> AbstractContextManager[Any]:
    """Surround a call of a target of isobench with a limit of `limit` seconds. DeadlineError: it
    took longer. Wrapped targets limit their calls themselves.
    """
    if isinstance(target, CheckedTarget):
        return contextlib.nullcontext()
    return deadlines.within(limit, place)


def fault(target: Target, error: BaseException, place: str) -> SessionError:
    """Return the error to report for an exception of a target's code. Raise it again where it comes
    from the user (Ctrl-C) or from the interpreter.
    """
    if isinstance(error, SessionError) and _has_texts(error):
        return cast("SessionError", _bounded_error(error))
    if isinstance(target, CheckedTarget):
        return target.fault(error, place)
    # In-tree targets are not wrapped: a KeyboardInterrupt or SystemExit there is meant for
    # isobench.
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, IsobenchError):
        return SessionError(str(error), hint=error.hint)
    if (of_machine := machine_error(error)) is not None:
        return of_machine
    text, trace = _texts_of(error)
    return PluginError(text, hint=_BLAME_UNKNOWN, log=trace)


# ---- probes --------------------------------------------------------------------------------------


def _unavailable(error: IsobenchError) -> Unavailable:
    if isinstance(error, MachineError):
        return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
    return Unavailable(lack=Lack.PLUGIN, what=f"the plug-in is broken: {error}", hint=error.hint)


_CANCEL_SECONDS: Final = 2.0
"""How long calls that were cancelled may take to clean up."""
_END_SECONDS: Final = 2.0
"""How long a call whose waits have all ended may take to say so."""
_E = TypeVar("_E")


def _in_parallel(
    targets: Mapping[TargetName, Target],
    place: str,
    calls: Mapping[TargetName, Callable[[], _T]],
    limit: float,
    read: Callable[[TargetName, deadlines.Call[_T]], _E],
) -> dict[TargetName, _E]:
    """Make calls of several targets at the same time, each in a thread and within `limit` seconds.
    Return what `read` makes of each. `place` is their name.

    An exception in this thread, such as that of Ctrl-C, ends all calls.
    """
    foreign = [targets[name] for name in calls]
    blames = [each.info.blame for each in foreign if isinstance(each, CheckedTarget)]
    if not blames:
        return _called(calls, limit, read)
    blame = blames[0] if len(blames) == 1 else f"one of: {'; '.join(blames)}"
    with surroundings.kept(_bounded(blame), place):
        return _called(calls, limit, read)


def _called(
    calls: Mapping[TargetName, Callable[[], _T]],
    limit: float,
    read: Callable[[TargetName, deadlines.Call[_T]], _E],
) -> dict[TargetName, _E]:
    # They run at the same time, so that one limit is enough for all. A call that reaches it has
    # some seconds more to clean up, and to say itself what it was waiting for. Waits that it begins
    # meanwhile end with these seconds, and the call a moment later.
    until = time.monotonic() + limit + deadlines.GRACE + _END_SECONDS
    made: dict[TargetName, deadlines.Call[_T]] = {}
    try:
        for name, call in calls.items():
            made[name] = deadlines.Call(call, limit)
        found = {}
        for name, one in made.items():
            one.join(until)
            found[name] = read(name, one)
    except BaseException:
        with uninterrupted():
            for one in made.values():
                one.cancel()
            until = time.monotonic() + _CANCEL_SECONDS
            for one in made.values():
                one.join(until)
        raise
    return found


def probe(
    targets: Mapping[TargetName, Target], on_answer: Callable[[TargetName, Availability], None]
) -> dict[TargetName, Availability]:
    """Probe all targets in parallel, and return whether each can run here. `on_answer` is called
    with each result.
    """

    def read(name: TargetName, call: deadlines.Call[Availability]) -> Availability:
        answer = _answer(name, targets[name], call)
        on_answer(name, answer)
        return answer

    calls = {name: functools.partial(_probed, target) for name, target in targets.items()}
    return _in_parallel(targets, "probe", calls, PROBE_LIMIT, read)


def _probed(target: Target) -> Availability:
    return _availability(target.probe())


def _answer(name: TargetName, target: Target, call: deadlines.Call[Availability]) -> Availability:
    """Return the result of a probe; Unavailable where there is none."""
    if call.result is not None:
        return call.result
    info = PluginInfo(name=name, distribution="isobench")
    if isinstance(target, CheckedTarget):
        info = target.info
    elif not call.has_ended or isinstance(call.error, deadlines.DeadlineError):
        return _late(name, call)
    elif isinstance(call.error, SessionError):
        # A tool of this machine that does not answer is no bug of the target.
        return Unavailable(lack=Lack.RUNTIME, what=str(call.error), hint=call.error.hint)
    if call.has_ended:
        assert call.error is not None
        if (of_machine := machine_error(call.error)) is not None:
            return _unavailable(of_machine)
        text, trace = _texts_of(call.error)
        return _unavailable(info.error(f"probe: {text}", trace, in_run=False))
    log = f"probe has not ended; it is at:\n{call.stack}"
    what = (
        f"probe did not end within {PROBE_LIMIT:g} s; a tool or server that it asks may not answer"
    )
    error = info.error(what, log, in_run=False)
    if isinstance(target, CheckedTarget):
        target.broken = error
    return _unavailable(error)


def _late(name: TargetName, call: deadlines.Call[Availability]) -> Unavailable:
    """Return the answer in place of a target of isobench's whose probe came to no end."""
    where = "" if call.has_ended else _append_to_log(name, f"probe is at:\n{call.stack}")
    return Unavailable(
        lack=Lack.RUNTIME,
        what=f"probe did not end within {PROBE_LIMIT:g} s: a tool or server that it asks does not"
        " answer",
        hint="start its tools by hand, or restart its service"
        + (f"; where the probe waits: {where}" if where else ""),
    )


def sweep(
    targets: Mapping[TargetName, Target],
    alive: Callable[[str], bool],
    *,
    cached: bool,
    on_leftover: Callable[[Leftover], None],
    limit: float = SWEEP_LIMIT,
) -> None:
    """Let all targets that can remove what dead runs have left, in parallel, each within `limit`
    seconds. `on_leftover` is called with each result; a failure is one of them.
    """

    def read(name: TargetName, call: deadlines.Call[Sequence[Leftover]]) -> None:
        for leftover in _swept(name, call, limit):
            on_leftover(leftover)

    calls = {
        name: functools.partial(target.sweep, alive, cached=cached)
        for name, target in targets.items()
        if isinstance(target, Sweeper)
    }
    _in_parallel(targets, "sweep", calls, limit, read)


def _swept(
    name: TargetName, call: deadlines.Call[Sequence[Leftover]], limit: float
) -> Sequence[Leftover]:
    if call.result is not None:
        return call.result
    why = f"it did not end within {limit:g} s"
    if call.has_ended:
        why = _texts_of(call.error)[0] if call.error is not None else "it returned nothing"
    return [Leftover(what=f"what {name} may have left", failure=f"looking for it failed: {why}")]
