"""The types of the JSON files of a run: one module for each file.

Where a Python name differs from the key in the file ("status" and "standing"), the key is older.
Scripts read these keys, so they never change. Unknown keys of newer versions are ignored. What
must be there, `storage.forms` says: defaults are for earlier versions, and for Python.
"""

from isobench.storage.schema.history import FINDINGS, History, HistoryCell, OtherCondition
from isobench.storage.schema.metadata import (
    Configuration,
    LeftOut,
    PayloadEntry,
    RunMetadata,
    TargetEntry,
    VariationEntry,
    WorkloadEntry,
)
from isobench.storage.schema.state import CheckedExpectation, TargetState
from isobench.storage.schema.summary import (
    Answers,
    CellSummary,
    ClaimResult,
    ClassMeanSummary,
    GapSummary,
    NullSpawn,
    OpenCell,
    OverviewEntry,
    ParityDifference,
    Phase,
    PublishedFigure,
    RunSummary,
    StartPhases,
    Summary,
    TargetSummary,
    VariationSummary,
    WarmupSummary,
)
from isobench.storage.schema.values import FORMAT, Bounds, Facts, HostFact

__all__ = [
    "FINDINGS",
    "FORMAT",
    "Answers",
    "Bounds",
    "CellSummary",
    "CheckedExpectation",
    "ClaimResult",
    "ClassMeanSummary",
    "Configuration",
    "Facts",
    "GapSummary",
    "History",
    "HistoryCell",
    "HostFact",
    "LeftOut",
    "NullSpawn",
    "OpenCell",
    "OtherCondition",
    "OverviewEntry",
    "ParityDifference",
    "PayloadEntry",
    "Phase",
    "PublishedFigure",
    "RunMetadata",
    "RunSummary",
    "StartPhases",
    "Summary",
    "TargetEntry",
    "TargetState",
    "TargetSummary",
    "VariationEntry",
    "VariationSummary",
    "WarmupSummary",
    "WorkloadEntry",
]
