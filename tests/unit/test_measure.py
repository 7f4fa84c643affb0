"""The runner against targets that answer to a script: whatever goes wrong becomes a gap."""

import contextlib
import gc
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import host
from isobench.model import (
    SESSION,
    TIME,
    Abi,
    Answer,
    Block,
    BlockHealth,
    Cause,
    Clock,
    Command,
    Evidence,
    Expectation,
    Fact,
    Gap,
    Leaving,
    Metric,
    Need,
    Payload,
    Plan,
    Record,
    Relation,
    Sample,
    Scope,
    Stage,
    Start,
    Visit,
    Work,
    Workload,
    plan,
)
from isobench.model.errors import NotApplicableError, PayloadError, SessionError
from isobench.model.units import Nanoseconds, Sha256, TargetName, Unit, WorkloadName, seconds
from isobench.payload import stage, wire
from isobench.plugins import testing
from isobench.plugins.api import Completed, Session, Target
from isobench.plugins.testing import FakeEngine, FakeTarget, Fault, Script, correct_check
from isobench.run import context, measure, sessions

NATIVE, BOX = TargetName("native"), TargetName("box")
LOOP, OTHER = WorkloadName("cpu.sieve"), WorkloadName("io.fsync")
COLD, WARM, EXEC = (WorkloadName(f"startup.{kind}") for kind in ("cold", "warm", "exec"))
LOOPS = 50
EXPECTATION = Expectation(key="ns.pid", relation=Relation.UNLIKE_HOST)
INSIDE = {"kernel.boot_id": "b", "ns.pid": "pid:[2]"}


@dataclass
class Sink:
    """Keeps what the runner writes."""

    records: list[Record] = field(default_factory=list)
    synced: list[int] = field(default_factory=list)
    logs: dict[str, bytes] = field(default_factory=dict)
    healths: list[tuple[int, bool]] = field(default_factory=list)

    def write(self, record: Record) -> None:
        self.records.append(record)

    def sync(self) -> None:
        self.synced.append(len(self.records))

    def log(self, name: str, text: bytes) -> None:
        self.logs[name] = self.logs.get(name, b"") + text

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        self.healths.append((health.block, valid))


def workload(name: WorkloadName, scope: Scope, start: Start | None = None) -> Workload:
    return Workload(
        name=name,
        summary="",
        scope=scope,
        operation="one",
        source=Path("workloads/x/payload.c"),
        timeout=seconds(60),
        metrics={"time": TIME},
        answer=Answer(loops=7, check="00" * 8) if scope is Scope.LOOP else None,
        start=start,
    )


WORKLOADS = {
    each.name: each
    for each in (
        workload(LOOP, Scope.LOOP),
        workload(OTHER, Scope.LOOP),
        workload(COLD, Scope.SESSION, Start.COLD),
        workload(WARM, Scope.SESSION, Start.WARM),
        workload(EXEC, Scope.EXEC),
    )
}
WORK = {
    name: Work(workload=name, loops=LOOPS if each.scope is Scope.LOOP else 1, iterations=3)
    for name, each in WORKLOADS.items()
}


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[stage.Workshop]:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(gc, "collect", lambda: 0)  # slow in a process that holds a test suite
    program = tmp_path / "program"
    program.write_bytes(b"")
    payload = Payload(
        program=LOOP,
        abi=Abi.ELF_X86_64,
        path=program,
        sha256=Sha256(hashlib.sha256(b"").hexdigest()),
        compiler="",
        flags=(),
    )
    with stage.workshop([payload]) as shop:
        yield shop


@pytest.fixture
def runner(workshop: stage.Workshop) -> Callable[..., measure.Runner]:
    """Return a function that makes a bench for some targets, native first."""

    def make(*targets: Target) -> measure.Runner:
        native = FakeTarget(name=NATIVE, inside={"kernel.boot_id": "b", "ns.pid": "pid:[1]"})
        return measure.Runner(
            targets={NATIVE: native} | {target.name: target for target in targets},
            workloads=WORKLOADS,
            workshop=workshop,
            host_abi=Abi.ELF_X86_64,
            sink=Sink(),
            run_id="unit",
        )

    return make


def fake(**options: Any) -> FakeTarget:
    return FakeTarget(**({"name": BOX, "inside": INSIDE} | options))


def said(program: str, *scripts: Script) -> Mapping[str, tuple[Script, ...]]:
    return {program: scripts}


def visit(
    runner: measure.Runner, name: WorkloadName, target: TargetName = BOX, *, warmups: int = 1
) -> list[Record]:
    """Return what one visit of a target in a session of its own records."""
    one = Visit(block=4, target=target, workload=name)
    work = replace(WORK[name], warmups=warmups)
    subject = runner.targets[plan.actual(target)]
    with subject.open(runner.stage(subject)) as session:
        return list(runner.visit(one, work, session))


def gap(records: Sequence[Record]) -> Gap:
    """Return the one record, which is a gap."""
    (record,) = records
    assert isinstance(record, Gap)
    return record


def values(records: Sequence[Record], metric: str) -> list[int]:
    assert all(isinstance(record, Sample) for record in records), records
    return [r.value for r in records if isinstance(r, Sample) and r.metric == metric]


Make = Callable[..., measure.Runner]

# ---- the timer


def test_the_timer_waits_for_the_nonce_and_for_nothing_else() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    timer.on_output(b"some banner\n")
    timer.on_output(b'{"isobench":1,"nonce":"dead"')
    assert timer.arrived_at is None
    timer.on_output(b'\n{"isobench":1,"nonce":"feed","clock_ns":1}\n')
    assert timer.arrived_at is not None
    assert timer.arrived_at >= timer.begun_at


def test_the_ear_puts_a_first_line_together_from_single_bytes() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    line = b'{"isobench":1,"nonce":"feed"'
    for byte in line[:-1]:
        timer.on_output(bytes([byte]))
    assert timer.arrived_at is None
    timer.on_output(line[-1:])
    assert timer.arrived_at == timer.last_output_at


def test_what_comes_later_does_not_move_the_arrival() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    timer.on_output(b'{"isobench":1,"nonce":"feed"')
    first = timer.arrived_at
    timer.on_output(b'{"isobench":1,"nonce":"feed"')
    assert timer.arrived_at == first
    assert timer.last_output_at >= (first or 0)


def test_a_stamp_that_comes_with_the_output_is_when_it_came() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    stamp = timer.begun_at + 1000
    timer.on_output(wire.hello("feed"), at=stamp)
    timer.on_output(b"more", at=stamp + 500)
    assert (timer.arrived_at, timer.last_output_at) == (stamp, stamp + 500)


def test_what_asking_the_spawner_takes_is_no_part_of_a_start() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    began = timer.begun_at
    timer.exclude(700)
    timer.on_output(wire.hello("feed"), at=began + 1000)
    assert timer.arrived_at == began + 1000
    assert timer.arrived_at - timer.begun_at == 300
    timer.exclude(700)  # of something that is started later
    assert timer.arrived_at - timer.begun_at == 300


def test_asking_again_forgets_what_was_received() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    timer.on_phase("created")
    timer.on_output(b'{"isobench":1,"nonce":"feed"')
    timer.expect_hello("beef")
    assert timer.arrived_at is None
    assert timer.phases == {}


def test_a_phase_counts_from_asking_and_only_once() -> None:
    timer = context.StartTimer()
    timer.expect_hello("feed")
    timer.on_phase("created")
    first = timer.phases["created"]
    time.sleep(0.001)
    timer.on_phase("created")
    assert timer.phases == {"created": first}
    assert first >= 0


# ---- visits of loops


def test_a_good_visit_gives_every_iteration_with_its_operations_and_clock(runner: Make) -> None:
    records = visit(
        runner(fake(scripts=said(LOOP, Script(durations=(11, 12, 13), warmup=99)))), LOOP
    )
    times = [r for r in records if isinstance(r, Sample) and r.metric == "time"]
    assert [(r.iteration, r.value, r.operations) for r in times] == [
        (0, 11, LOOPS),
        (1, 12, LOOPS),
        (2, 13, LOOPS),
    ]
    assert {(r.block, r.target, r.workload, r.unit, r.clock) for r in times} == {
        (4, BOX, LOOP, Unit.NANOSECOND, Clock.GUEST)
    }
    assert values(records, "warmup") == [99]


