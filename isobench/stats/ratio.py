"""Paired blocks to one ratio: trimmed-t interval of block log-ratios, checked by signed ranks.

Levels are session > block > iteration. Blocks of one session share what the session was given once
(address layout, where a virtual machine's memory lies), so where sessions differ, many blocks in
few sessions are few values, not many.
"""

import math
from dataclasses import dataclass, replace
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
POOLED_P: Final = 0.5
"""Blocks are pooled over sessions only where the test of sessions being alike gives a larger p.

Far above the usual 5 %: a difference that is missed makes intervals too narrow, one that is seen
where there is none makes them wide. By simulation (`nox -s bench`): worst coverage of a nominal
95 % interval over 3 to 6 sessions, 10 to 30 blocks, a spread among sessions of 0 to 2 times that
within, with and without stalls, is 93 % at 0.5, 90 % at 0.25, and 50 % where sessions are ignored.
"""
_MATRIX: Final = 2
_LARGEST_LOG: Final = 700.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The (trimmed) mean of log-ratios and how far to trust it."""

    mean: float
    error: float
    """Standard error of `mean`; 0: the timer could not tell blocks apart."""
    deviation: float
    """Standard deviation of one block (of one session, of one run: whatever the unit was)."""
    freedom: float
    """Degrees of freedom of `error`, above zero."""
    method: str
    sessions: int = 0
    shared: float = 0.0
    """How far off all blocks together may be, as a logarithm."""

    def interval(self, level: float) -> Interval:
        """Return Student's interval, as ratios. Degenerate where there is no error."""
        reach = float(stats.t.ppf(0.5 + level / 2, self.freedom)) * self.error + self.shared
        return Interval(low=_ratio(self.mean - reach), high=_ratio(self.mean + reach), level=level)

    def p_equivalence(self, margin: float) -> float:
        """Return the larger p value of the two one-sided tests; 1.0 where the error is zero."""
        if self.error == 0:
            return 1.0
        bound = math.log(margin) - self.shared
        above = stats.t.sf((self.mean + bound) / self.error, self.freedom)
        below = stats.t.cdf((self.mean - bound) / self.error, self.freedom)
        return float(max(above, below))

    @property
    def p_difference(self) -> float:
        """The two-sided p value of "no difference": of what `shared` does not explain. 1.0 where
        the error is zero.
        """
        if self.error == 0:
            return 1.0
        beyond = max(0.0, abs(self.mean) - self.shared)
        return float(2 * stats.t.sf(beyond / self.error, self.freedom))


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
    log_ratios: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
    uncertainty: float = 0.0,
    level: float = REPORTED_LEVEL,
    margin: float = 1.05,
) -> Estimate | None:
    """Return the ratio that the blocks show, or None from fewer than three blocks.

    `log_ratios` has shape (blocks,); `sessions`, of the same shape, labels the session of the
    subject in each block (None: each block had its own). The primary estimator is the 20 % trimmed
    mean with its Tukey-McLaughlin t interval; where trimming would keep fewer than four blocks it
    is the plain mean, and `method` says "t". `check` needs six blocks. A standard error of zero
    means that the timer cannot tell blocks apart: intervals are degenerate, `p_equivalence` is 1,
    and no verdict may rest on it.

    Where sessions served several blocks and are not seen to be alike, the answer is the mean of
    session medians with Student's interval, one degree of freedom less than there are sessions:
    wide, and honest. `sessions` of the estimate is then their number, and `method` names it, as it
    does where blocks were pooled over sessions. Medians, since one stalled block would carry the
    mean of a short session away, as trimming prevents it in the pooled case.
    Source: Bancroft 1944, On biases in estimation due to the use of preliminary tests of
    significance ("sometimes pool"); the levels are those of Kalibera & Jones, arXiv 2007.10899.

    `uncertainty` is a relative error that all blocks may share (0.02: 2 %): no number of blocks
    averages it away, so it widens every interval.

    ValueError: wrong shape, a value that is not finite, or a level, a margin or an uncertainty that
    makes no sense.
    """
    _refuse_nonsense(log_ratios, level, margin)
    if not 0 <= uncertainty < math.inf:
        message = f"an uncertainty is a share from 0 (0.02 means 2 %), not {uncertainty}"
        raise ValueError(message)
    if sessions is not None and sessions.shape != log_ratios.shape:
        message = f"a session for each block: {sessions.shape} and {log_ratios.shape}"
        raise ValueError(message)
    if log_ratios.size < FEWEST_BLOCKS:
        return None
    location = locate(log_ratios, sessions=sessions, uncertainty=uncertainty)
    ranked = log_ratios
    if location.sessions and sessions is not None:
        ranked = _medians(log_ratios, sessions)
    return Estimate(
        ratio=_ratio(location.mean),
        interval=location.interval(level),
        equivalence=location.interval(EQUIVALENCE_LEVEL),
        check=_widened(signed_rank_interval(ranked, level=EQUIVALENCE_LEVEL), uncertainty),
        p_equivalence=location.p_equivalence(margin),
        standard_error=location.error,
        deviation=location.deviation,
        blocks=int(log_ratios.size),
        method=location.method,
        sessions=location.sessions,
        uncertainty=uncertainty,
    )


