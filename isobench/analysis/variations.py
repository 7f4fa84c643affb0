"""What one option of a target explains of its overhead."""

import math
from collections.abc import Iterator

from isobench.analysis.cells import Analysis
from isobench.model import Estimate, Status
from isobench.model.units import WorkloadName
from isobench.model.wording import times_text
from isobench.stats import Share
from isobench.storage.schema import VariationSummary

_UNKNOWN = (Status.INCONCLUSIVE, Status.UNPROVEN)


def variations(analysis: Analysis) -> Iterator[VariationSummary]:
    """Yield, for each variation and workload, the effect of its option: the time of the target as
    it is over the time with the option changed, in the same blocks (above 1: the option as it is
    costs), and which share of the overhead over native that is.
    """
    for item in analysis.run.metadata.variations:
        for own, workload in _series(analysis):
            found = own.contrast(workload, item.base, reference=item.name)
            estimate = None if found is None else found[0].estimate
            if found is None or estimate is None:
                continue
            status, share = found[0].status, own.share(workload, item.base, item.name)
            before, after = (
                _ratio(own.estimate(workload, name)) for name in (item.base, item.name)
            )
            yield VariationSummary(
                target=item.name,
                base=item.base,
                option=item.option,
                value=item.value,
                workload=workload,
                metric=own.metric,
                effect=estimate.ratio,
                interval=estimate.interval.ends,
                level=estimate.interval.level,
                status=status,
                share=share.point if share else None,
                share_interval=_bounds(share),
                blocks=estimate.blocks,
                sentence=f"from {before} to {after} native{_meaning(status, share)}",
            )


def _series(analysis: Analysis) -> Iterator[tuple[Analysis, WorkloadName]]:
    """Yield each workload with each of its metrics, time first."""
    for metric in analysis.metrics:
        own = analysis.of(metric)
        for workload in own.workloads:
            yield own, workload


def _ratio(estimate: Estimate | None) -> str:
    return times_text(estimate.ratio) if estimate else "?"


def _bounds(share: Share | None) -> tuple[float | None, float | None] | None:
    if share is None:
        return None
    low, high = (bound if math.isfinite(bound) else None for bound in (share.low, share.high))
    return low, high


def _meaning(status: Status, share: Share | None) -> str:
    """Return what the effect means: how much of the overhead it explains."""
    if status in _UNKNOWN:
        return ": whether that is an effect stays open"
    if status is Status.NEAR_NATIVE:
        return ": no effect beyond the margin"
    if share is None:
        return ", where there was no overhead to explain"
    if not (math.isfinite(share.low) and math.isfinite(share.high)):
        return ": which share of the overhead that is stays open"
    low, point, high = (f"{100 * part:.0f}" for part in (share.low, share.point, share.high))
    return f": it explains {point} % of the overhead, [{low}, {high}]"
