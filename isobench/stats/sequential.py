"""When a cell may leave a run before its end, and at which level it is then judged. Pure.

A run analyses its cells after some of its blocks. A cell that is decided at such an interim
analysis may leave; the others are judged at the end. Each analysis is one more chance of a wrong
verdict, so that the interim ones use a much higher level than the last one.

Repeated confidence intervals (Jennison & Turnbull 1993, Sequential equivalence testing and repeated
confidence intervals) with constant limits before the end (Haybittle 1971, Peto 1976). They are
judged against O'Brien and Fleming's limits and steeper ones (Lan & DeMets 1983, Wang & Tsiatis
1987) in tests/bench/bench_sequential.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

FIRST_ANALYSIS: Final = 5
"""Blocks before the first interim analysis: from fewer, an interval at 99.9 % decides nothing."""
# Each analysis is one more chance to stop at an interval that is narrow by chance. With these
# numbers the reported interval (97 % nominal) still covers 95 %: docs/statistics.md.
FIRST_STOP: Final = 10
"""Blocks before the first interim analysis at which narrow intervals may end a run."""
GROWTH: Final = 1.2
"""An interim analysis comes after so many times the blocks of the one before."""
_MOST_BLOCKS: Final = 1_000_000
# From fewer blocks the autocorrelation is hardly known, and correcting for it only adds noise.
_FEWEST_CORRELATED: Final = 10
_LARGEST_AUTOCORRELATION: Final = 0.6


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """At which level a cell is judged. Levels are of two-sided intervals (0.97: 97 %); each of the
    two one-sided tests has half of what is missing to 1.
    """

    name: str
    """With its version, as `run.json` records it: the analysis can be made again."""
    interim: float
    final: float

    def level(self, share: float) -> float:
        """Return the level of an analysis after this share of the budget (0 to 1; 1: the end).

        ValueError: the share is not above 0.
        """
        # The limits of O'Brien and Fleming fall with the share. They rest on the share being the
        # share of information, which it is not: when expensive cells have left, blocks are cheaper
        # and more frequent. The interval then covered 91 to 93 % in simulations. A constant level
        # does not depend on the share, nor on how many cells have left, and it lets cells go as
        # early as they do: the mean number of blocks is the same.
        if not share > 0:
            message = f"an analysis comes after a share of the budget above 0, not {share}"
            raise ValueError(message)
        return self.final if share >= 1 else self.interim

    def spent(self, analyses: int, *, ended: bool = False) -> float:
        """Return the most error that so many interim analyses, and the last one if the run has
        `ended`, have spent for each one-sided test (Bonferroni).

        In simulations it is about half of that: the analyses share most of their blocks.
        """
        return ((1 - self.interim) * analyses + (1 - self.final) * ended) / 2


RULE: Final = Rule(name="leave at 99.9 %, end at 97 % (1)", interim=0.999, final=0.97)
"""The rule of new runs."""
RULES: Final[Mapping[str, Rule]] = {RULE.name: RULE}
"""All rules that a run may have been measured by, by name."""


def _analyses() -> Iterator[int]:
    """Yield the numbers of blocks after which cells are analysed: 5, 6, 7, 8, 10, 12, and so on.

    Each analysis costs an error of 0.1 % at most, and 300 blocks have 23 of them. They are dense at
    first: a cell that is plain and expensive takes the time of all others until it leaves.
    """
    blocks = FIRST_ANALYSIS
    while blocks <= _MOST_BLOCKS:
        yield blocks
        blocks = round(GROWTH * blocks)


_ANALYSES: Final = frozenset(_analyses())


def is_analysis(blocks: int) -> bool:
    """Return whether cells may leave after so many blocks."""
    return blocks in _ANALYSES


def may_stop(blocks: int) -> bool:
    """Return whether narrow intervals may end a run after so many blocks."""
    return blocks >= FIRST_STOP and is_analysis(blocks)


def widening(log_ratios: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return by which factor the standard error of each row grows since neighbouring blocks are
    alike: shape (cells, blocks), blocks in the order of measuring -> (cells,). At least 1.

    The effective number of blocks is n (1 - r) / (1 + r), where r is the autocorrelation at lag 1
    of the winsorised log-ratios, corrected for its bias. From fewer than ten blocks it is 1.
    """
    cells, blocks = log_ratios.shape
    if blocks < _FEWEST_CORRELATED:
        return np.ones(cells)
    ordered = np.sort(log_ratios, axis=1)
    cut = blocks // 5
    values = np.clip(log_ratios, ordered[:, cut, np.newaxis], ordered[:, -cut - 1, np.newaxis])
    equal = np.ptp(values, axis=1) == 0
    values = values - values.mean(axis=1, keepdims=True)
    squares = np.where(equal, 1.0, np.sum(values**2, axis=1))
    products = np.sum(values[:, 1:] * values[:, :-1], axis=1)
    # Of independent values the estimate is -1 / n in the mean.
    found = np.clip(products / squares + 1 / blocks, 0.0, _LARGEST_AUTOCORRELATION)
    found = np.where(equal, 0.0, found)
    return np.asarray(np.sqrt((1 + found) / (1 - found)), dtype=np.float64)
