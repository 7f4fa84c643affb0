"""Plug-ins of every kind: the example distribution works, what is broken is named and harmless."""

import json
import os
import re
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Need, host_abi
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import WorkloadName
from isobench.payload import build, wire
from isobench.plugins import entry_points, guard, workload_folders
from isobench.plugins.entry_points import Kind
from isobench.plugins.registry import Registry
from isobench.report import fragment, html, markdown, sections
from isobench.report.exporters import of_plugins as exporters
from isobench.report.exporters.of_plugins import PluginExporter
from isobench.report.sections import SECTIONS, of_plugins
from isobench.report.sections.of_plugins import PluginView
from isobench.report.write import Outcome
from isobench.storage import documents
from isobench.storage.schema import Summary
from isobench.workloads import loader
from tests import distributions
from tests.unit.command import Done

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "tests" / "data" / "example_distribution"
TEMPLATES = ROOT / "reports" / "templates"
HASH = WorkloadName("app.hash")
SECTION = """
    from isobench.report.sections import Section
    SECTION = Section(
        anchor="mine", title="Mine", template="mine.html.j2", build=lambda found: "<b>", {more}
    )
"""
EXPORTER = """
    from isobench.report.exporters import Exporter
    def export(outcome):
        {body}
    MINE = Exporter(name="mine", suffix=".txt", summary="Mine.", function=__name__ + ":export")
"""

Run = Callable[..., Done]
Write = Callable[..., Path]
Install = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep faults and modules of one test from the next."""
    payloads = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "isobench"
    (tmp_path / "cache" / "isobench").mkdir(parents=True)
    for folder in ("payloads", "zig"):  # built payloads are the suite's
        (payloads / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / "cache" / "isobench" / folder).symlink_to(payloads / folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry_points.forget()
    yield
    entry_points.forget()
    guard._pending.clear()
    for name in [name for name in sys.modules if name.startswith(("isobench_example", "plugged_"))]:
        del sys.modules[name]


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The site of the example distribution, for this process and its children."""
    distributions.lay_out(EXAMPLE, tmp_path / "site")
    return on_path(tmp_path / "site", monkeypatch)


