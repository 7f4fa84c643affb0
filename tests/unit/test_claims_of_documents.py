"""Every claim of the documents, judged on planted runs: one supports it, and one refutes it.

The runs have known values and pass through the whole pipeline, from records to claims.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from isobench.analysis import summary as analysis
from isobench.model import Cause, Claim, ClaimKind, ClaimStatus, Gap, Technology
from isobench.model.units import TargetName, WorkloadName
from isobench.report import sections
from isobench.report.sections.claims import CLAIMS
from isobench.report.sections.documents import DOCUMENTS
from isobench.storage import reader
from isobench.storage.schema import ClaimResult

Write = Callable[..., Path]
CLAIMS_BY_ID = {claim.id: claim for claim in analysis.documents_claims()}
UNIT_SECONDS = 2e-6
"""The time of one operation in a planted run with the ratio 1."""
TECHNOLOGIES = {
    "kvm": Technology.VIRTUALIZATION,
    "docker": Technology.CONTAINERIZATION,
    "podman": Technology.CONTAINERIZATION,
    "distrobox": Technology.CONTAINERIZATION,
    "kubernetes": Technology.CONTAINERIZATION,
    "qemu-user-aarch64": Technology.EMULATION,
    "qemu": Technology.EMULATION,
    "wine": Technology.TRANSLATION,
    "bubblewrap": Technology.SANDBOX,
    "uml": Technology.PARAVIRTUAL,
    "little": Technology("unikernel"),
}
CLASSES = {"cpu": "cpu.sieve", "syscall": "syscall.getppid", "io": "io.metadata"}
HOST: Mapping[str, Any] = {
    "kernel.boot_id": "host",
    "kernel.release": "6.1",
    "machine": "x86_64",
    "payload.machine": "x86_64",
    "payload.format": "ELF",
    "wine.version": "",
    "ns.pid": "pid:[1]",
    "ns.net": "net:[1]",
    "ns.mnt": "mnt:[1]",
    "host.canary_readable": True,
}
"""What native shows in a planted run."""


@dataclass(frozen=True, kw_only=True)
class Plant:
    """The content of a planted run."""

    ratios: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(target, workload) -> the ratio to native, in units of UNIT_SECONDS."""
    facts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By target: what differs from HOST inside."""
    limits: Mapping[str, tuple[bool, ...]] = field(default_factory=dict)
    """By target: whether the limits of CPU, memory, processes and I/O hold."""
    wrong: tuple[tuple[str, str], ...] = ()
    """The cells that gave a wrong answer in one block."""

    def options(self) -> dict[str, Any]:
        """Return the options of `synthetic`."""
        states: dict[str, dict[str, Any]] = {"native": {"facts": _evidence(HOST)}}
        for name, own in self.facts.items():
            states[name] = {"facts": _evidence({**HOST, **own})}
        for name, held in self.limits.items():
            states[name] = {"limits": _limits(held)}
        return {
            "classes": TECHNOLOGIES,
            "states": states,
            "gaps": [_wrong(*cell) for cell in self.wrong],
            "blocks": 14,
        }


def _evidence(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [{"key": key, "value": value, "source": "here"} for key, value in facts.items()]


def _limits(held: tuple[bool, ...]) -> list[dict[str, Any]]:
    resources = ("cpu", "memory", "processes", "io")
    common = {"unit": "units", "limit": 10.0, "native": 100.0, "counted": 3}
    return [
        {"resource": resource, "held": each, "reached": 10.0 if each else 90.0, **common}
        for resource, each in zip(resources, held, strict=True)
    ]


def _wrong(target: str, workload: str) -> Gap:
    return Gap(
        block=3,
        target=TargetName(target),
        workload=WorkloadName(workload),
        cause=Cause.WRONG_ANSWER,
        detail="the checksum is another one",
    )


def work(target: str, **ratios: float) -> dict[tuple[str, str], float]:
    """Return the ratios of a target: 1, except in the classes that are named."""
    return {(target, name): ratios.get(kind, 1.0) for kind, name in CLASSES.items()}


def every(ratio: float) -> dict[str, float]:
    """Return one ratio for all classes."""
    return dict.fromkeys(CLASSES, ratio)


def starts(kind: str = "cold", **seconds: float) -> Plant:
    """Return a run with starts of so many seconds."""
    return Plant(
        ratios={(name, f"startup.{kind}"): value / UNIT_SECONDS for name, value in seconds.items()}
    )


def worked(target: str, **ratios: float) -> Plant:
    """Return a run with the work of one target."""
    return Plant(ratios=work(target, **ratios))


def seen(target: str, **facts: Any) -> Plant:
    """Return a run with facts inside; "__" in a name stands for a dot."""
    own = {key.replace("__", "."): value for key, value in facts.items()}
    return Plant(ratios={(target, "cpu.sieve"): 1.0}, facts={target: own})


ARM, OWN, SLOW = "qemu-user-aarch64", {"kernel__boot_id": "own"}, every(4.0)
CONTAINED = {"ns__pid": "pid:[2]", "ns__net": "net:[2]", "ns__mnt": "mnt:[2]"}
PE = {"payload__format": "PE"}
PLANTS: dict[str, tuple[Plant, Plant]] = {
    "kernel-vm": (seen("kvm", **OWN), seen("kvm")),
    "kernel-container": (seen("docker", **CONTAINED), seen("distrobox")),
    "kernel-emulation": (seen(ARM, machine="aarch64"), seen(ARM)),
    "kernel-emulation-system": (seen("qemu", **OWN), seen("qemu")),
    "kernel-translation": (seen("wine", wine__version="8.0"), seen("wine")),
    "perf-vm": (worked("kvm"), worked("kvm", io=1.98)),
    "perf-container": (worked("docker"), worked("docker", syscall=1.3)),
    "perf-emulation": (worked(ARM, **SLOW), worked(ARM, **{**SLOW, "syscall": 0.35})),
    "perf-emulation-vm": (
        Plant(ratios=work("kvm") | work(ARM, **SLOW)),
        Plant(ratios=work("kvm", io=6.0) | work(ARM, **SLOW)),
    ),
    "perf-translation": (worked("wine"), worked("wine", syscall=100.0)),
    "arm-on-x86": (
        worked(ARM, **SLOW),
        Plant(ratios=work(ARM, **SLOW), wrong=((ARM, "cpu.sieve"),)),
    ),
    "no-native-windows": (
        worked("wine"),
        Plant(ratios=work("wine"), wrong=(("wine", "io.metadata"),)),
    ),
    # What an emulator of Windows' machine would show.
    "no-native-windows-kernel": (seen("wine", **PE), seen("wine", **PE, **OWN)),
    "start-container-ms": (starts(docker=0.4), starts(docker=0.4, podman=2.5)),
    "start-container-warm-ms": (starts("warm", docker=0.2), starts("warm", docker=1.8)),
    "start-vm-s": (starts(kvm=3.0), starts(kvm=0.2)),
    "start-order": (starts(docker=0.3, kvm=3.0), starts(docker=0.6, kvm=0.25)),
    "start-sandbox": (starts(bubblewrap=0.006), starts(bubblewrap=0.3)),
    "overhead-sandbox": (worked("bubblewrap"), worked("bubblewrap", syscall=1.2)),
    "ns-view": (
        seen("docker", **CONTAINED, host__canary_readable=False),
        seen("docker", **CONTAINED, host__canary_readable=True),
    ),
    "sandbox-kernel": (seen("bubblewrap"), seen("bubblewrap", **OWN)),
    "cg-limits": (
        Plant(ratios=work("docker"), limits={"docker": (True, True, True, True)}),
        Plant(ratios=work("docker"), limits={"docker": (True, True, True, False)}),
    ),
    "podman-rootless": (seen("podman", host__rootless=True), seen("podman", host__rootless=False)),
    "podman-daemonless": (
        seen("podman", host__engine__daemon="none"),
        seen("podman", host__engine__daemon="podman"),
    ),
    "docker-daemon": (
        seen("docker", host__engine__daemon="dockerd"),
        seen("docker", host__engine__daemon="none"),
    ),
    "kubernetes-not-runtime": (
        seen("kubernetes", host__pod__child_of_kubernetes=False),
        seen("kubernetes", host__pod__child_of_kubernetes=True),
    ),
    "distrobox-native-feel": (worked("distrobox"), worked("distrobox", io=1.3)),
}
"""By claim: a run that supports it and a run that refutes it."""
WITHOUT_A_TEST = frozenset(
    {
        *("ns-neighbours", "isolation-order", "cg-monopoly", "mem-container", "cpu-container"),
        *("lightweight", "vm-heavy", "efficiency", "vm-compat", "docker-cli-compatible"),
        *("image-workflow", "wsl1-translation"),
    }
)
"""The claims that isobench cannot test yet. A claim leaves this set when it gets facts."""
TESTABLE = [pytest.param(each, id=each.id) for each in CLAIMS_BY_ID.values() if each.id in PLANTS]
OF_MACHINES = [
    each for each in PLANTS if "virtualization" in (CLAIMS_BY_ID[each].technology,
                                                    CLAIMS_BY_ID[each].reference)
]  # fmt: skip


def judged(synthetic: Write, plant: Plant, claim: Claim, name: str = "run") -> ClaimResult:
    """Write a planted run, read it back and return how the claim stands."""
    path = synthetic(plant.ratios, name=name, **plant.options())
    (found,) = analysis.summarise(reader.load(path), [claim]).claims
    return found


def renamed(plant: Plant, old: str, new: str) -> Plant:
    """Return the same run with another target in the place of one."""
    return Plant(
        ratios={
            (new if name == old else name, workload): ratio
            for (name, workload), ratio in plant.ratios.items()
        },
        facts={new if name == old else name: facts for name, facts in plant.facts.items()},
    )


def test_every_claim_has_a_run_that_supports_it_and_one_that_refutes_it_or_no_test_yet() -> None:
    untestable = {
        claim.id
        for claim in CLAIMS_BY_ID.values()
        if claim.kind is ClaimKind.EVIDENCE and not claim.evidence
    }
    assert untestable == WITHOUT_A_TEST
    assert set(PLANTS) == set(CLAIMS_BY_ID) - WITHOUT_A_TEST


@pytest.mark.parametrize("claim", TESTABLE)
def test_a_claim_is_supported_by_a_run_that_shows_what_it_says(
    claim: Claim, synthetic: Write
) -> None:
    found = judged(synthetic, PLANTS[claim.id][0], claim)
    assert found.status is ClaimStatus.SUPPORTED, found.sentence


@pytest.mark.parametrize("claim", TESTABLE)
def test_a_claim_is_refuted_by_a_run_that_shows_the_opposite(
    claim: Claim, synthetic: Write
) -> None:
    found = judged(synthetic, PLANTS[claim.id][1], claim)
    assert found.status is ClaimStatus.REFUTED, found.sentence


@pytest.mark.parametrize(
    "claim", [pytest.param(each, id=each.id) for each in CLAIMS_BY_ID.values()]
)
def test_a_claim_is_not_tested_where_no_target_of_its_kind_was_measured(
    claim: Claim, synthetic: Write
) -> None:
    found = judged(synthetic, Plant(ratios={("little", "cpu.sieve"): 1.0}), claim)
    assert found.status is ClaimStatus.UNTESTED
    why = "isobench has no test for it yet" if claim.id in WITHOUT_A_TEST else "in this run; needs"
    assert found.sentence.startswith("Not tested: ")
    assert why in found.sentence
    assert claim.needs in found.sentence


@pytest.mark.parametrize("name", ["uml", "qemu"])
@pytest.mark.parametrize("claim", OF_MACHINES)
def test_neither_user_mode_linux_nor_an_emulated_machine_tests_a_claim_on_virtual_machines(
    claim: str, name: str, synthetic: Write
) -> None:
    for number, plant in enumerate(PLANTS[claim]):
        other = renamed(plant, "kvm", name)
        found = judged(synthetic, other, CLAIMS_BY_ID[claim], name=f"run{number}")
        assert found.status is ClaimStatus.UNTESTED
        assert "no virtualization target" in found.sentence


@pytest.mark.parametrize(
    ("seconds", "status"),
    [
        (0.2, ClaimStatus.REFUTED),
        (1.5, ClaimStatus.SUPPORTED),
        (30.0, ClaimStatus.SUPPORTED),
        (90.0, ClaimStatus.REFUTED),
    ],
)
def test_in_seconds_has_a_lower_bound_as_well_as_an_upper_one(
    seconds: float, status: ClaimStatus, synthetic: Write
) -> None:
    found = judged(synthetic, starts(kvm=seconds), CLAIMS_BY_ID["start-vm-s"])
    assert found.status is status
    assert "claimed above 1 s and below 1 min" in found.sentence


def test_a_target_whose_every_answer_is_wrong_refutes_that_it_computes_the_same(
    synthetic: Write,
) -> None:
    path = synthetic(
        {("docker", "cpu.sieve"): 1.0},
        unmeasured=("wine",),
        classes=TECHNOLOGIES,
        gaps=[_wrong("wine", "cpu.sieve")],
    )
    (found,) = analysis.summarise(reader.load(path), [CLAIMS_BY_ID["no-native-windows"]]).claims
    assert found.status is ClaimStatus.REFUTED
    assert "wine cpu.sieve has another checksum than native" in found.sentence


def test_the_page_has_a_column_for_user_mode_linux_and_none_of_its_figures_under_virtualization(
    synthetic: Write,
) -> None:
    path = synthetic(work("uml", io=6.0), **worked("uml").options())
    made = analysis.summarise(reader.load(path), analysis.documents_claims())
    view = sections.build(made)
    documents, claims = DOCUMENTS.of(view), CLAIMS.of(view)
    assert documents is not None
    assert claims is not None
    columns = {column.title: column for column in documents}
    assert list(columns)[-1] == "Paravirtual"
    assert "no evidence for sentences on virtual machines" in columns["Paravirtual"].about
    assert [fact.label for fact in columns["Paravirtual"].ran] == ["uml"]
    assert not columns["Paravirtual"].kernel.agreement
    assert not any(axis.agreement for axis in columns["Paravirtual"].axes)
    assert columns["Virtualization"].ran == ()
    tested = {claim.id for claim in claims.tested}
    assert tested.isdisjoint({"kernel-vm", "perf-vm", "start-vm-s", "start-order"})
