"""The trial before a run: measures every cell once with little work.

It checks answers and evidence, and shows how long everything takes.
"""

import contextlib
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from isobench.config.options import Launch, RunOptions
from isobench.model import (
    Block,
    Cause,
    Gap,
    Plan,
    Sample,
    Schedule,
    Scope,
    Turns,
    Visit,
    Work,
    Workload,
    commands,
    plan,
)
from isobench.model.errors import UnavailableError
from isobench.model.units import SECOND, TargetName, WorkloadName
from isobench.plugins.api import Preparer, Session, Target, Throttled
from isobench.run import turns
from isobench.run.measure import Runner
from isobench.run.rounds import is_interactive
from isobench.run.sessions import OpeningFailures, OpenSession
from isobench.stats import sequential
from isobench.workloads import classes

PILOT_ITERATIONS: Final = 2
# GROWTH times the loops must take at least GROWN * GROWTH times as long.
GROWTH, GROWN, MOST_COMPARISONS = 8, 0.25, 3
# The shortest is a thousand times the resolution of a slow timer (4 microseconds).
SHORTEST, LONGEST = 0.004, 0.1
"""Bounds of one timed iteration, in seconds."""
# A CPU quota has periods of 100 ms. A visit has six iterations, which must outlast a period: a
# shorter visit could fall between two throttlings, or into one.
ROUND: Final = 0.02
"""Seconds of an iteration in a run of many blocks."""
# The trial sees a visit at its quickest, with little work and no noise.
HEADROOM: Final = 0.2
"""The share of a workload's time limit that a visit may take in the plan."""
WANTED_BLOCKS: Final = 15
ROUND_SIZES: Final = ((turns.LENGTH, 1.0), (turns.LENGTH, 0.6), (0.006, 0.5), (SHORTEST, 0.4))
"""Lengths of turns in seconds, and shares of the rounds: the first is used with which enough blocks
fit, or which makes blocks little longer than the last one does.
"""
LITTLE: Final = 1.3
"""Where starts take most of a block, it takes only so many times as long with far more rounds. What
blocks of few rounds differ by is nearly all the chance of their rounds.
"""
TURN_OVERHEAD: Final = 0.0005
"""Seconds of a turn beside its iteration: the request, its answer, and isobench itself."""
# More blocks make intervals narrower than longer iterations do. In tests/bench/bench_dial.py, with
# a neighbour that works in bursts, 40 blocks gave intervals ten times narrower than ten.
MANY_BLOCKS: Final = 40
RESERVE: Final = 0.9
"""The share of the remaining budget that the plan uses."""
FEWEST_BLOCKS: Final = 3
"""So many blocks are measured even if they exceed the budget: fewer have no interval."""
EXPENSIVE: Final = 1.0
"""A target is slow to open if opening and proving a session takes more seconds than this."""
OPENINGS_TO_TRY: Final = 5
"""The trial of a target that is slow to open takes about as long as so many openings."""
OPENINGS_A_BLOCK: Final = 3
"""A block of such a target takes about as long as so many openings."""


