"""Simulates runs with a known true ratio, and judges them by the functions that judge real runs.

Nothing is timed. A scenario gives the times of native, of native's second visit and of a target.
The estimators, the stopping rule and the verdicts of real runs are applied to them, and a `Row`
counts how often these were right.
"""

import math
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis import verdict
from isobench.config.options import RunOptions
from isobench.evidence import doubts
from isobench.model import Estimate, Interval, Status, plan
from isobench.model.units import TargetName, WorkloadName
from isobench.selftest.scenarios import SCENARIOS, STALL, TREND_BLOCKS, Scenario

REPLICATIONS: Final = 1000
RIGOROUS: Final = 5000
SEED: Final = 1
LENGTHS: Final = (10, 15, 20, 30)
"""Numbers of blocks of runs that do not stop early."""
USUAL: Final = 15
"""The length for the table of verdicts, next to runs that stop early."""
RATIOS: Final = (1.0, 1.02, 1.05, 1.10)
"""True ratios; the third lies on the margin."""
FAR: Final = (2.0, 100.0)
"""True ratios of cells that leave at once."""
FAMILY: Final = 20
"""The number of cells that are tested together."""
ALARM_LEVEL: Final = 0.95
STOPPED: Final = "stopped"
"""The length of runs that stop when their intervals are narrow."""
LEFT: Final = "left"
"""The length of cells that leave when they are decided, or stay until the end."""
RULE: Final = stats.sequential.RULE
OPTIONS: Final = RunOptions()
"""The options of a run by default."""
WIDEST: Final = OPTIONS.leave_width or math.inf
"""The half width at which a decided cell leaves."""
MARGIN: Final = 1 + OPTIONS.margin
MOST_BLOCKS: Final = 60
PRECISION: Final = 0.025
"""The most blocks, and the half width at which they end, of the runs that stop early."""
_VISITS: Final = 3
"""The visits of each block: native, native again, the target."""
# So many runs at once need some megabytes of memory.
_BATCH: Final = 500
_RATE_DIGITS: Final = 4
_OPEN: Final = (Status.INCONCLUSIVE, Status.UNPROVEN)

Floats = NDArray[np.float64]


# ---- simulated times


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedRuns:
    """Many simulated runs of one scenario: block log-ratios (runs, blocks), and the results of the
    naive method on the same machine (runs,).
    """

    subject: Floats
    control: Floats
    sessions: NDArray[np.int64] | None
    naive_log_ratio: Floats
    naive_reach: Floats
    """Half the width of its 95 % interval, as a logarithm."""


def simulated(
    scenario: Scenario, *, ratio: float, runs: int, blocks: int, served: int, seed: Sequence[int]
) -> SimulatedRuns:
    """Return runs of so many blocks whose target takes `ratio` times as long as native.

    A session of the target serves `served` blocks. The same `seed` gives the same runs.
    """
    rng = np.random.default_rng(list(seed))
    shape = (_VISITS, runs, blocks)
    logs = scenario.launch * _deviates(rng, scenario, shape)[..., np.newaxis]
    logs = logs + scenario.iteration * _deviates(rng, scenario, (*shape, OPTIONS.iterations))
    logs += STALL * (rng.random(shape) < scenario.stalls)[..., np.newaxis]
    sessions = None
    if scenario.session:
        sessions = np.arange(blocks, dtype=np.int64) // served
        shared = scenario.session * rng.standard_normal((runs, blocks))
        logs[2] += shared[:, sessions, np.newaxis]
    logs[2] += math.log(ratio)
    state = _state(rng, scenario, runs, _VISITS * blocks)
    phase = rng.random(logs.shape)  # an iteration begins anywhere between two ticks

    def read(visit: int, slots: NDArray[np.int64]) -> Floats:
        """Return the times that the clock shows for one visit of each block, in these slots."""
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
    # The naive method has the same machine, launches and iterations, but measures all of native
    # first and then all of the target.
    first = np.broadcast_to(np.arange(blocks), (runs, blocks))
    naive_log_ratio, naive_reach = _naive(read(0, first), read(2, first + blocks))
    return SimulatedRuns(
        subject=_alike(_log_ratios(subject, native), math.log(ratio), scenario.alike),
        control=_alike(_log_ratios(control, native), 0.0, scenario.alike),
        sessions=sessions,
        naive_log_ratio=naive_log_ratio,
        naive_reach=naive_reach,
    )


def _deviates(rng: np.random.Generator, scenario: Scenario, shape: tuple[int, ...]) -> Floats:
    if scenario.freedom is None:
        return np.asarray(rng.standard_normal(shape), dtype=np.float64)
    return np.asarray(rng.standard_t(scenario.freedom, shape), dtype=np.float64)


