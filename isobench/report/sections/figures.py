"""How ratios, intervals, times and shares are rounded and written."""

import math
from typing import Final

TIMES: Final = "\N{MULTIPLICATION SIGN}"
DASH: Final = "\N{EN DASH}"
NOTHING: Final = "\N{EM DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"
_BARELY_BELOW: Final = 0.5


def _places(value: float, digits: int) -> int:
    """Return how many decimals show `digits` significant digits of a positive number."""
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(rounded))) if rounded > 0 else 0


def decimals(ratio: float, bounds: tuple[float, float] | None) -> int:
    """Return decimals for a ratio: three significant digits, fewer where the interval is wide.

    One more where the interval is so narrow that its ends would look the same.
    """
    # Just below 1 a third digit would claim ten times the resolution that it claims just above.
    most = _places(max(ratio, 1.0) if ratio > _BARELY_BELOW else ratio, 3)
    if bounds is None or bounds[0] == bounds[1]:
        return most
    half = (bounds[1] - bounds[0]) / 2
    # However wide the interval: "0x" and "1x" tell less than the two digits of 0.79 and 1.4.
    least = min(most, _places(ratio, 2))
    places = max(least, min(most, math.ceil(-math.log10(half / 3))))
    return places + (f"{bounds[0]:.{places}f}" == f"{bounds[1]:.{places}f}")


def ratio_text(ratio: float | None, bounds: tuple[float, float] | None = None) -> str:
    """Return a ratio as "1.01x" with the sign of multiplication, or a dash."""
    if ratio is None or ratio <= 0:
        return NOTHING
    return f"{ratio:.{decimals(ratio, bounds)}f}{TIMES}"


def interval_text(ratio: float | None, bounds: tuple[float, float] | None) -> str:
    """Return an interval as "[0.99, 1.03]" with the decimals of its ratio, or nothing."""
    if ratio is None or ratio <= 0 or bounds is None:
        return ""
    places = decimals(ratio, bounds)
    return f"[{bounds[0]:.{places}f}, {bounds[1]:.{places}f}]"


def seconds_text(seconds: float | None, digits: int = 3) -> str:
    """Return a duration in ns, us, ms or s with so many significant digits, or a dash."""
    if seconds is None or seconds < 0:
        return NOTHING
    if seconds == 0:
        return f"0{SPACE}s"
    rounded = float(f"{seconds:.{digits - 1}e}")
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6), ("ns", 1e-9)):
        if rounded >= size * (1 - 1e-12) or unit == "ns":
            break
    number = rounded / size
    return f"{number:.{_places(number, digits)}f}{SPACE}{unit}"


def percent_text(share: float | None) -> str:
    """Return a share as a percentage with two significant digits, or a dash."""
    if share is None:
        return NOTHING
    number = round(100 * share, 9)
    places = 0 if number.is_integer() else min(2, _places(abs(number), 2))
    return f"{number:.{places}f}{SPACE}%"
