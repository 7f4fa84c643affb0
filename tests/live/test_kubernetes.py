"""Pods of a real cluster: what the contract does not ask of every target."""

import json
import os
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Available, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.plugins import ownership
from isobench.plugins.api import Target
from isobench.targets.containers import _kubernetes, _pod
from isobench.targets.containers.kubernetes import KubernetesTarget
from isobench.targets.shared import oci
from tests import waiting
from tests.conftest import PROGRAM, Staged
from tests.live import cluster as real
from tests.live.conftest import Command

pytestmark = pytest.mark.live
PATIENCE = seconds(60)
Make = Callable[[Target], Staged]


@pytest.fixture
def own(cluster: Path) -> Path:
    """The cluster of tests/live/cluster.py: these tests change it, so a user's own will not do."""
    if cluster != real.RUN / "kubeconfig":
        pytest.skip("these tests change the cluster: unset KUBECONFIG")
    return cluster


@pytest.fixture
def namespace(own: Path) -> str:
    """A namespace to set rules in; it goes with the cluster, since nobody here ends one."""
    name = f"tests-{secrets.token_hex(4)}"
    real.ask("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def all_pods() -> list[str]:
    return [pod["metadata"]["name"] for pod in real.ask("GET", "/api/v1/pods")["items"]]


def tasks() -> list[str]:
    return real.said(*real.CTR, "tasks", "list", "-q")


def test_what_runs_is_what_the_api_says(own: Path, staged: Make) -> None:
    target = KubernetesTarget(cpu="2", memory="512Mi", cpu_request="100m")
    one = staged(target)
    with target.open(one.stage) as session:
        assert session.run(one.command(PROGRAM, "end", "0"), timeout=PATIENCE).exit_code == 0
        seen = {fact.key: fact.value for fact in session.witness()}  # type: ignore[attr-defined]
        container = str(seen["host.pod.container"]).removeprefix("containerd://")
        assert container in tasks()
    assert seen["host.pod.node"] == real.NODE
    assert "containerd-shim" in str(seen["host.pod.ancestors"])
    assert seen["host.pod.child_of_kubernetes"] is False
    assert seen["host.pod.quality"] == "Burstable"
    assert json.loads(str(seen["host.pod.resources"])) == {
        "limits": {"cpu": "2", "memory": "512Mi"},
        "requests": {"cpu": "100m", "memory": "512Mi"},
    }
    assert seen["host.node.boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert container not in tasks()
    assert all_pods() == []


def test_restricted_pods_are_seen_to_be_so(own: Path, staged: Make) -> None:
    target = KubernetesTarget(restricted=True)
    one = staged(target)
    with target.open(one.stage) as session:
        said = session.run(one.command("_evidence", "cafe"), timeout=PATIENCE).stdout
    facts = {
        line["fact"]: line["value"] for line in map(json.loads, said.splitlines()) if "fact" in line
    }
    assert facts["security.no_new_privs"] == "1"
    assert facts["security.seccomp"] == "2"
    assert facts["security.cap_effective"] == "0000000000000000"
    assert facts["user.uid"].split()[0] == "65534"


def test_a_node_that_cannot_take_it_is_told_by_the_scheduler(own: Path, staged: Make) -> None:
    target = KubernetesTarget(cpu="900", start_timeout=3)
    with (
        pytest.raises(SessionError, match=r"no node takes the pod: Unschedulable.*cpu"),
        target.open(staged(target).stage),
    ):
        pytest.fail("opened")
    assert all_pods() == []


def test_an_image_that_is_not_there_is_told_at_once(own: Path, staged: Make) -> None:
    target = KubernetesTarget(load=("true",))  # claims to have brought it
    one = staged(target)
    stage = replace(one.stage, digest=type(one.stage.digest)("0" * 64))
    began = time.monotonic()
    with pytest.raises(SessionError, match="ErrImageNeverPull") as caught, target.open(stage):
        pytest.fail("opened")
    assert "load = [" in caught.value.hint
    assert time.monotonic() - began < 45
    assert all_pods() == []


def test_a_registry_that_does_not_answer_is_told(own: Path, staged: Make) -> None:
    target = KubernetesTarget(image="127.0.0.1:9/isobench")
    with (
        pytest.raises(SessionError, match="the node has no image: ErrImagePull"),
        target.open(staged(target).stage),
    ):
        pytest.fail("opened")
    assert all_pods() == []


def test_an_image_of_another_content_is_refused(own: Path, staged: Make) -> None:
    """What bears our image's name and is not what was brought there."""
    target = KubernetesTarget()
    one = staged(target)
    with target.open(one.stage) as session:
        fooled = replace(session, ready=replace(session.ready, digest="0" * 64))  # type: ignore[type-var,attr-defined]
        with pytest.raises(SessionError, match="another image of that name"):
            list(fooled.witness())  # type: ignore[attr-defined]


def test_a_quota_is_told_before_anything_runs(own: Path, namespace: str) -> None:
    path = f"/api/v1/namespaces/{namespace}/resourcequotas"
    hard = {"hard": {"pods": "0"}}
    quota = {"metadata": {"name": "none"}, "spec": hard}
    made = real.ask("POST", path, quota)
    # Nobody counts in this cluster: the quota's status is what admission goes by.
    real.ask("PUT", f"{path}/none/status", {**made, "status": {**hard, "used": {"pods": "0"}}})
    answer: Any = None
    for _ in range(50):  # the server hears of it by and by
        answer = KubernetesTarget(namespace=namespace).probe()
        if isinstance(answer, Unavailable):
            break
        time.sleep(0.1)
    assert isinstance(answer, Unavailable), answer
    assert "exceeded quota" in answer.what
    assert "describe quota" in answer.hint


def test_who_may_do_nothing_is_told_so(
    own: Path, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(real.RUN / "kubeconfig-guest"))
    answer = KubernetesTarget(namespace=namespace).probe()
    assert isinstance(answer, Unavailable)
    assert "may not create pods" in answer.what
    assert "guest" not in answer.what


def test_the_role_that_the_hint_names_is_enough(
    own: Path, namespace: str, staged: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(real.RUN / "kubeconfig-guest"))
    verbs = _kubernetes.ROLE_HINT.partition("--verb=")[2].split()[0].split(",")
    resources = _kubernetes.ROLE_HINT.partition("--resource=")[2].split()[0].strip(";").split(",")
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    rules = [{"apiGroups": [""], "resources": resources, "verbs": verbs}]
    real.ask("POST", f"{rbac}/roles", {"metadata": {"name": "isobench"}, "rules": rules})
    group = "rbac.authorization.k8s.io"
    binding = {
        "metadata": {"name": "isobench"},
        "roleRef": {"apiGroup": group, "kind": "Role", "name": "isobench"},
        "subjects": [{"apiGroup": group, "kind": "User", "name": "guest"}],
    }
    real.ask("POST", f"{rbac}/rolebindings", binding)
    # A user who may not list nodes must configure how an image is loaded.
    target = KubernetesTarget(namespace=namespace, load=(*real.CTR, "images", "import"))
    deadline = time.monotonic() + 10
    while not isinstance(answer := target.probe(), Available):
        assert time.monotonic() < deadline, answer
        time.sleep(0.1)
    one = staged(target)
    with target.open(one.stage) as session:
        assert session.run(one.command(PROGRAM, "end", "7"), timeout=PATIENCE).exit_code == 7
    assert (
        target.launch(one.stage, one.command(PROGRAM, "end", "9"), timeout=PATIENCE).exit_code == 9
    )
    assert all_pods() == []


def test_a_pod_that_somebody_deletes_is_a_session_that_is_gone(own: Path, staged: Make) -> None:
    target = KubernetesTarget()
    one = staged(target)
    with target.open(one.stage) as session:
        (name,) = all_pods()
        gone = threading.Timer(
            1, lambda: real.ask("DELETE", f"/api/v1/namespaces/default/pods/{name}")
        )
        gone.start()
        with pytest.raises(SessionError):
            session.run(one.command(PROGRAM, "linger", "nobody"), timeout=PATIENCE)
            session.run(one.command(PROGRAM, "end", "0"), timeout=PATIENCE)
        gone.join(waiting.PATIENCE)


def test_memory_past_the_limit_is_no_answer(own: Path, staged: Make) -> None:
    target = KubernetesTarget(memory="16Mi")
    one = staged(target)
    with target.open(one.stage) as session:
        facts = session.run(one.command("_evidence", "cafe"), timeout=PATIENCE)
        assert facts.exit_code == 0


def test_pods_of_other_owners_are_left_alone(own: Path) -> None:
    """Labelled as ours, but of another machine, of a living owner, with no label at all, or with
    a name of its own."""
    where = "/api/v1/namespaces/default/pods"
    spec = {
        "containers": [{"name": _pod.CONTAINER, "image": real.PAUSE, "imagePullPolicy": "Never"}],
        "automountServiceAccountToken": False,
    }
    dead = ownership.mine().replace(f"-{os.getpid()}-", "-999999999-")
    strangers = {
        "stranger": {"app": "theirs"},
        "other-machine": {**oci.labels("isobench-ffffff-1-1"), _pod.HOST_LABEL: "ffffffffffff"},
        "living": _pod.labels(ownership.mine()),
        "lent": _pod.labels(dead),
        f"{dead}-0": _pod.labels(dead),
    }
    try:
        for name, labels in strangers.items():
            real.ask("POST", where, {"metadata": {"name": name, "labels": labels}, "spec": spec})
        assert f"pod {dead}-0" in KubernetesTarget().sweep(ownership.alive, cached=True)
        assert set(all_pods()) == set(strangers) - {f"{dead}-0"}
    finally:
        for name in all_pods():
            real.ask("DELETE", f"{where}/{name}", {"gracePeriodSeconds": 0})


def test_clean_takes_the_image_from_the_node(own: Path, staged: Make) -> None:
    target = KubernetesTarget()
    one = staged(target)
    with target.open(one.stage):
        pass
    image = oci.image_name(one.stage)
    assert image in real.said(*real.CTR, "images", "ls", "-q")
    assert f"image {image}" in target.sweep(ownership.alive, cached=True)
    assert image not in real.said(*real.CTR, "images", "ls", "-q")
    with target.open(one.stage) as session:  # and it is brought there again
        assert session.run(one.command(PROGRAM, "end", "0"), timeout=PATIENCE).exit_code == 0


@pytest.mark.timeout(1800)
def test_a_whole_run_tells_nothing_of_the_kubeconfig(own: Path, isobench: Command) -> None:
    ran = isobench(
        "run", "--targets", "kubernetes", "--workloads", "syscall.getppid,startup.exec",
        "--blocks", "3", "--min-blocks", "3", timeout=600,
    )  # fmt: skip
    assert ran.code == 0, ran.said
    cells = {
        cell["workload"]: cell for cell in ran.summary()["cells"] if cell["target"] == "kubernetes"
    }
    assert cells["syscall.getppid"]["ratio"] > 0
    written = b"".join(path.read_bytes() for path in ran.latest.rglob("*") if path.is_file())
    token = (real.RUN / "token").read_bytes()
    assert token not in written + ran.out.encode() + ran.err.encode()
    assert f"127.0.0.1:{real.API}".encode() not in written
    assert b"kubeconfig" not in written
    assert all_pods() == []


def test_an_interrupted_run_leaves_no_pod(own: Path, isobench: Command) -> None:
    process = isobench.start(
        "run", "--targets", "kubernetes", "--workloads", "cpu.sieve", "--blocks", "50"
    )
    deadline = time.monotonic() + 120
    while not all_pods():
        assert process.poll() is None, process.communicate(timeout=waiting.PATIENCE)
        assert time.monotonic() < deadline
        time.sleep(0.2)
    process.send_signal(2)
    process.communicate(timeout=120)
    assert process.returncode == 130
    assert all_pods() == []


def test_without_the_client_isobench_still_works(own: Path) -> None:
    hidden = (
        "import sys; sys.modules['kubernetes'] = None\n"
        "from isobench.plugins.registry import Registry\n"
        "from isobench.targets import _kubernetes\n"
        "_kubernetes.installed = lambda: False\n"
        "print(Registry().get('kubernetes').probe().hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", hidden], capture_output=True, text=True, check=True, env=os.environ
    )
    assert done.stdout.strip() == "isobench doctor --install kubernetes"
