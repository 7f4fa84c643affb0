"""`isobench verify`: claims judged on runs with known ratios, and their exports."""

import json
import os
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from isobench import claims
from isobench.analysis import summary as analysis
from isobench.cli import _inputs, verify
from isobench.cli import run as run_command
from isobench.model import Cause, Gap, Technology
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName
from isobench.report.exporters.junit import junit
from isobench.report.exporters.openmetrics import openmetrics
from isobench.storage import documents, reader
from isobench.storage.schema import Summary

Write = Callable[..., Path]
KINDS = {"box": Technology.CONTAINERIZATION, "vm": Technology.VIRTUALIZATION}


def judged(path: Path, text: str) -> dict[str, dict[str, Any]]:
    """Return how the claims of a TOML text stand after a run, by id."""
    own = claims.load(text, origin="mine.toml")
    made = analysis.summarise(reader.load(path), own)
    rows = json.loads(msgspec.json.encode(made.claims))
    return {row["id"]: row for row in rows}


def summary(path: Path) -> dict[str, Any]:
    run = reader.load(path)
    decoded: dict[str, Any] = json.loads(
        msgspec.json.encode(analysis.summarise(run, analysis.claims_of(run)))
    )
    return decoded


def test_a_margin_and_a_level_of_the_claims_own_decide(synthetic: Write) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.03}, blocks=40, noise=0.005)
    text = """
[[claims]]
id = "wide"
assert = { kind = "equivalent", targets = ["box"] }
[[claims]]
id = "narrow"
assert = { kind = "equivalent", targets = ["box"], margin = "2%" }
[[claims]]
id = "slower"
assert = { kind = "order", targets = ["box"] }
[[claims]]
id = "slower-by-much"
assert = { kind = "order", targets = ["box"], margin = "10%" }
[[claims]]
id = "bounded"
assert = { kind = "bound", targets = ["box"], workloads = ["cpu"], below_ratio = 1.04 }
[[claims]]
id = "surely-bounded"
level = "99%"
assert = { kind = "bound", targets = ["box"], workloads = ["cpu"], above_ratio = 1.02 }
"""
    rows = judged(path, text)
    assert {name: row["standing"] for name, row in rows.items()} == {
        "wide": "supported",
        "narrow": "refuted",
        "slower": "inconclusive",  # by less than the margin: the cell is near-native
        "slower-by-much": "refuted",
        "bounded": "supported",
        "surely-bounded": "supported",
    }
    assert rows["wide"]["origin"] == "mine.toml"
    assert "[0.98, 1.02]" in rows["narrow"]["change"]


def test_targets_are_compared_with_each_other_in_the_same_blocks(synthetic: Write) -> None:
    ratios = {("box", "cpu.sieve"): 1.5, ("vm", "cpu.sieve"): 1.2}
    path = synthetic(ratios, blocks=20, noise=0.005, classes=KINDS)
    text = """
[[claims]]
id = "slower-than-vm"
assert = { kind = "order", targets = ["box"], reference = "virtualization" }
[[claims]]
id = "quarter"
reference = "vm"
assert = { kind = "bound", targets = ["box"], workloads = ["cpu"], below_ratio = 1.3 }
[[claims]]
id = "to-nobody"
assert = { kind = "order", targets = ["box"], reference = "emulation" }
"""
    rows = judged(path, text)
    assert rows["slower-than-vm"]["standing"] == "supported"
    assert "box cpu.sieve 1.25x vm" in rows["slower-than-vm"]["sentence"]
    assert rows["quarter"]["standing"] == "supported"
    assert rows["to-nobody"]["standing"] == "untested"
    assert "together with emulation" in rows["to-nobody"]["change"]


def test_a_comparison_of_targets_counts_the_sessions_of_both(synthetic: Write) -> None:
    ratios = {("box", "cpu.sieve"): 1.0, ("vm", "cpu.sieve"): 1.0}
    options = {"blocks": 12, "noise": 0.002, "classes": KINDS, "session_spread": 0.05}
    path = synthetic(ratios, sessions={"vm": 4}, **options)
    estimate = analysis.Analysis(reader.load(path)).estimate(
        WorkloadName("cpu.sieve"), TargetName("box"), reference=TargetName("vm")
    )
    assert estimate is not None
    assert estimate.sessions == 3


