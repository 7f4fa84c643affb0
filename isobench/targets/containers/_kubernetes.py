"""The part of a Kubernetes cluster's API that pods need. Only this module imports its client.

The official client reads the kubeconfig, logs in, and sets up TLS. Its generated models are not
used: isobench needs few paths, and servers of any version must be able to answer.

All messages of this module may be stored in a run folder: they contain no name, address, user or
credential of the kubeconfig. The client is an optional dependency and takes a second to import, so
that it is imported only when it is used.
"""

import contextlib
import functools
import importlib.util
import json
import logging
import os
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
import types
import urllib.parse
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Self, TypeVar

import msgspec

from isobench.config import redaction
from isobench.model.errors import SessionError
from isobench.plugins import deadlines, ownership
from isobench.targets.shared import processes

Json = dict[str, Any]
_T = TypeVar("_T")

CONNECTING: Final = 5.0
"""Seconds that a connection may take."""
ANSWERING: Final = 20.0
"""Seconds that an answer of the API server may take."""
_MOST_BYTES: Final = 16 << 20
"""Bytes of an answer."""
_PART: Final = 1 << 16
_PING: Final = 20.0
"""Seconds of silence after which a stream is pinged: proxies close idle connections."""
# The kubelet's protocol for exec and attach over websockets: the first byte of each frame is the
# channel, and the last channel carries the exit status as JSON.
_PROTOCOL: Final = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_USER: Final = re.compile(r'[Uu]ser "[^"]*"')
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ([A-Za-z ]+)")
_HELPER_EXIT: Final = re.compile(r"exec: process returned (-?[0-9]{1,5})")
_EXIT_CODE: Final = re.compile(r"[0-9]{1,9}")
_VERBS: Final = "get,list,create,delete"
_RESOURCES: Final = "pods,pods/exec,pods/attach"
ROLE_HINT: Final = (
    f"kubectl create role isobench --verb={_VERBS} --resource={_RESOURCES}; then"
    " kubectl create rolebinding isobench --role=isobench --user=YOU"
)


class ApiError(SessionError):
    """The cluster refuses, or does not answer. `status` is HTTP's; 0: there was no answer."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Take a message and a hint without names and addresses of the kubeconfig."""
        super().__init__(message, hint=hint)
        self.status = status


# ---- forms of replies ----------------------------------------------------------------------------


class _Meta(msgspec.Struct):
    name: str
    uid: str = ""
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


class _Reason(msgspec.Struct, rename="camel"):
    type: str | None = None
    status: str | None = None
    reason: str | None = None
    message: str | None = None
    exit_code: int | None = None


class _State(msgspec.Struct):
    waiting: _Reason | None = None
    terminated: _Reason | None = None
    running: Json | None = None


class _ContainerStatus(msgspec.Struct):
    name: str
    state: _State = msgspec.field(default_factory=_State)
    containerID: str = ""  # noqa: N815 - the API's name
    imageID: str | None = None  # noqa: N815 - as above


class _PodStatus(_Reason, rename="camel"):
    phase: str | None = None
    container_statuses: tuple[_ContainerStatus, ...] | None = None
    conditions: tuple[_Reason, ...] | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str | None = None
    containers: tuple[Json, ...] = ()


class _Pod(msgspec.Struct):
    metadata: _Meta
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _Container(msgspec.Struct):
    name: str
    image: str
    resources: Json | None = None


class _RunningSpec(msgspec.Struct, rename="camel"):
    node_name: str
    containers: Annotated[tuple[_Container, ...], msgspec.Meta(min_length=1)]


class _RunningPod(msgspec.Struct):
    metadata: _Meta
    spec: _RunningSpec
    status: _PodStatus


class _NodeInfo(msgspec.Struct):
    containerRuntimeVersion: str  # noqa: N815 - the API's name
    kernelVersion: str | None = None  # noqa: N815 - as above
    kubeletVersion: str | None = None  # noqa: N815 - as above
    bootID: str | None = None  # noqa: N815 - as above


class _Condition(msgspec.Struct):
    type: str
    status: str


class _NodeStatus(msgspec.Struct, rename="camel"):
    node_info: _NodeInfo
    conditions: tuple[_Condition, ...] | None = None


class _Node(msgspec.Struct):
    metadata: _Meta
    status: _NodeStatus
    spec: Json


class _Pods(msgspec.Struct):
    items: tuple[_Pod, ...] | None = None


