"""User-mode Linux: a guest whose Linux kernel is an ordinary process of the host.

Its kernel is built for the host's system calls in place of hardware (paravirtual). It executes the
guest's programs as processes of the host, and intercepts each of their system calls by ptrace. So
it needs no support of the processor, no device and no privilege, and code between two system calls
runs at native speed. It has one CPU. There is no hypervisor: it has a column of its own, and claims
about virtual machines are not about it.

Two risks, and what isobench does about them:

- Processes of the guest are processes of the host. If only the kernel is killed, they go on, and
  their system calls reach the host. The launcher therefore kills all of them at once
  (workloads/_launch/payload.c, "guard"), and root runs the kernel as the user nobody.
- Root in the guest may mount files of the host (hostfs). Its confinement to a folder can be left by
  "..". The file system is therefore not registered, and evidence must show that it is absent.

Source: Documentation/virt/uml/user_mode_linux_howto_v2.rst of the Linux kernel.
"""

import contextlib
import functools
import math
import os
import secrets
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.evidence import cpu_share
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
    Expectation,
    Fact,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import folders, ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.machines import _cache, _cpio, _guest, _instance, _serial, _xstate
from isobench.targets.shared import agent_request, disks, elf, processes

_REGISTERS_REFUSED: Final = "Attempted to kill init! exitcode=0x0000000b"
"""Console of a kernel that cannot load the registers of its first process (`_xstate`)."""
_LEAST_MEMORY: Final = 32
"""MiB."""
_NAMES: Final = ("linux.uml", "linux")
"""Name of the program in Debian's package, and in a build of the kernel."""
_NOBODY: Final = 65534
_BOOT_TIMEOUT: Final = 60.0
_KILL_TIMEOUT: Final = 10.0
"""Seconds within which a guest must have killed a program that exceeded its time limit."""
_PROBE_TIMEOUT: Final = 20.0
# No option changes how programs run in the guest. "quiet" suppresses what the kernel prints as a
# process about its checks of the host; loglevel=6 prints what other guests' kernels print. hostfs
# is left out for safety (see above). The remaining options save a second of the start: without the
# benchmark of RAID 6 algorithms, the self-tests of ciphers, and 256 old pseudo-terminals.
_COMMAND_LINE: Final = (
    "quiet loglevel=6 panic=-1 noreboot cryptomgr.notests pty.legacy_count=0"
    " initcall_blacklist=init_hostfs,raid6_select_algo ISOBENCH_PORTS=ttyS0"
)
_TEMPORARY: Final = ("TMPDIR", "TMP", "TEMP")
"""Variables with folders where the kernel puts the guest's memory, as a file. It tries them before
/dev/shm (arch/um/os-Linux/mem.c).
"""
_INSTALL: Final = "isobench doctor --install uml"
_BUILD: Final = (
    f"{_INSTALL} (Debian and Ubuntu), or build one (make ARCH=um defconfig all) and set"
    ' kernel = "/path/to/linux" in [targets.uml]'
)
_HINTS: Final = {
    "noexec": "put the guest's memory where files may be executed: TMPDIR=/folder, or"
    " sudo mount -o remount,exec /dev/shm",
    "ptrace": "sudo sysctl kernel.yama.ptrace_scope=1; in a container:"
    " --cap-add SYS_PTRACE --security-opt seccomp=unconfined",
    "out of space": 'set memory = "128MiB" in [targets.uml], or TMPDIR=/folder/with/more/space',
    # Without its first letter: messages have both "Cannot" and "cannot".
    "annot allocate memory": 'set memory = "128MiB" in [targets.uml]',
}
"""A fragment of a message of the kernel -> what to do about it."""


