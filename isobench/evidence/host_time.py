"""Compares the times that payloads report with what the host saw of the same turns. Pure.

A payload on request reports the time of each turn by its own clock. The host measures each turn as
well, from the request to the answer. That is longer: it includes the untimed pass before, and the
way of two lines. A short turn, of one loop, shows how long these lines take. What is left is work,
and the share of it that a payload reports must be native's share, however slow the target is.
"""

from dataclasses import dataclass
from typing import Final

TURNS: Final = "turns"
"""The metric of the host's time of all turns of a visit; its operations are their number."""
SHORT_TURN: Final = "short-turn"
"""The metric of the host's time of the shortest turn of one loop."""
LONG_WAY: Final = 0.2
"""Where the lines of requests and answers take a larger share of the host's time, that time says
nothing of the work.
"""
LEAST_SHARE: Final = 0.9
"""A payload that reports a smaller part of the work than this, compared with native, is doubted."""
LEVEL: Final = 0.98
"""The level of intervals: their upper bounds are one-sided at 99 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """What the host's times of a cell show about the times that its payload reports."""

    share: float
    """The part of the work that the payload reports, compared with native (1: all)."""
    share_upper: float
    """The upper bound of the share."""
    ratio_upper: float
    """The upper bound of the ratio of the work that the host saw to native's."""
    is_known: bool
    """Whether the way of requests and answers is known and short. Otherwise the host's time says
    nothing of the work.
    """

    @property
    def is_incomplete(self) -> bool:
        """Whether the payload leaves out work that the host saw."""
        return self.is_known and self.share_upper < LEAST_SHARE

    @property
    def is_faster(self) -> bool:
        """Whether the host, too, saw that the target is faster than native."""
        return self.is_known and self.ratio_upper < 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The turns of one cell in one block, in nanoseconds."""

    reported: float
    """The sum of what the payload reports, with what it spends on passes that it does not time."""
    seen: float
    """The sum of what the host saw."""
    count: int
    """How many turns; above zero."""
    short: float | None
    """What the host saw of a turn of one loop; None: there was none."""

    @property
    def way(self) -> float:
        """What requests and answers take at most, in all."""
        return self.count * (self.short or 0.0)

    @property
    def is_known(self) -> bool:
        """Whether the way is known and short."""
        return self.short is not None and self.way <= LONG_WAY * self.seen

    @property
    def work(self) -> float:
        """The host's time of a turn without the way."""
        return max(self.seen - self.way, 1.0) / self.count

    @property
    def share(self) -> float:
        """The part of the work that the payload reports."""
        return self.reported / self.count / self.work
