"""A virtual machine on serial lines: its console, the two streams of its programs, its end.
Its first process is isobench's own (workloads/_init/payload.c).
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
"""Console of the guest, the two streams of its programs; requests go in by the second."""
MARK: Final = b"isobench: "
STOP_REQUEST: Final = agent_request.framed((), {"stop": ""})
"""Asks that what runs be killed; the answer is the mark "stopped"."""
_KEPT: Final = 1 << 16
_MOST_MARKS: Final = 256
_LONGEST_MARK: Final = 200
_CHUNK: Final = 1 << 16
_MOST_CHUNKS: Final = 64
"""Four mebibytes: more than a socket holds."""
_TAIL_LINES: Final = 4
_PANIC: Final = b"Kernel panic - "
_SHUTDOWN: Final = 10.0
_QUIT: Final = 5.0
_PHASES: Final = ("guest.output", "init")
"""What a guest says of itself that is a phase of its start."""
_CODE: Final = re.compile(r"\d{1,3}", re.ASCII)


def phase_listener(stage: Stage) -> Command:
    """Return what listens while a session of this stage is opened: to phases alone."""
    return Command(argv=(), on_phase=stage.on_phase)


def phase_marks(listener: Command) -> Callable[[str], None]:
    """Return what hands on to a listener the marks that are phases of a start."""

    def forward(said: str) -> None:
        if said in _PHASES:
            listener.on_phase(said)

    return forward


def _printable(text: bytes) -> str:
    """Return what a guest says, without what would move a terminal's cursor."""
    said = text.decode(errors="replace")
    return "".join(c for c in said if c.isprintable() or c == "\n")


def _with_errno_name(failure: str) -> str:
    """Return what a guest says has failed, with its number of an error in words."""
    what, _, number = failure.rpartition(" ")
    code = int(number) if number.isdecimal() and len(number) < len("1000") else 0
    if not what or code not in errno.errorcode:
        return failure
    return f"{what}: {os.strerror(code)} ({errno.errorcode[code]})"


