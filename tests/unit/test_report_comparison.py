"""A comparison in words."""

from isobench.report import comparison as view
from isobench.report import sheet
from tests.comparisons import FSYNC, SIEVE, MakeRun, compared, document


def test_the_headline_gives_the_findings_and_their_certainty(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    made = compared(make_run(ratios), make_run(ratios | {SIEVE: 1.3}))
    assert view.headline(made).startswith(
        "HEAD against BASE, 2 cells: 1 suspected regression: box "
    )
    assert "1 the same within 5 %" in view.headline(made)
    assert "one run on each side cannot show" in view.headline(made)
    assert "--confirm RUN" in view.headline(made)
    calm = view.headline(compared(make_run(ratios), make_run(ratios)))
    assert "no regression of 5 % or more is shown; 2 the same within 5 %" in calm


def test_columns_groups_and_changes_follow_the_options(make_run: MakeRun) -> None:
    ratios = {SIEVE: 1.0, FSYNC: 1.0}
    made = compared(make_run(ratios), make_run(ratios | {SIEVE: 1.3}))
    whole = view.build(made)
    assert whole.headings == (
        "target", "workload", "BASE", "HEAD", "change", "interval", "standing",
    )  # fmt: skip
    assert [row.cells[-1] for row in whole.rows] == ["suspected regression", "same"]
    few = view.build(made, columns=("workload", "p", "blocks"), group_by="class", only_changed=True)
    assert [row.cells for row in few.rows] == [("cpu.sieve", "<0.001", "15, 15")]
    assert any("Left out: 1 of 2" in line for line in few.legend)


def test_markdown_and_csv_hold_every_cell(make_run: MakeRun) -> None:
    made = compared(make_run({SIEVE: 1.0, FSYNC: 1.0}), make_run({SIEVE: 1.3, FSYNC: 1.0}))
    text = sheet.markdown(view.build(made))
    assert "| box | cpu.sieve | 1.00 | 1.30 |" in text
    head, *rows = view.csv(made).splitlines()
    assert head.startswith("target,workload,class,base_ratio,")
    assert len(rows) == 2


def test_the_document_has_the_keys_that_scripts_read(make_run: MakeRun) -> None:
    made = document(compared(make_run(), make_run(), confirmation=make_run()))
    assert list(made) == [
        *("schema_version", "mode", "base", "head", "confirm", "minimum_effect", "level", "alpha"),
        *("method", "anyway", "differences", "warnings", "notes", "cells", "absent", "headline"),
    ]
    identity = ["id", "started", "machine", "tool_version", "path", "losses"]
    assert list(made["confirm"]) == list(made["base"]["runs"][0]) == identity
    (found,) = made["cells"]
    assert list(found) == [
        *(
            "target",
            "workload",
            "metric",
            "class",
            "base",
            "head",
            "change",
            "interval",
            "equivalence",
            "p",
        ),
        *("p_adjusted", "noise", "method", "standing", "confirmed", "doubts", "doubt_codes"),
    ]
    assert list(found["base"]) == ["ratio", "interval", "blocks", "runs", "noise"]
    assert (made["mode"], found["class"], found["standing"]) == ("runs", "cpu", "same")
    assert made["base"]["target"] is None


def test_a_cell_that_was_not_measured_on_one_side_is_listed(make_run: MakeRun) -> None:
    made = compared(make_run({SIEVE: 1.0, FSYNC: 1.0}), make_run({SIEVE: 1.0}))
    (absent,) = document(made)["absent"]
    assert (absent["lacking"], absent["cause"]) == ("head", "not-measured")
    (line,) = view.build(made).remarks["Only on one side"]
    assert line == "HEAD lacks box, io.fsync: it was not measured there"
