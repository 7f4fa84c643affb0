"""The times of each target block by block, for formats of tools that know times alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from isobench.analysis.cells import Analysis
from isobench.model.plan import second
from isobench.storage.reader import Run

_FENCE = 1.5
"""Interquartile ranges beyond which a value is an outlier (Tukey)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """A target in a workload; native is one of them."""

    target: str
    workload: str
    seconds: tuple[float, ...]
    """The median of each block that counts: of an operation, or of a start."""

    @property
    def name(self) -> str:
        """What other tools call it: "cpu.sieve[docker]"."""
        return f"{self.workload}[{self.target}]"

    @property
    def statistics(self) -> "Statistics":
        """What describes the blocks."""
        return _statistics(np.array(self.seconds, dtype=np.float64))


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What describes some times, all in seconds; blocks are the unit."""

    minimum: float
    maximum: float
    mean: float
    deviation: float
    """The standard deviation; 0 of one block."""
    quartiles: tuple[float, float, float]
    total: float
    far: int
    """How many are more than a standard deviation from the mean."""
    outliers: int
    """How many are beyond the fences of Tukey."""
    fenced: tuple[float, float]
    """The smallest and the largest within them."""


def timings(run: Run) -> Iterator[Timing]:
    """Yield native and all targets of each workload, by its times. Native's second visit is a
    control, and has none.
    """
    analysis = Analysis(run)
    control = second(analysis.reference)
    for workload in analysis.workloads:
        for target in analysis.targets:
            column = analysis.column(workload, target)
            if column is None or target == control:
                continue
            seconds = column.dropna().to_list()
            if seconds:
                yield Timing(target=target, workload=workload, seconds=tuple(map(float, seconds)))


def _statistics(seconds: NDArray[np.float64]) -> Statistics:
    first, median, third = (float(x) for x in np.percentile(seconds, (25, 50, 75)))
    spread, mean = third - first, float(seconds.mean())
    deviation = float(seconds.std(ddof=1)) if seconds.size > 1 else 0.0
    inside = seconds[(seconds >= first - _FENCE * spread) & (seconds <= third + _FENCE * spread)]
    return Statistics(
        minimum=float(seconds.min()),
        maximum=float(seconds.max()),
        mean=mean,
        deviation=deviation,
        quartiles=(first, median, third),
        total=float(seconds.sum()),
        far=int(np.count_nonzero(np.abs(seconds - mean) > deviation)),
        outliers=int(seconds.size - inside.size),
        fenced=(float(inside.min()), float(inside.max())),
    )
