"""Names for plain values, and the units a number may have."""

from enum import StrEnum
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)
TargetName = NewType("TargetName", str)
WorkloadName = NewType("WorkloadName", str)
Sha256 = NewType("Sha256", str)

SECOND = Nanoseconds(1_000_000_000)
MILLISECOND = Nanoseconds(1_000_000)
_MINUTE = 60
_HOUR = 3600


class Unit(StrEnum):
    """The unit of a stored value."""

    NANOSECOND = "ns"


def seconds(value: float) -> Nanoseconds:
    """Nanoseconds of a duration given in seconds."""
    return Nanoseconds(round(value * SECOND))


def duration(value: float) -> str:
    """Return seconds as people write them: "50 ms", "5 s", "1 min 30 s", "1 h 30 min"."""
    if value < 1:
        return f"{1000 * value:.3g} ms"
    if value < _MINUTE:
        return f"{value:.3g} s"
    whole = round(value)
    hours, rest = divmod(whole, _HOUR)
    minutes, left = divmod(rest, _MINUTE)
    if hours:
        left = 0  # nobody plans hours by the second
    parts = ((hours, "h"), (minutes, "min"), (left, "s"))
    return " ".join(f"{number} {unit}" for number, unit in parts if number)
