"""Finds which share of a contended CPU a process gets: its cgroups and their weights.

The scheduler divides a CPU among the members of the root cgroup first, by weight, then among the
members of each cgroup below it. Beside a busy neighbour, a process in a cgroup of its own therefore
gets another share than one that shares a cgroup with the neighbour:
https://docs.kernel.org/scheduler/sched-design-CFS.html
"""

import contextlib
import re
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from isobench.model import BlockHealth, Evidence, Fact

CGROUPS: Final = Path("/sys/fs/cgroup")
PREFIX: Final = "share."
"""The beginning of the name of a cgroup that holds nothing but the programs of one run; the owner's
name follows.
"""
GROUP: Final = "host.cpu_group"
"""The fact with the path of a session's cgroup in the hierarchy of the CPU controller."""
WEIGHTS: Final = "host.cpu_weights"
"""The fact with the weights along that path, separated by spaces."""
FACTS: Final = (GROUP, WEIGHTS)
CONTENDED_PERCENT: Final = 20.0
"""From this share of the time on in which programs waited for a CPU, a host is contended."""
# The programs of a calm run wait for 10 % of the time themselves (starts, threads): both runs in
# reports/examples. Beside a neighbour on every CPU it is 60 to 100 %.
SATURATED_PERCENT: Final = 60.0
"""From this share on, ratios between cgroups of equal weight are off as well."""
_AUTOGROUP: Final = "autogroup-"
_PARTS_OF_AUTOGROUP: Final = 3
_LONGEST: Final = 24
_KEPT: Final = 18
"""Characters of a name, and those that are left of a longer one."""
_STEP: Final = 1.25
"""The ratio of the weights of two neighbouring nice values: sched_prio_to_weight in the kernel."""
_NUMBER: Final = re.compile("[0-9]{1,9}")
"""A weight, as text: the kernel's are below a million."""
_DEFAULTS: Final = {"cpu.shares": 1024, "cpu.weight": 100}
"""The file of a cgroup's weight in cgroup v1 and v2, and its default."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """The cgroups of a process below the root, the outermost first, and their weights."""

    names: tuple[str, ...]
    weights: tuple[int, ...]

    @classmethod
    def parse(cls, group: Fact, weights: Fact) -> Self | None:
        """Return the chain in the two facts; None: they are unknown or do not fit together."""
        if not isinstance(group, str) or not isinstance(weights, str):
            return None
        names, numbers = tuple(filter(None, group.split("/"))), weights.split()
        if len(names) != len(numbers) or not all(map(_NUMBER.fullmatch, numbers)):
            return None
        return cls(names=names, weights=tuple(map(int, numbers)))

    @property
    def path(self) -> str:
        """The path below the root of the hierarchy: "/docker/4f2a"."""
        return "/" + "/".join(self.names)

    @property
    def own(self) -> int | None:
        """The index of the outermost cgroup that holds nothing but programs of this run."""
        found = (i for i, name in enumerate(self.names) if name.startswith((PREFIX, _AUTOGROUP)))
        return next(found, None)


def have_equal_shares(native: Chain, target: Chain) -> bool:
    """Return whether both get the same share of a CPU beside any neighbour outside of their
    cgroups.

    Only one of them runs at a time. So each is one competitor of that weight that its outermost own
    cgroup has, whatever the depth below it.
    """
    if native.names == target.names:
        return True
    # Native in a shared cgroup is one process of many there. Which of both is favoured depends on
    # where the neighbours are.
    top = native.own
    if top is None or len(target.names) <= top:
        return False
    beside = native.names[:top] == target.names[:top]
    return beside and native.weights[top] == target.weights[top]


def compete_alike(native: Chain, target: Chain) -> bool:
    """Return whether the programs of both are members of one cgroup, or plain sessions."""
    top = native.own
    if native.names == target.names or top is None or len(target.names) <= top:
        return native.names == target.names
    both = native.names[top], target.names[top]
    return both[0] == both[1] or all(name.startswith(_AUTOGROUP) for name in both)


def shortened(path: str) -> str:
    """Return the path of a cgroup for a table: without the long identifiers of instances."""
    names = (
        name if len(name) <= _LONGEST else f"{name[:_KEPT]}\N{HORIZONTAL ELLIPSIS}"
        for name in path.split("/")
    )
    return "/".join(names)


# ---- reading -------------------------------------------------------------------------------------


def evidence(pid: int | None) -> Iterator[Evidence]:
    """Yield the facts about the chain of a process of this host; nothing where it is unknown."""
    chain = None if pid is None else chain_of(pid)
    if chain is not None:
        source = f"/proc/{pid}/cgroup"
        yield Evidence(key=GROUP, value=chain.path, source=source)
        weights = " ".join(map(str, chain.weights))
        yield Evidence(key=WEIGHTS, value=weights, source=f"{source}, {CGROUPS}")


def chain_of(pid: int | str) -> Chain | None:
    """Return the chain of a process; None where it cannot be seen. "self" is this process."""
    place = membership(pid)
    if place is None:
        return None
    root, names = place
    weights: list[int] = []
    # In v2 a cgroup has a weight only where its parent has the controller enabled. Below that, the
    # processes of all cgroups compete together.
    for depth in range(1, len(names) + 1):
        weight = _weight(root.joinpath(*names[:depth]))
        if weight is None:
            break
        weights.append(weight)
    if names and not weights and not root.joinpath(*names).is_dir():
        return None  # in a cgroup namespace, paths of cgroups outside begin with ".."
    if weights:
        return Chain(names=names[: len(weights)], weights=tuple(weights))
    return _autogroup(pid) or Chain(names=(), weights=())


def membership(pid: int | str) -> tuple[Path, tuple[str, ...]] | None:
    """Return the root of the CPU controller's hierarchy, and the cgroup of a process below it."""
    found = None
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            # cgroups(7): version 2 has the line "0::PATH", version 1 "ID:CONTROLLERS:PATH". Where
            # both are mounted, the controller belongs to version 1.
            _, controllers, path = line.split(":", 2)
            names = tuple(filter(None, path.split("/")))
            if "cpu" in controllers.split(","):
                mounted = (CGROUPS / controllers, CGROUPS / "cpu")
                return next(((each, names) for each in mounted if each.is_dir()), None)
            if not controllers and (CGROUPS / "cgroup.controllers").is_file():
                found = (CGROUPS, names)
    return found


