"""Names the owner of containers, cgroups and folders, so that a later run can remove what a killed
run has left.

An owner is "isobench-MACHINE-PID-STARTED": a process of this machine that lives or has ended.
Nothing is ever removed that belongs to a living process or to another machine.
"""

import contextlib
import errno
import functools
import hashlib
import os
import platform
import re
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import psutil

from isobench.model import Leftover
from isobench.model.cleaning import cleaned
from isobench.plugins import folders

_PARTS: Final = 4
_DIGITS: Final = 18
"""Of STARTED; older versions had fewer."""
_FIRST_TIME: Final = "time:[4026531834]"
"""The time namespace of the machine itself: PROC_TIME_INIT_INO of Linux."""
# Anybody may make a folder or a label with such a name: the numbers have a length.
_OWNER: Final = re.compile(
    r"isobench-(?P<machine>[0-9a-f]+)-(?P<pid>[0-9]{1,18})-(?P<started>[0-9]{1,18})", re.ASCII
)

_OCTAL: Final = re.compile(r"\\([0-7]{3})")


def _text(path: str) -> str:
    """Return the content of a file of the system; empty where there is none.

    OSError: it may be there, and cannot be read now.
    """
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return ""


@functools.cache
def _machine() -> str:
    # machine-id(5). Minimal systems do not have it.
    identity = _text("/etc/machine-id")
    # A PID namespace counts as a machine: where isobench runs in a container, its process numbers
    # mean nothing outside, but its containers and cgroups are visible there. So does a time
    # namespace, which shows other start times of the same processes: time_namespaces(7).
    spaces = [_namespace("pid"), _namespace("time")]
    whole = " ".join([identity or platform.node(), *(one for one in spaces if one != _FIRST_TIME)])
    return hashlib.sha256(whole.encode()).hexdigest()[:6]


def _namespace(kind: str) -> str:
    try:
        return str(Path(f"/proc/self/ns/{kind}").readlink())
    except OSError:
        # What a kernel without time namespaces has.
        return _FIRST_TIME if kind == "time" else ""


@functools.cache
def boot_id() -> str:
    """Return the id of this boot of the machine; empty where it is unknown."""
    return _text("/proc/sys/kernel/random/boot_id")  # random(4)


def _boot() -> int:
    """Return a number of six digits of this boot of the machine."""
    # The system clock may be set, by seconds or by years, while a process lives; its start since
    # the boot stays the same.
    return 100_000 + int(hashlib.sha256(boot_id().encode()).hexdigest(), 16) % 900_000


def _started(pid: int) -> int:
    """Return when a process started: six digits of the boot, twelve of clock ticks since then.

    OSError: it cannot be seen.
    """
    # Bytes: a process gives itself any name, which need not be text.
    line = Path(f"/proc/{pid}/stat").read_bytes()
    # proc_pid_stat(5): starttime is the 22nd field, and the second may have spaces and parentheses.
    ticks = line.rpartition(b")")[2].split()[19]
    return _boot() * 10**12 + int(ticks)


def _started_by_clock(pid: int) -> int:
    """Return the same as older versions named it: hundredths of a second by the system clock."""
    return int(psutil.Process(pid).create_time() * 100)


def _exists(pid: int) -> bool:
    """Return False only where the system says that there is no process of this number."""
    # Not by /proc: it hides processes of other users (hidepid, proc(5)), and needs a descriptor.
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):  # no such process, no such number
        return False
    except OSError:
        return True
    return True


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
    pid, named = int(found["pid"]), int(found["started"])
    if not _exists(pid):
        return False
    # The number of a process may have been given to another one, which started at another time.
    try:
        if len(found["started"]) == _DIGITS:
            return _started(pid) == named
        return abs(_started_by_clock(pid) - named) < 100  # noqa: PLR2004 - a second
    except (OSError, psutil.Error):
        return True  # it cannot be seen which process that is


def owner_of(name: str) -> str:
    """Return the owner in a name that begins with one; empty for every other name."""
    parts = name.split("-")
    return "-".join(parts[:_PARTS]) if len(parts) > _PARTS and parts[0] == "isobench" else ""


_doubted = threading.Event()


def doubt() -> None:
    """Note that something of this process may be left, though it was to be removed: a run then
    looks for it at its end.
    """
    _doubted.set()


def take_doubt() -> bool:
    """Return whether something may be left, and forget that."""
    doubted = _doubted.is_set()
    _doubted.clear()
    return doubted


@contextlib.contextmanager
def temporary_folder(what: str) -> Iterator[Path]:
    """Yield a new folder for temporary files, which only this user can enter; `what` is a word.

    It is removed at the end, or by `sweep_temporary` after this process was killed.
    """
    with folders.removed_at_end(f"{mine()}-{what}-") as folder:
        yield folder


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
        removed.append(removed_folder(folder))
    return removed


def removed_folder(folder: Path) -> Leftover:
    """Remove a folder of a process that has died, and return it. What somebody has mounted in it
    stays.
    """
    mounted = _mounted_in(folder)
    if mounted:
        shown = cleaned(mounted)
        return Leftover(what=f"folder {folder}", failure=f"{shown} is mounted in it: umount it")
    shutil.rmtree(folder, ignore_errors=True)
    failure = "some of its files cannot be removed" if os.path.lexists(folder) else ""
    return Leftover(what=f"folder {folder}", failure=failure)


def _mounted_in(folder: Path) -> str:
    """Return a mount point in a folder; empty where there is none, or the system has no table."""
    place = str(folder.resolve())
    for line in _text("/proc/self/mountinfo").splitlines():
        # proc_pid_mountinfo(5): the mount point is the fifth field, with blanks as \040.
        point = _OCTAL.sub(lambda found: chr(int(found[1], 8)), line.split(" ")[4])
        if point.startswith(f"{place}/"):
            return point
    return ""


def remove_own(folder: Path) -> None:
    """Remove a folder of this process. What stays is looked for at the end of the run."""
    if removed_folder(folder).failure:
        doubt()


def _is_own_folder(path: Path) -> bool:
    """Return whether this is a folder of this user, and no link to one."""
    try:
        status = path.lstat()
    except OSError:
        return False
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()
