"""One QEMU process: its serial ports, its monitor, its end. Which accelerator it uses is decided
elsewhere.
"""

import contextlib
import errno
import json
import os
import re
import selectors
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from isobench.errors import SessionError
from isobench.targets import _process

PORTS: Final = ("log", "out", "err", "qmp")
"""Console of the guest, the two streams of its programs, the monitor."""
MARK: Final = b"isobench: "
_KEPT: Final = 1 << 16
_MOST_MARKS: Final = 256
_LONGEST: Final = 200
_CHUNK: Final = 1 << 16
_MOST_CHUNKS: Final = 64
"""Four mebibytes: more than a socket holds."""
_TOLD_LINES: Final = 4
_PANIC: Final = b"Kernel panic - "
_FORWARD: Final = re.compile(r"TCP\[HOST_FORWARD\]\s+\S+\s+127\.0\.0\.1\s+(\d+)")
_SHUTDOWN: Final = 10.0
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


def _printable(text: bytes) -> str:
    """Return what a guest says, without what would move a terminal's cursor."""
    said = text.decode(errors="replace")
    return "".join(c for c in said if c.isprintable() or c == "\n")


def _named(failure: str) -> str:
    """Return what a guest says has failed, with its number of an error in words."""
    what, _, number = failure.rpartition(" ")
    code = int(number) if number.isdecimal() and len(number) < len("1000") else 0
    if not what or code not in errno.errorcode:
        return failure
    return f"{what}: {os.strerror(code)} ({errno.errorcode[code]})"


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


@dataclass(slots=True)
class _Heard:
    """What the machine has said so far; guarded by the machine's condition."""

    log: bytearray = field(default_factory=bytearray)
    whole: int = 0
    """How many bytes the log has had."""
    out: bytearray = field(default_factory=bytearray)
    err: bytearray = field(default_factory=bytearray)
    stderr: bytearray = field(default_factory=bytearray)
    marks: list[str] = field(default_factory=list)
    replies: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    stopped: str = ""
    """The monitor's name for why the guest does not run any more, when nobody asked for that."""
    panic: str = ""
    """The kernel's last words."""
    ended: bool = False
    """The process has let go of its ends."""

    @property
    def over(self) -> bool:
        """Whether nothing more is to be expected."""
        return bool(self.ended or self.stopped or self.panic)


