"""User-mode Linux: options, command line, refusals; the kernel is a shell script."""

import os
import time
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from isobench.evidence import prove
from isobench.model import Abi, Available, Environment, Evidence, Fact, Lack, Unavailable
from isobench.model.errors import SessionError
from isobench.plugins import ownership
from isobench.targets.machines import uml
from isobench.targets.machines.uml import UmlTarget
from isobench.targets.shared import disks, processes
from tests import waiting

HOST = {"kernel.boot_id": "a", "machine": "x86_64", "cpu.vendor": "GenuineIntel"}
INSIDE = {
    "kernel.boot_id": "b",
    "machine": "x86_64",
    "cpu.vendor": "User Mode Linux",
    "filesystem.hostfs": False,
    "host.canary_readable": False,
}
LINES = {"log": 5, "out": 6, "err": 7}
FILES = {"initrd": 8, "folder": 9, "disk": 10}


def environment(facts: dict[str, Any]) -> Environment:
    return Environment(
        facts={key: Evidence(key=key, value=value, source="test") for key, value in facts.items()}
    )


def broken(**changed: Fact) -> str:
    inside = INSIDE | {key.replace("__", "."): value for key, value in changed.items()}
    checks = prove.check(UmlTarget.expectations, host=environment(HOST), inside=environment(inside))
    return prove.unmet(checks)


# ---- expectations --------------------------------------------------------------------------------


