"""One QEMU process: its command line and its monitor.

Sources: qemu(1); the QEMU Machine Protocol reference (qemu-qmp-ref(7)).
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

import msgspec

from isobench.model.errors import SessionError
from isobench.plugins import deadlines
from isobench.targets.machines import _serial
from isobench.targets.shared import processes

PORTS: Final = (*_serial.LINES, "qmp")
"""Names of the serial lines and of the monitor."""
_FORWARD: Final = re.compile(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)")
_QUIT: Final = 5.0
# QEMU stops the guest if the disk of the host is full (werror=enospc, the default of -drive).
_STOPS: Final = {"io-error": "io-error, in most cases a full disk of the host"}
_DRIVERS: Final = (
    "the kernel has no driver for a device of QEMU: set modules to the folder of its modules"
    ' ("/lib/modules/…") for this target in isobench.toml'
)
_MORE_MEMORY: Final = 'set memory = "512MiB", or more, for this target in isobench.toml'
_HINTS: Final = {
    "O_DIRECT": 'set cache = "writeback" for this target in isobench.toml, or XDG_CACHE_HOME to a'
    " folder on a disk",
    "Cannot allocate memory": 'set memory = "256MiB" for this target in isobench.toml',
    # MSR 0x10a (IA32_ARCH_CAPABILITIES) lists the faults that a processor does not have. KVM-PVM
    # does not allow a virtual machine monitor to set it.
    "failed to set MSR 0x10a": 'set cpu = "host,-arch-capabilities" for this target in'
    " isobench.toml",
    "network: No such device": _DRIVERS,
    "/dev/vda: No such file": _DRIVERS,
    "deadlocked on memory": _MORE_MEMORY,
    "Out of memory": _MORE_MEMORY,
    "could not load kernel": "set kernel to an image that boots on this ISA, in isobench.toml",
    "Unable to mount root fs": "the kernel found no first process: set more memory, or another"
    " initrd or kernel, in isobench.toml",
}
"""A fragment of a message of QEMU or of the guest -> what to do about it."""


_LONGEST_LINE: Final = 1 << 20
"""Bytes of a line of the monitor. What is beyond is dropped, and with it the line."""
_NOBODY: Final = 65534
_SANDBOX: Final = "on,obsolete=deny,elevateprivileges={},spawn=deny,resourcecontrol=deny"


def confinements(more: Sequence[str] = ()) -> tuple[tuple[str, ...], ...]:
    """Return arguments that take rights from QEMU, those that take most first; the last take none.

    A guest that breaks out of its machine has the rights of QEMU. `more` are the user's arguments,
    whose -sandbox counts.
    """
    own = any(word.lstrip("-") == "sandbox" for word in more)
    if os.geteuid() != 0:
        return _distinct([() if own else ("-sandbox", _SANDBOX.format("deny")), ()])
    # QEMU opens its files and /dev/kvm as root and then becomes nobody. It sets the filter before
    # that, so that elevateprivileges=deny would kill it there (7.2: "Bad system call"). It does not
    # need it: nobody cannot elevate privileges by these calls, and each filter sets no-new-privs.
    # Started as nobody it could not open files below a private folder such as /root.
    sandbox = () if own else ("-sandbox", _SANDBOX.format("allow"))
    user = f"{_NOBODY}:{_NOBODY}"
    # The second replaces the first since QEMU 9.1.
    users = (("-runas", user), ("-run-with", f"user={user}"))
    full = [(*sandbox, *one) for one in users]
    return _distinct([*full, *users, sandbox, ()])


def _distinct(found: Sequence[tuple[str, ...]]) -> tuple[tuple[str, ...], ...]:
    return tuple(dict.fromkeys(found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Hardware:
    """The virtual hardware."""

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
    confinement: tuple[str, ...] = ()
    """Arguments that take rights from QEMU, one of `confinements`."""

    @property
    def changes_user(self) -> bool:
        """Whether QEMU becomes another user after it has started."""
        return not {"-runas", "-run-with"}.isdisjoint(self.confinement)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """A disk of the guest."""

    path: Path
    format: str = "raw"
    cache: str = "none"
    persistent: bool = True
    """False: QEMU keeps writes in a temporary file and discards them at the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Boot:
    """What the machine boots, and its disks."""

    kernel: Path | None = None
    initrd: Path | None = None
    command_line: str = ""
    disks: tuple[Disk, ...] = ()
    network: bool = True
    halted: bool = False
    """The CPUs never run: this only tries whether QEMU starts."""
    incoming: int | None = None
    """A descriptor of a saved state, which is restored in place of booting."""

    def restored_from(self, descriptor: int) -> "Boot":
        """Return the same, restored from a state.

        Its disks are not written to: the state must still match them at the next restoration.
        """
        disks = tuple(replace(disk, persistent=False) for disk in self.disks)
        return replace(self, incoming=descriptor, disks=disks)


