"""A whole run: look, build, try, plan, measure, answer. The command line says what is wanted; this
does it.
"""

import contextlib
import datetime as dt
import hashlib
import math
import os
import secrets
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from isobench import __version__, claims, duet, enforcement, owner, places, plan, runner, workloads
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
    Claim,
    Lack,
    LimitCheck,
    Payload,
    Plan,
    PromiseCheck,
    Schedule,
    Scope,
    Unavailable,
    Visit,
    Work,
    Workload,
    host_abi,
)
from isobench.payload import build, stage
from isobench.pilot import (
    FEWEST_BLOCKS,
    OPENINGS_A_BLOCK,
    OPENINGS_TO_TRY,
    RESERVE,
    SHORTEST,
    Pilot,
    choose_length,
    learn,
    leave_out,
    try_all,
)
from isobench.plugin import Explains, Preparer, Sweeper, Target
from isobench.registry import Registry
from isobench.units import TargetName, WorkloadName
from isobench.wish import UNBOUNDED, Observer, Wish

if TYPE_CHECKING:
    from isobench.store import Run, RunFolder


PATIENCE_FOR_LIMITS: Final = 60.0
"""Limits are pushed past in runs whose budget is at least so many seconds."""


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
    needed = dict.fromkeys(
        [TargetName("native"), *explicit, *(TargetName(name) for name in wish.require)]
    )

    def heard(name: TargetName, answer: Availability) -> None:
        if isinstance(answer, Available) or name not in needed:  # of these the error tells all
            observer.looked(name, answer)

    answers = look(targets, heard)
    for name in needed:
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


@contextlib.contextmanager
def _confined(cpus: frozenset[int]) -> Iterator[None]:
    """Confine this process and whatever it starts to these CPUs, where some are named."""
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


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
            with (
                _confined(self.wish.affinity),
                stage.workshop(payloads, ",".join(map(str, sorted(self.wish.affinity)))) as shop,
            ):
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
        kept = (
            *("id", "started", "argv", "seed", "quick", "launch", "margin", "workloads"),
            *("targets", "config", "claims", "variations", "plan_sha256"),
        )
        new |= {key: old[key] for key in kept if key in old}
        new["resumed_by"] = [*old.get("resumed_by", ()), list(self.wish.argv)]
        if new["budget_seconds"] is not None:
            new["budget_seconds"] += self.earlier

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
            "config": {"targets": self.registry.tables(chosen.targets)},
            "claims": claims.to_table(self.wish.claims),
            "affinity": sorted(self.wish.affinity),
            "variations": [dict(one) for one in self.wish.variations],
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
                    "program": workload.program,
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
                "limits": list(bench.limits.get(name, ())),
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
            for name, state in resumed.states.items():
                found = msgspec.convert(state.get("limits", []), tuple[LimitCheck, ...])
                bench.limits[name] = found
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
        self._push_limits(bench, pilot)
        self._states(chosen, bench, folder)
        made = self._plan(bench, pilot, labels)
        folder.document("plan.json", made)
        written = (folder.path / "plan.json").read_bytes()
        self.about["plan_sha256"] = hashlib.sha256(written).hexdigest()
        for item in self.about["workloads"]:
            work = next((w for w in made.work if w.workload == item["name"]), None)
            if work is not None:
                item |= {"loops": work.loops, "iterations": work.iterations}
        folder.document("run.json", self.about)
        self._measure_blocks(bench, made, folder)
        self._states(chosen, bench, folder)

    def _push_limits(self, bench: runner.Bench, pilot: Pilot) -> None:
        """See whether limits hold, where there is time for it: some two seconds a target."""
        if self.wish.quick or self.wish.budget < PATIENCE_FOR_LIMITS:
            return
        living = {name: t for name, t in bench.targets.items() if name not in pilot.dead}
        named = [name for name, target in living.items() if enforcement.limits_something(target)]
        if not named:
            return
        self.observer.step("pushing past limits natively", 0, len(named) + 1)
        without = enforcement.natively(bench, self.native)
        for number, name in enumerate(named, 1):
            self.observer.step(f"pushing past limits of {name}", number, len(named) + 1)
            bench.limits[name] = enforcement.push(bench, name, without)

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
        if self.wish.quick and fits < FEWEST_BLOCKS:
            self.observer.say(
                f"even {FEWEST_BLOCKS} blocks take about {FEWEST_BLOCKS * block_cost:.0f} s, longer"
                " than a quick look should: fewer targets or workloads make it short"
            )
        work = [
            self._work(workload, pilot.loops(workload, self.wish, length, self.native))
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
            schedule=self.wish.schedule,
            without=frozenset(pilot.left_out),
            dear=pilot.dear,
            blocks_per_session=dict.fromkeys(kept, served),
        )

    def _work(self, workload: Workload, loops: int) -> Work:
        match workload.scope:
            case Scope.LOOP:
                return Work(
                    workload=workload.name,
                    loops=loops,
                    iterations=self.wish.iterations,
                    warmups=self.wish.warmups,
                )
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
            # A spent budget ends a run only when it has its fewest blocks.
            enough = blocks_done / min(FEWEST_BLOCKS, self.wish.maximum_blocks)
            share = max(min(spent, enough), blocks_done / self.wish.maximum_blocks)
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
        with contextlib.ExitStack() as stack:
            pairs = None
            if made.schedule is Schedule.DUET:
                pairs = stack.enter_context(duet.Duet(bench, self._halves()))
            _, self.about["stopped"] = runner.measure(
                bench,
                made,
                limits,
                tick=tick,
                begun=begun,
                repeated=invalid,
                sessions=None if resumed is None else resumed.sessions,
                one_block=None if pairs is None else pairs.block,
            )

    def _halves(self) -> duet.Halves:
        found = duet.halves(os.sched_getaffinity(0), duet.siblings)
        if found is None:
            raise UnavailableError(
                "a duet takes two CPUs, and one can be used here",
                hint="leave out --schedule duet, or widen --affinity",
            )
        return found

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


def answer_again(source: Path, target: Path, added: Sequence[Claim] = ()) -> Outcome:
    """Answer from the records of an earlier run, a folder or a zip; write into `target`.

    The claims in `added` are judged besides the documents' and the run's own.
    """
    from isobench import store  # noqa: PLC0415 - as above

    summary = answer(
        source,
        lambda name, value: store.write_document(target / name, value),
        lambda name, content: store.write_text(target / name, content),
        added,
    )
    return Outcome(
        folder=target, source=source, summary=summary, interrupted=False, timed_out=False
    )


def answer(
    folder: Path,
    document: Callable[[str, object], None],
    text: Callable[[str, str], None],
    added: Sequence[Claim] = (),
) -> Mapping[str, Any]:
    """Write summary.json, summary.md and report.html of a run; return the summary."""
    from isobench import answers, store  # noqa: PLC0415 - as above
    from isobench.report import html, markdown, view  # noqa: PLC0415

    run = store.load(folder)
    summary = answers.summarise(run, answers.claims_of(run, added))
    document("summary.json", summary)
    decoded: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(summary))
    seen = view.build(decoded)
    text("summary.md", markdown.markdown(seen))
    text("report.html", html.render(seen, places.shared("reports") / "templates"))
    return decoded
