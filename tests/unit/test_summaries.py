"""A run with known ratios -> summary.json."""

import itertools
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from isobench import stats
from isobench.analysis import summary as analysis
from isobench.analysis.summary import Analysis
from isobench.claims import load
from isobench.model import Cause, Clock, Gap, Metric, Sample, Schedule, Technology
from isobench.model.units import TargetName, Unit, WorkloadName
from isobench.report import sections
from isobench.report.sections.method import METHOD
from isobench.storage import documents, reader
from tests.unit.conftest import ITERATIONS
from tests.unit.conftest import Counted as Printed

Write = Callable[..., Path]
BASE_SECONDS = 2e-6
SIEVE = ("box", "cpu.sieve")


def summary(path: Path) -> dict[str, Any]:
    """Return the summary of a run as a script reads it."""
    made = analysis.summarise(reader.load(path), analysis.documents_claims())
    decoded: dict[str, Any] = json.loads(msgspec.json.encode(made))
    return decoded


def cell(made: dict[str, Any], target: str = "box", workload: str = "cpu.sieve") -> dict[str, Any]:
    found = [c for c in made["cells"] if (c["target"], c["workload"]) == (target, workload)]
    assert len(found) == 1
    return dict(found[0])


def target(made: dict[str, Any], name: str = "box") -> dict[str, Any]:
    (found,) = (t for t in made["targets"] if t["name"] == name)
    return dict(found)


def gap(cause: Cause, block: int = 1, name: str = "box", workload: str = "cpu.sieve") -> Gap:
    return Gap(
        block=block,
        target=TargetName(name),
        workload=WorkloadName(workload),
        cause=cause,
        detail=f"it was {cause}",
        hint="try again",
    )


# ---- ratios and standings


@pytest.mark.parametrize(
    ("ratio", "status"),
    [
        (1.0, "near-native"),
        (1.02, "near-native"),
        (0.98, "near-native"),
        (1.3, "slower"),
        (20.0, "slower"),
        (0.7, "faster"),
    ],
)
def test_a_known_ratio_is_found_and_judged(ratio: float, status: str, synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: ratio})))
    assert found["ratio"] == pytest.approx(ratio, rel=0.005)
    low, high = found["interval"]
    assert low < ratio < high
    assert found["standing"] == status
    assert (found["blocks"], found["visits"], found["level"]) == (15, 15, 0.97)


def test_a_ratio_at_the_margin_stays_open_with_advice(synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 1.05}, noise=0.02)))
    assert found["standing"] == "inconclusive"
    assert found["doubt_codes"]
    assert all(found["doubts"])


def test_a_margin_of_the_run_moves_the_verdict(synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 1.15}, about={"margin": 0.25})))
    assert found["standing"] == "near-native"


def test_value_and_reference_are_medians_over_visits_in_seconds_an_operation(
    synthetic: Write,
) -> None:
    found = cell(summary(synthetic({SIEVE: 3.0})))
    assert found["unit"] == "seconds"
    assert found["reference"] == pytest.approx(BASE_SECONDS, rel=0.2)
    assert found["value"] / found["reference"] == pytest.approx(3.0, rel=0.05)


def test_a_host_that_slows_down_moves_no_ratio_and_is_said(synthetic: Write) -> None:
    made = summary(synthetic({SIEVE: 1.3}, drift=3.0, blocks=30))
    assert cell(made)["ratio"] == pytest.approx(1.3, rel=0.005)
    assert "drift" in [doubt["code"] for doubt in made["run"]["doubts"]]


def test_a_steady_host_has_no_drift(synthetic: Write) -> None:
    assert summary(synthetic())["run"]["doubts"] == []


# ---- duets


DUET: dict[str, Any] = {"schedule": Schedule.DUET, "blocks": 30}


@pytest.mark.parametrize("ratio", [1.0, 1.02, 1.3])
def test_in_duets_each_target_is_held_against_native_beside_it(
    ratio: float, synthetic: Write
) -> None:
    made = summary(synthetic({SIEVE: ratio}, **DUET))
    found = cell(made)
    assert found["ratio"] == pytest.approx(ratio, rel=0.005)
    low, high = found["interval"]
    assert low < ratio < high
    assert found["value"] / found["reference"] == pytest.approx(ratio, rel=0.02)
    assert found["blocks"] == 15
    assert [t["name"] for t in made["targets"]] == ["native", "box"]
    assert {c["target"] for c in made["cells"]} == {"box", "native#2"}
    assert made["run"]["schedule"] == "duet"


def test_natives_time_of_a_cell_is_that_of_its_blocks(synthetic: Write) -> None:
    path = synthetic({SIEVE: 1.5}, missing={SIEVE: frozenset(range(6, 16))}, blocks=15)
    lines = [json.loads(line) for line in (path / "records.jsonl").read_text().splitlines()]
    for line in lines:  # the machine is faster after the target has left
        if line["block"] > 5:
            line["value"] //= 2
    (path / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = cell(summary(path))
    assert found["blocks"] == 5
    assert found["value"] / found["reference"] == pytest.approx(1.5, rel=0.05)


def test_what_the_halves_of_the_cpus_differ_by_cancels_out_of_duets(synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 1.02}, half=0.5, **DUET)))
    low, high = found["interval"]
    assert low < 1.02 < high
    assert high / low < 1.02
    assert found["standing"] == "near-native"


