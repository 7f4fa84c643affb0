"""The summary of a run as OpenMetrics text, for tools that collect metrics.

The format: https://github.com/prometheus/OpenMetrics/blob/main/specification/OpenMetrics.md
"""

from collections.abc import Iterator, Mapping
from typing import Final

from isobench.model import TIME
from isobench.report.write import Outcome
from isobench.storage.schema import Bounds, CellSummary, Summary

_HELP: Final = {
    "isobench_ratio": "Time on the target over time on the reference, or the ratio of another"
    " metric; above 1 is slower or worse.",
    "isobench_class_ratio": "The geometric mean of the ratios of a class of workloads.",
    "isobench_duration_seconds": "Time of one operation, or of one start.",
    "isobench_value": "The value of a metric other than time, in its own unit.",
    "isobench_noise_floor_ratio": "The smallest effect that the run can distinguish from none.",
    "isobench_verdict": "1 for the verdict of a cell.",
    "isobench_claim": "1 for the status of a claim.",
    "isobench_last_run_timestamp_seconds": "The start of the run.",
}
_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


def export(outcome: Outcome) -> str:
    """Return the text of a run."""
    return openmetrics(outcome.summary)


def openmetrics(summary: Summary) -> str:
    """Return the text for a summary."""
    lines: list[str] = []
    for name, samples in (
        ("isobench_ratio", _ratios(summary)),
        ("isobench_class_ratio", _class_means(summary)),
        ("isobench_duration_seconds", _durations(summary)),
        ("isobench_value", _values(summary)),
        ("isobench_noise_floor_ratio", _noise(summary)),
        ("isobench_verdict", _verdicts(summary)),
        ("isobench_claim", _claims(summary)),
        ("isobench_last_run_timestamp_seconds", _started(summary)),
    ):
        rows = [f"{name}{_labels(labels)} {value}" for labels, value in samples]
        if rows:
            lines += [f"# TYPE {name} gauge"]
            # The specification wants a unit only where it is the suffix of the name.
            if name.endswith("_seconds"):
                lines += [f"# UNIT {name} seconds"]
            lines += [f"# HELP {name} {_HELP[name]}", *rows]
    return "\n".join([*lines, "# EOF", ""])


_Samples = Iterator[tuple[dict[str, str], str]]


def _cell(item: CellSummary) -> dict[str, str]:
    names = {"workload": item.workload, "target": item.target, "reference": "native"}
    return names if item.metric == TIME.name else names | {"metric": item.metric}


def _ratios(summary: Summary) -> _Samples:
    for item in summary.cells:
        yield from _bounds(item.ratio, item.interval, _cell(item))


def _bounds(ratio: float | None, interval: Bounds | None, names: Mapping[str, str]) -> _Samples:
    """Yield a ratio and the ends of its interval, where they are known."""
    low, high = interval or (None, None)
    for bound, value in (("point", ratio), ("lower", low), ("upper", high)):
        if value is not None:
            yield {**names, "bound": bound}, _figure(value)


def _class_means(summary: Summary) -> _Samples:
    for item in summary.class_means:
        names = {"class": item.group, "target": item.target, "reference": "native"}
        yield from _bounds(item.ratio, item.interval, names)


def _durations(summary: Summary) -> _Samples:
    for item in summary.cells:
        if item.metric == TIME.name:
            yield from _quantiles(item, _cell(item))


def _values(summary: Summary) -> _Samples:
    for item in summary.cells:
        if item.metric != TIME.name:
            yield from _quantiles(item, _cell(item) | {"unit": item.unit})


def _quantiles(item: CellSummary, names: Mapping[str, str]) -> _Samples:
    for quantile, value in (("0.5", item.value), ("0.95", item.p95), ("0.99", item.p99)):
        if value is not None:
            yield {**names, "quantile": quantile}, _figure(value)


def _noise(summary: Summary) -> _Samples:
    for workload, value in summary.run.noise.items():
        if value is not None:
            yield {"workload": workload}, _figure(value)
    for workload, own in summary.run.metric_noise.items():
        for metric, value in own.items():
            if value is not None:
                yield {"workload": workload, "metric": metric}, _figure(value)


def _verdicts(summary: Summary) -> _Samples:
    for item in summary.cells:
        yield _cell(item) | {"verdict": item.status}, "1"


def _claims(summary: Summary) -> _Samples:
    for item in summary.claims:
        yield {"claim": item.id, "standing": item.status}, "1"


def _started(summary: Summary) -> _Samples:
    if summary.run.began is not None:
        yield {}, f"{summary.run.began.timestamp():.0f}"


def _figure(value: float) -> str:
    # GitLab compares metrics of two jobs as texts: with all digits, every value would be a change.
    # https://docs.gitlab.com/ci/testing/metrics_reports/
    return f"{value:.3g}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    pairs = (f'{key}="{value.translate(_ESCAPES)}"' for key, value in labels.items())
    return "{" + ",".join(pairs) + "}"
