"""Code of other distributions runs behind this guard: whatever it does wrong becomes a
`PluginError`, which names the distribution and carries the traceback.

`checked` wraps a target. What it returns has the same abilities (`isinstance` sees them), checks
the type of everything that comes back, turns what a plug-in prints to standard error, and ends
calls that take longer than they may.

The runner takes the plug-in's own objects (`direct`) for what it times, so that no line of the
guard stands between a request and its answer: there one `attending` goes around a whole visit,
`completed` checks results when the clock has stopped, and `fault` says whose an exception is.

A time limit is an alarm (SIGALRM) that raises in the plug-in's code. Python delivers signals to the
first thread alone, so that calls from other threads (a duet's) have none; probes, which run in
threads of their own, are waited for no longer than `PROBING` seconds.
"""

import contextlib
import functools
import opcode
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Final, TypeVar, cast

from isobench.config import paths
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
from isobench.model.errors import (
    IsobenchError,
    NotApplicableError,
    PluginError,
    SessionError,
    UsageError,
)
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import stdout
from isobench.plugins.api import (
    Channel,
    Completed,
    Exclusive,
    Explains,
    Lacks,
    Launcher,
    Limiter,
    Preparer,
    Restarter,
    Session,
    Startable,
    Sweeper,
    Target,
    Witness,
)

PROBING: Final = 60.0
"""Seconds within which all targets must have said whether they can run here."""
LOADING: Final = 60.0
ATTRIBUTE: Final = 10.0
OPENING: Final = 1800.0
"""A first opening may have to fetch an image."""
CLOSING: Final = 120.0
PREPARING: Final = 3600.0
SWEEPING: Final = 120.0
GRACE: Final = 30.0
"""Seconds that a command may take beyond the time limit it was given."""
_AGAIN: Final = 1.0
"""An alarm that a plug-in has swallowed rings again after so many seconds."""
_MOST_SAID: Final = 500
_MOST_LOG: Final = 1 << 20
_UNKNOWN: Final = "this is a fault of the target's plug-in: tell its author"
_OWN: Final = f"{Path(__file__).parents[1]}{os.sep}"
_LIBRARY: Final = f"{Path(opcode.__file__).parent}{os.sep}"
_RAISE: Final = opcode.opmap["RAISE_VARARGS"]

_T = TypeVar("_T")
_pending: Final[dict[str, list[str]]] = {}
"""Tracebacks of faults outside of a run, by target, until a run takes them into its logs."""


class _Late(BaseException):
    """Raised in a plug-in's code when its time is up; its `except Exception` must not catch it."""


# ---- whose fault ---------------------------------------------------------------------------------


def _said(error: BaseException) -> str:
    """Return an exception in words, even one that cannot be printed."""
    try:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
    except BaseException:  # noqa: BLE001 - its own __str__ raises
        text = type(error).__name__
    return text[:_MOST_SAID]


def _innermost(error: BaseException) -> TracebackType | None:
    """Return where an exception was raised, or None."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace


def _is_ours(error: BaseException) -> bool:
    """Say whether isobench's own code raised this."""
    trace = _innermost(error)
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN)


def _raised_by_hand(error: BaseException) -> bool:
    """Say whether code outside isobench raised this itself.

    Ctrl-C appears between any two instructions of whatever runs then, or comes from a handler of
    isobench's; a plug-in's own `raise` is an instruction of its own. Where the standard library
    raises, as asyncio does, it passes a Ctrl-C on.
    """
    trace = _innermost(error)
    if trace is None or _is_ours(error):
        return False
    code = trace.tb_frame.f_code
    in_library = code.co_filename.startswith(_LIBRARY) and "site-packages" not in code.co_filename
    return code.co_code[trace.tb_lasti] == _RAISE and not in_library


def _passes(error: BaseException) -> bool:
    """Say whether an exception is no fault: one that the interface provides for, or the user's."""
    if isinstance(error, KeyboardInterrupt | GeneratorExit):
        return not _raised_by_hand(error)
    return isinstance(error, SessionError | NotApplicableError) and _can_be_shown(error)


