"""Create, reach and end isobench's pods, and remove those that runs which died have left."""

import contextlib
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

from isobench.config import cache
from isobench.model import Leftover
from isobench.model.errors import SessionError
from isobench.targets.containers import _kubernetes
from isobench.targets.shared import oci

CONTAINER: Final = "isobench"
"""The name of the container in a pod. The kubelet's mounts have it in their paths."""
HOST_LABEL: Final = "isobench.host"
MAX_LIFETIME: Final = 24 * 3600
"""Seconds after which the cluster ends a pod that isobench has not removed."""
_SCHEDULING: Final = 10.0
"""Seconds that a pod without a node is waited for: resources of the pod before may not be free yet.
"""
_ENDING: Final = 30.0
"""Seconds that the kubelet may take to report the end of a pod's processes."""
_FORGETTING: Final = 10.0
"""Seconds that the API server may take to forget a pod that has ended."""
_POLL, _RETRY, _RETRIES = 0.02, 0.02, 6
_DENIED: Final = (401, 403)


@functools.cache
def host() -> str:
    """Return a hash of this boot of this machine and of this PID namespace."""
    # An owner's name contains a process number. Only processes that share the numbers can find out
    # whether the owner still runs, and other hosts may use the same cluster.
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    numbering = f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - its target is no path
    return hashlib.sha256(numbering.encode()).hexdigest()[:12]


def labels(owner: str) -> dict[str, str]:
    """Return the labels of every pod that isobench makes."""
    return {**oci.labels(owner), HOST_LABEL: host()}


# ---- a pod's status in the API. Pure. ------------------------------------------------------------


class Refusal(NamedTuple):
    """Why a pod does not run."""

    reason: str
    hint: str
    final: bool
    """Whether waiting would not help."""


# The kubelet's reasons for a waiting container that more waiting does not change.
_IMAGE: Final = frozenset(
    {
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ImageInspectError",
    }
)
_START: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "CrashLoopBackOff"}
)


