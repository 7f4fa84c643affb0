"""Holds a folder by a descriptor: what is read and written stays in it, wherever its path leads to.

Whoever owns the folder around it can rename a folder at any time, and put a link in its place. A
descriptor does not follow: openat(2). No part of a name within a held folder may be a link.
"""

import contextlib
import errno
import io
import os
import stat
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from isobench.config import bounded
from isobench.model.cleaning import cleaned

# O_PATH needs no permission to list the folder: open(2).
_FOLDER: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ENTRY: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# The kernel's limit, MAXSYMLINKS: path_resolution(7).
_MOST_LINKS: Final = 40
_NOT_LISTED: Final = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
_LONGEST_PLACE: Final = 200


class Folder:
    """A folder that is held. It is released by `close`, or when nobody refers to it."""

    def __init__(
        self, path: Path, descriptor: int, parent: int | None = None, *, is_new: bool = False
    ) -> None:
        """Take a folder's descriptor and that of the folder it is in, which are closed with it."""
        self.path = path
        """Its path for messages; it may lead elsewhere meanwhile."""
        self.descriptor = descriptor
        self.parent = descriptor if parent is None else parent
        self.is_new = is_new
        """Whether it was created when it was opened."""
        self.name = path.name
        """Its name in `parent`."""
        self.close = weakref.finalize(self, _close, {self.descriptor, self.parent})

    def opened(self, name: str, flags: int, mode: int = 0o666) -> int:
        """Open a file in it, and return its descriptor. OSError: ELOOP where it is a link, ENOTDIR
        where one of its folders is one.
        """
        with self._around(name) as (at, last):
            return os.open(last, flags | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=at)

    def stream(self, name: str, *, most: int, hint: str) -> io.BufferedReader:
        """Return a stream of a file in it, as `bounded.stream` does. OSError as in `opened`."""
        descriptor = self.opened(name, bounded.TO_READ)
        return bounded.stream(descriptor, self.path / name, most=most, hint=hint)

    def read(self, name: str, *, most: int, hint: str) -> bytes:
        """Return the content of a file in it. Errors as in `stream`."""
        with self.stream(name, most=most, hint=hint) as file:
            return file.read(most)

    def replace(self, name: str, content: bytes) -> None:
        """Write a file in it, as `bounded.replace` does. A link with its name is replaced itself.

        OSError: it cannot be written.
        """
        with self._around(name) as (at, last):
            bounded.replace_in(at, last, content)

    def made(self, name: str) -> bool:
        """Make sure that it has a folder of this name; return whether that was created. OSError:
        something else has the name, such as a link.
        """
        with self._around(name) as (at, last):
            descriptor, is_new = _entered(at, last, create=True)
            os.close(descriptor)
            return is_new

    def inner(self, name: str, *, create: bool = False) -> "Folder":
        """Hold a folder in it. OSError: there is none, or it is a link."""
        with self._around(name) as (at, last):
            descriptor, is_new = _entered(at, last, create=create)
            return Folder(self.path / name, descriptor, os.dup(at), is_new=is_new)

    def status(self, name: str) -> os.stat_result | None:
        """Return what an entry of it is, and not what a link leads to; None: there is none.

        OSError: the folder that it is in cannot be looked into.
        """
        try:
            with self._around(name) as (at, last):
                return os.stat(last, dir_fd=at, follow_symlinks=False)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            error.filename = str((self.path / name).parent)
            raise

    def is_file(self, name: str) -> bool:
        """Return whether it has a regular file of this name, behind no link."""
        seen = self.status(name)
        return seen is not None and stat.S_ISREG(seen.st_mode)

    def is_link(self, name: str) -> bool:
        """Return whether an entry of it is a link."""
        seen = self.status(name)
        return seen is not None and stat.S_ISLNK(seen.st_mode)

    def names(self, name: str = ".") -> list[str]:
        """Return the names in it, or in a folder of it; none where that is no folder. OSError: it
        cannot be looked into.
        """
        try:
            with self._around(name) as (at, last):
                # Not by O_PATH: its entries are listed.
                descriptor = os.open(last, _FOLDER & ~os.O_PATH, dir_fd=at)
        except OSError as error:
            if error.errno in _NOT_LISTED:
                return []
            raise
        try:
            return sorted(os.listdir(descriptor))  # noqa: PTH208 - a descriptor has no path
        finally:
            os.close(descriptor)

    def moved(self) -> str:
        """Return in words that its path leads elsewhere now; empty: it does not."""
        with contextlib.suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self.descriptor)):
                return ""
        place = ""
        with contextlib.suppress(OSError):
            place = str(Path(f"/proc/self/fd/{self.descriptor}").readlink())
        shown = f": it is {cleaned(place, longest=_LONGEST_PLACE)} now" if place else ""
        return f"{self.path} was moved or replaced meanwhile{shown}"

    @contextlib.contextmanager
    def _around(self, name: str) -> Iterator[tuple[int, str]]:
        """Yield the folder that a file is in, and the file's name in it; name it in errors."""
        *inner, last = name.split("/")
        at, opened = self.descriptor, list[int]()
        try:
            for part in inner:
                at = os.open(part, _FOLDER, dir_fd=at)
                opened.append(at)
            yield at, last
        except OSError as error:
            bounded.name_in(error, self.path / name)
            raise
        finally:
            for each in opened:
                os.close(each)


