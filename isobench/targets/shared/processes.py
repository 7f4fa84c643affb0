"""Run a program: stream its output, enforce the time limit, end all its descendants."""

import contextlib
import errno
import fcntl
import os
import selectors
import signal
import socket
import struct
import subprocess
import sys
import time
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Final, Literal

import psutil

from isobench.config import redaction
from isobench.model import Command, Leftover, OnOutput, host_abi
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds
from isobench.plugins import deadlines, ending, ownership
from isobench.plugins.api import Completed
from isobench.plugins.signals import uninterrupted
from isobench.targets.shared import elf, spawners

MAX_OUTPUT: Final = 1 << 20
"""Bytes of each stream that are kept. The rest is read, so that the program does not block."""
_TIED: Final = "ISOBENCH_TIED"
_KILL_SECONDS: Final = 10.0
"""How long killed processes may take to be gone."""
_SWEEP_SECONDS: Final = 3.0
"""The same of processes that a sweep has killed: each start waits for that."""
_PAUSE: Final = 0.01
_NS_GET_OWNER_UID: Final = 0xB704
"""ioctl_ns(2): the user who has made a user namespace."""


def tied() -> dict[str, str]:
    """Return the environment variable of payloads that are plain processes of the host.

    It ties them to their run: payloads that see it set a parent-death signal, and `sweep` finds
    the processes of dead runs by it.
    """
    # Not for payloads in containers: their parent is a helper of the engine that exits at once,
    # and the parent-death signal would kill them.
    return {_TIED: ownership.mine()}


def sweep(alive: Callable[[str], bool]) -> list[Leftover]:
    """Kill plain processes whose run has died, and return them.

    `alive` says whether the run of an owner's name still exists.
    """
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            owner = process.environ().get(_TIED)
            if owner is not None and not alive(owner):
                found.append(process)
                if os.getpgid(process.pid) == process.pid:
                    # The whole group in one instant: a user-mode kernel that is killed alone
                    # lets its guest's processes run loose on the host.
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
    return _leftovers(found, _remaining(found), "process")


