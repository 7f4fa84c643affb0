"""The cache of guests, and the archives that go into one. Nothing is downloaded."""

import fcntl
import gzip
import lzma
import os
import shlex
import stat
import struct
import tarfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.model.errors import SessionError
from isobench.payload import stage
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.machines import _cache, _complete, _guest, _packages
from tests.unit.test_cpio import entries

MAGIC = b"~Module signature appended~\n"


@pytest.fixture(autouse=True)
def guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / 'cache, of "mine" é'))
    monkeypatch.setattr(_cache, "_verified_files", set())
    return _cache.folder()


class Maker:
    """Fills a part with a file, and counts its calls."""

    def __init__(self, content: bytes = b"kernel" * 1000) -> None:
        self.content, self.calls, self.messages = content, 0, list[str]()
        self.before: Callable[[], None] = lambda: None

    def __call__(self, work: Path, result: Path) -> list[str]:
        self.calls += 1
        self.before()
        assert list(work.iterdir()) == list(result.iterdir()) == []
        (work / "rubbish").write_bytes(b"x")
        (result / "kernel").write_bytes(self.content)
        return ["linux 6.1"]

    def part(self, name: str = "kernel-1-x") -> Path:
        folder, made = _cache.obtain(name, self, "making", self.messages.append)
        assert made.packages == ["linux 6.1"]
        return folder


# ---- the cache -----------------------------------------------------------------------------------


def test_a_part_is_made_once_and_announced_once(guests: Path) -> None:
    maker = Maker()
    folder = maker.part()
    assert folder == maker.part()
    assert (maker.calls, maker.messages) == (1, ["making"])
    assert (folder / "kernel").read_bytes() == maker.content
    assert (folder.parent, folder.name) == (guests, (guests / "kernel-1-x").readlink().name)
    assert sorted(path.name for path in guests.iterdir()) == sorted(
        [folder.name, "kernel-1-x", "lock"]
    )


@pytest.mark.parametrize("file", ["kernel", "manifest.json"])
@pytest.mark.parametrize("how", ["flipped", "cut", "empty", "gone", "folder"])
def test_a_damaged_part_is_replaced_and_not_used(file: str, how: str) -> None:
    maker = Maker()
    path = maker.part() / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.unlink()
    match how:
        case "flipped":
            path.write_bytes(bytes(data))
        case "cut":
            path.write_bytes(bytes(data[:-1]))
        case "empty":
            path.touch()
        case "folder":
            path.mkdir()
        case _:
            pass
    assert _cache.find("kernel-1-x") is None
    folder = maker.part()
    assert (folder / "kernel").read_bytes() == maker.content
    assert maker.calls == 2
    assert maker.part() == folder
    assert maker.calls == 2  # and the replacement is used


def test_a_manifest_whose_name_is_not_its_hash_is_no_part() -> None:
    """It was written by hand: the name of its folder is not the hash of its content."""
    folder = Maker().part()
    (folder / "manifest.json").write_text('{"files":{},"packages":[]}')
    assert _cache.find("kernel-1-x") is None


def test_a_file_that_was_verified_is_not_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Maker().part()
    assert _cache.find("kernel-1-x") is not None
    monkeypatch.setattr(_cache, "_digest", lambda _: pytest.fail("read again"))
    assert _cache.find("kernel-1-x") is not None
    os.utime(folder / "kernel", (1, 1))
    with pytest.raises(pytest.fail.Exception):
        _cache.find("kernel-1-x")


