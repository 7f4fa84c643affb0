"""The filter that hides the CPU's extended registers from a program that traces others."""

import errno
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from isobench.targets.machines import _xstate

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="only x86-64 has these registers"
)

PTRACE_CALLS = """
import ctypes, sys
libc = ctypes.CDLL(None, use_errno=True)
# A process that does not exist: the kernel returns ESRCH, the filter EINVAL before it.
for request, kind in ((0x4204, 0x202), (0x4205, 0x202), (0x4204, 1), (0, 0)):
    ctypes.set_errno(0)
    libc.ptrace(ctypes.c_long(request), ctypes.c_long(2**30), ctypes.c_long(kind), None)
    print(ctypes.get_errno())
"""


def answers() -> list[int]:
    done = subprocess.run(
        [sys.executable, "-c", PTRACE_CALLS], capture_output=True, text=True, check=True, timeout=60
    )
    return [int(line) for line in done.stdout.split()]


def test_requests_for_extended_registers_fail_in_the_filtered_thread() -> None:
    with _xstate.limited_registers() as call_filtered:
        errors = call_filtered(answers)
    assert errors[:2] == [errno.EINVAL, errno.EINVAL]
    assert errno.EINVAL not in errors[2:], "other registers, and tracing itself, are not affected"


def test_other_threads_and_their_children_are_not_filtered() -> None:
    def filtered() -> str:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
        return next(line for line in lines if line.startswith("NoNewPrivs"))

    before = filtered()
    with _xstate.limited_registers() as call_filtered:
        assert call_filtered(filtered).split()[-1] == "1"
        assert filtered() == before
        assert errno.EINVAL not in answers()


def test_a_filter_that_cannot_be_installed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_xstate, "_FILTER", ((0xFFFF, 0, 0, 0),))
    with pytest.raises(OSError, match="filter cannot be set"), _xstate.limited_registers():
        pass
