"""The installed Wine, the prefix in which its programs run, and instances of that prefix.

Wine makes the prefix, once for each version, and isobench keeps it in the cache. Of its 700 MB most
are copies of Wine's own libraries. isobench replaces them by links to the originals, which leaves
3 MB. Each instance is a copy with a server of its own, so that sessions do not affect each other.

Sources: wine(1), wineserver(1), wineboot(1).
"""

import contextlib
import fcntl
import filecmp
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isobench.config import bounded, cache
from isobench.model import Leftover, commands
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import seconds
from isobench.plugins import deadlines, folders, ownership
from isobench.targets.shared import processes

FORMAT: Final = 1
"""Version of the prefixes in the cache: with another number every prefix is made again."""
_LOADERS: Final = ("wine64", "wine")
_SERVERS: Final = ("wineserver64", "wineserver")
_FOLDERS: Final = (
    *("/usr/lib/wine", "/usr/lib64/wine", "/opt/wine-stable/bin"),
    *("/opt/wine-devel/bin", "/opt/wine-staging/bin", "/usr/local/bin"),
)
"""Folders of programs that are not on PATH, or of which PATH has only a script that starts them."""
_LIBRARIES: Final = ("lib/wine", "lib64/wine", "lib/*/wine", "*/wine", "wine")
_INIT_TIMEOUT: Final = 300.0
"""Seconds for making a prefix. It takes 5 s from the page cache, and a minute from a slow disk."""
_LONGEST_NAME: Final = 4096
"""Bytes of a file that names a socket."""
_MOST_OUTPUT: Final = 65_536
"""Bytes of a command's output that are looked at, as many as a pipe holds."""
_SPACE: Final = "df -h ~/.cache; to use another disk: XDG_CACHE_HOME=/folder/on/that/disk"

Say = Callable[[str], None]


def folder() -> Path:
    """Return the folder of prefixes and instances."""
    return cache.folder("wine")


# ---- the installation ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Wine:
    """An installation of Wine."""

    loader: Path
    """The program that executes programs for Windows."""
    server: Path
    """wineserver, which all programs of a prefix use."""
    libraries: Path
    """Folder of Wine's libraries in PE format; a prefix has copies of them."""
    version: str
    """The output of --version: "wine-8.0 (Debian 8.0~repack-4)"."""

    def environment(self, prefix: Path) -> dict[str, str]:
        """Return the variables for Wine, with those that mark processes as isobench's."""
        return {
            "WINEPREFIX": str(prefix),
            "WINESERVER": str(self.server),
            "WINEDEBUG": "-all",
            # Disables .NET and the HTML engine, which Wine would offer to download in a dialogue,
            # and entries in the desktop's menu.
            "WINEDLLOVERRIDES": "mscoree=;mshtml=;winemenubuilder.exe=",
            "HOME": str(prefix),
            # Wine converts arguments to UTF-16: with another character set bytes would be lost.
            "LC_ALL": "C.UTF-8",
            **processes.tied(),
        }

    @property
    def key(self) -> str:
        """The name of its prefix in the cache: each build of Wine has its own."""
        # Distributions rebuild a version of Wine: the content of a library distinguishes them.
        hashed = hashlib.sha256(f"{FORMAT} {self.version} {self.libraries}".encode())
        with (self.libraries / "ntdll.dll").open("rb") as file:
            hashed.update(hashlib.file_digest(file, "sha256").digest())
        return hashed.hexdigest()[:32]


def _programs(names: Sequence[str], first: Sequence[Path]) -> Iterator[Path]:
    """Yield existing programs with these names.

    The known folders come before PATH, where a distribution may have put a script.
    """
    for name in names:
        found = shutil.which(name)
        for place in (*first, *map(Path, _FOLDERS), *([Path(found).parent] if found else [])):
            path = place / name
            if path.is_file() and os.access(path, os.X_OK):
                yield path


def _libraries(loader: Path) -> Path | None:
    """Return the folder of Wine's PE libraries, near its loader; distributions differ in it."""
    real = loader.resolve()
    for base in (real.parent, real.parent.parent):
        for pattern in _LIBRARIES:
            for found in sorted(base.glob(f"{pattern}/x86_64-windows/ntdll.dll")):
                return found.parent
    return None


