"""Compares the times that payloads report with what the host saw of the same turns. Pure.

A payload on request reports the time of each turn by its own clock. The host measures each turn as
well, from the request to the answer. That is longer: it includes the way of two lines, whatever it
takes to wake up, and the untimed pass before. A turn of one loop, with the same untimed pass, shows
how long all this takes. What is left is the timed pass, and the share of it that a payload reports
must be native's share, however slow the target is.
"""

import math
import statistics
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from isobench.model import (
    BOUNDED_TURNS,
    FASTEST_TURNS,
    TRIMMED_TURN,
    TURNS,
    Clock,
    Interval,
    Status,
)

ONE_LOOP: Final = "one-loop-turn"
"""The metric of the host's time of a turn of one loop, after the untimed pass of the others."""
MEDIAN_ONE_LOOP: Final = "median-one-loop-turn"
"""The same of the median of these turns, where that one is of the shortest."""
SHORT_TURN: Final = "short-turn"
"""The same in older runs: of one loop without an untimed pass, right after the warm-up."""
FASTEST: Final = 0.2
"""The share of turns, the fastest of a target, that count where interruptions only add time."""
TRIM: Final = 0.2
"""The share of turns, or of rounds, that is left out at each end where the rest of them count."""
FEWEST: Final = 5
"""Of fewer the median counts."""
LONG_WAY: Final = 0.2
"""Where the lines of requests and answers take a larger share of the host's time, that time says
nothing of the work.
"""
LONGEST_WAY: Final = 1 / 3
"""Where they take a larger share than this of a target's turns, nothing says that it is near-native
but its payload.
"""
LEAST_SEEN: Final = 0.7
"""Nor where the payload reports a smaller part than this of the work, as the host sees it: also
where the way is unknown, because a turn has few loops, and counts as work.
"""
LEAST_OF_ALL: Final = 0.6
"""Nor where the payload reports a smaller part than this of all the time of its turns in all
blocks, compared with native's work: whatever it answers for one loop, in whichever blocks it hides
its work, and whether it makes untimed passes or not. They and a way of a quarter of a turn take
four tenths; without such passes the way may take that much.
"""
SEEN_OF_SLOWNESS: Final = 0.95
"""Nothing is slower where the host's time excludes this part of it, in logarithms. A rest of a turn
is not exactly that of another: the slower a target, the more it may be off.
"""
LEAST_SHARE: Final = 0.9
"""A payload that reports a smaller part of the work than this, compared with native, is doubted."""
MOST_SHARE: Final = 1.1
"""A payload that reports a larger part than this of all that the host saw is doubted."""
LEVEL: Final = 0.98
"""The level of intervals: each of their bounds is one-sided at 99 %."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HostCheck:
    """What the host's times of a cell show about the times that its payload reports."""

    share: float
    """The part of the work that the payload reports, compared with native (1: all)."""
    share_upper: float
    """The upper bound of the share."""
    least: float
    """The smallest ratio that the host's clock does not exclude; 0 where its time says nothing.
    Where the way is not known, or not short, what may be hidden behind it is left out. Of several
    workloads it is the mean of theirs.
    """
    most: float
    """The largest one: the upper bound; infinite where the host's time says nothing."""
    turns_most: float
    """The largest ratio of the turns that count, with all that they have beside the work: the upper
    bound; infinite where they are not known.
    """
    way: float
    """The share of a turn that the way of requests and answers takes, in the middle block; infinite
    where it is unknown.
    """
    whole: float
    """The part of all that the host saw, with the way of requests and answers, that the payload
    reports: at most 1 where it did what it reports.
    """
    whole_lower: float
    """The lower bound of this part."""
    of_all: float
    """The part of all turns of all blocks that the payload reports, or of those that count for the
    ratio where it is smaller, compared with native's work.
    """
    hiding: int
    """The blocks in which the payload reports less than `LEAST_SEEN` of the work; 0 where these are
    few, or may be stalls of the machine.
    """
    blocks: int
    """The blocks that were compared."""
    is_known: bool
    """Whether the way of requests and answers is known and short. Otherwise the host's time says
    nothing of the work.
    """

    @property
    def is_incomplete(self) -> bool:
        """Whether the payload leaves out work that the host saw."""
        return self.is_known and self.share_upper < LEAST_SHARE

    @property
    def is_hidden(self) -> bool:
        """Whether the host sees too little of the work to confirm what speaks for a target."""
        is_far = self.way > LONGEST_WAY and math.isfinite(self.way)
        is_little = self.share_upper < LEAST_SEEN or self.of_all < LEAST_OF_ALL
        return is_far or is_little or self.hiding > 0

    @property
    def is_unseen(self) -> bool:
        """Whether the payload reports more time than the host saw: it has not worked so long, or
        its lines reach the host late.
        """
        return self.whole_lower > MOST_SHARE

    def excludes(self, status: Status, interval: Interval, margin: float) -> bool:
        """Whether the host's clock excludes a cell's interval, or what it means at `margin` (a
        ratio): a target moves time from turns that count for the interval to others, or reports too
        much.
        """
        if status is Status.NEAR_NATIVE and self.least > margin:
            return True
        low = interval.low
        lowest = math.pow(low, SEEN_OF_SLOWNESS) if low > 1 else low * LEAST_SHARE
        return self.most < lowest or self.least > interval.high / LEAST_SHARE

    @property
    def possible(self) -> tuple[float, float]:
        """The smallest and the largest ratio that the host's clock leaves possible."""
        most = math.pow(self.most, 1 / SEEN_OF_SLOWNESS) if self.most > 1 else self.most
        return self.least, most

    @property
    def is_faster(self) -> bool:
        """Whether the host, too, saw that the target is faster than native."""
        return self.is_known and self.most < 1 and not self.is_hidden

    @property
    def is_faster_as_far_as_seen(self) -> bool:
        """Whether the host saw that the target is faster: where the way is long or unknown, that
        its whole turns are shorter.
        """
        return self.is_faster or (not self.is_known and self.turns_most < 1 and not self.is_hidden)


