"""A whole run: look, build, try, plan, measure, answer. The command line says what is wanted; this
does it.
"""

import contextlib
import datetime as dt
import functools
import hashlib
import math
import os
import secrets
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from isobench import __version__, claims
from isobench.analysis import headline
from isobench.config import paths
from isobench.config.options import UNBOUNDED, Observer, RunOptions
from isobench.evidence import host
from isobench.model import (
    Abi,
    Availability,
    Available,
    Claim,
    ExpectationCheck,
    Lack,
    LimitCheck,
    Payload,
    Plan,
    Schedule,
    Scope,
    Unavailable,
    Visit,
    Work,
    Workload,
    host_abi,
    plan,
    units,
)
from isobench.model.errors import (
    IsobenchError,
    NothingToRunError,
    SessionError,
    UnavailableError,
    UsageError,
)
from isobench.model.units import TargetName, WorkloadName
from isobench.payload import build, stage
from isobench.plugins import guard, ownership, packages
from isobench.plugins.api import Explains, Preparer, Sweeper, Target
from isobench.plugins.registry import Registry
from isobench.run import duet, limit_tests, runner, select
from isobench.run.pilot import (
    FEWEST_BLOCKS,
    OPENINGS_A_BLOCK,
    OPENINGS_TO_TRY,
    RESERVE,
    SHORTEST,
    Pilot,
    choose_length,
    learn,
    leave_out,
    leave_out_workload,
    try_all,
)
from isobench.targets.shared import processes
from isobench.workloads import loader

if TYPE_CHECKING:
    from isobench.storage.run_folder import Run, RunFolder


_MOST_OFFERED: Final = 3
"""So many targets are named in place of those that cannot run."""
GRACE: Final = 10.0
"""Seconds by which a run may overrun its budget to come to an interval at all."""
TRIAL_SHARE: Final = 0.3
"""Trials are shown as this share of a run at most."""
PATIENCE_FOR_LIMITS: Final = 60.0
"""Limits are pushed past in runs whose budget is at least so many seconds."""


