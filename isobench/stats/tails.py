"""Shows what trimming hides: high quantiles, the maximum, and outlying blocks."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.stats.special import special

CONFIDENCE: Final = 0.95
_UNBALANCED: Final = 2
"""So many times as many blocks are slow as fast where the target is slow, and not the machine."""
# Of simulated cells without overhead and with stalls in 5 % of the blocks on either side, 1 to 11 %
# have as many slow blocks by chance (8 to 30 blocks).
_MANY: Final = 0.15
_FEWEST: Final = 2
_FEWEST_BEYOND: Final = 1
"""So many values at least lie beyond a quantile that is reported."""
OUTLYING: Final = 5.0
"""A block is outlying if it is more than so many robust standard deviations from the median."""
NORMAL_MAD: Final = 1.4826
"""The standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """The highest times of one cell, in seconds, and its outlying blocks. They describe the values
    that a run has, and bound no others: values of one block are alike.
    """

    p95: float | None
    """5 % of the values exceed it. None: fewer than 20 values."""
    p99: float | None
    """1 % of the values exceed it. None: fewer than 100 values."""
    maximum: float
    values: int
    outlying_blocks: int
    outlying_rate: float
    """Share of blocks, 0 to 1."""


def tails(seconds: NDArray[np.float64], log_ratios: NDArray[np.float64]) -> Tails:
    """Return the tails of one cell.

    `seconds` holds single values, shape (values,); `log_ratios` one per complete block.
    ValueError: `seconds` is empty.
    """
    if seconds.size == 0:
        message = "the tails of a cell need at least one value"
        raise ValueError(message)
    outlying = int(np.count_nonzero(outlying_blocks(log_ratios)))
    return Tails(
        p95=_quantile(seconds, 0.95),
        p99=_quantile(seconds, 0.99),
        maximum=float(np.max(seconds)),
        values=int(seconds.size),
        outlying_blocks=outlying,
        outlying_rate=outlying / log_ratios.size if log_ratios.size else 0.0,
    )


def _quantile(values: NDArray[np.float64], quantile: float) -> float | None:
    beyond = (1 - quantile) * values.size
    # 1 - 0.95 is not 0.05 to the last bit.
    return float(np.quantile(values, quantile)) if beyond > _FEWEST_BEYOND - 1e-9 else None


def quantile_upper(
    values: NDArray[np.float64],
    *,
    quantile: float = 0.95,
    confidence: float = CONFIDENCE,
    blocks: NDArray[np.int64] | None = None,
) -> float | None:
    """Return a one-sided upper bound of a quantile, for any distribution; None: too few values.

    It is the smallest order statistic with this confidence. `values_needed` says how many values
    it takes. `values` has the shape (n,); the bound has the same unit. `blocks`, of the same shape,
    has the block of each value where blocks have several: these may be alike, so that a block
    counts as much as one value, and each of its values as a part of that.
    """
    if blocks is not None:
        return _clustered_upper(values, blocks, quantile, confidence)
    rank = _rank(values.size, quantile, confidence)
    return None if rank is None else float(np.partition(values, rank - 1)[rank - 1])


def quantile_lower(
    values: NDArray[np.float64],
    *,
    quantile: float = 0.5,
    confidence: float = CONFIDENCE,
    blocks: NDArray[np.int64] | None = None,
) -> float | None:
    """Return a one-sided lower bound of a quantile; None: too few values. See `quantile_upper`."""
    mirrored = quantile_upper(-values, quantile=1 - quantile, confidence=confidence, blocks=blocks)
    return None if mirrored is None else -mirrored


def _clustered_upper(
    values: NDArray[np.float64], blocks: NDArray[np.int64], quantile: float, confidence: float
) -> float | None:
    """Return the smallest value with so many blocks' worth of values below that it bounds the
    quantile; None: too few blocks.
    """
    _, place, sizes = np.unique(blocks, return_inverse=True, return_counts=True)
    order = np.argsort(values)
    reached = np.cumsum(1 / sizes[place][order])
    # The binomial distribution function of `_rank`, continued between whole numbers. Shares of
    # blocks vary most where each is 0 or 1, as those of single values are.
    sure = special().betainc(sizes.size - reached + 1, reached, 1 - quantile)
    found = np.flatnonzero(sure >= confidence - 1e-9)
    return float(values[order[found[0]]]) if found.size else None


def values_needed(*, quantile: float = 0.95, confidence: float = CONFIDENCE) -> int:
    """Return how many values an upper bound of the quantile needs: 59 for p95, 299 for p99."""
    # The maximum of n values is above the quantile with probability 1 - quantile ** n.
    needed = math.ceil(math.log(1 - confidence) / math.log(quantile))
    # Rounding errors may put the logarithms on either side of a whole number.
    return next(n for n in range(max(1, needed - 1), needed + 2) if _rank(n, quantile, confidence))


def outlying_blocks(log_ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which blocks are more than OUTLYING robust deviations from the median, (blocks,)."""
    if log_ratios.size == 0:
        return np.zeros(0, dtype=np.bool_)
    # Median and median absolute deviation, which the outlying blocks themselves do not move.
    distance = np.abs(log_ratios - np.median(log_ratios))
    return np.asarray(distance > OUTLYING * NORMAL_MAD * np.median(distance), dtype=np.bool_)


def slow_blocks(log_ratios: NDArray[np.float64], bound: float) -> NDArray[np.float64]:
    """Return the outlying log-ratios above a `bound` that fast blocks do not balance, (slow,).

    Stalls of the machine meet native as often as a target: none are returned where fewer than
    twice as many blocks are slow as fast.
    """
    far = outlying_blocks(log_ratios)
    middle = float(np.median(log_ratios)) if log_ratios.size else 0.0
    slow = log_ratios[far & (log_ratios > max(bound, middle))]
    fast = int(np.count_nonzero(far & (log_ratios < middle)))
    return slow if is_unbalanced(slow.size, fast) else slow[:0]


def is_unbalanced(one: int, other: int) -> bool:
    """Return whether blocks that differ in one direction are no stalls of the machine, which would
    make as many differ in the other.
    """
    return one >= _UNBALANCED * other


def are_many(unusual: int, blocks: int) -> bool:
    """Return whether so many of the blocks are unusual that an estimate without them misleads."""
    return unusual >= max(_FEWEST, _MANY * blocks)


def _rank(count: int, quantile: float, confidence: float) -> int | None:
    """Return the rank (from 1) of the order statistic that bounds the quantile; None: too few."""
    for name, share in (("quantile", quantile), ("confidence", confidence)):
        if not 0 < share < 1:
            message = f"a {name} lies between 0 and 1, not at {share}"
            raise ValueError(message)
    # So many of the values are below the quantile at most, with this confidence: the next one is
    # above it.
    rank = _binomial_quantile(confidence, count, quantile) + 1
    return rank if rank <= count else None


def _binomial_quantile(confidence: float, count: int, share: float) -> int:
    """Return the smallest number of hits that is not exceeded with this confidence."""
    # scipy.stats.binom.ppf is the same, and its import takes a second.
    found: int = math.ceil(special().bdtrik(confidence, count, share))
    below = max(0, found - 1)
    return below if special().bdtr(below, count, share) >= confidence else found
