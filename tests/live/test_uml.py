"""User-mode kernels that fail, end or are killed, and their requests."""

import contextlib
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from isobench.model import Available
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.plugins import ownership
from isobench.plugins.api import Target
from isobench.targets.machines import uml
from isobench.targets.machines.uml import UmlTarget
from isobench.targets.shared import disks
from tests.conftest import PROGRAM, Staged

pytestmark = pytest.mark.live
TIMEOUT = seconds(60)


@pytest.fixture
def one(able: Callable[[str], Target], staged: Callable[[Target], Staged]) -> Staged:
    return staged(able("uml"))


@contextlib.contextmanager
def opened(staged: Staged, **options: Any) -> Iterator[uml._Session]:
    with UmlTarget(**options).open(staged.stage) as session:
        yield session


def mine() -> list[psutil.Process]:
    """The processes of user-mode kernels that this one has started, and their guests'."""
    leaders = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get("ISOBENCH_TIED") == ownership.mine():
                leaders.add(os.getpgid(process.pid))
    found = []
    for process in psutil.process_iter(["status"]):
        with contextlib.suppress(psutil.Error, OSError):
            alive = process.info["status"] != psutil.STATUS_ZOMBIE
            if alive and os.getpgid(process.pid) in leaders:
                found.append(process)
    return found


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Those that run after a moment's time to end."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        left = []
        for process in processes:
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE:
                    left.append(process)
        if not left:
            return []
        time.sleep(0.05)
    return left


def watcher_of(session: uml._Session) -> psutil.Process:
    """What the launcher has left beside the kernel, which is the first process itself."""
    found = []
    for child in psutil.Process(session.machine.process.pid).children():
        with contextlib.suppress(psutil.Error):
            if "guard" in child.cmdline():
                found.append(child)
    (watcher,) = found
    return watcher


# ---- its end -------------------------------------------------------------------------------------


def broken_by(one: Staged, break_it: Callable[[uml._Session], None]) -> str:
    """Break a session in which a program runs: the error, once nothing is left."""
    seen: list[psutil.Process] = []

    def act(session: uml._Session) -> None:
        seen.extend(mine())
        break_it(session)

    with pytest.raises(SessionError) as caught, opened(one) as session:
        threading.Timer(1, act, [session]).start()
        session.run(one.command(PROGRAM, "linger", secrets.token_hex(8)), timeout=seconds(30))
    # Kernel, watcher, a helper of the kernel's; first process, program, its child.
    assert len(seen) >= 6
    assert alive(seen) == []
    return str(caught.value)


def test_after_the_kernel_alone_is_killed_no_process_of_the_guest_runs(one: Staged) -> None:
    error = broken_by(one, lambda session: session.machine.process.kill())
    assert "the user-mode kernel has ended, killed by signal 9" in error


def test_a_kernel_whose_watcher_was_killed_still_ends_completely(one: Staged) -> None:
    with opened(one) as session:
        seen = mine()
        watcher_of(session).kill()
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT).exit_code == 5
    assert alive(seen) == []


def test_a_kernel_killed_in_mid_boot(one: Staged) -> None:
    killed: list[psutil.Process] = []

    def kill(name: str) -> None:
        if name == "guest.output":
            killed.extend(mine())
            os.kill(killed[0].pid, signal.SIGKILL)

    one.stage = replace(one.stage, on_phase=kill)
    with pytest.raises(SessionError, match="the user-mode kernel has ended"), opened(one):
        pytest.fail("it opened")
    assert alive(killed) == []


def test_a_panic_in_mid_session(one: Staged) -> None:
    with pytest.raises(SessionError) as caught, opened(one) as session:
        session.run(one.command(PROGRAM, "crash"), timeout=TIMEOUT)
    assert "the guest panicked: Kernel panic - not syncing: sysrq triggered crash" in str(
        caught.value
    )
    assert mine() == []


def test_a_first_process_that_does_not_exist(one: Staged) -> None:
    with (
        pytest.raises(SessionError, match="the guest panicked"),
        opened(one, append="rdinit=/nonexistent root=/dev/nothing"),
    ):
        pytest.fail("it opened")


def test_a_guest_that_is_too_slow(one: Staged) -> None:
    with (
        pytest.raises(SessionError, match=r"the guest did not start within 0\.01 s"),
        opened(one, boot_timeout=0.01),
    ):
        pytest.fail("it opened")