def test_a_duet_that_misses_blocks_still_has_as_many_of_either_way_round(synthetic: Write) -> None:
    missing = {SIEVE: frozenset({2, 3, 4}), ("native#box", "cpu.sieve"): frozenset({5, 8})}
    found = cell(summary(synthetic({SIEVE: 1.02}, half=0.5, missing=missing, **DUET)))
    assert found["blocks"] == 12
    low, high = found["interval"]
    assert low < 1.02 < high
    assert high / low < 1.02


@pytest.mark.parametrize(("overlap", "is_unproven"), [(0.95, False), (0.79, True), (0.0, True)])
def test_a_duet_whose_two_did_not_run_at_the_same_time_is_not_proven(
    overlap: float, is_unproven: bool, synthetic: Write
) -> None:
    found = cell(summary(synthetic({SIEVE: 1.3}, overlap=overlap, **DUET)))
    assert ("no-duet" in found["doubt_codes"]) is is_unproven
    assert found["standing"] == ("unproven" if is_unproven else "slower")


EXPORTS = {
    "json": "json", "csv": "csv", "markdown": "md", "html": "html", "junit": "xml",
    "openmetrics": "om", "pytest-benchmark": "p.json", "hyperfine": "h.json",
    "github-action-benchmark": "g.json", "bencher": "b.json",
}  # fmt: skip


@pytest.mark.parametrize("workload", ["cpu.sieve", "startup.cold"])
def test_natives_time_is_left_out_where_the_partner_of_a_target_has_no_value(
    workload: str, synthetic: Write, isobench: Callable[..., Any], tmp_path: Path
) -> None:
    missing = {("native#box", workload): frozenset(range(1, 31))}
    path = synthetic({("box", workload): 1.3}, missing=missing, **DUET)
    found = cell(summary(path), workload=workload)
    assert found["value"] > 0
    assert (found["reference"], found["ratio"]) == (None, None)
    assert "no-estimate" in found["doubt_codes"]
    exports = [
        word
        for name, ending in EXPORTS.items()
        for word in (f"--export-{name}", tmp_path / f"copy.{ending}")
    ]
    done = isobench("report", path, *exports)
    assert done.code == 0, done.err
    other = synthetic({("box", workload): 1.3}, name="two", about={"id": "two"}, **DUET)
    compared = isobench("compare", path, other)
    assert compared.code in (0, 4), compared.err
    added = isobench("history", "add", path, "--store", tmp_path / "store")
    assert added.code == 0, added.err
    shown = isobench("history", "show", "--store", tmp_path / "store")
    said = [
        done.out,
        compared.out,
        shown.out,
        *(one.read_text() for one in tmp_path.glob("copy.*")),
    ]
    assert len(said) == 3 + len(EXPORTS)
    for text in (*said, (path / "report.html").read_text(), (path / "summary.md").read_text()):
        assert not re.search(r"\bnan\b", text, re.IGNORECASE)


@pytest.mark.parametrize("metric", [None, "rate"])
def test_only_the_target_whose_partner_has_no_value_is_without_natives(
    metric: str | None, synthetic: Write
) -> None:
    ratios = {SIEVE: 1.3, ("jar", "cpu.sieve"): 1.5}
    counted = Printed(
        metric=Metric(name="rate", unit=Unit.OPERATIONS_PER_SECOND, fact="rate"),
        factors=dict.fromkeys(ratios, 1.0),
        missing=frozenset({"native#box"}),
    )
    missing = {} if metric else {("native#box", "cpu.sieve"): frozenset(range(1, 31))}
    run = synthetic(ratios, metrics=(counted,) if metric else (), missing=missing, **DUET)
    cells = [one for one in summary(run)["cells"] if one["metric"] == (metric or "time")]
    without = {one["target"] for one in cells if one["reference"] is None}
    assert without == {"box"}
    assert {one["target"] for one in cells if one["ratio"] is not None} == {"jar", "native#2"}


# ---- noise


def test_the_noise_floor_comes_from_native_against_native(synthetic: Write) -> None:
    made = summary(synthetic(noise=0.003))
    assert 0 < made["run"]["noise"]["cpu.sieve"] < 0.01
    control = cell(made, "native#2")
    assert control["ratio"] == pytest.approx(1.0, rel=0.005)


def test_an_effect_below_the_noise_floor_is_not_proven(synthetic: Write) -> None:
    made = summary(synthetic({SIEVE: 1.0}, noise=0.2, blocks=12))
    assert made["run"]["noise"]["cpu.sieve"] > 0.05
    assert cell(made)["standing"] in ("inconclusive", "unproven")