FAILED: Final = "nothing: "
"""How the line of a sweep begins that has removed nothing, and says why."""
CLEAN: Final = "isobench clean --stale removes what is left"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Targets that can run, those that cannot, and what to run."""

    targets: Mapping[TargetName, Target]
    answers: Mapping[TargetName, Availability]
    workloads: Mapping[WorkloadName, Workload]
    asked: frozenset[TargetName] = frozenset()
    """The targets that were asked for by name, native among them."""
    left_out: Mapping[str, Any] = field(default_factory=dict)
    """"targets" and "workloads" for which the budget has no room; the "command" that measures all.
    """

    @property
    def able(self) -> dict[TargetName, Target]:
        """The targets that said they can run."""
        return {n: t for n, t in self.targets.items() if isinstance(self.answers[n], Available)}


def look(
    targets: Mapping[TargetName, Target], heard: Callable[[TargetName, Availability], None]
) -> dict[TargetName, Availability]:
    """Ask all targets side by side what they can do here."""
    answers: dict[TargetName, Availability] = {}

    def take(name: TargetName, answer: Availability) -> None:
        answers[name] = _for_this_user(answer)
        heard(name, answers[name])

    guard.probe(targets, take)
    return answers


def _for_this_user(answer: Availability) -> Availability:
    """Return an answer whose hint this user can type."""
    if isinstance(answer, Unavailable):
        return replace(answer, hint=packages.for_this_user(answer.hint))
    return answer


def choose(
    options: RunOptions,
    registry: Registry,
    workloads: Mapping[WorkloadName, Workload],
    observer: Observer,
) -> Chosen:
    """Return what will run: of the targets that can, those for which the budget has room.

    A target that was asked for by name and cannot run is reported and becomes a gap.
    UnavailableError: a required target cannot run, or none of those asked for can.
    """
    targets, explicit = registry.select(options.targets)
    native = TargetName("native")
    required = {TargetName(name): registry.get(name) for name in options.require}
    held_back: dict[TargetName, Unavailable] = {}  # an error may say all of these at once

    def heard(name: TargetName, answer: Availability) -> None:
        if isinstance(answer, Unavailable) and name in {native, *explicit, *required}:
            held_back[name] = answer
        else:
            observer.looked(name, answer)

    answers = look({**targets, **required}, heard)
    lacking = {n: why for n, why in held_back.items() if n == native or n in required}
    if lacking:
        raise _cannot_run(lacking)
    named = explicit - {native}
    others = targets.keys() - explicit - {native}
    if named and named <= held_back.keys() and not others:
        raise _cannot_run(held_back, _can_run(registry, answers, options))
    for name, answer in held_back.items():
        observer.looked(name, answer)
    if not workloads:
        raise NothingToRunError(
            "no workload is left to run", hint="isobench workloads lists them all"
        )
    chosen = Chosen(
        targets=targets,
        answers={name: answers[name] for name in targets},
        workloads=workloads,
        asked=frozenset({native, *explicit, *(required.keys() & targets.keys())}),
    )
    return _with_room(chosen, options, observer)


def _cannot_run(lacking: Mapping[TargetName, Unavailable], instead: str = "") -> UnavailableError:
    """Return the error that names every target that cannot run, and what to type."""
    if len(lacking) == 1:
        ((name, why),) = lacking.items()
        hints = [why.hint, *([instead] if instead else [])]
        return UnavailableError(f"{name} cannot run here: {why.reason}", hint="\n".join(hints))
    lines = [f"  {name}: {why.reason}\n    → {why.hint}" for name, why in lacking.items()]
    title = f"{len(lacking)} targets that were asked for cannot run here"
    return UnavailableError("\n".join([title, *lines]), hint=instead)


def _can_run(
    registry: Registry, known: Mapping[TargetName, Availability], options: RunOptions
) -> str:
    """Return the command that measures the other targets that can run; empty where none can."""
    others = {name: registry.get(name) for name in registry.names() if name not in known}
    answers = look(others, lambda _name, _answer: None)
    able = [name for name, answer in answers.items() if isinstance(answer, Available)]
    able = select.most_asked_about(able)[:_MOST_OFFERED]
    if not able:
        return ""
    words = ["--workloads", ",".join(options.workloads)] if options.workloads else []
    return " ".join(["what can run here: isobench run --targets", ",".join(able), *words])


def _with_room(chosen: Chosen, options: RunOptions, observer: Observer) -> Chosen:
    """Leave out what the budget has no room for, and say so."""
    cpus = len(os.sched_getaffinity(0))
    room = select.Room(
        options=options,
        kinds={name: target.name for name, target in chosen.targets.items()},
        technologies={name: target.technology for name, target in chosen.targets.items()},
        asked=chosen.asked,
        busy=max(1.0, (os.getloadavg()[0] + 1) / cpus),
    )
    names, kept = room.choose(list(chosen.able), chosen.workloads)
    targets = [name for name in chosen.able if name not in names]
    dropped = [name for name in chosen.workloads if name not in kept]
    command = room.command(list(chosen.able), chosen.workloads)
    if targets or dropped:
        observer.say(headline.left_out_sentence(targets, dropped, command))
    answers = {
        name: Unavailable(
            lack=Lack.TIME,
            what=f"left out: a budget of {units.duration(options.budget)} has no room for it",
            hint=f"isobench run --targets {name}",
        )
        for name in targets
    }
    return replace(
        chosen,
        answers={**chosen.answers, **answers},
        workloads={name: chosen.workloads[name] for name in kept},
        left_out={"targets": targets, "workloads": dropped, "command": command},
    )


def prepare(chosen: Chosen, options: RunOptions, say: Callable[[str], None]) -> Chosen:
    """Make what targets keep between runs; one that cannot be prepared cannot run.

    UnavailableError: it is required, or nothing that was asked for is left.
    """
    answers = dict(chosen.answers)
    lost: dict[TargetName, Unavailable] = {}
    for name, target in chosen.able.items():
        if not isinstance(target, Preparer):
            continue
        try:
            target.prepare(say)
        except SessionError as error:
            lost[name] = Unavailable(
                lack=Lack.RUNTIME, what=f"it cannot be prepared: {error}", hint=error.hint
            )
            say(f"{name} cannot be prepared: {error}")
    required = {name: why for name, why in lost.items() if name in options.require}
    left = chosen.able.keys() - lost.keys() - {"native"}
    if required or (lost.keys() & chosen.asked and not left):
        raise _cannot_run(required or lost)
    return replace(chosen, answers={**answers, **lost})


def sweep(registry: Registry, *, everything: bool, observer: Callable[[str], None]) -> None:
    """Remove what dead runs have left; with `everything`, every trace of isobench but results."""
    for line in _swept("folders", lambda: stage.sweep(ownership.alive)):
        observer(line)
    for name in registry.names():
        target = registry.get(name)
        if isinstance(target, Sweeper):
            find = functools.partial(target.sweep, ownership.alive, cached=everything)
            for line in _swept(name, find):
                observer(line)
    if everything:
        for line in _swept("cache", stage.forget):
            observer(line)


def _swept(what: str, sweep: Callable[[], Sequence[str]]) -> list[str]:
    """Return the lines of one sweep; one that fails is a line, and keeps none from its turn."""
    try:
        return [str(line) for line in sweep()]
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a plug-in must not end isobench
        why = f"{type(error).__name__}: {error}"
        return [f"{FAILED}{what}: looking for leftovers failed: {why}"]


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

    def __init__(self, options: RunOptions, registry: Registry, observer: Observer) -> None:
        """Take what is wanted; nothing happens yet."""
        self.options, self.registry, self.observer = options, registry, observer
        self.began = time.monotonic()
        self.seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
        self.native = TargetName("native")
        self.id = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(3)
        self.chosen = Chosen(targets={}, answers={}, workloads={})
        self.asked: frozenset[TargetName] = frozenset({self.native})
        self.about: dict[str, Any] = {}
        self.done = 0.0
        """The share of the run that is behind it: what is shown never goes back."""
        self.fewest = FEWEST_BLOCKS
        """So many blocks are measured even when they overrun the budget."""
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
        every = [*loader.find().values(), *chosen.workloads.values()]
        wanted = build.programs(every)
        if any(workload.libc for workload in chosen.workloads.values()):
            self.observer.say(
                "building a C library for payloads that ask for one: about a minute, once"
            )
        return build.build_all(
            wanted,
            abis,
            host=home,
            progress=lambda done, of: self.observer.step(
                f"building payloads: {done} of {of}", 0.0, 1.0
            ),
        )

    def run(self, chosen: Chosen, resumed: "Run | None" = None) -> Outcome:
        """Measure and answer; `resumed` is an earlier run that goes on where it ended."""
        self.chosen, self.asked = chosen, chosen.asked
        from isobench.storage import run_folder  # noqa: PLC0415 - pandas, which `isobench --help` must not wait for

        payloads = self.build(chosen)
        # Programs are built once and kept: a budget is for measuring.
        self.began = time.monotonic()
        if resumed is None:
            folder = run_folder.create(paths.results(), self.id, exact=self.options.output)
        else:
            folder = run_folder.RunFolder(resumed.path)
        guard.hand_over(chosen.targets, folder.log)
        # Held until the report is written: whoever resumes the run must find it whole.
        with contextlib.closing(folder):
            if folder.unlocked:
                self.observer.say(
                    f"{folder.path} is where files cannot be locked ({folder.unlocked}): make sure"
                    " that no other isobench resumes this run meanwhile"
                )
            if resumed is not None:  # read again: until now another process may have written
                resumed = run_folder.load(resumed.path)
            return self._run_in(folder, chosen, payloads, resumed)

    def _run_in(
        self,
        folder: "RunFolder",
        chosen: Chosen,
        payloads: tuple[Payload, ...],
        resumed: "Run | None",
    ) -> Outcome:
        interrupted = timed_out = False
        failure: IsobenchError | None = None
        try:
            with (
                _confined(self.options.affinity),
                stage.workshop(payloads, ",".join(map(str, sorted(self.options.affinity)))) as shop,
                contextlib.ExitStack() as spawning,
            ):
                self._describe(chosen, payloads, shop.scratch)
                spawner = next((p.path for p in payloads if p.program == build.SPAWN), None)
                self.about["spawner"] = spawning.enter_context(processes.spawning(spawner))
                if self.about["spawner"] == "subprocess":
                    self.observer.say(
                        "isobench's spawner does not work here: Python starts all programs, and"
                        " every start-up figure holds 0.2 to 0.5 ms of that"
                    )
                if resumed is not None:
                    self._go_on(resumed)
                folder.document("run.json", self.about)
                folder.document("state/host-pre.json", self.about["host"])
                alarm = _Alarm(self.options.time_limit)
                try:
                    with alarm:
                        self._measure(chosen, shop, folder, resumed)
                except KeyboardInterrupt:
                    timed_out, interrupted = alarm.rang, not alarm.rang
                    why = "The time limit has passed" if timed_out else "Interrupted"
                    self.observer.say(f"{why}: clearing up and writing the report …")
                    spawning.close()  # a sweep would end it as well, while it is asked for programs
                    self.about["stopped"] = "time limit" if timed_out else "interrupted"
                    self._clear_up(chosen)
                except IsobenchError as error:
                    failure = error
                    self.about["stopped"] = "failure"
                folder.document("state/host-post.json", host.describe(shop.scratch))
        finally:
            folder.sync()
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
        for key, what in (
            ("payloads", "payloads or compiler"),
            ("machine", "machine"),
            ("spawner", "way of starting programs"),
        ):
            if old.get(key) != msgspec.to_builtins(new[key]):
                raise UsageError(
                    f"{resumed.path} cannot be resumed: its {what} were others",
                    hint="measure anew with isobench run",
                )
        self.earlier = float(old.get("elapsed_seconds") or 0.0)
        kept = (
            *("id", "started", "argv", "seed", "quick", "launch", "margin", "workloads"),
            *("targets", "config", "claims", "variations", "plan_sha256", "left_out"),
        )
        new |= {key: old[key] for key in kept if key in old}
        new["resumed_by"] = [*old.get("resumed_by", ()), list(self.options.argv)]
        if new["budget_seconds"] is not None:
            new["budget_seconds"] += self.earlier

    def _clear_up(self, chosen: Chosen) -> None:
        """Remove what an interruption may have left.

        An engine can have made a container of which no answer came back any more. It is asked
        twice, since it may still be at it.
        """

        def alive(whose: str) -> bool:
            return whose != ownership.mine() and ownership.alive(whose)

        try:
            for _ in range(2):
                for name, target in chosen.able.items():
                    if isinstance(target, Sweeper):
                        find = functools.partial(target.sweep, alive, cached=False)
                        self._say_failures(_swept(name, find))
                time.sleep(0.2)
        except KeyboardInterrupt:  # once more: whoever waits shall have the report now
            self.observer.say(f"not all is removed that the run has made: {CLEAN}")

    def _say_failures(self, lines: Sequence[str]) -> None:
        for line in lines:
            if line.startswith(FAILED):
                self.observer.say(f"{line.removeprefix(FAILED)}; {CLEAN}")

    def _describe(self, chosen: Chosen, payloads: Sequence[Payload], scratch: Path) -> None:
        facts = host.describe(scratch)
        first = payloads[0]
        self.about = {
            "schema_version": 1,
            "id": self.id,
            "tool_version": __version__,
            "started": _now(),
            "finished": None,
            "argv": list(self.options.argv),
            "config": {"targets": self.registry.tables(chosen.targets)},
            "claims": claims.to_table(self.options.claims),
            "affinity": sorted(self.options.affinity),
            "variations": [dict(one) for one in self.options.variations],
            "seed": self.seed,
            "reference": self.native,
            "quick": self.options.quick,
            "launch": self.options.launch,
            "margin": self.options.margin,
            "precision": self.options.precision,
            "budget_seconds": self.options.budget if self.options.budget < UNBOUNDED else None,
            "blocks_wanted": self.options.maximum_blocks,
            "rules": list(host.RULES),
            "machine": host.summary(facts),
            "host": facts,
            "compiler": first.compiler,
            "flags": " ".join(first.flags),
            "targets": [
                {"name": name, "class": target.technology, "asked": name in chosen.asked}
                for name, target in chosen.targets.items()
            ],
            "left_out": {
                "targets": [*chosen.left_out.get("targets", ())],
                "workloads": [*chosen.left_out.get("workloads", ())],
                "command": chosen.left_out.get("command", ""),
            },
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
            progress=self._progress,
            too_expensive=lambda pilot, label: self._too_expensive(bench, pilot, label),
            too_late=self._too_late,
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
        if self.options.quick or self.options.budget < PATIENCE_FOR_LIMITS:
            return
        living = {name: t for name, t in bench.targets.items() if name not in pilot.dead}
        named = [name for name, target in living.items() if limit_tests.limits_something(target)]
        if not named:
            return
        self._progress("testing limits natively")
        without = limit_tests.natively(bench, self.native)
        for name in named:
            self._progress(f"testing limits of {name}")
            bench.limits[name] = limit_tests.push(bench, name, without)

    @property
    def _fewest(self) -> int:
        """How many blocks the budget should have room for."""
        return FEWEST_BLOCKS if self.options.quick else self.options.minimum_blocks

    def _progress(self, what: str, share: float = 0.0) -> None:
        """Show what is being done, and how far the run is: by time, or by a larger `share`."""
        spent = (time.monotonic() - self.began) / max(self.options.budget, 1e-9)
        self.done = min(1.0, max(self.done, share or min(spent, TRIAL_SHARE)))
        self.observer.step(what, self.done, 1.0)

    def _too_late(self) -> str:
        """Say why nothing more is tried: empty while there is time."""
        if time.monotonic() - self.began <= self.options.budget + GRACE:
            return ""
        return f"the budget of {units.duration(self.options.budget)} ended before it was tried"

    def _fits(
        self,
        bench: runner.Bench,
        pilot: Pilot,
        labels: Sequence[TargetName],
        names: Collection[WorkloadName] | None = None,
    ) -> int:
        """Return how many blocks of these targets, and of these workloads where some are named, the
        rest of the budget has room for at most.
        """
        left = self.options.budget - (time.monotonic() - self.began)
        both = [*labels, plan.second(self.native)]
        some = {n: w for n, w in bench.workloads.items() if names is None or n in names}
        return choose_length(
            pilot, self.options, some, both, native=self.native, seconds_left=left
        )[1]

    def _too_expensive(self, bench: runner.Bench, pilot: Pilot, label: TargetName) -> str:
        """Say why a target that was merely found would cost the verdicts of all, or nothing.

        Of what it will cost only its opening is known: a start is as long, and there are several.
        """
        if label in self.asked:
            return ""
        opening = pilot.opening[label]
        tried = [name for name in pilot.proving if name not in (label, *pilot.dead)]
        left = self.options.budget - (time.monotonic() - self.began) - OPENINGS_TO_TRY * opening
        both = [*tried, plan.second(self.native)]
        cost = pilot.cost(SHORTEST, self.options, both, bench.workloads, self.native)
        if left * RESERVE >= self._fewest * (cost + OPENINGS_A_BLOCK * opening):
            return ""
        return self._no_room(label)

    def _no_room(self, name: str) -> str:
        reason = (
            f"with it {self._fewest} blocks do not fit into {units.duration(self.options.budget)};"
            " it is measured where it is asked for by name"
        )
        self.observer.say(f"{name} is left out: {reason}")
        left_out = self.about["left_out"]
        left_out["targets" if name in self.chosen.targets else "workloads"].append(name)
        return reason

    def _make_room(
        self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName]
    ) -> list[TargetName]:
        """Return the targets that are measured, now that their cost is known.

        Where not all fit, those that were asked for by name come first, then one of each kind.
        Where not even these fit, workloads that were not named are left out.
        """
        living = [label for label in labels if label not in pilot.dead]
        wanted = FEWEST_BLOCKS if self.options.quick else select.wanted_blocks(self.options)
        if self._fits(bench, pilot, living) >= wanted:
            return living
        found = select.in_turn(
            [name for name in living if name not in self.asked],
            lambda name: bench.targets[name].technology,
        )
        must = [name for name in living if name in self.asked]
        must += found[:1] if len(must) == 1 else []
        kept = select.that_fit(must, found, lambda names: self._fits(bench, pilot, names) >= wanted)
        for name in living:
            if name not in kept:
                leave_out(bench, pilot, name, self._no_room(name))
        kept = [name for name in living if name in kept]
        if not self.options.workloads:
            self._drop_workloads(bench, pilot, kept, wanted)
        return kept

    def _drop_workloads(
        self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName], wanted: int
    ) -> None:
        """Leave out workloads until the blocks fit; some of every class stay longest."""
        possible = [n for n in bench.workloads if (self.native, n) not in pilot.left_out]
        order = select.in_turn(possible, lambda name: bench.workloads[name].group)
        kept = select.that_fit(
            order[:1], order, lambda some: self._fits(bench, pilot, labels, some) >= wanted
        )
        for name in possible:
            if name not in kept:
                leave_out_workload(bench, pilot, name, labels, self._no_room(name))

    def _plan(self, bench: runner.Bench, pilot: Pilot, labels: Sequence[TargetName]) -> Plan:
        living = self._make_room(bench, pilot, labels)
        both = [*living, plan.second(self.native)]
        left = self.options.budget - (time.monotonic() - self.began)
        length, fits = choose_length(
            pilot, self.options, bench.workloads, both, native=self.native, seconds_left=left
        )
        kept = pilot.kept(self.options.launch, self.native)
        served = plan.blocks_per_session(max(1, min(fits, self.options.maximum_blocks)))
        block_cost = pilot.cost(length, self.options, both, bench.workloads, self.native, kept=kept)
        block_cost += sum(pilot.opening[name] for name in kept) / served
        # Fewer than three blocks have no interval; but a budget is no suggestion.
        self.fewest = FEWEST_BLOCKS if FEWEST_BLOCKS * block_cost <= max(left, 0) + GRACE else 1
        self.observer.say(
            f"About {units.duration(block_cost)} a block, iterations of"
            f" {units.duration(length)} natively."
        )
        for name in kept if served > 1 else ():
            self.observer.say(
                f"A session of {name} takes {units.duration(pilot.opening[name])} to open"
                f" and serves {served} blocks."
            )
        if fits < self.options.minimum_blocks and not self.options.quick:
            needed = self.options.minimum_blocks * block_cost / RESERVE + (
                self.options.budget - left
            )
            self.observer.say(
                f"Only about {max(fits, 1)} blocks fit into {units.duration(self.options.budget)},"
                f" verdicts need {self.options.minimum_blocks}: --budget {math.ceil(needed / 60)}m,"
                " or fewer targets or workloads."
            )
        if self.options.quick and fits < FEWEST_BLOCKS:
            self.observer.say(
                f"even {FEWEST_BLOCKS} blocks take about {FEWEST_BLOCKS * block_cost:.0f} s, longer"
                " than a quick look should: fewer targets or workloads make it short"
            )
        work = [
            self._work(workload, pilot.loops(workload, self.options, length, self.native))
            for name, workload in bench.workloads.items()
            if (self.native, name) not in pilot.left_out
        ]
        return plan.make(
            living,
            work,
            reference=self.native,
            blocks=self.options.maximum_blocks
            + math.ceil(self.options.maximum_blocks * runner.REPEATED_SHARE),
            seed=self.seed,
            schedule=self.options.schedule,
            without=frozenset(pilot.left_out),
            expensive=pilot.expensive,
            blocks_per_session=dict.fromkeys(kept, served),
        )

    def _work(self, workload: Workload, loops: int) -> Work:
        match workload.scope:
            case Scope.LOOP:
                return Work(
                    workload=workload.name,
                    loops=loops,
                    iterations=self.options.iterations,
                    warmups=self.options.warmups,
                )
            case Scope.EXEC:
                return Work(workload=workload.name, loops=1, iterations=self.options.iterations)
            case Scope.SESSION:
                return Work(workload=workload.name, loops=1, iterations=self.options.starts)

    def _measure_blocks(
        self, bench: runner.Bench, made: Plan, folder: "RunFolder", resumed: "Run | None" = None
    ) -> None:
        end = self.began + self.options.budget
        total = max(1, len(made.blocks[0].visits)) if made.blocks else 1
        place = {"block": 0, "visit": 0}

        def tick(visit: Visit, valid: int) -> None:
            if visit.block != place["block"]:
                place.update(block=visit.block, visit=0)
            place["visit"] += 1
            blocks_done = valid + place["visit"] / total
            spent = (time.monotonic() - self.began) / self.options.budget
            # A spent budget ends a run only when it has its fewest blocks.
            enough = blocks_done / min(self.fewest, self.options.maximum_blocks)
            share = max(min(spent, enough), blocks_done / self.options.maximum_blocks)
            self._progress(f"block {valid + 1}: {visit.workload} in {visit.target}", share)

        limits = runner.Limits(
            budget_end=end,
            minimum_blocks=self.fewest,
            maximum_blocks=self.options.maximum_blocks,
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
        from isobench.analysis import summaries  # noqa: PLC0415 - as above
        from isobench.storage import run_folder  # noqa: PLC0415 - as above

        return summaries.Analysis(run_folder.load(folder.path)).precise(self.options.precision)


def _check(check: ExpectationCheck) -> dict[str, Any]:
    return {
        "key": check.expectation.key,
        "relation": check.expectation.relation,
        "expected": check.expectation.value,
        "host": check.host,
        "inside": check.inside,
        "kept": check.kept,
    }


def answer_again(source: Path, target: Path, added: Sequence[Claim] = ()) -> Outcome:
    """Answer from the records of an earlier run, a folder or a zip; write into `target`.

    The claims in `added` are judged besides the documents' and the run's own.
    """
    from isobench.storage import run_folder  # noqa: PLC0415 - as above

    summary = answer(
        source,
        lambda name, value: run_folder.write_document(target / name, value),
        lambda name, content: run_folder.write_text(target / name, content),
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
    from isobench.analysis import summaries  # noqa: PLC0415 - as above
    from isobench.report import html, markdown, sections  # noqa: PLC0415 - as above
    from isobench.storage import run_folder  # noqa: PLC0415 - as above

    run = run_folder.load(folder)
    summary = summaries.summarise(run, summaries.claims_of(run, added))
    document("summary.json", summary)
    decoded: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(summary))
    seen = sections.build(decoded)
    text("summary.md", markdown.markdown(seen))
    text("report.html", html.render(seen, paths.shared("reports") / "templates"))
    return decoded
