"""The values of blocks that were measured in rounds.

In a round every target makes one turn right after the others, so that they meet the same machine.
The block stays the unit of the statistics: what follows is how its rounds become one value.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench.evidence.host_time import FEWEST, fastest_count, trimmed_mean
from isobench.model.plan import is_partner, partner
from isobench.model.units import TargetName

_BITS: Final = 32
"""Of the number of a round; that of its block stands above."""

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
    return trimmed_mean((target - native).tolist())


def by_fastest(target: Floats, native: Floats) -> float:
    """Return the ratio of the fastest turns of both: the means of as many of each.

    On a busy machine the scheduler interrupts most turns. Which side it interrupts more often is a
    matter of CPU shares and of chance, and not of the target's speed. The fastest turns of a block
    are those that nothing has interrupted.
    """
    count = fastest_count(target.size)
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
    if reference not in logs:
        return pd.DataFrame()
    blocks = pd.Index(np.unique(turns["block"].to_numpy(np.int64)), name="block")
    own = logs[reference]
    medians = pd.Series(own.logs).groupby(own.blocks).median().reindex(blocks)
    found = {reference: medians}
    for target in logs:
        if target == reference or is_partner(reference, target):
            continue
        both = _pairs(logs, reference, target)
        found[target] = medians + _of_blocks(both, by_round if target in whole else estimator)
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
    if not {reference, target} <= {*logs}:
        return None
    both = _pairs(logs, reference, target)
    _, begins, at, counts = np.unique(
        both.blocks, return_index=True, return_inverse=True, return_counts=True
    )
    many = counts[at] >= 2 * FEWEST
    if not many.any():
        return None
    is_odd = (np.arange(at.size) - begins[at]) % 2 == 1
    halves = [_of_blocks(both.only(many & half), estimator) for half in (is_odd, ~is_odd)]
    return float(np.sqrt(np.mean((halves[0] - halves[1]).to_numpy(float) ** 2))) / 2


# Not a table of rounds and targets: anybody may have written the records of a run, and a target
# with rounds of its own would add rows for all others.


class _Turns(NamedTuple):
    """The turns of a target, by block and round."""

    keys: NDArray[np.int64]
    """Block and round, rising."""
    logs: Floats

    @property
    def blocks(self) -> NDArray[np.int64]:
        return self.keys >> _BITS


class _Pairs(NamedTuple):
    """The rounds in which a target and native both have a turn."""

    blocks: NDArray[np.int64]
    target: Floats
    native: Floats

    def only(self, chosen: NDArray[np.bool_]) -> "_Pairs":
        return _Pairs(self.blocks[chosen], self.target[chosen], self.native[chosen])


def _logs(turns: pd.DataFrame) -> dict[TargetName, _Turns]:
    """Return the logarithms of the turns of each target, the first of each round."""
    turns = turns.dropna(subset="amount")
    block, number = (turns[name].to_numpy(np.int64) for name in ("block", "iteration"))
    keys, amounts = (block << _BITS) + number, turns["amount"].to_numpy(float)
    found = {}
    for target, places in turns.groupby("target", observed=True).indices.items():
        own, first = np.unique(keys[places], return_index=True)
        values = amounts[places][first]
        found[TargetName(str(target))] = _Turns(own[values > 0], np.log(values[values > 0]))
    return found


def _pairs(logs: Mapping[TargetName, _Turns], reference: TargetName, target: TargetName) -> _Pairs:
    ours, others = logs[target], logs.get(partner(reference, target), logs[reference])
    at = np.searchsorted(others.keys, ours.keys)
    both = np.zeros(at.size, bool)
    inside = at < others.keys.size
    both[inside] = others.keys[at[inside]] == ours.keys[inside]
    return _Pairs(ours.blocks[both], ours.logs[both], others.logs[at[both]])


def _of_blocks(both: _Pairs, estimator: Estimator) -> pd.Series:
    """Return the logarithm of the ratio of each block."""
    each, begins, counts = np.unique(both.blocks, return_index=True, return_counts=True)
    ratios = [
        estimator(both.target[at : at + count], both.native[at : at + count])
        for at, count in zip(begins, counts, strict=True)
    ]
    return pd.Series(ratios, index=pd.Index(each, name="block"), dtype=float)
