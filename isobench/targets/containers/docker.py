"""Docker, by its Python SDK (docker-py)."""

import contextlib
import functools
import hashlib
import json
import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Self

import docker.errors
import docker.types

from isobench.config import bounded, redaction
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
    commands,
    host_abi,
)
from isobench.model.errors import SessionError, UsageError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import ending, ownership
from isobench.plugins.api import Completed, Startable
from isobench.targets.containers import _docker_client
from isobench.targets.containers._docker_client import (
    ERRORS,
    AddressError,
    Client,
    Image,
    Info,
    Listed,
    ReplyError,
    read,
)
from isobench.targets.shared import disks, elf, oci, processes

_HANG_UP_SECONDS: Final = 3
"""Seconds after a container was killed until a stream that has not ended is closed."""
_SOCKET: Final = Path("/var/run/docker.sock")

_working: dict["DockerTarget", oci.Settings] = {}
"""The settings that start a container, found once in a process: no start-up time includes the
search.
"""
_probing = threading.Lock()
_loaded: set[str] = set()
"""The images that are known to be in the engine."""
_bases: dict[str, str] = {}
"""The ids of the user's images, which stay the same for this process: a tag may be moved."""


def _connect() -> Client:
    """Return this process's client of the engine; one of `ERRORS` if no daemon listens."""
    # One for each address: DOCKER_HOST may change within a process, as it does in tests.
    return _connected(os.environ.get("DOCKER_HOST"))


@functools.cache
def _connected(_address: str | None) -> Client:
    address = _socket_path()
    if address is not None:
        # The SDK (docker 7.2) leaves the socket of a refused connection open: this one is closed.
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(60)
            link.connect(str(address))
    client = Client()
    ending.at_end(client.close)
    return client


def _load(client: Client, archive: bytes) -> None:
    """Load an image. APIError: the engine refuses it."""
    # An error is only a part of the reply.
    for line in filter(bytes.strip, client.load(archive)):
        error = _docker_client.decoded(_docker_client.Loaded, line).error
        if error is not None:
            raise docker.errors.APIError(error)


def _provide(client: Client, stage: Stage, base: str) -> None:
    """Load the image of a stage unless the engine has it. `base`: the id of the user's image."""
    image = oci.image_name(stage, base)
    try:
        client.inspect_image(image)  # type: ignore[no-untyped-call]  # the SDK has few types
    except docker.errors.ImageNotFound:
        if base:
            _commit(client, stage, base)
        else:
            _load(client, oci.stage_archive(stage, str(host_abi()).partition("-")[0]))
    _loaded.add(image)


def _commit(client: Client, stage: Stage, base: str) -> None:
    """Make an image of one of the user's and the payloads of a stage."""
    repository, _, tag = oci.image_name(stage, base).rpartition(":")
    container = _made(client, stage.owner, base, [oci.AGENT]).id
    with _removed(client, container):
        client.put_archive(container, "/", oci.stage_layer(stage))
        client.commit(container, repository=repository, tag=tag, changes=[*oci.OF_A_COMMIT])


def _base(client: Client, image: str) -> str:
    """Return the id of the user's image; empty for none. SessionError: it is missing."""
    if not image:
        return ""
    if image not in _bases:
        try:
            found = client.inspect_image(image)  # type: ignore[no-untyped-call]
        except docker.errors.ImageNotFound:
            raise SessionError(
                f"the engine has no image {image}", hint=f"docker pull {commands.path(image)}"
            ) from None
        _bases[image] = read(_docker_client.Made, found).id
    return _bases[image]


def _message(error: Exception) -> str:
    explained = getattr(error, "explanation", None) or str(error)
    # A secret with a tab is not recognized once that is a space.
    return " ".join(redaction.text(str(explained)).split())[:500]