def container(pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the status of isobench's container, without sidecars that a cluster may add."""
    found = pod.get("status", {}).get("containerStatuses") or ()
    return next((one for one in found if one.get("name") == CONTAINER), {})


def ended(pod: Mapping[str, Any]) -> int | None:
    """Return the exit code of isobench's container, or None while it may still run."""
    finished = container(pod).get("state", {}).get("terminated")
    return None if finished is None else finished.get("exitCode", -1)


def refusal(pod: Mapping[str, Any]) -> Refusal | None:
    """Return why a pod does not run and what to do; None while nothing is wrong."""
    status = pod.get("status", {})
    state = container(pod).get("state", {})
    waiting, finished = state.get("waiting") or {}, state.get("terminated")
    if waiting.get("reason") in _IMAGE:
        return Refusal(
            f"the node has no image: {_reason(waiting)}",
            'bring the image to this node: [targets.kubernetes] / load = ["ctr", "-n", "k8s.io",'
            ' "images", "import"], or image = "registry/name" and load = [a command that pushes]',
            final=True,
        )
    if waiting.get("reason") in _START:
        return Refusal(f"the container does not start: {_reason(waiting)}", _DESCRIBE, final=True)
    if finished is not None:
        code = f"exit code {finished.get('exitCode')}"
        return Refusal(f"the container ended: {_reason(finished)} ({code})", _DESCRIBE, final=True)
    if status.get("phase") in ("Failed", "Succeeded"):
        return Refusal(
            f"the pod ended: {_reason(status) or status['phase']}", _DESCRIBE, final=True
        )
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Refusal(
                f"no node takes the pod: {_reason(condition)}",
                "kubectl describe nodes; options of [targets.kubernetes] are node, tolerate, cpu"
                " and memory",
                final=False,
            )
    return None


_DESCRIBE: Final = "kubectl get events --sort-by=.lastTimestamp"


def _reason(part: Mapping[str, Any]) -> str:
    parts = (part.get("reason"), part.get("message"))
    return " ".join(": ".join(str(text) for text in parts if text).split())[:400]


# ---- one pod -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that has been created."""

    cluster: _kubernetes.Cluster
    name: str
    uid: str

    def fetch(self) -> _kubernetes.Json | None:
        """Return the pod as the API reports it; None: it is gone."""
        pod = self.cluster.pod(self.name)
        return pod if pod is not None and pod["metadata"]["uid"] == self.uid else None

    def execute(self, argv: Sequence[str]) -> _kubernetes.Stream:
        """Start a process in the pod's container."""
        return self.cluster.execute(self.name, CONTAINER, argv)

    def attach(self) -> _kubernetes.Stream:
        """Attach to the streams of its container's first process."""
        return self.cluster.attach(self.name, CONTAINER)

    def reach(
        self, connect: Callable[[], _kubernetes.Stream], *, patience: float
    ) -> _kubernetes.Stream:
        """Return a stream to the container as soon as the kubelet grants one.

        SessionError: the pod cannot run, or there is no stream after `patience` seconds.
        """
        began = time.monotonic()
        last_error = ""
        while True:
            pod = self.fetch()
            if pod is None:
                raise SessionError("the pod is gone: it was deleted from outside")
            waited = time.monotonic() - began
            wrong = refusal(pod)
            if wrong is not None and (wrong.final or waited > min(_SCHEDULING, patience)):
                raise SessionError(wrong.reason, hint=wrong.hint)
            if waited > patience:
                warnings = [*self.cluster.warnings(self.name), last_error or "no reason is known"]
                raise SessionError(
                    f"the pod cannot be reached after {patience:g} s: {'; '.join(warnings[-2:])}",
                    hint=f"{_DESCRIBE}; [targets.kubernetes] / start_timeout = {patience * 2:g}",
                )
            # The pod's status in the API is up to a second old: kubelets look and report at
            # intervals. For a stream the kubelet asks the runtime itself, so that trying again and
            # again finds the container running much earlier.
            for _ in range(_RETRIES if pod.get("spec", {}).get("nodeName") else 0):
                if time.monotonic() - began > patience:
                    break
                try:
                    return connect()
                except _kubernetes.ApiError as error:
                    if error.status in _DENIED:
                        raise
                    last_error = str(error)
                time.sleep(_RETRY)
            time.sleep(_POLL)

    def exit_code(self) -> int:
        """Return the exit code of the container's first process.

        SessionError: the cluster does not report its end in time.
        """
        deadline = time.monotonic() + _ENDING
        while time.monotonic() < deadline:
            pod = self.fetch()
            if pod is None:
                raise SessionError("the pod is gone: it was deleted from outside")
            if (code := ended(pod)) is not None:
                return code
            time.sleep(_POLL)
        raise SessionError("the cluster does not report how the container ended", hint=_DESCRIBE)

    def end(self) -> None:
        """Delete the pod and wait for the end of its processes.

        SessionError: the cluster does not report their end.
        """
        # With a grace of zero the cluster forgets the pod at once, and its processes may live on
        # unnoticed. With one second the kubelet reports their end. isobench's agent exits at once.
        self.cluster.delete(self.name, self.uid, grace=1)
        if self._gone(_ENDING, or_ended=True):
            return
        self.cluster.delete(self.name, self.uid, grace=0)
        if not self._gone(_FORGETTING, or_ended=False):
            raise SessionError(f"the pod {self.name} cannot be removed", hint=_DESCRIBE)

    def _gone(self, patience: float, *, or_ended: bool) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            pod = self.fetch()
            if pod is None:
                return True
            if or_ended and ended(pod) is not None:
                return False  # the processes are gone: the pod may now be deleted without grace
            time.sleep(_POLL)
        return False


# ---- records of pods that are to be removed ------------------------------------------------------


def _records() -> Path:
    return cache.folder("pods")


def _record(name: str, location: _kubernetes.Location) -> Path:
    """Write down that a pod is to be removed; return the file."""
    # After a `kill -9` the next start removes the pod. Without records it would have to look into
    # every cluster that the user has ever used.
    path = cache.made("pods") / f"{name}.json"
    fields = ("kubeconfig", "context", "namespace")
    # Paths and names of clusters are private.
    cache.replace(path, json.dumps({field: getattr(location, field) for field in fields}).encode())
    return path


@contextlib.contextmanager
def created(
    cluster: _kubernetes.Cluster, location: _kubernetes.Location, pod: Mapping[str, Any]
) -> Iterator[Pod]:
    """Create a pod and yield it; leaving the context ends it. SessionError: it is refused."""
    name = str(pod["metadata"]["name"])
    record = _record(name, replace(location, namespace=cluster.namespace))
    created_pod: Pod | None = None
    try:
        answer = cluster.create(dict(pod))
        created_pod = Pod(cluster=cluster, name=name, uid=answer["metadata"]["uid"])
        yield created_pod
    finally:
        # An interrupted request may have created the pod.
        if created_pod is None:
            created_pod = _owned_pod(cluster, name, pod["metadata"]["labels"])
        if created_pod is not None:
            created_pod.end()
        record.unlink(missing_ok=True)


def _owned_pod(cluster: _kubernetes.Cluster, name: str, wanted: Mapping[str, str]) -> Pod | None:
    """Return the pod of this name if it has these labels; None if not."""
    pod = cluster.pod(name)
    if pod is None:
        return None
    present = pod["metadata"].get("labels") or {}
    if any(present.get(key) != value for key, value in wanted.items()):
        return None  # another user's pod of the same name
    return Pod(cluster=cluster, name=name, uid=pod["metadata"]["uid"])


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the recorded pods of runs that have died, and return them."""
    removed: list[Leftover] = []
    unreachable: dict[_kubernetes.Location, str] = {}
    for record in sorted(_records().glob("isobench-*.json")):
        owner = record.stem.rpartition("-")[0]
        if alive(owner):
            continue
        try:
            location = _kubernetes.Location(**json.loads(record.read_text()))
        except (OSError, ValueError, TypeError):
            record.unlink(missing_ok=True)
            continue
        failure = unreachable.get(location) or _remove_recorded(
            record.stem, owner, location, removed
        )
        if failure:
            unreachable[location] = failure
            removed.append(Leftover(what=f"pod {record.stem}", failure=failure))
            # Older records are dropped: the cluster has ended these pods by itself.
            if time.time() - record.stat().st_mtime < MAX_LIFETIME:
                continue
        record.unlink(missing_ok=True)
    return removed


def _remove_recorded(
    name: str, owner: str, location: _kubernetes.Location, removed: list[Leftover]
) -> str:
    """Remove a recorded pod; return why that fails, or an empty string."""
    if not _kubernetes.installed():
        return "the Python package kubernetes is no longer installed"
    try:
        pod = _owned_pod(_kubernetes.connect(location), name, oci.labels(owner))
        if pod is not None:
            pod.end()
            removed.append(Leftover(what=f"pod {name}"))
    except SessionError as error:
        return str(error)
    return ""


def sweep_labelled(cluster: _kubernetes.Cluster, alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the pods of this host's runs that have died, with or without a record."""
    removed = []
    for pod in cluster.pods(f"{oci.LABEL}=1,{HOST_LABEL}={host()}"):
        found = pod["metadata"]
        if not alive(oci.owner_of(found.get("labels"), [found["name"]])):
            Pod(cluster=cluster, name=found["name"], uid=found["uid"]).end()
            removed.append(Leftover(what=f"pod {found['name']}"))
    return removed
