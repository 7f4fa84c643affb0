"""history.json: how a run compares with the runs before it, by `run --fail-on regression`."""

from typing import Annotated, Literal

from msgspec import Meta, Struct

from isobench.storage.schema.values import FORMAT, Amount, Bounds, Count, check_order

FINDINGS = "history.json"
_Ratio = Annotated[float, Meta(gt=1e-43, lt=1e43)]
"""What a series can have (`history.row.LARGEST_LOG`)."""


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
    outcome: Literal[
        "regression", "improvement", "unchanged", "inconclusive", "too few runs", "unproven"
    ]
    confirmed: bool | None = None
    """Whether a further run has shown it again; None: there is none."""
    before: _Ratio | None = None
    """The level of the runs before, as a ratio to native."""
    runs: Count = 0
    """How many runs it rests on."""
    left_out: Count = 0
    """How many others lie too far from these."""
    now: _Ratio | None = None
    change: _Ratio | None = None
    """`now` over `before`."""
    interval: Bounds | None = None
    noise: Amount | None = None
    changed: tuple[OtherCondition, ...] = ()

    def __post_init__(self) -> None:
        """Check the interval. ValueError: its ends are the wrong way round."""
        check_order(self.interval)


class MissingCell(Struct, frozen=True, kw_only=True):
    """A cell of the run before that this run does not have."""

    target: str
    workload: str
    metric: str


class History(Struct, frozen=True, kw_only=True):
    """The content of history.json."""

    schema_version: int = FORMAT
    cells: tuple[HistoryCell, ...] = ()
    missing: tuple[MissingCell, ...] = ()
    headline: str = ""
