"""docs/plugins.md keeps pace with the program."""

import dataclasses
import inspect
import re
import shutil
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isobench.cli import plugins
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
from isobench.payload import build, compiler
from isobench.plugins import api, entry_points
from isobench.plugins.entry_points import Kind
from isobench.report import fragment
from isobench.report.exporters import Exporter
from isobench.report.exporters import of_plugins as exporters
from isobench.report.sections import Section, of_plugins
from isobench.report.write import Outcome
from isobench.storage import records
from isobench.targets import authoring
from isobench.workloads import loader

CHECKOUT = Path(__file__).parents[2]
EXAMPLE = CHECKOUT / "tests" / "data" / "example_distribution"
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
def test_it_names_every_key_of_expectations(key: str) -> None:
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


def test_its_first_target_is_valid(tmp_path: Path) -> None:
    (module,) = code(section("A first target"), "python")
    space: dict[str, Any] = {}
    exec(compile(module, "isobench_mine.py", "exec"), space)  # noqa: S102 - our own document
    target = space["MineTarget"]()
    assert isinstance(target, api.Target)
    assert isinstance(target, api.Launcher)
    assert isinstance(target, api.Sweeper)
    assert not isinstance(target, api.Explains)
    project = tomllib.loads(code(section("A first target"), "toml")[0])["project"]
    assert project["entry-points"][Kind.TARGET.group] == {target.name: "isobench_mine:MineTarget"}


def test_its_code_is_the_code_of_the_example() -> None:
    package = EXAMPLE / "isobench_example"
    for title, language, file in (
        ("What a distribution adds", "toml", EXAMPLE / "pyproject.toml"),
        ("Workloads", "toml", package / "workloads" / "app_hash" / "workload.toml"),
        ("Workloads", "c", package / "workloads" / "app_hash" / "payload.c"),
        ("Exporters", "python", package / "tsv.py"),
        ("Sections of the report", "python", package / "slowest.py"),
        ("Sections of the report", "html", package / "slowest.html.j2"),
    ):
        shown = code(section(title), language)[0]
        first, _, rest = shown.partition("\n")  # its name, as a comment
        written = file.read_text()
        if language == "toml" and first == "# pyproject.toml":
            written = written.partition("\n")[2]  # a comment of its own
        assert (rest if first.startswith("# ") else shown) == written, file


def test_it_names_every_group_of_entry_points() -> None:
    shown = tomllib.loads(code(section("What a distribution adds"), "toml")[0])
    groups = {kind.group for kind in Kind}
    assert set(shown["project"]["entry-points"]) == groups
    for group in groups:
        assert f"| `{group}` |" in section("What a distribution adds"), group


def test_it_names_the_keys_and_states_of_the_list_of_plug_ins() -> None:
    text = section("What a distribution adds")
    plugin = entry_points.every(Kind.TARGET)[0]
    row = plugins.Row(plugin=plugin, state="loaded", reason="", hint="")
    assert "[{" + ", ".join(f'"{key}"' for key in row.document()) + "}]" in text
    for state in (plugins._LOADED, plugins._BROKEN, plugins._REFUSED):
        assert f"`{state}`" in text, state


@pytest.mark.parametrize(
    ("title", "noun"),
    [("Exporters", Exporter), ("Exporters", Outcome), ("Sections of the report", Section)],
)
def test_it_names_every_field_of_exporters_outcomes_and_sections(title: str, noun: Any) -> None:
    for field in dataclasses.fields(noun):
        assert re.search(rf"^\| (`\w+` )*`{field.name}`", section(title), re.MULTILINE), field.name


def test_it_states_the_limits_of_a_plug_in() -> None:
    text = section("When a plug-in misbehaves")
    assert (exporters.PATIENCE, exporters.MOST >> 20) == (120, 64)
    assert "more than two minutes, returns no text or more than 64 Mi characters" in text
    assert of_plugins.PATIENCE == 30
    assert "takes more than half a minute" in text
    assert fragment.MOST == 1_000_000
    assert "more than a million characters" in section("Sections of the report")
    assert f"{of_plugins._MOST_MARKDOWN:,} characters at most" in section("Sections of the report")
    assert f"at most {of_plugins._LONGEST_TITLE} characters" in section("Sections of the report")


def test_its_toolchain_builds_payloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_TOOLCHAINS", dict(compiler._TOOLCHAINS))
    shutil.copy(CHECKOUT / "tests" / "data" / "loongarch64.h", tmp_path)
    (module,) = code(section("Another ABI"), "python")
    space: dict[str, Any] = {"__file__": str(tmp_path / "mine.py")}
    exec(compile(module, "mine.py", "exec"), space)  # noqa: S102 - our own document
    source = CHECKOUT / "workloads" / "cpu_sieve" / "payload.c"
    assert build.build("cpu.sieve", source, space["LOONGARCH"]).path.is_file()
    for name in inspect.signature(build.add_toolchain).parameters:
        assert f"| `{name}` |" in section("Another ABI"), name


@pytest.mark.parametrize("link", re.findall(r"\]\((\.\./[^)#]+)\)", TEXT))
def test_every_link_has_a_target(link: str) -> None:
    assert (CHECKOUT / "docs" / link).exists(), link


def test_every_section_it_points_to_exists() -> None:
    titles = re.findall(r"^## (.*)$", TEXT, re.MULTILINE)
    anchors = {title.lower().replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= anchors
