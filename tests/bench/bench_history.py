"""How well changes are found in simulated histories, and how long a large store takes.

    python tests/bench/bench_history.py find --histories 20
    python tests/bench/bench_history.py find --histories 20 --otava /tmp/otava/bin/python
    python tests/bench/bench_history.py outliers --histories 30
    python tests/bench/bench_history.py alike --histories 10
    python tests/bench/bench_history.py page --out trend.html
    python tests/bench/bench_history.py scale --runs 100000

A history has 120 nights, 12 series and three CPU models, one of them each night (60, 30 and 10 % of
the nights); one night in twelve is missing. Runs of a series differ by 0.5 to 3 % from night to
night (`Cell.spread`), and their own errors are half of that. Planted are steps of 2, 5 and 10 %,
one of 10 % that goes back, two changes of the kernel, of which the second comes with the step of
5 %, an upgrade of an engine in the night of the step of 10 %, and one night with a noisy neighbour
(errors and differences eight times as large).

`find` prints what the trend finds in the whole history, series by series on each machine, by
ruptures (which isobench uses) and, with --otava, by apache-otava; and what the nightly alarm finds:
a suspicion in a night after a step and before the next, confirmed by a further run of that night.
The further run has half of the night's difference in common with the first.

`outliers` prints how often the alarm is false, and finds a slowdown, where outlying runs are kept
in the level and where they are left out.

`alike` prints how often the trend is false, and finds steps of 3 and 5 %, where each night is
partly as the one before.

`scale` fills stores and times `add`, and the command `history trend` of the last 180 days.
"""

import json
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click
import msgspec

from isobench.history import alarm, beside, series, store
from isobench.history.row import Row
from isobench.report import trend

NIGHTS: Final = 120
MACHINES: Final = (("aaaaaaaaaaaa", 60), ("bbbbbbbbbbbb", 30), ("cccccccccccc", 10))
KERNELS: Final = ((0, "6.1.0-18"), (30, "6.1.0-21"), (55, "6.1.0-26"))
ENGINES: Final = ((0, "1.6.20"), (80, "1.6.24"))
NOISY_NIGHT: Final = 100
NOISE: Final = 8.0
FIRST: Final = datetime(2026, 6, 1, 2, tzinfo=UTC)
DAYS: Final = 3650
"""How long a large store goes back."""
NEAR: Final = 4
"""Runs around a step in which a change point counts as its."""


@dataclass(frozen=True)
class Cell:
    """One series: its ratio, how much nights differ, and its steps (night, size)."""

    target: str
    workload: str
    ratio: float
    spread: float
    steps: tuple[tuple[int, float], ...] = ()


CELLS: Final = (
    Cell("docker", "cpu.sieve", 1.01, 0.005, ((40, 1.02),)),
    Cell("docker", "syscall.getppid", 1.3, 0.01, ((55, 1.05),)),
    Cell("docker", "io.fsync", 1.8, 0.02, ((80, 1.10),)),
    Cell("docker", "startup.cold", 180, 0.02, ((60, 1.10), (75, 1 / 1.10))),
    Cell("podman", "cpu.sieve", 1.01, 0.005),
    Cell("podman", "syscall.getppid", 1.3, 0.01),
    Cell("podman", "io.fsync", 1.7, 0.03),
    Cell("podman", "startup.cold", 240, 0.03),
    Cell("gvisor", "cpu.sieve", 1.02, 0.005),
    Cell("gvisor", "syscall.getppid", 230, 0.01),
    Cell("gvisor", "io.fsync", 8, 0.03),
    Cell("gvisor", "startup.cold", 300, 0.03),
)


def at(night: int, table: Sequence[tuple[int, str]]) -> str:
    """Return the version of a night."""
    return [version for first, version in table if first <= night][-1]


def level(cell: Cell, night: int) -> float:
    """Return the true log-ratio of a night."""
    return math.log(cell.ratio) + sum(math.log(s) for first, s in cell.steps if first <= night)


