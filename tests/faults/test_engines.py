"""What an engine replies is never trusted: another form costs its target alone, and nothing that
belongs to somebody else is removed.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Lack, Leftover, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import TargetName, seconds
from isobench.plugins import deadlines, guard, ownership
from isobench.plugins.registry import Registry
from isobench.targets.containers import _podman
from isobench.targets.containers import docker as docker_target
from isobench.targets.containers.podman import PodmanTarget
from isobench.targets.shared import oci
from tests.faults import fakes

pytestmark = pytest.mark.timeout(120)
DOCKER = TargetName("docker")
DEAD = f"isobench-{ownership.mine().split('-')[1]}-1-1"
"""The owner of what a process has left that has ended: the first process began at another time."""
OWN, FOREIGN = "localhost/isobench/stage:0123456789abcdef", "mycompany/app:1"
VERSION = {"ApiVersion": "1.41", "Version": "20.10"}


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[fakes.Engine]:
    """Let DOCKER_HOST lead to an engine of fixed replies."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    docker_target._connected.cache_clear()
    made = fakes.Engine(
        {"/version": VERSION, "/info": {}, "/containers/json": [], "/images/json": []}
    )
    with made.serving(path):
        yield made
    docker_target._connected.cache_clear()


def swept(*, cached: bool = True) -> list[Leftover]:
    found: list[Leftover] = []
    targets = {DOCKER: Registry().get("docker")}
    guard.sweep(targets, ownership.alive, cached=cached, on_leftover=found.append)
    return found


def probed() -> Any:
    (answer,) = guard.probe({DOCKER: Registry().get("docker")}, lambda *_: None).values()
    return answer


def image(*names: str, **labels: str) -> dict[str, object]:
    return {"Id": f"sha256:{abs(hash(names))}", "RepoTags": list(names), "Labels": labels}


def container(identity: str, name: str, **labels: str) -> dict[str, object]:
    return {"Id": identity, "Names": [f"/{name}"], "Labels": labels}


def test_only_images_with_the_whole_mark_are_removed_and_by_name(engine: fakes.Engine) -> None:
    engine.replies["/images/json"] = [
        image(OWN, isobench="1"),
        image(FOREIGN, isobench="1"),  # built from isobench's image
        image("localhost/isobench/stage:latest", isobench="1"),
        image(OWN.replace("0", "f"), FOREIGN.replace("1", "2"), isobench="1"),
        {"Id": "sha256:1", "RepoTags": None, "Labels": {"isobench": "1"}},
    ]
    swept()
    assert engine.deleted == [f"/images/{OWN}", f"/images/{OWN.replace('0', 'f')}"]


def test_one_that_cannot_be_removed_is_reported_and_the_others_are_removed(
    engine: fakes.Engine,
) -> None:
    other = OWN.replace("0", "f")
    engine.replies["/images/json"] = [image(OWN, isobench="1"), image(other, isobench="1")]
    engine.refused = {f"/images/{OWN}"}
    first, second = swept()
    assert "it is in use" in first.failure
    assert not second.failure
    assert engine.deleted == [f"/images/{other}"]


def test_only_containers_of_dead_runs_with_the_whole_mark_are_removed(
    engine: fakes.Engine,
) -> None:
    mine, odd = ownership.mine(), "isobench-x-²-³"
    engine.replies["/containers/json"] = [
        container("dead", oci.new_name(DEAD), **oci.labels(DEAD)),
        container("mine", oci.new_name(mine), **oci.labels(mine)),
        container("half", oci.new_name(DEAD), **{**oci.labels(DEAD), "isobench": "yes"}),
        container("none", oci.new_name(DEAD), isobench="1"),
        container("odd", oci.new_name(odd), **oci.labels(odd)),
        # These have the labels of their image, which somebody has committed.
        container("lent", "my-own-database", **oci.labels(DEAD)),
        container("like", f"my-{DEAD}-0", **oci.labels(DEAD)),
        {"Id": "bare", "Labels": oci.labels(DEAD)},
    ]
    assert [one.what for one in swept(cached=False)] == ["docker container dead"]
    assert engine.deleted == ["/containers/dead"]


