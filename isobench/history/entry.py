"""What the history keeps of a run: its ratios to native, and the conditions they belong to. Pure.

A series is what is compared (target, options, workload, metric, reference) on one machine. A
machine is its CPU model, cores, memory, and whether it is a guest. What else may change, kernel,
microcode, mitigations, engines, isobench, is recorded with each run and shown on the series.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from isobench.analysis.cells import LEVEL, Analysis, Cell
from isobench.comparison import compatibility
from isobench.evidence import doubts
from isobench.history.row import LONGEST_TEXT, RANGES, Row, redacted
from isobench.model import TIME, Status, commands
from isobench.model.cleaning import cleaned
from isobench.model.errors import UsageError
from isobench.model.plan import actual, second
from isobench.model.units import TargetName, WorkloadName
from isobench.storage.reader import Run
from isobench.storage.schema import Facts
from isobench.storage.schema.values import moment_of

_GIB: Final = 1 << 30
_KEY_DIGITS: Final = 12
_OF_LOCATION: Final = ("mean", "error", "deviation", "freedom", "shared")
_MITIGATION: Final = "mitigation."
_CONDITIONS: Final = (
    "kernel", "kernel_version", "microcode", "os", "cgroups", "filesystem", "clock_source",
    "frequency_governor", "turbo", "smt", "cpu_limit", "memory_limit", "huge_pages", "root",
)  # fmt: skip
"""Facts of the host that may change on a machine without making it another one."""


_FIRST_YEAR: Final = 1000
"""Times are compared as texts, which have four digits for the year."""
_MOST_BYTES: Final = 1 << 60
"""No machine has more memory."""


def machine_key(host: Facts) -> str:
    """Return what identifies a machine in the store: twelve hexadecimal digits."""
    parts = [host.get(name) for name in ("cpu", "machine", "cpus", "virtualization")]
    return _digest([*parts, _gibibytes(host)])


def machine_name(host: Facts) -> str:
    """Return a machine in words: "AMD EPYC, 2 CPUs, 24 GiB, guest of a hypervisor"."""
    parts = [
        str(host.get("cpu") or "unknown CPU"),
        f"{host.get('cpus') or '?'} CPUs",
        f"{_gibibytes(host) or '?'} GiB",
        str(host.get("virtualization") or ""),
    ]
    return ", ".join(part for part in parts if part)


def _gibibytes(host: Facts) -> int | None:
    # Rounded: a kernel reserves a little more or less of the same memory.
    found = host.get("memory_bytes")
    if not isinstance(found, int | float) or not 0 <= found < _MOST_BYTES:
        return None
    return round(found / _GIB)


def _digest(value: object) -> str:
    return hashlib.sha256(msgspec.json.encode(value)).hexdigest()[:_KEY_DIGITS]


def conditions(run: Run) -> dict[str, str]:
    """Return what may change on a machine, as it was in a run; what is unknown is left out."""
    metadata, host = run.metadata, run.metadata.host
    found: dict[str, object] = {name.replace("_", " "): host.get(name) for name in _CONDITIONS}
    found |= {
        f"mitigation of {name.removeprefix(_MITIGATION).replace('_', ' ')}": value
        for name, value in host.items()
        if name.startswith(_MITIGATION)
    }
    found |= {
        "isobench": metadata.tool_version,
        "compiler": metadata.compiler,
        "schedule": run.plan.schedule,
        "spawner": metadata.spawner,
    }
    # Facts of a host may have several lines; a condition is one.
    return {
        " ".join(name.split()): " ".join(str(value).split())
        for name, value in found.items()
        if value is not None
    }


def rows_of(run: Run, *, link: str = "") -> tuple[Row, ...]:
    """Return the rows of a run, without secrets, one for each cell that was measured or should have
    been.

    UsageError: the run has no id or no time, or has measured nothing.
    """
    metadata = run.metadata
    if not metadata.id or not metadata.started:
        raise UsageError(
            f"{run.path}: run.json names no id and no time: the run is of a very old version",
            hint="measure again: isobench run",
        )
    analysis = Analysis(run)
    if run.samples.empty or not analysis.blocks:
        raise UsageError(
            f"{run.path} has no block with a value: it ended before it measured",
            hint=run.way_on,
        )
    moment = moment_of(metadata.started)
    if moment is None or moment.year < _FIRST_YEAR:
        raise UsageError(
            f"{run.path}: run.json has {metadata.started!r} where a time must be",
            hint="add a run of isobench",
        )
    started = f"{moment:%Y-%m-%dT%H:%M:%SZ}"
    common = {
        "run": metadata.id,
        "started": started,
        "month": started[:7],
        "machine": machine_key(metadata.host),
        "machine_name": machine_name(metadata.host),
        "complete": metadata.complete and not run.lost_blocks and not run.losses,
        "quick": metadata.quick,
        "confirms": metadata.confirms,
        "link": cleaned(link),
        "conditions": _json(conditions(run)),
        "reference": str(analysis.reference),
    }
    found = (*_measured(analysis, common), *_absent(analysis, common))
    if not found:
        raise UsageError(
            f"{run.path} has measured native alone: there is no ratio to keep",
            hint="isobench run --targets NAME measures a target beside it",
        )
    rows = (Row(place=place, **_checked(fields, run)) for place, fields in enumerate(found))
    return tuple(redacted(rows))


def _checked(fields: dict[str, Any], run: Run) -> Mapping[str, Any]:
    """Return fields whose texts, which were cleaned, are one line.

    UsageError: a number is none that a series can have, or the texts are longer.
    """
    fields = fields | {name: _within(name, fields[name]) for name in ("low", "high", "noise")}
    for name, (least, most) in RANGES.items():
        number = fields.get(name)
        if number is not None and not least <= number <= most:
            raise UsageError(
                f"{run.path}: {fields['target']} {fields['workload']} has no possible ratio"
                f" ({name} {number:g})",
                hint=f"isobench report {commands.path(run.path)} shows the run",
            )
    texts = {name: len(value.encode()) for name, value in fields.items() if isinstance(value, str)}
    if max(texts.pop("conditions"), sum(texts.values())) > LONGEST_TEXT:
        raise UsageError(
            f"{run.path}: {fields['target']} {fields['workload']} has too long texts for a history",
            hint=f"isobench report {commands.path(run.path)} shows the run",
        )
    return {
        name: " ".join(value.split()) if isinstance(value, str) else value
        for name, value in fields.items()
    }


def _within(name: str, number: float | None) -> float | None:
    """Return a number that says how much is unknown: beyond its range, it says no more."""
    least, most = RANGES[name]
    return None if number is None else max(least, min(number, most))


def _json(value: object) -> str:
    return msgspec.json.encode(value, order="deterministic").decode()


def _measured(analysis: Analysis, common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each cell that has values."""
    apart = {analysis.reference, second(analysis.reference)}
    for cell in analysis.all_cells:
        if cell.target in apart:
            continue
        of_metric = analysis.of(cell.metric.name)
        location = of_metric.location(cell.workload, cell.target)
        # The interval of the verdict, where the cell has one: a run may end early.
        interval = cell.verdict.estimate.interval if cell.verdict.estimate else None
        if interval is None and location is not None:
            interval = location.interval(LEVEL)
        yield {
            **common,
            **_of_target(analysis.run, cell.target),
            **_of_workload(analysis, cell.workload, cell.target),
            "metric": cell.metric.name,
            "unit": cell.metric.unit.in_answers,
            "value": cell.value,
            "native": cell.reference,
            **{name: getattr(location, name, None) for name in _OF_LOCATION},
            "low": interval.low if interval else None,
            "high": interval.high if interval else None,
            "level": interval.level if interval else LEVEL,
            "blocks": int(cell.log_ratios.size),
            "sessions": cell.sessions,
            "noise": of_metric.noise.get(cell.workload),
            **_status_of(of_metric, cell),
        }


