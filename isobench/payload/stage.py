"""Stages on disk: a root directory with payloads, a scratch directory, a canary; all gone at the
end.
"""

import contextlib
import fcntl
import hashlib
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from isobench.config import paths
from isobench.model import Abi, Leftover, Payload, Stage
from isobench.model.units import Sha256
from isobench.payload.build import TOOLS
from isobench.plugins import ownership

MOUNT_POINTS = ("dev", "proc", "scratch", "sys", "tmp")


def digest(payloads: Sequence[Payload]) -> Sha256:
    """Return the hash of a stage's content, whatever the order of its payloads."""
    hashed = hashlib.sha256()
    for payload in sorted(payloads, key=lambda p: p.program):
        hashed.update(f"{payload.program} {payload.sha256}\n".encode())
    return Sha256(hashed.hexdigest())


class Workshop:
    """The folder of one run in the cache: where its stages are made.

    Folders are named after their owner, so that the next start can tell the dead from the living.
    """

    def __init__(self, payloads: Sequence[Payload], folder: Path, cpus: str = "") -> None:
        """Take all payloads of all ABIs, an empty folder, and the CPUs that the run is confined
        to.
        """
        self._payloads, self._folder, self._cpus = payloads, folder, cpus
        self.canary = folder / "canary"
        self.canary.write_text("whoever reads this is not isolated\n")
        self.scratch = folder / "scratch"
        self.scratch.mkdir()
        self.scratch.chmod(0o711)

    def payloads(self, abi: Abi) -> tuple[Payload, ...]:
        """Return what a stage for this ABI holds."""
        return tuple(p for p in self._payloads if p.abi is abi and p.program not in TOOLS)

    def stage(self, abi: Abi) -> Stage:
        """Make a stage with a root of its own."""
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
        (root / "isobench").mkdir(parents=True)
        for name in MOUNT_POINTS:
            (root / name).mkdir()
        # Whatever the umask: the container's user is not the host's.
        for folder in (root, *root.iterdir()):
            folder.chmod(0o755)
        for payload in self.payloads(abi):
            shutil.copyfile(payload.path, root / "isobench" / payload.program)
            (root / "isobench" / payload.program).chmod(0o755)
        return root

    @contextlib.contextmanager
    def fresh(self, stage: Stage, abi: Abi) -> Iterator[Stage]:
        """Yield the same stage in a root directory that no start has used before."""
        root = self._root(abi)
        try:
            yield replace(stage, root=root)
        finally:
            shutil.rmtree(root, ignore_errors=True)


def _runs() -> Path:
    return paths.cache() / "runs"


@contextlib.contextmanager
def workshop(payloads: Sequence[Payload], cpus: str = "") -> Iterator[Workshop]:
    """Open the folder of this run; remove it at the end."""
    folder = _runs() / f"{ownership.mine()}-{secrets.token_hex(4)}"
    folder.mkdir(parents=True, mode=0o711)
    # Others may pass through, not look: an engine's user must reach what it is given by name.
    folder.chmod(0o711)
    try:
        yield Workshop(payloads, folder, cpus)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove and return the folders of runs whose process has died."""
    removed = []
    for folder in sorted(_runs().glob("isobench-*")):
        if not alive(folder.name.rpartition("-")[0]):
            shutil.rmtree(folder, ignore_errors=True)
            failure = "parts of it cannot be removed" if folder.exists() else ""
            removed.append(Leftover(what=f"folder {folder}", failure=failure))
    return removed


def _held(lock: Path) -> bool:
    """Say whether somebody else holds a lock."""
    try:
        with lock.open() as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    return False


def forget() -> list[Leftover]:
    """Remove the whole cache: payloads, compiler cache, settings that a probe has learnt."""
    folder = paths.cache()
    if not folder.is_dir():
        return []
    living = [path.name for path in _runs().glob("isobench-*")]
    if living:
        why = f"a run is using it ({', '.join(living)})"
        return [Leftover(what=f"folder {folder}", failure=why)]
    if any(map(_held, folder.glob("*/lock"))):
        why = "another isobench is making something in it"
        return [Leftover(what=f"folder {folder}", failure=why)]
    size = sum(
        path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    )
    shutil.rmtree(folder, ignore_errors=True)
    return [Leftover(what=f"folder {folder} ({size / 1e6:.1f} MB)")]
