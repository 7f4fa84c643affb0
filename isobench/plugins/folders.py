"""Makes folders that are removed when they are not needed any more, also after an interruption."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from isobench.plugins import ending


@contextlib.contextmanager
def removed_at_end(prefix: str, parent: Path | None = None) -> Iterator[Path]:
    """Yield a new folder in `parent`, by default in that for temporary files, which only this user
    can enter. It is removed at the end, and at the latest when isobench ends. OSError: it cannot be
    made.
    """
    # A thread that isobench no longer waits for may be in this context when isobench ends, and
    # fill the folder meanwhile. tempfile.TemporaryDirectory prints a traceback then, and gives up.
    made = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    _folders[made] = os.getpid()
    try:
        yield made
    finally:
        _remove_folder(made)


_folders: Final[dict[Path, int]] = {}
"""What `removed_at_end` has made and not removed yet, with the process that made it."""
_ATTEMPTS: Final = 50
_GONE: Final = ".gone"
_PAUSE: Final = 0.02
"""Seconds. The thread notices soon that its folder is gone."""


@ending.at_end
def _remove_folders() -> None:
    for _ in range(_ATTEMPTS):
        # A process that was forked from the one that made a folder leaves it alone.
        own = [path for path, made_by in list(_folders.items()) if made_by == os.getpid()]
        if not own:
            return
        for path in own:
            _remove_folder(_out_of_reach(path))
        time.sleep(_PAUSE)


def _out_of_reach(path: Path) -> Path:
    """Rename a folder, so that a thread that fills it by its path does not find it; return where it
    is. Otherwise the thread may make files faster than they are removed.
    """
    if path.name.endswith(_GONE):
        return path
    gone = path.with_name(f"{path.name}{_GONE}")
    try:
        path.rename(gone)
    except OSError:
        return path
    _folders[gone] = _folders.pop(path)
    return gone


def _remove_folder(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not os.path.lexists(path):
        _folders.pop(path, None)
