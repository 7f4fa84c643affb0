"""Programs for Windows under a real Wine: tests beyond the contract of all targets."""

import contextlib
import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from isobench.model import Available
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Target
from isobench.plugins.registry import Registry
from isobench.targets.translation import _wine
from isobench.targets.translation.wine import WineTarget
from tests import waiting
from tests.conftest import PROGRAM, Staged
from tests.contract.test_targets import KILLED, SOURCE, unquoted
from tests.live.conftest import Command

pytestmark = pytest.mark.live
TIMEOUT = seconds(120)

Able = Callable[[str], Target]
Make = Callable[[Target], Staged]


@pytest.fixture
def target(able: Able) -> WineTarget:
    found = able("wine")
    assert isinstance(found, WineTarget)
    return found


@pytest.fixture
def one(target: WineTarget, staged: Make) -> Staged:
    return staged(target)


def sockets() -> set[Path]:
    """The folders of this user's servers in /tmp."""
    temporary = Path("/tmp")
    found = [*temporary.glob("wine-??????"), *temporary.glob(f".wine-{os.getuid()}/server-*")]
    return {path for path in found if path.is_dir()}


def tied(whose: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("ISOBENCH_TIED") == whose:
                found.append(process.name())
    return sorted(found)


@pytest.fixture(autouse=True)
def nothing_left(cache: Path) -> Iterator[None]:
    before = sockets()
    yield
    assert tied(ownership.mine()) == []
    assert list((cache / "isobench/wine").glob("isobench-*")) == []
    # Others may use Wine at the same time: these folders contain their servers as well.
    status = set[Path]()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            where = Path(process.cwd())
            status |= {where, where.parent}
    assert sockets() - before - status == set()


@pytest.mark.parametrize(
    "words",
    [
        ['"', '""', '"a', 'a"', 'a"b', '\\"', '\\\\"', 'a\\\\"b c'],
        ["\\", "\\\\", "a\\", "a b\\", "a b\\\\", "\\ "],
        [" ", "\t", "a\tb", "", "", "tail"],
        ["日本語", "𝄞", "ß" * 300, "é" * 2],
        ["%PATH%", "^", "&", "|", "<", ">", "/?", "@x"],
    ],
)
def test_arguments_survive_the_command_line_of_windows(
    words: list[str], target: WineTarget, one: Staged
) -> None:
    with target.open(one.stage) as session:
        done = session.run(one.command(PROGRAM, "say", *words), timeout=TIMEOUT)
    assert unquoted(done.stdout) == words


def test_bytes_arrive_as_they_were_written(target: WineTarget, one: Staged) -> None:
    with target.open(one.stage) as session:
        done = session.run(one.command(PROGRAM, "flood", "4"), timeout=TIMEOUT)
    assert len(done.stdout) == 4 * 65536
    assert b"\r" not in done.stdout


def test_the_services_of_a_session_hold_none_of_its_streams(
    target: WineTarget, one: Staged
) -> None:
    with target.open(one.stage) as session:
        names = tied(ownership.mine())
        assert any(name.startswith("wineserver") for name in names)
        assert "services.exe" in names
        # It ends by itself. If a service held its output, it would run into the time limit.
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=seconds(60)).exit_code == 5
    assert tied(ownership.mine()) == []


def test_a_launch_begins_without_a_server(target: WineTarget, one: Staged) -> None:
    seen: list[list[str]] = []
    nonce = secrets.token_hex(8)
    one.on_chunk = lambda _: seen.append(tied(ownership.mine()))
    done = target.launch(one.stage, one.command("_startup", nonce), timeout=TIMEOUT)
    assert done.exit_code == 0
    assert one.marks == [BEGIN]
    assert done.stdout.startswith(wire.hello(nonce))
    assert any(name.startswith("wineserver") for name in seen[0])


@pytest.mark.parametrize("server", ["kept", "fresh"])
def test_the_option_decides_whether_the_server_keeps_running(
    server: str, one: Staged, target: WineTarget
) -> None:
    target = WineTarget(server=server, loader=target.loader)  # type: ignore[arg-type]
    with target.open(one.stage) as session:
        for code in (3, 4):
            assert (
                session.run(one.command(PROGRAM, "end", str(code)), timeout=TIMEOUT).exit_code
                == code
            )
            assert bool(tied(ownership.mine())) == (server == "kept")
        facts = {fact.key: fact.value for fact in session.witness()}  # type: ignore[attr-defined]
    assert facts["host.wine.server"] == server
    assert str(facts["host.wine"]).startswith("wine-")


@pytest.mark.timeout(1800)
def test_a_run_distinguishes_both_kinds_of_calls_and_names_them(
    target: WineTarget, isobench: Command
) -> None:
    done = isobench(
        *("run", "--quick", "-r", "2", "--min-time", "0.004s", "--targets", "wine"),
        *("--workloads", "syscall.yield,syscall.getppid,io.seq-read"), timeout=900,
    )  # fmt: skip
    assert done.code == 0, done.said
    summary = done.summary()
    assert summary["gaps"] == []
    (found,) = (t for t in summary["targets"] if t["name"] == "wine")
    assert (found["status"], found["class"]) == ("measured", "translation")
    assert found["evidence"]["wine.version"] == "unlike"
    assert found["evidence"]["kernel.boot_id"] == "same"
    (programs,) = (d for d in found["parity"] if d["label"] == "programs")
    assert programs["target"].endswith("other ABI and file format")
    doubts = {
        c["workload"]: " ".join(map(str, c["doubts"]))
        for c in summary["cells"]
        if c["target"] == "wine"
    }
    assert "NtQueryInformationProcess" in doubts["syscall.getppid"]
    assert "SwitchToThread" in doubts["syscall.yield"]
    assert "page cache" in doubts["io.seq-read"]


def test_after_kill_9_no_server_and_no_prefix_are_left(target: WineTarget, tmp_path: Path) -> None:
    token = secrets.token_hex(8)
    before = sockets()
    program = [sys.executable, "-c", KILLED, "wine", token, str(SOURCE)]
    doomed = subprocess.Popen(program, stdout=subprocess.PIPE)
    try:
        assert waiting.line(doomed, 300) == "printed"
    finally:
        waiting.killed(doomed)
    prefixes = list(_wine.folder().glob(f"isobench-*-{doomed.pid}-*"))
    assert len(prefixes) == 1
    (place,) = _wine._sockets(prefixes[0]) or (None,)
    assert place is not None
    assert place not in before
    assert f"folder {prefixes[0]}" in map(str, target.sweep(ownership.alive, cached=False))
    assert (prefixes[0].exists(), place.exists()) == (False, False)


def test_a_probe_leaves_nothing_and_needs_no_prefix(
    target: WineTarget, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del target
    # A folder of its own: other tests probe at the same time.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert isinstance(Registry().get("wine").probe(), Available)
    assert list(tmp_path.glob("isobench-probe-*")) == []
