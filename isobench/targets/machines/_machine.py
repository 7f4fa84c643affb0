"""The life cycle of a machine that an external tool runs: its commands to start, stop and query it.

A command is a list of arguments; no shell interprets it. Before isobench starts a machine, it
writes a note into the cache. After a kill -9 the next isobench finds the note and stops the
machine. A machine that isobench did not start is never stopped: after a boot of this host nobody
knows who has started one. What is not known to be off is not started, and so not stopped.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from isobench.config import cache, redaction
from isobench.model import Expectation, Leftover, Relation, Technology
from isobench.model.errors import SessionError
from isobench.plugins import deadlines, ownership
from isobench.targets.shared import closing, processes

_POLL: Final = 0.25
_STATUS_TIMEOUT: Final = 30.0
"""Seconds that a status command may take."""
_NOT_EXECUTED: Final = (126, 127)
"""Exit codes of a shell that cannot execute a command: sh(1p)."""
_SSH_FAILED: Final = 255
"""Exit code of ssh(1) that did not reach its host."""
_ENGLISH: Final = {"LC_ALL": "C.UTF-8", "LANGUAGE": ""}
"""Environment of tools whose output is read: virsh translates the state of a machine."""
_failed_notes: Final[set[Path]] = set()
"""Notes of machines that this process tried to stop, without success."""
_LOCK_NAME: Final = re.compile(r"[0-9a-f]{16}")
_locks: Final[set[str]] = set()
"""Names of the locks that this process holds while it uses machines."""

Words = tuple[str, ...]


class StateError(SessionError):
    """Whether a machine runs is not known, or it neither runs nor is off."""


# ---- presets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The commands for the tool of one hypervisor, and the facts that prove it from inside.

    In commands and in patterns, {} stands for the machine's name. An output of `status` that
    neither pattern matches shows a machine that is paused, saved or on its way: starting it would
    resume what somebody else has left, and stopping it would lose that.
    """

    tool: str
    start: Words
    stop: Words
    status: Words
    running_pattern: str
    """Regular expression that matches the output of `status` while the machine runs."""
    off_pattern: str
    """Regular expression that matches it while the machine is off. Empty: any other output."""
    name_pattern: str
    """Regular expression of the names that no tool on the way can misinterpret."""
    example: str
    """A name that `name_pattern` matches."""
    expectations: tuple[Expectation, ...] = ()
    technology: Technology = Technology.VIRTUALIZATION
    powershell: bool = False
    """Each command is one word, a script for PowerShell."""


def _inside(key: str, value: str, relation: Relation = Relation.EQUALS) -> Expectation:
    return Expectation(key=key, relation=relation, value=value)


