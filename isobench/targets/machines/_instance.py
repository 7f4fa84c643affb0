"""Instances of virtual machines: a booted one, a session in it over SSH, and a restored one."""

import contextlib
import functools
import hashlib
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final

from isobench.evidence import cpu_share
from isobench.model import Command, Evidence, Fact, Stage
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.machines import _guest, _qemu, _serial, _ssh
from isobench.targets.shared import agent_request, processes

SCRATCH: Final = "/scratch"
_LOGIN_TIMEOUT: Final = 60.0
_END_TIMEOUT: Final = 1.0
"""Seconds to wait for the end of a machine whose connection has broken."""
_SECCOMP: Final = {"0": "off", "1": "strict", "2": "filter"}
_SETTINGS: Final = (
    "check kernel, initrd, modules, memory, vcpus, machine, cpu, append and arguments of this"
    " target in isobench.toml; its console is in logs/ in the folder of the run"
)


@functools.cache
def _sha256(path: Path | None) -> str | None:
    """Return the hash of a file. It is computed once: the file does not change during a run."""
    if path is None:
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def request(command: Command) -> bytes:
    """Return the request that executes a program of the stage in a guest (`agent_request`)."""
    words = [f"{Stage.INSIDE}/{command.argv[0]}", *command.argv[1:]]
    return agent_request.framed(words, command.environ(SCRATCH))


def _ignore(_: str) -> None:
    """Ignore a mark."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Everything that a machine is started from."""

    hardware: _qemu.Hardware
    boot: _qemu.Boot
    key: _ssh.Key
    host_key: _ssh.Key
    timeout: float
    """Seconds within which the guest must have started."""
    packages: tuple[str, ...]


class Booted(_serial.Booted):
    """A machine that has been powered on, reached over SSH as well."""

    def __init__(self, machine: _qemu.Machine, parts: Parts) -> None:
        """Take a machine that has just been started."""
        super().__init__(machine, parts.timeout)
        self.machine, self.parts = machine, parts

    @contextlib.contextmanager
    def explain_errors(self) -> Iterator[None]:
        """Add why the machine ended, and the end of its console, to an error of the connection."""
        try:
            yield
        except SessionError as error:
            why = self.machine.failure_reason(timeout=_END_TIMEOUT)
            what = str(error) if why in str(error) else f"{error}: {why}"
            raise SessionError(
                f"{what}; {self.machine.console_tail()}",
                hint=error.hint,
                log=self.machine.console_log,
            ) from None

    def banner(self) -> socket.socket:
        """Return a TCP connection on which the guest's SSH server has sent its banner."""
        left = max(1.0, self.deadline - time.monotonic())
        port = self.machine.port()
        with self.explain_errors():
            return _ssh.banner(
                ("127.0.0.1", port), timeout=left, failure_reason=self.machine.failure_reason
            )

    def connected(self) -> _ssh.Connection:
        """Log in. isobench made the guest's host key, and accepts no other."""
        link = self.banner()
        with self.explain_errors():
            return _ssh.connect_pinned(
                link,
                user=_guest.USER,
                key=self.parts.key,
                host_key=self.parts.host_key,
                command=f"exec {Stage.INSIDE}/_agent once",
                timeout=_LOGIN_TIMEOUT,
                failure_reason=self.machine.failure_reason,
            )


# A start-up is timed up to the nonce on the serial line. SSH would add tens of milliseconds of its
# own, or seconds under emulation; it is reported as a phase.


@contextlib.contextmanager
def powered_on(stage: Stage, parts: Parts, listener: Command) -> Iterator[Booted]:
    """Start a machine. A start-up time begins when QEMU is executed."""
    listener.on_phase(BEGIN)
    with _started(stage, parts, listener) as machine:
        try:
            # A restored machine is negotiated with by `Saved.start`: it must not run yet.
            if parts.boot.incoming is None:
                machine.negotiate()
            yield Booted(machine, parts)
        except SessionError as error:
            error.hint = error.hint or _SETTINGS
            raise


