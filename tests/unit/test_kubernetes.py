"""The target kubernetes: options, answers of the API, messages for refusals.

The tests run their own API server.
"""

import base64
import contextlib
import gc
import hashlib
import http.server
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.config import paths
from isobench.evidence import prove
from isobench.model import (
    Abi,
    Available,
    Command,
    Environment,
    Evidence,
    Lack,
    Stage,
    Technology,
    Unavailable,
)
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import Sha256, seconds
from isobench.plugins import deadlines, ownership
from isobench.plugins.registry import Registry
from isobench.targets.containers import _kubernetes, _pod
from isobench.targets.containers import kubernetes as module
from isobench.targets.containers.kubernetes import KubernetesTarget
from isobench.targets.shared import oci, sentry
from tests import waiting

pytest.importorskip("kubernetes")

ROOT = Path(__file__).parents[2]
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
SECRET = "t0ken-of-nobody-else"  # noqa: S105 - it opens nothing
DEAD = "isobench-000000-1-1"


def node(name: str = "one", boot: str = BOOT, **more: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": name, **more.get("metadata", {})},
        "spec": more.get("spec", {}),
        "status": {
            "conditions": [{"type": "Ready", "status": more.get("ready", "True")}],
            "nodeInfo": {"bootID": boot, "containerRuntimeVersion": "containerd://1.6.20"},
        },
    }


def pod(**state: Any) -> dict[str, Any]:
    status = [{"name": _pod.CONTAINER, "imageID": "sha256:abc", "state": state}]
    return {
        "metadata": {"name": "p", "uid": "u"},
        "spec": {"nodeName": "one", "containers": [{"name": _pod.CONTAINER, "image": "i:1"}]},
        "status": {"phase": "Pending", "containerStatuses": status},
    }


# ---- options -------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["500m", "2", "1.5", "512Mi", "1Gi", "3k"])
def test_quantities_of_kubernetes_are_accepted(value: str) -> None:
    assert KubernetesTarget(memory=value).memory == value


@pytest.mark.parametrize("options", [{"cpu": "two"}, {"memory": "512MB"}, {"memory_request": "-1"}])
def test_other_quantities_are_refused(options: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="write a quantity"):
        Registry({"kubernetes": options}).get("kubernetes")


@pytest.mark.parametrize("image", ["registry.test/a:1", "a@sha256:00"])
def test_an_image_with_a_tag_is_refused(image: str) -> None:
    with pytest.raises(ValueError, match="leave out the tag"):
        KubernetesTarget(image=image)
    assert KubernetesTarget(image="registry.test:5000/a").image


def test_a_start_timeout_of_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="above zero"):
        KubernetesTarget(start_timeout=0)


def test_the_name_of_a_runtime_class_decides_the_expectations() -> None:
    kinds = {
        "": Technology.CONTAINERIZATION,
        "nvidia": Technology.CONTAINERIZATION,
        "gvisor": Technology.SANDBOX,
        "kata-qemu": Technology.VIRTUALIZATION,
    }
    for name, kind in kinds.items():
        target = KubernetesTarget(runtime_class=name)
        relation = {p.key: p.relation for p in target.expectations}["kernel.boot_id"]
        assert target.technology is kind
        assert (relation == "same") == (kind is Technology.CONTAINERIZATION)


def test_what_is_no_hypervisor_is_not_proven_to_be_a_virtual_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "host_abi", lambda: Abi.ELF_X86_64)
    target = KubernetesTarget(runtime_class="kata-qemu")
    guest = {"kernel__boot_id": "own", "cpu__hypervisor_bit": True, "kernel__version": "#1 SMP"}
    assert unmet(target, inside(**guest, cpu__hypervisor="KVMKVMKVM")) == ""
    gvisor = guest | {"cpu__hypervisor": "KVMKVMKVM", "kernel__version": sentry.BUILD}
    assert "kernel.version" in unmet(target, inside(**gvisor))
    for signature in ("TCGTCGTCGTCG", ""):
        assert "cpu.hypervisor" in unmet(target, inside(**guest, cpu__hypervisor=signature))


def facts(**values: Any) -> Environment:
    found = {key.replace("__", "."): value for key, value in values.items()}
    return prove.gather(Evidence(key=k, value=v, source="test") for k, v in found.items())


def inside(**more: Any) -> Environment:
    spaces = {f"ns__{space}": "2" for space in ("ipc", "mnt", "net", "pid", "uts")}
    whole = {
        "kernel__boot_id": "b",
        "host__canary_readable": False,
        "mount__termination_log": "/var/lib/kubelet/pods/u/containers/isobench/1a2b",
        **spaces,
    }
    return facts(**{**whole, **more})


