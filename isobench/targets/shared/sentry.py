"""gVisor's kernel, the sentry, as it shows itself from inside and to the host: what a sandbox of
runsc's and a container that an engine has run by runsc have in common.
"""

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from isobench.model import Expectation, Relation

BUILD: Final = "#1 SMP Sun Jan 10 15:06:54 PST 2016"
"""What every sentry says of the build of the Linux that it stands for."""
EXPECTATIONS: Final = (
    # The sentry's log begins with its name, in a form that no kernel of Linux gives a line; no
    # other kernel answers so. Its boot_id says less: older ones have none.
    Expectation(key="kernel.sentry", relation=Relation.EQUALS, value="gVisor"),
    Expectation(key="kernel.version", relation=Relation.UNLIKE_HOST),
)


def platform(processes: Iterable[int]) -> str | None:
    """Return how a sentry among these processes catches system calls: "kvm" (it has a virtual
    machine open), "systrap" (it shares memory with its stubs), "ptrace" (it traces them); None:
    nothing shows.
    """
    members = tuple(processes)
    for pid in members:
        if _has_machine(pid):
            return "kvm"
        if _shares_memory(pid):
            return "systrap"
    return "ptrace" if any(map(_is_traced, members)) else None


def _names(folder: Path) -> Sequence[str]:
    found = []
    with contextlib.suppress(OSError):
        for entry in folder.iterdir():
            with contextlib.suppress(OSError):
                found.append(str(entry.readlink()))
    return found


def _has_machine(pid: int) -> bool:
    return any("kvm-vm" in name for name in _names(Path(f"/proc/{pid}/fd")))


def _shares_memory(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return "memfd:systrap-memory" in Path(f"/proc/{pid}/maps").read_text()
    return False


def _is_traced(pid: int) -> bool:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("TracerPid:"):
                return line.split()[1] != "0"
    return False
