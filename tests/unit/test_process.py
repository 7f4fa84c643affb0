"""Ending processes that are not our children."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from isobench.targets import _process

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
    process.kill()
    process.wait()


def test_a_process_that_is_asked_to_end_does_so(sleeper: subprocess.Popen[bytes]) -> None:
    # Until we wait for it, it is a zombie: ended all the same.
    assert _process.terminate(sleeper.pid) == ""
    assert sleeper.wait(20) == -signal.SIGTERM


def test_one_that_does_not_listen_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-IS", "-c", STUBBORN], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        assert _process.terminate(child.pid, patience=0.1) == ""
        assert child.wait(20) == -signal.SIGKILL


def test_one_that_is_gone_is_no_fault(sleeper: subprocess.Popen[bytes]) -> None:
    sleeper.kill()
    sleeper.wait()
    assert _process.terminate(sleeper.pid) == ""


@pytest.mark.skipif(os.geteuid() == 0, reason="root may end every process")
def test_one_that_is_somebody_elses_is_told() -> None:
    assert _process.terminate(1) != ""
