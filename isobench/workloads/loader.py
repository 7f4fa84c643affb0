"""workload.toml -> Workload. A workload is a folder; adding one needs no Python."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import msgspec

from isobench.config import paths
from isobench.config.suggestions import meant
from isobench.config.toml import Source
from isobench.model import Answer, Need, Scope, Start, Workload
from isobench.model.errors import UsageError
from isobench.model.units import Unit, WorkloadName, seconds
from isobench.workloads import classes

NAME_PATTERN: Final = r"^[a-z][a-z0-9]*\.[a-z0-9][a-z0-9-]*\Z"


class _Answer(msgspec.Struct, forbid_unknown_fields=True):
    loops: Annotated[int, msgspec.Meta(ge=1)]
    check: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]


class _File(msgspec.Struct, forbid_unknown_fields=True):
    """The keys of workload.toml."""

    name: Annotated[str, msgspec.Meta(pattern=NAME_PATTERN)]
    summary: str
    scope: Scope
    metrics: dict[str, Unit]
    operation: str = "one loop"
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60
    source: str = "payload.c"
    args: list[str] = []
    answer: _Answer | None = None
    most_loops: Annotated[int, msgspec.Meta(ge=1)] | None = None
    start: Start | None = None
    libc: bool = False
    needs: list[Need] = []


MEASURED: Final = ("time",)
"""The metrics that the runner takes of every workload."""


def _demand_measured(path: Path, metrics: Collection[str]) -> None:
    """Raise UsageError for a metric that would never be measured, or where none would be."""
    unknown = [name for name in metrics if name not in MEASURED]
    if unknown or not metrics:
        raise UsageError(
            f"{path}: metrics: "
            + (f"{unknown[0]} would never be measured" if unknown else "none is named"),
            hint='isobench measures time alone: [metrics] time = "ns"',
        )


def read(path: Path) -> Workload:
    """Read one workload.toml."""
    example = "workloads/cpu_sieve/workload.toml is an example"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise UsageError(f"{path}: {reason}", hint=example) from None
    written = Source(origin=str(path), text=text, hint=example)
    data = written.convert(written.document(), _File)
    _demand_measured(path, data.metrics)
    source = (path.parent / data.source).resolve()
    if not source.is_file():
        raise UsageError(
            f"{written.place('source')}: source: no such file: {source}",
            hint="write payload.c beside it",
        )
    if data.scope is Scope.SESSION and data.start is None:
        raise UsageError(
            f'{path}: start: missing; scope = "session" needs it', hint='start = "cold"'
        )
    if data.scope is Scope.LOOP and data.answer is None:
        raise UsageError(
            f"{path}: answer: missing; a loop workload must have an answer to be checked against",
            hint="run it once natively with the loops you choose, and copy its check",
        )
    return Workload(
        name=WorkloadName(data.name),
        summary=data.summary,
        scope=data.scope,
        operation=data.operation,
        source=source,
        timeout=seconds(data.timeout_s),
        metrics=data.metrics,
        args=tuple(data.args),
        answer=Answer(loops=data.answer.loops, check=data.answer.check) if data.answer else None,
        most_loops=data.most_loops,
        start=data.start,
        libc=data.libc,
        needs=tuple(data.needs),
    )


def find(
    folders: Sequence[Path] = (), *, others: Mapping[WorkloadName, Workload] | None = None
) -> dict[WorkloadName, Workload]:
    """Return all workloads by name, in the order of their classes; `folders` are the user's own,
    `others` those of plug-ins, whose names must be free.
    """
    found: dict[WorkloadName, Workload] = dict(others or {})
    for folder in (paths.shared("workloads"), *folders):
        if not folder.is_dir():
            raise UsageError(
                f"no such folder of workloads: {folder}", hint="name an existing folder"
            )
        for path in sorted(folder.glob("*/workload.toml")):
            workload = read(path)
            if workload.name in found:
                first = found[workload.name].source.parent
                raise UsageError(
                    f"{path}: the name {workload.name} is taken by {first}",
                    hint="choose another name",
                )
            found[workload.name] = workload
    return dict(sorted(found.items(), key=lambda item: _order(item[1])))


def _order(workload: Workload) -> tuple[int, str]:
    return classes.rank(workload.group), workload.group


def select(
    workloads: dict[WorkloadName, Workload], names: Sequence[str]
) -> dict[WorkloadName, Workload]:
    """Return those that `names` mean: a class ("cpu") or a name ("cpu.sieve"); without, all."""
    if not names:
        return workloads
    chosen: set[WorkloadName] = set()
    for name in names:
        hits = {w.name for w in workloads.values() if name in (w.name, w.group, "all")}
        if not hits:
            known = dict.fromkeys(word for w in workloads.values() for word in (w.name, w.group))
            hint = f"{meant(name, known)} isobench workloads lists them all"
            raise UsageError(f"no workload or class is called {name!r}", hint=hint.lstrip())
        chosen |= hits
    return {name: workload for name, workload in workloads.items() if name in chosen}
