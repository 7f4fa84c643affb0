"""The warm-up profiles in the section Ratios: the passes of the visits of each cell."""

from dataclasses import dataclass
from typing import Final

from isobench.report.sections.lookup import REFERENCE, Lookup
from isobench.report.signs import TIMES
from isobench.storage.schema import WarmupSummary

# The most passes that are drawn.
_MOST: Final = 40
# The ratio of a bar of full height: the same for all cells, so that they can be compared, unless a
# pass is even slower.
_TOP: Final = 1.5
# The least height of a bar, so that it can be seen.
_LEAST: Final = 0.02


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupPass:
    """A bar for one pass of a visit. Positions are in percent of the width and height."""

    place: float
    width: float
    top: float
    height: float
    timed: bool
    words: str
    """The text of its tooltip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupRow:
    """The warm-up profile of a cell: each pass over the median of its visit's timed passes."""

    workload: str
    target: str
    passes: tuple[WarmupPass, ...]
    one: float
    """The position of 1, in percent of the height from above."""
    first: str
    """The ratio of the first pass."""
    timed: str
    """The range of the ratios of timed passes."""
    late: str
    """How many of the first timed passes are slower than the rest; empty: none."""
    words: str
    """The whole profile in words, for screen readers."""


def warmup_profiles(lookup: Lookup, group: str) -> tuple[WarmupRow, ...]:
    """Return the profiles of a class of workloads, by workload, native's first."""
    rows = []
    for workload in lookup.of_class(group):
        own = lookup.warmup_profiles.get(workload.name, ())
        rows += sorted(filter(None, map(_row, own)), key=lambda one: one.target != REFERENCE)
    return tuple(rows)


def _row(profile: WarmupSummary) -> WarmupRow | None:
    passes = [one for one in profile.passes if one is not None and one > 0][:_MOST]
    # A summary from outside may have a profile without timed passes: there is no median then.
    if not 0 < profile.warmups < len(passes):
        return None
    top = max(_TOP, *passes)
    timed = passes[profile.warmups :]
    ratios = " ".join(f"{one:.2f}" for one in passes)
    late = f"first {profile.late} of {profile.timed} slower" if profile.late else ""
    return WarmupRow(
        workload=profile.workload,
        target=profile.target,
        passes=tuple(_bar(passes, index, profile.warmups, top) for index in range(len(passes))),
        one=round(100 * (1 - 1 / top), 2),
        first=f"{passes[0]:.2f}{TIMES}",
        timed=f"{min(timed):.2f} to {max(timed):.2f}{TIMES}",
        late=late,
        words=f"{profile.target}: passes of a visit over their median: {ratios}",
    )


def _bar(passes: list[float], index: int, warmups: int, top: float) -> WarmupPass:
    height, timed = max(passes[index] / top, _LEAST), index >= warmups
    return WarmupPass(
        place=round(100 * index / len(passes), 2),
        width=round(70 / len(passes), 2),  # 30 % of the width is space between the bars
        top=round(100 * (1 - height), 2),
        height=round(100 * height, 2),
        timed=timed,
        words=f"{'timed' if timed else 'warm-up'} pass: {passes[index]:.3f}{TIMES}",
    )
