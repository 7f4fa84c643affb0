"""A run read back -> summary.json: estimates, verdicts, doubts, claims. Nothing here measures; it
can be repeated years later.
"""

import functools
import math
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import claims as claiming
from isobench import headline, places, stats, verdict
from isobench.evidence import clock, doubts, parity, prove
from isobench.model import (
    Abi,
    Cause,
    Claim,
    Clock,
    Doubt,
    Environment,
    Estimate,
    Evidence,
    Gap,
    Payload,
    Standing,
    Technology,
    Verdict,
)
from isobench.plan import FEWEST_SESSIONS, actual, second
from isobench.store import FORMAT, Run
from isobench.units import Sha256, TargetName, WorkloadName

SECONDS: Final = 1e9
MINIMUM_BLOCKS: Final = 10
COMPLETE_SHARE: Final = 0.8
"""A cell needs this share of the run's blocks: what is missing may be missing for a reason."""
LEVEL: Final = 0.97


def documents_claims() -> tuple[Claim, ...]:
    """Return the claims of the documents, as shipped."""
    path = places.shared("reports") / "claims.toml"
    return claiming.load(path.read_text(), origin=str(path))


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """All that is known about one target and one workload."""

    target: TargetName
    workload: WorkloadName
    verdict: Verdict
    value: float
    reference: float
    """Medians over visits, seconds per operation."""
    bounds: tuple[float, float] | None
    """95 % bounds of the median of `value`, each one-sided, seconds."""
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
        self.margin = 1 + float(run.about.get("margin", 0.05))
        self.quick = bool(run.about.get("quick", False))
        self.reference = run.plan.reference
        about = run.about.get("workloads", [])
        self.workloads = [WorkloadName(item["name"]) for item in about]
        self.classes = {WorkloadName(item["name"]): str(item["class"]) for item in about}
        self._paired: dict[tuple[str, str], pd.DataFrame] = {}

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
        """What the visits of each cell show of the clock inside, where they are long enough."""
        found = {
            cell: clock.check(
                [int(v) for v in spans["guest"]],
                [int(v) for v in spans["host"]],
                _dispatch(spans),
            )
            for cell, spans in self._spans.items()
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

    def _pairs(self, workload: WorkloadName, target: TargetName) -> pd.DataFrame:
        """Return visits of a cell and of native, by block: only where both have a value."""
        if (workload, target) not in self._paired:
            self._paired[workload, target] = self._pair(workload, target)
        return self._paired[workload, target]

    def _pair(self, workload: WorkloadName, target: TargetName) -> pd.DataFrame:
        subject, native = self.column(workload, target), self.column(workload, self.reference)
        if subject is None or native is None:
            return pd.DataFrame({"subject": [], "native": []}, dtype=float)
        pairs = pd.DataFrame({"subject": subject, "native": native}).dropna()
        return pairs[(pairs > 0).all(axis=1)]

    def log_ratios(self, workload: WorkloadName, target: TargetName) -> NDArray[np.float64]:
        """Return the block log-ratios of a cell: only blocks in which both sides have a value."""
        pairs = self._pairs(workload, target)
        return stats.block_log_ratios(
            pairs[["subject"]].to_numpy(float), pairs[["native"]].to_numpy(float)
        )

    @functools.cached_property
    def _sessions(self) -> pd.Series:
        """The session of each visit, by (workload, target, block)."""
        return self.times.groupby(["workload", "target", "block"])["session"].max()

    def sessions(self, workload: WorkloadName, target: TargetName) -> NDArray[np.int64]:
        """Return which session served each block of `log_ratios`; minus the block's number where it
        had one of its own. Native is fresh in every block, so that only the subject's matters.
        """
        blocks = self._pairs(workload, target).index.to_numpy(np.int64)
        if not blocks.size:
            return blocks
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
        in one block that has native, too; None from too few blocks. Native itself drops out.
        """
        pairs = [self._pairs(workload, name) for name in (base, head)]
        both = pairs[0].index.intersection(pairs[1].index)
        if len(both) < stats.FEWEST_BLOCKS:
            return None
        base_seconds, head_seconds = (
            found.loc[both, ["subject"]].to_numpy(float) for found in pairs
        )
        labels = [
            self.sessions(workload, name)[found.index.isin(both)]
            for name, found in zip((base, head), pairs, strict=True)
        ]
        off = [self.uncertainty(workload, name) for name in (base, head)]
        return stats.locate(
            stats.block_log_ratios(head_seconds, base_seconds),
            # The fewer sessions of the two are the units: what they share, no block averages away.
            sessions=min(labels, key=lambda numbers: np.unique(numbers).size),
            uncertainty=(1 + off[0]) * (1 + off[1]) - 1,
        )

    def uncertainty(self, workload: WorkloadName, target: TargetName) -> float:
        """Return by which share all times of a cell may be off: those brought to another clock."""
        cell = (workload, target)
        return self._clocks[cell].error if cell in self._untrusted else 0.0

    def estimate(
        self, workload: WorkloadName, target: TargetName, *, uncertainty: float = 0.0
    ) -> Estimate | None:
        """Return the estimate of a cell."""
        return stats.estimate(
            self.log_ratios(workload, target),
            sessions=self.sessions(workload, target),
            uncertainty=uncertainty,
            level=LEVEL,
            margin=self.margin,
        )

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
        estimates = [estimate for cell in cells if (estimate := self.estimate(*cell)) is not None]
        if any(self._session_doubts(*cell) for cell in cells):
            return False
        widths = [stats.half_width(estimate.interval) for estimate in estimates]
        return bool(widths) and max(widths) <= half_width

    @functools.cached_property
    def targets(self) -> list[TargetName]:
        """Labels that have any value, in the order of the run."""
        have = set(self.times["target"].unique())
        labels = [TargetName(item["name"]) for item in self.run.about.get("targets", [])]
        ordered = [label for label in [*labels, second(self.reference)] if label in have]
        return ordered + sorted(have - set(ordered))

    # ---- doubts ----------------------------------------------------------------------------------

    def _facts(self, workload: WorkloadName, target: TargetName) -> dict[str, Any]:
        """Return what payloads saw in this cell: the worst number, the first text."""
        state = self.run.states.get(actual(target), {})
        facts: dict[str, Any] = dict(state.get("workloads", {}).get(workload, {}))
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
        ids = [
            fact["value"]
            for state in (
                self.run.states.get(name, {}) for name in (actual(target), self.reference)
            )
            for fact in state.get("facts", ())
            if fact["key"] == "kernel.boot_id"
        ]
        return len(set(ids)) > 1

    def _session_doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        sessions = self.sessions(workload, target)
        if not sessions.size:
            return ()
        return doubts.of_sessions(np.unique(sessions).size, sessions.size, fewest=FEWEST_SESSIONS)

    def _witnessed(self, target: TargetName) -> dict[str, Any]:
        """Return what the host has seen of a target's session."""
        facts = self.run.states.get(actual(target), {}).get("facts", ())
        return {f["key"]: f["value"] for f in facts if f["key"].startswith("host.")}

    def doubts(self, workload: WorkloadName, target: TargetName) -> tuple[Doubt, ...]:
        """Return the doubts about a cell that come from facts, not from its estimate."""
        found: list[Doubt] = []
        facts, native = self._facts(workload, target), self._facts(workload, self.reference)
        if "io.filesystem" in facts:
            found += doubts.of_io(workload, facts, native)
            found += doubts.of_disk(facts, self._witnessed(target).get("host.disk_cache"))
        found += doubts.of_threads(facts, native)
        found += doubts.of_calls(facts, native)
        found += self._clock_doubts(workload, target)
        found += self._session_doubts(workload, target)
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
                    detail=f"{len(wrong)} trials gave a wrong answer or kept no promise",
                    advice="no number of this cell is to be trusted until that is explained",
                    blocks=True,
                )
            )
        return tuple(found)

    # ---- cells -----------------------------------------------------------------------------------

    def cell(self, workload: WorkloadName, target: TargetName) -> Cell | None:
        """Return one cell, or None where nothing was measured."""
        column, native = self.column(workload, target), self.column(workload, self.reference)
        if column is None or native is None or column.dropna().empty or native.dropna().empty:
            return None
        ratios = self.log_ratios(workload, target)
        uncertainty = self.uncertainty(workload, target)
        estimate = self.estimate(workload, target, uncertainty=uncertainty)
        needed = None if estimate is None else stats.blocks_needed(estimate, margin=self.margin)
        judged = verdict.judge(
            target=target,
            workload=workload,
            estimate=estimate,
            noise=self.noise.get(workload),
            margin=self.margin,
            doubts=self.doubts(workload, target),
            quick=self.quick,
            minimum_blocks=MINIMUM_BLOCKS,
            blocks_needed=needed,
        )
        mine = self._timed[workload, target]
        values = column.dropna().to_numpy(float)
        open_question = judged.standing in (Standing.INCONCLUSIVE, Standing.UNPROVEN)
        return Cell(
            target=target,
            workload=workload,
            verdict=judged,
            value=float(np.median(values)),
            reference=float(np.median(native.dropna().to_numpy(float))),
            bounds=_median_bounds(values, uncertainty),
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
        found = list(doubts.of_blocks(self.run.health, len(self.run.invalid_blocks)))
        native = self.times[self.times["target"] == self.reference]
        for workload in self.workloads:
            mine = (
                native[native["workload"] == workload].groupby("block")[["seconds", "at"]].median()
            )
            if self.classes[workload] != "cpu" or mine.empty:
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


def _median_bounds(values: NDArray[np.float64], uncertainty: float) -> tuple[float, float] | None:
    """Return the one-sided 95 % bounds of the median, by order statistics; None from too few
    values.
    """
    high = stats.quantile_upper(values, quantile=0.5)
    low = stats.quantile_lower(values, quantile=0.5)
    if high is None or low is None:
        return None
    return (low / (1 + uncertainty), high * (1 + uncertainty))


# ---- the document --------------------------------------------------------------------------------


def _environment(state: Mapping[str, Any]) -> Environment:
    return prove.gather(msgspec.convert(fact, type=Evidence) for fact in state.get("facts", ()))


def _status(
    name: TargetName, state: Mapping[str, Any], analysis: Analysis
) -> tuple[str, str | None]:
    if state.get("status") == "unavailable":
        return "unavailable", state.get("reason")
    if name in analysis.targets:
        return "measured", None
    causes = [gap for gap in analysis.run.gaps if gap.target == name]
    for cause, status in ((Cause.UNPROVEN, "unproven"), (Cause.UNAVAILABLE, "unavailable")):
        first = next((gap for gap in causes if gap.cause is cause), None)
        if first is not None:
            return status, first.detail
    return "failed", causes[0].detail if causes else "the run ended before it was measured"


def _payloads(run: Run, abi: str) -> tuple[Payload, ...]:
    found = [item for item in run.about.get("payloads", ()) if item["abi"] == abi]
    return tuple(
        Payload(
            program=item["program"],
            abi=Abi(abi),
            path=Path(),
            sha256=Sha256(item["sha256"]),
            compiler=item["compiler"],
            flags=tuple(item["flags"]),
        )
        for item in found
    )


def _target(item: Mapping[str, Any], analysis: Analysis) -> dict[str, Any]:
    name = TargetName(item["name"])
    state = analysis.run.states.get(name, {})
    native = analysis.run.states.get(analysis.reference, {})
    inside, host = _environment(state), _environment(native)
    status, reason = _status(name, state, analysis)
    different = (
        parity.differences(
            host,
            inside,
            native_payloads=_payloads(analysis.run, native.get("abi", "")),
            target_payloads=_payloads(analysis.run, state.get("abi", "")),
        )
        if name != analysis.reference and inside.facts
        else ()
    )
    return {
        "name": name,
        "class": item["class"],
        "status": status,
        "version": state.get("version"),
        "reason": reason,
        "hint": state.get("hint"),
        "evidence": prove.relations(host, inside),
        "promises": state.get("promises", []),
        "facts": [msgspec.to_builtins(fact) for fact in inside.facts.values()],
        "parity": [msgspec.to_builtins(difference) for difference in different],
        "starts": state.get("starts", {}),
    }


def _cell(cell: Cell, group: str, operation: str) -> dict[str, Any]:
    estimate = cell.verdict.estimate
    return {
        "target": cell.target,
        "workload": cell.workload,
        "class": group,
        "metric": "time",
        "unit": "seconds",
        "value": cell.value,
        "reference": cell.reference,
        "ratio": estimate.ratio if estimate else None,
        "interval": [estimate.interval.low, estimate.interval.high] if estimate else None,
        "level": LEVEL,
        "equivalence": [estimate.equivalence.low, estimate.equivalence.high] if estimate else None,
        "p_equivalence": estimate.p_equivalence if estimate else None,
        "method": estimate.method if estimate else None,
        "blocks": estimate.blocks if estimate else int(cell.log_ratios.size),
        "sessions": cell.sessions,
        "visits": cell.visits,
        "standing": cell.verdict.standing,
        "doubts": [f"{doubt.detail}: {doubt.advice}" for doubt in cell.verdict.doubts],
        "doubt_codes": [doubt.code for doubt in cell.verdict.doubts],
        "operation": operation,
        "clock": cell.clock,
        "median_bounds": cell.bounds,
        "p95": cell.tails.p95,
        "p99": cell.tails.p99,
        "maximum": cell.tails.maximum,
        "outlying_blocks": cell.tails.outlying_blocks,
        "blocks_needed": cell.needed,
        "log_ratios": [round(float(value), 6) for value in cell.log_ratios],
        "throughput": None,
    }


def _ladders(analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Yield the phases of each kind of start in each target, native's included."""
    starts = [name for name in analysis.workloads if analysis.classes[name] == "startup"]
    for target in analysis.targets:
        for workload in starts:
            phases = analysis.phases(workload, target)
            channel = analysis.channel(workload, target)
            if phases and target == actual(target):
                yield {
                    "target": target,
                    "workload": workload,
                    "phases": [{"name": n, "seconds": s} for n, s in phases.items()],
                    "channel": channel,
                }


def _absent(targets: Iterable[Mapping[str, Any]], analysis: Analysis) -> Iterator[Gap]:
    """Yield a gap for every cell of a target that could not run here and was never tried."""
    told = {gap.target for gap in analysis.run.gaps}
    for item in targets:
        absent = item["status"] == "unavailable" and item["name"] not in told
        for workload in analysis.workloads if absent else ():
            yield Gap(
                block=0,
                target=TargetName(item["name"]),
                workload=workload,
                cause=Cause.UNAVAILABLE,
                detail=str(item["reason"]),
                hint=str(item["hint"] or ""),
            )


def _gaps(gaps: Iterable[Gap]) -> list[dict[str, Any]]:
    """Return each kind of gap once, with how often it came."""
    counted: dict[tuple[str, ...], int] = {}
    for gap in gaps:
        key = (gap.target, gap.workload, gap.cause, gap.detail, gap.hint)
        counted[key] = counted.get(key, 0) + 1
    keys = ("target", "workload", "cause", "detail", "hint")
    return [{**dict(zip(keys, key, strict=True)), "times": times} for key, times in counted.items()]


def _relations(item: Mapping[str, Any]) -> dict[str, str]:
    """Return how facts stand to the host's; those that only the host side has, by their value."""
    own = {fact["key"]: fact["value"] for fact in item["facts"] if fact["key"].startswith("host.")}
    values = {key: str(value).lower() for key, value in own.items()}
    return values | {
        k: str(v) for k, v in item["evidence"].items() if v != "unknown" or k not in own
    }


def _judge_claims(
    shipped: Sequence[Claim], analysis: Analysis, targets: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    technologies = {TargetName(item["name"]): Technology(item["class"]) for item in targets}
    wrong = {(g.target, g.workload) for g in analysis.run.gaps if g.cause is Cause.WRONG_ANSWER}
    cells = [
        claiming.CellFacts(
            target=cell.target,
            technology=technologies[cell.target],
            workload=cell.workload,
            standing=cell.verdict.standing,
            ratio=cell.verdict.estimate.ratio if cell.verdict.estimate else None,
            interval=cell.verdict.estimate.interval if cell.verdict.estimate else None,
            value_seconds=cell.value,
            upper_seconds=cell.bounds[1] if cell.bounds else None,
            lower_seconds=cell.bounds[0] if cell.bounds else None,
            checks_equal=(cell.target, cell.workload) not in wrong if cell.inside else None,
        )
        for cell in analysis.cells
        if cell.target in technologies
    ]
    facts = [
        claiming.TargetFacts(
            name=TargetName(item["name"]),
            technology=Technology(item["class"]),
            status=item["status"],
            relations=_relations(item),
        )
        for item in targets
    ]
    judged = [claiming.judge(claim, cells, facts) for claim in shipped]
    return [
        {
            "id": each.claim.id,
            "standing": each.standing,
            "sentence": each.sentence,
            "quote": each.claim.quote,
            "axes": each.axes,
        }
        for each in judged
    ]


def summarise(run: Run, shipped: Sequence[Claim]) -> dict[str, Any]:
    """Return the whole of summary.json for a run."""
    analysis = Analysis(run)
    about = run.about
    operations = {item["name"]: str(item["operation"]) for item in about.get("workloads", [])}
    targets = [_target(item, analysis) for item in about.get("targets", [])]
    technologies = {TargetName(item["name"]): Technology(item["class"]) for item in targets}
    control = second(analysis.reference)
    complete = bool(about.get("finished")) and not about.get("interrupted", False)
    closing = headline.headline(
        [cell.verdict for cell in analysis.cells if cell.target != control],
        technologies,
        quick=analysis.quick,
        complete=complete,
        margin=analysis.margin,
    )
    return {
        "schema_version": FORMAT,
        "run": {
            **{key: about.get(key) for key in _KEPT},
            "complete": complete,
            "interrupted": bool(about.get("interrupted", False)),
            "noise": {name: _rounded(value) for name, value in analysis.noise.items()},
            "level": LEVEL,
            "blocks": analysis.blocks,
            "blocks_planned": about.get("blocks_wanted", len(run.plan.blocks)),
            "blocks_invalid": len(run.invalid_blocks),
            "doubts": [msgspec.to_builtins(doubt) for doubt in analysis.run_doubts()],
            "headline": closing,
            "records": "records.jsonl",
        },
        "workloads": about.get("workloads", []),
        "targets": targets,
        "cells": [
            _cell(c, analysis.classes[c.workload], operations[c.workload]) for c in analysis.cells
        ],
        "ladders": list(_ladders(analysis)),
        "gaps": _gaps([*run.gaps, *_absent(targets, analysis)]),
        "claims": _judge_claims(shipped, analysis, targets),
    }


_KEPT: Final = (
    "id", "started", "finished", "seed", "quick", "machine", "tool_version", "argv", "margin",
    "budget_seconds", "elapsed_seconds", "stopped", "host", "compiler", "flags", "payloads",
)  # fmt: skip


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, 6)
