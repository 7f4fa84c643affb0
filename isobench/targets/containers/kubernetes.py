"""A pod of a Kubernetes cluster: whichever the user's kubeconfig leads to.

    [targets.kubernetes]
    context = "kind-bench"           # empty: the current one
    load = ["kind", "load", "image-archive", "--name", "bench", "{archive}"]

A session is a pod whose container waits, and payloads are executed in it; a launch is a pod that
runs the payload to its end. Both are asked for by the API alone, as a user's would be; no kubectl.

Native's figures are this machine's, so a pod counts only on a node that is this machine: one with
its boot id. On any other, a ratio would compare two machines.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Fact,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.containers import _kubernetes, _pod
from isobench.targets.shared import agent_request, oci, processes

_LOADING: Final = seconds(600)
_AGENT: Final = f"{Stage.INSIDE}/_agent"
_ONCE: Final = (_AGENT, "once")
_QUANTITY: Final = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?", re.ASCII)
_NOBODY: Final = 65534
_REPORTED: Final = 15.0
"""Seconds that a kubelet gets to report a container that already answers."""
_CRI_SOCKET: Final = "kubeadm.alpha.kubernetes.io/cri-socket"
_OWN_KERNEL: Final = {"kata": Technology.VIRTUALIZATION, "gvisor": Technology.SANDBOX,
                      "runsc": Technology.SANDBOX}  # fmt: skip
_SPELLED: Final = (
    '[targets.kubernetes] / load = ["ctr", "-n", "k8s.io", "images", "import"] with containerd,'
    ' ["kind", "load", "image-archive", "--name", "CLUSTER"] with kind,'
    ' ["minikube", "image", "load"] with minikube, ["docker", "load", "-i"] with Docker'
)
_loaded: dict[tuple["KubernetesTarget", str], str] = {}
"""Images that this process has brought to a cluster, with the digest that a node should show."""


@dataclass(frozen=True, kw_only=True)
class KubernetesTarget:
    """A pod of the cluster that the kubeconfig leads to."""

    name: ClassVar[TargetName] = TargetName("kubernetes")
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("load",)
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "a pod from a cached image: from the POST of the pod to the payload's nonce, by way"
        " of API server, scheduler, kubelet, sandbox, network set-up, container and the attached"
        " stream; isobench's agent is the first process and executes the payload once attached",
        "warm": "the same once more: a pod that has ended is never started again",
        "exec": "the API's exec in a pod that runs: a connection to the API server, the kubelet,"
        " the runtime, isobench's agent, and by it the payload",
    }

    context: str = ""
    """Of the kubeconfig (KUBECONFIG, else ~/.kube/config); empty: the current one."""
    namespace: str = ""
    """Empty: the context's own, and without one "default"."""
    node: str = ""
    """Empty: whichever node is this machine."""
    runtime_class: str = ""
    """A RuntimeClass of the cluster: "gvisor", "kata". Its name decides what must be seen: a kernel
    of its own where "kata", "gvisor" or "runsc" is part of it.
    """
    image: str = ""
    """A repository, without a tag: "registry.example.com/team/isobench". The tag is the content's
    hash, so that an image of other payloads is never taken for this one. Empty: an image without a
    registry, which `load` brings to the node.
    """
    load: tuple[str, ...] = ()
    """A command that brings an image archive (the format of `docker save`) to the node or to the
    registry; its words may hold {archive} and {image}; without {archive} the path is the last word.
    Empty: what the node itself says of its runtime, where isobench knows the tool; with `image`:
    it is in the registry.
    """
    pull_secret: str = ""
    """The secret of the namespace by which a registry lets the node in."""
    cpu: str = ""
    """Limit: "500m", "2". Empty: none."""
    memory: str = ""
    """Limit: "512Mi". Empty: none."""
    cpu_request: str = ""
    """What the scheduler sets aside; empty: the limit's."""
    memory_request: str = ""
    tolerate: tuple[str, ...] = ()
    """Taints to tolerate, by key: "node-role.kubernetes.io/control-plane"."""
    restricted: bool = False
    """Ask for what the Pod Security Standard "restricted" demands: not root, no capability, no new
    privileges, the runtime's seccomp filter.
    """
    start_timeout: float = 60.0
    """Seconds within which a pod must run."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        for field in ("cpu", "memory", "cpu_request", "memory_request"):
            value = getattr(self, field)
            if value and not _QUANTITY.fullmatch(value):
                raise ValueError(f'{field} = "{value}" is no quantity of Kubernetes: "500m", "1Gi"')
        if "@" in self.image or ":" in self.image.rpartition("/")[2]:
            raise ValueError(f'image = "{self.image}": without a tag, which isobench gives it')
        if self.start_timeout <= 0:
            raise ValueError("start_timeout is seconds above zero")

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def technology(self) -> Technology:
        """A container, unless the RuntimeClass is one of a sandbox's or a virtual machine's."""
        found = (kind for word, kind in _OWN_KERNEL.items() if word in self.runtime_class.lower())
        return next(found, Technology.CONTAINERIZATION)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What must be seen from inside: that a kubelet made it, here, and how far apart it is."""
        canary = Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False)
        if self.technology is not Technology.CONTAINERIZATION:
            unlike = Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST)
            bit = Expectation(key="cpu.hypervisor_bit", relation=Relation.EQUALS, value=True)
            x86 = host_abi() is Abi.ELF_X86_64
            machine = self.technology is Technology.VIRTUALIZATION and x86
            return (unlike, *((bit,) if machine else ()), canary)
        restricted = {
            "security.no_new_privs": "1",
            "security.seccomp": "2",
            "security.cap_effective": "0000000000000000",
        }
        return (
            Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
            *(
                Expectation(key=f"ns.{space}", relation=Relation.UNLIKE_HOST)
                for space in ("ipc", "mnt", "net", "pid", "uts")
            ),
            # A kubelet mounts the file for a container's last words from its own folder of the pod:
            # no engine that runs containers does.
            Expectation(
                key="mount.termination_log",
                relation=Relation.CONTAINS,
                value=f"/containers/{_pod.CONTAINER}/",
            ),
            *(
                Expectation(key=key, relation=Relation.EQUALS, value=value)
                for key, value in (restricted if self.restricted else {}).items()
            ),
            canary,
        )

    @property
    def _place(self) -> _kubernetes.Place:
        return _kubernetes.Place(
            kubeconfig=_kubernetes.kubeconfig(), context=self.context, namespace=self.namespace
        )

    # ---- probing ---------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Ask the cluster whether it would take a pod. None is created: whoever lists targets does
        not want something scheduled in somebody's cluster.
        """
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="no payloads for this host", hint="use Linux on x86_64"
            )
        if not _kubernetes.has_kubeconfig(_kubernetes.kubeconfig()):
            return Unavailable(
                lack=Lack.SERVICE,
                what=f"no cluster is known: there is no kubeconfig at {_kubernetes.kubeconfig()}",
                hint="export KUBECONFIG=/path/to/kubeconfig, or put one at ~/.kube/config",
            )
        if not _kubernetes.installed():
            return Unavailable(
                lack=Lack.TOOL,
                what="the Python package kubernetes",
                hint="isobench doctor --install kubernetes",
            )
        try:
            return self._ask(_kubernetes.connect(self._place))
        except _kubernetes.ApiError as error:
            lack = Lack.PERMISSION if error.status in (401, 403) else Lack.SERVICE
            return Unavailable(lack=lack, what=str(error), hint=error.hint)
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)

    def _ask(self, cluster: _kubernetes.Cluster) -> Availability:
        version = cluster.version()
        denied = _denied(cluster)
        if denied:
            return Unavailable(
                lack=Lack.PERMISSION,
                what=f"this user may not {denied} in the namespace",
                hint=_kubernetes.ROLE_HINT,
            )
        nodes = self._nodes(cluster)
        self._loader(nodes)
        name = f"{ownership.mine()}-{os.urandom(4).hex()}"
        cluster.create(
            self._manifest(name, "isobench", (_AGENT,), ownership.mine(), nodes), trial=True
        )
        runtime = nodes[0]["status"]["nodeInfo"]["containerRuntimeVersion"] if nodes else ""
        words = [f"Kubernetes {version}", runtime.replace("://", " ")]
        words += [f"RuntimeClass {self.runtime_class}"] if self.runtime_class else []
        return Available(version=", ".join(word for word in words if word))

    def _nodes(self, cluster: _kubernetes.Cluster) -> list[_kubernetes.Json]:
        """Return the nodes that are this machine; none where this user may not see nodes: then the
        evidence from inside must tell. SessionError: there is none.
        """
        found = cluster.nodes()
        if found is None:
            if self.technology is not Technology.CONTAINERIZATION:
                raise SessionError(
                    "this user may not see nodes, and only they tell whether a pod with a kernel of"
                    " its own runs on this machine",
                    hint="kubectl create clusterrole isobench-nodes --verb=list --resource=nodes,"
                    " and bind it",
                )
            return []
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return here(found, boot, self.node)

    def _loader(self, nodes: Sequence[_kubernetes.Json]) -> tuple[str, ...]:
        """Return the command that brings an image archive to the cluster; none where the image is
        in a registry. SessionError: nobody says which.
        """
        if self.load or self.image:
            command = self.load
        else:
            command = next((found for node in nodes if (found := loader(node))), ())
            if not command:
                raise SessionError(
                    "nothing says how an image gets to the node", hint=f"isobench.toml: {_SPELLED}"
                )
            if "--address" in command and not os.access(command[2], os.W_OK):
                raise SessionError(
                    "this user may not bring an image to the node: its runtime is root's",
                    hint="isobench.toml: [targets.kubernetes] / load = "
                    + json.dumps(["sudo", *command]),
                )
        if command and shutil.which(command[0]) is None:
            raise SessionError(
                f"{command[0]}, which brings the image to the cluster, is not there",
                hint=f"install it, or name another: {_SPELLED}",
            )
        return command

    # ---- images ----------------------------------------------------------------------------------

    def _image(self, stage: Stage) -> str:
        tag = stage.digest[:16]
        return f"{self.image}:{tag}" if self.image else oci.image_name(stage)

    def _ready(self, cluster: _kubernetes.Cluster, stage: Stage) -> "_Ready":
        """See to it that the cluster can have the image; return what a pod needs."""
        nodes = self._nodes(cluster)
        image = self._image(stage)
        if (self, image) not in _loaded:
            command = self._loader(nodes)
            _loaded[self, image] = _bring(command, image, stage) if command else ""
        return _Ready(image=image, digest=_loaded[self, image], nodes=nodes)

    # ---- pods ------------------------------------------------------------------------------------

    def _manifest(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        whose: str,
        nodes: Sequence[_kubernetes.Json],
    ) -> _kubernetes.Json:
        """Return a pod of one container that runs `command` once, with its three streams open."""
        container: _kubernetes.Json = {
            "name": _pod.CONTAINER,
            "image": image,
            "imagePullPolicy": "IfNotPresent" if self.image else "Never",
            "command": list(command),
            "stdin": True,
            "stdinOnce": True,
            "resources": self._resources(),
        }
        if self.restricted:
            container["securityContext"] = {
                "runAsNonRoot": True,
                "runAsUser": _NOBODY,
                "runAsGroup": _NOBODY,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        spec: _kubernetes.Json = {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _pod.LONGEST,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,  # no key to the cluster inside
            "enableServiceLinks": False,
            "dnsPolicy": "Default",
            "containers": [container],
            "tolerations": [{"key": key, "operator": "Exists"} for key in self.tolerate],
        }
        if self.runtime_class:
            spec["runtimeClassName"] = self.runtime_class
        if self.pull_secret:
            spec["imagePullSecrets"] = [{"name": self.pull_secret}]
        names = [node["metadata"]["name"] for node in nodes] or [self.node] * bool(self.node)
        if names:
            spec["affinity"] = {"nodeAffinity": _on(names)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": _pod.labels(whose)},
            "spec": spec,
        }

    def _resources(self) -> _kubernetes.Json:
        limits = {"cpu": self.cpu, "memory": self.memory}
        requests = {
            "cpu": self.cpu_request or self.cpu,
            "memory": self.memory_request or self.memory,
        }
        parts = {"limits": limits, "requests": requests}
        chosen = {kind: {k: v for k, v in part.items() if v} for kind, part in parts.items()}
        return {kind: part for kind, part in chosen.items() if part}

    @contextlib.contextmanager
    def _created(
        self, cluster: _kubernetes.Cluster, stage: Stage, words: Sequence[str], ready: "_Ready"
    ) -> Iterator[_pod.Pod]:
        name = f"{stage.owner}-{os.urandom(4).hex()}"
        manifest = self._manifest(name, ready.image, words, stage.owner, ready.nodes)
        with _pod.created(cluster, self._place, manifest) as pod:
            yield pod

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["Session"]:
        """Start a pod whose container waits; payloads are executed in it."""
        cluster = _kubernetes.connect(self._place)
        ready = self._ready(cluster, stage)
        with self._created(cluster, stage, (_AGENT,), ready) as pod:
            stage.on_phase("pod.created")
            session = Session(pod=pod, target=self, ready=ready)
            session.demand()
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Create a pod, attach to its first process, have that execute the payload, read to the
        end, remove the pod.
        """
        cluster = _kubernetes.connect(self._place)
        ready = self._ready(cluster, stage)
        command.on_phase(BEGIN)
        with self._created(cluster, stage, _ONCE, ready) as pod:
            command.on_phase("pod.created")
            with pod.reach(pod.attach, patience=self.start_timeout) as stream:
                command.on_phase("pod.attached")
                done = _run(stream, command, timeout)
            if done is None:
                return Completed(exit_code=None, stdout=stream.out, stderr=stream.err)
            code = agent_request.exit_code(pod.exit_code())
            return Completed(exit_code=code, stdout=stream.out, stderr=stream.err)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove pods whose run has died; with `cached` those that nobody has noted as well, and
        the images on this node.
        """
        removed = _pod.sweep(alive)
        ready = _kubernetes.installed() and _kubernetes.has_kubeconfig(_kubernetes.kubeconfig())
        if cached and ready:
            try:
                cluster = _kubernetes.connect(self._place)
                removed += _pod.sweep_labelled(cluster, alive)
                removed += _unload(self._loader(self._nodes(cluster)))
            except (SessionError, OSError) as error:
                if removed:
                    removed.append(
                        Leftover(what="what kubernetes may have left", failure=str(error))
                    )
            _loaded.clear()
        return removed


# ---- sessions ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """What a pod needs that must be there before it."""

    image: str
    digest: str
    """What the node must show as the image's identity, where the image came without a registry."""
    nodes: list[_kubernetes.Json]


