"""/dev/kvm: the decision from an observation, the guest, and the process that runs it."""

import errno
import os
import signal
import struct
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from isobench.model import Lack
from isobench.targets.shared import kvm, kvm_trial, processes
from isobench.targets.shared.kvm import Observation

INTEL: dict[str, Any] = {
    "architecture": "x86_64",
    "modules": frozenset({"kvm", "kvm_intel"}),
    "flags": frozenset({"fpu", "vmx"}),
    "group": "kvm",
}
GOOD: dict[str, Any] = {
    **INTEL,
    "doing": "end",
    "version": 12,
    "passed": "rplcib",
    "speed": 1800.0,
    "exit": (5, 0),
}
PVM: dict[str, Any] = {
    "modules": frozenset({"kvm", "kvm_pvm"}),
    "flags": frozenset({"fpu", "hypervisor"}),
}


def judged(known: dict[str, Any], **seen: Any) -> kvm.Acceleration:
    return kvm.judge(Observation(**{**known, **seen}))


# ---- the decision --------------------------------------------------------------------------------


def test_a_guest_that_does_all_at_speed_is_accepted() -> None:
    answer = judged(GOOD)
    assert (answer.lack, answer.what, answer.hint) == (None, "", "")
    assert (answer.flavour, answer.speed) == ("VT-x", 1800.0)
    assert answer.summary == "VT-x, ring 0 executes"


@pytest.mark.parametrize(
    ("modules", "flags", "flavour"),
    [
        ("kvm kvm_intel", "vmx", "VT-x"),
        ("kvm kvm_intel", "vmx hypervisor", "nested VT-x"),
        ("kvm kvm_amd", "svm", "SVM"),
        ("kvm kvm_amd", "svm hypervisor", "nested SVM"),
        ("kvm kvm_pvm", "hypervisor", "PVM"),
        # All built in: the other vendor's module is there and does nothing.
        ("kvm kvm_intel kvm_amd", "svm", "SVM"),
        ("kvm kvm_intel kvm_pvm", "hypervisor", "PVM"),
        ("kvm kvm_intel kvm_pvm", "vmx", "VT-x"),
        ("", "vmx", "KVM"),
    ],
)
def test_the_flavour_is_the_module_that_this_processor_can_use(
    modules: str, flags: str, flavour: str
) -> None:
    answer = judged(GOOD, modules=frozenset(modules.split()), flags=frozenset(flags.split()))
    assert answer.flavour == flavour


def test_arm_is_accepted_untried_and_says_so() -> None:
    answer = judged({"architecture": "aarch64", "doing": "end", "version": 12})
    assert (answer.flavour, answer.lack, answer.speed) == ("ARM", None, None)
    assert answer.summary == "ARM, execution not tried"


OPEN = {"doing": "open", "error": errno.ENOENT}
BARE: dict[str, Any] = {"architecture": "x86_64"}


@pytest.mark.parametrize(
    ("known", "what", "hint"),
    [
        (INTEL, "lacks the device", "--device /dev/kvm"),
        ({**BARE, "flags": {"vmx"}}, "kvm_intel is not loaded", "sudo modprobe kvm_intel"),
        ({**BARE, "flags": {"svm", "hypervisor"}}, "kvm_amd is not", "sudo modprobe kvm_amd"),
        ({**BARE, "flags": {"hypervisor"}}, "itself a guest", "turn on nested virtualization"),
        (BARE, "the firmware has it switched off", "VT-x or SVM"),
        # Built in, on a processor without the flag: the firmware's doing, not a container's.
        ({**BARE, "modules": {"kvm_intel"}}, "the firmware has it switched off", "VT-x or SVM"),
        ({"architecture": "aarch64"}, "has not started KVM", "dmesg"),
    ],
)
@pytest.mark.parametrize("number", [errno.ENOENT, errno.ENODEV, errno.ENXIO])
def test_a_missing_device_is_explained(
    known: dict[str, Any], what: str, hint: str, number: int
) -> None:
    answer = judged(known, doing="open", error=number)
    assert answer.lack is Lack.DEVICE
    assert answer.what.startswith("there is no /dev/kvm: ")
    assert what in answer.what
    assert hint in answer.hint


