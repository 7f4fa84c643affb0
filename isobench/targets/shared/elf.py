"""ELF files: the smallest program that answers, for probes before any compiler is there; and which
libraries a program of any ISA needs, without running it.
"""

import struct
from typing import Final

ANSWER: Final = b"isobench-probe\n"

_MACHINES: Final = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS = 1, 5


def _code(machine: str) -> bytes:
    """Return instructions for: write(1, what follows these instructions, its length); exit(0)."""
    length = len(ANSWER)
    if machine == "x86_64":
        after_lea = (
            bytes.fromhex("ba")
            + struct.pack("<I", length)
            + bytes.fromhex("0f05b83c00000031ff0f05")
        )
        return (
            bytes.fromhex("b801000000bf01000000488d35")
            + struct.pack("<I", len(after_lea))
            + after_lea
        )
    if machine == "aarch64":
        words = [
            0xD2800020,  # mov x0, #1
            0x10000001 | 7 << 5,  # adr x1, seven instructions on
            0xD2800002 | length << 5,  # mov x2, #length
            0xD2800808,  # mov x8, #64
            0xD4000001,  # svc 0
            0xD2800000,  # mov x0, #0
            0xD2800BA8,  # mov x8, #93
            0xD4000001,  # svc 0
        ]
        return struct.pack("<8I", *words)
    words = [
        0x00100513,  # li a0, 1
        0x00000597,  # auipc a1, 0
        0x00058593 | 32 << 20,  # addi a1, a1, 32: eight instructions after the auipc
        0x00000613 | length << 20,  # li a2, length
        0x04000893,  # li a7, 64
        0x00000073,  # ecall
        0x00000513,  # li a0, 0
        0x05D00893,  # li a7, 93
        0x00000073,  # ecall
    ]
    return struct.pack("<9I", *words)


def probe_program(machine: str) -> bytes:
    """Return a static ELF executable for `machine` that prints ANSWER and exits with 0."""
    body = _code(machine) + ANSWER
    size = _HEADERS + len(body)
    flags = (
        4 if machine == "riscv64" else 0
    )  # riscv64: the double-float ABI, as distributions build
    header = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack(
            "<HHIQQQIHHHHHH",
            2,
            _MACHINES[machine],
            1,
            _BASE + _HEADERS,
            64,
            0,
            flags,
            64,
            56,
            1,
            0,
            0,
            0,
        )
    )
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + program + body


def needed_libraries(data: bytes) -> tuple[str, ...]:
    """Return the interpreter's path and the libraries that a 64-bit ELF file names; the first is
    absent from libraries and static programs. Nothing where it is no such file.

    Source: System V ABI, chapter 5, "Dynamic Linking".
    """
    if data[:6] != b"\x7fELF\x02\x01":
        return ()
    try:
        return _needed(data)
    except (struct.error, IndexError, ValueError, OverflowError, StopIteration):
        return ()


def _needed(data: bytes) -> tuple[str, ...]:
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    segments = [struct.unpack_from("<IIQQQQQQ", data, table + i * size) for i in range(count)]
    loads = [(at, where, length) for kind, _, at, where, _, length, *_ in segments if kind == _LOAD]

    def text(at: int) -> str:
        return data[at : data.index(b"\0", at)].decode()

    def offset(address: int) -> int:
        return next(
            int(a) + address - int(w) for a, w, length in loads if w <= address < w + length
        )

    found = [text(at) for kind, _, at, *_ in segments if kind == _INTERPRETER]
    for kind, _, at, _, _, length, *_ in segments:
        if kind == _DYNAMIC:
            pairs = list(struct.iter_unpack("<QQ", data[at : at + length]))
            strings = offset(next(value for tag, value in pairs if tag == _STRINGS))
            found += [text(strings + value) for tag, value in pairs if tag == _NEEDED]
    return tuple(found)
