"""Docker, by its Python SDK."""

import atexit
import contextlib
import functools
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import docker
import docker.errors
import docker.types
import docker.utils.socket
import requests.exceptions

from isobench.model import (
    Availability,
    Available,
    Command,
    Evidence,
    Lack,
    Leftover,
    Limits,
    Resource,
    Stage,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import ownership
from isobench.plugins.api import Completed, Startable
from isobench.targets.shared import disks, elf, oci, processes

_FAULTS: Final = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)
_GRACE: Final = 3
"""Seconds in which a stream ends after its container was killed."""
_SOCKET: Final = Path("/var/run/docker.sock")

_working: dict["DockerTarget", oci.Settings] = {}
"""Which settings start a container: found once a process, so that no start-up figure holds the
search.
"""
_probing = threading.Lock()
_loaded: set[str] = set()
"""Images known to be in the engine."""


def _connect() -> docker.DockerClient:
    """Return this process's one connection to the engine; one of `_FAULTS` where nobody listens."""
    return _connected(os.environ.get("DOCKER_HOST"))


@functools.cache
def _connected(_address: str | None) -> docker.DockerClient:
    where = _socket_path()
    if where is not None:
        # The SDK leaves the socket of a refused connection open.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(60)
            link.connect(str(where))
    client = docker.from_env(timeout=60)
    atexit.register(client.close)
    return client


def _load(client: docker.DockerClient, archive: bytes) -> None:
    """Load an image; the SDK hands back what the engine says of it, piece by piece."""
    for said in client.api.load_image(archive):  # type: ignore[no-untyped-call]  # the SDK has few types
        if "error" in said:
            raise docker.errors.APIError(str(said["error"]))


def _said(error: Exception) -> str:
    explained = getattr(error, "explanation", None) or str(error)
    return " ".join(str(explained).split())[:500]


