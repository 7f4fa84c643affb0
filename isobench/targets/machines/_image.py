"""Recognises files that contain a kernel, before QEMU is started with one.

Sources: Documentation/arch/x86/boot.rst and Documentation/arch/arm64/booting.rst of the Linux
kernel; the Multiboot Specification 0.6.96, section 3.1.
"""

import struct
from pathlib import Path
from typing import Final

WANTED: Final = "a bzImage (vmlinuz) on x86_64, an Image on aarch64, or an ELF file"
_HEAD: Final = 8192
"""Bytes at the beginning of a file that contain a multiboot header, if there is one."""
_ELF: Final = b"\x7fELF"
_ELF_MACHINES: Final = {"x86_64": (3, 62), "aarch64": (183,)}
"""e_machine by ISA. On x86_64 QEMU also boots an ELF file for i386 (3)."""
_MAGIC: Final = {
    "x86_64": ((0x202, b"HdrS"),),
    # In this order: an Image; an Image in gzip; a U-Boot image; an EFI zboot image.
    "aarch64": ((0x38, b"ARMd"), (0, b"\x1f\x8b"), (0, b"\x27\x05\x19\x56"), (4, b"zimg")),
}
_MULTIBOOT: Final = struct.pack("<I", 0x1BADB002)


def is_kernel(path: Path, machine: str) -> bool:
    """Return whether a file begins like a kernel that QEMU boots on this ISA."""
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
