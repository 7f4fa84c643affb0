"""Whatever a plug-in does wrong is reported as its distribution's fault; nothing ends with it."""

import asyncio
import datetime as dt
import errno
import io
import os
import resource
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import traceback
import types
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from isobench.cli import _progress
from isobench.cli._errors import run_guarded
from isobench.config import paths, redaction
from isobench.config.options import RunOptions
from isobench.model import (
    Available,
    Cause,
    Command,
    Environment,
    Gap,
    Lack,
    Leftover,
    Need,
    Record,
    Sample,
    Stage,
    Technology,
    Unavailable,
    Visit,
    plan,
)
from isobench.model.errors import (
    NotApplicableError,
    PluginError,
    SessionError,
    TimeIsUpError,
    UsageError,
)
from isobench.model.units import Nanoseconds, TargetName, WorkloadName, seconds
from isobench.plugins import deadlines, entry_points, guard, ownership, surroundings
from isobench.plugins.api import (
    Channel,
    Completed,
    Exclusive,
    Explains,
    Lacks,
    Launcher,
    Limiter,
    Preparer,
    Restarter,
    Sweeper,
    Target,
    Witness,
)
from isobench.plugins.deadlines import TimeLimitError
from isobench.plugins.registry import Registry
from isobench.plugins.testing import FakeEngine, FakeTarget
from isobench.run import limit_tests, measure, selection, sessions
from isobench.run.time_limit import TimeLimit
from isobench.targets.shared import processes
from tests import distributions
from tests.unit import test_measure
from tests.unit.test_measure import COLD, EXEC, LOOP, WARM, WORK, Sink

runner, workshop = test_measure.runner, test_measure.workshop
HOSTILE = Path(__file__).parents[1] / "data" / "hostile_targets"
BLAME = "bug of the plug-in hostile-{} in isobench-hostile 6.6: report it to its author"
MAKER = guard.PluginInfo(name=TargetName("box"), distribution="its-maker", version="1.0")
ABILITIES = (Launcher, Restarter, Exclusive, Limiter, Preparer, Sweeper, Lacks, Explains)

Make = Callable[..., measure.Runner]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Target]]:
    """Return a function that loads a hostile target as the command line would."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    distributions.lay_out(HOSTILE, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    entry_points.forget()
    every = Registry()
    yield lambda name: every.get(f"hostile-{name}")
    entry_points.forget()
    guard._pending.clear()
    for module in [name for name in sys.modules if name.startswith("isobench_hostile")]:
        del sys.modules[module]


def probed(target: Target) -> Available | Unavailable:
    name = TargetName("it")
    return guard.probe({name: target}, lambda _name, _answer: None)[name]


# ---- before a run --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("import-exits", "loading it: SystemExit: 3"),
        ("import-missing", "isobench_nowhere"),
        ("class-number", "TypeError"),
        ("init-raises", "making it: OSError: no licence"),
        ("init-exits", "making it: SystemExit: 3"),
        ("options-unknown", "its options: AttributeError"),
        ("name-number", "name is an int, not a str"),
        ("technology-text", "technology is a str, not a Technology"),
        ("technology-exits", "SystemExit: 3"),
        ("abi-text", "abi is a str, not an Abi or None"),
        ("expectations-text", "expectations is a str, not a tuple"),
        ("expectations-keys", "one of expectations is a str, not an Expectation"),
        ("expectations-no-relation", "the relation of ns.pid is a str, not a Relation"),
        ("probe-string", "probe: TypeError: what came back is a str, not an Available"),
        ("probe-nothing", "what came back is None, not an Available"),
        ("probe-raises", "probe: KeyError: 'its own fault'"),
        ("probe-unprintable", "probe: Unprintable"),
        ("probe-exits", "probe: SystemExit: 3"),
        ("probe-interrupts", "probe: KeyboardInterrupt"),
        ("probe-version-number", "version is an int, not a str"),
        ("probe-hint-nothing", "hint is None, not a str"),
        ("starts-text", "starts is a str, not a mapping"),
        ("starts-numbers", "starts['cold'] is an int, not a str"),
        ("limitable-raises", "RuntimeError: cannot say"),
        ("exclusive-text", "exclusive is a str, not a bool"),
        ("lacks-text", "lacks is a str, not a mapping from Need to a text"),
        ("lacks-words", "a key of lacks is a str, not a Need"),
    ],
)
def test_a_plug_in_that_cannot_be_probed_is_unavailable_and_its_distribution_is_named(
    hostile: Callable[[str], Target], tmp_path: Path, name: str, why: str
) -> None:
    answer = probed(hostile(name))
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PLUGIN
    assert why in answer.what
    log = tmp_path / "cache" / "isobench" / "plugins.log"
    assert answer.hint == f"{BLAME.format(name)}; traceback: {log}"
    assert BLAME.format(name) in log.read_text()
    assert "Traceback" in log.read_text()


def test_an_honest_plug_in_is_available(hostile: Callable[[str], Target]) -> None:
    assert probed(hostile("honest")) == Available(version="1")


def test_a_probe_that_never_ends_is_reported_and_the_others_are_probed(
    hostile: Callable[[str], Target], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(guard, "PROBE_LIMIT", 0.3)
    targets = {TargetName(name): hostile(name) for name in ("probe-hangs", "honest")}
    answers = guard.probe(targets, lambda _name, _answer: None)
    late, honest = answers.values()
    assert isinstance(late, Unavailable)
    assert "probe did not end within 0.3 s; a tool or server that it asks may not answ" in late.what
    assert BLAME.format("probe-hangs") in late.hint
    assert "time.sleep(NEVER)" in (tmp_path / "cache" / "isobench" / "plugins.log").read_text()
    assert honest == Available(version="1")
    asked = [thread for thread in threading.enumerate() if thread is not threading.main_thread()]
    assert all(thread.daemon for thread in asked), "isobench could not end"


class Waits:
    """A target of isobench's own whose probe waits for a tool."""

    def __init__(self, wait: Callable[[], object]) -> None:
        self.probe = wait


