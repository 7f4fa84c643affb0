"""From one cell's estimate to a verdict, with the doubts that it leaves. Pure."""

import dataclasses
from collections.abc import Iterator, Sequence
from math import exp, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from isobench import stats
from isobench.evidence.doubts import UNEVEN, UNEVEN_RATIO, of_hidden_work, of_unseen_speed
from isobench.evidence.host_time import HostCheck
from isobench.model import TIME, Doubt, Estimate, Interval, Metric, Status, Verdict
from isobench.model.bounds import MOST_WANTED
from isobench.model.units import TargetName, WorkloadName
from isobench.model.wording import interval_text, percent_text, ratio_text, times_text

NEAR_SHARE: Final = 0.2
"""The share of the margin that the interval of a near-native cell may be wide when it leaves."""
FEW_BLOCKS: Final = "few-blocks"
"""The code of the doubt that a run has too few blocks for a ratio, and nothing else lacks."""
ENOUGH_BLOCKS: Final = 10
"""So many blocks are advised where there are too few for a ratio."""
_ENOUGH: Final = f"measure more blocks: at least {ENOUGH_BLOCKS} (--blocks {ENOUGH_BLOCKS})"


def noise_floor(control: Estimate | None, metric: Metric = TIME) -> float | None:
    """Return how far native may differ from native in this run (0.012: 1.2 %). It is reported, and
    `compare` uses it; verdicts use the test of `stats.biases`.

    `control` is native against native: the bound of its 90 % interval that lies further from 1.
    None where it is unknown: there was no control, or its timer could not tell blocks apart. Of
    counted values that are always equal it is 0.
    """
    if control is None or (control.deviation == 0 and metric.is_clocked):
        return None
    return max(control.equivalence.high, 1 / control.equivalence.low) - 1


def judge(
    *,
    target: TargetName,
    workload: WorkloadName,
    metric: Metric = TIME,
    estimate: Estimate | None,
    noise: float | None,
    bias: Interval | None = None,
    margin: float,
    doubts: Sequence[Doubt] = (),
    quick: bool = False,
    blocks_needed: int | None = None,
    host: HostCheck | None = None,
    is_short: bool = False,
    log_ratios: NDArray[np.float64] | None = None,
    than: str = "native",
    is_other_hidden: bool = False,
) -> Verdict:
    """Return what the estimate means at `margin` (a ratio: 1.05 is 5 %).

    `noise` is the noise floor of the metric in this workload: only whether it is known matters.
    `bias` is the interval of the control where it differs from 1 (`stats.biases`). `blocks_needed`
    makes advice concrete. `host` is what the host's clock shows: without it "faster" stands on the
    target's own times. `is_short`: without an estimate, it is only blocks that lack, since each one
    of the run gave a ratio. `log_ratios` are those of the blocks, (blocks,): without them, slow
    blocks that trimming leaves out are not looked at. `than` names what it is compared with;
    `is_other_hidden`: that is another target, and the host sees too little of its work. The verdict
    carries the doubts given and those found. ValueError: a margin that is not above 1.
    """
    if not margin > 1:
        message = f"a margin is a ratio above 1 (1.05 means 5 %), not {margin}"
        raise ValueError(message)
    found = [*doubts, *_obstacles(estimate, metric, quick=quick, is_short=is_short)]
    status = Status.UNPROVEN
    if estimate is not None and not any(doubt.blocks for doubt in found):
        outcome = _outcome(estimate.interval, margin)
        slow = _slow_blocks(target, outcome, log_ratios, margin, than=than)
        # More blocks settle what two estimators say, and not why some blocks are slow.
        asked = estimate if slow is None else dataclasses.replace(estimate, check=None)
        status, reasons = _weigh(asked, noise, bias, margin, blocks_needed)
        # Nothing is to be decided about native itself.
        is_open_control = "#" in target and status is Status.INCONCLUSIVE
        found.extend([_open_control(estimate)] if is_open_control else reasons)
        if UNEVEN & {doubt.code for doubt in found} and (
            status is Status.FASTER
            or (status is Status.SLOWER and estimate.interval.low < UNEVEN_RATIO)
        ):
            status = Status.UNPROVEN
        if host is not None and _rests_on_payload(target, status, estimate, margin, host):
            found.append(of_unseen_speed(host, status, estimate.interval, margin, than=than))
            status = Status.UNPROVEN
        # What it is compared with may be slower than it reports.
        elif is_other_hidden and status is not Status.FASTER:
            found.append(of_hidden_work(f"{than}'s"))
            status = Status.UNPROVEN
        if slow is not None:
            found.append(slow)
            status = Status.UNPROVEN
        # The control is native itself: nothing is to be explained.
        if status is Status.FASTER and "#" not in target:
            found.append(_faster_than_native(estimate, metric))
    return Verdict(
        target=target,
        workload=workload,
        metric=metric.name,
        status=status,
        estimate=estimate,
        doubts=tuple(found),
    )


