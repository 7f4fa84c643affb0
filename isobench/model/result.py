"""Nouns of answers: estimates, doubts, verdicts, claims."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from isobench.model.isolation import Resource
from isobench.model.units import TargetName, WorkloadName


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A confidence interval of a ratio; `level` is nominal."""

    low: float
    high: float
    level: float

    @property
    def ends(self) -> tuple[float, float]:
        """The lower and the upper end."""
        return self.low, self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """Subject over reference, from paired block log-ratios; of any metric, above 1 is worse."""

    ratio: float
    interval: Interval
    """The reported interval (97 %: still 95 % after stopping on width)."""
    equivalence: Interval
    """The 90 % interval that the equivalence test holds against the margin."""
    check: Interval | None
    """Hodges-Lehmann at 90 %: a second opinion for the verdict."""
    p_equivalence: float
    """The larger of the two one-sided p values of the equivalence test."""
    standard_error: float
    """Of the mean log-ratio."""
    deviation: float
    """Standard deviation of the winsorised block log-ratios."""
    blocks: int
    method: str
    sessions: int = 0
    """How many sessions the interval rests on, where blocks of one session are alike; 0: on blocks.
    """
    uncertainty: float = 0.0
    """A relative error that all blocks may share (0.02: 2 %); the intervals hold it already."""


class Status(StrEnum):
    """The outcome of one cell, as `summary.json` spells it."""

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
    """A reason to trust a number less. A blocking one takes the verdict away."""

    code: str
    detail: str
    advice: str
    blocks: bool = False


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
    """What the host did beside measuring while one block ran."""

    block: int
    seconds: float
    steal_percent: float | None
    pressure_percent: float | None
    swapped_in_pages: int | None
    throttled: int | None
    clock_source: str | None
    speed_percent: float | None = None
    """How fast the processor was before and after, of its median in this run."""
    broken_rules: tuple[str, ...] = ()
    """The invalidation rules, fixed in the plan, that this block broke."""


class ClaimKind(StrEnum):
    """How a sentence is tested."""

    EVIDENCE = "evidence"
    EQUIVALENT = "equivalent"
    ORDER = "order"
    BOUND = "bound"
    CHECKSUM = "checksum"
    ENFORCEMENT = "enforcement"


class Direction(StrEnum):
    """What an order claim says of subject against reference: of any metric but time, that it is
    worse or better.
    """

    SLOWER = "slower"
    FASTER = "faster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A sentence of the documents (or a user's own) and how it is tested. Data: see
    reports/claims.toml.
    """

    id: str
    quote: str
    kind: ClaimKind
    technology: str = ""
    """Whose targets it speaks of; empty: those in `targets`, or those that `when` picks."""
    targets: tuple[TargetName, ...] = ()
    workloads: tuple[str, ...] = ()
    """Classes or workload names; each class is an axis with a verdict of its own."""
    when: str = ""
    """A condition on the cells it speaks of: see `isobench.conditions`."""
    reference: str = "native"
    """What ratios are taken to: a target, or a technology (each of its targets)."""
    evidence: Mapping[str, str] | None = None
    """For EVIDENCE: fact key -> relation to the host ("same", "unlike")."""
    limits: tuple[Resource, ...] = ()
    """For ENFORCEMENT: the resources whose limits hold when they are pushed past."""
    metric: str = "time"
    """What is compared, for EQUIVALENT, ORDER and BOUND: a metric of the workloads, by name."""
    direction: Direction = Direction.SLOWER
    margin: float | None = None
    """For EQUIVALENT and ORDER: a share (0.05: 5 %). None: the run's own margin for what is
    equivalent; any difference above the noise floor for an order.
    """
    level: float = 0.95
    """One-sided confidence of every bound that decides; two of them are one test of equivalence."""
    quantile: float = 0.5
    """For BOUND in seconds: which quantile over visits is bounded."""
    below_seconds: float | None = None
    above_seconds: float | None = None
    below_ratio: float | None = None
    above_ratio: float | None = None
    """For BOUND: exactly one of the four."""
    needs: str = ""
    """What would have to be measured to test it, said when nothing was."""
    origin: str = ""
    """The file it was read from."""


class ClaimStatus(StrEnum):
    """The outcome of a claim."""

    SUPPORTED = "supported"
    REFUTED = "refuted"
    INCONCLUSIVE = "inconclusive"
    UNTESTED = "untested"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimVerdict:
    """A claim, judged on one run."""

    claim: Claim
    status: ClaimStatus
    sentence: str
    axes: Mapping[str, ClaimStatus]
    """One standing per axis (workload class)."""
    change: str = ""
    """What would change the standing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A figure that somebody published, to stand beside ours. Data: see reports/published.toml."""

    claims: tuple[str, ...]
    """Ids of the claims it speaks to."""
    subject: str
    measured: str
    figure: str
    source: str
    conditions: str = ""
    opened: bool
    """The source itself was opened, or its data recomputed; else it is told by others."""
