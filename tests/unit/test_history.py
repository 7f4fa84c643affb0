"""The history: what is kept of a run, the store on the disk, series, change points, alarms."""

import contextlib
import errno
import gc
import json
import math
import os
import random
import shutil
import signal
import stat
import statistics
import struct
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import pytest

from isobench import stats
from isobench.cli import _gate, _progress
from isobench.config import held
from isobench.history import alarm, beside, duckdb_door, entry, search, series
from isobench.history import store as module
from isobench.history.alarm import Outcome
from isobench.history.row import Row
from isobench.history.store import Choice, Store, runs_of
from isobench.model.errors import UsageError
from isobench.report import history as words
from isobench.report import trend, write
from isobench.storage import reader
from isobench.storage.schema import History

pytest.importorskip("duckdb", reason="the extra history is not installed")

Run = Callable[..., Any]
Write = Callable[..., Path]
MACHINE = "0123456789ab"


def row(
    night: int = 0,
    ratio: float = 1.2,
    *,
    run: str = "",
    target: str = "docker",
    workload: str = "cpu.sieve",
    error: float = 0.002,
    kernel: str = "6.1",
    **others: Any,
) -> Row:
    """Return what a run of a night leaves in the store."""
    day = f"2026-{1 + night // 28:02}-{1 + night % 28:02}"
    mean = math.log(ratio)
    fields: dict[str, Any] = {
        "run": run or f"run-{night}",
        "started": f"{day}T02:00:00Z",
        "month": day[:7],
        "machine": MACHINE,
        "machine_name": "a CPU, 2 CPUs, 4 GiB",
        "complete": True,
        "quick": False,
        "conditions": json.dumps({"kernel": kernel, "schedule": "rounds"}),
        "place": 0,
        "target": target,
        "technology": "containerization",
        "version": "26.1",
        "options": "{}",
        "reference": "native",
        "workload": workload,
        "workload_class": workload.partition(".")[0],
        "program": "aa",
        "metric": "time",
        "unit": "seconds",
        "value": 1e-3 * ratio,
        "native": 1e-3,
        "mean": mean,
        "error": error,
        "deviation": 5 * error,
        "freedom": 20.0,
        "shared": 0.0,
        "low": math.exp(mean - 2.3 * error),
        "high": math.exp(mean + 2.3 * error),
        "level": 0.97,
        "blocks": 25,
        "sessions": 25,
        "noise": 0.003,
        "status": "slower",
        "doubts": "",
    }
    return Row(**(fields | others))


