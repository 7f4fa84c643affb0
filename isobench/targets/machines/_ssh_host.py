"""A host that is reached by the user's own SSH set-up: ~/.ssh/config, agent, keys, known hosts.

These keywords have the meaning of ssh_config(5): Host, Match, Include, HostName, User, Port,
IdentityFile, IdentitiesOnly, ProxyJump, ProxyCommand, HostKeyAlias, UserKnownHostsFile and
GlobalKnownHostsFile. Keywords that make OpenSSH less strict have no effect: a host key must be
known, and isobench never prompts for a password. /bin/sh executes a ProxyCommand; OpenSSH uses the
user's shell.
"""

import contextlib
import errno
import getpass
import glob
import os
import re
import select
import shlex
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, Final

import paramiko

from isobench.model.cleaning import LONGEST_FACT, cleaned
from isobench.model.errors import SessionError
from isobench.plugins import deadlines
from isobench.targets.machines import _ssh
from isobench.targets.shared import processes

_CONFIGURATION: Final = ("~/.ssh/config", "/etc/ssh/ssh_config")
_KNOWN_HOSTS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_INCLUDE: Final = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+?)\s*", re.IGNORECASE)
_MOST_INCLUDED: Final = 16
"""Depth of nested Include lines, as in OpenSSH: a file may include itself."""
_PORT: Final = 22
_LOGIN_TIMEOUT: Final = 20.0
"""Seconds that each step of a login may take."""
_STEPS: Final = 3
"""A login has so many steps: the server's version, the exchange of keys, the proof of one's own."""
_FILES_TIMEOUT: Final = 300.0
"""Seconds that copying or removing files may take."""
_SEARCH_TIMEOUT: Final = 20.0
"""Seconds that looking through a folder may take."""
_MOST_ENTRIES: Final = 1 << 16
"""Entries of folders that are read at a time: a server may list without end."""
_LONGEST_NAME: Final = 255
"""NAME_MAX of Linux."""
_MOST_NESTED: Final = 64
"""Depth of folders that are removed: a server may show another one in each."""
_BY_HAND: Final = "look at the folder, and remove it by hand"
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds within which a server should end SFTP."""
_RETRY_INTERVAL: Final = 0.1
"""Seconds between two attempts to reach a machine that is starting."""
_MOST_BEFORE_BANNER: Final = 1 << 14
"""Bytes that a server may send before and with its version."""
# With several addresses, the error is that of the last: one of a family that this host lacks.
_OFF: Final = frozenset(
    {
        *(errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ETIMEDOUT),
        *(errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT),
    }
)
"""Errors of connect(2) for a machine that is off."""
_CONNECT_FAILED: Final = 2
"""Reason of a jump host that cannot connect: RFC 4254, section 5.1."""
_MOST_OUTPUT: Final = 1 << 16
"""Bytes of a command's output that are read."""
_MOST_ERRORS: Final = 1 << 13
"""Bytes of a ProxyCommand's standard error that are kept."""
_ERRORS_TIMEOUT: Final = 0.2
"""Seconds that the last line of a ProxyCommand is waited for."""


class UnreachableError(SessionError):
    """No server answers. A machine that is starting may answer later."""


class NothingListensError(UnreachableError):
    """Nothing accepts a connection, as while a machine is off."""


class UnclearError(SessionError):
    """No SSH server answers, and yet the machine may run."""


class ListingError(SessionError):
    """The listing of a folder has too many entries, or one that is no name."""


class RefusedError(SessionError):
    """The login failed. The server of a machine that is starting may refuse all logins at first."""


