"""Selects the targets and workloads that fit into a budget, before anything is prepared. Pure."""

import itertools
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from isobench.config.options import RunOptions
from isobench.model import Scope, Technology, Workload, commands
from isobench.model.units import TargetName, WorkloadName
from isobench.workloads import classes

_T = TypeVar("_T")
_G = TypeVar("_G", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """How long a target usually takes, in seconds, on a quiet machine with two CPUs."""

    opening: float
    """To open and prove a session."""
    start: float
    """To start an instance and wait for its end."""
    visit: float
    """To run a program in an open session, without the timed work."""


# Rough figures. Those of targets in the runs under reports/examples are the medians of their visits
# there; all others are estimates that no run has checked yet. They only decide what is tried: a run
# is planned with the times of its own trial.
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
    *("kvm", "ssh"),
    *("qemu-user-aarch64", "qemu", "qemu-aarch64", "qemu-user-riscv64"),
    *("wine", "uml"),
)
"""The targets of each technology in the order in which most people are interested in them."""
UNKNOWN: Final = Cost(opening=1.0, start=0.5, visit=0.1)
"""For targets without figures: those of plug-ins."""
EXPENSIVE: Final = 1.0
"""A target with a longer opening makes one start per visit, and keeps its sessions."""
KEPT_SHARE: Final = 0.25
"""The sessions of such a target are opened about so often per block."""
TRIAL_BLOCKS: Final = 1.5
"""A trial of all cells takes about as long as so many blocks with the shortest iterations."""
LIMIT_TESTS: Final = 2.5
"""Seconds to test the limits of one container."""
# A busy machine gets slower during a run, and blocks that break a rule are measured again.
ROOM: Final = 1.3
"""The selection leaves room for so many times the blocks that verdicts need."""


def by_interest(names: Iterable[TargetName]) -> list[TargetName]:
    """Return targets in the order of INTEREST."""
    return sorted(names, key=_interest)


def _interest(kind: str) -> int:
    return INTEREST.index(kind) if kind in INTEREST else len(INTEREST)


def cost_of(kind: str) -> Cost:
    """Return how long a kind of target usually takes."""
    return COSTS.get(kind, UNKNOWN)


def block_seconds(cost: Cost, workloads: Iterable[Workload], options: RunOptions) -> float:
    """Return about how many seconds one target takes in a block with the shortest iterations."""
    expensive = cost.opening > EXPENSIVE
    total = cost.opening * (KEPT_SHARE if expensive else 1.0)
    for workload in workloads:
        match workload.scope:
            case Scope.LOOP:
                total += cost.visit * classes.get(workload.class_name).overhead
            case Scope.EXEC:
                total += cost.visit * options.iterations / 2
            case Scope.SESSION:
                total += cost.start * (1 if expensive else options.starts + 1)
    return total


def wanted_blocks(options: RunOptions) -> int:
    """Return how many blocks a selection must leave room for."""
    if options.quick:
        return options.maximum_blocks
    return min(math.ceil(ROOM * options.minimum_blocks), options.maximum_blocks)


def round_robin(items: Iterable[_T], class_of: Callable[[_T], _G]) -> list[_T]:
    """Return the first item of each class, then the second of each, and so on."""
    groups: dict[_G, list[_T]] = {}
    for item in items:
        groups.setdefault(class_of(item), []).append(item)
    rounds = itertools.zip_longest(*groups.values(), fillvalue=None)
    return [item for each in rounds for item in each if item is not None]


def that_fit(
    always: Sequence[_T], candidates: Iterable[_T], fits: Callable[[Sequence[_T]], bool]
) -> list[_T]:
    """Return `always`, and every candidate in order that still fits with those before it."""
    chosen = list(always)
    for candidate in candidates:
        if candidate not in chosen and fits([*chosen, candidate]):
            chosen.append(candidate)
    return chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """The room of a budget on this machine."""

    options: RunOptions
    kinds: Mapping[TargetName, str]
    """The kind of each target, a key of COSTS."""
    technologies: Mapping[TargetName, Technology]
    requested: Collection[TargetName]
    """The targets that were requested by name, including native. They are always kept."""
    busy: float = 1.0
    """How many times slower than a quiet machine this one is."""

    def seconds(self, names: Iterable[TargetName], workloads: Sequence[Workload]) -> float:
        """Return about how many seconds a run of the wanted blocks takes, including its trial."""
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
        """Return whether they fit into the budget."""
        return self.seconds(names, workloads) <= self.options.budget

    def command(
        self, able: Sequence[TargetName], workloads: Mapping[WorkloadName, Workload]
    ) -> str:
        """Return the command that measures all of these, with a sufficient budget."""
        needed = self.seconds(able, list(workloads.values()))
        varied = {each["name"]: each for each in self.options.variations}
        # --vary brings its target with it, which has no other way to be named.
        named = [name for name in self.options.targets if name not in varied]
        return commands.measure(
            self.options.argv,
            {
                "--targets": ",".join(named),
                "--workloads": ",".join(self.options.workloads),
                "--budget": f"{max(1, math.ceil(needed / 60))}m",
            },
            variations=[
                commands.variation(each["base"], each["option"], each["value"])
                for each in varied.values()
            ],
            names=(*commands.SHAPING, *commands.LENGTH),
        )

    def choose(
        self, able: Sequence[TargetName], workloads: Mapping[WorkloadName, Workload]
    ) -> tuple[list[TargetName], list[WorkloadName]]:
        """Return the targets and the workloads to measure, each in its usual order.

        Those that were requested by name always stay. Of the other targets one of each technology
        comes first. Workloads are left out only where not all fit with the targets that stay.
        """
        must = [name for name in able if name in self.requested]
        found = [name for name in able if name not in self.requested]
        whole = sorted(workloads.values(), key=lambda one: one.name not in classes.TYPICAL)
        order = round_robin(sorted(found, key=self._interest), self.technologies.__getitem__)
        if len(must) == 1:  # native alone has nothing to be compared with
            must += self._first_of_each(must, order, whole)
        kept = whole
        if not self.options.workloads:
            turns = round_robin(whole, lambda workload: workload.class_name)
            fitting = that_fit(turns[:1], turns, lambda some: self.fits(must, some))
            kept = [workload for workload in whole if workload in fitting]
        targets = that_fit(must, order, lambda names: self.fits(names, kept))
        names = {workload.name for workload in kept}
        return (
            [name for name in able if name in targets],
            [name for name in workloads if name in names],
        )

    def _interest(self, name: TargetName) -> int:
        """Return the position of a target in INTEREST."""
        return _interest(self.kinds[name])

    def _first_of_each(
        self,
        must: Sequence[TargetName],
        order: Sequence[TargetName],
        workloads: Sequence[Workload],
    ) -> list[TargetName]:
        """Return the first target of each technology that fits, with one workload of each class if
        necessary; if none fits, the fastest target.
        """
        some = list(workloads)
        if not self.options.workloads:
            some = list(
                {workload.class_name: workload for workload in reversed(workloads)}.values()
            )
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
