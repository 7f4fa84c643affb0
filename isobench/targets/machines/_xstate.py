"""Hides the CPU's extended registers from a program that traces others.

A user-mode kernel saves and loads the registers of its guest by ptrace. Before Linux 6.13 its
buffer holds the registers up to AVX-512. If the CPU has more (AMX: amx_tile in /proc/cpuinfo), the
host accepts all of them or none. Each load then fails, and the guest's first process is killed at
once. If PTRACE_GETREGSET for extended registers fails at the start, such a kernel uses only the 512
bytes that every x86-64 has (x87 and SSE). The system-call filter here lets that request fail.

Each process of the guest is a process of the host, which saves its other registers. Threads of one
process of the guest share them: two threads that both compute with AVX would overwrite each other's
upper halves. isobench's own programs use no AVX, since they are compiled for plain x86-64.

Sources: ptrace(2); seccomp(2); arch/x86/kernel/fpu/regset.c of the Linux kernel (xstateregs_set).
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
# Offsets in struct seccomp_data: system-call number, architecture, and the low 32 bits of the first
# and the third argument.
_NUMBER, _ISA, _REQUEST, _KIND = 0, 4, 16, 32

# Classic BPF: (operation, steps to skip if equal, steps to skip if not, operand). In words: on
# x86-64, PTRACE_GETREGSET and PTRACE_SETREGSET for NT_X86_XSTATE fail with EINVAL. Everything else
# is allowed.
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
    """Install the filter in the calling thread. Processes that it starts inherit it.

    Raises OSError if that is not possible.
    """
    code = b"".join(struct.pack("HBBI", *step) for step in _FILTER)
    kept = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HP", len(_FILTER), ctypes.addressof(kept))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    # Without no_new_privs only root may install a filter.
    for option, value, pointer in (
        (_PR_SET_NO_NEW_PRIVS, 1, zero),
        (_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.create_string_buffer(program)),
    ):
        if libc.prctl(option, ctypes.c_ulong(value), pointer, zero, zero) != 0:
            number = ctypes.get_errno()
            raise OSError(number, f"a system-call filter cannot be set: {os.strerror(number)}")


@contextlib.contextmanager
def limited_registers() -> Iterator[Callable[[Callable[[], _T]], _T]]:
    """Yield a function that calls its argument in a separate thread with the filter installed.

    A filter cannot be removed: in a separate thread it does not affect isobench. The thread lasts
    until the end of the context, since PR_SET_PDEATHSIG refers to the thread that started a
    process, not to the whole parent (prctl(2)).
    """
    with concurrent.futures.ThreadPoolExecutor(1, "isobench-xstate") as thread:
        thread.submit(_install_filter).result()
        yield lambda function: thread.submit(function).result()
