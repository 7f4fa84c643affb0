"""What a kernel looks like in a file."""

import struct
from pathlib import Path
from typing import Final

WANTED: Final = "a bzImage (vmlinuz) on x86_64, an Image on aarch64, or an ELF file"
_HEAD: Final = 8192
"""Bytes within which a multiboot header must lie."""
_ELF: Final = b"\x7fELF"
_ELF_MACHINES: Final = {"x86_64": (3, 62), "aarch64": (183,)}
"""A 32-bit one may start a machine of 64 bits."""
_MAGIC: Final = {
    "x86_64": ((0x202, b"HdrS"),),
    # Image; the same packed by gzip; U-Boot's; an EFI program that unpacks itself.
    "aarch64": ((0x38, b"ARMd"), (0, b"\x1f\x8b"), (0, b"\x27\x05\x19\x56"), (4, b"zimg")),
}
_MULTIBOOT: Final = struct.pack("<I", 0x1BADB002)


def is_kernel(path: Path, machine: str) -> bool:
    """Say whether a file begins as an image does that QEMU boots on this ISA."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError:
        return False
    if head.startswith(_ELF):
        return head[18:20] in [struct.pack("<H", code) for code in _ELF_MACHINES[machine]]
    if machine == "x86_64" and _MULTIBOOT in head:
        return True
    return any(head[at : at + len(sign)] == sign for at, sign in _MAGIC[machine])
