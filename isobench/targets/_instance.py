"""Instances of virtual machines: one that has been powered on, a session in it over SSH, and one
that is restored from a saved state.
"""

import contextlib
import functools
import re
import socket
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isobench.errors import SessionError
from isobench.model import Evidence, Fact, Stage
from isobench.plugin import BEGIN, Completed
from isobench.targets import _guest, _process, _qemu, _request, _ssh
from isobench.units import SECOND, Nanoseconds

SCRATCH: Final = "/scratch"
_PHASES: Final = ("guest.output", "init")
"""What a guest says of itself that is a phase of its start."""
_LOGIN: Final = 60.0
_AFTERMATH: Final = 1.0
"""Seconds that a machine whose connection has broken gets to be seen ending."""
_SETTINGS: Final = (
    "kernel, modules, memory, machine, cpu, append and arguments of this target in isobench.toml"
    " say what is started; its console is in logs/ in the folder of the run"
)
_CODE: Final = re.compile(r"\d{1,3}", re.ASCII)


def request(stage: Stage, argv: Sequence[str]) -> bytes:
    """Return the request to execute a program of the stage in a guest."""
    path = f"{Stage.INSIDE}/{argv[0]}"
    return _request.framed([path, *argv[1:]], stage.environ(SCRATCH))


def _nothing(_: str) -> None:
    """Forward nothing."""


