"""Reads a run from its folder or from a zip of it.

A run may come from anybody. Every file is validated here and its texts are cleaned. An error names
the file and the place in it. No other module checks again.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

import msgspec
import pandas as pd

from isobench.config import bounded, held, paths, redaction
from isobench.model import BlockHealth, Gap, Leaving, Plan, Schedule, commands
from isobench.model.bounds import MOST_BLOCKS, MOST_CELLS
from isobench.model.errors import UsageError
from isobench.model.units import TargetName
from isobench.model.wording import counted
from isobench.storage import earlier, forms, identifiers, kept, lines, records, relations
from isobench.storage.documents import (
    DAMAGED,
    METADATA,
    PLAN,
    check_format,
    converted,
    parsed,
    typed,
    written,
)
from isobench.storage.files import (
    MOST_DOCUMENT,
    MOST_PLAN,
    MOST_RECORDS,
    MOST_STATES,
    UNREADABLE,
    Files,
)
from isobench.storage.lock import RECORDS
from isobench.storage.losses import Collector, Losses, together
from isobench.storage.schema import FINDINGS, History, RunMetadata, TargetState

_T = TypeVar("_T")
_FIRST: Final = forms.Form.FIRST
_HEALTH: Final = "state/blocks.jsonl"
CONFIRMATION: Final = "confirm"
"""How folders are called, in that of a run, of the runs that confirm it."""
MOST_CONFIRMATIONS: Final = 100
"""isobench makes one for a command that confirms."""
# Parts of run.json that are used and never printed: cleaning could change a command. Whoever uses
# them checks them: `config.trust` and `claims.of_table`.
_RAW: Final = frozenset({"config", "claims"})


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
    history: History | None = None
    """How it compares with the runs before it; None: it was not compared."""
    losses: Losses = field(default_factory=Losses)
    """What of its records is damaged."""

    @property
    def uncounted(self) -> frozenset[int]:
        """The blocks that do not count: they broke a rule, or lines of theirs are damaged."""
        return self.invalid_blocks | self.losses.blocks

    def state(self, name: TargetName) -> TargetState:
        """Return the state of a target; an empty state where nothing is known."""
        return self.states.get(name) or TargetState()

    def evidence_fault(self, name: TargetName) -> str:
        """Return in words why nothing shows that a target was what it is called; empty: something
        does, or the run is of a version that did not need to show it.
        """
        entry = next((one for one in self.metadata.targets if one.name == name), None)
        if self.metadata.plan_sha256 is None or entry is None:
            return ""
        fault = relations.evidence_fault(self.state(name), entry)
        return fault and f"state/{name}-pre.json {fault}"

    @property
    def resume_command(self) -> str:
        """The command that resumes it in this working folder; empty: there is none, since it is a
        zip, was moved, or is not the latest run.
        """
        lines = (self.metadata.argv, *self.metadata.resumed_by)
        named = [commands.named_folder(self.metadata.argv), *map(commands.resumed_folder, lines)]
        where = [Path(folder) for folder in named if folder not in ("", "latest")]
        is_here = self._is_latest or any(each.resolve() == self.path.resolve() for each in where)
        return self._resuming if is_here and self.path.is_dir() else ""

    @property
    def continuing_command(self) -> str:
        """The command that resumes the run in this folder, wherever it was begun; empty: it is
        complete, or ended before it had a plan.
        """
        return "" if self.metadata.complete or not self.plan.blocks else self._resuming

    @property
    def _resuming(self) -> str:
        """The command that resumes it, whether there is anything to resume or not."""
        return commands.resume("" if self._is_latest else self.path, self._found_by)

    @property
    def _found_by(self) -> str:
        """The options that find its targets and workloads, as it was given them."""
        line = self.metadata.argv
        # Without --config the targets are as in run.json, which leaves out secrets, and whose
        # commands the user may have to permit. But the file may have been a pipe, or be elsewhere.
        files = [value for name, value in commands.given(line or ()) if name == "--config"]
        is_there = bool(files) and Path(files[-1]).is_file()
        return commands.kept(
            line, [name for name in commands.FINDING if name != "--config" or is_there]
        )

    @property
    def _is_latest(self) -> bool:
        """Whether --resume without a folder takes it."""
        return (paths.results() / "latest").resolve() == self.path.resolve()

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
        lost = max(self.losses.blocks, default=0)
        return max(gaps, lost, 0 if self.samples.empty else int(self.samples["block"].max()))

    @property
    def way_on(self) -> str:
        """What to do where this run has no value: continue it, if --resume can."""
        if self.metadata.complete or not self.plan.blocks:
            return "begin a new run: isobench run"
        first = "" if self.path.is_dir() else "unpack the zip; then, with its folder, "
        return f"{first}{commands.resume(self.path, self._found_by)} continues it"


def load(path: Path, part: str = "", *, folder: held.Folder | None = None) -> Run:
    """Read a run from its folder, or from a zip of it; with `part`, the run in that folder of it.
    `folder`: the folder at `path`, where it is held already.

    UsageError: it is not a run, has another format, or is damaged; names the file and the place.
    """
    return _loaded(path, part, folder, kept.read)


def metadata(path: Path) -> RunMetadata:
    """Read run.json alone of a run. Errors are those of `load`."""
    with _opened(path) as files:
        return _metadata(files.read(METADATA, most=MOST_DOCUMENT), path)[0]


def as_read_again(run: RunMetadata) -> RunMetadata:
    """Return run.json as it will be read when it is written. UsageError: it could not be read."""
    text = written(run).encode()
    try:
        if len(text) > MOST_DOCUMENT:
            message = f"{METADATA}: longer than {bounded.size_text(MOST_DOCUMENT)}"
            raise ValueError(message)
        return _metadata(text, Path())[0]
    except (UsageError, ValueError) as error:
        raise UsageError(
            f"this run could not be read again: {str(error).removeprefix('.: ')}",
            hint="measure with other options or other targets",
        ) from None


def confirmations(path: Path) -> list[str]:
    """Return the parts of a run that hold runs which confirm it.

    UsageError: there is no run, one of these cannot be read, or they are too many.
    """
    with _opened(path) as files:
        found = files.parts(CONFIRMATION)
    if len(found) > MOST_CONFIRMATIONS:
        raise UsageError(
            f"{path} has {len(found)} runs that confirm it: more than {MOST_CONFIRMATIONS}, the"
            " most that are read",
            hint=f"remove the folders {CONFIRMATION}-N that isobench has not made",
        )
    return found


class Growing:
    """Reads a run that is being measured, again and again: of its records only what is new."""

    def __init__(self, path: Path, part: str = "", *, folder: held.Folder | None = None) -> None:
        """Take the folder of the run, as `load` does; read nothing yet."""
        self._path = path
        self._part = part
        self._folder = folder
        self._reader: records.Reader | None = None

    def load(self) -> Run:
        """Return the run so far. Errors are those of `load`."""
        return _loaded(self._path, self._part, self._folder, self._records)

    def _records(self, stream: BinaryIO, known: records.Known) -> records.Records:
        # Damaged lines are counted where all lines are checked: so all are read again.
        if self._reader is None or self._reader.damage.reasons or self._reader.known != known:
            self._reader = records.Reader(known)
        stream.seek(self._reader.place)
        self._reader.read(stream)
        return records.usable(self._reader.records())


_ReadRecords = Callable[[BinaryIO, records.Known], records.Records]


def _loaded(path: Path, part: str, folder: held.Folder | None, read_records: _ReadRecords) -> Run:
    with _opened(path, part, folder) as files:
        return _read(path / part, files, read_records)


@contextlib.contextmanager
def _opened(path: Path, part: str = "", folder: held.Folder | None = None) -> Iterator[Files]:
    """Open the files of a run. UsageError: it is not a run, or what is read of it is damaged."""
    try:
        with Files(path, part, folder) as files:
            yield files
    except PermissionError as error:
        place = error.filename or path / part
        hint = bounded.to_permit(path, "u+rX")
        raise UsageError(f"{place}: {error.strerror or error}", hint=hint) from None
    except UNREADABLE as error:
        raise UsageError(f"{path / part}: {error}", hint=DAMAGED) from None


def _read(path: Path, files: Files, read_records: _ReadRecords) -> Run:
    metadata, form = _metadata(files.read(METADATA, most=MOST_DOCUMENT), path)
    plan, form = _plan(files.read(PLAN, most=MOST_PLAN), metadata, form)
    has_rounds = plan is None or plan.schedule is Schedule.ROUNDS
    known = dataclasses.replace(
        relations.known(metadata, plan, has_rounds=has_rounds),
        has_sessions=form >= forms.Form.SESSIONS,
    )
    with files.open(RECORDS, most=MOST_RECORDS) as stream:
        found = read_records(stream, known)
    with files.open(_HEALTH, most=MOST_DOCUMENT) as stream:
        health = _health(stream, form)
    _find_lost(health, found.samples, metadata)
    metadata, states = earlier.with_paravirtual(metadata, _states(files, metadata, form))
    identifiers.keep(metadata)
    if redaction.is_leaving_out_names():
        redaction.leave_out_names(_private_names(metadata, states))
    return Run(
        path=path,
        metadata=metadata,
        plan=plan or _empty_plan(metadata),
        samples=found.samples,
        gaps=found.gaps,
        leavings=found.leavings,
        health=tuple(health.found),
        invalid_blocks=frozenset(health.invalid),
        states=states,
        history=_history(files, metadata),
        losses=together(found.damage, health.damage),
    )


def _private_names(
    metadata: RunMetadata, states: Mapping[TargetName, TargetState]
) -> Iterator[str]:
    """Yield the names of machines and users that the files of a run mention."""
    yield from redaction.names_in(metadata.config.targets)
    for state in states.values():
        name = state.fact("kernel.hostname")
        if isinstance(name, str):
            yield name


def _find_lost(health: "_HealthLines", samples: pd.DataFrame, metadata: RunMetadata) -> None:
    """Find the blocks of which nothing says whether they count: their lines are lost."""
    begins, ends = _begins_and_ends(samples, metadata)
    without = sorted({*ends} - {one.block for one in health.found})
    lost = [block for block in without if not ends[block]]
    # The line is written at the end of a block. An interruption leaves one block without it, and so
    # may each process that has resumed the run.
    interrupted = (not metadata.complete) + len(metadata.resumed_by)
    # A process that was interrupted sooner than the next one had begun to measure does not show.
    lost = lost[max(0, len(metadata.resumed_by) - begins) :]
    if metadata.plan_sha256 is not None and (lost or len(without) > interrupted):
        first = (lost or without)[0]
        what = f"it has no line for {counted(len(without), 'block')}, from block {first} on"
        health.damage.add([1 + len(health.found)], what)
    if health.damage.reasons:
        health.damage.blocks.update(without)


def _begins_and_ends(samples: pd.DataFrame, metadata: RunMetadata) -> tuple[int, dict[int, bool]]:
    """Return how often the time of a run begins again, as it does where the run is resumed, and of
    each block with samples whether an interruption may have cut it off.
    """
    found = samples[samples["block"] > 0].groupby("block")["at"].agg(["min", "max"])
    begins = found["min"] < found["max"].shift()
    # The only block of a process may be its first and its last.
    ends = begins.shift(-1, fill_value=not metadata.complete) | begins
    return int(begins.sum()), dict(zip(found.index.tolist(), ends.tolist(), strict=True))


def _metadata(data: bytes, path: Path) -> tuple[RunMetadata, forms.Form]:
    value = parsed(data, METADATA)
    try:
        check_format(value, path)
    except ValueError as error:
        raise ValueError(f"{METADATA}: {error}") from None
    found = converted(value, RunMetadata, METADATA, raw=_RAW)
    if (cells := relations.cells_of(found)) > MOST_CELLS:
        raise UsageError(
            f"{path}: {METADATA}: {cells:,} cells (targets times workloads and their metrics) are"
            f" more than a run has: {MOST_CELLS:,} are the most",
            hint="measure fewer targets or workloads in one run (--targets, --workloads)",
        )
    relations.check_metadata(found, METADATA)
    return found, forms.check(value, RunMetadata, METADATA)


_OLD_EXPENSIVE: Final = "dear"
"""The key in which earlier plans have the expensive targets."""


def _history(files: Files, metadata: RunMetadata) -> History | None:
    data = files.read(FINDINGS, most=MOST_DOCUMENT)
    if not data:
        return None
    found = _decoded(data, History, FINDINGS)
    relations.check_history(found, metadata, FINDINGS)
    return found


def _decoded(data: bytes, kind: type[_T], name: str, *, least: forms.Form = _FIRST) -> _T:
    """Return a document that has all keys of its form. ValueError as in `decoded`."""
    value = parsed(data, name)
    found = converted(value, kind, name)
    forms.check(value, kind, name, least=least)
    return found


def _plan(data: bytes, metadata: RunMetadata, form: forms.Form) -> tuple[Plan | None, forms.Form]:
    """Return the plan, and the form of the run, by its plan: whoever resumes a run writes run.json
    again in the latest form. No plan: the run ended before it was planned.
    """
    if not data:
        if metadata.plan_sha256 is not None:
            message = f"{PLAN}: it is missing or empty, and {METADATA} says that there was a plan"
            raise ValueError(message)
        return None, form
    # A plan may have a million visits: it is decoded without plain data in between. Its texts are
    # names that run.json has, which are clean.
    found = typed(data, Plan, PLAN)
    parts = typed(data, dict[str, msgspec.Raw], PLAN)
    if _OLD_EXPENSIVE in parts:
        parts["expensive"] = parts.pop(_OLD_EXPENSIVE)
        expensive = typed(bytes(parts["expensive"]), tuple[TargetName, ...], PLAN)
        found = dataclasses.replace(found, expensive=expensive)
    # Blocks and visits have no keys with defaults.
    keys = {**parts, "work": parsed(bytes(parts["work"]), PLAN)}
    planned = forms.check(keys, Plan, PLAN)
    if planned > form:
        message = f"{METADATA}: it lacks what {PLAN} of this form goes with"
        raise ValueError(message)
    relations.check_plan(found, metadata, PLAN)
    return found, planned


def _empty_plan(metadata: RunMetadata) -> Plan:
    """Return a plan without blocks."""
    return Plan(seed=metadata.seed or 0, reference=metadata.reference, work=(), blocks=())


def _states(files: Files, metadata: RunMetadata, form: forms.Form) -> dict[TargetName, TargetState]:
    """Return the states of the targets of the run. Those of others are left alone."""
    found, left = {}, MOST_STATES
    for one in metadata.targets:
        name = f"state/{one.name}-pre.json"
        data = files.read(name, most=min(left, MOST_DOCUMENT))
        left -= len(data)
        if data:
            found[one.name] = _decoded(data, TargetState, name, least=form)
            relations.check_state(found[one.name], one.name, name)
    return found


_MOST_AMOUNT: Final = 1e12
"""Seconds, percent or pages in the state of the host during a block."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Validity:
    valid: bool


