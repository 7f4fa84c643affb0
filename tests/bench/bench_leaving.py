"""How wide a decided cell may be that leaves: a replay of a run with its own costs and spreads.

    python tests/bench/bench_leaving.py RUN [SECONDS] [TRIALS]

Each cell's block log-ratios are drawn from a normal distribution with the mean and the spread that
the run showed. A block costs what its cells, native twice and the opening of its targets cost then.
The last column counts the cells that are open at the end of the budget: the mean over trials.
"""

import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd

from isobench import stats
from isobench.analysis import verdict
from isobench.analysis.cells import Analysis
from isobench.model.units import TargetName, WorkloadName
from isobench.stats import sequential
from isobench.storage import reader

WIDTHS: Final = (None, 0.15, 0.2, 0.25, 0.3)
"""The half widths at which decided cells leave; None: all stay."""
OPENING: Final = {"docker": 0.6, "podman": 0.6, "gvisor": 0.3, "qemu": 0.3, "uml": 0.3}
"""Seconds to open a session of a target, where it is more than a twentieth of a second."""
_USUAL_OPENING: Final = 0.05
_BETWEEN_BLOCKS: Final = 0.3
_MOST_BLOCKS: Final = 400
_WINSORISED: Final = 0.66
"""The standard deviation of a normal distribution after winsorising a fifth at each end."""
Key = tuple[TargetName, WorkloadName]


@dataclass(frozen=True, kw_only=True)
class Costs:
    """A run: seconds a visit, and the mean and spread of each cell."""

    visits: Mapping[tuple[str, str], float]
    cells: Mapping[Key, tuple[float, float]]
    margin: float


def costs(path: Path) -> Costs:
    """Return the costs and cells of a run."""
    run = reader.load(path)
    ends = run.samples.groupby(["block", "target", "workload"])["at"].max().sort_values()
    ends = ends[ends.index.get_level_values("block") > 0]
    taken = ends.diff()
    visits = taken.groupby(level=["target", "workload"]).median()
    found = {
        (cell.target, cell.workload): (
            math.log(one.ratio), one.deviation / _WINSORISED,
        )
        for cell in Analysis(run).cells
        if (one := cell.verdict.estimate) is not None and "#" not in cell.target
    }  # fmt: skip
    seconds = {
        (str(key[0]), str(key[1])): float(value)
        for key, value in visits.items()
        if not pd.isna(value)
    }
    return Costs(visits=seconds, cells=found, margin=1 + run.metadata.margin)


def replay(run: Costs, budget: float, widest: float | None, seed: int) -> tuple[int, int]:
    """Return how many cells stay open, and how many blocks the budget had room for."""
    rng = np.random.default_rng(seed)
    drawn = {
        key: mean + spread * rng.standard_normal(_MOST_BLOCKS)
        for key, (mean, spread) in run.cells.items()
    }
    active, spent = dict(run.cells), 0.0
    for blocks in range(1, _MOST_BLOCKS + 1):
        spent += _block(run, active)
        if spent >= budget or blocks == _MOST_BLOCKS:
            rule = sequential.RULE.final
            return sum(not _leaves(run, drawn[key][:blocks], rule, None) for key in active), blocks
        if widest is not None and sequential.is_analysis(blocks):
            rule = sequential.RULE.interim
            active = {
                key: one
                for key, one in active.items()
                if not _leaves(run, drawn[key][:blocks], rule, widest)
            }
        if not active:
            return 0, blocks
    raise AssertionError("the last block returns")


def _block(run: Costs, active: Mapping[Key, tuple[float, float]]) -> float:
    """Return how many seconds a block of these cells takes."""
    own = sum(run.visits.get(key, 0.1) for key in active)
    native = sum(
        run.visits.get((name, workload), 0.05)
        for workload in {workload for _, workload in active}
        for name in ("native", "native#2")
    )
    opening = sum(
        OPENING.get(target, _USUAL_OPENING) for target in {target for target, _ in active}
    )
    return own + native + opening + _BETWEEN_BLOCKS


def _leaves(run: Costs, values: np.ndarray, level: float, widest: float | None) -> bool:
    if values.size < stats.FEWEST_BLOCKS:
        return False
    location = stats.locate(values, correlated=True)
    if not verdict.is_definite(location.interval(level), run.margin):
        return False
    usual = location.interval(sequential.RULE.final)
    return widest is None or verdict.is_known(usual, run.margin, widest)


def table(path: Path, budget: float, trials: int) -> Iterator[str]:
    """Yield the table line by line, as Markdown."""
    run = costs(path)
    yield f"| decided cells leave at | blocks | of {len(run.cells)} cells open |"
    yield "|---|---|---|"
    for widest in WIDTHS:
        found = [replay(run, budget, widest, seed) for seed in range(trials)]
        opened, blocks = np.mean(found, axis=0)
        at = "never" if widest is None else f"{100 * widest:g} %"
        yield f"| {at} | {blocks:.0f} | {opened:.1f} |"


if __name__ == "__main__":
    SECONDS = float(sys.argv[2]) if len(sys.argv) > 2 else 610.0
    TRIALS = int(sys.argv[3]) if len(sys.argv) > 3 else 12
    for line in table(Path(sys.argv[1]), SECONDS, TRIALS):
        sys.stdout.write(f"{line}\n")
