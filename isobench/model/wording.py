"""Rounds and writes figures, and joins names: the only module that does so. Pure.

The results are plain text. A page may typeset the units and signs differently.
"""

import math
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from isobench.model.measurement import TIME
from isobench.model.result import Status
from isobench.model.units import Unit

TOO_FEW: Final = "too few blocks"
"""The outcome of a cell that is unproven for no other reason."""
NO_TEST: Final = "isobench has no test for it yet"
"""Why a claim is untested whatever is measured."""
NOTHING: Final = "\N{EM DASH}"
"""Shown in place of a figure that does not exist."""
_DIGITS: Final = 3
_SMALL: Final = 0.1
"""Ratios from here up have the decimals of 1. Below, two decimals would leave at most one digit."""
_TENTHS: Final = 1.995
"""From this ratio on a coarse figure has one decimal."""
_MINUTE: Final = 60
_HOUR: Final = 3600
USUAL_LEVEL: Final = 0.97
"""The level of intervals that have no label."""


def ratio_text(
    ratio: float | None, bounds: tuple[float, float] | None = None, *, coarse: bool = False
) -> str:
    """Return a ratio with three significant digits and at most two decimals: 0.99, 1.62, 28.4,
    1230.

    It has fewer digits where its interval is wide, and one more where the bounds of the interval
    would look the same. `coarse` leaves two digits: 1.07, 2.3, 28, 540. A dash for None.
    """
    if ratio is None or ratio <= 0:
        return NOTHING
    places = _coarse_places(ratio) if coarse else decimals(ratio, bounds)
    if bounds is None and not places:
        ratio = float(f"{ratio:.{2 if coarse else _DIGITS}g}")
    return f"{ratio:.{places}f}"


def times_text(
    ratio: float | None, bounds: tuple[float, float] | None = None, *, coarse: bool = False
) -> str:
    """Return a ratio as a factor: 1.07x. See `ratio_text`."""
    text = ratio_text(ratio, bounds, coarse=coarse)
    return text if text == NOTHING else f"{text}x"


def range_text(low: float, high: float) -> str:
    """Return a range of ratios, coarsely: 2.7-30x."""
    ends = dict.fromkeys(ratio_text(end, coarse=True) for end in (low, high))
    return "-".join(ends) + "x"


def interval_text(bounds: tuple[float, float] | None, ratio: float | None = None) -> str:
    """Return an interval of ratios: [0.99, 1.03]. With `ratio` it has the decimals of the ratio;
    a bound has more where it would be 0. Empty for None.
    """
    if bounds is None or (ratio is not None and ratio <= 0):
        return ""
    if ratio is None:
        return f"[{ratio_text(bounds[0])}, {ratio_text(bounds[1])}]"
    places = decimals(ratio, bounds)
    low, high = (f"{one:.{places if round(one, places) else _places(one, 2)}f}" for one in bounds)
    return f"[{low}, {high}]"


def level_text(level: float) -> str:
    """Return the label of an interval that is not at the level of most: " at 99.9 %"; else
    nothing.
    """
    return "" if level == USUAL_LEVEL else f" at {100 * level:.5g} %"


def decimals(ratio: float, bounds: tuple[float, float] | None = None) -> int:
    """Return how many decimals a positive ratio has. See `ratio_text`."""
    # Just below 1 a third digit would claim ten times the resolution that it claims just above.
    most = _places(max(ratio, 1.0) if ratio >= _SMALL else ratio, _DIGITS)
    third = 0.0 if bounds is None else (bounds[1] - bounds[0]) / 6
    if bounds is None or third <= 0:
        return most
    # Two digits even for a wide interval: "0x" and "1x" say less than 0.79x and 1.4x.
    least = min(most, _places(ratio, 2))
    places = max(least, min(most, math.ceil(-math.log10(third))))
    return places + (f"{bounds[0]:.{places}f}" == f"{bounds[1]:.{places}f}")


def _coarse_places(ratio: float) -> int:
    return 2 if ratio < _TENTHS else _places(ratio, 2)


