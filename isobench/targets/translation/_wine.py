"""Wine as it is installed, the prefix that programs run in, and instances of it.

A prefix is made once for a version of Wine, by Wine itself, and kept in the cache. Its 700 MB are
copies of Wine's own libraries: each becomes a link to the file that it is a copy of, and what is
left is 3 MB. Every instance is a copy of it, with a server of its own: no two sessions, runs or
users meet in one.
"""

import contextlib
import fcntl
import filecmp
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isobench.config import paths
from isobench.model import Leftover
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.targets.shared import processes

FORMAT: Final = 1
"""Of the prefixes in the cache; another number makes every prefix anew."""
_LOADERS: Final = ("wine64", "wine")
_SERVERS: Final = ("wineserver64", "wineserver")
_FOLDERS: Final = (
    *("/usr/lib/wine", "/usr/lib64/wine", "/opt/wine-stable/bin"),
    *("/opt/wine-devel/bin", "/opt/wine-staging/bin", "/usr/local/bin"),
)
"""Where distributions put what is not on the PATH, or is behind a script there."""
_LIBRARIES: Final = ("lib/wine", "lib64/wine", "lib/*/wine", "*/wine", "wine")
_PATIENCE: Final = 300.0
"""Seconds in which a prefix is made: 5 where all is in memory, a minute from a slow disk."""
_SPACE: Final = "df -h ~/.cache; another place: XDG_CACHE_HOME=/folder/on/a/disk"

Say = Callable[[str], None]


def folder() -> Path:
    """Return where prefixes and instances are kept."""
    return paths.cache() / "wine"


# ---- what is installed ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wine:
    """An installation."""

    loader: Path
    """Runs a program for Windows."""
    server: Path
    """What all programs of a prefix talk to."""
    libraries: Path
    """Wine's libraries as PE files: `ntdll.dll` and what a prefix holds copies of."""
    version: str
    """As it says itself: "wine-8.0 (Debian 8.0~repack-4)"."""

    def environment(self, prefix: Path) -> dict[str, str]:
        """Return all variables that Wine needs, and that mark its processes as isobench's."""
        return {
            "WINEPREFIX": str(prefix),
            "WINESERVER": str(self.server),
            "WINEDEBUG": "-all",
            # No .NET, no HTML engine, no menu entries: none is asked about, none is made.
            "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
            "HOME": str(prefix),
            # Arguments go through UTF-16: in another locale bytes would be lost on the way.
            "LC_ALL": "C.UTF-8",
            **processes.tied(),
        }

    @property
    def key(self) -> str:
        """The name of its prefix: another Wine has another."""
        hashed = hashlib.sha256(f"{FORMAT} {self.version} {self.libraries}".encode())
        with (self.libraries / "ntdll.dll").open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
        return hashed.hexdigest()[:32]


def _programs(names: Sequence[str], first: Sequence[Path]) -> Iterator[Path]:
    """Yield the programs of these names that are there, a script's own program before it."""
    for name in names:
        found = shutil.which(name)
        for place in (*first, *map(Path, _FOLDERS), *([Path(found).parent] if found else [])):
            path = place / name
            if path.is_file() and os.access(path, os.X_OK):
                yield path


def _libraries(loader: Path) -> Path | None:
    """Return the folder of Wine's PE libraries, which lies somewhere beside its loader."""
    real = loader.resolve()
    for base in (real.parent, real.parent.parent):
        for pattern in _LIBRARIES:
            for found in sorted(base.glob(f"{pattern}/x86_64-windows/ntdll.dll")):
                return found.parent
    return None


class MissingError(Exception):
    """What is not there, in words: `args` has the name of a program or of a library."""


def find(loader: str) -> Wine:
    """Return the installation with this loader, or with the first that is found for "".

    MissingError where something of it is missing; nothing is started but `--version`.
    """
    if loader:
        path: Path | None = Path(loader).expanduser()
        if not (path and path.is_file() and os.access(path, os.X_OK)):
            raise MissingError(loader)
    else:
        path = next(_programs(_LOADERS, ()), None)
    if path is None:
        raise MissingError(" or ".join(_LOADERS))
    server = next(_programs(_SERVERS, (path.parent, path.resolve().parent)), None)
    if server is None:
        raise MissingError(f"{_SERVERS[-1]} beside {path}")
    libraries = _libraries(path)
    if libraries is None:
        raise MissingError(f"64-bit libraries (x86_64-windows/ntdll.dll) beside {path}")
    version = processes.output_of([str(path), "--version"])
    if version is None:
        raise MissingError(f"a version of {path}: it does not run")
    return Wine(loader=path, server=server, libraries=libraries, version=version.splitlines()[0])


