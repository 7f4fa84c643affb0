"""Suggestions for misspelt names."""

import difflib
from collections.abc import Iterable
from typing import Final

# Looking for similar names takes long for a name of a megabyte, which resembles none.
_LONGEST: Final = 200


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" for a name that is not among `known`; empty if none is similar."""
    if len(name) > _LONGEST:
        return ""
    names = list(known)
    # In this order: "gvis" is a part of gvisor; "dokcer" looks like docker; "docker-ce" contains
    # docker.
    close = [each for each in names if name and name in each]
    close = close or difflib.get_close_matches(name, names, n=1)
    close = close or [each for each in names if each in name]
    return f"did you mean {close[0]}?" if close else ""