def _run(stream: _kubernetes.Stream, command: Command, timeout: Nanoseconds) -> bool | None:
    """Send the agent at the other end a request and listen; None: the time limit has passed."""
    deadline = time.monotonic() + timeout / SECOND
    words = [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]]
    stream.send(agent_request.framed(words, command.environ(oci.INSIDE)))
    return stream.listen(command.on_output, deadline) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A pod that runs, and the API's exec into it."""

    pod: _pod.Pod
    target: KubernetesTarget
    ready: _Ready

    def demand(self) -> None:
        """Wait until the agent can be executed in it; SessionError: it never can."""
        patience = self.target.start_timeout
        with self.pod.reach(lambda: self.pod.execute(_ONCE), patience=patience) as stream:
            stream.send(agent_request.NULL)
            if not stream.listen(lambda _: None, time.monotonic() + patience):
                raise SessionError("the pod runs, and executes nothing")
            if (code := stream.exit_code()) != 0:
                said = stream.err.decode(errors="replace").strip()[-200:]
                raise SessionError(f"the pod executes no program: exit code {code}; {said}")

    def _execute(self) -> _kubernetes.Stream:
        try:
            return self.pod.execute(_ONCE)
        except _kubernetes.ApiError as error:
            pod = self.pod.seen()
            wrong = None if pod is None else _pod.refusal(pod)
            why = "the pod is gone" if pod is None else wrong.why if wrong else str(error)
            raise SessionError(why, hint=error.hint) from None

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Have the API execute the agent, and the agent the program.

        At the time limit the pod is ended: only so is it certain that nothing of the program lives
        on.
        """
        with self._execute() as stream:
            done = _run(stream, command, timeout)
        if done is None:
            self.pod.end()
            return Completed(exit_code=None, stdout=stream.out, stderr=stream.err)
        code = agent_request.exit_code(stream.exit_code())
        return Completed(exit_code=code, stdout=stream.out, stderr=stream.err)

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Have the API execute the agent, and ask it for nothing."""
        with self._execute() as stream:
            stream.send(agent_request.NULL)
            if not stream.listen(lambda _: None, time.monotonic() + timeout / SECOND):
                return Completed(exit_code=None, stdout=b"", stderr=b"")
            return Completed(exit_code=stream.exit_code(), stdout=b"", stderr=stream.err)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the API says of the pod; SessionError where that is not a pod that runs what
        it was asked to.
        """
        pod = self._reported()
        running = _pod.container(pod)
        demand_ours(pod, self.ready.image, self.ready.digest)
        info: _kubernetes.Json = next(
            (
                node["status"]["nodeInfo"]
                for node in self.ready.nodes
                if node["metadata"]["name"] == pod["spec"]["nodeName"]
            ),
            {},
        )
        parents = ancestors(running["containerID"].rpartition("/")[2])
        facts: dict[str, Fact] = {
            "host.pod.ancestors": " < ".join(parents) or None,
            "host.pod.child_of_kubernetes": any("kube" in name for name in parents)
            if parents
            else None,
            "host.pod.uid": pod["metadata"]["uid"],
            "host.pod.node": pod["spec"]["nodeName"],
            "host.pod.container": running["containerID"],
            "host.pod.image": running.get("imageID"),
            "host.pod.quality": pod["status"].get("qosClass"),
            "host.pod.runtime_class": pod["spec"].get("runtimeClassName") or "the node's default",
            "host.pod.resources": json.dumps(
                pod["spec"]["containers"][0].get("resources") or {}, sort_keys=True
            ),
            "host.pod.network": "the cluster's" if pod["status"].get("podIP") else "none",
            "host.pod.containers": len(pod["spec"]["containers"]),
            "host.node.kernel": info.get("kernelVersion"),
            "host.node.runtime": info.get("containerRuntimeVersion"),
            "host.node.kubelet": info.get("kubeletVersion"),
            "host.node.boot_id": info.get("bootID"),
        }
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source="the cluster's API")

    def _reported(self) -> _kubernetes.Json:
        """Return the pod once the kubelet has reported that its container runs."""
        deadline = time.monotonic() + _REPORTED
        while (pod := self.pod.seen()) is not None:
            if _pod.container(pod).get("state", {}).get("running"):
                return pod
            if (wrong := _pod.refusal(pod)) is not None and wrong.final:
                raise SessionError(wrong.why, hint=wrong.hint)
            if time.monotonic() > deadline:
                raise SessionError("the cluster does not say that the pod runs")
            time.sleep(0.05)
        raise SessionError("the pod is gone: somebody has deleted it")


# ---- pure parts ----------------------------------------------------------------------------------


def demand_ours(pod: Mapping[str, Any], image: str, digest: str) -> None:
    """Refuse a pod that some policy of the cluster has turned into another one: SessionError."""
    asked = next(one for one in pod["spec"]["containers"] if one["name"] == _pod.CONTAINER)
    if asked["image"] != image:
        raise SessionError(
            f"the cluster has replaced the image by {asked['image']}",
            hint="use a namespace without that policy",
        )
    if pod["spec"].get("hostNetwork") or pod["spec"].get("hostPID") or pod["spec"].get("hostIPC"):
        raise SessionError("the cluster has put the pod into namespaces of the host")
    seen = str(_pod.container(pod).get("imageID") or "")
    if digest and "@" not in seen and not seen.endswith(digest):
        raise SessionError(
            f"the node runs another image of that name: {seen}, and {digest} was brought to it",
            hint="remove it there: crictl rmi, docker rmi",
        )


def here(nodes: Sequence[Mapping[str, Any]], boot: str, wanted: str = "") -> list[dict[str, Any]]:
    """Return the nodes that are the machine with this boot id and take pods; SessionError: there is
    none, or none of the name that is wanted.
    """
    named = [node for node in nodes if wanted in ("", node["metadata"]["name"])]
    if not named:
        raise SessionError(f"the cluster has no node {wanted!r}", hint="kubectl get nodes")
    ours = [node for node in named if node["status"]["nodeInfo"].get("bootID") == boot]
    if not ours:
        which = (
            f"the node {wanted} is" if wanted else f"none of the cluster's {len(named)} nodes is"
        )
        raise SessionError(
            f"{which.replace(' is', ' is not') if wanted else which} this machine: beside native's"
            " figures a pod's would compare two machines, not isolation",
            hint="run isobench on a node of the cluster, or use a cluster on this machine"
            " (kubeadm, k3s, kind)",
        )
    ready = [node for node in ours if _is_ready(node)]
    if not ready:
        raise SessionError(
            "the node that is this machine takes no pods: it is not ready, or cordoned",
            hint="kubectl describe node; kubectl uncordon NODE",
        )
    return [dict(node) for node in ready]


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not node["spec"].get("unschedulable")


def loader(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that brings an image archive to a node, from what the node says of itself;
    nothing where it says nothing that isobench knows.
    """
    provider = str(node["spec"].get("providerID") or "")
    kept = node["metadata"]
    if provider.startswith("kind://"):
        cluster = provider.removeprefix("kind://").split("/")[1]
        return ("kind", "load", "image-archive", "--name", cluster)
    profile = (kept.get("labels") or {}).get("minikube.k8s.io/name")
    if profile:
        return ("minikube", "--profile", profile, "image", "load")
    if provider.startswith("k3s://"):
        return ("k3s", "ctr", "--namespace", "k8s.io", "images", "import")
    socket = str((kept.get("annotations") or {}).get(_CRI_SOCKET) or "").removeprefix("unix://")
    runtime = str(node["status"]["nodeInfo"].get("containerRuntimeVersion") or "")
    if socket and runtime.startswith("containerd://"):
        return ("ctr", "--address", socket, "--namespace", "k8s.io", "images", "import")
    return ()