_PLAIN: Final = r"[\w.][\w .()+-]*"
"""No character that is special to a shell, to PowerShell's wildcards or to an option parser."""
_WORD: Final = r"[\w./][\w./-]*"
_POWERSHELL: Final = "powershell.exe -NoProfile -NonInteractive"
_VMWARE: Final = (_inside("cpu.hypervisor", "VMwareVMware"),)
_VSPHERE: Final = Preset(
    tool="govc",
    start=("vm.power", "-on", "{}"),
    stop=("vm.power", "-s", "{}"),
    status=("vm.info", "{}"),
    running_pattern=r"(?m)^\s*Power state:\s+poweredOn\s*$",
    off_pattern=r"(?m)^\s*Power state:\s+poweredOff\s*$",
    name_pattern=r"[\w./][\w ./()+-]*",
    example="debian-12 or /ha-datacenter/vm/debian-12",
    expectations=_VMWARE,
)
_WSL: Final = Preset(
    tool="wsl.exe",
    # Windows ends a distribution when no process that wsl.exe started is left in it, although its
    # services still run: so a process that does nothing keeps it running.
    start=(
        *("--distribution", "{}", "--user", "root"),
        *("--exec", "/usr/bin/setsid", "--fork", "/usr/bin/sleep", "infinity"),
    ),
    stop=("--terminate", "{}"),
    status=("--list", "--running", "--quiet"),
    # Names of distributions are not case-sensitive. With none that runs, --quiet prints nothing.
    running_pattern=r"(?mi)^{}\s*$",
    off_pattern="",
    name_pattern=r"[\w.][\w.-]*",
    example="Debian",
    expectations=(_inside("kernel.release", "microsoft", Relation.CONTAINS),),
)
PRESETS: Final[Mapping[str, Preset]] = {
    # libvirt runs KVM and TCG. The configured class decides which one is expected.
    "libvirt": Preset(
        tool="virsh",
        start=("start", "--domain", "{}"),
        stop=("shutdown", "--domain", "{}"),
        status=("domstate", "--domain", "{}"),
        running_pattern=r"(?m)^running\s*$",
        off_pattern=r"(?m)^shut off\s*$",
        name_pattern=r"[^\s/-][^\n/]*",
        example="debian-12",
    ),
    "esxi": _VSPHERE,
    "vsphere": _VSPHERE,
    "vmware-workstation": Preset(
        tool="vmrun -T ws",
        start=("start", "{}", "nogui"),
        stop=("stop", "{}", "soft"),
        status=("list",),
        running_pattern=r"(?m)^{}\s*$",
        off_pattern=r"(?m)^Total running VMs: \d+\s*$",
        name_pattern=r"/[^\n]+\.vmx",
        example="/home/me/vmware/debian-12/debian-12.vmx",
        expectations=_VMWARE,
    ),
    # By default VirtualBox offers Linux guests KVM's paravirtualisation interface, so that CPUID
    # shows "KVMKVMKVM". The firmware shows the product's own name.
    "virtualbox": Preset(
        tool="VBoxManage",
        start=("startvm", "{}", "--type", "headless"),
        stop=("controlvm", "{}", "acpipowerbutton"),
        status=("showvminfo", "{}", "--machinereadable"),
        running_pattern=r'(?m)^VMState="running"\s*$',
        off_pattern=r'(?m)^VMState="(poweroff|aborted)"\s*$',
        name_pattern=r"[^\s-][^\n]*",
        example="debian-12",
        expectations=(_inside("machine.product", "VirtualBox"),),
    ),
    # KVM can show Hyper-V's CPUID to its guests. The firmware's strings are Hyper-V's own.
    "hyper-v": Preset(
        tool=_POWERSHELL,
        start=("Start-VM -Name '{}'",),
        stop=("Stop-VM -Name '{}' -Confirm:$false",),
        status=("[string](Get-VM -Name '{}').State",),
        running_pattern=r"(?m)^Running\s*$",
        off_pattern=r"(?m)^Off\s*$",
        name_pattern=_PLAIN,
        example="Debian 12",
        expectations=(
            _inside("machine.vendor", "Microsoft Corporation"),
            _inside("machine.product", "Virtual Machine"),
        ),
        powershell=True,
    ),
    "wsl": _WSL,
    # The Windows kernel implements Linux's system calls: there is no virtual machine. The kernel's
    # release contains "Microsoft"; that of WSL 2 has the word in lower case.
    "wsl-1": Preset(
        tool=_WSL.tool,
        start=_WSL.start,
        stop=_WSL.stop,
        status=_WSL.status,
        running_pattern=_WSL.running_pattern,
        off_pattern=_WSL.off_pattern,
        name_pattern=_WSL.name_pattern,
        example=_WSL.example,
        expectations=(_inside("kernel.release", "Microsoft", Relation.CONTAINS),),
        technology=Technology.TRANSLATION,
    ),
}


