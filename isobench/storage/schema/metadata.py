"""run.json: the options of a run, its machine and its programs, and how it ended."""

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta, Struct, field

from isobench.model import TIME, Abi, Metric, Technology
from isobench.model.bounds import LEAST_SHARE, MOST_MARGIN
from isobench.model.units import Sha256, TargetName, WorkloadName
from isobench.storage.schema.values import Amount, Count, Facts, Integer


class Configuration(Struct, frozen=True, kw_only=True):
    """The part of the configuration that defines targets."""

    # The options are not typed here: each target has its own, plug-ins included. The registry
    # checks them.
    targets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The table [targets.NAME] of each configured target."""


class TargetEntry(Struct, frozen=True, kw_only=True):
    """A target of a run."""

    name: TargetName
    technology: Technology = field(name="class")
    asked: bool = False
    """Whether the user named it."""


class WorkloadEntry(Struct, frozen=True, kw_only=True):
    """A workload of a run."""

    name: WorkloadName
    group: str = field(name="class")
    summary: str = ""
    operation: str = ""
    scope: str = ""
    program: str | None = None
    """The name of its payload; None in runs of versions that did not record it."""
    loops: Count | None = None
    """Loops of one iteration; None until the run has a plan."""
    iterations: Count | None = None
    """Iterations of one visit; None until the run has a plan."""
    metrics: tuple[Metric, ...] = (TIME,)
    """The metrics that are compared with native. Older versions compared only time."""


class PayloadEntry(Struct, frozen=True, kw_only=True):
    """A program that was built for a run."""

    program: str
    abi: Abi
    sha256: Sha256
    compiler: str = ""
    flags: tuple[str, ...] = ()


class VariationEntry(Struct, frozen=True, kw_only=True):
    """A target that is another target (`base`) with one option changed."""

    name: TargetName
    base: TargetName
    option: str
    value: str


class LeftOut(Struct, frozen=True, kw_only=True):
    """What the budget had no room for, and the command that measures everything."""

    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    command: str = ""


class RunMetadata(Struct, frozen=True, kw_only=True):
    """The content of run.json. It is written when a run begins, and again when more is known."""

    schema_version: int
    id: str | None = None
    tool_version: str | None = None
    started: str | None = None
    """In UTC, in the format of ISO 8601."""
    finished: str | None = None
    argv: tuple[str, ...] | None = None
    config: Configuration = field(default_factory=Configuration)
    claims: tuple[Mapping[str, Any], ...] = ()
    """The user's own claims, as tables that `claims.of_table` reads."""
    confirms: str | None = None
    """The id of the run whose changes this one was made to confirm."""
    affinity: tuple[Count, ...] = ()
    """The CPUs that the run was confined to; empty: all."""
    variations: tuple[VariationEntry, ...] = ()
    seed: Integer | None = None
    reference: TargetName
    quick: bool = False
    launch: str | None = None
    margin: Annotated[float, Meta(gt=LEAST_SHARE, lt=MOST_MARGIN)] = 0.05
    """The margin of near-native, as a share (0.05: 5 %)."""
    precision: Amount | None = None
    """The half-width of intervals at which the run may stop, as a share; 0: it never stops so."""
    until: str | None = None
    """When it may end before its budget: "precise" or "decided"."""
    budget_seconds: Amount | None = None
    """None: no limit was set."""
    sequential: str | None = None
    """The name of the rule by which cells leave before the end (`stats.sequential.RULES`). None:
    all cells take part until the end.
    """
    leave_width: Amount | None = None
    """A cell that is decided leaves when its 97 % interval is at most so wide on either side, as a
    share (0.25: 25 %). None: any width.
    """
    blocks_wanted: Count | None = None
    """The most blocks of the run."""
    rules: tuple[str, ...] = ()
    """The rules by which blocks are discarded, fixed before measuring."""
    machine: str | None = None
    host: Facts = field(default_factory=dict)
    compiler: str | None = None
    flags: str | None = None
    targets: tuple[TargetEntry, ...] = ()
    left_out: LeftOut | None = None
    workloads: tuple[WorkloadEntry, ...] = ()
    payloads: tuple[PayloadEntry, ...] = ()
    spawner: str | None = None
    """What started programs: "vfork" (isobench's spawner) or "subprocess"."""
    plan_sha256: str | None = None
    resumed_by: tuple[tuple[str, ...], ...] = ()
    """The command lines that have resumed this run."""
    stopped: str | None = None
    """Why it stopped: "budget", "precision", "decided", "blocks", "time limit", "interrupted",
    "failure".
    """
    interrupted: bool = False
    elapsed_seconds: Amount | None = None

    @property
    def complete(self) -> bool:
        """Whether it ended without an interruption."""
        return bool(self.finished) and not self.interrupted
