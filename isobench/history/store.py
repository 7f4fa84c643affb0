"""The store: a Parquet dataset, partitioned by machine and month, that DuckDB reads and writes.

DIR/isobench-history.json                            what this folder is
DIR/machine=KEY/month=2026-11/run-HASH.parquet       one run
DIR/machine=KEY/month=2026-11/runs-HASH.parquet      several runs, merged

Nothing is ever changed in place. A file is written under another name, synced and renamed, so that
a run is in the store or is not, whatever ends the process. Files of one run are merged into one
file when there are many, and the former ones are removed then: a reader may meet a run twice, and
counts it once.
"""

import contextlib
import errno
import fcntl
import fnmatch
import gc
import hashlib
import importlib.util
import operator
import os
import re
import secrets
import shutil
import stat
import time
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from isobench.config import bounded, paths
from isobench.history import duckdb_door
from isobench.history.row import (
    LONGEST_TEXT,
    RANGES,
    SCHEMA,
    SMALLEST_ERROR,
    Row,
    redacted,
)
from isobench.model import commands
from isobench.model.cleaning import as_cell
from isobench.model.errors import UsageError
from isobench.model.wording import time_text

MARKER: Final = "isobench-history.json"
_ONE: Final = "run-"
_SEVERAL: Final = "runs-"
_UNFINISHED: Final = ".unfinished-"
_MOST_LOOSE: Final = 32
"""A month has at most so many files of one run before they are merged."""
_PATIENCE: Final = 60.0
"""Seconds to wait for another process that adds runs."""
_TRIES: Final = 5
_DAY: Final = 86_400.0
_MOST_OF_A_ROW: Final = 64 << 20
_MOST_ROWS: Final = 20_000_000
"""Rows of all files that are read. Equal ones take almost no room in a file."""
_MOST_TEXT: Final = 2 << 30
"""Bytes of the texts of the rows that are chosen, and of those of all files that are searched for
what no run has. With their conditions a million rows have as many; without, seven million.
"""
_MOST_CHOSEN: Final = 2_000_000
"""Rows that are made objects. A hundred thousand runs of twelve cells have fewer."""
_MACHINE: Final = re.compile("[0-9a-f]+")
_LONGEST_KEY: Final = 100
_MONTH: Final = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
_FILES: Final = "read_parquet($files, union_by_name = true, hive_partitioning = false)"
_TYPES: Final = {str: "VARCHAR", bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE"}
_LATEST: Final = "complete OR NOT bool_or(complete) OVER (PARTITION BY run, machine, started)"
"""Keeps of a run that is there twice, complete and from before it was, the rows when complete."""
_FEWER: Final = "ask for fewer: --since, --machine"
_MOST_OF_A_MARKER: Final = 1 << 16
_TIME: Final = r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]Z"
_UNPRINTABLE: Final = r"[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]"


