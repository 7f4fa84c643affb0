"""gVisor's kernel, the sentry: how programs inside and the host recognise it.

Sandboxes that isobench starts with runsc and containers of an engine whose runtime is runsc share
this.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from isobench.model import Expectation, Relation
from isobench.targets.shared import processes

BUILD: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
"""The kernel version (uname -v) that every sentry reports: linux64.go of gVisor."""
EXPECTATIONS: Final = (
    # The sentry's kernel log begins with its name, in a form that Linux gives to no line. The
    # boot_id is no proof: older versions of gVisor have none.
    Expectation(key="kernel.sentry", relation=Relation.EQUALS, value="gVisor"),
    Expectation(key="kernel.version", relation=Relation.UNLIKE_HOST),
)


def platform(processes: Iterable[int]) -> str | None:
    """Return how a sentry among these processes intercepts system calls, its "platform".

    "kvm": it has a virtual machine open. "systrap": it shares memory with its stub processes.
    "ptrace": it traces them. None: none of these is visible.
    """
    members = tuple(processes)
    # Tracing comes last: systrap needs ptrace as well, to prepare its stub processes.
    for pid in members:
        if _has_machine(pid):
            return "kvm"
        if _shares_memory(pid):
            return "systrap"
    return "ptrace" if any(map(_is_traced, members)) else None


def _link_targets(folder: Path) -> Sequence[str]:
    found = []
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                found.append(str(entry.readlink()))
    return found


def _has_machine(pid: int) -> bool:
    # The name that the kernel gives to the descriptor of KVM_CREATE_VM.
    return any("kvm-vm" in name for name in _link_targets(Path(f"/proc/{pid}/fd")))


def _shares_memory(pid: int) -> bool:
    with contextlib.suppress(OSError):
        # The memory's name in createMemoryFile, pkg/sentry/platform/systrap/systrap.go.
        return "memfd:systrap-memory" in Path(f"/proc/{pid}/maps").read_text()
    return False


def _is_traced(pid: int) -> bool:
    return processes.status_of(pid).get("TracerPid", "0") != "0"
