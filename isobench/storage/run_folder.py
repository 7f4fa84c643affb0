"""The folder of a run: written as it is measured, read back years later.

    run.json        what was asked for, on which machine, with which payloads
    plan.json       blocks and order, fixed before measuring
    records.jsonl   one Sample or Gap a line, synced after every visit; locked while it is written
    state/          host-pre.json, <target>-pre.json: facts and evidence; blocks.jsonl: how the host
    fared logs/           what engines and payloads said on standard error, bounded summary.json
    summary.md report.html

History of FORMAT: 1 - the first.
"""

import contextlib
import errno
import fcntl
import io
import operator
import os
import tempfile
import time
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Final, Self

import msgspec
import pandas as pd

from isobench.model import BlockHealth, Cause, Gap, Plan, Record, Sample
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName

FORMAT: Final = 1
MOST_LOG: Final = 1 << 20
COLUMNS: Final = (
    "block", "target", "workload", "metric", "iteration", "value", "unit", "operations", "clock",
    "at", "session",
)  # fmt: skip


KEY: Final = ("block", "target", "workload", "metric", "iteration", "session")
"""What tells one sample from all others of its run."""
_RECORDS: Final = "records.jsonl"
_LOCKS: Final = Path("/proc/locks")
_PATIENCE: Final = 1.0
"""Seconds for a reader that looks whether a run is still going: it holds the lock for a moment."""
_PAUSE: Final = 0.02
_Integer = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Row(msgspec.Struct, gc=False):
    """A line of records.jsonl, sample or gap."""

    kind: str
    block: int
    target: str
    workload: str
    metric: str = ""
    iteration: int = 0
    value: _Integer = 0
    unit: str = ""
    operations: Annotated[int, msgspec.Meta(ge=1, le=(1 << 63) - 1)] = 1
    clock: str = ""
    at: float = 0.0
    session: int = 0
    cause: str = ""
    detail: str = ""
    hint: str = ""


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(path)


def write_document(path: Path, value: object) -> None:
    """Write a JSON document whole or not at all."""
    write_text(path, msgspec.json.format(msgspec.json.encode(value), indent=1).decode())


def _drop_incomplete_line(path: Path) -> None:
    if path.is_file():
        os.truncate(path, len(_complete_lines(path.read_bytes())))


