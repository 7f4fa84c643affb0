"""Which share of a contended CPU a process gets, by its cgroups and their weights."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from isobench.analysis.cells import Analysis
from isobench.evidence import cpu_share, doubts, parity, prove
from isobench.evidence.cpu_share import Chain, Contention
from isobench.model import BlockHealth, Evidence, Status
from isobench.model.units import TargetName, WorkloadName
from isobench.storage import reader

OWN = "share.isobench-m-1-2-abcd"


def chain(*members: tuple[str, int]) -> Chain:
    return Chain(names=tuple(n for n, _ in members), weights=tuple(w for _, w in members))


BUSY = Contention(text="busy", is_saturated=False)
ROOT = chain()
PLACED = chain((OWN, 1024), ("programs", 1024))
DOCKER = chain(("docker", 1024), ("4f2a", 1024))
LOGIN = chain(("user.slice", 100), ("user-1000.slice", 100), ("session-2.scope", 100))
DELEGATED = chain(
    ("user.slice", 100), ("user-1000.slice", 100), ("user@1000.service", 100), (OWN, 100)
)


@pytest.mark.parametrize(
    ("native", "target", "equal"),
    [
        (ROOT, ROOT, True),
        (LOGIN, LOGIN, True),
        (PLACED, PLACED, True),
        (PLACED, DOCKER, True),
        (PLACED, chain(("lxc.payload.box", 1024)), True),
        (PLACED, chain(*zip(PLACED.names, PLACED.weights, strict=True), ("box", 1024)), True),
        (PLACED, chain(("docker", 512), ("4f2a", 1024)), False),
        (PLACED, chain(("docker", 1024), ("4f2a", 512)), True),
        (PLACED, ROOT, False),
        (ROOT, DOCKER, False),
        (LOGIN, chain(("system.slice", 100), ("docker-4f2a.scope", 100)), False),
        (DELEGATED, chain(("system.slice", 100), ("docker-4f2a.scope", 100)), False),
        (
            DELEGATED,
            chain(
                *zip(DELEGATED.names[:3], DELEGATED.weights[:3], strict=True),
                ("user.slice", 100),
                ("libpod-4f2a.scope", 100),
            ),
            True,
        ),
        (chain(("autogroup-7", 1024)), chain(("autogroup-9", 1024)), True),
        (chain(("autogroup-7", 1024)), DOCKER, True),
        (chain(("autogroup-7", 110)), DOCKER, False),
    ],
)
def test_shares_are_equal_where_both_are_competitors_of_one_level_and_weight(
    native: Chain, target: Chain, equal: bool
) -> None:
    assert cpu_share.have_equal_shares(native, target) is equal


@pytest.mark.parametrize(
    ("group", "weights"), [(None, "1024"), ("/a", None), ("/a/b", "1024"), ("/a", "many")]
)
def test_facts_that_are_missing_or_do_not_fit_give_no_chain(
    group: str | None, weights: str | None
) -> None:
    assert Chain.parse(group, weights) is None


@pytest.mark.parametrize("one", [ROOT, PLACED, DOCKER])
def test_a_chain_is_read_back_from_its_facts(one: Chain) -> None:
    assert Chain.parse(one.path, " ".join(map(str, one.weights))) == one


# ---- reading


@pytest.fixture
def plant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that replaces cgroups and /proc by these files."""
    cgroups = tmp_path / "cgroup"
    monkeypatch.setattr(cpu_share, "CGROUPS", cgroups)
    read = Path.read_text

    def plant(files: dict[str, str], proc: dict[str, str]) -> None:
        for name, text in files.items():
            path = cgroups / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

        def read_text(self: Path, *rest: object) -> str:
            if not self.is_relative_to("/proc"):
                return read(self)
            if str(self) not in proc:
                raise FileNotFoundError(str(self))
            return proc[str(self)]

        monkeypatch.setattr(Path, "read_text", read_text)

    return plant


