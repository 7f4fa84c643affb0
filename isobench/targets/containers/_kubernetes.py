"""The API of a Kubernetes cluster, as far as pods need it: the one door to the official client.

The client reads the kubeconfig, logs in, and holds TLS together; its generated models are left
alone: what is asked for is a handful of paths, and a server of any age must be able to answer.

Whatever is said here in words is fit for a run folder: no name, address, user or credential of the
kubeconfig is in it. The client is an optional part of isobench and is imported late: that takes a
second.
"""

import contextlib
import functools
import importlib.util
import json
import os
import re
import ssl
import tempfile
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from isobench.model.errors import SessionError
from isobench.targets.shared import processes

Json = dict[str, Any]

CONNECTING: Final = 5.0
"""Seconds that a connection may take."""
ANSWERING: Final = 20.0
"""Seconds that one answer of the API server's may take."""
_PING: Final = 20.0
"""Seconds of silence after which a stream is pinged: proxies on the way end idle ones."""
_PROTOCOL: Final = "v4.channel.k8s.io"
_STDIN, _STDOUT, _STDERR, _STATUS = range(4)
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 401, 403, 404, 409
_DELETED: Final = (200, 202)
_USER: Final = re.compile(r'[Uu]ser "[^"]*"')
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ([A-Za-z ]+)")
_VERBS: Final = "get,list,create,delete"
_RESOURCES: Final = "pods,pods/exec,pods/attach"
ROLE_HINT: Final = (
    f"kubectl create role isobench --verb={_VERBS} --resource={_RESOURCES}; then"
    " kubectl create rolebinding isobench --role=isobench --user=YOU"
)


class ApiError(SessionError):
    """The cluster refuses, or does not answer. `status` is HTTP's; 0: there was no answer."""

    def __init__(self, message: str, *, hint: str = "", status: int = 0) -> None:
        """Say what, in words fit for a run folder."""
        super().__init__(message, hint=hint)
        self.status = status


# ---- the kubeconfig ------------------------------------------------------------------------------


def installed() -> bool:
    """Say whether the official client is there, without importing it."""
    return importlib.util.find_spec("kubernetes") is not None


def kubeconfig() -> str:
    """Return what KUBECONFIG says, or the usual path: one or several, with colons."""
    return os.environ.get("KUBECONFIG") or "~/.kube/config"


