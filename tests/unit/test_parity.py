"""What differs besides the isolation."""

from pathlib import Path

import pytest

from isobench.evidence import parity, prove
from isobench.model import Abi, Environment, Evidence, Fact, Payload
from isobench.model.units import Sha256


def environment(facts: dict[str, Fact]) -> Environment:
    return prove.gather(Evidence(key=key, value=value, source="") for key, value in facts.items())


def shown(native: dict[str, Fact], target: dict[str, Fact]) -> list[tuple[str, str, str]]:
    found = parity.differences(environment(native), environment(target))
    return [(each.label, each.native, each.target) for each in found]


def payload(abi: Abi, digest: str, program: str = "cpu.sieve") -> Payload:
    return Payload(
        program=program, abi=abi, path=Path(), sha256=Sha256(digest), compiler="zig cc 1", flags=()
    )


def test_alike_facts_are_no_difference() -> None:
    facts: dict[str, Fact] = {"machine": "x86_64", "security.seccomp": "0", "cpu.usable": 8}
    assert shown(facts, facts) == []


def test_a_fact_that_the_target_did_not_report_is_no_difference() -> None:
    assert shown({"machine": "x86_64"}, {}) == []


def test_differences_come_in_a_fixed_order_whatever_the_order_of_facts() -> None:
    native: dict[str, Fact] = {"security.seccomp": "0", "machine": "x86_64"}
    target: dict[str, Fact] = {"security.seccomp": "2", "machine": "aarch64"}
    expected = [("ISA", "x86_64", "aarch64"), ("seccomp", "off", "filter")]
    assert shown(native, target) == expected
    assert shown(native, dict(reversed(target.items()))) == expected


@pytest.mark.parametrize(
    ("key", "native", "target", "expected"),
    [
        ("filesystem.scratch", "0x0000ef53", "0x794c7630", ("ext4", "overlayfs")),
        (
            "security.cap_effective",
            "000001ffffffffff",
            "0000000000000000",
            ("0x1ffffffffff", "none"),
        ),
        (
            "user.uid_map",
            " 0  0 4294967295\n",
            "0 1000 1\n1 9 9",
            ("0 0 4294967295", "0 1000 1; 1 9 9"),
        ),
        ("security.label", "unconfined", "", ("unconfined", "none")),
        ("clock.source", "tsc", None, ("tsc", "not visible")),
        ("limit.open_files", 1024, 1048576, ("1024", "1048576")),
    ],
)
def test_values_are_shown_as_people_read_them(
    key: str, native: Fact, target: Fact, expected: tuple[str, str]
) -> None:
    ((_, natively, inside),) = shown({key: native}, {key: target})
    assert (natively, inside) == expected


def test_many_facts_that_cannot_be_seen_are_reported_together() -> None:
    keys = ("machine", "cpu.usable", "kernel.release", "security.seccomp", "clock.source")
    native: dict[str, Fact] = dict.fromkeys(keys, "1")
    few: dict[str, Fact] = dict.fromkeys(keys[1:], None)
    assert [inside for _, _, inside in shown(native, few)] == ["not visible"] * 4
    ((label, _, inside),) = shown(native, dict.fromkeys(keys, None))
    assert label == "not visible inside"
    assert inside == "ISA, usable CPUs, kernel, seccomp, clock source"


@pytest.mark.parametrize(
    ("native", "target", "differs"), [(20, 39, False), (20, 40, True), (90, 30, True)]
)
def test_the_cost_of_a_clock_is_alike_within_a_factor_of_two(
    native: int, target: int, differs: bool
) -> None:
    found = shown({"clock.cost_ns": native}, {"clock.cost_ns": target})
    assert bool(found) is differs
    if found:
        assert found[0][1:] == (f"{native} ns", f"{target} ns")


def test_the_same_programs_are_no_difference() -> None:
    same = (payload(Abi.ELF_X86_64, "a"),)
    found = parity.differences(
        environment({}), environment({}), native_payloads=same, target_payloads=same
    )
    assert found == ()


def test_programs_for_another_isa_are_a_difference() -> None:
    (found,) = parity.differences(
        environment({}),
        environment({}),
        native_payloads=(payload(Abi.ELF_X86_64, "a"),),
        target_payloads=(payload(Abi.ELF_AARCH64, "b"),),
    )
    assert found.label == "programs"
    assert found.native.startswith("x86_64-linux")
    assert found.target.startswith("aarch64-linux")
    assert found.target.endswith("same sources and flags, other instructions")


def test_programs_for_another_system_are_a_difference_of_another_kind() -> None:
    (found,) = parity.differences(
        environment({}),
        environment({}),
        native_payloads=(payload(Abi.ELF_X86_64, "a"),),
        target_payloads=(payload(Abi.PE_X86_64, "b"),),
    )
    assert found.target.startswith("x86_64-windows")
    assert found.target.endswith("same sources and flags, other ABI and file format")


def test_a_program_that_native_does_not_have_is_no_difference() -> None:
    found = parity.differences(
        environment({}),
        environment({}),
        native_payloads=(payload(Abi.ELF_X86_64, "a"),),
        target_payloads=(payload(Abi.ELF_AARCH64, "b", program="_agent"),),
    )
    assert found == ()
