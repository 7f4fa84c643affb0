"""Run a program: stream what it says, keep to the time limit, end all its descendants."""

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Final

import psutil

from isobench import owner
from isobench.plugin import Completed
from isobench.units import SECOND, Nanoseconds

MOST: Final = 1 << 20
"""How many bytes of each stream are kept."""
_TIED: Final = "ISOBENCH_TIED"
_ENDING: Final = 10.0
_MOMENT: Final = 0.01


def tied() -> dict[str, str]:
    """Return the variable of payloads that are plain processes of the host.

    With it they die with isobench, and their children can be told from foreign processes.
    """
    return {_TIED: owner.mine()}


def sweep(alive: Callable[[str], bool]) -> list[str]:
    """Kill plain processes whose run has died; return a line for each."""
    removed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            whose = process.environ().get(_TIED)
            if whose is not None and not alive(whose):
                process.kill()
                removed.append(f"process {process.pid}")
    return removed


def end_all(variable: str, value: str) -> list[int]:
    """Kill every process of this host that has this variable in its environment, wait until all
    are gone, and return those that stay.

    They need not be children of ours. Those that are keep their exit codes for whoever started
    them.
    """
    limit = time.monotonic() + _ENDING
    while True:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(variable) == value:
                    left.append(process.pid)
                    process.kill()
        if not left or time.monotonic() > limit:
            return left
        time.sleep(_MOMENT)


def _nothing(_: bytes) -> None:
    """Listen to nothing."""


class Listener:
    """Reads two streams to their ends, hands on what the first says, keeps their beginnings."""

    def __init__(self, out: int, err: int, heard: Callable[[bytes], None]) -> None:
        """Take two descriptors; closing them stays the caller's."""
        self._heard = heard
        self._kept: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
        self._out, self._err = out, err
        self._selector = selectors.DefaultSelector()
        for stream in self._kept:
            self._selector.register(stream, selectors.EVENT_READ)

    @property
    def output(self) -> tuple[bytes, bytes]:
        """What both streams have said so far."""
        return bytes(self._kept[self._out]), bytes(self._kept[self._err])

    def listen(self, deadline: float, until: int | None = None) -> bool:
        """Return True when both streams have ended, False at the deadline (time.monotonic).

        With `until`, a descriptor, the end is when that can be read, and neither before nor after.
        """
        streams = len(self._selector.get_map())
        if until is not None:
            self._selector.register(until, selectors.EVENT_READ)
        try:
            while streams or until is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                ready = [key.fd for key, _ in self._selector.select(left)]
                if until in ready:
                    return True
                streams -= sum(not self._read(stream) for stream in ready)
        finally:
            if until is not None:
                self._selector.unregister(until)
        return True

    def _read(self, stream: int) -> bool:
        """Hand on what a stream says; say whether it goes on."""
        chunk = os.read(stream, 65536)
        if not chunk:
            self._selector.unregister(stream)
            return False
        if stream == self._out:
            self._heard(chunk)
        kept = self._kept[stream]
        kept += chunk[: max(0, MOST - len(kept))]
        return True

    def close(self) -> None:
        """Forget the descriptors."""
        self._selector.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that we started, its group and its descendants, and wait for it."""
    family: list[psutil.Process] = []
    # Killing the first process of a PID namespace takes the rest with it: they may vanish at any
    # moment.
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    psutil.wait_procs(family, timeout=5)


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    descriptors: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a Ctrl-C at the terminal reaches only
    isobench. It inherits the `descriptors` under their own numbers.
    """
    return subprocess.Popen(
        argv,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        start_new_session=True,
        close_fds=True,
        pass_fds=descriptors,
    )


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: Nanoseconds,
    env: Mapping[str, str],
    heard: Callable[[bytes], None] = _nothing,
    outlived: Callable[[], None] | None = None,
) -> Completed:
    """Run a program to its end. OSError if it cannot be executed at all.

    A program that leaves others behind, which hold its streams open, has no other end than its own:
    then `outlived` is called, and must end those.
    """
    deadline = time.monotonic() + timeout / SECOND
    process = start(argv, env=env)
    assert process.stdout is not None  # both are pipes, by `start`
    assert process.stderr is not None
    listener = Listener(process.stdout.fileno(), process.stderr.fileno(), heard)
    exit_code: int | None = None
    try:
        if outlived is not None:
            own_end = os.pidfd_open(process.pid)
            try:
                in_time = listener.listen(deadline, until=own_end)
            finally:
                os.close(own_end)
            if in_time:
                outlived()
        if listener.listen(deadline):
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        if exit_code is None:
            end(process)
        listener.close()
        process.stdout.close()
        process.stderr.close()
    stdout, stderr = listener.output
    return Completed(exit_code=exit_code, stdout=stdout, stderr=stderr)


def proportional_kib(pid: int) -> int | None:
    """Return the memory of a process tree in KiB, shared pages by their share; None: unknown."""
    total = 0
    try:
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.Error, AttributeError):
        return None
    return total // 1024


def ask(argv: Sequence[str], *, timeout: float = 10) -> str | None:
    """Return what a short command prints, or None where it cannot be run or fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, check=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def last_line(text: bytes) -> str:
    """Return the last line that a program said, for an error message."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"


def private_scratch(scratch: Path, name: str) -> Path:
    """Return a directory for one target's files inside the stage's scratch directory."""
    folder = scratch / name
    folder.mkdir(exist_ok=True)
    return folder
