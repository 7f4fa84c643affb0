"""isobench's own spawner: programs start as requested, have stamps, and leave nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from isobench.model import Command, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.payload import build
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.shared import processes, spawners

AWKWARD = ("two words", "'quotes\"", "$HOME", "*", "-x", "é", "", "a\\b", "semi;colon", "new\nline")
PATIENCE = seconds(60)
PATH = {"PATH": os.environ["PATH"]}
LISTING = "import os, sys; sys.stdout.buffer.write(b'\\0'.join(map(os.fsencode, sys.argv[1:])))"


@pytest.fixture(scope="module")
def program() -> Path:
    host = host_abi()
    assert host is not None
    built = build.build_all({}, [host], host=host)
    return next(each.path for each in built if each.program == build.SPAWN)


@pytest.fixture
def vfork(program: Path) -> Iterator[str]:
    with processes.spawning(program) as found:
        assert found == "vfork"
        yield found


@pytest.fixture
def both(request: pytest.FixtureRequest, program: Path) -> Iterator[str]:
    """Start programs by each of the two methods, which keep to the same rules."""
    with processes.spawning(program if request.param == "vfork" else None) as found:
        assert found == request.param
        yield found


EITHER_METHOD = pytest.mark.parametrize("both", ["vfork", "subprocess"], indirect=True)


def python(code: str, *words: str | bytes, timeout: float = 60) -> Completed:
    """Run Python code with the words as its arguments."""
    argv = [sys.executable, "-IS", "-c", code, *map(os.fsdecode, words)]
    return processes.run(argv, timeout=seconds(timeout), env=PATH)


def shell(script: str, *words: str, timeout: float = 60) -> Completed:
    return processes.run(["sh", "-c", script, *words], timeout=seconds(timeout), env=PATH)


def running() -> list[psutil.Process]:
    """Return the spawners of this process."""
    found = []
    for each in psutil.Process().children():
        with contextlib.suppress(psutil.Error):
            if "".join(each.cmdline()[:1]).endswith("-_spawn"):
                found.append(each)
    return found


def children() -> set[int]:
    return {each.pid for each in psutil.Process().children(recursive=True)}


def until(condition: Callable[[], bool], patience: float = 30) -> bool:
    end = time.monotonic() + patience
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def ended(pid: int) -> bool:
    """Return whether a process has ended, be it reaped or not."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


# ---- what a program is given ---------------------------------------------------------------------


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_arguments_arrive_byte_by_byte() -> None:
    words = [*AWKWARD, *(bytes([byte]) for byte in range(1, 256)), b"x" * 100_000]
    done = python(LISTING, *words)
    assert done.stdout.split(b"\0") == [os.fsencode(os.fsdecode(word)) for word in words]


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_a_program_has_only_the_variables_that_it_is_given() -> None:
    variables = {"ONE": "1", "AWKWARD": "a b\n=\udcff", "EMPTY": ""}
    done = processes.run(["/usr/bin/env", "-0"], timeout=PATIENCE, env=variables)
    assert set(done.stdout.split(b"\0")) == {b"ONE=1", b"AWKWARD=a b\n=\xff", b"EMPTY=", b""}
    none = processes.run(["/usr/bin/env", "-0"], timeout=PATIENCE, env={})
    assert (none.exit_code, none.stdout) == (0, b"")


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_it_has_its_own_session_and_only_three_descriptors() -> None:
    code = """
        import os
        open_ = sorted(int(name) for name in os.listdir("/proc/self/fd"))
        print(os.getsid(0) == os.getpid() == os.getpgrp(), open_[:3], len(open_))
        print(os.readlink("/proc/self/fd/0"), os.path.basename(os.readlink("/proc/self/fd/1"))[:4])
    """
    done = python(textwrap.dedent(code))
    # The fourth descriptor is that of the directory which is being listed.
    assert done.stdout.splitlines() == [b"True [0, 1, 2] 4", b"/dev/null pipe"]


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_it_starts_in_the_given_folder(tmp_path: Path) -> None:
    done = processes.run(["/bin/pwd"], timeout=PATIENCE, env={}, folder=tmp_path)
    assert done.stdout.decode().strip() == str(tmp_path.resolve())
    done = processes.run(["/bin/pwd"], timeout=PATIENCE, env={})
    assert done.stdout.decode().strip() == str(Path.cwd())


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_blocked_and_ignored_signals_stay_as_they_were() -> None:
    def masks(text: str) -> list[str]:
        return [line for line in text.splitlines() if line.startswith(("SigBlk", "SigIgn"))]

    done = processes.run(["/bin/cat", "/proc/self/status"], timeout=PATIENCE, env={})
    reference = subprocess.run(
        ["/bin/cat", "/proc/self/status"], capture_output=True, text=True, check=True
    )
    assert masks(done.stdout.decode()) == masks(reference.stdout)