def _can_be_shown(error: IsobenchError) -> bool:
    """Say whether an error of a plug-in's has texts where texts belong."""
    try:
        texts = (str(error), error.hint, getattr(error, "log", ""))
    except BaseException:  # noqa: BLE001 - its own __str__ raises
        return False
    return all(isinstance(text, str) for text in texts)


@dataclass(frozen=True, kw_only=True)
class Maker:
    """Whose a plug-in is."""

    name: str
    distribution: str
    version: str = ""
    noun: str = "plug-in"
    """What it is called: "plug-in" for a target, else its kind, as in "exporter"."""

    @property
    def blame(self) -> str:
        """Whose fault it is, and what to do."""
        whose = f"{self.distribution} {self.version}".strip()
        return f"fault of the {self.noun} {self.name} in the distribution {whose}: tell its author"

    def fault(self, error: BaseException, place: str, *, in_run: bool = True) -> SessionError:
        """Return an exception that came out of `place` as an error to report; raise it again where
        it is no fault.

        The runner writes the traceback into the logs of its run; outside of a run it is kept here.
        """
        if isinstance(error, PluginError) or _passes(error):
            raise error
        if isinstance(error, IsobenchError) and _can_be_shown(error):  # it explains itself
            return SessionError(str(error), hint=error.hint)
        late = isinstance(error, _Late)
        what = f"{place} did not end within {error}" if late else f"{place}: {_said(error)}"
        lines = traceback.format_exception(error)
        return self.error(what, f"{place}:\n{''.join(lines)}", in_run=in_run)

    def error(self, what: str, log: str, *, in_run: bool) -> PluginError:
        """Return the error for a fault; outside of a run, keep its traceback."""
        log = f"{self.blame}\n{log}"
        key = self.name if self.noun == "plug-in" else f"{self.noun} {self.name}"
        where = f"logs/{self.name}.log in the folder of the run" if in_run else _keep(key, log)
        hint = f"{self.blame}; traceback: {where}" if where else self.blame
        return PluginError(what, hint=hint, log=log)

    @contextlib.contextmanager
    def loading(self, place: str) -> Iterator[None]:
        """Load and make the plug-in in here."""
        try:
            with stdout.elsewhere(), _limited(LOADING):
                yield
        except BaseException as error:
            if isinstance(error, UsageError) and _is_ours(error):  # a mistake in a configuration
                raise
            raise self.fault(error, place, in_run=False) from None

    @contextlib.contextmanager
    def calling(self, place: str, limit: float) -> Iterator[None]:
        """Call code of a plug-in that is no target in here, for `limit` seconds at most."""
        try:
            with stdout.elsewhere(), _limited(limit):
                yield
        except BaseException as error:  # noqa: BLE001 - whatever it raises is its fault, not our end
            raise self.fault(error, place, in_run=False) from None


def _keep(name: str, log: str) -> str:
    """Append a traceback to the log in the cache, and return its path; "" where it cannot be."""
    _pending.setdefault(name, []).append(log)
    path = paths.cache() / "plugins.log"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > _MOST_LOG:
            path.unlink()
        with path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} {log.rstrip()}\n\n")
    except OSError:
        return ""
    return str(path)


def hand_over(names: Iterable[str], log: Callable[[str, bytes], None]) -> None:
    """Give a run's logs the tracebacks of these targets' faults that came before it."""
    for name in names:
        for text in _pending.pop(name, ()):
            log(name, text.encode(errors="backslashreplace"))


