"""The cache: nobody else writes it, and nothing in it is used that is not what was put there."""

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.config import cache, paths
from isobench.model import Abi, Payload, host_abi
from isobench.model.errors import PayloadError, UsageError
from isobench.model.units import Sha256
from isobench.payload import build, stage
from isobench.targets.containers import _podman
from isobench.targets.machines import _cache as guests
from isobench.targets.shared import oci
from tests.unit.command import Done

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away: sudo")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a cache of the test's own; return where it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache._check.cache_clear()
    return tmp_path / "home" / "isobench"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mask", [0, 0o022, 0o077])
def test_no_folder_of_the_cache_can_be_written_by_others(mask: int, home: Path) -> None:
    before = os.umask(mask)
    try:
        for name in ("runs", "payloads", "machines", "guests", "pods"):
            cache.made(name)
    finally:
        os.umask(before)
    assert [path for path in (home, *home.iterdir(), home.parent) if mode(path) & 0o066] == []
    assert mode(home / "machines") == 0o700


def test_a_folder_that_others_may_write_is_corrected(home: Path) -> None:
    (home / "machines").mkdir(parents=True)
    for path in (home, home / "machines"):
        path.chmod(0o777)
    cache.folder("machines")
    assert (mode(home), mode(home / "machines")) == (0o711, 0o700)


@as_root
def test_a_cache_of_another_user_is_refused(home: Path, isobench: Callable[..., Done]) -> None:
    home.mkdir(parents=True)
    os.chown(home, NOBODY, NOBODY)
    with pytest.raises(UsageError, match="it belongs to nobody"):
        cache.made("payloads")
    done = isobench("run", "-t", "native", "-w", "cpu.sieve", "-r", "1")
    assert done.code == 2
    assert f"the cache {home} is not used: it belongs to nobody" in done.words
    assert "XDG_CACHE_HOME=" in done.words
    assert list(home.iterdir()) == []


@as_root
def test_a_folder_of_another_user_within_the_cache_is_refused(home: Path) -> None:
    (home / "machines").mkdir(parents=True)
    os.chown(home / "machines", NOBODY, NOBODY)
    with pytest.raises(UsageError, match="it belongs to nobody"):
        cache.folder("machines")


def test_a_cache_in_a_folder_that_everyone_may_write_is_refused(home: Path) -> None:
    home.mkdir(parents=True)
    home.parent.chmod(0o777)
    with pytest.raises(UsageError, match="everyone may write it"):
        cache.folder()


