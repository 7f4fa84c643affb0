"""The bench of bench_dial.py: its payloads do what the dial says, its rules say what they find."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.model import Command
from isobench.payload import wire
from tests import waiting
from tests.bench import bench_dial
from tests.bench.dialled_target.isobench_dialled import DialledTarget

CHECKOUT = Path(__file__).parents[2]
BASE = 20_000
WORD = 2**64 - 1


# ---- the payloads --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    return bench_dial.build_programs(tmp_path_factory.mktemp("programs"))


def said(program: Path, *words: str, dial: str | None = None) -> wire.Reply:
    environment = {} if dial is None else {"ISOBENCH_DIAL": dial}
    argv = [str(program), "n", *words]
    done = subprocess.run(argv, capture_output=True, check=True, env=environment)
    return wire.read(done.stdout, nonce="n", iterations=int(words[0]))


def fact(reply: wire.Reply, key: str) -> object:
    return next(one.value for one in reply.facts if one.key == key)


def walk(x: int, steps: int) -> int:
    for _ in range(steps):
        x ^= x << 13 & WORD
        x ^= x >> 7
        x ^= x << 17 & WORD
    return x


def mix(a: int, b: int) -> int:
    a ^= (b + 0x9E3779B97F4A7C15 + (a << 6) + (a >> 2)) & WORD
    a = a * 0xFF51AFD7ED558CCD & WORD
    return a ^ a >> 33


def expected(loops: int, dial: int) -> tuple[int, int]:
    """Return the checksum, and what must be seen of the steps that the dial adds."""
    state, check, added = 88172645463325252, 0, 0
    for _ in range(loops):
        state = walk(state, BASE)
        check = mix(check, state)
        added = mix(added, walk(state, dial * BASE // 1000))
    return check, added


@pytest.mark.parametrize("dial", [0, 5, 10, 50])
def test_the_dial_adds_steps_that_are_really_done(programs: Mapping[str, Path], dial: int) -> None:
    reply = said(programs["cpu.dial"], "0", "3", str(dial))
    check, added = expected(3, dial)
    assert reply.check == f"{check:016x}"
    assert fact(reply, "dial.added") == f"{added:016x}"
    assert fact(reply, "dial.steps") == 3 * (BASE + dial * BASE // 1000)


def test_what_it_computes_is_the_same_for_every_dial(programs: Mapping[str, Path]) -> None:
    program = programs["cpu.dial"]
    replies = [said(program, "2", "7", dial=dial) for dial in (None, "0", "1", "20", "1000")]
    assert all(reply.steady for reply in replies)
    assert len({reply.check for reply in replies}) == 1
    assert len({fact(reply, "dial.added") for reply in replies}) == 4


def test_an_argument_means_what_the_variable_means(programs: Mapping[str, Path]) -> None:
    by_argument = said(programs["cpu.dial"], "0", "2", "20")
    by_variable = said(programs["cpu.dial"], "0", "2", dial="20")
    assert by_argument.facts == by_variable.facts


@pytest.mark.parametrize("words", [("1000",), ()])
def test_a_start_waits_for_at_least_what_it_says(
    programs: Mapping[str, Path], words: Sequence[str]
) -> None:
    argv = [str(programs["startup.dial"]), "n", *words]
    began = time.monotonic()
    done = subprocess.run(argv, capture_output=True, check=True, env={"ISOBENCH_DIAL": "500"})
    assert time.monotonic() - began >= (0.040 if words else 0.030)  # no sleep is shorter
    assert done.stdout.startswith(wire.hello("n"))


def test_the_truth_is_told_of_each_dial(programs: Mapping[str, Path]) -> None:
    told = list(bench_dial.truth(programs["cpu.dial"], [0, 10, 50], rounds=1))
    assert [line.partition(":")[0] for line in told] == ["dial 1 %", "dial 5 %"]


# ---- the target ----------------------------------------------------------------------------------


def test_the_dialled_target_adds_its_dial_to_the_variables_of_a_command() -> None:
    command = Command(argv=("cpu.dial",), environment={"ISOBENCH_BLOCK": "2"})
    turned = DialledTarget(permille=10)._turned(command)
    assert turned.environ("/s") == {
        "ISOBENCH_DIAL": "10",
        "ISOBENCH_BLOCK": "2",
        "ISOBENCH_SCRATCH": "/s",
    }
    assert "ISOBENCH_DIAL" not in command.environ("/s")


def test_it_is_installed_for_those_who_have_its_site_on_their_path(tmp_path: Path) -> None:
    site = bench_dial.make_site(tmp_path)
    code = (
        "from isobench.plugins import guard; from isobench.plugins.registry import Registry;"
        "print(guard.unwrapped(Registry({'dialled': {'permille': 20}}).get('dialled')))"
    )
    path = os.pathsep.join([str(site), str(CHECKOUT)])
    argv = [sys.executable, "-c", code]
    done = subprocess.run(
        argv, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": path}
    )
    assert done.stdout.strip() == "DialledTarget(permille=20)"


# ---- rules ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("interval", "outcome"),
    [
        ([1.001, 1.02], "slower"),
        ([0.97, 0.999], "faster"),
        ([0.99, 1.01], "nothing"),
        ([1.0, 1.01], "nothing"),
        (None, "nothing"),
    ],
)
def test_isobench_finds_what_its_interval_leaves_out(
    interval: list[float] | None, outcome: str
) -> None:
    found = bench_dial.by_interval({"interval": interval, "ratio": 1.0, "standing": "slower"})
    assert found.outcome == outcome


def test_a_standing_is_kept_beside_the_finding() -> None:
    raw = {"interval": [1.005, 1.015], "ratio": 1.01, "standing": "near-native"}
    found = bench_dial.by_interval(raw)
    assert (found.outcome, found.status) == ("slower", "near-native")
    assert found.half_width == pytest.approx(0.00496, abs=1e-5)


@pytest.mark.parametrize(
    ("interval", "noise", "outcome"),
    [
        ([1.02, 1.04], 0.01, "slower"),
        ([1.02, 1.04], 0.03, "nothing"),
        ([0.95, 0.97], 0.01, "faster"),
        ([0.95, 0.98], 0.03, "nothing"),
        ([1.02, 1.04], None, "nothing"),
        (None, 0.01, "nothing"),
    ],
)
def test_what_native_against_native_shows_as_well_is_no_finding(
    interval: list[float] | None, noise: float | None, outcome: str
) -> None:
    raw = {"interval": interval, "ratio": 1.0, "standing": "inconclusive", "noise": noise}
    assert bench_dial.by_noise_floor(raw).outcome == outcome


QUIET = [1.00, 1.01, 0.99, 1.00, 1.02, 0.98]


@pytest.mark.parametrize("rule", [bench_dial.by_welch, bench_dial.by_summary])
def test_hyperfines_rules_find_what_is_plain_and_nothing_in_the_same(rule: bench_dial.Rule) -> None:
    slower = rule({"first": QUIET, "other": [1.2 * t for t in QUIET]})
    faster = rule({"first": QUIET, "other": [0.8 * t for t in QUIET]})
    same = rule({"first": QUIET, "other": QUIET[::-1]})
    assert [one.outcome for one in (slower, faster, same)] == ["slower", "faster", "nothing"]
    assert slower.ratio == pytest.approx(1.2)
    assert same.low is not None
    assert same.high is not None
    assert same.low < 1 < same.high


def test_the_spread_that_hyperfine_prints_hides_what_many_runs_show() -> None:
    raw = {"first": QUIET * 20, "other": [1.01 * t for t in QUIET * 20]}
    assert bench_dial.by_welch(raw).outcome == "slower"
    assert bench_dial.by_summary(raw).outcome == "nothing"


@pytest.mark.parametrize(
    ("words", "outcome"),
    [
        ("Mean +- std dev: [a] 101 ms +- 1 ms -> [b] 102 ms +- 1 ms: 1.01x slower", "slower"),
        ("Mean +- std dev: [a] 102 ms +- 1 ms -> [b] 101 ms +- 1 ms: 1.01x faster", "faster"),
        ("Benchmark hidden because not significant (1): dial", "nothing"),
    ],
)
def test_pyperf_is_taken_at_its_word(words: str, outcome: str) -> None:
    raw = {"first": QUIET, "other": QUIET, "said": words}
    assert bench_dial.by_its_word(raw).outcome == outcome


def test_words_of_pyperf_that_nobody_knows_are_no_finding() -> None:
    with pytest.raises(ValueError, match="neither"):
        bench_dial.by_its_word({"first": QUIET, "other": QUIET, "said": "well"})


# ---- the table -----------------------------------------------------------------------------------


def line(number: int, **more: Any) -> dict[str, Any]:
    usual = {
        "tool": "isobench",
        "workload": "cpu.dial",
        "dial": 10,
        "condition": "quiet",
        "number": number,
        "count": 15,
        "seconds": 20.0,
        "others": 0.25,
        "raw": {
            "interval": [1.004, 1.016],
            "ratio": 1.01,
            "standing": "near-native",
            "noise": 0.005,
        },
    }
    return usual | more


def rows(lines: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    text = [one for one in bench_dial.table(lines) if one.startswith("| ")]
    return [[cell.strip() for cell in one.strip("|").split("|")] for one in text]


def test_a_row_counts_what_was_found() -> None:
    missed = line(0)["raw"] | {"interval": [0.99, 1.016], "ratio": 1.003, "standing": "slower"}
    lines = [*(line(i) for i in range(7)), *(line(i, raw=missed) for i in range(7, 10))]
    header, row, beyond = rows(lines)
    assert header == list(bench_dial.HEADER)
    assert dict(zip(header, row, strict=True)) == {
        "rule": "isobench",
        "true difference": "1 %",
        "trials": "10",
        "found slower": "70 % (40-89)",
        "found faster": "0 % (0-28)",
        "called near-native": "70 % (40-89)",
        "called slower or faster": "30 % (11-60)",
        "holds the truth": "10 of 10",
        "estimate": "+1.00 %",
        "± half-width": "0.60 %",
        "runs or blocks": "15",
        "seconds": "20.0",
        "others' CPUs": "0.25",
    }
    assert beyond[0] == "isobench, beyond its noise floor"
    assert beyond[3] == "0 % (0-28)"


def test_bounds_that_leave_out_the_truth_are_counted() -> None:
    unbounded = line(0)["raw"] | {"interval": None}
    lines = [line(0), line(1, raw=unbounded), *(line(i, dial=20) for i in range(2))]
    place = bench_dial.HEADER.index("holds the truth")
    assert [row[place] for row in rows(lines)[1::2]] == ["1 of 1", "0 of 2"]
    assert rows([line(0, workload="startup.dial")])[1][place] == "-"


def test_one_trial_of_hyperfine_is_judged_by_both_rules() -> None:
    raw = {"first": QUIET, "other": [1.2 * t for t in QUIET]}
    _, welch, printed = rows([line(0, tool="hyperfine", raw=raw)])
    assert (welch[0], printed[0]) == ("hyperfine, Welch test", "hyperfine, its ±")


def test_a_failed_trial_is_told_and_counted_nowhere_else() -> None:
    failed = line(1, error="TrialError: pyperf: exit code 1", tool="pyperf")
    del failed["raw"]
    lines = [line(0), failed]
    assert [row[2] for row in rows(lines)[1:]] == ["1", "1"]
    assert "1 trials failed (pyperf): TrialError: pyperf: exit code 1" in "\n".join(
        bench_dial.table(lines)
    )


def test_all_conditions_are_also_seen_together() -> None:
    wrong = line(0)["raw"] | {"interval": [0.98, 0.999]}
    lines = [line(0), line(1, raw=wrong), line(0, dial=0), line(1, dial=0, condition="noisy")]
    text = [one.strip("|").split("|") for one in bench_dial.pooled(lines)]
    header, _, row, beyond = [[cell.strip() for cell in one] for one in text]
    assert dict(zip(header, row, strict=True)) == {
        "rule": "isobench",
        "false alarms": "2 of 2, 100 % (34-100)",
        "found 1 %": "1 of 2, 50 % (9-91)",
        "wrong direction": "1 of 2, 50 % (9-91)",
        "holds the truth": "1 of 4, 25 % (5-70)",
    }
    assert beyond[1] == "0 of 2, 0 % (0-66)"


def test_each_workload_and_condition_has_a_table() -> None:
    lines = [line(0), line(0, condition="noisy"), line(0, workload="startup.dial")]
    titles = [one for one in bench_dial.table(lines) if one.startswith("**")]
    assert titles == ["**`cpu.dial`, quiet**", "**`cpu.dial`, noisy**", "**`startup.dial`, quiet**"]


# ---- trials --------------------------------------------------------------------------------------


def test_a_round_has_every_cell_once_in_an_order_of_its_own() -> None:
    planned = bench_dial.plan(["isobench", "pyperf"], ["cpu.dial"], [0, 10], ["quiet"], 3, seed=1)
    rounds = [planned[start : start + 4] for start in (0, 4, 8)]
    cells = {(tool, dial) for tool in ("isobench", "pyperf") for dial in (0, 10)}
    for number, one in enumerate(rounds):
        assert {(trial.tool, trial.dial) for trial in one} == cells
        assert {trial.number for trial in one} == {number}
    orders = {tuple((trial.tool, trial.dial) for trial in one) for one in rounds}
    assert len(orders) > 1


def test_a_line_that_was_cut_short_counts_not(tmp_path: Path) -> None:
    file = tmp_path / "dial.jsonl"
    file.write_text(json.dumps(line(0)) + "\n" + json.dumps(line(1))[:40])
    assert bench_dial.read(file) == [line(0)]
    assert bench_dial.read(tmp_path / "none") == []


def made_bench(folder: Path, lines: list[dict[str, Any]]) -> bench_dial.Bench:
    return bench_dial.Bench(
        folder=folder,
        site=folder,
        programs={"cpu.dial": folder / "cpu.dial"},
        budget=20.0,
        lines=lines,
    )


TRIAL = bench_dial.Trial(
    tool="hyperfine", workload="cpu.dial", dial=10, condition="quiet", number=5
)


def test_runs_are_as_many_as_earlier_trials_say(tmp_path: Path) -> None:
    earlier = [line(0, tool="hyperfine", count=50, seconds=10.0)]
    other = [line(0, tool="hyperfine", condition="noisy", count=50, seconds=100.0)]
    bench = made_bench(tmp_path, [*earlier, *other])
    assert bench.count(TRIAL, guess=1.0) == 100
    assert bench.count(replace(TRIAL, tool="pyperf"), guess=1.0) == 20
    assert bench.count(replace(TRIAL, condition="noisy"), guess=1.0) == 10


def test_exported_times_of_hyperfine_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []

    def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        asked.append(argv)
        if argv[0] == "hyperfine":
            results = [{"command": "a", "times": [0.1, 0.2]}, {"command": "b", "times": [0.3, 0.4]}]
            Path(argv[argv.index("--export-json") + 1]).write_text(json.dumps({"results": results}))
        return ""

    monkeypatch.setattr(bench_dial, "_run", run)
    found = bench_dial.run_hyperfine(made_bench(tmp_path, []), TRIAL)
    assert found["raw"] == {"first": [0.1, 0.2], "other": [0.3, 0.4]}
    assert [command.split()[-1] for command in asked[-1][-2:]] == ["0", "10"]


def test_values_of_pyperf_are_read_without_its_calibration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(argv: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
        if "compare_to" in argv:
            return "Benchmark hidden because not significant (1): dial\n"
        if "-o" in argv:
            runs: list[dict[str, Any]] = [{"warmups": [[1, 9.0]]}]
            runs += [{"warmups": [[1, 9.0]], "values": [0.1, 0.2]}, {"values": [0.3]}]
            document = {"benchmarks": [{"runs": runs}], "version": "1.0"}
            Path(argv[argv.index("-o") + 1]).write_text(json.dumps(document))
        return ""

    monkeypatch.setattr(bench_dial, "_run", run)
    found = bench_dial.run_pyperf(made_bench(tmp_path, []), TRIAL)
    assert found["raw"]["first"] == found["raw"]["other"] == [0.1, 0.2, 0.3]
    assert bench_dial.by_its_word(found["raw"]).outcome == "nothing"


def test_a_tool_that_fails_is_a_line_with_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(bench: bench_dial.Bench, trial: bench_dial.Trial) -> dict[str, Any]:
        (bench.folder / "run").mkdir()
        (bench.folder / "run" / "left").write_text("over")
        raise bench_dial.TrialError("hyperfine: exit code 1: no such command")

    monkeypatch.setitem(bench_dial.RUNNERS, "hyperfine", fail)
    found = bench_dial.measure(made_bench(tmp_path, []), TRIAL)
    assert found["error"] == "TrialError: hyperfine: exit code 1: no such command"
    assert "raw" not in found
    assert list(tmp_path.iterdir()) == []


# ---- the neighbours ------------------------------------------------------------------------------


def gone(pids: Sequence[int]) -> bool:
    """Say whether none of these processes is left, given ten seconds."""
    limit = time.monotonic() + 10
    while any(map(psutil.pid_exists, pids)):
        if time.monotonic() > limit:
            return False
        time.sleep(0.02)
    return True


def test_the_neighbours_are_gone_after_a_trial_whatever_comes_of_it() -> None:
    seen: list[int] = []

    def trial() -> None:
        with bench_dial.neighbours(1) as pids:
            assert len(pids) == len(os.sched_getaffinity(0))
            assert all(psutil.Process(pid).is_running() for pid in pids)
            seen.extend(pids)
            raise bench_dial.TrialError

    with pytest.raises(bench_dial.TrialError):
        trial()
    assert not any(map(psutil.pid_exists, seen))


def test_the_neighbours_do_not_outlive_a_bench_that_is_killed() -> None:
    code = (
        "import time; from tests.bench import bench_dial\n"
        "with bench_dial.neighbours(1) as pids: print(*pids, flush=True); time.sleep(60)"
    )
    argv = [sys.executable, "-c", code]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, cwd=CHECKOUT)
    pids = [int(word) for word in waiting.line(process).split()]
    waiting.killed(process)
    assert pids
    assert gone(pids)
