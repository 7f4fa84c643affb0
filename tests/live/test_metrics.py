"""Whole runs of a workload with metrics beside time."""

import pytest

from isobench.storage import reader
from tests.live.conftest import CHECKOUT, Command
from tests.live.test_run import Able

pytestmark = pytest.mark.live
FOLDER = CHECKOUT / "tests" / "data" / "workloads"


def test_what_a_payload_counts_is_compared_as_its_time_is(isobench: Command, able: Able) -> None:
    able("namespaces")
    ran = isobench(
        "run", "-t", "namespaces", "--workload-folder", str(FOLDER), "-w", "app.pages",
        "--blocks", "3", "--min-time", "0.004s",
    )  # fmt: skip
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert summary["gaps"] == []
    cells = {(cell["target"], cell["metric"]): cell for cell in summary["cells"]}
    metrics = ("time", "faults", "rate")
    assert set(cells) == {(t, m) for t in ("namespaces", "native#2") for m in metrics}
    faults, rate = cells["namespaces", "faults"], cells["namespaces", "rate"]
    (work,) = summary["workloads"]
    assert faults["value"] >= work["loops"], "each page is a fault"
    assert (faults["unit"], rate["unit"]) == ("count", "ops/s")
    assert faults["ratio"] == pytest.approx(1.0, rel=0.01), "the same kernel gives the same pages"
    assert rate["ratio"] > 0
    samples = reader.load(ran.latest).samples
    units = {str(row.metric): str(row.unit) for row in samples.itertuples()}
    assert units["fact.memory.faults"] == "count"
    assert units["fact.memory.pages_per_s"] == "ops/s"
    assert units["time"] == "ns"
