"""Reads records.jsonl: the samples as a frame, the gaps, and which cells left early.

A line that cannot be used is left out and counted, and its block does not count. Checks look at
whole columns: a run may have ten million records, and nearly all of them are good.
"""

import io
import math
import operator
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, BinaryIO, Final, NamedTuple, cast

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from isobench.model import (
    BOUNDED_TURNS,
    FASTEST_TURNS,
    SESSION,
    TRIMMED_TURN,
    TURNS,
    Cause,
    Clock,
    Gap,
    Leaving,
)
from isobench.model.bounds import LARGEST, MOST_BLOCKS, MOST_NANOSECONDS, MOST_SECONDS
from isobench.model.cleaning import cleaned, is_name
from isobench.model.units import TargetName, Unit, WorkloadName
from isobench.storage import lines
from isobench.storage.lock import RECORDS
from isobench.storage.losses import MOST_DAMAGED, Collector

COLUMNS: Final = (
    "block", "target", "workload", "metric", "iteration", "value", "unit", "operations", "clock",
    "at", "session",
)  # fmt: skip
_TEXTS: Final = ("target", "workload", "metric", "unit", "clock")
KEY: Final = ("block", "target", "workload", "metric", "iteration", "session")
"""The columns that identify a sample within its run."""
_MOST_SESSIONS: Final = 1_000_000
_MOST_AT: Final = 100 * MOST_SECONDS
_MOST_KEYS: Final = 200_000
"""Targets with workload, metric, unit and clock. Runs have some thousand."""
_NO_KEY: Final = -1
"""The number of further ones. As an index it finds the last entry of a table."""
_OF_TURNS: Final = {
    FASTEST_TURNS: "the host's time of its fastest turns",
    TRIMMED_TURN: "the host's time of its trimmed turns",
    BOUNDED_TURNS: "how much the host saw of what it reports",
}
"""What a visit with turns has, if any visit of the run has it: older runs lack it."""
_MOST_STEPS_BACK: Final = 10_000
_MOST_LINES: Final = 20_000_000
"""Lines of a file. So many of the usual length fill the largest file that is read; shorter ones may
be many more, and each takes memory.
"""
_MOST_OTHERS: Final = 1_000_000
"""Gaps and leavings. No plan has more visits; runs have some thousand gaps."""
_MOST_TEXT: Final = 64 << 20
"""Characters of the different texts of gaps and leavings."""
_NO_ROOM: Final = "not kept: the texts of this run are too many"
"""What stands in place of further ones: a program that fails may print another text each time."""

_NO_SESSION: Final = -1
"""What stands in place of a session that a line does not name."""

_Block = Annotated[int, msgspec.Meta(ge=0, le=MOST_BLOCKS)]


# gc=False: the garbage collector need not visit rows, which hold only numbers and texts. A run may
# have millions of them.
class _Row(msgspec.Struct, gc=False, tag_field="kind"):
    """A line of records.jsonl. It has every key that the writer writes."""

    block: _Block
    target: str
    workload: str