@contextlib.contextmanager
def _limited(limit: float) -> Iterator[None]:
    """Raise `_Late` in here after so many seconds; only the first thread can be interrupted.

    An alarm that is set already (the run's own time limit, an outer call) goes on, and stands where
    it rings sooner.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    left, _ = signal.getitimer(signal.ITIMER_REAL)
    if 0 < left <= limit:
        yield
        return
    over: list[bool] = []

    def ring(_number: int, _frame: FrameType | None) -> None:
        if not over:
            raise _Late(f"{limit:g} s")

    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, ring)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, limit, _AGAIN)
            yield
        finally:
            over.append(True)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if before is None else before)
        if left:
            signal.setitimer(signal.ITIMER_REAL, max(left - (time.monotonic() - began), 0.001))


# ---- what may come back --------------------------------------------------------------------------


def _kind(value: object) -> str:
    """Return the type of a value with its article."""
    name = "None" if value is None else type(value).__name__
    return name if value is None else f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def _demand(value: object, kinds: "type | tuple[type, ...]", what: str, wanted: str) -> None:
    # True is an int to Python, and no exit code.
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds is not bool):
        raise TypeError(f"{what} is {_kind(value)}, not {wanted}")


def completed(done: object) -> Completed:
    """Return how a command ended; TypeError where that is something else."""
    _demand(done, Completed, "what came back", "a Completed")
    assert isinstance(done, Completed)
    _demand(done.exit_code, (int, type(None)), "exit_code", "an int or None")
    _demand(done.stdout, bytes, "stdout", "bytes")
    _demand(done.stderr, bytes, "stderr", "bytes")
    return done


def _availability(answer: object) -> Availability:
    _demand(answer, (Available, Unavailable), "what came back", "an Available or Unavailable")
    if isinstance(answer, Available):
        _demand(answer.version, str, "version", "a str")
        return answer
    assert isinstance(answer, Unavailable)
    _demand(answer.lack, Lack, "lack", "a Lack")
    _demand(answer.what, str, "what", "a str")
    _demand(answer.hint, str, "hint", "a str")
    return answer


def _technology(value: object) -> Technology:
    _demand(value, Technology, "technology", "a Technology")
    return cast("Technology", value)


def _abi(value: object) -> Abi | None:
    _demand(value, (Abi, type(None)), "abi", "an Abi or None")
    return cast("Abi | None", value)


def _name(value: object) -> TargetName:
    _demand(value, str, "name", "a str")
    return TargetName(str(value))


def _expectations(value: object) -> tuple[Expectation, ...]:
    _demand(value, (tuple, list), "expectations", "a tuple")
    for expectation in cast("tuple[object, ...]", value):
        _demand(expectation, Expectation, "one of expectations", "an Expectation")
        assert isinstance(expectation, Expectation)
        _demand(expectation.key, str, "the key of an expectation", "a str")
        _demand(expectation.relation, Relation, f"the relation of {expectation.key}", "a Relation")
        _demand(expectation.hint, str, f"the hint of {expectation.key}", "a str")
        if not isinstance(expectation.value, str | int | None):
            raise TypeError(
                f"the value of {expectation.key} is {_kind(expectation.value)}, not a fact"
            )
    return tuple(cast("tuple[Expectation, ...]", value))


def _starts(value: object) -> Mapping[str, str]:
    _demand(value, Mapping, "starts", "a mapping of texts")
    for key, text in cast("Mapping[object, object]", value).items():
        _demand(key, str, "a key of starts", "a str")
        _demand(text, str, f"starts[{key!r}]", "a str")
    return dict(cast("Mapping[str, str]", value))


def _lacks(value: object) -> Mapping[Need, str]:
    _demand(value, Mapping, "lacks", "a mapping from Need to a text")
    for need, why in cast("Mapping[object, object]", value).items():
        _demand(need, Need, "a key of lacks", "a Need")
        _demand(why, str, f"lacks[{need}]", "a str")
    return dict(cast("Mapping[Need, str]", value))


def _exclusive(value: object) -> bool:
    _demand(value, bool, "exclusive", "a bool")
    return value is True


def _limitable(value: object) -> Collection[Resource]:
    _demand(value, (tuple, list, set, frozenset), "limitable", "a collection of Resource")
    for resource in cast("Collection[object]", value):
        _demand(resource, Resource, "one of limitable", "a Resource")
    return frozenset(cast("Collection[Resource]", value))


def _leftovers(value: object) -> list[Leftover]:
    _demand(value, (tuple, list), "what sweep returned", "a list of Leftover")
    for found in cast("Sequence[object]", value):
        _demand(found, Leftover, "one of what sweep returned", "a Leftover")
        _demand(cast("Leftover", found).what, str, "what of a Leftover", "a str")
        _demand(cast("Leftover", found).failure, str, "failure of a Leftover", "a str")
    return list(cast("Sequence[Leftover]", value))


def _witnessed(value: object) -> list[Evidence]:
    found = []
    for fact in cast("Iterable[object]", value):
        _demand(fact, Evidence, "one of the facts", "an Evidence")
        assert isinstance(fact, Evidence)
        _demand(fact.key, str, "the key of a fact", "a str")
        _demand(fact.source, str, f"the source of {fact.key}", "a str")
        if not fact.key.startswith("host."):
            raise ValueError(f'{fact.key}: the facts of a witness begin with "host."')
        if not isinstance(fact.value, str | int | None):
            raise TypeError(f"the value of {fact.key} is {_kind(fact.value)}, not a fact")
        found.append(fact)
    return found


def _has(value: object, ability: type, what: str, wanted: str) -> None:
    if not isinstance(value, ability):
        raise TypeError(f"{what} is {_kind(value)}, not {wanted}")


# ---- the wrappers --------------------------------------------------------------------------------


class _Context(AbstractContextManager[_T]):
    """Enters and leaves a plug-in's context; what it yields is wrapped."""

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
        with self._target.calling(self._place, OPENING):
            inner = self._make()
            _has(inner, AbstractContextManager, "what came back", "a context manager")
            entered = inner.__enter__()
            self._inner = inner  # from here on there is something to close
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
        assert self._inner is not None  # it was entered
        try:
            with self._target.closing(f"the end of {self._place}", CLOSING, error):
                # Whether it wants to swallow the exception is not asked: it may be a Ctrl-C.
                self._inner.__exit__(kind, error, trace)
        except BaseException as again:
            if again is not error:  # that one goes on by itself
                raise