def _claimed(records: IO[bytes], path: Path) -> str:
    """Take the lock of a run; return why its file system has none, or nothing. UsageError: another
    process has it.
    """
    end = time.monotonic() + _PATIENCE
    while True:
        try:
            fcntl.flock(records, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                return error.strerror or str(error)
            if time.monotonic() > end:
                raise _busy(path, _holder(records.fileno())) from None
        else:
            return ""
        time.sleep(_PAUSE)


def _holder(descriptor: int) -> int | None:
    """Return which process has locked a file; None where the kernel does not show it here."""
    file = os.fstat(descriptor)
    name = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
    try:
        lines = _LOCKS.read_text().splitlines()
    except OSError:
        return None
    for words in map(str.split, lines):
        # "7: FLOCK ADVISORY WRITE 1234 fe:01:5678 0 EOF"; a process that waits has "->" in it.
        if words[1:2] == ["FLOCK"] and words[5:6] == [name] and int(words[4]) > 0:
            return int(words[4])
    return None


def _busy(path: Path, holder: int | None) -> UsageError:
    who, stop = ("another process", "end it")
    if holder is not None:
        who, stop = (f"process {holder}", f"end it with kill -INT {holder}")
    return UsageError(
        f"{path}: this run is still going: {who} writes to it",
        hint=f"wait for its end, or {stop}; then isobench run --resume {path}",
    )


def writer(path: Path) -> str:
    """Return who writes to a run at this moment, in words; nothing where nobody does, or where that
    cannot be seen.
    """
    try:
        with (path / _RECORDS).open("rb") as records:
            try:
                fcntl.flock(records, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                holder = _holder(records.fileno())
                return "another process" if holder is None else f"process {holder}"
    except OSError:
        pass
    return ""


def demand_idle(path: Path) -> None:
    """UsageError: a process writes to this run."""
    if writer(path):
        with (path / _RECORDS).open("rb") as records:
            raise _busy(path, _holder(records.fileno()))


class RunFolder:
    """A run being written. A Sink: `write` keeps a record, `sync` makes it safe.

    The open file of the records holds a lock: of two writers each would measure the same blocks.
    The kernel frees it when the process ends, however it does.
    """

    def __init__(self, path: Path) -> None:
        """Take a folder; it is made if need be, and must hold no other run. UsageError: another
        process writes to it.
        """
        self.path = path
        for name in ("state", "logs"):
            (path / name).mkdir(parents=True, exist_ok=True)
        self._records = (path / _RECORDS).open("ab")
        try:
            self.unlocked = _claimed(self._records, path)
        except UsageError:
            self._records.close()
            raise
        # A crash may have cut a last line short: what is appended must not grow out of it.
        for name in (_RECORDS, "state/blocks.jsonl"):
            _drop_incomplete_line(path / name)
        self._encoder = msgspec.json.Encoder()

    def write(self, record: Record) -> None:
        """Append one record."""
        kind = "sample" if isinstance(record, Sample) else "gap"
        line = {"kind": kind, **msgspec.to_builtins(record)}
        self._records.write(self._encoder.encode(line) + b"\n")

    def sync(self) -> None:
        """See that all that was written survives a crash."""
        self._records.flush()
        os.fsync(self._records.fileno())

    def document(self, name: str, value: object) -> None:
        """Write a JSON document whole or not at all."""
        write_document(self.path / name, value)

    def text(self, name: str, text: str) -> None:
        """Write a text file whole or not at all."""
        write_text(self.path / name, text)

    def health(self, health: BlockHealth, *, valid: bool) -> None:
        """Append how the host fared in one block."""
        line = msgspec.json.encode({**msgspec.to_builtins(health), "valid": valid})
        with (self.path / "state" / "blocks.jsonl").open("ab") as file:
            file.write(line + b"\n")

    def log(self, name: str, text: bytes) -> None:
        """Append what something said on standard error, up to a mebibyte a file."""
        if not text.strip():
            return
        path = self.path / "logs" / f"{name}.log"
        size = path.stat().st_size if path.exists() else 0
        if size < MOST_LOG:
            with path.open("ab") as file:
                file.write(text[: MOST_LOG - size].rstrip() + b"\n")

    def close(self) -> None:
        """Close the records, and let go of the run: nothing is written to it from here on."""
        self.sync()
        self._records.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run, read back."""

    path: Path
    about: Mapping[str, Any]
    plan: Plan
    samples: pd.DataFrame
    """Columns as in COLUMNS; `value` in `unit`, as measured."""
    gaps: tuple[Gap, ...]
    health: tuple[BlockHealth, ...]
    invalid_blocks: frozenset[int]
    states: Mapping[TargetName, Mapping[str, Any]]

    @property
    def lost_blocks(self) -> frozenset[int]:
        """Blocks that have run and of which there is no record any more."""
        kept = {gap.block for gap in self.gaps} | set(self.samples["block"].unique().tolist())
        return frozenset(one.block for one in self.health) - kept

    @property
    def sessions(self) -> dict[TargetName, int]:
        """The highest session number of each target that has one."""
        highest = self.samples.groupby("target")["session"].max()
        return {TargetName(str(name)): int(number) for name, number in highest.items()}

    @property
    def begun(self) -> int:
        """How many blocks were begun, complete or not."""
        gaps = max((gap.block for gap in self.gaps), default=0)
        return max(gaps, 0 if self.samples.empty else int(self.samples["block"].max()))


def create(parent: Path, name: str, *, exact: Path | None = None) -> RunFolder:
    """Make the folder of a new run, `exact` or `parent`/`name`, and point `latest` at it."""
    path = exact or parent / name
    if (path / "records.jsonl").exists():
        raise UsageError(f"{path} holds a run already", hint="choose another folder with --output")
    try:
        folder = RunFolder(path)
    except OSError as error:
        raise UsageError(
            f"{path}: {error.strerror}", hint="choose another folder with --output"
        ) from None
    if exact is None:
        link = parent / "latest"
        with contextlib.suppress(OSError):
            if link.is_symlink() or not link.exists():
                fresh = parent / f".latest-{os.getpid()}"
                fresh.symlink_to(name)
                fresh.replace(link)
    return folder


class _Files:
    """The files of a run in a folder or in a zip of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._zip: zipfile.ZipFile | None = None
        self._inside = ""
        if path.is_file() and zipfile.is_zipfile(path):
            self._zip = zipfile.ZipFile(path)
            found = [name for name in self._zip.namelist() if name.endswith("run.json")]
            if not found:
                raise UsageError(f"{path} holds no run.json", hint="zip the whole folder of a run")
            self._inside = min(found, key=len).removesuffix("run.json")
        elif not (path / "run.json").is_file():
            raise UsageError(
                f"{path} is no run: it holds no run.json",
                hint="name the folder that `isobench run` printed, or isobench-results/latest",
            )

    def read(self, name: str) -> bytes:
        if self._zip is None:
            file = self.path / name
            return file.read_bytes() if file.is_file() else b""
        member = self._inside + name
        return self._zip.read(member) if member in self._zip.namelist() else b""

    def states(self) -> list[str]:
        if self._zip is None:
            return [f"state/{path.name}" for path in (self.path / "state").glob("*-pre.json")]
        return [
            name.removeprefix(self._inside)
            for name in self._zip.namelist()
            if name.startswith(self._inside + "state/") and name.endswith("-pre.json")
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._zip is not None:
            self._zip.close()


def _complete_lines(data: bytes) -> bytes:
    """Drop a last line that a crash has cut short."""
    return data[: data.rfind(b"\n") + 1]


def _decoded(data: bytes) -> list[_Row]:
    decoder = msgspec.json.Decoder(_Row)
    try:
        return decoder.decode_lines(data)
    except msgspec.DecodeError:
        for number, line in enumerate(data.splitlines(), 1):  # slow, and names the line
            try:
                decoder.decode(line)
            except msgspec.DecodeError as error:
                raise ValueError(f"{_RECORDS}:{number}: {error}") from None
        raise


def _demand_distinct(frame: pd.DataFrame, decoded: list[_Row]) -> None:
    """ValueError: a sample is there twice, so that two processes have written, or lines were
    copied. No estimate that rests on it would be honest.
    """
    again = frame.duplicated([*KEY]).to_numpy()
    if not again.any():
        return
    second = int(again.argmax())
    key = tuple(frame.loc[second, [*KEY]])
    numbers = [number for number, row in enumerate(decoded, 1) if row.kind == "sample"]
    first = next(n for n in numbers if tuple(getattr(decoded[n - 1], k) for k in KEY) == key)
    what = ", ".join(f"{name} {value}" for name, value in zip(KEY, key, strict=True))
    raise ValueError(
        f"{_RECORDS}:{numbers[second]}: the sample of line {first} once more ({what});"
        f" {int(again.sum())} of {len(frame)} samples are repeated, as where two isobench have"
        " written to one run"
    )


def rows(data: bytes) -> tuple[pd.DataFrame, tuple[Gap, ...]]:
    """Return the samples as a frame, and the gaps."""
    decoded = _decoded(_complete_lines(data))
    samples = [row for row in decoded if row.kind == "sample"]
    # One pass a column, in C.
    columns = {name: list(map(operator.attrgetter(name), samples)) for name in COLUMNS}
    frame = pd.DataFrame(columns)
    _demand_distinct(frame, decoded)
    gaps = tuple(
        Gap(
            block=row.block,
            target=TargetName(row.target),
            workload=WorkloadName(row.workload),
            cause=Cause(row.cause),
            detail=row.detail,
            hint=row.hint,
        )
        for row in decoded
        if row.kind == "gap"
    )
    return frame, gaps


def load(path: Path) -> Run:
    """Read a run from its folder, or from a zip of it."""
    try:
        with _Files(path) as files:
            about = msgspec.json.decode(files.read("run.json"), type=dict[str, Any])
            if missing := {"schema_version", "reference"} - set(about):
                raise ValueError(f"run.json: lacks {', '.join(sorted(missing))}")
            version = about["schema_version"]
            if version != FORMAT:
                raise UsageError(
                    f"{path}: format {version}, this isobench reads {FORMAT}",
                    hint="use the isobench that wrote it",
                )
            plan_bytes = files.read("plan.json")
            plan = _plan(plan_bytes) if plan_bytes else _empty_plan(about)
            frame, gaps = rows(files.read("records.jsonl"))
            health, invalid = _health(files.read("state/blocks.jsonl"))
            states = {}
            for name in sorted(files.states()):
                target = Path(name).name.removesuffix("-pre.json")
                states[TargetName(target)] = msgspec.json.decode(files.read(name))
    except (msgspec.DecodeError, OSError, ValueError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path}: {error}", hint="the file is damaged; restore it or measure again"
        ) from None
    return Run(
        path=path,
        about=about,
        plan=plan,
        samples=frame,
        gaps=gaps,
        health=health,
        invalid_blocks=invalid,
        states=states,
    )


def _plan(text: bytes) -> Plan:
    """Return a plan; version 0.1 wrote "dear" for "expensive"."""
    table = msgspec.json.decode(text, type=dict[str, Any])
    if "dear" in table:
        table["expensive"] = table.pop("dear")
    return msgspec.convert(table, Plan)


def _empty_plan(about: Mapping[str, Any]) -> Plan:
    """Stand for the plan of a run that ended before it had one."""
    return Plan(
        seed=int(about.get("seed", 0)), reference=TargetName(about["reference"]), work=(), blocks=()
    )


class _HealthRow(msgspec.Struct):
    valid: bool = True


def _health(data: bytes) -> tuple[tuple[BlockHealth, ...], frozenset[int]]:
    lines = _complete_lines(data).splitlines()
    health = tuple(msgspec.json.decode(line, type=BlockHealth) for line in lines)
    valid = [msgspec.json.decode(line, type=_HealthRow).valid for line in lines]
    return health, frozenset(
        h.block for h, is_valid in zip(health, valid, strict=True) if not is_valid
    )


def csv(samples: pd.DataFrame) -> str:
    """Return the samples as CSV."""
    buffer = io.StringIO()
    samples.to_csv(buffer, index=False)
    return buffer.getvalue()
