"""Makes the stages of a run on disk: root directories with payloads, a scratch directory, a canary.
All are removed at the end of the run.
"""

import contextlib
import fcntl
import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from isobench.config import cache
from isobench.model import Abi, Leftover, Payload, Stage
from isobench.model.errors import PayloadError
from isobench.model.units import Sha256
from isobench.payload.build import TOOLS
from isobench.plugins import folders, ownership

# bubblewrap and runc cannot make mount points in a root that is read-only: they must exist.
MOUNT_POINTS = ("dev", "proc", "scratch", "sys", "tmp")


def digest(payloads: Sequence[Payload]) -> Sha256:
    """Return the hash of a stage's content. The order of the payloads does not matter."""
    hashed = hashlib.sha256()
    # The hash names images: another order must not make another image.
    for payload in sorted(payloads, key=lambda p: p.program):
        hashed.update(f"{payload.program} {payload.sha256}\n".encode())
    return Sha256(hashed.hexdigest())


class Workshop:
    """The folder of one run in the cache, which holds its stages.

    Its name contains the owner (`plugins.ownership`), so that a later run can remove the folders of
    runs that have died.
    """

    def __init__(self, payloads: Sequence[Payload], folder: Path, cpus: str = "") -> None:
        """Take all payloads of all ABIs, an empty folder, and the CPUs of the run ("0,2-3")."""
        self._payloads, self._folder, self._cpus = payloads, folder, cpus
        self.canary = folder / "canary"
        # The evidence payload tries to read this by its path on the host.
        self.canary.write_text("a process that can read this is not isolated\n")
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        # mkdir's mode is reduced by the umask, chmod's is not: umask(2).
        self.scratch.chmod(0o711)

    def payloads(self, abi: Abi) -> tuple[Payload, ...]:
        """Return the payloads of a stage for this ABI."""
        return tuple(p for p in self._payloads if p.abi is abi and p.program not in TOOLS)

    def stage(self, abi: Abi) -> Stage:
        """Make a stage with its own root directory."""
        root = self._root(abi)
        return Stage(
            root=root,
            digest=digest(self.payloads(abi)),
            tools={p.program: p.path for p in self._payloads if p.program in TOOLS},
            scratch=self.scratch,
            owner=ownership.mine(),
            cpus=self._cpus,
        )

    def _root(self, abi: Abi) -> Path:
        root = self._folder / f"root-{abi}-{secrets.token_hex(4)}"
        try:
            self._fill(root, abi)
        except BaseException:
            # Half of one would take the space that a full disk lacks, until the end of the run.
            shutil.rmtree(root, ignore_errors=True)
            raise
        return root

    def _fill(self, root: Path, abi: Abi) -> None:
        (root / "isobench").mkdir(parents=True)
        for name in MOUNT_POINTS:
            (root / name).mkdir()
        # With a strict umask the user of a container, who is another one, could not enter.
        for folder in (root, *root.iterdir()):
            folder.chmod(0o755)
        for payload in self.payloads(abi):
            # Verified again for each stage: a program of the cache may have been damaged since the
            # run began. Nothing is timed here.
            content = cache.content(payload.path, payload.sha256)
            if content is None:
                raise PayloadError(
                    f"the program {payload.path} is not the one that was built: it was damaged or"
                    " replaced during the run",
                    hint="measure again: isobench builds it again",
                )
            cache.replace(root / "isobench" / payload.program, content, mode=0o755)

    @contextlib.contextmanager
    def fresh(self, stage: Stage, abi: Abi) -> Iterator[Stage]:
        """Yield the same stage with a root directory that no start has used before."""
        root = self._root(abi)
        try:
            yield replace(stage, root=root)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _runs() -> Path:
    return cache.folder("runs")


@contextlib.contextmanager
def _own_folder(mode: int) -> Iterator[Path]:
    with folders.removed_at_end(f"{ownership.mine()}-", cache.made("runs")) as folder:
        folder.chmod(mode)
        yield folder


@contextlib.contextmanager
def cache_in_use() -> Iterator[None]:
    """Keep others from removing the cache (`remove_cache`) before a run has its workshop."""
    with _own_folder(0o700):
        yield


@contextlib.contextmanager
def workshop(payloads: Sequence[Payload], cpus: str = "") -> Iterator[Workshop]:
    """Make the folder of this run, and remove it at the end."""
    # Others may enter the folder and not list it: the users inside containers must reach the files
    # whose paths they are given.
    with _own_folder(0o711) as folder:
        yield Workshop(payloads, folder, cpus)


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the folders of runs, and of programs that were being built, whose process has died.

    Return them.
    """
    places = (_runs(), cache.folder("payloads"))
    return [left for place in places for left in ownership.sweep_folders(place, alive)]


def _is_locked(lock: Path) -> bool:
    """Return whether another process holds a lock."""
    # Locks of flock(2) end with their process, so that a file alone does not mean that it is held.
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def remove_cache() -> list[Leftover]:
    """Remove the whole cache (payloads, compiler cache, results of probes), unless it is in use.

    Notes stay (`cache.NOTES`): those that are left are about things that could not be removed.
    """
    folder = cache.folder()
    if not folder.is_dir():
        return []
    # What runs, is built or is tried has a folder somewhere in it that names its owner.
    using = sorted(
        path.name
        for path in folder.glob("*/isobench-*")
        if (owner := ownership.owner_of(path.name)) and ownership.alive(owner)
    )
    if using:
        why = f"another isobench is using it ({', '.join(using)})"
        return [Leftover(what=f"folder {folder}", failure=why)]
    if any(map(_is_locked, folder.glob("*/lock"))):
        why = "another isobench is writing to it"
        return [Leftover(what=f"folder {folder}", failure=why)]
    # A cache may be a link to a folder on another disk: that folder is emptied, and the link stays.
    real = folder.resolve()
    notes = [path for name in cache.NOTES for path in (real / name).glob("*.json")]
    size = sum(
        path.stat().st_size
        for path in _without(real, notes)
        if path.is_file() and not path.is_symlink()
    )
    if notes and not _without(real, notes):
        return []
    _remove(real, notes)
    failure = "some of its files cannot be removed" if _without(real, notes) else ""
    return [Leftover(what=f"folder {folder} ({size / 1e6:.1f} MB)", failure=failure)]


def _without(folder: Path, notes: Sequence[Path]) -> list[Path]:
    """Return what is in a folder, and the folder itself, but for the notes and what holds them."""
    kept = {parent for note in notes for parent in (note, *note.parents)}
    found = [folder, *folder.rglob("*")] if folder.exists() else []
    return [path for path in found if path not in kept]


def _remove(path: Path, notes: Sequence[Path]) -> None:
    """Remove a folder or a file, but for the notes in it. What cannot be removed stays."""
    if any(note.is_relative_to(path) for note in notes):
        for inner in path.iterdir() if path not in notes else ():
            _remove(inner, notes)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()
