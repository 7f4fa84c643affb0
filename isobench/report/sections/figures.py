"""Figures as a page sets them: the signs of typography in place of letters.

How many digits a figure has is decided in `isobench.model.wording` alone.
"""

from typing import Final

from isobench.model import wording

TIMES: Final = "\N{MULTIPLICATION SIGN}"
DASH: Final = "\N{EN DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"
interval_text = wording.interval_text


def ratio_text(ratio: float | None, bounds: tuple[float, float] | None = None) -> str:
    """Return a ratio as "1.01x" with the sign of multiplication, or a dash."""
    return wording.times_text(ratio, bounds).replace("x", TIMES)


def seconds_text(seconds: float | None, digits: int = 3) -> str:
    """Return a measured time with its unit, which no end of a line parts from it, or a dash."""
    return wording.seconds_text(seconds, digits).replace(" ", SPACE)


def amount_text(value: float | None, unit: str, digits: int = 3) -> str:
    """Return a measured value with its unit, which no end of a line parts from it, or a dash."""
    return wording.amount_text(value, unit, digits).replace(" ", SPACE)


def percent_text(share: float | None) -> str:
    """Return a share in percent, or a dash."""
    return wording.percent_text(share).replace(" ", SPACE)


def duration_text(seconds: float | None) -> str:
    """Return how long something was planned to take or took; words where that is not recorded."""
    if seconds is None:
        return "not recorded"
    return wording.duration_text(round(seconds)).replace(" ", SPACE)
