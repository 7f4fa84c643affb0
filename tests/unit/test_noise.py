"""What native against native tells of a machine."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis.verdict import duration_text
from isobench.comparison import noise
from isobench.model import BlockHealth
from isobench.model.errors import UsageError
from isobench.report import noise as view
from isobench.report import sheet
from isobench.storage import run_folder

Write = Callable[..., Path]
SIEVE, FSYNC = ("box", "cpu.sieve"), ("box", "io.fsync")


def resolved(path: Path, **options: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(
        json.dumps(noise.resolve(run_folder.load(path), **options), allow_nan=False)
    )
    return made


def row(made: dict[str, Any], workload: str = "cpu.sieve") -> dict[str, Any]:
    (found,) = (one for one in made["workloads"] if one["workload"] == workload)
    return dict(found)


def test_a_quiet_machine_resolves_little_in_few_blocks(synthetic: Write) -> None:
    found = row(resolved(synthetic(noise=0.003, blocks=20)))
    assert not found["exceeds"]
    # Native over native differs by the noise of both: 0.42 %, and trimming costs a little.
    assert found["spread"] == pytest.approx(0.003 * 2**0.5, rel=0.4)
    effects = [found["smallest_effect"][n] for n in ("10", "20", "60")]
    assert effects == sorted(effects, reverse=True)
    assert effects[0] < 0.01
    assert found["precision"]["blocks"] == found["verdict"]["blocks"] == 10
    assert found["outlying_rate"] <= 0.2


def test_a_noisy_machine_needs_many_blocks_and_says_so(synthetic: Write) -> None:
    made = resolved(synthetic(noise=0.1, blocks=12))
    found = row(made)
    assert found["exceeds"]
    assert found["precision"]["blocks"] > found["verdict"]["blocks"] > 60
    assert "cannot tell less than" in made["headline"]
    assert "The noise floor of 1 of 1 workloads is above 5 %" in made["headline"]


def test_a_target_of_the_run_has_no_part_in_it(synthetic: Write) -> None:
    alone = resolved(synthetic({SIEVE: 1.0}, name="one"))
    slow = resolved(synthetic({SIEVE: 30.0}, name="two"))
    assert row(alone)["noise"] == pytest.approx(row(slow)["noise"])


def test_a_finer_precision_takes_more_blocks(synthetic: Write) -> None:
    path = synthetic(noise=0.02)
    rough, fine = (row(resolved(path, precision=p)) for p in (0.05, 0.01))
    assert fine["precision"]["blocks"] > rough["precision"]["blocks"]
    assert fine["verdict"] == rough["verdict"]


def test_time_is_of_three_visits_from_end_to_end(synthetic: Write) -> None:
    path = synthetic({SIEVE: 1.0, FSYNC: 1.0})
    run = run_folder.load(path)
    # Every visit takes two seconds and ends with its last iteration.
    frame = run.samples
    frame["at"] = 2.0 * frame.groupby(["block", "target", "workload"], sort=False).ngroup()
    found = noise.resolve(dataclasses.replace(run, samples=frame))
    seconds = [one["seconds_a_block"] for one in found["workloads"]]
    assert seconds == [6.0, 6.0]
    assert found["workloads"][0]["precision"]["seconds"] == 60.0


def test_where_visits_take_no_time_none_is_expectationd(synthetic: Write) -> None:
    made = resolved(synthetic())
    assert row(made)["seconds_a_block"] is None
    assert row(made)["precision"] == {"blocks": 10, "seconds": None}


def test_drift_is_told(synthetic: Write) -> None:
    found = row(resolved(synthetic(drift=3.0, blocks=30)))
    assert found["drift"]["notable"]
    assert found["drift"]["change"] > 1


def test_broken_rules_and_steal_are_counted(synthetic: Write) -> None:
    made = resolved(synthetic(blocks=12, invalid=frozenset({2, 5})))
    health = made["health"]
    assert (health["blocks"], health["invalid"], health["broken"]) == (12, 2, {"steal": 2})
    assert health["steal_percent"] == {"median": 0.0, "worst": 20.0}
    (steal,) = (one for one in made["host"] if one["fact"] == "steal")
    assert "hypervisor" in steal["note"]


@pytest.mark.parametrize(
    ("facts", "fact", "word"),
    [
        ({"frequency_governor": "powersave"}, "frequency governor", "cpupower"),
        ({"turbo": "on"}, "turbo", "heat"),
        ({"smt": "on"}, "SMT", "core"),
        ({"clock_source": "hpet"}, "clock source", "clock"),
        ({"cpu_limit": 1.5}, "CPU limit of the cgroup", "scheduler"),
        ({"load": 3.0, "cpus": 4}, "load before", "running"),
        ({"virtualization": "guest of a hypervisor"}, "virtualization", "neighbours"),
    ],
)
def test_what_harms_has_a_note(
    facts: dict[str, Any], fact: str, word: str, synthetic: Write
) -> None:
    made = resolved(synthetic(about={"host": facts}))
    notes = {one["fact"]: one["note"] for one in made["host"]}
    assert word in notes[fact]


def test_a_steady_host_has_no_notes(synthetic: Write) -> None:
    facts = {
        "frequency_governor": "performance", "turbo": "off", "smt": "off", "clock_source": "tsc",
        "load": 0.1, "cpus": 4, "virtualization": "Maker Board",
    }  # fmt: skip
    made = resolved(synthetic(about={"host": facts}))
    assert [one["note"] for one in made["host"] if one["note"]] == []


def test_pressure_is_of_all_blocks_that_have_it() -> None:
    blocks = [
        BlockHealth(
            block=number, seconds=1.0, steal_percent=None, pressure_percent=pressure,
            swapped_in_pages=0, throttled=None, clock_source="tsc",
        )
        for number, pressure in enumerate((1.0, None, 3.0))
    ]  # fmt: skip
    assert noise._spanned(blocks, "pressure_percent") == {"median": 2.0, "worst": 3.0}
    assert noise._spanned(blocks, "steal_percent") is None


@pytest.mark.parametrize(
    "options",
    [
        {"blocks": 2},
        {"missing": {("native#2", "cpu.sieve"): frozenset(range(16))}},
    ],
)
def test_a_run_that_cannot_tell_is_refused(options: dict[str, Any], synthetic: Write) -> None:
    path = synthetic(**options)
    with pytest.raises(UsageError, match="does not tell how noisy") as caught:
        resolved(path)
    assert caught.value.hint == "isobench noise"


def test_the_headline_names_classes_and_what_stays_unseen(synthetic: Write) -> None:
    made = resolved(synthetic({SIEVE: 1.0, FSYNC: 1.0}, noise=0.003))
    said = made["headline"]
    assert said.startswith("With 20 blocks and one target this machine resolves about ")
    assert "in CPU work" in said
    assert "in I/O" in said
    assert said.endswith("From 15 blocks of native against native.")
    few = resolved(synthetic(blocks=3, name="few"))["headline"]
    assert "a first look" in few


def test_the_sheet_and_csv_hold_every_workload(synthetic: Write) -> None:
    made = resolved(synthetic({SIEVE: 1.0, FSYNC: 1.0}, invalid=frozenset({3})))
    seen = view.build(made)
    assert [one.cells[0] for one in seen.rows] == ["cpu.sieve", "io.fsync"]
    assert all(len(one.cells) == len(seen.headings) for one in seen.rows)
    assert "steal: 1 of 15" in " ".join(line for lines in seen.remarks.values() for line in lines)
    assert len(view.csv(made).splitlines()) == 3
    assert "cpu.sieve" in sheet.markdown(seen)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (40.4, "40 s"), (200, "3.3 min"), (5400, "1.5 h")]
)
def test_durations_are_said_as_people_do(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text
