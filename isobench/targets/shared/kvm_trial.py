"""Start a guest on /dev/kvm and report what happens; `kvm` runs this module as a program.

A process of its own, because KVM_RUN may never return: the alarm below then ends the process. It
needs the standard library alone and is started by its path, without site packages.

The guest is a boot sector and does what every kernel does. It begins in real mode, passes through
protected mode and arrives in ring 0 of long mode with paging. There a loop of `dec; jnz` is timed.
Then three instructions must do what the processor's manual says: `lock cmpxchg16b` (Linux uses it
for per-CPU lists and page tables), `int3` through an IDT, and the `iretq` out of it (Linux patches
its own text with them). All of these work where the processor executes the guest, and fail or are
slow where KVM emulates ring 0. Only the loop in long mode is timed, since KVM emulates parts of
real mode on old processors, which is no fault. On other machines than x86_64 no guest is run.

Output: lines of words, each written as soon as it is known.
    doing STEP          begins: open, version, machine, processor, guest; last of all: end
    version NUMBER      of the API
    passed LETTER       the guest has reported; see the letters below
    speed NUMBER        million iterations a second, best of all rounds
    exit REASON DETAIL  why KVM_RUN has returned for the last time, in the numbers of linux/kvm.h
    error NUMBER        errno of the step
"""

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from typing import Final

API: Final = 12
"""The version of KVM's API; there has been no other since Linux 2.6.22."""
SECONDS: Final = 1.2
"""Seconds after which the alarm ends this process."""
ENOUGH: Final = 0.004
"""Seconds of a round of the loop beside which its two exits (some 10 us) do not matter."""
ROUNDS: Final = range(10, 31)
"""Iterations of a round as powers of two: 1024 take 10 ms where ring 0 is emulated."""

REAL_MODE: Final = "r"
PROTECTED_MODE: Final = "p"
LONG_MODE: Final = "l"
LOOP: Final = "d"
CMPXCHG16B: Final = "c"
INT3: Final = "i"
IRETQ: Final = "b"

PORT: Final = 0xE9
"""The I/O port that the guest writes to and reads from; QEMU's `-device isa-debugcon` has it too.
"""

# ---- the guest -----------------------------------------------------------------------------------

BASE: Final = 0x7C00
"""Where firmware loads a boot sector, and where its stack begins, downwards."""
_PROTECTED: Final = BASE + 0x40
_LONG: Final = BASE + 0xB0
_HANDLER: Final = BASE + 0x138
_CELL: Final = BASE + 0x140
_GDT: Final = BASE + 0x150
_GATE: Final = BASE + 0x170
_GDT_POINTER: Final = BASE + 0x180
_IDT_POINTER: Final = BASE + 0x188
_SIZE: Final = 512
_TABLES: Final = (0x1000, 0x2000, 0x3000)
"""Page tables of three levels, in memory that firmware leaves free below a boot sector."""


def _report(letter: str) -> bytes:
    return b"\xb0" + letter.encode() + b"\xe6" + bytes([PORT])  # mov al, letter; out PORT, al


def _real_mode() -> bytes:
    return b"".join((
        b"\xfa",  # cli
        b"\x31\xc0\x8e\xd8",  # xor ax, ax; mov ds, ax
        _report(REAL_MODE),
        b"\x0f\x01\x16" + struct.pack("<H", _GDT_POINTER),  # lgdt
        b"\x0f\x20\xc0\x0c\x01\x0f\x22\xc0",  # cr0 |= PE
        b"\xea" + struct.pack("<HH", _PROTECTED, 0x08),  # jmp far
    ))  # fmt: skip


def _protected_mode() -> bytes:
    first, second, third = _TABLES
    code = [
        b"\x66\xb8\x10\x00\x8e\xd8\x8e\xd0",  # mov ax, 0x10; mov ds, ax; mov ss, ax
        _report(PROTECTED_MODE),
        b"\x31\xc0",  # xor eax, eax
    ]
    # Present and writable; the last maps 2 MiB of memory onto themselves.
    for table, entry in ((first, second | 0x03), (second, third | 0x03), (third, 0x83)):
        code += [
            b"\xc7\x05" + struct.pack("<II", table, entry),  # mov dword [table], entry
            b"\xa3" + struct.pack("<I", table + 4),  # mov [table + 4], eax
        ]
    code += [
        b"\x0f\x20\xe0\x0c\x20\x0f\x22\xe0",  # cr4 |= PAE
        b"\xb8" + struct.pack("<I", first) + b"\x0f\x22\xd8",  # mov eax, first; mov cr3, eax
        b"\xb9\x80\x00\x00\xc0\x0f\x32",  # mov ecx, EFER; rdmsr
        b"\x0f\xba\xe8\x08\x0f\x30",  # bts eax, LME; wrmsr
        b"\x0f\x20\xc0\x0f\xba\xe8\x1f\x0f\x22\xc0",  # cr0 |= PG
        b"\xea" + struct.pack("<IH", _LONG, 0x18),  # jmp far
    ]
    return b"".join(code)


