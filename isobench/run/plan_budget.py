"""Plans what fits into the budget, from the times that the trial has shown."""

import math
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from isobench.config.options import RunOptions
from isobench.model import Plan, Schedule, Scope, Turns, Work, Workload, plan
from isobench.model.units import TargetName, WorkloadName
from isobench.model.wording import duration_text
from isobench.run import budget_room, measure, turns
from isobench.run.measure import Runner
from isobench.run.pilot import (
    FEWEST_BLOCKS,
    OPENINGS_A_BLOCK,
    OPENINGS_TO_TRY,
    RESERVE,
    SHORTEST,
    Pilot,
    choose_size,
    leave_out,
    leave_out_workload,
)
from isobench.workloads import classes

MORE: Final = 20
FEWEST_PLANNED: Final = 60
"""A plan has so many times the blocks that fit, since blocks become shorter when cells leave (of
38 s in one run, the last had 0.3 s), and at least FEWEST_PLANNED.
"""
GRACE: Final = 10.0
"""Seconds by which a run may exceed its budget to measure the fewest blocks of an interval."""


def _in_reserve(blocks: int) -> int:
    """Return a number of blocks with some in reserve, for those that are measured again."""
    return blocks + math.ceil(blocks * measure.REPEATED_SHARE)


@dataclass(kw_only=True)
class Planner:
    """Chooses targets, workloads and the length of iterations, and makes the plan."""

    options: RunOptions
    runner: Runner
    reference: TargetName
    requested: Collection[TargetName]
    """The targets that were requested by name. They are never left out."""
    began: float
    """time.monotonic() when measuring began."""
    seed: int
    say: Callable[[str], None]
    left_out_targets: list[str] = field(default_factory=list)
    left_out_workloads: list[str] = field(default_factory=list)
    """The targets and workloads that do not fit into the budget."""
    fewest: int = FEWEST_BLOCKS
    """So many blocks are measured even if they exceed the budget."""

    @property
    def seconds_left(self) -> float:
        """The rest of the budget, in seconds."""
        return self.options.budget - (time.monotonic() - self.began)

    @property
    def _minimum_blocks(self) -> int:
        """How many blocks should fit into the budget."""
        return FEWEST_BLOCKS if self.options.quick else self.options.minimum_blocks

    def _fits(
        self,
        pilot: Pilot,
        labels: Sequence[TargetName],
        names: Collection[WorkloadName] | None = None,
    ) -> int:
        """Return how many blocks of these targets fit into the rest of the budget at most, with all
        workloads or only those in `names`.
        """
        both = [*labels, plan.second(self.reference)]
        workloads = self.runner.workloads
        some = {n: w for n, w in workloads.items() if names is None or n in names}
        return choose_size(
            pilot, self.options, some, both, native=self.reference, seconds_left=self.seconds_left
        ).blocks

    def too_expensive(self, pilot: Pilot, label: TargetName) -> str:
        """Return why a target that was not requested by name is left out, since the verdicts of all
        others would be lost with it; "" to measure it.
        """
        if label in self.requested:
            return ""
        # Only the time of its opening is known by now. Its starts take about as long.
        opening = pilot.opening[label]
        tried = [name for name in pilot.proving if name not in (label, *pilot.dead)]
        # Its own trial must fit as well as the blocks with all targets that were tried before.
        left = self.seconds_left - OPENINGS_TO_TRY * opening
        both = [*tried, plan.second(self.reference)]
        cost = pilot.cost(SHORTEST, self.options, both, self.runner.workloads, self.reference)
        if left * RESERVE >= self._minimum_blocks * (cost + OPENINGS_A_BLOCK * opening):
            return ""
        return self._no_room(label)

    def too_late(self) -> str:
        """Return why no further target is tried; "" while there is time."""
        if self.seconds_left + GRACE >= 0:
            return ""
        return f"the budget of {duration_text(self.options.budget)} ended before it was tried"

    def _no_room(self, name: str) -> str:
        reason = (
            f"with it {self._minimum_blocks} blocks do not fit into"
            f" {duration_text(self.options.budget)}; name it to measure it anyway"
        )
        self.say(f"{name} is left out: {reason}")
        out = self.left_out_targets if name in self.runner.targets else self.left_out_workloads
        out.append(name)
        return reason

    def make_room(self, pilot: Pilot, labels: Sequence[TargetName]) -> list[TargetName]:
        """Return the targets to measure, from the times of the trial.

        Where not all fit, requested targets come first, then one of each technology. Where not even
        these fit, workloads that were not requested are left out.
        """
        living = [label for label in labels if label not in pilot.dead]
        wanted = FEWEST_BLOCKS if self.options.quick else budget_room.wanted_blocks(self.options)
        if self._fits(pilot, living) >= wanted:
            return living
        found = budget_room.round_robin(
            [name for name in living if name not in self.requested],
            lambda name: self.runner.targets[name].technology,
        )
        must = [name for name in living if name in self.requested]
        # Native alone has nothing to be compared with.
        must += found[:1] if len(must) == 1 else []
        kept = budget_room.that_fit(must, found, lambda names: self._fits(pilot, names) >= wanted)
        for name in living:
            if name not in kept:
                leave_out(self.runner, pilot, name, self._no_room(name))
        kept = [name for name in living if name in kept]
        if not self.options.workloads:
            self._drop_workloads(pilot, kept, wanted)
        return kept

    def _drop_workloads(self, pilot: Pilot, labels: Sequence[TargetName], wanted: int) -> None:
        """Leave out workloads until the blocks fit. Every class keeps one as long as possible."""
        workloads = self.runner.workloads
        possible = [name for name in workloads if (self.reference, name) not in pilot.left_out]
        order = budget_room.round_robin(possible, lambda name: workloads[name].class_name)
        kept = budget_room.that_fit(
            order[:1], order, lambda some: self._fits(pilot, labels, some) >= wanted
        )
        for name in possible:
            if name not in kept:
                leave_out_workload(self.runner, pilot, name, labels, self._no_room(name))

    def plan(self, pilot: Pilot, labels: Sequence[TargetName]) -> Plan:
        """Return the plan of a run with those of these targets that fit."""
        options, reference = self.options, self.reference
        living = self.make_room(pilot, labels)
        both, left = [*living, plan.second(reference)], self.seconds_left
        workloads = self.runner.workloads
        size = choose_size(pilot, options, workloads, both, native=reference, seconds_left=left)
        options, length, fits = replace(options, rounds=size.rounds), size.length, size.blocks
        kept = pilot.kept(options.launch, reference)
        served = plan.blocks_per_session(max(1, min(fits, options.maximum_blocks)))
        block_cost = pilot.cost(length, options, both, workloads, reference, kept=kept)
        block_cost += sum(pilot.opening[name] for name in kept) / served
        # Fewer than three blocks have no interval. But three may exceed the budget only a little.
        self.fewest = FEWEST_BLOCKS if FEWEST_BLOCKS * block_cost <= max(left, 0) + GRACE else 1
        self._announce(pilot, length, block_cost, {name: served for name in kept if served > 1})
        self._warn(fits, block_cost, left)
        work = [
            self._work(pilot, both, workload, length, options)
            for name, workload in workloads.items()
            if (reference, name) not in pilot.left_out
        ]
        return plan.make(
            living,
            work,
            reference=reference,
            blocks=_in_reserve(min(options.maximum_blocks, max(FEWEST_PLANNED, MORE * fits))),
            seed=self.seed,
            schedule=options.schedule,
            without=frozenset(pilot.left_out),
            expensive=pilot.expensive,
            blocks_per_session=dict.fromkeys(kept, served),
        )

    def _announce(
        self, pilot: Pilot, length: float, block_cost: float, served: dict[TargetName, int]
    ) -> None:
        self.say(
            f"About {duration_text(block_cost)} a block, iterations of"
            f" {duration_text(length)} natively."
        )
        for name, blocks in served.items():
            self.say(
                f"A session of {name} takes {duration_text(pilot.opening[name])} to open"
                f" and serves {blocks} blocks."
            )

    def _warn(self, fits: int, block_cost: float, left: float) -> None:
        """Show that the budget is too small for verdicts, and how large it should be."""
        options = self.options
        # A quick run never has verdicts, and need not be warned of that.
        if fits < options.minimum_blocks and not options.quick:
            needed = options.minimum_blocks * block_cost / RESERVE + (options.budget - left)
            self.say(
                f"Only about {max(fits, 1)} blocks fit into {duration_text(options.budget)},"
                f" verdicts need {options.minimum_blocks}: --budget {math.ceil(needed / 60)}m,"
                " or fewer targets or workloads."
            )
        if options.quick and fits < FEWEST_BLOCKS:
            self.say(
                f"even {FEWEST_BLOCKS} blocks take about {FEWEST_BLOCKS * block_cost:.0f} s, longer"
                " than a quick run should: fewer targets or workloads make it short"
            )

    def _work(
        self,
        pilot: Pilot,
        labels: Sequence[TargetName],
        workload: Workload,
        length: float,
        options: RunOptions,
    ) -> Work:
        """Return the work of a workload. `labels` are those of a block."""
        is_loop = workload.scope is Scope.LOOP
        starts: dict[TargetName, int] = {}
        if is_loop:
            loops = pilot.loops(workload, options, length, self.reference)
            iterations = options.iterations
        else:
            starts = {label: pilot.starts(label, workload, options) for label in labels}
            loops, iterations = 1, max(starts.values())
        if options.schedule is not Schedule.ROUNDS:
            warmups = options.warmups if is_loop else 1
            return Work(workload=workload.name, loops=loops, iterations=iterations, warmups=warmups)
        made = Work(
            workload=workload.name,
            loops=loops,
            iterations=iterations,
            seconds={
                label: taken
                for label in labels
                if (taken := pilot.cost_of_cell(label, workload, options, length, self.reference))
            },
        )
        if not is_loop:
            # Native takes part in every round.
            fewer = {
                label: Turns(loops=loops, rounds=own)
                for label, own in starts.items()
                if own < iterations and label != self.reference
            }
            return replace(made, turns=fewer)
        found = {
            label: pilot.turns(label, workload, loops, options.rounds, self.reference)
            for label in labels
        }
        return replace(
            made,
            iterations=options.rounds,
            warmups=options.warmups,
            untimed_share=turns.UNTIMED_SHARE if classes.get(workload.class_name).untimed else 0.0,
            turns={label: own for label, own in found.items() if own is not None},
        )
