"""Which targets and workloads a budget has room for, decided before anything is prepared. Pure."""

import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from isobench.config.options import RunOptions
from isobench.model import Scope, Technology, Workload
from isobench.model.units import TargetName, WorkloadName
from isobench.workloads import classes

_T = TypeVar("_T")
_G = TypeVar("_G", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a target usually takes, in seconds on a quiet machine of two CPUs."""

    opening: float
    """To open and prove a session."""
    start: float
    """To start an instance and see it end."""
    visit: float
    """To run a program in an open session, beside the timed work."""


# Rough figures: for the targets of the runs under reports/examples they follow the medians of their
# visits there; for all others they are estimates that no run has checked yet. They only decide
# what is tried; what a run plans rests on its own trial.
COSTS: Final[Mapping[str, Cost]] = {
    "native": Cost(opening=0.02, start=0.003, visit=0.02),
    "namespaces": Cost(opening=0.03, start=0.008, visit=0.02),
    "docker": Cost(opening=0.6, start=0.28, visit=0.1),
    "podman": Cost(opening=0.7, start=0.25, visit=0.2),
    "podman-pod": Cost(opening=1.8, start=1.3, visit=0.2),
    "nspawn": Cost(opening=0.4, start=0.2, visit=0.03),
    "lxc": Cost(opening=0.2, start=0.08, visit=0.03),
    "distrobox": Cost(opening=2.5, start=1.2, visit=0.35),
    "kubernetes": Cost(opening=1.5, start=1.0, visit=0.3),
    "landlock": Cost(opening=0.02, start=0.005, visit=0.02),
    "bubblewrap": Cost(opening=0.03, start=0.01, visit=0.02),
    "firejail": Cost(opening=0.1, start=0.05, visit=0.03),
    "gvisor": Cost(opening=0.7, start=0.3, visit=0.3),
    "wasm": Cost(opening=0.05, start=0.02, visit=0.06),
    "kvm": Cost(opening=1.5, start=2.0, visit=0.1),
    "uml": Cost(opening=1.5, start=1.2, visit=0.4),
    "ssh": Cost(opening=1.0, start=0.0, visit=0.1),
    "qemu": Cost(opening=3.5, start=3.5, visit=0.2),
    "qemu-aarch64": Cost(opening=6.5, start=6.5, visit=0.4),
    "qemu-user-aarch64": Cost(opening=0.05, start=0.02, visit=0.15),
    "qemu-user-riscv64": Cost(opening=0.05, start=0.02, visit=0.15),
    "wine": Cost(opening=2.5, start=2.5, visit=0.4),
}
INTEREST: Final = (
    *("docker", "namespaces", "podman", "lxc", "nspawn", "podman-pod", "kubernetes", "distrobox"),
    *("bubblewrap", "landlock", "firejail", "gvisor", "wasm"),
    *("kvm", "ssh", "uml"),
    *("qemu-user-aarch64", "qemu", "qemu-aarch64", "qemu-user-riscv64"),
    "wine",
)
"""Within a technology, what most people ask about comes first."""
UNKNOWN: Final = Cost(opening=1.0, start=0.5, visit=0.1)
"""Of a target that nobody has timed: a plug-in's, or one of the user's own."""
EXPENSIVE: Final = 1.0
"""A target whose opening takes more seconds starts one instance a visit, and keeps its sessions."""
KEPT_SHARE: Final = 0.25
"""Such a session is opened a few times in a run: about so often per block."""
TRIAL_BLOCKS: Final = 1.5
"""A trial of all cells takes about as long as so many of the shortest blocks."""
LIMIT_TESTS: Final = 2.5
"""Seconds to test the limits of one container."""
ROOM: Final = 1.3
"""What is chosen leaves room for so many times the blocks that verdicts need: a busy machine is
slower than its first minute, and blocks that broke a rule are measured again.
"""


_OFTEN_BUSY: Final = 1.5
"""How busy a machine may be for which a budget is advised."""


def most_asked_about(names: Iterable[TargetName]) -> list[TargetName]:
    """Return targets in the order in which most people ask about them."""
    return sorted(names, key=_interest)


def _interest(kind: str) -> int:
    return INTEREST.index(kind) if kind in INTEREST else len(INTEREST)


def cost_of(kind: str) -> Cost:
    """Return what a kind of target usually takes."""
    return COSTS.get(kind, UNKNOWN)


def block_seconds(cost: Cost, workloads: Iterable[Workload], options: RunOptions) -> float:
    """Return about how many seconds one target takes in a block of the shortest iterations."""
    expensive = cost.opening > EXPENSIVE
    total = cost.opening * (KEPT_SHARE if expensive else 1.0)
    for workload in workloads:
        match workload.scope:
            case Scope.LOOP:
                total += cost.visit * classes.get(workload.group).overhead
            case Scope.EXEC:
                total += cost.visit * options.iterations / 2
            case Scope.SESSION:
                total += cost.start * (1 if expensive else options.starts + 1)
    return total


def wanted_blocks(options: RunOptions) -> int:
    """Return how many blocks a choice must leave room for."""
    if options.quick:
        return options.maximum_blocks
    return min(math.ceil(ROOM * options.minimum_blocks), options.maximum_blocks)


def in_turn(items: Iterable[_T], group_of: Callable[[_T], _G]) -> list[_T]:
    """Return the first of each group, then the second of each, and so on: breadth comes first."""
    groups: dict[_G, list[_T]] = {}
    for item in items:
        groups.setdefault(group_of(item), []).append(item)
    rounds = itertools.zip_longest(*groups.values(), fillvalue=None)
    return [item for each in rounds for item in each if item is not None]


def that_fit(
    always: Sequence[_T], candidates: Iterable[_T], fits: Callable[[Sequence[_T]], bool]
) -> list[_T]:
    """Return `always` and every candidate, in turn, with which the whole still fits."""
    chosen = list(always)
    for candidate in candidates:
        if candidate not in chosen and fits([*chosen, candidate]):
            chosen.append(candidate)
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """What a budget has room for on this machine."""

    options: RunOptions
    kinds: Mapping[TargetName, str]
    """What kind each target is, by the names of COSTS."""
    technologies: Mapping[TargetName, Technology]
    asked: Collection[TargetName]
    """The targets that were asked for by name, native among them: they are always kept."""
    busy: float = 1.0
    """How many times slower than a quiet machine this one is."""

    def seconds(self, names: Iterable[TargetName], workloads: Sequence[Workload]) -> float:
        """Return about how long a run of the wanted blocks takes, its trial included."""
        costs = {name: cost_of(self.kinds[name]) for name in names}
        blocks = wanted_blocks(self.options) + TRIAL_BLOCKS
        total = 0.0
        for name, cost in costs.items():
            visits = 2 if self.technologies[name] is Technology.NATIVE else 1  # it is its control
            total += visits * blocks * block_seconds(cost, workloads, self.options)
            total += 2 * cost.opening
            if self.technologies[name] is Technology.CONTAINERIZATION:
                total += LIMIT_TESTS
        return total * self.busy

    def fits(self, names: Iterable[TargetName], workloads: Sequence[Workload]) -> bool:
        """Say whether the budget has room for them."""
        return self.seconds(names, workloads) <= self.options.budget

    def command(
        self, able: Sequence[TargetName], workloads: Mapping[WorkloadName, Workload]
    ) -> str:
        """Return the command that measures all of these, with a budget that has room for them."""
        # Asked for on a machine that is busy now, it is better run when that one is not.
        room = replace(self, busy=min(self.busy, _OFTEN_BUSY))
        needed = room.seconds(able, list(workloads.values()))
        words = ["isobench run"]
        for flag, names in (
            ("targets", self.options.targets),
            ("workloads", self.options.workloads),
        ):
            words += [f"--{flag}", ",".join(names)] if names else []
        return " ".join([*words, f"--budget {max(1, math.ceil(needed / 60))}m"])

    def choose(
        self, able: Sequence[TargetName], workloads: Mapping[WorkloadName, Workload]
    ) -> tuple[list[TargetName], list[WorkloadName]]:
        """Return the targets and the workloads to measure, each in its usual order.

        Targets and workloads that were asked for by name stay whatever they take. Of the others one
        of each kind comes first. Workloads give way where even the targets that must stay leave no
        room for all of them.
        """
        must = [name for name in able if name in self.asked]
        found = [name for name in able if name not in self.asked]
        whole = sorted(workloads.values(), key=lambda one: one.name not in classes.TYPICAL)
        order = in_turn(sorted(found, key=self._interest), self.technologies.__getitem__)
        if len(must) == 1:  # native alone is nothing to compare
            must += self._first_of_each(must, order, whole)
        kept = whole
        if not self.options.workloads:
            turns = in_turn(whole, lambda workload: workload.group)
            fitting = that_fit(turns[:1], turns, lambda some: self.fits(must, some))
            kept = [workload for workload in whole if workload in fitting]
        targets = that_fit(must, order, lambda names: self.fits(names, kept))
        names = {workload.name for workload in kept}
        return (
            [name for name in able if name in targets],
            [name for name in workloads if name in names],
        )

    def _interest(self, name: TargetName) -> int:
        """Return the place of a target among those that most people ask about."""
        return _interest(self.kinds[name])

    def _first_of_each(
        self,
        must: Sequence[TargetName],
        order: Sequence[TargetName],
        workloads: Sequence[Workload],
    ) -> list[TargetName]:
        """Return the first target of each technology that fits, with one workload of each class if
        need be; without any, the cheapest.
        """
        some = list(workloads)
        if not self.options.workloads:
            some = list({workload.group: workload for workload in reversed(workloads)}.values())
        chosen: list[TargetName] = []
        for name in order:
            technologies = {self.technologies[other] for other in chosen}
            expensive = cost_of(self.kinds[name]).opening > EXPENSIVE
            if self.technologies[name] in technologies or expensive:
                continue
            if self.fits([*must, *chosen, name], some):
                chosen.append(name)

        def seconds(name: TargetName) -> float:
            return block_seconds(cost_of(self.kinds[name]), some, self.options)

        return chosen or sorted(order, key=seconds)[:1]
