"""Claims read from TOML and judged on facts: every kind, standing and mistake in a file."""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isobench.claims import (
    CellFacts,
    TargetFacts,
    judge,
    load,
    load_published,
    of_table,
    to_table,
)
from isobench.model import (
    Claim,
    ClaimKind,
    ClaimStatus,
    Direction,
    Interval,
    LimitCheck,
    Resource,
    Status,
    TargetStatus,
    Technology,
)
from isobench.model.errors import UsageError
from isobench.model.units import TargetName, WorkloadName

DOCUMENTS = Path(__file__).parents[2] / "reports" / "claims.toml"
SUPPORTED, REFUTED = ClaimStatus.SUPPORTED, ClaimStatus.REFUTED
INCONCLUSIVE, UNTESTED = ClaimStatus.INCONCLUSIVE, ClaimStatus.UNTESTED

GOOD = """
[[claims]]
id = "perf-container"
quote = "Near-native"
kind = "equivalent"
technology = "containerization"
"""


def target(
    name: str,
    status: TargetStatus = TargetStatus.MEASURED,
    technology: Technology = Technology.CONTAINERIZATION,
    relations: Mapping[str, str] | None = None,
) -> TargetFacts:
    return TargetFacts(
        name=TargetName(name), technology=technology, status=status, relations=relations or {}
    )


def cell(
    name: str,
    workload: str,
    status: Status = Status.NEAR_NATIVE,
    ratio: float | None = 1.0,
    spread: float = 0.02,
) -> CellFacts:
    interval = None
    if ratio is not None:
        interval = Interval(low=ratio - spread, high=ratio + spread, level=0.97)
    return CellFacts(
        target=TargetName(name),
        technology=Technology.CONTAINERIZATION,
        workload=WorkloadName(workload),
        status=status,
        ratio=ratio,
        interval=interval,
    )


def claim(kind: ClaimKind, *workloads: str, needs: str = "a container") -> Claim:
    return Claim(
        id="example",
        quote="An example.",
        kind=kind,
        technology="containerization",
        workloads=workloads,
        needs=needs,
    )


EQUIVALENT = claim(ClaimKind.EQUIVALENT)
SLOWER = claim(ClaimKind.ORDER)
FASTER = dataclasses.replace(SLOWER, direction=Direction.FASTER)
BOUND = dataclasses.replace(claim(ClaimKind.BOUND, "startup.cold"), below_seconds=1.0)
CHECKSUM = claim(ClaimKind.CHECKSUM)
EVIDENCE = dataclasses.replace(
    claim(ClaimKind.EVIDENCE), evidence={"kernel.boot_id": "same", "ns.pid": "unlike"}
)


# Reading


def test_the_claims_of_the_documents_load_and_are_distinguished() -> None:
    claims = load(DOCUMENTS.read_text(encoding="utf-8"), origin="claims.toml")
    known = {each.id: each for each in claims}
    assert len(known) == len(claims)
    assert known["perf-container"].kind is ClaimKind.EQUIVALENT
    assert known["kernel-container"].evidence == {
        "kernel.boot_id": "same",
        "kernel.release": "same",
        "ns.pid": "unlike",
    }
    assert known["start-container-ms"].below_seconds == 1.0
    assert known["arm-on-x86"].targets == ("qemu-user-aarch64", "qemu-aarch64")
    assert (known["start-vm-s"].above_seconds, known["start-vm-s"].below_seconds) == (1.0, 60.0)


def test_every_claim_of_the_documents_says_what_a_test_of_it_needs() -> None:
    for each in load(DOCUMENTS.read_text(encoding="utf-8"), origin="claims.toml"):
        assert each.needs, each.id
        verdict = judge(each, [], [])
        assert verdict.status is UNTESTED
        assert each.needs in verdict.sentence


def test_no_claim_of_the_documents_speaks_of_more_than_one_start_or_mixes_it_with_ratios() -> None:
    for each in load(DOCUMENTS.read_text(encoding="utf-8"), origin="claims.toml"):
        starts = [name for name in each.workloads if name.startswith("startup")]
        assert not starts or list(each.workloads) == starts
        # A start has no ratio to native worth a claim; one to another target's start has.
        about_starts = each.kind is ClaimKind.BOUND or each.reference != "native"
        assert about_starts or not starts
        assert starts or each.kind is not ClaimKind.BOUND


def test_a_claim_has_defaults_for_what_it_leaves_out() -> None:
    (found,) = load(GOOD, origin="mine.toml")
    assert found.direction is Direction.SLOWER
    assert found.workloads == ()
    assert found.needs == ""


def test_whole_seconds_are_seconds() -> None:
    text = GOOD.replace("equivalent", "bound") + 'workloads = ["startup"]\nbelow_seconds = 2\n'
    assert load(text, origin="mine.toml")[0].below_seconds == 2.0


def test_a_file_of_no_claims_has_none() -> None:
    assert load("claims = []", origin="mine.toml") == ()


def test_a_file_that_is_not_toml_is_refused_with_its_line() -> None:
    with pytest.raises(UsageError, match=r"mine\.toml:3: not TOML: "):
        load("\n\nid = \n", origin="mine.toml")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", ""),
        ("[[claim]]\nid = 'a'", ", found claim"),
        ("claims = 3", ""),
        (f"x = 1\n{GOOD}", ", found x"),
    ],
)
def test_a_file_of_something_else_is_refused(text: str, found: str) -> None:
    with pytest.raises(UsageError) as caught:
        load(text, origin="mine.toml")
    assert str(caught.value) == f"mine.toml: expected only [[claims]] tables{found}"
    assert "[[claims]]" in caught.value.hint


