"""Cells that leave a run when they are decided: which may, and how they are judged afterwards."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis.cells import Analysis
from isobench.analysis.class_means import class_means
from isobench.analysis.summary import summarise
from isobench.claims import load
from isobench.model import Cause, Gap, Leaving, Sample, Status
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.stats import half_width
from isobench.stats.sequential import RULE
from isobench.storage import reader

Write = Callable[..., Path]
SIEVE = ("box", "cpu.sieve")
WORKLOAD, BOX = WorkloadName("cpu.sieve"), TargetName("box")
SEQUENTIAL: Mapping[str, Any] = {"sequential": RULE.name, "leave_width": 0.2}


def leaving(block: int, target: str = "box", share: float = 0.2) -> Leaving:
    return Leaving(block=block, target=TargetName(target), workload=WORKLOAD, share=share)


def analysed(path: Path) -> Analysis:
    return Analysis(reader.load(path))


def run(synthetic: Write, ratios: Mapping[tuple[str, str], float], **options: Any) -> Analysis:
    about = {**SEQUENTIAL, **options.pop("about", {})}
    return analysed(synthetic(ratios, about=about, **options))


# ---- what may leave


def test_a_cell_far_from_the_margin_leaves_after_five_blocks(synthetic: Write) -> None:
    slow = run(synthetic, {SIEVE: 4.0}, blocks=5)
    assert slow.leaving(0.1) == [(WORKLOAD, BOX)]


def test_a_near_native_cell_leaves_as_well(synthetic: Write) -> None:
    assert run(synthetic, {SIEVE: 1.0}, blocks=10).leaving(0.2) == [(WORKLOAD, BOX)]


def test_a_cell_near_the_margin_stays(synthetic: Write) -> None:
    assert run(synthetic, {SIEVE: 1.048}, blocks=30).leaving(0.5) == []


def test_few_blocks_that_are_alike_are_not_enough_to_leave_as_near_native(
    synthetic: Write,
) -> None:
    assert run(synthetic, {SIEVE: 1.0}, blocks=8).leaving(0.2) == []


def test_a_near_native_cell_with_a_slow_block_stays(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    """Its trimmed mean does not show the block; its verdict at the end is its own."""
    slow = [a_sample(4, *SIEVE, 5 * 10**8, iteration=one) for one in range(3, 9)]
    found = run(synthetic, {SIEVE: 1.0}, blocks=12, samples=slow)
    assert found.verdicts[WORKLOAD, BOX].status is Status.NEAR_NATIVE
    assert found.leaving(0.2) == []


def test_leaving_takes_more_than_a_verdict_at_the_end(synthetic: Write) -> None:
    """The cell is decided at 97 %, and not at 99.9 %."""
    found = run(synthetic, {SIEVE: 1.0}, blocks=10, noise=0.02)
    cell = found.cell(WORKLOAD, BOX)
    assert cell is not None
    assert cell.verdict.status is Status.NEAR_NATIVE
    assert found.leaving(0.9) == []


def test_a_decided_cell_that_is_not_known_well_stays(synthetic: Write) -> None:
    found = run(synthetic, {SIEVE: 20.0}, blocks=8, noise=0.2)
    cell = found.cell(WORKLOAD, BOX)
    assert cell is not None
    assert cell.verdict.status is Status.SLOWER
    assert found.leaving(0.3) == []


def test_a_run_without_a_width_lets_a_decided_cell_go(synthetic: Write) -> None:
    about = {"leave_width": None}
    assert run(synthetic, {SIEVE: 20.0}, blocks=8, noise=0.2, about=about).leaving(0.3) != []


def test_native_and_its_control_never_leave(synthetic: Write) -> None:
    found = run(synthetic, {SIEVE: 1.0, ("jar", "cpu.sieve"): 3.0}, blocks=20)
    assert {target for _, target in found.leaving(0.3)} == {"box", "jar"}


def test_nothing_leaves_a_run_without_the_rule(synthetic: Write) -> None:
    assert analysed(synthetic({SIEVE: 4.0}, blocks=20)).leaving(0.3) == []


def test_nothing_leaves_a_quick_run(synthetic: Write) -> None:
    assert run(synthetic, {SIEVE: 4.0}, blocks=5, about={"quick": True}).leaving(0.3) == []


def test_a_cell_whose_answers_are_wrong_stays(synthetic: Write) -> None:
    wrong = Gap(block=3, target=BOX, workload=WORKLOAD, cause=Cause.WRONG_ANSWER, detail="other")
    assert run(synthetic, {SIEVE: 4.0}, blocks=10, gaps=[wrong]).leaving(0.3) == []


def test_a_target_with_one_session_stays_until_more_have_served_it(synthetic: Write) -> None:
    options: dict[str, Any] = {"blocks": 10, "session_spread": 0.001}
    assert (
        run(synthetic, {SIEVE: 4.0}, sessions={"box": 10}, name="one", **options).leaving(0.3) == []
    )
    assert run(synthetic, {SIEVE: 4.0}, sessions={"box": 2}, name="five", **options).leaving(0.3)


def test_what_has_left_does_not_leave_again(synthetic: Write) -> None:
    assert run(synthetic, {SIEVE: 4.0}, blocks=20, leavings=[leaving(5)]).leaving(0.5) == []


@pytest.mark.parametrize("share", [0.0, 1.0, 1.2])
def test_the_end_of_a_run_is_no_interim_analysis(share: float, synthetic: Write) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        run(synthetic, {SIEVE: 4.0}).leaving(share)


def _varied(synthetic: Write, changed: float) -> Analysis:
    option = {"name": "box~open", "base": "box", "option": "seccomp", "value": "off"}
    ratios = {SIEVE: 3.0, ("box~open", "cpu.sieve"): changed}
    return run(synthetic, ratios, blocks=10, noise=0.002, about={"variations": [option]})


def test_a_target_and_its_variation_leave_together(synthetic: Write) -> None:
    assert {target for _, target in _varied(synthetic, 2.0).leaving(0.3)} == {"box", "box~open"}


def test_neither_leaves_while_the_effect_of_the_option_is_open(synthetic: Write) -> None:
    """Both are plainly slower than native; what the option costs lies on the margin."""
    assert _varied(synthetic, 3.0 / 1.05).leaving(0.3) == []


# ---- how they are judged


def test_a_cell_that_left_is_judged_at_the_level_of_its_analysis(synthetic: Write) -> None:
    jar = TargetName("jar")
    both = {SIEVE: 4.0, ("jar", "cpu.sieve"): 1.0}
    found = run(synthetic, both, blocks=20, leavings=[leaving(5)])
    left, stayed = (found.cell(WORKLOAD, name) for name in (BOX, jar))
    assert left is not None
    assert stayed is not None
    assert left.verdict.estimate is not None
    assert stayed.verdict.estimate is not None
    assert (left.verdict.estimate.interval.level, left.verdict.estimate.blocks) == (0.999, 5)
    assert (stayed.verdict.estimate.interval.level, stayed.verdict.estimate.blocks) == (0.97, 20)
    assert (left.verdict.status, stayed.verdict.status) == (Status.SLOWER, Status.NEAR_NATIVE)


def test_blocks_after_leaving_are_not_missing(synthetic: Write) -> None:
    found = run(synthetic, {SIEVE: 4.0}, blocks=20, leavings=[leaving(5)])
    assert [doubt.code for doubt in found.doubts(WORKLOAD, BOX)] == []


def test_blocks_before_leaving_may_be_missing(synthetic: Write) -> None:
    missing = {SIEVE: frozenset({1, 2, 3})}
    found = run(synthetic, {SIEVE: 4.0}, blocks=20, leavings=[leaving(10)], missing=missing)
    (doubt,) = (one for one in found.doubts(WORKLOAD, BOX) if one.code == "incomplete")
    assert doubt.detail.startswith("only 7 of 10 blocks have a ratio")


def test_the_same_cells_leave_again_from_the_files(synthetic: Write) -> None:
    """What leaves at an analysis, left then: the verdict of the end is the one of leaving."""
    early = run(synthetic, {SIEVE: 4.0}, blocks=5, name="early")
    late = run(synthetic, {SIEVE: 4.0}, blocks=20, leavings=[leaving(5)], name="late")
    assert early.leaving(0.2) == [(WORKLOAD, BOX)]
    before = early.estimate(WORKLOAD, BOX, level=RULE.level(0.2))
    after = late.estimate(WORKLOAD, BOX)
    assert before is not None
    assert after is not None
    assert after.interval == before.interval


def test_a_class_mean_uses_the_blocks_that_each_workload_has(synthetic: Write) -> None:
    both = {SIEVE: 4.0, ("box", "cpu.hash"): 4.0}
    found = run(synthetic, both, blocks=20, leavings=[leaving(10)])
    (mean,) = (one for one in class_means(found) if one.target == "box")
    assert mean.verdict is not None
    estimate = mean.verdict.estimate
    assert estimate is not None
    assert (estimate.blocks, estimate.interval.level) == (10, 0.97)
    cells = [found.estimate(WorkloadName(name), BOX) for name in ("cpu.sieve", "cpu.hash")]
    widths = [half_width(one.interval) for one in cells if one is not None]
    assert math.log1p(half_width(estimate.interval)) == pytest.approx(
        sum(map(math.log1p, widths)) / 2
    )


def test_where_all_workloads_are_near_native_so_is_their_mean(synthetic: Write) -> None:
    both = {SIEVE: 1.0, ("box", "cpu.hash"): 1.02}
    found = run(synthetic, both, blocks=20, leavings=[leaving(6)])
    statuses = {cell.verdict.status for cell in found.cells if cell.target == "box"}
    (mean,) = (one for one in class_means(found) if one.target == "box")
    assert mean.verdict is not None
    assert statuses == {mean.verdict.status} == {Status.NEAR_NATIVE}


def test_the_control_of_a_workload_that_has_ended_is_complete(synthetic: Write) -> None:
    both = {SIEVE: 4.0, ("box", "cpu.hash"): 4.0}
    control = TargetName("native#2")
    missing = {(name, "cpu.sieve"): frozenset(range(7, 21)) for name in ("native", "native#2")}
    ended = run(synthetic, both, blocks=20, leavings=[leaving(6)], missing=missing)
    assert [doubt.code for doubt in ended.doubts(WORKLOAD, control)] == []
    going_on = run(synthetic, both, blocks=20, missing=missing, name="other")
    assert "incomplete" in [doubt.code for doubt in going_on.doubts(WORKLOAD, control)]


def test_a_rule_that_this_version_does_not_know_is_refused(synthetic: Write) -> None:
    with pytest.raises(UsageError, match="which this version does not know"):
        run(synthetic, {SIEVE: 4.0}, about={"sequential": "leave at will (9)"})


def test_neighbouring_blocks_that_are_alike_widen_the_interval(synthetic: Write) -> None:
    """The control drifts slowly against native; a run without the rule takes blocks as they are."""
    found = run(synthetic, {SIEVE: 1.0}, blocks=30, name="with")
    plain = analysed(synthetic({SIEVE: 1.0}, blocks=30, name="without"))
    widths = []
    for each in (found, plain):
        column = each.visits[(WORKLOAD, BOX)]
        each.visits[(WORKLOAD, BOX)] = column * [
            math.exp(0.02 * math.sin(block / 4)) for block in column.index
        ]
        estimate = each.estimate(WORKLOAD, BOX)
        assert estimate is not None
        widths.append(math.log1p(half_width(estimate.interval)))
    assert widths[0] > 1.4 * widths[1]


@pytest.mark.parametrize("level", ["90%", "95%", "99%", "99.99%"])
def test_no_level_of_a_claim_is_below_that_at_which_the_cell_left(
    level: str, synthetic: Write
) -> None:
    """Its interval at 98 % decides, and that of its leaving does not."""
    text = f"""
[[claims]]
id = "slower"
kind = "order"
quote = "It is slower"
workloads = ["cpu.sieve"]
targets = ["box"]
margin = "10%"
level = "{level}"
"""
    found = run(synthetic, {SIEVE: 1.125}, blocks=15, noise=0.012, leavings=[leaving(8)])
    (claim,) = summarise(found.run, load(text, origin="own.toml")).claims
    assert claim.status == "inconclusive"
    assert ("99.98 %" if level == "99.99%" else "99.9 %") in claim.sentence
