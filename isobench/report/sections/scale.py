"""Log axes: where a number stands, and which round values are written along it."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """A labelled place on an axis, in percent of its width."""

    place: float
    label: str
    major: bool


@dataclass(frozen=True, slots=True)
class Scale:
    """A log axis: positive numbers to percent of its width."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Return the place of a value, kept on the axis."""
        share = math.log(value / self.low) / math.log(self.high / self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)


def scale_of(values: Iterable[float], low: float, high: float) -> Scale:
    """Return the axis that shows all values and at least what lies from low to high."""
    found = [low, high, *values]
    pad = (max(found) / min(found)) ** 0.05
    return Scale(min(found) / pad, max(found) * pad)


_FINE: Final[tuple[tuple[float, ...], ...]] = (
    tuple(step / 20 for step in range(8, 61)),
    tuple(step / 10 for step in range(4, 31)),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.1, 1.2, 1.3, 1.5, 1.7, 2, 2.5, 3),
    (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2, 1.5, 2, 2.5, 3),
    (0.4, 0.6, 0.8, 1, 1.2, 1.5, 2, 3),
)
"""Round values about 1, finest first: for an axis that lies within them."""
_COARSE: Final[tuple[tuple[float, ...], ...]] = ((1, 1.5, 2, 3, 5, 7), (1, 2, 5), (1, 3), (1,))
"""Round values of every decade, finest first."""
_MOST_TICKS: Final = 8
_LEAST_GAP: Final = 8.0


def _steps(scale: Scale) -> Iterator[Iterable[float]]:
    """Yield sets of round values for an axis, finest first."""
    if _FINE[0][0] <= scale.low and scale.high <= _FINE[0][-1]:
        yield from _FINE
    first, last = math.floor(math.log10(scale.low)), math.ceil(math.log10(scale.high))
    for shares in _COARSE:
        yield [share * 10.0**decade for decade in range(first, last + 1) for share in shares]
    yield [10.0**decade for decade in range(first, last + 1) if decade % 3 == 0]


def ticks_of(scale: Scale, label: Callable[[float], str]) -> tuple[Tick, ...]:
    """Return round values on the axis: of the finest steps that leave the labels room."""
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
    return ticks
