"""The self-test in words."""

import dataclasses
from pathlib import Path

import pytest

from isobench.report import selftest as view
from isobench.selftest import guarantees, planted, simulate
from isobench.selftest.guarantees import Figure, Finding, Result
from isobench.selftest.scenarios import SCENARIOS, Scenario
from isobench.selftest.simulate import STOPPED, Place, Simulation

DOCUMENT = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()


CONTROL = planted.run(replications=20, seed=1)


def named(name: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    return found


@pytest.fixture(scope="module")
def every() -> Simulation:
    """Return all rows, of few runs each."""
    return simulate.run(replications=20)


@pytest.fixture(scope="module")
def quiet() -> Result:
    return guarantees.check(simulate.run(replications=500, scenarios=SCENARIOS[:1]))


def test_the_notes_show_the_parameters_of_the_scenarios() -> None:
    assert view.scenario_text(named("stalls")).endswith("5 % of launches take 1.5 times as long")
    changed = dataclasses.replace(named("stalls"), stalls=0.2, freedom=2)
    assert "Student's t, 2 df" in view.scenario_text(changed)
    assert "20 % of launches" in view.scenario_text(changed)
    for scenario in SCENARIOS:
        assert view.scenario_text(scenario)


def test_the_figures_in_the_document_are_of_these_scenarios() -> None:
    for scenario in SCENARIOS:
        assert f"- {scenario.name}: {view.scenario_text(scenario)}\n" in DOCUMENT
        assert f"| {scenario.name} | 1.05 |" in DOCUMENT
    assert view.BOUNDS in DOCUMENT


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.95, 1.0, "95 % interval misses it: 4 %, guaranteed at least 95 %"),
        (0.0, 0.05, "95 % interval misses it: 4 %, guaranteed at most 5 %"),
        (0.02, 0.09, "95 % interval misses it: 4 %, guaranteed 2 % to 9 %"),
    ],
)
def test_a_finding_names_its_bounds(low: float, high: float, words: str) -> None:
    place = Place(scenario="quiet", ratio=1.0, length="10")
    finding = Finding(place=place, figure=Figure.ALARMS, rate=0.04, runs=1, low=low, high=high)
    assert view.finding_text(finding) == f"quiet, true ratio 1.00, 10 blocks: {words}"


def test_every_row_is_in_a_table(every: Simulation) -> None:
    same, verdicts, leaving, biases = view.tables(guarantees.check(every, CONTROL))
    assert len(same.rows) == len(SCENARIOS) * 5
    assert len(verdicts.rows) == len(SCENARIOS) * 4
    assert len(leaving.rows) == len(SCENARIOS) * 6
    assert len(biases.rows) == len(planted.PLANTS) * 2
    for table in (same, verdicts, leaving, biases):
        assert {len(line) for line in table.rows} == {len(table.head)}
    assert same.rows[4][0:2] == ("quiet", f"stopped, {every.row('quiet', 1.0, STOPPED).blocks:g}")


def test_markdown_holds_tables_notes_and_the_sentence(quiet: Result) -> None:
    content = view.markdown(quiet)
    assert "| quiet | 10 |" in content
    assert "| quiet | 1.05 |" in content
    assert "seed 1" in content
    assert content.endswith(f"**{view.sentence(quiet)}**")
    assert all(f"- {line}" in content for line in view.notes(quiet))


def test_the_notes_say_how_often_a_bias_is_found_where_there_is_none(quiet: Result) -> None:
    (note,) = (
        one for one in view.notes(dataclasses.replace(quiet, control=CONTROL)) if "bias" in one
    )
    assert note.startswith("Of 20 runs without a bias, ")
    assert "any of 15 controls" in note


def test_a_document_holds_the_figures(quiet: Result) -> None:
    document = view.document(quiet)
    assert document["held"] is True
    assert document["rows"][0]["coverage"] == quiet.simulation.rows[0].coverage
    assert all(one["held"] for one in document["findings"])


def test_the_document_has_the_keys_that_scripts_read(quiet: Result) -> None:
    document = view.document(quiet)
    assert list(document) == [
        *("seed", "replications", "scenarios", "rows", "families", "findings", "held", "sentence"),
        "control",
    ]
    assert list(document["rows"][0]) == [
        *("scenario", "ratio", "length", "runs", "blocks", "alarms", "coverage", "half_width"),
        *("standings", "naive_alarms", "naive_same", "naive_half_width"),
    ]
    assert list(document["findings"][0]) == [
        *("what", "rate", "runs", "low", "high", "exact", "held"),
    ]
    what = document["findings"][0]["what"]
    assert what == "quiet, true ratio 1.00, 10 blocks: 95 % interval misses it"
