"""Shows whether the machine changed during a run: Theil-Sen slope and Kendall's tau of native."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench.model.units import LARGEST_EXPONENT

# Both must be exceeded: in a long run a tiny drift is significant, in a short one a large one may
# be chance.
NOTABLE_CHANGE: Final = math.log(1.03)
NOTABLE_P: Final = 0.01
FEWEST: Final = 4
LEVEL: Final = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """The relative change of native from the start of a session to its end (0.04: 4 % slower)."""

    change: float
    low: float
    high: float
    """Bounds of `change` at 95 %."""
    p: float
    """Kendall's tau against time, two-sided."""
    notable: bool
    """More than 3 % with p < 0.01: absolute times need a warning. Ratios within blocks hold."""


def drift(seconds: NDArray[np.float64], at: NDArray[np.float64]) -> Drift | None:
    """Return the drift of `seconds`, shape (n,), taken at host times `at`, shape (n,); None from
    fewer than four values, where all have the same time, or where a value is zero.

    ValueError: the shapes differ, or a value is negative or not finite.
    Sources: Sen 1968, Estimates of the regression coefficient based on Kendall's tau; SciPy's
    `theilslopes` and `kendalltau`.
    """
    if seconds.shape != at.shape or seconds.ndim != 1:
        message = f"values and times must pair: {seconds.shape} and {at.shape}"
        raise ValueError(message)
    if not bool(np.all(np.isfinite(seconds) & (seconds >= 0) & np.isfinite(at))):
        message = "values must be finite and not below zero, times finite"
        raise ValueError(message)
    # A timer that is too coarse shows no time at all for some visits.
    if seconds.size < FEWEST or float(np.ptp(at)) == 0 or not bool(np.all(seconds > 0)):
        return None
    # Kendall's tau of equal values is NaN.
    if float(np.ptp(seconds)) == 0:
        return Drift(change=0.0, low=0.0, high=0.0, p=1.0, notable=False)
    logs, span = np.log(seconds), float(np.ptp(at))
    # Both are robust: single slow blocks change neither the slope nor the ranks much.
    from scipy import stats  # noqa: PLC0415 - its import takes a second, and few commands need it

    slope, _, low, high = (float(part) for part in stats.theilslopes(logs, at, LEVEL))
    p = float(stats.kendalltau(at, logs).pvalue)
    return Drift(
        change=_change(slope * span),
        low=_change(low * span),
        high=_change(high * span),
        p=p,
        notable=abs(slope * span) > NOTABLE_CHANGE and p < NOTABLE_P,
    )


def _change(log_ratio: float) -> float:
    """Return the relative change of a log-ratio, within the range of a float."""
    # Two values at nearly one time give a slope without measure.
    return math.expm1(max(-LARGEST_EXPONENT, min(log_ratio, LARGEST_EXPONENT)))
