"""The tree of cgroups, in which others make and remove folders at any moment.

A folder may be gone between the listing of its parent and the look into it. That is no error
anywhere here: what is gone needs no removal.
"""

import errno
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

OWNED: Final = "isobench-"
"""How the names of what isobench makes begin; four more parts, with dashes between them, follow."""
_PARTS: Final = 5
_GONE: Final = (errno.ENOENT, errno.ENODEV)
"""What the kernel says of a cgroup that was removed: of its path, and of its open files."""
_PAUSE: Final = 0.01


def is_owned(name: str) -> bool:
    """Say whether a name without its prefix is that of an instance of isobench's."""
    return name.startswith(OWNED) and len(name.split("-", _PARTS - 1)) == _PARTS


def below(root: Path, prefixes: Iterable[str]) -> list[Path]:
    """Return every folder beneath the root that is called PREFIX + owner + "-…", sorted."""
    names = tuple(prefixes)
    # os.walk passes over what it can no longer list; Path.glob raises.
    return sorted(
        Path(path, folder)
        for path, folders, _ in os.walk(root)
        for folder in folders
        if any(folder.startswith(p) and is_owned(folder.removeprefix(p)) for p in names)
    )


def children(parent: Path) -> Iterator[Path]:
    """Yield the folders of instances of isobench's in one folder; nothing where it is gone."""
    try:
        names = sorted(os.listdir(parent))  # noqa: PTH208 - names alone: no entry is looked at
    except OSError:
        return
    yield from (parent / name for name in names if is_owned(name))


def remove(folder: Path, *, attempts: int) -> str:
    """Remove a cgroup and those below it, of which no process is left; return what is wrong, or
    nothing. The last process may take a moment to be gone.
    """
    said = ""
    for attempt in range(attempts):
        if attempt:
            time.sleep(_PAUSE)
        for path, _, _ in os.walk(folder, topdown=False):
            _rmdir(path)
        said = _rmdir(folder)  # says what holds it: one below, or a process
        if not said:
            break
    return said


def _rmdir(path: str | Path) -> str:
    try:
        os.rmdir(path)  # noqa: PTH106 - of a path as os.walk yields it
    except OSError as error:
        return "" if error.errno in _GONE else str(error)
    return ""
