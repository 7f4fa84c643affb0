"""A whole run: look, build, try, plan, measure, answer. The command line says what is wanted; this
does it.
"""

import contextlib
import datetime as dt
import math
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec

from isobench import __version__, owner, places, plan, runner, workloads
from isobench.errors import (
    IsobenchError,
    NothingToRunError,
    SessionError,
    UnavailableError,
    UsageError,
)
from isobench.evidence import host
from isobench.model import (
    Abi,
    Availability,
    Available,
    Block,
    Cause,
    Gap,
    Lack,
    Payload,
    Plan,
    PromiseCheck,
    Sample,
    Scope,
    Unavailable,
    Visit,
    Work,
    Workload,
    host_abi,
)
from isobench.payload import build, stage
from isobench.plugin import Explains, Preparer, Session, Sweeper, Target
from isobench.registry import Registry
from isobench.units import SECOND, TargetName, WorkloadName

if TYPE_CHECKING:
    from isobench.store import Run, RunFolder

PILOT_ITERATIONS: Final = 2
GROWTH, GROWN = 8, 0.25
"""So many times the loops must take at least this share of so many times as long."""
SHORTEST, LONGEST = 0.004, 0.1
"""Bounds of one timed iteration in seconds: a thousand times a slow timer's resolution, and enough
for any.
"""
WANTED_BLOCKS: Final = 15
UNBOUNDED: Final = 86400.0
"""A budget of a day, in seconds, stands for none."""
RESERVE: Final = 0.9
"""Share of the remaining budget that is planned with."""
FEWEST_BLOCKS: Final = 3
"""So many are measured even when they overrun the budget: fewer have no interval."""
DEAR: Final = 1.0
"""A session that takes more seconds to open and prove is dear."""
OPENINGS_TO_TRY: Final = 5
"""A trial of a dear target takes about as long as so many openings."""
OPENINGS_A_BLOCK: Final = 3
"""And a block: a start, and work at the pace of something emulated."""


class Launch(StrEnum):
    """Whose sessions serve several blocks."""

    AUTO = "auto"  # those that are dear to open
    FRESH = "fresh"  # none: every block opens anew
    REUSE = "reuse"  # all but native's


@dataclass(frozen=True, kw_only=True)
class Wish:
    """What a user asks of `isobench run`. Times in seconds, shares as fractions (0.05 is 5 %)."""

    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    folders: tuple[Path, ...] = ()
    require: tuple[str, ...] = ()
    budget: float = 300.0
    minimum_blocks: int = 10
    maximum_blocks: int = 60
    iterations: int = 5
    starts: int = 3
    minimum_time: float | None = None
    margin: float = 0.05
    precision: float = 0.025
    seed: int | None = None
    quick: bool = False
    launch: Launch = Launch.AUTO
    shuffled: bool = True
    time_limit: float | None = None
    output: Path | None = None
    argv: tuple[str, ...] = ()


class Observer(Protocol):
    """Who is told how far the run is."""

    def say(self, text: str) -> None:
        """Hear of a step."""

    def looked(self, name: TargetName, answer: Availability) -> None:
        """Hear what a target answered."""

    def step(self, what: str, done: float, total: float) -> None:
        """Hear how far a step is."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Targets that can run, those that cannot, and what to run."""

    targets: Mapping[TargetName, Target]
    answers: Mapping[TargetName, Availability]
    workloads: Mapping[WorkloadName, Workload]

    @property
    def able(self) -> dict[TargetName, Target]:
        """The targets that said they can run."""
        return {n: t for n, t in self.targets.items() if isinstance(self.answers[n], Available)}


def look(
    targets: Mapping[TargetName, Target], heard: Callable[[TargetName, Availability], None]
) -> dict[TargetName, Availability]:
    """Ask all targets side by side what they can do here."""
    with ThreadPoolExecutor(max(1, len(targets))) as pool:
        asked = {name: pool.submit(_probe, target) for name, target in targets.items()}
        answers = {}
        for name, future in asked.items():
            answers[name] = future.result()
            heard(name, answers[name])
    return answers


