"""What cannot be printed ends nothing: the work goes on, and its exit code is kept."""

import errno
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from isobench.cli import _progress

PROGRAM = """
import signal, sys
from isobench import cli
from isobench.cli import _progress

def work():
    if len(sys.argv) > 2:
        sys.stdin.read()  # until the terminal is closed
    shown = _progress.Screen(quiet=False, color="auto")
    for done in range(3):
        shown.step(f"block {done}: nothing", done, 3)
        shown.say("text")
        print("text", flush=True)
    shown.close()
    open("done", "w").close()
    if sys.argv[1] == "interrupted":
        raise KeyboardInterrupt
    sys.exit(int(sys.argv[1]))

cli._command = work
cli.main()
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return tmp_path


def ended(*words: str, stdout: int, stderr: int | None = None) -> "tuple[int, str]":
    """Return the exit code of the program, and what it said on standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        stdin=subprocess.DEVNULL, stdout=stdout, check=False, timeout=60,
        stderr=subprocess.PIPE if stderr is None else stderr,
    )  # fmt: skip
    return done.returncode, (done.stderr or b"").decode()


@pytest.fixture
def full() -> Iterator[int]:
    descriptor = os.open("/dev/full", os.O_WRONLY)
    yield descriptor
    os.close(descriptor)


@pytest.fixture
def left() -> Iterator[int]:
    """A pipe whose reader has left."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@pytest.mark.parametrize(("found", "code"), [("0", 0), ("1", 1), ("interrupted", 130)])
def test_a_reader_that_leaves_changes_no_exit_code(
    found: str, code: int, left: int, here: Path
) -> None:
    assert ended(found, stdout=left, stderr=left)[0] == code
    assert (here / "done").exists()


@pytest.mark.parametrize(("found", "code"), [("0", 2), ("1", 1), ("interrupted", 130)])
def test_a_full_disk_of_standard_output_ends_nothing(
    found: str, code: int, full: int, here: Path
) -> None:
    assert ended(found, stdout=full, stderr=full)[0] == code
    assert (here / "done").exists()


@pytest.mark.usefixtures("here")
def test_a_full_disk_of_standard_output_is_reported(full: int) -> None:
    code, said = ended("0", stdout=full)
    assert code == 2
    assert f"isobench: standard output: {os.strerror(errno.ENOSPC)}" in said
    assert "Traceback" not in said


@pytest.mark.parametrize("words", [("--version",), ("--help",)])
def test_help_that_cannot_be_printed_is_an_error(words: tuple[str, ...], full: int) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "isobench", *words],
        stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == "isobench: standard output: No space left on device\n"


@pytest.mark.parametrize(("found", "code"), [("0", 0), ("interrupted", 130)])
def test_a_closed_terminal_ends_nothing(found: str, code: int, here: Path) -> None:
    main, terminal = pty.openpty()
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, found, "terminal"],
        stdin=subprocess.PIPE, stdout=terminal, stderr=terminal, start_new_session=True,
    )  # fmt: skip
    os.close(main)
    os.close(terminal)
    child.communicate(timeout=60)
    assert child.returncode == code
    assert (here / "done").exists()


@pytest.mark.usefixtures("here")
def test_a_pipe_that_does_not_block_is_waited_for() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    program = "from isobench import cli\ncli._command = lambda: print('x' * 300_000)\ncli.main()"
    child = subprocess.Popen([sys.executable, "-c", program], stdout=writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        assert len(stream.read()) == 300_001
    assert child.wait(60) == 0


@pytest.mark.usefixtures("here")
def test_colour_that_is_forced_draws_no_bar_into_a_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "%" not in ended("0", stdout=subprocess.DEVNULL)[1]


@pytest.mark.parametrize("columns", ["0", "1", "²", "999999999", "1" * 5000])
def test_a_size_that_no_terminal_has_is_ignored(
    columns: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    _progress.console_for().print("word " * 20)
    assert capsys.readouterr().out.count("\n") == 1


TWICE = """
import os, signal, time
from isobench.cli import _errors

_errors.handle_termination()
try:
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(10)
except KeyboardInterrupt:
    os.kill(os.getpid(), signal.SIGHUP)
    time.sleep(0.05)
    print("reported")
"""


def test_the_second_hang_up_of_a_terminal_does_not_end_the_report() -> None:
    done = subprocess.run(
        [sys.executable, "-c", TWICE], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "reported\n"


def test_an_interruption_while_isobench_starts_has_its_exit_code() -> None:
    program = (
        "import signal, sys\nfrom isobench import cli\n"
        "def answers(words): signal.raise_signal(signal.SIGINT)\n"
        "cli._answers_at_once = answers\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\ncli.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60
    )
    assert (done.returncode, done.stderr) == (128 + signal.SIGINT, "")


LIBRARY = """
import logging, sys, threading, warnings
from isobench.cli import _errors