IN_ROOT = {"/proc/7/cgroup": "2:cpu:/\n", "/proc/sys/kernel/sched_autogroup_enabled": "1\n"}
V1 = {
    "cpu/cpu.shares": "1024\n",
    "cpu/docker/cpu.shares": "1024\n",
    "cpu/docker/4f2a/cpu.shares": "512\n",
}
V2 = {
    "cgroup.controllers": "cpu memory\n",
    "system.slice/cpu.weight": "100\n",
    "system.slice/docker-4f2a.scope/cpu.weight": "50\n",
    "user.slice/session-2.scope/cgroup.procs": "",
    "user.slice/cpu.weight": "100\n",
}


@pytest.mark.parametrize(
    ("files", "proc", "expected"),
    [
        (
            V1,
            {"/proc/7/cgroup": "2:cpu,cpuacct:/docker/4f2a\n"},
            chain(("docker", 1024), ("4f2a", 512)),
        ),
        (V1, {"/proc/7/cgroup": "3:memory:/m\n2:cpu:/\n"}, ROOT),
        (V1, {"/proc/7/cgroup": "3:memory:/m\n"}, None),
        (V1, {"/proc/7/cgroup": "2:cpu:/../other\n"}, None),
        (V1, {}, None),
        (
            V1,
            IN_ROOT | {"/proc/7/autogroup": "/autogroup-25 nice 0\n"},
            chain(("autogroup-25", 1024)),
        ),
        (
            V1,
            IN_ROOT | {"/proc/7/autogroup": "/autogroup-25 nice 10\n"},
            chain(("autogroup-25", 110)),
        ),
        (
            V2,
            {"/proc/7/cgroup": "0::/system.slice/docker-4f2a.scope\n"},
            chain(("system.slice", 100), ("docker-4f2a.scope", 50)),
        ),
        # Where a cgroup has no weight, its processes compete in the one above.
        (V2, {"/proc/7/cgroup": "0::/user.slice/session-2.scope\n"}, chain(("user.slice", 100))),
    ],
)
def test_the_chain_of_a_process_ends_where_weights_end(
    files: dict[str, str],
    proc: dict[str, str],
    expected: Chain | None,
    plant: Callable[..., None],
) -> None:
    plant(files, proc)
    assert cpu_share.chain_of(7) == expected


def test_this_process_has_a_chain_or_none_and_its_facts_give_it_back() -> None:
    facts = {fact.key: fact.value for fact in cpu_share.evidence(1)}
    one = cpu_share.chain_of(1)
    assert (Chain.parse(*map(facts.get, cpu_share.FACTS)) if facts else None) == one


def test_a_process_that_is_unknown_has_no_facts() -> None:
    assert list(cpu_share.evidence(None)) == []


# ---- contention


def health(pressure: float | None = None, queue: float | None = None) -> BlockHealth:
    return BlockHealth(
        block=1, seconds=2.0, steal_percent=90.0, pressure_percent=pressure, swapped_in_pages=0,
        throttled=None, clock_source="tsc", run_queue=queue,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], None),
        ([health()], None),
        ([health(10.0)], None),
        ([health(10.0), health(70.0)], ("programs waited for a CPU 40 % of the time", False)),
        ([health(60.0)], ("programs waited for a CPU 60 % of the time", True)),
        ([health(10.0, queue=9.0)], None),
        ([health(queue=1.5)], None),
        ([health(queue=2.5)], ("2.5 other programs were ready to run on 2 CPUs", False)),
        ([health(queue=4.0)], ("4.0 other programs were ready to run on 2 CPUs", True)),
    ],
)
def test_a_host_is_contended_where_programs_wait_for_a_cpu(
    blocks: list[BlockHealth], expected: tuple[str, bool] | None
) -> None:
    found = cpu_share.contention(blocks, 2)
    assert (None if found is None else (found.text, found.is_saturated)) == expected


# ---- what follows from it


@pytest.mark.parametrize(
    ("native", "target", "contention"),
    [
        (None, DOCKER, BUSY),
        (ROOT, None, BUSY),
        (ROOT, DOCKER, None),
        (PLACED, DOCKER, None),
        (PLACED, PLACED, BUSY),
        (LOGIN, LOGIN, BUSY),
        (chain(("autogroup-7", 1024)), chain(("autogroup-9", 1024)), BUSY),
        (PLACED, chain((OWN, 1024), ("programs", 1024), ("box", 1024)), BUSY),
    ],
)
def test_there_is_no_doubt_without_known_chains_and_contention(
    native: Chain | None, target: Chain | None, contention: Contention | None
) -> None:
    assert doubts.of_cpu_share(native, target, contention) == ()