def _probe(target: Target) -> Availability:
    """Ask one target; a plug-in that raises is reported like one that does not load."""
    try:
        return target.probe()
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in must not end isobench
        return Unavailable(
            lack=Lack.PLUGIN,
            what=f"its probe failed: {type(error).__name__}: {error}",
            hint="this is a fault of the target's plug-in: tell its author",
        )


def choose(
    wish: Wish, registry: Registry, workloads: Mapping[WorkloadName, Workload], observer: Observer
) -> Chosen:
    """Return what will run; UnavailableError when a target asked for by name cannot."""
    targets, explicit = registry.select(wish.targets)
    for name in wish.require:
        registry.get(name)
    answers = look(targets, observer.looked)
    needed = [*explicit, *(TargetName(name) for name in wish.require)]
    for name in dict.fromkeys([TargetName("native"), *needed]):
        answer = answers.get(name) or _probe(registry.get(name))
        if isinstance(answer, Unavailable):
            raise UnavailableError(f"{name} cannot run here: {answer.reason}", hint=answer.hint)
    if not workloads:
        raise NothingToRunError(
            "no workload is left to run", hint="isobench workloads lists them all"
        )
    return Chosen(targets=targets, answers=answers, workloads=workloads)


def prepare(chosen: Chosen, wish: Wish, registry: Registry, say: Callable[[str], None]) -> Chosen:
    """Make what targets keep between runs; one that cannot be prepared cannot run, and
    UnavailableError where it was asked for by name.
    """
    answers = dict(chosen.answers)
    _, explicit = registry.select(wish.targets)
    for name, target in chosen.able.items():
        if not isinstance(target, Preparer):
            continue
        try:
            target.prepare(say)
        except SessionError as error:
            if name in explicit or name in wish.require:
                raise UnavailableError(
                    f"{name} cannot be prepared: {error}", hint=error.hint
                ) from None
            say(f"{name} is left out: {error}")
            answers[name] = Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
    return replace(chosen, answers=answers)


def sweep(registry: Registry, *, everything: bool, observer: Callable[[str], None]) -> None:
    """Remove what dead runs have left; with `everything`, every trace of isobench but results."""
    for line in stage.sweep(owner.alive):
        observer(line)
    for name in registry.names():
        target = registry.get(name)
        if isinstance(target, Sweeper):
            for line in target.sweep(owner.alive, cached=everything):
                observer(line)
    if everything:
        for line in stage.forget():
            observer(line)


# ---- the pilot -----------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Pilot:
    """What one small trial of every cell has taught."""

    unit: dict[tuple[TargetName, WorkloadName], float] = field(default_factory=dict)
    """Seconds of one loop, for loop workloads."""
    extra: dict[tuple[TargetName, WorkloadName], float] = field(default_factory=dict)
    """Seconds of a visit beside the timed part; for starts, seconds of one start; for an instance
    of a dear target, of the whole visit.
    """
    opening: dict[TargetName, float] = field(default_factory=dict)
    """Seconds to open and prove a session."""
    proving: dict[TargetName, float] = field(default_factory=dict)
    """Seconds to prove a session that is open."""
    left_out: set[tuple[TargetName, WorkloadName]] = field(default_factory=set)
    dead: set[TargetName] = field(default_factory=set)

    @property
    def dear(self) -> tuple[TargetName, ...]:
        """The targets whose sessions are dear to open."""
        return tuple(
            name
            for name, taken in self.opening.items()
            if taken > DEAR and name not in ("native", *self.dead)
        )

    def kept(self, launch: Launch, native: TargetName) -> tuple[TargetName, ...]:
        """Return the targets whose sessions shall serve several blocks.

        Never native: its session costs nothing, and what all ratios stand on shall have as many
        sessions as there are blocks.
        """
        names = {Launch.AUTO: self.dear, Launch.FRESH: (), Launch.REUSE: tuple(self.opening)}
        return tuple(name for name in names[launch] if name not in (native, *self.dead))

    def cost(
        self,
        length: float,
        work: Wish,
        labels: Sequence[TargetName],
        workloads: Mapping[WorkloadName, Workload],
        native: TargetName,
        *,
        kept: Collection[TargetName] = (),
    ) -> float:
        """Return about how many seconds a block takes whose native iterations last `length`
        seconds; the openings of sessions that are `kept` for several blocks are no part of it.
        """
        total = 0.0
        for label in labels:
            taken = self.proving if label in kept else self.opening
            total += taken.get(plan.actual(label), 0.0)
            for name, workload in workloads.items():
                key = (plan.actual(label), name)
                if key in self.left_out or plan.actual(label) in self.dead or key not in self.extra:
                    continue
                if workload.scope is not Scope.LOOP:
                    starts = work.starts if workload.scope is Scope.SESSION else work.iterations
                    once = workload.scope is Scope.SESSION and key[0] in self.dear
                    total += self.extra[key] * (1 if once else starts + 1)
                    continue
                unit, home = self.unit[key], self.unit.get((native, name), self.unit[key])
                loops = loops_for(workload, home, length)
                # Files are made and read back around the timed part: as long again.
                rounds = (work.iterations + 1) * (2 if workload.group == "io" else 1)
                total += self.extra[key] + rounds * unit * loops
        return total


