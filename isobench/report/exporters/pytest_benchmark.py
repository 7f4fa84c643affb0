"""A run as pytest-benchmark stores one, for `pytest-benchmark compare`.

A benchmark is a target in a workload, a group is a workload, and a round is a block. The format is
that of pytest-benchmark's own files: https://pytest-benchmark.readthedocs.io/en/latest/usage.html
"""

import json
import math
from typing import Any

from isobench import __version__
from isobench.analysis.timings import Timing, timings
from isobench.report.write import Outcome


def export(outcome: Outcome) -> str:
    """Return the JSON document."""
    run = outcome.summary.run
    host = run.host or {}
    document = {
        "machine_info": {
            "node": run.machine or "",
            "processor": str(host.get("machine") or ""),
            "machine": str(host.get("machine") or ""),
            "python_compiler": "",
            "python_implementation": "",
            "python_version": str(host.get("python") or ""),
            "python_build": [],
            "release": str(host.get("kernel") or ""),
            "system": "Linux",
            "cpu": {"brand_raw": str(host.get("cpu") or ""), "count": host.get("cpus")},
        },
        "commit_info": {"id": run.id, "time": run.started, "dirty": False, "project": "isobench"},
        "benchmarks": [*map(_benchmark, timings(outcome.run()))],
        "datetime": run.started,
        "version": __version__,
    }
    return json.dumps(document, indent=1) + "\n"


def _benchmark(one: Timing) -> dict[str, Any]:
    return {
        "group": one.workload,
        "name": one.name,
        "fullname": f"isobench::{one.name}",
        "params": {"target": one.target},
        "param": one.target,
        "extra_info": {},
        "options": {
            "disable_gc": False,
            "timer": "clock_gettime",
            "min_rounds": 1,
            "max_time": 0.0,
            "min_time": 0.0,
            "warmup": True,
        },
        "stats": _statistics(one),
    }


def _statistics(one: Timing) -> dict[str, Any]:
    """Return the statistics of the rounds by the names of pytest-benchmark."""
    found = one.statistics
    first, median, third = found.quartiles
    return {
        "min": found.minimum,
        "max": found.maximum,
        "mean": found.mean,
        "stddev": found.deviation,
        "rounds": len(one.seconds),
        "median": median,
        "iqr": third - first,
        "q1": first,
        "q3": third,
        "iqr_outliers": found.outliers,
        "stddev_outliers": found.far,
        "outliers": f"{found.far};{found.outliers}",
        "ld15iqr": found.fenced[0],
        "hd15iqr": found.fenced[1],
        "ops": 1 / found.mean if found.mean else math.inf,
        "total": found.total,
        "data": [*one.seconds],
        "iterations": 1,
    }
