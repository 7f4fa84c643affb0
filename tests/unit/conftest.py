"""Runs that were never measured, written through the store with known answers; the command line in
this process.
"""

import contextlib
import math
import random
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from isobench import cli
from isobench.config import redaction
from isobench.model import (
    TIME,
    BlockHealth,
    Clock,
    Gap,
    Leaving,
    Metric,
    Plan,
    Sample,
    Schedule,
    Technology,
    Work,
    plan,
)
from isobench.model.units import TargetName, Unit, WorkloadName
from isobench.run import cleanup
from isobench.storage import reader, writer
from isobench.targets.shared import cpu_group
from tests import whole
from tests.unit.command import Done

# A slow machine is no reason for a test to fail, and a test leaves nothing in the checkout.
settings.register_profile("isobench", deadline=None, database=None)
settings.load_profile("isobench")

BASE_SECONDS = 2e-6
"""What native takes for one operation in every synthetic run."""
OPERATIONS = 1000
ITERATIONS = 3


def _health(block: int, *, broken: bool, pressure: float | None = None) -> BlockHealth:
    return BlockHealth(
        block=block,
        seconds=2.0,
        steal_percent=20.0 if broken else 0.0,
        pressure_percent=pressure,
        swapped_in_pages=0,
        throttled=None,
        clock_source="tsc",
        broken_rules=("steal",) if broken else (),
    )


@dataclass(frozen=True, kw_only=True)
class Counted:
    """A metric beside time: a number that the payload of a synthetic run prints once a visit."""

    metric: Metric
    factors: Mapping[tuple[str, str], float]
    """(target, workload) -> the value over native's; native and its control are added with 1."""
    amount: int = 1_000_000
    """Native's value."""
    noise: float = 0.003
    missing: frozenset[str] = frozenset()
    """Targets whose payload prints none."""

    @property
    def workloads(self) -> set[str]:
        return {workload for _, workload in self.factors}


