"""Keeps what was read from a large records.jsonl: decoding ten million lines takes half a minute.

The cache is the user's own (`config.cache`). What is kept belongs to one content of the file, by
its SHA-256, to one version of isobench, and to the names that the run's other files allow: where
any of them differs, all lines are read and checked. Only records without damage are kept.
"""

import contextlib
import hashlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import __version__
from isobench.config import cache
from isobench.model import Gap, Leaving
from isobench.model.errors import UsageError
from isobench.storage import records
from isobench.storage.lock import RECORDS
from isobench.storage.losses import Collector

LARGE: Final = 64 << 20
"""Bytes. A smaller file is decoded in less than a second."""
MOST: Final = 2 << 30
"""Bytes of all that is kept. What was not used for the longest time makes room."""
_FOLDER: Final = "records"


class _Column(msgspec.Struct):
    """A column, whose numbers follow the header. `texts`: what its numbers stand for."""

    name: str
    kind: str
    texts: list[str] | None


class _Header(msgspec.Struct):
    rows: int
    columns: list[_Column]
    gaps: tuple[Gap, ...]
    leavings: tuple[Leaving, ...]


def read(stream: BinaryIO, known: records.Known) -> records.Records:
    """Return the usable records of a stream, which are kept if they are many. Errors as in
    `records.read`.
    """
    if not isinstance(stream, io.BufferedReader) or os.fstat(stream.fileno()).st_size < LARGE:
        return records.read(stream, known)
    before = _state(stream)
    place = _place(hashlib.file_digest(stream, "sha256").digest(), known)
    if place is not None and (found := _found(place)) is not None:
        return found
    stream.seek(0)
    # Whoever owns the file may have changed it since it was hashed: what is kept has the digest of
    # the very bytes that were decoded.
    hashed = _Hashed(stream)
    result = records.read(cast(BinaryIO, hashed), known)
    place = _place(hashed.digest.digest(), known)
    # Of a run that is being measured, other records are read next time.
    if place is not None and not result.damage.reasons and _state(stream) == before:
        with contextlib.suppress(OSError):
            cache.keep(place, _packed(result))
            _make_room(place)
    return result


class _Hashed:
    """A stream that hashes what is read of it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self.digest = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._stream.read(size)
        self.digest.update(data)
        return data


def _state(stream: BinaryIO) -> tuple[int, int, int]:
    found = os.fstat(stream.fileno())
    # Its owner can set the time of the last change of its content, and not that of its inode.
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _place(content: bytes, known: records.Known) -> Path | None:
    """Return where the records of a file with this digest are kept; None: there is no cache."""
    allowed = [sorted(known.targets), sorted(known.workloads), sorted(known.blocks or ())]
    rest: list[Any] = [known.blocks is None, known.has_rounds, known.has_sessions, known.reference]
    rest += [sorted(known.iterations.items()), sorted(known.starts), __version__]
    rules = msgspec.json.encode([*allowed, *rest])
    name = hashlib.sha256(content + rules).hexdigest()[:32]
    try:
        return cache.made(_FOLDER) / name
    except (OSError, UsageError):
        return None


def _found(place: Path) -> records.Records | None:
    data = cache.verified(place)
    if data is None:
        return None
    with contextlib.suppress(OSError):
        os.utime(place)
    return _unpacked(data)


def _make_room(newest: Path) -> None:
    """Remove what was not used for the longest time, but for the newest."""
    others = [one for one in cache.kept_in(newest.parent) if one != newest]
    left = MOST - newest.stat().st_size
    for path in sorted(others, key=lambda one: one.stat().st_mtime, reverse=True):
        left -= path.stat().st_size
        if left < 0:
            cache.forget(path)


# ---- the format ----------------------------------------------------------------------------------


def _packed(found: records.Records) -> bytes:
    """Return records as bytes: a header in one line, then the columns one after the other."""
    columns, arrays = [], []
    for name, values in found.samples.items():
        is_text = isinstance(values.dtype, pd.CategoricalDtype)
        numbers = _narrow((values.cat.codes if is_text else values).to_numpy())
        texts = [*values.cat.categories] if is_text else None
        columns.append(_Column(str(name), numbers.dtype.str, texts))
        arrays.append(numbers)
    header = _Header(len(found.samples), columns, found.gaps, found.leavings)
    return b"".join((msgspec.json.encode(header), b"\n", *(one.tobytes() for one in arrays)))


def _narrow(numbers: NDArray[Any]) -> NDArray[Any]:
    """Return whole numbers in as few bytes as they need."""
    if numbers.dtype.kind == "f" or not numbers.size or numbers.min() < 0:
        return numbers
    return numbers.astype(np.min_scalar_type(int(numbers.max())))


def _unpacked(data: bytes) -> records.Records:
    begin = data.index(b"\n") + 1
    header = msgspec.json.decode(data[:begin], type=_Header)
    return records.Records(
        samples=pd.DataFrame(dict(_columns(header, data, begin))),
        gaps=header.gaps,
        leavings=header.leavings,
        damage=Collector(RECORDS),
    )


def _columns(header: _Header, data: bytes, at: int) -> Iterator[tuple[str, Any]]:
    for column in header.columns:
        kind = np.dtype(column.kind)
        numbers = np.frombuffer(data, kind, header.rows, at)
        at += numbers.nbytes
        if column.texts is not None:
            texts = pd.Index(column.texts, dtype=object)
            yield column.name, pd.Categorical.from_codes(numbers.astype(np.int64), categories=texts)
        else:
            yield column.name, numbers.astype(np.float64 if kind.kind == "f" else np.int64)
