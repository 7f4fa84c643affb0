"""Estimates one ratio from paired blocks: trimmed-t interval of log-ratios, checked by signed
ranks.

Levels are session > block > iteration. All blocks of one session share its conditions (address
layout, placement of a virtual machine's memory). So where sessions differ, the sessions are the
values, and not the blocks.
"""

import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.model import Estimate, Interval
from isobench.model.units import LARGEST_EXPONENT
from isobench.stats.sequential import widening
from isobench.stats.special import special

# In simulations with stalls in 5 % of the launches, 20 blocks gave a half width of 2.2 % with this
# trimming, and of 6.3 % without (nominal 95 %).
TRIM: Final = 0.2
"""The share of blocks that is left out at each end."""
# Stopping as soon as an interval is narrow prefers those that are too narrow by chance. A nominal
# 97 % then covers 95 %. It is the last level of `sequential.RULE` too.
REPORTED_LEVEL: Final = 0.97
# Two one-sided tests at 5 % are the same as one interval at 90 % inside the margin: Schuirmann
# 1987. Verdicts use the reported interval, so that a page has one interval for each cell.
EQUIVALENCE_LEVEL: Final = 0.90
"""The level of noise floors, of the second estimator, and of the p value of equivalence."""
FEWEST_BLOCKS: Final = 3
# Five blocks trimmed to three would leave two degrees of freedom.
FEWEST_KEPT: Final = 4
"""Where trimming would leave fewer blocks, nothing is trimmed."""
# Five values have no such interval at 95 %: their whole range covers 1 - 2 / 2**5 = 94 %.
FEWEST_RANKED: Final = 6
# Far above the usual 5 %: a difference among sessions that is missed makes intervals too narrow,
# and one that is seen where there is none only makes them wide. By simulation (`nox -s bench`,
# tests/bench/bench_coverage.py) the worst coverage of a nominal 95 % interval is 94 % at 0.75, 93 %
# at 0.5, 90 % at 0.25, and 50 % where sessions are ignored. It spans 3 to 6 sessions, 10 to 30
# blocks, a spread among sessions of 0 to 2 times that within, with and without stalls.
POOLED_P: Final = 0.75
"""Blocks of several sessions are pooled only where the test for equal sessions gives a larger p."""
_MATRIX: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Locations:
    """The (trimmed) mean log-ratio of each cell and its error. Arrays have the shape (cells,)."""

    mean: NDArray[np.float64]
    error: NDArray[np.float64]
    deviation: NDArray[np.float64]
    freedom: int
    method: str
    sessions: int = 0

    def interval(self, level: float, shared: float) -> list[Interval]:
        """Return Student's interval of each cell, as ratios. Where the error is zero, it has no
        width. `shared` is an error that all blocks share, as a logarithm.
        """
        reach = student_quantile(level, self.freedom) * self.error + shared
        return _intervals(self.mean - reach, self.mean + reach, level)

    def p_equivalence(self, margin: float, shared: float) -> NDArray[np.float64]:
        """Return the larger p value of the two one-sided tests; 1.0 where the error is zero."""
        bound = math.log(margin) - shared
        error = np.where(self.error > 0, self.error, 1.0)
        above = special().stdtr(self.freedom, -(self.mean + bound) / error)
        below = special().stdtr(self.freedom, (self.mean - bound) / error)
        return np.where(self.error > 0, np.maximum(above, below), 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """The (trimmed) mean log-ratio of one cell and its error, to be combined with others."""

    mean: float
    error: float
    """Standard error of `mean`. 0: all blocks have the same value."""
    deviation: float
    """Standard deviation of one unit: a block, a session or a run. 0: those that count all have the
    same value, and of times that means that the timer is too coarse.
    """
    freedom: float
    """Degrees of freedom of `error`, above zero."""
    method: str
    sessions: int = 0
    shared: float = 0.0
    """An error that all blocks share, as a logarithm."""

    def interval(self, level: float) -> Interval:
        """Return Student's interval, as ratios. Where the error is zero, it has no width."""
        reach = student_quantile(level, self.freedom) * self.error + self.shared
        return Interval(low=_ratio(self.mean - reach), high=_ratio(self.mean + reach), level=level)

    @property
    def p_difference(self) -> float:
        """The two-sided p value of "no difference", for the part of the mean that `shared` does not
        explain. 1.0 where the error is zero.
        """
        if self.error == 0:
            return 1.0
        beyond = max(0.0, abs(self.mean) - self.shared)
        return float(2 * special().stdtr(self.freedom, -beyond / self.error))


def block_log_ratios(
    subject: NDArray[np.float64], reference: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return ln(subject / reference) per block, shape (blocks,).

    Both arrays are (blocks, iterations) in seconds per operation. Row b of both was measured in the
    same block. Each row counts with its median, so the numbers of iterations may differ.
    ValueError: the numbers of rows differ, or a value is not a positive finite number (drop such
    blocks from both sides first, and count them).
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
    correlated: bool = False,
) -> Estimate | None:
    """Return the ratio that the blocks show; None from fewer than three blocks.

    `log_ratios` has shape (blocks,), in the order of measuring. `sessions`, of the same shape, has
    the session of each block (None: each block had its own). `level` is that of the interval that
    is reported and decides. `uncertainty` is a relative error that all blocks may share (0.02:
    2 %): more blocks do not reduce it, so it widens every interval. With `correlated`, the standard
    error allows for neighbouring blocks that are alike (`sequential.widening`).

    The estimate is the 20 % trimmed mean with its Tukey-McLaughlin t interval, or the plain mean
    (`method` is then "t") where trimming would keep fewer than four blocks. `check` needs six
    blocks. A standard error of zero means that all blocks are equal: the intervals have no width,
    and `p_equivalence` is 1. Where only the blocks that trimming keeps are equal, `deviation` is
    zero, and the error is that of all blocks. Of times, either means that the timer is too coarse,
    and no verdict may use it.

    Where sessions served several blocks and may differ, the estimate is the mean of the session
    medians with Student's interval, and `sessions` of the estimate is their number. `method` also
    says where blocks of several sessions were pooled.
    Source: Bancroft 1944, On biases in estimation due to the use of preliminary tests of
    significance ("sometimes pool"); the levels are those of Kalibera & Jones, arXiv 2007.10899.

    ValueError: a wrong shape, a value that is not finite, or an invalid level, margin or
    uncertainty.
    """
    if log_ratios.ndim != 1:
        message = f"log-ratios must be one number per block, not {log_ratios.shape}"
        raise ValueError(message)
    found = estimates(
        log_ratios[np.newaxis],
        sessions=sessions,
        uncertainty=uncertainty,
        level=level,
        margin=margin,
        correlated=correlated,
    )
    return found[0] if found else None


def estimates(
    log_ratios: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
    uncertainty: float = 0.0,
    level: float = REPORTED_LEVEL,
    margin: float = 1.05,
    correlated: bool = False,
) -> list[Estimate]:
    """Return the `estimate` of each of many cells that share their blocks.

    One call for many cells is far faster than a call for each. `log_ratios` has shape (cells,
    blocks); `sessions`, shape (blocks,), applies to every cell. The list is empty for fewer than
    three blocks. ValueError: as in `estimate`.
    """
    _check_arguments(log_ratios, sessions, level=level, margin=margin)
    if not 0 <= uncertainty < math.inf:
        message = f"an uncertainty is a share from 0 (0.02 means 2 %), not {uncertainty}"
        raise ValueError(message)
    cells, blocks = log_ratios.shape
    if blocks < FEWEST_BLOCKS:
        return []
    found: dict[int, Estimate] = {}
    shared = math.log1p(uncertainty)
    for mine, location, ranked in _by_unit(log_ratios, sessions, correlated=correlated):
        checks = _signed_rank_intervals(ranked, EQUIVALENCE_LEVEL, shared)
        columns = zip(
            np.flatnonzero(mine).tolist(),
            location.mean.tolist(),
            location.interval(level, shared),
            location.interval(EQUIVALENCE_LEVEL, shared),
            checks or itertools.repeat(None, ranked.shape[0]),
            location.p_equivalence(margin, shared).tolist(),
            location.error.tolist(),
            location.deviation.tolist(),
            strict=True,
        )
        for cell, mean, interval, equivalence, check, p, error, deviation in columns:
            found[cell] = Estimate(
                ratio=_ratio(mean),
                interval=interval,
                equivalence=equivalence,
                check=check,
                p_equivalence=p,
                standard_error=error,
                deviation=deviation,
                blocks=blocks,
                method=location.method,
                sessions=location.sessions,
                uncertainty=uncertainty,
            )
    return [found[cell] for cell in range(cells)]


def locate(
    log_ratios: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
    uncertainty: float = 0.0,
    correlated: bool = False,
) -> Location:
    """Return mean log-ratio, error and degrees of freedom of an estimate, to combine several.

    Arguments are those of `estimate`; at least three blocks.
    """
    (found,) = locations(
        log_ratios[np.newaxis], sessions=sessions, uncertainty=uncertainty, correlated=correlated
    )
    return found


def locations(
    log_ratios: NDArray[np.float64],
    *,
    sessions: NDArray[np.int64] | None = None,
    uncertainty: float = 0.0,
    correlated: bool = False,
) -> list[Location]:
    """Return `locate` of each of many cells that share their blocks, (cells, blocks)."""
    found: dict[int, Location] = {}
    for mine, each, _ in _by_unit(log_ratios, sessions, correlated=correlated):
        columns = zip(
            np.flatnonzero(mine).tolist(),
            each.mean.tolist(),
            each.error.tolist(),
            each.deviation.tolist(),
            strict=True,
        )
        for cell, mean, error, deviation in columns:
            found[cell] = Location(
                mean=mean,
                error=error,
                deviation=deviation,
                freedom=each.freedom,
                method=each.method,
                sessions=each.sessions,
                shared=math.log1p(uncertainty),
            )
    return [found[cell] for cell in range(log_ratios.shape[0])]


def kept_blocks(blocks: int) -> int:
    """Return how many blocks trimming keeps. ValueError: fewer than three give no estimate."""
    if blocks < FEWEST_BLOCKS:
        raise ValueError(f"an estimate needs {FEWEST_BLOCKS} blocks, not {blocks}")
    kept = blocks - 2 * int(TRIM * blocks)
    return kept if kept >= FEWEST_KEPT else blocks


def sessions_alike(log_ratios: NDArray[np.float64], sessions: NDArray[np.int64]) -> float:
    """Return the p value of the one-way F test on ranks: small where sessions differ.

    1.0 where it cannot be tested: one session, one block per session, or equal values in all
    blocks. ValueError: the shapes differ.
    """
    if sessions.shape != log_ratios.shape or log_ratios.ndim != 1:
        message = f"each block needs a session: {log_ratios.shape} and {sessions.shape}"
        raise ValueError(message)
    return float(_alike(log_ratios[np.newaxis], sessions)[0])


def signed_rank_interval(log_ratios: NDArray[np.float64], *, level: float) -> Interval | None:
    """Return the exact Hodges-Lehmann interval as ratios; None where it does not exist.

    Its bounds are two Walsh averages (means of pairs), chosen by the null distribution of
    Wilcoxon's signed-rank sum; it covers at least `level`. None from fewer than six blocks, or
    where even the range of the blocks does not reach `level`.
    Source: Hollander, Wolfe & Chicken, Nonparametric Statistical Methods, section 3.3.
    """
    found = _signed_rank_intervals(log_ratios[np.newaxis], level, 0.0)
    return found[0] if found else None


def half_width(interval: Interval) -> float:
    """Return half the width of an interval of ratios, taken on the log scale (0.025: 2.5 %)."""
    return math.expm1((math.log(interval.high) - math.log(interval.low)) / 2)


def narrow(found: Iterable[Estimate], precision: float) -> bool:
    """Return whether the half width of each reported interval is at most `precision` (0.025:
    2.5 %), so that a run may stop. False without any estimate.

    Source: fixed-width intervals, Nordin & Schultzberg, arXiv 2405.03487.
    """
    # Only widths decide, never a p value or a verdict: stopping as soon as a difference is
    # significant finds one in a quarter of the runs that have none.
    widths = [half_width(one.interval) for one in found]
    return bool(widths) and max(widths) <= precision


# Cached, since the self-test asks for the same quantile for thousands of runs.
@cache
def student_quantile(level: float, freedom: float) -> float:
    """Return the half width of Student's two-sided interval, in standard errors."""
    return float(special().stdtrit(freedom, 0.5 + level / 2))


def _check_arguments(
    log_ratios: NDArray[np.float64],
    sessions: NDArray[np.int64] | None,
    *,
    level: float,
    margin: float,
) -> None:
    if log_ratios.ndim != _MATRIX or not bool(np.all(np.isfinite(log_ratios))):
        message = "log-ratios must be one finite number per block"
        raise ValueError(message)
    if not 0 < level < 1:
        message = f"a level lies between 0 and 1, not at {level}"
        raise ValueError(message)
    if sessions is not None and sessions.shape != log_ratios.shape[1:]:
        message = f"each block needs a session: {log_ratios.shape[1:]} and {sessions.shape}"
        raise ValueError(message)
    if not margin > 1:
        message = f"a margin is a ratio above 1 (1.05 means 5 %), not {margin}"
        raise ValueError(message)


def _by_unit(
    log_ratios: NDArray[np.float64], sessions: NDArray[np.int64] | None, *, correlated: bool
) -> Iterator[tuple[NDArray[np.bool_], _Locations, NDArray[np.float64]]]:
    """Yield the cells whose interval is computed from blocks, then those from sessions.

    Each item has a mask of these cells, (cells,), their locations, and their values for ranking,
    (these cells, blocks or sessions).
    """
    cells, blocks = log_ratios.shape
    count = blocks if sessions is None else np.unique(sessions).size
    pooled, note = np.ones(cells, dtype=np.bool_), ""
    if sessions is not None and count == 1:
        note = ", one session"
    elif sessions is not None and count < blocks:
        pooled = _alike(log_ratios, sessions) > POOLED_P
        note = f", {count} sessions pooled"
    if pooled.any():
        mine = log_ratios[pooled]
        location = _locate(np.sort(mine, axis=1))
        if correlated:
            location = replace(location, error=location.error * widening(mine))
        yield pooled, replace(location, method=f"{location.method}{note}"), mine
    if sessions is not None and not pooled.all():
        medians = _medians(log_ratios[~pooled], sessions)
        yield ~pooled, _locate_sessions(medians, log_ratios[~pooled]), medians


def _alike(log_ratios: NDArray[np.float64], sessions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the p value of `sessions_alike` for each row of (cells, blocks)."""
    cells, blocks = log_ratios.shape
    labels, sizes = np.unique(sessions, return_counts=True)
    between, within = labels.size - 1, blocks - labels.size
    if between < 1 or within < 1:
        return np.ones(cells)
    # On ranks, since one stalled block would increase the spread within its session so much that a
    # difference among sessions would not be seen.
    belongs = (sessions[:, np.newaxis] == labels).astype(np.float64)
    from scipy import stats  # noqa: PLC0415 - its import takes a second, and few commands need it

    ranks = stats.rankdata(log_ratios, axis=1)
    means = ranks @ belongs / sizes
    middle = ranks.mean(axis=1, keepdims=True)
    spread = np.sum(sizes * (means - middle) ** 2, axis=1) / between
    noise = np.sum((ranks - means @ belongs.T) ** 2, axis=1) / within
    # Without any spread within sessions F is infinite, and p is 0 if the sessions differ at all.
    p = special().fdtrc(between, within, spread / np.where(noise > 0, noise, 1.0))
    return np.where(spread == 0, 1.0, np.where(noise > 0, p, 0.0))


def _medians(log_ratios: NDArray[np.float64], sessions: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the median of each session, (cells, sessions), in the order of their labels."""
    # Medians, since one stalled block moves the mean of a short session far. Among pooled blocks
    # trimming takes care of that.
    medians = [np.median(log_ratios[:, sessions == one], axis=1) for one in np.unique(sessions)]
    return np.stack(medians, axis=1)


def _locate_sessions(medians: NDArray[np.float64], blocks: NDArray[np.float64]) -> _Locations:
    """Return the plain mean of session medians (cells, sessions), with Student's error. `blocks`
    are those of the same cells.
    """
    count = medians.shape[1]
    deviation = _deviation(medians)
    return _Locations(
        mean=np.mean(medians, axis=1),
        error=_spread(deviation, blocks) / math.sqrt(count),
        deviation=deviation,
        freedom=count - 1,
        method=f"t of {count} session medians",
        sessions=count,
    )


def _locate(ordered: NDArray[np.float64]) -> _Locations:
    """Return the trimmed mean of sorted rows, with the error of Tukey and McLaughlin (1963)."""
    blocks = ordered.shape[1]
    kept = kept_blocks(blocks)
    cut = (blocks - kept) // 2
    middle = ordered[:, cut : blocks - cut]
    deviation = _deviation(np.clip(ordered, middle[:, :1], middle[:, -1:]))
    return _Locations(
        mean=np.mean(middle, axis=1),
        error=_spread(deviation, ordered) * math.sqrt((blocks - 1) / (kept * (kept - 1))),
        deviation=deviation,
        freedom=kept - 1,
        method=f"trimmed-t {TRIM:.0%}".replace("%", " %") if cut else "t",
    )


def _deviation(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the standard deviation of each row; exactly 0 where its values are equal."""
    # The formula leaves a rounding error for equal values, which would look like a spread.
    return np.where(np.ptp(values, axis=1) == 0, 0.0, np.std(values, axis=1, ddof=1))


def _spread(deviation: NDArray[np.float64], blocks: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the deviation of each row that its error follows from: that of all blocks where those
    that count are equal.
    """
    # Equal values in the middle do not show that the others are errors: counts may have two values.
    return np.where(deviation > 0, deviation, _deviation(blocks))


def _signed_rank_intervals(
    log_ratios: NDArray[np.float64], level: float, shared: float
) -> list[Interval]:
    """Return the `signed_rank_interval` of each row, widened by `shared` on the log scale; an empty
    list where it does not exist.
    """
    blocks = log_ratios.shape[1]
    if blocks < FEWEST_RANKED:
        return []
    tail = (1 - level) / 2
    # So many averages are cut off at each end that the probability of a smaller rank sum stays
    # within the tail.
    cut = int(np.searchsorted(_rank_sums_at_most(blocks), tail, side="right"))
    if cut == 0:
        return []
    first, second = _pairs(blocks)
    walsh = (log_ratios[:, first] + log_ratios[:, second]) / 2
    ends = (cut - 1, first.size - cut)
    walsh.partition(ends, axis=1)
    return _intervals(walsh[:, ends[0]] - shared, walsh[:, ends[1]] + shared, level)


def _intervals(low: NDArray[np.float64], high: NDArray[np.float64], level: float) -> list[Interval]:
    """Return bounds of log-ratios, (cells,) each, as intervals of ratios."""
    ends = (np.clip(end, -LARGEST_EXPONENT, LARGEST_EXPONENT).tolist() for end in (low, high))
    return [
        Interval(low=math.exp(one), high=math.exp(other), level=level)
        for one, other in zip(*ends, strict=True)
    ]


@cache
def _pairs(blocks: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of all pairs of blocks, including each block with itself."""
    first, second = np.triu_indices(blocks)
    return first, second


@cache
def _rank_sums_at_most(blocks: int) -> NDArray[np.float64]:
    """Return P(signed-rank sum <= k) for k = 0 ... blocks (blocks + 1) / 2 under the null."""
    # Each rank is part of the sum with probability one half. So the distribution for n ranks is
    # that for n - 1 ranks, averaged with the same shifted by n.
    chances = np.ones(1)
    for rank in range(1, blocks + 1):
        grown = np.zeros(chances.size + rank)
        grown[: chances.size] = chances / 2
        grown[rank:] += chances / 2
        chances = grown
    at_most = np.cumsum(chances)
    at_most.flags.writeable = False  # the cache hands the same array to every caller
    return at_most


def _ratio(log_ratio: float) -> float:
    """Return exp, within the range of a float."""
    return math.exp(max(-LARGEST_EXPONENT, min(log_ratio, LARGEST_EXPONENT)))
