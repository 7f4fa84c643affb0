"""The values of blocks that were measured in rounds.

In a round every target makes one turn right after the others. So a block's ratio of target to
native is a trimmed mean over its rounds of log(target / native), each of one round: what the
machine did meanwhile cancels out in every round. The block stays the unit of the statistics.
"""

from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench.model.plan import is_partner, partner
from isobench.model.units import TargetName

TRIM: Final = 0.2
"""The share of rounds that is left out at each end of a block: turns that an interruption has hit,
of either side.
"""
_FEWEST: Final = 5
"""Of fewer rounds the median counts."""


def levels(turns: pd.DataFrame, reference: TargetName) -> pd.DataFrame:
    """Return a value of each target in each block, in the unit of `turns`, such that the ratio of
    two columns is the block's ratio.

    `turns` has one row for each turn of one workload: columns block, target, iteration (the number
    of the round) and amount (above zero). Rows of the result are blocks, columns targets. The
    reference has the median of its turns. Every other target has that times its trimmed mean ratio
    to the reference, or, where the reference had turns of its own beside it, to those.
    """
    wide = turns.pivot_table(
        index=["block", "iteration"], columns="target", values="amount", aggfunc="first"
    )
    logs = pd.DataFrame(np.log(wide.where(wide > 0)))
    if reference not in logs.columns:
        return logs.iloc[:0, :0]
    own = logs[reference].groupby(level="block").median()
    found = {reference: own}
    for target in map(TargetName, logs.columns):
        if target == reference or is_partner(reference, target):
            continue
        beside = partner(reference, target)
        other = logs[beside] if beside in logs.columns else logs[reference]
        found[target] = own + _trimmed_means(logs[target] - other)
    return pd.DataFrame({target: np.exp(values) for target, values in found.items()})


def error(turns: pd.DataFrame, reference: TargetName, target: TargetName) -> float | None:
    """Return the standard error of a block's log-ratio that comes from the spread of its rounds,
    root mean square over blocks. None: no block has five rounds of both.

    `turns` is as for `levels`. The error is that of a trimmed mean (Yuen 1974). What blocks differ
    by beyond it does not become smaller with more rounds.
    """
    wide = turns.pivot_table(
        index=["block", "iteration"], columns="target", values="amount", aggfunc="first"
    )
    if not {reference, target} <= {*wide.columns}:
        return None
    ratios = pd.Series(np.log(wide[target] / wide[reference])).dropna()
    squares = []
    for _, own in ratios.groupby(level="block"):
        count, cut = own.size, int(TRIM * own.size)
        if count < _FEWEST:
            continue
        ordered = np.sort(own.to_numpy(float))
        winsorised = np.clip(ordered, ordered[cut], ordered[count - cut - 1])
        kept = count - 2 * cut
        # The squared error is the winsorised sum of squares over h (h - 1), of h kept values.
        squares.append(float(np.sum((winsorised - winsorised.mean()) ** 2)) / (kept * (kept - 1)))
    return float(np.sqrt(np.mean(squares))) if squares else None


def _trimmed_means(differences: pd.Series) -> pd.Series:
    """Return the trimmed mean over rounds of each block; index (block, iteration)."""
    known = differences.dropna()
    blocks = known.index.get_level_values("block").to_numpy()
    values = known.to_numpy(float)
    order = np.lexsort([values, blocks])
    blocks, values = blocks[order], values[order]
    each, begins, counts = np.unique(blocks, return_index=True, return_counts=True)
    means = [_mean(values[at : at + n]) for at, n in zip(begins, counts, strict=True)]
    return pd.Series(means, index=pd.Index(each, name="block"), dtype=float)


def _mean(ordered: NDArray[np.float64]) -> float:
    """Return the trimmed mean of values in ascending order."""
    if ordered.size < _FEWEST:
        return float(np.median(ordered))
    cut = int(TRIM * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())