@pytest.mark.parametrize(
    ("change", "line", "key"),
    [
        ('kind = "evidnce"', 5, "kind"),
        ('technology = "container"', 6, "technology"),
        ("quote = 3", 4, "quote"),
        ('quote = " "', 4, "quote"),
        ('id = "Perf Container"', 3, "id"),
        ('marging = "5 %"', 7, "marging"),
        ("below_seconds = 1.0", 7, "below_seconds"),
        ('workloads = "cpu"', 7, "workloads"),
        ('workloads = ["cpu", 3]', 7, "workloads"),
        ('direction = "sideways"', 7, "direction"),
        ('evidence = { "ns.pid" = "unlike" }', 7, "evidence"),
        ('[claims.evidence]\n"ns.pid" = "unlike"', 7, "evidence"),
        ('evidence."ns.pid" = 3', 7, "evidence"),
    ],
)
def test_a_mistake_is_pointed_at_with_file_line_claim_and_key(
    change: str, line: int, key: str
) -> None:
    stays = [each for each in GOOD.splitlines() if each.partition(" ")[0] != key]
    at = line - 1 if len(stays) < len(GOOD.splitlines()) else len(stays)
    text = "\n".join([*stays[:at], change, *stays[at:]])
    with pytest.raises(UsageError) as caught:
        load(text, origin="mine.toml")
    name = "Perf Container" if key == "id" else "perf-container"
    assert str(caught.value).startswith(f"mine.toml:{line}: claim {name}: {key} ")
    assert "below_seconds" in caught.value.hint


def test_a_mistake_in_an_earlier_claim_is_not_looked_for_in_a_later_one() -> None:
    other = GOOD.replace("perf-container", "other")
    with pytest.raises(UsageError, match=r"^mine\.toml:5: claim perf-container: kind "):
        load(GOOD.replace("equivalent", "equal") + other, origin="mine.toml")
    headless = GOOD.replace('quote = "Near-native"\n', "")
    with pytest.raises(UsageError, match=r"^mine\.toml:2: claim perf-container: quote "):
        load(headless + other, origin="mine.toml")


@pytest.mark.parametrize("key", ["id", "quote", "kind", "technology"])
def test_a_key_that_is_missing_is_named_at_the_head_of_its_claim(key: str) -> None:
    text = "\n".join(each for each in GOOD.splitlines() if each.partition(" ")[0] != key)
    with pytest.raises(UsageError) as caught:
        load(GOOD.replace("perf-container", "first") + text, origin="mine.toml")
    name = "number 2" if key == "id" else "perf-container"
    assert str(caught.value).startswith(f"mine.toml:8: claim {name}: {key} ")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('kind = "bound"\nworkloads = ["startup"]', "below_seconds and"),
        ('kind = "bound"\nworkloads = ["startup"]\nbelow_seconds = 0', "below_seconds must"),
        ('kind = "bound"\nbelow_seconds = 1.0', "workloads must"),
        ('kind = "evidence"', "evidence must list facts"),
    ],
)
def test_a_kind_without_what_it_takes_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load(GOOD.replace('kind = "equivalent"', text), origin="mine.toml")


def test_an_evidence_claim_without_facts_may_stand_if_it_says_what_it_needs() -> None:
    text = GOOD.replace('kind = "equivalent"', 'kind = "evidence"\nneeds = "two machines"')
    (found,) = load(text, origin="mine.toml")
    verdict = judge(found, [], [target("docker")])
    assert verdict.status is UNTESTED
    assert verdict.sentence == "Not tested: isobench has no test for it yet; needs two machines."


def test_two_claims_of_one_id_are_refused_at_the_second() -> None:
    with pytest.raises(UsageError, match=r"mine\.toml:9: claim perf-container: id is used"):
        load(GOOD + GOOD, origin="mine.toml")


def test_where_claims_are_spelled_inline_a_mistake_is_named_without_a_line() -> None:
    with pytest.raises(UsageError, match=r"^mine\.toml: claim a: quote "):
        load('claims = [{ id = "a", kind = "order", technology = "sandbox" }]', origin="mine.toml")


def test_a_claim_that_is_no_table_is_refused_by_number() -> None:
    with pytest.raises(UsageError, match=r"^mine\.toml: claim number 2: claims must be tables"):
        load(f"claims = [{{ {', '.join(GOOD.split(chr(10))[2:-1])} }}, 3]", origin="mine.toml")


# Near-native


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (Status.NEAR_NATIVE, SUPPORTED),
        (Status.SLOWER, REFUTED),
        (Status.FASTER, INCONCLUSIVE),
        (Status.INCONCLUSIVE, INCONCLUSIVE),
        (Status.UNPROVEN, INCONCLUSIVE),
    ],
)
def test_a_claim_of_near_native_follows_the_status_of_its_cell(
    status: Status, expected: ClaimStatus
) -> None:
    verdict = judge(EQUIVALENT, [cell("docker", "cpu.sieve", status)], [target("docker")])
    assert verdict.status is expected
    assert verdict.axes == {"cpu": expected}
    assert verdict.claim is EQUIVALENT
    assert "1.00x native [0.98, 1.02]" in verdict.sentence
    assert ("more blocks" in verdict.sentence) == (expected is INCONCLUSIVE)


def test_each_class_is_an_axis_and_one_refuted_axis_refutes_the_claim() -> None:
    verdict = judge(
        EQUIVALENT,
        [
            cell("docker", "cpu.sieve"),
            cell("docker", "cpu.matmul", ratio=1.02),
            cell("podman", "cpu.sieve"),
            cell("docker", "syscall.getppid", Status.SLOWER, 1.62),
            cell("podman", "syscall.getppid"),
            cell("docker", "io.fsync", Status.INCONCLUSIVE, 1.04),
            cell("podman", "io.fsync"),
        ],
        [target("docker"), target("podman")],
    )
    assert verdict.status is REFUTED
    assert verdict.axes == {"cpu": SUPPORTED, "syscall": REFUTED, "io": INCONCLUSIVE}
    assert verdict.sentence == (
        "cpu supported: all 3 cells of docker and podman (nearest to the limit: "
        "docker cpu.matmul 1.02x native [1.00, 1.04] (near-native)); "
        "syscall refuted: docker syscall.getppid 1.62x native [1.60, 1.64] (slower); "
        "io inconclusive: docker io.fsync 1.04x native [1.02, 1.06] (inconclusive)."
    )


def test_many_refuting_cells_are_named_worst_first_and_counted() -> None:
    cells = [cell("docker", f"io.w{n}", Status.SLOWER, 1.0 + n) for n in range(1, 6)]
    said = judge(EQUIVALENT, cells, [target("docker")]).sentence
    assert said.startswith("io refuted: docker io.w5 6.00x native")
    assert "io.w3" in said
    assert "io.w2" not in said
    assert said.endswith(", and 2 more.")
    said = judge(EQUIVALENT, cells[:3], [target("docker")]).sentence
    assert said.endswith("io.w1 2.00x native [1.98, 2.02] (slower).")