def test_passes_requested_besides_are_warm_up_and_no_times(runner: Make) -> None:
    made = runner(fake(scripts=said(LOOP, Script(durations=(50, 20, 11, 12, 13), warmup=99))))
    records = visit(made, LOOP, warmups=3)
    assert values(records, "warmup") == [99, 50, 20]
    assert values(records, "time") == [11, 12, 13]
    orders = [r.iteration for r in records if isinstance(r, Sample) and r.metric == "warmup"]
    assert orders == [0, 1, 2]
    assert values(records, "span.guest") == [99 + 50 + 20 + 11 + 12 + 13]


def test_the_same_span_is_stored_by_both_clocks_and_never_subtracted(runner: Make) -> None:
    records = visit(runner(fake(scripts=said(LOOP, Script(durations=(11,), warmup=99)))), LOOP)
    clocks = {r.metric: r.clock for r in records if isinstance(r, Sample)}
    assert clocks["span.guest"] is Clock.GUEST
    assert clocks["span.host"] is clocks["dispatch"] is Clock.HOST
    assert values(records, "span.guest") == [99 + 3 * 11]


def test_a_number_that_a_metric_is_made_of_has_its_unit_and_others_are_counts(
    runner: Make,
) -> None:
    peak = Metric(name="peak", unit=Unit.BYTE, fact="memory.peak")
    script = Script(facts={"memory.peak": 4096, "cpu.threads": 2})
    made = runner(fake(scripts=said(LOOP, script)))
    made.workloads = {LOOP: replace(WORKLOADS[LOOP], metrics={"time": TIME, "peak": peak})}
    found = {r.metric: (r.value, r.unit) for r in visit(made, LOOP) if isinstance(r, Sample)}
    assert found["fact.memory.peak"] == (4096, Unit.BYTE)
    assert found["fact.cpu.threads"] == (2, Unit.COUNT)
    assert found["time"][1] is Unit.NANOSECOND


def test_a_number_whose_key_is_no_name_is_not_recorded(runner: Make) -> None:
    script = Script(facts={"a\n::error::x": 1, "a b": 1, "x" * 300: 1, "cpu.threads": 2})
    records = visit(runner(fake(scripts=said(LOOP, script))), LOOP)
    found = [r.metric for r in records if isinstance(r, Sample) and r.metric.startswith("fact.")]
    assert found == ["fact.cpu.threads"]


def test_a_phase_of_any_text_is_recorded_under_a_name(runner: Make) -> None:
    class Chatty(FakeEngine):
        def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
            command.on_phase("a\n::error::x" + "y" * 300)
            return super().launch(stage, command, timeout=timeout)

    made = runner(Chatty(name=BOX, inside=INSIDE))
    records = list(made.visit(Visit(block=1, target=BOX, workload=COLD), WORK[COLD], None))
    found = {r.metric for r in records if isinstance(r, Sample) and r.metric.startswith("phase.a")}
    assert found == {"phase.a---error--x" + "y" * (194 - 12)}


def test_true_and_false_are_no_numbers(runner: Make) -> None:
    records = visit(runner(fake(scripts=said(LOOP, Script(facts={"cpu.smt": True})))), LOOP)
    assert not [r for r in records if isinstance(r, Sample) and r.metric == "fact.cpu.smt"]


def test_numbers_that_a_payload_saw_are_samples_and_texts_are_kept_beside(runner: Make) -> None:
    facts: dict[str, Fact] = {
        "io.cached_percent": 3,
        "io.filesystem": "0x0000ef53",
        "io.hidden": None,
    }
    made = runner(fake(scripts=said(LOOP, Script(facts=facts))))
    records = visit(made, LOOP)
    assert values(records, "fact.io.cached_percent") == [3]
    assert {r.metric for r in records if isinstance(r, Sample) and "fact" in r.metric} == {
        "fact.io.cached_percent"
    }
    assert made.seen[(BOX, LOOP)]["io.filesystem"].value == "0x0000ef53"


@pytest.mark.parametrize(
    ("key", "first", "then"),
    [
        ("io.filesystem", "0x01021994", "0x0000ef53"),
        ("io.filesystem", "0x0000ef53", None),
        ("syscall.call", "getppid", "getpid"),
        ("cpu.threads", 1, 2),
    ],
)
def test_a_visit_is_not_believed_if_a_fact_on_which_doubts_rest_has_changed(
    key: str, first: Fact, then: Fact, runner: Make
) -> None:
    scripts = [Script(facts={key: first, "own": 1}), Script(facts={key: then, "own": 2})]
    made = runner(fake(scripts=said(LOOP, *scripts)))
    assert not [r for r in visit(made, LOOP) if isinstance(r, Gap)]
    found = gap(visit(made, LOOP))
    assert found.cause is Cause.UNPROVEN
    assert f"{key} was {first!r} and is now {then!r}" in found.detail
    assert made.seen[(BOX, LOOP)][key].value == first


def test_what_was_not_visible_in_one_visit_is_not_known_of_the_cell(runner: Make) -> None:
    facts: list[Fact] = [3, None, 3]
    scripts = [Script(facts={"io.cached_percent": fact}) for fact in facts]
    made = runner(fake(scripts=said(LOOP, *scripts)))
    for _ in facts:
        visit(made, LOOP)
    assert made.seen[(BOX, LOOP)]["io.cached_percent"].value is None


@pytest.mark.parametrize(
    ("script", "cause", "detail"),
    [
        (Script(fault=Fault.SILENT), Cause.FAILED, "did not print its first line; exit code 0"),
        (Script(fault=Fault.SILENT, stderr=b"oom\n"), Cause.FAILED, "exit code 0; oom"),
        (Script(fault=Fault.CUT_SHORT, exit_code=-9), Cause.FAILED, "last line; exit code -9"),
        (
            Script(fault=Fault.ERROR_LINE),
            Cause.FAILED,
            "output error (errno 5); exit code 70",
        ),
        (Script(fault=Fault.BACKWARDS), Cause.FAILED, "the clock inside ran backwards"),
        (Script(exit_code=3), Cause.FAILED, "exit code 3"),
        (Script(fault=Fault.TIME_OUT), Cause.TIMED_OUT, "not done after 60 s"),
        (Script(fault=Fault.GONE), Cause.FAILED, "the fake session broke"),
        (Script(fault=Fault.WRONG_NONCE), Cause.WRONG_ANSWER, "nonce"),
        (Script(fault=Fault.ONE_TOO_FEW), Cause.WRONG_ANSWER, "returned 2 iterations"),
        (Script(steady=False), Cause.WRONG_ANSWER, "have different checksums"),
    ],
)
def test_whatever_goes_wrong_in_a_visit_is_one_gap_with_its_cause(
    script: Script, cause: Cause, detail: str, runner: Make
) -> None:
    found = gap(visit(runner(fake(scripts=said(LOOP, script))), LOOP))
    assert (found.block, found.target, found.workload) == (4, BOX, LOOP)
    assert found.cause is cause
    assert detail in found.detail


def test_the_hint_of_a_session_that_broke_reaches_the_gap(runner: Make) -> None:
    found = gap(visit(runner(fake(scripts=said(LOOP, Script(fault=Fault.GONE)))), LOOP))
    assert found.hint == "as its script says"


def test_a_known_answer_is_compared_with_a_checksum(runner: Make) -> None:
    made = runner(fake())
    session_work = Work(workload=LOOP, loops=7, iterations=1)
    with made.targets[BOX].open(made.stage(made.targets[BOX])) as session:
        one = Visit(block=1, target=BOX, workload=LOOP)
        found = gap(made.visit(one, session_work, session))
    assert found.cause is Cause.WRONG_ANSWER
    assert "instead of 0000000000000000" in found.detail


def test_natives_checksum_is_compared_with_every_other_targets(runner: Make) -> None:
    made = runner(fake(scripts=said(LOOP, Script(check="beef"), Script())))
    assert values(visit(made, LOOP, NATIVE), "time")
    found = gap(visit(made, LOOP))
    assert found.cause is Cause.WRONG_ANSWER
    assert f"the checksum is beef instead of native's {correct_check(LOOP, LOOPS)}" in found.detail
    assert values(visit(made, LOOP), "time")


