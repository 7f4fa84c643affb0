"""Makes a bundle: a zip of a run with everything that belongs to it, the same bytes each time."""

import os
import secrets
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from isobench.config import bounded, held, redaction
from isobench.model import commands
from isobench.model.errors import UsageError
from isobench.storage import files, lines
from isobench.storage.documents import METADATA, MOST_SUMMARY, PLAN, SUMMARY
from isobench.storage.files import MOST_DOCUMENT, MOST_MEMBERS, MOST_RECORDS
from isobench.storage.reader import CONFIRMATION

_FILES: Final = (
    METADATA, PLAN, "records.jsonl", "summary.json", "summary.md", "report.html",
    "history.json",
)  # fmt: skip
_FOLDERS: Final = ("state", "logs")
_PAGES: Final = frozenset({"summary.md", "report.html"})
# The oldest date of a zip: when a file was written is no part of a run.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_LEVEL: Final = 9
_SAMPLE: Final = b'{"kind":"sample"'
_PIECE: Final = 4 << 20
_KEY: Final = b"-----BEGIN "
_END_OF_KEY: Final = b"-----END "
_LONGEST_KEY: Final = 1 << 16


def write(
    run: held.Folder,
    target: Path,
    name: str,
    reports: Callable[[bytes, Path], Mapping[str, str]] = lambda *_: {},
) -> list[str]:
    """Write the bundle of the run in the folder `run`; return the names of its files.

    In the zip they lie in a folder `name`. Texts are without secrets, and also without names where
    `--redact` asks for it. `reports` takes the summary in a folder and returns the files that must
    be rendered again for that, by name: nothing can be taken out of a page. Files that are none of
    a run's are left out. UsageError: it cannot be read or written.
    """
    found = sorted(_listed(run))
    if len(found) > MOST_MEMBERS:
        raise UsageError(f"{run.path} has {len(found)} files, more than a run", hint="pack one run")
    folders = dict.fromkeys(Path(one).parent for one in found if Path(one).name in _PAGES)
    again = {
        str(folder / one): text
        for folder in folders
        for one, text in reports(_summary(run, folder), run.path / folder).items()
    }
    try:
        place = bounded.replaceable(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    made = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(made, "x", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            for member in found:
                _add(archive, f"{name}/{member}", run, member, again.get(member))
        made.replace(place)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        made.unlink(missing_ok=True)
    return found


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(f"{target}: {error.strerror or error}", hint="name a writable file with -o")


def _listed(run: held.Folder) -> list[str]:
    """Return the files of a run. UsageError: a folder cannot be looked into."""
    try:
        return [*_members(run)]
    except OSError as error:
        folder = Path(error.filename or run.path)
        raise bounded.unreadable(folder, error, "its files would be") from None


def _members(run: held.Folder, inside: str = "") -> Iterator[str]:
    """Yield the files of a run, and of the runs that confirm it."""
    for name in _FILES:
        if run.is_file(inside + name):
            yield inside + name
    for folder in _FOLDERS:
        for name in run.names(inside + folder):
            # A link could lead out of the folder: what it names is no file of the run. Nor is one
            # whose name a zip, which has Unicode, or a terminal cannot show.
            if name.isprintable() and run.is_file(f"{inside}{folder}/{name}"):
                yield f"{inside}{folder}/{name}"
    if not inside:
        for name in run.names():
            if name.startswith(CONFIRMATION) and name.isprintable():
                yield from _members(run, f"{name}/")


def _opened(run: held.Folder, name: str, *, most: int) -> BinaryIO:
    """Open a file of a run. UsageError: it cannot be read, or is a link, whatever it was before."""
    hint = f"isobench report {commands.path(run.path)} shows what is wrong"
    try:
        return files.opened(run, name, most=most, hint=hint)
    except OSError as error:
        raise UsageError(f"{run.path / name}: {error.strerror}", hint=hint) from None


def _summary(run: held.Folder, folder: Path) -> bytes:
    with _opened(run, str(folder / SUMMARY), most=MOST_SUMMARY) as file:
        return file.read(MOST_SUMMARY)


def _add(
    archive: zipfile.ZipFile, name: str, run: held.Folder, member: str, text: str | None
) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = _MODE
    entry.compress_type = zipfile.ZIP_DEFLATED
    if text is not None:
        archive.writestr(entry, text)
        return
    path = Path(member)
    with (
        _opened(run, member, most=MOST_RECORDS) as source,
        archive.open(entry, "w", force_zip64=True) as packed,
    ):
        size = os.fstat(source.fileno()).st_size
        if path.suffix == ".jsonl":
            pieces = _lines(source)
        elif path.suffix == ".json" and size <= MOST_DOCUMENT:
            pieces = iter((_document(source.read(MOST_DOCUMENT)),))
        elif path.name in _PAGES or path.name == PLAN:
            # Pages have no secrets, or were rendered again; a plan is numbers and names of the run.
            pieces = iter(partial(source.read, _PIECE), b"")
        else:
            pieces = map(redaction.of_bytes, _pieces(source))
        for piece in pieces:
            packed.write(piece)


def _lines(source: BinaryIO) -> Iterator[bytes]:
    """Yield the complete lines of a file without what is to be left out."""
    for batch in lines.batches(source):
        for _, line in batch.numbered():
            # Samples are numbers and names of the run, and there may be millions.
            if line.startswith(_SAMPLE):
                yield line + b"\n"
            elif line.startswith(lines.TOO_LONG):
                yield lines.TOO_LONG + b"\n"
            else:
                yield _document(line) + b"\n"


def _document(content: bytes) -> bytes:
    """Return JSON without what is to be left out. It stays JSON."""
    try:
        plain = msgspec.json.decode(content)
        clean = redaction.plain(plain)
        compact = msgspec.json.encode(clean)
        # Of a key that occurs twice, `plain` has one value alone.
        if clean == plain and compact == msgspec.json.format(content, indent=-1):
            return content
        return msgspec.json.format(compact, indent=2 if b"\n" in content else -1)
    # No JSON, nested too deeply, or with a number that is no number of JSON.
    except (ValueError, RecursionError, OverflowError):
        return redaction.of_bytes(content)


def _pieces(source: BinaryIO) -> Iterator[bytes]:
    """Yield a text in pieces, each of a few MiB. Where possible none ends within a secret."""
    piece = source.read(_PIECE)
    while more := source.read(_PIECE):
        end = piece.rfind(b"\n") + 1 or len(piece)
        # Only a private key has several lines.
        begin = piece.rfind(_KEY, max(0, end - _LONGEST_KEY), end)
        if begin > 0 and _END_OF_KEY not in piece[begin:end]:
            end = begin
        yield piece[:end]
        piece = piece[end:] + more
    yield piece
