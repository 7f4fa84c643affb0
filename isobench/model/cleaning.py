"""Makes text from outside safe to show. This happens once, where files are read.

A target, a guest or a stranger may have written the text in the files of a run. Characters that
control a terminal or change the direction of a line become escapes, and long texts are cut. Markup
of HTML and Markdown stays: the page and Markdown escape it when they are rendered.
"""

import unicodedata
from collections.abc import Mapping
from typing import Any, Final

LONGEST: Final = 10_000
"""The most characters of one text. A longer text is cut and ends in an ellipsis."""
# Facts such as a map of user ids have several lines and tabs. Neither can change what a terminal
# has already shown.
_LAYOUT: Final = frozenset("\n\t")


def cleaned(text: str, *, longest: int | None = LONGEST) -> str:
    """Return a text with only visible characters, spaces, tabs and line ends.

    It has at most `longest` characters; None: no limit.
    """
    if longest is not None and len(text) > longest:
        text = text[: longest - 1] + "\N{HORIZONTAL ELLIPSIS}"
    # Nearly all texts end here: isprintable() runs in C, the loop below does not.
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in _LAYOUT else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    # isprintable() is false for every space but U+0020, for example a no-break space. They are
    # harmless, and an escape in their place would be hard to read.
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def all_cleaned(value: Any, *, raw: frozenset[str] = frozenset()) -> Any:  # noqa: ANN401 - plain data
    """Return plain data (from JSON) with all its texts cleaned, keys included.

    The values of the top-level keys in `raw` stay as they are.
    """
    if isinstance(value, str):
        return cleaned(value)
    if isinstance(value, Mapping):
        return {
            cleaned(key): each if key in raw else all_cleaned(each) for key, each in value.items()
        }
    if isinstance(value, list):
        return [all_cleaned(each) for each in value]
    return value
