"""docs/plugins.md keeps pace with the program."""

import dataclasses
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isobench.model import (
    Command,
    Expectation,
    Gap,
    Lack,
    Need,
    Relation,
    Resource,
    Sample,
    Stage,
    Technology,
)
from isobench.model.units import Unit
from isobench.payload import build
from isobench.plugins import api
from isobench.storage import records
from isobench.targets import authoring
from isobench.workloads import loader

CHECKOUT = Path(__file__).parents[2]
TEXT = (CHECKOUT / "docs" / "plugins.md").read_text()
EVIDENCE = (CHECKOUT / "workloads" / "_evidence" / "payload.c").read_text()
SPACES = re.findall(r'"(\w+)"', re.findall(r"spaces\[\] = \{(.*?)\}", EVIDENCE)[0])


def section(title: str) -> str:
    """The text of one section."""
    return TEXT.split(f"\n## {title}\n")[1].split("\n## ")[0]


def code(text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def abilities() -> list[str]:
    """Every protocol of the plug-in interface but the two that all have."""
    found = [n for n, kind in vars(api).items() if getattr(kind, "_is_protocol", False)]
    return [name for name in found if name not in ("Protocol", "Target", "Session")]


@pytest.mark.parametrize(
    ("title", "noun"),
    [
        ("Expectations", Expectation),
        ("The stage", Stage),
        ("The command", Command),
        ("What is recorded", Sample),
    ],
)
def test_it_names_every_field(title: str, noun: Any) -> None:
    for field in dataclasses.fields(noun):
        assert f"| `{field.name}` |" in section(title), field.name


def test_it_names_what_records_consist_of() -> None:
    for name in (*records.COLUMNS, *(field.name for field in dataclasses.fields(Gap))):
        assert f"`{name}`" in section("What is recorded"), name


def test_it_names_every_metric() -> None:
    code_ = "".join(path.read_text() for path in (CHECKOUT / "isobench" / "run").glob("*.py"))
    named = {
        *re.findall(r'sample\(\s*(?:context\.)?visit,\s*(?:"([a-z.]+)"|f"([a-z]+\.))', code_),
        *re.findall(r'metric="([a-z.]+)"()|f"(phase\.)', code_),
    }
    metrics = {part for found in named for part in found if part} | {"time", "gone"}
    assert {"warmup", "span.host", "fact.", "phase.", "channel", "overlap"} <= metrics
    for metric in metrics:
        shown = f"`{metric}…`" if metric.endswith(".") else f"`{metric}`"
        assert shown in section("What is recorded"), metric


@pytest.mark.parametrize("name", abilities())
def test_it_names_every_ability_and_what_to_write_for_it(name: str) -> None:
    (row,) = [line for line in section("Abilities").splitlines() if line.startswith(f"| `{name}`")]
    for member in vars(getattr(api, name)):
        if not member.startswith("_"):
            assert f"`{member}" in row, member


def test_it_names_every_member_of_the_interface() -> None:
    for member in vars(api.Target):
        if not member.startswith("_"):
            assert f"| `{member}" in section("The interface"), member


@pytest.mark.parametrize("words", [Lack, Technology])
def test_it_names_every_word_of_the_interface(words: type[StrEnum]) -> None:
    for word in words:
        assert re.search(rf"\b{word.name}\b", section("The interface")), word


def test_it_names_every_relation_resource_and_need() -> None:
    assert all(f"`{word.name}`" in section("Expectations") for word in Relation)
    assert all(word.name in section("Abilities") for word in Resource)
    assert all(f'`"{word}"`' in section("Workloads") for word in Need)


def evidence_keys() -> set[str]:
    found = set(re.findall(r'_fact(?:_\w+)?\("([a-z]+[a-z._]*)"', EVIDENCE))
    uname = re.findall(r"keys\[\] = \{(.*?)\}", EVIDENCE)[0]
    return found | set(re.findall(r'"([a-z.]+)"', uname)) | {f"ns.{space}" for space in SPACES}


@pytest.mark.parametrize("key", sorted(evidence_keys()))
def test_it_names_every_key_that_a_expectation_may_be_about(key: str) -> None:
    assert f"`{key}`" in section("Expectations")


def test_the_keys_it_names_exist() -> None:
    known = evidence_keys()
    assert len(known) > 50
    rows = [line for line in section("Expectations").splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([a-z]+\.[a-z._]+)`", row.split("|")[1])}
    assert named <= known, named - known


def test_it_names_every_key_of_a_workload() -> None:
    for field in msgspec.structs.fields(loader._File):
        shown = "[metrics]" if field.name == "metrics" else field.name
        assert f"| `{shown}` |" in section("Workloads"), field.name
    for field in msgspec.structs.fields(loader._Answer):
        assert f"`{field.name}`" in section("Workloads"), field.name
    for field in msgspec.structs.fields(loader._Metric):
        assert f"| `{field.name}` |" in section("Workloads"), field.name
    assert all(f'`"{unit}"`' in section("Workloads") for unit in Unit)


def test_it_names_what_a_prefix_may_set() -> None:
    inherited = {*vars(api.Target), *vars(api.Launcher), *vars(api.Sweeper)} - {"probe"}
    own = {name for name in vars(authoring.PrefixTarget) if not name.startswith("_")}
    for name in own - inherited - {"words"}:
        assert f"`{name}" in section("A first target"), name


def test_its_first_target_is_one(tmp_path: Path) -> None:
    (module,) = code(section("A first target"), "python")
    space: dict[str, Any] = {}
    exec(compile(module, "isobench_mine.py", "exec"), space)  # noqa: S102 - our own document
    target = space["MineTarget"]()
    assert isinstance(target, api.Target)
    assert isinstance(target, api.Launcher)
    assert isinstance(target, api.Sweeper)
    assert not isinstance(target, api.Explains)
    project = tomllib.loads(code(section("A first target"), "toml")[0])["project"]
    assert project["entry-points"][api.GROUP] == {target.name: "isobench_mine:MineTarget"}


def test_its_workload_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "hash"
    folder.mkdir()
    (folder / "workload.toml").write_text(code(section("Workloads"), "toml")[0])
    (folder / "payload.c").write_text(code(section("Workloads"), "c")[0])
    found = loader.read(folder / "workload.toml")
    assert found.name == "app.hash"
    assert build.programs([found])


@pytest.mark.parametrize("link", re.findall(r"\]\((\.\./[^)#]+)\)", TEXT))
def test_every_link_leads_somewhere(link: str) -> None:
    assert (CHECKOUT / "docs" / link).exists(), link


def test_every_section_it_points_to_exists() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
