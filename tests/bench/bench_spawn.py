"""What starting a program costs isobench, beside hyperfine. `nox -s bench` runs the benchmarks; the
table of docs/statistics.md is made by

    sudo chrt --fifo 1 python -m tests.bench.bench_spawn ROUNDS quiet
    python -m tests.bench.bench_spawn ROUNDS busy

The program is isobench's start-up payload, static, which writes its nonce and leaves. hyperfine
(-N: without a shell) times from the start of a process until it has been waited for, isobench from
the clone until the nonce is there to be read. Each round takes all of them in random order,
so that they share what the machine is doing; figures of a round are compared with each other. The
busy rounds have neighbours that keep every CPU busy in bursts (neighbour.py). Real-time priority
(`chrt --fifo 1`) makes a quiet machine of one that has other work: all that is timed inherits it,
hyperfine and its programs, too.
"""

import contextlib
import json
import os
import random
import secrets
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import pytest

from isobench.model import Abi, Stage, Visit, host_abi
from isobench.model.units import WorkloadName, seconds
from isobench.payload import build, stage
from isobench.run import context, measure
from isobench.targets.native import NativeTarget
from isobench.targets.shared import processes
from isobench.workloads import loader
from tests.bench.bench_agreement import median, told

RUNS: Final = 20
"""Starts of each kind in a round."""
BLOCKS: Final = 6
NATIVE: Final = NativeTarget()
HYPERFINE: Final = "hyperfine -N"
WARM: Final = "isobench, warm"
Benchmark = Callable[..., Any]


class Native:
    """Starts programs as a run does, and times them as a run does."""

    def __init__(self, shop: stage.Workshop, abi: Abi) -> None:
        self.shop, self.abi = shop, abi
        visit = Visit(block=0, target=NATIVE.name, workload=WorkloadName("startup.cold"))
        self.context = context.Context.of(visit, "bench")
        self.stage: Stage = shop.stage(abi)

    @property
    def program(self) -> Path:
        """The start-up payload."""
        return self.stage.root / "isobench" / "_startup"

    def warm(self) -> int:
        """Return how many nanoseconds one start takes."""
        return self._start(self.stage)

    def cold(self) -> int:
        """Return the same of a program that was just copied."""
        with self.shop.fresh(self.stage, self.abi) as fresh:
            return self._start(fresh)

    def null(self) -> int:
        """Return the same of the smallest program there is."""
        self.context.timer.expect(b"")
        NATIVE.null(self.stage, self.context.command(), timeout=seconds(10))
        return self._taken()

    def _start(self, own: Stage) -> int:
        nonce = secrets.token_hex(8)
        command = self.context.command("_startup", nonce)
        self.context.timer.expect_hello(nonce)
        NATIVE.launch(own, command, timeout=seconds(10))
        return self._taken()

    def _taken(self) -> int:
        assert self.context.timer.taken is not None
        return self.context.timer.taken


@contextlib.contextmanager
def staged() -> Iterator[tuple[Native, Path]]:
    """Yield native on a stage of its own, and the spawner."""
    abi = host_abi()
    assert abi is not None
    payloads = build.build_all(build.programs(loader.find().values()), [abi], host=abi)
    spawner = next(each.path for each in payloads if each.program == build.SPAWN)
    with stage.workshop(payloads) as shop, measure.undisturbed():
        yield Native(shop, abi), spawner


@pytest.mark.benchmark(group="one start of native, everything included")
@pytest.mark.parametrize("way", ["spawner", "subprocess"])
@pytest.mark.parametrize("kind", ["warm", "null"])
def bench_start(benchmark: Benchmark, way: str, kind: str) -> None:
    with staged() as (native, spawner), processes.spawning(spawner if way == "spawner" else None):
        benchmark(getattr(native, kind))


def hyperfine(native: Native, folder: Path) -> list[float]:
    """Return the wall times of a start, in seconds."""
    out = folder / "hyperfine.json"
    told(
        [
            *("hyperfine", "-N", "--runs", str(RUNS), "--warmup", "3", "--style", "none"),
            *("--export-json", str(out), f"{native.program} 0123456789abcdef"),
        ]
    )
    times: list[float] = json.loads(out.read_text())["results"][0]["times"]
    return times