def test_a_cell_without_ratio_or_interval_is_reported_as_far_as_it_is_known() -> None:
    bare = dataclasses.replace(cell("docker", "cpu.sieve"), interval=None)
    assert judge(EQUIVALENT, [bare], [target("docker")]).sentence == (
        "cpu supported: docker cpu.sieve 1.00x native (near-native)."
    )
    blind = cell("docker", "cpu.sieve", Status.UNPROVEN, None)
    assert judge(EQUIVALENT, [blind], [target("docker")]).sentence == (
        "cpu inconclusive: docker cpu.sieve without a ratio (unproven); "
        "more blocks, or the advice of these cells' doubts, would decide it."
    )


def test_a_class_requested_and_not_measured_keeps_the_claim_from_being_supported() -> None:
    verdict = judge(
        claim(ClaimKind.EQUIVALENT, "cpu", "io"), [cell("docker", "cpu.sieve")], [target("docker")]
    )
    assert verdict.axes == {"cpu": SUPPORTED, "io": UNTESTED}
    assert verdict.status is INCONCLUSIVE
    assert "io untested: docker has no such cell" in verdict.sentence
    assert verdict.sentence.endswith("a full test needs a container.")
    assert "more blocks" not in verdict.sentence


def test_a_measured_target_without_the_cell_keeps_its_axis_from_being_supported() -> None:
    verdict = judge(
        dataclasses.replace(EQUIVALENT, needs=""),
        [cell("docker", "cpu.sieve")],
        [target("docker"), target("podman")],
    )
    assert verdict.axes == {"cpu": INCONCLUSIVE}
    assert verdict.sentence == "cpu inconclusive: podman has no such cell."


NAMED = {
    ClaimKind.EQUIVALENT: {},
    ClaimKind.ORDER: {},
    ClaimKind.BOUND: {"below_seconds": 5.0},
    ClaimKind.CHECKSUM: {},
}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize("by", ["technology", "targets"])
def test_a_workload_that_a_claim_names_must_be_measured_to_support_it(
    kind: ClaimKind, by: str
) -> None:
    status = Status.SLOWER if kind is ClaimKind.ORDER else Status.NEAR_NATIVE
    one = dataclasses.replace(
        cell("docker", "cpu.sieve", status), upper_seconds=1.0, lower_seconds=0.5, checks_equal=True
    )
    names = ("cpu.sieve", "cpu.sha256", "cpu.seive")
    found = dataclasses.replace(claim(kind, *names, needs=""), **NAMED[kind])
    if by == "targets":
        found = dataclasses.replace(found, technology="", targets=(TargetName("docker"),))
    verdict = judge(found, [one], [target("docker")])
    noun = "checksum" if kind is ClaimKind.CHECKSUM else "cell"
    lacking = f"docker has no {noun} of cpu.sha256 and cpu.seive"
    assert verdict.status is INCONCLUSIVE
    assert verdict.sentence == f"cpu inconclusive: {lacking}."
    assert verdict.change == "measuring cpu.sha256 and cpu.seive on docker"
    others = [dataclasses.replace(one, workload=WorkloadName(name)) for name in names[1:]]
    assert judge(found, [one, *others], [target("docker")]).status is SUPPORTED
    of_class = dataclasses.replace(found, workloads=("cpu",))
    assert judge(of_class, [one], [target("docker")]).status is SUPPORTED
    elsewhere = dataclasses.replace(found, when="workload != 'cpu.sha256' and workload !~ 'seive'")
    assert judge(elsewhere, [one], [target("docker")]).status is SUPPORTED


def test_a_named_workload_must_be_measured_on_each_target() -> None:
    cells = [cell("docker", "cpu.a"), cell("docker", "cpu.b"), cell("podman", "cpu.a")]
    verdict = judge(
        claim(ClaimKind.EQUIVALENT, "cpu.a", "cpu.b"), cells, [target("docker"), target("podman")]
    )
    assert verdict.status is INCONCLUSIVE
    assert "cpu inconclusive: podman has no cell of cpu.b; " in verdict.sentence


def test_a_cell_refutes_a_claim_whatever_else_it_names() -> None:
    cells = [cell("docker", "cpu.a", Status.SLOWER, 2.0)]
    found = dataclasses.replace(
        claim(ClaimKind.EQUIVALENT, "cpu.a", "cpu.b"),
        technology="",
        targets=(TargetName("docker"), TargetName("podman")),
    )
    assert judge(found, cells, [target("docker")]).status is REFUTED


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ([], "no podman or dockr in this run"),
        (
            [target("podman", TargetStatus.UNAVAILABLE)],
            "no dockr in this run, no podman was measured (podman unavailable)",
        ),
    ],
)
def test_a_target_that_a_claim_names_must_be_measured_to_support_it(
    others: list[TargetFacts], words: str
) -> None:
    names = tuple(map(TargetName, ("docker", "podman", "dockr")))
    seen = dataclasses.replace(
        target("docker", relations={"kernel.boot_id": "same", "ns.pid": "unlike"}),
        limits=[limit(resource, held=True) for resource in LIMITED.limits],
    )
    cells = [
        dataclasses.replace(
            cell("docker", workload, status, ratio), upper_seconds=0.1, checks_equal=True
        )
        for workload, status, ratio in (
            ("cpu.a", Status.NEAR_NATIVE, 1.0),
            ("io.a", Status.SLOWER, 2.0),
            ("startup.cold", Status.SLOWER, 9.0),
        )
    ]
    near = claim(ClaimKind.EQUIVALENT, "cpu")
    slower = claim(ClaimKind.ORDER, "io", "startup.cold")
    for found in (near, slower, BOUND, CHECKSUM, EVIDENCE, LIMITED):
        alone = dataclasses.replace(found, technology="", targets=names[:1])
        assert judge(alone, cells, [seen, *others]).status is SUPPORTED, found.kind
        named = dataclasses.replace(found, technology="", targets=names)
        verdict = judge(named, cells, [seen, *others])
        assert verdict.status is INCONCLUSIVE, found.kind
        assert f" inconclusive: {words}" in verdict.sentence, found.kind
        assert verdict.change == "measuring podman and dockr"
        chosen = dataclasses.replace(named, when="target == 'docker'")
        assert judge(chosen, cells, [seen, *others]).status is SUPPORTED, found.kind
        # Beside a technology names narrow it, and it stands for what was measured of it.
        narrowed = dataclasses.replace(found, targets=names)
        verdict = judge(narrowed, cells, [seen, *others])
        assert verdict.status is SUPPORTED, found.kind
        assert verdict.sentence.endswith("; this run does not test it on podman and dockr.")


