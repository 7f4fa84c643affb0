"""Whole runs, from the wish to the report, over targets that answer to a script."""

import contextlib
import functools
import gc
import hashlib
import itertools
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis.frames import Frames
from isobench.cli._exits import exit_code
from isobench.config.options import Launch, RunOptions, Until
from isobench.evidence import clock, host
from isobench.model import (
    TIME,
    Abi,
    Answer,
    Availability,
    Available,
    BlockHealth,
    Clock,
    Command,
    Expectation,
    Fact,
    Lack,
    Leftover,
    Need,
    Payload,
    Relation,
    Sample,
    Schedule,
    Scope,
    Stage,
    Start,
    Technology,
    Unavailable,
    Visit,
    Work,
    Workload,
    host_abi,
    plan,
)
from isobench.model.errors import (
    NothingToRunError,
    PayloadError,
    SessionError,
    UnavailableError,
    UsageError,
)
from isobench.model.units import Nanoseconds, Sha256, TargetName, Unit, WorkloadName, seconds
from isobench.payload import build
from isobench.plugins import ownership
from isobench.plugins.api import Completed, Target
from isobench.plugins.registry import Registry
from isobench.plugins.testing import FakeTarget, Fault, Script, correct_check
from isobench.report import write
from isobench.run import cleanup, measure, selection
from isobench.run import pilot as trying
from isobench.run.lifecycle import Lifecycle, seen_before
from isobench.run.pilot import Pilot
from isobench.run.selection import Chosen
from isobench.run.time_limit import TimeLimit
from isobench.stats import special
from isobench.storage import documents, lock, reader, records
from isobench.storage.schema import TargetState

NATIVE, BOX, JAR, POT = (TargetName(name) for name in ("native", "box", "jar", "pot"))
SIEVE, COLD, EXEC = (WorkloadName(n) for n in ("cpu.sieve", "startup.cold", "startup.exec"))
HOST = {"kernel.boot_id": "b", "ns.pid": "pid:[1]"}
INSIDE = {"kernel.boot_id": "b", "ns.pid": "pid:[2]"}
EXPECTATION = Expectation(key="ns.pid", relation=Relation.UNLIKE_HOST)
MISSING = Unavailable(lack=Lack.TOOL, what="jar", hint="apt install jar")


def workload(name: WorkloadName, scope: Scope, start: Start | None = None) -> Workload:
    answer = Answer(loops=20, check=correct_check(name, 20)) if scope is Scope.LOOP else None
    return Workload(
        name=name,
        summary="nothing",
        scope=scope,
        operation="one loop",
        source=Path("workloads/x/payload.c"),
        timeout=seconds(60),
        metrics={"time": TIME},
        answer=answer,
        start=start,
    )


WORKLOADS = {
    SIEVE: workload(SIEVE, Scope.LOOP),
    COLD: workload(COLD, Scope.SESSION, Start.COLD),
    EXEC: workload(EXEC, Scope.EXEC),
}


def jittered(nanoseconds: float, seed: int = 1) -> tuple[Script, ...]:
    """Return scripts of visits that take about so long."""
    rng = random.Random(seed)  # noqa: S311 - figures to repeat, not a secret
    return tuple(Script(durations=(round(nanoseconds * rng.gauss(1, 0.002)),)) for _ in range(100))


def native(**options: Any) -> FakeTarget:
    usual = {
        "name": NATIVE,
        "technology": Technology.NATIVE,
        "inside": HOST,
        "scripts": {SIEVE: jittered(1e6)},
    }
    return FakeTarget(**(usual | options))


def box(name: TargetName = BOX, **options: Any) -> FakeTarget:
    usual = {
        "name": name,
        "technology": Technology.CONTAINERIZATION,
        "inside": INSIDE,
        "expectations": (EXPECTATION,),
        "scripts": {SIEVE: jittered(2e6, seed=2)},
    }
    return FakeTarget(**(usual | options))


class Shelf(Registry):
    """A registry of given targets."""

    def __init__(self, targets: Iterable[Target]) -> None:
        super().__init__()
        self.targets = {target.name: target for target in targets}

    def names(self) -> tuple[TargetName, ...]:
        return tuple(self.targets)

    def get(self, name: str) -> Target:
        if name not in self.targets:
            raise UsageError(f"no target is called {name!r}", hint="isobench targets lists them")
        return self.targets[TargetName(name)]


@dataclass
class Observer:
    """Keeps what it is told; interrupts at a step if asked to."""

    interrupt_at: str = ""
    said: list[str] = field(default_factory=list)
    answers: dict[TargetName, Availability] = field(default_factory=dict)
    steps: list[tuple[str, float, float]] = field(default_factory=list)

    def say(self, text: str) -> None:
        self.said.append(text)

    def probed(self, name: TargetName, answer: Availability) -> None:
        self.answers[name] = answer

    def step(self, what: str, done: float, total: float) -> None:
        self.steps.append((what, done, total))
        if self.interrupt_at and self.interrupt_at in what:
            raise KeyboardInterrupt


@pytest.fixture(autouse=True)
def _durations_of_a_script_do_not_grow(monkeypatch: pytest.MonkeyPatch) -> None:
    """A script says the same durations whatever the loops: its growth is a test of its own."""
    monkeypatch.setattr(trying, "GROWN", 0.0)


@pytest.fixture(autouse=True)
def _a_script_has_a_clock_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """It says milliseconds in no time at all, which is plainly another clock than the host's."""
    monkeypatch.setattr(clock, "check", lambda *_: None)
    monkeypatch.setattr(Frames, "host_check", lambda *_, **__: None)


