"""The client of the Docker engine: docker-py, with bounds on what the engine sends and how long.

docker-py limits each read of a socket and not a whole reply: an engine that sends a byte now and
then, or a reply without end, would hold or fill isobench. Replies are also read by type here, so
that none has another form than isobench expects.
"""

import contextlib
import select
import socket
import struct
import weakref
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, TypeVar

import docker
import docker.errors
import docker.utils
import msgspec
import requests
import requests.exceptions
from docker.transport import unixconn

from isobench.plugins import deadlines

# The SDK lets errors of `requests` and of sockets through.
ERRORS: Final = (docker.errors.DockerException, requests.exceptions.RequestException, OSError)
MOST_BYTES: Final = 1 << 24
"""Bytes of a reply: 16 MiB. A list of a thousand containers takes about 2 MiB."""
_READ_SECONDS: Final = 60
_REPLY_SECONDS: Final = 120.0
"""Seconds for a whole request and its reply."""
_LOAD_SECONDS: Final = 900.0
"""The same for an image that is loaded: the engine unpacks it before it replies."""
_CHUNK: Final = 1 << 16
_HEADER: Final = struct.Struct(">BxxxL")
STDOUT: Final = 1
"""The number of the stream of standard output in a frame."""

_T = TypeVar("_T")
Texts = Mapping[str, str]


class AddressError(docker.errors.DockerException):
    """DOCKER_HOST is no address of an engine."""


class ReplyError(docker.errors.DockerException):
    """What answers at the address does not reply as an engine does."""


class Version(msgspec.Struct, rename="pascal"):
    """A reply of /version."""

    api_version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,4}\.[0-9]{1,4}\Z")]
    """The SDK makes URLs of it."""
    version: str = "?"


class Runtime(msgspec.Struct):
    """A runtime that the engine knows."""

    path: str | None = None


class Info(msgspec.Struct, rename="pascal"):
    """A reply of /info."""

    os_type: str = msgspec.field(default="linux", name="OSType")
    security_options: tuple[str, ...] | None = None
    default_runtime: str = "default runtime"
    runtimes: Mapping[str, Runtime] | None = None
    driver: str = "?"
    docker_root_dir: str | None = None
    cgroup_version: str = "1"
    cgroup_driver: str | None = None
    cpu_cfs_quota: bool | None = None
    memory_limit: bool | None = None
    pids_limit: bool | None = None


class Listed(msgspec.Struct, rename="pascal"):
    """A container in a list of containers."""

    id: str
    labels: Texts | None = None
    names: tuple[str, ...] | None = None
    """Each with a slash before it."""


class Image(msgspec.Struct, rename="pascal"):
    """An image in a list of images."""

    id: str
    repo_tags: tuple[str, ...] | None = None
    labels: Texts | None = None


class HostConfig(msgspec.Struct, rename="pascal"):
    """What a container was created with."""

    runtime: str | None = None
    network_mode: str | None = None
    security_opt: tuple[str, ...] | None = None
    memory: int | None = None


class State(msgspec.Struct, rename="pascal"):
    """The state of a container."""

    pid: int | None = None


class Inspected(msgspec.Struct, rename="pascal"):
    """A container as the engine describes it."""

    host_config: HostConfig
    state: State


class Ended(msgspec.Struct, rename="pascal"):
    """How a container ended."""

    status_code: int


class Executed(msgspec.Struct, rename="pascal"):
    """How an executed process ended."""

    exit_code: int


class Made(msgspec.Struct, rename="pascal"):
    """What the engine has made."""

    id: str
    warnings: list[str] | None = None


class Loaded(msgspec.Struct):
    """A part of the reply to an image that is loaded."""

    error: str | None = None


