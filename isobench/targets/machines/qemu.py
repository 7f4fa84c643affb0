"""Virtual machines of QEMU: `kvm` where the hardware executes the guest, `qemu` where QEMU emulates
the whole machine, `qemu-aarch64` for one of a foreign ISA.

All share every line but the accelerator and the expectations: what holds for one holds for the
others. None ever stands in for another.
"""

import contextlib
import math
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Final, Literal

from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Expectation,
    Lack,
    Leftover,
    Relation,
    Stage,
    Technology,
    Unavailable,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins.api import Completed, Startable
from isobench.targets.machines import (
    _cache,
    _complete,
    _guest,
    _image,
    _instance,
    _packages,
    _qemu,
    _serial,
    _ssh,
)
from isobench.targets.shared import disks, kvm, processes

_ADDRESS: Final = "10.0.2.15 24 eth0"
"""What QEMU's user network expects its first guest to be."""
_MOST_VCPUS: Final = 8
_LEAST_MEMORY: Final = 80
"""MiB in which a distribution's kernel still starts; with 64 it does not."""
_BOOT_TIMEOUTS: Final = {"kvm": 60.0, "tcg": 240.0}
"""Seconds within which a guest must have started, unless the configuration says otherwise."""
_FIRST_OUTPUT_TIMEOUT: Final = 20.0
"""Seconds within which a kernel of the user's own must say something where others do not run.
The firmware before it was seen to take 2.7 to 7 under KVM-PVM, which emulates it; microvm's takes
less. Nobody waits for this who has not named a kernel.
"""
_INSTALL: Final = "isobench doctor --install qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """What an ISA's virtual machine is unless the configuration says otherwise."""

    machine: str
    cpu: Mapping[str, str]
    """By accelerator."""
    ports: tuple[str, ...]
    console: str
    first_port: str
    command_line: str
    """Nothing in it changes how the guest computes, only how long its kernel prepares."""


# loglevel 6 shows the kernel's banner, the first sign of life, and what goes wrong. The self-tests
# of its ciphers and a second opinion on its time-stamp counter cost an emulated guest half a
# second; isobench itself holds the guest's clock against the host's, at every visit.
_QUICK: Final = "loglevel=6 panic=-1 cryptomgr.notests"
_KINDS: Final = {
    "x86_64": _Kind(
        machine="q35",
        cpu={"kvm": "host", "tcg": "max"},
        ports=("-serial", "chardev:log", "-serial", "chardev:out", "-serial", "chardev:err"),
        console="ttyS0",
        first_port="ttyS1",
        command_line=f"{_QUICK} reboot=t tsc=reliable",
    ),
    "aarch64": _Kind(
        machine="virt",
        # By default pointers are signed with a real cipher: in software, at every call.
        cpu={"kvm": "host", "tcg": "max,pauth-impdef=on"},
        # Two devices of one port each: QEMU 7.2 crashes when it saves one of two ports.
        ports=(
            *("-serial", "chardev:log"),
            *("-device", "pci-serial,chardev=out"),
            *("-device", "pci-serial,chardev=err"),
        ),
        console="ttyAMA0",
        first_port="ttyS0",
        command_line=_QUICK,
    ),
}
_OPTIONS: Final = {
    "-cpu": "cpu", "-smp": "vcpus", "-m": "memory", "-machine": "machine", "-M": "machine",
    "-kernel": "kernel", "-initrd": "initrd", "-append": "append",
}  # fmt: skip
_ACCELERATION: Final = frozenset({"-accel", "-enable-kvm", "-no-kvm"})
_KEPT: Final = frozenset(
    {
        *("-daemonize", "-S", "-incoming", "-loadvm", "-no-shutdown", "-readconfig", "-chroot"),
        *("-runas", "-run-with", "-nographic", "-qmp", "-monitor", "-serial", "-snapshot"),
    }
)
_saving: Final = threading.Lock()
_saved: dict[Path, _instance.Parts] = {}
"""What the saved states of this run, by their folders, were saved from."""


_OWN_CLOCKS: Final = "tsc tsc-early hpet acpi_pm refined-jiffies"
"""Clock sources of a machine without a hypervisor's clock: what hardware would have."""


def _expectations(*more: Expectation) -> tuple[Expectation, ...]:
    return (
        Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST),
        *more,
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )


def _equals(key: str, value: str) -> Expectation:
    return Expectation(key=key, relation=Relation.EQUALS, value=value)