class MissingError(Exception):
    """A program or library of Wine is missing; its text says which one."""


def find(loader: str) -> Wine:
    """Return the installation with this loader, or the first one found if `loader` is empty.

    Executes only `--version`. Raises MissingError if a part is missing.
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
        raise MissingError(f"{_SERVERS[-1]} for {path}")
    libraries = _libraries(path)
    if libraries is None:
        raise MissingError(f"64-bit libraries (x86_64-windows/ntdll.dll) for {path}")
    version = processes.output_of([str(path), "--version"])
    if not version:
        raise MissingError(f"a version of {path}: it does not run, or prints none")
    return Wine(loader=path, server=server, libraries=libraries, version=version.splitlines()[0])


# ---- ending the processes of a prefix ------------------------------------------------------------


def _sockets(prefix: Path) -> list[Path]:
    """Return the folders in /tmp with the socket of a prefix's server.

    Wine names them after the device and inode of the prefix (wineserver(1)). Debian's Wine uses a
    random name, which it writes to the file wineserver in the prefix.
    """
    found = []
    temporary = Path("/tmp")  # noqa: S108 - Wine always uses it, and ignores TMPDIR
    with contextlib.suppress(OSError):
        status = prefix.stat()
        name = f"server-{status.st_dev:x}-{status.st_ino:x}"
        found.append(temporary / f".wine-{os.getuid()}" / name)
    # A program can write to its prefix: this may be no file, or a long one, and the name must not
    # lead out of /tmp.
    with contextlib.suppress(OSError, UnicodeDecodeError, UsageError):
        content = bounded.read(prefix / "wineserver", most=_LONGEST_NAME, hint="")
        name = content.decode().strip("\0\n ")
        if name.startswith("wine-") and "/" not in name:
            found.append(temporary / name)
    return [path for path in found if path.is_dir() and path.stat().st_uid == os.getuid()]


def end(prefix: Path) -> None:
    """Kill all processes of a prefix, and wait for their end.

    Raises SessionError if some do not end.
    """
    # Services of Wine are no descendants of isobench: the variable in their environment finds them.
    left = processes.end_all("WINEPREFIX", str(prefix))
    if left:
        names = " ".join(map(str, left))
        raise SessionError(f"processes of Wine do not end: {names}", hint=f"kill -9 {names}")
    # A server that is killed does not remove its socket.
    for place in _sockets(prefix):
        shutil.rmtree(place, ignore_errors=True)


# ---- the prefix in the cache ---------------------------------------------------------------------


@contextlib.contextmanager
def _write_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SessionError(f"Wine's prefix cannot be written: {error}", hint=_SPACE) from None


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Wait until no other isobench makes a prefix, and keep others waiting."""
    cache.made("wine")
    with (folder() / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def is_cached(wine: Wine) -> bool:
    """Return whether the prefix of this installation is in the cache."""
    return (folder() / wine.key / "system.reg").is_file()


def base(wine: Wine, say: Say = lambda _: None) -> Path:
    """Return the prefix that instances are copies of; make it at first use.

    `say` gets a line before it is made. Raises SessionError if that fails.
    """
    path = folder() / wine.key
    with _write_errors():
        if is_cached(wine):
            return path
        with _locked():
            # Another process may have made it while this one waited.
            if is_cached(wine):
                return path
            say(f"making a prefix for {wine.version}: 5 to 60 s, once")
            with folders.removed_at_end(".making-", folder()) as work:
                prefix = work / "prefix"
                prefix.mkdir()
                try:
                    _initialise(wine, prefix)
                finally:
                    # Before the folder is moved or removed: a server would write to its old path.
                    end(prefix)
                _shrink(wine, prefix)
                prefix.rename(path)
    return path


def _quietly(argv: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    """Run a command of Wine and ignore its output. Raises SessionError if it fails."""
    words = [str(word) for word in argv]
    limit = deadlines.left(_INIT_TIMEOUT)
    # services.exe and others inherit the streams of the command that starts them: this pipe may
    # never end. When it is full, what they write is lost, and they do not wait.
    reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        process = processes.popen(
            words, env=environment, stdin=subprocess.DEVNULL, stdout=writing, stderr=writing
        )
        try:
            code = process.wait(limit)
        finally:
            processes.end(process)
        if code != 0:
            raise OSError(f"exit code {code} of {shlex.join(words)}: {_last_line(reading)}")
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SessionError(
            f"Wine: {error}", hint=f"see its output: WINEPREFIX=/tmp/try {shlex.join(words)}"
        ) from None
    finally:
        os.close(reading)
        os.close(writing)


def _last_line(reading: int) -> str:
    """Return the last line that is in a pipe now."""
    try:
        return processes.last_line(os.read(reading, _MOST_OUTPUT))
    except BlockingIOError:
        return processes.last_line(b"")


def _initialise(wine: Wine, prefix: Path) -> None:
    """Fill a prefix by Wine itself, as at the first program of a user."""
    environment = wine.environment(prefix)
    _quietly([wine.loader, "wineboot", "--init"], environment)
    # The server writes the registry to files when it ends.
    _quietly([wine.server, "--kill"], environment)
    _quietly([wine.server, "--wait"], environment)
    if not (prefix / "system.reg").is_file():
        raise SessionError(
            f"{wine.version} has made a prefix without a registry",
            hint="see its output: WINEPREFIX=/tmp/try"
            f" {commands.path(wine.loader)} wineboot --init",
        )


def _shrink(wine: Wine, prefix: Path) -> None:
    """Replace copies of Wine's own files by links to them, and links to the user's home by folders.

    Wine links folders such as Documents to the user's home, where programs could write.
    """
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
    # Wine updates a prefix if its wine.inf has another time than this file names; "disable" turns
    # that off (wineboot).
    (prefix / ".update-timestamp").write_text("disable\n")
    (prefix / "wineserver").unlink(missing_ok=True)


# ---- instances -----------------------------------------------------------------------------------


def _drives(prefix: Path, drives: Mapping[str, Path]) -> None:
    for letter, path in drives.items():
        (prefix / "dosdevices" / f"{letter}:").symlink_to(path)


@contextlib.contextmanager
def instance(wine: Wine, drives: Mapping[str, Path], owner: str) -> Iterator[Path]:
    """Yield a new copy of the prefix with these folders as drives. No process runs in it yet.

    `owner` becomes a part of its name, for `sweep`. At the end all processes of it are killed.
    """
    with _write_errors():
        source = base(wine)
        prefix = folder() / f"{owner}-{os.urandom(4).hex()}"
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


def start_server(wine: Wine, prefix: Path) -> None:
    """Start the server and the services of a prefix, which then keep running.

    Raises SessionError if they do not start.
    """
    # Without --persistent the server ends two seconds after its last client.
    _quietly([wine.server, "--persistent"], wine.environment(prefix))
    # The first program starts the services. `hostname` is a program of Wine that exits at once.
    _quietly([wine.loader, "hostname"], wine.environment(prefix))


def trial_error(wine: Wine, program: bytes, answer: bytes) -> str:
    """Run a program in a minimal prefix; return an empty string if it prints `answer`.

    Otherwise the last line of standard error is returned. The prefix has Wine's libraries and no
    registry: a probe takes half a second, where a complete prefix takes twenty.
    """
    with ownership.temporary_folder("probe") as work:
        prefix = work / "prefix"
        (prefix / "drive_c" / "windows").mkdir(parents=True)
        system = prefix / "drive_c" / "windows" / "system32"
        system.mkdir()
        for original in wine.libraries.iterdir():
            (system / original.name).symlink_to(original)
        (prefix / "dosdevices").mkdir()
        _drives(prefix, {"c": prefix / "drive_c", "z": Path("/"), "i": work})
        (prefix / ".update-timestamp").write_text("disable\n")
        (work / "answer").write_bytes(program)
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
    """Remove the instances of dead runs and, with `cached`, the prefixes."""
    removed: list[Leftover] = []
    if not folder().is_dir():
        return removed
    instances = sorted(folder().glob("isobench-*-*-*-*"))
    removed += [_removed(i, i) for i in instances if not alive(i.name.rpartition("-")[0])]
    # If another process holds the lock, it is making a prefix right now: nothing is removed.
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
    return ownership.removed_folder(left)
