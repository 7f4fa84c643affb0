"""What a report shows: on the page, in a terminal, as Markdown."""

import copy
import io
import json
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import pytest
from msgspec import structs
from rich.console import Console

from isobench.report import html, markdown, sections, text
from isobench.report.exporters.junit import junit
from isobench.report.sections import Report, Section
from isobench.report.sections.claims import CLAIMS
from isobench.report.sections.documents import DOCUMENTS, Column
from isobench.report.sections.evidence import EVIDENCE
from isobench.report.sections.figures import interval_text, percent_text, ratio_text, seconds_text
from isobench.report.sections.gaps import GAPS
from isobench.report.sections.lookup import look_up
from isobench.report.sections.method import METHOD
from isobench.report.sections.ratios import RATIOS
from isobench.report.sections.scale import scale_of, ticks_of
from isobench.report.sections.startup import START_UP
from isobench.report.sections.undecided import UNDECIDED
from isobench.report.signs import DASH, TIMES
from isobench.storage import documents

ROOT = Path(__file__).parents[2]
TEMPLATES = ROOT / "reports" / "templates"
EVIL = '<script>alert("x")</script>&\x1b[31m\u202e|`*'
FORBIDDEN = re.compile(r"\b(None|nan|NaN|inf|undefined|Undefined)\b")
FIXED = (
    *("class", "status", "standing", "relation", "cause", "scope", "metric", "unit", "clock"),
    *("abi", "axes", "worst_status", "excluded"),
)
"""Keys whose values are of a fixed set, or are not shown."""
VOID = {"meta", "br", "link", "img", "use"}

Summary = dict[str, Any]
Shown = TypeVar("Shown")