@pytest.fixture(autouse=True)
def quiet_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the host be quiet, and let nothing be compiled."""

    class Meter:
        def lap(self, block: int) -> BlockHealth:
            return BlockHealth(
                block=block,
                seconds=1.0,
                steal_percent=0.0,
                pressure_percent=None,
                swapped_in_pages=0,
                throttled=None,
                clock_source="tsc",
            )

    def build_all(
        wanted: Mapping[str, object],
        abis: Sequence[Abi],
        *,
        host: Abi,
        progress: Callable[[int, int], None],
    ) -> tuple[Payload, ...]:
        progress(1, 1)
        # Each start gets copies of all programs: fewer of them are copied sooner.
        used = [name for name in wanted if name.startswith("_") or name in WORKLOADS]
        return tuple(payload(name, abi) for name, abi in itertools.product(used, abis))

    def payload(name: str, abi: Abi) -> Payload:
        content = f"{abi} {name}".encode()
        program = tmp_path / f"program-{abi}-{name}"
        program.write_bytes(content)
        return Payload(
            program=name,
            abi=abi,
            path=program,
            sha256=Sha256(hashlib.sha256(content).hexdigest()),
            compiler="none",
            flags=("-O2",),
        )

    monkeypatch.setattr(host, "Meter", Meter)
    monkeypatch.setattr(os, "getloadavg", lambda: (0.0, 0.0, 0.0))
    monkeypatch.setattr(build, "build_all", build_all)
    # What makes a measurement safe and still is only slow here.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ISOBENCH_RESULTS_DIR", str(tmp_path / "results"))


def chosen_of(
    of: Iterable[Target],
    observer: Observer | None = None,
    workloads: Mapping[WorkloadName, Workload] = WORKLOADS,
    **run_options: Any,
) -> Chosen:
    return selection.choose(RunOptions(**run_options), Shelf(of), workloads, observer or Observer())


def run(
    *targets: FakeTarget,
    observer: Observer | None = None,
    workloads: Mapping[WorkloadName, Workload] = WORKLOADS,
    **run_options: Any,
) -> write.Outcome:
    """Return the outcome of four blocks over native and some targets, which no cell leaves."""
    usual = {"maximum_blocks": 4, "precision": 1e-9, "seed": 5, "leave_width": None}
    wanted = RunOptions(**(usual | run_options))
    watcher = observer or Observer()
    shelf = Shelf(targets if targets[0].name == NATIVE else (native(), *targets))
    chosen = selection.choose(wanted, shelf, workloads, watcher)
    with TimeLimit(wanted.time_limit) as limit:
        return as_read(Lifecycle(wanted, shelf, watcher, limit).run(chosen))


def as_read(outcome: write.Outcome) -> Any:
    """Return an outcome whose summary is as scripts read it."""
    return replace(outcome, summary=json.loads(documents.encoded(outcome.summary)))


def code_of(outcome: Any, fail_on: Sequence[str]) -> int:
    """Return with which code a command ends that came to this."""
    typed = replace(outcome, summary=documents.summary_of(outcome.summary))
    return exit_code(typed, fail_on)


def cell(outcome: write.Outcome, name: str = "box", workload: str = "cpu.sieve") -> Any:
    cells = outcome.summary["cells"]
    return next(c for c in cells if (c["target"], c["workload"]) == (name, workload))


def gaps(outcome: write.Outcome) -> set[tuple[str, str, str]]:
    return {(g["target"], g["workload"], g["cause"]) for g in outcome.summary["gaps"]}


def headline_of(outcome: write.Outcome) -> str:
    return str(outcome.summary["run"]["headline"])


def status(outcome: write.Outcome, name: str) -> str:
    (found,) = (t["status"] for t in outcome.summary["targets"] if t["name"] == name)
    return str(found)


# ---- choosing


def test_all_targets_are_probed_and_those_that_cannot_run_are_left_out() -> None:
    observer = Observer()
    chosen = chosen_of([native(), box(), box(JAR, availability=MISSING)], observer)
    assert list(chosen.able) == [NATIVE, BOX]
    assert observer.answers == {
        NATIVE: chosen.answers[NATIVE],
        BOX: chosen.answers[BOX],
        JAR: MISSING,
    }


def test_a_target_requested_by_name_that_cannot_run_ends_the_run_with_its_hint() -> None:
    with pytest.raises(UnavailableError, match="jar cannot run here: jar is not") as caught:
        chosen_of([native(), box(JAR, availability=MISSING)], targets=("jar",))
    assert caught.value.hint == "apt install jar"
    assert caught.value.exit_code == 3


def test_every_target_that_was_requested_and_cannot_run_is_named_with_its_hint() -> None:
    pot = Unavailable(lack=Lack.DEVICE, what="no stove", hint="buy a stove")
    targets = [native(), box(JAR, availability=MISSING), box(POT, availability=pot), box()]
    with pytest.raises(UnavailableError) as caught:
        chosen_of(targets, targets=("jar", "pot"))
    words = str(caught.value)
    for expected in (
        "2 of the requested targets",
        "jar is not installed",
        "apt install jar",
        "buy a stove",
    ):
        assert expected in words
    assert caught.value.hint == "what can run here: isobench run --targets box"


def test_what_was_requested_and_can_run_is_measured_beside_what_cannot() -> None:
    observer = Observer()
    outcome = run(
        native(), box(), box(JAR, availability=MISSING), observer=observer, targets=("box", "jar")
    )
    assert observer.answers[JAR] == MISSING
    assert cell(outcome)["ratio"] == pytest.approx(2.0, rel=0.1)
    assert status(outcome, "jar") == "unavailable"
    assert {gap for gap in gaps(outcome) if gap[0] == "jar"} == {
        ("jar", name, "unavailable") for name in WORKLOADS
    }
    assert "jar was asked for and cannot run here: jar is not installed." in headline_of(outcome)
    assert code_of(outcome, ()) == 3


def test_what_was_merely_found_and_cannot_run_is_no_failure() -> None:
    outcome = run(native(), box(), box(JAR, availability=MISSING))
    assert code_of(outcome, ()) == 0
    assert code_of(outcome, ("skipped",)) == 3
    assert "asked for" not in headline_of(outcome)


def test_a_target_that_cannot_be_prepared_is_a_gap_unless_it_is_required() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Broken(FakeTarget):
        def prepare(self, say: Callable[[str], None]) -> None:
            raise SessionError("no flour", hint="buy flour")

    shelf = [native(), box(), Broken(name=JAR, technology=Technology.SANDBOX)]
    chosen = chosen_of(shelf, targets=("box", "jar"))
    made = selection.prepare(chosen, RunOptions(targets=("box", "jar")), lambda _: None)
    assert list(made.able) == [NATIVE, BOX]
    assert made.answers[JAR].reason == "it cannot be prepared: no flour"  # type: ignore[union-attr]
    for run_options in (
        RunOptions(targets=("jar",)),
        RunOptions(targets=("box", "jar"), require=("jar",)),
    ):
        chosen = chosen_of(shelf, targets=run_options.targets, require=run_options.require)
        with pytest.raises(UnavailableError, match="no flour"):
            selection.prepare(chosen, run_options, lambda _: None)


def test_what_ends_the_run_is_reported_once() -> None:
    observer = Observer()
    with pytest.raises(UnavailableError, match="jar cannot run here"):
        chosen_of([native(), box(JAR, availability=MISSING)], observer, targets=("jar",))
    assert list(observer.answers) == [NATIVE]


def test_a_required_target_must_run_even_when_all_are_requested() -> None:
    targets = [native(), box(JAR, availability=MISSING)]
    with pytest.raises(UnavailableError, match="jar"):
        chosen_of(targets, require=("jar",))
    with pytest.raises(UnavailableError, match="jar"):
        chosen_of([*targets, box()], targets=("box",), require=("jar",))


def test_an_unknown_required_name_is_reported() -> None:
    with pytest.raises(UsageError, match="'jugg'"):
        chosen_of([native()], require=("jugg",))


def test_without_native_there_is_no_run() -> None:
    with pytest.raises(UnavailableError, match="native cannot run here"):
        chosen_of([native(availability=MISSING), box()])


def test_without_workloads_there_is_no_run() -> None:
    with pytest.raises(NothingToRunError) as caught:
        chosen_of([native()], workloads={})
    assert caught.value.exit_code == 5


def test_a_probe_that_raises_is_reported_as_a_fault_of_the_plug_in() -> None:
    class Rude(FakeTarget):
        def probe(self) -> Availability:
            raise ZeroDivisionError("by zero")

    answer = chosen_of([native(), Rude(name=BOX)]).answers[BOX]
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PLUGIN
    assert "ZeroDivisionError: by zero" in answer.what


# ---- a run


def test_a_whole_run_leaves_every_file_of_its_folder(tmp_path: Path) -> None:
    outcome = run(box(), box(JAR, availability=MISSING))
    names = {str(p.relative_to(outcome.folder)) for p in outcome.folder.rglob("*") if p.is_file()}
    assert {
        *("run.json", "plan.json", "records.jsonl", "summary.json", "summary.md", "report.html"),
        *("state/host-pre.json", "state/host-post.json", "state/blocks.jsonl"),
        *("state/native-pre.json", "state/box-pre.json", "state/jar-pre.json"),
    } <= names
    assert (tmp_path / "results" / "latest").resolve() == outcome.folder
    assert json.loads((outcome.folder / "summary.json").read_text()) == outcome.summary


def test_a_run_finds_the_ratio_that_its_targets_have() -> None:
    found = cell(run(box(), maximum_blocks=12))
    assert found["ratio"] == pytest.approx(2.0, rel=0.01)
    assert (found["standing"], found["blocks"]) == ("slower", 12)


def test_start_ups_are_cells_too() -> None:
    outcome = run(box())
    for name in (COLD, EXEC):
        assert cell(outcome, "box", name)["clock"] == "host"
        assert cell(outcome, "box", name)["value"] > 0


def test_native_is_visited_twice_in_every_block() -> None:
    outcome = run(box())
    frame = reader.load(outcome.folder).samples
    mine = frame[(frame["workload"] == SIEVE) & (frame["block"] > 0) & (frame["metric"] == "time")]
    counts = mine.groupby(["block", "target"]).size().unstack()
    assert set(counts.columns) == {"native", "native#2", "box"}
    assert (counts == 25).all().all()


def test_every_session_is_closed_and_the_folder_in_the_cache_is_gone(tmp_path: Path) -> None:
    one, other = native(), box()
    run(one, other)
    assert one.opened == one.closed > 4
    assert other.opened == other.closed > 4
    assert list((tmp_path / "cache" / "isobench" / "runs").iterdir()) == []


def test_the_same_seed_gives_the_same_plan_and_it_is_written_down() -> None:
    first, second = run(box(), seed=5), run(box(), seed=5)
    plans = [json.loads((each.folder / "plan.json").read_text()) for each in (first, second)]
    assert plans[0]["blocks"] == plans[1]["blocks"]
    assert first.summary["run"]["seed"] == plans[0]["seed"] == 5


def test_a_seed_is_drawn_and_written_down_where_none_is_given() -> None:
    outcome = run(box(), seed=None)
    assert isinstance(outcome.summary["run"]["seed"], int)


def test_work_is_the_same_for_all_targets_and_longer_than_in_the_trial() -> None:
    one, other = native(), box()
    run(one, other)
    received = [{a.argv[2:4] for a in fake.received if a.argv[0] == SIEVE} for fake in (one, other)]
    trial, measured = sorted(int(loops) for _, loops in received[1])
    assert {int(loops) for _, loops in received[0]} == {trial, trial * trying.GROWTH, measured}
    assert trial == 20
    assert 158 <= measured <= 162  # 8 milliseconds at 50 microseconds a loop


def test_the_most_loops_of_a_workload_are_never_exceeded() -> None:
    one = native()
    run(one, workloads={SIEVE: replace(WORKLOADS[SIEVE], most_loops=64)})
    assert max(int(a.argv[3]) for a in one.received if a.argv[0] == SIEVE) == 64


def test_an_absent_target_leaves_its_reason_and_its_hint() -> None:
    outcome = run(box(JAR, availability=MISSING))
    (found,) = (t for t in outcome.summary["targets"] if t["name"] == "jar")
    assert (found["status"], found["reason"], found["hint"]) == (
        "unavailable",
        "jar is not installed",
        "apt install jar",
    )


def test_a_target_that_will_not_open_leaves_gaps_and_is_not_planned() -> None:
    outcome = run(box(), box(JAR, openings=("no space",)))
    assert gaps(outcome) == {("jar", name, "failed") for name in WORKLOADS}
    assert status(outcome, "jar") == "failed"
    targets = {v.target for b in reader.load(outcome.folder).plan.blocks for v in b.visits}
    assert targets == {NATIVE, BOX, "native#2"}
    assert cell(outcome)["ratio"] == pytest.approx(2.0, rel=0.01)


def test_a_target_that_breaks_its_expectation_has_no_numbers() -> None:
    liar = box(JAR, inside=HOST)
    outcome = run(box(), liar)
    assert gaps(outcome) == {("jar", name, "unproven") for name in WORKLOADS}
    assert status(outcome, "jar") == "unproven"
    assert not [c for c in outcome.summary["cells"] if c["target"] == "jar"]
    assert liar.runs(SIEVE) == 0


def test_a_cell_that_fails_its_trial_is_left_out_of_the_plan_and_reported() -> None:
    bad = box(scripts={SIEVE: (Script(fault=Fault.ERROR_LINE),)})
    outcome = run(bad)
    assert gaps(outcome) == {("box", "cpu.sieve", "failed")}
    assert bad.runs(SIEVE) == 1
    assert cell(outcome, "box", EXEC)["value"] > 0


def test_a_workload_that_fails_natively_is_left_out_for_all() -> None:
    bad = native(scripts={SIEVE: (Script(fault=Fault.SILENT),)})
    other = box()
    outcome = run(bad, other)
    assert {w.workload for w in reader.load(outcome.folder).plan.work} == {COLD, EXEC}
    assert other.runs(SIEVE) <= 1
    assert ("native", "cpu.sieve", "failed") in gaps(outcome)


def test_a_wrong_answer_in_the_middle_takes_the_verdict_away() -> None:
    good = jittered(2e6)
    outcome = run(box(scripts={SIEVE: (*good[:2], Script(check="beef"), *good[3:])}))
    assert ("box", "cpu.sieve", "wrong-answer") in gaps(outcome)
    assert cell(outcome)["standing"] == "unproven"


def test_where_native_itself_does_not_run_there_is_no_run() -> None:
    with pytest.raises(UnavailableError, match="native cannot be measured"):
        run(native(openings=("no",)), box())


@pytest.mark.parametrize("at", ["building", "trying box", "block 1:", "block 4:"])
def test_an_interruption_keeps_what_was_measured_and_leaves_a_report(
    at: str, tmp_path: Path
) -> None:
    other = box()
    if at == "building":
        with pytest.raises(KeyboardInterrupt):
            run(other, observer=Observer(interrupt_at=at))
        assert not (tmp_path / "results").exists()
        return
    outcome = run(other, observer=Observer(interrupt_at=at))
    assert outcome.interrupted
    assert outcome.summary["run"]["complete"] is False
    assert "cut short" in outcome.summary["run"]["headline"]
    assert (outcome.folder / "report.html").is_file()
    assert other.opened == other.closed
    assert list((tmp_path / "cache" / "isobench" / "runs").iterdir()) == []
    blocks = reader.load(outcome.folder).samples["block"].max()
    assert blocks == (3 if at == "block 4:" else 0)


def test_an_error_that_nobody_expects_keeps_what_was_measured_and_leaves_a_report(
    tmp_path: Path,
) -> None:
    class Broken(Observer):
        def step(self, what: str, done: float, total: float) -> None:
            super().step(what, done, total)
            if what.startswith("block 4:"):
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(box(), observer=Broken(), output=tmp_path / "mine")
    found = reader.load(tmp_path / "mine")
    assert found.samples["block"].max() == 3
    assert (found.metadata.stopped, found.metadata.interrupted) == ("failure", True)
    assert (tmp_path / "mine" / "report.html").is_file()


def test_a_run_whose_records_are_removed_ends_after_the_block_and_loses_nothing(
    tmp_path: Path,
) -> None:
    records = tmp_path / "mine" / "records.jsonl"

    class Careless(Observer):
        def step(self, what: str, done: float, total: float) -> None:
            super().step(what, done, total)
            if what.startswith("block 1:"):
                records.unlink(missing_ok=True)

    with pytest.raises(UsageError, match="was removed or replaced while") as caught:
        run(box(), observer=Careless(), output=tmp_path / "mine")
    found = reader.load(tmp_path / "mine")
    assert (found.metadata.stopped, found.metadata.complete) == ("failure", False)
    assert [one.block for one in found.health] == [1]
    assert (found.invalid_blocks, found.lost_blocks) == ({1}, {1})
    assert "removed or replaced" in (tmp_path / "mine" / "logs" / "records.log").read_text()
    assert (tmp_path / "mine" / "report.html").is_file()
    assert "--resume" in caught.value.hint
    (tmp_path / "mine" / "records.rescued.jsonl").replace(records)
    found = reader.load(tmp_path / "mine")
    assert {*found.samples["block"]} == {0, 1}
    assert not found.losses


def test_records_that_are_removed_after_the_last_block_are_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = measure.measure

    def careless(*words: Any, **options: Any) -> Any:
        done = measured(*words, **options)
        (tmp_path / "mine" / "records.jsonl").unlink()
        return done

    monkeypatch.setattr(measure, "measure", careless)
    with pytest.raises(UsageError, match="was removed or replaced while"):
        run(box(), output=tmp_path / "mine")
    assert reader.load(tmp_path / "mine").lost_blocks


def test_an_error_after_the_last_block_leaves_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    describe, described = host.describe, []

    def describe_once(*given: Any) -> Any:
        # The host is described before and after measuring.
        described.append(given)
        if len(described) == 2:
            raise OSError("no host")
        return describe(*given)

    monkeypatch.setattr(host, "describe", describe_once)
    with pytest.raises(OSError, match="no host"):
        run(box(), output=tmp_path / "mine")
    assert (tmp_path / "mine" / "report.html").is_file()


def test_a_clock_that_was_replaced_leaves_a_run_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unmeasured(*_: object) -> None:
        monkeypatch.setattr(time, "monotonic", lambda: 0.0)
        raise UnavailableError("native has gone", hint="wait")

    monkeypatch.setattr(Lifecycle, "_measure", unmeasured)
    with pytest.raises(UnavailableError, match="native has gone"):
        run(box(), output=tmp_path / "mine")
    assert reader.load(tmp_path / "mine").metadata.elapsed_seconds == 0.0


def test_an_error_of_the_report_does_not_hide_the_one_that_has_ended_measuring(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    def unmeasured(*_: object) -> None:
        raise UnavailableError("native has gone", hint="wait")

    monkeypatch.setattr(write, "answer", broken)
    monkeypatch.setattr(Lifecycle, "_measure", unmeasured)
    with pytest.raises(UnavailableError, match="native has gone"):
        run(box())


def test_a_time_limit_ends_a_run_with_a_report() -> None:
    class Slow(Observer):
        def step(self, what: str, done: float, total: float) -> None:
            super().step(what, done, total)
            if what.startswith("block 1:"):
                threading.Event().wait(60)

    outcome = run(box(), time_limit=5, observer=Slow())
    assert outcome.timed_out
    assert not outcome.interrupted
    assert outcome.summary["run"]["stopped"] == "time limit"
    assert outcome.summary["run"]["complete"] is False


def test_a_run_stops_when_all_is_precise_enough() -> None:
    outcome = run(box(), workloads={SIEVE: WORKLOADS[SIEVE]}, precision=0.5, maximum_blocks=40)
    assert outcome.summary["run"]["stopped"] == "precision"
    assert outcome.summary["run"]["blocks"] == 10


def leavings(outcome: write.Outcome) -> set[tuple[str, str]]:
    return {(one.target, one.workload) for one in reader.load(outcome.folder).leavings}


OPEN = {SIEVE: jittered(1.05e6, seed=3)}
"""A target on the margin: nothing decides it."""


def test_what_is_decided_leaves_where_something_else_is_open() -> None:
    outcome = run(
        box(), box(JAR, scripts=OPEN), workloads={SIEVE: WORKLOADS[SIEVE]},
        leave_width=0.15, maximum_blocks=12,
    )  # fmt: skip
    assert leavings(outcome) == {("box", SIEVE)}
    assert (cell(outcome)["standing"], cell(outcome)["blocks"]) == ("slower", 5)
    assert cell(outcome)["ratio"] == pytest.approx(2.0, rel=0.01)
    assert cell(outcome, "jar")["blocks"] == 12


def test_nothing_leaves_where_nothing_is_open_so_that_intervals_become_narrower() -> None:
    outcome = run(box(), workloads={SIEVE: WORKLOADS[SIEVE]}, leave_width=0.15, maximum_blocks=12)
    assert not leavings(outcome)
    assert cell(outcome)["blocks"] == 12


def test_a_run_until_everything_is_decided_ends_with_its_last_open_cell() -> None:
    outcome = run(
        box(), workloads={SIEVE: WORKLOADS[SIEVE]},
        leave_width=0.15, maximum_blocks=40, until=Until.DECIDED,
    )  # fmt: skip
    assert outcome.summary["run"]["stopped"] == "decided"
    assert outcome.summary["run"]["blocks"] == 5


def test_progress_shows_how_many_cells_are_decided() -> None:
    observer = Observer()
    run(
        box(), box(JAR, scripts=OPEN), workloads={SIEVE: WORKLOADS[SIEVE]},
        leave_width=0.15, maximum_blocks=7, observer=observer,
    )  # fmt: skip
    assert any("1 of 2 cells decided" in what for what, _, _ in observer.steps)


def test_a_spent_budget_still_gives_the_fewest_blocks_for_an_interval() -> None:
    observer = Observer()
    outcome = run(box(), budget=1e-6, observer=observer)
    assert outcome.summary["run"]["stopped"] == "budget"
    assert outcome.summary["run"]["blocks"] == trying.FEWEST_BLOCKS
    assert cell(outcome)["ratio"] is not None
    assert any("--budget" in line for line in observer.said)


def test_a_folder_named_by_the_user_is_where_the_run_is_written(tmp_path: Path) -> None:
    outcome = run(box(), output=tmp_path / "mine")
    assert outcome.folder == tmp_path / "mine"
    with pytest.raises(UsageError, match="holds a run already"):
        run(box(), output=tmp_path / "mine")


def test_a_run_whose_budget_is_spent_is_as_far_as_its_fewest_blocks_are() -> None:
    observer = Observer()
    run(box(), budget=1e-9, observer=observer)
    first = [done for what, done, _ in observer.steps if what.startswith("block 1:")]
    assert first
    assert max(first) < 0.5


def test_steps_never_go_beyond_their_end() -> None:
    observer = Observer()
    run(box(), observer=observer)
    assert observer.steps
    assert all(0 <= done <= total for _, done, total in observer.steps)


def test_a_target_of_another_isa_gets_payloads_of_its_own() -> None:
    here = host_abi()
    other = Abi.ELF_RISCV64 if here is not Abi.ELF_RISCV64 else Abi.ELF_AARCH64
    outcome = run(box(abi=other))
    assert {p["abi"] for p in outcome.summary["run"]["payloads"]} == {here, other}
    (found,) = (t for t in outcome.summary["targets"] if t["name"] == "box")
    assert "programs" in [difference["label"] for difference in found["parity"]]


def test_an_old_run_is_answered_again_into_another_folder(tmp_path: Path) -> None:
    first = run(box())
    (tmp_path / "again").mkdir()
    again = as_read(write.answer(first.folder, tmp_path / "again"))
    assert again.summary == first.summary
    names = {path.name for path in (tmp_path / "again").iterdir()}
    assert names == {"summary.json", "summary.md", "report.html"}


# ---- going on


def go_on(
    folder: Path,
    *targets: FakeTarget,
    workloads: Mapping[WorkloadName, Workload] = WORKLOADS,
    **run_options: Any,
) -> write.Outcome:
    """Resume the run in a folder, with the same wish."""
    earlier, watcher = reader.load(folder), Observer()
    wanted = RunOptions(**({"maximum_blocks": 4, "precision": 1e-9, "seed": 5} | run_options))
    shelf = Shelf((native(), *targets))
    chosen = selection.choose(wanted, shelf, workloads, watcher)
    return as_read(Lifecycle(wanted, shelf, watcher).run(chosen, earlier))


@pytest.fixture
def interrupted() -> write.Outcome:
    """A run of four blocks that was interrupted when the third began."""
    return run(box(), observer=Observer(interrupt_at="block 3:"))


def test_a_resumed_run_is_the_same_run_made_complete(interrupted: write.Outcome) -> None:
    outcome = go_on(interrupted.folder, box())
    before, after = interrupted.summary["run"], outcome.summary["run"]
    assert outcome.folder == interrupted.folder
    assert [after[key] for key in ("id", "seed", "started")] == [
        before[key] for key in ("id", "seed", "started")
    ]
    assert (before["blocks"], after["blocks"]) == (2, 4)
    assert (before["complete"], after["complete"]) == (False, True)
    assert after["elapsed_seconds"] >= before["elapsed_seconds"]


def test_a_run_is_its_writers_alone_until_its_report_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answered = write.answer
    held: list[str] = []

    def answer(path: Path, *more: Any, **options: Any) -> write.Outcome:
        held.append(lock.writer_of(path))
        return answered(path, *more, **options)

    monkeypatch.setattr(write, "answer", answer)
    outcome = run(box(), maximum_blocks=2)
    assert held == [f"process {os.getpid()}"]
    assert lock.writer_of(outcome.folder) == ""


def test_what_was_written_until_the_lock_was_had_is_not_measured_again(
    interrupted: write.Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = reader.load(interrupted.folder)
    go_on(interrupted.folder, box(), maximum_blocks=3)
    monkeypatch.setattr(reader, "load", functools.partial(_first, [stale], reader.load))
    outcome = go_on(interrupted.folder, box(), maximum_blocks=4)
    monkeypatch.undo()
    assert outcome.summary["run"]["blocks"] == 4
    assert not reader.load(outcome.folder).samples.duplicated([*records.KEY]).any()


def _first(
    kept: list[reader.Run], load: Callable[..., reader.Run], path: Path, **options: Any
) -> reader.Run:
    """Return what is kept, once; then what is on disk."""
    return kept.pop() if kept else load(path, **options)


def test_a_resumed_run_keeps_its_plan_and_every_record_it_had(
    interrupted: write.Outcome,
) -> None:
    plan_before = (interrupted.folder / "plan.json").read_bytes()
    records_before = (interrupted.folder / "records.jsonl").read_bytes()
    outcome = go_on(interrupted.folder, box())
    assert (outcome.folder / "plan.json").read_bytes() == plan_before
    assert (outcome.folder / "records.jsonl").read_bytes().startswith(records_before)


@pytest.mark.parametrize("name", ["records.jsonl", "state/blocks.jsonl"])
def test_a_run_that_was_killed_in_the_middle_of_a_line_can_be_resumed(
    name: str, interrupted: write.Outcome
) -> None:
    path = interrupted.folder / name
    path.write_bytes(path.read_bytes()[:-9])
    assert go_on(interrupted.folder, box()).summary["run"]["blocks"] == 4


def test_a_resumed_run_knows_natives_answers_again(interrupted: write.Outcome) -> None:
    liar = box(scripts={SIEVE: (Script(check="beef"),)})
    outcome = go_on(interrupted.folder, liar)
    assert ("box", "cpu.sieve", "wrong-answer") in gaps(outcome)


def test_a_target_that_cannot_run_any_more_keeps_its_evidence_and_is_unavailable(
    interrupted: write.Outcome,
) -> None:
    path = interrupted.folder / "state" / "box-pre.json"
    before = path.read_bytes()
    assert json.loads(before)["facts"]
    outcome = go_on(interrupted.folder, box(availability=MISSING), box(name=TargetName("can")))
    assert path.read_bytes() == before
    assert {(g["cause"], g["hint"]) for g in outcome.summary["gaps"]} == {
        ("unavailable", "apt install jar")
    }
    # What was measured before still counts.
    assert outcome.summary["run"]["blocks"] == 4
    mine = [cell for cell in outcome.summary["cells"] if cell["target"] == "box"]
    assert {cell["blocks"] for cell in mine} == {2}


def test_the_evidence_of_a_target_that_has_left_stays_when_a_run_is_resumed() -> None:
    outcome = run(box())  # complete: nothing is opened again
    path = outcome.folder / "state" / "box-pre.json"
    before = path.read_bytes()
    go_on(outcome.folder, box())
    assert json.loads(before)["facts"]
    assert path.read_bytes() == before


def test_a_resumed_run_holds_what_payloads_see_against_what_they_saw_before() -> None:
    facts: dict[str, Fact] = {"io.filesystem": "0x01021994", "io.hidden": None}
    before = TargetState(name=TargetName("box"), workloads={"io.fsync": facts})
    (seen,) = seen_before({TargetName("box"): before, TargetName("x"): TargetState()}).items()
    assert seen[0] == ("box", "io.fsync")
    assert {key: fact.value for key, fact in seen[1].items()} == facts


def test_a_resumed_run_holds_expectations_against_native_again(
    interrupted: write.Outcome,
) -> None:
    outcome = go_on(interrupted.folder, box(inside=HOST))
    assert ("box", "cpu.sieve", "unproven") in gaps(outcome)


def test_a_run_says_what_starts_its_programs_and_why_that_is_not_its_spawner() -> None:
    watcher = Observer()
    outcome = run(box(), observer=watcher)
    about = json.loads((outcome.folder / "run.json").read_text())
    assert about["spawner"] == "subprocess"  # no payload is a real one here
    assert [line for line in watcher.said if "spawner does not work" in line]


@pytest.mark.parametrize("key", ["payloads", "machine", "spawner"])
def test_another_experiment_is_not_resumed_and_the_old_one_left_as_it_was(
    key: str, interrupted: write.Outcome
) -> None:
    path = interrupted.folder / "run.json"
    about = json.loads(path.read_text())
    path.write_text(json.dumps(about | {key: [] if key == "payloads" else "another"}))
    before = {p: p.read_bytes() for p in interrupted.folder.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match="cannot be resumed") as caught:
        go_on(interrupted.folder, box())
    assert "isobench run" in caught.value.hint
    assert {p: p.read_bytes() for p in interrupted.folder.rglob("*") if p.is_file()} == before


def test_a_complete_run_that_is_resumed_measures_nothing_more() -> None:
    outcome = run(box())
    other = box()
    assert go_on(outcome.folder, other).summary["run"]["blocks"] == 4
    assert other.runs(SIEVE) == 0


# ---- sessions that serve several blocks


class Slow(FakeTarget):
    """A fake whose openings take as many seconds as a list says in turn; the last one lasts."""

    delays: Sequence[float] = (2.0,)
    passed: list[float] = []  # noqa: RUF012 - shared with the clock on purpose

    def open(self, stage: Stage) -> Any:
        self.passed.append(self.delays[min(self.opened, len(self.delays) - 1)])
        return super().open(stage)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Slow]:
    """Return a function that makes a target that is slow by a clock that only it moves on."""
    passed: list[float] = []
    real = time.monotonic
    monkeypatch.setattr(time, "monotonic", lambda: real() + sum(passed))
    monkeypatch.setattr(Slow, "passed", passed)

    def make(*delays: float, **options: Any) -> Slow:
        monkeypatch.setattr(Slow, "delays", delays)
        scripts = {SIEVE: jittered(2e6, seed=2)}
        usual = {"name": BOX, "inside": INSIDE, "expectations": (EXPECTATION,), "scripts": scripts}
        return Slow(**(usual | options))

    return make


def planned(outcome: write.Outcome) -> Any:
    return json.loads((outcome.folder / "plan.json").read_text())


def sessions_of(outcome: write.Outcome, name: str = "box") -> dict[int, int]:
    """Return the session of each block in which a target was measured."""
    frame = reader.load(outcome.folder).samples
    mine = frame[(frame["workload"] == SIEVE) & (frame["block"] > 0) & (frame["target"] == name)]
    found = mine.groupby("block")["session"].unique()
    assert all(len(numbers) == 1 for numbers in found)
    return {int(block): int(numbers[0]) for block, numbers in found.items()}


def test_a_target_that_is_slow_to_open_is_expensive_and_its_sessions_serve_several_blocks(
    slow: Callable[..., Slow],
) -> None:
    expensive, other = slow(2.0), box(JAR)
    outcome = run(expensive, other, maximum_blocks=8, budget=1e6)
    made = planned(outcome)
    assert made["expensive"] == ["box"]
    assert made["blocks_per_session"] == {"box": 3}
    assert list(sessions_of(outcome).values()) == [1, 1, 1, 2, 2, 2, 3, 3]
    assert list(sessions_of(outcome, "jar").values()) == list(range(1, 9))
    assert expensive.opened == expensive.closed
    assert other.opened == other.closed


def test_a_first_opening_that_had_something_to_prepare_does_not_make_a_target_expensive(
    slow: Callable[..., Slow],
) -> None:
    made = planned(run(slow(30.0, 0.1), maximum_blocks=6, budget=1e6))
    assert made["expensive"] == []
    assert made["blocks_per_session"] == {}


def test_an_expensive_target_opens_again_in_every_block_where_that_is_requested(
    slow: Callable[..., Slow],
) -> None:
    outcome = run(slow(2.0), launch=Launch.FRESH, maximum_blocks=6, budget=1e6)
    assert planned(outcome)["expensive"] == ["box"]
    assert planned(outcome)["blocks_per_session"] == {}
    assert list(sessions_of(outcome).values()) == [1, 2, 3, 4, 5, 6]


def test_every_isolated_target_and_never_native_is_reused_where_that_is_requested() -> None:
    outcome = run(box(), box(JAR), launch=Launch.REUSE, maximum_blocks=6)
    assert planned(outcome)["blocks_per_session"] == {"box": 2, "jar": 2}
    assert list(sessions_of(outcome, "jar").values()) == [1, 1, 2, 2, 3, 3]
    assert list(sessions_of(outcome, "native").values()) == [1, 2, 3, 4, 5, 6]
    assert list(sessions_of(outcome, "native#2").values()) == [1, 2, 3, 4, 5, 6]


def test_an_expensive_target_that_was_merely_found_does_not_cost_the_others_their_verdicts(
    slow: Callable[..., Slow],
) -> None:
    outcome = run(slow(20.0), box(JAR), budget=120.0, maximum_blocks=12)
    cells = {(cell["target"], cell["workload"]) for cell in outcome.summary["cells"]}
    assert ("jar", "cpu.sieve") in cells
    assert not any(target == "box" for target, _ in cells)
    (left_out,) = [t for t in outcome.summary["targets"] if t["name"] == "box"]
    assert left_out["status"] == "unavailable"
    assert "10 blocks do not fit into 2 min" in left_out["reason"]
    gaps = [gap for gap in outcome.summary["gaps"] if gap["target"] == "box"]
    assert {gap["workload"] for gap in gaps} == {"cpu.sieve", "startup.cold", "startup.exec"}
    assert {(gap["cause"], gap["hint"], gap["times"]) for gap in gaps} == {
        ("unavailable", "isobench run --targets box", 1)
    }
    assert outcome.summary["run"]["complete"]


@pytest.mark.parametrize(
    "run_options", [{"targets": ("box", "jar")}, {"require": ("box",)}, {"budget": 1e6}]
)
def test_an_expensive_target_stays_where_it_was_requested_or_there_is_time(
    slow: Callable[..., Slow], run_options: dict[str, Any]
) -> None:
    options = {"budget": 120.0, "maximum_blocks": 3} | run_options
    outcome = run(slow(20.0), box(JAR), **options)
    assert any(cell["target"] == "box" for cell in outcome.summary["cells"])


def test_an_expensive_target_is_started_once_a_visit_and_a_cheap_one_more_often(
    slow: Callable[..., Slow],
) -> None:
    shipped = {COLD: replace(WORKLOADS[COLD], source=Path("workloads/_startup/payload.c"))}
    expensive, other = slow(2.0), box(JAR)
    outcome = run(expensive, other, workloads=shipped, maximum_blocks=4, budget=1e6)
    frame = reader.load(outcome.folder).samples
    mine = frame[(frame["metric"] == "time") & (frame["block"] > 0)]
    counts = mine.groupby(["block", "target"]).size().unstack()
    assert set(counts["box"]) == {1}
    assert counts["jar"].min() >= 3  # more, as its starts take no time
    # Two openings in the trial and one in each block, and a start in the trial and in each block.
    assert (expensive.runs("_startup"), expensive.opened) == (5, 2 + 1 + 4 + 4)
    assert cell(outcome, "box", COLD)["value"] > 0


def test_a_resumed_run_still_starts_an_expensive_target_once_a_visit(
    slow: Callable[..., Slow],
) -> None:
    shipped = {COLD: replace(WORKLOADS[COLD], source=Path("workloads/_startup/payload.c"))}
    first = run(
        slow(2.0),
        workloads=shipped,
        maximum_blocks=4,
        budget=1e6,
        observer=Observer(interrupt_at="block 3:"),
    )
    other = box()
    go_on(first.folder, other, workloads=shipped)
    assert other.runs("_startup") == 2


def test_a_dead_target_is_neither_expensive_nor_reused(slow: Callable[..., Slow]) -> None:
    made = planned(run(slow(2.0, inside=HOST), launch=Launch.REUSE, budget=1e6))
    assert made["expensive"] == []
    assert made["blocks_per_session"] == {}


def test_starts_are_instances_of_their_own_and_of_no_session() -> None:
    outcome = run(box(), launch=Launch.REUSE, maximum_blocks=6)
    frame = reader.load(outcome.folder).samples
    assert set(frame[frame["workload"] == COLD]["session"]) == {0}
    assert 0 not in set(frame[(frame["workload"] == EXEC) & (frame["block"] > 0)]["session"])


def test_an_interruption_closes_a_session_that_was_to_serve_more_blocks() -> None:
    other = box()
    outcome = run(
        other, launch=Launch.REUSE, maximum_blocks=12, observer=Observer(interrupt_at="block 2:")
    )
    assert outcome.interrupted
    assert other.opened == other.closed


def test_a_resumed_run_opens_again_and_goes_on_numbering() -> None:
    first = run(
        box(), launch=Launch.REUSE, maximum_blocks=8, observer=Observer(interrupt_at="block 5:")
    )
    assert list(sessions_of(first).values()) == [1, 1, 1, 2]
    other = box()
    resumed = go_on(first.folder, other, maximum_blocks=8)
    # The block that was interrupted had begun: its session, if any was used, has its number.
    numbers = sessions_of(resumed)
    assert [numbers[block] for block in sorted(numbers) if block > 4] == [3, 3, 3, 4]
    assert other.opened == other.closed


def test_openings_of_kept_sessions_leave_room_for_more_blocks() -> None:
    expensive = replace(PILOT, opening={NATIVE: 0.05, BOX: 10.0}, proving={BOX: 0.1})
    labels = [NATIVE, BOX, plan.second(NATIVE)]
    bench: Any = JustWorkloads(workloads={SIEVE: WORKLOADS[SIEVE]})
    few = trying.choose_size(
        expensive,
        RunOptions(launch=Launch.FRESH),
        bench.workloads,
        labels,
        native=NATIVE,
        seconds_left=100,
    )
    many = trying.choose_size(
        expensive,
        RunOptions(launch=Launch.AUTO),
        bench.workloads,
        labels,
        native=NATIVE,
        seconds_left=100,
    )
    assert few.blocks < 9 < many.blocks


# ---- how much work


def cost(
    length: float,
    pilot: Pilot,
    workloads: Mapping[WorkloadName, Workload],
    schedule: Schedule = Schedule.BLOCKS,
) -> float:
    run_options = RunOptions(iterations=5, rounds=10, starts=3, schedule=schedule)
    return pilot.cost(length, run_options, [NATIVE, BOX], workloads, NATIVE)


def test_a_block_costs_what_its_cells_cost() -> None:
    pilot = Pilot(
        unit={(NATIVE, SIEVE): 0.001, (BOX, SIEVE): 0.003},
        extra={(NATIVE, SIEVE): 0.5, (BOX, SIEVE): 0.25},
        opening={NATIVE: 1.5, BOX: 0.5},
    )
    expected = 2.0 + 0.5 + 6 * 0.1 + 0.25 + 6 * 0.3
    assert cost(0.1, pilot, {SIEVE: WORKLOADS[SIEVE]}) == pytest.approx(expected)


def test_a_block_of_rounds_costs_a_warm_up_and_turns_with_their_untimed_passes() -> None:
    pilot = Pilot(
        unit={(NATIVE, SIEVE): 0.0001, (BOX, SIEVE): 0.0003},
        extra={(NATIVE, SIEVE): 0.5, (BOX, SIEVE): 0.25},
        opening={NATIVE: 1.5, BOX: 0.5},
        interactive={NATIVE, BOX},
    )
    passes = 1 + 10 * 1.25
    expected = 2.0 + 0.5 + passes * 0.01 + 0.25 + passes * 0.03 + 20 * trying.TURN_OVERHEAD
    found = cost(0.01, pilot, {SIEVE: WORKLOADS[SIEVE]}, Schedule.ROUNDS)
    assert found == pytest.approx(expected)


def test_a_target_without_a_stream_pays_for_a_program_in_each_of_its_few_turns() -> None:
    pilot = Pilot(
        unit={(NATIVE, SIEVE): 0.0001, (BOX, SIEVE): 0.0001},
        extra={(NATIVE, SIEVE): 0.0, (BOX, SIEVE): 0.25},
        interactive={NATIVE},
    )
    native_part = (1 + 10 * 1.25) * 0.01 + 10 * trying.TURN_OVERHEAD
    found = cost(0.01, pilot, {SIEVE: WORKLOADS[SIEVE]}, Schedule.ROUNDS)
    assert found == pytest.approx(native_part + (1 + 5 * 1.25) * 0.01 + 5 * 0.25)


def test_starts_cost_what_they_took_in_the_trial_and_one_more() -> None:
    pilot = Pilot(extra={(NATIVE, COLD): 0.5, (BOX, COLD): 1.0, (BOX, EXEC): 0.1})
    workloads = {COLD: WORKLOADS[COLD], EXEC: WORKLOADS[EXEC]}
    assert cost(0.1, pilot, workloads) == pytest.approx(4 * 0.5 + 4 * 1.0 + 6 * 0.1)


def test_an_instance_of_an_expensive_target_is_started_once_and_costs_its_whole_visit() -> None:
    pilot = Pilot(
        extra={(NATIVE, COLD): 0.5, (BOX, COLD): 4.0, (BOX, EXEC): 0.1},
        opening={NATIVE: 0.0, BOX: 3.0},
    )
    workloads = {COLD: WORKLOADS[COLD], EXEC: WORKLOADS[EXEC]}
    expected = 3.0 + 4 * 0.5 + 4.0 + 6 * 0.1
    assert cost(0.1, pilot, workloads) == pytest.approx(expected)


def test_native_is_never_expensive_and_never_kept_however_slow_it_was() -> None:
    pilot = Pilot(opening={NATIVE: 5.0, BOX: 5.0, JAR: 0.1})
    assert pilot.expensive == (BOX,)
    assert pilot.kept(Launch.AUTO, NATIVE) == (BOX,)
    assert pilot.kept(Launch.REUSE, NATIVE) == (BOX, JAR)
    assert pilot.kept(Launch.FRESH, NATIVE) == ()


def test_what_is_left_out_or_dead_costs_nothing() -> None:
    pilot = Pilot(
        unit={(NATIVE, SIEVE): 0.001, (BOX, SIEVE): 0.003},
        extra={(NATIVE, SIEVE): 0.0, (BOX, SIEVE): 9.0, (BOX, COLD): 9.0},
        left_out={(BOX, COLD)},
    )
    workloads = {SIEVE: WORKLOADS[SIEVE], COLD: WORKLOADS[COLD]}
    pilot.dead.add(BOX)
    assert cost(0.1, pilot, workloads) == pytest.approx(6 * 0.1)


@pytest.mark.parametrize(
    ("unit", "length", "most", "loops"),
    [
        (0.001, 0.1, None, 100),
        (0.003, 0.1, None, 34),
        (1.0, 0.1, None, 1),
        (0.001, 0.1, 64, 64),
        (0.001, 0.01, 64, 10),
        (0.0, 0.004, 50, 50),
    ],
)
def test_loops_fill_the_length_of_an_iteration(
    unit: float, length: float, most: int | None, loops: int
) -> None:
    chosen = replace(WORKLOADS[SIEVE], most_loops=most)
    assert trying.loops_for(chosen, unit, length) == loops


@pytest.mark.parametrize(
    ("slower", "minimum", "loops"),
    [
        (1, None, 1000),  # as long as was wished for
        (50, None, 400),  # a fifth of 60 s, in six rounds
        (5000, None, 40),  # never less than can be timed natively
        (5000, 0.1, 1000),  # what was asked for is done
    ],
)
def test_a_far_slower_target_makes_iterations_shorter_for_all(
    slower: int, minimum: float | None, loops: int
) -> None:
    pilot = Pilot(unit={(NATIVE, SIEVE): 1e-4, (BOX, SIEVE): 1e-4 * slower})
    chosen = replace(WORKLOADS[SIEVE], timeout=seconds(60))
    run_options = RunOptions(iterations=5, minimum_time=minimum, schedule=Schedule.BLOCKS)
    assert pilot.loops(chosen, run_options, 0.1, NATIVE) == loops


@dataclass
class JustWorkloads:
    """All that choosing a length needs of a bench."""

    workloads: Mapping[WorkloadName, Workload]


def size(pilot: Pilot, budget: float, **run_options: Any) -> trying.Size:
    bench: Any = JustWorkloads(workloads={SIEVE: WORKLOADS[SIEVE]})
    return trying.choose_size(
        pilot,
        RunOptions(**run_options),
        bench.workloads,
        [NATIVE, plan.second(NATIVE)],
        native=NATIVE,
        seconds_left=budget,
    )


def length(pilot: Pilot, budget: float, **run_options: Any) -> tuple[float, int]:
    found = size(pilot, budget, schedule=Schedule.BLOCKS, **run_options)
    return found.length, found.blocks


@pytest.mark.parametrize(
    ("budget", "length", "rounds"), [(11, 0.008, 25), (6, 0.008, 15), (0.5, 0.004, 10)]
)
def test_a_small_budget_gives_fewer_and_shorter_turns(
    budget: float, length: float, rounds: int
) -> None:
    found = size(replace(PILOT, extra={(NATIVE, SIEVE): 0.0}, opening={}), budget)
    assert (found.length, found.rounds) == (length, rounds)
    assert (found.blocks >= trying.WANTED_BLOCKS) == (budget > 1)


@pytest.mark.parametrize(
    ("other", "length", "rounds"), [(0.05, 0.006, 12), (0.5, 0.008, 15), (1.0, 0.008, 25)]
)
def test_turns_are_many_where_something_else_takes_most_of_a_block(
    other: float, length: float, rounds: int
) -> None:
    found = size(replace(PILOT, extra={(NATIVE, SIEVE): other}), 0.5)
    assert (found.length, found.rounds) == (length, rounds)


def test_turns_have_a_length_that_was_requested() -> None:
    found = size(PILOT, 5, minimum_time=0.05)
    assert (found.length, found.rounds) == (0.05, 25)


PILOT = Pilot(
    unit={(NATIVE, SIEVE): 1e-4},
    extra={(NATIVE, SIEVE): 0.05},
    opening={NATIVE: 0.05},
    interactive={NATIVE},
)


def test_a_large_budget_gives_the_longest_iterations() -> None:
    chosen, fits = length(PILOT, 1000)
    assert chosen == trying.LONGEST
    assert fits > 15


def test_a_fair_budget_gives_shorter_iterations_and_many_blocks() -> None:
    chosen, fits = length(PILOT, 20)
    assert trying.ROUND < chosen < trying.LONGEST
    assert fits >= trying.MANY_BLOCKS


def test_for_many_blocks_no_visit_becomes_shorter_than_the_period_of_a_quota() -> None:
    chosen, fits = length(PILOT, 12)
    assert chosen == trying.ROUND
    assert trying.WANTED_BLOCKS <= fits < trying.MANY_BLOCKS


def test_a_small_budget_gives_short_iterations_and_enough_blocks() -> None:
    chosen, fits = length(PILOT, 4.5)
    assert trying.SHORTEST < chosen < trying.ROUND
    assert fits >= trying.WANTED_BLOCKS


def test_no_more_blocks_are_wanted_than_are_measured_at_most() -> None:
    assert length(PILOT, 20, maximum_blocks=12)[0] == trying.LONGEST


def test_a_quick_look_wants_few_blocks() -> None:
    assert length(PILOT, 10, quick=True)[0] == trying.LONGEST


def test_a_budget_that_is_too_small_gives_the_shortest_iterations() -> None:
    chosen, fits = length(PILOT, 0.5)
    assert chosen == trying.SHORTEST
    assert fits < trying.WANTED_BLOCKS


def test_a_spent_budget_fits_no_block() -> None:
    assert length(PILOT, -3)[1] <= 0


def test_a_length_that_was_requested_is_kept_whatever_fits() -> None:
    assert length(PILOT, 0.5, minimum_time=0.5)[0] == 0.5


# ---- sweeping


@dataclass(frozen=True, kw_only=True)
class Leftovers(FakeTarget):
    """A target with something to sweep."""

    swept: list[bool] = field(default_factory=list)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        self.swept.append(cached)
        return [Leftover(what="container left-by-the-dead")]


@pytest.mark.parametrize("everything", [False, True])
def test_a_sweep_asks_every_target_that_can_and_reports_each_leftover(
    everything: bool, tmp_path: Path
) -> None:
    (tmp_path / "cache" / "isobench").mkdir(parents=True)
    subject = Leftovers(name=BOX)
    found: list[Leftover] = []
    cleanup.sweep(Shelf([native(), subject]), everything=everything, observer=found.append)
    assert subject.swept == [everything]
    assert found[0] == Leftover(what="container left-by-the-dead")
    assert (tmp_path / "cache" / "isobench").exists() is not everything
    assert len(found) == 1 + everything


def test_what_several_targets_find_is_reported_once() -> None:
    shelf = Shelf([native(), *(Leftovers(name=TargetName(name)) for name in ("box", "jar"))])
    found: list[Leftover] = []
    cleanup.sweep(shelf, everything=False, observer=found.append)
    assert found == [Leftover(what="container left-by-the-dead")]


def test_an_interruption_sweeps_what_an_engine_may_have_left_of_this_very_run() -> None:
    subject = Leftovers(name=BOX, inside=INSIDE)
    run(subject, observer=Observer(interrupt_at="block 1:"))
    assert subject.swept
    assert not any(subject.swept)


@dataclass(frozen=True, kw_only=True)
class Stubborn(Leftovers):
    """A target whose engine does not let something be removed."""

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Any]:
        with super().open(stage) as session:
            yield session
        ownership.doubt()

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        if not alive(ownership.mine()):
            self.swept.append(cached)
        return [Leftover(what="container x", failure="it is in use")]


def test_a_run_looks_at_its_end_for_what_may_be_left_and_names_what_stays() -> None:
    observer = Observer()
    subject = Stubborn(name=BOX, inside=INSIDE)
    run(subject, observer=observer)
    assert subject.swept
    line = "container x is not removed: it is in use; isobench clean --stale removes what is left"
    assert observer.said.count(line) == 1
    assert not ownership.take_doubt()


@dataclass(frozen=True, kw_only=True)
class Unsweepable(FakeTarget):
    """A target whose sweep goes wrong in every way a plug-in's can."""

    fault: BaseException = field(default_factory=lambda: FileNotFoundError(2, "gone", "/a/b"))

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        raise self.fault


