"""The summary of a run as OpenMetrics text, for what scrapes or collects metrics.

Values have three significant digits, since some readers compare them as texts.
"""

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from isobench.report.sections.run import bounds_of
from isobench.report.sections.values import clean, items_of, mapping_of

_HELP: Final = {
    "isobench_ratio": "Time over the reference's; more than 1 is slower.",
    "isobench_class_ratio": "The geometric mean of the ratios of a class of workloads.",
    "isobench_duration_seconds": "Time of one operation, or of one start.",
    "isobench_noise_floor_ratio": "The smallest effect that the run can tell from none.",
    "isobench_verdict": "1 for the standing of a cell.",
    "isobench_claim": "1 for the standing of a claim.",
    "isobench_last_run_timestamp_seconds": "When the run began.",
}


def openmetrics(summary: Mapping[str, Any]) -> str:
    """Return the text for a summary as `summary.json` holds it."""
    lines: list[str] = []
    for name, samples in (
        ("isobench_ratio", _ratios(summary)),
        ("isobench_class_ratio", _class_means(summary)),
        ("isobench_duration_seconds", _durations(summary)),
        ("isobench_noise_floor_ratio", _noise(summary)),
        ("isobench_verdict", _verdicts(summary)),
        ("isobench_claim", _claims(summary)),
        ("isobench_last_run_timestamp_seconds", _started(summary)),
    ):
        told = [f"{name}{_labels(labels)} {value}" for labels, value in samples]
        if told:
            lines += [f"# TYPE {name} gauge"]
            if name.endswith("_seconds"):
                lines += [f"# UNIT {name} seconds"]
            lines += [f"# HELP {name} {_HELP[name]}", *told]
    return "\n".join([*lines, "# EOF", ""])


_Samples = Iterator[tuple[dict[str, str], str]]


def _cell(item: Mapping[str, Any]) -> dict[str, str]:
    names = {key: clean(item.get(key)) for key in ("workload", "target")}
    return names | {"reference": "native"}


def _ratios(summary: Mapping[str, Any]) -> _Samples:
    for item in items_of(summary.get("cells")):
        yield from _bounds(item, _cell(item))


def _bounds(item: Mapping[str, Any], names: Mapping[str, str]) -> _Samples:
    """Yield a ratio and the ends of its interval, as far as they are known."""
    low, high = bounds_of(item.get("interval")) or (None, None)
    for bound, value in (("point", item.get("ratio")), ("lower", low), ("upper", high)):
        if isinstance(value, int | float):
            yield {**names, "bound": bound}, _figure(value)


def _class_means(summary: Mapping[str, Any]) -> _Samples:
    for item in items_of(summary.get("suites")):
        names = {key: clean(item.get(key)) for key in ("class", "target")}
        yield from _bounds(item, names | {"reference": "native"})


def _durations(summary: Mapping[str, Any]) -> _Samples:
    for item in items_of(summary.get("cells")):
        for quantile, key in (("0.5", "value"), ("0.95", "p95"), ("0.99", "p99")):
            value = item.get(key)
            if isinstance(value, int | float):
                yield _cell(item) | {"quantile": quantile}, _figure(value)


def _noise(summary: Mapping[str, Any]) -> _Samples:
    for workload, value in mapping_of(mapping_of(summary.get("run")).get("noise")).items():
        if isinstance(value, int | float):
            yield {"workload": clean(workload)}, _figure(value)


def _verdicts(summary: Mapping[str, Any]) -> _Samples:
    for item in items_of(summary.get("cells")):
        yield _cell(item) | {"verdict": clean(item.get("standing"))}, "1"


def _claims(summary: Mapping[str, Any]) -> _Samples:
    for item in items_of(summary.get("claims")):
        yield {"claim": clean(item.get("id")), "standing": clean(item.get("standing"))}, "1"


def _started(summary: Mapping[str, Any]) -> _Samples:
    started = clean(mapping_of(summary.get("run")).get("started"))
    try:
        moment = datetime.fromisoformat(started)
    except ValueError:
        return
    yield {}, f"{moment.timestamp():.0f}"


def _figure(value: float) -> str:
    return f"{value:.3g}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    told = (f'{key}="{_escaped(value)}"' for key, value in labels.items())
    return "{" + ",".join(told) + "}"


def _escaped(value: str) -> str:
    return re.sub(r'[\\"]', lambda found: "\\" + found[0], value)
