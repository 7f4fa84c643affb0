"""The one door to DuckDB, which is an extra: connections without network and settings.

A call of DuckDB returns to Python, and to the handlers of signals, only when it has ended. So each
is made in a thread of its own, and an interruption of the thread that waits ends it.
"""

import contextlib
import errno
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from isobench.model.errors import UsageError
from isobench.plugins import deadlines
from isobench.plugins.signals import uninterrupted

if TYPE_CHECKING:
    import duckdb

INSTALL: Final = "python3 -m pip install 'isobench[history]'"
PARQUET: Final = "FORMAT parquet, COMPRESSION zstd"
_NUMBER: Final = re.compile(r'"errno": ?"?([1-9][0-9]{0,3})\b')
"""The number of the system's error, in those messages of DuckDB that have it."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_LIMIT: Final = 1800.0
"""Seconds that one query may take. The largest store that is read takes minutes."""
_ENDING: Final = 10.0
"""Seconds that a query may take to end. DuckDB looks for it after each 2,048 rows."""
_MEMORY: Final = "4GB"
"""What DuckDB may take: a small file may hold texts of any length. The most rows that are read take
less.
"""
_PART: Final = 65_536
"""Rows that are fetched at a time: while DuckDB makes objects of them, no handler runs."""
_TRUSTING: Final = frozenset((
    "statistics_propagation", "filter_pushdown", "row_group_pruner", "join_filter_pushdown",
    "partial_aggregate_pushdown", "compressed_materialization",
))  # fmt: skip
"""A file may come from anybody, and its statistics may be false: a check of its values, or an
answer, must not rest on them.
"""
_Found = TypeVar("_Found")


def library() -> Any:  # noqa: ANN401 - a module
    """Return the module. UsageError: it is not installed."""
    try:
        # Interrupted in the middle, an import of a library in C says that it is not installed.
        with uninterrupted():
            import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError("this needs DuckDB, which is not installed", hint=INSTALL) from None
    return duckdb


def errors() -> tuple[type[Exception], ...]:
    """Return what a query of a damaged file raises.

    A message of DuckDB quotes the file, which may be no UTF-8: then making the error fails.
    """
    return library().Error, UnicodeDecodeError


def is_out_of_memory(error: Exception | None) -> bool:
    """Return whether a query needed more memory than it may have."""
    return isinstance(error, library().OutOfMemoryException)


def connection() -> "duckdb.DuckDBPyConnection":
    """Return a connection to a database in memory."""
    # Nothing is fetched from the network, and no settings of the user are read.
    settings = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "preserve_insertion_order": "false",
        "memory_limit": _MEMORY,
        "temp_directory": "",  # it would be made in the working folder
    }
    found: duckdb.DuckDBPyConnection = library().connect(":memory:", config=settings)
    # Several queries read the same files. A version that does not know the setting is slower.
    with contextlib.suppress(library().Error):
        found.execute("SET parquet_metadata_cache = true")
    found.execute(f"SET disabled_optimizers = '{_trusting(found)}'")
    return found


def _trusting(database: "duckdb.DuckDBPyConnection") -> str:
    """Return the optimizers that take the statistics in a Parquet file for its values, of those
    that this version has.
    """
    known = database.execute("SELECT name FROM duckdb_optimizers()").fetchall()
    return ",".join(sorted(_TRUSTING & {name for (name,) in known}))


@contextlib.contextmanager
def opened() -> "Iterator[duckdb.DuckDBPyConnection]":
    """Open a connection for this context."""
    # DuckDB makes an error of its own of an interruption in this thread.
    with uninterrupted():
        database = connection()
    try:
        yield database
    finally:
        # Closing is refused while a query runs that has not ended when it should.
        with uninterrupted(), contextlib.suppress(library().Error):
            database.close()


def make(
    database: "duckdb.DuckDBPyConnection", sql: str, values: Mapping[str, object] | None = None
) -> None:
    """Make a statement that returns nothing, such as a new table."""
    _ended_with(database, lambda _: database.execute(sql, values))


def rows(
    database: "duckdb.DuckDBPyConnection", sql: str, values: Mapping[str, object] | None = None
) -> list[tuple[Any, ...]]:
    """Return the rows that a query finds."""

    def fetch(stopped: threading.Event) -> list[tuple[Any, ...]]:
        found: list[tuple[Any, ...]] = []
        answer = database.execute(sql, values)
        while not stopped.is_set() and (part := answer.fetchmany(_PART)):
            found += part
        return found

    return _ended_with(database, fetch)


def row(
    database: "duckdb.DuckDBPyConnection", sql: str, values: Mapping[str, object] | None = None
) -> tuple[Any, ...]:
    """Return the one row that a query finds."""
    (found,) = rows(database, sql, values)
    return found


def columns(database: "duckdb.DuckDBPyConnection", sql: str) -> dict[str, Any]:
    """Return what a query finds as arrays, by the names of the columns."""
    return _ended_with(database, lambda _: database.execute(sql).fetchnumpy())


def _ended_with(
    database: "duckdb.DuckDBPyConnection", call: Callable[[threading.Event], _Found]
) -> _Found:
    """Return what calls of DuckDB return. They end with an exception in this thread, such as that
    of Ctrl-C; the event says so to what is done between them. UsageError: they take too long.
    """
    stopped = threading.Event()

    def stop() -> None:
        stopped.set()
        database.interrupt()

    def answer() -> list[_Found]:
        with deadlines.cut_by(stop):
            return [call(stopped)]

    made = None
    try:
        # Whatever has begun is ended below: Python must not end while DuckDB is at work.
        with uninterrupted():
            made = deadlines.Call(answer, _LIMIT)
        made.join(time.monotonic() + _LIMIT + deadlines.GRACE)
    except BaseException:
        with uninterrupted():
            # Again and again: it may have been about to begin a query, which forgets the first.
            until = time.monotonic() + _ENDING
            while made is not None and not made.has_ended and time.monotonic() < until:
                stop()
                made.join(min(until, time.monotonic() + 0.05))
        raise
    if stopped.is_set() or not made.has_ended:
        raise UsageError(
            f"a query of DuckDB did not end within {_LIMIT / 60:g} minutes",
            hint="ask for fewer runs: --since, --machine",
        )
    if made.error is not None:
        raise made.error
    assert made.result is not None
    return made.result[0]


def takes(path: Path) -> bool:
    """Return whether DuckDB can have a path: its texts are UTF-8, as paths need not be."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def named(path: str | Path) -> str:
    """Return the name by which DuckDB finds a file."""
    # It takes the beginning of a relative path for a home (~), a protocol (file:) or a server.
    return str(Path(path).absolute())


def quoted(path: Path) -> str:
    """Return a path for a literal of SQL, without its quotes."""
    return named(path).replace("'", "''")


def copy(
    database: "duckdb.DuckDBPyConnection",
    select: str,
    made: Path,
    values: Sequence[object] = (),
    form: str = PARQUET,
) -> None:
    """Write what a query returns into a file. OSError: it cannot be written."""
    try:
        sql, bound = f"COPY ({select}) TO '{quoted(made)}' ({form})", list(values) or None
        _ended_with(database, lambda _: database.execute(sql, bound))
    except library().Error as error:
        text = str(error).splitlines()[0]
        if number := _number_in(text):
            raise OSError(number, os.strerror(number), str(made)) from None
        # It does not say why. What the system says is asked from it again.
        with made.open("ab") as stream:
            stream.write(b"\0" * 4096)
            os.fsync(stream.fileno())
        raise OSError(errno.EIO, text, str(made)) from None


def _number_in(text: str) -> int:
    """Return the number of the system's error in a message of DuckDB; 0: it names none.

    On a full disk a few bytes may still fit, so that asking the system again finds nothing.
    """
    if found := _NUMBER.search(text):
        return int(found[1])
    return next((one for one in _FULL if f": {os.strerror(one)}" in text), 0)