class _CheckedSession:
    """A session of a plug-in's."""

    def __init__(self, target: "CheckedTarget", inner: Session) -> None:
        self.target, self.inner = target, inner

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a program of the stage."""
        with self.target.calling("run", timeout / SECOND + GRACE):
            return completed(self.inner.run(command, timeout=timeout))


class _WitnessSession(_CheckedSession):
    def witness(self) -> Iterable[Evidence]:
        """Return the facts that the host sees."""
        with self.target.calling("witness", GRACE):
            return _witnessed(cast("Witness", self.inner).witness())


class _ChannelSession(_CheckedSession):
    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Go all the way and execute nothing."""
        with self.target.calling("null", timeout / SECOND + GRACE):
            return completed(cast("Channel", self.inner).null(timeout=timeout))


class _CheckedInstance:
    """A stopped instance of a plug-in's."""

    def __init__(self, target: "CheckedTarget", inner: Startable) -> None:
        self.target, self.inner = target, inner

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Start it and wait for its end."""
        with self.target.calling("start", timeout / SECOND + GRACE):
            return completed(self.inner.start(timeout=timeout))


class CheckedTarget:
    """A target of another distribution's. Its abilities are those of the subclasses below."""

    def __init__(self, inner: Target, maker: Maker) -> None:
        """Read what does not change; PluginError where it is of a wrong type."""
        self.inner, self.maker = inner, maker
        self.broken: SessionError | None = None
        """What has gone wrong for good: nothing of it is called any more."""
        with maker.loading("its attributes"):
            self.name = _name(inner.name)
            self.technology = _technology(inner.technology)
            self.abi = _abi(inner.abi)
            _expectations(inner.expectations)

    def __getattr__(self, name: str) -> object:
        """Return an option or the like; an ability that this class has not never shows through."""
        if name in _NEVER_THROUGH:
            raise AttributeError(name)
        return getattr(self.inner, name)

    @contextlib.contextmanager
    def calling(self, place: str, limit: float, *, in_run: bool = True) -> Iterator[None]:
        """Call the plug-in in here, unless it is broken."""
        if self.broken is not None:
            raise self.broken
        with self.closing(place, limit, None, in_run=in_run):
            yield

    @contextlib.contextmanager
    def closing(
        self, place: str, limit: float, passing: BaseException | None, *, in_run: bool = True
    ) -> Iterator[None]:
        """Call the plug-in in here, even a broken one; `passing` is an exception that is on its way
        through it.
        """
        try:
            with stdout.elsewhere(), _limited(limit):
                yield
        except BaseException as error:
            if error is passing:
                raise
            raise self.fault(error, place, in_run=in_run) from None

    def fault(self, error: BaseException, place: str, *, in_run: bool = True) -> SessionError:
        """Return an exception that came out of `place` as an error to report, as `Maker.fault`.

        What was late once is broken: each further call would cost as long again.
        """
        found = self.maker.fault(error, place, in_run=in_run)
        if isinstance(error, _Late):
            self.broken = found
        return found

    def fact(self, name: str, check: Callable[[object], _T], otherwise: _T) -> _T:
        """Return an attribute; where it cannot be had, the target is broken and has another."""
        try:
            with self.calling(name, ATTRIBUTE, in_run=False):
                return check(getattr(self.inner, name))
        except SessionError as error:
            self.broken = self.broken or error
            return otherwise

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What must be seen from inside; SessionError where that cannot be had."""
        with self.calling("expectations", ATTRIBUTE):
            return _expectations(self.inner.expectations)

    def probe(self) -> Availability:
        """Say whether it can run here, and whether all that it says of itself is well formed."""
        try:
            with self.calling("probe", PROBING, in_run=False):
                answer = _availability(self.inner.probe())
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
        """Start a fresh instance."""

        def wrap(entered: object) -> Session:
            if not callable(getattr(entered, "run", None)):
                raise TypeError(f"open yielded {_kind(entered)}, which has no run")
            session = cast("Session", entered)
            kinds = [kind for kind, has in _SESSIONS.items() if isinstance(session, has)]
            made: Session = _made("CheckedSession", *(kinds or [_CheckedSession]))(self, session)
            return made

        return _Context(self, "open", lambda: self.inner.open(stage), wrap)


class _Launches(CheckedTarget):
    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a new instance that runs the command."""
        with self.calling("launch", timeout / SECOND + GRACE):
            return completed(cast("Launcher", self.inner).launch(stage, command, timeout=timeout))


