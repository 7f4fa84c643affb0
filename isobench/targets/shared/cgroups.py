"""Find and remove isobench's cgroups, while other processes make and remove theirs.

A folder may vanish between the listing of its parent and its own listing. That is never an error
here: a cgroup that is gone needs no removal.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from isobench.plugins import ownership

ROOT: Final = Path("/sys/fs/cgroup")
_GONE: Final = (errno.ENOENT, errno.ENODEV)
"""The errors of a removed cgroup: ENOENT for its path, ENODEV for its open files."""
_PAUSE: Final = 0.01


def is_owned(name: str) -> bool:
    """Return whether a name, without a tool's prefix, is that of an instance of isobench."""
    return bool(ownership.owner_of(name))


def below(root: Path, prefixes: Iterable[str]) -> list[Path]:
    """Return every folder below the root whose name is PREFIX + owner + "-…", sorted.

    Those of other users are left out, unless this process is root: it could not remove them.
    """
    names = tuple(prefixes)
    # os.walk skips folders that it can no longer list; Path.glob raises.
    return sorted(
        Path(path, folder)
        for path, folders, _ in os.walk(root)
        for folder in folders
        if any(folder.startswith(p) and is_owned(folder.removeprefix(p)) for p in names)
        and _is_removable(Path(path, folder))
    )


def _is_removable(folder: Path) -> bool:
    """Return whether a folder belongs to this user, or everything does."""
    try:
        return os.geteuid() in (0, folder.stat().st_uid)
    except OSError:
        return False


def named(name: str, root: Path = ROOT) -> list[Path]:
    """Return every folder whose name begins so, deeper ones last."""
    return sorted(
        Path(path, folder)
        for path, folders, _ in os.walk(root)
        for folder in folders
        if folder.startswith(name)
    )


def children(parent: Path) -> Iterator[Path]:
    """Yield the folders of isobench's instances in one folder; nothing where it is gone."""
    try:
        names = sorted(os.listdir(parent))  # noqa: PTH208 - the names alone: entries may vanish
    except OSError:
        return
    folders = (parent / name for name in names if is_owned(name))
    yield from filter(_is_removable, folders)


def remove(folder: Path, *, attempts: int) -> str:
    """Remove a cgroup and those below it, which hold no processes any more.

    Return what is wrong after so many attempts, or an empty string.
    """
    error = ""
    # Removal fails with EBUSY until the kernel has reaped the last process, a moment after its end.
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE)
        # From the leaves up: the kernel removes only cgroups without children. Their errors do not
        # matter, as the last call fails while anything is left.
        for path, _, _ in os.walk(folder, topdown=False):
            _rmdir(path)
        error = _rmdir(folder)
        if not error:
            break
    return error


def _rmdir(path: str | Path) -> str:
    try:
        os.rmdir(path)  # noqa: PTH106 - a string, as os.walk yields it
    except OSError as fault:
        return "" if fault.errno in _GONE else str(fault)
    return ""
