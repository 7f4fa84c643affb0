"""ELF files: write the probe program, and read which libraries a program needs.

The probe program is the smallest program that prints a line. Probes run it before any compiler is
installed. Libraries are read from the file, so that programs of any ISA can be examined.
"""

import struct
from typing import Final

ANSWER: Final = b"isobench-probe\n"

_MACHINES: Final = {"x86_64": 62, "aarch64": 183, "riscv64": 243}
"""e_machine: EM_X86_64, EM_AARCH64 and EM_RISCV of elf.h."""
_BASE: Final = 0x400000
_HEADERS: Final = 64 + 56
_LOAD, _DYNAMIC, _INTERPRETER = 1, 2, 3
_NEEDED, _STRINGS = 1, 5


def _code(machine: str) -> bytes:
    """Return the instructions of write(1, ANSWER, its length); exit(0).

    ANSWER follows the last instruction. Addresses are relative to the program counter. System
    call numbers are those of syscalls(2): write 1 and exit 60 on x86_64, 64 and 93 elsewhere.
    """
    instructions = {"x86_64": _x86_64, "aarch64": _aarch64, "riscv64": _riscv64}[machine]
    return instructions(len(ANSWER))


def _x86_64(length: int) -> bytes:
    after_lea = b"".join((
        b"\xba" + struct.pack("<I", length),  # mov edx, length
        b"\x0f\x05",  # syscall
        b"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05",  # mov eax, 60; xor edi, edi; syscall
    ))  # fmt: skip
    return b"".join((
        b"\xb8\x01\x00\x00\x00\xbf\x01\x00\x00\x00",  # mov eax, 1; mov edi, 1
        b"\x48\x8d\x35" + struct.pack("<I", len(after_lea)),  # lea rsi, [rip + after_lea]
        after_lea,
    ))  # fmt: skip


def _aarch64(length: int) -> bytes:
    words = [
        0xD2800020,  # mov x0, #1
        0x10000001 | 7 << 5,  # adr x1, seven instructions further
        0xD2800002 | length << 5,  # mov x2, #length
        0xD2800808,  # mov x8, #64
        0xD4000001,  # svc 0
        0xD2800000,  # mov x0, #0
        0xD2800BA8,  # mov x8, #93
        0xD4000001,  # svc 0
    ]
    return struct.pack("<8I", *words)


def _riscv64(length: int) -> bytes:
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
    # EF_RISCV_FLOAT_ABI_DOUBLE: the ABI that distributions build for.
    flags = 4 if machine == "riscv64" else 0
    # After e_ident: ET_EXEC, the entry point, one program header, no section headers.
    # fmt: off
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH",
        2, _MACHINES[machine], 1, _BASE + _HEADERS, 64, 0, flags, 64, 56, 1, 0, 0, 0,
    )
    # fmt: on
    # One PT_LOAD segment, readable and executable, of the whole file.
    program = struct.pack("<IIQQQQQQ", 1, 5, 0, _BASE, _BASE, size, size, 0x1000)
    return header + program + body


def needed_libraries(data: bytes) -> tuple[str, ...]:
    """Return the interpreter's path and the names of the libraries that a program needs.

    Libraries and static programs have no interpreter. Empty: `data` is no 64-bit little-endian
    ELF file, or is damaged.

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

    # DT_STRTAB holds an address in memory; the segments map it to an offset in the file.
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
