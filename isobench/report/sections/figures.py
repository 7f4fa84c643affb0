"""Figures with typographic signs: a multiplication sign, no-break spaces.

`isobench.model.wording` decides about digits and units.
"""

from isobench.model import wording
from isobench.report.signs import SPACE, TIMES

interval_text = wording.interval_text


def ratio_text(ratio: float | None, bounds: tuple[float, float] | None = None) -> str:
    """Return a ratio such as "1.01x", with a multiplication sign; a dash for none."""
    return wording.times_text(ratio, bounds).replace("x", TIMES)


def seconds_text(seconds: float | None, digits: int = 3) -> str:
    """Return a measured time with its unit; a dash for none."""
    return wording.seconds_text(seconds, digits).replace(" ", SPACE)


def amount_text(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a measured value with its unit, which no end of a line parts from it, or a dash."""
    return wording.amount_text(value, unit, digits).replace(" ", SPACE)


def percent_text(share: float | None) -> str:
    """Return a share in percent; a dash for none."""
    return wording.percent_text(share).replace(" ", SPACE)


def duration_text(seconds: float | None) -> str:
    """Return a duration in whole seconds, minutes and hours; "not recorded" for none."""
    if seconds is None:
        return "not recorded"
    return wording.duration_text(round(seconds)).replace(" ", SPACE)
