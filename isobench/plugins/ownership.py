"""Names the owner of containers, cgroups and folders, so that a later run can remove what a killed
run has left.

An owner is "isobench-MACHINE-PID-STARTED": a process of this machine that lives or has ended.
Nothing is ever removed that belongs to a living process or to another machine.
"""

import functools
import hashlib
import os
import platform
from pathlib import Path

import psutil


@functools.cache
def _machine() -> str:
    # machine-id(5). Minimal systems do not have it.
    try:
        identity = Path("/etc/machine-id").read_text().strip()
    except OSError:
        identity = ""
    # A PID namespace counts as a machine: where isobench runs in a container, its process numbers
    # mean nothing outside, but its containers and cgroups are visible there.
    try:
        numbers = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        numbers = ""
    whole = f"{identity or platform.node()} {numbers}"
    return hashlib.sha256(whole.encode()).hexdigest()[:6]


def _started(pid: int) -> int | None:
    try:
        # In hundredths of a second, the resolution of the kernel: proc_pid_stat(5), starttime.
        return int(psutil.Process(pid).create_time() * 100)
    except psutil.Error:
        return None


@functools.cache
def mine() -> str:
    """Return the owner name of this process."""
    return f"isobench-{_machine()}-{os.getpid()}-{_started(os.getpid())}"


def alive(owner: str) -> bool:
    """Return whether the things of this owner must be kept. It is so for every text that is not an
    owner.
    """
    parts = owner.split("-")
    if len(parts) != 4 or parts[0] != "isobench" or not (parts[2] + parts[3]).isdigit():  # noqa: PLR2004
        return True
    if parts[1] != _machine():
        return True
    started = _started(int(parts[2]))
    # The number of a process may have been given to another one, which started at another time.
    # Times are compared to a second: they are computed from the system clock, which may have been
    # corrected in between.
    return started is not None and abs(started - int(parts[3])) < 100  # noqa: PLR2004
