"""A payload that waits in a session, and makes one iteration for each line that it is sent.

`Session.run` blocks until the program has ended. So a thread runs it, and the caller sends requests
and waits for the lines of output that answer them.
"""

import contextlib
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Final

from isobench.model import Command
from isobench.model.units import SECOND, Nanoseconds
from isobench.payload import wire
from isobench.plugins.api import Completed

_LONGEST_LINE: Final = 1 << 13
"""Bytes of a line that are kept. All lines of the protocol are shorter."""


class EndedError(Exception):
    """The program has ended, or takes no more requests. `Waiting.end` says why."""


class LateError(Exception):
    """The program has not answered in time."""


class Waiting:
    """A program that has been started in a session and answers requests."""

    def __init__(self, run: Callable[[Command], Completed], command: Command) -> None:
        """Start the command by `run`, which blocks until it has ended, in a thread."""
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._partial, self._received = b"", 0
        self._command = command
        self._write: Callable[[bytes], None] | None = None
        listening = replace(command, on_output=self._on_output, on_stdin=self._on_stdin)
        self._future: Future[Completed] = Future()
        self._future.add_done_callback(lambda _: self._lines.put(None))
        # A daemon, so that a plug-in that hangs does not keep isobench from ending. Each program
        # has a thread that lives as long as it does: the kernel sends the parent-death signal when
        # the thread ends that started a process (prctl(2), PR_SET_PDEATHSIG).
        threading.Thread(target=self._run, args=(run, listening), daemon=True).start()

    def _run(self, run: Callable[[Command], Completed], command: Command) -> None:
        try:
            self._future.set_result(run(command))
        except BaseException as error:  # noqa: BLE001 - `end` raises it in the caller's thread
            self._future.set_exception(error)

    def _on_stdin(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def _on_output(self, chunk: bytes, /, at: int | None = None) -> None:
        self._command.on_output(chunk, at=at)
        self._received += len(chunk)
        # A broken program may print without end: `wire.read` refuses such output in any case.
        if self._received > wire.MOST_BYTES:
            return
        *lines, rest = (self._partial + chunk).split(b"\n")
        self._partial = rest[:_LONGEST_LINE]
        for line in lines:
            self._lines.put(line)

    def expect(self, beginning: bytes, timeout: Nanoseconds) -> None:
        """Wait for a line that begins so. EndedError: the program has ended. LateError: it has not
        printed such a line in time.
        """
        deadline = time.monotonic() + timeout / SECOND
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise LateError from None
            if line is None:
                raise EndedError
            if line.startswith(beginning):
                return

    def send(self, data: bytes) -> None:
        """Write to the program's standard input. EndedError: nobody reads it any more."""
        if self._write is None:
            raise EndedError
        try:
            self._write(data)
        except Exception:  # noqa: BLE001 - a plug-in's code: the result of its `run` says why
            raise EndedError from None

    def abandon(self) -> None:
        """Request the program to end, and do not wait for it: its session is about to be closed."""
        with contextlib.suppress(EndedError):
            self.send(wire.END)

    def end(self, timeout: Nanoseconds) -> Completed:
        """Request the program to end, and return how it did. Errors are those of `Session.run`.

        LateError: it has not ended in time. It is then killed at the time limit of its `run`.
        """
        if not self._future.done():
            with contextlib.suppress(EndedError):  # it is ending: its result says why
                self.send(wire.END)
        try:
            return self._future.result(timeout / SECOND)
        except TimeoutError:
            if self._future.done():  # a TimeoutError of `run` itself
                raise
            raise LateError from None
