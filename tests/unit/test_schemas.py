"""The files of a run match their published schemas; what does not match is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isobench.model.errors import UsageError
from isobench.storage import reader
from tests import schemas

EXAMPLES = Path(__file__).parents[2] / "reports" / "examples"
Write = Callable[..., Path]
FIXED = {
    "run": ["id", "started", "seed", "complete", "machine", "noise"],
    "targets": ["name", "class", "status", "version", "reason", "hint", "evidence"],
    "cells": [
        *("target", "workload", "class", "metric", "unit", "value", "reference", "ratio"),
        *("interval", "level", "blocks", "visits", "standing", "doubts"),
    ],
    "gaps": ["target", "workload", "cause", "detail", "hint"],
    "claims": ["id", "standing", "sentence"],
}
"""What scripts outside the project read."""


@pytest.mark.parametrize("name", schemas.FILES)
def test_the_published_schemas_are_those_of_the_structs(name: str) -> None:
    written = schemas.path(name).read_text(encoding="utf-8")
    assert written == schemas.schema(name), "python tests/schemas.py writes them anew"


@pytest.mark.parametrize("name", [name for name in schemas.FILES if name != "history"])
def test_every_key_of_the_examples_is_in_the_schemas(name: str) -> None:
    kind, _ = schemas.FILES[name]
    pattern = "state/*-pre.json" if name == "state" else f"{name}.json"
    found = [path for path in EXAMPLES.glob(f"*/{pattern}") if path.name != "host-pre.json"]
    assert found
    for path in found:
        text = path.read_text().replace('"dear":', '"expensive":')  # as version 0.1 wrote it
        read = msgspec.json.decode(text, type=kind)
        again = json.loads(msgspec.json.encode(read))
        assert json.loads(text).keys() <= again.keys()


@pytest.mark.parametrize("part", FIXED)
def test_no_key_that_scripts_read_is_ever_renamed(part: str) -> None:
    tables = json.loads(schemas.path("summary").read_text())["$defs"]
    found = tables["Summary"]["properties"][part]
    name = found.get("items", found)["$ref"].rpartition("/")[2]
    assert set(FIXED[part]) <= set(tables[name]["properties"])


# ---- the door


HOSTILE = "\x1b[31mred\u202etfel\x00"
SHOWN = r"\x1b[31mred\u202etfel\x00"


def with_(path: Path, name: str, change: Callable[[Any], None]) -> Path:
    """Change a JSON document of a run."""
    document = json.loads((path / name).read_text())
    change(document)
    (path / name).write_text(json.dumps(document))
    return path


def test_text_of_every_file_is_cleaned_where_it_is_read(synthetic: Write) -> None:
    path = synthetic(states={"box": {"version": HOSTILE, "starts": {HOSTILE: HOSTILE}}})
    with_(
        path,
        "run.json",
        lambda run: run.update(machine=HOSTILE, host=run["host"] | {HOSTILE: HOSTILE}),
    )
    gap = {"kind": "gap", "block": 15, "target": "box", "workload": "cpu.sieve"}
    gap["cause"] = "failed"
    with (path / "records.jsonl").open("a") as file:
        file.write(json.dumps(gap | {"detail": HOSTILE, "hint": HOSTILE}) + "\n")
    run = reader.load(path)
    assert (run.metadata.machine, run.metadata.host[SHOWN]) == (SHOWN, SHOWN)
    assert HOSTILE not in run.metadata.host
    state = run.states["box"]  # type: ignore[index] - a name is a text
    assert (state.version, state.starts) == (SHOWN, {SHOWN: SHOWN})
    assert [(one.detail, one.hint) for one in run.gaps] == [(SHOWN, SHOWN)]


def test_line_ends_and_tabs_of_a_fact_stay(synthetic: Write) -> None:
    fact = {"key": "user.uid_map", "value": "0\t0 1\n1 1 1", "source": "proc"}
    run = reader.load(synthetic(states={"box": {"facts": [fact]}}))
    assert run.states["box"].fact("user.uid_map") == "0\t0 1\n1 1 1"  # type: ignore[index] - as above


def test_a_very_long_text_is_cut(synthetic: Write) -> None:
    path = with_(synthetic(), "run.json", lambda run: run.update(machine="long " * 100_000))
    machine = reader.load(path).metadata.machine
    assert machine is not None
    assert len(machine) == 10_000
    assert machine.endswith("\N{HORIZONTAL ELLIPSIS}")


def test_a_configuration_is_not_cleaned(synthetic: Write) -> None:
    tables = {"targets": {"box": {"command": ["printf", "a\x1bb"]}}}
    path = with_(synthetic(), "run.json", lambda run: run.update(config=tables))
    assert reader.load(path).metadata.config.targets == tables["targets"]


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        ("run.json", {"margin": -1}, "run.json: Expected `float` > 1e-09"),
        ("run.json", {"margin": "wide"}, "$.margin"),
        ("run.json", {"seed": 1 << 80}, "$.seed"),
        ("run.json", {"targets": [{"name": "box", "class": "Black magic"}]}, "$.targets[0].class"),
        ("run.json", {"targets": [{"class": "native"}]}, "$.targets[0]"),
        ("run.json", {"host": {"load": []}}, "$.host[...]"),
        ("run.json", {"payloads": [{"program": "p", "abi": "Z 80"}]}, "$.payloads[0].abi"),
        ("run.json", {"workloads": 3}, "$.workloads"),
        ("plan.json", {"reference": 3}, "plan.json: "),
        ("plan.json", {"work": [{}]}, "$.work[0]"),
        ("state/box-pre.json", {"promises": [{"key": "k"}]}, "state/box-pre.json: "),
        ("state/box-pre.json", {"status": "well"}, "$.status"),
    ],
)  # fmt: skip
def test_a_wrong_value_is_reported_with_file_and_place(
    name: str, change: dict[str, Any], place: str, synthetic: Write
) -> None:
    path = synthetic(states={"box": {"status": "available"}})
    with_(path, name, lambda document: document.update(change))
    with pytest.raises(UsageError) as caught:
        reader.load(path)
    assert str(caught.value).startswith(f"{path}: {name}: ")
    assert place in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("text", ["[" * 100_000, "\xff", "1e999", '"' + "x" * 10])
def test_a_file_that_is_not_json_is_reported_without_a_traceback(
    text: str, synthetic: Write
) -> None:
    path = synthetic(states={"box": {}})
    for name in ("run.json", "plan.json", "state/box-pre.json"):
        before = (path / name).read_bytes()
        (path / name).write_bytes(text.encode("latin-1") + b"\n")
        with pytest.raises(UsageError, match=name):
            reader.load(path)
        (path / name).write_bytes(before)


def test_keys_of_a_newer_version_are_ignored(synthetic: Write) -> None:
    path = synthetic(states={"box": {"status": "available", "soul": 1}})
    before = reader.load(path)
    for name in ("run.json", "plan.json"):
        with_(path, name, lambda document: document.update(novelty={"x": [1]}))
    after = reader.load(path)
    assert (after.metadata, after.plan, after.states) == (
        before.metadata,
        before.plan,
        before.states,
    )
