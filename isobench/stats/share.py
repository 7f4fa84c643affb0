"""Which share of an overhead one change takes away: a ratio of two paired means, by inverting the
test that decides everything else.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.stats.ratio import estimate

LEVEL: Final = 0.95
_FARTHEST: Final = 16.0
"""Beyond this share, and minus it, an interval counts as without end."""
_STEPS: Final = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """How much of an overhead is explained: 1.0 is all of it, below 0 the change makes it worse."""

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
    """Return the share of `overhead` that `effect` is, both log-ratios of the same blocks.

    Shapes (blocks,), and `sessions` as in `estimate`. The interval holds every share at which
    effect - share * overhead is not told from zero by the same trimmed t. None: fewer than three
    blocks, or an overhead that is itself not told from none, of which no share can be known.
    ValueError: the two do not pair.
    Source: Fieller 1954, Some problems in interval estimation, for means that are trimmed.
    """
    if overhead.shape != effect.shape:
        message = f"log-ratios must pair by block: {overhead.shape} and {effect.shape}"
        raise ValueError(message)

    def tells(at: float) -> bool:
        """Say whether a share is ruled out."""
        found = estimate(effect - at * overhead, sessions=sessions, level=LEVEL)
        return found is not None and not found.interval.low <= 1 <= found.interval.high

    whole = estimate(overhead, sessions=sessions, level=LEVEL)
    part = estimate(effect, sessions=sessions, level=LEVEL)
    if whole is None or part is None or whole.interval.low <= 1 <= whole.interval.high:
        return None
    point = float(np.log(part.ratio) / np.log(whole.ratio))
    return Share(point=point, low=_edge(tells, point, -1), high=_edge(tells, point, 1))


def _edge(tells: Callable[[float], bool], start: float, side: int) -> float:
    """Return where shares begin to be ruled out on one side; infinite where they never are."""
    step = 0.125
    while not tells(start + side * step):
        step *= 2
        if step > _FARTHEST:
            return side * float("inf")
    inside, outside = 0.0, step
    for _ in range(_STEPS):
        middle = (inside + outside) / 2
        if tells(start + side * middle):
            outside = middle
        else:
            inside = middle
    return start + side * outside
