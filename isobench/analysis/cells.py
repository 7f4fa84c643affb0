"""One run's numbers: visits in frames, and what follows from them cell by cell."""

import functools
import math
import operator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis import verdict
from isobench.analysis.warmup import WarmupProfile, warmup_profile_of
from isobench.evidence import clock, doubts
from isobench.model import (
    Cause,
    Clock,
    Doubt,
    Estimate,
    Fact,
    Schedule,
    Status,
    Verdict,
)
from isobench.model.plan import FEWEST_SESSIONS, actual, is_partner, partner, second
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.reader import Run
from isobench.workloads import classes

SECONDS: Final = 1e9
MINIMUM_BLOCKS: Final = 10
COMPLETE_SHARE: Final = 0.8
"""A cell needs this share of the run's blocks: what is missing may be missing for a reason."""
LEVEL: Final = stats.REPORTED_LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All that is known about one target and one workload."""

    target: TargetName
    workload: WorkloadName
    verdict: Verdict
    value: float
    reference: float
    """Medians over visits, seconds per operation."""
    bounds: tuple[float | None, float | None]
    """95 % bounds of the median `value`, each one-sided, seconds; None from too few visits."""
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


class Analysis:
    """One run's numbers, in frames: visits by block.

    Records stay as they were measured: what is brought to the host's clock is so here alone.
    """

    def __init__(self, run: Run) -> None:
        """Take a run; compute nothing yet."""
        self.run = run
        self.margin = 1 + run.metadata.margin
        self.quick = run.metadata.quick
        self.reference = run.plan.reference
        self.duet = run.plan.schedule is Schedule.DUET
        self.workloads = [item.name for item in run.metadata.workloads]
        self.classes = {item.name: item.group for item in run.metadata.workloads}
        self._paired: dict[tuple[str, str, str], pd.DataFrame] = {}
        self._warmup_profiles: dict[tuple[str, str], WarmupProfile | None] = {}

    @functools.cached_property
    def _valid(self) -> pd.DataFrame:
        frame = self.run.samples
        return frame[(frame["block"] > 0) & ~frame["block"].isin(self.run.invalid_blocks)]

    @functools.cached_property
    def times(self) -> pd.DataFrame:
        """Seconds per operation of every iteration; columns block, target, workload, seconds, at,
        clock, inside (timed by the clock inside, whichever it is given by).

        Where that clock is not to be trusted, the visits are brought to the host's by the span
        that both saw, and those too short for that are left out.
        """
        frame = self._valid[self._valid["metric"] == "time"]
        frame = frame.assign(
            seconds=frame["value"] / frame["operations"] / SECONDS,
            inside=frame["clock"] == Clock.GUEST,
        )
        for (workload, target), spans in self._untrusted.items():
            mine = (frame["workload"] == workload) & (frame["target"] == target) & frame["inside"]
            factor = frame.loc[mine, "block"].map(spans["host"] / spans["guest"])
            frame.loc[mine, "seconds"] *= factor
            frame.loc[mine, "clock"] = str(Clock.HOST)
        return frame.dropna(subset="seconds")

    @functools.cached_property
    def _cells(self) -> dict[tuple[str, str], pd.DataFrame]:
        """What was recorded of each cell: looked for once, however many cells there are."""
        return _by_cell(self._valid)

    def _recorded(self, workload: WorkloadName, target: TargetName) -> pd.DataFrame:
        """Return what was recorded of one cell."""
        return self._cells.get((workload, target), self._valid.iloc[:0])

    def phases(self, workload: WorkloadName, target: TargetName) -> dict[str, float]:
        """Return when each phase of a start passed: medians in seconds from its beginning, in
        order; the nonce is one of them. Nothing where no phase was seen.
        """
        mine = self._recorded(workload, target)
        passed = mine["metric"].str.startswith("phase.") | mine["metric"].isin(["time", "gone"])
        medians = mine[passed].groupby("metric")["value"].median() / SECONDS
        named = {
            "nonce" if metric == "time" else str(metric).removeprefix("phase."): float(value)
            for metric, value in medians.items()
        }
        ordered = dict(sorted(named.items(), key=operator.itemgetter(1)))
        return ordered if len(ordered) > 1 else {}

    def channel(self, workload: WorkloadName, target: TargetName) -> float | None:
        """Return what going to a session and back costs without executing anything, in seconds."""
        mine = self._recorded(workload, target)
        mine = mine[mine["metric"] == "channel"]
        return None if mine.empty else float(mine["value"].median()) / SECONDS

    def null_spawn(self, workload: WorkloadName) -> tuple[float, float, int] | None:
        """Return what the smallest program takes to start natively, and what the payload does, in
        seconds (medians over blocks), and how often it was started; None where it was not.
        """
        spawns, times = (self._metric(workload, self.reference, m) for m in ("spawn", "time"))
        if spawns.empty or times.empty:
            return None
        count = int((self._recorded(workload, self.reference)["metric"] == "spawn").sum())
        return float(spawns.median()) / SECONDS, float(times.median()) / SECONDS, count

    def profile(self, workload: WorkloadName, target: TargetName) -> WarmupProfile | None:
        """Return how the visits of a cell go, pass by pass; None for starts."""
        key = (workload, target)
        if key not in self._warmup_profiles:
            self._warmup_profiles[key] = warmup_profile_of(self._recorded(workload, target))
        return self._warmup_profiles[key]

    @functools.cached_property
    def _timed(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of `times`, by cell."""
        return _by_cell(self.times)

    @functools.cached_property
    def _spans(self) -> dict[tuple[str, str], pd.DataFrame]:
        """What both clocks say of the same spans of a cell, ns: rows are blocks, columns guest,
        host, dispatch.
        """
        names = {"span.guest": "guest", "span.host": "host", "dispatch": "dispatch"}
        frame = self._valid[self._valid["metric"].isin(list(names))]
        spans = (
            frame.assign(metric=frame["metric"].map(names))
            .pivot_table(
                index=["workload", "target", "block"],
                columns="metric",
                values="value",
                aggfunc="first",
            )
            .reindex(columns=[*names.values()])
            .dropna()
        )
        return {
            (str(cell[0]), str(cell[1])): mine.droplevel(["workload", "target"])
            for cell, mine in spans.groupby(level=["workload", "target"])
        }

    @functools.cached_property
    def _clocks(self) -> dict[tuple[str, str], clock.ClockCheck]:
        """What the visits of each cell show of the clock inside, where they are long enough; the
        reference's clock is the host's.
        """
        found = {
            cell: clock.check(
                [int(v) for v in spans["guest"]],
                [int(v) for v in spans["host"]],
                _dispatch(spans),
            )
            for cell, spans in self._spans.items()
            if actual(TargetName(cell[1])) != self.reference
        }
        return {cell: one for cell, one in found.items() if one is not None}

    @functools.cached_property
    def _untrusted(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The spans that bring a cell's times to the host's clock, where the one inside is off."""
        found = {}
        for cell, one in self._clocks.items():
            if not one.trusted and one.runs and one.long:
                spans = self._spans[cell]
                told = [clock.long_enough(int(h), _dispatch(spans)) for h in spans["host"]]
                found[cell] = spans[told]
        return found

    @functools.cached_property
    def visits(self) -> pd.DataFrame:
        """The median of each visit: rows are blocks, columns (workload, target)."""
        grouped = self.times.groupby(["block", "workload", "target"])["seconds"].median()
        return grouped.unstack(["workload", "target"])  # noqa: PD010 - a pivot on an index of three levels

    @functools.cached_property
    def blocks(self) -> int:
        """How many blocks count."""
        return int(self.times["block"].nunique())

    def column(self, workload: WorkloadName, target: TargetName) -> pd.Series | None:
        """Return one cell's visits by block, or None where there are none."""
        if (workload, target) not in self.visits.columns:
            return None
        return self.visits[(workload, target)]

    def beside(self, target: TargetName) -> TargetName:
        """Return the label of native that a target is held against: in a duet its own partner."""
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
        pairs = self._pairs(workload, target, reference)
        return stats.block_log_ratios(
            pairs[["subject"]].to_numpy(float), pairs[["reference"]].to_numpy(float)
        )

    def by_block(self, workload: WorkloadName, target: TargetName) -> pd.Series:
        """Return the log-ratios of a cell to native, by the numbers of their blocks."""
        pairs = self._pairs(workload, target)
        return pd.Series(self.log_ratios(workload, target), index=pairs.index)

    @functools.cached_property
    def _sessions(self) -> pd.Series:
        """The session of each visit, by (workload, target, block)."""
        return self.times.groupby(["workload", "target", "block"])["session"].max()

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
        )

    def uncertainty(self, workload: WorkloadName, target: TargetName) -> float:
        """Return by which share all times of a cell may be off: those brought to another clock."""
        cell = (workload, target)
        return self._clocks[cell].error if cell in self._untrusted else 0.0

    def estimate(
        self,
        workload: WorkloadName,
        target: TargetName,
        *,
        reference: TargetName | None = None,
        uncertainty: float = 0.0,
        margin: float | None = None,
        confidence: float = 0.95,
    ) -> Estimate | None:
        """Return the estimate of a cell; `confidence` is of either side of its bounds."""
        return stats.estimate(
            self.log_ratios(workload, target, reference),
            sessions=self.sessions(workload, target, reference),
            uncertainty=uncertainty,
            level=LEVEL,
            margin=margin or self.margin,
            sided=2 * confidence - 1,
        )

    def contrast(
        self,
        workload: WorkloadName,
        target: TargetName,
        *,
        reference: TargetName | None = None,
        margin: float | None = None,
        confidence: float = 0.95,
    ) -> tuple[Verdict, int | None] | None:
        """Return the verdict on a cell and about how many blocks would decide it, or None where
        either side has nothing.

        `reference` is native where nothing is said, else another target of this run: its doubts
        count as well as the cell's own. `margin` is a ratio above 1.
        """
        other, margin = reference or self.reference, margin or self.margin
        sides = [self.column(workload, name) for name in (target, other)]
        if any(column is None or column.dropna().empty for column in sides):
            return None
        both = (target,) if other == self.reference else (target, other)
        shared = math.prod(1 + self.uncertainty(workload, name) for name in both) - 1
        estimate = self.estimate(
            workload, target, reference=other, uncertainty=shared,
            margin=margin, confidence=confidence,
        )  # fmt: skip
        needed = None if estimate is None else stats.blocks_needed(estimate, margin=margin)
        if needed is not None and self.duet:
            needed *= 2  # of which two make one ratio
        found = [doubt for name in both for doubt in self.doubts(workload, name)]
        judged = verdict.judge(
            target=target,
            workload=workload,
            estimate=estimate,
            noise=self.noise.get(workload),
            margin=margin,
            doubts=tuple(dict.fromkeys(found)),
            quick=self.quick,
            minimum_blocks=MINIMUM_BLOCKS,
            blocks_needed=needed,
        )
        return judged, needed

    def share(
        self, workload: WorkloadName, base: TargetName, variation: TargetName
    ) -> stats.Share | None:
        """Return which share of the overhead of `base` is gone in `variation`, or None where there
        is none that could be told from nothing.
        """
        columns = [self._level(workload, name) for name in (base, variation, self.reference)]
        if any(column is None for column in columns):
            return None
        frame = pd.concat(columns, axis=1, keys=["base", "variation", "native"]).dropna()
        frame = frame[(frame > 0).all(axis=1)]
        blocks = frame.index.to_numpy(np.int64)
        subject, changed, native = np.log(frame.to_numpy(float)).T
        return stats.share(
            subject - native,
            subject - changed,
            sessions=self.labels(workload, base, variation, blocks),
        )

    def values(self, workload: WorkloadName, target: TargetName) -> NDArray[np.float64]:
        """Return the median of each visit of a cell, seconds per operation, shape (visits,)."""
        column = self.column(workload, target)
        return np.zeros(0) if column is None else column.dropna().to_numpy(float)

    @functools.cached_property
    def noise(self) -> dict[WorkloadName, float | None]:
        """The noise floor of each workload, from native against native."""
        control = second(self.reference)
        return {name: verdict.noise_floor(self.estimate(name, control)) for name in self.workloads}

    def precise(self, half_width: float) -> bool:
        """Say whether every cell's interval is narrower than this on either side (0.025: 2.5 %).

        Not before there are sessions enough to tell what they differ by.
        """
        cells = [(w, t) for w in self.workloads for t in self.targets if t != self.reference]
        if any(self._session_doubts(*cell) for cell in cells):
            return False
        estimates = (self.estimate(*cell) for cell in cells)
        return stats.narrow((one for one in estimates if one is not None), half_width)

    @functools.cached_property
    def targets(self) -> list[TargetName]:
        """Labels that have any value, in the order of the run."""
        have = {
            label
            for label in self.times["target"].unique()
            if not is_partner(self.reference, label)
        }
        labels = [item.name for item in self.run.metadata.targets]
        ordered = [label for label in [*labels, second(self.reference)] if label in have]
        return ordered + sorted(have - set(ordered))

    # ---- doubts ----------------------------------------------------------------------------------

    def _facts(self, workload: WorkloadName, target: TargetName) -> dict[str, Fact]:
        """Return what payloads saw in this cell: the worst number, the first text."""
        state = self.run.state(actual(target))
        facts: dict[str, Fact] = dict(state.workloads.get(workload, {}))
        mine = self._recorded(workload, target)
        mine = mine[mine["metric"].str.startswith("fact.")]
        for metric, value in mine.groupby("metric")["value"].max().items():
            facts[str(metric).removeprefix("fact.")] = int(value)
        return facts

    def _clock_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        mine = self._recorded(workload, target)
        mine = mine[mine["metric"] == "time"]
        if not (mine["clock"] == Clock.GUEST).any():
            return ()
        elsewhere = {name: one for (name, whose), one in self._clocks.items() if whose == target}
        found = doubts.of_clock(self._clocks.get((workload, target)), elsewhere)
        short = (workload, target) in self._spans and not elsewhere
        if not found and short and self._own_kernel(target):
            return (doubts.of_unchecked_clock(),)
        return found

    def _own_kernel(self, target: TargetName) -> bool:
        """Say whether a target was seen to run a kernel of its own."""
        ids = {
            fact.value
            for name in (actual(target), self.reference)
            for fact in self.run.state(name).facts
            if fact.key == "kernel.boot_id"
        }
        return len(ids) > 1

    def _session_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        sessions = self.sessions(workload, target)
        if not sessions.size:
            return ()
        return doubts.of_sessions(np.unique(sessions).size, sessions.size, fewest=FEWEST_SESSIONS)

    def _overlap(self, workload: WorkloadName, target: TargetName) -> float:
        """Return during which share of their time a target and its partner both ran: the median
        over blocks, of the one that ran longer.
        """
        longest = [
            self._metric(workload, name, "span.host") for name in (target, self.beside(target))
        ]
        shares = self._metric(workload, target, "overlap") / pd.concat(longest, axis=1).max(axis=1)
        return 0.0 if shares.dropna().empty else float(shares.median())

    def _metric(self, workload: WorkloadName, target: TargetName, metric: str) -> pd.Series:
        """Return one metric of a cell by block."""
        mine = self._recorded(workload, target)
        return mine[mine["metric"] == metric].groupby("block")["value"].median()

    def _seen(self, target: TargetName, key: str) -> Fact:
        """Return what the evidence payload, or the host, saw of one fact in a target."""
        return self.run.state(actual(target)).fact(key)

    def doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        """Return the doubts about a cell that come from facts, not from its estimate."""
        found: list[Doubt] = []
        facts, native = self._facts(workload, target), self._facts(workload, self.reference)
        if "io.filesystem" in facts:
            found += doubts.of_io(workload, facts, native)
            found += doubts.of_disk(facts, self._seen(target, "host.disk_cache"))
        found += doubts.of_threads(facts, native)
        found += doubts.of_calls(facts, native)
        if self.run.metadata.affinity or self.duet:
            both = [self._seen(name, "cpu.usable") for name in (target, self.reference)]
            found += doubts.of_affinity(*both)
        found += self._clock_doubts(workload, target)
        found += self._session_doubts(workload, target)
        if profile := self.profile(workload, target):
            found += doubts.of_warmup(profile.late, profile.timed, profile.warmups)
        if self.duet:
            found += doubts.of_overlap(self._overlap(workload, target))
        column = self.column(workload, target)
        have = 0 if column is None else int(column.notna().sum())
        if have < COMPLETE_SHARE * self.blocks:
            found.append(
                Doubt(
                    code="incomplete",
                    detail=f"only {have} of {self.blocks} blocks have a value",
                    advice="see the gaps of this cell",
                    blocks=True,
                )
            )
        wrong = [g for g in self.run.gaps if (g.workload, g.target) == (workload, target)]
        if any(gap.cause in (Cause.WRONG_ANSWER, Cause.UNPROVEN) for gap in wrong):
            found.append(
                Doubt(
                    code="broken-trials",
                    detail=f"{len(wrong)} trials gave a wrong answer or met no expectation",
                    advice="no number of this cell is to be trusted until that is explained",
                    blocks=True,
                )
            )
        return tuple(found)

    # ---- cells -----------------------------------------------------------------------------------

    def cell(self, workload: WorkloadName, target: TargetName) -> Cell | None:
        """Return one cell, or None where nothing was measured."""
        contrast = self.contrast(workload, target)
        if contrast is None:
            return None
        judged, needed = contrast
        ratios, uncertainty = self.log_ratios(workload, target), self.uncertainty(workload, target)
        mine = self._timed[workload, target]
        values = self.values(workload, target)
        open_question = judged.status in (Status.INCONCLUSIVE, Status.UNPROVEN)
        return Cell(
            target=target,
            workload=workload,
            verdict=judged,
            value=float(np.median(values)),
            reference=float(np.median(self.values(workload, self.beside(target)))),
            bounds=quantile_bounds(values, uncertainty),
            tails=stats.tails(mine["seconds"].to_numpy(float), ratios),
            log_ratios=ratios,
            sessions=int(np.unique(self.sessions(workload, target)).size),
            visits=int(values.size),
            clock=str(mine["clock"].iloc[0]),
            inside=bool(mine["inside"].iloc[0]),
            needed=needed if open_question else None,
        )

    @functools.cached_property
    def cells(self) -> list[Cell]:
        """All cells, by workload, the reference itself left out."""
        pairs = [(w, t) for w in self.workloads for t in self.targets if t != self.reference]
        return [cell for pair in pairs if (cell := self.cell(*pair)) is not None]

    def run_doubts(self) -> list[Doubt]:
        """Return doubts about the run as a whole."""
        host = self.run.metadata.host
        found = [
            *doubts.of_lost_blocks(self.run.lost_blocks, len(self.run.health)),
            *doubts.of_blocks(self.run.health, len(self.run.invalid_blocks)),
            *doubts.of_load(host.get("load"), host.get("cpus")),
        ]
        native = self.times[self.times["target"] == self.reference]
        for workload in self.workloads:
            mine = (
                native[native["workload"] == workload].groupby("block")[["seconds", "at"]].median()
            )
            if not classes.get(self.classes[workload]).steady or mine.empty:
                continue
            change = stats.drift(mine["seconds"].to_numpy(float), mine["at"].to_numpy(float))
            if change is not None and change.notable:
                found.append(doubts.of_drift(change.change, change.low, change.high))
                break
        return found


def _by_cell(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the rows of each cell, found in one pass however many cells there are."""
    groups = frame.groupby(["workload", "target"], sort=False)
    return {(str(cell[0]), str(cell[1])): mine for cell, mine in groups}


def _dispatch(spans: pd.DataFrame) -> int:
    """Return what carrying a line to the host may take in a cell, ns."""
    return int(spans["dispatch"].median())


def quantile_bounds(
    values: NDArray[np.float64],
    uncertainty: float,
    *,
    quantile: float = 0.5,
    confidence: float = 0.95,
) -> tuple[float | None, float | None]:
    """Return the one-sided bounds of a quantile, by order statistics; None from too few values."""
    high = stats.quantile_upper(values, quantile=quantile, confidence=confidence)
    low = stats.quantile_lower(values, quantile=quantile, confidence=confidence)
    return (
        None if low is None else low / (1 + uncertainty),
        None if high is None else high * (1 + uncertainty),
    )
