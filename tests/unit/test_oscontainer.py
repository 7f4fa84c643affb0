"""systemd-nspawn and LXC, without starting them: options, command lines, errors, expectations."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from isobench.evidence import prove
from isobench.model import Command, Environment, Evidence, Fact, Lack, Stage, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import Sha256, seconds
from isobench.plugins.api import Target
from isobench.targets.containers import _oscontainer, lxc, nspawn
from isobench.targets.containers.lxc import LxcTarget
from isobench.targets.containers.nspawn import NspawnTarget
from isobench.targets.shared import processes

OWNER = "isobench-machine-1-2"


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[_oscontainer.Instance]:
    with _oscontainer.trial(tmp_path, OWNER) as made:
        yield made


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)


@pytest.fixture
def ordinary(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Be an ordinary user; the folder holds the user's subordinate ids."""
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(os, "getegid", lambda: 4322)
    files = (tmp_path / "subuid", tmp_path / "subgid")
    for file, line in zip(files, ("4321:200000:65536", "4321:300000:1000"), strict=True):
        file.write_text(f"somebody:100000:65536\n{line}\n")
    monkeypatch.setattr(lxc, "_SUBORDINATE", files)
    return tmp_path


def installed(monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    found = {program: f"/usr/bin/{program}" for program in programs}
    monkeypatch.setattr(shutil, "which", found.get)


def evidence(facts: Mapping[str, Fact]) -> Environment:
    return prove.gather(Evidence(key=k, value=v, source="a test") for k, v in facts.items())


HOST: Mapping[str, Fact] = {
    "kernel.boot_id": "boot",
    **{f"ns.{space}": "host" for space in ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")},
}
INSIDE: Mapping[str, Fact] = {
    **dict.fromkeys(HOST, "inside"),
    "kernel.boot_id": "boot",
    "host.canary_readable": False,
}
NSPAWN: Mapping[str, Fact] = {
    **INSIDE,
    "container.manager": "systemd-nspawn",
    "process.first": "/usr/bin/systemd-nspawn",
    "host.container.maker": "/usr/bin/systemd-nspawn",
}
LXC: Mapping[str, Fact] = {
    **INSIDE,
    "process.first": "/usr/bin/lxc-execute",
    "host.container.maker": "/usr/bin/lxc-execute",
    "host.limit.memory": 64 << 20,
}


def unmet(target: Target, facts: Mapping[str, Fact]) -> str:
    return prove.unmet(
        prove.check(target.expectations, host=evidence(HOST), inside=evidence(facts))
    )


# ---- expectations --------------------------------------------------------------------------------


def test_a_real_container_meets_every_expectation(root: None) -> None:
    assert unmet(NspawnTarget(), NSPAWN) == ""
    assert unmet(LxcTarget(memory="64MiB"), LXC) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # A wrapper that runs the program on the host, or in namespaces that it makes itself.
        ("ns.pid", "host"),
        ("container.manager", None),
        ("process.first", "/isobench/_agent"),
        ("host.container.maker", "/usr/bin/bash"),
        ("host.container.maker", None),
        ("kernel.boot_id", None),
        ("kernel.boot_id", "of a virtual machine"),
        ("host.canary_readable", True),
    ],
)
def test_each_contradiction_of_nspawn_is_found(key: str, value: Fact, root: None) -> None:
    assert unmet(NspawnTarget(), {**NSPAWN, key: value}).startswith(f"{key} should be")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ns.net", "host"),
        ("process.first", "/isobench/_agent"),
        ("host.container.maker", "/usr/bin/unshare"),
        ("host.limit.memory", 9223372036854771712),
        ("host.limit.memory", None),
    ],
)
def test_each_contradiction_of_lxc_and_of_a_limit_is_found(
    key: str, value: Fact, root: None
) -> None:
    target = LxcTarget(memory="64MiB")
    assert unmet(target, {**LXC, key: value}).startswith(f"{key} should be")


def test_only_chosen_options_are_expected(ordinary: Path) -> None:
    def keys(target: Target) -> set[str]:
        return {expectation.key for expectation in target.expectations}

    assert "ns.net" not in keys(NspawnTarget(network="host")) | keys(LxcTarget(network="host"))
    assert "ns.net" in keys(NspawnTarget(network="veth")) & keys(LxcTarget(network="lxcbr0"))
    assert "ns.user" not in keys(NspawnTarget())
    assert "ns.user" in keys(NspawnTarget(private_users="pick")) & keys(LxcTarget())
    assert {"host.limit.memory", "host.limit.pids"} & keys(LxcTarget()) == set()
    assert "host.limit.pids" in keys(LxcTarget(pids=9))