class Machine:
    """A running QEMU. One thread listens to all it says; waiting is for what that thread hears."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        sockets: Mapping[str, socket.socket],
        heard: Callable[[bytes], None],
        mark: Callable[[str], None],
    ) -> None:
        """Take a started process and our ends of its sockets; `heard` gets what programs say."""
        self.process = process
        self._sockets, self._on_output, self._on_mark = sockets, heard, mark
        self._heard = _Heard()
        self._changed = threading.Condition()
        self._number = 0
        # A machine that is restored says that it is stopped, until it is let run.
        self._expected_stop = True
        self._rest = {"log": b"", "qmp": b""}
        self._has_spoken = False
        self._thread = threading.Thread(target=self._listen, name="qemu", daemon=True)

    def listen(self) -> None:
        """Begin to listen; on its own, since it waits for the thread, and a Ctrl-C may come then:
        whoever is to close this machine must know of it by now.
        """
        self._thread.start()

    # ---- listening -------------------------------------------------------------------------------

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
                            self._catch_up()
                        if chunk:
                            self._take(key.data, chunk)
                        elif chunk is not None:
                            selector.unregister(key.fd)
        finally:
            with self._changed:
                self._heard.ended = True
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

    def _catch_up(self) -> None:
        """Read what programs said before the console said the latest: their end, it may be."""
        for name in ("out", "err"):
            for _ in range(_MOST_CHUNKS):
                chunk = self._read(name)
                if not chunk:
                    break
                self._take(name, chunk)

    def _take(self, name: str, chunk: bytes) -> None:
        if name == "out":
            self._on_output(chunk)
        marks = self._marks_in(chunk) if name == "log" else []
        for mark in marks:
            self._on_mark(mark)
        with self._changed:
            match name:
                case "log":
                    self._heard.log += chunk
                    del self._heard.log[:-_KEPT]
                    self._heard.marks += marks
                    del self._heard.marks[:-_MOST_MARKS]
                case "qmp":
                    self._take_monitor(chunk)
                case _:
                    kept: bytearray = getattr(self._heard, name)
                    kept += chunk[: max(0, _process.MOST - len(kept))]
            self._changed.notify_all()

    def _marks_in(self, chunk: bytes) -> list[str]:
        """Return the marks that a piece of the console completes, its first word among them."""
        found = [] if self._has_spoken or not chunk.strip() else ["guest.output"]
        self._has_spoken |= bool(found)
        *lines, self._rest["log"] = (self._rest["log"] + chunk).split(b"\n")
        self._rest["log"] = self._rest["log"][-_KEPT:]
        for line in lines:
            _, panic, why = line.partition(_PANIC)
            if panic and not self._heard.panic:
                self._heard.panic = _printable((panic + why).strip()[:_LONGEST])
        return found + [
            _printable(line[len(MARK) :].strip()[:_LONGEST])
            for line in lines
            if line.startswith(MARK)
        ]

    def _take_monitor(self, chunk: bytes) -> None:
        *lines, self._rest["qmp"] = (self._rest["qmp"] + chunk).split(b"\n")
        for line in lines:
            with contextlib.suppress(ValueError):
                said = json.loads(line)
                if not isinstance(said, dict):
                    continue
                if "id" in said:
                    self._heard.replies[said["id"]] = said
                elif said.get("event") == "STOP" and not self._expected_stop:
                    self._heard.stopped = "stopped"
                elif said.get("event") == "RESUME":
                    self._heard.stopped = ""
                elif said.get("event") in ("GUEST_PANICKED", "WATCHDOG"):
                    self._heard.stopped = said["event"].lower().replace("_", " ")

    # ---- waiting ---------------------------------------------------------------------------------

    @property
    def log(self) -> str:
        """The end of what the guest said on its console, printable."""
        with self._changed:
            return _printable(bytes(self._heard.log))

    def output(self) -> tuple[bytes, bytes]:
        """Return what programs have said on their two streams since the last call."""
        with self._changed:
            out, err = bytes(self._heard.out), bytes(self._heard.err)
            self._heard.out.clear()
            self._heard.err.clear()
            return out, err

    def why(self, *, patience: float = 0.0) -> str:
        """Say why the machine does not run any more, or nothing while it runs.

        What leads to it may break a moment before its end is known: `patience` in seconds.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._heard.over, patience)
        if self._heard.panic:
            return f"the guest panicked: {self._heard.panic}"
        if self._heard.stopped:
            status = self._status()
            return f"QEMU has stopped the guest: {_STOPS.get(status, status)}"
        if self._heard.ended:  # it has let go of everything, and is about to be gone
            self.wait_for_end(_QUIT)
        code = self.process.poll()
        if code is None:
            return ""
        how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
        lines = [line.strip() for line in _printable(bytes(self._heard.stderr)).splitlines()]
        # What is wrong is often followed by a piece of advice, or by an assertion.
        said = " | ".join([line for line in lines if line][-2:])[-500:] or "it said nothing"
        return f"QEMU has ended, {how}; {said}"

    def _status(self) -> str:
        answer = None
        if self.process.poll() is None:
            answer = self._asked("query-status", {}, patience=2.0, descriptor=None)
        return str((answer or {}).get("return", {}).get("status", self._heard.stopped))

    def last_words(self) -> str:
        """Say what the console said last."""
        lines = [line.strip() for line in self.log.splitlines() if line.strip()]
        tail = " | ".join(lines[-_TOLD_LINES:])[-400:] or "nothing"
        return f"the serial console said last: {tail}"

    @property
    def transcript(self) -> str:
        """What QEMU complained of and the end of what the guest said on its console, printable."""
        with self._changed:
            return _printable(bytes(self._heard.stderr)) + _printable(bytes(self._heard.log))

    def fault(self, what: str, *, hint: str = "") -> SessionError:
        """Return an error that says what failed, why, and what the console said last.

        `hint` is the way out unless what was said suggests a better one.
        """
        why = self.why()
        reason = f"{what}{': ' + why if why else ''}"
        said = reason + bytes(self._heard.stderr).decode(errors="replace")
        hint = next((way for sign, way in _HINTS.items() if sign in said), hint)
        return SessionError(f"{reason}; {self.last_words()}", hint=hint, log=self.transcript)

    def wait_for(self, mark: str, *, deadline: float) -> str | None:
        """Wait for a mark of the guest and take it: what follows its name, or None at the deadline
        (time.monotonic). SessionError when the machine ends or the guest says it has failed.
        """
        with self._changed:
            while True:
                for number, said in enumerate(self._heard.marks):
                    name, _, detail = said.partition(" ")
                    if name == mark:
                        del self._heard.marks[: number + 1]
                        return detail
                    if name == "failed":
                        raise self.fault(f"the guest could not set itself up: {_named(detail)}")
                if self._heard.over:
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    return None
                self._changed.wait(left)
        raise self.fault("the guest has ended")

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
            raise self.fault("the guest takes no request") from None

    def command(
        self,
        name: str,
        options: Mapping[str, object] | None = None,
        *,
        patience: float = 30.0,
        descriptor: int | None = None,
    ) -> Mapping[str, Any]:
        """Ask the monitor, return its answer; SessionError when it refuses or is gone.

        With `descriptor` a file goes along ("getfd").
        """
        reply = self._asked(name, options or {}, patience=patience, descriptor=descriptor)
        if reply is None:
            raise self.fault(f"QEMU's monitor does not answer ({name})")
        if "error" in reply:
            raise SessionError(f"QEMU refuses {name}: {reply['error'].get('desc')}")
        answer = reply.get("return")
        return answer if isinstance(answer, dict) else {"text": answer}

    def _asked(
        self,
        name: str,
        options: Mapping[str, object],
        *,
        patience: float,
        descriptor: int | None,
    ) -> Mapping[str, Any] | None:
        """Ask the monitor; None where no answer comes."""
        with self._changed:
            self._number += 1
            number = self._number
            asked = {"execute": name, "id": number, "arguments": options}
            line = json.dumps(asked).encode() + b"\n"
            try:
                if descriptor is None:
                    self._sockets["qmp"].sendall(line)
                else:
                    socket.send_fds(self._sockets["qmp"], [line], [descriptor])
            except OSError:
                self._changed.wait_for(lambda: self._heard.ended, 2.0)
                return None
            self._changed.wait_for(
                lambda: number in self._heard.replies or self._heard.ended, patience
            )
            return self._heard.replies.pop(number, None)

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

    def save(self, path: Path, *, patience: float) -> None:
        """Stop the guest and write its whole state into a file; the machine ends."""
        deadline = time.monotonic() + patience
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
                raise self.fault(f"the guest's state could not be saved: {status}")
            time.sleep(0.02)
        self.command("quit")
        self.wait_for_end(_QUIT)

    def wait_for_state(self, *, deadline: float) -> None:
        """Wait until a saved state has been read."""
        while (status := self.command("query-status").get("status")) == "inmigrate":
            if time.monotonic() > deadline:
                raise self.fault("the saved state was not read in time")
            time.sleep(0.002)
        if status not in ("paused", "prelaunch"):
            raise self.fault(f"the saved state could not be restored: {status}")

    def resume(self) -> None:
        """Let a restored guest run."""
        self._expected_stop = False
        self.command("cont")

    def close(self) -> None:
        """End the process, whatever it does, and close what leads to it."""
        _process.end(self.process)
        if self._thread.ident is not None:
            self._thread.join(5)
        for link in self._sockets.values():
            link.close()
        if self.process.stderr is not None:
            self.process.stderr.close()


@contextlib.contextmanager
def started(
    hardware: Hardware,
    boot: Boot,
    *,
    launcher: Path | None = None,
    heard: Callable[[bytes], None] = lambda _: None,
    mark: Callable[[str], None] = lambda _: None,
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
                process = _process.start(
                    [*tie, *arguments(hardware, boot, theirs)],
                    env={"PATH": os.environ.get("PATH", ""), **_process.tied()},
                    stdout=subprocess.DEVNULL,
                    descriptors=descriptors,
                )
            except OSError as error:
                raise SessionError(f"QEMU cannot be executed: {error}") from None
        machine = Machine(process, ours, heard, mark)
        stack.callback(machine.close)
        machine.listen()
        yield machine


def shut_down(machine: Machine, request: bytes) -> bool:
    """Ask the guest to power off; say whether it did so by itself."""
    machine.send(request)
    return machine.wait_for_end(_SHUTDOWN)
