"""How many blocks a verdict takes, and p values of many cells at once."""

import math
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from isobench.model import Estimate
from isobench.stats.ratio import REPORTED_LEVEL, kept_blocks, student_quantile

FEWEST_BLOCKS: Final = 10
"""No verdict rests on fewer blocks."""
_SPARE: Final = 2
"""Blocks added for Student's t being wider than the normal quantile."""
_NO_DISTANCE: Final = 1e-6


def blocks_needed(
    estimate: Estimate, *, margin: float = 1.05, power: float = 0.9, alpha: float = 0.05
) -> int | None:
    """Return about how many blocks decide a cell like this one, at least ten.

    Takes the estimated ratio for the true one and the blocks' spread for lasting. Inside the margin
    it is the number that shows near-native with probability `power`, outside the number that shows
    the difference. None: the ratio lies on the margin, there is no spread to plan with, or the
    interval rests on sessions, of which more blocks in the same ones are no more; no number of
    blocks is known to decide.
    """
    if estimate.sessions:
        return None
    shared = math.log1p(estimate.uncertainty)
    bound, effect = math.log(margin), abs(math.log(estimate.ratio))
    distance = abs(bound - effect) - shared
    spread = spread_of_block(estimate)
    if distance < _NO_DISTANCE or spread == 0:
        return None
    normal = NormalDist()
    certain = normal.inv_cdf(1 - alpha)
    needed = (certain + normal.inv_cdf(power)) * spread / distance
    if effect < bound:  # near 1 either bound may fail, and each takes half of the risk
        needed = max(
            needed, (certain + normal.inv_cdf((1 + power) / 2)) * spread / (bound - shared)
        )
    return max(FEWEST_BLOCKS, math.ceil(needed**2) + _SPARE)


def spread_of_block(estimate: Estimate) -> float:
    """Return the spread of one block's log-ratio as the estimator sees it: its standard error times
    the root of the number of blocks, the price of trimming included.
    """
    return estimate.standard_error * math.sqrt(estimate.blocks)


def smallest_effect(
    spread: float, blocks: int, *, level: float = REPORTED_LEVEL, power: float = 0.9
) -> float:
    """Return the smallest difference from 1 that so many blocks show (0.02: 2 %).

    Shown: the interval at `level` leaves 1 out, with probability `power`. `spread` is that of one
    block (`spread_of_block`), taken to last. ValueError: fewer than three blocks.
    """
    freedom = kept_blocks(blocks) - 1
    reach = float(stats.t.ppf(0.5 + level / 2, freedom) + stats.t.ppf(power, freedom))
    return math.expm1(reach * spread / math.sqrt(blocks))


def blocks_for_width(
    spread: float, half_width: float, *, level: float = REPORTED_LEVEL, most: int = 1000
) -> int | None:
    """Return how many blocks bring the interval at `level` to half this width (0.025: 2.5 %), at
    least ten; None: more than `most`.
    """

    def wide(blocks: int) -> bool:
        reach = student_quantile(level, kept_blocks(blocks) - 1)
        return reach * spread / math.sqrt(blocks) > math.log1p(half_width)

    return next((n for n in range(FEWEST_BLOCKS, most + 1) if not wide(n)), None)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return Holm's adjusted p values, shape (cells,), in the order given.

    A cell below alpha after adjusting is a finding at family-wise error alpha, whatever the
    dependence among cells. ValueError: not a list of probabilities.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    if p_values.ndim != 1 or not bool(np.all((p_values >= 0) & (p_values <= 1))):
        message = "p values must be one probability per cell"
        raise ValueError(message)
    order = np.argsort(p_values, kind="stable")
    remaining = np.arange(p_values.size, 0, -1)
    adjusted = np.empty(p_values.size)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * remaining), 1.0)
    return adjusted