@dataclass(frozen=True, kw_only=True)
class DockerTarget(oci.Engine):
    """A container of the Docker engine at DOCKER_HOST or at the default socket."""

    name: ClassVar[TargetName] = TargetName("docker")

    cpus: str = ""
    """CPUs to run on, as `--cpuset-cpus`: "0-1"; empty: all."""

    def probe(self) -> Availability:
        """Connect to the daemon, then start a container."""
        try:
            client = _connect()
            version = read(_docker_client.Version, client.version()).version
            return self._check_daemon(client, version, _info(client))
        except ERRORS as error:
            return _unreachable(error)

    def _check_daemon(self, client: Client, version: str, info: Info) -> Availability:
        if info.os_type != "linux":
            return Unavailable(
                lack=Lack.PLATFORM,
                what="this engine runs Windows containers",
                hint="switch it to Linux containers",
            )
        try:
            settings = self._settings(client, info)
            base = _base(client, self.image)
        except SessionError as error:
            return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=error.hint)
        rootless = any("rootless" in option for option in info.security_options or ())
        kind = "rootless" if rootless else "rootful"
        runtime = settings.runtime or info.default_runtime
        more = ", lowered limits" if settings.limits else ""
        more += oci.image_text(self.image, base)
        return Available(version=f"Docker {version}, {kind}, {runtime}, {info.driver}{more}")

    def _settings(self, client: Client, info: Info) -> oci.Settings:
        """Return the first settings with which a container starts. SessionError: none do."""
        if self in _working:
            return _working[self]
        abi = host_abi()
        if abi is None:
            raise SessionError("no payloads for this host", hint="use Linux on x86_64 or aarch64")
        # A default runtime that starts nothing may be replaced by any other on the host's kernel:
        # technology and expectations then stay the same.
        others = [
            name
            for name in info.runtimes or {}
            if name != info.default_runtime and oci.kernel(name) is oci.Kernel.HOST
        ]
        runtimes = [self.runtime] if self.runtime else ["", *others]
        first_error = ""
        # Configured variants of this target are probed at the same time, share the probe image, and
        # each removes it when it is done.
        with _probing:
            _load(client, oci.probe_archive(abi.machine))
            try:
                for settings in oci.candidate_settings(runtimes):
                    error = _start_error(client, self, settings)
                    if not error:
                        _working[self] = settings
                        return settings
                    first_error = first_error or error
            finally:
                with contextlib.suppress(*ERRORS):
                    client.remove_image(oci.probe_image(), force=True)
        raise SessionError(
            f"the daemon answers, but no container starts: {first_error}",
            hint=self._start_hint(first_error, info),
        )

    def _start_hint(self, error: str, info: Info) -> str:
        """Return what to do where no container starts."""
        if self.runtime and self.runtime not in (info.runtimes or {}):
            known = ", ".join(sorted(info.runtimes or {}))
            return (
                f"this daemon knows the runtimes {known}; add {self.runtime} under runtimes in"
                " /etc/docker/daemon.json, and restart it"
            )
        if "cpuset" in error.lower() or "cpus" in error.lower():
            return 'write cpus as a list of this machine\'s CPUs, as in "0-1"'
        return "docker info; journalctl -u docker; or install runc and containerd again"

    @property
    def limitable(self) -> Sequence[Resource]:
        """The resources that the daemon reports it can limit; the disk's only on this host."""
        try:
            info = _info(_connect())
        except ERRORS:
            return ()
        can = {
            Resource.CPU: info.cpu_cfs_quota,
            Resource.MEMORY: info.memory_limit,
            Resource.PROCESSES: info.pids_limit,
            Resource.IO: _storage_disk(info),
        }
        return [resource for resource, able in can.items() if able]

    def limited(self, limits: Limits) -> Self:
        """Return this target with these limits, started with the same settings."""
        limited = super().limited(limits)
        # A limit that cannot be set would keep the container from starting.
        if Resource.IO not in self.limitable:
            limited = replace(limited, write_limit=self.write_limit)
        if self in _working:
            _working[limited] = _working[self]
        return limited

    def create(
        self,
        client: Client,
        stage: Stage,
        command: Command,
        settings: oci.Settings,
    ) -> str:
        """Create a container for a command without starting it; return its id."""
        base = _base(client, self.image)
        make = functools.partial(
            _create, client, self, settings,
            image=oci.image_name(stage, base),
            command=[f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]],
            environment=command.environ(oci.INSIDE),
            owner=stage.owner,
            cpus=self.cpus or stage.cpus,
        )  # fmt: skip
        try:
            return make()
        except docker.errors.ImageNotFound:
            # Somebody has removed it in the middle of the run.
            _provide(client, stage, base)
            return make()

    def _ready(self, client: Client, stage: Stage) -> oci.Settings:
        """Load the image unless the engine has it; return settings that work."""
        settings = _working.get(self) or self._settings(client, _info(client))
        base = _base(client, self.image)
        if oci.image_name(stage, base) not in _loaded:
            _provide(client, stage, base)
        return settings

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Start a container whose first process waits; payloads are executed in it."""
        with _engine() as client:
            settings = self._ready(client, stage)
            container = self.create(client, stage, Command(argv=("_agent",)), settings)
            with _removed(client, container):
                client.start(container)
                yield _Session(client, container, settings)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Create, attach, start, read and remove a container, as `docker run --rm` does."""
        with _engine() as client:
            container = self.create(client, stage, command, self._ready(client, stage))
            command.on_phase("engine.created")
            with _removed(client, container):
                return _attach_and_start(client, container, command, timeout)

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Create a container that is started again and again."""
        with _engine() as client:
            container = self.create(client, stage, command, self._ready(client, stage))
            with _removed(client, container):
                yield _Stopped(client, container, command)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """Remove the containers of runs that have died, and with `cached` the images.

        Probe images of dead processes are removed in any case.
        """
        try:
            client = _connect()
            containers = read(list[Listed], client.containers(all=True, filters=_MARKED))
            images = read(list[Image], client.images(filters=_MARKED))
        except ERRORS:
            return []  # an engine that does not run is no failure: there is then nothing to remove
        removed = [
            Leftover(what=f"docker container {one.id[:12]}", failure=_remove(client, one.id))
            for one in containers
            if not alive(oci.owner_of(one.labels, (name.lstrip("/") for name in one.names or ())))
        ]
        for image in images:
            # A name of isobench's is a part of the mark: an image that was built from one of its
            # images has its labels too.
            for name in image.repo_tags or ():
                probing = oci.probe_owner(name)
                stale = probing is not None and not alive(probing)
                if stale or (cached and oci.is_own_image(name)):
                    removed.append(_removed_image(client, name, force=stale))
        return removed


_MARKED: Final = {"label": f"{oci.LABEL}=1"}


def _removed_image(client: Client, name: str, *, force: bool) -> Leftover:
    what = f"docker image {name}"
    _loaded.discard(name)
    try:
        client.remove_image(name, force=force)
    except docker.errors.ImageNotFound:
        pass  # it has gone meanwhile
    except ERRORS as error:
        return Leftover(what=what, failure=_message(error))
    return Leftover(what=what)


@contextlib.contextmanager
def _engine() -> Iterator[Client]:
    """Yield a client, and turn its errors into SessionErrors."""
    try:
        yield _connect()
    except ERRORS as error:
        raise SessionError(f"docker: {_message(error)}") from None


def _create(
    client: Client,
    target: DockerTarget,
    settings: oci.Settings,
    *,
    image: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    owner: str,
    cpus: str = "",
) -> str:
    limits = [docker.types.Ulimit(name=n, soft=v, hard=v) for n, v in oci.LIMITS]
    host = client.create_host_config(
        network_mode=target.network,
        security_opt=[_security_option(one) for one in target.security_opt] or None,
        cpuset_cpus=cpus or None,
        mem_limit=target.memory or None,
        pids_limit=target.pids or None,
        ulimits=limits if settings.limits else None,
        **_optional(client, target, settings),
    )
    # An image of the user's may have an entry point of its own, which a commit keeps.
    first = [command[0]] if target.image else None
    made = _made(
        client, owner, image, list(command[1:] if first else command),
        entrypoint=first, environment=dict(environment), host_config=host,
    )  # fmt: skip
    # Where the kernel has no such limit, dockerd makes the container without it, and warns: "Your
    # kernel does not support ... Limitation discarded." (moby, daemon/daemon_unix.go)
    discarded = [one for one in made.warnings or () if "discarded" in one]
    if discarded and (target.memory or target.pids or target.cpu_quota or target.write_limit):
        with _removed(client, made.id):
            raise SessionError(
                f"docker: {discarded[0]}",
                hint="remove the limit of this target from isobench.toml, or enable its controller",
            )
    return made.id


def _made(
    client: Client,
    owner: str,
    image: str,
    command: Sequence[str],
    **options: Any,  # noqa: ANN401 - those of the SDK
) -> _docker_client.Made:
    """Create a container. SessionError: the engine may have made it, and has not answered."""
    name = oci.new_name(owner)
    try:
        # The SDK would add the proxies of ~/.docker/config.json, passwords included.
        created = client.create_container(
            image,
            [*command],
            name=name,
            labels=oci.labels(owner),
            use_config_proxy=False,
            **options,
        )
        return read(_docker_client.Made, created)
    except docker.errors.APIError:
        raise  # the engine has refused
    except ERRORS as error:
        raise SessionError(f"docker: {_message(error)}{_withdrawn(client, name)}") from None
    except BaseException:
        ownership.doubt()
        raise


def _withdrawn(client: Client, name: str) -> str:
    """Remove a container whose creation was not answered; return the end of a message about it."""
    try:
        client.remove_container(name, force=True, v=True)
    except docker.errors.NotFound:
        # The engine may still be making it.
        ownership.doubt()
        return f"; a container {name} may come yet, which isobench clean --stale removes"
    except ERRORS as error:
        ownership.doubt()
        return f"; and the container {name} may stay: {_message(error)}"
    return ""


_PROFILE: Final = "seccomp="
_MOST_OF_A_PROFILE: Final = 1 << 20


@functools.cache  # creating a container is timed
def _security_option(option: str) -> str:
    """Return a value of --security-opt for the engine: the API takes the text of a seccomp profile,
    where `docker run` takes its path. SessionError: the file cannot be read.
    """
    value = option.removeprefix(_PROFILE)
    if value == option or value in ("unconfined", "builtin") or value.startswith("{"):
        return option
    hint = f'security_opt = ["{_PROFILE}/path/of/profile.json"]'
    try:
        text = bounded.read(Path(value).expanduser(), most=_MOST_OF_A_PROFILE, hint=hint)
        return _PROFILE + json.dumps(json.loads(text), separators=(",", ":"))
    except UsageError as error:
        raise SessionError(str(error), hint=hint) from None
    except OSError as error:
        raise SessionError(f"seccomp profile {value}: {error.strerror}", hint=hint) from None
    except (ValueError, RecursionError) as error:
        raise SessionError(f"seccomp profile {value}: {error}", hint=hint) from None


def _shown(option: str) -> str:
    """Return a security option for the evidence: of a profile, which may be long, its digest."""
    if not option.startswith(f"{_PROFILE}{{"):
        return option
    digest = hashlib.sha256(option.removeprefix(_PROFILE).encode()).hexdigest()
    return f"{_PROFILE}profile sha256:{digest[:16]}"


def _optional(client: Client, target: DockerTarget, settings: oci.Settings) -> dict[str, Any]:
    """Return the parts of the host configuration that are only given when they are set.

    SessionError: write_limit cannot be set.
    """
    options: dict[str, Any] = {"runtime": settings.runtime} if settings.runtime else {}
    if target.cpu_quota:
        options["nano_cpus"] = int(target.cpu_quota * 1e9)
    if target.write_limit:
        disk = _storage_disk(_info(client))
        if disk is None:
            raise SessionError(
                "write_limit needs a disk, and the daemon's storage is not on a disk of this host",
                hint="remove write_limit of this target from isobench.toml",
            )
        options["device_write_bps"] = [{"Path": disk, "Rate": oci.rate(target.write_limit)}]
    return options


def _start_error(client: Client, target: DockerTarget, settings: oci.Settings) -> str:
    """Run the probe program in a container; return "" if it answered, else the error."""
    container = ""
    try:
        container = _create(
            client, target, settings,
            image=oci.probe_image(), command=["/isobench/answer"], environment={},
            owner=ownership.mine(),
        )  # fmt: skip
        client.start(container)
        client.wait(container, timeout=30)
        output = client.logs(container)
    except ERRORS as error:
        return _message(error)
    else:
        return "" if output == elf.ANSWER else f"the probe program printed {output[:80]!r}"
    finally:
        if container:
            _remove(client, container)


def _remove(client: Client, container: str) -> str:
    """Remove a container with its anonymous volumes; return why that fails, or an empty string."""
    failure = ""
    for _ in range(2):  # a process that ends at this moment can fail the first removal
        try:
            client.remove_container(container, force=True, v=True)
        except docker.errors.NotFound:
            return ""  # it has gone meanwhile
        except ERRORS as error:
            failure = _message(error)
            if not isinstance(error, docker.errors.APIError):
                break  # nor would the engine answer the second time
        else:
            return ""
    ownership.doubt()
    return failure


@contextlib.contextmanager
def _removed(client: Client, container: str) -> Iterator[None]:
    """Remove a container at the end. SessionError: it stays, or the engine fails before."""
    with oci.removed(f"container {container[:12]}", lambda: _remove(client, container)), _engine():
        yield


def _info(client: Client) -> Info:
    return read(Info, client.info())


def _unreachable(error: Exception) -> Unavailable:
    message = _message(error)
    address = os.environ.get("DOCKER_HOST")
    if isinstance(error, AddressError):
        return Unavailable(
            lack=Lack.SERVICE,
            what=message,
            hint=f"unset DOCKER_HOST, or write it as in unix://{_SOCKET} or tcp://HOST:PORT",
        )
    if isinstance(error, ReplyError):
        return Unavailable(
            lack=Lack.SERVICE,
            what=f"what answers at {address or _SOCKET} is no Docker engine, or broken: {message}",
            hint="unset DOCKER_HOST, or restart that daemon" if address else "docker version",
        )
    if isinstance(error, docker.errors.APIError):
        return Unavailable(
            lack=Lack.SERVICE,
            what=f"the Docker daemon at {address or _SOCKET} refuses: {message}",
            hint="docker info; df -h /var/lib/docker",
        )
    if "Permission" in message or (_SOCKET.exists() and not os.access(_SOCKET, os.W_OK)):
        return Unavailable(
            lack=Lack.PERMISSION,
            what=f"this user may not use {address or _SOCKET}",
            hint="sudo usermod -aG docker $USER, then log in again",
        )
    if address is None and shutil.which("dockerd") is None and not _SOCKET.exists():
        return Unavailable(
            lack=Lack.TOOL, what="Docker Engine (dockerd)", hint="isobench doctor --install docker"
        )
    return Unavailable(
        lack=Lack.SERVICE,
        what=f"no Docker daemon answers at {address or _SOCKET}",
        hint="unset DOCKER_HOST, or start that daemon"
        if address
        else oci.start_daemon_hint("docker", "dockerd"),
    )


def _daemon() -> str | None:
    """Return the name of the process that serves the engine's socket; None on another host."""
    address = _socket_path()
    return None if address is None else processes.listening_process(address)