# ---- how it ends ---------------------------------------------------------------------------------


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_its_exit_code_is_minus_the_signal_that_killed_it() -> None:
    assert shell("exit 7").exit_code == 7
    assert shell("kill -SEGV $$").exit_code == -signal.SIGSEGV
    assert shell("kill -KILL $$").exit_code == -signal.SIGKILL


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_a_program_that_cannot_be_executed_is_an_error_with_a_reason(tmp_path: Path) -> None:
    plain, text, folder = tmp_path / "plain", tmp_path / "text", tmp_path / "folder"
    plain.write_text("#!/bin/sh\n")
    text.write_bytes(b"\0\0\0\0")
    text.chmod(0o755)
    folder.mkdir()
    for path, error in (
        (tmp_path / "absent", FileNotFoundError),
        (plain / "below", NotADirectoryError),
        (folder, PermissionError),
        (text, OSError),
    ):
        with pytest.raises(error, match=path.name):
            processes.run([path], timeout=PATIENCE, env=PATH)
    if os.geteuid() != 0 or not os.access(plain, os.X_OK):
        with pytest.raises(PermissionError):
            processes.run([plain], timeout=PATIENCE, env=PATH)
    with pytest.raises(FileNotFoundError):
        processes.run(["no-such-program-anywhere"], timeout=PATIENCE, env=PATH)
    with pytest.raises(FileNotFoundError):
        processes.run(["/bin/true"], timeout=PATIENCE, env=PATH, folder=tmp_path / "absent")
    assert shell("exit 3").exit_code == 3  # and the next one runs


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_a_bare_name_is_searched_on_the_given_path(tmp_path: Path) -> None:
    first, second = tmp_path / "1", tmp_path / "2"
    for folder, mode in ((first, 0o644), (second, 0o755)):
        folder.mkdir()
        (folder / "tool").write_text("#!/bin/sh\necho $0\n")
        (folder / "tool").chmod(mode)
    path = {"PATH": f"{tmp_path}/none:{first}:{second}:/bin:/usr/bin"}
    done = processes.run(["tool"], timeout=PATIENCE, env=path)
    assert done.stdout.decode().strip() == str(second / "tool")
    with pytest.raises(PermissionError):
        processes.run(["tool"], timeout=PATIENCE, env={"PATH": f"{first}:{tmp_path}/none"})


@pytest.mark.usefixtures("vfork")
def test_impossible_arguments_are_refused_and_the_next_program_runs() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        processes.run(["/bin/echo", "a\0b"], timeout=PATIENCE, env={})
    with pytest.raises(OSError, match="too long"):
        processes.run(["/bin/echo", "x" * (spawners.MAX_REQUEST + 1)], timeout=PATIENCE, env={})
    with pytest.raises(OSError, match="too long"):
        processes.run(["/bin/echo", *["x"] * 70_000], timeout=PATIENCE, env={})
    with pytest.raises(OSError, match="too long"):  # the kernel's own limit of one argument
        processes.run(["/bin/echo", "x" * 200_000], timeout=PATIENCE, env={})
    assert processes.run(["/bin/echo", "x"], timeout=PATIENCE, env={}).stdout == b"x\n"


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_the_time_limit_ends_the_group_and_descendants_outside_of_it(
    tmp_path: Path,
) -> None:
    script = f"echo said; echo said >&2; sleep 601 & echo $! > {tmp_path}/1"
    script += f"; setsid sleep 602 & echo $! > {tmp_path}/2; wait"
    done = shell(script, timeout=1.0)
    assert done == Completed(exit_code=None, stdout=b"said\n", stderr=b"said\n")
    for name in "12":
        assert until(lambda n=name: ended(int((tmp_path / n).read_text())))  # type: ignore[misc]


@pytest.mark.usefixtures("vfork")
def test_the_time_limit_ends_orphans_that_hold_the_streams(
    tmp_path: Path,
) -> None:
    done = shell(f"sleep 603 & echo $! > {tmp_path}/1; echo said; exit 4", timeout=1.0)
    assert (done.exit_code, done.stdout) == (None, b"said\n")
    assert until(lambda: ended(int((tmp_path / "1").read_text())))


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_orphans_that_do_not_hold_the_streams_live_on(tmp_path: Path) -> None:
    script = f"setsid sleep 604 >&- 2>&- <&- & echo $! > {tmp_path}/1; exit 5"
    assert shell(script).exit_code == 5
    pid = int((tmp_path / "1").read_text())
    assert not ended(pid)
    os.kill(pid, signal.SIGKILL)


