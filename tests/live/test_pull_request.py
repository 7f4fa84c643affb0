"""The workflow of docs/ci for a pull request: base and head are measured in one job."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from isobench.plugins.api import Target
from tests import nights
from tests.workflows import Job

pytestmark = pytest.mark.live

WORKFLOW: Final = nights.CHECKOUT / "docs" / "ci" / "github-pull-request.yml"
SHORTER: Final = {
    "BUDGET: 10m": "BUDGET: 20s",
    "--workloads syscall,startup": "--workloads syscall.getppid,startup.cold",
}
COMPARISONS: Final = 400
"""Of an argument, before the kernel lets a call pass."""


def profile(calls: list[dict[str, object]]) -> str:
    """Return a seccomp profile that allows everything but these calls."""
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": calls})


def expensive(call: str) -> str:
    """Return a profile with which a call is compared again and again, and is then allowed."""
    refused = [
        {
            "names": [call],
            "action": "SCMP_ACT_ERRNO",
            "args": [
                {"index": 0, "value": ((0x6000 + number) << 32) + number, "op": "SCMP_CMP_EQ"}
            ],
        }
        for number in range(COMPARISONS)
    ]
    return profile(refused)


def git(folder: Path, *words: str) -> str:
    """Run git; return what it printed."""
    who = ("-c", "user.name=a", "-c", "user.email=a@example.org")
    argv = ["git", "-C", str(folder), *who, *words]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def proposed(tmp_path: Path, machine: nights.Machine, name: str, head: str) -> Job:
    """Run the workflow for a pull request that replaces the profile by another."""
    workspace = tmp_path / name
    workspace.mkdir()
    git(workspace, "init", "--quiet")
    commits = []
    for text in (profile([]), head):
        (workspace / "seccomp.json").write_text(text + "\n")
        git(workspace, "add", "seccomp.json")
        git(workspace, "commit", "--quiet", "--allow-empty", "--message", "a profile")
        commits.append(git(workspace, "rev-parse", "HEAD"))
    job = Job(
        workspace=workspace,
        temporary=tmp_path / f"{name}-temporary",
        cache=tmp_path / "cache",
        artifacts=tmp_path / f"{name}-artifacts",
        execute=machine.execute(workspace),
        environment=dict(machine.environment),
        github={"event.pull_request.base.sha": commits[0]},
    )
    shorter = tmp_path / "workflow.yml"
    text = WORKFLOW.read_text()
    for whole, part in SHORTER.items():
        assert whole in text
        text = text.replace(whole, part)
    shorter.write_text(text)
    job.run(shorter)
    return job


@pytest.mark.timeout(1200)
def test_a_more_expensive_profile_fails_the_job_and_an_equal_one_does_not(
    able: Callable[[str], Target], tmp_path: Path
) -> None:
    able("docker")
    machine = nights.here(tmp_path)
    same = proposed(tmp_path, machine, "same", profile([]))
    assert [(step.name, step.output[-2000:]) for step in same.failed] == []
    assert "getppid" in same.summary

    slower = proposed(tmp_path, machine, "slower", expensive("getppid"))
    assert [step.name for step in slower.failed] == ["Compare"], nights.everything(slower)
    assert [step.code for step in slower.failed] == [1]
    assert "syscall.getppid" in slower.failed[0].output
    uploaded = {path.name for path in (slower.artifacts / "isobench").glob("*")}
    assert uploaded == {"isobench-first", "isobench-again"}
