"""`isobench pack`: one file with everything, the same bytes each time, without what is left out."""

import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.config import redaction
from isobench.storage import bundle, reader

Write = Callable[..., Path]
Call = Callable[..., Any]


@pytest.fixture
def run(synthetic: Write) -> Path:
    """A run with logs, and with a run that confirms it."""
    path = synthetic(about={"id": "20261101T020000Z-aaaaaa"})
    (path / "logs").mkdir(exist_ok=True)
    (path / "logs" / "box.log").write_text("a line\n")
    further = synthetic(name="further", about={"id": "b", "confirms": "20261101T020000Z-aaaaaa"})
    shutil.copytree(further, path / "confirm")
    return path


def test_a_bundle_has_everything_and_is_read_as_the_folder(
    run: Path, isobench: Call, tmp_path: Path
) -> None:
    target = tmp_path / "bundle.zip"
    assert isobench("pack", run, "-o", target).code == 0
    with zipfile.ZipFile(target) as archive:
        names = {name.partition("/")[2] for name in archive.namelist()}
    assert {"run.json", "plan.json", "records.jsonl", "logs/box.log", "confirm/run.json"} <= names
    packed, plain = reader.load(target), reader.load(run)
    assert packed.samples.equals(plain.samples)
    assert packed.metadata == plain.metadata
    assert reader.confirmations(target) == reader.confirmations(run) == ["confirm"]
    assert reader.load(target, "confirm").metadata.confirms == plain.metadata.id


def test_the_same_run_gives_the_same_bytes(run: Path, isobench: Call, tmp_path: Path) -> None:
    first, other = tmp_path / "first.zip", tmp_path / "other.zip"
    isobench("pack", run, "-o", first)
    os.utime(run / "run.json", (1, 1))
    (run / "run.json").chmod(0o600)
    isobench("pack", run, "-o", other)
    assert first.read_bytes() == other.read_bytes()


def test_the_file_is_named_by_the_run_and_stays_in_the_folder(
    run: Path, isobench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert isobench("pack", run).code == 0
    assert (tmp_path / "20261101T020000Z-aaaaaa.zip").is_file()


def test_a_file_that_nobody_named_is_replaced_only_by_the_same_run(
    run: Path, synthetic: Write, isobench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    other = synthetic(name="other", about={"id": "backup", "seed": 5})
    for mine in ("a letter", "zip"):
        if mine == "zip":  # of another run with this id
            further = synthetic(name="own", about={"id": "backup", "seed": 6})
            assert isobench("pack", further, "-o", "backup.zip").code == 0
        else:
            Path("backup.zip").write_text(mine)
        before = Path("backup.zip").read_bytes()
        done = isobench("pack", other)
        assert done.code == 2
        assert f"isobench pack {other} -o backup.zip replaces it" in done.words
        assert Path("backup.zip").read_bytes() == before
    assert isobench("pack", other, "-o", "backup.zip").code == 0
    assert isobench("pack", other).code == 0
    assert isobench("pack", other, "--redact").code == 0


def test_the_folder_in_a_bundle_is_below_where_it_is_unpacked(
    synthetic: Write, isobench: Call, tmp_path: Path
) -> None:
    isobench("pack", synthetic(about={"id": ".."}), "-o", tmp_path / "x.zip")
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert not [name for name in archive.namelist() if name.startswith((".", "/"))]


def test_files_of_any_length_are_packed_in_pieces(
    run: Path, isobench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "_PIECE", 1000)
    key = "-----BEGIN PRIVATE KEY-----\n" + "hunter22\n" * 50 + "-----END PRIVATE KEY-----\n"
    log = "a line\n" * 130 + key + "x" * 5000 + "\n" + "password=hunter22 \n" * 1000
    (run / "logs" / "box.log").write_text(log)
    with (run / "records.jsonl").open("ab") as records:
        records.write(b"x" * (6 << 20) + b"\n")
    read: list[int] = []
    pieces = bundle._pieces
    monkeypatch.setattr(
        bundle, "_pieces", lambda source: (read.append(len(p)) or p for p in pieces(source))
    )
    isobench("pack", run, "-o", tmp_path / "x.zip")
    assert max(read) < 10_000
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        packed = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert packed["logs/box.log"].decode() == redaction.text(log)
    assert b"hunter22" not in packed["logs/box.log"]
    whole = (run / "records.jsonl").read_bytes().rpartition(b"xxx")[0].rstrip(b"x")
    assert packed["records.jsonl"] == whole + b"\0too long\n"


def test_latest_is_the_newest_run(
    run: Path, isobench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ISOBENCH_RESULTS_DIR", str(tmp_path))
    (tmp_path / "latest").symlink_to(run)
    for name, words in (("pack", ["-o", "x.zip"]), ("report", ["-q"])):
        monkeypatch.chdir(tmp_path)
        assert isobench(name, "latest", *words).code == 0
    assert (tmp_path / "x.zip").is_file()


def test_a_link_stays_and_leads_to_the_bundle(run: Path, isobench: Call, tmp_path: Path) -> None:
    """As root, /dev/stdout became a zip."""
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("there")
    assert isobench("pack", run, "-o", tmp_path / "link").code == 0
    assert (tmp_path / "link").is_symlink()
    assert zipfile.is_zipfile(tmp_path / "there")


def test_links_and_foreign_files_are_left_out(run: Path, isobench: Call, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("mine")
    (run / "logs" / "link.log").symlink_to(tmp_path / "secret")
    (run / "letter.txt").write_text("mine")
    target = tmp_path / "bundle.zip"
    isobench("pack", run, "-o", target)
    with zipfile.ZipFile(target) as archive:
        assert not [name for name in archive.namelist() if "link" in name or "letter" in name]


def test_names_of_host_and_user_are_left_out_where_asked(
    run: Path, isobench: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("USER", "marguerite")
    (run / "logs" / "box.log").write_text("/home/marguerite/x: no such file\n")
    for flags, shown in (((), True), (("--redact",), False)):
        target = tmp_path / f"{shown}.zip"
        assert isobench("pack", run, "-o", target, *flags).code == 0
        with zipfile.ZipFile(target) as archive:
            log = next(name for name in archive.namelist() if name.endswith("box.log"))
            assert (b"marguerite" in archive.read(log)) is shown
    assert reader.load(tmp_path / "False.zip").samples.equals(reader.load(run).samples)


def test_what_is_no_folder_of_a_run_is_refused(run: Path, isobench: Call, tmp_path: Path) -> None:
    target = tmp_path / "bundle.zip"
    isobench("pack", run, "-o", target)
    for wrong, words in ((target, "packed already"), (tmp_path / "none", "not a run")):
        done = isobench("pack", wrong, "-o", tmp_path / "x.zip")
        assert done.code == 2
        assert words in done.err
    done = isobench("pack", run, "-o", tmp_path / "no" / "folder.zip")
    assert done.code == 2
    assert "No such file" in done.err
    assert not (tmp_path / "x.zip").exists()
