"""Folders -> workloads."""

import re
from pathlib import Path

import pytest

from isobench.config import paths
from isobench.model import TIME, Abi, Better, Metric, Need, Scope, Start
from isobench.model.errors import UsageError
from isobench.model.units import Unit, seconds
from isobench.workloads import classes, loader

GOOD = """
name = "cpu.mine"
summary = "Mine"
scope = "loop"
operation = "one turn"
timeout_s = 1.5
args = ["a", "b c"]
most_loops = 9

[answer]
loops = 20
check = "0123456789abcdef"

[metrics]
time = "ns"
"""
PEAK = 'peak = { unit = "bytes", better = "lower", fact = "memory.peak" }'
ANSWER = '[answer]\nloops = 20\ncheck = "0123456789abcdef"\n'


def folder(root: Path, text: str = GOOD, name: str = "mine") -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "workload.toml").write_text(text)
    (root / name / "payload.c").write_text("/* nothing */\n")
    return root


def test_what_a_workload_needs_and_an_abi_lacks_is_reported_with_the_reason(tmp_path: Path) -> None:
    text = GOOD.replace("timeout_s", 'needs = ["threads", "parent"]\ntimeout_s')
    found = loader.read(folder(tmp_path, text) / "mine" / "workload.toml")
    assert found.needs == (Need.THREADS, Need.PARENT)
    assert found.lack(Abi.WASM32.lacks) == Abi.WASM32.lacks[Need.THREADS]
    assert found.lack(Abi.ELF_AARCH64.lacks) == ""


def test_a_workload_is_read_with_all_its_keys(tmp_path: Path) -> None:
    found = loader.read(folder(tmp_path) / "mine" / "workload.toml")
    assert (found.name, found.class_name, found.scope) == ("cpu.mine", "cpu", Scope.LOOP)
    assert (found.args, found.most_loops, found.libc) == (("a", "b c"), 9, False)
    assert found.timeout == seconds(1.5)
    assert found.answer is not None
    assert (found.answer.loops, found.answer.check) == (20, "0123456789abcdef")
    assert found.source == tmp_path / "mine" / "payload.c"
    assert found.program == "cpu.mine"


def test_metrics_are_read_with_unit_and_direction_time_first(tmp_path: Path) -> None:
    text = GOOD + f'{PEAK}\n[metrics.rate]\nunit = "ops/s"\nbetter = "higher"\nfact = "a.b"\n'
    found = loader.read(folder(tmp_path, text) / "mine" / "workload.toml").metrics
    assert list(found) == ["time", "peak", "rate"]
    assert found["time"] == TIME
    assert found["peak"] == Metric(name="peak", unit=Unit.BYTE, fact="memory.peak")
    assert (found["rate"].better, found["rate"].recorded_as) == (Better.HIGHER, "fact.a.b")


def test_the_key_of_a_fact_is_a_name(tmp_path: Path) -> None:
    text = GOOD + PEAK.replace("memory.peak", "memory peak")
    with pytest.raises(UsageError, match="fact: "):
        loader.read(folder(tmp_path, text) / "mine" / "workload.toml")