class _Nodes(msgspec.Struct):
    items: tuple[_Node, ...] | None = None


class _Events(msgspec.Struct):
    items: tuple[Json, ...] | None = None


class _Allowed(msgspec.Struct):
    allowed: bool | None = None


class _Review(msgspec.Struct):
    status: _Allowed = msgspec.field(default_factory=_Allowed)


class _Details(msgspec.Struct):
    causes: tuple[_Reason, ...] | None = None


class _Ended(_Reason):
    details: _Details | None = None


def demand_running(pod: Json) -> None:
    """Raise ApiError where a pod does not have what the API shows of one that runs."""
    _of_form(_RunningPod, pod)


def _of_form(kind: type[_T], reply: object) -> _T:
    """Return a reply by its type. ApiError: it has another form."""
    try:
        return msgspec.convert(reply, kind)
    except msgspec.ValidationError as error:
        raise ApiError(
            f"the reply is not that of a Kubernetes API server: {error}",
            hint="kubectl get --raw /version",
        ) from None


# ---- the kubeconfig ------------------------------------------------------------------------------


def installed() -> bool:
    """Return whether the official client is installed, without importing it."""
    return importlib.util.find_spec("kubernetes") is not None


def kubeconfig() -> str:
    """Return KUBECONFIG, or else the default path; several paths are separated by colons."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def has_kubeconfig(paths: str) -> bool:
    """Return whether any of the files exists."""
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where pods are created."""

    kubeconfig: str
    """Its paths, separated by colons."""
    context: str
    """Empty: the current one."""
    namespace: str
    """Empty: the context's, or else "default"."""


def _in_memory(path: str | None, folder: str) -> str | None:
    """Return a path of an anonymous copy of a file in `folder`; other paths stay as they are."""
    # The client writes keys of the kubeconfig into temporary files, which stay on the disk when
    # isobench is killed. A memfd ends with its process, and no other user can open it.
    if path is None or not Path(path).is_relative_to(folder):
        return path
    descriptor = os.memfd_create("isobench-kubeconfig")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(Path(path).read_bytes())
    return f"/proc/self/fd/{descriptor}"


def _configuration(location: Location) -> tuple[Any, str]:
    """Return the client's configuration for a location, and the namespace.

    ApiError: the client does not load, or the kubeconfig cannot be used.
    """
    try:
        from kubernetes import client, config  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise ApiError(
            f"the Python package kubernetes does not load: {error}",
            hint="isobench doctor --install kubernetes",
        ) from None
    hint = "kubectl config get-contexts; kubectl get --raw /version"
    _tame_login_helpers()
    configuration = client.Configuration()
    wanted = location.context or None
    with ownership.temporary_folder("kubernetes") as folder, _errors_logged() as logged:
        try:
            contexts, current = config.list_kube_config_contexts(location.kubeconfig)
            named = next((c for c in contexts if c["name"] == wanted), None) if wanted else current
            if named is None:
                raise ApiError("the kubeconfig has no context of this name", hint=hint)
            config.load_kube_config(
                location.kubeconfig, wanted,
                client_configuration=configuration, temp_file_path=str(folder),
            )  # fmt: skip
        except ApiError:
            raise
        except Exception as error:  # noqa: BLE001 - any error of parsers, login helpers and TLS
            # Only the type: a parser's message quotes the kubeconfig, and a login helper's may
            # contain anything.
            kind = type(error).__name__
            raise ApiError(f"the kubeconfig cannot be used ({kind})", hint=hint) from None
        if logged and not (configuration.api_key or configuration.cert_file):
            # Not what the helper has printed: it may contain anything. The hint's command shows it.
            found = _HELPER_EXIT.search(logged[0])
            code = f" (exit code {found[1]})" if found else ""
            raise ApiError(
                f"the login helper of the kubeconfig failed{code}",
                hint="kubectl get --raw /version shows what it says",
            )
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            setattr(configuration, name, _in_memory(getattr(configuration, name), str(folder)))
    configuration.retries = False  # urllib3 retries three times, which multiplies time limits
    return configuration, location.namespace or named["context"].get("namespace") or "default"


