"""Promises against environments. Pure."""

from collections.abc import Iterable, Mapping

from isobench.model import Environment, Evidence, Fact, Promise, PromiseCheck, Relation


def gather(facts: Iterable[Evidence]) -> Environment:
    """Return the facts by key; the first of a key stands."""
    by_key: dict[str, Evidence] = {}
    for fact in facts:
        by_key.setdefault(fact.key, fact)
    return Environment(facts=by_key)


def from_inside(promises: Iterable[Promise], inside: Environment) -> tuple[Promise, ...]:
    """Return the promises that an instance without a witness can be held to.

    What only the host sees of a session ("host.…") is held where a session says it.
    """
    return tuple(
        promise
        for promise in promises
        if not promise.key.startswith("host.") or promise.key in inside.facts
    )


def relation(host: Fact, inside: Fact) -> str:
    """Return how a fact stands to the host's: "same", "unlike" or "unknown"."""
    if host is None or inside is None:
        return "unknown"
    return Relation.SAME_AS_HOST.value if host == inside else Relation.UNLIKE_HOST.value


def hold(
    promises: Iterable[Promise], *, host: Environment, inside: Environment
) -> tuple[PromiseCheck, ...]:
    """Hold every promise against the facts. What is unknown on either side is not kept."""
    checks = []
    for promise in promises:
        seen, outside = inside.value(promise.key), host.value(promise.key)
        match promise.relation:
            case Relation.EQUALS:
                kept = seen is not None and seen == promise.value
            case Relation.ONE_OF:
                kept = seen is not None and str(seen) in str(promise.value).split()
            case Relation.CONTAINS:
                kept = seen is not None and str(promise.value) in str(seen)
            case Relation.OTHER_THAN:
                kept = seen is not None and seen != promise.value
            case _:
                kept = relation(outside, seen) == promise.relation.value
        checks.append(PromiseCheck(promise=promise, host=outside, inside=seen, kept=kept))
    return tuple(checks)


def broken(checks: Iterable[PromiseCheck]) -> str:
    """Return the promises that were not kept, in words; empty when all were."""
    return "; ".join(
        f"{check.promise.key} should be {_demand(check.promise)}, and is {check.inside!r} inside"
        f" (host: {check.host!r})"
        for check in checks
        if not check.kept
    )


def way_out(checks: Iterable[PromiseCheck]) -> str:
    """Return what to change for the promises that were not kept; empty where they do not say."""
    hints = [check.promise.hint for check in checks if not check.kept]
    return "; ".join(dict.fromkeys(hint for hint in hints if hint))


def _demand(promise: Promise) -> str:
    match promise.relation:
        case Relation.SAME_AS_HOST:
            return "the host's"
        case Relation.UNLIKE_HOST:
            return "unlike the host's"
        case Relation.EQUALS:
            return repr(promise.value)
        case Relation.ONE_OF:
            return f"one of {', '.join(str(promise.value).split())}"
        case Relation.CONTAINS:
            return f"something with {promise.value!r}"
        case Relation.OTHER_THAN:
            return f"other than {promise.value!r}"


def relations(host: Environment, inside: Environment) -> Mapping[str, str]:
    """Return how each fact of the inside stands to the host's, for `summary.json`."""
    return {key: relation(host.value(key), inside.value(key)) for key in inside.facts}
