"""Bubblewrap: the unprivileged sandbox under Flatpak."""

import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.units import Nanoseconds, TargetName
from isobench.plugins.api import Completed
from isobench.targets.shared import agents, prefixes, processes, userns


def _arguments(root: Path, scratch: Path) -> list[str]:
    # fmt: off
    return [
        "bwrap",
        "--unshare-all", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL",
        "--ro-bind", str(root), "/",
        "--proc", "/proc",
        "--dev", "/dev",
        "--bind", str(scratch), agents.INSIDE.scratch,
        "--",
    ]
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class BubblewrapTarget:
    """A process in bwrap with every namespace unshared and nothing but the payload in its root."""

    name: ClassVar[TargetName] = TargetName("bubblewrap")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        *(
            Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
            for space in ("ipc", "mnt", "net", "pid", "uts")
        ),
        Expectation(key="security.no_new_privs", relation=Relation.EQUALS, value="1"),
        Expectation(
            key="security.cap_effective", relation=Relation.EQUALS, value="0000000000000000"
        ),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "bwrap is executed on a root directory made just before, with the payload",
        "warm": "bwrap is executed again on the same root directory: it keeps no stopped instance",
        "exec": "isobench's agent in an open sandbox forks and executes the payload",
    }

    def probe(self) -> Availability:
        """Start the smallest program in a sandbox."""
        if shutil.which("bwrap") is None:
            return Unavailable(
                lack=Lack.TOOL, what="bwrap", hint="isobench doctor --install bubblewrap"
            )
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="bubblewrap needs Linux")
        said = prefixes.start_error(_arguments, environment=prefixes.host_path())
        if said:
            return _refusal(said)
        version = processes.output_of(["bwrap", "--version"]) or "bubblewrap"
        return Available(version=version)

    def open(self, stage: Stage) -> AbstractContextManager[agents.AgentSession]:
        """Start a sandbox whose command is the agent."""
        prefix = _arguments(stage.root, _scratch(stage))
        return prefixes.opened(prefix, environment=prefixes.host_path())

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Start a sandbox whose command is the payload."""
        prefix = _arguments(stage.root, _scratch(stage))
        return prefixes.launch(prefix, command, timeout=timeout, environment=prefixes.host_path())


def _scratch(stage: Stage) -> Path:
    return processes.private_scratch(stage.scratch, "bubblewrap")


def _refusal(said: str) -> Unavailable:
    if "user namespace" in said or "uid map" in said or "Permission denied" in said:
        return userns.refusal(said)
    return Unavailable(lack=Lack.RUNTIME, what=said, hint="bwrap --unshare-all --ro-bind / / true")
