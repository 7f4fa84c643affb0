"""What /dev/kvm really does on this machine: whether it can run an unmodified kernel.

That the device opens and names its capabilities proves little. KVM-PVM (cloud machines whose
processor keeps VT-x and SVM to itself) answers every question as the others do, and yet emulates
ring 0: a kernel dies in it after minutes, at an instruction that the emulator does not know. So a
guest is started and watched, by a process of its own that may hang: see `_kvm_trial`.

`judge` decides over what was seen and touches nothing. Never exercised: a processor with VT-x, and
any real one that executes ring 0; an accepted guest was seen on Linux 6.1 with kvm_amd on a
processor with SVM that QEMU emulated. On ARM no guest is run and this code has never run; its calls
were made, by a program in C, on Linux 6.1 on an emulated processor, and succeeded.
"""

import errno
import grp
import os
import signal
import stat
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from isobench.model import Lack
from isobench.targets.shared import kvm_trial, processes

DEVICE: Final = Path("/dev/kvm")
SPEED: Final = 20.0
"""Million loop iterations a second that ring 0 must reach. KVM-PVM was seen to do 0.1 to 1, SVM of
an emulated processor 170 to 240; a processor of today executes one in each cycle."""

_PATIENCE: Final = kvm_trial.SECONDS + 0.4
_GRACE: Final = 0.2
_TRIAL: Final = Path(kvm_trial.__file__)
_LOG: Final = "sudo dmesg | grep -i kvm"

_NOT_PVM: Final = "run isobench where `ls /sys/module` shows kvm_intel or kvm_amd, not kvm_pvm"

_STEPS: Final = {
    kvm_trial.REAL_MODE: "real mode",
    kvm_trial.PROTECTED_MODE: "the way to protected mode",
    kvm_trial.LONG_MODE: "the way to long mode",
    kvm_trial.CMPXCHG16B: "lock cmpxchg16b",
    kvm_trial.INT3: "int3",
    kvm_trial.IRETQ: "iretq",
}
"""What the guest was at when it had not yet reported the letter, in its order."""
_CALLS: Final = {
    "open": "opening it",
    "version": "asking for its version",
    "machine": "making a virtual machine",
    "processor": "making a virtual processor",
    "guest": "KVM_RUN",
}
_EXITS: Final = {
    5: "KVM_EXIT_HLT: it computed something wrong",
    8: "KVM_EXIT_SHUTDOWN: a triple fault",
    9: "KVM_EXIT_FAIL_ENTRY, hardware reason {:#x}",
    17: "KVM_EXIT_INTERNAL_ERROR, suberror {}",
}
_HALTED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """What /dev/kvm really does."""

    flavour: str
    """ "VT-x", "SVM", "PVM", "ARM", "nested VT-x" where the host itself is a guest; "KVM": unknown.
    """
    lack: Lack | None = None
    """None: guests execute in ring 0. On machines other than x86_64 that is taken on trust."""
    what: str = ""
    """What is wrong, as the end of a sentence."""
    hint: str = ""
    """What to type or to do about it."""
    speed: float | None = None
    """Million iterations a second of a loop in ring 0; None: it was not tried, or not reached."""

    @property
    def summary(self) -> str:
        """The kind of acceleration in words, for the version of a target."""
        if self.lack is not None:
            return f"{self.flavour}: {self.what}"
        tried = "execution not tried" if self.speed is None else "ring 0 executes"
        return f"{self.flavour}, {tried}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What was seen of a machine and its /dev/kvm."""

    architecture: str
    """As `uname -m` has it."""
    modules: frozenset[str] = frozenset()
    """Of /sys/module, those whose names begin with kvm."""
    flags: frozenset[str] = frozenset()
    """Of /proc/cpuinfo: vmx, svm, hypervisor and the rest."""
    device: str = str(DEVICE)
    group: str = ""
    """Whose members may open the device; empty: no group may."""
    doing: str = ""
    """The last step that the trial began, "end" for all; empty: it did not begin."""
    error: int | None = None
    """errno of that step."""
    version: int | None = None
    passed: str = ""
    """Letters that the guest has reported."""
    speed: float | None = None
    exit: tuple[int, int] | None = None
    """Why KVM gave the guest up, and a detail of it."""
    fault: str = ""
    """How the trial itself failed."""


# ---- the decision --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Refusal:
    lack: Lack
    what: str
    hint: str


