"""One visit: the variables that its programs see, and the timer that listens to them."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from isobench.model import Command, Stage, Visit
from isobench.payload import wire
from isobench.plugins.api import BEGIN

MOST_PADDING: Final = 1024
"""The environment's size is random up to this: it moves the stack (Mytkowicz et al., 2009)."""
_KEPT: Final = 1 << 16
"""Bytes of output in which the first line is looked for."""


class StartTimer:
    """Takes the host's time when a program is asked for and when its first line arrives.

    The one place where a start is timed: everything else only hands on bytes.
    """

    def __init__(self) -> None:
        self._expected = b""
        self._output = b""
        self.begun_at = 0
        """time.monotonic_ns() when the program was asked for."""
        self.arrived_at: int | None = None
        """When the expected bytes were complete; None: they have not come."""
        self.last_output_at = 0
        self.phases: dict[str, int] = {}
        """Nanoseconds from the beginning to each phase."""
        self._is_begun_anew = False

    def expect_hello(self, nonce: str) -> None:
        """Begin to wait for the payload with this nonce: the clock starts now."""
        self.expect(wire.hello(nonce))

    def expect(self, output: bytes) -> None:
        """Begin to wait for these bytes: the clock starts now."""
        self._expected, self._output, self.arrived_at = output, b"", None
        self.phases, self._is_begun_anew = {}, False
        self.begun_at = time.monotonic_ns()

    @property
    def taken(self) -> int | None:
        """Nanoseconds from the beginning to the arrival; None: nothing has arrived."""
        return None if self.arrived_at is None else self.arrived_at - self.begun_at

    def on_output(self, chunk: bytes, /, at: int | None = None) -> None:
        """Take a piece of output; `at` is its time, where isobench's spawner took it."""
        now = self.last_output_at = time.monotonic_ns() if at is None else at
        if self.arrived_at is None:
            self._output = (self._output + chunk)[:_KEPT]
            if self._expected in self._output:
                self.arrived_at = now

    def on_phase(self, name: str) -> None:
        """Take the name of a phase that passes; BEGIN sets the clock to zero, once."""
        now = time.monotonic_ns()
        if name != BEGIN:
            self.phases.setdefault(name, now - self.begun_at)
        elif not self._is_begun_anew and self.arrived_at is None:
            self._is_begun_anew, self.begun_at, self.phases = True, now, {}

    def exclude(self, nanoseconds: int) -> None:
        """Leave out what has just passed between asking isobench's spawner and its clone."""
        if self.arrived_at is None:
            self.begun_at += nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One visit, or one opening of a session.

    Each has a timer and variables of its own, so that two can go on at the same time.
    """

    visit: Visit
    environment: Mapping[str, str]
    timer: StartTimer = field(default_factory=StartTimer)
    cpus: str = ""
    """The CPUs to which it is confined, as in "0,2-3"; empty: those of the run."""

    @classmethod
    def of(
        cls, visit: Visit, run_id: str, *, timer: StartTimer | None = None, cpus: str = ""
    ) -> Self:
        """Return the context of a visit: variables that are clean, known, and of random size."""
        environment = {
            "ISOBENCH": "1",
            "ISOBENCH_RUN_ID": run_id,
            "ISOBENCH_TARGET": visit.target,
            "ISOBENCH_WORKLOAD": visit.workload,
            "ISOBENCH_BLOCK": str(visit.block),
            "ISOBENCH_PADDING": "x" * secrets.randbelow(MOST_PADDING),
        }
        return cls(visit=visit, environment=environment, timer=timer or StartTimer(), cpus=cpus)

    def of_stage(self, stage: Stage) -> Stage:
        """Return a stage whose sessions this context opens, and whose phases it takes."""
        return replace(stage, on_phase=self.timer.on_phase, cpus=self.cpus or stage.cpus)

    def command(self, *argv: str) -> Command:
        """Return a command to which this context listens."""
        return Command(
            argv=argv,
            environment=self.environment,
            on_output=self.timer.on_output,
            on_phase=self.timer.on_phase,
            exclude=self.timer.exclude,
        )
