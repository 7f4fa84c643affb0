"""The cgroup for the programs of a run, on trees of files."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.evidence import cpu_share
from isobench.plugins import ownership
from isobench.targets.shared import cgroups, cpu_group

ENTERED = cpu_group.entered
"""As the module has it: the tests around this one replace it."""
Tree = Callable[..., Path]


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tree:
    """Return a function that makes a hierarchy in which this process is in `own`."""

    def make(own: str = "", *, unified: bool = False, **files: str) -> Path:
        root = tmp_path / "cgroup"
        folder = root
        for name in ["", *filter(None, own.split("/"))]:
            folder /= name
            folder.mkdir()
            (folder / "cgroup.procs").touch()
            if unified:
                (folder / "cgroup.subtree_control").write_text("cpu memory")
        for name, text in files.items():
            (folder / name.replace("_", ".", 1)).write_text(text)
        names = tuple(filter(None, own.split("/")))
        monkeypatch.setattr(cpu_share, "membership", lambda _: (root, names))
        monkeypatch.setattr(cpu_share, "CGROUPS", root)
        return root

    return make


@pytest.fixture
def removed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """List what is removed: the kernel's files are no files that a folder must lose first."""
    found: list[Path] = []

    def remove(folder: Path, *, attempts: int) -> str:
        assert attempts
        found.append(folder)
        return ""

    monkeypatch.setattr(cgroups, "remove", remove)
    return found


@pytest.mark.parametrize("unified", [False, True])
def test_isobench_moves_into_a_cgroup_of_its_own_and_back(
    tree: Tree, removed: list[Path], unified: bool
) -> None:
    root = tree("session", unified=unified)
    with ENTERED() as done:
        (folder,) = root.glob(f"{cpu_share.PREFIX}{ownership.mine()}-*")
        inner = folder / "programs" / "cgroup.procs"
        assert inner.read_text() == str(os.getpid())
        assert done.startswith("a cgroup of its own")
        assert not removed
    assert removed == [folder]
    assert (root / "session" / "cgroup.procs").read_text() == str(os.getpid())


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"cpu_max": "50000 100000"}, "cpu.max"),
        ({"cpu_cfs_quota_us": "50000"}, "cpu.cfs_quota_us"),
        ({"memory_max": "1073741824"}, "memory.max"),
        ({"cpuset_cpus": "0"}, "cpuset.cpus"),
    ],
)
def test_a_limit_that_the_user_has_set_is_not_left(
    files: dict[str, str], reason: str, tree: Tree, removed: list[Path]
) -> None:
    root = tree("limited", **files)
    with ENTERED() as done:
        assert "unchanged" in done
        assert reason in done
    assert sorted(path.name for path in root.iterdir() if path.is_dir()) == ["limited"]
    assert removed == []


def test_settings_that_limit_nothing_do_not_matter(tree: Tree, removed: list[Path]) -> None:
    tree("free", cpu_max="max 100000", cpu_cfs_quota_us="-1", memory_max="max", cpuset_cpus="")
    with ENTERED() as done:
        assert "unchanged" not in done
    assert len(removed) == 1


def test_nothing_is_changed_where_the_cpu_is_not_divided(tree: Tree, removed: list[Path]) -> None:
    root = tree("session", unified=True)
    (root / "cgroup.subtree_control").write_text("memory pids")
    with ENTERED() as done:
        assert "does not divide the CPU" in done
    assert removed == []


def test_nothing_is_changed_without_rights(
    tree: Tree, removed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("session")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with ENTERED() as done:
        assert "may not" in done
    assert removed == []


def test_nothing_is_changed_without_the_controller(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_share, "membership", lambda _: None)
    with ENTERED() as done:
        assert done == "unchanged: there is no CPU controller of cgroups here"


def test_a_user_with_a_delegated_cgroup_gets_one_directly_in_it(
    tree: Tree, removed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("user.slice/user@1000.service/app.slice/shell", unified=True)
    delegated = root / "user.slice" / "user@1000.service"
    monkeypatch.setattr(os, "access", lambda path, _: Path(path).is_relative_to(delegated))
    with ENTERED() as done:
        assert "unchanged" not in done
    (folder,) = removed
    assert folder.parent == delegated


def test_a_cgroup_that_was_made_is_removed_where_the_move_is_refused(
    tree: Tree, removed: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree("session")

    def refuse(*_: object) -> None:
        raise PermissionError("refused")

    monkeypatch.setattr(cpu_group, "_move", refuse)
    with ENTERED() as done:
        assert done == "unchanged: refused"
    assert len(removed) == 1


def test_a_sweep_removes_the_cgroups_of_dead_runs_alone(tree: Tree, removed: list[Path]) -> None:
    root = tree()
    names = [
        "share.isobench-m-1-2-ab",
        "share.isobench-m-9-9-cd",
        "share.other",
        "isobench-m-1-2-ef",
    ]
    for name in names:
        (root / name / "programs").mkdir(parents=True)
        (root / name / "programs" / "cgroup.procs").write_text("1234567890")
    found = cpu_group.sweep(lambda owner: owner == "isobench-m-9-9")
    assert removed == [root / names[0]]
    assert [str(one) for one in found] == [f"cgroup {root / names[0]}"]
    assert (root / "cgroup.procs").read_text() == "1234567890", "what still runs moves up"
