"""Run a program: stream what it says, keep to the time limit, end all its descendants."""

import contextlib
import os
import selectors
import signal
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Final, Literal

import psutil

from isobench.model import Command, Leftover, OnOutput, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins import ownership
from isobench.plugins.api import Completed
from isobench.targets.shared import elf, spawners

MAX_OUTPUT: Final = 1 << 20
"""How many bytes of each stream are kept."""
_TIED: Final = "ISOBENCH_TIED"
_ENDING: Final = 10.0
_MOMENT: Final = 0.01


def tied() -> dict[str, str]:
    """Return the variable of payloads that are plain processes of the host.

    With it they die with isobench, and their children can be told from foreign processes.
    """
    return {_TIED: ownership.mine()}


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Kill plain processes whose run has died, and return them."""
    removed = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            whose = process.environ().get(_TIED)
            if whose is not None and not alive(whose):
                if os.getpgid(process.pid) == process.pid:
                    # At once: a user-mode kernel's guest must not outlive it by an instant.
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
                removed.append(Leftover(what=f"process {process.pid}"))
    return removed


def end_all(variable: str, value: str) -> list[int]:
    """Kill every process of this host that has this variable in its environment, wait until all
    are gone, and return those that stay.

    They need not be children of ours. Those that are keep their exit codes for whoever started
    them.
    """
    limit = time.monotonic() + _ENDING
    while True:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(variable) == value:
                    left.append(process.pid)
                    process.kill()
        if not left or time.monotonic() > limit:
            return left
        time.sleep(_MOMENT)


def _nothing(_: bytes, /, at: int | None = None) -> None:
    """Listen to nothing."""


def sweep_marked(mark: str) -> list[int]:
    """Kill the processes that have `mark` among their arguments, with their descendants, and wait
    for them; return their numbers.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if mark in process.cmdline():
                found += [process, *process.children(recursive=True)]
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(found, timeout=10)
    return sorted({process.pid for process in found})


def process_tree(pid: int) -> list[int]:
    """Return the number of a process and those of all its descendants; nothing where it is gone."""
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        return [pid, *(process.pid for process in whole.children(recursive=True))]
    return []


