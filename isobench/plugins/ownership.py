"""Whom containers, cgroups and folders belong to, so that the next start can clear away what a
killed run has left.

An owner is "isobench-MACHINE-PID-STARTED": a process of this machine that lives, or lived. Nothing
that belongs to a living process or to another machine is ever touched. A PID namespace (a container
in which isobench runs) is a machine of its own: its numbers mean nothing outside, where its
processes, containers and cgroups are seen all the same.
"""

import functools
import hashlib
import os
import platform
from pathlib import Path

import psutil


@functools.cache
def _machine() -> str:
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    whole = f"{identity or platform.node()} {numbers}"
    return hashlib.sha256(whole.encode()).hexdigest()[:6]


def _started(pid: int) -> int | None:
    try:
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


@functools.cache
def mine() -> str:
    """Return the owner that this process is."""
    return f"isobench-{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def alive(owner: str) -> bool:
    """Say whether what belongs to this owner must be left alone; so must what names no owner.

    Start times are compared to a second: they are derived from the clock, which may be corrected
    meanwhile.
    """
    parts = owner.split("-")
    if len(parts) != 4 or parts[0] != "isobench" or not (parts[2] + parts[3]).isdigit():  # noqa: PLR2004
        return True
    if parts[1] != _machine():
        return True
    started = _started(int(parts[2]))
    return started is not None and abs(started - int(parts[3])) < 100  # noqa: PLR2004
