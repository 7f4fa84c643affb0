"""The visits of each cell, pass by pass."""

from dataclasses import dataclass
from typing import Final

from isobench.report.sections.figures import TIMES
from isobench.report.sections.lookup import REFERENCE, Lookup
from isobench.storage.schema import WarmupSummary

_MOST: Final = 40
"""Passes that are drawn."""
_TOP: Final = 1.5
"""The ratio that a bar's full height stands for, where none is higher."""
_LEAST: Final = 0.02
"""Of a bar's height: as much as can be seen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupPass:
    """A bar for one pass of a visit; places in percent of the width and height."""

    place: float
    width: float
    top: float
    height: float
    timed: bool
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmupRow:
    """The visits of a cell: each pass over the median of its visit's timed ones."""

    workload: str
    target: str
    passes: tuple[WarmupPass, ...]
    usual: float
    """Where 1 lies, in percent of the height from above."""
    first: str
    rest: str
    late: str
    """What is still slower among the timed passes; empty for nothing."""
    words: str


def warmup_profiles(found: Lookup, group: str) -> tuple[WarmupRow, ...]:
    """Return a row per cell of a class of workloads, native's first in each workload."""
    names = [workload.name for workload in found.workloads if workload.group == group]
    profiles = (one for one in found.summary.warmup_profiles if one.workload in names)
    rows = [row for one in profiles if (row := _row(one))]
    return tuple(sorted(rows, key=lambda one: (names.index(one.workload), one.target != REFERENCE)))


def _row(profile: WarmupSummary) -> WarmupRow | None:
    passes = [one for one in profile.passes if one is not None and one > 0][:_MOST]
    if not 0 < profile.warmups < len(passes):
        return None
    top = max(_TOP, *passes)
    steady = passes[profile.warmups :]
    told = " ".join(f"{one:.2f}" for one in passes)
    late = f"first {profile.late} of {profile.timed} slower" if profile.late else ""
    return WarmupRow(
        workload=profile.workload,
        target=profile.target,
        passes=tuple(_bar(passes, index, profile.warmups, top) for index in range(len(passes))),
        usual=round(100 * (1 - 1 / top), 2),
        first=f"{passes[0]:.2f}{TIMES}",
        rest=f"{min(steady):.2f} to {max(steady):.2f}{TIMES}",
        late=late,
        words=f"{profile.target}: passes of a visit over their median: {told}",
    )


def _bar(passes: list[float], index: int, warmups: int, top: float) -> WarmupPass:
    height, timed = max(passes[index] / top, _LEAST), index >= warmups
    return WarmupPass(
        place=round(100 * index / len(passes), 2),
        width=round(70 / len(passes), 2),
        top=round(100 * (1 - height), 2),
        height=round(100 * height, 2),
        timed=timed,
        words=f"{'timed' if timed else 'warm-up'} pass: {passes[index]:.3f}{TIMES}",
    )
