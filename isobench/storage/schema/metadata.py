"""run.json: what was asked for, on which machine, with which programs, and how it ended."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from isobench.model import TIME, Abi, Metric, Technology
from isobench.model.units import Sha256, TargetName, WorkloadName
from isobench.storage.schema.values import Amount, Count, Facts, Integer, Positive


class Configuration(Struct, frozen=True, kw_only=True):
    """The configuration that a run was made with."""

    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The table of each target; its own options are the target's to judge."""


class TargetEntry(Struct, frozen=True, kw_only=True):
    """A target of a run."""

    name: TargetName
    technology: Technology = field(name="class")
    asked: bool = False
    """It was asked for by name."""


class WorkloadEntry(Struct, frozen=True, kw_only=True):
    """A workload of a run."""

    name: WorkloadName
    group: str = field(name="class")
    summary: str = ""
    operation: str = ""
    scope: str = ""
    program: str | None = None
    """Its payload; None in runs of versions that did not say."""
    loops: Count | None = None
    iterations: Count | None = None
    """Of one visit; None until the run has a plan."""
    metrics: tuple[Metric, ...] = (TIME,)
    """What is compared with native; runs of versions that do not say compared time alone."""


class PayloadEntry(Struct, frozen=True, kw_only=True):
    """A program that was built for a run."""

    program: str
    abi: Abi
    sha256: Sha256
    compiler: str = ""
    flags: tuple[str, ...] = ()


class VariationEntry(Struct, frozen=True, kw_only=True):
    """A target that is another one with one option changed."""

    name: TargetName
    base: TargetName
    option: str
    value: str


class LeftOut(Struct, frozen=True, kw_only=True):
    """What the budget had no room for, and the command that measures all."""

    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    command: str = ""


class RunMetadata(Struct, frozen=True, kw_only=True):
    """The whole of run.json. It is written when a run begins, and anew when more is known."""

    schema_version: int
    id: str | None = None
    tool_version: str | None = None
    started: str | None = None
    """In UTC, as ISO 8601 has it."""
    finished: str | None = None
    argv: tuple[str, ...] | None = None
    config: Configuration = field(default_factory=Configuration)
    claims: tuple[Mapping[str, Any], ...] = ()
    """The user's own claims, as rows that `claims.of_table` reads and judges."""
    affinity: tuple[Count, ...] = ()
    """The CPUs that the run was confined to; empty: to none."""
    variations: tuple[VariationEntry, ...] = ()
    seed: Integer | None = None
    reference: TargetName
    quick: bool = False
    launch: str | None = None
    margin: Positive = 0.05
    """What counts as near-native, as a share (0.05: 5 %)."""
    precision: Amount | None = None
    budget_seconds: Amount | None = None
    """None: no limit was set."""
    blocks_wanted: Count | None = None
    rules: tuple[str, ...] = ()
    """What makes a block not count, fixed beforehand."""
    machine: str | None = None
    host: Facts = field(default_factory=dict)
    compiler: str | None = None
    flags: str | None = None
    targets: tuple[TargetEntry, ...] = ()
    left_out: LeftOut | None = None
    workloads: tuple[WorkloadEntry, ...] = ()
    payloads: tuple[PayloadEntry, ...] = ()
    spawner: str | None = None
    """By what programs were started: "vfork" or "subprocess"."""
    plan_sha256: str | None = None
    resumed_by: tuple[tuple[str, ...], ...] = ()
    """The command lines that have gone on with this run."""
    stopped: str | None = None
    interrupted: bool = False
    elapsed_seconds: Amount | None = None

    @property
    def complete(self) -> bool:
        """Whether it has ended by itself."""
        return bool(self.finished) and not self.interrupted
