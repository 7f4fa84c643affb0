"""Computes how many blocks a verdict needs, and adjusts the p values of many cells."""

import math
from functools import cache
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.model import Estimate
from isobench.model.units import LARGEST_EXPONENT
from isobench.stats.ratio import FEWEST_BLOCKS, REPORTED_LEVEL, kept_blocks, student_quantile
from isobench.stats.special import special

# Nearer to the margin the formula gives more blocks than anybody can measure.
_NO_DISTANCE: Final = 1e-6
_FEWEST_FOR_WIDTH: Final = 10
_MOST_COUNTED: Final = 2000
"""Up to so many blocks Student's quantiles are used, and normal ones beyond."""


def blocks_needed(estimate: Estimate, *, margin: float = 1.05, power: float = 0.9) -> int | None:
    """Return about how many blocks decide a cell like this one, at the level of its interval.

    It takes the estimated ratio for the true one, and assumes that the spread of blocks stays the
    same. Inside the margin it is the number that shows near-native with probability `power`,
    outside the number that shows the difference. None: no number of blocks is known to decide,
    since the ratio lies on the margin, the blocks have no spread, or the interval is computed from
    sessions.
    """
    # More blocks in the same sessions do not make such an interval narrower.
    if estimate.sessions:
        return None
    shared = math.log1p(estimate.uncertainty)
    bound, effect = math.log(margin), abs(math.log(estimate.ratio))
    distance = abs(bound - effect) - shared
    spread = spread_of_block(estimate)
    if distance < _NO_DISTANCE or spread == 0:
        return None
    sure = 0.5 + estimate.interval.level / 2
    needed = _blocks_for(distance / spread, sure, power)
    if effect < bound:  # near 1 both one-sided tests may fail, so each gets half of the risk
        both = _blocks_for((bound - shared) / spread, sure, (1 + power) / 2)
        needed = max(needed, both)
    return needed


def _blocks_for(distance: float, sure: float, power: float) -> int:
    """Return from how many blocks on a one-sided bound at `sure` clears a distance, given in
    standard deviations of one block, with probability `power`.
    """
    clears = np.flatnonzero(_reaches(sure, power) <= distance)
    if clears.size:
        return FEWEST_BLOCKS + int(clears[0])
    normal = NormalDist()
    return math.ceil(((normal.inv_cdf(sure) + normal.inv_cdf(power)) / distance) ** 2)


@cache
def _reaches(sure: float, power: float) -> NDArray[np.float64]:
    """Return the distance that so many blocks clear, from FEWEST_BLOCKS on."""
    blocks = np.arange(FEWEST_BLOCKS, _MOST_COUNTED + 1)
    freedom = np.array([kept_blocks(int(n)) - 1 for n in blocks])
    reach = special().stdtrit(freedom, sure) + special().stdtrit(freedom, power)
    return np.asarray(reach / np.sqrt(blocks), dtype=np.float64)


def spread_of_block(estimate: Estimate) -> float:
    """Return the spread of one block's log-ratio: the standard error of the estimate times the
    square root of the number of blocks. This includes the loss of precision by trimming.
    """
    return estimate.standard_error * math.sqrt(estimate.blocks)


def smallest_effect(
    spread: float, blocks: int, *, level: float = REPORTED_LEVEL, power: float = 0.9
) -> float:
    """Return the smallest difference from 1 that so many blocks show (0.02: 2 %): with probability
    `power`, the interval at `level` does not contain 1.

    `spread` is that of one block (`spread_of_block`). ValueError: fewer than three blocks.
    """
    freedom = kept_blocks(blocks) - 1
    reach = float(special().stdtrit(freedom, 0.5 + level / 2) + special().stdtrit(freedom, power))
    return math.expm1(min(reach * spread / math.sqrt(blocks), LARGEST_EXPONENT))


def blocks_for_width(
    spread: float, half_width: float, *, level: float = REPORTED_LEVEL, most: int = 1000
) -> int | None:
    """Return how many blocks give an interval at `level` with this half width (0.025: 2.5 %); at
    least ten, since no run stops at a width before. None: more than `most`.
    """

    def wide(blocks: int) -> bool:
        reach = student_quantile(level, kept_blocks(blocks) - 1)
        return reach * spread / math.sqrt(blocks) > math.log1p(half_width)

    return next((n for n in range(_FEWEST_FOR_WIDTH, most + 1) if not wide(n)), None)


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p values adjusted by Holm's method, shape (cells,), in the order given.

    Reporting the cells whose adjusted value is below alpha has a family-wise error of at most
    alpha, whatever the dependence among cells. ValueError: the input is not a list of
    probabilities.
    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    if p_values.ndim != 1 or not bool(np.all((p_values >= 0) & (p_values <= 1))):
        message = "p values must be one probability per cell"
        raise ValueError(message)
    order = np.argsort(p_values, kind="stable")
    remaining = np.arange(p_values.size, 0, -1)
    # The smallest p value is multiplied by the number of cells, the next by one less, and so on;
    # the maximum keeps the adjusted values in the same order.
    adjusted = np.empty(p_values.size)
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * remaining), 1.0)
    return adjusted
