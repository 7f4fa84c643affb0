"""Virtual machines of QEMU.

The hardware executes the guest of `kvm`. QEMU emulates the whole machine of `qemu`, and that of
`qemu-aarch64`, which has a foreign ISA. They differ in accelerator, ISA and expectations only. None
falls back to another, as QEMU itself does with "-machine accel=kvm:tcg".
"""

import contextlib
import math
import os
import re
import shutil
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
    commands,
    host_abi,
)
from isobench.model.errors import SessionError
from isobench.model.units import SECOND, Nanoseconds, TargetName
from isobench.plugins import folders
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
"""IPv4 address, netmask bits and interface of the guest. QEMU's user network forwards to this
address by default (qemu(1), -netdev user).
"""
_MOST_VCPUS: Final = 8

_LEAST_MEMORY: Final = 80
"""MiB in which the kernel of a distribution starts. Measured: it does not start in 64 MiB."""
_BOOT_TIMEOUTS: Final = {"kvm": 60.0, "tcg": 240.0}
"""Default of boot_timeout in seconds, by accelerator."""
_FIRST_OUTPUT_TIMEOUT: Final = 20.0
"""Seconds within which the user's own kernel must print something if /dev/kvm runs no other kernel.
KVM-PVM emulates the firmware that runs first: it took 2.7 to 7 s. Only users who set `kernel` wait
for this.
"""
_INSTALL: Final = "isobench doctor --install qemu"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Kind:
    """Defaults of the virtual machine of one ISA."""

    machine: str
    cpu: Mapping[str, str]
    """Model by accelerator."""
    ports: tuple[str, ...]
    console: str
    first_port: str
    command_line: str
    """Options of the kernel. They shorten its start, and do not change how programs run."""


# loglevel=6 prints the kernel's banner, which is the first output of a guest, and errors.
# panic=-1 reboots at once after a panic, which ends QEMU (see -no-reboot in _qemu).
# The self-tests of ciphers (cryptomgr.notests) and the clock that verifies the time-stamp counter
# (tsc=reliable) cost an emulated guest half a second. isobench itself compares the guest's clock
# with the host's at every visit.
# Source: Documentation/admin-guide/kernel-parameters.txt of the Linux kernel.
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
        # -cpu max signs pointers with QARMA, a cipher that QEMU computes in software at every
        # function call. pauth-impdef is a fast algorithm that the architecture permits (QEMU,
        # docs/system/arm/cpu-features.rst).
        cpu={"kvm": "host", "tcg": "max,pauth-impdef=on"},
        # Two devices with one port each: QEMU 7.2 crashes when it saves the state of one device
        # with two ports.
        ports=(
            *("-serial", "chardev:log"),
            *("-device", "pci-serial,chardev=out"),
            *("-device", "pci-serial,chardev=err"),
        ),
        # The machine's own port (PL011) is ttyAMA0, so that PCI ports are counted from ttyS0.
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
_RESERVED: Final = frozenset(
    {
        *("-daemonize", "-S", "-incoming", "-loadvm", "-no-shutdown", "-readconfig", "-chroot"),
        *("-runas", "-run-with", "-nographic", "-qmp", "-monitor", "-serial", "-snapshot"),
    }
)
# QEMU's -machine takes paths too: dumpdtb= writes a file, kernel= and firmware= read one.
_MACHINE: Final = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)
_CPU: Final = re.compile(
    r"[A-Za-z0-9][\w.-]*(?:,(?:[+-][\w.-]+|[A-Za-z][\w.-]*(?:=[\w.:+-]*)?))*", re.ASCII
)
"""The name of a model, and features that are switched on or off or have a value; no path."""
_confinements: dict[tuple[str, ...], tuple[str, ...]] = {}
"""Emulator and the user's arguments -> the confinement with which it starts. Empty: with none."""
_saving: Final = threading.Lock()
_saved: dict[Path, _instance.Parts] = {}
"""Folder of a saved state -> what the machine was started from. States last as long as the run."""