def _tame_login_helpers() -> None:
    """Let programs that log in, which the client starts, end with the call and with isobench, and
    keep them from the terminal.
    """
    from kubernetes.config import exec_provider, kube_config  # noqa: PLC0415 - as above

    # The client waits for them without a limit, and has no setting for it.
    for module in (exec_provider, kube_config):
        module.subprocess = types.SimpleNamespace(Popen=_start_helper, PIPE=subprocess.PIPE)
    # Where standard output is a terminal, the client gives them standard error and input, and tells
    # them to ask the user.
    exec_provider.sys = types.SimpleNamespace(
        platform=sys.platform, stdin=None, stdout=None, stderr=None
    )


def _start_helper(argv: Sequence[str], **options: Any) -> "subprocess.Popen[Any]":  # noqa: ANN401 - those of Popen
    pipes = {"stdin": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    return processes.popen(argv, **{**options, **pipes})


class _Collector(logging.Handler):
    """Collects what one thread logs as an error."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: list[str] = []
        self._thread = threading.get_ident()

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread == self._thread and record.module == "kube_config":
            self.found.append(record.getMessage())


@contextlib.contextmanager
def _errors_logged() -> Iterator[list[str]]:
    """Collect the errors of login helpers: the client only logs them, and goes on without login."""
    root, collector = logging.getLogger(), _Collector()
    root.addHandler(collector)
    try:
        yield collector.found
    finally:
        root.removeHandler(collector)


@functools.cache
def connect(location: Location) -> "Cluster":
    """Return this process's client for a location. Nothing is sent to the cluster yet.

    ApiError: the kubeconfig cannot be used.
    """
    return Cluster(*_configuration(location))


# ---- the API -------------------------------------------------------------------------------------


class Cluster:
    """The API of a cluster for one identity and one namespace."""

    def __init__(self, configuration: Any, namespace: str) -> None:  # noqa: ANN401 - the client's, which has no types
        """Take the client's configuration. Nothing is sent to the cluster yet."""
        from kubernetes import client  # noqa: PLC0415 - as above

        self.namespace = namespace
        self._configuration = configuration
        self._http = client.ApiClient(configuration).rest_client.pool_manager
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        pools = self._http.pool_classes_by_scheme.items()
        self._http.pool_classes_by_scheme = {
            scheme: _noting(pool, self._sockets) for scheme, pool in pools
        }
        # Kept here: whenever the client renews a token, its configuration names its own temporary
        # files again.
        self._files = {
            "ca_certs": configuration.ssl_ca_cert,
            "certfile": configuration.cert_file,
            "keyfile": configuration.key_file,
        }

    def _headers(self) -> dict[str, str]:
        """Return the headers that log in. The client renews an expired token on the way."""
        settings = self._configuration.auth_settings().values()
        return {one["key"]: one["value"] for one in settings if one.get("in") == "header"}

    def _clean(self, message: str) -> str:
        """Return a message without the user's name and the server's address."""
        text = _USER.sub("this user", " ".join(message.split()))
        host = urllib.parse.urlsplit(self._configuration.host)
        for private in (self._configuration.host, host.netloc, host.hostname):
            text = text.replace(private, "the API server") if private else text
        return redaction.beginning(text, 500)

    def request(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = ANSWERING,
    ) -> Json:
        """Send one request and return its answer; `timeout` in seconds.

        ApiError: the cluster refuses, or does not answer in time.
        """
        import urllib3  # noqa: PLC0415 - comes with the client

        timeout = deadlines.left(timeout)
        end = time.monotonic() + timeout + CONNECTING
        url = self._configuration.host.rstrip("/") + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {**self._headers(), "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            # The library's limit is that of a single read.
            with deadlines.ended_after(timeout + CONNECTING, self._cut):
                answer = self._http.request(
                    method, url,
                    body=None if body is None else json.dumps(body),
                    headers=headers,
                    timeout=urllib3.Timeout(connect=min(timeout, CONNECTING), read=timeout),
                    redirect=False,
                    preload_content=False,
                )  # fmt: skip
                data = _bounded(answer)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            is_late = time.monotonic() >= end
            raise _unreachable(TimeoutError("timed out") if is_late else error) from None
        if time.monotonic() >= end:  # to the library, headers that are cut are an answer
            raise _unreachable(TimeoutError("timed out"))
        content = _object(data)
        if answer.status >= 300:  # noqa: PLR2004 - HTTP's
            raise self._refused(answer.status, str(content.get("message") or answer.reason or ""))
        return content

    def _cut(self) -> None:
        """End all waits for answers."""
        for link in [*self._sockets]:
            with contextlib.suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)

    def _refused(self, status: int, message: str) -> ApiError:
        reason = self._clean(message) or f"HTTP status {status}"
        match status:
            case 401:
                return ApiError(
                    "the cluster does not accept the credentials of the kubeconfig",
                    hint="log in to your cluster again; kubectl get --raw /version",
                    status=status,
                )
            case 403:
                hint = _refusal_hint(reason)
                return ApiError(f"the cluster refuses: {reason}", hint=hint, status=status)
            case _:
                return ApiError(
                    f"the cluster refuses: {reason}",
                    hint="kubectl get events --sort-by=.lastTimestamp",
                    status=status,
                )

    # Requests.

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{urllib.parse.quote(self.namespace)}/pods"

    def version(self, timeout: float = CONNECTING) -> str:
        """Return the server's version: "v1.20.2"."""
        return str(self.request("GET", "/version", timeout=timeout).get("gitVersion", "?"))

    def nodes(self) -> list[Json] | None:
        """Return the nodes; None where this user may not list them."""
        try:
            return self._items(_Nodes, "/api/v1/nodes")
        except ApiError as error:
            if error.status == _FORBIDDEN:
                return None
            raise

    def _items(self, kind: type[Any], path: str, **query: str) -> list[Json]:
        """Return a list. ApiError: its items have another form."""
        found = self.request("GET", path, query=query)
        _of_form(kind, found)
        return list(found.get("items") or ())

    def allows(self, verb: str, resource: str, part: str = "") -> bool:
        """Return whether this user may use a verb on a resource, or on a part of it."""
        access = {"namespace": self.namespace, "verb": verb, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**access, "subresource": part}},
        }
        answer = self.request(
            "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review
        )
        return bool(_of_form(_Review, answer).status.allowed)

    def create(self, pod: Json, *, dry_run: bool = False) -> Json:
        """Create a pod; with `dry_run` the cluster only checks it, quotas and policies included."""
        made = self.request("POST", self._pods, pod, query={"dryRun": "All"} if dry_run else None)
        _of_form(_Pod, made)
        return made

    def pod(self, name: str) -> Json | None:
        """Return the pod of this name, or None."""
        try:
            found = self.request("GET", f"{self._pods}/{name}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
        _of_form(_Pod, found)
        return found

    def pods(self, selector: str) -> list[Json]:
        """Return the pods that a label selector matches."""
        return self._items(_Pods, self._pods, labelSelector=selector)

    def delete(self, name: str, uid: str, *, grace: int) -> None:
        """Delete a pod: SIGTERM, and SIGKILL after `grace` seconds. Does not wait.

        A pod that is gone already is no error.
        """
        # By its uid: a pod of another run or user may have the same name by now.
        options: Json = {"gracePeriodSeconds": grace, "preconditions": {"uid": uid}}
        try:
            self.request("DELETE", f"{self._pods}/{name}", options)
        except ApiError as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise

    def warnings(self, name: str) -> list[str]:
        """Return the cluster's warnings about a pod, the latest last.

        Empty where this user may not read events.
        """
        path = f"/api/v1/namespaces/{urllib.parse.quote(self.namespace)}/events"
        chosen = f"involvedObject.name={name},type=Warning"
        try:
            found = self._items(_Events, path, fieldSelector=chosen)
        except ApiError:
            return []
        events = sorted(found, key=lambda e: str(e.get("lastTimestamp")))
        return [self._clean(f"{e.get('reason')}: {e.get('message')}") for e in events]

    # Streams.

    def execute(self, name: str, container: str, argv: Sequence[str]) -> "Stream":
        """Start a process in a running container, with all three streams."""
        query = [("container", container), *(("command", word) for word in argv)]
        return self._stream(f"{self._pods}/{name}/exec", query)

    def attach(self, name: str, container: str) -> "Stream":
        """Attach to the streams of a container's first process."""
        return self._stream(f"{self._pods}/{name}/attach", [("container", container)])

    def _stream(self, path: str, query: Sequence[tuple[str, str]]) -> "Stream":
        import websocket  # noqa: PLC0415 - comes with the client

        streams = [(name, "true") for name in ("stdin", "stdout", "stderr")]
        base = "ws" + self._configuration.host.rstrip("/").removeprefix("http")
        url = f"{base}{path}?{urllib.parse.urlencode([*query, *streams])}"
        connection = websocket.WebSocket(sslopt=self._tls(), enable_multithread=True)
        connection.settimeout(CONNECTING)
        try:
            with deadlines.ended_after(ANSWERING, lambda: _cut(connection)):
                connection.connect(
                    url,
                    subprotocols=[_PROTOCOL],
                    header=[f"{key}: {value}" for key, value in self._headers().items()],
                    redirect_limit=0,
                    **self._proxy(),
                )
        except websocket.WebSocketBadStatusException as error:
            raise self._refused(error.status_code or 0, _message(error)) from None
        except (websocket.WebSocketException, OSError) as error:
            raise _unreachable(error) from None
        return Stream(connection, self._clean)

    def _tls(self) -> Json:
        """Return the client's settings of TLS under the names of the websocket library."""
        settings = self._configuration
        # Older clients have no tls_server_name.
        options = {
            **self._files, "server_hostname": getattr(settings, "tls_server_name", None)
        }  # fmt: skip
        check_certificate = ssl.CERT_REQUIRED if settings.verify_ssl else ssl.CERT_NONE
        check_name = settings.verify_ssl and settings.assert_hostname is not False
        given = {key: value for key, value in options.items() if value}
        return {**given, "cert_reqs": check_certificate, "check_hostname": check_name}

    def _proxy(self) -> Json:
        """Return the client's settings of a proxy under the names of the websocket library."""
        from kubernetes.stream import ws_client  # noqa: PLC0415 - as above

        if not self._configuration.proxy:
            return {}
        found: Json = ws_client.websocket_proxycare({}, self._configuration, None, {})
        return {**found, "proxy_type": "http"}


def _cut(connection: Any) -> None:  # noqa: ANN401 - the library has no types
    """End all waits for a websocket."""
    if connection.sock is not None:
        connection.sock.shutdown(socket.SHUT_RDWR)


def _message(error: Any) -> str:  # noqa: ANN401 - the library has no types
    """Return the server's message when it has refused a stream."""
    body = getattr(error, "resp_body", None) or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return str(status.get("message", "")) if isinstance(status, dict) else text


def _noting(pool: Any, sockets: "weakref.WeakSet[socket.socket]") -> Any:  # noqa: ANN401 - the library is optional
    """Return a class of pools like another one, whose connections note their sockets."""
    plain = pool.ConnectionCls

    def new_connection(self: Any) -> socket.socket:  # noqa: ANN401 - as above
        # Before a proxy answers, which may take its time.
        link: socket.socket = plain._new_conn(self)  # noqa: SLF001 - there is no other place
        sockets.add(link)
        return link

    def connect(self: Any) -> None:  # noqa: ANN401 - as above
        plain.connect(self)
        sockets.add(self.sock)

    methods = {"_new_conn": new_connection, "connect": connect}
    return type(pool.__name__, (pool,), {"ConnectionCls": type("_Noting", (plain,), methods)})


def _bounded(answer: Any) -> bytes:  # noqa: ANN401 - as above
    """Return the content of an answer. ApiError: it is too long."""
    found = bytearray()
    try:
        for part in answer.stream(_PART):
            found += part
            if len(found) > _MOST_BYTES:
                raise ApiError(
                    f"the cluster's answer is longer than {_MOST_BYTES >> 20} MiB",
                    hint="kubectl get --raw /version",
                )
    except BaseException:
        answer.close()
        raise
    answer.release_conn()
    return bytes(found)


def _object(data: bytes | None) -> Json:
    """Return the JSON object in an answer; an empty one where there is none (a proxy's page)."""
    with contextlib.suppress(ValueError, RecursionError):
        content = json.loads(data or b"{}")
        if isinstance(content, dict):
            return content
    return {}


def _unreachable(error: BaseException) -> ApiError:
    """Return the error for a server that does not answer."""
    # The libraries' own messages contain the server's address: only known parts are used.
    message = f"{error} {getattr(error, 'reason', '')}"
    found = _ERRNO.search(message)
    if "certificate" in message.lower():
        reason, hint = "its certificate is not accepted", "kubectl get --raw /version"
    elif "timed out" in message.lower():
        reason, hint = "no answer in time", "kubectl get --raw /version"
    elif "resolve" in message.lower():
        reason, hint = "its name cannot be resolved", "kubectl cluster-info"
    else:
        reason = found[1].strip().lower() if found else type(error).__name__
        hint = "start the cluster, or choose another context: kubectl config use-context NAME"
    return ApiError(f"the cluster's API server does not answer: {reason}", hint=hint)


def _refusal_hint(message: str) -> str:
    """Return what to do about a refusal by a role, a quota or a policy."""
    low = message.lower()
    if "must specify" in low:  # a quota, for a pod without limits
        return 'set what a pod may use: [targets.kubernetes] / cpu = "1" / memory = "256Mi"'
    if "quota" in low or "limitrange" in low or "maximum" in low:
        return (
            "kubectl describe quota,limitrange; then lower cpu and memory of [targets.kubernetes]"
        )
    if "podsecurity" in low or "security" in low:
        return "[targets.kubernetes] / restricted = true"
    return ROLE_HINT


class Stream:
    """The streams of a process in a container, over one websocket.

    Closing it hangs up: the agent at the other end then kills whatever it has started.
    """

    def __init__(self, connection: Any, clean: Callable[[str], str]) -> None:  # noqa: ANN401 - no types
        """Take an open websocket, and what removes private words from messages."""
        self._connection, self._clean = connection, clean
        self._kept = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self.status: Json | None = None
        """How the process ended, as the API reports it; None: it has not ended."""

    def __enter__(self) -> Self:
        """Return the stream."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection without waiting for the other side."""
        with contextlib.suppress(Exception):
            self._connection.close(timeout=0)

    @property
    def out(self) -> bytes:
        """The beginning of standard output."""
        return bytes(self._kept[_STDOUT])

    @property
    def err(self) -> bytes:
        """The beginning of standard error."""
        return bytes(self._kept[_STDERR])

    def send(self, message: bytes) -> None:
        """Write to standard input. ApiError: the connection is lost."""
        with self._errors_mapped():
            self._connection.send_binary(bytes([_STDIN]) + message)

    def listen(self, on_output: Callable[[bytes], None], deadline: float) -> bool:
        """Return True when the process has ended, False at the deadline (time.monotonic).

        ApiError: the connection is lost before.
        """
        # The library answers pings itself, and its time limit is that of a single read: a server
        # that pings, or drips a frame, would have none.
        left = deadline - time.monotonic()
        with deadlines.ended_after(max(left, 0), lambda: _cut(self._connection)):
            try:
                while self.status is None and time.monotonic() < deadline:
                    self._listen_once(on_output, deadline)
            except ApiError:
                if time.monotonic() < deadline:
                    raise
        return self.status is not None

    def _listen_once(self, on_output: Callable[[bytes], None], deadline: float) -> None:
        """Receive a frame, or ping where none comes."""
        import websocket  # noqa: PLC0415 - as above

        self._connection.settimeout(max(0.001, min(deadline - time.monotonic(), _PING)))
        with self._errors_mapped():
            try:
                code, frame = self._connection.recv_data(control_frame=False)
            except (websocket.WebSocketTimeoutException, TimeoutError):
                self._connection.ping()
                return
        if code == websocket.ABNF.OPCODE_CLOSE:
            raise ApiError("the stream ended before the process did")
        self._receive(frame, on_output)

    @contextlib.contextmanager
    def _errors_mapped(self) -> Iterator[None]:
        import websocket  # noqa: PLC0415 - as above

        try:
            yield
        except (websocket.WebSocketException, OSError) as error:
            raise ApiError(f"the stream is lost ({type(error).__name__})") from None

    def _receive(self, frame: bytes, on_output: Callable[[bytes], None]) -> None:
        channel, data = frame[0] if frame else None, frame[1:]
        if channel == _STATUS:
            self.status = _decoded(data)
        elif channel in self._kept and data:  # a channel begins with an empty frame
            if channel == _STDOUT:
                on_output(data)
            kept = self._kept[channel]
            kept += data[: max(0, processes.MAX_OUTPUT - len(kept))]

    def exit_code(self) -> int:
        """Return the exit code of an executed process. ApiError: it never started."""
        # The API reports an exit code other than zero as a failure with a cause.
        status = _of_form(_Ended, self.status or {})
        if status.status == "Success":
            return 0
        for cause in (status.details and status.details.causes) or ():
            if cause.reason == "ExitCode" and _EXIT_CODE.fullmatch(cause.message or ""):
                return int(cause.message or "")
        reason = self._clean(status.message or "no status")
        raise ApiError(f"the pod could not execute a program: {reason}")


def _decoded(data: bytes) -> Json:
    with contextlib.suppress(ValueError, RecursionError):
        found = json.loads(data)
        if isinstance(found, dict):
            return found
    return {"status": "Failure", "message": data.decode(errors="replace")}
