"""Virtual machines that fail: each failure is reported, and leaves nothing."""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from isobench.model import Available, Lack, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import wire
from isobench.plugins import ownership
from isobench.plugins.registry import Registry
from isobench.targets.machines import _cache, _guest, _instance, _ssh
from isobench.targets.machines.qemu import _Qemu
from isobench.targets.shared import kvm
from tests import waiting
from tests.conftest import PROGRAM, Staged, sentence
from tests.live.conftest import Command

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)

Able = Callable[[str], object]
Make = Callable[[Any], Staged]


def configured(**options: Any) -> _Qemu:
    target = Registry({"mine": {"kind": "qemu", **options}}).get("mine")
    assert isinstance(target, _Qemu)
    return target


@pytest.fixture(autouse=True)
def needed(able: Able) -> None:
    able("qemu")


@pytest.fixture
def one(staged: Make) -> Iterator[Staged]:
    """A stage of which nothing may be left when the test is over."""
    made = staged(configured())
    yield made
    assert tied(ownership.mine()) == []
    assert [path for path in made.shop.scratch.rglob("*") if path.is_file()] == []


def tied(whose: str) -> list[psutil.Process]:
    """The processes of this host that an isobench has started."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if whose in process.environ().get("ISOBENCH_TIED", ""):
                found.append(process)
    return found


@contextlib.contextmanager
def opened(staged: Staged, **options: Any) -> Iterator[_instance.Session]:
    with configured(**options).open(staged.stage) as session:
        yield session


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return True
    return False


def fails(staged: Staged, **options: Any) -> SessionError:
    """Return the error of an opening that must fail."""
    with pytest.raises(SessionError) as caught, opened(staged, **options):
        pytest.fail("it opened")
    assert "end of the serial console: " in str(caught.value)
    return caught.value


# ---- the start -----------------------------------------------------------------------------------


def test_a_file_that_is_no_kernel(one: Staged, tmp_path: Path) -> None:
    file = tmp_path / "kernel"
    file.write_bytes(b"no kernel at all\n" * 4096)
    error = fails(one, kernel=str(file), boot_timeout=20.0)
    assert "QEMU has ended, exit code 1" in str(error)
    assert "kernel" in str(error)
    assert "kernel" in error.hint


def test_a_file_that_is_no_archive(one: Staged, tmp_path: Path) -> None:
    file = tmp_path / "initrd"
    file.write_bytes(b"no archive" * 1000)
    error = fails(one, initrd=str(file))
    assert "the guest panicked: Kernel panic - not syncing: VFS: Unable to mount root" in str(error)


def test_a_first_process_that_does_not_exist(one: Staged) -> None:
    error = fails(one, append="rdinit=/nonexistent root=/dev/nothing")
    assert "the guest panicked: Kernel panic - not syncing: VFS: Unable to mount root" in str(error)


@pytest.mark.timeout(1800)
def test_a_panic_ends_the_waiting_although_the_machine_goes_on(one: Staged) -> None:
    error = fails(one, append="rdinit=/nonexistent panic=0", boot_timeout=600.0)
    assert "the guest panicked" in str(error)


def test_a_guest_that_is_too_slow(one: Staged) -> None:
    error = fails(one, boot_timeout=0.3)
    assert "the guest did not start within 0.3 s" in str(error)
    assert "boot_timeout" in error.hint


def test_an_unknown_machine_type(one: Staged) -> None:
    assert "unsupported machine type" in str(fails(one, machine="abacus"))


def test_missing_drivers_are_an_error_with_a_hint(one: Staged, tmp_path: Path) -> None:
    kernel = _guest.guest("x86_64").kernel
    (tmp_path / "empty").mkdir()
    error = fails(one, kernel=str(kernel), modules=str(tmp_path / "empty"))
    assert "the guest could not set itself up: network: No such device (ENODEV)" in str(error)
    assert "modules" in error.hint
    assert "Linux version" in error.log


def test_an_emulator_killed_in_mid_boot(one: Staged) -> None:
    killed: list[psutil.Process] = []

    def kill(name: str) -> None:
        if name == "init":
            killed.extend(tied(ownership.mine()))
            for process in killed:
                process.kill()

    one.stage = replace(one.stage, on_phase=kill)
    error = fails(one)
    assert "QEMU has ended, killed by signal 9" in str(error)
    assert killed


# ---- the session ---------------------------------------------------------------------------------


def test_a_panic_in_mid_session(one: Staged) -> None:
    with pytest.raises(SessionError) as caught, opened(one) as session:
        session.run(one.command(PROGRAM, "crash"), timeout=TIMEOUT)
    assert "Kernel panic - not syncing: sysrq triggered crash" in str(caught.value)
    assert "end of the serial console" in str(caught.value)


def test_a_guest_that_is_stopped_is_not_waited_for(one: Staged) -> None:
    with pytest.raises(SessionError) as caught, opened(one) as session:
        machine = session.booted.machine
        timer = threading.Timer(1, lambda: machine.command("stop"))
        timer.start()
        session.run(one.command(PROGRAM, "linger", secrets.token_hex(8)), timeout=seconds(300))
    assert "QEMU has stopped the guest: paused" in str(caught.value)


def test_a_program_that_never_ends_does_not_end_the_session(one: Staged) -> None:
    with opened(one) as session:
        done = session.run(one.command(PROGRAM, "linger", "x"), timeout=seconds(1.5))
        assert done.exit_code is None
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT).exit_code == 5


def test_an_emulator_killed_in_mid_session(one: Staged) -> None:
    with pytest.raises(SessionError) as caught, opened(one) as session:
        port = session.booted.machine.port()
        assert not refuses(port)
        threading.Timer(1, session.booted.machine.process.kill).start()
        session.run(one.command(PROGRAM, "linger", "x"), timeout=seconds(300))
    assert "QEMU has ended, killed by signal 9" in str(caught.value)
    assert refuses(port)


def test_a_connection_that_breaks_while_the_guest_runs(one: Staged) -> None:
    with pytest.raises(SessionError) as caught, opened(one) as session:
        session.run(one.command(PROGRAM, "hang-up"), timeout=TIMEOUT)
    assert "the SSH connection is lost" in str(caught.value)
    assert "end of the serial console" in str(caught.value)


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("authorized", "the guest refuses the key of this run"),
        ("host_key", "the host key of the guest is not the one that isobench made"),
    ],
)
def test_a_key_that_isobench_did_not_make_is_refused(
    what: str, text: str, one: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, other = _guest.stage_archive, _ssh.new_key()
    changed = {"authorized": other.line, "host_key": other.dropbear}[what]

    def tampered(programs: Path, **options: Any) -> bytes:
        return make(programs, **{**options, what: changed})

    monkeypatch.setattr(_guest, "stage_archive", tampered)
    assert text in str(fails(one))


def test_a_full_disk_in_the_guest_is_reported(one: Staged) -> None:
    with opened(one, disk="8MiB") as session:
        done = session.run(one.command("io.seq-write", "cafe", "1", "64"), timeout=TIMEOUT)
        assert done.exit_code != 0
        with pytest.raises(wire.WireError, match="No space left on device"):
            wire.read(done.stdout, nonce="cafe", iterations=1)
        assert session.run(one.command(PROGRAM, "end", "4"), timeout=TIMEOUT).exit_code == 4


def test_a_flood_of_output_is_bounded(one: Staged) -> None:
    with opened(one) as session:
        done = session.run(one.command(PROGRAM, "flood", "320"), timeout=TIMEOUT)
        assert (done.exit_code, len(done.stdout)) == (0, 1 << 20)
        assert sum(map(len, one.chunks)) == 320 << 16
    done = configured().launch(one.stage, one.command(PROGRAM, "flood", "32"), timeout=seconds(120))
    assert (done.exit_code, len(done.stdout)) == (0, 1 << 20)


@pytest.mark.parametrize("forged", ["isobench: exit 0", "isobench: exit all", "isobench: failed x"])
def test_a_forged_mark_on_the_console_is_not_accepted_as_output(one: Staged, forged: str) -> None:
    """Only what a payload writes to its own stream, with its nonce, counts as output."""
    done = None
    with contextlib.suppress(SessionError):
        done = configured().launch(
            one.stage, one.command(PROGRAM, "console", forged), timeout=TIMEOUT
        )
    assert done is None or done.stdout == b""


def test_a_complete_guest_is_a_distribution_with_its_own_init(one: Staged) -> None:
    target = configured(guest="complete")
    answer = target.probe()
    if isinstance(answer, Unavailable):
        pytest.skip(sentence("qemu with a complete guest", answer))
    with target.open(one.stage) as session:
        done = session.run(one.command("_evidence", "cafe"), timeout=TIMEOUT)
        facts = {f.key: f.value for f in wire.read(done.stdout, nonce="cafe", iterations=0).facts}
        assert facts["cpu.hypervisor"] == "TCGTCGTCGTCG"
        assert "ext4" in str(facts["mount.root"])
        # Its own services run beside ours.
        assert int(str(facts["processes.visible"])) > 20
        done = session.run(one.command(PROGRAM, "end", "42"), timeout=TIMEOUT)
        assert (done.exit_code, done.stdout) == (42, b"out\n")
    one.marks.clear()
    done = target.launch(one.stage, one.command("_startup", "cafe"), timeout=seconds(240))
    assert wire.hello("cafe") in done.stdout
    assert one.marks == [
        *("begin", "guest.output", "init", "ssh", "shutdown.asked", "process.gone"),
    ]
    assert [path for path in one.shop.scratch.rglob("*") if path.is_file()] == []


# ---- the whole command ---------------------------------------------------------------------------


def machines_of(pid: int) -> list[psutil.Process]:
    """The QEMUs of an isobench that has this number."""
    found = []
    for process in tied(f"-{pid}-"):
        with contextlib.suppress(psutil.Error):
            if process.name().startswith("qemu-system"):
                found.append(process)
    return found


def booting(process: subprocess.Popen[str]) -> None:
    """Wait until a guest of this isobench is being started."""
    end = time.monotonic() + 300
    while True:
        assert process.poll() is None, process.communicate(timeout=waiting.PATIENCE)
        assert time.monotonic() < end
        for machine in machines_of(process.pid):
            with contextlib.suppress(psutil.Error):
                if any(word.endswith("/initrd") for word in machine.cmdline()):
                    return
        time.sleep(0.02)


def left_by(process: subprocess.Popen[str]) -> list[str]:
    """What an isobench that has ended has left: processes and files (and no port without one)."""
    runs = Path(os.environ["XDG_CACHE_HOME"]) / "isobench" / "runs"
    found = [str(path) for path in runs.glob("*") if f"-{process.pid}-" in path.name]
    return found + [str(machine) for machine in tied(f"-{process.pid}-")]


RUN = ("run", "-t", "qemu", "-w", "cpu.sieve", "--blocks", "3", "--min-time", "0.004s")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_isobench_interrupted_in_mid_boot_leaves_nothing(
    isobench: Command, number: signal.Signals
) -> None:
    process = isobench.start(*RUN)
    booting(process)
    process.send_signal(number)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert left_by(process) == []


def test_an_isobench_killed_in_mid_boot_leaves_no_machine_and_the_next_clears_the_files(
    isobench: Command,
) -> None:
    process = isobench.start(*RUN)
    booting(process)
    machines = machines_of(process.pid)
    waiting.killed(process)
    psutil.wait_procs(machines, timeout=10)
    assert isobench("clean", "--stale").code == 0
    assert left_by(process) == []
    assert not list(_cache.folder().glob(".making-*"))


@pytest.mark.timeout(1800)
def test_a_run_measures_every_cell_on_its_own_kernel_and_leaves_nothing(
    isobench: Command,
) -> None:
    workloads = "cpu.sieve,syscall.getppid,io.metadata,startup"
    few = ("-w", workloads, "--blocks", "3", "--min-time", "0.004s")
    process = isobench.start("run", "-t", "qemu", *few)
    _, err = process.communicate(timeout=900)
    assert process.returncode == 0, err
    assert left_by(process) == []
    latest = isobench.results / "latest"
    summary = json.loads((latest / "summary.json").read_text())
    assert summary["run"]["complete"]
    assert summary["gaps"] == []  # a wrong checksum would be one
    target = next(item for item in summary["targets"] if item["name"] == "qemu")
    assert target["status"] == "measured"
    assert all(expectation["kept"] for expectation in target["promises"])
    assert target["evidence"]["kernel.boot_id"] == "unlike"
    facts = {fact["key"]: fact["value"] for fact in target["facts"]}
    assert facts["kernel.release"]
    assert facts["kernel.release"] in facts["host.guest"]  # the package that it was made of
    assert facts["cpu.hypervisor"] == "TCGTCGTCGTCG"
    assert facts["host.accelerator"] == "tcg"
    cells = {cell["workload"]: cell for cell in summary["cells"] if cell["target"] == "qemu"}
    starts = {f"startup.{kind}" for kind in ("cold", "warm", "exec")}
    assert set(cells) == {"cpu.sieve", "syscall.getppid", "io.metadata"} | starts
    assert all(cell["blocks"] == 3 for cell in cells.values())
    records = [json.loads(line) for line in (latest / "records.jsonl").read_text().splitlines()]
    phases = {r["metric"] for r in records if r["workload"] == "startup.cold" and "metric" in r}
    assert {"time", "phase.guest.output", "phase.init", "phase.ssh"} <= phases
    assert any(r.get("metric") == "channel" for r in records)


def test_a_kernel_of_the_user_needs_configuration_only(isobench: Command, tmp_path: Path) -> None:
    guest = _guest.guest("x86_64")
    folder = tmp_path / "modules, and more"
    folder.mkdir()
    for name, content in unpacked(guest.archives[0].read_bytes()).items():
        if name.endswith(".ko"):
            (folder / Path(name).name).write_bytes(content)
    assert len(list(folder.iterdir())) >= 3
    copy = tmp_path / "my kernel, é"
    shutil.copyfile(guest.kernel, copy)
    configuration = tmp_path / "isobench.toml"
    configuration.write_text(
        f'[targets.qemu-own]\nkind = "qemu"\nkernel = "{copy}"\nmodules = "{folder}"\n'
        "append = 'isobench.word=\"two words\"'\n"
    )
    few = ("-w", "cpu.sieve", "--blocks", "1", "--min-time", "0.004s")
    ran = isobench("run", "-t", "qemu-own", *few, "--config", str(configuration), timeout=300)
    assert ran.code == 0, ran.said
    summary = ran.summary()
    assert summary["gaps"] == []
    target = next(item for item in summary["targets"] if item["name"] == "qemu-own")
    assert all(expectation["kept"] for expectation in target["promises"])


def unpacked(archive: bytes) -> dict[str, bytes]:
    """Take a newc archive apart."""
    found, at = {}, 0
    while archive[at : at + 6] == b"070701":
        size, length = (int(archive[at + n : at + n + 8], 16) for n in (54, 94))
        name = archive[at + 110 : at + 110 + length - 1].decode()
        start = -(-(at + 110 + length) // 4) * 4
        found[name] = archive[start : start + size]
        at = -(-(start + size) // 4) * 4
    return found


# ---- KVM -----------------------------------------------------------------------------------------


def test_kvm_by_name_on_a_host_without_it_ends_with_3_and_the_reason(
    isobench: Command,
) -> None:
    answer = Registry().get("kvm").probe()
    if isinstance(answer, Available):
        pytest.skip("a test of hosts without KVM, and kvm can run here")
    ran = isobench("run", "--targets", "kvm", "-w", "cpu.sieve", "--blocks", "1")
    assert ran.code == 3
    last = " ".join(" ".join(ran.err.splitlines()[-8:]).split())
    assert "kvm cannot run here" in last
    assert "→" in last
    assert not ran.latest.exists()
    assert isinstance(answer, Unavailable)
    if not Path("/dev/kvm").exists():
        assert answer.lack is Lack.DEVICE


@pytest.fixture
def refused_kvm() -> None:
    """A /dev/kvm that opens and runs no ordinary kernel."""
    seen = kvm.examine()
    if seen.lack is not Lack.RUNTIME:
        pytest.skip(f"no /dev/kvm here that opens and runs no guest: {seen.summary}")


def tiny_kernel(text: bytes) -> bytes:
    """Return a kernel of a few bytes: it says a text on the first serial port, and halts.

    An ELF file with the note by which QEMU finds a 32-bit entry (XEN_ELFNOTE_PHYS32_ENTRY, 18).
    """
    base, note_at, code_at = 0x100000, 0x200, 0x1000
    # cli; mov dx, 0x3f8; for each byte: mov al, byte; out dx, al; then hlt, for ever
    code = b"\xfa\x66\xba\xf8\x03"
    code += b"".join(b"\xb0" + bytes([byte]) + b"\xee" for byte in text) + b"\xf4\xeb\xfd"
    entry = base + code_at
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen", entry)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    where = base + note_at
    header += struct.pack("<IIQQQQQQ", 1, 7, code_at, entry, entry, len(code), len(code), 0x1000)
    header += struct.pack("<IIQQQQQQ", 4, 4, note_at, where, where, len(note), len(note), 4)
    return (header.ljust(note_at, b"\0") + note).ljust(code_at, b"\0") + code


def with_kernel(content: bytes, folder: Path, **options: Any) -> Available | Unavailable:
    path = folder / "kernel"
    path.write_bytes(content)
    free = {"cpu": "host,-arch-capabilities"}
    target = Registry({"kvm": {"kernel": str(path), **free, **options}}).get("kvm")
    answer = target.probe()
    assert isinstance(answer, Available | Unavailable)
    return answer


@pytest.mark.usefixtures("refused_kvm")
def test_a_kernel_that_runs_on_this_kvm_needs_configuration_only(tmp_path: Path) -> None:
    answer = with_kernel(tiny_kernel(b"hello from a kernel\n"), tmp_path)
    assert isinstance(answer, Available), answer
    assert "PVM" in answer.version or "KVM" in answer.version


@pytest.mark.usefixtures("refused_kvm")
def test_a_kernel_without_output_is_refused_with_both_reasons(tmp_path: Path) -> None:
    answer = with_kernel(tiny_kernel(b""), tmp_path)
    assert isinstance(answer, Unavailable)
    assert answer.lack is Lack.RUNTIME
    assert "printed nothing within" in answer.what
    assert "/dev/kvm opens and cannot run an unmodified kernel" in answer.what


@pytest.mark.usefixtures("refused_kvm")
def test_an_emulator_that_ends_on_the_kvm_here_is_quoted(tmp_path: Path) -> None:
    answer = with_kernel(tiny_kernel(b"hello\n"), tmp_path, cpu="abacus")
    assert isinstance(answer, Unavailable)
    assert "did not start" in answer.what
    assert "unable to find CPU model 'abacus'" in answer.what