class _Machine(_serial.Machine):
    """A running user-mode kernel."""

    process_name: ClassVar[str] = "the user-mode kernel"
    hints: ClassVar[Mapping[str, str]] = _HINTS

    def _error_text(self) -> str:
        """Return standard error and the console: the kernel reports errors of the host on both."""
        return f"{super()._error_text()}\n{self.log}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Parts:
    """What a guest is started from.

    isobench opens all files: as another user, the kernel could not reach them by their paths.
    """

    kernel: str
    memory: int
    """MiB."""
    initrd: Path
    folder: Path
    """Folder for the kernel's management socket (uml_dir)."""
    name: str
    disk: Path | None = None
    synchronous: bool = True
    """Each write to the disk's file waits for the host's disk (O_SYNC)."""
    more: Sequence[str] = ()
    limited_registers: bool = False
    """The CPU's extended registers are hidden from the kernel (`_xstate`)."""

    def arguments(self, lines: Mapping[str, int], files: Mapping[str, int]) -> list[str]:
        """Return the command line; `lines` and `files` are descriptors that the kernel inherits."""
        opened = {name: f"/proc/self/fd/{number}" for name, number in files.items()}
        # con0=null,fd:1: the console reads nothing, and writes to standard output. Without
        # con=null and ssl=null the kernel would open terminals for the other lines.
        argv = [self.kernel, f"mem={self.memory}M", f"initrd={opened['initrd']}"]
        argv += [f"uml_dir={opened['folder']}/", f"umid={self.name}"]
        argv += ["con0=null,fd:1", "con=null", "ssl=null"]
        argv += [f"ssl{n}=fd:{lines[name]}" for n, name in enumerate(("out", "err"))]
        if self.disk is not None:
            # "s" opens the file with O_SYNC: see `UmlTarget.cache`.
            argv += [f"ubd0{'s' if self.synchronous else ''}={opened['disk']}"]
        return [*argv, *_COMMAND_LINE.split(), *self.more]

    def give_to(self, user: int) -> None:
        """Make `user` the owner of the files that the kernel writes."""
        for path in (self.folder, self.disk):
            if path is not None:
                os.chown(path, user, user)

    @contextlib.contextmanager
    def opened(self) -> Iterator[dict[str, int]]:
        """Yield an open descriptor for each file, by name."""
        wanted = {"initrd": (self.initrd, os.O_RDONLY), "folder": (self.folder, os.O_RDONLY)}
        if self.disk is not None:
            wanted["disk"] = (self.disk, os.O_RDWR)
        with contextlib.ExitStack() as stack:
            found = {}
            for name, (path, flags) in wanted.items():
                found[name] = os.open(path, flags | os.O_CLOEXEC)
                stack.callback(os.close, found[name])
            yield found


def _user() -> int:
    """Return the user ID that the kernel runs as: this user's, or nobody's for root."""
    return os.geteuid() or _NOBODY


@contextlib.contextmanager
def _started(
    parts: _Parts,
    *,
    launcher: Path | None = None,
    on_output: Callable[[bytes], None] = lambda _: None,
    on_mark: Callable[[str], None] = lambda _: None,
) -> Iterator[_Machine]:
    """Start a guest; it ends, with all its processes, with the context.

    With `launcher` (workloads/_launch) it also ends when this thread ends, after a kill -9 too.
    Raises SessionError if the kernel cannot be executed.
    """
    if os.geteuid() == 0:
        parts.give_to(_user())
    with contextlib.ExitStack() as stack:
        ours: dict[str, socket.socket] = {}
        # `passing` closes the other ends here once the kernel has inherited them. Otherwise a read
        # would not show the end of the kernel.
        with contextlib.ExitStack() as passing:
            theirs = {}
            for name in _serial.LINES:
                mine, other = socket.socketpair()
                ours[name] = stack.enter_context(mine)
                theirs[name] = passing.enter_context(other).fileno()
            files = passing.enter_context(parts.opened())
            start = functools.partial(_start_process, parts, launcher, theirs, files)
            try:
                if parts.limited_registers:
                    process = stack.enter_context(_xstate.limited_registers())(start)
                else:
                    process = start()
            except (OSError, subprocess.SubprocessError) as error:
                raise SessionError(f"{parts.kernel} cannot be executed: {error}") from None
        machine = _Machine(process, ours, on_output, on_mark)
        stack.callback(machine.close)
        machine.listen()
        yield machine


