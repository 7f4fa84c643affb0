"""The section Limits: the limit tests of each target."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import LimitCheck, Resource
from isobench.model.wording import NOTHING
from isobench.report.markup import escaped, items
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.marks import MARKS, MET, NOT_MET, Mark
from isobench.report.sections.section import Section

# By the counters of cgroups: nr_throttled of cpu.stat, oom_kill of memory.events, max of
# pids.events. There is none for throttled writes.
_COUNTED: Final = {
    Resource.CPU: "paused in {} periods",
    Resource.MEMORY: "{} killed",
    Resource.PROCESSES: "{} refused",
}
_HELD: Final = {
    True: Mark(kind=MET.kind, word="held", sign=MET.sign),
    False: Mark(kind=NOT_MET.kind, word="exceeded", sign=NOT_MET.sign),
    None: replace(MARKS["gap"], word="unknown"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitView:
    """A limit test of one target."""

    target: str
    resource: str
    limit: str
    reached: str
    native: str
    counted: str
    """How often the kernel enforced the limit, by its own count; empty where it is not visible."""
    mark: Mark
    why: str
    """Why it is unknown whether the limit held; else empty."""


def limits(lookup: Lookup) -> tuple[LimitView, ...] | None:
    """Return the limit tests of a run; None where there were none."""
    views = [_view(target.name, limit) for target in lookup.targets for limit in target.limits]
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
    yield "## Limits"
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
