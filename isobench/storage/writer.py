"""Writes the folder of a run while it is measured.

run.json        the options of the run, the machine and the payloads
plan.json       the blocks and their order, fixed before measuring
records.jsonl   a sample, gap or leaving a line, written and synced visit by visit, locked meanwhile
state/          host-pre.json and <target>-pre.json: facts and evidence
blocks.jsonl: the state of the host during each block
logs/           the standard error of engines and payloads, up to a limit
summary.json    the answers, next to summary.md and report.html: see `isobench.report.write`
"""

import contextlib
import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import msgspec

from isobench.config import bounded, held, redaction, trust
from isobench.model import BlockHealth, Gap, Leaving, Record, Sample, commands
from isobench.model.cleaning import all_cleaned, cleaned
from isobench.model.errors import UsageError
from isobench.storage import lock
from isobench.storage.documents import DAMAGED, METADATA, PLAN, encoded
from isobench.storage.files import MOST_DOCUMENT, MOST_PLAN, MOST_RECORDS
from isobench.storage.lines import END_OF_WRITE, end_of_lines, end_of_writes

# Bytes of one log. A payload that fails in every visit writes the same line thousands of times.
MOST_LOG: Final = 1 << 20
_KINDS: Final[dict[type[Record], str]] = {Sample: "sample", Gap: "gap", Leaving: "leaving"}


_LINKED: Final = (errno.ELOOP, errno.ENOTDIR, errno.ENXIO, errno.EISDIR)
_FOLDERS: Final = ("state", "logs")
HEALTH: Final = "state/blocks.jsonl"
_RESCUED: Final = "records.rescued.jsonl"
"""A copy of the records, where something else has their name."""
_OWN: Final = (
    *(METADATA, PLAN, "summary.json", "summary.md", "report.html", *_FOLDERS),
    *("history.json", "confirm"),
)
"""What a run writes: a new one begins where there is nothing of this."""


