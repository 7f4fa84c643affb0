"""What comes with isobench is used while it is what would be built now, and never otherwise."""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from isobench.config import paths
from isobench.model import Abi, Payload
from isobench.model.errors import PayloadError
from isobench.payload import build, compiler, ship, shipped
from isobench.workloads import loader

SOURCE = """
#include "isobench.h"
static uint64_t ib_work(struct ib *ib, uint64_t loops) { (void)ib; return loops * 5; }
"""
ABI = Abi.ELF_X86_64


class Installed:
    """An isobench that came with one payload."""

    def __init__(self, source: Path, folder: Path) -> None:
        self.source, self.folder = source, folder

    @property
    def program(self) -> Path:
        return self.folder / ABI / "unit.five"

    def take(self) -> Payload:
        return build.build("unit.five", self.source, ABI)

    def obstacle(self) -> str:
        return shipped.obstacle("unit.five", self.source, ABI, libc=False)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installed:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "payload.c"
    source.write_text(SOURCE)
    one = Installed(source, tmp_path / "payloads")
    job = build.Job(program="unit.five", source=source, abi=ABI, libc=False)
    monkeypatch.setattr(ship, "jobs", lambda: [job])
    ship.make(one.folder)
    monkeypatch.setattr(paths, "payloads", lambda: one.folder)
    return one


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be where the extra `build` is not installed."""
    monkeypatch.setitem(sys.modules, "ziglang", None)
    monkeypatch.setattr(compiler, "_zig", compiler._zig.__wrapped__)


def test_what_came_runs_without_a_compiler_and_is_described_in_full(
    installed: Installed, no_compiler: None
) -> None:
    payload = installed.take()
    entry = shipped.manifest()["unit.five", ABI]
    assert payload.path.read_bytes() == installed.program.read_bytes()
    assert os.access(payload.path, os.X_OK)
    assert payload.path.is_relative_to(paths.cache())
    assert payload.sha256 == entry.sha256
    assert payload.compiler.startswith("zig cc ")
    assert payload.flags == compiler.flags(ABI, libc=False)


def test_what_came_without_the_right_to_be_executed_runs(
    installed: Installed, no_compiler: None
) -> None:
    installed.program.chmod(0o644)
    assert os.access(installed.take().path, os.X_OK)


def test_a_changed_source_is_compiled_and_not_served_the_stale_program(
    installed: Installed,
) -> None:
    before = installed.take()
    installed.source.write_text(SOURCE.replace("* 5", "* 7"))
    after = installed.take()
    assert after.sha256 != before.sha256
    assert after.path != before.path


def test_a_changed_source_without_a_compiler_is_refused(
    installed: Installed, no_compiler: None
) -> None:
    installed.source.write_text(SOURCE + "/* changed */")
    assert "its sources have changed" in installed.obstacle()
    assert str(installed.source) in installed.obstacle()
    with pytest.raises(PayloadError, match="no compiler is installed"):
        installed.take()


def test_a_changed_flag_is_no_less_than_a_changed_source(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "FLAGS", (*compiler.FLAGS, "-g"))
    assert "its sources have changed" in installed.obstacle()
    assert "-g" in installed.take().flags


def test_a_damaged_program_is_compiled_anew(installed: Installed) -> None:
    before = installed.program.read_bytes()
    installed.program.write_bytes(before[:-1] + b"?")
    assert installed.take().path.read_bytes() == before


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_damaged_program_without_a_compiler_is_refused_and_never_run(
    damage: str, installed: Installed, no_compiler: None
) -> None:
    if damage == "gone":
        installed.program.unlink()
    else:
        installed.program.write_bytes(installed.program.read_bytes() + b"?")
    assert "is damaged: install isobench again" in installed.obstacle()
    assert str(installed.program) in installed.obstacle()
    with pytest.raises(PayloadError, match="no compiler is installed"):
        installed.take()
    assert not list((paths.cache() / "payloads").glob("*unit.five"))


def test_a_damaged_copy_in_the_cache_is_made_again(installed: Installed, no_compiler: None) -> None:
    kept = installed.take().path
    kept.write_bytes(b"damaged")
    assert installed.take().path.read_bytes() == installed.program.read_bytes()
    assert [path.name for path in kept.parent.iterdir()] == [kept.name]


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 2, "payloads": []}', '{"format": 1}'])
def test_a_manifest_that_cannot_be_read_ships_nothing(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / shipped.MANIFEST).write_text(text)
    monkeypatch.setattr(paths, "payloads", lambda: tmp_path)
    assert shipped.manifest() == {}


def test_an_isobench_that_was_not_installed_says_that_its_payloads_did_not_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paths, "payloads", lambda: None)
    missing = build.to_compile(ship.jobs())
    assert set(missing) == {*build.programs(loader.find().values()), *build.TOOLS}
    assert all(why.startswith("none came with isobench") for why in missing.values())


def test_payloads_are_found_beside_the_package_and_on_the_path_of_an_editable_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "isobench" / "_shared" / "payloads"
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "elsewhere" / "isobench")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path)])
    assert paths.payloads() is None
    folder.mkdir(parents=True)
    (folder / shipped.MANIFEST).write_text("{}")
    assert paths.payloads() == folder
    monkeypatch.setattr(paths, "_PACKAGE", tmp_path / "isobench")
    monkeypatch.setattr(sys, "path", [])
    assert paths.payloads() == folder


def test_all_that_isobench_brings_is_shipped_for_every_abi_that_has_it() -> None:
    shipping = {(job.program, job.abi) for job in ship.jobs()}
    every = loader.find().values()
    assert not [workload for workload in every if workload.libc]
    for abi in Abi:
        needed = build.jobs(build.programs(every), [abi])
        if abi.system == "linux":
            needed += build.tool_jobs(abi)
        assert {(job.program, job.abi) for job in needed} <= shipping
    assert len(shipping) == len(ship.jobs())


def test_building_again_elsewhere_gives_the_same_programs_hash_by_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From nothing: another place, another user's folders, an empty cache of the compiler."""
    before = _built_before(tmp_path / "before")
    workloads = paths.shared("workloads")
    copied = shutil.copytree(workloads, tmp_path / "another place" / "workloads")
    monkeypatch.setattr(paths, "shared", lambda _: copied)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    ship.make(again := tmp_path / "again")
    assert shipped.read((again / shipped.MANIFEST).read_text()) == before
    _holds_what_it_says(again)


def _built_before(folder: Path) -> Mapping[tuple[str, Abi], shipped.Shipped]:
    """Return what was built with the wheel; where that was of other sources, what is built now."""
    wanted = {
        (job.program, job.abi, compiler.inputs(job.source, job.abi, libc=job.libc), compiler.name())
        for job in ship.jobs()
    }
    came = shipped.manifest()
    if {(one.program, one.abi, one.inputs, one.compiler) for one in came.values()} == wanted:
        return came
    ship.make(folder)
    return shipped.read((folder / shipped.MANIFEST).read_text())


def _holds_what_it_says(folder: Path) -> None:
    text = (folder / shipped.MANIFEST).read_text()
    entries = shipped.read(text)
    assert {path for path in folder.rglob("*") if path.is_file()} == {
        folder / shipped.MANIFEST,
        *(folder / entry.abi / entry.program for entry in entries.values()),
    }
    for entry in entries.values():
        content = (folder / entry.abi / entry.program).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry.sha256
    assert set(json.loads(text)["headers"]) == {path.name for path in compiler.headers()}