@pytest.mark.parametrize("limit", ["of its own", "of the probe", "none"])
def test_a_tool_that_does_not_answer_is_no_bug_of_isobench(
    limit: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(guard, "PROBE_LIMIT", 0.3)
    monkeypatch.setattr(guard, "_END_SECONDS", 0.0 if limit == "none" else 60.0)
    monkeypatch.setattr(deadlines, "GRACE", 0.3)

    def wait() -> object:
        if limit == "none":
            return threading.Event().wait(60)
        while True:  # as for settings that are tried one after the other
            processes.run(["sleep", "60"], timeout=seconds(60), env=os.environ)
            if limit == "of its own":
                raise SessionError("the tool does not answer", hint="ask it")

    answer = probed(Waits(wait))  # type: ignore[arg-type]
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.RUNTIME
    if limit == "of its own":
        assert (answer.what, answer.hint) == ("the tool does not answer", "ask it")
        return
    assert answer.what.endswith("within 0.3 s: a tool or server that it asks does not answer")
    log = tmp_path / "cache" / "isobench" / "plugins.log"
    assert (str(log) in answer.hint) == (limit == "none")
    assert limit != "none" or "threading.Event().wait(60)" in log.read_text()


def test_an_import_that_never_ends_is_broken_off(
    hostile: Callable[[str], Target], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "LOAD_LIMIT", 0.3)
    answer = probed(hostile("import-hangs"))
    assert isinstance(answer, Unavailable)
    assert answer.what == "the plug-in is broken: loading it did not end within 0.3 s"
    assert BLAME.format("import-hangs") in answer.hint


def test_a_distribution_whose_entry_points_cannot_be_read_costs_the_others_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, lines in (("torn", "a line without a value"), ("whole", "fine = nowhere:X")):
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[isobench.targets]\n{lines}\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry_points.forget()
    try:
        every = Registry()
        assert {"native", "docker", "fine"} <= set(every.names())
        torn = [name for name in every.names() if "torn" in name]
        for name in torn:  # some versions of Python read such a line as a name without a value
            answer = probed(every.get(name))
            assert isinstance(answer, Unavailable)
            assert "torn-1.0" in answer.hint
    finally:
        entry_points.forget()


def test_the_traceback_of_a_fault_before_a_run_goes_into_the_logs_of_the_run(
    hostile: Callable[[str], Target],
) -> None:
    probed(hostile("probe-raises"))
    sink = Sink()
    guard.write_pending_logs(["native", "hostile-probe-raises"], sink.log)
    assert list(sink.logs) == ["hostile-probe-raises"]
    assert b"raise KeyError" in sink.logs["hostile-probe-raises"]
    guard.write_pending_logs(["hostile-probe-raises"], sink.log)
    assert sink.logs["hostile-probe-raises"].count(b"Traceback") == 1


def test_where_the_cache_cannot_be_written_the_hint_names_no_file(
    hostile: Callable[[str], Target], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    answer = probed(hostile("probe-raises"))
    assert isinstance(answer, Unavailable)
    assert answer.hint == BLAME.format("probe-raises")


def test_a_name_that_no_file_could_carry_is_reported_under_another(
    hostile: Callable[[str], Target],
) -> None:
    del hostile
    names = Registry().names()
    (stand_in,) = [name for name in names if name.startswith("unusable-")]
    assert "/" not in stand_in
    answer = probed(Registry().get(stand_in))
    assert isinstance(answer, Unavailable)
    assert "'../Hostile Name' is not valid for a target" in answer.what
    assert "isobench-hostile 6.6" in answer.hint


def test_a_name_of_ours_stays_ours(hostile: Callable[[str], Target]) -> None:
    del hostile
    assert type(Registry().get("native")).__module__ == "isobench.targets.native"


def test_what_cannot_be_prepared_is_left_out(hostile: Callable[[str], Target]) -> None:
    name = TargetName("hostile-prepare-exits")
    target = hostile("prepare-exits")
    chosen = selection.Chosen(
        targets={name: target}, answers={name: Available(version="1")}, workloads={}
    )
    said: list[str] = []
    made = selection.prepare(chosen, RunOptions(targets=("native",)), said.append)
    assert made.able == {}
    answer = made.answers[name]
    assert isinstance(answer, Unavailable)
    assert answer.what == "it cannot be prepared: prepare: SystemExit: 3"
    assert BLAME.format("prepare-exits") in answer.hint


def test_a_plug_in_that_misuses_our_errors_ends_nothing(hostile: Callable[[str], Target]) -> None:
    target = hostile("prepare-misused")
    assert isinstance(target, Preparer)
    with pytest.raises(SessionError, match="use it otherwise"):
        target.prepare(print)


@pytest.mark.parametrize("name", ["sweep-raises", "sweep-exits", "sweep-text"])
def test_what_cannot_be_swept_is_one_of_the_results(
    hostile: Callable[[str], Target], name: str
) -> None:
    target = hostile(name)
    assert isinstance(target, Sweeper)
    (found,) = target.sweep(lambda _: True, cached=False)
    assert found.what == f"what hostile-{name} may have left"
    assert BLAME.format(name) in found.failure


# ---- in a run ------------------------------------------------------------------------------------


def block(made: measure.Runner, target: Target, *names: WorkloadName) -> list[Record]:
    """Measure one block with a visit for each workload, and return what was recorded of them."""
    label = target.name
    visits = tuple(Visit(block=1, target=label, workload=name) for name in names)
    one = plan.Block(number=1, sessions=(label,), visits=visits)
    made.block(one, WORK, sessions.OpeningFailures(), lambda _: None)
    sink: Any = made.sink
    return list(sink.records)


def shorter(made: measure.Runner, timeout: float) -> measure.Runner:
    return replace(
        made,
        workloads={n: replace(w, timeout=seconds(timeout)) for n, w in made.workloads.items()},
    )


GAPS = [
    ("open-raises", LOOP, "open: KeyError: 'its own fault'"),
    ("open-exits", LOOP, "open: SystemExit: 3"),
    ("open-interrupts", LOOP, "open: KeyboardInterrupt"),
    ("open-nothing", LOOP, "what came back is None, not a context manager"),
    ("open-yields-nothing", LOOP, "open yielded None, which has no run"),
    ("open-hint-number", LOOP, "open: SessionError: no"),
    ("run-string", LOOP, "run: TypeError: what came back is a str, not a Completed"),
    ("run-string", EXEC, "what came back is a str, not a Completed"),
    ("run-code-text", LOOP, "exit_code is a str, not an int or None"),
    ("run-code-true", EXEC, "exit_code is a bool, not an int or None"),
    ("run-stdout-text", LOOP, "stdout is a str, not bytes"),
    ("run-exits", LOOP, "run: SystemExit: 3"),
    ("run-exits", EXEC, "run: SystemExit: 3"),
    ("run-exits", COLD, "a start: SystemExit: 3"),
    ("run-interrupts", LOOP, "run: KeyboardInterrupt"),
    ("run-generator-exits", LOOP, "run: GeneratorExit"),
    ("run-unprintable", LOOP, "run: Unprintable"),
    ("run-output-text", LOOP, "run: TypeError: can't concat str to bytes"),
    ("witness-number", LOOP, "witness: TypeError: one of the facts is an int, not an Evidence"),
    ("witness-exits", LOOP, "witness: SystemExit: 3"),
    ("witness-key", LOOP, 'the facts of a witness begin with "host."'),
    ("null-exits", EXEC, "run: SystemExit: 3"),
    ("launch-exits", COLD, "a start: SystemExit: 3"),
    ("launch-string", WARM, "what came back is a str, not a Completed"),
    ("stopped-nothing", WARM, "a start: AttributeError"),
    ("start-exits", WARM, "a start: SystemExit: 3"),
]


@pytest.mark.parametrize(("name", "workload", "why"), GAPS)
def test_whatever_goes_wrong_in_a_run_is_a_gap_that_names_the_distribution(
    hostile: Callable[[str], Target], runner: Make, name: str, workload: WorkloadName, why: str
) -> None:
    target = hostile(name)
    made = runner(target)
    (gap,) = block(made, target, workload)
    assert isinstance(gap, Gap)
    assert gap.cause is Cause.FAILED
    assert why in gap.detail
    where = f"logs/hostile-{name}.log in the folder of the run"
    assert gap.hint == f"{BLAME.format(name)}; traceback: {where}"
    sink: Any = made.sink
    assert b"Traceback" in sink.logs[f"hostile-{name}"]


@pytest.mark.parametrize("name", ["run-misused", "run-hint-number"])
def test_an_error_of_ours_that_a_plug_in_raises_is_a_gap_with_texts(
    hostile: Callable[[str], Target], runner: Make, name: str
) -> None:
    target = hostile(name)
    (gap,) = block(runner(target), target, LOOP)
    assert isinstance(gap, Gap)
    assert isinstance(gap.hint, str)
    assert gap.detail


@pytest.mark.parametrize("name", ["close-raises", "close-exits"])
def test_what_cannot_be_closed_is_a_gap_beside_the_figures(
    hostile: Callable[[str], Target], runner: Make, name: str
) -> None:
    target = hostile(name)
    *samples, gap = block(runner(target), target, LOOP)
    assert samples
    assert all(isinstance(record, Sample) for record in samples)
    assert isinstance(gap, Gap)
    assert gap.detail.startswith("it could not be closed: the end of open: ")
    assert BLAME.format(name) in gap.hint


def test_a_session_cannot_swallow_an_interruption(
    hostile: Callable[[str], Target], runner: Make
) -> None:
    target = hostile("close-swallows")
    with pytest.raises(KeyboardInterrupt), target.open(runner(target).stage(target)):
        raise KeyboardInterrupt


def test_an_honest_plug_in_is_measured_in_all_ways(
    hostile: Callable[[str], Target], runner: Make
) -> None:
    target = hostile("honest")
    records = block(runner(target), target, LOOP, EXEC, COLD, WARM)
    assert {record.workload for record in records} == {LOOP, EXEC, COLD, WARM}
    assert all(isinstance(record, Sample) for record in records)


def test_an_opening_that_never_ends_is_broken_off_once(
    hostile: Callable[[str], Target], runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "OPEN_LIMIT", 0.3)
    target = hostile("open-hangs")
    for _ in range(3):  # what was late once is not waited for again
        gap = block(runner(target), target, LOOP)[-1]
        assert isinstance(gap, Gap)
        assert gap.detail == "open did not end within 0.3 s"
        assert BLAME.format("open-hangs") in gap.hint
        monkeypatch.setattr(guard, "OPEN_LIMIT", 1800.0)


def test_a_command_that_never_ends_is_broken_off_once(
    hostile: Callable[[str], Target], runner: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "GRACE", 0.2)
    target = hostile("run-hangs")
    first, second = block(shorter(runner(target), 0.1), target, LOOP, EXEC)
    for gap in (first, second):
        assert isinstance(gap, Gap)
        assert gap.detail == "run did not end within 0.3 s"


def test_limits_that_a_plug_in_cannot_set_are_unknown_and_say_whose_fault_that_is(
    hostile: Callable[[str], Target], runner: Make
) -> None:
    target = hostile("limited-nothing")
    assert target.technology is Technology.CONTAINERIZATION
    assert limit_tests.limits_something(target)
    made = runner(target)
    (check,) = limit_tests.check_limits(made, target.name, Environment(facts={}))
    assert check.held is None
    assert "what limited returned is None" in check.why
    assert BLAME.format("limited-nothing") in check.why
    sink: Any = made.sink
    assert b"Traceback" in sink.logs[target.name]


# ---- whose interruption --------------------------------------------------------------------------


class Interrupted(FakeTarget):
    """Is in the middle of a command when something interrupts."""

    by: Callable[[], object] = lambda: None

    def answer(self, command: Any, timeout: Any) -> Any:
        if command.argv[0] != "_evidence":
            type(self).by()
        return FakeTarget.answer(self, command, timeout)


def test_ctrl_c_while_a_plug_in_runs_is_the_users(runner: Make) -> None:
    class Meanwhile(Interrupted):
        by = lambda: signal.raise_signal(signal.SIGINT)  # noqa: E731

    target = guard.checked(Meanwhile(name=TargetName("box")), MAKER)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            block(runner(target), target, LOOP)
    finally:
        signal.signal(signal.SIGINT, before)


def test_ctrl_c_that_asyncio_passes_on_is_the_users(runner: Make) -> None:
    async def forever() -> None:
        asyncio.get_running_loop().call_soon(signal.raise_signal, signal.SIGINT)
        await asyncio.sleep(60)

    class Meanwhile(Interrupted):
        by = lambda: asyncio.run(forever())  # noqa: E731

    target = guard.checked(Meanwhile(name=TargetName("box")), MAKER)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            block(runner(target), target, LOOP)
    finally:
        signal.signal(signal.SIGINT, before)


def test_the_time_limit_of_a_run_is_no_fault_of_a_plug_in_that_runs_meanwhile(runner: Make) -> None:
    class Meanwhile(Interrupted):
        by = lambda: time.sleep(60)  # noqa: E731

    target = guard.checked(Meanwhile(name=TargetName("box")), MAKER)
    limit = TimeLimit(0.3)
    with pytest.raises(TimeIsUpError), limit:
        block(runner(target), target, LOOP)
    assert limit.has_expired


def test_an_alarm_that_was_set_goes_on_behind_a_shorter_one() -> None:
    rang: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rang.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, 100)
        with pytest.raises(TimeLimitError), guard._limited(0.1):
            time.sleep(60)
        assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        with guard._limited(200):  # the one that is set rings sooner
            assert 90 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100
        signal.raise_signal(signal.SIGALRM)
        assert rang == [1]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_swallows_an_alarm_hears_it_again() -> None:
    with pytest.raises(TimeLimitError), guard._limited(0.1):
        try:
            time.sleep(60)
        except BaseException:  # noqa: BLE001 - as a plug-in might
            time.sleep(60)


# ---- what is wrapped is like what it wraps -------------------------------------------------------


class Everything(FakeEngine):
    """Has every ability of a target, and a session every ability of a session."""

    exclusive = False
    limitable = ()
    lacks = {Need.THREADS: "it has one"}  # noqa: RUF012 - read only
    starts = {"cold": "at once"}  # noqa: RUF012 - read only

    def limited(self, limits: Any) -> Any:
        return self

    def prepare(self, say: Any) -> None:
        say("prepared")

    def sweep(self, alive: Any, *, cached: bool) -> Any:
        return [Leftover(what="box")]


@pytest.mark.parametrize("kind", [FakeTarget, FakeEngine, Everything])
def test_a_checked_target_has_the_abilities_of_the_plug_in_and_no_others(kind: Any) -> None:
    inner = kind(name=TargetName("box"))
    target = guard.checked(inner, MAKER)
    assert isinstance(target, Target)
    for ability in ABILITIES:
        assert isinstance(target, ability) == isinstance(inner, ability), ability
    assert guard.unwrapped(target) is inner
    assert guard.unwrapped(inner) is inner


def test_a_checked_session_has_the_abilities_of_the_plug_ins(runner: Make) -> None:
    target = guard.checked(FakeTarget(name=TargetName("box"), witnessed={"host.x": 1}), MAKER)
    with target.open(runner(target).stage(target)) as session:
        assert isinstance(session, Witness)
        assert not isinstance(session, Channel)
        assert [fact.value for fact in session.witness()] == [1]


def test_every_ability_works_through_the_guard(runner: Make) -> None:
    target: Any = guard.checked(Everything(name=TargetName("box")), MAKER)
    stage_ = runner(target).stage(target)
    said: list[str] = []
    target.prepare(said.append)
    assert said == ["prepared"]
    assert target.sweep(lambda _: True, cached=False) == [Leftover(what="box")]
    assert target.starts == {"cold": "at once"}
    assert (
        target.launch(
            stage_,
            Command(argv=("_startup", "n")),
            timeout=seconds(1),
        ).exit_code
        == 0
    )
    with target.stopped(
        stage_,
        Command(argv=("_startup", "n")),
    ) as instance:
        assert instance.start(timeout=seconds(1)).exit_code == 0
    assert isinstance(target.limited(limit_tests.LIMITS), guard.CheckedTarget)


def test_nothing_of_the_guard_stands_between_a_request_and_its_answer(runner: Make) -> None:
    callers: dict[str, set[str]] = {}

    class Seen(FakeEngine):
        def answer(self, command: Any, timeout: Any) -> Any:
            files = [Path(frame.filename).name for frame in traceback.extract_stack()]
            # From the line that asked down to here.
            asking = ("measure.py", "startup.py", "proving.py")
            asked = max(at for at, file in enumerate(files) if file in asking)
            callers.setdefault(command.argv[0], set()).update(files[asked:])
            return FakeEngine.answer(self, command, timeout)

    target = guard.checked(Seen(name=TargetName("box")), MAKER)
    records = block(runner(target), target, LOOP, EXEC, COLD, WARM)
    assert all(isinstance(record, Sample) for record in records)
    timed = {name: files for name, files in callers.items() if name != "_evidence"}
    assert len(timed) == 4
    assert all("guard.py" not in files for files in timed.values()), timed
    assert "guard.py" in callers["_evidence"]  # what is not timed goes through it


# ---- processes that a plug-in forks --------------------------------------------------------------

FORKING = """
    import os, sys
    from isobench.model.units import TargetName
    from isobench.plugins import guard
    from isobench.plugins.testing import FakeTarget

    class Forking(FakeTarget):
        def probe(self):
            if os.fork() == 0:
                {end}
            return FakeTarget.probe(self)

    name = TargetName("box")
    maker = guard.PluginInfo(name=name, distribution="its-maker", version="1.0")
    print("before", flush=False)
    try:
        print(guard.checked(Forking(name=name), maker).probe().version)
    finally:
        print("after")
    print(os.waitstatus_to_exitcode(os.wait()[1]))
"""


@pytest.mark.parametrize(
    "end", ["pass", "raise OSError", "sys.exit(0)", "raise KeyboardInterrupt", "return 7"]
)
def test_a_child_that_a_plug_in_forks_and_loses_ends_where_its_call_ends(
    end: str, tmp_path: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(FORKING).format(end=end)],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    # Each line once, and what was not yet written out when it forked too.
    assert done.stdout.splitlines() == ["before", "fake 1", "after", str(guard._STRAY)]
    assert done.stderr == ""
    assert done.returncode == 0


# ---- standard output -----------------------------------------------------------------------------

SPEAKING = """
    import os, subprocess, sys, threading
    from isobench.plugins import stdout
    stdout.claim()
    print("ours, before")
    stdout.protect()
    print("ours")
    with stdout.to_stderr():
        print("theirs by print")
        sys.stdout.buffer.write(b"theirs by buffer\\n")
    os.write(1, b"theirs by descriptor\\n")
    subprocess.run(["echo", "theirs by a child"], check=True)
    thread = threading.Thread(target=print, args=("theirs by a thread",))
    thread.start()
    thread.join()
    print("ours again")
    stdout.release()
    print("theirs at the end")
"""


@pytest.mark.parametrize("variables", [{}, {"PYTHONUNBUFFERED": "1"}])
def test_standard_output_is_isobenchs_alone(variables: dict[str, str]) -> None:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(SPEAKING)],
        env={**plain, **variables}, cwd=Path(__file__).parents[2],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == "ours, before\nours\nours again\n"
    ways = ("print", "buffer", "descriptor", "a child", "a thread")
    for line in [*(f"theirs by {way}" for way in ways), "theirs at the end"]:
        assert line in done.stderr.splitlines()


