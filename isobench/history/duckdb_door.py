"""The one door to DuckDB, which is an extra: connections without network and settings."""

import contextlib
import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from isobench.model.errors import UsageError

if TYPE_CHECKING:
    import duckdb

INSTALL: Final = "python3 -m pip install 'isobench[history]'"
PARQUET: Final = "FORMAT parquet, COMPRESSION zstd"
_NUMBER: Final = re.compile(r'"errno": ?"?([1-9][0-9]{0,3})\b')
"""The number of the system's error, in those messages of DuckDB that have it."""
_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def library() -> Any:  # noqa: ANN401 - a module
    """Return the module. UsageError: it is not installed."""
    try:
        import duckdb  # noqa: PLC0415 - an extra
    except ImportError:
        raise UsageError("this needs DuckDB, which is not installed", hint=INSTALL) from None
    return duckdb


def errors() -> tuple[type[Exception], ...]:
    """Return what a query of a damaged file raises.

    A message of DuckDB quotes the file, which may be no UTF-8: then making the error fails.
    """
    return library().Error, UnicodeDecodeError


def connection() -> "duckdb.DuckDBPyConnection":
    """Return a connection to a database in memory."""
    # Nothing is fetched from the network, and no settings of the user are read.
    settings = {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "preserve_insertion_order": "false",
    }
    found: duckdb.DuckDBPyConnection = library().connect(":memory:", config=settings)
    # Several queries read the same files. A version that does not know the setting is slower.
    with contextlib.suppress(library().Error):
        found.execute("SET parquet_metadata_cache = true")
    return found


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
        database.execute(f"COPY ({select}) TO '{quoted(made)}' ({form})", list(values) or None)
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
