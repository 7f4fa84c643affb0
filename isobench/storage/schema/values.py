"""Plain values that several tables hold, with the limits that make them sane."""

from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta

FORMAT: Final = 1
"""The version of all files of a run. History: 1 - the first."""
_LARGEST: Final = (1 << 63) - 1
Integer = Annotated[int, Meta(ge=-_LARGEST - 1, le=_LARGEST)]
HostFact = str | Integer | float | bool | None
"""What the host shows of itself. None: looked, and could not read it."""
Facts = dict[str, HostFact]
"""Facts of the host by key; those that come in families have a dot in it ("mitigation.mds")."""
Amount = Annotated[float, Meta(ge=0)]
"""A time in seconds, a share or a count that is not whole."""
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Positive = Annotated[float, Meta(gt=0)]
"""A ratio, or a share that is not nothing."""
Bounds = tuple[Positive, Positive]
"""The two ends of an interval of ratios or seconds, the lower one first."""


def demand_order(*intervals: Bounds | None) -> None:
    """ValueError: an interval ends below its beginning."""
    for interval in intervals:
        if interval is not None and interval[0] > interval[1]:
            message = f"the interval {list(interval)} ends below its beginning"
            raise ValueError(message)


def moment_of(text: str | None) -> datetime | None:
    """Return a moment of ISO 8601 in UTC, or None; one without a zone is taken to be in UTC."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
