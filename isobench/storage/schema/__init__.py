"""The tables in the files of a run, as Structs: one module a file, and nothing else decodes them.

Python's names are the standard words; the keys in the files stay what they always were ("standing",
"promises", "suites"). A key that this version does not know is passed over; a key that an older
version did not write has a default.
"""

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
    CellSummary,
    ClaimResult,
    ClassMeanSummary,
    GapSummary,
    NullSpawn,
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
    "FORMAT",
    "Bounds",
    "CellSummary",
    "CheckedExpectation",
    "ClaimResult",
    "ClassMeanSummary",
    "Configuration",
    "Facts",
    "GapSummary",
    "HostFact",
    "LeftOut",
    "NullSpawn",
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
