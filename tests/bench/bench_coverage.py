"""How often intervals hold the true ratio when few sessions serve many blocks: a simulation.

`nox -s bench` keeps a short one beside the speeds; as a program it prints the whole table:

    python tests/bench/bench_coverage.py [REPETITIONS]

Times are log-normal, 2 % within a session; sessions differ by `between` times that, and in half of
the rows one block in twenty stalls (half as long again). True ratio 1. "sessions ignored" is the
trimmed t over all blocks, as if each had had a session of its own.
"""

import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import pytest

from isobench import stats

WITHIN: Final = 0.02
STALLED: Final = 0.05
STALL: Final = math.log(1.5)
LAYOUTS: Final = ((10, 4), (10, 3), (15, 5), (15, 4), (15, 3), (30, 10), (30, 8), (30, 5))
"""Blocks, and how many of them one session serves: 3 to 6 sessions."""
SPREADS: Final = (0.0, 0.25, 0.5, 0.75, 1.0, 2.0)


def coverage(
    blocks: int,
    served: int,
    between: float,
    *,
    stalls: bool,
    repetitions: int,
    level: float = 0.95,
    seed: int = 1,
) -> tuple[float, float, float]:
    """Return coverage with and without regard to sessions, and the share of pooled answers."""
    rng = np.random.default_rng(seed)
    sessions = np.arange(blocks, dtype=np.int64) // served
    aware = ignorant = pooled = 0
    for _ in range(repetitions):
        logs = WITHIN * rng.standard_normal(blocks)
        logs += (between * WITHIN * rng.standard_normal(blocks))[sessions]
        if stalls:
            logs[rng.random(blocks) < STALLED] += STALL
        with_, without = (
            stats.estimate(logs, sessions=labels, level=level) for labels in (sessions, None)
        )
        assert with_ is not None
        assert without is not None
        aware += with_.interval.low <= 1 <= with_.interval.high
        ignorant += without.interval.low <= 1 <= without.interval.high
        pooled += with_.sessions == 0
    return aware / repetitions, ignorant / repetitions, pooled / repetitions


def table(repetitions: int) -> Iterator[str]:
    """Yield the lines of the whole table."""
    yield "blocks sessions between stalls  coverage  sessions ignored  pooled"
    for stalls in (False, True):
        for blocks, served in LAYOUTS:
            for between in SPREADS:
                found = coverage(blocks, served, between, stalls=stalls, repetitions=repetitions)
                yield (
                    f"{blocks:6} {math.ceil(blocks / served):8} {between:7} {stalls!s:>6}"
                    f" {found[0]:9.1%} {found[1]:17.1%} {found[2]:7.0%}"
                )


@pytest.mark.benchmark(group="coverage, a hundred runs of 15 blocks in 3 sessions")
def bench_coverage(benchmark: Callable[..., Any]) -> None:
    def hundred() -> tuple[float, float, float]:
        return coverage(15, 5, 1.0, stalls=False, repetitions=100)

    benchmark.extra_info["coverage"] = benchmark.pedantic(hundred, rounds=3)  # type: ignore[attr-defined]


if __name__ == "__main__":
    for line in table(int(sys.argv[1]) if len(sys.argv) > 1 else 1000):
        print(line, flush=True)  # noqa: T201 - a table to read
