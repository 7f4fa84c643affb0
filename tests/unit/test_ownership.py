"""Whom things belong to, and whether that process still lives."""

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import psutil
import pytest

from isobench.plugins import ownership
from tests import waiting


def test_what_belongs_to_this_process_is_left_alone() -> None:
    assert ownership.alive(ownership.mine())


def test_an_owner_names_this_process() -> None:
    tool, machine, pid, started = ownership.mine().split("-")
    assert tool == "isobench"
    assert len(machine) == 6
    assert int(pid) == os.getpid()
    assert started.isdigit()


def test_what_a_process_that_ended_has_left_may_be_removed() -> None:
    """The next isobench removes it: a process of its own, which takes the machine as it is now.

    This one may have read /etc/machine-id long ago; installing an engine can make that file.
    """

    def ask(expression: str) -> str:
        program = f"from isobench.plugins import ownership; print({expression})"
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
        )
        return done.stdout.strip()

    dead = ask("ownership.mine()")
    assert dead.startswith("isobench-")
    assert ask(f"ownership.alive({dead!r}), ownership.mine()").startswith("False "), dead


def test_a_process_that_took_over_the_number_is_not_the_owner() -> None:
    parts = ownership.mine().split("-")
    parts[3] = str(int(parts[3]) - 100_000)
    assert not ownership.alive("-".join(parts))


@pytest.mark.parametrize("step", [-86_400, -1, 2, 10**9])
def test_a_system_clock_that_is_set_does_not_make_an_owner_dead(
    step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = ownership.mine()
    before = psutil._pslinux.boot_time  # what the start of a process is computed from
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: before() + step)
    assert ownership.alive(owner)


def test_a_process_of_another_boot_is_not_the_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = ownership.mine()
    boot = ownership._boot()
    monkeypatch.setattr(ownership, "_boot", lambda: boot + 1)
    assert not ownership.alive(owner)


def test_a_process_of_an_older_version_is_known_by_the_system_clock() -> None:
    parts = ownership.mine().split("-")
    for off, lives in ((0, True), (30, True), (-100_000, False)):
        parts[3] = str(int(psutil.Process().create_time() * 100) + off)
        assert ownership.alive("-".join(parts)) is lives


def test_what_belongs_to_another_machine_is_left_alone() -> None:
    parts = ownership.mine().split("-")
    parts[1] = "ffffff" if parts[1] != "ffffff" else "000000"
    parts[3] = "1"
    assert ownership.alive("-".join(parts))


@pytest.mark.parametrize(
    "label", ["", "isobench", "isobench-abc", "isobench-a-b-c", "other-a-1-2", "isobench-a-1-2-3"]
)
def test_what_no_isobench_has_named_is_left_alone(label: str) -> None:
    assert ownership.alive(label)


def test_a_number_beyond_any_process_is_dead_and_no_error() -> None:
    parts = ownership.mine().split("-")
    parts[2] = "9" * 12
    assert not ownership.alive("-".join(parts))


def _refused(number: int) -> Callable[..., NoReturn]:
    def refuse(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EACCES, errno.EPERM, errno.EMFILE])
@pytest.mark.parametrize("started", [None, "12345"], ids=["this version", "an older version"])
def test_a_process_that_lives_and_cannot_be_seen_is_not_dead(
    number: int, started: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where /proc hides the processes of others, or no more files can be opened."""
    parts = ownership.mine().split("-")
    parts[3] = started or parts[3]
    refuse = _refused(number)
    monkeypatch.setattr(ownership, "_started", refuse)
    monkeypatch.setattr(ownership, "_started_by_clock", refuse)
    assert ownership.alive("-".join(parts))


def test_a_process_that_this_user_may_not_signal_is_not_dead(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "kill", _refused(errno.EPERM))
    monkeypatch.setattr(ownership, "_started", _refused(errno.ENOENT))
    assert ownership.alive(ownership.mine())


def test_without_open_files_no_owner_gets_a_wrong_name(monkeypatch: pytest.MonkeyPatch) -> None:
    ownership.boot_id.cache_clear()
    monkeypatch.setattr(Path, "read_text", _refused(errno.EMFILE))
    with pytest.raises(OSError, match="Too many open files"):
        ownership.boot_id()
    monkeypatch.undo()
    assert ownership.boot_id()


def test_the_name_of_a_process_need_not_be_text() -> None:
    # PR_SET_NAME is 15: prctl(2).
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'\\xff) \\xfe'); print(flush=True); "
    program = f"{rename}input()"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        waiting.line(other)
        owner = f"isobench-{ownership._machine()}-{other.pid}"
        assert ownership.alive(f"{owner}-{ownership._started(other.pid)}")
        assert not ownership.alive(f"{owner}-100000000000000001")
        waiting.killed(other)


def test_another_time_namespace_is_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It shows other start times of the same processes: time_namespaces(7)."""
    names = {"pid": "pid:[1]", "time": ownership._FIRST_TIME}
    monkeypatch.setattr(ownership, "_namespace", names.__getitem__)
    first = ownership._machine.__wrapped__()
    names["time"] = "time:[2]"
    assert ownership._machine.__wrapped__() != first


REMOVES = """
import pathlib, subprocess, sys
from isobench.plugins import ownership

folder, other = map(pathlib.Path, sys.argv[1:])
place = folder / "a b"
subprocess.run(["mount", "--bind", other, place], check=True)
print(ownership.removed_folder(folder).failure)
subprocess.run(["umount", place], check=True)
print(ownership.removed_folder(folder).failure, folder.exists())
"""


def test_what_somebody_mounted_in_a_folder_is_not_removed(tmp_path: Path) -> None:
    space = ["unshare", "--user", "--map-root-user", "--mount"]
    if subprocess.run([*space, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("unshare can make no mount namespace here")
    folder, other = tmp_path / "isobench-x", tmp_path / "other"
    (folder / "a b").mkdir(parents=True)
    other.mkdir()
    (other / "precious").write_text("data")
    done = subprocess.run(
        [*space, sys.executable, "-c", REMOVES, folder, other],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"{folder}/a b is mounted in it: umount it\n False\n"
    assert (other / "precious").read_text() == "data"