def row(
    cell: Cell, night: int, machine: str, *, mean: float, error: float, place: int, again: bool
) -> Row:
    """Return what a run of a night would leave in the store."""
    started = FIRST + timedelta(days=night, minutes=30 * again)
    low, high = (math.exp(mean + side * 2.3 * error) for side in (-1, 1))
    return Row(
        run=f"night-{night}{'-again' if again else ''}",
        started=started.strftime("%Y-%m-%dT%H:%M:%SZ"),
        month=started.strftime("%Y-%m"),
        machine=machine,
        machine_name=f"CPU model {machine[0].upper()}, 4 CPUs, 16 GiB, guest of a hypervisor",
        complete=True,
        quick=False,
        confirms=f"night-{night}" if again else None,
        conditions=json.dumps({"kernel": at(night, KERNELS), "schedule": "rounds"}),
        place=place,
        target=cell.target,
        technology="containerization",
        version=f"containerd {at(night, ENGINES)}" if cell.target == "docker" else "1.0",
        options="{}",
        reference="native",
        workload=cell.workload,
        workload_class=cell.workload.partition(".")[0],
        program="1234",
        metric="time",
        unit="seconds",
        value=1e-3 * math.exp(mean),
        native=1e-3,
        mean=mean,
        error=error,
        deviation=error * 5,
        freedom=20.0,
        shared=0.0,
        low=low,
        high=high,
        level=0.97,
        blocks=25,
        sessions=25,
        noise=error,
        status="slower",
        doubts="",
    )


def history(seed: int) -> tuple[list[Row], list[Row]]:
    """Return a simulated history, and the further runs of its nights."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    offsets = {(name, n): rng.gauss(0, 0.05) for name, _ in MACHINES for n in range(len(CELLS))}
    rows: list[Row] = []
    further: list[Row] = []
    for night in range(NIGHTS):
        machine = rng.choices([m for m, _ in MACHINES], [w for _, w in MACHINES])[0]
        if rng.random() < 1 / 12:
            continue
        factor = NOISE if night == NOISY_NIGHT else 1.0
        for place, cell in enumerate(CELLS):
            error = factor * cell.spread / 2
            common, own, other = (rng.gauss(0, factor * cell.spread / math.sqrt(2)) for _ in "123")
            true = level(cell, night) + offsets[machine, place]
            for found, part, again in ((rows, own, False), (further, other, True)):
                mean = true + common + part + rng.gauss(0, error)
                found.append(
                    row(cell, night, machine, mean=mean, error=error, place=place, again=again)
                )
    return rows, further


def night_of(one: Row) -> int:
    """Return the number of a run's night."""
    return int(one.run.split("-")[1])


# ---- the trend


@dataclass
class Count:
    """How often a planted step was found."""

    found: int = 0
    of: int = 0

    def add(self, hit: bool) -> None:
        """Count one case."""
        self.found += hit
        self.of += 1

    def __str__(self) -> str:
        return f"{self.found} of {self.of}" if self.of else "-"


def names_of_steps() -> list[str]:
    """Return the planted steps in words."""
    return ["2 %", "5 %, with a kernel", "10 %, with an engine", "10 %, goes back", "back again"]


def step_name(cell: Cell, night: int) -> str:
    """Return which planted step this is."""
    table = {40: 0, 55: 1, 80: 2, 60: 3, 75: 4}
    return names_of_steps()[table[night]]


def search_ruptures(rows: Sequence[Row]) -> Iterator[tuple[series.Series, list[int]]]:
    """Yield series with the places of their change points, as isobench finds them."""
    for one in series.series_of(rows):
        yield one, [one.rows.index(point.row) for point in one.change_points]


_OTAVA: Final = """
import json, sys
from otava.analysis import compute_change_points
for line in sys.stdin:
    values = json.loads(line)
    found = compute_change_points(values, window_len=50, max_pvalue=0.001, min_magnitude=0.0)
    found = found[0] if isinstance(found, tuple) else found
    print(json.dumps([int(point.index) for point in found]), flush=True)
"""


def search_otava(rows: Sequence[Row], python: str) -> Iterator[tuple[series.Series, list[int]]]:
    """Yield series with the places of change points that apache-otava finds, by its defaults."""
    every = series.series_of(rows)
    lines = "".join(
        json.dumps([math.exp(each.mean or 0.0) for each in one.rows]) + "\n" for one in every
    )
    done = subprocess.run(
        [python, "-c", _OTAVA], input=lines, capture_output=True, text=True, check=True
    )
    for one, line in zip(every, done.stdout.splitlines(), strict=True):
        yield one, json.loads(line)


