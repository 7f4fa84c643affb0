"""Types of results: estimates, doubts, verdicts, claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from isobench.model.isolation import Resource
from isobench.model.units import TargetName, WorkloadName


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval of a ratio. `level` is the nominal coverage (0.97: 97 %)."""

    low: float
    high: float
    level: float

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        return self.low, self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A target over the reference in one metric, estimated from paired blocks. Above 1 is worse."""

    ratio: float
    interval: Interval
    """The reported interval, which also decides the verdict: nominal 97 %, which covers 95 % after
    stopping and leaving; 99.9 % for a cell that left before the end.
    """
    equivalence: Interval
    """The 90 % interval, for noise floors."""
    # Where the two estimators disagree, the verdict is inconclusive.
    check: Interval | None
    """The Hodges-Lehmann interval at 90 %, from another estimator, to check the verdict."""
    p_equivalence: float
    """The larger of the two one-sided p values of the equivalence test."""
    standard_error: float
    """Of the mean log-ratio. 0: all blocks have the same one."""
    deviation: float
    """Standard deviation of the winsorised block log-ratios. 0: those that trimming keeps are the
    same.
    """
    blocks: int
    method: str
    sessions: int = 0
    """How many sessions the interval is computed from. 0: it is computed from blocks, since the
    sessions do not differ.
    """
    uncertainty: float = 0.0
    """A relative error that all blocks may share (0.02: 2 %). The intervals include it."""


class Status(StrEnum):
    """The outcome of one cell, as in `summary.json`."""

    NEAR_NATIVE = "near-native"
    SLOWER = "slower"
    FASTER = "faster"
    INCONCLUSIVE = "inconclusive"
    UNPROVEN = "unproven"


class TargetStatus(StrEnum):
    """What has become of a target in a run, as `summary.json` spells it."""

    MEASURED = "measured"
    UNAVAILABLE = "unavailable"
    FAILED = "failed"
    UNPROVEN = "unproven"


@dataclass(frozen=True, slots=True, kw_only=True)
class Doubt:
    """A reason to trust a number less. With a blocking one the cell has no verdict."""

    code: str
    detail: str
    advice: str
    blocks: bool = False


FEW_CODES: Final = frozenset({"few-blocks", "no-estimate", "quick"})
"""Codes of doubts: the cell has too few blocks for a verdict, and there is nothing else against
it.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What one cell's estimate means at a margin."""

    target: TargetName
    workload: WorkloadName
    metric: str = "time"
    status: Status
    estimate: Estimate | None
    doubts: tuple[Doubt, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHealth:
    """The state of the host while one block ran."""

    block: int
    seconds: float
    steal_percent: float | None
    # Pressure is recorded only; it is not a rule for a quiet host: see evidence.host.
    pressure_percent: float | None
    swapped_in_pages: int | None
    throttled: int | None
    clock_source: str | None
    speed_percent: float | None = None
    """The speed of the processor before and after the block, in percent of the median in this run.
    """
    run_queue: float | None = None
    """How many other tasks were ready to run before and after the block, on average."""
    own_cpu_percent: float | None = None
    """What isobench itself used of one CPU while payloads took their turns; None: they did not."""
    broken_rules: tuple[str, ...] = ()
    """The rules for a quiet host (`evidence.host.RULES`) that this block broke."""


class ClaimKind(StrEnum):
    """How a sentence is tested."""

    EVIDENCE = "evidence"
    EQUIVALENT = "equivalent"
    ORDER = "order"
    BOUND = "bound"
    CHECKSUM = "checksum"
    ENFORCEMENT = "enforcement"


class Direction(StrEnum):
    """The order of target and reference that a claim states. For metrics other than time, slower
    means worse and faster means better.
    """

    SLOWER = "slower"
    FASTER = "faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence and how it is tested: `isobench verify` does it, for the user's claims as well."""

    id: str
    quote: str
    kind: ClaimKind
    technology: str = ""
    """Its targets are those of this technology; empty: those in `targets` or of `when`."""
    targets: tuple[TargetName, ...] = ()
    workloads: tuple[str, ...] = ()
    """Names of workloads or of classes. Each class gets a status of its own."""
    when: str = ""
    """A condition on its cells: see `isobench.claims.condition`."""
    reference: str = "native"
    """The denominator of ratios: a target, or a technology (each of its targets)."""
    evidence: Mapping[str, str] | None = None
    """For EVIDENCE: fact key -> relation to the host ("same", "unlike")."""
    limits: tuple[Resource, ...] = ()
    """For ENFORCEMENT: the resources whose limits hold when a program demands more."""
    metric: str = "time"
    """For EQUIVALENT, ORDER and BOUND: the name of the metric that is compared."""
    direction: Direction = Direction.SLOWER
    margin: float | None = None
    """For EQUIVALENT and ORDER: a share (0.05: 5 %). None means the margin of the run, so that the
    claim uses the verdict of the cell.
    """
    level: float = 0.95
    """One-sided confidence of every bound. Two such bounds make one test of equivalence."""
    quantile: float = 0.5
    """For BOUND in seconds: the quantile over visits that is bounded."""
    below_seconds: float | None = None
    above_seconds: float | None = None
    below_ratio: float | None = None
    above_ratio: float | None = None
    """For BOUND: one of the four, or both ends of a range, in seconds or as ratios."""
    needs: str = ""
    """What must be measured to test it. The report shows it when nothing was measured."""
    origin: str = ""
    """The file that it was read from."""


class ClaimStatus(StrEnum):
    """The outcome of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """A claim and its status in one run."""

    claim: Claim
    status: ClaimStatus
    sentence: str
    axes: Mapping[str, ClaimStatus]
    """The status for each class of workloads."""
    change: str = ""
    """What would change the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published figure, shown next to the measured ones."""

    claims: tuple[str, ...]
    """Ids of the claims that it is about."""
    subject: str
    measured: str
    figure: str
    source: str
    conditions: str = ""
    opened: bool
    """Whether the source itself was read, or its data recomputed. If not, others cite it."""
