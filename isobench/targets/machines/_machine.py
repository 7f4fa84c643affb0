"""The life cycle of a machine that somebody else's tool runs: starting, stopping, asking for it.

A command is a list of words, never a line for a shell. Before isobench starts a machine it writes a
note into the cache; after a kill -9 the next start of isobench finds the note and stops the
machine. One that was running before is never stopped.
"""

import base64
import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from isobench.config import paths
from isobench.model import Expectation, Leftover, Relation, Technology
from isobench.model.errors import SessionError
from isobench.plugins import ownership
from isobench.targets.shared import processes

_POLL: Final = 0.25
_STATUS_TIMEOUT: Final = 30.0
"""Seconds that a status command may take."""
_failed_notes: Final[set[Path]] = set()
"""Notes of machines that could not be stopped."""

Words = tuple[str, ...]


# ---- presets -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What the tool of one hypervisor wants to hear, and what shows the hypervisor from inside.

    In the commands {} stands for the machine's name.
    """

    tool: str
    start: Words
    stop: Words
    status: Words
    running_pattern: str
    """Expression that the output of `status` holds while the machine runs; {} is its name."""
    name_pattern: str
    """Expression of the names that go safely through all that lies between."""
    example: str
    """Such a name."""
    expectations: tuple[Expectation, ...] = ()
    technology: Technology = Technology.VIRTUALIZATION
    powershell: bool = False
    """The commands are PowerShell, each one word."""


def _inside(key: str, value: str, relation: Relation = Relation.EQUALS) -> Expectation:
    return Expectation(key=key, relation=relation, value=value)


_PLAIN: Final = r"[\w.][\w .()+-]*"
"""No sign that a shell, PowerShell's wildcards or an option parser could take for its own."""
_WORD: Final = r"[\w./][\w./-]*"
_POWERSHELL: Final = "powershell.exe -NoProfile -NonInteractive"
_VMWARE: Final = (_inside("cpu.hypervisor", "VMwareVMware"),)
_VSPHERE: Final = Preset(
    tool="govc",
    start=("vm.power", "-on", "{}"),
    stop=("vm.power", "-s", "{}"),
    status=("vm.info", "{}"),
    running_pattern=r"(?m)^\s*Power state:\s+poweredOn\s*$",
    name_pattern=r"[\w./][\w ./()+-]*",
    example="debian-12 or /ha-datacenter/vm/debian-12",
    expectations=_VMWARE,
)
_WSL: Final = Preset(
    tool="wsl.exe",
    # A distribution ends when nothing of a wsl.exe is left in it, whatever services it runs.
    start=(
        *("--distribution", "{}", "--user", "root"),
        *("--exec", "/usr/bin/setsid", "--fork", "/usr/bin/sleep", "infinity"),
    ),
    stop=("--terminate", "{}"),
    status=("--list", "--running", "--quiet"),
    running_pattern=r"(?m)^{}\s*$",
    name_pattern=r"[\w.][\w.-]*",
    example="Debian",
    expectations=(_inside("kernel.release", "microsoft", Relation.CONTAINS),),
)
PRESETS: Final[Mapping[str, Preset]] = {
    # KVM and TCG both: the class says which, and evidence whether that is so.
    "libvirt": Preset(
        tool="virsh",
        start=("start", "--domain", "{}"),
        stop=("shutdown", "--domain", "{}"),
        status=("domstate", "--domain", "{}"),
        running_pattern=r"(?m)^running\s*$",
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
        name_pattern=r"/[^\n]+\.vmx",
        example="/home/me/vmware/debian-12/debian-12.vmx",
        expectations=_VMWARE,
    ),
    # Its CPUID says "KVMKVMKVM" to Linux guests by default: the firmware tells.
    "virtualbox": Preset(
        tool="VBoxManage",
        start=("startvm", "{}", "--type", "headless"),
        stop=("controlvm", "{}", "acpipowerbutton"),
        status=("showvminfo", "{}", "--machinereadable"),
        running_pattern=r'(?m)^VMState="running"\s*$',
        name_pattern=r"[^\s-][^\n]*",
        example="debian-12",
        expectations=(_inside("machine.product", "VirtualBox"),),
    ),
    # A KVM guest may be told the same by CPUID; the firmware is Hyper-V's own.
    "hyper-v": Preset(
        tool=_POWERSHELL,
        start=("Start-VM -Name '{}'",),
        stop=("Stop-VM -Name '{}' -Confirm:$false",),
        status=("[string](Get-VM -Name '{}').State",),
        running_pattern=r"(?m)^Running\s*$",
        name_pattern=_PLAIN,
        example="Debian 12",
        expectations=(
            _inside("machine.vendor", "Microsoft Corporation"),
            _inside("machine.product", "Virtual Machine"),
        ),
        powershell=True,
    ),
    "wsl": _WSL,
    # Linux's system calls, carried out by the Windows kernel: no machine at all.
    "wsl-1": Preset(
        tool=_WSL.tool,
        start=_WSL.start,
        stop=_WSL.stop,
        status=_WSL.status,
        running_pattern=_WSL.running_pattern,
        name_pattern=_WSL.name_pattern,
        example=_WSL.example,
        expectations=(_inside("kernel.release", "Microsoft", Relation.CONTAINS),),
        technology=Technology.TRANSLATION,
    ),
}