@pytest.mark.parametrize(
    ("doing", "number", "lack", "what", "hint"),
    [
        ("open", errno.EACCES, Lack.PERMISSION, "this user may", "sudo usermod -aG kvm $USER"),
        ("open", errno.EPERM, Lack.PERMISSION, "this container", "--device /dev/kvm"),
        ("open", errno.EMFILE, Lack.RUNTIME, "opening it: Too many open files", "dmesg"),
        ("version", errno.ENOTTY, Lack.DEVICE, "not KVM's device", "ls -l /dev/kvm"),
        ("machine", errno.EBUSY, Lack.RUNTIME, "another hypervisor", "VirtualBox or VMware"),
        ("processor", errno.EBUSY, Lack.RUNTIME, "another hypervisor", "VirtualBox or VMware"),
        ("machine", errno.ENOMEM, Lack.RUNTIME, "a virtual machine: Cannot allocate", "dmesg"),
        ("processor", errno.EINVAL, Lack.RUNTIME, "a virtual processor: Invalid", "dmesg"),
        ("guest", errno.EFAULT, Lack.RUNTIME, "KVM_RUN: Bad address", "dmesg"),
    ],
)
def test_a_failed_call_is_named_with_a_hint(
    doing: str, number: int, lack: Lack, what: str, hint: str
) -> None:
    answer = judged(INTEL, doing=doing, error=number)
    assert answer.lack is lack
    assert what in answer.what
    assert hint in answer.hint


def test_the_hint_gives_the_device_to_a_group_before_the_user_joins_it() -> None:
    refused: dict[str, Any] = {"doing": "open", "error": errno.EACCES}
    assert judged(INTEL, **refused, group="virt").hint.startswith("sudo usermod -aG virt $USER")
    hint = judged(INTEL, **refused, group="").hint
    assert hint.startswith("sudo chgrp kvm /dev/kvm && sudo chmod 660 /dev/kvm && sudo usermod")


def test_no_hint_gives_access_to_a_device_that_runs_no_kernel() -> None:
    for group in ("", "kvm"):
        answer = judged(INTEL, **PVM, doing="open", error=errno.EACCES, group=group)
        assert answer.lack is Lack.PERMISSION
        assert "KVM-PVM" in answer.what
        assert "chgrp" not in answer.hint
        assert "kvm_intel or kvm_amd" in answer.hint


def test_another_version_of_the_api_is_refused() -> None:
    answer = judged(INTEL, doing="version", version=11)
    assert answer.lack is Lack.VERSION
    assert "version 11" in answer.what


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        ({"doing": ""}, "did not begin"),
        ({"doing": "open"}, "opening it has not returned"),
        ({"doing": "machine", "version": 12}, "making a virtual machine has not returned"),
        ({"doing": "guest", "version": 12}, "KVM_RUN has not returned in real mode"),
        ({"doing": "guest", "passed": "rp"}, "KVM_RUN has not returned in the way to long mode"),
        ({"doing": "guest", "passed": "rpl"}, "KVM_RUN has not returned in the loop"),
        ({"doing": "guest", "passed": "rpl", "speed": 900.0}, "has not returned in lock cmpxchg16"),
        ({"doing": "guest", "passed": "rplcib", "speed": 900.0}, "has not returned in hlt"),
    ],
)
def test_a_call_that_has_not_returned_is_named(seen: dict[str, Any], what: str) -> None:
    answer = judged(INTEL, **seen)
    assert answer.lack is Lack.RUNTIME
    assert what in answer.what
    assert answer.hint


def test_a_failure_of_the_trial_is_not_blamed_on_the_device() -> None:
    answer = judged(INTEL, doing="machine", version=12, fault="it was ended by signal 11")
    assert answer.lack is Lack.RUNTIME
    assert answer.what == "the trial of /dev/kvm failed: it was ended by signal 11"


def test_slow_emulation_is_refused_although_every_instruction_works() -> None:
    answer = judged(GOOD, **PVM, speed=0.2)
    assert answer.lack is Lack.RUNTIME
    assert answer.speed == 0.2
    assert answer.what.endswith("(0.2 million loop iterations a second, 20 are required)")
    assert "not kvm_pvm" in answer.hint


@pytest.mark.parametrize(("speed", "lack"), [(19.9, Lack.RUNTIME), (20.0, None)])
def test_the_limit_of_speed_is_20(speed: float, lack: Lack | None) -> None:
    assert judged(GOOD, speed=speed).lack is lack


@pytest.mark.parametrize(
    ("passed", "speed", "end", "what"),
    [
        ("rpl", 900.0, (17, 1), "lock cmpxchg16b of a guest ends in KVM_EXIT_INTERNAL_ERROR, sub"),
        ("rplc", 900.0, (17, 1), "int3 of a guest ends in KVM_EXIT_INTERNAL_ERROR, suberror 1"),
        ("rplci", 900.0, (8, 0), "iretq of a guest ends in KVM_EXIT_SHUTDOWN: a triple fault"),
        ("rpl", 900.0, (5, 0), "lock cmpxchg16b of a guest ends in KVM_EXIT_HLT: it computed"),
        ("rplcb", 900.0, (5, 0), "int3 of a guest ends in KVM_EXIT_HLT: it computed something"),
        ("rpl", None, (17, 3), "the loop of a guest ends in KVM_EXIT_INTERNAL_ERROR, suberror 3"),
        (
            "",
            None,
            (9, 0x80000021),
            "real mode of a guest ends in KVM_EXIT_FAIL_ENTRY, hardware re",
        ),
        ("", None, (9, 0x80000021), "reason 0x80000021"),
        ("rplcib", 900.0, (6, 0), "hlt of a guest ends in KVM exit reason 6"),
    ],
)
def test_a_failed_instruction_is_named_with_the_exit_reason(
    passed: str, speed: float | None, end: tuple[int, int], what: str
) -> None:
    answer = judged(GOOD, passed=passed, speed=speed, exit=end)
    assert answer.lack is Lack.RUNTIME
    assert what in answer.what
    assert "emulated" not in answer.what
    assert answer.hint