def test_a_target_that_sets_no_limits_must_set_them_if_a_claim_names_it() -> None:
    both = [limit(resource, held=True) for resource in LIMITED.limits]
    names = (TargetName("box"), TargetName("jar"))
    named = dataclasses.replace(LIMITED, technology="", targets=names)
    verdict = judge(named, [], [limited("box", *both), target("jar")])
    assert verdict.status is INCONCLUSIVE
    assert "cpu inconclusive: no limits can be set in jar here" in verdict.sentence


def test_the_control_supports_no_claim_that_names_it() -> None:
    names = (TargetName("docker"), TargetName("native#2"))
    named = dataclasses.replace(EQUIVALENT, technology="", targets=names)
    verdict = judge(named, [cell("docker", "cpu.a")], [target("docker"), target("native#2")])
    assert verdict.status is INCONCLUSIVE
    assert "native#2 is no target of a claim" in verdict.sentence


def test_what_was_not_measured_is_named_before_cells_that_are_open() -> None:
    cells = [cell("docker", f"cpu.w{n}", Status.INCONCLUSIVE, 1.0 + n) for n in range(4)]
    names = (TargetName("docker"), TargetName("podman"))
    named = dataclasses.replace(EQUIVALENT, technology="", targets=names)
    said = judge(named, cells, [target("docker")]).sentence
    assert said.startswith("cpu inconclusive: no podman in this run, docker cpu.w3")


def test_a_claim_with_a_condition_says_what_it_needs_in_whole_words() -> None:
    (found,) = load(
        "[[claims]]\nid = 'a'\nwhen = \"target == 'nope'\"\nassert = { kind = 'equivalent' }",
        origin="mine.toml",
    )
    verdict = judge(found, [cell("docker", "cpu.a")], [target("docker")])
    assert verdict.sentence == (
        "Not tested: no such target in this run;"
        " needs a run that measures cells on targets where target == 'nope'."
    )
    assert verdict.change == "measuring cells on targets where target == 'nope'"


def test_only_cells_that_a_claim_selects_count() -> None:
    cells = [
        cell("docker", "cpu.sieve"),
        cell("docker", "cpu.matmul", Status.SLOWER, 2.0),
        cell("docker", "cpufreq.scale", Status.SLOWER, 2.0),
    ]
    one = judge(claim(ClaimKind.EQUIVALENT, "cpu.sieve"), cells, [target("docker")])
    assert one.axes == {"cpu": SUPPORTED}
    whole = judge(claim(ClaimKind.EQUIVALENT, "cpu"), cells, [target("docker")])
    assert whole.axes == {"cpu": REFUTED}
    assert "cpufreq" not in whole.sentence


@pytest.mark.parametrize("status", ["unavailable", "failed", "unproven"])
def test_a_target_that_is_not_what_its_name_says_does_not_count(
    status: Literal["unavailable", "failed", "unproven"],
) -> None:
    cells = [cell("docker", "cpu.sieve", Status.SLOWER, 2.0)]
    verdict = judge(EQUIVALENT, cells, [target("docker", status)])
    assert verdict.status is UNTESTED
    assert verdict.axes == {}
    assert verdict.sentence == (
        f"Not tested: no containerization target was measured (docker {status}); needs a container."
    )


def test_targets_of_other_technologies_and_the_control_are_no_subjects() -> None:
    others = [
        target("native#2", technology=Technology.CONTAINERIZATION),
        target("bubblewrap", technology=Technology.SANDBOX),
    ]
    cells = [cell(each.name, "cpu.sieve", Status.SLOWER, 2.0) for each in others]
    verdict = judge(EQUIVALENT, cells, others)
    assert verdict.status is UNTESTED
    assert verdict.sentence.startswith("Not tested: no containerization target in this run;")


def test_named_targets_narrow_a_technology_or_stand_in_its_place() -> None:
    cells = [cell("docker", "cpu.a"), cell("podman", "cpu.a", Status.SLOWER, 2.0)]
    both = [target("docker"), target("podman")]
    narrowed = dataclasses.replace(EQUIVALENT, targets=(TargetName("docker"),))
    assert judge(narrowed, cells, both).status is SUPPORTED
    alone = dataclasses.replace(narrowed, technology="")
    assert judge(alone, cells, both).status is SUPPORTED
    assert judge(alone, cells, both[1:]).sentence.startswith("Not tested: no docker in this run;")


@pytest.mark.parametrize(
    ("found", "needs"),
    [
        (EQUIVALENT, "containerization targets"),
        (claim(ClaimKind.EQUIVALENT, "cpu", "io"), "cpu and io on containerization targets"),
        (
            dataclasses.replace(EVIDENCE, targets=(TargetName("docker"), TargetName("podman"))),
            "kernel.boot_id and ns.pid on docker and podman",
        ),
    ],
)
def test_a_claim_that_names_no_needs_is_shown_by_its_fields(found: Claim, needs: str) -> None:
    said = judge(dataclasses.replace(found, needs=""), [], []).sentence
    assert said.endswith(f"needs a run that measures {needs}.")


# Order


@pytest.mark.parametrize(
    ("found", "status", "ratio", "expected"),
    [
        (SLOWER, Status.SLOWER, 8.0, SUPPORTED),
        (SLOWER, Status.FASTER, 0.8, REFUTED),
        (SLOWER, Status.NEAR_NATIVE, 1.0, REFUTED),
        (SLOWER, Status.NEAR_NATIVE, 1.03, INCONCLUSIVE),
        (SLOWER, Status.NEAR_NATIVE, 0.97, REFUTED),
        (SLOWER, Status.NEAR_NATIVE, None, REFUTED),
        (SLOWER, Status.INCONCLUSIVE, 1.05, INCONCLUSIVE),
        (SLOWER, Status.UNPROVEN, 8.0, INCONCLUSIVE),
        (FASTER, Status.FASTER, 0.8, SUPPORTED),
        (FASTER, Status.SLOWER, 8.0, REFUTED),
        (FASTER, Status.NEAR_NATIVE, 0.97, INCONCLUSIVE),
        (FASTER, Status.NEAR_NATIVE, 1.03, REFUTED),
    ],
)
def test_a_claim_of_order_wants_its_direction_in_every_cell(
    found: Claim, status: Status, ratio: float | None, expected: ClaimStatus
) -> None:
    verdict = judge(found, [cell("docker", "cpu.sieve", status, ratio)], [target("docker")])
    assert verdict.status is expected