class Listener:
    """Reads two streams to their ends, hands on what the first says, keeps their beginnings."""

    def __init__(self, out: int, err: int, on_output: Callable[[bytes], None]) -> None:
        """Take two descriptors; closing them stays the caller's."""
        self._on_output = on_output
        self._kept: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
        self._out, self._err = out, err
        self._selector = selectors.DefaultSelector()
        for stream in self._kept:
            self._selector.register(stream, selectors.EVENT_READ)

    @property
    def output(self) -> tuple[bytes, bytes]:
        """What both streams have said so far."""
        return bytes(self._kept[self._out]), bytes(self._kept[self._err])

    def listen(self, deadline: float, until: int | None = None) -> bool:
        """Return True when both streams have ended, False at the deadline (time.monotonic).

        With `until`, a descriptor, the end is when that can be read, and neither before nor after.
        """
        streams = len(self._selector.get_map())
        if until is not None:
            self._selector.register(until, selectors.EVENT_READ)
        try:
            while streams or until is not None:
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                ready = [key.fd for key, _ in self._selector.select(left)]
                if until in ready:
                    return True
                streams -= sum(not self._read(stream) for stream in ready)
        finally:
            if until is not None:
                self._selector.unregister(until)
        return True

    def _read(self, stream: int) -> bool:
        """Hand on what a stream says; say whether it goes on."""
        chunk = os.read(stream, 65536)
        if not chunk:
            self._selector.unregister(stream)
            return False
        if stream == self._out:
            self._on_output(chunk)
        kept = self._kept[stream]
        kept += chunk[: max(0, MAX_OUTPUT - len(kept))]
        return True

    def close(self) -> None:
        """Forget the descriptors."""
        self._selector.close()


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a process that we started, its group and its descendants, and wait for it."""
    family: list[psutil.Process] = []
    # Killing the first process of a PID namespace takes the rest with it: they may vanish at any
    # moment.
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    psutil.wait_procs(family, timeout=5)


def terminate(pid: int, *, patience: float = 5) -> str:
    """End a process that is not our child: ask it, wait for so many seconds, kill it; return what
    is wrong, or nothing.
    """
    try:
        process = psutil.Process(pid)
        process.terminate()
        deadline = time.monotonic() + patience
        # One that nobody waits for stays, as a zombie: ended all the same.
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                process.kill()
                break
            time.sleep(0.02)
    except psutil.NoSuchProcess:
        return ""
    except psutil.Error as error:
        return str(error)
    return ""


def start(
    argv: Sequence[str | os.PathLike[str]],
    *,
    env: Mapping[str, str],
    stdin: int = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.PIPE,
    descriptors: Sequence[int] = (),
    user: int | None = None,
    folder: Path | None = None,
) -> subprocess.Popen[bytes]:
    """Start a program in a session of its own, so that a Ctrl-C at the terminal reaches only
    isobench. It inherits the `descriptors` under their own numbers. Root may start it as another
    `user`, in the group of the same number alone. It begins in `folder`, where one is named.
    """
    return subprocess.Popen(
        argv,
        cwd=folder,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        start_new_session=True,
        close_fds=True,
        pass_fds=descriptors,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: Nanoseconds,
    env: Mapping[str, str],
    command: Command | None = None,
    end_survivors: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> Completed:
    """Run a program to its end, beginning in `folder`. OSError if it cannot be executed at all.

    With a `command`, whose program it is, its standard output is handed on as it arrives, with the
    time. While `spawning`, isobench's spawner starts it.

    A program that leaves others behind, which hold its streams open, has no other end than its own:
    then `end_survivors` is called, and must end those.
    """
    entered = time.monotonic_ns()
    deadline = time.monotonic() + timeout / SECOND
    if _pool is not None:
        asked = spawners.request(argv, env=env, folder=folder)
        with _pool.lent() as spawner:
            started = _Spawned(argv[0], spawner, command, end_survivors, entered)
            return started.finished(asked, deadline)
    on_output: OnOutput = _nothing if command is None else command.on_output
    process = start(argv, env=env, folder=folder)
    assert process.stdout is not None  # both are pipes, by `start`
    assert process.stderr is not None
    listener = Listener(process.stdout.fileno(), process.stderr.fileno(), on_output)
    exit_code: int | None = None
    try:
        if end_survivors is not None:
            own_end = os.pidfd_open(process.pid)
            try:
                in_time = listener.listen(deadline, until=own_end)
            finally:
                os.close(own_end)
            if in_time:
                end_survivors()
        if listener.listen(deadline):
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        if exit_code is None:
            end(process)
        listener.close()
        process.stdout.close()
        process.stderr.close()
    stdout, stderr = listener.output
    return Completed(exit_code=exit_code, stdout=stdout, stderr=stderr)


class _Spawned:
    """A program that a spawner starts, from the request to its end."""

    def __init__(
        self,
        name: str | os.PathLike[str],
        spawner: spawners.Spawner,
        command: Command | None,
        end_survivors: Callable[[], None] | None,
        entered: int,
    ) -> None:
        self._name, self._spawner, self._command = name, spawner, command
        self._end_survivors, self._entered = end_survivors, entered
        self._kept = {spawners.Kind.OUT: bytearray(), spawners.Kind.ERR: bytearray()}
        self._exit_code: int | None = None

    def finished(self, asked: bytes, deadline: float) -> Completed:
        """Ask for it and wait for its end; whatever else ends this ends it."""
        try:
            self._spawner.send(asked)
            for message in self._spawner.messages(deadline):
                self._take(message)
        finally:
            in_time = self._spawner.idle
            if not in_time:
                _end_spawner(self._spawner)
        return Completed(
            exit_code=self._exit_code if in_time else None,
            stdout=bytes(self._kept[spawners.Kind.OUT]),
            stderr=bytes(self._kept[spawners.Kind.ERR]),
        )

    def _take(self, message: spawners.Message) -> None:
        match message.kind:
            case spawners.Kind.STARTED:
                if self._command is not None:
                    self._command.exclude(message.stamp - self._entered)
            case spawners.Kind.FAILED:
                number = message.number
                raise OSError(number, os.strerror(number), os.fspath(self._name))
            case spawners.Kind.OUT | spawners.Kind.ERR:
                if message.kind is spawners.Kind.OUT and self._command is not None:
                    self._command.on_output(message.data, at=message.stamp)
                kept = self._kept[message.kind]
                kept += message.data[: max(0, MAX_OUTPUT - len(kept))]
            case spawners.Kind.EXITED:
                self._exit_code = message.number
                if self._end_survivors is not None:
                    self._end_survivors()
            case spawners.Kind.END:
                pass


def _end_spawner(spawner: spawners.Spawner) -> None:
    """End a spawner in which something runs, that program, its group and its descendants."""
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        family = psutil.Process(spawner.pid).children(recursive=True)
    spawner.close()  # kills the group
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.kill()
    deadline = time.monotonic() + _ENDING / 2
    while any(map(_runs, family)) and time.monotonic() < deadline:
        time.sleep(_MOMENT)


def _runs(process: psutil.Process) -> bool:
    """Say whether a process has not ended; one that only waits to be reaped has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_pool: spawners.Pool | None = None
