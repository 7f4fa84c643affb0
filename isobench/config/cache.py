"""The cache folder: only its owner writes it, and what is kept in it is verified before each use.

Programs in the cache run with the rights of the user, often of root, and notes in it hold commands.
So isobench uses no cache folder that somebody else owns or may write; where it owns the folder, it
corrects the mode. A kept file has its SHA-256 beside it: a file that is damaged, cut off or
replaced does not match, and is made again.
"""

import contextlib
import functools
import hashlib
import os
import secrets
import shlex
import stat
from pathlib import Path
from typing import Final

from isobench.config import bounded, paths, trust
from isobench.model.errors import UsageError

_ENTERED: Final = frozenset({"", "runs", "payloads", "gvisor"})
"""Folders that other users may pass through, and not list: the users inside containers and
sandboxes must reach the files whose paths they are given. All others are the owner's alone.
"""
NOTES: Final = ("machines", "pods")
"""Folders of notes (*.json) on what runs outside of this process, and how it is ended. A sweep
removes a note together with what it is about.
"""
_PASSING: Final = 0o711
_PRIVATE: Final = 0o700
_ALL_IDS: Final = ("0", "0", "4294967295")
_DIGEST: Final = ".sha256"


def folder(name: str = "") -> Path:
    """Return the cache folder or a folder in it, which need not exist.

    UsageError: somebody else owns it, or may write it.
    """
    root = paths.cache()
    _check(root, "")
    return _check(root, name) if name else root


def made(name: str = "") -> Path:
    """Return the cache folder or a folder in it, made where it does not exist.

    UsageError as in `folder`. OSError: it cannot be made.
    """
    path = folder(name)
    if not path.is_dir():
        # Before anything is made: root with the HOME of a user would make folders there that this
        # user can neither use nor remove.
        _check_parent(path)
        for part in (*reversed(path.parents), path):
            # Not with `parents`: that would ignore the mode, and with umask 0 anybody could write.
            with contextlib.suppress(FileExistsError):
                part.mkdir(mode=_mode(name) if part == path else _PASSING)
        _check.cache_clear()
        folder(name)
    return path


def _mode(name: str) -> int:
    return _PASSING if name in _ENTERED else _PRIVATE


def _check_parent(path: Path) -> None:
    """Check the nearest folder on a path that exists; UsageError: nothing is safe in it."""
    parent = next(one for one in path.parents if one.exists())
    if _has_all_users() and (reason := trust.distrust(parent)):
        place, _, _ = reason.rpartition(": ")
        raise _refused(path, reason if place else f"{parent}: {reason}")


@functools.cache
def _check(root: Path, name: str) -> Path:
    """Check a folder once in each process, and correct its mode; UsageError: it is not safe."""
    path = root / name
    try:
        # A user may link the cache to another disk. The link counts as part of the path below.
        found = path.stat()
    except OSError:
        return path
    if found.st_uid != os.geteuid():
        raise _refused(path, f"it belongs to {trust.user_name(found.st_uid)}")
    if not stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is not a folder", hint=f"remove {path}")
    wanted = _mode(name)
    if stat.S_IMODE(found.st_mode) & ~wanted:
        with contextlib.suppress(OSError):
            path.chmod(stat.S_IMODE(found.st_mode) & wanted)
        if path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise _refused(path, "others may write it, and its mode cannot be changed")
    reason = trust.distrust(path)
    # In a user namespace with few users, all others own everything under one number, root too.
    if reason and _has_all_users():
        raise _refused(path, reason)
    return path


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(
        f"the cache {path} is not used: {why}, and could have put programs there",
        hint=_remedy(path, why),
    )


def _remedy(path: Path, why: str) -> str:
    """Return what to type; `why` begins with the place on the path, if that is not its end."""
    place, _, reason = why.rpartition(": ")
    who = "root" if os.geteuid() == 0 else "you"
    another = f"XDG_CACHE_HOME=/folder/that/only/{who}/may/write"
    if not reason.startswith("it belongs to"):
        return f"chmod go-w {shlex.quote(place or str(path))}; or {another}"
    if os.geteuid() == 0:  # sudo that keeps the HOME of the user
        return f"sudo -H; or {another}"
    if place:  # a folder that is not isobench's alone
        return another
    owned = shlex.quote(str(path))
    return f"sudo chown -R $(id -un) {owned}; or sudo rm -r {owned}; or {another}"


def _has_all_users() -> bool:
    try:
        maps = Path("/proc/self/uid_map").read_text(encoding="ascii").split()
    except OSError:
        return True
    return tuple(maps) == _ALL_IDS


# ---- files that are kept -------------------------------------------------------------------------


def content(path: Path, sha256: str) -> bytes | None:
    """Return the content of a regular file; None unless it has this SHA-256.

    A symbolic link at the end of the path is not followed.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            found = file.read()
        except OSError:
            return None
    return found if hashlib.sha256(found).hexdigest() == sha256 else None


def verified(path: Path) -> bytes | None:
    """Return the content of a file that `keep` has written; None unless it is as it was."""
    try:
        expected = path.with_name(path.name + _DIGEST).read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return content(path, expected)


def keep(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file with its SHA-256 beside it, each completely or not at all."""
    digest = f"{hashlib.sha256(data).hexdigest()}\n".encode()
    # The program first: a new hash beside an old program would only mean that it is made again.
    replace(path, data, mode=mode)
    replace(path.with_name(path.name + _DIGEST), digest)


def kept_in(folder: Path) -> list[Path]:
    """Return the files of a folder that `keep` has written."""
    return [path for path in folder.iterdir() if path.suffix != _DIGEST]


def forget(path: Path) -> None:
    """Remove a file that `keep` has written. Without its hash it would not be used any more."""
    path.with_name(path.name + _DIGEST).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def replace(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write a file, completely or not at all. Another process sees the old file or the new."""
    draft = path.with_name(f".{secrets.token_hex(8)}")
    # O_EXCL follows no symbolic link: open(2).
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(draft, flags, 0o600), "wb") as file:
            file.write(data)
            # After the content: nobody executes half a program. The umask does not change it.
            os.fchmod(file.fileno(), mode)
        draft.replace(path)
    except OSError as error:
        raise bounded.with_file(error, path) from None
    finally:
        draft.unlink(missing_ok=True)
