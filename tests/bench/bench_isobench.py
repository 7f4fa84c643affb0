"""How fast isobench itself is: `nox -s bench` runs these.

Nothing is asserted but that it works. Read groups against each other: `--help` against an
interpreter that does nothing, a trial against the same program run by subprocess alone. Single
times say more about the machine than about isobench.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isobench import stats
from isobench.analysis import verdict
from isobench.model import Clock, Sample, Status
from isobench.model.units import TargetName, Unit, WorkloadName, seconds
from isobench.payload import wire
from isobench.plugins.api import Target
from isobench.storage import records, writer
from tests.conftest import Staged

Benchmark = Callable[..., Any]


@pytest.mark.benchmark(group="start-up of the command line")
@pytest.mark.parametrize(
    "argv",
    [["-c", "pass"], ["-m", "isobench", "--help"], ["-m", "isobench", "workloads"]],
    ids=["an interpreter alone", "--help", "workloads"],
)
def bench_command(benchmark: Benchmark, argv: list[str]) -> None:
    benchmark(subprocess.run, [sys.executable, *argv], check=True, capture_output=True)


@pytest.mark.benchmark(group="one trial")
@pytest.mark.parametrize("name", ["subprocess alone", "native", "namespaces", "bubblewrap"])
def bench_trial(
    benchmark: Benchmark,
    able: Callable[[str], Target],
    staged: Callable[[Target], Staged],
    name: str,
) -> None:
    if name == "subprocess alone":
        one = staged(able("native"))
        program = str(one.stage.root / "isobench" / "_startup")
        benchmark(subprocess.run, [program, "x"], check=True, capture_output=True)
        return
    target = able(name)
    one = staged(target)
    with target.open(one.stage) as session:
        benchmark(session.run, ["_startup", "x"], timeout=seconds(10))


@pytest.mark.benchmark(group="a reply of 1,000 iterations")
def bench_reply(benchmark: Benchmark) -> None:
    lines = [b'{"isobench":1,"nonce":"n","clock_ns":1}']
    lines += [b'{"i":%d,"ns":123456,"ops":100}' % i for i in range(1000)]
    lines.append(
        b'{"end":1000,"check":"%016x","steady":true,"nonce":"n","clock_ns":%d}' % (7, 1 << 30)
    )
    benchmark(wire.read, b"\n".join(lines), nonce="n", iterations=1000)


@pytest.mark.benchmark(group="a million samples")
def bench_reading_records(benchmark: Benchmark, tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    for i in range(10_000):
        folder.write(
            Sample(
                block=1 + i // 1000,
                target=TargetName("native"),
                workload=WorkloadName("cpu.sieve"),
                metric="time",
                iteration=i % 1000,
                value=1000 + i % 7,
                unit=Unit.NANOSECOND,
                operations=1,
                clock=Clock.GUEST,
                at=0.5,
            )
        )
    folder.close()
    data = (tmp_path / "records.jsonl").read_bytes() * 100
    frame, _ = benchmark.pedantic(records.read, args=(data,), rounds=3)  # type: ignore[attr-defined]
    assert len(frame) == 1_000_000


@pytest.mark.benchmark(group="100 cells of 60 blocks")
def bench_estimates(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(1)
    ratios = rng.normal(0.01, 0.02, (100, 60))
    benchmark(lambda: [stats.estimate(row) for row in ratios])


@pytest.mark.benchmark(group="100 cells of 60 blocks")
def bench_estimates_at_one_go(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(1)
    ratios = rng.normal(0.01, 0.02, (100, 60))
    benchmark(stats.estimates, ratios)


@pytest.mark.benchmark(group="100 cells of 60 blocks of 1,000 samples")
def bench_analysis(benchmark: Benchmark) -> None:
    """From times to verdicts: ratios, estimate, tails, noise floor, blocks needed, verdict."""
    rng = np.random.default_rng(1)
    native, control = rng.lognormal(0, 0.03, (2, 60, 1000))
    cells = rng.lognormal(0, 0.03, (100, 60, 1000))

    def answer() -> list[Status]:
        floor = stats.estimate(stats.block_log_ratios(control, native))
        standings = []
        for seconds_per_operation in cells:
            ratios = stats.block_log_ratios(seconds_per_operation, native)
            estimate = stats.estimate(ratios)
            assert estimate is not None
            stats.tails(seconds_per_operation.ravel(), ratios)
            judged = verdict.judge(
                target=TargetName("simulated"),
                workload=WorkloadName("simulated"),
                estimate=estimate,
                noise=verdict.noise_floor(floor),
                margin=1.05,
                blocks_needed=stats.blocks_needed(estimate),
            )
            standings.append(judged.status)
        return standings

    standings = benchmark.pedantic(answer, rounds=3)  # type: ignore[attr-defined]
    assert standings == [Status.NEAR_NATIVE] * 100


@pytest.mark.benchmark(group="a million samples")
def bench_medians_of_visits(benchmark: Benchmark) -> None:
    rng = np.random.default_rng(1)
    count = 1_000_000
    frame = pd.DataFrame(
        {
            "block": rng.integers(1, 61, count),
            "cell": rng.integers(0, 100, count),
            "seconds": rng.lognormal(0, 0.1, count),
        }
    )
    grouped = frame.groupby(["block", "cell"])["seconds"]
    benchmark.pedantic(grouped.median, rounds=3)  # type: ignore[attr-defined]
