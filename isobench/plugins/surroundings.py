"""Keeps what a whole process shares as isobench has it: the working folder, to which relative paths
lead, and the umask, by which others could write what isobench makes.
"""

import contextlib
import os
from collections.abc import Iterator
from typing import Final

from isobench.model.errors import PluginError

_unreported: Final[list[PluginError]] = []
_blamed: Final[set[tuple[str, str]]] = set()


@contextlib.contextmanager
def kept(blame: str, place: str) -> Iterator[None]:
    """Surround a call of a plug-in's code: what it has changed is changed back, and noted as a
    fault. `blame` says whose code it is, `place` which call.
    """
    mask = _umask()
    try:
        # By its descriptor: the path may lead elsewhere by then.
        before = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:  # it was removed: nothing to return to
        before = None
    try:
        yield
    finally:
        if _umask() != mask:
            os.umask(mask)
            _note(blame, place, "the umask")
        if before is not None:
            try:
                if not _is_here(before):
                    os.fchdir(before)
                    _note(blame, place, "the working folder")
            finally:
                os.close(before)


def _umask() -> int:
    """Return the umask, which only a change shows: umask(2). Meanwhile it permits nobody more."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def _is_here(folder: int) -> bool:
    """Return whether a folder is the working folder."""
    with contextlib.suppress(OSError):
        return os.path.samestat(os.fstat(folder), os.stat("."))  # noqa: PTH116 - as the other
    return False


def _note(blame: str, place: str, what: str) -> None:
    if (blame, what) not in _blamed:
        _blamed.add((blame, what))
        text = f"{place} changed {what} of isobench; it was changed back"
        _unreported.append(PluginError(text, hint=blame))


def take_unreported() -> list[PluginError]:
    """Return the faults that were not reported yet. Each is returned once."""
    taken = list(_unreported)
    _unreported.clear()
    return taken
