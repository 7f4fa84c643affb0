"""A small program for Windows that prints one line, for probes before a compiler is available.

Sources: Microsoft, "PE Format" and "x64 calling convention".
"""

import struct
from typing import Final

from isobench.targets.shared import elf

_BASE: Final = 0x140000000
_SECTION: Final = 0x1000
"""Address of the only section in memory, relative to the base; also the alignment of sections."""
_FILE: Final = 0x200
"""Offset of the section in the file; also the alignment of sections in the file."""
_LIBRARY: Final = b"kernel32.dll\0"
_FUNCTIONS: Final = (b"GetStdHandle", b"WriteFile", b"ExitProcess")
_SLOT: Final = 8
"""Bytes of an address."""
_MACHINE: Final = 0x8664
"""IMAGE_FILE_MACHINE_AMD64."""


def _code(slots: int, text: int, length: int) -> bytes:
    """Return instructions for: WriteFile(GetStdHandle(-11), text, length); ExitProcess(0).

    `slots` is the place of the functions' addresses and `text` that of the text, both relative to
    the base. The caller reserves 32 bytes on the stack for the function's own use (shadow space).
    """
    code = b""

    def to(place: int) -> bytes:
        """Return an operand: a place relative to the end of the instruction."""
        return struct.pack("<i", place - (_SECTION + len(code) + 4))

    code += bytes.fromhex("4883ec38 b9f5ffffff ff15")  # sub rsp, 56; mov ecx, -11; call
    code += to(slots)
    code += bytes.fromhex("4889c1 488d15")  # mov rcx, rax; lea rdx
    code += to(text)
    code += bytes.fromhex("41b8") + struct.pack("<I", length)  # mov r8d
    code += bytes.fromhex("4c8d4c2430 48c744242000000000 ff15")  # lea r9, [rsp+48]; [rsp+32] = 0
    code += to(slots + _SLOT)
    code += bytes.fromhex("31c9 ff15")  # xor ecx, ecx; call
    return code + to(slots + 2 * _SLOT)


def _imports(place: int) -> tuple[bytes, int]:
    """Return a table of imports for `place`, and the place of the functions' addresses in it."""
    lists = place + 40  # two entries of 20 bytes: one library, and zeros that end the table
    slots = lists + _SLOT * (len(_FUNCTIONS) + 1)
    names = slots + _SLOT * (len(_FUNCTIONS) + 1)
    texts, where = b"", []
    for function in _FUNCTIONS:
        where.append(names + len(texts))
        # A name is preceded by a hint, the index in the library's table of exports: 0 is allowed.
        texts += b"\0\0" + function + b"\0"
    table = struct.pack("<5I", lists, 0, 0, names + len(texts), slots) + bytes(20)
    # The list of names appears twice: the loader overwrites the second one with the addresses.
    pointers = struct.pack(f"<{len(where)}Q", *where) + bytes(_SLOT)
    return table + pointers + pointers + texts + _LIBRARY, slots


def probe_program() -> bytes:
    """Return a console program for Windows on x86-64 that prints `elf.ANSWER` and exits with 0."""
    table = _SECTION + 0x80
    imports, slots = _imports(table)
    text = table + len(imports)
    code = _code(slots, text, len(elf.ANSWER)).ljust(table - _SECTION, b"\0")
    body = (code + imports + elf.ANSWER).ljust(_FILE * 2, b"\0")
    directories = bytearray(16 * 8)
    struct.pack_into("<II", directories, 8, table, len(imports))
    optional = struct.pack(
        "<HBBIIIIIQIIHHHHHHIIIIHHQQQQII",
        *(0x20B, 0, 0, len(body), 0, 0, _SECTION, _SECTION),
        *(_BASE, _SECTION, _FILE, 6, 0, 0, 0, 6, 0, 0),
        *(2 * _SECTION, _FILE, 0, 3, 0),  # 3: IMAGE_SUBSYSTEM_WINDOWS_CUI, a console program
        *(1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16),
    ) + bytes(directories)
    characteristics = 0x23  # no relocations, executable, large addresses
    header = b"PE\0\0" + struct.pack(
        "<HHIIIHH", _MACHINE, 1, 0, 0, 0, len(optional), characteristics
    )
    section = struct.pack(
        "<8sIIIIIIHHI",
        *(b".text", len(body), _SECTION, len(body), _FILE, 0, 0, 0, 0),
        0xE0000020,  # code; executable, readable and, for the imported addresses, writable
    )
    # Of the MS-DOS header only the signature and, at 60, the offset of the PE header are read.
    start = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64)
    return (start + header + optional + section).ljust(_FILE, b"\0") + body