def test_a_guest_of_a_user_mode_kernel_meets_its_expectations() -> None:
    assert broken() == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel.boot_id", "a"),  # the kernel of the host
        ("cpu.vendor", "GenuineIntel"),  # another kernel, but for hardware
        ("cpu.vendor", None),
        ("machine", "aarch64"),
        ("filesystem.hostfs", True),  # its root could mount the host's files
        ("host.canary_readable", True),
    ],
)
def test_a_broken_expectation_is_caught(key: str, value: Fact) -> None:
    assert key in broken(**{key.replace(".", "__"): value})


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"memory": "much"}, 'memory = "much"'),
        ({"memory": "0MiB"}, 'memory = "0MiB"'),
        ({"disk": "1 TB"}, 'disk = "1 TB"'),
        ({"boot_timeout": -1.0}, "boot_timeout = -1"),
        ({"boot_timeout": float("inf")}, "boot_timeout = inf"),
    ],
)
def test_an_invalid_option_is_refused(options: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        UmlTarget(**options)


def test_sizes_are_in_mebibytes() -> None:
    assert disks.mebibytes("512MiB", "memory") == 512
    assert disks.mebibytes(" 2 GiB ", "memory") == 2048


def parts(tmp_path: Path, **changed: Any) -> uml._Parts:
    plain: dict[str, Any] = {
        "kernel": "/usr/bin/linux.uml",
        "memory": 512,
        "initrd": tmp_path / "initrd",
        "folder": tmp_path,
        "name": "isobench-1",
        "disk": tmp_path / "disk",
    }
    return uml._Parts(**(plain | changed))


def test_files_are_named_by_descriptors_so_that_any_user_may_open_them(tmp_path: Path) -> None:
    argv = parts(tmp_path, more=("a=b", "c")).arguments(LINES, FILES)
    assert argv[:2] == ["/usr/bin/linux.uml", "mem=512M"]
    assert "initrd=/proc/self/fd/8" in argv
    assert "uml_dir=/proc/self/fd/9/" in argv
    assert "umid=isobench-1" in argv
    assert {"ssl0=fd:6", "ssl1=fd:7", "con0=null,fd:1"} < set(argv)
    assert argv[-2:] == ["a=b", "c"]
    assert str(tmp_path) not in " ".join(argv)


def test_writes_are_synchronous_unless_configured_otherwise(tmp_path: Path) -> None:
    assert "ubd0s=/proc/self/fd/10" in parts(tmp_path).arguments(LINES, FILES)
    fast = parts(tmp_path, synchronous=False).arguments(LINES, FILES)
    assert "ubd0=/proc/self/fd/10" in fast
    none = parts(tmp_path, disk=None).arguments(LINES, FILES)
    assert not any(word.startswith("ubd") for word in none)


def test_the_file_system_hostfs_is_disabled_in_the_kernel(tmp_path: Path) -> None:
    (word,) = [w for w in parts(tmp_path).arguments(LINES, FILES) if "blacklist" in w]
    assert "init_hostfs" in word.partition("=")[2].split(",")


# ---- probing -------------------------------------------------------------------------------------


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a host with everything that user-mode Linux needs."""
    monkeypatch.setattr(uml, "host_abi", lambda: Abi.ELF_X86_64)
    monkeypatch.setattr(disks, "tool", lambda: "/sbin/mke2fs")
    # Root would run the kernel as a user who cannot enter the folder of a test.
    monkeypatch.setattr(os, "geteuid", lambda: 1000)


def refusal(**options: Any) -> Unavailable:
    answer = UmlTarget(**options).probe()
    assert isinstance(answer, Unavailable)
    return answer


def kernel(tmp_path: Path, does: str) -> str:
    """Return the path of a program that behaves as a kernel might."""
    path = tmp_path / "linux.uml"
    path.write_text(f'#!/bin/sh\n[ "$1" = --version ] && echo 6.9.9 && exit\n{does}\n')
    path.chmod(0o755)
    return str(path)


def test_another_processor_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uml, "host_abi", lambda: Abi.ELF_AARCH64)
    assert refusal().lack is Lack.PLATFORM


def test_the_hint_for_a_missing_kernel_says_how_to_get_one(here: None) -> None:
    answer = refusal(kernel="/nowhere/linux")
    assert (answer.lack, answer.what) == (Lack.TOOL, "/nowhere/linux")
    assert "isobench doctor --install uml" in answer.hint
    assert "ARCH=um" in answer.hint


def test_a_missing_mke2fs_is_reported(here: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disks, "tool", lambda: None)
    assert "mke2fs" in refusal(kernel="/bin/true").what


def test_a_guest_that_starts_is_available_with_its_kernels_version(
    here: None, tmp_path: Path
) -> None:
    answers = "echo isobench-probe; echo 'Kernel panic - not syncing: Attempted to kill init!'; cat"
    answer = UmlTarget(kernel=kernel(tmp_path, answers)).probe()
    assert isinstance(answer, Available)
    assert "User-mode Linux 6.9.9" in answer.version
    assert "no hardware virtualisation" in answer.version


NEEDS_LEGACY = """
filters() { sed -n 's/^Seccomp_filters:[^0-9]*//p' /proc/$1/status; }
[ "$(filters self)" -gt "$(filters $PPID)" ] && echo isobench-probe
echo 'Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b'
cat
"""


def test_extended_registers_are_hidden_from_a_kernel_that_cannot_load_them(
    here: None, tmp_path: Path
) -> None:
    answer = UmlTarget(kernel=kernel(tmp_path, NEEDS_LEGACY)).probe()
    assert isinstance(answer, Available)
    assert "without AMX" in answer.version


def test_a_kernel_that_dies_with_fewer_registers_too_is_refused(here: None, tmp_path: Path) -> None:
    panics = NEEDS_LEGACY.replace("isobench-probe", "no")
    assert "exitcode=0x0000000b" in refusal(kernel=kernel(tmp_path, panics)).what


@pytest.mark.parametrize(
    ("does", "text", "hint"),
    [
        (
            "echo Not permitted >&2; echo /dev/shm must be not mounted noexec >&2; exit 1",
            "exit code 1; Not permitted | /dev/shm must be not mounted noexec",
            "remount,exec /dev/shm",
        ),
        (
            "echo 'ptrace: Operation not permitted' >&2; exit 1",
            "ptrace: Operation not permitted",
            "kernel.yama.ptrace_scope",
        ),
        (
            "echo 'Bus error - /dev/shm likely just ran out of space'; exit 1",
            "ran out of space",
            'memory = "128MiB"',
        ),
        ("exit 1", "exit code 1; no error message", "con0=null,fd:1"),
        ("echo 'Kernel panic - not syncing: no init'; sleep 9", "no init", "con0=null,fd:1"),
        ("kill -9 $$", "killed by signal 9", "con0=null,fd:1"),
    ],
)
def test_the_error_for_a_guest_that_does_not_start_has_a_hint(
    here: None, tmp_path: Path, does: str, text: str, hint: str
) -> None:
    answer = refusal(kernel=kernel(tmp_path, does))
    assert answer.lack is Lack.RUNTIME
    assert text in answer.what
    assert hint in answer.hint


def test_a_kernel_without_output_is_not_waited_for(
    here: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uml, "_PROBE_TIMEOUT", 0.2)
    assert "does not start" in refusal(kernel=kernel(tmp_path, "exec sleep 60")).what


def test_a_kernel_that_cannot_be_executed_is_an_error(here: None, tmp_path: Path) -> None:
    file = tmp_path / "linux"
    file.write_bytes(b"\x7fELF, and no more")
    file.chmod(0o755)
    assert "cannot be executed" in refusal(kernel=str(file)).what


# ---- shared helpers ------------------------------------------------------------------------------


def test_the_flags_of_an_open_file_are_read(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.touch()
    assert processes.open_flags(os.getpid(), path) == []
    descriptor = os.open(path, os.O_RDWR | os.O_SYNC)
    try:
        (flags,) = processes.open_flags(os.getpid(), path)
    finally:
        os.close(descriptor)
    assert flags & os.O_SYNC == os.O_SYNC


def test_processes_of_a_dead_run_are_killed_with_their_group(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = ownership.mine().replace(f"-{os.getpid()}-", "-999999999-")
    monkeypatch.setattr(ownership, "mine", lambda: gone)
    # A member of the group without ISOBENCH_TIED, as processes of a guest are.
    process = processes.start(
        ["/bin/sh", "-c", "env -i sleep 300 & echo $!; wait"],
        env={"PATH": os.environ["PATH"], **processes.tied()},
    )
    member = psutil.Process(int(waiting.line(process)))
    assert processes.sweep(lambda whose: whose != gone) != []
    assert process.wait(10) == -9
    end = time.monotonic() + 10
    while member.is_running() and member.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
    waiting.killed(process)


def test_a_disk_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    if disks.tool() is None:
        pytest.skip("mke2fs is not installed; isobench doctor --install uml")
    with pytest.raises(SessionError, match="mke2fs: "):
        disks.make(tmp_path / "no" / "folder", 8)


def test_the_kernel_of_root_gets_no_temporary_folder_that_nobody_may_not_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("open", "closed"):
        (tmp_path / folder).mkdir()
    (tmp_path / "open").chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "closed"))
    monkeypatch.setenv("TMP", str(tmp_path / "open"))
    monkeypatch.setenv("TEMP", str(tmp_path / "missing"))
    # What is above the test's own folder need not be open.
    monkeypatch.setattr(PurePath, "parents", (tmp_path / "open",))
    given: dict[str, str] = {}
    monkeypatch.setattr(processes, "start", lambda *_, env, **__: given.update(env))
    parts: Any = SimpleNamespace(arguments=lambda *_: [])
    lines = dict.fromkeys(("log", "out", "err"), 0)
    for user, expected in ((0, {"TMP"}), (1000, {"TMPDIR", "TMP", "TEMP"})):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        given.clear()
        uml._start_process(parts, None, lines, {})
        assert set(given) & {"TMPDIR", "TMP", "TEMP"} == expected
