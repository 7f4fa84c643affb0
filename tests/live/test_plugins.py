"""Whole runs with plug-ins that break their interface."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import distributions
from tests.live.conftest import CHECKOUT, Command

pytestmark = pytest.mark.live
HOSTILE = CHECKOUT / "tests" / "data" / "hostile_targets"
WHOSE = "in the distribution isobench-hostile 6.6: tell its author"
HANGS = ("hostile-probe-hangs", "hostile-import-hangs")
MEASURED = ("honest", "prints", "close-exits")
IN_A_RUN = ("open-exits", "run-string", "run-exits", "run-interrupts", "witness-number")

With = Callable[..., Command]


@pytest.fixture
def hostile(isobench: Command) -> With:
    """Return a function that installs the hostile distribution, `but` for some of its targets."""

    def install(*but: str) -> Command:
        site = isobench.folder / "site"
        distributions.lay_out(HOSTILE, site, but)
        isobench.environment["PYTHONPATH"] = os.pathsep.join([str(site), str(CHECKOUT)])
        isobench.environment["XDG_CACHE_HOME"] = str(isobench.folder / "cache")
        payloads = Path(os.environ["XDG_CACHE_HOME"]) / "isobench"
        (isobench.folder / "cache").mkdir()
        if payloads.exists():  # built payloads are the suite's; a log of faults is this test's
            (isobench.folder / "cache" / "isobench").symlink_to(payloads)
        for name in ("PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"):
            isobench.environment.pop(name, None)
        return isobench

    return install


def rows(command: Command) -> dict[str, Any]:
    ran = command("targets", "--json")
    assert ran.code == 0, ran.said
    return {row["name"]: row for row in json.loads(ran.out)}


def test_targets_lists_every_plug_in_and_whose_fault_each_is(hostile: With) -> None:
    found = rows(hostile(*HANGS))
    assert found["native"]["available"]
    assert found["hostile-honest"]["available"]
    broken = [row for row in found.values() if row["lack"] == "plugin"]
    assert {"hostile-import-exits", "hostile-probe-string", "hostile-probe-exits"} <= {
        row["name"] for row in broken
    }
    for row in broken:
        assert f"fault of the plug-in {row['name']} {WHOSE}; traceback: " in row["hint"]
        log = Path(row["hint"].rpartition("traceback: ")[2])
        assert row["name"] in log.read_text()


def test_a_probe_that_hangs_is_waited_for_no_longer_than_a_minute(hostile: With) -> None:
    row = rows(hostile("hostile-import-hangs"))["hostile-probe-hangs"]
    assert row["what"] == "the plug-in is broken: probe did not end within 60 s"
    assert WHOSE in row["hint"]


def test_a_run_with_hostile_plug_ins_has_a_report_a_gap_for_each_and_clean_json(
    hostile: With,
) -> None:
    names = [f"hostile-{name}" for name in (*MEASURED, *IN_A_RUN)]
    ran = hostile(*HANGS)(
        *("run", "-t", f"native,{','.join(names)}", "--quick", "-w", "cpu.sieve,startup.exec"),
        *("-r", "1", "--export-json", "-"),
    )
    assert ran.code == 6, ran.said
    exported = json.loads(ran.out)  # nothing of what plug-ins print is in it
    assert exported == ran.summary()
    assert (ran.latest / "report.html").stat().st_size > 0
    status = {item["name"]: item["status"] for item in exported["targets"]}
    assert status["native"] == status["hostile-honest"] == status["hostile-prints"] == "measured"
    for where in ("print", "buffer", "descriptor", "child"):
        assert f"{where} in run" in ran.err
        assert f"{where} in atexit" in ran.err
    for name in IN_A_RUN:
        gaps = [gap for gap in exported["gaps"] if gap["target"] == f"hostile-{name}"]
        assert {gap["workload"] for gap in gaps} == {"cpu.sieve", "startup.exec"}
        for gap in gaps:
            assert f"hostile-{name} {WHOSE}" in gap["hint"]
        assert "Traceback" in (ran.latest / "logs" / f"hostile-{name}.log").read_text()
    closing = [gap for gap in exported["gaps"] if gap["detail"].startswith("it could not be clos")]
    assert {gap["target"] for gap in closing} == {"hostile-close-exits"}


@pytest.mark.parametrize("name", ["hostile-probe-exits", "hostile-prepare-exits"])
def test_a_plug_in_asked_for_by_name_that_cannot_run_is_told_with_whose_fault_it_is(
    hostile: With, name: str
) -> None:
    ran = hostile(*HANGS)("run", "-t", f"native,{name}", "--quick", "-w", "cpu.sieve", "-r", "1")
    assert ran.code == 3, ran.said
    assert f"{name} {WHOSE}" in " ".join(ran.said.split())