def test_two_makers_at_once_make_one_part() -> None:
    maker = Maker()
    maker.before = lambda: time.sleep(0.2)
    found: list[Path] = []
    threads = [threading.Thread(target=lambda: found.append(maker.part())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert maker.calls == 1
    assert len(found) == 4
    assert len(set(found)) == 1


def test_a_part_that_cannot_be_made_leaves_nothing(guests: Path) -> None:
    maker = Maker()

    def fail() -> None:
        raise SessionError("no network", hint="connect it")

    maker.before = fail
    with pytest.raises(SessionError, match="no network"):
        maker.part()
    assert [path.name for path in guests.iterdir()] == ["lock"]


def test_a_full_disk_is_an_error_with_a_hint() -> None:
    maker = Maker()

    def fill() -> None:
        raise OSError(28, "No space left on device", "/cache/guests/x")

    maker.before = fill
    with pytest.raises(SessionError, match="No space left on device") as caught:
        maker.part()
    assert "XDG_CACHE_HOME" in caught.value.hint


def test_the_sweep_removes_unfinished_parts_and_nothing_else(guests: Path) -> None:
    assert _cache.sweep() == []
    folder = Maker().part()
    left = guests / ".making-abc"
    (left / "work").mkdir(parents=True)
    (left / "work" / "half").write_bytes(b"x")
    assert [str(found) for found in _cache.sweep()] == [f"folder {left}"]
    assert not left.exists()
    assert (folder / "kernel").exists()
    assert _cache.sweep() == []


def test_the_sweep_removes_files_of_other_users_in_a_user_namespace(
    guests: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = guests / ".making-abc"
    (left / "work").mkdir(parents=True)
    commands: list[tuple[list[str], Path]] = []
    done = Completed(exit_code=0, stdout=b"", stderr=b"")
    monkeypatch.setattr(_cache.os, "geteuid", lambda: 1000)
    monkeypatch.setattr(_cache.cache, "folder", lambda _: guests)
    monkeypatch.setattr(_cache.shutil, "rmtree", lambda *_, **__: None)
    monkeypatch.setattr(
        _cache.processes, "run", lambda argv, folder, **_: commands.append((argv, folder)) or done
    )
    (found,) = _cache.sweep()
    assert commands == [(["mmdebstrap", "--unshare-helper", "rm", "-rf", "root"], left / "work")]
    assert (
        found.failure
        == f"some of its files cannot be removed: sudo rm -rf {shlex.quote(str(left))}"
    )


def test_the_sweep_removes_nothing_while_a_part_is_made(guests: Path) -> None:
    left = guests / ".making-abc"
    left.mkdir(parents=True)
    with (guests / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert _cache.sweep() == []
    assert left.exists()


def test_the_cache_is_not_removed_while_a_part_is_made(guests: Path) -> None:
    Maker().part()
    with (guests / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        (found,) = stage.remove_cache()
        assert found.failure == "another isobench is writing to it"
    assert guests.exists()
    assert stage.remove_cache() != []
    assert not guests.exists()


def test_the_sweep_of_a_cache_that_cannot_be_opened_does_not_raise(guests: Path) -> None:
    guests.mkdir(parents=True)
    (guests / "lock").mkdir()
    assert _cache.sweep() == []


def test_an_ordinary_user_makes_a_complete_guest_as_root_of_a_user_namespace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def run(argv: list[str], _what: str, *, folder: Path = tmp_path) -> None:
        # This root is another user, who makes files there.
        assert stat.S_IMODE(folder.stat().st_mode) & 0o003 == 0o003
        commands.append(argv)
        if argv[0] == "mmdebstrap" and argv[1] != "--unshare-helper":
            tarfile.open(tmp_path / "root.tar", "w").close()

    monkeypatch.setattr(_complete, "_run", run)
    monkeypatch.setattr(_cache.os, "geteuid", lambda: 1000)
    _complete._make(tmp_path, tmp_path)
    _, made, _ = commands
    assert made[:4] == ["mmdebstrap", "--unshare-helper", "sh", "-c"]
    assert "--exclude './dev/*'" in made[4]  # nor can it make devices


# ---- apt -----------------------------------------------------------------------------------------


def stand_in(folder: Path, **scripts: str) -> None:
    """Write shell scripts into a folder as programs; `apt_get` becomes apt-get."""
    folder.mkdir(exist_ok=True)
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that comes first on PATH."""
    folder = tmp_path / "tools"
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    return folder


UNKNOWN = "echo 'E: No packages found' >&2; exit 100"
UNREACHED = "W: Failed to fetch http://deb.example/InRelease  Could not connect to deb.example"


def test_the_error_for_sources_that_do_not_answer_quotes_apt(tools: Path) -> None:
    """apt-get exits with 0, and then finds no package."""
    stand_in(tools, apt_get=f"echo '{UNREACHED}' >&2; exit 0", apt_cache=UNKNOWN)
    with pytest.raises(SessionError, match="Could not connect to deb") as caught:
        _guest.guest("x86_64")
    assert "network" in caught.value.hint


def test_the_error_for_a_package_that_no_source_has_names_it(tools: Path) -> None:
    stand_in(tools, apt_get="exit 0", apt_cache=UNKNOWN)
    with pytest.raises(SessionError, match="apt has no package dropbear-bin") as caught:
        _guest.guest("x86_64")
    assert "universe" in caught.value.hint
    with pytest.raises(SessionError, match="no kernel for amd64"):
        _guest.guest("x86_64", server=False)


def test_an_apt_that_fails_is_quoted(tools: Path) -> None:
    stand_in(tools, apt_get="echo 'E: The list of sources could not be read.' >&2; exit 100")
    with pytest.raises(SessionError, match=r"apt-get update failed: E: The list of sources could"):
        _guest.guest("x86_64")
    stand_in(tools, apt_get="echo 'E: Write error (28: No space left on device)' >&2; exit 100")
    with pytest.raises(SessionError, match="No space left on device") as caught:
        _guest.guest("x86_64")
    assert "df -h" in caught.value.hint


def test_apt_uses_neither_the_state_nor_the_hooks_of_the_host(tools: Path, tmp_path: Path) -> None:
    stand_in(
        tools,
        apt_get=f'printf "%s\\n" "$@" > "{tmp_path}/argv"; cat no-hooks.conf > "{tmp_path}/conf";'
        f' echo "$ISOBENCH_TIED" > "{tmp_path}/tied"; exit 100',
    )
    with pytest.raises(SessionError):
        _guest.guest("x86_64")
    argv = (tmp_path / "argv").read_text().splitlines()
    for key in ("Dir::State", "Dir::State::lists", "Dir::State::status", "Dir::Cache"):
        (value,) = [word.partition("=")[2] for word in argv if word.startswith(f"-o{key}=")]
        assert value.startswith(str(tmp_path / "cache"))
    cleared = (tmp_path / "conf").read_text()
    assert "#clear APT::Update::Post-Invoke;" in cleared
    assert "#clear APT::Update::Post-Invoke-Success;" in cleared
    assert (tmp_path / "tied").read_text().strip() == ownership.mine()


# ---- modules -------------------------------------------------------------------------------------


def module(depends: str, body: bytes = b"code") -> bytes:
    return b"\x7fELF" + body + b"\0license=GPL\0depends=" + depends.encode() + b"\0intree=Y\0"


def signed(data: bytes) -> bytes:
    signature = b"S" * 300
    return data + signature + struct.pack(">8xI", len(signature)) + MAGIC


def listed(archive: bytes) -> tuple[list[str], dict[str, bytes]]:
    found = {entry.name: entry.content for entry in entries(archive)}
    names = [Path(line).name for line in found["guest/modules"].decode().splitlines()]
    for line in found["guest/modules"].decode().splitlines():
        assert line.lstrip("/") in found
    return names, {Path(name).name: data for name, data in found.items() if "/drivers/" in name}


def test_modules_are_loaded_after_what_they_depend_on(tmp_path: Path) -> None:
    modules = {
        name: path
        for name, depends in {
            "virtio": "", "virtio_ring": "", "virtio_net": "net-failover,virtio,virtio_ring",
            "net_failover": "failover", "failover": "", "unasked": "virtio",
            "virtio_pci": "virtio_ring,virtio,built_in",
        }.items()
        for path in [tmp_path / f"{name}.ko"]
        if path.write_bytes(module(depends))
    }  # fmt: skip
    names, _ = listed(_guest.module_archive(modules, ("virtio_pci", "virtio_net", "virtio_blk")))
    assert sorted(names) == sorted(f"{name}.ko" for name in modules if name != "unasked")
    for before, after in [
        ("virtio", "virtio_pci"), ("virtio_ring", "virtio_pci"), ("virtio", "virtio_net"),
        ("failover", "net_failover"), ("net_failover", "virtio_net"), ("virtio_pci", "virtio_net"),
    ]:  # fmt: skip
        assert names.index(f"{before}.ko") < names.index(f"{after}.ko")


def test_with_all_drivers_built_in_the_list_is_empty() -> None:
    assert listed(_guest.module_archive({})) == ([], {})


def test_modules_that_need_each_other_do_not_loop(tmp_path: Path) -> None:
    modules = {}
    for name, depends in (("a", "b"), ("b", "a")):
        modules[name] = tmp_path / f"{name}.ko"
        modules[name].write_bytes(module(depends))
    names, _ = listed(_guest.module_archive(modules, ("a",)))
    assert sorted(names) == ["a.ko", "b.ko"]


def test_compressed_modules_are_decompressed_if_python_can_and_otherwise_by_the_kernel(
    tmp_path: Path,
) -> None:
    plain = module("", b"the code")
    paths = {}
    for name, suffix, data in (
        ("one", ".ko", plain),
        ("two", ".ko.xz", lzma.compress(plain)),
        ("three", ".ko.gz", gzip.compress(plain)),
        ("four", ".ko.zst", b"\x28\xb5\x2f\xfd packed"),
    ):
        paths[name] = tmp_path / f"{name}{suffix}"
        paths[name].write_bytes(data)
    names, content = listed(_guest.module_archive(paths, ("one", "two", "three", "four")))
    assert names == ["one.ko", "two.ko", "three.ko", "four.ko.zst"]
    assert content["one.ko"] == content["two.ko"] == content["three.ko"] == plain
    assert content["four.ko.zst"] == b"\x28\xb5\x2f\xfd packed"


@pytest.mark.parametrize("suffix", [".ko.xz", ".ko.gz"])
def test_the_error_for_a_damaged_module_has_its_path(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"virtio{suffix}"
    path.write_bytes(b"no such thing")
    with pytest.raises(SessionError, match=f"virtio{suffix}"):
        _guest.module_archive({"virtio": path}, ("virtio",))


def test_signatures_are_removed(tmp_path: Path) -> None:
    plain = module("", b"the code" * 100)
    path = tmp_path / "one.ko"
    path.write_bytes(signed(plain))
    _, content = listed(_guest.module_archive({"one": path}, ("one",)))
    assert content["one.ko"] == plain


@pytest.mark.parametrize("data", [b"", b"short", MAGIC, b"x" + MAGIC, b"\xff" * 12 + MAGIC])
def test_data_without_a_valid_signature_is_unchanged(data: bytes) -> None:
    assert _guest.without_signature(data) == data


# ---- the archive of an instance ------------------------------------------------------------------


def test_archives_of_a_guest_are_aligned_as_the_kernel_expects(
    tmp_path: Path,
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    for name in ("_init", "cpu.sieve"):
        (programs / name).write_bytes(name.encode())
    packed = tmp_path / "a"
    packed.write_bytes(gzip.compress(b"of a length that is no multiple of four")[:-1] + b"!")
    own = _guest.stage_archive(
        programs, request=b"ask", address="10.0.2.15 24 eth0", host_key=b"h", authorized="ssh-x y"
    )
    guest = _guest.Guest(kernel=tmp_path / "k", archives=(packed,), packages=())
    _guest.write_initrd(tmp_path / "initrd", guest, own)
    written = (tmp_path / "initrd").read_bytes()
    assert written.startswith(packed.read_bytes())
    at = written.index(b"070701")
    assert at % 4 == 0
    assert set(written[packed.stat().st_size : at]) <= {0}
    found = {entry.name: entry for entry in entries(written[at:])}
    assert found["init"].content == found["isobench/_init"].content == b"_init"
    assert found["init"].numbers["mode"] & 0o777 == 0o755
    assert found["isobench/cpu.sieve"].content == b"cpu.sieve"
    assert found["guest/request"].content == b"ask"
    assert found["guest/address"].content == b"10.0.2.15 24 eth0\n"
    assert found["root/.ssh/authorized_keys"].content == b"ssh-x y\n"
    for name in ("guest/host_key", "root/.ssh/authorized_keys"):
        assert found[name].numbers["mode"] & 0o077 == 0
    assert found["root"].numbers["mode"] & 0o077 == 0


def test_a_missing_folder_of_modules_is_an_empty_archive(tmp_path: Path, guests: Path) -> None:
    archive = _guest._user_modules(tmp_path / "nowhere")
    assert listed(archive.read_bytes()) == ([], {})
    assert list(guests.glob(".making-*")) == []


def test_apt_uses_only_what_is_signed_whatever_the_host_is_configured_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def run(argv: list[str], **_: object) -> Completed:
        called.extend(argv)
        return Completed(exit_code=0, stdout=b"", stderr=b"")

    monkeypatch.setattr(_packages.processes, "run", run)
    _packages.PackageClient("x86_64", tmp_path).update()
    for setting in ("APT::Get::AllowUnauthenticated", "Acquire::AllowInsecureRepositories"):
        assert f"-o{setting}=false" in called
