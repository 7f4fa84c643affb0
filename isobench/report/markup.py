"""Markdown of plain text: escapes, tables, quotes."""

import html
import re
from collections.abc import Iterable, Sequence
from typing import Final

_SPECIAL: Final = re.compile(r"([\\`*_\[\]|~#$@!])")


def escaped(text: str) -> str:
    """Return text as one line of which Markdown makes neither markup nor HTML nor a table cell."""
    line = " ".join(text.splitlines()) if "\n" in text else text
    return html.escape(_SPECIAL.sub(r"\\\1", line), quote=False)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are escaped already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines)


def items(lines: Iterable[str]) -> str:
    """Return a list of lines that are escaped already."""
    return "\n".join(f"- {line}" for line in lines)


def breaks(parts: Iterable[str]) -> str:
    """Return lines within one cell of a table, empty ones left out."""
    return "<br>".join(part for part in parts if part)


def quote(text: str) -> str:
    """Return the words of somebody else."""
    return f"*\N{LEFT DOUBLE QUOTATION MARK}{escaped(text)}\N{RIGHT DOUBLE QUOTATION MARK}*"