def _refuse_arguments(arguments: Iterable[str]) -> None:
    """Refuse arguments of QEMU that would make untrue what isobench says of the machine, or take
    the machine out of its hands; ValueError says what to write in their place.
    """
    for word in arguments:
        option = "-" + word.lstrip("-") if word.startswith("-") else ""
        if option in _OPTIONS:
            raise ValueError(f"arguments: write {_OPTIONS[option]} = … in place of {option}")
        if option in _ACCELERATION:
            raise ValueError(f"arguments: {option} is said by the target's name, kvm or qemu")
        if option in _KEPT:
            raise ValueError(
                f"arguments: {option} takes QEMU out of isobench's hands, which starts and ends it"
            )


@dataclass(frozen=True, kw_only=True)
class _Qemu:
    """What the three share; the subclasses name the accelerator, the ISA and the expectations."""

    name: ClassVar[TargetName]
    technology: ClassVar[Technology]
    expectations: ClassVar[tuple[Expectation, ...]] = ()
    accelerator: ClassVar[Literal["kvm", "tcg"]]
    abi: ClassVar[Abi | None] = None
    executes: ClassVar[Sequence[str]] = ("emulator", "arguments")

    kernel: str = ""
    """Path of a kernel image; empty: the distribution's, downloaded once."""
    modules: str = ""
    """Folder of that kernel's modules, where its virtio drivers are not built in."""
    initrd: str = ""
    """Path of an archive that is unpacked before isobench's own."""
    append: str = ""
    """More words for the kernel's command line."""
    emulator: str = ""
    """Path of qemu-system-…; empty: looked for on PATH."""
    arguments: tuple[str, ...] = ()
    """More arguments of QEMU, one a word."""
    machine: str = ""
    cpu: str = ""
    vcpus: int = 0
    """0: as many as this process may use, up to eight."""
    guest: Literal["minimal", "complete"] = "minimal"
    """complete: the distribution with systemd, udev and OpenSSH on a disk."""
    memory: str = "512MiB"
    disk: str = "1GiB"
    """Size of the disk that the I/O workloads use."""
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] = "none"
    boot_timeout: float = 0.0
    """Seconds; 0: 60 under KVM, 240 emulated."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if disks.mebibytes(self.memory, "memory") < _LEAST_MEMORY and not self.kernel:
            raise ValueError(f'memory = "{self.memory}": a guest needs {_LEAST_MEMORY}MiB at least')
        disks.mebibytes(self.disk, "disk")
        if self.modules and not self.kernel:
            raise ValueError(f"modules = {self.modules}: they belong to a kernel that is yours too")
        _refuse_arguments(self.arguments)
        if self.vcpus < 0:
            raise ValueError(f"vcpus = {self.vcpus}: write a number of CPUs, 0 for all there are")
        if not 0 <= self.boot_timeout < math.inf:
            raise ValueError(f"boot_timeout = {self.boot_timeout:g}: write seconds, as in 300.0")

    # ---- what it is ------------------------------------------------------------------------------

    def _isa(self) -> str:
        abi = self.abi or host_abi()
        return "" if abi is None else abi.machine

    def _emulator(self) -> str | None:
        return shutil.which(self.emulator or f"qemu-system-{self._isa()}")

    def _start_timeout(self) -> float:
        return self.boot_timeout or _BOOT_TIMEOUTS[self.accelerator]

    def _hardware(self) -> _qemu.Hardware:
        kind, emulator = _KINDS[self._isa()], self._emulator()
        if emulator is None:
            raise SessionError("QEMU has vanished since it was looked for")
        return _qemu.Hardware(
            emulator=emulator,
            machine=self.machine or kind.machine,
            accelerator=self.accelerator,
            cpu=self.cpu or kind.cpu[self.accelerator],
            vcpus=self.vcpus or min(len(os.sched_getaffinity(0)), _MOST_VCPUS),
            memory=disks.mebibytes(self.memory, "memory"),
            ports=kind.ports,
            more=self.arguments,
        )

    @property
    def starts(self) -> Mapping[str, str]:
        """What the start-up figures span."""
        what = {
            "minimal": "the guest is a kernel and an initial RAM disk with isobench's first process"
            " and the payload",
            "complete": "the guest is a complete distribution, and the payload a service of it,"
            " started when its SSH server runs",
        }
        return {
            "cold": "power-on: from QEMU's execution to the nonce on the serial line;"
            f" {what[self.guest]}; without the disk of the I/O workloads",
            "warm": "from QEMU's execution with the saved state of a guest that had started, to"
            " the nonce on the serial line",
            "exec": "a command over the open SSH connection, in a channel of its own",
        }

    def _command_line(self) -> str:
        kind = _KINDS[self._isa()]
        words = f"console={kind.console} {kind.command_line} ISOBENCH_PORTS={kind.first_port}"
        more = _complete.COMMAND_LINE if self.guest == "complete" else ""
        return " ".join(f"{words} {more} {self.append}".split())

    def _guest(self, say: _cache.Say = lambda _: None) -> _guest.Guest:
        return _guest.guest(
            self._isa(),
            kernel=self.kernel,
            initrd=self.initrd,
            modules=self.modules,
            server=self.guest == "minimal",
            say=say,
        )

    # ---- probing ---------------------------------------------------------------------------------

    def probe(self) -> Availability:
        """Look for what a guest needs; start QEMU with this accelerator and CPU, empty."""
        if self._isa() not in _KINDS:
            return Unavailable(
                lack=Lack.PLATFORM,
                what=f"isobench has no guest for {self._isa() or 'this machine'}",
                hint="use a host of x86_64 or aarch64",
            )
        lacking = self._lacking() or self._refusal()
        if lacking is not None:
            return lacking
        try:
            version = self._halted()
        except SessionError as error:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=str(error),
                hint=error.hint
                or f"mend machine, cpu, vcpus, memory or arguments of {self.name} in isobench.toml;"
                f" {self._emulator()} -machine help, and the same with -cpu help",
            )
        return Available(version=f"QEMU {version}, {self._flavour()}")

    def _refusal(self) -> Unavailable | None:
        """Return what stands against the accelerator here, or None."""
        return None

    def _flavour(self) -> str:
        return "emulated (TCG)"

    def _lacking(self) -> Unavailable | None:
        """Return the first tool or file that is missing, or None."""
        if self._emulator() is None:
            what = self.emulator or f"qemu-system-{self._isa()}"
            mend = "mend emulator of this target in isobench.toml: no such program can be executed"
            return Unavailable(lack=Lack.TOOL, what=what, hint=mend if self.emulator else _INSTALL)
        if disks.tool() is None:
            return Unavailable(lack=Lack.TOOL, what="mke2fs (e2fsprogs)", hint=_INSTALL)
        for option in ("kernel", "modules", "initrd"):
            named = getattr(self, option)
            if named and not os.access(Path(named).expanduser(), os.R_OK):
                return Unavailable(
                    lack=Lack.PERMISSION,
                    what=f"{named} cannot be read",
                    hint=f"mend {option} of this target in isobench.toml",
                )
        misplaced = self._misplaced()
        if misplaced:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=misplaced,
                hint="fix it in isobench.toml: kernel and initrd are files, modules is a folder",
            )
        if self.kernel and not _image.is_kernel(Path(self.kernel).expanduser(), self._isa()):
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{self.kernel} is no kernel that QEMU boots on {self._isa()}",
                hint=f"set kernel of this target in isobench.toml to {_image.WANTED}",
            )
        if self.guest == "complete" and self.abi is not None:
            return Unavailable(
                lack=Lack.PLATFORM,
                what="a complete guest is made for the host's own ISA only",
                hint=f'leave out guest = "complete" in [targets.{self.name}]',
            )
        if self.guest == "complete" and (missing := _complete.missing_tool()):
            return Unavailable(lack=Lack.TOOL, what=missing, hint=_INSTALL)
        tool = _packages.missing_tool()
        if tool and not _guest.is_cached(self._isa(), own_kernel=bool(self.kernel)):
            return Unavailable(
                lack=Lack.PLATFORM,
                what=f"{tool} is not here, and a guest is made from Debian's or Ubuntu's packages",
                hint="copy ~/.cache/isobench/guests from a machine that has made one",
            )
        return None

    def _misplaced(self) -> str:
        """Return which option names a folder for a file, or the other way round; or nothing."""
        for option, named in (("kernel", self.kernel), ("initrd", self.initrd)):
            if named and not Path(named).expanduser().is_file():
                return f"{option} = {named} is no file"
        modules = Path(self.modules).expanduser()
        return "" if modules.is_dir() else f"modules = {self.modules} is no folder"

    def _halted(self) -> str:
        """Start QEMU with its CPUs halted; return its version. SessionError: it refuses."""
        with _qemu.started(self._hardware(), _qemu.Boot(network=False, halted=True)) as machine:
            machine.negotiate(running=False)
            version = machine.command("query-version")["qemu"]
        return f"{version['major']}.{version['minor']}.{version['micro']}"

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the guest, unless it is there."""
        self._guest(say)
        if self.guest == "complete":
            _complete.image(say)

    # ---- instances -------------------------------------------------------------------------------

    def _parts(
        self, stage: Stage, folder: Path, *, request: bytes | None = None, disk: bool = False
    ) -> _instance.Parts:
        """Put together in `folder` what a machine is started from."""
        key, host_key = _ssh.new_key(), _ssh.new_key()
        with _cache.write_errors():
            guest = self._guest()
            disks, packages = self._root(folder)
            archive = _guest.stage_archive(
                stage.root / "isobench",
                request=request,
                address=_ADDRESS,
                host_key=host_key.dropbear,
                host_key_pem=host_key.pem,
                authorized=key.line,
                root="/dev/vda" if disks else "",
            )
            _guest.write_initrd(folder / "initrd", guest, archive)
        return _instance.Parts(
            hardware=self._hardware(),
            boot=_qemu.Boot(
                kernel=guest.kernel,
                initrd=folder / "initrd",
                command_line=self._command_line(),
                disks=(*disks, self._new_disk(folder)) if disk else disks,
            ),
            key=key,
            host_key=host_key,
            timeout=self._start_timeout(),
            packages=(*guest.packages, *packages),
        )

    def _root(self, folder: Path) -> tuple[tuple[_qemu.Disk, ...], tuple[str, ...]]:
        """Return the disk of a complete guest, and what is on it."""
        if self.guest == "minimal":
            return (), ()
        base, packages = _complete.image(lambda _: None)
        _complete.overlay(base, folder / "root")
        return (_qemu.Disk(path=folder / "root", format="qcow2", cache="writeback"),), packages

    def _new_disk(self, folder: Path) -> _qemu.Disk:
        """Make an empty ext4 file system in a sparse file."""
        path = folder / "disk"
        disks.make(path, disks.mebibytes(self.disk, "disk"))
        return _qemu.Disk(path=path, cache=self.cache)

    @contextlib.contextmanager
    def _folder(self, stage: Stage) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(dir=stage.scratch, prefix=f"{self.name}-") as folder:
            yield Path(folder)

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_instance.Session]:
        """Boot a guest, log in, keep the connection."""
        with self._folder(stage) as folder:
            parts = self._parts(stage, folder, disk=True)
            with _instance.powered_on(stage, parts, _serial.phase_listener(stage)) as booted:
                booted.wait_until_ready()
                with booted.connected() as connection:
                    stage.on_phase("ssh")
                    yield _instance.Session(booted=booted, connection=connection)
                if not booted.machine.failure_reason():
                    booted.power_off(stage.on_phase)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Power on a machine whose first process executes the command; reach SSH; switch it off."""
        deadline = time.monotonic() + timeout / SECOND
        with self._folder(stage) as folder:
            parts = self._parts(stage, folder, request=_instance.request(command))
            with _instance.powered_on(stage, parts, command) as booted:
                done = booted.wait_for_exit(deadline)
                if done.exit_code is not None:
                    booted.wait_until_ready()
                    booted.banner().close()
                    command.on_phase("ssh")
                    booted.power_off(command.on_phase)
        return done

    @contextlib.contextmanager
    def stopped(self, stage: Stage, command: Command) -> Iterator[Startable]:
        """Keep the saved state of a guest that has started and waits for a request.

        One state serves the whole run: it lies in the stage's scratch directory and goes with it.
        """
        folder = stage.scratch / f"{self.name}-state-{stage.digest[:16]}"
        with _saving:
            if folder not in _saved:
                shutil.rmtree(folder, ignore_errors=True)  # of an attempt that failed
                folder.mkdir()
                parts = self._parts(stage, folder)
                with _instance.powered_on(stage, parts, Command(argv=())) as booted:
                    booted.wait_until_ready()
                    booted.machine.save(folder / "state", timeout=parts.timeout)
                _saved[folder] = parts
        yield _instance.Saved(
            stage=stage,
            parts=_saved[folder],
            state=folder / "state",
            command=command,
        )

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End machines that a killed run has left, and remove what it was making."""
        del cached  # guests go with the rest of isobench's cache
        return [*processes.sweep(alive), *_cache.sweep()]