def judged(one: series.Series, places: Sequence[int], counts: dict[str, Count]) -> int:
    """Count which planted steps of a series were found; return how many others were."""
    cell = next(c for c in CELLS if (c.target, c.workload) == (one.key.target, one.key.workload))
    nights = [night_of(each) for each in one.rows]
    left = list(places)
    for night, _ in cell.steps:
        true = next((n for n, each in enumerate(nights) if each >= night), len(nights))
        if true < series.stats.FEWEST_RUNS // 2 or len(nights) - true < 4:
            continue  # too few runs on one side
        hits = [place for place in left if abs(place - true) <= NEAR]
        counts.setdefault(step_name(cell, night), Count()).add(bool(hits))
        for hit in hits[:1]:
            left.remove(hit)
    return len(left)


# ---- the alarm


def alarms(rows: Sequence[Row], further: Sequence[Row]) -> Iterator[tuple[Row, bool]]:
    """Yield the rows of confirmed regressions and improvements, night by night."""
    again = {own[0].run: own for own in store.runs_of(further)}
    past: list[Row] = []
    for own in store.runs_of(rows):
        found = alarm.judge(own, past)
        suspects = {(x.row.target, x.row.workload) for x in found if x.outcome in alarm.SUSPECT}
        fresh = [x for x in again[f"{own[0].run}-again"] if (x.target, x.workload) in suspects]
        for one in alarm.confirm(found, fresh, past):
            if one.outcome in alarm.SUSPECT:
                yield one.row, bool(one.confirmed)
        past += own


def is_planted(one: Row) -> str:
    """Return the step that an alarm belongs to; empty: none."""
    cell = next(c for c in CELLS if (c.target, c.workload) == (one.target, one.workload))
    for night, _ in cell.steps:
        if night <= night_of(one):
            later = next((n for n, _ in cell.steps if n > night), NIGHTS)
            if night_of(one) < later:
                return step_name(cell, night)
    return ""


def count_alarms(rows: Sequence[Row], hit: set[tuple[str, str]], counts: dict[str, Count]) -> None:
    """Count which planted steps had an alarm, of those that have two runs before and one after."""
    for machine, _ in MACHINES:
        nights = sorted({night_of(one) for one in rows if one.machine == machine})
        for cell in CELLS:
            for night, _ in cell.steps:
                later = next((n for n, _ in cell.steps if n > night), NIGHTS)
                before = [n for n in nights if n < night]
                if len(before) >= 2 and any(night <= n < later for n in nights):
                    name = step_name(cell, night)
                    counts.setdefault(name, Count()).add((machine, name) in hit)


@click.group()
def main() -> None:
    """Measure the history."""


@main.command()
@click.option("--histories", default=20, show_default=True)
@click.option("--otava", default="", help="A Python that has apache-otava.")
def find(histories: int, otava: str) -> None:
    """Print what is found in simulated histories, and what is not."""
    tools = {"ruptures": search_ruptures}
    if otava:
        tools["otava"] = lambda rows: search_otava(rows, otava)
    steps: dict[str, dict[str, Count]] = {name: {} for name in (*tools, "alarm")}
    false = dict.fromkeys(steps, 0)
    suspected = noisy = nights = 0
    for seed in range(histories):
        rows, further = history(seed)
        nights += len(store.runs_of(rows))
        for name, search in tools.items():
            for one, places in search(rows):
                false[name] += judged(one, places, steps[name])
        hit: set[tuple[str, str]] = set()
        for one, confirmed in alarms(rows, further):
            planted = is_planted(one)
            if planted and confirmed:
                hit.add((one.machine, planted))
            suspected += not planted
            false["alarm"] += confirmed and not planted
            noisy += confirmed and not planted and night_of(one) == NOISY_NIGHT
        count_alarms(rows, hit, steps["alarm"])
    names = names_of_steps()
    click.echo(f"| found by | {' | '.join(names)} | false, per 100 nights |")
    click.echo("|---|" + "---:|" * (len(names) + 1))
    for name, counts in steps.items():
        cells = [str(counts.get(step, Count())) for step in names]
        click.echo(f"| {name} | {' | '.join(cells)} | {100 * false[name] / nights:.2f} |")
    click.echo()
    click.echo(
        f"{nights} nights of 12 cells. Suspicions without a step: {suspected}, of which"
        f" {false['alarm']} were confirmed, {noisy} of them in the noisy nights."
    )


