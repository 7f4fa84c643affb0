"""Bubblewrap: the unprivileged sandbox that Flatpak uses.

Source: bwrap(1).
"""

import shutil
import tempfile
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
    """Return the command that runs another one in a sandbox.

    bwrap mounts in the order of its arguments: the root directory must come first. It also needs
    the mount points /proc, /dev and /scratch in that directory, since it is read-only.
    """
    # fmt: off
    return [
        "bwrap",
        "--unshare-all", "--die-with-parent",
        # Without its own session a program could type into the terminal (TIOCSTI, CVE-2017-5226).
        "--new-session",
        # This has an effect only if root starts bwrap.
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
    """A process in bwrap with all namespaces unshared, and only the stage in its root directory."""

    name: ClassVar[TargetName] = TargetName("bubblewrap")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        *(
            Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
            # --unshare-all makes user and cgroup namespaces only if it can (--unshare-user-try):
            # evidence about those two is not required.
            for space in ("ipc", "mnt", "net", "pid", "uts")
        ),
        Expectation(key="security.no_new_privs", relation=Relation.EQUALS, value="1"),
        Expectation(
            key="security.cap_effective", relation=Relation.EQUALS, value="0000000000000000"
        ),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "bwrap is executed on a new root directory with the payload",
        "warm": "bwrap is executed again on the same root directory: it has no stopped instances",
        "exec": "isobench's agent in an open sandbox forks and executes the payload",
    }

    def probe(self) -> Availability:
        """Start a program of a few bytes in a sandbox."""
        if shutil.which("bwrap") is None:
            return Unavailable(
                lack=Lack.TOOL, what="bwrap", hint="isobench doctor --install bubblewrap"
            )
        if host_abi() is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="bubblewrap needs Linux")
        problem = prefixes.start_error(_arguments, environment=prefixes.host_path())
        if problem:
            return _refusal(problem)
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


def _refusal(problem: str) -> Unavailable:
    if "execvp" in problem:  # the sandbox is there
        return Unavailable(
            lack=Lack.RUNTIME,
            what=f"no program of {tempfile.gettempdir()} can be executed ({problem})",
            hint="TMPDIR=/folder, one that is not mounted noexec",
        )
    # bwrap's messages where the host does not allow users to make user namespaces.
    if "user namespace" in problem or "uid map" in problem or "Permission denied" in problem:
        return userns.refusal(problem)
    hint = "find the reason with: bwrap --unshare-all --ro-bind / / true"
    return Unavailable(lack=Lack.RUNTIME, what=problem, hint=hint)