class _Marker(msgspec.Struct, frozen=True):
    schema: int = SCHEMA
    content: str = "ratios to native, by run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """Which rows are wanted; empty: all."""

    since: str = ""
    """Only runs of this time or later, in the format of ISO 8601."""
    machine: str = ""
    targets: tuple[str, ...] = ()
    workloads: tuple[str, ...] = ()
    """Names, or classes."""
    runs: tuple[str, ...] = ()

    def has_cell(self, row: Row) -> bool:
        """Return whether target and workload of a row are wanted."""
        named = {row.workload, row.workload_class}
        return (not self.targets or row.target in self.targets) and (
            not self.workloads or not named.isdisjoint(self.workloads)
        )


def _columns() -> dict[str, str]:
    """Return the columns with their types in SQL."""
    found = {}
    for name, kind in typing.get_type_hints(Row).items():
        plain = kind
        if isinstance(kind, types.UnionType):
            plain = next(one for one in typing.get_args(kind) if one is not types.NoneType)
        found[name] = _TYPES[plain]
    return found


COLUMNS: Final = _columns()
_SHARED: Final = {
    "runs": (
        *("run", "started", "month", "machine", "machine_name", "complete", "quick"),
        *("conditions", "confirms", "link", "schema"),
    ),
    "cells": (
        *("place", "target", "technology", "version", "options", "reference", "workload"),
        *("workload_class", "program", "metric", "unit", "level", "status", "doubts"),
    ),
}
"""Columns whose values many rows have in common: those of a run, and those of a cell."""
_OF_A_ROW: Final = tuple(name for name in COLUMNS if all(name not in s for s in _SHARED.values()))
_IN_ORDER: Final = operator.itemgetter(
    *((*_SHARED["runs"], *_SHARED["cells"], *_OF_A_ROW).index(name) for name in COLUMNS)
)
_Found = TypeVar("_Found")


# Conditions are long and mostly the same: `_check_conditions` looks at each text once.
_TEXTS: Final = tuple(
    name for name, kind in COLUMNS.items() if kind == _TYPES[str] and name != "conditions"
)
_SIZE: Final = " + ".join(f"coalesce(strlen({name}), 0)" for name in _TEXTS)
"""The length in bytes of these texts of a row, in SQL."""


def _sound() -> str:
    """Return the condition in SQL that each row of isobench's meets. A file of a store may come
    from a cache that others could write to.
    """
    kinds = typing.get_type_hints(Row).items()
    plain = f"NOT regexp_matches(concat_ws('', {', '.join(_TEXTS)}), '{_UNPRINTABLE}')"
    return " AND ".join((
        *(f"{name} IS NOT NULL" for name, kind in kinds if not isinstance(kind, types.UnionType)),
        # No number that is not finite lies between others.
        *(f"({name} IS NULL OR {name} BETWEEN {least!r} AND {most!r})"
          for name, (least, most) in RANGES.items()),
        "(mean IS NULL OR (error IS NOT NULL AND freedom IS NOT NULL))",
        f"(error IS NULL OR error = 0 OR error >= {SMALLEST_ERROR!r})",
        "(low IS NULL OR high IS NULL OR low <= high)",
        "level > 0 AND level < 1",
        "schema > 0",
        f"regexp_full_match(started, '{_TIME}') AND try_cast(started AS TIMESTAMP) IS NOT NULL",
        "month = started[:7]",
        # Only short texts are put together: a vector of DuckDB has 2,048 rows.
        f"CASE WHEN {_SIZE} <= {LONGEST_TEXT} THEN {plain} ELSE false END",
        f"strlen(conditions) <= {LONGEST_TEXT}",
    ))  # fmt: skip


_SOUND: Final = _sound()


class Store:
    """A store of runs in a folder."""

    def __init__(self, folder: Path) -> None:
        """Take the folder. Nothing is read or created yet."""
        if re.search(r"[*?\[\]{}]", str(folder)):
            raise UsageError(
                f"{folder}: the path of a store must have no *, ?, [, ], {{ or }}",
                hint="name another folder with --store",
            )
        if not duckdb_door.takes(folder):
            raise UsageError(
                f"{folder}: the path of a store must be UTF-8",
                hint="name another folder with --store",
            )
        self.folder = folder
        self.unmerged: dict[str, str] = {}
        """What `add` could not put in order beside a run that it has written, with hints."""
        self._placed: set[str] = set()
        """The files that were found where they belong."""

    def command(self, words: str) -> str:
        """Return a command of `isobench history` on this store, as the user types it."""
        # The user's own is what the commands take without the option.
        own = self.folder != paths.history()
        return f"isobench history {words}" + f" --store {commands.path(self.folder)}" * own

    @property
    def exists(self) -> bool:
        """Whether the folder is there. Whether it is a store, reading tells."""
        try:
            self.folder.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError:  # what may not be seen is not missing
            return True
        return True

    def check(self) -> None:
        """Check that the store can be read. UsageError: it cannot, or the extra is missing."""
        duckdb_door.library()
        if importlib.util.find_spec("ruptures") is None:
            raise UsageError(
                "change points need ruptures, which is not installed", hint=duckdb_door.INSTALL
            )
        self._check_marker()

    # ---- reading ---------------------------------------------------------------------------------

    def rows(self, choice: Choice | None = None) -> list[Row]:
        """Return the chosen rows by time, each once. UsageError: the store cannot be read."""
        wanted = choice or Choice()
        found: dict[tuple[str, ...], Row] = {}
        checked: set[str] = set()
        whole: set[tuple[str, ...]] = set()
        with _without_collection():
            for row in self._chosen(wanted):
                run = _run_of(row)
                if row.complete:
                    whole.add(run)
                elif run in whole:  # its beginning: who replaced it was killed before removing it
                    continue
                if row.conditions not in checked:
                    self._check_conditions(row)
                    checked.add(row.conditions)
                found.setdefault((*run, row.target, row.workload, row.metric), row)
        return list(found.values())

    def _check_conditions(self, row: Row) -> None:
        """Check that the conditions of a run are names and visible texts. UsageError: not so."""
        if not _are_conditions(row.conditions):
            raise UsageError(
                f"{self.folder}: run {row.run} has conditions that isobench did not write",
                hint=f"{self.command(f'prune --before {_day_after(row.started)}')} removes it, and"
                " the runs before it; or begin a new store",
            )

    def _chosen(self, choice: Choice) -> list[Row]:
        self._check_marker()
        for attempt in range(_TRIES):
            files = [str(path) for path in self._files(choice)]
            self._check_others(files)
            if not files:
                return []
            try:
                return self._answer(partial(self._wanted, files=files, choice=choice), files)
            except FileNotFoundError:
                # Another process has merged files meanwhile: the runs are in another file now.
                if attempt == _TRIES - 1:
                    raise
        return []

    def _wanted(self, database: Any, files: Sequence[str], choice: Choice) -> list[Row]:  # noqa: ANN401 - a connection of DuckDB
        """Return the chosen rows by time. UsageError: they are too many."""
        count, size = _count(database, files, choice)
        if count > _MOST_CHOSEN:
            raise self._too_many(count, _MOST_CHOSEN, files)
        if size > _MOST_TEXT:
            raise self._too_long(files)
        _choose(database, files, choice)
        return _chosen(database)

    def _answer(self, query: Callable[[Any], _Found], files: Sequence[str]) -> _Found:
        """Return what a query finds in files that have been checked."""
        with duckdb_door.opened() as database:
            try:
                self._check_rows(database, files)
                if not self._are_sound(database, files):
                    raise self._damaged(files, None)
                self._check_places(database, files)
                return query(database)
            except duckdb_door.errors() as error:
                gone = [name for name in files if not Path(name).exists()]
                if gone:
                    raise FileNotFoundError(errno.ENOENT, "merged meanwhile", gone[0]) from None
                raise self._damaged(files, error) from None

    def _check_rows(self, database: Any, files: Sequence[str]) -> None:  # noqa: ANN401 - a connection of DuckDB
        """Check the number and the schema of all rows. UsageError: they are not to be read."""
        bound = _bound(files)
        count = _row_count(database, files)
        if count > _MOST_ROWS:
            raise self._too_many(count, _MOST_ROWS, files)
        oldest, newest = duckdb_door.row(
            database,
            f"SELECT min(schema::BIGINT), max(schema::BIGINT) FROM {_FILES}",  # noqa: S608 - a constant
            bound,
        )
        if (oldest, newest) not in {(SCHEMA, SCHEMA), (None, None)}:
            raise _other_schema(self.folder, oldest, newest)

    def _are_sound(self, database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of DuckDB
        """Return whether all rows of files are such as isobench writes. duckdb.Error: they have
        other columns, or cannot be read. UsageError: their texts are too long to be searched.
        """
        if not _have_columns(database, files) or _is_swollen(database, files):
            return False
        if _searched(database, files) > _MOST_TEXT:
            # One file alone may have what many rows share, which takes almost no room in it.
            longest = [name for name in files if _searched(database, [name]) > _MOST_TEXT]
            raise self._too_long(longest[:1] or files)
        return _have_sound_rows(database, files)

    def _check_places(self, database: Any, files: Sequence[str]) -> None:  # noqa: ANN401 - a connection of DuckDB
        """Check that files are in the folders of their machines and months, by whose names they are
        chosen. UsageError: one is not.
        """
        # Those that are not chosen may have texts of any length.
        texts = f"left(machine::VARCHAR, {_LONGEST_KEY}), left(month::VARCHAR, {_LONGEST_KEY})"
        sql = f"SELECT DISTINCT filename, {texts} FROM {_FILES[:-1]}, filename = true)"  # noqa: S608 - a constant
        for name, machine, month in duckdb_door.rows(database, sql, _bound(files)):
            if machine is None or month is None:  # it is no file of a store
                continue
            folder = self.folder / f"machine={machine}" / f"month={month}"
            if str(Path(name).parent) == duckdb_door.named(folder):
                continue
            hint = _moved(name)
            if _MACHINE.fullmatch(machine) and _MONTH.fullmatch(month):
                place = commands.path(folder)
                hint = f"move it there: mkdir -p {place} && mv {commands.path(name)} {place}"
            raise UsageError(f"{name} is not in the folder of its machine and month", hint=hint)
        self._placed.update(files)

    def _check_others(self, chosen: Sequence[str]) -> None:
        """Check that no run is left out for the name of its folder alone. UsageError: one is."""
        # A folder with a dot in front is one that somebody has put aside.
        every = self.folder.glob("[!.]*/[!.]*/run*.parquet")
        others = {str(path) for path in every if path.is_file() and not path.is_symlink()}
        left = sorted(others - {*chosen} - self._placed)
        if not left:
            return
        with duckdb_door.opened() as database:
            # One that cannot be read, and need not be, hides no other.
            if not self._are_in_place(database, left):
                for name in left:
                    self._are_in_place(database, [name])

    def _are_in_place(self, database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - as above
        """Return whether files can be read, and are where they belong. UsageError: one is not."""
        with contextlib.suppress(*duckdb_door.errors()):
            if _row_count(database, files) <= _MOST_ROWS and not _is_swollen(database, files):
                self._check_places(database, files)
                return True
        return False

    def _too_many(self, count: int, most: int, files: Sequence[str]) -> UsageError:
        place, hint = self._place(files)
        return UsageError(
            f"{place}: {count:,} rows of cells, and {most:,} are the most that is read", hint=hint
        )

    def _too_long(self, files: Sequence[str]) -> UsageError:
        place, hint = self._place(files)
        return UsageError(
            f"{place}: the texts of the rows are longer than {bounded.size_text(_MOST_TEXT)}, the"
            " most that is read",
            hint=hint,
        )

    def _place(self, files: Sequence[str]) -> tuple[str, str]:
        """Return what has too much in it, and what to do."""
        if len(files) == 1:
            return files[0], _moved(files[0])
        return str(self.folder), _FEWER

    def _damaged(self, files: Sequence[str], error: Exception | None) -> UsageError:
        """Return the error that names the file that cannot be read, or has what no run has."""
        with duckdb_door.opened() as database:
            for name in files:
                try:
                    if self._are_sound(database, [name]):
                        continue
                    why = "it has rows that isobench did not write"
                except duckdb_door.errors() as found:
                    why = str(found).splitlines()[0]
                return UsageError(f"{name} cannot be read: {why}", hint=_moved(name))
        if duckdb_door.is_out_of_memory(error):
            why = "its rows take more memory than DuckDB may have"
            return UsageError(f"{self.folder}: {why}", hint=_FEWER)
        why = "its files do not fit together" if error is None else str(error).splitlines()[0]
        return UsageError(f"{self.folder}: {why}", hint=duckdb_door.INSTALL)

    def _files(self, choice: Choice) -> Iterator[Path]:
        """Yield the files that may have chosen rows."""
        first = choice.since[:7]
        for machine in _listed(self.folder, "machine="):
            if choice.machine and machine.name != f"machine={choice.machine}":
                continue
            for month in _listed(machine, "month="):
                if month.name >= f"month={first}":
                    yield from _files_in(month, "run*.parquet")

    def _check_marker(self) -> None:
        """Check that the folder is a store. UsageError: it is none."""
        try:
            data = bounded.read(
                self.folder / MARKER, most=_MOST_OF_A_MARKER, hint="name another folder"
            )
        except (FileNotFoundError, NotADirectoryError):
            raise UsageError(
                f"{self.folder} is no history", hint=f"{self.command('add RUN')} begins one"
            ) from None
        except OSError as error:
            raise UsageError(
                f"{self.folder}: {error.strerror}", hint="name another folder with --store"
            ) from None
        try:
            found = msgspec.json.decode(data, type=_Marker)
        except msgspec.MsgspecError:
            raise UsageError(
                f"{self.folder / MARKER} is damaged",
                hint="remove it, and add a run: then it is written again",
            ) from None
        if found.schema != SCHEMA:
            raise _other_schema(self.folder, found.schema, found.schema)

    def export(self, target: Path, choice: Choice) -> int:
        """Write the chosen rows into a file by its ending: .parquet, .csv or .jsonl; return their
        number. UsageError: the ending is another, or the file cannot be written.
        """
        forms = {
            ".parquet": duckdb_door.PARQUET,
            ".csv": "FORMAT csv, HEADER",
            ".jsonl": "FORMAT json",
        }
        form = forms.get(target.suffix)
        if form is None:
            raise UsageError(
                f"{target}: the ending says the format: {', '.join(forms)}",
                hint=f"{target.stem}.parquet",
            )
        if not duckdb_door.takes(target):
            raise UsageError(
                f"{target}: the path of an export must be UTF-8", hint="name another file"
            )
        rows = self.rows(choice)
        try:
            place = bounded.replaceable(target)
            work = place.parent / f"{_UNFINISHED}{secrets.token_hex(8)}"
            work.mkdir()
            try:
                source, made = work / "rows.jsonl", work / f"rows{target.suffix}"
                clean = redacted(rows)
                _write_lines(source, map(_as_cells, clean) if target.suffix == ".csv" else clean)
                self._copy(_relation(source), made, form=form)
                bounded.publish(made, place)
            finally:
                shutil.rmtree(work)
        except OSError as error:
            raise UsageError(
                f"{target}: {error.strerror or error}", hint="name a writable file"
            ) from None
        return len(rows)

    # ---- writing ---------------------------------------------------------------------------------

    def add(self, rows: Sequence[Row]) -> bool:
        """Add the rows of one run; those of a run that is complete take the place of its own from
        before it was. Return whether anything was added. UsageError: it cannot be written.
        """
        duckdb_door.library()  # before anything is made
        first = rows[0]
        self.check_run(rows)
        folder = self._partition(first)
        path = folder / f"{_ONE}{_name(first.run)}.parquet"
        try:
            self._create()
            _refuse_links((folder.parent, folder))
            with self._locked() as is_alone:
                before = self._before(path, first)
                gives_way = is_alone and first.complete and self._is_beginning(before, first)
                if before and not gives_way:
                    return False
                is_first = not folder.exists()
                folder.mkdir(parents=True, exist_ok=True)
                # The new rows come first: whatever ends this, the run is in the store. Where both
                # are in it, reading takes the complete ones.
                try:
                    self._write(path, rows)
                except OSError:
                    if is_alone:  # no other process is about to write there
                        _remove_empty((folder, folder.parent))
                    raise
                if is_alone:
                    with self._noting():
                        for one in before:
                            if one != path:
                                self._keep(one, "run <> ?", first.run)
                        self._tidy(folder, is_first=is_first)
        except OSError as error:
            raise self._unwritable(error) from None
        return True

    def check_run(self, rows: Sequence[Row]) -> None:
        """Check that a store can have the rows of a run. UsageError: what is not read later is not
        written either, nor what would stay the newest run for ever.
        """
        first = rows[0]
        if not _are_conditions(first.conditions):
            raise UsageError(
                f"run {first.run} describes its machine by what is no text",
                hint="add a run of isobench",
            )
        self._partition(first)
        now = _now()
        if first.started > time_text(now + timedelta(seconds=_DAY)):
            raise UsageError(
                f"run {first.run} began at {first.started} by the clock of the machine that"
                f" measured it, and now is {time_text(now)} by the clock of this machine",
                hint="set the clock that is wrong (date -u): that of this machine, and add the run"
                " again; or that of the other, and measure again",
            )

    def _partition(self, row: Row) -> Path:
        # Both come from a file that anybody may have sent.
        if not _MONTH.fullmatch(row.month) or not _MACHINE.fullmatch(row.machine):
            raise UsageError(
                f"run {row.run}: {row.started!r} is no time", hint="add a run of isobench"
            )
        return self.folder / f"machine={row.machine}" / f"month={row.month}"

    def _create(self) -> None:
        if (self.folder / MARKER).exists():
            self._check_marker()
            return
        missing = [one for one in (self.folder, *self.folder.parents) if not one.exists()]
        self.folder.mkdir(parents=True, exist_ok=True)
        others = [path.name for path in self.folder.iterdir() if not path.name.startswith(".")]
        # Another process may have made the mark just now.
        others = [name for name in others if name != MARKER and not name.startswith("machine=")]
        # A page or an export of the user's may lie in a store whose mark was lost.
        if others and not self._has_runs():
            raise UsageError(
                f"{self.folder} has other files in it ({others[0]})",
                hint="name an empty folder with --store",
            )
        try:
            _replace(self.folder / MARKER, msgspec.json.encode(_Marker()) + b"\n")
        except OSError:
            _remove_empty(missing)
            raise

    def _has_runs(self) -> bool:
        """Return whether the folder has those of machines and months, as only a store has."""
        return any(
            _MACHINE.fullmatch(machine.name.removeprefix("machine="))
            and any(
                _MONTH.fullmatch(month.name.removeprefix("month="))
                for month in _listed(machine, "month=")
            )
            for machine in _listed(self.folder, "machine=")
        )

    def _before(self, path: Path, row: Row) -> list[Path]:
        """Return the files of its month that have rows of a run already; `path` is its own."""
        # Its own file may have no row: an older version emptied it before it wrote the new rows.
        files = [
            *_files_in(path.parent, path.name),
            *_files_in(path.parent, f"{_SEVERAL}*.parquet"),
        ]
        if not self._versions(files, row):
            return []
        return [one for one in files if self._versions([one], row)]

    def _is_beginning(self, files: Sequence[Path], row: Row) -> bool:
        """Return whether what files have of a run is from before it was complete."""
        return self._versions(files, row) == {(row.started, False)}

    def _versions(self, paths: Sequence[Path], row: Row) -> set[tuple[str, bool]]:
        """Return when a run in files began, and whether it was complete: each pair they have."""
        if not paths:
            return set()
        files = [str(path) for path in paths]
        sql = f"SELECT DISTINCT started, complete FROM {_FILES} WHERE run = $run"  # noqa: S608 - constants
        bound = _bound(files) | {"run": row.run}
        return set(self._answer(lambda database: duckdb_door.rows(database, sql, bound), files))

    def _write(self, path: Path, rows: Sequence[Row]) -> None:
        """Write rows into a file, in place of what has its name."""
        mark = f"{_UNFINISHED}{secrets.token_hex(8)}"
        source, made = path.parent / f"{mark}.jsonl", path.parent / f"{mark}.parquet"
        try:
            _write_lines(source, rows)
            self._copy(_relation(source), made)
            bounded.publish(made, path)
        finally:
            for left in (source, made):
                left.unlink(missing_ok=True)

    def _copy(
        self,
        select: str,
        made: Path,
        values: Sequence[object] = (),
        form: str = duckdb_door.PARQUET,
    ) -> None:
        """Write what a query returns. OSError: it cannot be written."""
        with duckdb_door.opened() as database:
            duckdb_door.copy(database, select, made, values, form)

    @contextlib.contextmanager
    def _noting(self) -> Iterator[None]:
        """Note what fails: the run has been added, whatever becomes of the other files."""
        try:
            yield
        except UsageError as error:
            self.unmerged[str(error)] = error.hint
        except OSError as error:
            noted = self._unwritable(error)
            self.unmerged[str(noted)] = noted.hint

    def _tidy(self, folder: Path, *, is_first: bool) -> None:
        """Merge files of one run where there are many, and those of the months before a new one."""
        for left in folder.glob(f"{_UNFINISHED}*"):
            with contextlib.suppress(OSError):
                if time.time() - left.stat().st_mtime > _DAY:
                    left.unlink()
        self._merge(folder, _files_in(folder, f"{_ONE}*.parquet"), most=_MOST_LOOSE)
        if is_first:
            for month in _listed(folder.parent, "month="):
                if month != folder:
                    with self._noting():  # one month does not stand in the way of another
                        self._merge(month, _files_in(month, "run*.parquet"))

    def _merge(self, folder: Path, files: Sequence[Path], *, most: int = 1) -> None:
        """Write the rows of several files into one, and remove them, where they are more than
        `most`. A file that could not be read, or not be written again as it is, is left alone: it
        must neither make the others unreadable nor lose anything.
        """
        files = self._mergeable(files) if len(files) > most else ()
        if len(files) <= most:
            return
        names = ", ".join(f"'{duckdb_door.quoted(path)}'" for path in sorted(files))
        made = folder / f"{_UNFINISHED}{secrets.token_hex(8)}.parquet"
        columns = ", ".join(COLUMNS)
        try:
            self._copy(
                f"SELECT DISTINCT {columns} FROM read_parquet([{names}], union_by_name = true,"  # noqa: S608 - paths are quoted
                f" hive_partitioning = false) QUALIFY {_LATEST} ORDER BY started, run, place",
                made,
            )
            self._check_merged(made)
            bounded.publish(made, folder / f"{_SEVERAL}{secrets.token_hex(8)}.parquet")
        finally:
            made.unlink(missing_ok=True)
        for path in files:
            path.unlink()

    def _check_merged(self, made: Path) -> None:
        """Check a merged file as a reader does, before the others go. UsageError: it is unsound."""
        with contextlib.suppress(UsageError):  # which names this file, and it is about to go
            if self._are_mergeable([made]):
                return
        raise UsageError(
            f"{made.parent}: its files are not merged, since the merged one could not be read",
            hint=f"they stay as they are; look whether they can be read: {self.command('list')}",
        )

    def _mergeable(self, files: Sequence[Path]) -> Sequence[Path]:
        """Return the files that have what this isobench writes, and nothing else."""
        try:
            if self._are_mergeable(files):
                return files
        except UsageError:  # of one of them, which is found and noted below
            pass
        found = []
        for one in files:
            with self._noting():
                if self._are_mergeable([one]):
                    found.append(one)
        return found

    def _are_mergeable(self, files: Sequence[Path]) -> bool:
        """Return whether files have no columns and conditions but those that isobench writes, and
        can be read at once. UsageError: they cannot be read at all.
        """
        names = [str(path) for path in files]
        return self._answer(partial(_are_own, files=names), names)

    def prune(self, before: str) -> int:
        """Remove the runs before a time (ISO 8601); return how many. UsageError: it cannot be."""
        self._check_marker()
        removed: set[str] = set()
        try:
            with self._locked():
                for path in list(self._files(Choice())):
                    removed |= self._prune(path, before)
        except OSError as error:
            raise self._unwritable(error) from None
        return len(removed)

    def _prune(self, path: Path, before: str) -> set[str]:
        sql = f"SELECT DISTINCT run, started < $before FROM {_FILES}"  # noqa: S608 - a constant
        bound = _bound([str(path)]) | {"before": before}
        found = self._answer(lambda database: duckdb_door.rows(database, sql, bound), [str(path)])
        old = {run for run, is_old in found if is_old}
        if old and len(old) < len(found):
            self._keep(path, "started >= ?", before)
        elif old:
            path.unlink()
            with contextlib.suppress(OSError):
                path.parent.rmdir()
                path.parent.parent.rmdir()
        return old

    def _keep(self, path: Path, condition: str, value: str) -> None:
        """Write a file again with the rows that a condition keeps."""
        made = path.parent / f"{_UNFINISHED}{secrets.token_hex(8)}.parquet"
        try:
            # A newer version may have written more columns: they stay.
            self._copy(
                f"SELECT * FROM read_parquet('{duckdb_door.quoted(path)}',"  # noqa: S608 - quoted
                f" hive_partitioning = false) WHERE {condition}",
                made,
                [value],
            )
            bounded.publish(made, path)
        finally:
            made.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[bool]:
        """Be the only writer. Yields False where the file system has no locks: files are then never
        removed.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with os.fdopen(os.open(self.folder / ".lock", flags, 0o666), "rb") as lock:
            end = time.monotonic() + _PATIENCE
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except OSError as error:
                    if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                        yield False
                        return
                    if time.monotonic() > end:
                        raise UsageError(
                            f"{self.folder}: another process has been writing for a minute",
                            hint="wait until it ends, and add the run again",
                        ) from None
                    time.sleep(0.02)
                else:
                    yield True
                    return

    def _unwritable(self, error: OSError) -> UsageError:
        hint = "name another folder with --store"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            hint = "make room, and add the run again: df -h"
        return UsageError(f"{self.folder}: {error.strerror or error}", hint=hint)


