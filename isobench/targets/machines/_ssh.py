"""SSH by paramiko: one connection that all requests share, with isobench's agent at its other end.

The other end runs `_agent` (workloads/_agent/payload.c), as login shell or by a fixed command. It
reads a request from its standard input and executes it. So no shell interprets arguments and
variables. When the channel closes, the agent kills the program and its descendants.
"""

import contextlib
import io
import logging
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import paramiko
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from isobench.config import bounded
from isobench.model import OnStdin
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins import deadlines
from isobench.plugins.api import Completed
from isobench.targets.shared import agent_request, processes

# paramiko logs each broken connection on standard error, in addition to the exception.
logging.getLogger("paramiko").addHandler(logging.NullHandler())
logging.getLogger("paramiko").propagate = False

KEEP_ALIVE: Final = 15
"""Seconds between packets that keep an idle connection open."""
FAULTS: Final = (paramiko.SSHException, paramiko.SFTPError, OSError, EOFError)
_KILL_TIMEOUT: Final = 10.0
"""Seconds within which the agent must have killed a program that exceeded its time limit."""
_MOST_CHUNKS: Final = 64
"""Parts of a stream that are read before the clock is looked at."""
_POLL: Final = 0.5
"""Seconds between two checks whether the other end still runs. A stopped one closes nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key pair for one instance. The private key is never written to a disk of the host."""

    private: paramiko.Ed25519Key
    seed: bytes
    pem: str
    """The private key in OpenSSH's format."""

    @property
    def line(self) -> str:
        """The public key in the format of authorized_keys and known_hosts (sshd(8))."""
        return f"{self.private.get_name()} {self.private.get_base64()}"

    @property
    def dropbear(self) -> bytes:
        """The private key in dropbear's format: the type, then the seed and the public key.

        Both are strings as in RFC 4251, section 5: a 32-bit length and the bytes.
        """
        parts = (b"ssh-ed25519", self.seed + self.private.asbytes()[-32:])
        return b"".join(struct.pack(">I", len(part)) + part for part in parts)


def new_key() -> Key:
    """Return a new Ed25519 key."""
    made = Ed25519PrivateKey.generate()  # paramiko cannot generate keys of this type
    seed = made.private_bytes(
        serialization.Encoding.Raw,
        serialization.PrivateFormat.Raw,
        serialization.NoEncryption(),
    )
    text = made.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.OpenSSH,
        serialization.NoEncryption(),
    ).decode()
    private = paramiko.Ed25519Key.from_private_key(io.StringIO(text))
    return Key(private=private, seed=seed, pem=text)


class Connection:
    """An authenticated connection whose other end runs the agent."""

    def __init__(
        self, transport: paramiko.Transport, command: str, failure_reason: Callable[[], str]
    ) -> None:
        """Take an authenticated transport.

        `command` runs the agent at the other end. `failure_reason` returns why the other end no
        longer runs, or an empty string.
        """
        self._transport, self._command, self._failure_reason = transport, command, failure_reason
        transport.set_keepalive(KEEP_ALIVE)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close the connection. The agent then kills its programs."""
        with contextlib.suppress(*FAULTS):
            self._transport.close()

    @property
    def alive(self) -> bool:
        """Whether the connection is open, as far as paramiko knows. Nothing is sent."""
        return self._transport.is_active()

    def _lost(self, error: object) -> SessionError:
        why = self._failure_reason() or str(error) or type(error).__name__
        return SessionError(f"the SSH connection is lost: {why}")

    def run(
        self,
        message: bytes,
        *,
        timeout: Nanoseconds,
        on_output: Callable[[bytes], None],
        on_stdin: OnStdin | None = None,
    ) -> Completed:
        """Send a request, read both streams, and return how its program ended. What `on_stdin`
        is given writes to the program's standard input.

        `timeout` is in nanoseconds. At the time limit the agent kills the program with all its
        descendants, and the exit code is None. Raises SessionError if the connection is lost.
        """
        deadline = time.monotonic() + timeout / SECOND
        try:
            channel = self._transport.open_session(timeout=timeout / SECOND)
        except FAULTS as error:
            raise self._lost(error) from None
        with contextlib.closing(channel):
            try:
                channel.settimeout(timeout / SECOND)
                # paramiko waits for the server's consent without a limit.
                with deadlines.ended_after(timeout / SECOND, self.close):
                    channel.exec_command(self._command)
                channel.sendall(message)
                if on_stdin is not None:
                    on_stdin(channel.sendall)
                streams = _Streams(channel, on_output, self._failure_reason)
                ended = streams.listen(deadline)
            except TimeoutError:
                # Not even the command was accepted: the other end hangs. A closed connection fails
                # later requests at once, so that each of them need not wait for its own limit.
                self.close()
                return Completed(exit_code=None, stdout=b"", stderr=b"")
            except (*FAULTS, _ConnectionLostError) as error:
                raise self._lost(error) from None
            if not ended:
                self._stop_program(channel)
                return Completed(exit_code=None, stdout=streams.out, stderr=streams.err)
            code = exit_status(channel, deadline - time.monotonic())
        if code is None:
            raise self._lost("the channel closed without an exit code")
        return Completed(
            exit_code=agent_request.exit_code(code), stdout=streams.out, stderr=streams.err
        )

    def _stop_program(self, channel: paramiko.Channel) -> None:
        """Have the agent kill the program of a channel, and wait for that."""
        # At the end of its input the agent kills the program with all descendants, and exits when
        # they have ended. A signal sent over SSH would not reach descendants.
        with contextlib.suppress(*FAULTS):
            channel.shutdown_write()
            if not channel.status_event.wait(_KILL_TIMEOUT):
                # The other end hangs as a whole: later requests then fail at once.
                self.close()


def exit_status(channel: paramiko.Channel, seconds: float) -> int | None:
    """Return the exit status of a channel's program; None where none comes within the time."""
    # `recv_exit_status` waits without a limit.
    if not channel.status_event.wait(max(0.0, seconds)) or channel.exit_status < 0:
        return None  # paramiko's -1: the channel has closed without one
    return channel.exit_status