def test_a_supported_order_names_the_cell_closest_to_native() -> None:
    cells = [
        cell("docker", "cpu.a", Status.SLOWER, 28.4),
        cell("docker", "cpu.b", Status.SLOWER, 2.41),
    ]
    said = judge(SLOWER, cells, [target("docker")]).sentence
    assert "nearest to the limit: docker cpu.b 2.41x native" in said
    assert "28.4" not in said


# Bounds


@pytest.mark.parametrize(
    ("lower", "upper", "status", "expected"),
    [
        (0.38, 0.47, Status.SLOWER, SUPPORTED),
        (0.38, 0.47, Status.INCONCLUSIVE, SUPPORTED),
        (None, 0.47, Status.SLOWER, SUPPORTED),
        (0.9, 1.2, Status.SLOWER, INCONCLUSIVE),
        (0.9, 1.0, Status.SLOWER, INCONCLUSIVE),
        (1.0, 1.2, Status.SLOWER, REFUTED),
        (1.1, None, Status.SLOWER, REFUTED),
        (None, 1.2, Status.SLOWER, INCONCLUSIVE),
        (None, None, Status.SLOWER, INCONCLUSIVE),
        # The noise of ratios is no matter of absolute times.
        (0.38, 0.47, Status.UNPROVEN, SUPPORTED),
        (1.1, 1.2, Status.UNPROVEN, REFUTED),
    ],
)
def test_a_bound_holds_or_falls_with_the_interval_of_the_median(
    lower: float | None, upper: float | None, status: Status, expected: ClaimStatus
) -> None:
    start = dataclasses.replace(
        cell("docker", "startup.cold", status, 400.0), lower_seconds=lower, upper_seconds=upper
    )
    other = dataclasses.replace(start, workload=WorkloadName("startup.warm"), upper_seconds=9.0)
    verdict = judge(BOUND, [start, other], [target("docker")])
    assert verdict.status is expected
    assert verdict.axes == {"startup": expected}
    assert "startup.warm" not in verdict.sentence
    is_unproven = dataclasses.replace(start, is_unproven=True)
    assert judge(BOUND, [is_unproven], [target("docker")]).status is INCONCLUSIVE


def test_the_words_of_a_bound_give_median_bounds_and_limit() -> None:
    start = dataclasses.replace(
        cell("docker", "startup.cold", Status.UNPROVEN),
        is_unproven=True,
        value_seconds=0.4204,
        lower_seconds=0.00042,
        upper_seconds=4.2e-7,
    )
    assert judge(BOUND, [start], [target("docker")]).sentence.startswith(
        "startup inconclusive: docker startup.cold median 420 ms (it is at least 420"
        " \N{MICRO SIGN}s and at most 420 ns) (unproven), claimed below 1 s;"
    )
    nothing = judge(BOUND, [cell("docker", "startup.cold", ratio=None)], [target("docker")])
    assert "docker startup.cold without a figure, claimed below 1 s" in nothing.sentence


def test_the_slowest_start_is_the_closest_to_a_bound() -> None:
    starts = [
        dataclasses.replace(cell(name, "startup.cold"), upper_seconds=upper)
        for name, upper in (("docker", 0.4), ("podman", 0.9))
    ]
    said = judge(BOUND, starts, [target("docker"), target("podman")]).sentence
    assert (
        "all 2 cells of docker and podman (nearest to the limit: podman startup.cold at most 900 ms"
        in said
    )


# Checksums


def test_the_same_answers_support_and_one_other_answer_refutes() -> None:
    right = dataclasses.replace(cell("docker", "cpu.sieve"), checks_equal=True)
    wrong = dataclasses.replace(cell("docker", "cpu.matmul"), checks_equal=False)
    silent = cell("docker", "startup.cold")
    assert judge(CHECKSUM, [right, silent], [target("docker")]).axes == {"cpu": SUPPORTED}
    verdict = judge(CHECKSUM, [right, wrong, silent], [target("docker")])
    assert verdict.status is REFUTED
    assert verdict.sentence == ("cpu refuted: docker cpu.matmul has another checksum than native.")


def test_cells_without_checksums_test_no_answers() -> None:
    assert judge(CHECKSUM, [cell("docker", "cpu.a")], [target("docker")]).status is UNTESTED


def test_an_answer_counts_whatever_the_speed() -> None:
    right = dataclasses.replace(
        cell("docker", "cpu.sieve", Status.UNPROVEN, None), checks_equal=True
    )
    verdict = judge(CHECKSUM, [right], [target("docker")])
    assert verdict.status is SUPPORTED
    assert verdict.sentence == "cpu supported: docker cpu.sieve has native's checksum."


# Evidence


@pytest.mark.parametrize(
    ("relations", "expected"),
    [
        ({"kernel.boot_id": "same", "ns.pid": "unlike"}, SUPPORTED),
        ({"kernel.boot_id": "unlike", "ns.pid": "unlike"}, REFUTED),
        ({"kernel.boot_id": "unlike"}, REFUTED),
        ({"kernel.boot_id": "same"}, INCONCLUSIVE),
        ({"kernel.boot_id": "same", "ns.pid": "unknown"}, INCONCLUSIVE),
        ({"kernel.boot_id": "same", "ns.pid": "pid:[4026]"}, INCONCLUSIVE),
        ({"kernel.boot_id": "unknown"}, UNTESTED),
        ({}, UNTESTED),
    ],
)
def test_evidence_is_weighed_fact_by_fact(relations: dict[str, str], expected: ClaimStatus) -> None:
    verdict = judge(EVIDENCE, [], [target("docker", relations=relations)])
    assert verdict.status is expected
    assert verdict.axes == {}


