"""Estimates which share of an overhead one change removes: a ratio of two paired means."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.stats.ratio import estimate

LEVEL: Final = 0.95
# An overhead that is barely significant has an interval without a bound (Fieller 1954). No share
# beyond this is worth a search.
_FARTHEST: Final = 16.0
# Each step halves the distance: 30 make it a billionth.
_STEPS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """The share of an overhead that is explained (1.0: all). Below 0: the change adds to it."""

    point: float
    low: float
    high: float
    """Bounds at 95 %."""


def share(
    overhead: NDArray[np.float64],
    effect: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
) -> Share | None:
    """Return `effect` as a share of `overhead`. Both are log-ratios of the same blocks.

    Both have the shape (blocks,); `sessions` is as in `estimate`. The interval contains every share
    for which effect - share * overhead does not differ significantly from zero, by the trimmed t of
    `estimate`. None: fewer than three blocks, or an overhead that is not significant itself.
    ValueError: the shapes differ.
    Source: Fieller 1954, Some problems in interval estimation, for means that are trimmed.
    """
    if overhead.shape != effect.shape:
        message = f"log-ratios must pair by block: {overhead.shape} and {effect.shape}"
        raise ValueError(message)

    def is_ruled_out(at: float) -> bool:
        """Return whether a share is outside the interval."""
        found = estimate(effect - at * overhead, sessions=sessions, level=LEVEL)
        return found is not None and not found.interval.low <= 1 <= found.interval.high

    whole = estimate(overhead, sessions=sessions, level=LEVEL)
    part = estimate(effect, sessions=sessions, level=LEVEL)
    if whole is None or part is None or whole.interval.low <= 1 <= whole.interval.high:
        return None
    point = float(np.log(part.ratio) / np.log(whole.ratio))
    return Share(
        point=point, low=_edge(is_ruled_out, point, -1), high=_edge(is_ruled_out, point, 1)
    )


def _edge(is_ruled_out: Callable[[float], bool], start: float, side: int) -> float:
    """Return the bound of the interval on one side; infinite where there is none."""
    # First find a share that is ruled out, then halve the distance between it and one that is not.
    step = 0.125
    while not is_ruled_out(start + side * step):
        step *= 2
        if step > _FARTHEST:
            return side * float("inf")
    inside, outside = 0.0, step
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if is_ruled_out(start + side * middle):
            outside = middle
        else:
            inside = middle
    return start + side * outside