def loops_for(workload: Workload, unit: float, length: float) -> int:
    """Return how many loops make an iteration of `length` seconds natively."""
    loops = max(1, math.ceil(length / max(unit, 1e-10)))
    return min(loops, workload.most_loops or loops)


def _nobody(_pilot: Pilot, _label: TargetName) -> str:
    """Leave no target out."""
    return ""


def leave_out(bench: runner.Bench, pilot: Pilot, label: TargetName, why: str) -> None:
    """Plan nothing for a target that can run, and say so in each of its cells."""
    pilot.dead.add(label)
    hint = f"isobench run --targets {label}"
    for name in bench.workloads:
        bench.sink.write(
            Gap(
                block=0,
                target=label,
                workload=name,
                cause=Cause.UNAVAILABLE,
                detail=f"left out: {why}",
                hint=hint,
            )
        )


def try_all(
    bench: runner.Bench,
    labels: Sequence[TargetName],
    native: TargetName,
    observer: Observer,
    too_dear: Callable[[Pilot, TargetName], str] = _nobody,
) -> Pilot:
    """Run every cell once with a little work: known answers, evidence, cost.

    What it measures is block 0, which is never used for estimates. `too_dear` may leave a target
    out once it is known what opening it takes, by a reason.
    """
    pilot = Pilot()
    names = list(bench.workloads)
    # Native comes first: its evidence and its checksums are what the others are held against. What
    # must be prepared is likely dear: it is tried when the cost of all others is known.
    others = [name for name in labels if name != native]
    others.sort(key=lambda name: isinstance(bench.targets[name], Preparer))
    for position, label in enumerate([native, *others]):
        block = plan.block(0, [label], names, seed=0, shuffled=False)
        with _opened(bench, block, pilot) as (good, bad):
            if label in bad:
                pilot.dead.add(label)
            elif label in pilot.dear and (why := too_dear(pilot, label)):
                leave_out(bench, pilot, label, why)
                continue
            bench.dear.update(pilot.dear)
            for number, visit in enumerate(block.visits):
                observer.step(f"trying {label}", position + number / len(block.visits), len(labels))
                if label in bad:
                    bench.sink.write(replace(bad[label], workload=visit.workload))
                    continue
                _try(bench, visit, good[label], pilot)
    if native in pilot.dead:
        raise UnavailableError(
            "native cannot be measured: its payloads do not run", hint="isobench doctor"
        )
    return pilot


@contextlib.contextmanager
def _opened(
    bench: runner.Bench, block: Block, pilot: Pilot
) -> Iterator[tuple[dict[TargetName, runner.Opened], dict[TargetName, Gap]]]:
    """Open the one session of a trial, and note what that takes.

    One that seems dear is opened a second time: the first may have had an image to make, or a
    cache to fill, which no later one has.
    """
    (label,) = block.sessions
    while True:
        began = time.monotonic()
        with bench.sessions(block, runner.Faults()) as (good, bad):
            taken = time.monotonic() - began
            again = taken > DEAR and label in good and label not in pilot.opening
            pilot.opening[label] = min(taken, pilot.opening.get(label, taken))
            if not again:
                if label in good:
                    pilot.proving[label] = good[label].proving
                yield good, bad
                return