def test_unequal_shares_of_a_contended_cpu_take_the_verdict() -> None:
    (doubt,) = doubts.of_cpu_share(LOGIN, DOCKER, BUSY)
    assert (doubt.code, doubt.blocks) == ("cpu-share", True)
    assert "busy" in doubt.detail
    assert DOCKER.path in doubt.detail


@pytest.mark.parametrize("native", [PLACED, chain(("autogroup-7", 1024))])
def test_equal_weights_of_a_contended_cpu_do_not_take_every_verdict(native: Chain) -> None:
    (doubt,) = doubts.of_cpu_share(native, DOCKER, BUSY)
    assert (doubt.code, doubt.blocks) == ("cpu-share", False)
    assert doubt.code in doubts.UNEVEN


@pytest.mark.parametrize(
    ("ratio", "pressure", "status"),
    [
        (0.78, 30.0, Status.UNPROVEN),
        (1.0, 30.0, Status.NEAR_NATIVE),
        (1.3, 30.0, Status.UNPROVEN),
        (1.7, 30.0, Status.SLOWER),
        (1.0, 90.0, Status.UNPROVEN),
        (1.3, 90.0, Status.UNPROVEN),
    ],
)
def test_a_container_of_equal_weight_has_a_verdict_that_shares_do_not_explain(
    ratio: float, pressure: float, status: Status, synthetic: Callable[..., Path]
) -> None:
    states = {"docker": state(DOCKER), "native": state(PLACED)}
    path = synthetic({("docker", "cpu.sieve"): ratio}, states=states, pressure=pressure)
    cell = Analysis(reader.load(path)).cell(WorkloadName("cpu.sieve"), TargetName("docker"))
    assert cell is not None
    assert cell.verdict.status is status
    assert "cpu-share" in {doubt.code for doubt in cell.verdict.doubts}


def state(one: Chain) -> dict[str, object]:
    facts = dict(zip(cpu_share.FACTS, (one.path, " ".join(map(str, one.weights))), strict=True))
    return {"facts": [{"key": key, "value": v, "source": "/proc"} for key, v in facts.items()]}


RATIOS = {("docker", w): 0.78 for w in ("cpu.sieve", "syscall.yield", "io.fsync", "startup.cold")}


@pytest.mark.parametrize(
    ("native", "pressure", "doubted"),
    [
        (LOGIN, 80.0, {"cpu.sieve", "syscall.yield"}),
        (LOGIN, 10.0, set()),
        (LOGIN, None, set()),
        (PLACED, 80.0, {"cpu.sieve", "syscall.yield"}),
        (PLACED, 10.0, set()),
        (None, 80.0, set()),
    ],
)
def test_faster_is_no_verdict_of_work_that_got_another_share_of_the_cpu(
    native: Chain | None, pressure: float | None, doubted: set[str], synthetic: Callable[..., Path]
) -> None:
    states = {"docker": state(DOCKER)} | ({"native": state(native)} if native else {})
    run = reader.load(synthetic(RATIOS, states=states, pressure=pressure))
    analysis = Analysis(run)
    for target, workload in RATIOS:
        cell = analysis.cell(WorkloadName(workload), TargetName(target))
        assert cell is not None
        codes = {doubt.code for doubt in cell.verdict.doubts}
        assert ("cpu-share" in codes) is (workload in doubted), workload
        expected = Status.UNPROVEN if workload in doubted else Status.FASTER
        assert cell.verdict.status is expected, workload


def test_the_parity_table_names_both_cgroups_without_the_identifiers_of_instances() -> None:
    def environment(one: Chain) -> object:
        values = zip(cpu_share.FACTS, (one.path, "1024 1024"), strict=True)
        return prove.gather(Evidence(key=k, value=v, source="/proc") for k, v in values)

    identifier = "4f2a" * 16
    docker = replace(DOCKER, names=("docker", identifier))
    (row,) = parity.differences(environment(PLACED), environment(docker))  # type: ignore[arg-type]
    assert identifier not in row.target
    assert row.target.startswith("/docker/4f2a")
    assert row.native.startswith("/share.isobench")
