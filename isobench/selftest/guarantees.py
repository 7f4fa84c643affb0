"""Compares the figures of a simulation with what is guaranteed of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isobench.model import Status
from isobench.selftest.scenarios import Scenario
from isobench.selftest.simulate import (
    MARGIN,
    RATIOS,
    STOPPED,
    USUAL,
    Place,
    Row,
    Simulation,
)

STANDARD_ERRORS: Final = 3.0
"""A rate may exceed its bound by so many standard errors, which counts as chance."""
# Too few alarms are wrong as well: the interval would be wider than it says.
ALARMS: Final = (0.02, 0.09)
"""The bounds of how often a 95 % interval misses the true ratio."""


class Figure(StrEnum):
    """A guaranteed rate of a row that is not the rate of a verdict."""

    ALARMS = "alarms"  # how often the 95 % interval misses the true ratio
    COVERAGE = "coverage"  # how often the reported interval holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A figure and what is guaranteed of it: a rate from `low` to `high`."""

    place: Place
    figure: Figure | Status
    """A Status: how often this verdict is given."""
    rate: float
    runs: int
    low: float = 0.0
    high: float = 1.0
    exact: bool = False
    """Whether the bounds allow for chance already."""

    @property
    def held(self) -> bool:
        """Whether the rate is within its bounds, or exceeds them by at most STANDARD_ERRORS."""
        # The standard error is that of a rate on the bound.
        slack = 0.0 if self.exact else STANDARD_ERRORS
        low = self.low - slack * _standard_error(self.low, self.runs)
        high = self.high + slack * _standard_error(self.high, self.runs)
        return low <= self.rate <= high


def _standard_error(rate: float, runs: int) -> float:
    return math.sqrt(rate * (1 - rate) / runs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """A simulation, and whether the guarantees hold in it."""

    simulation: Simulation
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that are out of their bounds."""
        return tuple(one for one in self.findings if not one.held)


def check(simulation: Simulation) -> Result:
    """Compare every guaranteed figure with its bounds."""
    return Result(simulation=simulation, findings=tuple(_findings(simulation)))


def _findings(simulation: Simulation) -> Iterator[Finding]:
    scenarios = {scenario.name: scenario for scenario in simulation.scenarios}
    for row in simulation.rows:
        scenario = scenarios[row.scenario]
        if scenario.limit:
            continue
        if row.ratio == 1:
            yield from _of_native(row, scenario)
        for wrong in _wrong_verdicts(row.ratio):
            yield _of(row, wrong, row.rate(wrong), high=scenario.error)
        right = {RATIOS[0]: Status.NEAR_NATIVE, RATIOS[-1]: Status.SLOWER}.get(row.ratio)
        if scenario.power and right is not None and row.length in (str(USUAL), STOPPED):
            yield _of(row, right, row.rate(right), low=scenario.power)


def _wrong_verdicts(ratio: float) -> tuple[Status, ...]:
    """Return the verdicts that are wrong at a true ratio, and whose rate is guaranteed."""
    if ratio == MARGIN:
        return Status.SLOWER, Status.FASTER, Status.NEAR_NATIVE
    return (Status.SLOWER, Status.FASTER) if ratio == 1 else ()


def _of_native(row: Row, scenario: Scenario) -> Iterator[Finding]:
    """Yield the findings where target and native are equal."""
    if row.length != STOPPED:
        low, high = ALARMS
        yield _of(row, Figure.ALARMS, row.alarms, low=low, high=high, exact=True)
    yield _of(row, Figure.COVERAGE, row.coverage, low=scenario.coverage)


def _of(
    row: Row,
    figure: Figure | Status,
    rate: float,
    *,
    low: float = 0.0,
    high: float = 1.0,
    exact: bool = False,
) -> Finding:
    return Finding(
        place=row.place, figure=figure, rate=rate, runs=row.runs, low=low, high=high, exact=exact
    )
