"""A pod of the Kubernetes cluster that the user's kubeconfig names.

    [targets.kubernetes]
    context = "kind-dev"             # empty: the current one
    load = ["kind", "load", "image-archive", "--name", "dev", "{archive}"]

A session is a pod whose container waits; payloads are executed in it. A launch is a pod that runs
the payload to its end. isobench uses the API alone, with the user's rights, and needs no kubectl.

A pod must run on a node that is this machine, one with its boot id: native is measured on this
machine, and on any other node a ratio would compare two machines.
"""

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import tarfile
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
from isobench.targets.shared import agent_request, hypervisors, oci, processes

_LOADING: Final = seconds(600)
"""Time limit of the command that loads an image."""
_AGENT: Final = f"{Stage.INSIDE}/_agent"
_ONCE: Final = (_AGENT, "once")
_QUANTITY: Final = re.compile(r"\d+(\.\d+)?(m|[kMGTPE]|[KMGTPE]i)?", re.ASCII)
_NOBODY: Final = 65534
_REPORTING: Final = 15.0
"""Seconds that a kubelet may take to report a container that already answers."""
_CRI_SOCKET: Final = "kubeadm.alpha.kubernetes.io/cri-socket"
_OWN_KERNEL: Final = {"kata": Technology.VIRTUALIZATION, "gvisor": Technology.SANDBOX,
                      "runsc": Technology.SANDBOX}  # fmt: skip
_LOAD_EXAMPLES: Final = (
    '[targets.kubernetes] / load = ["ctr", "-n", "k8s.io", "images", "import"] with containerd,'
    ' ["kind", "load", "image-archive", "--name", "CLUSTER"] with kind,'
    ' ["minikube", "image", "load"] with minikube, ["docker", "load", "-i"] with Docker'
)
_loaded: dict[tuple["KubernetesTarget", str], str] = {}
"""The images that this process has loaded, with the digest that a node must report."""


