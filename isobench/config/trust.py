"""Which files that were found, and not named, may be obeyed: those that nobody else can have
written.

A file counts if it and every folder, and every link, that leads to it belong to the caller or to
root, and others may not write there. Two exceptions, both those of the kernel and of sshd:

- A folder that others may write is accepted where its sticky bit is set, as on /tmp. Nobody but its
  owner can replace an entry there, and the entry itself must belong to the caller or to root.
- A group that has one member only counts as its owner: distributions that give each user a group of
  their own often create files that this group may write.
"""

import contextlib
import grp
import os
import pwd
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

MOST_BYTES: Final = 1 << 20
"""No configuration is longer."""
_MOST_LINKS: Final = 40
"""As many as the kernel follows."""
_ACCESS_LIST: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """What a file holds, and why it must not be obeyed: nothing where it may be."""

    data: bytes
    distrust: str


def read(path: Path) -> Content | None:
    """Return what a regular file holds, or None where there is no such file.

    The file is opened once, and what was opened is compared with what the path leads to, so that
    nobody can exchange it between the look and the reading. OSError: a file that could be obeyed
    cannot be read.
    """
    try:
        # Without O_NONBLOCK a named pipe would hold up whoever opens it.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        if not _is_file(path):
            return None
        why = _distrust_of_the_way(path, None)
        if why:
            return Content(data=b"", distrust=why)
        raise
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        why = _distrust_of_the_way(path, opened)
        if not why and opened.st_size > MOST_BYTES:
            why = f"it is longer than {MOST_BYTES} bytes"
        return Content(data=file.read(MOST_BYTES), distrust=why)


def _is_file(path: Path) -> bool:
    """Say whether there is a regular file, as far as this user may know."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def distrust(path: Path) -> str:
    """Return why others may have written what is at this path; nothing where they cannot."""
    return _distrust_of_the_way(path, None)


def _distrust_of_the_way(path: Path, opened: os.stat_result | None) -> str:
    last: os.stat_result | None = None
    try:
        for entry, seen in _way(path):
            last = seen
            why = _fault(seen, entry)
            if why:
                return why if entry == path.absolute() else f"{entry}: {why}"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    if opened is not None and (last is None or not os.path.samestat(last, opened)):
        return "it was exchanged while it was read"
    return ""


def _way(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and every link that leads from the root to a file, and the file."""
    current, links = Path("/"), 0
    ahead = [*reversed(path.absolute().parts[1:])]
    yield current, current.lstat()
    while ahead:
        part = ahead.pop()
        if part == "..":  # of the target of a link: its folder was yielded before
            current = current.parent
            continue
        entry = current / part
        seen = entry.lstat()
        yield entry, seen
        if not stat.S_ISLNK(seen.st_mode):
            current = entry
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(0, "too many symbolic links", str(path))
        target = entry.readlink()
        if target.is_absolute():
            current = Path("/")
        ahead += reversed([one for one in target.parts if one != "/"])


def _fault(seen: os.stat_result, entry: Path) -> str:
    """Return why whoever owns an entry, or may write it, is not to be trusted; or nothing."""
    if seen.st_uid not in (os.geteuid(), 0):
        return f"it belongs to {_user(seen.st_uid)}"
    if stat.S_ISLNK(seen.st_mode):  # the mode of a link means nothing
        return ""
    by_all = seen.st_mode & stat.S_IWOTH
    by_group = seen.st_mode & stat.S_IWGRP and not _private(seen, entry)
    sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
    if (by_all or by_group) and not sticky:
        who = "everyone" if by_all else f"the group {_group(seen.st_gid)}"
        return f"{who} may write it"
    return ""


def _private(seen: os.stat_result, entry: Path) -> bool:
    """Say whether the group of an entry has no member but the caller or root.

    An access control list shows in the bits of the group and may name anybody: then it is not.
    """
    with contextlib.suppress(OSError):
        if os.getxattr(entry, _ACCESS_LIST):
            return False
    trusted = {os.geteuid(), 0}
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(seen.st_gid).gr_mem}
    except KeyError:
        return False
    members |= {user.pw_uid for user in pwd.getpwall() if user.pw_gid == seen.st_gid}
    return bool(members) and members <= trusted


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