def test_a_start_has_no_metric_but_time(tmp_path: Path) -> None:
    text = GOOD.replace('"loop"', '"exec"').replace(ANSWER, "") + PEAK
    with pytest.raises(UsageError, match=r'peak cannot be measured: scope = "exec"'):
        loader.read(folder(tmp_path, text) / "mine" / "workload.toml")


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name = "cpu.mine"\n', "", "name"),
        ('"cpu.mine"', '"mine"', "name"),
        ('"cpu.mine"', '"cpu.Mine"', "name"),
        ('"cpu.mine"', '"cpu.../../x"', "name"),
        ('"loop"', '"loops"', "scope"),
        ("timeout_s", 'needs = ["luck"]\ntimeout_s', "needs"),
        ('"cpu.mine"', '"cpu.mine\\n"', "name"),
        ('"ns"', '"s"', "metrics"),
        ('time = "ns"', 'latency = "ns"', "metrics: latency cannot be measured"),
        ('time = "ns"', 'time = "ns"\nbytes = "ns"', "metrics: bytes cannot be measured"),
        ('time = "ns"', "", "metrics: none is given"),
        ('time = "ns"', 'time = "bytes"', r':\d+: metrics: time = "ns" must be among them'),
        ('time = "ns"', 'time = { unit = "ns" }', 'time = "ns" must be among them'),
        ('time = "ns"', PEAK, 'time = "ns" must be among them'),
        (
            'time = "ns"',
            f'time = "ns"\n{PEAK}'.replace("peak =", "pe_ak ="),
            ":16: .*pe_ak is not a name",
        ),
        (
            'time = "ns"',
            f'time = "ns"\n{PEAK}'.replace("bytes", "byte"),
            ":16: unit: 'byte' is not one of",
        ),
        ('time = "ns"', f'time = "ns"\n{PEAK}'.replace("lower", "less"), ":16: better: 'less' is"),
        (
            'time = "ns"',
            f'time = "ns"\n{PEAK}'.replace("memory.peak", ""),
            ":16: .*cannot be measured",
        ),
        (
            'time = "ns"',
            f'time = "ns"\n{PEAK}'.replace("better", "beter"),
            ":16: beter: there is no",
        ),
        ('time = "ns"', 'time = "ns"\npeak = { unit = "bytes" }', ":16: lacks fact"),
        ("loops = 20", "loops = 0", "loops"),
        ('"0123456789abcdef"', '"123"', "check"),
        ("1.5", "0", "timeout_s"),
        ("summary", "sumary", "sumary|summary"),
        ('args = ["a", "b c"]', "args = [1]", "args"),
        (ANSWER, "", "answer: missing"),
        ('"loop"', '"session"', "start: missing"),
        ("[metrics]", "[metrics", "workload.toml"),
        ('operation = "one turn"', 'source = "other.c"', "no such file"),
    ],
)
def test_a_mistake_is_reported_with_the_file_and_the_key(
    old: str, new: str, why: str, tmp_path: Path
) -> None:
    assert old in GOOD
    path = folder(tmp_path, GOOD.replace(old, new)) / "mine" / "workload.toml"
    with pytest.raises(UsageError, match=why) as caught:
        loader.read(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint


def test_the_shipped_workloads_and_ones_own_are_found_together(tmp_path: Path) -> None:
    shipped, both = loader.find(), loader.find([folder(tmp_path)])
    assert set(both) == {*shipped, "cpu.mine"}


def test_a_name_that_is_taken_is_reported_with_both_folders(tmp_path: Path) -> None:
    text = GOOD.replace("cpu.mine", "cpu.sieve")
    with pytest.raises(UsageError, match=r"cpu\.sieve is already used by .*cpu_sieve"):
        loader.find([folder(tmp_path, text)])


def test_a_folder_that_is_not_there_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such folder of workloads"):
        loader.find([tmp_path / "nowhere"])


def test_workloads_come_in_the_order_of_their_classes() -> None:
    groups = [workload.class_name for workload in loader.find().values()]
    assert groups == sorted(groups, key=classes.rank)
    assert {"cpu", "syscall", "io", "startup"} <= set(groups)


def test_a_class_of_ones_own_comes_last(tmp_path: Path) -> None:
    found = loader.find([folder(tmp_path, GOOD.replace("cpu.mine", "aaa.mine"))])
    assert list(found)[-1] == "aaa.mine"


def test_a_class_or_a_name_selects() -> None:
    every = loader.find()
    assert loader.select(every, []) == every
    assert loader.select(every, ["all"]) == every
    assert list(loader.select(every, ["cpu.sieve"])) == ["cpu.sieve"]
    assert {w.class_name for w in loader.select(every, ["cpu", "io"]).values()} == {"cpu", "io"}


def test_a_selection_keeps_the_usual_order_and_holds_nothing_twice() -> None:
    every = loader.find()
    chosen = list(loader.select(every, ["io", "cpu.sieve", "cpu"]))
    assert chosen == [name for name in every if name.startswith(("cpu.", "io."))]


@pytest.mark.parametrize("name", ["cpu.siev", "CPU", "", "cpu.", "startup.cold#2"])
def test_a_name_that_means_nothing_is_reported_with_a_hint(name: str) -> None:
    with pytest.raises(UsageError, match=re.escape(repr(name))) as caught:
        loader.select(loader.find(), [name])
    assert "isobench workloads" in caught.value.hint


def test_every_shipped_folder_with_a_description_is_named_after_its_workload() -> None:
    for workload in loader.find().values():
        path = paths.shared("workloads") / workload.name.replace(".", "_").replace("-", "_")
        assert (path / "workload.toml").is_file(), workload.name


def test_every_loop_workload_has_a_known_answer_and_every_start_its_kind() -> None:
    for workload in loader.find().values():
        assert (workload.scope is Scope.LOOP) == (workload.answer is not None), workload.name
        assert (workload.scope is Scope.SESSION) == (workload.start is not None), workload.name


def test_the_start_up_workloads_share_one_program() -> None:
    found = [w for w in loader.find().values() if w.class_name == "startup"]
    assert {w.program for w in found} == {"_startup"}
    assert {w.start for w in found} == {Start.COLD, Start.WARM, None}


@pytest.mark.parametrize(("name", "right"), [("cpu.seive", "cpu.sieve"), ("sycall", "syscall")])
def test_a_name_nearly_right_is_answered_with_the_right_one(name: str, right: str) -> None:
    with pytest.raises(UsageError) as caught:
        loader.select(loader.find(), [name])
    assert caught.value.hint.startswith(f"did you mean {right}? ")