def test_a_guest_powers_itself_off_and_leaves_nothing(one: Staged) -> None:
    with opened(one) as session:
        process = session.machine.process
        assert mine()
    assert process.returncode == 0
    assert one.marks[-2:] == ["shutdown.asked", "process.gone"]
    assert mine() == []
    assert list(one.shop.scratch.iterdir()) == []


# ---- requests ------------------------------------------------------------------------------------


def test_a_program_that_never_ends_does_not_end_the_session(one: Staged) -> None:
    with opened(one) as session:
        for _ in range(3):
            token = secrets.token_hex(8)
            done = session.run(one.command(PROGRAM, "linger", token), timeout=seconds(0.5))
            assert done.exit_code is None
            assert (
                session.run(one.command(PROGRAM, "find", token), timeout=TIMEOUT).stdout == b"0\n"
            )
            assert session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT).exit_code == 5


def test_output_before_the_time_limit_is_kept(one: Staged) -> None:
    with opened(one) as session:
        done = session.run(one.command(PROGRAM, "wait", "hello"), timeout=seconds(0.5))
        assert (done.exit_code, done.stdout) == (None, b"hello")


def test_a_program_that_prints_without_end_is_stopped(one: Staged) -> None:
    with opened(one) as session:
        done = session.run(one.command(PROGRAM, "flood", "1000000"), timeout=seconds(1))
        assert done.exit_code is None
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT).stdout == b"out\n"


def test_a_guest_that_hangs_as_a_whole_is_ended(
    one: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uml, "_KILL_TIMEOUT", 0.5)
    with pytest.raises(SessionError, match="accepts no requests"), opened(one) as session:
        seen = mine()
        session.machine.process.send_signal(signal.SIGSTOP)
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=seconds(0.5)).exit_code is None
        assert alive(seen) == []
        session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT)


def test_every_byte_arrives_as_it_was_written(one: Staged) -> None:
    with opened(one) as session:
        done = session.run(one.command(PROGRAM, "bytes"), timeout=TIMEOUT)
        assert (done.stdout, done.stderr) == (bytes(range(256)), bytes(range(256)))
        flood = session.run(one.command(PROGRAM, "flood", "16"), timeout=TIMEOUT)
    assert len(flood.stdout) == 1 << 20
    assert set(flood.stdout.split(b"\n")) == {b"x" * 63, b""}


def test_all_output_of_a_program_is_there_when_its_end_is_known(one: Staged) -> None:
    with opened(one) as session:
        for _ in range(50):
            done = session.run(one.command(PROGRAM, "flood", "1"), timeout=TIMEOUT)
            assert (done.exit_code, len(done.stdout)) == (0, 1 << 16)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_signal_is_reported_as_a_negative_exit_code(one: Staged, number: int) -> None:
    with opened(one) as session:
        assert (
            session.run(one.command(PROGRAM, "signal", str(number)), timeout=TIMEOUT).exit_code
            == -number
        )


def test_the_null_request_is_answered(one: Staged) -> None:
    with opened(one) as session:
        assert session.null(timeout=TIMEOUT).exit_code == 0
        assert session.run(one.command(PROGRAM, "end", "5"), timeout=TIMEOUT).exit_code == 5


# ---- what it is ----------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["writethrough", "unsafe"])
def test_the_reported_disk_cache_is_read_from_the_process(one: Staged, way: str) -> None:
    with opened(one, cache=way) as session:
        seen = {fact.key: fact.value for fact in session.witness()}
    assert seen["host.disk_cache"] == way
    assert seen["host.vcpus"] == 1


def test_root_runs_the_kernel_as_another_user(one: Staged) -> None:
    with opened(one) as session:
        watcher = watcher_of(session).pid
        users = {process.uids().effective for process in mine() if process.pid != watcher}
        reported = {fact.key: fact.value for fact in session.witness()}["host.kernel_user"]
    assert users == {reported}
    assert reported != 0


def test_a_program_that_is_no_kernel_is_refused() -> None:
    if disks.tool() is None:
        pytest.skip(
            "mke2fs, which makes a guest's disk, is not installed; isobench doctor --install uml"
        )
    answer = UmlTarget(kernel="/bin/true").probe()
    assert not isinstance(answer, Available)
    assert "a guest of the user-mode kernel does not start" in answer.what
    assert answer.hint