class _Restarts(CheckedTarget):
    def stopped(self, stage: Stage, command: Command) -> AbstractContextManager[Startable]:
        """Make an instance that will run the command at each start."""

        def wrap(entered: object) -> Startable:
            _has(entered, Startable, "what stopped yielded", "a Startable")
            return _CheckedInstance(self, cast("Startable", entered))

        inner = cast("Restarter", self.inner)
        return _Context(self, "stopped", lambda: inner.stopped(stage, command), wrap)


class _Excludes(CheckedTarget):
    @property
    def exclusive(self) -> bool:
        """Say whether there may be one instance at a time."""
        return self.fact("exclusive", _exclusive, otherwise=False)


class _Limits(CheckedTarget):
    @property
    def limitable(self) -> Collection[Resource]:
        """What it can limit here."""
        return self.fact("limitable", _limitable, frozenset())

    def limited(self, limits: Limits) -> Target:
        """Return the same target with limits."""
        with self.calling("limited", ATTRIBUTE):
            inner = cast("Limiter", self.inner).limited(limits)
            _has(inner, Target, "what limited returned", "a Target")
            return checked(inner, self.maker)


class _Prepares(CheckedTarget):
    def prepare(self, say: Callable[[str], None]) -> None:
        """Make what is kept between runs."""
        with self.calling("prepare", PREPARING, in_run=False):
            cast("Preparer", self.inner).prepare(say)