def _try(bench: runner.Bench, visit: Visit, opened: runner.Opened, pilot: Pilot) -> None:
    workload = bench.workloads[visit.workload]
    loops = workload.answer.loops if workload.answer else 1
    iterations = PILOT_ITERATIONS if workload.scope is Scope.LOOP else 1
    began = time.monotonic()
    work = Work(workload=visit.workload, loops=loops, iterations=iterations)
    records = bench.visit_in(opened, visit, work)
    spent = time.monotonic() - began
    for record in records:
        bench.sink.write(record)
    bench.sink.sync()
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
        pilot.unit[key] = min(times)
        if visit.target == "native" and not _grows(bench, visit, opened.session, loops, min(times)):
            pilot.left_out.add(key)
        pilot.extra[key] = max(0.0, spent - (iterations + 1) * min(times) * loops)
    else:
        twice = workload.scope is Scope.SESSION and visit.target not in bench.dear
        pilot.extra[key] = spent / 2 if twice else spent  # the evidence is a start, too


def _grows(
    bench: runner.Bench, visit: Visit, session: Session | None, loops: int, unit: float
) -> bool:
    """Say whether more loops take longer, and write a gap where they do not.

    Else a payload that ignores its loops, or whose work the compiler has removed, would be
    "measured".
    """
    more = min(loops * GROWTH, bench.workloads[visit.workload].most_loops or loops * GROWTH)
    work = Work(workload=visit.workload, loops=more, iterations=PILOT_ITERATIONS)
    records = bench.visit(visit, work, session)
    times = [r.value for r in records if isinstance(r, Sample) and r.metric == "time"]
    if not times or min(times) / SECOND >= GROWN * unit * more:
        return True
    detail = (
        f"{more} loops took {min(times)} ns, {loops} loops {unit * loops * SECOND:.0f} ns:"
        " the time does not grow with the work"
    )
    bench.sink.write(
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


def choose_length(
    pilot: Pilot,
    wish: Wish,
    bench: runner.Bench,
    labels: Sequence[TargetName],
    *,
    native: TargetName,
    seconds_left: float,
) -> tuple[float, int]:
    """Return how long native iterations shall be, and how many blocks will about fit into the
    budget.
    """
    wanted = 5 if wish.quick else max(WANTED_BLOCKS, wish.minimum_blocks)
    wanted = min(wanted, wish.maximum_blocks)
    kept = pilot.kept(wish.launch, native)
    openings = sum(pilot.opening[name] for name in kept)

    def fits(length: float) -> int:
        block = pilot.cost(length, wish, labels, bench.workloads, native, kept=kept)
        left = seconds_left * RESERVE
        # So few blocks that each needs a session of its own, or more with as many openings in all.
        few, many = left / (block + openings), (left - plan.FEWEST_SESSIONS * openings) / block
        return int(max(min(few, plan.FEWEST_SESSIONS), many))

    if wish.minimum_time is not None:
        return wish.minimum_time, fits(wish.minimum_time)
    length = LONGEST
    while length > SHORTEST and fits(length) < wanted:
        length *= 0.9
    return max(length, SHORTEST), fits(max(length, SHORTEST))


def learn(bench: runner.Bench, made: Plan) -> None:
    """See natively what the others are held against, for a plan that is resumed without a pilot,
    and take from it what the pilot had shown.
    """
    bench.dear.update(made.dear)
    names = [item.workload for item in made.work]
    block = plan.block(0, [made.reference], names, seed=0, shuffled=False)
    with bench.sessions(block, runner.Faults()) as (good, bad):
        for item in made.work:
            if made.reference in bad:
                raise UnavailableError(bad[made.reference].detail, hint="isobench doctor")
            if bench.workloads[item.workload].scope is Scope.LOOP:
                visit = Visit(block=0, target=made.reference, workload=item.workload)
                bench.visit(visit, replace(item, iterations=1), good[made.reference].session)


# ---- the run -------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run has come to."""

    folder: Path
    source: Path
    """Where its records are: `folder`, unless it was answered again from elsewhere."""
    summary: Mapping[str, Any]
    interrupted: bool
    timed_out: bool


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class _Alarm:
    """Interrupts the run at its time limit, as Ctrl-C would, wherever it is then."""

    def __init__(self, limit: float | None) -> None:
        self.rang = False
        self._limit = limit

    def _ring(self, *_: object) -> None:
        self.rang = True
        raise KeyboardInterrupt

    def __enter__(self) -> None:
        if self._limit is not None:
            signal.signal(signal.SIGALRM, self._ring)
            signal.setitimer(signal.ITIMER_REAL, self._limit)

    def __exit__(self, *_: object) -> None:
        if self._limit is not None:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, signal.SIG_DFL)


