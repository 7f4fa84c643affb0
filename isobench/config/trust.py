"""Decides which configuration files can be trusted: those that nobody else can have written.

A configuration can hold commands, so a file that isobench finds by itself is used only if it, every
folder and every symbolic link on its path belong to the caller or to root, and nobody else may
write them. There are two exceptions:

- A folder that others may write is accepted if its sticky bit is set, as on /tmp: there only the
  owner of an entry can replace it (inode(7), S_ISVTX). The entry itself must belong to the caller
  or to root.
- A group without other members counts as its owner. Distributions that give each user a private
  group often let this group write the user's files (umask 002).
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

from isobench.config import redaction

MOST_BYTES: Final = 1 << 20
"""The longest configuration, in bytes."""
# The kernel's limit, MAXSYMLINKS: path_resolution(7).
_MOST_LINKS: Final = 40
# The extended attribute that holds an access control list: acl(5), xattr(7).
_ACCESS_LIST: Final = "system.posix_acl_access"


@dataclass(frozen=True, slots=True, kw_only=True)
class Content:
    """The content of a file, and whether it can be trusted."""

    data: bytes
    distrust: str
    """Why it cannot be trusted; empty: it can."""


def read(path: Path) -> Content | None:
    """Return the content of a regular file; None where there is no such file. OSError: a file that
    can be trusted cannot be read.
    """
    try:
        # Opening a named pipe without O_NONBLOCK blocks until somebody writes to it: fifo(7).
        # O_NOCTTY: opening a terminal must not make it the controlling one: open(2).
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        if not _is_file(path):
            return None
        reason = _distrust_of_path(path, None)
        if reason:
            return Content(data=b"", distrust=reason)
        raise
    # The path is checked after opening, and its end compared with the open file. Checking first
    # would let somebody exchange the file between check and opening.
    opened = os.fstat(descriptor)
    if not stat.S_ISREG(opened.st_mode):
        os.close(descriptor)
        return None
    with os.fdopen(descriptor, "rb") as file:
        reason = _distrust_of_path(path, opened)
        if not reason and opened.st_size > MOST_BYTES:
            reason = f"it is longer than {MOST_BYTES} bytes"
        return Content(data=file.read(MOST_BYTES), distrust=reason)


def _is_file(path: Path) -> bool:
    """Return whether there is a regular file, as far as this user can see."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except OSError:
        return False


def distrust(path: Path) -> str:
    """Return why others may have written what is at this path; empty where they cannot."""
    return _distrust_of_path(path, None)


def _distrust_of_path(path: Path, opened: os.stat_result | None) -> str:
    last: os.stat_result | None = None
    try:
        for entry, seen in entries_on_path(path):
            last = seen
            reason = _fault(seen, entry)
            if reason:
                return reason if entry == path.absolute() else f"{entry}: {reason}"
    except OSError as error:
        return f"{error.filename or path}: {error.strerror}"
    if opened is not None and (last is None or not os.path.samestat(last, opened)):
        return "it was replaced while isobench read it"
    return ""


def entries_on_path(path: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Yield every folder and every symbolic link on the path from the root to a file, and the file.

    OSError: an entry cannot be read, or there are too many links.
    """
    # Links are followed one by one here: whoever may write a folder on the way of a link could
    # redirect it, and Path.resolve() does not show these folders.
    current, links = Path("/"), 0
    remaining = [*reversed(path.absolute().parts[1:])]
    yield current, current.lstat()
    while remaining:
        part = remaining.pop()
        if part == "..":  # in the target of a link; its folder was yielded before
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
        remaining += reversed([one for one in target.parts if one != "/"])


def _fault(seen: os.stat_result, entry: Path) -> str:
    """Return who else owns an entry or may write it; empty: nobody."""
    if seen.st_uid not in (os.geteuid(), 0):
        return f"it belongs to {user_name(seen.st_uid)}"
    # The permissions of a symbolic link are always 0777 and not used: symlink(7).
    if stat.S_ISLNK(seen.st_mode):
        return ""
    by_all = seen.st_mode & stat.S_IWOTH
    by_group = seen.st_mode & stat.S_IWGRP and not _is_private_group(seen, entry)
    sticky = stat.S_ISDIR(seen.st_mode) and seen.st_mode & stat.S_ISVTX
    if (by_all or by_group) and not sticky:
        who = "everyone" if by_all else f"the group {_group(seen.st_gid)}"
        return f"{who} may write it"
    return ""


def _is_private_group(seen: os.stat_result, entry: Path) -> bool:
    """Return whether the group of an entry has no members but the caller and root."""
    # With an access control list the bits of the group are its mask: they may allow anybody who is
    # named in the list (acl(5)).
    with contextlib.suppress(OSError):
        if os.getxattr(entry, _ACCESS_LIST):
            return False
    trusted = {os.geteuid(), 0}
    try:
        members = {pwd.getpwnam(name).pw_uid for name in grp.getgrgid(seen.st_gid).gr_mem}
    except KeyError:
        return False
    # /etc/group does not list those whose primary group it is.
    members |= {user.pw_uid for user in pwd.getpwall() if user.pw_gid == seen.st_gid}
    return bool(members) and members <= trusted


def user_name(number: int) -> str:
    """Return the name of a user, or its number."""
    # A container may have files of users that its /etc/passwd does not list.
    try:
        name = pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"
    if redaction.is_leaving_out_names():
        redaction.leave_out_names([name])
    return name


def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return str(number)