@pytest.mark.parametrize("is_late", [False, True], ids=["cut reply", "late container"])
def test_a_container_whose_creation_was_not_answered_is_removed_or_named(
    is_late: bool, engine: fakes.Engine
) -> None:
    engine.silent, engine.is_late = {"/containers/create"}, is_late
    with pytest.raises(SessionError) as caught:
        docker_target._made(docker_target._connect(), DEAD, "i", ["/x"])
    (name,) = re.findall(r"\?name=([\w-]+)", engine.asked[0])
    assert ownership.owner_of(name) == DEAD
    assert engine.deleted == ([] if is_late else [f"/containers/{name}"])
    assert (f"a container {name} may come yet" in str(caught.value)) is is_late
    assert ownership.take_doubt() is is_late


def test_a_container_whose_removal_is_refused_is_named_with_the_engines_message(
    engine: fakes.Engine,
) -> None:
    engine.refused = {"/containers/c1"}
    client = docker_target._connect()
    why = "the container c1 stays: it is in use"
    with pytest.raises(SessionError, match=f"^{why}$"), docker_target._removed(client, "c1"):
        pass
    assert ownership.take_doubt()
    with (
        pytest.raises(SessionError, match=f"^docker: lost; and {why}$"),
        docker_target._removed(client, "c1"),
    ):
        raise OSError("lost")
    with pytest.raises(KeyboardInterrupt), docker_target._removed(client, "c1"):
        raise KeyboardInterrupt
    assert ownership.take_doubt()


