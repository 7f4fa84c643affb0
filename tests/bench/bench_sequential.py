"""Which rule lets cells leave a run early: a simulation of rules, noises and budgets.

    python tests/bench/bench_sequential.py [REPETITIONS]

Each run has one cell at a margin of 5 %, with 6 % of noise in a block. It is analysed after the
blocks of `sequential.is_analysis` and after 120, leaves when it is decided, and is judged at the
last analysis otherwise. The budget is spent evenly ("even"), or so that three quarters of it are
gone after 40 of 120 blocks ("early"): expensive cells take part at first and leave then.

The rules: RULE of isobench.stats.sequential, and without its widening; the limits of O'Brien and
Fleming, c / sqrt(share), at 5 % (method "alpha(t)") and at 3 % for each one-sided test; Wang and
Tsiatis's c / share. A second table has runs of few blocks that are judged once, with 2 % of noise.
`nox -s bench` keeps a short one beside the speeds.
"""

import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Final

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import special

from isobench.stats import sequential
from isobench.stats.ratio import kept_blocks

MARGIN: Final = math.log(1.05)
SPREAD: Final = 0.06
LAST: Final = 120
ANALYSES: Final = (*filter(sequential.is_analysis, range(LAST)), LAST)
FEW: Final = (3, 4, 5, 7, 10, 15)
RATIOS: Final = (1.0, 1.02, 1.05, 1.10, 1.3, 3.0)
_STALL: Final = math.log(1.5) / 0.03
_NORMAL: Final = NormalDist()
Floats = NDArray[np.float64]