def beside_outliers(seed: int, nights: str, left_out: bool) -> tuple[int, int, int]:
    """Return how many alarms steady nights raise, how many nights there are, and whether a
    slowdown of 20 % in the last one raises one.

    One cell differs by 50 % in one night of the first ten, "heavy" nights by Student's t with three
    degrees of freedom.
    """
    rng = random.Random(seed)  # noqa: S311 - a simulation
    strange = rng.randrange(10) if nights == "one" else -1

    def apart(cell: Cell) -> float:
        heavy = math.sqrt(rng.gammavariate(1.5, 2) / 3) if nights == "heavy" else 1.0
        return rng.gauss(0, cell.spread / math.sqrt(2)) / heavy

    rows: list[Row] = []
    further: list[Row] = []
    for night in range(40):
        for place, cell in enumerate(CELLS):
            mean = math.log(cell.ratio) + apart(cell)
            mean += math.log(1.5) * (night == strange and not place)
            mean += math.log(1.2) * (night == 39 and not place)
            for found, again in ((rows, False), (further, True)):
                own = mean + apart(cell) + rng.gauss(0, cell.spread / 2)
                found.append(
                    row(cell, night, MACHINES[0][0], mean=own, error=cell.spread / 2,
                        place=place, again=again)
                )  # fmt: skip
    known = alarm.stats.outliers
    if not left_out:
        alarm.stats.outliers = lambda history: [False] * len(history)
    found = [one for one, confirmed in alarms(rows, further) if confirmed]
    alarm.stats.outliers = known
    planted = [one for one in found if not one.place and night_of(one) in (strange, 39)]
    return len(found) - len(planted), 39, any(night_of(one) == 39 for one in planted)


@main.command()
@click.option("--histories", default=20, show_default=True)
@click.option("--nights", type=click.Choice(["even", "heavy", "one"]), multiple=True)
def outliers(histories: int, nights: Sequence[str]) -> None:
    """Print what becomes of the alarm where outlying runs are left out of the level."""
    click.echo("| nights | outliers | false, per 100 nights | 20 % found |")
    click.echo("|---|---|---:|---:|")
    for kind in nights or ("even", "heavy", "one"):
        for left_out in (False, True):
            each = [beside_outliers(seed, kind, left_out) for seed in range(histories)]
            false, of, hits = (sum(part) for part in zip(*each, strict=True))
            words = "left out" if left_out else "kept"
            click.echo(
                f"| {kind} | {words} | {100 * false / of:.2f} ({false} of {of})"
                f" | {hits} of {histories} |"
            )