@dataclass(frozen=True, kw_only=True)
class KubernetesTarget:
    """A pod of the cluster that the kubeconfig names."""

    name: ClassVar[TargetName] = TargetName("kubernetes")
    abi: ClassVar[Abi | None] = None
    # A context and a namespace may be of another cluster, where pods would be created. The node
    # executes the image, and sends the secret to its registry.
    executes: ClassVar[Sequence[str]] = ("load", "context", "namespace", "image", "pull_secret")
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "a pod from a cached image: from the POST of the pod to the payload's nonce,"
        " through API server, scheduler, kubelet, sandbox, network set-up, container and the"
        " attached stream; isobench's agent is the first process and executes the payload once"
        " attached",
        "warm": "the same again: Kubernetes never restarts a pod that has ended",
        "exec": "the API's exec in a running pod: a connection to the API server, the kubelet, the"
        " runtime, isobench's agent, and the payload that it executes",
    }

    context: str = ""
    """Context of the kubeconfig (KUBECONFIG, else ~/.kube/config); empty: the current one."""
    namespace: str = ""
    """Empty: the context's, or else "default"."""
    node: str = ""
    """Empty: any node that is this machine."""
    runtime_class: str = ""
    """A RuntimeClass of the cluster: "gvisor", "kata". A name with "kata", "gvisor" or "runsc" in
    it means a kernel of its own, which evidence must then show.
    """
    image: str = ""
    """A repository without a tag: "registry.example.com/team/isobench". The tag is the hash of the
    content, so that two sets of payloads never share a name. Empty: an image without a registry,
    which `load` brings to the node.
    """
    load: tuple[str, ...] = ()
    """A command that brings an image archive (the format of `docker save`) to the node or to the
    registry. Its words may contain {archive} and {image}; without {archive} the path comes last.
    Empty: the command that suits the node's runtime, where isobench knows it; with `image`, the
    image must be in the registry already.
    """
    pull_secret: str = ""
    """The namespace's secret with which the node pulls from the registry."""
    cpu: str = ""
    """Limit: "500m", "2". Empty: none."""
    memory: str = ""
    """Limit: "512Mi". Empty: none."""
    cpu_request: str = ""
    """What the scheduler reserves; empty: as much as the limit."""
    memory_request: str = ""
    """As `cpu_request`."""
    tolerate: tuple[str, ...] = ()
    """Taints to tolerate, by key: "node-role.kubernetes.io/control-plane"."""
    restricted: bool = False
    """Run the pod as the Pod Security Standard "restricted" requires: not root, no capabilities, no
    new privileges, the runtime's seccomp filter.
    """
    start_timeout: float = 60.0
    """Seconds within which a pod must run."""

    def __post_init__(self) -> None:
        """Check the options. ValueError: one is invalid."""
        for field in ("cpu", "memory", "cpu_request", "memory_request"):
            value = getattr(self, field)
            if value and not _QUANTITY.fullmatch(value):
                raise ValueError(
                    f'{field} = "{value}": write a quantity of Kubernetes, as in "500m" or "1Gi"'
                )
        if "@" in self.image or ":" in self.image.rpartition("/")[2]:
            raise ValueError(f'image = "{self.image}": leave out the tag, which isobench adds')
        if self.start_timeout <= 0:
            raise ValueError(f"start_timeout = {self.start_timeout:g}: write seconds above zero")

    # ---- properties ------------------------------------------------------------------------------

    @property
    def technology(self) -> Technology:
        """Containerization, unless the RuntimeClass brings a sandbox or a virtual machine."""
        found = (kind for word, kind in _OWN_KERNEL.items() if word in self.runtime_class.lower())
        return next(found, Technology.CONTAINERIZATION)

    @property
    def expectations(self) -> tuple[Expectation, ...]:
        """What evidence must show: a kubelet has made the pod, here, with these boundaries."""
        canary = Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False)
        if self.technology is not Technology.CONTAINERIZATION:
            unlike = Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST)
            bit = Expectation(key="cpu.hypervisor_bit", relation=Relation.EQUALS, value=True)
            x86 = host_abi() is Abi.ELF_X86_64
            machine = self.technology is Technology.VIRTUALIZATION and x86
            return (unlike, *((bit, *hypervisors.SIGNED) if machine else ()), canary)
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
            # The kubelet mounts its own file over /dev/termination-log, with the pod and the
            # container in its path. No container engine does that.
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
    def _location(self) -> _kubernetes.Location:
        return _kubernetes.Location(
            kubeconfig=_kubernetes.kubeconfig(), context=self.context, namespace=self.namespace
        )

    # ---- probing ---------------------------------------------------------------------------------

    @property
    def cpu_quota(self) -> float:
        """CPUs that the pod may use; 0: no limit."""
        try:
            return float(self.cpu.removesuffix("m") or 0) / (1000 if self.cpu[-1:] == "m" else 1)
        except ValueError:  # the cluster refuses such a pod
            return 0.0

    def probe(self) -> Availability:
        """Look whether the cluster would accept a pod, by a dry run."""
        # No pod is created: listing targets must not schedule anything in a cluster that others
        # use.
        if host_abi() is None:
            return Unavailable(
                lack=Lack.PLATFORM, what="no payloads for this host", hint="use Linux on x86_64"
            )
        if not _kubernetes.has_kubeconfig(_kubernetes.kubeconfig()):
            return Unavailable(
                lack=Lack.SERVICE,
                what=f"there is no kubeconfig at {_kubernetes.kubeconfig()}",
                hint="export KUBECONFIG=/path/to/kubeconfig, or put one at ~/.kube/config",
            )
        if not _kubernetes.installed():
            return Unavailable(
                lack=Lack.TOOL,
                what="the Python package kubernetes",
                hint="isobench doctor --install kubernetes",
            )
        try:
            return self._check_cluster(_kubernetes.connect(self._location))
        except _kubernetes.ApiError as error:
            lack = Lack.PERMISSION if error.status in (401, 403) else Lack.SERVICE
            return Unavailable(lack=lack, what=str(error), hint=error.hint)
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)

    def _check_cluster(self, cluster: _kubernetes.Cluster) -> Availability:
        version = cluster.version()
        denied = _missing_permission(cluster)
        if denied:
            return Unavailable(
                lack=Lack.PERMISSION,
                what=f"this user may not {denied} in the namespace",
                hint=_kubernetes.ROLE_HINT,
            )
        nodes = self._nodes(cluster)
        self._loader(nodes)
        name = oci.new_name(ownership.mine())
        cluster.create(
            self._manifest(name, "isobench", (_AGENT,), ownership.mine(), nodes), dry_run=True
        )
        runtime = nodes[0]["status"]["nodeInfo"]["containerRuntimeVersion"] if nodes else ""
        parts = [f"Kubernetes {version}", runtime.replace("://", " ")]
        parts += [f"RuntimeClass {self.runtime_class}"] if self.runtime_class else []
        return Available(version=", ".join(part for part in parts if part))

    def _nodes(self, cluster: _kubernetes.Cluster) -> list[_kubernetes.Json]:
        """Return the nodes that are this machine. SessionError: there is none.

        Empty where this user may not list nodes. The boot id in the evidence then decides.
        """
        found = cluster.nodes()
        if found is None:
            if self.technology is not Technology.CONTAINERIZATION:
                # A kernel of its own has a boot id of its own: the evidence cannot decide.
                raise SessionError(
                    "this user may not list nodes, and without them isobench cannot find out"
                    " whether a pod with its own kernel runs on this machine",
                    hint="kubectl create clusterrole isobench-nodes --verb=list --resource=nodes,"
                    " and bind it",
                )
            return []
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return local_nodes(found, boot, self.node)

    def _loader(self, nodes: Sequence[_kubernetes.Json]) -> tuple[str, ...]:
        """Return the command that loads an image archive; empty where the image is in a registry.

        SessionError: isobench knows none for this node, or it cannot be used.
        """
        if self.load or self.image:
            command = self.load
        else:
            command = next((found for node in nodes if (found := loader(node))), ())
            if not command:
                raise SessionError(
                    "isobench does not know how to load an image on the node",
                    hint=f"isobench.toml: {_LOAD_EXAMPLES}",
                )
            if "--address" in command and not os.access(command[2], os.W_OK):
                raise SessionError(
                    "this user may not load an image on the node: its runtime belongs to root",
                    hint="isobench.toml: [targets.kubernetes] / load = "
                    + json.dumps(["sudo", *command]),
                )
        if command and shutil.which(command[0]) is None:
            raise SessionError(
                f"{command[0]}, which loads the image, is not installed",
                hint=f"install it, or set another command: {_LOAD_EXAMPLES}",
            )
        return command

    # ---- images ----------------------------------------------------------------------------------

    def _image(self, stage: Stage) -> str:
        tag = stage.digest[:16]
        return f"{self.image}:{tag}" if self.image else oci.image_name(stage)

    def _inputs(self, cluster: _kubernetes.Cluster, stage: Stage) -> "_PodInputs":
        """Load the image unless that is done; return what a pod's manifest needs."""
        nodes = self._nodes(cluster)
        image = self._image(stage)
        if (self, image) not in _loaded:
            command = self._loader(nodes)
            _loaded[self, image] = _load_image(command, image, stage) if command else ""
        return _PodInputs(image=image, digest=_loaded[self, image], nodes=nodes)

    @contextlib.contextmanager
    def _image_in_doubt(self, inputs: "_PodInputs") -> Iterator[None]:
        """Surround a start of a pod. If it fails, the image is loaded again for the next one:
        somebody may have removed it from the node in the middle of the run.
        """
        try:
            yield
        except SessionError:
            _loaded.pop((self, inputs.image), None)
            raise

    # ---- pods ------------------------------------------------------------------------------------

    def _manifest(
        self,
        name: str,
        image: str,
        command: Sequence[str],
        owner: str,
        nodes: Sequence[_kubernetes.Json],
    ) -> _kubernetes.Json:
        """Return a pod of one container that runs `command` once, with its three streams open."""
        spec: _kubernetes.Json = {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": _pod.MAX_LIFETIME,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": False,  # no key to the cluster inside
            "enableServiceLinks": False,  # payloads get isobench's variables and no others
            "dnsPolicy": "Default",
            "containers": [self._container(image, command)],
            "tolerations": [{"key": key, "operator": "Exists"} for key in self.tolerate],
        }
        if self.runtime_class:
            spec["runtimeClassName"] = self.runtime_class
        if self.pull_secret:
            spec["imagePullSecrets"] = [{"name": self.pull_secret}]
        names = [node["metadata"]["name"] for node in nodes] or [self.node] * bool(self.node)
        if names:
            spec["affinity"] = {"nodeAffinity": _node_affinity(names)}
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": _pod.labels(owner)},
            "spec": spec,
        }

    def _container(self, image: str, command: Sequence[str]) -> _kubernetes.Json:
        container: _kubernetes.Json = {
            "name": _pod.CONTAINER,
            "image": image,
            # Without a registry a pull could only fail, or find another image of that name.
            "imagePullPolicy": "IfNotPresent" if self.image else "Never",
            "command": list(command),
            # Standard input stays open until the first client that attaches hangs up.
            "stdin": True,
            "stdinOnce": True,
            "resources": self._resources(),
        }
        if self.restricted:
            container["securityContext"] = {
                "runAsNonRoot": True,
                "runAsUser": _NOBODY,  # the image names no user
                "runAsGroup": _NOBODY,
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            }
        return container

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
        self, cluster: _kubernetes.Cluster, stage: Stage, argv: Sequence[str], inputs: "_PodInputs"
    ) -> Iterator[_pod.Pod]:
        name = oci.new_name(stage.owner)
        manifest = self._manifest(name, inputs.image, argv, stage.owner, inputs.nodes)
        with _pod.created(cluster, self._location, manifest) as pod:
            yield pod

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["Session"]:
        """Create a pod whose container waits; payloads are executed in it."""
        cluster = _kubernetes.connect(self._location)
        inputs = self._inputs(cluster, stage)
        with contextlib.ExitStack() as stack:
            with self._image_in_doubt(inputs):
                pod = stack.enter_context(self._created(cluster, stage, (_AGENT,), inputs))
                stage.on_phase("pod.created")
                session = Session(pod=pod, target=self, inputs=inputs)
                session.wait_until_ready()
            yield session

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Create a pod, execute the payload through its first process, remove the pod."""
        cluster = _kubernetes.connect(self._location)
        inputs = self._inputs(cluster, stage)
        command.on_phase(BEGIN)
        with (
            self._image_in_doubt(inputs),
            self._created(cluster, stage, _ONCE, inputs) as pod,
        ):
            command.on_phase("pod.created")
            with pod.reach(pod.attach, patience=self.start_timeout) as stream:
                command.on_phase("pod.attached")
                done = _run(stream, command, timeout)
            if done is None:
                return Completed(exit_code=None, stdout=stream.out, stderr=stream.err)
            code = agent_request.exit_code(pod.exit_code())
            return Completed(exit_code=code, stdout=stream.out, stderr=stream.err)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the recorded pods of runs that have died.

        With `cached`, remove their pods without a record as well, and the images on this node.
        """
        removed = _pod.sweep(alive)
        usable = _kubernetes.installed() and _kubernetes.has_kubeconfig(_kubernetes.kubeconfig())
        if cached and usable:
            try:
                cluster = _kubernetes.connect(self._location)
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
class _PodInputs:
    """What is known before a pod is created."""

    image: str
    digest: str
    """The identity that the node must report for the image; empty for an image of a registry."""
    nodes: list[_kubernetes.Json]
    """The nodes on which it may run; empty: unknown."""


