"""One QEMU process: its command line, its monitor. Which accelerator it uses is decided
elsewhere.
"""

import contextlib
import json
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final

from isobench.model.errors import SessionError
from isobench.targets.machines import _serial
from isobench.targets.shared import processes

PORTS: Final = (*_serial.LINES, "qmp")
"""The serial lines and the monitor."""
_FORWARD: Final = re.compile(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)")
_QUIT: Final = 5.0
_STOPS: Final = {"io-error": "io-error, which is a full disk of the host's as a rule"}
_DRIVERS: Final = (
    "the kernel has no driver for a device of QEMU's: set modules to the folder of its modules"
    ' ("/lib/modules/…") for this target in isobench.toml'
)
_MORE_MEMORY: Final = 'set memory = "512MiB", or more, for this target in isobench.toml'
_HINTS: Final = {
    "O_DIRECT": 'set cache = "writeback" for this target in isobench.toml, or XDG_CACHE_HOME to a'
    " folder on a disk",
    "Cannot allocate memory": 'set memory = "256MiB" for this target in isobench.toml',
    # This register says of which faults the processor is free; KVM-PVM does not let it be set.
    "failed to set MSR 0x10a": 'set cpu = "host,-arch-capabilities" for this target in'
    " isobench.toml",
    "network: No such device": _DRIVERS,
    "/dev/vda: No such file": _DRIVERS,
    "deadlocked on memory": _MORE_MEMORY,
    "Out of memory": _MORE_MEMORY,
    "could not load kernel": "set kernel to an image that boots on this ISA, in isobench.toml",
    "Unable to mount root fs": "the kernel found nothing to start: it needs more memory, or another"
    " initrd or kernel in isobench.toml",
}
"""What to do about something that QEMU or the guest says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """What QEMU is asked to be."""

    emulator: str
    """Path of qemu-system-…"""
    machine: str
    accelerator: str
    cpu: str
    vcpus: int
    memory: int
    """MiB."""
    ports: tuple[str, ...]
    """Arguments for the three serial ports; {log}, {out} and {err} stand for character devices."""
    more: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the guest."""

    path: Path
    format: str = "raw"
    cache: str = "none"
    kept: bool = True
    """False: what is written is forgotten at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What is put into the machine."""

    kernel: Path | None = None
    initrd: Path | None = None
    command_line: str = ""
    disks: tuple[Disk, ...] = ()
    network: bool = True
    halted: bool = False
    """Its CPUs never run: to see whether QEMU starts at all."""
    incoming: int | None = None
    """A descriptor with a saved state, restored instead of booting."""

    def restored_from(self, descriptor: int) -> "Boot":
        """Return the same, restored from a state; its disks stay as they were then."""
        disks = tuple(replace(disk, kept=False) for disk in self.disks)
        return replace(self, incoming=descriptor, disks=disks)


def _escaped(path: Path | str) -> str:
    """Return a path as QEMU's option parser wants it: a comma is doubled."""
    return str(path).replace(",", ",,")