def _rests_on_payload(
    target: TargetName, status: Status, estimate: Estimate, margin: float, host: HostCheck
) -> bool:
    """Return whether the host has not seen what speaks for a target, or has seen otherwise."""
    if status is Status.FASTER and not host.is_faster:
        return True
    # The control's program is native's: what it reports is not in question.
    if "#" in target:
        return False
    is_hidden = status is not Status.SLOWER and host.is_hidden
    return is_hidden or host.excludes(status, estimate.interval, margin)


def unseen(status: Status, log_ratios: NDArray[np.float64], margin: float) -> NDArray[np.float64]:
    """Return the log-ratios of slow blocks that a verdict in favour of a target leaves out."""
    if status not in {Status.NEAR_NATIVE, Status.FASTER}:
        return log_ratios[:0]
    bound = log(margin) if status is Status.NEAR_NATIVE else -log(margin)
    return stats.slow_blocks(log_ratios, bound)


def slow_doubt(slow: NDArray[np.float64], blocks: int, *, than: str, advice: str) -> Doubt | None:
    """Return the doubt that so many of the blocks are slow that an estimate without them misleads;
    None: they are few. `slow` are their log-ratios, (slow,), to what `than` names.
    """
    if not stats.are_many(slow.size, blocks):
        return None
    return Doubt(
        code="slow-blocks",
        detail=f"{slow.size} of {blocks} blocks are {times_text(exp(float(slow.min())))} {than} or"
        f" more, up to {times_text(exp(float(slow.max())))}, and the estimate leaves them out",
        advice=advice,
        blocks=True,
    )


# Doubts


def _slow_blocks(
    target: TargetName,
    status: Status,
    log_ratios: NDArray[np.float64] | None,
    margin: float,
    *,
    than: str,
) -> Doubt | None:
    """Return the doubt that a target is slow in so many blocks that its verdict leaves out too
    much; None: it is not, or it is native itself.
    """
    if log_ratios is None or "#" in target:
        return None
    return slow_doubt(
        unseen(status, log_ratios, margin),
        log_ratios.size,
        than=than,
        advice="find out what differs in these blocks: see the log-ratios and the maximum. Where"
        " the machine is the cause, measure again on a quieter one",
    )


def _obstacles(
    estimate: Estimate | None, metric: Metric, *, quick: bool, is_short: bool
) -> Iterator[Doubt]:
    """Yield what forbids a verdict before the interval is looked at."""
    if estimate is None:
        yield _too_few_blocks() if is_short else _no_estimate(metric)
        return
    if quick:
        yield Doubt(
            code="quick",
            detail=f"a quick look of {estimate.blocks} blocks gives ratios and no verdicts",
            advice="run without --quick",
            blocks=True,
        )
    few = few_equal_counts(estimate, metric)
    if estimate.deviation == 0 and metric.is_clocked:
        blocks = "" if estimate.standard_error == 0 else "most of "
        yield Doubt(
            code="timer-limited",
            detail=f"{blocks}{estimate.blocks} blocks gave the same ratio,"
            f" {ratio_text(estimate.ratio)}: the timer is too coarse for this work",
            advice="make one iteration longer: a larger --min-time",
            blocks=True,
        )
    elif few is not None:
        yield few


