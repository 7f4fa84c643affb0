"""The life of one pod of isobench's: made, reached as soon as it runs, read, ended; and what runs
that died have left.
"""

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

from isobench.config import paths
from isobench.model import Leftover
from isobench.model.errors import SessionError
from isobench.targets.containers import _kubernetes
from isobench.targets.shared import oci

CONTAINER: Final = "isobench"
"""The name of the container in a pod: the kubelet puts it into the path of what it mounts there."""
HOST_LABEL: Final = "isobench.host"
LONGEST: Final = 24 * 3600
"""Seconds after which the cluster itself ends a pod that nobody has removed."""
_PATIENT: Final = 10.0
"""Seconds that the scheduler gets: what a pod before this one has used may not be free yet."""
_ENDING: Final = 30.0
_FORGETTING: Final = 10.0
_LOOK, _TRY, _TRIES = 0.02, 0.02, 6
_DENIED: Final = (401, 403)


@functools.cache
def host() -> str:
    """Return who can tell whether an owner lives: this boot of this machine, and in it those who
    share our process numbers.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    seen = f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - it names nothing in a file system
    return hashlib.sha256(seen.encode()).hexdigest()[:12]


def labels(owner: str) -> dict[str, str]:
    """Return the labels of every pod that isobench makes."""
    return {**oci.labels(owner), HOST_LABEL: host()}


# ---- what the API says of a pod. Pure. -----------------------------------------------------------


class Refusal(NamedTuple):
    """Why a pod does not run."""

    why: str
    hint: str
    final: bool
    """Waiting would not help."""


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
    """Return the status of isobench's container; sidecars that a cluster adds are not looked at."""
    found = pod.get("status", {}).get("containerStatuses") or ()
    return next((one for one in found if one.get("name") == CONTAINER), {})


def ended(pod: Mapping[str, Any]) -> int | None:
    """Return the exit code of isobench's container, or None while it may still run."""
    finished = container(pod).get("state", {}).get("terminated")
    return None if finished is None else int(finished.get("exitCode", -1))


def refusal(pod: Mapping[str, Any]) -> Refusal | None:
    """Return why a pod does not run and what to do, or None where nothing is wrong so far."""
    status = pod.get("status", {})
    state = container(pod).get("state", {})
    waiting, finished = state.get("waiting") or {}, state.get("terminated")
    if waiting.get("reason") in _IMAGE:
        return Refusal(
            f"the node has no image: {_told(waiting)}",
            'the image must reach this node: [targets.kubernetes] / load = ["ctr", "-n", "k8s.io",'
            ' "images", "import"], or image = "registry/name" and load = [a command that pushes]',
            final=True,
        )
    if waiting.get("reason") in _START:
        return Refusal(f"the container does not start: {_told(waiting)}", _DESCRIBE, final=True)
    if finished is not None:
        code = f"exit code {finished.get('exitCode')}"
        return Refusal(f"the container ended: {_told(finished)} ({code})", _DESCRIBE, final=True)
    if status.get("phase") in ("Failed", "Succeeded"):
        return Refusal(f"the pod ended: {_told(status) or status['phase']}", _DESCRIBE, final=True)
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return Refusal(
                f"no node takes the pod: {_told(condition)}",
                "kubectl describe nodes; options of [targets.kubernetes] are node, tolerate, cpu"
                " and memory",
                final=False,
            )
    return None


_DESCRIBE: Final = "kubectl get events --sort-by=.lastTimestamp"


def _told(part: Mapping[str, Any]) -> str:
    words = (part.get("reason"), part.get("message"))
    return " ".join(": ".join(str(word) for word in words if word).split())[:400]


# ---- one pod -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod that has been created."""

    cluster: _kubernetes.Cluster
    name: str
    uid: str

    def seen(self) -> _kubernetes.Json | None:
        """Return what the API says of it; None: it is gone."""
        pod = self.cluster.pod(self.name)
        return pod if pod is not None and pod["metadata"]["uid"] == self.uid else None

    def execute(self, argv: Sequence[str]) -> _kubernetes.Stream:
        """Start a process in its container."""
        return self.cluster.execute(self.name, CONTAINER, argv)

    def attach(self) -> _kubernetes.Stream:
        """Take hold of the streams of its container's first process."""
        return self.cluster.attach(self.name, CONTAINER)

    def reach(
        self, connect: Callable[[], _kubernetes.Stream], *, patience: float
    ) -> _kubernetes.Stream:
        """Return a stream to the container as soon as there is one; SessionError: there never is.

        What the API says of a pod is behind by up to a second, since kubelets look and report at
        intervals. The kubelet itself, asked for a stream, asks the runtime: so it is asked until it
        agrees.
        """
        began = time.monotonic()
        last = ""
        while True:
            pod = self.seen()
            if pod is None:
                raise SessionError("the pod is gone: somebody has deleted it")
            waited = time.monotonic() - began
            wrong = refusal(pod)
            if wrong is not None and (wrong.final or waited > min(_PATIENT, patience)):
                raise SessionError(wrong.why, hint=wrong.hint)
            if waited > patience:
                warned = [*self.cluster.warnings(self.name), last or "nobody says why"]
                raise SessionError(
                    f"the pod cannot be reached after {patience:g} s: {'; '.join(warned[-2:])}",
                    hint=f"{_DESCRIBE}; [targets.kubernetes] / start_timeout = {patience * 2:g}",
                )
            for _ in range(_TRIES if pod["spec"].get("nodeName") else 0):
                try:
                    return connect()
                except _kubernetes.ApiError as error:
                    if error.status in _DENIED:
                        raise
                    last = str(error)
                time.sleep(_TRY)
            time.sleep(_LOOK)

    def exit_code(self) -> int:
        """Return how the container's first process ended; SessionError: nobody says."""
        deadline = time.monotonic() + _ENDING
        while time.monotonic() < deadline:
            pod = self.seen()
            if pod is None:
                raise SessionError("the pod is gone: somebody has deleted it")
            if (code := ended(pod)) is not None:
                return code
            time.sleep(_LOOK)
        raise SessionError("the cluster does not say how the container ended", hint=_DESCRIBE)

    def end(self) -> None:
        """End it and wait until its processes are gone; SessionError where that cannot be seen.

        A grace of zero would only make the cluster forget it: its processes might live on, and
        nobody would tell. With a second of grace the kubelet reports their end; isobench's agent
        does not use the second.
        """
        self.cluster.delete(self.name, self.uid, grace=1)
        if self._gone(_ENDING, or_ended=True):
            return
        self.cluster.delete(self.name, self.uid, grace=0)
        if not self._gone(_FORGETTING, or_ended=False):
            raise SessionError(f"the pod {self.name} cannot be removed", hint=_DESCRIBE)

    def _gone(self, patience: float, *, or_ended: bool) -> bool:
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            pod = self.seen()
            if pod is None:
                return True
            if or_ended and ended(pod) is not None:
                return False  # its processes are gone: now it may be forgotten
            time.sleep(_LOOK)
        return False