FAULTS = (FileNotFoundError(2, "gone", "/a/b"), ValueError("x"), SystemExit(3))


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_sweep_that_fails_is_reported_and_keeps_no_other_from_its_turn(
    fault: BaseException,
) -> None:
    subject = Leftovers(name=TargetName("jar"))
    found: list[Leftover] = []
    shelf = Shelf([native(), Unsweepable(name=BOX, fault=fault), subject])
    cleanup.sweep(shelf, everything=False, observer=found.append)
    assert subject.swept == [False]
    assert found[0].what == "what box may have left"
    assert found[0].failure.startswith("looking for it failed: ")
    assert type(fault).__name__ in found[0].failure
    assert found[1:] == [Leftover(what="container left-by-the-dead")]


@pytest.mark.parametrize(
    "fault", [*FAULTS, KeyboardInterrupt()], ids=lambda fault: type(fault).__name__
)
def test_clearing_up_that_fails_never_costs_the_report(fault: BaseException) -> None:
    observer = Observer(interrupt_at="block 1:")
    outcome = run(Unsweepable(name=BOX, inside=INSIDE, fault=fault), observer=observer)
    assert outcome.interrupted
    assert (outcome.folder / "report.html").is_file()
    assert any("isobench clean --stale" in line for line in observer.said)