def test_the_users_claims_are_added_to_the_documents_and_may_replace_them(
    synthetic: Write,
) -> None:
    rows = [
        {"id": "mine", "quote": "Fast.", "kind": "equivalent", "targets": ["box"]},
        {"id": "perf-container", "quote": "Fine.", "kind": "equivalent", "targets": ["box"]},
    ]
    path = synthetic()
    added = claims.of_table(rows, origin="mine.toml")
    made = analysis.summarise(reader.load(path), analysis.claims_of(reader.load(path), added))
    found = {one.id: one for one in made.claims}
    assert len(found) == len(analysis.documents_claims()) + 1
    assert found["mine"].quote == "Fast."
    assert (found["perf-container"].quote, found["perf-container"].is_documents) == ("Fine.", False)
    assert found["kernel-container"].origin == "claims.toml"


def test_a_claim_of_a_run_does_not_replace_a_sentence_of_the_documents(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    row = {"id": "perf-container", "quote": "Near-native", "kind": "bound", "below_ratio": 1e9}
    row |= {"targets": ["box"], "workloads": ["cpu"]}
    path = synthetic({("box", "cpu.sieve"): 2.0}, about={"claims": [row]})
    without = summary(synthetic({("box", "cpu.sieve"): 2.0}, name="without"))
    plain = {one["id"]: one for one in without["claims"]}
    found = {one["id"]: one for one in summary(path)["claims"]}
    assert found["perf-container"] == plain["perf-container"]
    assert found["perf-container"]["documents"]
    other = found["perf-container-of-this-run"]
    assert (other["standing"], other["documents"]) == ("supported", False)
    assert other["published"] == []
    # The user's own may, and then that of the run is no other.
    added = claims.of_table([row], origin="mine.toml")
    chosen = {one.id: one for one in analysis.claims_of(reader.load(path), added)}
    assert chosen["perf-container"].below_ratio == 1e9
    assert "perf-container-of-this-run" not in chosen
    done = isobench("verify", path, "--fail-on", "documents", "-q")
    assert done.code == 1, done


# ---- the command


OWN = """
[[claims]]
id = "fast"
quote = "Boxes are fast."
kind = "equivalent"
targets = ["box"]
"""


@pytest.fixture
def own(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(OWN)
    return path


def test_a_refuted_claim_fails_only_with_fail_on(
    synthetic: Write, isobench: Callable[..., Any], own: Path
) -> None:
    path = synthetic({("box", "cpu.sieve"): 2.0})
    done = isobench("verify", path, "--claims", own)
    assert done.code == 0, done
    assert 'refuted: "Boxes are fast." (fast)' in done.words
    assert "What would change this:" in done.words
    assert "Of 1 claims: 1 refuted." in done.words
    failed = isobench("verify", path, "--claims", own, "--fail-on", "claim", "-q")
    assert failed.code == 1
    assert "Boxes" not in failed.out
    written = json.loads((path / "summary.json").read_text())
    assert {row["id"]: row["standing"] for row in written["claims"]}["fast"] == "refuted"
    assert "Boxes are fast." in (path / "report.html").read_text()


def test_the_documents_cannot_fail_where_only_a_file_is_judged(
    synthetic: Write, isobench: Callable[..., Any], own: Path
) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.0})
    done = isobench("verify", path, "--claims", own, "--fail-on", "claim,documents")
    assert done.code == 2
    assert "--fail-on documents has no effect with --claims" in done.words
    assert not (path / "summary.json").exists()


def test_an_export_that_cannot_be_written_takes_nothing_from_the_others(
    synthetic: Write,
    isobench: Callable[..., Any],
    own: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "job.md"))
    monkeypatch.setenv("GITHUB_ACTIONS", "true")
    path = synthetic({("box", "cpu.sieve"): 2.0})
    words = ("verify", path, "--claims", own, "-q", "--export-json", "/dev/full")
    words += ("--export-junit", tmp_path / "claims.xml")
    for fail_on, code in (((), 2), (("--fail-on", "claim"), 1)):
        done = isobench(*words, *fail_on)
        assert done.code == code
        assert "/dev/full: No space left on device" in done.err
        assert "Boxes are fast" in (tmp_path / "claims.xml").read_text()
        assert "Claim fast is refuted" in done.err
        for name in ("claims.xml", "job.md"):
            (tmp_path / name).unlink()


def test_a_supported_claim_passes(
    synthetic: Write, isobench: Callable[..., Any], own: Path
) -> None:
    path = synthetic({("box", "cpu.sieve"): 1.0})
    assert isobench("verify", path, "--claims", own, "--fail-on", "claim").code == 0


