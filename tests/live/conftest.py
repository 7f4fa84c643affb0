"""Run the real command in folders of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class Ran:
    """How `isobench` ended, and where it wrote."""

    code: int
    out: str
    err: str
    results: Path

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
            # Whoever runs the tests in the background of a shell has it ignored, and a program
            # inherits that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509 - one thread
        )  # fmt: skip
        self.started.append(process)
        return process


@pytest.fixture
def isobench(tmp_path: Path) -> Iterator[Command]:
    command = Command(tmp_path)
    yield command
    for process in command.started:
        process.kill()
        process.communicate()
