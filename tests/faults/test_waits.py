"""Every wait has an end: whatever an engine, a tool or a server does, a call of a target returns.

The tests do not assert how long something takes: what hangs ends at the test's own time limit.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import paramiko
import psutil
import pytest

from isobench.model import Leftover, Unavailable
from isobench.model.errors import SessionError
from isobench.model.units import TargetName, seconds
from isobench.plugins import deadlines, guard
from isobench.plugins.registry import Registry
from isobench.targets.containers import docker as docker_target
from isobench.targets.machines import _ssh, _ssh_host
from isobench.targets.shared import processes
from tests.faults import fakes
from tests.live.conftest import heeding

pytestmark = pytest.mark.timeout(120)
LIMIT = 1.0
LONG = str(10_000 + os.getpid())
"""Seconds that no other program of this machine sleeps for: what hangs is found by them."""
NEVER = f"exec sleep {LONG}"
"""A tool that hangs."""


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let all limits be short, and keep the cache of the test apart."""
    monkeypatch.setattr(guard, "PROBE_LIMIT", LIMIT)
    monkeypatch.setattr(guard, "SWEEP_LIMIT", LIMIT)
    monkeypatch.setattr(deadlines, "GRACE", LIMIT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def sleepers() -> list[int]:
    """Return the processes of tools that hang."""
    return [p.pid for p in psutil.process_iter(["cmdline"]) if LONG in (p.info["cmdline"] or ())]


def demand_none_sleeps() -> None:
    """Wait until no tool that hangs is left; the time limit of the test ends this."""
    # The kernel needs a moment to remove what was killed, and a busy machine a longer one.
    while sleepers():
        time.sleep(0.02)


# ---- deadlines -----------------------------------------------------------------------------------


def test_a_call_that_waits_too_long_ends_and_names_its_limit() -> None:
    with (
        pytest.raises(deadlines.DeadlineError, match=r"^the call did not end within 0\.2 s$"),
        deadlines.within(0.2, "the call"),
    ):
        time.sleep(60)


def test_a_call_in_time_keeps_its_result_and_its_errors() -> None:
    with deadlines.within(60, "the call"):
        assert 0 < deadlines.left(100) <= 60
        assert deadlines.left(1) == 1
    with pytest.raises(KeyError), deadlines.within(60, "the call"):
        raise KeyError("x")


def test_a_call_inside_another_ends_with_it() -> None:
    with deadlines.within(5, "outer"), deadlines.within(60, "inner"):
        assert deadlines.left(100) <= 5


def test_a_process_is_killed_with_its_group_when_the_call_of_a_thread_ends() -> None:
    def call() -> None:
        with deadlines.watched(LIMIT):
            process = processes.start(["/bin/sh", "-c", f"sleep {LONG} & wait"], env=os.environ)
            process.wait()
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdout.close()
            process.stderr.close()

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    demand_none_sleeps()


def test_what_an_interrupted_caller_was_waiting_for_ends_too() -> None:
    began = threading.Event()

    class Target:
        def probe(self) -> object:
            began.set()
            return processes.run(["sleep", LONG], timeout=seconds(4000), env=os.environ)

    def interrupt() -> None:
        began.wait()
        while not sleepers():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            guard.probe({TargetName("box"): Target()}, lambda *_: None)  # type: ignore[dict-item]
    finally:
        signal.signal(signal.SIGINT, before)
    demand_none_sleeps()


# ---- engines -------------------------------------------------------------------------------------


@pytest.fixture
def engine(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """Let DOCKER_HOST lead to a server that answers wrongly."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    docker_target._connected.cache_clear()
    with fakes.listening(path, fakes.ENGINES[request.param]):
        yield request.param
    docker_target._connected.cache_clear()


@pytest.mark.parametrize("engine", fakes.ENGINES, indirect=True)
def test_an_engine_that_does_not_answer_costs_its_target_alone(engine: str) -> None:
    names = [TargetName("docker"), TargetName("native")]
    targets = {name: Registry().get(name) for name in names}
    docker, native = guard.probe(targets, lambda *_: None).values()
    assert isinstance(docker, Unavailable), engine
    assert not isinstance(native, Unavailable)
    found: list[Leftover] = []
    guard.sweep(targets, lambda _: True, cached=False, on_leftover=found.append, limit=LIMIT)
    # An engine that does not run has nothing to remove: `doctor` reports why it does not answer.
    assert all(one.failure for one in found)


@pytest.mark.parametrize("name", ["podman", "firejail", "bwrap", "runsc", "systemd-nspawn"])
def test_a_tool_that_hangs_costs_its_target_alone_and_leaves_no_process(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.tool(tmp_path / "bin", name, NEVER)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    kind = {"bwrap": "bubblewrap", "runsc": "gvisor", "systemd-nspawn": "nspawn"}.get(name, name)
    targets = {TargetName(kind): Registry().get(kind)}
    (answer,) = guard.probe(targets, lambda *_: None).values()
    assert isinstance(answer, Unavailable)
    found: list[Leftover] = []
    guard.sweep(targets, lambda _: True, cached=True, on_leftover=found.append, limit=LIMIT)
    demand_none_sleeps()


def test_a_tool_that_prints_without_end_fills_no_memory(tmp_path: Path) -> None:
    path = fakes.tool(tmp_path / "bin", "chatty", "exec cat /dev/zero")
    before = psutil.Process().memory_info().rss
    assert processes.output_of([str(path), "--version"], timeout=LIMIT) is None
    assert psutil.Process().memory_info().rss - before < 64 << 20


# ---- the command line ----------------------------------------------------------------------------


def isobench(*words: str, path: Path, **variables: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "isobench", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PATH": f"{path}:{os.environ['PATH']}", **variables},
        preexec_fn=heeding,  # noqa: PLW1509 - the tests have no threads here
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda s: s.name)
@pytest.mark.parametrize("times", [1, 2])
def test_an_interruption_of_a_probe_ends_isobench_and_what_it_has_started(
    number: signal.Signals, times: int, tmp_path: Path
) -> None:
    fakes.tool(tmp_path / "bin", "bwrap", NEVER)
    words = ("run", "-t", "bubblewrap", "-w", "cpu.sieve", "-o", str(tmp_path / "run"))
    process = isobench(*words, path=tmp_path / "bin")
    while not sleepers():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    for _ in range(times):
        process.send_signal(number)
    _, err = process.communicate(timeout=100)
    # A second signal may come when Python is ending already, and has no handlers any more.
    assert process.returncode in ({130} if times == 1 else {130, -number}), err
    assert b"Traceback" not in err
    demand_none_sleeps()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda s: s.name)
def test_a_command_that_measures_nothing_ends_in_order_too(
    number: signal.Signals, tmp_path: Path
) -> None:
    fakes.tool(tmp_path / "bin", "bwrap", NEVER)
    process = isobench("doctor", "bubblewrap", path=tmp_path / "bin")
    while not sleepers():
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(number)
    _, err = process.communicate(timeout=100)
    assert (process.returncode, err) == (130, b"interrupted\n")
    demand_none_sleeps()


def test_the_time_limit_holds_while_targets_are_looked_for(tmp_path: Path) -> None:
    fakes.tool(tmp_path / "bin", "bwrap", NEVER)
    words = ("run", "-t", "bubblewrap", "-w", "cpu.sieve", "-o", str(tmp_path / "run"))
    process = isobench(*words, "--timeout", "3s", path=tmp_path / "bin")
    _, err = process.communicate(timeout=100)
    assert process.returncode == 124, err
    assert b"the time limit of 3 s has passed before anything was measured" in err
    demand_none_sleeps()


# ---- SSH -----------------------------------------------------------------------------------------


@pytest.fixture
def link(request: pytest.FixtureRequest) -> Iterator[_ssh_host.Link]:
    """Log in to a server that answers wrongly."""
    answer, consents = fakes.SERVERS[request.param]
    with fakes.ssh_server(answer, consents=consents) as (host, port):
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a server of this test
        key = paramiko.ECDSAKey.generate()
        client.connect(host, port, "x", pkey=key, look_for_keys=False, allow_agent=False)
        to = _ssh_host.Address(alias="box", name=host, port=port, user="x")
        yield _ssh_host.Link(client, to)
        client.close()


@pytest.mark.parametrize("link", fakes.SERVERS, indirect=True)
def test_a_command_over_ssh_ends_whatever_the_server_does(link: _ssh_host.Link) -> None:
    with pytest.raises(SessionError):
        link.execute("true", timeout=LIMIT)


@pytest.mark.parametrize("link", fakes.SERVERS, indirect=True)
def test_sftp_ends_whatever_the_server_does(
    link: _ssh_host.Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ssh_host, "_LOGIN_TIMEOUT", LIMIT)
    monkeypatch.setattr(_ssh_host, "_FILES_TIMEOUT", LIMIT)
    with pytest.raises(SessionError), link.files() as files:
        files.make_folder("/tmp/x")


@pytest.mark.parametrize("link", fakes.SERVERS, indirect=True)
def test_a_program_over_ssh_ends_whatever_the_server_does(
    link: _ssh_host.Link, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_ssh, "_KILL_TIMEOUT", LIMIT)
    connection = _ssh.Connection(link.transport, "agent", lambda: "")
    try:
        done = connection.run(b"request", timeout=seconds(LIMIT), on_output=lambda _: None)
    except SessionError:
        return
    assert done.exit_code is None
    assert len(done.stdout) <= processes.MAX_OUTPUT
