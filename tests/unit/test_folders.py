"""Folders that are removed when they are not needed any more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from isobench.plugins import folders

FILLING = """
import contextlib, sys, threading
from pathlib import Path
from isobench.plugins import folders

entered = threading.Event()

def fill():
    # Once the folder is gone, no traceback: a thread that writes one while Python ends makes it
    # abort.
    with (
        contextlib.suppress(OSError),
        folders.removed_at_end("filled-", Path(sys.argv[1])) as folder,
    ):
        (folder / "inner").mkdir()
        number = 0
        while True:
            (folder / "inner" / str(number)).touch()
            number += 1
            if number > 100:
                entered.set()

threading.Thread(target=fill, daemon=True).start()
entered.wait()
"""
ENDING = """
import atexit, os, signal, sys, time
from isobench.cli._errors import handle_termination, run_guarded

def ended():
    os.kill(os.getpid(), getattr(signal, sys.argv[1]))
    print("removed", flush=True)

atexit.register(ended)  # runs after what is registered later

def command():
    handle_termination()
    raise KeyboardInterrupt

sys.exit(run_guarded(command))
"""


def test_a_folder_is_removed_at_the_end_of_its_context_also_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"), folders.removed_at_end("x-", tmp_path) as made:
        assert made.stat().st_mode & 0o777 == 0o700
        (made / "file").touch()
        raise ValueError("no")
    assert not any(tmp_path.iterdir())


def test_a_folder_that_a_forgotten_thread_fills_is_removed_when_isobench_ends(
    tmp_path: Path,
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLING, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert "rmtree" not in done.stderr
    assert not any(tmp_path.iterdir())


def test_a_forked_process_leaves_the_folders_of_its_parent(tmp_path: Path) -> None:
    with folders.removed_at_end("x-", tmp_path) as made:
        folders._folders[made] = os.getpid() + 1
        folders._remove_folders()
        assert made.is_dir()


@pytest.mark.parametrize("second", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_second_signal_interrupts_nothing_that_is_removed_at_the_end(second: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ENDING, second], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "removed\n", "interrupted\n")
