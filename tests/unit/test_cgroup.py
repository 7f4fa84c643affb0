"""Sweeps of cgroups while other processes make and remove cgroups."""

import errno
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.plugins import ownership
from isobench.targets.containers import _oscontainer, kubernetes, namespaces
from isobench.targets.shared import cgroups

MINE = "isobench-m-1-2-abcd"


def no_run_lives(_: str) -> bool:
    return False


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Replace the tree of cgroups by one with cgroups of a dead run."""
    for name in ("memory", "systemd"):
        (tmp_path / name / f"nspawn.{MINE}" / "payload").mkdir(parents=True)
    (tmp_path / "memory" / MINE).mkdir()
    monkeypatch.setattr(_oscontainer, "CGROUPS", tmp_path)
    monkeypatch.setattr(namespaces, "_CGROUPS", tmp_path)
    return tmp_path


def sweeps() -> list[str]:
    found = _oscontainer.sweep_cgroups(["nspawn."], no_run_lives)
    found += namespaces.NamespacesTarget().sweep(no_run_lives, cached=False)
    return [*map(str, found)]


@pytest.fixture
def vanishing(tree: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Let a foreign folder be listed everywhere and be gone when it is opened.

    Return a function that counts how often that happened.
    """
    scan, gone = os.scandir, []

    def scandir(path: Any = ".") -> Any:
        parent = Path(os.fspath(path))
        if parent.name.startswith("foreign"):
            gone.append(parent)
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(parent))
        if tree in (parent, parent.parent):
            (parent / "foreign").mkdir(exist_ok=True)
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    return lambda: len(gone)


def test_a_cgroup_that_vanishes_during_a_sweep_is_no_error(
    tree: Path, vanishing: Callable[[], int]
) -> None:
    assert sweeps() == [f"cgroups of {MINE}", f"cgroup {tree / 'memory' / MINE}"]
    assert vanishing() > 0
    assert not (tree / "memory" / MINE).exists()


@pytest.fixture
def churn(tree: Path) -> Iterator[None]:
    """Make and remove folders in the tree without a pause."""
    ended = threading.Event()

    def work() -> None:
        number = 0
        while not ended.is_set():
            number += 1
            folder = tree / "memory" / f"pod-{number}" / "container"
            folder.mkdir(parents=True)
            folder.rmdir()
            folder.parent.rmdir()

    threads = [threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    yield
    ended.set()
    for thread in threads:
        thread.join()


@pytest.mark.usefixtures("churn")
def test_sweeps_work_while_others_make_and_remove_cgroups(tree: Path) -> None:
    for _ in range(200):
        (tree / "memory" / MINE).mkdir(exist_ok=True)
        assert f"cgroup {tree / 'memory' / MINE}" in sweeps()


@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV])
def test_a_cgroup_that_is_gone_needs_no_removal(
    number: int, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(path: object) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(os, "rmdir", gone)
    assert cgroups.remove(tree / "memory", attempts=1) == ""


def test_a_cgroup_is_removed_though_another_removes_its_child_meanwhile(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree / "systemd" / f"nspawn.{MINE}"
    rmdir = os.rmdir

    def racing(path: Any) -> None:
        rmdir(path)
        if Path(path).name == "payload":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))

    monkeypatch.setattr(os, "rmdir", racing)
    assert _oscontainer.remove_cgroup(folder) == ""
    assert not folder.exists()


def test_a_cgroup_that_is_in_use_is_reported(tree: Path) -> None:
    folder = tree / "memory" / MINE
    (folder / "a process").write_text("")
    assert "not empty" in cgroups.remove(folder, attempts=2)
    assert folder.is_dir()


def test_only_names_of_owners_are_found(tree: Path) -> None:
    for name in ("isobench", "isobench-1-2-3", "nspawn.other", "isobench.slice"):
        (tree / "memory" / name).mkdir()
    assert cgroups.below(tree, ["", "nspawn."]) == [
        tree / "memory" / MINE,
        tree / "memory" / f"nspawn.{MINE}",
        tree / "systemd" / f"nspawn.{MINE}",
    ]
    assert list(cgroups.children(tree / "memory")) == [tree / "memory" / MINE]
    assert list(cgroups.children(tree / "gone")) == []


def test_cgroups_of_other_users_are_those_of_root_alone(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    assert cgroups.below(tree, ["", "nspawn."]) == []
    assert list(cgroups.children(tree / "memory")) == []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cgroups.below(tree, ["", "nspawn."])


def test_a_process_that_ends_during_the_search_for_a_container_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "listdir", lambda _: ["1", "2", "self", "cgroups"])
    (tmp_path / "2").mkdir()
    (tmp_path / "2" / "cgroup").write_text("0::/pod/c0ffee")
    (tmp_path / "2" / "stat").write_text("2 (init) S 0 0")
    assert kubernetes.ancestors("c0ffee", tmp_path) == ["init"]


@pytest.mark.parametrize(
    ("option", "value"), [("cpu_quota", 0.5), ("memory", "64MiB"), ("pids", 16)]
)
def test_a_limit_that_no_cgroup_takes_makes_a_target_unavailable(
    option: str, value: object, tree: Path
) -> None:
    target: Any = namespaces.NamespacesTarget
    assert target(**{option: value})._not_limited() == [option]
    assert target()._not_limited() == []  # the default of pids need not hold
    assert [*(tree / "memory").glob(f"{ownership.mine()}*")] == []
    # What a limit is, as the kernel prints it.
    assert not any(map(namespaces._is_limit, ("max 100000", "-1", "")))
    assert all(map(namespaces._is_limit, ("50000 100000", "16")))
