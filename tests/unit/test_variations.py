"""A target with one option changed: what is asked for, and what the option explains."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from isobench import stats
from isobench.analysis import summary as analysis
from isobench.model import Status
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.plugins.registry import Registry
from isobench.report.sections.lookup import look_up
from isobench.report.sections.variations import VARIATIONS
from isobench.storage import reader
from isobench.storage.schema import Summary, VariationSummary

Write = Callable[..., Path]


# ---- what is asked for


@pytest.mark.parametrize(
    ("written", "name", "table"),
    [
        (
            "docker.seccomp=unconfined",
            "docker-seccomp-unconfined",
            {"kind": "docker", "security_opt": ["seccomp=unconfined"]},
        ),
        ("docker.network=bridge", "docker-network-bridge", {"kind": "docker", "network": "bridge"}),
        ("landlock.seccomp=off", "landlock-seccomp-off", {"kind": "landlock", "seccomp": False}),
        ("qemu.vcpus=1", "qemu-vcpus-1", {"kind": "qemu", "vcpus": 1}),
        ("qemu.cache=writeback", "qemu-cache-writeback", {"kind": "qemu", "cache": "writeback"}),
    ],
)
def test_a_variation_is_the_target_with_one_option_changed(
    written: str, name: str, table: dict[str, Any]
) -> None:
    registry = Registry()
    found = registry.vary(written)
    assert (found.name, found.table) == (name, table)
    varied = registry.with_tables({found.name: found.table}).get(found.name)
    assert type(varied) is type(registry.get(found.base))
    assert varied != registry.get(found.base)


def test_what_is_configured_of_the_target_stays() -> None:
    registry = Registry({"crun": {"kind": "docker", "runtime": "crun", "network": "host"}})
    found = registry.vary("crun.network=none")
    assert found.table == {"kind": "docker", "runtime": "crun", "network": "none"}


@pytest.mark.parametrize(
    ("written", "said", "hint"),
    [
        ("docker", "is not TARGET.OPTION=VALUE", "--vary docker.network=bridge"),
        ("docker.network", "is not TARGET.OPTION=VALUE", "--vary docker.network=bridge"),
        ("dockr.network=host", "is not TARGET.OPTION=VALUE", "--vary docker.network=bridge"),
        ("docker.netwrok=host", "docker has no option netwrok", "network, security_opt"),
        ("docker.network=none", "has that value already", "another value"),
        ("qemu.vcpus=two", "'two' is not valid for vcpus", "a whole number"),
        ("landlock.seccomp=maybe", "'maybe' is not valid for seccomp", "true or false"),
        ("native.cpus=1", "native has no option cpus", "none"),
    ],
)
def test_what_cannot_be_varied_is_reported(written: str, said: str, hint: str) -> None:
    with pytest.raises(UsageError, match="--vary") as caught:
        Registry().vary(written)
    assert said in str(caught.value)
    assert hint in caught.value.hint


# ---- what it explains


def test_a_share_is_found_and_its_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(7)
    overhead, held = np.log(1.4), 0
    for _ in range(200):
        blocks = overhead + 0.02 * rng.standard_normal(20)
        effect = 0.6 * overhead + 0.02 * rng.standard_normal(20)
        found = stats.share(blocks, effect)
        assert found is not None
        held += found.low <= 0.6 <= found.high
    # 95 % of 200: 190, and three standard deviations below it 181.
    assert held >= 181


def test_of_no_overhead_there_is_no_share() -> None:
    rng = np.random.default_rng(8)
    assert stats.share(0.02 * rng.standard_normal(20), 0.1 + np.zeros(20)) is None
    assert stats.share(np.ones(2), np.ones(2)) is None
    with pytest.raises(ValueError, match="pair"):
        stats.share(np.ones(5), np.ones(4))


def test_a_share_that_nothing_bounds_is_without_end() -> None:
    rng = np.random.default_rng(9)
    found = stats.share(0.02 + 0.02 * rng.standard_normal(20), 3 * rng.standard_normal(20))
    assert found is not None
    assert (found.low, found.high) == (-np.inf, np.inf)


def variations(path: Path) -> list[dict[str, Any]]:
    made = analysis.summarise(reader.load(path), analysis.documents_claims())
    rows: list[dict[str, Any]] = json.loads(msgspec.json.encode(made))["variations"]
    return rows


VARIED = {
    "variations": [{"name": "box-fast", "base": "box", "option": "seccomp", "value": "off"}],
}


def test_an_option_that_costs_is_reported_with_its_share(synthetic: Write) -> None:
    path = synthetic(
        {("box", "syscall.getppid"): 1.5, ("box-fast", "syscall.getppid"): 1.1},
        blocks=20,
        noise=0.005,
        about=VARIED,
    )
    (row,) = variations(path)
    assert (row["target"], row["base"], row["standing"]) == ("box-fast", "box", "slower")
    assert row["effect"] == pytest.approx(1.5 / 1.1, rel=0.02)
    assert row["share"] == pytest.approx(np.log(1.5 / 1.1) / np.log(1.5), abs=0.03)
    assert row["share_interval"][0] < row["share"] < row["share_interval"][1]
    assert "from 1.50x to 1.10x native: it explains 7" in row["sentence"]


def test_an_option_that_costs_nothing_is_reported_as_well(synthetic: Write) -> None:
    path = synthetic(
        {("box", "cpu.sieve"): 1.2, ("box-fast", "cpu.sieve"): 1.2},
        blocks=20,
        noise=0.005,
        about=VARIED,
    )
    (row,) = variations(path)
    assert row["standing"] == "near-native"
    assert "no effect beyond the margin" in row["sentence"]


def test_a_variation_speaks_for_no_technology_and_shows_in_the_report(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    path = synthetic(
        {("box", "syscall.getppid"): 1.0, ("box-fast", "syscall.getppid"): 3.0},
        blocks=20,
        noise=0.005,
        about=VARIED,
    )
    made = analysis.summarise(reader.load(path), analysis.documents_claims())
    claim = next(row for row in made.claims if row.id == "perf-container")
    assert claim.axes["syscall"] == "supported"
    assert "box-fast" not in made.run.headline
    done = isobench("report", path)
    assert "box with seccomp = off" in done.words
    assert "< syscall.getppid: from 1.00x to 2.9" in done.words
    assert "What single options explain" in (path / "report.html").read_text()
    assert "**saves** syscall.getppid" in (path / "summary.md").read_text()


def test_an_effect_of_another_level_than_usual_has_its_level() -> None:
    one = VariationSummary(
        target=TargetName("box-fast"),
        base=TargetName("box"),
        option="seccomp",
        value="off",
        workload=WorkloadName("cpu.sieve"),
        effect=1.3,
        interval=(1.2, 1.4),
        level=0.999,
        status=Status.SLOWER,
    )
    shown = VARIATIONS.build(
        look_up(Summary(variations=(one, msgspec.structs.replace(one, level=0.97))))
    )
    assert shown is not None
    assert [effect.interval for effect in shown[0].effects] == [
        "[1.20, 1.40] at 99.9 %",
        "[1.20, 1.40]",
    ]


def test_a_variation_of_what_there_is_not_measures_nothing(isobench: Callable[..., Any]) -> None:
    done = isobench("run", "--vary", "namespaces.pid=1", "--dry-run")
    assert done.code == 2
    assert "namespaces has no option pid" in done.err


def test_what_is_varied_is_measured_beside_it(isobench: Callable[..., Any]) -> None:
    flags = ("-t", "native", "-w", "cpu.sieve", "--dry-run")
    done = isobench("run", "--vary", "landlock.seccomp=false", *flags)
    assert done.code in {0, 3}, done  # 3: no Landlock here
    if done.code == 0:
        assert "native, landlock, landlock-seccomp-false" in done.out
    else:
        assert "landlock" in done.err
