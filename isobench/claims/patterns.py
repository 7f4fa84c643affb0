"""The patterns of claims. Whoever wrote them, a search takes time in proportion to the text.

Python's `re` backtracks: `^(a+)+$` takes twice as long for each further letter. RE2 does not. It
has no backreferences and no lookaround.
"""

import functools
from typing import Final

import re2

MOST_CHARACTERS: Final = 1000
"""The longest pattern."""
_MOST_KEPT: Final = 128
"""Compiled patterns. A claim has 16 at most, and is judged as a whole."""
_MEMORY: Final = 1 << 20
"""Bytes that a compiled pattern may take: a{1000}{1000} would take gigabytes."""


def check(pattern: str) -> None:
    """Check a pattern. ValueError: it is too long, or not in the language of RE2."""
    if len(pattern) > MOST_CHARACTERS:
        message = f"it has more than {MOST_CHARACTERS} characters"
        raise ValueError(message)
    _compiled(pattern)


def found(pattern: str, text: str) -> bool:
    """Return whether a pattern is found anywhere in a text. ValueError as in `check`."""
    return _compiled(pattern).search(text) is not None


@functools.lru_cache(maxsize=_MOST_KEPT)
def _compiled(pattern: str) -> "re2._Regexp[str]":
    options = re2.Options()
    # RE2 would print errors itself, on standard error.
    options.log_errors = False
    options.max_mem = _MEMORY
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        detail = error.args[0] if error.args else "it is not a regular expression"
        message = detail.decode(errors="replace") if isinstance(detail, bytes) else str(detail)
        raise ValueError(message) from None