def _state(rng: np.random.Generator, scenario: Scenario, runs: int, visits: int) -> Floats:
    """Return the logarithm of the machine's speed at each visit, (runs, visits)."""
    rising = math.log1p(scenario.trend) * np.arange(visits) / (TREND_BLOCKS * _VISITS)
    state = np.broadcast_to(rising, (runs, visits)).copy()
    if scenario.wander:
        # The autocorrelation is given per block, and a block has several visits.
        kept = scenario.memory ** (1 / _VISITS)
        steps = rng.standard_normal((runs, visits))
        pace = steps[:, 0]
        for visit in range(visits):
            if visit:
                # The second factor keeps the variance at 1 from visit to visit.
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


def _alike(log_ratios: Floats, middle: float, memory: float) -> Floats:
    """Return log-ratios of the same spread, each of which resembles the one before: AR(1)."""
    if not memory:
        return log_ratios
    off = log_ratios - middle
    for block in range(1, off.shape[1]):
        off[:, block] = memory * off[:, block - 1] + math.sqrt(1 - memory**2) * off[:, block]
    return middle + off


def _naive(before: Floats, after: Floats) -> tuple[Floats, Floats]:
    """Return the logarithm of the ratio of the means of all iterations, and the half width of its t
    interval: a common method, which wrongly takes iterations for independent.
    """
    pooled = [side.reshape(side.shape[0], -1) for side in (before, after)]
    count = pooled[0].shape[1]
    means = [side.mean(axis=1) for side in pooled]
    # The variance of the logarithm of a mean, by the delta method.
    variances = [
        side.var(axis=1, ddof=1) / count / mean**2 for side, mean in zip(pooled, means, strict=True)
    ]
    quantile = stats.student_quantile(ALARM_LEVEL, 2 * count - 2)
    return np.log(means[1] / means[0]), quantile * np.sqrt(variances[0] + variances[1])


# ---- rows


@dataclass(slots=True)
class _Tally:
    """Counts the results of the runs of one row."""

    truth: float
    runs: int = 0
    alarms: int = 0
    covered: int = 0
    blocks: int = 0
    widths: list[float] = field(default_factory=list)
    p_equivalence: list[float] = field(default_factory=list)
    verdicts: Counter[Status] = field(default_factory=Counter)
    naive_alarms: int = 0
    naive_same: int = 0
    naive_widths: list[float] = field(default_factory=list)

    def add(self, found: Estimate, strict: Interval, status: Status) -> None:
        """Count one run; `strict` is its interval at ALARM_LEVEL."""
        # A 95 % interval for the rate of alarms; the reported one is nominally 97 %.
        self.runs += 1
        self.alarms += not strict.low <= self.truth <= strict.high
        self.covered += found.interval.low <= self.truth <= found.interval.high
        self.blocks += found.blocks
        self.widths.append(stats.half_width(found.interval))
        self.p_equivalence.append(found.p_equivalence)
        self.verdicts[status] += 1

    def add_naive(self, runs: SimulatedRuns) -> None:
        """Count the results of the naive method."""
        missed = np.abs(runs.naive_log_ratio - math.log(self.truth)) > runs.naive_reach
        self.naive_alarms += int(missed.sum())
        self.naive_same += int((np.abs(runs.naive_log_ratio) <= runs.naive_reach).sum())
        self.naive_widths += np.expm1(runs.naive_reach).tolist()


def judged(found: Estimate, control: stats.Location, *, sessions: int) -> Status:
    """Return the verdict on a simulated cell; a run has this cell and its control alone."""
    return verdict.judge(
        target=TargetName("simulated"),
        workload=WorkloadName("simulated"),
        estimate=found,
        noise=0.0 if control.deviation > 0 else None,  # only whether it is known matters
        bias=stats.biases({0: control}).get(0),
        margin=MARGIN,
        doubts=doubts.of_sessions(sessions, found.blocks, fewest=plan.FEWEST_SESSIONS),
    ).status


