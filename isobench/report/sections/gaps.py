"""The section Gaps and doubts: what has no number and why, and which numbers are uncertain."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.model.wording import joined
from isobench.report.markup import escaped, items
from isobench.report.sections.lookup import Lookup, row_of
from isobench.report.sections.phrases import missing_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Value, value_of

# A hint "isobench run --targets NAME" measures what was left out. The hints of several targets
# become one command with all their names.
_OPTION: Final = " run --targets "
_LONGEST_DOUBT: Final = 600
"""Characters: only the doubts of a stranger's file are longer."""
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
class Place:
    """A row that a doubt is about."""

    name: str
    anchor: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtPlaces:
    """The rows of one target that a doubt is about."""

    target: str
    rows: tuple[Place, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DoubtView:
    """A doubt about numbers in whole sentences, and where it applies."""

    text: Value
    anchor: str
    """Empty: it is about the whole run."""
    where: tuple[DoubtPlaces, ...]
    """Empty: the whole run."""
    blocks: bool
    """Whether it prevents verdicts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaps:
    """The gaps and the doubts of a run."""

    gaps: tuple[GapView, ...]
    complete: str
    """What is shown where there are no gaps."""
    doubts: tuple[DoubtView, ...]


def gaps(lookup: Lookup) -> Gaps:
    """Return the gaps and the doubts of a run."""
    return Gaps(
        gaps=tuple(_gaps(lookup)),
        complete=_complete(lookup),
        doubts=(*_of_run(lookup), *_of_cells(lookup)),
    )


def _complete(lookup: Lookup) -> str:
    """Return that every cell has a number; of a run that has none, or without some of the targets,
    only that no gap is recorded.
    """
    without = [target.name for target in lookup.targets if not target.measured]
    if without or not lookup.cells:
        return "No gap is recorded."
    return "Every planned cell has a number."


def _gaps(lookup: Lookup) -> Iterator[GapView]:
    """Yield the gaps. Workloads and targets with the same cause are one gap.

    Each target without numbers has a gap.
    """
    every = {workload.name for workload in lookup.workloads}
    grouped: dict[_Key, list[str]] = {}
    for (name, cause, detail, hint), names in _by_target(lookup).items():
        cells = joined(names) if names and not every.issubset(names) else "every workload"
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


def _by_target(lookup: Lookup) -> dict[_Key, dict[str, None]]:
    """Return the workloads of each gap by target, cause, detail and hint; empty: all workloads."""
    together: dict[_Key, dict[str, None]] = {}
    for gap in lookup.summary.gaps:
        # A dict, since a set does not keep the order.
        workloads = together.setdefault((gap.target, gap.cause, gap.detail, gap.hint), {})
        if gap.workload:
            workloads[row_of(gap)] = None
    # A target without numbers and without a gap: a run that ended before its first visit.
    for target in lookup.targets:
        if not target.measured and lookup.gap_of_target(target.name) is None:
            missing = missing_of(lookup, target)
            together[target.name, target.status, missing.reason.shown, missing.hint.shown] = {}
    return together


def _of_run(lookup: Lookup) -> Iterator[DoubtView]:
    for doubt in lookup.run.doubts:
        text = f"{doubt.detail}: {doubt.advice}" if doubt.advice else doubt.detail
        yield DoubtView(text=_whole(text or doubt.code), anchor="", where=(), blocks=doubt.blocks)


def _of_cells(lookup: Lookup) -> Iterator[DoubtView]:
    """Yield the doubts about cells and means; equal doubts are one."""
    for text, figures in lookup.doubts.items():
        places: dict[str, list[Place]] = {}
        for figure in figures:
            place = Place(name=figure.row, anchor=lookup.anchor_of(figure.target, figure.row))
            places.setdefault(figure.target, []).append(place)
        yield DoubtView(
            text=_whole(text),
            anchor=lookup.doubt_anchors[text],
            where=tuple(
                DoubtPlaces(target=target, rows=tuple(rows)) for target, rows in places.items()
            ),
            blocks=False,
        )


def _whole(text: str) -> Value:
    """Return a doubt as a sentence: with a capital letter and a full stop."""
    # Names of workloads and files keep their first letter.
    first = text.partition(" ")[0]
    sentence = text if "." in first else text[:1].upper() + text[1:]
    whole = sentence if sentence.endswith((".", "?", "!")) else f"{sentence}."
    return value_of(whole, clip=_LONGEST_DOUBT)


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
