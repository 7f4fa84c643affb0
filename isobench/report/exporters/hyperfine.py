"""A run as hyperfine's JSON, for scripts that read it: a result for each target in a workload.

https://github.com/sharkdp/hyperfine/blob/master/src/benchmark/benchmark_result.rs
"""

import json
from typing import Any

from isobench.analysis.timings import Timing, timings
from isobench.report.write import Outcome


def export(outcome: Outcome) -> str:
    """Return the JSON document. Hyperfine's times of user and system are not known: 0."""
    results = [*map(_result, timings(outcome.run()))]
    return json.dumps({"results": results}, indent=1) + "\n"


def _result(one: Timing) -> dict[str, Any]:
    found = one.statistics
    return {
        "command": one.name,
        "mean": found.mean,
        "stddev": found.deviation,
        "median": found.quartiles[1],
        "user": 0.0,
        "system": 0.0,
        "min": found.minimum,
        "max": found.maximum,
        "times": [*one.seconds],
        "exit_codes": [0] * len(one.seconds),
        "parameters": {"target": one.target, "workload": one.workload},
    }
