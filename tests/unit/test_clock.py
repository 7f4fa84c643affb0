"""A payload's clock against the host's over the same spans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench.evidence import clock

HOST = [100_000_000] * 5


def sure(found: clock.ClockCheck | None) -> clock.ClockCheck:
    assert found is not None
    return found


def test_clocks_that_agree_are_trusted() -> None:
    found = sure(clock.check([100_000_000] * 5, [100_400_000] * 5, 20_000))
    assert found.trusted
    assert found.slope == pytest.approx(0.996, abs=0.001)


@pytest.mark.parametrize("slope", [0.5, 0.9, 1.1, 2.0])
def test_a_clock_that_runs_at_another_speed_is_not_trusted(slope: float) -> None:
    found = sure(clock.check([int(h * slope) for h in HOST], HOST, 20_000))
    assert not found.trusted
    assert found.runs
    assert found.slope == pytest.approx(slope)


@pytest.mark.parametrize("guest", [0, -5])
def test_a_clock_that_stands_still_or_goes_back_does_not_run(guest: int) -> None:
    found = sure(clock.check([*HOST[1:], guest], HOST, 20_000))
    assert not found.runs
    assert not found.trusted


def test_spans_too_short_against_the_way_to_the_host_show_nothing() -> None:
    assert clock.check([90, 90], [100, 100], 10) is None
    assert clock.check([], [], 10) is None


def test_short_spans_show_a_clock_that_no_way_to_the_host_could_excuse() -> None:
    # Two hundredths of a second on the way, seven tenths outside, fourteen seconds inside.
    fast = sure(clock.check([14_000] * 3, [700] * 3, 20 * 3))
    assert (fast.trusted, fast.long, fast.runs) == (False, False, True)
    assert fast.slope == pytest.approx(14_000 / (700 + 120))
    slow = sure(clock.check([10] * 3, [700] * 3, 60))
    assert not slow.trusted
    assert slow.slope == pytest.approx(10 / (700 - 120))
    # Both lines arrived together: the host saw nothing pass.
    assert not sure(clock.check([2_500], [0], 200)).trusted
    # What may have been hidden on the way is no fault of the clock.
    assert clock.check([900], [700], 120) is None
    assert clock.check([0], [200], 120) is None


def test_only_spans_that_are_long_enough_count() -> None:
    # Twenty dispatch costs are not more than twenty; one more nanosecond is.
    assert not clock.long_enough(200, 10)
    assert clock.long_enough(201, 10)
    found = sure(clock.check([1, 1_000_000], [100, 1_000_000], 10))
    assert found.slope == 1


def test_a_slow_way_to_the_host_widens_what_a_clock_is_allowed() -> None:
    guest, host = [950_000] * 3, [1_000_000] * 3
    assert sure(clock.check(guest, host, 30_000)).trusted
    assert not sure(clock.check(guest, host, 1_000)).trusted


def test_the_error_is_twice_the_way_to_the_host_in_a_span() -> None:
    assert sure(clock.check(HOST, HOST, 1_000_000)).error == pytest.approx(0.02)


@given(st.lists(st.integers(10_000, 10**10), min_size=1), st.integers(1, 10**6))
def test_what_the_way_to_the_host_may_hide_is_never_more_than_a_tenth(
    host: list[int], dispatch: int
) -> None:
    found = clock.check(host, host, dispatch)
    assert found is None or found.error < 2 / clock.LONG_SPAN


def test_a_line_that_is_received_late_now_and_then_accuses_no_clock() -> None:
    # Native's own clock, whose first line was heard 9 ms late in two visits of five.
    host = [100_000_000, 91_000_000, 100_000_000, 91_000_000, 100_000_000]
    assert sure(clock.check(HOST, host, 20_000)).trusted
    # Short spans, all of whose lines but two arrived together.
    assert clock.check([700] * 5, [700, 0, 700, 0, 700], 60) is None
    assert not sure(clock.check([700] * 5, [700, 0, 0, 0, 700], 60)).trusted


def test_spans_that_do_not_pair_are_refused() -> None:
    with pytest.raises(ValueError, match="zip"):
        clock.check(HOST, HOST[1:], 1)


def test_spans_that_no_clock_saw_anything_of_accuse_no_clock() -> None:
    assert clock.check([5, 5], [0, 0], 0) is None