def has_kubeconfig(paths: str) -> bool:
    """Say whether any of the files is there."""
    return any(Path(path).expanduser().is_file() for path in paths.split(os.pathsep) if path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where pods go."""

    kubeconfig: str
    context: str
    """Empty: the current one."""
    namespace: str
    """Empty: the context's own, and without one "default"."""


def _sealed(path: str | None, folder: str) -> str | None:
    """Return a path by which this process alone can read the file.

    The client writes keys of the kubeconfig into temporary files, which a killed process would
    leave behind. A file without a name goes with its process.
    """
    if path is None or not Path(path).is_relative_to(folder):
        return path
    descriptor = os.memfd_create("isobench-kubeconfig")
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(Path(path).read_bytes())
    return f"/proc/self/fd/{descriptor}"


def _configuration(place: Place) -> tuple[Any, str]:
    """Return the client's configuration for a place, and the namespace; ApiError: unusable."""
    try:
        from kubernetes import client, config  # noqa: PLC0415 - optional, and slow to import
    except ImportError as error:
        raise ApiError(
            f"the Python package kubernetes does not load: {error}",
            hint="isobench doctor --install kubernetes",
        ) from None
    hint = "kubectl config get-contexts; kubectl get --raw /version"
    configuration = client.Configuration()
    wanted = place.context or None
    with tempfile.TemporaryDirectory(prefix="isobench-") as folder:
        try:
            contexts, current = config.list_kube_config_contexts(place.kubeconfig)
            named = next((c for c in contexts if c["name"] == wanted), None) if wanted else current
            if named is None:
                raise ApiError("the kubeconfig has no context of this name", hint=hint)
            config.load_kube_config(
                place.kubeconfig, wanted,
                client_configuration=configuration, temp_file_path=folder,
            )  # fmt: skip
        except ApiError:
            raise
        except Exception as error:  # noqa: BLE001 - parsers, helpers, TLS: whatever it is
            # A parser shows the lines that it cannot read, and a helper that logs in says what it
            # likes: neither is repeated.
            kind = type(error).__name__
            raise ApiError(f"the kubeconfig cannot be used ({kind})", hint=hint) from None
        for name in ("ssl_ca_cert", "cert_file", "key_file"):
            setattr(configuration, name, _sealed(getattr(configuration, name), folder))
    configuration.retries = False  # a retry would multiply every time limit
    return configuration, place.namespace or named["context"].get("namespace") or "default"


@functools.cache
def connect(place: Place) -> "Cluster":
    """Return the one connection of this process to a place; ApiError where there is no way to it.

    Nothing is asked of the cluster yet.
    """
    return Cluster(*_configuration(place))


# ---- the API -------------------------------------------------------------------------------------


class Cluster:
    """A cluster's API, by one identity, and one namespace of it."""

    def __init__(self, configuration: Any, namespace: str) -> None:  # noqa: ANN401 - the client's, which has no types
        """Take the client's configuration; nothing is asked of the cluster yet."""
        from kubernetes import client  # noqa: PLC0415 - as above

        self.namespace = namespace
        self._configuration = configuration
        self._http = client.ApiClient(configuration).rest_client.pool_manager
        # Whenever the client renews a token, it points to its own temporary files again.
        self._files = {
            "ca_certs": configuration.ssl_ca_cert,
            "certfile": configuration.cert_file,
            "keyfile": configuration.key_file,
        }

    def _headers(self) -> dict[str, str]:
        """Return what logs in; a token that has run out is fetched anew by the client."""
        settings = self._configuration.auth_settings().values()
        return {one["key"]: one["value"] for one in settings if one.get("in") == "header"}

    def _clean(self, said: str) -> str:
        """Return a message without who we are and where the server is."""
        text = _USER.sub("this user", " ".join(said.split()))
        host = urllib.parse.urlsplit(self._configuration.host)
        for private in (self._configuration.host, host.netloc, host.hostname):
            text = text.replace(private, "the API server") if private else text
        return text[:500]

    def ask(
        self,
        method: str,
        path: str,
        body: Json | None = None,
        *,
        query: Mapping[str, str] | None = None,
        timeout: float = ANSWERING,
    ) -> Json:
        """Ask once; ApiError where it is refused, or not answered in time."""
        import urllib3  # noqa: PLC0415 - comes with the client

        url = self._configuration.host.rstrip("/") + path
        if query:
            url += "?" + urllib.parse.urlencode(query)
        headers = {**self._headers(), "accept": "application/json"}
        if body is not None:
            headers["content-type"] = "application/json"
        try:
            answer = self._http.request(
                method, url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=urllib3.Timeout(connect=min(timeout, CONNECTING), read=timeout),
                redirect=False,
            )  # fmt: skip
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _unreachable(error) from None
        try:
            said = json.loads(answer.data or b"{}")
        except ValueError:
            said = {}
        said = said if isinstance(said, dict) else {}
        if answer.status >= 300:  # noqa: PLR2004 - HTTP's
            raise self._refused(answer.status, str(said.get("message") or answer.reason or ""))
        return said

    def _refused(self, status: int, message: str) -> ApiError:
        said = self._clean(message) or f"HTTP status {status}"
        match status:
            case 401:
                return ApiError(
                    "the cluster does not accept the credentials of the kubeconfig",
                    hint="log in again as your cluster wants it; kubectl get --raw /version",
                    status=status,
                )
            case 403:
                return ApiError(f"the cluster refuses: {said}", hint=_way_out(said), status=status)
            case _:
                return ApiError(
                    f"the cluster refuses: {said}",
                    hint="kubectl get events --sort-by=.lastTimestamp",
                    status=status,
                )

    # What isobench asks for.

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{urllib.parse.quote(self.namespace)}/pods"

    def version(self, timeout: float = CONNECTING) -> str:
        """Return the server's version: "v1.20.2"."""
        return str(self.ask("GET", "/version", timeout=timeout).get("gitVersion", "?"))

    def nodes(self) -> list[Json] | None:
        """Return the nodes; None: this user may not see them."""
        try:
            return list(self.ask("GET", "/api/v1/nodes").get("items") or ())
        except ApiError as error:
            if error.status == _FORBIDDEN:
                return None
            raise

    def may(self, verb: str, resource: str, part: str = "") -> bool:
        """Say whether this user may do something with pods of the namespace."""
        wanted = {"namespace": self.namespace, "verb": verb, "resource": resource}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {**wanted, "subresource": part}},
        }
        answer = self.ask("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", review)
        return bool(answer.get("status", {}).get("allowed"))

    def create(self, pod: Json, *, trial: bool = False) -> Json:
        """Create a pod; with `trial` everything is checked, quota and policies too, and nothing is
        created.
        """
        return self.ask("POST", self._pods, pod, query={"dryRun": "All"} if trial else None)

    def pod(self, name: str) -> Json | None:
        """Return a pod; None: there is none of this name."""
        try:
            return self.ask("GET", f"{self._pods}/{name}")
        except ApiError as error:
            if error.status == _NOT_FOUND:
                return None
            raise

    def pods(self, selector: str) -> list[Json]:
        """Return the pods with these labels."""
        found = self.ask("GET", self._pods, query={"labelSelector": selector})
        return list(found.get("items") or ())

    def delete(self, name: str, uid: str, *, grace: int) -> None:
        """Ask for a pod's end, `grace` seconds after it is told; nothing happens to another pod of
        that name.
        """
        options: Json = {"gracePeriodSeconds": grace, "preconditions": {"uid": uid}}
        try:
            self.ask("DELETE", f"{self._pods}/{name}", options)
        except ApiError as error:
            if error.status not in (_NOT_FOUND, _CONFLICT):
                raise

    def warnings(self, name: str) -> list[str]:
        """Return what the cluster has warned of about a pod, the latest last; nothing where it may
        not be seen.
        """
        path = f"/api/v1/namespaces/{urllib.parse.quote(self.namespace)}/events"
        chosen = f"involvedObject.name={name},type=Warning"
        try:
            found = self.ask("GET", path, query={"fieldSelector": chosen})
        except ApiError:
            return []
        events = sorted(found.get("items") or (), key=lambda e: str(e.get("lastTimestamp")))
        return [self._clean(f"{e.get('reason')}: {e.get('message')}") for e in events]

    # Streams.

    def execute(self, name: str, container: str, argv: Sequence[str]) -> "Stream":
        """Start a process in a container that runs, with all three streams."""
        wanted = [("container", container), *(("command", word) for word in argv)]
        return self._stream(f"{self._pods}/{name}/exec", wanted)

    def attach(self, name: str, container: str) -> "Stream":
        """Take hold of the streams of a container's first process."""
        return self._stream(f"{self._pods}/{name}/attach", [("container", container)])

    def _stream(self, path: str, query: Sequence[tuple[str, str]]) -> "Stream":
        import websocket  # noqa: PLC0415 - comes with the client

        streams = [(name, "true") for name in ("stdin", "stdout", "stderr")]
        base = "ws" + self._configuration.host.rstrip("/").removeprefix("http")
        url = f"{base}{path}?{urllib.parse.urlencode([*query, *streams])}"
        try:
            connection = websocket.create_connection(
                url,
                timeout=CONNECTING,
                subprotocols=[_PROTOCOL],
                header=[f"{key}: {value}" for key, value in self._headers().items()],
                sslopt=self._tls(),
                **self._proxy(),
            )
        except websocket.WebSocketBadStatusException as error:
            raise self._refused(error.status_code or 0, _message(error)) from None
        except (websocket.WebSocketException, OSError) as error:
            raise _unreachable(error) from None
        return Stream(connection, self._clean)

    def _tls(self) -> Json:
        """Return the client's settings of TLS as the websocket library names them."""
        settings = self._configuration
        found = {
            **self._files, "server_hostname": getattr(settings, "tls_server_name", None)
        }  # fmt: skip
        checked = ssl.CERT_REQUIRED if settings.verify_ssl else ssl.CERT_NONE
        named = settings.verify_ssl and settings.assert_hostname is not False
        options = {key: value for key, value in found.items() if value}
        return {**options, "cert_reqs": checked, "check_hostname": named}

    def _proxy(self) -> Json:
        """Return the client's settings of a proxy as the websocket library names them."""
        from kubernetes.stream import ws_client  # noqa: PLC0415 - as above

        if not self._configuration.proxy:
            return {}
        found: Json = ws_client.websocket_proxycare({}, self._configuration, None, {})
        return {**found, "proxy_type": "http"}