def test_without_a_control_nothing_is_proven(synthetic: Write) -> None:
    nowhere = frozenset(range(16))
    made = summary(synthetic({SIEVE: 1.0}, missing={("native#2", "cpu.sieve"): nowhere}))
    assert made["run"]["noise"]["cpu.sieve"] is None
    assert cell(made)["standing"] == "unproven"
    assert "noise-floor" in cell(made)["doubt_codes"]


# ---- what counts


def test_the_pilot_counts_for_nothing(synthetic: Write) -> None:
    with_pilot = cell(summary(synthetic(name="with", pilot=True)))
    assert with_pilot["ratio"] == pytest.approx(1.0, rel=0.005)
    assert with_pilot["maximum"] < 50 * BASE_SECONDS


def test_a_block_that_broke_a_rule_counts_for_nothing(synthetic: Write) -> None:
    made = summary(synthetic(blocks=17, invalid=frozenset({3, 9})))
    found = cell(made)
    assert (found["blocks"], found["visits"]) == (15, 15)
    assert found["ratio"] == pytest.approx(1.0, rel=0.005)
    assert found["maximum"] < 50 * BASE_SECONDS
    assert (made["run"]["blocks"], made["run"]["blocks_invalid"]) == (15, 2)


def test_a_block_in_which_native_is_missing_gives_no_ratio(synthetic: Write) -> None:
    missing = {("native", "cpu.sieve"): frozenset({4})}
    found = cell(summary(synthetic(missing=missing)))
    assert (found["blocks"], found["visits"]) == (14, 15)


def test_a_cell_with_few_of_the_runs_blocks_is_not_proven(synthetic: Write) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}
    missing = {SIEVE: frozenset(range(1, 8))}
    made = summary(synthetic(ratios, blocks=20, missing=missing))
    assert cell(made)["standing"] == "unproven"
    assert "incomplete" in cell(made)["doubt_codes"]
    assert any("only 13 of 20 blocks" in doubt for doubt in cell(made)["doubts"])
    assert cell(made, "jar")["standing"] == "near-native"


def test_a_cell_that_misses_a_fifth_of_the_blocks_still_counts(synthetic: Write) -> None:
    missing = {SIEVE: frozenset({1, 2, 3})}
    assert cell(summary(synthetic(missing=missing)))["standing"] == "near-native"


@pytest.mark.parametrize("blocks", [3, 9])
def test_few_blocks_give_the_verdict_that_their_interval_allows(
    blocks: int, synthetic: Write
) -> None:
    made = summary(synthetic({SIEVE: 1.0, ("jar", "cpu.sieve"): 4.0}, blocks=blocks))
    assert cell(made)["standing"] == "near-native"
    assert cell(made, "jar")["standing"] == "slower"
    assert cell(made)["level"] == 0.97


def test_two_blocks_give_medians_and_no_ratio(synthetic: Write) -> None:
    found = cell(summary(synthetic(blocks=2)))
    assert (found["ratio"], found["interval"], found["standing"]) == (None, None, "unproven")
    assert found["value"] > 0


def test_a_run_of_two_blocks_says_everywhere_that_blocks_lack(synthetic: Write) -> None:
    path = synthetic({SIEVE: 1.3, ("box", "startup.cold"): 9.0}, blocks=2)
    made = summary(path)
    for workload in ("cpu.sieve", "startup.cold"):
        own = cell(made, workload=workload)
        assert own["doubt_codes"] == ["few-blocks"]
        assert "gaps" not in " ".join(own["doubts"])
    assert "CPU work is undecided, with too few blocks to tell, in box." in made["run"]["headline"]
    undecided = made["answers"]["open_cells"]
    assert [one["command"].startswith("isobench run ") for one in undecided] == [True, True]
    view = sections.build(analysis.summarise(reader.load(path), ()))
    assert view.overview is not None
    (row,) = view.overview.rows
    assert [one.mark.kind for one in row.cells] == ["few", "few"]
    assert [one.kind for one in view.overview.legend] == ["few"]
    assert row.cells[0].figure == "—"


def test_a_cell_with_gaps_in_a_short_run_is_not_said_to_lack_blocks_alone(
    synthetic: Write,
) -> None:
    made = summary(synthetic(blocks=2, missing={SIEVE: frozenset({1})}))
    assert "no-estimate" in cell(made)["doubt_codes"]
    assert made["answers"]["open_cells"][0]["command"] == ""


def test_a_quick_run_gives_ratios_and_no_verdicts(synthetic: Write) -> None:
    made = summary(synthetic({SIEVE: 1.3}, blocks=5, about={"quick": True}))
    assert cell(made)["standing"] == "unproven"
    assert "quick" in cell(made)["doubt_codes"]
    assert cell(made)["ratio"] == pytest.approx(1.3, rel=0.02)
    assert "no verdicts" in made["run"]["headline"]


# ---- sessions