def alike(seed: int, nights: int, correlation: float) -> tuple[int, bool, bool]:
    """Return how many change points of a history are false, and whether its two steps are found.

    Nights differ by 1 %, with this autocorrelation. The first cell has a step of 3 % in the middle,
    the second one of 5 %.
    """
    rng = random.Random(seed + 1000 * nights)  # noqa: S311 - a simulation
    around = [rng.gauss(0, 0.01) for _ in CELLS]
    rows: list[Row] = []
    for night in range(nights):
        for place, cell in enumerate(CELLS):
            own = rng.gauss(0, 0.01 * math.sqrt(1 - correlation**2))
            around[place] = correlation * around[place] + own
            step = math.log((1.03, 1.05)[place]) if place < 2 and night >= nights // 2 else 0.0
            mean = math.log(cell.ratio) + around[place] + step + rng.gauss(0, 0.003)
            made = row(
                cell, night, MACHINES[0][0], mean=mean, error=0.003, place=place, again=False
            )
            rows.append(msgspec.structs.replace(made, conditions="{}", version="1"))
    points = [point.row for one in series.series_of(rows) for point in one.change_points]
    near = [one.place for one in points if abs(night_of(one) - nights // 2) <= NEAR]
    return len(points) - len({0, 1} & set(near)), 0 in near, 1 in near


@main.command(name="alike")
@click.option("--histories", default=10, show_default=True)
def alike_nights(histories: int) -> None:
    """Print what the trend finds where nights in a row are alike."""
    click.echo(
        "| nights | autocorrelation | histories with a false one | false | 3 % | 5 % found |"
    )
    click.echo("|---:|---:|---:|---:|---:|---:|")
    for nights, correlation in ((20, 0), (20, 0.5), (60, 0), (60, 0.3), (60, 0.5), (60, 0.7),
                                (120, 0.5)):  # fmt: skip
        each = [alike(seed, nights, correlation) for seed in range(histories)]
        false, *hits = ([one[n] for one in each] for n in range(3))
        click.echo(
            f"| {nights} | {correlation} | {sum(map(bool, false))} of {histories} | {sum(false)}"
            f" | {sum(hits[0])} | {sum(hits[1])} |"
        )


@main.command()
@click.option("--seed", default=0)
@click.option("--out", type=click.Path(path_type=Path), default="trend.html")
def page(seed: int, out: Path) -> None:
    """Write the trend page of a simulated history."""
    rows, further = history(seed)
    every = [*rows, *further]
    trend.write(out, series.series_of(every), beside.newest(every), "simulated history")


@main.command()
@click.option("--runs", default="0,1000,10000,100000", show_default=True)
@click.option("--folder", type=click.Path(path_type=Path), help="Keep the stores here.")
def scale(runs: str, folder: Path | None) -> None:
    """Time `add` and `trend` in stores of so many runs, over ten years on three machines."""
    click.echo("| runs | files | `add`, median of 50 | longest | `history trend` | of it reading |")
    click.echo("|---:|---:|---:|---:|---:|---:|")
    for count in map(int, runs.split(",")):
        with tempfile.TemporaryDirectory() as scratch:
            target = store.Store((folder or Path(scratch)) / f"history-{count}")
            if not target.exists:
                fill(target, count)
            report(target, count)


def fill(target: store.Store, count: int) -> None:
    """Fill a store with runs of ten years, as it is after all months but the last were merged."""
    rng = random.Random(1)  # noqa: S311 - a simulation
    months: dict[tuple[str, str], list[Row]] = {}
    for number in range(count):
        moment = FIRST - timedelta(minutes=(count - number) * DAYS * 1440 / count)
        machine = MACHINES[number % 3][0]
        for one in run_of(rng, machine, f"run-{number}", moment):
            months.setdefault((machine, one.month), []).append(one)
    if not count:
        return
    target._create()
    for (machine, month), rows in months.items():
        folder = target.folder / f"machine={machine}" / f"month={month}"
        folder.mkdir(parents=True)
        target._write(folder / "runs-simulated.parquet", rows)


def run_of(rng: random.Random, machine: str, run: str, moment: datetime) -> list[Row]:
    """Return the rows of a run at a time."""
    return [
        replaced(
            row(cell, 0, machine, mean=level(cell, 0) + rng.gauss(0, cell.spread),
                error=cell.spread / 2, place=place, again=False),
            run, moment,
        )
        for place, cell in enumerate(CELLS)
    ]  # fmt: skip


def replaced(one: Row, run: str, moment: datetime) -> Row:
    """Return a row of another run."""
    return msgspec.structs.replace(
        one,
        run=run,
        started=moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
        month=moment.strftime("%Y-%m"),
    )


def report(target: store.Store, count: int) -> None:
    """Print how long adds and a trend take in a store."""
    rng = random.Random(2)  # noqa: S311 - a simulation
    took = []
    for number in range(50):
        machine = MACHINES[number % 3][0]
        rows = run_of(rng, machine, f"new-{number}", FIRST + timedelta(hours=number))
        began = time.perf_counter()
        assert target.add(rows)
        took.append(time.perf_counter() - began)
    since = (FIRST - timedelta(days=180)).strftime("%Y-%m-%dT%H:%M:%SZ")
    began = time.perf_counter()
    rows = target.rows(store.Choice(since=since))
    read = time.perf_counter() - began
    argv = [sys.executable, "-m", "isobench", "history", "trend", "--store", str(target.folder)]
    began = time.perf_counter()
    subprocess.run([*argv, "--since", since[:10], "--quiet"], check=True, capture_output=True)
    whole = time.perf_counter() - began
    files = sum(1 for _ in target.folder.rglob("*.parquet"))
    click.echo(
        f"| {count + 50} | {files} | {1000 * statistics.median(took):.0f} ms"
        f" | {1000 * max(took):.0f} ms | {whole:.2f} s | {read:.2f} s ({len(rows)} rows) |"
    )


if __name__ == "__main__":
    main()
