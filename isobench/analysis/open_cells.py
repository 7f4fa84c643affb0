"""What would settle the cells that have no verdict: a command with its time, or nothing. Pure."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from isobench.analysis import verdict
from isobench.config.options import RunOptions
from isobench.model import TIME, Estimate, Status, Verdict, commands
from isobench.model.bounds import LEAST_SHARE, MOST_WANTED
from isobench.model.units import TargetName
from isobench.model.wording import TOO_FEW, listed, outcome_text, series_text, times_text
from isobench.storage.schema import OpenCell

DECIDED: Final = frozenset({Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER})
# Those that are needed come from the spread so far, which is itself uncertain.
_MORE: Final = 1.2
_STEPS: Final = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 120)
"""Minutes of budgets, so that many cells share one command."""
_MINUTE: Final = 60
_START: Final = 15.0
"""Seconds that a resumed run needs before its first block."""
_SIDES_OF_NATIVE: Final = 2
"""A new run measures native twice beside each target."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """What a run has measured, and how fast."""

    blocks: int
    planned: int
    """The blocks of the plan: a resumed run continues within it."""
    seconds_per_block: float | None
    """Of its last blocks, in which only cells took part that a resumed run would measure too."""
    visits_per_block: int
    resume: str = ""
    """The command that resumes the run; empty: it cannot be resumed where it is."""
    argv: tuple[str, ...] | None = None
    """The command line that has begun the run."""
    variations: Mapping[TargetName, tuple[TargetName, str]] = field(default_factory=dict)
    """The target that each variation varies, and the variation as --vary takes it."""
    precision: float | None = None
    """The half-width of intervals at which the run stops, as a share; 0: it does not stop so."""


def open_cells(
    cells: Iterable[tuple[Verdict, int | None]], pace: Pace, margin: float
) -> Iterator[OpenCell]:
    """Yield each cell without a verdict. `cells` are verdicts, each with the number of blocks that
    would decide it (None: unknown); `margin` is a ratio above 1.
    """
    for judged, needed in cells:
        if judged.status in DECIDED:
            continue
        command, reason = _settled_by(judged, needed, pace, margin)
        # Where something other than the interval withholds the verdict, it excludes nothing.
        counts = judged.estimate is not None and not any(doubt.blocks for doubt in judged.doubts)
        excluded = _excluded(judged.estimate, margin) if judged.estimate and counts else ()
        yield OpenCell(
            target=judged.target,
            workload=judged.workload,
            metric=judged.metric,
            excluded=excluded,
            command=command,
            sentence=_sentence(judged, excluded, reason, margin),
        )


def _settled_by(judged: Verdict, needed: int | None, pace: Pace, margin: float) -> tuple[str, str]:
    """Return the command that would settle a cell, and the reason where there is none."""
    withholding = [doubt for doubt in judged.doubts if doubt.blocks]
    blocking = next((doubt for doubt in withholding if doubt.code != verdict.FEW_BLOCKS), None)
    estimate = judged.estimate
    if blocking is not None:
        return "", f"More blocks alone do not settle it: {blocking.detail}"
    if withholding:
        wanted = max(verdict.ENOUGH_BLOCKS, pace.blocks + 1)
        return _command(judged, wanted, wanted - pace.blocks, pace, margin), ""
    if estimate is None:
        return "", "See its gaps"
    if estimate.sessions:
        return "", "Its sessions differ: more of them settle it (--launch fresh)"
    # A cell that needs more blocks than a user may ask for is too near the margin.
    wanted = max(math.ceil(_MORE * (needed or 0)), math.ceil(_MORE * estimate.blocks))
    if needed is None or wanted > MOST_WANTED:
        return "", "No longer run will settle it: the ratio is too near the margin for its noise"
    return _command(judged, wanted, wanted - estimate.blocks, pace, margin), ""


def _command(judged: Verdict, wanted: int, more: int, pace: Pace, margin: float) -> str:
    """Return the command that measures `more` blocks of a cell, so that it has `wanted`."""
    each = pace.seconds_per_block or 0.0
    most = pace.blocks + more
    if pace.resume and most <= min(pace.planned, MOST_WANTED):
        stops = RunOptions.precision if pace.precision is None else pace.precision
        options = _length(_START + more * each, most) | _narrow(judged, stops, margin)
        return " ".join([pace.resume, *(f"{name} {value}" for name, value in options.items())])
    # The plan of this run has too few blocks, or it has been moved: a run of this cell alone is
    # faster than a longer one.
    base, written = pace.variations.get(judged.target, (judged.target, ""))
    own = _SIDES_OF_NATIVE + (2 if written else 1)  # a variation is measured beside its base
    share = own / max(pace.visits_per_block, own)
    options = {"--targets": base, "--workloads": judged.workload}
    options |= _length(_START + wanted * each * share, wanted)
    names, typed = list(commands.SHAPING), dict(commands.given(pace.argv or ()))
    # The user's own precision stays where such a run decides the cell before it stops.
    precision = pace.precision or 0.0
    if "--target-precision" in typed and 0 < precision < _needed(judged, margin):
        names.append("--target-precision")
    else:
        options |= _narrow(judged, RunOptions.precision, margin)
    # The cell is judged at the margin for which its blocks were counted, wherever that came from.
    if "--margin" not in typed:
        options |= _margin(margin)
    varied = [written] if written else []
    return commands.measure(pace.argv, options, variations=varied, names=names)


def _length(seconds: float, blocks: int) -> dict[str, str]:
    """Return the options of a run that has so many seconds and blocks."""
    limit = {"--max-blocks": str(blocks)} if blocks > RunOptions.maximum_blocks else {}
    return {"--budget": _budget(seconds)} | limit


def _narrow(judged: Verdict, stops: float, margin: float) -> dict[str, str]:
    """Return the option without which a run would stop before it decides a cell; nothing where it
    does not. It `stops` at intervals of this half-width.
    """
    needed = _needed(judged, margin)
    half = needed / 2
    return {"--target-precision": _share(half)} if needed <= stops and half > LEAST_SHARE else {}


def _needed(judged: Verdict, margin: float) -> float:
    """Return the half-width of an interval that decides a cell, as a share."""
    if judged.estimate is None or judged.estimate.ratio <= 0:
        return math.inf
    ratio, end = math.log(judged.estimate.ratio), math.log(margin)
    return min(abs(ratio - end), abs(ratio + end))


def _margin(margin: float) -> dict[str, str]:
    """Return the option of a margin, a ratio above 1, that is not the usual one."""
    share = margin - 1
    is_usual = math.isclose(share, RunOptions.margin)
    return {} if is_usual or share >= 1 else {"--margin": _share(share)}


def _share(share: float) -> str:
    return f"{100 * share:.3g}%"


def _budget(seconds: float) -> str:
    """Return a budget of this length or a little longer, as the command line takes it."""
    minutes = seconds / _MINUTE
    step = next((step for step in _STEPS if step >= minutes), None)
    return f"{step}m" if step is not None else f"{math.ceil(minutes / _MINUTE)}h"


def _excluded(estimate: Estimate, margin: float) -> tuple[Status, ...]:
    """Return the outcomes that the interval of a cell excludes."""
    low, high = _ends(estimate, margin)
    near = high > 1 / margin and low < margin
    possible = {
        Status.FASTER: low < 1 / margin,
        Status.NEAR_NATIVE: near,
        Status.SLOWER: high > margin,
    }
    return tuple(status for status, may_be in possible.items() if not may_be)


def _ends(estimate: Estimate, margin: float) -> tuple[float, float]:
    """Return the ends of the interval of an open cell. Where it alone would decide, two estimators
    disagree: then the cell may be where either of them has it.
    """
    interval, check = estimate.interval, estimate.check
    if check is None or not verdict.is_definite(interval, margin):
        return interval.ends
    return min(interval.low, check.low), max(interval.high, check.high)


def _sentence(judged: Verdict, excluded: Sequence[Status], reason: str, margin: float) -> str:
    """Return what is known of an open cell, and why no command settles it."""
    known = _known(judged, excluded, margin)
    return f"{known}. {reason}." if reason else f"{known}."


def _known(judged: Verdict, excluded: Sequence[Status], margin: float) -> str:
    """Return between which bounds the cell lies, and which outcomes that excludes."""
    estimate = judged.estimate
    place = f"{judged.target} at {series_text(judged.workload, judged.metric)}"
    if estimate is None:
        few = any(doubt.code == verdict.FEW_BLOCKS for doubt in judged.doubts)
        return f"{place} has no ratio{f': {TOO_FEW}' if few else ''}"
    withheld = any(doubt.blocks for doubt in judged.doubts)
    ends = estimate.interval.ends if withheld else _ends(estimate, margin)
    either = "" if ends == estimate.interval.ends else ", by either of two estimators"
    found = f"{place} {_extent(ends, excluded, judged.metric)}{either}"
    if not excluded:
        return found if withheld else f"{found}: nothing is excluded"
    order = (Status.FASTER, Status.NEAR_NATIVE, Status.SLOWER)
    out = [outcome_text(one, judged.metric) for one in order if one in excluded]
    left = [outcome_text(one, judged.metric) for one in order if one not in excluded]
    return f"{found}: {_are(out)} excluded, {_are(left)} not"


def _are(words: Sequence[str]) -> str:
    return f"{listed(words)} {'is' if len(words) == 1 else 'are'}"


def _extent(ends: tuple[float, float], excluded: Sequence[Status], metric: str) -> str:
    low, high = map(times_text, ends)
    verb, native = ("takes", "native's time") if metric == TIME.name else ("is", "native's value")
    if tuple(excluded) == (Status.FASTER,):
        return f"{verb} at most {high} {native}"
    if tuple(excluded) == (Status.SLOWER,):
        return f"{verb} at least {low} {native}"
    return f"{verb} {low} to {high} {native}"


def best_command(cells: Sequence[OpenCell]) -> tuple[str, int]:
    """Return the shortest command that resumes the run and settles at least half of the cells
    that any resumed run settles, and how many it settles; without one, no command and 0.
    """
    resumable = [(minutes_of(cell.command), cell.command) for cell in cells]
    ordered = sorted((m, c) for m, c in resumable if m is not None)
    if not ordered:
        return "", 0
    minutes, command = ordered[(len(ordered) - 1) // 2]
    within = [(m, c) for m, c in ordered if m <= minutes]
    return max(within)[1] if within else command, len(within)


def minutes_of(command: str) -> float | None:
    """Return the budget in minutes of a command that resumes a run; None for any other."""
    return commands.budget_of(command) if commands.resumes(command) else None