class _ConnectionLostError(Exception):
    """The other end no longer runs, which the connection itself does not show."""


class _Streams:
    """Reads both streams of a channel, and keeps the first bytes of each."""

    def __init__(
        self,
        channel: paramiko.Channel,
        on_output: Callable[[bytes], None],
        failure_reason: Callable[[], str],
    ) -> None:
        self._channel, self._on_output, self._failure_reason = channel, on_output, failure_reason
        self._kept = (bytearray(), bytearray())

    # Only the first bytes of a flood are kept, but all of it is read: a full window would block the
    # program (RFC 4254, section 5.2).

    @property
    def out(self) -> bytes:
        return bytes(self._kept[0])

    @property
    def err(self) -> bytes:
        return bytes(self._kept[1])

    def listen(self, deadline: float) -> bool:
        """Return True when the program has ended and all output is read, False at the deadline."""
        channel = self._channel
        waiting = channel.fileno()
        while time.monotonic() < deadline:
            self._drain()
            if channel.closed or (channel.eof_received and channel.exit_status_ready()):
                self._drain()
                return True
            if why := self._failure_reason():
                raise _ConnectionLostError(why)
            left = min(max(0.0, deadline - time.monotonic()), _POLL)
            # The channel's descriptor becomes readable at data, end of file and close, but not at
            # an exit status that arrives after the end of file. That one is polled for.
            bounded.is_ready(waiting, min(left, 0.002) if channel.eof_received else left)
            if channel.eof_received and not channel.exit_status_ready():
                channel.status_event.wait(min(left, 0.05))
        return False

    def _drain(self) -> None:
        """Read what has arrived; of a flood a part, so that its end is not waited for."""
        channel = self._channel
        for _ in range(_MOST_CHUNKS):
            if not channel.recv_ready():
                break
            chunk = channel.recv(65536)
            if chunk:
                self._on_output(chunk)
                self._keep(0, chunk)
        for _ in range(_MOST_CHUNKS):
            if not channel.recv_stderr_ready():
                break
            self._keep(1, channel.recv_stderr(65536))

    def _keep(self, stream: int, chunk: bytes) -> None:
        kept = self._kept[stream]
        kept += chunk[: max(0, processes.MAX_OUTPUT - len(kept))]


def banner(
    address: tuple[str, int], *, timeout: float, failure_reason: Callable[[], str] = lambda: ""
) -> socket.socket:
    """Return a TCP connection on which an SSH server has sent its banner, which is left unread.

    QEMU accepts connections to a forwarded port before the guest listens: only the banner shows
    that a server runs. `timeout` is in seconds. Raises SessionError if no banner comes.
    """
    end = time.monotonic() + timeout
    why = "no answer"
    while (left := end - time.monotonic()) > 0 and not failure_reason():
        with contextlib.ExitStack() as stack:
            try:
                link = stack.enter_context(socket.create_connection(address, timeout=left))
                if _greets(link, end, failure_reason):
                    # Nagle's algorithm and delayed acknowledgements cost 40 ms a command.
                    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    stack.pop_all()
                    return link
            except OSError as error:
                why = str(error)
        time.sleep(0.02)
    raise SessionError(f"no SSH server answers at {address[0]}:{address[1]}: {why}")


def _greets(link: socket.socket, end: float, failure_reason: Callable[[], str]) -> bool:
    while (left := end - time.monotonic()) > 0 and not failure_reason():
        if bounded.is_ready(link.fileno(), min(left, _POLL)):
            # RFC 4253, section 4.2. MSG_PEEK leaves the banner for paramiko.
            return link.recv(4, socket.MSG_PEEK).startswith(b"SSH-")
    return False


def connect_pinned(
    link: socket.socket,
    *,
    user: str,
    key: Key,
    host_key: Key,
    command: str,
    timeout: float,
    failure_reason: Callable[[], str] = lambda: "",
) -> Connection:
    """Log in with `key` over an open connection, to a server that must have `host_key`.

    `timeout` is in seconds for each step. Raises SessionError if the login fails.
    """
    transport = paramiko.Transport(link)
    transport.banner_timeout = transport.auth_timeout = transport.handshake_timeout = timeout
    try:
        transport.start_client(timeout=timeout)
        shown = transport.get_remote_server_key()
        if shown.asbytes() != host_key.private.asbytes():
            raise SessionError(
                "the host key of the guest is not the one that isobench made for it",
                hint="another server answers at its port: isobench clean, then try again",
            )
        transport.auth_publickey(user, key.private)
    except paramiko.AuthenticationException as error:
        transport.close()
        raise SessionError(f"the guest refuses the key of this run: {error}") from None
    except FAULTS as error:
        transport.close()
        why = failure_reason() or str(error) or type(error).__name__
        raise SessionError(f"SSH: {why}") from None
    except SessionError:
        transport.close()
        raise
    return Connection(transport, command, failure_reason)
