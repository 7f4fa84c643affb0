"""The folder of a run, as it is measured.

run.json        what was asked for, on which machine, with which payloads
plan.json       blocks and order, fixed before measuring
records.jsonl   one Sample or Gap a line, synced after every visit; locked while it is written
state/          host-pre.json, <target>-pre.json: facts and evidence;
blocks.jsonl: what the host did during each block
logs/           what engines and payloads said on standard error, bounded
summary.json  summary.md  report.html
"""

import contextlib
import os
from pathlib import Path
from typing import Final

import msgspec

from isobench.model import BlockHealth, Record, Sample
from isobench.model.errors import UsageError
from isobench.storage import lock
from isobench.storage.documents import write_document, write_text
from isobench.storage.lines import complete

MOST_LOG: Final = 1 << 20


def _drop_incomplete_line(path: Path) -> None:
    if path.is_file():
        os.truncate(path, len(complete(path.read_bytes())))


class RunFolder:
    """A run being written. A Sink: `write` keeps a record, `sync` makes it safe.

    The open file of the records holds a lock: of two writers each would measure the same blocks.
    """

    def __init__(self, path: Path) -> None:
        """Take a folder; it is made if need be, and must hold no other run. UsageError: another
        process writes to it.
        """
        self.path = path
        for name in ("state", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
        self._records = (path / lock.RECORDS).open("ab")
        try:
            self.unlocked = lock.claim(self._records, path)
        except UsageError:
            self._records.close()
            raise
        # A crash may have cut a last line short: what is appended must not grow out of it.
        for name in (lock.RECORDS, "state/blocks.jsonl"):
            _drop_incomplete_line(path / name)
        self._encoder = msgspec.json.Encoder()

    def write(self, record: Record) -> None:
        """Append one record."""
        kind = "sample" if isinstance(record, Sample) else "gap"
        line = {"kind": kind, **msgspec.to_builtins(record)}
        self._records.write(self._encoder.encode(line) + b"\n")

    def sync(self) -> None:
        """See that all that was written survives a crash."""
        self._records.flush()
        os.fsync(self._records.fileno())

    def document(self, name: str, value: object) -> None:
        """Write a JSON document whole or not at all."""
        write_document(self.path / name, value)

    def text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        write_text(self.path / name, text)

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Append what the host did during one block."""
        line = msgspec.json.encode({**msgspec.to_builtins(health), "valid": valid})
        with (self.path / "state" / "blocks.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def log(self, name: str, text: bytes) -> None:
        """Append what something said on standard error, up to a mebibyte a file."""
        if not text.strip():
            return
        path = self.path / "logs" / f"{name}.log"
        size = path.stat().st_size if path.exists() else 0
        if size < MOST_LOG:
            with path.open("ab") as file:
                file.write(text[: MOST_LOG - size].rstrip() + b"\n")

    def close(self) -> None:
        """Close the records, and let go of the run: nothing is written to it from here on."""
        self.sync()
        self._records.close()


def create(parent: Path, name: str, *, exact: Path | None = None) -> RunFolder:
    """Make the folder of a new run, `exact` or `parent`/`name`, and point `latest` at it."""
    path = exact or parent / name
    if (path / lock.RECORDS).exists():
        raise UsageError(f"{path} holds a run already", hint="choose another folder with --output")
    try:
        folder = RunFolder(path)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="choose another folder with --output"
        ) from None
    if exact is None:
        link = parent / "latest"
        with contextlib.suppress(OSError):
            if link.is_symlink() or not link.exists():
                fresh = parent / f".latest-{os.getpid()}"
                fresh.symlink_to(name)
                fresh.replace(link)
    return folder