def ours(native: Native, spawner: Path | None, kind: str) -> list[float]:
    """Return isobench's times of a start, in seconds."""
    once: Callable[[], int] = getattr(native, kind)
    with processes.spawning(spawner):
        for _ in range(3):
            once()
        return [once() / 1e9 for _ in range(RUNS)]


def in_a_run(folder: Path) -> dict[str, list[float]]:
    """Return what a whole run measures, with all that it does between two starts."""
    out = Path(tempfile.mkdtemp(dir=folder)) / "run"
    told(
        [
            *(sys.executable, "-m", "isobench", "run", "-t", "native", "-q"),
            *("-w", "startup.cold,startup.warm", "-r", str(BLOCKS), "-o", str(out)),
        ]
    )
    found: dict[str, list[float]] = {}
    for line in (out / "records.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row.get("target") == "native" and row.get("block", 0) and row["metric"] in NAMES:
            kind = row["workload"].partition(".")[2]
            found.setdefault(NAMES[row["metric"]].format(kind), []).append(row["value"] / 1e9)
    return found


NAMES: Final = {"time": "a run's startup.{}", "spawn": "a run's null spawn, {}"}


@contextlib.contextmanager
def neighbours(*, wanted: bool) -> Iterator[None]:
    """Keep every CPU busy in bursts, where that is wanted."""
    script = str(Path(__file__).parent / "neighbour.py")
    cpus = sorted(os.sched_getaffinity(0)) if wanted else []
    started = [
        subprocess.Popen([sys.executable, script, str(cpu), str(cpu), str(os.getpid())])
        for cpu in cpus
    ]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def one_round(native: Native, spawner: Path, folder: Path) -> dict[str, list[float]]:
    """Take every way of starting once."""
    ways: dict[str, Callable[[], list[float]]] = {
        HYPERFINE: lambda: hyperfine(native, folder),
        WARM: lambda: ours(native, spawner, "warm"),
        "isobench, cold": lambda: ours(native, spawner, "cold"),
        "isobench, null spawn": lambda: ours(native, spawner, "null"),
        "by Python's subprocess, warm": lambda: ours(native, None, "warm"),
        "by Python's subprocess, cold": lambda: ours(native, None, "cold"),
    }
    found: dict[str, list[float]] = {}
    for name in random.sample(list(ways), len(ways)):
        found[name] = ways[name]()
    return {name: found[name] for name in ways} | in_a_run(folder)


def table(rounds: Sequence[dict[str, list[float]]], title: str) -> None:
    """Print one table in Markdown: medians over rounds, and their ratio to hyperfine's."""
    lines = [
        f"\n| {title} | n | median | 95 % interval of the median | over hyperfine's, by rounds |",
        "|---|---|---|---|---|",
    ]
    for name in rounds[0]:
        values = [value for one in rounds for value in one.get(name, ())]
        at, low, high = (1e6 * figure for figure in median(values))
        over = [
            statistics.median(one[name]) / statistics.median(one[HYPERFINE])
            for one in rounds
            if one.get(name)
        ]
        spread = f"{statistics.median(over):.2f} ({min(over):.2f} to {max(over):.2f})"
        lines.append(
            f"| {name} | {len(values)} | {at:.0f} µs | [{low:.0f}, {high:.0f}] | {spread} |"
        )
    sys.stdout.write("\n".join(lines) + "\n")


def main(rounds: int, *, busy: bool) -> None:
    """Measure and print a table."""
    if not shutil.which("hyperfine"):
        sys.exit("bench_spawn needs hyperfine: sudo apt-get install hyperfine")
    with tempfile.TemporaryDirectory() as name, staged() as (native, spawner):
        found = []
        with neighbours(wanted=busy):
            for number in range(1, rounds + 1):
                found.append(one_round(native, spawner, Path(name)))
                load = f"load {os.getloadavg()[0]:.1f}"
                sys.stderr.write(f"round {number} of {rounds}, {load}\n")
        table(found, "busy neighbours" if busy else "a quiet machine")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5, busy="busy" in sys.argv[2:])