def test_one_target_refutes_evidence_by_name() -> None:
    good = {"kernel.boot_id": "same", "ns.pid": "unlike"}
    verdict = judge(
        EVIDENCE,
        [],
        [target("docker", relations=good), target("podman", relations=good | {"ns.pid": "same"})],
    )
    assert verdict.status is REFUTED
    assert verdict.sentence == (
        "kernel.boot_id supported: the host's own in docker and podman; "
        "ns.pid refuted: the host's own in podman, claimed unlike the host's."
    )


@pytest.mark.parametrize(
    ("seen", "expected"), [("true", SUPPORTED), ("false", REFUTED), ("same", INCONCLUSIVE)]
)
def test_evidence_may_be_a_value(seen: str, expected: ClaimStatus) -> None:
    found = dataclasses.replace(EVIDENCE, evidence={"host.rootless": "true"})
    verdict = judge(found, [], [target("podman", relations={"host.rootless": seen})])
    assert verdict.status is expected


@pytest.mark.parametrize("same", ["same", "Same", "SAME"])
@pytest.mark.parametrize("unlike", ["unlike", "Unlike"])
def test_capital_letters_do_not_matter_in_what_evidence_claims(same: str, unlike: str) -> None:
    stated = dataclasses.replace(
        EVIDENCE, evidence={"kernel.boot_id": same, "ns.pid": unlike, "host.engine.daemon": "None"}
    )
    shown = {"kernel.boot_id": "same", "ns.pid": "unlike", "host.engine.daemon": "none"}
    seen = dataclasses.replace(
        target("docker", relations=shown), values={"kernel.boot_id": "5", "ns.pid": "pid:[1]"}
    )
    verdict = judge(stated, [], [seen])
    assert verdict.status is SUPPORTED
    assert "kernel.boot_id supported: the host's own in docker" in verdict.sentence
    assert verdict.change == "kernel.boot_id being unlike the host's in docker"
    other = dataclasses.replace(seen, relations=shown | {"kernel.boot_id": "unlike"})
    verdict = judge(stated, [], [other])
    assert verdict.status is REFUTED
    assert "claimed the host's own" in verdict.sentence


# All kinds

KINDS = st.sampled_from([EQUIVALENT, SLOWER, FASTER, BOUND, CHECKSUM, EVIDENCE])
NAMES = st.sampled_from(["docker", "podman", "native#2"])
CELLS = st.builds(
    CellFacts,
    target=NAMES.map(TargetName),
    technology=st.just(Technology.CONTAINERIZATION),
    workload=st.sampled_from(["cpu.a", "io.a", "startup.cold"]).map(WorkloadName),
    status=st.sampled_from(Status),
    ratio=st.none() | st.floats(0.001, 1e6),
    upper_seconds=st.none() | st.floats(1e-9, 100),
    lower_seconds=st.none() | st.floats(1e-9, 100),
    checks_equal=st.none() | st.booleans(),
)
TARGETS = st.builds(
    TargetFacts,
    name=NAMES.map(TargetName),
    technology=st.sampled_from([Technology.CONTAINERIZATION, Technology.SANDBOX]),
    status=st.sampled_from(["measured", "unavailable", "failed", "unproven"]),
    relations=st.dictionaries(
        st.sampled_from(["kernel.boot_id", "ns.pid"]),
        st.sampled_from(["same", "unlike", "unknown", "pid:[1]"]),
    ),
)


@given(KINDS, st.lists(CELLS), st.lists(TARGETS, unique_by=lambda each: each.name))
def test_a_claim_follows_from_its_axes_and_nothing_unmeasured_moves_it(
    found: Claim, cells: list[CellFacts], targets: list[TargetFacts]
) -> None:
    verdict = judge(found, cells, targets)
    if not any(each.status == "measured" for each in targets):
        assert verdict.status is UNTESTED
    if verdict.status is SUPPORTED:
        assert set(verdict.axes.values()) <= {SUPPORTED}
    if REFUTED in verdict.axes.values():
        assert verdict.status is REFUTED
    heard = {
        each.name
        for each in targets
        if each.status == "measured"
        and each.technology is Technology.CONTAINERIZATION
        and each.name != "native#2"
    }
    kept = [each for each in cells if each.target in heard]
    assert judge(found, kept, targets) == verdict
    assert "None" not in verdict.sentence
    assert re.fullmatch(r"[a-zN][^\n]*[^.]\.", verdict.sentence)


# Claims of a user's own


OWN = """
[[claims]]
id = "docker-cpu"
when = "workload =~ '^cpu\\\\.' and target == 'docker'"
assert = { kind = "equivalent", margin = "2%" }
"""


def test_a_claim_may_be_a_condition_and_what_is_asserted_of_it() -> None:
    (found,) = load(OWN, origin="mine.toml")
    assert (found.kind, found.margin, found.level) == (ClaimKind.EQUIVALENT, 0.02, 0.95)
    assert found.quote == (
        "where workload =~ '^cpu\\.' and target == 'docker': is equivalent to native within 2 %"
    )
    verdict = judge(
        found,
        [
            cell("docker", "cpu.sieve"),
            cell("podman", "cpu.sieve", Status.SLOWER, 3.0),
            cell("docker", "io.fsync", Status.SLOWER, 3.0),
        ],
        [target("docker"), target("podman")],
    )
    assert verdict.axes == {"cpu": SUPPORTED}


@pytest.mark.parametrize(
    ("change", "line", "said"),
    [
        ('assert = { kind = "equivalent", marging = "5%" }', 5, "marging is not a key"),
        ('assert = { kind = "equivalent", margin = "5" }', 5, "margin must be a share"),
        ('assert = { kind = "equivalent", margin = "105%" }', 5, "margin must be a share"),
        ('assert = { kind = "equivalent", margin = true }', 5, "margin must be a share"),
        ('assert = { kind = "bound", below_ratio = 2, above_seconds = 1 }', 5, "two bounds"),
        ('assert = { kind = "bound", below_ratio = 1, above_ratio = 2 }', 5, "ends of a range"),
        ('assert = { kind = "bound", below_ratio = 2, margin = 0.1 }', 5, "margin goes with"),
        ('assert = { kind = "bound", below_ratio = 2, quantile = 0.9 }', 5, "quantile goes"),
        ("assert = 3", 5, "assert must be a table"),
        ('kind = "order"\nassert = { kind = "order" }', 5, "kind is given both"),
    ],
)
def test_a_mistake_in_what_is_asserted_is_pointed_at(change: str, line: int, said: str) -> None:
    text = OWN.replace('assert = { kind = "equivalent", margin = "2%" }', change)
    with pytest.raises(UsageError) as caught:
        load(text, origin="mine.toml")
    assert str(caught.value).startswith(f"mine.toml:{line}: claim docker-cpu: ")
    assert said in str(caught.value)


