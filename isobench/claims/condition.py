r"""Evaluates the condition of a claim: `workload =~ '^cpu\\.' and target == 'docker'`. Pure.

A condition is a list of comparisons joined by `and`. Each has a name (workload, class, target or
technology), an operator and a text in quotes. The operators are ==, !=, =~ (a search for a regular
expression in the language of RE2: see `patterns`) and !~ (its negation).
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from isobench.claims import patterns

MOST_COMPARISONS: Final = 16
"""In one condition: each may be a pattern, which takes time to compile."""
NAMES: Final = ("workload", "class", "target", "technology")
_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    "=~": lambda found, wanted: patterns.found(wanted, found),
    "!~": lambda found, wanted: not patterns.found(wanted, found),
}
_COMPARISON: Final = re.compile(
    r"\s*(?P<name>\w+)\s*(?P<operator>==|!=|=~|!~)\s*"
    r"(?:'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")\s*(?P<joined>and\b|$)"
)


def holds(condition: str, facts: Mapping[str, str]) -> bool:
    """Return whether the condition holds for the values in `facts`. An empty condition holds.

    Comparisons with a name that `facts` does not have are ignored: its value is not known yet.
    ValueError: the condition is invalid; the message shows where.
    """
    return all(
        _OPERATORS[operator](facts[name], text)
        # The list reads the whole condition, so that an error at its end is always found.
        for name, operator, text in list(comparisons(condition))
        if name in facts
    )


def comparisons(condition: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, operator and text of each comparison. ValueError as in `holds`."""
    at, joined, number = 0, bool(condition.strip()), 0
    while joined:
        number += 1
        if number > MOST_COMPARISONS:
            message = f"has more than {MOST_COMPARISONS} comparisons"
            raise ValueError(message)
        found = _COMPARISON.match(condition, at)
        if found is None:
            message = (
                f"is not a condition from {condition[at:].strip()!r} on: write comparisons such as"
                " workload =~ '^cpu' joined by and"
            )
            raise ValueError(message)
        name = found["name"]
        text = found["single"] if found["single"] is not None else found["double"]
        if name not in NAMES:
            message = f"compares {name!r}, which is not one of {', '.join(NAMES)}"
            raise ValueError(message)
        if found["operator"] in {"=~", "!~"}:
            try:
                patterns.check(text)
            except ValueError as error:
                message = f"has an invalid regular expression {text!r}: {error}"
                raise ValueError(message) from None
        yield name, found["operator"], text
        at, joined = found.end(), bool(found["joined"])