def _message(error: Any) -> str:  # noqa: ANN401 - the library has no types
    """Return what the server said when it refused a stream."""
    body = getattr(error, "resp_body", None) or b""
    text = body.decode(errors="replace") if isinstance(body, bytes) else str(body)
    try:
        said = json.loads(text)
    except ValueError:
        return text
    return str(said.get("message", "")) if isinstance(said, dict) else text


def _unreachable(error: BaseException) -> ApiError:
    """Return the error of no answer: the libraries' own words hold the server's address."""
    words = f"{error} {getattr(error, 'reason', '')}"
    found = _ERRNO.search(words)
    if "certificate" in words.lower():
        why, hint = "its certificate is not accepted", "kubectl get --raw /version"
    elif "timed out" in words.lower():
        why, hint = "no answer in time", "kubectl get --raw /version"
    elif "resolve" in words.lower():
        why, hint = "its name cannot be resolved", "kubectl cluster-info"
    else:
        why = found[1].strip().lower() if found else type(error).__name__
        hint = "start the cluster, or choose another context: kubectl config use-context NAME"
    return ApiError(f"the cluster's API server does not answer: {why}", hint=hint)


def _way_out(said: str) -> str:
    """Return what to do about a refusal: of a role, a quota or a policy."""
    low = said.lower()
    if "must specify" in low:
        return 'say what a pod may use: [targets.kubernetes] / cpu = "1" / memory = "256Mi"'
    if "quota" in low or "limitrange" in low or "maximum" in low:
        return (
            "kubectl describe quota,limitrange; then lower cpu and memory of [targets.kubernetes]"
        )
    if "podsecurity" in low or "security" in low:
        return "[targets.kubernetes] / restricted = true"
    return ROLE_HINT