def test_without_a_file_the_documents_are_judged(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    done = isobench("verify", synthetic(), "-v")
    assert done.code == 0, done
    assert "(perf-container)" in done.words
    assert "Published: Docker, Linpack" in done.words
    assert f"Of {len(analysis.documents_claims())} claims:" in done.words


def test_claims_of_the_configuration_are_judged_too(
    synthetic: Write, isobench: Callable[..., Any], somewhere: Path
) -> None:
    (somewhere / "isobench.toml").write_text(OWN)
    assert "(fast)" in isobench("verify", synthetic()).words
    (somewhere / "isobench.toml").write_text(OWN.replace("equivalent", "equal"))
    broken = isobench("verify", synthetic(name="again"))
    assert broken.code == 2
    assert "isobench.toml:5: claim fast: kind must be one of evidence, equivalent" in broken.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--claims", "nowhere.toml"), "nowhere.toml: No such file"),
        (("--measure",), "--measure and --budget cannot be used with a RUN"),
        (("--budget", "5m"), "--measure and --budget cannot be used with a RUN"),
        (("--fail-on", "claims"), "--fail-on: 'claims' is none of"),
    ],
)
def test_wrong_arguments_of_verify_are_refused(
    arguments: tuple[str, ...], message: str, synthetic: Write, isobench: Callable[..., Any]
) -> None:
    done = isobench("verify", synthetic(), *arguments)
    assert done.code == 2
    assert message in done.err


# ---- exports


def test_junit_has_a_suite_for_each_workload_and_one_for_claims(
    synthetic: Write, isobench: Callable[..., Any], own: Path
) -> None:
    gaps = [
        Gap(
            block=1,
            target=TargetName(name),
            workload=WorkloadName("cpu.sieve"),
            cause=cause,
            detail="why & <so>\x1b[0m",
            hint="try",
        )
        for name, cause in (("lost", Cause.FAILED), ("absent", Cause.UNAVAILABLE))
    ]
    path = synthetic({("box", "cpu.sieve"): 2.0}, gaps=gaps, unmeasured=("lost", "absent"))
    done = isobench("verify", path, "--claims", own, "--export-junit", "-")
    assert done.code == 6  # a cell failed
    root = ET.fromstring(done.out)  # noqa: S314 - our own
    class_means = {suite.get("name"): suite for suite in root}
    assert list(class_means) == ["cpu.sieve", "claims"]
    cases = {case.get("name"): case for case in class_means["cpu.sieve"]}
    ratio = cases["box"].find("properties/property[@name='ratio']")
    assert ratio is not None
    assert float(ratio.get("value", "")) == pytest.approx(2.0, rel=0.05)
    error, skipped = cases["lost"].find("error"), cases["absent"].find("skipped")
    assert error is not None
    assert error.get("message", "").startswith("failed: why & <so>")
    assert skipped is not None
    # The user's own claims alone are tests: the documents' sentences are nobody's.
    assert [case.get("name") for case in class_means["claims"]] == ["fast"]
    assert class_means["claims"].find("testcase[@name='fast']/failure") is not None
    counts = [int(root.get(name, "")) for name in ("tests", "failures", "errors", "skipped")]
    found = [root.findall(f".//{tag}") for tag in ("testcase", "failure", "error", "skipped")]
    assert counts == [len(each) for each in found]


def test_open_metrics_has_a_line_for_each_bound_and_ends_with_eof(synthetic: Write) -> None:
    made = summary(synthetic({("box", "cpu.sieve"): 2.0}))
    text = openmetrics(documents.summary_of(made))
    assert text.endswith("# EOF\n")
    labels = 'workload="cpu.sieve",target="box",reference="native"'
    for bound in ("point", "lower", "upper"):
        assert f'isobench_ratio{{{labels},bound="{bound}"}} ' in text
    assert f'isobench_verdict{{{labels},verdict="slower"}} 1' in text
    assert 'isobench_claim{claim="perf-container",standing="refuted"} 1' in text
    assert "isobench_last_run_timestamp_seconds 1704164645" in text
    cell = {"workload": 'a"b\\', "target": "t\n", "class": "cpu", "ratio": 1.0, "interval": None}
    hostile = documents.summary_of({"schema_version": 1, "cells": [cell]})
    assert 'workload="a\\"b\\\\",target="t\\n"' in openmetrics(hostile)


def test_an_empty_summary_can_be_exported() -> None:
    assert openmetrics(Summary()) == "# EOF\n"
    assert ET.fromstring(junit(Summary())).get("tests") == "0"  # noqa: S314 - our own


