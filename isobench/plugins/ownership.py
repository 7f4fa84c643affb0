"""Names the owner of containers, cgroups and folders, so that a later run can remove what a killed
run has left.

An owner is "isobench-MACHINE-PID-STARTED": a process of this machine that lives or has ended.
Nothing is ever removed that belongs to a living process or to another machine.
"""

import contextlib
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from isobench.model import Leftover

_PARTS: Final = 4
# Anybody may make a folder or a label with such a name: the numbers have a length.
_OWNER: Final = re.compile(
    r"isobench-(?P<machine>[0-9a-f]+)-(?P<pid>[0-9]{1,18})-(?P<started>[0-9]{1,18})", re.ASCII
)


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
    found = _OWNER.fullmatch(owner)
    if found is None or found["machine"] != _machine():
        return True
    started = _started(int(found["pid"]))
    # The number of a process may have been given to another one, which started at another time.
    # Times are compared to a second: they are computed from the system clock, which may have been
    # corrected in between.
    return started is not None and abs(started - int(found["started"])) < 100  # noqa: PLR2004


def owner_of(name: str) -> str:
    """Return the owner in a name that begins with one; empty for every other name."""
    parts = name.split("-")
    return "-".join(parts[:_PARTS]) if len(parts) > _PARTS and parts[0] == "isobench" else ""


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a new folder for temporary files, which only this user can enter; `what` is a word.

    It is removed at the end, or by `sweep_temporary` after this process was killed.
    """
    with tempfile.TemporaryDirectory(prefix=f"{mine()}-{what}-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def temporary_file(content: bytes, what: str) -> Iterator[Path]:
    """Yield a file with this content in a folder of its own, which is removed at the end."""
    with temporary_folder(what) as folder:
        path = folder / what
        path.write_bytes(content)
        yield path


def sweep_temporary(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the temporary folders of processes that have died, and return them."""
    return sweep_folders(Path(tempfile.gettempdir()), alive)


def sweep_folders(parent: Path, alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the folders in `parent` whose names begin with an owner that has died."""
    removed = []
    for folder in sorted(parent.glob("isobench-*")):
        owner = owner_of(folder.name)
        if not owner or alive(owner) or not _is_own_folder(folder):
            continue
        shutil.rmtree(folder, ignore_errors=True)
        failure = "some of its files cannot be removed" if folder.exists() else ""
        removed.append(Leftover(what=f"folder {folder}", failure=failure))
    return removed


def _is_own_folder(path: Path) -> bool:
    """Return whether this is a folder of this user, and no link to one."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