def test_a_redirected_standard_output_is_left_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    from isobench.plugins import stdout  # noqa: PLC0415 - beside the test that it is for

    before = sys.stdout
    stdout.claim()
    stdout.protect()
    print("seen")  # noqa: T201 - what it is about
    stdout.release()
    assert sys.stdout is before
    assert capsys.readouterr().out == "seen\n"


# ---- the machine ---------------------------------------------------------------------------------


FULL = OSError(28, "No space left on device", "/cache/runs/x")


class Full(FakeTarget):
    """A target that has no space for its files."""

    def probe(self) -> Unavailable:
        raise FULL

    def open(self, stage: Stage) -> AbstractContextManager[Any]:
        raise FULL

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        raise FULL


@pytest.mark.parametrize("plugin", [False, True])
@pytest.mark.parametrize("workload", [LOOP, COLD])
def test_a_full_disk_is_no_fault_of_a_plug_in(
    runner: Make, workload: WorkloadName, *, plugin: bool
) -> None:
    target: Target = Full(name=TargetName("box"))
    (gap,) = block(made := runner(guard.checked(target, MAKER) if plugin else target),
                   made.targets[TargetName("box")], workload)  # fmt: skip
    assert isinstance(gap, Gap)
    assert gap.detail == "/cache/runs/x: No space left on device"
    assert "XDG_CACHE_HOME" in gap.hint
    assert "plug-in" not in gap.hint