@dataclass(frozen=True, kw_only=True)
class KvmTarget(_Qemu):
    """A virtual machine that the hardware executes."""

    name: ClassVar[TargetName] = TargetName("kvm")
    technology: ClassVar[Technology] = Technology.VIRTUALIZATION
    accelerator: ClassVar[Literal["kvm", "tcg"]] = "kvm"

    @property
    def expectations(self) -> tuple[Expectation, ...]:  # type: ignore[override]  # depends on the host
        """What must be seen from inside: on x86_64 the hypervisor's signature, too."""
        clocks = "kvm-clock tsc tsc-early" if self._isa() == "x86_64" else "arch_sys_counter"
        signature = _equals("cpu.hypervisor", "KVMKVMKVM")
        return _expectations(
            Expectation(key="machine", relation=Relation.SAME_AS_HOST),
            *((signature,) if self._isa() == "x86_64" else ()),
            Expectation(key="clock.source", relation=Relation.ONE_OF, value=clocks),
        )

    def _refusal(self) -> Unavailable | None:
        """Start a guest on /dev/kvm, that opening alone proves nothing about.

        A kernel of the user's own may be made for just the hypervisor that runs no other: it is
        given the chance to say something.
        """
        seen = kvm.examine()
        if seen.lack is None:
            return None
        what = f"{seen.flavour}: {seen.what}"
        refusal = Unavailable(lack=seen.lack, what=what, hint=seen.hint)
        if not self.kernel or seen.lack is not Lack.RUNTIME:
            return refusal
        try:
            self._demand_output()
        except SessionError as error:
            what = f"{what}; {self.kernel}, tried all the same, {error}"
            return replace(refusal, what=what, hint=error.hint or seen.hint)
        return None

    def _demand_output(self) -> None:
        """Boot the user's kernel alone; SessionError unless it says something soon."""
        spoke = threading.Event()

        def on_mark(said: str) -> None:
            if said == "guest.output":
                spoke.set()

        boot = _qemu.Boot(
            kernel=Path(self.kernel).expanduser(),
            command_line=self._command_line(),
            network=False,
        )
        deadline = time.monotonic() + _FIRST_OUTPUT_TIMEOUT
        try:
            with _qemu.started(self._hardware(), boot, on_mark=on_mark) as machine:
                machine.negotiate()
                while not spoke.wait(0.05) and time.monotonic() < deadline:
                    if machine.failure_reason():
                        raise machine.failure("QEMU gave it up")
        except SessionError as error:
            raise SessionError(f"did not start: {error}", hint=error.hint) from None
        if not spoke.is_set():
            raise SessionError(f"said nothing within {_FIRST_OUTPUT_TIMEOUT:g} s")

    def _flavour(self) -> str:
        seen = kvm.examine()
        return seen.flavour if seen.lack is not None else seen.summary


