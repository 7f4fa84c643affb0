"""The folder of a run: what is written can be read, and damage is reported."""

import contextlib
import dataclasses
import errno
import fcntl
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.config import bounded, held
from isobench.model import BlockHealth, Cause, Gap, Leaving, Sample, Technology
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.storage import lock, reader, records, writer
from isobench.storage.schema import TargetState
from tests import whole

GAP = Gap(
    block=2,
    target=TargetName("box"),
    workload=WorkloadName("cpu.sieve"),
    cause=Cause.TIMED_OUT,
    detail='not done after 60 s: "quoted"\nand a second line é',
    hint="isobench doctor",
)
LEAVING = Leaving(block=5, target=TargetName("box"), workload=WorkloadName("cpu.sieve"), share=0.25)
HEALTH = BlockHealth(
    block=1,
    seconds=1.5,
    steal_percent=None,
    pressure_percent=3.0,
    swapped_in_pages=None,
    throttled=0,
    clock_source="tsc",
)
Write = Callable[..., Path]


def zipped(folder: Path, target: Path, prefix: str = "") -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*")):
            archive.write(path, prefix + str(path.relative_to(folder)))
    return target


def test_records_are_read_as_they_were_written(
    tmp_path: Path, a_sample: Callable[..., Sample]
) -> None:
    samples = [a_sample(1, "native", "cpu.sieve", 5, iteration=i) for i in range(3)]
    folder = writer.RunFolder(tmp_path / "run")
    for sample in samples:
        folder.write(sample)
    folder.write(GAP)
    folder.write(LEAVING)
    folder.close()
    found = records.read((tmp_path / "run" / "records.jsonl").read_bytes())
    frame = found.samples
    assert (found.gaps, found.leavings) == ((GAP,), (LEAVING,))
    assert not found.damage.reasons
    assert list(frame.columns) == list(records.COLUMNS)
    for row, sample in zip(frame.to_dict("records"), samples, strict=True):
        assert row == {name: getattr(sample, name) for name in records.COLUMNS}