@dataclass(frozen=True, slots=True, kw_only=True)
class Turns:
    """The turns of one cell in one block, in nanoseconds."""

    reported: float
    """The sum of what the payload reports of the work."""
    seen: float
    """The sum of what the host saw."""
    count: int
    """How many turns; above zero."""
    rest: float | None
    """What the host saw of the shortest turn without the work; None: unknown."""
    median_rest: float | None = None
    """The same of the median turn without the work; None: unknown."""
    untimed: float = 0.0
    """What of all rests is no way, but passes that are not timed, by the payload's own times."""
    fastest: float | None = None
    """What the host saw of one of the fastest turns; None: unknown."""
    trimmed: float | None = None
    """What the host saw of a turn, of those without the fastest and the slowest fifth; None:
    unknown.
    """
    fastest_reported: float | None = None
    """What the payload reports of the work of one of the fastest turns, by its own times; None:
    unknown.
    """
    trimmed_reported: float | None = None
    """The same of a turn, of those without the fastest and the slowest fifth."""
    bounded: float | None = None
    """The sum of what the payload reports of the work, of each turn at most what the host saw of
    it; None: unknown.
    """

    @property
    def credited(self) -> float:
        """What counts of what the payload reports: a turn of which it reports too much makes up for
        no other, where that is known.
        """
        return self.reported if self.bounded is None else self.bounded

    @property
    def _usual_rest(self) -> float:
        """What a usual turn takes without the work: the untimed pass, where no more is known."""
        usual = self.rest if self.median_rest is None else self.median_rest
        return self._untimed_pass if usual is None else usual

    @property
    def _shortest_rest(self) -> float:
        """The same of the shortest turn."""
        return self._untimed_pass if self.rest is None else self.rest

    @property
    def _untimed_pass(self) -> float:
        """An untimed pass of a turn, by the payload's own times."""
        return self.untimed * self.credited / self.reported / self.count

    @property
    def way_share(self) -> float:
        """The share of a turn that the way of requests and answers takes, by the host's times;
        infinite where it is unknown.
        """
        if self.rest is None:
            return math.inf
        return max(self._way(turn, rest) / turn for turn, rest in self._like)

    @property
    def _like(self) -> list[tuple[float, float]]:
        """Turns that count, with the rest of such turns: the fastest with the shortest, trimmed
        ones with the median.

        A target is free to make a few turns long. Of all turns the way is then a small share, and a
        large one of those that count.
        """
        pairs = ((self.fastest, self.rest), (self.trimmed, self.median_rest))
        known = [(turn, rest) for turn, rest in pairs if turn is not None and rest is not None]
        # Older runs have the shortest rest alone.
        return known if len(known) == len(pairs) else [(self.seen / self.count, self.rest or 0.0)]

    def _way(self, turn: float, rest: float) -> float:
        """Return the way of such a turn: its rest without the untimed pass."""
        return rest - self.untimed / self.reported * max(turn - rest, 0.0)

    @property
    def longest_rest(self) -> float:
        """What the rest of a turn would be with the longest way."""
        return max(rest - self._way(turn, rest) + LONGEST_WAY * turn for turn, rest in self._like)

    @property
    def work(self) -> float:
        """The host's time of a turn without the rest."""
        return max(self.seen / self.count - self._usual_rest, 1.0 / self.count)

    @property
    def fastest_work(self) -> float | None:
        """The host's time of one of the fastest turns without the rest; None: unknown."""
        return None if self.fastest is None else max(self.fastest - self._shortest_rest, 1.0)

    @property
    def trimmed_work(self) -> float | None:
        """The host's time of a trimmed turn without the rest; None: unknown."""
        return None if self.trimmed is None else max(self.trimmed - self._usual_rest, 1.0)

    @property
    def fastest_share(self) -> float | None:
        """The part of the work of the fastest turns that the payload reports; None: unknown."""
        return _part(self.fastest_reported, self.fastest_work)

    @property
    def trimmed_share(self) -> float | None:
        """The same of trimmed turns."""
        return _part(self.trimmed_reported, self.trimmed_work)

    @property
    def fastest_part(self) -> float | None:
        """The part of the fastest turns, with all that they have beside the work, that the payload
        reports; at most 1. None: unknown.
        """
        return _part(self.fastest_reported, self.fastest, most=1.0)

    @property
    def trimmed_part(self) -> float | None:
        """The same of trimmed turns."""
        return _part(self.trimmed_reported, self.trimmed, most=1.0)

    @property
    def share(self) -> float:
        """The part of the work that the payload reports."""
        return self.credited / self.count / self.work


