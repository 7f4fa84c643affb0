"""A virtual machine on serial lines: its console, the output of its programs, its end.

The guest's first process is isobench's own (workloads/_init/payload.c). It reports events as
marks: lines of the console that begin with "isobench: ", such as "isobench: exit 0".
"""

import errno
import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final

from isobench.model import Command, Stage
from isobench.model.errors import SessionError
from isobench.plugins.api import Completed
from isobench.targets.shared import agent_request, processes

LINES: Final = ("log", "out", "err")
"""The guest's console, and standard output and standard error of its programs. Requests are sent
over "out".
"""
MARK: Final = b"isobench: "
STOP_REQUEST: Final = agent_request.framed((), {"stop": ""})
"""Kills whatever runs; the guest replies with the mark "stopped" (workloads/_include/request.h)."""
_KEPT: Final = 1 << 16
"""Bytes of the console that are kept."""
_MOST_MARKS: Final = 256
_LONGEST_MARK: Final = 200
_CHUNK: Final = 1 << 16
_MOST_CHUNKS: Final = 64
"""Times _CHUNK: four mebibytes, more than a socket buffers."""
_TAIL_LINES: Final = 4
_PANIC: Final = b"Kernel panic - "
_SHUTDOWN: Final = 30.0
"""Seconds: an emulated guest beside busy neighbours takes over ten."""
_QUIT: Final = 5.0
_PHASES: Final = ("guest.output", "init")
"""Marks that are phases of a start."""
_CODE: Final = re.compile(r"\d{1,3}", re.ASCII)


def phase_listener(stage: Stage) -> Command:
    """Return a command without a program, which only passes phases of an opening session on."""
    return Command(argv=(), on_phase=stage.on_phase)


def phase_marks(listener: Command) -> Callable[[str], None]:
    """Return a function that passes those marks to a listener that are phases of a start."""

    def forward(mark: str) -> None:
        if mark in _PHASES:
            listener.on_phase(mark)

    return forward


def _printable(text: bytes) -> str:
    """Return text of a guest without control characters.

    A guest is not trusted: its output reaches the user's terminal in error messages.
    """
    decoded = text.decode(errors="replace")
    return "".join(c for c in decoded if c.isprintable() or c == "\n")


def _with_errno_name(failure: str) -> str:
    """Return a failure that a guest reports, its errno in words: "network: No such device"."""
    what, _, number = failure.rpartition(" ")
    code = int(number) if number.isdecimal() and len(number) < len("1000") else 0
    if not what or code not in errno.errorcode:
        return failure
    return f"{what}: {os.strerror(code)} ({errno.errorcode[code]})"


@dataclass(slots=True)
class _State:
    """What is known of the machine so far. `Machine._changed` guards it."""

    log: bytearray = field(default_factory=bytearray)
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    marks: list[str] = field(default_factory=list)
    stopped: str = ""
    """Why the guest no longer runs although its process does, if isobench did not stop it."""
    panic: str = ""
    """The kernel's panic message."""
    ended: bool = False
    """The process has closed all its streams."""

    @property
    def is_over(self) -> bool:
        """Whether the guest can produce no further output."""
        return bool(self.ended or self.stopped or self.panic)


