"""Disks that are full or read-only, and a Docker whose disk is full or whose daemon is killed: a
clear error, nothing lost of what was measured, and nothing left behind.
"""

import contextlib
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from isobench.plugins.api import Target
from isobench.storage import reader
from tests import dockerd, waiting
from tests.live.conftest import Command, Ran
from tests.live.conftest import isobench as isobench  # noqa: PLC0414 - a fixture

pytestmark = [pytest.mark.live, pytest.mark.timeout(300)]

Able = Callable[[str], Target]
WORK = ("-w", "cpu.sieve,syscall.getppid")
SHORT = (*WORK, "--blocks", "5", "--min-time", "0.004s", "--schedule", "blocks")
EXAMPLE = max((Path(__file__).parents[2] / "reports" / "examples").glob("*/records.jsonl")).parent
FULL = "No space left on device"


class Disk:
    """isobench in mounts of its own, in which `place` is a disk of `size` bytes, or read-only."""

    def __init__(self, isobench: Command, place: Path) -> None:
        self.isobench = isobench
        self.place = place
        place.mkdir()
        self.apart = ["unshare", "--mount", "--propagation", "private"]
        if os.geteuid() != 0:
            self.apart += ["--user", "--map-root-user"]
        argv = [*self.apart, "mount", "-t", "tmpfs", "none", str(place)]
        if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
            pytest.skip("no disk can be mounted here, as neither root nor in a user namespace")

    def __call__(self, *arguments: str, options: str, after: str = "", **variables: str) -> Ran:
        """Run isobench, and then `after` in a shell; `options` are those of the mount."""
        script = (
            f'mount -t tmpfs -o "{options}" none "$1" || exit 99; disk=$1; shift;'
            f' "$@"; code=$?; {after or ":"}; exit $code'
        )
        done = subprocess.run(
            [
                *(*self.apart, "sh", "-c", script, "sh", str(self.place)),
                *self.isobench.argv(*arguments),
            ],
            env={**self.isobench.environment, **variables}, cwd=self.isobench.folder,
            capture_output=True, text=True, check=False, timeout=280,
        )  # fmt: skip
        assert done.returncode != 99, done.stderr
        return Ran(done.returncode, done.stdout, done.stderr, self.place)


@pytest.fixture
def disk(isobench: Command, tmp_path: Path) -> Disk:
    return Disk(isobench, tmp_path / "disk")


def refused(ran: Ran, *words: str) -> None:
    """Demand an error of a line or two that has these words."""
    assert ran.code == 2, ran.said
    assert "Traceback" not in ran.said
    for word in words:
        assert word in ran.err, ran.said


def test_results_on_a_read_only_disk_are_refused_before_anything_is_measured(disk: Disk) -> None:
    ran = disk("run", "-t", "native,landlock", *SHORT, "-o", f"{disk.place}/run", options="ro")
    refused(ran, "not writable", f"{disk.place}/run", "--output")
    assert "block" not in ran.out


def test_a_disk_that_fills_up_in_a_run_keeps_what_was_measured(disk: Disk, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    ran = disk(
        "run", "-t", "native,landlock", *WORK, "--blocks", "200", "--min-time", "0.004s",
        "-o", f"{disk.place}/run", options="size=400k", after=f'cp -r "$disk/run" {saved}',
    )  # fmt: skip
    refused(ran, FULL, "records.jsonl", "--resume")
    run = reader.load(saved)
    assert run.samples["block"].nunique() > 2
    # What has been measured is analysed elsewhere.
    again = disk.isobench("report", str(saved), "-o", str(tmp_path / "report"), "-q")
    assert again.code == 0, again.said
    assert (tmp_path / "report" / "report.html").is_file()


def test_a_report_that_does_not_fit_is_an_error_and_the_old_one_stays(
    disk: Disk, tmp_path: Path
) -> None:
    target = f"{disk.place}/report"
    ran = disk("report", str(EXAMPLE), "-o", target, "-q", options="size=200k")
    refused(ran, FULL, target, "--output")


@pytest.mark.parametrize("options", ["ro", "size=64k"], ids=["read-only", "full"])
def test_a_cache_that_cannot_be_written_is_named(disk: Disk, options: str) -> None:
    ran = disk(
        "run", "-t", "native,landlock", *SHORT, options=options, XDG_CACHE_HOME=str(disk.place)
    )
    refused(ran, str(disk.place), "XDG_CACHE_HOME")


def test_a_full_temporary_folder_is_an_error(disk: Disk) -> None:
    ran = disk(
        "run", "-t", "native,landlock,bubblewrap", *SHORT, options="size=4k",
        TMPDIR=str(disk.place),
    )  # fmt: skip
    assert "Traceback" not in ran.said
    assert ran.code in (0, 2), ran.said


def test_a_history_on_a_disk_that_is_full_is_an_error_and_loses_nothing(
    disk: Disk, isobench: Command, tmp_path: Path
) -> None:
    pytest.importorskip("duckdb", reason="the extra history is not installed")
    ran = disk("history", "add", "--store", f"{disk.place}/store", str(EXAMPLE), options="size=4k")
    refused(ran, FULL, f"{disk.place}/store")


# ---- Docker itself -------------------------------------------------------------------------------


def test_a_full_disk_of_docker_costs_docker_alone(isobench: Command, able: Able) -> None:
    able("docker")
    with dockerd.private(size="16m") as daemon:
        with contextlib.suppress(OSError), (daemon.folder / "data" / "full").open("wb") as ballast:
            while True:
                ballast.write(bytes(4096))
                ballast.flush()
        ran = isobench("run", "-t", "docker,landlock", *SHORT, DOCKER_HOST=daemon.host)
        assert ran.code == 3, ran.said
        assert "Traceback" not in ran.said
        by_name = {one["name"]: one for one in ran.summary()["targets"]}
        assert by_name["landlock"]["status"] == "measured", ran.said
        assert "no space left" in str(by_name["docker"]).lower()
        assert daemon.containers() == []


def test_a_daemon_that_is_killed_costs_docker_the_rest_and_nothing_stays(
    isobench: Command, able: Able
) -> None:
    able("docker")
    with dockerd.private() as daemon:
        isobench.environment["DOCKER_HOST"] = daemon.host
        process = isobench.start(
            "run", "-t", "docker,landlock", *WORK, "--blocks", "40", "--min-time", "0.004s",
            "-o", str(isobench.folder / "run"),
        )  # fmt: skip
        states = isobench.folder / "run" / "state" / "blocks.jsonl"
        end = time.monotonic() + waiting.PATIENCE
        while not states.exists() or states.read_text().count("\n") < 5:
            assert time.monotonic() < end, "no block was measured in a minute"
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        daemon.kill()
        out, err = process.communicate(timeout=200)
        assert "Traceback" not in out + err
        assert process.returncode in (0, 6), out + err
        run = reader.load(isobench.folder / "run")
        blocks = run.samples.groupby("target")["block"].nunique()
        assert blocks["landlock"] > blocks["docker"] >= 5
        # What it could not remove, the next start removes when the daemon is back.
        daemon.start()
        cleaned = isobench("clean", "--stale", DOCKER_HOST=daemon.host)
        assert cleaned.code == 0, cleaned.said
        assert daemon.containers() == []