def test_a_record_without_a_session_had_one_of_its_own(synthetic: Write) -> None:
    found = cell(summary(synthetic()))
    assert found["sessions"] == found["blocks"] == 15
    assert found["method"] == "trimmed-t 20 %"


def test_sessions_that_differ_make_the_interval_wide_and_are_counted(synthetic: Write) -> None:
    shared = {"sessions": {"box": 5}, "session_spread": 0.1}
    found = cell(summary(synthetic(**shared)))
    ignored = cell(summary(synthetic(name="fresh", sessions={"box": 1}, session_spread=0.0)))
    assert (found["sessions"], found["blocks"]) == (3, 15)
    assert found["method"] == "t of 3 session medians"
    assert found["standing"] == "inconclusive"
    assert found["blocks_needed"] is None
    assert "more of them and not more blocks" in found["doubts"][0]
    assert ignored["standing"] == "near-native"


def test_sessions_that_are_alike_still_give_a_verdict(synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 1.3}, sessions={"box": 5})))
    assert found["sessions"] == 3
    assert found["standing"] == "slower"
    assert found["ratio"] == pytest.approx(1.3, rel=0.005)


@pytest.mark.parametrize("served", [8, 15])
def test_fewer_than_three_sessions_give_no_verdict(served: int, synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 1.3}, sessions={"box": served})))
    assert found["standing"] == "unproven"
    assert "few-sessions" in found["doubt_codes"]


def test_only_the_sessions_of_blocks_that_count_are_counted(synthetic: Write) -> None:
    path = synthetic(sessions={"box": 5}, invalid=frozenset(range(6, 11)), blocks=15)
    found = cell(summary(path))
    assert (found["sessions"], found["blocks"]) == (2, 10)
    assert "few-sessions" in found["doubt_codes"]


def test_nothing_is_precise_before_three_sessions(synthetic: Write) -> None:
    few, enough = (
        analysis.Analysis(reader.load(synthetic(name=str(served), sessions={"box": served})))
        for served in (8, 5)
    )
    assert not few.precise(0.9)
    assert enough.precise(0.9)


# ---- doubts from facts


def facts(name: str, workload: str, **seen: object) -> dict[str, Any]:
    named = {key.replace("__", "."): value for key, value in seen.items()}
    return {name: {"status": "available", "workloads": {workload: named}}}


FSYNC = ("box", "io.fsync")


def on(native: str, box: str, **more: object) -> dict[str, Any]:
    return facts("native", "io.fsync", io__filesystem=native) | facts(
        "box", "io.fsync", io__filesystem=box, **more
    )


EXT4, TMPFS, OVERLAY = "0x0000ef53", "0x01021994", "0x794c7630"


def test_files_in_memory_are_not_proven(synthetic: Write) -> None:
    found = cell(summary(synthetic({FSYNC: 1.0}, states=on(EXT4, TMPFS))), "box", "io.fsync")
    assert found["standing"] == "unproven"
    assert "memory-file-system" in found["doubt_codes"]


def test_a_ratio_to_memory_is_not_proven(synthetic: Write) -> None:
    found = cell(summary(synthetic({FSYNC: 3000.0}, states=on(TMPFS, EXT4))), "box", "io.fsync")
    assert found["standing"] == "unproven"
    assert "memory-file-system" in found["doubt_codes"]


def test_another_file_system_is_a_doubt_beside_the_verdict(synthetic: Write) -> None:
    found = cell(summary(synthetic({FSYNC: 1.3}, states=on(EXT4, OVERLAY))), "box", "io.fsync")
    assert found["standing"] == "slower"
    assert found["doubt_codes"] == ["other-file-system"]