def _status_of(analysis: Analysis, cell: Cell) -> dict[str, Any]:
    """Return the status of a cell, and the codes of its doubts. A ratio that only the payload
    reports does not show how it changes.
    """
    status, found = cell.verdict.status, [doubt.code for doubt in cell.verdict.doubts]
    if status is Status.SLOWER and analysis.is_hidden(cell.workload, cell.target):
        status, found = Status.UNPROVEN, [doubts.HOST_TIME, *found]
    return {"status": str(status), "doubts": ",".join(found)}


def _absent(analysis: Analysis, common: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the fields of each cell that has no value, with the cause of its first gap."""
    measured = {(cell.target, cell.workload) for cell in analysis.all_cells}
    seen = set()
    for gap in analysis.run.gaps:
        cell = (gap.target, gap.workload)
        if cell in measured or cell in seen or actual(gap.target) == analysis.reference:
            continue
        if gap.workload not in analysis.classes:
            continue
        seen.add(cell)
        yield {
            **common,
            **_of_target(analysis.run, gap.target),
            **_of_workload(analysis, gap.workload, gap.target),
            "metric": TIME.name,
            "unit": TIME.unit.in_answers,
            **dict.fromkeys(("value", "native", "low", "high", "noise", *_OF_LOCATION)),
            "level": LEVEL,
            "blocks": 0,
            "sessions": 0,
            "status": str(gap.cause),
            "doubts": "",
        }


def _of_target(run: Run, name: TargetName) -> dict[str, Any]:
    state, metadata = run.state(name), run.metadata
    varied = next((one for one in metadata.variations if one.name == name), None)
    base = varied.base if varied else name
    options = dict(metadata.config.targets.get(base, {}))
    if varied:
        options[varied.option] = varied.value
    entry = next((one for one in metadata.targets if one.name == name), None)
    return {
        "target": str(name),
        "technology": str(entry.technology if entry else state.technology or ""),
        "version": state.version,
        "options": _json(options),
    }


def _of_workload(analysis: Analysis, name: WorkloadName, target: TargetName) -> dict[str, Any]:
    payload = compatibility.program_of(analysis.run, name, actual(target))
    return {
        "workload": str(name),
        "workload_class": analysis.classes[name],
        "program": payload[0][:_KEY_DIGITS] if payload else "",
    }