def _socket_path() -> Path | None:
    """Return the path of the engine's Unix socket; None where it is reached in another way."""
    address = os.environ.get("DOCKER_HOST") or f"unix://{_SOCKET}"
    return (
        Path(address.removeprefix("unix://") or _SOCKET) if address.startswith("unix://") else None
    )


def _storage_disk(info: Info) -> str | None:
    """Return the device path of the disk with the daemon's storage; None: no disk of this host."""
    if not os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
        return None
    disk = disks.disk_under(Path(info.docker_root_dir or "/var/lib/docker"))
    return None if disk is None else disk[0]


class _TimeLimit:
    """Kills a container at the time limit, which ends every stream that is read from it."""

    def __init__(self, client: Client, container: str, timeout: Nanoseconds) -> None:
        self.expired = False
        self.stream: object = None
        """The stream that is being read."""
        self._client, self._container = client, container
        self._over = threading.Event()
        self._timer = threading.Timer(timeout / SECOND, self._expire)
        self._timer.daemon = True

    def _expire(self) -> None:
        self.expired = True
        with contextlib.suppress(*ERRORS):
            self._client.kill(self._container)
        # With runsc, Docker 20.10 does not notice the end of an executed process when its container
        # is killed, and the stream never ends: it is then closed from this side.
        if not self._over.wait(_HANG_UP_SECONDS):
            with contextlib.suppress(OSError, AttributeError):
                self.stream._sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]  # noqa: SLF001 - the SDK has no other way

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._timer.cancel()