@as_root
def test_root_makes_nothing_in_the_home_of_another_user(home: Path, tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    with pytest.raises(UsageError, match=f"{tmp_path}: it belongs to nobody") as caught:
        cache.made("payloads")
    assert caught.value.hint.startswith("sudo -H")
    assert not home.parent.exists()


def test_a_user_whose_cache_belongs_to_another_is_told_how_to_get_it_back(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(parents=True)
    monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    with pytest.raises(UsageError, match="it belongs to") as caught:
        cache.made()
    assert f"sudo chown -R $(id -un) {home}; or sudo rm -r {home}" in caught.value.hint


def test_a_parent_that_others_may_write_is_named_in_the_hint(home: Path, tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(UsageError, match=f"{tmp_path}: everyone may write it") as caught:
        cache.made()
    assert caught.value.hint.startswith(f"chmod go-w {tmp_path}; ")
    assert not home.parent.exists()
    home.mkdir(parents=True)
    cache._check.cache_clear()
    with pytest.raises(UsageError, match=f"{tmp_path}: everyone may write it") as caught:
        cache.made()
    assert caught.value.hint.startswith(f"chmod go-w {tmp_path}; ")


@pytest.mark.parametrize("damage", [b"", b"#!/bin/sh\nid > /tmp/x\n"])
def test_a_kept_file_that_was_changed_is_not_used(damage: bytes) -> None:
    path = cache.made("payloads") / "program"
    cache.keep(path, b"program", mode=0o755)
    assert (cache.verified(path), mode(path)) == (b"program", 0o755)
    path.write_bytes(damage)
    assert cache.verified(path) is None


def test_a_kept_file_is_never_read_through_a_link(tmp_path: Path) -> None:
    path = cache.made("payloads") / "program"
    cache.keep(path, b"program")
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    assert cache.verified(path) is None


def test_writing_replaces_a_link_and_leaves_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "mine").write_bytes(b"before")
    path = cache.made("payloads") / "program"
    path.symlink_to(tmp_path / "mine")
    cache.replace(path, b"after")
    assert ((tmp_path / "mine").read_bytes(), path.read_bytes()) == (b"before", b"after")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return a C source of the user's own."""
    path = tmp_path / "payload.c"
    path.write_bytes((paths.shared("workloads") / "cpu_sieve" / "payload.c").read_bytes() + b"\n")
    return path


def abi() -> Abi:
    found = host_abi()
    assert found is not None
    return found


@pytest.mark.parametrize("damage", [b"", b"#!/bin/sh\nexit 0\n"])
def test_a_compiled_program_that_was_damaged_is_built_again(damage: bytes, source: Path) -> None:
    pytest.importorskip("ziglang", reason="the compiler is missing: pip install 'isobench[build]'")
    first = build.build("mine", source, abi())
    whole = first.path.read_bytes()
    first.path.write_bytes(damage)
    again = build.build("mine", source, abi())
    assert (again.sha256, again.path.read_bytes()) == (first.sha256, whole)


def test_a_program_that_was_replaced_during_a_run_is_in_no_stage(tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(b"program")
    payload = Payload(
        program="mine",
        abi=abi(),
        path=program,
        sha256=Sha256(hashlib.sha256(b"program").hexdigest()),
        compiler="",
        flags=(),
    )
    with stage.workshop([payload]) as shop:
        assert (shop.stage(abi()).root / "isobench" / "mine").read_bytes() == b"program"
        program.write_bytes(b"#!/bin/sh\nid\n")
        with pytest.raises(PayloadError, match="damaged or replaced"):
            shop.stage(abi())


def test_a_guest_that_was_replaced_with_the_same_times_is_not_used(tmp_path: Path) -> None:
    def make(work: Path, result: Path) -> list[str]:
        (result / "kernel").write_bytes(b"kernel")
        return []

    part, _ = guests.obtain("kernel-x", make, "", lambda _: None)
    kernel, before = part / "kernel", (part / "kernel").stat()
    assert guests.find("kernel-x") is not None
    kernel.write_bytes(b"lenrek")
    os.utime(kernel, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert guests.find("kernel-x") is None


def test_a_runtime_in_the_remembered_settings_is_never_a_program_that_nobody_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = _podman.Options()
    evil = oci.Settings(runtime="/tmp/evil", cgroup_manager="", limits=False, flags=())
    _podman._remember(engine, evil)
    tried: list[str] = []

    def start_error(_engine: object, settings: oci.Settings, _root: Path) -> str:
        tried.append(settings.runtime)
        return ""

    monkeypatch.setattr(_podman, "_start_error", start_error)
    monkeypatch.setattr(_podman, "_working", {})
    _podman.working_settings(engine)
    assert tried == [""]


def test_notes_of_machines_are_for_their_owner_alone() -> None:
    path = cache.made("machines") / "note.json"
    cache.replace(path, b"{}")
    assert (mode(path), mode(path.parent)) == (0o600, 0o700)
    assert paths.cache() in path.parents


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/null")])
def test_what_is_no_regular_file_in_the_place_of_one_is_not_there(
    make: Callable[[Path], None], tmp_path: Path
) -> None:
    make(tmp_path / "kept")
    before = sorted(Path("/proc/self/fd").iterdir())
    assert cache.content(tmp_path / "kept", hashlib.sha256(b"").hexdigest()) is None
    assert sorted(Path("/proc/self/fd").iterdir()) == before
