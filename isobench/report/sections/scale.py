"""Logarithmic axes: the position of a number, and the round values for labels."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from isobench.model.units import LARGEST_EXPONENT

_FIRST: Final = 3
_LAST: Final = 96


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A label of an axis."""

    place: float
    """In percent of the width."""
    label: str
    major: bool
    """Whether it is the label of 1, native."""
    narrow: bool = True
    """Whether its label has room where the axis is as narrow as on a phone."""

    @property
    def is_first(self) -> bool:
        """Whether its label begins at its place, since there is no room on the left."""
        return self.place < _FIRST

    @property
    def is_last(self) -> bool:
        """Whether its label ends at its place, since there is no room on the right."""
        return self.place > _LAST


@dataclass(frozen=True, slots=True)
class Scale:
    """A logarithmic axis from `low` to `high`, both above 0."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Return the position of a value in percent of the width, at most at an end of the axis."""
        # Logarithmic, because ratios are factors: half and twice the time are equally far from 1.
        first, last = math.log(self.low), math.log(self.high)
        share = (math.log(value) - first) / (last - first)
        return round(100 * min(1.0, max(0.0, share)), 2)


def scale_of(values: Iterable[float], low: float, high: float) -> Scale:
    """Return an axis that shows all values, and at least the range from low to high."""
    shown = [low, high, *values]
    first, last = math.log(min(shown)), math.log(max(shown))
    # A margin of 5 % of the width at both ends, so that no mark is cut in half.
    pad = 0.05 * (last - first)
    return Scale(_exp(first - pad), _exp(last + pad))


def _exp(value: float) -> float:
    return math.exp(max(-LARGEST_EXPONENT, min(value, LARGEST_EXPONENT)))


_FINE: Final[tuple[tuple[float, ...], ...]] = (
    tuple(step / 20 for step in range(8, 61)),
    tuple(step / 10 for step in range(4, 31)),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3),
    (0.4, 0.6, 0.8, 1, 1.2, 1.5, 2, 3),
)
"""Sets of round values around 1, finest first, for an axis within 0.4 to 3."""
_COARSE: Final[tuple[tuple[float, ...], ...]] = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Sets of round values of every decade, finest first."""
_MOST_TICKS: Final = 8
# In percent of the width: room for a label.
_LEAST_GAP: Final = 8.0
_NARROW: Final = 330.0
"""The width of an axis on a phone, in pixels."""
_PER_CHARACTER: Final = 7.5
_BETWEEN: Final = 8.0


def _steps(scale: Scale) -> Iterator[Iterable[float]]:
    """Yield sets of values for labels, finest first."""
    if _FINE[0][0] <= scale.low and scale.high <= _FINE[0][-1]:
        yield from _FINE
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for shares in _COARSE:
        yield [share * 10.0**decade for decade in range(first, last + 1) for share in shares]
    # For axes over many decades: only powers of a thousand.
    yield [10.0**decade for decade in range(first, last + 1) if decade % 3 == 0]


def ticks_of(scale: Scale, label: Callable[[float], str]) -> tuple[Tick, ...]:
    """Return the labels of an axis: the finest set of round values that leaves room for them."""
    ticks: tuple[Tick, ...] = ()
    for values in _steps(scale):
        ticks = tuple(
            Tick(place=scale(value), label=label(value), major=math.isclose(value, 1))
            for value in sorted(values)
            if scale.low <= value <= scale.high
        )
        gaps = [after.place - before.place for before, after in pairwise(ticks)]
        if len(ticks) <= _MOST_TICKS and min(gaps, default=100) >= _LEAST_GAP:
            break
    return _narrowed(ticks)


def _narrowed(ticks: Sequence[Tick]) -> tuple[Tick, ...]:
    """Mark the labels that have room on a narrow axis: that of 1 first, then from the left."""
    kept: list[Tick] = []
    for tick in sorted(ticks, key=lambda one: (not one.major, one.place)):
        if not any(_overlap(tick, one) for one in kept):
            kept.append(tick)
    return tuple(replace(tick, narrow=tick in kept) for tick in ticks)


def _overlap(one: Tick, other: Tick) -> bool:
    left, right = sorted((_extent(one), _extent(other)))
    return left[1] + _BETWEEN > right[0]


def _extent(tick: Tick) -> tuple[float, float]:
    """Return where a label begins and ends on a narrow axis, in pixels."""
    middle, width = tick.place * _NARROW / 100, _PER_CHARACTER * len(tick.label)
    # Labels at the ends of the axis do not reach beyond it: see `axis` in _marks.html.j2.
    if tick.is_first:
        return middle, middle + width
    if tick.is_last:
        return middle - width, middle
    return middle - width / 2, middle + width / 2
