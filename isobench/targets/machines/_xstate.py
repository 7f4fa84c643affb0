"""Keeping the CPU's extended registers from a program that traces others.

A user-mode kernel saves and loads its guest's registers by ptrace. One older than Linux 6.13 has
room for those up to AVX-512. Where a CPU has more (AMX: amx_tile in /proc/cpuinfo), the host takes
all of them or none, each load fails, and the guest's first process dies of it at once. Asked for
them in vain, such a kernel keeps to the 512 bytes that every x86-64 has (x87 and SSE): so a
system-call filter lets it ask in vain.

What lies beyond those 512 bytes then stays with each process of the host, thus with each of the
guest, but not with each thread inside one: two threads that both compute with AVX would spoil each
other's upper halves. isobench's own programs use none (no flag for it is among theirs).
"""

import concurrent.futures
import contextlib
import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from typing import Final, TypeVar

_T = TypeVar("_T")

_PR_SET_SECCOMP: Final = 22
_PR_SET_NO_NEW_PRIVS: Final = 38
_SECCOMP_MODE_FILTER: Final = 2
_AUDIT_ARCH_X86_64: Final = 0xC000003E
_SYS_PTRACE: Final = 101
_GETREGSET: Final = 0x4204
_SETREGSET: Final = 0x4205
_NT_X86_XSTATE: Final = 0x202
_ALLOW: Final = 0x7FFF0000
_FAIL: Final = 0x00050000 | errno.EINVAL
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
# Offsets in struct seccomp_data: number, ISA, and the low halves of the first and third argument.
_NUMBER, _ISA, _REQUEST, _KIND = 0, 4, 16, 32

# (operation, steps to skip when equal, steps to skip when not, operand); the last one allows.
_FILTER: Final = (
    (_LOAD, 0, 0, _ISA),
    (_IF_EQUAL, 0, 8, _AUDIT_ARCH_X86_64),
    (_LOAD, 0, 0, _NUMBER),
    (_IF_EQUAL, 0, 6, _SYS_PTRACE),
    (_LOAD, 0, 0, _REQUEST),
    (_IF_EQUAL, 1, 0, _GETREGSET),
    (_IF_EQUAL, 0, 3, _SETREGSET),
    (_LOAD, 0, 0, _KIND),
    (_IF_EQUAL, 0, 1, _NT_X86_XSTATE),
    (_RETURN, 0, 0, _FAIL),
    (_RETURN, 0, 0, _ALLOW),
)


def _install_filter() -> None:
    """Filter the calling thread and whatever it will start. OSError where it cannot be."""
    code = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(_FILTER), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    for option, value, pointer in (
        (_PR_SET_NO_NEW_PRIVS, 1, zero),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program)),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), pointer, zero, zero) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"a system-call filter cannot be set: {os.strerror(number)}")


@contextlib.contextmanager
def limited_registers() -> Iterator[Callable[[Callable[[], _T]], _T]]:
    """Yield what calls a function in a thread of its own, whose children see no extended registers.

    The thread lasts until the end: what asks to die with its parent would die with the thread.
    """
    with concurrent.futures.ThreadPoolExecutor(1, "isobench-xstate") as thread:
        thread.submit(_install_filter).result()
        yield lambda function: thread.submit(function).result()