@pytest.mark.parametrize("plugin", [False, True])
def test_a_full_disk_in_a_probe_is_no_fault_of_a_plug_in(*, plugin: bool) -> None:
    name, target = TargetName("box"), Full(name=TargetName("box"))
    answers = guard.probe(
        {name: guard.checked(target, MAKER) if plugin else target}, lambda *_: None
    )
    answer = answers[name]
    assert isinstance(answer, Unavailable)
    assert answer.what == "/cache/runs/x: No space left on device"
    assert "df -h" in answer.hint


@pytest.mark.parametrize(
    ("number", "word"),
    [(errno.EROFS, "writable"), (errno.EDQUOT, "TMPDIR"), (errno.EMFILE, "ulimit -n")],
)
def test_where_no_file_is_named_the_folders_are(number: int, word: str, tmp_path: Path) -> None:
    found = guard.machine_error(OSError(number, "x"))
    assert found is not None
    assert str(paths.cache()) in str(found)
    assert word in found.hint
    assert guard.machine_error(FileNotFoundError(2, "x")) is None


def test_an_interruption_of_probes_removes_what_they_have_started(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    owners: list[bool] = []

    class Sweeps(FakeTarget):
        def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> list[Leftover]:
            owners.append(alive(ownership.mine()))
            return [Leftover(what="container x", failure="it is in use")]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(guard, "probe", interrupted)
    said: list[str] = []
    targets = {TargetName("box"): Sweeps(name=TargetName("box"))}
    with pytest.raises(KeyboardInterrupt):
        selection.probe_targets(targets, lambda *_: None, said.append)
    assert owners
    assert not any(owners)
    assert said[0].startswith("container x is not removed: it is in use")


NO_THREAD = "can't start new thread"


@pytest.mark.parametrize(
    "error", [RuntimeError(NO_THREAD), OSError(errno.EAGAIN, "x")], ids=["a thread", "a process"]
)
def test_a_thread_or_process_that_the_system_refuses_is_said_as_that(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    found = guard.machine_error(error)
    assert found is not None
    assert str(found) == "a new process or thread: Resource temporarily unavailable"
    assert "pids.max" in found.hint
    assert guard.machine_error(RuntimeError("dictionary changed size")) is None

    def refused() -> NoReturn:
        raise error

    assert run_guarded(refused) == found.exit_code
    shown = capsys.readouterr().err
    assert "isobench: a new process or thread" in shown
    assert "Traceback" not in shown


def with_address_space(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(guard, "getrlimit", lambda _: (limit, limit))


@pytest.mark.parametrize("error", [RuntimeError(NO_THREAD), MemoryError()])
def test_a_limit_of_the_address_space_is_named_where_there_is_one(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_address_space(monkeypatch, 500_000 << 10)
    found = guard.machine_error(error)
    assert found is not None
    assert "ulimit -v: 500000 KiB" in found.hint
    with_address_space(monkeypatch, resource.RLIM_INFINITY)
    found = guard.machine_error(error)
    assert found is not None
    assert "ulimit -v" not in found.hint


def _wrapped(text: str) -> ImportError:
    error = ImportError("Unable to import required dependency numpy")
    error.__cause__ = ImportError(text)
    return error


@pytest.mark.parametrize(
    ("error", "message", "hint"),
    [
        (MemoryError(), "not enough memory", "memory.max"),
        (ImportError("x.so: failed to map segment from shared object"), "not enough", "memory"),
        (_wrapped("x.so: failed to map segment from shared object"), "not enough", "memory"),
        (ImportError("x.so: Too many open files"), "a library: Too many open files", "ulimit -n"),
        (OSError(errno.EMFILE, "x", "file"), "file: Too many open files", "ulimit -n"),
        (OSError(errno.ENOMEM, "x"), "a new process or thread: Cannot allocate memory", "free"),
    ],
)
def test_what_the_machine_lacks_is_an_error_without_a_traceback(
    error: Exception, message: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> NoReturn:
        raise error

    assert run_guarded(refused) == 6
    shown = capsys.readouterr().err
    assert f"isobench: {message}" in shown
    assert hint in shown
    assert "Traceback" not in shown


def test_a_bug_of_isobench_has_its_traceback_and_no_exit_code_of_a_regression(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def broken() -> NoReturn:
        raise KeyError("the cause")

    assert run_guarded(broken) == 6
    shown = capsys.readouterr().err
    for part in ("Traceback", "the cause", "in broken", "report it"):
        assert part in shown


@pytest.mark.parametrize("error", [ImportError("x"), OSError(errno.EMFILE, "x"), MemoryError()])
def test_an_error_is_printed_where_rich_cannot_print_it(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_console(**_: object) -> NoReturn:
        raise error

    def refused() -> NoReturn:
        raise UsageError("no such target", hint="isobench targets")

    monkeypatch.setattr(_progress, "console_for", no_console)
    assert run_guarded(refused) == 2
    assert capsys.readouterr().err == "isobench: no such target\n    → isobench targets\n"


@pytest.mark.parametrize("refused", ["deadlines", None], ids=["the watcher", "the call"])
def test_a_probe_without_a_thread_is_an_error_of_the_machine(
    refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = threading.Thread.start

    def begin(self: threading.Thread) -> None:
        if refused is None or self.name == refused:
            raise RuntimeError(NO_THREAD)
        start(self)

    monkeypatch.setattr(deadlines, "_watcher", deadlines._Watcher())
    monkeypatch.setattr(threading.Thread, "start", begin)
    name = TargetName("box")
    targets = {name: FakeTarget(name=name)}
    if refused is None:
        with pytest.raises(RuntimeError, match=NO_THREAD):  # which `run_guarded` says
            guard.probe(targets, lambda *_: None)
        return
    answer = guard.probe(targets, lambda *_: None)[name]
    assert isinstance(answer, Unavailable)
    assert answer.what.startswith("a new process or thread")


INHERITED = """
import os, signal, sys
blocked = [signal.SIGALRM, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD]
signal.pthread_sigmask(signal.SIG_BLOCK, blocked)
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
"""
NEEDS = """
import signal, subprocess
from isobench.cli._errors import handle_termination
handle_termination()
print(subprocess.run(["false"]).returncode, signal.pthread_sigmask(signal.SIG_BLOCK, []))
"""


def test_signals_that_a_parent_has_blocked_or_ignored_work_again() -> None:
    done = subprocess.run(
        [sys.executable, "-c", INHERITED, NEEDS],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == "1 set()\n"


# ---- long texts ----------------------------------------------------------------------------------

LONG = "A" * 3_000_000
SHORT = 10_000


class _LongTexts(FakeTarget):
    """A target with a long text wherever the interface takes one."""

    starts = {"cold": LONG}  # noqa: RUF012 - as plug-ins write it
    lacks = {Need.THREADS: LONG}  # noqa: RUF012 - as above

    def prepare(self, say: Callable[[str], None]) -> None:
        say(LONG)

    def sweep(self, alive: object, *, cached: bool) -> list[Leftover]:
        return [Leftover(what=LONG, failure=LONG)]


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of the texts in which secrets were looked for."""
    lengths: list[int] = []
    search = redaction.text

    def noted(text: str) -> str:
        lengths.append(len(text))
        return search(text)

    monkeypatch.setattr(redaction, "text", noted)
    return lengths


@pytest.mark.parametrize(
    "answer",
    [Available(version=LONG), Unavailable(lack=Lack.TOOL, what=LONG, hint="x\n" * 1_000_000)],
)
def test_long_texts_of_a_probe_are_cut_before_secrets_are_looked_for(
    answer: Available | Unavailable, searched: list[int]
) -> None:
    found = guard._availability(answer)
    texts = [found.version] if isinstance(found, Available) else [found.what, found.hint]
    assert all(len(text) == SHORT and text.endswith("\N{HORIZONTAL ELLIPSIS}") for text in texts)
    assert max(searched) <= 2 * SHORT


def test_a_secret_where_a_long_text_is_cut_is_left_out_whole() -> None:
    secret = "ghp_" + "a1B2" * 9
    for before in (SHORT - 20, 2 * SHORT - 20):
        found = guard._availability(Available(version="v " * (before // 2) + secret + LONG))
        assert isinstance(found, Available)
        assert "a1B2" not in found.version


@pytest.mark.parametrize("kind", [SessionError, NotApplicableError, UsageError, ValueError])
def test_long_texts_of_errors_are_cut(kind: type[Exception], searched: list[int]) -> None:
    error = kind(LONG) if kind is ValueError else kind(LONG, hint=LONG)  # type: ignore[call-arg]
    target = guard.checked(FakeTarget(name=TargetName("box")), MAKER)
    assert isinstance(target, guard.CheckedTarget)
    with pytest.raises((SessionError, NotApplicableError)) as caught, target.calling("open", 60):
        raise error
    assert len(str(caught.value)) <= SHORT
    assert len(caught.value.hint) <= SHORT
    assert max(searched, default=0) <= 1 << 17  # that of a traceback


def test_long_texts_of_a_targets_attributes_and_other_calls_are_cut(searched: list[int]) -> None:
    target: Any = guard.checked(_LongTexts(name=TargetName("box")), MAKER)
    said: list[str] = []
    target.prepare(said.append)
    (left,) = target.sweep(lambda _: True, cached=False)
    found = [*target.starts.values(), *target.lacks.values(), *said, left.what, left.failure]
    assert [len(text) for text in found] == [SHORT] * 5
    assert max(searched) <= 2 * SHORT


def test_more_items_than_anybody_needs_are_a_fault() -> None:
    with pytest.raises(ValueError, match="more than 1000"):
        guard._leftovers([Leftover(what="x")] * 1001)


# ---- what the process shares ---------------------------------------------------------------------


class Wanders(FakeTarget):
    """A target that changes the working folder and the umask, wherever it is called."""

    def probe(self) -> Available:
        _wander()
        return Available(version="1")

    def prepare(self, say: Callable[[str], None]) -> None:
        _wander()
        raise SessionError("no")


def _wander() -> None:
    os.chdir("/")
    os.umask(0)


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(surroundings, "_blamed", set())
    surroundings.take_unreported()
    before = os.umask(0o027)
    yield
    left = os.umask(before)
    assert (Path.cwd(), left) == (tmp_path, 0o027)


def test_the_working_folder_and_the_umask_outlast_probes_and_their_plug_in_is_named(
    shared: None,
) -> None:
    target = guard.checked(Wanders(name=TargetName("box")), MAKER)
    assert guard.probe({target.name: target}, lambda *_: None) == {"box": Available(version="1")}
    found = surroundings.take_unreported()
    assert [str(fault) for fault in found] == [
        f"probe changed {what} of isobench; it was changed back"
        for what in ("the umask", "the working folder")
    ]
    assert {fault.hint for fault in found} == {MAKER.blame}


@pytest.mark.parametrize("place", ["loading", "calling", "a target's call", "a visit"])
def test_the_working_folder_and_the_umask_outlast_every_call(place: str, shared: None) -> None:
    target: Any = guard.checked(Wanders(name=TargetName("box")), MAKER)
    surround: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "loading": lambda: MAKER.loading("loading it"),
        "calling": lambda: MAKER.calling("its text", 60),
        "a visit": lambda: guard.guard_visit(target, 60),
    }
    if place in surround:
        with surround[place]():
            _wander()
    else:
        with pytest.raises(SessionError, match="no"):
            target.prepare(lambda _: None)
    assert len(surroundings.take_unreported()) == 2


def set_alarm() -> None:
    """Use the timer as many programs do, and put the handler back."""
    before = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.alarm(5)
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def ignore_interruptions() -> None:
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)


def replace_streams() -> None:
    sys.stdout = sys.stderr = io.StringIO()


def end_early() -> None:
    """Leave a timer behind that ends isobench."""
    signal.setitimer(signal.ITIMER_REAL, 3000)


def lose_children() -> None:
    """Let the kernel forget how children end, as a server does."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)


def freeze_time() -> None:
    """Stop the clocks, as packages for tests do."""
    time.time = time.monotonic = lambda: 1e9
    time.sleep = lambda _: None
    dt.datetime = type("Frozen", (dt.datetime,), {})  # type: ignore[misc]


def limit_memory() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (1 << 40, resource.getrlimit(resource.RLIMIT_AS)[1]))


def guard_cpu_time() -> None:
    """Leave a guard of CPU time behind."""
    signal.signal(signal.SIGPROF, lambda *_: None)
    signal.setitimer(signal.ITIMER_PROF, 3000)


def become_nobody() -> None:
    os.seteuid(65534)


def stay_on_one_cpu() -> None:
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def replace_environment() -> None:
    os.environ = {"PATH": "/nowhere"}  # type: ignore[assignment] # noqa: B003 - the mistake


ALONE = """
import os, resource, signal, sys
from isobench.plugins import surroundings

if os.geteuid() == 0:
    os.setuid(65534)
before = os.getpgrp()
with surroundings.kept("mine", "open"):
    exec(sys.argv[1])
(fault,) = surroundings.take_unreported()
print(os.getpgrp() == before, fault, sep="|")
"""


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("os.setpgrp()", "open changed the process group of isobench; it was changed back"),
        (
            "resource.setrlimit(resource.RLIMIT_NOFILE, (99, 99))",
            "open changed the limits of resources of isobench; this cannot be changed back",
        ),
    ],
)
def test_what_a_plug_in_changes_of_a_process_is_named_with_what_became_of_it(
    change: str, found: str
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ALONE, change], capture_output=True, text=True, check=True
    )
    assert done.stdout == f"True|{found}\n"


def state() -> tuple[Any, ...]:
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE)
    return (
        (os.getpgrp(), os.geteuid(), signal.getitimer(signal.ITIMER_PROF)),
        [signal.getsignal(each) for each in signals],
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        (sys.stdout, sys.stderr, sys.getrecursionlimit()),
        (time.time, time.monotonic, time.sleep, dt.datetime),
        [resource.getrlimit(each) for each in (resource.RLIMIT_FSIZE, resource.RLIMIT_AS)],
        (os.environ, dict(os.environ), os.getenv("PATH")),
        os.sched_getaffinity(0),
        socket.getdefaulttimeout(),
        (np.geterr(), [*warnings.filters]),
    )


AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can change it back")


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (ignore_interruptions, "handlers of signals"),
        (replace_streams, "the standard streams"),
        (lambda: sys.setrecursionlimit(3000), "the recursion limit"),
        (set_alarm, "the timer"),
        (end_early, "the timer"),
        (lose_children, "handlers of signals"),
        (lambda: signal.signal(signal.SIGPIPE, signal.SIG_DFL), "handlers of signals"),
        (
            lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM}),
            "the blocked signals",
        ),
        (freeze_time, "the clocks"),
        (limit_memory, "the limits of resources"),
        pytest.param(become_nobody, "the user", marks=AS_ROOT),
        (lambda: signal.setitimer(signal.ITIMER_PROF, 3000), "the timers of CPU time"),
        (os.environ.clear, "the environment variables"),
        (lambda: os.environ.update(PATH="/nowhere", NEW="1"), "the environment variables"),
        (replace_environment, "the environment variables"),
        pytest.param(
            stay_on_one_cpu,
            "the CPUs",
            marks=pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is one CPU"),
        ),
        (lambda: socket.setdefaulttimeout(0.001), "the time limit of sockets"),
        (lambda: warnings.filterwarnings("error", message="old"), "the fatal warnings"),
        (lambda: np.seterr(all="raise"), "the fatal warnings"),
    ],
)
@pytest.mark.parametrize("left", [50.0, 0.0])
def test_what_the_process_shares_outlasts_every_call(
    change: Callable[[], None], what: str, left: float, shared: None
) -> None:
    before = state()
    signal.setitimer(signal.ITIMER_REAL, left)
    try:
        with MAKER.calling("its text", 60):
            change()
        remaining, _ = signal.getitimer(signal.ITIMER_REAL)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert state() == before
    assert (remaining > 0) is (left > 0)
    assert remaining <= left
    found = {str(fault) for fault in surroundings.take_unreported()}
    assert found == {f"its text changed {what} of isobench; it was changed back"}