def _long_mode() -> bytes:
    cell = struct.pack("<I", _CELL)
    high = struct.pack("<I", _CELL + 8)
    loop = b"".join((
        b"\x88\xc1\x31\xc0\xff\xc0\xd3\xe0",  # mov cl, al; xor eax, eax; inc eax; shl eax, cl
        b"\xff\xc8\x75\xfc",  # again: dec eax; jnz again
        _report(LOOP),
    ))  # fmt: skip
    query = b"\xe4" + bytes([PORT]) + b"\x84\xc0"  # in al, PORT; test al, al
    back = len(query) + 2 + len(loop) + 2
    right = _report(CMPXCHG16B) + b"\xcc" + _report(IRETQ)  # int3
    compare_high = b"\x80\x3c\x25" + high + b"\x02"  # cmp byte [cell + 8], 2
    compare_low = b"\x80\x3c\x25" + cell + b"\x01"  # cmp byte [cell], 1
    past_high = len(right)
    past_low = 2 + len(compare_high) + past_high
    past_flag = 2 + len(compare_low) + past_low
    return b"".join((
        b"\xbc" + struct.pack("<I", BASE),  # mov esp, BASE
        _report(LONG_MODE),
        b"\x0f\x01\x1c\x25" + struct.pack("<I", _IDT_POINTER),  # lidt
        # Read the exponent of the next round from the port; zero ends the loop.
        query + b"\x74" + bytes([len(loop) + 2]),  # jz past the loop
        loop + b"\xeb" + bytes([256 - back]),  # jmp to the query
        # The cell holds 0; the instruction must write 2 * 2**64 + 1.
        b"\x31\xc0\x31\xd2",  # xor eax, eax; xor edx, edx
        b"\xbb\x01\x00\x00\x00\xb9\x02\x00\x00\x00",  # mov ebx, 1; mov ecx, 2
        b"\xf0\x48\x0f\xc7\x0c\x25" + cell,  # lock cmpxchg16b [cell]
        b"\x75" + bytes([past_flag]),  # jne end
        compare_low + b"\x75" + bytes([past_low]),  # jne end
        compare_high + b"\x75" + bytes([past_high]),  # jne end
        right,
        b"\xf4\xeb\xfd",  # end: hlt; jmp end
    ))  # fmt: skip


def boot_sector() -> bytes:
    """Return the guest: 512 bytes to be loaded and entered at BASE in real mode."""
    parts = {
        BASE: _real_mode(),
        _PROTECTED: _protected_mode(),
        _LONG: _long_mode(),
        _HANDLER: _report(INT3) + b"\x48\xcf",  # iretq
        _CELL: bytes(16),
        _GDT: struct.pack(
            "<QQQQ",
            0,
            0x00CF9A000000FFFF,  # 0x08: 32-bit code
            0x00CF92000000FFFF,  # 0x10: data
            0x00AF9A000000FFFF,  # 0x18: 64-bit code
        ),
        _GATE: struct.pack("<HHHHQ", _HANDLER, 0x18, 0x8E00, 0, 0),  # 64-bit interrupt gate
        _GDT_POINTER: struct.pack("<HI", 4 * 8 - 1, _GDT),
        # int3 is vector 3: the table would begin three gates earlier. No other gate is used.
        _IDT_POINTER: struct.pack("<HQ", 4 * 16 - 1, _GATE - 3 * 16),
    }
    image = bytearray()
    for address, part in parts.items():
        assert len(image) <= address - BASE, f"{address:#x} is in use"
        image += bytes(address - BASE - len(image)) + part
    return bytes(image.ljust(_SIZE - 2, b"\0")) + b"\x55\xaa"


# ---- the machine around it -----------------------------------------------------------------------

# Requests of linux/kvm.h; Documentation/virt/kvm/api.rst describes them.

_GET_API_VERSION: Final = 0xAE00
_CREATE_VM: Final = 0xAE01
_CHECK_EXTENSION: Final = 0xAE03
_GET_VCPU_MMAP_SIZE: Final = 0xAE04
_GET_SUPPORTED_CPUID: Final = 0xC008AE05
_CREATE_VCPU: Final = 0xAE41
_SET_USER_MEMORY_REGION: Final = 0x4020AE46
_SET_TSS_ADDR: Final = 0xAE47
_RUN: Final = 0xAE80
_SET_REGS: Final = 0x4090AE82
_GET_SREGS: Final = 0x8138AE83
_SET_SREGS: Final = 0x4138AE84
_SET_CPUID2: Final = 0x4008AE90

_ARM_ADDRESS_BITS: Final = 165
"""KVM_CAP_ARM_VM_IPA_SIZE."""
_TSS: Final = 0x7FFBD000
"""Three free pages, outside of the guest's memory, that Intel's processors need for real mode."""
_MEMORY: Final = 0x10000
_CPUID_ENTRIES: Final = 256