def test_what_a_payload_says_on_standard_error_is_kept_by_target(runner: Make) -> None:
    made = runner(fake(scripts=said(LOOP, Script(stderr=b"careful\n"))))
    visit(made, LOOP)
    sink: Any = made.sink
    assert sink.logs["box"] == b"careful\n"


def test_a_broken_expectation_is_answered_with_what_it_says_to_change(runner: Make) -> None:
    hinted = replace(EXPECTATION, hint="correct preset")
    _, bad = opened(runner(fake(inside={"ns.pid": "pid:[1]"}, expectations=(hinted,))), labels(BOX))
    assert bad[BOX].cause is Cause.UNPROVEN
    assert bad[BOX].hint == "correct preset"


class Talkative(FakeTarget):
    """A target whose instances do not start, and say much about it."""

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Any]:
        raise SessionError("it did not start", log="Linux version 6\nout of everything\n")
        yield


def test_what_an_instance_that_failed_has_printed_is_kept_whole_by_target(runner: Make) -> None:
    made = runner(Talkative(name=BOX))
    sink: Any = made.sink
    opened(made, labels(BOX))
    assert sink.logs["box"] == b"Linux version 6\nout of everything\n"
    sink.logs.clear()
    made.visit(Visit(block=4, target=BOX, workload=COLD), WORK[COLD], None)
    assert sink.logs["box"] == b"Linux version 6\nout of everything\n"


def test_a_payload_is_called_with_nonce_iterations_and_loops(runner: Make) -> None:
    box = fake()
    visit(runner(box), LOOP)
    visit(runner(box), LOOP)
    first, second = (each for each in box.received if each.argv[0] == LOOP)
    assert first.argv[2:] == ("3", str(LOOPS))
    assert first.argv[1] != second.argv[1]
    assert first.timeout == seconds(60)