@EITHER_METHOD
@pytest.mark.usefixtures("both")
def test_both_streams_may_be_long_at_the_same_time() -> None:
    script = "head -c 5000000 /dev/zero >&2 & head -c 6000000 /dev/zero; wait; exit 6"
    done = shell(script)
    assert done.exit_code == 6
    assert (done.stdout, done.stderr) == (bytes(processes.MAX_OUTPUT), bytes(processes.MAX_OUTPUT))


@pytest.mark.usefixtures("vfork")
def test_many_programs_in_a_row_leave_no_descriptor_open() -> None:
    assert shell("exit 0").exit_code == 0
    (spawner,) = running()
    before = psutil.Process().num_fds(), spawner.num_fds()
    for number in range(300):
        assert shell(f"exit {number % 100}").exit_code == number % 100
        with pytest.raises(FileNotFoundError):
            processes.run(["/no/such"], timeout=PATIENCE, env={})
    assert (psutil.Process().num_fds(), spawner.num_fds()) == before
    assert spawner.children() == []
    assert running() == [spawner]


# ---- output --------------------------------------------------------------------------------------


@dataclass
class Listener:
    """The output that a command has received, with its stamps."""

    chunks: list[bytes] = field(default_factory=list)
    stamps: list[int | None] = field(default_factory=list)
    excluded: list[int] = field(default_factory=list)

    def on_output(self, chunk: bytes, /, at: int | None = None) -> None:
        self.chunks.append(chunk)
        self.stamps.append(at)

    def command(self) -> Command:
        return Command(argv=(), on_output=self.on_output, exclude=self.excluded.append)


@pytest.mark.usefixtures("vfork")
def test_stamps_are_times_of_isobenchs_clock(tmp_path: Path) -> None:
    listener = Listener()
    before = time.monotonic_ns()
    processes.run(
        ["sh", "-c", "echo one; sleep 0.3; echo two"],
        timeout=PATIENCE, env=PATH, command=listener.command(),
    )  # fmt: skip
    after = time.monotonic_ns()
    assert listener.chunks == [b"one\n", b"two\n"]
    first, second = listener.stamps
    assert first is not None
    assert second is not None
    assert second - first >= 300_000_000
    (excluded,) = listener.excluded
    assert before < before + excluded < first < second < after


@pytest.mark.usefixtures("vfork")
def test_output_of_any_length_is_passed_on_at_once() -> None:
    for length in (1, 5, 8, 9, 100, 65_536):
        script = f"echo; sleep 0.1; head -c {length} /dev/zero; exec sleep 608"
        done = shell(script, timeout=1.5)
        assert (done.exit_code, len(done.stdout)) == (None, 1 + length)
        assert children() == {each.pid for each in running()}


