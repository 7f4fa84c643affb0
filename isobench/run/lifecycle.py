"""A whole run: build, try, plan, measure, report."""

import contextlib
import datetime as dt
import hashlib
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from isobench import __version__, claims
from isobench.config import paths
from isobench.config.options import UNBOUNDED, Observer, RunOptions, Until
from isobench.evidence import host
from isobench.model import (
    Abi,
    Available,
    Evidence,
    ExpectationCheck,
    Payload,
    Plan,
    Schedule,
    Unavailable,
    Visit,
    Workload,
    commands,
    host_abi,
)
from isobench.model.errors import (
    PayloadError,
    UnavailableError,
    UsageError,
)
from isobench.model.units import TargetName, WorkloadName
from isobench.payload import build, stage
from isobench.plugins import guard, ownership, signals
from isobench.plugins.api import Explains
from isobench.plugins.registry import Registry
from isobench.report import write
from isobench.report.write import Outcome
from isobench.run import cleanup, duet, limit_tests, measure, plan_budget, rounds
from isobench.run.pilot import (
    FEWEST_BLOCKS,
    Pilot,
    restore,
    try_all,
)
from isobench.run.selection import Chosen
from isobench.run.time_limit import TimeLimit
from isobench.stats import sequential, special
from isobench.storage.schema import (
    FORMAT,
    CheckedExpectation,
    Configuration,
    LeftOut,
    PayloadEntry,
    RunMetadata,
    TargetEntry,
    TargetState,
    VariationEntry,
    WorkloadEntry,
)
from isobench.targets.shared import cpu_group, processes
from isobench.workloads import loader

if TYPE_CHECKING:
    from isobench.storage.reader import Growing, Run
    from isobench.storage.writer import RunFolder


BEFORE_THE_END: Final = 0.999
"""The largest share of the budget of an interim analysis: the last analysis comes at the end."""
TRIAL_SHARE: Final = 0.3
"""Progress shows the trial as at most this share of a run."""
# The tests take about 2.5 seconds for each container: in a shorter run they would displace blocks.
PATIENCE_FOR_LIMITS: Final = 60.0
"""Runs test limits if their budget has at least so many seconds."""


