"""The values of blocks that were measured in rounds.

In a round every target makes one turn right after the others, so that they meet the same machine.
The block stays the unit of the statistics: what follows is how its rounds become one value.
"""

from collections.abc import Callable, Collection
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench.model.plan import is_partner, partner
from isobench.model.units import TargetName

TRIM: Final = 0.2
"""The share of rounds that is left out at each end of a block, of log(target / native)."""
FASTEST: Final = 0.2
"""The share of turns, the fastest of a target, that count where interruptions only add time."""
_FEWEST: Final = 5
"""Of fewer rounds the median of log(target / native) counts."""

Floats = NDArray[np.float64]
Estimator = Callable[[Floats, Floats], float]
"""Takes the logarithms of a target's turns and of native's, of the same rounds; returns the
logarithm of the block's ratio.
"""


def by_round(target: Floats, native: Floats) -> float:
    """Return the trimmed mean of the ratios of each round.

    What the machine does for longer than a round cancels out in each of them; interruptions of
    either side are trimmed.
    """
    ordered = np.sort(target - native)
    if ordered.size < _FEWEST:
        return float(np.median(ordered))
    cut = int(TRIM * ordered.size)
    return float(ordered[cut : ordered.size - cut].mean())


def by_fastest(target: Floats, native: Floats) -> float:
    """Return the ratio of the fastest turns of both: the means of as many of each.

    On a busy machine the scheduler interrupts most turns. Which side it interrupts more often is a
    matter of CPU shares and of chance, and not of the target's speed. The fastest turns of a block
    are those that nothing has interrupted.
    """
    count = max(1, round(FASTEST * target.size))
    fastest = (np.partition(own, count - 1)[:count] for own in (target, native))
    ours, others = (float(own.mean()) for own in fastest)
    return ours - others


def levels(
    turns: pd.DataFrame,
    reference: TargetName,
    estimator: Estimator = by_round,
    *,
    whole: Collection[TargetName] = (),
) -> pd.DataFrame:
    """Return a value of each target in each block, in the unit of `turns`, such that the ratio of
    two columns is the block's ratio.

    `turns` has one row for each turn of one workload: columns block, target, iteration (the number
    of the round) and amount (above zero). Rows of the result are blocks, columns targets. The
    reference has the median of its turns. Every other target has that times its ratio to the
    reference, or, where the reference had turns of its own beside it, to those. For targets in
    `whole` every turn counts (`by_round`).
    """
    logs = _logs(turns)
    if reference not in logs.columns:
        return logs.iloc[:0, :0]
    own = logs[reference].groupby(level="block").median()
    found = {reference: own}
    for target in map(TargetName, logs.columns):
        if target == reference or is_partner(reference, target):
            continue
        both = _pairs(logs, reference, target)
        found[target] = own + _of_blocks(both, by_round if target in whole else estimator)
    return pd.DataFrame({target: np.exp(values) for target, values in found.items()})


def error(
    turns: pd.DataFrame,
    reference: TargetName,
    target: TargetName,
    estimator: Estimator = by_round,
) -> float | None:
    """Return the standard error of a block's log-ratio that comes from the spread of its rounds;
    None: no block has enough of them. What blocks differ by beyond it does not become smaller with
    more rounds.

    Two halves of a block, its even and its odd rounds, have the same target and the same native;
    the error of the whole is half of their difference. `turns` is as for `levels`.
    """
    logs = _logs(turns)
    if not {reference, target} <= {*logs.columns}:
        return None
    both = _pairs(logs, reference, target)
    counts = both.groupby(level="block").size()
    both = both[both.index.get_level_values("block").isin(counts.index[counts >= 2 * _FEWEST])]
    if both.empty:
        return None
    is_odd = both.groupby(level="block").cumcount() % 2 == 1
    halves = [_of_blocks(half, estimator) for half in (both[is_odd], both[~is_odd])]
    return float(np.sqrt(np.mean((halves[0] - halves[1]).to_numpy(float) ** 2))) / 2


def _logs(turns: pd.DataFrame) -> pd.DataFrame:
    """Return the logarithms of all turns: index (block, iteration), columns targets."""
    wide = turns.pivot_table(
        index=["block", "iteration"], columns="target", values="amount", aggfunc="first"
    )
    return pd.DataFrame(np.log(wide.where(wide > 0)))


def _pairs(logs: pd.DataFrame, reference: TargetName, target: TargetName) -> pd.DataFrame:
    """Return the rounds in which a target and native both have a turn."""
    beside = partner(reference, target)
    other = logs[beside] if beside in logs.columns else logs[reference]
    return pd.DataFrame({"target": logs[target], "native": other}).dropna()


def _of_blocks(both: pd.DataFrame, estimator: Estimator) -> pd.Series:
    """Return the logarithm of the ratio of each block."""
    blocks = both.index.get_level_values("block").to_numpy()
    values = both.to_numpy(float)
    each, begins, counts = np.unique(blocks, return_index=True, return_counts=True)
    ratios = [
        estimator(values[at : at + count, 0], values[at : at + count, 1])
        for at, count in zip(begins, counts, strict=True)
    ]
    return pd.Series(ratios, index=pd.Index(each, name="block"), dtype=float)
