"""Programs of the host: running them, streaming their output, ending them with all descendants."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from isobench.model import Command
from isobench.model.errors import SessionError
from isobench.model.units import seconds
from isobench.plugins import deadlines
from isobench.targets.shared import agents, processes
from tests import waiting

STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("ready", flush=True)
time.sleep(600)
"""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "600"])
    yield process
    waiting.killed(process)


def test_a_process_ends_by_sigterm(sleeper: subprocess.Popen[bytes]) -> None:
    # Until its parent waits for it, it is a zombie, which counts as ended.
    assert processes.terminate(sleeper.pid) == ""
    assert sleeper.wait(20) == -signal.SIGTERM


def test_a_process_that_ignores_sigterm_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-IS", "-c", STUBBORN], stdout=subprocess.PIPE) as child:
        assert waiting.line(child) == "ready"
        assert processes.terminate(child.pid, patience=0.1) == ""
        assert child.wait(20) == -signal.SIGKILL


def test_a_process_that_has_ended_is_no_error(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait(20)
    assert processes.terminate(sleeper.pid) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may end every process")
def test_a_process_of_another_user_is_reported() -> None:
    assert processes.terminate(1) != ""


# It leaves a child behind that holds its streams, and whose number it writes into a file.
LEAVES_ONE = 'sleep 600 & echo $! > "$0"; echo said; exit 7'


@pytest.fixture
def note(tmp_path: Path) -> Path:
    return tmp_path / "number"


def child(note: Path) -> int:
    return int(note.read_text())


def test_survivors_are_ended_when_the_program_itself_has_ended(note: Path) -> None:
    called: list[int] = []

    def end_survivors() -> None:
        called.append(child(note))
        os.kill(child(note), signal.SIGKILL)

    done = processes.run(
        ["sh", "-c", LEAVES_ONE, str(note)],
        timeout=seconds(60),
        env={},
        end_survivors=end_survivors,
    )
    assert (done.exit_code, done.stdout) == (7, b"said\n")
    assert called == [child(note)]


def test_a_program_that_closes_its_streams_early_is_waited_for() -> None:
    at: list[float] = []
    began = time.monotonic()
    done = processes.run(
        ["sh", "-c", "exec >&- 2>&-; sleep 0.3; exit 3"],
        timeout=seconds(60), env={"PATH": os.environ["PATH"]},
        end_survivors=lambda: at.append(time.monotonic()),
    )  # fmt: skip
    assert done.exit_code == 3
    assert at[0] - began >= 0.3


def test_survivors_are_not_ended_at_the_time_limit() -> None:
    called: list[int] = []
    done = processes.run(
        ["sh", "-c", "echo said; exec sleep 600"],
        timeout=seconds(0.5), env={"PATH": os.environ["PATH"]},
        end_survivors=lambda: called.append(1),
    )  # fmt: skip
    assert (done.exit_code, done.stdout) == (None, b"said\n")
    assert called == []


def test_without_end_survivors_a_run_lasts_until_both_streams_end(note: Path) -> None:
    done = processes.run(["sh", "-c", LEAVES_ONE, str(note)], timeout=seconds(0.5), env={})
    assert (done.exit_code, done.stdout) == (None, b"said\n")
    # It ends with the group of the program, which itself has ended long before.
    assert has_ended(child(note))


def has_ended(pid: int) -> bool:
    """Wait until a process that is no child has ended: a zombie has."""
    end = time.monotonic() + waiting.PATIENCE
    with contextlib.suppress(psutil.NoSuchProcess):
        while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
    return True


def test_what_a_program_leaves_ends_with_the_call_that_has_started_it(note: Path) -> None:
    with deadlines.watched(60) as call:
        process = processes.start(["sh", "-c", LEAVES_ONE, str(note)], env={})
        assert waiting.line(process) == "said"
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        call.cancel()
        assert has_ended(child(note))
    waiting.killed(process)


def test_what_a_program_leaves_stays_when_it_has_been_waited_for(note: Path) -> None:
    """As the machine that a start command has started."""
    with deadlines.watched(60) as call:
        process = processes.popen(["sh", "-c", LEAVES_ONE, str(note)], stdout=subprocess.PIPE)
        assert process.wait(waiting.PATIENCE) == 7
        call.cancel()
        processes.end(process)
        assert psutil.Process(child(note)).status() != psutil.STATUS_ZOMBIE
    os.kill(child(note), signal.SIGKILL)
    waiting.killed(process)


def test_the_process_that_listens_on_a_socket_is_named(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    assert processes.listening_process(path) is None
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        assert processes.listening_process(path) is None  # no process listens yet
        listener.listen(1)
        assert processes.listening_process(path) == psutil.Process().name()


def test_ancestors_are_named_nearest_first() -> None:
    names = processes.ancestors(os.getpid())
    assert names[0] == psutil.Process(os.getppid()).name()
    assert processes.ancestors(2**22 + 1) == []


def test_only_a_program_of_this_user_and_this_name_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = Path(shutil.which("sleep") or "").resolve()
    (tmp_path / "copy").mkdir()
    shutil.copy2(sleep, tmp_path / "copy" / "conmon-x")
    (tmp_path / "conmon-x").symlink_to(sleep)  # a name alone: the program is another one
    running = [
        subprocess.Popen([folder / "conmon-x", "600"]) for folder in (tmp_path / "copy", tmp_path)
    ]
    try:
        assert processes.own("conmon-x") == [
            (running[0].pid, [str(tmp_path / "copy" / "conmon-x"), "600"])
        ]
        (tmp_path / "copy" / "conmon-x").unlink()  # as an upgrade does
        assert len(processes.own("conmon-x")) == 1
        monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
        assert processes.own("conmon-x") == []
    finally:
        for one in running:
            waiting.killed(one)


def test_a_launcher_that_ends_and_leaves_another_is_an_error_at_once_and_both_end(
    note: Path,
) -> None:
    left = "sleep 600 </dev/null & echo $! > $1; echo no such namespace >&2; exit 1"
    argv = ["sh", "-c", left, "sh", str(note)]
    gone = pytest.raises(SessionError, match="the instance is gone: no such namespace")
    with agents.opened(argv, environment=os.environ) as session, gone:
        session.run(Command(argv=("payload",)), timeout=seconds(60))
    assert has_ended(child(note))


@pytest.mark.parametrize("word", ["\0x", "a\0b", "\ud800"])
def test_a_word_that_no_program_can_have_is_a_program_that_cannot_be_executed(word: str) -> None:
    """An engine reports paths in JSON, which has such characters."""
    assert processes.output_of([word, "--version"]) is None
    assert processes.output_of(["/bin/echo", word]) is None
    with pytest.raises(OSError, match="Invalid argument"):
        processes.run([word], timeout=seconds(5), env={})
