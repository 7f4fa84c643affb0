"""Paired blocks to one ratio: trimmed-t interval of block log-ratios, checked by signed ranks."""

import math
from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from isobench.model import Estimate, Interval

TRIM: Final = 0.2
"""The share of blocks left out at either end."""
REPORTED_LEVEL: Final = 0.97
EQUIVALENCE_LEVEL: Final = 0.90
"""Two one-sided tests at 5 % are one interval at 90 %."""
FEWEST_BLOCKS: Final = 3
FEWEST_KEPT: Final = 4
"""Trimming must leave this many blocks, or nothing is trimmed."""
FEWEST_RANKED: Final = 6
_MATRIX: Final = 2
_LARGEST_LOG: Final = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Location:
    """The (trimmed) mean of log-ratios and how far to trust it."""

    mean: float
    error: float
    deviation: float
    freedom: int
    method: str

    def interval(self, level: float) -> Interval:
        """Return Student's interval, as ratios. Degenerate where the error is zero."""
        reach = float(stats.t.ppf(0.5 + level / 2, self.freedom)) * self.error
        return Interval(low=_ratio(self.mean - reach), high=_ratio(self.mean + reach), level=level)

    def p_equivalence(self, margin: float) -> float:
        """Return the larger p value of the two one-sided tests; 1.0 where the error is zero."""
        if self.error == 0:
            return 1.0
        bound = math.log(margin)
        above = stats.t.sf((self.mean + bound) / self.error, self.freedom)
        below = stats.t.cdf((self.mean - bound) / self.error, self.freedom)
        return float(max(above, below))


def block_log_ratios(
    subject: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ln(subject / reference) per block, shape (blocks,).

    Both arrays are (blocks, iterations) in seconds per operation, and row b of one was measured in
    the same block as row b of the other. The median stands for a row, so the two may differ in
    iterations. ValueError: the rows do not pair, or a value is not a positive finite number (drop
    such blocks from both sides first, and count them).
    """
    paired = (
        subject.ndim == reference.ndim == _MATRIX
        and subject.shape[0] == reference.shape[0]
        and min(subject.shape[1], reference.shape[1]) > 0
    )
    if not paired:
        message = f"rows must pair: (blocks, iterations) {subject.shape} and {reference.shape}"
        raise ValueError(message)
    for values in (subject, reference):
        if not bool(np.all(np.isfinite(values) & (values > 0))):
            message = "seconds per operation must be finite and above zero in every block"
            raise ValueError(message)
    logs = np.log(np.median(subject, axis=1)) - np.log(np.median(reference, axis=1))
    return np.asarray(logs, dtype=np.float64)


def estimate(
    log_ratios: NDArray[np.float64], *, level: float = REPORTED_LEVEL, margin: float = 1.05
) -> Estimate | None:
    """Return the ratio that the blocks show, or None from fewer than three blocks.

    `log_ratios` has shape (blocks,). The primary estimator is the 20 % trimmed mean with its
    Tukey-McLaughlin t interval; where trimming would keep fewer than four blocks it is the plain
    mean, and `method` says "t". `check` needs six blocks. A standard error of zero means that the
    timer cannot tell blocks apart: intervals are degenerate, `p_equivalence` is 1, and no verdict
    may rest on it. ValueError: wrong shape, a value that is not finite, or a level or margin
    that makes no sense.
    """
    _refuse_nonsense(log_ratios, level, margin)
    if log_ratios.size < FEWEST_BLOCKS:
        return None
    location = _locate(np.sort(log_ratios))
    return Estimate(
        ratio=_ratio(location.mean),
        interval=location.interval(level),
        equivalence=location.interval(EQUIVALENCE_LEVEL),
        check=signed_rank_interval(log_ratios, level=EQUIVALENCE_LEVEL),
        p_equivalence=location.p_equivalence(margin),
        standard_error=location.error,
        deviation=location.deviation,
        blocks=int(log_ratios.size),
        method=location.method,
    )


def signed_rank_interval(log_ratios: NDArray[np.float64], *, level: float) -> Interval | None:
    """Return the exact Hodges-Lehmann interval as ratios, or None when it does not exist.

    It runs between two Walsh averages (means of pairs) that the null distribution of Wilcoxon's
    signed-rank sum picks; it covers at least `level`. None from fewer than six blocks, and when
    even the range of so few blocks does not reach `level`.
    Source: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, section 3.3.
    """
    if log_ratios.size < FEWEST_RANKED:
        return None
    first, second = np.triu_indices(log_ratios.size)
    walsh = np.sort((log_ratios[first] + log_ratios[second]) / 2)
    tail = (1 - level) / 2
    # As many averages may be cut off as keep the chance of a smaller rank sum within the tail.
    cut = int(np.searchsorted(_rank_sums_at_most(log_ratios.size), tail, side="right"))
    if cut == 0:
        return None
    low, high = float(walsh[cut - 1]), float(walsh[walsh.size - cut])
    return Interval(low=_ratio(low), high=_ratio(high), level=level)


def half_width(interval: Interval) -> float:
    """Return half the width of an interval of ratios, taken on the log scale (0.025: 2.5 %)."""
    return math.expm1((math.log(interval.high) - math.log(interval.low)) / 2)


def _refuse_nonsense(log_ratios: NDArray[np.float64], level: float, margin: float) -> None:
    if log_ratios.ndim != 1 or not bool(np.all(np.isfinite(log_ratios))):
        message = "log-ratios must be one finite number per block"
        raise ValueError(message)
    if not 0 < level < 1:
        message = f"a level lies between 0 and 1, not at {level}"
        raise ValueError(message)
    if not margin > 1:
        message = f"a margin is a ratio above 1 (1.05 means 5 %), not {margin}"
        raise ValueError(message)


def _locate(ordered: NDArray[np.float64]) -> _Location:
    """Return the trimmed mean of sorted values, with the error of Tukey and McLaughlin (1963)."""
    blocks = int(ordered.size)
    cut = int(TRIM * blocks)
    if blocks - 2 * cut < FEWEST_KEPT:
        cut = 0
    kept = blocks - 2 * cut
    middle = ordered[cut : blocks - cut]
    winsorised = np.clip(ordered, middle[0], middle[-1])
    # Equal values have no spread: what the formula leaves of rounding would pass for one.
    deviation = 0.0 if middle[0] == middle[-1] else float(np.std(winsorised, ddof=1))
    return _Location(
        mean=float(np.mean(middle)),
        error=deviation * math.sqrt((blocks - 1) / (kept * (kept - 1))),
        deviation=deviation,
        freedom=kept - 1,
        method=f"trimmed-t {TRIM:.0%}".replace("%", " %") if cut else "t",
    )


@cache
def _rank_sums_at_most(blocks: int) -> NDArray[np.float64]:
    """Return P(signed-rank sum <= k) for k = 0 ... blocks (blocks + 1) / 2 under the null.

    Each rank joins the sum with probability one half, so the distribution of n ranks is the one of
    n - 1 ranks, averaged with itself moved up by n.
    """
    chances = np.ones(1)
    for rank in range(1, blocks + 1):
        grown = np.zeros(chances.size + rank)
        grown[: chances.size] = chances / 2
        grown[rank:] += chances / 2
        chances = grown
    at_most = np.cumsum(chances)
    at_most.flags.writeable = False
    return at_most


def _ratio(log_ratio: float) -> float:
    """Return exp, held inside what a float can say."""
    return math.exp(max(-_LARGEST_LOG, min(log_ratio, _LARGEST_LOG)))
