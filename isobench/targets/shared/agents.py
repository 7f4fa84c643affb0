"""Talk to isobench's own first process in an open instance (workloads/_agent/payload.c)."""

import contextlib
import os
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from isobench.model import Command, Stage
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins.api import Completed
from isobench.targets.shared import agent_request, processes

_NUMBER: Final = struct.Struct("<i")


def _exit_code(status: int) -> int:
    """Return an exit code, or minus the signal, from a wait status; minus errno is refused."""
    if status < 0:
        raise SessionError(f"the instance could not start a process: {os.strerror(-status)}")
    return os.waitstatus_to_exitcode(status)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Where an instance sees what the stage holds."""

    programs: str = Stage.INSIDE
    scratch: str = "/scratch"
    variables: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the command's."""


class AgentSession:
    """One instance whose first process executes what it is sent."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        control: socket.socket,
        view: "View",
    ) -> None:
        """Take the launched process, our end of its socket, and what the instance sees."""
        self._process, self._control, self._view = process, control, view

    @property
    def pid(self) -> int:
        """The launcher's process on the host."""
        return self._process.pid

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Send a request with two pipes, listen to them, take the answer."""
        deadline = time.monotonic() + timeout / SECOND
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        listener = processes.Listener(out_read, err_read, command.on_output)
        try:
            try:
                self._send(command, (out_write, err_write))
            finally:
                os.close(out_write)
                os.close(err_write)
            status = self._answer(deadline) if listener.listen(deadline) else None
            if status is None:
                processes.end(self._process)  # its PID namespace dies with it
                listener.listen(time.monotonic() + 5)
            stdout, stderr = listener.output
        finally:
            listener.close()
            os.close(out_read)
            os.close(err_read)
        code = None if status is None else _exit_code(status)
        return Completed(exit_code=code, stdout=stdout, stderr=stderr)

    def _send(self, command: Command, streams: tuple[int, int]) -> None:
        path = f"{self._view.programs}/{command.argv[0]}"
        environment = command.environ(self._view.scratch) | dict(self._view.variables)
        message = agent_request.message([path, *command.argv[1:]], environment)
        try:
            socket.send_fds(self._control, [message], streams)
        except OSError as error:
            raise SessionError(f"the instance is gone: {self.launcher_error() or error}") from None

    def _answer(self, deadline: float) -> int | None:
        self._control.settimeout(max(0.001, deadline - time.monotonic()))
        try:
            answer = self._control.recv(_NUMBER.size)
        except TimeoutError:
            return None
        except OSError as error:
            raise SessionError(f"the instance is gone: {self.launcher_error() or error}") from None
        if len(answer) != _NUMBER.size:
            raise SessionError(f"the instance is gone: {self.launcher_error()}")
        return int(_NUMBER.unpack(answer)[0])

    def launcher_error(self) -> str:
        """Return what the launcher said when it gave up."""
        # Its end of the socket closes a moment before the process itself has ended.
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        stream = self._process.stderr
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1)  # what it launched goes first, and it has yet to say why
        if stream is None or self._process.poll() is None:
            return ""
        return processes.last_line(stream.read() or b"")


INSIDE: Final = View()
"""What an instance sees whose root directory is the stage's."""


@contextlib.contextmanager
def opened(
    argv: Sequence[str | Path],
    *,
    environment: Mapping[str, str],
    view: View = INSIDE,
) -> Iterator[AgentSession]:
    """Start `argv`, which must end in the agent's `serve`, and yield the session with it.

    Leaving the context ends the launched process, and with it the PID namespace it made.
    """
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
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(2)  # the agent leaves by itself when its socket closes
            processes.end(process)
            if process.stderr is not None:
                process.stderr.close()
