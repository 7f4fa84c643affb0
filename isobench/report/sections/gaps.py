"""The section Gaps and doubts: what has no number and why, and which numbers are uncertain."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.model.wording import joined
from isobench.report.markup import escaped, items
from isobench.report.sections.lookup import Lookup, mean_of, row_of
from isobench.report.sections.phrases import missing_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Value, value_of

# A hint "isobench run --targets NAME" measures what was left out. The hints of several targets
# become one command with all their names.
_OPTION: Final = " run --targets "
_Key = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class GapView:
    """Cells without a number, and why. The workloads of one cause are shown together."""

    target: str
    workloads: str
    cause: str
    detail: Value
    hint: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtView:
    """A doubt about numbers, and where it applies."""

    text: Value
    advice: str
    where: str
    blocks: bool
    """Whether it prevents verdicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The gaps and the doubts of a run."""

    gaps: tuple[GapView, ...]
    doubts: tuple[DoubtView, ...]


def gaps(lookup: Lookup) -> Gaps:
    """Return the gaps and the doubts of a run."""
    return Gaps(gaps=tuple(_gaps(lookup)), doubts=(*_of_run(lookup), *_of_cells(lookup)))


def _gaps(lookup: Lookup) -> Iterator[GapView]:
    """Yield the gaps. Workloads and targets with the same cause are one gap.

    Each target without numbers has a gap.
    """
    every = {workload.name for workload in lookup.workloads}
    grouped: dict[_Key, list[str]] = {}
    for (name, cause, detail, hint), names in _by_target(lookup).items():
        cells = joined(names) if names and every - {*names} else "every workload"
        shared_hint = hint.removesuffix(name) if hint.endswith(f"{_OPTION}{name}") else hint
        grouped.setdefault((cells, cause, detail, shared_hint), []).append(name)
    for (cells, cause, detail, hint), targets in grouped.items():
        yield GapView(
            target=", ".join(targets),
            workloads=cells,
            cause=cause,
            detail=value_of(detail, "no detail was recorded"),
            hint=value_of(hint + ",".join(targets) if hint.endswith(_OPTION) else hint, ""),
        )


def _by_target(lookup: Lookup) -> dict[_Key, list[str]]:
    """Return the workloads of each gap by target, cause, detail and hint; empty: all workloads."""
    together: dict[_Key, list[str]] = {}
    for gap in lookup.summary.gaps:
        workloads = together.setdefault((gap.target, gap.cause, gap.detail, gap.hint), [])
        if gap.workload and row_of(gap) not in workloads:
            workloads.append(row_of(gap))
    # A target without numbers and without a gap: a run that ended before its first visit.
    for target in lookup.targets:
        if not target.measured and not any(key[0] == target.name for key in together):
            missing = missing_of(lookup, target)
            together[target.name, target.status, missing.reason.shown, missing.hint.shown] = []
    return together


def _of_run(lookup: Lookup) -> Iterator[DoubtView]:
    for doubt in lookup.run.doubts:
        yield DoubtView(
            text=value_of(doubt.detail or doubt.code),
            advice=doubt.advice,
            where="the whole run",
            blocks=doubt.blocks,
        )


def _of_cells(lookup: Lookup) -> Iterator[DoubtView]:
    """Yield the doubts about cells and means; equal doubts are one."""
    places: dict[str, dict[str, list[str]]] = {}
    cells = [(cell, cell.place) for cell in lookup.cells.values()]
    means = [(mean, mean_of(mean.group)) for mean in lookup.class_means.values()]
    for figure, name in (*cells, *means):
        for doubt in figure.data.doubts:
            places.setdefault(doubt, {}).setdefault(figure.target, []).append(name)
    for text, targets in places.items():
        where = "; ".join(f"{target} at {joined(names)}" for target, names in targets.items())
        yield DoubtView(text=value_of(text), advice="", where=where, blocks=False)


def _markdown(view: Gaps) -> Iterator[str]:
    if view.gaps:
        yield "## Gaps"
        yield items(map(_line, view.gaps))


def _line(gap: GapView) -> str:
    text = escaped(f"{gap.target}, {gap.workloads}: {gap.cause}: {gap.detail.shown}")
    hint = f" \N{RIGHTWARDS ARROW} {escaped(gap.hint.shown)}" if gap.hint.shown else ""
    return f"{text}{hint}"


GAPS: Final = Section(
    anchor="gaps",
    title="Gaps and doubts",
    template="gaps.html.j2",
    build=gaps,
    markdown=_markdown,
)
