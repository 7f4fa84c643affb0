"""A cell of a run, as the store keeps it. Each field is a column."""

import functools
import math
from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from isobench.config import redaction

LARGEST_LOG: Final = 100.0
"""No ratio is so large or small, as a logarithm: a ratio of 10^43."""
LARGEST_RATIO: Final = math.exp(LARGEST_LOG)
RANGES: Final = {
    "place": (0, 1 << 31),
    "value": (0.0, 1e30),
    "native": (0.0, 1e30),
    "mean": (-LARGEST_LOG, LARGEST_LOG),
    "error": (0.0, LARGEST_LOG),
    "deviation": (0.0, LARGEST_LOG),
    "freedom": (1.0, 1e9),
    "shared": (0.0, LARGEST_LOG),
    "low": (1 / LARGEST_RATIO, LARGEST_RATIO),
    "high": (1 / LARGEST_RATIO, LARGEST_RATIO),
    "blocks": (0, 1 << 31),
    "sessions": (0, 1 << 31),
    "noise": (0.0, LARGEST_RATIO),
}
"""What the numbers of a cell lie between, both ends included. Beyond, nothing can be computed with
them: squares and exponentials are no floats any more.
"""
SMALLEST_ERROR: Final = 1e-30
"""An error is this large, or 0: the square of a smaller one may be 0."""
LONGEST_TEXT: Final = 1 << 16
"""Bytes of all texts of a cell but for its conditions, and of these."""
SCHEMA: Final = 1
"""The version of the columns. It grows when a column changes its meaning, not when one is added."""


# gc=False: the garbage collector need not visit rows, which hold only numbers and texts.
class Row(msgspec.Struct, frozen=True, gc=False):
    """A cell of a run. Each field is a column of the store; a run's own fields are in all rows."""

    run: str
    started: str
    """In UTC, in the format of ISO 8601."""
    month: str
    """Year and month of `started`: 2026-11."""
    machine: str
    """The key of the machine."""
    machine_name: str
    complete: bool
    quick: bool
    conditions: str
    """A JSON object: what may change on a machine, in this run."""
    place: int
    """The place of the cell in its run, from 0."""
    target: str
    technology: str
    version: str | None
    """That of the target's engine."""
    options: str
    """A JSON object: how the target was configured."""
    reference: str
    workload: str
    workload_class: str
    program: str
    """The SHA-256 of the workload's program, shortened; empty: unknown."""
    metric: str
    unit: str
    value: float | None
    native: float | None
    """Medians per operation or per launch, of the target and of native."""
    mean: float | None
    """ln(target / native). None: the cell has no ratio."""
    error: float | None
    deviation: float | None
    freedom: float | None
    shared: float | None
    """What `stats.Location` has: the run can be combined with others years later."""
    low: float | None
    high: float | None
    level: float
    blocks: int
    sessions: int
    noise: float | None
    """The noise floor of the workload in this run, as a share."""
    status: str
    doubts: str
    """Codes of doubts, with commas."""
    confirms: str | None = None
    """The run whose changes this one was made to confirm."""
    link: str = ""
    """Where the whole run is: a path or a URL."""
    schema: int = SCHEMA


def redacted(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield rows without secrets."""
    # Rows have most of their texts in common.
    text, table = functools.cache(redaction.text), functools.cache(_redacted_table)
    for row in rows:
        yield msgspec.structs.replace(
            row,
            machine_name=text(row.machine_name),
            version=row.version and text(row.version),
            link=text(row.link),
            conditions=table(row.conditions),
            options=table(row.options),
        )


def _redacted_table(content: str) -> str:
    try:
        table = msgspec.json.decode(content)
        clean = redaction.plain(table)
    except (msgspec.DecodeError, RecursionError):
        return redaction.text(content)
    return content if clean == table else msgspec.json.encode(clean).decode()