def _remaining(killed: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Wait for processes that were killed; return those that stay."""
    # Children are not reaped: see `end_all`.
    limit = time.monotonic() + _SWEEP_SECONDS
    while (left := [*filter(_runs, killed)]) and time.monotonic() < limit:
        time.sleep(_PAUSE)
    return left


def _leftovers(
    killed: Sequence[psutil.Process], left: Collection[psutil.Process], what: str
) -> list[Leftover]:
    """Return processes that were killed, of which some are `left`; `what` they are."""
    return [
        Leftover(what=f"{what} {one.pid}", failure="it does not end" if one in left else "")
        for one in killed
    ]


def end_all(variable: str, value: str) -> list[int]:
    """Kill every process of this host with this variable in its environment, and wait for them.

    Return the numbers of those that do not end. They need not be children of this process.
    Children are not reaped: their exit codes stay for the code that started them.
    """
    limit = time.monotonic() + _KILL_SECONDS
    # Looked for again until none is left: one may start another just before it is killed.
    while True:
        left = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get(variable) == value:
                    left.append(process.pid)
                    process.kill()
        if not left or time.monotonic() > limit:
            return left
        time.sleep(_PAUSE)


def _ignore(_: bytes, /, at: int | None = None) -> None:
    """Ignore the output."""


def sweep_marked(mark: str, programs: Collection[str], what: str) -> list[Leftover]:
    """Kill this user's processes that execute a file with one of these names and have `mark` among
    their arguments, and their descendants; return them. `what` they are.
    """
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if (
                mark in process.cmdline()
                and _is_own(process)
                and any(_executes(process.pid, name) for name in programs)
            ):
                found += [process, *process.children(recursive=True)]
    found = [*dict.fromkeys(found)]
    return _leftovers(found, _kill_all(found), what)


def _is_own(process: psutil.Process) -> bool:
    """Return whether a process is this user's, or in a user namespace that this user has made.
    OSError: it is not to be seen.
    """
    if process.uids().real == os.getuid():
        return True
    # runsc that root has started becomes nobody, in a namespace of its own. In that of this process
    # are the programs of all users.
    with Path(f"/proc/{process.pid}/ns/user").open("rb") as space:
        if os.path.samestat(os.fstat(space.fileno()), Path("/proc/self/ns/user").stat()):
            return False
        owner = fcntl.ioctl(space, _NS_GET_OWNER_UID, bytes(4))
    return int.from_bytes(owner, sys.byteorder) == os.getuid()


def _kill_all(found: Sequence[psutil.Process]) -> list[psutil.Process]:
    """Kill processes and wait for them; return those that stay."""
    for process in found:
        with contextlib.suppress(psutil.Error):
            process.kill()
    _, left = psutil.wait_procs(found, timeout=_KILL_SECONDS)
    return list(left)


def own(name: str) -> list[tuple[int, list[str]]]:
    """Return the number and the arguments of every process that this user has started from a
    program of this name.
    """
    return [
        (process.pid, process.info["cmdline"] or [])
        for process in psutil.process_iter(["name", "cmdline", "uids"])
        if process.info["name"] == name
        and process.info["uids"] is not None
        and process.info["uids"].real == os.getuid()
        and _executes(process.pid, name)
    ]


def _executes(pid: int, name: str) -> bool:
    """Return whether a process executes a file of this name."""
    # Everybody can give a process any name and any arguments, by a link also to a set-user-ID
    # program. The file comes from the kernel: proc_pid_exe(5).
    try:
        return Path(f"/proc/{pid}/exe").readlink().name.removesuffix(" (deleted)") == name
    except PermissionError:
        # Only root sees that of a set-user-ID program, and only root could harm others.
        return os.geteuid() != 0
    except OSError:
        return False


def end_tree(pid: int) -> list[int]:
    """Kill a process and its descendants, and wait; return the numbers of those that stay."""
    tree: list[psutil.Process] = []
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        tree = [whole, *whole.children(recursive=True)]
    return [process.pid for process in _kill_all(tree)]


def process_tree(pid: int) -> list[int]:
    """Return the numbers of a process and all its descendants; empty where it has ended."""
    with contextlib.suppress(psutil.Error):
        whole = psutil.Process(pid)
        return [pid, *(process.pid for process in whole.children(recursive=True))]
    return []


class Listener:
    """Reads two streams to their ends, passes the first on, keeps the beginning of both."""

    def __init__(self, out: int, err: int, on_output: Callable[[bytes], None]) -> None:
        """Take two descriptors, which the caller closes, and the receiver of the first stream."""
        self._on_output = on_output
        self._kept: dict[int, bytearray] = {out: bytearray(), err: bytearray()}
        self._out, self._err = out, err
        self._selector = selectors.DefaultSelector()
        for stream in self._kept:
            self._selector.register(stream, selectors.EVENT_READ)

    @property
    def output(self) -> tuple[bytes, bytes]:
        """The beginning of both streams: at most MAX_OUTPUT bytes of each."""
        return bytes(self._kept[self._out]), bytes(self._kept[self._err])

    def listen(self, deadline: float, until: int | None = None) -> bool:
        """Return True when both streams have ended, False at the deadline (time.monotonic).

        With the descriptor `until`, return True as soon as that is readable, and only then.
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
        """Read a stream once; return whether it is still open."""
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
        """Release the selector. The descriptors stay open."""
        self._selector.close()


def end(process: subprocess.Popen[Any]) -> None:
    """Kill a process that we started, its group and its descendants, and wait for them."""
    with uninterrupted():
        tree = _kill(process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        psutil.wait_procs(tree, timeout=5)


def has_ended(process: subprocess.Popen[Any], within: float) -> bool:
    """Wait so many seconds for a process that we started; return whether it has ended.

    It is not waited for in the sense of wait(2): `end` still ends what it has left in its group.
    """
    if process.returncode is not None:
        return True
    deadline = time.monotonic() + within
    with contextlib.suppress(ChildProcessError):  # another thread has waited for it
        while os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
    return True


def _kill(process: subprocess.Popen[Any]) -> list[psutil.Process]:
    """Kill a process that we started, its group and its descendants; return these."""
    tree: list[psutil.Process] = []
    if process.returncode is not None:  # its number may be another process's by now
        return tree
    # Listed before the kill: orphans get another parent and could not be found afterwards. Any of
    # them may vanish meanwhile, as the kernel kills a PID namespace with its first process.
    with contextlib.suppress(psutil.NoSuchProcess):
        tree = psutil.Process(process.pid).children(recursive=True)
    _kill_group(process)
    process.kill()
    for member in tree:
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            member.kill()
    return tree


def terminate(pid: int, *, patience: float = 5) -> str:
    """End a process that is not our child: SIGTERM, and SIGKILL after `patience` seconds.

    Return what is wrong, or an empty string.
    """
    try:
        process = psutil.Process(pid)
        process.terminate()
        deadline = time.monotonic() + patience
        # A zombie has ended; it stays until its own parent waits for it.
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
    """Start a program in a session of its own, in `folder` where one is given.

    It inherits the `descriptors` under their own numbers. Root may start it as another `user`, in
    the group of the same number and in no other. It is killed at the limit of the call that starts
    it (`deadlines.within`), and at the latest when isobench ends. OSError: it cannot be executed.
    """
    return popen(
        argv,
        cwd=folder,
        env=dict(env),
        stdin=stdin,
        stdout=stdout,
        stderr=subprocess.PIPE,
        close_fds=True,
        pass_fds=descriptors,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
    )


def popen(
    argv: Sequence[str | os.PathLike[str]],
    **options: Any,  # noqa: ANN401 - those of subprocess.Popen
) -> subprocess.Popen[Any]:
    """Start a program in a session of its own, which ends as one of `start` does.

    What it leaves in the background when it has ended, and has been waited for, keeps running.
    OSError: it cannot be executed.
    """
    _demand_words(argv)
    with uninterrupted():
        # The terminal sends a Ctrl-C to its foreground group: to isobench alone, which then ends
        # the program in order.
        process = subprocess.Popen(argv, start_new_session=True, **options)
        _started.add(process)
    deadlines.at_the_end(lambda: _kill_group(process))
    return process


def _demand_words(argv: Sequence[str | os.PathLike[str]]) -> None:
    """Raise OSError where a word cannot be one of a program: an engine may have reported it, and
    JSON has characters that no path has.
    """
    for word in argv:
        try:
            is_word = b"\0" not in os.fsencode(word)
        except UnicodeEncodeError:  # half of a surrogate pair
            is_word = False
        if not is_word:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), ascii(word))


