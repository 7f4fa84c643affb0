"""The target `landlock` on any kernel: refusals, expectations, messages."""

import errno
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import prove
from isobench.model import Environment, Evidence, Fact, Lack, Relation, Stage, Unavailable
from isobench.model.units import Sha256
from isobench.targets.sandboxes import landlock
from isobench.targets.sandboxes.landlock import LandlockTarget

NATIVE: dict[str, Fact] = {
    "kernel.boot_id": "here",
    **{f"ns.{space}": f"{space}:[1]" for space in ("ipc", "mnt", "net", "pid", "user", "uts")},
    "security.no_new_privs": "0",
    "security.cap_effective": "0000000000000000",
    "security.seccomp": "0",
    "security.seccomp_filters": "0",
    "host.canary_readable": True,
    "host.canary_errno": 0,
    "net.loopback_errno": errno.ECONNREFUSED,
}
CONFINED: dict[str, Fact] = {
    **NATIVE,
    "security.no_new_privs": "1",
    "security.seccomp": "2",
    "security.seccomp_filters": "1",
    "host.canary_readable": False,
    "host.canary_errno": errno.EACCES,
    "net.loopback_errno": errno.EACCES,
}


def environment(facts: dict[str, Fact]) -> Environment:
    return Environment(
        facts={key: Evidence(key=key, value=value, source="") for key, value in facts.items()}
    )


def broken(target: LandlockTarget, **seen: Fact) -> str:
    inside = environment(CONFINED | {key.replace("__", "."): v for key, v in seen.items()})
    return prove.unmet(prove.check(target.expectations, host=environment(NATIVE), inside=inside))


@pytest.fixture(autouse=True)
def young(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "_abi", lambda: 7)


def test_a_confined_process_meets_the_expectations() -> None:
    assert broken(LandlockTarget()) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("host.canary_readable", True),
        ("host.canary_errno", errno.ENOENT),  # the file does not exist inside: a container
        ("ns.mnt", "mnt:[2]"),
        ("ns.pid", "pid:[2]"),
        ("security.no_new_privs", "0"),
        ("security.cap_effective", "000001ffffffffff"),
        ("security.seccomp", "0"),
        ("security.seccomp_filters", "0"),
        ("net.loopback_errno", errno.ECONNREFUSED),
        ("kernel.boot_id", "elsewhere"),
    ],
)
def test_each_restriction_that_is_not_in_force_is_caught(key: str, value: Fact) -> None:
    assert broken(LandlockTarget(), **{key.replace(".", "__"): value}).startswith(f"{key} should")


def test_a_seccomp_filter_of_the_host_does_not_count_as_the_sandboxs() -> None:
    outside = environment(NATIVE | {"security.seccomp": "2", "security.seccomp_filters": "1"})
    checks = prove.check(LandlockTarget().expectations, host=outside, inside=environment(CONFINED))
    assert prove.unmet(checks).startswith("security.seccomp_filters should be unlike the host's")


def test_without_the_option_no_filter_may_be_present() -> None:
    target = LandlockTarget(seccomp=False)
    off: dict[str, Fact] = {"security__seccomp": "0", "security__seccomp_filters": "0"}
    assert broken(target, **off) == ""
    assert broken(target).startswith("security.seccomp_filters should be the host's")


@pytest.mark.parametrize(
    ("options", "abi", "expected"),
    [({}, 3, False), ({}, 4, True), ({"network": True}, 7, False), ({}, -95, False)],
)
def test_tcp_is_expected_to_be_refused_if_it_can_and_should_be(
    options: dict[str, Any], abi: int, *, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(landlock, "_abi", lambda: abi)
    keys = {expectation.key for expectation in LandlockTarget(**options).expectations}
    assert ("net.loopback_errno" in keys) is expected


def test_no_namespace_is_expected_to_differ() -> None:
    for expectation in LandlockTarget().expectations:
        if expectation.key.startswith("ns."):
            assert expectation.relation is Relation.SAME_AS_HOST


# ---- the launcher --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, []),
        ({"network": True}, ["network"]),
        ({"seccomp": False}, ["unfiltered"]),
        ({"network": True, "seccomp": False}, ["network", "unfiltered"]),
    ],
)
def test_options_become_arguments_of_the_launcher(
    options: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    stage = Stage(
        root=tmp_path / "root",
        digest=Sha256(""),
        tools={"_confine": tmp_path / "confine"},
        scratch=tmp_path,
        owner="isobench-x-1-1",
    )
    assert LandlockTarget(**options)._prefix(stage) == [
        *(str(tmp_path / "confine"), *words),
        *(str(tmp_path / "root"), str(tmp_path / "landlock"), "--"),
    ]


# ---- refusals ------------------------------------------------------------------------------------


def test_the_hint_for_a_kernel_booted_without_landlock_has_the_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = tmp_path / "lsm"
    order.write_text("lockdown,capability,yama,apparmor\n")
    monkeypatch.setattr(landlock, "_LSM", order)
    answer = landlock._refusal("landlock:95", "")
    assert answer.lack is Lack.SERVICE
    assert "lsm=landlock,lockdown,capability,yama,apparmor" in answer.hint
    order.unlink()
    assert "lsm=landlock," in landlock._refusal("landlock:95", "").hint


@pytest.mark.parametrize(
    ("failure", "lack", "what"),
    [
        ("landlock:38", Lack.VERSION, "has no Landlock"),
        ("landlock:1", Lack.PERMISSION, "forbids"),
        ("restrict:1", Lack.PERMISSION, "forbids"),
        ("outside:0", Lack.RUNTIME, "refuses too much or too little"),
        ("tcp:111", Lack.RUNTIME, "refuses too much or too little"),
        ("inside:13", Lack.RUNTIME, "refuses too much or too little"),
        ("seccomp:22", Lack.RUNTIME, "seccomp: Invalid argument"),
        ("", Lack.RUNTIME, "no output"),
    ],
)
def test_each_refusal_has_a_reason_and_a_hint(failure: str, lack: Lack, what: str) -> None:
    answer = landlock._refusal(failure, "")
    assert answer.lack is lack
    assert what in answer.what
    assert answer.hint


def test_the_error_for_a_trial_that_dies_has_its_output(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock, "_TRIAL", "raise SystemExit('the sky fell')")
    answer = LandlockTarget().probe()
    assert isinstance(answer, Unavailable)
    assert "the sky fell" in answer.what


def test_an_interpreter_that_cannot_be_started_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(landlock.sys, "executable", "/nowhere/python")
    assert isinstance(LandlockTarget().probe(), Unavailable)