@dataclass(frozen=True, kw_only=True)
class DockerTarget(oci.Engine):
    """A container of the Docker engine that DOCKER_HOST or the default socket leads to."""

    name: ClassVar[TargetName] = TargetName("docker")

    cpus: str = ""
    """CPUs to run on, as `--cpuset-cpus`; empty: all."""

    def probe(self) -> Availability:
        """Ask the daemon, then start a container."""
        try:
            client = _connect()
            return self._try(client, str(client.version().get("Version", "?")), client.info())
        except _FAULTS as error:
            return _unreachable(error)

    def _try(
        self, client: docker.DockerClient, version: str, info: Mapping[str, Any]
    ) -> Availability:
        if info.get("OSType", "linux") != "linux":
            return Unavailable(
                lack=Lack.PLATFORM,
                what="this engine runs Windows containers",
                hint="switch it to Linux containers",
            )
        try:
            settings = self._settings(client, info)
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
        rootless = any("rootless" in str(option) for option in info.get("SecurityOptions") or ())
        kind = "rootless" if rootless else "rootful"
        runtime = settings.runtime or info.get("DefaultRuntime", "default runtime")
        more = ", lowered limits" if settings.limits else ""
        return Available(
            version=f"Docker {version}, {kind}, {runtime}, {info.get('Driver', '?')}{more}"
        )

    def _settings(self, client: docker.DockerClient, info: Mapping[str, Any]) -> oci.Settings:
        """Return settings with which a container starts and answers; SessionError when none do."""
        if self in _working:
            return _working[self]
        abi = host_abi()
        if abi is None:
            raise SessionError("no payloads for this host", hint="use Linux on x86_64 or aarch64")
        # In place of a default that starts nothing, any runtime on the host's kernel will do.
        others = [
            name
            for name in info.get("Runtimes") or {}
            if name != info.get("DefaultRuntime") and oci.kernel(name) is oci.Kernel.HOST
        ]
        runtimes = [self.runtime] if self.runtime else ["", *others]
        first_error = ""
        with _probing:  # of several columns each removes the one image when it is done
            _load(client, oci.probe_archive(abi.machine))
            try:
                for settings in oci.candidate_settings(runtimes):
                    said = _trial(client, self, settings)
                    if not said:
                        _working[self] = settings
                        return settings
                    first_error = first_error or said
            finally:
                with contextlib.suppress(*_FAULTS):
                    client.api.remove_image(oci.probe_image(), force=True)
        raise SessionError(
            f"the daemon answers, but no container starts: {first_error}",
            hint=self._way_out(first_error, info),
        )

    def _way_out(self, said: str, info: Mapping[str, Any]) -> str:
        """Return what to do where no container starts."""
        if self.runtime and self.runtime not in (info.get("Runtimes") or {}):
            known = ", ".join(sorted(info.get("Runtimes") or {}))
            return (
                f"this daemon knows the runtimes {known}; add {self.runtime} under runtimes in"
                " /etc/docker/daemon.json, and restart it"
            )
        if "cpuset" in said.lower() or "cpus" in said.lower():
            return 'cpus takes CPUs as Linux lists them, as in "0-1"'
        return "docker info; journalctl -u docker; a reinstall of runc or containerd"

    @property
    def limitable(self) -> Sequence[Resource]:
        """What the daemon says that it can limit; its disk's, where that is this host's."""
        try:
            info = _connect().info()
        except _FAULTS:
            return ()
        can = {
            Resource.CPU: info.get("CpuCfsQuota"),
            Resource.MEMORY: info.get("MemoryLimit"),
            Resource.PROCESSES: info.get("PidsLimit"),
            Resource.IO: _storage_disk(info),
        }
        return [resource for resource, able in can.items() if able]

    def limited(self, limits: Limits) -> Self:
        """Return the same container with these limits, started with the same settings."""
        limited = super().limited(limits)
        if Resource.IO not in self.limitable:
            limited = replace(limited, write_limit=self.write_limit)
        if self in _working:
            _working[limited] = _working[self]
        return limited

    def create(
        self,
        client: docker.DockerClient,
        stage: Stage,
        command: Command,
        settings: oci.Settings,
    ) -> str:
        """Create a container that will run a command; return its id."""
        return _create(
            client, self, settings,
            image=oci.image_name(stage),
            command=[f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]],
            environment=command.environ(oci.INSIDE),
            labels=oci.labels(stage.owner),
            cpus=self.cpus or stage.cpus,
        )  # fmt: skip

    def _ready(self, client: docker.DockerClient, stage: Stage) -> oci.Settings:
        """See to it that the image is there; return settings that work."""
        settings = _working.get(self) or self._settings(client, client.info())
        image = oci.image_name(stage)
        if image not in _loaded:
            try:
                client.api.inspect_image(image)  # type: ignore[no-untyped-call]  # the SDK has few types
            except docker.errors.ImageNotFound:
                _load(client, oci.stage_archive(stage, str(host_abi()).partition("-")[0]))
            _loaded.add(image)
        return settings

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a container that waits; payloads are executed in it."""
        with _engine() as client:
            settings = self._ready(client, stage)
            container = self.create(client, stage, Command(argv=("_agent",)), settings)
            try:
                client.api.start(container)
                yield _Session(client, container, settings)
            finally:
                _remove(client, container)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Create, attach, start, read, remove: what `docker run --rm` does."""
        with _engine() as client:
            container = self.create(client, stage, command, self._ready(client, stage))
            command.on_phase("engine.created")
            try:
                return _attach_and_start(client, container, command, timeout)
            finally:
                _remove(client, container)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Create a container that is started again and again."""
        with _engine() as client:
            container = self.create(client, stage, command, self._ready(client, stage))
            try:
                yield _Stopped(client, container, command)
            finally:
                _remove(client, container)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove containers whose run has died, and the images where `cached` says so."""
        removed: list[Leftover] = []
        try:
            client = _connect()
            for found in client.api.containers(all=True, filters={"label": oci.LABEL}):
                whose = (found.get("Labels") or {}).get(oci.OWNER_LABEL, "")
                if not alive(whose):
                    _remove(client, found["Id"])
                    removed.append(Leftover(what=f"docker container {found['Id'][:12]}"))
            for image in client.api.images(filters={"label": oci.LABEL}):
                names = image.get("RepoTags") or []
                probing = [whose for name in names if (whose := oci.probe_owner(name))]
                if not cached and (not probing or any(map(alive, probing))):
                    continue
                client.api.remove_image(image["Id"], force=bool(probing))
                _loaded.clear()
                named = ", ".join(image.get("RepoTags") or [image["Id"][:19]])
                removed.append(Leftover(what=f"docker image {named}"))
        except _FAULTS as error:
            if removed:
                removed.append(Leftover(what="what docker may have left", failure=_said(error)))
        return removed


@contextlib.contextmanager
def _engine() -> Iterator[docker.DockerClient]:
    """Yield a client; whatever the engine refuses becomes a SessionError."""
    try:
        yield _connect()
    except _FAULTS as error:
        raise SessionError(f"docker: {_said(error)}") from None


