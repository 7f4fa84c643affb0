"""Where the level of a series of runs changes.

The search is that of ruptures (Truong, Oudre and Vayatis 2020, Selective review of offline change
point detection methods, Signal Processing 167): the segmentation with the least squared error plus
a penalty for each change. Its scale is the spread of the series itself. What is found is tested
afterwards, by whoever asks, with the errors of the runs.
"""

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isobench.model.errors import UsageError

FEWEST_RUNS: Final = 8
"""A shorter series has no change points."""
MOST_RUNS: Final = 500
"""Of a longer series the newest runs are searched: the time grows with the square."""
_FEWEST_BETWEEN: Final = 3
"""Runs between two change points. A single night is an outlier, no level."""
_PENALTY: Final = 4.0
"""Of one change, times ln(runs), in variances. By simulation: tests/bench/bench_history.py."""
_OUTLIER: Final = 3.0
"""Standard deviations from the median of its neighbours at which a run is cut off."""
_NEIGHBOURS: Final = 2
_NORMAL: Final = 1.4826
"""A normal distribution's standard deviation over its median absolute deviation."""


def spread(values: NDArray[np.float64], least: float = 0.0) -> float:
    """Return the standard deviation of neighbouring runs, robustly, at least `least`.

    It is computed from the differences of neighbours, so that changes of the level do not count.
    """
    if values.size < 2:  # noqa: PLR2004 - a pair
        return least
    steps = np.diff(values)
    return max(least, _NORMAL * float(np.median(np.abs(steps))) / math.sqrt(2))


def change_points(values: NDArray[np.float64], least: float = 0.0) -> list[int]:
    """Return the indices of the first runs of new levels.

    `values` are log-ratios of runs by time, shape (runs,); `least` is the smallest standard
    deviation that a run can have, such as its own error. Fewer than FEWEST_RUNS have none.
    UsageError: ruptures is not installed.
    """
    skipped = max(0, values.size - MOST_RUNS)
    values = values[skipped:]
    deviation = spread(values, least)
    if values.size < FEWEST_RUNS or deviation <= 0:
        return []
    ruptures = library()
    scaled = _without_outliers(values / deviation)
    search = ruptures.KernelCPD(kernel="linear", min_size=_FEWEST_BETWEEN)
    found = search.fit(scaled.reshape(-1, 1)).predict(pen=_PENALTY * math.log(values.size))
    return [skipped + int(one) for one in found[:-1]]


def library() -> Any:  # noqa: ANN401 - a module
    """Return ruptures, whose import takes a second. UsageError: it is not installed."""
    try:
        import ruptures  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError(
            "change points need ruptures, which is not installed",
            hint="python3 -m pip install 'isobench[history]'",
        ) from None
    return ruptures


def _without_outliers(scaled: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the series with single outlying runs moved towards their neighbours."""
    padded = np.pad(scaled, _NEIGHBOURS, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * _NEIGHBOURS + 1)
    middle = np.median(windows, axis=1)
    return np.clip(scaled, middle - _OUTLIER, middle + _OUTLIER)