class Campaign:
    """One run, from the wish to the report."""

    def __init__(self, wish: Wish, registry: Registry, observer: Observer) -> None:
        """Take what is wanted; nothing happens yet."""
        self.wish, self.registry, self.observer = wish, registry, observer
        self.began = time.monotonic()
        self.seed = wish.seed if wish.seed is not None else secrets.randbelow(1 << 31)
        self.native = TargetName("native")
        self.id = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(3)
        self.about: dict[str, Any] = {}
        self.earlier = 0.0
        """Seconds that a resumed run had taken before."""

    def build(self, chosen: Chosen) -> tuple[Payload, ...]:
        """Build what the able targets need."""
        home = host_abi()
        if home is None:
            raise UnavailableError("isobench has no payloads for this machine", hint="use Linux")
        abis: list[Abi] = list(
            dict.fromkeys([home, *(t.abi or home for t in chosen.able.values())])
        )
        # All that ship go into every stage: one image serves runs of any selection.
        every = [*workloads.find().values(), *chosen.workloads.values()]
        wanted = build.programs(every)
        if any(workload.libc for workload in chosen.workloads.values()):
            self.observer.say(
                "building a C library for payloads that ask for one: about a minute, once"
            )
        return build.build_all(
            wanted,
            abis,
            host=home,
            progress=lambda done, of: self.observer.step("building payloads", done, of),
        )

    def run(self, chosen: Chosen, resumed: "Run | None" = None) -> Outcome:
        """Measure and answer; `resumed` is an earlier run that goes on where it ended."""
        from isobench import store  # noqa: PLC0415 - pandas, which `isobench --help` must not wait for

        payloads = self.build(chosen)
        if resumed is None:
            folder = store.create(places.results(), self.id, exact=self.wish.output)
        else:
            folder = store.RunFolder(resumed.path)
        interrupted = timed_out = False
        failure: IsobenchError | None = None
        try:
            with stage.workshop(payloads) as shop:
                self._describe(chosen, payloads, shop.scratch)
                if resumed is not None:
                    self._go_on(resumed)
                folder.document("run.json", self.about)
                folder.document("state/host-pre.json", self.about["host"])
                alarm = _Alarm(self.wish.time_limit)
                try:
                    with alarm:
                        self._measure(chosen, shop, folder, resumed)
                except KeyboardInterrupt:
                    timed_out, interrupted = alarm.rang, not alarm.rang
                    self.about["stopped"] = "time limit" if timed_out else "interrupted"
                    self._clear_up(chosen)
                except IsobenchError as error:
                    failure = error
                    self.about["stopped"] = "failure"
                folder.document("state/host-post.json", host.describe(shop.scratch))
        finally:
            folder.close()
        self.about |= {
            "finished": _now(),
            "interrupted": interrupted or timed_out or failure is not None,
            "elapsed_seconds": round(self.earlier + time.monotonic() - self.began, 1),
        }
        folder.document("run.json", self.about)
        summary = answer(folder.path, folder.document, folder.text)
        if failure is not None:  # only now: a report is always written first
            raise failure
        return Outcome(
            folder=folder.path,
            source=folder.path,
            summary=summary,
            interrupted=interrupted,
            timed_out=timed_out,
        )

    def _go_on(self, resumed: "Run") -> None:
        """Take over what an earlier run was; refuse where it would not be the same experiment."""
        old, new = resumed.about, self.about
        for key, what in (("payloads", "payloads or compiler"), ("machine", "machine")):
            if old.get(key) != msgspec.to_builtins(new[key]):
                raise UsageError(
                    f"{resumed.path} cannot be resumed: its {what} were others",
                    hint="measure anew with isobench run",
                )
        self.earlier = float(old.get("elapsed_seconds") or 0.0)
        kept = ("id", "started", "seed", "quick", "launch", "margin", "workloads", "targets")
        new |= {key: old[key] for key in kept if key in old}

    def _clear_up(self, chosen: Chosen) -> None:
        """Remove what an interruption may have left.

        An engine can have made a container of which no answer came back any more. It is asked
        twice, since it may still be at it.
        """

        def alive(whose: str) -> bool:
            return whose != owner.mine() and owner.alive(whose)

        for _ in range(2):
            for target in chosen.able.values():
                if isinstance(target, Sweeper):
                    target.sweep(alive, cached=False)
            time.sleep(0.2)

    def _describe(self, chosen: Chosen, payloads: Sequence[Payload], scratch: Path) -> None:
        facts = host.describe(scratch)
        first = payloads[0]
        self.about = {
            "schema_version": 1,
            "id": self.id,
            "tool_version": __version__,
            "started": _now(),
            "finished": None,
            "argv": list(self.wish.argv),
            "seed": self.seed,
            "reference": self.native,
            "quick": self.wish.quick,
            "launch": self.wish.launch,
            "margin": self.wish.margin,
            "precision": self.wish.precision,
            "budget_seconds": self.wish.budget if self.wish.budget < UNBOUNDED else None,
            "blocks_wanted": self.wish.maximum_blocks,
            "rules": list(host.RULES),
            "machine": host.summary(facts),
            "host": facts,
            "compiler": first.compiler,
            "flags": " ".join(first.flags),
            "targets": [
                {"name": name, "class": target.technology}
                for name, target in chosen.targets.items()
            ],
            "workloads": [
                {
                    "name": workload.name,
                    "class": workload.group,
                    "summary": workload.summary,
                    "operation": workload.operation,
                    "scope": workload.scope,
                }
                for workload in chosen.workloads.values()
            ],
            "payloads": [
                {
                    "program": p.program,
                    "abi": p.abi,
                    "sha256": p.sha256,
                    "compiler": p.compiler,
                    "flags": list(p.flags),
                }
                for p in payloads
            ],
        }

    def _states(self, chosen: Chosen, bench: runner.Bench, folder: "RunFolder") -> None:
        """Write what each target is and showed of itself."""
        for name, target in chosen.targets.items():
            answer_ = chosen.answers[name]
            proof = bench.proofs.get(name)
            state: dict[str, Any] = {
                "name": name,
                "class": target.technology,
                "status": "available" if isinstance(answer_, Available) else "unavailable",
                "version": answer_.version if isinstance(answer_, Available) else None,
                "reason": None if isinstance(answer_, Available) else answer_.reason,
                "lack": None if isinstance(answer_, Available) else answer_.lack,
                "hint": None if isinstance(answer_, Available) else answer_.hint,
                "abi": bench.abi(target),
                "starts": dict(target.starts) if isinstance(target, Explains) else {},
                "promises": [] if proof is None else [_check(check) for check in proof.checks],
                "facts": [] if proof is None else list(proof.environment.facts.values()),
                "workloads": {
                    workload: {key: fact.value for key, fact in facts.items()}
                    for (owner_, workload), facts in bench.seen.items()
                    if owner_ == name
                },
            }
            folder.document(f"state/{name}-pre.json", state)

    def _measure(
        self,
        chosen: Chosen,
        shop: stage.Workshop,
        folder: "RunFolder",
        resumed: "Run | None",
    ) -> None:
        home = host_abi()
        assert home is not None
        bench = runner.Bench(
            targets=chosen.able,
            workloads=chosen.workloads,
            workshop=shop,
            host_abi=home,
            sink=folder,
            run_id=self.id,
        )
        labels = list(chosen.able)
        if resumed is not None:
            learn(bench, resumed.plan)
            self._measure_blocks(bench, resumed.plan, folder, resumed)
            self._states(chosen, bench, folder)
            return
        self._states(chosen, bench, folder)
        pilot = try_all(
            bench,
            labels,
            self.native,
            self.observer,
            lambda pilot, label: self._too_dear(bench, pilot, label),
        )
        self._states(chosen, bench, folder)
        made = self._plan(bench, pilot, labels)
        folder.document("plan.json", made)
        for item in self.about["workloads"]:
            work = next((w for w in made.work if w.workload == item["name"]), None)
            if work is not None:
                item |= {"loops": work.loops, "iterations": work.iterations}
        folder.document("run.json", self.about)
        self._measure_blocks(bench, made, folder)
        self._states(chosen, bench, folder)

    @property
    def _fewest(self) -> int:
        """How many blocks the budget should have room for."""
        return FEWEST_BLOCKS if self.wish.quick else self.wish.minimum_blocks

    def _asked_for(self, label: TargetName) -> bool:
        """Say whether a target was named, and not just found."""
        _, explicit = self.registry.select(self.wish.targets)
        return label in explicit or label in self.wish.require or label == self.native

    def _fits(self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName]) -> int:
        """Return how many blocks of these targets the rest of the budget has room for at most."""
        left = self.wish.budget - (time.monotonic() - self.began)
        both = [*labels, plan.second(self.native)]
        return choose_length(pilot, self.wish, bench, both, native=self.native, seconds_left=left)[
            1
        ]

    def _too_dear(self, bench: runner.Bench, pilot: Pilot, label: TargetName) -> str:
        """Say why a target that was merely found would cost the verdicts of all, or nothing.

        Of what it will cost only its opening is known: a start is as long, and there are several.
        """
        if self._asked_for(label):
            return ""
        opening = pilot.opening[label]
        tried = [name for name in pilot.proving if name not in (label, *pilot.dead)]
        left = self.wish.budget - (time.monotonic() - self.began) - OPENINGS_TO_TRY * opening
        both = [*tried, plan.second(self.native)]
        cost = pilot.cost(SHORTEST, self.wish, both, bench.workloads, self.native)
        if left * RESERVE >= self._fewest * (cost + OPENINGS_A_BLOCK * opening):
            return ""
        return self._no_room(label)

    def _no_room(self, label: TargetName) -> str:
        reason = (
            f"with it {self._fewest} blocks do not fit into {self.wish.budget:g} s;"
            " it is measured where it is asked for by name"
        )
        self.observer.say(f"{label} is left out: {reason}")
        return reason

    def _make_room(
        self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName]
    ) -> list[TargetName]:
        """Return the targets that are measured: the dearest go first where all do not fit, unless
        they were asked for by name.
        """
        living = [label for label in labels if label not in pilot.dead]
        while self._fits(bench, pilot, living) < self._fewest:
            spare = [name for name in pilot.dear if name in living and not self._asked_for(name)]
            if not spare:
                break
            dearest = max(spare, key=lambda name: pilot.opening[name])
            leave_out(bench, pilot, dearest, self._no_room(dearest))
            living.remove(dearest)
        return living

    def _plan(self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName]) -> Plan:
        living = self._make_room(bench, pilot, labels)
        both = [*living, plan.second(self.native)]
        left = self.wish.budget - (time.monotonic() - self.began)
        length, fits = choose_length(
            pilot, self.wish, bench, both, native=self.native, seconds_left=left
        )
        kept = pilot.kept(self.wish.launch, self.native)
        served = plan.blocks_per_session(max(1, min(fits, self.wish.maximum_blocks)))
        block_cost = pilot.cost(length, self.wish, both, bench.workloads, self.native, kept=kept)
        block_cost += sum(pilot.opening[name] for name in kept) / served
        self.observer.say(
            f"about {block_cost:.2g} s a block, iterations of {1000 * length:.0f} ms natively"
        )
        for name in kept if served > 1 else ():
            self.observer.say(
                f"a session of {name} takes {pilot.opening[name]:.2g} s to open"
                f" and serves {served} blocks"
            )
        if fits < self.wish.minimum_blocks and not self.wish.quick:
            needed = self.wish.minimum_blocks * block_cost / RESERVE + (self.wish.budget - left)
            self.observer.say(
                f"only about {max(fits, 1)} blocks fit into the budget, verdicts need"
                f" {self.wish.minimum_blocks}: --budget {math.ceil(needed / 60)}m, or fewer targets"
            )
        work = [
            self._work(workload, pilot.unit.get((self.native, name), 1.0), length)
            for name, workload in bench.workloads.items()
            if (self.native, name) not in pilot.left_out
        ]
        return plan.make(
            living,
            work,
            reference=self.native,
            blocks=self.wish.maximum_blocks
            + math.ceil(self.wish.maximum_blocks * runner.REPEATED_SHARE),
            seed=self.seed,
            shuffled=self.wish.shuffled,
            without=frozenset(pilot.left_out),
            dear=pilot.dear,
            blocks_per_session=dict.fromkeys(kept, served),
        )

    def _work(self, workload: Workload, unit: float, length: float) -> Work:
        match workload.scope:
            case Scope.LOOP:
                loops = loops_for(workload, unit, length)
                return Work(workload=workload.name, loops=loops, iterations=self.wish.iterations)
            case Scope.EXEC:
                return Work(workload=workload.name, loops=1, iterations=self.wish.iterations)
            case Scope.SESSION:
                return Work(workload=workload.name, loops=1, iterations=self.wish.starts)

    def _measure_blocks(
        self, bench: runner.Bench, made: Plan, folder: "RunFolder", resumed: "Run | None" = None
    ) -> None:
        end = self.began + self.wish.budget
        total = max(1, len(made.blocks[0].visits)) if made.blocks else 1
        place = {"block": 0, "visit": 0}

        def tick(visit: Visit, valid: int) -> None:
            if visit.block != place["block"]:
                place.update(block=visit.block, visit=0)
            place["visit"] += 1
            blocks_done = valid + place["visit"] / total
            spent = (time.monotonic() - self.began) / self.wish.budget
            share = max(spent, blocks_done / self.wish.maximum_blocks)
            self.observer.step(
                f"block {valid + 1}: {visit.workload} in {visit.target}", min(share, 1.0), 1.0
            )

        limits = runner.Limits(
            budget_end=end,
            minimum_blocks=FEWEST_BLOCKS,
            maximum_blocks=self.wish.maximum_blocks,
            look=lambda _: self._precise(folder),
        )
        begun, invalid = (0, 0) if resumed is None else (resumed.begun, len(resumed.invalid_blocks))
        _, self.about["stopped"] = runner.measure(
            bench,
            made,
            limits,
            tick=tick,
            begun=begun,
            repeated=invalid,
            sessions=None if resumed is None else resumed.sessions,
        )

    def _precise(self, folder: "RunFolder") -> bool:
        """Look at the width of every interval; never at a verdict."""
        from isobench import answers, store  # noqa: PLC0415 - as above

        return answers.Analysis(store.load(folder.path)).precise(self.wish.precision)