def nights(
    ratios: Sequence[float], *, spread: float = 0.004, seed: int = 1, **others: Any
) -> list[Row]:
    """Return a run a night around these ratios."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    return [
        row(night, ratio * math.exp(rng.gauss(0, spread)), **others)
        for night, ratio in enumerate(ratios)
    ]


# ---- what is kept of a run


def test_a_run_leaves_a_row_for_each_cell_with_its_conditions(synthetic: Write) -> None:
    host = {"cpu": "a CPU", "cpus": 2, "kernel": "6.1\n\tSMP", "memory_bytes": 4 << 30}
    path = synthetic({("docker", "cpu.sieve"): 1.5}, about={"host": host})
    rows = entry.rows_of(reader.load(path), link="here")
    (one,) = [each for each in rows if each.target == "docker"]
    assert one.mean == pytest.approx(math.log(1.5), abs=0.05)
    assert one.error is not None
    assert one.low is not None
    assert one.low < 1.5 < (one.high or 0)
    assert (one.link, one.machine_name) == ("here", "a CPU, 2 CPUs, 4 GiB")
    assert json.loads(one.conditions)["kernel"] == "6.1 SMP"
    assert not [each for each in rows if each.target.startswith("native")]


def test_a_cell_that_could_not_be_measured_leaves_its_cause(synthetic: Write) -> None:
    path = synthetic()
    gap = {"kind": "gap", "block": 15, "target": "box", "workload": "cpu.other"}
    plain = json.loads((path / "run.json").read_text())
    plain["workloads"].append(plain["workloads"][0] | {"name": "cpu.other"})
    (path / "run.json").write_text(json.dumps(plain))
    with (path / "records.jsonl").open("a") as file:
        file.write(json.dumps(gap | {"cause": "failed", "detail": "x", "hint": "y"}) + "\n")
    (one,) = [each for each in entry.rows_of(reader.load(path)) if each.workload == "cpu.other"]
    assert (one.status, one.mean) == ("failed", None)
    assert not series.counts(one)


def test_a_machine_is_its_cpu_cores_memory_and_hypervisor_and_not_its_kernel() -> None:
    host = {"cpu": "c", "machine": "x86_64", "cpus": 2, "memory_bytes": 4 << 30, "kernel": "6.1"}
    key = entry.machine_key(host)
    assert entry.machine_key(host | {"kernel": "6.2", "microcode": "2"}) == key
    assert entry.machine_key(host | {"memory_bytes": (4 << 30) - 5_000_000}) == key
    for other in ({"cpu": "d"}, {"cpus": 4}, {"memory_bytes": 8 << 30}, {"virtualization": "vm"}):
        assert entry.machine_key(host | other) != key


def test_a_run_that_measured_nothing_is_refused(synthetic: Write) -> None:
    path = synthetic(name="a run", about={"interrupted": True})
    (path / "records.jsonl").write_bytes(b"")
    with pytest.raises(UsageError, match="no block with a value") as caught:
        entry.rows_of(reader.load(path))
    assert caught.value.hint == f"isobench run --resume '{path}' continues it"
    packed = shutil.make_archive(str(path), "zip", path)
    with pytest.raises(UsageError, match="no block with a value") as caught:
        entry.rows_of(reader.load(Path(packed)))
    assert caught.value.hint.startswith("unpack the zip; then, with its folder, isobench run")


def test_a_run_that_ended_in_its_trial_is_begun_again(synthetic: Write, isobench: Run) -> None:
    path = synthetic(about={"interrupted": True})
    (path / "records.jsonl").write_bytes(b"")
    (path / "plan.json").unlink()
    with pytest.raises(UsageError, match="no block with a value") as caught:
        entry.rows_of(reader.load(path))
    assert caught.value.hint == "begin a new run: isobench run"
    assert caught.value.hint in isobench("run", "--resume", path).err


# ---- the store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "history")


def test_rows_come_back_as_they_were_added(store: Store) -> None:
    rows = [row(0, workload="cpu.sieve"), row(0, workload="io.fsync", place=1, mean=None)]
    assert store.add(rows)
    assert store.rows() == rows


def test_a_run_is_added_once(store: Store) -> None:
    assert store.add([row(0)])
    assert not store.add([row(0)])
    assert len(store.rows()) == 1


@pytest.mark.parametrize("other", [{"machine": "ffff"}, {}], ids=["machine", "time"])
def test_a_run_with_the_id_of_another_does_not_take_its_place(
    other: dict[str, Any], store: Store
) -> None:
    assert store.add([row(40, run="mine")])
    store.add([row(3, run="mine", **other)])
    assert row(40, run="mine") in store.rows()
    assert len(runs_of(store.rows())) == 2


def test_runs_are_chosen_by_time_machine_target_and_class(store: Store) -> None:
    store.add([row(0), row(0, workload="io.fsync", place=1), row(0, target="podman", place=2)])
    store.add([row(40)])
    store.add([row(41, machine="ffff")])
    assert {one.run for one in store.rows(Choice(since="2026-02-01T00:00:00Z"))} == {
        "run-40",
        "run-41",
    }
    assert {one.run for one in store.rows(Choice(machine="ffff"))} == {"run-41"}
    assert [one.target for one in store.rows(Choice(targets=("podman",)))] == ["podman"]
    assert [one.workload for one in store.rows(Choice(workloads=("io",)))] == ["io.fsync"]
    assert [one.run for one in store.rows(Choice(runs=("run-40",)))] == ["run-40"]


def test_many_runs_of_a_month_are_merged_and_none_is_lost(store: Store) -> None:
    for number in range(70):
        assert store.add([row(3, run=f"r{number:03}")])
    files = list(store.folder.rglob("*.parquet"))
    assert len(files) < 35
    assert sorted(one.run for one in store.rows()) == [f"r{number:03}" for number in range(70)]
    assert not store.add([row(3, run="r000")])  # it is in a merged file by now


def test_the_first_run_of_a_month_merges_the_months_before(store: Store) -> None:
    for night in range(5):
        store.add([row(night)])
    store.add([row(40)])
    months = {path.parent.name: path for path in store.folder.rglob("*.parquet")}
    assert len(list(store.folder.rglob("*.parquet"))) == len(months) == 2


def test_a_merge_that_was_killed_counts_no_run_twice(store: Store) -> None:
    store.add([row(1)])
    (one,) = store.folder.rglob("run-*.parquet")
    (one.parent / "runs-00.parquet").write_bytes(one.read_bytes())
    assert len(store.rows()) == 1


def test_an_add_that_is_killed_leaves_a_whole_store(tmp_path: Path) -> None:
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from isobench.history import store\n"
        "from tests.unit.test_history import row\n"
        "kept = store.Store(Path(sys.argv[1]))\n"
        "kept.add([row(0)])\n"
        "store.bounded.publish = lambda *_: os.kill(os.getpid(), 9)\n"
        "kept.add([row(1)])\n"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "s")],
        cwd=root, env=os.environ | {"PYTHONPATH": str(root)}, check=False,
    )  # fmt: skip
    assert done.returncode == -9
    kept = Store(tmp_path / "s")
    assert [one.run for one in kept.rows()] == ["run-0"]
    assert kept.add([row(1)])
    assert [one.run for one in kept.rows()] == ["run-0", "run-1"]


def test_runs_that_are_added_at_the_same_time_are_all_kept(store: Store) -> None:
    adders = [
        threading.Thread(target=store.add, args=([row(2, run=f"r{number}")],))
        for number in range(8)
    ]
    for one in adders:
        one.start()
    for one in adders:
        one.join()
    assert sorted(one.run for one in store.rows()) == [f"r{number}" for number in range(8)]


def test_a_reader_survives_a_merge_at_the_same_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in range(4):
        store.add([row(night)])
    answer = Store._answer
    calls = []

    def merging(self: Store, *words: Any) -> Any:
        if not calls:
            calls.append(1)
            (folder,) = {path.parent for path in self.folder.rglob("run-*.parquet")}
            self._merge(folder, list(folder.glob("run-*.parquet")))
        return answer(self, *words)

    monkeypatch.setattr(Store, "_answer", merging)
    assert len(store.rows()) == 4


def _written_by_others(path: Path, change: str) -> None:
    """Change the columns of a file of a store by what DuckDB writes after SELECT *."""
    made = path.with_name("made")
    duckdb_door.connection().execute(
        f"COPY (SELECT {change} FROM read_parquet('{path}', hive_partitioning = false))"  # noqa: S608 - a test's
        f" TO '{made}' (FORMAT parquet)"
    )
    made.replace(path)


UNSOUND = {
    "value": "* REPLACE (-1.0::DOUBLE AS value)",
    "text": "* REPLACE (chr(27) || '[2J' AS target)",
    "conditions": """* REPLACE ('{"kernel": 6}' AS conditions)""",
    "schema": "* REPLACE (2::BIGINT AS schema), 'x' AS further",
    "column": "*, 'x' AS further",
    "type": "* REPLACE (blocks::VARCHAR AS blocks)",
    "missing": "* EXCLUDE (status)",
    "missing number": "* EXCLUDE (mean, error)",
    "narrow": "* REPLACE (mean::FLOAT AS mean)",
    "narrow integer": "* REPLACE (blocks::INTEGER AS blocks)",
}
FORMS = [change for name, change in UNSOUND.items() if name in ("type", "missing") or " " in name]
FORMS.append(UNSOUND["narrow"])


@pytest.mark.parametrize("change", [*UNSOUND.values(), ""], ids=[*UNSOUND, "illegible"])
def test_a_file_that_is_not_as_isobench_writes_it_is_left_alone_by_a_merge(
    change: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOOSE", 2)
    store.add([row(3, run="strange")])
    (strange,) = store.folder.rglob("run-*.parquet")
    if change:
        _written_by_others(strange, change)
    else:
        strange.write_bytes(b"no Parquet at all")
    before = strange.read_bytes()
    for number in range(3):
        assert store.add([row(3, run=f"r{number}")])
        assert strange.exists()
    assert strange.read_bytes() == before
    (merged,) = strange.parent.glob("runs-*.parquet")
    assert set(strange.parent.glob("*.parquet")) == {strange, merged}
    strange.unlink()
    assert [one.run for one in store.rows()] == ["r0", "r1", "r2"]


@pytest.mark.parametrize("change", FORMS)
def test_a_file_without_all_columns_is_refused_by_name_beside_a_whole_one_too(
    change: str, store: Store
) -> None:
    store.add([row(3)])
    (strange,) = store.folder.rglob("run-*.parquet")
    _written_by_others(strange, change)
    said = []
    for run in ("", "whole"):
        if run:
            assert store.add([row(3, run=run)])
        with pytest.raises(UsageError) as caught:
            store.rows()
        said.append(str(caught.value))
    assert said[0] == said[1]
    assert str(strange) in said[0]


@pytest.mark.parametrize("part", ["month=2025-01", "month=2026-02", "2026-03"])
@pytest.mark.parametrize("since", ["", "2026-02-15T00:00:00Z"])
def test_a_folder_with_the_name_of_another_month_hides_no_run(
    part: str, since: str, store: Store
) -> None:
    store.add([row(0)])
    store.add([row(60)])
    month = next(store.folder.glob("machine=*/month=2026-03"))
    (file,) = month.rename(month.with_name(part)).glob("*")
    with pytest.raises(UsageError, match="not in the folder of its machine and month") as caught:
        store.rows(Choice(since=since))
    assert str(file) in str(caught.value)
    subprocess.run(caught.value.hint.partition(": ")[2], shell=True, check=True)  # noqa: S602 - ours
    assert [one.run for one in store.rows()] == ["run-0", "run-60"]


def test_a_folder_with_the_name_of_another_machine_hides_no_run(store: Store) -> None:
    store.add([row(0)])
    (machine,) = store.folder.glob("machine=*")
    machine.rename(machine.with_name("machine=ffff"))
    for key in ("", MACHINE, "ffff"):
        with pytest.raises(UsageError, match="not in the folder of its machine and month"):
            store.rows(Choice(machine=key))


def test_a_merge_leaves_a_file_alone_that_belongs_elsewhere(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOOSE", 2)
    store.add([row(0, run="elsewhere")])
    (strange,) = store.folder.rglob("run-*.parquet")
    store.add([row(60, run="r0")])
    moved = strange.rename(next(store.folder.glob("machine=*/month=2026-03")) / strange.name)
    for number in range(1, 4):
        assert store.add([row(60, run=f"r{number}")])
    assert moved.exists()
    assert any(str(moved) in why for why in store.unmerged)


def test_what_is_no_file_of_a_store_and_what_need_not_be_read_hides_nothing(store: Store) -> None:
    for night in (0, 60):
        store.add([row(night)])
    damaged = next(store.folder.glob("machine=*/month=2026-01")) / "run-x.parquet"
    damaged.write_bytes(b"no Parquet at all")
    other = store.folder / "mine" / "a"
    other.mkdir(parents=True)
    duckdb_door.connection().execute(f"COPY (SELECT 1 AS x) TO '{other}/run.parquet'")
    assert [one.run for one in store.rows(Choice(since="2026-02-15T00:00:00Z"))] == ["run-60"]


def test_no_row_is_read_of_a_file_that_says_it_has_too_many(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for night in (0, 60):
        store.add([row(night)])
    month = next(store.folder.glob("machine=*/month=2026-01"))
    many = "SELECT 'ffff' AS machine, '2020-01' AS month FROM range(1000)"
    duckdb_door.connection().execute(f"COPY ({many}) TO '{month}/run-x.parquet'")
    monkeypatch.setattr(module, "_MOST_ROWS", 100)
    # It is not where its rows belong, which nobody knows.
    assert [one.run for one in store.rows(Choice(since="2026-02-15T00:00:00Z"))] == ["run-60"]
    with pytest.raises(UsageError, match="1,002 rows of cells"):
        store.rows()


def lie(path: Path, change: str, fake: bytes, true: bytes) -> None:
    """Change a value of a file, and give the statistics of it another."""
    rows = path.with_suffix(".other")
    with duckdb_door.opened() as database:
        duckdb_door.copy(database, f"SELECT * REPLACE ({change}) FROM '{path}'", rows)  # noqa: S608 - a test's
    data = rows.read_bytes()
    rows.unlink()
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    assert true in data[footer:]
    path.write_bytes(data[:footer] + data[footer:].replace(true, fake))


@pytest.mark.parametrize(
    ("column", "value", "usual", "code"),
    [
        ("mean", 1e300, 0.01, "<d"), ("error", 1e200, 0.01, "<d"), ("level", 5.5, 0.97, "<d"),
        ("schema", 9, module.SCHEMA, "<q"),
    ],
)  # fmt: skip
def test_false_statistics_of_a_file_pass_no_check(
    column: str, value: float, usual: float, code: str, store: Store
) -> None:
    store.add([row(3)])
    (path,) = store.folder.glob("machine=*/month=*/run-*.parquet")
    kind = module.COLUMNS[column]
    change = f"{value!r}::{kind} AS {column}"
    lie(path, change, struct.pack(code, usual), struct.pack(code, value))
    with pytest.raises(UsageError):
        store.rows()


def test_a_merged_file_that_could_not_be_read_takes_no_others_place(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOOSE", 1)
    sound = module._have_sound_rows
    monkeypatch.setattr(
        module, "_have_sound_rows",
        lambda database, files: ".unfinished-" not in files[0] and sound(database, files),
    )  # fmt: skip
    for number in (1, 2, 3):
        assert store.add([row(3, run=f"r{number}")])
    assert len(runs_of(store.rows())) == 3
    assert any("are not merged" in why for why in store.unmerged)
    assert {path.name[:4] for path in store.folder.glob("machine=*/month=*/*")} == {"run-"}


@pytest.mark.parametrize("is_in_the_way", [False, True], ids=["illegible", "folder"])
def test_a_run_is_added_whatever_becomes_of_the_merge_after_it(
    is_in_the_way: bool, isobench: Run, synthetic: Write, store: Store
) -> None:
    store.add([row(3)])
    (damaged,) = store.folder.rglob("run-*.parquet")
    damaged.unlink()
    if is_in_the_way:
        damaged.mkdir()
    else:
        damaged.write_bytes(b"no Parquet at all")
    (machine,) = store.folder.glob("machine=*")
    path = synthetic({("docker", "cpu.sieve"): 1.5})
    own = entry.rows_of(reader.load(path))[0]
    # The months before the one of the run are merged, as it is the first of its month.
    month = machine.rename(machine.with_name(f"machine={own.machine}")) / damaged.parent.name
    store.add([row(4, machine=own.machine)])
    done = isobench("history", "add", path, "--store", store.folder)
    assert done.code == 0
    assert "1 run added" in done.out
    assert f"{month / damaged.name}" in done.err
    assert (month / damaged.name).exists()
    assert not isobench("history", "add", path, "--store", store.folder).err
    assert "had been added before" in isobench("history", "add", path, "--store", store.folder).out


def test_pruning_keeps_the_columns_of_a_newer_version(store: Store) -> None:
    for night in range(3):
        store.add([row(night)])
    (month,) = {path.parent for path in store.folder.rglob("run-*.parquet")}
    store._merge(month, sorted(month.glob("run-*.parquet")))
    (merged,) = month.glob("*.parquet")
    _written_by_others(merged, "*, 'x' AS further")
    assert store.prune(row(2).started) == 2
    found = duckdb_door.connection().sql(f"FROM '{merged}' SELECT run, further").fetchall()
    assert found == [("run-2", "x")]


def test_names_from_a_strangers_run_do_not_leave_the_store(store: Store) -> None:
    store.add([row(0, run="../../../etc/x; DROP TABLE 'y' --")])
    assert [one.run for one in store.rows()] == ["../../../etc/x; DROP TABLE 'y' --"]
    assert all(path.is_relative_to(store.folder) for path in store.folder.rglob("*"))
    with pytest.raises(UsageError, match="is no time"):
        store.add([row(0, run="b", month="../../x")])


def test_old_runs_are_pruned_and_the_others_stay(store: Store) -> None:
    for night in (1, 2, 40):
        store.add([row(night)])
    assert store.prune("2026-01-03T00:00:00Z") == 1
    assert [one.run for one in store.rows()] == ["run-2", "run-40"]
    assert store.prune("2026-02-01T00:00:00Z") == 1
    assert [one.run for one in store.rows()] == ["run-40"]


@pytest.mark.parametrize("ending", [".parquet", ".csv", ".jsonl"])
def test_rows_are_exported(ending: str, store: Store, tmp_path: Path) -> None:
    store.add([row(0), row(0, target="podman", place=1)])
    target = tmp_path / f"rows{ending}"
    assert store.export(target, Choice()) == 2
    found = duckdb_door.connection().execute(f"FROM '{target}' SELECT target, mean").fetchall()
    assert sorted(found) == [("docker", math.log(1.2)), ("podman", math.log(1.2))]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_link_stays_and_leads_to_the_export(store: Store, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link.jsonl").symlink_to("there")
    store.add([row(0)])
    assert store.export(tmp_path / "link.jsonl", Choice()) == 1
    assert (tmp_path / "link.jsonl").is_symlink()
    assert (tmp_path / "there").read_text().count("\n") == 1


def test_an_export_of_another_ending_is_refused(store: Store, tmp_path: Path) -> None:
    store.add([row(0)])
    with pytest.raises(UsageError, match=r"\.parquet, \.csv, \.jsonl"):
        store.export(tmp_path / "rows.xls", Choice())


def test_a_path_that_duckdb_cannot_have_is_refused_before_anything_is_made(
    isobench: Run, synthetic: Write, store: Store, tmp_path: Path
) -> None:
    place = tmp_path / os.fsdecode(b"a\xff")
    done = isobench("history", "add", synthetic(), "--store", place)
    assert done.code == 2
    assert "the path of a store must be UTF-8" in done.err
    assert "--store" in done.err
    assert not place.exists()
    store.add([row(0)])
    with pytest.raises(UsageError, match="must be UTF-8"):
        store.export(place / "rows.csv", Choice())


def test_a_folder_without_a_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no history"):
        Store(tmp_path).rows()
    (tmp_path / "letter.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        Store(tmp_path).add([row(0)])


@pytest.mark.parametrize(("schema", "words"), [(0, "no longer reads"), (99, "newer isobench")])
def test_a_store_of_another_schema_is_refused_and_left_alone(
    schema: int, words: str, store: Store
) -> None:
    store.add([row(0)])
    store.add([row(1, schema=schema)])
    before = sorted((path, path.stat().st_size) for path in store.folder.rglob("*.parquet"))
    with pytest.raises(UsageError, match=words):
        store.rows()
    assert sorted((p, p.stat().st_size) for p in store.folder.rglob("*.parquet")) == before


def test_a_damaged_file_is_named(store: Store) -> None:
    store.add([row(0)])
    store.add([row(1)])
    damaged = min(store.folder.rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with pytest.raises(UsageError, match=damaged.name):
        store.rows()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_that_cannot_be_written_is_an_error_with_a_hint(store: Store) -> None:
    store.add([row(0)])
    (month,) = {path.parent for path in store.folder.rglob("*.parquet")}
    month.chmod(stat.S_IRUSR | stat.S_IXUSR)
    try:
        with pytest.raises(UsageError, match="Permission denied") as caught:
            store.add([row(1)])
    finally:
        month.chmod(stat.S_IRWXU)
    assert "--store" in caught.value.hint
    assert [one.run for one in store.rows()] == ["run-0"]


def test_a_full_disk_is_an_error_with_a_hint_and_nothing_is_lost(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([row(0)])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.bounded, "publish", full)
    with pytest.raises(UsageError, match="No space left") as caught:
        store.add([row(1)])
    assert "df -h" in caught.value.hint
    monkeypatch.undo()
    assert [one.run for one in store.rows()] == ["run-0"]
    assert not [path for path in store.folder.rglob("*") if "unfinished" in path.name]


def test_a_store_that_could_not_be_begun_leaves_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module.bounded, "publish", full)
    with pytest.raises(UsageError, match="No space left"):
        Store(tmp_path / "new" / "store").add([row(0)])
    assert not [*tmp_path.iterdir()]
    monkeypatch.undo()
    began = Store(tmp_path / "store")
    began.add([row(0)])
    monkeypatch.setattr(module.bounded, "publish", full)
    with pytest.raises(UsageError, match="No space left"):
        began.add([row(40)])
    monkeypatch.undo()
    assert [one.name for one in began.folder.rglob("month=*")] == ["month=2026-01"]
    assert began.add([row(40)])


@pytest.fixture
def unsearched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let files have short texts only, and no text be searched."""
    monkeypatch.setattr(module, "_MOST_TEXT", 10_000)
    monkeypatch.setattr(module, "_have_sound_rows", lambda *_: pytest.fail("it was searched"))


