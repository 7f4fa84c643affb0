"""Runs with known ratios -> what changed."""

import math
from dataclasses import replace
from typing import Any

import pytest

from isobench.comparison import changes
from isobench.comparison.result import ComparisonOptions
from isobench.model import Metric
from isobench.model.errors import IncomparableError, UsageError
from isobench.model.units import Unit
from isobench.report import comparison as view
from tests.comparisons import SIEVE, MakeRun, cell, compared, document, pair
from tests.unit.conftest import Counted, sample

# ---- two runs


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (1.1, 1.1, "same"),
        (1.1, 1.12, "same"),
        (1.1, 1.32, "regression"),
        (20.0, 24.0, "regression"),
        (1.3, 1.0, "improvement"),
    ],
)
def test_a_known_change_is_found_and_judged(
    before: float, after: float, status: str, make_run: MakeRun
) -> None:
    found = cell(compared(make_run({SIEVE: before}), make_run({SIEVE: after})))
    assert found["change"] == pytest.approx(after / before, rel=0.01)
    low, high = found["interval"]
    assert low < after / before < high
    assert (found["standing"], found["confirmed"]) == (status, None)
    assert (found["base"]["blocks"], found["head"]["blocks"]) == (15, 15)
    assert found["base"]["ratio"] == pytest.approx(before, rel=0.01)


def test_absolute_times_are_not_compared_but_their_change_is_reported(make_run: MakeRun) -> None:
    base, head = make_run({SIEVE: 1.2}), make_run({SIEVE: 1.2})
    head.samples["value"] *= 3  # all of it, native too: another clock rate
    made = compared(base, head)
    assert cell(made)["standing"] == "same"
    assert any("native itself" in note and "cpu.sieve" in note for note in document(made)["notes"])


def test_a_change_at_the_smallest_effect_stays_open(make_run: MakeRun) -> None:
    base, head = make_run({SIEVE: 1.0}, noise=0.02), make_run({SIEVE: 1.05}, noise=0.02)
    made = compared(base, head)
    assert cell(made)["standing"] == "inconclusive"
    assert "would narrow the interval" in view.headline(made)


def test_the_smallest_effect_is_the_users(make_run: MakeRun) -> None:
    base, head = make_run({SIEVE: 1.0}), make_run({SIEVE: 1.2})
    found = cell(compared(base, head, ComparisonOptions(minimum_effect=0.3)))
    assert found["standing"] == "same"


def test_noise_floors_are_part_of_the_interval(make_run: MakeRun) -> None:
    found = cell(compared(make_run(noise=0.03), make_run(noise=0.03)))
    assert found["noise"] > max(found["base"]["noise"], found["head"]["noise"])
    assert math.log(found["interval"][1]) > math.log1p(found["noise"]) - abs(
        math.log(found["change"])
    )
    assert found["method"] == "Yuen-Welch t of two runs, noise floors added"


def test_without_a_control_nothing_is_proven(make_run: MakeRun) -> None:
    nowhere = {("native#2", "cpu.sieve"): frozenset(range(16))}
    found = cell(compared(make_run(), make_run({SIEVE: 1.5}, missing=nowhere)))
    assert found["standing"] == "unproven"
    assert "noise-floor" in found["doubt_codes"]


def test_a_run_of_few_blocks_shows_a_large_change(make_run: MakeRun) -> None:
    found = cell(compared(make_run(), make_run({SIEVE: 1.5}, blocks=5)))
    assert (found["standing"], found["doubt_codes"]) == ("regression", [])


def test_a_run_without_verdicts_gives_a_change_without_one(make_run: MakeRun) -> None:
    found = cell(compared(make_run(), make_run({SIEVE: 1.5}, about={"quick": True})))
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == ["quick"]
    assert found["doubts"][0].startswith("HEAD: ")
    assert found["change"] == pytest.approx(1.5, rel=0.02)


