"""`isobench noise` on this machine: facts of it, never how noisy it is."""

import json

import pytest

from tests.live.conftest import Command

pytestmark = pytest.mark.live


def test_noise_measures_native_alone_and_leaves_latest_as_it_was(isobench: Command) -> None:
    ran = isobench("noise", "-w", "cpu.sieve", "--blocks", "3", "--export-json", "noise.json")
    assert ran.code == 0, ran.said
    made = json.loads((isobench.folder / "noise.json").read_text())
    (row,) = made["workloads"]
    assert (row["workload"], row["class"], row["blocks"]) == ("cpu.sieve", "cpu", 3)
    assert row["noise"] > 0
    assert row["exceeds"] is (row["noise"] > made["margin"])
    assert row["seconds_a_block"] > 0
    assert row["smallest_effect"]["10"] > row["smallest_effect"]["60"] > 0
    facts = {one["fact"] for one in made["host"]}
    assert {"steal", "load before", "clock source", "frequency governor"} <= facts
    assert made["health"]["blocks"] >= 3
    assert " ".join(made["headline"].split()) in " ".join(ran.out.split())
    assert not ran.latest.exists()
    (folder,) = ran.results.iterdir()
    assert folder.name.startswith("noise-")
    again = isobench("noise", str(folder), "--export-json", "again.json")
    assert again.code == 0, again.said
    assert json.loads((isobench.folder / "again.json").read_text())["workloads"] == [row]
