"""Shows how noisy a machine is, from native against native: noise floors, smallest visible effects,
numbers of blocks. `report.noise` writes the text.
"""

import dataclasses
import statistics
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isobench import stats
from isobench.analysis.cells import LEVEL, Analysis
from isobench.comparison.result import RunIdentity
from isobench.evidence import host
from isobench.model import TIME, BlockHealth, Estimate, Schedule
from isobench.model.errors import UsageError
from isobench.model.plan import second
from isobench.model.units import WorkloadName
from isobench.storage.reader import Run

SIZES: Final = (10, 20, 60)
"""Numbers of blocks: the minimum for a verdict, a run of some minutes, the maximum of a run."""
QUOTED: Final = 20
"""The one of SIZES that the headline uses."""
MOST_BLOCKS: Final = 1000
"""Larger numbers of blocks are not reported, since nobody would measure so many."""
VISITS: Final = 3
"""The visits of a block with one target: native, native again, and the target."""
# Counters of the processor that the vDSO reads without a system call. Reading hpet or acpi_pm takes
# microseconds, in a guest even tens of them.
_STEADY_CLOCKS: Final = frozenset({"tsc", "arch_sys_counter"})
_BUSY: Final = 0.25
"""From this load per CPU on, other work disturbs the measurement."""
_NOTABLE_STEAL: Final = 0.1
_NOTABLE_PRESSURE: Final = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """The effort to reach a goal."""

    blocks: int | None
    """None: more than MOST_BLOCKS, or unknown."""
    seconds: float | None
    """The time of these blocks with one target that is as fast as native."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadNoise:
    """The noise of one workload, native against native. Shares are fractions: 0.012 is 1.2 %."""

    workload: WorkloadName
    metric: str = TIME.name
    workload_class: str
    blocks: int
    noise: float | None
    """The noise floor."""
    exceeds: bool
    """Whether the floor is above the margin, or unknown."""
    deviation: float | None
    spread: float | None
    """The spread of one block. None: the timer could not tell blocks apart."""
    rounds_share: float | None
    """The share of the squared spread of a block that comes from its rounds: more rounds make that
    part smaller, and only more blocks the rest. None: the run has no rounds.
    """
    smallest_effect: Mapping[int, float | None]
    """The smallest effect that so many blocks (SIZES) show with a probability of 90 %."""
    seconds_a_block: float | None
    precision: Effort
    """To reach the requested width of the interval."""
    verdict: Effort
    """To show near-native where it is true, with a probability of 90 %."""
    outlying_rate: float | None
    drift: stats.Drift | None

    @property
    def effect(self) -> float | None:
        """The smallest effect that QUOTED blocks show."""
        return self.smallest_effect[QUOTED]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spanned:
    """One value over all blocks."""

    median: float
    worst: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthSummary:
    """The state of the host over all blocks. None: no block has that value."""

    blocks: int
    invalid: int
    """The blocks that do not count."""
    broken: Mapping[str, int]
    """How many blocks broke each rule for a quiet host."""
    steal_percent: Spanned | None
    pressure_percent: Spanned | None
    speed_percent: Spanned | None


class HostProperty(StrEnum):
    """A property of a host that matters for noise."""

    VIRTUALIZATION = "virtualization"
    GOVERNOR = "frequency governor"
    TURBO = "turbo"
    SMT = "SMT"
    CLOCK = "clock source"
    CPU_LIMIT = "CPU limit of the cgroup"
    LOAD = "load before"
    STEAL = "steal"
    PRESSURE = "waiting for a CPU"
    SPEED = "processor speed"


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFact:
    """One property of the host."""

    name: HostProperty
    value: str | float | Spanned | None
    """A CPU limit is in CPUs, a Spanned in percent. None: not visible; for a limit: none is set."""
    harmful: bool
    """Whether it makes figures less certain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineNoise:
    """How noisy the machine of a run is."""

    run: RunIdentity
    blocks: int
    precision: float
    """The requested half width of intervals."""
    margin: float
    """What counts as near-native."""
    level: float
    """The level of the intervals."""
    workloads: tuple[WorkloadNoise, ...]
    health: HealthSummary
    host: tuple[HostFact, ...]