def _escaped(path: Path | str) -> str:
    """Return a path for a comma-separated option of QEMU: a comma in it is doubled (qemu(1))."""
    return str(path).replace(",", ",,")


def arguments(hardware: Hardware, boot: Boot, ends: Mapping[str, int]) -> list[str]:
    """Return QEMU's command line; `ends` are the descriptors that it inherits for PORTS."""
    # -no-reboot turns a panic (panic=-1 reboots) into the end of QEMU. It then exits with 0, as
    # after a regular power-off: only the console shows the difference.
    argv = [hardware.emulator, "-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"]
    argv += ["-machine", hardware.machine, "-accel", hardware.accelerator]
    argv += ["-cpu", hardware.cpu, "-smp", str(hardware.vcpus), "-m", str(hardware.memory)]
    if boot.kernel is not None:
        argv += ["-kernel", str(boot.kernel), "-append", boot.command_line]
    if boot.initrd is not None:
        argv += ["-initrd", str(boot.initrd)]
    if boot.halted or boot.incoming is not None:
        argv += ["-S"]  # the CPUs wait for "cont"
    # Inherited sockets leave no path behind, and nobody else can connect to the monitor.
    for name in PORTS:
        argv += ["-chardev", f"socket,id={name},fd={ends[name]}"]
    argv += ["-mon", "chardev=qmp,mode=control"]
    argv += hardware.ports
    for number, disk in enumerate(boot.disks):
        drive = f"if=none,id=disk{number},file={_escaped(disk.path)},format={disk.format}"
        discard = "" if disk.persistent else ",snapshot=on"
        argv += ["-drive", f"{drive},cache={disk.cache},discard=unmap{discard}"]
        argv += ["-device", f"virtio-blk-pci,drive=disk{number}"]
    if boot.network:
        argv += [
            # restrict=on: the guest reaches neither the host nor the network. Port 0: QEMU picks a
            # free one, which `Machine.port` reads back. An empty romfile: QEMU loads the kernel
            # itself, and needs no ROM for a network boot.
            *("-netdev", "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:0-:22"),
            *("-device", "virtio-net-pci,netdev=net0,romfile="),
        ]
    if boot.incoming is not None:
        argv += ["-incoming", f"fd:{boot.incoming}"]
    return [*argv, *hardware.confinement, *hardware.more]


class _Error(msgspec.Struct):
    desc: str = ""


class _Message(msgspec.Struct):
    """A line of the monitor. A guest that breaks out of its machine can send any."""

    id: int | None = None
    event: str = ""
    result: Any = msgspec.field(name="return", default=None)
    error: _Error | None = None


class _Version(msgspec.Struct):
    major: int
    minor: int
    micro: int


class _Versions(msgspec.Struct):
    qemu: _Version


