"""What this machine's /dev/kvm does, and whether the guest that finds out is itself right."""

import os
import platform
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from isobench.model import Lack
from isobench.targets.shared import kvm, kvm_trial

pytestmark = pytest.mark.live


def test_the_answer_about_this_machine_is_consistent() -> None:
    answer = kvm.examine()
    assert answer.flavour
    if answer.lack is None:
        assert (answer.what, answer.hint) == ("", "")
        if platform.machine() == "x86_64":
            assert answer.speed is not None
            assert answer.speed >= kvm.SPEED
    else:
        assert answer.what
        assert answer.hint
    if not Path("/dev/kvm").exists():
        assert answer.lack is Lack.DEVICE


def examined() -> kvm.Acceleration:
    """What /dev/kvm does, given several trials: a busy machine has no second for one of them."""
    answer = kvm.examine()
    for _ in range(20):
        if "did not begin in time" not in answer.what and "has not returned" not in answer.what:
            break
        answer = kvm.examine()
    return answer


@pytest.mark.skipif(
    not Path("/sys/module/kvm_pvm").exists(), reason="this host's KVM is not KVM-PVM"
)
def test_pvm_is_refused_for_what_it_did_and_not_for_its_name() -> None:
    if not os.access(kvm.DEVICE, os.R_OK | os.W_OK):
        pytest.skip("/dev/kvm may not be opened by this user")
    answer = examined()
    if answer.lack in {Lack.DEVICE, Lack.PERMISSION}:
        pytest.skip(f"/dev/kvm cannot be used here: {answer.what}")
    assert answer.lack is Lack.RUNTIME
    assert "ring 0 of a guest is emulated" in answer.what or "KVM_EXIT" in answer.what


def test_the_guest_does_all_it_should_where_ring_0_works(tmp_path: Path) -> None:
    """QEMU's translator has every instruction, and firmware that starts boot sectors."""
    emulator = shutil.which("qemu-system-x86_64")
    if emulator is None:
        pytest.skip("qemu-system-x86_64 is not installed; isobench doctor --install qemu")
    sector, said = tmp_path / "sector", tmp_path / "said"
    sector.write_bytes(kvm_trial.boot_sector())
    argv = [emulator, "-nodefaults", "-no-user-config", "-display", "none", "-accel", "tcg"]
    argv += ["-machine", "pc", "-cpu", "max", "-m", "16", "-no-reboot"]
    argv += ["-drive", f"file={sector},format=raw,if=ide,snapshot=on"]
    # It answers 0 to the guest's question, how long to loop: not at all.
    argv += ["-chardev", f"file,id=said,path={said}"]
    argv += ["-device", f"isa-debugcon,iobase={kvm_trial.PORT:#x},readback=0,chardev=said"]
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and process.poll() is None:
            if said.exists() and len(said.read_bytes()) >= len(kvm._STEPS):
                break
            time.sleep(0.05)
    finally:
        process.kill()
        _, error = process.communicate(timeout=20)
    assert said.read_bytes() == "".join(kvm._STEPS).encode(), error
