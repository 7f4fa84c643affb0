"""A cgroup for the programs of a run, beside those of the engines' containers.

A container has a cgroup of its own. Beside a busy neighbour it therefore gets another share of the
CPU than a plain process, which shares a cgroup with the neighbour. So isobench and all programs
that it starts move into a cgroup of their own for the time of a run, with the default weight:
native, and each target that has no cgroup of its own.

The programs inherit the cgroup of isobench. Nothing is done for a single program, and so nothing is
added to the time of a start.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from isobench.evidence import cpu_share
from isobench.model import Leftover
from isobench.plugins import ownership
from isobench.targets.shared import cgroups

_ATTEMPTS: Final = 100
"""Attempts to remove a cgroup, 10 ms apart."""
_INNER: Final = "programs"
"""The inner cgroup. Docker, Podman and systemd-nspawn have two levels as well."""
_LIMITS: Final = {
    "cpu.cfs_quota_us": "-1",
    "cpu.max": "max",
    "cpuset.cpus": "",
    "io.max": "",
    "memory.high": "max",
    "memory.max": "max",
}
"""Files of limits, and how their text begins without a limit."""


class UnchangedError(Exception):
    """The programs stay in the cgroup of isobench. The message is the reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    parent: Path
    """Where the new cgroup is made."""
    home: Path
    """The cgroup in which isobench is."""


@contextlib.contextmanager
def entered() -> Iterator[str]:
    """Move this process into a cgroup of its own; at the end move it back and remove the cgroup.

    Yield what was done, as text for the environment of the report. Where this user may not do it,
    or would leave a limit, nothing is changed.
    """
    with contextlib.ExitStack() as stack:
        try:
            place = _place()
            folder = _make(place.parent, stack)
            # Before the removal: children of isobench that still run move too.
            stack.callback(_empty, folder, place.home)
            _move(os.getpid(), folder / _INNER)
        except (OSError, UnchangedError) as error:
            stack.close()
            yield f"unchanged: {error}"
            return
        yield "a cgroup of its own for isobench and its programs"


def _place() -> _Place:
    """Return where to make the cgroup: the outermost place for which this user has the rights.

    UnchangedError: there is none.
    """
    found = cpu_share.membership("self")
    if found is None:
        raise UnchangedError("there is no CPU controller of cgroups here")
    root, names = found
    above = [root.joinpath(*names[:depth]) for depth in range(len(names) + 1)]
    if not above[-1].is_dir():
        raise UnchangedError("the cgroup of isobench is not visible")
    parent = next((folder for folder in above if _may_divide(folder)), None)
    if parent is None:
        raise UnchangedError("this user may not make one")
    if not _divides_cpus(parent):
        raise UnchangedError(f"{parent} does not divide the CPU among its cgroups")
    for folder in above[above.index(parent) + 1 :]:
        _demand_unlimited(folder)
    return _Place(parent=parent, home=above[-1])


def _may_divide(folder: Path) -> bool:
    # Moving a process needs the right to write to cgroup.procs of the common ancestor:
    # cgroup-v2.rst, "Delegation Containment".
    return os.access(folder, os.W_OK) and os.access(folder / "cgroup.procs", os.W_OK)


def _divides_cpus(folder: Path) -> bool:
    enabled = folder / "cgroup.subtree_control"
    return not enabled.exists() or "cpu" in enabled.read_text().split()


def _demand_unlimited(folder: Path) -> None:
    """Raise UnchangedError where a cgroup that would be left has a limit: the user set it."""
    for name, free in _LIMITS.items():
        with contextlib.suppress(OSError):
            value = (folder / name).read_text().strip()
            if not value.startswith(free) or (value and not free):
                raise UnchangedError(f"{folder} has a limit ({name})")


def _make(parent: Path, stack: contextlib.ExitStack) -> Path:
    """Make the cgroup with its inner one. The stack removes both."""
    folder = parent / f"{cpu_share.PREFIX}{ownership.mine()}-{os.urandom(4).hex()}"
    folder.mkdir()
    stack.callback(cgroups.remove, folder, attempts=_ATTEMPTS)
    enabled = folder / "cgroup.subtree_control"
    if enabled.exists():
        enabled.write_text("+cpu")
    (folder / _INNER).mkdir()
    return folder


def _move(pid: int, folder: Path) -> None:
    (folder / "cgroup.procs").write_text(str(pid))


def _empty(folder: Path, home: Path) -> None:
    """Move all processes of a cgroup, those in inner ones included, to another."""
    for path, _, _ in os.walk(folder):
        with contextlib.suppress(OSError):
            for pid in Path(path, "cgroup.procs").read_text().split():
                # It may have ended meanwhile.
                with contextlib.suppress(OSError):
                    _move(int(pid), home)


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the cgroups of runs that have died, and return them.

    What still runs in them, such as a process that an engine keeps, moves to the cgroup above.
    """
    removed = []
    for folder in cgroups.below(cpu_share.CGROUPS, [cpu_share.PREFIX]):
        if not alive(folder.name.removeprefix(cpu_share.PREFIX).rpartition("-")[0]):
            _empty(folder, folder.parent)
            error = cgroups.remove(folder, attempts=_ATTEMPTS)
            removed.append(Leftover(what=f"cgroup {folder}", failure=error))
    return removed