@pytest.mark.parametrize(
    ("spelt", "other"),
    [(b'{"isobench"', b'{ "isobench"'), (b'{"isobench"', b"\n" * (1 << 16) + b'{"isobench"')],
    ids=["another spelling", "after many empty lines"],
)
def test_a_payload_whose_first_line_the_host_does_not_see_is_a_gap(
    spelt: bytes, other: bytes, runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing would hold its times against the host's clock."""
    real = testing._text
    monkeypatch.setattr(testing, "_text", lambda lines: real(lines).replace(spelt, other))
    (gap,) = visit(runner(fake()), LOOP)
    assert isinstance(gap, Gap)
    assert gap.cause is Cause.FAILED
    assert "did not see the first line" in gap.detail
    assert "on_output" in gap.hint


def test_a_payload_sees_known_variables_and_none_of_the_hosts(runner: Make) -> None:
    box = fake()
    visit(runner(box), LOOP)
    environment = dict(box.received[0].environment)
    assert len(environment.pop("ISOBENCH_PADDING")) < context.MOST_PADDING
    assert environment == {
        "ISOBENCH": "1",
        "ISOBENCH_RUN_ID": "unit",
        "ISOBENCH_TARGET": "box",
        "ISOBENCH_WORKLOAD": LOOP,
        "ISOBENCH_BLOCK": "4",
        "ISOBENCH_SCRATCH": "/scratch",
    }


def test_the_size_of_the_environment_changes_from_visit_to_visit(runner: Make) -> None:
    box = fake()
    made = runner(box)
    for _ in range(12):
        visit(made, LOOP)
    assert len({len(each.environment["ISOBENCH_PADDING"]) for each in box.received}) > 3


@pytest.mark.parametrize("name", [LOOP, EXEC])
def test_a_visit_without_a_session_is_a_gap(name: WorkloadName, runner: Make) -> None:
    one = Visit(block=1, target=BOX, workload=name)
    assert gap(runner(fake()).visit(one, WORK[name], None)).cause is Cause.FAILED


# ---- visits of starts


def test_processes_in_an_open_session_are_timed_by_the_host(runner: Make) -> None:
    box = fake()
    records = visit(runner(box), EXEC)
    assert len(values(records, "time")) == len(values(records, "gone")) == 3
    assert {r.clock for r in records if isinstance(r, Sample)} == {Clock.HOST}
    assert [r.iteration for r in records if isinstance(r, Sample) and r.metric == "time"] == [
        0,
        1,
        2,
    ]
    assert box.runs(EXEC) == 3
    assert box.opened == 1


@pytest.mark.parametrize(
    ("script", "cause", "detail"),
    [
        (Script(exit_code=1, stderr=b"no such file"), Cause.FAILED, "exit code 1; no such file"),
        (Script(fault=Fault.SILENT), Cause.FAILED, "no nonce came back"),
        (Script(fault=Fault.WRONG_NONCE), Cause.FAILED, "no nonce came back"),
        (Script(fault=Fault.TIME_OUT), Cause.TIMED_OUT, "60 s"),
        (Script(fault=Fault.GONE), Cause.FAILED, "broke"),
    ],
)
@pytest.mark.parametrize("name", [EXEC, COLD, WARM])
def test_a_start_that_goes_wrong_leaves_one_gap_and_no_time(
    name: WorkloadName, script: Script, cause: Cause, detail: str, runner: Make
) -> None:
    made = runner(fake(scripts=said(name, Script(), script)))
    visit(made, name, NATIVE)
    found = gap(visit(made, name))
    assert found.cause is cause
    assert detail in found.detail


def test_a_start_that_took_no_time_at_all_is_a_gap(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure.time, "monotonic_ns", lambda: 7)
    found = gap(visit(runner(fake()), EXEC))
    assert (found.cause, found.detail) == (Cause.FAILED, "the start took 0 ns by its own phases")


def test_a_cold_start_without_a_launcher_is_a_session_of_its_own(runner: Make) -> None:
    box = fake()
    made = runner(box)
    visit(made, LOOP, NATIVE)
    records = list(made.visit(Visit(block=1, target=BOX, workload=COLD), WORK[COLD], None))
    assert len(values(records, "time")) == 3
    one_start = ["open box", f"run {COLD}", "close box"]
    assert box.history == ["open box", "run _evidence", "close box", *one_start * 3]


def test_cold_starts_are_numbered_and_each_has_a_root_never_used_before(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    roots: list[Path] = []

    class Noting(FakeTarget):
        def open(self, stage: Stage) -> contextlib.AbstractContextManager[Any]:
            roots.append(stage.root)
            return super().open(stage)

    made = runner(Noting(name=BOX, inside=INSIDE))
    records = list(made.visit(Visit(block=1, target=BOX, workload=COLD), WORK[COLD], None))
    times = [r for r in records if isinstance(r, Sample) and r.metric == "time"]
    assert [r.iteration for r in times] == [0, 1, 2]
    assert len(set(roots)) == 4
    assert not any(root.exists() for root in roots[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Spawning(FakeTarget):
    """A fake that also starts the smallest program."""

    exit_code: int = 0
    roots: list[Path] = field(default_factory=list)

    def null(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        self.roots.append(stage.root)
        command.on_output(b"any", at=time.monotonic_ns())
        return Completed(exit_code=self.exit_code, stdout=b"any", stderr=b"")


@pytest.mark.parametrize("name", [COLD, WARM])
def test_each_visit_of_native_that_times_starts_has_null_spawns(
    runner: Make, name: WorkloadName
) -> None:
    made = runner(Spawning(name=BOX, inside=INSIDE))
    one = Visit(block=3, target=BOX, workload=name)
    records = list(made.visit(one, WORK[name], None))
    spawns = [r for r in records if isinstance(r, Sample) and r.metric == "spawn"]
    assert [spawn.iteration for spawn in spawns] == [0, 1, 2]
    assert {(s.block, s.target, s.workload, s.clock, s.operations) for s in spawns} == {
        (3, BOX, name, Clock.HOST, 1)
    }
    assert all(spawn.value >= 0 for spawn in spawns)
    assert len(values(records, "time")) == 3
    # A cold start is one from a root that nothing else has used; so is its null spawn.
    roots = made.targets[BOX].roots  # type: ignore[attr-defined]
    assert len(set(roots)) == (3 if name == COLD else 1)


def test_the_control_has_none_and_a_null_spawn_that_fails_is_a_gap(runner: Make) -> None:
    made = runner(Spawning(name=BOX, inside=INSIDE))
    control = Visit(block=3, target=TargetName("box#2"), workload=WARM)
    assert values(list(made.visit(control, WORK[WARM], None)), "spawn") == []
    made = runner(Spawning(name=BOX, inside=INSIDE, exit_code=1))
    found = gap(made.visit(Visit(block=3, target=BOX, workload=WARM), WORK[WARM], None))
    assert (found.cause, found.detail) == (
        Cause.FAILED, "the smallest program printed nothing: exit code 1",
    )  # fmt: skip


def test_a_launcher_starts_without_a_session_and_its_phases_are_stored(runner: Make) -> None:
    engine = FakeEngine(name=BOX, inside=INSIDE)
    records = list(
        runner(engine).visit(Visit(block=1, target=BOX, workload=COLD), WORK[COLD], None)
    )
    assert len(values(records, "time")) == len(values(records, "phase.engine.created")) == 3
    assert engine.opened == 0
    assert engine.history.count("launch box") == 4


def test_a_warm_start_begins_after_a_first_start_that_is_not_timed(runner: Make) -> None:
    engine = FakeEngine(name=BOX, inside=INSIDE)
    records = list(
        runner(engine).visit(Visit(block=1, target=BOX, workload=WARM), WORK[WARM], None)
    )
    assert len(values(records, "time")) == 3
    assert engine.history.count("start box") == 5  # evidence, one untimed, three timed
    assert (engine.history[0], engine.history[-1]) == ("stop box", "remove box")


def test_a_stopped_instance_is_removed_even_when_a_start_fails(runner: Make) -> None:
    engine = FakeEngine(name=BOX, inside=INSIDE, scripts=said(WARM, Script(fault=Fault.GONE)))
    found = gap(runner(engine).visit(Visit(block=1, target=BOX, workload=WARM), WORK[WARM], None))
    assert found.cause is Cause.FAILED
    assert engine.history[-1] == "remove box"


def prove_native(made: measure.Runner) -> None:
    native: Any = made.targets[NATIVE]
    visit = Visit(block=1, target=NATIVE, workload=COLD)
    made.prover.prove(made.context(visit), lambda command: native.answer(command, seconds(1)))


@pytest.mark.parametrize("kind", [FakeTarget, FakeEngine])
def test_a_start_that_meets_no_expectation_gives_no_time(
    kind: type[FakeTarget], runner: Make
) -> None:
    box = kind(name=BOX, inside={"ns.pid": "pid:[1]"}, expectations=(EXPECTATION,))
    made = runner(box)
    prove_native(made)
    found = gap(made.visit(Visit(block=1, target=BOX, workload=COLD), WORK[COLD], None))
    assert found.cause is Cause.UNPROVEN
    assert "ns.pid should be unlike the host's" in found.detail
    assert box.runs(COLD) == 0


# ---- a start that proves itself


STARTS = {
    name: replace(WORKLOADS[name], source=Path("workloads/_startup/payload.c"))
    for name in (COLD, WARM)
}


def expensive(made: measure.Runner) -> measure.Runner:
    """Let the box be dear to start, and its start-up workloads be the shipped ones."""
    made.workloads = {**WORKLOADS, **STARTS}
    made.expensive.add(BOX)
    return made


def start(made: measure.Runner, name: WorkloadName) -> list[Record]:
    prove_native(made)
    return list(made.visit(Visit(block=1, target=BOX, workload=name), WORK[name], None))


@pytest.mark.parametrize("name", [COLD, WARM])
def test_a_slow_start_is_one_instance_that_also_proves_itself(
    name: WorkloadName, runner: Make
) -> None:
    box = fake(expectations=(EXPECTATION,))
    records = start(expensive(runner(box)), name)
    assert [r.metric for r in records if isinstance(r, Sample)] == ["time"]
    assert box.history == ["open box", "run _startup", "run _evidence", "close box"]
    program, first, evidence, second, canary = box.received[0].argv
    assert (program, evidence) == ("_startup", "_evidence")
    assert first != second
    assert canary.endswith("canary")
    assert box.received[0].timeout == seconds(60)


def test_a_slow_cold_start_has_a_root_never_used_before(runner: Make) -> None:
    roots: list[Path] = []

    class Noting(FakeTarget):
        def open(self, stage: Stage) -> contextlib.AbstractContextManager[Any]:
            roots.append(stage.root)
            return super().open(stage)

    made = expensive(runner(Noting(name=BOX, inside=INSIDE)))
    start(made, COLD)
    assert roots[0] != made.stage(made.targets[BOX]).root
    assert not roots[0].exists()


def test_a_slow_launch_stores_its_phases_and_no_end_that_would_hold_the_evidence(
    runner: Make,
) -> None:
    engine = FakeEngine(name=BOX, inside=INSIDE)
    records = start(expensive(runner(engine)), COLD)
    assert [r.metric for r in records if isinstance(r, Sample)] == ["time", "phase.engine.created"]
    assert engine.history == ["launch box", "run _startup", "run _evidence"]


def test_a_slow_warm_start_is_the_second_of_a_stopped_instance(runner: Make) -> None:
    engine = FakeEngine(name=BOX, inside=INSIDE, expectations=(EXPECTATION,))
    records = start(expensive(runner(engine)), WARM)
    assert len(values(records, "time")) == 1
    one_start = ["start box", "run _startup", "run _evidence"]
    assert engine.history == ["stop box", *one_start * 2, "remove box"]


@pytest.mark.parametrize("kind", [FakeTarget, FakeEngine])
@pytest.mark.parametrize("name", [COLD, WARM])
def test_a_slow_start_that_meets_no_expectation_gives_no_time(
    name: WorkloadName, kind: type[FakeTarget], runner: Make
) -> None:
    box = kind(name=BOX, inside={"ns.pid": "pid:[1]"}, expectations=(EXPECTATION,))
    found = gap(start(expensive(runner(box)), name))
    assert found.cause is Cause.UNPROVEN
    assert found.hint.startswith("state/box-pre.json")
    assert "ns.pid should be unlike the host's" in found.detail


def test_only_the_last_start_of_a_stopped_instance_must_meet_its_expectations(
    runner: Make,
) -> None:
    liar, honest = Script(facts={"ns.pid": "pid:[1]"}), Script(facts=INSIDE)
    scripts = said("_evidence", honest, liar)
    engine = FakeEngine(name=BOX, expectations=(EXPECTATION,), scripts=scripts)
    assert gap(start(expensive(runner(engine)), WARM)).cause is Cause.UNPROVEN


@pytest.mark.parametrize(
    ("program", "script", "cause", "detail"),
    [
        ("_startup", Script(fault=Fault.SILENT), Cause.FAILED, "no nonce came back"),
        ("_startup", Script(fault=Fault.WRONG_NONCE), Cause.FAILED, "no nonce came back"),
        ("_startup", Script(fault=Fault.TIME_OUT), Cause.TIMED_OUT, "60 s"),
        ("_startup", Script(fault=Fault.GONE), Cause.FAILED, "broke"),
        ("_startup", Script(exit_code=127), Cause.FAILED, "exit code 127"),
        ("_evidence", Script(fault=Fault.SILENT), Cause.FAILED, "did not print its first line"),
        ("_evidence", Script(fault=Fault.CUT_SHORT), Cause.FAILED, "before its last line"),
        ("_evidence", Script(fault=Fault.WRONG_NONCE), Cause.WRONG_ANSWER, "nonce"),
        ("_evidence", Script(fault=Fault.TIME_OUT), Cause.TIMED_OUT, "60 s"),
    ],
)
@pytest.mark.parametrize("name", [COLD, WARM])
def test_a_slow_start_that_goes_wrong_leaves_one_gap_and_no_time(
    program: str, script: Script, cause: Cause, detail: str, name: WorkloadName, *, runner: Make
) -> None:
    found = gap(start(expensive(runner(fake(scripts=said(program, script)))), name))
    assert found.cause is cause
    assert detail in found.detail


def test_a_slow_start_of_another_program_keeps_its_separate_proof(runner: Make) -> None:
    box = fake()
    made = runner(box)
    made.expensive.add(BOX)
    records = start(made, COLD)
    assert [r.metric for r in records if isinstance(r, Sample)] == ["time", "gone"]
    assert [line for line in box.history if line.startswith("run")] == [
        "run _evidence",
        f"run {COLD}",
    ]


def test_a_cheap_start_of_the_shipped_program_is_proved_apart(runner: Make) -> None:
    box = fake()
    made = runner(box)
    made.workloads = {**WORKLOADS, **STARTS}
    records = start(made, COLD)
    assert len(values(records, "time")) == len(values(records, "gone")) == 3
    assert box.history.count("open box") == 4


# ---- sessions


def labels(*names: TargetName, number: int = 1) -> Block:
    return plan.block(number, [NATIVE, *names], [LOOP, OTHER], seed=1, shuffled=False)


Opened = tuple[dict[TargetName, Session], dict[TargetName, Gap]]


def opened(
    made: measure.Runner, block: Block, faults: sessions.OpeningFailures | None = None
) -> Opened:
    with made.sessions(block, faults or sessions.OpeningFailures()) as (good, bad):
        return good, bad


def test_every_session_is_proved_before_it_is_used(runner: Make) -> None:
    box = fake(expectations=(EXPECTATION,))
    good, bad = opened(runner(box), labels(BOX))
    assert set(good) == {NATIVE, BOX}
    assert bad == {}
    assert box.history == ["open box", "run _evidence", "close box"]


def test_a_session_that_meets_no_expectation_is_bad_and_closed(runner: Make) -> None:
    box = fake(expectations=(EXPECTATION,), inside={"ns.pid": "pid:[1]"})
    good, bad = opened(runner(box), labels(BOX))
    assert set(good) == {NATIVE}
    assert bad[BOX].cause is Cause.UNPROVEN
    assert bad[BOX].hint.startswith("state/box-pre.json")
    assert (box.opened, box.closed) == (1, 1)


def test_what_the_host_sees_of_a_session_is_evidence_too_and_overrides_nothing(
    runner: Make,
) -> None:
    made = runner(fake(witnessed={"host.runtime": "runc", "ns.pid": "pid:[9]"}))
    opened(made, labels(BOX))
    environment = made.prover.proofs[BOX].environment
    assert environment.value("host.runtime") == "runc"
    assert environment.value("ns.pid") == "pid:[2]"


@pytest.mark.parametrize(("runtime", "good"), [("runsc", True), ("runc", False), (None, False)])
def test_a_expectation_may_be_about_what_only_the_host_sees(
    runtime: str | None, good: bool, runner: Make
) -> None:
    expectation = Expectation(key="host.runtime", relation=Relation.EQUALS, value="runsc")
    witnessed = {} if runtime is None else {"host.runtime": runtime}
    found, bad = opened(runner(fake(expectations=(expectation,), witnessed=witnessed)), labels(BOX))
    assert (BOX in found, BOX in bad) == (good, not good)


def test_what_only_the_host_sees_is_not_expected_of_a_launched_instance(runner: Make) -> None:
    witnessed = Expectation(key="host.runtime", relation=Relation.EQUALS, value="runc")
    engine = FakeEngine(name=BOX, inside=INSIDE, expectations=(EXPECTATION, witnessed))
    assert len(values(start(runner(engine), COLD), "time")) > 0


def test_a_target_that_refuses_to_open_leaves_a_gap_with_its_reason_and_hint(runner: Make) -> None:
    good, bad = opened(runner(fake(openings=("no space left",))), labels(BOX))
    assert BOX not in good
    assert (bad[BOX].cause, bad[BOX].detail) == (Cause.FAILED, "no space left")
    assert bad[BOX].hint == "as its script says"


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        (Fault.TIME_OUT, Cause.TIMED_OUT),
        (Fault.SILENT, Cause.FAILED),
        (Fault.GONE, Cause.FAILED),
        (Fault.ERROR_LINE, Cause.FAILED),
    ],
)
def test_evidence_that_does_not_come_makes_a_session_bad(
    fault: Fault, cause: Cause, runner: Make
) -> None:
    box = fake(scripts=said("_evidence", Script(fault=fault)))
    _, bad = opened(runner(box), labels(BOX))
    assert bad[BOX].cause is cause
    assert box.closed == 1


def test_evidence_with_another_nonce_is_not_believed(runner: Make) -> None:
    _, bad = opened(
        runner(fake(scripts=said("_evidence", Script(fault=Fault.WRONG_NONCE)))), labels(BOX)
    )
    assert BOX in bad


def test_a_target_that_fails_three_times_in_a_row_is_left_alone(runner: Make) -> None:
    box = fake(openings=("broken",))
    made, faults = runner(box), sessions.OpeningFailures()
    gaps = [opened(made, labels(BOX, number=n), faults)[1][BOX] for n in range(1, 7)]
    assert box.opened == sessions.MOST_FAILURES
    assert {each.detail for each in gaps} == {"broken"}


def test_a_good_opening_forgives_the_bad_ones_before_it(runner: Make) -> None:
    box = fake(openings=("a", "b", "", "c", "d", ""))
    made, faults = runner(box), sessions.OpeningFailures()
    outcomes = [BOX in opened(made, labels(BOX, number=n), faults)[0] for n in range(1, 7)]
    assert outcomes == [False, False, True, False, False, True]
    assert box.opened == 6


def test_one_bad_target_leaves_the_others_alone(runner: Make) -> None:
    good, _ = opened(runner(fake(openings=("broken",))), labels(BOX, plan.second(NATIVE)))
    assert set(good) == {NATIVE, "native#2"}


class Rude(FakeTarget):
    """A plug-in that breaks the rules."""

    def open(self, stage: Stage) -> contextlib.AbstractContextManager[Any]:
        raise KeyError("its own fault")


class Clinging(FakeTarget):
    """A target whose sessions do not close cleanly."""

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Any]:
        with FakeTarget.open(self, stage) as session:
            yield session
        raise SessionError("it could not be removed", hint="remove it by hand")


def test_a_plug_in_that_raises_what_it_should_not_leaves_a_gap_and_no_crash(runner: Make) -> None:
    _, bad = opened(runner(Rude(name=BOX)), labels(BOX))
    assert bad[BOX].cause is Cause.FAILED
    assert "its own fault" in bad[BOX].detail


def test_a_session_that_cannot_be_closed_is_a_gap_of_its_own_beside_what_it_measured(
    runner: Make,
) -> None:
    made = runner(Clinging(name=BOX, inside=INSIDE))
    made.block(labels(BOX), WORK, sessions.OpeningFailures(), lambda _: None)
    sink: Any = made.sink
    gaps = [record for record in sink.records if isinstance(record, Gap)]
    found = gap(gaps)
    assert (found.block, found.target, found.workload) == (
        labels(BOX).number,
        BOX,
        SESSION,
    )
    assert found.cause is Cause.FAILED
    assert found.detail == "it could not be closed: it could not be removed"
    assert found.hint == "remove it by hand"
    assert {(r.target, r.workload) for r in sink.records if isinstance(r, Sample)} == {
        (target, name) for target in (NATIVE, BOX) for name in (LOOP, OTHER)
    }


# ---- blocks


def test_every_planned_cell_yields_a_record_and_is_safe_before_the_next(runner: Make) -> None:
    box = fake(openings=("broken",))
    made = runner(box)
    seen: list[Visit] = []
    block = labels(BOX, plan.second(NATIVE))
    made.block(block, WORK, sessions.OpeningFailures(), seen.append)
    sink: Any = made.sink
    assert seen == list(block.visits)
    cells = {(r.block, r.target, r.workload) for r in sink.records}
    assert cells == {(v.block, v.target, v.workload) for v in block.visits}
    assert len(sink.synced) == len(block.visits)
    assert sink.synced == sorted(set(sink.synced))
    gaps = [r for r in sink.records if isinstance(r, Gap)]
    assert [(g.target, g.workload) for g in gaps] == [(BOX, LOOP), (BOX, OTHER)]


def test_all_sessions_of_a_block_are_open_before_the_first_visit_and_closed_after_the_last(
    runner: Make,
) -> None:
    history: list[str] = []
    made = runner(fake(history=history), FakeTarget(name=TargetName("jar"), history=history))
    made.block(labels(BOX, TargetName("jar")), WORK, sessions.OpeningFailures(), lambda _: None)
    assert [line for line in history if "_evidence" not in line] == [
        *("open box", "open jar"),
        *(f"run {LOOP}", f"run {LOOP}", f"run {OTHER}", f"run {OTHER}"),
        *("close jar", "close box"),
    ]


def test_an_interruption_closes_every_session_and_turns_collection_on_again(runner: Make) -> None:
    box = fake()

    def interrupt(_: Visit) -> None:
        assert not gc.isenabled()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        runner(box).block(labels(BOX), WORK, sessions.OpeningFailures(), interrupt)
    assert gc.isenabled()
    assert (box.opened, box.closed) == (1, 1)


# ---- measuring

QUIET = BlockHealth(
    block=0,
    seconds=1.0,
    steal_percent=0.0,
    pressure_percent=None,
    swapped_in_pages=0,
    throttled=None,
    clock_source="tsc",
)


def quiet_but(monkeypatch: pytest.MonkeyPatch, *noisy: int) -> None:
    """Let the host be quiet in all blocks but these."""

    class Meter:
        def lap(self, block: int) -> BlockHealth:
            rules = ("steal",) if block in noisy else ()
            return replace(QUIET, block=block, broken_rules=rules)

    monkeypatch.setattr(host, "Meter", Meter)


def made_plan(blocks: int, served: int = 1) -> Plan:
    work = [WORK[LOOP]]
    return plan.make(
        [NATIVE, BOX],
        work,
        reference=NATIVE,
        blocks=blocks,
        seed=1,
        blocks_per_session={BOX: served},
    )


def limits(**options: Any) -> measure.StopRules:
    usual: dict[str, Any] = {
        "budget_end": time.monotonic() + 600,
        "minimum_blocks": 3,
        "maximum_blocks": 20,
        "analyse": lambda _: measure.Analysed(),
    }
    return measure.StopRules(**(usual | options))


def measure_blocks(made: measure.Runner, blocks: int, wanted: measure.StopRules) -> tuple[int, str]:
    return measure.measure(made, made_plan(blocks), wanted, tick=lambda _visit, _valid: None)


def test_so_many_blocks_are_measured_as_were_wanted(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()
    assert measure_blocks(runner(box), 8, limits(maximum_blocks=6)) == (6, "blocks")
    assert box.opened == 6


def test_what_is_loaded_is_looked_through_once_and_not_before_every_block(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    spared: list[int] = []
    measure.measure(
        runner(fake()),
        made_plan(2),
        limits(),
        tick=lambda _visit, _valid: spared.append(gc.get_freeze_count()),
    )
    assert min(spared) > 10_000  # modules, functions, classes
    assert gc.get_freeze_count() == 0


def test_a_spent_budget_ends_a_run_after_its_fewest_blocks(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    spent = limits(budget_end=time.monotonic() - 1, minimum_blocks=4)
    assert measure_blocks(runner(fake()), 20, spent) == (4, "budget")


def analyses(stop_at: int = 0) -> tuple[list[int], Callable[[int], measure.Analysed]]:
    """Return an interim analysis that stops a run after so many blocks, and a list of when it was
    made.
    """
    analysed: list[int] = []

    def analyse(valid: int) -> measure.Analysed:
        analysed.append(valid)
        return measure.Analysed(stop="precision" if valid == stop_at else "")

    return analysed, analyse


def test_a_run_ends_at_the_analysis_that_says_so(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    analysed, analyse = analyses(stop_at=20)
    wanted = limits(maximum_blocks=40, analyse=analyse)
    assert measure_blocks(runner(fake()), 40, wanted) == (20, "precision")
    assert analysed == [5, 6, 7, 8, 10, 12, 14, 17, 20]


def test_later_analyses_of_a_run_are_farther_apart(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    analysed, analyse = analyses()
    measure_blocks(runner(fake()), 105, limits(maximum_blocks=105, analyse=analyse))
    assert analysed[-6:] == [42, 50, 60, 72, 86, 103]


def test_cells_that_leave_are_recorded_and_measured_no_more(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()
    made = runner(box)

    def analyse(valid: int) -> measure.Analysed:
        leaving = {5: [(OTHER, BOX)], 10: [(LOOP, BOX)]}.get(valid, [])
        return measure.Analysed(leaving=leaving, share=valid / 40)

    wanted = limits(maximum_blocks=40, analyse=analyse)
    one = plan.make([NATIVE, BOX], [WORK[LOOP], WORK[OTHER]], reference=NATIVE, blocks=40, seed=1)
    stopped = measure.measure(made, one, wanted, tick=lambda *_: None)
    assert stopped == (10, "decided")
    sink: Any = made.sink
    assert [r for r in sink.records if isinstance(r, Leaving)] == [
        Leaving(block=5, target=BOX, workload=OTHER, share=0.125),
        Leaving(block=10, target=BOX, workload=LOOP, share=0.25),
    ]
    times = [r for r in sink.records if isinstance(r, Sample) and r.metric == "time"]
    # Native and its control leave a workload with the last target.
    for name, last in ((OTHER, 5), (LOOP, 10)):
        for label in (NATIVE, plan.second(NATIVE), BOX):
            mine = {r.block for r in times if (r.workload, r.target) == (name, label)}
            assert mine == set(range(1, last + 1))


def test_a_target_of_which_all_cells_have_left_is_opened_no_more(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    jar = TargetName("jar")
    box, other = fake(), fake(name=jar)

    def analyse(valid: int) -> measure.Analysed:
        return measure.Analysed(leaving=[(LOOP, BOX)] if valid == 5 else [])

    one = plan.make([NATIVE, BOX, jar], [WORK[LOOP]], reference=NATIVE, blocks=9, seed=1)
    wanted = limits(maximum_blocks=9, analyse=analyse)
    measure.measure(runner(box, other), one, wanted, tick=lambda *_: None)
    assert (box.opened, other.opened) == (5, 9)


def test_cells_that_left_a_run_before_it_was_resumed_stay_away(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()
    one = plan.make([NATIVE, BOX], [WORK[LOOP], WORK[OTHER]], reference=NATIVE, blocks=4, seed=1)
    measure.measure(
        runner(box), one, limits(maximum_blocks=4), tick=lambda *_: None, left=[(OTHER, BOX)]
    )
    assert (box.runs(LOOP), box.runs(OTHER)) == (4, 0)


def test_a_block_in_a_noisy_host_is_measured_again_and_marked(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch, 2)
    made = runner(fake())
    assert measure_blocks(made, 12, limits(maximum_blocks=5)) == (5, "blocks")
    sink: Any = made.sink
    assert sink.healths == [(1, True), (2, False), (3, True), (4, True), (5, True), (6, True)]


def test_a_host_that_is_always_noisy_costs_at_most_a_fifth_more_blocks(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch, *range(100))
    made = runner(fake())
    measured, why = measure_blocks(made, 24, limits(maximum_blocks=20))
    sink: Any = made.sink
    invalid = [block for block, valid in sink.healths if not valid]
    assert (measured, why) == (20, "blocks")
    assert 1 <= len(invalid) <= 4
    assert len(sink.healths) == 20 + len(invalid)


@pytest.mark.parametrize(("repeated", "blocks"), [(0, [5, 6]), (1, [5, 6, 7])])
def test_a_run_that_goes_on_begins_after_the_blocks_it_has(
    repeated: int, blocks: list[int], runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    made = runner(fake())
    got = measure.measure(
        made,
        made_plan(8),
        limits(maximum_blocks=6),
        tick=lambda _visit, _valid: None,
        begun=4,
        repeated=repeated,
    )
    sink: Any = made.sink
    assert got == (6, "blocks")
    assert sorted({record.block for record in sink.records}) == blocks


# ---- sessions that serve several blocks


class Changing(dict[str, Fact]):
    """Facts that are others each time they are read."""

    def __init__(self, *facts: dict[str, Fact]) -> None:
        super().__init__(facts[0])
        self.left = [*facts]

    def items(self) -> Any:
        return self.left.pop(0).items()


def sessions_of(made: measure.Runner, target: TargetName = BOX) -> dict[int, int]:
    """Return which session each block had in which it has a time."""
    sink: Any = made.sink
    return {
        record.block: record.session
        for record in sink.records
        if isinstance(record, Sample) and record.target == target
    }


def gaps_of(made: measure.Runner) -> dict[int, Gap]:
    sink: Any = made.sink
    return {record.block: record for record in sink.records if isinstance(record, Gap)}


def reuse(made: measure.Runner, blocks: int, served: int, **options: Any) -> None:
    """Measure so many blocks; every planned cell must leave a record."""
    planned = made_plan(blocks, served)
    measure.measure(made, planned, limits(), tick=lambda _visit, _valid: None, **options)
    sink: Any = made.sink
    wanted = {
        (visit.block, visit.target, visit.workload)
        for block in planned.blocks[options.get("begun", 0) :]
        for visit in block.visits
    }
    assert {(r.block, r.target, r.workload) for r in sink.records} == wanted


def test_a_session_serves_as_many_blocks_as_the_plan_says_and_is_proved_in_each(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()
    made = runner(box)
    reuse(made, 7, served=3)
    assert sessions_of(made) == {1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 2, 7: 3}
    assert sessions_of(made, NATIVE) == {block: block for block in range(1, 8)}
    assert box.runs("_evidence") == 7
    one_block = ["run _evidence", f"run {LOOP}"]
    assert box.history == [
        *("open box", *one_block * 3, "close box"),
        *("open box", *one_block * 3, "close box"),
        *("open box", *one_block, "close box"),
    ]


def test_a_expectation_that_a_session_breaks_later_is_a_gap_and_the_next_block_has_a_new_one(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    honest, liar = Script(facts=INSIDE), Script(facts=INSIDE | {"ns.pid": "pid:[1]"})
    box = fake(expectations=(EXPECTATION,), scripts=said("_evidence", honest, honest, liar, honest))
    made = runner(box)
    reuse(made, 5, served=5)
    (found,) = gaps_of(made).values()
    assert (found.block, found.cause) == (3, Cause.UNPROVEN)
    assert "ns.pid" in found.detail
    assert sessions_of(made) == {1: 1, 2: 1, 4: 2, 5: 2}
    assert box.opened == box.closed == 2


@pytest.mark.parametrize("key", measure._STEADY_IN_SESSIONS)
def test_a_later_session_with_other_limits_than_the_first_one_is_not_believed(
    key: str, runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    first, other = Script(facts=INSIDE | {key: "1"}), Script(facts=INSIDE | {key: "2"})
    box = fake(scripts=said("_evidence", first, other, first))
    if key.startswith("host."):  # of which only the host's word counts
        box = fake(witnessed=Changing({key: "1"}, {key: "2"}, {key: "1"}))
    made = runner(box)
    reuse(made, 3, served=1)
    (found,) = gaps_of(made).values()
    assert (found.block, found.cause) == (2, Cause.UNPROVEN)
    assert f"{key} was '1' and is now '2'" in found.detail


def test_the_facts_of_a_session_that_is_not_believed_do_not_stand_for_its_target(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    first, other = (
        Script(facts=INSIDE | {"kernel.release": release}) for release in ("6.1", "4.4")
    )
    made = runner(fake(scripts=said("_evidence", first, other)))
    reuse(made, 3, served=1)
    assert {block: found.cause for block, found in gaps_of(made).items()} == {
        2: Cause.UNPROVEN,
        3: Cause.UNPROVEN,
    }
    assert made.prover.proofs[BOX].environment.value("kernel.release") == "6.1"


@dataclass(frozen=True, kw_only=True)
class Elsewhere(FakeTarget):
    """A machine that isobench may start, or not."""

    exclusive: bool = False


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_machine_that_isobench_does_not_start_is_the_same_in_every_session(
    exclusive: bool, runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    first, other = (Script(facts=INSIDE | {"kernel.boot_id": boot}) for boot in ("b", "c"))
    scripts = said("_evidence", first, other)
    made = runner(Elsewhere(name=BOX, inside=INSIDE, scripts=scripts, exclusive=exclusive))
    reuse(made, 2, served=1)
    assert bool(gaps_of(made)) is not exclusive


def test_a_resumed_run_holds_sessions_against_those_before_it(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    made = runner(fake(scripts=said("_evidence", Script(facts=INSIDE | {"security.seccomp": "2"}))))
    before = Evidence(key="security.seccomp", value="0", source="")
    made.evidence_before = {BOX: {before.key: before}}
    reuse(made, 2, served=1)
    assert "security.seccomp was '0' and is now '2'" in gaps_of(made)[1].detail


def test_a_session_that_is_suddenly_on_another_machine_is_not_believed(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    first, other = (Script(facts=INSIDE | {"kernel.boot_id": name}) for name in ("one", "two"))
    box = fake(scripts=said("_evidence", first, other, other, other))
    made = runner(box)
    reuse(made, 4, served=4)
    (found,) = gaps_of(made).values()
    assert (found.block, found.cause) == (2, Cause.UNPROVEN)
    assert "kernel.boot_id was 'one' and is now 'two'" in found.detail
    assert sessions_of(made) == {1: 1, 3: 2, 4: 2}


@pytest.mark.parametrize("fault", [Fault.GONE, Fault.TIME_OUT, Fault.WRONG_NONCE])
def test_a_session_in_which_a_visit_failed_serves_no_further_block(
    fault: Fault, runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake(scripts=said(LOOP, Script(), Script(fault=fault), Script()))
    made = runner(box)
    reuse(made, 4, served=4)
    assert list(gaps_of(made)) == [2]
    assert sessions_of(made) == {1: 1, 3: 2, 4: 2}
    assert box.opened == box.closed == 2


def test_a_session_that_is_gone_when_its_next_block_begins_is_replaced_in_the_one_after(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    proof = Script(facts=INSIDE)
    scripts = said("_evidence", proof, Script(fault=Fault.GONE), proof)
    made = runner(fake(scripts=scripts))
    reuse(made, 3, served=3)
    assert [found.cause for found in gaps_of(made).values()] == [Cause.FAILED]
    assert sessions_of(made) == {1: 1, 3: 2}


def test_a_start_that_fails_in_an_instance_of_its_own_leaves_the_session_open(runner: Make) -> None:
    box = FakeEngine(name=BOX, inside=INSIDE, scripts=said(COLD, Script(fault=Fault.GONE)))
    made = runner(box)
    with sessions.Sessions({BOX: 9}) as held:
        for number in (1, 2):
            block = plan.block(number, [NATIVE, BOX], [COLD, EXEC], seed=1, shuffled=False)
            made.block(block, WORK, sessions.OpeningFailures(), lambda _: None, held)
        assert (box.opened, box.closed) == (1, 0)
    assert box.closed == 1
    sink: Any = made.sink
    labelled = {(r.workload, r.session) for r in sink.records if isinstance(r, Sample)}
    assert labelled == {(COLD, 0), (EXEC, 1), (EXEC, 2)}
    mine = {r.session for r in sink.records if isinstance(r, Sample) and r.target == BOX}
    assert mine == {1}


def test_an_error_closes_a_session_that_was_to_serve_more_blocks(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()

    def stop(_visit: Visit, valid: int) -> None:
        if valid == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure.measure(runner(box), made_plan(8, served=8), limits(), tick=stop)
    assert box.opened == box.closed == 1


def test_a_run_that_stops_before_its_plan_closes_what_is_open(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()
    wanted = limits(maximum_blocks=2)
    measure.measure(runner(box), made_plan(8, served=8), wanted, tick=lambda _visit, _valid: None)
    assert box.opened == box.closed == 1


def test_a_run_that_goes_on_opens_again_and_goes_on_numbering(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    made = runner(fake())
    reuse(made, 8, served=3, begun=4, sessions={BOX: 2, NATIVE: 4})
    assert sessions_of(made) == {5: 3, 6: 3, 7: 3, 8: 4}
    assert sessions_of(made, NATIVE) == {5: 5, 6: 6, 7: 7, 8: 8}


def test_a_time_limit_inside_a_tick_ends_the_run_at_once(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet_but(monkeypatch)
    box = fake()

    def stop(_visit: Visit, valid: int) -> None:
        if valid == 2:
            raise SessionError("the time limit has passed")

    with pytest.raises(SessionError):
        measure.measure(runner(box), made_plan(8), limits(), tick=stop)
    assert box.opened == box.closed == 3


def test_nanoseconds_of_a_time_limit_are_reported_in_seconds(runner: Make) -> None:
    made = runner(fake(scripts=said(LOOP, Script(fault=Fault.TIME_OUT))))
    slow = replace(WORKLOADS[LOOP], timeout=Nanoseconds(1_500_000_000))
    made.workloads = {**WORKLOADS, LOOP: slow}
    assert gap(visit(made, LOOP)).detail == "not done after 1.5 s"


# ---- a machine of which there is one


class OneMachine(FakeEngine):
    """An exclusive engine; every opening is another boot."""

    exclusive = True

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[Any]:
        with super().open(stage) as session:
            self.inside["kernel.boot_id"] = f"boot {self.opened}"  # type: ignore[index]
            yield session

    def launch(self, *arguments: Any, **options: Any) -> Any:
        assert self.opened == self.closed, "a session is open while the machine is to be started"
        return super().launch(*arguments, **options)


def visits(*names: WorkloadName, number: int = 1) -> Block:
    return plan.block(number, [NATIVE, BOX], list(names), seed=1, shuffled=False)


def all_gaps(made: measure.Runner) -> list[Gap]:
    assert isinstance(made.sink, Sink)
    return [record for record in made.sink.records if isinstance(record, Gap)]


def one_machine(**options: Any) -> OneMachine:
    return OneMachine(**({"name": BOX, "inside": dict(INSIDE)} | options))


def test_the_session_of_an_exclusive_target_ends_before_a_start_and_is_proved_again_after_it(
    runner: Make,
) -> None:
    box = one_machine(expectations=(EXPECTATION,))
    made = runner(box)
    made.block(
        visits(LOOP, COLD, WARM, OTHER, EXEC), WORK, sessions.OpeningFailures(), lambda _: None
    )
    sink = made.sink
    assert isinstance(sink, Sink)
    assert all_gaps(made) == []
    assert box.opened == box.closed == 2
    proofs = [i for i, line in enumerate(box.history) if line == "run _evidence"]
    openings = [i for i, line in enumerate(box.history) if line == "open box"]
    assert all(opening + 1 in proofs for opening in openings)
    numbers = {
        r.workload: r.session
        for r in sink.records
        if isinstance(r, Sample) and r.metric == "time" and r.target == BOX
    }
    assert numbers == {LOOP: 1, COLD: 0, WARM: 0, OTHER: 2, EXEC: 2}


def test_an_exclusive_session_that_does_not_come_back_leaves_gaps_and_is_tried_once(
    runner: Make,
) -> None:
    box = one_machine(openings=("", "it is gone", ""))
    made = runner(box)
    made.block(visits(COLD, LOOP, OTHER), WORK, sessions.OpeningFailures(), lambda _: None)
    gaps = {gap.workload: gap.detail for gap in all_gaps(made)}
    assert gaps == {LOOP: "it is gone", OTHER: "it is gone"}
    assert box.opened == 2


def test_an_exclusive_session_that_shows_something_else_afterwards_is_not_believed(
    runner: Make,
) -> None:
    seen = (Script(facts={"ns.pid": f"pid:[{n}]"}) for n in (2, 2, 1))
    box = one_machine(expectations=(EXPECTATION,), scripts={"_evidence": tuple(seen)})
    made = runner(box)
    made.block(visits(COLD, LOOP), WORK, sessions.OpeningFailures(), lambda _: None)
    (gap,) = all_gaps(made)
    assert (gap.workload, gap.cause) == (LOOP, Cause.UNPROVEN)


def test_an_exclusive_session_that_serves_several_blocks_may_be_on_another_boot(
    runner: Make,
) -> None:
    box = one_machine()
    made = runner(box)
    with sessions.Sessions({BOX: 2}) as held:
        for number in (1, 2):
            block = visits(LOOP, COLD, number=number)
            made.block(block, WORK, sessions.OpeningFailures(), lambda _: None, held)
    assert all_gaps(made) == []
    assert box.opened == box.closed == 2


def test_a_start_that_a_target_does_not_have_is_a_gap_that_is_no_failure(runner: Make) -> None:
    class Given(FakeEngine):
        def launch(self, *_: Any, **__: Any) -> Any:
            raise NotApplicableError("no start command", hint="give it one")

    (gap,) = visit(runner(Given(name=BOX, inside=INSIDE)), COLD)
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.hint) == (Cause.NOT_APPLICABLE, "give it one")


def test_what_an_abi_lacks_is_a_gap_that_is_no_failure_and_never_run(runner: Make) -> None:
    box = fake(abi=Abi.WASM32)
    made = runner(box)
    needy = replace(WORKLOADS[LOOP], needs=(Need.THREADS,))
    made.workloads = {**WORKLOADS, LOOP: needy}
    (gap,) = made.visit(Visit(block=4, target=BOX, workload=LOOP), WORK[LOOP], None)
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.detail) == (Cause.NOT_APPLICABLE, Abi.WASM32.lacks[Need.THREADS])
    assert values(visit(made, LOOP, NATIVE), "time")


@dataclass(frozen=True, kw_only=True)
class Lacking(FakeTarget):
    """A target that says what its sessions cannot offer."""

    lacks: Mapping[Need, str] = field(default_factory=dict)


def test_what_a_target_says_that_it_lacks_is_a_gap_with_its_reason(runner: Make) -> None:
    box = Lacking(name=BOX, inside=INSIDE, lacks={Need.PROCESSES: "it forbids fork"})
    made = runner(box)
    made.workloads = {
        **WORKLOADS,
        LOOP: replace(WORKLOADS[LOOP], needs=(Need.THREADS, Need.PROCESSES)),
    }
    (gap,) = visit(made, LOOP)
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.detail) == (Cause.NOT_APPLICABLE, "it forbids fork")
    assert values(visit(made, LOOP, NATIVE), "time")
    assert values(visit(made, OTHER), "time")


def test_what_needs_two_cpus_is_not_applicable_where_one_may_be_used(
    runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = runner(fake())
    made.workloads = {**WORKLOADS, LOOP: replace(WORKLOADS[LOOP], needs=(Need.TWO_CPUS,))}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert values(visit(made, LOOP), "time")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3})
    for target in (NATIVE, BOX):
        (gap,) = visit(made, LOOP, target)
        assert isinstance(gap, Gap)
        assert gap.cause is Cause.NOT_APPLICABLE
        assert gap.detail == "it needs two CPUs, and only CPU 3 may be used here"
        assert values(visit(made, OTHER, target), "time")


def test_a_payload_of_a_plug_in_that_could_not_be_built_is_a_gap_that_names_it(
    runner: Make,
) -> None:
    made = runner(fake(), fake(name=TargetName("wasm"), abi=Abi.WASM32))
    made.workloads = {
        **WORKLOADS,
        LOOP: replace(WORKLOADS[LOOP], plugin="its-maker 1.0"),
    }
    error = PayloadError("it could not be built", hint="fix it")
    made.unbuilt = {(LOOP, Abi.WASM32): error}
    (gap,) = made.visit(Visit(block=1, target=TargetName("wasm"), workload=LOOP), WORK[LOOP], None)
    assert isinstance(gap, Gap)
    assert (gap.cause, gap.detail) == (Cause.FAILED, "it could not be built")
    assert gap.hint.startswith("fix it; bug of a workload in its-maker 1.0")
    assert values(visit(made, LOOP), "time")


def test_a_dear_start_that_cannot_become_the_evidence_keeps_a_separate_proof(runner: Make) -> None:
    made = expensive(runner(fake(abi=Abi.WASM32)))
    records = start(made, COLD)
    assert len(values(records, "time")) == 1
    assert len(values(records, "gone")) == 1
