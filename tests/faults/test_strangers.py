"""What comes from a stranger (a run, a zip, a store, a repository, another user) leads nowhere
else, controls no terminal and no job, and takes no time without end.
"""

import contextlib
import csv
import io
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isobench.claims import condition
from isobench.cli import _progress, pack, report
from isobench.config import bounded, held, parameters, redaction
from isobench.history import beside, entry, series
from isobench.history import store as module
from isobench.history.row import RANGES, SMALLEST_ERROR, Row
from isobench.history.store import Choice, Store
from isobench.model.errors import UsageError
from isobench.plugins import ownership
from isobench.report import history as words
from isobench.report import sheet, trend, write
from isobench.run import lifecycle
from isobench.storage import bundle, reader, writer
from isobench.targets.machines.ssh import SshTarget
from tests.unit.test_history import row
from tests.unit.test_run_folder import HEALTH

pytestmark = pytest.mark.timeout(180)
HOSTILE = "\x1b]0;title\x07\u202e"


def called(*argv: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command line; it ends within a minute."""
    words = [sys.executable, "-m", "isobench", *map(str, argv)]
    return subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, **options)


def changed(run: Path, **values: object) -> Path:
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(about | values))
    return run


# ---- links, devices and pipes


@pytest.mark.parametrize("name", ["state", "logs"])
def test_a_bundle_has_no_files_of_linked_folders(name: str, run: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "id_ed25519").write_text("a key")
    shutil.rmtree(run / name, ignore_errors=True)
    (run / name).symlink_to(tmp_path / "elsewhere")
    assert not [
        one for one in bundle.write(held.opened(run), tmp_path / "x.zip", "x") if "id_ed" in one
    ]


@pytest.mark.parametrize("name", ["records.jsonl", "state/blocks.jsonl", "logs/box.log"])
def test_a_run_is_not_continued_through_links(name: str, run: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("one\nwithout an end")
    (run / "logs").mkdir(exist_ok=True)
    (run / name).unlink(missing_ok=True)
    (run / name).symlink_to(victim)
    with (
        pytest.raises(UsageError, match="not a regular file"),
        contextlib.closing(writer.RunFolder(run)) as folder,
    ):
        folder.log("box", b"text")
    assert victim.read_text() == "one\nwithout an end"


@pytest.mark.parametrize("name", ["state", "logs"])
def test_a_run_is_not_continued_in_linked_folders(name: str, run: Path, tmp_path: Path) -> None:
    shutil.rmtree(run / name, ignore_errors=True)
    (tmp_path / "elsewhere").mkdir()
    (run / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a regular file"):
        writer.RunFolder(run)


def test_a_pipe_in_place_of_the_states_of_blocks_is_not_waited_for(run: Path) -> None:
    (run / "state" / "blocks.jsonl").unlink()
    os.mkfifo(run / "state" / "blocks.jsonl")
    with pytest.raises(UsageError, match="not a regular file"):
        writer.RunFolder(run)


def test_a_run_that_confirms_is_part_of_the_run_and_no_link(run: Path, base: Path) -> None:
    (run / "confirm").symlink_to(base)
    assert reader.confirmations(run) == []


def test_a_new_run_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(UsageError, match=r"report\.html already"):
        writer.create(tmp_path, "x", exact=tmp_path)
    assert (tmp_path / "report.html").read_text() == "mine"


@pytest.mark.parametrize("kind", ["fifo", "folder", "socket"])
def test_no_device_and_no_pipe_is_replaced_by_a_file(kind: str, run: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    if kind == "fifo":
        os.mkfifo(target)
    elif kind == "folder":
        target.mkdir()
    else:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(target))
    before = target.stat().st_mode
    with pytest.raises(UsageError, match="not a regular file"):
        bundle.write(held.opened(run), target, "x")
    with pytest.raises(OSError, match="not a regular file"):
        bounded.check_replaceable(target)
    assert target.stat().st_mode == before


def test_an_export_into_a_pipe_that_nobody_reads_is_an_error(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = called("report", run, "-q", "--export-csv", tmp_path / "pipe")
    assert done.returncode == 2
    assert "pipe: No such device or address" in done.stderr


def test_an_export_replaces_the_whole_file_or_nothing(tmp_path: Path) -> None:
    target = tmp_path / "export.csv"
    target.write_text("before")
    (tmp_path / "link").symlink_to(target)
    bounded.write(tmp_path / "link", b"after")
    assert target.read_text() == "after"
    assert (tmp_path / "link").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["export.csv", "link"]


def owned(link: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give a link to another user; or, where only root could, be another user than its owner."""
    if os.geteuid() == 0:
        os.chown(link, 4321, 4321, follow_symlinks=False)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4321)


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    (tmp_path / "elsewhere").mkdir()
    path = tmp_path / "elsewhere" / "victim"
    path.write_text("mine")
    return path


