"""Makes a Plan from names and a seed: random order in each block, the reference twice. Pure."""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Final

from isobench.model import Block, Plan, Schedule, Visit, Work
from isobench.model.units import TargetName, WorkloadName

# No name of a target may contain it (`plugins.registry` checks that), so labels are unambiguous.
_MARK: Final = "#"
FEWEST_SESSIONS: Final = 3
"""The fewest sessions of a target that show how much its sessions differ."""


def second(reference: TargetName) -> TargetName:
    """Return the label under which the reference is visited a second time: the A/A control."""
    return TargetName(f"{reference}{_MARK}2")


def actual(label: TargetName) -> TargetName:
    """Return the target of a label of a plan."""
    return TargetName(label.partition(_MARK)[0])


def partner(reference: TargetName, label: TargetName) -> TargetName:
    """Return the label of the reference that runs at the same time as this label, in a duet."""
    return reference if actual(label) == reference else TargetName(reference + _MARK + label)


def is_partner(reference: TargetName, label: TargetName) -> bool:
    """Return whether a label is the reference in a duet with another target."""
    return actual(label) == reference and label not in (reference, second(reference))


def block(
    number: int,
    labels: Sequence[TargetName],
    workloads: Sequence[WorkloadName],
    *,
    seed: int,
    shuffled: bool = True,
    without: frozenset[tuple[TargetName, WorkloadName]] = frozenset(),
    duet: TargetName | None = None,
) -> Block:
    """Return one block: workloads in random order, and for each of them all targets in random
    order.

    In a `duet`, each target is followed by its partner, the reference that runs at the same time;
    the reference itself is the partner of the control. `without` names cells that are left out.
    """
    if duet is not None:
        labels = [label for label in labels if label != duet]
    # The seed of a block depends on its number, not on the blocks before it: a resumed run and a
    # run with other workloads get the same orders.
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - an order to replay, not a secret
    sessions, order = list(labels), list(workloads)
    if shuffled:
        rng.shuffle(sessions)
        rng.shuffle(order)
    visits: list[Visit] = []
    # All targets of a workload run within seconds of each other, so that they meet the same noise
    # of the host, and the ratio cancels it out (google/benchmark issue 1051).
    for workload in order:
        targets = list(labels)
        if shuffled:
            rng.shuffle(targets)
        visits += [
            Visit(block=number, target=target, workload=workload)
            for target in targets
            if (actual(target), workload) not in without
        ]
    # Partners follow their targets directly: a duet runs two visits at a time.
    if duet is not None:
        sessions += [partner(duet, label) for label in sessions]
        visits = [
            each
            for visit in visits
            for each in (visit, replace(visit, target=partner(duet, visit.target)))
        ]
    return Block(number=number, sessions=tuple(sessions), visits=tuple(visits))


def make(
    targets: Sequence[TargetName],
    work: Sequence[Work],
    *,
    reference: TargetName,
    blocks: int,
    seed: int,
    schedule: Schedule = Schedule.BLOCKS,
    without: frozenset[tuple[TargetName, WorkloadName]] = frozenset(),
    expensive: Sequence[TargetName] = (),
    blocks_per_session: Mapping[TargetName, int] | None = None,
) -> Plan:
    """Return the plan of a run of at most `blocks` blocks. `targets` includes the reference.

    `without` names cells that are left out, since the trial could not measure them. `expensive` and
    `blocks_per_session` come from the trial too.
    """
    labels = [*targets, second(reference)]
    names = [item.workload for item in work]
    return Plan(
        seed=seed,
        reference=reference,
        work=tuple(work),
        blocks=tuple(
            block(
                number,
                labels,
                names,
                seed=seed,
                shuffled=schedule is not Schedule.SEQUENTIAL,
                without=without,
                duet=reference if schedule is Schedule.DUET else None,
            )
            for number in range(1, blocks + 1)
        ),
        schedule=schedule,
        expensive=tuple(expensive),
        blocks_per_session=dict(blocks_per_session or {}),
    )


def without_left(
    whole: Block, left: Collection[tuple[WorkloadName, TargetName]], reference: TargetName
) -> Block:
    """Return what remains of a block when cells have left it.

    A workload in which only the reference remains leaves with its last cell. Sessions that nothing
    uses are not opened.
    """
    left_workloads = {workload for workload, _ in left}
    staying = {
        visit.workload
        for visit in whole.visits
        if visit.workload not in left_workloads
        or (actual(visit.target) != reference and (visit.workload, visit.target) not in left)
    }

    def stays(visit: Visit) -> bool:
        # In a duet, the reference beside a target leaves with it.
        label = TargetName(visit.target.partition(_MARK)[2])
        gone = {(visit.workload, visit.target), (visit.workload, label)} & set(left)
        return visit.workload in staying and not gone

    visits = tuple(filter(stays, whole.visits))
    used = {visit.target for visit in visits}
    return replace(
        whole, visits=visits, sessions=tuple(label for label in whole.sessions if label in used)
    )


def blocks_per_session(blocks: int) -> int:
    """Return how many blocks a session may serve so that `blocks` blocks need at least three.

    The third may serve one block less: a block more per session costs less than a fourth session.
    """
    return max(1, (blocks + 1) // FEWEST_SESSIONS)
