"""Makes a bundle: a zip of a run with everything that belongs to it, the same bytes each time."""

import os
import secrets
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from isobench.config import bounded, redaction
from isobench.model.errors import UsageError
from isobench.storage.documents import METADATA
from isobench.storage.files import MOST_MEMBERS, MOST_RECORDS
from isobench.storage.reader import CONFIRMATION

_FILES: Final = (
    METADATA, "plan.json", "records.jsonl", "summary.json", "summary.md", "report.html",
    "history.json",
)  # fmt: skip
_FOLDERS: Final = ("state", "logs")
# The oldest date of a zip: when a file was written is no part of a run.
_DATE: Final = (1980, 1, 1, 0, 0, 0)
_MODE: Final = 0o100644 << 16
_LEVEL: Final = 9
_SAMPLE: Final = b'{"kind":"sample"'


def write(run: Path, target: Path, name: str) -> list[str]:
    """Write the bundle of the run in the folder `run`; return the names of its files.

    In the zip they lie in a folder `name`. Texts are without secrets, and also without names where
    `--redact` asks for it. Files that are none of a run's are left out. UsageError: it cannot be
    read or written.
    """
    found = dict(_members(run))
    if len(found) > MOST_MEMBERS:
        raise UsageError(f"{run} has {len(found)} files, more than a run", hint="pack one run")
    try:
        bounded.check_replaceable(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    made = target.with_name(f".{target.name}-{secrets.token_hex(4)}")
    try:
        with zipfile.ZipFile(made, "x", zipfile.ZIP_DEFLATED, compresslevel=_LEVEL) as archive:
            for member, path in sorted(found.items()):
                _add(archive, f"{name}/{member}", path)
        made.replace(target)
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        made.unlink(missing_ok=True)
    return sorted(found)


def _unwritable(target: Path, error: OSError) -> UsageError:
    return UsageError(f"{target}: {error.strerror or error}", hint="name a writable file with -o")


def _members(run: Path) -> Iterator[tuple[str, Path]]:
    """Yield the files of a run, and of the runs that confirm it."""
    for name in _FILES:
        yield from _regular(run / name, name)
    for folder in _FOLDERS:
        if _is_folder(run / folder):
            for path in sorted((run / folder).iterdir()):
                yield from _regular(path, f"{folder}/{path.name}")
    for further in sorted(run.glob(f"{CONFIRMATION}*")):
        if _is_folder(further):
            for name, path in _members(further):
                yield f"{further.name}/{name}", path


def _is_folder(path: Path) -> bool:
    # As below: neither a file nor a folder of a run is a link.
    return path.is_dir() and not path.is_symlink()


def _regular(path: Path, name: str) -> Iterator[tuple[str, Path]]:
    # A link could lead out of the folder: what it names is no file of the run.
    if path.is_file() and not path.is_symlink():
        yield name, path


def _add(archive: zipfile.ZipFile, name: str, path: Path) -> None:
    entry = zipfile.ZipInfo(name, _DATE)
    entry.external_attr = _MODE
    entry.compress_type = zipfile.ZIP_DEFLATED
    descriptor = bounded.opened(path, most=MOST_RECORDS, hint="isobench report shows what is wrong")
    with (
        os.fdopen(descriptor, "rb") as source,
        archive.open(entry, "w", force_zip64=True) as member,
    ):
        if path.suffix == ".jsonl":
            for line in source:
                # Samples are numbers and names of the run, and there may be millions.
                member.write(line if line.startswith(_SAMPLE) else redaction.of_bytes(line))
        else:
            member.write(_redacted(source.read(), is_json=path.suffix == ".json"))


def _redacted(content: bytes, *, is_json: bool) -> bytes:
    """Return a file without what is to be left out. JSON stays JSON."""
    if is_json:
        try:
            plain = msgspec.json.decode(content)
        except msgspec.DecodeError:
            pass
        else:
            clean = redaction.plain(plain)
            return content if clean == plain else msgspec.json.format(msgspec.json.encode(clean))
    return redaction.of_bytes(content)