def _create(
    client: docker.DockerClient,
    target: DockerTarget,
    settings: oci.Settings,
    *,
    image: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    labels: Mapping[str, str],
    cpus: str = "",
) -> str:
    limits = [docker.types.Ulimit(name=n, soft=v, hard=v) for n, v in oci.LIMITS]
    more: dict[str, Any] = {"runtime": settings.runtime} if settings.runtime else {}
    if target.cpu_quota:
        more["nano_cpus"] = int(target.cpu_quota * 1e9)
    if target.write_limit:
        disk = _storage_disk(client.info())
        if disk is None:
            raise SessionError(
                "write_limit limits a disk, and the daemon's storage is on none of this host's",
                hint="leave out write_limit of this target in isobench.toml",
            )
        more["device_write_bps"] = [{"Path": disk, "Rate": oci.rate(target.write_limit)}]
    host = client.api.create_host_config(
        network_mode=target.network,
        security_opt=list(target.security_opt) or None,
        cpuset_cpus=cpus or None,
        mem_limit=target.memory or None,
        pids_limit=target.pids or None,
        ulimits=limits if settings.limits else None,
        **more,
    )
    made = client.api.create_container(
        image,
        list(command),
        environment=dict(environment),
        labels=dict(labels),
        host_config=host,
    )
    return str(made["Id"])


def _trial(client: docker.DockerClient, target: DockerTarget, settings: oci.Settings) -> str:
    """Return why no container starts with these settings, or nothing when one did and answered."""
    container = ""
    try:
        container = _create(
            client, target, settings,
            image=oci.probe_image(), command=["/isobench/answer"], environment={},
            labels=oci.labels(ownership.mine()),
        )  # fmt: skip
        client.api.start(container)
        client.api.wait(container, timeout=30)
        said = client.api.logs(container)
    except _FAULTS as error:
        return _said(error)
    else:
        return "" if said == elf.ANSWER else f"it said {said[:80]!r}"
    finally:
        if container:
            _remove(client, container)


def _remove(client: docker.DockerClient, container: str) -> None:
    with contextlib.suppress(*_FAULTS):
        client.api.remove_container(container, force=True, v=True)


def _unreachable(error: Exception) -> Unavailable:
    said = _said(error)
    elsewhere = os.environ.get("DOCKER_HOST")
    if "Permission" in said or (_SOCKET.exists() and not os.access(_SOCKET, os.W_OK)):
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"this user may not use {elsewhere or _SOCKET}",
            hint="sudo usermod -aG docker $USER, then log in again",
        )
    if elsewhere is None and shutil.which("dockerd") is None and not _SOCKET.exists():
        return Unavailable(
            lack=Lack.TOOL, what="Docker Engine (dockerd)", hint="isobench doctor --install docker"
        )
    return Unavailable(
        lack=Lack.SERVICE,
        what=f"no Docker daemon answers at {elsewhere or _SOCKET}",
        hint="unset DOCKER_HOST, or start that daemon"
        if elsewhere
        else oci.start_daemon_hint("docker", "dockerd"),
    )


def _daemon() -> str | None:
    """Return the name of the process that serves the engine's socket; None where it is not one of
    this host's.
    """
    where = _socket_path()
    return None if where is None else processes.listening_process(where)


def _socket_path() -> Path | None:
    """Return the socket that leads to the engine; None where it is reached otherwise."""
    where = os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"
    return Path(where.removeprefix("unix://") or _SOCKET) if where.startswith("unix://") else None


def _storage_disk(info: Mapping[str, Any]) -> str | None:
    """Return the disk that the daemon's storage lies on; None where it is none of this host's."""
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        return None
    disk = disks.disk_under(Path(info.get("DockerRootDir") or "/var/lib/docker"))
    return None if disk is None else disk[0]


class _Watch:
    """Kills a container at the time limit, which ends every stream that is read from it.

    An engine may lose the end of what it executed in a container when that is killed (Docker 20.10
    with runsc): a stream that goes on all the same is then hung up on.
    """

    def __init__(self, client: docker.DockerClient, container: str, timeout: Nanoseconds) -> None:
        self.rang = False
        self.stream: object = None
        """What is listened to."""
        self._client, self._container = client, container
        self._over = threading.Event()
        self._timer = threading.Timer(timeout / SECOND, self._ring)
        self._timer.daemon = True

    def _ring(self) -> None:
        self.rang = True
        with contextlib.suppress(*_FAULTS):
            self._client.api.kill(self._container)
        if not self._over.wait(_GRACE):
            with contextlib.suppress(OSError, AttributeError):
                self.stream._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]  # noqa: SLF001 - the SDK has no other way

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._timer.cancel()