def test_a_broken_condition_is_pointed_at() -> None:
    with pytest.raises(
        UsageError, match=r"^mine\.toml:4: claim docker-cpu: when is not a condition"
    ):
        load(OWN.replace("=~", "~="), origin="mine.toml")


def test_claims_kept_in_a_run_are_read_back_as_they_were() -> None:
    documents = load(DOCUMENTS.read_text(encoding="utf-8"), origin="claims.toml")
    own = load(OWN, origin="claims.toml")
    rows = to_table((*documents, *own))
    assert of_table(rows, origin="claims.toml") == (*documents, *own)


def test_a_ratio_is_bounded_from_either_side_by_the_bounds_at_the_claims_level() -> None:
    near = dataclasses.replace(
        cell("docker", "cpu.sieve", ratio=1.5), sided=Interval(low=1.4, high=1.6, level=0.9)
    )
    base = claim(ClaimKind.BOUND, "cpu")
    for bound, expected in (
        ({"below_ratio": 1.7}, SUPPORTED),
        ({"below_ratio": 1.3}, REFUTED),
        ({"below_ratio": 1.5}, INCONCLUSIVE),
        ({"above_ratio": 1.3}, SUPPORTED),
        ({"above_ratio": 1.7}, REFUTED),
        ({"above_ratio": 1.5}, INCONCLUSIVE),
    ):
        stated = dataclasses.replace(base, **bound)
        verdict = judge(stated, [near], [target("docker")])
        assert verdict.status is expected, bound
        assert "claimed" in verdict.sentence
        blind = dataclasses.replace(near, sided=None)
        assert judge(stated, [blind], [target("docker")]).status is INCONCLUSIVE


def test_a_time_may_be_bounded_from_below() -> None:
    slow = dataclasses.replace(
        cell("docker", "startup.cold"), value_seconds=3.0, lower_seconds=2.9, upper_seconds=3.1
    )
    stated = dataclasses.replace(claim(ClaimKind.BOUND, "startup.cold"), above_seconds=1.0)
    verdict = judge(stated, [slow], [target("docker")])
    assert verdict.status is SUPPORTED
    assert (
        "median 3.00 s (it is at least 2.90 s and at most 3.10 s), claimed above 1 s"
        in verdict.sentence
    )
    stated = dataclasses.replace(stated, above_seconds=5.0, quantile=0.95)
    verdict = judge(stated, [slow], [target("docker")])
    assert verdict.status is REFUTED
    assert "p95 3.00 s" in verdict.sentence


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (2.9, 3.1, SUPPORTED),
        (0.1, 0.2, REFUTED),
        (61.0, 70.0, REFUTED),
        (0.9, 1.1, INCONCLUSIVE),
        (50.0, 70.0, INCONCLUSIVE),
        (None, 3.1, INCONCLUSIVE),
        (2.9, None, INCONCLUSIVE),
    ],
)
def test_a_range_needs_both_ends_and_falls_with_one(
    low: float | None, high: float | None, expected: ClaimStatus
) -> None:
    base = claim(ClaimKind.BOUND, "startup.cold")
    stated = dataclasses.replace(base, above_seconds=1.0, below_seconds=60.0)
    start = dataclasses.replace(
        cell("docker", "startup.cold"), lower_seconds=low, upper_seconds=high
    )
    verdict = judge(stated, [start], [target("docker")])
    assert verdict.status is expected
    assert "claimed above 1 s and below 1 min" in verdict.sentence
    assert "docker startup.cold" in verdict.change
    assert verdict.change.endswith("above 1 s and below 1 min")


def test_the_cell_nearest_to_either_end_of_a_range_is_the_closest() -> None:
    base = claim(ClaimKind.BOUND, "cpu")
    stated = dataclasses.replace(base, above_ratio=1.0, below_ratio=3.0)
    cells = [
        dataclasses.replace(
            cell(name, "cpu.sieve", ratio=ratio),
            sided=Interval(low=ratio - 0.1, high=ratio + 0.1, level=0.9),
        )
        for name, ratio in (("docker", 1.2), ("podman", 2.5))
    ]
    verdict = judge(stated, cells, [target("docker"), target("podman")])
    assert verdict.status is SUPPORTED
    assert "nearest to the limit: docker cpu.sieve 1.20x" in verdict.sentence


def test_a_claim_that_compares_reports_that_nothing_to_compare_with_was_measured() -> None:
    against = dataclasses.replace(
        claim(ClaimKind.ORDER, "startup.cold"), reference="virtualization"
    )
    guest = target("kvm", TargetStatus.UNAVAILABLE, Technology.VIRTUALIZATION)
    for others, reason in (
        ([], "no virtualization target to compare with in this run"),
        ([guest], "no virtualization target to compare with was measured (kvm unavailable)"),
    ):
        verdict = judge(against, [], [target("docker"), *others])
        assert verdict.status is UNTESTED
        assert verdict.sentence == f"Not tested: {reason}; needs a container."


def test_what_would_change_a_status_is_reported() -> None:
    docker = [target("docker")]
    near = dataclasses.replace(
        cell("docker", "cpu.sieve"), sided=Interval(low=0.99, high=1.01, level=0.9)
    )
    assert judge(EQUIVALENT, [near], docker).change == (
        "the 90 % interval of docker cpu.sieve leaving [0.95, 1.05]"
    )
    slower = [cell("docker", f"cpu.w{n}", Status.SLOWER, 1.0 + n) for n in (1, 2)]
    assert judge(EQUIVALENT, slower, docker).change == (
        "the interval of docker cpu.w2 coming inside [0.95, 1.05], and the same for 1 more"
    )
    unsure = dataclasses.replace(
        cell("docker", "cpu.sieve", Status.INCONCLUSIVE), advice="about 34 blocks would decide"
    )
    assert judge(EQUIVALENT, [unsure], docker).change == (
        "docker cpu.sieve: about 34 blocks would decide"
    )
    assert judge(EQUIVALENT, [], docker).change == "a container"