@dataclass(slots=True)
class _State:
    """What the machine has said so far; guarded by the machine's condition."""

    log: bytearray = field(default_factory=bytearray)
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    marks: list[str] = field(default_factory=list)
    stopped: str = ""
    """Why the guest does not run any more though its process does, when nobody asked for that."""
    panic: str = ""
    """The kernel's last words."""
    ended: bool = False
    """The process has let go of its ends."""

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to be expected."""
        return bool(self.ended or self.stopped or self.panic)


class Machine:
    """A running machine. One thread listens to all it says; waiting is for what that thread hears.

    A kind of machine with lines of its own takes what they say in `_handle_other`.
    """

    process_name: ClassVar[str] = "the machine"
    """Name of the process, as the beginning of a sentence."""
    hints: ClassVar[Mapping[str, str]] = {}
    """What to do about something that is said, on the process's standard error as a rule."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        on_output: Callable[[bytes], None],
        on_mark: Callable[[str], None],
    ) -> None:
        """Take a started process and our ends of its sockets, by name; `on_output` gets what
        programs print.
        """
        self.process = process
        self._sockets, self._on_output, self._on_mark = sockets, on_output, on_mark
        self._state = _State()
        self._changed = threading.Condition()
        self._partial_lines = {"log": b""}
        self._has_output = False
        self._thread = threading.Thread(target=self._listen, name="machine", daemon=True)

    def listen(self) -> None:
        """Begin to listen; on its own, since it waits for the thread, and a Ctrl-C may come then:
        whoever is to close this machine must know of it by now.
        """
        self._thread.start()

    # ---- listening -------------------------------------------------------------------------------

    def redirect_output(self, on_output: Callable[[bytes], None]) -> None:
        """Hand on to somebody else what programs print from here on."""
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
        """Return what there is, nothing at the end, None where nothing has come (any more)."""
        assert self.process.stderr is not None
        try:
            if name == "stderr":
                return os.read(self.process.stderr.fileno(), _CHUNK)
            return self._sockets[name].recv(_CHUNK, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _read_program_output(self) -> None:
        """Read what programs said before the console said the latest: their end, it may be."""
        for name in ("out", "err"):
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
        with self._changed:
            match name:
                case "log":
                    self._state.log += chunk
                    del self._state.log[:-_KEPT]
                    self._state.marks += marks
                    del self._state.marks[:-_MOST_MARKS]
                case "out" | "err" | "stderr":
                    kept: bytearray = getattr(self._state, name)
                    kept += chunk[: max(0, processes.MOST - len(kept))]
                case _:
                    self._handle_other(name, chunk)
            self._changed.notify_all()

    def _marks_in(self, chunk: bytes) -> list[str]:
        """Return the marks that a piece of the console completes, its first word among them."""
        found = [] if self._has_output or not chunk.strip() else ["guest.output"]
        self._has_output |= bool(found)
        *lines, self._partial_lines["log"] = (self._partial_lines["log"] + chunk).split(b"\n")
        self._partial_lines["log"] = self._partial_lines["log"][-_KEPT:]
        for line in lines:
            _, panic, why = line.partition(_PANIC)
            if panic and not self._state.panic:
                self._state.panic = _printable((panic + why).strip()[:_LONGEST_MARK])
        return found + [
            _printable(line[len(MARK) :].strip()[:_LONGEST_MARK])
            for line in lines
            if line.startswith(MARK)
        ]

    def _handle_other(self, name: str, chunk: bytes) -> None:
        """Take what another line than LINES has said; the condition is held."""

    def _stop_reason(self) -> str:
        """Say why the guest does not run any more though its process does."""
        return self._state.stopped

    # ---- waiting ---------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """The end of what the guest said on its console, printable."""
        with self._changed:
            return _printable(bytes(self._state.log))

    def output(self) -> tuple[bytes, bytes]:
        """Return what programs have said on their two streams since the last call."""
        with self._changed:
            out, err = bytes(self._state.out), bytes(self._state.err)
            self._state.out.clear()
            self._state.err.clear()
            return out, err

    def failure_reason(self, *, timeout: float = 0.0) -> str:
        """Say why the machine does not run any more, or nothing while it runs.

        What leads to it may break a moment before its end is known: `timeout` in seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._state.is_over, timeout)
        if self._state.panic:
            return f"the guest panicked: {self._state.panic}"
        if self._state.stopped:
            return self._stop_reason()
        if self._state.ended:  # it has let go of everything, and is about to be gone
            self.wait_for_end(_QUIT)
        code = self.process.poll()
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        lines = [line.strip() for line in _printable(bytes(self._state.stderr)).splitlines()]
        # What is wrong is often followed by a piece of advice, or by an assertion.
        said = " | ".join([line for line in lines if line][-2:])[-500:] or "it said nothing"
        return f"{self.process_name} has ended, {how}; {said}"

    def _error_text(self) -> str:
        """Return in what `hints` are looked for."""
        return bytes(self._state.stderr).decode(errors="replace")

    def console_tail(self) -> str:
        """Say what the console said last."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        tail = " | ".join(lines[-_TAIL_LINES:])[-400:] or "nothing"
        return f"the serial console said last: {tail}"

    @property
    def console_log(self) -> str:
        """What the process complained of and the end of what the guest said on its console,
        printable.
        """
        with self._changed:
            return _printable(bytes(self._state.stderr)) + _printable(bytes(self._state.log))

    def failure(self, what: str, *, hint: str = "") -> SessionError:
        """Return an error that says what failed, why, and what the console said last.

        `hint` is the way out unless what was said suggests a better one.
        """
        why = self.failure_reason()
        reason = f"{what}{': ' + why if why else ''}"
        said = reason + self._error_text()
        hint = next((way for sign, way in self.hints.items() if sign in said), hint)
        return SessionError(f"{reason}; {self.console_tail()}", hint=hint, log=self.console_log)

    def wait_for(self, mark: str, *, deadline: float) -> str | None:
        """Wait for a mark of the guest and take it: what follows its name, or None at the deadline
        (time.monotonic). SessionError when the machine ends or the guest says it has failed.
        """
        with self._changed:
            while True:
                for number, said in enumerate(self._state.marks):
                    name, _, detail = said.partition(" ")
                    if name == mark:
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
        """Wait for the process to end by itself."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    # ---- asking ----------------------------------------------------------------------------------

    def send(self, request: bytes) -> None:
        """Send a request to the guest's first process (workloads/_init/payload.c)."""
        try:
            self._sockets["out"].sendall(request)
        except OSError:
            raise self.failure("the guest takes no request") from None

    def shut_down(self, request: bytes) -> bool:
        """Ask the guest to power off; say whether it did so by itself."""
        self.send(request)
        return self.wait_for_end(_SHUTDOWN)

    def close(self) -> None:
        """End the process, whatever it does, and close what leads to it."""
        processes.end(self.process)
        if self._thread.ident is not None:
            self._thread.join(5)
        for link in self._sockets.values():
            link.close()
        if self.process.stderr is not None:
            self.process.stderr.close()


_SILENT_TIMEOUT: Final = 60.0
"""Seconds in which any kernel that runs has said a first word, emulated ones on busy hosts too."""
_SILENT_SHARE: Final = 0.25
"""Whoever is more patient with a guest is so with its first word."""


class Booted:
    """A machine that has been powered on."""

    def __init__(self, machine: Machine, timeout: float) -> None:
        """Take a machine that has just been started, and the seconds within which it must have
        come up.
        """
        self._machine, self.timeout = machine, timeout
        self.deadline = time.monotonic() + timeout

    def wait_until_ready(self) -> None:
        """Wait until the guest takes requests; SessionError where it never does, or where a while
        passes in which its kernel says nothing at all: then it does not run.
        """
        silence = min(self.timeout, max(_SILENT_TIMEOUT, _SILENT_SHARE * self.timeout))
        first = self.deadline - self.timeout + silence
        if self._machine.wait_for("ready", deadline=first) is None:
            if silence < self.timeout and not self._machine.log.strip():
                raise self._timeout_error(
                    f"the guest said nothing within {silence:g} s of power-on"
                )
            if self._machine.wait_for("ready", deadline=self.deadline) is None:
                raise self._timeout_error(f"the guest did not start within {self.timeout:g} s")
        self._machine.output()  # what was said on the way is nobody's answer

    def _timeout_error(self, what: str) -> SessionError:
        """Return the error of a machine that runs and has not come as far as it should."""
        if self._machine.log.strip():
            hint = f"set boot_timeout = {2 * max(1.0, self.timeout):.1f}, or more, for this"
            hint += " target in isobench.toml; where more time does not help: its kernel and memory"
        else:
            hint = (
                "is kernel one for this ISA, machine and cpu, with its serial console built in, and"
                " is memory enough for it? all are set in isobench.toml, and so is boot_timeout"
            )
        return self._machine.failure(what, hint=hint)

    def wait_for_exit(self, deadline: float) -> Completed:
        """Wait for the end of the first request; SessionError where the guest ends before."""
        done = wait_for_exit(self._machine, min(deadline, self.deadline))
        if done.exit_code is None and deadline > self.deadline:
            timeout = f"{self.timeout:g} s"
            raise self._timeout_error(f"nothing came to an end within {timeout} of power-on")
        return done

    def power_off(self, on_phase: Callable[[str], None]) -> None:
        """Ask the guest to power off and see it gone, both as phases."""
        on_phase("shutdown.asked")
        if not self._machine.shut_down(agent_request.NULL):
            raise self._machine.failure("the guest was asked to power off and did not")
        on_phase("process.gone")


def wait_for_exit(machine: Machine, deadline: float) -> Completed:
    """Wait for the end of a request until `deadline` (time.monotonic), and take what was said;
    SessionError where the guest ends before.
    """
    code = machine.wait_for("exit", deadline=deadline)
    if code is not None and _CODE.fullmatch(code) is None:
        raise machine.failure(f"the guest says {code!r} where an exit code belongs")
    out, err = machine.output()
    return Completed(
        exit_code=None if code is None else agent_request.exit_code(int(code)),
        stdout=out,
        stderr=err,
    )
