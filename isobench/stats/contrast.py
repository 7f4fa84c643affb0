"""Compares the ratios to native of two sides: two runs, or two histories of runs. Pure.

Levels are run > session > block > iteration (Kalibera & Jones, arXiv 2007.10899). All blocks of one
run share conditions: the memory layout of native, the load and the temperature of the host. One run
cannot show how much these matter; only several runs of a side can.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from isobench.stats.ratio import Location

_SEVERAL: Final = 2
"""From so many runs on, the spread among the runs of a side can be estimated."""
# With 4, a young history of which one cell varies ten times as much as the others raised a false
# suspicion in 7 % of its nights.
_MOST_SHARED: Final = 2.0
"""Degrees of freedom that other cells count for at most: cells differ in how much their runs do."""
_FEWEST_FREEDOM: Final = 2.0
"""With fewer, Student's quantiles make an interval that says nothing."""
_FEWEST_TO_LEAVE_OUT: Final = 8
"""Of so many runs one may be left out of a level: among fewer, none is clearly apart."""
_FAR: Final = 10.0
"""Standard deviations. With 5, nights with heavy tails raise a fifth more false alarms."""
_MAD_TO_DEVIATION: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


def between_runs(
    base: Location, head: Location, *, floors: tuple[float, float], counted: bool = False
) -> Location:
    """Return ln(head / base) of one run each. The unit is the block.

    `floors` are the noise floors of the two runs (0.012: 1.2 %), native against native in each.
    They replace the spread among runs, which one run on each side cannot show.
    By simulation the interval covers its nominal level while the standard deviation among runs is
    at most a floor, and 76 to 92 % where it is twice a floor. `between_histories` estimates it.

    If a side has no deviation, its timer is too coarse, and the result has no error. It is not so
    for values that are `counted`, which may be equal in all blocks.
    Source: Yuen 1974, The two-sample trimmed t for unequal population variances, Biometrika 61.
    """
    # Each trimmed mean has the degrees of freedom of the blocks that it keeps; Welch's formula
    # combines them.
    error, freedom = _welch(base.error**2, head.error**2, base.freedom, head.freedom)
    return Location(
        mean=head.mean - base.mean,
        error=error if counted or (base.deviation > 0 and head.deviation > 0) else 0.0,
        deviation=math.hypot(base.deviation, head.deviation),
        freedom=freedom,
        method="Yuen-Welch t of two runs, noise floors added",
        # A floor is how far a run missed 1 where 1 was true: an error that all its blocks share.
        # Two runs miss independently, so the squares of the floors are added.
        shared=base.shared + head.shared + math.hypot(*map(math.log1p, floors)),
    )


class Inflation(NamedTuple):
    """How much more runs differ than their own errors say, by other cells of the same runs."""

    factor: float
    """Variance among runs over squared error."""
    freedom: float
    """Degrees of freedom that the factor counts for; 0: nothing is known."""


def inflations(histories: Sequence[Sequence[Location]]) -> list[Inflation]:
    """Return the inflation of each cell, by the histories of all other cells.

    A cell with two runs hardly shows how much its runs differ. All cells together do.
    """
    squares = [_standardised(one) for one in histories]
    total, freedom = (sum(part) for part in zip(*squares, strict=True)) if squares else (0.0, 0.0)
    return [
        Inflation(
            factor=max(1.0, (total - own) / (freedom - degrees)) if freedom > degrees else 1.0,
            freedom=min(_MOST_SHARED, freedom - degrees),
        )
        for own, degrees in squares
    ]


def _standardised(history: Sequence[Location]) -> tuple[float, float]:
    """Return the sum of squares of a cell's runs over their squared error, and its freedom."""
    if len(history) < _SEVERAL:
        return 0.0, 0.0
    within = float(np.mean([one.error**2 for one in history]))
    freedom = len(history) - 1
    return (freedom * _squared_spread(history) / within, float(freedom)) if within else (0.0, 0.0)


def outliers(history: Sequence[Location]) -> list[bool]:
    """Return which runs of a history lie so far from the others that they are no part of its level.

    One such run widens the spread of sixty so much that others hide behind it. Runs are left out
    where they are few: many are how the runs differ. Source: Leys et al. 2013, Detecting outliers:
    do not use standard deviation around the mean, use absolute deviation around the median, JESP
    49; the limit is wider here, so that heavy tails stay in.
    """
    means = np.array([one.mean for one in history])
    found = np.zeros(len(history), dtype=bool)
    if len(history) >= _FEWEST_TO_LEAVE_OUT:
        apart = np.abs(means - np.median(means))
        # Equal runs have no deviation; their own errors are the least that runs differ by.
        own = float(np.median([one.error for one in history]))
        found = apart > _FAR * max(_MAD_TO_DEVIATION * float(np.median(apart)), own)
    is_few = found.sum() * _FEWEST_TO_LEAVE_OUT <= len(history)
    return [bool(one) and bool(is_few) for one in found]