def _run(stream: _kubernetes.Stream, command: Command, timeout: Nanoseconds) -> bool | None:
    """Let the agent at the other end run a command; None: the time limit has passed."""
    deadline = time.monotonic() + timeout / SECOND
    argv = [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]]
    stream.send(agent_request.framed(argv, command.environ(oci.INSIDE)))
    if command.on_stdin is not None:
        command.on_stdin(stream.send)
    return stream.listen(command.on_output, deadline) or None


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A running pod, in which the API executes commands."""

    pod: _pod.Pod
    target: KubernetesTarget
    inputs: _PodInputs
    interactive: ClassVar[bool] = True

    def wait_until_ready(self) -> None:
        """Wait until the agent can be executed. SessionError: it cannot, in `start_timeout`."""
        patience = self.target.start_timeout
        with self.pod.reach(lambda: self.pod.execute(_ONCE), patience=patience) as stream:
            stream.send(agent_request.NULL)
            if not stream.listen(lambda _: None, time.monotonic() + patience):
                raise SessionError(
                    f"the pod runs, but executes nothing within {patience:g} s",
                    hint=f"[targets.kubernetes] / start_timeout = {patience * 2:g}",
                )
            if (code := stream.exit_code()) != 0:
                errors = stream.err.decode(errors="replace").strip()[-200:]
                raise SessionError(f"the pod executes no program: exit code {code}; {errors}")

    def _execute(self) -> _kubernetes.Stream:
        try:
            return self.pod.execute(_ONCE)
        except _kubernetes.ApiError as error:
            # The API's own error does not say why: the pod may have been evicted meanwhile.
            pod = self.pod.fetch()
            wrong = None if pod is None else _pod.refusal(pod)
            reason = "the pod is gone" if pod is None else wrong.reason if wrong else str(error)
            raise SessionError(reason, hint=error.hint) from None

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute the agent through the API, and the command through the agent.

        At the time limit the pod is ended: only then no process of the command can live on.
        """
        with self._execute() as stream:
            done = _run(stream, command, timeout)
        if done is None:
            self.pod.end()
            return Completed(exit_code=None, stdout=stream.out, stderr=stream.err)
        code = agent_request.exit_code(stream.exit_code())
        return Completed(exit_code=code, stdout=stream.out, stderr=stream.err)

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Execute the agent through the API with the null request."""
        with self._execute() as stream:
            stream.send(agent_request.NULL)
            if not stream.listen(lambda _: None, time.monotonic() + timeout / SECOND):
                return Completed(exit_code=None, stdout=b"", stderr=b"")
            return Completed(exit_code=stream.exit_code(), stdout=b"", stderr=stream.err)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the API and the host show of the pod. SessionError: it is not as requested."""
        pod = self._running_pod()
        check_pod(pod, self.inputs.image, self.inputs.digest)
        facts = {**_ancestor_facts(pod), **self._facts(pod), **self._node_facts(pod)}
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source="the cluster's API")

    def _facts(self, pod: Mapping[str, Any]) -> dict[str, Fact]:
        running = _pod.container(pod)
        return {
            "host.pod.uid": pod["metadata"]["uid"],
            "host.pod.node": pod["spec"]["nodeName"],
            "host.pod.container": running.get("containerID"),
            "host.pod.image": running.get("imageID"),
            "host.pod.quality": pod["status"].get("qosClass"),
            "host.pod.runtime_class": pod["spec"].get("runtimeClassName") or "the node's default",
            "host.pod.resources": json.dumps(
                pod["spec"]["containers"][0].get("resources") or {}, sort_keys=True
            ),
            "host.pod.network": "the cluster's" if pod["status"].get("podIP") else "none",
            "host.pod.containers": len(pod["spec"]["containers"]),
        }

    def _node_facts(self, pod: Mapping[str, Any]) -> dict[str, Fact]:
        named = (n for n in self.inputs.nodes if n["metadata"]["name"] == pod["spec"]["nodeName"])
        node = next(named, None)
        info = {} if node is None else node["status"]["nodeInfo"]
        return {
            "host.node.kernel": info.get("kernelVersion"),
            "host.node.runtime": info.get("containerRuntimeVersion"),
            "host.node.kubelet": info.get("kubeletVersion"),
            "host.node.boot_id": info.get("bootID"),
        }

    def _running_pod(self) -> _kubernetes.Json:
        """Return the pod once the kubelet has reported that its container runs.

        SessionError: it does not within `_REPORTING` seconds, or the pod cannot run.
        """
        # The container may answer before its status is in the API: see `Pod.reach`.
        deadline = time.monotonic() + _REPORTING
        while (pod := self.pod.fetch()) is not None:
            if _pod.container(pod).get("state", {}).get("running"):
                _kubernetes.demand_running(pod)
                return pod
            if (wrong := _pod.refusal(pod)) is not None and wrong.final:
                raise SessionError(wrong.reason, hint=wrong.hint)
            if time.monotonic() > deadline:
                raise SessionError(f"the cluster does not report in {_REPORTING:g} s that it runs")
            time.sleep(0.05)
        raise SessionError("the pod is gone: it was deleted from outside")


