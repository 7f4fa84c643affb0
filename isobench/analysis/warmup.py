"""How a visit goes, pass by pass: warm-up is shown and not assumed.

Programs may never reach a steady state, so that a number of warm-up passes chosen beforehand proves
nothing (Barrett et al. 2017, Virtual machine warmup blows hot and cold).
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import stats

_SHOWN: Final = 24
"""Passes that are shown one by one."""
_SLOWER: Final = 1.02
"""A pass is slower than the rest of its visit from here on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupProfile:
    """The passes of a cell's visits, each as a ratio to the median of its visit's timed ones."""

    warmups: int
    """How many of the passes were not timed for the result: the first ones."""
    timed: int
    visits: int
    passes: tuple[float, ...]
    """The median over visits, of each pass in order: the first ones of many."""
    late: int
    """How many of the first timed passes are slower than the rest: shown, at 95 %, by over 2 %."""


def warmup_profile_of(recorded: pd.DataFrame) -> WarmupProfile | None:
    """Return how the visits of a cell go; None without passes to hold against each other.

    `recorded` holds the cell's records: columns block, metric, iteration, value.
    """
    timed, warm = (_by_visit(recorded, metric) for metric in ("time", "warmup"))
    if timed is None or warm is None or len(timed[0]) != len(warm[0]) or timed[1].shape[1] <= 1:
        return None
    usual = np.median(timed[1], axis=1, keepdims=True)
    ratios = np.concatenate([warm[1], timed[1]], axis=1) / usual
    skip = warm[1].shape[1]
    late = 0
    for one in ratios.T[skip:]:
        bound = stats.quantile_lower(one)
        if bound is None or bound <= _SLOWER:
            break
        late += 1
    return WarmupProfile(
        warmups=skip,
        timed=timed[1].shape[1],
        visits=len(timed[0]),
        passes=tuple(float(value) for value in np.median(ratios[:, : skip + _SHOWN], axis=0)),
        late=late,
    )


def _by_visit(
    recorded: pd.DataFrame, metric: str
) -> tuple[NDArray[np.int64], NDArray[np.float64]] | None:
    """Return the blocks and the values of one metric, shape (blocks, passes); None unless each has
    as many.
    """
    mine = recorded[recorded["metric"] == metric]
    ordered = np.lexsort([mine["iteration"].to_numpy(), mine["block"].to_numpy()])
    blocks, counts = np.unique(mine["block"].to_numpy(np.int64), return_counts=True)
    values = mine["value"].to_numpy(np.float64)[ordered]
    if not blocks.size or np.any(counts != counts[0]) or np.any(values <= 0):
        return None
    return blocks, values.reshape(len(blocks), -1)
