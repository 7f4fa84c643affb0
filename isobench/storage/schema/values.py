"""Types of plain values in the files of a run, with their bounds."""

from datetime import UTC, datetime
from typing import Annotated, Final

from msgspec import Meta

FORMAT: Final = 1
"""The version of all files of a run. History: 1 - the first."""
# pandas and numpy keep larger integers as Python objects.
_LARGEST: Final = (1 << 63) - 1
Integer = Annotated[int, Meta(ge=-_LARGEST - 1, le=_LARGEST)]
HostFact = str | Integer | float | bool | None
"""A fact of the host. None: it could not be read."""
Facts = dict[str, HostFact]
"""Facts of the host by key. The keys of a family share a prefix and a dot ("mitigation.mds")."""
Amount = Annotated[float, Meta(ge=0)]
"""A time in seconds, or a share."""
Count = Annotated[int, Meta(ge=0, le=_LARGEST)]
Positive = Annotated[float, Meta(gt=0)]
"""A ratio, or a share above 0."""
Bounds = tuple[Positive, Positive]
"""The ends of an interval of ratios or seconds, the lower one first."""


def check_order(*intervals: Bounds | None) -> None:
    """Check that intervals have their lower end first. ValueError: one has not."""
    for interval in intervals:
        if interval is not None and interval[0] > interval[1]:
            message = f"the interval {list(interval)} ends below its beginning"
            raise ValueError(message)


def moment_of(text: str | None) -> datetime | None:
    """Return a time in the format of ISO 8601 as UTC; None where it is not one.

    A time without a zone counts as UTC.
    """
    try:
        moment = datetime.fromisoformat(text or "")
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the first and last hours of the calendar have no UTC
        return None
