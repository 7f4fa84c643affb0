"""Expectations against environments. Pure."""

from collections.abc import Iterable, Mapping

from isobench.model import Environment, Evidence, Expectation, ExpectationCheck, Fact, Relation


def gather(facts: Iterable[Evidence]) -> Environment:
    """Return the facts by key; the first of a key stands."""
    by_key: dict[str, Evidence] = {}
    for fact in facts:
        by_key.setdefault(fact.key, fact)
    return Environment(facts=by_key)


def from_inside(
    expectations: Iterable[Expectation], inside: Environment
) -> tuple[Expectation, ...]:
    """Return the expectations that an instance without a witness can be held to.

    What only the host sees of a session ("host.…") is held where a session says it.
    """
    return tuple(
        expectation
        for expectation in expectations
        if not expectation.key.startswith("host.") or expectation.key in inside.facts
    )


def relation(host: Fact, inside: Fact) -> str:
    """Return how a fact stands to the host's: "same", "unlike" or "unknown"."""
    if host is None or inside is None:
        return "unknown"
    return Relation.SAME_AS_HOST.value if host == inside else Relation.UNLIKE_HOST.value


def check(
    expectations: Iterable[Expectation], *, host: Environment, inside: Environment
) -> tuple[ExpectationCheck, ...]:
    """Compare every expectation with the facts. What is unknown on either side is not met."""
    checks = []
    for expectation in expectations:
        seen, outside = inside.value(expectation.key), host.value(expectation.key)
        match expectation.relation:
            case Relation.EQUALS:
                kept = seen is not None and seen == expectation.value
            case Relation.ONE_OF:
                kept = seen is not None and str(seen) in str(expectation.value).split()
            case Relation.CONTAINS:
                kept = seen is not None and str(expectation.value) in str(seen)
            case Relation.OTHER_THAN:
                kept = seen is not None and seen != expectation.value
            case _:
                kept = relation(outside, seen) == expectation.relation.value
        checks.append(
            ExpectationCheck(expectation=expectation, host=outside, inside=seen, kept=kept)
        )
    return tuple(checks)


def unmet(checks: Iterable[ExpectationCheck]) -> str:
    """Return the expectations that were not met, in words; empty when all were."""
    return "; ".join(
        f"{check.expectation.key} should be {_demand(check.expectation)},"
        f" and is {check.inside!r} inside (host: {check.host!r})"
        for check in checks
        if not check.kept
    )


def hints(checks: Iterable[ExpectationCheck]) -> str:
    """Return what to change for the expectations that were not met; empty where they do not say."""
    found = [check.expectation.hint for check in checks if not check.kept]
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
            return f"something with {expectation.value!r}"
        case Relation.OTHER_THAN:
            return f"other than {expectation.value!r}"


def relations(host: Environment, inside: Environment) -> Mapping[str, str]:
    """Return how each fact of the inside stands to the host's, for `summary.json`."""
    return {key: relation(host.value(key), inside.value(key)) for key in inside.facts}