def test_a_link_of_another_user_is_not_followed(
    victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "second").symlink_to(victim)
    (tmp_path / "first").symlink_to("second")
    owned(tmp_path / "second", monkeypatch)
    for name in ("second", "first"):
        with pytest.raises(OSError, match="which is not followed"):
            bounded.write(tmp_path / name, b"x")
        with pytest.raises(OSError, match="which is not followed"):
            bounded.check_replaceable(tmp_path / name)
    assert victim.read_text() == "mine"


@pytest.mark.parametrize("mode", [0o1777, 0o755])
def test_a_link_to_a_folder_is_refused_where_everybody_may_create_it(
    mode: int, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "link").symlink_to(victim.parent)
    owned(shared / "link", monkeypatch)
    shared.chmod(mode)
    if mode == 0o1777:
        for name in ("victim", "new", "no/folder"):
            with pytest.raises(OSError, match=f"{shared}/link is a link of"):
                bounded.check_links(shared / "link" / name)
    else:
        bounded.check_links(shared / "link" / "victim")


def test_links_that_lead_to_themselves_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="too many symbolic links"):
        bounded.write(tmp_path / "a", b"x")


def test_an_export_and_a_run_are_refused_behind_a_link_of_another_user(
    run: Path, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("export.json", "results"):
        (tmp_path / name).symlink_to(victim if name == "export.json" else victim.parent)
        owned(tmp_path / name, monkeypatch)
    if os.geteuid() != 0:
        pytest.skip("only root can give a link to another user, whom another process sees")
    export = called("report", run, "-q", "--export-json", tmp_path / "export.json")
    fresh = called("run", "-t", "native", "-w", "cpu.sieve", "-n", "-o", tmp_path / "results")
    for done in (export, fresh):
        assert done.returncode == 2
        assert "a link of user 4321, which is not followed" in done.stderr
    assert victim.read_text() == "mine"


# ---- folders that another user may exchange


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files in a folder."""
    return {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*.*")}


def exchanged(folder: Path, other: Path) -> Path:
    """Put a link to another folder in the place of a folder; return where that is now."""
    moved = folder.rename(folder.with_name(f"{folder.name}-moved"))
    folder.symlink_to(other)
    return moved


@pytest.fixture
def precious(base: Path, tmp_path: Path) -> Path:
    """Another run."""
    (tmp_path / "private").mkdir()
    return Path(shutil.copytree(base, tmp_path / "private" / "precious"))


def test_a_run_is_written_to_its_own_folder_whatever_takes_its_place(
    run: Path, precious: Path
) -> None:
    before = contents(precious)
    with contextlib.closing(writer.RunFolder(run)) as folder:
        assert not folder.held.moved()
        moved = exchanged(run, precious)
        folder.document("plan.json", json.loads((moved / "plan.json").read_text()))
        folder.document("state/host-post.json", {"a": 1})
        folder.log("box", b"a word")
        folder.health(HEALTH, valid=True)
        found = reader.load(run, folder=folder.held)
        outcome = write.answer(run, run, folder=folder.held)
    assert contents(precious) == before
    assert json.loads((moved / "state" / "host-post.json").read_text()) == {"a": 1}
    assert (moved / "logs" / "box.log").read_text() == "a word\n"
    assert found.metadata.id == reader.load(moved).metadata.id
    assert outcome.text("summary.md") == (moved / "summary.md").read_text()
    assert outcome.moved == f"{run} was moved or replaced meanwhile: it is {moved} now"


EXCHANGING = """
import sys
from pathlib import Path
from isobench.cli import main
from isobench.storage import writer
other, document = Path(sys.argv.pop(1)), writer.RunFolder.document
def exchanging(self, name, value):
    if not self.path.is_symlink():
        self.path.rename(self.path.with_name("moved"))
        self.path.symlink_to(other)
    return document(self, name, value)
writer.RunFolder.document = exchanging
main()
"""


def test_a_whole_run_stays_in_its_folder(precious: Path, tmp_path: Path) -> None:
    before = contents(precious)
    words = ["run", "-t", "native", "-w", "cpu.sieve", "--blocks", "2", "--min-time", "0.004s"]
    done = subprocess.run(
        [
            *(sys.executable, "-c", EXCHANGING, precious, *words, "-o", tmp_path / "new", "-q"),
            *("--schedule", "blocks", "--export-csv", tmp_path / "samples.csv"),
        ],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert contents(precious) == before
    assert f"new was moved or replaced meanwhile: it is {tmp_path}/moved now" in done.stderr
    samples = reader.load(tmp_path / "moved").samples
    assert len((tmp_path / "samples.csv").read_text().splitlines()) == 1 + len(samples) > 1
    assert {"summary.json", "summary.md", "report.html"} <= contents(tmp_path / "moved").keys()


def test_what_took_the_place_of_an_unbegun_run_stays(precious: Path, tmp_path: Path) -> None:
    before = contents(precious)
    with contextlib.closing(writer.create(tmp_path, "new")) as folder:
        moved = exchanged(folder.path, precious)
        folder.remove_unbegun()
    assert contents(precious) == before
    assert (tmp_path / "new").is_symlink()
    assert [*moved.iterdir()] == []


@pytest.mark.parametrize("name", ["state/box-pre.json", "state/blocks.jsonl", "logs/box.log"])
def test_nothing_is_written_through_a_link_that_takes_the_place_of_an_inner_folder(
    name: str, run: Path, precious: Path
) -> None:
    (precious / "logs").mkdir(exist_ok=True)
    before = contents(precious)
    with contextlib.closing(writer.RunFolder(run)) as folder:
        inner = name.partition("/")[0]
        exchanged(run / inner, precious / inner)
        with pytest.raises((UsageError, OSError), match=f"{run}/{name}"):
            if name.startswith("logs"):
                folder.log("box", b"a word")
            elif name.endswith("l"):
                folder.health(HEALTH, valid=True)
            else:
                folder.document(name, {})
    assert contents(precious) == before


@pytest.mark.parametrize("is_named", [False, True])
def test_a_link_that_takes_the_place_of_a_new_folder_is_not_followed(
    is_named: bool, victim: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = os.mkdir

    def exchanging(path: Any, *arguments: Any, **options: Any) -> None:
        mkdir(path, *arguments, **options)
        if Path(path).name == "new":
            (tmp_path / "new").rmdir()
            (tmp_path / "new").symlink_to(victim.parent)
            owned(tmp_path / "new", monkeypatch)

    monkeypatch.setattr(os, "mkdir", exchanging)
    with pytest.raises(UsageError, match=r"new: (a link of user 4321|Not a directory)"):
        writer.create(tmp_path, "new", exact=tmp_path / "new" if is_named else None)
    assert [*victim.parent.iterdir()] == [victim]


@pytest.mark.parametrize("mode", [0o1777, 0o777, 0o755])
def test_results_of_another_user_are_refused_where_everybody_may_create_them(
    mode: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    (shared / "isobench-results").mkdir(parents=True)
    owned(shared / "isobench-results", monkeypatch)
    shared.chmod(mode)
    if mode == 0o755:  # as root in a user's checkout
        writer.check_results(shared / "isobench-results")
        writer.create(shared / "isobench-results", "run").close()
        return
    for call in (writer.check_results, lambda place: writer.create(place, "run")):
        with pytest.raises(UsageError, match="isobench-results belongs to user 4321") as caught:
            call(shared / "isobench-results")
        assert "--output" in caught.value.hint
    assert [*(shared / "isobench-results").iterdir()] == []


def test_a_report_is_made_of_the_folder_into_which_it_is_written(
    run: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = list[Path]()

    def exchanging(path: Path, *arguments: Any, **options: Any) -> reader.Run:
        found = load(path, *arguments, **options)
        moved.append(exchanged(run, precious))
        return found

    load = reader.load
    (run / "summary.md").unlink(missing_ok=True)
    monkeypatch.setattr(reader, "load", exchanging)
    # As another run it would be refused: this one says that it is the same.
    changed(precious, id=json.loads((run / "run.json").read_text())["id"])
    before = contents(precious)
    outcome = report.answer_again(run, None)
    assert contents(precious) == before
    assert (moved[0] / "summary.md").is_file()
    assert "was moved or replaced meanwhile" in outcome.moved


def test_a_run_that_takes_the_place_of_another_is_not_resumed(run: Path, precious: Path) -> None:
    changed(precious, id="another")
    before, now = reader.load(run), reader.load(precious)
    with pytest.raises(UsageError, match="was replaced by another run"):
        lifecycle._same(before, now)
    assert lifecycle._same(before, before) is before


# ---- files that another user may exchange, or let grow


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    path = tmp_path / "home" / "native-pre.json"
    path.write_text('{"a private": "letter"}')
    return path


@pytest.mark.parametrize("what", ["file", "folder", "run"])
def test_a_bundle_has_nothing_that_a_link_leads_to_which_came_later(
    what: str, run: Path, secret: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = run / "state" / "native-pre.json"
    name.write_text("{}")

    def exchanging(target: Path) -> Path:
        if what == "file":
            name.unlink()
            name.symlink_to(secret)
        else:
            exchanged(run if what == "run" else run / "state", secret.parent)
        return target

    monkeypatch.setattr(bounded, "replaceable", exchanging)
    if what == "run":  # it is held
        bundle.write(held.opened(run), tmp_path / "x.zip", "x")
        with zipfile.ZipFile(tmp_path / "x.zip") as made:
            assert made.read("x/state/native-pre.json") == b"{}"
        return
    with pytest.raises(UsageError, match="is a link, and a run has none"):
        bundle.write(held.opened(run), tmp_path / "x.zip", "x")
    assert not (tmp_path / "x.zip").exists()


@pytest.mark.parametrize("what", ["run.json", "state"])
def test_a_link_that_no_look_has_seen_is_not_read(
    what: str, run: Path, precious: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged(run / what, precious / what)
    monkeypatch.setattr(Path, "is_symlink", lambda _: False)  # it looked earlier
    with pytest.raises(UsageError, match=f"{run}/{what} is a link, and a run has none"):
        reader.load(run)


def test_a_bundle_of_a_folder_behind_another_users_link_is_refused(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(run)
    owned(tmp_path / "link", monkeypatch)
    with pytest.raises(UsageError, match="a link of user 4321, which is not followed"):
        pack._held(tmp_path / "link")


@pytest.fixture
def growing(run: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run whose records begin to grow when they are opened."""
    stream = bounded.stream

    def opened(descriptor: int, path: Path, **options: Any) -> io.BufferedReader:
        found = stream(descriptor, path, **options)
        if path == run / "records.jsonl":
            with path.open("a") as records:
                records.write("no record\n")
            os.truncate(path, 1 << 36)
        return found

    monkeypatch.setattr(bounded, "stream", opened)
    return run


def test_records_are_read_up_to_where_they_ended(growing: Path, base: Path) -> None:
    found = reader.load(growing)
    assert not found.losses.lines
    assert found.samples.equals(reader.load(base).samples)


def test_records_are_packed_up_to_where_they_ended(growing: Path, tmp_path: Path) -> None:
    lines = (growing / "records.jsonl").read_bytes().count(b"\n")
    bundle.write(held.opened(growing), tmp_path / "x.zip", "x")
    with zipfile.ZipFile(tmp_path / "x.zip") as made:
        packed = made.read("x/records.jsonl")
    assert packed.count(b"\n") == lines
    assert b"no record" not in packed


def test_a_stream_of_a_file_ends_where_the_file_ended(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"one\ntwo\n")
    for read in (
        lambda stream: stream.read(),
        lambda stream: stream.read(1 << 20),
        b"".join,
        lambda stream: (stream.read(4), stream.seek(0), stream.read())[2],
    ):
        with held.opened(tmp_path).stream("file", most=100, hint="") as stream:
            os.truncate(tmp_path / "file", 1 << 36)
            assert read(stream) == b"one\ntwo\n"
        os.truncate(tmp_path / "file", 8)


@pytest.mark.parametrize(
    ("name", "size"), [("records.jsonl", 5 << 30), ("state/blocks.jsonl", 17 << 20)]
)
def test_a_file_that_is_too_long_to_be_read_is_not_continued(
    name: str, size: int, run: Path
) -> None:
    os.truncate(run / name, size)
    with pytest.raises(UsageError, match=f"{name}: longer than"):
        writer.RunFolder(run)
    assert (run / name).stat().st_size == size


# ---- texts


def test_a_format_of_any_form_is_shown_in_short(run: Path) -> None:
    for version in (f"{HOSTILE}\n::set-output name=x::y", ["A" * 1000] * 5000, 10**30):
        done = called("report", changed(run, schema_version=version))
        assert done.returncode == 2
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stderr)
        assert "\n::" not in done.stderr
        assert len(done.stderr) < 500