class Machine(_serial.Machine):
    """A running QEMU: a machine with a monitor in addition to its serial lines."""

    process_name: ClassVar[str] = "QEMU"
    hints: ClassVar[Mapping[str, str]] = _HINTS

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        on_output: Callable[[bytes], None],
        on_mark: Callable[[str], None],
    ) -> None:
        """Take a started process and this side of its sockets (`_serial.Machine`)."""
        super().__init__(process, sockets, on_output, on_mark)
        self._number = 0
        self._replies: dict[int, _Message | None] = {}
        """By the number of each command that waits for its reply."""
        # Until `negotiate`: a restored machine sends STOP events before it runs.
        self._expected_stop = True
        self._partial_lines["qmp"] = b""

    # ---- the monitor -----------------------------------------------------------------------------

    def _handle_other(self, name: str, chunk: bytes) -> None:
        """Handle replies and events of the monitor."""
        *lines, partial = (self._partial_lines[name] + chunk).split(b"\n")
        self._partial_lines[name] = partial[:_LONGEST_LINE]
        for line in lines:
            try:
                message = msgspec.json.decode(line, type=_Message)
            except (msgspec.DecodeError, RecursionError):
                continue
            if message.id is not None and message.id in self._replies:
                self._replies[message.id] = message
            elif message.event == "STOP" and not self._expected_stop:
                self._state.stopped = "stopped"
            elif message.event == "RESUME":
                self._state.stopped = ""
            elif message.event in ("GUEST_PANICKED", "WATCHDOG"):
                self._state.stopped = message.event.lower().replace("_", " ")

    def _stop_reason(self) -> str:
        """Return why QEMU has stopped the guest, as the monitor reports it."""
        status = self._status()
        return f"QEMU has stopped the guest: {_STOPS.get(status, status)}"

    def _status(self) -> str:
        answer = None
        if self.process.poll() is None:
            answer = self._exchange("query-status", {}, timeout=2.0, descriptor=None)
        known = answer.result if answer is not None else None
        return str((known if isinstance(known, dict) else {}).get("status", self._state.stopped))

    def command(
        self,
        name: str,
        options: Mapping[str, object] | None = None,
        *,
        timeout: float = 30.0,
        descriptor: int | None = None,
    ) -> Mapping[str, Any]:
        """Execute a command of the monitor and return its result.

        `timeout` is in seconds. `descriptor` is sent with the command, for "getfd". Raises
        SessionError if the monitor refuses the command or does not reply.
        """
        reply = self._exchange(name, options or {}, timeout=timeout, descriptor=descriptor)
        if reply is None:
            raise self.failure(f"QEMU's monitor does not answer ({name})")
        if reply.error is not None:
            raise SessionError(f"QEMU refuses {name}: {reply.error.desc}")
        return reply.result if isinstance(reply.result, dict) else {"text": reply.result}

    def _exchange(
        self,
        name: str,
        options: Mapping[str, object],
        *,
        timeout: float,
        descriptor: int | None,
    ) -> "_Message | None":
        """Send a command to the monitor and return the reply, or None if none comes."""
        try:
            timeout = deadlines.left(timeout)
        except deadlines.DeadlineError:
            timeout = 0.0  # the caller says which command has no answer
        with self._changed:
            self._number += 1
            number = self._number
            self._replies[number] = None
            message = {"execute": name, "id": number, "arguments": options}
            line = json.dumps(message).encode() + b"\n"
            try:
                if descriptor is None:
                    self._sockets["qmp"].sendall(line)
                else:
                    socket.send_fds(self._sockets["qmp"], [line], [descriptor])
            except OSError:
                self._changed.wait_for(lambda: self._state.ended, 2.0)
                return self._replies.pop(number)
            self._changed.wait_for(
                lambda: self._replies[number] is not None or self._state.ended, timeout
            )
            return self._replies.pop(number)

    def negotiate(self, *, running: bool = True) -> None:
        """Open the monitor. With `running`, a guest that stops from now on is an error."""
        self._expected_stop = not running
        # The monitor accepts no other command before this one.
        self.command("qmp_capabilities")

    def version(self) -> str:
        """Return the version of QEMU: "7.2.22"."""
        try:
            found = msgspec.convert(self.command("query-version"), _Versions).qemu
        except msgspec.ValidationError as error:
            raise SessionError(f"QEMU's monitor tells no version: {error}") from None
        return f"{found.major}.{found.minor}.{found.micro}"

    def port(self) -> int:
        """Return the loopback port that leads to the guest's SSH server."""
        # QMP has no command for this: only the text of the human monitor has the port.
        output = self.command("human-monitor-command", {"command-line": "info usernet"})
        found = _FORWARD.search(str(output.get("text")))
        if found is None:
            raise SessionError("QEMU forwards no port to the guest")
        return int(found.group(1))

    def save(self, path: Path, *, timeout: float) -> None:
        """Stop the guest, write its whole state into a file, and end the machine.

        `timeout` is in seconds.
        """
        deadline = time.monotonic() + timeout
        self._expected_stop = True
        # The state of a stopped guest is written in one pass. A running guest changes pages, which
        # are then written again.
        self.command("stop")
        with path.open("wb") as file:
            self.command("getfd", {"fdname": "state"}, descriptor=file.fileno())
            # The default limit of bandwidth is meant for a migration over a network.
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
        """Wait until QEMU has read a saved state; `deadline` is of time.monotonic."""
        while (status := self.command("query-status").get("status")) == "inmigrate":
            if time.monotonic() > deadline:
                raise self.failure("the saved state was not read in time")
            time.sleep(0.002)  # short: it is a part of the measured start
        if status not in ("paused", "prelaunch"):
            raise self.failure(f"the saved state could not be restored: {status}")

    def resume(self) -> None:
        """Start the CPUs of a restored guest."""
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
    """Start QEMU; its process ends with the context.

    With `launcher` (workloads/_launch) the kernel kills it when this thread ends, also after a
    kill -9 of isobench. Raises SessionError if QEMU cannot be executed.
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
            # QEMU does not end with its parent, also not at SIGTERM to the parent. A change of its
            # user clears the parent-death signal (prctl(2)): then a watcher ends it.
            tie = ["guard", "0", "0"] if hardware.changes_user else ["tie"]
            tie = [str(launcher), *tie] if launcher else []
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