_started: Final[weakref.WeakSet[subprocess.Popen[Any]]] = weakref.WeakSet()


def _kill_group(process: subprocess.Popen[Any]) -> None:
    """Kill a process that we started with its group, unless it has been waited for."""
    # Until then its number is that of its group and of nothing else, also when it has ended and
    # has left others behind. So nothing asks here whether it has: `poll` would wait for it.
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


@ending.at_end
def _end_started() -> None:
    """Kill what is still running when isobench ends, as after a second Ctrl-C."""
    for process in [*_started]:
        if process.returncode is None:
            end(process)


def run(
    argv: Sequence[str | os.PathLike[str]],
    *,
    timeout: Nanoseconds,
    env: Mapping[str, str],
    command: Command | None = None,
    end_survivors: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> Completed:
    """Run a program in `folder` until it has ended and its streams are closed.

    At the time limit the program is killed with all its descendants; the exit code is then None.
    Standard output goes to `command`, whose program this is, as it arrives, with the time. Inside
    `spawning`, isobench's spawner starts the program, unless it reads lines (`command.on_stdin`).

    Some programs leave processes behind that hold their streams open, so that these never end.
    `end_survivors` is called when the program itself has ended, and must end those processes.
    OSError: the program cannot be executed.
    """
    called_at = time.monotonic_ns()
    deadline = time.monotonic() + deadlines.left(timeout / SECOND)
    on_stdin = None if command is None else command.on_stdin
    if _pool is not None and on_stdin is None:
        _demand_words(argv)
        request = spawners.request(argv, env=env, folder=folder)
        with _pool.borrowed() as spawner:
            started = _Spawned(argv[0], spawner, command, end_survivors, called_at)
            return started.run(request, deadline)
    on_output: OnOutput = _ignore if command is None else command.on_output
    stdin = subprocess.DEVNULL if on_stdin is None else subprocess.PIPE
    process = start(argv, env=env, folder=folder, stdin=stdin)
    if on_stdin is not None:
        assert process.stdin is not None
        on_stdin(writer(process.stdin))
    return _listen_to(process, on_output, deadline, end_survivors)


def writer(stream: IO[bytes]) -> Callable[[bytes], None]:
    """Return a function that writes to a stream at once. OSError: nobody reads it any more."""

    def write(data: bytes) -> None:
        try:
            os.write(stream.fileno(), data)
        except ValueError as error:  # the stream is closed
            raise OSError(str(error)) from None

    return write


def _listen_to(
    process: subprocess.Popen[bytes],
    on_output: OnOutput,
    deadline: float,
    end_survivors: Callable[[], None] | None,
) -> Completed:
    """Read a process to its end; end it at the deadline, and whenever this is interrupted."""
    assert process.stdout is not None  # both are pipes, by `start`
    assert process.stderr is not None
    listener = Listener(process.stdout.fileno(), process.stderr.fileno(), on_output)
    exit_code: int | None = None
    try:
        if end_survivors is not None and _ends_by(deadline, process, listener):
            end_survivors()
        if listener.listen(deadline):
            # Closed streams are not the end of the program: it may have closed them itself.
            with contextlib.suppress(subprocess.TimeoutExpired):
                exit_code = process.wait(max(0.0, deadline - time.monotonic()))
    finally:
        if exit_code is None:
            end(process)
        listener.close()
        process.stdout.close()
        process.stderr.close()
        if process.stdin is not None:
            process.stdin.close()
    stdout, stderr = listener.output
    return Completed(exit_code=exit_code, stdout=stdout, stderr=stderr)


def _ends_by(deadline: float, process: subprocess.Popen[bytes], listener: Listener) -> bool:
    """Listen until the process itself has ended; return False at the deadline."""
    # A pidfd is readable when its process has ended: pidfd_open(2).
    ended = os.pidfd_open(process.pid)
    try:
        return listener.listen(deadline, until=ended)
    finally:
        os.close(ended)


class _Spawned:
    """A program that a spawner starts, from the request to its end."""

    def __init__(
        self,
        name: str | os.PathLike[str],
        spawner: spawners.Spawner,
        command: Command | None,
        end_survivors: Callable[[], None] | None,
        called_at: int,
    ) -> None:
        self._name, self._spawner, self._command = name, spawner, command
        self._end_survivors, self._called_at = end_survivors, called_at
        self._kept = {spawners.Kind.OUT: bytearray(), spawners.Kind.ERR: bytearray()}
        self._exit_code: int | None = None

    def run(self, request: bytes, deadline: float) -> Completed:
        """Send the request and wait for the end; an exception on the way ends the program."""
        try:
            self._spawner.send(request)
            for message in self._spawner.messages(deadline):
                self._receive(message)
        finally:
            in_time = self._spawner.idle
            if not in_time:
                _end_spawner(self._spawner)
        return Completed(
            exit_code=self._exit_code if in_time else None,
            stdout=bytes(self._kept[spawners.Kind.OUT]),
            stderr=bytes(self._kept[spawners.Kind.ERR]),
        )

    def _receive(self, message: spawners.Message) -> None:
        match message.kind:
            case spawners.Kind.STARTED:
                # The way from here to the clone is isobench's own and no part of a start.
                if self._command is not None:
                    self._command.exclude(message.stamp - self._called_at)
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
    """End a spawner that runs a program, with that program, its group and its descendants."""
    with uninterrupted():
        tree: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):
            tree = psutil.Process(spawner.pid).children(recursive=True)
        spawner.close()  # kills the group
        # Descendants with a session of their own are outside of the group.
        for member in tree:
            with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                member.kill()
        deadline = time.monotonic() + _KILL_SECONDS / 2
        while any(map(_runs, tree)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)