def test_a_part_of_a_zip_has_a_plain_name(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for path in run.rglob("*.json*"):
            made.write(path, path.relative_to(run))
        made.writestr(f"confirm{HOSTILE}\n::error::x/run.json", "{}")
    assert reader.confirmations(tmp_path / "x.zip") == []


def test_a_run_that_has_lost_evidence_is_not_resumed(run: Path) -> None:
    """The rest of a run would show nothing of its earlier blocks."""
    before = (run / "records.jsonl").read_bytes()
    whole = called("run", "-q", "--resume", run)
    assert "state/" not in whole.stderr
    (state,) = [path for path in run.glob("state/*-pre.json") if "native" not in path.name][:1]
    state.unlink()
    done = called("run", "-q", "--resume", run)
    assert done.returncode == 2
    assert f"cannot be resumed: state/{state.name} is missing" in done.stderr
    assert (run / "records.jsonl").read_bytes() == before


@pytest.mark.parametrize("form", ["folder", "zip"])
def test_the_runs_that_confirm_one_are_bounded(form: str, run: Path, tmp_path: Path) -> None:
    """Each of them is read as a run of its own, and a zip may have ten thousand members."""
    for number in range(reader.MOST_CONFIRMATIONS + 1):
        (run / f"confirm-{number}").mkdir()
        (run / f"confirm-{number}" / "run.json").write_text("{}")
    path = run
    if form == "zip":
        path = tmp_path / "x.zip"
        with zipfile.ZipFile(path, "w") as made:
            for one in filter(Path.is_file, run.rglob("*")):
                made.write(one, one.relative_to(run))
    done = called("history", "add", path, "--store", tmp_path / "store")
    assert done.returncode == 2
    assert "has 101 runs that confirm it: more than 100" in done.stderr
    assert len(done.stderr) < 1000


def test_a_zip_of_two_runs_is_refused(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for name in ("a", "b"):
            made.write(run / "run.json", f"{name}/run.json")
    with pytest.raises(UsageError, match="several runs"):
        reader.load(tmp_path / "x.zip")


def test_a_file_whose_name_ends_so_is_no_run(run: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        for path in run.rglob("*.json*"):
            made.write(path, f"deep/in/{path.relative_to(run)}")
        made.writestr("dryrun.json", "{}")
    assert reader.load(tmp_path / "x.zip").metadata.id == reader.load(run).metadata.id


@pytest.mark.parametrize("offset", [(1 << 64) - 1, 1 << 63, 1 << 62])
def test_offsets_of_a_zip_that_are_none_are_damage(offset: int, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as made:
        made.writestr("run.json", "{}")
    whole = (tmp_path / "x.zip").read_bytes()
    at, end = whole.find(b"PK\1\2"), whole.find(b"PK\5\6")
    entry_of, tail = bytearray(whole[at:end]), bytearray(whole[end:])
    extra = struct.pack("<HHQ", 1, 8, offset)
    entry_of[42:46], entry_of[30:32] = b"\xff" * 4, struct.pack("<H", len(extra))
    tail[12:16] = struct.pack("<I", len(entry_of) + len(extra))
    (tmp_path / "x.zip").write_bytes(whole[:at] + bytes(entry_of) + extra + bytes(tail))
    with pytest.raises(UsageError):
        reader.load(tmp_path / "x.zip")


@pytest.mark.parametrize(
    "name", ["::error::x", "=HYPERLINK(1)", "@SUM(1)", "-x", "a b", "$(id)", "a;b", "`id`", "a\tb"]
)
def test_names_of_a_run_can_be_pasted(name: str, run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    about["targets"][1]["name"] = name
    changed(run, targets=about["targets"], variations=[])
    with pytest.raises(UsageError, match="is not a name"):
        reader.load(run)


def test_no_line_is_a_command_of_a_runner() -> None:
    for line in ("::error::x", "  ::set-output name=a::b", "##[error]x", "x ##[error]x"):
        for shown in (_progress._trimmed(line), _progress.harmless(f"a\n{line}\r\nb")):
            assert "##[" not in shown
            assert not [one for one in shown.split("\n") if one.lstrip().startswith("::")]


def test_an_export_to_standard_output_controls_no_terminal_and_no_job(run: Path) -> None:
    gap = {"kind": "gap", "block": 4, "target": "uml", "workload": "io.metadata", "cause": "failed"}
    gap |= {"detail": "x", "hint": f"a\n::set-output name=x::evil\n##[error]{HOSTILE}b"}
    with (run / "records.jsonl").open("a") as records:
        records.write(json.dumps(gap) + "\n")
    for name in ("junit", "json", "markdown", "html", "csv", "openmetrics"):
        done = called("report", run, "-q", f"--export-{name}", "-")
        assert done.returncode == 0, done.stderr
        assert len(done.stdout) > 100
        assert not [one for one in done.stdout.split("\n") if one.lstrip().startswith("::")]
        assert not {"\x1b", "\x07", "\u202e"} & set(done.stdout)
        assert "##[" not in done.stdout


@pytest.mark.parametrize(
    "metric", ["::error::x", '=HYPERLINK("http://x")', "-1", "a\nb", "a b", "x" * 300, ""]
)
def test_a_metric_of_records_is_a_name(metric: str, run: Path) -> None:
    lines = (run / "records.jsonl").read_text().splitlines()
    line = next(one for one in lines if '"metric":"time"' in one)
    with (run / "records.jsonl").open("a") as records:
        records.write(json.dumps({**json.loads(line), "block": 4, "metric": metric}) + "\n")
    found = reader.load(run)
    assert metric not in {*found.samples["metric"]}
    assert "its metric is not a name" in "; ".join(found.losses.first)


def test_a_text_in_csv_is_no_formula(tmp_path: Path) -> None:
    for text in ('=HYPERLINK("x")', "+1+cmd", "@SUM(1)", "-2+3", "\t=1"):
        (shown,) = list(csv.DictReader(io.StringIO(sheet.csv(["a"], [{"a": text}]))))
        assert shown["a"] == f"'{text}"
    plain = {"a": "box", "b": -0.5, "c": "-0.5", "d": None, "e": "1e-5"}
    assert sheet.csv([*plain], [plain]).splitlines()[1] == "box,-0.5,-0.5,,1e-5"
    pytest.importorskip("duckdb", reason="the extra history is not installed")
    made = Store(tmp_path / "store")
    made.add([msgspec.structs.replace(row(0), machine_name="=1+1")])
    made.export(tmp_path / "x.csv", Choice())
    (cells,) = list(csv.DictReader(io.StringIO((tmp_path / "x.csv").read_text())))
    assert cells["machine_name"] == "'=1+1"


@pytest.mark.parametrize("stream", ["version", "reason"])
def test_what_a_target_says_does_not_control_the_terminal(stream: str) -> None:
    assert (
        redaction.bare(f"{stream}{HOSTILE}\x1b[2J") == f"{stream}\\x1b]0;title\\x07\\u202e\\x1b[2J"
    )


def test_the_name_of_a_target_in_a_cloned_repository_is_shown_in_short(tmp_path: Path) -> None:
    (tmp_path / "isobench.toml").write_text('[targets."\\u001b[2Jx"]\nkind = "docker"\n')
    done = called("targets", cwd=tmp_path)
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


# ---- commands of a cloned repository


def test_a_line_of_the_repository_itself_does_not_permit_its_commands(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "isobench.toml").write_text(
        f'[run]\ntargets = ["box"]\n[targets.box]\nkind = "ssh"\nhost = "localhost"\n'
        f'start = ["touch", "{ran}"]\nstop = ["true"]\nstart_timeout = 1.0\n'
    )
    called("run", "-w", "cpu.sieve", "-n", cwd=tmp_path)
    assert not ran.exists()


@pytest.mark.parametrize("name", ["$(touch x)", "a;b", "`id`", "a b", "-oProxyCommand=x", "a\nb"])
@pytest.mark.parametrize("option", ["host", "user"])
def test_names_for_ssh_are_no_shell_code(name: str, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option} ="):
        SshTarget(**{option: name})


# ---- other users


@pytest.mark.parametrize("numbers", ["-1", "1-", "--", "1-" + "9" * 5000, "9" * 5000 + "-1", "a-b"])
def test_an_owner_of_any_form_stops_no_sweep(numbers: str) -> None:
    machine = ownership.mine().split("-")[1]
    assert ownership.alive(f"isobench-{machine}-{numbers}")


# ---- the store


def foreign(store: Store, expression: str, end: str = "") -> Path:
    """Change the only file of a store by SQL."""
    duckdb = pytest.importorskip("duckdb", reason="the extra history is not installed")
    (path,) = store.folder.rglob("run-*.parquet")
    select = f"SELECT {expression} FROM '{path}' {end}"  # noqa: S608 - the test's own
    duckdb.sql(f"COPY ({select}) TO '{path}.x' (FORMAT parquet)")
    Path(f"{path}.x").replace(path)
    return Path(path)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    pytest.importorskip("duckdb", reason="the extra history is not installed")
    made = Store(tmp_path / "store")
    made.add([row(0)])
    return made


@pytest.mark.parametrize(
    "expression",
    [
        "* REPLACE ('x' AS schema)",
        "* REPLACE ('x' AS mean)",
        "* REPLACE (1e308::DOUBLE AS mean)",
        "* REPLACE ('nan'::DOUBLE AS mean, 'inf'::DOUBLE AS error)",
        "* REPLACE ('no json' AS conditions)",
        "* REPLACE (now() AS started)",
        "* REPLACE (NULL AS run, NULL AS target)",
        "* REPLACE (chr(27) || '[2J' AS machine_name)",
        '* REPLACE (\'{"kernel":"\\u001b[2J"}\' AS conditions)',
        "* EXCLUDE (workload)",
        "* REPLACE (1e308::DOUBLE AS high)",
        "* REPLACE (0.5::DOUBLE AS low, 0.4::DOUBLE AS high)",
        "* REPLACE (1e160::DOUBLE AS error)",
        "* REPLACE (1e-160::DOUBLE AS error)",
        "* REPLACE (1e308::DOUBLE AS noise)",
        "* REPLACE (0.0::DOUBLE AS freedom)",
        "* REPLACE (-1::BIGINT AS sessions)",
        "* REPLACE (5 AS target)",
        "* REPLACE ('no' AS quick)",
        "* REPLACE ('yes' AS complete)",
        "* REPLACE (1.5::DOUBLE AS blocks)",
        "* REPLACE ('3' AS sessions)",
        "* REPLACE ([1, 2] AS place)",
        "* REPLACE ('2026-02-30T02:00:00Z' AS started, '2026-02' AS month)",
        "* REPLACE ('2026-01-01T25:00:00Z' AS started)",
        "* REPLACE (repeat('x', 1 << 21) AS link)",
        "* REPLACE ('{\"x\":\"' || repeat('x', 1 << 21) || '\"}' AS conditions)",
    ],
)
def test_a_foreign_file_of_a_store_is_named(expression: str, store: Store) -> None:
    foreign(store, expression)
    with pytest.raises(UsageError, match=r"run-[0-9a-f]+\.parquet|did not write"):
        store.rows()


def test_a_file_without_rows_is_no_damage(store: Store) -> None:
    foreign(store, "*", end="LIMIT 0")
    assert store.rows() == []


@pytest.mark.parametrize("kind", ["fifo", "link", "folder"])
def test_what_is_no_file_of_a_store_is_named_and_not_read(kind: str, store: Store) -> None:
    (path,) = store.folder.rglob("run-*.parquet")
    other = path.with_name("run-zz.parquet")
    if kind == "link":
        other.symlink_to(path)
    else:
        {"fifo": os.mkfifo, "folder": os.mkdir}[kind](other)
    with pytest.raises(UsageError, match=r"run-zz\.parquet is not a regular file"):
        store.rows()


@pytest.mark.parametrize("bound", ["_MOST_ROWS", "_MOST_CHOSEN"])
def test_equal_rows_without_end_are_refused_before_they_are_objects(
    bound: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, bound, 1000)
    made: list[int] = []
    monkeypatch.setattr(module, "Row", lambda *_: made.append(1))
    foreign(store, "* EXCLUDE (i)", ", range(1001) t(i)")
    with pytest.raises(UsageError, match="1,001 rows of cells"):
        store.rows()
    assert not made


@pytest.mark.parametrize("part", ["machine", "month"])
def test_no_folder_of_a_store_is_a_link(part: str, store: Store, tmp_path: Path) -> None:
    (path,) = store.folder.rglob("run-*.parquet")
    folder = path.parent if part == "month" else path.parent.parent
    elsewhere = folder.rename(tmp_path / "elsewhere")
    before = sorted(tmp_path.rglob("*.parquet"))
    folder.symlink_to(elsewhere)
    for call in (store.rows, lambda: store.prune("2030"), lambda: store.add([row(1)])):
        with pytest.raises(UsageError, match=f"{part}=[^/]+ is not a folder of the store"):
            call()
    assert sorted(tmp_path.rglob("*.parquet")) == before


def ends(place: int) -> dict[str, float]:
    """Return the least or the largest numbers that a row may have."""
    found = {name: pair[place] for name, pair in RANGES.items() if name not in ("place", "mean")}
    return found | {"low": RANGES["low"][0], "high": RANGES["high"][1]}


def test_everything_can_be_computed_of_what_a_row_may_have(store: Store) -> None:
    for night in range(1, 13):
        few = RANGES["mean"][night % 2]
        numbers = {**ends(night // 2 % 2), "mean": few}
        numbers["error"] = (0.0, SMALLEST_ERROR, *RANGES["error"])[night % 4]
        store.add([row(night, **numbers), row(night, target="podman", place=1)])
    rows = store.rows()
    found = series.series_of(rows)
    newest = beside.newest(rows)
    assert trend.render(found, newest, "x")
    assert words.trend(found, newest, "x").closing
    assert words.trend_document(found, newest)
    for base in (2, 5, 12):
        run = [one for one in rows if one.run == f"run-{base}"]
        judged = beside.judged(run, rows)
        assert words.findings(beside.confirmed(judged, run, rows)).closing


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_the_mark_of_a_store_is_a_file(kind: str, store: Store) -> None:
    mark = store.folder / "isobench-history.json"
    mark.unlink()
    if kind == "fifo":
        os.mkfifo(mark)
    else:
        mark.symlink_to("/dev/zero")
    with pytest.raises(UsageError, match="not a regular file"):
        store.rows()


@pytest.mark.parametrize("when", ["400000d", "0999-01-01"])
def test_an_early_date_is_before_all_runs(when: str, store: Store) -> None:
    then = parameters.Since().convert(when, None, None)
    assert store.prune(then) == 0
    assert len(store.rows(Choice(since=then))) == 1


@pytest.mark.parametrize("memory", [1e300, -1, True, "much"])
def test_a_machine_has_a_possible_memory(memory: object) -> None:
    assert entry.machine_name({"cpu": "x", "cpus": 2, "memory_bytes": memory}).startswith("x, 2")  # type: ignore[dict-item]


def test_a_link_of_a_run_is_one_plain_line(run: Path, store: Store) -> None:
    link = f"https://x\n{HOSTILE}"
    rows: tuple[Row, ...] = entry.rows_of(reader.load(run), link=link)
    assert rows[0].link.isprintable()
    store.add(rows)
    assert {one.link for one in store.rows()} == {"", rows[0].link}


# ---- time


def test_a_condition_has_few_comparisons() -> None:
    long = " and ".join("workload =~ 'z{900}'" for _ in range(300))
    with pytest.raises(ValueError, match="more than 16 comparisons"):
        condition.holds(long, {"workload": "cpu.sieve"})


# ---- standard streams


def test_exports_are_written_whoever_reads_the_output(run: Path, tmp_path: Path) -> None:
    for where in ("| true", ">/dev/full", ">&-"):
        target = tmp_path / f"export-{len(where)}.json"
        line = f"{sys.executable} -m isobench report {run} -q --export-json {target} {where}"
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", line], capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        assert target.stat().st_size > 1000, (where, done.stderr)
        assert done.returncode == (2 if "full" in where else 0), (where, done.stderr)
        assert "Traceback" not in done.stderr
        assert "Exception ignored" not in done.stderr


def test_no_locale_is_needed(run: Path) -> None:
    plain = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = called("report", run, "-q", env=plain)
    assert done.returncode == 0, done.stderr


def test_a_command_line_of_any_bytes_is_recorded(tmp_path: Path) -> None:
    folder = writer.RunFolder(tmp_path / "run")
    folder.document("run.json", {"argv": ["-o", "out/s\udcff"]})
    folder.close()
    assert json.loads((tmp_path / "run" / "run.json").read_text())["argv"][1] == "out/s\\xff"


# ---- clearing up


def test_a_cache_behind_a_link_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "elsewhere" / "payloads").mkdir(parents=True)
    (tmp_path / "elsewhere").chmod(0o700)
    (tmp_path / "cache").mkdir(mode=0o700)
    (tmp_path / "cache" / "isobench").symlink_to(tmp_path / "elsewhere")
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    program = "from isobench.payload import stage; print(stage.remove_cache())"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "elsewhere").exists()
