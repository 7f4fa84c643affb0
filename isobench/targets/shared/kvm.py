"""Find out whether /dev/kvm can run an unmodified kernel on this machine.

That the device opens and reports its capabilities proves little. KVM-PVM (on cloud machines that
give their guests neither VT-x nor SVM) reports the same, but emulates ring 0: a kernel runs in it
for minutes and then dies at an instruction that the emulator lacks. So a guest is started and
observed, in a process that may hang: see `kvm_trial`.

`judge` is pure: it decides from an `Observation`. Not tested: a processor with VT-x, and any real
processor that executes ring 0. An accepted guest was seen on Linux 6.1 with kvm_amd, on a processor
with SVM that QEMU emulated. On ARM no guest is run, and this code has never run: a C program made
the same calls on Linux 6.1 on an emulated processor, and they succeeded.
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

from isobench.model import Lack, commands
from isobench.targets.shared import kvm_trial, processes

DEVICE: Final = Path("/dev/kvm")
SPEED: Final = 20.0
"""Million loop iterations a second that ring 0 must reach.

Measured: KVM-PVM 0.1 to 1, SVM of an emulated processor 170 to 240. A current processor executes
one iteration in each cycle.
"""

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
"""What the guest does before it reports each letter, in its order."""
_CALLS: Final = {
    "open": "opening it",
    "version": "asking for its version",
    "machine": "making a virtual machine",
    "processor": "making a virtual processor",
    "guest": "KVM_RUN",
}
# Numbers of linux/kvm.h.
_EXITS: Final = {
    5: "KVM_EXIT_HLT: it computed something wrong",
    8: "KVM_EXIT_SHUTDOWN: a triple fault",
    9: "KVM_EXIT_FAIL_ENTRY, hardware reason {:#x}",
    17: "KVM_EXIT_INTERNAL_ERROR, suberror {}",
}
_HALTED: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Acceleration:
    """Whether /dev/kvm runs an unmodified kernel, and by which technology."""

    flavour: str
    """ "VT-x", "SVM", "PVM" or "ARM"; "nested VT-x" where the host is a guest; "KVM": unknown."""
    lack: Lack | None = None
    """None: guests execute in ring 0. On machines other than x86_64 that is assumed."""
    what: str = ""
    """What is wrong, as a clause without a full stop."""
    hint: str = ""
    """What to type or to do."""
    speed: float | None = None
    """Million iterations a second of a loop in ring 0; None: not tried, or not reached."""

    @property
    def summary(self) -> str:
        """A description of the acceleration, for the version of a target."""
        if self.lack is not None:
            return f"{self.flavour}: {self.what}"
        tried = "execution not tried" if self.speed is None else "ring 0 executes"
        return f"{self.flavour}, {tried}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What is known of a machine and of its /dev/kvm."""

    architecture: str
    """As `uname -m` prints it."""
    modules: frozenset[str] = frozenset()
    """The names in /sys/module that begin with kvm."""
    flags: frozenset[str] = frozenset()
    """The first processor's flags in /proc/cpuinfo: vmx, svm, hypervisor and others."""
    device: str = str(DEVICE)
    group: str = ""
    """The group whose members may open the device; empty: none."""
    doing: str = ""
    """The last step that the trial began; "end": all are done; empty: it did not begin."""
    error: int | None = None
    """errno of that step."""
    version: int | None = None
    """Of KVM's API; None: unknown."""
    passed: str = ""
    """The letters that the guest has reported."""
    speed: float | None = None
    """As `Acceleration.speed`."""
    exit: tuple[int, int] | None = None
    """KVM's last exit reason and its detail."""
    fault: str = ""
    """How the trial process itself failed; empty: it did not."""


# ---- the decision --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Refusal:
    lack: Lack
    what: str
    hint: str


def judge(observed: Observation) -> Acceleration:
    """Decide whether an unmodified kernel can run, and if not, why."""
    refusal = _refusal(observed)
    good = Acceleration(flavour=_flavour(observed), speed=observed.speed)
    if refusal is None:
        return good
    return replace(good, lack=refusal.lack, what=refusal.what, hint=refusal.hint)