class _Sample(_Row, gc=False, tag="sample"):
    metric: str
    iteration: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
    value: Annotated[int, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
    unit: str
    operations: Annotated[int, msgspec.Meta(ge=1, le=LARGEST)]
    clock: str
    at: Annotated[float, msgspec.Meta(ge=-_MOST_AT, le=_MOST_AT)]
    session: Annotated[int, msgspec.Meta(ge=0, le=_MOST_SESSIONS)] = _NO_SESSION


class _Gap(_Row, gc=False, tag="gap"):
    cause: str
    detail: str
    hint: str


class _Leaving(_Row, gc=False, tag="leaving"):
    share: Annotated[float, msgspec.Meta(gt=0, le=1)]


_Line = _Sample | _Gap | _Leaving


class _Legible(msgspec.Struct, gc=False):
    """What may be legible of a damaged line."""

    kind: str = ""
    block: _Block | None = None


_NUMBERS: Final[Mapping[str, Any]] = {
    name: np.float64 if name == "at" else np.int64 for name in COLUMNS if name not in _TEXTS
}
_texts_of = operator.attrgetter(*_TEXTS)
_DECODER: Final = msgspec.json.Decoder(_Line)
_LEGIBLE: Final = msgspec.json.Decoder(_Legible)
_UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The names that records may have, from run.json and plan.json."""

    targets: Collection[str]
    workloads: Collection[str]
    blocks: Collection[int] | None = None
    """None: the run has no plan."""
    has_rounds: bool = False
    """Iterations are the numbers of rounds, in which not every target takes part."""
    has_sessions: bool = False
    """Each sample names its session. Without, one that does not is of session 0."""
    reference: str = "native"
    iterations: Mapping[str, int] = field(default_factory=dict)
    """By workload, how many iterations a complete visit has, where that is the same for all."""
    starts: Collection[str] = frozenset()
    """Workloads that time starts. These are numbered from 0 in rounds too."""

    def knows(self, label: str) -> bool:
        """Return whether a label, such as "native#2", is of a target of the run."""
        name, mark, tail = label.partition("#")
        if not mark:
            return name in self.targets
        # The control, or the partner of another target: both are the reference.
        beside = tail == "2" or tail.removesuffix("#2") in self.targets
        return beside and name == self.reference and name in self.targets

    def check(self, found: Gap | Leaving) -> None:
        """Check the names and the block of a record. ValueError: the run does not have them."""
        if not self.knows(found.target):
            _refuse(f'run.json names no target "{found.target}"')
        # A gap without a workload is one of the whole target.
        is_whole = isinstance(found, Gap) and found.workload in ("", SESSION)
        if found.workload not in self.workloads and not is_whole:
            _refuse(f'run.json names no workload "{found.workload}"')
        if self.blocks is not None and found.block and found.block not in self.blocks:
            _refuse(f"plan.json has no block {found.block}")


class Records(NamedTuple):
    """The content of records.jsonl."""

    samples: pd.DataFrame
    """Columns as in COLUMNS."""
    gaps: tuple[Gap, ...]
    leavings: tuple[Leaving, ...]
    damage: Collector


_Texts = tuple[str, ...]


class _Keys(dict[_Texts, int]):
    """The texts of samples, as in `_TEXTS`, by number. All lines of a visit have the same ones."""

    def __missing__(self, texts: _Texts) -> int:
        if len(self) >= _MOST_KEYS:
            return _NO_KEY  # and not kept: a file may have a million texts
        return self.setdefault(texts, len(self))


class _Table(NamedTuple):
    """All samples, column by column."""

    columns: dict[str, NDArray[Any]]
    """Texts as numbers."""
    names: dict[str, list[str]]
    """The texts of these numbers. A number behind the last one stands for any further text."""


@dataclass(slots=True)
class _Parts:
    """The samples so far, batch by batch."""

    keys: _Keys = field(default_factory=_Keys)
    key: list[NDArray[np.int32]] = field(default_factory=list)
    numbers: dict[str, list[NDArray[Any]]] = field(
        default_factory=lambda: {name: [] for name in (*_NUMBERS, "line")}
    )

    def add(self, rows: list[_Sample], numbers: NDArray[np.int64]) -> None:
        """Add samples, with the numbers of their lines."""
        # attrgetter and map() run in C: passes over the rows are faster than one loop.
        keys = map(self.keys.__getitem__, map(_texts_of, rows))
        self.key.append(np.fromiter(keys, np.int32, len(rows)))
        for name, kind in _NUMBERS.items():
            values = map(operator.attrgetter(name), rows)
            self.numbers[name].append(np.fromiter(values, kind, len(rows)))
        self.numbers["line"].append(numbers)

    def table(self) -> _Table:
        """Return the samples so far."""
        columns: dict[str, NDArray[Any]] = {
            name: np.concatenate([np.zeros(0, _NUMBERS.get(name, np.int64)), *parts])
            for name, parts in self.numbers.items()
        }
        key = np.concatenate([np.zeros(0, np.int32), *self.key])
        names = {}
        for place, name in enumerate(_TEXTS):
            texts = [texts[place] for texts in self.keys]
            number = {text: number for number, text in enumerate(dict.fromkeys(texts))}
            names[name] = [*number]
            codes = [*map(number.__getitem__, texts), len(number)]
            columns[name] = np.array(codes, np.int32)[key]
        return _Table(columns, names)


class Reader:
    """Reads the lines of one file, which may grow meanwhile."""

    def __init__(self, known: Known | None) -> None:
        """Take the names that records may have; None: all."""
        self.known = known
        self.place = 0
        """How many bytes of complete lines were read."""
        self._lines = 0
        self.damage = Collector(RECORDS)
        self.parts = _Parts()
        self.names: dict[str, list[str]] = {}
        self.gaps: list[Gap] = []
        self.leavings: list[Leaving] = []
        self.unreadable: list[tuple[int, int | None]] = []
        """Line and block of lines that are no records; None: the block is not legible."""
        self.others: list[tuple[int, int]] = []
        """Line and block of gaps and leavings."""
        self._texts: dict[str, str] = {}
        """The texts of gaps and leavings, each once: many have the same ones."""
        self._room = _MOST_TEXT
        self._is_good: list[bool] = []
        """Whether a run may have a sample with such texts, by the number of these."""
        self._bad = 0

    def read(self, stream: BinaryIO) -> None:
        """Read the complete lines of a stream, which begins at `place`."""
        for batch in lines.batches(stream, first=self._lines + 1):
            if self._lines + batch.size > _MOST_LINES:
                message = f"{RECORDS}: more than {_MOST_LINES:,} lines, the most that is read"
                raise ValueError(message)
            self._read(batch)
            self._check_names()
            self.place += len(batch.data)
            self._lines += batch.size

    def _read(self, batch: lines.Batch) -> None:
        rows, numbers = self._decoded(batch)
        if {*map(type, rows)} <= {_Sample}:
            self.parts.add(cast(list[_Sample], rows), numbers)
            return
        is_sample = np.fromiter((isinstance(row, _Sample) for row in rows), bool, len(rows))
        self.parts.add([row for row in rows if isinstance(row, _Sample)], numbers[is_sample])
        others = (row for row in rows if not isinstance(row, _Sample))
        for number, row in zip(numbers[~is_sample].tolist(), others, strict=True):
            self._other(number, row)

    def _check_names(self) -> None:
        """Count the samples read last whose texts no run has. ValueError: they are too many, before
        all others take memory as well.
        """
        for texts in [*self.parts.keys][len(self._is_good) :]:
            self._is_good.append(not self._fault(texts))
        key = self.parts.key[-1]
        bad = ~np.array([*self._is_good, False], bool)[key]
        self._bad += int(bad.sum())
        if self._bad > MOST_DAMAGED:
            first = int(bad.argmax())
            texts = [*self.parts.keys, ("",) * len(_TEXTS)][key[first]]
            raise ValueError(
                f"{RECORDS}:{self.parts.numbers['line'][-1][first]}: {self._fault(texts)}; more"
                f" than {MOST_DAMAGED} lines are damaged"
            )

    def _fault(self, texts: _Texts) -> str:
        """Return why no run has a sample with such texts; empty: one may."""
        named = dict(zip(_TEXTS, texts, strict=True))
        return next((why for name, is_known, why in self._tests() if not is_known(named[name])), "")

    def _decoded(self, batch: lines.Batch) -> tuple[list[_Line], NDArray[np.int64]]:
        """Return the rows of the good lines, and their numbers."""
        try:
            rows = _DECODER.decode_lines(batch.data)
        except _UNREADABLE:
            return self._one_by_one(batch)
        if len(rows) != batch.size:  # blank lines have no rows
            return self._one_by_one(batch)
        return rows, np.arange(batch.first, batch.first + len(rows))

    def _one_by_one(self, batch: lines.Batch) -> tuple[list[_Line], NDArray[np.int64]]:
        # The error of decode_lines does not name the line. Only a damaged batch is decoded here.
        rows, numbers = [], []
        for number, line in batch.numbered():
            try:
                rows.append(_DECODER.decode(line))
                numbers.append(number)
            except _UNREADABLE as error:
                self._damaged(number, line, error)
        return rows, np.array(numbers, np.int64)

    def _damaged(self, number: int, line: bytes, error: Exception) -> None:
        try:
            legible = _LEGIBLE.decode(line)
        except _UNREADABLE:
            legible = _Legible()
        self.unreadable.append((number, legible.block))
        self.damage.may_hide_leavings |= legible.kind not in ("sample", "gap")
        self.damage.add([number], cleaned(str(error)))

    def _other(self, number: int, row: _Gap | _Leaving) -> None:
        """Read a gap or a leaving."""
        if len(self.others) >= _MOST_OTHERS:
            what = f"more gaps and leavings than a run has: {_MOST_OTHERS:,} are the most"
            raise ValueError(f"{RECORDS}:{number}: {what}")
        try:
            found = self._gap(row) if isinstance(row, _Gap) else self._leaving(row)
            if self.known is not None:
                self.known.check(found)
        except ValueError as error:
            self.unreadable.append((number, row.block))
            self.damage.may_hide_leavings |= isinstance(row, _Leaving)
            self.damage.add([number], str(error))
            return
        self.others.append((number, row.block))
        if isinstance(found, Gap):
            self.gaps.append(found)
        else:
            self.leavings.append(found)

    def _gap(self, row: _Gap) -> Gap:
        return Gap(
            block=row.block,
            target=TargetName(_name(row.target)),
            workload=WorkloadName(_name(row.workload)),
            cause=Cause(row.cause),
            detail=self._text(row.detail),
            hint=self._text(row.hint),
        )

    def _leaving(self, row: _Leaving) -> Leaving:
        return Leaving(
            block=row.block,
            target=TargetName(_name(row.target)),
            workload=WorkloadName(_name(row.workload)),
            share=row.share,
        )

    def _text(self, text: str) -> str:
        """Return a cleaned text; equal ones are one object."""
        found = cleaned(text)
        if found in self._texts:
            return self._texts[found]
        if len(found) > self._room:
            return _NO_ROOM
        self._room -= len(found)
        self._texts[found] = found
        return found

    def records(self) -> Records:
        """Return what was read so far. Once there is damage, this can be called only once more."""
        columns, self.names = self.parts.table()
        good = self._plausible(columns)
        self._locate(columns)
        columns = {name: column[good] for name, column in columns.items()}
        good = self._distinct(columns)
        columns = {name: column[good] for name, column in columns.items()}
        self._check_order(columns)
        if self.known is not None:
            if self.known.has_rounds:
                self._check_turns(columns)
            self._check_iterations(columns)
        return Records(
            samples=pd.DataFrame({name: self._column(name, columns[name]) for name in COLUMNS}),
            gaps=tuple(self.gaps),
            leavings=tuple(self.leavings),
            damage=self.damage,
        )

    def _column(self, name: str, column: NDArray[Any]) -> Any:  # noqa: ANN401 - a column of pandas
        if name not in _TEXTS:
            return column
        # Each different text is cleaned once, and kept once.
        texts = [cleaned(text) for text in self.names[name]]
        if len({*texts}) < len(texts):
            return pd.Categorical(np.array(texts, object)[column])
        return pd.Categorical.from_codes(column, categories=pd.Index(texts, dtype=object))

    # ---- checks ----------------------------------------------------------------------------------

    def _plausible(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which samples can be; the others are damage."""
        good = np.ones(columns["line"].size, bool)
        for name, is_known, why in self._tests():
            known = np.array([is_known(text) for text in self.names[name]] + [False], bool)
            good &= self._kept(columns, known[columns[name]], why)
        if self.known is not None and self.known.blocks is not None:
            planned = np.array(sorted({0, *self.known.blocks}))
            isin = np.isin(columns["block"], planned)
            good &= self._kept(columns, isin, "plan.json has no such block")
        is_named = columns["session"] != _NO_SESSION
        if self.known is not None and self.known.has_sessions:
            good &= self._kept(columns, is_named, "it names no session")
        columns["session"][~is_named] = 0
        facts = [text.startswith("fact.") for text in self.names["metric"]] + [False]
        value = columns["value"]
        is_time = (value >= 0) & (value <= MOST_NANOSECONDS)
        return good & self._kept(
            columns, is_time | np.array(facts, bool)[columns["metric"]], "its value is not a time"
        )

    def _tests(self) -> Iterable[tuple[str, Callable[[str], bool], str]]:
        """Yield columns, and which texts they may have."""
        if self.known is not None:
            yield "target", self.known.knows, "run.json names no such target"
            yield "workload", self.known.workloads.__contains__, "run.json names no such workload"
        yield "unit", {*Unit}.__contains__, "there is no such unit"
        yield "clock", {*Clock}.__contains__, "there is no such clock"
        yield "metric", is_name, "its metric is not a name"

    def _kept(
        self, columns: Mapping[str, NDArray[Any]], good: NDArray[np.bool_], why: str
    ) -> NDArray[np.bool_]:
        """Return `good`, having counted all other lines."""
        if not good.all():
            bad = columns["line"][~good].tolist()
            self.damage.add(bad, why)
            self.unreadable += zip(bad, columns["block"][~good].tolist(), strict=True)
        return good

    def _distinct(self, columns: Mapping[str, NDArray[Any]]) -> NDArray[np.bool_]:
        """Return which samples are the first ones of their kind; the others are damage."""
        # Repeated samples mean that two processes wrote to the run, or that somebody copied lines.
        # An interval over them would be too narrow: it counts one measurement twice.
        repeated = np.zeros(columns["line"].size, bool)
        if _are_distinct([columns[name] for name in KEY]):
            return ~repeated
        frame = pd.DataFrame({name: columns[name] for name in KEY})
        repeated = frame.duplicated().to_numpy()
        if repeated.any():
            second = int(repeated.argmax())
            first = int((frame == frame.iloc[second]).all(axis=1).to_numpy().argmax())
            key = ", ".join(
                f"{name} {self._column(name, columns[name][second : second + 1])[0]}"
                for name in KEY
            )
            self.damage.add(
                columns["line"][repeated].tolist(),
                f"repeats the sample of line {columns['line'][first]} ({key}); two isobench"
                " processes may have written to one run",
                columns["block"][repeated].tolist(),
            )
        return ~repeated

    def _check_order(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Count blocks that are not in order: a record of another block stands among theirs."""
        block, number = columns["block"], columns["line"]
        # A resumed run may repeat its trial, which is block 0.
        block, number = block[block > 0], number[block > 0]
        back = np.flatnonzero(block[1:] < block[:-1])
        for at in back[:_MOST_STEPS_BACK].tolist():
            self.damage.add(
                [int(number[at + 1])],
                f"a record of block {block[at + 1]} comes after one of block {block[at]}",
            )
        self.damage.blocks.update(block[back].tolist(), block[back + 1].tolist())

    def _check_turns(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Count blocks in which a cell has not as many times as the host saw turns."""
        metrics = self.names["metric"]
        if TURNS not in metrics or "time" not in metrics:
            return
        keys = ["block", "target", "workload"]
        frame = pd.DataFrame({name: columns[name] for name in (*keys, "operations", "line")})
        seen = frame[columns["metric"] == metrics.index(TURNS)].set_index(keys)
        times = frame[columns["metric"] == metrics.index("time")].groupby(keys, sort=False)
        wrong = seen["operations"] != times.size().reindex(seen.index, fill_value=0)
        self._add_incomplete(seen["line"][wrong], "times of its turns are missing")
        for metric, what in _OF_TURNS.items():
            if metric in metrics:
                found = frame[columns["metric"] == metrics.index(metric)].set_index(keys)
                without = seen["line"][~seen.index.isin(found.index)]
                self._add_incomplete(without, f"{what} is missing")
        # The trial has no rounds. Other programs do not wait for their turns.
        first = times["line"].first().drop(index=0, level="block", errors="ignore")
        waits = first.index.droplevel("block").isin(seen.index.droplevel("block"))
        unseen = first[waits & ~first.index.isin(seen.index)]
        self._add_incomplete(unseen, "the host's times of its turns are missing")

    def _add_incomplete(self, lines: pd.Series, why: str) -> None:
        """Count lines, by block, target and workload, of visits that are not complete."""
        blocks = lines.index.get_level_values("block")
        for block, line in zip(blocks.tolist(), lines.tolist(), strict=True):
            if block not in self.damage.blocks:
                self.damage.add([line], why, [block])

    def _check_iterations(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Count blocks in which the times of a visit are not complete."""
        assert self.known is not None
        metrics = self.names["metric"]
        time = metrics.index("time") if "time" in metrics else -1
        mine = (columns["metric"] == time) & (columns["block"] > 0)
        if self.known.has_rounds:
            starts = [name in self.known.starts for name in self.names["workload"]]
            mine &= np.array([*starts, False], bool)[columns["workload"]]
        names = ("block", "target", "workload", "iteration", "line")
        frame = pd.DataFrame({name: columns[name][mine] for name in names})
        visits = frame.groupby(["block", "target", "workload"], sort=False)
        found = visits.agg(
            count=("iteration", "size"), last=("iteration", "max"), line=("line", "first")
        )
        gaps = {(gap.block, gap.target, gap.workload) for gap in self.gaps}
        wanted = [self.known.iterations.get(name, 0) for name in self.names["workload"]]
        least = np.array([*wanted, 0])[found.index.get_level_values("workload")]
        wrong = (found["count"] != found["last"] + 1) | (found["count"] < least)
        found = found[wrong].reset_index()
        for block, target, workload, line in zip(
            *(found[name].tolist() for name in ("block", "target", "workload", "line")), strict=True
        ):
            # A visit that failed may have lost iterations, and says so. A damaged line was counted.
            key = (block, self.names["target"][target], self.names["workload"][workload])
            if key not in gaps and block not in self.damage.blocks:
                self.damage.add([line], "iterations of this visit are missing", [block])

    def _locate(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Find the blocks that damaged lines belong to: those of the lines around them."""
        if not self.unreadable:
            return
        others = np.array(self.others, np.int64).reshape(-1, 2)
        bad = np.array([number for number, _ in self.unreadable], np.int64)
        numbers = np.concatenate([columns["line"], others[:, 0]])
        blocks = np.concatenate([columns["block"], others[:, 1]])
        good = ~np.isin(numbers, bad)
        order = np.argsort(numbers[good], kind="stable")
        numbers, blocks = numbers[good][order], blocks[good][order]
        place = np.searchsorted(numbers, bad)
        for at, (_, block) in zip(place.tolist(), self.unreadable, strict=True):
            around = {int(one) for one in blocks[max(0, at - 1) : at + 1]}
            # The block is certain where a line beside has the same.
            legible = set() if block is None else {block}
            self.damage.blocks.update(legible if legible & around else legible | around)


def read(source: BinaryIO | bytes, known: Known | None = None) -> Records:
    """Return the samples, gaps and leavings that can be used; texts are cleaned.

    A last line that a crash has cut off is dropped. Without `known`, all names can be. ValueError:
    nothing can be used, or too many lines are damaged; names the first lines.
    """
    reader = Reader(known)
    reader.read(io.BytesIO(source) if isinstance(source, bytes) else source)
    return usable(reader.records())


def usable(found: Records) -> Records:
    """Return the records. ValueError: nothing of them can be used; names the first lines."""
    if found.damage.reasons and found.samples.empty and not found.gaps:
        raise ValueError("; ".join(found.damage.first()))
    return found


def _name(text: str) -> str:
    """Return a cleaned name; equal ones are one object."""
    return sys.intern(cleaned(text))


def _are_distinct(columns: Sequence[NDArray[Any]]) -> bool:
    """Return whether all rows are known to differ; the columns have no negative numbers.

    False: some rows are equal, or the columns are too wide for one number.
    """
    if not columns[0].size:
        return True
    sizes = [int(column.max()) + 1 for column in columns]
    if math.prod(sizes) > LARGEST:
        return False
    row = np.zeros(columns[0].size, np.int64)
    for column, size in zip(columns, sizes, strict=True):
        row *= size
        row += column
    return pd.Index(row).is_unique


def _refuse(message: str) -> None:
    raise ValueError(message)


def csv(samples: pd.DataFrame) -> str:
    """Return the samples as CSV with a line of headings."""
    buffer = io.StringIO()
    samples.to_csv(buffer, index=False)
    return buffer.getvalue()