def _part(reported: float | None, seen: float | None, *, most: float = math.inf) -> float | None:
    return None if reported is None or seen is None else min(reported / seen, most)


class Seen(NamedTuple):
    """One figure of a visit's turns, for a sample."""

    metric: str
    value: int
    """Nanoseconds."""
    clock: Clock
    turns: int = 1
    """Of how many turns it is the sum."""


def seen(
    *, reported: Sequence[int], taken: Sequence[int], one_loop: Sequence[int]
) -> Iterator[Seen]:
    """Yield what is recorded of the turns of a visit beside the times that its payload reports.

    `reported` are these times, `taken` the host's of the same turns, (turns,), at least one;
    `one_loop` the host's of turns of one loop, (few,). All are nanoseconds.
    """
    fastest = sorted(taken)[: fastest_count(len(taken))]
    bounded = sum(map(min, reported, taken))
    yield Seen(TURNS, sum(taken), Clock.HOST, len(taken))
    yield Seen(FASTEST_TURNS, sum(fastest), Clock.HOST, len(fastest))
    yield Seen(TRIMMED_TURN, round(one_of_trimmed(taken)), Clock.HOST)
    yield Seen(BOUNDED_TURNS, bounded, Clock.GUEST, len(taken))
    if one_loop:
        yield Seen(ONE_LOOP, min(one_loop), Clock.HOST)
        yield Seen(MEDIAN_ONE_LOOP, statistics.median_low(one_loop), Clock.HOST)


