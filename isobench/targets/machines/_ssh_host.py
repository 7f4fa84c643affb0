"""A host that SSH reaches as the user has it set up: ~/.ssh/config, agent, keys, known hosts.

Read like OpenSSH reads them: Host, Match, Include, HostName, User, Port, IdentityFile,
IdentitiesOnly, ProxyJump, ProxyCommand, HostKeyAlias, UserKnownHostsFile and
GlobalKnownHostsFile. What OpenSSH may be told to relax is not heeded: a host key must be known, and
passwords are never asked for. A ProxyCommand is executed by /bin/sh, much as OpenSSH does it: it is
the user's own.
"""

import contextlib
import getpass
import glob
import os
import re
import shlex
import socket
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

import paramiko

from isobench.model.errors import SessionError
from isobench.targets.machines import _ssh
from isobench.targets.shared import processes

_CONFIGURATION: Final = ("~/.ssh/config", "/etc/ssh/ssh_config")
_KNOWN_HOSTS: Final = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
_SYSTEM_KNOWN_HOSTS: Final = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
_INCLUDE: Final = re.compile(r"\s*include(?:\s*=\s*|\s+)(.+?)\s*", re.IGNORECASE)
_MOST_INCLUDED: Final = 16
_PORT: Final = 22
_LOGIN_TIMEOUT: Final = 20.0
"""Seconds that each step of a login may take."""
_CLOSE_TIMEOUT: Final = 2.0
"""Seconds that a server gets to end SFTP."""
_RETRY_INTERVAL: Final = 0.1
"""Seconds between two attempts to reach a machine that is starting."""
_MOST_OUTPUT: Final = 1 << 16


class UnreachableError(SessionError):
    """Nothing answers there: a machine that is starting may do so a little later."""


class RefusedError(SessionError):
    """The login failed: while a machine starts, its server may refuse everyone for a moment."""


# ---- configuration -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """How to reach a host, and who logs in."""

    alias: str
    """What the user calls it."""
    name: str
    port: int
    user: str
    key: Path | None = None
    """The one that the options name: no other is used."""
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
        """The host's name in known_hosts."""
        name = (self.known_as or self.name).lower()
        return name if self.known_as or self.port == _PORT else f"[{name}]:{self.port}"


def _lines(path: Path, depth: int = 0) -> Iterator[str]:
    """Yield the lines of a configuration file, those of included files in their places."""
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
        # What stands before any Host line of the second file is for all hosts, too.
        text += [*_lines(Path(name).expanduser()), "Host *"]
    return paramiko.SSHConfig.from_text("\n".join(text))


