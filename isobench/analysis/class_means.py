"""A class of workloads as a whole: the geometric mean of its ratios, block by block.

Per block the mean of the log-ratios of all workloads of the class, then the estimate and the
verdict that every cell gets (Fleming and Wallace 1986: ratios are averaged geometrically). Kinds of
start are never averaged: a cold start, a warm one and an exec are three different things.
"""

import dataclasses
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench import stats
from isobench.analysis import verdict
from isobench.analysis.cells import LEVEL, Analysis
from isobench.evidence.doubts import UNEVEN
from isobench.evidence.host_time import HostCheck
from isobench.model import Doubt, Estimate, Interval, Status, Verdict
from isobench.model.plan import second
from isobench.model.units import TargetName, WorkloadName
from isobench.workloads import classes

_FEWEST: Final = 2
"""A class of one workload is that workload."""
_UNLIKE: Final = (Status.SLOWER, Status.FASTER)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassMean:
    """A class of workloads at a target."""

    group: str
    target: TargetName
    workloads: tuple[WorkloadName, ...]
    lacking: tuple[WorkloadName, ...]
    """Those without a ratio here: a mean over fewer would be of something else, and is not made."""
    verdict: Verdict | None
    log_ratios: NDArray[np.float64]
    sessions: int
    noise: float | None
    """The noise floor of the mean, from native against native."""
    needed: int | None
    unlike: tuple[WorkloadName, ...]
    """Where the mean is near-native, those of its workloads that are not."""


class _Control(NamedTuple):
    """What native against native shows about a class."""

    noise: float | None
    bias: Interval | None


def class_means(analysis: Analysis) -> Iterator[ClassMean]:
    """Yield every class of two workloads and more at every target, native against native too."""
    groups: dict[str, list[WorkloadName]] = {}
    for name in analysis.workloads:
        groups.setdefault(analysis.classes[name], []).append(name)
    for group, names in groups.items():
        if not classes.get(group).averaged or len(names) < _FEWEST:
            continue
        control = _blocks(analysis, names, second(analysis.reference))
        noise = None if control is None else verdict.noise_floor(_estimate(analysis, control, None))
        bias = None if control is None else _bias(analysis, control)
        for target in analysis.targets:
            if target != analysis.reference:
                own = None if target == second(analysis.reference) else bias
                yield _class_mean(analysis, group, tuple(names), target, _Control(noise, own))


def _blocks(
    analysis: Analysis, names: Sequence[WorkloadName], target: TargetName
) -> pd.Series | None:
    """Return the mean log-ratio of each block that has a ratio of every workload."""
    columns = [analysis.by_block(name, target) for name in names]
    if any(column.empty for column in columns):
        return None
    return pd.concat(columns, axis=1, join="inner").mean(axis=1)


def _estimate(
    analysis: Analysis,
    means: pd.Series,
    sessions: NDArray[np.int64] | None,
    off: float = 0.0,
) -> Estimate | None:
    return stats.estimate(
        means.to_numpy(float),
        sessions=sessions,
        uncertainty=off,
        level=LEVEL,
        margin=analysis.margin,
        correlated=analysis.rule is not None,
    )


def _of_cells(
    analysis: Analysis, names: Sequence[WorkloadName], target: TargetName
) -> Estimate | None:
    """Return the mean of a class some of whose workloads have left, and so have fewer blocks."""
    found = [
        analysis.estimate(name, target, uncertainty=analysis.uncertainty(name, target))
        for name in names
    ]
    known = [one for one in found if one is not None]
    return stats.averaged(known) if len(known) == len(found) else None


def _bias(analysis: Analysis, control: pd.Series) -> Interval | None:
    """Return the interval of the control's mean where it differs from 1."""
    if control.size < stats.FEWEST_BLOCKS:
        return None
    values, correlated = control.to_numpy(float), analysis.rule is not None
    return stats.biases({0: stats.locate(values, correlated=correlated)}).get(0)


def _class_mean(
    analysis: Analysis,
    group: str,
    names: tuple[WorkloadName, ...],
    target: TargetName,
    control: _Control,
) -> ClassMean:
    lacking = tuple(name for name in names if analysis.by_block(name, target).empty)
    nothing = ClassMean(
        group=group,
        target=target,
        workloads=names,
        lacking=lacking,
        verdict=None,
        log_ratios=np.zeros(0),
        sessions=0,
        noise=control.noise,
        needed=None,
        unlike=(),
    )
    means = None if lacking else _blocks(analysis, names, target)
    if means is None or means.empty:
        return nothing
    sessions = analysis.labels(names[0], target, None, means.index.to_numpy(np.int64))
    off = max(analysis.uncertainty(name, target) for name in names)
    if any((name, target) in analysis.left for name in names):
        estimate = _of_cells(analysis, names, target)
    else:
        estimate = _estimate(analysis, means, sessions, off)
    needed = None if estimate is None else stats.blocks_needed(estimate, margin=analysis.margin)
    own = [analysis.verdicts[name, target] for name in names]
    log_ratios = means.to_numpy(float)
    judged = verdict.judge(
        target=target,
        workload=WorkloadName(group),
        estimate=estimate,
        noise=control.noise,
        bias=control.bias,
        margin=analysis.margin,
        doubts=tuple(_inherited(own)),
        quick=analysis.quick,
        blocks_needed=needed,
        host=_unseen(analysis, names, target),
        is_short=analysis.is_short(means.index.size),
        log_ratios=log_ratios,
    )
    near = judged.status is Status.NEAR_NATIVE
    open_question = judged.status in (Status.INCONCLUSIVE, Status.UNPROVEN)
    return dataclasses.replace(
        nothing,
        verdict=judged,
        log_ratios=log_ratios,
        sessions=int(np.unique(sessions).size),
        needed=needed if open_question else None,
        unlike=tuple(one.workload for one in own if near and one.status in _UNLIKE),
    )


def _unseen(
    analysis: Analysis, names: Sequence[WorkloadName], target: TargetName
) -> HostCheck | None:
    """Return the host's check of the workload in which the host saw least of what speaks for a
    target, with what it saw of all of them; None where no workload has one.
    """
    checks = [analysis.host_check(name, target) for name in names]
    known = [one for one in checks if one is not None]
    if not known:
        return None
    worst = min(known, key=lambda one: (not one.is_hidden, one.is_faster))
    estimates = [analysis.verdicts[name, target].estimate for name in names]
    least, most = zip(*map(_seen, checks, estimates), strict=True)
    return dataclasses.replace(
        worst,
        least=statistics.geometric_mean(least) if all(least) else 0.0,
        most=statistics.geometric_mean(most),
    )


def _seen(check: HostCheck | None, estimate: Estimate | None) -> tuple[float, float]:
    """Return the smallest and the largest ratio that is possible in a workload: what the host's
    clock leaves, and where it shows nothing, what the payload's own times do.
    """
    if check is not None and check.is_known:
        return check.least, check.most
    return (0.0, math.inf) if estimate is None else estimate.interval.ends


def _inherited(own: Sequence[Verdict]) -> Iterator[Doubt]:
    """Yield the doubts that take a workload its verdict: they take it from the mean as well."""
    for one in own:
        for doubt in one.doubts:
            # Of a quick look the mean says so itself.
            if (doubt.blocks and doubt.code != "quick") or doubt.code in UNEVEN:
                yield dataclasses.replace(doubt, detail=f"{one.workload}: {doubt.detail}")
