"""Reads files from outside, up to a bound: no file makes isobench wait, or take its memory.

A path may lead to a device that never ends, to a pipe that nobody writes to, or to a file of a
terabyte.
"""

import contextlib
import errno
import io
import os
import secrets
import select
import stat
import time
from pathlib import Path
from typing import Any, Final

from isobench.config import trust
from isobench.model import commands
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


# Opening a named pipe without O_NONBLOCK waits for a writer: fifo(7). O_NOCTTY: a terminal must not
# become the controlling one.
TO_READ: Final = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""How a file from outside is opened."""


def opened(path: Path, *, most: int, hint: str, pipes: bool = False) -> int:
    """Open a file for reading; return its descriptor.

    UsageError: it is neither a regular file nor, where `pipes` allows it, a pipe; or it is longer
    than `most` bytes. OSError: it cannot be opened.
    """
    descriptor = os.open(path, TO_READ)
    _size(descriptor, path, most=most, hint=hint, pipes=pipes)
    return descriptor


def _size(descriptor: int, path: Path, *, most: int, hint: str, pipes: bool = False) -> int:
    """Return the size of a file that may be read; close any other. UsageError as in `opened`."""
    # fstat(2) of what is open: the path may lead elsewhere a moment later.
    seen = os.fstat(descriptor)
    if not stat.S_ISREG(seen.st_mode) and not (pipes and stat.S_ISFIFO(seen.st_mode)):
        os.close(descriptor)
        raise UsageError(f"{path}: not a regular file", hint=hint)
    if seen.st_size > most:
        os.close(descriptor)
        raise too_long(path, most, hint)
    return seen.st_size


class _Beginning(io.FileIO):
    """A file up to the size that it had when it was opened, however it grows."""

    def __init__(self, descriptor: int, size: int) -> None:
        super().__init__(descriptor, "rb")
        self._size = size

    def readinto(self, buffer: Any, /) -> int:  # noqa: ANN401 - any buffer
        left = max(0, self._size - self.tell())
        # It never waits: it is no pipe.
        return super().readinto(memoryview(buffer).cast("B")[:left]) or 0

    def readall(self) -> bytes:
        pieces: list[bytes] = []
        while piece := super().read(max(0, self._size - self.tell())):
            pieces.append(piece)
        return b"".join(pieces)


def stream(descriptor: int, path: Path, *, most: int, hint: str) -> io.BufferedReader:
    """Return a stream of a file that is open as `TO_READ` says. A file may grow while it is read,
    and without end: the stream ends where the file ended when this was called.

    UsageError: it is not a regular file, or is longer than `most` bytes; names it by `path`.
    """
    size = _size(descriptor, path, most=most, hint=hint)
    return io.BufferedReader(_Beginning(descriptor, size))


def name_in(error: OSError, path: Path) -> None:
    """Let an error of the system name a path, and no other."""
    error.filename = str(path)
    # None would be shown: "-> None".
    with contextlib.suppress(AttributeError):
        del error.filename2


def to_permit(folder: Path, own: str) -> str:
    """Return what to type, and as whom, where a folder may not be read. `own` are the rights that
    its owner lacks, as chmod takes them.
    """
    place = commands.path(folder)
    try:
        owner = folder.stat().st_uid
    except OSError:
        return f"as the user that it belongs to: chmod -R a+rX {place}"
    if owner == os.geteuid():
        return f"chmod -R {commands.path(own)} {place}"
    return f"as {trust.user_name(owner)}, or as root: chmod -R a+rX {place}"


def unreadable(folder: Path, error: OSError, loss: str) -> UsageError:
    """Return the error of a folder that cannot be looked into, with what to type. `loss`: what is
    left out, in words.
    """
    is_refused = error.errno in (errno.EACCES, errno.EPERM)
    hint = to_permit(folder, "u+rwX") if is_refused else "the disk may be damaged: dmesg"
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
    named = _links_named(path)
    # The file, or a folder of it, need not exist, and a working folder may be inside one that must
    # not be entered: what is on the way up to there is checked.
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        for entry, seen in trust.entries_on_path(path):
            if not stat.S_ISLNK(seen.st_mode) or is_own(seen):
                continue
            if entry in named or is_shared(entry.parent.stat()):
                what = link_text("" if entry == path.absolute() else str(entry), seen)
                raise OSError(errno.ELOOP, what, str(path))


def is_own(seen: os.stat_result) -> bool:
    """Return whether an entry belongs to this user or to root."""
    # Where root has no number, as in a user namespace with few users, it has that of /.
    return seen.st_uid in {0, os.geteuid(), os.lstat("/").st_uid}


def is_shared(seen: os.stat_result) -> bool:
    """Return whether everybody may create an entry in a folder, and nobody replace another's."""
    return seen.st_mode & _SHARED == _SHARED


def link_text(name: str, seen: os.stat_result) -> str:
    """Return why another user's link is not followed. `name`: the link, unless the user named it
    alone.
    """
    what = f"{name} is a link" if name else "a link"
    return f"{what} of {trust.user_name(seen.st_uid)}, which is not followed"


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
    try:
        folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            replace_in(folder, path.name, content)
        finally:
            os.close(folder)
    except OSError as error:
        name_in(error, path)
        raise


def replace_in(folder: int, name: str, content: bytes) -> None:
    """Write a file in a folder that is open, as `replace` does. A link with its name is replaced
    itself. OSError: a device, a pipe or a folder has its name, or it cannot be written.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        # As root, a rename would replace /dev/null.
        if not stat.S_ISREG(found) and not stat.S_ISLNK(found):
            raise OSError(errno.EINVAL, "not a regular file", name)
    # rename(2) replaces a file atomically, but only within one file system: so the temporary file
    # is in the same folder.
    fresh = f".{name}-{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # Mode 0666 without the bits of the umask: open(2). tempfile would make it 0600, and nobody
        # else could read a report that root has made. O_EXCL follows no symbolic link.
        with os.fdopen(os.open(fresh, flags, 0o666, dir_fd=folder), "wb") as stream:
            stream.write(content)
            stream.flush()
            # A rename may reach the disk before the content, which would leave an empty file:
            # fsync(2).
            os.fsync(stream.fileno())
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
        _sync_names(folder)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(fresh, dir_fd=folder)


def publish(made: Path, path: Path) -> None:
    """Give a finished file its name, so that a crash of the machine leaves all of it or nothing.

    Both names are in the same folder. OSError: it cannot be written.
    """
    with made.open("rb") as stream:
        os.fsync(stream.fileno())  # as in `replace_in`
    made.replace(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _sync_names(folder)
    finally:
        os.close(folder)


def _sync_names(folder: int) -> None:
    """Bring the names in a folder to the disk."""
    try:
        listed = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=folder)
    except PermissionError:  # a folder that may be written and not listed
        return
    try:
        os.fsync(listed)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(listed)


def with_file(error: OSError, path: Path) -> OSError:
    """Return an error that names a file. Python names none where writing or closing fails."""
    if error.filename is None and error.errno is not None:
        error.filename = str(path)
    return error


def too_long(path: Path, most: int, hint: str) -> UsageError:
    """Return the error of a file that has more than `most` bytes."""
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
        raise too_long(path, most, hint)
    raise UsageError(f"{path}: its end did not come within {_PATIENCE:g} s", hint=hint)
