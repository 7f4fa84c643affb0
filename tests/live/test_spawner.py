"""Whole runs whose programs isobench's own spawner starts: what they say, and what they leave."""

import json
import time
from collections.abc import Callable

import psutil
import pytest

from isobench.plugins.api import Target
from tests.live.conftest import Command

pytestmark = pytest.mark.live
STARTS = ("-w", "startup.cold,startup.warm", "--min-time", "0.004s")


def marked(pid: int) -> dict[int, list[str]]:
    """Return what belongs to an isobench of this number, by environment or by arguments.

    Each process with the arguments that it was found with: it may have ended when this returns.
    """
    found = {}
    for process in psutil.process_iter():
        try:
            arguments = process.cmdline()
            said = [process.environ().get("ISOBENCH_TIED", ""), *arguments]
            if process.status() != psutil.STATUS_ZOMBIE and any(f"-{pid}-" in s for s in said):
                found[process.pid] = arguments
        except (psutil.Error, OSError):
            continue
    found.pop(pid, None)
    return found


def test_a_run_says_how_it_starts_programs_and_what_that_takes(
    isobench: Command, able: Callable[[str], Target]
) -> None:
    able("namespaces")
    ran = isobench("run", "-t", "namespaces", *STARTS, "--blocks", "3")
    assert ran.code == 0, ran.said
    assert json.loads((ran.latest / "run.json").read_text())["spawner"] == "vfork"
    records = [json.loads(line) for line in (ran.latest / "records.jsonl").read_text().splitlines()]
    spawns = [record for record in records if record.get("metric") == "spawn"]
    assert {record["target"] for record in spawns} == {"native"}
    assert {record["workload"] for record in spawns} == {"startup.cold", "startup.warm"}
    assert {1, 2, 3} <= {record["block"] for record in spawns}
    found = ran.summary()["null_spawns"]
    assert [one["workload"] for one in found] == ["startup.cold", "startup.warm"]
    assert all(one["seconds"] > 0 and one["native"] > 0 for one in found)
    assert "started by isobench's spawner" in " ".join(ran.out.split())
    assert "started by isobench&#39;s spawner" in (ran.latest / "report.html").read_text()


@pytest.mark.parametrize(
    ("name", "wait"),
    [("native", 0.0), ("namespaces", 0.2), ("bubblewrap", 3.0), ("qemu-user-aarch64", 2.0)],
)
def test_a_run_that_is_killed_among_its_starts_leaves_no_process(
    isobench: Command, able: Callable[[str], Target], name: str, wait: float
) -> None:
    able(name)
    process = isobench.start("run", "-t", name, *STARTS, "--blocks", "50")
    end = time.monotonic() + 120
    while not any("-_spawn" in "".join(each[:1]) for each in marked(process.pid).values()):
        assert time.monotonic() < end
        assert process.poll() is None
        time.sleep(0.01)
    time.sleep(wait)
    process.kill()
    process.wait()
    end = time.monotonic() + 30
    while left := marked(process.pid):
        assert time.monotonic() < end, left
        time.sleep(0.05)
