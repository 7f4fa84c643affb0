"""Limits that a program pushed past, target by target."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import LimitCheck, Resource
from isobench.model.wording import NOTHING
from isobench.report.markup import escaped, items
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.marks import BROKEN, KEPT, MARKS, Mark
from isobench.report.sections.section import Section

_COUNTED: Final = {
    Resource.CPU: "paused in {} periods",
    Resource.MEMORY: "{} killed",
    Resource.PROCESSES: "{} refused",
}
_HELD: Final = {
    True: Mark(kind=KEPT.kind, word="held", sign=KEPT.sign),
    False: Mark(kind=BROKEN.kind, word="passed", sign=BROKEN.sign),
    None: replace(MARKS["gap"], word="unknown"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """A limit of one target that a program pushed past, in words."""

    target: str
    resource: str
    limit: str
    reached: str
    native: str
    counted: str
    """The kernel's own count of its interventions; empty where none is in sight."""
    mark: Mark
    why: str
    """Why it is not known whether it held; empty where it is."""


def limits(found: Lookup) -> tuple[LimitView, ...] | None:
    """Return the limits that were pushed past; None where none were."""
    views = [_view(target.name, limit) for target in found.targets for limit in target.limits]
    return tuple(views) or None


def _view(target: str, limit: LimitCheck) -> LimitView:
    words = _COUNTED.get(limit.resource, "")
    return LimitView(
        target=target,
        resource=limit.resource,
        limit=_amount(limit.limit, limit.unit),
        reached=_amount(limit.reached, limit.unit),
        native=_amount(limit.native, limit.unit),
        counted="" if limit.counted is None or not words else words.format(limit.counted),
        mark=_HELD[limit.held],
        why=limit.why,
    )


def _amount(value: float | None, unit: str) -> str:
    return NOTHING if value is None else f"{float(f'{value:.3g}'):,g} {unit}"


def _markdown(view: tuple[LimitView, ...]) -> Iterator[str]:
    yield "## Limits, pushed past"
    yield items(
        f"**{one.mark.word}** "
        + escaped(f"{one.target}, {one.resource}: {one.reached} of {one.limit}")
        + escaped(f" ({one.native} natively)" + (f": {one.why}" if one.why else ""))
        for one in view
    )


LIMITS: Final = Section(
    anchor="limits",
    title="Limits",
    template="limits.html.j2",
    build=limits,
    markdown=_markdown,
)
