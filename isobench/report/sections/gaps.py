"""Gaps and doubts: what has no number and why, and what to trust less."""

from typing import Final

from isobench.report.sections.phrases import missing_of
from isobench.report.sections.run import Run, mean_of
from isobench.report.sections.shapes import DoubtView, GapView
from isobench.report.sections.values import clean, items_of, listed, value_of

_OPTION: Final = " run --targets "
"""A hint that ends so in its own target: those of several targets are one command."""


def gap_views(run: Run) -> tuple[GapView, ...]:
    """Return the gaps, the workloads and the targets of one cause together; each target without
    numbers has one.
    """
    together: dict[tuple[str, str, str, str], list[str]] = {}
    for gap in run.gaps:
        key = tuple(clean(gap.get(name)) for name in ("target", "cause", "detail", "hint"))
        workloads = together.setdefault((key[0], key[1], key[2], key[3]), [])
        workload = clean(gap.get("workload"))
        if workload and workload not in workloads:
            workloads.append(workload)
    for target in run.targets:
        if not target.measured and not any(key[0] == target.name for key in together):
            missing = missing_of(run, target)
            together[target.name, target.status, missing.reason.shown, missing.hint.shown] = []
    every = {workload.name for workload in run.workloads}
    alike: dict[tuple[str, str, str, str], list[str]] = {}
    for (name, cause, detail, hint), names in together.items():
        cells = listed(names) if names and every - {*names} else "every workload"
        way_out = hint.removesuffix(name) if hint.endswith(f"{_OPTION}{name}") else hint
        alike.setdefault((cells, cause, detail, way_out), []).append(name)
    return tuple(
        GapView(
            target=", ".join(targets),
            workloads=cells,
            cause=cause or "unknown",
            detail=value_of(detail, "no detail was recorded"),
            hint=value_of(hint + ",".join(targets) if hint.endswith(_OPTION) else hint, ""),
        )
        for (cells, cause, detail, hint), targets in alike.items()
    )


def doubt_views(run: Run) -> tuple[DoubtView, ...]:
    """Return the doubts about the whole run, then those about cells, equal ones together."""
    found = [
        DoubtView(
            text=value_of(item.get("detail") or item.get("code")),
            advice=clean(item.get("advice")),
            where="the whole run",
            blocks=item.get("blocks") is True,
        )
        for item in items_of(run.raw.get("doubts"))
    ]
    places: dict[str, dict[str, list[str]]] = {}
    cells = [(cell, cell.workload) for cell in run.cells.values()]
    class_means = [(suite, mean_of(suite.group)) for suite in run.class_means.values()]
    for cell, name in (*cells, *class_means):
        doubts = cell.raw.get("doubts")
        for doubt in doubts if isinstance(doubts, list | tuple) else ():
            place = places.setdefault(clean(doubt), {}).setdefault(cell.target, [])
            place.append(name)
    for text, targets in places.items():
        where = "; ".join(f"{target} at {listed(names)}" for target, names in targets.items())
        found.append(DoubtView(text=value_of(text), advice="", where=where, blocks=False))
    return tuple(found)
