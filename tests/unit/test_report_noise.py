"""How noisy a machine is, in words."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.comparison.noise import MachineNoise, machine_noise
from isobench.report import noise as view
from isobench.report import sheet
from isobench.storage import reader

Write = Callable[..., Path]
SIEVE, FSYNC = ("box", "cpu.sieve"), ("box", "io.fsync")


def resolved(path: Path) -> MachineNoise:
    return machine_noise(reader.load(path))


def document(made: MachineNoise) -> dict[str, Any]:
    """Return the document as a script reads it."""
    found: dict[str, Any] = json.loads(json.dumps(view.document(made), allow_nan=False))
    return found


@pytest.mark.parametrize(
    ("facts", "fact", "word"),
    [
        ({"frequency_governor": "powersave"}, "frequency governor", "cpupower"),
        ({"turbo": "on"}, "turbo", "heat"),
        ({"smt": "on"}, "SMT", "core"),
        ({"clock_source": "hpet"}, "clock source", "clock"),
        ({"cpu_limit": 1.5}, "CPU limit of the cgroup", "scheduler"),
        ({"load": 3.0, "cpus": 4}, "load before", "running"),
        ({"virtualization": "guest of a hypervisor"}, "virtualization", "other guests"),
    ],
)
def test_a_harmful_property_has_a_note(
    facts: dict[str, Any], fact: str, word: str, synthetic: Write
) -> None:
    made = resolved(synthetic(about={"host": facts}))
    notes = {one["fact"]: one["note"] for one in document(made)["host"]}
    assert word in notes[fact]


def test_a_steady_host_has_no_notes(synthetic: Write) -> None:
    facts = {
        "frequency_governor": "performance", "turbo": "off", "smt": "off", "clock_source": "tsc",
        "load": 0.1, "cpus": 4, "virtualization": "Maker Board",
    }  # fmt: skip
    made = resolved(synthetic(about={"host": facts}))
    assert [one["note"] for one in document(made)["host"] if one["note"]] == []


def test_the_headline_names_classes_and_unresolved_workloads(synthetic: Write) -> None:
    made = resolved(synthetic({SIEVE: 1.0, FSYNC: 1.0}, noise=0.003))
    headline = view.headline(made)
    assert headline.startswith("With 20 blocks and one target this machine resolves about ")
    assert "in CPU work" in headline
    assert "in I/O" in headline
    assert headline.endswith("From 15 blocks of native against native.")
    few = view.headline(resolved(synthetic(blocks=3, name="few")))
    assert "only a first estimate; measure 10 or more" in few


def test_the_sheet_and_csv_hold_every_workload(synthetic: Write) -> None:
    made = resolved(synthetic({SIEVE: 1.0, FSYNC: 1.0}, invalid=frozenset({3})))
    seen = view.build(made)
    assert [one.cells[0] for one in seen.rows] == ["cpu.sieve", "io.fsync"]
    assert all(len(one.cells) == len(seen.headings) for one in seen.rows)
    assert "steal: 1 of 15" in " ".join(line for lines in seen.remarks.values() for line in lines)
    assert len(view.csv(made).splitlines()) == 3
    assert "cpu.sieve" in sheet.markdown(seen)


def test_the_document_has_the_keys_that_scripts_read(synthetic: Write) -> None:
    made = document(resolved(synthetic(noise=0.01)))
    assert list(made) == [
        *("schema_version", "run", "precision", "margin", "level", "workloads", "health", "host"),
        "headline",
    ]
    assert list(made["run"]) == [
        *("id", "started", "machine", "tool_version", "path", "losses", "blocks")
    ]
    (found,) = made["workloads"]
    assert list(found) == [
        *("workload", "metric", "class", "blocks", "noise", "exceeds", "deviation", "spread"),
        "rounds_share",
        *("smallest_effect", "seconds_a_block", "precision", "verdict", "outlying_rate", "drift"),
    ]
    assert (found["workload"], found["class"]) == ("cpu.sieve", "cpu")
    assert list(found["smallest_effect"]) == ["10", "20", "60"]
    assert list(found["precision"]) == list(found["verdict"]) == ["blocks", "seconds"]
    assert set(found["drift"]) == {"change", "low", "high", "p", "notable"}
    assert list(made["health"]) == [
        *("blocks", "invalid", "broken", "steal_percent", "pressure_percent", "speed_percent"),
    ]
    assert made["health"]["steal_percent"] == {"median": 0.0, "worst": 0.0}
    facts = {one["fact"]: one["value"] for one in made["host"]}
    assert facts["CPU limit of the cgroup"] == "none"
    assert facts["turbo"] == "not visible"
    assert facts["steal"] == "0 % (worst block 0 %)"


def test_limits_and_speed_have_their_units(synthetic: Write) -> None:
    made = document(resolved(synthetic(about={"host": {"cpu_limit": 1.5}})))
    facts = {one["fact"]: one["value"] for one in made["host"]}
    assert facts["CPU limit of the cgroup"] == "1.5 CPUs"