class Machine:
    """A running machine. One thread reads all its lines; the other methods wait for that thread.

    A subclass that adds lines overrides `_handle_other`.
    """

    process_name: ClassVar[str] = "the machine"
    """Name of the process at the beginning of a sentence."""
    hints: ClassVar[Mapping[str, str]] = {}
    """A fragment of an error message -> what to do about it."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        on_output: Callable[[bytes], None],
        on_mark: Callable[[str], None],
    ) -> None:
        """Take a started process and this side of its sockets, by name.

        `on_output` gets standard output of programs as it arrives, `on_mark` each mark. Both are
        called in the reading thread.
        """
        self.process = process
        self._sockets, self._on_output, self._on_mark = sockets, on_output, on_mark
        self._state = _State()
        self._changed = threading.Condition()
        self._partial_lines = {"log": b""}
        self._has_output = False
        self._thread = threading.Thread(target=self._listen, name="machine", daemon=True)

    def listen(self) -> None:
        """Start the reading thread.

        This is no part of __init__: Thread.start waits, and Ctrl-C may interrupt it. By then the
        caller must hold the machine, to close it.
        """
        self._thread.start()

    # ---- listening -------------------------------------------------------------------------------

    def redirect_output(self, on_output: Callable[[bytes], None]) -> None:
        """Pass the output of programs to another function from now on."""
        self._on_output = on_output

    def _listen(self) -> None:
        assert self.process.stderr is not None
        try:
            with selectors.DefaultSelector() as selector:
                for name, link in self._sockets.items():
                    selector.register(link, selectors.EVENT_READ, name)
                selector.register(self.process.stderr, selectors.EVENT_READ, "stderr")
                while selector.get_map():
                    for key, _ in selector.select():
                        chunk = self._read(key.data)
                        # The lines are independent, and the console may overtake the others.
                        # Programs write before the mark of their end is written: reading their
                        # lines after the console, and handling them before it, loses nothing.
                        if key.data == "log":
                            self._read_program_output()
                        if chunk:
                            self._handle(key.data, chunk)
                        elif chunk is not None:
                            selector.unregister(key.fd)
        finally:
            with self._changed:
                self._state.ended = True
                self._changed.notify_all()

    def _read(self, name: str) -> bytes | None:
        """Return available bytes, b"" at the end of the line, None if there is nothing to read."""
        assert self.process.stderr is not None
        try:
            if name == "stderr":
                return os.read(self.process.stderr.fileno(), _CHUNK)
            # The sockets stay blocking for `send`; only reads must not wait.
            return self._sockets[name].recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _read_program_output(self) -> None:
        """Read everything that programs have written so far."""
        for name in ("out", "err"):
            # Bounded: a program that never stops writing must not keep the console waiting.
            for _ in range(_MOST_CHUNKS):
                chunk = self._read(name)
                if not chunk:
                    break
                self._handle(name, chunk)

    def _handle(self, name: str, chunk: bytes) -> None:
        if name == "out":
            self._on_output(chunk)
        marks = self._marks_in(chunk) if name == "log" else []
        for mark in marks:
            self._on_mark(mark)
        # Both callbacks run before the condition is taken: they may take long, and an exception in
        # one of them ends the thread, which `_listen` then reports as the end of the machine.
        with self._changed:
            match name:
                case "log":
                    self._state.log += chunk
                    del self._state.log[:-_KEPT]
                    self._state.marks += marks
                    del self._state.marks[:-_MOST_MARKS]
                case "out" | "err" | "stderr":
                    kept: bytearray = getattr(self._state, name)
                    kept += chunk[: max(0, processes.MAX_OUTPUT - len(kept))]
                case _:
                    self._handle_other(name, chunk)
            self._changed.notify_all()

    def _marks_in(self, chunk: bytes) -> list[str]:
        """Return the marks that a piece of the console completes.

        "guest.output" stands for the first output of the guest, whatever it is.
        """
        # A console may begin with blank lines, which do not show that the guest runs.
        found = [] if self._has_output or not chunk.strip() else ["guest.output"]
        self._has_output |= bool(found)
        *lines, self._partial_lines["log"] = (self._partial_lines["log"] + chunk).split(b"\n")
        self._partial_lines["log"] = self._partial_lines["log"][-_KEPT:]
        for line in lines:
            # A panic is looked for anywhere in a line: a time stamp may precede it. It counts at
            # once, since with panic=0 the machine goes on without end.
            _, panic, why = line.partition(_PANIC)
            if panic and not self._state.panic:
                self._state.panic = _printable((panic + why).strip()[:_LONGEST_MARK])
        return found + [
            _printable(line[len(MARK) :].strip()[:_LONGEST_MARK])
            for line in lines
            if line.startswith(MARK)
        ]

    def _handle_other(self, name: str, chunk: bytes) -> None:
        """Handle bytes of a line that is not in LINES. `_changed` is held."""

    def _stop_reason(self) -> str:
        """Return why the guest no longer runs although its process does."""
        return self._state.stopped

    # ---- waiting ---------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """The last bytes of the console, printable."""
        with self._changed:
            return _printable(bytes(self._state.log))

    def output(self) -> tuple[bytes, bytes]:
        """Return standard output and standard error of programs since the last call."""
        with self._changed:
            out, err = bytes(self._state.out), bytes(self._state.err)
            self._state.out.clear()
            self._state.err.clear()
            return out, err

    def failure_reason(self, *, timeout: float = 0.0) -> str:
        """Return why the machine no longer runs, or an empty string while it runs.

        A connection may break a moment before the end of the machine is known: the method waits up
        to `timeout` seconds for that.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state.is_over, timeout)
        if self._state.panic:
            return f"the guest panicked: {self._state.panic}"
        if self._state.stopped:
            return self._stop_reason()
        if self._state.ended:
            # The streams close shortly before the process can be waited for.
            self.wait_for_end(_QUIT)
        code = self.process.poll()
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        lines = [line.strip() for line in _printable(bytes(self._state.stderr)).splitlines()]
        # Two lines: QEMU often prints advice or an assertion after the error itself.
        errors = " | ".join([line for line in lines if line][-2:])[-500:] or "no error message"
        return f"{self.process_name} has ended, {how}; {errors}"

    def _error_text(self) -> str:
        """Return the text in which `hints` are searched."""
        return bytes(self._state.stderr).decode(errors="replace")

    def console_tail(self) -> str:
        """Return the last lines of the console, as a part of an error message."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        tail = " | ".join(lines[-_TAIL_LINES:])[-400:] or "(empty)"
        return f"end of the serial console: {tail}"

    @property
    def console_log(self) -> str:
        """Standard error of the process, then the last bytes of the console, printable."""
        with self._changed:
            return _printable(bytes(self._state.stderr)) + _printable(bytes(self._state.log))

    def failure(self, what: str, *, hint: str = "") -> SessionError:
        """Return an error with what failed, the reason if known, and the end of the console.

        `hint` is used if no entry of `hints` matches.
        """
        why = self.failure_reason()
        reason = f"{what}{': ' + why if why else ''}"
        text = reason + self._error_text()
        hint = next((advice for sign, advice in self.hints.items() if sign in text), hint)
        return SessionError(f"{reason}; {self.console_tail()}", hint=hint, log=self.console_log)

    def wait_for(self, mark: str, *, deadline: float) -> str | None:
        """Wait for a mark of the guest and consume it.

        Returns the text after the mark's name, or None at the deadline (time.monotonic). Raises
        SessionError if the machine ends or the guest reports a failure.
        """
        with self._changed:
            while True:
                for number, text in enumerate(self._state.marks):
                    name, _, detail = text.partition(" ")
                    if name == mark:
                        # Earlier marks go as well: they belong to steps that are over.
                        del self._state.marks[: number + 1]
                        return detail
                    if name == "failed":
                        raise self.failure(
                            f"the guest could not set itself up: {_with_errno_name(detail)}"
                        )
                if self._state.is_over:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
        raise self.failure("the guest has ended")

    def wait_for_end(self, seconds: float) -> bool:
        """Wait for the process to end by itself; return whether it has."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    # ---- requests --------------------------------------------------------------------------------

    def send(self, request: bytes) -> None:
        """Send a request to the guest's first process (workloads/_init/payload.c)."""
        try:
            self._sockets["out"].sendall(request)
        except OSError:
            raise self.failure("the guest accepts no requests") from None

    def shut_down(self, request: bytes) -> bool:
        """Request the guest to power off; return whether its process has ended."""
        self.send(request)
        return self.wait_for_end(_SHUTDOWN)

    def close(self) -> None:
        """Kill the process if it still runs, and close all its lines."""
        # First the process: its end ends the thread, which still reads from the sockets.
        processes.end(self.process)
        # A thread that was not started cannot be joined: Ctrl-C may come before `listen`.
        if self._thread.ident is not None:
            self._thread.join(5)
        for link in self._sockets.values():
            link.close()
        if self.process.stderr is not None:
            self.process.stderr.close()