def _start_process(
    parts: _Parts, launcher: Path | None, lines: Mapping[str, int], files: Mapping[str, int]
) -> subprocess.Popen[bytes]:
    """Start the kernel, with the launcher's guard if there is a launcher."""
    user = _user()
    group = user if os.geteuid() == 0 else os.getegid()
    guard = [str(launcher), "guard", str(user), str(group)] if launcher else []
    kept = {name: os.environ[name] for name in ("PATH", *_TEMPORARY) if name in os.environ}
    for name in _TEMPORARY if user != os.geteuid() else ():
        # A folder of root's own (pam_tmpdir) is of no use to nobody.
        if name in kept and not _is_open_to_all(Path(kept[name]).absolute()):
            del kept[name]
    return processes.start(
        [*guard, *parts.arguments(lines, files)],
        env={**kept, **processes.tied()},
        stdout=lines["log"],
        descriptors=[lines["out"], lines["err"], *files.values()],
        # With a launcher the guard changes the user, after it has started its watcher.
        user=None if launcher or os.geteuid() != 0 else user,
    )


def _is_open_to_all(folder: Path) -> bool:
    """Return whether every user may make files in a folder."""
    try:
        may_write = bool(folder.stat().st_mode & stat.S_IWOTH)
        return may_write and processes.closed_folder(folder) is None
    except OSError:
        return False


@functools.cache
def _needs_limited_registers(kernel: str, more: tuple[str, ...]) -> bool:
    """Boot a guest that prints one line; return whether it needs extended registers hidden.

    They are hidden only if the guest does not start otherwise. Raises SessionError if it does not
    start in either case.
    """
    try:
        _try_guest(kernel, more, limited_registers=False)
    except SessionError as error:
        if _REGISTERS_REFUSED not in str(error):
            raise
        try:
            _try_guest(kernel, more, limited_registers=True)
        except SessionError:
            raise error from None
        return True
    return False


def _try_guest(kernel: str, more: tuple[str, ...], *, limited_registers: bool) -> None:
    archive = _cpio.Archive()
    archive.directory("dev")
    archive.device("dev/console", 5, 1)
    archive.file("init", elf.probe_program(Abi.ELF_X86_64.machine), 0o755)
    with ownership.temporary_folder("probe") as folder:
        initrd, own = folder / "initrd", folder / "kernel"
        initrd.write_bytes(archive.finished())
        initrd.chmod(0o644)
        own.mkdir()
        parts = _Parts(
            kernel=kernel,
            memory=64,
            initrd=initrd,
            folder=own,
            name=f"isobench-{secrets.token_hex(4)}",
            more=more,
            limited_registers=limited_registers,
        )
        with _started(parts) as machine:
            # The first process prints its line and exits, so that the kernel panics: here that is
            # the end of the trial, not an error.
            machine.failure_reason(timeout=_PROBE_TIMEOUT)
            if elf.ANSWER.decode() not in machine.log:
                raise machine.failure("a guest of the user-mode kernel does not start")


