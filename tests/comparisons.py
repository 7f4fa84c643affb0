"""Comparisons as a script reads them."""

import json
from collections.abc import Callable, Mapping
from typing import Any

from isobench.comparison import changes
from isobench.comparison.result import Comparison, ComparisonOptions
from isobench.model.units import TargetName
from isobench.report import comparison as view
from isobench.storage import reader

MakeRun = Callable[..., reader.Run]
SIEVE, FSYNC = ("box", "cpu.sieve"), ("box", "io.fsync")
USUAL = ComparisonOptions()


def compared(base: Any, head: Any, options: ComparisonOptions = USUAL, **more: Any) -> Comparison:
    """Return the comparison of two runs, or of two lists of runs."""
    sides = [side if isinstance(side, list) else [side] for side in (base, head)]
    return changes.compare(*sides, options, **more)


def pair(run: reader.Run, base: str, head: str, **more: Any) -> Comparison:
    """Return the comparison of two targets of a run."""
    return changes.compare_targets(run, TargetName(base), TargetName(head), USUAL, **more)


def document(comparison: Comparison) -> dict[str, Any]:
    """Return the document as a script reads it."""
    made: dict[str, Any] = json.loads(json.dumps(view.document(comparison), allow_nan=False))
    return made


def cell_in(
    made: Mapping[str, Any], workload: str = "cpu.sieve", target: str = "box"
) -> dict[str, Any]:
    """Return one cell of a document."""
    (found,) = (c for c in made["cells"] if (c["target"], c["workload"]) == (target, workload))
    return dict(found)


def cell(comparison: Comparison, workload: str = "cpu.sieve", target: str = "box") -> Any:
    """Return one cell of a comparison as a script reads it."""
    return cell_in(document(comparison), workload, target)
