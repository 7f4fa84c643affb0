"""Podman, by its command line: it has no daemon, which is its point.

Run by an ordinary user it is rootless, by root it is rootful; which one it was stands in the
version and in the evidence.
"""

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Final, Self

from isobench.model import (
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Lack,
    Leftover,
    Limits,
    Relation,
    Resource,
    Stage,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed, Startable
from isobench.targets.containers import _podman
from isobench.targets.shared import oci, processes

OWN_FAILURE: Final = 125
"""Podman's exit code when it, and not the program, has failed; no payload of isobench exits with
it.
"""

_WAITING: Final = Command(argv=("_agent",))
_loaded: set[str] = set()


@dataclass(frozen=True, kw_only=True)
class PodmanTarget(_podman.Options):
    """A container of Podman's."""

    name: ClassVar[TargetName] = TargetName("podman")

    def probe(self) -> Availability:
        """Find settings with which a container starts and answers."""
        if shutil.which("podman") is None:
            return Unavailable(
                lack=Lack.TOOL, what="podman", hint="isobench doctor --install podman"
            )
        try:
            settings = _podman.working(self)
            info = _podman.info(*_podman.before_the_verb(settings))
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint or "podman info")
        except ValueError as error:
            return Unavailable(lack=Lack.RUNTIME, what=f"podman info: {error}", hint="podman info")
        host = info.get("host", {})
        kind = "rootless" if host.get("security", {}).get("rootless") else "rootful"
        runtime = settings.runtime or host.get("ociRuntime", {}).get("name", "default runtime")
        version = info.get("version", {}).get("Version", "?")
        storage = info.get("store", {}).get("graphDriverName", "?")
        more = ", lowered limits" if settings.limits else ""
        return Available(version=f"Podman {version}, {kind}, {runtime}, {storage}{more}")

    @property
    def limitable(self) -> Sequence[Resource]:
        """What cgroups limit for this user."""
        return _podman.limitable(self)

    def limited(self, limits: Limits) -> Self:
        """Return the same container with these limits, started with the same settings."""
        limited = super().limited(limits)
        if Resource.IO not in self.limitable:
            limited = replace(limited, write_limit=self.write_limit)
        _podman.adopt(limited, self)
        return limited

    def _ready(self, stage: Stage) -> oci.Settings:
        """See to it that the image is there; return settings that work."""
        settings = _podman.working(self)
        image = oci.image_name(stage)
        if image not in _loaded:
            if _podman.run("image", "exists", image).exit_code != 0:
                with tempfile.NamedTemporaryFile(prefix="isobench-", suffix=".tar") as file:
                    file.write(oci.stage_archive(stage, str(host_abi()).partition("-")[0]))
                    file.flush()
                    _podman.must("load", "--quiet", "--input", file.name)
            _loaded.add(image)
        return settings

    def _arguments(
        self, verb: str, stage: Stage, command: Command, settings: oci.Settings, *more: str
    ) -> list[str]:
        variables = command.environ(oci.INSIDE)
        return [
            *_podman.before_the_verb(settings),
            verb,
            *more,
            *_podman.options(self, settings),
            *(["--cpuset-cpus", stage.cpus] if stage.cpus else ()),
            *_podman.pairs("--label", oci.labels(stage.owner)),
            *_podman.pairs("--env", variables),
            oci.image_name(stage),
            f"{Stage.INSIDE}/{command.argv[0]}",
            *command.argv[1:],
        ]

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a container that waits; payloads are executed in it."""
        settings = self._ready(stage)
        name = f"{stage.owner}-{os.urandom(4).hex()}"
        try:
            _podman.must(
                *self._arguments("run", stage, _WAITING, settings, "--detach", "--name", name),
                folder=stage.scratch,
            )
            yield _Session(name, stage, settings)
        finally:
            _podman.remove(name)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a container to its end: `podman run --rm`."""
        settings = self._ready(stage)
        name = f"{stage.owner}-{os.urandom(4).hex()}"
        words = self._arguments("run", stage, command, settings, "--rm", "--name", name)
        return _streamed(words, name, stage, command, timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Create a container that is started again and again."""
        settings = self._ready(stage)
        name = f"{stage.owner}-{os.urandom(4).hex()}"
        try:
            _podman.must(*self._arguments("create", stage, command, settings, "--name", name))
            yield _Stopped(name, stage, command, settings)
        finally:
            _podman.remove(name)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove containers whose run has died, and the images where `cached` says so."""
        # Asking Podman leaves a process of its own behind for an ordinary user: so at every start
        # it is asked only where isobench has ever started a container with it.
        if shutil.which("podman") is None or not (cached or _podman.memory().exists()):
            return []
        removed: list[Leftover] = []
        try:
            removed += _podman.sweep_containers(alive)
            if cached:
                removed += _podman.sweep_images()
                _loaded.clear()
        except (SessionError, ValueError) as error:
            removed.append(Leftover(what="what podman may have left", failure=str(error)))
        return removed


# ---- pods ----------------------------------------------------------------------------------------

_BYTES: Final = {"b": "", "k": "Ki", "m": "Mi", "g": "Gi"}
_CONTAINER: Final = "payload"


@dataclass(frozen=True, kw_only=True)
class PodTarget(PodmanTarget):
    """A pod as Kubernetes describes one, made by Podman alone: `podman kube play`.

    What it takes beside a plain container is what a pod costs, without a cluster around it.
    """

    name: ClassVar[TargetName] = TargetName("podman-pod")
    expectations: ClassVar[tuple[Expectation, ...]] = (
        *oci.EXPECTATIONS,
        # The pod's first container gives all of them their name: the pod's. A container alone is
        # called by its own identity.
        Expectation(key="kernel.hostname", relation=Relation.CONTAINS, value="isobench-"),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "Podman makes a pod and its container from a description in the format of"
        " Kubernetes (`kube play`), then starts both: what holds the pod's namespaces, and the"
        " payload",
        "warm": "Podman starts a pod again that has stopped, as `start` does with its container",
        "exec": "Podman executes the payload in a container of a pod that runs, as `exec` does",
    }

    def __post_init__(self) -> None:
        """Refuse what a pod cannot have."""
        if self.security_opt:
            raise ValueError("security_opt: the description of a pod has no such thing")
        for option in ("pids", "cpu_quota", "write_limit"):
            if getattr(self, option):
                raise ValueError(f"{option}: isobench sets no such limit for a pod")
        _quantity(self.memory)

    @property
    def limitable(self) -> Sequence[Resource]:
        """Nothing: Podman heeds only some limits of a pod's description."""
        return ()

    def probe(self) -> Availability:
        """Find settings with which a container starts, then start an empty pod."""
        answer = super().probe()
        if isinstance(answer, Unavailable):
            return answer
        said = _pod_trial(_podman.working(self))
        if said:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"a container starts, but no pod: {said}",
                hint="isobench doctor --install podman (it brings catatonit, which holds a pod)",
            )
        return answer

    @contextlib.contextmanager
    def _played(
        self, stage: Stage, command: Command, settings: oci.Settings, *, start: bool
    ) -> Iterator[str]:
        """Make a pod, yield its container's name, remove it with all that is in it."""
        pod = f"{stage.owner}-{os.urandom(4).hex()}"
        description = json.dumps(self._description(pod, stage, command)).encode()
        words = [
            *_podman.before_the_verb(settings),
            "kube",
            "play",
            f"--start={str(start).lower()}",
        ]
        try:
            with _file(description) as path, _low_limits(settings) as variables:
                _podman.must(
                    *words,
                    *("--network", self.network, path),
                    variables=variables,
                    folder=stage.scratch,
                )
            yield f"{pod}-{_CONTAINER}"
        finally:
            _remove_pod(pod)

    def _description(self, pod: str, stage: Stage, command: Command) -> dict[str, Any]:
        memory = _quantity(self.memory)
        variables = command.environ(oci.INSIDE)
        container = {
            "name": _CONTAINER,
            "image": oci.image_name(stage),
            "imagePullPolicy": "Never",
            "command": [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]],
            "env": [{"name": key, "value": value} for key, value in variables.items()],
            "resources": {"limits": {"memory": memory}} if memory else {},
        }
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": pod, "labels": oci.labels(stage.owner)},
            "spec": {"restartPolicy": "Never", "containers": [container]},
        }

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a pod whose container waits; payloads are executed in it."""
        settings = self._ready(stage)
        with self._played(stage, _WAITING, settings, start=True) as name:
            yield _Session(name, stage, settings)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Make a pod, start it attached to its container, read to the end, remove it."""
        settings = self._ready(stage)
        with self._played(stage, command, settings, start=False) as name:
            command.on_phase("engine.created")
            return _Stopped(name, stage, command, settings).start(timeout=timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Make a pod that is started again and again."""
        settings = self._ready(stage)
        with self._played(stage, command, settings, start=False) as name:
            yield _StoppedPod(name, stage, command, settings)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove pods whose run has died; images are `podman`'s to remove."""
        if shutil.which("podman") is None or not (cached or _podman.memory().exists()):
            return []
        removed: list[Leftover] = []
        try:
            said = _podman.must("pod", "ps", "--filter", f"label={oci.LABEL}", "--format", "json")
            for found in json.loads(said or b"[]") or ():
                if not alive((found.get("Labels") or {}).get(oci.OWNER_LABEL, "")):
                    _remove_pod(found["Id"])
                    removed.append(Leftover(what=f"podman pod {found['Name']}"))
        except (SessionError, ValueError) as error:
            removed.append(Leftover(what="what podman may have left", failure=str(error)))
        return removed


def _quantity(memory: str) -> str:
    """Return a limit as Kubernetes spells it: Podman's "512m" would be half a byte there."""
    if not memory:
        return ""
    digits, unit = memory.lower().rstrip("bkmg"), memory.lower().lstrip("0123456789")
    if not digits.isdigit() or (unit and unit not in _BYTES):
        raise ValueError(f'memory = "{memory}": a number with b, k, m or g is wanted: "512m"')
    return digits + _BYTES.get(unit, "")


@contextlib.contextmanager
def _file(content: bytes) -> Iterator[str]:
    with tempfile.NamedTemporaryFile(prefix="isobench-") as file:
        file.write(content)
        file.flush()
        yield file.name


@contextlib.contextmanager
def _low_limits(settings: oci.Settings) -> Iterator[Mapping[str, str]]:
    """Yield variables by which a pod gets lowered limits, where it needs them.

    No option of `kube play` does that, only a configuration in place of this host's.
    """
    if not settings.limits:
        yield _podman.NOTHING
        return
    limits = ", ".join(f'"{name}={value}:{value}"' for name, value in oci.LIMITS)
    with _file(f"[containers]\ndefault_ulimits = [{limits}]\n".encode()) as path:
        yield {"CONTAINERS_CONF": path}


def _pod_trial(settings: oci.Settings) -> str:
    """Return why no pod starts, or nothing where an empty one did."""
    pod = f"{ownership.mine()}-{os.urandom(4).hex()}"
    labels = _podman.pairs("--label", oci.labels(ownership.mine()))
    try:
        with _low_limits(settings) as variables:
            words = (
                *_podman.before_the_verb(settings),
                "pod",
                "create",
                "--network",
                "none",
                "--name",
                pod,
            )
            _podman.must(*words, *labels, variables=variables)
        _podman.must(*_podman.before_the_verb(settings), "pod", "start", pod, timeout=seconds(60))
    except SessionError as error:
        return str(error)
    finally:
        _remove_pod(pod)
    return ""


def _remove_pod(pod: str) -> None:
    with contextlib.suppress(SessionError):
        _podman.run("pod", "rm", "--force", "--time", "0", "--ignore", pod)


# ---- sessions of both ----------------------------------------------------------------------------


def _streamed(
    words: Sequence[str], name: str, stage: Stage, command: Command, timeout: Nanoseconds
) -> Completed:
    """Run a podman command that carries a payload's streams; end the container if the command does
    not end.
    """
    finished = False
    try:
        done = processes.run(
            ["podman", *words],
            timeout=timeout,
            env=os.environ,
            command=command,
            folder=stage.scratch,
        )
        finished = done.exit_code is not None
    except OSError as error:
        raise SessionError(f"podman cannot be executed: {error}") from None
    finally:
        if not finished:
            _podman.remove(name)
    if done.exit_code == OWN_FAILURE and b"rror" in done.stderr:
        raise SessionError(f"podman: {processes.last_line(done.stderr)}")
    return done


@dataclass(frozen=True, slots=True)
class _Stopped:
    name: str
    stage: Stage
    command: Command
    settings: oci.Settings

    def start(self, *, timeout: Nanoseconds) -> Completed:
        words = [*_podman.before_the_verb(self.settings), "start", "--attach", self.name]
        return _streamed(words, self.name, self.stage, self.command, timeout)


@dataclass(frozen=True, slots=True)
class _StoppedPod(_Stopped):
    def start(self, *, timeout: Nanoseconds) -> Completed:
        done = _Stopped.start(self, timeout=timeout)
        # What holds the pod's namespaces ends by itself, a moment after the last container: a pod
        # that is started again meanwhile fails.
        _podman.run(
            "pod", "stop", "--time", "0", "--ignore", self.name.removesuffix(f"-{_CONTAINER}")
        )
        return done


@dataclass(frozen=True, slots=True)
class _Session:
    name: str
    stage: Stage
    settings: oci.Settings

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        variables = command.environ(oci.INSIDE)
        words = [
            *_podman.before_the_verb(self.settings),
            "exec",
            *_podman.pairs("--env", variables),
            self.name,
            f"{Stage.INSIDE}/{command.argv[0]}",
            *command.argv[1:],
        ]
        return _streamed(words, self.name, self.stage, command, timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield what Podman says of this container."""
        try:
            seen = json.loads(_podman.must("inspect", self.name))[0]
            info = _podman.info(*_podman.before_the_verb(self.settings))
        except (ValueError, IndexError) as error:
            raise SessionError(f"podman inspect: {error}") from None
        source, host = "podman inspect", info.get("host", {})
        runtime, first_pid = str(seen.get("OCIRuntime")), seen.get("State", {}).get("Pid")
        limit = seen.get("HostConfig", {}).get("Memory")
        options = seen.get("HostConfig", {}).get("SecurityOpt")
        path = host.get("ociRuntime", {}).get("path")
        facts = {
            "host.engine.runtime": runtime,
            "host.engine.runtime_version": oci.runtime_version(path) if path else None,
            "host.engine.settings": self.settings.words(),
            "host.engine.pod": seen.get("Pod") or "none",
            "host.engine.network": seen.get("HostConfig", {}).get("NetworkMode"),
            "host.engine.storage": info.get("store", {}).get("graphDriverName"),
            "host.engine.cgroups": f"{host.get('cgroupVersion')}, {host.get('cgroupManager')}",
            "host.engine.security_options": " ".join(options or ["the engine's default"]),
            "host.engine.memory": limit or "no limit",
            "host.engine.first_pid": first_pid,
        }
        if os.geteuid() != 0:  # as root Podman was asked to be rootful: that says nothing of it
            facts["host.rootless"] = bool(host.get("security", {}).get("rootless"))
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source=source)
        # What holds a container once the command has returned: a monitor of its own, or an engine.
        if isinstance(first_pid, int) and (above := processes.ancestors(first_pid)):
            engine = "podman" if "podman" in above else "none"
            yield Evidence(key="host.engine.daemon", value=engine, source=" < ".join(above))
        yield from oci.witnessed(runtime, first_pid)