def _places(value: float, digits: int) -> int:
    """Return how many decimals show `digits` significant digits of a positive number."""
    rounded = float(f"{value:.{digits - 1}e}")
    return max(0, digits - 1 - math.floor(math.log10(rounded))) if rounded > 0 else 0


def percent_text(share: float | None) -> str:
    """Return a share in percent with two significant digits: 5 %, 1.2 %, 0.37 %; from 100 % on
    whole numbers. A dash for None.
    """
    if share is None:
        return NOTHING
    # 100 * 0.07 is 7.000000000000001.
    number = round(100 * share, 9)
    return f"{number:.0f} %" if abs(number) >= 100 else f"{float(f'{number:.2g}'):g} %"  # noqa: PLR2004 - three digits


def seconds_text(seconds: float | None, digits: int = _DIGITS) -> str:
    """Return a measured time with a suitable unit and so many significant digits: 132 ns, 240 ms,
    1.32 s. A dash for None.
    """
    if seconds is None or seconds < 0:
        return NOTHING
    if seconds == 0:
        return "0 s"
    rounded = float(f"{seconds:.{digits - 1}e}")
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("\N{MICRO SIGN}s", 1e-6), ("ns", 1e-9)):
        if rounded >= size * (1 - 1e-12) or unit == "ns":
            break
    number = rounded / size
    return f"{number:.{_places(number, digits)}f} {unit}"


_BINARY: Final = (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def amount_text(value: float | None, unit: str, digits: int = _DIGITS) -> str:
    """Return a value in a unit of `summary.json`, to so many significant digits: 132 ns, 4.25 MiB,
    1,230, 980/s, 3.20 J; a dash for none.
    """
    if unit == Unit.NANOSECOND.in_answers or value is None or value < 0:
        return seconds_text(value, digits)
    if unit == Unit.BYTE:
        suffix, size = next((one for one in _BINARY if value >= one[1]), ("B", 1))
        return f"{_grouped(value / size, digits)} {suffix}"
    number = _grouped(value, digits)
    if unit == Unit.OPERATIONS_PER_SECOND:
        return f"{number}/s"
    return f"{number} J" if unit == Unit.JOULE else number


def _grouped(value: float, digits: int) -> str:
    """Return a number to so many significant digits; a small whole one as it is."""
    if value == round(value) and value < 10**_DIGITS:
        return f"{value:.0f}"
    rounded = float(f"{value:.{digits - 1}e}")
    return f"{rounded:,.{_places(rounded, digits)}f}"


def series_text(workload: str, metric: str) -> str:
    """Return what a row of figures is about: "cpu.sieve" of its time, "cpu.sieve: peak" of another
    metric.
    """
    return workload if metric == TIME.name else f"{workload}: {metric}"


def outcome_text(status: Status, metric: str) -> str:
    """Return the outcome of a cell in a word: of any metric but time, worse and better."""
    if metric == TIME.name:
        return status
    return {Status.SLOWER: "worse", Status.FASTER: "better"}.get(status, status.value)


def duration_text(seconds: float) -> str:
    """Return a planned or elapsed time: 50 ms, 5 s, 1 min 30 s, 1 h 30 min."""
    if 0 < seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < _MINUTE:
        return f"{seconds:.3g} s"
    whole = round(seconds)
    hours, rest = divmod(whole, _HOUR)
    minutes, left = divmod(rest, _MINUTE)
    if hours:
        left = 0  # nobody plans hours by the second
    parts = ((hours, "h"), (minutes, "min"), (left, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)


def listed(names: Sequence[str]) -> str:
    """Return names as in a sentence: "a, b and c"."""
    return " and ".join(part for part in (", ".join(names[:-1]), *names[-1:]) if part)


def joined(names: Iterable[str]) -> str:
    """Return names with commas: "a, b, c"."""
    return ", ".join(names)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 block, 2 blocks."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def time_text(time: datetime) -> str:
    """Return a time in UTC as runs have it: 2026-08-01T00:00:00Z."""
    # Times of runs are compared as texts. strftime() has no leading zeros for early years.
    return time.isoformat(timespec="seconds").replace("+00:00", "Z")