# ---- files


def _listed(folder: Path, prefix: str) -> list[Path]:
    """Return the folders of a store or of a machine. UsageError: one is none, or they cannot be
    listed.
    """
    found: list[Path] = []
    with _read(folder):
        found = sorted(path for path in folder.iterdir() if path.name.startswith(prefix))
        _refuse_links(found)
    return found


@contextlib.contextmanager
def _read(folder: Path) -> Iterator[None]:
    """Pass over a folder that is gone, as after a prune. UsageError: it cannot be read, and its
    runs would be missing without a word.
    """
    try:
        yield
    except FileNotFoundError:
        pass
    except OSError as error:
        raise bounded.unreadable(folder, error, "its runs would be") from None


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders in which nothing could be written, the innermost first."""
    with contextlib.suppress(OSError):  # it is not empty, nor are those around it
        for folder in folders:
            folder.rmdir()


def _now() -> datetime:
    return datetime.now(UTC)


def _day_after(time: str) -> str:
    """Return the day after a time; where it is none, the latest of all days."""
    try:
        return str(datetime.fromisoformat(time).date() + timedelta(days=1))
    except (ValueError, OverflowError):
        return str(date.max)


def _are_conditions(text: str) -> bool:
    """Return whether a text has the conditions of a run: names and visible texts."""
    try:
        found = msgspec.json.decode(text, type=dict[str, str])
    except (msgspec.MsgspecError, RecursionError):
        return False
    return all(text.isprintable() for pair in found.items() for text in pair)


def _refuse_links(folders: Iterable[Path]) -> None:
    """Check that no folder is a link, which may lead anywhere, or a file. UsageError: one is."""
    for path in folders:
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            raise UsageError(f"{path} is not a folder of the store", hint=_moved(str(path)))


def _files_in(folder: Path, pattern: str) -> list[Path]:
    """Return the files of a folder. UsageError: one is not a regular file, or the folder cannot be
    read.
    """
    found: list[Path] = []
    with _read(folder):
        # Not by Path.glob, which finds nothing where it may not look.
        for path in sorted(folder.iterdir()):
            if not fnmatch.fnmatchcase(path.name, pattern):
                continue
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:  # merged meanwhile: what replaces it may not be in the list
                return _files_in(folder, pattern)
            # Reading a named pipe would wait for ever; a link may lead anywhere.
            if not stat.S_ISREG(mode):
                raise UsageError(f"{path} is not a regular file", hint=_moved(str(path)))
            found.append(path)
    return found


def _name(run: str) -> str:
    # The id comes from a file that anybody may have sent: it is no part of a path.
    return hashlib.sha256(run.encode()).hexdigest()[:20]


def _replace(path: Path, content: bytes) -> None:
    made = path.with_name(f"{_UNFINISHED}{secrets.token_hex(8)}")
    try:
        made.write_bytes(content)
        bounded.publish(made, path)
    finally:
        made.unlink(missing_ok=True)


# ---- queries


def _as_cells(row: Row) -> Row:
    """Return a row for a spreadsheet, which takes no text of it for a formula."""
    texts = {
        name: value for name, value in msgspec.structs.asdict(row).items() if isinstance(value, str)
    }
    return msgspec.structs.replace(row, **{name: as_cell(text) for name, text in texts.items()})


def _write_lines(path: Path, rows: Iterable[Row]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))


def _relation(path: Path) -> str:
    """Return the query for JSON lines with the columns of the store."""
    kinds = ", ".join(f"{name}: '{kind}'" for name, kind in COLUMNS.items())
    # Nothing is guessed: a folder called target=x would replace the column by its name.
    return (
        f"SELECT * FROM read_json('{duckdb_door.quoted(path)}', format = 'newline_delimited',"  # noqa: S608 - quoted
        f" columns = {{{kinds}}}, maximum_object_size = {_MOST_OF_A_ROW},"
        " hive_partitioning = false, auto_detect = false, compression = 'uncompressed')"
    )


@contextlib.contextmanager
def _without_collection() -> Iterator[None]:
    """Make many small objects at once: collecting garbage meanwhile finds none."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _bound(files: Sequence[str]) -> dict[str, object]:
    """Return the files as a value of a query."""
    return {"files": [duckdb_door.named(name) for name in files]}