"""The spawners of the run that goes on in this process."""
Way = Literal["vfork", "subprocess"]
"""What starts programs: isobench's spawner, or Python's own `subprocess`."""


@contextlib.contextmanager
def spawning(program: Path | None) -> Iterator[Way]:
    """Let isobench's spawner, `program`, start whatever `run` runs; yield what does so.

    Where it does not work, nothing of this run is started by it: ratios of starts compare like with
    like. One run at a time.
    """
    global _pool  # noqa: PLW0603 - of this process, as its children are
    before = _pool
    pool = None if program is None else spawners.Pool(make=lambda: _made(program))
    if pool is not None:
        try:
            with pool.lent():
                pass
        except (OSError, SessionError):
            pool = None
    _pool = pool
    try:
        yield "subprocess" if pool is None else "vfork"
    finally:
        _pool = before
        if pool is not None:
            pool.close()


def _made(program: Path) -> spawners.Spawner:
    """Start a spawner and see it run the smallest program that answers: SessionError where it does
    not. What it needs is in memory afterwards.
    """
    spawner = spawners.Spawner(program, tied())
    try:
        with answering() as answer:
            asked = spawners.request([answer], env={}, folder=None)
            done = _Spawned(answer, spawner, None, None, 0).finished(asked, time.monotonic() + 10)
            if (done.exit_code, done.stdout) != (0, elf.ANSWER):
                raise SessionError(f"isobench's spawner does not run a program: {done}")
    except BaseException:
        spawner.close()
        raise
    return spawner


@contextlib.contextmanager
def answering() -> Iterator[Path]:
    """Yield a file of the smallest program that answers; it is gone afterwards."""
    abi = host_abi()
    assert abi is not None  # who asks has looked
    with tempfile.TemporaryDirectory(prefix="isobench-") as folder:
        path = Path(folder) / "answer"
        path.write_bytes(elf.probe_program(abi.machine))
        path.chmod(0o755)
        yield path


def proportional_kib(pid: int) -> int | None:
    """Return the memory of a process tree in KiB, shared pages by their share; None: unknown."""
    total = 0
    try:
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.Error, AttributeError):
        return None
    return total // 1024


def first_in_pid_namespace(pid: int) -> int | None:
    """Return the descendant of a process that is the first of a PID namespace of its own, as this
    host numbers it; None where there is none.
    """
    with contextlib.suppress(psutil.Error, OSError):
        for member in psutil.Process(pid).children(recursive=True):
            for line in Path(f"/proc/{member.pid}/status").read_text().splitlines():
                if line.startswith("NSpid:") and line.split()[2:] == ["1"]:
                    return member.pid
    return None


def parent(pid: int) -> int | None:
    """Return the parent of a process, or None where it is gone."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return None


def ancestors(pid: int) -> list[str]:
    """Return the names of what a process descends from, the nearest first; nothing where it is
    gone.
    """
    with contextlib.suppress(psutil.Error):
        return [each.name() for each in psutil.Process(pid).parents()]
    return []


def listening_process(socket_path: Path) -> str | None:
    """Return the name of the process that listens on a socket of this host, or None where that
    cannot be seen. A service manager that listens for another shows itself.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(5)
            link.connect(str(socket_path))
            peer = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            (pid, _, _) = struct.unpack("3i", peer)
            return psutil.Process(pid).name()
    except (OSError, psutil.Error, ValueError):
        return None


def open_flags(pid: int, path: Path) -> list[int]:
    """Return the flags with which a process tree has opened a file, once each time it has; nothing
    where that cannot be seen.
    """
    wanted, found = os.path.realpath(path), []
    with contextlib.suppress(psutil.Error, OSError):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                found += [file.flags for file in process.open_files() if file.path == wanted]
    return found


def output_of(argv: Sequence[str], *, timeout: float = 10) -> str | None:
    """Return what a short command prints, or None where it cannot be run or fails."""
    try:
        done = subprocess.run(
            argv, capture_output=True, check=True, timeout=timeout, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace").strip()


def last_line(text: bytes) -> str:
    """Return the last line that a program said, for an error message."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it said nothing"


def private_scratch(scratch: Path, name: str) -> Path:
    """Return a directory for one target's files inside the stage's scratch directory."""
    folder = scratch / name
    folder.mkdir(exist_ok=True)
    return folder
