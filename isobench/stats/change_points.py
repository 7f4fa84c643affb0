"""Where the level of a series of runs changes.

The search is that of ruptures (Truong, Oudre and Vayatis 2020, Selective review of offline change
point detection methods, Signal Processing 167): the segmentation with the least squared error plus
a penalty for each change. Its scale is the spread of the series, widened where runs in a row are
alike. What is found is tested afterwards, by whoever asks, with the errors of the runs.
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
_WINDOW: Final = 9
"""Runs of the median around which nights in a row are alike or not: it follows the level."""
_LARGEST_AUTOCORRELATION: Final = 0.8
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


def autocorrelation(values: NDArray[np.float64]) -> float:
    """Return how much alike runs in a row are besides the level of a series: r at lag 1, 0 to 0.8.

    It is that of the distances from a running median, so that changes of the level hardly count.
    """
    if values.size < FEWEST_RUNS:
        return 0.0
    around = values - _running_median(values, min(_WINDOW, values.size - 1) // 2)
    # Clipped at one standard deviation, since a level of few runs is far from the median.
    most = _NORMAL * float(np.median(np.abs(around)))
    around = np.clip(around, -most, most)
    squares = float(np.sum(around**2))
    if squares == 0:
        return 0.0
    # Of independent runs the estimate is about -2 / window in the mean: their median is their own.
    found = float(np.sum(around[1:] * around[:-1])) / squares + 2 / _WINDOW
    return min(max(found, 0.0), _LARGEST_AUTOCORRELATION)


def change_points(values: NDArray[np.float64], least: float = 0.0) -> list[int]:
    """Return the indices of the first runs of new levels.

    `values` are log-ratios of runs by time, shape (runs,); `least` is the smallest standard
    deviation that a run can have, such as its own error. Fewer than FEWEST_RUNS have none.
    UsageError: ruptures is not installed.
    """
    skipped = max(0, values.size - MOST_RUNS)
    values = values[skipped:]
    alike = autocorrelation(values)
    # Neighbours that are alike differ by less than the level wanders.
    deviation = spread(values, least) * math.sqrt(1 + alike) / (1 - alike)
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
    middle = _running_median(scaled, _NEIGHBOURS)
    return np.clip(scaled, middle - _OUTLIER, middle + _OUTLIER)


def _running_median(values: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the median of each value and of so many on either side, (values,)."""
    padded = np.pad(values, reach, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1)
    return np.asarray(np.median(windows, axis=1), dtype=np.float64)