def test_slow_and_failing_are_both_reported() -> None:
    answer = judged(GOOD, **PVM, speed=0.2, passed="rpl", exit=(17, 1))
    assert "emulated" in answer.what
    assert "lock cmpxchg16b of a guest ends in KVM_EXIT_INTERNAL_ERROR, suberror 1" in answer.what
    assert answer.summary == f"PVM: {answer.what}"


# ---- the trial's output --------------------------------------------------------------------------


def test_the_lines_of_a_trial_are_read() -> None:
    lines = b"""doing open\ndoing version\nversion 12\ndoing machine\ndoing processor\ndoing guest
passed r\npassed p\npassed l\nspeed 1800.0\npassed c\npassed i\npassed b\nexit 5 0\ndoing end\n"""
    assert kvm.with_output(Observation(**INTEL), lines) == Observation(**GOOD)


def test_an_incomplete_last_line_is_ignored() -> None:
    seen = kvm.with_output(Observation(**INTEL), b"doing guest\npassed r\nspeed 18")
    assert (seen.doing, seen.passed, seen.speed) == ("guest", "r", None)


def test_an_error_belongs_to_the_last_step() -> None:
    seen = kvm.with_output(Observation(**INTEL), b"doing open\nerror 13\n")
    assert (seen.doing, seen.error) == ("open", 13)


def lines_with(
    monkeypatch: pytest.MonkeyPatch, architecture: str, answers: dict[int, int]
) -> tuple[list[str], list[tuple[int, Any]]]:
    """Replace the device by one with these answers; return the trial's lines and its requests."""
    requests: list[tuple[int, Any]] = []
    opened: list[int] = []

    def ioctl(descriptor: int, request: int, argument: Any = 0) -> int:
        opened.append(descriptor)
        requests.append((request, argument))
        return answers[request]

    monkeypatch.setattr(kvm_trial.fcntl, "ioctl", ioctl)
    lines = list(kvm_trial.trial(os.devnull, architecture))
    os.close(opened[0])  # the trial closes nothing: its process ends
    return lines, requests