def opened(path: Path) -> Folder:
    """Hold a folder to read it. OSError: there is none."""
    return Folder(path, os.open(path, _FOLDER & ~os.O_NOFOLLOW))


def writable(path: Path, *, create: bool = False) -> Folder:
    """Hold a folder to write into it; it is created where it does not exist and `create` is set.

    OSError: there is none; or another user's link has its name, or is on its way in a folder where
    everybody may create one, as for `bounded.check_links`.
    """
    try:
        return _walked(path, create=create)
    except OSError as error:
        bounded.name_in(error, path)
        raise


def _walked(path: Path, *, create: bool) -> Folder:
    # Every part of the path is opened by itself, so that what is looked at is what is used.
    at = os.open(path.anchor or ".", _FOLDER)
    parent = os.dup(at)
    remaining = [part for part in reversed(path.parts) if part != path.anchor]
    links, is_new, name = 0, False, ""
    try:
        while remaining:
            part = remaining.pop()
            try:
                inner, is_new = _entered(at, part, create=create)
            except NotADirectoryError:
                target = _target(at, part, is_last=not remaining)
                links += 1
                if links > _MOST_LINKS:
                    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
                if target.is_absolute():
                    root = os.open("/", _FOLDER)
                    os.close(at)
                    at = root
                remaining += [one for one in reversed(target.parts) if one != "/"]
                continue
            os.close(parent)
            parent, at, name = at, inner, part
        found = Folder(path, at, parent, is_new=is_new)
    except BaseException:
        os.close(at)
        os.close(parent)
        raise
    found.name = name
    return found


def _target(at: int, name: str, *, is_last: bool) -> Path:
    """Return where a link leads. OSError: it is none, or must not be followed."""
    link = os.open(name, _ENTRY, dir_fd=at)
    try:
        seen = os.fstat(link)
        if not stat.S_ISLNK(seen.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if not bounded.is_own(seen) and (is_last or bounded.is_shared(os.fstat(at))):
            raise OSError(errno.ELOOP, bounded.link_text("" if is_last else name, seen))
        return Path(os.readlink("", dir_fd=link))
    finally:
        os.close(link)


def _entered(at: int, name: str, *, create: bool) -> tuple[int, bool]:
    """Open a folder, which is created where there is none; return also whether it was created.
    OSError: ENOTDIR where something else has the name, such as a link.
    """
    try:
        return os.open(name, _FOLDER, dir_fd=at), False
    except FileNotFoundError:
        if not create:
            raise
    is_new = False
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=at)
        is_new = True
    return os.open(name, _FOLDER, dir_fd=at), is_new


def _close(descriptors: set[int]) -> None:
    for each in descriptors:
        os.close(each)