@dataclass(frozen=True, slots=True)
class _Analysis:
    """Some of the simulated runs after so many blocks."""

    runs: SimulatedRuns
    blocks: int
    which: NDArray[np.int64]
    """The rows of `runs`."""

    @property
    def labels(self) -> NDArray[np.int64] | None:
        """The session of each block."""
        return None if self.runs.sessions is None else self.runs.sessions[: self.blocks]

    @property
    def sessions(self) -> int:
        """The number of sessions."""
        return self.blocks if self.labels is None else np.unique(self.labels).size

    @property
    def has_few_sessions(self) -> bool:
        """Whether there are too few sessions for a verdict."""
        return bool(doubts.of_sessions(self.sessions, self.blocks, fewest=plan.FEWEST_SESSIONS))

    def of(self, which: NDArray[np.bool_]) -> "_Analysis":
        """Return the same of some of these runs."""
        return _Analysis(self.runs, self.blocks, self.which[which])

    def estimates(self, level: float) -> list[Estimate]:
        """Return the estimates of the target, made as in new runs."""
        rows = self.runs.subject[self.which, : self.blocks]
        return stats.estimates(
            rows, sessions=self.labels, margin=MARGIN, level=level, correlated=True
        )

    def locations(self) -> list[stats.Location]:
        """Return what these estimates rest on."""
        rows = self.runs.subject[self.which, : self.blocks]
        return stats.locations(rows, sessions=self.labels, correlated=True)

    def controls(self) -> list[stats.Location]:
        """Return the same of the control."""
        return stats.locations(self.runs.control[self.which, : self.blocks], correlated=True)

    def statuses(self, found: Sequence[Estimate]) -> list[Status]:
        """Return the verdicts on estimates of these runs."""
        return [
            judged(one, control, sessions=self.sessions)
            for one, control in zip(found, self.controls(), strict=True)
        ]


def _count(tally: _Tally, analysis: _Analysis, level: float = RULE.final) -> None:
    """Judge runs at this level and count them."""
    if not analysis.which.size:
        return
    found = analysis.estimates(level)
    strict = [one.interval(ALARM_LEVEL) for one in analysis.locations()]
    for each in zip(found, strict, analysis.statuses(found), strict=True):
        tally.add(*each)


def _judge_stopped(tally: _Tally, runs: SimulatedRuns) -> None:
    """Judge each run at the first interim analysis at which its intervals are narrow, or at the
    maximum length.
    """
    count, greatest = runs.subject.shape
    # A run leaves at the first analysis at which both its intervals are narrow, as real runs do.
    left = np.arange(count, dtype=np.int64)
    for blocks in filter(stats.sequential.may_stop, range(greatest)):
        analysis = _Analysis(runs, blocks, left)
        if analysis.has_few_sessions:
            continue
        cells = zip(analysis.locations(), analysis.controls(), strict=True)
        done = np.array([_is_narrow(pair) for pair in cells], dtype=np.bool_)
        _count(tally, analysis.of(done))
        left = left[~done]
    _count(tally, _Analysis(runs, greatest, left))


def _is_narrow(pair: Sequence[stats.Location]) -> bool:
    """Return whether a run with this cell and this control may stop: see `stats.narrow`."""
    widths = [stats.half_width(one.interval(RULE.final)) for one in pair]
    return max(widths) <= PRECISION


def _judge_left(tally: _Tally, runs: SimulatedRuns) -> None:
    """Judge each cell at the analysis at which it may leave, or at the maximum length."""
    count, greatest = runs.subject.shape
    left = np.arange(count, dtype=np.int64)
    for blocks in filter(stats.sequential.is_analysis, range(greatest)):
        analysis = _Analysis(runs, blocks, left)
        if analysis.has_few_sessions or not left.size:
            continue
        done = _may_leave(analysis)
        _count(tally, analysis.of(done), RULE.interim)
        left = left[~done]
    _count(tally, _Analysis(runs, greatest, left))


def _may_leave(analysis: _Analysis) -> NDArray[np.bool_]:
    """Return which cells are decided and known well enough."""
    may = np.array(
        [
            verdict.is_definite(decides := one.interval(RULE.interim), MARGIN)
            and verdict.is_known(decides, one.interval(RULE.final), MARGIN, WIDEST)
            for one in analysis.locations()
        ],
        dtype=np.bool_,
    )
    if may.any():
        statuses = analysis.of(may).statuses(analysis.of(may).estimates(RULE.interim))
        may[may] = [one not in _OPEN for one in statuses]
    return may


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Identifies a row: its scenario, true ratio and length."""

    scenario: str
    ratio: float
    length: str
    """A number of blocks, STOPPED or LEFT."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of figures. Rates and widths are shares, 0 to 1."""

    scenario: str
    ratio: float
    """The true one."""
    length: str
    """A number of blocks; STOPPED or LEFT: as many as it took."""
    runs: int
    blocks: float
    """Mean number of blocks."""
    alarms: float
    """How often a 95 % interval misses the true ratio. The nominal rate is 5 %."""
    coverage: float
    """How often the reported interval contains the true ratio: nominally 97 %, and 99.9 % where the
    cell left.
    """
    half_width: float
    """The median half width of the reported intervals."""
    verdicts: Mapping[str, float]
    """How often each verdict is given."""
    naive_alarms: float | None
    """How often the 95 % interval of the naive method misses the true ratio. None: the method has
    no stopping rule.
    """
    naive_same: float | None
    """How often the naive method finds no significant difference, and calls that equal."""
    naive_half_width: float | None

    def rate(self, *verdicts: Status) -> float:
        """Return how often one of these verdicts is given."""
        return sum(self.verdicts.get(str(one), 0.0) for one in verdicts)

    @property
    def place(self) -> Place:
        """The scenario, the true ratio and the length of the row."""
        return Place(scenario=self.scenario, ratio=self.ratio, length=self.length)


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
        verdicts={str(one): share(tally.verdicts[one]) for one in Status},
        naive_alarms=share(tally.naive_alarms) if naive else None,
        naive_same=share(tally.naive_same) if naive else None,
        naive_half_width=float(np.median(tally.naive_widths)) if naive else None,
    )