@dataclass(kw_only=True)
class Pilot:
    """The results of the trial."""

    unit: dict[tuple[TargetName, WorkloadName], float] = field(default_factory=dict)
    """Seconds of one loop, for loop workloads."""
    extra: dict[tuple[TargetName, WorkloadName], float] = field(default_factory=dict)
    """Seconds of a visit without its timed part. For starts: seconds of one start. For starts of a
    target that is slow to open: seconds of the whole visit.
    """
    opening: dict[TargetName, float] = field(default_factory=dict)
    """Seconds to open and prove a session."""
    proving: dict[TargetName, float] = field(default_factory=dict)
    """Seconds to prove a session that is open."""
    interactive: set[TargetName] = field(default_factory=set)
    """The targets in whose sessions payloads can wait for their turns."""
    throttled: set[TargetName] = field(default_factory=set)
    """The targets with a CPU quota."""
    left_out: set[tuple[TargetName, WorkloadName]] = field(default_factory=set)
    dead: set[TargetName] = field(default_factory=set)

    @property
    def expensive(self) -> tuple[TargetName, ...]:
        """The targets whose sessions are slow to open."""
        return tuple(
            name
            for name, taken in self.opening.items()
            if taken > EXPENSIVE and name not in ("native", *self.dead)
        )

    def kept(self, launch: Launch, native: TargetName) -> tuple[TargetName, ...]:
        """Return the targets whose sessions serve several blocks."""
        # Never native: it is in every ratio, and should have as many sessions as there are blocks.
        # Opening one takes no time.
        names = {Launch.AUTO: self.expensive, Launch.FRESH: (), Launch.REUSE: tuple(self.opening)}
        return tuple(name for name in names[launch] if name not in (native, *self.dead))

    def cost(
        self,
        length: float,
        work: RunOptions,
        labels: Sequence[TargetName],
        workloads: Mapping[WorkloadName, Workload],
        native: TargetName,
        *,
        kept: Collection[TargetName] = (),
    ) -> float:
        """Return about how many seconds a block takes whose native iterations take `length`
        seconds, without the openings of sessions that are `kept` for several blocks.
        """
        total = 0.0
        for label in labels:
            taken = self.proving if label in kept else self.opening
            total += taken.get(plan.actual(label), 0.0)
            for workload in workloads.values():
                total += self.cost_of_cell(label, workload, work, length, native)
        return total

    def cost_of_cell(
        self,
        label: TargetName,
        workload: Workload,
        work: RunOptions,
        length: float,
        native: TargetName,
    ) -> float:
        """Return about how many seconds a cell takes in a block; 0: it is not measured."""
        key = (plan.actual(label), workload.name)
        if key in self.left_out or key[0] in self.dead or key not in self.extra:
            return 0.0
        if workload.scope is not Scope.LOOP:
            once = workload.scope is Scope.SESSION and key[0] in self.expensive
            return self.extra[key] * (1 if once else self.starts(label, workload, work) + 1)
        loops = self.loops(workload, work, length, native)
        if work.schedule is Schedule.ROUNDS:
            return self._cost_of_turns(key, workload, work, loops, native)
        return self.extra[key] + _rounds(workload, work) * self.unit[key] * loops

    def _cost_of_turns(
        self,
        key: tuple[TargetName, WorkloadName],
        workload: Workload,
        work: RunOptions,
        loops: int,
        native: TargetName,
    ) -> float:
        """Return about how many seconds a cell takes in a block of rounds."""
        own = self.turns(key[0], workload, loops, work.rounds, native)
        made, rounds = (loops, work.rounds) if own is None else (own.loops, own.rounds)
        known = classes.get(workload.class_name)
        passes = 1 + (1 + (turns.UNTIMED_SHARE if known.untimed else 0)) * rounds
        total = self.extra[key] + passes * known.overhead * self.unit[key] * made
        if key[0] not in self.interactive:
            return total + (rounds - 1) * self.extra[key]
        # Native's own turns beside a slow target are short.
        beside = 0.0 if made == loops else rounds * self.unit.get((native, key[1]), 0.0) * made
        return total + rounds * TURN_OVERHEAD + beside

    def turns(
        self,
        label: TargetName,
        workload: Workload,
        loops: int,
        rounds: int,
        native: TargetName,
    ) -> Turns | None:
        """Return how a target takes part in rounds in which native makes `loops` loops at a time;
        None: as native does.
        """
        unit, home = (self.unit.get((each, workload.name)) for each in (label, native))
        if label == native or unit is None or home is None:
            return None
        return turns.of_target(
            loops=loops,
            rounds=rounds,
            native=home * loops,
            slowdown=unit / home,
            interactive=label in self.interactive,
            throttled=label in self.throttled,
        )

    def starts(self, label: TargetName, workload: Workload, work: RunOptions) -> int:
        """Return how many starts of a label a block has."""
        fewest = work.starts if workload.scope is Scope.SESSION else work.iterations
        taken = self.extra.get((plan.actual(label), workload.name))
        if work.schedule is not Schedule.ROUNDS or taken is None:
            return fewest
        return turns.starts(fewest=fewest, most=2 * work.rounds, seconds=taken)

    def loops(self, workload: Workload, work: RunOptions, length: float, native: TargetName) -> int:
        """Return how many loops an iteration of `length` seconds has natively.

        It returns fewer where a slow target would come near the time limit, but always enough for
        the shortest iteration that can be timed, or for the length that the user has set.
        """
        # All targets do the same work, and some are a thousand times slower than native.
        units = {label: unit for (label, name), unit in self.unit.items() if name == workload.name}
        home = units.get(native, max(units.values(), default=1.0))
        slowest = max(units.values(), default=home)
        wanted = loops_for(workload, home, length)
        if work.schedule is Schedule.ROUNDS:
            return wanted  # a slow target has less work in its turns
        limit = HEADROOM * workload.timeout / SECOND
        most = int(limit / max(_rounds(workload, work) * slowest, 1e-10))
        shortest = length if work.minimum_time is not None else SHORTEST
        return min(wanted, max(most, loops_for(workload, home, shortest)))