def test_a_target_compared_with_another_is_reported_with_it() -> None:
    against = dataclasses.replace(claim(ClaimKind.ORDER, "startup.cold"), reference="kvm")
    faster = dataclasses.replace(
        cell("docker", "startup.cold", Status.SLOWER, 1.5), reference="kvm"
    )
    verdict = judge(against, [faster], [target("docker")])
    assert verdict.status is SUPPORTED
    assert "docker startup.cold 1.50x kvm [1.48, 1.52] (slower)" in verdict.sentence
    assert judge(against, [], [target("docker")]).status is UNTESTED


def test_published_figures_name_claims_that_exist() -> None:
    text = (DOCUMENTS.parent / "published.toml").read_text(encoding="utf-8")
    figures = load_published(text, origin="published.toml")
    ids = {each.id for each in load(DOCUMENTS.read_text(encoding="utf-8"), origin="claims.toml")}
    assert figures
    assert {name for figure in figures for name in figure.claims} <= ids
    with pytest.raises(UsageError, match=r"^published\.toml, figure 1: .*`source`"):
        load_published(text.replace("source =", "sauce =", 1), origin="published.toml")


def test_a_claimed_value_is_compared_with_the_value_and_a_fact_that_is_none_is_reported() -> None:
    stated = dataclasses.replace(
        claim(ClaimKind.EVIDENCE), evidence={"security.seccomp": "2", "security.sekkomp": "2"}
    )
    seen = dataclasses.replace(
        target("docker", relations={"security.seccomp": "unlike"}),
        values={"security.seccomp": "2"},
    )
    verdict = judge(stated, [], [seen])
    assert "security.seccomp supported: 2 in docker" in verdict.sentence
    assert "this fact is not known of docker" in verdict.sentence
    other = dataclasses.replace(seen, values={"security.seccomp": "0"})
    assert judge(stated, [], [other]).status is REFUTED


def test_the_interval_that_is_shown_is_the_one_that_decides() -> None:
    wide = dataclasses.replace(
        cell("docker", "cpu.sieve", ratio=1.3, spread=0.3),
        sided=Interval(low=1.1, high=1.4, level=0.9),
    )
    said = judge(EQUIVALENT, [wide], [target("docker")]).sentence
    assert "1.30x native [1.10, 1.40]" in said


# ---- limits


def limit(resource: Resource, *, held: bool | None, reached: float = 0.5) -> LimitCheck:
    return LimitCheck(
        resource=resource, unit="CPUs", limit=0.5, reached=reached, native=1.98, counted=12,
        held=held, why="" if held is not None else "nobody knows",
    )  # fmt: skip


LIMITED = dataclasses.replace(
    claim(ClaimKind.ENFORCEMENT), limits=(Resource.CPU, Resource.MEMORY), needs="limits"
)


def limited(name: str, *checks: LimitCheck) -> TargetFacts:
    return dataclasses.replace(target(name), limits=checks)


@pytest.mark.parametrize(
    ("cpu", "memory", "expected"),
    [
        (True, True, SUPPORTED),
        (True, False, REFUTED),
        (None, False, REFUTED),
        (True, None, INCONCLUSIVE),
    ],
)
def test_a_claim_of_limits_follows_them(
    cpu: bool | None, memory: bool | None, expected: ClaimStatus
) -> None:
    box = limited("box", limit(Resource.CPU, held=cpu), limit(Resource.MEMORY, held=memory))
    verdict = judge(LIMITED, [], [box])
    assert verdict.status is expected
    assert "0.5 of 0.5 CPUs (1.98 natively)" in verdict.sentence
    assert "more blocks" not in verdict.sentence


def test_a_limit_that_cannot_be_set_leaves_a_claim_open() -> None:
    verdict = judge(LIMITED, [], [limited("box", limit(Resource.CPU, held=True))])
    assert verdict.status is INCONCLUSIVE
    assert "memory untested: no such limit can be set in box here" in verdict.sentence


def test_a_target_that_sets_no_limits_does_not_show_whether_they_hold() -> None:
    both = [limit(resource, held=True) for resource in LIMITED.limits]
    assert judge(LIMITED, [], [limited("box", *both), target("jar")]).status is SUPPORTED
    verdict = judge(LIMITED, [], [target("jar")])
    assert verdict.status is UNTESTED
    assert verdict.sentence == "Not tested: this run measured nothing that tests it; needs limits."


def test_what_would_change_a_claim_of_limits_is_the_closest_of_them() -> None:
    near = limited("near", *(limit(r, held=True, reached=0.49) for r in LIMITED.limits))
    far = limited("far", *(limit(r, held=True, reached=0.1) for r in LIMITED.limits))
    verdict = judge(LIMITED, [], [far, near])
    assert verdict.change == "the limit of cpu not holding in near"
    assert "held in far and near (nearest to the limit: near 0.49 of 0.5" in verdict.sentence


@pytest.mark.parametrize(
    "lines", ['kind = "enforcement"', 'kind = "evidence"\nlimits = ["cpu"]\nneeds = "x"']
)
def test_limits_and_enforcement_go_together(lines: str) -> None:
    text = f'[[claims]]\nid = "a"\nquote = "A."\ntechnology = "containerization"\n{lines}'
    with pytest.raises(UsageError, match='limits and kind = "enforcement" go together'):
        load(text, origin="mine.toml")


def test_a_resource_that_nobody_limits_is_refused() -> None:
    text = (
        '[[claims]]\nid = "a"\nquote = "A."\ntechnology = "containerization"\n'
        'kind = "enforcement"\nlimits = ["patience"]'
    )
    with pytest.raises(UsageError, match=r"mine.toml:6: claim a: limits"):
        load(text, origin="mine.toml")


@pytest.mark.parametrize("measured", [True, False])
def test_a_claim_about_its_own_reference_needs_another_target(measured: bool) -> None:
    about = dataclasses.replace(
        claim(ClaimKind.BOUND, "startup.cold", needs=""),
        technology="",
        targets=(TargetName("native"),),
        below_seconds=1.0,
    )
    others = [target("native", technology=Technology.NATIVE)] if measured else []
    verdict = judge(about, [], others)
    reason = "native is what this claim compares with, and no target of it"
    assert verdict.sentence == (
        f"Not tested: {reason if measured else 'no native in this run'}; needs another target."
    )
    assert verdict.change == "another target"
