"""What a small file of a stranger asks for is bounded, and every command shows what a run lost."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from isobench import claims
from isobench.analysis import claims as asked
from isobench.analysis import rounds, summary
from isobench.claims import reading
from isobench.comparison import changes
from isobench.comparison.noise import machine_noise
from isobench.comparison.result import ComparisonOptions
from isobench.config import held
from isobench.history import duckdb_door, store
from isobench.history.row import LONGEST_TEXT
from isobench.history.store import Store
from isobench.model.errors import UsageError
from isobench.model.units import TargetName
from isobench.report import comparison as of_comparison
from isobench.report import noise as of_noise
from isobench.report import sheet
from isobench.storage import bundle, documents, reader
from isobench.storage.reader import Run
from isobench.storage.schema import RunMetadata
from tests.faults import damage
from tests.unit.test_history import row

CLAIM = {"id": "mine", "quote": "q", "kind": "order", "technology": "containerization"}


# ---- claims --------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["targets", "workloads"])
def test_a_claim_lists_no_more_than_somebody_reads(key: str) -> None:
    many = [f"x{number}" for number in range(reading.MOST_NAMES + 1)]
    assert claims.of_table([{**CLAIM, key: many[1:]}], origin="x")
    with pytest.raises(UsageError, match=f"{key} has 201 names, and 200 are the most"):
        claims.of_table([{**CLAIM, key: many}], origin="x")


def test_all_claims_together_list_no_more_than_can_be_judged() -> None:
    many = [f"x{number}" for number in range(reading.MOST_NAMES)]
    rows = [{**CLAIM, "id": f"c{number}", "workloads": many} for number in range(30)]
    with pytest.raises(UsageError, match="6,000 names and patterns"):
        claims.of_table(rows, origin="x")
    when = " and ".join(["target !~ 'x'"] * 16)
    with pytest.raises(UsageError, match="names and patterns"):
        claims.of_table(
            [{**CLAIM, "id": f"c{number}", "when": when} for number in range(400)], origin="x"
        )


def test_claims_ask_for_no_more_estimates_than_there_is_time_for(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asked, "_MOST_CONTRASTS", 7)
    about = json.loads((run / "run.json").read_text())
    # At a margin of its own, each cell of docker needs an estimate of its own. The documents take
    # three.
    about["claims"] = [{**CLAIM, "id": f"c{n}", "margin": 0.2 + n / 10} for n in range(3)]
    (run / "run.json").write_text(json.dumps(about))
    found = reader.load(run)
    made = summary.summarise(found, asked.claims_of(found)).claims
    own = [one.sentence for one in made if one.id in {"c0", "c1", "c2"}]
    assert not own[0].startswith("Not tested")
    assert own[-1] == (
        "Not tested: of 3 comparisons of its own, 1 are left to the claims of a run."
    )


# ---- documents -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "why"),
    [
        (b"[" + b"[]," * 2_000_000 + b"[]]", "has more than 2,000,000 values"),
        (b"[" * 200 + b"]" * 200, "Nested in more than 100 levels"),
        (b'{"a":' * 200 + b"1" + b"}" * 200, "Nested in more than 100 levels"),
        (b'{"a":[1,{"b":9223372036854775808}]}', r"out of range - at `\$.x.a\[1\].b`"),
    ],
    ids=["values", "lists", "tables", "number"],
)
def test_a_document_is_refused_where_others_could_not_follow(extra: bytes, why: str) -> None:
    data = b'{"schema_version":1,"reference":"native","x":' + extra + b"}"
    with pytest.raises(ValueError, match=why):
        documents.decoded(data, RunMetadata, "run.json")


def test_a_configuration_that_is_nested_deeply_is_damage(run: Path) -> None:
    about = json.loads((run / "run.json").read_text())
    deep: Any = 1
    for _ in range(300):
        deep = {"a": deep}
    about["config"] = {"targets": {"docker": {"kind": "docker", "x": deep}}}
    (run / "run.json").write_text(json.dumps(about))
    with pytest.raises(UsageError, match="Nested in more than 100 levels"):
        reader.load(run)


@pytest.mark.parametrize("name", ["run.json", "plan.json", "records.jsonl", "state/blocks.jsonl"])
def test_a_link_in_place_of_a_file_leads_nowhere(name: str, run: Path, base: Path) -> None:
    (run / name).unlink()
    (run / name).symlink_to(base / name)
    with pytest.raises(UsageError, match="is a link, and a run has none"):
        reader.load(run)


def test_a_link_in_place_of_a_folder_leads_nowhere(run: Path, base: Path) -> None:
    shutil.rmtree(run / "state")
    (run / "state").symlink_to(base / "state")
    with pytest.raises(UsageError, match="is a link, and a run has none"):
        reader.load(run)


def test_a_target_with_rounds_of_its_own_adds_none_to_others() -> None:
    own = 20
    rows = [
        {"block": 1, "target": f"t{number}", "iteration": 1000 + number * own + turn, "amount": 2.0}
        for number in range(400)
        for turn in range(own)
    ]
    rows += [
        {"block": 1, "target": name, "iteration": turn, "amount": amount}
        for name, amount in (("native", 1.0), ("box", 3.0))
        for turn in range(own)
    ]
    turns = pd.DataFrame(rows)
    tracemalloc.start()
    found = rounds.levels(turns, TargetName("native"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.loc[1, "box"] == pytest.approx(3.0)
    assert peak < 15 << 20  # a table of all rounds and targets would have 25 MiB


# ---- bundles -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b'{"password":"hunter2222","password":"***"}',
        b'{"password":"hunter2222","n":' + b"[" * 900 + b"]" * 900 + b"}",
        b'{"password":"hunter2222","n":1e400}',
        b'{"password":"hunter2222","n":' + b"9" * 5000 + b"}",
    ],
    ids=["twice", "deep", "infinite", "long"],
)
def test_odd_json_is_packed_without_its_secrets(content: bytes) -> None:
    assert b"hunter2222" not in bundle._document(content)


def test_a_file_whose_name_is_no_text_is_left_out_of_a_bundle(run: Path, tmp_path: Path) -> None:
    (run / "state" / os.fsdecode(b"\xff.json")).write_text("{}")
    names = bundle.write(held.opened(run), tmp_path / "x.zip", "x")
    assert "run.json" in names
    assert not any("\udcff" in name for name in names)


# ---- losses --------------------------------------------------------------------------------------


def cut(run: Path) -> str:
    """Lose the records of the last block, as a full disk does."""
    rows = (run / "records.jsonl").read_text().splitlines(keepends=True)
    kept = "".join(row for row in rows if json.loads(row)["block"] < damage._BLOCKS)
    (run / "records.jsonl").write_text(kept)
    return "records.jsonl has no records of 1 of 4 measured blocks"


def scribbled(run: Path) -> str:
    rows = (run / "records.jsonl").read_text().splitlines(keepends=True)
    rows[len(rows) // 2] = "garbage\n"
    (run / "records.jsonl").write_text("".join(rows))
    return "one damaged line is left out"


@pytest.mark.parametrize("lose", [cut, scribbled])
def test_compare_and_noise_show_what_is_lost(
    lose: Callable[[Path], str], run: Path, base: Path
) -> None:
    about = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**about, "id": "another"}))
    why = lose(run)
    damaged, whole = reader.load(run), reader.load(base)
    compared = changes.compare([whole], [damaged], ComparisonOptions())
    assert why in json.dumps(of_comparison.document(compared)["head"]["runs"][0]["losses"])
    assert not of_comparison.document(compared)["base"]["runs"][0]["losses"]
    assert why in sheet.markdown(of_comparison.build(compared))
    noise = machine_noise(damaged)
    assert why in json.dumps(of_noise.document(noise)["run"]["losses"])
    assert why in sheet.markdown(of_noise.build(noise))


def without(run: Path, is_lost: Callable[[dict[str, Any]], bool]) -> Run:
    """Take records out of a run; return it as it is read then."""
    rows = [json.loads(row) for row in (run / "records.jsonl").read_text().splitlines()]
    kept = [row for row in rows if not is_lost(row)]
    assert len(kept) < len(rows)
    (run / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kept))
    return reader.load(run)


def test_the_last_iterations_of_a_visit_are_missed(run: Path) -> None:
    lost = {"block": 2, "target": "docker", "workload": "cpu.sieve", "metric": "time"}
    found = without(run, lambda row: lost.items() <= row.items() and row["iteration"] >= 2)
    assert found.uncounted == {2}
    assert "iterations of this visit are missing" in found.losses.first[0]


def test_turns_are_missed_together_with_their_times(tmp_path: Path) -> None:
    run = damage.in_rounds(damage.run(tmp_path / "run"))
    lost = {"block": 2, "target": "docker", "workload": "cpu.sieve"}

    def is_lost(row: dict[str, Any]) -> bool:
        is_end = row.get("metric") == "turns" or row.get("iteration", 0) >= 2
        return lost.items() <= row.items() and is_end

    found = without(run, is_lost)
    assert found.uncounted == {2}
    assert "the host's times of its turns are missing" in found.losses.first[0]


def test_a_start_is_missed_in_rounds_too(tmp_path: Path) -> None:
    run = damage.in_rounds(damage.run(tmp_path / "run"))
    lost = {"block": 2, "target": "docker", "workload": "startup.cold", "iteration": 1}
    found = without(run, lambda row: lost.items() <= row.items())
    assert found.uncounted == {2}
    assert "iterations of this visit are missing" in found.losses.first[0]


# ---- stores --------------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """The only file of a store in the temporary folder."""
    pytest.importorskip("duckdb", reason="the extra history is not installed")
    Store(tmp_path / "store").add([row(0)])
    (found,) = (tmp_path / "store").rglob("run-*.parquet")
    return found


def test_long_texts_of_a_store_are_refused_before_they_are_put_together(file: Path) -> None:
    duckdb = pytest.importorskip("duckdb")
    select = f"SELECT * REPLACE (repeat('x', {LONGEST_TEXT}) AS link) FROM '{file}'"  # noqa: S608 - the test's own
    duckdb.sql(f"COPY ({select}) TO '{file}.x' (FORMAT parquet)")
    Path(f"{file}.x").replace(file)
    with pytest.raises(UsageError, match="rows that isobench did not write"):
        Store(file.parents[2]).rows()


def test_a_text_that_no_row_has_is_refused_before_it_is_in_memory(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    duckdb = pytest.importorskip("duckdb")
    select = f"SELECT * REPLACE (repeat('x', {9 * LONGEST_TEXT}) AS link) FROM '{file}'"  # noqa: S608 - the test's own
    duckdb.sql(f"COPY ({select}) TO '{file}.x' (FORMAT parquet, COMPRESSION zstd)")
    Path(f"{file}.x").replace(file)
    monkeypatch.setattr(store, "_searched", None)
    with pytest.raises(UsageError, match="rows that isobench did not write"):
        Store(file.parents[2]).rows()


def test_the_memory_of_a_query_has_a_bound() -> None:
    pytest.importorskip("duckdb")
    with duckdb_door.opened() as database:
        (found,) = duckdb_door.row(database, "SELECT current_setting('memory_limit')")
    assert found == "3.7 GiB"


def test_the_texts_of_all_chosen_rows_have_a_bound(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_MOST_TEXT", 10)
    with pytest.raises(UsageError, match="the texts of the rows are longer than 10 bytes"):
        Store(file.parents[2]).rows()


def test_a_column_whose_name_is_no_text_is_damage(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"machine_name", b"machine_nam\xb7"))
    with pytest.raises(UsageError, match="cannot be read"):
        Store(file.parents[2]).rows()