def _now() -> str:
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@contextlib.contextmanager
def _confined(cpus: frozenset[int]) -> Iterator[None]:
    """Confine this process and all that it starts to these CPUs; without CPUs do nothing."""
    # Processes inherit the CPUs of the thread that starts them: sched_setaffinity(2).
    before = os.sched_getaffinity(0)
    if cpus:
        os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Lifecycle:
    """One run, from its options to the report."""

    def __init__(
        self,
        options: RunOptions,
        registry: Registry,
        observer: Observer,
        time_limit: TimeLimit | None = None,
    ) -> None:
        """Take options, targets, observer and the time limit that is in force, if any. Nothing is
        started yet.
        """
        self.options, self.registry, self.observer = options, registry, observer
        self.time_limit = time_limit or TimeLimit(None)
        self.began = time.monotonic()
        self.seed = options.seed if options.seed is not None else secrets.randbelow(1 << 31)
        self.native = TargetName("native")
        self.id = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ") + "-" + secrets.token_hex(3)
        self.chosen = Chosen(targets={}, answers={}, workloads={})
        self.requested: frozenset[TargetName] = frozenset({self.native})
        self.metadata = RunMetadata(schema_version=FORMAT, reference=self.native)
        self.planner: plan_budget.Planner | None = None
        self.done = 0.0
        """The largest share of the run that was shown: progress never goes back."""
        self.fewest = FEWEST_BLOCKS
        """So many blocks are measured even if they exceed the budget."""
        self.decided = (0, 0)
        """How many cells the last interim analysis has decided, and of how many."""
        self.growing: Growing | None = None
        """The run so far, which interim analyses read."""
        self.earlier = 0.0
        """Seconds that a resumed run took before."""
        self.states_before: Mapping[TargetName, TargetState] = {}
        """What a resumed run had seen of its targets."""
        self.unbuilt: dict[tuple[WorkloadName, Abi], PayloadError] = {}
        """The payloads of plug-ins' workloads that could not be built, and why."""

    def build(self, chosen: Chosen) -> tuple[Payload, ...]:
        """Build the payloads for the targets that can run. UnavailableError: there are none for
        this machine.
        """
        home = host_abi()
        if home is None:
            raise UnavailableError("isobench has no payloads for this machine", hint="use Linux")
        abis: list[Abi] = list(
            dict.fromkeys([home, *(t.abi or home for t in chosen.able.values())])
        )
        # All shipped payloads are part of every stage, so that an engine's image is the same for
        # every selection of workloads and is made only once.
        every = [*loader.find().values(), *chosen.workloads.values()]
        wanted = build.programs(each for each in every if not each.plugin)
        if any(workload.libc for workload in chosen.workloads.values()):
            self.observer.say(
                "building the C library that some payloads need: about a minute, once"
            )
        built = build.build_all(
            wanted,
            abis,
            host=home,
            progress=lambda done, of: self.observer.step(
                f"building payloads: {done} of {of}", 0.0, 1.0
            ),
        )
        return (*built, *self._build_of_plugins(chosen, abis))

    def _build_of_plugins(self, chosen: Chosen, abis: Sequence[Abi]) -> Iterator[Payload]:
        """Build the payloads of plug-ins' workloads. One that cannot be built becomes a gap."""
        for workload in chosen.workloads.values():
            for abi in abis if workload.plugin else ():
                try:
                    yield build.build(workload.program, workload.source, abi, libc=workload.libc)
                except PayloadError as error:
                    self.unbuilt[workload.name, abi] = error
                    self.observer.say(f"{workload.name}, of {workload.plugin}: {error}")

    @stage.cache_in_use()
    def run(self, chosen: Chosen, resumed: "Run | None" = None) -> Outcome:
        """Measure and write the report. `resumed` is an earlier run to continue.

        UsageError: the earlier run cannot be continued here. UnavailableError: native cannot run.
        """
        self.chosen, self.requested = chosen, chosen.requested
        from isobench.storage import reader, writer  # noqa: PLC0415 - pandas, which `isobench --help` must not wait for

        payloads = self.build(chosen)
        with signals.uninterrupted():
            special.load()
        # The budget is for measuring and starts here. Programs are built once and kept.
        self.began = time.monotonic()
        if resumed is None:
            folder = writer.create(
                paths.results(), self.id, exact=self.options.output, argv=self.options.argv
            )
        else:
            folder = writer.RunFolder(resumed.path, self.options.argv)
        # The lock of the folder is held until the report is written, so that nobody resumes the run
        # before it is complete.
        with contextlib.closing(folder):
            try:
                guard.write_pending_logs(chosen.targets, folder.log)
                if folder.unlocked:
                    self.observer.say(
                        f"{folder.path} cannot be locked ({folder.unlocked}): make sure that no"
                        " other isobench resumes this run at the same time"
                    )
                # Read again under the lock: until now another process may have written to it.
                if resumed is not None:
                    resumed = _same(resumed, reader.load(resumed.path, folder=folder.held))
                return self._run_in(folder, chosen, payloads, resumed)
            except BaseException:
                folder.remove_unbegun()
                raise

    def _run_in(
        self,
        folder: "RunFolder",
        chosen: Chosen,
        payloads: tuple[Payload, ...],
        resumed: "Run | None",
    ) -> Outcome:
        failure = None
        is_late = False
        try:
            with contextlib.ExitStack() as last:
                failure = self._measure_in(folder, chosen, payloads, resumed, last)
                broken_off = self.metadata.stopped in ("interrupted", "time limit")
                self._note(
                    finished=_now(),
                    interrupted=broken_off or failure is not None,
                    elapsed_seconds=round(self.earlier + self._taken(), 1),
                )
                self._save(folder)
        except KeyboardInterrupt:
            if self.metadata.finished is None:
                raise
            is_late = True
        interrupted = is_late or self.metadata.stopped == "interrupted"
        timed_out = self.metadata.stopped == "time limit"
        try:
            outcome, interrupted = self._answer(folder, interrupted=interrupted)
        except Exception:
            if failure is None:
                raise
            raise failure from None  # it came first
        if failure is not None:  # raised only now, so that a report is always written
            raise failure
        return replace(outcome, interrupted=interrupted, timed_out=timed_out)

    def _measure_in(
        self,
        folder: "RunFolder",
        chosen: Chosen,
        payloads: tuple[Payload, ...],
        resumed: "Run | None",
        last: contextlib.ExitStack,
    ) -> Exception | None:
        """Measure, with all that a run has while it measures; return the error that has ended it.

        From the end of measuring on, interruptions wait until `last` is left.
        """
        failure: Exception | None = None
        has_begun = False
        try:
            with (
                _confined(self.options.affinity),
                stage.workshop(payloads, ",".join(map(str, sorted(self.options.affinity)))) as shop,
                contextlib.ExitStack() as spawning,
            ):
                self._describe(chosen, payloads, shop.scratch)
                self._enter_cpu_group(spawning)
                self._start_spawner(payloads, spawning)
                if resumed is not None:
                    self._go_on(resumed)
                self._demand_readable()
                has_begun = True
                try:
                    with self.time_limit.ending():
                        self._save(folder)
                        folder.document("state/host-pre.json", self.metadata.host)
                        self._measure(chosen, shop, folder, resumed)
                except KeyboardInterrupt:
                    self._stop(chosen, spawning, timed_out=self.time_limit.has_expired)
                except Exception as error:  # noqa: BLE001 - also one that nobody expects
                    failure = error
                    self._note(stopped="failure")
                if ownership.take_doubt():
                    self._clean_up(chosen)
                # What follows takes moments, and a run that has been measured is complete.
                last.enter_context(signals.uninterrupted())
                # Compared with host-pre.json it shows what changed during the run.
                folder.document("state/host-post.json", host.describe(shop.scratch))
        except Exception as error:
            if not has_begun:
                raise
            failure = failure or error
        finally:  # also for an error that nobody expects: the records are on the disk
            folder.sync()
        return failure

    def _answer(self, folder: "RunFolder", *, interrupted: bool) -> tuple[Outcome, bool]:
        """Write the report; return it, and whether the command was interrupted. An interruption
        ends the writing only if it is not the first.
        """

        def first() -> None:
            nonlocal interrupted
            interrupted = True
            self.observer.say("Interrupted: writing the report …")

        with contextlib.nullcontext() if interrupted else signals.first_postponed(first):
            try:
                outcome = write.answer(
                    folder.path, folder.path, self.options.claims, folder=folder.held
                )
            except KeyboardInterrupt:
                self.observer.say(
                    f"No report was written: isobench report {commands.path(folder.path)} writes it"
                )
                raise
        return outcome, interrupted

    def _demand_readable(self) -> None:
        """Raise UsageError where no command could read the run when it has ended.

        What the user gives is checked where it comes in. This is the last moment before minutes are
        spent, whatever has passed those checks.
        """
        from isobench.storage import reader  # noqa: PLC0415 - as above

        again = reader.as_read_again(self.metadata)
        claims.of_table(again.claims, origin="run.json")

    def _enter_cpu_group(self, stack: contextlib.ExitStack) -> None:
        """Give native the share of the CPU that containers get; `stack` ends that."""
        done = stack.enter_context(cpu_group.entered())
        self._note(host={**self.metadata.host, "cpu_group": done})

    def _start_spawner(self, payloads: Sequence[Payload], spawning: contextlib.ExitStack) -> None:
        """Start isobench's spawner, which `spawning` ends; else use Python."""
        spawner = next((p.path for p in payloads if p.program == build.SPAWN), None)
        self._note(spawner=spawning.enter_context(processes.spawning(spawner)))
        if self.metadata.spawner == "subprocess":
            self.observer.say(
                "isobench's spawner does not work here: Python starts all programs, which adds 0.2"
                " to 0.5 ms to every start-up time"
            )

    def _stop(self, chosen: Chosen, spawning: contextlib.ExitStack, *, timed_out: bool) -> None:
        """Clean up after an interruption, by Ctrl-C or by the time limit."""
        why = "The time limit has passed" if timed_out else "Interrupted"
        self.observer.say(f"{why}: cleaning up and writing the report …")
        # The spawner must end first: cleaning up kills it too, and engines still use it for
        # programs.
        with signals.uninterrupted():
            spawning.close()
        self._note(stopped="time limit" if timed_out else "interrupted")
        self._clean_up(chosen)

    def _taken(self) -> float:
        """Return the seconds since the beginning. A plug-in's thread may replace the clock."""
        return max(0.0, time.monotonic() - self.began)

    def _note(self, **known: Any) -> None:  # noqa: ANN401 - fields of RunMetadata
        """Set fields of the metadata."""
        self.metadata = msgspec.structs.replace(self.metadata, **known)

    def _save(self, folder: "RunFolder") -> None:
        """Write run.json with the current metadata."""
        if self.planner is not None:
            before = self.metadata.left_out or LeftOut()
            self._note(
                left_out=LeftOut(
                    targets=tuple(self.planner.left_out_targets),
                    workloads=tuple(self.planner.left_out_workloads),
                    command=before.command,
                )
            )
        folder.document("run.json", self.metadata)

    def _go_on(self, resumed: "Run") -> None:
        """Take over what an earlier run was; refuse where it would not be the same experiment."""
        old, new = resumed.metadata, self.metadata
        for same, what in (
            (old.payloads == new.payloads, "payloads or compiler"),
            (old.machine == new.machine, "machine"),
            (old.spawner == new.spawner, "way of starting programs"),
        ):
            if not same:
                raise UsageError(
                    f"{resumed.path} cannot be resumed: its {what} were others",
                    hint="measure again with isobench run",
                )
        self.earlier = old.elapsed_seconds or 0.0
        budget = new.budget_seconds
        self._note(
            **{name: getattr(old, name) for name in _OF_THE_BEGINNING},
            budget_seconds=None if budget is None else budget + self.earlier,
            resumed_by=(*old.resumed_by, self.options.argv),
        )

    def _clean_up(self, chosen: Chosen) -> None:
        """Remove what an interruption may have left."""
        try:
            cleanup.sweep_own(chosen.able, self.observer.say)
        except KeyboardInterrupt:  # a second Ctrl-C: the user wants the report now
            self.observer.say(f"some things of this run are not removed: {cleanup.CLEAN}")
        ownership.take_doubt()  # what stays has been named

    def _describe(self, chosen: Chosen, payloads: Sequence[Payload], scratch: Path) -> None:
        facts = host.describe(scratch)
        first = payloads[0]
        self.metadata = RunMetadata(
            schema_version=FORMAT,
            id=self.id,
            tool_version=__version__,
            started=_now(),
            argv=self.options.argv,
            config=Configuration(targets=self.registry.tables(chosen.targets)),
            claims=tuple(claims.to_table(self.options.claims)),
            confirms=self.options.confirms,
            affinity=tuple(sorted(self.options.affinity)),
            variations=msgspec.convert(self.options.variations, tuple[VariationEntry, ...]),
            seed=self.seed,
            reference=self.native,
            quick=self.options.quick,
            launch=self.options.launch,
            margin=self.options.margin,
            precision=self.options.precision,
            until=self.options.until,
            sequential=None if self.options.leave_width is None else sequential.RULE.name,
            leave_width=self.options.leave_width,
            budget_seconds=self.options.budget if self.options.budget < UNBOUNDED else None,
            blocks_wanted=self.options.maximum_blocks,
            rules=tuple(host.RULES),
            machine=host.summary(facts),
            host=facts,
            compiler=first.compiler,
            flags=" ".join(first.flags),
            targets=tuple(
                TargetEntry(name=name, technology=target.technology, asked=name in chosen.requested)
                for name, target in chosen.targets.items()
            ),
            left_out=chosen.left_out,
            workloads=tuple(map(_workload_entry, chosen.workloads.values())),
            payloads=tuple(map(_payload_entry, payloads)),
        )

    def _states(self, chosen: Chosen, runner: measure.Runner, folder: "RunFolder") -> None:
        """Write what each target is and showed of itself."""
        for name, target in chosen.targets.items():
            answer = chosen.answers[name]
            proof = runner.prover.proofs.get(name)
            lacking = answer if isinstance(answer, Unavailable) else None
            state = TargetState(
                name=name,
                technology=target.technology,
                status="available" if lacking is None else "unavailable",
                version=answer.version if isinstance(answer, Available) else None,
                reason=lacking.reason if lacking else None,
                lack=lacking.lack if lacking else None,
                hint=lacking.hint if lacking else None,
                abi=runner.abi(target),
                starts=dict(target.starts) if isinstance(target, Explains) else {},
                expectations=() if proof is None else tuple(map(_check, proof.checks)),
                limits=tuple(runner.limits.get(name, ())),
                facts=() if proof is None else tuple(proof.environment.facts.values()),
                workloads={
                    workload: {key: fact.value for key, fact in facts.items()}
                    for (owner_, workload), facts in runner.seen.items()
                    if owner_ == name
                },
            )
            before = self.states_before.get(name)
            state = state if before is None else continued(before, state)
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
            argv=self.options.argv,
            unbuilt=self.unbuilt,
            unavailable={
                name: answer
                for name, answer in chosen.answers.items()
                if isinstance(answer, Unavailable)
            },
        )
        if resumed is not None:
            self.states_before = resumed.states
            runner.limits |= {name: state.limits for name, state in resumed.states.items()}
            runner.seen |= seen_before(resumed.states)
            runner.evidence_before = {
                # A machine may have been restarted meanwhile.
                name: {fact.key: fact for fact in state.facts if fact.key != "kernel.boot_id"}
                for name, state in resumed.states.items()
            }
            restore(runner, resumed.plan)
            self._measure_blocks(runner, resumed.plan, folder, resumed)
            self._states(chosen, runner, folder)
            return
        made = self._try_and_plan(runner, chosen, folder)
        self._save(folder)
        if self.options.output is None:
            # Not earlier: what is interrupted before has nothing to report or to resume, and would
            # hide the run before it.
            folder.make_latest()
        self._measure_blocks(runner, made, folder)
        self._states(chosen, runner, folder)

    def _try_and_plan(self, runner: measure.Runner, chosen: Chosen, folder: "RunFolder") -> Plan:
        """Try every cell, test limits, and write the plan."""
        # States are written early and again after each step, so that an interrupted run has them.
        self._states(chosen, runner, folder)
        labels = list(chosen.able)
        planner = self.planner = self._planner(runner)
        pilot = try_all(
            runner,
            labels,
            self.native,
            progress=self._progress,
            too_expensive=planner.too_expensive,
            too_late=planner.too_late,
        )
        self._test_limits(runner, pilot)
        self._states(chosen, runner, folder)
        made = planner.plan(pilot, labels)
        self.fewest = planner.fewest
        # The hash of the plan before measuring proves that no result has changed it.
        written = folder.document("plan.json", made)
        self._note(
            plan_sha256=hashlib.sha256(written).hexdigest(),
            workloads=tuple(_planned(item, made) for item in self.metadata.workloads),
        )
        return made

    def _planner(self, runner: measure.Runner) -> plan_budget.Planner:
        left_out = self.metadata.left_out or LeftOut()
        return plan_budget.Planner(
            options=self.options,
            runner=runner,
            reference=self.native,
            requested=self.requested,
            began=self.began,
            seed=self.seed,
            say=self.observer.say,
            left_out_targets=[*left_out.targets],
            left_out_workloads=[*left_out.workloads],
        )

    def _test_limits(self, runner: measure.Runner, pilot: Pilot) -> None:
        """Test whether limits hold, if the budget has time for it."""
        if self.options.quick or self.options.budget < PATIENCE_FOR_LIMITS:
            return
        living = {name: t for name, t in runner.targets.items() if name not in pilot.dead}
        named = [name for name, target in living.items() if limit_tests.limits_something(target)]
        if not named:
            return
        self._progress("testing limits natively")
        without = limit_tests.run_natively(runner, self.native)
        for name in named:
            self._progress(f"testing limits of {name}")
            runner.limits[name] = limit_tests.check_limits(runner, name, without)

    def _progress(self, what: str, share: float = 0.0) -> None:
        """Show what is being done, and the share of the run that is done: by time, or `share`."""
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
            # At the end of the budget a run stops only if it has its fewest blocks.
            enough = blocks_done / min(self.fewest, self.options.maximum_blocks)
            share = max(min(spent, enough), blocks_done / self.options.maximum_blocks)
            what = f"block {valid + 1}: {visit.workload} in {visit.target}"
            done, of = self.decided
            self._progress(what if not of else f"{what}; {done} of {of} cells decided", share)

        rules = measure.StopRules(
            budget_end=end,
            minimum_blocks=self.fewest,
            maximum_blocks=self.options.maximum_blocks,
            analyse=lambda valid: self._analyse(folder, valid),
        )
        begun, invalid = (0, 0) if resumed is None else (resumed.begun, len(resumed.uncounted))
        with contextlib.ExitStack() as stack:
            one_block: measure.OneBlock = runner.block
            if made.schedule is Schedule.ROUNDS:
                one_block = rounds.Rounds(runner, made.reference, made.seed).block
            elif made.schedule is Schedule.DUET:
                one_block = stack.enter_context(duet.Duet(runner, self._halves())).block
            _, stopped = measure.measure(
                runner,
                made,
                rules,
                tick=tick,
                begun=begun,
                repeated=invalid,
                sessions=None if resumed is None else resumed.sessions,
                one_block=one_block,
                left=() if resumed is None else [(o.workload, o.target) for o in resumed.leavings],
            )
        folder.demand_records()
        self._note(stopped=stopped)

    def _halves(self) -> duet.Halves:
        found = duet.halves(os.sched_getaffinity(0), duet.siblings)
        if found is None:
            raise UnavailableError(
                "a duet needs two CPUs, but only one can be used here",
                hint="leave out --schedule duet, or widen --affinity",
            )
        return found

    def _analyse(self, folder: "RunFolder", valid: int) -> measure.Analysed:
        """Return which cells leave after so many blocks, and whether the run stops."""
        from isobench.analysis.cells import Analysis  # noqa: PLC0415 - as above
        from isobench.storage import reader  # noqa: PLC0415 - as above

        if self.growing is None:
            self.growing = reader.Growing(folder.path, folder=folder.held)
        analysis = Analysis(self.growing.load())
        spent = (time.monotonic() - self.began) / self.options.budget
        share = round(min(max(spent, 1e-6), BEFORE_THE_END), 6)
        decided, undecided = analysis.leaving(share), analysis.undecided(share)
        self.decided = (len(analysis.comparisons) - len(undecided), len(analysis.comparisons))
        # A resumed run of an earlier version has no rule by which cells leave.
        if self.options.until is Until.DECIDED and analysis.rule is not None:
            stop = "" if undecided else "decided"
            return measure.Analysed(leaving=decided, share=share, stop=stop)
        # Widths decide, and not verdicts: stats.narrow.
        if sequential.may_stop(valid) and analysis.precise(self.options.precision):
            return measure.Analysed(share=share, stop="precision")
        # What leaves makes room for what is open. Where nothing is open, all cells stay, and the
        # rest of the budget makes their intervals narrower.
        return measure.Analysed(leaving=decided if undecided else (), share=share)