def _count(database: Any, files: Sequence[str], choice: Choice) -> tuple[int, int]:  # noqa: ANN401 - a connection of DuckDB
    """Return the number of the chosen rows, and how long their texts are."""
    where, values = _conditions(choice)
    size = f"{_SIZE} + strlen(conditions)"
    count, total = duckdb_door.row(
        database,
        f"SELECT count(*), coalesce(sum({size}), 0) FROM {_FILES} {where}",  # noqa: S608 - names of columns
        _bound(files) | values,
    )
    return int(count), int(total)


def _choose(database: Any, files: Sequence[str], choice: Choice) -> None:  # noqa: ANN401 - a connection of DuckDB
    """Make the table of the chosen rows."""
    where, values = _conditions(choice)
    columns, bound = ", ".join(COLUMNS), _bound(files) | values
    sql = f"CREATE TABLE chosen AS SELECT {columns} FROM {_FILES} {where}"  # noqa: S608 - names of columns
    duckdb_door.make(database, sql, bound)


def _chosen(database: Any) -> list[Row]:  # noqa: ANN401 - a connection of DuckDB
    """Return the chosen rows by time; of a run, those from when it was complete come first.

    Most columns are texts that many rows share: those of a run, and those of a cell. Each set of
    them is fetched once, which takes half of the time.
    """
    for table, names in _SHARED.items():
        duckdb_door.make(
            database,
            f"CREATE TABLE {table} AS SELECT row_number() OVER () - 1 AS {table}_number, *"  # noqa: S608 - names of columns
            f" FROM (SELECT DISTINCT {', '.join(names)} FROM chosen)",
        )
    sets = [
        duckdb_door.rows(
            database,
            f"SELECT * EXCLUDE {table}_number FROM {table} ORDER BY {table}_number",  # noqa: S608 - names of columns
        )
        for table in _SHARED
    ]
    joins = (
        f"JOIN {table} ON "
        + " AND ".join(f"chosen.{name} IS NOT DISTINCT FROM {table}.{name}" for name in names)
        for table, names in _SHARED.items()
    )
    own = (f"chosen.{name}" for name in _OF_A_ROW)
    found = duckdb_door.columns(
        database,
        f"SELECT {', '.join((*(f'{table}_number' for table in _SHARED), *own))}"  # noqa: S608 - names of columns
        f" FROM chosen {' '.join(joins)} ORDER BY chosen.started, chosen.run,"
        " chosen.complete DESC, chosen.place",
    )
    of_runs, of_cells = sets
    return [
        Row(*_IN_ORDER((*of_runs[run], *of_cells[cell], *own)))
        for run, cell, *own in zip(*(values.tolist() for values in found.values()), strict=True)
    ]