class Page(HTMLParser):
    """A page taken apart: tags with attributes, text, headings, and tables as rows of texts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.headings: list[int] = []
        self.tables: dict[str, list[list[str]]] = {}
        self._rows: list[list[str]] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append((tag, found))
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "table":
            self._rows = self.tables.setdefault(str(found.get("class")), [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if "style" in self.open:
            return
        self.words.append(data)
        if {"td", "th"} & set(self.open):
            self._rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str]:
        return [found[name] or "" for _, found in self.tags if name in found]


@pytest.fixture
def summary() -> Summary:
    content = (ROOT / "tests" / "data" / "summary.json").read_text(encoding="utf-8")
    loaded: Summary = json.loads(content)
    return loaded


def view_of(summary: Summary) -> Report:
    """Return the view of a summary that is read from outside."""
    return sections.build(documents.summary_of(summary))


def shown(section: Section[Shown], summary: Summary) -> Shown:
    """Return what a section shows of a summary."""
    view = section.of(view_of(summary))
    assert view is not None
    return view


def page_of(summary: Summary) -> Page:
    return Page(html.render(view_of(summary), TEMPLATES))


def terminal_of(summary: Summary, width: int = 80) -> str:
    output = io.StringIO()
    text.render(view_of(summary), Console(file=output, width=width, color_system=None))
    return output.getvalue()


def plain(content: str) -> str:
    """Return a text with the signs of a keyboard."""
    return content.replace(TIMES, "x").replace(DASH, "-")


def rendered(summary: Summary) -> tuple[str, str, str]:
    report = view_of(summary)
    return html.render(report, TEMPLATES), terminal_of(summary), markdown.markdown(report)


def cell_of(summary: Summary, target: str, workload: str) -> Summary:
    found: Summary = next(
        c for c in summary["cells"] if (c["target"], c["workload"]) == (target, workload)
    )
    return found


def column_of(summary: Summary, title: str) -> Column:
    return next(one for one in shown(DOCUMENTS, summary) if one.title == title)


def quick(summary: Summary) -> None:
    summary["run"]["quick"] = True
    for cell in summary["cells"]:
        cell["standing"] = "inconclusive"


def interrupted(summary: Summary) -> None:
    summary["run"].update(interrupted=True, complete=False, stopped="interrupted", finished=None)


def without_cells(summary: Summary) -> None:
    summary.update(cells=[], claims=[])
    summary["answers"].update(overview=[], open_cells=[])
    summary["run"]["noise"] = {}


def without_targets(summary: Summary) -> None:
    summary.update(targets=[], cells=[], gaps=[], claims=[], workloads=[], answers={})
    summary["run"]["headline"] = ""


def only_fixed_fields(summary: Summary) -> None:
    fields = {
        "run": ("id", "started", "seed", "complete", "machine", "noise"),
        "targets": ("name", "class", "status", "version", "reason", "hint", "evidence"),
        "cells": (
            "target",
            "workload",
            "class",
            "metric",
            "unit",
            "value",
            "reference",
            "ratio",
            "interval",
            "level",
            "blocks",
            "visits",
            "standing",
            "doubts",
        ),
        "claims": ("id", "standing", "sentence"),
    }
    del summary["workloads"], summary["answers"]
    summary["run"] = {key: summary["run"][key] for key in fields.pop("run")}
    for name, keys in fields.items():
        summary[name] = [{key: item[key] for key in keys} for item in summary[name]]


def without_numbers(summary: Summary) -> None:
    for cell in summary["cells"]:
        cell.update(value=None, reference=None, ratio=None, interval=None, log_ratios=[])
        cell.update(p95=None, p99=None, maximum=None, blocks_needed=None, outlying_blocks=None)
    for suite in summary["suites"]:
        suite.update(ratio=None, interval=None, log_ratios=[], unlike=[])
    for place, profile in enumerate(summary["courses"]):
        profile["passes"] = ([None, -1.0, None], [], [None])[place]
    for name in ("blocks", "blocks_invalid", "budget_seconds", "started"):
        summary["run"][name] = None
    summary["run"]["noise"] = {"cpu.sieve": None, "cpu.sha256": None}


def empty(summary: Summary) -> None:
    summary.clear()
    summary["schema_version"] = 1


VARIANTS: tuple[Callable[[Summary], None], ...] = (
    quick,
    interrupted,
    without_cells,
    without_targets,
    only_fixed_fields,
    without_numbers,
    empty,
)


@pytest.fixture(params=[None, *VARIANTS], ids=lambda one: "whole" if one is None else one.__name__)
def variant(request: pytest.FixtureRequest, summary: Summary) -> Summary:
    if request.param is not None:
        request.param(summary)
    return summary


# Every report, whatever the run was like.


def test_no_word_of_python_leaks_into_any_report(variant: Summary) -> None:
    page, terminal, markup = rendered(variant)
    for content in (Page(page).text, terminal, markup):
        assert not FORBIDDEN.search(content)
    for name in ("title", "aria-label", "x", "x1", "x2", "width", "d"):
        assert not any(FORBIDDEN.search(found) for found in Page(page).attributes(name))


def test_the_page_is_well_formed_and_its_ids_are_unique(variant: Summary) -> None:
    page = page_of(variant)
    assert page.open == []
    assert max(Counter(page.attributes("id")).values()) == 1


def test_every_link_within_the_page_has_a_target(variant: Summary) -> None:
    page = page_of(variant)
    ids = set(page.attributes("id"))
    targets = [link[1:] for link in page.attributes("href") if link.startswith("#")]
    assert targets
    assert set(targets) <= ids
    assert set(page.attributes("aria-labelledby")) <= ids


def test_the_page_loads_nothing_from_outside(variant: Summary) -> None:
    page = page_of(variant)
    assert {"link", "img", "iframe"}.isdisjoint({tag for tag, _ in page.tags})
    # The page's own script, which its policy allows by the hash, and no other.
    assert [found for tag, found in page.tags if tag == "script"] == [{}]
    (policy,) = [found for found in page.attributes("content") if "default-src" in found]
    script = (TEMPLATES / "report.js").read_text(encoding="utf-8")
    assert f"script-src '{html.policy_hash(script)}';" in policy
    assert "unsafe" not in policy.replace("style-src 'unsafe-inline'", "")
    assert page.attributes("src") == []
    outward = [link for link in page.attributes("href") if not link.startswith("#")]
    assert set(outward) == {"records.jsonl", "summary.json"}
    assert "url(" not in (TEMPLATES / "style.css").read_text(encoding="utf-8")


def test_headings_begin_with_one_h1_and_skip_no_level(variant: Summary) -> None:
    headings = page_of(variant).headings
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))


def test_every_table_has_a_caption_and_every_drawing_a_text(variant: Summary) -> None:
    tags = page_of(variant).tags
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table")
    assert all(found.get("aria-label") for _, found in tags if found.get("role") == "img")


def test_what_scrolls_can_be_focused_and_has_a_name(variant: Summary) -> None:
    regions = [found for _, found in page_of(variant).tags if found.get("class") == "region"]
    assert regions
    assert all(found.get("tabindex") == "0" and found.get("aria-label") for found in regions)


def test_every_column_of_the_documents_is_there(variant: Summary) -> None:
    head = page_of(variant).tables["documents"][0]
    wanted = ("Virtualization", "Containerization", "Emulation", "Translation layer", "Sandbox")
    assert [cell.startswith(name) for name, cell in zip(wanted, head[1:], strict=True)] == [
        True
    ] * 5
    assert [row[0] for row in page_of(variant).tables["documents"][1:]] == [
        "Kernel",
        "Performance",
        "Examples",
    ]


def test_a_technology_that_the_documents_do_not_describe_has_a_column_without_agreement(
    summary: Summary,
) -> None:
    (docker,) = (target for target in summary["targets"] if target["name"] == "docker")
    docker["class"] = "paravirtual"
    page, _, markup = rendered(summary)
    head, *rows = Page(page).tables["documents"]
    assert head[-1] == "Paravirtualnot in the documents"
    assert "There is no hypervisor" in rows[0][-1]
    assert "docker" in rows[2][-1]
    assert not any(word in row[-1] for row in rows for word in ("agrees", "in part", "not tested"))
    (line,) = (line for line in markup.splitlines() if line.startswith("| Performance"))
    assert line.count("**") > 0
    assert "**" not in line.split("|")[-2]


def test_terminal_output_fits_80_columns(variant: Summary) -> None:
    assert max(map(len, terminal_of(variant).splitlines())) <= 80


# The whole example.


def test_the_answers_stand_first_and_in_a_terminal_last_but_the_run_line(
    summary: Summary,
) -> None:
    page, terminal, markup = rendered(summary)
    headline = summary["run"]["headline"]
    assert headline in Page(page).text
    assert f"<title>{headline}".replace("'", "&#39;") in page
    assert markup.index(f"- {headline}\n") < markup.index("## ")
    flat = " ".join(terminal.split())
    assert flat.index(headline[:60]) > flat.index("Gaps")


def test_each_answer_is_an_item(summary: Summary) -> None:
    summary["answers"]["sentences"] = ["One is near-native.", "Two is slower."]
    page, terminal, markup = rendered(summary)
    assert page.count("<li>One is near-native.</li>") == 1
    assert "- One is near-native.\n- Two is slower.\n" in markup
    assert "\nTwo is slower." in "\n".join(line.rstrip() for line in terminal.splitlines())


def test_the_machine_stands_at_the_top(summary: Summary) -> None:
    summary["run"]["doubts"] = [
        {"code": "busy-host", "detail": "the load was 1.9", "advice": "wait", "blocks": False}
    ]
    summary["run"]["host"]["load"] = 1.9
    page, terminal, markup = rendered(summary)
    machine = summary["run"]["machine"]
    for content in (Page(page).text, " ".join(terminal.split()), markup):
        for words in (machine, "6.1.0-28-cloud-amd64", "itself a KVM guest", "1.9 when the run"):
            assert words in content
        assert content.index(machine) < content.rindex(summary["run"]["headline"][:40])
        assert "native measured twice may differ by" in content
        assert "began: busy" in content
    assert terminal.startswith(f"Machine: {machine}")


@pytest.mark.parametrize(
    ("facts", "is_kvm"),
    [
        ({}, False),
        ({"cpu.hypervisor": ""}, False),
        ({"cpu.hypervisor": "VMwareVMware"}, False),
        ({"host.accelerator": "tcg"}, False),
        ({"host.accelerator": "kvm"}, True),
        ({"cpu.hypervisor": "KVMKVMKVM"}, True),
    ],
)
def test_kvm_was_measured_only_where_evidence_shows_it(
    facts: dict[str, str], is_kvm: bool, summary: Summary
) -> None:
    target = next(one for one in summary["targets"] if one["name"] == "docker")
    target["class"] = "virtualization"
    target["facts"] = [{"key": key, "value": value, "source": "x"} for key, value in facts.items()]
    page, terminal, _ = rendered(summary)
    for content in (Page(page).text, " ".join(terminal.split())):
        assert ("measured in docker" in content) is is_kvm


def test_the_overview_shows_each_class_with_its_worst_workload(summary: Summary) -> None:
    page, terminal, markup = rendered(summary)
    head, *rows = Page(page).tables["overview"]
    assert head == ["Target", "CPU", "System calls", "I/O", "Start-up"]
    named = {row[0].partition(" ")[0]: row for row in rows}
    assert "native#2" not in named
    docker = [" ".join(plain(text).split()) for text in named["docker"]]
    assert re.match(r"1\.01x near-native \[[\d., ]+\]worst: threads 1\.01x", docker[1])
    assert " to " in docker[4]
    assert "worst: threads 1.01x" in plain(markup)
    assert "threads 1.01x" in plain(terminal)
    anchors = [link for link in Page(page).attributes("href") if link.startswith("#cell-docker-")]
    assert anchors


def test_a_summary_without_an_overview_shows_its_headline(summary: Summary) -> None:
    del summary["answers"]
    page, terminal, markup = rendered(summary)
    assert view_of(summary).overview is None
    assert "overview" not in Page(page).tables
    for content in (Page(page).text, " ".join(terminal.split()), markup):
        assert summary["run"]["headline"] in content


def test_undecided_cells_are_shown_with_what_settles_them(summary: Summary) -> None:
    page, terminal, markup = rendered(summary)
    found = shown(UNDECIDED, summary)
    assert found.count == "8 cells"
    assert [way.command for way in found.resuming] == ["isobench run --resume --budget 3m"]
    assert "docker at cpu.threads" in found.resuming[0].names
    assert {cell.name for cell in found.never} >= {"docker at io.fsync"}
    for content in (Page(page).text, " ".join(terminal.split()), markup):
        assert "isobench run --resume --budget 3m" in content
    text = plain(Page(page).text)
    assert "docker at cpu.threads takes at most 1.09x native's time: faster is excluded" in text


def test_names_that_end_in_an_x_are_shown_as_they_are(summary: Summary) -> None:
    cell = summary["answers"]["open_cells"][0]
    cell.update(target="distrobox", command="")
    cell["sentence"] = (
        f"distrobox at {cell['workload']} takes 1.06x to 1.09x, up to 1.09x, native's time."
    )
    sentences = [one.sentence for one in shown(UNDECIDED, summary).never]
    wanted = f"distrobox at {cell['workload']} takes 1.06x to 1.09x, up to 1.09x, native's time."
    assert (
        wanted.replace("6x", "6\N{MULTIPLICATION SIGN}").replace("9x", "9\N{MULTIPLICATION SIGN}")
        in sentences
    )


def test_commands_are_sorted_by_their_time(summary: Summary) -> None:
    cells = summary["answers"]["open_cells"][:5]
    ends = ("--budget 2h", "--budget 90m", "--budget x", "", "--budget 3m --max-blocks 300")
    for cell, end in zip(cells, ends, strict=True):
        cell["command"] = f"isobench run --resume {end}"
    summary["answers"]["open_cells"] = cells
    ways = [
        way.command.removeprefix("isobench run --resume ")
        for way in shown(UNDECIDED, summary).resuming
    ]
    assert ways == ["--budget x", "", "--budget 3m --max-blocks 300", "--budget 90m", "--budget 2h"]


def test_the_terminal_table_has_intervals(summary: Summary) -> None:
    cell_of(summary, "docker", "cpu.sieve").update(level=0.999)
    for width in (60, 80):
        terminal = plain(terminal_of(summary, width))
        assert max(map(len, terminal.splitlines())) <= width
        assert re.search(r"cpu\.sha256 .*1\.00x 0\.99\d?-1\.0\d+ =", terminal)
        assert re.search(r"cpu\.sieve .*-1\.\d+\* =", terminal)
        assert "* An interval at 99.9 %: the cell left the run" in " ".join(terminal.split())


def test_every_ratio_is_in_the_text_of_its_cell(summary: Summary) -> None:
    tables = page_of(summary).tables
    head = [re.sub(r"A/A control$", "", name) for name in tables["matrix"][0]]
    matrix = {row[0]: dict(zip(head, row, strict=True)) for row in tables["matrix"] if len(row) > 1}
    for cell in summary["cells"]:
        shown = matrix[cell["workload"]][cell["target"]]
        number = re.search(r"([\d.]+)\N{MULTIPLICATION SIGN}", shown)
        assert number is not None
        assert float(number[1]) == pytest.approx(cell["ratio"], rel=0.01)
        assert cell["standing"] in shown


def test_every_plotted_row_has_ratio_interval_and_verdict(summary: Summary) -> None:
    rows = [row for row in page_of(summary).tables["plots"] if len(row) == 6][1:]
    stated = [row for row in rows if row[0] == "docker"]
    cells = [c for c in summary["cells"] if c["target"] == "docker" and c["class"] != "startup"]
    stated, means = [row for row in stated if row[5]], [row for row in stated if not row[5]]
    assert [row[2] for row in means] == ["1.01\N{MULTIPLICATION SIGN}"]
    assert len(stated) == len(cells)
    for row, cell in zip(stated, cells, strict=True):
        low, high = map(float, re.findall(r"[\d.]+", row[3]))
        assert [low, high] == pytest.approx(cell["interval"], rel=0.01)
        assert cell["standing"] in row[4]


def test_sessions_are_shown_where_there_are_fewer_than_blocks(summary: Summary) -> None:
    before = rendered(summary)
    cell_of(summary, "docker", "cpu.sieve").update(sessions=3, blocks=15)
    cell_of(summary, "docker", "io.fsync").update(sessions=15, blocks=15)
    page, terminal, plain = rendered(summary)
    assert "15 blocks in 3 sessions" in page
    assert "in this run: 3 of docker" in page
    for content in (page, terminal, plain):
        assert "3 of docker" in content
    assert not any("3 of docker" in content for content in before)


def test_all_statuses_occur_in_the_example(summary: Summary) -> None:
    wanted = {"near-native", "slower", "faster", "inconclusive", "unproven"}
    assert {cell["standing"] for cell in summary["cells"]} == wanted
    marked = {mark.kind for mark in shown(RATIOS, summary).matrix.legend}
    assert marked == wanted | {"gap"}


def test_an_unavailable_target_is_named_with_its_reason_and_hint(summary: Summary) -> None:
    page, terminal, markup = rendered(summary)
    for content in (Page(page).text, " ".join(terminal.split()), markup):
        assert "qemu-riscv64 is not installed" in content
        assert "apt install qemu-user" in content


def test_an_empty_column_says_why(summary: Summary) -> None:
    table = page_of(summary).tables["documents"]
    for row in table[1:3]:
        assert "kvm could not run here" in row[1]
        assert "no target of this technology" in row[4]
    assert "/dev/kvm does not exist" in table[3][1]


def test_a_target_that_was_not_reached_is_not_called_unavailable(summary: Summary) -> None:
    kvm = next(one for one in summary["targets"] if one["name"] == "kvm")
    kvm.update(status="failed", reason="the run ended before it was measured")
    assert "kvm gave no numbers" in page_of(summary).tables["documents"][1][1]
    assert "could not run here" not in page_of(summary).tables["documents"][1][1]


def test_a_gap_is_shown_by_its_cause_and_explained_once(summary: Summary) -> None:
    tables = page_of(summary).tables
    row = next(row for row in tables["matrix"] if row[0] == "io.seq-read")
    assert "timed-out" in row
    gaps = [gap for gap in shown(GAPS, summary).gaps if gap.target == "podman"]
    assert [(gap.workloads, gap.cause) for gap in gaps] == [("io.seq-read", "timed-out")]


def test_targets_with_the_same_reason_are_one_gap_with_one_command(
    summary: Summary,
) -> None:
    left_out = [
        {
            **gap,
            "target": name,
            "detail": "left out",
            "hint": f".venv/bin/isobench run --targets {name}",
        }
        for gap in summary["gaps"][:1]
        for name in ("lxc", "wine")
    ]
    summary["gaps"] += [{**gap, "workload": ""} for gap in left_out]
    (found,) = [gap for gap in shown(GAPS, summary).gaps if gap.detail.shown == "left out"]
    assert found.target == "lxc, wine"
    assert found.hint.shown == ".venv/bin/isobench run --targets lxc,wine"


def test_gaps_of_a_whole_target_are_one_gap(summary: Summary) -> None:
    gaps = [gap for gap in shown(GAPS, summary).gaps if gap.target == "kvm"]
    assert [gap.workloads for gap in gaps] == ["every workload"]


STARTED = (
    "cold: native takes 500\N{NO-BREAK SPACE}µs; 400\N{NO-BREAK SPACE}µs of it is what the kernel"
    " needs to start any program, measured with the smallest one, started by "
)
BY_SUBPROCESS = STARTED + "Python's subprocess, whose own time is in all figures of this run"


@pytest.mark.parametrize(
    ("spawner", "sentence"),
    [("vfork", f"{STARTED}isobench's spawner"), ("subprocess", BY_SUBPROCESS)],
)  # fmt: skip
def test_the_null_spawn_is_shown_with_natives_start(
    summary: Summary, spawner: str, sentence: str
) -> None:
    summary["null_spawns"] = [
        {"workload": "startup.cold", "spawner": spawner, "seconds": 0.0004, "native": 0.0005},
    ]
    seen = view_of(summary)
    assert shown(START_UP, summary).null_spawns == (sentence,)
    assert " ".join(sentence.split()) in Page(html.render(seen, TEMPLATES)).text
    assert f"- {sentence}" in markdown.markdown(seen).replace("\\", "")
    console = Console(file=io.StringIO(), width=1000, record=True)
    text.render(seen, console)
    assert sentence in console.export_text()


def test_a_null_spawn_slower_than_native_shows_a_busy_machine(
    summary: Summary,
) -> None:
    one = {"workload": "startup.cold", "spawner": "vfork", "seconds": 0.0006, "native": 0.0005}
    summary["null_spawns"] = [one]
    (sentence,) = shown(START_UP, summary).null_spawns
    assert "takes 600\N{NO-BREAK SPACE}µs" in sentence
    assert sentence.endswith("the machine was too busy to show the kernel's part")


def test_starts_are_shown_as_time_and_as_ratio(summary: Summary) -> None:
    rows = {row[0].split()[0]: row for row in page_of(summary).tables["starts"][1:]}
    assert "1.20 ms" in " ".join(rows["native"][2].split())
    cold = " ".join(rows["docker"][2].split())
    assert "244 ms" in cold
    assert "203\N{MULTIPLICATION SIGN}" in cold
    assert "network_mode none" in page_of(summary).text


def test_expectations_show_host_and_inside(summary: Summary) -> None:
    text = page_of(summary).text
    assert "6 of 6 expectations met" in text
    assert "pid:[4026532420]" in text


def test_an_expectation_that_is_not_met_is_shown_so(summary: Summary) -> None:
    docker = next(target for target in summary["targets"] if target["name"] == "docker")
    docker["promises"][1].update(kept=False, inside=None)
    proof = next(p for p in shown(EVIDENCE, summary) if p.target.name == "docker")
    assert (proof.verdict, proof.mark.word) == ("5 of 6 expectations met", "not met")
    assert proof.expectations[1].inside.shown == "could not be read"


def test_refuted_claims_come_first_and_untested_claims_are_separate(summary: Summary) -> None:
    claims = shown(CLAIMS, summary)
    words = [claim.mark.word for claim in claims.tested]
    assert words == sorted(words, key=("refuted", "supported", "inconclusive").index)
    assert {claim.mark.word for claim in claims.untested} == {"untested"}
    assert len(claims.all) == len(summary["claims"])


def test_doubts_say_where_they_apply(summary: Summary) -> None:
    doubts = {doubt.text.shown: doubt for doubt in shown(GAPS, summary).doubts}
    clock = doubts["No vDSO: reading the clock costs a system call."]
    assert clock.where[0].target == "qemu-user-aarch64"
    assert "cpu.sieve" in {row.name for row in clock.where[0].rows}
    assert any(doubt.blocks for doubt in doubts.values())


def test_doubts_are_sentences_that_link_to_their_rows_and_back(summary: Summary) -> None:
    cell_of(summary, "docker", "startup.cold")["doubts"] = ["it ran on tmpfs: measure again"]
    page = page_of(summary)
    view = shown(GAPS, summary)
    ids, links = set(page.attributes("id")), page.attributes("href")
    own = [doubt for doubt in view.doubts if doubt.where]
    assert own
    for doubt in own:
        assert doubt.anchor in ids
        assert f"#{doubt.anchor}" in links
        assert doubt.text.shown.endswith(".")
        for place in doubt.where:
            assert all(row.anchor in ids and f"#{row.anchor}" in links for row in place.rows)
    assert "It ran on tmpfs: measure again." in {doubt.text.shown for doubt in own}


def test_every_cell_has_a_number_only_where_every_target_could_run(summary: Summary) -> None:
    summary["gaps"] = []
    assert {one["status"] for one in summary["targets"]} > {"measured"}
    assert "Every planned cell" not in page_of(summary).text
    summary["targets"] = [one for one in summary["targets"] if one["status"] == "measured"]
    assert "Every planned cell has a number." in page_of(summary).text
    summary["cells"] = []
    assert "Every planned cell" not in page_of(summary).text


def test_the_margin_and_the_noise_floors_of_the_run_are_shown(summary: Summary) -> None:
    summary["run"]["margin"] = 0.1
    text = page_of(summary).text
    assert "10 %" in text
    assert "from 0.91\N{MULTIPLICATION SIGN} to 1.10\N{MULTIPLICATION SIGN}" in text
    noise = {one.workload: one for one in shown(METHOD, summary).noise}
    assert not noise["io.fsync"].over
    summary["run"]["margin"] = 0.05
    assert {one.workload for one in shown(METHOD, summary).noise if one.over} == {"io.fsync"}


def test_payload_hashes_are_listed(summary: Summary) -> None:
    text = page_of(summary).text
    assert all(payload["sha256"] in text for payload in summary["run"]["payloads"])


# The documents' table.


def test_the_status_of_a_claim_decides_whether_the_run_agrees(summary: Summary) -> None:
    claim = next(one for one in summary["claims"] if one["id"] == "perf-emulation")
    claim["axes"]["cpu"] = "refuted"
    axis = column_of(summary, "Emulation").axes[0]
    assert (axis.name, axis.mark.word, axis.agreement.word) == ("CPU", "slower", "disagrees")


@pytest.mark.parametrize(
    ("standings", "word", "agreement"),
    [
        (("near-native", "near-native"), "near-native", "agrees"),
        (("near-native", "slower"), "mixed", "disagrees"),
        (("slower", "slower"), "slower", "disagrees"),
        (("near-native", "inconclusive"), "inconclusive", "cannot tell"),
        (("unproven", "unproven"), "unproven", "cannot tell"),
        (("slower", "inconclusive"), "inconclusive", "disagrees"),
    ],
)
def test_without_a_claim_the_cells_decide(
    summary: Summary, standings: tuple[str, str], word: str, agreement: str
) -> None:
    summary["claims"] = []
    workloads = ("cpu.sieve", "cpu.sha256")
    summary["cells"] = [cell_of(summary, "bubblewrap", name) for name in workloads]
    for cell, status in zip(summary["cells"], standings, strict=True):
        cell["standing"] = status
    axis = column_of(summary, "Sandbox").axes[0]
    assert (axis.mark.word, axis.agreement.word) == (word, agreement)


@pytest.mark.parametrize(
    ("relation", "found", "agreement"),
    [
        ("same", "The host's kernel, shared", "agrees"),
        ("unlike", "A kernel of its own", "disagrees"),
        ("unknown", "The kernel could not be identified", "cannot tell"),
    ],
)
def test_the_kernel_comes_from_evidence(
    summary: Summary, relation: str, found: str, agreement: str
) -> None:
    summary["claims"] = []
    box = next(target for target in summary["targets"] if target["name"] == "bubblewrap")
    box["evidence"]["kernel.boot_id"] = relation
    kernel = column_of(summary, "Sandbox").kernel
    assert kernel.found.startswith(found)
    assert kernel.agreement.word == agreement


def test_user_mode_emulation_agrees_in_part(summary: Summary) -> None:
    kernel = column_of(summary, "Emulation").kernel
    assert "The host's kernel" in kernel.found
    assert "aarch64" in kernel.found
    assert kernel.agreement.word == "in part"


def test_a_target_that_a_supported_claim_is_not_about_makes_the_agreement_one_in_part(
    summary: Summary,
) -> None:
    box = next(target for target in summary["targets"] if target["name"] == "bubblewrap")
    other = {**box, "name": "gvisor", "evidence": {"kernel.version": "unlike"}}
    summary["targets"].append(other)
    (claim,) = (claim for claim in summary["claims"] if claim["id"] == "sandbox-kernel")
    assert claim["standing"] == "supported"
    kernel = column_of(summary, "Sandbox").kernel
    assert "A kernel of its own (other boot_id or build in gvisor)" in kernel.found
    assert kernel.agreement is not None
    assert kernel.agreement.word == "in part"


def test_performance_is_never_one_verdict_over_classes(summary: Summary) -> None:
    column = column_of(summary, "Containerization")
    assert [axis.name for axis in column.axes] == ["CPU", "System calls", "I/O"]
    assert "cold" in column.startup


def test_the_control_is_not_listed_as_an_example(summary: Summary) -> None:
    assert shown(RATIOS, summary).matrix.targets[-1].control
    columns = shown(DOCUMENTS, summary)
    assert not any("native" in one.label for column in columns for one in column.ran)


# Runs that went otherwise.


def test_a_quick_run_shows_that_it_has_no_verdicts(summary: Summary) -> None:
    quick(summary)
    page, terminal, markup = rendered(summary)
    for content in (Page(page).text, terminal, markup):
        assert "Quick: no verdicts" in content


def test_an_interrupted_run_shows_that_it_is_partial(summary: Summary) -> None:
    interrupted(summary)
    assert "Interrupted: partial" in page_of(summary).text
    assert "not finished" in page_of(summary).text
    assert "Interrupted: partial" in terminal_of(summary)


def test_a_complete_run_has_no_banner(summary: Summary) -> None:
    assert view_of(summary).banners == ()


def test_a_run_without_cells_shows_this_and_its_gaps(summary: Summary) -> None:
    without_cells(summary)
    text = page_of(summary).text
    assert "Nothing was measured" in text
    assert "apt install qemu-user" in text


def test_without_a_headline_the_cells_are_counted(summary: Summary) -> None:
    summary["run"]["headline"] = ""
    del summary["answers"]
    counted = [cell for cell in summary["cells"] if cell["target"] != "native#2"]
    assert view_of(summary).headline.startswith(f"{len(counted)} cells measured: ")


def test_sixteen_targets_fit_the_terminal_and_the_page(summary: Summary) -> None:
    docker = next(target for target in summary["targets"] if target["name"] == "docker")
    cells = [cell for cell in summary["cells"] if cell["target"] == "docker"]
    for number in range(10):
        summary["targets"].append({**docker, "name": f"another-engine-{number}"})
        summary["cells"] += [{**cell, "target": f"another-engine-{number}"} for cell in cells]
    assert max(map(len, terminal_of(summary).splitlines())) <= 80
    # So many are rows of the overview, and a workload has a column.
    classes, workloads, *rows = page_of(summary).tables["matrix"]
    assert "another-engine-9" in [row[0] for row in rows]
    assert {"CPU", "Start-up"} <= set(classes)
    assert {"sieve", "cold"} <= set(workloads)
    assert {len(row) for row in rows} == {len(workloads)}


# Nothing in a summary is trusted.


def poisoned(value: object, key: str = "") -> object:
    if isinstance(value, dict) and key != "axes":
        return {
            (name if not key or key in {"run", "[]"} else name + EVIL): poisoned(found, name)
            for name, found in value.items()
        }
    if isinstance(value, list):
        return [poisoned(item, "[]" if isinstance(item, dict) else key) for item in value]
    return value + EVIL if isinstance(value, str) and key not in FIXED else value


def test_no_field_can_put_markup_on_the_page(summary: Summary) -> None:
    page, terminal, markup = rendered(poisoned(copy.deepcopy(summary)))  # type: ignore[arg-type]
    assert page.count("&lt;script&gt;") > 100
    assert page.count("<script") == 1  # the page's own
    assert "<script" not in markup
    for content in (page, terminal, markup):
        assert "\x1b" not in content
        assert "\u202e" not in content
    assert r"\x1b[31m" in page


def test_the_link_to_the_records_stays_in_the_folder(summary: Summary) -> None:
    for name in ("javascript:alert(1)", "../secret", "//host/x", "a/b", "", ".hidden"):
        summary["run"]["records"] = name
        assert view_of(summary).records == "records.jsonl"
    del summary["run"]["records"]
    assert view_of(summary).records == "records.jsonl"
    summary["run"]["records"] = "records-2.jsonl"
    assert "records-2.jsonl" in page_of(summary).attributes("href")


def cell_0(key: str, value: object) -> Callable[[Summary], None]:
    return lambda summary: summary["cells"][0].update({key: value})


@pytest.mark.parametrize(
    ("change", "place"),
    [
        (lambda summary: summary.update(cells="none"), "$.cells"),
        (lambda summary: summary["run"].update(margin=float("nan")), "$.run.margin"),
        (lambda summary: summary["run"].update(margin=0), "$.run.margin"),
        (lambda summary: summary["run"].update(records=None), "$.run.records"),
        (lambda summary: summary["run"].update(noise={"cpu.sieve": -1.0}), "$.run.noise[...]"),
        (lambda summary: summary["claims"][0].update(axes={"cpu": EVIL}), "$.claims[0].axes[...]"),
        (lambda summary: summary["courses"][0].update(passes=["text"]), "$.courses[0].passes[0]"),
        (lambda summary: summary["suites"][0].update(unlike=3), "$.suites[0].unlike"),
        (lambda summary: summary["suites"][0].update(interval=[None, "x"]), "$.suites[0].interval"),
        (cell_0("ratio", -1.0), "$.cells[0].ratio"),
        (cell_0("ratio", "text"), "$.cells[0].ratio"),
        (cell_0("value", 10**400), "summary.json"),
        (cell_0("interval", [1.0, 0.5]), "ends below its beginning"),
        (cell_0("standing", "bored"), "$.cells[0].standing"),
    ],
)
def test_a_wrong_summary_is_refused_with_its_place(
    change: Callable[[Summary], None], place: str, summary: Summary
) -> None:
    change(summary)
    with pytest.raises(ValueError, match=r"^summary\.json: ") as caught:
        documents.summary_of(summary)
    assert place in str(caught.value)


def test_a_key_of_a_newer_version_is_ignored(summary: Summary) -> None:
    before = rendered(summary)
    summary["cells"][0]["joules"] = 3
    summary["run"]["weather"] = {"rain": True}
    assert rendered(summary) == before


def test_terminal_markup_in_a_name_is_shown_as_it_is(summary: Summary) -> None:
    summary["gaps"][0]["hint"] = "try [bold]this[/bold] [/]"
    assert "try [bold]this[/bold] [/]" in terminal_of(summary)


def test_a_lone_surrogate_does_not_stop_the_report_from_being_written(summary: Summary) -> None:
    summary["run"]["machine"] = "box \ud800"
    for content in rendered(summary):
        assert r"\ud800" in content.encode("utf-8").decode("utf-8").replace("\\\\", "\\")


def test_long_text_is_clipped_and_kept_whole_in_its_title(summary: Summary) -> None:
    long = "word " * 200
    summary["run"]["machine"] = long
    page = page_of(summary)
    assert long not in page.text
    assert long in page.attributes("title")


def test_an_ascii_console_gets_ascii(summary: Summary) -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding="ascii")
    text.render(view_of(summary), Console(file=stream, width=80, color_system=None))
    stream.flush()
    assert re.search(rb"1\.27x [\d.]+-[\d.]+ >", raw.getvalue())


# Runs of strangers: many cells, many gaps.


def test_each_gap_is_looked_at_once_however_many_cells_are_empty(summary: Summary) -> None:
    whole = documents.summary_of(summary)
    lookup = look_up(structs.replace(whole, gaps=whole.gaps[:1] * 200_000))
    assert {lookup.gap(f"t{n}", f"cpu.w{m}") for n in range(100) for m in range(100)} == {None}
    assert lookup.gap_of_target(whole.gaps[0].target) is whole.gaps[0]


def test_each_cell_is_looked_at_once_however_many_rows_there_are(summary: Summary) -> None:
    whole = documents.summary_of(summary)
    cells = [structs.replace(whole.cells[0], workload=f"cpu.w{n}") for n in range(20_000)]
    lookup = look_up(structs.replace(whole, cells=tuple(cells), workloads=()))
    for row in lookup.workloads:
        assert lookup.reference(row.name) == cells[0].reference
        assert [one.name for one in lookup.columns()] == [cells[0].target]
        assert row.name not in lookup.noise


def test_each_gap_is_looked_at_once_however_many_suites_junit_has(summary: Summary) -> None:
    whole = documents.summary_of(summary)
    gaps = [structs.replace(whole.gaps[0], workload=f"cpu.w{n}") for n in range(20_000)]
    assert junit(structs.replace(whole, gaps=tuple(gaps))).count('<testsuite name="cpu.w') == len(
        gaps
    )


# Numbers.


@pytest.mark.parametrize(
    ("ratio", "bounds", "shown", "interval"),
    [
        (1.0123, (0.9911, 1.0322), "1.01", "[0.99, 1.03]"),
        (27.43, (27.35, 27.52), "27.4", "[27.4, 27.5]"),
        (135.4, (104.0, 166.2), "135", "[104, 166]"),
        (1.02, (0.4, 2.6), "1.0", "[0.4, 2.6]"),
        (1.0004, (0.9991, 1.0012), "1.000", "[0.999, 1.001]"),
        (0.8804, (0.8533, 0.9083), "0.88", "[0.85, 0.91]"),
        (0.01234, (0.01229, 0.0124), "0.0123", "[0.0123, 0.0124]"),
        (1350.2, (1340.0, 1361.0), "1350", "[1340, 1361]"),
        (0.99996, None, "1.00", ""),
    ],
)
def test_a_ratio_has_the_digits_that_its_interval_justifies(
    ratio: float, bounds: tuple[float, float] | None, shown: str, interval: str
) -> None:
    assert ratio_text(ratio, bounds) == f"{shown}\N{MULTIPLICATION SIGN}"
    assert interval_text(bounds, ratio) == interval


@pytest.mark.parametrize(
    ("seconds", "digits", "shown"),
    [
        (1.32e-7, 3, "132 ns"),
        (9.996e-7, 3, "1.00 \N{MICRO SIGN}s"),
        (0.000181, 3, "181 \N{MICRO SIGN}s"),
        (0.2436, 2, "240 ms"),
        (0.001, 1, "1 ms"),
        (9.87, 2, "9.9 s"),
        (0.0, 3, "0 s"),
        (3.2e-10, 2, "0.32 ns"),
        (None, 3, "\N{EM DASH}"),
    ],
)
def test_a_time_has_a_suitable_unit(seconds: float | None, digits: int, shown: str) -> None:
    assert seconds_text(seconds, digits).replace("\N{NO-BREAK SPACE}", " ") == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(0.05, "5 %"), (0.012, "1.2 %"), (0.0037, "0.37 %"), (0.97, "97 %")]
)
def test_a_share_is_shown_in_percent(share: float, shown: str) -> None:
    assert percent_text(share).replace("\N{NO-BREAK SPACE}", " ") == shown


def test_positions_on_an_axis_keep_the_order_of_the_values(summary: Summary) -> None:
    for panel in shown(RATIOS, summary).panels:
        assert 0 < panel.margin_low < panel.one < panel.margin_high < 100
        strips = [row.strip for group in panel.groups for row in group.rows if row.strip]
        assert strips
        assert all(0 <= one.low <= one.point <= one.high <= 100 for one in strips)
        places = [tick.place for tick in panel.ticks]
        assert places == sorted(places)
        assert [tick.label for tick in panel.ticks if tick.major] == ["1\N{MULTIPLICATION SIGN}"]


@pytest.mark.parametrize(
    "ends",
    [(0.98, 1.02), (0.76, 1.35), (0.5, 2.4), (0.9, 2.2), (0.9, 36.0), (0.01, 1.1), (0.9, 4e6)],
)
def test_an_axis_has_a_few_labels_with_room_between_them(
    summary: Summary, ends: tuple[float, float]
) -> None:
    summary["cells"] = [cell_of(summary, "docker", "cpu.sieve")]
    summary["cells"][0].update(ratio=1.0, interval=list(ends))
    ticks = shown(RATIOS, summary).panels[0].ticks
    assert 3 <= len(ticks) <= 8
    assert len({tick.label for tick in ticks}) == len(ticks)
    assert all(after.place - before.place >= 8 for before, after in pairwise(ticks))


def test_a_scale_has_room_for_ratios_of_any_size() -> None:
    for values in ([1e-304, 1e304], [5e-324, 1.0], [1e308]):
        scale = scale_of(values, 0.9, 1.1)
        assert [scale(one) for one in sorted(values)] == sorted(map(scale, values))
        assert 0 < scale(1.0) <= 100
        assert ticks_of(scale, lambda value: f"{value:g}x")


def test_labels_that_do_not_fit_on_a_phone_are_left_out_there() -> None:
    scale = scale_of([0.9, 230], 0.9, 1.1)
    ticks = ticks_of(scale, lambda value: f"{value:g}x")
    labels = [tick.label for tick in ticks]
    assert labels[-2:] == ["100x", "200x"]
    assert [tick.label for tick in ticks if not tick.narrow] == ["200x"]
    roomy = ticks_of(scale_of([1, 3], 0.9, 1.1), lambda value: f"{value:g}x")
    assert all(tick.narrow for tick in roomy)


def test_a_time_with_a_wide_interval_has_fewer_digits(summary: Summary) -> None:
    cell = cell_of(summary, "docker", "cpu.sieve")
    cell.update(value=0.00018123, ratio=1.0, interval=[0.6, 1.4])
    row = next(
        row
        for row in shown(RATIOS, summary).panels[0].groups[0].rows
        if row.target.name == "docker"
    )
    assert row.value == "180\N{NO-BREAK SPACE}\N{MICRO SIGN}s"
