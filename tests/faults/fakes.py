"""Engines, tools and servers that answer wrongly: never, a byte now and then, without end."""

import contextlib
import http.server
import json
import os
import re
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote

import paramiko

Serve = Callable[[socket.socket], None]
_STEP = 0.2
"""Seconds between two bytes of a server that drips."""


def _dripping(beginning: bytes) -> Serve:
    def serve(link: socket.socket) -> None:
        link.recv(65536)
        link.sendall(beginning)
        over = threading.Event()
        while not over.wait(_STEP):
            link.sendall(b"a")

    return serve


def _silent(link: socket.socket) -> None:
    while link.recv(65536):
        pass


def _flooding(link: socket.socket) -> None:
    link.recv(65536)
    link.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    chunk = b"100000\r\n" + b"9" * (1 << 20) + b"\r\n"
    while True:
        link.sendall(chunk)


def replying(body: bytes, status: str = "200 OK") -> Serve:
    """Return a server that answers every request with the same body."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"

    def serve(link: socket.socket) -> None:
        while link.recv(65536):
            link.sendall(head.encode() + b"\r\n\r\n" + body)

    return serve


HEADER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-Slow: "
BODY = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n{"
ENGINES: dict[str, Serve] = {
    "never answers": _silent,
    "drips its header": _dripping(HEADER),
    "drips its body": _dripping(BODY),
    "answers without end": _flooding,
}
"""Servers at the place of an engine, whose calls never end by themselves."""


@contextlib.contextmanager
def listening(path: Path, serve: Serve) -> Iterator[None]:
    """Serve every connection to a Unix socket in a thread of its own."""
    links: list[socket.socket] = []

    def one(link: socket.socket) -> None:
        with contextlib.suppress(OSError):
            serve(link)
        link.close()

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                links.append(link)
                threading.Thread(target=one, args=(link,), daemon=True).start()

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen(64)
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            # Closing a socket does not end an accept(2) that waits for it.
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for link in links:
                with contextlib.suppress(OSError):
                    link.shutdown(socket.SHUT_RDWR)
                link.close()


@dataclass
class Engine:
    """A Docker engine of some fixed replies, which notes what it is asked to delete."""

    replies: dict[str, object] = field(default_factory=dict)
    """By the path of a request without its version: "/images/json"."""
    created: dict[str, object] = field(default_factory=dict)
    """Replies to requests that make something, likewise."""
    refused: set[str] = field(default_factory=set)
    """Paths whose deletion fails."""
    deleted: list[str] = field(default_factory=list)
    silent: set[str] = field(default_factory=set)
    """Paths at which something is made, and the connection cut in place of a reply."""
    is_late: bool = False
    """Whether nothing that is to be deleted exists yet."""
    asked: list[str] = field(default_factory=list)
    """The whole paths of those requests."""

    def delete(self, wanted: str) -> tuple[int, object]:
        """Return the status and the reply of a request to delete something."""
        if wanted in self.refused:
            return 409, {"message": "it is in use"}
        if self.is_late:
            return 404, {"message": "no such thing"}
        self.deleted.append(wanted)
        return 200, []

    @contextlib.contextmanager
    def serving(self, path: Path) -> Iterator[None]:
        """Serve at a Unix socket."""
        engine = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status: int, reply: object) -> None:
                body = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            @property
            def wanted(self) -> str:
                return re.sub(r"^/v[\d.]+", "", unquote(self.path.partition("?")[0]))

            def do_GET(self) -> None:
                if self.wanted in engine.replies:
                    self.answer(200, engine.replies[self.wanted])
                else:
                    self.answer(404, {"message": "no such thing"})

            def do_DELETE(self) -> None:
                self.answer(*engine.delete(self.wanted))

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if self.wanted in engine.silent:
                    engine.asked.append(self.path)
                    self.close_connection = True
                    return
                made = engine.created.get(self.wanted)
                self.answer(201 if made else 404, made or {"message": "no such thing"})

            def address_string(self) -> str:
                return ""

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        class Server(socketserver.ThreadingUnixStreamServer):
            daemon_threads = True

        with Server(str(path), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()


def tool(folder: Path, name: str, script: str) -> Path:
    """Write a program for /bin/sh; `folder` goes before the PATH of the test."""
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# ---- SSH -----------------------------------------------------------------------------------------

Exec = Callable[[paramiko.Channel], None]


class _Server(paramiko.ServerInterface):
    """Accepts every login; executes nothing."""

    def __init__(self, answer: Exec, *, consents: bool) -> None:
        self._answer, self._consents = answer, consents

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        del username, key
        return paramiko.AUTH_SUCCESSFUL  # type: ignore[no-any-return,attr-defined]

    def get_allowed_auths(self, username: str) -> str:
        del username
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        del kind, chanid
        return paramiko.OPEN_SUCCEEDED  # type: ignore[no-any-return,attr-defined]

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        del command
        return self._serve(channel)

    def check_channel_subsystem_request(self, channel: paramiko.Channel, name: str) -> bool:
        del name
        return self._serve(channel)

    def _serve(self, channel: paramiko.Channel) -> bool:
        if not self._consents:
            threading.Event().wait(3600)  # the thread of the server, which is a daemon
        threading.Thread(target=self._one, args=(channel,), daemon=True).start()
        return True

    def _one(self, channel: paramiko.Channel) -> None:
        with contextlib.suppress(OSError, EOFError, paramiko.SSHException):
            self._answer(channel)


def _ends_without_status(channel: paramiko.Channel) -> None:
    channel.recv(65536)
    channel.shutdown(2)
    threading.Event().wait(3600)


def _closes(channel: paramiko.Channel) -> None:
    channel.recv(65536)
    channel.close()


def _says_nothing(channel: paramiko.Channel) -> None:
    del channel
    threading.Event().wait(3600)


def _drips(channel: paramiko.Channel) -> None:
    while not threading.Event().wait(_STEP):
        channel.sendall(b"a")


def _floods(channel: paramiko.Channel) -> None:
    while True:
        channel.sendall(b"9" * 32768)


SERVERS: dict[str, tuple[Exec, bool]] = {
    "ends its output without a status": (_ends_without_status, True),
    "closes the channel without a status": (_closes, True),
    "says nothing": (_says_nothing, True),
    "drips": (_drips, True),
    "prints without end": (_floods, True),
    "never consents": (_says_nothing, False),
}
"""What an SSH server does with a command, and whether it consents to it at all."""


@contextlib.contextmanager
def ssh_server(answer: Exec, *, consents: bool) -> Iterator[tuple[str, int]]:
    """Serve SSH on a port of this machine, with keys that the caller must accept."""
    key = paramiko.ECDSAKey.generate()
    transports: list[paramiko.Transport] = []

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                transport = paramiko.Transport(link)
                transports.append(transport)
                transport.add_server_key(key)
                with contextlib.suppress(paramiko.SSHException, EOFError):
                    transport.start_server(server=_Server(answer, consents=consents))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            host, port = listener.getsockname()[:2]
            yield str(host), int(port)
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            for transport in transports:
                transport.close()


def descendants_of(pid: int) -> list[int]:
    """Return the numbers of all processes below one, from /proc."""
    parents: dict[int, list[int]] = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                stat = Path(entry.path, "stat").read_text().rpartition(")")[2].split()
                parents.setdefault(int(stat[1]), []).append(int(entry.name))
    found = [*parents.get(pid, ())]
    for child in found:
        found += parents.get(child, ())
    return found