@dataclass(frozen=True, kw_only=True)
class QemuTarget(_Qemu):
    """A whole machine of the host's ISA, emulated in software."""

    name: ClassVar[TargetName] = TargetName("qemu")
    technology: ClassVar[Technology] = Technology.EMULATION
    accelerator: ClassVar[Literal["kvm", "tcg"]] = "tcg"
    expectations: ClassVar[tuple[Expectation, ...]] = _expectations(
        Expectation(key="machine", relation=Relation.SAME_AS_HOST),
        _equals("cpu.hypervisor", "TCGTCGTCGTCG"),
        # A guest that the hardware executes is offered the hypervisor's own clock.
        Expectation(key="clock.source", relation=Relation.ONE_OF, value=_OWN_CLOCKS),
    )


@dataclass(frozen=True, kw_only=True)
class QemuAarch64Target(_Qemu):
    """A whole ARM machine, emulated in software on a host of another ISA."""

    name: ClassVar[TargetName] = TargetName("qemu-aarch64")
    technology: ClassVar[Technology] = Technology.EMULATION
    accelerator: ClassVar[Literal["kvm", "tcg"]] = "tcg"
    abi: ClassVar[Abi | None] = Abi.ELF_AARCH64
    expectations: ClassVar[tuple[Expectation, ...]] = _expectations(
        # Code of an ISA that this processor lacks, and yet it ran: something translated it.
        _equals("payload.machine", "aarch64"),
        _equals("machine", "aarch64"),
        Expectation(key="machine", relation=Relation.UNLIKE_HOST),
    )

    def _refusal(self) -> Unavailable | None:
        if host_abi() is not self.abi:
            return None
        return Unavailable(
            lack=Lack.PLATFORM,
            what="this host is aarch64 itself: no foreign ISA to emulate",
            hint="use the target qemu",
        )