def locate(
    log_ratios: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
    uncertainty: float = 0.0,
) -> Location:
    """Return what `estimate` rests on: mean log-ratio, error and degrees of freedom.

    For those who combine several. Arguments are those of `estimate`; at least three blocks.
    """
    found = _locate_in_sessions(log_ratios, sessions)
    return replace(found, shared=math.log1p(uncertainty))


def _widened(interval: Interval | None, uncertainty: float) -> Interval | None:
    if interval is None:
        return None
    factor = 1 + uncertainty
    return replace(interval, low=interval.low / factor, high=interval.high * factor)


def sessions_alike(log_ratios: NDArray[np.float64], sessions: NDArray[np.int64]) -> float:
    """Return the p value of the one-way F test on ranks: small where sessions differ.

    Ranks, since a stalled block would swell the spread within its session, and hide that sessions
    differ. 1.0 where it cannot be tested: one session, each block its own, or blocks all equal.
    ValueError: the two do not pair.
    """
    if sessions.shape != log_ratios.shape or log_ratios.ndim != 1:
        message = f"a session for each block: {sessions.shape} and {log_ratios.shape}"
        raise ValueError(message)
    ranks = stats.rankdata(log_ratios)
    _, place, sizes = np.unique(sessions, return_inverse=True, return_counts=True)
    between, within = sizes.size - 1, ranks.size - sizes.size
    if between < 1 or within < 1:
        return 1.0
    means = np.bincount(place, weights=ranks) / sizes
    spread = float(np.sum(sizes * (means - ranks.mean()) ** 2)) / between
    noise = float(np.sum((ranks - means[place]) ** 2)) / within
    if spread == 0:
        return 1.0
    return float(stats.f.sf(spread / noise, between, within)) if noise > 0 else 0.0


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


def _medians(log_ratios: NDArray[np.float64], sessions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median of each session, in the order of their labels."""
    labels = np.unique(sessions)
    return np.array([np.median(log_ratios[sessions == label]) for label in labels])


def _locate_in_sessions(
    log_ratios: NDArray[np.float64], sessions: NDArray[np.int64] | None
) -> Location:
    """Return the location by blocks, or by sessions where those are not seen to be alike."""
    pooled = _locate(np.sort(log_ratios))
    count = log_ratios.size if sessions is None else np.unique(sessions).size
    if sessions is None or count == log_ratios.size:
        return pooled
    if count == 1:
        return replace(pooled, method=f"{pooled.method}, one session")
    if sessions_alike(log_ratios, sessions) > POOLED_P:
        return replace(pooled, method=f"{pooled.method}, {count} sessions pooled")
    medians = _medians(log_ratios, sessions)
    deviation = 0.0 if float(np.ptp(medians)) == 0 else float(np.std(medians, ddof=1))
    return Location(
        mean=float(np.mean(medians)),
        error=deviation / math.sqrt(count),
        deviation=deviation,
        freedom=count - 1,
        method=f"t of {count} session medians",
        sessions=count,
    )


def kept_blocks(blocks: int) -> int:
    """Return how many blocks trimming keeps. ValueError: fewer than three give no estimate."""
    if blocks < FEWEST_BLOCKS:
        raise ValueError(f"an estimate takes {FEWEST_BLOCKS} blocks, not {blocks}")
    kept = blocks - 2 * int(TRIM * blocks)
    return kept if kept >= FEWEST_KEPT else blocks


def _locate(ordered: NDArray[np.float64]) -> Location:
    """Return the trimmed mean of sorted values, with the error of Tukey and McLaughlin (1963)."""
    blocks = int(ordered.size)
    kept = kept_blocks(blocks)
    cut = (blocks - kept) // 2
    middle = ordered[cut : blocks - cut]
    winsorised = np.clip(ordered, middle[0], middle[-1])
    # Equal values have no spread: what the formula leaves of rounding would pass for one.
    deviation = 0.0 if middle[0] == middle[-1] else float(np.std(winsorised, ddof=1))
    return Location(
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
