"""Writes the folder of a run while it is measured.

run.json        the options of the run, the machine and the payloads
plan.json       the blocks and their order, fixed before measuring
records.jsonl   a sample, gap or leaving a line, synced after every visit, locked while written
state/          host-pre.json and <target>-pre.json: facts and evidence
blocks.jsonl: the state of the host during each block
logs/           the standard error of engines and payloads, up to a limit
summary.json    the answers, next to summary.md and report.html: see `isobench.report.write`
"""

import contextlib
import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from isobench.config import redaction
from isobench.model import BlockHealth, Gap, Leaving, Record, Sample
from isobench.model.cleaning import cleaned
from isobench.model.errors import UsageError
from isobench.storage import lock
from isobench.storage.documents import write_document, write_text
from isobench.storage.lines import end_of_lines

# Bytes of one log. A payload that fails in every visit writes the same line thousands of times.
MOST_LOG: Final = 1 << 20
_KINDS: Final[dict[type[Record], str]] = {Sample: "sample", Gap: "gap", Leaving: "leaving"}


_LINKED: Final = (errno.ELOOP, errno.ENXIO, errno.EISDIR)
_OWN: Final = (
    *("run.json", "plan.json", "summary.json", "summary.md", "report.html", "state", "logs"),
    *("history.json", "confirm"),
)
"""What a run writes: a new one begins where there is nothing of this."""


def _appending(path: Path) -> BinaryIO:
    """Open a file of a run, to read it and to append to it. UsageError: it is not a regular file.

    A stranger's folder may have a link to a file of the user's in its place, or a pipe that waits.
    """
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in _LINKED:
            raise _no_file(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(path)
    return os.fdopen(descriptor, "a+b")


def _no_file(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not a regular file", hint="choose another folder with --output, or remove it"
    )


def _drop_incomplete_line(file: BinaryIO) -> None:
    file.truncate(end_of_lines(file))


def _printable(text: bytes) -> bytes:
    """Return standard error without what controls a terminal that shows the log."""
    # A serial console ends its lines with both characters.
    lines = text.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return cleaned(lines, longest=None).encode()


class RunFolder:
    """The folder of a run that is being measured; a `Sink` of `isobench.run`.

    records.jsonl is locked while the folder is open.
    """

    def __init__(self, path: Path) -> None:
        """Open the folder of a new or resumed run. It is created where it does not exist.

        UsageError: another process writes to it. OSError: it cannot be written.
        """
        self.path = path
        for name in ("state", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
            if (path / name).is_symlink():
                raise _no_file(path / name)
        self._records = _appending(path / lock.RECORDS)
        # Without the lock, two processes that resume one run measure the same blocks, and half of
        # its samples occur twice.
        try:
            self.unlocked = lock.acquire(self._records, path)
            # A crash may have cut off the last line: a new record would continue that line, and
            # both would be lost. This waits for the lock, since another process may be writing it.
            _drop_incomplete_line(self._records)
            if os.path.lexists(path / "state" / "blocks.jsonl"):
                with _appending(path / "state" / "blocks.jsonl") as file:
                    _drop_incomplete_line(file)
        except (UsageError, OSError):
            self._records.close()
            raise
        self._encoder = msgspec.json.Encoder()

    def write(self, record: Record) -> None:
        """Append one record. It may stay in memory until `sync`."""
        fields = msgspec.to_builtins(record)
        # Samples have no text from outside.
        if isinstance(record, Gap):
            fields = redaction.plain(fields)
        line = {"kind": _KINDS[type(record)], **fields}
        self._records.write(self._encoder.encode(line) + b"\n")

    def sync(self) -> None:
        """Make sure that all records so far survive a crash of the machine."""
        self._records.flush()
        os.fsync(self._records.fileno())

    def document(self, name: str, value: object) -> None:
        """Write a JSON document, completely or not at all."""
        write_document(self.path / name, value)

    def text(self, name: str, text: str) -> None:
        """Write a text file, completely or not at all."""
        write_text(self.path / name, text)

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Append the state of the host during one block, and whether the block counts."""
        line = msgspec.json.encode({**msgspec.to_builtins(health), "valid": valid})
        with _appending(self.path / "state" / "blocks.jsonl") as file:
            file.write(line + b"\n")

    def log(self, name: str, text: bytes) -> None:
        """Append standard error to logs/<name>.log: printable, up to MOST_LOG bytes a file."""
        if not text.strip():
            return
        with _appending(self.path / "logs" / f"{name}.log") as file:
            room = MOST_LOG - os.fstat(file.fileno()).st_size
            if room > 0:
                shown = _printable(redaction.of_bytes(text[:room]))
                file.write(shown[:room].rstrip() + b"\n")

    def close(self) -> None:
        """Sync and close the records. This releases the lock."""
        self.sync()
        self._records.close()


def create(parent: Path, name: str, *, exact: Path | None = None) -> RunFolder:
    """Create the folder of a new run: `exact`, or else `parent`/`name` with a link `latest` to it.

    UsageError: the folder holds a run, or cannot be written.
    """
    path = exact or parent / name
    if os.path.lexists(path / lock.RECORDS):
        raise UsageError(f"{path} holds a run already", hint="choose another folder with --output")
    for own in _OWN:
        if os.path.lexists(path / own):
            raise UsageError(
                f"{path} has a {own} already, which the run would replace",
                hint="choose another folder with --output",
            )
    try:
        folder = RunFolder(path)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="choose another folder with --output"
        ) from None
    if exact is None:
        link = parent / "latest"
        # Some file systems have no symbolic links. The run is worth more than its link.
        with contextlib.suppress(OSError):
            # A file or folder of the user's with this name stays.
            if link.is_symlink() or not link.exists():
                # symlink(2) does not replace a file. rename(2) does so atomically, so that another
                # process that reads `latest` always finds a run.
                fresh = parent / f".latest-{os.getpid()}"
                fresh.symlink_to(name)
                fresh.replace(link)
    return folder
