"""One run's samples in frames: amounts by visit, times by the host's clock, phases of starts.

Nothing here compares targets: `cells` does.
"""

import functools
import math
import operator
from collections.abc import Collection, Hashable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis.warmup import WarmupProfile, warmup_profile_of
from isobench.evidence import clock, host_time
from isobench.model import (
    BOUNDED_TURNS,
    FASTEST_TURNS,
    TIME,
    TRIMMED_TURN,
    TURNS,
    Cause,
    Clock,
    Fact,
    Interval,
    Metric,
)
from isobench.model.plan import actual, is_partner
from isobench.model.units import TargetName, Unit, WorkloadName
from isobench.storage.reader import Run

SECONDS: Final = 1e9


class Frames:
    """The samples of the blocks that count.

    Records stay as they were measured: what is brought to the host's clock is so here alone.
    """

    def __init__(self, run: Run) -> None:
        """Take a run; compute nothing yet."""
        self.run = run
        self.reference = run.plan.reference
        self.metrics: dict[WorkloadName, dict[str, Metric]] = {
            item.name: {TIME.name: TIME} | {metric.name: metric for metric in item.metrics}
            for item in run.metadata.workloads
        }
        """The metrics of each workload by name, in the order of the run; time is always there."""
        self._facts: dict[tuple[str, str], dict[str, Fact]] = {}
        self._warmup_profiles: dict[tuple[str, str], WarmupProfile | None] = {}
        self._turns: dict[tuple[str, str], dict[int, host_time.Turns]] = {}
        self._host_checks: dict[tuple[str, str, str], host_time.HostCheck | None] = {}

    @functools.cached_property
    def valid(self) -> pd.DataFrame:
        """All samples of the blocks that count; columns as in `records.COLUMNS`."""
        frame = self.run.samples
        return frame[(frame["block"] > 0) & ~frame["block"].isin(self.run.uncounted)]

    @functools.cached_property
    def _cells(self) -> dict[tuple[str, str], pd.DataFrame]:
        """What was recorded of each cell: looked for once, however many cells there are."""
        return by_cell(self.valid)

    def recorded(self, workload: WorkloadName, target: TargetName) -> pd.DataFrame:
        """Return what was recorded of one cell."""
        return self._cells.get((workload, target), self.valid.iloc[:0])

    def by_block(self, workload: WorkloadName, target: TargetName, name: str) -> pd.Series:
        """Return the samples of one name of a cell by block, as recorded."""
        mine = self.recorded(workload, target)
        return mine[mine["metric"] == name].groupby("block")["value"].median()

    @functools.cached_property
    def gap_causes(self) -> dict[tuple[str, str], list[Cause]]:
        """The causes of the gaps of each cell: looked for once, however many gaps there are."""
        found: dict[tuple[str, str], list[Cause]] = {}
        for gap in self.run.gaps:
            found.setdefault((gap.workload, gap.target), []).append(gap.cause)
        return found

    # ---- amounts ---------------------------------------------------------------------------------

    @functools.cached_property
    def times(self) -> pd.DataFrame:
        """Seconds per operation of every iteration; columns block, target, workload, amount, at,
        clock, inside (timed by the clock inside, whichever it is given by).

        Where that clock is not to be trusted, the visits are brought to the host's by the span
        that both saw, and those too short for that are left out.
        """
        frame = self.valid[self.valid["metric"] == TIME.name]
        frame = frame.assign(
            amount=frame["value"] / frame["operations"] / SECONDS,
            inside=frame["clock"] == Clock.GUEST,
        )
        for (workload, target), spans in self.untrusted.items():
            mine = (frame["workload"] == workload) & (frame["target"] == target) & frame["inside"]
            factor = frame.loc[mine, "block"].map(spans["host"] / spans["guest"])
            frame.loc[mine, "amount"] *= factor
            frame.loc[mine, "clock"] = str(Clock.HOST)
        return frame.dropna(subset="amount")

    def amounts(self, metric: str) -> pd.DataFrame:
        """Return the values of a metric in the unit of `summary.json`; columns as in `times`."""
        if metric == TIME.name:
            return self.times
        rows = [
            self._facts_as_amounts(workload, own[metric])
            for workload, own in self.metrics.items()
            if metric in own
        ]
        return pd.concat(rows) if rows else self.times.iloc[:0]

    def _facts_as_amounts(self, workload: WorkloadName, metric: Metric) -> pd.DataFrame:
        """Return what payloads printed of a metric. A number below zero is none of its values."""
        frame = self.valid
        mine = frame[
            (frame["workload"] == workload)
            & (frame["metric"] == metric.recorded_as)
            & (frame["value"] >= 0)
        ]
        scale = SECONDS if metric.unit is Unit.NANOSECOND else 1.0
        return mine.assign(amount=mine["value"] / scale, inside=mine["clock"] == Clock.GUEST)

    @functools.cached_property
    def blocks(self) -> int:
        """How many blocks count."""
        return int(self.times["block"].nunique())

    # ---- starts ----------------------------------------------------------------------------------

    def phases(self, workload: WorkloadName, target: TargetName) -> dict[str, float]:
        """Return when each phase of a start passed: medians in seconds from its beginning, in
        order; the nonce is one of them. Nothing where no phase was seen.
        """
        mine = self.recorded(workload, target)
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
        mine = self.recorded(workload, target)
        mine = mine[mine["metric"] == "channel"]
        return None if mine.empty else float(mine["value"].median()) / SECONDS

    def null_spawn(self, workload: WorkloadName) -> tuple[float, float, int] | None:
        """Return what the smallest program takes to start natively, and what the payload does, in
        seconds (medians over blocks), and how often it was started; None where it was not.
        """
        spawns, times = (self.by_block(workload, self.reference, m) for m in ("spawn", "time"))
        if spawns.empty or times.empty:
            return None
        count = int((self.recorded(workload, self.reference)["metric"] == "spawn").sum())
        return float(spawns.median()) / SECONDS, float(times.median()) / SECONDS, count

    def profile(self, workload: WorkloadName, target: TargetName) -> WarmupProfile | None:
        """Return how the visits of a cell go, pass by pass; None for starts."""
        key = (workload, target)
        if key not in self._warmup_profiles:
            self._warmup_profiles[key] = warmup_profile_of(self.recorded(workload, target))
        return self._warmup_profiles[key]

    # ---- clocks ----------------------------------------------------------------------------------

    @functools.cached_property
    def spans(self) -> dict[tuple[str, str], pd.DataFrame]:
        """What both clocks say of the same spans of a cell, ns: rows are blocks, columns guest,
        host, dispatch.
        """
        names = {"span.guest": "guest", "span.host": "host", "dispatch": "dispatch"}
        frame = self.valid[self.valid["metric"].isin(list(names))]
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
    def clocks(self) -> dict[tuple[str, str], clock.ClockCheck]:
        """What the visits of each cell show of the clock inside, where they are long enough; the
        reference's clock is the host's.
        """
        found = {
            cell: clock.check(
                [int(v) for v in spans["guest"]],
                [int(v) for v in spans["host"]],
                _dispatch(spans),
            )
            for cell, spans in self.spans.items()
            if actual(TargetName(cell[1])) != self.reference
        }
        return {cell: one for cell, one in found.items() if one is not None}

    @functools.cached_property
    def clocks_of(self) -> dict[str, dict[str, clock.ClockCheck]]:
        """The same by target and workload."""
        found: dict[str, dict[str, clock.ClockCheck]] = {}
        for (workload, target), one in self.clocks.items():
            found.setdefault(target, {})[workload] = one
        return found

    @functools.cached_property
    def untrusted(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The spans that bring a cell's times to the host's clock, where the one inside is off."""
        found = {}
        for cell, one in self.clocks.items():
            if not one.trusted and one.runs and one.long:
                spans = self.spans[cell]
                dispatch = _dispatch(spans)
                is_long = [clock.long_enough(int(h), dispatch) for h in spans["host"]]
                found[cell] = spans[is_long]
        return found

    def host_check(
        self, workload: WorkloadName, target: TargetName, reference: TargetName, *, by_fastest: bool
    ) -> host_time.HostCheck | None:
        """Return what the host's times of turns show of a cell, compared with the `reference`
        beside it: native, or another target. None where payloads did not take turns.

        `by_fastest`: the ratio of the cell is that of its fastest turns.
        """
        key = (workload, target, reference)
        if key not in self._host_checks:
            self._host_checks[key] = self._host_check_of(
                workload, target, reference, by_fastest=by_fastest
            )
        return self._host_checks[key]

    def _host_check_of(
        self, workload: WorkloadName, target: TargetName, reference: TargetName, *, by_fastest: bool
    ) -> host_time.HostCheck | None:
        own, others = (self.turns(workload, name) for name in (target, reference))
        blocks = sorted(own.keys() & others.keys())
        pairs = [(own[block], others[block]) for block in blocks]
        evened = (host_time.evened([turns[block] for block in blocks]) for turns in (own, others))
        compared = [*zip(*evened, strict=True)]
        parts = np.array([(one.share, other.share) for one, other in compared]).reshape(-1, 2)
        shares = parts[:, 0] / parts[:, 1]
        wholes = np.array([one.reported / one.seen for one, _ in pairs])
        works = np.array([one.work / other.work for one, other in compared])
        share, whole, ratio = (
            stats.estimate(np.log(found), level=host_time.LEVEL)
            for found in (shares, wholes, works)
        )
        if share is None or ratio is None or whole is None:
            return None
        is_known = host_time.is_known(pairs)
        if is_known:
            least, most = _host_bounds(compared, ratio.interval, by_fastest=by_fastest)
        else:
            least, most = _least_possible(compared, by_fastest=by_fastest), math.inf
        ways = [host_time.way(side) for side in zip(*pairs, strict=True)]
        counted = _of_turns(compared, _counted(by_fastest=by_fastest))
        return host_time.HostCheck(
            share=share.ratio,
            share_upper=share.interval.high,
            least=least,
            most=most,
            turns_most=counted.high if counted else math.inf,
            way=max(filter(math.isfinite, ways), default=math.inf),
            whole=whole.ratio,
            whole_lower=whole.interval.low,
            of_all=min(host_time.of_all(pairs), _of_counted(compared, by_fastest=by_fastest)),
            hiding=max(hiding_blocks(*parts.T), _hiding_counted(compared, by_fastest=by_fastest)),
            blocks=len(pairs),
            is_known=is_known,
        )

    def turns(self, workload: WorkloadName, target: TargetName) -> dict[int, host_time.Turns]:
        """Return the turns of a cell in each block; see `_turns_of`."""
        if (workload, target) not in self._turns:
            self._turns[workload, target] = self._turns_of(workload, target)
        return self._turns[workload, target]

    def _turns_of(self, workload: WorkloadName, target: TargetName) -> dict[int, host_time.Turns]:
        """Return the turns of a cell in each block: those of a payload on request, or visits.

        Times are by the host's clock where the one inside is not trusted.
        """
        mine = self.recorded(workload, target)
        times = self.times_by_cell.get((workload, target))
        if times is None:
            return {}
        by_turn = times["amount"] * times["operations"] * SECONDS
        reported = by_turn.groupby(times["block"]).sum()
        seen = mine[mine["metric"] == TURNS]
        seen = seen.groupby("block")[["value", "operations"]].sum()
        if not seen.empty:
            share = self._untimed_share.get(workload, 0.0)
            rest = self.by_block(workload, target, host_time.ONE_LOOP)
            untimed = share * reported
            if rest.empty:
                # Older runs had one such turn for all of native's, without an untimed pass.
                payload = self.reference if is_partner(self.reference, target) else target
                rest = self.by_block(workload, payload, host_time.SHORT_TURN)
                reported, untimed = reported + untimed, pd.Series(0.0, index=reported.index)
            fastest = mine[mine["metric"] == FASTEST_TURNS].set_index("block")
            return _turns_by_block(
                {
                    "reported": reported,
                    "seen": seen["value"],
                    "count": seen["operations"],
                    "rest": rest,
                    "untimed": untimed,
                    "fastest": fastest["value"] / fastest["operations"],
                    "bounded": self._bounded(workload, target),
                    "trimmed": self.by_block(workload, target, TRIMMED_TURN),
                    "median_rest": self.by_block(workload, target, host_time.MEDIAN_ONE_LOOP),
                    **_reported_of_counted(by_turn[by_turn > 0], times["block"]),
                }
            )
        # A visit ends with its last iteration, and begins with a warm-up pass.
        spans = mine[mine["metric"] == "span.host"].groupby("block")["value"]
        warmup = mine[mine["metric"] == "warmup"].groupby("block")["value"].sum()
        # A program whose lines all arrive at once has a span of 0.
        return _turns_by_block(
            {
                "reported": reported.add(warmup, fill_value=0.0),
                "seen": spans.sum().clip(lower=1.0),
                "count": times.groupby("block").size(),
                "rest": pd.Series(0.0, index=reported.index),
            }
        )

    def _bounded(self, workload: WorkloadName, target: TargetName) -> pd.Series:
        """Return what a payload reports of its turns, of each at most what the host saw, by block.
        Nothing where it was bounded by a clock that is not trusted.
        """
        found = self.by_block(workload, target, BOUNDED_TURNS)
        return found.iloc[:0] if (workload, target) in self.untrusted else found

    @functools.cached_property
    def _untimed_share(self) -> dict[WorkloadName, float]:
        return {item.workload: item.untimed_share for item in self.run.plan.work}

    @functools.cached_property
    def times_by_cell(self) -> dict[tuple[str, str], pd.DataFrame]:
        """The rows of `times`, by cell."""
        return by_cell(self.times)

    # ---- facts -----------------------------------------------------------------------------------

    def facts(self, workload: WorkloadName, target: TargetName) -> dict[str, Fact]:
        """Return what payloads saw in a cell: the worst number, the first text; None where one of
        them could not see it.
        """
        key = (workload, target)
        if key not in self._facts:
            self._facts[key] = self._facts_of(workload, target)
        return self._facts[key]

    def _facts_of(self, workload: WorkloadName, target: TargetName) -> dict[str, Fact]:
        state = self.run.state(actual(target))
        facts: dict[str, Fact] = dict(state.workloads.get(workload, {}))
        mine = self.recorded(workload, target)
        mine = mine[mine["metric"].str.startswith("fact.")]
        for metric, value in mine.groupby("metric")["value"].max().items():
            name = str(metric).removeprefix("fact.")
            if facts.get(name, 0) is not None:
                facts[name] = int(value)
        return facts

    def seen(self, target: TargetName, key: str) -> Fact:
        """Return what the evidence payload, or the host, saw of one fact in a target."""
        return self.run.state(actual(target)).fact(key)

    def own_kernel(self, target: TargetName) -> bool:
        """Say whether a target was seen to run a kernel of its own."""
        ids = {
            fact.value
            for name in (actual(target), self.reference)
            for fact in self.run.state(name).facts
            if fact.key == "kernel.boot_id"
        }
        return len(ids) > 1


def _host_bounds(
    pairs: Collection[tuple[host_time.Turns, host_time.Turns]],
    of_all: Interval,
    *,
    by_fastest: bool,
) -> tuple[float, float]:
    """Return the smallest and the largest ratio of the work that the host does not exclude.

    `of_all` is the interval of its ratio of all turns. Like is compared with like: where the cell's
    ratio is of its fastest turns, so is the host's; where it is of rounds without those that stand
    out, the host's is of turns without them. Interruptions bring the ratio of all closer to 1, and
    ways that vary add to it; a few turns that stand out make it as large as a target likes.
    """
    like = _of_turns(pairs, f"{_counted(by_fastest=by_fastest)}_work")
    if like is None:
        return of_all.ends
    # That the other turns take as long as the payload reports is known from the share, where each
    # turn is bounded. Otherwise their ratio counts as well.
    if any(turns.bounded is None for pair in pairs for turns in pair):
        return max(of_all.low, like.low), max(of_all.high, like.high)
    return like.ends


def _least_possible(
    pairs: Collection[tuple[host_time.Turns, host_time.Turns]], *, by_fastest: bool
) -> float:
    """Return the smallest ratio of the work that is possible where the way of requests and answers
    is long or unknown; 0 where the turns that count are not known.

    Of these a payload may hide as much behind the way as of all: long turns hide nothing of them.
    Nothing shows that it makes its untimed passes, or that its way is as long as native's, so of
    native's turns the work counts.
    """
    turns = _counted(by_fastest=by_fastest)
    whole = _of_turns(pairs, turns, f"{turns}_work")
    work = _of_turns(pairs, f"{turns}_work")
    parts = ((host_time.LEAST_SEEN, work), (host_time.LEAST_OF_ALL, whole))
    return max((part * like.low for part, like in parts if like is not None), default=0.0)


def _counted(*, by_fastest: bool) -> str:
    """Return the name of the turns that count."""
    return "fastest" if by_fastest else "trimmed"


def _of_turns(
    pairs: Collection[tuple[host_time.Turns, host_time.Turns]], name: str, of_reference: str = ""
) -> Interval | None:
    """Return the interval of the ratio of a time of turns to that of the reference's; None: it is
    not known in all blocks.
    """
    times = (operator.attrgetter(each) for each in (name, of_reference or name))
    ratios = host_time.ratios(pairs, *times)
    found = ratios and stats.estimate(np.log(ratios), level=host_time.LEVEL)
    return found.interval if found else None


def hiding_blocks(own: NDArray[np.float64], other: NDArray[np.float64]) -> int:
    """Return in how many blocks a payload hides work: it reports less than `LEAST_SEEN` of it. 0
    where they are few, and where about as many blocks of native have as little, as stalls of the
    machine make them.

    `own` and `other` are the parts of the work that the payload and native's report, (blocks,).
    """
    # Compared with native's usual part: no block of the target's own balances another.
    least = host_time.LEAST_SEEN * np.median(other)
    less, stalled = (int(np.count_nonzero(shares < least)) for shares in (own, other))
    is_many = stats.are_many(less, own.size) and stats.is_unbalanced(less, stalled)
    return less if is_many else 0


def _hiding_counted(
    pairs: Collection[tuple[host_time.Turns, host_time.Turns]], *, by_fastest: bool
) -> int:
    """Return in how many blocks a payload hides work of the turns that count for the ratio, however
    much of the others it reports; 0 where these turns are not known.
    """
    share = operator.attrgetter(f"{_counted(by_fastest=by_fastest)}_share")
    parts = [(share(one), share(other)) for one, other in pairs]
    known = [(one, other) for one, other in parts if one is not None and other is not None]
    return hiding_blocks(*np.array(known).T) if known else 0


def _of_counted(
    pairs: Collection[tuple[host_time.Turns, host_time.Turns]], *, by_fastest: bool
) -> float:
    """Return the part of the turns that count for the ratio that a payload reports, compared with
    native's work, in the mean of blocks that the ratio is; infinite where these turns are not
    known.

    Of all turns and blocks, a target may report a few long ones truly, and hide the work of others.
    """
    turns = _counted(by_fastest=by_fastest)
    part, share = (operator.attrgetter(f"{turns}_{name}") for name in ("part", "share"))
    parts = [(part(one), share(other)) for one, other in pairs]
    known = [(one, other) for one, other in parts if one is not None and other is not None]
    if not known or len(known) < len(parts):
        return math.inf
    own, others = np.log(known).T
    found = stats.estimate(own - others, level=host_time.LEVEL)
    return found.ratio if found else math.inf


def _reported_of_counted(by_turn: pd.Series, blocks: pd.Series) -> dict[str, pd.Series]:
    """Return what a payload reports of one of the turns that count, by block, from the times of all
    turns, above zero.
    """
    # Sorted by block and time, all at once: a run may have ten million turns.
    numbers, times = blocks.loc[by_turn.index].to_numpy(), by_turn.to_numpy()
    order = np.lexsort((times, numbers))
    found, starts, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    fastest, middle = ([part(int(one)) for one in counts] for part in _COUNTED)
    return {
        "fastest_reported": pd.Series(_means(times[order], starts, fastest), found),
        "trimmed_reported": pd.Series(np.exp(_means(np.log(times[order]), starts, middle)), found),
    }


_COUNTED: Final = (lambda count: (0, host_time.fastest_count(count)), host_time.middle)
"""Which of so many turns, in the order of their times, count: the first, and after the last."""


def _means(
    values: NDArray[np.float64], starts: NDArray[np.intp], parts: Collection[tuple[int, int]]
) -> NDArray[np.float64]:
    """Return the means of a part of each group that begins at one of `starts`, (groups,)."""
    sums = np.concatenate([np.zeros(1), np.cumsum(values)])
    first, after = (np.array([*parts], np.int64).reshape(-1, 2) + starts[:, np.newaxis]).T
    means: NDArray[np.float64] = (sums[after] - sums[first]) / (after - first)
    return means


def _turns_by_block(columns: Mapping[str, pd.Series]) -> dict[int, host_time.Turns]:
    """Return turns by block from columns by block, which have the names of their fields; blocks
    without a time are left out.
    """
    table = pd.DataFrame(columns)
    table = table[(table["reported"] > 0) & (table["seen"] > 0) & (table["count"] > 0)]
    return {
        int(str(row["block"])): host_time.Turns(
            reported=float(row["reported"]),
            seen=float(row["seen"]),
            count=int(row["count"]),
            rest=_known(row, "rest"),
            untimed=float(row.get("untimed", 0.0)),
            fastest=_known(row, "fastest", least=1.0),
            bounded=_known(row, "bounded", least=1.0),
            trimmed=_known(row, "trimmed", least=1.0),
            fastest_reported=_known(row, "fastest_reported"),
            trimmed_reported=_known(row, "trimmed_reported"),
            median_rest=_known(row, "median_rest"),
        )
        for row in table.rename_axis("block").reset_index().to_dict("records")
    }


def _known(row: Mapping[Hashable, Any], name: str, *, least: float = 0.0) -> float | None:
    """Return a time, at least so long: records that were changed may have zeros."""
    value = float(row.get(name, math.nan))
    return None if math.isnan(value) else max(value, least)


def by_cell(frame: pd.DataFrame) -> dict[tuple[str, str], pd.DataFrame]:
    """Return the rows of each cell, found in one pass however many cells there are."""
    groups = frame.groupby(["workload", "target"], sort=False)
    return {(str(cell[0]), str(cell[1])): mine for cell, mine in groups}


def _dispatch(spans: pd.DataFrame) -> int:
    """Return what carrying a line to the host may take in a cell, ns."""
    return int(spans["dispatch"].median())
