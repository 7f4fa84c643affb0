"""Talk to isobench's agent, the first process of an open instance (workloads/_agent/payload.c)."""

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final

from isobench.evidence import cpu_share
from isobench.model import Command, Evidence, Stage
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins.api import Completed
from isobench.targets.shared import agent_request, processes

_NUMBER: Final = struct.Struct("<i")


def _exit_code(status: int) -> int:
    """Return the exit code, or minus the signal, that a wait status (wait(2)) holds.

    SessionError: the agent could not start the program, and has sent minus errno.
    """
    if status < 0:
        raise SessionError(f"the instance could not start a process: {os.strerror(-status)}")
    return os.waitstatus_to_exitcode(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The paths inside an instance at which it sees the stage's files."""

    programs: str = Stage.INSIDE
    scratch: str = "/scratch"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Environment variables in addition to the command's."""


class AgentSession:
    """An open instance whose first process executes the requests that it receives."""

    interactive: ClassVar[bool] = True

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        view: "View",
    ) -> None:
        """Take the launched process, isobench's end of its socket, and the instance's paths."""
        self._process, self._control, self._view = process, control, view

    @property
    def pid(self) -> int:
        """The host's number of the launcher's process."""
        return self._process.pid

    def witness(self) -> Iterator[Evidence]:
        """Yield which share of the CPU the instance gets."""
        return cpu_share.evidence(self.pid)

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute a command in the instance and return its streams and exit code.

        At the time limit the whole instance is killed. SessionError: the instance has ended, or
        could not start the program.
        """
        # The payload writes into pipes of the host: the agent relays nothing, so that it adds no
        # time to what is measured.
        deadline = time.monotonic() + timeout / SECOND
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        listener = processes.Listener(out_read, err_read, command.on_output)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, err_read)
            stack.callback(os.close, out_read)
            stack.callback(listener.close)
            try:
                with _standard_input(command, stack) as stdin:
                    self._send(command, (out_write, err_write, *stdin))
            finally:
                # With the write ends open here, the streams would never end.
                os.close(out_write)
                os.close(err_write)
            status = self._answer(deadline) if listener.listen(deadline) else None
            if status is None:
                # The kernel kills a PID namespace with its first process: pid_namespaces(7).
                processes.end(self._process)
                # Output that was written before the kill is still in the pipes.
                listener.listen(time.monotonic() + 5)
            stdout, stderr = listener.output
        code = None if status is None else _exit_code(status)
        return Completed(exit_code=code, stdout=stdout, stderr=stderr)

    def _send(self, command: Command, streams: Sequence[int]) -> None:
        path = f"{self._view.programs}/{command.argv[0]}"
        environment = command.environ(self._view.scratch) | dict(self._view.variables)
        message = agent_request.message([path, *command.argv[1:]], environment)
        try:
            socket.send_fds(self._control, [message], streams)
        except OSError as error:
            raise SessionError(f"the instance is gone: {self.launcher_error() or error}") from None

    def _answer(self, deadline: float) -> int | None:
        # settimeout(0) would make the socket non-blocking instead of expiring at once.
        self._control.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            answer = self._control.recv(_NUMBER.size)
        except TimeoutError:
            return None
        except OSError as error:
            raise SessionError(f"the instance is gone: {self.launcher_error() or error}") from None
        if len(answer) != _NUMBER.size:  # empty: the agent has closed its end
            raise SessionError(f"the instance is gone: {self.launcher_error()}")
        return int(_NUMBER.unpack(answer)[0])

    def launcher_error(self) -> str:
        """Return the last line of the launcher's standard error; empty while it still runs."""
        # The socket closes when the instance ends, a moment before the launcher has ended: the
        # launcher then still has to write its reason.
        stream = self._process.stderr
        if not processes.has_ended(self._process, within=2) or stream is None:
            return ""
        # What it has left behind may hold the stream open, also outside of its group.
        processes.end(self._process)
        os.set_blocking(stream.fileno(), False)
        return processes.last_line(stream.read() or b"")


@contextlib.contextmanager
def _standard_input(command: Command, stack: contextlib.ExitStack) -> Iterator[Sequence[int]]:
    """Yield the descriptor that a program reads its standard input from; none if that is empty.

    The stack closes this side of it.
    """
    if command.on_stdin is None:
        yield ()
        return
    theirs, ours = os.pipe()
    try:
        command.on_stdin(processes.writer(stack.enter_context(os.fdopen(ours, "wb", buffering=0))))
        yield (theirs,)
    finally:
        os.close(theirs)


INSIDE: Final = View()
"""The view of an instance whose root directory is the stage's."""


@contextlib.contextmanager
def opened(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    view: View = INSIDE,
) -> Iterator[AgentSession]:
    """Start `argv`, whose last words must be the agent and `serve`, and yield its session.

    Leaving the context ends the launched process, and with it the PID namespace that it made.
    OSError: `argv` cannot be executed.
    """
    # SEQPACKET keeps the boundaries of messages, and a Unix socket passes the descriptors of the
    # payload's streams: unix(7).
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        with theirs:
            process = processes.start(
                argv, env=environment, stdin=theirs.fileno(), stdout=subprocess.DEVNULL
            )
        try:
            yield AgentSession(process, ours, view)
        finally:
            ours.close()
            # The agent exits when its socket closes, and its launcher with it.
            processes.has_ended(process, within=2)
            processes.end(process)
            if process.stderr is not None:
                process.stderr.close()