def few_equal_counts(estimate: Estimate, metric: Metric) -> Doubt | None:
    """Return the doubt that equal ratios of counted values are too few; None: they are not."""
    # The range of fewer covers the median too seldom, and equal counts have no other spread.
    is_equal = estimate.standard_error == 0 and not metric.is_clocked
    if not is_equal or estimate.blocks >= stats.FEWEST_RANKED:
        return None
    return Doubt(
        code=FEW_BLOCKS,
        detail=f"that {estimate.blocks} blocks gave the same ratio does not show that most do",
        advice=_ENOUGH,
        blocks=True,
    )


def _too_few_blocks() -> Doubt:
    return Doubt(
        code=FEW_BLOCKS,
        detail="the run has too few blocks for a ratio",
        advice=_ENOUGH,
        blocks=True,
    )


def _no_estimate(metric: Metric) -> Doubt:
    return Doubt(
        code="no-estimate",
        detail=f"fewer than {stats.FEWEST_BLOCKS} blocks hold both this cell and native, so there"
        " is no ratio" + ("" if metric.is_time else " (a value of 0 has none)"),
        advice="see the gaps of this cell; once it runs, measure at least"
        f" {ENOUGH_BLOCKS} blocks (--blocks {ENOUGH_BLOCKS})",
        blocks=True,
    )


def _weigh(
    estimate: Estimate,
    noise: float | None,
    bias: Interval | None,
    margin: float,
    blocks_needed: int | None,
) -> tuple[Status, list[Doubt]]:
    """Compare the interval with the margin, the control and the second estimator."""
    outcome = _outcome(estimate.interval, margin)
    reasons: list[Doubt] = []
    if outcome is Status.INCONCLUSIVE:
        return outcome, [_wide_interval(estimate, margin, blocks_needed)]
    withheld = _unknown_control() if noise is None else _biased(outcome, estimate, bias, margin)
    if withheld is not None:
        outcome, reasons = Status.UNPROVEN, [withheld]
    # The second estimator is asked at its usual level, not at that of the interval: with outliers
    # its intervals are wider, and a verdict would have to clear both.
    check = estimate.check
    if check is not None and _outcome(check, margin) is not _outcome(estimate.interval, margin):
        reasons.append(_disagreement(estimate, check, margin, blocks_needed))
        outcome = Status.INCONCLUSIVE if withheld is None else outcome
    return outcome, reasons


def is_definite(interval: Interval, margin: float) -> bool:
    """Return whether an interval alone decides at `margin` (a ratio: 1.05 is 5 %)."""
    return _outcome(interval, margin) is not Status.INCONCLUSIVE


def is_known(decides: Interval, usual: Interval, margin: float, widest: float) -> bool:
    """Return whether a cell that is decided is known well enough to leave.

    `decides` is the interval that would then be its own, `usual` the one at the last level. The
    usual one is at most `widest` wide on either side (0.25: 25 %); of a near-native cell its own is
    at most `NEAR_SHARE` of the margin wide.
    """
    # That a ratio lies within 5 % is no reason to know it within 5 % only.
    if _outcome(decides, margin) is Status.NEAR_NATIVE:
        return stats.half_width(decides) <= min(widest, NEAR_SHARE * (margin - 1))
    return stats.half_width(usual) <= widest


def _outcome(interval: Interval, margin: float) -> Status:
    """Return the status that an interval alone would give."""
    if 1 / margin < interval.low and interval.high < margin:
        return Status.NEAR_NATIVE
    if interval.low > margin:
        return Status.SLOWER
    if interval.high < 1 / margin:
        return Status.FASTER
    return Status.INCONCLUSIVE


