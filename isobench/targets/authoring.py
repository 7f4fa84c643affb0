"""For authors of targets: a ready-made target whose technology is a command prefix.

Many technologies are a tool that takes the command to run as its last arguments: `unshare …
PROGRAM`, `bwrap … PROGRAM`, `firejail … PROGRAM`. `PrefixTarget` implements such a target. A
subclass adds its name, its expectations and the prefix (`words`). The class starts sessions and
single instances, passes on output as it arrives, enforces time limits, sets the environment of
payloads, and leaves no process behind.

    class NiceTarget(PrefixTarget):
        name = TargetName("nice")
        technology = Technology.SANDBOX
        expectations = (Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),)

        def words(self, root: Path, scratch: Path) -> Sequence[str]:
            return ["nice", "--"]

docs/plugins.md is the guide; tests/data/example_distribution is a complete distribution.
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
    commands,
    host_abi,
)
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins.api import Completed, Session
from isobench.targets.shared import agents, prefixes, processes

__all__ = ["PrefixTarget", "last_line", "run"]

_TRIAL: Final = seconds(20)

run = processes.run
"""Run a program of the host: `run(argv, timeout=…, env=…, command=command)`.

It passes standard output to the command as it arrives, kills the program with all its descendants
at the time limit, and returns a `Completed`. OSError: the program cannot be executed.
"""
last_line = processes.last_line
"""Return the last line of a program's output (bytes), for an error message."""


class PrefixTarget(ABC):
    """A target whose technology is a command prefix. The module's docstring has an example.

    It is a `Target`, a `Launcher` (it launches single instances) and a `Sweeper` (it ends what
    killed runs have left). A subclass may be a dataclass: its fields are then its options.
    """

    own_root: bool = False
    """Whether programs inside see the stage's root directory as `/` and its scratch directory as
    `/scratch`. False: they see the host's files, and both directories at their paths on the host.
    """
    own_failure: int | None = None
    """The tool's exit code when the tool itself fails, if it has one of its own."""
    install: str = ""
    """What to type where the tool is not installed."""
    repair: str = ""
    """What to type or change where the tool is installed but starts nothing."""

    @property
    @abstractmethod
    def name(self) -> TargetName:
        """The name that users type. A class attribute is enough, here and for the next three."""

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
        """What the evidence from inside must show for results to count under this name."""

    @abstractmethod
    def words(self, root: Path, scratch: Path) -> Sequence[str]:
        """Return the prefix: the tool and its options, with "--" where the tool needs one.

        The path of a payload and its arguments follow it. `root` is a directory with the payloads
        and with empty mount points, and must not be changed; payloads write into `scratch`.
        """

    def version(self) -> str:
        """Return the tool's name and version: the first line of its `--version`."""
        program = self._program()
        output = processes.output_of([program, "--version"]) or program
        return output.splitlines()[0]

    # ---- Target ----------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Run the probe program with the prefix."""
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
        error = self.start_error()
        if error:
            return Unavailable(
                lack=Lack.RUNTIME, what=f"{program} starts nothing: {error}",
                hint=self.repair or f"{commands.path(program)} --help",
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
        """Kill the processes of runs that have died."""
        del cached  # nothing is kept between runs
        return processes.sweep(alive)

    # ---- helpers ---------------------------------------------------------------------------------

    def start_error(self) -> str:
        """Run the probe program; return "" if it answered, else the last line of its errors."""
        with prefixes.probe_root() as root:
            program = "/answer" if self.own_root else str(root / "answer")
            argv = [*self.words(root, root / "scratch"), program]
            try:
                done = run(argv, timeout=_TRIAL, env=self._environment())
            except OSError as error:
                return str(error)
        return "" if prefixes.probe_answered(done) else last_line(done.stderr)

    def _program(self) -> str:
        return self.words(Path("/"), Path("/scratch"))[0]

    def _environment(self) -> Mapping[str, str]:
        # After a `kill -9` of isobench, `sweep` finds the processes by this variable. Payloads that
        # see it die with the process that has started them.
        return {**prefixes.host_path(), **processes.tied()}

    def _inside(self, stage: Stage) -> tuple[Path, agents.View]:
        """Return the scratch directory on the host, and the paths that an instance sees."""
        scratch = processes.private_scratch(stage.scratch, self.name)
        variables = processes.tied()
        if self.own_root:
            return scratch, agents.View(variables=variables)
        programs = str(stage.root / "isobench")
        return scratch, agents.View(programs=programs, scratch=str(scratch), variables=variables)