@dataclass(kw_only=True)
class Synthetic:
    """A run whose every cell has a known ratio to native, give or take `noise` in each visit."""

    ratios: Mapping[tuple[str, str], float]
    """(target, workload) -> ratio; native and its control are added with 1."""
    blocks: int = 15
    noise: float = 0.003
    seed: int = 1
    classes: Mapping[str, Technology] = field(default_factory=dict)
    """Technology of each target, containers where it is not said."""
    unmeasured: tuple[str, ...] = ()
    """Targets of the run without any sample."""
    pilot: bool = True
    """Write a block 0 that is a hundred times too slow."""
    invalid: frozenset[int] = frozenset()
    """Blocks that broke a rule; their samples are a hundred times too slow."""
    missing: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)
    """Blocks in which a cell has no value."""
    slow: Mapping[tuple[str, str], frozenset[int]] = field(default_factory=dict)
    """Blocks in which a cell takes three times as long."""
    drift: float = 0.0
    """How much slower everything is in the last block than in the first."""
    metrics: tuple[Counted, ...] = ()
    """Metrics beside time; without any, run.json names none, as in older versions."""
    samples: list[Sample] = field(default_factory=list)
    """More samples."""
    gaps: list[Gap] = field(default_factory=list)
    leavings: list[Leaving] = field(default_factory=list)
    """Cells that left; they have no values in later blocks."""
    states: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sessions: Mapping[str, int] = field(default_factory=dict)
    """How many blocks a session of a target serves; one, and no number, where nothing is said."""
    session_spread: float = 0.0
    """How much sessions that serve several blocks differ, on the log scale."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Keys of run.json that are other than usual."""
    clock: Clock = Clock.GUEST
    schedule: Schedule = Schedule.BLOCKS
    pressure: float | None = None
    """During which percentage of the time programs waited for a CPU; None: no block says it."""
    half: float = 0.0
    """In duets: how much slower everything is on the second half of the CPUs."""
    overlap: float = 0.95
    """In duets: during which share of their time both ran."""

    @property
    def workloads(self) -> list[WorkloadName]:
        return [WorkloadName(name) for name in dict.fromkeys(w for _, w in self.ratios)]

    @property
    def targets(self) -> list[TargetName]:
        names = ["native", *(t for t, _ in self.ratios), *self.unmeasured]
        return [TargetName(name) for name in dict.fromkeys(names)]

    def write(self, path: Path) -> Path:
        """Write the folder of this run, without any answer in it."""
        folder = writer.create(path.parent, path.name, exact=path)
        measured = self._duets() if self.schedule is Schedule.DUET else self._samples()
        # A run writes block after block.
        made = (*measured, *self._counted(), *self.samples, *self.gaps, *self.leavings)
        for each in sorted(made, key=lambda record: record.block):
            folder.write(each)
        for block in range(1, self.blocks + 1):
            broken = block in self.invalid
            folder.health(_health(block, broken=broken, pressure=self.pressure), valid=not broken)
        for name, state in self.states.items():
            made = whole.state(state) if isinstance(state, Mapping) else state
            folder.document(f"state/{name}-pre.json", made)
        folder.document("plan.json", self._plan())
        folder.document("run.json", self._about())
        folder.close()
        return path

    def _samples(self) -> Iterable[Sample]:
        rng = random.Random(self.seed)  # noqa: S311 - figures to repeat, not a secret
        gone = {(each.target, each.workload): each.block for each in self.leavings}
        ones = {(name, w): 1.0 for name in ("native", "native#2") for w in self.workloads}
        for block in range(0 if self.pilot else 1, self.blocks + 1):
            spoilt = 100.0 if block == 0 or block in self.invalid else 1.0
            host = math.exp(rng.gauss(0, 0.1)) * (1 + self.drift * block / max(1, self.blocks))
            for (target, workload), ratio in (ones | dict(self.ratios)).items():
                if block in self.missing.get((target, workload), ()) or block > gone.get(
                    (target, workload), block
                ):
                    continue
                seconds = BASE_SECONDS * ratio * host * math.exp(rng.gauss(0, self.noise))
                seconds *= 3.0 if block in self.slow.get((target, workload), ()) else 1.0
                if target not in ("native", "native#2"):
                    seconds *= spoilt
                served = self.sessions.get(target, 0)
                session = 1 + (block - 1) // served if served else 0
                own = random.Random(f"{self.seed}/{target}/{session}")  # noqa: S311 - as above
                if session:
                    seconds *= math.exp(own.gauss(0, self.session_spread))
                for each in self._visit(block, target, workload, seconds):
                    yield replace(each, session=session)

    def _counted(self) -> Iterable[Sample]:
        for each in self.metrics:
            rng = random.Random(f"{self.seed}/{each.metric.name}")  # noqa: S311 - as above
            natives = {"native", "native#2"}
            if self.schedule is Schedule.DUET:
                natives = {"native#2", *(f"native#{target}" for target, _ in each.factors)}
                natives |= {plan.partner(TargetName("native"), TargetName("native#2"))}
            ones = {(name, w): 1.0 for name in natives for w in each.workloads}
            for block in range(1, self.blocks + 1):
                for (target, workload), factor in (ones | dict(each.factors)).items():
                    value = each.amount * factor * math.exp(rng.gauss(0, each.noise))
                    if target not in each.missing:
                        name = each.metric.recorded_as
                        made = sample(block, target, workload, round(value), metric=name)
                        yield replace(made, unit=each.metric.unit)

    def _entries(self) -> list[dict[str, Any]]:
        entries: list[dict[str, Any]] = []
        # run.json names the workloads of all cells, those without a number too.
        gaps = (gap.workload for gap in self.gaps)
        for name in dict.fromkeys((*self.workloads, *gaps)):
            entry: dict[str, Any] = {
                "name": name,
                "class": name.partition(".")[0],
                "summary": "nothing",
                "operation": "one loop",
                "scope": "loop",
            }
            if self.metrics:
                own = [each.metric for each in self.metrics if name in each.workloads]
                entry["metrics"] = [TIME, *own]
            entries.append(entry)
        return entries

    def _duets(self) -> Iterable[Sample]:
        """Yield visits in pairs; what a pair meets, its two halves of the CPUs differ by `half`."""
        rng = random.Random(self.seed)  # noqa: S311 - as above
        native = TargetName("native")
        ones = {("native#2", w): 1.0 for w in self.workloads}
        for block in range(1, self.blocks + 1):
            for (target, workload), ratio in (ones | dict(self.ratios)).items():
                met = BASE_SECONDS * math.exp(rng.gauss(0, 0.1))
                pair = ((target, ratio), (plan.partner(native, TargetName(target)), 1.0))
                for side, (label, own) in enumerate(pair):
                    if block in self.missing.get((label, workload), ()):
                        continue
                    slower = 1 + self.half * ((block + side) % 2)
                    seconds = met * own * slower * math.exp(rng.gauss(0, self.noise))
                    yield from self._visit(block, label, workload, seconds)
                    span = ITERATIONS * seconds * OPERATIONS * 1e9
                    for metric, value in (("span.host", span), ("overlap", span * self.overlap)):
                        yield sample(
                            block, label, workload, round(value), metric=metric, clock=Clock.HOST
                        )

    def _visit(self, block: int, target: str, workload: str, seconds: float) -> Iterable[Sample]:
        for iteration in range(ITERATIONS):
            yield sample(
                block,
                target,
                workload,
                round(seconds * OPERATIONS * 1e9),
                iteration=iteration,
                operations=OPERATIONS,
                clock=self.clock,
            )

    def _plan(self) -> Plan:
        return plan.make(
            [name for name in self.targets if name not in self.unmeasured],
            [Work(workload=w, loops=OPERATIONS, iterations=ITERATIONS) for w in self.workloads],
            reference=TargetName("native"),
            blocks=self.blocks,
            seed=self.seed,
            schedule=self.schedule,
        )

    def _about(self) -> dict[str, Any]:
        native = {"native": Technology.NATIVE}
        kinds = native | dict(self.classes)
        made = {
            "schema_version": 1,
            "id": "20240102T030405Z-abcdef",
            "tool_version": "0.1.0",
            "started": "2024-01-02T03:04:05Z",
            "finished": "2024-01-02T03:09:05Z",
            "argv": ["run"],
            "seed": self.seed,
            "reference": "native",
            "quick": False,
            "margin": 0.05,
            "precision": 0.025,
            "budget_seconds": 300.0,
            "elapsed_seconds": 290.0,
            "interrupted": False,
            "stopped": "blocks",
            "machine": "a machine that never was",
            "host": {"cpu": "none", "cpus": 4, "kernel": "6.1", "filesystem": "ext4"},
            "compiler": "zig cc 0",
            "flags": "-O2",
            "payloads": [],
            "targets": [
                {"name": name, "class": kinds.get(name, Technology.CONTAINERIZATION)}
                for name in self.targets
            ],
            "workloads": self._entries(),
            **self.about,
        }
        return whole.run(made)