def _flavour(observed: Observation) -> str:
    if observed.architecture == "aarch64":
        return "ARM"
    # /sys/module lists built-in modules as well, on processors of the other vendor too.
    by_name = {"kvm_intel": ("vmx", "VT-x"), "kvm_amd": ("svm", "SVM")}
    for module, (flag, name) in by_name.items():
        if module in observed.modules and flag in observed.flags:
            return f"nested {name}" if "hypervisor" in observed.flags else name
    return "PVM" if "kvm_pvm" in observed.modules else "KVM"


def _refusal(observed: Observation) -> _Refusal | None:
    if observed.error is not None:
        return _failed_call(observed, observed.error)
    if observed.version is not None and observed.version != kvm_trial.API:
        return _Refusal(
            Lack.VERSION,
            f"{observed.device} has version {observed.version} of KVM's API, not {kvm_trial.API}",
            "boot a kernel of 2007 or newer",
        )
    if observed.fault:
        return _Refusal(
            Lack.RUNTIME, f"the trial of {observed.device} failed: {observed.fault}", _LOG
        )
    if not observed.doing:
        return _Refusal(
            Lack.RUNTIME,
            f"the trial of {observed.device} did not begin in time",
            "try again when this machine is less busy",
        )
    if observed.doing != "end":
        where = f" in {_at(observed)}" if observed.doing == "guest" else ""
        return _Refusal(
            Lack.RUNTIME,
            f"{observed.device} does not answer: {_CALLS[observed.doing]} has not returned{where}",
            _LOG,
        )
    if observed.exit is None:
        return None  # no guest is run on this architecture
    return _bad_guest(observed, observed.exit)


def _bad_guest(observed: Observation, end: tuple[int, int]) -> _Refusal | None:
    slow = observed.speed is not None and observed.speed < SPEED
    failed = end[0] != _HALTED or not set(_STEPS) <= set(observed.passed) or observed.speed is None
    faults = []
    if slow:
        faults.append(
            f"ring 0 of a guest is emulated ({observed.speed:.1f} million loop iterations a second,"
            f" {SPEED:.0f} are required)"
        )
    if failed:
        reason, detail = end
        exit_ = _EXITS.get(reason, "KVM exit reason {1}").format(detail, reason)
        faults.append(f"{_at(observed)} of a guest ends in {exit_}")
    if not faults:
        return None
    return _Refusal(
        Lack.RUNTIME,
        f"{observed.device} opens and cannot run an unmodified kernel: {'; '.join(faults)}",
        _NOT_PVM if _flavour(observed) == "PVM" else _LOG,
    )


def _at(observed: Observation) -> str:
    """Return what the guest was doing when it ended."""
    if observed.speed is None and kvm_trial.LONG_MODE in observed.passed:
        return "the loop"
    return next((words for letter, words in _STEPS.items() if letter not in observed.passed), "hlt")


def _failed_call(observed: Observation, number: int) -> _Refusal:
    device, message = observed.device, os.strerror(number)
    if observed.doing == "open":
        if number in {errno.ENOENT, errno.ENODEV, errno.ENXIO}:
            return _missing(observed)
        if number == errno.EACCES:
            return _no_access(observed)
        # The device cgroup of a container denies with EPERM, file permissions with EACCES.
        if number == errno.EPERM:
            return _Refusal(
                Lack.PERMISSION,
                f"this container may not use {device}",
                f"start the container with --device {device}",
            )
    if observed.doing == "version":
        return _Refusal(
            Lack.DEVICE,
            f"{device} is not KVM's device: {message}",
            f"ls -l {device}, which shows 10, 232 where it is KVM's",
        )
    # VT-x and SVM have one owner at a time on each processor.
    if observed.doing in {"machine", "processor"} and number == errno.EBUSY:
        return _Refusal(
            Lack.RUNTIME,
            "another hypervisor holds the processor's virtualization",
            "lsmod | grep -E 'vbox|vmmon', then end VirtualBox or VMware",
        )
    return _Refusal(
        Lack.RUNTIME, f"{device} does not work: {_CALLS[observed.doing]}: {message}", _LOG
    )


