"""The lock on the records of a run, so that only one process writes to it.

The lock is flock(2) on records.jsonl. The kernel releases it when the process ends, also after
`kill -9`: no lock file can be left behind.
"""

import errno
import fcntl
import os
import time
from pathlib import Path
from typing import IO, Final

from isobench.config import bounded
from isobench.model import commands
from isobench.model.errors import UsageError

RECORDS: Final = "records.jsonl"
_LOCKS: Final = Path("/proc/locks")
# Seconds to wait for the lock. `writer_of` takes it for a moment to see whether a run is still
# measured: without this patience, `isobench report` could make a run fail that starts just then.
_PATIENCE: Final = 1.0
_PAUSE: Final = 0.02


def acquire(records: IO[bytes], path: Path) -> str:
    """Lock the records of the run at `path`.

    Return an empty text, or why this file system has no locks. UsageError: another process holds
    the lock.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(records, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            # Some network file systems have no locks (ENOLCK, EOPNOTSUPP). That must not keep
            # anybody from measuring there. EACCES: NFS emulates flock(2) by fcntl(2), which may
            # fail with either error where another process has the lock.
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return error.strerror or str(error)
            if time.monotonic() > end:
                raise _still_running(path, _holder(records.fileno())) from None
        else:
            return ""
        time.sleep(_PAUSE)


def _holder(descriptor: int) -> int | None:
    """Return the id of the process that has locked a file; None where it cannot be seen here."""
    # F_GETLK of fcntl(2) does not report locks of flock(2). /proc/locks does, and identifies a file
    # by device and inode: see proc_locks(5).
    file = os.fstat(descriptor)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for words in map(str.split, lines):
        # A line is "7: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF". The line of a process that
        # waits for the lock has "->" as its second word. Processes of other PID namespaces are not
        # listed.
        if words[1:2] == ["FLOCK"] and words[5:6] == [name] and int(words[4]) > 0:
            return int(words[4])
    return None


def _still_running(path: Path, holder: int | None) -> UsageError:
    who, stop = ("another process", "end it")
    if holder is not None:
        who, stop = (f"process {holder}", f"end it with kill -INT {holder}")
    return UsageError(
        f"{path}: this run is still being measured: {who} writes to it",
        hint=f"wait until it ends, or {stop}; then {commands.resume(path)}",
    )


def _opened(path: Path) -> IO[bytes]:
    # There may be a named pipe in its place, whose opening waits for a writer, or a link.
    return os.fdopen(os.open(path / RECORDS, bounded.TO_READ | os.O_NOFOLLOW), "rb")


def writer_of(path: Path) -> str:
    """Return which process writes to the run at `path` at this moment, in words.

    Empty: none does, or it cannot be seen.
    """
    try:
        with _opened(path) as records:
            # A shared lock, so that several readers do not take each other for writers. Closing the
            # file releases it.
            try:
                fcntl.flock(records, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(records.fileno())
                return "another process" if holder is None else f"process {holder}"
    except OSError:
        pass
    return ""


def check_idle(path: Path) -> None:
    """Check that no process writes to the run at `path`. UsageError: one does."""
    if writer_of(path):
        with _opened(path) as records:
            raise _still_running(path, _holder(records.fileno()))