def read(kind: type[_T], reply: object) -> _T:
    """Return a reply by its type. ReplyError: it has another form."""
    try:
        return msgspec.convert(reply, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ReplyError(f"the reply is not that of a Docker engine: {error}") from None


def decoded(kind: type[_T], line: bytes) -> _T:
    """Return a line of JSON by its type. ReplyError: it has another form."""
    try:
        return read(kind, msgspec.json.decode(line))
    except (msgspec.DecodeError, RecursionError) as error:
        raise ReplyError(f"the reply is no JSON that can be read: {error}") from None


class _Connection(unixconn.UnixHTTPConnection):
    """A connection whose socket its client knows."""

    sockets: "weakref.WeakSet[socket.socket]"

    def connect(self) -> None:
        super().connect()
        if self.sock is not None:
            self.sockets.add(self.sock)


class _Pool(unixconn.UnixHTTPConnectionPool):
    sockets: "weakref.WeakSet[socket.socket]"

    def _new_conn(self) -> Any:  # noqa: ANN401 - the stubs of urllib3 and of the SDK disagree
        made = _Connection(self.base_url, self.socket_path, _READ_SECONDS)
        made.sockets = self.sockets
        return made


class _Adapter(unixconn.UnixHTTPAdapter):
    """Makes connections over a Unix socket."""

    sockets: "weakref.WeakSet[socket.socket]"

    def get_connection(self, url: str | bytes, proxies: object = None) -> _Pool:  # noqa: ARG002 - as the SDK calls it
        with self.pools.lock:
            pool: _Pool | None = self.pools.get(url)
            if pool is None:
                pool = _Pool(str(url), self.socket_path, maxsize=self.max_pool_size)
                pool.sockets = self.sockets
                self.pools[url] = pool
        return pool


class Client(docker.APIClient):
    """A client whose replies are bounded, and whose waits end with the call around them."""

    def __init__(self) -> None:
        """Connect to DOCKER_HOST, or to the default socket; one of ERRORS if no engine answers."""
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        options = docker.utils.kwargs_from_env()
        try:
            docker.utils.parse_host(options.get("base_url"))
        except (ValueError, docker.errors.DockerException):
            # These errors name parts of the address, which may have a password.
            raise AddressError("DOCKER_HOST is not the address of a Docker engine") from None
        super().__init__(timeout=_READ_SECONDS, **options)

    def _retrieve_server_version(self) -> str:
        # Called when the SDK has mounted its own adapter, before the first request.
        plain = self.get_adapter(self.base_url)
        if isinstance(plain, unixconn.UnixHTTPAdapter):
            own = self._custom_adapter = _Adapter(plain.socket_path, self.timeout)
            own.sockets = self._sockets
            self.mount("http+docker://", own)
        return read(Version, self.version(api_version=False)).api_version

    def _cut(self) -> None:
        """End all waits for the engine."""
        for link in [*self._sockets]:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def send(
        self,
        request: requests.PreparedRequest,
        **options: Any,  # noqa: ANN401 - as `requests` calls it
    ) -> requests.Response:
        """Send a request and read its reply.

        ConnectionError: it is longer than MOST_BYTES. ReplyError: it leads nowhere.
        """
        streams = options.get("stream", False)
        limit = _LOAD_SECONDS if str(request.url).endswith("/images/load") else _REPLY_SECONDS
        with deadlines.ended_after(limit, self._cut):
            try:
                response = super().send(request, **{**options, "stream": True})
            except requests.exceptions.RequestException:
                raise
            except ValueError as error:
                # `requests` follows the engine to an address that it does not check.
                raise ReplyError(f"the reply is not that of a Docker engine: {error}") from None
            if not streams:
                # What `requests` would do itself, without a bound.
                response._content = _bounded(response)  # noqa: SLF001 - there is no other way
                response._content_consumed = True  # type: ignore[attr-defined]  # noqa: SLF001 - as above
        return response

    def load(self, archive: bytes) -> Iterator[bytes]:
        """Load an image; yield the lines of the reply. The SDK's own method has no bound."""
        url = self._url("/images/load")  # type: ignore[attr-defined]  # as above
        response = self._post(url, data=archive)  # type: ignore[attr-defined]  # as above
        self._raise_for_status(response)
        yield from response.content.splitlines()

    def _raise_for_status(self, response: requests.Response) -> None:
        try:
            super()._raise_for_status(response)  # type: ignore[misc]  # as above
        except (KeyError, TypeError, AttributeError, RecursionError):
            # The SDK takes the message out of the reply, whose form it does not check.
            raise ReplyError(
                f"the reply has status {response.status_code} and no message"
            ) from None

    def _check_is_tty(self, container: str) -> bool:
        # The SDK asks before it reads a log. No container of isobench's has a terminal.
        del container
        return False

    def _result(
        self,
        response: requests.Response,
        json: bool = False,  # noqa: FBT001, FBT002 - as the SDK calls it
        binary: bool = False,  # noqa: FBT001, FBT002 - as above
    ) -> Any:  # noqa: ANN401 - a reply of any form: `read` gives it its type
        found = super()._result(response, json=False, binary=binary or json)  # type: ignore[misc]  # as above
        if not json:
            return found
        return decoded(object, found)


def _bounded(response: requests.Response) -> bytes:
    found = bytearray()
    for chunk in response.iter_content(_CHUNK):
        found += chunk
        if len(found) > MOST_BYTES:
            response.close()
            raise requests.exceptions.ConnectionError(
                f"the engine's reply is longer than {MOST_BYTES >> 20} MiB"
            )
    return bytes(found)


def frames(stream: Any) -> Iterator[tuple[int, bytes]]:  # noqa: ANN401 - a socket, or a stream of the SDK
    """Yield the number of the stream and a part of each frame of a container's output.

    The format is that of https://docs.docker.com/reference/api/engine/version/v1.43/#operation/ContainerAttach
    (a header of eight bytes with the length). Parts are short whatever a header says.
    """
    take = stream.recv if hasattr(stream, "recv") else stream.read
    waiting = select.poll()
    waiting.register(stream, select.POLLIN | select.POLLPRI)

    def receive(length: int) -> bytes:
        # A payload that waits may print nothing for longer than a reply may take.
        waiting.poll()
        return bytes(take(length) or b"")

    while header := _exactly(receive, _HEADER.size):
        number, length = _HEADER.unpack(header)
        while length > 0:
            part = receive(min(length, _CHUNK))
            if not part:
                return
            length -= len(part)
            yield number, part


def _exactly(receive: Callable[[int], bytes], length: int) -> bytes:
    """Return so many bytes; fewer where the stream ends: none."""
    found = b""
    while len(found) < length:
        part = receive(length - len(found))
        if not part:
            return b""
        found += part
    return found
