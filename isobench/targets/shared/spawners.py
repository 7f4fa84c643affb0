"""Start programs through isobench's own spawner (workloads/_spawn), which reads the clock itself.

Python takes 0.2 to 0.5 ms to start a process and to notice its first line. That would be half of
native's start-up time, the denominator of all ratios. The spawner takes a few microseconds. It runs
one program at a time: two threads that measure at the same time use two spawners.

The format of requests and messages is described in workloads/_spawn/payload.c.
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
"""Bytes of paths, arguments and variables together: Linux's limit for a stack of 8 MiB, a quarter
of it (execve(2)).
"""
_MAX_STRINGS: Final = 1 << 16
_MAX_MESSAGE: Final = 1 << 16
_REQUEST: Final = struct.Struct("<5I")
_MESSAGE: Final = struct.Struct("<IIQ")
_NUMBER: Final = struct.Struct("<q")
_ALIGNED: Final = 8
_CHUNK: Final = 1 << 17
_CLOSE_SECONDS: Final = 12.0
"""Seconds that a spawner may take to exit: it waits ten for the program that it has killed."""


class Kind(IntEnum):
    """The kinds of the spawner's messages."""

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
    """CLOCK_MONOTONIC in nanoseconds when it happened, the clock of time.monotonic_ns()."""
    data: bytes

    @property
    def number(self) -> int:
        """The process number, errno or exit code in this message."""
        return int(_NUMBER.unpack(self.data)[0])


def request(
    argv: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str], folder: Path | None
) -> bytes:
    """Return a request to run a program in `folder`, in bytes.

    OSError: longer than the kernel accepts. ValueError: a string contains a NUL byte.
    """
    words = [os.fsencode(word) for word in argv]
    variables = [os.fsencode(f"{name}={value}") for name, value in env.items()]
    paths = [words[0]]
    # The spawner has no search path: it gets the candidates in the order in which `subprocess`
    # would try them.
    if b"/" not in words[0]:
        paths = [os.fsencode(Path(each, argv[0])) for each in os.get_exec_path(env)]
    strings = [*([] if folder is None else [os.fsencode(folder)]), *paths, *words, *variables]
    if any(b"\0" in string for string in strings):
        raise ValueError("embedded null byte")  # as `subprocess` does
    body = b"".join(string + b"\0" for string in strings)
    if len(body) > MAX_REQUEST or len(strings) + 3 > _MAX_STRINGS:
        raise OSError(errno.E2BIG, os.strerror(errno.E2BIG), os.fsdecode(words[0]))
    header = _REQUEST.pack(len(body), len(paths), len(words), len(variables), folder is not None)
    return header + body


class Spawner:
    """One spawner process, and isobench's end of its socket."""

    def __init__(self, program: Path, env: Mapping[str, str]) -> None:
        """Start the process. OSError: it cannot be executed."""
        ours, theirs = socket.socketpair()
        self._link = ours
        self._received = b""
        self.cpus = os.sched_getaffinity(0)
        self.idle = True
        """Whether it runs no program, so that the next one may be started."""
        try:
            with theirs:
                self._process = subprocess.Popen(
                    [program],
                    env=dict(env),
                    stdin=subprocess.DEVNULL,
                    stdout=theirs.fileno(),
                    stderr=subprocess.DEVNULL,
                    # A Ctrl-C at the terminal then reaches isobench alone.
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            raise

    @property
    def pid(self) -> int:
        """Its process number. The program that it runs is its child."""
        return self._process.pid

    def move(self, cpus: set[int]) -> None:
        """Set the CPUs of the spawner, which the programs that it starts inherit."""
        if cpus != self.cpus:
            os.sched_setaffinity(self.pid, cpus)
            self.cpus = cpus

    def send(self, content: bytes) -> None:
        """Send a request to run a program. SessionError: the spawner has ended."""
        self.idle = False
        try:
            self._link.settimeout(None)
            self._link.sendall(content)
        except OSError as error:
            raise self._gone(error) from None

    def messages(self, deadline: float) -> Iterator[Message]:
        """Yield messages until the program has ended or the deadline (time.monotonic) has passed.

        In the first case the spawner is `idle` afterwards. SessionError: the spawner has ended.
        """
        while True:
            while (message := self._next_message()) is not None:
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
                raise self._gone("its process has ended")
            self._received += chunk

    def _next_message(self) -> Message | None:
        """Remove and return the next complete message; None while it is incomplete."""
        if len(self._received) < _MESSAGE.size:
            return None
        kind, length, stamp = _MESSAGE.unpack_from(self._received)
        if length > _MAX_MESSAGE:
            raise self._gone(f"its message claims {length} bytes")
        end = _MESSAGE.size + length
        # The next message begins at a multiple of eight.
        padded = -(-end // _ALIGNED) * _ALIGNED
        if len(self._received) < padded:
            return None
        message = Message(Kind(kind), stamp, self._received[_MESSAGE.size : end])
        self._received = self._received[padded:]
        return message

    def _gone(self, why: object) -> SessionError:
        return SessionError(f"isobench's spawner does not answer: {why}")

    @property
    def alive(self) -> bool:
        """Whether its process still runs."""
        return self._process.poll() is None

    def close(self) -> None:
        """Close the socket: the spawner then kills its program with its group, and exits."""
        self.idle = False
        self._link.close()
        try:
            self._process.wait(_CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


@dataclass(kw_only=True)
class Pool:
    """The spawners of a run: as many as there are threads that start programs at the same time."""

    make: Callable[[], Spawner]
    closed: bool = False
    _spare: list[Spawner] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextlib.contextmanager
    def borrowed(self) -> Iterator[Spawner]:
        """Lend a spawner that runs on the CPUs of this thread.

        Afterwards it is kept if its program has ended, and closed if not.
        """
        one = self._take_or_make()
        try:
            # Affinity belongs to a thread: this thread may be confined to other CPUs than the one
            # that used the spawner before.
            one.move(os.sched_getaffinity(0))
            yield one
        finally:
            with self._lock:
                kept = one.idle and not self.closed
                if kept:
                    self._spare.append(one)
            if not kept:
                one.close()

    def _take_or_make(self) -> Spawner:
        with self._lock:
            while self._spare:
                one = self._spare.pop()
                if one.alive:
                    return one
                one.close()
        return self.make()

    def close(self) -> None:
        """Close the idle spawners. A borrowed one is closed by the thread that returns it."""
        with self._lock:
            self.closed = True
            spare, self._spare = self._spare, []
        for each in spare:
            each.close()
