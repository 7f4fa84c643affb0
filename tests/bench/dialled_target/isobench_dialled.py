"""No technology at all: native, whose payloads are told to do a known share of work more."""

import contextlib
from collections import ChainMap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, cast

from isobench.model import Stage
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

    def _turned(self, stage: Stage) -> Stage:
        # A live view, as the stage's own is: a copy would keep what the last visit has seen.
        seen = cast("dict[str, str]", stage.environment)
        return replace(stage, environment=ChainMap({"ISOBENCH_DIAL": str(self.permille)}, seen))

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[AgentSession]:
        """Open native's session."""
        with super().open(self._turned(stage)) as session:
            yield session

    def launch(self, stage: Stage, argv: Sequence[str], *, timeout: Nanoseconds) -> Completed:
        """Start native's process."""
        return super().launch(self._turned(stage), argv, timeout=timeout)
