"""Compares expectations with environments. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from isobench.model import Environment, Evidence, Expectation, ExpectationCheck, Fact, Relation

_CANARY: Final = frozenset({"host.canary_readable", "host.canary_errno"})
"""The facts about the host that only a payload can report: whether it can read a file of it."""


def reported_inside(facts: Iterable[Evidence]) -> Iterator[Evidence]:
    """Yield what a payload may say. The other facts "host.…" come from the host alone."""
    for fact in facts:
        if not fact.key.startswith("host.") or fact.key in _CANARY:
            yield fact


def gather(facts: Iterable[Evidence]) -> Environment:
    """Return the facts by key. The first of each key counts."""
    by_key: dict[str, Evidence] = {}
    for fact in facts:
        # The first counts, so that a session cannot replace what the evidence payload saw.
        by_key.setdefault(fact.key, fact)
    return Environment(facts=by_key)


def from_inside(
    expectations: Iterable[Expectation], inside: Environment
) -> tuple[Expectation, ...]:
    """Return the expectations that an instance without a `Witness` can meet.

    Those about facts that only the host sees ("host.…") are left out where no such fact is known.
    """
    return tuple(
        expectation
        for expectation in expectations
        if not expectation.key.startswith("host.") or expectation.key in inside.facts
    )


def relation(host: Fact, inside: Fact) -> str:
    """Return how a fact relates to the host's: "same", "unlike" or "unknown"."""
    if host is None or inside is None:
        return "unknown"
    return Relation.SAME_AS_HOST.value if host == inside else Relation.UNLIKE_HOST.value


def check(
    expectations: Iterable[Expectation], *, host: Environment, inside: Environment
) -> tuple[ExpectationCheck, ...]:
    """Compare every expectation with the facts.

    An expectation about an unknown fact is not met: no proof, no number.
    """
    checks = []
    for expectation in expectations:
        seen, outside = inside.value(expectation.key), host.value(expectation.key)
        match expectation.relation:
            # An unknown fact never meets an expectation, not even "other than".
            case Relation.EQUALS:
                met = seen is not None and seen == expectation.value
            case Relation.ONE_OF:
                met = seen is not None and str(seen) in str(expectation.value).split()
            case Relation.CONTAINS:
                met = seen is not None and str(expectation.value) in str(seen)
            case Relation.OTHER_THAN:
                met = seen is not None and seen != expectation.value
            case _:
                met = relation(outside, seen) == expectation.relation.value
        checks.append(ExpectationCheck(expectation=expectation, host=outside, inside=seen, met=met))
    return tuple(checks)


def unmet(checks: Iterable[ExpectationCheck]) -> str:
    """Return the expectations that were not met, as text; empty: all were met."""
    return "; ".join(
        f"{check.expectation.key} should be {_demand(check.expectation)},"
        f" but is {check.inside!r} inside (host: {check.host!r})"
        for check in checks
        if not check.met
    )


def hints(checks: Iterable[ExpectationCheck]) -> str:
    """Return the hints of the expectations that were not met; empty where they have none."""
    found = [check.expectation.hint for check in checks if not check.met]
    return "; ".join(dict.fromkeys(hint for hint in found if hint))


def _demand(expectation: Expectation) -> str:
    match expectation.relation:
        case Relation.SAME_AS_HOST:
            return "the host's"
        case Relation.UNLIKE_HOST:
            return "unlike the host's"
        case Relation.EQUALS:
            return repr(expectation.value)
        case Relation.ONE_OF:
            return f"one of {', '.join(str(expectation.value).split())}"
        case Relation.CONTAINS:
            return f"a value that contains {expectation.value!r}"
        case Relation.OTHER_THAN:
            return f"other than {expectation.value!r}"


def relations(host: Environment, inside: Environment) -> Mapping[str, str]:
    """Return how each fact inside relates to the host's, for `summary.json`."""
    return {key: relation(host.value(key), inside.value(key)) for key in inside.facts}