HOST = facts(
    kernel__boot_id="b",
    **{f"ns__{space}": "1" for space in ("ipc", "mnt", "net", "pid", "uts")},
)


def unmet(target: KubernetesTarget, seen: Environment) -> str:
    return prove.unmet(prove.check(target.expectations, host=HOST, inside=seen))


def test_a_real_pod_meets_the_expectations() -> None:
    assert unmet(KubernetesTarget(), inside()) == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mount__termination_log", None),  # not made by a kubelet
        ("mount__termination_log", "/var/lib/kubelet/pods/u/containers/sidecar/1a2b"),
        ("kernel__boot_id", "c"),  # a node that is another machine
        ("ns__net", "1"),  # the host's network
        ("host__canary_readable", True),
    ],
)
def test_each_contradiction_is_found(key: str, value: Any) -> None:
    assert key.replace("__", ".") in unmet(KubernetesTarget(), inside(**{key: value}))


def test_restricted_adds_expectations() -> None:
    target = KubernetesTarget(restricted=True)
    assert "security.seccomp" in unmet(target, inside(security__seccomp="0"))


# ---- the description of a pod --------------------------------------------------------------------


def described(target: KubernetesTarget) -> dict[str, Any]:
    return target._manifest("n", "i:1", ("/isobench/_agent",), "isobench-a-1-2", [node()])


def test_a_pod_names_its_owner_and_its_nodes() -> None:
    made = described(KubernetesTarget(tolerate=("control-plane",), pull_secret="key"))  # noqa: S106 - a name
    assert made["metadata"]["labels"] == {
        "isobench": "1", "isobench.owner": "isobench-a-1-2", "isobench.host": _pod.host()
    }  # fmt: skip
    terms = made["spec"]["affinity"]["nodeAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]["nodeSelectorTerms"]
    assert terms[0]["matchFields"][0]["values"] == ["one"]
    assert made["spec"]["tolerations"] == [{"key": "control-plane", "operator": "Exists"}]
    assert made["spec"]["imagePullSecrets"] == [{"name": "key"}]
    assert made["spec"]["automountServiceAccountToken"] is False


def test_an_image_without_a_registry_is_never_pulled() -> None:
    policies = [
        described(target)["spec"]["containers"][0]["imagePullPolicy"]
        for target in (KubernetesTarget(), KubernetesTarget(image="registry.test/a"))
    ]
    assert policies == ["Never", "IfNotPresent"]


def test_a_request_without_a_value_is_the_limit() -> None:
    target = KubernetesTarget(cpu="2", memory="1Gi", cpu_request="1")
    assert described(target)["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "2", "memory": "1Gi"},
        "requests": {"cpu": "1", "memory": "1Gi"},
    }
    assert described(KubernetesTarget())["spec"]["containers"][0]["resources"] == {}


# ---- nodes and images ----------------------------------------------------------------------------


def test_only_nodes_that_are_this_machine_count() -> None:
    found = module.local_nodes([node("far", "x"), node("near"), node("other")], BOOT)
    assert [one["metadata"]["name"] for one in found] == ["near", "other"]
    (one,) = module.local_nodes([node("near"), node("other")], BOOT, "other")
    assert one["metadata"]["name"] == "other"


@pytest.mark.parametrize(
    (("nodes", "wanted", "message")),
    [
        ([node("far", "x")], "", "none of the cluster's 1 nodes is this machine"),
        ([node("far", "x")], "far", "the node far is not this machine"),
        ([node()], "nowhere", "no node 'nowhere'"),
        ([node(ready="False")], "", "accepts no pods"),
        ([node(spec={"unschedulable": True})], "", "cordoned"),
    ],
)
def test_other_nodes_are_refused(nodes: list[dict[str, Any]], wanted: str, message: str) -> None:
    with pytest.raises(SessionError, match=message) as caught:
        module.local_nodes(nodes, BOOT, wanted)
    assert caught.value.hint


def test_the_loader_follows_from_what_a_node_reports() -> None:
    socket = {"annotations": {module._CRI_SOCKET: "unix:///run/c.sock"}}
    assert module.loader(node(metadata=socket))[:3] == ("ctr", "--address", "/run/c.sock")
    kind = node(spec={"providerID": "kind://docker/bench/bench-control-plane"})
    assert module.loader(kind) == ("kind", "load", "image-archive", "--name", "bench")
    mini = node(metadata={"labels": {"minikube.k8s.io/name": "m"}})
    assert module.loader(mini) == ("minikube", "--profile", "m", "image", "load")
    assert module.loader(node(spec={"providerID": "k3s://one"}))[0] == "k3s"
    assert module.loader(node()) == ()


def test_the_archive_replaces_its_placeholder_or_comes_last() -> None:
    push = ("skopeo", "copy", "docker-archive:{archive}", "docker://{image}")
    assert module.fill_placeholders(push, archive="/a.tar", image="r/i:1") == [
        "skopeo", "copy", "docker-archive:/a.tar", "docker://r/i:1"
    ]  # fmt: skip
    assert module.fill_placeholders(("ctr", "import"), archive="/a.tar", image="i") == [
        "ctr",
        "import",
        "/a.tar",
    ]


def test_the_ancestors_of_a_container_are_seen_on_the_host(tmp_path: Path) -> None:
    tree = {
        7: ("_agent", 5, "0::/k8s.io/c0ffee"),
        5: ("containerd (shim)", 1, "0::/"),
        1: ("init", 0, "0::/"),
    }
    for pid, (name, parent, group) in tree.items():
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) S {parent} 1 1")
        (tmp_path / str(pid) / "cgroup").write_text(group)
    assert module.ancestors("c0ffee", tmp_path) == ["_agent", "containerd (shim)", "init"]
    assert module.ancestors("absent", tmp_path) == []