def _weight(folder: Path) -> int | None:
    for name in _DEFAULTS:
        with contextlib.suppress(OSError, ValueError):
            return int((folder / name).read_text())
    return None


def _autogroup(pid: int | str) -> Chain | None:
    """Return the autogroup of a process in the root cgroup; None where there are none.

    The kernel gives each session there (setsid(2)) a group of its own: sched(7), "The autogroup
    feature".
    """
    try:
        if Path("/proc/sys/kernel/sched_autogroup_enabled").read_text().strip() != "1":
            return None
        # "/autogroup-25 nice 0"
        words = Path(f"/proc/{pid}/autogroup").read_text().split()
    except OSError:
        return None
    if len(words) != _PARTS_OF_AUTOGROUP:
        return None
    version = "cpu.weight" if (CGROUPS / "cgroup.controllers").is_file() else "cpu.shares"
    weight = round(_DEFAULTS[version] / _STEP ** int(words[2]))
    return Chain(names=(words[0].strip("/"),), weights=(weight,))


# ---- contention ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Contention:
    """How programs competed for the CPUs."""

    text: str
    is_saturated: bool
    """Whether hardly any program found a free CPU."""


def contention(health: Sequence[BlockHealth], cpus: Fact | float) -> Contention | None:
    """Return how programs competed for the CPUs in these blocks; None: they did not, or it is
    unknown.
    """
    # Steal is no sign of it: what another guest takes, it takes from all cgroups alike.
    pressures = [one.pressure_percent for one in health if one.pressure_percent is not None]
    if pressures:
        waited = statistics.fmean(pressures)
        text = f"programs waited for a CPU {waited:.0f} % of the time"
        found = Contention(text=text, is_saturated=waited >= SATURATED_PERCENT)
        return found if waited >= CONTENDED_PERCENT else None
    # Without PSI (Linux before 4.20) only the run queue shows it, between the blocks.
    queues = [one.run_queue for one in health if one.run_queue is not None]
    if not queues or not isinstance(cpus, int) or (queue := statistics.fmean(queues)) < cpus:
        return None
    text = f"{queue:.1f} other programs were ready to run on {cpus} CPUs"
    return Contention(text=text, is_saturated=queue >= 2 * cpus)
