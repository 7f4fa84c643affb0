"""Reads workload.toml. A workload is a folder; adding one needs no Python."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from isobench.config import bounded, paths
from isobench.config.suggestions import suggestion
from isobench.config.toml import Source
from isobench.model import TIME, Answer, Better, Metric, Need, Scope, Start, Workload
from isobench.model.errors import UsageError
from isobench.model.units import Unit, WorkloadName, seconds
from isobench.workloads import classes

# \Z and not $, which also matches before a newline at the end.
_FACT_PATTERN: Final = r"^[A-Za-z0-9._+~-]{1,100}\Z"
"""It is a part of a metric of records, which is a name: `cleaning.is_name`."""
NAME_PATTERN: Final = r"^[a-z][a-z0-9]*\.[a-z0-9][a-z0-9-]*\Z"


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    loops: Annotated[int, msgspec.Meta(ge=1)]
    check: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of workload.toml."""

    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    summary: str
    scope: Scope
    metrics: dict[str, str | dict[str, Any]]
    operation: str = "one loop"
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60
    source: str = "payload.c"
    args: list[str] = []
    answer: _Answer | None = None
    most_loops: Annotated[int, msgspec.Meta(ge=1)] | None = None
    counts_operations: bool = False
    start: Start | None = None
    libc: bool = False
    needs: list[Need] = []


class _Metric(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of a metric that the payload prints as a fact."""

    unit: Unit
    fact: Annotated[str, msgspec.Meta(pattern=_FACT_PATTERN)]
    better: Better = Better.LOWER


_MOST_BYTES: Final = 1 << 20
_METRIC_NAME: Final = re.compile(r"[a-z][a-z0-9-]*")
_TIME_EXAMPLE: Final = '[metrics] time = "ns"'
_FACT_EXAMPLE: Final = (
    "isobench itself measures only time; for a number that the payload prints as a fact: peak = "
    '{ unit = "bytes", better = "lower", fact = "memory.peak" }'
)


def _metrics(
    written: Source, tables: Mapping[str, str | dict[str, Any]], scope: Scope
) -> Iterator[Metric]:
    """Yield the metrics, time first. UsageError: one cannot be measured, or time is missing."""
    if tables.get(TIME.name) != TIME.unit:
        unmeasured = [name for name, table in tables.items() if isinstance(table, str)]
        what = "none is given" if not tables else 'time = "ns" must be among them'
        if unmeasured and TIME.name not in tables:
            what = f"{unmeasured[0]} cannot be measured"
        where = [name for name in (TIME.name, *unmeasured) if name in tables][:1]
        raise UsageError(f"{written.place('metrics', *where)}: metrics: {what}", hint=_TIME_EXAMPLE)
    yield TIME
    for name, table in tables.items():
        if name != TIME.name:
            yield _metric_of_fact(written, name, table, scope)


def _metric_of_fact(
    written: Source, name: str, table: str | dict[str, Any], scope: Scope
) -> Metric:
    place = f"{written.place('metrics', name)}: metrics: {name}"
    if not _METRIC_NAME.fullmatch(name):
        raise UsageError(
            f"{place} is not a name of a metric",
            hint="use small letters, digits and dashes: peak-memory",
        )
    if isinstance(table, str) or not table.get("fact", True):
        raise UsageError(f"{place} cannot be measured", hint=_FACT_EXAMPLE)
    # The payloads of starts print no facts that are read.
    if scope is not Scope.LOOP:
        raise UsageError(
            f'{place} cannot be measured: scope = "{scope}" measures only time',
            hint='scope = "loop", or leave the metric out',
        )
    own = replace(written, prefix=("metrics", name), hint=_FACT_EXAMPLE)
    read = own.convert(table, _Metric)
    return Metric(name=name, unit=read.unit, better=read.better, fact=read.fact)


def read(path: Path) -> Workload:
    """Read one workload.toml; UsageError names the file and the key that is wrong."""
    example = "workloads/cpu_sieve/workload.toml is an example"
    try:
        text = bounded.read(path, most=_MOST_BYTES, hint=example).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise UsageError(f"{path}: {reason}", hint=example) from None
    written = Source(origin=str(path), text=text, hint=example)
    data = written.convert(written.document(), _File)
    metrics = {metric.name: metric for metric in _metrics(written, data.metrics, data.scope)}
    source = (path.parent / data.source).resolve()
    if not source.is_file():
        raise UsageError(
            f"{written.place('source')}: source: no such file: {source}",
            hint="write payload.c in the same folder",
        )
    if data.scope is Scope.SESSION and data.start is None:
        raise UsageError(
            f'{path}: start: missing; scope = "session" needs it', hint='start = "cold"'
        )
    # Without a checksum a compiler could remove the work, and nobody would notice.
    if data.scope is Scope.LOOP and data.answer is None:
        raise UsageError(
            f"{path}: answer: missing; a loop workload needs a known checksum",
            hint="run it once natively with the loops of your choice, and copy its check",
        )
    return Workload(
        name=WorkloadName(data.name),
        summary=data.summary,
        scope=data.scope,
        operation=data.operation,
        source=source,
        timeout=seconds(data.timeout_s),
        metrics=metrics,
        args=tuple(data.args),
        answer=Answer(loops=data.answer.loops, check=data.answer.check) if data.answer else None,
        most_loops=data.most_loops,
        counts_operations=data.counts_operations,
        start=data.start,
        libc=data.libc,
        needs=tuple(data.needs),
    )


def find(
    folders: Sequence[Path] = (), *, others: Mapping[WorkloadName, Workload] | None = None
) -> dict[WorkloadName, Workload]:
    """Return all workloads by name, in the order of their classes. `folders` are the user's,
    `others` the workloads of plug-ins.

    UsageError: a folder does not exist, a file is invalid, or two workloads have the same name.
    """
    found: dict[WorkloadName, Workload] = dict(others or {})
    for folder in (paths.shared("workloads"), *folders):
        if not folder.is_dir():
            raise UsageError(
                f"no such folder of workloads: {folder}", hint="name an existing folder"
            )
        # Sorted, since the order of a directory differs between file systems.
        for path in sorted(folder.glob("*/workload.toml")):
            workload = read(path)
            if workload.name in found:
                first = found[workload.name].source.parent
                raise UsageError(
                    f"{path}: the name {workload.name} is already used by {first}",
                    hint="choose another name",
                )
            found[workload.name] = workload
    return dict(sorted(found.items(), key=lambda item: _order(item[1])))


def _order(workload: Workload) -> tuple[int, str]:
    return classes.rank(workload.class_name), workload.class_name


def select(
    workloads: dict[WorkloadName, Workload], names: Sequence[str]
) -> dict[WorkloadName, Workload]:
    """Return the workloads of these names ("cpu.sieve") or classes ("cpu"); without names, all.

    UsageError: a name matches nothing.
    """
    if not names:
        return workloads
    chosen: set[WorkloadName] = set()
    for name in names:
        hits = {w.name for w in workloads.values() if name in (w.name, w.class_name, "all")}
        if not hits:
            known = dict.fromkeys(
                word for w in workloads.values() for word in (w.name, w.class_name)
            )
            hint = f"{suggestion(name, known)} isobench workloads lists them all"
            raise UsageError(f"no workload or class is called {name!r}", hint=hint.lstrip())
        chosen |= hits
    return {name: workload for name, workload in workloads.items() if name in chosen}
