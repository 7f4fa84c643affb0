"""Compares the figures of a simulation with what is guaranteed of them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isobench.model import Status
from isobench.selftest.planted import LENGTHS, Control
from isobench.selftest.scenarios import Scenario
from isobench.selftest.simulate import (
    FAR,
    LEFT,
    MARGIN,
    RATIOS,
    STOPPED,
    Place,
    Row,
    Simulation,
)

STANDARD_ERRORS: Final = 3.0
"""A rate may exceed its bound by so many standard errors, which counts as chance."""
# Too few alarms are wrong as well: the interval would be wider than it says.
ALARMS: Final = (0.02, 0.09)
"""The bounds of how often a 95 % interval misses the true ratio."""
WRONG: Final = 0.05
# Nominally 1 %: so far in its tails, the trimmed t of twenty blocks is a little too short.
FALSE_BIAS: Final = 0.02
"""The most runs without a bias in which one is found."""


class Figure(StrEnum):
    """A guaranteed rate of a row that is not the rate of a verdict."""

    ALARMS = "alarms"  # how often the 95 % interval misses the true ratio
    COVERAGE = "coverage"  # how often the reported interval holds it
    WRONG = "wrong"  # how often a wrong verdict is given in spite of a planted bias
    BIAS = "bias"  # how often a bias is found in a run that has none


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
    control: Control | None = None

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that are out of their bounds."""
        return tuple(one for one in self.findings if not one.held)


def check(simulation: Simulation, control: Control | None = None) -> Result:
    """Compare every guaranteed figure with its bounds."""
    found = [*_findings(simulation), *(() if control is None else _of_control(control))]
    return Result(simulation=simulation, findings=tuple(found), control=control)


def _of_control(control: Control) -> Iterator[Finding]:
    """Yield the findings on planted biases."""
    for row in control.rows:
        if row.blocks in row.plant.guaranteed:
            place = Place(
                scenario=f"bias: {row.plant.name}", ratio=row.plant.ratio, length=str(row.blocks)
            )
            yield Finding(
                place=place, figure=Figure.WRONG, rate=row.wrong, runs=row.runs, high=WRONG
            )
    place = Place(scenario="bias: none", ratio=1.0, length=str(LENGTHS[0]))
    alarms = control.false_alarms
    yield Finding(
        place=place, figure=Figure.BIAS, rate=alarms.rate, runs=alarms.runs, high=FALSE_BIAS
    )


def _findings(simulation: Simulation) -> Iterator[Finding]:
    scenarios = {scenario.name: scenario for scenario in simulation.scenarios}
    for row in simulation.rows:
        scenario = scenarios[row.scenario]
        if scenario.limit:
            continue
        if row.ratio == 1 and row.length != LEFT:
            yield from _of_native(row, scenario)
        if row.length == LEFT:
            yield _of(row, Figure.COVERAGE, row.coverage, low=scenario.coverage)
        for wrong in _wrong_verdicts(row.ratio):
            yield _of(row, wrong, row.rate(wrong), high=scenario.error)
        right = {RATIOS[0]: Status.NEAR_NATIVE}.get(row.ratio)
        if row.ratio in (RATIOS[-1], *FAR):
            right = Status.SLOWER
        if scenario.power and right is not None and row.length in {STOPPED, LEFT}:
            yield _of(row, right, row.rate(right), low=scenario.power)


def _wrong_verdicts(ratio: float) -> tuple[Status, ...]:
    """Return the verdicts that are wrong at a true ratio, and whose rate is guaranteed."""
    if ratio == MARGIN:
        return Status.SLOWER, Status.FASTER, Status.NEAR_NATIVE
    if ratio < MARGIN:
        return Status.SLOWER, Status.FASTER
    return Status.NEAR_NATIVE, Status.FASTER


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
