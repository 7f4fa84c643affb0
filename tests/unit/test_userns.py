"""Why the kernel refuses a user namespace, and the hints for it."""

import os
from pathlib import Path

import pytest

from isobench.model import Lack
from isobench.targets.sandboxes import bubblewrap
from isobench.targets.shared import userns

SETTINGS = {
    "user/max_user_namespaces": "15000",
    "kernel/unprivileged_userns_clone": "1",
    "kernel/apparmor_restrict_unprivileged_userns": "0",
}


@pytest.fixture
def proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose settings allow all, seen by an ordinary user."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for name, value in SETTINGS.items():
        setting(tmp_path, name, value)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "mountinfo").write_text("21 1 8:1 / / rw - ext4 /dev/sda1 rw\n")
    return tmp_path


def setting(proc: Path, name: str, value: str) -> None:
    path = proc / "sys" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


@pytest.mark.parametrize(
    ("name", "value", "assignment"),
    [
        ("user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_only_the_setting_that_forbids_is_named(
    proc: Path, name: str, value: str, assignment: str
) -> None:
    setting(proc, name, value)
    answer = userns.refusal("unshare: EPERM", proc=proc)
    assert answer.hint == f"sudo sysctl {assignment}"
    assert name.replace("/", ".") in answer.what
    assert "unshare: EPERM" in answer.what


def test_settings_that_allow_are_not_named(proc: Path) -> None:
    answer = userns.refusal("unshare: EPERM", proc=proc)
    assert "sysctl" not in answer.hint
    assert "though its settings allow them" in answer.what


def test_settings_for_ordinary_users_do_not_apply_to_root(
    proc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting(proc, "kernel/unprivileged_userns_clone", "0")
    assert userns.forbidding_settings(proc) == ["kernel.unprivileged_userns_clone"]
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert userns.forbidding_settings(proc) == []


def test_a_chroot_is_named_as_the_reason(proc: Path) -> None:
    (proc / "self" / "mountinfo").write_text("25 21 0:22 / /proc rw - proc proc rw\n")
    answer = userns.refusal("unshare: EPERM", proc=proc)
    assert answer.lack is Lack.PERMISSION
    assert "in a chroot" in answer.what
    assert "sysctl" not in answer.hint


def test_root_recognises_a_chroot_by_the_root_of_the_first_process(
    proc: Path, tmp_path: Path
) -> None:
    (proc / "1").mkdir()
    (proc / "1" / "root").symlink_to(tmp_path)
    assert "in a chroot" in userns.refusal("EPERM", proc=proc).what
    (proc / "1" / "root").unlink()
    (proc / "1" / "root").symlink_to("/")
    assert "in a chroot" not in userns.refusal("EPERM", proc=proc).what


def test_a_program_that_cannot_be_executed_is_no_refused_namespace() -> None:
    answer = bubblewrap._refusal("bwrap: execvp /answer: Permission denied")
    assert "user namespace" not in answer.what
    assert "TMPDIR" in answer.hint
