"""Reserves standard output for isobench: what plug-ins print goes to standard error.

Scripts read the output of `isobench targets --json` and `--export-json -`: a line of a plug-in
would break them. `claim` gives isobench its own descriptor for standard output. `protect` then
points descriptor 1 to standard error, for programs that a plug-in starts and for code that writes
to the descriptor. Within `to_stderr`, text printed through `sys.stdout` goes to standard error too.

`lasting` makes a stream whose errors end nothing: a run is worth more than what it says.
"""

import contextlib
import errno
import io
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO, Final, cast

_OUT, _ERR = 1, 2
_thread: Final = threading.local()
_own_outputs: list["_OwnOutput"] = []
_protected: list[bool] = []
"""Not empty once a plug-in may run in this process."""


class _Lasting(io.FileIO):
    """Writes to a descriptor. What cannot be written is left out."""

    failure: OSError | None = None
    """The last error, unless the reader has left."""

    def write(self, data: Any) -> int:  # noqa: ANN401 - any buffer
        """Write data; wait where another process has made the descriptor non-blocking."""
        try:
            while (written := super().write(data)) is None:
                from isobench.config import bounded  # noqa: PLC0415 - hardly ever needed

                bounded.is_ready(self.fileno(), None, select.POLLOUT)
        except OSError as error:
            if not self._has_no_reader(error):
                self.failure = error
            return memoryview(data).nbytes
        return written

    def _has_no_reader(self, error: OSError) -> bool:
        """Return whether nobody reads any more: as in `isobench targets | head -1`, or because the
        terminal was closed.
        """
        closed = error.errno == errno.EIO and stat.S_ISCHR(os.fstat(self.fileno()).st_mode)
        return isinstance(error, BrokenPipeError) or closed


def lasting(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    """Return a stream on the same descriptor whose errors end nothing. What a locale lacks, it gets
    as an escape.
    """
    stream.flush()
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(stream.fileno(), "wb", closefd=False)),
        encoding=stream.encoding,
        errors="backslashreplace",
        line_buffering=stream.line_buffering,
        write_through=stream.write_through,
    )


def failure() -> OSError | None:
    """Flush standard output; return why some of it was not written. None: it was, or its reader has
    left.
    """
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.failure if isinstance(raw, _Lasting) else None


def _is_redirected() -> bool:
    """Return whether a plug-in is running in this thread."""
    # isobench prints only from the first thread: all others run probes, or were started by
    # plug-ins.
    first = threading.current_thread() is threading.main_thread()
    return not first or getattr(_thread, "depth", 0) > 0


class _OwnOutput(io.TextIOWrapper):
    """isobench's standard output. Text of plug-ins goes to standard error instead."""

    def write(self, text: str) -> int:
        """Write text, here or to standard error."""
        # sys.stderr is None where a process was started without a descriptor 2.
        if _is_redirected():
            return len(text) if sys.stderr is None else sys.stderr.write(text)
        return super().write(text)

    @property
    def buffer(self) -> BinaryIO:
        """Return the binary stream; in a plug-in, that of standard error."""
        if _is_redirected() and sys.stderr is not None:
            return sys.stderr.buffer
        return cast("BinaryIO", super().buffer)

    def close(self) -> None:
        """Close it; a plug-in only flushes it."""
        if _is_redirected():
            self.flush()
        else:
            super().close()


def claim() -> None:
    """Give isobench its own standard output, unless it was redirected within Python."""
    now: Any = sys.stdout
    try:
        if now is None or now.fileno() != _OUT:
            return  # redirected already, by a test or by a program that embeds isobench
        now.flush()
        file = io.BufferedWriter(_Lasting(os.dup(_OUT), "wb"))
    except (OSError, ValueError):
        return
    sys.stdout = own = _OwnOutput(
        file,
        encoding=now.encoding,
        errors=now.errors,
        line_buffering=now.line_buffering,
        write_through=now.write_through,
    )
    _own_outputs.append(own)


def protect() -> None:
    """Point descriptor 1 to standard error, if isobench has its own standard output.

    Call it before the first plug-in is loaded.
    """
    # It is never undone, since a plug-in may print while the interpreter ends.
    if _own_outputs and sys.stdout is _own_outputs[-1]:
        _protected.append(True)
        with contextlib.suppress(OSError):
            os.dup2(_ERR, _OUT)


def is_protected() -> bool:
    """Return whether a plug-in may have run in this process, which is isobench's own."""
    return bool(_protected)


def release() -> None:
    """Flush isobench's output. With plug-ins, all later output goes to standard error."""
    # Otherwise what a plug-in prints while the interpreter ends would follow the last line of a
    # JSON document.
    if _protected and _own_outputs and sys.stdout is _own_outputs[-1] and sys.stderr is not None:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        sys.stdout = sys.stderr


@contextlib.contextmanager
def to_stderr() -> Iterator[None]:
    """Send everything that is printed within this context to standard error."""
    # A depth and not a flag, since these contexts are nested.
    _thread.depth = getattr(_thread, "depth", 0) + 1
    try:
        yield
    finally:
        _thread.depth -= 1
