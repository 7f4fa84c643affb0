"""Archives that a Linux kernel unpacks as its initial root directory (initramfs, format "newc").

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

import stat
from pathlib import Path
from typing import Final

_MAGIC: Final = "070701"
_ALIGNED: Final = 4


class Archive:
    """An archive that is being filled. A directory must be added before its content.

    Everything belongs to root and has no time stamp, so that equal contents give equal bytes: parts
    of the cache are named after the hash of their content.
    """

    def __init__(self) -> None:
        """Make an empty archive."""
        self._parts: list[bytes] = []
        self._count = 0

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; `path` begins with no slash."""
        self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file with its content."""
        self._entry(path, stat.S_IFREG | mode, content)

    def program(self, path: str, source: Path) -> None:
        """Add a file of this host as an executable one."""
        self.file(path, source.read_bytes(), 0o755)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def _entry(
        self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)
    ) -> None:
        # The number of the entry is its inode: the kernel takes entries with equal inodes for hard
        # links to one file.
        self._count += 1
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # The fields are inode, mode, uid, gid, links, mtime, size, device (major, minor), rdev
        # (major, minor), length of the name, checksum (0 in this format).
        numbers = (
            *(self._count, mode, 0, 0, links, 0, len(content), 0, 0),
            *(*device, len(name), 0),
        )
        header = _MAGIC + "".join(f"{number:08x}" for number in numbers)
        self._parts += [_padded(header.encode() + name), _padded(content)]

    def finished(self) -> bytes:
        """Return the whole archive. Another archive may follow it in the same file."""
        self._entry("TRAILER!!!", 0, b"")  # the name that marks the end
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