def _read_streams(stream: object, command: Command) -> tuple[bytes, bytes]:
    """Read both streams of a container from the socket that carries them, and close it."""
    out, err = bytearray(), bytearray()
    try:
        for number, data in _docker_client.frames(stream):
            kept = err
            if number == _docker_client.STDOUT:
                command.on_output(data)
                kept = out
            kept += data[: max(0, processes.MAX_OUTPUT - len(kept))]
    finally:
        # The SDK keeps the response in one attribute of the stream and the socket in another, and
        # closes none of the three: each call would leak a connection to the daemon.
        parts = [getattr(stream, name, None) for name in ("_response", "_sock")]
        for part in (parts[0], stream, parts[1]):
            close = getattr(part, "close", None)
            if close is not None:
                close()
    return bytes(out), bytes(err)


def _attach_and_start(
    client: Client, container: str, command: Command, timeout: Nanoseconds
) -> Completed:
    # Attached before the start: a stream that is attached later misses the first output.
    stream = client.attach_socket(container, params={"stdout": 1, "stderr": 1, "stream": 1})
    with _TimeLimit(client, container, timeout) as limit:
        limit.stream = stream
        client.start(container)
        command.on_phase("engine.started")
        out, err = _read_streams(stream, command)
        ended = read(_docker_client.Ended, client.wait(container, timeout=60))
    code = None if limit.expired else ended.status_code
    return Completed(exit_code=code, stdout=out, stderr=err)