def test_a_file_with_too_long_texts_is_named_before_they_are_searched(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.add([row(0)])
    many = [row(1, target=f"t-{number}", link="l" * 1000) for number in range(10)]
    store.add(many)
    request.getfixturevalue("unsearched")
    with pytest.raises(UsageError, match="texts of the rows are longer than") as caught:
        store.rows()
    assert f"{module._name('run-1')}.parquet" in str(caught.value)
    assert "mv " in caught.value.hint


def test_files_with_too_long_texts_together_are_too_many(
    store: Store, request: pytest.FixtureRequest
) -> None:
    for night in range(12):
        store.add([row(night, link="l" * 1000)])
    request.getfixturevalue("unsearched")
    with pytest.raises(UsageError, match="texts of the rows are longer than") as caught:
        store.rows()
    assert str(caught.value).startswith(f"{store.folder}:")
    assert "--since" in caught.value.hint


def test_a_damaged_file_does_not_let_the_texts_of_another_be_searched(
    store: Store, request: pytest.FixtureRequest
) -> None:
    store.add([row(1, target=f"t-{number}", link="l" * 1000) for number in range(10)])
    folder = next(store.folder.rglob("run-*.parquet")).parent
    (folder / "run-zzzz.parquet").write_bytes(b"PAR1 and no more")
    request.getfixturevalue("unsearched")
    with pytest.raises(UsageError, match="texts of the rows are longer than"):
        store.rows()


ENDLESS = "SELECT count(*) FROM range(1000000000000) AS one(n) WHERE hash(n) = 1"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_query_ends_with_an_interruption(
    number: signal.Signals, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    store.add([row(0)])
    monkeypatch.setattr(module, "_SOUND", f"({ENDLESS}) = 0")
    before = signal.signal(number, interrupt)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), number))
    try:
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            store.rows()
    finally:
        timer.cancel()
        signal.signal(number, before)
    monkeypatch.undo()
    assert len(store.rows()) == 1


