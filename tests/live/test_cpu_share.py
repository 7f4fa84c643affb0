"""Shares of the CPU beside a busy neighbour: with real engines, cgroups and runs."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import cpu_share
from isobench.storage import reader
from tests import waiting
from tests.live.conftest import Command, Ran
from tests.live.test_run import Able

pytestmark = [pytest.mark.live, pytest.mark.timeout(1200)]

BURNER = "import os\nwhile os.getppid() == {parent}: sum(range(100000))\n"
WITH_CGROUPS = ("docker", "podman", "lxc", "namespaces")
"""Targets whose instances have cgroups of their own."""


def hierarchy() -> Path:
    """Return the root of the CPU controller's cgroups; skip the test without rights there."""
    place = cpu_share.membership("self")
    if place is None:
        pytest.skip("there is no CPU controller of cgroups here: mount one, see cgroups(7)")
    root = place[0]
    if not os.access(root / "cgroup.procs", os.W_OK):
        pytest.skip(f"this user may make no cgroup in {root}: run the tests as root")
    return root


@pytest.fixture
def neighbours() -> Iterator[None]:
    """Keep every CPU busy, in the cgroup of the tests, in which isobench is started too."""
    code = BURNER.format(parent=os.getpid())
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in os.sched_getaffinity(0)]
    yield
    for each in busy:
        waiting.killed(each)  # type: ignore[arg-type]


def measured(isobench: Command, target: str, **options: Any) -> Ran:
    ran = isobench(
        "run", "-t", target, "-w", "cpu.sieve", "--budget", "20s", "--seed", "3", **options
    )
    assert ran.code == 0, ran.said
    return ran


def cell(ran: Ran, target: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in ran.summary()["cells"] if one["target"] == target)
    return found


def chain(ran: Ran, target: str) -> cpu_share.Chain:
    state = reader.load(ran.latest).state(target)  # type: ignore[arg-type]
    found = cpu_share.Chain.parse(*(state.fact(key) for key in cpu_share.FACTS))
    assert found is not None, [fact.key for fact in state.facts]
    return found


@pytest.mark.parametrize("target", WITH_CGROUPS)
@pytest.mark.usefixtures("neighbours")
def test_a_container_beside_a_busy_neighbour_is_near_native_or_open_and_never_faster(
    target: str, isobench: Command, able: Able
) -> None:
    root = hierarchy()
    able(target)
    ran = measured(isobench, target)
    judged = cell(ran, target)
    assert judged["standing"] in ("near-native", "inconclusive", "unproven"), judged
    native, own = chain(ran, "native"), chain(ran, target)
    assert native.names[0].startswith(cpu_share.PREFIX)
    assert own.names[0] != native.names[0], "a cgroup of its own"
    assert cpu_share.have_equal_shares(native, own)
    assert not (root / native.names[0]).exists()


def test_a_target_without_a_cgroup_of_its_own_shares_that_of_native(
    isobench: Command, able: Able
) -> None:
    hierarchy()
    able("landlock")
    ran = isobench("run", "-t", "landlock", "-w", "cpu.sieve", "--quick")
    assert ran.code == 0, ran.said
    assert chain(ran, "landlock").names == chain(ran, "native").names
    assert "a cgroup of its own" in ran.summary()["run"]["host"]["cpu_group"]


@contextlib.contextmanager
def limited(root: Path) -> Iterator[Path]:
    """Make a cgroup with a limit, which isobench does not leave; yield its cgroup.procs."""
    folder = root / f"test.{os.getpid()}"
    folder.mkdir()
    try:
        quota = folder / "cpu.cfs_quota_us"
        if quota.exists():
            quota.write_text(str(100_000 * (os.cpu_count() or 1)))
        elif (folder / "cpu.max").exists():
            (folder / "cpu.max").write_text(f"{100_000 * (os.cpu_count() or 1)} 100000")
        else:
            pytest.skip(
                f"{root} does not divide the CPU: echo +cpu > {root}/cgroup.subtree_control"
            )
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


@pytest.mark.usefixtures("neighbours")
def test_without_equal_shares_a_contended_run_has_a_doubt_and_no_verdict(
    isobench: Command, able: Able, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = hierarchy()
    able("namespaces")
    with limited(root) as procs:
        wrapped = (
            "import os, sys; open(sys.argv[1], 'w').write('0'); os.execv(sys.argv[2], sys.argv[2:])"
        )
        plain = isobench.argv
        monkeypatch.setattr(
            isobench,
            "argv",
            lambda *words: [sys.executable, "-c", wrapped, str(procs), *plain(*words)],
        )
        ran = measured(isobench, "namespaces")
    assert "has a limit" in ran.summary()["run"]["host"]["cpu_group"]
    judged = cell(ran, "namespaces")
    assert "cpu-share" in judged["doubt_codes"], judged
    assert judged["standing"] == "unproven"


def test_a_killed_run_leaves_a_cgroup_that_the_next_cleaning_removes(
    isobench: Command, able: Able
) -> None:
    root = hierarchy()
    able("landlock")
    process = isobench.start("run", "-t", "landlock", "-w", "cpu.sieve", "--budget", "60s")
    end = time.monotonic() + waiting.PATIENCE
    while not (made := [*root.glob(f"{cpu_share.PREFIX}isobench-*-{process.pid}-*")]):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "no cgroup was made"
        time.sleep(0.05)
    (folder,) = made
    waiting.killed(process)
    assert folder.is_dir(), "nobody was there to remove it"
    cleaned = isobench("clean", "--stale")
    assert cleaned.code == 0, cleaned.said
    assert f"cgroup {folder}" in cleaned.out
    assert not folder.exists()
