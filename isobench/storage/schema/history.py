"""history.json: how a run compares with the runs before it, by `run --fail-on regression`."""

from typing import Literal

from msgspec import Struct

from isobench.storage.schema.values import FORMAT, Amount, Bounds, Count, Positive

FINDINGS = "history.json"


class OtherCondition(Struct, frozen=True, kw_only=True):
    """Something that is not as in the run before."""

    what: str
    before: str
    after: str


class HistoryCell(Struct, frozen=True, kw_only=True):
    """A cell of the run beside its series."""

    target: str
    workload: str
    metric: str
    outcome: Literal["regression", "improvement", "unchanged", "too few runs", "unproven"]
    confirmed: bool | None = None
    """Whether a further run has shown it again; None: there is none."""
    before: Positive | None = None
    """The level of the runs before, as a ratio to native."""
    runs: Count = 0
    """How many runs it rests on."""
    now: Positive | None = None
    change: Positive | None = None
    """`now` over `before`."""
    interval: Bounds | None = None
    noise: Amount | None = None
    changed: tuple[OtherCondition, ...] = ()


class History(Struct, frozen=True, kw_only=True):
    """The content of history.json."""

    schema_version: int = FORMAT
    cells: tuple[HistoryCell, ...] = ()
    headline: str = ""
