"""Reads files from outside, up to a bound: no file makes isobench wait, or take its memory.

A path may lead to a device that never ends, to a pipe that nobody writes to, or to a file of a
terabyte.
"""

import contextlib
import errno
import os
import secrets
import select
import shlex
import stat
import time
from pathlib import Path
from typing import Final

from isobench.config import trust
from isobench.model.errors import UsageError

_PATIENCE: Final = 10.0
"""Seconds that a named pipe has until its end: a shell's <(command) is one."""
_CANNOT_SYNC: Final = (errno.EINVAL, errno.ENOTSUP)
"""Errors of file systems that have no fsync of folders."""
_SHARED: Final = stat.S_ISVTX | stat.S_IWOTH
"""The mode of a folder in which everybody may create an entry, and nobody replace another's."""
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


def unreadable(folder: Path, error: OSError, loss: str) -> UsageError:
    """Return the error of a folder that cannot be looked into, with what to type. `loss`: what is
    left out, in words.
    """
    place = shlex.quote(str(folder))
    hint = "the disk may be damaged: dmesg"
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = f"as the user that it belongs to: chmod -R a+rX {place}"
        with contextlib.suppress(OSError):
            owner = folder.stat().st_uid
            if owner == os.geteuid():
                hint = f"chmod -R u+rwX {place}"
            else:
                hint = f"as {trust.user_name(owner)}, or as root: chmod -R a+rX {place}"
    return UsageError(
        f"{folder} cannot be read ({error.strerror or error}), and {loss} left out",
        hint=hint,
    )


def check_replaceable(path: Path) -> None:
    """Check that a file may be replaced. OSError: a device, a pipe or a folder has its name, or
    somebody else's link leads there.

    As root, a rename would replace /dev/null.
    """
    check_links(path)
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def replaceable(path: Path) -> Path:
    """Return the file that a name of the user's leads to: it may be replaced, and a link stays.

    OSError: as for `check_replaceable`.
    """
    check_replaceable(path)
    return path.resolve()


def check_links(path: Path) -> None:
    """Check that only links of this user's own, or of root, decide where a file is written.

    OSError: another user's link has its name, or is on its way in a folder where everybody may
    create one, such as /tmp. The kernel refuses the latter only where fs.protected_symlinks is set:
    proc_sys_fs(5). Other links to folders are left to whoever owns the folder that they are in.
    """
    # Where root has no number, as in a user namespace with few users, it has that of /.
    own = {0, os.geteuid(), os.lstat("/").st_uid}
    named = _links_named(path)
    # The file, or a folder of it, need not exist, and a working folder may be inside one that must
    # not be entered: what is on the way up to there is checked.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for entry, seen in trust.entries_on_path(path):
            if not stat.S_ISLNK(seen.st_mode) or seen.st_uid in own:
                continue
            if entry in named or entry.parent.stat().st_mode & _SHARED == _SHARED:
                owner = trust.user_name(seen.st_uid)
                what = "a link" if entry == path.absolute() else f"{entry} is a link"
                raise OSError(errno.ELOOP, f"{what} of {owner}, which is not followed", str(path))


def _links_named(path: Path) -> set[Path]:
    """Return the link that has this path, and those that it leads to."""
    found: set[Path] = set()
    while path.is_symlink():
        path = Path(os.path.realpath(path.parent), path.name)
        if path in found:
            break
        found.add(path)
        path = path.parent / path.readlink()
    return found


def write(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all; or into a pipe or a device that has this name.

    OSError: it cannot be written, nobody reads the pipe, or somebody else's link leads there.
    """
    check_links(path)
    # /dev/fd/63, a shell's >(command), is a link to a pipe without a path.
    if path.exists() and not path.is_file():
        # Opening a named pipe would wait for a reader.
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        os.set_blocking(descriptor, True)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(content)
        return
    replace(path.resolve(), content)  # a link stays, and leads to the new content


def replace(path: Path, content: bytes) -> None:
    """Write a file, completely or not at all. The umask decides who may read it. A reader sees the
    old file or the new, also after a crash of the machine. OSError: it cannot be written.
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
        publish(fresh, path)
    except OSError as error:
        raise with_file(error, path) from None
    finally:
        fresh.unlink(missing_ok=True)


def publish(made: Path, path: Path) -> None:
    """Give a finished file its name, so that a crash of the machine leaves all of it or nothing.

    Both names are in the same folder. OSError: it cannot be written.
    """
    # A rename may reach the disk before the content, which would leave an empty file: fsync(2).
    with made.open("rb") as stream:
        os.fsync(stream.fileno())
    made.replace(path)
    try:
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:  # a folder that may be written and not listed
        return
    try:
        os.fsync(folder)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(folder)


def with_file(error: OSError, path: Path) -> OSError:
    """Return an error that names a file. Python names none where writing or closing fails."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error


def _too_long(path: Path, most: int, hint: str) -> UsageError:
    return UsageError(f"{path}: longer than {size_text(most)}, the most that is read", hint=hint)


def is_ready(descriptor: int, within: float | None, event: int = select.POLLIN) -> bool:
    """Wait so many seconds, or without a limit, until a descriptor can be read (or written, for
    select.POLLOUT); return whether it can.
    """
    # Not by select(2), which takes no number above 1023.
    waiting = select.poll()
    waiting.register(descriptor, event)
    return bool(waiting.poll(None if within is None else 1000 * within))


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
        while size <= most and is_ready(descriptor, max(0.0, end - time.monotonic())):
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
