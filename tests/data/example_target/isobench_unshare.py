"""util-linux's `unshare` as a target: user, PID and network namespaces, the host's files."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

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
)
from isobench.plugin import Completed
from isobench.units import SECOND, Nanoseconds, TargetName

UNSHARE = ("unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--net")


class _Session:
    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def run(self, argv: Sequence[str], *, timeout: Nanoseconds) -> Completed:
        program = str(self._stage.root / "isobench" / argv[0])
        environment = self._stage.environ(str(self._stage.scratch)) | {"PATH": os.environ["PATH"]}
        process = subprocess.Popen(
            [*UNSHARE, "--", program, *argv[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        code: int | None = None
        try:
            stdout, stderr = process.communicate(timeout=timeout / SECOND)
            code = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()  # --kill-child takes the namespace with it
            stdout, stderr = process.communicate()
        self._stage.heard(stdout)
        return Completed(exit_code=code, stdout=stdout, stderr=stderr)


@dataclass(frozen=True, kw_only=True)
class UnshareTarget:
    """A process in namespaces of its own."""

    name: ClassVar[TargetName] = TargetName("unshare")
    technology: ClassVar[Technology] = Technology.SANDBOX
    abi: ClassVar[Abi | None] = None
    promises: ClassVar[tuple[Promise, ...]] = (
        Promise(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        Promise(key="ns.net", relation=Relation.UNLIKE_HOST),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "unshare is executed with the payload",
        "warm": "the same again",
        "exec": "the same again",
    }

    pretend: str = ""
    """A fact that is promised to be unlike the host's, kept or not: shows what UNPROVEN means."""

    def __post_init__(self) -> None:
        """Add the promise that was asked for."""
        if self.pretend:
            more = Promise(key=self.pretend, relation=Relation.UNLIKE_HOST)
            object.__setattr__(self, "promises", (*type(self).promises, more))

    def probe(self) -> Availability:
        """Try it."""
        if shutil.which("unshare") is None:
            return Unavailable(lack=Lack.TOOL, what="unshare", hint="apt-get install util-linux")
        done = subprocess.run([*UNSHARE, "true"], capture_output=True, check=False)
        if done.returncode != 0:
            said = done.stderr.decode(errors="replace").strip()
            return Unavailable(lack=Lack.PERMISSION, what=said, hint="allow user namespaces")
        return Available(version="util-linux")

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_Session]:
        """Nothing to start."""
        yield _Session(stage)
