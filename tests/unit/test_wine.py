"""The target `wine` without Wine: options, refusals, expectations, files."""

import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from isobench.config import paths
from isobench.evidence import prove
from isobench.model import Environment, Evidence, Fact, Lack, Unavailable
from isobench.model.errors import SessionError, UsageError
from isobench.plugins import ownership
from isobench.plugins.registry import Registry
from isobench.targets.shared import elf
from isobench.targets.translation import _pe, _wine
from isobench.targets.translation.wine import WineTarget
from tests import waiting

WINE = _wine.Wine(
    loader=Path("/nowhere/bin/wine64"),
    server=Path("/nowhere/bin/wineserver"),
    libraries=Path("/nowhere/lib"),
    version="wine-8.0",
)


def script(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def installed(folder: Path, loader: str = "echo wine-8.0") -> Path:
    """An installation whose loader is a shell script."""
    script(folder / "bin" / "wineserver", "exit 0")
    libraries = folder / "lib64" / "wine" / "x86_64-windows"
    libraries.mkdir(parents=True)
    (libraries / "ntdll.dll").write_bytes(b"a library")
    return script(folder / "bin" / "wine64", loader)


# ---- options and refusals ------------------------------------------------------------------------


def test_its_options_are_checked() -> None:
    with pytest.raises(UsageError, match="sometimes") as caught:
        Registry({"wine": {"server": "sometimes"}}).get("wine")
    assert '"kept", "fresh"' in caught.value.hint


@pytest.mark.parametrize(("server", "words"), [("kept", "run already"), ("fresh", "started again")])
def test_the_description_of_starts_follows_the_option(server: str, words: str) -> None:
    target = Registry({"wine": {"server": server}}).get("wine")
    assert isinstance(target, WineTarget)
    assert all(words in target.starts[name] for name in ("warm", "exec"))
    assert words not in target.starts["cold"]


@pytest.fixture
def x86(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


def refusal(loader: Path | str) -> Unavailable:
    answer = WineTarget(loader=str(loader)).probe()
    assert isinstance(answer, Unavailable)
    return answer


@pytest.mark.usefixtures("x86")
def test_a_missing_loader_is_named() -> None:
    answer = refusal("/nowhere/wine64")
    assert (answer.lack, answer.what) == (Lack.TOOL, "/nowhere/wine64")
    assert "loader in [targets.wine]" in answer.hint


@pytest.mark.usefixtures("x86")
def test_a_loader_without_a_version_is_no_wine(tmp_path: Path) -> None:
    loader = installed(tmp_path, "exit 0")
    with pytest.raises(_wine.MissingError, match="prints none"):
        _wine.find(str(loader))
    target = Registry({"wine": {"loader": str(loader)}}).get("wine")
    assert isinstance(target.probe(), Unavailable)


@pytest.mark.usefixtures("x86")
def test_without_wine_the_hint_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(_wine, "_FOLDERS", ())
    answer = refusal("")
    assert (answer.lack, answer.what) == (Lack.TOOL, "wine64 or wine")
    assert answer.hint == "isobench doctor --install wine"


@pytest.mark.usefixtures("x86")
def test_an_installation_without_64_bit_libraries_is_refused(tmp_path: Path) -> None:
    loader = installed(tmp_path)
    (tmp_path / "lib64/wine/x86_64-windows/ntdll.dll").unlink()
    answer = refusal(loader)
    assert answer.lack is Lack.TOOL
    assert "64-bit libraries" in answer.what


@pytest.mark.usefixtures("x86")
def test_a_loader_that_does_not_run_the_program_is_detected(tmp_path: Path) -> None:
    answer = refusal(installed(tmp_path, "echo wine-8.0; echo cannot today >&2"))
    assert answer.lack is Lack.RUNTIME
    assert answer.what.endswith("does not run a program for Windows: cannot today")
    assert "wineboot --init" in answer.hint


def test_on_another_isa_the_target_is_unavailable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert refusal("").lack is Lack.PLATFORM


# ---- expectations --------------------------------------------------------------------------------

HOST: dict[str, Fact] = {
    "kernel.boot_id": "one",
    "payload.format": "ELF",
    "wine.version": "",
    "machine": "x86_64",
    "cpu.hypervisor": "",
}
INSIDE = HOST | {"payload.format": "PE", "wine.version": "8.0"}


def environment(facts: dict[str, Fact]) -> Environment:
    return prove.gather(Evidence(key=k, value=v, source="test") for k, v in facts.items())


def broken(inside: dict[str, Fact]) -> str:
    checks = prove.check(
        WineTarget.expectations, host=environment(HOST), inside=environment(inside)
    )
    return prove.unmet(checks)


def test_evidence_from_wine_meets_its_expectations() -> None:
    assert broken(INSIDE) == ""


@pytest.mark.parametrize(
    ("why", "facts", "key"),
    [
        ("a program for Linux that the loader just executed", HOST, "payload.format"),
        ("Windows, which has no such function", INSIDE | {"wine.version": None}, "wine.version"),
        ("Wine in a virtual machine", INSIDE | {"kernel.boot_id": "two"}, "kernel.boot_id"),
        ("a host whose files are not seen", INSIDE | {"kernel.boot_id": None}, "kernel.boot_id"),
        ("an emulator under it", INSIDE | {"cpu.hypervisor": "TCGTCGTCGTCG"}, "cpu.hypervisor"),
        ("another ISA", INSIDE | {"machine": 12}, "machine"),
    ],
)
def test_evidence_that_contradicts_wine_is_caught(
    why: str, facts: dict[str, Fact], key: str
) -> None:
    assert f"{key} should be" in broken(facts), why


# ---- files ---------------------------------------------------------------------------------------


def test_the_smallest_program_is_a_console_program_for_windows() -> None:
    program = _pe.probe_program()
    (at,) = struct.unpack_from("<I", program, 60)
    assert program[:2] == b"MZ"
    assert program[at : at + 4] == b"PE\0\0"
    machine, sections = struct.unpack_from("<HH", program, at + 4)
    assert (machine, sections) == (0x8664, 1)
    magic, _, _, size = struct.unpack_from("<HBBI", program, at + 24)
    assert magic == 0x20B
    (subsystem,) = struct.unpack_from("<H", program, at + 24 + 68)
    assert subsystem == 3
    assert len(program) == 0x200 + size
    assert elf.ANSWER in program


def test_a_prefix_is_reduced_to_files_that_are_not_wines_own(tmp_path: Path) -> None:
    loader = installed(tmp_path / "opt")
    wine = _wine.find(str(loader))
    prefix = tmp_path / "prefix"
    system = prefix / "drive_c" / "windows" / "system32"
    system.mkdir(parents=True)
    (system / "ntdll.dll").write_bytes(b"a library")
    (system / "other.dll").write_bytes(b"a library")
    (prefix / "drive_c" / "ntdll.dll").write_bytes(b"another library")
    (prefix / "drive_c" / "Documents").symlink_to(Path.home())
    (prefix / "dosdevices").mkdir()
    for name in ("c:", "z:", "com1"):
        (prefix / "dosdevices" / name).symlink_to("/")
    (prefix / "wineserver").write_text("wine-abcdef")
    _wine._shrink(wine, prefix)
    assert (system / "ntdll.dll").readlink() == wine.libraries / "ntdll.dll"
    assert not (system / "other.dll").is_symlink()
    assert not (prefix / "drive_c" / "ntdll.dll").is_symlink()
    assert (prefix / "drive_c" / "Documents").is_dir()
    assert not (prefix / "drive_c" / "Documents").is_symlink()
    assert [path.name for path in (prefix / "dosdevices").iterdir()] == ["c:"]
    assert not (prefix / "wineserver").exists()
    assert (prefix / ".update-timestamp").read_text() == "disable\n"


def test_another_wine_has_another_prefix(tmp_path: Path) -> None:
    keys = set()
    for name, version in (("one", "8.0"), ("two", "8.0"), ("three", "9.0")):
        keys.add(_wine.find(str(installed(tmp_path / name, f"echo wine-{version}"))).key)
    (tmp_path / "one/lib64/wine/x86_64-windows/ntdll.dll").write_bytes(b"rebuilt")
    keys.add(_wine.find(str(tmp_path / "one/bin/wine64")).key)
    assert len(keys) == 4


def test_only_processes_of_the_prefix_are_ended(tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    sleepers = [
        subprocess.Popen(
            [sys.executable, "-c", "import time; print('runs', flush=True); time.sleep(600)"],
            env={**os.environ, "WINEPREFIX": str(prefix)},
            stdout=subprocess.PIPE,
        )
        for prefix in (ours, theirs)
    ]
    try:
        # For a moment after execve a process shows no environment.
        assert [waiting.line(sleeper) for sleeper in sleepers] == ["runs", "runs"]
        _wine.end(ours)
        assert sleepers[0].wait(10) == -9
        assert sleepers[1].poll() is None
    finally:
        for sleeper in sleepers:
            waiting.killed(sleeper)


def test_a_socket_folder_outside_tmp_is_not_removed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    for noted in (f"../{victim}", str(victim), "", "wine-/../..", "x"):
        (tmp_path / "wineserver").write_text(noted)
        assert _wine._sockets(tmp_path) == []


def test_a_program_can_make_anything_of_the_file_that_names_the_sockets(tmp_path: Path) -> None:
    place = tmp_path / "wineserver"
    os.mkfifo(place)
    assert _wine._sockets(tmp_path) == []
    place.unlink()
    with place.open("wb") as file:
        file.truncate(1 << 40)
    assert _wine._sockets(tmp_path) == []


def test_a_prefix_that_wine_cannot_make_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cache of the test suite may contain a real prefix of live tests.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    wine = _wine.find(str(installed(tmp_path, "[ $1 = --version ] && echo wine-8.0")))
    with pytest.raises(SessionError, match="wineboot") as caught:
        _wine.base(wine)
    assert "wineboot --init" in caught.value.hint
    assert [path.name for path in _wine.folder().iterdir()] == ["lock"]


def test_what_wine_printed_is_in_the_error_also_where_a_service_holds_its_streams(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    says = 'test "$1" = --version && { echo wine-8.0; exit; }\n'
    service = "(trap '' TERM; exec sleep 600) &\n"
    loader = installed(tmp_path, f"{says}{service}echo wine: no kernel32.dll >&2; exit 7")
    with pytest.raises(SessionError, match=r"exit code 7 .*--init: wine: no kernel32.dll"):
        _wine.base(_wine.find(str(loader)))


def test_a_flood_of_output_does_not_hold_wine_up(tmp_path: Path) -> None:
    flood = "yes failed | head -c 10000000"
    loader = installed(tmp_path, f"{flood}; echo last >&2; exit 7")
    wine = replace(WINE, loader=loader, server=script(tmp_path / "server", "exit 0"))
    with pytest.raises(SessionError, match=r"exit code 7 .*: f"):
        _wine.start_server(wine, tmp_path)


def test_instances_of_dead_runs_are_swept_and_those_of_living_runs_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The cache of the test suite may contain a real prefix of live tests.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert paths.cache() == tmp_path / "cache" / "isobench"
    mine = _wine.folder() / f"{ownership.mine()}-00000001"
    dead = _wine.folder() / "isobench-000000-1-1-00000002"
    making = _wine.folder() / ".making-x"
    kept = _wine.folder() / ("0" * 32)
    for folder in (mine, dead, making, kept):
        folder.mkdir(parents=True)
    alive = {ownership.mine()}
    assert sorted(map(str, _wine.sweep(alive.__contains__, cached=False))) == sorted(
        [f"folder {dead}", f"folder {making}"]
    )
    assert (mine.is_dir(), kept.is_dir()) == (True, True)
    assert [*map(str, _wine.sweep(alive.__contains__, cached=True))] == [f"folder {kept}"]
    mine.rmdir()
