"""Series of runs: what a cell costs on one machine, night by night, and where its level changes."""

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

import msgspec
import numpy as np

from isobench import stats
from isobench.history import search
from isobench.history.row import Row
from isobench.model import Interval
from isobench.model.result import Status
from isobench.stats import REPORTED_LEVEL, Location

ALPHA: Final = 0.01
"""How likely a series of equal runs shows a change point by chance."""


class Key(NamedTuple):
    """What is compared, and on which machine."""

    machine: str
    target: str
    options: str
    reference: str
    workload: str
    metric: str


class Changed(NamedTuple):
    """Something that is not as in the run before."""

    what: str
    before: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangePoint:
    """A change of the level of a series."""

    row: Row
    """The first run of the new level."""
    location: Location
    """ln(new level / level before). The unit is the run."""
    before: float
    after: float
    """The levels, as ratios to native."""
    runs: tuple[int, int]
    """How many runs each level rests on."""
    changed: tuple[Changed, ...]
    """What else changed between this run and the one before."""
    confirmed: bool | None = None
    """Whether fresh blocks of that night showed it again; None: none were measured."""

    @property
    def is_worse(self) -> bool:
        """Whether the target has become slower against native, or its metric worse."""
        return self.location.mean > 0

    @property
    def interval(self) -> Interval:
        """The interval of new level over level before."""
        return self.location.interval(REPORTED_LEVEL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """The runs of one cell on one machine, by time."""

    key: Key
    rows: tuple[Row, ...]
    """The runs that count: measured, not quick, not unproven."""
    others: tuple[Row, ...] = ()
    """Runs that do not count: gaps, quick runs, what is unproven."""
    again: tuple[Row, ...] = ()
    """Runs that were made to confirm another run of this series. They would count that night twice.
    """
    change_points: tuple[ChangePoint, ...] = ()
    changes: dict[str, tuple[Changed, ...]] = field(default_factory=dict)
    """What was not as in the run before, by run; runs without a change are left out."""

    @property
    def is_too_short(self) -> bool:
        """Whether it has too few runs to have change points."""
        return len(self.rows) < stats.FEWEST_RUNS

    @property
    def level(self) -> tuple[Row, ...]:
        """The runs since the last change point."""
        if not self.change_points:
            return self.rows
        first = self.change_points[-1].row
        return self.rows[self.rows.index(first) :]


def counts(row: Row) -> bool:
    """Return whether a run has a value that counts."""
    return row.mean is not None and not row.quick and row.status != Status.UNPROVEN


def confirms(row: Row, first: Row) -> bool:
    """Return whether a row is of a run that measured again what another run had found."""
    # It says so itself: a run that began before cannot have known of it.
    return row.confirms == first.run and row.started >= first.started


def is_gap(row: Row) -> bool:
    """Return whether a cell could not be measured: its status is the cause."""
    return row.value is None and row.mean is None


def location(row: Row) -> Location:
    """Return the mean log-ratio of a run that counts."""
    return Location(
        mean=row.mean or 0.0,
        error=row.error or 0.0,
        deviation=row.deviation or 0.0,
        freedom=row.freedom or 1.0,
        method="of one run",
        sessions=row.sessions,
        shared=row.shared or 0.0,
    )


def key_of(row: Row) -> Key:
    """Return the series that a row belongs to."""
    return Key(row.machine, row.target, row.options, row.reference, row.workload, row.metric)


def series_of(rows: Iterable[Row], searcher: search.Search = search.here) -> list[Series]:
    """Return the series of rows, each with its change points, in the order of their first runs.

    UsageError: ruptures is not installed.
    """
    grouped: dict[Key, list[Row]] = {}
    for row in rows:
        grouped.setdefault(key_of(row), []).append(row)
    # By machine and target, in the order of their first runs.
    order = {name: place for place, name in enumerate(dict.fromkeys(key[:2] for key in grouped))}
    keys = sorted(grouped, key=lambda key: order[key[:2]])
    return with_change_points([_series(key, grouped[key]) for key in keys], searcher)


def _series(key: Key, rows: Sequence[Row]) -> Series:
    ordered = sorted(rows, key=lambda row: (row.started, row.run))
    good = tuple(row for row in ordered if counts(row) and not row.confirms)
    pairs = itertools.pairwise(good)
    changes = {after.run: found for before, after in pairs if (found := changed(before, after))}
    return Series(
        key=key,
        rows=good,
        others=tuple(row for row in ordered if not counts(row)),
        again=tuple(row for row in ordered if counts(row) and row.confirms),
        changes=changes,
    )


def changed(before: Row, after: Row) -> tuple[Changed, ...]:
    """Return what differs between two runs of a series besides the ratio."""
    found: list[Changed] = []
    if before.conditions is not after.conditions and before.conditions != after.conditions:
        old, new = (_conditions(row) for row in (before, after))
        # What a run does not know is no change.
        found += [
            Changed(name, old[name], new[name])
            for name in old
            if name in new and old[name] != new[name]
        ]
    if before.version and after.version and before.version != after.version:
        found.append(Changed(after.target, before.version, after.version))
    if before.program and after.program and before.program != after.program:
        found.append(Changed(f"program of {after.workload}", before.program, after.program))
    return tuple(found)


def _conditions(row: Row) -> dict[str, str]:
    return msgspec.json.decode(row.conditions, type=dict[str, str])


def is_measured_alike(one: Row, other: Row) -> bool:
    """Return whether two runs of a series measured in the same way: the same program in turn."""
    same_program = not (one.program and other.program) or one.program == other.program
    return same_program and _schedule(one) == _schedule(other)


def _schedule(row: Row) -> str:
    return _conditions(row).get("schedule", "")


# ---- change points


def with_change_points(every: Sequence[Series], searcher: search.Search) -> list[Series]:
    """Return series with their change points. Holm's correction is for all of them together."""
    found = searcher([_searched(one) for one in every])
    searched = [(one, _candidates(one, starts)) for one, starts in zip(every, found, strict=True)]
    tests = [found.location.p_difference for _, several in searched for found in several]
    adjusted = iter(stats.holm(np.array(tests, dtype=np.float64)).tolist())
    result = []
    for one, several in searched:
        kept = tuple(found for found in several if next(adjusted) < ALPHA)
        result.append(replace(one, change_points=kept))
    return result


def _searched(one: Series) -> search.Searched:
    values = np.array([row.mean for row in one.rows], dtype=np.float64)
    errors = np.array([row.error for row in one.rows], dtype=np.float64)
    return values, float(np.median(errors)) if one.rows else 0.0


def _candidates(one: Series, starts: Sequence[int]) -> list[ChangePoint]:
    """Return where the level may change, each with the size of the change."""
    if not starts:
        return []
    alike = stats.autocorrelation(_searched(one)[0])
    # So many runs in a row say as much as one that is alike to none.
    per_run = (1 + alike) / (1 - alike)
    ends = [0, *starts, len(one.rows)]
    return [
        _change_point(one, ends[n], ends[n + 1], ends[n + 2], per_run) for n in range(len(ends) - 2)
    ]


def _change_point(one: Series, begin: int, middle: int, end: int, per_run: float) -> ChangePoint:
    before, after = one.rows[begin:middle], one.rows[middle:end]
    found = stats.between_histories([*map(location, before)], [*map(location, after)])
    found = replace(found, error=found.error * math.sqrt(per_run))
    again = [row for row in one.again if confirms(row, after[0])]
    return ChangePoint(
        row=after[0],
        location=found,
        before=_level(before),
        after=_level(after),
        runs=(len(before), len(after)),
        changed=one.changes.get(after[0].run, ()),
        confirmed=_is_shown(again[-1], before, worse=found.mean > 0) if again else None,
    )


def _is_shown(row: Row, before: Sequence[Row], *, worse: bool) -> bool:
    """Return whether a run lies beyond the level before, by its own interval."""
    interval, level = location(row).interval(REPORTED_LEVEL), _level(before)
    return interval.low > level if worse else interval.high < level


def _level(rows: Sequence[Row]) -> float:
    return math.exp(float(np.mean([row.mean for row in rows])))
