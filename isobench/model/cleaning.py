"""Makes text from outside safe to show. This happens once, where files are read.

A target, a guest or a stranger may have written the text in the files of a run. Characters that
control a terminal or change the direction of a line become escapes, and long texts are cut. Markup
of HTML and Markdown stays: the page and Markdown escape it when they are rendered.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any, Final

LONGEST: Final = 10_000
"""The most characters of one text. A longer text is cut and ends in an ellipsis."""
LONGEST_NAME: Final = 200
LONGEST_FACT: Final = 200
"""Characters of what a machine says about itself in a line, such as its version."""
# As isobench demands of names: they stand in file names, in commands that people paste, at the
# beginning of lines and of cells of a spreadsheet.
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._+~-]*", re.ASCII)
_NO_NAME: Final = re.compile(r"[^A-Za-z0-9._+~-]", re.ASCII)
# What spreadsheets take for the beginning of a formula: OWASP, "CSV Injection".
_FORMULA: Final = re.compile(r"\s*[=+@\-\uff1d\uff0b\uff20\uff0d]")
_NUMBER: Final = re.compile(r"[+-]?[0-9.]+(?:e[+-]?[0-9]+)?", re.ASCII | re.IGNORECASE)
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


def is_name(text: str) -> bool:
    """Return whether a text has only characters of names, and is not long."""
    return len(text) <= LONGEST_NAME and _NAME.fullmatch(text) is not None


def as_name(text: str, *, longest: int = LONGEST_NAME) -> str:
    """Return a text as a part of a name: other characters become hyphens."""
    return _NO_NAME.sub("-", text[:longest])


def as_cell(text: str) -> str:
    """Return a text for CSV: a spreadsheet takes it for no formula."""
    if _FORMULA.match(text) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text


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