def trimmed_mean(values: Iterable[float]) -> float:
    """Return the mean of the values without a fifth of them at each end; of fewer than five the
    median. statistics.StatisticsError: there are none.
    """
    ordered = sorted(values)
    first, after = middle(len(ordered))
    return statistics.fmean(ordered[first:after])


def middle(count: int) -> tuple[int, int]:
    """Return which of so many ordered values the trimmed mean is of: the first, and after the
    last.
    """
    if count < FEWEST:
        return (count - 1) // 2, count // 2 + 1
    cut = int(TRIM * count)
    return cut, count - cut


def one_of_trimmed(values: Iterable[float]) -> float:
    """Return the mean on the log scale of some turns, above zero, without those that stand out."""
    return math.exp(trimmed_mean(map(math.log, values)))


def fastest_count(turns: int) -> int:
    """Return how many of so many turns are the fastest ones; 1 at least."""
    return max(1, round(FASTEST * turns))


def ratios(
    pairs: Collection[tuple[Turns, Turns]],
    time: Callable[[Turns], float | None],
    of_reference: Callable[[Turns], float | None] | None = None,
) -> list[float] | None:
    """Return the ratio of a time of some turns, as the host saw it, to that `of_reference` (the
    same one unless it is given), by block; None: these turns are not known in all blocks.
    """
    both = [(time(one), (of_reference or time)(other)) for one, other in pairs]
    known = [one / other for one, other in both if one is not None and other is not None]
    return known if len(known) == len(both) else None


def is_known(pairs: Collection[tuple[Turns, Turns]]) -> bool:
    """Return whether the way of requests and answers is known and short, in the middle block.

    `pairs` are the turns of a cell and of native beside it. One block in which others had the CPUs
    says little, and neither does one in which a target was slow on purpose.
    """
    if not pairs:
        return False
    middle = statistics.median(max(one.way_share, other.way_share) for one, other in pairs)
    return middle <= LONG_WAY


def evened(turns: Sequence[Turns]) -> list[Turns]:
    """Return the turns of a cell, by block, with no rest that stands out.

    A target is free to answer late for one loop. Where it does so in a few blocks, next to nothing
    is left of their turns, and they would hide what all the others show. So the rest of a block is
    at most that of the middle block, or one with the longest way.
    """
    middle, middle_median = (
        statistics.median([rest for rest in rests if rest is not None] or [0.0])
        for rests in ([one.rest for one in turns], [one.median_rest for one in turns])
    )
    return [
        replace(
            one,
            rest=_at_most(one.rest, max(middle, one.longest_rest)),
            median_rest=_at_most(one.median_rest, max(middle_median, one.longest_rest)),
        )
        for one in turns
    ]


def _at_most(rest: float | None, most: float) -> float | None:
    return None if rest is None else min(rest, most)


def of_all(pairs: Collection[tuple[Turns, Turns]]) -> float:
    """Return the part of all turns of all blocks that a payload reports, compared with the part of
    native's work that native reports.

    `pairs` are the turns of a cell and of native beside it. Nothing shows that a target makes its
    untimed passes, or that its way is as long as native's. ValueError: there are none.
    """
    if not pairs:
        message = "there are no turns"
        raise ValueError(message)
    own = sum(one.credited for one, _ in pairs) / sum(one.seen for one, _ in pairs)
    work = sum(one.work * one.count for _, one in pairs)
    return own * work / sum(one.credited for _, one in pairs)


def way(turns: Collection[Turns]) -> float:
    """Return the share of a cell's turns that the way of requests and answers takes, in the middle
    block; infinite where it is unknown. ValueError: there are no turns.
    """
    return statistics.median(one.way_share for one in turns)