def beside_history(
    base: Sequence[Location], head: Location, inflation: Inflation
) -> Location | None:
    """Return ln(head / base) of one run and the runs before it. The unit is the run.

    The variance of a run is that of the base, moderated by the `inflation` of the other cells, and
    larger for a head whose own error is larger. None: nothing shows how much runs differ.
    Source: Smyth 2004, Linear models and empirical Bayes methods, SAGMB 3, for moderated variances.
    """
    freedom = inflation.freedom + len(base) - 1
    if not base or freedom < _FEWEST_FREEDOM:
        return None
    within = float(np.mean([one.error**2 for one in base]))
    spread = (len(base) - 1) * (_squared_spread(base) if len(base) >= _SEVERAL else 0.0)
    variance = (inflation.freedom * inflation.factor * within + spread) / freedom
    variance = max(variance, within)
    noisier = max(1.0, head.error**2 / within) if within else 1.0
    return Location(
        mean=head.mean - float(np.mean([one.mean for one in base])),
        error=math.sqrt(variance * (1 / len(base) + noisier)),
        deviation=math.sqrt(variance),
        freedom=freedom,
        method=f"moderated t of one run beside {len(base)}",
        shared=head.shared + max(one.shared for one in base),
    )


def between_histories(base: Sequence[Location], head: Sequence[Location]) -> Location:
    """Return ln(head / base) of several runs. The unit is the run.

    Where both sides have two runs or more, it is Welch's t on the estimates of the runs; where a
    side has one run, it is Student's t with the spread of the other side. ValueError: a side is
    empty, or both have one run.
    """
    # The variance of a mean of runs is that of the runs over their number, whatever the levels
    # below contribute: so these need no model (Kalibera & Jones, above).
    # Random effects with one variance for both sides (Paule-Mandel, with Knapp and Hartung's t)
    # were tried: a third narrower from two or three runs a side, but in simulation they cover 82 %
    # of a nominal 97 % where the side with fewer runs varies more. Welch's t covers its level
    # there.
    sizes = len(base), len(head)
    if min(sizes) < 1 or max(sizes) < _SEVERAL:
        message = f"two histories, one of them of two runs at least, not {sizes[0]} and {sizes[1]}"
        raise ValueError(message)
    # Runs that agree by chance would give an interval of no width: so the variance of a run is at
    # least what its own blocks show.
    spreads = [_squared_spread(side) for side in (base, head)]
    within = [float(np.mean([one.error**2 for one in side])) for side in (base, head)]
    if min(sizes) < _SEVERAL:
        freedom = float(sum(sizes) - 2)
        pooled = sum((n - 1) * s for n, s in zip(sizes, spreads, strict=True)) / freedom
        variances = [max(pooled, w) / n for w, n in zip(within, sizes, strict=True)]
        error, method = math.sqrt(sum(variances)), "pooled t"
    else:
        variances = [max(s, w) / n for s, w, n in zip(spreads, within, sizes, strict=True)]
        error, freedom = _welch(*variances, sizes[0] - 1, sizes[1] - 1)
        method = "Welch t"
    means = [float(np.mean([one.mean for one in side])) for side in (base, head)]
    return Location(
        mean=means[1] - means[0],
        error=error,
        deviation=math.sqrt(sum(v * n for v, n in zip(variances, sizes, strict=True))),
        freedom=freedom,
        method=f"{method} of {sizes[0]} and {sizes[1]} run estimates",
        shared=sum(max(one.shared for one in side) for side in (base, head)),
    )


def _squared_spread(side: Sequence[Location]) -> float:
    return float(np.var([one.mean for one in side], ddof=1)) if len(side) >= _SEVERAL else 0.0


def _welch(first: float, second: float, *freedom: float) -> tuple[float, float]:
    """Return the error of a difference and its degrees of freedom (Satterthwaite 1946), from the
    squared errors of two sides and their degrees of freedom.
    """
    whole = first + second
    if whole == 0:
        return 0.0, min(freedom)
    parts = (first / whole) ** 2 / freedom[0] + (second / whole) ** 2 / freedom[1]
    return math.sqrt(whole), 1 / parts
