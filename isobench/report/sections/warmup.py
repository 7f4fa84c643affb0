"""How the visits of each cell go, pass by pass."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from isobench.report.sections.figures import TIMES
from isobench.report.sections.run import REFERENCE, Run
from isobench.report.sections.shapes import CoursePass, CourseRow
from isobench.report.sections.values import clean, number_of

_MOST: Final = 40
"""Passes that are drawn."""
_TOP: Final = 1.5
"""The ratio that a bar's full height stands for, where none is higher."""
_LEAST: Final = 0.02
"""Of a bar's height: as much as can be seen."""


def warmup_profiles(run: Run, group: str) -> tuple[CourseRow, ...]:
    """Return a row per cell of a class of workloads, native's first in each workload."""
    names = [workload.name for workload in run.workloads if workload.group == group]
    found = [row for raw in run.warmup_profiles if (row := _row(raw)) and row.workload in names]
    return tuple(
        sorted(found, key=lambda one: (names.index(one.workload), one.target != REFERENCE))
    )


def _row(raw: Mapping[str, Any]) -> CourseRow | None:
    passes = list(_numbers(raw.get("passes")))[:_MOST]
    warmups, timed = (int(number_of(raw.get(key)) or 0) for key in ("warmups", "timed"))
    if not passes or not 0 < warmups < len(passes):
        return None
    top = max(_TOP, *passes)
    late = int(number_of(raw.get("late")) or 0)
    steady = passes[warmups:]
    told = " ".join(f"{one:.2f}" for one in passes)
    return CourseRow(
        workload=clean(raw.get("workload")),
        target=clean(raw.get("target")),
        passes=tuple(
            CoursePass(
                place=round(100 * index / len(passes), 2),
                width=round(70 / len(passes), 2),
                top=round(100 * (1 - max(one / top, _LEAST)), 2),
                height=round(100 * max(one / top, _LEAST), 2),
                timed=index >= warmups,
                words=f"{'timed' if index >= warmups else 'warm-up'} pass: {one:.3f}{TIMES}",
            )
            for index, one in enumerate(passes)
        ),
        usual=round(100 * (1 - 1 / top), 2),
        first=f"{passes[0]:.2f}{TIMES}",
        rest=f"{min(steady):.2f} to {max(steady):.2f}{TIMES}",
        late=f"first {late} of {timed} slower" if late else "",
        words=f"{clean(raw.get('target'))}: passes of a visit over their median: {told}",
    )


def _numbers(values: object) -> Iterator[float]:
    for value in values if isinstance(values, list | tuple) else ():
        number = number_of(value)
        if number is not None and number > 0:
            yield number
