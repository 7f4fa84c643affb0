"""Names for plain values, and the units a number may have."""

from enum import StrEnum
from typing import NewType

Nanoseconds = NewType("Nanoseconds", int)
TargetName = NewType("TargetName", str)
WorkloadName = NewType("WorkloadName", str)
Sha256 = NewType("Sha256", str)

SECOND = Nanoseconds(1_000_000_000)
MILLISECOND = Nanoseconds(1_000_000)


class Unit(StrEnum):
    """The unit of a stored value."""

    NANOSECOND = "ns"


def seconds(value: float) -> Nanoseconds:
    """Nanoseconds of a duration given in seconds."""
    return Nanoseconds(round(value * SECOND))
