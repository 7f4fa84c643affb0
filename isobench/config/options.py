"""The options of a run, and the interface for showing its progress."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from isobench.model import Availability, Claim, Schedule
from isobench.model.bounds import (
    LARGEST_SEED,
    LEAST_SHARE,
    MOST_ITERATIONS,
    MOST_MARGIN,
    MOST_SECONDS,
    MOST_WANTED,
)
from isobench.model.errors import UsageError
from isobench.model.units import TargetName

# A finite number, since the budget is added to clock times and divided by.
UNBOUNDED: Final = 86400.0
"""A budget of a day, in seconds. It means: no budget."""

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "budget": (1e-9, MOST_SECONDS),
    "minimum_blocks": (1, MOST_WANTED),
    "maximum_blocks": (1, MOST_WANTED),
    "iterations": (1, MOST_ITERATIONS),
    "rounds": (1, MOST_ITERATIONS),
    "warmups": (0, MOST_ITERATIONS),
    "starts": (1, MOST_ITERATIONS),
    "minimum_time": (1e-9, MOST_SECONDS),
    "margin": (math.nextafter(LEAST_SHARE, 1), math.nextafter(MOST_MARGIN, 0)),
    "precision": (0, float(MOST_MARGIN)),
    "seed": (0, LARGEST_SEED),
    "time_limit": (1e-9, MOST_SECONDS),
}
"""What the numbers of RunOptions lie between, both ends included. They stand in run.json, which is
read with the same bounds.
"""


class Launch(StrEnum):
    """Which sessions serve several blocks."""

    AUTO = "auto"  # those that are slow to open
    FRESH = "fresh"  # none: every block opens new sessions
    REUSE = "reuse"  # all but native's


class Until(StrEnum):
    """When a run ends before its budget does."""

    PRECISE = "precise"  # when all intervals are narrow enough
    DECIDED = "decided"  # when every cell has a verdict, or none is to be had


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """The options of `isobench run`. Times in seconds, shares as fractions (0.05 is 5 %)."""

    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    require: tuple[str, ...] = ()
    variations: tuple[Mapping[str, str], ...] = ()
    """Variations of targets (--vary), each with the keys name, base, option and value."""
    budget: float = 300.0
    minimum_blocks: int = 10
    maximum_blocks: int = 200
    iterations: int = 5
    rounds: int = 25
    """In a block, how many turns each target has; with other schedules than rounds it has one visit
    of `iterations`.
    """
    warmups: int = 1
    starts: int = 3
    # None lets the run choose the length of iterations from its budget.
    minimum_time: float | None = None
    margin: float = 0.05
    # A run of one cell reaches 0.5 % after 20 s, and then finds a difference of 0.5 % in six of ten
    # trials (reports/dial). With a smaller number it goes on while it has time.
    precision: float = 0.0025
    until: Until = Until.PRECISE
    # Expensive cells that stay to be known better take the time of all others. In a replay of a
    # run of ten minutes (tests/bench/bench_leaving.py) 9 of 54 cells stay open if none leaves, 7
    # at 15 %, 5 at 20 %, 3 at 25 % and 2 at 30 %.
    leave_width: float | None = 0.25
    """A cell that is decided leaves the run when its 97 % interval is at most so wide on either
    side. None: no cell leaves before the end.
    """
    seed: int | None = None
    quick: bool = False
    launch: Launch = Launch.AUTO
    schedule: Schedule = Schedule.ROUNDS
    affinity: frozenset[int] = frozenset()
    """The CPUs that the run may use; empty: all that isobench may use."""
    time_limit: float | None = None
    output: Path | None = None
    argv: tuple[str, ...] = ()
    confirms: str | None = None
    """The id of the run whose changes this one is made to confirm."""
    claims: tuple[Claim, ...] = ()
    """The user's own claims, in addition to the shipped ones."""

    def __post_init__(self) -> None:
        """Check the numbers. UsageError: one makes no sense."""
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in _RANGES or (value is None and field.default is None):
                continue
            least, most = _RANGES[field.name]
            is_whole = isinstance(most, int)
            if isinstance(value, int if is_whole else (int, float)) and least <= value <= most:
                continue
            kind = "a whole number" if is_whole else "a number"
            ends = f"from {least} to {most}" if is_whole else f"from {least:g} to {most:g}"
            raise UsageError(
                f"{field.name} is {kind} {ends}, not {value!r}",
                hint=f"leave out {field.name}, or give another value",
            )
        if self.minimum_time is not None and self.minimum_time > self.budget:
            raise UsageError(
                f"an iteration of {self.minimum_time:g} s is longer than the whole run:"
                f" {self.budget:g} s",
                hint="a shorter --min-time, or a larger --budget",
            )


QUICK: Final[Mapping[str, Any]] = {
    "budget": 55.0,
    "maximum_blocks": 5,
    "iterations": 3,
    "rounds": 10,
    "starts": 2,
    "quick": True,
}
"""Options of a quick run: a first answer in about a minute, without verdicts."""


class Observer(Protocol):
    """Shows the progress of a run."""

    def say(self, text: str) -> None:
        """Show a message."""

    def probed(self, name: TargetName, answer: Availability) -> None:
        """Show whether a target can run here."""

    def step(self, what: str, done: float, total: float) -> None:
        """Show that `done` of `total` are done, and what comes next."""
