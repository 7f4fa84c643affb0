"""Reads a run from its folder or from a zip of it.

A run may come from anybody. Every file is validated here and its texts are cleaned. An error names
the file and the place in it. No other module checks again.
"""

import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import pandas as pd

from isobench.model import BlockHealth, Gap, Leaving, Plan
from isobench.model.errors import UsageError
from isobench.model.units import TargetName
from isobench.storage import earlier, records
from isobench.storage.cleaning import cleaned
from isobench.storage.documents import DAMAGED, check_format, converted, decoded, parsed
from isobench.storage.lines import complete_lines
from isobench.storage.lock import RECORDS
from isobench.storage.schema import RunMetadata, TargetState

_METADATA: Final = "run.json"
_PLAN: Final = "plan.json"
_HEALTH: Final = "state/blocks.jsonl"
_STATE: Final = "-pre.json"
# Its name looks like the state of a target "host". It holds the facts of the host, which run.json
# has too.
_HOST: Final = "state/host-pre.json"
# Parts of run.json that are used and never printed: cleaning could change a command. Whoever uses
# them checks them: `config.trust` and `claims.of_table`.
_RAW: Final = frozenset({"config", "claims"})
# zipfile raises these for files that are cut off (BadZipFile, EOFError, zlib.error), compressed by
# an unknown method (NotImplementedError) or protected by a password (RuntimeError). ValueError is
# JSON that is damaged or does not fit.
_UNREADABLE: Final = (
    OSError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """The files of a run, except its summary and reports."""

    path: Path
    metadata: RunMetadata
    plan: Plan
    samples: pd.DataFrame
    """Columns as in `records.COLUMNS`; `value` in `unit`, as measured."""
    gaps: tuple[Gap, ...]
    health: tuple[BlockHealth, ...]
    invalid_blocks: frozenset[int]
    states: Mapping[TargetName, TargetState]
    leavings: tuple[Leaving, ...] = ()
    """The cells that left before the end of the run, in the order of leaving."""

    def state(self, name: TargetName) -> TargetState:
        """Return the state of a target; an empty state where nothing is known."""
        return self.states.get(name) or TargetState()

    @property
    def lost_blocks(self) -> frozenset[int]:
        """Blocks that were measured and whose records are missing."""
        # state/blocks.jsonl gets its line when all records of a block are written. A block that is
        # only there has lost its records since.
        recorded = {gap.block for gap in self.gaps} | set(self.samples["block"].unique().tolist())
        return frozenset(one.block for one in self.health) - recorded

    @property
    def sessions(self) -> dict[TargetName, int]:
        """The highest session number of each target that has one."""
        highest = self.samples.groupby("target")["session"].max()
        return {TargetName(str(name)): int(number) for name, number in highest.items()}

    @property
    def begun(self) -> int:
        """The number of blocks that were begun, complete or not."""
        gaps = max((gap.block for gap in self.gaps), default=0)
        return max(gaps, 0 if self.samples.empty else int(self.samples["block"].max()))


class _Files:
    """The files of a run, in a folder or in a zip of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._inside = ""
        if path.is_file() and zipfile.is_zipfile(path):
            self._zip = zipfile.ZipFile(path)
            found = [name for name in self._zip.namelist() if name.endswith(_METADATA)]
            if not found:
                raise UsageError(f"{path} holds no run.json", hint="zip the whole folder of a run")
            # A zip may hold the files themselves or the folder with them. The shortest name is the
            # outermost: the folder may hold other files whose names end so.
            self._inside = min(found, key=len).removesuffix(_METADATA)
        elif not (path / _METADATA).is_file():
            raise UsageError(
                f"{path} is not a run: it holds no run.json",
                hint="name the folder that `isobench run` printed, or isobench-results/latest",
            )

    def read(self, name: str) -> bytes:
        """Return the content of a file. Empty: the run ended before it had this file."""
        if self._zip is None:
            file = self.path / name
            return file.read_bytes() if file.is_file() else b""
        member = self._inside + name
        return self._zip.read(member) if member in self._zip.namelist() else b""

    def states(self) -> list[str]:
        """Return the names of the files with the states of targets, sorted."""
        if self._zip is None:
            found = {f"state/{path.name}" for path in (self.path / "state").glob(f"*{_STATE}")}
        else:
            names = (name.removeprefix(self._inside) for name in self._zip.namelist())
            found = {n for n in names if n.startswith("state/") and n.endswith(_STATE)}
        return sorted(found - {_HOST})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()


def load(path: Path) -> Run:
    """Read a run from its folder, or from a zip of it.

    UsageError: it is not a run, has another format, or is damaged; names the file and the place.
    """
    try:
        with _Files(path) as files:
            return _read(path, files)
    except _UNREADABLE as error:
        raise UsageError(f"{path}: {error}", hint=DAMAGED) from None


def _read(path: Path, files: _Files) -> Run:
    metadata = _metadata(files.read(_METADATA), path)
    plan_bytes = files.read(_PLAN)
    found = records.read(files.read(RECORDS))
    health, invalid = _health(files.read(_HEALTH))
    metadata, states = earlier.with_paravirtual(
        metadata, dict(_state(name, files.read(name)) for name in files.states())
    )
    return Run(
        path=path,
        metadata=metadata,
        plan=_plan(plan_bytes) if plan_bytes else _empty_plan(metadata),
        samples=found.samples,
        gaps=found.gaps,
        leavings=found.leavings,
        health=health,
        invalid_blocks=invalid,
        states=states,
    )


def _metadata(data: bytes, path: Path) -> RunMetadata:
    value = parsed(data, _METADATA)
    try:
        check_format(value, path)
    except ValueError as error:
        raise ValueError(f"{_METADATA}: {error}") from None
    return converted(value, RunMetadata, _METADATA, raw=_RAW)


def _plan(data: bytes) -> Plan:
    table = parsed(data, _PLAN)
    # Version 0.1 wrote "dear" where later versions write "expensive".
    if isinstance(table, dict) and "dear" in table:
        table["expensive"] = table.pop("dear")
    return converted(table, Plan, _PLAN)


def _empty_plan(metadata: RunMetadata) -> Plan:
    """Return a plan without blocks, for a run that ended before it was planned."""
    return Plan(seed=metadata.seed or 0, reference=metadata.reference, work=(), blocks=())


def _state(name: str, data: bytes) -> tuple[TargetName, TargetState]:
    target = TargetName(cleaned(Path(name).name.removesuffix(_STATE)))
    return target, decoded(data, TargetState, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Validity:
    valid: bool = True


def _health(data: bytes) -> tuple[tuple[BlockHealth, ...], frozenset[int]]:
    """Return the state of the host during each block, and the blocks that do not count."""
    found, invalid = [], set()
    for number, line in enumerate(complete_lines(data).splitlines(), 1):
        row = parsed(line, f"{_HEALTH}:{number}")
        health = converted(row, BlockHealth, f"{_HEALTH}:{number}")
        found.append(health)
        if not converted(row, _Validity, f"{_HEALTH}:{number}").valid:
            invalid.add(health.block)
    return tuple(found), frozenset(invalid)
