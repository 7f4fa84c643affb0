r"""The condition of a claim: `workload =~ '^cpu\\.' and target == 'docker'`. Pure.

Comparisons joined by `and`; each has a name, an operator (==, !=, =~ for a regular expression that
is searched for, !~) and a text in quotes. Names: workload, class (of the workload), target,
technology.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Final

NAMES: Final = ("workload", "class", "target", "technology")
_OPERATORS: Final[Mapping[str, Callable[[str, str], bool]]] = {
    "==": lambda found, wanted: found == wanted,
    "!=": lambda found, wanted: found != wanted,
    "=~": lambda found, wanted: re.search(wanted, found) is not None,
    "!~": lambda found, wanted: re.search(wanted, found) is None,
}
_COMPARISON: Final = re.compile(
    r"\s*(?P<name>\w+)\s*(?P<operator>==|!=|=~|!~)\s*"
    r"(?:'(?P<single>[^']*)'|\"(?P<double>[^\"]*)\")\s*(?P<joined>and\b|$)"
)


def holds(condition: str, facts: Mapping[str, str]) -> bool:
    """Say whether the condition holds where names are as `facts` says; an empty one holds.

    A name that `facts` lacks is one that is not known yet, and no comparison with it fails.
    ValueError: it is no condition; the message says where it ceases to be one.
    """
    return all(
        _OPERATORS[operator](facts[name], text)
        for name, operator, text in list(comparisons(condition))  # read whole, whatever holds
        if name in facts
    )


def comparisons(condition: str) -> Iterator[tuple[str, str, str]]:
    """Yield name, operator and text of each comparison. ValueError as above."""
    at, joined = 0, bool(condition.strip())
    while joined:
        found = _COMPARISON.match(condition, at)
        if found is None:
            message = (
                f"is no condition from {condition[at:].strip()!r} on: write comparisons such as"
                " workload =~ '^cpu' joined by and"
            )
            raise ValueError(message)
        name = found["name"]
        text = found["single"] if found["single"] is not None else found["double"]
        if name not in NAMES:
            message = f"compares {name!r}, which is none of {', '.join(NAMES)}"
            raise ValueError(message)
        if found["operator"] in {"=~", "!~"}:
            try:
                re.compile(text)
            except re.error as error:
                message = f"holds no regular expression in {text!r}: {error}"
                raise ValueError(message) from None
        yield name, found["operator"], text
        at, joined = found.end(), bool(found["joined"])