# ---- what is to be removed -----------------------------------------------------------------------


def _notes() -> Path:
    return paths.cache() / "pods"


def _note(name: str, place: _kubernetes.Place) -> Path:
    """Note that a pod is to be removed: after a `kill -9` the next start knows where, and asks no
    cluster for nothing.
    """
    path = _notes() / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    where = {
        "kubeconfig": place.kubeconfig, "context": place.context, "namespace": place.namespace
    }  # fmt: skip
    path.touch(mode=0o600)
    path.write_text(json.dumps(where))
    return path


@contextlib.contextmanager
def created(
    cluster: _kubernetes.Cluster, place: _kubernetes.Place, pod: Mapping[str, Any]
) -> Iterator[Pod]:
    """Create a pod and yield it; leaving the context ends it."""
    name = str(pod["metadata"]["name"])
    note = _note(name, replace(place, namespace=cluster.namespace))
    made: Pod | None = None
    try:
        answer = cluster.create(dict(pod))
        made = Pod(cluster=cluster, name=name, uid=answer["metadata"]["uid"])
        yield made
    finally:
        if made is None:
            made = _found(cluster, name, pod["metadata"]["labels"])
        if made is not None:
            made.end()
        note.unlink(missing_ok=True)


def _found(cluster: _kubernetes.Cluster, name: str, wanted: Mapping[str, str]) -> Pod | None:
    """Return a pod with these labels; None: there is none."""
    pod = cluster.pod(name)
    if pod is None:
        return None
    worn = pod["metadata"].get("labels") or {}
    if any(worn.get(key) != value for key, value in wanted.items()):
        return None  # not ours, whatever its name
    return Pod(cluster=cluster, name=name, uid=pod["metadata"]["uid"])


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove and return the pods that runs which died have noted."""
    removed: list[Leftover] = []
    unreachable: dict[_kubernetes.Place, str] = {}
    for note in sorted(_notes().glob("isobench-*.json")):
        whose = note.stem.rpartition("-")[0]
        if alive(whose):
            continue
        try:
            place = _kubernetes.Place(**json.loads(note.read_text()))
        except (OSError, ValueError, TypeError):
            note.unlink(missing_ok=True)
            continue
        why = unreachable.get(place) or _settle(note.stem, whose, place, removed)
        if why:
            unreachable[place] = why
            removed.append(Leftover(what=f"pod {note.stem}", failure=why))
            # By then the cluster has ended it by itself.
            if time.time() - note.stat().st_mtime < LONGEST:
                continue
        note.unlink(missing_ok=True)
    return removed


def _settle(name: str, whose: str, place: _kubernetes.Place, removed: list[Leftover]) -> str:
    """Remove one noted pod; return why that cannot be done, or nothing."""
    if not _kubernetes.installed():
        return "the Python package kubernetes is no longer installed"
    try:
        pod = _found(_kubernetes.connect(place), name, oci.labels(whose))
        if pod is not None:
            pod.end()
            removed.append(Leftover(what=f"pod {name}"))
    except SessionError as error:
        return str(error)
    return ""


def sweep_labelled(cluster: _kubernetes.Cluster, alive: Callable[[str], bool]) -> list[Leftover]:
    """Remove the pods of this host that a run which died has left, noted or not."""
    removed = []
    for pod in cluster.pods(f"{oci.LABEL}=1,{HOST_LABEL}={host()}"):
        found = pod["metadata"]
        if not alive(found["labels"].get(oci.OWNER_LABEL, "")):
            Pod(cluster=cluster, name=found["name"], uid=found["uid"]).end()
            removed.append(Leftover(what=f"pod {found['name']}"))
    return removed
