"""A sheet: a table with notes, for the terminal, as Markdown and as CSV."""

import csv as writer
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from isobench.config import redaction
from isobench.model.cleaning import as_cell
from isobench.report.console import Writer
from isobench.report.markup import escaped, table

_PAD: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table."""

    cells: tuple[str, ...]
    style: str = ""
    """The style of its last cell, as rich writes it ("red")."""
    group: str = ""
    """Rows of different groups are separated by an empty line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A table as text, and the notes around it."""

    title: str
    warnings: tuple[str, ...]
    headings: tuple[str, ...]
    numbers: frozenset[str]
    """The headings of the columns that are aligned to the right."""
    rows: tuple[Row, ...]
    legend: tuple[str, ...]
    remarks: Mapping[str, tuple[str, ...]]
    """Lists below the table, by heading."""
    closing: str
    """The sentence that says what the sheet shows."""


def redacted(sheet: Sheet) -> Sheet:
    """Return a sheet without secrets, and without names where these are left out."""
    # Headings are names of columns and of targets.
    fields = ("title", "warnings", "legend", "remarks", "closing")
    texts = redaction.plain({name: getattr(sheet, name) for name in fields})
    cells = redaction.plain([row.cells for row in sheet.rows])
    rows = (replace(row, cells=found) for row, found in zip(sheet.rows, cells, strict=True))
    return replace(sheet, rows=tuple(rows), **texts)


def render(sheet: Sheet, console: Console) -> None:
    """Print a sheet."""
    # The closing sentence comes last: in a terminal, that is the line above the prompt.
    out = Writer(console)
    out.line(sheet.title, "bold")
    for warning in sheet.warnings:
        out.line(warning, "bold red")
    if sheet.rows:
        out.line()
        console.print(_table(out, sheet))
    for line in sheet.legend:
        out.line(line, "dim")
    for heading, lines in sheet.remarks.items():
        out.line()
        out.line(heading, "bold")
        for line in lines:
            out.line(line, indent=_PAD)
    out.line()
    out.line(sheet.closing, "bold")


def _table(out: Writer, sheet: Sheet) -> Table:
    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, _PAD, 0, 0), show_edge=False)
    for heading in sheet.headings:
        right = heading in sheet.numbers
        # Numbers are never wrapped: half an interval on the next line is hard to read.
        made.add_column(
            out.text(heading), justify="right" if right else "left", no_wrap=right, overflow="fold"
        )
    group = sheet.rows[0].group
    for row in sheet.rows:
        if row.group != group:
            made.add_row()
            group = row.group
        *first, last = row.cells
        made.add_row(*map(out.text, first), out.text(last, row.style))
    return made


def markdown(sheet: Sheet) -> str:
    """Return a sheet as Markdown, the closing sentence first."""
    parts = [f"# {escaped(sheet.title)}", escaped(sheet.closing)]
    parts += [f"> **{escaped(warning)}**" for warning in sheet.warnings]
    if sheet.rows:
        parts.append(
            table([*map(escaped, sheet.headings)], ([*map(escaped, r.cells)] for r in sheet.rows))
        )
    parts += map(escaped, sheet.legend)
    parts += _lists(sheet.remarks)
    return "\n\n".join(parts) + "\n"


def _lists(remarks: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    for heading, lines in remarks.items():
        yield f"## {escaped(heading)}"
        yield "\n".join(f"- {escaped(line)}" for line in lines)


def csv(headings: Sequence[str], rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV, without secrets. A value that a row lacks is empty."""
    buffer = io.StringIO()
    lines = writer.DictWriter(buffer, fieldnames=list(headings), lineterminator="\n")
    lines.writeheader()
    lines.writerows(
        {key: as_cell(value) if isinstance(value, str) else value for key, value in row.items()}
        for row in redaction.plain(rows)
    )
    return buffer.getvalue()
