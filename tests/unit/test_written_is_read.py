"""What a payload, an option or a configuration may put into a run can be read again."""

import json
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from isobench.config import parameters
from isobench.config.options import QUICK, RunOptions
from isobench.evidence import host
from isobench.model import Clock, Evidence, Gap, Sample, Scope, Visit, bounds
from isobench.model.cleaning import LONGEST
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, Unit, WorkloadName, parse_duration
from isobench.payload import wire
from isobench.plugins import guard
from isobench.plugins.registry import Registry
from isobench.run import measure, pilot
from isobench.storage import reader, records, writer
from isobench.storage.schema import RunMetadata, TargetEntry, VariationEntry
from tests.unit.test_wire import read, reply

BOX, SIEVE = TargetName("box"), WorkloadName("cpu.sieve")
VISIT = Visit(block=1, target=BOX, workload=SIEVE)


def fact(key: str, value: object) -> dict[str, object]:
    return {"fact": key, "value": value, "source": "s"}


# ---- payloads ------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [bounds.LARGEST, -bounds.LARGEST])
def test_the_largest_numbers_of_a_payload_are_read_again(value: int, tmp_path: Path) -> None:
    (found,) = read(reply(fact("x", value))).facts
    sample = {"kind": "sample", "block": 1, "target": "box", "workload": "cpu.sieve", "unit": "ns"}
    line = {**sample, "metric": "fact.x", "clock": "guest", "value": found.value}
    line |= {"iteration": 0, "operations": 1, "at": 0.0, "session": 0}
    again = records.read(json.dumps(line).encode() + b"\n")
    assert [*again.samples["value"]] == [value]
    assert not again.damage.reasons


@pytest.mark.parametrize("value", [bounds.LARGEST + 1, -bounds.LARGEST - 1, -(1 << 62)])
def test_a_larger_number_of_a_payload_is_refused_at_once(value: int) -> None:
    with pytest.raises(wire.WireError, match="is not a line of the protocol"):
        read(reply(fact("x", value)))


def test_a_clock_inside_may_show_as_much_time_as_records_hold() -> None:
    most = bounds.MOST_NANOSECONDS
    assert read(reply(clock_ns=100 + most)).span == most
    with pytest.raises(wire.WireError, match="the clock inside shows"):
        read(reply(clock_ns=101 + most))


def test_the_facts_of_a_reply_have_room_for_the_evidence_and_no_more() -> None:
    long = [fact(f"key.{number}", "x" * 4000) for number in range(100)]
    found = read(reply(*long)).facts
    assert 10 <= len(found) <= bounds.MOST_FACT_TEXT // 4000


def seen(*visits: list[Evidence]) -> dict[str, Evidence]:
    """Return what a run keeps of the facts of its visits."""
    runner: Any = SimpleNamespace(seen={})
    context: Any = SimpleNamespace(visit=VISIT, cpus="")
    for facts in visits:
        measure.Runner._note_facts(runner, context, facts)
    found: dict[str, Evidence] = runner.seen.get((BOX, SIEVE), {})
    return found


def test_new_facts_in_every_visit_do_not_fill_the_state_of_a_target() -> None:
    made = [
        [Evidence(key=f"{visit}-{number}", value="x", source="s") for number in range(50)]
        for visit in range(20)
    ]
    assert len(seen(*made)) == bounds.MOST_FACTS_SEEN
    long = [[Evidence(key=f"{visit}", value="x" * 4000, source="s")] for visit in range(60)]
    assert sum(len(str(one.value)) for one in seen(*long).values()) <= bounds.MOST_FACT_TEXT


def test_the_latest_value_of_a_fact_counts() -> None:
    made = [[Evidence(key="own.text", value=value, source="s")] for value in ("a", "b")]
    assert seen(*made)["own.text"].value == "b"
    assert not seen([])


def test_a_time_that_a_target_reports_in_the_trial_is_no_longer_than_the_host_saw() -> None:
    recorded = Sample(
        block=0, target=BOX, workload=SIEVE, metric="time", iteration=0, value=10**15,
        unit=Unit.NANOSECOND, operations=1, clock=Clock.GUEST, at=0.0,
    )  # fmt: skip
    workload = SimpleNamespace(scope=Scope.LOOP, answer=None)
    runner: Any = SimpleNamespace(
        workloads={SIEVE: workload},
        visit_in=lambda *_: [recorded],
        sink=SimpleNamespace(write=lambda _: None, sync=lambda: None),
    )
    made = pilot.Pilot()
    pilot._try(runner, VISIT, SimpleNamespace(session=None), made)  # type: ignore[arg-type]
    assert made.unit[BOX, SIEVE] < 10


def _of(visit: Visit) -> dict[str, object]:
    return {"block": visit.block, "target": visit.target, "workload": visit.workload}


