"""Compares a payload's clock with the host's over the same span. Pure.

A span lasts from the payload's first line to its last, by both clocks. How long a line takes to
reach the host is unknown. It is at most `dispatch`, the time from the request for the payload to
its first line. So a comparison needs spans that are much longer than `dispatch`.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

# NTP may change the rate of a clock by 500 ppm (adjtimex(2)), which is a twentieth of this.
TOLERANCE: Final = 0.01
"""By how much two clocks may differ and still be called equal (0.01: 1 %)."""
# The error of a slope is then 2 / 20, a tenth, at most: a clock that is more than 11 % off is
# found.
LONG_SPAN: Final = 20
"""A span must be longer than so many dispatch times to be compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCheck:
    """What the visits of one cell show about the payload's clock."""

    slope: float
    """Its speed relative to the host's clock (1.0: equal)."""
    error: float
    """The error of `slope` that the unknown transport of lines allows (0.01: 1 %)."""
    runs: bool
    """Whether the clock advanced in every visit, so that its times can be converted to the host's.
    """
    long: bool = True
    """Whether the spans are long enough for `slope` to be used. Short ones can only show that a
    clock is wrong.
    """

    @property
    def allowed(self) -> float:
        """How far `slope` may be from 1 where the clocks agree."""
        return TOLERANCE + self.error

    @property
    def trusted(self) -> bool:
        """Whether the clocks agree."""
        return self.runs and abs(self.slope - 1) <= self.allowed


def long_enough(host_ns: int, dispatch_ns: int) -> bool:
    """Return whether a span is long enough to compare clocks. Both arguments in nanoseconds."""
    return host_ns > LONG_SPAN * dispatch_ns


def check(guest_ns: Sequence[int], host_ns: Sequence[int], dispatch_ns: int) -> ClockCheck | None:
    """Return what the spans of some visits show; None where all are too short to show anything.

    `guest_ns` and `host_ns` have one span per visit. ValueError: they differ in length.
    """
    spans = list(zip(guest_ns, host_ns, strict=True))
    long_spans = [(guest, host) for guest, host in spans if long_enough(host, dispatch_ns)]
    # A clock that is right needs long spans to show it; one that is far off shows in short ones
    # too.
    if not long_spans:
        return _from_short_spans(spans, dispatch_ns)
    # The median over visits, not the sum: a busy host sometimes reads a line late.
    return ClockCheck(
        slope=statistics.median(guest / host for guest, host in long_spans),
        # The first line and the last may each be late by up to a dispatch.
        error=2 * dispatch_ns / statistics.median(host for _, host in long_spans),
        runs=all(g > 0 for g, _ in long_spans),
    )


def _from_short_spans(spans: Sequence[tuple[int, int]], dispatch_ns: int) -> ClockCheck | None:
    """Return a clock that is wrong by more than the transport of lines can explain; None where
    short spans show no such thing.
    """
    hidden = 2 * dispatch_ns
    # The unknown time is assumed in favour of the clock, so these are lower bounds of its error.
    fast = [g - (1 + TOLERANCE) * (h + hidden) for g, h in spans]
    slow = [(1 - TOLERANCE) * (h - hidden) - g for g, h in spans]
    for beyond, way in ((fast, 1), (slow, -1)):
        slopes = [g / (h + way * hidden) for g, h in spans if h > -way * hidden]
        if slopes and statistics.median(beyond) > 0:
            return ClockCheck(
                slope=statistics.median(slopes),
                error=0.0,
                runs=all(g > 0 for g, _ in spans),
                long=False,
            )
    return None
