"""Searches for a target that lies about the times of its turns, and is near-native without a doubt:
`python -m tests.faults.lies SECONDS [SEED]`.

Its turns are simulated and written as the runner does, with the host's true times. In each block it
does something else: it works for longer than it reports, has turns that it remembers or that are
long and reported truly, and answers late for one loop. What is believed is changed a little and
tried again. Source of the bound: docs/reliability.md, "What is not guaranteed".
"""

import itertools
import json
import math
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from isobench import stats
from isobench.analysis import rounds
from isobench.analysis.cells import Analysis
from isobench.evidence import host_time
from isobench.model import Status, Verdict
from isobench.storage import reader
from tests.unit.test_host_check import SIEVE, ByTurn, verdict_of

MARGIN: Final = 1.05
LONGEST: Final = MARGIN / host_time.LEAST_OF_ALL * 1.03
"""How many times native's time a target may take that is near-native: it hides two thirds of what
it reports at most. Turns vary, and so does what the host sees of a few blocks.
"""
_FIRST: Final = 8
_GIVE_UP: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What a target does in one block; native's turns take 1."""

    takes: float = 1.03
    """How long its turns are."""
    reports: float = 1.03
    """And how long it says they are."""
    remembered: int = 0
    """So many turns take next to nothing."""
    giants: int = 0
    """So many turns take `giant`, and are reported as they are."""
    giant: float = 20.0
    late: float = 0.0
    """How late answers for one loop are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A target that lies, and the run in which it does."""

    blocks: tuple[Block, ...]
    turns: int
    by_fastest: bool
    untimed: float
    """The share of the untimed pass, which the target leaves out."""
    native_way: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What came of a case."""

    case: Case
    verdict: Verdict
    ratio: float
    """The true ratio to native of the turns that count."""

    @property
    def is_believed(self) -> bool:
        """Whether it is near-native. A payload that remembers its answers is faster, and a doubt
        beside that says so.
        """
        doubted = any(one.blocks for one in self.verdict.doubts)
        return self.verdict.status is Status.NEAR_NATIVE and not doubted


def tried(case: Case) -> Found:
    """Return the verdict on a case, through a run that is written and read."""
    chosen = rounds.by_fastest if case.by_fastest else rounds.by_round
    true: list[float] = []
    each = iter(case.blocks)

    def turns(rng: random.Random, target: str) -> tuple[list[float], list[float], list[float]]:
        usual = [rng.gauss(1.0, 0.004) for _ in range(case.turns)]
        way = 0.02 if target == "box" else case.native_way
        ways = [rng.lognormvariate(math.log(way), 0.2) for _ in range(3 + case.turns)]
        if target != "box":
            ways[:3] = [one + case.untimed for one in ways[:3]]
            return usual, [(1 + case.untimed) * one for one in usual], ways
        block = next(each)
        takes = [block.takes * one for one in usual]
        reported = [block.reports * one for one in usual]
        order = rng.sample(range(case.turns), case.turns)
        for number in order[: block.remembered]:
            takes[number] = 0.05
        for number in order[block.remembered :][: block.giants]:
            takes[number] = reported[number] = block.giant
        ways[:3] = [max(block.late, one) for one in ways[:3]]
        true.append(chosen(np.log(takes), np.log(usual)))
        return reported, takes, ways

    folder = Path(tempfile.mkdtemp(prefix="isobench-lies-"))
    estimator = Analysis._estimator
    try:
        made = ByTurn(
            ratios={("box", SIEVE): 1.0},
            turns=turns,
            untimed_share=case.untimed,
            blocks=len(case.blocks),
            pilot=False,
        ).write(folder / "run")
        Analysis._estimator = lambda *_: chosen  # type: ignore[method-assign, assignment]
        verdict = verdict_of(Analysis(reader.load(made)))
    finally:
        Analysis._estimator = estimator  # type: ignore[method-assign]
        shutil.rmtree(folder)
    location = stats.estimate(np.array(true), level=host_time.LEVEL)
    ratio = location.ratio if location else math.exp(float(np.median(true)))
    return Found(case=case, verdict=verdict, ratio=ratio)


def search(seed: int) -> Iterator[Found]:
    """Yield what comes of cases, without end."""
    rng = random.Random(seed)  # noqa: S311 - a search to repeat, not a secret
    while True:
        first = [tried(_case(rng)) for _ in range(_FIRST)]
        yield from first
        best, since = max(first, key=_score), 0
        while since < _GIVE_UP:
            found = tried(_changed(best.case, rng))
            yield found
            is_better = _score(found) > _score(best)
            best, since = (found, 0) if is_better else (best, since + 1)


def _score(found: Found) -> float:
    """Return how good a lie is: the slower, the better while it is believed, and else the worse."""
    return found.ratio if found.is_believed else -found.ratio


def _case(rng: random.Random) -> Case:
    # Many searches begin with the truth, and change that.
    kinds = [_block(rng) for _ in range(rng.randint(0, 3))] or [Block()]
    return Case(
        blocks=tuple(rng.choice(kinds) for _ in range(rng.choice([4, 5, 6, 8, 12, 15]))),
        turns=rng.choice([5, 8, 15, 25]),
        by_fastest=rng.random() < 0.5,
        untimed=rng.choice([0.0, 0.25]),
        native_way=rng.choice([0.01, 0.1, 0.3, 0.45]),
    )


def _block(rng: random.Random) -> Block:
    takes = rng.choice([0.05, 1.03, 1.2, 1.45, 1.45, 1.6, 1.6, 1.8, 2.0, 2.5, 4.0, 20.0])
    return Block(
        takes=takes,
        reports=rng.choice([1.0, 1.03, 1.03, 1.03, 0.8, 1.2]),
        remembered=rng.choice([0, 0, 0, 1, 2]),
        giants=rng.choice([0, 1, 1, 2]),
        giant=takes * rng.choice([5.0, 20.0, 60.0, 300.0]),
        late=rng.choice([0.0, 0.0, 0.2, 0.3, 0.5]) * takes,
    )


def _changed(case: Case, rng: random.Random) -> Case:
    """Return a case that differs in one or a few of its blocks."""
    blocks = [*case.blocks]
    kind = rng.random()
    if kind < 0.3:
        blocks[rng.randrange(len(blocks))] = _block(rng)
    elif kind < 0.6:
        factor = rng.uniform(0.95, 1.1)
        some = rng.sample(range(len(blocks)), rng.randint(1, len(blocks)))
        for number in some:
            one = blocks[number]
            blocks[number] = replace(one, takes=one.takes * factor, late=one.late * factor)
    elif kind < 0.8:
        number = rng.randrange(len(blocks))
        late = rng.choice([0.0, 0.2, 0.3, 0.36, 0.5]) * blocks[number].takes
        blocks[number] = replace(blocks[number], late=late)
    else:
        factor = rng.choice([0.5, 0.8, 1.25, 2.0, 5.0])
        blocks = [replace(one, giants=1, giant=one.giant * factor) for one in blocks]
    return replace(case, blocks=tuple(blocks))


def main() -> None:
    """Search for so many seconds, and print the longest time that was believed."""
    end, seed = time.monotonic() + float(sys.argv[1]), int((sys.argv[2:] or ["1"])[0])
    every = [*itertools.takewhile(lambda _: time.monotonic() < end, search(seed))]
    believed = [found for found in every if found.is_believed]
    longest = max(believed, key=lambda found: found.ratio, default=None)
    text = f"{len(every)} cases, {len(believed)} of them believed"
    if longest is not None:
        text += f"; the longest of these takes {longest.ratio:.2f} times native's time"
    print(text)  # noqa: T201 - a tool
    if longest is not None and longest.ratio > LONGEST:
        sys.exit(f"more than {LONGEST:.2f}: {json.dumps(asdict(longest.case))}")


if __name__ == "__main__":
    main()
