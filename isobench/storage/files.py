"""The files of a run, in a folder or in a zip of one. What is read is bounded in every way.

A stranger's folder may have a device or a pipe in place of a file. A stranger's zip may expand to
thousands of times its size.
"""

import contextlib
import errno
import io
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from isobench.config import bounded, held
from isobench.model.errors import UsageError
from isobench.storage.documents import DAMAGED, METADATA

MOST_RECORDS: Final = 4 << 30
"""Bytes of records.jsonl. Ten million records have two GiB."""
MOST_PLAN: Final = 64 << 20
"""Bytes of plan.json. A thousand blocks of twenty targets and thirty workloads have fewer."""
MOST_DOCUMENT: Final = 16 << 20
"""Bytes of run.json, of the state of a target, and of state/blocks.jsonl."""
MOST_STATES: Final = 64 << 20
"""Bytes of the states of all targets."""
MOST_MEMBERS: Final = 10_000
"""Members of a zip."""
MOST_RATIO: Final = 100
"""How many times its size in the zip a member may have. Records and plans have up to 25 times."""
# A small file may be smaller yet in a zip: an empty list of a MiB harms nobody.
_RATIO_FROM: Final = 1 << 20
# Bytes of the table at the end of a zip, which zipfile reads as a whole.
_MOST_TABLE: Final = 4 << 20
_ENCRYPTED: Final = 1  # bit 0 of the flags of a member: APPNOTE.TXT of PKWARE, 4.4.4
# LZMA and bzip2 may take far more memory than a member has bytes, and no tool uses them by itself.
_METHODS: Final = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NOWHERE: Final = (errno.ENOENT, errno.ELOOP)
_COPIED: Final = "put the file itself in its place, if you trust it"
_UNPACK: Final = "unpack it, and name the folder"
# zipfile raises these for files that are cut off (BadZipFile, EOFError, zlib.error, struct.error),
# or of an unknown kind (NotImplementedError, RuntimeError, ValueError), or whose offsets are no
# offsets (OverflowError).
UNREADABLE: Final = (
    OSError,
    OverflowError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    struct.error,
)


class _Bounded(io.FileIO):
    """The file of a zip. No single read is larger than the table of a zip may be."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to `size` bytes; -1: all that is left. UsageError: that is too much."""
        is_all = size is None or size < 0
        found = super().read(_MOST_TABLE + 1 if is_all else min(size or 0, _MOST_TABLE + 1)) or b""
        if len(found) > _MOST_TABLE:
            raise UsageError(
                f"{self.name}: has more members than a run", hint="zip the folder of one run"
            )
        return found


class _Folder:
    """The files of a run in a folder."""

    def __init__(self, path: Path, part: str, folder: held.Folder | None) -> None:
        self.path = path / part
        self._is_own = bool(part) or folder is None
        try:
            self._held = held.opened(self.path) if folder is None else folder
            if folder is not None and part:
                self._held = folder.inner(part)
        except OSError as error:
            if error.errno == errno.ENOTDIR:
                raise self._no_run(f"it holds no {METADATA}") from None
            if error.errno not in _NOWHERE:
                raise
            missing = f"there is no such folder or zip, with {METADATA} in it"
            raise self._no_run(missing) from None
        if self._held.status(METADATA) is None:
            self.close()
            raise self._no_run(f"it holds no {METADATA}")

    def _no_run(self, why: str) -> UsageError:
        return UsageError(
            f"{self.path} is not a run: {why}",
            hint="name the folder that `isobench run` printed, or isobench-results/latest",
        )

    @contextlib.contextmanager
    def open(self, name: str, most: int) -> Iterator[BinaryIO]:
        try:
            stream = opened(self._held, name, most=most, hint=DAMAGED)
        except FileNotFoundError:
            yield io.BytesIO()
            return
        with stream as file:
            yield file

    def parts(self, beginning: str) -> list[str]:
        try:
            # A link leads to a run that is no part of this one.
            return [
                one
                for one in self._held.names()
                if one.startswith(beginning) and self._held.is_file(f"{one}/{METADATA}")
            ]
        except OSError as error:
            raise bounded.unreadable(Path(error.filename), error, "its runs would be") from None

    def close(self) -> None:
        if self._is_own:
            self._held.close()


def opened(folder: held.Folder, name: str, *, most: int, hint: str) -> BinaryIO:
    """Open a file of the run in a folder to read it, as `bounded.stream` does.

    UsageError: it is a link, or behind one. What that leads to is no file of the run: a report
    would show it as one.
    """
    try:
        return folder.stream(name, most=most, hint=hint)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENOTDIR):
            raise
        parts = (*reversed(Path(name).parents[:-1]), Path(name))
        link = next((str(one) for one in parts if folder.is_link(str(one))), name)
        what = f"{folder.path / link} is a link, and a run has none"
        raise UsageError(what, hint=_COPIED) from None


