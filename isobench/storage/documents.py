"""The JSON documents of a run: written whole or not at all, and checked where they are read."""

import tempfile
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from isobench.model.errors import UsageError
from isobench.storage.cleaning import all_cleaned
from isobench.storage.schema import FORMAT, Summary

SUMMARY: Final = "summary.json"
DAMAGED: Final = "the file is damaged; restore it or measure again"
_T = TypeVar("_T")


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def write_document(path: Path, value: object) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, encoded(value))


def encoded(value: object) -> str:
    """Return the JSON text of a document."""
    return msgspec.json.format(msgspec.json.encode(value), indent=1).decode()


def decoded(data: bytes, kind: type[_T], name: str, *, raw: frozenset[str] = frozenset()) -> _T:
    """Return a document from outside as `kind`, its texts cleaned but for those under `raw`.

    ValueError: it is no JSON, or of another shape; says in which file, and where in it.
    """
    return converted(parsed(data, name), kind, name, raw=raw)


def parsed(data: bytes, name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return plain data. ValueError: it is no JSON; says in which file."""
    try:
        return msgspec.json.decode(data)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def converted(value: object, kind: type[_T], name: str, *, raw: frozenset[str] = frozenset()) -> _T:
    """Return plain data from outside as `kind`; see `decoded`."""
    try:
        return msgspec.convert(all_cleaned(value, but=raw), kind)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def demand_format(value: object, place: object) -> None:
    """UsageError: a document is of a format that this version does not read.

    ValueError: it does not say of which.
    """
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None:
        message = "Object missing required field `schema_version`"
        raise ValueError(message)
    if version != FORMAT:
        raise UsageError(
            f"{place}: format {version}, this isobench reads {FORMAT}",
            hint="use the isobench that wrote it",
        )


def summary_of(value: object) -> Summary:
    """Return the answers that plain data from outside holds.

    UsageError: another format. ValueError: another shape; says where.
    """
    demand_format(value, SUMMARY)
    return converted(value, Summary, SUMMARY)


def read_summary(folder: Path) -> Summary:
    """Return the answers in the folder of a run.

    UsageError: there are none, of another format, or damaged; says where.
    """
    path = folder / SUMMARY
    try:
        return summary_of(parsed(path.read_bytes(), SUMMARY))
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=f"isobench report {folder}") from None
    except ValueError as error:
        raise UsageError(f"{folder}: {error}", hint=f"isobench report {folder}") from None
