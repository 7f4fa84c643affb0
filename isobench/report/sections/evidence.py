"""Evidence and parity: expectations met, facts seen, and what differed besides the isolation."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final

from isobench.model import Resource
from isobench.report.sections.figures import NOTHING
from isobench.report.sections.marks import BROKEN, KEPT, MARKS
from isobench.report.sections.phrases import missing_of, version_of
from isobench.report.sections.run import REFERENCE, Run
from isobench.report.sections.shapes import Difference, Fact, Kept, LimitView, Mark, Parity, Proof
from isobench.report.sections.values import amount_of, clean, counted, items_of, value_of


def proofs(run: Run) -> Iterable[Proof]:
    """Yield the evidence of each target, those that could not run included, the control not."""
    for target in run.targets:
        if target.heading.control:
            continue
        expectations = tuple(
            _kept(expectation) for expectation in items_of(target.raw.get("promises"))
        )
        kept = sum(expectation.mark is KEPT for expectation in expectations)
        if expectations:
            verdict = f"{kept} of {counted(len(expectations), 'expectation')} met"
        elif target.measured:
            verdict = "nothing is expected"
        else:
            verdict = target.status
        whole = target.measured and kept == len(expectations)
        yield Proof(
            target=target.heading,
            version=version_of(target) if target.measured else missing_of(run, target).reason,
            status=target.status,
            verdict=verdict,
            mark=KEPT if whole else BROKEN if target.measured or expectations else MARKS["gap"],
            expectations=expectations,
            facts=tuple(
                Fact(
                    label=clean(fact.get("key")),
                    value=value_of(fact.get("value"), "could not be read"),
                    source=clean(fact.get("source")),
                )
                for fact in items_of(target.raw.get("facts"))
            ),
        )


def _kept(expectation: Mapping[str, Any]) -> Kept:
    spelled = clean(expectation.get("relation"))
    wanted = clean(expectation.get("expected"))
    words = {
        "same": "as on the host",
        "unlike": "unlike the host",
        "equals": f"is {wanted}",
        "one-of": f"is one of {', '.join(wanted.split())}",
        "contains": f"contains {wanted}",
        "other-than": f"is not {wanted}",
    }
    return Kept(
        key=clean(expectation.get("key")),
        relation=words.get(spelled, spelled),
        host=value_of(expectation.get("host"), "could not be read"),
        inside=value_of(expectation.get("inside"), "could not be read"),
        mark=KEPT if expectation.get("kept") is True else BROKEN,
    )


_COUNTED: Final = {
    Resource.CPU: "paused in {} periods",
    Resource.MEMORY: "{} killed",
    Resource.PROCESSES: "{} refused",
}
_HELD: Final = {
    "yes": Mark(kind=KEPT.kind, word="held", sign=KEPT.sign),
    "no": Mark(kind=BROKEN.kind, word="passed", sign=BROKEN.sign),
    "": replace(MARKS["gap"], word="unknown"),
}


def limits(run: Run) -> Iterable[LimitView]:
    """Yield the limits that were pushed past, target by target."""
    counters = {resource.value: words for resource, words in _COUNTED.items()}
    for target in run.targets:
        for item in items_of(target.raw.get("limits")):
            resource, unit = clean(item.get("resource")), clean(item.get("unit"))
            counted = amount_of(item.get("counted"))
            words = counters.get(resource, "")
            yield LimitView(
                target=target.name,
                resource=resource,
                limit=_amount(item.get("limit"), unit),
                reached=_amount(item.get("reached"), unit),
                native=_amount(item.get("native"), unit),
                counted="" if counted is None or not words else words.format(f"{counted:g}"),
                mark=_HELD.get(clean(item.get("held")), _HELD[""]),
                why=clean(item.get("why")),
            )


def _amount(value: object, unit: str) -> str:
    number = amount_of(value)
    return NOTHING if number is None else f"{float(f'{number:.3g}'):,g} {unit}"


def parity(run: Run) -> Iterable[Parity]:
    """Yield what differed between native and each other target with numbers."""
    for target in run.targets:
        if not target.measured or target.heading.control or target.name == REFERENCE:
            continue
        differences = tuple(
            Difference(
                label=clean(item.get("label")),
                native=value_of(item.get("native"), "not known"),
                target=value_of(item.get("target"), "not known"),
            )
            for item in items_of(target.raw.get("parity"))
        )
        yield Parity(target=target.heading, differences=differences)