@dataclass(slots=True)
class _HealthLines:
    form: forms.Form
    found: list[BlockHealth] = field(default_factory=list)
    invalid: set[int] = field(default_factory=set)
    damage: Collector = field(default_factory=lambda: Collector(_HEALTH))

    def add(self, number: int, line: bytes) -> None:
        """Read a line. One that is damaged is left out and counted."""
        try:
            row, valid = _health_of(line, self.form)
        except ValueError as error:
            self.damage.add([number], str(error).removeprefix(": "))
            return
        if self.found and row.block <= self.found[-1].block:
            what = f"block {row.block} comes after block {self.found[-1].block}"
            self.damage.add([number], what, [row.block, self.found[-1].block])
            return
        if not valid:
            self.invalid.add(row.block)
        self.found.append(row)


def _health_of(line: bytes, form: forms.Form) -> tuple[BlockHealth, bool]:
    """Return the state of the host during a block, and whether the block counts.

    ValueError: the line is damaged.
    """
    value = parsed(line, "")
    found = converted(value, BlockHealth, "")
    forms.check(value, BlockHealth, "", least=form)
    for name, number in dataclasses.asdict(found).items():
        if isinstance(number, int | float) and not 0 <= number <= _MOST_AMOUNT:
            message = f"{name} is out of range"
            raise ValueError(message)
    if not 0 < found.block <= MOST_BLOCKS:
        message = "there is no such block"
        raise ValueError(message)
    return found, converted(value, _Validity, "").valid


def _health(stream: BinaryIO, form: forms.Form) -> _HealthLines:
    """Return the state of the host during each block, and the blocks that do not count."""
    found = _HealthLines(form)
    for batch in lines.batches(stream):
        for number, line in batch.numbered():
            found.add(number, line)
    return found