def _check(check: PromiseCheck) -> dict[str, Any]:
    return {
        "key": check.promise.key,
        "relation": check.promise.relation,
        "expected": check.promise.value,
        "host": check.host,
        "inside": check.inside,
        "kept": check.kept,
    }


def answer_again(source: Path, target: Path) -> Outcome:
    """Answer from the records of an earlier run, a folder or a zip; write into `target`."""
    from isobench import store  # noqa: PLC0415 - as above

    summary = answer(
        source,
        lambda name, value: store.write_document(target / name, value),
        lambda name, content: store.write_text(target / name, content),
    )
    return Outcome(
        folder=target, source=source, summary=summary, interrupted=False, timed_out=False
    )


def answer(
    folder: Path, document: Callable[[str, object], None], text: Callable[[str, str], None]
) -> Mapping[str, Any]:
    """Write summary.json, summary.md and report.html of a run; return the summary."""
    from isobench import answers, store  # noqa: PLC0415 - as above
    from isobench.report import html, markdown, view  # noqa: PLC0415

    summary = answers.summarise(store.load(folder), answers.documents_claims())
    document("summary.json", summary)
    decoded: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(summary))
    seen = view.build(decoded)
    text("summary.md", markdown.markdown(seen))
    text("report.html", html.render(seen, places.shared("reports") / "templates"))
    return decoded
