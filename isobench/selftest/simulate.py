"""Runs simulated with a known true ratio, through the very functions that judge real ones.

Nothing is timed here. A scenario invents the times of native, of native's second visit and of a
target; the estimators, the rule for stopping and the verdicts of real runs answer them, and the
figures say how often they were right. A `Finding` holds a figure against what is guaranteed.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis import verdict
from isobench.config.options import RunOptions
from isobench.evidence import doubts
from isobench.model import Estimate, Status, plan
from isobench.model.units import TargetName, WorkloadName

REPLICATIONS: Final = 1000
RIGOROUS: Final = 5000
SEED: Final = 1
LENGTHS: Final = (10, 15, 20, 30)
"""Blocks of runs that do not stop by themselves."""
USUAL: Final = 15
"""The length at which verdicts are tabulated beside those of runs that stop."""
RATIOS: Final = (1.0, 1.02, 1.05, 1.10)
"""True ratios; the third lies on the margin."""
FAMILY: Final = 20
"""Cells of a run that are tested together."""
ALARM_LEVEL: Final = 0.95
STOPPED: Final = "stopped"
_WISH: Final = RunOptions()  # what a run does without flags
_MARGIN: Final = 1 + _WISH.margin
_VISITS: Final = 3
"""Of each block: native, native again, the target."""
_BATCH: Final = 500
"""Runs that are simulated at once: some megabytes."""
_COVERAGE: Final = 0.95
_ERROR: Final = 0.05
_ERRORS: Final = 3.0
"""So many standard errors beyond a bound are put down to chance."""
_RATE_DIGITS: Final = 4

Floats = NDArray[np.float64]


# ---- scenarios -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """How the times of a simulated machine scatter. Shares (0.03: 3 %) are on the log scale."""

    name: str
    iteration: float = 0.03
    """Standard deviation of an iteration within its visit."""
    launch: float = 0.02
    """Standard deviation of what all iterations of a visit share."""
    freedom: int | None = None
    """Both are Student's t with so many degrees of freedom times the above; None: normal."""
    wander: float = 0.0
    """Standard deviation of the machine's slow wandering, an AR(1) process over visits."""
    memory: float = 0.9
    """What is left of that wandering after one block (its autocorrelation)."""
    trend: float = 0.0
    """By how much times grow every ten blocks, all the way."""
    stalls: float = 0.0
    """Share of visits that take half as long again."""
    tick: float = 0.0
    """Step of the clock, as a share of a native iteration."""
    session: float = 0.0
    """Standard deviation of what all blocks of one session of the target share."""
    coverage: float = _COVERAGE
    """The least that is guaranteed of the reported interval's coverage."""
    error: float = _ERROR
    """The most that is guaranteed of a wrong verdict's rate, where the true ratio is the margin."""
    power: float = 0.0
    """The least that is guaranteed of the right verdict's rate, at 1 and well beyond the margin."""
    limit: str = ""
    """Why there is no guarantee at all; the figures are shown for what they are."""

    @property
    def weaker(self) -> bool:
        """Whether less is guaranteed than elsewhere."""
        return self.error > _ERROR

    def words(self) -> str:
        """Return the parameters in words: what stands in the table's notes is what was run."""
        share = verdict.percent_text
        law = "log-normal" if self.freedom is None else f"log of Student's t, {self.freedom} df,"
        parts = [f"{law} {share(self.iteration)} an iteration, {share(self.launch)} a launch"]
        if self.wander:
            parts.append(
                f"the machine wanders by {share(self.wander)} (AR(1), {self.memory:g} from block "
                "to block, in steps of one visit)"
            )
        if self.trend:
            parts.append(f"all times grow by {share(self.trend)} every {TREND_BLOCKS} blocks")
        if self.stalls:
            parts.append(f"{share(self.stalls)} of launches take half as long again")
        if self.tick:
            parts.append(f"the clock ticks every {share(self.tick)} of an iteration")
        if self.session:
            parts.append(
                f"sessions of the target differ by {share(self.session)} and serve a third of the "
                f"blocks, {plan.blocks_per_session(_WISH.maximum_blocks)} where the run may stop"
            )
        return "; ".join(parts)


