"""Podman, a container engine without a daemon, used by its command line.

For an ordinary user it is rootless, for root it is rootful. The version and the evidence show
which.
"""

import contextlib
import json
import os
import shutil
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
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed, Startable
from isobench.targets.containers import _podman
from isobench.targets.shared import oci, processes

OWN_FAILURE: Final = 125
"""Podman's exit code when it, and not the program, has failed: podman-run(1). No payload has it."""

_WAIT: Final = Command(argv=("_agent",))
"""The agent alone waits and reaps, as the first process of a container in which Podman executes."""
_loaded: set[str] = set()
"""The images that are known to be in Podman's storage."""
_bases: dict[str, str] = {}
"""The ids of the user's images, which stay the same for this process: a tag may be moved."""


@dataclass(frozen=True, kw_only=True)
class PodmanTarget(_podman.Options):
    """A container of Podman."""

    name: ClassVar[TargetName] = TargetName("podman")

    def probe(self) -> Availability:
        """Find settings with which a container starts and answers."""
        if shutil.which("podman") is None:
            return Unavailable(
                lack=Lack.TOOL, what="podman", hint="isobench doctor --install podman"
            )
        try:
            settings = _podman.working_settings(self)
            info = _podman.info(*_podman.global_options(settings))
            base = self._base()
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint or "podman info")
        kind = "rootless" if info.host.security.rootless else "rootful"
        runtime = settings.runtime or info.host.oci_runtime.name or "default runtime"
        version = info.version.version or "?"
        storage = info.store.graph_driver_name or "?"
        more = ", lowered limits" if settings.limits else ""
        more += oci.image_text(self.image, base)
        return Available(version=f"Podman {version}, {kind}, {runtime}, {storage}{more}")

    @property
    def limitable(self) -> Sequence[Resource]:
        """The resources that cgroups can limit for this user."""
        return _podman.limitable(self)

    def limited(self, limits: Limits) -> Self:
        """Return this target with these limits, started with the same settings."""
        limited = super().limited(limits)
        # A limit that cannot be set would keep the container from starting.
        if Resource.IO not in self.limitable:
            limited = replace(limited, write_limit=self.write_limit)
        _podman.share_settings(limited, self)
        return limited

    def _ready(self, stage: Stage) -> oci.Settings:
        """Load the image unless Podman has it; return settings that work."""
        settings = _podman.working_settings(self)
        image = self._image(stage)
        if image not in _loaded:
            if _podman.run("image", "exists", image).exit_code != 0:
                self._provide(stage)
            _loaded.add(image)
        return settings

    def _provide(self, stage: Stage) -> None:
        base = self._base()
        if base:
            _commit(stage, base)
            return
        archive = oci.stage_archive(stage, str(host_abi()).partition("-")[0])
        with ownership.temporary_file(archive, "image.tar") as file:
            _podman.checked("load", "--quiet", "--input", str(file))

    def _base(self) -> str:
        """Return the id of the user's image; empty for none. SessionError: it is missing."""
        if self.image and self.image not in _bases:
            argv = ("image", "inspect", "--format", "{{.Id}}", self.image)
            try:
                _bases[self.image] = _podman.checked(*argv).decode(errors="replace").strip()
            except SessionError:
                raise SessionError(
                    f"Podman has no image {self.image}",
                    hint=f"podman pull {commands.path(self.image)}",
                ) from None
        return _bases.get(self.image, "")

    def _image(self, stage: Stage) -> str:
        return oci.image_name(stage, self._base())

    def _arguments(
        self, verb: str, stage: Stage, command: Command, settings: oci.Settings, *more: str
    ) -> list[str]:
        variables = command.environ(oci.INSIDE)
        return [
            *_podman.global_options(settings),
            verb,
            *more,
            *_podman.container_options(self, settings),
            *(["--cpuset-cpus", stage.cpus] if stage.cpus else ()),
            *_podman.pairs("--label", oci.labels(stage.owner)),
            *_podman.pairs("--env", variables),
            self._image(stage),
            f"{Stage.INSIDE}/{command.argv[0]}",
            *command.argv[1:],
        ]

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a container whose first process waits; payloads are executed in it."""
        settings = self._ready(stage)
        name = oci.new_name(stage.owner)
        with _removed(name):
            with _image_in_doubt():
                _podman.checked(
                    *self._arguments("run", stage, _WAIT, settings, "--detach", "--name", name),
                    folder=stage.scratch,
                )
            yield _Session(name, stage, settings)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Run a container until the payload has ended: `podman run --rm`."""
        settings = self._ready(stage)
        name = oci.new_name(stage.owner)
        arguments = self._arguments("run", stage, command, settings, "--rm", "--name", name)
        with _image_in_doubt():
            return _run_podman(arguments, name, stage, command, timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Create a container that is started again and again."""
        settings = self._ready(stage)
        name = oci.new_name(stage.owner)
        with _removed(name):
            with _image_in_doubt():
                _podman.checked(
                    *self._arguments("create", stage, command, settings, "--name", name)
                )
            yield _Stopped(name, stage, command, settings)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the pods and containers of runs that have died, and with `cached` the images."""
        # Every podman command of an ordinary user leaves a pause process behind. So an ordinary
        # start runs none unless isobench has ever started a container.
        if shutil.which("podman") is None or not (cached or _podman.settings_cache().exists()):
            return []
        if cached:
            _loaded.clear()
        return _podman.sweep(alive, images=cached)


def _commit(stage: Stage, base: str) -> None:
    """Make an image of one of the user's and the payloads of a stage."""
    name = oci.new_name(stage.owner)
    labels = _podman.pairs("--label", oci.labels(stage.owner))
    settings = ("--pull=never", "--network", "none", "--http-proxy=false", "--env-host=false")
    # A command begins with the payload, whatever the image's entry point is.
    changes = [f"--change={each}" for each in ("ENTRYPOINT []", *oci.OF_A_COMMIT)]
    with _removed(name):
        _podman.checked("create", *settings, "--name", name, *labels, base, oci.AGENT)
        with ownership.temporary_folder("layer") as folder:
            (folder / "scratch").mkdir()
            (folder / "scratch").chmod(0o1777)  # containers may run as any user
            for source in (stage.root / "isobench", folder / "scratch"):
                _podman.checked("cp", str(source), f"{name}:/")
        _podman.checked("commit", "--quiet", *changes, name, oci.image_name(stage, base))


def _removed(name: str) -> contextlib.AbstractContextManager[None]:
    """Return a context that removes a container at its end. SessionError: it stays."""
    return oci.removed(f"container {name}", lambda: _podman.remove(name))


@contextlib.contextmanager
def _image_in_doubt() -> Iterator[None]:
    """Surround a start of a container. If it fails, the next one looks whether the image is there:
    somebody may have removed it in the middle of the run.
    """
    try:
        yield
    except SessionError:
        _loaded.clear()
        raise


# ---- pods ----------------------------------------------------------------------------------------

_BYTES: Final = {"b": "", "k": "Ki", "m": "Mi", "g": "Gi"}
_CONTAINER: Final = "payload"


@dataclass(frozen=True, kw_only=True)
class PodTarget(PodmanTarget):
    """A pod from a Kubernetes manifest, made by Podman alone: `podman kube play`.

    Compared with a plain container it shows the cost of a pod without the cost of a cluster.
    """

    name: ClassVar[TargetName] = TargetName("podman-pod")
    expectations: ClassVar[tuple[Expectation, ...]] = (
        *oci.EXPECTATIONS,
        # All containers of a pod have the pod's name as their host name. A plain container has its
        # id.
        Expectation(key="kernel.hostname", relation=Relation.CONTAINS, value="isobench-"),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "Podman makes a pod and its container from a Kubernetes manifest (`kube play`),"
        " then starts both the container that holds the pod's namespaces and the payload's",
        "warm": "Podman starts a stopped pod again, as `start` does with its container",
        "exec": "Podman executes the payload in a container of a running pod, as `exec` does",
    }

    def __post_init__(self) -> None:
        """Check the options. ValueError: a pod cannot have one of them."""
        super().__post_init__()
        if self.security_opt:
            raise ValueError("security_opt: not for a pod, whose manifest has no such field")
        for option in ("pids", "cpu_quota", "write_limit"):
            if getattr(self, option):
                raise ValueError(f"{option}: not for a pod, whose limits isobench does not set")
        _quantity(self.memory)

    @property
    def limitable(self) -> Sequence[Resource]:
        """Nothing: `podman kube play` ignores some limits of a manifest."""
        return ()

    def probe(self) -> Availability:
        """Find settings with which a container starts, then start an empty pod."""
        answer = super().probe()
        if isinstance(answer, Unavailable):
            return answer
        error = _pod_start_error(_podman.working_settings(self))
        if error:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"a container starts, but no pod: {error}",
                hint="isobench doctor --install podman (it brings catatonit, which a pod needs)",
            )
        return answer

    @contextlib.contextmanager
    def _created(
        self, stage: Stage, command: Command, settings: oci.Settings, *, start: bool
    ) -> Iterator[str]:
        """Make a pod, yield its container's name, remove the pod with its containers."""
        pod = oci.new_name(stage.owner)
        manifest = json.dumps(self._manifest(pod, stage, command)).encode()
        arguments = [
            *_podman.global_options(settings),
            "kube",
            "play",
            f"--start={str(start).lower()}",
        ]
        with oci.removed(f"pod {pod}", lambda: _podman.remove_pod(pod)):
            with (
                ownership.temporary_file(manifest, "pod.yaml") as path,
                _limit_variables(settings) as variables,
                _image_in_doubt(),
            ):
                _podman.checked(
                    *arguments,
                    *("--network", self.network, str(path)),
                    variables=variables,
                    folder=stage.scratch,
                )
            yield f"{pod}-{_CONTAINER}"

    def _manifest(self, pod: str, stage: Stage, command: Command) -> dict[str, Any]:
        memory = _quantity(self.memory)
        variables = command.environ(oci.INSIDE)
        container = {
            "name": _CONTAINER,
            "image": self._image(stage),
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
        with self._created(stage, _WAIT, settings, start=True) as name:
            yield _Session(name, stage, settings)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Make a pod, run its container until the payload has ended, remove the pod."""
        settings = self._ready(stage)
        with self._created(stage, command, settings, start=False) as name:
            command.on_phase("engine.created")
            return _Stopped(name, stage, command, settings).start(timeout=timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Make a pod that is started again and again."""
        settings = self._ready(stage)
        with self._created(stage, command, settings, start=False) as name:
            yield _StoppedPod(name, stage, command, settings)


def _quantity(memory: str) -> str:
    """Return Podman's notation of a limit as a quantity of Kubernetes. ValueError: it is neither.

    Podman's "512m" is 512 MiB; as a quantity of Kubernetes it would be half a byte.
    """
    if not memory:
        return ""
    digits, unit = memory.lower().rstrip("bkmg"), memory.lower().lstrip("0123456789")
    if not digits.isdigit() or (unit and unit not in _BYTES):
        raise ValueError(f'memory = "{memory}": write a number with b, k, m or g, as in "512m"')
    return digits + _BYTES.get(unit, "")


@contextlib.contextmanager
def _limit_variables(settings: oci.Settings) -> Iterator[Mapping[str, str]]:
    """Yield the environment variables that give a pod lowered limits, if the settings need them."""
    # `kube play` has no option for limits: only a containers.conf has, which then replaces this
    # host's.
    if not settings.limits:
        yield _podman.NO_VARIABLES
        return
    limits = ", ".join(f'"{name}={value}:{value}"' for name, value in oci.LIMITS)
    content = f"[containers]\ndefault_ulimits = [{limits}]\n".encode()
    with ownership.temporary_file(content, "containers.conf") as path:
        yield {"CONTAINERS_CONF": str(path)}


def _pod_start_error(settings: oci.Settings) -> str:
    """Start an empty pod and remove it; return "" if it started, else the error."""
    pod = oci.new_name(ownership.mine())
    labels = _podman.pairs("--label", oci.labels(ownership.mine()))
    try:
        with _limit_variables(settings) as variables:
            arguments = (
                *_podman.global_options(settings),
                "pod",
                "create",
                "--network",
                "none",
                "--name",
                pod,
            )
            _podman.checked(*arguments, *labels, variables=variables)
        _podman.checked(*_podman.global_options(settings), "pod", "start", pod, timeout=seconds(60))
    except SessionError as error:
        return str(error)
    finally:
        _podman.remove_pod(pod)
    return ""


# ---- sessions of containers and pods -------------------------------------------------------------


def _run_podman(
    arguments: Sequence[str], name: str, stage: Stage, command: Command, timeout: Nanoseconds
) -> Completed:
    """Run a podman command that carries a payload's streams.

    The container is removed if the command does not end. SessionError: podman itself fails.
    """
    # Killing the command does not end the container: conmon, which holds it, is no child of it.
    finished = False
    try:
        done = processes.run(
            ["podman", *arguments],
            timeout=timeout,
            env=_podman.environment(),
            command=command,
            folder=stage.scratch,
        )
        finished = done.exit_code is not None
    except OSError as error:
        raise SessionError(f"podman cannot be executed: {error}") from None
    finally:
        if not finished:
            _podman.remove(name)
    if done.exit_code == OWN_FAILURE and b"rror" in done.stderr:  # "Error: …", "… error …"
        raise SessionError(f"podman: {processes.last_line(done.stderr)}")
    return done


@dataclass(frozen=True, slots=True)
class _Stopped:
    name: str
    stage: Stage
    command: Command
    settings: oci.Settings

    def start(self, *, timeout: Nanoseconds) -> Completed:
        arguments = [*_podman.global_options(self.settings), "start", "--attach", self.name]
        return _run_podman(arguments, self.name, self.stage, self.command, timeout)


@dataclass(frozen=True, slots=True)
class _StoppedPod(_Stopped):
    def start(self, *, timeout: Nanoseconds) -> Completed:
        done = _Stopped.start(self, timeout=timeout)
        # The container that holds the pod's namespaces ends by itself a moment after the last other
        # container. Starting the pod again in that moment fails.
        _podman.run(
            "pod", "stop", "--time", "0", "--ignore", self.name.removesuffix(f"-{_CONTAINER}")
        )
        return done


@dataclass(frozen=True, slots=True)
class _Session:
    name: str
    stage: Stage
    settings: oci.Settings
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        variables = command.environ(oci.INSIDE)
        arguments = [
            *_podman.global_options(self.settings),
            "exec",
            *(["--interactive"] if command.on_stdin is not None else []),
            *_podman.pairs("--env", variables),
            self.name,
            f"{Stage.INSIDE}/{command.argv[0]}",
            *command.argv[1:],
        ]
        return _run_podman(arguments, self.name, self.stage, command, timeout)

    def witness(self) -> Iterable[Evidence]:
        """Yield what Podman and the host show of this container. SessionError: Podman fails."""
        found = _podman.inspected(self.name)
        info = _podman.info(*_podman.global_options(self.settings))
        source, host = "podman inspect", info.host
        runtime, first_pid = str(found.runtime), found.state.pid
        limit, options = found.host_config.memory, found.host_config.security_opt
        path = host.oci_runtime.path
        facts = {
            "host.engine.runtime": runtime,
            "host.engine.runtime_version": oci.runtime_version(path) if path else None,
            "host.engine.settings": self.settings.description(),
            "host.engine.pod": found.pod or "none",
            "host.engine.network": found.host_config.network_mode,
            "host.engine.storage": info.store.graph_driver_name,
            "host.engine.cgroups": f"{host.cgroup_version}, {host.cgroup_manager}",
            "host.engine.security_options": " ".join(options or ["the engine's default"]),
            "host.engine.memory": limit or "no limit",
            "host.engine.first_pid": first_pid,
        }
        if os.geteuid() != 0:  # root's containers are rootful, which shows nothing about Podman
            facts["host.rootless"] = bool(host.security.rootless)
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source=source)
        # Who holds the container once the command has returned: conmon alone, or a daemon.
        if isinstance(first_pid, int) and (ancestors := processes.ancestors(first_pid)):
            engine = "podman" if "podman" in ancestors else "none"
            yield Evidence(key="host.engine.daemon", value=engine, source=" < ".join(ancestors))
        yield from oci.witnessed(runtime, first_pid)
