"""A section of the report and an exporter are one module and one line each."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from isobench.cli._front import cli
from isobench.report import html, markdown, sections
from isobench.report.exporters import EXPORTERS, Exporter
from isobench.report.sections import SECTIONS, Lookup, Section
from isobench.report.write import Outcome
from isobench.storage import documents
from isobench.storage.schema import Summary

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "reports" / "templates"


@pytest.fixture
def summary() -> Summary:
    return documents.read_summary(ROOT / "tests" / "data")


def test_a_new_section_is_a_view_a_template_and_a_line(summary: Summary, tmp_path: Path) -> None:
    def count(found: Lookup) -> int:
        return len(found.cells)

    def paragraphs(cells: int) -> Iterator[str]:
        yield f"## {cells} cells"

    shutil.copytree(TEMPLATES, tmp_path / "templates")
    template = '<section id="count"><h2>{{ view }} cells at {{ report.level }}</h2></section>'
    (tmp_path / "templates" / "count.html.j2").write_text(template)
    made = Section(
        anchor="count",
        title="<Count>",
        template="count.html.j2",
        build=count,
        markdown=paragraphs,
    )
    view = sections.build(summary, (*SECTIONS, made))
    assert made.of(view) == len(summary.cells)
    page = html.render(view, tmp_path / "templates")
    assert f"<h2>{len(summary.cells)} cells at 97\N{NO-BREAK SPACE}%</h2>" in page
    assert '<a href="#count">&lt;Count&gt;</a>' in page
    assert markdown.markdown(view).endswith(f"## {len(summary.cells)} cells\n")


def test_a_section_without_a_view_is_left_out(summary: Summary) -> None:
    silent: Section[str] = Section(
        anchor="silent", title="Silent", template="none.html.j2", build=lambda _: None
    )
    view = sections.build(summary, (*SECTIONS, silent))
    assert silent.of(view) is None
    assert "Silent" not in html.render(view, TEMPLATES)


def test_every_section_has_a_template_that_holds_its_anchor() -> None:
    assert len({one.anchor for one in SECTIONS}) == len(SECTIONS)
    for one in SECTIONS:
        assert f'id="{one.anchor}"' in (TEMPLATES / one.template).read_text(encoding="utf-8")


@pytest.mark.parametrize("command", ["run", "report", "verify"])
def test_every_exporter_has_its_flag(command: str) -> None:
    found = cli.get_command(cli.make_context("isobench", ["targets"]), command)
    assert found is not None
    flags = {flag for parameter in found.params for flag in parameter.opts}
    assert {f"--export-{name}" for name in EXPORTERS} <= flags


def test_an_exporter_is_found_by_name_when_it_is_used(summary: Summary, tmp_path: Path) -> None:
    outcome = Outcome(folder=tmp_path, source=tmp_path, summary=summary)
    for name in ("junit", "openmetrics"):
        assert EXPORTERS[name](outcome)
    mine = Exporter(name="mine", suffix=".txt", summary="Mine.", function=f"{__name__}:shouted")
    assert json.loads(mine(outcome)) == summary.run.id


def shouted(outcome: Outcome) -> str:
    return json.dumps(outcome.summary.run.id)
