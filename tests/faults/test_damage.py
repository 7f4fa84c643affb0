"""A damaged run is used where it is intact, or refused with its place: never a traceback, a hang or
much memory.

`python -m tests.faults.damage 700` tries more of them.
"""

import errno
import io
import itertools
import json
import random
import re
import shutil
import struct
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from isobench import api
from isobench.config import bounded
from isobench.history import entry
from isobench.history.row import RANGES
from isobench.model import SESSION
from isobench.model.errors import UsageError
from isobench.storage import files, forms, lines, losses, reader, records
from tests.faults import damage

SEEDS = 12
"""Damaged runs that are tried here; `nox -s fuzz` tries more."""


@pytest.fixture(scope="module")
def rounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose payloads took turns."""
    return damage.in_rounds(damage.run(tmp_path_factory.mktemp("damage") / "rounds"))


def rows(run: Path) -> list[bytes]:
    return (run / "records.jsonl").read_bytes().splitlines(keepends=True)


def place_in(run: Path, block: int, after: int = 3) -> int:
    """Return the index of a line in the middle of a block."""
    return [at for at, line in enumerate(rows(run)) if b'"block":%d,' % block in line][after]


def rewrite(run: Path, made: list[bytes]) -> reader.Run:
    (run / "records.jsonl").write_bytes(b"".join(made))
    return reader.load(run)


def refused(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        reader.load(path)
    assert caught.value.hint
    return str(caught.value)


def test_the_runs_that_are_damaged_have_no_damage(base: Path, rounds: Path, tmp_path: Path) -> None:
    assert not reader.load(base).losses
    assert not reader.load(rounds).losses
    other, ends = damage.another(base, tmp_path / "other"), Counter[str]()
    for name, call in damage.commands(base, other, tmp_path / "out").items():
        assert damage.attempt(call, ends) == "", name
    assert set(ends) == {"worked"}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_damaged_run_ends_no_command_with_a_traceback(
    seed: int, base: Path, rounds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path, what = damage.damaged((base, rounds)[seed % 2], tmp_path / "run", seed)
    other = damage.another(base, tmp_path / "other")
    for name, call in damage.commands(path, other, tmp_path / "out").items():
        assert damage.attempt(call) == "", f"{name}: {what}"


# ---- lines that cannot be used -------------------------------------------------------------------


@pytest.mark.parametrize("garbage", damage.GARBAGE[:10])
def test_a_garbage_line_is_left_out_with_the_block_around_it(garbage: bytes, run: Path) -> None:
    place = place_in(run, 2)
    found = rewrite(run, [*rows(run)[:place], garbage + b"\n", *rows(run)[place:]])
    assert found.losses.lines == 1
    assert found.losses.first[0].startswith(f"records.jsonl:{place + 1}: ")
    assert found.uncounted == {2}


def test_a_garbage_line_between_two_blocks_takes_both(run: Path) -> None:
    place = place_in(run, 3, 0)
    found = rewrite(run, [*rows(run)[:place], b"garbage\n", *rows(run)[place:]])
    assert found.uncounted == {2, 3}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "stranger"), ("target", "docker#x"), ("workload", "cpu.nothing"),
        ("unit", "parsecs"), ("clock", "sundial"), ("metric", ""), ("value", -5),
        ("value", 1 << 61), ("block", 77), ("iteration", -1), ("at", 1e300), ("session", -1),
        ("operations", 0), ("value", None), ("value", [1]), ("target", {}),
    ],
)  # fmt: skip
def test_an_implausible_sample_is_left_out_with_its_block(
    key: str, value: object, run: Path
) -> None:
    made = rows(run)
    place = place_in(run, 2)
    made[place] = json.dumps({**json.loads(made[place]), key: value}).encode() + b"\n"
    found = rewrite(run, made)
    assert found.losses.first[0].startswith(f"records.jsonl:{place + 1}: ")
    assert 2 in found.uncounted
    assert found.uncounted <= {2, 77}


@pytest.mark.parametrize("kind", ["gap", "leaving"])
@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("target", "stranger", 'run.json names no target "stranger"'),
        ("target", "docker#x", 'run.json names no target "docker#x"'),
        ("workload", "cpu.nothing", 'run.json names no workload "cpu.nothing"'),
        ("block", 77, "plan.json has no block 77"),
    ],
)
def test_a_gap_or_a_leaving_of_what_the_run_does_not_have_is_left_out(
    kind: str, key: str, value: object, why: str, run: Path
) -> None:
    line = {"kind": kind, "block": 4, "target": "uml", "workload": "io.metadata"}
    made = {**line, "cause": "failed", "detail": "", "hint": "", "share": 0.5, key: value}
    before = reader.load(run)
    found = rewrite(run, [*rows(run), json.dumps(made).encode() + b"\n"])
    assert found.losses.first[0].endswith(why)
    assert (found.gaps, found.leavings) == (before.gaps, before.leavings)
    assert found.losses.may_hide_leavings == (kind == "leaving")


@pytest.mark.parametrize("name", ["records.jsonl", "state/blocks.jsonl"])
def test_a_key_that_is_lost_in_a_line_is_damage_whichever_it_is(name: str, run: Path) -> None:
    path = run / name
    whole = path.read_bytes().splitlines(keepends=True)
    # One line of each kind.
    kinds = {json.loads(line).get("kind"): at for at, line in enumerate(whole)}
    for at in kinds.values():
        for key in {*damage.KEY.findall(whole[at])}:
            made = [*whole]
            made[at] = made[at].replace(key, damage.flipped(key))
            path.write_bytes(b"".join(made))
            found = reader.load(run)
            assert found.losses.first[0].startswith(f"{name}:{at + 1}: "), key
            assert json.loads(whole[at])["block"] in found.uncounted


OF_EVERY_HOST = {*itertools.chain.from_iterable(forms._OF_HOST.values())}


@pytest.mark.parametrize("name", ["run.json", "plan.json", "state/docker-pre.json"])
def test_a_key_that_is_lost_in_a_document_is_refused_whichever_it_is(name: str, run: Path) -> None:
    path = run / name
    document = json.loads(path.read_text())
    for place in damage.kinds_of_places(document):
        # What stands in these tables is named by the user, the host or the target.
        is_free = "workloads" in place[:-1] and name.startswith("state/")
        is_free |= bool(damage.FREE & {*place[:-1]})
        if isinstance(place[-1], int) or (is_free and place[-1] not in OF_EVERY_HOST):
            continue
        path.write_text(json.dumps(damage.without(document, place)))
        assert str(place[-1]) in refused(run), place


def test_a_line_of_no_kind_may_be_a_leaving(run: Path) -> None:
    made = rows(run)
    made[-1] = made[-1].replace(b'"leaving"', b'"leavinf"')
    losses = rewrite(run, made).losses
    assert (losses.lines, losses.may_hide_leavings) == (1, True)


@pytest.mark.parametrize("name", ["2026-11-22-debian12-2cpu", "2026-11-25-debian12-2cpu"])
def test_keys_of_an_earlier_form_are_enough_where_all_of_a_later_one_are_missing(
    name: str, tmp_path: Path
) -> None:
    earlier = shutil.copytree(damage.EXAMPLES / name, tmp_path / name)
    assert not reader.load(earlier).losses
    about = json.loads((earlier / "run.json").read_text())
    for key in {"quick", "margin", "plan_sha256", "config"} & about.keys():
        (earlier / "run.json").write_text(json.dumps(damage.without(about, (key,))))
        assert key in refused(earlier)


def test_a_plan_of_a_later_form_than_run_json_is_refused(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    earlier = json.loads((damage.EXAMPLES / "2026-11-25-debian12-2cpu/run.json").read_text())
    made = {key: about[key] for key in earlier}
    for kind in ("targets", "workloads"):
        names = {one["name"] for one in about[kind]}
        made[kind] = [one for one in earlier[kind] if one["name"] in names]
    made["host"] = earlier["host"]
    (run / "run.json").write_text(json.dumps(made))
    assert "lacks what plan.json" in refused(run)


@pytest.mark.parametrize("workload", ["", SESSION])
def test_a_gap_may_be_one_of_a_whole_target_or_session_and_of_the_trial(
    workload: str, run: Path
) -> None:
    gap = {"kind": "gap", "block": 0, "target": "uml", "workload": workload, "cause": "failed"}
    gap |= {"detail": "", "hint": ""}
    assert not rewrite(run, [json.dumps(gap).encode() + b"\n", *rows(run)]).losses


def test_more_gaps_than_a_run_has_are_refused_before_all_are_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "_MOST_OTHERS", 10)
    gap = '{"kind":"gap","block":4,"target":"uml","workload":"cpu.sieve","cause":"failed","hint":""'
    made = [f'{gap},"detail":"{100 * "x"}{n}"}}\n'.encode() for n in range(20)]
    (run / "records.jsonl").write_bytes(b"".join([*rows(run), *made]))
    assert "more gaps and leavings than a run has" in refused(run)


def test_equal_texts_of_gaps_are_kept_once(run: Path) -> None:
    gap = b'{"kind":"gap","block":4,"target":"uml","workload":"cpu.sieve","cause":"failed",'
    found = rewrite(run, [*rows(run), *[gap + b'"detail":"it is down","hint":""}\n'] * 3])
    assert len({id(one.detail) for one in found.gaps[-3:]}) == 1


def test_a_record_that_moved_into_another_block_takes_both(run: Path) -> None:
    made = rows(run)
    place = place_in(run, 2)
    made[place] = made[place].replace(b'"block":2,', b'"block":4,')
    assert {2, 4} <= rewrite(run, made).uncounted


def test_a_missing_sample_in_the_middle_of_a_visit_takes_its_block(run: Path) -> None:
    made = rows(run)
    place = next(
        at for at, line in enumerate(made)
        if b'"block":3,' in line and b'"metric":"time","iteration":1' in line
    )  # fmt: skip
    found = rewrite(run, [*made[:place], *made[place + 1 :]])
    assert found.uncounted == {3}
    assert "iterations of this visit are missing" in found.losses.first[0]


def test_missing_turns_take_their_block(rounds: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(rounds, tmp_path / "run"))
    lost = (b'"block":3,', b'"target":"native",', b'"metric":"time","iteration":1')
    kept = [line for line in rows(run) if not all(part in line for part in lost)]
    assert len(kept) < len(rows(run))
    found = rewrite(run, kept)
    assert found.uncounted == {3}
    assert "times of its turns are missing" in found.losses.first[0]


def test_blocks_whose_host_lines_are_all_lost_do_not_count(run: Path) -> None:
    (run / "state" / "blocks.jsonl").unlink()
    found = reader.load(run)
    assert found.uncounted == {*found.samples["block"].unique().tolist()} - {0}
    assert "it has no line for" in found.losses.first[0]


def ended(run: Path, *, interrupted: bool, resumed: int = 0, begins: tuple[int, ...] = ()) -> None:
    """Say how a run ended, and at which blocks it was resumed: its time begins again there."""
    about = json.loads((run / "run.json").read_text())
    about |= {"interrupted": interrupted, "resumed_by": [["run"]] * resumed}
    (run / "run.json").write_text(json.dumps(about))
    made = [json.loads(line) for line in rows(run)]
    for row in made:
        row["at"] = row.get("at", 0.0) + 1e5
        row["at"] -= 1e4 * sum(row["block"] >= begin for begin in begins)
    rewrite(run, [json.dumps(row).encode() + b"\n" for row in made])


@pytest.mark.parametrize(
    ("lines", "about", "is_lost"),
    [
        ((4,), {"interrupted": True}, False),
        ((4,), {"interrupted": False}, True),
        ((2,), {"interrupted": False}, True),
        ((2,), {"interrupted": True}, True),
        ((2,), {"interrupted": False, "resumed": 1, "begins": (3,)}, False),
        ((3,), {"interrupted": False, "resumed": 1, "begins": (3,)}, False),
        ((4,), {"interrupted": False, "resumed": 1, "begins": (3,)}, True),
        ((1,), {"interrupted": False, "resumed": 1, "begins": (3,)}, True),
        ((2, 4), {"interrupted": True, "resumed": 1, "begins": (3,)}, False),
        ((2, 3), {"interrupted": False, "resumed": 1, "begins": (3,)}, True),
        ((2, 3), {"interrupted": False, "resumed": 2, "begins": (3,)}, False),
        # Interrupted in its first block, and resumed with a slower start: the time goes on.
        ((1,), {"interrupted": False, "resumed": 1}, False),
        ((1, 2), {"interrupted": False, "resumed": 1}, True),
    ],
)
def test_only_the_last_block_before_an_interruption_may_have_no_host_line(
    lines: tuple[int, ...], about: dict[str, Any], is_lost: bool, run: Path
) -> None:
    ended(run, **about)
    path = run / "state" / "blocks.jsonl"
    kept = [line for line in path.read_text().splitlines(keepends=True)
            if json.loads(line)["block"] not in lines]  # fmt: skip
    path.write_text("".join(kept))
    found = reader.load(run)
    assert bool(found.losses) == is_lost
    assert found.losses.blocks == ({*lines} if is_lost else set())


def test_a_cell_whose_evidence_is_lost_has_no_verdict(run: Path) -> None:
    before = {one.target: one.status for one in api.load(run).summary.cells}
    (run / "state" / "docker-pre.json").unlink()
    after = api.load(run).summary
    assert {one.status for one in after.cells if one.target == "docker"} == {"unproven"}
    assert "lost-evidence" in {code for one in after.cells for code in one.doubt_codes}
    assert {one.status for one in after.cells if one.target != "docker"} <= {*before.values()}


def unmet(state: dict[str, Any]) -> None:
    state["promises"][0]["kept"] = False


def unavailable(state: dict[str, Any]) -> None:
    state.update(status="unavailable", reason="no engine")


def without_facts(state: dict[str, Any]) -> None:
    state["facts"] = []


def of_another_class(state: dict[str, Any]) -> None:
    state["class"] = "virtualization"


@pytest.mark.parametrize("change", [unmet, unavailable, without_facts, of_another_class])
def test_a_cell_whose_evidence_contradicts_it_has_no_verdict_and_settles_no_claim(
    change: Callable[[dict[str, Any]], None], run: Path
) -> None:
    path = run / "state" / "docker-pre.json"
    state = json.loads(path.read_text())
    change(state)
    path.write_text(json.dumps(state))
    found = api.load(run).summary
    own = [one for one in found.cells if one.target == "docker"]
    assert own
    assert {one.status for one in own} == {"unproven"}
    assert all("lost-evidence" in one.doubt_codes for one in own)
    (target,) = [one for one in found.targets if one.name == "docker"]
    assert target.measured
    about = [one for one in found.claims if re.search(r"\bdocker\b", one.sentence)]
    assert about
    assert {one.status for one in about} == {"untested"}


@pytest.mark.parametrize("content", [None, b""])
def test_a_run_whose_plan_is_lost_is_refused(content: bytes | None, run: Path) -> None:
    (run / "plan.json").unlink()
    if content is not None:
        (run / "plan.json").write_bytes(content)
    assert "plan.json: it is missing or empty" in refused(run)


def test_damage_never_makes_an_interval_narrower_than_without_the_block(run: Path) -> None:
    def intervals(path: Path) -> dict[tuple[str, str], tuple[float, float] | None]:
        return {(one.target, one.workload): one.interval for one in api.load(path).summary.cells}

    made = rows(run)
    place = place_in(run, 2)
    rewrite(run, [line for line in made if b'"block":2,' not in line])
    without = intervals(run)
    rewrite(run, [*made[:place], b"\xff\n", *made[place + 1 :]])
    damaged = intervals(run)
    for cell, interval in damaged.items():
        before = without[cell]
        assert (interval is None) == (before is None), cell
        if interval is not None and before is not None:
            assert interval[0] <= before[0] * 1.0000001, cell
            assert interval[1] >= before[1] * 0.9999999, cell


def test_a_lost_line_may_hide_that_a_cell_left_so_that_the_stricter_level_holds(run: Path) -> None:
    whole = api.load(run).summary
    rewrite(run, [*rows(run), b"garbage\n"])
    assert {one.level for one in whole.cells} == {0.97, 0.999}
    assert {one.level for one in api.load(run).summary.cells} == {0.999}


def test_a_damaged_line_of_the_host_takes_its_block(run: Path) -> None:
    path = run / "state" / "blocks.jsonl"
    made = path.read_text().splitlines()
    made[1] = made[1].replace("1", "x")
    path.write_text("\n".join(made) + "\n")
    found = reader.load(run)
    assert found.losses.first[0].startswith("state/blocks.jsonl:2: ")
    assert found.uncounted == {2}


def test_the_loss_is_in_the_summary_the_page_markdown_and_terminal(run: Path) -> None:
    place = place_in(run, 2)
    rewrite(run, [*rows(run)[:place], b"garbage\n", *rows(run)[place:]])
    assert damage.attempt(lambda: damage._command("report", run, "--quiet")) == ""
    said = f"one damaged line is left out, and one block does not count (records.jsonl:{place + 1}:"
    summary = json.loads((run / "summary.json").read_text())
    assert "damaged-records" in [one["code"] for one in summary["run"]["doubts"]]
    assert summary["run"]["complete"] is False
    assert said in summary["run"]["headline"]
    assert said in (run / "report.html").read_text()
    assert said in (run / "summary.md").read_text().replace("\\", "")


def test_a_file_of_garbage_is_refused_before_all_of_it_is_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "MOST_DAMAGED", 10)
    (run / "records.jsonl").write_bytes(b"x\n" * 1000)
    assert "records.jsonl:1: " in refused(run)


def test_a_line_without_end_takes_no_memory_and_one_place(run: Path) -> None:
    made = rows(run)
    place = place_in(run, 2)
    long = b"x" * (3 * lines.LONGEST_LINE)
    found = rewrite(run, [*made[:place], long + long + b"\n", *made[place:]])
    assert found.losses.lines == 1
    assert len(found.losses.first[0]) < 300


def test_line_numbers_are_right_across_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "_BATCH", 64)
    line = NO_GAP.replace(b'"cause":""', b'"cause":"failed"')
    found = records.read(line * 9 + b"garbage\n" + line * 3 + b"cut off")
    assert [*found.damage.reasons] == [10]
    assert len(found.gaps) == 12


# ---- documents that contradict each other --------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "change", "place"),
    [
        ("run.json", lambda run: run["targets"].append(run["targets"][0]), "occurs 2 times"),
        ("run.json", lambda run: run["targets"][1].update(name="../../x"), "is not a name"),
        ("run.json", lambda run: run.update(reference="stranger"), "$.reference"),
        ("run.json", lambda run: run["variations"][0].update(base="stranger"), "$.variations"),
        ("run.json", lambda run: run["workloads"].append(run["workloads"][0]), "occurs 2 times"),
        ("run.json", lambda run: run["host"].update(load=10**40), "out of range"),
        ("plan.json", lambda plan: plan.update(reference="docker"), "$.reference"),
        ("plan.json", lambda plan: plan["blocks"].pop(0), "numbered from 1"),
        ("plan.json", lambda plan: plan["blocks"][0]["sessions"].append("x"), 'no target "x"'),
        ("plan.json", lambda plan: plan["blocks"][0]["visits"][0].update(workload="x"), '"x"'),
        ("plan.json", lambda plan: plan["blocks"][0]["visits"][0].update(block=2), "blocks[0]"),
        ("plan.json", lambda plan: plan["work"][0].update(loops=0), "$.work"),
    ],
)
def test_documents_that_contradict_each_other_are_refused_with_their_place(
    name: str, change: Callable[[dict[str, object]], object], place: str, run: Path
) -> None:
    document = json.loads((run / name).read_text())
    change(document)
    (run / name).write_text(json.dumps(document))
    message = refused(run)
    assert f"{run}: {name}: " in message
    assert place in message


@pytest.mark.parametrize(("targets", "workloads"), [(100, 100), (0, 10_000), (10_000, 0)])
def test_a_run_of_too_many_cells_is_refused(targets: int, workloads: int, run: Path) -> None:
    document = json.loads((run / "run.json").read_text())
    document["targets"] += [{"name": f"t{n}", "class": "sandbox"} for n in range(targets)]
    document["workloads"] += [{"name": f"z.w{n}", "class": "z"} for n in range(workloads)]
    (run / "run.json").write_text(json.dumps(document))
    assert "run.json: " in (message := refused(run))
    assert "10,000 are the most" in message


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_is_above_nothing(limit: float, run: Path) -> None:
    check = {"resource": "cpu", "unit": "CPUs", "limit": limit, "reached": 0.5, "native": 2.0}
    state = json.loads((run / "state" / "docker-pre.json").read_text())
    state["limits"] = [{**check, "counted": None, "held": True}]
    (run / "state" / "docker-pre.json").write_text(json.dumps(state))
    assert "a limit is above 0" in refused(run)


def test_a_state_of_too_many_facts_is_refused(run: Path) -> None:
    state = json.loads((run / "state" / "docker-pre.json").read_text())
    state["facts"] += [{"key": "x", "value": 1, "source": "x"}] * 1001
    (run / "state" / "docker-pre.json").write_text(json.dumps(state))
    assert "facts" in refused(run)


@pytest.mark.parametrize("weights", ["\u00b2 \u00b2", "1 " + "9" * 5000, "-1 1", "1", ""])
def test_weights_that_are_no_numbers_are_unknown(weights: str, run: Path) -> None:
    state = json.loads((run / "state" / "docker-pre.json").read_text())
    facts = {"host.cpu_group": "/a/b", "host.cpu_weights": weights}
    state["facts"] += [{"key": key, "value": one, "source": "x"} for key, one in facts.items()]
    (run / "state" / "docker-pre.json").write_text(json.dumps(state))
    assert damage.attempt(lambda: damage._command("report", run, "--quiet")) == ""


def test_ratios_of_any_size_have_a_report_and_a_row_of_a_history(run: Path) -> None:
    values = {1: (1, (1 << 62) - 1), 3: (10**17, 1)}
    made = [json.loads(line) for line in rows(run)]
    for row in made:
        cell = tuple(row.get(key) for key in ("target", "workload", "metric"))
        if cell == ("docker", "cpu.sieve", "time") and row["block"] in values:
            row["value"], row["operations"] = values[row["block"]]
    rewrite(run, [json.dumps(row).encode() + b"\n" for row in made if row["block"] <= 3])
    for words in (("report", run, "--quiet"), ("noise", run), ("verify", run)):
        assert damage.attempt(lambda: damage._command(*words)) == ""  # noqa: B023
    (one,) = [x for x in entry.rows_of(reader.load(run))
              if (x.target, x.workload) == ("docker", "cpu.sieve")]  # fmt: skip
    assert (one.low, one.high) == RANGES["low"]


# ---- other than files ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["run.json", "plan.json", "records.jsonl", "state/docker-pre.json"]
)
@pytest.mark.parametrize("what", ["directory", "fifo", "device", "loop", "sparse"])
def test_what_is_not_a_file_of_a_sensible_size_is_refused_at_once(
    name: str, what: str, run: Path
) -> None:
    damage.put_in_place_of(run / name, what)
    assert name in refused(run)
    for command in ("noise", "report"):
        assert damage.attempt(lambda: damage._command(command, run)) == ""  # noqa: B023


# ---- zips ----------------------------------------------------------------------------------------


def zipped(run: Path, extra: Callable[[zipfile.ZipFile], object] = lambda _: None) -> Path:
    archive = run.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        for path in sorted(run.rglob("*")):
            made.write(path, f"run/{path.relative_to(run)}")
        extra(made)
    return archive


def test_a_zip_that_expands_without_measure_is_refused_before_it_is_read(run: Path) -> None:
    (run / "records.jsonl").write_bytes(b"\n" * (300 << 20))
    message = refused(zipped(run))
    assert "records.jsonl expands to more than 100 times its size" in message


def test_a_member_beyond_the_bound_is_refused(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_RATIO_FROM", 1 << 40)
    (run / "plan.json").write_bytes(b" " * (65 << 20))
    assert "plan.json: longer than 64 MiB" in refused(zipped(run))


def test_the_bounds_leave_room_for_ten_million_records(base: Path) -> None:
    line = max(map(len, rows(base)))
    assert 10_000_000 * line < files.MOST_RECORDS


def test_a_zip_of_many_members_is_refused(run: Path) -> None:
    def many(made: zipfile.ZipFile) -> None:
        for number in range(files.MOST_MEMBERS):
            made.writestr(f"run/logs/{number}.log", "")

    assert "members, more than a run" in refused(zipped(run, many))


def test_a_table_of_members_beyond_the_bound_is_not_read(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_MOST_TABLE", 500)
    assert "has more members than a run" in refused(zipped(run))


def changed(archive: Path, offset: int, value: int) -> Path:
    """Change two bytes of each entry of the table of a zip."""
    data = bytearray(archive.read_bytes())
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        data[at + offset : at + offset + 2] = struct.pack("<H", value)
        at = data.find(b"PK\x01\x02", at + 4)
    archive.write_bytes(data)
    return archive


def test_an_encrypted_member_is_refused_by_that_word(run: Path) -> None:
    assert "run.json is encrypted" in refused(changed(zipped(run), 8, 1))


def test_an_unusual_compression_is_refused(run: Path) -> None:
    assert "unusual method" in refused(changed(zipped(run), 10, zipfile.ZIP_LZMA))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_name_that_occurs_twice_is_refused(run: Path) -> None:
    archive = zipped(run, lambda made: made.writestr("run/plan.json", "{}"))
    assert "plan.json occurs 2 times" in refused(archive)


def test_paths_out_of_the_zip_lead_nowhere(run: Path) -> None:
    archive = zipped(run, lambda made: made.writestr("../../etc/passwd", "x"))
    assert not reader.load(archive).losses


@pytest.mark.parametrize("seed", range(20))
def test_flipped_bits_of_a_zip_are_no_traceback(seed: int, run: Path) -> None:
    archive = zipped(run)
    data = bytearray(archive.read_bytes())
    rng = random.Random(seed)  # noqa: S311 - damage to repeat
    for _ in range(3):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    archive.write_bytes(data)
    assert damage.attempt(lambda: reader.load(archive)) == ""


NAMES = records.Known(
    targets={"native", "docker", "qemu-user-aarch64", "uml"},
    workloads={"cpu.sieve", "io.metadata", "startup.cold"},
)
NAMELESS = (
    b'{"kind":"sample","block":1,"target":"","workload":"","metric":"","iteration":0,"value":0,'
    b'"unit":"","operations":1,"clock":"","at":0,"session":0}\n'
)
NO_GAP = b'{"kind":"gap","block":1,"target":"","workload":"","cause":"","detail":"","hint":""}\n'


def test_reading_ends_early_where_too_many_lines_name_what_the_run_does_not_have(
    rounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(records, "MOST_DAMAGED", 1000)
    good = b"".join(rows(rounds))
    reading = records.Reader(NAMES)
    with pytest.raises(ValueError, match="no such target; more than 1000 lines are damaged"):
        reading.read(io.BytesIO(good + NAMELESS * 200_000))
    # Not even the second batch of lines was taken.
    assert reading.place < len(good) + 8_000_000


@pytest.mark.parametrize("line", [NAMELESS, NO_GAP])
def test_a_file_of_too_many_lines_is_refused(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MOST_LINES", 1000)
    records.Reader(None).read(io.BytesIO(line * 1000))
    with pytest.raises(ValueError, match="more than 1,000 lines"):
        records.Reader(None).read(io.BytesIO(line * 1001))


def test_a_run_that_may_not_be_read_is_not_damaged(
    rounds: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(rounds / "records.jsonl"))

    monkeypatch.setattr(files.Files, "open", refused)
    with pytest.raises(UsageError, match=r"records\.jsonl: Permission denied$") as caught:
        reader.load(rounds)
    assert "chmod -R u+rX" in caught.value.hint


def test_an_error_of_the_system_names_one_path() -> None:
    error = OSError(errno.EACCES, "no", "a", None, "b")
    bounded.name_in(error, Path("z"))
    assert str(error).endswith("no: 'z'")
    bounded.name_in(error, Path("y"))
    assert str(error).endswith("no: 'y'")