def _on(names: Sequence[str]) -> _kubernetes.Json:
    """Return the demand to run on one of these nodes; the scheduler still decides."""
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
        for name in names
    ]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def filled(command: Sequence[str], *, archive: str, image: str) -> list[str]:
    """Return the words of `load` for one archive and one image."""
    words = [word.replace("{archive}", archive).replace("{image}", image) for word in command]
    return words if any("{archive}" in word for word in command) else [*words, archive]


def ancestors(identity: str, processes: Path = Path("/proc")) -> list[str]:
    """Return the names of a container's first process and of its ancestors, as the host sees them:
    who really runs it. Nothing where the host shows no process of that container.
    """
    for number in os.listdir(processes):  # noqa: PTH208 - names alone: processes come and go
        process = processes / number
        with contextlib.suppress(OSError):
            if number.isdigit() and identity and identity in (process / "cgroup").read_text():
                return [name for name in _line(process, processes) if name]
    return []


def _line(process: Path, processes: Path) -> Iterator[str]:
    while process.name != "0":
        name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
        yield name
        process = processes / rest.split()[1]


# ---- around the cluster --------------------------------------------------------------------------


def _denied(cluster: _kubernetes.Cluster) -> str:
    """Return the first thing that this user may not do, in words; nothing: all is allowed."""
    wanted = {
        ("create", ""): "create pods",
        ("get", ""): "look at pods",
        ("delete", ""): "delete pods",
        ("get", "exec"): "execute something in pods",
        ("get", "attach"): "attach to pods",
    }
    for (verb, part), words in wanted.items():
        if not cluster.may(verb, "pods", part):
            return words
    return ""