def arguments(hardware: Hardware, boot: Boot, ends: Mapping[str, int]) -> list[str]:
    """Return QEMU's command line; `ends` are its descriptors for PORTS."""
    argv = [hardware.emulator, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    argv += ["-machine", hardware.machine, "-accel", hardware.accelerator]
    argv += ["-cpu", hardware.cpu, "-smp", str(hardware.vcpus), "-m", str(hardware.memory)]
    if boot.kernel is not None:
        argv += ["-kernel", str(boot.kernel), "-append", boot.command_line]
    if boot.initrd is not None:
        argv += ["-initrd", str(boot.initrd)]
    if boot.halted or boot.incoming is not None:
        argv += ["-S"]
    for name in PORTS:
        argv += ["-chardev", f"socket,id={name},fd={ends[name]}"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    argv += hardware.ports
    for number, disk in enumerate(boot.disks):
        drive = f"if=none,id=disk{number},file={_escaped(disk.path)},format={disk.format}"
        keep = "" if disk.kept else ",snapshot=on"
        argv += ["-drive", f"{drive},cache={disk.cache},discard=unmap{keep}"]
        argv += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    if boot.network:
        argv += [
            *("-netdev", "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", "virtio-net-pci,netdev=net0,romfile="),
        ]
    if boot.incoming is not None:
        argv += ["-incoming", f"fd:{boot.incoming}"]
    return [*argv, *hardware.more]


class Machine(_serial.Machine):
    """A running QEMU: a machine that has a monitor beside its serial lines."""

    process_name: ClassVar[str] = "QEMU"
    hints: ClassVar[Mapping[str, str]] = _HINTS

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        on_output: Callable[[bytes], None],
        on_mark: Callable[[str], None],
    ) -> None:
        """Take a started process and our ends of its sockets; `on_output` gets what programs
        print.
        """
        super().__init__(process, sockets, on_output, on_mark)
        self._number = 0
        self._replies: dict[int, Mapping[str, Any]] = {}
        # A machine that is restored says that it is stopped, until it is let run.
        self._expected_stop = True
        self._partial_lines["qmp"] = b""

    # ---- the monitor -----------------------------------------------------------------------------

    def _handle_other(self, name: str, chunk: bytes) -> None:
        """Take what the monitor has said."""
        *lines, self._partial_lines[name] = (self._partial_lines[name] + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if not isinstance(said, dict):
                    continue
                if "id" in said:
                    self._replies[said["id"]] = said
                elif said.get("event") == "STOP" and not self._expected_stop:
                    self._state.stopped = "stopped"
                elif said.get("event") == "RESUME":
                    self._state.stopped = ""
                elif said.get("event") in ("GUEST_PANICKED", "WATCHDOG"):
                    self._state.stopped = said["event"].lower().replace("_", " ")

    def _stop_reason(self) -> str:
        """Say what the monitor says of a guest that nobody has stopped."""
        status = self._status()
        return f"QEMU has stopped the guest: {_STOPS.get(status, status)}"

    def _status(self) -> str:
        answer = None
        if self.process.poll() is None:
            answer = self._exchange("query-status", {}, timeout=2.0, descriptor=None)
        return str((answer or {}).get("return", {}).get("status", self._state.stopped))

    def command(
        self,
        name: str,
        options: Mapping[str, object] | None = None,
        *,
        timeout: float = 30.0,
        descriptor: int | None = None,
    ) -> Mapping[str, Any]:
        """Ask the monitor, return its answer; SessionError when it refuses or is gone.

        With `descriptor` a file goes along ("getfd").
        """
        reply = self._exchange(name, options or {}, timeout=timeout, descriptor=descriptor)
        if reply is None:
            raise self.failure(f"QEMU's monitor does not answer ({name})")
        if "error" in reply:
            raise SessionError(f"QEMU refuses {name}: {reply['error'].get('desc')}")
        answer = reply.get("return")
        return answer if isinstance(answer, dict) else {"text": answer}

    def _exchange(
        self,
        name: str,
        options: Mapping[str, object],
        *,
        timeout: float,
        descriptor: int | None,
    ) -> Mapping[str, Any] | None:
        """Ask the monitor; None where no answer comes."""
        with self._changed:
            self._number += 1
            number = self._number
            message = {"execute": name, "id": number, "arguments": options}
            line = json.dumps(message).encode() + b"\n"
            try:
                if descriptor is None:
                    self._sockets["qmp"].sendall(line)
                else:
                    socket.send_fds(self._sockets["qmp"], [line], [descriptor])
            except OSError:
                self._changed.wait_for(lambda: self._state.ended, 2.0)
                return None
            self._changed.wait_for(lambda: number in self._replies or self._state.ended, timeout)
            return self._replies.pop(number, None)

    def negotiate(self, *, running: bool = True) -> None:
        """Open the monitor; from now on a guest that should be `running` and stops is a fault."""
        self._expected_stop = not running
        self.command("qmp_capabilities")

    def port(self) -> int:
        """Return the loopback port that leads to the guest's SSH server."""
        said = self.command("human-monitor-command", {"command-line": "info usernet"})
        found = _FORWARD.search(str(said.get("text")))
        if found is None:
            raise SessionError("QEMU forwards no port to the guest")
        return int(found.group(1))

    def save(self, path: Path, *, timeout: float) -> None:
        """Stop the guest and write its whole state into a file; the machine ends."""
        deadline = time.monotonic() + timeout
        self._expected_stop = True
        self.command("stop")
        with path.open("wb") as file:
            self.command("getfd", {"fdname": "state"}, descriptor=file.fileno())
            # Its default limit is for networks; this goes to a file.
            self.command("migrate-set-parameters", {"max-bandwidth": 1 << 40})
            self.command("migrate", {"uri": "fd:state"})
        while True:
            status = self.command("query-migrate").get("status")
            if status == "completed":
                break
            if status in ("failed", "cancelled") or time.monotonic() > deadline:
                raise self.failure(f"the guest's state could not be saved: {status}")
            time.sleep(0.02)
        self.command("quit")
        self.wait_for_end(_QUIT)

    def wait_for_state(self, *, deadline: float) -> None:
        """Wait until a saved state has been read."""
        while (status := self.command("query-status").get("status")) == "inmigrate":
            if time.monotonic() > deadline:
                raise self.failure("the saved state was not read in time")
            time.sleep(0.002)
        if status not in ("paused", "prelaunch"):
            raise self.failure(f"the saved state could not be restored: {status}")

    def resume(self) -> None:
        """Let a restored guest run."""
        self._expected_stop = False
        self.command("cont")


@contextlib.contextmanager
def started(
    hardware: Hardware,
    boot: Boot,
    *,
    launcher: Path | None = None,
    on_output: Callable[[bytes], None] = lambda _: None,
    on_mark: Callable[[str], None] = lambda _: None,
) -> Iterator[Machine]:
    """Start QEMU and end it at the end.

    With `launcher` (workloads/_launch) it dies with this thread, whatever that dies of.
    """
    with contextlib.ExitStack() as stack:
        ours: dict[str, socket.socket] = {}
        theirs: dict[str, int] = {}
        with contextlib.ExitStack() as passing:
            for name in PORTS:
                mine, other = socket.socketpair()
                ours[name] = stack.enter_context(mine)
                theirs[name] = passing.enter_context(other).fileno()
            descriptors: Sequence[int] = [*theirs.values()]
            if boot.incoming is not None:
                descriptors = [*descriptors, boot.incoming]
            tie = [str(launcher), "tie"] if launcher else []
            try:
                process = processes.start(
                    [*tie, *arguments(hardware, boot, theirs)],
                    env={"PATH": os.environ.get("PATH", ""), **processes.tied()},
                    stdout=subprocess.DEVNULL,
                    descriptors=descriptors,
                )
            except OSError as error:
                raise SessionError(f"QEMU cannot be executed: {error}") from None
        machine = Machine(process, ours, on_output, on_mark)
        stack.callback(machine.close)
        machine.listen()
        yield machine
