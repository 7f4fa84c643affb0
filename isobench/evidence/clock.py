"""A payload's clock held against the host's over the same span. Pure.

Spans run from a payload's first line to its last, by either clock. What a line takes to reach the
host is not known, only that it is no more than `dispatch`: from asking for the payload to its first
line. So a span tells something only where it is much longer. A busy host now and then hears a line
late: so the middle one of the visits speaks for a clock, not their sum.
"""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

TOLERANCE: Final = 0.01
LONG: Final = 20
"""A span of so many dispatch costs is long enough to tell clocks apart."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockCheck:
    """What the visits of one cell show of the clock inside."""

    slope: float
    """How fast it ran, the host's clock being 1."""
    error: float
    """The share of a span that its way to the host may hide (0.01: 1 %)."""
    runs: bool
    """It moved on in every visit, so that its times can be brought to the host's."""
    long: bool = True
    """Spans are long enough for that; short ones may yet show that a clock is off."""

    @property
    def allowed(self) -> float:
        """How far off the slope may be without meaning anything."""
        return TOLERANCE + self.error

    @property
    def trusted(self) -> bool:
        """Whether both clocks agree."""
        return self.runs and abs(self.slope - 1) <= self.allowed


def long_enough(host_ns: int, dispatch_ns: int) -> bool:
    """Say whether a span can tell clocks apart."""
    return host_ns > LONG * dispatch_ns


def check(guest_ns: Sequence[int], host_ns: Sequence[int], dispatch_ns: int) -> ClockCheck | None:
    """Return what the spans of some visits show, or None where none is long enough to show a thing.

    ValueError: the two do not pair.
    """
    spans = list(zip(guest_ns, host_ns, strict=True))
    told = [(guest, host) for guest, host in spans if long_enough(host, dispatch_ns)]
    if not told:
        return _short(spans, dispatch_ns)
    return ClockCheck(
        slope=statistics.median(guest / host for guest, host in told),
        error=2 * dispatch_ns / statistics.median(host for _, host in told),
        runs=all(g > 0 for g, _ in told),
    )


def _short(spans: Sequence[tuple[int, int]], dispatch_ns: int) -> ClockCheck | None:
    """Return what short spans show: only that a clock is off by more than all that the way to the
    host could hide.
    """
    hidden = 2 * dispatch_ns
    # What is hidden is given to the clock's favour: it is off by this at the least.
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
