"""Text from outside, made fit to be shown: done once, where files are read.

What is in the files of a run may have been written by a target, a guest or a stranger. Characters
that control a terminal or turn the direction of a line are shown as escapes, and no text is longer
than anybody reads. Markup of HTML and Markdown is left: who renders escapes it.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

LONGEST: Final = 10_000
"""Characters of one text; what is longer is cut, and ends in an ellipsis."""
_LAYOUT: Final = frozenset("\n\t")
"""They lay text out and do nothing else: facts have several lines."""


def cleaned(text: str, *, longest: int | None = LONGEST) -> str:
    """Return text without characters that do more than be seen, and not longer than `longest`."""
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() or letter in _LAYOUT else _shown(letter) for letter in text
    )


def _shown(letter: str) -> str:
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode("ascii")


def all_cleaned(value: Any, *, but: frozenset[str] = frozenset()) -> Any:  # noqa: ANN401 - plain data
    """Return plain data with all its texts cleaned, those of keys too.

    What stands under the keys in `but` is left: it is read by machines alone.
    """
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, Mapping):
        return {
            cleaned(key): each if key in but else all_cleaned(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [all_cleaned(each) for each in value]
    return value