def test_holm_takes_all_cells_together(make_run: MakeRun) -> None:
    names = [("box", f"cpu.{letter}") for letter in "abcdefgh"]
    made = compared(
        make_run(dict.fromkeys(names, 1.0)), make_run(dict.fromkeys(names, 1.0) | {names[0]: 1.3})
    )
    cells = document(made)["cells"]
    for one in cells:
        assert one["p_adjusted"] >= one["p"]
    first = cell(made, "cpu.a")
    assert first["p_adjusted"] == pytest.approx(8 * first["p"])
    assert first["standing"] == "regression"
    assert [one["standing"] for one in cells[1:]] == ["same"] * 7


def test_a_p_value_that_holm_takes_away_is_no_regression(
    monkeypatch: pytest.MonkeyPatch, make_run: MakeRun
) -> None:
    monkeypatch.setattr(changes.stats, "holm", lambda p: p + 0.05)
    found = cell(compared(make_run({SIEVE: 1.0}), make_run({SIEVE: 1.3})))
    assert found["standing"] == "inconclusive"


SLOW = {SIEVE: frozenset({3, 8, 13, 18})}


@pytest.mark.parametrize(
    ("ratios", "slow", "status"),
    [
        ((1.3, 1.3), ({}, SLOW), "unproven"),
        ((1.3, 1.3), (SLOW, {}), "unproven"),
        ((1.3, 1.3), (SLOW, SLOW), "same"),
        ((1.3, 1.3), ({SIEVE: frozenset({2, 9, 19})}, SLOW), "same"),
        ((1.6, 1.3), ({}, SLOW), "unproven"),
        ((1.6, 1.3), (SLOW, {}), "improvement"),
        ((1.3, 1.6), ({}, SLOW), "regression"),
    ],
)
@pytest.mark.parametrize("runs", [1, 2])
def test_slow_blocks_that_one_side_alone_has_are_no_part_of_the_same(
    ratios: tuple[float, float], slow: tuple[Any, Any], status: str, runs: int, make_run: MakeRun
) -> None:
    sides = [
        [make_run({SIEVE: ratio}, blocks=20, slow=own) for _ in range(runs)]
        for ratio, own in zip(ratios, slow, strict=True)
    ]
    found = cell(compared(*sides))
    assert found["standing"] == status
    assert found["doubt_codes"] == (["slow-blocks"] if status == "unproven" else [])


# ---- histories


def test_several_runs_a_side_confirm_by_themselves(make_run: MakeRun) -> None:
    sides = [[make_run({SIEVE: ratio}) for _ in range(3)] for ratio in (1.0, 1.3)]
    made = compared(*sides)
    found = cell(made)
    assert made.mode == "histories"
    assert (found["standing"], found["confirmed"]) == ("regression", True)
    assert (found["base"]["runs"], found["base"]["blocks"]) == (3, 45)
    assert "3 and 3 run estimates" in found["method"]
    assert "Suspected" not in view.headline(made)


def test_runs_that_differ_make_the_interval_wide(make_run: MakeRun) -> None:
    alike = [[make_run({SIEVE: 1.0}) for _ in range(3)] for _ in range(2)]
    unlike = [[make_run({SIEVE: ratio}) for ratio in (0.9, 1.0, 1.12)] for _ in range(2)]
    widths = [
        math.log(high / low)
        for low, high in (cell(compared(*sides))["interval"] for sides in (alike, unlike))
    ]
    assert widths[1] > 5 * widths[0]
    assert cell(compared(*unlike))["standing"] == "inconclusive"


def test_short_runs_count_where_the_run_is_the_unit(make_run: MakeRun) -> None:
    sides = [[make_run({SIEVE: ratio}, blocks=5) for _ in range(4)] for ratio in (1.0, 1.3)]
    assert cell(compared(*sides))["standing"] == "regression"


def test_one_run_against_several_is_not_confirmed(make_run: MakeRun) -> None:
    made = compared(make_run({SIEVE: 1.0}), [make_run({SIEVE: 1.5}) for _ in range(4)])
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", None)


# ---- two targets of one run


def test_two_targets_of_one_run_are_paired_block_by_block(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.5, ("jar", "cpu.sieve"): 1.2}
    made = pair(make_run(ratios), "box", "jar")
    found = cell(made, target="jar")
    assert found["change"] == pytest.approx(0.8, rel=0.01)
    assert found["standing"] == "improvement"
    assert made.mode == "targets"
    assert "jar against box" in view.headline(made)
    assert found["method"].startswith("trimmed-t")


