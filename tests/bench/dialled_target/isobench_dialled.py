"""No technology at all: native, whose payloads are told to do a known share of work more."""

import contextlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from isobench.model import Availability, Available, Command, Stage
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed
from isobench.targets.native import NativeTarget
from isobench.targets.shared.agents import AgentSession


def _tool() -> dict[str, Any]:
    """Return version and dial from the file ISOBENCH_DIAL_TOOL: a tool that may be upgraded."""
    path = os.environ.get("ISOBENCH_DIAL_TOOL")
    return dict(json.loads(Path(path).read_text())) if path else {}


@dataclass(frozen=True, kw_only=True)
class DialledTarget(NativeTarget):
    """A plain process of this host that sees ISOBENCH_DIAL; native's own do not."""

    name: ClassVar[TargetName] = TargetName("dialled")

    permille: int = 0
    """By so many thousandths work or waiting is longer."""

    def probe(self) -> Availability:
        """Answer as native; a tool of ISOBENCH_DIAL_TOOL has a version."""
        found = super().probe()
        version = _tool().get("version")
        return (
            replace(found, version=version) if version and isinstance(found, Available) else found
        )

    def _turned(self, command: Command) -> Command:
        permille = self.permille or _tool().get("permille", 0)
        environment = {**command.environment, "ISOBENCH_DIAL": str(permille)}
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