def test_available_targets_say_which_version_they_are() -> None:
    outcome = run(box(availability=Available(version="box 7")))
    (found,) = (t for t in outcome.summary["targets"] if t["name"] == "box")
    assert found["version"] == "box 7"


def test_a_payload_whose_time_does_not_grow_with_its_work_is_a_gap_and_no_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trying, "GROWN", 0.25)
    summary = run(box(), workloads={SIEVE: WORKLOADS[SIEVE]}).summary
    assert summary["cells"] == []
    details = [gap["detail"] for gap in summary["gaps"] if gap["target"] == "native"]
    assert any("does not grow with the work" in detail for detail in details)


def test_a_payload_that_claims_no_operations_is_a_gap_of_its_cell_alone() -> None:
    outcome = run(box(scripts={SIEVE: (Script(operations=0),)}), box(JAR))
    found = [g for g in outcome.summary["gaps"] if (g["target"], g["workload"]) == ("box", SIEVE)]
    assert {gap["cause"] for gap in found} == {"failed"}
    assert "of its output is not a line of the protocol" in found[0]["detail"]
    assert '"ops":0' in found[0]["detail"]
    assert cell(outcome, "jar")["blocks"] == 4


@pytest.mark.parametrize("durations", [(0,), (0, 0, 0, 2_000_000), (2_000_000, 0)])
def test_a_clock_inside_that_does_not_see_the_work_gives_gaps_and_no_number(
    durations: tuple[int, ...],
) -> None:
    outcome = run(box(scripts={SIEVE: (Script(durations=durations),)}), box(JAR))
    measured = [(c["target"], c["workload"]) for c in outcome.summary["cells"]]
    assert ("box", SIEVE) not in measured
    assert ("jar", SIEVE) in measured
    found = [g for g in outcome.summary["gaps"] if (g["target"], g["workload"]) == ("box", SIEVE)]
    assert "iterations took 0 ns by the clock inside" in found[-1]["detail"]
    assert "--min-time" in found[-1]["hint"]