def sample(
    block: int,
    target: str,
    workload: str,
    value: int,
    *,
    metric: str = "time",
    iteration: int = 0,
    operations: int = 1,
    clock: Clock = Clock.GUEST,
) -> Sample:
    """Return one sample in nanoseconds."""
    return Sample(
        block=block,
        target=TargetName(target),
        workload=WorkloadName(workload),
        metric=metric,
        iteration=iteration,
        value=value,
        unit=Unit.NANOSECOND,
        operations=operations,
        clock=clock,
        at=float(block),
    )


@pytest.fixture(autouse=True)
def in_its_cgroup(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the process of the tests in the cgroup in which it is."""
    monkeypatch.setattr(cpu_group, "entered", lambda: contextlib.nullcontext("unchanged: a test"))


@pytest.fixture(autouse=True)
def only_secrets_are_left_out() -> Iterator[None]:
    """Forget the secrets of configurations and --redact after each test."""
    yield
    redaction.reset()


@pytest.fixture
def synthetic(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes a `Synthetic` run and returns its folder."""

    def write(
        ratios: Mapping[tuple[str, str], float] | None = None, *, name: str = "run", **options: Any
    ) -> Path:
        chosen = {("box", "cpu.sieve"): 1.0} if ratios is None else ratios
        return Synthetic(ratios=chosen, **options).write(tmp_path / name)

    return write


@pytest.fixture
def make_run(synthetic: Callable[..., Path]) -> Callable[..., reader.Run]:
    """Return a function that makes a run with a name, an id and noise of its own."""
    count = 0

    def make(ratios: Mapping[tuple[str, str], float] | None = None, **options: Any) -> reader.Run:
        nonlocal count
        count += 1
        about = {"id": f"run-{count}", **options.pop("about", {})}
        path = synthetic(ratios, name=f"run{count}", seed=count, about=about, **options)
        return reader.load(path)

    return make


@pytest.fixture
def a_sample() -> Callable[..., Sample]:
    """Return the function that makes one sample."""
    return sample


# ---- the command line


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Stand in an empty folder with no configuration; leave signals as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "100")
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def isobench(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, somewhere: Path
) -> Callable[..., Done]:
    """Return a function that runs a command line in this process."""
    monkeypatch.setattr(cleanup, "sweep", lambda *_, **__: None)

    def call(*argv: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["isobench", *(str(word) for word in argv)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        said = capsys.readouterr()
        code = caught.value.code
        return Done(code=code if isinstance(code, int) else 0, out=said.out, err=said.err)

    return call
