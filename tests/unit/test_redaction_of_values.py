"""Redaction changes values and no documents: identifiers stay, and markup does."""

import csv
import io
import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.config import redaction
from isobench.history import beside, entry, series
from isobench.history.row import Row
from isobench.history.store import Store
from isobench.model import Cause, ClaimStatus, Gap
from isobench.model.units import TargetName, WorkloadName
from isobench.report import history, sheet, trend
from isobench.storage import documents, reader, writer
from isobench.storage.schema import ClaimResult, Summary
from isobench.targets.machines import _machine
from tests.unit.command import Done

HIDDEN = "hunter22"
URL = f"tcp://me:{HIDDEN}@host:1"
KEY = "-----BEGIN PRIVATE KEY-----"
Run = Callable[..., Done]
Write = Callable[..., Path]


def gap(**fields: Any) -> Gap:
    """Return a gap of the whole target "box"."""
    usual = {
        "block": 1,
        "target": TargetName("box"),
        "workload": WorkloadName("cpu.sieve"),
        "cause": Cause.FAILED,
        "detail": "",
    }
    return Gap(**{**usual, **fields})


def hosted(**options: str) -> dict[str, Any]:
    """Return what run.json says of a target "box" on another machine."""
    return {"config": {"targets": {"box": {"kind": "ssh", **options}}}}


# ---- identifiers