def _encoded(script: str) -> Words:
    """Return PowerShell's arguments for a script: no quotes, whatever carries them there."""
    whole = f"$ErrorActionPreference = 'Stop'; {script}"
    return ("-EncodedCommand", base64.b64encode(whole.encode("utf-16-le")).decode())


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeCycle:
    """The commands of one machine."""

    start: Words
    stop: Words
    status: Words = ()
    running_pattern: str = ""
    """Expression in the output of `status`; empty: its exit code 0 says that it runs."""


def from_preset(name: str, machine: str, tool: Sequence[str] = ()) -> LifeCycle:
    """Return the commands of a preset for a machine; ValueError: the machine's name will not do.

    `tool` are the words that stand in place of the preset's own tool: a path, a connection, the way
    to the computer where it is installed.
    """
    preset = PRESETS[name]
    first = tuple(tool) or tuple(preset.tool.split())
    # Where SSH carries the command, a shell at its other end takes it apart at spaces.
    carried = Path(first[0]).name == "ssh" and not preset.powershell
    for names in (preset.name_pattern, *([_WORD] if carried else [])):
        if re.fullmatch(names, machine) is None:
            way = "; carried by SSH it must be one plain word" if names == _WORD else ""
            raise ValueError(
                f'machine = "{machine}": {name} takes names like {preset.example}{way}'
            )

    def words(command: Words) -> Words:
        told = tuple(word.replace("{}", machine) for word in command)
        return (*first, *(_encoded(told[0]) if preset.powershell else told))

    return LifeCycle(
        start=words(preset.start),
        stop=words(preset.stop),
        status=words(preset.status),
        running_pattern=preset.running_pattern.replace("{}", re.escape(machine)),
    )


# ---- commands ------------------------------------------------------------------------------------


def execute(argv: Sequence[str], *, timeout: float) -> tuple[int | None, str]:
    """Execute a command with the user's own environment; return its exit code, None when it was
    stopped at the time limit, and what it said.

    What it leaves running in the background keeps running: it is not waited for.
    """
    with tempfile.TemporaryFile() as said:
        try:
            process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                start_new_session=True,
            )
        except OSError as error:
            return 127, f"{argv[0]}: {error.strerror}"
        code: int | None = None
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            pass
        finally:
            if code is None:
                processes.end(process)
        said.seek(0)
        # Windows' own tools write two bytes a character.
        return code, said.read(processes.MAX_OUTPUT).replace(b"\0", b"").decode(
            errors="replace"
        ).strip()


def _describe(argv: Sequence[str], code: int | None, said: str) -> str:
    ended = "did not end" if code is None else f"exit code {code}"
    last = processes.last_line(said.encode())
    return f"{argv[0]} {' '.join(argv[1:])[:120]}: {ended}; {last}"


