"""What trimming hides: high quantiles with honest sample sizes, the maximum, outlying blocks."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CONFIDENCE: Final = 0.95
OUTLYING: Final = 5.0
"""How many robust standard deviations from the median make a block outlying."""
NORMAL_MAD: Final = 1.4826
"""Standard deviation of a normal distribution over its median absolute deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tails:
    """The upper end of one cell's times, in seconds, and how many of its blocks stood apart."""

    p95: float | None
    """No more than 5 % of values exceed it, with 95 % confidence; None: fewer than 59 values."""
    p99: float | None
    """The same for 1 %; None: fewer than 299 values."""
    maximum: float
    values: int
    outlying_blocks: int
    outlying_rate: float
    """Share of blocks, 0 to 1."""


def tails(seconds: NDArray[np.float64], log_ratios: NDArray[np.float64]) -> Tails:
    """Return the tails of one cell.

    `seconds` holds one value per visit, shape (visits,); `log_ratios` one per complete block.
    ValueError: there is no value at all.
    """
    if seconds.size == 0:
        message = "no values, no tails"
        raise ValueError(message)
    outlying = int(np.count_nonzero(outlying_blocks(log_ratios)))
    return Tails(
        p95=quantile_upper(seconds, quantile=0.95),
        p99=quantile_upper(seconds, quantile=0.99),
        maximum=float(np.max(seconds)),
        values=int(seconds.size),
        outlying_blocks=outlying,
        outlying_rate=outlying / log_ratios.size if log_ratios.size else 0.0,
    )


def quantile_upper(
    values: NDArray[np.float64], *, quantile: float = 0.95, confidence: float = CONFIDENCE
) -> float | None:
    """Return a one-sided upper bound of a quantile, free of any distribution, or None.

    The bound is the smallest order statistic with as much confidence. None: even the maximum has
    less, which `values_needed` values would mend. Unit and sign as in `values`, shape (n,).
    """
    rank = _rank(values.size, quantile, confidence)
    return None if rank is None else float(np.partition(values, rank - 1)[rank - 1])


def quantile_lower(
    values: NDArray[np.float64], *, quantile: float = 0.5, confidence: float = CONFIDENCE
) -> float | None:
    """Return a one-sided lower bound of a quantile, the mirror image of `quantile_upper`."""
    mirrored = quantile_upper(-values, quantile=1 - quantile, confidence=confidence)
    return None if mirrored is None else -mirrored


def values_needed(*, quantile: float = 0.95, confidence: float = CONFIDENCE) -> int:
    """Return how many values an upper bound of the quantile takes: 59 for p95, 299 for p99."""
    needed = math.ceil(math.log(1 - confidence) / math.log(quantile))
    # Rounding may land on either side of a whole number.
    return next(n for n in range(max(1, needed - 1), needed + 2) if _rank(n, quantile, confidence))


def outlying_blocks(log_ratios: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which blocks lie over five robust deviations from the median, shape (blocks,)."""
    if log_ratios.size == 0:
        return np.zeros(0, dtype=np.bool_)
    distance = np.abs(log_ratios - np.median(log_ratios))
    return np.asarray(distance > OUTLYING * NORMAL_MAD * np.median(distance), dtype=np.bool_)


def _rank(count: int, quantile: float, confidence: float) -> int | None:
    """Return the rank (from 1) of the order statistic that bounds the quantile, or None."""
    for name, share in (("quantile", quantile), ("confidence", confidence)):
        if not 0 < share < 1:
            message = f"a {name} lies between 0 and 1, not at {share}"
            raise ValueError(message)
    rank = int(stats.binom.ppf(confidence, count, quantile)) + 1
    return rank if rank <= count else None