class _Zip:
    """The files of a run in a zip."""

    def __init__(self, path: Path, part: str) -> None:
        self.path = path
        with contextlib.ExitStack() as stack:
            self._zip = zipfile.ZipFile(stack.enter_context(_Bounded(path)))
            self._inside = self._outermost() + (f"{part}/" if part else "")
            self._closing = stack.pop_all()

    def _outermost(self) -> str:
        """Return the folder of the run within the zip, with a slash at its end, or nothing.

        UsageError: there is no run.
        """
        members = self._zip.infolist()
        if len(members) > MOST_MEMBERS:
            raise UsageError(
                f"{self.path}: has {len(members)} members, more than a run",
                hint="zip one run alone",
            )
        found = [one.filename for one in members if one.filename.rpartition("/")[2] == METADATA]
        if not found:
            raise UsageError(
                f"{self.path} holds no {METADATA}", hint="zip the whole folder of a run"
            )
        # A zip may hold the files themselves or the folder with them, and that further runs.
        outermost = min(found, key=lambda name: name.count("/")).removesuffix(METADATA)
        if not all(name.startswith(outermost) for name in found):
            raise UsageError(f"{self.path} holds several runs", hint="zip one run alone")
        return outermost

    @contextlib.contextmanager
    def open(self, name: str, most: int) -> Iterator[BinaryIO]:
        whole = self._inside + name
        members = [one for one in self._zip.infolist() if one.filename == whole]
        if not members:
            yield io.BytesIO()
            return
        self._check(members, name, most)
        # zipfile never gives more bytes than the table says, so that the check bounds them.
        try:
            with self._zip.open(members[0]) as member:
                yield member  # type: ignore[misc]  # it has all that is used of a BinaryIO
        except (zipfile.BadZipFile, zlib.error, EOFError, OverflowError, struct.error) as error:
            # The errors of zlib and zipfile do not name the member.
            raise ValueError(f"{name}: {error}") from None

    def _check(self, members: list[zipfile.ZipInfo], name: str, most: int) -> None:
        first = members[0]
        place = f"{self.path}: {name}"
        if len(members) > 1:
            raise UsageError(f"{place} occurs {len(members)} times in the zip", hint=DAMAGED)
        if first.flag_bits & _ENCRYPTED:
            raise UsageError(f"{place} is encrypted", hint=_UNPACK)
        if first.compress_type not in _METHODS:
            raise UsageError(f"{place} is compressed by an unusual method", hint=_UNPACK)
        if first.file_size > most:
            size = bounded.size_text(most)
            raise UsageError(f"{place}: longer than {size}, the most that is read", hint=DAMAGED)
        if first.file_size > max(_RATIO_FROM, MOST_RATIO * first.compress_size):
            raise UsageError(
                f"{place} expands to more than {MOST_RATIO} times its size in the zip, which no"
                " file of a run does",
                hint=_UNPACK,
            )

    def parts(self, beginning: str) -> list[str]:
        names = (one.filename.removeprefix(self._inside) for one in self._zip.infolist())
        found = (name.split("/") for name in names if name.endswith(f"/{METADATA}"))
        folders = (words[0] for words in found if len(words) == 2)  # noqa: PLR2004 - folder, file
        return [name for name in folders if name.startswith(beginning)]

    def close(self) -> None:
        self._zip.close()
        self._closing.close()


class Files:
    """The files of a run; a context manager."""

    def __init__(self, path: Path, part: str = "", folder: held.Folder | None = None) -> None:
        """Find the files of a run, or of the run in its folder `part`. `folder`: the folder at
        `path`, where it is held already.

        UsageError: there is no run, or the zip has more than a run.
        """
        if folder is None and path.exists() and not path.is_dir() and not path.is_file():
            raise UsageError(
                f"{path} is a pipe or a device, and a zip is read from its end",
                hint="save the zip in a file first, and name that",
            )
        is_zip = folder is None and path.is_file() and zipfile.is_zipfile(path)
        self._files = _Zip(path, part) if is_zip else _Folder(path, part, folder)

    def parts(self, beginning: str) -> list[str]:
        """Return the folders of the run that hold runs themselves, by how their names begin.

        UsageError: one cannot be read.
        """
        # A name is shown in messages: one that is not plain is no folder of isobench's.
        return sorted(filter(str.isprintable, self._files.parts(beginning)))

    @contextlib.contextmanager
    def open(self, name: str, *, most: int) -> Iterator[BinaryIO]:
        """Open a file of at most `most` bytes. A file that the run does not have is empty: the run
        ended before it had this file.

        UsageError: it is longer, or cannot be read. ValueError: it is damaged in the zip.
        """
        with self._files.open(name, most) as file:
            yield file

    def read(self, name: str, *, most: int) -> bytes:
        """Return the content of a file. Errors as in `open`."""
        with self.open(name, most=most) as file:
            return file.read(most)

    def __enter__(self) -> Self:
        """Return the files."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the zip."""
        self._files.close()