_EXIT_IO: Final = 2
_EXIT_FAIL_ENTRY: Final = 9
_EXIT_INTERNAL_ERROR: Final = 17


class _Guest:
    """A virtual processor at the first instruction of the boot sector."""

    def __init__(self, kvm: int, machine: int, processor: int) -> None:
        self._processor = processor
        self._memory = mmap.mmap(-1, _MEMORY)
        sector = boot_sector()
        self._memory[BASE : BASE + len(sector)] = sector
        address = ctypes.addressof(ctypes.c_char.from_buffer(self._memory))
        fcntl.ioctl(
            machine,
            _SET_USER_MEMORY_REGION,
            struct.pack("<IIQQQ", 0, 0, 0, _MEMORY, address),
        )
        # A new virtual processor has no features in CPUID, and without them no long mode.
        features = bytearray(struct.pack("<II", _CPUID_ENTRIES, 0) + bytes(40 * _CPUID_ENTRIES))
        fcntl.ioctl(kvm, _GET_SUPPORTED_CPUID, features)
        fcntl.ioctl(processor, _SET_CPUID2, features)
        # After a reset, CS leads to the firmware at the end of the address space.
        special = bytearray(312)
        fcntl.ioctl(processor, _GET_SREGS, special)
        struct.pack_into("<Q", special, 0, 0)  # cs.base
        struct.pack_into("<H", special, 12, 0)  # cs.selector
        fcntl.ioctl(processor, _SET_SREGS, special)
        registers = bytearray(144)
        struct.pack_into("<QQ", registers, 128, BASE, 2)  # rip, rflags (bit 1 is always set)
        fcntl.ioctl(processor, _SET_REGS, registers)
        self._shared = mmap.mmap(processor, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))

    def run(self) -> Iterator[str]:
        """Run the guest; yield its reports until KVM_RUN returns for another reason than I/O."""
        rounds = iter(ROUNDS)
        best = took = began = 0.0
        iterations = 0
        while True:
            try:
                fcntl.ioctl(self._processor, _RUN, 0)
            except InterruptedError:  # stopped and continued, or traced
                continue
            # The only clock that a target reads: this is evidence of how ring 0 executes, and no
            # result of a benchmark.
            now = time.perf_counter()
            # struct kvm_run: exit_reason at 8; of KVM_EXIT_IO direction, size, port, count and the
            # offset of the data at 32.
            (reason,) = struct.unpack_from("<I", self._shared, 8)
            if reason != _EXIT_IO:
                yield f"exit {reason} {self._detail(reason)}"
                return
            is_out, _, _, _, at = struct.unpack_from("<BBHIQ", self._shared, 32)
            if not is_out:
                exponent = next(rounds, 0) if took < ENOUGH else 0
                if exponent == 0:
                    yield f"speed {best / 1e6:.4f}"
                self._shared[at] = exponent
                iterations = 1 << exponent
                began = time.perf_counter()
                continue
            letter = chr(self._shared[at])
            if letter == LOOP:
                took = now - began
                best = max(best, iterations / took)
            else:
                yield f"passed {letter}"

    def _detail(self, reason: int) -> int:
        if reason == _EXIT_FAIL_ENTRY:
            (number,) = struct.unpack_from("<Q", self._shared, 32)
        elif reason == _EXIT_INTERNAL_ERROR:
            (number,) = struct.unpack_from("<I", self._shared, 32)
        else:
            number = 0
        return int(number)


def trial(device: str, architecture: str) -> Iterator[str]:
    """Yield the lines of the output. Descriptors stay open until the process ends."""
    try:
        yield "doing open"
        kvm = os.open(device, os.O_RDWR | os.O_CLOEXEC)
        yield "doing version"
        version = fcntl.ioctl(kvm, _GET_API_VERSION, 0)
        yield f"version {version}"
        if version != API:
            return
        yield "doing machine"
        kind = 0
        if architecture == "aarch64":
            # The width of guest addresses: the default, 40 bits, is more than some processors have.
            kind = fcntl.ioctl(kvm, _CHECK_EXTENSION, _ARM_ADDRESS_BITS)
        machine = fcntl.ioctl(kvm, _CREATE_VM, kind)
        if architecture == "x86_64":
            fcntl.ioctl(machine, _SET_TSS_ADDR, _TSS)
        yield "doing processor"
        processor = fcntl.ioctl(machine, _CREATE_VCPU, 0)
        if architecture == "x86_64":
            guest = _Guest(kvm, machine, processor)
            yield "doing guest"
            yield from guest.run()
        yield "doing end"
    except OSError as error:
        yield f"error {error.errno}"


def main() -> None:
    """Examine the device whose path is the first argument."""
    # The default action of SIGALRM ends a process without Python's help, in KVM_RUN too, and also
    # when isobench itself has been killed. The parent may have ignored or blocked the signal.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    for line in trial(sys.argv[1], os.uname().machine):
        os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    main()