# ---- configuration -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to reach a host, and who logs in."""

    alias: str
    """The name in the user's configuration."""
    name: str
    port: int
    user: str
    key: Path | None = None
    """The key that isobench's options name. No other key is used then."""
    keys: tuple[Path, ...] = ()
    only_these_keys: bool = False
    jumps: tuple[str, ...] = ()
    command: str = ""
    """A ProxyCommand."""
    known_as: str = ""
    """A HostKeyAlias."""
    known_hosts: tuple[Path, ...] = ()

    @property
    def listed_as(self) -> str:
        """The host's name in known_hosts (sshd(8)): with its port unless that is 22."""
        name = (self.known_as or self.name).lower()
        return name if self.known_as or self.port == _PORT else f"[{name}]:{self.port}"


def _lines(path: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a configuration file, with included files in place of Include lines.

    paramiko does not know Include.
    """
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        found = _INCLUDE.fullmatch(line)
        if found is None:
            yield line
        elif depth < _MOST_INCLUDED:
            for pattern in shlex.split(found.group(1)):
                where = Path(pattern).expanduser()
                where = where if where.is_absolute() else path.parent / where
                for name in sorted(glob.glob(str(where))):  # noqa: PTH207 - an absolute pattern
                    yield from _lines(Path(name), depth + 1)


def _configuration() -> paramiko.SSHConfig:
    text: list[str] = []
    for name in _CONFIGURATION:
        # Both files become one text. Lines before the first Host line of the second file apply to
        # all hosts: without this line they would belong to the last Host of the first file.
        text += [*_lines(Path(name).expanduser()), "Host *"]
    return paramiko.SSHConfig.from_text("\n".join(text))


def address(alias: str, *, user: str = "", port: int = 0, key: str = "") -> Address:
    """Return how the user's configuration reaches a host; arguments take precedence over it.

    Raises SessionError if the configuration is invalid or the key does not exist.
    """
    named_key = Path(key).expanduser() if key else None
    if named_key is not None and not named_key.is_file():
        raise SessionError(f"there is no key {key}", hint="fix key in isobench.toml")
    try:
        found: Mapping[str, Any] = _configuration().lookup(alias)
    except (paramiko.SSHException, ValueError, OSError) as error:
        raise SessionError(
            f"~/.ssh/config cannot be read: {error}", hint=f"find the mistake with: ssh -G {alias}"
        ) from None
    text = {name: value for name, value in found.items() if isinstance(value, str)}
    known = shlex.split(text.get("userknownhostsfile", _KNOWN_HOSTS))
    known += shlex.split(text.get("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS))
    # Of ProxyJump and ProxyCommand only the first one has an effect, even with the value "none"
    # (ssh_config(5)).
    way = next((name for name in found if name in ("proxyjump", "proxycommand")), "")
    command = text.get("proxycommand", "") if way == "proxycommand" else ""
    jump = text.get("proxyjump", "none") if way == "proxyjump" else "none"
    stops = [] if jump.lower() == "none" else [stop.strip() for stop in jump.split(",")]
    # A ProxyJump below "Host *" also applies to the jump host: it is not reached through itself.
    stops = [stop for stop in stops if _split(stop)[1] != alias]
    keys = [named_key] if named_key else list(found.get("identityfile", ()))
    return Address(
        alias=alias,
        name=text.get("hostname", alias),
        port=port or int(text.get("port", _PORT)),
        user=user or text.get("user", "") or getpass.getuser(),
        key=named_key,
        keys=tuple(Path(path).expanduser() for path in keys),
        only_these_keys=bool(key) or text.get("identitiesonly", "").lower() == "yes",
        jumps=tuple(stops),
        command=command,
        known_as=text.get("hostkeyalias", ""),
        known_hosts=tuple(Path(path).expanduser() for path in known),
    )


def _split(stop: str) -> tuple[str, str, str]:
    """Return user, host and port of one stop of a ProxyJump: [user@]host[:port]."""
    user, _, rest = stop.rpartition("@")
    # More than one colon: an IPv6 address without a port.
    host, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
    return user, host.strip("[]"), port


def _jump(stop: str) -> Address:
    user, host, port = _split(stop)
    if port and not port.isdecimal():
        raise SessionError(f"ProxyJump {stop}: {port!r} is no port", hint="fix ~/.ssh/config")
    return address(host, user=user, port=int(port or 0))


# ---- connecting ----------------------------------------------------------------------------------


def _connect(
    to: Address, stack: contextlib.ExitStack, *, timeout: float
) -> socket.socket | paramiko.Channel:
    """Return a connection to the server of `to`. The stack closes it and all that it needs.

    Raises UnreachableError if there is no connection; `timeout` is in seconds for each step.
    """
    if to.jumps:
        *before, last = to.jumps
        stop = _jump(last)
        # Each stop is reached through the one before it, the first by its own configuration.
        stop = replace(stop, jumps=tuple(before) or stop.jumps)
        try:
            via = _log_in(stop, stack, timeout=timeout)
        except NothingListensError as error:  # it is not `to` that is off
            raise UnreachableError(str(error), hint=error.hint) from None
        transport = via.get_transport()
        assert transport is not None
        try:
            # As `ssh -W`: the jump host forwards TCP, and sees only encrypted data (RFC 4254, 7.2).
            return transport.open_channel(
                "direct-tcpip", (to.name, to.port), ("127.0.0.1", 0), timeout=timeout
            )
        except _ssh.FAULTS as error:
            why = f"{to.alias} cannot be reached through {last}: {error}"
            kind = NothingListensError if _is_off(error) else UnreachableError
            raise kind(why, hint=login_command(to)) from None
    if to.command:
        return _through_command(to.command, stack)
    try:
        link = socket.create_connection((to.name, to.port), timeout=timeout)
    except OSError as error:
        kind = NothingListensError if _is_off(error) else UnreachableError
        raise kind(
            f"{to.alias} ({to.name}:{to.port}): {error.strerror or error}", hint=login_command(to)
        ) from None
    # Nagle's algorithm and delayed acknowledgements cost 40 ms a command.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stack.callback(link.close)
    return link


def _is_off(error: Exception) -> bool:
    """Return whether an error of a connection is one that a machine that is off would cause."""
    if isinstance(error, socket.gaierror):  # a name server that does not answer knows nothing
        return error.errno != socket.EAI_AGAIN
    if isinstance(error, OSError):
        return isinstance(error, TimeoutError) or error.errno in _OFF
    if isinstance(error, paramiko.ChannelException):
        return error.code == _CONNECT_FAILED
    # The jump host answered the login a moment ago, and waits for the machine now.
    return "Timeout opening channel" in str(error)


def _through_command(command: str, stack: contextlib.ExitStack) -> "_CommandSocket":
    # paramiko needs a socket with a timeout, which a pair of pipes is not. Its other end is closed
    # here, so that the end of the command is seen.
    plain, theirs = socket.socketpair()
    ours = stack.enter_context(_CommandSocket(fileno=plain.detach()))
    with theirs:
        process = processes.start(
            ["/bin/sh", "-c", f"exec {command}"],
            # Without the mark of `tied`: a command may leave a helper behind that all sessions of
            # the user share. The command itself ends when its streams do.
            env=os.environ,
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
        )
    assert process.stderr is not None
    ours.errors = _Errors(process.stderr)
    stack.callback(ours.errors.close)
    stack.callback(processes.end, process)
    return ours


class _CommandSocket(socket.socket):
    """A connection through a ProxyCommand."""

    errors: "_Errors"


class _Errors:
    """Reads what a ProxyCommand prints on standard error, and keeps its end: a command whose pipe
    is full would wait for ever.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        """Begin to read."""
        self._stream, self._kept = stream, b""
        self._over, self._end = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        waiting = select.poll()
        for descriptor in (self._stream.fileno(), self._over):
            waiting.register(descriptor, select.POLLIN)
        # A helper that the command leaves behind may keep the pipe open.
        while self._over not in (ready for ready, _ in waiting.poll()):
            part = os.read(self._stream.fileno(), 4096)
            if not part:
                return
            self._kept = (self._kept + part)[-_MOST_ERRORS:]

    def last_line(self) -> str:
        """Return the last line so far; empty where there is none."""
        # The command may have ended a moment ago.
        self._thread.join(_ERRORS_TIMEOUT)
        return processes.last_line(self._kept) if self._kept.strip() else ""

    def close(self) -> None:
        """Read no more."""
        os.close(self._end)
        self._thread.join()
        os.close(self._over)
        self._stream.close()


def _why(error: Exception, link: object) -> str:
    """Return why a connection failed, with what its ProxyCommand has printed."""
    text = str(error) or type(error).__name__
    printed = link.errors.last_line() if isinstance(link, _CommandSocket) else ""
    return f"{text}: the ProxyCommand printed {printed!r}" if printed else text


def _revoked(to: Address) -> set[str]:
    """Return the keys that known_hosts marks as revoked, in base 64 (sshd(8)).

    paramiko does not support the marker.
    """
    found = set()
    for path in to.known_hosts:
        with contextlib.suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("@revoked"):
                    found |= set(line.split()[2:])
    return found


def _agent_key(to: Address) -> paramiko.PKey | None:
    """Return a key of the SSH agent that the configuration names by its file.

    With IdentitiesOnly the agent's other keys must not be offered. Its public key, in FILE.pub,
    identifies the wanted one.
    """
    wanted = set()
    for path in to.keys:
        with contextlib.suppress(OSError):
            wanted.add(Path(f"{path}.pub").read_text().split()[1])
    with contextlib.suppress(*_ssh.FAULTS, IndexError):
        agent = paramiko.Agent()
        keys = [key for key in agent.get_keys() if key.get_base64() in wanted]
        if keys:
            return keys[0]
        agent.close()
    return None


def _log_in(to: Address, stack: contextlib.ExitStack, *, timeout: float) -> paramiko.SSHClient:
    """Log in to a host whose key is known. Raises SessionError if that fails."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    _load_known_hosts(client, to)
    link = _connect(to, stack, timeout=timeout)
    stack.callback(client.close)
    keys = [str(path) for path in to.keys if path.is_file()]
    try:
        # The limits of paramiko are those of single steps and of silence. A server that sends a
        # byte now and then has none.
        with deadlines.ended_after(_STEPS * timeout, client.close):
            client.connect(
                # With a socket given, paramiko uses name and port only to look up the host key, as
                # [NAME]:PORT unless the port is 22. An alias is listed without a port.
                to.known_as or to.name.lower(),
                port=_PORT if to.known_as else to.port,
                username=to.user,
                key_filename=keys,  # type: ignore[arg-type]  # the stubs lack lists, paramiko takes them
                pkey=_agent_key(to) if to.only_these_keys else None,
                allow_agent=not to.only_these_keys,
                look_for_keys=not to.keys,
                sock=link,
                timeout=timeout,
                banner_timeout=timeout,
                auth_timeout=timeout,
                channel_timeout=timeout,
            )
    except paramiko.BadHostKeyException:
        raise SessionError(
            f"the host key of {to.alias} is not the one in known_hosts",
            hint=f"{login_command(to)} shows the line; another machine may be answering",
        ) from None
    except _ssh.FAULTS as error:
        raise _login_error(to, error, link) from None
    transport = client.get_transport()
    assert transport is not None
    if transport.get_remote_server_key().get_base64() in _revoked(to):
        raise SessionError(
            f"known_hosts marks the host key of {to.alias} as revoked",
            hint="get its new host key from the administrator of that host",
        )
    return client


def _load_known_hosts(client: paramiko.SSHClient, to: Address) -> None:
    for path in to.known_hosts:
        with contextlib.suppress(FileNotFoundError):
            try:
                client.load_system_host_keys(str(path))
            except (OSError, paramiko.hostkeys.InvalidHostKey) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise SessionError(f"{path} cannot be read: {error}", hint=f"fix {path}") from None


def login_command(to: Address, *words: str) -> str:
    """Return the OpenSSH command for the same login; `words` precede the host."""
    port = ["-p", str(to.port)] if to.port != _PORT else []
    key = ["-i", str(to.key)] if to.key is not None else []
    return shlex.join(["ssh", *words, *port, *key, f"{to.user}@{to.alias}"])


_KEY_KINDS: Final = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


def _key_problem(key: Path) -> str:
    """Return why a private key cannot be used, as the end of a sentence, or an empty string."""
    problem = "is no private key that can be read"
    # paramiko's own error does not name the file.
    for kind in _KEY_KINDS:
        try:
            kind.from_private_key_file(str(key))
        except paramiko.PasswordRequiredException:
            problem = "is encrypted, and isobench never prompts for a password"
        except (*_ssh.FAULTS, ValueError):
            continue
        else:
            return ""
    return problem


def _login_error(to: Address, error: Exception, link: object = None) -> SessionError:
    """Return the error for a login over `link` that paramiko could not complete.

    UnreachableError and RefusedError are for what a later attempt may not meet.
    """
    text = _why(error, link)
    # paramiko has no exception of its own for an unknown host key.
    if "not found in known_hosts" in text:
        return SessionError(
            f"the host key of {to.alias} is not known ({to.listed_as} is not in known_hosts)",
            hint=f"{login_command(to)} once, to check and accept its key",
        )
    files = [path for path in to.keys if path.is_file()]
    problems = [f"{path} {problem}" for path in files if (problem := _key_problem(path))]
    batch = f"make `{login_command(to, '-o', 'BatchMode=yes')} true` work: keys only, no password"
    if any("is encrypted" in problem for problem in problems):
        which = next(path for path in files if "is encrypted" in _key_problem(path))
        batch = f"ssh-add {shlex.quote(str(which))}, with its .pub in the same folder"
    # An error that a later attempt meets as well: neither Refused nor Unreachable.
    if problems and to.only_these_keys and len(problems) == len(files):
        return SessionError(f"{to.alias}: no key can be used: {'; '.join(problems)}", hint=batch)
    if isinstance(error, paramiko.AuthenticationException):
        why = "; ".join(problems) or text
        return RefusedError(f"{to.alias} accepts none of the keys for {to.user}: {why}", hint=batch)
    if "No authentication methods" in text or problems:
        why = "; ".join(problems) or text
        return RefusedError(f"{to.alias}: there is no key to log in with: {why}", hint=batch)
    return UnreachableError(f"{to.alias}: {text}", hint=login_command(to))


class Link:
    """A login at a host: short commands, files, and the transport for other channels."""

    def __init__(self, client: paramiko.SSHClient, to: Address) -> None:
        """Take a client that is logged in to `to`."""
        transport = client.get_transport()
        assert transport is not None
        self._client, self.to, self.transport = client, to, transport

    def _why(self, error: Exception) -> str:
        return _why(error, self.transport.sock)

    @property
    def server(self) -> str:
        """The server's version: "OpenSSH_9.2p1 Debian-2+deb12u3" (RFC 4253, section 4.2)."""
        version = str(self.transport.remote_version).partition("-2.0-")[2]
        return cleaned(version, longest=LONGEST_FACT) or "an SSH server"

    @property
    def cipher(self) -> str:
        """The cipher of sent data."""
        return str(self.transport.local_cipher)

    def execute(self, command: str, *, timeout: float = _LOGIN_TIMEOUT) -> tuple[int, str]:
        """Execute a fixed command by the account's shell; return its exit code and output.

        `timeout` is in seconds. Raises SessionError if there is no reply.
        """
        until = time.monotonic() + timeout
        try:
            with (
                deadlines.ended_after(timeout, self.transport.close),
                contextlib.closing(self.transport.open_session(timeout=timeout)) as channel,
            ):
                channel.settimeout(timeout)
                channel.exec_command(command)
                output = b""
                while len(output) < _MOST_OUTPUT and (chunk := channel.recv(4096)):
                    output += chunk
                code = _ssh.exit_status(channel, until - time.monotonic())
        except _ssh.FAULTS as error:
            raise SessionError(f"{self.to.alias}: {command}: {self._why(error)}") from None
        if code is None:
            raise SessionError(
                f"{self.to.alias}: {command}: it gave no exit code within {timeout:g} s"
            )
        return code, output.decode(errors="replace").strip()

    @contextlib.contextmanager
    def files(self) -> Iterator["Files"]:
        """Open SFTP. Raises SessionError if the server has none, or at an error of SFTP."""
        # paramiko waits for the server's consent and its version without a limit.
        try:
            with deadlines.ended_after(_LOGIN_TIMEOUT, self.transport.close):
                client = paramiko.SFTPClient.from_transport(self.transport)
        except _ssh.FAULTS as error:
            raise SessionError(
                f"{self.to.alias} offers no SFTP: {self._why(error)}",
                hint="add to its sshd_config: Subsystem sftp internal-sftp",
            ) from None
        if client is None:
            raise SessionError(
                f"{self.to.alias} offers no SFTP",
                hint="add to its sshd_config: Subsystem sftp internal-sftp",
            )
        channel = client.get_channel()
        if channel is not None:
            channel.settimeout(_LOGIN_TIMEOUT)
        with contextlib.closing(client):
            try:
                with deadlines.ended_after(_FILES_TIMEOUT, self.transport.close):
                    yield Files(client)
                if channel is not None:
                    # The server's SFTP process should end by itself. One whose channel is closed
                    # may still be ending when the next channel opens.
                    channel.shutdown_write()
                    channel.status_event.wait(_CLOSE_TIMEOUT)
            except _ssh.FAULTS as error:
                raise SessionError(
                    f"{self.to.alias}: SFTP: {self._why(error)}",
                    hint='its folder may be full or read-only: set another, directory = "/var/tmp"',
                ) from None


class Files:
    """Files on the other host. `Link.files` turns its errors into a SessionError."""

    def __init__(self, client: paramiko.SFTPClient) -> None:
        """Take an open SFTP client."""
        self._client = client

    def is_folder(self, path: str) -> bool:
        """Return whether a path is a folder, or a link to one."""
        try:
            return stat.S_ISDIR(self._client.stat(path).st_mode or 0)
        except OSError:
            return False

    def make_folder(self, path: str) -> None:
        """Make a folder that only its owner may enter. An existing one is an error."""
        self._client.mkdir(path, 0o700)
        self._client.chmod(path, 0o700)  # the server's umask may have removed bits

    def put_program(self, source: Path, path: str) -> None:
        """Copy a program to the other host, and make it executable."""
        self._client.put(str(source), path, confirm=True)
        self._client.chmod(path, 0o755)

    def folders_of_owner(self, folder: str, example: str) -> list[str]:
        """Return the names of folders in `folder` that have the same owner as `example`. Of a
        listing that does not end, return those that came first.
        """
        owner = self._client.lstat(example).st_uid
        found = []
        until = time.monotonic() + _SEARCH_TIMEOUT
        with contextlib.suppress(ListingError):
            for entry in self._entries(folder, _MOST_ENTRIES):
                if stat.S_ISDIR(entry.st_mode or 0) and entry.st_uid == owner:
                    found.append(entry.filename)
                if time.monotonic() > until:
                    break
        return found

    def remove(self, folder: str) -> None:
        """Remove a folder and its content, unless it is gone. Links are removed, not followed.

        Raises ListingError if the server shows more in it than isobench removes.
        """
        self._remove(folder, _MOST_ENTRIES, _MOST_NESTED)

    def _remove(self, folder: str, most: int, depth: int) -> int:
        """Remove a folder with at most so many entries in all; return how many more it may have."""
        if not depth:
            raise ListingError("its folders are nested too deeply", hint=_BY_HAND)
        try:
            found = [
                (entry.filename, stat.S_ISDIR(entry.st_mode or 0))
                for entry in self._entries(folder, most)
            ]
        except FileNotFoundError:
            return most
        most -= len(found)
        for name, is_folder in found:
            path = str(PurePosixPath(folder) / name)
            if is_folder:
                most = self._remove(path, most, depth - 1)
            else:
                self._client.remove(path)
        self._client.rmdir(folder)
        return most

    def _entries(self, folder: str, most: int) -> Iterator[paramiko.SFTPAttributes]:
        """Yield the entries of a folder. Raises ListingError if there are more than `most`."""
        # `listdir_attr` keeps whatever a server sends until its end. With one request at a time,
        # none is open when a caller stops reading.
        entries = self._client.listdir_iter(folder, read_aheads=1)
        try:
            for number, entry in enumerate(entries):
                if number >= most:
                    raise ListingError("it has too many entries", hint=_BY_HAND)
                if not 0 < len(entry.filename) <= _LONGEST_NAME:
                    raise ListingError("an entry in it has no valid name", hint=_BY_HAND)
                yield entry
        except UnicodeDecodeError:
            raise ListingError("a name in it is no UTF-8", hint=_BY_HAND) from None


@contextlib.contextmanager
def link(
    to: Address,
    *,
    retry_for: float = 0.0,
    timeout: float = _LOGIN_TIMEOUT,
    failure_reason: Callable[[], str] = lambda: "",
) -> Iterator[Link]:
    """Log in.

    A machine that is starting is tried again for up to `retry_for` seconds, unless `failure_reason`
    returns why it will never answer. Raises SessionError if the host cannot be reached, its key is
    unknown, or it accepts no key.
    """
    end = time.monotonic() + retry_for
    while True:
        with contextlib.ExitStack() as stack:
            try:
                client = _log_in(to, stack, timeout=timeout)
            except (UnreachableError, RefusedError) as error:
                left = end - time.monotonic()
                why = failure_reason()
                if why or left <= 0:
                    what = f"{error}: {why}" if why else str(error)
                    raise SessionError(what, hint=error.hint) from None
            else:
                yield Link(client, to)
                return
        time.sleep(_RETRY_INTERVAL)


def is_reachable(to: Address, *, timeout: float) -> bool:
    """Return whether an SSH server answers. Only its banner proves that (`_ssh.banner`).

    `timeout` is in seconds for each step. Raises UnclearError if something accepts a connection and
    sends no banner in time, or if the way to the machine is broken.
    """
    with contextlib.ExitStack() as stack:
        try:
            connection = _connect(to, stack, timeout=timeout)
        except NothingListensError:
            return False
        except SessionError as error:
            raise _unclear(to, str(error)) from None
        received, end = b"", time.monotonic() + timeout
        with contextlib.suppress(*_ssh.FAULTS):
            while (left := end - time.monotonic()) > 0 and len(received) < _MOST_BEFORE_BANNER:
                connection.settimeout(left)
                chunk = connection.recv(4096)
                if not chunk:
                    break
                received += chunk
                # Other lines may precede it, and it comes in pieces: RFC 4253, section 4.2.
                if re.search(rb"^SSH-", received, re.MULTILINE):
                    return True
        # A ProxyCommand that ends or waits is what a machine that is off looks like.
        if to.command and not received:
            return False
        raise _unclear(to, "its port accepts connections, and no SSH server answers")


def _unclear(to: Address, why: str) -> UnclearError:
    return UnclearError(
        f"whether {to.alias} runs is not known: {why}",
        hint='set status = "…" in isobench.toml: a command that exits with 0 while it runs',
    )
