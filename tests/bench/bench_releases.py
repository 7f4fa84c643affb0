"""How many cells two releases decide in the same time, and how many of them wrongly.

    python tests/bench/bench_releases.py measure --old OLD/bin --new NEW/bin --times 5 \
        --budget 5m --out five -- --targets docker,podman
    python tests/bench/bench_releases.py table five

`measure` runs both, alternating, with the same options; the one that begins changes each time. A
run that is in the folder already is not made again. OLD and NEW are two virtual environments.

`table` counts. The long-run answer of a cell is the mean of its log-ratios over all runs of its
release: a workload may have been changed in between. A verdict is wrong that contradicts it. A cell
whose long-run ratio lies within 1 % of the margin counts as near: no run is expected to decide it.
"""

import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

RELEASES: Final = ("old", "new")
MARGIN: Final = 1.05
NEAR: Final = 1.01
"""So near to the margin no run is expected to decide."""
DECIDED: Final = ("near-native", "slower", "faster")
Name = tuple[str, str]


@click.group()
def main() -> None:
    """Compare two releases."""


@main.command()
@click.option("--old", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--new", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--times", type=click.IntRange(1), default=5)
@click.option("--budget", default="5m")
@click.option("--out", type=click.Path(path_type=Path), required=True)
@click.option("--pause-while", type=click.Path(path_type=Path), help="Wait while this file exists.")
@click.argument("options", nargs=-1)
def measure(out: Path, times: int, budget: str, options: Sequence[str], **given: Path) -> None:
    """Run both releases in turn."""
    programs = {name: str(given[name].absolute() / "isobench") for name in RELEASES}
    pause_while = given.get("pause_while")
    out.mkdir(parents=True, exist_ok=True)
    for number in range(times):
        for name in RELEASES if number % 2 else reversed(RELEASES):
            folder = out.absolute() / f"{name}-{number}"
            if folder.exists():
                continue
            while pause_while is not None and pause_while.exists():
                time.sleep(1)
            load = os.getloadavg()[0]
            argv = [programs[name], "run", *options, "--budget", budget, "-q"]
            argv += ["--output", str(folder)]
            code = subprocess.run(
                argv, stdin=subprocess.DEVNULL, capture_output=True, check=False
            ).returncode
            click.echo(f"{name} {number}: exit code {code}, load {load:.1f} before")


# ---- what they found


@dataclass(frozen=True)
class Measured:
    """One run of a release."""

    release: str
    summary: dict[str, Any]

    def cells(self) -> Iterator[tuple[Name, dict[str, Any]]]:
        """Yield the cells about time, without the control."""
        for cell in self.summary["cells"]:
            if cell["metric"] == "time" and "#" not in cell["target"] and cell["ratio"]:
                yield (cell["target"], cell["workload"]), cell


def read(folders: Iterable[Path]) -> list[Measured]:
    """Return the runs in some folders, by number."""
    return [
        Measured(path.parent.name.partition("-")[0], json.loads(path.read_bytes()))
        for folder in folders
        for path in sorted(folder.glob("*-*/summary.json"))
    ]


def long_run(runs: Iterable[Measured]) -> dict[Name, float]:
    """Return the long-run ratio of each cell."""
    logs: dict[Name, list[float]] = {}
    for run in runs:
        for name, cell in run.cells():
            logs.setdefault(name, []).append(math.log(cell["ratio"]))
    return {name: math.exp(statistics.fmean(found)) for name, found in logs.items()}


def truth(ratio: float) -> str:
    """Return the verdict that a ratio deserves; empty for one that is near the margin."""
    distance = abs(math.log(ratio))
    if abs(distance - math.log(MARGIN)) < math.log(NEAR):
        return ""
    return "near-native" if distance < math.log(MARGIN) else "slower" if ratio > 1 else "faster"


@main.command()
@click.argument("folders", nargs=-1, type=click.Path(path_type=Path, exists=True), required=True)
def table(folders: Sequence[Path]) -> None:
    """Print what was decided, as Markdown."""
    runs = read(folders)
    answers = {name: long_run(one for one in runs if one.release == name) for name in RELEASES}
    click.echo("| release | run | load | blocks | cells | open | of them near the margin | wrong |")
    click.echo("|---|---:|---:|---:|---:|---:|---:|---:|")
    for release, ratios in answers.items():
        for number, run in enumerate(each for each in runs if each.release == release):
            cells = dict(run.cells())
            unsure = [name for name, cell in cells.items() if cell["standing"] not in DECIDED]
            near = sum(not truth(ratios[name]) for name in unsure)
            wrong = [
                name
                for name, cell in cells.items()
                if cell["standing"] in DECIDED and truth(ratios[name]) not in ("", cell["standing"])
            ]
            about = run.summary["run"]
            figures = (about["host"]["load"], about["blocks"], len(cells), len(unsure), near)
            click.echo(
                f"| {release} | {number + 1} | {' | '.join(map(str, figures))} | {len(wrong)}"
                f"{': ' if wrong else ''}{', '.join(map(' '.join, wrong))} |"
            )
    click.echo()
    near_ones = [
        f"{release} {' '.join(name)}"
        for release, ratios in answers.items()
        for name, ratio in ratios.items()
        if not truth(ratio)
    ]
    click.echo(f"Near the margin in the long run: {', '.join(near_ones) or 'none'}.")
    old, new = (answers[name] for name in RELEASES)
    others = [
        f"{' '.join(name)} {old[name]:.2f} and {new[name]:.2f}"
        for name in old.keys() & new.keys()
        if truth(old[name]) != truth(new[name])
    ]
    click.echo(f"Other answers of the two releases: {', '.join(sorted(others)) or 'none'}.")


if __name__ == "__main__":
    main()
