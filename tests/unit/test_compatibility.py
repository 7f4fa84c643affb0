"""What differs between runs is told, and what may not differ is refused."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from isobench.comparison import compatibility
from isobench.comparison.compatibility import Gravity
from isobench.model import Schedule
from isobench.model.units import TargetName, WorkloadName
from isobench.storage import reader

Write = Callable[..., Path]
HOST = {"cpu": "none", "microcode": "0x2a", "cpus": 4, "kernel": "6.1", "filesystem": "ext4"}
SIEVE = WorkloadName("cpu.sieve")
NATIVE, BOX = TargetName("native"), TargetName("box")


@pytest.fixture
def run(synthetic: Write) -> Callable[..., reader.Run]:
    """Return a function that makes a run with other facts."""
    count = 0

    def make(**options: Any) -> reader.Run:
        nonlocal count
        count += 1
        return reader.load(synthetic(name=f"run{count}", blocks=3, **options))

    return make


Make = Callable[..., reader.Run]


def about(**facts: Any) -> Mapping[str, Any]:
    return {"about": {"host": HOST | facts}}


def found(base: reader.Run, head: reader.Run) -> dict[str, Gravity]:
    return {one.what: one.gravity for one in compatibility.differences([base], [head])}


def state(**keys: Any) -> Mapping[str, Any]:
    facts = [
        {"key": key.replace("__", "."), "value": value, "source": "a test"}
        for key, value in keys.pop("facts", {}).items()
    ]
    return {"states": {"box": {"name": "box", "facts": facts, **keys}}}


def payload(program: str, sha: str, abi: str = "x86_64-linux") -> dict[str, Any]:
    return {"program": program, "abi": abi, "sha256": sha, "compiler": "zig cc 0", "flags": []}


def test_runs_of_one_machine_do_not_differ(run: Make) -> None:
    assert compatibility.differences([run()], [run()]) == ()


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        ({"cpu": "another"}, "cpu"),
        ({"cpus": 8}, "cpus"),
    ],
)
def test_another_machine_has_only_its_ratios_compared(
    facts: Mapping[str, Any], what: str, run: Make
) -> None:
    assert found(run(**about()), run(**about(**facts))) == {what: Gravity.MACHINE}


def test_another_processor_is_refused(run: Make) -> None:
    one, other = run(**about(machine="x86_64")), run(**about(machine="riscv64"))
    assert found(one, other) == {"machine": Gravity.REFUSED}


@pytest.mark.parametrize("name", ["kernel", "kernel_version", "microcode", "os"])
def test_what_changes_on_a_machine_is_only_reported(name: str, run: Make) -> None:
    before, after = run(**about(**{name: "1"})), run(**about(**{name: "2"}))
    assert found(before, after) == {name.replace("_", " "): Gravity.WARNED}


def test_another_mitigation_is_only_reported_and_only_named(run: Make) -> None:
    base = run(**about(**{"mitigation.spectre_v2": "Retpolines"}))
    head = run(**about(**{"mitigation.spectre_v2": "off"}))
    (one,) = compatibility.differences([base], [head])
    assert one.gravity is Gravity.WARNED
    assert list(compatibility.descriptions([one])) == ["mitigations: spectre v2"]


def test_the_frequency_and_the_load_of_the_moment_make_no_machine(run: Make) -> None:
    assert found(run(**about(load=0.1)), run(**about(load=3.0))) == {}


@pytest.mark.parametrize("key", ["frequency_governor", "clock_source", "filesystem", "turbo"])
def test_conditions_are_warned_of(key: str, run: Make) -> None:
    base, head = run(**about(**{key: "one"})), run(**about(**{key: "two"}))
    assert found(base, head) == {key.replace("_", " "): Gravity.WARNED}


def test_visits_at_the_same_time_and_one_at_a_time_are_warned_of(run: Make) -> None:
    assert found(run(), run(schedule=Schedule.DUET)) == {"schedule": Gravity.WARNED}


def test_another_way_of_starting_programs_is_warned_of(run: Make) -> None:
    """Runs of versions that do not say started them by subprocess."""
    vfork, plain = run(about={"spawner": "vfork"}), run(about={"spawner": "subprocess"})
    assert found(run(), vfork) == found(plain, vfork) == {"spawner": Gravity.WARNED}
    assert found(run(), plain) == {}


def test_what_a_run_does_not_know_is_no_difference(run: Make) -> None:
    assert found(run(), run(**about(turbo="on"))) == {}


def test_another_version_of_a_target_is_listed(run: Make) -> None:
    base, head = run(**state(version="Box 1")), run(**state(version="Box 2"))
    (one,) = compatibility.differences([base], [head])
    assert (one.what, one.where, one.gravity) == ("version", "box", Gravity.LISTED)
    assert list(compatibility.descriptions([one])) == ["box: version: Box 1 -> Box 2"]


def test_what_sessions_see_otherwise_is_warned_of(run: Make) -> None:
    base = run(**state(facts={"security__seccomp": "2", "cpu__usable": 2}))
    head = run(**state(facts={"security__seccomp": "0", "cpu__usable": 4}))
    seen = {(o.what, o.base, o.head) for o in compatibility.differences([base], [head])}
    assert seen == {("seccomp", "filter", "off"), ("usable CPUs", "2", "4")}


def test_what_reading_the_clock_costs_under_load_is_no_difference(run: Make) -> None:
    base, head = (run(**state(facts={"clock__cost_ns": cost})) for cost in (200, 8000))
    assert found(base, head) == {}


def test_runs_of_one_side_that_differ_are_reported_too(run: Make) -> None:
    base = [run(), run(**about(kernel="6.2"))]
    (one,) = compatibility.differences(base, [run()])
    assert (one.base, one.head) == ("6.1 and 6.2", "6.1")


def test_what_all_targets_share_is_reported_once(run: Make) -> None:
    facts = [{"key": "kernel.release", "value": "6.2", "source": "a test"}]
    earlier = [{"key": "kernel.release", "value": "6.1", "source": "a test"}]
    base, head = (
        {name: {"facts": seen} for name in ("native", "box")} for seen in (earlier, facts)
    )
    differences = compatibility.differences(
        [run(states=base)], [run(states=head, **about(kernel="6.2"))]
    )
    assert [one.where for one in differences] == ["machine"]


def test_isobenchs_own_programs_are_reported_one_by_one(run: Make) -> None:
    base = run(about={"payloads": [payload("_agent", "a" * 64), payload("_startup", "b" * 64)]})
    head = run(about={"payloads": [payload("_agent", "c" * 64), payload("_startup", "d" * 64)]})
    assert found(base, head) == {"isobench's own _agent": Gravity.WARNED}


# ---- programs and work


def test_another_program_of_a_workload_is_reported(run: Make) -> None:
    base = run(about={"payloads": [payload("cpu.sieve", "a" * 64)]})
    head = run(about={"payloads": [payload("cpu.sieve", "b" * 64)]})
    assert "not every run has the same program" in compatibility.other_program(
        [base, head], SIEVE, [NATIVE, BOX]
    )
    assert compatibility.other_program([base, base], SIEVE, [NATIVE, BOX]) == ""


def test_a_program_of_another_abi_is_looked_at_where_it_runs(run: Make) -> None:
    def made(foreign: str) -> reader.Run:
        items = [payload("cpu.sieve", "a" * 64), payload("cpu.sieve", foreign, "aarch64-linux")]
        states = {"box": {"abi": "aarch64-linux"}, "native": {"abi": "x86_64-linux"}}
        return run(about={"payloads": items}, states=states)

    runs = [made("b" * 64), made("c" * 64)]
    assert "in box" in compatibility.other_program(runs, SIEVE, [NATIVE, BOX])
    assert compatibility.other_program(runs, SIEVE, [NATIVE]) == ""


def test_starts_execute_a_program_that_is_not_named_like_them(run: Make) -> None:
    cold = WorkloadName("startup.cold")
    runs = [
        run(ratios={("box", cold): 2.0}, about={"payloads": [payload("_startup", sha * 64)]})
        for sha in "ab"
    ]
    assert compatibility.other_program(runs, cold, [NATIVE])


def test_unknown_programs_are_no_difference(run: Make) -> None:
    assert compatibility.other_program([run(), run()], SIEVE, [NATIVE, BOX]) == ""
