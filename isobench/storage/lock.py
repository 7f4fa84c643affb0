"""Who writes to a run: the open file of its records is locked, so that there is one writer.

The kernel frees the lock when the process ends, however it does.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO, Final

from isobench.model.errors import UsageError

RECORDS: Final = "records.jsonl"
_LOCKS: Final = Path("/proc/locks")
_PATIENCE: Final = 1.0
"""Seconds for a reader that looks whether a run is still going: it holds the lock for a moment."""
_PAUSE: Final = 0.02


def claim(records: IO[bytes], path: Path) -> str:
    """Take the lock of a run; return why its file system has none, or nothing. UsageError: another
    process has it.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(records, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return error.strerror or str(error)
            if time.monotonic() > end:
                raise _busy(path, _holder(records.fileno())) from None
        else:
            return ""
        time.sleep(_PAUSE)


def _holder(descriptor: int) -> int | None:
    """Return which process has locked a file; None where the kernel does not show it here."""
    file = os.fstat(descriptor)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for words in map(str.split, lines):
        # "7: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF"; a process that waits has "->" in it.
        if words[1:2] == ["FLOCK"] and words[5:6] == [name] and int(words[4]) > 0:
            return int(words[4])
    return None


def _busy(path: Path, holder: int | None) -> UsageError:
    who, stop = ("another process", "end it")
    if holder is not None:
        who, stop = (f"process {holder}", f"end it with kill -INT {holder}")
    return UsageError(
        f"{path}: this run is still going: {who} writes to it",
        hint=f"wait for its end, or {stop}; then isobench run --resume {path}",
    )


def writer_of(path: Path) -> str:
    """Return who writes to a run at this moment, in words; nothing where nobody does, or where that
    cannot be seen.
    """
    try:
        with (path / RECORDS).open("rb") as records:
            try:
                fcntl.flock(records, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(records.fileno())
                return "another process" if holder is None else f"process {holder}"
    except OSError:
        pass
    return ""


def demand_idle(path: Path) -> None:
    """UsageError: a process writes to this run."""
    if writer_of(path):
        with (path / RECORDS).open("rb") as records:
            raise _busy(path, _holder(records.fileno()))
