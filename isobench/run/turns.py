"""How targets take part in the rounds of a block: how long a turn is, and in how many rounds. Pure.

In each round every target makes one short iteration, its turn, right after the others: whatever the
machine does meanwhile happens to all of them alike. Longer pauses between target and native leave
its noise in their ratio (docs/statistics.md).
"""

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import Turns, Work
from isobench.model.plan import partner
from isobench.model.units import TargetName, WorkloadName

LENGTH: Final = 0.008
"""Seconds of a turn natively."""
SHORTEST: Final = 0.0005
"""Seconds of native's turn beside a target that is far slower."""
LONGEST: Final = 0.04
"""A target whose turn would take more seconds gets less work."""
SHARE: Final = 2.0
"""A slow target may take so many times as long in a block as native."""
FEWEST: Final = 3
"""A target has a turn in so many rounds at least."""
PROGRAMS: Final = 5
"""Rounds of a target that must start a program for each turn, or that has long turns."""
THROTTLED: Final = 0.25
"""Seconds of native's turn beside a target with a CPU quota: more than two of its periods."""
UNTIMED_SHARE: Final = 0.25
"""The share of a turn's loops that is not timed before it."""
STARTS: Final = 0.1
"""Seconds that a target's starts may take in a block beyond the fewest."""
MOST_TIMES: Final = 8
"""Those that stay when others have left have at most so many times the rounds in a block."""


def of_target(
    *,
    loops: int,
    rounds: int,
    native: float,
    slowdown: float,
    interactive: bool,
    throttled: bool = False,
) -> Turns | None:
    """Return the turns of a target; None: those of native.

    `native` is the length of native's turn in seconds, of `loops` loops; `slowdown` is how many
    times as long the target takes. `throttled`: it has a CPU quota.
    """
    if throttled:
        longer = max(1.0, THROTTLED / native)
        return Turns(loops=round(loops * longer), rounds=min(rounds, PROGRAMS))
    if not interactive:
        return Turns(loops=loops, rounds=min(rounds, PROGRAMS))
    length = native * slowdown
    if length <= LONGEST:
        return None
    shorter = max(LONGEST / length, min(1.0, SHORTEST / native))
    fewer = max(1, round(loops * shorter))
    taken = length * fewer / loops
    wanted = int(SHARE * rounds * native / taken)
    return Turns(loops=fewer, rounds=min(rounds, max(FEWEST, wanted)))


def starts(*, fewest: int, most: int, seconds: float) -> int:
    """Return how many starts of `seconds` each a target has in a block.

    Starts of less than a millisecond differ by half from one to the next, so that few of them show
    little; and they cost little beside those of an engine.
    """
    return max(fewest, min(most, int(STARTS / max(seconds, 1e-9))))


def times(
    work: Collection[Work],
    left: Mapping[WorkloadName, Collection[TargetName]],
    *,
    opening: float,
) -> float:
    """Return how many times as many rounds a block has in which only these labels are left.

    A block also costs `opening` seconds, to open and prove its sessions. Those that stay get the
    time of those that have left until their turns take as long as that: with fewer, most of the run
    would go to openings. Beyond that, more blocks show more than more rounds in each.
    """
    staying = sum(
        taken
        for one in work
        for label, taken in one.seconds.items()
        if label in left.get(one.workload, ())
    )
    if staying <= 0:
        return 1.0
    before = sum(taken for one in work for taken in one.seconds.values())
    return max(1.0, min(MOST_TIMES, opening / staying, before / staying))


def scaled(work: Work, times: float) -> Work:
    """Return the work of a block with so many times the rounds."""
    return replace(
        work,
        iterations=round(times * work.iterations),
        turns={
            label: replace(own, rounds=round(times * own.rounds))
            for label, own in work.turns.items()
        },
    )


def most_loops(work: Work, label: TargetName, *, reference: TargetName) -> int:
    """Return the most loops that a label's payload makes in a turn."""
    if label in work.turns:
        return work.turns[label].loops
    # The reference also has a turn beside each target whose turns are its own.
    beside = [own.loops for own in work.turns.values()] if label == reference else []
    return max([work.loops, *beside])


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One iteration in a round."""

    label: TargetName
    """Whose sample it is: a label of the block, or native's as the partner of a slow target."""
    process: TargetName
    """The label of the block whose payload makes it."""
    loops: int
    untimed: int


def order(
    work: Work, labels: Sequence[TargetName], *, reference: TargetName, seed: str
) -> Iterator[Sequence[Turn]]:
    """Yield the turns of each round, in random order. The same seed gives the same orders."""
    rng = random.Random(f"{seed}/{work.workload}")  # noqa: S311 - an order to replay, not a secret
    for number in range(work.iterations):
        turns = [
            turn for label in labels for turn in _of_round(work, label, labels, reference, number)
        ]
        rng.shuffle(turns)
        yield turns


def _of_round(
    work: Work,
    label: TargetName,
    labels: Sequence[TargetName],
    reference: TargetName,
    number: int,
) -> Iterator[Turn]:
    own = work.turns.get(label)
    if own is not None and not _takes_part(own.rounds, work.iterations, number):
        return
    loops = work.loops if own is None else own.loops
    yield _turn(work, label, label, loops)
    if loops != work.loops and reference in labels:
        yield _turn(work, partner(reference, label), reference, loops)


def _turn(work: Work, label: TargetName, process: TargetName, loops: int) -> Turn:
    return Turn(
        label=label, process=process, loops=loops, untimed=round(loops * work.untimed_share)
    )


def _takes_part(rounds: int, total: int, number: int) -> bool:
    """Return whether a target with fewer rounds has a turn in this one: they are spread evenly."""
    return (number + 1) * rounds // total > number * rounds // total
