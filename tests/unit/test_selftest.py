"""The proof on simulated truth: its guarantees hold, and a broken estimator breaks them."""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isobench import stats
from isobench.analysis import verdict
from isobench.model import Estimate, Interval, Status
from isobench.selftest import simulate
from isobench.selftest.simulate import SCENARIOS, STOPPED, Finding, Result, Row, Scenario

DOCUMENT = (Path(__file__).parents[2] / "docs" / "statistics.md").read_text()
QUIET = SCENARIOS[0]
REPLICATIONS = 500
FEW = 50


def named(name: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    return found


def row(result: Result, scenario: str, ratio: float, length: str) -> Row:
    (found,) = [
        one
        for one in result.rows
        if (one.scenario, one.ratio, one.length) == (scenario, ratio, length)
    ]
    return found


@pytest.fixture(scope="module")
def whole() -> Result:
    return simulate.run(replications=REPLICATIONS)


@pytest.fixture(scope="module")
def quiet() -> Result:
    return simulate.run(replications=REPLICATIONS, scenarios=[QUIET])


# ---- what is guaranteed


def test_every_guarantee_holds(whole: Result) -> None:
    assert [one.words() for one in whole.broken] == []
    assert simulate.sentence(whole).startswith(f"All {len(whole.findings)} guarantees hold")


def test_every_scenario_is_held_against_a_guarantee_unless_it_says_why_not(whole: Result) -> None:
    for scenario in SCENARIOS:
        held = [one for one in whole.findings if one.what.startswith(f"{scenario.name}, ")]
        assert bool(held) is not bool(scenario.limit)


def test_what_is_guaranteed_is_what_the_method_says(whole: Result) -> None:
    bounds = {one.what: (one.low, one.high) for one in whole.findings}
    assert bounds["drift, true ratio 1.00, 10 blocks: 95 % interval misses it"] == (0.02, 0.09)
    assert bounds["drift, true ratio 1.00, stopped: reported interval holds it"] == (0.95, 1)
    assert bounds["drift, true ratio 1.05, stopped: called near-native"] == (0, 0.05)
    assert bounds["drift, true ratio 1.05, 15 blocks: called slower"] == (0, 0.05)
    assert bounds["drift, true ratio 1.00, 30 blocks: called faster"] == (0, 0.05)
    assert bounds["quiet, true ratio 1.10, stopped: called slower"] == (0.9, 1)


def test_only_few_sessions_have_weaker_guarantees_and_the_sentence_says_so(whole: Result) -> None:
    assert [one.name for one in SCENARIOS if one.weaker] == ["long sessions"]
    assert "For long sessions the guarantee is weaker: errors up to 7 %" in simulate.sentence(whole)
    assert any("long sessions: a weaker guarantee" in one for one in simulate.notes(whole))


def test_naive_practice_finds_differences_where_there_are_none(whole: Result) -> None:
    for scenario in ("quiet", "drift", "trend", "stalls"):
        naive = row(whole, scenario, 1.0, "15").naive_alarms
        assert naive is not None
        assert naive > 0.09 > row(whole, scenario, 1.0, "15").alarms


# ---- what breaks it

Estimates = Callable[..., list[Estimate]]


def scaled(interval: Interval, factor: float) -> Interval:
    middle = math.log(interval.low * interval.high) / 2
    reach = factor * (math.log(interval.high) - middle)
    return dataclasses.replace(
        interval, low=math.exp(middle - reach), high=math.exp(middle + reach)
    )


def bent(factor: float) -> Estimates:
    """Return the estimator with intervals so many times as wide as they should be."""
    right = stats.estimates

    def wrong(*args: Any, **options: Any) -> list[Estimate]:
        return [
            dataclasses.replace(
                one,
                interval=scaled(one.interval, factor),
                equivalence=scaled(one.equivalence, factor),
                check=None if one.check is None else scaled(one.check, factor),
            )
            for one in right(*args, **options)
        ]

    return wrong


def broken_by(
    monkeypatch: pytest.MonkeyPatch, module: object, name: str, wrong: object
) -> list[str]:
    monkeypatch.setattr(module, name, wrong)
    result = simulate.run(replications=300, scenarios=[QUIET])
    assert f"{len(result.broken)} of" in simulate.sentence(result)
    return [one.what for one in result.broken]


def test_intervals_half_as_wide_break_it(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = broken_by(monkeypatch, stats, "estimates", bent(0.5))
    assert "quiet, true ratio 1.00, 15 blocks: 95 % interval misses it" in broken
    assert "quiet, true ratio 1.00, 15 blocks: reported interval holds it" in broken
    assert "quiet, true ratio 1.00, stopped: reported interval holds it" in broken
    assert "quiet, true ratio 1.05, 15 blocks: called near-native" in broken


def test_intervals_twice_as_wide_break_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = broken_by(monkeypatch, stats, "estimates", bent(2.0))
    assert "quiet, true ratio 1.00, 15 blocks: 95 % interval misses it" in broken
    assert "quiet, true ratio 1.00, 15 blocks: called near-native" in broken


def test_an_estimator_that_is_off_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = stats.block_log_ratios
    broken = broken_by(
        monkeypatch, stats, "block_log_ratios", lambda *sides: right(*sides) + math.log(1.02)
    )
    assert "quiet, true ratio 1.00, 15 blocks: reported interval holds it" in broken


def test_a_verdict_by_the_ratio_alone_breaks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    right = verdict.judge

    def wrong(**options: Any) -> Any:
        judged = right(**options)
        near = judged.estimate is not None and judged.estimate.ratio < options["margin"]
        return dataclasses.replace(judged, status=Status.NEAR_NATIVE if near else Status.SLOWER)

    broken = broken_by(monkeypatch, verdict, "judge", wrong)
    assert "quiet, true ratio 1.05, 15 blocks: called near-native" in broken
    assert "quiet, true ratio 1.05, stopped: called slower" in broken


def test_stopping_at_a_narrow_interval_of_few_sessions_is_not_allowed() -> None:
    scenario = dataclasses.replace(named("long sessions"), session=1e-6, launch=1e-6)
    scenario = dataclasses.replace(scenario, iteration=1e-6)
    result = simulate.run(replications=20, scenarios=[scenario])
    assert row(result, "long sessions", 1.0, STOPPED).blocks == 45  # the third begins after 40


# ---- what is simulated


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    first, again, other = (
        simulate.run(replications=FEW, scenarios=[QUIET], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.rows != other.rows


def test_what_else_is_simulated_does_not_change_a_scenario(whole: Result, quiet: Result) -> None:
    assert [one for one in whole.rows if one.scenario == "quiet"] == list(quiet.rows)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_true_ratio_is_what_was_asked_for(scenario: Scenario) -> None:
    runs = simulate._simulate(scenario, ratio=1.10, runs=400, blocks=12, served=4, seed=(3,))
    assert np.median(runs.subject) == pytest.approx(math.log(1.10), abs=0.005)
    assert np.median(runs.control) == pytest.approx(0, abs=0.005)


def test_a_clock_that_ticks_gives_whole_ticks_and_keeps_the_mean() -> None:
    scenario = Scenario(name="ticks", iteration=0.0, launch=0.0, tick=0.4)
    runs = simulate._simulate(scenario, ratio=1.0, runs=2000, blocks=3, served=1, seed=(4,))
    # One second of iterations reads as two or three ticks of 0.4 s.
    assert set(np.round(np.exp(runs.subject.ravel()), 6)) == {round(2 / 3, 6), 1.0, 1.5}
    assert runs.naive_log_ratio.mean() == pytest.approx(0, abs=0.01)


def test_a_wandering_machine_remembers_as_much_as_it_says() -> None:
    scenario = dataclasses.replace(named("drift"), wander=1.0)
    state = simulate._state(np.random.default_rng(5), scenario, 20_000, 12)
    assert state.std() == pytest.approx(1.0, abs=0.02)
    # Three visits are a block.
    assert np.corrcoef(state[:, 2], state[:, 5])[0, 1] == pytest.approx(0.9, abs=0.01)
    assert np.corrcoef(state[:, 2], state[:, 11])[0, 1] == pytest.approx(0.9**3, abs=0.02)


def test_a_trend_grows_as_much_as_it_says() -> None:
    state = simulate._state(np.random.default_rng(6), named("trend"), 1, 61)
    assert math.exp(state[0, 30] - state[0, 0]) == pytest.approx(1.05)
    assert math.exp(state[0, 60] - state[0, 30]) == pytest.approx(1.05)


def test_blocks_share_what_is_slow_so_that_ratios_do_not_see_it() -> None:
    trend = Scenario(name="trend alone", iteration=0.0, launch=0.0, trend=0.5)
    runs = simulate._simulate(trend, ratio=1.0, runs=200, blocks=30, served=1, seed=(7,))
    assert np.abs(runs.subject).max() < math.log(1.5) * 2 / 30 + 1e-9  # two visits apart at most
    assert runs.naive_log_ratio.min() > math.log(1.3)


def test_the_parameters_in_the_notes_are_those_that_were_run() -> None:
    assert named("stalls").words().endswith("5 % of launches take half as long again")
    changed = dataclasses.replace(named("stalls"), stalls=0.2, freedom=2)
    assert "Student's t, 2 df" in changed.words()
    assert "20 % of launches" in changed.words()
    for scenario in SCENARIOS:
        assert scenario.words()


def test_the_documents_figures_are_of_these_scenarios() -> None:
    for scenario in SCENARIOS:
        assert f"- {scenario.name}: {scenario.words()}\n" in DOCUMENT
        assert f"| {scenario.name} | 1.05 |" in DOCUMENT
    assert simulate.RULE in DOCUMENT


# ---- how it is told


@pytest.mark.parametrize(
    ("rate", "low", "high", "exact", "held"),
    [
        (0.95, 0.95, 1.0, False, True),
        (0.93, 0.95, 1.0, False, True),  # 2.05 standard errors of 500 runs
        (0.92, 0.95, 1.0, False, False),
        (0.07, 0.0, 0.05, False, True),
        (0.08, 0.0, 0.05, False, False),
        (0.09, 0.02, 0.09, True, True),
        (0.092, 0.02, 0.09, True, False),
        (0.018, 0.02, 0.09, True, False),
    ],
)
def test_a_guarantee_is_broken_by_more_than_chance_explains(
    rate: float, low: float, high: float, exact: bool, held: bool
) -> None:
    finding = Finding(what="it", rate=rate, runs=500, low=low, high=high, exact=exact)
    assert finding.held is held


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.95, 1.0, "it: 4 %, guaranteed at least 95 %"),
        (0.0, 0.05, "it: 4 %, guaranteed at most 5 %"),
        (0.02, 0.09, "it: 4 %, guaranteed 2 % to 9 %"),
    ],
)
def test_a_finding_says_its_bounds(low: float, high: float, words: str) -> None:
    assert Finding(what="it", rate=0.04, runs=1, low=low, high=high).words() == words


def test_every_row_stands_in_a_table(whole: Result) -> None:
    same, verdicts = simulate.tables(whole)
    assert len(same.rows) == len(SCENARIOS) * 5
    assert len(verdicts.rows) == len(SCENARIOS) * 4
    for table in (same, verdicts):
        assert {len(line) for line in table.rows} == {len(table.head)}
    assert same.rows[4][0:2] == ("quiet", f"stopped, {row(whole, 'quiet', 1.0, STOPPED).blocks:g}")


def test_markdown_holds_tables_notes_and_the_sentence(quiet: Result) -> None:
    said = simulate.markdown(quiet)
    assert "| quiet | 10 |" in said
    assert "| quiet | 1.05 |" in said
    assert "seed 1" in said
    assert said.endswith(f"**{simulate.sentence(quiet)}**")
    assert all(f"- {line}" in said for line in simulate.notes(quiet))


def test_families_are_figures_and_no_guarantee(whole: Result) -> None:
    found = whole.families
    assert found is not None
    assert found.families == REPLICATIONS * 7 // 20  # the crude timer has none
    assert found.own > 0.5  # of twenty cells at 5 % each
    assert found.adjusted < 0.15
    assert not any("Holm" in one.what for one in whole.findings)


def test_few_runs_make_no_family() -> None:
    result = simulate.run(replications=10, scenarios=[QUIET])
    assert result.families is None
    assert "Holm" not in simulate.markdown(result)


def test_a_document_holds_the_figures(quiet: Result) -> None:
    document = simulate.document(quiet)
    assert document["held"] is True
    assert document["rows"][0]["coverage"] == quiet.rows[0].coverage
    assert all(one["held"] for one in document["findings"])


def test_progress_is_heard_row_by_row() -> None:
    heard: list[tuple[str, int, int]] = []
    simulate.run(replications=10, scenarios=[QUIET], progress=lambda *step: heard.append(step))
    assert heard[0] == ("quiet: true ratio 1.00", 0, 11)
    assert [done for _, done, _ in heard] == list(range(11))