@pytest.mark.parametrize("value", ["native", "cpu.sieve", "sieve-", "regression", "virtualization"])
def test_a_run_is_read_again_whatever_the_secrets_are(
    value: str, synthetic: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = reader.load(synthetic({("box", "cpu.sieve-x"): 1.0, ("box", "cpu.sieve"): 1.0}))
    monkeypatch.setenv("DB_PASSWORD", value)
    folder = writer.RunFolder(tmp_path / "again")
    folder.document("run.json", before.metadata)
    folder.document("plan.json", before.plan)
    folder.write(gap(cause=Cause.UNAVAILABLE, detail="away"))
    folder.close()
    after = reader.load(folder.path)
    assert (after.metadata, after.plan) == (before.metadata, before.plan)
    assert after.gaps == (gap(cause=Cause.UNAVAILABLE, detail="away"),)


@pytest.mark.parametrize(
    "name", ["cpu", "box", "gap", "virtualization", "seconds", "time", "blocks", "near-native"]
)
def test_a_bundle_and_a_report_without_names_are_read_whatever_a_host_is_called(
    name: str, synthetic: Write, isobench: Run, tmp_path: Path
) -> None:
    run = synthetic(about=hosted(host=name), gaps=[gap(workload=WorkloadName("cpu.more"))])
    done = isobench("report", run, "--redact", "-q")
    assert done.code == 0
    assert isobench("pack", run, "--redact", "-o", "x.zip").code == 0
    packed, plain = reader.load(tmp_path / "x.zip"), reader.load(run)
    assert packed.samples.equals(plain.samples)
    assert (packed.plan, packed.gaps) == (plain.plan, plain.gaps)
    cell = documents.read_summary(run).cells[0]
    assert (cell.target, cell.unit, cell.metric, cell.group) == ("box", "seconds", "time", "cpu")


def test_a_class_that_is_called_like_a_secret_keeps_its_verdicts(tmp_path: Path) -> None:
    claim = ClaimResult(
        id="mine", status=ClaimStatus.REFUTED, axes={"auth": ClaimStatus.REFUTED}, sentence=URL
    )
    clean = Summary(claims=(claim,)).redacted().claims[0]
    assert clean.axes == claim.axes
    assert HIDDEN not in clean.sentence
    text = documents.written(Summary(claims=(claim,)))
    documents.write_text(tmp_path / documents.SUMMARY, text)
    assert documents.read_summary(tmp_path).claims == (clean,)


# ---- documents


def test_a_page_keeps_its_policy_whatever_a_host_is_called(
    synthetic: Write, isobench: Run, tmp_path: Path
) -> None:
    run = synthetic(
        about=hosted(host="Content-Security-Policy", user='title="'),
        gaps=[gap(detail=". onfocus=x " + "word " * 60)],
    )
    isobench("report", run, "-q")
    before = (run / "report.html").read_text()
    assert isobench("report", run, "--redact", "-q", "--export-html", "x.html").code == 0
    assert isobench("pack", run, "--redact", "-o", "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        name = next(one for one in archive.namelist() if one.endswith("report.html"))
        packed = archive.read(name).decode()
    for page in (Path("x.html").read_text(), packed):
        assert 'http-equiv="Content-Security-Policy"' in page
        assert page.count(' title="') == before.count(' title="')


@pytest.mark.parametrize("detail", ["authorization=", "token=", 'expected token="', KEY])
def test_an_export_stays_what_it_is_whatever_a_text_ends_in(
    detail: str, synthetic: Write, isobench: Run
) -> None:
    run = synthetic(gaps=[gap(detail="word " * 150 + detail, hint="h")])
    kinds = ("html", "junit", "json", "pytest-benchmark")
    flags = [word for kind in kinds for word in (f"--export-{kind}", f"{kind}.out")]
    assert isobench("report", run, "-q", *flags).code == 0
    assert Path("html.out").read_text() == (run / "report.html").read_text()
    assert Path("html.out").read_text().rstrip().endswith("</html>")
    ET.fromstring(Path("junit.out").read_text())  # noqa: S314 - its own
    for kind in ("json", "pytest-benchmark"):
        json.loads(Path(f"{kind}.out").read_text())


def test_one_text_of_a_comparison_takes_no_other_away(synthetic: Write, isobench: Run) -> None:
    base = synthetic(name="a", about={"id": "a"})
    head = synthetic(name="b", about={"id": "b", "started": KEY, "compiler": "zig token='"})
    flags = [w for kind in ("markdown", "csv", "json") for w in (f"--export-{kind}", f"x.{kind}")]
    assert isobench("compare", base, head, *flags).code == 0
    shown = Path("x.markdown").read_text()
    assert "| box | cpu.sieve |" in shown
    assert "What else differs" in shown
    assert len([*csv.DictReader(io.StringIO(Path("x.csv").read_text()))]) == 1
    assert json.loads(Path("x.json").read_text())["cells"]


def test_a_row_of_the_history_takes_no_other_away(
    make_run: Callable[..., reader.Run], tmp_path: Path
) -> None:
    rows: list[Row] = []
    for number, kernel in enumerate(["6", KEY, 'x token="', "6"]):
        about = {"id": f"r{number}", "started": f"2026-11-1{number}T01:00:00Z"}
        run = make_run(about={**about, "host": {"cpu": "x token='", "kernel": kernel}})
        rows += entry.rows_of(run)
    trend.write(tmp_path / "trend.html", series.series_of(rows), beside.newest(rows), "store")
    page = (tmp_path / "trend.html").read_text()
    assert "<figure" in page
    assert 'class="bottom"' in page
    data = page.partition('id="data">')[2].partition("</script>")[0]
    assert json.loads(data)[0]["lines"]
    parsed = [*csv.DictReader(io.StringIO(history.runs_csv(rows)))]
    assert [one["run"] for one in parsed] == ["r0", "r1", "r2", "r3"]


# ---- what is printed and exported


def test_comparing_prints_no_secrets(synthetic: Write, isobench: Run) -> None:
    both = {("box", "cpu.sieve"): 1.0, ("box", "cpu.more"): 1.0}
    base = synthetic(both, name="a", about={"id": "a"})
    lost = gap(workload=WorkloadName("cpu.more"), cause=Cause.UNAVAILABLE, detail="x")
    head = synthetic(name="b", about={"id": "b"}, gaps=[lost])
    _leave_in(head, "x", URL)
    done = isobench("compare", base, head, "--export-markdown", "x.md")
    assert done.code == 0
    for shown in (done.out, Path("x.md").read_text().replace("\\", "")):
        assert "tcp://***@host:1" in shown
        assert HIDDEN not in shown


def _leave_in(run: Path, before: str, after: str) -> None:
    """Put a detail of a gap into the records as an earlier version might have written it."""
    path = run / "records.jsonl"
    path.write_text(path.read_text().replace(f'"detail":"{before}"', f'"detail":"{after}"'))


def test_comparing_leaves_out_the_hosts_and_users_of_targets(
    synthetic: Write, isobench: Run
) -> None:
    both = {("box", "cpu.sieve"): 1.0, ("box", "cpu.more"): 1.0}
    table = hosted(host="lab7.example.org", user="marguerite")
    detail = "marguerite@lab7.example.org does not answer"
    lost = gap(workload=WorkloadName("cpu.more"), cause=Cause.UNAVAILABLE, detail=detail)
    base = synthetic(both, name="a", about={"id": "a", **table})
    head = synthetic(name="b", about={"id": "b", **table}, gaps=[lost])
    kinds = ("json", "markdown")
    flags = [word for kind in kinds for word in (f"--export-{kind}", f"x.{kind}")]
    done = isobench("compare", base, head, "--redact", *flags)
    assert done.code == 0
    for shown in (done.out, *(Path(f"x.{kind}").read_text() for kind in kinds)):
        assert "does not answer" in shown
        assert "lab7" not in shown
        assert "marguerite" not in shown


@pytest.mark.parametrize("command", ["compare", "noise"])
def test_the_name_of_a_folder_does_not_control_the_terminal(
    command: str, synthetic: Write, isobench: Run
) -> None:
    evil = synthetic(name="run\x1b]0;title\x07\x1b[2Jx", about={"id": "a"})
    others = [synthetic(name="b", about={"id": "b"})] if command == "compare" else []
    done = isobench(command, evil, *others, "--color", "never")
    assert done.code == 0
    assert "\\x1b]0;title" in done.out
    assert "\x1b" not in done.out + done.err


def test_the_history_keeps_lists_and_exports_no_secrets(
    synthetic: Write, isobench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("duckdb")
    run = synthetic()
    options = ("--store", "store", "--since", "2020-01-01")
    link = f"https://ci:{HIDDEN}@ci.example/x"
    assert isobench("history", "add", run, "--store", "store", "--link", link).code == 0
    (row,) = Store(Path("store")).rows()
    assert row.link == "https://***@ci.example/x"
    monkeypatch.setenv("COLUMNS", "300")
    done = isobench("history", "list", *options, "--export-csv", "x.csv")
    assert "https://***@ci.example/x" in done.out
    assert "https://***@ci.example/x" in Path("x.csv").read_text()


def test_the_history_exports_no_secrets_of_earlier_entries(
    make_run: Callable[..., reader.Run], isobench: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("duckdb")
    host = {"cpu": "none", "kernel": f'6 {HIDDEN} "x"'}
    rows = entry.rows_of(make_run(about={"host": host}), link=f"/x/{HIDDEN}")
    assert HIDDEN in rows[0].conditions
    Store(Path("store")).add(rows)
    monkeypatch.setenv("DB_PASSWORD", HIDDEN)
    for kind in ("csv", "jsonl"):
        options = ("--store", "store", "--since", "2020-01-01", f"x.{kind}")
        assert isobench("history", "export", *options).code == 0
        assert HIDDEN not in Path(f"x.{kind}").read_text()
        assert "/x/***" in Path(f"x.{kind}").read_text()


# ---- what is learned, and what was cut


def test_all_secrets_of_a_command_are_learned() -> None:
    start = f"vm --password {HIDDEN} --api-token abcdefgh https://me:more-secrets@host"
    redaction.learn({"box": {"start": start}})
    assert redaction.text(f"({HIDDEN}) (abcdefgh) (more-secrets)") == "(***) (***) (***)"


@pytest.mark.parametrize(
    ("found", "shown"),
    [
        (f'vm start --password "{HIDDEN} x', "vm start --password ***"),
        (f"PASSWORD='{HIDDEN} x", "PASSWORD=***"),
        (f'{{"password": "{HIDDEN}', '{"password": "***"'),
        (f'X-Api-Key: "{HIDDEN}"', 'X-Api-Key: "***"'),
    ],
)
def test_a_secret_whose_end_was_cut_off_is_left_out(found: str, shown: str) -> None:
    assert redaction.text(found) == shown


def test_a_command_is_cut_after_its_secrets_are_left_out() -> None:
    url = f"https://me:{HIDDEN * 9}@registry.example.org/x"
    for argv in (["vm", "p" * 80, url], ["vm", "p" * 95, "--password", HIDDEN * 9]):
        assert HIDDEN not in _machine._describe(argv, 3, "")


def test_a_log_is_cut_after_its_secrets_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "MOST_LOG", 1000)
    folder = writer.RunFolder(tmp_path / "run")
    folder.log("box", b"x" * 980 + f" https://me:{HIDDEN}@host".encode())
    folder.close()
    log = (folder.path / "logs" / "box.log").read_text()
    assert "https://" in log
    assert HIDDEN[:3] not in log


def test_a_bundle_leaves_out_secrets_that_json_escapes(
    synthetic: Write, isobench: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = 'pa"ss\\word99'
    run = synthetic(gaps=[gap(detail=f"login with {found}"), gap(block=2, detail='no token="')])
    isobench("report", run, "-q")
    monkeypatch.setenv("DB_PASSWORD", found)
    assert isobench("pack", run, "-o", "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        files = {one.rpartition("/")[2]: archive.read(one).decode() for one in archive.namelist()}
    assert [name for name, text in files.items() if "word99" in text] == []
    assert reader.load(tmp_path / "x.zip").gaps[0].detail == "login with ***"
    assert "login with ***" in files["report.html"]


def test_a_bundle_has_the_reports_as_they_are_where_nothing_is_left_out(
    synthetic: Write, isobench: Run, tmp_path: Path
) -> None:
    run = synthetic()
    isobench("report", run, "-q")
    for name in ("report.html", "summary.md"):
        (run / name).write_text((run / name).read_text() + "token=as it is")
    assert isobench("pack", run, "-o", "x.zip").code == 0
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        for name in archive.namelist():
            if name.endswith(("report.html", "summary.md", "summary.json")):
                assert archive.read(name) == (run / name.rpartition("/")[2]).read_bytes()


@pytest.mark.parametrize("sign", ["\uff1d", "\uff0b", "\uff0d", "\uff20"])
def test_a_spreadsheet_takes_no_wide_sign_for_a_formula(sign: str) -> None:
    assert (
        sheet.csv(["a"], [{"a": f"{sign}HYPERLINK(1)"}]).splitlines()[1] == f"'{sign}HYPERLINK(1)"
    )
