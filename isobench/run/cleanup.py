"""Removes what dead runs have left on this machine."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

from isobench.model import Leftover
from isobench.model.units import TargetName
from isobench.payload import stage
from isobench.plugins import guard, ownership
from isobench.plugins.api import Target
from isobench.plugins.registry import Registry

CLEAN: Final = "isobench clean --stale removes what is left"
BRIEF: Final = 20.0
"""Seconds that a sweep may take before and after a run."""
_AFTER_PROBES: Final = 8.0
"""The same after an interruption of probes: an engine that does not answer may be the reason.

On a busy machine, Podman took more than 3 s to say what it had, and a pod stayed until the next
start.
"""
_BETWEEN: Final = 0.2
"""Seconds between two sweeps after an interruption."""


def sweep(
    registry: Registry,
    *,
    everything: bool,
    observer: Callable[[Leftover], None],
    limit: float = guard.SWEEP_LIMIT,
) -> None:
    """Remove what dead runs have left; with `everything`, also all that isobench keeps, except
    results. `observer` is called with each result. A failing target does not stop the others, and
    none takes longer than `limit` seconds.
    """
    seen: set[Leftover] = set()

    def report(leftover: Leftover) -> None:
        # Several targets find the same plain processes.
        if leftover not in seen:
            seen.add(leftover)
            observer(leftover)

    _report(_found("folders", lambda: stage.sweep(ownership.alive)), report)
    _report(_found("folders", lambda: ownership.sweep_temporary(ownership.alive)), report)
    targets = {name: registry.get(name) for name in registry.names()}
    guard.sweep(targets, ownership.alive, cached=everything, on_leftover=report, limit=limit)
    if everything:
        _report(_found("cache", stage.remove_cache), report)


def sweep_before(registry: Registry, observer: Callable[[Leftover], None]) -> None:
    """Remove what dead runs have left, before a run."""
    sweep(registry, everything=False, observer=observer, limit=BRIEF)


def sweep_own(
    targets: Mapping[TargetName, Target],
    say: Callable[[str], None],
    *,
    limit: float = BRIEF,
) -> None:
    """Remove what this process may have left, as after an interruption; `say` hears what stays."""
    left: dict[str, str] = {}

    def report(leftover: Leftover) -> None:
        left[leftover.what] = leftover.failure

    def alive(whose: str) -> bool:
        return whose != ownership.mine() and ownership.alive(whose)

    try:
        # Twice: an engine may still be making a container for a request whose answer was
        # interrupted.
        for _ in range(2):
            began = time.monotonic()
            guard.sweep(targets, alive, cached=False, on_leftover=report, limit=limit)
            if time.monotonic() - began > limit:  # nor would it answer the second time
                break
            time.sleep(_BETWEEN)
    finally:
        for what, failure in left.items():
            if failure:
                say(f"{what} is not removed: {failure}; {CLEAN}")


@contextlib.contextmanager
def swept_if_interrupted(
    targets: Mapping[TargetName, Target], say: Callable[[str], None]
) -> Iterator[None]:
    """Surround calls of targets outside of a run, such as probes. After an interruption, and where
    something could not be removed, what may be left is; `say` hears what is not.
    """
    try:
        yield
    except KeyboardInterrupt:
        sweep_own(targets, say, limit=_AFTER_PROBES)
        raise
    if ownership.take_doubt():
        sweep_own(targets, say, limit=_AFTER_PROBES)


def _found(what: str, sweep: Callable[[], Sequence[Leftover]]) -> list[Leftover]:
    """Return the results of one sweep; if it fails, that as the only result."""
    try:
        return [*sweep()]
    # One target whose sweep fails must not keep the leftovers of the others in place.
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in must not end isobench
        why = f"looking for leftovers failed: {type(error).__name__}: {error}"
        return [Leftover(what=what, failure=why)]


def _report(found: Sequence[Leftover], observer: Callable[[Leftover], None]) -> None:
    for leftover in found:
        observer(leftover)