def missing_tool(cycle: LifeCycle) -> str:
    """Return the first program of a life cycle that is not here, or nothing."""
    tools = (command[0] for command in (cycle.start, cycle.stop, cycle.status) if command)
    return next((tool for tool in tools if shutil.which(tool) is None), "")


# ---- notes ---------------------------------------------------------------------------------------


class _Note(
    msgspec.Struct, frozen=True, rename={"running_pattern": "runs", "stop_timeout": "patience"}
):
    """That an isobench has started a machine: how to stop it."""

    owner: str
    stop: list[str]
    status: list[str] = []
    running_pattern: str = ""
    stop_timeout: float = 120.0


def _notes() -> Path:
    return paths.cache() / "machines"


def _name(cycle: LifeCycle, *more: str) -> str:
    return hashlib.sha256("\0".join((*cycle.start, *more)).encode()).hexdigest()[:16]


def _locked(cycle: LifeCycle) -> int:
    """Take a machine for this process alone: of two that use it, one would stop it under the other.

    Return what closes at the end of its use. SessionError: another isobench has it.
    """
    _notes().mkdir(parents=True, exist_ok=True)
    path = _notes() / f"{_name(cycle)}.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise SessionError(
            "another isobench, or another target of this one, uses this machine",
            hint="one at a time: two would measure each other, and stop it under each other",
        ) from None
    return descriptor