def _bring(command: Sequence[str], image: str, stage: Stage) -> str:
    """Bring the stage's image to the cluster; return its digest. SessionError: it does not get
    there.
    """
    archive = oci.stage_archive(stage, str(host_abi()).partition("-")[0], name=image)
    with tempfile.NamedTemporaryFile(prefix="isobench-", suffix=".tar") as file:
        file.write(archive)
        file.flush()
        words = filled(command, archive=file.name, image=image)
        done = _call(words)
        if done.exit_code != 0:
            said = processes.last_line(done.stderr or done.stdout)
            raise SessionError(
                f"the image does not get to the cluster: {words[0]}: {said}",
                hint=f"{shlex.join([*words[:-1], 'ARCHIVE'])}, to see what it says",
            )
    return _digest(archive)


def _call(words: Sequence[str]) -> Completed:
    try:
        return processes.run(words, timeout=_LOADING, env=os.environ)
    except OSError as error:
        raise SessionError(f"{words[0]} cannot be executed: {error}") from None


def _digest(archive: bytes) -> str:
    """Return an image's identity: the hash of its configuration."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None  # _oci wrote it
        return str(json.load(manifest)[0]["Config"]).removesuffix(".json")


def _unload(command: Sequence[str]) -> list[Leftover]:
    """Remove the images that containerd's own tool has brought to this node; other tools' go with
    their clusters; return them.
    """
    if tuple(command[-2:]) != ("images", "import"):
        return []
    tool = command[:-1]
    listed = _call([*tool, "ls", "-q"]).stdout.decode(errors="replace").split()
    ours = [name for name in listed if name.startswith(f"{oci.REPOSITORY}:")]
    return [
        Leftover(what=f"image {name}") for name in ours if _call([*tool, "rm", name]).exit_code == 0
    ]
