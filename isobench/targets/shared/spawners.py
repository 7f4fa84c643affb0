"""Start programs through isobench's own spawner (workloads/_spawn), which stamps the clock itself.

Python takes 0.2 to 0.5 ms to start a process and to notice its first line; that would be half of
what native's start-up figure shows. The spawner takes a few microseconds. It serves one program at
a time, so that two threads that measure at the same time have one each.
"""

import contextlib
import errno
import os
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Final

from isobench.model.errors import SessionError

MAX_REQUEST: Final = 1 << 21
"""Bytes of paths, arguments and variables together: as many as Linux accepts."""
_MAX_STRINGS: Final = 1 << 16
_MAX_MESSAGE: Final = 1 << 16
_REQUEST: Final = struct.Struct("<5I")
_MESSAGE: Final = struct.Struct("<IIQ")
_NUMBER: Final = struct.Struct("<q")
_ALIGNED: Final = 8
_CHUNK: Final = 1 << 17
_ENDING: Final = 12.0
"""Seconds: the spawner itself waits ten for what it has killed."""


class Kind(IntEnum):
    """What a message of the spawner says."""

    STARTED = 1
    FAILED = 2
    OUT = 3
    ERR = 4
    EXITED = 5
    END = 6


@dataclass(frozen=True, slots=True)
class Message:
    """One message of the spawner."""

    kind: Kind
    stamp: int
    """time.monotonic_ns() when it happened."""
    data: bytes

    @property
    def number(self) -> int:
        """A process number, an errno, or an exit code."""
        return int(_NUMBER.unpack(self.data)[0])


def request(
    argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], folder: Path | None
) -> bytes:
    """Return a request in bytes; OSError or ValueError where no process could be given this."""
    words = [os.fsencode(word) for word in argv]
    variables = [os.fsencode(f"{name}={value}") for name, value in env.items()]
    paths = [words[0]]
    if b"/" not in words[0]:
        paths = [os.fsencode(Path(each, argv[0])) for each in os.get_exec_path(env)]
    strings = [*([] if folder is None else [os.fsencode(folder)]), *paths, *words, *variables]
    if any(b"\0" in string for string in strings):
        raise ValueError("embedded null byte")
    body = b"".join(string + b"\0" for string in strings)
    if len(body) > MAX_REQUEST or len(strings) + 3 > _MAX_STRINGS:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), os.fsdecode(words[0]))
    header = _REQUEST.pack(len(body), len(paths), len(words), len(variables), folder is not None)
    return header + body


class Spawner:
    """One spawner process, and our end of its socket."""

    def __init__(self, program: Path, env: Mapping[str, str]) -> None:
        """Start it: OSError where that cannot be done."""
        ours, theirs = socket.socketpair()
        self._link = ours
        self._rest = b""
        self.cpus = os.sched_getaffinity(0)
        self.idle = True
        """Nothing runs in it: the next program may be started."""
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [program],
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    # A Ctrl-C at the terminal reaches only isobench.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise

    @property
    def pid(self) -> int:
        """Its process number: whatever runs in it is its child."""
        return self._process.pid

    def move(self, cpus: set[int]) -> None:
        """Let it, and what it starts from here on, run on these CPUs."""
        if cpus != self.cpus:
            os.sched_setaffinity(self.pid, cpus)
            self.cpus = cpus

    def send(self, request_: bytes) -> None:
        """Ask for a program."""
        self.idle = False
        try:
            self._link.settimeout(None)
            self._link.sendall(request_)
        except OSError as error:
            raise self._gone(error) from None

    def messages(self, deadline: float) -> Iterator[Message]:
        """Yield what the spawner says until the program has ended, when it is `idle` again, or
        until the deadline (time.monotonic), when it is not.
        """
        while True:
            while (message := self._taken()) is not None:
                self.idle = message.kind in (Kind.END, Kind.FAILED)
                yield message
                if self.idle:
                    return
            left = deadline - time.monotonic()
            if left <= 0:
                return
            self._link.settimeout(left)
            try:
                chunk = self._link.recv(_CHUNK)
            except TimeoutError:
                return
            except OSError as error:
                raise self._gone(error) from None
            if not chunk:
                raise self._gone("it has ended")
            self._rest += chunk

    def _taken(self) -> Message | None:
        """Take the next whole message."""
        if len(self._rest) < _MESSAGE.size:
            return None
        kind, length, stamp = _MESSAGE.unpack_from(self._rest)
        if length > _MAX_MESSAGE:
            raise self._gone(f"it says {length} bytes at once")
        end = _MESSAGE.size + length
        padded = -(-end // _ALIGNED) * _ALIGNED
        if len(self._rest) < padded:
            return None
        message = Message(Kind(kind), stamp, self._rest[_MESSAGE.size : end])
        self._rest = self._rest[padded:]
        return message

    def _gone(self, why: object) -> SessionError:
        return SessionError(f"isobench's spawner cannot be reached: {why}")

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Hang up: the spawner kills what runs in it, with its group, and ends."""
        self.idle = False
        self._link.close()
        try:
            self._process.wait(_ENDING)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(kw_only=True)
class Pool:
    """The spawners of a run: one, and one more for each thread that starts something meanwhile."""

    make: Callable[[], Spawner]
    closed: bool = False
    _spare: list[Spawner] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def lent(self) -> Iterator[Spawner]:
        """Lend a spawner that runs on the CPUs of this thread.

        It is taken back where what it ran has ended, and closed where not.
        """
        one = self._taken()
        try:
            one.move(os.sched_getaffinity(0))
            yield one
        finally:
            with self._lock:
                kept = one.idle and not self.closed
                if kept:
                    self._spare.append(one)
            if not kept:
                one.close()

    def _taken(self) -> Spawner:
        with self._lock:
            while self._spare:
                one = self._spare.pop()
                if one.alive:
                    return one
                one.close()
        return self.make()

    def close(self) -> None:
        """End those that nothing runs in; one that is lent is closed by its thread."""
        with self._lock:
            self.closed = True
            spare, self._spare = self._spare, []
        for each in spare:
            each.close()