def _write(cycle: LifeCycle, stop_timeout: float) -> Path:
    note = _Note(
        owner=ownership.mine(),
        stop=[*cycle.stop],
        status=[*cycle.status],
        running_pattern=cycle.running_pattern,
        stop_timeout=stop_timeout,
    )
    _notes().mkdir(parents=True, exist_ok=True)
    name = _name(cycle, ownership.mine())
    fresh = _notes() / f".{name}"
    fresh.write_bytes(msgspec.json.encode(note))
    fresh.chmod(0o600)
    return fresh.rename(_notes() / f"{name}.json")


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Stop and return the machines that an isobench had started and could not stop.

    What this process has tried in vain it tries no more: every target of this kind sweeps.
    """
    found = []
    for path in sorted({*_notes().glob("*.json")} - _failed_notes):
        try:
            note = msgspec.json.decode(path.read_bytes(), type=_Note)
        except (OSError, msgspec.DecodeError):
            continue
        if alive(note.owner):
            continue
        cycle = LifeCycle(
            start=(),
            stop=tuple(note.stop),
            status=tuple(note.status),
            running_pattern=note.running_pattern,
        )
        what = " ".join(note.stop)[:120]
        if cycle.status and not _is_running(cycle):
            found.append(Leftover(what=f"note of a machine that does not run any more ({what})"))
        else:
            code, said = execute(note.stop, timeout=note.stop_timeout)
            # One that is shutting down yet would be taken for one that somebody else has started.
            stopped = code == 0 and (
                not cycle.status or _wait_until_stopped(cycle, note.stop_timeout)
            )
            if not stopped:
                told = _describe(note.stop, code, said)
                what = f"machine that isobench started ({path})"
                found.append(Leftover(what=what, failure=told))
                _failed_notes.add(path)
                continue
            found.append(Leftover(what=f"machine ({what})"))
        path.unlink(missing_ok=True)
    return found


def _is_running(cycle: LifeCycle) -> bool:
    code, said = execute(cycle.status, timeout=_STATUS_TIMEOUT)
    if not cycle.running_pattern:
        return code == 0
    return code == 0 and re.search(cycle.running_pattern, said) is not None


def _wait_until_stopped(cycle: LifeCycle, stop_timeout: float) -> bool:
    """Wait for a machine that was asked to stop; say whether it has."""
    end = time.monotonic() + stop_timeout
    while _is_running(cycle):
        if time.monotonic() > end:
            return False
        time.sleep(_POLL)
    return True


# ---- the machine ---------------------------------------------------------------------------------


@dataclass(kw_only=True)
class Machine:
    """One machine and who uses it in this process: the first starts it, the last stops it."""

    cycle: LifeCycle
    is_reachable: Callable[[], bool]
    """Whether it is reached: stands in for a status command where there is none."""
    start_timeout: float
    stop_timeout: float
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _users: int = 0
    _note: Path | None = None
    """There is one while the machine runs by our doing."""
    _lock_descriptor: int = -1
    """An open file with a lock while the machine is used."""

    def is_running(self) -> bool:
        """Say whether it runs."""
        return _is_running(self.cycle) if self.cycle.status else self.is_reachable()

    @contextlib.contextmanager
    def keep_running(self, on_phase: Callable[[str], None], *, begin: str = "") -> Iterator[None]:
        """Have the machine running; it is stopped after the last use, if it was started for one.

        With `begin` it must not run before, and that is marked just before it is started.
        SessionError: it cannot be started, cannot be stopped, or runs already.
        """
        with self._lock:
            if not self._users:
                self._lock_descriptor = _locked(self.cycle)
            try:
                self._ensure_running(on_phase, begin)
            except BaseException:
                self._release()
                raise
            self._users += 1
        first: BaseException | None = None
        try:
            yield
        except BaseException as error:
            first = error
            raise
        finally:
            with self._lock:
                self._users -= 1
                try:
                    if not self._users and self._note is not None:
                        self._stop(on_phase)
                except SessionError as second:
                    if first is None:
                        raise
                    if isinstance(first, SessionError):
                        raise SessionError(
                            f"{first}; and {second}", hint=first.hint or second.hint, log=first.log
                        ) from None
                    # Ctrl-C goes through: a run that is interrupted sweeps up after itself.
                finally:
                    self._release()

    def _ensure_running(self, on_phase: Callable[[str], None], begin: str) -> None:
        if begin and not self._users and self._note is not None and self.is_running():
            raise SessionError(
                "the machine still runs: it was not to be stopped after its last use, so that its"
                " start cannot be timed",
                hint="try the stop command by hand",
            )
        if begin and (self._users or self.is_running()):
            raise SessionError(
                "the machine is running, so that its start cannot be timed",
                hint="shut it down before; isobench stops no machine that it has not started",
            )
        if not self._users and (begin or not self.is_running()):
            self._start(on_phase, begin)

    def _release(self) -> None:
        if not self._users:
            os.close(self._lock_descriptor)
            self._lock_descriptor = -1

    def _start(self, on_phase: Callable[[str], None], begin: str) -> None:
        self._note = _write(self.cycle, self.stop_timeout)
        if begin:
            on_phase(begin)
        code, said = execute(self.cycle.start, timeout=self.start_timeout)
        if code != 0:
            told = _describe(self.cycle.start, code, said)
            # It may be half started.
            execute(self.cycle.stop, timeout=_STATUS_TIMEOUT)
            self._remove_note()
            raise SessionError(
                f"the machine cannot be started: {told}",
                hint="a start command must end once the machine is on its way"
                if code is None
                else "try the start command by hand",
            )
        on_phase("machine.started")

    def _stop(self, on_phase: Callable[[str], None]) -> None:
        on_phase("shutdown.asked")
        code, said = execute(self.cycle.stop, timeout=self.stop_timeout)
        if code != 0:
            raise SessionError(
                f"the machine cannot be stopped: {_describe(self.cycle.stop, code, said)}",
                hint="try the stop command by hand",
            )
        end = time.monotonic() + self.stop_timeout
        while self.is_running():
            if time.monotonic() > end:
                raise SessionError(
                    f"the machine was asked to stop and runs {self.stop_timeout:g} s later",
                    hint="a stop command that is heeded, or a longer stop_timeout",
                )
            time.sleep(_POLL)
        on_phase("machine.gone")
        self._remove_note()

    def _remove_note(self) -> None:
        if self._note is not None:
            self._note.unlink(missing_ok=True)
            self._note = None
