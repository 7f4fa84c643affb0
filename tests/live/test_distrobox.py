"""Distrobox refuses root: its tests are an ordinary user's."""

import json

import pytest

from tests.live.conftest import CHECKOUT, Ordinary

pytestmark = pytest.mark.live


@pytest.fixture
def able(ordinary: Ordinary) -> Ordinary:
    """A user for whom a box can be made."""
    done = ordinary("-m", "isobench", "targets", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}["distrobox"]
    if not found["available"]:
        pytest.skip(f"distrobox cannot run here: {found['what']}; {found['hint']}")
    return ordinary


@pytest.mark.timeout(1800)
def test_it_keeps_to_what_every_target_must(able: Ordinary) -> None:
    done = able(
        *("-m", "pytest", "-p", "no:cacheprovider", "--quiet", "tests/contract"),
        *("-k", "distrobox", "--require", "distrobox"),
        folder=CHECKOUT,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout


@pytest.mark.timeout(1800)
def test_a_run_proves_home_and_names_and_leaves_no_box(able: Ordinary) -> None:
    folder = able.home / "run-1"
    few = ("-w", "cpu.sieve,startup", "--blocks", "3", "--min-time", "0.004s", "-o", str(folder))
    done = able("-m", "isobench", "run", "-t", "distrobox", *few, timeout=600)
    assert done.returncode == 0, done.stderr
    summary = json.loads((folder / "summary.json").read_text())
    (target,) = (item for item in summary["targets"] if item["name"] == "distrobox")
    assert target["status"] == "measured"
    assert all(expectation["kept"] for expectation in target["promises"])
    facts = {fact["key"]: fact["value"] for fact in target["facts"]}
    assert facts["host.home_shared"] is True
    assert summary["gaps"] == []
    script = "import subprocess as s; print(s.check_output(['podman', 'ps', '-aq']).decode())"
    assert able("-c", script).stdout.strip() == ""
    assert able("-m", "isobench", "clean").returncode == 0
