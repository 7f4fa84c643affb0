"""The control as a test: when native differs from native, and what follows."""

import math

import numpy as np
import pytest

from isobench.model import Interval
from isobench.stats import Location, biases, locate, widened


def control(mean: float, error: float = 0.005, freedom: float = 11) -> Location:
    return Location(mean=mean, error=error, deviation=0.03, freedom=freedom, method="t")


def test_a_control_that_differs_from_native_is_found_with_its_interval() -> None:
    found = biases({"cpu.sieve": control(0.03)})
    assert found["cpu.sieve"].level == 0.99
    assert 1.01 < found["cpu.sieve"].low < math.exp(0.03) < found["cpu.sieve"].high


def test_a_control_that_may_equal_native_is_left_out() -> None:
    assert biases({"cpu.sieve": control(0.01), "cpu.hash": control(-0.01)}) == {}


def test_no_control_has_no_bias() -> None:
    assert biases({}) == {}


def test_many_controls_are_tested_together() -> None:
    """Alone, p is 0.7 %; of fifteen, one in ten runs has such a control by chance."""
    odd = control(0.0165)
    assert odd.p_difference == pytest.approx(0.007, abs=0.001)
    assert biases({"a": odd}) != {}
    assert biases({"a": odd} | {str(n): control(0.0) for n in range(14)}) == {}


def test_few_runs_of_equal_controls_find_a_bias() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(1000):
        rows = 0.03 * rng.standard_normal((15, 20))
        alarms += bool(biases({n: locate(row) for n, row in enumerate(rows)}))
    assert alarms / 1000 <= 0.025, "1 %, and the tails of the trimmed t"


def test_counted_values_that_always_differ_have_a_bias_without_an_error() -> None:
    assert set(biases({"off": control(0.1, error=0.0), "equal": control(0.0, error=0.0)})) == {
        "off"
    }


@pytest.mark.parametrize(("low", "high"), [(1.01, 1.04), (1 / 1.04, 1 / 1.01)])
def test_an_interval_grows_by_the_far_end_of_a_bias_on_both_sides(low: float, high: float) -> None:
    interval = Interval(low=1.1, high=1.3, level=0.97)
    found = widened(interval, Interval(low=low, high=high, level=0.99))
    assert found.ends == (pytest.approx(1.1 / 1.04), pytest.approx(1.3 * 1.04))
    assert found.level == 0.97
