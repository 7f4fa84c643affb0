"""Whether rounds measure the same as visits, and whether programs that wait cost anything.

    python tests/bench/bench_rounds.py agreement --targets docker,landlock --trials 4
    python tests/bench/bench_rounds.py waiting --trials 6 --budget 30s

`agreement` runs isobench with `--schedule rounds` and `--schedule blocks` in turn, in random order,
and prints for each cell both ratios, their difference and its interval (95 %, by runs).

`waiting` compares native with itself: in a run with one other target, and in a run with eleven
others whose payloads wait meanwhile. It prints the ratio of native's second turn to its first in
both, and the ratio of native's times in the two kinds of runs.

`estimators RUN…` takes runs that were measured in rounds, and prints how much the blocks of each
workload spread, native against native, by three ways to make one value of a block's rounds: the
trimmed mean of the ratios of each round, the ratio of the medians of all turns, and the ratio of
the fastest turns. Robust standard deviations; `load` is that before the run.
"""

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import click
import numpy as np
import pandas as pd
from scipy import stats

from isobench.analysis import rounds
from isobench.analysis.cells import Analysis
from isobench.storage import reader

MANY: Final = 11
FEWEST_ROUNDS: Final = 5


def run(folder: Path, *words: str) -> Any:
    """Run isobench and return its summary."""
    argv = [sys.executable, "-m", "isobench", "run", "--quiet", "--output", str(folder), *words]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    return json.loads((folder / "summary.json").read_text())


def difference(first: Sequence[float], other: Sequence[float]) -> str:
    """Return the mean difference of two lists of logarithms with its 95 % interval, in percent."""
    one, two = np.asarray(first), np.asarray(other)
    test = stats.ttest_ind(one, two, equal_var=False)
    low, high = test.confidence_interval(0.95)
    middle = 100 * math.expm1(float(one.mean() - two.mean()))
    return f"{middle:+.2f} % [{100 * math.expm1(low):+.2f}, {100 * math.expm1(high):+.2f}]"


@click.group()
def main() -> None:
    """Trials of rounds."""


@main.command()
@click.option("--targets", default="landlock,bubblewrap")
@click.option("--workloads", default="cpu,syscall,io.metadata")
@click.option("--trials", default=4, type=click.IntRange(2))
@click.option("--budget", default="1m")
@click.option("--seed", default=1)
def agreement(targets: str, workloads: str, trials: int, budget: str, seed: int) -> None:
    """Compare rounds with visits, cell by cell."""
    rng = random.Random(seed)  # noqa: S311 - an order to replay, not a secret
    found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]] = {}
    for number in range(trials):
        order = ["rounds", "blocks"]
        rng.shuffle(order)
        for schedule in order:
            with tempfile.TemporaryDirectory() as folder:
                words = ("--targets", targets, "--workloads", workloads, "--budget", budget)
                summary = run(Path(folder) / "run", *words, "--schedule", schedule)
            for cell in summary["cells"]:
                if cell["interval"] is None:
                    continue
                low, high = cell["interval"]
                key = (cell["workload"], cell["target"])
                own = found.setdefault(key, {"rounds": [], "blocks": []})
                own[schedule].append((cell["ratio"], math.sqrt(high / low) - 1))
        click.echo(f"trial {number + 1} of {trials}", err=True)
    click.echo("\n".join(_agreement(found)))


def _agreement(found: dict[tuple[str, str], dict[str, list[tuple[float, float]]]]) -> Iterator[str]:
    yield "| workload | target | rounds, ± a run | visits, ± a run | rounds over visits |"
    yield "|---|---|---:|---:|---:|"
    for (workload, target), both in sorted(found.items()):
        shown = []
        for own in both.values():
            ratio = math.exp(statistics.fmean(math.log(ratio) for ratio, _ in own))
            width = statistics.median(width for _, width in own)
            shown.append(f"{ratio:.4f} ±{100 * width:.2f} %")
        logs = [[math.log(ratio) for ratio, _ in own] for own in both.values()]
        yield f"| {workload} | {target} | {' | '.join(shown)} | {difference(*logs)} |"


@main.command()
@click.option("--workloads", default="cpu.sieve,syscall.getppid")
@click.option("--trials", default=6, type=click.IntRange(2))
@click.option("--budget", default="30s")
@click.option("--seed", default=1)
def waiting(workloads: str, trials: int, budget: str, seed: int) -> None:
    """Compare native beside one and beside eleven programs that wait."""
    rng = random.Random(seed)  # noqa: S311 - an order to replay, not a secret
    found: dict[tuple[str, int], dict[str, list[float]]] = {}
    for number in range(trials):
        order = [1, MANY]
        rng.shuffle(order)
        for count in order:
            for workload, control, time in _native(workloads, budget, count):
                own = found.setdefault((workload, count), {"control": [], "time": []})
                own["control"].append(math.log(control))
                own["time"].append(math.log(time))
        click.echo(f"trial {number + 1} of {trials}", err=True)
    click.echo(
        f"| workload | native#2 beside 1 | native#2 beside {MANY} | native's time, {MANY} over 1 |"
    )
    click.echo("|---|---:|---:|---:|")
    for workload in dict.fromkeys(name for name, _ in found):
        one, many = found[workload, 1], found[workload, MANY]
        cells = [f"{math.exp(statistics.fmean(x['control'])):.4f}" for x in (one, many)]
        click.echo(
            f"| {workload} | {' | '.join(cells)} | {difference(many['time'], one['time'])} |"
        )


def _native(workloads: str, budget: str, count: int) -> Iterator[tuple[str, float, float]]:
    """Yield each workload, the ratio of native's second turn to its first, and native's time."""
    names = [f"landlock-{number}" for number in range(count)]
    with tempfile.TemporaryDirectory() as place:
        configuration = Path(place) / "isobench.toml"
        configuration.write_text(
            "".join(f'[targets.{name}]\nkind = "landlock"\n' for name in names)
        )
        summary = run(
            Path(place) / "run", "--config", str(configuration), "--targets", ",".join(names),
            "--workloads", workloads, "--budget", budget,
        )  # fmt: skip
    for cell in summary["cells"]:
        if cell["target"] == "native#2":
            yield cell["workload"], cell["ratio"], cell["reference"]


@main.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
def estimators(paths: Sequence[Path]) -> None:
    """Compare ways to make one value of a block's rounds."""
    click.echo("| run | load | workload | blocks | by round | medians | fastest turns |")
    click.echo("|---|---:|---|---:|---:|---:|---:|")
    for path in paths:
        analysis = Analysis(reader.load(path))
        for workload in analysis.workloads:
            mine = analysis.amounts[analysis.amounts["workload"] == workload]
            if mine.groupby(["block", "target"]).size().median() < FEWEST_ROUNDS:
                continue
            spreads = [
                100 * _spread(rounds.levels(mine, analysis.reference, estimator))
                for estimator in (rounds.by_round, _by_medians, rounds.by_fastest)
            ]
            load, blocks = analysis.run.metadata.host.get("load"), mine["block"].nunique()
            shown = " | ".join(f"{spread:.2f} %" for spread in spreads)
            click.echo(f"| {path.name} | {load} | {workload} | {blocks} | {shown} |")


def _by_medians(target: rounds.Floats, native: rounds.Floats) -> float:
    return float(np.median(target) - np.median(native))


def _spread(levels: pd.DataFrame) -> float:
    """Return the robust standard deviation of the control's block log-ratios."""
    logs = np.log(levels["native#2"] / levels["native"]).dropna()
    return float(1.4826 * np.median(np.abs(logs - np.median(logs))))


if __name__ == "__main__":
    main()
