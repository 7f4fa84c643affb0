"""What authors of targets need, ready made: a target that is a command before the command.

Many technologies are a program that takes the command to run as its last words: `unshare …
PROGRAM`, `bwrap … PROGRAM`, `firejail … PROGRAM`. `PrefixTarget` is such a target, but for its
name, its expectations and its words. It starts sessions and single instances, hands on output as it
arrives, keeps time limits, gives payloads their environment, and leaves no process behind.

    class NiceTarget(PrefixTarget):
        name = TargetName("nice")
        technology = Technology.SANDBOX
        expectations = (Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),)

        def words(self, root: Path, scratch: Path) -> Sequence[str]:
            return ["nice", "--"]

docs/plugins.md is the guide; tests/data/example_distribution is a whole distribution.
"""

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Leftover,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins.api import Completed, Session
from isobench.targets.shared import agents, prefixes, processes

__all__ = ["PrefixTarget", "last_line", "run"]

_TRIAL: Final = seconds(20)

run = processes.run
"""Run a program of the host: `run(argv, timeout=…, env=…, command=command)` hands its standard
output to the stage as it arrives, kills the program with all its descendants at the time limit, and
returns a `Completed`. OSError: it cannot be executed at all.
"""
last_line = processes.last_line
"""Return the last line that a program said (bytes), for an error message."""


class PrefixTarget(ABC):
    """A target whose technology is a command before the command. See the module for an example.

    A target (`Target`) that can launch single instances (`Launcher`) and ends what killed runs have
    left (`Sweeper`). A subclass that is a dataclass may have fields: they are its options.
    """

    own_root: bool = False
    """Whether programs inside see the stage's root directory as `/` and its scratch directory as
    `/scratch`. False: they see the host's files, and both where they are.
    """
    own_failure: int | None = None
    """The exit code by which the command before says that it has failed itself, if it has one."""
    install: str = ""
    """What to type where the command before is not installed."""
    repair: str = ""
    """What to type or change where it is installed and starts nothing."""

    @property
    @abstractmethod
    def name(self) -> TargetName:
        """The name users type. A class attribute will do, here and for the next three."""

    @property
    @abstractmethod
    def technology(self) -> Technology:
        """The column of the report."""

    @property
    def abi(self) -> Abi | None:
        """What payloads are built for; None: this host's own."""
        return None

    @property
    @abstractmethod
    def expectations(self) -> tuple[Expectation, ...]:
        """What must be seen from inside for the name to be true."""

    @abstractmethod
    def words(self, root: Path, scratch: Path) -> Sequence[str]:
        """Return the command before: the program and its options, "--" included where it wants one.

        What follows is the path of a payload and its arguments. `root` is a directory with the
        payloads and with empty mount points, not to be written to; `scratch` is to be written to.
        """

    def version(self) -> str:
        """Return which version of what this is, in words."""
        program = self._program()
        said = processes.ask([program, "--version"]) or program
        return said.splitlines()[0]

    # ---- Target ----------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Start the smallest program with it."""
        program = self._program()
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="isobench has no payloads for this machine",
                hint="run isobench on Linux on x86_64, aarch64 or riscv64",
            )  # fmt: skip
        if shutil.which(program) is None:
            return Unavailable(
                lack=Lack.TOOL, what=program, hint=self.install or f"install {program}"
            )
        said = self.complaint()
        if said:
            return Unavailable(
                lack=Lack.RUNTIME, what=f"{program} starts nothing: {said}",
                hint=self.repair or f"see what {program} says",
            )  # fmt: skip
        return Available(version=self.version())

    def open(self, stage: Stage) -> AbstractContextManager[Session]:
        """Start an instance whose first program is isobench's agent, which executes payloads."""
        scratch, view = self._inside(stage)
        prefix = self.words(stage.root, scratch)
        return prefixes.opened(prefix, environment=self._environment(), view=view)

    # ---- Launcher and Sweeper --------------------------------------------------------------------

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start an instance whose first program is the payload."""
        scratch, view = self._inside(stage)
        return prefixes.launch(
            self.words(stage.root, scratch),
            command,
            timeout=timeout,
            environment=self._environment(),
            view=view,
            own_failure=self.own_failure,
        )

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End the processes of runs that have died."""
        del cached  # nothing is kept between runs
        return processes.sweep(alive)

    # ---- helpers ---------------------------------------------------------------------------------

    def complaint(self) -> str:
        """Start the smallest program, and return nothing where it answered; else the last that was
        said.
        """
        with prefixes.probe_root() as root:
            program = "/answer" if self.own_root else str(root / "answer")
            argv = [*self.words(root, root / "scratch"), program]
            try:
                done = run(argv, timeout=_TRIAL, env=self._environment())
            except OSError as error:
                return str(error)
        return "" if prefixes.answered(done) else last_line(done.stderr)

    def _program(self) -> str:
        return self.words(Path("/"), Path("/scratch"))[0]

    def _environment(self) -> Mapping[str, str]:
        # By this variable the processes are found again after a `kill -9`; and as payloads see it,
        # they die with whatever has started them.
        return {**prefixes.host_path(), **processes.tied()}

    def _inside(self, stage: Stage) -> tuple[Path, agents.View]:
        """Return the scratch directory on the host, and what an instance sees."""
        scratch = processes.private_scratch(stage.scratch, self.name)
        more = processes.tied()
        if self.own_root:
            return scratch, agents.View(more=more)
        programs = str(stage.root / "isobench")
        return scratch, agents.View(programs=programs, scratch=str(scratch), more=more)