@dataclass
class Timed:
    """What `_grows` needs of a bench: visits that take scripted times, in seconds."""

    seconds: list[float]
    workloads: Mapping[WorkloadName, Workload]
    written: list[object] = field(default_factory=list)

    @property
    def sink(self) -> "Timed":
        return self

    def write(self, record: object) -> None:
        self.written.append(record)

    def visit(self, visit: Visit, work: Work, _session: object) -> list[Sample]:
        value = int(self.seconds.pop(0) * 1e9)
        return [
            Sample(
                block=0,
                target=visit.target,
                workload=visit.workload,
                metric="time",
                iteration=0,
                value=value,
                unit=Unit.NANOSECOND,
                operations=work.loops,
                clock=Clock.GUEST,
                at=0.0,
            )
        ]


@pytest.mark.parametrize(
    ("seconds", "grows"),
    [
        ([8.0], True),
        ([1.5, 0.2], True),  # the shorter one had been held up
        ([1.5, 1.0, 9.0], True),  # both had been held up; ever more work outlasts that
        ([1.5, 1.0, 1.5, 1.0, 1.5, 1.0], False),
    ],
)
def test_one_look_at_a_noisy_machine_does_not_tell_that_work_does_not_grow(
    seconds: list[float], grows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "GROWN", 0.25)
    bench: Any = Timed([*seconds, *([1.5] if len(seconds) == 2 else [])], WORKLOADS)
    visit = Visit(block=0, target=TargetName("native"), workload=SIEVE)
    assert trying._grows(bench, visit, None, 10, 0.1) is grows
    assert bool(bench.written) is not grows


