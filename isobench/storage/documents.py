"""Reads and writes the JSON documents of a run.

A document is written completely or not at all, and checked where it is read.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import msgspec

from isobench.config import bounded, redaction
from isobench.model import commands
from isobench.model.cleaning import all_cleaned, cleaned
from isobench.model.errors import UsageError
from isobench.storage import identifiers
from isobench.storage.schema import FORMAT, RunMetadata, Summary

METADATA: Final = "run.json"
PLAN: Final = "plan.json"
SUMMARY: Final = "summary.json"
MOST_SUMMARY: Final = 64 << 20
"""Bytes of summary.json."""
DAMAGED: Final = "the file is damaged; restore it or measure again"
_T = TypeVar("_T")
_MOST: Final = 1 << 63
_MOST_VALUES: Final = 2_000_000
"""Values of a document. A summary of ten thousand cells has half a million."""
_MOST_LEVELS: Final = 100
"""Levels of tables and lists. A configuration has 50 at most, and stands in three more."""
_LONGEST_VERSION: Final = 40
"""Characters of a format version in a message."""


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 text file, completely or not at all. The umask decides who may read it."""
    bounded.replace(path, text.encode())


def written(value: object) -> str:
    """Return the JSON text of a document without secrets, as it is written."""
    if isinstance(value, RunMetadata):
        identifiers.keep(value)
    return encoded(redaction.plain(value))


def encoded(value: object) -> str:
    """Return the JSON text of a document."""
    try:
        whole = msgspec.json.encode(value)
    except UnicodeEncodeError:  # a name on the command line that is no UTF-8
        whole = msgspec.json.encode(_encodable(msgspec.to_builtins(value)))
    return msgspec.json.format(whole, indent=1).decode()


def _encodable(value: Any) -> Any:  # noqa: ANN401 - plain data
    """Return plain data whose texts are UTF-8: other bytes of names are written as escapes."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    if isinstance(value, dict):
        return {_encodable(key): _encodable(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(each) for each in value]
    return value


def decoded(data: bytes, kind: type[_T], name: str, *, raw: frozenset[str] = frozenset()) -> _T:
    """Return a JSON document from outside as `kind`. Its texts are cleaned, except under the
    top-level keys in `raw`.

    `name` is the file's name for messages. ValueError: it is not JSON, or does not have this shape;
    the message names the file and the place in it.
    """
    return converted(parsed(data, name), kind, name, raw=raw)


def parsed(data: bytes, name: str) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the plain data of a JSON document. ValueError: it is not JSON, or has more values than
    a document of isobench; names the file.
    """
    # All values but the first of each list and table follow a comma. An empty list takes thirty
    # times as much memory as its three characters.
    if data.count(b",") > _MOST_VALUES:
        message = f"{name}: has more than {_MOST_VALUES:,} values"
        raise ValueError(message)
    try:
        return msgspec.json.decode(data)
    # A stranger's file may be nested too deeply for the decoder, or hold too large a number.
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def typed(data: bytes, kind: type[_T], name: str) -> _T:
    """Return a JSON document as `kind`, with its texts as they are. ValueError as in `decoded`."""
    try:
        return msgspec.json.decode(data, type=kind)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def converted(value: object, kind: type[_T], name: str, *, raw: frozenset[str] = frozenset()) -> _T:
    """Return plain data from outside as `kind`; see `decoded`."""
    try:
        _check_values(value)
        return msgspec.convert(all_cleaned(value, raw=raw), kind)
    except (ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"{name}: {error}") from None


def _check_values(document: object) -> None:
    """Check that all integers are of 64 bits, in values of any type too, and that nothing is nested
    so deeply that others could not follow. ValueError: not so.
    """
    # Only the way to one value is in memory: a list may have a million others.
    way: list[tuple[str | int, Iterator[tuple[str | int, Any]]]] = [("$", iter((("", document),)))]
    while way:
        for key, value in way[-1][1]:
            if isinstance(value, dict | list):
                if len(way) > _MOST_LEVELS:
                    _refuse(f"Nested in more than {_MOST_LEVELS} levels", way)
                inner = value.items() if isinstance(value, dict) else enumerate(value)
                way.append((key, iter(inner)))
                break
            if isinstance(value, int) and not -_MOST <= value < _MOST:
                _refuse("Number out of range", [*way, (key, iter(()))])
        else:
            way.pop()


def _refuse(what: str, way: Sequence[tuple[str | int, object]]) -> NoReturn:
    keys = (key for key, _ in way if key != "")
    place = "".join(f"[{key}]" if isinstance(key, int) else f".{key[:100]}" for key in keys)
    message = f"{what} - at `{cleaned(place[1:], longest=200)}`"
    raise ValueError(message)


def check_format(value: object, place: object) -> None:
    """Check the format version of a document; `place` names it in messages.

    UsageError: this version of isobench does not read that format. ValueError: the document has no
    format version.
    """
    # This comes before all other checks: a document of a later format may differ in every field,
    # and its version is then the only useful message.
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None:
        message = "Object missing required field `schema_version`"
        raise ValueError(message)
    if version != FORMAT:
        shown = version if isinstance(version, int) else f"{str(version)[:_LONGEST_VERSION]!r}"
        raise UsageError(
            f"{place}: format {shown}, this isobench reads {FORMAT}",
            hint="use the version of isobench that wrote it",
        )


def summary_of(value: object) -> Summary:
    """Return the summary in plain data from outside.

    UsageError: it has another format. ValueError: it does not have this shape; names the place.
    """
    check_format(value, SUMMARY)
    return converted(value, Summary, SUMMARY)


def read_summary(folder: Path) -> Summary:
    """Return the summary in the folder of a run.

    UsageError: there is none, it has another format, or it is damaged; names the place.
    """
    path, again = folder / SUMMARY, _again(folder)
    try:
        data = bounded.read(path, most=MOST_SUMMARY, hint=again)
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}", hint=again) from None
    return summary_in(data, folder)


def summary_in(data: bytes, folder: Path) -> Summary:
    """Return the summary that a file in the folder of a run holds. UsageError as in
    `read_summary`.
    """
    try:
        return summary_of(parsed(data, SUMMARY))
    except ValueError as error:
        raise UsageError(f"{folder}: {error}", hint=_again(folder)) from None


def _again(folder: Path) -> str:
    return f"isobench report {commands.path(folder)}"