# ---- ending all that runs in a prefix ------------------------------------------------------------


def _sockets(prefix: Path) -> list[Path]:
    """Return the folders in /tmp in which the server of a prefix keeps its socket.

    They are named after the prefix's device and inode; Debian's Wine puts them into a folder of a
    random name, which it notes in the prefix.
    """
    found = []
    temporary = Path("/tmp")  # noqa: S108 - Wine's own choice, whatever TMPDIR says
    with contextlib.suppress(OSError):
        status = prefix.stat()
        name = f"server-{status.st_dev:x}-{status.st_ino:x}"
        found.append(temporary / f".wine-{os.getuid()}" / name)
    with contextlib.suppress(OSError, UnicodeDecodeError):
        noted = (prefix / "wineserver").read_text().strip("\0\n ")
        if noted.startswith("wine-") and "/" not in noted:
            found.append(temporary / noted)
    return [path for path in found if path.is_dir() and path.stat().st_uid == os.getuid()]


def end(prefix: Path) -> None:
    """End everything that runs in a prefix, and wait for it; SessionError where it stays."""
    left = processes.end_all("WINEPREFIX", str(prefix))
    if left:
        names = " ".join(map(str, left))
        raise SessionError(f"processes of Wine do not end: {names}", hint=f"kill -9 {names}")
    for place in _sockets(prefix):
        shutil.rmtree(place, ignore_errors=True)


# ---- the prefix in the cache ---------------------------------------------------------------------


@contextlib.contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SessionError(f"Wine's prefix cannot be written: {error}", hint=_SPACE) from None


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Wait until no other isobench is making a prefix."""
    folder().mkdir(parents=True, exist_ok=True)
    with (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def made(wine: Wine) -> bool:
    """Say whether this version's prefix is in the cache."""
    return (folder() / wine.key / "system.reg").is_file()


def base(wine: Wine, say: Say = lambda _: None) -> Path:
    """Return the prefix that instances are copies of, made if it is not there."""
    path = folder() / wine.key
    with _writing():
        if made(wine):
            return path
        with _alone():
            if made(wine):
                return path
            say(f"making a prefix for {wine.version}: 5 to 60 s, once")
            with tempfile.TemporaryDirectory(dir=folder(), prefix=".making-") as work:
                prefix = Path(work) / "prefix"
                prefix.mkdir()
                try:
                    _initialise(wine, prefix)
                finally:
                    end(prefix)
                _shrink(wine, prefix)
                prefix.rename(path)
    return path


