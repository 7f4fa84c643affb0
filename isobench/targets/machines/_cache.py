"""The cache of guests: what is kept between runs, how it is verified, locked and swept.

A part is a folder of files. Its name is the hash of its manifest, and the manifest holds the hash
of each file. A symbolic link with a readable name ("kernel-3-x86_64") points to the current part:

    guests/kernel-3-x86_64 -> 5d41…      guests/5d41…/manifest.json, kernel, modules
    guests/lock                          held while a part is made
    guests/.making-…                     a part that is being made
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import msgspec

from isobench.config import cache
from isobench.model import Leftover, commands
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.targets.machines._packages import FREE_SPACE
from isobench.targets.shared import processes

Say = Callable[[str], None]
WORK: Final = "work"
"""The working folder of a part that is made."""
ROOT: Final = "root"
"""A folder in it for files of other users."""
_REMOVING: Final = 60.0
"""Seconds that the removal of a root directory may take."""


class Manifest(msgspec.Struct, frozen=True):
    """The content of a part, stored with its files."""

    files: dict[str, str]
    """File name -> SHA-256 in hexadecimal."""
    packages: list[str]
    """What the part was made of, as "NAME VERSION"."""


def folder() -> Path:
    """Return the folder of all parts."""
    return cache.folder("guests")


# ---- verifying -----------------------------------------------------------------------------------


def find(name: str) -> tuple[Path, Manifest] | None:
    """Return the current part of this name with its manifest; None if it is absent or damaged."""
    part = (folder() / name).resolve()
    manifest = _verified(part)
    return None if manifest is None else (part, manifest)


def _verified(part: Path) -> Manifest | None:
    """Return the manifest of a part; None unless the manifest and all files match their hashes."""
    try:
        encoded = (part / "manifest.json").read_bytes()
        manifest = msgspec.json.decode(encoded, type=Manifest)
    except (OSError, msgspec.DecodeError):
        return None
    if _content_name(encoded) != part.name:
        return None
    for file, digest in manifest.files.items():
        if not _has_digest(part / file, digest):
            return None
    return manifest


def _content_name(manifest: bytes) -> str:
    return hashlib.sha256(manifest).hexdigest()[:32]


# A part is looked up at every probe and every start. A file is therefore hashed once in each
# process, unless it changes: whoever writes to it or replaces it can set all times but that of the
# last change of its inode.
_verified_files: Final[set[tuple[str, int, int, int, int, str]]] = set()


def _has_digest(path: Path, digest: str) -> bool:
    """Check the SHA-256 of a file."""
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            return False
        changed = (status.st_mtime_ns, status.st_ctime_ns)
        state = (str(path.resolve()), status.st_ino, status.st_size, *changed, digest)
        if state not in _verified_files and _digest(path) == digest:
            _verified_files.add(state)
    except OSError:
        return False
    return state in _verified_files


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---- making --------------------------------------------------------------------------------------


@contextlib.contextmanager
def write_errors() -> Iterator[None]:
    """Turn an OSError while a guest's files are written into a SessionError with a hint."""
    try:
        yield
    except OSError as error:
        raise SessionError(
            f"the files of a guest cannot be written: {error}", hint=FREE_SPACE
        ) from None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Wait until no other isobench makes a part, and keep others waiting."""
    cache.made("guests")
    with (folder() / "lock").open("w") as file:
        # The kernel releases this lock when the process ends, however it ends (flock(2)).
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def obtain(
    name: str, make: Callable[[Path, Path], list[str]], what: str, say: Say
) -> tuple[Path, Manifest]:
    """Return a part and its manifest, and make the part first if it is not in the cache.

    `make` gets an empty working folder and the folder to fill, and returns the packages it used.
    `what` is passed to `say` before a part is made. Raises SessionError if it cannot be made.
    """
    found = find(name)
    if found is not None:
        return found
    with write_errors(), _locked():
        # Another process may have made it while this one waited for the lock.
        found = find(name)
        if found is not None:
            return found
        say(what)
        with _new_part() as (work, result):
            return _store(name, result, make(work, result))


def replace(name: str, make: Callable[[Path], None]) -> tuple[Path, Manifest]:
    """Make a part, whether or not the cache has one of this name, and return it.

    `make` fills the folder it gets. Raises SessionError as `obtain` does.
    """
    with write_errors(), _locked(), _new_part() as (_, result):
        make(result)
        return _store(name, result, [])


@contextlib.contextmanager
def _new_part() -> Iterator[tuple[Path, Path]]:
    """Yield a working folder and a folder to fill; what is left of both is removed."""
    # In the cache itself: the rename that publishes a part must stay within one file system.
    made = Path(tempfile.mkdtemp(dir=folder(), prefix=".making-"))
    work, result = made / WORK, made / "result"
    try:
        work.mkdir()
        result.mkdir()
        yield work, result
    finally:
        _remove(made)


def _store(name: str, work: Path, packages: list[str]) -> tuple[Path, Manifest]:
    """Move the files of `work` into the cache, and point the name to them."""
    files = {path.name: _digest(path) for path in sorted(work.iterdir())}
    manifest = Manifest(files=files, packages=packages)
    encoded = msgspec.json.encode(manifest)
    (work / "manifest.json").write_bytes(encoded)
    target = folder() / _content_name(encoded)
    if _verified(target) is None:
        if target.exists():
            # A damaged part is in the way. Moved next to `work`, it is removed with that folder.
            target.rename(work.with_name("damaged"))
        work.chmod(0o755)
        work.rename(target)
    # A link cannot be changed in place. A new one that is renamed over the old one leaves no
    # moment without a part.
    link = folder() / f".{name}-{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(target.name)
    link.replace(folder() / name)
    return target, manifest


# ---- removing ------------------------------------------------------------------------------------


def in_user_namespace() -> list[str]:
    """Return the words before a command that makes, or removes, files of other users."""
    # Only in a user namespace can an ordinary user do so: subuid(5).
    return [] if os.geteuid() == 0 else ["mmdebstrap", "--unshare-helper"]


def _remove(path: Path) -> str:
    """Remove a folder; return why that fails, or an empty string."""
    shutil.rmtree(path, ignore_errors=True)
    if path.exists() and (helper := in_user_namespace()):
        # The root directory of a complete guest, whose making was interrupted. The user of the
        # namespace cannot enter the folder by its path, and starts in it.
        environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
        with contextlib.suppress(OSError, SessionError):
            processes.run(
                [*helper, "rm", "-rf", ROOT],
                folder=path / WORK,
                env=environment,
                timeout=seconds(_REMOVING),
            )
        shutil.rmtree(path, ignore_errors=True)
    return (
        f"some of its files cannot be removed: sudo rm -rf {commands.path(path)}"
        if path.exists()
        else ""
    )


# ---- sweeping ------------------------------------------------------------------------------------


def sweep() -> list[Leftover]:
    """Remove parts that a killed isobench was making, and return them."""
    removed: list[Leftover] = []
    if not folder().is_dir():
        return removed
    # If another process holds the lock, it is making a part right now: nothing is removed.
    with contextlib.suppress(OSError), (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unfinished = folder().glob(".making-*")
        removed += [Leftover(what=f"folder {left}", failure=_remove(left)) for left in unfinished]
    return removed