def _unknown_control() -> Doubt:
    return Doubt(
        code="noise-floor",
        detail="the noise floor is unknown: native against native gave no usable interval",
        advice="see the gaps and doubts of the control, native's second visit in each block",
        blocks=True,
    )


def _biased(
    outcome: Status, estimate: Estimate, bias: Interval | None, margin: float
) -> Doubt | None:
    """Return the doubt that native differs from native by so much that the outcome may come from
    that; None: it would be the same with any bias that the control allows.
    """
    if bias is None or _outcome(stats.widened(estimate.interval, bias), margin) is outcome:
        return None
    return Doubt(
        code="control-bias",
        detail=f"native differs from native, {bias_text(bias)}: a bias as large may make this cell "
        f"{outcome}",
        advice="something differs between equal visits: their order, the sessions or the layout of "
        "memory. Quieten the machine, use --affinity, and measure again",
        blocks=True,
    )


def bias_text(bias: Interval) -> str:
    """Return the bias of a control as text."""
    return f"{interval_text(bias.ends)} at {bias.level * 100:g} %"


def _disagreement(
    estimate: Estimate, check: Interval, margin: float, blocks_needed: int | None
) -> Doubt:
    return Doubt(
        code="estimators-disagree",
        detail=f"{'session medians' if estimate.sessions else 'trimmed-t'} "
        f"{interval_text(estimate.interval.ends)} says {_outcome(estimate.interval, margin)},"
        f" Hodges-Lehmann at {check.level * 100:g} % {interval_text(check.ends)} says"
        f" {_outcome(check, margin)}",
        advice=_more_blocks(estimate, margin, blocks_needed),
    )


def _wide_interval(estimate: Estimate, margin: float, blocks_needed: int | None) -> Doubt:
    return Doubt(
        code="wide-interval",
        detail=f"the {estimate.interval.level * 100:g} % interval "
        f"{interval_text(estimate.interval.ends)} reaches across the margin, "
        f"[{ratio_text(1 / margin)}, {ratio_text(margin)}]",
        advice=_more_blocks(estimate, margin, blocks_needed),
    )


def _open_control(estimate: Estimate) -> Doubt:
    return Doubt(
        code="wide-interval",
        detail="native against itself lies in"
        f" {interval_text(estimate.interval.ends)}, which reaches across the margin",
        advice="this is the control and no target: it shows how noisy the workload was",
    )


def _more_blocks(estimate: Estimate, margin: float, blocks_needed: int | None) -> str:
    """Return advice with a number of blocks in it."""
    if estimate.sessions:
        return (
            f"the {estimate.sessions} sessions differ, so more of them and not more blocks in each "
            "would decide: --launch fresh and a larger --budget"
        )
    if blocks_needed is None or blocks_needed > MOST_WANTED:
        distance = abs(abs(log(estimate.ratio)) - log(margin))
        return (
            f"the ratio is {percent_text(distance)} from the margin: many more blocks are needed"
            " (--budget, --max-blocks), or another --margin"
        )
    wanted = min(max(blocks_needed, estimate.blocks + 1), MOST_WANTED)
    return f"about {wanted} blocks would decide: --max-blocks {wanted} and a larger --budget"


def _faster_than_native(estimate: Estimate, metric: Metric) -> Doubt:
    if not metric.is_time:
        return Doubt(
            code="better-than-native",
            detail=f"{metric.name}: {times_text(estimate.ratio)} native"
            f" {interval_text(estimate.interval.ends)}: isolation alone improves nothing",
            advice="find out why before quoting it: the payload may not see all of it inside, or"
            " something else may differ (see the parity list)",
        )
    return Doubt(
        code="faster-than-native",
        detail=f"{times_text(estimate.ratio)} native {interval_text(estimate.interval.ends)}: "
        "isolation alone does not make work faster",
        advice="find out why before quoting it: another file system, page cache, allocator, "
        "CPU mitigation or clock (see the parity list)",
    )
