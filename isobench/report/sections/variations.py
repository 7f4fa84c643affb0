"""What single options of targets explain."""

from isobench.model import Status
from isobench.report.sections.figures import interval_text, ratio_text
from isobench.report.sections.marks import MARKS
from isobench.report.sections.run import Run, bounds_of
from isobench.report.sections.shapes import Mark, OptionEffect, VariationView
from isobench.report.sections.values import clean, number_of

_MARKS = {
    Status.SLOWER: Mark(kind=Status.SLOWER, word="costs", sign=">"),
    Status.FASTER: Mark(kind=Status.FASTER, word="saves", sign="<"),
    Status.NEAR_NATIVE: Mark(kind=Status.NEAR_NATIVE, word="no effect", sign="="),
}


def variation_views(run: Run) -> tuple[VariationView, ...]:
    """Return the variations of a run, each with its effects by workload."""
    found: dict[str, VariationView] = {}
    marks = {kind.value: mark for kind, mark in _MARKS.items()}
    for item in run.variations:
        name = clean(item.get("target"))
        effect, bounds = number_of(item.get("effect")), bounds_of(item.get("interval"))
        one = OptionEffect(
            workload=clean(item.get("workload")),
            effect=ratio_text(effect, bounds),
            interval=interval_text(effect, bounds),
            mark=marks.get(clean(item.get("standing")), MARKS[Status.INCONCLUSIVE]),
            sentence=clean(item.get("sentence")),
        )
        earlier = found[name].effects if name in found else ()
        found[name] = VariationView(
            target=name,
            base=clean(item.get("base")),
            change=f"{clean(item.get('option'))} = {clean(item.get('value'))}",
            effects=(*earlier, one),
        )
    return tuple(found.values())