def _appending(folder: held.Folder, name: str) -> BinaryIO:
    """Open a file of a run, to read it and to append to it. UsageError: it is not a regular file.

    A stranger's folder may have a link to a file of the user's in its place, or a pipe that waits.
    """
    try:
        descriptor = folder.opened(name, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in _LINKED:
            raise _no_file(folder.path / name) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise _no_file(folder.path / name)
    return os.fdopen(descriptor, "a+b")


def _no_file(path: Path) -> UsageError:
    return UsageError(
        f"{path} is not a regular file", hint="choose another folder with --output, or remove it"
    )


def _size(file: BinaryIO, path: Path, most: int) -> int:
    """Return the size of a file of a run that is resumed. UsageError: it is longer than `most`."""
    size = os.fstat(file.fileno()).st_size
    if size > most:
        raise bounded.too_long(path, most, DAMAGED)
    return size


class _Unwritten(NamedTuple):
    """Lines that are not on the disk yet. One object, so that no signal comes between the two."""

    lines: list[bytes]
    begun: int | None = None
    """Where in the file a first attempt to write them began; None: there was none."""


def _write_whole(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _printable(text: bytes) -> bytes:
    """Return standard error without what controls a terminal that shows the log."""
    # A serial console ends its lines with both characters.
    lines = text.decode("utf-8", "backslashreplace").replace("\r\n", "\n")
    return cleaned(lines, longest=None).encode()


class RunFolder:
    """The folder of a run that is being measured; a `Sink` of `isobench.run`.

    records.jsonl is locked while the folder is open.
    """

    def __init__(self, place: Path | held.Folder, argv: Sequence[str] = ()) -> None:
        """Open the folder of a new or resumed run, which `argv` has begun or resumed: its path, or
        the folder, which is held then. It is created where it does not exist.

        UsageError: another process writes to it. OSError: it cannot be written.
        """
        # Whoever owns the folder around it can put a link in its place while the run is measured.
        self.held = held.writable(place, create=True) if isinstance(place, Path) else place
        self.path = path = self.held.path
        self._found_by = commands.kept(argv, commands.FINDING)
        self._created: list[str] = []
        for name in _FOLDERS:
            try:
                if self.held.made(name):
                    self._created.append(name)
            except NotADirectoryError:
                raise _no_file(path / name) from None
        self._records = _appending(self.held, lock.RECORDS)
        # Without the lock, two processes that resume one run measure the same blocks, and half of
        # its samples occur twice.
        try:
            self.unlocked = lock.acquire(self._records, path)
            if not os.fstat(self._records.fileno()).st_nlink:
                raise UsageError(
                    f"{path} was removed by another isobench", hint="type the command again"
                )
            # A crash may have cut off what was written last. A new record would continue the last
            # line, and both would be lost; and the beginning of a visit would count as damage for
            # ever. This waits for the lock, since another process may be writing it.
            size = _size(self._records, path / lock.RECORDS, MOST_RECORDS)
            self._records.truncate(end_of_writes(self._records, size))
            if self.held.status(HEALTH) is not None:
                with _appending(self.held, HEALTH) as file:
                    file.truncate(end_of_lines(file, _size(file, path / HEALTH, MOST_DOCUMENT)))
        except (UsageError, OSError):
            self._records.close()
            raise
        self._encoder = msgspec.json.Encoder()
        self._unwritten = _Unwritten([])

    def write(self, record: Record) -> None:
        """Append one record. It stays in memory until `sync`."""
        # Samples have no text from outside.
        clean = redaction.plain(record) if isinstance(record, Gap) else record
        line = {"kind": _KINDS[type(record)], **msgspec.to_builtins(clean)}
        self._unwritten.lines.append(self._encoder.encode(line))

    def sync(self) -> None:
        """Make sure that all records so far survive a crash of the machine.

        Those since the last time are written completely or not at all. UsageError: they cannot be
        written. They stay in memory, and the next time may be luckier.
        """
        descriptor = self._records.fileno()
        with self._named(lock.RECORDS):
            lines, begun = self._unwritten
            if begun is None:
                begun = os.fstat(descriptor).st_size
                self._unwritten = _Unwritten(lines, begun)
            else:  # a signal may have interrupted the attempt before
                os.ftruncate(descriptor, begun)
            try:
                if lines:
                    _write_whole(descriptor, b"\n".join(lines) + END_OF_WRITE)
                os.fsync(descriptor)
            except OSError:
                # Half a visit would count as damage. This needs no room on a full disk.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, begun)
                raise
            self._unwritten = _Unwritten([])

    @contextlib.contextmanager
    def _named(self, name: str, *, measured: bool = True) -> Iterator[None]:
        """Name the file in an error of writing to it: the system does not. Without a plan, or what
        was `measured`, there is nothing to continue.
        """
        try:
            yield
        except OSError as error:
            hint = "make room, or choose another folder with --output"
            if measured or self.held.status(PLAN) is not None:
                again = commands.resume(self.path, self._found_by)
                hint = f"what was measured is kept: make room, then {again}"
            message = f"{self.path / name}: {error.strerror or error}"
            raise UsageError(message, hint=hint) from None

    @contextlib.contextmanager
    def _appending(self, name: str) -> Iterator[BinaryIO]:
        with self._named(name), _appending(self.held, name) as file:
            yield file

    def document(self, name: str, value: object) -> bytes:
        """Write a JSON document, completely or not at all; return what was written. UsageError: it
        is longer than what is read of such a document.
        """
        most = MOST_PLAN if name == PLAN else MOST_DOCUMENT
        # As plain data: keys of facts come from payloads, and are texts like others here.
        plain = redaction.plain(msgspec.to_builtins(value))
        text = encoded(plain)
        # A plan may have a million visits, and an engine may call its version a text of 16 MiB.
        if len(text) > most:
            text = msgspec.json.encode(all_cleaned(plain)).decode()
        content = text.encode()
        if len(content) > most:
            raise UsageError(
                f"{self.path / name}: longer than {bounded.size_text(most)}, the most that is read",
                hint="measure fewer blocks, targets or workloads in one run",
            )
        with self._named(name, measured=False):
            self.held.replace(name, content)
        return content

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Append the state of the host during one block, and whether the block counts. UsageError
        as in `demand_records`: then it does not.
        """
        lost = not self._has_records()
        line = msgspec.json.encode({**msgspec.to_builtins(health), "valid": valid and not lost})
        with self._appending(HEALTH) as file:
            file.write(line + b"\n")
        if lost:
            raise self._rescued()

    def demand_records(self) -> None:
        """Check that what is written is in the folder. UsageError: its file was removed or replaced
        meanwhile, as some editors and tools replace it. The folder has a copy of all records then.
        """
        if not self._has_records():
            raise self._rescued()

    def _rescued(self) -> UsageError:
        """Copy the records, and return the error that says so."""
        path, copy = self.path / lock.RECORDS, self.path / _RESCUED
        hint = "measure again"
        with contextlib.suppress(OSError):  # there is an earlier one, or no room
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            with os.fdopen(self.held.opened(_RESCUED, flags), "wb") as file:
                self._records.seek(0)
                shutil.copyfileobj(self._records, file)
            again = commands.resume(self.path, self._found_by)
            back = f"mv {commands.path(copy)} {commands.path(path)}"
            hint = f"{_RESCUED} has what was measured: {back}; then {again}"
        lost = UsageError(f"{path} was removed or replaced while this run was measured", hint=hint)
        self.log("records", f"{lost}; {hint}".encode())
        return lost

    def _has_records(self) -> bool:
        """Return whether the name of the records leads to the file that is written."""
        seen, own = self.held.status(lock.RECORDS), os.fstat(self._records.fileno())
        if seen is None:
            return False
        # Some file systems give one file several numbers. Another one is shorter.
        return os.path.samestat(seen, own) or (bool(own.st_nlink) and seen.st_size == own.st_size)

    def log(self, name: str, text: bytes) -> None:
        """Append standard error to logs/<name>.log: printable, up to MOST_LOG bytes a file."""
        if not text.strip():
            return
        with self._appending(f"logs/{name}.log") as file:
            room = MOST_LOG - os.fstat(file.fileno()).st_size
            if room > 0:
                # Half a secret at the end would not be recognized.
                shown = _printable(redaction.of_bytes(text))
                file.write(shown[:room].rstrip() + b"\n")

    def make_latest(self) -> None:
        """Point the link `latest` beside the folder to it."""
        beside = self.held.parent
        # A file, a folder or a link of the user's with this name stays.
        if _exists(beside, "latest", follow=True) and not (
            _is_link(beside, "latest") and _exists(beside, f"latest/{lock.RECORDS}")
        ):
            return
        # Some file systems have no symbolic links. The run is worth more than its link.
        with contextlib.suppress(OSError):
            # symlink(2) does not replace a file. rename(2) does so atomically, so that another
            # process that reads `latest` always finds a run.
            fresh = f".latest-{secrets.token_hex(4)}"
            os.symlink(self.held.name, fresh, dir_fd=beside)
            os.rename(fresh, "latest", src_dir_fd=beside, dst_dir_fd=beside)

    def remove_unbegun(self) -> None:
        """Remove what was created for a new run that ended before it had a run.json."""
        if self.held.status(METADATA) or os.fstat(self._records.fileno()).st_size:
            return
        at = self.held.descriptor
        with contextlib.suppress(OSError):
            os.unlink(lock.RECORDS, dir_fd=at)
            for name in reversed(self._created):
                shutil.rmtree(name, dir_fd=at)
            seen = os.stat(self.held.name, dir_fd=self.held.parent, follow_symlinks=False)
            # What has its name now may be another's.
            if self.held.is_new and os.path.samestat(seen, os.fstat(at)):
                os.rmdir(self.held.name, dir_fd=self.held.parent)

    def close(self) -> None:
        """Sync and close the records. This releases the lock."""
        try:
            self.sync()
        finally:
            self._records.close()


def create(
    parent: Path, name: str, *, exact: Path | None = None, argv: Sequence[str] = ()
) -> RunFolder:
    """Create the folder of a new run, which `argv` begins: `exact`, or else `parent`/`name`.

    UsageError: the folder holds a run, or cannot be written.
    """
    path = exact or parent / name
    try:
        folder = held.writable(exact, create=True) if exact else _in_results(parent, name)
        _refuse_begun(folder)
        return RunFolder(folder, argv)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="choose another folder with --output"
        ) from None


def refuse_used(path: Path) -> None:
    """Check that a new run would replace nothing in a folder. UsageError: it would."""
    with contextlib.suppress(OSError), contextlib.closing(held.writable(path)) as folder:
        _refuse_begun(folder)


def _in_results(parent: Path, name: str) -> held.Folder:
    results = held.writable(parent, create=True)
    with contextlib.closing(results):
        _refuse_of_others(results)
        return results.inner(name, create=True)


def check_results(parent: Path) -> None:
    """Check that a run may be created in the folder of the results, if there is one. UsageError: it
    is another user's, in a folder where everybody may create one.
    """
    with contextlib.suppress(OSError), contextlib.closing(held.writable(parent)) as results:
        _refuse_of_others(results)


def _refuse_of_others(results: held.Folder) -> None:
    # Nobody has named it: whoever comes first to /tmp may have put it there, waiting for runs. Root
    # may measure in a user's checkout.
    seen, around = os.fstat(results.descriptor), os.fstat(results.parent)
    if not bounded.is_own(seen) and around.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"{results.path} belongs to {trust.user_name(seen.st_uid)}, and everybody may create"
            " files beside it",
            hint="name a folder with --output, or measure in a folder of your own",
        )


def _refuse_begun(folder: held.Folder) -> None:
    """Check that nothing in a folder is what a run replaces. UsageError: something is."""
    path, is_unbegun = folder.path, _is_unbegun(folder)
    if folder.status(lock.RECORDS) is not None and not is_unbegun:
        raise UsageError(f"{path} holds a run already", hint="choose another folder with --output")
    for own in _OWN:
        if folder.status(own) is not None and not (is_unbegun and own in _FOLDERS):
            raise UsageError(
                f"{path} has a {own} already, which the run would replace",
                hint="choose another folder with --output",
            )


def _is_unbegun(folder: held.Folder) -> bool:
    """Return whether a folder has only what a run creates first: it was killed then."""
    seen = folder.status(lock.RECORDS)
    if seen is None or seen.st_size or folder.status(METADATA) is not None:
        return False
    return stat.S_ISREG(seen.st_mode)


def _exists(folder: int, name: str, *, follow: bool = False) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=follow)
    except OSError:
        return False
    return True


def _is_link(folder: int, name: str) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False