def _forward(stage: Stage, said: str) -> None:
    if said in _PHASES:
        stage.mark(said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """All that a machine is started from."""

    hardware: _qemu.Hardware
    boot: _qemu.Boot
    key: _ssh.Key
    host_key: _ssh.Key
    patience: float
    """Seconds within which it must have started."""
    packages: tuple[str, ...]


class Booted:
    """A machine that has been powered on."""

    def __init__(self, machine: _qemu.Machine, parts: Parts) -> None:
        """Take a machine that has just been started."""
        self.machine, self.parts = machine, parts
        self.deadline = time.monotonic() + parts.patience

    def until_ready(self) -> None:
        """Wait until the guest takes requests; SessionError where it never does."""
        if self.machine.wait_for("ready", deadline=self.deadline) is None:
            raise self._too_late(f"the guest did not start within {self.parts.patience:g} s")
        self.machine.output()  # what was said on the way is nobody's answer

    def _too_late(self, what: str) -> SessionError:
        """Return the error of a machine that runs and has not come as far as it should."""
        if self.machine.log.strip():
            hint = f"set boot_timeout = {2 * max(1.0, self.parts.patience):.1f}, or more, for this"
            hint += " target in isobench.toml; where more time does not help: its kernel and memory"
        else:
            hint = (
                "is kernel one for this ISA and machine, with its serial console built in, and is"
                " memory enough for it? both are set in isobench.toml, and so is boot_timeout"
            )
        return self.machine.fault(what, hint=hint)

    def ended(self, deadline: float) -> Completed:
        """Wait for the end of a request; SessionError where the guest ends before."""
        code = self.machine.wait_for("exit", deadline=min(deadline, self.deadline))
        if code is None and deadline > self.deadline:
            patience = f"{self.parts.patience:g} s"
            raise self._too_late(f"nothing came to an end within {patience} of power-on")
        if code is not None and _CODE.fullmatch(code) is None:
            raise self.machine.fault(f"the guest says {code!r} where an exit code belongs")
        out, err = self.machine.output()
        return Completed(
            exit_code=None if code is None else _request.exit_code(int(code)),
            stdout=out,
            stderr=err,
        )

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Add to an error of the connection why the machine ended, and what its console said."""
        try:
            yield
        except SessionError as error:
            why = self.machine.why(patience=_AFTERMATH)
            said = str(error) if why in str(error) else f"{error}: {why}"
            raise SessionError(
                f"{said}; {self.machine.last_words()}",
                hint=error.hint,
                log=self.machine.transcript,
            ) from None

    def banner(self) -> socket.socket:
        """Return a link on which the guest's SSH server has answered."""
        left = max(1.0, self.deadline - time.monotonic())
        port = self.machine.port()
        with self.explained():
            return _ssh.banner(("127.0.0.1", port), timeout=left, why_lost=self.machine.why)

    def connected(self) -> _ssh.Connection:
        """Log in; the guest's host key is known, since isobench made it."""
        link = self.banner()
        with self.explained():
            return _ssh.connect_pinned(
                link,
                user=_guest.USER,
                key=self.parts.key,
                host_key=self.parts.host_key,
                command=f"exec {Stage.INSIDE}/_agent once",
                timeout=_LOGIN,
                why_lost=self.machine.why,
            )

    def switch_off(self, stage: Stage) -> None:
        """Ask the guest to power off and see it gone, both as phases."""
        stage.mark("shutdown.asked")
        if not _qemu.shut_down(self.machine, _request.NULL):
            raise self.machine.fault("the guest was asked to power off and did not")
        stage.mark("process.gone")


@contextlib.contextmanager
def powered_on(stage: Stage, parts: Parts) -> Iterator[Booted]:
    """Start a machine; the clock of a start-up begins with QEMU's execution."""
    stage.mark(BEGIN)
    with _started(stage, parts) as machine:
        try:
            if parts.boot.incoming is None:
                machine.negotiate()
            yield Booted(machine, parts)
        except SessionError as error:
            error.hint = error.hint or _SETTINGS
            raise


def _started(stage: Stage, parts: Parts) -> contextlib.AbstractContextManager[_qemu.Machine]:
    return _qemu.started(
        parts.hardware,
        parts.boot,
        launcher=stage.tools["_launch"],
        heard=stage.heard,
        # A restored guest has said its first word before it was saved.
        mark=functools.partial(_forward, stage) if parts.boot.incoming is None else _nothing,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The state of a guest that has started and waits for a request; it can be restored again and
    again.
    """

    stage: Stage
    parts: Parts
    state: Path
    request: bytes

    def start(self, *, timeout: Nanoseconds) -> Completed:
        """Restore the state in a new QEMU, let it execute the request, end it."""
        deadline = time.monotonic() + timeout / SECOND
        with self.state.open("rb") as file:
            boot = self.parts.boot.restored_from(file.fileno())
            with powered_on(self.stage, replace(self.parts, boot=boot)) as booted:
                machine = booted.machine
                machine.negotiate(running=False)
                machine.wait_for_state(deadline=deadline)
                self.stage.mark("state.restored")
                machine.resume()
                machine.send(self.request)
                return booted.ended(deadline)


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """A guest reached over one SSH connection."""

    booted: Booted
    connection: _ssh.Connection
    stage: Stage

    def run(self, argv: Sequence[str], *, timeout: Nanoseconds) -> Completed:
        """Have the guest's agent execute a program."""
        message = request(self.stage, argv)
        with self.booted.explained():
            return self.connection.run(message, timeout=timeout, heard=self.stage.heard)

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Open a channel, execute the agent, ask for nothing."""
        with self.booted.explained():
            return self.connection.run(_request.NULL, timeout=timeout, heard=lambda _: None)

    def witness(self) -> Iterable[Evidence]:
        """Yield what the monitor and the host say of this machine."""
        machine, parts = self.booted.machine, self.booted.parts
        hardware = parts.hardware
        enabled = bool(machine.command("query-kvm").get("enabled"))
        said: Mapping[str, tuple[Fact, str]] = {
            "host.accelerator": ("kvm" if enabled else "tcg", "QMP query-kvm"),
            "host.machine": (hardware.machine, "-machine"),
            "host.cpu_model": (hardware.cpu, "-cpu"),
            "host.vcpus": (hardware.vcpus, "-smp"),
            "host.memory_mib": (hardware.memory, "-m"),
            "host.disk_cache": (parts.boot.disks[-1].cache, "-drive cache"),
            "host.command_line": (parts.boot.command_line, "-append"),
            "host.guest": ("; ".join(parts.packages), "packages"),
            "host.resident_kib": (_process.proportional_kib(machine.process.pid), "smaps_rollup"),
        }
        for key, (value, source) in said.items():
            yield Evidence(key=key, value=value, source=source)
