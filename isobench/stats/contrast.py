"""How one side's ratios to native relate to another's: two runs, two histories of runs. Pure.

Levels are run > session > block > iteration (Kalibera & Jones, arXiv 2007.10899). Blocks of one run
are alike in what the run was given once: where its native landed in memory, which host it shared,
how warm it was. Within one run that cannot be seen; only several runs of a side can show it.
"""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np

from isobench.stats.ratio import Location

_SEVERAL: Final = 2
"""From so many runs on, a side shows how much runs differ."""


def between_runs(
    base: Location, head: Location, *, floors: tuple[float, float], counted: bool = False
) -> Location:
    """Return ln(head / base) of one run each: the blocks of either are the unit.

    Both errors are combined as Welch does, each trimmed mean with the degrees of freedom of what it
    kept: Yuen 1974, The two-sample trimmed t for unequal population variances, Biometrika 61.

    `floors` are the noise floors of the two runs (0.012: 1.2 %), native against native in each.
    How much a run differs from the next one of the same thing cannot be estimated from one run a
    side, and is not nothing: by how much each run was seen to miss 1 where 1 was true stands in
    for it, as an error that all its blocks share. Two runs miss independently, so the floors are
    added as squares. That is a stand-in, not an estimate: by simulation the interval covers its
    level while runs differ (standard deviation) by no more than a floor, and 76 to 92 % where they
    differ by twice that. Only `between_histories` can tell.

    A side without an error has a timer that could not tell blocks apart, and the whole has none
    then. Where values are `counted`, blocks that are equal are no such sign.
    """
    error, freedom = _welch(base.error**2, head.error**2, base.freedom, head.freedom)
    return Location(
        mean=head.mean - base.mean,
        error=error if counted or (base.error > 0 and head.error > 0) else 0.0,
        deviation=math.hypot(base.deviation, head.deviation),
        freedom=freedom,
        method="Yuen-Welch t of two runs, noise floors added",
        shared=base.shared + head.shared + math.hypot(*map(math.log1p, floors)),
    )


def between_histories(base: Sequence[Location], head: Sequence[Location]) -> Location:
    """Return ln(head / base) of several runs: the estimates of runs are the unit.

    Where both sides have two runs or more it is Welch's t on the estimates of runs. A mean of runs
    has the variance of its runs over their number, whatever the levels below contribute, so that
    these need no model (Kalibera & Jones, above). Random effects of one variance for both sides
    (Paule-Mandel, with Knapp and Hartung's t) give intervals a third narrower from two or three
    runs a side, and cover 82 % of a nominal 97 % where the side of fewer runs is the less steady
    one, which nobody knows of two runs; Welch's cover their level there, too. A side of one run
    borrows the spread of the other: Student's t, pooled.

    Runs that agree by luck would make an interval of nothing: the variance of a run is held to be
    no less than what its own blocks show. ValueError: a side is empty, or both have one run.
    """
    sizes = len(base), len(head)
    if min(sizes) < 1 or max(sizes) < _SEVERAL:
        message = f"two histories, one of them of two runs at least, not {sizes[0]} and {sizes[1]}"
        raise ValueError(message)
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
    """Return the error of a difference, and Satterthwaite's degrees of freedom, from the squared
    errors of its two sides and theirs.
    """
    whole = first + second
    if whole == 0:
        return 0.0, min(freedom)
    parts = (first / whole) ** 2 / freedom[0] + (second / whole) ** 2 / freedom[1]
    return math.sqrt(whole), 1 / parts