@dataclass(frozen=True, kw_only=True)
class UmlTarget:
    """A guest whose Linux kernel is a process of the host."""

    name: ClassVar[TargetName] = TargetName("uml")
    technology: ClassVar[Technology] = Technology.PARAVIRTUAL
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("kernel", "append")
    expectations: ClassVar[tuple[Expectation, ...]] = (
        Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST),
        Expectation(key="machine", relation=Relation.SAME_AS_HOST),
        Expectation(key="cpu.vendor", relation=Relation.EQUALS, value="User Mode Linux"),
        Expectation(key="filesystem.hostfs", relation=Relation.EQUALS, value=False),
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "from the execution of the user-mode kernel to the nonce on its serial line; the"
        " guest is that kernel and an initial RAM disk with isobench's first process and the"
        " payload",
        "warm": "the same again: a user-mode kernel cannot save its state",
        "exec": "a request over a serial line of the open guest, executed by its first process",
    }

    kernel: str = ""
    """Path of a kernel built with ARCH=um. Empty: linux.uml or linux on PATH."""
    append: str = ""
    """Further options for its command line."""
    memory: str = "512MiB"
    disk: str = "1GiB"
    """Size of the disk for the I/O workloads."""
    cache: Literal["writethrough", "unsafe"] = "writethrough"
    """How the host caches writes to the disk's file.

    writethrough: each write waits for the host's disk, page by page: sequential writes are very
    slow. unsafe: writes reach the host's page cache only, and flushes are lost. The block driver of
    Linux 6.1 (ubd) does not pass them on: an fsync took a tenth of native's time. The driver has no
    mode in between. Reads use the host's page cache in both modes.
    """
    boot_timeout: float = 0.0
    """Seconds; 0: 60."""

    def __post_init__(self) -> None:
        """Raise ValueError for options that are invalid."""
        if disks.mebibytes(self.memory, "memory") < _LEAST_MEMORY:
            raise ValueError(f'memory = "{self.memory}": a guest needs at least {_LEAST_MEMORY}MiB')
        disks.mebibytes(self.disk, "disk")
        if not 0 <= self.boot_timeout < math.inf:
            raise ValueError(f"boot_timeout = {self.boot_timeout:g}: write seconds, as in 300.0")

    # ---- probing ---------------------------------------------------------------------------------

    def _kernel(self) -> str | None:
        names = (str(Path(self.kernel).expanduser()),) if self.kernel else _NAMES
        return next((found for name in names if (found := shutil.which(name))), None)

    def probe(self) -> Availability:
        """Boot a guest whose first process prints one line (`elf.probe_program`)."""
        if host_abi() is not Abi.ELF_X86_64:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="user-mode Linux runs on x86_64 only",
                hint="use the target qemu",
            )
        kernel = self._kernel()
        if kernel is None:
            return Unavailable(lack=Lack.TOOL, what=self.kernel or _NAMES[0], hint=_BUILD)
        if disks.tool() is None:
            return Unavailable(lack=Lack.TOOL, what="mke2fs (e2fsprogs)", hint=_INSTALL)
        try:
            limited_registers = _needs_limited_registers(kernel, tuple(self.append.split()))
        except (SessionError, OSError) as error:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=str(error),
                hint=getattr(error, "hint", "")
                or f"read the output of {commands.path(kernel)} mem=64M con0=null,fd:1 con=null;"
                " its memory is a file in /dev/shm, or in TMPDIR",
            )
        version = processes.output_of([kernel, "--version"]) or "of unknown version"
        return Available(
            version=f"User-mode Linux {version}, paravirtual (no hardware virtualisation), one CPU"
            f"{', without AMX' if limited_registers else ''}"
        )

    # ---- instances -------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _parts(self, stage: Stage, request: bytes | None = None) -> Iterator[_Parts]:
        """Write what a guest is started from; yield it.

        With `request`, which the first process executes at once, the guest gets no disk.
        """
        kernel = self._kernel()
        if kernel is None:
            raise SessionError(
                "the user-mode kernel was removed while isobench ran: it is no longer on PATH",
                hint=_BUILD,
            )
        more = tuple(self.append.split())
        with folders.removed_at_end("uml-", stage.scratch) as folder:
            own = folder / "kernel"
            with _cache.write_errors():
                # Its socket lets anyone who can reach it control the guest (uml_mconsole).
                own.mkdir(mode=0o700)
                archive = _guest.stage_archive(stage.root / "isobench", request=request)
                (folder / "initrd").write_bytes(archive)
                # Opening /proc/self/fd/N checks permissions again (proc(5)), and the kernel may run
                # as nobody.
                (folder / "initrd").chmod(0o644)
                # The program of a start-up uses no disk.
                if request is None:
                    disks.make(folder / "disk", disks.mebibytes(self.disk, "disk"))
            yield _Parts(
                kernel=kernel,
                memory=disks.mebibytes(self.memory, "memory"),
                initrd=folder / "initrd",
                folder=own,
                name=f"{stage.owner}-{secrets.token_hex(4)}",
                disk=folder / "disk" if request is None else None,
                synchronous=self.cache == "writethrough",
                more=more,
                limited_registers=_needs_limited_registers(kernel, more),
            )

    @contextlib.contextmanager
    def _powered_on(self, stage: Stage, parts: _Parts, listener: Command) -> Iterator["_Booted"]:
        """Start a guest. A start-up time begins when its kernel is executed."""
        listener.on_phase(BEGIN)
        with _started(
            parts,
            launcher=stage.tools["_launch"],
            on_output=listener.on_output,
            on_mark=_serial.phase_marks(listener),
        ) as machine:
            yield _Booted(machine, self.boot_timeout or _BOOT_TIMEOUT)

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator["_Session"]:
        """Boot a guest and wait until it accepts requests."""
        listener = _serial.phase_listener(stage)
        with self._parts(stage) as parts, self._powered_on(stage, parts, listener) as booted:
            booted.wait_until_ready()
            yield _Session(target=self, machine=booted.machine, parts=parts)
            if not booted.machine.failure_reason():
                booted.power_off(stage.on_phase)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Boot a guest whose first process executes the command; power it off."""
        deadline = time.monotonic() + timeout / SECOND
        request = _instance.request(command)
        with (
            self._parts(stage, request) as parts,
            self._powered_on(stage, parts, command) as booted,
        ):
            done = booted.wait_for_exit(deadline)
            if done.exit_code is not None:
                booted.wait_until_ready()
                booted.power_off(command.on_phase)
        return done

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End guests of killed runs. Their files are removed with the folder of the run."""
        del cached  # this target keeps nothing between runs
        return processes.sweep(alive)