def _rounds(workload: Workload, work: RunOptions) -> int:
    """Return how long a visit takes, in iterations."""
    return (work.iterations + work.warmups) * classes.get(workload.class_name).overhead


def has_quota(target: Target) -> bool:
    """Return whether a target's instances may use only a share of the CPU time."""
    return isinstance(target, Throttled) and target.cpu_quota > 0


def loops_for(workload: Workload, unit: float, length: float) -> int:
    """Return how many loops of `unit` seconds make an iteration of `length` seconds."""
    loops = max(1, math.ceil(length / max(unit, 1e-10)))
    return min(loops, workload.most_loops or loops)


def _always_affordable(_pilot: Pilot, _label: TargetName) -> str:
    """Leave no target out."""
    return ""


def leave_out(runner: Runner, pilot: Pilot, label: TargetName, why: str) -> None:
    """Leave a target out of the plan, and write a gap for each of its cells."""
    pilot.dead.add(label)
    for name in runner.workloads:
        runner.sink.write(
            _left_out(label, name, why, commands.measure(runner.argv, {"--targets": label}))
        )


def leave_out_workload(
    runner: Runner, pilot: Pilot, name: WorkloadName, labels: Sequence[TargetName], why: str
) -> None:
    """Leave a workload out of the plan, and write a gap for each of its cells."""
    hint = commands.measure(runner.argv, {"--workloads": name})
    for label in labels:
        pilot.left_out.add((label, name))
        runner.sink.write(_left_out(label, name, why, hint))


def _left_out(label: TargetName, name: WorkloadName, why: str, hint: str) -> Gap:
    return Gap(
        block=0,
        target=label,
        workload=name,
        cause=Cause.UNAVAILABLE,
        detail=f"left out: {why}",
        hint=hint,
    )


def try_all(
    runner: Runner,
    labels: Sequence[TargetName],
    native: TargetName,
    *,
    progress: Callable[[str], None],
    too_expensive: Callable[[Pilot, TargetName], str] = _always_affordable,
    too_late: Callable[[], str] = str,
) -> Pilot:
    """Measure every cell once with little work, as block 0, which no estimate uses.

    `too_expensive` returns why a target is left out when the time of its opening is known;
    `too_late` why it is left out before it is opened. Both return "" to measure it.
    UnavailableError: native cannot be measured.
    """
    pilot = Pilot()
    names = list(runner.workloads)
    # Native comes first, since its evidence and checksums are compared with those of the others.
    # Targets that need preparation are likely slow: they are last, when the cost of all others is
    # known.
    others = [name for name in labels if name != native]
    others.sort(key=lambda name: isinstance(runner.targets[name], Preparer))
    for label in [native, *others]:
        if label != native and (late := too_late()):
            leave_out(runner, pilot, label, late)
            continue
        block = plan.block(0, [label], names, seed=0, shuffled=False)
        with _opened(runner, block, pilot) as (good, bad):
            if label in bad:
                pilot.dead.add(label)
            elif label in pilot.expensive and (why := too_expensive(pilot, label)):
                leave_out(runner, pilot, label, why)
                continue
            # Known before the visits of the trial, which then make only one start of it.
            runner.expensive.update(pilot.expensive)
            for visit in block.visits:
                progress(f"trying {label}")
                if label in bad:
                    runner.sink.write(replace(bad[label], workload=visit.workload))
                    continue
                _try(runner, visit, good[label], pilot)
    if native in pilot.dead:
        raise UnavailableError(
            "native cannot be measured: its payloads do not run", hint="isobench doctor"
        )
    return pilot


