"""A dockerd of a test's own, beside that of the machine: it may be filled up and killed."""

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

PATIENCE = 60.0
"""Seconds in which a daemon must answer, or have ended."""


@dataclass
class Daemon:
    """A dockerd with data, sockets and settings in a folder of its own."""

    folder: Path
    """With a short path: the path of a socket has 107 bytes at most (unix(7)), and containerd's lie
    deep in it.
    """
    settings: Mapping[str, Any]
    process: "subprocess.Popen[bytes] | None" = None
    family: list[psutil.Process] = field(default_factory=list)
    """What has been started, so that it can be ended."""

    @property
    def host(self) -> str:
        """The value of DOCKER_HOST."""
        return f"unix://{self.folder}/docker.sock"

    def start(self) -> None:
        """Start it, or skip the test with the last line of its log."""
        place, log = self.folder, self.folder / "log"
        (place / "daemon.json").write_text(json.dumps(self.settings))
        (place / "docker.sock").unlink(missing_ok=True)
        (place / "pid").unlink(missing_ok=True)  # of one that was killed
        with log.open("ab") as output:
            self.process = process = subprocess.Popen(
                [
                    *("dockerd", "--host", self.host, "--config-file", f"{place}/daemon.json"),
                    *("--data-root", f"{place}/data", "--exec-root", f"{place}/exec"),
                    *("--pidfile", f"{place}/pid", "--bridge=none", "--iptables=false"),
                ],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            )  # fmt: skip
        self.family = [psutil.Process(process.pid)]
        end = time.monotonic() + PATIENCE
        while not self._answers():
            if process.poll() is not None or time.monotonic() > end:
                lines = log.read_text().splitlines() or ["no log within a minute"]
                pytest.skip(f"a separate dockerd does not start here: {lines[-1]}")
            time.sleep(0.1)
        self.family += self.family[0].children(recursive=True)

    def _answers(self) -> bool:
        argv = ["docker", "--host", self.host, "version", "--format", "{{.Server.Version}}"]
        return subprocess.run(argv, capture_output=True, check=False).returncode == 0

    def _reap(self) -> None:
        psutil.wait_procs(self.family, timeout=PATIENCE)
        if self.process is not None:
            self.process.wait(PATIENCE)

    def kill(self) -> None:
        """Kill it and its containerd, as the kernel does where memory ends. Containers stay."""
        for process in self.family:
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._reap()

    def stop(self) -> None:
        """End it with all that runs in it."""
        for process in self.family[:1]:
            with contextlib.suppress(psutil.Error):
                self.family += process.children(recursive=True)
                process.terminate()
        self._reap()

    def containers(self) -> list[str]:
        """Return the names of its containers."""
        argv = ["docker", "--host", self.host, "ps", "--all", "--format", "{{.Names}}"]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()


@contextlib.contextmanager
def private(settings: Mapping[str, Any] | None = None, *, size: str = "") -> Iterator[Daemon]:
    """Start a dockerd with these settings; `size`: its data lie on a disk of so many bytes ("64m").

    Skips the test where this is impossible.
    """
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        pytest.skip(
            "a dockerd of the test's own needs root and dockerd; isobench doctor --install docker"
        )
    with tempfile.TemporaryDirectory(prefix="isobench-", dir="/tmp") as folder:
        daemon = Daemon(Path(folder), settings or {})
        data = daemon.folder / "data"
        data.mkdir()
        if size:
            subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", data], check=True)
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.stop()
            # A daemon that was killed may have left mounts of its containers.
            for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
                place = line.split()[1]
                if place.startswith(f"{folder}/"):
                    subprocess.run(["umount", "--lazy", place], check=False)