@pytest.mark.parametrize("at", ["_trusting", "start"])
def test_an_interruption_while_a_query_begins_leaves_no_query(
    at: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DuckDB makes an error of its own of one, and ends the process if Python ends before it."""
    store.add([row(0)])
    monkeypatch.setattr(module, "_SOUND", f"({ENDLESS}) = 0")
    before, done = {*threading.enumerate()}, []
    place: Any = duckdb_door if at == "_trusting" else threading.Thread
    real = getattr(place, at)

    def interrupted(*arguments: Any) -> Any:
        found = real(*arguments)
        if not done:
            signal.raise_signal(signal.SIGINT)
            done.append(at)
        return found

    monkeypatch.setattr(place, at, interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.rows()
    assert done == [at]
    left = [one for one in {*threading.enumerate()} - before if one.name != "deadlines"]
    assert not [one for one in left if one.join(5) or one.is_alive()]


def test_a_query_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_door, "_LIMIT", 0.5)
    with contextlib.closing(duckdb_door.connection()) as database:
        with pytest.raises(UsageError, match="did not end within") as caught:
            duckdb_door.rows(database, ENDLESS)
        assert "--since" in caught.value.hint
        assert duckdb_door.row(database, "SELECT 1, 'a'") == (1, "a")


def test_all_rows_of_a_query_are_fetched_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duckdb_door, "_PART", 7)
    with contextlib.closing(duckdb_door.connection()) as database:
        found = duckdb_door.rows(database, "SELECT range FROM range(20) ORDER BY 1")
    assert [number for (number,) in found] == [*range(20)]


ODD = (
    "target=x", "machine=ffff", "quick=true", "started=2026-01-01", "mean=1", "~", "~/z", "file:",
    "-v", "it's", "a%20b", "s3://x", "http://x", "x.gz",
)  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_no_part_of_a_path_means_anything(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    kept = Store(Path(name))
    rows = [row(0), row(0, target="podman", place=1)]
    assert kept.add(rows)
    assert kept.rows() == rows
    kept.add([row(1)])
    kept.add([row(40)])  # merges
    assert kept.prune(row(1).started) == 1
    assert [one.run for one in kept.rows()] == ["run-1", "run-40"]
    for ending in (".parquet", ".csv", ".jsonl"):
        target = Path(name) / f"rows{ending}"
        assert kept.export(target, Choice()) == 2
        sql = "SELECT run, target, machine, quick::VARCHAR FROM"
        read = {".csv": "read_csv", ".jsonl": "read_json"}.get(ending, "read_parquet")
        found = duckdb_door.connection().execute(
            f"{sql} {read}($path, hive_partitioning = false)", {"path": duckdb_door.named(target)}
        )
        assert sorted(found.fetchall()) == [
            (run, "docker", MACHINE, "false") for run in ("run-1", "run-40")
        ]


def forbidden(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody look into a folder, as the mode of another user's does."""
    real = {name: getattr(Path, name) for name in ("iterdir", "lstat", "stat")}

    def refused(name: str) -> Callable[..., Any]:
        def call(self: Path, **options: Any) -> Any:
            if folder in (self.parents if name != "iterdir" else (self, *self.parents)):
                raise PermissionError(errno.EACCES, "Permission denied", str(self))
            return real[name](self, **options)

        return call

    for name in real:
        monkeypatch.setattr(Path, name, refused(name))


@pytest.mark.parametrize("part", ["", "machine", "month"])
@pytest.mark.parametrize("is_real", [True, False])
def test_no_part_of_a_store_that_cannot_be_read_is_left_out(
    part: str, is_real: bool, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.add([row(0)])
    store.add([row(1, machine="ffff")])
    month = next(store.folder.glob(f"machine={MACHINE}/month=*"))
    folder = {"": store.folder, "machine": month.parent, "month": month}[part]
    if not is_real:
        forbidden(folder, monkeypatch)
    elif os.geteuid() == 0:
        pytest.skip("root may read everywhere")
    else:
        folder.chmod(0)
    calls = (store.rows, lambda: store.export(tmp_path / "rows.csv", Choice()),
             lambda: store.prune("2030-01-01"))  # fmt: skip
    try:
        for call in calls:
            with pytest.raises(UsageError, match="Permission denied") as caught:
                call()
            assert str(folder) in str(caught.value)
            assert f"chmod -R u+rwX {folder}" in caught.value.hint or not part
    finally:
        monkeypatch.undo()
        folder.chmod(stat.S_IRWXU)
    assert not (tmp_path / "rows.csv").exists()
    assert store.exists
    assert len(store.rows()) == 2


def test_a_run_whose_confirmation_cannot_be_read_is_not_added_without_a_word(
    isobench: Run, synthetic: Write, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic()
    shutil.copytree(path, path / "confirm")
    status = held.Folder.status

    def refused(self: held.Folder, name: str) -> os.stat_result | None:
        if name.startswith("confirm/"):
            place = str(self.path / "confirm")
            raise PermissionError(errno.EACCES, "Permission denied", place)
        return status(self, name)

    monkeypatch.setattr(held.Folder, "status", refused)
    for command in (("history", "add", path, "--store", store.folder), ("pack", path)):
        done = isobench(*command)
        assert done.code == 2
        assert f"{path}/confirm cannot be read" in done.err


def test_a_pattern_of_runs_names_what_it_cannot_look_into(
    isobench: Run, synthetic: Write, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = synthetic(name="a/run")
    (tmp_path / "b").mkdir()
    forbidden(tmp_path / "b", monkeypatch)
    done = isobench("history", "add", f"{path.parents[1]}/*/run", "--store", store.folder)
    assert "1 run added" in done.out
    assert f"{tmp_path}/b cannot be read" in done.err


def test_the_mark_of_a_store_that_has_other_files_is_written_again(store: Store) -> None:
    store.add([row(0)])
    (store.folder / "trend.html").touch()
    (store.folder / module.MARKER).write_text("{")
    with pytest.raises(UsageError, match="is damaged") as caught:
        store.add([row(1)])
    assert "remove it, and add a run" in caught.value.hint
    (store.folder / module.MARKER).unlink()
    assert store.add([row(1)])
    assert [one.run for one in store.rows()] == ["run-0", "run-1"]


@pytest.mark.parametrize("name", ["machine=docker/month=2026-11", f"machine={MACHINE}/x"])
def test_other_folders_of_such_a_name_are_no_store(name: str, store: Store) -> None:
    (store.folder / name).mkdir(parents=True)
    (store.folder / "letter.txt").touch()
    with pytest.raises(UsageError, match="other files"):
        store.add([row(0)])


def test_without_duckdb_no_store_is_begun(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "duckdb", None)
    with pytest.raises(UsageError, match="needs DuckDB"):
        store.add([row(0)])
    assert not store.folder.exists()


def test_a_run_of_the_future_is_not_added(
    isobench: Run, synthetic: Write, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_now", lambda: datetime(2026, 1, 5, 12, tzinfo=UTC))
    assert store.add([row(5)])  # it began on 2026-01-06, at 02:00
    with pytest.raises(UsageError, match=r"2026-01-07T02:00:00Z.* 2026-01-05T12:00:00Z") as caught:
        store.add([row(6)])
    assert "clock" in caught.value.hint
    early = synthetic(name="early")
    late = synthetic(name="late", about={"id": "late", "started": "9999-12-31T23:59:59Z"})
    done = isobench("history", "add", late, early, "--store", store.folder)
    assert done.code == 2
    assert "9999-12-31T23:59:59Z" in done.err
    assert "1 run added" in done.out
    assert "late" not in {one.run for one in store.rows()}


# ---- series and change points


def test_a_level_that_changes_is_found_with_size_night_and_cause() -> None:
    before = nights([1.2] * 20)
    after = [
        msgspec.structs.replace(one, version="27.0", run=f"b{n}", started=f"2026-03-{n + 1:02}T0")
        for n, one in enumerate(nights([1.32] * 20, seed=2))
    ]
    (one,) = series.series_of([*before, *after])
    (point,) = one.change_points
    assert point.row.run == "b0"
    assert point.interval.low < 1.1 < point.interval.high
    assert point.is_worse
    assert point.changed == (series.Changed("docker", "26.1", "27.0"),)
    assert len(one.level) == 20


def test_a_steady_series_has_no_change_point_whatever_changes_on_the_machine() -> None:
    rows = [
        *nights([1.2] * 30, kernel="6.1"),
    ]
    rows = [
        msgspec.structs.replace(one, conditions=json.dumps({"kernel": "6.1" if n < 15 else "6.2"}))
        for n, one in enumerate(rows)
    ]
    (one,) = series.series_of(rows)
    assert one.change_points == ()
    assert one.changes == {"run-15": (series.Changed("kernel", "6.1", "6.2"),)}


def test_one_night_with_an_outlier_is_no_change_point() -> None:
    ratios = [1.2] * 30
    ratios[15] = 3.0
    (one,) = series.series_of(nights(ratios))
    assert one.change_points == ()


def alike(count: int, *, seed: int, correlation: float = 0.5) -> list[float]:
    """Return log-ratios of nights of which each is partly as the one before; they differ by 1 %."""
    rng = random.Random(seed)  # noqa: S311 - a simulation
    found = [rng.gauss(0, 0.01)]
    for _ in range(count - 1):
        own = rng.gauss(0, 0.01 * math.sqrt(1 - correlation**2))
        found.append(correlation * found[-1] + own)
    return found


def test_a_steady_series_whose_nights_are_alike_has_hardly_a_change_point() -> None:
    every = [nights([math.exp(one) for one in alike(60, seed=seed)]) for seed in range(20)]
    found = [len(series.series_of(rows)[0].change_points) for rows in every]
    assert sum(found) <= 2, "about twenty where nights count as independent"


def test_a_step_is_found_among_nights_that_are_alike() -> None:
    for seed in range(5):
        around = alike(60, seed=seed)
        ratios = [math.exp(one) * (1.06 if n >= 30 else 1.0) for n, one in enumerate(around)]
        (one,) = series.series_of(nights(ratios))
        assert any(abs(one.rows.index(point.row) - 30) <= 2 for point in one.change_points)


@pytest.mark.parametrize(
    ("correlation", "low", "high"), [(0.0, 0.0, 0.25), (0.5, 0.3, 0.7), (0.9, 0.4, 0.8)]
)
def test_the_autocorrelation_is_of_nights_and_not_of_their_level(
    correlation: float, low: float, high: float
) -> None:
    for step in (0.0, 0.5):
        values = [np.array(alike(400, seed=n, correlation=correlation)) for n in range(5)]
        found = [stats.autocorrelation(one + step * (np.arange(400) >= 200)) for one in values]
        assert low <= statistics.fmean(found) <= high
    assert stats.autocorrelation(np.ones(20)) == 0.0


def test_a_short_series_has_no_change_points() -> None:
    (one,) = series.series_of(nights([1.0] * 3 + [2.0] * 4))
    assert one.is_too_short
    assert one.change_points == ()


def test_other_options_and_machines_are_other_series() -> None:
    rows = [row(0), row(1, options='{"seccomp":"unconfined"}'), row(2, machine="ffff")]
    assert len(series.series_of(rows)) == 3


def test_quick_unproven_and_confirming_runs_do_not_count() -> None:
    rows = [row(0), row(1, quick=True), row(2, status="unproven"), row(3, confirms="run-0")]
    (one,) = series.series_of(rows)
    assert [each.run for each in one.rows] == ["run-0"]
    assert [each.run for each in one.again] == ["run-3"]
    assert len(one.others) == 2


# ---- alarms


def cells(night: int, ratio: float, *, seed: int, **others: Any) -> list[Row]:
    """Return a run of six cells, of which the first has this ratio; the others are steady."""
    rng = random.Random(100 * night + seed)  # noqa: S311 - a simulation
    names = ("cpu.sieve", "cpu.sha256", "syscall.getppid", "io.fsync", "io.metadata", "cpu.matmul")
    return [
        row(
            night, (ratio if not place else 1.2) * math.exp(rng.gauss(0, 0.003)),
            workload=name, place=place, **others,
        )
        for place, name in enumerate(names)
    ]  # fmt: skip


def test_a_slowdown_of_the_third_night_is_suspected_and_confirmed() -> None:
    past = [*cells(0, 1.2, seed=1), *cells(1, 1.2, seed=1, version="27.0")]
    tonight = cells(2, 1.5, seed=1, version="27.0")
    found = alarm.judge(tonight, past)
    assert [one.outcome for one in found] == [Outcome.REGRESSION] + [Outcome.UNCHANGED] * 5
    assert not any(one.is_alarm for one in found)
    again = cells(2, 1.5, seed=2, run="again", confirms="run-2")[:1]
    found = alarm.confirm(found, again, past)
    assert [one.is_alarm for one in found] == [True] + [False] * 5
    assert found[0].level == pytest.approx(1.2, rel=0.02)


def test_what_fresh_blocks_do_not_show_again_is_no_alarm() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    seen = beside.judged(cells(6, 1.5, seed=1), past)
    assert seen.findings[0].outcome is Outcome.REGRESSION
    again = cells(6, 1.2, seed=2, run="again", confirms="run-6")[:1]
    seen = beside.confirmed(seen, again, past)
    first = seen.findings[0]
    assert (first.outcome, first.confirmed) == (Outcome.INCONCLUSIVE, False)
    said = words.findings_headline(seen)
    assert "1 inconclusive (1 of them looked changed, and fresh blocks did not show" in said


@pytest.mark.parametrize("other", [{"program": "other"}, {"conditions": '{"schedule":"blocks"}'}])
def test_what_was_measured_in_another_way_refutes_nothing(other: dict[str, str]) -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1, program="same")]
    seen = beside.judged(cells(6, 1.5, seed=1, program="same"), past)
    for ratio in (1.2, 1.5):
        again = cells(6, ratio, seed=2, run="again", confirms="run-6", program="same")[:1]
        again = [msgspec.structs.replace(one, **other) for one in again]
        first = beside.confirmed(seen, again, past).findings[0]
        assert (first.outcome, first.confirmed) == (Outcome.REGRESSION, None)


def test_a_run_that_began_before_another_does_not_confirm_it() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    tonight = cells(6, 1.5, seed=1)
    for night, shown in ((5, None), (6, True), (7, True)):
        again = cells(night, 1.5, seed=2, run="again", confirms="run-6")[:1]
        seen = beside.of_store(tonight, [*past, *tonight, *again])
        assert seen.findings[0].confirmed is shown


@pytest.mark.parametrize("night", [14, 15])
def test_a_change_point_is_confirmed_by_no_run_from_before_it(night: int) -> None:
    rows = nights([1.2] * 15 + [1.5] * 15)
    rows.append(row(night, 1.5, run="again", confirms="run-15"))
    (one,) = series.series_of(rows)
    (point,) = one.change_points
    assert point.row.run == "run-15"
    assert point.confirmed is (True if night == 15 else None)


def test_two_runs_are_a_measure_where_other_cells_show_how_much_runs_differ() -> None:
    past = [one for night in range(3) for one in cells(night, 1.2, seed=1)]
    tonight = cells(3, 1.5, seed=1)
    for runs, own, is_enough in ((2, 6, True), (2, 2, True), (2, 1, False), (3, 1, True)):
        few = [
            one for one in past if one.place < own and one.run in ["run-0", "run-1", "run-2"][:runs]
        ]
        found = alarm.judge(tonight[:own], few)
        assert (found[0].outcome is not Outcome.TOO_FEW) is is_enough


def test_an_upgrade_without_effect_raises_nothing() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    found = alarm.judge(cells(6, 1.2, seed=1, version="27.0", kernel="6.9"), past)
    assert {one.outcome for one in found} == {Outcome.UNCHANGED}
    assert {change.what for change in found[0].changed} == {"docker", "kernel"}


def test_an_improvement_is_no_alarm() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    found = alarm.judge(cells(6, 1.0, seed=1), past)
    again = cells(6, 1.0, seed=2, run="again", confirms="run-6")
    found = alarm.confirm(found, again, past)
    assert found[0].outcome is Outcome.IMPROVEMENT
    assert found[0].confirmed
    assert not any(one.is_alarm for one in found)


@pytest.mark.parametrize("runs", [0, 1])
def test_too_few_runs_before_are_no_measure(runs: int) -> None:
    past = [one for night in range(runs) for one in cells(night, 1.2, seed=1)]
    found = alarm.judge(cells(6, 5.0, seed=1), past)
    assert {one.outcome for one in found} == {Outcome.TOO_FEW}


def test_another_program_or_schedule_begins_the_level_again() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    for other in ({"program": "bb"}, {"conditions": '{"schedule":"blocks"}'}):
        found = alarm.judge(cells(6, 5.0, seed=1, **other), past)
        assert {one.outcome for one in found} == {Outcome.TOO_FEW}


def test_a_run_is_held_beside_the_level_since_the_last_change_point() -> None:
    past = [one for night in range(30) for one in cells(night, 1.2 if night < 15 else 1.5, seed=1)]
    found = alarm.judge(cells(30, 1.5, seed=1), past)
    assert found[0].outcome is Outcome.UNCHANGED
    assert found[0].level == pytest.approx(1.5, rel=0.02)


def test_a_night_that_is_noisy_by_its_own_errors_needs_a_larger_difference() -> None:
    past = [one for night in range(6) for one in cells(night, 1.2, seed=1)]
    found = alarm.judge(cells(6, 1.26, seed=1, error=0.03, noise=0.05), past)
    assert found[0].outcome is Outcome.INCONCLUSIVE


def test_a_cell_is_unchanged_only_where_its_interval_says_so() -> None:
    past = [one for night in range(3) for one in cells(night, 1.2 + 0.1 * night, seed=1)]
    found = alarm.judge(cells(3, 1.6, seed=1), past)
    assert found[0].interval is not None
    assert found[0].interval.high > 1.05
    assert found[0].outcome is Outcome.INCONCLUSIVE


def test_one_outlying_night_does_not_hide_later_changes() -> None:
    past = [one for n in range(10) for one in cells(n, 1.8 if n == 4 else 1.2, seed=1)]
    seen = beside.judged(cells(10, 1.44, seed=1), past)
    found = seen.findings
    assert found[0].outcome is Outcome.REGRESSION
    assert found[0].level == pytest.approx(1.2, rel=0.01)
    assert [(one.runs, one.left_out) for one in found] == [(9, 1)] + [(10, 0)] * 5
    assert "9 of 10" in words.findings(seen).rows[0].cells
    left_out = [one["left_out"] for one in words.findings_document(seen)["cells"]]
    assert left_out == [1, 0, 0, 0, 0, 0]


@pytest.mark.parametrize("ratios", [[1.2] * 6 + [1.8], [1.2] * 7 + [1.8] * 3])
def test_runs_that_are_few_or_often_apart_are_all_of_the_level(ratios: list[float]) -> None:
    rows = nights(ratios)
    assert not any(stats.outliers([*map(series.location, rows)]))


def test_equal_nights_are_no_outliers_of_each_other() -> None:
    rows = [row(night, 1.2 if night else 1.204) for night in range(12)]
    assert not any(stats.outliers([*map(series.location, rows)]))


# ---- the commands


@pytest.mark.parametrize("is_merged", [False, True])
def test_a_complete_run_takes_the_place_of_its_own_beginning(
    store: Store, is_merged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MOST_LOOSE", 4)
    store.add([row(3, run="other")])
    store.add([row(3, run="mine", complete=False, blocks=3)])
    if is_merged:
        for number in range(10):
            store.add([row(3, run=f"r{number:03}")])
        assert not any(store.folder.rglob("run-mine*.parquet"))
    others = len(store.rows()) - 1
    assert not store.add([row(3, run="mine", complete=False, blocks=4)])
    assert not store.add([row(3, run="mine", started="2026-11-04T23:59:59Z")])
    whole = row(3, run="mine", blocks=9)
    assert store.add([whole])
    assert not store.add([whole])
    assert not store.add([row(3, run="mine", blocks=12)])
    found = store.rows()
    assert [one for one in found if one.run == "mine"] == [whole]
    assert len(found) == others + 1


class Killed(BaseException):
    """The end of the process at this place."""


class Steps:
    """Stand in for what changes a store, which is killed before, or after, one of its steps."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.left = at
        self.after = after
        self.publish = module.bounded.publish

    def __call__(self, made: Path, path: Path) -> None:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        self.publish(made, path)
        if self.left == 0:
            raise Killed


@pytest.mark.parametrize("is_merged", [False, True])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [1, 2])
def test_a_run_whose_replacement_is_killed_is_there_as_it_was_or_as_it_is(
    step: int, after: bool, is_merged: bool, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [row(3, run="mine", complete=False, blocks=3, place=n, target=f"t{n}") for n in range(3)]
    new = [row(3, run="mine", blocks=9, place=n, target=f"t{n}") for n in range(2)]
    store.add(old)
    store.add([row(3, run="other")])
    if is_merged:
        (month,) = {path.parent for path in store.folder.rglob("run-*.parquet")}
        store._merge(month, sorted(month.glob("run-*.parquet")))
    killed = False
    with monkeypatch.context() as patched:
        patched.setattr(module.bounded, "publish", Steps(step, after=after))
        try:
            store.add(new)
        except Killed:
            killed = True
    assert killed == (is_merged or step == 1)
    own = [one for one in store.rows() if one.run == "mine"]
    assert own == (old if step == 1 and not after else new)
    assert store.add(new) == (own == old)
    assert [one for one in store.rows() if one.run == "mine"] == new
    # The rows from before are gone from the disk as well when the files are merged.
    (month,) = {path.parent for path in store.folder.rglob("run*.parquet")}
    store._merge(month, sorted(month.glob("run*.parquet")))
    (merged,) = month.glob("run*.parquet")
    assert len(duckdb_door.connection().sql(f"FROM '{merged}'").fetchall()) == len(new) + 1


def test_a_file_of_a_run_without_rows_is_not_the_run(store: Store) -> None:
    store.add([row(3, complete=False)])
    (own,) = store.folder.rglob("run-*.parquet")
    store._keep(own, "run <> ?", "run-3")  # as an older version did before it wrote the new rows
    assert store.rows() == []
    assert store.add([row(3)])
    assert store.rows() == [row(3)]
    assert not store.add([row(3)])


@pytest.mark.parametrize(
    "why",
    [
        'IO Error: Async write failed: {"exception_message":"Could not write","errno":"28"}',
        'IO Error: Could not write file "x": No space left on device',
    ],
)
def test_a_disk_on_which_only_a_little_fits_is_full(why: str, tmp_path: Path) -> None:
    class Full:
        def execute(self, *_: object) -> None:
            raise duckdb_door.library().IOException(why)

    with pytest.raises(OSError, match="No space left on device") as caught:
        duckdb_door.copy(cast("Any", Full()), "SELECT 1", tmp_path / "x.parquet")
    assert caught.value.errno == errno.ENOSPC


def test_what_is_not_read_later_is_not_added(store: Store) -> None:
    with pytest.raises(UsageError, match="no text"):
        store.add([row(0, conditions='{"kernel": "6.1\\nsmp"}')])
    assert store.add([row(0)])
    assert len(store.rows()) == 1


@pytest.fixture
def three_nights(store: Store) -> Store:
    """Return a store whose third night has a slowdown, confirmed by fresh blocks."""
    for night in range(2):
        store.add(cells(night, 1.2, seed=1))
    store.add(cells(2, 1.5, seed=1))
    store.add(cells(2, 1.5, seed=2, run="again", confirms="run-2")[:1])
    return store


def test_the_newest_run_is_shown_beside_those_before(isobench: Run, three_nights: Store) -> None:
    done = isobench("history", "show", "--store", three_nights.folder, "--export-json", "-")
    assert done.code == 0
    shown = json.loads(done.out)
    outcomes = {one["workload"]: (one["outcome"], one["confirmed"]) for one in shown["cells"]}
    assert outcomes.pop("cpu.sieve") == ("regression", True)
    assert {outcome for outcome, _ in outcomes.values()} == {"unchanged"}


def test_a_confirmed_regression_has_an_exit_code_when_it_is_a_failure(
    isobench: Run, three_nights: Store
) -> None:
    done = isobench("history", "show", "--store", three_nights.folder, "--fail-on", "regression")
    assert done.code == 1
    assert "docker" in done.out
    earlier = ("run-1", "--store", three_nights.folder, "--fail-on", "regression")
    assert isobench("history", "show", *earlier).code == 0


def printed(isobench: Run, store: Store, *words: str) -> tuple[str, str, str]:
    """Return what `show` and `trend` close with, and the top of the page of the trend."""
    place = ("--store", store.folder, "--export-json", "-")
    page = store.folder.parent / "trend.html"
    shown = json.loads(isobench("history", "show", *place).out)["headline"]
    words = (*words, *(("--since", "2000-01-01") if "--since" not in words else ()))
    done = isobench("history", "trend", *place, *words, "-o", page)
    assert done.code == 0, done.err
    top = page.read_text().partition('<ul class="answers">')[2].partition("</ul>")[0]
    return shown, json.loads(done.out)["headline"], " ".join(top.split())


def test_the_trend_says_of_the_newest_run_what_show_says(
    isobench: Run, three_nights: Store
) -> None:
    shown, closing, top = printed(isobench, three_nights)
    change = "1 confirmed regression: docker cpu.sieve 1.20x -> 1.50x"
    assert change in shown
    assert f"since the run before: {change}" in closing
    assert "Since the run before: 1 confirmed regression: docker cpu.sieve 1.20" in top
    assert "unchanged" not in closing


def yearly(count: int) -> list[Row]:
    """Return a run every third night of about a year, so many of them."""
    return [row(3 * night, 1.2) for night in range(count)]


@pytest.mark.parametrize(
    ("past", "since"),
    [
        (yearly(30), ""),  # too few: all count
        (nights([1.2] * 300), "2026-05-30T02:00:00Z"),  # half a year has enough
        (yearly(100), "2026-05-09T02:00:00Z"),  # half a year has 56: the newest 60 count
    ],
    ids=["few", "nightly", "every third night"],
)
def test_a_run_is_compared_with_half_a_year_or_with_enough_runs(
    past: list[Row], since: str
) -> None:
    newest = row(305, 1.2)
    other = [msgspec.structs.replace(one, quick=True) for one in nights([1.2] * 200)]
    assert alarm.base_since(newest, [*other, *past, newest]) == since


def test_the_newest_run_needs_no_more_rows_than_half_a_year_has() -> None:
    rows = nights([1.2] * 200)

    def older(machine: str, since: str) -> list[Row]:
        raise AssertionError(machine, since)

    half = [one for one in rows if one.started >= "2026-01-05"]
    (found,) = beside.newest(half, since="2026-01-05", older=older)
    (whole,) = beside.newest(rows)
    assert found.findings == whole.findings
    assert whole.findings[0].runs == alarm.MOST_BASE


def test_the_newest_run_of_a_store_with_few_runs_is_compared_with_all_of_them() -> None:
    rows, asked = yearly(10), list[tuple[str, str]]()

    def older(machine: str, since: str) -> list[Row]:
        asked.append((machine, since))
        return rows

    (found,) = beside.newest(rows[-2:], since="2026-01-20", older=older)
    assert asked == [(MACHINE, "")]
    assert found.findings[0].runs == 9


def gap(night: int, cause: str, **others: Any) -> Row:
    """Return a cell that could not be measured."""
    numbers = ("value", "native", "mean", "error", "deviation", "freedom", "shared", "low", "high")
    found = row(night, status=cause, blocks=0, sessions=0, **others)
    return msgspec.structs.replace(found, **dict.fromkeys(numbers))


def test_a_cell_that_failed_or_vanished_or_is_unproven_is_named_by_show_and_by_the_trend(
    isobench: Run, store: Store
) -> None:
    for night in range(3):
        store.add(cells(night, 1.2, seed=1))
    same = cells(3, 1.2, seed=1)
    failed = gap(3, "timed-out", workload=same[0].workload, place=0)
    unproven = msgspec.structs.replace(same[1], status="unproven")
    store.add([failed, unproven, *same[3:]])
    shown, closing, top = printed(isobench, store)
    for text in (
        "1 cell unproven in this run: docker cpu.sha256",
        "1 cell failed in this run: docker cpu.sieve",
        "1 cell of the run before is not in this one: docker syscall.getppid",
    ):
        assert text in shown
        assert text in closing
        assert text in top
    assert "nothing" not in closing
    listed = json.loads(
        isobench("history", "show", "--store", store.folder, "--export-json", "-").out
    )["missing"]
    assert listed == [{"target": "docker", "workload": "syscall.getppid", "metric": "time"}]


def test_cells_that_were_not_chosen_are_a_part_of_the_measure_and_not_of_the_sentence(
    isobench: Run, three_nights: Store
) -> None:
    _, closing, _ = printed(isobench, three_nights, "--workloads", "io")
    assert "since the run before: nothing" in closing
    _, closing, _ = printed(isobench, three_nights, "--workloads", "cpu.sieve")
    assert "1 confirmed regression: docker cpu.sieve 1.20x -> 1.50x" in closing
    # Nor are the runs before a part of the choice.
    _, closing, _ = printed(isobench, three_nights, "--since", "2026-01-03")
    assert "1 confirmed regression: docker cpu.sieve 1.20x -> 1.50x" in closing


def test_what_could_not_be_measured_before_is_no_news_and_a_failure_is(store: Store) -> None:
    past = [one for night in range(3) for one in cells(night, 1.2, seed=1)]
    for cause, text in (
        ("not-applicable", "nothing"),
        ("unavailable", "nothing"),
        ("failed", "1 cell failed in this run: wine cpu.sieve"),
        ("unproven", "1 cell unproven in this run: wine cpu.sieve"),
    ):
        rows = [*past, gap(2, cause, target="wine", place=9)]
        rows += [*cells(3, 1.2, seed=1), gap(3, cause, target="wine", place=9)]
        (one,) = words.news(series.series_of(rows), beside.newest(rows))
        assert words.news_text(one) == f"since the run before: {text}"
    rows = [*past, *cells(3, 1.2, seed=1)[1:], gap(3, "unavailable")]
    (one,) = words.news(series.series_of(rows), beside.newest(rows))
    assert words.news_text(one).endswith("1 cell not measured in this run: docker cpu.sieve")


def test_the_run_before_is_of_the_same_machine_and_no_quick_one() -> None:
    past = [one for night in range(3) for one in cells(night, 1.2, seed=1)]
    past += cells(3, 1.2, seed=1, quick=True)[:1]
    past += cells(4, 1.2, seed=1, machine="ffff", target="podman")
    past += cells(4, 1.2, seed=2, run="again", confirms="run-2", target="crun")
    one = beside.judged(cells(5, 1.2, seed=1)[:4], past)
    assert [row.workload for row in one.missing] == ["io.metadata", "cpu.matmul"]
    assert not one.is_first
    # A gap is of all metrics of its cell; options and versions make no cell another one.
    peak = row(4, run="before", metric="peak", place=7)
    tonight = [*cells(5, 1.2, seed=1, options='{"a":"b"}')[1:], gap(5, "failed")]
    assert not beside.judged(tonight, [*past, *cells(4, 1.2, seed=1, run="before"), peak]).missing


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ("javascript:alert(1)", "not an address of http or https"),
        ("/srv/runs/1", "not an address"),
        ("https://ci.example/" + "x" * 2000, "longer than 2000 characters"),
    ],
)
def test_a_link_is_a_short_address_of_the_web(
    link: str, why: str, isobench: Run, synthetic: Write, tmp_path: Path
) -> None:
    done = isobench("history", "add", synthetic(), "--store", tmp_path / "s", "--link", link)
    assert done.code == 2
    assert why in done.err
    assert not (tmp_path / "s").exists()


def test_runs_are_added_one_by_one_and_those_that_cannot_be_used_are_named(
    isobench: Run, synthetic: Write, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [synthetic(name=f"r{number}", about={"id": f"r{number}"}) for number in range(4)]
    (paths[1] / "records.jsonl").write_bytes(b"")
    (paths[2] / "run.json").write_text("{")
    load, loaded, known = reader.load, [], []

    def watched(path: Path, part: str = "") -> Any:
        gc.collect()
        assert not [run for run in loaded if run() is not None]  # no run before it is kept
        known.append(len(store.rows()) if store.exists else 0)
        run = load(path, part)
        loaded.append(weakref.ref(run.samples))
        return run

    monkeypatch.setattr(reader, "load", watched)
    done = isobench("history", "add", *paths, "--store", store.folder)
    assert done.code == 2
    assert "2 runs added" in done.out
    assert "2 runs cannot be used" in done.out
    assert f"{paths[1]} has no block with a value" in done.err
    assert f"{paths[2]}: run.json" in done.err
    each = len(store.rows()) // 2
    assert known == [0, each, each, each]
    assert {one.run for one in store.rows()} == {"r0", "r3"}


def test_a_run_is_added_without_its_confirmation_that_cannot_be_used(
    isobench: Run, synthetic: Write, store: Store
) -> None:
    path = synthetic(about={"id": "first"})
    shutil.copytree(path, path / "confirm")
    (path / "confirm" / "records.jsonl").write_bytes(b"")
    done = isobench("history", "add", path, "--store", store.folder)
    assert done.code == 2
    assert f"{path}/confirm has no block with a value" in done.err
    assert {one.run for one in store.rows()} == {"first"}


def test_an_export_that_cannot_be_written_leaves_a_regression_its_exit_code(
    isobench: Run, three_nights: Store, tmp_path: Path
) -> None:
    words = ("history", "show", "--store", three_nights.folder, "--export-csv", "/dev/full")
    words += ("--export-markdown", tmp_path / "show.md")
    assert isobench(*words).code == 2
    assert (tmp_path / "show.md").is_file()
    assert isobench(*words, "--fail-on", "regression").code == 1


def test_of_runs_with_one_id_one_alone_is_shown(isobench: Run, three_nights: Store) -> None:
    begun = {"run": "run-2", "machine": "ffff", "machine_name": "a smaller one", "complete": False}
    three_nights.add(cells(2, 1.5, seed=3, **begun))
    words = ("history", "show", "run-2", "--store", three_nights.folder, "--export-json", "-")
    done = isobench(*words)
    assert "2 runs have the id 'run-2'" in done.err
    assert "a smaller one" in done.err
    keys = [(one["target"], one["workload"]) for one in json.loads(done.out)["cells"]]
    assert len(keys) == len({*keys})
    assert "a smaller one" not in done.out


def test_a_run_that_the_store_does_not_have_is_an_error(isobench: Run, three_nights: Store) -> None:
    done = isobench("history", "show", "nothing", "--store", three_nights.folder)
    assert done.code == 2
    assert "has no run 'nothing'" in done.err


def test_advised_commands_name_the_store_of_the_command(
    isobench: Run, store: Store, tmp_path: Path
) -> None:
    place = tmp_path / "my runs"
    own = f"--store '{place}'"
    done = isobench("history", "list", "--store", place)
    assert f"isobench history add RUN {own} begins one" in done.words
    store.add([row(0)])
    store.folder.rename(place)
    done = isobench("history", "show", "nothing", "--store", place)
    assert f"isobench history list {own}" in done.words
    done = isobench("history", "trend", "--store", place, "--since", "1d")
    assert f"isobench history list --since 2000-01-01 {own} shows all" in done.words
    isobench("history", "prune", "--before", "2999-01-01", "--store", place)
    done = isobench("history", "show", "--store", place)
    assert f"isobench history add RUN {own}" in done.words


def test_advised_commands_name_no_store_where_it_is_the_users_own(isobench: Run) -> None:
    done = isobench("history", "list")
    assert "isobench history add RUN begins one" in done.words


def test_advised_commands_of_the_history_are_printed_as_isobench_was_called(
    isobench: Run, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = str(tmp_path / "bin" / "isobench")
    monkeypatch.setattr(_progress, "program", lambda: called)
    done = isobench("history", "add", "nope", "--store", store.folder)
    assert f"name the folder that `{called} run` printed" in done.words
    done = isobench("history", "list", "--store", store.folder)
    assert f"{called} history add RUN" in done.words


def test_a_link_stays_and_leads_to_the_page(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("there")
    trend.write(tmp_path / "link", series.series_of([row(0)]), beside.newest([row(0)]), "here")
    assert (tmp_path / "link").is_symlink()
    assert "<html" in (tmp_path / "there").read_text()


def test_the_trend_is_the_same_as_of_the_series(isobench: Run, store: Store) -> None:
    changed = nights([1.2] * 20 + [1.5] * 20)
    for pair in zip(changed, nights([1.1] * 40, workload="io.fsync", seed=3), strict=True):
        store.add(pair)
    options = ("--store", store.folder, "--since", "2000-01-01", "--export-json", "-")
    done = isobench("history", "trend", *options)
    shown = json.loads(done.out)["series"]
    own = series.series_of(store.rows())
    assert {one["workload"]: len(one["change_points"]) for one in shown} == {
        "cpu.sieve": 1, "io.fsync": 0,
    }  # fmt: skip
    (point,) = [point for one in shown for point in one["change_points"]]
    assert [point["run"]] == [found.row.run for one in own for found in one.change_points]


def rendered(rows: Sequence[Row]) -> str:
    """Return the page of the trend of these rows."""
    return trend.render(series.series_of(rows), beside.newest(rows), "here")


def test_the_page_of_a_store_without_a_run_that_counts_says_so() -> None:
    page = rendered([row(0, quick=True)])
    assert "No run counts: quick runs" in page
    assert "Each figure shows" not in page
    assert "No run counts" not in rendered([row(0)])


def test_a_first_run_is_not_compared_with_a_run_before() -> None:
    (first, second) = nights([1.2, 1.21])
    alone = rendered([first])
    assert "The first run here" in alone
    assert "ince the run before" not in alone
    assert "The run as a table" in alone
    assert ">2026-" in alone
    assert 'class="line bar' in alone  # one run has no band: its interval is a line
    both = rendered([first, second])
    assert "Since the run before: 1 cell with fewer than 2 runs before" in both
    assert "Since the run before: nothing." in rendered(
        [one for night in range(4) for one in cells(night, 1.2, seed=1)]
    )
    assert "All 2 runs as a table" in both
    assert 'class="line bar' not in both


def test_a_search_beside_finds_what_the_search_here_finds() -> None:
    rows = nights([1.2] * 20 + [1.5] * 20)
    values = np.array([one.mean for one in rows])
    asked = [(values, 0.002), (values[:3], 0.002), (values[:0], 0.0)]
    with search.beside() as searcher:
        assert searcher(asked) == search.here(asked) == [[20], [], []]
        assert searcher(asked[:1]) == [[20]]


def test_a_search_beside_that_ends_early_is_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    values = np.array([one.mean for one in nights([1.2] * 20 + [1.5] * 20)])
    with search.beside() as searcher:
        for _ in range(2):
            assert searcher([(values, 0.002)]) == [[20]]


def test_a_search_beside_runs_nothing_of_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("open('ran', 'w')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")  # as `python -m` has it
    monkeypatch.setattr(search, "here", lambda _: pytest.fail("it ended early"))
    values = np.array([one.mean for one in nights([1.2] * 20 + [1.5] * 20)])
    with search.beside() as searcher:
        assert searcher([(values, 0.002)]) == [[20]]
    assert not (tmp_path / "ran").exists()


def test_a_search_beside_imports_from_where_this_process_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ruptures.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    with search.beside() as searcher:
        assert searcher([(np.array([1.2]), 0.002)]) == [[]]
    assert (tmp_path / "ran").exists()


# ---- a run beside its history, on its page and in the exports


def compared(path: Path, **others: Any) -> None:
    """Write history.json into the folder of a run: one cell has changed, one has not."""
    changed = {
        "target": "box", "workload": "cpu.sieve", "metric": "time", "outcome": "regression",
        "confirmed": True, "before": 1.1, "runs": 9, "now": 2.0, "change": 1.8,
        "interval": [1.7, 1.9], "changed": [{"what": "box", "before": "1", "after": "2"}],
    } | others  # fmt: skip
    same = {"target": "box", "workload": "io.fsync", "metric": "time", "outcome": "unchanged"}
    found = {"schema_version": 1, "cells": [changed, same], "headline": "box 1.10x -> 2.00x."}
    # With all keys, as isobench writes it.
    whole = msgspec.json.encode(msgspec.convert(found, History))
    (path / "history.json").write_bytes(whole)


def test_the_page_and_the_summary_show_what_has_changed(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    path = synthetic({("box", "cpu.sieve"): 2.0, ("box", "io.fsync"): 1.0})
    compared(path)
    assert isobench("report", path, "-q").code == 0
    page = (path / "report.html").read_text()
    section = page.partition('<section id="since"')[2].partition("</section>")[0]
    assert "confirmed regression" in section
    assert 'href="#cell-box-cpu.sieve"' in section
    assert "io.fsync" not in section
    assert "## Since the runs before" in (path / "summary.md").read_text()
    kept = json.loads((path / "summary.json").read_text())["history"]
    assert [one["outcome"] for one in kept["cells"]] == ["regression", "unchanged"]


def test_a_run_names_the_cells_of_the_run_before_that_it_does_not_have(
    synthetic: Write, isobench: Run, store: Store
) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.5})
    rows = entry.rows_of(reader.load(path))
    day = {"run": "before", "started": "2001-01-02T03:04:05Z", "month": "2001-01"}
    before = [msgspec.structs.replace(one, **day) for one in rows]
    store.add([*before, msgspec.structs.replace(before[0], target="gone", place=len(before))])
    options = {"store": store.folder, "confirm": False}
    _gate.beside_history(write.answer(path, path), options, lambda _: None, lambda _: None)
    kept = json.loads((path / "history.json").read_text())
    (name,) = (f"gone {one.workload}" for one in before[:1])
    assert kept["missing"] == [
        {"target": "gone", "workload": before[0].workload, "metric": before[0].metric}
    ]
    assert f"1 cell of the run before is not in this one: {name}." in kept["headline"]
    assert isobench("report", path, "-q").code == 0
    assert f"is not in this one: {name}." in (path / "summary.md").read_text()


def test_a_run_that_was_not_compared_has_no_such_section(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    path = synthetic()
    isobench("report", path, "-q")
    assert 'id="since"' not in (path / "report.html").read_text()


@pytest.mark.parametrize(("confirmed", "failures"), [(True, 1), (None, 0), (False, 0)])
def test_only_a_confirmed_regression_is_a_failure_of_junit(
    confirmed: bool | None, failures: int, synthetic: Write, isobench: Callable[..., Any]
) -> None:
    path = synthetic({("box", "cpu.sieve"): 2.0, ("box", "io.fsync"): 1.0})
    compared(path, confirmed=confirmed)
    text = isobench("report", path, "-q", "--export-junit", "-").out
    suite = text.partition('name="history"')[2].partition(">")[0]
    assert 'tests="2"' in suite
    assert f'failures="{failures}"' in suite


def test_a_damaged_history_of_a_run_is_named(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    path = synthetic()
    other = (
        '{"cells": [{"target": "%s", "workload": "%s", "metric": "time", "outcome": "unproven"}]}'
    )
    foreign = (other % ("elsewhere", "cpu.sieve"), other % ("box", "cpu.elsewhere"))
    for content in ("{", '{"cells": 5}', '{"cells": [{"target": 1}]}', *foreign):
        (path / "history.json").write_text(content)
        done = isobench("report", path, "-q")
        assert done.code == 2
        assert "history.json" in done.err
