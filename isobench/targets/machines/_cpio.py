"""Archives that a kernel unpacks as its first root directory (initramfs, format "newc").

Source: Documentation/driver-api/early-userspace/buffer-format.rst of the Linux kernel.
"""

import stat
from pathlib import Path
from typing import Final

_MAGIC: Final = "070701"
_ALIGNED: Final = 4


class Archive:
    """An archive being filled; directories must come before what they hold.

    Everything belongs to root and carries no time, so that equal contents are equal bytes.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        self._parts: list[bytes] = []
        self._count = 0

    def directory(self, path: str, mode: int = 0o755) -> None:
        """Add a directory; `path` begins with no slash."""
        self._entry(path, stat.S_IFDIR | mode, b"")

    def file(self, path: str, content: bytes, mode: int = 0o644) -> None:
        """Add a file with its content."""
        self._entry(path, stat.S_IFREG | mode, content)

    def program(self, path: str, source: Path) -> None:
        """Add an executable file of this machine."""
        self.file(path, source.read_bytes(), 0o755)

    def device(self, path: str, major: int, minor: int) -> None:
        """Add a character device."""
        self._entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))

    def _entry(
        self, path: str, mode: int, content: bytes, device: tuple[int, int] = (0, 0)
    ) -> None:
        self._count += 1
        name = path.encode() + b"\0"
        links = 2 if stat.S_ISDIR(mode) else 1
        # inode, mode, uid, gid, links, time, size, device of the file, device it is, name, checksum
        numbers = (
            *(self._count, mode, 0, 0, links, 0, len(content), 0, 0),
            *(*device, len(name), 0),
        )
        header = _MAGIC + "".join(f"{number:08x}" for number in numbers)
        self._parts += [_padded(header.encode() + name), _padded(content)]

    def finished(self) -> bytes:
        """Return the whole archive; another one may follow it in the same file."""
        self._entry("TRAILER!!!", 0, b"")
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % _ALIGNED)