_OWN_CLOCKS: Final = "tsc tsc-early hpet acpi_pm refined-jiffies"
"""Clock sources that hardware offers, without those that hypervisors offer."""


def _expectations(*more: Expectation) -> tuple[Expectation, ...]:
    return (
        Expectation(key="kernel.boot_id", relation=Relation.UNLIKE_HOST),
        *more,
        Expectation(key="host.canary_readable", relation=Relation.EQUALS, value=False),
    )


def _equals(key: str, value: str) -> Expectation:
    return Expectation(key=key, relation=Relation.EQUALS, value=value)


def _refuse_arguments(arguments: Iterable[str]) -> None:
    """Raise ValueError for arguments of QEMU that contradict isobench's.

    Some would make the reported facts about the machine wrong. With others, isobench could no
    longer control QEMU.
    """
    for word in arguments:
        option = "-" + word.lstrip("-") if word.startswith("-") else ""
        if option in _OPTIONS:
            raise ValueError(f"arguments: write {_OPTIONS[option]} = … in place of {option}")
        if option in _ACCELERATION:
            raise ValueError(
                f"arguments: leave out {option}; the target's name, kvm or qemu, decides that"
            )
        if option in _RESERVED:
            raise ValueError(
                f"arguments: leave out {option}; isobench could not control QEMU with it"
            )