STALL: Final = math.log(1.5)
TREND_BLOCKS: Final = 10
SCENARIOS: Final = (
    Scenario(name="quiet", power=0.9),  # the power that `blocks_needed` plans for
    Scenario(name="drift", wander=0.03),
    Scenario(name="trend", trend=0.05),
    Scenario(name="stalls", stalls=0.05),
    Scenario(name="heavy tails", freedom=3),
    Scenario(name="coarse timer", tick=0.01),
    # The data decide whether sessions are pooled, which costs coverage: stats.ratio.POOLED_P.
    Scenario(name="long sessions", session=0.02, error=0.07),
    Scenario(
        name="crude timer",
        iteration=0.01,
        launch=0.005,
        tick=0.01,
        limit="a tick as large as the noise leaves few distinct values, of which a trimmed mean "
        "has no normal law; isobench makes iterations so long that a tick is far smaller",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Runs:
    """Many simulated runs of one scenario: block log-ratios (runs, blocks), and what naive practice
    makes of the same machine (runs,).
    """

    subject: Floats
    control: Floats
    sessions: NDArray[np.int64] | None
    naive_log_ratio: Floats
    naive_reach: Floats
    """Half the width of its 95 % interval, as a logarithm."""


def _simulate(
    scenario: Scenario, *, ratio: float, runs: int, blocks: int, served: int, seed: Sequence[int]
) -> _Runs:
    """Invent runs of so many blocks whose target takes `ratio` times as long as native."""
    rng = np.random.default_rng(list(seed))
    shape = (_VISITS, runs, blocks)
    logs = scenario.launch * _deviates(rng, scenario, shape)[..., np.newaxis]
    logs = logs + scenario.iteration * _deviates(rng, scenario, (*shape, _WISH.iterations))
    logs += STALL * (rng.random(shape) < scenario.stalls)[..., np.newaxis]
    sessions = None
    if scenario.session:
        sessions = np.arange(blocks, dtype=np.int64) // served
        shared = scenario.session * rng.standard_normal((runs, blocks))
        logs[2] += shared[:, sessions, np.newaxis]
    logs[2] += math.log(ratio)
    state = _state(rng, scenario, runs, _VISITS * blocks)
    phase = rng.random(logs.shape)  # where between two ticks an iteration begins

    def read(visit: int, slots: NDArray[np.int64]) -> Floats:
        """Return what the clock says of one visit of each block, made in these slots."""
        seconds: Floats = np.exp(
            logs[visit] + np.take_along_axis(state, slots, axis=1)[..., np.newaxis]
        )
        if not scenario.tick:
            return seconds
        ticks: Floats = np.floor(phase[visit] + seconds / scenario.tick)
        return scenario.tick * ticks

    order = rng.permuted(np.broadcast_to(np.arange(_VISITS), (runs, blocks, _VISITS)), axis=2)
    slots = order + _VISITS * np.arange(blocks)[:, np.newaxis]
    native, control, subject = (read(visit, slots[..., visit]) for visit in range(_VISITS))
    # The same machine, launches and iterations, but all of native first and then all of the target.
    first = np.broadcast_to(np.arange(blocks), (runs, blocks))
    naive_log_ratio, naive_reach = _naive(read(0, first), read(2, first + blocks))
    return _Runs(
        subject=_log_ratios(subject, native),
        control=_log_ratios(control, native),
        sessions=sessions,
        naive_log_ratio=naive_log_ratio,
        naive_reach=naive_reach,
    )


def _deviates(rng: np.random.Generator, scenario: Scenario, shape: tuple[int, ...]) -> Floats:
    if scenario.freedom is None:
        return np.asarray(rng.standard_normal(shape), dtype=np.float64)
    return np.asarray(rng.standard_t(scenario.freedom, shape), dtype=np.float64)


def _state(rng: np.random.Generator, scenario: Scenario, runs: int, visits: int) -> Floats:
    """Return the logarithm of the machine's pace at each visit, (runs, visits)."""
    rising = math.log1p(scenario.trend) * np.arange(visits) / (TREND_BLOCKS * _VISITS)
    state = np.broadcast_to(rising, (runs, visits)).copy()
    if scenario.wander:
        kept = scenario.memory ** (1 / _VISITS)
        steps = rng.standard_normal((runs, visits))
        pace = steps[:, 0]
        for visit in range(visits):
            if visit:
                pace = kept * pace + math.sqrt(1 - kept**2) * steps[:, visit]
            state[:, visit] += scenario.wander * pace
    return state


def _log_ratios(subject: Floats, reference: Floats) -> Floats:
    """Return the block log-ratios of many runs (runs, blocks) from (runs, blocks, iterations)."""
    runs, blocks, iterations = subject.shape
    rows = (runs * blocks, iterations)
    return stats.block_log_ratios(subject.reshape(rows), reference.reshape(rows)).reshape(
        runs, blocks
    )


def _naive(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Return the log of the ratio of means over all iterations, and the reach of its t interval.

    What is common and wrong: iterations are taken for independent, and one order for all.
    """
    pooled = [side.reshape(side.shape[0], -1) for side in (before, after)]
    count = pooled[0].shape[1]
    means = [side.mean(axis=1) for side in pooled]
    # Of the logarithm of a mean, by the delta method.
    variances = [
        side.var(axis=1, ddof=1) / count / mean**2 for side, mean in zip(pooled, means, strict=True)
    ]
    quantile = stats.student_quantile(ALARM_LEVEL, 2 * count - 2)
    return np.log(means[1] / means[0]), quantile * np.sqrt(variances[0] + variances[1])


# ---- answers -------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Tally:
    """What became of the runs of one row."""

    truth: float
    runs: int = 0
    alarms: int = 0
    covered: int = 0
    blocks: int = 0
    widths: list[float] = field(default_factory=list)
    p_equivalence: list[float] = field(default_factory=list)
    standings: Counter[Status] = field(default_factory=Counter)
    naive_alarms: int = 0
    naive_same: int = 0
    naive_widths: list[float] = field(default_factory=list)

    def add(self, found: Estimate, strict: Estimate, control: Estimate, *, sessions: int) -> None:
        """Judge one run as the product does; `strict` is its estimate at the level of alarms."""
        judged = verdict.judge(
            target=TargetName("simulated"),
            workload=WorkloadName("simulated"),
            estimate=found,
            noise=verdict.noise_floor(control),
            margin=_MARGIN,
            doubts=doubts.of_sessions(sessions, found.blocks, fewest=plan.FEWEST_SESSIONS),
        )
        self.runs += 1
        self.alarms += not strict.interval.low <= self.truth <= strict.interval.high
        self.covered += found.interval.low <= self.truth <= found.interval.high
        self.blocks += found.blocks
        self.widths.append(stats.half_width(found.interval))
        self.p_equivalence.append(found.p_equivalence)
        self.standings[judged.status] += 1

    def add_naive(self, runs: _Runs) -> None:
        """Count what naive practice finds."""
        missed = np.abs(runs.naive_log_ratio - math.log(self.truth)) > runs.naive_reach
        self.naive_alarms += int(missed.sum())
        self.naive_same += int((np.abs(runs.naive_log_ratio) <= runs.naive_reach).sum())
        self.naive_widths += np.expm1(runs.naive_reach).tolist()


def _answer(tally: _Tally, runs: _Runs, blocks: int, which: NDArray[np.int64]) -> None:
    """Answer runs of just so many blocks."""
    labels = None if runs.sessions is None else runs.sessions[:blocks]
    rows = runs.subject[which, :blocks]
    sessions = blocks if labels is None else np.unique(labels).size
    for found, strict, control in zip(
        stats.estimates(rows, sessions=labels, margin=_MARGIN),
        stats.estimates(rows, sessions=labels, margin=_MARGIN, level=ALARM_LEVEL),
        stats.estimates(runs.control[which, :blocks], margin=_MARGIN),
        strict=True,
    ):
        tally.add(found, strict, control, sessions=sessions)


def _answer_stopped(tally: _Tally, runs: _Runs) -> None:
    """Answer each run at the length at which its intervals were narrow, or at the greatest."""
    count, greatest = runs.subject.shape
    left = np.arange(count, dtype=np.int64)
    for blocks in filter(plan.is_interim_analysis, range(greatest)):
        labels = None if runs.sessions is None else runs.sessions[:blocks]
        sessions = blocks if labels is None else np.unique(labels).size
        if doubts.of_sessions(sessions, blocks, fewest=plan.FEWEST_SESSIONS):
            continue
        cells = zip(
            stats.estimates(runs.subject[left, :blocks], sessions=labels),
            stats.estimates(runs.control[left, :blocks]),
            strict=True,
        )
        done = np.array([stats.narrow(pair, _WISH.precision) for pair in cells], dtype=np.bool_)
        _answer(tally, runs, blocks, left[done])
        left = left[~done]
    _answer(tally, runs, greatest, left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of figures. Rates and widths are shares, 0 to 1."""

    scenario: str
    ratio: float
    """The true one."""
    length: str
    """So many blocks, or "stopped": as many as it took."""
    runs: int
    blocks: float
    """Mean number of blocks."""
    alarms: float
    """How often a 95 % interval misses the true ratio; 5 % is nominal."""
    coverage: float
    """How often the reported interval, nominally 97 %, holds the true ratio."""
    half_width: float
    """Median of the reported interval's."""
    standings: Mapping[str, float]
    """How often each verdict is given."""
    naive_alarms: float | None
    """How often the 95 % interval of naive practice misses the true ratio; None: it has no rule to
    stop by.
    """
    naive_same: float | None
    """How often naive practice finds no significant difference, and calls that the same."""
    naive_half_width: float | None

    def rate(self, *standings: Status) -> float:
        """Return how often one of these verdicts is given."""
        return sum(self.standings.get(str(one), 0.0) for one in standings)

    @property
    def place(self) -> str:
        """Where in the tables this row stands, in words."""
        length = STOPPED if self.length == STOPPED else f"{self.length} blocks"
        return f"{self.scenario}, true ratio {self.ratio:.2f}, {length}"


def _row(scenario: Scenario, ratio: float, length: str, tally: _Tally) -> Row:
    def share(count: int) -> float:
        return round(count / tally.runs, _RATE_DIGITS)

    naive = bool(tally.naive_widths)
    return Row(
        scenario=scenario.name,
        ratio=ratio,
        length=length,
        runs=tally.runs,
        blocks=round(tally.blocks / tally.runs, 1),
        alarms=share(tally.alarms),
        coverage=share(tally.covered),
        half_width=float(np.median(tally.widths)),
        standings={str(one): share(tally.standings[one]) for one in Status},
        naive_alarms=share(tally.naive_alarms) if naive else None,
        naive_same=share(tally.naive_same) if naive else None,
        naive_half_width=float(np.median(tally.naive_widths)) if naive else None,
    )


def _tally(scenario: Scenario, ratio: float, length: str, replications: int, seed: int) -> _Tally:
    """Simulate and answer the runs of one row, a batch at a time."""
    tally = _Tally(ratio)
    blocks = _WISH.maximum_blocks if length == STOPPED else int(length)
    served = plan.blocks_per_session(blocks)
    # What else is simulated, and how many runs, does not change the runs of this row.
    own = (seed, zlib.crc32(f"{scenario.name} {ratio} {length}".encode()))
    for batch, begun in enumerate(range(0, replications, _BATCH)):
        runs = _simulate(
            scenario,
            ratio=ratio,
            runs=min(_BATCH, replications - begun),
            blocks=blocks,
            served=served,
            seed=(*own, batch),
        )
        if length == STOPPED:
            _answer_stopped(tally, runs)
        else:
            _answer(tally, runs, blocks, np.arange(len(runs.subject), dtype=np.int64))
            tally.add_naive(runs)
    return tally


# ---- guarantees ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A figure that is held against its guarantee."""

    what: str
    rate: float
    runs: int
    low: float = 0.0
    high: float = 1.0
    """What is guaranteed: a rate from `low` to `high`."""
    exact: bool = False
    """The bounds allow for chance already."""

    @property
    def held(self) -> bool:
        """Whether the rate is within its bounds, or out of them by chance: by no more than three
        standard errors of a rate that lies on the bound.
        """
        slack = 0.0 if self.exact else _ERRORS
        low = self.low - slack * _standard_error(self.low, self.runs)
        high = self.high + slack * _standard_error(self.high, self.runs)
        return low <= self.rate <= high

    def words(self) -> str:
        """Return the figure and its bounds as a line."""
        if self.low and self.high < 1:
            bounds = f"{_rate(self.low)} to {_rate(self.high)}"
        elif self.low:
            bounds = f"at least {_rate(self.low)}"
        else:
            bounds = f"at most {_rate(self.high)}"
        return f"{self.what}: {_rate(self.rate)}, guaranteed {bounds}"


ALARMS: Final = (0.02, 0.09)
RULE: Final = (
    f"A guarantee is broken by a figure beyond its bound by more than {_ERRORS:g} standard errors "
    f"of the simulation; alarms at {ALARM_LEVEL:.0%} have {ALARMS[0]:.0%} to {ALARMS[1]:.0%}, "
    "whatever the number of runs."
).replace("%", " %")


def _standard_error(rate: float, runs: int) -> float:
    return math.sqrt(rate * (1 - rate) / runs)


def _findings(rows: Iterable[Row], scenarios: Mapping[str, Scenario]) -> Iterator[Finding]:
    """Yield every figure of which something is guaranteed."""
    for row in rows:
        scenario = scenarios[row.scenario]
        if scenario.limit:
            continue
        if row.ratio == 1:
            yield from _of_native(row, scenario)
        for wrong in (Status.SLOWER, Status.FASTER, Status.NEAR_NATIVE):
            if row.ratio == _MARGIN or (row.ratio == 1 and wrong is not Status.NEAR_NATIVE):
                what = f"{row.place}: called {wrong}"
                yield Finding(what=what, rate=row.rate(wrong), runs=row.runs, high=scenario.error)
        right = {RATIOS[0]: Status.NEAR_NATIVE, RATIOS[-1]: Status.SLOWER}.get(row.ratio)
        if scenario.power and right is not None and row.length in (str(USUAL), STOPPED):
            what = f"{row.place}: called {right}"
            yield Finding(what=what, rate=row.rate(right), runs=row.runs, low=scenario.power)


def _of_native(row: Row, scenario: Scenario) -> Iterator[Finding]:
    """Yield what is guaranteed where nothing differs."""
    if row.length != STOPPED:
        what = f"{row.place}: 95 % interval misses it"
        low, high = ALARMS
        yield Finding(what=what, rate=row.alarms, runs=row.runs, low=low, high=high, exact=True)
    what = f"{row.place}: reported interval holds it"
    yield Finding(what=what, rate=row.coverage, runs=row.runs, low=scenario.coverage)


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """Runs of many cells that all lie on the margin: how often any is called near-native.

    Figures without a guarantee: verdicts are given cell by cell.
    """

    cells: int
    families: int
    own: float
    """By its own p value, as verdicts are given: each cell's error is 5 %, not the run's."""
    adjusted: float
    """By Holm's."""


def _families(p_values: Sequence[Sequence[float]]) -> Families | None:
    """Return what becomes of families of cells, each with cells of every scenario."""
    mixed = np.array(p_values, dtype=np.float64).T.ravel()
    count = mixed.size // FAMILY
    if count == 0:
        return None
    families = mixed[: count * FAMILY].reshape(count, FAMILY)
    adjusted = np.array([stats.holm(one) for one in families])
    alpha = 1 - ALARM_LEVEL

    def share(values: Floats) -> float:
        return round(float(np.mean((values < alpha).any(axis=1))), _RATE_DIGITS)

    return Families(cells=FAMILY, families=count, own=share(families), adjusted=share(adjusted))


# ---- the whole -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """All figures, and what they say of the guarantees."""

    seed: int
    replications: int
    scenarios: tuple[Scenario, ...]
    rows: tuple[Row, ...]
    families: Families | None
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> tuple[Finding, ...]:
        """The findings that are out of their bounds."""
        return tuple(one for one in self.findings if not one.held)


def run(
    *,
    replications: int = REPLICATIONS,
    seed: int = SEED,
    scenarios: Sequence[Scenario] = SCENARIOS,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Result:
    """Simulate `replications` runs for every row and hold the figures against the guarantees.

    The same seed gives the same figures. `progress` hears what comes next, how many rows are done,
    and of how many.
    """
    lengths: dict[float, tuple[str, ...]] = {ratio: (str(USUAL), STOPPED) for ratio in RATIOS}
    lengths[1.0] = (*map(str, LENGTHS), STOPPED)
    todo = [
        (one, ratio, length) for one in scenarios for ratio in RATIOS for length in lengths[ratio]
    ]
    rows, edges = [], []
    for done, (scenario, ratio, length) in enumerate(todo):
        progress(f"{scenario.name}: true ratio {ratio:.2f}", done, len(todo))
        tally = _tally(scenario, ratio, length, replications, seed)
        rows.append(_row(scenario, ratio, length, tally))
        if (ratio, length) == (_MARGIN, str(USUAL)) and not scenario.limit:
            edges.append(tally.p_equivalence)
    families = _families(edges)
    named = {one.name: one for one in scenarios}
    return Result(
        seed=seed,
        replications=replications,
        scenarios=tuple(scenarios),
        rows=tuple(rows),
        families=families,
        findings=tuple(_findings(rows, named)),
    )


def document(result: Result) -> dict[str, Any]:
    """Return all of it for scripts: rates and widths are shares, 0 to 1."""
    return {
        **asdict(result),
        "findings": [asdict(one) | {"held": one.held} for one in result.findings],
        "held": not result.broken,
        "sentence": sentence(result),
    }


# ---- words ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures as text, row by row."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def tables(result: Result) -> tuple[Table, Table]:
    """Return what happens where nothing differs, and the verdicts at each true ratio."""
    same = [_native_row(row) for row in result.rows if row.ratio == 1]
    pairs = dict.fromkeys((row.scenario, row.ratio) for row in result.rows)
    return (
        Table(
            title="Native against itself (true ratio 1)",
            head=(
                "scenario",
                "blocks",
                "95 % interval misses 1",
                "97 % interval holds 1",
                "its half-width",
                "called slower or faster",
                "naive: misses 1",
                "naive: half-width",
            ),
            rows=tuple(same),
        ),
        Table(
            title=f"Verdicts at a margin of {_rate(_WISH.margin)}: runs of {USUAL} blocks / runs "
            "that stop when intervals are narrow",
            head=("scenario", "true ratio", "near-native", "slower", "open", 'naive: "the same"'),
            rows=tuple(_verdict_row(result, *key) for key in pairs),
        ),
    )


def _native_row(row: Row) -> tuple[str, ...]:
    return (
        row.scenario,
        f"stopped, {row.blocks:g}" if row.length == STOPPED else row.length,
        _rate(row.alarms),
        _rate(row.coverage),
        _rate(row.half_width),
        _rate(row.rate(Status.SLOWER, Status.FASTER)),
        _rate(row.naive_alarms),
        _rate(row.naive_half_width),
    )


def _verdict_row(result: Result, scenario: str, ratio: float) -> tuple[str, ...]:
    usual, stopped = (
        next(
            row
            for row in result.rows
            if (row.scenario, row.ratio, row.length) == (scenario, ratio, length)
        )
        for length in (str(USUAL), STOPPED)
    )
    both = [
        f"{_rate(usual.rate(*standings))} / {_rate(stopped.rate(*standings))}"
        for standings in (
            (Status.NEAR_NATIVE,),
            (Status.SLOWER,),
            (Status.INCONCLUSIVE, Status.UNPROVEN),
        )
    ]
    return (scenario, f"{ratio:.2f}", *both, _rate(usual.naive_same))


def notes(result: Result) -> list[str]:
    """Return how to read the tables: parameters, rules, and what is no guarantee."""
    lines = [f"{one.name}: {one.words()}" for one in result.scenarios]
    lines += [
        f"{one.name}: a weaker guarantee, errors up to {_rate(one.error)}, since the data decide "
        "whether sessions are pooled"
        for one in result.scenarios
        if one.weaker
    ]
    lines += [f"{one.name}: no guarantee, {one.limit}" for one in result.scenarios if one.limit]
    lines.append(
        f"Each block visits native, native again and the target in random order, {_WISH.iterations}"
        f" iterations a visit; {result.replications} runs a row; seed {result.seed}. Stopped: at "
        f"the first interim analysis (every {plan.BLOCKS_BETWEEN_ANALYSES} blocks from"
        f" {plan.FIRST_INTERIM_ANALYSIS}) at which both "
        f"intervals are within {_rate(_WISH.precision)}, or after {_WISH.maximum_blocks} blocks."
    )
    lines.append(
        "Naive: on the same machine all of native first and then all of the target, iterations "
        'pooled, ratio of means, 95 % t interval; "the same" is what it calls a difference that is '
        "not significant."
    )
    lines.append(RULE)
    if result.families is not None:
        one = result.families
        lines.append(
            f"Verdicts are given cell by cell, and their error is a cell's, not a run's: of "
            f"{one.cells} cells on the margin at least one has p < 5 % in {_rate(one.own)} of "
            f"{one.families} runs, by Holm's adjusted p in {_rate(one.adjusted)}."
        )
    return lines


def sentence(result: Result) -> str:
    """Return what all this shows."""
    count, broken = len(result.findings), result.broken
    if broken:
        listed = "; ".join(one.words() for one in broken)
        return f"{len(broken)} of {count} guarantees are broken: {listed}."
    weaker = "".join(
        f" For {one.name} the guarantee is weaker: errors up to {_rate(one.error)}."
        for one in result.scenarios
        if one.weaker and not one.limit
    )
    return (
        f"All {count} guarantees hold in {result.replications} simulated runs of each kind: "
        "intervals hold the true ratio as often as they say, and no more verdicts are wrong than "
        f"are allowed to be.{weaker}"
    )


def markdown(result: Result) -> str:
    """Return tables, notes and the closing sentence as Markdown."""
    parts = []
    for table in tables(result):
        lines = [table.head, ("---",) * len(table.head), *table.rows]
        parts.append(f"### {table.title}")
        parts.append("\n".join(f"| {' | '.join(line)} |" for line in lines))
    parts.append("\n".join(f"- {line}" for line in notes(result)))
    parts.append(f"**{sentence(result)}**")
    return "\n\n".join(parts)


def _rate(share: float | None) -> str:
    """Return a share to a tenth of a percent: 4.9 %, 95 %."""
    return "-" if share is None else f"{share * 100:.1f}".removesuffix(".0") + " %"
