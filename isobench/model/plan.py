"""Names and a seed -> Plan: random order inside each block, the reference visited twice. Pure."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from isobench.model import Block, Plan, Schedule, Visit, Work
from isobench.model.units import TargetName, WorkloadName

_MARK: Final = "#"
"""What no name of a target holds."""
FEWEST_SESSIONS: Final = 3
"""From so many on, the spread among the sessions of a target can be told from none."""
FIRST_INTERIM_ANALYSIS: Final = 10
BLOCKS_BETWEEN_ANALYSES: Final = 5


def second(reference: TargetName) -> TargetName:
    """Return the label under which the reference is visited a second time: the A/A control."""
    return TargetName(f"{reference}{_MARK}2")


def actual(label: TargetName) -> TargetName:
    """Return the target behind a label of a plan."""
    return TargetName(label.partition(_MARK)[0])


def partner(reference: TargetName, label: TargetName) -> TargetName:
    """Return the label under which the reference runs at the same time as this one, in a duet."""
    return reference if actual(label) == reference else TargetName(reference + _MARK + label)


def is_partner(reference: TargetName, label: TargetName) -> bool:
    """Say whether a label is the reference's beside some other target."""
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

    All targets of a workload follow each other at once, so that they share whatever the host is
    doing then. In a `duet` with the reference each is followed by its partner; the reference itself
    is that of the control.
    """
    if duet is not None:
        labels = [label for label in labels if label != duet]
    rng = random.Random(f"{seed}/{number}")  # noqa: S311 - an order to replay, not a secret
    sessions, order = list(labels), list(workloads)
    if shuffled:
        rng.shuffle(sessions)
        rng.shuffle(order)
    visits: list[Visit] = []
    for workload in order:
        targets = list(labels)
        if shuffled:
            rng.shuffle(targets)
        visits += [
            Visit(block=number, target=target, workload=workload)
            for target in targets
            if (actual(target), workload) not in without
        ]
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
    """Return the plan of a run of at most `blocks` blocks; `targets` holds the reference.

    `without` names cells that are not planned, since a trial has shown that they cannot be
    measured; `expensive` and `blocks_per_session` are what it has shown of sessions.
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


def blocks_per_session(blocks: int) -> int:
    """Return how many of `blocks` blocks one session may serve that at least three are opened.

    The third may serve one block less: one more of each session costs less than a fourth session.
    """
    return max(1, (blocks + 1) // FEWEST_SESSIONS)


def is_interim_analysis(blocks: int) -> bool:
    """Say whether a run looks at its intervals after so many valid blocks: every fifth from the
    tenth. Seldom, since each look is one more chance to stop at an interval narrow by luck.
    """
    return blocks >= FIRST_INTERIM_ANALYSIS and blocks % BLOCKS_BETWEEN_ANALYSES == 0