@dataclass(frozen=True, kw_only=True)
class _Qemu:
    """What the three targets share. Subclasses set accelerator, ISA and expectations."""

    name: ClassVar[TargetName]
    technology: ClassVar[Technology]
    expectations: ClassVar[tuple[Expectation, ...]] = ()
    accelerator: ClassVar[Literal["kvm", "tcg"]]
    abi: ClassVar[Abi | None] = None
    # A kernel and its modules are programs too, if only of the guest.
    executes: ClassVar[Sequence[str]] = ("emulator", "arguments", "kernel", "modules", "initrd")

    kernel: str = ""
    """Path of a kernel image. Empty: the distribution's, downloaded once."""
    modules: str = ""
    """Folder of that kernel's modules, needed unless its virtio drivers are built in."""
    initrd: str = ""
    """Path of an archive that is unpacked before isobench's own."""
    append: str = ""
    """Further options for the kernel's command line."""
    emulator: str = ""
    """Path of qemu-system-…. Empty: found on PATH."""
    arguments: tuple[str, ...] = ()
    """Further arguments of QEMU, each a separate string."""
    machine: str = ""
    cpu: str = ""
    vcpus: int = 0
    """Number of virtual CPUs. 0: as many CPUs as this process may use, at most eight."""
    guest: Literal["minimal", "complete"] = "minimal"
    """complete: the distribution with systemd, udev and OpenSSH, on a disk."""
    memory: str = "512MiB"
    disk: str = "1GiB"
    """Size of the disk for the I/O workloads."""
    cache: Literal["none", "writeback", "writethrough", "directsync", "unsafe"] = "none"
    boot_timeout: float = 0.0
    """Seconds; 0: 60 under KVM, 240 emulated."""

    def __post_init__(self) -> None:
        """Raise ValueError for options that are invalid."""
        if disks.mebibytes(self.memory, "memory") < _LEAST_MEMORY and not self.kernel:
            raise ValueError(f'memory = "{self.memory}": a guest needs at least {_LEAST_MEMORY}MiB')
        disks.mebibytes(self.disk, "disk")
        if self.modules and not self.kernel:
            raise ValueError(
                f"modules = {self.modules}: set kernel too; modules are of your own kernel only"
            )
        _refuse_arguments(self.arguments)
        if self.machine and _MACHINE.fullmatch(self.machine) is None:
            raise ValueError(
                f'machine = "{self.machine}": write the name of a machine alone, such as "q35"'
            )
        if self.cpu and _CPU.fullmatch(self.cpu) is None:
            raise ValueError(
                f'cpu = "{self.cpu}": write the name of a model and its features, as in'
                ' "host,+avx2,pmu=off"'
            )
        if self.vcpus < 0:
            raise ValueError(f"vcpus = {self.vcpus}: write a number of CPUs, or 0 for all")
        if not 0 <= self.boot_timeout < math.inf:
            raise ValueError(f"boot_timeout = {self.boot_timeout:g}: write seconds, as in 300.0")

    # ---- hardware and command lines --------------------------------------------------------------

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
            raise SessionError(
                "QEMU was removed while isobench ran: it is no longer on PATH", hint=_INSTALL
            )
        return _qemu.Hardware(
            emulator=emulator,
            machine=self.machine or kind.machine,
            accelerator=self.accelerator,
            cpu=self.cpu or kind.cpu[self.accelerator],
            vcpus=self.vcpus or min(len(os.sched_getaffinity(0)), _MOST_VCPUS),
            memory=disks.mebibytes(self.memory, "memory"),
            ports=kind.ports,
            more=self.arguments,
            confinement=_confinements.get(
                (emulator, *self.arguments), _qemu.confinements(self.arguments)[0]
            ),
        )

    @property
    def starts(self) -> Mapping[str, str]:
        """What each start-up figure covers."""
        what = {
            "minimal": "the guest is a kernel and an initial RAM disk with isobench's first process"
            " and the payload",
            "complete": "the guest is a complete distribution; the payload is one of its services,"
            " started when its SSH server runs",
        }
        return {
            "cold": "power-on: from the execution of QEMU to the nonce on the serial line;"
            f" {what[self.guest]}; without the disk for the I/O workloads",
            "warm": "from the execution of QEMU, with the saved state of a started guest, to"
            " the nonce on the serial line",
            "exec": "a command over the open SSH connection, in a new channel",
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
        """Check what a guest needs, and start QEMU with this accelerator and CPU, halted."""
        if self._isa() not in _KINDS:
            return Unavailable(
                lack=Lack.PLATFORM,
                what=f"isobench has no guest for {self._isa() or 'this machine'}",
                hint="use a host with x86_64 or aarch64",
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
                or f"fix machine, cpu, vcpus, memory or arguments of {self.name} in isobench.toml;"
                f" for valid names: {commands.path(self._emulator() or self.emulator)} -machine"
                " help, and -cpu help",
            )
        return Available(version=f"QEMU {version}, {self._flavour()}")

    def _refusal(self) -> Unavailable | None:
        """Return why the accelerator cannot be used on this host, or None."""
        return None

    def _flavour(self) -> str:
        return "emulated (TCG)"

    def _lacking(self) -> Unavailable | None:
        """Return the first tool or file that is missing or unusable, or None."""
        if self._emulator() is None:
            what = self.emulator or f"qemu-system-{self._isa()}"
            fix = "fix emulator of this target in isobench.toml: it is no executable program"
            return Unavailable(lack=Lack.TOOL, what=what, hint=fix if self.emulator else _INSTALL)
        if disks.tool() is None:
            return Unavailable(lack=Lack.TOOL, what="mke2fs (e2fsprogs)", hint=_INSTALL)
        return self._lacking_file() or self._lacking_guest()

    def _lacking_file(self) -> Unavailable | None:
        """Return the first file of the configuration that cannot be used, or None."""
        for option in ("kernel", "modules", "initrd"):
            named = getattr(self, option)
            if named and not os.access(Path(named).expanduser(), os.R_OK):
                return Unavailable(
                    lack=Lack.PERMISSION,
                    what=f"{named} cannot be read",
                    hint=f"fix {option} of this target in isobench.toml",
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
                what=f"{self.kernel} is not a kernel that QEMU boots on {self._isa()}",
                hint=f"set kernel of this target in isobench.toml to {_image.WANTED}",
            )
        return None

    def _lacking_guest(self) -> Unavailable | None:
        """Return the first thing that is missing to make the guest, or None."""
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
                what=f"{tool} is missing; guests are made from packages of Debian or Ubuntu",
                hint="copy ~/.cache/isobench/guests from a machine where isobench has made one",
            )
        return None

    def _misplaced(self) -> str:
        """Return which option names a folder in place of a file or vice versa, or ""."""
        for option, named in (("kernel", self.kernel), ("initrd", self.initrd)):
            if named and not Path(named).expanduser().is_file():
                return f"{option} = {named} is not a file"
        modules = Path(self.modules).expanduser()
        return "" if modules.is_dir() else f"modules = {self.modules} is not a folder"

    def _halted(self) -> str:
        """Start QEMU with its CPUs halted and return its version.

        It is confined as much as this version can be, here and from now on. Raises SessionError if
        QEMU refuses the configuration.
        """
        hardware = self._hardware()
        *confined, without = _qemu.confinements(self.arguments)
        for confinement in confined:
            with contextlib.suppress(SessionError):
                return self._halted_with(replace(hardware, confinement=confinement))
        return self._halted_with(replace(hardware, confinement=without))

    def _halted_with(self, hardware: _qemu.Hardware) -> str:
        with _qemu.started(hardware, _qemu.Boot(network=False, halted=True)) as machine:
            machine.negotiate(running=False)
            version = machine.version()
        _confinements[hardware.emulator, *self.arguments] = hardware.confinement
        return version

    def prepare(self, say: Callable[[str], None]) -> None:
        """Make the guest unless it is in the cache; `say` gets a line before each long step."""
        self._guest(say)
        if self.guest == "complete":
            _complete.image(say)

    # ---- instances -------------------------------------------------------------------------------

    def _parts(
        self, stage: Stage, folder: Path, *, request: bytes | None = None, disk: bool = False
    ) -> _instance.Parts:
        """Write what a machine is started from into `folder`."""
        key, host_key = _ssh.new_key(), _ssh.new_key()
        with _cache.write_errors():
            guest = self._guest()
            # A new key pair for each instance: nobody else on the host can log in at the forwarded
            # port, and a guest cannot impersonate another one.
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
        """Return the root disk of a complete guest, and what it was made of."""
        if self.guest == "minimal":
            return (), ()
        base, packages = _complete.image(lambda _: None)
        # The overlay starts empty: no instance sees what another one has written.
        _complete.overlay(base, folder / "root")
        return (_qemu.Disk(path=folder / "root", format="qcow2", cache="writeback"),), packages

    def _new_disk(self, folder: Path) -> _qemu.Disk:
        """Make an empty ext4 file system in a sparse file, for the I/O workloads."""
        path = folder / "disk"
        disks.make(path, disks.mebibytes(self.disk, "disk"))
        return _qemu.Disk(path=path, cache=self.cache)

    @contextlib.contextmanager
    def _folder(self, stage: Stage) -> Iterator[Path]:
        with folders.removed_at_end(f"{self.name}-", stage.scratch) as folder:
            yield folder

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_instance.Session]:
        """Boot a guest, log in, keep the connection."""
        with self._folder(stage) as folder:
            parts = self._parts(stage, folder, disk=True)
            with _instance.powered_on(stage, parts, _serial.phase_listener(stage)) as booted:
                # SSH is contacted only after the mark "ready". slirp forwards earlier connections,
                # too, and retries them in the guest with a back-off of up to 2 s.
                booted.wait_until_ready()
                with booted.connected() as connection:
                    stage.on_phase("ssh")
                    yield _instance.Session(booted=booted, connection=connection)
                # A guest that a session has crashed cannot power off: the error is known by now.
                if not booted.machine.failure_reason():
                    booted.power_off(stage.on_phase)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Boot a machine whose first process executes the command, reach SSH, power it off."""
        deadline = time.monotonic() + timeout / SECOND
        with self._folder(stage) as folder:
            # The request is in the initial RAM disk: the guest executes it before drivers and
            # network, so that the nonce comes as early as the kernel allows. The program of a
            # start-up uses no disk.
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
        """Yield the saved state of a guest that has started and waits for a request.

        Saving takes a whole boot, so that one state serves the whole run. It lies in the stage's
        scratch directory and is removed with that.
        """
        folder = stage.scratch / f"{self.name}-state-{stage.digest[:16]}"
        with _saving:
            if folder not in _saved:
                shutil.rmtree(folder, ignore_errors=True)  # left by an attempt that failed
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
        """End machines of killed runs, and remove guests that they were making."""
        del cached  # guests are removed with the rest of isobench's cache
        return [*processes.sweep(alive), *_cache.sweep()]


@dataclass(frozen=True, kw_only=True)
class KvmTarget(_Qemu):
    """A virtual machine that the hardware executes."""

    name: ClassVar[TargetName] = TargetName("kvm")
    technology: ClassVar[Technology] = Technology.VIRTUALIZATION
    accelerator: ClassVar[Literal["kvm", "tcg"]] = "kvm"

    @property
    def expectations(self) -> tuple[Expectation, ...]:  # type: ignore[override]  # depends on the host
        """Facts that evidence must show; on x86_64 they include the hypervisor's signature."""
        clocks = "kvm-clock tsc tsc-early" if self._isa() == "x86_64" else "arch_sys_counter"
        signature = _equals("cpu.hypervisor", "KVMKVMKVM")
        return _expectations(
            Expectation(key="machine", relation=Relation.SAME_AS_HOST),
            *((signature,) if self._isa() == "x86_64" else ()),
            Expectation(key="clock.source", relation=Relation.ONE_OF, value=clocks),
        )

    def _refusal(self) -> Unavailable | None:
        """Start a guest on /dev/kvm: that the device opens proves nothing (`shared.kvm`).

        If the guest fails, the user's own kernel is tried. It may be made for this hypervisor, as
        PVM-aware kernels are for KVM-PVM.
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
            what = f"{what}; {self.kernel}, tried as well, {error}"
            return replace(refusal, what=what, hint=error.hint or seen.hint)
        return None

    def _demand_output(self) -> None:
        """Boot the user's kernel alone; raise SessionError unless it soon prints something."""
        has_output = threading.Event()

        def on_mark(mark: str) -> None:
            if mark == "guest.output":
                has_output.set()

        boot = _qemu.Boot(
            kernel=Path(self.kernel).expanduser(),
            command_line=self._command_line(),
            network=False,
        )
        deadline = time.monotonic() + _FIRST_OUTPUT_TIMEOUT
        try:
            with _qemu.started(self._hardware(), boot, on_mark=on_mark) as machine:
                machine.negotiate()
                while not has_output.wait(0.05) and time.monotonic() < deadline:
                    if machine.failure_reason():
                        raise machine.failure("the machine has ended")
        except SessionError as error:
            raise SessionError(f"did not start: {error}", hint=error.hint) from None
        if not has_output.is_set():
            raise SessionError(f"printed nothing within {_FIRST_OUTPUT_TIMEOUT:g} s")

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
        # QEMU offers kvm-clock under KVM only: another sign that the guest is emulated.
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
        # This processor cannot execute such code: as the payload ran, something translated it.
        _equals("payload.machine", "aarch64"),
        _equals("machine", "aarch64"),
        Expectation(key="machine", relation=Relation.UNLIKE_HOST),
    )

    def _refusal(self) -> Unavailable | None:
        if host_abi() is not self.abi:
            return None
        return Unavailable(
            lack=Lack.PLATFORM,
            what="this host is itself aarch64, which is no foreign ISA here",
            hint="use the target qemu",
        )
