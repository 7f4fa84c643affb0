"""A run for services that follow benchmarks over time: github-action-benchmark and Bencher.

Both get ratios to native, which are comparable from machine to machine, and not times.
"""

import json
from collections.abc import Iterator
from typing import Any

from isobench.model.wording import series_text
from isobench.report.write import Outcome
from isobench.storage.schema import CellSummary


def _measured(outcome: Outcome) -> Iterator[tuple[str, CellSummary]]:
    for cell in outcome.summary.cells:
        if cell.ratio is not None:
            yield f"{series_text(cell.workload, cell.metric)}[{cell.target}]", cell


def github_action_benchmark(outcome: Outcome) -> str:
    """Return the JSON of github-action-benchmark's tool `customSmallerIsBetter`.

    https://github.com/benchmark-action/github-action-benchmark#examples
    """
    rows = []
    for name, cell in _measured(outcome):
        row: dict[str, Any] = {"name": name, "unit": "x native", "value": cell.ratio}
        if cell.interval is not None:
            low, high = cell.interval
            row["range"] = f"{low:.4g} to {high:.4g}"
        row["extra"] = f"{cell.status}; {cell.blocks} blocks"
        rows.append(row)
    return json.dumps(rows, indent=1) + "\n"


def bencher(outcome: Outcome) -> str:
    """Return Bencher Metric Format: https://bencher.dev/docs/reference/bencher-metric-format/."""
    found: dict[str, Any] = {}
    for name, cell in _measured(outcome):
        metric: dict[str, Any] = {"value": cell.ratio}
        if cell.interval is not None:
            metric |= dict(zip(("lower_value", "upper_value"), cell.interval, strict=True))
        found[name] = {"ratio-to-native": metric}
    return json.dumps(found, indent=1) + "\n"