def test_a_workload_of_a_plug_in_that_cannot_be_built_ends_nothing_but_its_own_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(program: str, *_: Any, **__: Any) -> Payload:
        raise PayloadError(f"{program} could not be built", hint="fix it")

    monkeypatch.setattr(build, "build", refuse)
    broken = replace(workload(WorkloadName("app.mine"), Scope.LOOP), plugin="its-maker 1.0")
    observer = Observer()
    outcome = run(box(), observer=observer, workloads={**WORKLOADS, broken.name: broken})
    assert ("native", "app.mine", "failed") in gaps(outcome)
    assert cell(outcome)["ratio"] is not None
    assert code_of(outcome, []) == 6
    assert "app.mine, of its-maker 1.0: app.mine could not be built" in observer.said
    (hint,) = {g["hint"] for g in outcome.summary["gaps"] if g["workload"] == "app.mine"}
    assert "in its-maker 1.0: report it to its author" in hint


def test_where_no_workload_can_run_on_one_cpu_nothing_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    needy = replace(WORKLOADS[SIEVE], needs=(Need.TWO_CPUS,))
    with pytest.raises(NothingToRunError, match="it needs two CPUs, and only CPU 1") as caught:
        chosen_of([native(), box()], workloads={SIEVE: needy}, affinity=frozenset({1}))
    assert "--affinity" in caught.value.hint
    both = chosen_of([native(), box()], workloads={SIEVE: needy, EXEC: WORKLOADS[EXEC]})
    assert set(both.workloads) == {SIEVE, EXEC}


