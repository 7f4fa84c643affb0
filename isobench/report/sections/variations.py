"""The section Options: what single options of targets explain."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from isobench.model import Status
from isobench.model.wording import level_text, series_text
from isobench.report.markup import escaped, items
from isobench.report.sections.figures import interval_text, ratio_text
from isobench.report.sections.lookup import Lookup
from isobench.report.sections.marks import MARKS, Mark
from isobench.report.sections.section import Section
from isobench.storage.schema import VariationSummary

_MARKS: Final = {
    Status.SLOWER: replace(MARKS[Status.SLOWER], word="costs"),
    Status.FASTER: replace(MARKS[Status.FASTER], word="saves"),
    Status.NEAR_NATIVE: replace(MARKS[Status.NEAR_NATIVE], word="no effect"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OptionEffect:
    """The effect of one option of a target in one workload."""

    workload: str
    effect: str
    """Time of the unchanged target over time with the option changed."""
    interval: str
    mark: Mark
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VariationView:
    """A target with one option changed, compared with the unchanged target `base`."""

    target: str
    base: str
    change: str
    effects: tuple[OptionEffect, ...]


def variations(lookup: Lookup) -> tuple[VariationView, ...] | None:
    """Return the variations of a run, each with its effects by workload; None: there are none."""
    views: dict[str, VariationView] = {}
    for one in lookup.summary.variations:
        earlier = views[one.target].effects if one.target in views else ()
        views[one.target] = VariationView(
            target=one.target,
            base=one.base,
            change=f"{one.option} = {one.value}",
            effects=(*earlier, _effect(one)),
        )
    return tuple(views.values()) or None


def _effect(one: VariationSummary) -> OptionEffect:
    return OptionEffect(
        workload=series_text(one.workload, one.metric),
        effect=ratio_text(one.effect, one.interval),
        interval=interval_text(one.interval, one.effect) + level_text(one.level),
        mark=_MARKS.get(one.status, MARKS[Status.INCONCLUSIVE]),
        sentence=one.sentence,
    )


def _markdown(view: tuple[VariationView, ...]) -> Iterator[str]:
    yield "## What single options explain"
    for one in view:
        yield f"{escaped(one.base)} with {escaped(one.change)}:"
        yield items(
            f"**{effect.mark.word}** {escaped(effect.workload)}: {escaped(effect.sentence)}"
            for effect in one.effects
        )


VARIATIONS: Final = Section(
    anchor="variations",
    title="Options",
    template="variations.html.j2",
    build=variations,
    markdown=_markdown,
)
