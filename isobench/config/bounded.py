"""Reads files from outside, up to a bound: no file makes isobench wait, or take its memory.

A path may lead to a device that never ends, to a pipe that nobody writes to, or to a file of a
terabyte.
"""

import errno
import os
import secrets
import select
import stat
import time
from pathlib import Path
from typing import Final

from isobench.model.errors import UsageError

_PATIENCE: Final = 10.0
"""Seconds that a named pipe has until its end: a shell's <(command) is one."""
_PIECE: Final = 1 << 16
_UNITS: Final = (("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10))


def size_text(size: int) -> str:
    """Return a number of bytes as text: "64 MiB"."""
    unit, scale = next((each for each in _UNITS if size >= each[1]), ("bytes", 1))
    return f"{size / scale:.4g} {unit}"


def opened(path: Path, *, most: int, hint: str, pipes: bool = False) -> int:
    """Open a file for reading; return its descriptor.

    UsageError: it is neither a regular file nor, where `pipes` allows it, a pipe; or it is longer
    than `most` bytes. OSError: it cannot be opened.
    """
    # Opening a named pipe without O_NONBLOCK waits for a writer: fifo(7). O_NOCTTY: a terminal must
    # not become the controlling one.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    # fstat(2) of what is open: the path may lead elsewhere a moment later.
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) and not (pipes and stat.S_ISFIFO(seen.st_mode)):
        os.close(descriptor)
        raise UsageError(f"{path}: not a regular file", hint=hint)
    if seen.st_size > most:
        os.close(descriptor)
        raise _too_long(path, most, hint)
    return descriptor


def check_replaceable(path: Path) -> None:
    """Check that a file may be replaced. OSError: a device, a pipe or a folder has its name.

    As root, a rename would replace /dev/null.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def write(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all; or into a pipe or a device that has this name.

    OSError: it cannot be written, or nobody reads the pipe.
    """
    real = path.resolve()  # a link stays, and leads to the new content
    if real.exists() and not real.is_file():
        # Opening a named pipe would wait for a reader.
        descriptor = os.open(real, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        return
    replace(real, content)


def replace(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all. The umask decides who may read it. A reader, or a
    process that is killed here, sees the old file or the new. OSError: it cannot be written.
    """
    check_replaceable(path)
    # rename(2) replaces a file atomically, but only within one file system: so the temporary file
    # is in the same folder.
    fresh = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    try:
        # Mode 0666 without the bits of the umask: open(2). tempfile would make it 0600, and nobody
        # else could read a report that root has made. "x" follows no symbolic link.
        with fresh.open("xb") as stream:
            stream.write(content)
        fresh.replace(path)
    finally:
        fresh.unlink(missing_ok=True)


def _too_long(path: Path, most: int, hint: str) -> UsageError:
    return UsageError(f"{path}: longer than {size_text(most)}, the most that is read", hint=hint)


def read(path: Path, *, most: int, hint: str, pipes: bool = False) -> bytes:
    """Return the content of a file of at most `most` bytes.

    Errors as in `opened`, and UsageError for a pipe whose end does not come within 10 s.
    """
    descriptor = opened(path, most=most, hint=hint, pipes=pipes)
    end = time.monotonic() + _PATIENCE
    pieces: list[bytes] = []
    size = 0
    try:
        # A regular file is always ready; a pipe is when something or its end has arrived.
        while (
            size <= most and select.select([descriptor], [], [], max(0, end - time.monotonic()))[0]
        ):
            piece = os.read(descriptor, _PIECE)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
            size += len(piece)
    finally:
        os.close(descriptor)
    if size > most:
        raise _too_long(path, most, hint)
    raise UsageError(f"{path}: its end did not come within {_PATIENCE:g} s", hint=hint)