# ---- a pod's status in the API -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (
            {"waiting": {"reason": "ErrImageNeverPull", "message": "absent"}},
            "the node has no image",
        ),
        ({"waiting": {"reason": "ImagePullBackOff"}}, "the node has no image"),
        ({"waiting": {"reason": "CreateContainerError", "message": "m"}}, "does not start"),
        (
            {"terminated": {"exitCode": 128, "reason": "StartError", "message": "m"}},
            "StartError: m",
        ),
    ],
)
def test_a_pod_that_cannot_run_is_given_up_at_once(state: dict[str, Any], reason: str) -> None:
    found = _pod.refusal(pod(**state))
    assert found is not None
    assert reason in found.reason
    assert found.final
    assert found.hint


def test_a_pod_without_a_node_may_get_one_later() -> None:
    waiting = pod()
    waiting["status"]["conditions"] = [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1"}
    ]
    found = _pod.refusal(waiting)
    assert found is not None
    assert (found.final, "Unschedulable: 0/1" in found.reason) == (False, True)


def test_a_pod_that_starts_is_not_refused() -> None:
    assert _pod.refusal(pod(waiting={"reason": "ContainerCreating"})) is None
    assert _pod.refusal(pod(running={})) is None
    assert _pod.ended(pod(running={})) is None
    assert _pod.ended(pod(terminated={"exitCode": 3})) == 3


def test_an_evicted_pod_is_reported() -> None:
    gone = {"spec": {}, "status": {"phase": "Failed", "reason": "Evicted", "message": "disk"}}
    found = _pod.refusal(gone)
    assert found is not None
    assert "Evicted: disk" in found.reason


def test_a_pod_that_a_policy_has_changed_is_refused() -> None:
    seen = pod(running={})
    module.check_pod(seen, "i:1", "abc")
    with pytest.raises(SessionError, match="another image of that name"):
        module.check_pod(seen, "i:1", "def")
    with pytest.raises(SessionError, match="replaced the image"):
        module.check_pod(seen, "j:1", "abc")
    seen["spec"]["hostNetwork"] = True
    with pytest.raises(SessionError, match="namespaces of the host"):
        module.check_pod(seen, "i:1", "abc")


# ---- an API server -------------------------------------------------------------------------------


Answer = tuple[int, dict[str, Any]]


class Server(http.server.ThreadingHTTPServer):
    """Gives prepared answers, and records the requests."""

    daemon_threads = False  # closing waits for the threads, so that no later test sees them close

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str, Any]] = []
        self.answers: dict[tuple[str, str], Answer] = {
            ("GET", "/version"): (200, {"gitVersion": "v1.2.3"}),
            ("GET", "/api/v1/nodes"): (200, {"items": [node()]}),
            ("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"): (
                201,
                {"status": {"allowed": True}},
            ),
            ("POST", PODS): (201, {"metadata": {"name": "p", "uid": "u"}}),
        }
        self.stream: Callable[[Handler], None] | None = None


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def answer(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        body = json.loads(self.rfile.read(length)) if length else None
        path = self.path.partition("?")[0]
        self.server.requests.append((self.command, self.path, body))
        if self.headers.get("upgrade") == "websocket" and self.server.stream is not None:
            self.upgrade()
            return
        status, document = self.server.answers.get((self.command, path), (404, {}))
        if self.headers.get("authorization") != f"Bearer {SECRET}":
            status, document = 401, {"message": "Unauthorized"}
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the library's names

    def upgrade(self) -> None:
        magic = self.headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accepted = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()  # noqa: S324 - RFC 6455
        self.send_response(101)
        for key, value in {
            "upgrade": "websocket",
            "connection": "Upgrade",
            "sec-websocket-accept": accepted,
            "sec-websocket-protocol": "v4.channel.k8s.io",
        }.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.flush()
        assert self.server.stream is not None
        self.server.stream(self)
        self.close_connection = True

    def frame(self, channel: int, data: bytes) -> None:
        """Send one message of a channel."""
        content = bytes([channel]) + data
        head = b"\x82" + (
            bytes([len(content)])
            if len(content) < 126
            else b"\x7e" + struct.pack(">H", len(content))
        )
        self.wfile.write(head + content)
        self.wfile.flush()

    def message(self) -> bytes:
        """Read one message, unmasked."""
        size = self.rfile.read(2)[1] & 0x7F
        size = struct.unpack(">H", self.rfile.read(2))[0] if size == 126 else size
        mask = self.rfile.read(4)
        return bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(size)))