_OF_THE_BEGINNING: Final = (
    "id", "started", "argv", "seed", "quick", "launch", "margin", "workloads", "targets", "config",
    "claims", "confirms", "variations", "plan_sha256", "left_out", "sequential", "leave_width",
)  # fmt: skip
"""The fields that a resumed run keeps. All others describe the process that resumes it."""


def continued(before: TargetState, now: TargetState) -> TargetState:
    """Return the state of a target after a resumed run: what the earlier part has seen stays.

    A target whose cells have left, or that cannot run any more, is not opened again.
    """
    workloads = {**before.workloads, **now.workloads}
    if not now.facts and before.facts:
        return msgspec.structs.replace(before, workloads=workloads)
    return msgspec.structs.replace(now, workloads=workloads, limits=now.limits or before.limits)


def seen_before(
    states: Mapping[TargetName, TargetState],
) -> dict[tuple[TargetName, WorkloadName], dict[str, Evidence]]:
    """Return the facts that payloads reported in the earlier part of a run."""
    return {
        (target, WorkloadName(workload)): {
            key: Evidence(key=key, value=value, source="") for key, value in facts.items()
        }
        for target, state in states.items()
        for workload, facts in state.workloads.items()
    }


def _same(before: "Run", now: "Run") -> "Run":
    """Return a run as it is read again before it is resumed. UsageError: it is another one."""
    if now.metadata.id != before.metadata.id:
        raise UsageError(
            f"{now.path} was replaced by another run meanwhile", hint="type the command again"
        )
    return now


def _workload_entry(workload: Workload) -> WorkloadEntry:
    return WorkloadEntry(
        name=workload.name,
        group=workload.class_name,
        summary=workload.summary,
        operation=workload.operation,
        scope=workload.scope,
        program=workload.program,
        metrics=tuple(workload.metrics.values()),
    )


def _payload_entry(payload: Payload) -> PayloadEntry:
    return PayloadEntry(
        program=payload.program,
        abi=payload.abi,
        sha256=payload.sha256,
        compiler=payload.compiler,
        flags=tuple(payload.flags),
    )


def _planned(item: WorkloadEntry, made: Plan) -> WorkloadEntry:
    """Return a workload with its loops and iterations in this plan."""
    work = next((work for work in made.work if work.workload == item.name), None)
    if work is None:
        return item
    return msgspec.structs.replace(item, loops=work.loops, iterations=work.iterations)


def _check(check: ExpectationCheck) -> CheckedExpectation:
    return CheckedExpectation(
        key=check.expectation.key,
        relation=check.expectation.relation,
        expected=check.expectation.value,
        host=check.host,
        inside=check.inside,
        kept=check.met,
    )
