"""How a visit goes, pass by pass: warm-up is shown and not assumed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from isobench.analysis import summary as analysis
from isobench.analysis.warmup import WarmupProfile, warmup_profile_of
from isobench.evidence import doubts
from isobench.report import html, sections
from isobench.report.sections.ratios import RATIOS
from isobench.storage import documents, reader
from tests.unit.conftest import Synthetic, sample

DATA = Path(__file__).parents[1] / "data"
TEMPLATES = Path(__file__).parents[2] / "reports" / "templates"
STEADY = [1000] * 5


def recorded(*visits: tuple[list[int], list[int]]) -> pd.DataFrame:
    """Return the records of a cell whose visits had these warm-up and timed passes."""
    rows = [
        {"block": block, "metric": metric, "iteration": i, "value": value}
        for block, both in enumerate(visits, start=1)
        for metric, passes in zip(("warmup", "time"), both, strict=True)
        for i, value in enumerate(passes)
    ]
    return pd.DataFrame(rows, columns=["block", "metric", "iteration", "value"])


def profile(*visits: tuple[list[int], list[int]]) -> WarmupProfile:
    found = warmup_profile_of(recorded(*visits))
    assert found is not None
    return found


def test_each_pass_is_held_against_the_timed_ones_of_its_own_visit() -> None:
    found = profile(([3000], STEADY), ([60], [20] * 5), ([3000], STEADY))
    assert found.passes == (3.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert (found.warmups, found.timed, found.visits, found.late) == (1, 5, 3, 0)


def test_passes_that_are_slower_in_visit_after_visit_are_late() -> None:
    warming = ([3000], [1500, 1100, 1000, 1000, 1000, 1000, 1000])
    assert profile(*[warming] * 12).late == 2


def test_a_few_visits_show_nothing_and_one_slow_pass_among_many_neither() -> None:
    warming = ([3000], [1500, 1000, 1000, 1000, 1000])
    steady = ([1000], STEADY)
    assert profile(*[warming] * 3).late == 0
    assert profile(*[warming] * 3, *[steady] * 12).late == 0


def test_a_pass_by_less_than_two_percent_slower_is_no_matter() -> None:
    assert profile(*[([1000], [1015, 1000, 1000, 1000, 1000])] * 20).late == 0


def test_order_of_the_records_does_not_matter() -> None:
    frame = recorded(*[([3000], [1500, 1000, 1000])] * 8)
    shuffled = frame.sample(frac=1, random_state=1)
    assert warmup_profile_of(shuffled) == warmup_profile_of(frame)


def test_of_many_passes_the_first_ones_are_told() -> None:
    found = profile(*[([1000], [1000] * 300)] * 6)
    assert found.timed == 300
    assert len(found.passes) == 25


@pytest.mark.parametrize(
    "visits",
    [
        (),
        (([], STEADY),),
        (([1000], [1000]),),
        (([1000], STEADY), ([1000], [1000, 1000])),
        (([1000], STEADY), ([], STEADY)),
        (([0], STEADY),),
    ],
    ids=["nothing", "no warm-up", "one pass", "uneven", "one without", "no time"],
)
def test_what_cannot_be_held_together_gives_no_course(
    visits: tuple[tuple[list[int], list[int]], ...],
) -> None:
    assert warmup_profile_of(recorded(*visits)) is None


# ---- doubts


def test_late_passes_that_reach_into_the_median_are_a_doubt_with_what_to_type() -> None:
    (doubt,) = doubts.of_warmup(2, 5, 1)
    assert doubt.code == "warm-up"
    assert "first 2 of 5" in doubt.detail
    assert doubt.advice == "--warmup 5"
    assert not doubt.blocks
    assert doubts.of_warmup(1, 5, 1) == ()
    assert doubts.of_warmup(0, 5, 1) == ()


def summary_of(tmp_path: Path, passes: tuple[int, ...]) -> dict[str, Any]:
    run = Synthetic(ratios={("box", "cpu.sieve"): 2.0}, blocks=12, noise=0.0)
    run.samples = [
        sample(block, target, "cpu.sieve", passes[0], metric="warmup", operations=1000)
        for block in range(1, 13)
        for target in ("native", "box")
    ]
    summary: dict[str, Any] = json.loads(
        documents.encoded(analysis.summarise(reader.load(run.write(tmp_path / "run")), ()))
    )
    return summary


def test_a_summary_tells_the_course_of_each_cell_native_included(tmp_path: Path) -> None:
    summary = summary_of(tmp_path, (4_000_000,))
    told = {(one["target"], one["workload"]): one for one in summary["courses"]}
    assert set(told) == {("native", "cpu.sieve"), ("box", "cpu.sieve")}
    box = told["box", "cpu.sieve"]
    assert (box["warmups"], box["timed"], box["visits"], box["late"]) == (1, 3, 12, 0)
    assert np.allclose(box["passes"][1:], 1.0)


def test_the_page_shows_the_course_of_each_cell_native_first() -> None:
    report = sections.build(documents.read_summary(DATA))
    ratios = RATIOS.of(report)
    assert ratios is not None
    rows = {panel.title: panel.warmup_profiles for panel in ratios.panels}
    assert [row.target for row in rows["CPU"]] == ["native", "docker"]
    docker = rows["CPU"][1]
    assert (docker.first, docker.late) == ("1.42\N{MULTIPLICATION SIGN}", "first 1 of 5 slower")
    assert [one.timed for one in docker.passes] == [False, *[True] * 5]
    assert all(0 <= one.top <= 100 and one.top + one.height <= 100.1 for one in docker.passes)
    page = html.render(report, TEMPLATES)
    assert "CPU: warm-up" in page
    assert "I/O: warm-up" not in page, "nothing was recorded there"
