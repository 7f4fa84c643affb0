"""Types for plain values, and the units of numbers."""

import re
from enum import StrEnum
from typing import Final, NewType

from isobench.model.bounds import MOST_SECONDS

Nanoseconds = NewType("Nanoseconds", int)
TargetName = NewType("TargetName", str)
WorkloadName = NewType("WorkloadName", str)
Sha256 = NewType("Sha256", str)

SECOND = Nanoseconds(1_000_000_000)
LARGEST_EXPONENT: Final = 700.0
"""exp() of a float overflows above 709."""


class Unit(StrEnum):
    """The unit of a stored value."""

    NANOSECOND = "ns"
    BYTE = "bytes"
    COUNT = "count"
    OPERATIONS_PER_SECOND = "ops/s"
    JOULE = "joules"

    @property
    def in_answers(self) -> str:
        """The unit of `summary.json`: times are in seconds there, all else as it was stored."""
        return "seconds" if self is Unit.NANOSECOND else self.value


def seconds(value: float) -> Nanoseconds:
    """Return a duration in seconds as nanoseconds."""
    return Nanoseconds(round(value * SECOND))


_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "": 1.0}
_PART: Final = re.compile(r"(\d+\.?\d*|\.\d+)(ms|h|m|s|)", re.ASCII)


def parse_duration(text: str) -> float:
    """Return the seconds in "50ms", "90s", "10m", "1h30m" or "90" (seconds).

    ValueError: it is not a duration, it is zero, or longer than anything that is measured.
    """
    # A number without a unit means seconds, and may only come last: in "10 30s" it is a mistake.
    parts = _PART.findall(text)
    whole = "".join(number + unit for number, unit in parts) == text
    total = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    if not whole or not all(unit for _, unit in parts[:-1]) or total <= 0:
        raise ValueError(f"{text!r} is not a duration: write 50ms, 90s, 10m or 1h30m")
    if total > MOST_SECONDS:
        raise ValueError(f"{text[:40]!r} is too long: {MOST_SECONDS:.0f}s are the most")
    return total