def _quietly(argv: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    """Run a command of Wine's; SessionError where it fails.

    The services that come up with it keep its streams, and would keep a pipe open.
    """
    none = subprocess.DEVNULL
    words = [str(word) for word in argv]
    try:
        subprocess.run(
            words, env=environment, stdin=none, stdout=none, stderr=none,
            check=True, timeout=_PATIENCE, start_new_session=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise SessionError(
            f"Wine: {error}", hint=f"see what it says: WINEPREFIX=/tmp/try {' '.join(words)}"
        ) from None


def _initialise(wine: Wine, prefix: Path) -> None:
    """Have Wine fill a prefix, as it does for a user's first program."""
    environment = wine.environment(prefix)
    _quietly([wine.loader, "wineboot", "--init"], environment)
    # The registry is written when the server ends.
    _quietly([wine.server, "--kill"], environment)
    _quietly([wine.server, "--wait"], environment)
    if not (prefix / "system.reg").is_file():
        raise SessionError(
            f"{wine.version} has made a prefix without a registry",
            hint=f"see what it says: WINEPREFIX=/tmp/try {wine.loader} wineboot --init",
        )


def _shrink(wine: Wine, prefix: Path) -> None:
    """Turn copies of Wine's own files into links to them; leave no link to the user's home."""
    texts = [parent / "share/wine/nls" for parent in wine.loader.resolve().parents]
    originals = {
        path.name: path
        for place in (*texts, wine.libraries)
        if place.is_dir()
        for path in place.iterdir()
    }
    for path in sorted((prefix / "drive_c").rglob("*")):
        original = originals.get(path.name)
        if path.is_symlink():
            path.unlink()
            path.mkdir()
        elif path.is_file() and original and filecmp.cmp(path, original, shallow=False):
            path.unlink()
            path.symlink_to(original)
    for link in (prefix / "dosdevices").iterdir():
        if link.name != "c:":
            link.unlink()
    # Wine brings a prefix up to date when its own description is younger: this one never is.
    (prefix / ".update-timestamp").write_text("disable\n")
    (prefix / "wineserver").unlink(missing_ok=True)


# ---- instances -----------------------------------------------------------------------------------


def _drives(prefix: Path, drives: Mapping[str, Path]) -> None:
    for letter, path in drives.items():
        (prefix / "dosdevices" / f"{letter}:").symlink_to(path)


@contextlib.contextmanager
def instance(wine: Wine, drives: Mapping[str, Path], whose: str) -> Iterator[Path]:
    """Yield a fresh copy of the prefix in which these folders are drives; nothing runs in it yet.

    Whatever does at the end is ended.
    """
    with _writing():
        source = base(wine)
        prefix = folder() / f"{whose}-{os.urandom(4).hex()}"
        try:
            shutil.copytree(source, prefix, symlinks=True)
            _drives(prefix, {"z": Path("/"), **drives})
        except OSError:
            shutil.rmtree(prefix, ignore_errors=True)
            raise
    try:
        yield prefix
    finally:
        try:
            end(prefix)
        finally:
            shutil.rmtree(prefix, ignore_errors=True)


def wake(wine: Wine, prefix: Path) -> None:
    """Start a prefix's server, which then stays, and its services; SessionError where they do not
    come.
    """
    _quietly([wine.server, "--persistent"], wine.environment(prefix))
    # The first program brings the services up; `hostname` is Wine's own, and leaves at once.
    _quietly([wine.loader, "hostname"], wine.environment(prefix))


def complaint(wine: Wine, program: bytes, answer: bytes) -> str:
    """Run a program in a prefix made for it by hand; return nothing when it gave this answer, and
    else the last that was said.

    That prefix has Wine's libraries and no registry: it takes half a second where a whole one takes
    twenty.
    """
    with tempfile.TemporaryDirectory(prefix="isobench-probe-") as work:
        prefix = Path(work) / "prefix"
        (prefix / "drive_c" / "windows").mkdir(parents=True)
        system = prefix / "drive_c" / "windows" / "system32"
        system.mkdir()
        for original in wine.libraries.iterdir():
            (system / original.name).symlink_to(original)
        (prefix / "dosdevices").mkdir()
        _drives(prefix, {"c": prefix / "drive_c", "z": Path("/"), "i": Path(work)})
        (prefix / ".update-timestamp").write_text("disable\n")
        (Path(work) / "answer").write_bytes(program)
        try:
            done = processes.run(
                [wine.loader, "I:\\answer"],
                timeout=seconds(30),
                env=wine.environment(prefix),
                end_survivors=lambda: end(prefix),
            )
        except OSError as error:
            return str(error)
        finally:
            end(prefix)
    return "" if done.stdout == answer else processes.last_line(done.stderr)


def sweep(alive: Callable[[str], bool], *, cached: bool) -> list[Leftover]:
    """Remove the instances of runs that have died, and with `cached` the prefixes, too."""
    removed: list[Leftover] = []
    if not folder().is_dir():
        return removed
    instances = sorted(folder().glob("isobench-*-*-*-*"))
    removed += [_removed(i, i) for i in instances if not alive(i.name.rpartition("-")[0])]
    # Whoever holds the lock is making something, and lives.
    with contextlib.suppress(OSError), (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        removed += [_removed(left, left / "prefix") for left in folder().glob(".making-*")]
        if cached:
            removed += [_removed(left, left) for left in folder().glob("[0-9a-f]" * 32)]
    return removed


def _removed(left: Path, prefix: Path) -> Leftover:
    try:
        end(prefix)
    except SessionError as error:
        return Leftover(what=f"folder {left}", failure=str(error))
    shutil.rmtree(left, ignore_errors=True)
    failure = "parts of it cannot be removed" if left.exists() else ""
    return Leftover(what=f"folder {left}", failure=failure)
