"""Standard output belongs to isobench alone: what a plug-in prints goes to standard error.

`isobench targets --json` and `--export-json -` are read by scripts, and one line of a plug-in's
would break them. `claim` gives isobench a descriptor of its own, `protect` turns descriptor 1 to
standard error (for what a plug-in starts, and for code that writes to the descriptor itself), and
inside `elsewhere` whatever is printed through `sys.stdout` goes to standard error, too.
"""

import contextlib
import io
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

_OUT, _ERR = 1, 2
_place: Final = threading.local()
_claimed: list["_Own"] = []
_shared: list[bool] = []
"""Filled once there may be a plug-in in this process."""


def _is_elsewhere() -> bool:
    """Say whether a plug-in is running: threads other than the first never print for isobench."""
    first = threading.current_thread() is threading.main_thread()
    return not first or getattr(_place, "depth", 0) > 0


class _Own(io.TextIOWrapper):
    """isobench's standard output, which hands on what others print to standard error."""

    def write(self, text: str) -> int:
        """Write, here or to standard error."""
        if _is_elsewhere():
            return len(text) if sys.stderr is None else sys.stderr.write(text)
        return super().write(text)

    @property
    def buffer(self) -> BinaryIO:
        """Give the bytes beneath; a plug-in gets those of standard error."""
        if _is_elsewhere() and sys.stderr is not None:
            return sys.stderr.buffer
        return cast("BinaryIO", super().buffer)


def claim() -> None:
    """Give isobench a standard output of its own, where the present one is descriptor 1."""
    now: Any = sys.stdout
    try:
        if now is None or now.fileno() != _OUT:
            return  # somebody has already redirected it: a test, an embedding program
        now.flush()
        file = os.fdopen(os.dup(_OUT), "wb")
    except (OSError, ValueError):
        return
    sys.stdout = own = _Own(
        file,
        encoding=now.encoding,
        errors=now.errors,
        line_buffering=now.line_buffering,
        write_through=now.write_through,
    )
    _claimed.append(own)


def protect() -> None:
    """Turn descriptor 1 to standard error, once isobench has a standard output of its own.

    To be called before the first plug-in is loaded. It is never undone: a plug-in may print when
    the interpreter ends.
    """
    if _claimed and sys.stdout is _claimed[-1]:
        _shared.append(True)
        with contextlib.suppress(OSError):
            os.dup2(_ERR, _OUT)


def release() -> None:
    """Write what isobench has printed; where there are plug-ins, all goes to standard error from
    here on.

    What a plug-in prints when the interpreter ends would stand behind the last line of a document.
    """
    if _shared and _claimed and sys.stdout is _claimed[-1] and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout = sys.stderr


@contextlib.contextmanager
def elsewhere() -> Iterator[None]:
    """Send to standard error what is printed in here."""
    _place.depth = getattr(_place, "depth", 0) + 1
    try:
        yield
    finally:
        _place.depth -= 1