def _conditions(choice: Choice) -> tuple[str, dict[str, object]]:
    """Return a WHERE clause and its values."""
    parts: list[str] = []
    values: dict[str, object] = {}
    for sql, value in (
        ("started >= $v{n}", choice.since),
        ("machine = $v{n}", choice.machine),
        ("target IN (SELECT unnest($v{n}))", [*choice.targets]),
        ("(workload IN (SELECT unnest($v{n})) OR workload_class IN (SELECT unnest($v{n})))",
         [*choice.workloads]),
        ("run IN (SELECT unnest($v{n}))", [*choice.runs]),
    ):  # fmt: skip
        if value:
            parts.append(sql.format(n=len(values)))
            values[f"v{len(values)}"] = value
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _have_columns(database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of DuckDB
    """Return whether each of the files has the columns that isobench writes. duckdb.Error: one has
    not all of them.
    """
    # Read together, a file has NULL for what it lacks, and numbers as wide as those of the others.
    sql = "SELECT file_name, * EXCLUDE (file_name) FROM parquet_schema($files)"
    forms: dict[str, list[tuple[object, ...]]] = {}
    for name, *element in duckdb_door.rows(database, sql, _bound(files)):
        forms.setdefault(name, []).append(tuple(element))
    one_of_each = {tuple(form): name for name, form in forms.items()}
    return all(_has_columns(database, name) for name in one_of_each.values())


def _has_columns(database: Any, file: str) -> bool:  # noqa: ANN401 - a connection of DuckDB
    # A column of another type may still compare with texts and numbers, which are then cast.
    sql = f"DESCRIBE SELECT {', '.join(COLUMNS)} FROM {_FILES}"  # noqa: S608 - names of columns
    described = duckdb_door.rows(database, sql, _bound([file]))
    return {name: kind for name, kind, *_ in described} == COLUMNS


def _row_count(database: Any, files: Sequence[str]) -> int:  # noqa: ANN401 - a connection of DuckDB
    """Return how many rows files say that they have. None of these is read for it: a small file can
    have a column of any number of equal values.
    """
    groups = (
        "SELECT DISTINCT file_name, row_group_id, row_group_num_rows AS num_rows"
        " FROM parquet_metadata($files)"
    )
    counted = (
        # A number below zero would hide others.
        duckdb_door.row(database, f"SELECT coalesce(sum(abs(num_rows)), 0) {sql}", _bound(files))
        for sql in ("FROM parquet_file_metadata($files)", f"FROM ({groups})")
    )
    return max(int(count) for (count,) in counted)


def _is_swollen(database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of DuckDB
    """Return whether a column of files has texts that are longer on average than any text of a
    sound row, by what the files say of themselves. Where that is false, DuckDB's memory has a
    bound.
    """
    sql = (
        "SELECT count(*) FROM parquet_metadata($files)"  # noqa: S608 - a constant
        f" WHERE total_uncompressed_size > {2 * LONGEST_TEXT} * greatest(num_values, 1)"
    )
    (count,) = duckdb_door.row(database, sql, _bound(files))
    return bool(count)


def _searched(database: Any, files: Sequence[str]) -> int:  # noqa: ANN401 - a connection of DuckDB
    """Return how long the texts are that `_have_sound_rows` searches. Their lengths are found much
    faster than anything in them.
    """
    sql = f"SELECT coalesce(sum({_SIZE}), 0) FROM {_FILES}"  # noqa: S608 - names of columns
    (size,) = duckdb_door.row(database, sql, _bound(files))
    return int(size)


def _have_sound_rows(database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of DuckDB
    """Return whether all rows of files with these columns are such as isobench writes."""
    sql = f"SELECT count(*) FROM {_FILES} WHERE ({_SOUND}) IS NOT TRUE"  # noqa: S608 - a constant
    (count,) = duckdb_door.row(database, sql, _bound(files))
    return bool(count == 0)


def _are_own(database: Any, files: Sequence[str]) -> bool:  # noqa: ANN401 - a connection of DuckDB
    """Return whether sound files have the columns of this isobench alone and conditions that it can
    read, and are not too large to be read at once.
    """
    bound = _bound(files)
    described = duckdb_door.rows(database, f"DESCRIBE SELECT * FROM {_FILES}", bound)  # noqa: S608 - a constant
    if {name for name, *_ in described} != COLUMNS.keys():
        return False
    count, size = _count(database, files, Choice())
    if count > _MOST_CHOSEN or size > _MOST_TEXT:
        return False
    sql = f"SELECT DISTINCT conditions FROM {_FILES}"  # noqa: S608 - a constant
    return all(_are_conditions(text) for (text,) in duckdb_door.rows(database, sql, bound))


def _moved(name: str) -> str:
    return f"move it away, and add its runs again: mv {commands.path(name)} /tmp"


def _other_schema(folder: Path, oldest: int, newest: int) -> UsageError:
    if newest > SCHEMA:
        return UsageError(
            f"{folder} was written by a newer isobench (schema {newest}, this one has {SCHEMA})",
            hint="python3 -m pip install --upgrade isobench",
        )
    return UsageError(
        f"{folder} has runs of schema {oldest}, which this isobench no longer reads ({SCHEMA})",
        hint="add their runs to a new store: isobench history add RUN… --store DIR",
    )


def _run_of(row: Row) -> tuple[str, ...]:
    # Runs come from anywhere: one that has another's id does not take its place.
    return row.run, row.machine, row.started


def runs_of(rows: Iterable[Row]) -> list[list[Row]]:
    """Return rows by run, in their order."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(_run_of(row), []).append(row)
    return [*found.values()]
