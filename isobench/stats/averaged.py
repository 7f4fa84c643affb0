"""Averages estimates that rest on different blocks."""

import math
from collections.abc import Sequence

import numpy as np

from isobench.model import Estimate, Interval


def averaged(estimates: Sequence[Estimate]) -> Estimate:
    """Return the geometric mean of some ratios, each of which has its own blocks.

    Its half width is the mean of theirs. The standard deviation of a mean is at most the mean of
    the standard deviations, however the values depend on each other: so it covers at least what
    the lowest level says. Where all ratios lie within a margin, so does the mean. `p_equivalence`
    is the largest of theirs, for the same reason. ValueError: there is none.
    """
    if not estimates:
        message = "a mean needs at least one estimate"
        raise ValueError(message)
    checks = [one.check for one in estimates if one.check is not None]
    return Estimate(
        ratio=_mean([one.ratio for one in estimates]),
        interval=_interval([one.interval for one in estimates]),
        equivalence=_interval([one.equivalence for one in estimates]),
        check=_interval(checks) if len(checks) == len(estimates) else None,
        p_equivalence=max(one.p_equivalence for one in estimates),
        standard_error=float(np.mean([one.standard_error for one in estimates])),
        deviation=float(np.mean([one.deviation for one in estimates])),
        blocks=min(one.blocks for one in estimates),
        method=f"mean of {len(estimates)} estimates",
        sessions=max(one.sessions for one in estimates),
        uncertainty=max(one.uncertainty for one in estimates),
    )


def _interval(intervals: Sequence[Interval]) -> Interval:
    return Interval(
        low=_mean([one.low for one in intervals]),
        high=_mean([one.high for one in intervals]),
        level=min(one.level for one in intervals),
    )


def _mean(ratios: Sequence[float]) -> float:
    return math.exp(float(np.mean(np.log(ratios))))