# ---- options and refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (NspawnTarget, {"network": "bridge"}),
        (NspawnTarget, {"private_users": "yes"}),
        (NspawnTarget, {"private_users": "100000"}),
        (LxcTarget, {"network": "no bridge"}),
        (LxcTarget, {"network": "a-name-that-is-too-long"}),
        (LxcTarget, {"memory": "64"}),
        (LxcTarget, {"memory": "0MiB"}),
        (LxcTarget, {"pids": -1}),
        (LxcTarget, {"idmap": "u 0 100000 65536"}),
    ],
)
def test_an_invalid_option_is_refused_by_its_name(kind: Any, options: dict[str, Any]) -> None:
    ((name, _),) = options.items()
    with pytest.raises(ValueError, match=f"^{name} = "):
        kind(**options)


def test_nspawn_needs_root_and_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, ordinary: Path
) -> None:
    installed(monkeypatch, "systemd-nspawn")
    answer = NspawnTarget().probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PERMISSION
    assert answer.hint.startswith("sudo ")


def test_lxc_reports_what_an_ordinary_user_lacks(
    monkeypatch: pytest.MonkeyPatch, ordinary: Path
) -> None:
    installed(monkeypatch, "lxc-execute")
    answer = LxcTarget().probe()
    assert isinstance(answer, Unavailable)
    assert (answer.lack, answer.what) == (Lack.TOOL, "newuidmap")
    installed(monkeypatch, "lxc-execute", "newuidmap", "newgidmap")
    (ordinary / "subgid").write_text("somebody:100000:65536\n")
    answer = LxcTarget().probe()
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.PERMISSION
    assert "subgid" in answer.what
    assert "--add-subgids" in answer.hint


@pytest.mark.parametrize(
    ("error", "unified", "hint"),
    [
        ('newuidmap failed to write mapping "…"', True, "--add-subuids"),
        ('Failed to attach "veth" to bridge "br0"', True, "ip link"),
        ("Failed to setup cgroup limits", True, "Delegate=yes"),
        ("Failed to setup cgroup limits", False, "root alone"),
        ("something else", True, "lxc-checkconfig"),
    ],
)
def test_each_error_of_lxc_has_its_own_hint(
    error: str, unified: bool, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_oscontainer, "is_unified", lambda: unified)
    assert hint in lxc._hint(error)


# ---- command lines and configurations ------------------------------------------------------------


