"""Whether a run differs from the runs before it, and whether fresh blocks confirm that.

A run is compared with the runs of its series since the last change point that had the same program
and schedule, by the spread of these runs (`stats.beside_history`). Runs of more than half a year
ago are left out where there are enough later ones, and so are the few that lie far from all others
(`stats.outliers`). A difference is suspected where it is significant after Holm's correction for
all cells of the run, and larger than the noise floor. It is confirmed where a further run of the
same night shows it again. Without a suspicion, a cell is unchanged where its interval lies within
`MARGIN`, as in `comparison`; else nothing is shown either way.
"""

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

import numpy as np

from isobench import stats
from isobench.history import search
from isobench.history.row import Row
from isobench.history.series import (
    Changed,
    Key,
    Series,
    changed,
    counts,
    is_measured_alike,
    key_of,
    location,
    series_of,
)
from isobench.model import Interval
from isobench.model.wording import time_text
from isobench.stats import REPORTED_LEVEL, Location

ALPHA: Final = 0.01
"""How likely a run without any change raises a suspicion."""
CONFIRMED_ALPHA: Final = 0.05
"""For the further run, which tests few cells for one direction."""
FEWEST_BASE: Final = 2
"""Runs that a level rests on at least: one does not show how much runs differ."""
MOST_BASE: Final = 60
"""Older runs than so many say little about tonight."""
LONGEST_BASE: Final = timedelta(days=180)
"""And neither do runs of longer ago, where the machine has `MOST_BASE` of later ones."""
MARGIN: Final = 0.05
"""What lies within so much of the level is unchanged: that of `compare --min-effect`."""


class Outcome(StrEnum):
    """How a cell of a run compares with its series."""

    REGRESSION = "regression"
    IMPROVEMENT = "improvement"
    UNCHANGED = "unchanged"
    INCONCLUSIVE = "inconclusive"  # neither a change nor that there is none
    TOO_FEW = "too few runs"  # of those before, measured in the same way
    UNPROVEN = "unproven"  # the run gave no value that counts


