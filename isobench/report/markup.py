"""Markdown from plain text: escapes, tables, lists, quotes."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

# Besides Markdown's own characters: "|" ends a cell of a table, "$" begins a formula, "@" a mention
# and "#" a link to an issue where GitHub renders the text.
_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~#$@!])")


def escaped(text: str) -> str:
    """Return a text as one line that Markdown shows as it is, in a table as well."""
    line = " ".join(text.splitlines()) if "\n" in text else text
    return html.escape(_SPECIAL.sub(r"\\\1", line), quote=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; `head` and `rows` are cells of escaped text."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def items(lines: Iterable[str]) -> str:
    """Return a list; `lines` are escaped texts."""
    return "\n".join(f"- {line}" for line in lines)


def breaks(parts: Iterable[str]) -> str:
    """Return lines within one cell of a table, without empty ones."""
    return "<br>".join(part for part in parts if part)


def quote(text: str) -> str:
    """Return a quotation."""
    return f"*\N{LEFT DOUBLE QUOTATION MARK}{escaped(text)}\N{RIGHT DOUBLE QUOTATION MARK}*"