def machine_noise(run: Run, *, precision: float = 0.025, margin: float = 0.05) -> MachineNoise:
    """Return how noisy the machine of a run is.

    `precision` is the requested half width of intervals, `margin` what counts as near-native; both
    are shares. UsageError: native was not measured twice in at least three blocks.
    """
    analysis = Analysis(run)
    seconds = _seconds_a_visit(analysis)
    workloads = tuple(
        _workload(own, name, seconds.get(name), precision=precision, margin=margin)
        for own in map(analysis.of, analysis.metrics)
        for name in own.workloads
        if own.column(name, own.reference) is not None
    )
    if all(one.noise is None and one.spread is None for one in workloads):
        raise UsageError(
            f"{run.path} does not show how noisy its machine was: native was not measured twice"
            f" in {stats.FEWEST_BLOCKS} blocks or more",
            hint="isobench noise",
        )
    health = _health(run)
    return MachineNoise(
        run=RunIdentity.of(run),
        blocks=analysis.blocks,
        precision=precision,
        margin=margin,
        level=LEVEL,
        workloads=workloads,
        health=health,
        host=tuple(_host_facts(run, health)),
    )


# ---- one workload


def _seconds_a_visit(analysis: Analysis) -> dict[WorkloadName, float]:
    """Return how many seconds a visit of native takes in each workload."""
    if analysis.run.plan.schedule is Schedule.ROUNDS:
        return _seconds_of_turns(analysis)
    # Records have only the time of their end. A visit lasts from the end of the visit before; the
    # first one of a block has none before it and is left out.
    frame = analysis.run.samples
    frame = frame[frame["block"] > 0]
    ends = frame.groupby(["block", "workload", "target"])["at"].max().reset_index()
    ends = ends.sort_values(["block", "at"])
    ends["seconds"] = ends.groupby("block")["at"].diff()
    native = ends["target"].isin([analysis.reference, second(analysis.reference)])
    medians = ends[native].groupby("workload")["seconds"].median()
    return {WorkloadName(str(name)): float(s) for name, s in medians.items() if s > 0}


def _seconds_of_turns(analysis: Analysis) -> dict[WorkloadName, float]:
    """Return how many seconds the turns of one target take in a block of rounds."""
    frame = analysis.frames.times
    by_block = frame.groupby(["workload", "block"])
    spans = by_block["at"].max() - by_block["at"].min()
    each = (spans / by_block["target"].nunique()).groupby("workload").median()
    return {WorkloadName(str(name)): float(s) for name, s in each.items() if s > 0}


def _workload(
    analysis: Analysis,
    name: WorkloadName,
    seconds: float | None,
    *,
    precision: float,
    margin: float,
) -> WorkloadNoise:
    control = second(analysis.reference)
    estimate = analysis.estimate(name, control)
    noise = analysis.noise[name]
    spread = stats.spread_of_block(estimate) if estimate and estimate.deviation else None
    logs = analysis.log_ratios(name, control)
    width = None if spread is None else stats.blocks_for_width(spread, precision, most=MOST_BLOCKS)
    verdict = None if estimate is None else _blocks_for_verdict(estimate, margin)
    seconds_a_block = None if seconds is None else VISITS * seconds
    return WorkloadNoise(
        workload=name,
        metric=analysis.metric,
        workload_class=analysis.classes[name],
        blocks=int(logs.size),
        noise=noise,
        exceeds=noise is None or noise > margin,
        deviation=None if estimate is None else estimate.deviation,
        spread=spread,
        rounds_share=_rounds_share(analysis.round_error(name, control), spread),
        smallest_effect={
            size: None if spread is None else stats.smallest_effect(spread, size) for size in SIZES
        },
        seconds_a_block=seconds_a_block,
        precision=_effort(width, seconds_a_block),
        verdict=_effort(verdict, seconds_a_block),
        outlying_rate=float(stats.outlying_blocks(logs).mean()) if logs.size else None,
        drift=_drift(analysis, name),
    )


def _rounds_share(error: float | None, spread: float | None) -> float | None:
    return None if error is None or not spread else min(1.0, error / spread) ** 2


