"""gVisor on hosts without it: options, refusals, facts of a sentry, names of runtimes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from isobench.evidence import prove
from isobench.model import (
    Available,
    Environment,
    Evidence,
    Fact,
    Lack,
    Relation,
    Technology,
    Unavailable,
)
from isobench.model.errors import UsageError
from isobench.plugins import ownership
from isobench.plugins.registry import Registry
from isobench.targets.containers import _podman
from isobench.targets.containers.docker import DockerTarget
from isobench.targets.containers.podman import PodmanTarget
from isobench.targets.sandboxes import gvisor
from isobench.targets.sandboxes.gvisor import GvisorTarget
from isobench.targets.shared import kvm, oci, processes, sentry
from tests import waiting

HOST: dict[str, Fact] = {
    "kernel.boot_id": "of-the-host",
    "kernel.version": "#1 SMP PREEMPT_DYNAMIC",
    "kernel.sentry": "",
    "host.canary_readable": True,
}
INSIDE: dict[str, Fact] = {
    "kernel.boot_id": None,
    "kernel.version": sentry.BUILD,
    "kernel.sentry": "gVisor",
    "security.cap_effective": "0000000000000000",
    "host.canary_readable": False,
}

DEAD = "isobench-000000-1-1"
"""An owner that only these tests use: a sweep reaches every process of this machine."""


def environment(facts: dict[str, Fact]) -> Environment:
    return prove.gather(
        Evidence(key=key, value=value, source="test") for key, value in facts.items()
    )


def broken(target: Any, **changed: Fact) -> str:
    inside = INSIDE | {key.replace("__", "."): value for key, value in changed.items()}
    checks = prove.check(target.expectations, host=environment(HOST), inside=environment(inside))
    return prove.unmet(checks)


@pytest.fixture
def runsc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runsc that records its arguments and exits as runsc does when it fails."""
    program = tmp_path / "bin" / "runsc"
    program.parent.mkdir()
    program.write_text(
        '#!/bin/sh\necho "$@" >>"$0.calls"\necho running container: no luck >&2\nexit 128\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return program


def calls(program: Path) -> list[str]:
    return Path(f"{program}.calls").read_text().splitlines()


# ---- expectations --------------------------------------------------------------------------------


def test_a_kernel_that_names_itself_gvisor_meets_the_expectations_with_or_without_a_boot_id() -> (
    None
):
    assert broken(GvisorTarget()) == ""
    assert broken(GvisorTarget(), kernel__boot_id="of-its-own") == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernel__sentry", ""),  # it runs on another kernel
        ("kernel__sentry", None),
        ("kernel__version", "#1 SMP PREEMPT_DYNAMIC"),
        ("security__cap_effective", "000001ffffffffff"),
        ("host__canary_readable", True),
    ],
)
def test_each_broken_expectation_is_caught(key: str, value: Fact) -> None:
    assert key.replace("__", ".") in broken(GvisorTarget(), **{key: value})


def test_the_host_itself_does_not_meet_gvisors_expectations() -> None:
    checks = prove.check(
        GvisorTarget().expectations, host=environment(HOST), inside=environment(HOST)
    )
    assert not all(check.met for check in checks)


# ---- options and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flag", ["--platform=kvm", "-root=/x", "--overlay2=all:memory", "--network=host", "directfs"]
)
def test_flags_that_isobench_sets_itself_are_refused_with_the_table(flag: str) -> None:
    with pytest.raises(UsageError, match=r"\[targets.gvisor\]"):
        Registry({"gvisor": {"flags": [flag]}}).get("gvisor")


def test_other_flags_reach_runsc(runsc: Path) -> None:
    target = GvisorTarget(program=str(runsc), flags=("--directfs=false",))
    assert isinstance(target.probe(), Unavailable)
    assert all("--directfs=false run --bundle=" in call for call in calls(runsc))
    assert all("--overlay2=none" in call for call in calls(runsc))


def test_a_missing_program_is_named_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = GvisorTarget(program="/nowhere/runsc").probe()
    assert isinstance(answer, Unavailable)
    assert (answer.lack, answer.what) == (Lack.TOOL, "/nowhere/runsc")
    assert answer.hint.startswith("fix program = '/nowhere/runsc': there is no such program")
    monkeypatch.setenv("PATH", "/nowhere")
    usual = GvisorTarget().probe()
    assert isinstance(usual, Unavailable)
    assert usual.hint == "isobench doctor --install gvisor"