class _EndlessError(Exception):
    def __str__(self) -> str:
        threading.Event().wait()
        return "never"


def test_an_exception_whose_text_does_not_end_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "_DESCRIBING_LIMIT", 0.2)
    with pytest.raises(PluginError, match="its text: _EndlessError"), MAKER.calling("its text", 60):
        raise _EndlessError


def test_an_interruption_ends_an_exception_whose_text_does_not_end() -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        with pytest.raises(KeyboardInterrupt), MAKER.calling("its text", 60):
            raise _EndlessError
    finally:
        timer.cancel()


def test_a_working_folder_that_was_removed_ends_nothing(tmp_path: Path, shared: None) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    with MAKER.calling("its text", 60):
        pass
    os.chdir(tmp_path)
    assert not surroundings.take_unreported()


def test_a_wait_for_a_call_is_interrupted_as_often_as_signals_come() -> None:
    """A wait of `threading.Event` raised RuntimeError at the second one, once in some tries."""

    def interrupt(_signal: int, frame: types.FrameType | None) -> None:
        # Signals are sent all the time. One outside the wait would interrupt the test itself.
        while frame is not None:
            if frame.f_code is deadlines.Call.join.__code__:
                raise KeyboardInterrupt
            frame = frame.f_back

    before = signal.signal(signal.SIGUSR1, interrupt)
    going = threading.Event()
    call = deadlines.Call(lambda: going.wait(60), 60)
    over = threading.Event()

    def shower() -> None:
        while not over.wait(0.0005):
            os.kill(os.getpid(), signal.SIGUSR1)

    sender = threading.Thread(target=shower)
    errors: set[type[BaseException]] = set()
    try:
        sender.start()
        until = time.monotonic() + 1
        while time.monotonic() < until:
            try:
                call.join(until)
            except BaseException as error:  # noqa: BLE001 - whatever it is
                errors.add(type(error))
    finally:
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        over.set()
        sender.join()
        going.set()
        signal.signal(signal.SIGUSR1, before)
    assert errors == {KeyboardInterrupt}


def test_a_call_whose_wait_was_interrupted_has_not_ended() -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    going = threading.Event()
    call = deadlines.Call(lambda: going.wait(60), 60)
    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            call.join(time.monotonic() + 60)
        assert not call.has_ended
        going.set()
        call.join(time.monotonic() + 60)
        assert call.has_ended
        assert call.result is True
    finally:
        going.set()
        timer.cancel()
        signal.signal(signal.SIGUSR1, before)
