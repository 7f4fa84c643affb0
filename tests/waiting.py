"""Waits for other processes that end in any case: a test fails, and the suite goes on."""

import contextlib
import os
import select
import subprocess
import time

import pytest

PATIENCE = 60.0
"""Seconds in which a program must have printed what a test waits for, on a busy machine, too."""


def line(
    process: "subprocess.Popen[str] | subprocess.Popen[bytes]", within: float = PATIENCE
) -> str:
    """Return the next line that a process prints, empty at the end of its output.

    It is read byte by byte from the pipe itself, so that the stream's own buffer stays empty and
    `communicate` still returns all that follows.
    """
    assert process.stdout is not None
    pipe = process.stdout.fileno()
    end = time.monotonic() + within
    said = b""
    while not said.endswith(b"\n"):
        if not select.select([pipe], [], [], max(0.0, end - time.monotonic()))[0]:
            pytest.fail(f"no line within {within:g} s from {process.args!r}, only {said!r}")
        if not (byte := os.read(pipe, 1)):
            break
        said += byte
    return said.decode().rstrip("\n")


def outputs(process: "subprocess.Popen[bytes]", within: float = PATIENCE) -> tuple[bytes, bytes]:
    """Return all that a process prints on both streams; its standard input stays open."""
    assert process.stdout is not None
    assert process.stderr is not None
    order = [process.stdout.fileno(), process.stderr.fileno()]
    said, left = dict.fromkeys(order, b""), set(order)
    end = time.monotonic() + within
    while left:
        ready = select.select(left, [], [], max(0.0, end - time.monotonic()))[0]
        if not ready:
            pytest.fail(f"no end of output within {within:g} s from {process.args!r}: {said}")
        for pipe in ready:
            said[pipe] += (chunk := os.read(pipe, 1 << 16))
            if not chunk:
                left.remove(pipe)
    return said[order[0]], said[order[1]]


def killed(
    process: "subprocess.Popen[str] | subprocess.Popen[bytes]", within: float = PATIENCE
) -> None:
    """Kill a process and close its pipes, whoever else still holds their other ends."""
    process.kill()
    process.wait(within)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.close()