class _Sweeps(CheckedTarget):
    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove what dead runs have left; what goes wrong is one of the results."""
        try:
            with self.calling("sweep", SWEEPING, in_run=False):
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
    _Prepares: Preparer,
    _Sweeps: Sweeper,
    _Lacking: Lacks,
    _Explaining: Explains,
}
_SESSIONS: Final[Mapping[type, type]] = {_WitnessSession: Witness, _ChannelSession: Channel}
_FACTS: Final[Mapping[type, str]] = {
    _Excludes: "exclusive",
    _Limits: "limitable",
    _Lacking: "lacks",
    _Explaining: "starts",
}


_NEVER_THROUGH: Final = frozenset(
    {"inner", "maker", "broken", "launch", "stopped", "exclusive", "limitable", "limited"}
    | {"prepare", "sweep", "starts", "lacks"}
)


@functools.cache
def _made(name: str, *kinds: type) -> Callable[..., Any]:
    """Return a class with these abilities. Python's Protocols look at classes, not at what an
    object would answer.
    """
    facts = frozenset(_FACTS[kind] for kind in kinds if kind in _FACTS)
    return type(name, kinds, {"facts": facts})


def checked(inner: Target, maker: Maker) -> Target:
    """Return a target that behaves; PluginError where this one is none."""
    with maker.loading("its attributes"):
        kinds = [kind for kind, ability in _ABILITIES.items() if isinstance(inner, ability)]
    made: Target = _made("CheckedTarget", *(kinds or [CheckedTarget]))(inner, maker)
    return made


# ---- for the runner ------------------------------------------------------------------------------


def direct(wrapped: _T) -> _T:
    """Return the plug-in's own target or session, for what is timed; SessionError where it is
    broken. What is not wrapped is returned as it is.
    """
    if not isinstance(wrapped, CheckedTarget | _CheckedSession):
        return wrapped
    target = wrapped if isinstance(wrapped, CheckedTarget) else wrapped.target
    if target.broken is not None:
        raise target.broken
    return cast("_T", wrapped.inner)


def attending(target: Target, limit: float) -> AbstractContextManager[None]:
    """Attend to a visit, which calls the plug-in's own objects: its prints, and its time."""
    return _attended(limit) if isinstance(target, CheckedTarget) else contextlib.nullcontext()


@contextlib.contextmanager
def _attended(limit: float) -> Iterator[None]:
    with stdout.elsewhere(), _limited(limit):
        yield


def fault(target: Target, error: BaseException, place: str) -> SessionError:
    """Return what came out of a target's code as an error to report; raise it again where it is
    the user's, or the interpreter's.
    """
    if isinstance(error, SessionError) and _can_be_shown(error):
        return error
    if isinstance(target, CheckedTarget):
        return target.fault(error, place)
    if not isinstance(error, Exception):
        raise error
    if isinstance(error, IsobenchError):
        return SessionError(str(error), hint=error.hint)
    return PluginError(_said(error), hint=_UNKNOWN, log="".join(traceback.format_exception(error)))


# ---- probes --------------------------------------------------------------------------------------


def _unavailable(error: IsobenchError) -> Unavailable:
    return Unavailable(lack=Lack.PLUGIN, what=f"the plug-in is broken: {error}", hint=error.hint)


class _Asked:
    """A target that is asked in a thread of its own, which dies with isobench."""

    def __init__(self, name: TargetName, target: Target) -> None:
        self._name, self._target = name, target
        self._answer: Availability | BaseException | None = None
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def _ask(self) -> None:
        try:
            self._answer = _availability(self._target.probe())
        except BaseException as error:  # noqa: BLE001 - handed on
            self._answer = error

    def answer(self, until: float) -> Availability:
        """Return the answer, or that there was none until then (time.monotonic)."""
        self._thread.join(max(0.0, until - time.monotonic()))
        match self._answer:
            case None:
                return self._late()
            case Available() | Unavailable() as answer:
                return answer
            case BaseException() as error:
                # Only of what is not wrapped: in-tree, or a test's.
                said = Maker(name=self._name, distribution="isobench").error(
                    f"probe: {_said(error)}",
                    "".join(traceback.format_exception(error)),
                    in_run=False,
                )
                return _unavailable(said)

    def _late(self) -> Unavailable:
        frame = sys._current_frames().get(self._thread.ident or 0)  # noqa: SLF001 - there is no other way
        log = "probe has not ended; it is here:\n" + "".join(traceback.format_stack(frame))
        maker = Maker(name=self._name, distribution="isobench")
        if isinstance(self._target, CheckedTarget):
            maker = self._target.maker
        error = maker.error(f"probe did not end within {PROBING:g} s", log, in_run=False)
        if isinstance(self._target, CheckedTarget):
            self._target.broken = error
        return _unavailable(error)


def probe(
    targets: Mapping[TargetName, Target], heard: Callable[[TargetName, Availability], None]
) -> dict[TargetName, Availability]:
    """Ask all targets side by side what they can do here; each answers, or is said to be broken."""
    until = time.monotonic() + PROBING
    asked = {name: _Asked(name, target) for name, target in targets.items()}
    answers = {}
    for name, one in asked.items():
        answers[name] = one.answer(until)
        heard(name, answers[name])
    return answers