def _started(
    stage: Stage, parts: Parts, listener: Command
) -> contextlib.AbstractContextManager[_qemu.Machine]:
    return _qemu.started(
        parts.hardware,
        parts.boot,
        launcher=stage.tools["_launch"],
        on_output=listener.on_output,
        # A restored guest printed its first output before it was saved: it is no phase.
        on_mark=_serial.phase_marks(listener) if parts.boot.incoming is None else _ignore,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The saved state of a guest that has started and waits for a request.

    It can be restored any number of times.
    """

    stage: Stage
    parts: Parts
    state: Path
    command: Command

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Restore the state in a new QEMU, have the guest execute the request, end QEMU."""
        deadline = time.monotonic() + timeout / SECOND
        with self.state.open("rb") as file:
            boot = self.parts.boot.restored_from(file.fileno())
            parts = replace(self.parts, boot=boot)
            with powered_on(self.stage, parts, self.command) as booted:
                machine = booted.machine
                machine.negotiate(running=False)
                # The CPUs are halted (-S) until the state is read: this phase ends before they run.
                machine.wait_for_state(deadline=deadline)
                self.command.on_phase("state.restored")
                machine.resume()
                # The guest waits for this request since before it was saved, so that nothing of
                # its start is repeated. Measured under TCG: 1 s in place of 7 s for a boot.
                machine.send(request(self.command))
                return booted.wait_for_exit(deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A guest reached over one SSH connection."""

    booted: Booted
    connection: _ssh.Connection
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute a program by the guest's agent."""
        with self.booted.explain_errors():
            return self.connection.run(
                request(command),
                timeout=timeout,
                on_output=command.on_output,
                on_stdin=command.on_stdin,
            )

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Open a channel and execute the agent without a program: the cost of the channel."""
        with self.booted.explain_errors():
            return self.connection.run(
                agent_request.NULL, timeout=timeout, on_output=lambda _: None
            )

    def witness(self) -> Iterable[Evidence]:
        """Yield facts about this machine from the monitor and from the host."""
        machine, parts = self.booted.machine, self.booted.parts
        hardware = parts.hardware
        # From the monitor, not from the command line: QEMU may fall back to another accelerator.
        enabled = bool(machine.command("query-kvm").get("enabled"))
        status = processes.status_of(machine.process.pid)
        facts: Mapping[str, tuple[Fact, str]] = {
            "host.accelerator": ("kvm" if enabled else "tcg", "QMP query-kvm"),
            "host.machine": (hardware.machine, "-machine"),
            "host.cpu_model": (hardware.cpu, "-cpu"),
            "host.vcpus": (hardware.vcpus, "-smp"),
            "host.memory_mib": (hardware.memory, "-m"),
            "host.disk_cache": (parts.boot.disks[-1].cache, "-drive cache"),
            "host.command_line": (parts.boot.command_line, "-append"),
            "host.kernel": (str(parts.boot.kernel), "-kernel"),
            "host.kernel_sha256": (_sha256(parts.boot.kernel), "-kernel"),
            "host.guest": ("; ".join(parts.packages), "packages"),
            "host.machine.user": (status.get("Uid", "?").split()[0], "/proc/PID/status Uid"),
            "host.machine.seccomp": (_SECCOMP.get(status.get("Seccomp", "")), "/proc/PID/status"),
            # Linux before 5.16 slows processes with a filter down by this mitigation.
            "host.machine.store_bypass": (
                status.get("Speculation_Store_Bypass"),
                "/proc/PID/status",
            ),
            "host.machine.confinement": (" ".join(hardware.confinement) or "none", "command line"),
            "host.resident_kib": (processes.proportional_kib(machine.process.pid), "smaps_rollup"),
        }
        for key, (value, source) in facts.items():
            yield Evidence(key=key, value=value, source=source)
        yield from cpu_share.evidence(machine.process.pid)
        if hardware.more:
            yield Evidence(key="host.arguments", value=" ".join(hardware.more), source="arguments")
