"""Run the real command in folders of its own."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests import waiting


def heeding() -> None:
    """Have a program heed Ctrl-C and a hangup, whoever started the tests: a shell's background job
    inherits the one ignored, what `nohup` starts the other.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@dataclass(frozen=True)
class Ran:
    """How `isobench` ended, and where it wrote."""

    code: int
    out: str
    err: str
    results: Path

    @property
    def said(self) -> str:
        """What a failed test shows: the results with their gaps, and the log."""
        return f"{self.out}\n{self.err}"

    @property
    def latest(self) -> Path:
        return self.results / "latest"

    def summary(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads((self.latest / "summary.json").read_text())
        return loaded


class Command:
    """`isobench` with results and cache in temporary folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.started: list[subprocess.Popen[str]] = []
        self.environment = {
            **os.environ,
            "ISOBENCH_RESULTS_DIR": str(self.results),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }

    def argv(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "isobench", *arguments]

    def __call__(self, *arguments: str, timeout: float = 300, **variables: str) -> Ran:
        done = subprocess.run(
            self.argv(*arguments),
            env={**self.environment, **variables},
            cwd=self.folder, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip
        return Ran(done.returncode, done.stdout, done.stderr, self.results)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            self.argv(*arguments),
            env=self.environment, cwd=self.folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=heeding,  # noqa: PLW1509 - one thread
        )  # fmt: skip
        self.started.append(process)
        return process


@pytest.fixture
def isobench(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    for process in command.started:
        waiting.killed(process)


CHECKOUT = Path(__file__).parents[2]
PYTHON = "/usr/bin/python3"
"""Of the system, since root's own may lie where nobody else can go."""


class Ordinary:
    """Python in this checkout, run by an ordinary user with a home of the test's own."""

    def __init__(self, user: str, home: Path) -> None:
        self.home = home
        libraries = [entry for entry in sys.path if "site-packages" in entry]
        variables = {
            "HOME": str(home),
            "XDG_RUNTIME_DIR": f"{home}/run",
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(CHECKOUT), *libraries]),
            "PYTHONDONTWRITEBYTECODE": "1",
            "USER": user,
            "NO_COLOR": "1",
        }
        self.base = [
            *("setpriv", "--reuid", user, "--regid", user, "--init-groups", "env", "-i"),
            *(f"{name}={value}" for name, value in variables.items()),
        ]

    def __call__(
        self, *arguments: str, folder: Path | None = None, timeout: float = 300
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*self.base, PYTHON, *arguments],
            cwd=folder or self.home, capture_output=True, text=True, check=False, timeout=timeout,
        )  # fmt: skip


@pytest.fixture
def ordinary() -> Iterator[Ordinary]:
    """Root's tests of what an ordinary user does: ISOBENCH_TEST_USER, with subordinate ids."""
    user = os.environ.get("ISOBENCH_TEST_USER")
    if os.geteuid() != 0 or not user:
        pytest.skip(
            "run the tests as root, with ISOBENCH_TEST_USER=<an ordinary user with subordinate ids>"
        )
    one = Ordinary(user, Path(f"~{user}").expanduser() / f"isobench-{os.getpid()}")
    can = one("-c", "import isobench.analysis.summary", folder=Path("/"))
    if can.returncode != 0:
        why = (can.stderr.strip().splitlines() or ["it failed without a word"])[-1]
        pytest.skip(f"{user} cannot run this checkout with {PYTHON}: {why}")
    subprocess.run([*one.base, "mkdir", "-p", str(one.home / "run")], check=True, cwd="/")
    (one.home / "run").chmod(0o700)
    try:
        yield one
    finally:
        # Podman keeps a process for its user namespace, in this home of the test's own.
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("HOME", "").startswith(str(one.home)):
                    process.kill()
        shutil.rmtree(one.home, ignore_errors=True)
