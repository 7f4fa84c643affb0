"""What follows from one run's numbers cell by cell, one metric at a time."""

import functools
import math
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis import rounds, verdict
from isobench.analysis.frames import Frames, by_cell
from isobench.evidence import cpu_share, doubts
from isobench.evidence.host_time import HostCheck
from isobench.model import (
    TIME,
    Better,
    Cause,
    Clock,
    Doubt,
    Estimate,
    Interval,
    Leaving,
    Metric,
    Schedule,
    Scope,
    Status,
    Verdict,
)
from isobench.model.errors import UsageError
from isobench.model.plan import FEWEST_SESSIONS, actual, is_partner, partner, second
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.reader import Run
from isobench.workloads import classes

COMPLETE_SHARE: Final = 0.8
"""A cell needs this share of the run's blocks: what is missing may be missing for a reason."""
LEVEL: Final = stats.REPORTED_LEVEL
"""The level of all intervals but those of cells that left before the end."""
_MOST_NAMED: Final = 3
_SOME_SHARE: Final = 0.5
"""A share of the budget before its end: all interim analyses have one level."""
_OPEN: Final = (Status.INCONCLUSIVE, Status.UNPROVEN)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All that is known about one metric of one target at one workload."""

    target: TargetName
    workload: WorkloadName
    metric: Metric
    verdict: Verdict
    value: float
    reference: float | None
    """Medians over visits in the unit of `summary.json`: times in seconds per operation. That of
    the reference is over the blocks that both have; None: it has no value, as beside a target of a
    duet whose partner failed in each block.
    """
    bounds: tuple[float | None, float | None]
    """95 % bounds of the median `value`, each one-sided; None from too few visits."""
    tails: stats.Tails
    log_ratios: NDArray[np.float64]
    sessions: int
    """How many sessions served the blocks of `log_ratios`."""
    visits: int
    clock: str
    """Whose clock `value` is by."""
    inside: bool
    """It was measured inside, by a payload that gives a checksum."""
    needed: int | None

    @property
    def is_exact(self) -> bool:
        """Whether every block gave the same ratio of counted values: it has no error to test."""
        estimate = self.verdict.estimate
        no_error = estimate is not None and estimate.standard_error == 0
        return no_error and not self.metric.is_clocked


class Analysis:
    """One metric of one run, time if no other is named: visits by block, ratios, verdicts.

    Ratios are target over native, or native over target where higher values are better: above 1 is
    worse in any case.
    """

    def __init__(self, run: Run, metric: str = TIME.name, *, frames: Frames | None = None) -> None:
        """Take a run; compute nothing yet. `frames` are those of the same run, if there are any."""
        self.run = run
        self.metric = metric
        self.frames = frames or Frames(run)
        self.margin = 1 + run.metadata.margin
        self.quick = run.metadata.quick
        self.reference = run.plan.reference
        self.duet = run.plan.schedule is Schedule.DUET
        self.rule = sequential_rule(run)
        self._measured = {
            workload: own[metric] for workload, own in self.frames.metrics.items() if metric in own
        }
        self.workloads = list(self._measured)
        """Those that have this metric."""
        self.classes = {item.name: item.group for item in run.metadata.workloads}
        self._paired: dict[tuple[str, str, str], pd.DataFrame] = {}
        self._definites: dict[tuple[str, str, float], Estimate | None] = {}
        self._ratios: dict[tuple[str, str, str], NDArray[np.float64]] = {}
        self._others: dict[str, Analysis] = {metric: self}

    @property
    def metrics(self) -> list[str]:
        """The names of all metrics of the run, time first."""
        return list(dict.fromkeys(name for own in self.frames.metrics.values() for name in own))

    def of(self, metric: str) -> "Analysis":
        """Return the numbers of another metric of this run."""
        if metric not in self._others:
            made = Analysis(self.run, metric, frames=self.frames)
            made._others = self._others
            self._others[metric] = made
        return self._others[metric]

    def measured(self, workload: WorkloadName) -> Metric:
        """Return what this metric is in a workload: its unit, and which values are better."""
        return self._measured[workload]

    @functools.cached_property
    def amounts(self) -> pd.DataFrame:
        """The values of this metric, an iteration or a visit each; see `Frames.times`."""
        return self.frames.amounts(self.metric)

    @functools.cached_property
    def _amounts(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of `amounts`, by cell."""
        return self.frames.times_by_cell if self.metric == TIME.name else by_cell(self.amounts)

    @functools.cached_property
    def visits(self) -> pd.DataFrame:
        """The median of each visit, or its level (`rounds.levels`): rows are blocks, columns
        (workload, target).
        """
        grouped = self.amounts.groupby(["block", "workload", "target"])["amount"].median()
        found = grouped.unstack(["workload", "target"])  # noqa: PD010 - a pivot on an index of three levels
        if self.metric != TIME.name or self.run.plan.schedule is not Schedule.ROUNDS:
            return found
        for item in self.run.metadata.workloads:
            mine = self.amounts[self.amounts["workload"] == item.name]
            if item.scope == Scope.LOOP and not mine.empty:
                levels = rounds.levels(
                    mine, self.reference, self._estimator(item.name), whole=self._long(item.name)
                )
                for target in levels.columns:
                    found[item.name, target] = levels[target]
        return found

    def round_error(self, workload: WorkloadName, target: TargetName) -> float | None:
        """Return the standard error of a block that comes from its rounds; None: it has none."""
        is_time = self.metric == TIME.name
        if not is_time or self.run.plan.schedule is not Schedule.ROUNDS:
            return None
        mine = self.amounts[self.amounts["workload"] == workload]
        return rounds.error(mine, self.reference, target, self._estimator(workload))

    def _estimator(self, workload: WorkloadName) -> rounds.Estimator:
        """Return how the rounds of a block become one value."""
        is_interruptible = classes.get(self.classes[workload]).interruptible
        return rounds.by_fastest if is_interruptible else rounds.by_round

    def _long(self, workload: WorkloadName) -> Collection[TargetName]:
        """Return the targets whose turns are longer than native's, since they have a CPU quota: it
        stops some of their turns, which count.
        """
        planned = (work for work in self.run.plan.work if work.workload == workload)
        return [
            name for work in planned for name, own in work.turns.items() if own.loops > work.loops
        ]

    @property
    def blocks(self) -> int:
        """How many blocks count, whether this metric has a value in them or not."""
        return self.frames.blocks

    def column(self, workload: WorkloadName, target: TargetName) -> pd.Series | None:
        """Return one cell's visits by block, or None where there are none."""
        if (workload, target) not in self.visits.columns:
            return None
        return self.visits[(workload, target)]

    def beside(self, target: TargetName) -> TargetName:
        """Return the label of native that a target is compared with: in a duet its own partner."""
        return partner(self.reference, target) if self.duet else self.reference

    def _level(self, workload: WorkloadName, target: TargetName) -> pd.Series | None:
        """Return what the block ratios of a target are made of: its visits by block; in a duet,
        where each target has shared its time with native alone, over its partner's.

        Half of a duet's blocks have the CPUs one way round, half the other: one of each makes one
        ratio, in which whatever the two halves of the CPUs differ by cancels out.
        """
        own = self.column(workload, target)
        if own is None or not self.duet:
            return own
        other = self.column(workload, self.beside(target))
        if other is None:
            return None
        both = pd.DataFrame({"own": own, "other": other}).dropna()
        both = both[(both > 0).all(axis=1)]
        ratios = pd.Series(np.log(both["own"] / both["other"]))
        one, other_way = (ratios[ratios.index % 2 == way] for way in (1, 0))
        size = min(one.size, other_way.size)
        means = (one[:size].to_numpy() + other_way[:size].to_numpy()) / 2
        return pd.Series(np.exp(means), index=one.index[:size])

    def _pairs(
        self, workload: WorkloadName, target: TargetName, reference: TargetName | None = None
    ) -> pd.DataFrame:
        """Return visits of a cell and of its reference, by block: only where both have a value."""
        key = (workload, target, reference or self.reference)
        if key not in self._paired:
            self._paired[key] = self._pair(*key)
        return self._paired[key]

    def _pair(
        self, workload: WorkloadName, target: TargetName, reference: TargetName
    ) -> pd.DataFrame:
        subject, other = self._level(workload, target), self._level(workload, reference)
        if subject is None or other is None:
            return pd.DataFrame({"subject": [], "reference": []}, dtype=float)
        pairs = pd.DataFrame({"subject": subject, "reference": other}).dropna()
        return pairs[(pairs > 0).all(axis=1)]

    def log_ratios(
        self, workload: WorkloadName, target: TargetName, reference: TargetName | None = None
    ) -> NDArray[np.float64]:
        """Return the block log-ratios of a cell to native, or to another target: only blocks in
        which both sides have a value.
        """
        key = (workload, target, reference or self.reference)
        if key not in self._ratios:
            pairs = self._pairs(*key)
            sides = pairs[["subject"]].to_numpy(float), pairs[["reference"]].to_numpy(float)
            self._ratios[key] = self._worse_above_one(workload, stats.block_log_ratios(*sides))
        return self._ratios[key]

    def _worse_above_one(
        self, workload: WorkloadName, log_ratios: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Turn log-ratios of values round where the higher value is the better one."""
        metric = self._measured.get(workload, TIME)
        return -log_ratios if metric.better is Better.HIGHER else log_ratios

    def by_block(self, workload: WorkloadName, target: TargetName) -> pd.Series:
        """Return the log-ratios of a cell to native, by the numbers of their blocks."""
        pairs = self._pairs(workload, target)
        return pd.Series(self.log_ratios(workload, target), index=pairs.index)

    @functools.cached_property
    def _sessions(self) -> pd.Series:
        """The session of each visit, by (workload, target, block)."""
        return self.amounts.groupby(["workload", "target", "block"])["session"].max()

    def sessions(
        self, workload: WorkloadName, target: TargetName, reference: TargetName | None = None
    ) -> NDArray[np.int64]:
        """Return which session served each block of `log_ratios`; minus the block's number where it
        had one of its own.

        Native is fresh in every block, so that only the subject's matters. Of two targets with
        lasting sessions, blocks are of one session where both sides' are.
        """
        blocks = self._pairs(workload, target, reference).index.to_numpy(np.int64)
        return self.labels(workload, target, reference, blocks)

    def labels(
        self,
        workload: WorkloadName,
        target: TargetName,
        reference: TargetName | None,
        blocks: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return the same as `sessions`, for these blocks."""
        if not blocks.size:
            return blocks
        own = self._numbers(workload, target, blocks)
        if reference in (None, self.reference):
            return own
        both = np.stack([own, self._numbers(workload, reference or target, blocks)])
        # A side that is fresh in each block leaves it to the other to tell blocks apart.
        for side, other in ((0, 1), (1, 0)):
            if bool(np.all(both[side] < 0)):
                return np.asarray(both[other], dtype=np.int64)
        _, labels = np.unique(both, axis=1, return_inverse=True)
        return np.asarray(labels, dtype=np.int64).reshape(-1) + 1

    def _numbers(
        self, workload: WorkloadName, target: TargetName, blocks: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        numbers = self._sessions[(workload, target)].reindex(blocks).to_numpy(np.int64)
        return np.where(numbers > 0, numbers, -blocks)

    def location(self, workload: WorkloadName, target: TargetName) -> stats.Location | None:
        """Return what the estimate of a cell rests on, or None from too few blocks."""
        found = self.log_ratios(workload, target)
        if found.size < stats.FEWEST_BLOCKS:
            return None
        return stats.locate(
            found,
            sessions=self.sessions(workload, target),
            uncertainty=self.uncertainty(workload, target),
            correlated=self.rule is not None,
        )

    def between(
        self, workload: WorkloadName, base: TargetName, head: TargetName
    ) -> stats.Location | None:
        """Return ln(head / base) of two targets that this run has interleaved, by pairs of visits
        in one block; None from too few blocks.
        """
        found = self.log_ratios(workload, head, base)
        if found.size < stats.FEWEST_BLOCKS:
            return None
        off = [self.uncertainty(workload, target) for target in (base, head)]
        return stats.locate(
            found,
            sessions=self.sessions(workload, head, base),
            uncertainty=(1 + off[0]) * (1 + off[1]) - 1,
            correlated=self.rule is not None,
        )

    def uncertainty(self, workload: WorkloadName, target: TargetName) -> float:
        """Return by which share all times of a cell may be off: those brought to another clock."""
        cell = (workload, target)
        brought = self.metric == TIME.name and cell in self.frames.untrusted
        return self.frames.clocks[cell].error if brought else 0.0

    def estimate(
        self,
        workload: WorkloadName,
        target: TargetName,
        *,
        reference: TargetName | None = None,
        uncertainty: float = 0.0,
        margin: float | None = None,
        level: float | None = None,
    ) -> Estimate | None:
        """Return the estimate of a cell; `level` is that of its interval, by default `level()`."""
        return stats.estimate(
            self.log_ratios(workload, target, reference),
            sessions=self.sessions(workload, target, reference),
            uncertainty=uncertainty,
            level=level or self.level(workload, target, reference),
            margin=margin or self.margin,
            correlated=self.rule is not None,
        )

    def contrast(
        self,
        workload: WorkloadName,
        target: TargetName,
        *,
        reference: TargetName | None = None,
        margin: float | None = None,
        level: float | None = None,
    ) -> tuple[Verdict, int | None] | None:
        """Return the verdict on a cell and about how many blocks would decide it, or None where
        either side has nothing.

        `reference` is another target of this run, by default native; its doubts count as well as
        the cell's own. `margin` is a ratio above 1. `level` is that of the interval that decides,
        by default the one at which the cell left or the run ended.
        """
        other, margin = reference or self.reference, margin or self.margin
        sides = [self.column(workload, name) for name in (target, other)]
        if any(column is None or column.dropna().empty for column in sides):
            return None
        both = (target,) if other == self.reference else (target, other)
        shared = math.prod(1 + self.uncertainty(workload, name) for name in both) - 1
        estimate = self.estimate(
            workload, target, reference=other, uncertainty=shared,
            margin=margin, level=level,
        )  # fmt: skip
        needed = None if estimate is None else stats.blocks_needed(estimate, margin=margin)
        if needed is not None and self.duet:
            needed *= 2  # of which two make one ratio
        ratios = self.log_ratios(workload, target, other)
        judged = self._judged(
            workload, both, estimate,
            margin=margin, needed=needed, is_short=self.is_short(ratios.size), log_ratios=ratios,
        )  # fmt: skip
        return judged, needed

    def is_short(self, ratios: int) -> bool:
        """Return whether so many block ratios are all that the blocks of this run can give: then
        nothing lacks but blocks.
        """
        return ratios == (self.blocks // 2 if self.duet else self.blocks)

    def _judged(
        self,
        workload: WorkloadName,
        sides: Sequence[TargetName],
        estimate: Estimate | None,
        *,
        margin: float,
        needed: int | None = None,
        is_short: bool = False,
        log_ratios: NDArray[np.float64] | None = None,
    ) -> Verdict:
        """Return the verdict on the first of these targets, with the doubts about all of them."""
        found = [doubt for name in sides for doubt in self.doubts(workload, name)]
        subject, *others = sides
        return verdict.judge(
            target=subject,
            workload=workload,
            metric=self.measured(workload),
            estimate=estimate,
            noise=self.noise.get(workload),
            bias=self.biases.get(workload) if "#" not in subject else None,
            margin=margin,
            doubts=tuple(dict.fromkeys(found)),
            quick=self.quick,
            blocks_needed=needed,
            host=self.host_check(workload, subject, *others),
            is_short=is_short,
            log_ratios=log_ratios,
            than=others[0] if others else "native",
            is_other_hidden=any(self.is_hidden(workload, other) for other in others),
        )

    def share(
        self, workload: WorkloadName, base: TargetName, variation: TargetName
    ) -> stats.Share | None:
        """Return which share of the overhead of `base` is gone in `variation`, or None where there
        is none that can be distinguished from zero.
        """
        columns = [self._level(workload, name) for name in (base, variation, self.reference)]
        if any(column is None for column in columns):
            return None
        frame = pd.concat(columns, axis=1, keys=["base", "variation", "native"]).dropna()
        frame = frame[(frame > 0).all(axis=1)]
        blocks = frame.index.to_numpy(np.int64)
        subject, changed, native = np.log(frame.to_numpy(float)).T
        return stats.share(
            self._worse_above_one(workload, subject - native),
            self._worse_above_one(workload, subject - changed),
            sessions=self.labels(workload, base, variation, blocks),
        )

    def values(self, workload: WorkloadName, target: TargetName) -> NDArray[np.float64]:
        """Return the median of each visit of a cell, in the unit of `Cell.value`; (visits,)."""
        column = self.column(workload, target)
        return np.zeros(0) if column is None else column.dropna().to_numpy(float)

    def singles(self, workload: WorkloadName, target: TargetName) -> pd.DataFrame:
        """Return the single values of a cell, "amount" in the unit of `Cell.value`, by "block"."""
        return self._amounts[workload, target]

    @functools.cached_property
    def noise(self) -> dict[WorkloadName, float | None]:
        """The noise floor of each workload, from native against native."""
        control = second(self.reference)
        return {
            name: verdict.noise_floor(self.estimate(name, control), self.measured(name))
            for name in self.workloads
        }

    @functools.cached_property
    def biases(self) -> dict[WorkloadName, Interval]:
        """The intervals of the controls that differ from native, by workload."""
        control = second(self.reference)
        found = {name: self.location(name, control) for name in self.workloads}
        # A control of times that are all equal has a timer that is too coarse, and no bias.
        return stats.biases(
            {
                name: one
                for name, one in found.items()
                if one is not None and (one.deviation > 0 or not self.measured(name).is_clocked)
            }
        )

    def precise(self, half_width: float) -> bool:
        """Say whether the interval of every cell that has not left is narrower than this on either
        side (0.025: 2.5 %).

        Not before there are sessions enough to tell what they differ by.
        """
        cells = [
            (w, t)
            for w in self.workloads
            for t in self.targets
            if t != self.reference and (w, t) not in self.left
        ]
        if any(self._session_doubts(*cell) for cell in cells):
            return False
        estimates = (self.estimate(*cell) for cell in cells)
        return stats.narrow((one for one in estimates if one is not None), half_width)

    @functools.cached_property
    def targets(self) -> list[TargetName]:
        """Labels that have any value, in the order of the run."""
        have = {
            label
            for label in self.amounts["target"].unique()
            if not is_partner(self.reference, label)
        }
        labels = [item.name for item in self.run.metadata.targets]
        ordered = [label for label in [*labels, second(self.reference)] if label in have]
        return ordered + sorted(have - set(ordered))

    # ---- doubts ----------------------------------------------------------------------------------

    def _clock_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        if self.metric != TIME.name:
            return self._fact_clock_doubts(workload, target)
        mine = self.frames.recorded(workload, target)
        mine = mine[mine["metric"] == TIME.name]
        if not (mine["clock"] == Clock.GUEST).any():
            return ()
        elsewhere = self.frames.clocks_of.get(target, {})
        found = doubts.of_clock(elsewhere.get(workload), elsewhere)
        short = (workload, target) in self.frames.spans and not elsewhere
        if not found and short and self.frames.own_kernel(target):
            return (doubts.of_unchecked_clock(),)
        return found

    def _fact_clock_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        """Return the doubt about a number that a payload made with a clock that is off: only times
        that isobench takes itself can be brought to the host's.
        """
        clocks = self.frames.clocks_of.get(target, {}).values()
        off = [one for one in clocks if not one.trusted]
        by_clock = self.measured(workload).is_clocked
        return (doubts.of_fact_by_clock(self.metric, off[0]),) if off and by_clock else ()

    def host_check(
        self, workload: WorkloadName, target: TargetName, reference: TargetName | None = None
    ) -> HostCheck | None:
        """Return what the host's clock shows of a cell's times, compared with another target of the
        run, by default native. None for starts, for counted metrics and for the control, which is
        native itself.
        """
        if self.metric != TIME.name or actual(target) == self.reference:
            return None
        other = reference or self.reference
        beside = partner(self.reference, target)
        if other == self.reference and not self.frames.recorded(workload, beside).empty:
            other = beside
        by_fastest = self._estimator(workload) is rounds.by_fastest and not {
            *self._long(workload)
        } & {target, other}
        return self.frames.host_check(workload, target, other, by_fastest=by_fastest)

    def is_hidden(self, workload: WorkloadName, target: TargetName) -> bool:
        """Return whether the host sees too little of a cell's work to confirm how fast it is."""
        check = self.host_check(workload, target)
        return check is not None and check.is_hidden

    def _session_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        sessions = self.sessions(workload, target)
        if not sessions.size:
            return ()
        return doubts.of_sessions(np.unique(sessions).size, sessions.size, fewest=FEWEST_SESSIONS)

    def _share_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        if (
            not self.measured(workload).is_clocked
            or not classes.get(self.classes[workload]).interruptible
        ):
            return ()
        native, other = (
            cpu_share.Chain.parse(*(self.frames.seen(t, key) for key in cpu_share.FACTS))
            for t in (self.reference, target)
        )
        return doubts.of_cpu_share(native, other, self._contention)

    @functools.cached_property
    def _contention(self) -> cpu_share.Contention | None:
        """How programs competed for the CPUs in the blocks that count; None: they did not."""
        uncounted = self.run.uncounted
        counted = [one for one in self.run.health if one.block not in uncounted]
        return cpu_share.contention(counted, self.run.metadata.host.get("cpus"))

    def _overlap(self, workload: WorkloadName, target: TargetName) -> float:
        """Return during which share of their time a target and its partner both ran: the median
        over blocks, of the one that ran longer.
        """
        longest = [
            self.frames.by_block(workload, name, "span.host")
            for name in (target, self.beside(target))
        ]
        both = self.frames.by_block(workload, target, "overlap")
        shares = both / pd.concat(longest, axis=1).max(axis=1)
        return 0.0 if shares.dropna().empty else float(shares.median())

    def _missing(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        """Return the doubts about a cell that has no ratio in some blocks."""
        sides = {"own": target, "native": self.beside(target)}
        columns = {side: self.column(workload, name) for side, name in sides.items()}
        both = pd.DataFrame(columns).dropna().astype(float)
        zeros = (both == 0).sum(axis=1)
        return doubts.of_missing(
            int((both > 0).all(axis=1).sum()),
            int((zeros == 1).sum()),
            self._blocks_with(workload, target),
            complete=COMPLETE_SHARE,
        )

    def doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        """Return the doubts about a cell that come from facts, not from its estimate."""
        found: list[Doubt] = []
        facts, native = (self.frames.facts(workload, t) for t in (target, self.reference))
        if "io.filesystem" in {*facts, *native}:
            found += doubts.of_io(workload, facts, native)
            found += doubts.of_disk(facts, self.frames.seen(target, "host.disk_cache"))
        names = dict.fromkeys((actual(target), self.reference))
        found += doubts.of_evidence([self.run.evidence_fault(name) for name in names])
        found += doubts.of_threads(facts, native)
        found += doubts.of_calls(facts, native)
        if self.run.metadata.affinity or self.duet:
            both = [self.frames.seen(name, "cpu.usable") for name in (target, self.reference)]
            found += doubts.of_affinity(*both)
        found += self._share_doubts(workload, target)
        found += self._clock_doubts(workload, target)
        found += doubts.of_host_time(self.host_check(workload, target))
        found += self._session_doubts(workload, target)
        profile = self.frames.profile(workload, target) if self.metric == TIME.name else None
        if profile is not None:
            found += doubts.of_warmup(profile.late, profile.timed, profile.warmups)
        if self.duet:
            found += doubts.of_overlap(self._overlap(workload, target))
        found += self._missing(workload, target)
        sides = ((workload, target), (workload, self.beside(target)))
        wrong = [
            cause for side in dict.fromkeys(sides) for cause in self.frames.gap_causes.get(side, [])
        ]
        if any(cause in (Cause.WRONG_ANSWER, Cause.UNPROVEN) for cause in wrong):
            found.append(
                Doubt(
                    code="broken-trials",
                    detail=f"{len(wrong)} trials gave a wrong answer or met no expectation",
                    advice="no number of this cell is to be trusted until that is explained",
                    blocks=True,
                )
            )
        return tuple(found)

    # ---- leaving ---------------------------------------------------------------------------------

    @functools.cached_property
    def left(self) -> dict[tuple[WorkloadName, TargetName], Leaving]:
        """The cells that were decided and left before the end of the run."""
        # Of a cell that left twice, which no run does, the first analysis is the one that decided.
        return {(one.workload, one.target): one for one in reversed(self.run.leavings)}

    def level(
        self, workload: WorkloadName, target: TargetName, reference: TargetName | None = None
    ) -> float:
        """Return the level of the interval that decides a cell: that of the analysis at which it,
        or the target that it is compared with, left; otherwise that of the last analysis.
        """
        if self.rule is None:
            return LEVEL
        cells = [(workload, name) for name in (target, reference) if name is not None]
        shares = [self.left[cell].share for cell in cells if cell in self.left]
        if self.run.losses.may_hide_leavings:
            # Any cell may have left: the level of an interim analysis holds for it either way.
            shares.append(_SOME_SHARE)
        return max(map(self.rule.level, [*shares, 1.0]))

    def _blocks_with(self, workload: WorkloadName, target: TargetName) -> int:
        """Return in how many blocks that count a cell took part."""
        cells = [(workload, target)]
        if actual(target) == self.reference:  # native and its control leave with the last target
            cells = self._compared.get(workload, [])
        if not cells or not all(cell in self.left for cell in cells):
            return self.blocks
        last = max(self.left[cell].block for cell in cells)
        blocks = self.frames.times["block"]
        return int(blocks[blocks <= last].nunique())

    def leaving(self, share: float) -> list[tuple[WorkloadName, TargetName]]:
        """Return the cells that may leave after this share of the budget (above 0, below 1).

        Their verdicts at the level of this analysis are definite, and their intervals at the level
        of the end are at most `leave_width` of run.json wide on either side. Native and the control
        never leave. A target and its variations leave a workload together, when the effects of the
        options are decided as well. Nothing leaves a run without a rule. ValueError: the share is
        out of its range.
        """
        if not 0 < share < 1:
            message = f"cells leave after a share of the budget between 0 and 1, not {share}"
            raise ValueError(message)
        if self.rule is None or self.quick:
            return []
        level = self.rule.level(share)
        found = {
            cell
            for cell in self.comparisons
            if cell not in self.left and self._may_leave(*cell, level)
        }
        kept = {cell for cell in found if not self._may_leave_with_others(*cell, found, level)}
        return sorted(found - kept)

    def _may_leave(self, workload: WorkloadName, target: TargetName, level: float) -> bool:
        # The interval alone rules most cells out; doubts take far longer to collect.
        estimate = self._definite(workload, target, level)
        if estimate is None or not self._is_known(workload, target, estimate.interval):
            return False
        ratios = self.log_ratios(workload, target)
        judged = self._judged(workload, (target,), estimate, margin=self.margin, log_ratios=ratios)
        if judged.status in _OPEN:
            return False
        # Whether slow blocks are rare or a quarter is not seen from a few that are fast.
        is_plain = not verdict.unseen(judged.status, ratios, self.margin).size
        return judged.status is Status.SLOWER or (
            is_plain and ratios.size >= stats.sequential.FIRST_STOP
        )

    def _definite(
        self, workload: WorkloadName, target: TargetName, level: float
    ) -> Estimate | None:
        """Return the estimate of a cell; None: its interval at this level decides nothing."""
        key = (workload, target, level)
        if key not in self._definites:
            found = self.estimate(
                workload, target, level=level, uncertainty=self.uncertainty(workload, target)
            )
            decides = found is not None and verdict.is_definite(found.interval, self.margin)
            self._definites[key] = found if decides else None
        return self._definites[key]

    @functools.cached_property
    def comparisons(self) -> list[tuple[WorkloadName, TargetName]]:
        """All cells that are compared with native, its control left out."""
        return [
            (workload, target)
            for workload in self.workloads
            for target in self.targets
            if actual(target) != self.reference and self.column(workload, target) is not None
        ]

    @functools.cached_property
    def _compared(self) -> dict[WorkloadName, list[tuple[WorkloadName, TargetName]]]:
        """The same by workload."""
        found: dict[WorkloadName, list[tuple[WorkloadName, TargetName]]] = {}
        for cell in self.comparisons:
            found.setdefault(cell[0], []).append(cell)
        return found

    def undecided(self, share: float) -> list[tuple[WorkloadName, TargetName]]:
        """Return the cells that have not left, and whose intervals decide nothing after this share
        of the budget. Cells that something else keeps from a verdict are not among them.
        """
        if self.rule is None:
            return []
        level = self.rule.level(share)
        return [
            cell
            for cell in self.comparisons
            if cell not in self.left and self._definite(*cell, level) is None
        ]

    def _is_known(self, workload: WorkloadName, target: TargetName, decides: Interval) -> bool:
        """Return whether a decided cell is known as well as `leave_width` asks for."""
        widest = self.run.metadata.leave_width
        if widest is None:
            return True
        usual = self.estimate(
            workload, target, level=LEVEL, uncertainty=self.uncertainty(workload, target)
        )
        return usual is not None and verdict.is_known(decides, usual.interval, self.margin, widest)

    def _may_leave_with_others(
        self,
        workload: WorkloadName,
        target: TargetName,
        found: AbstractSet[tuple[WorkloadName, TargetName]],
        level: float,
    ) -> bool:
        """Return whether the variations that a cell belongs to may leave too."""
        for item in self.run.metadata.variations:
            if target in (item.name, item.base):
                both = {(workload, item.name), (workload, item.base)}
                effect = self.contrast(workload, item.base, reference=item.name, level=level)
                if not both <= found or effect is None or effect[0].status in _OPEN:
                    return False
        return True

    # ---- cells -----------------------------------------------------------------------------------

    def cell(self, workload: WorkloadName, target: TargetName) -> Cell | None:
        """Return one cell, or None where nothing was measured."""
        contrast = self.contrast(workload, target)
        if contrast is None:
            return None
        judged, needed = contrast
        ratios, uncertainty = self.log_ratios(workload, target), self.uncertainty(workload, target)
        mine = self.singles(workload, target)
        values = self.values(workload, target)
        open_question = judged.status in _OPEN
        return Cell(
            target=target,
            workload=workload,
            metric=self.measured(workload),
            verdict=judged,
            value=float(np.median(values)),
            reference=self._beside_in_blocks(workload, target),
            bounds=quantile_bounds(values, uncertainty),
            tails=stats.tails(mine["amount"].to_numpy(float), ratios),
            log_ratios=ratios,
            sessions=int(np.unique(self.sessions(workload, target)).size),
            visits=int(values.size),
            clock=str(mine["clock"].iloc[0]),
            inside=bool(mine["inside"].iloc[0]),
            needed=needed if open_question else None,
        )

    def _beside_in_blocks(self, workload: WorkloadName, target: TargetName) -> float | None:
        """Return native's median in the blocks of a cell: a target that left has fewer of them.
        None: it has no value, as in a duet whose partner has none.
        """
        column = self.column(workload, self.beside(target))
        column = None if column is None else column.dropna()
        if column is None or column.empty:
            return None
        # Native beside a target of a duet has the same blocks anyway. Without any ratio all count.
        shared = column[column.index.isin(self._pairs(workload, target).index)]
        return float(np.median(column if self.duet or shared.empty else shared))

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """All cells of this metric, by workload, the reference itself left out."""
        pairs = [(w, t) for w in self.workloads for t in self.targets if t != self.reference]
        return [cell for pair in pairs if (cell := self.cell(*pair)) is not None]

    @functools.cached_property
    def verdicts(self) -> dict[tuple[WorkloadName, TargetName], Verdict]:
        """The verdict on each of these cells."""
        return {(cell.workload, cell.target): cell.verdict for cell in self.cells}

    @property
    def all_cells(self) -> list[Cell]:
        """The cells of all metrics of the run, those of time first."""
        return [cell for metric in self.metrics for cell in self.of(metric).cells]

    def run_doubts(self) -> list[Doubt]:
        """Return doubts about the run as a whole."""
        host = self.run.metadata.host
        found = [
            *loss_doubts(self.run),
            *doubts.of_blocks(self.run.health, len(self.run.invalid_blocks)),
            *doubts.of_load(host.get("load"), host.get("cpus")),
        ]
        if self.biases:
            found.append(_bias_doubt(self.biases))
        times = self.frames.times
        native = times[times["target"] == self.reference]
        for workload in self.workloads:
            mine = (
                native[native["workload"] == workload].groupby("block")[["amount", "at"]].median()
            )
            if not classes.get(self.classes[workload]).steady or mine.empty:
                continue
            change = stats.drift(mine["amount"].to_numpy(float), mine["at"].to_numpy(float))
            if change is not None and change.notable:
                found.append(doubts.of_drift(change.change, change.low, change.high))
                break
        return found


def loss_doubts(run: Run) -> tuple[Doubt, ...]:
    """Return the doubts about a run of which records are missing or damaged."""
    losses = run.losses
    return (
        *doubts.of_lost_blocks(run.lost_blocks, len(run.health)),
        *doubts.of_losses(losses.lines, len(losses.blocks), losses.first),
    )


def _bias_doubt(biases: Mapping[WorkloadName, Interval]) -> Doubt:
    """Return the doubt about a run whose native differs from native."""
    named = [f"{name} {verdict.bias_text(bias)}" for name, bias in biases.items()]
    more = f", and {len(named) - _MOST_NAMED} more" if len(named) > _MOST_NAMED else ""
    return Doubt(
        code="control-bias",
        detail=f"native differs from native: {', '.join(named[:_MOST_NAMED])}{more}",
        advice="verdicts that a bias as large could reverse are withheld; look for what differs"
        " between equal visits: their order, the sessions or the layout of memory",
    )


def sequential_rule(run: Run) -> stats.sequential.Rule | None:
    """Return the rule by which cells leave a run; None: all take part until the end.

    UsageError: this version does not know the rule.
    """
    name = run.metadata.sequential
    if name is None:
        return None
    if name not in stats.sequential.RULES:
        raise UsageError(
            f'{run.path}: cells left it by the rule "{name}", which this version does not know',
            hint="use the version of isobench that measured it, or a newer one",
        )
    return stats.sequential.RULES[name]


def quantile_bounds(
    values: NDArray[np.float64],
    uncertainty: float,
    *,
    quantile: float = 0.5,
    confidence: float = 0.95,
    blocks: NDArray[np.int64] | None = None,
) -> tuple[float | None, float | None]:
    """Return the one-sided bounds of a quantile, by order statistics; None from too few values, or
    from too few `blocks` where these have several values.
    """
    high = stats.quantile_upper(values, quantile=quantile, confidence=confidence, blocks=blocks)
    low = stats.quantile_lower(values, quantile=quantile, confidence=confidence, blocks=blocks)
    return (
        None if low is None else low / (1 + uncertainty),
        None if high is None else high * (1 + uncertainty),
    )