def _listen(stream: object, command: Command) -> tuple[bytes, bytes]:
    """Read both streams of a container from the socket that carries them; close it."""
    out, err = bytearray(), bytearray()
    try:
        frames = docker.utils.socket.frames_iter(stream, tty=False)  # type: ignore[no-untyped-call]
        for number, said in frames:
            kept = err
            if number == docker.utils.socket.STDOUT:
                command.on_output(said)
                kept = out
            kept += said[: max(0, processes.MAX_OUTPUT - len(kept))]
    finally:
        # The SDK ties a response to the socket by one attribute, wraps the socket in another, and
        # closes none of the three: each call would leak a connection to the daemon.
        parts = [getattr(stream, name, None) for name in ("_response", "_sock")]
        for part in (parts[0], stream, parts[1]):
            close = getattr(part, "close", None)
            if close is not None:
                close()
    return bytes(out), bytes(err)


def _attach_and_start(
    client: docker.DockerClient, container: str, command: Command, timeout: Nanoseconds
) -> Completed:
    wanted = {"stdout": 1, "stderr": 1, "stream": 1}
    stream = client.api.attach_socket(container, params=wanted)
    with _Watch(client, container, timeout) as watch:
        watch.stream = stream
        client.api.start(container)
        command.on_phase("engine.started")
        out, err = _listen(stream, command)
        status = client.api.wait(container, timeout=60)
    code = None if watch.rang else int(status["StatusCode"])
    return Completed(exit_code=code, stdout=out, stderr=err)


@dataclass(frozen=True, slots=True)
class _Stopped:
    client: docker.DockerClient
    container: str
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        try:
            return _attach_and_start(self.client, self.container, self.command, timeout)
        except _FAULTS as error:
            raise SessionError(f"docker: {_said(error)}") from None


@dataclass(frozen=True, slots=True)
class _Session:
    client: docker.DockerClient
    container: str
    settings: oci.Settings

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        try:
            made = self.client.api.exec_create(
                self.container,
                [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]],
                environment=command.environ(oci.INSIDE),
            )
            with _Watch(self.client, self.container, timeout) as watch:
                watch.stream = stream = self.client.api.exec_start(made["Id"], socket=True)
                out, err = _listen(stream, command)
            if watch.rang:
                # The stream ends a moment before the engine knows that the container has: what is
                # asked of it then would fail in words of its own.
                self.client.api.wait(self.container, timeout=60)
                return Completed(exit_code=None, stdout=out, stderr=err)
            code = self.client.api.exec_inspect(made["Id"])["ExitCode"]
        except _FAULTS as error:
            raise SessionError(f"docker: {_said(error)}") from None
        return Completed(exit_code=int(code), stdout=out, stderr=err)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the engine says of this container."""
        try:
            seen = self.client.api.inspect_container(self.container)
            info = self.client.info()
        except _FAULTS as error:
            raise SessionError(f"docker: {_said(error)}") from None
        host, source = seen["HostConfig"], "docker inspect"
        runtime, first_pid = str(host.get("Runtime")), seen["State"].get("Pid")
        facts = {
            "host.engine.runtime": runtime,
            "host.engine.settings": self.settings.words(),
            "host.engine.network": host.get("NetworkMode"),
            "host.engine.security_options": " ".join(
                host.get("SecurityOpt") or ["the engine's default"]
            ),
            "host.engine.storage": info.get("Driver"),
            "host.engine.cgroups": f"v{info.get('CgroupVersion', '1')}, {info.get('CgroupDriver')}",
            "host.engine.memory": host.get("Memory") or "no limit",
            "host.engine.first_pid": first_pid,
        }
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source=source)
        yield Evidence(
            key="host.engine.daemon", value=_daemon(), source="peer of the engine's socket"
        )
        if os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
            path = ((info.get("Runtimes") or {}).get(runtime) or {}).get("path")
            said = oci.runtime_version(path) if path else None
            yield Evidence(
                key="host.engine.runtime_version", value=said, source=f"{path} --version"
            )
            yield from oci.witnessed(runtime, first_pid)
