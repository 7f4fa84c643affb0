"""Bubblewrap: the unprivileged sandbox under Flatpak."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final

from isobench.errors import SessionError
from isobench.model import (
    Abi,
    Availability,
    Available,
    Lack,
    Promise,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.plugin import Completed
from isobench.targets import _agent, _elf, _process
from isobench.units import Nanoseconds, TargetName, seconds

_INSIDE: Final = "/scratch"


def _arguments(root: Path, scratch: Path) -> list[str]:
    # fmt: off
    return [
        "bwrap",
        "--unshare-all", "--die-with-parent", "--new-session",
        "--cap-drop", "ALL",
        "--ro-bind", str(root), "/",
        "--proc", "/proc",
        "--dev", "/dev",
        "--bind", str(scratch), _INSIDE,
        "--",
    ]
    # fmt: on


@dataclass(frozen=True, kw_only=True)
class BubblewrapTarget:
    """A process in bwrap with every namespace unshared and nothing but the payload in its root."""

    name: ClassVar[TargetName] = TargetName("bubblewrap")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    promises: ClassVar[tuple[Promise, ...]] = (
        Promise(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        *(
            Promise(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
            for space in ("ipc", "mnt", "net", "pid", "uts")
        ),
        Promise(key="security.no_new_privs", relation=Relation.EQUALS, value="1"),
        Promise(key="security.cap_effective", relation=Relation.EQUALS, value="0000000000000000"),
        Promise(key="host.canary_readable", relation=Relation.EQUALS, value=False),
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
        abi = host_abi()
        if abi is None:
            return Unavailable(lack=Lack.PLATFORM, what="Linux", hint="bubblewrap needs Linux")
        with tempfile.TemporaryDirectory(prefix="isobench-probe-") as folder:
            root = Path(folder)
            for name in ("proc", "dev", "scratch"):
                (root / name).mkdir()
            (root / "answer").write_bytes(_elf.answering(abi.machine))
            (root / "answer").chmod(0o755)
            argv = [*_arguments(root, root / "scratch"), "/answer"]
            try:
                done = _process.run(argv, timeout=seconds(20), env=os.environ)
            except OSError as error:
                return Unavailable(
                    lack=Lack.PERMISSION, what=str(error), hint="ls -l $(which bwrap)"
                )
        if done.stdout != _elf.ANSWER:
            return _refusal(_process.last_line(done.stderr))
        version = _process.ask(["bwrap", "--version"]) or "bubblewrap"
        return Available(version=version)

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_agent.AgentSession]:
        """Start a sandbox whose command is the agent."""
        scratch = _process.private_scratch(stage.scratch, "bubblewrap")
        argv = [*_arguments(stage.root, scratch), f"{Stage.INSIDE}/_agent", "serve"]
        with _agent.opened(
            argv, stage, environment={"PATH": os.environ.get("PATH", "")}
        ) as session:
            yield session

    def launch(self, stage: Stage, argv: Sequence[str], *, timeout: Nanoseconds) -> Completed:
        """Start a sandbox whose command is the payload."""
        scratch = _process.private_scratch(stage.scratch, "bubblewrap")
        prefix = _arguments(stage.root, scratch)
        environment = {**stage.environ(_INSIDE), "PATH": os.environ.get("PATH", "")}
        try:
            return _process.run(
                [*prefix, f"{Stage.INSIDE}/{argv[0]}", *argv[1:]],
                timeout=timeout,
                env=environment,
                heard=stage.heard,
            )
        except OSError as error:
            raise SessionError(f"bwrap cannot be executed: {error}") from None


def _refusal(said: str) -> Unavailable:
    if "user namespace" in said or "uid map" in said or "Permission denied" in said:
        return Unavailable(
            lack=Lack.PERMISSION,
            what=said,
            hint="sudo sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu"
            " sudo sysctl kernel.apparmor_restrict_unprivileged_userns=0",
        )
    return Unavailable(lack=Lack.RUNTIME, what=said, hint="bwrap --unshare-all --ro-bind / / true")