def address(alias: str, *, user: str = "", port: int = 0, key: str = "") -> Address:
    """Return what the user's configuration says of a host; what is given here comes first.

    SessionError: the configuration makes no sense, or there is no such key.
    """
    named_key = Path(key).expanduser() if key else None
    if named_key is not None and not named_key.is_file():
        raise SessionError(f"there is no key {key}", hint="mend key in isobench.toml")
    try:
        said: Mapping[str, Any] = _configuration().lookup(alias)
    except (paramiko.SSHException, ValueError, OSError) as error:
        raise SessionError(
            f"~/.ssh/config cannot be read: {error}", hint=f"ssh -G {alias} says what is wrong"
        ) from None
    text = {name: value for name, value in said.items() if isinstance(value, str)}
    known = shlex.split(text.get("userknownhostsfile", _KNOWN_HOSTS))
    known += shlex.split(text.get("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS))
    # Of the two ways the one that is named first keeps the other from counting, "none" too.
    way = next((name for name in said if name in ("proxyjump", "proxycommand")), "")
    command = text.get("proxycommand", "") if way == "proxycommand" else ""
    jump = text.get("proxyjump", "none") if way == "proxyjump" else "none"
    named = [] if jump.lower() == "none" else [stop.strip() for stop in jump.split(",")]
    # "Host *" with a ProxyJump holds for the jump host as well: it is not reached through itself.
    named = [stop for stop in named if _split(stop)[1] != alias]
    keys = [named_key] if named_key else list(said.get("identityfile", ()))
    return Address(
        alias=alias,
        name=text.get("hostname", alias),
        port=port or int(text.get("port", _PORT)),
        user=user or text.get("user", "") or getpass.getuser(),
        key=named_key,
        keys=tuple(Path(path).expanduser() for path in keys),
        only_these_keys=bool(key) or text.get("identitiesonly", "").lower() == "yes",
        jumps=tuple(named),
        command=command,
        known_as=text.get("hostkeyalias", ""),
        known_hosts=tuple(Path(path).expanduser() for path in known),
    )


def _split(stop: str) -> tuple[str, str, str]:
    """Return user, host and port of one stop of a ProxyJump: [user@]host[:port]."""
    user, _, rest = stop.rpartition("@")
    host, _, port = rest.partition(":") if rest.count(":") == 1 else (rest, "", "")
    return user, host.strip("[]"), port


def _jump(stop: str) -> Address:
    user, host, port = _split(stop)
    if port and not port.isdecimal():
        raise SessionError(f"ProxyJump {stop}: {port!r} is no port", hint="mend ~/.ssh/config")
    return address(host, user=user, port=int(port or 0))


# ---- the way there -------------------------------------------------------------------------------


def _connect(
    to: Address, stack: contextlib.ExitStack, *, timeout: float
) -> socket.socket | paramiko.Channel:
    """Return a link to the server of `to`; the stack closes what it needs."""
    if to.jumps:
        *before, last = to.jumps
        stop = _jump(last)
        # The stops are reached through each other, the first by its own configuration.
        via = _log_in(replace(stop, jumps=tuple(before) or stop.jumps), stack, timeout=timeout)
        transport = via.get_transport()
        assert transport is not None
        try:
            return transport.open_channel(
                "direct-tcpip", (to.name, to.port), ("127.0.0.1", 0), timeout=timeout
            )
        except _ssh.FAULTS as error:
            why = f"{to.alias}: not through {last}: {error}"
            raise UnreachableError(why, hint=login_command(to)) from None
    if to.command:
        return _through_command(to.command, stack)
    try:
        link = socket.create_connection((to.name, to.port), timeout=timeout)
    except OSError as error:
        raise UnreachableError(
            f"{to.alias} ({to.name}:{to.port}): {error.strerror or error}", hint=login_command(to)
        ) from None
    # Small packets at once: waiting for an acknowledgement costs 40 ms a command.
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stack.callback(link.close)
    return link


def _through_command(command: str, stack: contextlib.ExitStack) -> socket.socket:
    ours, theirs = socket.socketpair()
    stack.enter_context(ours)
    with theirs:
        process = processes.start(
            ["/bin/sh", "-c", f"exec {command}"],
            env={**os.environ, **processes.tied()},
            stdin=theirs.fileno(),
            stdout=theirs.fileno(),
        )
    if process.stderr is not None:
        stack.callback(process.stderr.close)
    stack.callback(processes.end, process)
    return ours


def _revoked(to: Address) -> set[str]:
    """Return the keys that known_hosts marks as revoked, in base 64."""
    found = set()
    for path in to.known_hosts:
        with contextlib.suppress(OSError):
            for line in path.read_text(errors="replace").splitlines():
                if line.startswith("@revoked"):
                    found |= set(line.split()[2:])
    return found


def _agent_key(to: Address) -> paramiko.PKey | None:
    """Return the agent's half of a key that the configuration names by its file."""
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
    """Log in at a host whose key is known."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    for path in to.known_hosts:
        with contextlib.suppress(FileNotFoundError):
            try:
                client.load_system_host_keys(str(path))
            except (OSError, paramiko.hostkeys.InvalidHostKey) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                raise SessionError(f"{path} cannot be read: {error}", hint=f"mend {path}") from None
    link = _connect(to, stack, timeout=timeout)
    stack.callback(client.close)
    keys = [str(path) for path in to.keys if path.is_file()]
    try:
        client.connect(
            to.known_as or to.name.lower(),
            port=_PORT if to.known_as else to.port,
            username=to.user,
            key_filename=keys,  # type: ignore[arg-type]  # a list will do
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
            f"{to.alias} shows another host key than the one that is known of it (known_hosts)",
            hint=f"{login_command(to)} says which line; a stranger may be answering",
        ) from None
    except _ssh.FAULTS as error:
        raise _login_error(to, error) from None
    transport = client.get_transport()
    assert transport is not None
    if transport.get_remote_server_key().get_base64() in _revoked(to):
        raise SessionError(f"the host key of {to.alias} is revoked", hint="ask who runs it")
    return client


def login_command(to: Address, *words: str) -> str:
    """Return the command that does by OpenSSH what isobench did: `words` come before the host."""
    port = ["-p", str(to.port)] if to.port != _PORT else []
    key = ["-i", str(to.key)] if to.key is not None else []
    return shlex.join(["ssh", *words, *port, *key, f"{to.user}@{to.alias}"])


_KEY_KINDS: Final = (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey)


def _key_problem(key: Path) -> str:
    """Return why a file is no key that can be used, as the end of a sentence, or nothing."""
    problem = "is no private key that can be read"
    for kind in _KEY_KINDS:
        try:
            kind.from_private_key_file(str(key))
        except paramiko.PasswordRequiredException:
            problem = "is encrypted, and passwords are never asked for"
        except (*_ssh.FAULTS, ValueError):
            continue
        else:
            return ""
    return problem


def _login_error(to: Address, error: Exception) -> SessionError:
    said = str(error) or type(error).__name__
    if "not found in known_hosts" in said:
        return SessionError(
            f"the host key of {to.alias} is not known ({to.listed_as} is not in known_hosts)",
            hint=f"{login_command(to)} once, to check and accept its key",
        )
    files = [path for path in to.keys if path.is_file()]
    problems = [f"{path} {problem}" for path in files if (problem := _key_problem(path))]
    batch = f"make `{login_command(to, '-o', 'BatchMode=yes')} true` work: keys only, no password"
    if any("is encrypted" in problem for problem in problems):
        which = next(path for path in files if "is encrypted" in _key_problem(path))
        batch = f"ssh-add {shlex.quote(str(which))}, and keep its .pub beside it; or another key"
    if (
        problems and to.only_these_keys and len(problems) == len(files)
    ):  # no waiting makes it better
        return SessionError(f"{to.alias}: no key can be used: {'; '.join(problems)}", hint=batch)
    if isinstance(error, paramiko.AuthenticationException):
        why = "; ".join(problems) or said
        return RefusedError(
            f"{to.alias} lets {to.user} in with none of the keys: {why}", hint=batch
        )
    if "No authentication methods" in said or problems:
        why = "; ".join(problems) or said
        return RefusedError(f"{to.alias}: there is no key to log in with: {why}", hint=batch)
    return UnreachableError(f"{to.alias}: {said}", hint=login_command(to))


class Link:
    """A login at a host: commands that are asked and answered, files, and a transport for more."""

    def __init__(self, client: paramiko.SSHClient, to: Address) -> None:
        """Take a client that is logged in."""
        transport = client.get_transport()
        assert transport is not None
        self._client, self.to, self.transport = client, to, transport

    @property
    def server(self) -> str:
        """What the server says it is: "OpenSSH_9.2p1 Debian-2+deb12u3"."""
        return str(self.transport.remote_version).partition("-2.0-")[2] or "an SSH server"

    @property
    def cipher(self) -> str:
        """The cipher of what is sent."""
        return str(self.transport.local_cipher)

    def execute(self, command: str, *, timeout: float = _LOGIN_TIMEOUT) -> tuple[int, str]:
        """Have the account's shell execute a fixed command; return its exit code and output."""
        try:
            with contextlib.closing(self.transport.open_session(timeout=timeout)) as channel:
                channel.settimeout(timeout)
                channel.exec_command(command)
                said = b""
                while len(said) < _MOST_OUTPUT and (chunk := channel.recv(4096)):
                    said += chunk
                code = channel.recv_exit_status()
        except _ssh.FAULTS as error:
            raise SessionError(f"{self.to.alias}: {command}: {error}") from None
        return code, said.decode(errors="replace").strip()

    @contextlib.contextmanager
    def files(self) -> Iterator["Files"]:
        """Open SFTP; SessionError where the server has none."""
        try:
            client = paramiko.SFTPClient.from_transport(self.transport)
        except _ssh.FAULTS as error:
            raise SessionError(
                f"{self.to.alias} offers no SFTP: {error}",
                hint="its sshd_config wants: Subsystem sftp internal-sftp",
            ) from None
        if client is None:
            raise SessionError(f"{self.to.alias} offers no SFTP")
        channel = client.get_channel()
        if channel is not None:
            channel.settimeout(_LOGIN_TIMEOUT)
        with contextlib.closing(client):
            try:
                yield Files(client)
                if channel is not None:
                    # Let the other side end by itself: what is cut off may still be ending when the
                    # next channel opens.
                    channel.shutdown_write()
                    channel.status_event.wait(_CLOSE_TIMEOUT)
            except _ssh.FAULTS as error:
                raise SessionError(f"{self.to.alias}: SFTP: {error}") from None


class Files:
    """Files on the other side. Its errors become a SessionError when `Link.files` ends."""

    def __init__(self, client: paramiko.SFTPClient) -> None:
        """Take an open client."""
        self._client = client

    def is_folder(self, path: str) -> bool:
        """Say whether a path is a folder, links followed."""
        try:
            return stat.S_ISDIR(self._client.stat(path).st_mode or 0)
        except OSError:
            return False

    def make_folder(self, path: str) -> None:
        """Make a folder that must not be there yet, for its owner alone."""
        self._client.mkdir(path, 0o700)
        self._client.chmod(path, 0o700)  # whatever the umask

    def put_program(self, source: Path, path: str) -> None:
        """Write a program."""
        self._client.put(str(source), path, confirm=True)
        self._client.chmod(path, 0o755)

    def folders_of_owner(self, folder: str, beside: str) -> list[str]:
        """Return the names of folders in `folder` that belong to the owner of `beside`."""
        owner = self._client.lstat(beside).st_uid
        return [
            entry.filename
            for entry in self._client.listdir_attr(folder)
            if stat.S_ISDIR(entry.st_mode or 0) and entry.st_uid == owner
        ]

    def remove(self, folder: str) -> None:
        """Remove a folder with all in it; links are removed, not followed."""
        for entry in self._client.listdir_attr(folder):
            path = str(PurePosixPath(folder) / entry.filename)
            if stat.S_ISDIR(entry.st_mode or 0):
                self.remove(path)
            else:
                self._client.remove(path)
        self._client.rmdir(folder)


@contextlib.contextmanager
def link(
    to: Address,
    *,
    retry_for: float = 0.0,
    timeout: float = _LOGIN_TIMEOUT,
    failure_reason: Callable[[], str] = lambda: "",
) -> Iterator[Link]:
    """Log in. With `retry_for` (seconds) a machine that is starting is asked again and again, unless
    `gone` says why it will never answer.

    SessionError: no way there, an unknown host key, no key that opens.
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
                    said = f"{error}: {why}" if why else str(error)
                    raise SessionError(said, hint=error.hint) from None
            else:
                yield Link(client, to)
                return
        time.sleep(_RETRY_INTERVAL)


def is_reachable(to: Address, *, timeout: float) -> bool:
    """Say whether an SSH server answers there: only its banner proves something."""
    with contextlib.ExitStack() as stack:
        try:
            dialled = _connect(to, stack, timeout=timeout)
            dialled.settimeout(timeout)
            return dialled.recv(4) == b"SSH-"
        except (SessionError, *_ssh.FAULTS):
            return False