def test_clean_exits_with_6_if_something_stays(engine: fakes.Engine) -> None:
    engine.replies["/images/json"] = [image(OWN, isobench="1")]
    engine.refused = {f"/images/{OWN}"}
    # Without the tools on PATH: what other engines of this machine have stays.
    done = subprocess.run(
        [sys.executable, "-m", "isobench", "clean"],
        env={**os.environ, "PATH": "/nowhere"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "it is in use" in done.stdout
    assert done.returncode == 6, done.stderr


DISCARDED = "Your kernel does not support memory limit capabilities. Limitation discarded."
SWAP = "Your kernel does not support swap limit capabilities. Memory limited without swap."


@pytest.mark.parametrize(("warning", "is_in_force"), [(DISCARDED, False), (SWAP, True)])
def test_a_container_without_the_limit_of_its_target_is_removed_and_not_measured(
    warning: str, is_in_force: bool, engine: fakes.Engine
) -> None:
    engine.created["/containers/create"] = {"Id": "c1", "Warnings": [warning]}

    def create(**options: Any) -> str:
        return docker_target._create(
            docker_target._connect(), docker_target.DockerTarget(**options), oci.Settings(),
            image="i", command=["/x"], environment={}, owner=DEAD,
        )  # fmt: skip

    if is_in_force:
        assert create(memory="64m") == "c1"
        return
    with pytest.raises(SessionError, match="Limitation discarded"):
        create(memory="64m")
    assert engine.deleted == ["/containers/c1"]


DEEP = b"[" * 100_000 + b"]" * 100_000
ODD = [[], {}, 5, "x", None, True, [5], [[]], [{}], {"Labels": 5}, b"{", b"", DEEP, b"1e999999"]


@pytest.mark.parametrize("where", ["/version", "/info", "/containers/json", "/images/json"])
@pytest.mark.parametrize("reply", ODD, ids=lambda one: repr(one)[:12])
def test_a_reply_of_any_other_form_costs_docker_alone(
    where: str, reply: object, engine: fakes.Engine
) -> None:
    engine.replies[where] = reply
    assert isinstance(probed(), Unavailable)
    assert not engine.deleted
    assert all(one.failure for one in swept(cached=False))


@pytest.mark.parametrize(
    "version", ["../../../../x?a=1#", "1.41\n", "x", "", "1", f"1.{'9' * 9000}", 5, None]
)
def test_a_version_of_any_other_form_is_the_engines_fault(
    version: object, engine: fakes.Engine
) -> None:
    engine.replies["/version"] = {**VERSION, "ApiVersion": version}
    answer = probed()
    assert answer.lack is Lack.SERVICE
    assert "is no Docker engine, or broken: the reply is not that" in answer.what


@pytest.mark.parametrize("reply", [[], {}, 5, {"Config": 5}])
def test_a_container_of_any_other_form_is_the_engines_fault(
    reply: object, engine: fakes.Engine
) -> None:
    made = {"/containers/c1/wait": {"StatusCode": 0}, "/containers/create": {"Id": "c1"}}
    engine.created = {**made, "/images/load": {"stream": ""}, "/containers/c1/start": {"x": 1}}
    engine.replies |= {"/containers/c1/json": reply, "/containers/c1/logs": b"?"}
    assert "the probe program printed" in probed().what


def test_a_redirection_to_no_address_is_the_engines_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with fakes.listening(path, fakes.replying(b"{}", "307 Elsewhere\r\nLocation: http://[::1")):
        answer = probed()
    assert answer.lack is Lack.SERVICE
    assert "is no Docker engine, or broken: the reply is not that" in answer.what


@pytest.mark.parametrize("labels", [[], {}, {"a": {}}, {"isobench.owner": 5}, "x", 5])
def test_labels_of_any_other_form_are_no_mark(labels: object, engine: fakes.Engine) -> None:
    engine.replies["/containers/json"] = [{**container("x", oci.new_name(DEAD)), "Labels": labels}]
    swept(cached=False)
    assert not engine.deleted


# ---- tools that do not answer --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool", "kind"),
    [
        ("podman", "podman"),
        ("podman", "podman-pod"),
        ("lxc-execute", "lxc"),
        ("qemu-system-x86_64", "qemu"),
        ("qemu-system-aarch64", "qemu-aarch64"),
    ],
)
def test_a_tool_that_hangs_is_no_bug_of_isobench(
    tool: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PROBE_LIMIT", 1.0)
    monkeypatch.setattr(deadlines, "GRACE", 1.0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fakes.tool(tmp_path / "bin", tool, "exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    name = TargetName(kind)
    answer = guard.probe({name: Registry().get(kind)}, lambda *_: None)[name]
    assert isinstance(answer, Unavailable)
    assert answer.lack is not Lack.PLUGIN, answer


def test_a_podman_that_hangs_is_said_to_do_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_podman, "_TRIAL", seconds(0.2))
    monkeypatch.setattr(_podman, "_working", {})
    monkeypatch.setattr(_podman, "remove", lambda _: "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    fakes.tool(tmp_path / "bin", "podman", "exec sleep 600")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    answer = PodmanTarget().probe()
    assert isinstance(answer, Unavailable)
    assert answer.what == "podman run does not answer"
    with pytest.raises(SessionError, match="podman info: it does not answer"):
        _podman.checked("info", timeout=seconds(0.2))


# ---- temporary folders ---------------------------------------------------------------------------


def test_temporary_folders_of_dead_processes_are_removed_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead = tmp_path / f"{DEAD}-probe-abc"
    dead.mkdir()
    (dead / "answer").write_text("x")
    others = [tmp_path / "isobench-probe-abc", tmp_path / "isobench-notes"]
    for folder in others:
        folder.mkdir()
    link = tmp_path / f"{DEAD}-link-abc"
    link.symlink_to(others[0])
    file = tmp_path / f"{DEAD}-file-abc"
    file.write_text("x")
    with ownership.temporary_folder("probe") as own:
        assert own.stat().st_mode & 0o77 == 0
        removed = ownership.sweep_temporary(ownership.alive)
        assert own.is_dir()
    assert not own.exists()
    assert [one.what for one in removed] == [f"folder {dead}"]
    assert all(path.exists() for path in (*others, link, file))


def test_a_probe_that_is_killed_leaves_a_folder_that_the_next_start_removes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    child = os.fork()
    if not child:  # as `kill -9` ends it: nothing is cleaned up
        ownership.mine.cache_clear()
        with ownership.temporary_folder("probe"):
            os._exit(0)
    os.waitpid(child, 0)
    assert len([*tmp_path.iterdir()]) == 1
    ownership.sweep_temporary(ownership.alive)
    assert not [*tmp_path.iterdir()]