def test_files_in_the_page_cache_are_not_proven(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    cached = a_sample(5, "box", "io.fsync", 40, metric="fact.io.cached_percent")
    path = synthetic({FSYNC: 1.0}, states=on(EXT4, EXT4), samples=[cached])
    found = cell(summary(path), "box", "io.fsync")
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == ["page-cache"]
    assert "40 %" in found["doubts"][0]


def test_pages_cached_in_a_block_that_does_not_count_raise_no_doubt(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    cached = [a_sample(n, "box", "io.fsync", 90, metric="fact.io.cached_percent") for n in (0, 2)]
    path = synthetic(
        {FSYNC: 1.0}, states=on(EXT4, EXT4), samples=cached, invalid=frozenset({2}), blocks=16
    )
    assert cell(summary(path), "box", "io.fsync")["doubt_codes"] == []


def spans(
    a_sample: Callable[..., Sample],
    slope: float,
    *,
    workload: str = "cpu.sieve",
    host: int = 10**8,
    dispatch: int = 20_000,
    blocks: Iterable[int] = range(1, 16),
) -> list[Sample]:
    found = []
    for block in blocks:
        for metric, value, clock in (
            ("span.guest", round(host * slope), Clock.GUEST),
            ("span.host", host, Clock.HOST),
            ("dispatch", dispatch, Clock.HOST),
        ):
            found.append(a_sample(block, "box", workload, value, metric=metric, clock=clock))
    return found


def test_a_clock_inside_at_another_speed_gives_way_to_the_hosts_and_that_is_said(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    # What took 1.3 times as long as natively looks like 0.65 by a clock of half the speed.
    path = synthetic({SIEVE: 0.65}, samples=spans(a_sample, 0.5))
    found = cell(summary(path))
    assert found["ratio"] == pytest.approx(1.3, rel=0.005)
    assert found["value"] / found["reference"] == pytest.approx(1.3, rel=0.05)
    assert found["maximum"] == pytest.approx(1.3 * BASE_SECONDS, rel=0.5)
    assert found["standing"] == "slower"
    assert found["clock"] == "host"
    assert found["doubt_codes"] == ["guest-clock"]
    assert "0.500" in found["doubts"][0]
    assert set(reader.load(path).samples.query("metric == 'time'")["clock"]) == {"guest"}


def test_a_clock_that_is_trusted_stays_in_charge(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    plain, checked = (
        cell(summary(synthetic({SIEVE: 1.3}, name=name, samples=samples)))
        for name, samples in (("plain", []), ("checked", spans(a_sample, 1.005)))
    )
    assert checked == plain
    assert checked["clock"] == "guest"


def test_each_visit_is_brought_to_the_hosts_clock_by_its_own_span(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    # A clock that stumbles: twice too slow in some blocks, four times in the others.
    slow, slower = (
        spans(a_sample, 0.5, blocks=range(1, 9)),
        spans(a_sample, 0.25, blocks=range(9, 16)),
    )
    run = reader.load(synthetic({SIEVE: 0.65}, samples=[*slow, *slower]))
    workload, name = WorkloadName("cpu.sieve"), TargetName("box")
    ratios = analysis.Analysis(run).log_ratios(workload, name)
    assert ratios[:8] == pytest.approx([math.log(1.3)] * 8, abs=0.02)
    assert ratios[8:] == pytest.approx([math.log(2.6)] * 7, abs=0.02)


def test_what_the_way_to_the_host_may_hide_widens_the_interval(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    near, far = (
        cell(
            summary(synthetic({SIEVE: 0.5}, name=str(d), samples=spans(a_sample, 0.5, dispatch=d)))
        )
        for d in (20_000, 4_000_000)
    )
    assert near["standing"] == "near-native"
    assert far["ratio"] == near["ratio"]
    assert far["interval"][1] / near["interval"][1] == pytest.approx(1.08 / 1.0004)
    assert far["median_bounds"][0] * 1.08 == pytest.approx(near["median_bounds"][0] * 1.0004)
    assert far["standing"] == "inconclusive"
    assert far["blocks_needed"] is None
    assert "to within 8.0%" in far["doubts"][0]


def test_visits_too_short_for_the_hosts_clock_are_left_out_of_a_cell_whose_own_is_off(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    told = spans(a_sample, 0.5, blocks=range(1, 14))
    short = spans(a_sample, 0.5, host=100_000, blocks=range(14, 16))
    found = cell(summary(synthetic({SIEVE: 0.65}, samples=[*told, *short])))
    assert (found["blocks"], found["visits"]) == (13, 13)
    assert found["ratio"] == pytest.approx(1.3, rel=0.005)


def test_a_cell_too_short_to_tell_is_not_proven_where_the_clock_is_off_elsewhere(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    ratios = {SIEVE: 0.65, ("box", "cpu.sha256"): 0.65, ("jar", "cpu.sha256"): 1.3}
    short = spans(a_sample, 0.9, workload="cpu.sha256", host=100_000)
    made = summary(synthetic(ratios, samples=[*spans(a_sample, 0.5), *short]))
    found = cell(made, "box", "cpu.sha256")
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == ["guest-clock"]
    assert "in cpu.sieve" in found["doubts"][0]
    assert found["clock"] == "guest"
    assert cell(made, "jar", "cpu.sha256")["doubt_codes"] == []


def test_a_start_timed_by_the_host_is_not_doubted_for_the_clock_inside(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    starts = [
        a_sample(block, name, "startup.cold", round(10**6 * factor), clock=Clock.HOST)
        for block in range(1, 16)
        for name, factor in (
            ("native", 1),
            ("native#2", 1 + block / 10**4),
            ("box", 3 + block / 10**3),
        )
    ]
    kinds = {"workloads": [
        {"name": name, "class": name.partition(".")[0], "summary": "", "operation": "", "scope": ""}
        for name in ("cpu.sieve", "startup.cold")
    ]}  # fmt: skip
    made = summary(synthetic({SIEVE: 0.65}, samples=[*starts, *spans(a_sample, 0.5)], about=kinds))
    assert cell(made, "box", "startup.cold")["doubt_codes"] == []
    assert cell(made)["doubt_codes"] == ["guest-clock"]


def test_null_spawns_stand_beside_natives_starts(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    ratios = {("box", "startup.cold"): 3.0, SIEVE: 1.0}
    spawns = [
        replace(
            a_sample(block, "native", "startup.cold", value, clock=Clock.HOST),
            metric="spawn",
            iteration=place,
        )
        for block in range(1, 16)
        for place, value in enumerate((1000, 1200, 10**9))
    ]
    about = {"spawner": "vfork"}
    (found,) = summary(synthetic(ratios, samples=spawns, about=about))["null_spawns"]
    assert (found["workload"], found["spawner"], found["starts"]) == ("startup.cold", "vfork", 45)
    assert found["seconds"] == pytest.approx(1.2e-6)
    assert found["native"] == pytest.approx(2e-3, rel=0.2)  # of the visit, not of an operation


def test_a_run_without_null_spawns_says_nothing_of_them(synthetic: Write) -> None:
    assert not summary(synthetic({("box", "startup.cold"): 3.0}))["null_spawns"]


def test_a_clock_inside_that_stands_still_is_not_proven(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    found = cell(summary(synthetic(samples=spans(a_sample, 0.0))))
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == ["guest-clock"]


def test_a_clock_inside_that_agrees_raises_no_doubt(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    assert cell(summary(synthetic(samples=spans(a_sample, 1.002))))["doubt_codes"] == []


def test_another_number_of_cpus_is_a_doubt_beside_the_verdict(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    counts = [a_sample(1, "native", "cpu.threads", 8, metric="fact.cpu.threads")]
    counts += [a_sample(1, "box", "cpu.threads", 2, metric="fact.cpu.threads")]
    found = cell(
        summary(synthetic({("box", "cpu.threads"): 4.0}, samples=counts)), "box", "cpu.threads"
    )
    assert found["standing"] == "slower"
    assert found["doubt_codes"] == ["other-cpu-count"]


def test_a_wrong_answer_of_native_takes_the_verdict_from_every_cell_of_its_workload(
    synthetic: Write,
) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0, ("box", "cpu.sha256"): 1.0}
    made = summary(synthetic(ratios, gaps=[gap(Cause.WRONG_ANSWER, block=3, name="native")]))
    for target in ("box", "jar"):
        assert "broken-trials" in cell(made, target)["doubt_codes"]
    assert cell(made, "box", "cpu.sha256")["standing"] == "near-native"


@pytest.mark.parametrize("cause", [Cause.WRONG_ANSWER, Cause.UNPROVEN])
def test_one_wrong_answer_takes_the_verdict_from_its_cell_alone(
    cause: Cause, synthetic: Write
) -> None:
    ratios = {SIEVE: 1.0, ("box", "cpu.sha256"): 1.0}
    made = summary(synthetic(ratios, gaps=[gap(cause, block=3)]))
    assert cell(made)["standing"] == "unproven"
    assert "broken-trials" in cell(made)["doubt_codes"]
    assert cell(made, "box", "cpu.sha256")["standing"] == "near-native"


class Counted(tuple[Gap, ...]):  # noqa: SLOT001 - a tuple has no slots but empty ones
    """Gaps that count how often all of them are looked at."""

    passes = 0

    def __iter__(self) -> Iterator[Gap]:
        self.passes += 1
        return super().__iter__()


def test_gaps_are_not_looked_at_for_each_cell_and_target(synthetic: Write) -> None:
    passes = []
    for names in (("box",), ("box", "jar", "tin")):
        ratios = {(name, f"cpu.{work}"): 1.0 for name in names for work in ("sieve", "sha256")}
        run = reader.load(synthetic(ratios, name=names[-1]))
        gaps = Counted([gap(Cause.FAILED, block=3)])
        made = analysis.summarise(replace(run, gaps=gaps), analysis.documents_claims())
        assert len(made.gaps) == 1
        passes.append(gaps.passes)
    assert passes[0] == passes[1] > 0


def test_faster_than_native_is_a_doubt(synthetic: Write) -> None:
    found = cell(summary(synthetic({SIEVE: 0.7})))
    assert "faster-than-native" in found["doubt_codes"]


# ---- targets and gaps


def test_each_gap_is_told_once_with_how_often_it_came(synthetic: Write) -> None:
    gaps = [gap(Cause.FAILED, block=n) for n in (1, 2, 3)] + [gap(Cause.TIMED_OUT)]
    made = summary(synthetic(gaps=gaps))
    assert [(g["cause"], g["times"]) for g in made["gaps"]] == [("failed", 3), ("timed-out", 1)]
    assert made["gaps"][0] == {
        "target": "box",
        "workload": "cpu.sieve",
        "cause": "failed",
        "detail": "it was failed",
        "hint": "try again",
        "metric": "",
        "times": 3,
    }


def test_every_target_has_a_status_and_its_reason(synthetic: Write) -> None:
    gone = {"status": "unavailable", "reason": "no dockerd", "hint": "start it", "version": None}
    made = summary(
        synthetic(
            unmeasured=("docker", "podman", "bubblewrap", "kvm"),
            states={"docker": gone, "podman": {"status": "available"}},
            gaps=[
                gap(Cause.FAILED, name="podman"),
                gap(Cause.FAILED, name="bubblewrap"),
                gap(Cause.UNPROVEN, name="bubblewrap"),
            ],
        )
    )
    found = {t["name"]: (t["status"], t["reason"]) for t in made["targets"]}
    assert found == {
        "native": ("measured", None),
        "box": ("measured", None),
        "docker": ("unavailable", "no dockerd"),
        "podman": ("failed", "it was failed"),
        "bubblewrap": ("unproven", "it was unproven"),
        "kvm": ("failed", "the run ended before it was measured"),
    }
    assert target(made, "docker")["hint"] == "start it"


def test_a_targets_evidence_is_told_as_relations_to_natives(synthetic: Write) -> None:
    def state(**seen: object) -> dict[str, Any]:
        listed = [{"key": k, "value": v, "source": "/proc"} for k, v in seen.items()]
        return {"status": "available", "version": "1", "abi": "x86_64-linux", "facts": listed}

    states = {
        "native": state(boot="a", pid="1", machine="x86_64"),
        "box": state(boot="a", pid="2", machine="x86_64", extra=None),
    }
    found = target(summary(synthetic(states=states)))
    assert found["evidence"] == {
        "boot": "same",
        "pid": "unlike",
        "machine": "same",
        "extra": "unknown",
    }
    assert found["version"] == "1"


def test_what_differs_besides_isolation_is_listed(synthetic: Write) -> None:
    def state(seccomp: str, abi: str) -> dict[str, Any]:
        fact = {"key": "security.seccomp", "value": seccomp, "source": "/proc"}
        return {"status": "available", "abi": abi, "facts": [fact]}

    payloads = [
        {"program": "cpu.sieve", "abi": abi, "sha256": abi, "compiler": "zig", "flags": ["-O2"]}
        for abi in ("x86_64-linux", "aarch64-linux")
    ]
    states = {"native": state("0", "x86_64-linux"), "box": state("2", "aarch64-linux")}
    made = summary(synthetic(states=states, about={"payloads": payloads}))
    assert [d["label"] for d in target(made)["parity"]] == ["seccomp", "programs"]
    assert target(made, "native")["parity"] == []


# ---- the document


def test_the_fields_that_scripts_read_are_all_there(synthetic: Write) -> None:
    made = summary(synthetic(gaps=[gap(Cause.FAILED)]))
    assert made["schema_version"] == 1
    assert {"id", "started", "seed", "complete", "machine", "noise"} <= set(made["run"])
    keys = {"name", "class", "status", "version", "reason", "hint", "evidence"}
    assert all(keys <= set(each) for each in made["targets"])
    keys = {"target", "workload", "class", "metric", "unit", "value", "reference", "ratio"}
    keys |= {"interval", "level", "blocks", "visits", "standing", "doubts"}
    assert all(keys <= set(each) for each in made["cells"])
    keys = {"target", "workload", "cause", "detail", "hint"}
    assert all(keys <= set(each) for each in made["gaps"])
    assert all({"id", "standing", "sentence"} <= set(each) for each in made["claims"])
    assert len(made["claims"]) == len(analysis.documents_claims())


def test_cells_leave_out_native_and_keep_its_control(synthetic: Write) -> None:
    made = summary(synthetic({SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}))
    assert [c["target"] for c in made["cells"]] == ["box", "jar", "native#2"]


def test_the_same_records_give_the_same_answers(synthetic: Write) -> None:
    path = synthetic({SIEVE: 1.1})
    assert summary(path) == summary(path)


@pytest.mark.parametrize(
    ("about", "complete"),
    [({}, True), ({"interrupted": True}, False), ({"finished": None}, False)],
)
def test_a_run_that_was_cut_short_says_so(
    about: dict[str, Any], complete: bool, synthetic: Write
) -> None:
    made = summary(synthetic(about=about))
    assert made["run"]["complete"] is complete
    assert ("cut short" in made["run"]["headline"]) is not complete


def test_a_run_without_any_record_still_has_an_answer(synthetic: Write) -> None:
    path = synthetic(gaps=[gap(Cause.FAILED)])
    (path / "records.jsonl").write_bytes(b"")
    made = summary(path)
    assert made["cells"] == []
    assert {t["status"] for t in made["targets"]} == {"failed"}
    assert all(claim["standing"] == "untested" for claim in made["claims"])


def test_a_run_with_nothing_but_a_pilot_still_has_an_answer(synthetic: Write) -> None:
    assert summary(synthetic(blocks=0))["cells"] == []


def test_a_run_of_native_alone_has_its_control_and_says_so(synthetic: Write) -> None:
    made = summary(
        synthetic(
            {("native#2", "cpu.sieve"): 1.0},
            about={"targets": [{"name": "native", "class": Technology.NATIVE}]},
        )
    )
    assert made["run"]["headline"].startswith("Nothing was measured except native.")


def test_claims_follow_from_the_cells(synthetic: Write) -> None:
    ratios = {("docker", "cpu.sieve"): 1.0, ("qemu-user-aarch64", "cpu.sieve"): 9.0}
    kinds = {"docker": Technology.CONTAINERIZATION, "qemu-user-aarch64": Technology.EMULATION}
    made = summary(synthetic(ratios, classes=kinds))
    standings = {claim["id"]: claim["standing"] for claim in made["claims"]}
    assert "supported" in standings.values()
    assert "untested" in standings.values()


def test_precise_enough_depends_on_every_interval(synthetic: Write) -> None:
    narrow = analysis.Analysis(reader.load(synthetic(noise=0.002)))
    assert narrow.precise(0.025)
    assert not narrow.precise(0.0001)


def test_a_run_without_any_interval_is_not_precise(synthetic: Write) -> None:
    assert not analysis.Analysis(reader.load(synthetic(blocks=2))).precise(0.025)


def test_a_cell_that_gave_up_half_way_does_not_make_a_run_precise(synthetic: Write) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}
    missing = {("jar", "cpu.sieve"): frozenset(range(3, 16))}
    run = analysis.Analysis(reader.load(synthetic(ratios, noise=0.002, missing=missing)))
    assert run.precise(0.025)


def test_iterations_that_took_no_time_at_all_give_no_ratio_and_no_crash(
    synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    every = itertools.product(range(1, 16), range(ITERATIONS))
    zeros = [a_sample(block, "box", "cpu.sieve", 0, iteration=i) for block, i in every]
    path = synthetic(missing={SIEVE: frozenset(range(16))}, samples=zeros)
    found = cell(summary(path))
    assert (found["value"], found["ratio"], found["standing"]) == (0.0, None, "unproven")


def test_equivalence_is_also_judged_for_all_cells_together(synthetic: Write) -> None:
    wide = {(f"box{n}", "cpu.sieve"): 1.0 for n in range(12)}
    made = summary(synthetic(wide, noise=0.05, blocks=20))
    cells = [one for one in made["cells"] if one["target"] != "native#2"]
    alone = np.array([one["p_equivalence"] for one in cells])
    together = [one["p_equivalence_together"] for one in cells]
    assert together == pytest.approx(stats.holm(alone))
    assert cell(made, "native#2")["p_equivalence_together"] is None
    near = [p for one, p in zip(cells, together, strict=True) if one["standing"] == "near-native"]
    hold = sum(p <= 0.05 for p in near)
    assert 0 < hold < len(near), "else the test shows nothing"
    assert for_all_cells_in(made) == f"{hold} of {len(near)}, adjusted for 12 cells (Holm)"


def test_without_a_near_native_cell_there_is_no_figure_for_all_cells(synthetic: Write) -> None:
    assert for_all_cells_in(summary(synthetic({SIEVE: 2.0}))) == ""


def for_all_cells_in(made: dict[str, Any]) -> str:
    """Return how many verdicts hold together, as a report of this summary says it."""
    view = METHOD.of(sections.build(documents.summary_of(made)))
    assert view is not None
    return view.for_all_cells


def test_a_visit_of_a_duet_that_took_no_time_counts_for_nothing(
    synthetic: Callable[..., Path], a_sample: Callable[..., Sample]
) -> None:
    nothing = [
        a_sample(block, "box", "cpu.sieve", 0, iteration=i)
        for block in (3, 4)
        for i in range(10, 19)
    ]
    path = synthetic(name="zeros", samples=nothing, schedule=Schedule.DUET, blocks=16)
    (found,) = (one for one in Analysis(reader.load(path)).cells if one.target == "box")
    assert np.isfinite(found.log_ratios).all()
    assert found.log_ratios.size == 7


@pytest.mark.parametrize(("quantile", "status"), [("50%", "supported"), ("95%", "refuted")])
def test_a_claim_on_p95_is_about_single_turns_as_p95_of_the_report_is(
    quantile: str, status: str, synthetic: Write, a_sample: Callable[..., Sample]
) -> None:
    """One turn in each block takes half a second: no median of a block shows it."""
    slow = [a_sample(block, "box", "cpu.sieve", 5 * 10**8, iteration=3) for block in range(1, 61)]
    text = f"""
[[claims]]
id = "fast"
quote = "It takes less than 50 ms"
kind = "bound"
targets = ["box"]
workloads = ["cpu.sieve"]
quantile = "{quantile}"
below_seconds = 0.05
"""
    run = reader.load(synthetic({SIEVE: 1.0}, blocks=60, samples=slow))
    found = analysis.summarise(run, load(text, origin="own.toml"))
    (claim,) = found.claims
    assert claim.status == status
    (box,) = (one for one in found.cells if one.target == "box")
    assert box.p95 == 0.5
    assert ("p95 500 ms" in claim.sentence) == (quantile == "95%")
