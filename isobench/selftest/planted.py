"""Plants a bias into simulated runs, and counts what the control does about it.

A bias makes every block of a run wrong in the same way, so that no interval shows it. The control,
native's second visit, shows those that it shares.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np

from isobench import stats
from isobench.model import Status
from isobench.selftest.scenarios import SCENARIOS
from isobench.selftest.simulate import MARGIN, RULE, Floats, judged, simulated

LENGTHS: Final = (20, 60)
"""Numbers of blocks."""
CONTROLS: Final = 15
"""The number of workloads, each with a control, in a run without a bias."""
_RATE_DIGITS: Final = 4
_VISITS: Final = 3
_CLAIMING: Final = (Status.NEAR_NATIVE, Status.SLOWER, Status.FASTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A bias and the true ratio of the target. Sizes are shares on the log scale (0.02: 2 %)."""

    name: str
    ratio: float
    first: float = 0.0
    """By how much the first visit of a block is slower, whichever it is."""
    native: float = 0.0
    """By how much native's first visit is faster in the whole run: its session, or its memory."""
    layout: float = 0.0
    """Standard deviation of what each of the three has of its own in a whole run."""
    guaranteed: tuple[int, ...] = ()
    """The lengths at which wrong verdicts are guaranteed to stay within 5 %."""

    @property
    def right(self) -> frozenset[Status]:
        """The verdicts that are not wrong: none may be given on the margin."""
        if self.ratio == MARGIN:
            return frozenset()
        return frozenset({Status.NEAR_NATIVE if self.ratio < MARGIN else Status.SLOWER})


PLANTS: Final = (
    Plant(name="none", ratio=1.0, guaranteed=LENGTHS),
    Plant(name="none", ratio=MARGIN, guaranteed=LENGTHS),
    Plant(name="the first visit of a block is 5 % slower", ratio=MARGIN, first=0.05,
          guaranteed=LENGTHS),
    Plant(name="native 2 % faster", ratio=MARGIN, native=0.02),
    Plant(name="native 5 % faster", ratio=1.0, native=0.05, guaranteed=LENGTHS),
    Plant(name="native 5 % faster", ratio=MARGIN, native=0.05, guaranteed=LENGTHS),
    Plant(name="native 5 % faster", ratio=2.0, native=0.05, guaranteed=LENGTHS),
    Plant(name="layouts differ by 1 %", ratio=1.0, layout=0.01, guaranteed=LENGTHS),
    Plant(name="layouts differ by 1 %", ratio=MARGIN, layout=0.01),
)  # fmt: skip
"""On the margin each claim is wrong, so that it is the worst case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantRow:
    """What comes of a bias in runs of so many blocks. Rates are shares, 0 to 1."""

    plant: Plant
    blocks: int
    runs: int
    found: float
    """How often the control differs from native."""
    wrong: float
    """How often a wrong verdict is given."""
    ignored: float
    """How often it would be given without the control."""
    right: float
    """How often the right verdict is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FalseAlarms:
    """How often a run without a bias has one found in any of its CONTROLS controls."""

    runs: int
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """What the control does about biases."""

    rows: tuple[PlantRow, ...]
    false_alarms: FalseAlarms


def run(*, replications: int, seed: int) -> Control:
    """Simulate so many runs for every row. The same seed gives the same figures."""
    return Control(
        rows=tuple(rows(replications, seed)), false_alarms=false_alarms(replications, seed)
    )


def rows(replications: int, seed: int) -> Iterator[PlantRow]:
    """Yield the figures of all biases."""
    for number, plant in enumerate(PLANTS):
        for blocks in LENGTHS:
            yield _row(plant, blocks, replications, (seed, number, blocks))


def false_alarms(replications: int, seed: int) -> FalseAlarms:
    """Return how often a run without a bias has one found."""
    _, control = _log_ratios(PLANTS[0], LENGTHS[0], replications * CONTROLS, (seed, 0))
    found = stats.locations(control, correlated=True)
    families = [found[first : first + CONTROLS] for first in range(0, len(found), CONTROLS)]
    alarms = sum(bool(stats.biases(dict(enumerate(family)))) for family in families)
    return FalseAlarms(runs=replications, rate=round(alarms / replications, _RATE_DIGITS))


def _row(plant: Plant, blocks: int, replications: int, seed: tuple[int, ...]) -> PlantRow:
    subject, control = _log_ratios(plant, blocks, replications, seed)
    controls = stats.locations(control, correlated=True)
    found = stats.estimates(subject, margin=MARGIN, level=RULE.final, correlated=True)
    given = [judged(one, own, sessions=blocks) for one, own in zip(found, controls, strict=True)]
    # A control without any bias, of the same error.
    calm = stats.Location(mean=0.0, error=1.0, deviation=1.0, freedom=1, method="t")
    alone = [judged(one, calm, sessions=blocks) for one in found]

    def share(statuses: list[Status], *, right: bool) -> float:
        chosen = [one for one in statuses if one in _CLAIMING and (one in plant.right) is right]
        return round(len(chosen) / replications, _RATE_DIGITS)

    biased = sum(bool(stats.biases({0: own})) for own in controls)
    return PlantRow(
        plant=plant,
        blocks=blocks,
        runs=replications,
        found=round(biased / replications, _RATE_DIGITS),
        wrong=share(given, right=False),
        ignored=share(alone, right=False),
        right=share(given, right=True),
    )


def _log_ratios(
    plant: Plant, blocks: int, runs: int, seed: tuple[int, ...]
) -> tuple[Floats, Floats]:
    """Return the block log-ratios of the target and of the control, (runs, blocks) each."""
    made = simulated(SCENARIOS[0], ratio=plant.ratio, runs=runs, blocks=blocks, served=1, seed=seed)
    rng = np.random.default_rng([*seed, 1])
    first = plant.first * np.eye(_VISITS)[rng.integers(_VISITS, size=(runs, blocks))]
    layout = plant.layout * rng.standard_normal((runs, 1, _VISITS))
    off = first + layout
    native = off[..., 0] - plant.native
    return made.subject + off[..., 2] - native, made.control + off[..., 1] - native