def nspawn_words(
    target: NspawnTarget, instance: _oscontainer.Instance, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    monkeypatch.setattr(nspawn, "_cgroup_parents", list)
    monkeypatch.setattr(_oscontainer.Instance, "give", lambda *_: None)
    with target._prepared(instance, nspawn._CANDIDATES[0], {"ISOBENCH": "1"}) as words:
        return words


def test_nspawn_ignores_settings_files_and_gets_its_binds(
    instance: _oscontainer.Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = nspawn_words(NspawnTarget(), instance, monkeypatch)
    assert {"--settings=no", "--private-network", "--private-users=no"} <= set(words)
    assert f"--machine={instance.name}" in words
    assert f"--bind-ro={instance.programs}:{Stage.INSIDE}" in words
    assert "--setenv=ISOBENCH=1" in words
    assert words[-1] == "--"


def test_nspawns_network_follows_the_option(
    instance: _oscontainer.Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = nspawn_words(NspawnTarget(network="host"), instance, monkeypatch)
    assert not [word for word in words if word.startswith(("--private-net", "--network"))]
    words = nspawn_words(NspawnTarget(network="veth"), instance, monkeypatch)
    (link,) = (word for word in words if word.startswith("--network-veth-extra="))
    name = link.partition("=")[2].partition(":")[0]
    assert name.startswith(nspawn.LINK)
    assert len(name) <= 15, "the kernel allows 15 characters"


@pytest.mark.parametrize(("option", "base"), [("pick", None), ("700000:65536", 700000)])
def test_nspawns_users_are_a_separate_range(option: str, base: int | None) -> None:
    users = NspawnTarget(private_users=option)._users()
    assert users is not None
    assert users[1] == 65536
    if base is None:
        assert users[0] % 65536 == 0
        assert 524288 <= users[0] <= 1878982656
    else:
        assert users[0] == base
    assert NspawnTarget()._users() is None


def test_a_colon_in_a_path_is_escaped_for_nspawn() -> None:
    assert nspawn._quoted(Path("/a:b\\c")) == "/a\\:b\\\\c"


def test_nspawns_filter_is_turned_off_by_its_variable() -> None:
    assert NspawnTarget(seccomp=False)._environment()["SYSTEMD_SECCOMP"] == "0"
    assert "SYSTEMD_SECCOMP" not in NspawnTarget()._environment()


DEFAULTS = lxc._Settings(defaults=True, unconfined=False)
BARE = lxc._Settings(defaults=False, unconfined=True)


def configuration(
    target: LxcTarget, instance: _oscontainer.Instance, settings: lxc._Settings, **variables: str
) -> list[tuple[str, str]]:
    return target._configuration(instance, settings, target._ids(), variables)


def test_roots_container_is_privileged_as_is_lxcs_default(
    instance: _oscontainer.Instance, root: None
) -> None:
    lines = configuration(LxcTarget(), instance, DEFAULTS, ISOBENCH="1")
    assert lines[0] == ("lxc.include", "/usr/share/lxc/config/common.conf")
    assert ("lxc.rootfs.path", f"dir:{instance.root}") in lines
    assert ("lxc.environment", "ISOBENCH=1") in lines
    assert ("lxc.net.0.type", "empty") in lines
    assert not [key for key, _ in lines if key in ("lxc.idmap", "lxc.apparmor.profile")]


def test_an_ordinary_user_becomes_root_with_the_subordinate_ids_as_other_users(
    instance: _oscontainer.Instance, ordinary: Path
) -> None:
    lines = configuration(LxcTarget(), instance, DEFAULTS)
    assert [value for key, value in lines if key == "lxc.idmap"] == [
        "u 0 4321 1",
        "u 1 200000 65536",
        "g 0 4322 1",
        "g 1 300000 1000",
    ]
    assert ("lxc.include", "/usr/share/lxc/config/userns.conf") in lines


def test_the_option_idmap_is_the_only_map(instance: _oscontainer.Instance, root: None) -> None:
    lines = configuration(LxcTarget(idmap="100000:65536"), instance, BARE)
    mapped = [value for key, value in lines if key == "lxc.idmap"]
    assert mapped == ["u 0 100000 65536", "g 0 100000 65536"]
    assert ("lxc.apparmor.profile", "unconfined") in lines
    assert not [key for key, _ in lines if key == "lxc.include"]


@pytest.mark.parametrize(
    ("unified", "limits"),
    [
        (False, {"lxc.cgroup.memory.limit_in_bytes": "2147483648", "lxc.cgroup.pids.max": "7"}),
        (True, {"lxc.cgroup2.memory.max": "2147483648", "lxc.cgroup2.pids.max": "7"}),
    ],
)
def test_limits_use_the_keys_of_the_hosts_cgroup_version(
    unified: bool,
    limits: dict[str, str],
    instance: _oscontainer.Instance,
    monkeypatch: pytest.MonkeyPatch,
    root: None,
) -> None:
    monkeypatch.setattr(_oscontainer, "is_unified", lambda: unified)
    lines = configuration(LxcTarget(memory="2GiB", pids=7), instance, DEFAULTS)
    set_ = {k: v for k, v in lines if k.startswith(("lxc.cgroup.", "lxc.cgroup2."))}
    assert {k: v for k, v in set_.items() if "dir" not in k} == limits


def test_a_newline_in_a_value_is_refused(instance: _oscontainer.Instance, root: None) -> None:
    with pytest.raises(SessionError, match=r"lxc\.environment"):
        configuration(LxcTarget(), instance, BARE, A="1\nlxc.rootfs.path = dir:/")


def test_a_space_in_a_path_is_escaped_for_lxc() -> None:
    assert lxc._escaped(Path("/a b\\c")) == "/a\\040b\\134c"


def test_lxc_is_tried_alone_without_hardening_or_without_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lxc, "_DEFAULTS", tmp_path)
    assert {settings.defaults for settings in LxcTarget()._candidates()} == {False}
    (tmp_path / "common.conf").touch()
    assert [settings.defaults for settings in LxcTarget()._candidates()] == [
        True,
        True,
        False,
        False,
    ]
    assert {s.defaults for s in LxcTarget(hardening="none")._candidates()} == {False}


def test_the_first_error_in_lxcs_log_is_the_reason(instance: _oscontainer.Instance) -> None:
    assert lxc._reason(instance, b"an error\n") == "an error"
    instance.log.write_text(
        "lxc-execute x 20261125145041.117 WARN     conf - ../src/conf.c:f:1 - careless\n"
        "lxc-execute x 20261125145041.117 ERROR    conf - ../src/conf.c:f:576 - No such file or"
        ' directory - Failed to open "/nowhere"\n'
        "lxc-execute x 20261125145041.630 ERROR    start - ../src/start.c:g:2079 - It failed\n"
    )
    assert lxc._reason(instance, b"") == 'No such file or directory - Failed to open "/nowhere"'
    with instance.log.open("ab") as file:
        file.truncate(1 << 40)
    assert lxc._reason(instance, b"") == 'No such file or directory - Failed to open "/nowhere"'


# ---- what both share -----------------------------------------------------------------------------


def test_an_instance_has_its_owners_name_and_its_files_are_removed(
    tmp_path: Path,
) -> None:
    with _oscontainer.trial(tmp_path, OWNER) as made:
        assert made.name.startswith(f"{OWNER}-")
        assert made.folder.name == made.name
        assert {path.name for path in made.root.iterdir()} == set(_oscontainer.MOUNT_POINTS)
    assert not made.folder.exists()


def a_stage(folder: Path) -> Stage:
    return Stage(root=folder, digest=Sha256("ab" * 32), scratch=folder, owner=OWNER)


@pytest.mark.parametrize("code", _oscontainer.TOOL_FAILURES)
def test_a_tool_that_fails_without_output_is_an_error_and_a_failed_payload_is_a_result(
    code: int, tmp_path: Path
) -> None:
    def launched(script: str) -> object:
        return _oscontainer.launch(
            ["/bin/sh", "-c", script], Command(argv=("payload",)),
            timeout=seconds(10), environment={}, reason=lambda errors: errors.decode().strip(),
        )  # fmt: skip

    with pytest.raises(SessionError, match=r"^no such thing$"):
        launched(f"echo no such thing >&2; exit {code}")
    assert getattr(launched(f"echo hello; exit {code}"), "exit_code", None) == code


def test_a_tool_that_cannot_be_executed_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SessionError, match="cannot be executed"):
        _oscontainer.launch(
            ["/nowhere/tool"], Command(argv=("payload",)),
            timeout=seconds(10), environment={}, reason=lambda _: "",
        )  # fmt: skip


def test_the_directory_that_other_users_cannot_pass_is_named() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as made:
        folder = Path(made)
        (folder / "open").mkdir(mode=0o755)
        assert processes.closed_folder(folder / "open") == folder
        folder.chmod(0o755)
        assert processes.closed_folder(folder / "open") is None
        (folder / "open").chmod(0o700)
        assert processes.closed_folder(folder / "open") == folder / "open"


def test_a_sweep_removes_a_cgroup_with_those_below_it_and_leaves_living_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_oscontainer, "CGROUPS", tmp_path)
    dead = tmp_path / "systemd" / "nspawn.isobench-m-1-2-abcd"
    alive = tmp_path / "systemd" / "nspawn.isobench-m-3-4-abcd"
    foreign = tmp_path / "systemd" / "nspawn.something"
    for folder in (dead / "payload", dead / "supervisor", alive / "payload", foreign):
        folder.mkdir(parents=True)
    found = _oscontainer.sweep_cgroups(["nspawn."], lambda owner: owner == "isobench-m-3-4")
    assert [*map(str, found)] == ["cgroups of isobench-m-1-2-abcd"]
    assert (dead.exists(), alive.exists(), foreign.exists()) == (False, True, True)


@pytest.mark.parametrize("named", ["9:name=systemd:/a/b", "8:systemd:/a/b", "0::/a/b"])
def test_the_cgroups_of_a_process_are_found_where_this_host_mounts_them(
    named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _oscontainer.cgroups_of(None) == []
    monkeypatch.setattr(_oscontainer, "CGROUPS", tmp_path)
    process = tmp_path / "proc"
    process.write_text(f"{named}\n")
    hierarchy = "unified" if named.startswith("0::") else "systemd"
    folder = tmp_path / hierarchy / "a" / "b"
    folder.mkdir(parents=True)
    monkeypatch.setattr(_oscontainer, "_membership", lambda _: process)
    assert _oscontainer.cgroups_of("self") == [folder]
