"""How figures are rounded and written, and names joined."""

import pytest

from isobench.model import wording
from isobench.model.wording import (
    amount_text,
    counted,
    duration_text,
    interval_text,
    joined,
    listed,
    percent_text,
    range_text,
    ratio_text,
    seconds_text,
    series_text,
    times_text,
)


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (1.0123, "1.01"),
        (0.994, "0.99"),
        (0.0123456, "0.0123"),
        (0.3, "0.30"),
        (9.996, "10.0"),
        (28.43, "28.4"),
        (99.96, "100"),
        (412.6, "413"),
        (1234.5, "1230"),
    ],
)
def test_ratios_have_three_digits(ratio: float, text: str) -> None:
    assert ratio_text(ratio) == text
    assert times_text(ratio) == f"{text}x"


@pytest.mark.parametrize("ratio", [None, 0.0, -1.0])
def test_a_missing_ratio_is_a_dash(ratio: float | None) -> None:
    assert ratio_text(ratio) == times_text(ratio) == "\N{EM DASH}"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [
        (0.5, "0.50x"),
        (1.004, "1.00x"),
        (1.999, "2.0x"),
        (9.94, "9.9x"),
        (28.4, "28x"),
        (541.0, "540x"),
        (1234, "1200x"),
    ],
)
def test_a_coarse_figure_has_two_digits(ratio: float, text: str) -> None:
    assert times_text(ratio, coarse=True) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(2.31, 28.4, "2.3-28x"), (1.2, 1.2, "1.20x"), (0.97, 1.02, "0.97-1.02x")],
)
def test_a_range_gives_its_two_ends_or_one_where_they_look_the_same(
    low: float, high: float, text: str
) -> None:
    assert range_text(low, high) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.05, "5 %"),
        (1.05 - 1, "5 %"),
        (0.0123, "1.2 %"),
        (0.00037, "0.037 %"),
        (1.034, "103 %"),
        (2.5, "250 %"),
        (None, "\N{EM DASH}"),
    ],
)
def test_percentages_have_two_digits(share: float | None, text: str) -> None:
    assert percent_text(share) == text


def test_an_interval_reads_low_to_high() -> None:
    assert interval_text((0.9912, 1.0349)) == "[0.99, 1.03]"


def test_an_interval_of_any_size_has_a_text() -> None:
    for bounds in ((5e-324, 1e-323), (1e-304, 1e304), (1e308, 1.7e308)):
        assert interval_text(bounds, 1.0).startswith("[")
        assert ratio_text(1e-23, bounds)


def test_an_interval_beside_its_ratio_has_the_same_decimals() -> None:
    assert interval_text((27.35, 27.52), 27.43) == "[27.4, 27.5]"
    assert interval_text((0.9991, 1.0012), 1.0004) == "[0.999, 1.001]"
    # No ratio is 0.
    assert interval_text((0.1748, 5262.2), 30.3) == "[0.17, 5262]"
    assert interval_text((0.01485, 91.2), 1.16) == "[0.015, 91.2]"
    assert interval_text(None) == interval_text((1.0, 2.0), 0.0) == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(3, "3.00 s"), (0.4204, "420 ms"), (0.0012, "1.20 ms"), (0, "0 s")]
)
def test_a_measured_time_has_three_digits_and_a_suitable_unit(seconds: float, text: str) -> None:
    assert seconds_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0, "0 s"), (0.05, "50 ms"), (1.0, "1 s"), (2.5, "2.5 s"), (5.0, "5 s"), (59.6, "59.6 s"),
        (60.0, "1 min"), (90.0, "1 min 30 s"), (300.0, "5 min"), (3600.0, "1 h"),
        (5400.0, "1 h 30 min"), (86400.0, "24 h"),
    ],
)  # fmt: skip
def test_durations_are_written_as_people_write_them(value: float, words: str) -> None:
    assert duration_text(value) == words


def test_names_are_listed_as_in_english() -> None:
    assert [listed(names) for names in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == [
        "", "a", "a and b", "a, b and c",
    ]  # fmt: skip
    assert joined(["a", "b", "c"]) == "a, b, c"


def test_a_number_agrees_with_its_noun() -> None:
    assert [counted(number, "block") for number in (0, 1, 2)] == ["0 blocks", "1 block", "2 blocks"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.0132, "seconds", "13.2 ms"),
        (0, "bytes", "0 B"),
        (1023, "bytes", "1,020 B"),
        (4 << 20, "bytes", "4 MiB"),
        (4500 << 10, "bytes", "4.39 MiB"),
        (17, "count", "17"),
        (123456, "count", "123,000"),
        (0.5, "count", "0.500"),
        (98765, "ops/s", "98,800/s"),
        (3.25, "joules", "3.25 J"),
        (None, "bytes", "\N{EM DASH}"),
    ],
)
def test_a_measured_value_has_three_digits_and_its_unit(
    value: float | None, unit: str, text: str
) -> None:
    assert amount_text(value, unit) == text


def test_a_row_is_named_after_its_workload_and_any_metric_but_time() -> None:
    assert series_text("cpu.sieve", "time") == "cpu.sieve"
    assert series_text("app.pages", "peak") == "app.pages: peak"


def test_only_an_interval_at_another_level_than_usual_has_a_label() -> None:
    assert wording.level_text(0.97) == ""
    assert wording.level_text(0.999) == " at 99.9 %"
    assert wording.level_text(2 * 0.99 - 1) == " at 98 %"