def test_a_target_for_which_no_payload_can_be_built_is_unavailable_and_named() -> None:
    strange = box(abi=Abi("s390x-linux"))
    chosen = chosen_of([native(), strange, box(JAR)])
    assert list(chosen.able) == [NATIVE, JAR]
    answer = chosen.answers[BOX]
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PLUGIN
    assert answer.what == ("nothing says how payloads are built for s390x-linux, which box needs")
    assert "isobench.payload.build.add_toolchain" in answer.hint


# ---- runs that end at their beginning or end


def test_a_run_that_was_interrupted_before_its_plan_does_not_hide_the_run_before(
    tmp_path: Path,
) -> None:
    good = run(box(), maximum_blocks=2)
    cut = run(box(), observer=Observer(interrupt_at="trying box"))
    assert cut.interrupted
    assert (cut.folder / "report.html").is_file()
    assert (tmp_path / "results" / "latest").resolve() == good.folder


def test_an_interruption_before_a_run_begins_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lifecycle, "_describe", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(box())
    assert [*(tmp_path / "results").iterdir()] == []
    with pytest.raises(KeyboardInterrupt):
        run(box(), output=tmp_path / "mine")
    assert not (tmp_path / "mine").exists()


def test_an_interruption_as_soon_as_a_run_begins_has_a_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Lifecycle, "_measure", interrupted)
    outcome = run(box())
    assert outcome.interrupted
    assert (outcome.folder / "report.html").is_file()