def _normal(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_normal(shape)


def _stalls(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    either = (rng.random(shape) < 0.05).astype(float) - (rng.random(shape) < 0.05)
    return rng.standard_normal(shape) + _STALL * either


def _heavy(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    return rng.standard_t(3, shape)


def _autocorrelated(rng: np.random.Generator, shape: tuple[int, int]) -> Floats:
    found = rng.standard_normal(shape)
    for block in range(1, shape[1]):
        found[:, block] = 0.2 * found[:, block - 1] + math.sqrt(0.96) * found[:, block]
    return found


NOISES: Final = {"normal": _normal, "stalls": _stalls, "heavy (t, 3 df)": _heavy,
                 "AR(1) 0.2": _autocorrelated}  # fmt: skip


def _even(blocks: int) -> float:
    return blocks / ANALYSES[-1]


def _early(blocks: int) -> float:
    return math.log1p(blocks / 3) / math.log1p(ANALYSES[-1] / 3)


BUDGETS: Final = {"even": _even, "early": _early}


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A rule: the error of each one-sided test after a share of the budget."""

    name: str
    error: Callable[[float], float]
    widened: bool = False


def _limits(error: float, power: float, least: float = 0.0) -> Callable[[float], float]:
    limit = _NORMAL.inv_cdf(1 - error / 2)
    return lambda share: max(1 - _NORMAL.cdf(limit / share**power), least)


def _constant(share: float) -> float:
    return (1 - sequential.RULE.level(share)) / 2


CANDIDATES: Final = (
    Candidate(name="isobench", error=_constant, widened=True),
    Candidate(name="not widened", error=_constant),
    Candidate(name="O'Brien-Fleming 5 %", error=_limits(0.05, 0.5)),
    Candidate(name="O'Brien-Fleming 3 %, from 0.05 %", error=_limits(0.03, 0.5, 0.0005)),
    Candidate(name="Wang-Tsiatis 3 %, from 0.05 %", error=_limits(0.03, 1.0, 0.0005)),
)


@dataclass(kw_only=True)
class Outcome:
    """Shares of runs, and the mean number of blocks."""

    near: float = 0.0
    slower: float = 0.0
    faster: float = 0.0
    covered: float = 0.0
    """The interval that decides holds the true ratio."""
    nominal: float = 0.0
    """The 97 % interval at the same analysis does."""
    blocks: float = 0.0


def _located(rows: Floats) -> tuple[Floats, Floats, int]:
    """Return mean, standard error and degrees of freedom as `stats.locate` does, of many rows."""
    blocks = rows.shape[1]
    kept = kept_blocks(blocks)
    cut = (blocks - kept) // 2
    ordered = np.sort(rows, axis=1)
    middle = ordered[:, cut : blocks - cut]
    spread = np.clip(ordered, middle[:, :1], middle[:, -1:]).std(axis=1, ddof=1)
    return middle.mean(axis=1), spread * math.sqrt((blocks - 1) / (kept * (kept - 1))), kept - 1


def simulate(
    candidate: Candidate,
    noise: str,
    ratio: float,
    *,
    repetitions: int,
    budget: str = "even",
    analyses: Sequence[int] = ANALYSES,
    spread: float = SPREAD,
    seed: int = 1,
) -> Outcome:
    """Return what comes out of so many runs of one cell."""
    rng = np.random.default_rng(seed)
    truth, found = math.log(ratio), Outcome()
    logs = truth + spread * NOISES[noise](rng, (repetitions, analyses[-1]))
    for blocks in analyses:
        mean, error, freedom = _located(logs[:, :blocks])
        if candidate.widened:
            error *= sequential.widening(logs[:, :blocks])
        level = candidate.error(BUDGETS[budget](blocks))
        reach = special.stdtrit(freedom, 1 - level) * error
        usual = special.stdtrit(freedom, 0.985) * error
        near = (mean - reach > -MARGIN) & (mean + reach < MARGIN)
        slower, faster = mean - reach > MARGIN, mean + reach < -MARGIN
        leaves = near | slower | faster | (blocks == analyses[-1])
        off = np.abs(mean - truth)
        for name, which in (
            ("near", near), ("slower", slower), ("faster", faster), ("covered", off <= reach),
            ("nominal", off <= usual), ("blocks", np.full(mean.shape, blocks)),
        ):  # fmt: skip
            setattr(found, name, getattr(found, name) + float(which[leaves].sum()) / repetitions)
        logs = logs[~leaves]
    return found


def table(repetitions: int) -> Iterator[str]:
    """Yield the table line by line, as Markdown."""
    yield "| rule | budget | noise | true ratio | near-native | slower | blocks | interval holds | 97 % interval holds |"  # noqa: E501 - one row of a table
    yield "|---|---|---|---|---|---|---|---|---|"
    for candidate in CANDIDATES:
        for budget in BUDGETS if candidate.name != "not widened" else ("even",):
            for noise in NOISES:
                for ratio in RATIOS:
                    one = simulate(candidate, noise, ratio, repetitions=repetitions, budget=budget)
                    shares = [f"{100 * each:.1f} %" for each in (one.near, one.slower)]
                    holds = [f"{100 * each:.1f} %" for each in (one.covered, one.nominal)]
                    yield (
                        f"| {candidate.name} | {budget} | {noise} | {ratio:g} | "
                        + " | ".join([*shares, f"{one.blocks:.0f}", *holds])
                        + " |"
                    )


def few(repetitions: int) -> Iterator[str]:
    """Yield the table of few blocks line by line, as Markdown."""
    once = Candidate(name="once", error=lambda _: _constant(1.0), widened=True)
    yield "| blocks | noise | wrongly near-native at 1.05 | wrongly slower | interval holds |"
    yield "|---|---|---|---|---|"
    for blocks in FEW:
        for noise in NOISES:
            one = simulate(
                once, noise, 1.05, repetitions=repetitions, analyses=(blocks,), spread=0.02
            )
            shares = [f"{100 * each:.1f} %" for each in (one.near, one.slower, one.covered)]
            yield f"| {blocks} | {noise} | {' | '.join(shares)} |"


@pytest.mark.parametrize("noise", list(NOISES))
def bench_leaving_keeps_the_promises(benchmark: Any, noise: str) -> None:
    """At the margin each verdict is wrong in at most 5 %, and the interval holds 94 % or more."""
    found = benchmark(lambda: simulate(CANDIDATES[0], noise, 1.05, repetitions=1000))
    assert max(found.near, found.slower) <= 0.05
    assert found.covered >= 0.94


if __name__ == "__main__":
    COUNT = int(sys.argv[1]) if len(sys.argv) > 1 else 4000
    for line in (*table(COUNT), "", *few(5 * COUNT)):
        sys.stdout.write(f"{line}\n")
