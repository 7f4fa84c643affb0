"""A class of workloads as a whole: the geometric mean of its ratios, block by block."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis import summary as analysis
from isobench.model import Leaving
from isobench.model.units import TargetName, WorkloadName
from isobench.report import html, markdown, sections
from isobench.report.exporters.openmetrics import openmetrics
from isobench.report.sections.gaps import GAPS
from isobench.report.sections.ratios import RATIOS
from isobench.stats.sequential import RULE
from isobench.storage import documents, reader
from isobench.storage.schema import Summary
from tests.unit.conftest import Synthetic

DATA = Path(__file__).parents[1] / "data"
TEMPLATES = Path(__file__).parents[2] / "reports" / "templates"
THREE = ("cpu.sieve", "cpu.matmul", "cpu.sha256")


def ratios(*each: float, target: str = "box") -> dict[tuple[str, str], float]:
    return {(target, name): ratio for name, ratio in zip(THREE, each, strict=False)}


def class_means(tmp_path: Path, run: Synthetic) -> dict[tuple[str, str], dict[str, Any]]:
    summary = analysis.summarise(reader.load(run.write(tmp_path / "run")), ())
    return {
        (one["target"], one["class"]): one
        for one in json.loads(documents.encoded(summary))["suites"]
    }


def test_the_mean_is_geometric_and_its_interval_holds_it(tmp_path: Path) -> None:
    truth = (1.2 * 2.0 * 4.0) ** (1 / 3)
    held = 0
    for seed in range(20):
        run = Synthetic(ratios=ratios(1.2, 2.0, 4.0), seed=seed)
        box = class_means(tmp_path / str(seed), run)["box", "cpu"]
        assert box["ratio"] == pytest.approx(truth, rel=0.02)
        held += box["interval"][0] < truth < box["interval"][1]
    assert held >= 17, "of 20 at a nominal 97 %; fewer in one of 400 sets of runs"
    assert (box["standing"], box["blocks"], box["workloads"]) == ("slower", 15, [*THREE])
    assert len(box["log_ratios"]) == 15


def test_native_against_native_has_a_mean_and_gives_its_noise_floor(tmp_path: Path) -> None:
    found = class_means(tmp_path, Synthetic(ratios=ratios(1.0, 1.0, 1.0)))
    control, box = found["native#2", "cpu"], found["box", "cpu"]
    low, high = control["equivalence"]
    assert box["noise"] == pytest.approx(max(high, 1 / low) - 1, abs=1e-6)
    assert box["standing"] == control["standing"] == "near-native"


def test_a_mean_that_is_near_native_names_what_it_hides(tmp_path: Path) -> None:
    box = class_means(tmp_path, Synthetic(ratios=ratios(1.25, 1.0, 0.8)))["box", "cpu"]
    assert box["standing"] == "near-native"
    assert box["unlike"] == ["cpu.sieve", "cpu.sha256"]
    alike = Synthetic(ratios=ratios(1.0, 1.0, 1.0, target="jar"))
    assert class_means(tmp_path / "b", alike)["jar", "cpu"]["unlike"] == []


def test_only_blocks_with_every_workload_count(tmp_path: Path) -> None:
    run = Synthetic(
        ratios=ratios(2.0, 2.0, 2.0),
        missing={("box", "cpu.sieve"): frozenset({1, 2}), ("box", "cpu.sha256"): frozenset({2, 3})},
    )
    assert class_means(tmp_path, run)["box", "cpu"]["blocks"] == 12


def test_where_a_workload_is_lacking_there_is_no_mean_over_fewer(tmp_path: Path) -> None:
    run = Synthetic(
        ratios={**ratios(2.0, 2.0, 2.0), **ratios(2.0, 2.0, 2.0, target="jar")},
        missing={("box", "cpu.sieve"): frozenset(range(16))},
    )
    found = class_means(tmp_path, run)
    box, jar = found["box", "cpu"], found["jar", "cpu"]
    assert (box["ratio"], box["standing"], box["lacking"]) == (None, None, ["cpu.sieve"])
    assert jar["ratio"] == pytest.approx(2.0, rel=0.02)


def test_a_class_of_one_workload_is_that_workload(tmp_path: Path) -> None:
    assert class_means(tmp_path, Synthetic(ratios=ratios(2.0))) == {}


def test_kinds_of_start_are_never_averaged(tmp_path: Path) -> None:
    starts = {("box", "startup.cold"): 100.0, ("box", "startup.exec"): 2.0}
    assert {group for _, group in class_means(tmp_path, Synthetic(ratios=starts))} == set()


def test_what_takes_a_workload_its_verdict_takes_it_from_the_mean(tmp_path: Path) -> None:
    run = Synthetic(
        ratios=ratios(2.0, 2.0, 2.0),
        missing={("box", "cpu.matmul"): frozenset(range(1, 8))},
    )
    box = class_means(tmp_path, run)["box", "cpu"]
    assert box["standing"] == "unproven"
    assert any(doubt.startswith("cpu.matmul: only 8 of 15 blocks") for doubt in box["doubts"])


@pytest.mark.parametrize("ratio", [0.7, 1.0])
@pytest.mark.parametrize("has_left", [False, True])
def test_slow_blocks_of_a_workload_take_the_mean_its_verdict(
    ratio: float, has_left: bool, tmp_path: Path
) -> None:
    left = Leaving(
        block=14, target=TargetName("box"), workload=WorkloadName("cpu.matmul"), share=0.5
    )
    run = Synthetic(
        ratios=ratios(ratio, ratio),
        blocks=20,
        slow={("box", "cpu.sieve"): frozenset({3, 8, 13, 18})},
        leavings=[left] if has_left else [],
        about={"sequential": RULE.name} if has_left else {},
    )
    box = class_means(tmp_path, run)["box", "cpu"]
    assert box["standing"] == "unproven"
    assert any(doubt.startswith("cpu.sieve: 4 of 20 blocks are") for doubt in box["doubts"])


def test_slow_blocks_of_the_mean_count_where_each_workload_has_few(tmp_path: Path) -> None:
    slow = {("box", name): frozenset({2 + place}) for place, name in enumerate(THREE)}
    run = Synthetic(ratios=ratios(1.0, 1.0, 1.0), slow=slow)
    box = class_means(tmp_path, run)["box", "cpu"]
    assert (box["standing"], box["doubt_codes"]) == ("unproven", ["slow-blocks"])


def test_sessions_that_serve_several_blocks_are_the_unit_of_a_mean_too(tmp_path: Path) -> None:
    kept = Synthetic(ratios=ratios(2.0, 2.0, 2.0), sessions={"box": 3}, session_spread=0.05)
    fresh = Synthetic(ratios=ratios(2.0, 2.0, 2.0), session_spread=0.05)
    wide = class_means(tmp_path / "a", kept)["box", "cpu"]
    narrow = class_means(tmp_path / "b", fresh)["box", "cpu"]
    assert (wide["sessions"], narrow["sessions"]) == (5, 15)
    width = [math.log(one["interval"][1] / one["interval"][0]) for one in (wide, narrow)]
    assert width[0] > width[1]


# ---- reports


@pytest.fixture
def summary() -> Summary:
    return documents.read_summary(DATA)


def test_the_overview_has_a_row_for_the_mean_of_each_class_that_has_one(
    summary: Summary,
) -> None:
    report = sections.build(summary)
    ratios_ = RATIOS.of(report)
    assert ratios_ is not None
    rows = {row.workload: row for group in ratios_.matrix.groups for row in group.rows}
    assert "cpu: mean" in rows
    assert "io: mean" not in rows
    cells = dict(
        zip((one.name for one in ratios_.matrix.targets), rows["cpu: mean"].cells, strict=True)
    )
    assert (cells["docker"].ratio, cells["docker"].mark.kind) == (
        "1.01\N{MULTIPLICATION SIGN}",
        "near-native",
    )
    assert (cells["podman"].ratio, cells["podman"].mark.kind) == ("\N{EM DASH}", "gap")
    assert "a workload of the class has no ratio" in cells["podman"].detail
    assert "cpu: mean" in markdown.markdown(report)


def test_the_plot_of_a_class_ends_with_its_means_and_their_exceptions(
    summary: Summary,
) -> None:
    report = sections.build(summary)
    ratios_ = RATIOS.of(report)
    assert ratios_ is not None
    (last,) = [panel.groups[-1] for panel in ratios_.panels if panel.title == "CPU"]
    assert last.workload == "mean of CPU"
    assert [row.target.name for row in last.rows] == ["docker", "bubblewrap"]
    assert last.rows[0].note == "except cpu.threads"
    assert len(last.rows[1].doubts) == 1
    assert last.rows[1].doubts[0].startswith("doubt-")
    assert "noise floor 1.3" in last.noise
    page = html.render(report, TEMPLATES)
    assert page.count(f'id="{last.anchor}"') == page.count(f'href="#{last.anchor}"') == 1


def test_doubts_about_a_mean_are_listed_with_the_others(summary: Summary) -> None:
    found = GAPS.of(sections.build(summary))
    assert found is not None
    (doubt,) = [one for one in found.doubts if "--blocks 80" in one.text.shown]
    (place,) = doubt.where
    assert (place.target, [row.name for row in place.rows]) == ("bubblewrap", ["cpu: mean"])


def test_open_metrics_has_the_mean_of_each_class(summary: Summary) -> None:
    text = openmetrics(summary)
    labels = 'class="cpu",target="docker",reference="native"'
    assert f'isobench_class_ratio{{{labels},bound="upper"}} 1.03' in text
    assert 'class="cpu",target="podman"' not in text
