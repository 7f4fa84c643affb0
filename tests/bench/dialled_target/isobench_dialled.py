"""No technology at all: native, whose payloads are told to do a known share of work more."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

from isobench.model import Command, Stage
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed
from isobench.targets.native import NativeTarget
from isobench.targets.shared.agents import AgentSession


@dataclass(frozen=True, kw_only=True)
class DialledTarget(NativeTarget):
    """A plain process of this host that sees ISOBENCH_DIAL; native's own do not."""

    name: ClassVar[TargetName] = TargetName("dialled")

    permille: int = 0
    """By so many thousandths work or waiting is longer."""

    def _turned(self, command: Command) -> Command:
        environment = {**command.environment, "ISOBENCH_DIAL": str(self.permille)}
        return replace(command, environment=environment)

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Open native's session."""
        with super().open(stage) as session:
            yield _Session(target=self, session=session)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start native's process."""
        return super().launch(stage, self._turned(command), timeout=timeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """A session of native's whose payloads see ISOBENCH_DIAL."""

    target: DialledTarget
    session: AgentSession
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        return self.session.run(self.target._turned(command), timeout=timeout)
