"""Whole runs of the real command on real technologies."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.plugins import ownership
from isobench.plugins.api import Target
from tests import distributions, waiting
from tests.live.conftest import CHECKOUT, Command, Ordinary

pytestmark = pytest.mark.live
FEW = (
    "-w",
    "cpu.sieve,syscall.getppid,io.metadata,startup",
    "--blocks",
    "3",
    "--min-time",
    "0.004s",
)

KEYS = ("block", "target", "workload", "metric", "iteration")
"""What tells a sample from all others of its run."""

Able = Callable[[str], Target]


def engine_lists(engine: str) -> list[str]:
    """What an engine holds of isobench's, running or not."""
    if shutil.which(engine) is None:
        return []
    done = subprocess.run(
        [engine, "ps", "--all", "--quiet", "--filter", "label=isobench"],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    return done.stdout.split()


def mounts() -> int:
    return len(Path("/proc/self/mountinfo").read_text().splitlines())


@pytest.mark.parametrize(
    "name", ["namespaces", "docker", "podman", "bubblewrap", "qemu-user-aarch64"]
)
def test_a_run_answers_for_every_cell_and_leaves_nothing(
    isobench: Command, able: Able, name: str
) -> None:
    able(name)
    before = (engine_lists("docker"), engine_lists("podman"), mounts())
    ran = isobench("run", "-t", name, *FEW)
    assert ran.code == 0, ran.said
    assert (engine_lists("docker"), engine_lists("podman"), mounts()) == before
    summary = ran.summary()
    assert summary["schema_version"] == 1
    assert summary["run"]["complete"]
    assert summary["gaps"] == []
    cells = {(cell["target"], cell["workload"]): cell for cell in summary["cells"]}
    workloads = {item["name"] for item in summary["workloads"]}
    assert set(cells) == {(t, w) for t in (name, "native#2") for w in workloads}
    for cell in cells.values():
        assert cell["blocks"] == cell["visits"] == 3
        assert cell["ratio"] > 0
        assert cell["interval"][0] <= cell["ratio"] <= cell["interval"][1]
        # Three blocks decide what is far from the margin, and nothing else.
        if cell["standing"] in {"unproven", "inconclusive"}:
            assert cell["doubts"]
        else:
            low, high = cell["interval"]
            assert cell["standing"] == (
                "slower" if low > 1.05 else "faster" if high < 1 / 1.05 else "near-native"
            )
    target = next(item for item in summary["targets"] if item["name"] == name)
    assert target["status"] == "measured"
    assert target["promises"]
    assert all(expectation["kept"] for expectation in target["promises"])
    assert target["evidence"]["kernel.boot_id"] == "same"
    assert set(target["starts"]) == {"cold", "warm", "exec"}
    for file in ("run.json", "plan.json", "records.jsonl", "summary.md", "report.html"):
        assert (ran.latest / file).stat().st_size > 0
    # The terminal names isobench as it was called, so that its commands can be pasted.
    said = re.sub(r"\S+ -m isobench", "isobench", " ".join(ran.out.split()))
    assert summary["run"]["headline"] in said
    page = (ran.latest / "report.html").read_text()
    assert name in page
    assert page.count("<script") == 1  # its own


def test_every_planned_cell_has_a_record_and_native_is_there_twice(isobench: Command) -> None:
    ran = isobench("run", "-t", "native", "-w", "cpu", "--blocks", "3", "--min-time", "0.004s")
    plan = json.loads((ran.latest / "plan.json").read_text())
    records = [json.loads(line) for line in (ran.latest / "records.jsonl").read_text().splitlines()]
    done = {(r["block"], r["target"], r["workload"]) for r in records}
    for block in plan["blocks"][:3]:
        for visit in block["visits"]:
            assert (visit["block"], visit["target"], visit["workload"]) in done
        assert {visit["target"] for visit in block["visits"]} == {"native", "native#2"}


def test_the_same_seed_plans_the_same_order(isobench: Command) -> None:
    quick = (
        "run",
        "-t",
        "native",
        "-w",
        "cpu",
        "--blocks",
        "1",
        "--seed",
        "7",
        "--min-time",
        "0.004s",
    )
    first = json.loads((isobench(*quick).latest / "plan.json").read_text())
    second = json.loads((isobench(*quick).latest / "plan.json").read_text())
    assert first["blocks"] == second["blocks"]


def test_a_report_can_be_made_again_from_a_zip_of_the_folder(isobench: Command) -> None:
    ran = isobench("run", "-t", "native", "-w", "cpu.sieve", "--blocks", "3")
    bundle = isobench.folder / "bundle.zip"
    with zipfile.ZipFile(bundle, "w") as file:
        for path in ran.latest.resolve().rglob("*"):
            file.write(path, Path("run") / path.relative_to(ran.latest.resolve()))
    again = isobench("report", str(bundle), "-o", str(isobench.folder / "again"))
    assert again.code == 0, again.said
    for name in ("summary.json", "report.html"):
        fresh, first = isobench.folder / "again" / name, ran.latest / name
        assert fresh.read_text() == first.read_text()


def _blocks(run: Path) -> list[bool]:
    """Which blocks of a run count: on a busy machine some are discarded as disturbed."""
    try:
        lines = (run / "state" / "blocks.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    return [json.loads(line)["valid"] for line in lines]


def _samples(run: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (run / "records.jsonl").read_text().splitlines())
    return [record for record in records if record["kind"] == "sample"]


def _wait_for_a_block(process: subprocess.Popen[str], results: Path) -> None:
    """Wait until a block is complete that counts, and the next one has begun."""
    end = time.monotonic() + 300
    while time.monotonic() < end:
        assert process.poll() is None, process.communicate(timeout=waiting.PATIENCE)
        for run in results.glob("*Z-*"):
            done = _blocks(run)
            if any(done) and any(each["block"] > len(done) for each in _samples(run)):
                return
        time.sleep(0.05)
    pytest.fail("no block was measured in five minutes")


@pytest.mark.parametrize("name", ["namespaces", "docker"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_what_was_measured_and_exits_130(
    isobench: Command, able: Able, name: str, number: signal.Signals
) -> None:
    able(name)
    before = (engine_lists("docker"), mounts())
    process = isobench.start("run", "-t", name, "-w", "cpu.sieve,startup", "--blocks", "60")
    _wait_for_a_block(process, isobench.results)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 130, (out, err)
    assert "Traceback" not in err
    assert (engine_lists("docker"), mounts()) == before
    run = next(isobench.results.glob("*Z-*"))
    summary = json.loads((run / "summary.json").read_text())
    assert summary["run"]["interrupted"]
    assert not summary["run"]["complete"]
    assert summary["run"]["blocks_invalid"] == _blocks(run).count(False)
    assert summary["run"]["blocks"] >= 1
    measured = {(cell["target"], cell["workload"]) for cell in summary["cells"]}
    assert {(name, "cpu.sieve"), ("native#2", "cpu.sieve")} <= measured
    assert "Interrupted" in out
    assert (run / "report.html").stat().st_size > 0


@pytest.mark.parametrize("name", ["native", "namespaces", "docker", "podman", "bubblewrap"])
def test_after_kill_9_the_next_command_clears_up(isobench: Command, able: Able, name: str) -> None:
    able(name)
    process = isobench.start("run", "-t", name, "-w", "cpu.sieve,startup", "--blocks", "60")
    _wait_for_a_block(process, isobench.results)
    waiting.killed(process)
    assert isobench("clean", "--stale").code == 0
    owned = [name for name in ("docker", "podman") for _ in engine_lists(name)]
    assert owned == []
    runs = Path(isobench.environment["XDG_CACHE_HOME"]) / "isobench" / "runs"
    assert [path for path in runs.glob("*") if f"-{process.pid}-" in path.name] == []
    # What was measured until then can still be reported.
    run = next(isobench.results.glob("*Z-*"))
    again = isobench("report", str(run))
    assert again.code == 0, again.said
    assert json.loads((run / "summary.json").read_text())["run"]["complete"] is False


def test_the_time_limit_ends_a_run_with_124_and_a_report(isobench: Command) -> None:
    ran = isobench("run", "-t", "namespaces", "-w", "cpu", "--blocks", "900", "--timeout", "20s")
    assert ran.code == 124
    assert ran.summary()["run"]["interrupted"]
    assert (ran.latest / "report.html").exists()


def test_a_target_asked_for_by_name_that_cannot_run_ends_with_3_and_a_hint(
    isobench: Command,
) -> None:
    ran = isobench("run", "-t", "docker", *FEW, DOCKER_HOST="unix:///nowhere/docker.sock")
    assert ran.code == 3
    assert "docker cannot run here" in ran.err
    assert "→" in ran.err
    assert not ran.latest.exists()


def test_a_machine_without_engines_is_still_measured(isobench: Command, able: Able) -> None:
    """The newcomer's first run: native against namespaces, and a hint for everything missing."""
    able("namespaces")
    ran = isobench(
        *("run", "-w", "cpu.sieve,startup.exec", "-r", "2", "--min-time", "0.004s"),
        PATH=str(Path(sys.executable).parent),
        DOCKER_HOST="unix:///nowhere/docker.sock",
    )
    assert ran.code == 0, ran.said
    summary = ran.summary()
    status = {item["name"]: item["status"] for item in summary["targets"]}
    assert status["native"] == status["namespaces"] == "measured"
    missing = [item for item in summary["targets"] if item["status"] == "unavailable"]
    assert {"docker", "podman", "bubblewrap", "qemu-user-aarch64"} <= {
        item["name"] for item in missing
    }
    assert all(item["reason"] and item["hint"] for item in missing)
    page = (ran.latest / "report.html").read_text()
    assert "isobench doctor --install podman" in page


def test_clean_removes_every_trace(isobench: Command, able: Able, tmp_path: Path) -> None:
    able("docker")
    able("podman")
    # The suite's own cache serves other tests.
    isobench.environment["XDG_CACHE_HOME"] = str(tmp_path / "cache")
    images = ["images", "--quiet", "--filter", "label=isobench"]
    assert isobench("run", "-t", "docker,podman", "-w", "startup.cold", "--blocks", "1").code == 0
    cleaned = isobench("clean")
    assert cleaned.code == 0
    for engine in ("docker", "podman"):
        left = subprocess.run([engine, *images], capture_output=True, text=True, check=True)
        assert left.stdout.split() == []
        assert f"removed {engine} image" in cleaned.out
    assert not (Path(isobench.environment["XDG_CACHE_HOME"]) / "isobench").exists()
    assert isobench.results.exists()


# ---- a target from another distribution --------------------------------------------------------


@pytest.fixture
def with_example(isobench: Command) -> Command:
    """Install the example distribution where only this test's processes look."""
    site = isobench.folder / "site"
    distributions.lay_out(CHECKOUT / "tests" / "data" / "example_distribution", site)
    isobench.environment["PYTHONPATH"] = os.pathsep.join([str(site), str(CHECKOUT)])
    return isobench


def test_a_target_of_another_distribution_is_measured_like_any_other(with_example: Command) -> None:
    listed = {row["name"]: row for row in json.loads(with_example("targets", "--json").out)}
    if not listed["unshare"]["available"]:
        row = listed["unshare"]
        pytest.skip(f"the example target cannot run here: {row['what']}; {row['hint']}")
    ran = with_example("run", "-t", "unshare", *FEW)
    assert ran.code == 0, ran.said
    cells = [cell for cell in ran.summary()["cells"] if cell["target"] == "unshare"]
    assert len(cells) == 6


def test_a_target_that_does_not_keep_its_expectation_gets_no_number(with_example: Command) -> None:
    listed = {row["name"]: row for row in json.loads(with_example("targets", "--json").out)}
    if not listed["unshare"]["available"]:
        row = listed["unshare"]
        pytest.skip(f"the example target cannot run here: {row['what']}; {row['hint']}")
    # It has the host's mounts, and claims to have its own.
    (with_example.folder / "isobench.toml").write_text('[targets.unshare]\npretend = "ns.ipc"\n')
    ran = with_example("run", "-t", "unshare", *FEW)
    assert ran.code == 6
    summary = ran.summary()
    target = next(item for item in summary["targets"] if item["name"] == "unshare")
    assert target["status"] == "unproven"
    assert "ns.ipc" in target["reason"]
    assert [cell for cell in summary["cells"] if cell["target"] == "unshare"] == []
    causes = {gap["cause"] for gap in summary["gaps"] if gap["target"] == "unshare"}
    assert causes == {"unproven"}


# ---- an ordinary user --------------------------------------------------------------------------


def test_an_ordinary_user_runs_rootless(ordinary: Ordinary) -> None:
    """Rootless Podman, and namespaces without privilege."""
    names = ("namespaces", *(["podman"] if shutil.which("podman") else []))
    arguments = ["-t", ",".join(names), "-w", "cpu.sieve,io.metadata,startup", "--blocks", "3"]
    folder = ordinary.home / "run-1"
    done = ordinary("-m", "isobench", "run", *arguments, "-o", str(folder))
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    targets = {item["name"]: item for item in summary["targets"]}
    for name in names:
        assert targets[name]["status"] == "measured"
        assert "rootless" in targets[name]["version"]
        assert targets[name]["evidence"]["ns.user"] == "unlike"
        assert all(expectation["kept"] for expectation in targets[name]["promises"])
    assert summary["gaps"] == []
    assert ordinary("-m", "isobench", "clean").returncode == 0


def test_an_isobench_in_another_pid_namespace_is_seen_to_live(able: Able) -> None:
    """A container in which isobench runs: its number means nothing out here."""
    able("namespaces")
    program = (
        "import sys; from isobench.plugins import ownership;"
        " print(ownership.mine(), flush=True); sys.stdin.read()"
    )
    apart = ["unshare", "--user", "--map-root-user", "--pid", "--fork", "--mount-proc"]
    process = subprocess.Popen(
        [*apart, sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        whose = waiting.line(process)
        assert whose.split("-")[2] == "1"
        assert ownership.alive(whose)
        process.communicate(timeout=waiting.PATIENCE)  # the end of its input ends it
    finally:
        waiting.killed(process)


def test_an_interrupted_run_goes_on_where_it_ended(isobench: Command) -> None:
    few = ("-w", "cpu.sieve", "-t", "namespaces", "--min-time", "0.004s")
    process = isobench.start("run", *few, "--blocks", "60")
    _wait_for_a_block(process, isobench.results)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=120)
    run = next(isobench.results.glob("*Z-*"))
    before = (run / "records.jsonl").read_bytes()
    begun = max(each["block"] for each in _samples(run))
    wanted = begun - _blocks(run).count(False) + 4
    resumed = isobench("run", "--resume", "--blocks", str(wanted))
    assert resumed.code == 0, resumed.said
    assert [path.name for path in isobench.results.glob("*Z-*")] == [run.name]
    assert (run / "records.jsonl").read_bytes().startswith(before)
    # The block that was interrupted counts for what it has; none is measured twice.
    samples = _samples(run)
    keys = [tuple(each[key] for key in KEYS) for each in samples]
    assert len(keys) == len(set(keys))
    assert max(each["block"] for each in samples) - _blocks(run).count(False) == wanted
    summary = resumed.summary()
    assert summary["run"]["complete"]
    assert summary["run"]["blocks"] == wanted
    assert summary["gaps"] == []
    assert isobench("run", "--resume", "nowhere").code == 2


def test_a_run_is_confined_to_the_cpus_named_and_every_target_with_it(
    isobench: Command, able: Able
) -> None:
    able("docker")
    cpu = str(min(os.sched_getaffinity(0)))
    few = ("-w", "cpu.sieve", "-r", "1", "--min-time", "0.004s")
    ran = isobench("run", "-t", "docker,namespaces", "--affinity", cpu, *few)
    assert ran.code == 0, ran.said
    for name in ("native", "docker", "namespaces"):
        state = json.loads((ran.latest / "state" / f"{name}-pre.json").read_text())
        (usable,) = [fact["value"] for fact in state["facts"] if fact["key"] == "cpu.usable"]
        assert usable == 1, name
    codes = {code for cell in ran.summary()["cells"] for code in cell["doubt_codes"]}
    assert "other-cpus" not in codes
