"""What a user asks of a run, and who hears how far it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final, Protocol

from isobench.model import Availability, Claim, Schedule
from isobench.model.units import TargetName

UNBOUNDED: Final = 86400.0
"""A budget of a day, in seconds, stands for none."""


class Launch(StrEnum):
    """Whose sessions serve several blocks."""

    AUTO = "auto"  # those that are dear to open
    FRESH = "fresh"  # none: every block opens anew
    REUSE = "reuse"  # all but native's


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """What a user asks of `isobench run`. Times in seconds, shares as fractions (0.05 is 5 %)."""

    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    require: tuple[str, ...] = ()
    variations: tuple[Mapping[str, str], ...] = ()
    """Targets that are others with one option changed: name, base, option, value."""
    budget: float = 300.0
    minimum_blocks: int = 10
    maximum_blocks: int = 60
    iterations: int = 5
    warmups: int = 1
    starts: int = 3
    minimum_time: float | None = None
    margin: float = 0.05
    precision: float = 0.025
    seed: int | None = None
    quick: bool = False
    launch: Launch = Launch.AUTO
    schedule: Schedule = Schedule.BLOCKS
    affinity: frozenset[int] = frozenset()
    """The CPUs to confine the run to; none named: those that isobench may use."""
    time_limit: float | None = None
    output: Path | None = None
    argv: tuple[str, ...] = ()
    claims: tuple[Claim, ...] = ()
    """The user's own, besides those of the documents."""


QUICK: Final[Mapping[str, Any]] = {
    "budget": 55.0,
    "maximum_blocks": 5,
    "iterations": 3,
    "starts": 2,
    "quick": True,
}
"""Options of a quick run: a first answer in about a minute, without verdicts."""


class Observer(Protocol):
    """Who is told how far the run is."""

    def say(self, text: str) -> None:
        """Hear of a step."""

    def looked(self, name: TargetName, answer: Availability) -> None:
        """Hear what a target answered."""

    def step(self, what: str, done: float, total: float) -> None:
        """Hear how far a step is."""
