"""Whole runs with plug-ins that break their interface."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Abi
from isobench.model.units import WorkloadName
from isobench.payload import build, compiler, wire
from isobench.workloads import loader
from tests import distributions
from tests.live.conftest import CHECKOUT, Command

pytestmark = pytest.mark.live
HOSTILE = CHECKOUT / "tests" / "data" / "hostile_targets"
WHOSE = "in isobench-hostile 6.6: report it to its author"
EXAMPLE = CHECKOUT / "tests" / "data" / "example_distribution"
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
        assert f"bug of the plug-in {row['name']} {WHOSE}; traceback: " in row["hint"]
        log = Path(row["hint"].rpartition("traceback: ")[2])
        assert row["name"] in log.read_text()


def test_a_probe_that_hangs_is_waited_for_no_longer_than_a_minute(hostile: With) -> None:
    row = rows(hostile("hostile-import-hangs"))["hostile-probe-hangs"]
    assert row["what"].startswith("the plug-in is broken: probe did not end within 60 s")
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


def test_a_workload_an_exporter_and_a_section_of_another_distribution_are_used(
    isobench: Command,
) -> None:
    site = isobench.folder / "site"
    distributions.lay_out(EXAMPLE, site)
    isobench.environment["PYTHONPATH"] = os.pathsep.join([str(site), str(CHECKOUT)])
    ran = isobench(
        *("run", "-t", "native", "-w", "app.hash,cpu.sieve", "-r", "3", "--min-time", "4ms"),
        *("--export-tsv", "ratios.tsv"),
    )
    assert ran.code == 0, ran.said
    cells = {(cell["target"], cell["workload"]) for cell in ran.summary()["cells"]}
    assert ("native#2", "app.hash") in cells
    lines = (isobench.folder / "ratios.tsv").read_text().splitlines()
    assert lines[0] == "target\tworkload\tratio"
    assert {line.split("\t")[1] for line in lines[1:]} == {"app.hash", "cpu.sieve"}
    assert '<section id="slowest"' in (ran.latest / "report.html").read_text()


@pytest.mark.parametrize("program", ["cpu.sieve", "cpu.threads", "cpu.sha256", "syscall.getppid"])
def test_payloads_of_an_isa_that_only_a_plug_in_knows_answer_like_all_others(
    program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    emulator = shutil.which("qemu-loongarch64-static") or shutil.which("qemu-loongarch64")
    if emulator is None:
        pytest.skip("qemu-loongarch64 is not installed; isobench doctor --install qemu-user")
    monkeypatch.setattr(compiler, "_TOOLCHAINS", dict(compiler._TOOLCHAINS))
    abi = Abi("loongarch64-linux")
    build.add_toolchain(
        abi,
        triple="loongarch64-linux-musl",
        headers=("loongarch-linux-any", "any-linux-any"),
        flags=("-mcpu=generic_la64+f+d",),
        machine=CHECKOUT / "tests" / "data" / "loongarch64.h",
    )
    workload = loader.find()[WorkloadName(program)]
    assert workload.answer is not None
    built = build.build(workload.program, workload.source, abi)
    done = subprocess.run(
        [emulator, built.path, "cafe", "2", str(workload.answer.loops)],
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert wire.read(done.stdout, nonce="cafe", iterations=2).check == workload.answer.check
