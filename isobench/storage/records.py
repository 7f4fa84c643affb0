"""Reads records.jsonl: the samples as a frame, the gaps, and which cells left early."""

import io
import operator
from typing import Annotated, Final, NamedTuple

import msgspec
import pandas as pd

from isobench.model import Cause, Gap, Leaving
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.cleaning import cleaned
from isobench.storage.lines import complete_lines
from isobench.storage.lock import RECORDS

COLUMNS: Final = (
    "block", "target", "workload", "metric", "iteration", "value", "unit", "operations", "clock",
    "at", "session",
)  # fmt: skip
_TEXTS: Final = ("target", "workload", "metric", "unit", "clock")
KEY: Final = ("block", "target", "workload", "metric", "iteration", "session")
"""The columns that identify a sample within its run."""
# A larger number becomes a Python object in pandas: the whole column would lose its type.
_Integer = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


# gc=False: the garbage collector need not visit rows, which hold only numbers and texts. A run may
# have a million of them.
class _Row(msgspec.Struct, gc=False):
    """A line of records.jsonl: a sample, a gap, a leaving, or what a newer version adds."""

    kind: str
    block: _Integer
    target: str
    workload: str
    metric: str = ""
    iteration: _Integer = 0
    value: _Integer = 0
    unit: str = ""
    operations: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)] = 1
    clock: str = ""
    at: float = 0.0
    session: _Integer = 0
    cause: str = ""
    detail: str = ""
    hint: str = ""
    share: float = 1.0


class Records(NamedTuple):
    """The content of records.jsonl."""

    samples: pd.DataFrame
    """Columns as in COLUMNS."""
    gaps: tuple[Gap, ...]
    leavings: tuple[Leaving, ...]


def _decoded(data: bytes) -> list[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    try:
        return decoder.decode_lines(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        # The error of decode_lines does not name the line. Decoding line by line does, but is much
        # slower: so only a damaged file is decoded that way.
        for number, line in enumerate(data.splitlines(), 1):
            try:
                decoder.decode(line)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise ValueError(f"{RECORDS}:{number}: {error}") from None
        raise


def _check_distinct(frame: pd.DataFrame, decoded: list[_Row]) -> None:
    """Check that no sample occurs twice. ValueError: one does; names both lines."""
    # Repeated samples mean that two processes wrote to the run, or that somebody copied lines. An
    # interval over them would be too narrow: it counts one measurement twice.
    repeated = frame.duplicated([*KEY]).to_numpy()
    if not repeated.any():
        return
    second = int(repeated.argmax())
    key = tuple(frame.loc[second, [*KEY]])
    numbers = [number for number, row in enumerate(decoded, 1) if row.kind == "sample"]
    first = next(n for n in numbers if tuple(getattr(decoded[n - 1], k) for k in KEY) == key)
    what = ", ".join(f"{name} {value}" for name, value in zip(KEY, key, strict=True))
    raise ValueError(
        f"{RECORDS}:{numbers[second]}: repeats the sample of line {first} ({what});"
        f" {int(repeated.sum())} of {len(frame)} samples are repeated; two isobench processes may"
        " have written to one run"
    )


def _cleaned(column: list[str]) -> list[str]:
    """Return a column of texts, cleaned."""
    # A column has up to a million rows, but only some dozen different texts: each is cleaned once.
    texts = {text: cleaned(text) for text in set(column)}
    if all(text == clean for text, clean in texts.items()):
        return column
    return [texts[text] for text in column]


def read(data: bytes) -> Records:
    """Return the samples, gaps and leavings; texts are cleaned.

    A last line that a crash has cut off is dropped. ValueError: a line is damaged, or a sample
    occurs twice; names the line.
    """
    decoded = _decoded(complete_lines(data))
    samples = [row for row in decoded if row.kind == "sample"]
    # attrgetter and map() run in C: one pass for each column is faster than one loop over the rows.
    columns = {name: list(map(operator.attrgetter(name), samples)) for name in COLUMNS}
    frame = pd.DataFrame(columns)
    _check_distinct(frame, decoded)
    for name in _TEXTS:
        frame[name] = _cleaned(columns[name])
    numbered = list(enumerate(decoded, 1))
    return Records(
        samples=frame,
        gaps=tuple(_gap(n, row) for n, row in numbered if row.kind == "gap"),
        leavings=tuple(_leaving(n, row) for n, row in numbered if row.kind == "leaving"),
    )


def _gap(number: int, row: _Row) -> Gap:
    try:
        cause = Cause(row.cause)
    except ValueError as error:
        raise ValueError(f"{RECORDS}:{number}: {error}") from None
    return Gap(
        block=row.block,
        target=TargetName(cleaned(row.target)),
        workload=WorkloadName(cleaned(row.workload)),
        cause=cause,
        detail=cleaned(row.detail),
        hint=cleaned(row.hint),
    )


def _leaving(number: int, row: _Row) -> Leaving:
    if not 0 < row.share <= 1:
        message = f"{RECORDS}:{number}: a share of the budget lies between 0 and 1, not {row.share}"
        raise ValueError(message)
    return Leaving(
        block=row.block,
        target=TargetName(cleaned(row.target)),
        workload=WorkloadName(cleaned(row.workload)),
        share=row.share,
    )


def csv(samples: pd.DataFrame) -> str:
    """Return the samples as CSV with a line of headings."""
    buffer = io.StringIO()
    samples.to_csv(buffer, index=False)
    return buffer.getvalue()