@pytest.mark.usefixtures("vfork")
def test_output_is_passed_on_while_the_program_runs(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    class Answering(Listener):
        def on_output(self, chunk: bytes, /, at: int | None = None) -> None:
            super().on_output(chunk, at)
            if chunk == b"ask\n":
                fifo.write_text("answer\n")

    listener = Answering()
    done = processes.run(
        ["sh", "-c", f"echo ask; cat {fifo}"],
        timeout=PATIENCE, env=PATH, command=listener.command(),
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (0, b"ask\nanswer\n")


def test_with_subprocess_output_has_no_stamps(tmp_path: Path) -> None:
    listener = Listener()
    processes.run(["echo", "one"], timeout=PATIENCE, env=PATH, command=listener.command())
    assert (listener.chunks, listener.stamps, listener.excluded) == ([b"one\n"], [None], [])


# ---- nothing is left behind ----------------------------------------------------------------------


@pytest.mark.usefixtures("vfork")
def test_an_error_in_the_listener_ends_the_program_and_the_next_one_runs(tmp_path: Path) -> None:
    class Broken(Listener):
        def on_output(self, chunk: bytes, /, at: int | None = None) -> None:
            raise KeyboardInterrupt

    before = children()
    with pytest.raises(KeyboardInterrupt):
        processes.run(
            ["sh", "-c", "echo $$; exec sleep 605"],
            timeout=PATIENCE, env=PATH, command=Broken().command(),
        )  # fmt: skip
    assert children() <= before
    assert shell("exit 8").exit_code == 8


@pytest.mark.usefixtures("vfork")
def test_a_killed_spawner_ends_only_its_own_program(tmp_path: Path) -> None:
    assert shell("exit 0").exit_code == 0
    (spawner,) = running()
    note = tmp_path / "1"
    killer = threading.Thread(target=lambda: until(note.exists) and spawner.kill())
    killer.start()
    with pytest.raises(SessionError, match="spawner"):
        shell(f"echo $$ > {note}.new; mv {note}.new {note}; exec sleep 606")
    killer.join()
    assert until(lambda: ended(int(note.read_text())))
    assert shell("exit 9").exit_code == 9
    (another,) = running()
    another.kill()  # while nothing runs in it
    another.wait(10)
    assert shell("exit 9").exit_code == 9


def test_leaving_the_run_ends_the_spawner(program: Path) -> None:
    with processes.spawning(program):
        (spawner,) = running()
    assert ended(spawner.pid)
    assert running() == []


RUNS_ONE = """
import pathlib, sys
from isobench.targets.shared import processes
from isobench.model.units import seconds
with processes.spawning(pathlib.Path(sys.argv[1])) as method:
    assert method == "vfork"
    print("ready", flush=True)
    env = {"PATH": "/usr/bin:/bin"}
    script = "sleep 607 & echo $$ $! $PPID > $0.new; mv $0.new $0; wait"
    done = processes.run(["sh", "-c", script, sys.argv[2]], timeout=seconds(600), env=env)
    print(done, flush=True)
"""


@pytest.mark.parametrize("delay", [0.0, 0.3])
def test_nothing_is_left_when_isobench_is_killed(
    program: Path, tmp_path: Path, delay: float
) -> None:
    note = tmp_path / "note"
    with subprocess.Popen(
        [sys.executable, "-c", RUNS_ONE, str(program), str(note)], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        inside = {each.pid for each in psutil.Process(process.pid).children(recursive=True)}
        if delay:
            assert until(note.exists)
            inside |= set(map(int, note.read_text().split()))
        process.kill()
    assert inside
    for pid in inside:
        assert until(lambda p=pid: ended(p)), psutil.Process(pid).cmdline()  # type: ignore[misc]
    if not delay and note.exists():
        assert all(until(lambda p=pid: ended(int(p))) for pid in note.read_text().split())  # type: ignore[misc]


def test_a_ctrl_c_reaches_isobench_alone(vfork: str) -> None:
    del vfork
    (spawner,) = running()
    assert os.getsid(spawner.pid) == spawner.pid != os.getsid(0)


def test_a_sweep_finds_the_spawner_of_a_run_that_has_died(vfork: str) -> None:
    del vfork
    (spawner,) = running()
    mine = ownership.mine()
    removed = [*map(str, processes.sweep(lambda owner: owner != mine))]
    assert f"process {spawner.pid}" in removed
    assert until(lambda: ended(spawner.pid))


def test_a_process_that_does_not_end_is_not_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    gone = ownership.mine().replace("isobench-", "isobench-0")
    environment = {"ISOBENCH_TIED": gone, "PATH": "/usr/bin:/bin"}
    with subprocess.Popen(["sleep", "606"], env=environment) as process:
        # As in a cgroup that is frozen.
        with monkeypatch.context() as frozen:
            frozen.setattr(psutil.Process, "kill", lambda _: None)
            frozen.setattr(processes, "_SWEEP_SECONDS", 0.1)
            (left,) = processes.sweep(lambda owner: owner != gone)
        assert (left.what, left.failure) == (f"process {process.pid}", "it does not end")
        (ended,) = processes.sweep(lambda owner: owner != gone)
        assert (ended.what, ended.failure) == (f"process {process.pid}", "")
        assert process.wait(10) == -signal.SIGKILL


# ---- one run, one method -------------------------------------------------------------------------


@pytest.mark.parametrize("other", ["/bin/true", "/no/such/program"])
def test_a_spawner_that_does_not_work_starts_nothing(other: str) -> None:
    with processes.spawning(Path(other)) as found:
        assert found == "subprocess"
        assert shell("exit 3").exit_code == 3
        assert running() == []


def test_the_start_method_ends_with_the_run(program: Path) -> None:
    with processes.spawning(None) as outer:
        assert outer == "subprocess"
        with processes.spawning(program) as inner:
            assert inner == "vfork"
        assert shell("exit 3").exit_code == 3
        assert running() == []


@pytest.mark.usefixtures("vfork")
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one CPU can be used here")
def test_two_threads_start_programs_at_the_same_time_each_on_its_own_cpus(tmp_path: Path) -> None:
    """Each program waits for the other: neither ends unless both run."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    cpus = sorted(os.sched_getaffinity(0))[:2]
    scripts = (f"echo met > {fifo}", f"read word < {fifo}")
    code = "grep Cpus_allowed_list /proc/self/status"
    found: dict[int, Completed] = {}

    def side(cpu: int, script: str) -> None:
        os.sched_setaffinity(0, {cpu})
        found[cpu] = shell(f"{script}; {code}", timeout=30)

    threads = [threading.Thread(target=side, args=one) for one in zip(cpus, scripts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for cpu in cpus:
        assert found[cpu].exit_code == 0
        assert found[cpu].stdout.split()[-1] == str(cpu).encode()
    # A spawner that is lent again gets the CPUs of the thread that borrows it.
    assert (
        shell(code).stdout
        == subprocess.run(["sh", "-c", code], capture_output=True, check=True).stdout
    )