def judge(seen: Observation) -> Acceleration:
    """Decide whether an unmodified kernel could run, and if not, why."""
    refusal = _refusal(seen)
    good = Acceleration(flavour=_flavour(seen), speed=seen.speed)
    if refusal is None:
        return good
    return replace(good, lack=refusal.lack, what=refusal.what, hint=refusal.hint)


def _flavour(seen: Observation) -> str:
    if seen.architecture == "aarch64":
        return "ARM"
    # A module that is built in is there on processors of the other maker too.
    by_name = {"kvm_intel": ("vmx", "VT-x"), "kvm_amd": ("svm", "SVM")}
    for module, (flag, name) in by_name.items():
        if module in seen.modules and flag in seen.flags:
            return f"nested {name}" if "hypervisor" in seen.flags else name
    return "PVM" if "kvm_pvm" in seen.modules else "KVM"


def _refusal(seen: Observation) -> _Refusal | None:
    if seen.error is not None:
        return _failed_call(seen, seen.error)
    if seen.version is not None and seen.version != kvm_trial.API:
        return _Refusal(
            Lack.VERSION,
            f"{seen.device} speaks version {seen.version} of KVM's API, not {kvm_trial.API}",
            "boot a kernel of 2007 or newer",
        )
    if seen.fault:
        return _Refusal(Lack.RUNTIME, f"the trial of {seen.device} failed: {seen.fault}", _LOG)
    if not seen.doing:
        return _Refusal(
            Lack.RUNTIME,
            f"the trial of {seen.device} did not begin in time",
            "try again when this machine is less busy",
        )
    if seen.doing != "end":
        where = f" in {_at(seen)}" if seen.doing == "guest" else ""
        return _Refusal(
            Lack.RUNTIME,
            f"{seen.device} does not answer: {_CALLS[seen.doing]} has not returned{where}",
            _LOG,
        )
    if seen.exit is None:
        return None  # nothing was executed
    return _bad_guest(seen, seen.exit)


def _bad_guest(seen: Observation, end: tuple[int, int]) -> _Refusal | None:
    slow = seen.speed is not None and seen.speed < SPEED
    failed = end[0] != _HALTED or not set(_STEPS) <= set(seen.passed) or seen.speed is None
    complaints = []
    if slow:
        complaints.append(
            f"ring 0 of a guest is emulated ({seen.speed:.1f} million loop iterations a second,"
            f" {SPEED:.0f} are demanded)"
        )
    if failed:
        reason, detail = end
        said = _EXITS.get(reason, "KVM exit reason {1}").format(detail, reason)
        complaints.append(f"{_at(seen)} of a guest ends in {said}")
    if not complaints:
        return None
    return _Refusal(
        Lack.RUNTIME,
        f"{seen.device} opens and cannot run an unmodified kernel: {'; '.join(complaints)}",
        _NOT_PVM if _flavour(seen) == "PVM" else _LOG,
    )


def _at(seen: Observation) -> str:
    """Name what the guest was at."""
    if seen.speed is None and kvm_trial.LONG_MODE in seen.passed:
        return "the loop"
    return next((words for letter, words in _STEPS.items() if letter not in seen.passed), "hlt")


def _failed_call(seen: Observation, number: int) -> _Refusal:
    device, said = seen.device, os.strerror(number)
    if seen.doing == "open":
        if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            return _missing(seen)
        if number == errno.EACCES and _flavour(seen) == "PVM":
            # To be let in would not help: no unmodified kernel runs there.
            return _Refusal(
                Lack.PERMISSION,
                f"{device} may not be opened by this user; it is KVM-PVM's, which was never seen to"
                " run an unmodified kernel",
                _NOT_PVM,
            )
        if number == errno.EACCES:
            group = seen.group or "kvm"
            give = "" if seen.group else f"sudo chgrp kvm {device} && sudo chmod 660 {device} && "
            return _Refusal(
                Lack.PERMISSION,
                f"{device} may not be opened by this user",
                f"{give}sudo usermod -aG {group} $USER, then log in again",
            )
        if number == errno.EPERM:
            return _Refusal(
                Lack.PERMISSION,
                f"{device} is kept from this container",
                f"start the container with --device {device}",
            )
    if seen.doing == "version":
        return _Refusal(
            Lack.DEVICE,
            f"{device} is not KVM's device: {said}",
            f"ls -l {device}, which shows 10, 232 where it is KVM's",
        )
    if seen.doing in {"machine", "processor"} and number == errno.EBUSY:
        return _Refusal(
            Lack.RUNTIME,
            "another hypervisor holds the processor's virtualization",
            "lsmod | grep -E 'vbox|vmmon', then end VirtualBox or VMware",
        )
    return _Refusal(Lack.RUNTIME, f"{device} does not work: {_CALLS[seen.doing]}: {said}", _LOG)


