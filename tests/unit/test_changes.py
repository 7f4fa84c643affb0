"""Runs with known ratios -> what changed, and how sure it is."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench.comparison import changes
from isobench.comparison.changes import Asked
from isobench.model import Cause, Gap, Work
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.report import comparison as view
from isobench.report import sheet
from isobench.storage import run_folder

Write = Callable[..., Path]
SIEVE, FSYNC = ("box", "cpu.sieve"), ("box", "io.fsync")
USUAL = Asked()


@pytest.fixture
def run(synthetic: Write) -> Callable[..., run_folder.Run]:
    """Return a function that makes a run of its own: another name, id and noise."""
    count = 0

    def make(ratios: dict[tuple[str, str], float] | None = None, **options: Any) -> run_folder.Run:
        nonlocal count
        count += 1
        about = {"id": f"run-{count}", **options.pop("about", {})}
        path = synthetic(ratios, name=f"run{count}", seed=count, about=about, **options)
        return run_folder.load(path)

    return make


Make = Callable[..., run_folder.Run]


def compared(base: Any, head: Any, asked: Asked = USUAL, **options: Any) -> dict[str, Any]:
    """Return the document as a script reads it."""
    sides = [side if isinstance(side, list) else [side] for side in (base, head)]
    made: dict[str, Any] = json.loads(
        json.dumps(changes.compare(*sides, asked, **options), allow_nan=False)
    )
    return made


def cell(made: dict[str, Any], workload: str = "cpu.sieve", target: str = "box") -> dict[str, Any]:
    (found,) = (c for c in made["cells"] if (c["target"], c["workload"]) == (target, workload))
    return dict(found)


# ---- two runs


@pytest.mark.parametrize(
    ("before", "after", "status"),
    [
        (1.1, 1.1, "same"),
        (1.1, 1.12, "same"),
        (1.1, 1.32, "regression"),
        (20.0, 24.0, "regression"),
        (1.3, 1.0, "improvement"),
    ],
)
def test_a_known_change_is_found_and_judged(
    before: float, after: float, status: str, run: Make
) -> None:
    found = cell(compared(run({SIEVE: before}), run({SIEVE: after})))
    assert found["change"] == pytest.approx(after / before, rel=0.01)
    low, high = found["interval"]
    assert low < after / before < high
    assert (found["standing"], found["confirmed"]) == (status, None)
    assert (found["base"]["blocks"], found["head"]["blocks"]) == (15, 15)
    assert found["base"]["ratio"] == pytest.approx(before, rel=0.01)


def test_absolute_times_are_not_compared_but_their_change_is_told(run: Make) -> None:
    base, head = run({SIEVE: 1.2}), run({SIEVE: 1.2})
    head.samples["value"] *= 3  # all of it, native too: another clock rate
    made = compared(base, head)
    assert cell(made)["standing"] == "same"
    assert any("native itself" in note and "cpu.sieve" in note for note in made["notes"])


def test_a_change_at_the_smallest_effect_stays_open(run: Make) -> None:
    base, head = run({SIEVE: 1.0}, noise=0.02), run({SIEVE: 1.05}, noise=0.02)
    made = compared(base, head)
    assert cell(made)["standing"] == "inconclusive"
    assert "would narrow the interval" in made["headline"]


def test_the_smallest_effect_is_the_users(run: Make) -> None:
    base, head = run({SIEVE: 1.0}), run({SIEVE: 1.2})
    found = cell(compared(base, head, Asked(minimum_effect=0.3)))
    assert found["standing"] == "same"


def test_noise_floors_are_part_of_the_interval(run: Make) -> None:
    found = cell(compared(run(noise=0.03), run(noise=0.03)))
    assert found["noise"] > max(found["base"]["noise"], found["head"]["noise"])
    assert math.log(found["interval"][1]) > math.log1p(found["noise"]) - abs(
        math.log(found["change"])
    )
    assert found["method"] == "Yuen-Welch t of two runs, noise floors added"


def test_without_a_control_nothing_is_proven(run: Make) -> None:
    nowhere = {("native#2", "cpu.sieve"): frozenset(range(16))}
    found = cell(compared(run(), run({SIEVE: 1.5}, missing=nowhere)))
    assert found["standing"] == "unproven"
    assert "noise-floor" in found["doubt_codes"]


@pytest.mark.parametrize(
    ("options", "code"),
    [({"blocks": 5}, "few-blocks"), ({"about": {"quick": True}}, "quick")],
)
def test_a_run_without_verdicts_gives_a_change_without_one(
    options: dict[str, Any], code: str, run: Make
) -> None:
    found = cell(compared(run(), run({SIEVE: 1.5}, **options)))
    assert found["standing"] == "unproven"
    assert found["doubt_codes"] == [code]
    assert found["doubts"][0].startswith("HEAD: ")
    assert found["change"] == pytest.approx(1.5, rel=0.02)


def test_holm_takes_all_cells_together(run: Make) -> None:
    names = [("box", f"cpu.{letter}") for letter in "abcdefgh"]
    made = compared(
        run(dict.fromkeys(names, 1.0)), run(dict.fromkeys(names, 1.0) | {names[0]: 1.3})
    )
    for one in made["cells"]:
        assert one["p_adjusted"] >= one["p"]
    first = cell(made, "cpu.a")
    assert first["p_adjusted"] == pytest.approx(8 * first["p"])
    assert first["standing"] == "regression"
    assert [one["standing"] for one in made["cells"][1:]] == ["same"] * 7


def test_a_p_value_that_holm_takes_away_is_no_regression(
    monkeypatch: pytest.MonkeyPatch, run: Make
) -> None:
    monkeypatch.setattr(changes.stats, "holm", lambda p: p + 0.05)
    found = cell(compared(run({SIEVE: 1.0}), run({SIEVE: 1.3})))
    assert found["standing"] == "inconclusive"


# ---- confirmation


def test_a_further_run_confirms_a_regression(run: Make) -> None:
    base, head, again = run({SIEVE: 1.0}), run({SIEVE: 1.3}), run({SIEVE: 1.3})
    made = compared(base, head, confirm=again)
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", True)
    assert "1 confirmed regression: box cpu.sieve 1.30x" in made["headline"]


def test_a_further_run_that_does_not_show_it_again_leaves_it_open(run: Make) -> None:
    base, head, again = run({SIEVE: 1.0}), run({SIEVE: 1.3}), run({SIEVE: 1.0})
    found = cell(compared(base, head, confirm=again))
    assert (found["standing"], found["confirmed"]) == ("inconclusive", False)
    assert found["doubt_codes"] == ["not-confirmed"]


def test_a_further_run_without_the_cell_leaves_it_suspected(run: Make) -> None:
    base, head = run({SIEVE: 1.0, FSYNC: 1.0}), run({SIEVE: 1.3, FSYNC: 1.0})
    made = compared(base, head, confirm=run({FSYNC: 1.0}))
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", None)
    assert "does not have that cell" in made["headline"]


# ---- histories


def test_several_runs_a_side_confirm_by_themselves(run: Make) -> None:
    sides = [[run({SIEVE: ratio}) for _ in range(3)] for ratio in (1.0, 1.3)]
    made = compared(*sides)
    found = cell(made)
    assert made["mode"] == "histories"
    assert (found["standing"], found["confirmed"]) == ("regression", True)
    assert (found["base"]["runs"], found["base"]["blocks"]) == (3, 45)
    assert "3 and 3 run estimates" in found["method"]
    assert "Suspected" not in made["headline"]


def test_runs_that_differ_make_the_interval_wide(run: Make) -> None:
    alike = [[run({SIEVE: 1.0}) for _ in range(3)] for _ in range(2)]
    unlike = [[run({SIEVE: ratio}) for ratio in (0.9, 1.0, 1.12)] for _ in range(2)]
    widths = [
        math.log(high / low)
        for low, high in (cell(compared(*sides))["interval"] for sides in (alike, unlike))
    ]
    assert widths[1] > 5 * widths[0]
    assert cell(compared(*unlike))["standing"] == "inconclusive"


def test_short_runs_count_where_the_run_is_the_unit(run: Make) -> None:
    sides = [[run({SIEVE: ratio}, blocks=5) for _ in range(4)] for ratio in (1.0, 1.3)]
    assert cell(compared(*sides))["standing"] == "regression"


def test_one_run_against_several_is_not_confirmed(run: Make) -> None:
    made = compared(run({SIEVE: 1.0}), [run({SIEVE: 1.5}) for _ in range(4)])
    assert (cell(made)["standing"], cell(made)["confirmed"]) == ("regression", None)


# ---- two targets of one run


def pair(run_: run_folder.Run, base: str, head: str, **options: Any) -> dict[str, Any]:
    names = TargetName(base), TargetName(head)
    return dict(changes.compare_targets(run_, *names, USUAL, **options))


def test_two_targets_of_one_run_are_paired_block_by_block(run: Make) -> None:
    ratios = {SIEVE: 1.5, ("jar", "cpu.sieve"): 1.2}
    made = pair(run(ratios), "box", "jar")
    found = cell(made, target="jar")
    assert found["change"] == pytest.approx(0.8, rel=0.01)
    assert found["standing"] == "improvement"
    assert made["mode"] == "targets"
    assert "jar against box" in made["headline"]
    assert found["method"].startswith("trimmed-t")


def test_a_further_run_confirms_a_pair(run: Make) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.3}
    again = pair(run(ratios), "box", "jar", confirm=run(ratios))
    assert cell(again, target="jar")["confirmed"] is True
    other = run(ratios | {("jar", "cpu.sieve"): 1.0})
    missed = pair(run(ratios), "box", "jar", confirm=other)
    assert cell(missed, target="jar")["standing"] == "inconclusive"


def test_sessions_of_a_pair_are_its_units_where_they_differ(run: Make) -> None:
    ratios = {SIEVE: 1.0, ("jar", "cpu.sieve"): 1.0}
    made = run(ratios, sessions={"box": 5}, session_spread=0.2)
    found = cell(pair(made, "box", "jar"), target="jar")
    assert "session" in found["method"]
    assert found["standing"] == "inconclusive"


def test_a_target_that_is_not_in_the_run_is_refused_with_those_that_are(run: Make) -> None:
    with pytest.raises(UsageError, match="no values of 'jug'") as caught:
        pair(run(), "box", "jug")
    assert "native, box" in caught.value.hint


def test_a_pair_without_a_common_workload_is_refused(run: Make) -> None:
    with pytest.raises(UsageError, match="no workload in common"):
        pair(run({SIEVE: 1.0, ("jar", "io.fsync"): 1.0}), "box", "jar")


# ---- what is refused


def test_a_run_is_not_compared_with_itself(run: Make) -> None:
    one = run()
    with pytest.raises(UsageError, match="there twice"):
        compared(one, one)
    with pytest.raises(UsageError, match="there twice"):
        compared(one, run(), confirm=one)


def test_another_machine_is_refused_unless_it_is_asked_for(run: Make) -> None:
    host = {"cpu": "none", "cpus": 4, "kernel": "6.2", "filesystem": "ext4"}
    base, head = run(), run(about={"host": host})
    with pytest.raises(UsageError, match=r"kernel: 6\.1 -> 6\.2") as caught:
        compared(base, head)
    assert "--anyway" in caught.value.hint
    made = compared(base, head, Asked(anyway=True))
    assert cell(made)["standing"] == "same"
    assert any("kernel" in warning for warning in made["warnings"])


def programs(sha: str) -> dict[str, Any]:
    item = {"program": "cpu.sieve", "abi": "x86_64-linux", "sha256": sha * 64, "compiler": "c"}
    return {"payloads": [item | {"flags": []}]}


def test_a_cell_of_another_program_is_unlike_and_the_others_are_compared(run: Make) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    base, head = run(ratios, about=programs("a")), run(ratios, about=programs("b"))
    made = compared(base, head)
    assert (cell(made)["standing"], cell(made)["change"]) == ("unproven", None)
    assert cell(made)["doubt_codes"] == ["unlike"]
    assert view.status(cell(made)) == "unlike"
    assert cell(made, "io.fsync")["standing"] == "same"
    anyway = cell(compared(base, head, Asked(anyway=True)))
    assert (anyway["standing"], anyway["doubt_codes"]) == ("same", ["unlike"])


def test_unlike_numbers_of_loops_are_told(run: Make) -> None:
    base, head = run(), run()
    work = (Work(workload=WorkloadName("cpu.sieve"), loops=100_000, iterations=3),)
    head = dataclasses.replace(head, plan=dataclasses.replace(head.plan, work=work))
    found = cell(compared(base, head))
    assert found["doubt_codes"] == ["other-work"]
    assert found["standing"] == "same"


def test_no_cell_in_common_says_what_there_is(run: Make) -> None:
    with pytest.raises(UsageError, match=r"BASE has box \(cpu\.sieve\); HEAD has jar"):
        compared(run(), run({("jar", "io.fsync"): 1.0}))


def test_a_run_that_ended_before_it_measured_is_refused(run: Make) -> None:
    with pytest.raises(UsageError, match="no block with a value"):
        compared(run(), run(blocks=0))


def test_a_cell_of_one_side_is_listed_with_the_gap_of_the_other(run: Make) -> None:
    gap = Gap(
        block=1,
        target=TargetName("box"),
        workload=WorkloadName("io.fsync"),
        cause=Cause.FAILED,
        detail="the disk is full",
    )
    made = compared(run({SIEVE: 1.0, FSYNC: 1.0}), run(gaps=[gap]))
    assert made["absent"] == [
        {
            "target": "box",
            "workload": "io.fsync",
            "lacking": "head",
            "cause": "failed",
            "detail": "the disk is full",
        }
    ]


def test_targets_and_workloads_may_be_chosen(run: Make) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0, ("jar", "cpu.sieve"): 1.0}
    made = compared(run(ratios), run(ratios), Asked(targets=("box",), workloads=("io",)))
    assert [(c["target"], c["workload"]) for c in made["cells"]] == [("box", "io.fsync")]


# ---- in words


def test_the_headline_says_what_was_found_and_how_sure(run: Make) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    made = compared(run(ratios), run(ratios | {SIEVE: 1.3}))
    assert made["headline"].startswith("HEAD against BASE, 2 cells: 1 suspected regression: box ")
    assert "1 the same within 5 %" in made["headline"]
    assert "one run a side cannot show" in made["headline"]
    assert "--confirm RUN" in made["headline"]
    calm = compared(run(ratios), run(ratios))["headline"]
    assert "no regression of 5 % or more is shown; 2 the same within 5 %" in calm


def test_columns_groups_and_changes_are_shown_as_asked_for(run: Make) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    made = compared(run(ratios), run(ratios | {SIEVE: 1.3}))
    whole = view.build(made)
    assert whole.headings == (
        "target", "workload", "BASE", "HEAD", "change", "interval", "standing",
    )  # fmt: skip
    assert [row.cells[-1] for row in whole.rows] == ["suspected regression", "same"]
    few = view.build(made, columns=("workload", "p", "blocks"), group_by="class", only_changed=True)
    assert [row.cells for row in few.rows] == [("cpu.sieve", "<0.001", "15, 15")]
    assert any("Left out: 1 of 2" in line for line in few.legend)


def test_markdown_and_csv_hold_every_cell(run: Make) -> None:
    made = compared(run({SIEVE: 1.0, FSYNC: 1.0}), run({SIEVE: 1.3, FSYNC: 1.0}))
    text = sheet.markdown(view.build(made))
    assert "| box | cpu.sieve | 1.00 | 1.30 |" in text
    head, *rows = view.csv(made).splitlines()
    assert head.startswith("target,workload,class,base_ratio,")
    assert len(rows) == 2