@contextlib.contextmanager
def _opened(
    runner: Runner, block: Block, pilot: Pilot
) -> Iterator[tuple[dict[TargetName, OpenSession], dict[TargetName, Gap]]]:
    """Open the one session of a trial, and record how long that takes."""
    # A slow one is opened a second time: the first may have made an image or filled a cache, which
    # no later one does.
    (label,) = block.sessions
    while True:
        began = time.monotonic()
        with runner.sessions(block, OpeningFailures()) as (good, bad):
            taken = time.monotonic() - began
            if label in good and is_interactive(good[label].session):
                pilot.interactive.add(label)
            if has_quota(runner.targets[label]):
                pilot.throttled.add(label)
            again = taken > EXPENSIVE and label in good and label not in pilot.opening
            pilot.opening[label] = min(taken, pilot.opening.get(label, taken))
            if not again:
                if label in good:
                    pilot.proving[label] = good[label].proving
                yield good, bad
                return


def _try(runner: Runner, visit: Visit, opened: OpenSession, pilot: Pilot) -> None:
    workload = runner.workloads[visit.workload]
    loops = workload.answer.loops if workload.answer else 1
    iterations = PILOT_ITERATIONS if workload.scope is Scope.LOOP else 1
    began = time.monotonic()
    work = Work(workload=visit.workload, loops=loops, iterations=iterations)
    records = runner.visit_in(opened, visit, work)
    spent = time.monotonic() - began
    for record in records:
        runner.sink.write(record)
    runner.sink.sync()
    key = (visit.target, visit.workload)
    times = [
        r.value / r.operations / SECOND
        for r in records
        if isinstance(r, Sample) and r.metric == "time"
    ]
    if any(isinstance(record, Gap) for record in records) or not times:
        pilot.left_out.add(key)
        return
    if workload.scope is Scope.LOOP:
        # The host's time of the visit is an upper bound. It stands in for a clock inside that is
        # too coarse and shows 0. A plan from a longer time, which a target can report, would leave
        # no room for others.
        longest = spent / (iterations * loops)
        shown = min(times) or longest
        pilot.unit[key] = shown if visit.target == "native" else min(shown, longest)
        if visit.target == "native" and not _grows(
            runner, visit, opened.session, loops, min(times)
        ):
            pilot.left_out.add(key)
        pilot.extra[key] = max(0.0, spent - (iterations + 1) * pilot.unit[key] * loops)
    else:
        twice = workload.scope is Scope.SESSION and visit.target not in runner.expensive
        # The visit had two starts: one for the evidence, one timed.
        pilot.extra[key] = spent / 2 if twice else spent


def _shortest(runner: Runner, visit: Visit, loops: int, session: Session | None) -> float | None:
    """Return the shortest of some iterations in seconds; None if none was measured."""
    work = Work(workload=visit.workload, loops=loops, iterations=PILOT_ITERATIONS)
    records = runner.visit(visit, work, session)
    times = [r.value for r in records if isinstance(r, Sample) and r.metric == "time"]
    return min(times) / SECOND if times else None