@pytest.mark.parametrize(
    ("slow", "after", "status"),
    [("jar", 1.3, "unproven"), ("box", 1.3, "unproven"), ("jar", 1.6, "regression")],
)
def test_slow_blocks_of_one_of_a_pair_are_no_part_of_the_same(
    slow: str, after: float, status: str, make_run: MakeRun
) -> None:
    blocks = {(slow, "cpu.sieve"): SLOW[SIEVE]}
    ratios = {SIEVE: 1.3, ("jar", "cpu.sieve"): after}
    found = cell(pair(make_run(ratios, blocks=20, slow=blocks), "box", "jar"), target="jar")
    assert found["standing"] == status
    if status == "unproven":
        assert [doubt.partition(":")[0] for doubt in found["doubts"]] == [slow]


@pytest.mark.parametrize(("blocks", "standing"), [(3, "unproven"), (5, "unproven"), (6, None)])
@pytest.mark.parametrize(("after", "otherwise"), [(1000, "same"), (1100, "regression")])
def test_equal_counts_of_a_pair_need_as_many_blocks_as_those_of_a_cell(
    blocks: int, standing: str | None, after: int, otherwise: str, make_run: MakeRun
) -> None:
    """Those of native differ, so that neither target has equal ratios to it."""
    faults = Metric(name="faults", unit=Unit.COUNT, fact="memory.faults")
    values = {"native": 500, "native#2": 500, "box": 1000, "jar": after}
    samples = [
        replace(
            sample(block, target, "cpu.sieve", value, metric=faults.recorded_as), unit=faults.unit
        )
        for block in range(1, blocks + 1)
        for target, value in {**values, "native": 500 + block % 3}.items()
    ]
    cells = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}
    metrics = (Counted(metric=faults, factors=cells, missing=frozenset(values)),)
    made = make_run(cells, blocks=blocks, metrics=metrics, samples=samples)
    (found,) = (
        one for one in document(pair(made, "box", "jar"))["cells"] if one["metric"] != "time"
    )
    assert found["standing"] == (standing or otherwise)
    assert found["doubt_codes"] == (["few-blocks"] if standing else [])


def test_a_further_run_confirms_a_pair(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.3}
    again = pair(make_run(ratios), "box", "jar", confirmation=make_run(ratios))
    assert cell(again, target="jar")["confirmed"] is True
    other = make_run(ratios | {("jar", "cpu.sieve"): 1.0})
    missed = pair(make_run(ratios), "box", "jar", confirmation=other)
    assert cell(missed, target="jar")["standing"] == "inconclusive"


def test_sessions_of_a_pair_are_its_units_where_they_differ(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}
    made = make_run(ratios, sessions={"box": 5}, session_spread=0.2)
    found = cell(pair(made, "box", "jar"), target="jar")
    assert "session" in found["method"]
    assert found["standing"] == "inconclusive"


def test_a_target_that_is_not_in_the_run_is_refused_with_those_that_are(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="no values of 'jug'") as caught:
        pair(make_run(), "box", "jug")
    assert "native, box" in caught.value.hint


@pytest.mark.parametrize("names", [("native", "box"), ("box", "native")])
def test_native_is_not_compared_since_every_ratio_is_to_it(
    names: tuple[str, str], make_run: MakeRun
) -> None:
    run = make_run()
    with pytest.raises(UsageError, match="all ratios of a run are to native already") as caught:
        pair(run, *names)
    assert caught.value.hint == f"isobench report {run.path} compares each target with native"


def test_a_target_is_not_compared_with_itself(make_run: MakeRun) -> None:
    with pytest.raises(UsageError, match="box is given twice"):
        pair(make_run(), "box", "box")


def test_a_pair_without_a_common_workload_is_refused(make_run: MakeRun) -> None:
    with pytest.raises(IncomparableError, match="no workload in common"):
        pair(make_run({SIEVE: 1.0, ("jar", "io.fsync"): 1.0}), "box", "jar")
