"""ELF files: the probe program, and the libraries that a program needs."""

import platform
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from isobench.targets.shared import elf

MACHINES = {"x86_64": 62, "aarch64": 183, "riscv64": 243}


@pytest.mark.parametrize("machine", MACHINES)
def test_its_header_describes_the_program(machine: str) -> None:
    program = elf.probe_program(machine)
    magic, bits, order, version = struct.unpack_from("<4sBBB", program)
    assert (magic, bits, order, version) == (b"\x7fELF", 2, 1, 1)
    kind, isa, elf_version, entry, table = struct.unpack_from("<HHIQQ", program, 16)
    assert (kind, isa, elf_version, table) == (2, MACHINES[machine], 1, 64)
    assert len(program) < 300
    load, flags, offset, address, _, size, memory, _ = struct.unpack_from("<IIQQQQQQ", program, 64)
    assert (load, flags, offset) == (1, 5, 0)
    assert size == memory == len(program)
    assert address + 120 == entry


@pytest.mark.parametrize("machine", MACHINES)
def test_the_answer_is_at_its_end(machine: str) -> None:
    assert elf.probe_program(machine).endswith(elf.ANSWER)


def test_the_address_of_the_text_is_right_on_riscv64() -> None:
    words = struct.unpack_from("<9I", elf.probe_program("riscv64"), 120)
    auipc_at, offset = 4, words[2] >> 20
    assert 120 + auipc_at + offset == elf.probe_program("riscv64").index(elf.ANSWER)


def test_the_address_of_the_text_is_right_on_aarch64() -> None:
    words = struct.unpack_from("<8I", elf.probe_program("aarch64"), 120)
    distance = words[1] >> 5 & 0x7FFFF
    assert 120 + 4 + 4 * distance == elf.probe_program("aarch64").index(elf.ANSWER)


@pytest.mark.skipif(platform.machine() not in MACHINES, reason="no such program for this machine")
def test_it_answers_and_exits_cleanly_here(tmp_path: Path) -> None:
    path = tmp_path / "answer"
    path.write_bytes(elf.probe_program(platform.machine()))
    path.chmod(0o755)
    done = subprocess.run([path], capture_output=True, check=False, timeout=20)
    assert (done.returncode, done.stdout, done.stderr) == (0, elf.ANSWER, b"")


# ---- what a program needs ------------------------------------------------------------------------


def linked_by_the_system(path: str) -> set[str]:
    """Return the libraries that the dynamic linker finds: "libc.so.6 => /lib/… (0x…)"."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True, check=True, timeout=20)
    return {line.split()[0] for line in done.stdout.splitlines() if "=>" in line}


@pytest.mark.skipif(shutil.which("ldd") is None, reason="ldd is not installed")
@pytest.mark.parametrize("name", ["ls", "tar", "mount", "python3"])
def test_the_libraries_of_a_program_of_this_machine_are_found(name: str) -> None:
    path = shutil.which(name, path="/usr/bin:/bin")
    if path is None or not Path(path).read_bytes().startswith(b"\x7fELF"):
        pytest.skip(f"{name} is not installed")
    interpreter, *libraries = elf.needed_libraries(Path(path).read_bytes())
    assert Path(interpreter).exists()
    assert "libc.so.6" in libraries
    # The linker also lists the libraries of libraries.
    assert set(libraries) <= linked_by_the_system(path) | {Path(interpreter).name}


@pytest.mark.parametrize("machine", MACHINES)
def test_a_static_program_needs_no_libraries(machine: str) -> None:
    assert elf.needed_libraries(elf.probe_program(machine)) == ()


@pytest.mark.parametrize(
    "data", [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x02\x01" + b"\xff" * 200, bytes(5000)]
)
def test_other_files_need_no_libraries(data: bytes) -> None:
    assert elf.needed_libraries(data) == ()


def test_a_truncated_or_damaged_program_is_no_error() -> None:
    whole = Path("/bin/ls").read_bytes()
    for length in (*range(0, 1200, 7), *range(1200, len(whole), 4999)):
        assert isinstance(elf.needed_libraries(whole[:length]), tuple)
    for at in range(32, 64 + 56 * 12):
        damaged = bytearray(whole)
        damaged[at] ^= 0xFF
        assert isinstance(elf.needed_libraries(bytes(damaged)), tuple)