def test_platforms_are_tried_in_order_and_the_last_error_is_reported(
    runsc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = kvm.Acceleration(flavour="PVM", lack=Lack.RUNTIME, what="it hangs", hint="elsewhere")
    monkeypatch.setattr(kvm, "examine", lambda: bad)
    answer = GvisorTarget(program=str(runsc)).probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.RUNTIME
    assert "no luck" in answer.what
    # runsc would hang on a KVM that executes no guest: it is never started there.
    asked = [word for call in calls(runsc) for word in call.split() if "--platform" in word]
    assert asked == ["--platform=systrap", "--platform=ptrace"]


def test_kvm_is_refused_where_it_executes_no_guest(
    runsc: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = kvm.Acceleration(flavour="PVM", lack=Lack.RUNTIME, what="it hangs", hint="elsewhere")
    monkeypatch.setattr(kvm, "examine", lambda: bad)
    answer = GvisorTarget(program=str(runsc), platform="kvm").probe()
    assert answer == Unavailable(lack=Lack.RUNTIME, what="it hangs", hint="elsewhere")
    assert not Path(f"{runsc}.calls").exists()


def test_a_probe_leaves_no_bundle(runsc: Path, tmp_path: Path) -> None:
    assert not isinstance(GvisorTarget(program=str(runsc)).probe(), Available)
    assert list((tmp_path / "cache").rglob("isobench-*")) == []


def test_an_ordinary_user_is_always_rootless(
    runsc: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for user, wished, expected in ((0, False, False), (0, True, True), (1000, False, True)):
        monkeypatch.setattr(os, "geteuid", lambda user=user: user)
        flags = GvisorTarget(rootless=wished).flagged("ptrace", tmp_path)
        assert ("--rootless" in flags) is expected


def test_a_bundle_shows_the_root_read_only_and_binds_the_scratch_directory() -> None:
    made: Any = json.loads(
        json.dumps(gvisor._configuration(Path("/r"), Path("/s"), ["/isobench/x"], {"A": "b c"}))
    )
    assert made["root"] == {"path": "/r", "readonly": True}
    assert made["process"]["args"] == ["/isobench/x"]
    assert made["process"]["env"] == ["A=b c"]
    assert "capabilities" not in made["process"]
    bound = [mount for mount in made["mounts"] if mount["type"] == "bind"]
    assert [(mount["source"], mount["destination"]) for mount in bound] == [("/s", "/scratch")]


def test_sandboxes_of_dead_runs_are_swept_and_those_of_living_runs_are_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = tmp_path / "isobench" / "gvisor"
    dead, living = folder / f"{DEAD}-cafe", folder / f"{ownership.mine()}-cafe"
    for made in (dead, living):
        (made / "state").mkdir(parents=True)
    removed = [*map(str, GvisorTarget().sweep(lambda owner: owner != DEAD, cached=False))]
    assert f"folder {dead}" in removed
    assert not dead.exists()
    assert living.exists()


def test_what_stays_of_a_sandbox_is_not_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # As where something is mounted in it.
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)
    dead = tmp_path / "isobench" / "gvisor" / f"{DEAD}-cafe"
    dead.mkdir(parents=True)
    (left,) = GvisorTarget().sweep(lambda owner: owner != DEAD, cached=False)
    assert (left.what, left.failure) == (f"folder {dead}", "some of its files cannot be removed")
    with GvisorTarget()._bundle("ptrace", tmp_path, tmp_path, ["x"], {}):
        pass
    assert ownership.take_doubt()


# ---- what the host sees of a sentry --------------------------------------------------------------


def test_without_a_sentry_no_platform_is_detected() -> None:
    assert sentry.platform(processes.process_tree(os.getpid())) is None
    assert processes.process_tree(2**22 + 1) == []


SLEEPER = ("-c", "print('runs', flush=True); input()")
PYTHON = {Path(sys.executable).resolve().name}


def test_a_users_own_processes_of_a_program_are_ended_by_a_mark_in_their_arguments(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mark = f"--root=/nowhere/{os.urandom(8).hex()}"
    argv = [sys.executable, *SLEEPER, mark]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        # For a moment after execve a process shows no arguments.
        assert waiting.line(one) == "runs"
        assert processes.sweep_marked(f"{mark}-not", PYTHON, "one") == []
        assert processes.sweep_marked(mark, {"runsc"}, "one") == []
        with monkeypatch.context() as other:
            other.setattr(os, "getuid", lambda: 4_000_000_000)
            assert processes.sweep_marked(mark, PYTHON, "one") == []
        assert one.poll() is None
        (ended,) = processes.sweep_marked(mark, {"runsc", *PYTHON}, "one")
        assert str(ended) == f"one {one.pid}"
        one.wait(10)


def test_a_process_in_a_user_namespace_is_that_of_the_user_who_has_made_this(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    words = ["unshare", "--user", sys.executable, *SLEEPER]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as one:
        if not waiting.line(one):
            pytest.skip("no user namespace here")
        # As the sentry of a root's runsc, which runs as nobody.
        monkeypatch.setattr(psutil.Process, "uids", lambda _: SimpleNamespace(real=9))
        assert processes._is_own(psutil.Process(one.pid))
        assert not processes._is_own(psutil.Process())
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
        assert not processes._is_own(psutil.Process(one.pid))
        one.kill()


def test_a_sweep_ends_programs_of_runsc_under_any_name_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runsc-2").write_text("")
    (tmp_path / "runsc-2").chmod(0o755)
    (tmp_path / "mine").symlink_to(tmp_path / "runsc-2")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert GvisorTarget(program="mine")._programs() == {"runsc", "mine", "runsc-2"}


# ---- OCI runtimes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("runtime", "technology"),
    [
        ("", Technology.CONTAINERIZATION),
        ("runc", Technology.CONTAINERIZATION),
        ("crun", Technology.CONTAINERIZATION),
        ("/usr/local/bin/youki", Technology.CONTAINERIZATION),
        ("something-of-my-own", Technology.CONTAINERIZATION),
        ("runsc", Technology.SANDBOX),
        ("/opt/gvisor/runsc-systrap", Technology.SANDBOX),
        ("/opt/runsc/bin/runc", Technology.CONTAINERIZATION),
        ("io.containerd.runsc.v1", Technology.SANDBOX),
        ("gvisor", Technology.SANDBOX),
        ("kata", Technology.VIRTUALIZATION),
        ("kata-qemu", Technology.VIRTUALIZATION),
        ("io.containerd.kata.v2", Technology.VIRTUALIZATION),
        ("krun", Technology.VIRTUALIZATION),
    ],
)
@pytest.mark.parametrize("kind", [DockerTarget, PodmanTarget])
def test_the_runtime_decides_the_column(
    kind: type[DockerTarget | PodmanTarget], runtime: str, technology: Technology
) -> None:
    assert kind(runtime=runtime).technology is technology


def test_an_unknown_runtime_is_expected_to_use_the_hosts_kernel() -> None:
    target = DockerTarget(runtime="something-of-my-own")
    assert target.expectations == oci.EXPECTATIONS
    assert "kernel.boot_id" in broken(target)  # it was gVisor nevertheless


def test_an_engine_with_runsc_expects_gvisors_kernel_and_no_other_meets_that() -> None:
    target = PodmanTarget(runtime="runsc")
    assert broken(target) == ""
    assert "kernel.sentry" in broken(target, kernel__sentry="")


def test_a_virtual_machine_is_neither_the_hosts_kernel_nor_gvisors() -> None:
    target = DockerTarget(runtime="kata")
    guest: dict[str, Fact] = {"kernel__boot_id": "its-own", "cpu__hypervisor": "KVMKVMKVM"}
    assert broken(target, kernel__version="#1 SMP guest", **guest) == ""
    assert "kernel.version" in broken(target, **guest)
    assert "cpu.hypervisor" in broken(target, **(guest | {"cpu__hypervisor": ""}))
    translated = guest | {"cpu__hypervisor": "TCGTCGTCGTCG", "kernel__version": "#1 SMP guest"}
    assert "cpu.hypervisor" in broken(target, **translated)
    relations = {expectation.relation for expectation in target.expectations}
    assert Relation.SAME_AS_HOST not in relations


def test_podman_passes_the_network_option_to_runsc() -> None:
    plain, without_cgroups = PodmanTarget(
        runtime="runsc", runtime_flags=("platform=ptrace",)
    ).flags()
    assert plain == ("network=none", "platform=ptrace")
    assert without_cgroups == ("ignore-cgroups", *plain)
    assert PodmanTarget(runtime="runsc", network="bridge").flags()[0] == ()
    assert PodmanTarget(runtime="crun", runtime_flags=("debug",)).flags() == (("debug",),)


def test_podman_caches_for_each_runtime_which_options_worked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "isobench").mkdir()
    old = '{"runtime": "runc", "cgroup_manager": "", "limits": true}'
    (tmp_path / "isobench" / "podman-settings.json").write_text(old)
    own, other = PodmanTarget(), PodmanTarget(runtime="runsc")
    assert list(_podman._remembered(own)) == []
    found = oci.Settings(runtime="runsc", flags=("network=none",))
    _podman._remember(other, found)
    assert list(_podman._remembered(other)) == [found]
    assert list(_podman._remembered(own)) == []
    assert list(_podman._remembered(PodmanTarget(runtime="runsc", network="host"))) == []
