"""A cell of a run, as the store keeps it. Each field is a column."""

from typing import Final

import msgspec

LARGEST_LOG: Final = 100.0
"""No ratio is so large or small, as a logarithm: a ratio of 10^43."""
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