@pytest.mark.parametrize("share", [0.0, -0.5, 1.5])
def test_a_leaving_out_of_its_budget_is_damage(share: float, tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.write(dataclasses.replace(LEAVING, share=share))
    folder.close()
    folder = writer.RunFolder(tmp_path)
    folder.write(GAP)
    folder.close()
    found = records.read((tmp_path / "records.jsonl").read_bytes())
    (first,) = found.damage.first()
    assert first.startswith("records.jsonl:1: ")
    assert "share" in first
    assert found.damage.may_hide_leavings


def test_what_a_newer_version_writes_beside_in_a_line_is_ignored() -> None:
    line = {"kind": "gap", **dataclasses.asdict(GAP), "x": 1}
    found = records.read(json.dumps(line).encode() + b"\n")
    assert (found.gaps, found.damage.reasons) == ((GAP,), {})


def test_the_session_of_a_record_is_read_and_an_older_record_has_none(
    tmp_path: Path, a_sample: Callable[..., Sample]
) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.write(dataclasses.replace(a_sample(1, "box", "cpu.sieve", 5), session=3))
    folder.close()
    path = tmp_path / "records.jsonl"
    line = json.loads(path.read_text())
    del line["session"]
    path.write_text(path.read_text() + json.dumps(line | {"block": 2}) + "\n")
    frame = records.read(path.read_bytes()).samples
    assert frame["session"].tolist() == [3, 0]


def test_a_run_knows_the_highest_session_of_each_target(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    made = [
        dataclasses.replace(a_sample(block, "box", "cpu.sieve", 5), session=session)
        for block, session in ((1, 1), (2, 4), (3, 2))
    ]
    assert reader.load(synthetic(samples=made)).sessions == {
        "box": 4,
        "native": 0,
        "native#2": 0,
    }
    path = synthetic(name="empty")
    (path / "records.jsonl").write_bytes(b"")
    assert reader.load(path).sessions == {}


def test_every_record_is_one_line_with_its_kind(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.write(GAP)
    folder.write(GAP)
    folder.close()
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["kind"] for line in lines] == ["gap", "gap"]


def test_synced_records_are_on_disk_before_the_folder_is_closed(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.write(GAP)
    folder.sync()
    assert records.read((tmp_path / "records.jsonl").read_bytes()).gaps == (GAP,)
    folder.close()


def visit_of(a_sample: Callable[..., Sample], block: int) -> list[Sample]:
    """Return a visit of more bytes than one page of a disk has."""
    return [a_sample(block, "native", "cpu.sieve", 5, iteration=i) for i in range(100)]


def write_visit(folder: writer.RunFolder, visit: list[Sample]) -> None:
    for sample in visit:
        folder.write(sample)
    folder.sync()


class FullDisk:
    """os.write on a disk that has room for some bytes more."""

    def __init__(self, room: int) -> None:
        self.room = room

    def __call__(self, descriptor: int, data: bytes | memoryview) -> int:
        written = min(len(data), self.room, 4096)
        if not written:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.room -= written
        return REAL_WRITE(descriptor, data[:written])


REAL_WRITE = os.write


def test_a_visit_for_which_the_disk_has_no_room_leaves_nothing_and_is_not_lost(
    tmp_path: Path, a_sample: Callable[..., Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "records.jsonl"
    folder = writer.RunFolder(tmp_path)
    write_visit(folder, visit_of(a_sample, 1))
    before = path.read_bytes()
    monkeypatch.setattr(os, "write", FullDisk(9000))
    with pytest.raises(UsageError, match="No space left") as caught:
        write_visit(folder, visit_of(a_sample, 2))
    assert "--resume" in caught.value.hint
    assert path.read_bytes() == before
    with pytest.raises(UsageError, match="No space left"):
        folder.sync()
    assert path.read_bytes() == before
    monkeypatch.undo()
    folder.close()
    assert records.read(path.read_bytes()).samples["block"].tolist() == [1] * 100 + [2] * 100


@pytest.mark.parametrize("interrupted_after", [0, 1, 2])
def test_a_signal_while_a_visit_is_written_repeats_no_line_of_it(
    interrupted_after: int,
    tmp_path: Path,
    a_sample: Callable[..., Sample],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []

    def interrupted(descriptor: int, data: memoryview) -> int:
        written = REAL_WRITE(descriptor, data[:4096])
        calls.append(written)
        if len(calls) > interrupted_after:
            raise KeyboardInterrupt
        return written

    folder = writer.RunFolder(tmp_path)
    write_visit(folder, visit_of(a_sample, 1))
    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_visit(folder, visit_of(a_sample, 2))
    monkeypatch.undo()
    folder.close()
    found = records.read((tmp_path / "records.jsonl").read_bytes())
    assert (len(found.samples), found.damage.reasons) == (200, {})


@pytest.mark.parametrize("at_a_line_end", [False, True])
def test_a_visit_that_a_kill_cut_off_is_taken_out_on_resume_and_no_other(
    at_a_line_end: bool, tmp_path: Path, a_sample: Callable[..., Sample]
) -> None:
    path = tmp_path / "records.jsonl"
    folder = writer.RunFolder(tmp_path)
    write_visit(folder, visit_of(a_sample, 1))
    write_visit(folder, visit_of(a_sample, 2))
    whole = path.read_bytes()
    write_visit(folder, visit_of(a_sample, 3))
    folder.close()
    lines = path.read_bytes()[len(whole) :].splitlines(keepends=True)
    path.write_bytes(whole + b"".join(lines[:60]) + (b"" if at_a_line_end else lines[60][:16]))
    writer.RunFolder(tmp_path).close()
    assert path.read_bytes() == whole


def test_a_first_visit_that_a_kill_cut_off_costs_its_last_line_alone(
    tmp_path: Path, a_sample: Callable[..., Sample]
) -> None:
    # Without a complete write there is no telling it from a file that another program has written.
    path = tmp_path / "records.jsonl"
    folder = writer.RunFolder(tmp_path)
    write_visit(folder, visit_of(a_sample, 1))
    folder.close()
    whole = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole[:60]) + whole[60][:16])
    writer.RunFolder(tmp_path).close()
    assert path.read_bytes() == b"".join(whole[:60])


def test_a_last_line_that_a_crash_cut_off_is_dropped(synthetic: Write) -> None:
    path = synthetic()
    whole = reader.load(path)
    records = path / "records.jsonl"
    records.write_bytes(records.read_bytes()[:-7])
    cut = reader.load(path)
    assert len(cut.samples) == len(whole.samples) - 1


def test_a_run_without_records_is_read(tmp_path: Path, synthetic: Write) -> None:
    path = synthetic()
    (path / "records.jsonl").write_bytes(b"")
    run = reader.load(path)
    assert run.gaps == ()
    assert list(run.samples.columns) == list(records.COLUMNS)
    assert run.samples.empty


def test_a_run_that_ended_before_its_plan_is_read(synthetic: Write) -> None:
    path = synthetic()
    (path / "plan.json").unlink()
    run = reader.load(path)
    assert (run.plan.blocks, run.plan.reference, run.plan.seed) == ((), "native", 1)


def test_a_damaged_line_is_left_out_with_its_block_and_reported_with_its_place(
    synthetic: Write,
) -> None:
    path = synthetic()
    whole = reader.load(path)
    lines = (path / "records.jsonl").read_bytes().splitlines(keepends=True)
    place = next(at for at, line in enumerate(lines) if b'"block":3' in line) + 1
    lines[place] = lines[place][:10] + b"\n"
    (path / "records.jsonl").write_bytes(b"".join(lines))
    run = reader.load(path)
    assert len(run.samples) == len(whole.samples) - 1
    assert run.losses.lines == 1
    assert run.losses.first[0].startswith(f"records.jsonl:{place + 1}: ")
    assert run.losses.blocks == run.uncounted == {3}


@pytest.mark.parametrize("name", ["run.json", "plan.json"])
def test_a_damaged_document_is_reported_with_a_hint(name: str, synthetic: Write) -> None:
    path = synthetic()
    (path / name).write_text("{]\n")
    with pytest.raises(UsageError, match=str(path)) as caught:
        reader.load(path)
    assert caught.value.hint


@pytest.mark.parametrize(
    "text", ["[]", "7", "null", '{"schema_version": 1}', '{"schema_version": 1, "seed": "x"}']
)
def test_a_document_of_another_shape_is_reported_with_a_hint(text: str, synthetic: Write) -> None:
    path = synthetic()
    (path / "plan.json").unlink()
    (path / "run.json").write_text(text)
    with pytest.raises(UsageError):
        reader.load(path)


def test_an_unknown_cause_is_reported(synthetic: Write) -> None:
    path = synthetic()
    with (path / "records.jsonl").open("a") as file:
        file.write(
            '{"kind":"gap","block":1,"target":"box","workload":"w","cause":"bored",'
            '"detail":"","hint":""}\n'
        )
    assert "bored" in reader.load(path).losses.first[0]


def test_a_newer_format_is_refused_with_both_versions(synthetic: Write) -> None:
    path = synthetic(about={"schema_version": 2})
    with pytest.raises(UsageError, match="format 2, this isobench reads 1"):
        reader.load(path)


def test_a_folder_that_is_not_a_run_is_refused_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no run\.json") as caught:
        reader.load(tmp_path)
    assert "isobench-results/latest" in caught.value.hint


@pytest.mark.parametrize("prefix", ["", "20240102T030405Z-abcdef/", "a/b/"])
def test_a_zip_of_a_run_is_read_like_its_folder(
    prefix: str, tmp_path: Path, synthetic: Write
) -> None:
    path = synthetic(gaps=[GAP], invalid=frozenset({2}), states={"box": {"status": "available"}})
    folder, archive = (
        reader.load(path),
        reader.load(zipped(path, tmp_path / "run.zip", prefix)),
    )
    assert archive.samples.equals(folder.samples)
    assert archive.metadata == folder.metadata
    assert archive.plan == folder.plan
    assert archive.gaps == folder.gaps == (GAP,)
    assert archive.states == folder.states == {"box": TargetState(status="available")}
    assert archive.invalid_blocks == folder.invalid_blocks == frozenset({2})


def test_user_mode_linux_of_an_old_run_is_read_as_paravirtual_where_its_kind_is_certain(
    synthetic: Write,
) -> None:
    old = Technology.VIRTUALIZATION
    names = ("uml", "mine", "uml-small", "fake", "kvm")
    path = synthetic(
        {(name, "cpu.sieve"): 1.0 for name in names if name != "fake"},
        unmeasured=("fake",),
        classes=dict.fromkeys(names, old),
        states={name: {"class": old} for name in names},
        about={
            # "fake" has the kind of a virtual machine, and its name only resembles uml's.
            "config": {"targets": {"mine": {"kind": "uml"}, "fake": {"kind": "kvm"}}},
            "variations": [
                {"name": "uml-small", "base": "uml", "option": "memory", "value": "64MiB"}
            ],
        },
    )
    run = reader.load(path)
    new = Technology.PARAVIRTUAL
    wanted = {"uml": new, "mine": new, "uml-small": new, "fake": old, "kvm": old}
    assert {name: state.technology for name, state in run.states.items()} == wanted
    read = {entry.name: entry.technology for entry in run.metadata.targets}
    assert read == {"native": Technology.NATIVE, **wanted}


def test_a_target_called_uml_of_another_kind_keeps_its_technology(synthetic: Write) -> None:
    path = synthetic(
        {("uml", "cpu.sieve"): 1.0},
        classes={"uml": Technology.VIRTUALIZATION},
        about={"config": {"targets": {"uml": {"kind": "kvm"}}}},
    )
    (_, entry) = reader.load(path).metadata.targets
    assert entry.technology is Technology.VIRTUALIZATION


def test_a_zip_without_a_run_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("photo.txt", "a cat")
    with pytest.raises(UsageError, match=r"holds no run\.json"):
        reader.load(tmp_path / "other.zip")


def test_a_zip_with_a_damaged_member_is_refused(tmp_path: Path, synthetic: Write) -> None:
    archive = zipped(synthetic(), tmp_path / "run.zip")
    data = bytearray(archive.read_bytes())
    place = data.find(b'"kind":"sample"')
    data[place : place + 4] = b"XXXX"
    archive.write_bytes(data)
    with pytest.raises(UsageError, match=r"run\.zip"):
        reader.load(archive)


def test_the_health_of_blocks_is_read_with_the_discarded_blocks(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    for block in (1, 2):
        broken = ("a rule",) if block == 2 else ()
        folder.health(
            dataclasses.replace(HEALTH, block=block, broken_rules=broken), valid=block == 1
        )
    folder.document("run.json", whole.run({}))
    folder.close()
    run = reader.load(tmp_path)
    assert [(h.block, h.broken_rules) for h in run.health] == [(1, ()), (2, ("a rule",))]
    assert run.invalid_blocks == frozenset({2})


@pytest.mark.parametrize("change", ["removed", "replaced", "moved"])
def test_records_that_are_removed_or_replaced_are_missed_after_the_block_and_kept(
    change: str, tmp_path: Path
) -> None:
    path, copy = tmp_path / "records.jsonl", tmp_path / "copy"
    folder = writer.RunFolder(tmp_path)
    folder.write(GAP)
    folder.sync()
    folder.health(HEALTH, valid=True)
    if change == "removed":
        path.unlink()
    elif change == "replaced":
        shutil.copy(path, copy)
        copy.replace(path)
    else:
        shutil.copy(path, copy)
        path.rename(tmp_path / "backup")
        copy.rename(path)
    folder.write(GAP)
    folder.sync()
    with pytest.raises(UsageError, match="removed or replaced while") as caught:
        folder.health(dataclasses.replace(HEALTH, block=2), valid=True)
    folder.close()
    lines = (tmp_path / "state" / "blocks.jsonl").read_text().splitlines()
    assert [json.loads(line)["valid"] for line in lines] == [True, False]
    rescued = tmp_path / "records.rescued.jsonl"
    assert records.read(rescued.read_bytes()).gaps == (GAP, GAP)
    assert f"mv {rescued} {path}" in caught.value.hint


def test_a_log_is_cut_at_its_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "MOST_LOG", 100)
    folder = writer.RunFolder(tmp_path)
    for _ in range(20):
        folder.log("box", b"y" * 30 + b"\n")
    folder.close()
    assert 90 <= (tmp_path / "logs" / "box.log").stat().st_size <= 101


def test_empty_output_leaves_no_log(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.log("box", b" \n")
    folder.close()
    assert list((tmp_path / "logs").iterdir()) == []


def made_latest(parent: Path, name: str) -> None:
    folder = writer.create(parent, name)
    folder.make_latest()
    folder.close()


def test_latest_points_at_a_new_run(tmp_path: Path) -> None:
    for name in ("first", "second"):
        made_latest(tmp_path, name)
        assert (tmp_path / "latest").resolve() == tmp_path / name
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first", "latest", "second"]


def test_latest_follows_a_run_that_was_removed(tmp_path: Path) -> None:
    (tmp_path / "latest").symlink_to("removed")
    made_latest(tmp_path, "run")
    assert (tmp_path / "latest").resolve() == tmp_path / "run"


def test_a_folder_named_by_the_user_does_not_change_latest(tmp_path: Path) -> None:
    writer.create(tmp_path, "id", exact=tmp_path / "mine").close()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_file_called_latest_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "latest").write_text("precious")
    made_latest(tmp_path, "run")
    assert (tmp_path / "latest").read_text() == "precious"


def test_a_link_called_latest_that_leads_to_no_run_stays(tmp_path: Path) -> None:
    (tmp_path / "v1").mkdir()
    (tmp_path / "latest").symlink_to("v1")
    made_latest(tmp_path, "run")
    assert (tmp_path / "latest").resolve() == tmp_path / "v1"


def test_a_run_that_ended_before_it_began_leaves_no_folder(tmp_path: Path) -> None:
    folder = writer.create(tmp_path, "run")
    folder.log("box", b"text")
    folder.remove_unbegun()
    folder.close()
    assert [*tmp_path.iterdir()] == []


def test_only_what_isobench_created_is_removed_before_a_run_begins(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("precious")
    folder = writer.create(tmp_path, "id", exact=tmp_path)
    folder.remove_unbegun()
    folder.close()
    assert [path.name for path in tmp_path.iterdir()] == ["notes"]


def test_folders_that_were_there_before_a_run_begins_stay(tmp_path: Path) -> None:
    (tmp_path / "run" / "logs").mkdir(parents=True)
    (tmp_path / "run" / "logs" / "mine.log").write_text("precious")
    (tmp_path / "run" / "records.jsonl").touch()
    folder = writer.create(tmp_path, "run")
    folder.remove_unbegun()
    folder.close()
    assert (tmp_path / "run" / "logs" / "mine.log").read_text() == "precious"


def test_a_run_that_has_begun_is_not_removed(tmp_path: Path) -> None:
    folder = writer.create(tmp_path, "run")
    folder.document("run.json", {})
    folder.remove_unbegun()
    folder.close()
    assert (folder.path / "records.jsonl").exists()


def test_a_folder_in_which_a_run_was_killed_before_it_began_is_used(tmp_path: Path) -> None:
    writer.create(tmp_path, "run").close()
    writer.create(tmp_path, "run").close()
    (tmp_path / "run" / "run.json").write_text("{}")
    with pytest.raises(UsageError, match="holds a run already"):
        writer.create(tmp_path, "run")


def test_a_folder_with_a_run_is_refused(synthetic: Write) -> None:
    path = synthetic()
    before = (path / "records.jsonl").read_bytes()
    with pytest.raises(UsageError, match="holds a run already") as caught:
        writer.create(path.parent, "x", exact=path)
    assert "--output" in caught.value.hint
    assert (path / "records.jsonl").read_bytes() == before


def test_a_folder_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="Not a directory") as caught:
        writer.create(tmp_path, "x", exact=tmp_path / "file" / "run")
    assert "--output" in caught.value.hint


def test_a_document_is_replaced_completely_and_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path)
    folder.document("run.json", {"a": 1})
    folder.document("run.json", {"b": Cause.FAILED})
    folder.close()
    assert json.loads((tmp_path / "run.json").read_text()) == {"b": "failed"}
    assert (tmp_path / "run.json").stat().st_mode & 0o777 == 0o644
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["logs", "records.jsonl", "run.json", "state"]


def test_text_beyond_ascii_is_written_in_any_locale(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys; from isobench.storage import documents;"
        "documents.write_text(pathlib.Path(sys.argv[1]), '1.03 \\u00d7 native')"
    )
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run(
        [sys.executable, "-c", program, tmp_path / "summary.md"],
        check=True,
        env={**os.environ, **plain},
    )
    assert (tmp_path / "summary.md").read_bytes() == "1.03 \u00d7 native".encode()


def test_the_csv_of_a_run_has_a_line_for_every_sample(synthetic: Write) -> None:
    run = reader.load(synthetic(blocks=2))
    lines = records.csv(run.samples).splitlines()
    assert lines[0] == ",".join(records.COLUMNS)
    assert len(lines) == 1 + len(run.samples) > 1


def test_a_run_can_be_moved(tmp_path: Path, synthetic: Write) -> None:
    path = synthetic()
    before = reader.load(path)
    moved = Path(shutil.move(path, tmp_path / "elsewhere"))
    assert reader.load(moved).samples.equals(before.samples)


# ---- one writer


WRITER = """
import sys, time
from pathlib import Path
from isobench.storage import writer
folder = writer.RunFolder(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


@pytest.fixture
def written(synthetic: Write) -> Iterator[tuple[Path, "subprocess.Popen[str]"]]:
    """A run that another process writes to."""
    path = synthetic()
    other = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )
    with other:
        assert other.stdout is not None
        assert other.stdout.readline() == "locked\n"
        yield path, other
        other.kill()


def test_a_second_writer_is_refused_with_the_process_id_of_the_first(
    written: tuple[Path, "subprocess.Popen[str]"],
) -> None:
    path, other = written
    before = (path / "records.jsonl").read_bytes()
    for refused in (lambda: writer.RunFolder(path), lambda: lock.check_idle(path)):
        with pytest.raises(
            UsageError, match=f"still being measured: process {other.pid} writes"
        ) as caught:
            refused()
        assert f"kill -INT {other.pid}" in caught.value.hint
        assert f"isobench run --resume {path}" in caught.value.hint
    assert lock.writer_of(path) == f"process {other.pid}"
    assert (path / "records.jsonl").read_bytes() == before


def test_a_run_that_is_still_measured_can_be_read(
    written: tuple[Path, "subprocess.Popen[str]"],
) -> None:
    assert not reader.load(written[0]).samples.empty


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_process_that_ends_in_any_way_releases_its_run(
    number: signal.Signals, written: tuple[Path, "subprocess.Popen[str]"]
) -> None:
    path, other = written
    other.send_signal(number)
    other.wait()
    assert lock.writer_of(path) == ""
    lock.check_idle(path)
    writer.RunFolder(path).close()


def test_a_writer_whose_process_id_cannot_be_seen_is_another_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = writer.RunFolder(tmp_path)
    for text in ("", "1: FLOCK ADVISORY WRITE 77 00:00:1 0 EOF\n2: -> FLOCK\n"):
        (tmp_path / "locks").write_text(text)
        monkeypatch.setattr(lock, "_LOCKS", tmp_path / "locks")
        assert lock.writer_of(tmp_path) == "another process"
    monkeypatch.setattr(lock, "_LOCKS", tmp_path / "none")
    with pytest.raises(UsageError, match="another process writes"):
        writer.RunFolder(tmp_path)
    folder.close()


def test_a_writer_waits_for_a_reader_that_checks_the_lock(tmp_path: Path) -> None:
    writer.RunFolder(tmp_path).close()
    with (tmp_path / "records.jsonl").open("rb") as reader:
        fcntl.flock(reader, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(reader, fcntl.LOCK_UN)).start()
        writer.RunFolder(tmp_path).close()


def test_without_file_locks_a_run_continues_and_reports_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    folder = writer.RunFolder(tmp_path)
    assert folder.unlocked == "No locks available"
    assert lock.writer_of(tmp_path) == ""
    folder.close()


# ---- damage


def damaged(path: Path, change: Callable[[list[bytes]], None]) -> reader.Run:
    lines = (path / "records.jsonl").read_bytes().splitlines(keepends=True)
    change(lines)
    (path / "records.jsonl").write_bytes(b"".join(lines))
    return reader.load(path)


def test_a_repeated_sample_is_damage_with_its_line(synthetic: Write) -> None:
    run = damaged(synthetic(gaps=[GAP]), lambda lines: lines.extend(lines[-3:-1]))
    assert run.losses.lines == 2
    assert "repeats the sample of line" in run.losses.first[0]
    assert run.losses.blocks == {15}


def test_a_repeated_sample_is_found_after_gaps_and_with_another_value(synthetic: Write) -> None:
    path = synthetic(gaps=[GAP, GAP], pilot=False)
    whole = reader.load(path)
    first = json.loads((path / "records.jsonl").read_bytes().splitlines()[0])
    line = json.dumps(first | {"value": 77, "at": 99.5}).encode() + b"\n"
    run = damaged(path, lambda lines: lines.append(line))
    total = len((path / "records.jsonl").read_bytes().splitlines())
    assert f"records.jsonl:{total}: repeats the sample of line 1 (block 1" in run.losses.first[0]
    assert run.samples.equals(whole.samples)
    assert run.uncounted == {1}


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"operations": 0}, "operations"),
        ({"value": 1 << 70}, "out of range|value"),
        ({"value": 1.5}, "value"),
    ],
)
def test_an_impossible_number_is_damage_with_its_line(
    change: dict[str, Any], why: str, synthetic: Write
) -> None:
    def put(lines: list[bytes]) -> None:
        lines[2] = json.dumps(json.loads(lines[2]) | change).encode() + b"\n"

    (message,) = damaged(synthetic(), put).losses.first
    assert "records.jsonl:3: " in message
    assert re.search(why, message)


def test_a_document_is_on_the_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, seen = tmp_path / "plan.json", list[tuple[bytes, bool]]()

    def fsync(descriptor: int) -> None:
        made = Path(f"/proc/self/fd/{descriptor}").readlink()
        seen.append((b"" if made.is_dir() else made.read_bytes(), path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    bounded.replace(path, b"{}")
    assert seen == [(b"{}", False), (b"", True)]


def test_a_disk_that_is_full_is_an_error_with_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left") as caught:
        bounded.replace(tmp_path / "plan.json", b"{}")
    assert caught.value.filename == str(tmp_path / "plan.json")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("name", ["state/blocks.jsonl", "logs/box.log"])
def test_a_full_disk_is_an_error_with_the_file_that_was_appended_to(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = writer.RunFolder(tmp_path / "run")
    monkeypatch.setattr(writer, "_appending", lambda *_: io.FileIO("/dev/full", "wb"))
    with pytest.raises(UsageError, match=re.escape(f"{folder.path / name}: No space")) as caught:
        if name.startswith("logs"):
            folder.log("box", b"a word")
        else:
            folder.health(HEALTH, valid=True)
    assert "--resume" in caught.value.hint
    folder.close()


# ---- the command that resumes a run --------------------------------------------------------------


@pytest.fixture
def begun(
    synthetic: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., reader.Run]:
    """Return a function that reads an incomplete run, `my run` in the working folder."""
    monkeypatch.chdir(tmp_path)

    def read(*argv: str, **about: Any) -> reader.Run:
        shutil.rmtree("my run", ignore_errors=True)
        about = {"interrupted": True, "argv": ["run", *argv], **about}
        synthetic(name="my run", about=about)
        return reader.load(Path("my run"))

    return read


def test_a_run_is_resumed_in_its_folder_by_whatever_name_it_has_now(
    begun: Callable[..., reader.Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert begun("-o", "my run").resume_command == "isobench run --resume 'my run'"
    again = begun("-o", "elsewhere", resumed_by=[["run", "--resume", str(tmp_path / "my run")]])
    assert again.resume_command == "isobench run --resume 'my run'"
    (tmp_path / "there").mkdir()
    monkeypatch.chdir(tmp_path / "there")
    assert reader.load(tmp_path / "my run").resume_command == (
        f"isobench run --resume '{tmp_path}/my run'"
    )


def test_a_run_that_was_moved_is_not_resumed_as_another(begun: Callable[..., reader.Run]) -> None:
    moved = begun("-o", "elsewhere")
    assert moved.resume_command == ""
    # Whoever has just measured there is told to, all the same.
    assert moved.continuing_command == "isobench run --resume 'my run'"


def test_only_the_latest_run_of_this_working_folder_is_resumed_without_its_name(
    begun: Callable[..., reader.Run], tmp_path: Path
) -> None:
    run = begun()
    (tmp_path / "latest").symlink_to("my run")  # beside it, where --resume does not look
    assert run.resume_command == ""
    (tmp_path / "isobench-results").mkdir()
    (tmp_path / "isobench-results" / "latest").symlink_to("../my run")
    assert run.resume_command == "isobench run --resume"


def test_what_finds_targets_and_workloads_is_named_again(
    begun: Callable[..., reader.Run], tmp_path: Path
) -> None:
    given = ("-o", "my run", "--config", "c d.toml", "--workload-folder", "-w", "--margin", "3%")
    # The targets are in run.json; a pipe of --config <(command) is gone.
    assert begun(*given).resume_command == ("isobench run --resume 'my run' --workload-folder=-w")
    (tmp_path / "c d.toml").touch()
    run = reader.load(Path("my run"))
    wanted = "isobench run --resume 'my run' --config 'c d.toml' --workload-folder=-w"
    assert (run.resume_command, run.continuing_command) == (wanted, wanted)
    assert run.way_on == f"{wanted} continues it"


def test_a_full_disk_names_a_command_that_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "my run"
    argv = ("run", "-o", "my run", "--workload-folder", "own")
    with contextlib.closing(writer.create(tmp_path, "", exact=path, argv=argv)) as folder:
        monkeypatch.setattr(held.Folder, "replace", full)
        with pytest.raises(UsageError, match=re.escape(f"{path}/run.json: No space")) as caught:
            folder.document("run.json", {})
        assert caught.value.hint == "make room, or choose another folder with --output"
        (path / "plan.json").touch()
        with pytest.raises(UsageError, match="No space") as caught:
            folder.document("run.json", {})
    assert caught.value.hint == (
        "what was measured is kept: make room, then"
        f" isobench run --resume '{path}' --workload-folder own"
    )
