"""What Docker and Podman share; no engine is needed."""

import dataclasses
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from isobench.model import Relation, Stage
from isobench.model.units import Sha256
from isobench.targets.shared import elf, oci


def stage(root: Path, **programs: bytes) -> Stage:
    (root / "isobench").mkdir(parents=True)
    for name, content in programs.items():
        (root / "isobench" / name).write_bytes(content)
    return Stage(root=root, digest=Sha256("ab" * 32), scratch=root, owner="isobench-m-1-2")


def members(archive: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: (f.read() if (f := tar.extractfile(m)) else b"") for m in tar}


def test_an_image_holds_the_programs_of_its_stage_and_nothing_else(tmp_path: Path) -> None:
    files = members(oci.stage_archive(stage(tmp_path, _agent=b"one", payload=b"two"), "x86_64"))
    layer = members(files["layer.tar"])
    assert {name: content for name, content in layer.items() if content} == {
        "isobench/_agent": b"one",
        "isobench/payload": b"two",
    }
    assert {"proc", "dev", "sys", "tmp", "scratch"} <= set(layer)


def test_the_same_stage_gives_the_same_image_byte_for_byte(tmp_path: Path) -> None:
    first = oci.stage_archive(stage(tmp_path / "a", p=b"x", q=b"y"), "x86_64")
    second = oci.stage_archive(stage(tmp_path / "b", q=b"y", p=b"x"), "x86_64")
    assert first == second


def test_the_manifest_names_a_configuration_and_a_layer_with_the_right_hashes(
    tmp_path: Path,
) -> None:
    made = stage(tmp_path, p=b"x")
    files = members(oci.stage_archive(made, "aarch64"))
    (manifest,) = json.loads(files["manifest.json"])
    assert manifest["Layers"] == ["layer.tar"]
    assert manifest["RepoTags"] == [oci.image_name(made)]
    configuration = json.loads(files[manifest["Config"]])
    digest = hashlib.sha256(files["layer.tar"]).hexdigest()
    assert configuration["rootfs"]["diff_ids"] == [f"sha256:{digest}"]
    assert configuration["architecture"] == "arm64"
    assert configuration["config"]["Labels"] == {"isobench": "1"}


def test_programs_may_be_executed_and_scratch_written_by_anyone(tmp_path: Path) -> None:
    archive = oci.stage_archive(stage(tmp_path, p=b"x"), "x86_64")
    with tarfile.open(fileobj=io.BytesIO(members(archive)["layer.tar"])) as tar:
        modes = {member.name: member.mode for member in tar}
    assert modes["isobench/p"] == 0o755
    assert modes["scratch"] == modes["tmp"] == 0o1777


def test_the_image_for_a_probe_holds_the_smallest_program() -> None:
    files = members(oci.probe_archive("x86_64"))
    layer = members(files["layer.tar"])
    assert layer["isobench/answer"] == elf.probe_program("x86_64")


def test_an_image_is_named_by_its_content_and_has_no_registry(
    tmp_path: Path,
) -> None:
    made = stage(tmp_path)
    assert oci.image_name(made) == "localhost/isobench/stage:" + "ab" * 8


def test_everything_in_an_engine_is_labelled_with_its_owner() -> None:
    assert oci.labels("isobench-m-1-2") == {
        "isobench": "1",
        "isobench.owner": "isobench-m-1-2",
    }


def test_the_engines_own_defaults_are_tried_first() -> None:
    candidates = list(oci.candidate_settings(["", "runc"], ["", "cgroupfs"]))
    assert candidates[0] == oci.Settings()
    assert len(candidates) == len(set(candidates)) == 8
    assert {candidate.runtime for candidate in candidates} == {"", "runc"}
    assert {candidate.cgroup_manager for candidate in candidates} == {"", "cgroupfs"}
    assert {candidate.limits for candidate in candidates} == {True, False}


@pytest.mark.parametrize(
    ("settings", "description"),
    [
        (oci.Settings(), "its default runtime"),
        (oci.Settings(runtime="runc"), "runc"),
        (oci.Settings(cgroup_manager="cgroupfs"), "its default runtime, cgroup manager cgroupfs"),
        (oci.Settings(runtime="crun", limits=True), "crun, lowered limits of files and processes"),
    ],
)
def test_settings_are_described_in_words(settings: oci.Settings, description: str) -> None:
    assert settings.description() == description


def test_a_container_must_have_its_own_namespaces_and_the_hosts_kernel() -> None:
    relations = {expectation.key: expectation.relation for expectation in oci.EXPECTATIONS}
    assert relations["kernel.boot_id"] is Relation.SAME_AS_HOST
    for space in ("pid", "net", "mnt", "uts", "ipc"):
        assert relations[f"ns.{space}"] is Relation.UNLIKE_HOST


@pytest.mark.parametrize(("user", "prefix"), [(0, ""), (1000, "sudo ")])
def test_the_hint_for_a_daemon_is_a_command_with_its_name(
    monkeypatch: pytest.MonkeyPatch, user: int, prefix: str
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    hint = oci.start_daemon_hint("docker", "dockerd")
    assert hint.startswith((f"{prefix}systemctl start docker", f"{prefix}sh -c 'setsid dockerd"))


@pytest.mark.parametrize("name", ["debian:12", "localhost:5000/a/b@sha256:" + "0" * 64, "app"])
def test_an_image_has_a_name(name: str) -> None:
    assert oci.Engine(image=name).image == name


@pytest.mark.parametrize("name", ["--privileged", "a b", "a\nb", "-v/:/x", "a" * 300, "$(id)"])
def test_what_is_no_name_of_an_image_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="write the name of an image"):
        oci.Engine(image=name)


def test_an_image_of_the_users_with_payloads_is_isobenchs_and_follows_both(tmp_path: Path) -> None:
    made, other = stage(tmp_path / "a", p=b"x"), stage(tmp_path / "b", p=b"x")
    other = dataclasses.replace(other, digest=Sha256("cd" * 32))
    names = {
        oci.image_name(made, "sha256:1"),
        oci.image_name(made, "sha256:2"),
        oci.image_name(other, "sha256:1"),
    }
    assert len(names) == 3
    assert all(map(oci.is_own_image, names))


def test_the_layer_for_another_image_has_payloads_and_scratch_alone(tmp_path: Path) -> None:
    names = set(members(oci.stage_layer(stage(tmp_path, p=b"x"))))
    assert names == {"isobench", "scratch", "isobench/p"}


def test_what_an_engine_names_is_executed_only_where_nobody_else_could_have_written_it(
    tmp_path: Path,
) -> None:
    ran = tmp_path / "ran"
    runtime = tmp_path / "runc"
    runtime.write_text(f"#!/bin/sh\ntouch {ran}\necho runc 1.2\necho more\n")
    runtime.chmod(0o755)
    assert oci.runtime_version(str(runtime)) == "runc 1.2"
    ran.unlink()
    runtime.chmod(0o777)
    assert oci.runtime_version(str(runtime)) is None
    assert not ran.exists()


@pytest.mark.parametrize("program", ["", "\0x", "./runc", "no-such-runtime", "/" + "x" * 5000])
def test_what_is_no_program_has_no_version(
    program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runc").write_text("#!/bin/sh\necho 1\n")
    (tmp_path / "runc").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    assert oci.runtime_version(program) is None