# ---- pure parts ----------------------------------------------------------------------------------


def _ancestor_facts(pod: Mapping[str, Any]) -> dict[str, Fact]:
    names = ancestors(_pod.container(pod).get("containerID", "").rpartition("/")[2])
    is_child = any("kube" in name for name in names) if names else None
    return {
        "host.pod.ancestors": " < ".join(names) or None,
        "host.pod.child_of_kubernetes": is_child,
    }


def check_pod(pod: Mapping[str, Any], image: str, digest: str) -> None:
    """Raise SessionError where a policy of the cluster (a mutating webhook) has changed the pod."""
    images = {one["name"]: one["image"] for one in pod["spec"]["containers"]}
    if images.get(_pod.CONTAINER) != image:
        raise SessionError(
            f"the cluster has replaced the image by {images.get(_pod.CONTAINER)}",
            hint="use a namespace without that policy",
        )
    if pod["spec"].get("hostNetwork") or pod["spec"].get("hostPID") or pod["spec"].get("hostIPC"):
        raise SessionError(
            "the cluster has put the pod into namespaces of the host",
            hint="use a namespace without that policy",
        )
    # With "@" the node reports a manifest's digest from a registry, which is another hash.
    reported = str(_pod.container(pod).get("imageID") or "")
    if digest and "@" not in reported and not reported.endswith(digest):
        raise SessionError(
            f"the node runs another image of that name: {reported}, not {digest}",
            hint="remove it on the node: crictl rmi, docker rmi",
        )


