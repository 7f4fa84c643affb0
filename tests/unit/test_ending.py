"""How a command ends after plug-ins have run: with its exit code, whatever they leave running."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from isobench.plugins import ending

PROGRAM = """
import atexit, os, signal, sys, threading, time
from isobench import cli
from isobench.plugins import ending, folders, stdout

ending.LIMIT = float(sys.argv[2])
waiting = threading.Event()

class Late:
    def __del__(self):
        time.sleep(1000)

def wait():
    waiting.set()
    time.sleep(1000)

def interrupt():
    waiting.wait()
    while getattr(signal.getsignal(signal.SIGINT), "__module__", "") != ending.__name__:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

def command():
    stdout.protect()
    made = folders.removed_at_end("kept-", os.getcwd())
    made.__enter__()
    globals()["made"] = made
    {left}
    print("the answer")
    sys.exit(3)

cli._command = command
cli.main()
"""
LEFT = {
    "handler": "atexit.register(wait)",
    "deaf handler": "atexit.register(lambda: [wait_through() for _ in iter(int, 1)])",
    "thread": "threading.Thread(target=wait).start()",
    "finalizer": "globals()['late'] = Late(); late.itself = late",
    "exception": "atexit.register(lambda: 1 / 0)",
    "exit": "atexit.register(lambda: sys.exit(9))",
    "nothing": "pass",
}
DEAF = """
def wait_through():
    try: wait()
    except BaseException: pass
"""


def ended(folder: Path, left: str, limit: float) -> "subprocess.CompletedProcess[str]":
    program = DEAF + textwrap.dedent(PROGRAM).replace("{left}", left)
    return subprocess.run(
        [sys.executable, "-c", program, "", str(limit)], cwd=folder, timeout=60,
        env={"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("left", LEFT)
def test_what_plug_ins_leave_running_keeps_no_command_from_ending(
    left: str, tmp_path: Path
) -> None:
    done = ended(tmp_path, LEFT[left], 0.5)
    assert (done.returncode, done.stdout) == (3, "the answer\n")
    assert not any(tmp_path.iterdir())
    is_late = left in ("handler", "deaf handler", "thread")
    assert ("of a plug-in were still running" in done.stderr) is is_late


@pytest.mark.parametrize("left", ["handler", "deaf handler", "thread"])
def test_an_interruption_ends_at_once_what_plug_ins_left(left: str, tmp_path: Path) -> None:
    interrupted = f"threading.Thread(target=interrupt, daemon=True).start(); {LEFT[left]}"
    done = ended(tmp_path, interrupted, 1000)
    assert (done.returncode, done.stdout, done.stderr) == (3, "the answer\n", "")


def test_handlers_of_plug_ins_still_run_when_isobench_ends(tmp_path: Path) -> None:
    done = ended(tmp_path, "atexit.register(print, 'theirs')", 100)
    assert (done.returncode, done.stdout) == (3, "the answer\n")
    assert done.stderr == "theirs\n"


def test_one_error_at_the_end_keeps_nothing_else_from_being_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(ending, "_own", [lambda: seen.append("first"), lambda: 1 / 0])
    ending.clean_up()
    assert seen == ["first"]