PODS = "/api/v1/namespaces/bench/pods"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(
        target=made.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
    )
    thread.start()
    yield made
    made.shutdown()
    made.server_close()
    thread.join(waiting.PATIENCE)
    assert not thread.is_alive()
    _kubernetes.connect.cache_clear()
    gc.collect()  # a connection closes with its pool


def configured(path: Path, address: str) -> Path:
    document = {
        "current-context": "here",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "bench"}},
            {"name": "bare", "context": {"cluster": "c", "user": "u"}},
        ],
    }
    path.write_text(json.dumps(document))
    return path


@pytest.fixture
def config(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = configured(tmp_path / "kubeconfig", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("KUBECONFIG", str(path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def location(config: Path, **more: str) -> _kubernetes.Location:
    return _kubernetes.Location(
        kubeconfig=str(config), context=more.get("context", ""), namespace=more.get("namespace", "")
    )


@pytest.fixture
def cluster(config: Path) -> _kubernetes.Cluster:
    return _kubernetes.connect(location(config))


LOADED = KubernetesTarget(load=("cat",))


def refused(target: KubernetesTarget = LOADED) -> Unavailable:
    answer = target.probe()
    assert isinstance(answer, Unavailable), answer
    assert answer.hint
    assert SECRET not in f"{answer.what} {answer.hint}"
    assert "127.0.0.1" not in f"{answer.what} {answer.hint}"
    return answer


def test_a_probe_creates_nothing(server: Server, config: Path) -> None:
    answer = LOADED.probe()
    assert answer == Available(version="Kubernetes v1.2.3, containerd 1.6.20")
    created = [
        path
        for method, path, _ in server.requests
        if (method, path.split("?")[0]) == ("POST", PODS)
    ]
    assert created == [f"{PODS}?dryRun=All"]


def test_without_a_kubeconfig_no_cluster_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nowhere/config:/nowhere/else")
    assert (refused().lack, "no kubeconfig at /nowhere/config" in refused().what) == (
        Lack.SERVICE,
        True,
    )


def test_a_missing_client_is_named_with_what_to_type(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kubernetes, "installed", lambda: False)
    answer = refused()
    assert answer.lack is Lack.TOOL
    assert answer.hint == "isobench doctor --install kubernetes"


def test_a_client_that_does_not_load_is_reported(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_kubernetes, "installed", lambda: True)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    assert "does not load" in refused().what


def test_an_unreadable_kubeconfig_is_not_quoted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "broken"
    path.write_text(f"users: [{SECRET}: {{]")
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert "cannot be used" in refused().what


def test_a_missing_context_is_refused(config: Path) -> None:
    assert "no context of this name" in refused(KubernetesTarget(context="elsewhere")).what


def test_an_unreachable_server_is_reported_without_its_address(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configured(tmp_path / "gone", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(path))
    answer = refused()
    assert answer.lack is Lack.SERVICE
    assert answer.what == "the cluster's API server does not answer: connection refused"


def test_a_silent_server_is_given_up_at_the_time_limit(
    server: Server, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Handler, "do_GET", lambda _: time.sleep(1.5))
    cluster = _kubernetes.connect(location(config))
    with pytest.raises(_kubernetes.ApiError, match="no answer in time"):
        cluster.version(timeout=0.2)


@pytest.mark.parametrize(
    ("refusal", "lack", "answered"),
    [
        ((401, "Unauthorized"), Lack.PERMISSION, ("credentials", "log in to your cluster again")),
        ((403, 'User "jane" cannot create pods'), Lack.PERMISSION, ("this user", "role")),
        ((403, "exceeded quota: q, pods=1"), Lack.PERMISSION, ("quota", "describe quota")),
        ((403, "q: must specify limits.cpu"), Lack.PERMISSION, ("must specify", 'cpu = "1"')),
        ((403, "violates PodSecurity"), Lack.PERMISSION, ("violates", "restricted = true")),
        ((500, "etcd is away"), Lack.SERVICE, ("etcd is away", "kubectl")),
    ],
)
def test_a_refusal_has_a_reason_and_a_hint(
    server: Server, config: Path, refusal: tuple[int, str], lack: Lack, answered: tuple[str, str]
) -> None:
    (status, message), (what, hint) = refusal, answered
    server.answers["POST", PODS] = (status, {"message": message})
    answer = refused()
    assert answer.lack is lack
    assert what in answer.what
    assert hint in answer.hint
    assert "jane" not in answer.what


def test_a_missing_permission_is_named(server: Server, config: Path) -> None:
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    server.answers["POST", path] = (201, {"status": {"allowed": False}})
    assert (refused().lack, "create pods" in refused().what) == (Lack.PERMISSION, True)


def test_a_cluster_on_other_machines_is_refused_before_anything_runs(
    server: Server, config: Path
) -> None:
    server.answers["GET", "/api/v1/nodes"] = (200, {"items": [node(boot="another")]})
    answer = refused()
    assert "the difference of two machines" in answer.what
    assert not [
        1 for method, path, _ in server.requests if (method, path.split("?")[0]) == ("POST", PODS)
    ]


def test_without_the_right_to_see_nodes_the_evidence_decides(server: Server, config: Path) -> None:
    server.answers["GET", "/api/v1/nodes"] = (403, {"message": "forbidden"})
    assert isinstance(LOADED.probe(), Available)
    # A kernel of its own has another boot id: then the evidence cannot decide.
    assert (
        "may not list nodes" in refused(KubernetesTarget(load=("cat",), runtime_class="kata")).what
    )


def test_an_unknown_loader_is_refused_with_a_hint(server: Server, config: Path) -> None:
    answer = refused(KubernetesTarget())
    assert "does not know how to load an image" in answer.what
    assert "load = [" in answer.hint
    assert "is not installed" in refused(KubernetesTarget(load=("no-such-tool",))).what
    assert isinstance(KubernetesTarget(image="registry.test/a").probe(), Available)


def test_a_runtime_of_root_is_reported_with_a_hint(
    server: Server, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    socket = {"annotations": {module._CRI_SOCKET: f"unix://{tmp_path}/absent.sock"}}
    server.answers["GET", "/api/v1/nodes"] = (200, {"items": [node(metadata=socket)]})
    answer = refused(KubernetesTarget())
    assert "its runtime belongs to root" in answer.what
    assert 'load = ["sudo", "ctr", "--address"' in answer.hint


def test_the_namespace_is_the_contexts_unless_one_is_named(config: Path) -> None:
    assert _kubernetes.connect(location(config)).namespace == "bench"
    assert _kubernetes.connect(location(config, context="bare")).namespace == "default"
    assert _kubernetes.connect(location(config, namespace="mine")).namespace == "mine"


def test_keys_of_the_kubeconfig_are_in_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    path = configured(tmp_path / "kubeconfig", "https://127.0.0.1:9")
    document = json.loads(path.read_text())
    key = base64.b64encode(b"private").decode()
    document["users"][0]["user"] = {"client-key-data": key, "client-certificate-data": key}
    path.write_text(json.dumps(document))
    settings, _ = _kubernetes._configuration(location(path))
    assert list(folder.iterdir()) == []
    assert Path(settings.key_file).read_bytes() == b"private"
    assert str(settings.key_file).startswith("/proc/self/fd/")


# ---- streams -------------------------------------------------------------------------------------


def status(code: int) -> bytes:
    if code == 0:
        return b'{"status":"Success"}'
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return json.dumps({"status": "Failure", "details": {"causes": causes}}).encode()


def test_output_arrives_as_it_is_printed_and_the_exit_code_at_the_end(
    server: Server, cluster: _kubernetes.Cluster
) -> None:
    sent: list[bytes] = []

    def serve(handler: Handler) -> None:
        sent.append(handler.message())
        handler.frame(1, b"")  # a channel begins with an empty frame
        handler.frame(1, b"out" * 100)
        handler.frame(2, b"err")
        handler.frame(3, status(42))

    server.stream = serve
    received: list[bytes] = []
    with cluster.execute("p", "isobench", ["/isobench/_agent", "once"]) as stream:
        stream.send(b"request")
        assert stream.listen(received.append, time.monotonic() + 10)
    assert sent == [b"\x00request"]
    assert (stream.out, stream.err, stream.exit_code()) == (b"out" * 100, b"err", 42)
    assert received == [b"out" * 100]
    path = server.requests[-1][1]
    assert "command=%2Fisobench%2F_agent&command=once" in path
    assert "container=isobench" in path


def test_a_silent_process_is_given_up_at_the_time_limit(
    server: Server, cluster: _kubernetes.Cluster
) -> None:
    server.stream = lambda handler: (handler.frame(1, b"x"), time.sleep(1))[1]
    with cluster.attach("p", "isobench") as stream:
        assert not stream.listen(lambda _: None, time.monotonic() + 0.3)
    assert (stream.out, stream.status) == (b"x", None)


PING, DRIP = b"\x89\x00", b"\x82\x7e\xff\xff"
"""A frame that pings, and the head of a frame of 65535 bytes."""


@pytest.mark.parametrize("sent", [PING, b"x"], ids=["pings", "drips"])
def test_a_stream_ends_at_the_time_limit_whatever_is_sent(
    sent: bytes, server: Server, cluster: _kubernetes.Cluster
) -> None:
    def serve(handler: Handler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"" if sent == PING else DRIP)
            while True:
                handler.wfile.write(sent)
                time.sleep(0.05)

    server.stream = serve
    with cluster.attach("p", "isobench") as stream:
        assert not stream.listen(lambda _: None, time.monotonic() + 0.3)


def test_an_answer_ends_at_the_time_limit_whatever_is_sent(
    server: Server, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def drip(handler: Handler) -> None:
        with contextlib.suppress(OSError):
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            while True:
                handler.wfile.write(b"a")
                time.sleep(0.05)

    monkeypatch.setattr(Handler, "do_GET", drip)
    monkeypatch.setattr(_kubernetes, "CONNECTING", 0.1)
    cluster = _kubernetes.connect(location(config))
    with pytest.raises(_kubernetes.ApiError, match="no answer in time"):
        cluster.version(timeout=0.2)
    monkeypatch.setattr(_kubernetes, "ANSWERING", 0.2)
    monkeypatch.setattr(_kubernetes, "CONNECTING", 5.0)
    with pytest.raises(_kubernetes.ApiError, match="does not answer"):
        cluster.attach("p", "isobench")


@pytest.mark.parametrize(
    "document",
    [
        {"status": 5},
        {"details": 5},
        {"details": {"causes": 5}},
        {"details": {"causes": [5]}},
        {"details": {"causes": [{"reason": "ExitCode", "message": 5}]}},
        {"details": {"causes": [{"reason": "ExitCode", "message": "²"}]}},
        {"details": {"causes": [{"reason": "ExitCode", "message": "9" * 9000}]}},
    ],
    ids=str,
)
def test_an_end_of_any_other_form_is_the_clusters_fault(
    document: dict[str, Any], server: Server, cluster: _kubernetes.Cluster
) -> None:
    server.stream = lambda handler: handler.frame(3, json.dumps(document).encode())
    with cluster.execute("p", "isobench", ["/x"]) as stream:
        assert stream.listen(lambda _: None, time.monotonic() + 5)
        with pytest.raises(_kubernetes.ApiError):
            stream.exit_code()


ODD = [{}, {"metadata": 5}, {"metadata": {"name": "p", "labels": 5}}, pod() | {"status": []}]


@pytest.mark.parametrize("document", [*ODD, pod(terminated=5), pod() | {"spec": 5}], ids=str)
def test_a_pod_of_any_other_form_is_the_clusters_fault(
    document: dict[str, Any], server: Server, cluster: _kubernetes.Cluster
) -> None:
    server.answers["GET", f"{PODS}/p"] = server.answers["POST", PODS] = (200, document)
    server.answers["GET", PODS] = (200, {"items": [document]})
    for ask in (lambda: cluster.pod("p"), lambda: cluster.pods("x"), lambda: cluster.create({})):
        with pytest.raises(_kubernetes.ApiError, match="is not that of a Kubernetes API server"):
            ask()


@pytest.mark.parametrize(
    "items", [5, [5], [{}], [node() | {"spec": 5}], [node() | {"status": {}}]], ids=str
)
def test_nodes_of_any_other_form_are_the_clusters_fault(
    items: object, server: Server, config: Path
) -> None:
    server.answers["GET", "/api/v1/nodes"] = (200, {"items": items})
    assert "is not that of a Kubernetes API server" in refused().what


def test_a_broken_stream_is_an_error(server: Server, cluster: _kubernetes.Cluster) -> None:
    server.stream = lambda handler: handler.frame(1, b"x")
    with (
        cluster.attach("p", "isobench") as stream,
        pytest.raises(_kubernetes.ApiError, match="stream is lost"),
    ):
        stream.listen(lambda _: None, time.monotonic() + 5)


def test_a_program_that_never_started_has_no_exit_code(
    server: Server, cluster: _kubernetes.Cluster
) -> None:
    server.stream = lambda handler: handler.frame(3, b"no such file in the container")
    with cluster.execute("p", "isobench", ["/x"]) as stream:
        assert stream.listen(lambda _: None, time.monotonic() + 5)
        with pytest.raises(_kubernetes.ApiError, match="no such file"):
            stream.exit_code()


def test_a_refused_stream_has_a_reason(server: Server, cluster: _kubernetes.Cluster) -> None:
    server.answers["GET", f"{PODS}/p/exec"] = (403, {"message": 'User "jane" cannot get pods/exec'})
    with pytest.raises(_kubernetes.ApiError, match="this user cannot get") as caught:
        cluster.execute("p", "isobench", ["/x"])
    assert caught.value.status == 403


# ---- records of pods that are to be removed ------------------------------------------------------


def left(server: Server, config: Path, labels: dict[str, str]) -> Path:
    """Leave a pod and its record, as a killed run does."""
    record = _pod._record(f"{DEAD}-00", location(config, namespace="bench"))
    path = f"{PODS}/{DEAD}-00"
    document = {"metadata": {"name": f"{DEAD}-00", "uid": "u", "labels": labels}}
    server.answers["GET", path] = (200, document)
    return record


def deleted(server: Server) -> list[Any]:
    return [body for method, _, body in server.requests if method == "DELETE"]


def test_the_pod_of_a_dead_run_is_removed_with_its_record(
    server: Server, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = left(server, config, oci.labels(DEAD))
    monkeypatch.setattr(
        _pod.Pod,
        "_gone",
        lambda *_, **__: server.answers.pop(("GET", f"{PODS}/{DEAD}-00")) is not None,
    )
    assert [*map(str, _pod.sweep(lambda _: False))] == [f"pod {DEAD}-00"]
    assert deleted(server) == [{"gracePeriodSeconds": 1, "preconditions": {"uid": "u"}}]
    assert not record.exists()


def test_a_pod_of_the_same_name_with_other_labels_is_left_alone(
    server: Server, config: Path
) -> None:
    record = left(server, config, {"app": "another"})
    assert _pod.sweep(lambda _: False) == []
    assert (deleted(server), record.exists()) == ([], False)


def test_pods_of_living_runs_are_left_alone(server: Server, config: Path) -> None:
    record = left(server, config, oci.labels(DEAD))
    assert _pod.sweep(lambda _: True) == []
    assert (server.requests, record.exists()) == ([], True)


def test_an_unreachable_cluster_is_reported_and_the_record_stays(
    tmp_path: Path, config: Path
) -> None:
    gone = configured(tmp_path / "gone", "http://127.0.0.1:9")
    records = [_pod._record(f"{DEAD}-0{n}", location(gone)) for n in range(2)]
    lines = [*map(str, _pod.sweep(lambda _: False))]
    assert len(lines) == 2
    assert all("not removed" in line and "127" not in line for line in lines)
    assert all(record.exists() for record in records)
    assert all(record.stat().st_mode & 0o077 == 0 for record in records)


def test_an_invalid_record_is_removed(config: Path) -> None:
    record = paths.cache() / "pods" / f"{DEAD}-00.json"
    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert _pod.sweep(lambda _: False) == []
    assert not record.exists()


def test_labelled_pods_of_other_hosts_are_not_requested(
    server: Server, cluster: _kubernetes.Cluster
) -> None:
    server.answers["GET", PODS] = (200, {"items": []})
    assert _pod.sweep_labelled(cluster, ownership.alive) == []
    assert f"isobench.host%3D{_pod.host()}" in server.requests[-1][1]


def test_a_refused_creation_leaves_no_record(server: Server, config: Path) -> None:
    server.answers["POST", PODS] = (403, {"message": "exceeded quota: pods"})
    cluster = _kubernetes.connect(location(config))
    made = LOADED._manifest(f"{ownership.mine()}-0", "i:1", ("a",), ownership.mine(), [])
    with (
        pytest.raises(SessionError, match="exceeded quota"),
        _pod.created(cluster, location(config), made),
    ):
        pytest.fail("created")
    assert list((paths.cache() / "pods").iterdir()) == []


def test_after_a_pod_that_does_not_start_its_image_is_loaded_again(
    server: Server, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    monkeypatch.setattr(module, "_loaded", {})
    monkeypatch.setattr(
        module, "_load_image", lambda _command, image, _stage: loads.append(image) or "digest"
    )

    @contextlib.contextmanager
    def created(*_: object) -> Iterator[_pod.Pod]:
        raise SessionError("the node has no image")
        yield

    monkeypatch.setattr(_pod, "created", created)
    stage = Stage(root=tmp_path, digest=Sha256("0" * 64), tools={}, scratch=tmp_path, owner="x")
    for _ in range(2):
        with pytest.raises(SessionError, match="no image"), LOADED.open(stage):
            pytest.fail("it was opened")
    with pytest.raises(SessionError, match="no image"):
        LOADED.launch(stage, Command(argv=("_startup",)), timeout=seconds(1))
    assert len(loads) == 3


@pytest.mark.parametrize("status", [200, 403])
def test_an_answer_without_end_is_given_up(
    status: int, server: Server, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flood(handler: Handler) -> None:
        handler.send_response(status)
        handler.end_headers()  # it ends with the connection
        with contextlib.suppress(OSError):
            for _ in range(1000):
                handler.wfile.write(b" " * (1 << 20))

    monkeypatch.setattr(Handler, "do_GET", flood)
    cluster = _kubernetes.connect(location(config))
    with pytest.raises(_kubernetes.ApiError, match="longer than 16 MiB"):
        cluster.version()


def test_an_answer_that_is_nested_without_end_is_none() -> None:
    deep = b"[" * 100_000
    assert _kubernetes._object(deep) == {}
    assert _kubernetes._decoded(deep)["status"] == "Failure"


def test_a_login_helper_that_hangs_ends_with_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = configured(tmp_path / "kubeconfig", "http://127.0.0.1:9")
    document = json.loads(path.read_text())
    note = tmp_path / "pid"
    helper = {
        "command": "sh",
        "args": ["-c", f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 600"],
    }
    version = "client.authentication.k8s.io/v1beta1"
    document["users"][0]["user"] = {"exec": {"apiVersion": version, **helper}}
    path.write_text(json.dumps(document))

    def cancel_when_it_runs(call: deadlines.Deadline) -> None:
        while not note.exists():
            time.sleep(0.01)
        call.cancel()

    with deadlines.watched(60) as call:
        watching = threading.Thread(target=cancel_when_it_runs, args=(call,), daemon=True)
        watching.start()
        with contextlib.suppress(_kubernetes.ApiError):
            _kubernetes._configuration(location(path))
    watching.join(waiting.PATIENCE)
    assert not psutil.pid_exists(int(note.read_text()))


def test_a_login_helper_logs_in(server: Server, config: Path) -> None:
    version = "client.authentication.k8s.io/v1beta1"
    answer = {"apiVersion": version, "kind": "ExecCredential", "status": {"token": SECRET}}
    document = json.loads(config.read_text())
    helper = {"apiVersion": version, "command": "echo", "args": [json.dumps(answer)]}
    document["users"][0]["user"] = {"exec": helper}
    config.write_text(json.dumps(document))
    assert _kubernetes.connect(location(config)).version() == "v1.2.3"


@pytest.mark.parametrize("is_terminal", [False, True])
def test_what_a_login_helper_prints_reaches_no_terminal_and_no_message(
    is_terminal: bool,
    config: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    version = "client.authentication.k8s.io/v1beta1"
    document = json.loads(config.read_text())
    script = f"echo '::error::{SECRET}' >&2; exit 3"
    helper = {"apiVersion": version, "command": "sh", "args": ["-c", script]}
    document["users"][0]["user"] = {"exec": helper}
    config.write_text(json.dumps(document))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    with pytest.raises(_kubernetes.ApiError) as caught:
        _kubernetes._configuration(location(config))
    assert str(caught.value) == "the login helper of the kubeconfig failed (exit code 3)"
    assert "".join(capfd.readouterr()) == ""


def test_doctor_prints_nothing_that_a_login_helper_has_said(config: Path, tmp_path: Path) -> None:
    document = json.loads(config.read_text())
    script = f"printf '\\033]0;x\\007::error::{SECRET}' >&2; exit 3"
    version = "client.authentication.k8s.io/v1beta1"
    helper = {"apiVersion": version, "command": "sh", "args": ["-c", script]}
    document["users"][0]["user"] = {"exec": helper}
    config.write_text(json.dumps(document))
    done = subprocess.run(
        [sys.executable, "-m", "isobench", "doctor", "kubernetes"],
        env={**os.environ, "KUBECONFIG": str(config), "PYTHONPATH": str(ROOT)},
        cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert "failed (exit code 3)" in " ".join(done.stdout.split())
    assert done.stderr == ""
    assert SECRET not in done.stdout
    assert "\x1b" not in done.stdout