def local_nodes(
    nodes: Sequence[Mapping[str, Any]], boot: str, wanted: str = ""
) -> list[dict[str, Any]]:
    """Return the nodes that are the machine with this boot id, and accept pods.

    `wanted` is a node's name; empty: any. SessionError: there is none.
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
            f"{which.replace(' is', ' is not') if wanted else which} this machine: compared with"
            " native, a pod would show the difference of two machines, not of isolation",
            hint="run isobench on a node of the cluster, or use a cluster on this machine"
            " (kubeadm, k3s, kind)",
        )
    ready = [node for node in ours if _is_ready(node)]
    if not ready:
        raise SessionError(
            "the node that is this machine accepts no pods: it is not ready, or cordoned",
            hint="kubectl describe node; kubectl uncordon NODE",
        )
    return [dict(node) for node in ready]


def _is_ready(node: Mapping[str, Any]) -> bool:
    conditions = node["status"].get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and not node["spec"].get("unschedulable")


def loader(node: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the command that loads an image archive on a node, from what the node reports.

    Empty where isobench knows none.
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


def _node_affinity(names: Sequence[str]) -> _kubernetes.Json:
    """Return an affinity to these nodes."""
    # Not `nodeName`, which bypasses the scheduler: its time is part of what a pod costs.
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]}
        for name in names
    ]
    return {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}


def fill_placeholders(command: Sequence[str], *, archive: str, image: str) -> list[str]:
    """Return the words of `load` for an archive and an image."""
    argv = [word.replace("{archive}", archive).replace("{image}", image) for word in command]
    return argv if any("{archive}" in word for word in command) else [*argv, archive]


def ancestors(identity: str, processes: Path = Path("/proc")) -> list[str]:
    """Return the names of a container's first process and of its ancestors on the host.

    `identity` is the container's id. Empty where the host shows no process of that container.
    """
    # Runtimes put the container's id into the path of its cgroup.
    for number in os.listdir(processes):  # noqa: PTH208 - the names alone: processes come and go
        process = processes / number
        with contextlib.suppress(OSError):
            if number.isdigit() and identity and identity in (process / "cgroup").read_text():
                return [name for name in _parents(process, processes) if name]
    return []


def _parents(process: Path, processes: Path) -> Iterator[str]:
    while process.name != "0":
        # The name in proc_pid_stat(5) may contain spaces and parentheses.
        name, _, rest = (process / "stat").read_text().partition("(")[2].rpartition(")")
        yield name
        process = processes / rest.split()[1]


# ---- around the cluster --------------------------------------------------------------------------


def _missing_permission(cluster: _kubernetes.Cluster) -> str:
    """Return the first thing that this user may not do; an empty string if all is allowed."""
    # The verb of exec and attach is that of the HTTP request: a websocket begins with GET.
    needed = {
        ("create", ""): "create pods",
        ("get", ""): "read pods",
        ("delete", ""): "delete pods",
        ("get", "exec"): "execute commands in pods",
        ("get", "attach"): "attach to pods",
    }
    for (verb, part), action in needed.items():
        if not cluster.allows(verb, "pods", part):
            return action
    return ""


def _load_image(command: Sequence[str], image: str, stage: Stage) -> str:
    """Load the stage's image; return its digest. SessionError: the command fails."""
    archive = oci.stage_archive(stage, str(host_abi()).partition("-")[0], name=image)
    with ownership.temporary_file(archive, "image.tar") as file:
        argv = fill_placeholders(command, archive=str(file), image=image)
        done = _run_loader(argv)
        if done.exit_code != 0:
            error = processes.last_line(done.stderr or done.stdout)
            raise SessionError(
                f"the image cannot be loaded: {argv[0]}: {error}",
                hint=f"{shlex.join([*argv[:-1], 'ARCHIVE'])}",
            )
    return _digest(archive)


def _run_loader(argv: Sequence[str]) -> Completed:
    try:
        return processes.run(argv, timeout=_LOADING, env=os.environ)
    except OSError as error:
        raise SessionError(f"{argv[0]} cannot be executed: {error}") from None


def _digest(archive: bytes) -> str:
    """Return an image's identity: the SHA-256 of its configuration."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        manifest = tar.extractfile("manifest.json")
        assert manifest is not None  # `oci.stage_archive` writes it
        return str(json.load(manifest)[0]["Config"]).removesuffix(".json")


def _unload(command: Sequence[str]) -> list[Leftover]:
    """Remove the images that containerd's own tool has loaded on this node, and return them."""
    # Images that other tools load belong to a cluster of their own and go with it.
    if tuple(command[-2:]) != ("images", "import"):
        return []
    tool = command[:-1]
    listed = _run_loader([*tool, "ls", "-q"]).stdout.decode(errors="replace").split()
    ours = [name for name in listed if name.startswith(f"{oci.REPOSITORY}:")]
    return [
        Leftover(what=f"image {name}")
        for name in ours
        if _run_loader([*tool, "rm", name]).exit_code == 0
    ]