def _grows(runner: Runner, visit: Visit, session: Session | None, loops: int, unit: float) -> bool:
    """Return whether more loops take longer. If not, write a gap.

    It finds payloads that ignore their loops, or whose work the compiler has removed.
    """
    most = runner.workloads[visit.workload].most_loops or loops * GROWTH**MOST_COMPARISONS
    more = min(loops * GROWTH, most)
    fewer = unit * loops
    longer: float | None = None
    for number in range(MOST_COMPARISONS):
        # Other work on the host may have delayed all iterations: of two threads, one waits for
        # milliseconds until a CPU is free, however little it has to do. So both are measured again,
        # and the work grows until it outlasts such delays, which a payload that does none never
        # does.
        if number > 0:
            again = _shortest(runner, visit, loops, session)
            fewer = fewer if again is None else min(fewer, again)
            if longer is not None and longer >= GROWN * fewer * more / loops:
                return True
            if more * GROWTH <= most:
                loops, fewer, more = more, longer or 0.0, more * GROWTH
        longer = _shortest(runner, visit, more, session)
        if longer is None or longer >= GROWN * fewer * more / loops:
            return True
    detail = (
        f"{more} loops took {(longer or 0) * SECOND:.0f} ns, {loops} loops {fewer * SECOND:.0f} ns:"
        " the time does not grow with the work"
    )
    runner.sink.write(
        Gap(
            block=0,
            target=visit.target,
            workload=visit.workload,
            cause=Cause.FAILED,
            detail=detail,
            hint="the payload must do its work `loops` times, and its checksum must need all of it",
        )
    )
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How long a block is."""

    length: float
    """Seconds of an iteration natively."""
    blocks: int
    """About how many blocks then fit into the budget."""
    rounds: int
    """How many turns each target has in a block of rounds."""


def choose_size(
    pilot: Pilot,
    options: RunOptions,
    workloads: Mapping[WorkloadName, Workload],
    labels: Sequence[TargetName],
    *,
    native: TargetName,
    seconds_left: float,
) -> Size:
    """Return how long native iterations are, and how many of them a block has, so that enough
    blocks fit into `seconds_left`.
    """
    # Five blocks have an interval, and no verdict.
    wanted = 5 if options.quick else max(WANTED_BLOCKS, options.minimum_blocks)
    wanted = min(wanted, options.maximum_blocks)
    many = wanted if options.quick else min(max(MANY_BLOCKS, wanted), options.maximum_blocks)
    kept = pilot.kept(options.launch, native)
    openings = sum(pilot.opening[name] for name in kept)

    def cost(length: float, rounds: int) -> float:
        sized = replace(options, rounds=rounds)
        return pilot.cost(length, sized, labels, workloads, native, kept=kept)

    def fits(length: float, rounds: int = options.rounds) -> int:
        left = seconds_left * RESERVE
        # Up to three blocks each open their own sessions; more share the sessions of three.
        block = max(cost(length, rounds), 1e-9)
        few, more = left / (block + openings), (left - plan.FEWEST_SESSIONS * openings) / block
        return int(max(min(few, plan.FEWEST_SESSIONS), more))

    if options.minimum_time is not None:
        length = options.minimum_time
        return Size(length=length, blocks=fits(length), rounds=options.rounds)
    if options.schedule is Schedule.ROUNDS:
        sizes = [
            Size(length=length, blocks=fits(length, rounds), rounds=rounds)
            for length, share in ROUND_SIZES
            for rounds in (max(turns.FEWEST, round(options.rounds * share)),)
        ]
        most = LITTLE * cost(sizes[-1].length, sizes[-1].rounds)
        return next(
            size
            for size in sizes
            if size.blocks >= wanted or cost(size.length, size.rounds) <= most
        )
    length = LONGEST
    steps = [(many, ROUND), (wanted, SHORTEST)]
    if options.schedule is Schedule.DUET:
        # The two programs of a duet overlap only in the middle of their visits, so that these must
        # be long; and one ratio needs two blocks, since the halves of the CPUs are swapped.
        steps = [(max(2 * sequential.FIRST_STOP, wanted), 2 * ROUND)]
    for blocks, shortest in steps:
        while length > shortest and fits(length) < blocks:
            length = max(0.9 * length, shortest)
    return Size(length=length, blocks=fits(length), rounds=options.rounds)


def restore(runner: Runner, made: Plan) -> None:
    """Restore for a resumed plan what its trial had shown, and measure native's evidence and
    checksums again. UnavailableError: native cannot be measured.
    """
    runner.expensive.update(made.expensive)
    names = [item.workload for item in made.work]
    block = plan.block(0, [made.reference], names, seed=0, shuffled=False)
    with runner.sessions(block, OpeningFailures()) as (good, bad):
        for item in made.work:
            if made.reference in bad:
                raise UnavailableError(bad[made.reference].detail, hint="isobench doctor")
            if runner.workloads[item.workload].scope is Scope.LOOP:
                visit = Visit(block=0, target=made.reference, workload=item.workload)
                runner.visit(visit, replace(item, iterations=1), good[made.reference].session)