class Stream:
    """A process in a container, by its streams. Close it: the agent at the other end then kills
    whatever it has started.
    """

    def __init__(self, connection: Any, clean: Callable[[str], str]) -> None:  # noqa: ANN401 - no types
        """Take an open websocket."""
        self._connection, self._clean = connection, clean
        self._kept = {_STDOUT: bytearray(), _STDERR: bytearray()}
        self.status: Json | None = None
        """How the API says that it ended; None: it has not."""

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
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
        """Write to standard input. ApiError: the other end is gone."""
        with self._faults():
            self._connection.send_binary(bytes([_STDIN]) + message)

    def listen(self, heard: Callable[[bytes], None], deadline: float) -> bool:
        """Read until the process has ended: True. False at the deadline (time.monotonic).

        ApiError: the connection broke before.
        """
        import websocket  # noqa: PLC0415 - as above

        while self.status is None:
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            self._connection.settimeout(min(left, _PING))
            try:
                with self._faults():
                    code, frame = self._connection.recv_data(control_frame=False)
            except TimeoutError:
                with self._faults():
                    self._connection.ping()
                continue
            if code == websocket.ABNF.OPCODE_CLOSE:
                raise ApiError("the stream ended before the process did")
            self._take(frame, heard)
        return True

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        import websocket  # noqa: PLC0415 - as above

        try:
            yield
        except websocket.WebSocketTimeoutException:
            raise TimeoutError from None
        except TimeoutError:
            raise
        except (websocket.WebSocketException, OSError) as error:
            raise ApiError(f"the stream is lost ({type(error).__name__})") from None

    def _take(self, frame: bytes, heard: Callable[[bytes], None]) -> None:
        channel, said = frame[0] if frame else None, frame[1:]
        if channel == _STATUS:
            self.status = _decoded(said)
        elif channel in self._kept and said:
            if channel == _STDOUT:
                heard(said)
            kept = self._kept[channel]
            kept += said[: max(0, processes.MAX_OUTPUT - len(kept))]

    def exit_code(self) -> int:
        """Return how an executed process ended; ApiError: it never started."""
        status = self.status or {}
        if status.get("status") == "Success":
            return 0
        causes = (status.get("details") or {}).get("causes") or ()
        for cause in causes:
            if cause.get("reason") == "ExitCode" and str(cause.get("message")).isdigit():
                return int(cause["message"])
        said = self._clean(str(status.get("message") or "no status"))
        raise ApiError(f"nothing could be executed in the pod: {said}")


def _decoded(said: bytes) -> Json:
    with contextlib.suppress(ValueError):
        found = json.loads(said)
        if isinstance(found, dict):
            return found
    return {"status": "Failure", "message": said.decode(errors="replace")}