def _blocks_for_verdict(estimate: Estimate, margin: float) -> int | None:
    """Return how many blocks show near-native where it is true, with a probability of 90 %."""
    # The true ratio of native to itself is 1: a difference from 1 is noise, not an effect to plan
    # with.
    found = stats.blocks_needed(dataclasses.replace(estimate, ratio=1.0), margin=1 + margin)
    return None if found is None or found > MOST_BLOCKS else found


def _effort(blocks: int | None, seconds: float | None) -> Effort:
    """Return the effort of so many blocks of `seconds` each."""
    whole = None if blocks is None or seconds is None else blocks * seconds
    return Effort(blocks=blocks, seconds=whole)


def _drift(analysis: Analysis, name: WorkloadName) -> stats.Drift | None:
    rows = analysis.amounts
    own = rows[(rows["workload"] == name) & (rows["target"] == analysis.reference)]
    by_block = own.groupby("block")[["amount", "at"]].median()
    # Drift is relative: a metric that counts something may be zero, which has no logarithm.
    by_block = by_block[by_block["amount"] > 0]
    if by_block.empty:
        return None
    return stats.drift(by_block["amount"].to_numpy(float), by_block["at"].to_numpy(float))


# ---- the host


def _health(run: Run) -> HealthSummary:
    broken = Counter(rule for block in run.health for rule in block.broken_rules)
    return HealthSummary(
        blocks=len(run.health),
        invalid=len(run.invalid_blocks),
        broken=dict(broken),
        steal_percent=_spanned(run.health, "steal_percent"),
        pressure_percent=_spanned(run.health, "pressure_percent"),
        speed_percent=_spanned(run.health, "speed_percent", worst=min),
    )


def _spanned(
    health: Sequence[BlockHealth], key: str, worst: Callable[[Sequence[float]], float] = max
) -> Spanned | None:
    values = [value for block in health if (value := getattr(block, key)) is not None]
    if not values:
        return None
    return Spanned(median=statistics.median(values), worst=worst(values))


def _host_facts(run: Run, health: HealthSummary) -> Iterator[HostFact]:
    """Yield the properties of the host that matter for noise."""
    facts = run.metadata.host
    virtual, governor = facts.get("virtualization"), facts.get("frequency_governor")
    clock, limit = facts.get("clock_source"), facts.get("cpu_limit")
    load = facts.get("load")
    turbo, smt = facts.get("turbo"), facts.get("smt")
    # Frequencies that change with load and temperature change times:
    # https://pyperf.readthedocs.io/en/latest/system.html. A sibling thread shares a core's units,
    # and a host may take the CPUs of a guest at any time.
    for name, value, harmful in (
        (HostProperty.VIRTUALIZATION, virtual, str(virtual).startswith("guest")),
        (HostProperty.GOVERNOR, governor, governor not in (None, "performance")),
        (HostProperty.TURBO, turbo, turbo == "on"),
        (HostProperty.SMT, smt, smt == "on"),
        (HostProperty.CLOCK, clock, clock is not None and clock not in _STEADY_CLOCKS),
        (HostProperty.CPU_LIMIT, limit, limit is not None),
        (HostProperty.LOAD, load, _is_busy(load, facts.get("cpus"))),
    ):
        yield HostFact(name=name, value=value, harmful=harmful)
    yield from _health_facts(health)


def _is_busy(load: str | float | None, cpus: str | float | None) -> bool:
    """Say whether other work disturbs the measurement, where load and CPUs are numbers."""
    if not isinstance(load, int | float) or not isinstance(cpus, int | float):
        return False
    return cpus > 0 and load / cpus > _BUSY


def _health_facts(health: HealthSummary) -> Iterator[HostFact]:
    for name, span, limit in (
        (HostProperty.STEAL, health.steal_percent, _NOTABLE_STEAL),
        (HostProperty.PRESSURE, health.pressure_percent, _NOTABLE_PRESSURE),
    ):
        yield HostFact(name=name, value=span, harmful=bool(span and span.worst > limit))
    if speed := health.speed_percent:
        slow = speed.worst < host.SPEED_PERCENT
        yield HostFact(name=HostProperty.SPEED, value=speed, harmful=slow)