class _Booted(_serial.Booted):
    """A guest that has been started."""

    def __init__(self, machine: _Machine, timeout: float) -> None:
        super().__init__(machine, timeout)
        self.machine = machine


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    """A guest reached over its serial lines."""

    target: UmlTarget
    machine: _Machine
    parts: _Parts
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute a program by the guest's first process."""
        deadline = time.monotonic() + timeout / SECOND
        self.machine.output()  # discards what an earlier program may have left
        self.machine.redirect_output(command.on_output)
        # Before the request: another thread reads the answer, which may be there at once.
        if command.on_stdin is not None:
            command.on_stdin(lambda data: self.machine.send(agent_request.input_line(data)))
        self.machine.send(_instance.request(command))
        # A mark has the exit code: the exit code of the kernel's own process does not carry it.
        done = _serial.wait_for_exit(self.machine, deadline)
        if done.exit_code is not None:
            return done
        self._stop()
        out, err = self.machine.output()
        return Completed(exit_code=None, stdout=done.stdout + out, stderr=done.stderr + err)

    def _stop(self) -> None:
        """Have the guest kill what runs. If it does not reply, end the guest."""
        with contextlib.suppress(SessionError):
            self.machine.send(_serial.STOP_REQUEST)
            if (
                self.machine.wait_for("stopped", deadline=time.monotonic() + _KILL_TIMEOUT)
                is not None
            ):
                return
        self.machine.close()

    def null(self, *, timeout: Nanoseconds) -> Completed:
        """Send the request to stop what runs. Nothing does: this is the cost of the channel."""
        self.machine.send(_serial.STOP_REQUEST)
        deadline = time.monotonic() + timeout / SECOND
        answered = self.machine.wait_for("stopped", deadline=deadline) is not None
        return Completed(exit_code=0 if answered else None, stdout=b"", stderr=b"")

    def _disk_cache(self) -> str | None:
        """Return in which mode the kernel opened the disk's file, or None if that is unknown.

        The descriptor's flags show it; the command line only shows what was requested.
        """
        flags = processes.open_flags(self.machine.process.pid, self.parts.disk or Path())
        if not flags:
            return None
        return "writethrough" if any(each & os.O_SYNC == os.O_SYNC for each in flags) else "unsafe"

    def witness(self) -> Iterable[Evidence]:
        """Yield facts about this guest that only the host can see."""
        facts: Mapping[str, tuple[Fact, str]] = {
            "host.kernel": (self.parts.kernel, "path"),
            "host.kernel_user": (_user(), "uid"),
            "host.vcpus": (1, "user-mode Linux has one"),
            "host.memory_mib": (self.parts.memory, "mem="),
            "host.disk_cache": (self._disk_cache(), "/proc/PID/fdinfo"),
            "host.command_line": (
                " ".join((_COMMAND_LINE, *self.parts.more)),
                "command line",
            ),
            "host.resident_kib": (
                processes.proportional_kib(self.machine.process.pid),
                "smaps_rollup",
            ),
        }
        for key, (value, source) in facts.items():
            yield Evidence(key=key, value=value, source=source)
        yield from cpu_share.evidence(self.machine.process.pid)
        if self.parts.limited_registers:
            yield Evidence(
                key="host.extended_registers",
                value="hidden from the guest's kernel, which does not support AMX: threads of a"
                " process share them",
                source="isobench's system-call filter",
            )