SUSPECT: Final = frozenset({Outcome.REGRESSION, Outcome.IMPROVEMENT})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A cell of a run beside its series."""

    row: Row
    outcome: Outcome
    confirmed: bool | None = None
    """None: no further run has measured the cell."""
    location: Location | None = None
    """ln(this run / level before)."""
    level: float | None = None
    """The level before, as a ratio to native."""
    runs: int = 0
    """How many runs the level rests on."""
    left_out: int = 0
    """How many others lie too far from these."""
    noise: float | None = None
    changed: tuple[Changed, ...] = ()
    """What is not as in the run before."""

    @property
    def interval(self) -> Interval | None:
        """The interval of this run over the level before."""
        return None if self.location is None else self.location.interval(REPORTED_LEVEL)

    @property
    def is_alarm(self) -> bool:
        """Whether it is a confirmed regression."""
        return self.outcome is Outcome.REGRESSION and bool(self.confirmed)


def judge(
    rows: Sequence[Row],
    past: Iterable[Row],
    *,
    minimum_effect: float = 0.0,
    searcher: search.Search = search.here,
) -> list[Finding]:
    """Return how each cell of a run compares with the runs before it.

    `past` are the rows of the store; those of this run, of later ones, and of runs that confirm are
    left out. `minimum_effect`: smaller differences do not matter (0.02: 2 %).
    """
    found = _compared(rows, _base(rows, past, searcher))
    p_values = [one.location.p_difference if one.location else 1.0 for one in found]
    adjusted = stats.holm(np.array(p_values, dtype=np.float64)).tolist()
    return [_judged(one, p, ALPHA, minimum_effect) for one, p in zip(found, adjusted, strict=True)]


def confirm(
    findings: Sequence[Finding],
    again: Sequence[Row],
    past: Iterable[Row],
    *,
    searcher: search.Search = search.here,
) -> list[Finding]:
    """Return the findings after a further run. What it does not show again is inconclusive; a cell
    that it has not measured, or not in the same way, stays as it was.
    """
    before = {key_of(one.row): one.row for one in findings}
    fresh = {
        key_of(row): row
        for row in again
        if counts(row)
        and (first := before.get(key_of(row))) is not None
        and is_measured_alike(row, first)
    }
    base = _base([one.row for one in findings], past, searcher)
    # All cells take part, since the spread of the others counts too: measured again or not.
    rows = [fresh.get(key_of(one.row), one.row) for one in findings]
    compared = {key_of(one.row): one for one in _compared(rows, base)}
    result = []
    for one in findings:
        row = fresh.get(key_of(one.row))
        if one.outcome not in SUSPECT or row is None:
            result.append(one)
            continue
        second = compared[key_of(row)]
        p = second.location.p_difference if second.location else 1.0
        seen = _judged(second, p, CONFIRMED_ALPHA, 0.0).outcome
        is_shown = seen is one.outcome
        result.append(
            replace(
                one,
                confirmed=is_shown,
                outcome=one.outcome if is_shown else Outcome.INCONCLUSIVE,
            )
        )
    return result


def base_since(first: Row, past: Iterable[Row]) -> str:
    """Return the time since which runs are compared with a run; empty: with all before it.

    `past` are rows of its machine, the latest ones at least: with fewer the time is no later.
    """
    known = {
        row.started
        for row in past
        if row.started < first.started and not row.quick and not row.confirms
    }
    latest = sorted(known, reverse=True)[:MOST_BASE]
    if len(latest) < MOST_BASE:
        return ""
    return min(latest[-1], time_text(datetime.fromisoformat(first.started) - LONGEST_BASE))


def _base(
    rows: Sequence[Row], past: Iterable[Row], searcher: search.Search
) -> Mapping[Key, Series]:
    """Return the series before a run, by key: only those that the run has cells of."""
    if not rows:
        return {}
    first, wanted = rows[0], {key_of(row) for row in rows}
    of_machine = [row for row in past if row.machine == first.machine]
    since = base_since(first, of_machine)
    earlier = [
        row
        for row in of_machine
        if since <= row.started < first.started
        and key_of(row) in wanted
        and row.run != first.run
        and not row.confirms
    ]
    return {one.key: one for one in series_of(earlier, searcher)}


def _compared(rows: Sequence[Row], base: Mapping[Key, Series]) -> list[Finding]:
    """Return the cells of a run with their differences, not yet judged."""
    levels = [_level(row, base.get(key_of(row))) for row in rows]
    histories = [[*map(location, level.rows)] for level in levels]
    inflations = stats.inflations(histories)
    return [
        _finding(row, level, history, inflation, base.get(key_of(row)))
        for row, level, history, inflation in zip(rows, levels, histories, inflations, strict=True)
    ]


class _Level(NamedTuple):
    """The runs that a run is compared with."""

    rows: Sequence[Row] = ()
    left_out: int = 0


def _level(row: Row, series: Series | None) -> _Level:
    if series is None or not counts(row):
        return _Level()
    alike = [one for one in series.level if is_measured_alike(one, row)][-MOST_BASE:]
    apart = stats.outliers([*map(location, alike)])
    rows = [one for one, is_apart in zip(alike, apart, strict=True) if not is_apart]
    return _Level(rows, len(alike) - len(rows))


def _finding(
    row: Row,
    level: _Level,
    history: Sequence[Location],
    inflation: stats.Inflation,
    series: Series | None,
) -> Finding:
    before = changed(series.rows[-1], row) if series and series.rows else ()
    if not counts(row):
        return Finding(row=row, outcome=Outcome.UNPROVEN)
    found = stats.beside_history(history, location(row), inflation)
    if len(history) < FEWEST_BASE or found is None:
        return Finding(row=row, outcome=Outcome.TOO_FEW, runs=len(history), changed=before)
    floors = _floor(level.rows), row.noise
    return Finding(
        row=row,
        outcome=Outcome.INCONCLUSIVE,
        location=found,
        level=math.exp(statistics.fmean(one.mean for one in history)),
        runs=len(history),
        left_out=level.left_out,
        noise=math.expm1(math.hypot(*(math.log1p(floor or 0.0) for floor in floors))),
        changed=before,
    )


def _floor(rows: Sequence[Row]) -> float | None:
    known = [row.noise for row in rows if row.noise is not None]
    return statistics.median(known) if known else None


def _judged(one: Finding, p: float, alpha: float, minimum_effect: float) -> Finding:
    if one.location is None:
        return one
    size = abs(one.location.mean)
    least = max(math.log1p(one.noise or 0.0), math.log1p(minimum_effect))
    if p >= alpha or size <= least:
        narrow, margin = one.location.interval(stats.EQUIVALENCE_LEVEL), 1 + MARGIN
        is_within = 1 / margin < narrow.low and narrow.high < margin
        return replace(one, outcome=Outcome.UNCHANGED) if is_within else one
    worse = one.location.mean > 0
    return replace(one, outcome=Outcome.REGRESSION if worse else Outcome.IMPROVEMENT)