def _encoded(script: str) -> Words:
    """Return PowerShell's arguments for a script, in base 64: no shell on the way can alter it.

    Source: Microsoft, "about_PowerShell_exe", -EncodedCommand.
    """
    # Without this preference PowerShell exits with 0 after most errors.
    whole = f"$ErrorActionPreference = 'Stop'; {script}"
    return ("-EncodedCommand", base64.b64encode(whole.encode("utf-16-le")).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeCycle:
    """The commands of one machine."""

    start: Words
    stop: Words
    status: Words = ()
    running_pattern: str = ""
    """Regular expression that matches the output of `status` while the machine runs. Empty: the
    exit code 0 shows that, and another one that it is off.
    """
    off_pattern: str = ""
    """The same while the machine is off. Empty: any other output."""


def from_preset(name: str, machine: str, tool: Sequence[str] = ()) -> LifeCycle:
    """Return the commands of a preset for a machine.

    `tool` replaces the preset's own tool: another path, one with a connection, or ssh and the
    computer where it is installed. Raises ValueError if the machine's name is not allowed.
    """
    preset = PRESETS[name]
    first = tuple(tool) or tuple(preset.tool.split())
    # SSH joins its arguments with spaces, and a shell at the other end splits them again (ssh(1)).
    carried = Path(first[0]).name == "ssh" and not preset.powershell
    for names in (preset.name_pattern, *([_WORD] if carried else [])):
        if re.fullmatch(names, machine) is None:
            reason = "; over SSH it must be one plain word" if names == _WORD else ""
            raise ValueError(
                f'machine = "{machine}": write a name as {name} has it, such as'
                f" {preset.example}{reason}"
            )

    def words(command: Words) -> Words:
        filled = tuple(word.replace("{}", machine) for word in command)
        return (*first, *(_encoded(filled[0]) if preset.powershell else filled))

    return LifeCycle(
        start=words(preset.start),
        stop=words(preset.stop),
        status=words(preset.status),
        running_pattern=preset.running_pattern.replace("{}", re.escape(machine)),
        off_pattern=preset.off_pattern,
    )


# ---- commands ------------------------------------------------------------------------------------


def execute(
    argv: Sequence[str], *, timeout: float, more: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Execute a command in the user's own environment, with `more` variables; return its exit code
    and its output.

    The exit code is None if the command was killed at the time limit (in seconds), and 127 if it
    cannot be executed. A process that the command leaves in the background keeps running.
    """
    limit = deadlines.left(timeout)
    # A file, not a pipe: a background process would hold a pipe open, and so delay its end.
    with tempfile.TemporaryFile() as output:
        try:
            process = processes.popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | dict(more or {}),
            )
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        code: int | None = None
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                processes.end(process)
        if code == -signal.SIGKILL:  # at the limit of the call around this
            code = None
        output.seek(0)
        # Tools of Windows, wsl.exe among them, write UTF-16: two bytes for each character.
        text = output.read(processes.MAX_OUTPUT).replace(b"\0", b"")
        return code, text.decode(errors="replace").strip()


def _describe(argv: Sequence[str], code: int | None, output: str) -> str:
    ended = "did not end in time" if code is None else f"exit code {code}"
    last = processes.last_line(output.encode())
    return f"{argv[0]} {' '.join(redaction.words(argv[1:]))[:120]}: {ended}; {last}"


def missing_tool(cycle: LifeCycle) -> str:
    """Return the first program of a life cycle that is not on PATH, or an empty string."""
    tools = (command[0] for command in (cycle.start, cycle.stop, cycle.status) if command)
    return next((tool for tool in tools if shutil.which(tool) is None), "")


# ---- notes ---------------------------------------------------------------------------------------


class _Note(
    msgspec.Struct, frozen=True, rename={"running_pattern": "runs", "stop_timeout": "patience"}
):
    """A machine that an isobench has started, and how to stop it."""

    owner: str
    stop: list[str]
    status: list[str] = []
    running_pattern: str = ""
    stop_timeout: float = 120.0
    boot: str = ""
    """The boot of this host during which it was started. Empty: unknown, as in older notes."""
    off_pattern: str = ""
    lock: str = ""
    """The name of the machine's lock. Empty: unknown, as in older notes."""


def _notes() -> Path:
    return cache.folder("machines")


def _name(cycle: LifeCycle, *more: str) -> str:
    return hashlib.sha256("\0".join((*cycle.start, *more)).encode()).hexdigest()[:16]


def _lock(name: str) -> int | None:
    """Lock a machine; return the descriptor that holds the lock, or None if another one does."""
    cache.made("machines")
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(_notes() / f"{name}.lock", flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _locked(cycle: LifeCycle) -> int:
    """Lock a machine for this process, and return the descriptor that holds the lock.

    Of two processes that use one machine, one would stop it while the other measures. Raises
    SessionError if another process has locked it.
    """
    # Named after the start command: two targets with the same command use the same machine.
    descriptor = _lock(_name(cycle))
    if descriptor is None:
        raise SessionError(
            "another isobench, or another target of this one, uses this machine",
            hint="use it in one at a time: two would disturb each other's measurements",
        )
    return descriptor


@contextlib.contextmanager
def _claimed(note: _Note) -> Iterator[bool]:
    """Lock the machine of a note; yield False if somebody else uses it now."""
    # What a thread of this process still holds after an interruption is this process's to stop.
    own = note.owner == ownership.mine() and note.lock in _locks
    if own or not _LOCK_NAME.fullmatch(note.lock):
        yield True
        return
    descriptor = _lock(note.lock)
    try:
        yield descriptor is not None
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _write(cycle: LifeCycle, stop_timeout: float) -> Path:
    note = _Note(
        owner=ownership.mine(),
        stop=[*cycle.stop],
        status=[*cycle.status],
        running_pattern=cycle.running_pattern,
        stop_timeout=stop_timeout,
        boot=ownership.boot_id(),
        off_pattern=cycle.off_pattern,
        lock=_name(cycle),
    )
    # The note holds commands that a later isobench executes, and perhaps passwords: nobody else may
    # read or change it.
    path = cache.made("machines") / f"{_name(cycle, ownership.mine())}.json"
    cache.replace(path, msgspec.json.encode(note))
    return path


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Stop and return machines that a dead isobench had started.

    `alive` returns whether the owner in a note still runs. Each target of this kind sweeps: a
    machine that this process could not stop is tried only once.
    """
    found = []
    for path in sorted({*_notes().glob("*.json")} - _failed_notes):
        try:
            note = msgspec.json.decode(path.read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):
            continue
        if alive(note.owner):
            continue
        # Another isobench may use the machine by now. Its note stays for a later sweep.
        with _claimed(note) as claimed:
            if claimed and path.exists():  # another sweep may have removed it meanwhile
                found.append(_swept(path, note))
    return found


def _swept(path: Path, note: _Note) -> Leftover:
    """Stop the machine of a note unless it is off; remove the note if it is off then."""
    # The note has all commands: the configuration may have changed since.
    cycle = LifeCycle(
        start=(),
        stop=tuple(note.stop),
        status=tuple(note.status),
        running_pattern=note.running_pattern,
        off_pattern=note.off_pattern,
    )
    command = " ".join(redaction.words(note.stop))[:120]
    what, failure = f"machine ({command})", ""
    if note.boot and ownership.boot_id() not in ("", note.boot):
        what = "note of a machine from before this host was booted, which stays as it is"
        what = f"{what} ({command})"
    else:
        try:
            if cycle.status and not _is_running(cycle):
                what = f"note of a machine that no longer runs ({command})"
            else:
                failure = _stopped(cycle, note.stop_timeout)
        except StateError as error:
            failure = f"{error}; {error.hint}"
    if failure:
        _failed_notes.add(path)
        return Leftover(what=f"machine that isobench started ({path})", failure=failure)
    path.unlink(missing_ok=True)
    return Leftover(what=what)


def _stopped(cycle: LifeCycle, stop_timeout: float) -> str:
    """Stop a machine; return why that failed, or an empty string."""
    code, output = execute(cycle.stop, timeout=stop_timeout)
    if code != 0:
        return _describe(cycle.stop, code, output)
    # A stop command may return before the machine is off. A machine that still shuts down would
    # later count as running, and so as started by somebody else.
    return _wait_until_off(lambda: _is_running(cycle), stop_timeout) if cycle.status else ""


def _is_running(cycle: LifeCycle) -> bool:
    """Return what the status command shows. Raises StateError if it shows neither running nor off:
    a tool that fails knows nothing about the machine.
    """
    reads = bool(cycle.running_pattern)
    more = _ENGLISH if reads else None
    code, output = execute(cycle.status, timeout=_STATUS_TIMEOUT, more=more)
    if code is None or (code != 0 if reads else _was_not_executed(cycle.status, code)):
        raise StateError(
            f"whether the machine runs is not known: {_describe(cycle.status, code, output)}",
            hint="try the status command by hand; until it works, the machine stays as it is",
        )
    if not reads:
        return code == 0
    if re.search(cycle.running_pattern, output):
        return True
    if not cycle.off_pattern or re.search(cycle.off_pattern, output):
        return False
    line = re.search(r"(?im)^.*\bstate\b.*$|^.*state=.*$", output)
    shown = line.group().strip() if line else processes.last_line(output.encode())
    raise StateError(
        f"the machine neither runs nor is off: {cycle.status[0]} shows {shown[:80]!r}",
        hint="start it or shut it down by hand: isobench leaves it as it is",
    )


def _was_not_executed(argv: Words, code: int) -> bool:
    """Return whether an exit code is not that of the user's own command, but says that the command
    was killed, or could not be executed.
    """
    unreachable = Path(argv[0]).name == "ssh" and code == _SSH_FAILED
    return code < 0 or code in _NOT_EXECUTED or unreachable


def _wait_until_off(is_running: Callable[[], bool], stop_timeout: float) -> str:
    """Wait up to `stop_timeout` seconds for a machine to stop; return why it does not count as off,
    or an empty string.
    """
    end = time.monotonic() + stop_timeout
    while True:
        try:
            if not is_running():
                return ""
            why = f"the machine still runs {stop_timeout:g} s after its stop command"
        except StateError as error:  # it is shutting down, or the tool may answer again
            why = f"{stop_timeout:g} s after its stop command: {error}"
        if time.monotonic() > end:
            return why
        time.sleep(_POLL)


# ---- the machine ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Machine:
    """One machine and the number of its users in this process.

    The first user starts it, the last one stops it.
    """

    cycle: LifeCycle
    is_reachable: Callable[[], bool]
    """Returns whether its SSH server answers: used if there is no status command. Raises
    StateError if something else answers.
    """
    start_timeout: float
    stop_timeout: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _users: int = 0
    _note: Path | None = None
    """The note in the cache. There is one while a machine runs that isobench started."""
    _lock_descriptor: int = -1
    """An open file that is locked while the machine is used, or -1."""

    def is_running(self) -> bool:
        """Return whether the machine runs. Raises StateError if that is not known."""
        return _is_running(self.cycle) if self.cycle.status else self.is_reachable()

    @contextlib.contextmanager
    def keep_running(self, on_phase: Callable[[str], None], *, begin: str = "") -> Iterator[None]:
        """Start the machine unless it runs; stop it after the last use if isobench started it.

        With `begin` the machine must not run yet, and `on_phase(begin)` is called just before it is
        started. Raises SessionError if it cannot be started or stopped, or runs already.
        """
        with self._lock:
            if not self._users:
                self._lock_descriptor = _locked(self.cycle)
                _locks.add(_name(self.cycle))
            try:
                self._ensure_running(on_phase, begin)
            except BaseException:
                self._release()
                raise
            self._users += 1

        def leave(_: BaseException | None) -> None:
            with self._lock:
                self._users -= 1
                try:
                    if not self._users and self._note is not None:
                        self._stop(on_phase)
                finally:
                    self._release()

        with closing.closed_at_end(leave):
            yield

    def _ensure_running(self, on_phase: Callable[[str], None], begin: str) -> None:
        if begin and not self._users and self._note is not None and self.is_running():
            raise SessionError(
                "the start cannot be timed: the machine could not be stopped after its last use,"
                " and still runs",
                hint="try the stop command by hand",
            )
        if begin and (self._users or self.is_running()):
            raise SessionError(
                "the start cannot be timed: the machine is running already",
                hint="shut it down first; isobench stops only machines that it has started",
            )
        if not self._users and (begin or not self.is_running()):
            self._start(on_phase, begin)

    def _release(self) -> None:
        if not self._users:
            _locks.discard(_name(self.cycle))
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def _start(self, on_phase: Callable[[str], None], begin: str) -> None:
        # The note comes first: a kill -9 in between leaves a note without a machine, which is
        # harmless, and not a machine without a note.
        self._note = _write(self.cycle, self.stop_timeout)
        if begin:
            on_phase(begin)
        code, output = execute(self.cycle.start, timeout=self.start_timeout)
        if code != 0:
            why = _describe(self.cycle.start, code, output)
            raise SessionError(
                f"the machine cannot be started: {why}{self._undo_start(on_phase)}",
                hint="use a start command that ends while the machine boots"
                if code is None
                else "try the start command by hand",
            )
        on_phase("machine.started")

    def _undo_start(self, on_phase: Callable[[str], None]) -> str:
        """Stop the machine if a start command that failed has started it nevertheless; return what
        else the user must know.
        """
        # It was off before. Only if it runs now has the command started it: "is already active"
        # is a failure too, of a machine that somebody else runs.
        if not self.cycle.status:
            self._remove_note()
            return "; without a status command it is not known whether it runs: it stays as it is"
        try:
            runs = self.is_running()
        except StateError as error:
            self._remove_note()
            return f"; it stays as it is: {error}"
        if not runs:
            self._remove_note()
            return ""
        try:
            self._stop(on_phase)
        except SessionError as error:  # the note stays: a later isobench tries again
            return f"; and {error}"
        return ""

    def _stop(self, on_phase: Callable[[str], None]) -> None:
        on_phase("shutdown.asked")
        code, output = execute(self.cycle.stop, timeout=self.stop_timeout)
        if code != 0:
            raise SessionError(
                f"the machine cannot be stopped: {_describe(self.cycle.stop, code, output)}",
                hint="try the stop command by hand",
            )
        # Most stop commands only request a shutdown: the machine runs on for a while.
        if why := _wait_until_off(self.is_running, self.stop_timeout):
            raise SessionError(
                why, hint="set another stop command, or a longer stop_timeout, in isobench.toml"
            )
        on_phase("machine.gone")
        self._remove_note()

    def _remove_note(self) -> None:
        if self._note is not None:
            self._note.unlink(missing_ok=True)
            self._note = None