def test_on_arm_the_machine_has_the_widest_addresses_and_is_not_run(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = {0xAE00: 12, 0xAE03: 36, 0xAE01: 1000, 0xAE41: 1001}
    lines, requests = lines_with(monkeypatch, "aarch64", answers)
    assert requests == [(0xAE00, 0), (0xAE03, 165), (0xAE01, 36), (0xAE41, 0)]
    assert lines[-1] == "doing end"
    seen = kvm.with_output(Observation(architecture="aarch64"), "\n".join([*lines, ""]).encode())
    assert kvm.judge(seen) == kvm.Acceleration(flavour="ARM")


def test_the_trial_stops_at_another_version_of_the_api(monkeypatch: pytest.MonkeyPatch) -> None:
    lines, requests = lines_with(monkeypatch, "x86_64", {0xAE00: 10})
    assert requests == [(0xAE00, 0)]
    assert lines == ["doing open", "doing version", "version 10"]


# ---- the guest -----------------------------------------------------------------------------------


def test_the_guest_is_a_boot_sector() -> None:
    sector = kvm_trial.boot_sector()
    assert len(sector) == 512
    assert sector.endswith(b"\x55\xaa")


def test_its_pointers_lead_to_its_tables() -> None:
    sector, base = kvm_trial.boot_sector(), kvm_trial.BASE
    lgdt = sector.index(b"\x0f\x01\x16")
    (pointer,) = struct.unpack_from("<H", sector, lgdt + 3)
    limit, gdt = struct.unpack_from("<HI", sector, pointer - base)
    descriptors = struct.unpack_from("<4Q", sector, gdt - base)
    assert limit == 31
    # Null; code with D and without L; data; code with L and without D.
    assert descriptors[0] == 0
    assert [entry >> 53 & 3 for entry in descriptors[1:]] == [0b10, 0b10, 0b01]
    assert [entry >> 40 & 0xFF for entry in descriptors[1:]] == [0x9A, 0x92, 0x9A]
    lidt = sector.index(b"\x0f\x01\x1c\x25")
    (pointer,) = struct.unpack_from("<I", sector, lidt + 4)
    limit, idt = struct.unpack_from("<HQ", sector, pointer - base)
    low, selector, kind, middle, high = struct.unpack_from("<HHHHI", sector, idt + 3 * 16 - base)
    assert limit >= 4 * 16 - 1
    assert (selector, kind, middle, high) == (0x18, 0x8E00, 0, 0)
    assert sector[low - base :].startswith(b"\xb0i\xe6\xe9\x48\xcf")


def test_the_cell_of_cmpxchg16b_is_aligned_and_empty() -> None:
    sector, base = kvm_trial.boot_sector(), kvm_trial.BASE
    at = sector.index(b"\xf0\x48\x0f\xc7\x0c\x25")
    (cell,) = struct.unpack_from("<I", sector, at + 6)
    assert cell % 16 == 0
    assert sector[cell - base : cell - base + 16] == bytes(16)


# ---- the trial's process -------------------------------------------------------------------------


def descriptors() -> list[str]:
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that `examine` has started."""
    found: list[subprocess.Popen[bytes]] = []
    start = processes.start

    def recording(*arguments: Any, **options: Any) -> subprocess.Popen[bytes]:
        found.append(start(*arguments, **options))
        return found[-1]

    monkeypatch.setattr(processes, "start", recording)
    return found


def stand_in(monkeypatch: pytest.MonkeyPatch, folder: Path, code: str) -> None:
    """Replace the trial by this code."""
    path = folder / "trial.py"
    path.write_text(code)
    monkeypatch.setattr(kvm, "_TRIAL", path)


def test_a_device_that_is_not_there(tmp_path: Path) -> None:
    answer = kvm.examine(tmp_path / "kvm")
    assert answer.lack is Lack.DEVICE
    assert answer.what.startswith(f"there is no {tmp_path}/kvm: ")
    assert answer.flavour


def test_a_device_that_is_not_kvm() -> None:
    answer = kvm.examine(Path(os.devnull))
    assert answer.lack is Lack.DEVICE
    assert answer.what.startswith("/dev/null is not KVM's device: ")


def test_two_threads_leave_no_descriptor_and_no_process(
    started: list[subprocess.Popen[bytes]], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = descriptors()
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(kvm.examine, [Path(os.devnull), tmp_path / "kvm"]))
    assert [answer.lack for answer in answers] == [Lack.DEVICE, Lack.DEVICE]
    assert descriptors() == before
    assert [process.returncode for process in started] == [0, 0]
    assert capfd.readouterr() == ("", "")


def test_a_trial_that_hangs_is_killed_and_reported(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "print('doing guest', flush=True)\nwhile True: pass\n")
    answer = kvm.examine(Path(os.devnull))
    assert answer.lack is Lack.RUNTIME
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_a_process_that_cannot_be_killed_is_not_waited_for(
    started: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stand_in(monkeypatch, tmp_path, "print('doing guest', flush=True)\nwhile True: pass\n")
    kill = subprocess.Popen.kill
    monkeypatch.setattr(subprocess.Popen, "kill", lambda _: None)
    before, others = descriptors(), threading.enumerate()
    answer = kvm.examine(Path(os.devnull))
    assert descriptors() == before
    assert answer.lack is Lack.RUNTIME
    (process,) = started
    (reaper,) = set(threading.enumerate()) - set(others)
    assert reaper.daemon
    kill(process)
    reaper.join(20)
    assert process.returncode == -signal.SIGKILL  # reaped by the thread


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "it was ended by signal 11"),
        ("raise SystemExit('no ctypes')", "no ctypes"),
    ],
)
def test_a_failed_trial_is_reported_with_its_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, code: str, fault: str
) -> None:
    stand_in(monkeypatch, tmp_path, code)
    answer = kvm.examine(Path(os.devnull))
    assert answer.what == f"the trial of /dev/null failed: {fault}"


def test_a_missing_interpreter_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python3")
    answer = kvm.examine(Path(os.devnull))
    assert answer.lack is Lack.RUNTIME
    assert "/nowhere/python3" in answer.what


def test_the_alarm_ends_a_trial_whatever_it_inherited() -> None:
    code = """
import signal, sys, time
from isobench.targets.shared import kvm_trial
signal.signal(signal.SIGALRM, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGALRM})
kvm_trial.trial = lambda *_: iter(lambda: time.sleep(60), None)
sys.argv = ["trial", "/dev/null"]
kvm_trial.main()
"""
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=30)
    assert done.returncode == -signal.SIGALRM


def test_the_trial_needs_the_standard_library_alone() -> None:
    """It is started without site packages, where isobench cannot be imported."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", kvm_trial.__file__, os.devnull],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    lines = f"doing open\ndoing version\nerror {errno.ENOTTY}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, lines.encode(), b"")
