"""One visit: the environment variables of its programs, and the timer of their output."""

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Self

from isobench.model import Command, Stage, Visit
from isobench.payload import wire
from isobench.plugins.api import BEGIN

# The kernel puts the environment above the stack: its size moves the stack, and so can change times
# (Mytkowicz et al., Producing wrong data without doing anything obviously wrong, ASPLOS 2009). With
# a random size that becomes a part of the noise instead of a bias.
MOST_PADDING: Final = 1024
"""The largest random padding of the environment, in bytes."""
# A broken program may print without end. The first line is at the beginning of the output.
_KEPT: Final = 1 << 16
"""The first line is searched in so many bytes of output."""


class StartTimer:
    """Takes the host's time of the request for a program and of the arrival of its first line.

    No other code times a start.
    """

    def __init__(self) -> None:
        self._expected = b""
        self._output = b""
        self.begun_at = 0
        """time.monotonic_ns() of the request for the program."""
        self.arrived_at: int | None = None
        """time.monotonic_ns() when the expected bytes were complete; None: they are not yet."""
        self.last_output_at = 0
        self.phases: dict[str, int] = {}
        """Nanoseconds from the request to the end of each phase."""
        self._is_restarted = False

    def expect_hello(self, nonce: str) -> None:
        """Start the clock, and wait for the first line of the payload with this nonce."""
        self.expect(wire.hello(nonce))

    def expect(self, output: bytes) -> None:
        """Start the clock, and wait for these bytes."""
        self._expected, self._output, self.arrived_at = output, b"", None
        self.phases, self._is_restarted = {}, False
        self.begun_at = time.monotonic_ns()

    @property
    def taken(self) -> int | None:
        """Nanoseconds from the request to the arrival; None: the bytes have not arrived."""
        return None if self.arrived_at is None else self.arrived_at - self.begun_at

    def on_output(self, chunk: bytes, /, at: int | None = None) -> None:
        """Receive a piece of output. `at` is its time if isobench's spawner took it."""
        # Python needs 0.2 to 0.5 ms to start a process and to notice its first line, and twice as
        # much on a busy machine: half of a native start. So the spawner takes the time itself.
        now = self.last_output_at = time.monotonic_ns() if at is None else at
        if self.arrived_at is None:
            self._output = (self._output + chunk)[:_KEPT]
            if self._expected in self._output:
                self.arrived_at = now

    def on_phase(self, name: str) -> None:
        """Record the end of a phase. BEGIN starts the clock again, once."""
        now = time.monotonic_ns()
        if name != BEGIN:
            self.phases.setdefault(name, now - self.begun_at)
        # Only once, and only before the payload has started: later it would shorten the time.
        elif not self._is_restarted and self.arrived_at is None:
            self._is_restarted, self.begun_at, self.phases = True, now, {}

    def exclude(self, nanoseconds: int) -> None:
        """Subtract the time from the request to isobench's spawner until its clone(2)."""
        if self.arrived_at is None:
            self.begun_at += nanoseconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One visit, or one opening of a session.

    Each has its own timer and variables, so that two can run at the same time.
    """

    visit: Visit
    environment: Mapping[str, str]
    timer: StartTimer = field(default_factory=StartTimer)
    cpus: str = ""
    """The CPUs that it may use, as in "0,2-3"; empty: those of the run."""

    @classmethod
    def of(
        cls, visit: Visit, run_id: str, *, timer: StartTimer | None = None, cpus: str = ""
    ) -> Self:
        """Return the context of a visit. Its environment has only known variables, and a random
        size.
        """
        environment = {
            # Nothing of the user's environment: variables such as LD_PRELOAD or GLIBC_TUNABLES
            # would change times, and differ between targets.
            "ISOBENCH": "1",
            "ISOBENCH_RUN_ID": run_id,
            "ISOBENCH_TARGET": visit.target,
            "ISOBENCH_WORKLOAD": visit.workload,
            "ISOBENCH_BLOCK": str(visit.block),
            "ISOBENCH_PADDING": "x" * secrets.randbelow(MOST_PADDING),
        }
        return cls(visit=visit, environment=environment, timer=timer or StartTimer(), cpus=cpus)

    def of_stage(self, stage: Stage) -> Stage:
        """Return a stage for opening sessions, whose phases this context records."""
        return replace(stage, on_phase=self.timer.on_phase, cpus=self.cpus or stage.cpus)

    def command(self, *argv: str) -> Command:
        """Return a command whose output and phases this context records."""
        return Command(
            argv=argv,
            environment=self.environment,
            on_output=self.timer.on_output,
            on_phase=self.timer.on_phase,
            exclude=self.timer.exclude,
        )