_SILENT_TIMEOUT: Final = 60.0
"""Seconds after which a kernel without any output counts as not running. Emulated kernels on busy
hosts stay below it.
"""
_SILENT_SHARE: Final = 0.25
"""Share of boot_timeout that a kernel may be silent, if that is longer."""


class Booted:
    """A machine that has been powered on."""

    def __init__(self, machine: Machine, timeout: float) -> None:
        """Take a machine that has just been started; `timeout` is in seconds from now."""
        self._machine, self.timeout = machine, timeout
        self.deadline = time.monotonic() + timeout

    def wait_until_ready(self) -> None:
        """Wait until the guest accepts requests.

        Raises SessionError at the timeout, and earlier if the kernel prints nothing at all: such a
        kernel does not run.
        """
        silence = min(self.timeout, max(_SILENT_TIMEOUT, _SILENT_SHARE * self.timeout))
        first = self.deadline - self.timeout + silence
        if self._machine.wait_for("ready", deadline=first) is None:
            if silence < self.timeout and not self._machine.log.strip():
                raise self._timeout_error(
                    f"the guest printed nothing within {silence:g} s of power-on"
                )
            if self._machine.wait_for("ready", deadline=self.deadline) is None:
                raise self._timeout_error(f"the guest did not start within {self.timeout:g} s")
        self._machine.output()  # output from before the first request belongs to no request

    def _timeout_error(self, what: str) -> SessionError:
        """Return the error for a machine that runs, but too slowly."""
        if self._machine.log.strip():
            hint = f"set boot_timeout = {2 * max(1.0, self.timeout):.1f}, or more, for this"
            hint += " target in isobench.toml; if that does not help, change kernel or memory"
        else:
            hint = (
                "check in isobench.toml that kernel is for this ISA, machine and cpu, and has a"
                " serial console built in; set more memory or a longer boot_timeout"
            )
        return self._machine.failure(what, hint=hint)

    def wait_for_exit(self, deadline: float) -> Completed:
        """Wait for the end of the first request, at most until `deadline` (time.monotonic).

        Raises SessionError if the guest ends first, or if boot_timeout ends first.
        """
        done = wait_for_exit(self._machine, min(deadline, self.deadline))
        if done.exit_code is None and deadline > self.deadline:
            raise self._timeout_error(
                f"the guest did not finish its first request within {self.timeout:g} s of power-on"
            )
        return done

    def power_off(self, on_phase: Callable[[str], None]) -> None:
        """Power the guest off; report the request and the end of the process as phases."""
        on_phase("shutdown.asked")
        if not self._machine.shut_down(agent_request.NULL):
            raise self._machine.failure(
                f"the guest did not power off within {_SHUTDOWN:g} s of the request"
            )
        on_phase("process.gone")


def wait_for_exit(machine: Machine, deadline: float) -> Completed:
    """Wait for the end of a request until `deadline` (time.monotonic); return its output as well.

    Raises SessionError if the guest ends first.
    """
    code = machine.wait_for("exit", deadline=deadline)
    # A program in the guest can write to the console, and so forge a mark.
    if code is not None and _CODE.fullmatch(code) is None:
        raise machine.failure(f"the guest reported the exit code {code!r}, which is no number")
    out, err = machine.output()
    return Completed(
        exit_code=None if code is None else agent_request.exit_code(int(code)),
        stdout=out,
        stderr=err,
    )