def _no_access(observed: Observation) -> _Refusal:
    device = observed.device
    if _flavour(observed) == "PVM":
        # Permission would not help: no unmodified kernel runs there.
        return _Refusal(
            Lack.PERMISSION,
            f"this user may not open {device}; it is KVM-PVM's, on which no unmodified kernel has"
            " ever run in tests",
            _NOT_PVM,
        )
    group = observed.group or "kvm"
    place = commands.path(device)
    give = "" if observed.group else f"sudo chgrp kvm {place} && sudo chmod 660 {place} && "
    return _Refusal(
        Lack.PERMISSION,
        f"this user may not open {device}",
        f"{give}sudo usermod -aG {group} $USER, then log in again",
    )


def _missing(observed: Observation) -> _Refusal:
    device = observed.device
    module = (
        "kvm_intel" if "vmx" in observed.flags else "kvm_amd" if "svm" in observed.flags else ""
    )
    if observed.architecture != "x86_64":
        why, hint = "this kernel has not started KVM", _LOG
    elif _flavour(observed) != "KVM":
        why = "the kernel has KVM, but this container or /dev lacks the device"
        hint = f"start the container with --device {device}, or sudo mknod -m 660 {device} c 10 232"
    elif module:
        why = f"the processor has virtualization, but {module} is not loaded"
        hint = f"sudo modprobe {module}"
    elif "hypervisor" in observed.flags:
        why = "this machine is itself a guest, without nested virtualization"
        hint = "turn on nested virtualization for this guest where its hypervisor runs"
    else:
        why = "the processor lacks virtualization, or the firmware has it switched off"
        hint = "turn on VT-x or SVM (AMD-V) in the firmware's set-up"
    return _Refusal(Lack.DEVICE, f"there is no {device}: {why}", hint)


# ---- the observation -----------------------------------------------------------------------------


def examine(device: Path = DEVICE) -> Acceleration:
    """Run the trial on a device and judge it, in at most two seconds.

    Raises nothing. No process and no descriptor of this process stays open, except that the kernel
    may keep a process that it cannot end.
    """
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
    """Add the lines of a trial's output (see `kvm_trial`) to an observation."""
    observed = about
    # Whatever follows the last newline was cut short by the end of the process.
    for line in output.decode(errors="replace").split("\n")[:-1]:
        match line.split():
            case ["doing", step]:
                observed = replace(observed, doing=step)
            case ["version", number]:
                observed = replace(observed, version=int(number))
            case ["passed", letter]:
                observed = replace(observed, passed=observed.passed + letter)
            case ["speed", number]:
                observed = replace(observed, speed=float(number))
            case ["exit", reason, detail]:
                observed = replace(observed, exit=(int(reason), int(detail)))
            case ["error", number]:
                observed = replace(observed, error=int(number))
            case _:
                pass
    return observed


def _try(device: Path) -> tuple[bytes, str]:
    """Return the trial's output, and how it failed; empty if it ended by itself or by its alarm."""
    try:
        process = processes.start(
            [sys.executable, "-I", "-S", _TRIAL, os.fspath(device)], env=os.environ
        )
    except OSError as error:
        return b"", str(error)
    try:
        output, errors = process.communicate(timeout=_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        return _remaining_output(process), ""
    if process.returncode in {0, -signal.SIGALRM}:
        return output, ""
    if process.returncode < 0:
        return output, f"it was ended by signal {-process.returncode}"
    return output, processes.last_line(errors)


def _remaining_output(process: subprocess.Popen[bytes]) -> bytes:
    """Return the output of a killed process; wait for its end for `_GRACE` seconds."""
    try:
        return process.communicate(timeout=_GRACE)[0]
    except subprocess.TimeoutExpired as error:
        # SIGKILL does not end a process that is stuck in the kernel (KVM_RUN). It ends when the
        # kernel lets it go; the thread then reaps it.
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
    """Return the group that may read and write the device, its number where it has no name.

    Empty where there is none, or only root's.
    """
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