def test_unknown_names_in_claims_are_reported(
    synthetic: Write, isobench: Callable[..., Any], own: Path
) -> None:
    own.write_text(OWN.replace('["box"]', '["box", "landlok"]\nworkloads = ["cpu.seive", "cpu"]'))
    message = isobench("verify", synthetic(), "--claims", own).words
    assert "claim fast: no target is called 'landlok'; did you mean landlock?" in message
    assert "claim fast: no workload is called 'cpu.seive'; did you mean cpu.sieve?" in message
    assert "'box'" not in message
    assert "'cpu'" not in message


def test_lost_records_are_reported(synthetic: Write, isobench: Callable[..., Any]) -> None:
    path = synthetic(blocks=12)
    lines = (path / "records.jsonl").read_bytes().splitlines(keepends=True)
    (path / "records.jsonl").write_bytes(b"".join(lines[: len(lines) // 2]))
    done = isobench("report", path)
    assert "records.jsonl has no records of" in (path / "report.html").read_text()
    assert "the file is damaged" in (path / "report.html").read_text()
    written = json.loads((path / "summary.json").read_text())
    assert written["run"]["complete"] is False
    assert "The run was cut short" in done.words


def test_the_claims_that_a_run_was_made_with_count(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    row = {"id": "mine", "quote": "Boxes are fast.", "kind": "equivalent", "targets": ["box"]}
    path = synthetic({("box", "cpu.sieve"): 2.0}, about={"claims": [row]})
    done = isobench("verify", path, "--fail-on", "claim")
    assert done.code == 1
    assert "(mine)" in done.words


def test_verify_says_that_no_claim_of_the_users_can_fail(
    synthetic: Write, isobench: Callable[..., Any]
) -> None:
    done = isobench("verify", synthetic(), "--fail-on", "claim")
    assert done.code == 0
    assert "no claim of yours to judge" in done.words


def test_verify_knows_no_regressions(synthetic: Write, isobench: Callable[..., Any]) -> None:
    done = isobench("verify", synthetic(), "--fail-on", "regression")
    assert done.code == 2
    assert "'regression' is none of" in done.err


def test_an_export_that_cannot_be_written_is_refused_before_measuring(
    isobench: Callable[..., Any],
) -> None:
    done = isobench("verify", "--measure", "--export-json", "nowhere/x.json")
    assert done.code == 2
    assert "nowhere does not exist" in done.err


def test_claims_and_configuration_may_be_pipes_where_a_run_is_measured(
    isobench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, somewhere: Path
) -> None:
    seen = []

    def measured(options: Any) -> None:
        registry, settings = _inputs.registry_of(options["config"])
        own = _inputs.claims_of(options["claims"], settings, options["config"])
        seen.append(([one.id for one in own], settings.run.workloads, registry.names()))
        raise UsageError("measured", hint="no more")

    monkeypatch.setattr(run_command, "measure", measured)
    monkeypatch.setattr(verify, "_selection", lambda *_: [])
    texts = (OWN, '[run]\nworkloads = ["cpu.sieve"]\n[targets.mine]\nkind = "namespaces"\n')
    ends = [os.pipe(), os.pipe()]
    for (_, writing), text in zip(ends, texts, strict=True):
        os.write(writing, text.encode())
        os.close(writing)
    (claims_pipe, config_pipe) = (f"/dev/fd/{reading}" for reading, _ in ends)
    isobench("verify", "--measure", "--claims", claims_pipe, "--config", config_pipe)
    for reading, _ in ends:
        os.close(reading)
    ((ids, workloads, names),) = seen
    assert (ids, workloads) == (["fast"], ["cpu.sieve"])
    assert "mine" in names
    assert somewhere.exists()


def test_a_run_that_verify_starts_leaves_the_help_of_run_as_it_was(
    isobench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, somewhere: Path
) -> None:
    def refused(_options: Any) -> None:
        raise UsageError("measured", hint="no more")

    monkeypatch.setattr(run_command, "measure", refused)
    # As in a new process: click has made no option of help for this command yet.
    monkeypatch.setattr(run_command.run, "_help_option", None)
    assert "measured" in isobench("verify", "--measure").err
    assert isobench("run", "-h").code == 0
    assert somewhere.exists()


def test_claims_about_what_cannot_run_here_measure_nothing(
    isobench: Callable[..., Any], somewhere: Path
) -> None:
    (somewhere / "mine.toml").write_text(OWN.replace("box", "ssh"))
    done = isobench("verify", "--measure", "--claims", "mine.toml")
    assert done.code == 3
    assert "no target of the claims can run here" in done.err
    (somewhere / "my own.toml").touch()
    done = isobench("verify", "--measure", "--claims", "mine.toml", "--config", "my own.toml")
    assert "isobench doctor ssh --config 'my own.toml'" in done.words