@pytest.mark.parametrize(
    "facts",
    [
        [Evidence(key="host.x", value=1 << 70, source="s")],
        [Evidence(key=f"host.{number}", value=1, source="s") for number in range(501)],
        [Evidence(key=f"host.{number}", value="x" * 1000, source="s") for number in range(100)],
    ],
    ids=["number", "facts", "texts"],
)
def test_what_a_plugin_has_seen_of_its_session_has_the_same_bounds(facts: list[Evidence]) -> None:
    with pytest.raises(ValueError, match=r"more than (62 bits|500 facts)"):
        guard._evidence(facts)


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("margin", 0), ("margin", float("nan")), ("margin", -0.05), ("margin", 10.0),
        ("margin", 1e-9), ("margin", 1e-10), ("margin", "5%"), ("budget", 0), ("budget", -5),
        ("budget", float("nan")), ("budget", float("inf")), ("seed", 1 << 63), ("seed", -1),
        ("seed", "x"), ("seed", 1.5), ("maximum_blocks", 1001), ("iterations", 0),
        ("minimum_time", float("inf")), ("budget", None),
    ],
)  # fmt: skip
def test_an_option_that_makes_no_sense_is_refused(name: str, value: object) -> None:
    with pytest.raises(UsageError, match=rf"^{name} is a (whole )?number from"):
        RunOptions(**{name: value})  # type: ignore[arg-type]


def test_an_iteration_that_is_longer_than_the_run_is_refused() -> None:
    with pytest.raises(UsageError, match="longer than the whole run"):
        RunOptions(minimum_time=300.0, budget=10.0)


def test_the_bounds_of_options_are_those_of_the_file() -> None:
    for options in (
        RunOptions(seed=bounds.LARGEST_SEED, margin=9.99),
        RunOptions(seed=0, margin=2 * bounds.LEAST_SHARE, **QUICK),
    ):
        made = RunMetadata(
            schema_version=1, reference=TargetName("native"), seed=options.seed,
            margin=options.margin, budget_seconds=options.budget, host=host.describe(Path()),
        )  # fmt: skip
        assert reader.as_read_again(made).seed == options.seed


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (parameters.SEED, "9223372036854775808"),
        (parameters.Share(), "1e-10"),
        (parameters.Duration(), "9" * 300),
        (parameters.Cpus(), "9" * 5000),
        (parameters.Cpus(), "70000"),
        (parameters.Cpus(), "0-999999999999"),
    ],
)
def test_a_number_of_the_command_line_has_the_same_bounds(
    kind: click.ParamType[Any], text: str
) -> None:
    with pytest.raises(click.BadParameter):
        kind.convert(text, None, None)


def test_a_duration_of_more_than_three_years_is_none() -> None:
    assert parse_duration("27000h") == 27_000 * 3600
    with pytest.raises(ValueError, match="is too long"):
        parse_duration("28000h")


def test_a_variation_has_a_name_of_its_own_that_records_can_have() -> None:
    taken = {"landlock-network-true": {"kind": "landlock", "seccomp": False}}
    with pytest.raises(UsageError, match="is the name of another target"):
        Registry(taken).vary("landlock.network=true")
    with pytest.raises(UsageError, match="would be too long"):
        Registry().vary(f"docker.network={'a' * 300}")
    with pytest.raises(UsageError, match="is not a valid name of a target"):
        Registry({"a" * 201: {"kind": "landlock"}})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"seed": 1 << 63}, "seed"),
        ({"variations": 2 * (VariationEntry(name=BOX, base="native", option="o", value="1"),)},
         '"box" occurs 2 times'),
        ({"targets": tuple(TargetEntry(name=f"t{n}", technology="native") for n in range(10_001))},
         "cells"),
        ({"argv": ("x" * 3000,)}, "longer than 2 KiB"),
    ],
)  # fmt: skip
def test_what_could_not_be_read_again_is_refused_before_it_is_measured(
    change: dict[str, Any], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "argv" in change:
        monkeypatch.setattr(reader, "MOST_DOCUMENT", 2 << 10)
    made = RunMetadata(**{"schema_version": 1, "reference": "native", **change})
    with pytest.raises(UsageError, match=f"this run could not be read again: .*{why}"):
        reader.as_read_again(made)


# ---- files ---------------------------------------------------------------------------------------


def test_a_document_is_never_longer_than_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_DOCUMENT", 20_000)
    with closing(writer.RunFolder(tmp_path / "run")) as folder:
        folder.document("state/docker-pre.json", {"version": "x" * 30_000})
        written = (tmp_path / "run" / "state" / "docker-pre.json").read_text()
        assert len(json.loads(written)["version"]) == LONGEST
        with pytest.raises(UsageError, match="the most that is read"):
            folder.document("state/docker-pre.json", {"facts": ["x" * 9_000] * 3})


def test_gaps_of_many_texts_stay_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MOST_TEXT", 1000)
    gap = {"kind": "gap", **_of(VISIT), "cause": "failed", "hint": ""}
    made = [json.dumps({**gap, "detail": f"{n}{'x' * 300}"}).encode() + b"\n" for n in range(5)]
    found = records.read(b"".join(made))
    assert [one.detail[0] for one in found.gaps] == ["0", "1", "2", "n", "n"]
    assert {(one.target, one.workload) for one in found.gaps} == {(BOX, SIEVE)}
    assert isinstance(found.gaps[0], Gap)


def test_only_the_reference_has_labels_beside_other_targets() -> None:
    known = records.Known(targets={"native", "a", "b"}, workloads={"cpu.sieve"})
    assert all(map(known.knows, ("native", "a", "native#2", "native#a", "native#b")))
    assert not any(map(known.knows, ("a#b", "a#2", "native#c", "c", "native#", "c#2")))