def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(site)
    known = os.environ.get("PYTHONPATH")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), *([known] if known else [])]))
    entry_points.forget()
    return site


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Return a function that installs a distribution of one module, and returns its folder."""

    def place(
        kind: Kind,
        code: str,
        *,
        value: str = "",
        name: str = "mine",
        files: Mapping[str, str] | None = None,
        distribution: str = "its-maker",
    ) -> Path:
        site = tmp_path / distribution
        module = f"plugged_{tmp_path.name}_{distribution}".replace("-", "_")
        point = {name: f"{module}{value}"}
        distributions.announce(site, distribution, {kind.group: point})
        (site / f"{module}.py").write_text(textwrap.dedent(code))
        for file, text in (files or {}).items():
            (site / file).parent.mkdir(parents=True, exist_ok=True)
            (site / file).write_text(text)
        return on_path(site, monkeypatch)

    return place


@pytest.fixture
def summary() -> Summary:
    return documents.read_summary(ROOT / "tests" / "data")


def listed(isobench: Run) -> dict[tuple[str, str], Any]:
    """What `isobench plugins list` says, by kind and name."""
    done = isobench("plugins", "list", "--json")
    assert done.code == 0, done.err
    return {(row["kind"], row["name"]): row for row in json.loads(done.out)}


def page_of(summary: Summary) -> tuple[str, str]:
    """The page and the Markdown of a report with the sections of plug-ins."""
    view = sections.build(summary, (*SECTIONS, *of_plugins.sections(SECTIONS)))
    return html.render(view, TEMPLATES), markdown.markdown(view)


# ---- the example ---------------------------------------------------------------------------------


def test_all_that_the_example_adds_is_listed_with_its_origin(example: Path, isobench: Run) -> None:
    rows = listed(isobench)
    added = {key for key, row in rows.items() if row["distribution"] == "isobench-example"}
    assert added == {
        ("target", "unshare"),
        ("workload", "example"),
        ("exporter", "tsv"),
        ("section", "slowest"),
    }
    for key in added:
        assert (rows[key]["version"], rows[key]["state"]) == ("1.0", "loaded"), rows[key]
    assert rows["target", "native"]["distribution"] == "isobench"
    table = " ".join(isobench("plugins", "list").out.split())
    assert "exporter tsv isobench-example 1.0 loaded" in table


def test_the_workload_of_the_example_is_listed(example: Path, isobench: Run) -> None:
    rows = json.loads(isobench("workloads", "--json").out)
    (row,) = [row for row in rows if row["name"] == HASH]
    assert row["class"] == "app"
    assert workload_folders.find()[HASH].plugin == "isobench-example 1.0"
    assert HASH not in loader.find()


def test_the_workload_of_the_example_computes_what_it_says(example: Path) -> None:
    workload, abi = workload_folders.find()[HASH], host_abi()
    assert abi is not None
    assert workload.answer is not None
    built = build.build(workload.program, workload.source, abi)
    done = subprocess.run(
        [built.path, "cafe", "2", str(workload.answer.loops)], capture_output=True, check=True
    )
    reply = wire.read(done.stdout, nonce="cafe", iterations=2)
    assert reply.check == workload.answer.check


def test_the_exporter_of_the_example_has_a_flag_that_writes_its_file(
    example: Path, isobench: Run, synthetic: Write, tmp_path: Path
) -> None:
    path = synthetic({("box", "cpu.sieve"): 2.0})
    done = isobench("report", path, "--export-tsv", tmp_path / "ratios.tsv", "-q")
    assert done.code == 0, done.err
    first, *lines = (tmp_path / "ratios.tsv").read_text().splitlines()
    assert first == "target\tworkload\tratio"
    assert {line.split("\t")[0] for line in lines} == {"box", "native#2"}


@pytest.mark.parametrize("command", ["run", "report", "verify"])
def test_the_help_says_what_an_exporter_writes_and_whose_it_is(
    example: Path, isobench: Run, command: str
) -> None:
    said = isobench(command, "--help").words
    assert "--export-tsv PATH Ratios as tab-separated values. (isobench- example)" in said


def test_the_section_of_the_example_stands_in_the_page_and_in_markdown(
    example: Path, isobench: Run, synthetic: Write
) -> None:
    path = synthetic({("box", "cpu.sieve"): 2.0})
    assert isobench("report", path, "-q").code == 0
    page = (path / "report.html").read_text()
    assert '<a href="#slowest">The slowest cells</a>' in page
    assert '<section id="slowest"' in page
    assert "Added by isobench-example 1.0, a plug-in." in page
    assert "</span> box, cpu.sieve: 2.0" in page.partition('<section id="slowest"')[2]
    assert (
        (path / "summary.md")
        .read_text()
        .partition("## The slowest cells")[2]
        .startswith("\n\n- box, cpu.sieve: 2.0")
    )


def test_the_target_of_the_example_loads(example: Path) -> None:
    assert Registry().get("unshare").name == "unshare"


# ---- what does not load --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(Kind))
@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("import a_module_that_is_not_there", "a_module_that_is_not_there"),
        ("import sys; sys.exit(3)", "SystemExit"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("THING = 3", ""),
        ("", "THING"),
    ],
)
def test_a_plug_in_of_any_kind_that_does_not_load_is_named_with_its_distribution(
    kind: Kind, code: str, why: str, *, install: Install, isobench: Run, tmp_path: Path
) -> None:
    install(kind, code, value=":THING")
    row = listed(isobench)[kind, "mine"]
    assert row["state"] == "broken"
    assert why in row["reason"]
    assert "mine in its-maker 1.0: report it to its author" in row["hint"]
    log = tmp_path / "cache" / "isobench" / "plugins.log"
    assert str(log) in row["hint"]
    assert "Traceback" in log.read_text()


def test_a_name_of_isobenchs_own_cannot_be_taken(install: Install, isobench: Run) -> None:
    install(Kind.EXPORTER, EXPORTER.format(body="return ''"), value=":MINE", name="junit")
    install(
        Kind.SECTION,
        SECTION.format(more=""),
        value=":SECTION",
        name="ratios",
        files={"mine.html.j2": ""},
        distribution="another",
    )
    install(Kind.TARGET, "", value=":X", name="docker", distribution="a-third")
    found = json.loads(isobench("plugins", "list", "--json").out)
    refused = [row for row in found if row["state"] == "refused"]
    assert {(row["kind"], row["name"], row["distribution"]) for row in refused} == {
        ("exporter", "junit", "its-maker"),
        ("section", "ratios", "another"),
        ("target", "docker", "a-third"),
    }
    for row in refused:
        assert row["reason"] == f"the name {row['name']} is isobench's own"
        assert f"uninstall {row['distribution']}" in row["hint"]
    assert Registry().get("docker").name == "docker"


def test_two_plug_ins_of_one_name_are_reported(
    install: Install, isobench: Run, synthetic: Write
) -> None:
    install(Kind.TARGET, "", value=":X", name="twice", distribution="a-second")
    install(Kind.TARGET, "", value=":X", name="twice", distribution="a-first")
    rows = json.loads(isobench("plugins", "list", "--json").out)
    (refused,) = [row for row in rows if row["state"] == "refused"]
    assert refused["distribution"] == "a-second"
    assert refused["reason"] == "the name twice is already used by a-first 1.0"
    entry_points.forget()
    done = isobench("doctor", "native")
    assert "target twice of a-second 1.0: the name twice is already used by a-first 1.0" in done.err


@pytest.mark.parametrize("name", ["Mine", "my thing", "a.b", "all"])
@pytest.mark.parametrize("kind", [Kind.EXPORTER, Kind.SECTION])
def test_a_name_that_no_flag_and_no_link_can_carry_is_told(
    kind: Kind, name: str, install: Install, isobench: Run
) -> None:
    install(kind, "", name=name)
    (row,) = [row for key, row in listed(isobench).items() if key[1].startswith("unusable-")]
    assert f"its name {name!r} is not valid for" in row["reason"]


def test_what_a_plug_in_says_is_listed_without_secrets_and_controls_no_terminal(
    install: Install, isobench: Run
) -> None:
    install(Kind.EXPORTER, 'raise ValueError("\\x1b[31m auth.rootPassword=hunter22")', name="mine")
    row = listed(isobench)["exporter", "mine"]
    done = isobench("plugins", "list")
    for shown in (row["reason"], done.words):
        assert r"\x1b[31m auth.rootPassword=***" in shown
        assert "hunter22" not in shown
    assert "\x1b" not in done.out


# ---- workloads -----------------------------------------------------------------------------------

WORKLOAD = """
name = "{name}"
summary = "Nothing"
scope = "loop"
answer = {{ loops = 1, check = "0000000000000000" }}
metrics = {{ time = "ns" }}
"""


def folder(*names: str) -> dict[str, str]:
    """Files of a folder of workloads."""
    return {
        f"folder/{name}/{file}": text
        for name in names
        for file, text in (("workload.toml", WORKLOAD.format(name=name)), ("payload.c", ""))
    }


FOLDER = 'from pathlib import Path\nTHING = Path(__file__).parent / "folder"\n'


def test_a_folder_of_workloads_may_be_named_by_its_path(install: Install) -> None:
    install(Kind.WORKLOAD, FOLDER, value=":THING", files=folder("app.one", "app.two"))
    assert {"app.one", "app.two"} <= set(workload_folders.find())


def test_a_workload_that_cannot_be_used_costs_the_others_nothing(
    install: Install, isobench: Run
) -> None:
    torn = {"folder/torn/workload.toml": "name = 3"}
    program = {
        "folder/hidden/workload.toml": WORKLOAD.format(name="app.hidden")
        + 'source = "../_evidence/payload.c"\n',
        "folder/_evidence/payload.c": "",
    }
    install(
        Kind.WORKLOAD,
        FOLDER,
        value=":THING",
        files={**folder("app.one", "cpu.sieve"), **torn, **program},
    )
    done = isobench("workloads")
    assert done.code == 0
    assert "app.one" in done.out
    assert "app.hidden" not in done.out
    for why in (
        "the name cpu.sieve is isobench's own",
        "torn/workload.toml",
        "its folder must not begin with _",
    ):
        assert why in done.words
    assert "bug of the workload mine in its-maker 1.0" in done.err
    assert loader.find()["cpu.sieve"].source.is_relative_to(ROOT)  # type: ignore[index]
    assert workload_folders.find()["cpu.sieve"].plugin == ""  # type: ignore[index]


def test_two_workloads_of_one_name_are_reported(install: Install, isobench: Run) -> None:
    install(Kind.WORKLOAD, FOLDER, value=":THING", files=folder("app.one"), distribution="b")
    install(
        Kind.WORKLOAD,
        FOLDER,
        value=":THING",
        name="other",
        files=folder("app.one"),
        distribution="a",
    )
    assert "the name app.one is already used by" in isobench("workloads").err
    assert "app.one" in workload_folders.find()


def test_an_empty_folder_of_workloads_is_told(install: Install, isobench: Run) -> None:
    install(Kind.WORKLOAD, FOLDER, value=":THING", files={"folder/readme": ""})
    assert "there is no folder with workload.toml" in listed(isobench)["workload", "mine"]["reason"]


def test_a_users_own_workload_of_the_same_name_is_the_users_to_rename(
    example: Path, tmp_path: Path
) -> None:
    for file, text in folder(HASH).items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=r"the name app\.hash is already used by"):
        workload_folders.find([tmp_path / "folder"])


# ---- exporters -----------------------------------------------------------------------------------


def made(summary: Summary, tmp_path: Path) -> str:
    """What the exporter "mine" returns."""
    outcome = Outcome(folder=tmp_path, source=tmp_path, summary=summary)
    return exporters.exporters()["mine"](outcome)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("raise OSError('no paper')", "exporting: OSError: no paper"),
        ("raise SystemExit(0)", "exporting: SystemExit: 0"),
        ("raise KeyboardInterrupt", "exporting: KeyboardInterrupt"),
        ("return b'bytes'", "what came back is bytes, not a str"),
        ("return 'x' * 2000", "the text has 2,000 characters, and 1,000 are the most"),
        ("return chr(0xd800)", "surrogates not allowed"),
        ("import time; time.sleep(60)", "exporting did not end within 0.2 s"),
    ],
)
def test_an_exporter_that_fails_is_named_and_all_other_files_are_written(
    body: str,
    why: str,
    *,
    install: Install,
    isobench: Run,
    synthetic: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(Kind.EXPORTER, EXPORTER.format(body=body), value=":MINE")
    monkeypatch.setattr(exporters, "MOST", 1000)
    monkeypatch.setattr(exporters, "PATIENCE", 0.2)
    path = synthetic()
    words = ("--export-mine", tmp_path / "mine.txt", "--export-csv", tmp_path / "all.csv")
    done = isobench("report", path, *words, "-q")
    assert done.code == 2
    assert why in done.err
    assert "bug of the exporter mine in its-maker 1.0: report it to its author" in (done.err)
    assert "not written, because of a fault of the plug-in" in done.err
    assert (tmp_path / "all.csv").is_file()
    assert (path / "report.html").is_file()
    assert not (tmp_path / "mine.txt").exists()


def test_an_exporter_that_calls_itself_something_else_is_told(
    install: Install, isobench: Run
) -> None:
    install(Kind.EXPORTER, EXPORTER.format(body="return ''"), value=":MINE", name="other")
    assert "it calls itself 'mine'" in listed(isobench)["exporter", "other"]["reason"]


def test_the_help_says_which_exporter_does_not_load(install: Install, isobench: Run) -> None:
    install(Kind.EXPORTER, "raise RuntimeError('out of order')", value=":MINE")
    done = isobench("report", "--help")
    assert done.code == 0
    assert "Does not load: loading it: RuntimeError: out of order." in done.words


def test_a_dash_in_the_name_of_an_exporter_is_one_in_its_flag(
    install: Install, isobench: Run, synthetic: Write, tmp_path: Path
) -> None:
    code = EXPORTER.format(body="return 'text'").replace('"mine"', '"my-table"')
    install(Kind.EXPORTER, code, value=":MINE", name="my-table")
    isobench("report", synthetic(), "--export-my-table", tmp_path / "table", "-q")
    assert (tmp_path / "table").read_text() == "text"


def test_on_standard_output_an_exporter_controls_no_terminal(
    install: Install, isobench: Run, synthetic: Write
) -> None:
    install(Kind.EXPORTER, EXPORTER.format(body=r"return 'a\x1b[2J\r\nb\u202e'"), value=":MINE")
    out = isobench("report", synthetic(), "--export-mine", "-", "-q").out
    assert out == "a\\x1b[2J\nb\\u202e\n"


def test_what_an_exporter_prints_is_no_part_of_its_text(install: Install, synthetic: Write) -> None:
    body = "print('a word'); import os; os.write(1, b'bytes'); return 'text'"
    install(Kind.EXPORTER, EXPORTER.format(body=body), value=":MINE")
    argv = ["report", str(synthetic()), "--export-mine", "-", "-q"]
    done = subprocess.run(
        [sys.executable, "-m", "isobench", *argv],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert done.stdout == "text\n"
    assert "a word" in done.stderr
    assert "bytes" in done.stderr


def test_an_exporter_is_loaded_when_it_is_used_and_not_before(install: Install) -> None:
    site = install(Kind.EXPORTER, "raise RuntimeError('loaded')", value=":MINE")
    (found,) = exporters.exporters().values()
    assert isinstance(found, PluginExporter)
    assert found.plugin.faults == []
    assert site.is_dir()
    with pytest.raises(SessionError, match="loaded"):
        found.load()


# ---- sections ------------------------------------------------------------------------------------

MISSING = "(bug of the section mine in its-maker 1.0: report it to its author)."


def plugged(install: Install, template: str, more: str = "") -> None:
    code = textwrap.dedent(SECTION).format(more=more)
    install(Kind.SECTION, code, value=":SECTION", files={"mine.html.j2": template})


def test_what_a_section_shows_is_escaped(install: Install, summary: Summary) -> None:
    plugged(
        install, "<p>{{ view }} of {{ report.id }}</p>", 'markdown=lambda view: [view, "a<br>b"]'
    )
    page, text = page_of(summary)
    assert "<p>&lt;b&gt; of " in page
    assert text.endswith("## Mine\n\n&lt;b>\n\na<br>b\n")


def test_a_section_with_nothing_to_say_is_left_out(install: Install, summary: Summary) -> None:
    code = SECTION.format(more="").replace('"<b>"', "None")
    install(Kind.SECTION, code, value=":SECTION", files={"mine.html.j2": ""})
    page, text = page_of(summary)
    assert "Mine" not in page
    assert "Mine" not in text


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ nothing.there }}", "&#39;nothing&#39; is undefined"),
        ("{% if %}", "TemplateSyntaxError"),
        ("{% include 'report.html.j2' %}", "&#39;hash&#39; is undefined"),
        ("<table><tr><td>", "&lt;td&gt; is left open"),
        ("</section><h1>", "ends what is not open"),
        ("<script>alert(1)</script>", "&lt;script&gt; does not belong here"),
        ("<p onclick='x'>", "does not belong here"),
        ("<!-- the rest is", ""),
        ("<p", ""),
        ("{% autoescape false %}{{ view }}{% endautoescape %}", "&lt;b&gt; is left open"),
        ("{{ 'x' * 2000 }}", "it has 2,000 characters"),
    ],
)
def test_a_template_that_would_spoil_the_page_leaves_a_sentence_in_its_place(
    template: str,
    why: str,
    install: Install,
    summary: Summary,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fragment, "MOST", 1000)
    whole, _ = page_of(summary)
    plugged(install, template)
    page, _ = page_of(summary)
    begun, _, rest = page.partition('<section id="mine"')
    said, end, after = rest.partition("</section>")
    assert "This section is missing: its template mine.html.j2" in said
    assert why in said
    assert MISSING in said
    own = begun.replace('    <li><a href="#mine">Mine</a></li>\n', "")
    assert (own + after.lstrip("\n")).split() == whole.split(), end  # all else is as it was


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("markdown=lambda view: [3]", "a paragraph is int, not a str"),
        ("markdown=lambda view: 1 / 0", "ZeroDivisionError"),
        ("markdown=lambda view: ['x' * 200_000]", "more than 100,000 characters"),
    ],
)
def test_markdown_that_fails_leaves_a_sentence_in_both_places(
    more: str, why: str, install: Install, summary: Summary
) -> None:
    plugged(install, "", more)
    page, text = page_of(summary)
    for said in (page.partition('<section id="mine"')[2], text.partition("## Mine")[2]):
        assert why in said
        assert "This section is missing" in said
        assert "in its-maker 1.0: report it to its author" in said


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
        ("SECTION = 3", "it is int, not a Section"),
        (SECTION.format(more="").replace('"mine"', '"other"'), "its anchor is &#39;other&#39;"),
        (SECTION.format(more="").replace('"Mine"', '"x" * 61'), "its title must have one to 60"),
        (SECTION.format(more="").replace("mine.html", "none.html"), "there is no template"),
        (SECTION.format(more="").replace("mine.html", "../mine.html"), "is no name of a file"),
        (SECTION.format(more="").replace('"<b>"', "found.nothing"), "AttributeError"),
    ],
)
def test_a_section_that_does_not_load_or_raises_leaves_a_sentence_in_its_place(
    code: str, why: str, install: Install, isobench: Run, synthetic: Write
) -> None:
    install(Kind.SECTION, code, value=":SECTION", files={"mine.html.j2": ""})
    path = synthetic()
    done = isobench("report", path, "-q")
    assert done.code == 0
    assert "section mine of its-maker 1.0" in done.err
    said = (path / "report.html").read_text().partition('<section id="mine"')[2]
    assert why in said
    assert MISSING in said
    assert "plugins.log" not in said  # a page is for others, who have no such file
    assert "This section is missing" in (path / "summary.md").read_text()


def test_a_section_that_takes_too_long_is_broken_off(
    install: Install, summary: Summary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(of_plugins, "PATIENCE", 0.2)
    code = SECTION.format(more="").replace('"<b>"', "__import__('time').sleep(60)")
    install(Kind.SECTION, code, value=":SECTION", files={"mine.html.j2": ""})
    began = time.monotonic()
    page, _ = page_of(summary)
    assert time.monotonic() - began < 60
    assert "build did not end within 0.2 s" in page


def test_what_a_section_does_to_its_view_of_the_run_spoils_nobody_elses(
    install: Install, summary: Summary
) -> None:
    whole, _ = page_of(summary)
    code = SECTION.format(more="").replace('"<b>"', "found.cells.clear()")
    install(Kind.SECTION, code, value=":SECTION", files={"mine.html.j2": ""})
    assert page_of(summary)[0] == whole


def test_a_section_may_use_the_marks_and_templates_of_isobench(
    install: Install, summary: Summary
) -> None:
    plugged(install, '{% import "_marks.html.j2" as own with context %}{{ own.glyph("gap") }}')
    page, _ = page_of(summary)
    assert "This section is missing" not in page


def test_the_view_of_a_section_that_works_has_no_apology(
    install: Install, summary: Summary
) -> None:
    plugged(install, "")
    view = sections.build(summary, of_plugins.sections(SECTIONS))
    (part,) = view.parts
    assert isinstance(part.view, PluginView)
    assert part.view.apology == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "text",
        "<p>a &amp; b</p>",
        "<br>",
        '<svg viewBox="0 0 1 1"><path d="M0 0"/></svg>',
        "<table><tbody><tr><td>1</td></tr></tbody></table>",
        '<p title="a < b">c</p>',
    ],
)
def test_html_that_a_page_can_hold_is_left_as_it_is(text: str) -> None:
    assert fragment.checked(text) == text


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("<div/>", "<div/> leaves <div> open"),
        ("<b><i></b></i>", "</b> ends what is not open"),
        ("<iframe></iframe>", "<iframe> does not belong here"),
        ("<!doctype html>", "a declaration does not belong here"),
        ("<?x?>", "an instruction does not belong here"),
        ("<!-- a -->", "a comment does not belong here"),
        ("<style>", "<style> does not belong here"),
        ("<b>1 < 2</b>", "a tag is not complete"),
        ("<b", "a tag is not complete"),
    ],
)
def test_html_that_would_spoil_a_page_is_refused(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=re.escape(why)):
        fragment.checked(text)


def test_needs_are_words_that_workloads_and_targets_share() -> None:
    assert loader.find()[WorkloadName("cpu.threads")].needs == (Need.THREADS, Need.TWO_CPUS)