def test_an_interruption_of_the_report_says_how_to_write_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    watcher = Observer()
    monkeypatch.setattr(write, "answer", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(box(), observer=watcher, maximum_blocks=2)
    assert watcher.said[-1].startswith("No report was written: isobench report ")


@pytest.fixture
def hears_ctrl_c() -> Iterator[None]:
    """A shell's background job ignores Ctrl-C, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("hears_ctrl_c")
def test_an_interruption_after_the_last_block_leaves_a_complete_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    describe, watcher, pressed = host.describe, Observer(), []

    def describe_and_press(*given: Any) -> Any:
        # The host is described before and after measuring.
        if any(what.startswith("block 2:") for what, _, _ in watcher.steps):
            pressed.append(True)
            press_ctrl_c()
        return describe(*given)

    monkeypatch.setattr(host, "describe", describe_and_press)
    outcome = run(box(), observer=watcher, maximum_blocks=2)
    assert pressed == [True]
    assert outcome.interrupted
    assert outcome.summary["run"]["complete"] is True
    assert (outcome.folder / "report.html").is_file()
    assert (outcome.folder / "state" / "host-post.json").is_file()
    about = json.loads((outcome.folder / "run.json").read_text())
    assert about["finished"]
    assert about["interrupted"] is False


def answering(monkeypatch: pytest.MonkeyPatch, *, interruptions: int) -> list[Path]:
    """Interrupt so many times while the report is written; return the folder of each writing."""
    answered, asked = write.answer, list[Path]()

    def answer(path: Path, *more: Any, **options: Any) -> write.Outcome:
        asked.append(path)
        for _ in range(interruptions):
            press_ctrl_c()
        return answered(path, *more, **options)

    monkeypatch.setattr(write, "answer", answer)
    return asked


@pytest.mark.usefixtures("hears_ctrl_c")
def test_an_interruption_does_not_break_off_the_writing_of_the_report(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # It may be in the middle of an import, and what was half imported cannot be imported again.
    watcher = Observer()
    asked = answering(monkeypatch, interruptions=1)
    outcome = run(box(), observer=watcher, maximum_blocks=2)
    assert asked == [outcome.folder]
    assert watcher.said[-1] == "Interrupted: writing the report …"
    assert outcome.interrupted
    assert outcome.summary["run"]["complete"] is True
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("hears_ctrl_c")
@pytest.mark.parametrize("at", ["", "block 2:"])
def test_a_second_interruption_ends_the_writing_of_the_report(
    at: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watcher = Observer(interrupt_at=at)
    asked = answering(monkeypatch, interruptions=1 if at else 2)
    with pytest.raises(KeyboardInterrupt):
        run(box(), observer=watcher, maximum_blocks=2, output=tmp_path / "mine")
    assert len(asked) == 1
    mine = tmp_path / "mine"
    assert f"No report was written: isobench report {mine} writes it" in watcher.said
    about = json.loads((mine / "run.json").read_text())
    assert about["finished"]
    assert about["interrupted"] is bool(at)
    monkeypatch.undo()
    assert write.answer(mine, mine).summary.run.complete is not bool(at)


def test_what_a_report_imports_is_there_before_anything_that_an_interruption_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # An interruption in the middle of it would leave a SciPy that cannot be imported any more.
    watcher, seen = Observer(), list[object]()

    def load() -> None:
        seen.append([what for what, _, _ in watcher.steps if what.startswith("block")])
        seen.append(signal.getsignal(signal.SIGTERM))

    before = signal.signal(signal.SIGTERM, lambda *_: None)
    monkeypatch.setattr(special, "load", load)
    try:
        run(box(), observer=watcher, maximum_blocks=2)
        ordinary = signal.getsignal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    blocks, handler = seen
    assert blocks == []
    assert handler is not ordinary


class _Partnerless(FakeTarget):
    """A native whose programs fail beside the box."""

    def answer(self, command: Command, timeout: Nanoseconds) -> Completed:
        if command.environment.get("ISOBENCH_TARGET") == "native#box":
            raise SessionError("no room beside it", hint="as its script says")
        return FakeTarget.answer(self, command, timeout)


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2, reason="a duet needs two CPUs that can be used"
)
def test_a_duet_whose_partner_fails_in_each_block_has_values_and_no_ratio() -> None:
    partnerless = _Partnerless(
        name=NATIVE,
        technology=Technology.NATIVE,
        inside=HOST,
        scripts={SIEVE: jittered(1e6)},
    )
    outcome = run(partnerless, box(), workloads={SIEVE: WORKLOADS[SIEVE]}, schedule=Schedule.DUET)
    found = cell(outcome)
    assert found["value"] > 0
    assert (found["reference"], found["ratio"]) == (None, None)
    assert "no-estimate" in found["doubt_codes"]
    assert ("native#box", "cpu.sieve", "failed") in gaps(outcome)
    assert not re.search(r"\bnan\b", headline_of(outcome))