@dataclass(frozen=True, slots=True)
class _Stopped:
    client: Client
    container: str
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        try:
            return _attach_and_start(self.client, self.container, self.command, timeout)
        except ERRORS as error:
            raise SessionError(f"docker: {_message(error)}") from None


@dataclass(frozen=True, slots=True)
class _Session:
    client: Client
    container: str
    settings: oci.Settings
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        try:
            created = self.client.exec_create(
                self.container,
                [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]],
                environment=command.environ(oci.INSIDE),
                stdin=command.on_stdin is not None,
            )
            made = read(_docker_client.Made, created)
            with _TimeLimit(self.client, self.container, timeout) as limit:
                limit.stream = stream = self.client.exec_start(made.id, socket=True)
                if command.on_stdin is not None:
                    # The SDK's stream can only be read; its socket is that of the whole call.
                    command.on_stdin(stream._sock.sendall)  # type: ignore[union-attr]  # noqa: SLF001 - the SDK has no other way
                out, err = _read_streams(stream, command)
            if limit.expired:
                # The stream ends a moment before the engine notices the container's end. Until then
                # its answers about the container are errors of another kind.
                self.client.wait(self.container, timeout=60)
                return Completed(exit_code=None, stdout=out, stderr=err)
            code = read(_docker_client.Executed, self.client.exec_inspect(made.id)).exit_code
        except ERRORS as error:
            raise SessionError(f"docker: {_message(error)}") from None
        return Completed(exit_code=code, stdout=out, stderr=err)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the engine and the host show of this container. SessionError: it fails."""
        try:
            inspected = read(
                _docker_client.Inspected, self.client.inspect_container(self.container)
            )
            info = _info(self.client)
        except ERRORS as error:
            raise SessionError(f"docker: {_message(error)}") from None
        host, source = inspected.host_config, "docker inspect"
        runtime, first_pid = str(host.runtime), inspected.state.pid
        facts = {
            "host.engine.runtime": runtime,
            "host.engine.settings": self.settings.description(),
            "host.engine.network": host.network_mode,
            "host.engine.security_options": " ".join(
                map(_shown, host.security_opt or ["the engine's default"])
            ),
            "host.engine.storage": info.driver,
            "host.engine.cgroups": f"v{info.cgroup_version}, {info.cgroup_driver}",
            "host.engine.memory": host.memory or "no limit",
            "host.engine.first_pid": first_pid,
        }
        for key, value in facts.items():
            yield Evidence(key=key, value=value, source=source)
        yield Evidence(
            key="host.engine.daemon", value=_daemon(), source="peer of the engine's socket"
        )
        if os.environ.get("DOCKER_HOST", "unix:").startswith("unix:"):
            known = (info.runtimes or {}).get(runtime)
            path = known.path if known is not None else None
            version = oci.runtime_version(path) if path else None
            yield Evidence(
                key="host.engine.runtime_version", value=version, source=f"{path} --version"
            )
            yield from oci.witnessed(runtime, first_pid)
