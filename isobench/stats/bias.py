"""The control as a test: whether native differs from native, and by how much a ratio may be off."""

from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

import numpy as np

from isobench.model import Interval
from isobench.stats.blocks_needed import holm
from isobench.stats.ratio import Location

LEVEL: Final = 0.99
"""The level of the interval of a bias. The test has an error of 1 % for all controls together."""

_Key = TypeVar("_Key", bound=Hashable)


def biases(controls: Mapping[_Key, Location]) -> dict[_Key, Interval]:
    """Return the interval of each control that differs from 1, as ratios; the others are left out.

    A run has one control for each workload. Their p values are adjusted by Holm's method: at 1 %
    for each, one run of fifteen workloads in seven would find a bias where there is none.
    """
    known = [(key, one) for key, one in controls.items() if one.error > 0 or one.mean != 0]
    p_values = np.array([_p(one) for _, one in known], dtype=np.float64)
    adjusted = holm(p_values)
    return {
        key: one.interval(LEVEL)
        for (key, one), p in zip(known, adjusted, strict=True)
        if p < 1 - LEVEL
    }


def _p(control: Location) -> float:
    # Counted values that differ by the same in every block differ for sure.
    return control.p_difference if control.error > 0 else 0.0


def widened(interval: Interval, bias: Interval) -> Interval:
    """Return an interval of ratios widened by the largest bias that the control allows."""
    size = max(bias.high, 1 / bias.low)
    return Interval(low=interval.low / size, high=interval.high * size, level=interval.level)
