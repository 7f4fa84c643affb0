"""Names that someone may have meant."""

import difflib
from collections.abc import Iterable


def meant(name: str, known: Iterable[str]) -> str:
    """Return "did you mean …?" for a name that is none of those known; empty without a near one.

    A part of a known name is nearest, then one that looks alike, then a name with more around it.
    """
    names = list(known)
    close = [each for each in names if name and name in each]
    close = close or difflib.get_close_matches(name, names, n=1)
    close = close or [each for each in names if each in name]
    return f"did you mean {close[0]}?" if close else ""