def _missing(seen: Observation) -> _Refusal:
    device = seen.device
    module = "kvm_intel" if "vmx" in seen.flags else "kvm_amd" if "svm" in seen.flags else ""
    if seen.architecture != "x86_64":
        why, hint = "this kernel has not started KVM", _LOG
    elif _flavour(seen) != "KVM":
        why = "the kernel has KVM, and this container or /dev lacks the device"
        hint = f"start the container with --device {device}, or sudo mknod -m 660 {device} c 10 232"
    elif module:
        why, hint = f"the processor can, and {module} is not loaded", f"sudo modprobe {module}"
    elif "hypervisor" in seen.flags:
        why = "this machine is a guest itself, without nested virtualization"
        hint = "turn on nested virtualization for this guest where its hypervisor runs"
    else:
        why = "the processor lacks virtualization, or the firmware has it switched off"
        hint = "turn on VT-x or SVM (AMD-V) in the firmware's set-up"
    return _Refusal(Lack.DEVICE, f"there is no {device}: {why}", hint)


# ---- looking -------------------------------------------------------------------------------------


def examine(device: Path = DEVICE) -> Acceleration:
    """Try what the device does, within two seconds; raises nothing, leaves nothing."""
    output, fault = _try(device)
    about = Observation(
        architecture=os.uname().machine,
        modules=_modules(),
        flags=_flags(),
        device=str(device),
        group=_group(device),
        fault=fault,
    )
    return judge(with_output(about, output))


def with_output(about: Observation, output: bytes) -> Observation:
    """Add the lines of a trial to what is known of the machine."""
    seen = about
    for line in output.decode(errors="replace").split("\n")[:-1]:  # the last was cut short
        match line.split():
            case ["doing", step]:
                seen = replace(seen, doing=step)
            case ["version", number]:
                seen = replace(seen, version=int(number))
            case ["passed", letter]:
                seen = replace(seen, passed=seen.passed + letter)
            case ["speed", number]:
                seen = replace(seen, speed=float(number))
            case ["exit", reason, detail]:
                seen = replace(seen, exit=(int(reason), int(detail)))
            case ["error", number]:
                seen = replace(seen, error=int(number))
            case _:
                pass
    return seen


def _try(device: Path) -> tuple[bytes, str]:
    """Return what the trial has said, and how it failed if not by its alarm."""
    try:
        process = processes.start(
            [sys.executable, "-I", "-S", _TRIAL, os.fspath(device)], env=os.environ
        )
    except OSError as error:
        return b"", str(error)
    try:
        output, said = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return _remaining_output(process), ""
    if process.returncode in {0, -signal.SIGALRM}:
        return output, ""
    if process.returncode < 0:
        return output, f"it was ended by signal {-process.returncode}"
    return output, processes.last_line(said)


def _remaining_output(process: subprocess.Popen[bytes]) -> bytes:
    """Return what a killed process has said, and wait for it no longer than is bearable."""
    try:
        return process.communicate(timeout=_GRACE)[0]
    except subprocess.TimeoutExpired as error:
        # Not even a kill ends a process that the kernel does not let go. Nobody can remove it now;
        # once it is let go, it is gone.
        threading.Thread(target=process.wait, daemon=True).start()
        for pipe in (process.stdout, process.stderr):
            if pipe is not None:
                pipe.close()
        return error.output or b""


def _modules() -> frozenset[str]:
    try:
        return frozenset(path.name for path in Path("/sys/module").glob("kvm*"))
    except OSError:
        return frozenset()


def _flags() -> frozenset[str]:
    """Read the features of the first processor."""
    try:
        with Path("/proc/cpuinfo").open(encoding="utf-8", errors="replace") as lines:
            found = next((line for line in lines if line.startswith("flags")), "")
    except OSError:
        return frozenset()
    return frozenset(found.partition(":")[2].split())


def _group(device: Path) -> str:
    """Name the group that may read and write the device, by number where it has no name."""
    try:
        status = device.stat()
    except OSError:
        return ""
    if status.st_gid == 0 or status.st_mode & 0o060 != stat.S_IRGRP | stat.S_IWGRP:
        return ""
    try:
        return grp.getgrgid(status.st_gid).gr_name
    except KeyError:
        return str(status.st_gid)
