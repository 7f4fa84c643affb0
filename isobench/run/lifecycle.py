"""A whole run: look, build, try, plan, measure, answer. The command line says what is wanted; this
does it.
"""

import contextlib
import datetime as dt
import hashlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from isobench import __version__, claims
from isobench.config import paths
from isobench.config.options import UNBOUNDED, Observer, RunOptions
from isobench.evidence import host
from isobench.model import (
    Abi,
    Available,
    ExpectationCheck,
    Leftover,
    LimitCheck,
    Payload,
    Plan,
    Schedule,
    Visit,
    host_abi,
)
from isobench.model.errors import (
    IsobenchError,
    UnavailableError,
    UsageError,
)
from isobench.model.units import TargetName
from isobench.payload import build, stage
from isobench.plugins import guard
from isobench.plugins.api import Explains
from isobench.plugins.registry import Registry
from isobench.report import write
from isobench.report.write import Outcome
from isobench.run import cleanup, duet, limit_tests, measure, plan_budget
from isobench.run.choose import Chosen
from isobench.run.pilot import (
    FEWEST_BLOCKS,
    Pilot,
    learn,
    try_all,
)
from isobench.targets.shared import processes
from isobench.workloads import loader

if TYPE_CHECKING:
    from isobench.storage.run_folder import Run, RunFolder


TRIAL_SHARE: Final = 0.3
"""Trials are shown as this share of a run at most."""
PATIENCE_FOR_LIMITS: Final = 60.0
"""Limits are pushed past in runs whose budget is at least so many seconds."""


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


class Lifecycle:
    """One run, from the wish to the report."""

    def __init__(self, options: RunOptions, registry: Registry, observer: Observer) -> None:
        """Take what is wanted; nothing happens yet."""
        self.options, self.registry, self.observer = options, registry, observer
        self.began = time.monotonic()
        self.seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
        self.native = TargetName("native")
        self.id = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(3)
        self.chosen = Chosen(targets={}, answers={}, workloads={})
        self.requested: frozenset[TargetName] = frozenset({self.native})
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
        self.chosen, self.requested = chosen, chosen.requested
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
        summary = write.answer(folder.path, folder.document, folder.text)
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
        """Remove what an interruption may have left."""
        try:
            cleanup.sweep_own(chosen.able, self._say_failure)
        except KeyboardInterrupt:  # once more: whoever waits shall have the report now
            self.observer.say(f"not all is removed that the run has made: {cleanup.CLEAN}")

    def _say_failure(self, leftover: Leftover) -> None:
        if leftover.failure:
            self.observer.say(
                f"{leftover.what} is not removed: {leftover.failure}; {cleanup.CLEAN}"
            )

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
                {"name": name, "class": target.technology, "asked": name in chosen.requested}
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

    def _states(self, chosen: Chosen, runner: measure.Runner, folder: "RunFolder") -> None:
        """Write what each target is and showed of itself."""
        for name, target in chosen.targets.items():
            answer_ = chosen.answers[name]
            proof = runner.prover.proofs.get(name)
            state: dict[str, Any] = {
                "name": name,
                "class": target.technology,
                "status": "available" if isinstance(answer_, Available) else "unavailable",
                "version": answer_.version if isinstance(answer_, Available) else None,
                "reason": None if isinstance(answer_, Available) else answer_.reason,
                "lack": None if isinstance(answer_, Available) else answer_.lack,
                "hint": None if isinstance(answer_, Available) else answer_.hint,
                "abi": runner.abi(target),
                "starts": dict(target.starts) if isinstance(target, Explains) else {},
                "promises": [] if proof is None else [_check(check) for check in proof.checks],
                "limits": list(runner.limits.get(name, ())),
                "facts": [] if proof is None else list(proof.environment.facts.values()),
                "workloads": {
                    workload: {key: fact.value for key, fact in facts.items()}
                    for (owner_, workload), facts in runner.seen.items()
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
        runner = measure.Runner(
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
                runner.limits[name] = found
            learn(runner, resumed.plan)
            self._measure_blocks(runner, resumed.plan, folder, resumed)
            self._states(chosen, runner, folder)
            return
        self._states(chosen, runner, folder)
        planner = self._planner(runner)
        pilot = try_all(
            runner,
            labels,
            self.native,
            progress=self._progress,
            too_expensive=planner.too_expensive,
            too_late=planner.too_late,
        )
        self._push_limits(runner, pilot)
        self._states(chosen, runner, folder)
        made = planner.plan(pilot, labels)
        self.fewest = planner.fewest
        folder.document("plan.json", made)
        written = (folder.path / "plan.json").read_bytes()
        self.about["plan_sha256"] = hashlib.sha256(written).hexdigest()
        for item in self.about["workloads"]:
            work = next((w for w in made.work if w.workload == item["name"]), None)
            if work is not None:
                item |= {"loops": work.loops, "iterations": work.iterations}
        folder.document("run.json", self.about)
        self._measure_blocks(runner, made, folder)
        self._states(chosen, runner, folder)

    def _planner(self, runner: measure.Runner) -> plan_budget.Planner:
        return plan_budget.Planner(
            options=self.options,
            runner=runner,
            reference=self.native,
            requested=self.requested,
            began=self.began,
            seed=self.seed,
            say=self.observer.say,
            left_out_targets=self.about["left_out"]["targets"],
            left_out_workloads=self.about["left_out"]["workloads"],
        )

    def _push_limits(self, runner: measure.Runner, pilot: Pilot) -> None:
        """See whether limits hold, where there is time for it: some two seconds a target."""
        if self.options.quick or self.options.budget < PATIENCE_FOR_LIMITS:
            return
        living = {name: t for name, t in runner.targets.items() if name not in pilot.dead}
        named = [name for name, target in living.items() if limit_tests.limits_something(target)]
        if not named:
            return
        self._progress("testing limits natively")
        without = limit_tests.natively(runner, self.native)
        for name in named:
            self._progress(f"testing limits of {name}")
            runner.limits[name] = limit_tests.push(runner, name, without)

    def _progress(self, what: str, share: float = 0.0) -> None:
        """Show what is being done, and how far the run is: by time, or by a larger `share`."""
        spent = (time.monotonic() - self.began) / max(self.options.budget, 1e-9)
        self.done = min(1.0, max(self.done, share or min(spent, TRIAL_SHARE)))
        self.observer.step(what, self.done, 1.0)

    def _measure_blocks(
        self, runner: measure.Runner, made: Plan, folder: "RunFolder", resumed: "Run | None" = None
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

        rules = measure.StopRules(
            budget_end=end,
            minimum_blocks=self.fewest,
            maximum_blocks=self.options.maximum_blocks,
            is_precise=lambda _: self._precise(folder),
        )
        begun, invalid = (0, 0) if resumed is None else (resumed.begun, len(resumed.invalid_blocks))
        with contextlib.ExitStack() as stack:
            pairs = None
            if made.schedule is Schedule.DUET:
                pairs = stack.enter_context(duet.Duet(runner, self._halves()))
            _, self.about["stopped"] = measure.measure(
                runner,
                made,
                rules,
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