def _tally(scenario: Scenario, ratio: float, length: str, replications: int, seed: int) -> _Tally:
    """Simulate and judge the runs of one row, a batch at a time."""
    tally = _Tally(ratio)
    blocks = MOST_BLOCKS if length in {STOPPED, LEFT} else int(length)
    served = plan.blocks_per_session(blocks)
    # Each row has its own seed, so that its runs do not depend on the other rows.
    # CRC-32, since hash() of a text differs from process to process (PYTHONHASHSEED).
    own = (seed, zlib.crc32(f"{scenario.name} {ratio} {length}".encode()))
    for batch, begun in enumerate(range(0, replications, _BATCH)):
        runs = simulated(
            scenario,
            ratio=ratio,
            runs=min(_BATCH, replications - begun),
            blocks=blocks,
            served=served,
            seed=(*own, batch),
        )
        if length == STOPPED:
            _judge_stopped(tally, runs)
        elif length == LEFT:
            _judge_left(tally, runs)
        else:
            _count(tally, _Analysis(runs, blocks, np.arange(len(runs.subject), dtype=np.int64)))
            tally.add_naive(runs)
    return tally


# ---- families


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """How often any of many cells on the margin is called near-native.

    This rate is not guaranteed, since verdicts are given for each cell by itself.
    """

    cells: int
    families: int
    own: float
    """With each cell's own p value, which verdicts use. The error of a cell is 5 %, that of a run
    is larger.
    """
    adjusted: float
    """With p values after Holm's correction."""


def _families(p_values: Sequence[Sequence[float]]) -> Families | None:
    """Return the figures of families of FAMILY cells; None: there are too few cells."""
    # Each family has cells of every scenario.
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


# ---- the whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Simulation:
    """All figures."""

    seed: int
    replications: int
    scenarios: tuple[Scenario, ...]
    rows: tuple[Row, ...]
    families: Families | None

    def row(self, scenario: str, ratio: float, length: str) -> Row:
        """Return one row; StopIteration: there is none."""
        place = Place(scenario=scenario, ratio=ratio, length=length)
        return next(row for row in self.rows if row.place == place)


def run(
    *,
    replications: int = REPLICATIONS,
    seed: int = SEED,
    scenarios: Sequence[Scenario] = SCENARIOS,
    progress: Callable[[str, int, int], None] = lambda _what, _done, _all: None,
) -> Simulation:
    """Simulate `replications` runs for every row.

    The same seed gives the same figures. `progress` is called before each row with what comes next,
    how many rows are done, and how many there are.
    """
    lengths: dict[float, tuple[str, ...]] = {ratio: (str(USUAL), STOPPED, LEFT) for ratio in RATIOS}
    lengths[1.0] = (*map(str, LENGTHS), STOPPED, LEFT)
    lengths |= dict.fromkeys(FAR, (LEFT,))
    todo = [
        (one, ratio, length) for one in scenarios for ratio in lengths for length in lengths[ratio]
    ]
    rows, edges = [], []
    for done, (scenario, ratio, length) in enumerate(todo):
        progress(f"{scenario.name}: true ratio {ratio:.2f}", done, len(todo))
        tally = _tally(scenario, ratio, length, replications, seed)
        rows.append(_row(scenario, ratio, length, tally))
        if (ratio, length) == (MARGIN, str(USUAL)) and not scenario.limit:
            edges.append(tally.p_equivalence)
    return Simulation(
        seed=seed,
        replications=replications,
        scenarios=tuple(scenarios),
        rows=tuple(rows),
        families=_families(edges),
    )
