"""Runs are simulated as their scenario says."""

import dataclasses
import math

import numpy as np
import pytest

from isobench.model import Status
from isobench.report import selftest as view
from isobench.selftest import guarantees, planted, simulate
from isobench.selftest.scenarios import SCENARIOS, Scenario
from isobench.selftest.simulate import LEFT, STOPPED

QUIET = SCENARIOS[0]
FEW = 50


def named(name: str) -> Scenario:
    (found,) = [scenario for scenario in SCENARIOS if scenario.name == name]
    return found


def test_stopping_at_a_narrow_interval_of_few_sessions_is_not_allowed() -> None:
    scenario = dataclasses.replace(named("long sessions"), session=1e-6, launch=1e-6)
    scenario = dataclasses.replace(scenario, iteration=1e-6)
    result = simulate.run(replications=20, scenarios=[scenario])
    assert result.row("long sessions", 1.0, STOPPED).blocks == 42  # the third begins after 40


def test_the_same_seed_gives_the_same_figures_and_another_seed_others() -> None:
    first, again, other = (
        simulate.run(replications=FEW, scenarios=[QUIET], seed=seed) for seed in (1, 1, 2)
    )
    assert first == again
    assert first.rows != other.rows


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_the_true_ratio_is_what_was_requested(scenario: Scenario) -> None:
    runs = simulate.simulated(scenario, ratio=1.10, runs=400, blocks=12, served=4, seed=(3,))
    assert np.median(runs.subject) == pytest.approx(math.log(1.10), abs=0.005)
    assert np.median(runs.control) == pytest.approx(0, abs=0.005)


def test_a_clock_that_ticks_gives_whole_ticks_and_keeps_the_mean() -> None:
    scenario = Scenario(name="ticks", iteration=0.0, launch=0.0, tick=0.4)
    runs = simulate.simulated(scenario, ratio=1.0, runs=2000, blocks=3, served=1, seed=(4,))
    # One second of iterations reads as two or three ticks of 0.4 s.
    assert set(np.round(np.exp(runs.subject.ravel()), 6)) == {round(2 / 3, 6), 1.0, 1.5}
    assert runs.naive_log_ratio.mean() == pytest.approx(0, abs=0.01)


def test_a_drifting_machine_remembers_as_much_as_it_says() -> None:
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
    runs = simulate.simulated(trend, ratio=1.0, runs=200, blocks=30, served=1, seed=(7,))
    assert np.abs(runs.subject).max() < math.log(1.5) * 2 / 30 + 1e-9  # two visits apart at most
    assert runs.naive_log_ratio.min() > math.log(1.3)


def test_blocks_that_are_alike_have_the_correlation_of_their_scenario() -> None:
    runs = simulate.simulated(
        named("alike blocks"), ratio=1.1, runs=2000, blocks=30, served=1, seed=(8,)
    )
    for rows, middle in ((runs.subject, math.log(1.1)), (runs.control, 0.0)):
        off = rows - middle
        found = np.corrcoef(off[:, 10:-1].ravel(), off[:, 11:].ravel())[0, 1]
        assert found == pytest.approx(0.2, abs=0.01)
        assert off[:, -1].std() == pytest.approx(off[:, 0].std(), rel=0.06)


def test_a_cell_far_from_the_margin_leaves_at_the_first_analysis() -> None:
    row = simulate.run(replications=40, scenarios=[QUIET]).row("quiet", 100.0, LEFT)
    assert (row.blocks, row.rate(Status.SLOWER)) == (pytest.approx(5, abs=0.3), 1.0)


def test_a_cell_on_the_margin_stays_until_the_end() -> None:
    row = simulate.run(replications=40, scenarios=[QUIET]).row("quiet", 1.05, LEFT)
    assert row.blocks == pytest.approx(60, abs=3)


def test_a_bias_of_native_is_in_both_ratios_and_a_bias_of_the_order_in_neither() -> None:
    shared = planted.Plant(name="it", ratio=1.0, native=0.05)
    ordered = planted.Plant(name="it", ratio=1.0, first=0.05)
    for plant, bias in ((shared, 0.05), (ordered, 0.0)):
        for rows in planted._log_ratios(plant, 20, 400, (9,)):
            assert rows.mean() == pytest.approx(bias, abs=0.001)


def test_what_a_bias_makes_wrong_the_control_withholds() -> None:
    plant = planted.Plant(name="it", ratio=1.05, native=0.05)
    row = planted._row(plant, 60, 200, (10,))
    assert min(row.found, row.ignored) > 0.95
    assert row.wrong < 0.05


def test_few_runs_make_no_family() -> None:
    result = simulate.run(replications=10, scenarios=[QUIET])
    assert result.families is None
    assert "Holm" not in view.markdown(guarantees.check(result))


def test_progress_is_reported_row_by_row() -> None:
    steps: list[tuple[str, int, int]] = []
    simulate.run(replications=10, scenarios=[QUIET], progress=lambda *step: steps.append(step))
    assert steps[0] == ("quiet: true ratio 1.00", 0, 17)
    assert [done for _, done, _ in steps] == list(range(17))