def _runs(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


_pool: spawners.Pool | None = None
"""The spawners of this process's run; None: Python's `subprocess` starts programs."""
StartMethod = Literal["vfork", "subprocess"]
"""What starts programs: isobench's spawner, or Python's own `subprocess`."""


@contextlib.contextmanager
def spawning(program: Path | None) -> Iterator[StartMethod]:
    """Let isobench's spawner, `program`, start what `run` runs; yield the method that is used.

    One run at a time.
    """
    global _pool  # noqa: PLW0603 - of this process, as its children are
    before = _pool
    pool = None if program is None else spawners.Pool(make=lambda: _start_spawner(program))
    if pool is not None:
        # Tried before the run: if the spawner does not work, `subprocess` starts all programs of
        # this run. With both methods in one run, ratios of starts would compare the methods.
        try:
            with pool.borrowed():
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


def _start_spawner(program: Path) -> spawners.Spawner:
    """Start a spawner and let it run the probe program. SessionError: that fails."""
    spawner = spawners.Spawner(program, tied())
    try:
        # This also loads the spawner's pages, so that the first program of the run does not pay
        # for their page faults.
        with probe_program() as path:
            request = spawners.request([path], env={}, folder=None)
            done = _Spawned(path, spawner, None, None, 0).run(request, time.monotonic() + 10)
            if (done.exit_code, done.stdout) != (0, elf.ANSWER):
                raise SessionError(f"isobench's spawner does not run a program: {done}")
    except BaseException:
        spawner.close()
        raise
    return spawner


@contextlib.contextmanager
def probe_program() -> Iterator[Path]:
    """Yield the path of the probe program (`elf.probe_program`); it is removed afterwards."""
    abi = host_abi()
    assert abi is not None  # a spawner is a payload, and there are none for other hosts
    with ownership.temporary_folder("probe") as folder:
        path = folder / "answer"
        path.write_bytes(elf.probe_program(abi.machine))
        path.chmod(0o755)
        yield path


def proportional_kib(pid: int) -> int | None:
    """Return the memory of a process tree in KiB: the sum of Pss; None where it is unknown.

    Pss divides each shared page among the processes that map it: proc_pid_smaps_rollup(5).
    """
    total = 0
    try:
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            total += process.memory_full_info().pss
    except (psutil.Error, AttributeError):
        return None
    return total // 1024


def first_in_pid_namespace(pid: int) -> int | None:
    """Return the host's number of the first process of a PID namespace below a process, or None."""
    with contextlib.suppress(psutil.Error):
        for member in psutil.Process(pid).children(recursive=True):
            if is_first_in_pid_namespace(member.pid):
                return member.pid
    return None


def status_of(pid: int) -> dict[str, str]:
    """Return the fields of /proc/PID/status (proc_pid_status(5)); empty where it cannot be read."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def is_first_in_pid_namespace(pid: int) -> bool:
    """Return whether a process is the first of a PID namespace directly below that of isobench."""
    # One number for each namespace, the host's first: proc_pid_status(5).
    return status_of(pid).get("NSpid", "").split()[1:] == ["1"]


def parent(pid: int) -> int | None:
    """Return the number of a process's parent, or None where the process has ended."""
    with contextlib.suppress(psutil.Error):
        return psutil.Process(pid).ppid()
    return None


def ancestors(pid: int) -> list[str]:
    """Return the names of a process's ancestors, the parent first; empty where it has ended."""
    with contextlib.suppress(psutil.Error):
        return [each.name() for each in psutil.Process(pid).parents()]
    return []


def listening_process(socket_path: Path) -> str | None:
    """Return the name of the process that listens on a Unix socket, or None where it is hidden.

    Where a service manager listens for a service (systemd.socket(5)), this is the manager.
    """
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(5)
            link.connect(str(socket_path))
            # The credentials of the process that called listen(2): unix(7).
            peer = link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
            (pid, _, _) = struct.unpack("3i", peer)
            return psutil.Process(pid).name()
    except (OSError, psutil.Error, ValueError):
        return None


def open_flags(pid: int, path: Path) -> list[int]:
    """Return the flags (open(2)) of each descriptor of a file that a process tree has open.

    Empty where they cannot be seen.
    """
    wanted, found = os.path.realpath(path), []
    with contextlib.suppress(psutil.Error, OSError):
        whole = psutil.Process(pid)
        for process in (whole, *whole.children(recursive=True)):
            with contextlib.suppress(psutil.Error, OSError):
                found += [file.flags for file in process.open_files() if file.path == wanted]
    return found


def output_of(argv: Sequence[str], *, timeout: float = 10) -> str | None:
    """Return the standard output of a short command, or None where it cannot run or fails.

    `timeout` is in seconds. At most MAX_OUTPUT bytes are kept.
    """
    deadline = time.monotonic() + deadlines.left(timeout)
    # Not by isobench's spawner: nothing here is timed, and a run needs its spawners for what is.
    try:
        done = _listen_to(start(argv, env=os.environ), _ignore, deadline, None)
    except OSError:
        return None
    return done.stdout.decode(errors="replace").strip() if done.exit_code == 0 else None


def text(output: bytes) -> str:
    """Return the output of a program as text, without spaces at its ends."""
    return output.decode(errors="replace").strip()


def last_line(text: bytes) -> str:
    """Return the last line that a program has printed, for an error message."""
    lines = [line for line in text.decode(errors="replace").splitlines() if line.strip()]
    return redaction.beginning(lines[-1], 500) if lines else "it printed nothing"


def private_scratch(scratch: Path, name: str) -> Path:
    """Return a directory for one target's files inside the stage's scratch directory."""
    folder = scratch / name
    folder.mkdir(exist_ok=True)
    return folder


def closed_folder(path: Path) -> Path | None:
    """Return the outermost directory of a path that other users may not pass; None: they may."""
    above = [*reversed(path.parents), path]
    return next((folder for folder in above if not folder.stat().st_mode & 0o001), None)