class Lost:
    def __del__(self):
        raise ValueError(TEXT)

def fail():
    raise ValueError(TEXT)

TEXT = "x\\n::error::y \\x1b]0;title\\x07 token: hunter22"
_errors.quiet_libraries()
logging.error(TEXT)
logging.basicConfig()
logging.getLogger("some").warning(TEXT)
alone = logging.getLogger("alone")
alone.propagate = False
alone.error(TEXT)
print("logged", file=sys.stderr, flush=True)
warnings.warn(TEXT)
thread = threading.Thread(target=fail)
thread.start()
thread.join()
Lost()
"""


def test_what_libraries_say_controls_no_terminal_and_has_no_secrets(here: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LIBRARY], capture_output=True, text=True, check=True, timeout=60
    )
    logged, _, shown = (done.stdout + done.stderr).partition("logged\n")
    assert logged == ""
    assert shown.count("token: ***") >= 3
    assert "hunter22" not in shown
    assert "\x1b" not in shown
    assert "\n::" not in shown


# ---- interruptions of imports --------------------------------------------------------------------

IMPORTS = """
import sys, time
from isobench.cli import _interruptions
_interruptions.handle()
sys.path.insert(0, sys.argv[2])
try:
    import slow
    time.sleep(10)
except KeyboardInterrupt:
    print("interrupted", "slow" in sys.modules)
"""
REPORTS = """
import sys
from isobench.cli import _interruptions
from isobench.plugins import signals
_interruptions.handle()
sys.path.insert(0, sys.argv[2])
with signals.first_postponed(lambda: print("noted", flush=True)):
    import slow
    print("reported", flush=True)
"""
SLOW = """
import os, signal, sys, time
os.kill(os.getpid(), getattr(signal, sys.argv[1]))
until = time.monotonic() + {seconds}
while time.monotonic() < until:
    time.sleep(0.01)
"""


def importing(program: str, folder: Path, number: str, *, seconds: float) -> str:
    """Return the output of a program that gets a signal while it imports a module."""
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds))
    done = subprocess.run(
        [sys.executable, "-c", program, number, str(folder)],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return done.stdout


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_waits_until_an_import_has_ended(number: str, tmp_path: Path) -> None:
    """Modules in C take it for another error, or crash later with half of what they need."""
    assert importing(IMPORTS, tmp_path, number, seconds=0.3) == "interrupted True\n"


def test_an_import_without_end_is_interrupted(tmp_path: Path) -> None:
    assert importing(IMPORTS, tmp_path, "SIGINT", seconds=600) == "interrupted False\n"


IN_A_CLASS = """
import sys
from isobench.cli import _errors, _interruptions

class Waiting:
    def __set_name__(self, owner, name):
        import slow

def command():
    class Owner:
        waiting = Waiting()

_interruptions._LONGEST = 0.3
_interruptions.handle()
sys.path.insert(0, sys.argv[2])
print(_errors.run_guarded(command), end="")
"""


def test_another_error_of_an_import_that_is_interrupted_is_an_interruption(tmp_path: Path) -> None:
    """Python makes it a RuntimeError while it makes a class."""
    assert importing(IN_A_CLASS, tmp_path, "SIGTERM", seconds=600) == "130"


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_an_interruption_of_an_import_of_a_report_is_one(number: str, tmp_path: Path) -> None:
    assert {*importing(REPORTS, tmp_path, number, seconds=0.3).split()} == {"noted", "reported"}


AT_EACH_CALL = """
import os, signal, sys
from isobench.cli import _interruptions

for number in range(1, 600, 7):
    child = os.fork()
    if child == 0:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _interruptions.handle()
        calls = 0

        def count(frame, event, argument):
            global calls
            calls += event == "call"
            if calls == number:
                sys.setprofile(None)
                signal.raise_signal(signal.SIGINT)

        sys.setprofile(count)
        try:
            import msgspec
            msgspec.json.decode(b'{"a":"b"}', type=dict[str, str])
            signal.sigtimedwait([signal.SIGUSR1], 10)
        except KeyboardInterrupt:
            os._exit(130)
        os._exit(1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_an_interruption_at_any_moment_of_an_import_is_one() -> None:
    """msgspec lost it while it imported datetime, and then crashed."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EACH_CALL],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert {*done.stdout.split()} == {"130"}
