"""QEMU's user-mode emulation: a program of a foreign ISA, translated, on this host's kernel.

QEMU translates the program's instructions, and passes its system calls to the host's kernel.
Source: QEMU documentation, "QEMU User space emulator".
"""

import contextlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from isobench.evidence import cpu_share
from isobench.model import (
    Abi,
    Availability,
    Available,
    Command,
    Evidence,
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
from isobench.model.units import Nanoseconds, TargetName, seconds
from isobench.plugins import ownership
from isobench.plugins.api import BEGIN, Completed
from isobench.targets.shared import elf, processes


def _emulator(machine: str) -> str | None:
    # Debian has two packages: qemu-user-static, and the smaller qemu-user without the suffix.
    return shutil.which(f"qemu-{machine}-static") or shutil.which(f"qemu-{machine}")


def _expectations(machine: str) -> tuple[Expectation, ...]:
    return (
        Expectation(key="kernel.boot_id", relation=Relation.SAME_AS_HOST),
        # This processor cannot execute such code: as the payload ran, something translated it.
        Expectation(key="payload.machine", relation=Relation.EQUALS, value=machine),
        Expectation(key="machine", relation=Relation.EQUALS, value=machine),
        Expectation(key="machine", relation=Relation.UNLIKE_HOST),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Session:
    stage: Stage
    emulator: str
    interactive: ClassVar[bool] = True

    def run(self, command: Command, *, timeout: Nanoseconds) -> Completed:
        path = self.stage.root / "isobench" / command.argv[0]
        scratch = processes.private_scratch(self.stage.scratch, "qemu-user")
        environment = {
            **command.environ(str(scratch)),
            **processes.tied(),
            # syscall.fork-exec executes its own file. Without binfmt_misc the kernel cannot execute
            # a file of a foreign ISA: the payload executes the emulator with the file in its place.
            "ISOBENCH_INTERPRETER": self.emulator,
        }
        command.on_phase(BEGIN)
        try:
            return processes.run(
                [self.emulator, str(path), *command.argv[1:]],
                timeout=timeout,
                env=environment,
                command=command,
            )
        except OSError as error:
            raise SessionError(f"{self.emulator} cannot be executed: {error}") from None

    def witness(self) -> Iterable[Evidence]:
        """Yield which share of the CPU QEMU gets: its processes inherit the cgroup of this one."""
        return cpu_share.evidence(os.getpid())


@dataclass(frozen=True, kw_only=True)
class _QemuUser:
    """What the targets of both ISAs share."""

    technology: ClassVar[Technology] = Technology.EMULATION
    name: ClassVar[TargetName]
    abi: ClassVar[Abi | None]
    expectations: ClassVar[tuple[Expectation, ...]]
    starts: ClassVar[Mapping[str, str]] = {
        "cold": "QEMU is executed with a new copy of the program",
        "warm": "QEMU is executed again: it keeps no translated code between processes",
        "exec": "the same operation as warm: no instance stays open",
    }

    def _machine(self) -> str:
        return str(self.abi).partition("-")[0]

    def probe(self) -> Availability:
        """Run a program of a few bytes of the foreign ISA."""
        machine = self._machine()
        if host_abi() is self.abi:
            return Unavailable(
                lack=Lack.PLATFORM,
                what=f"this host is itself {machine}: there is nothing to emulate",
                hint="use a target of another ISA",
            )
        emulator = _emulator(machine)
        if emulator is None:
            return Unavailable(
                lack=Lack.TOOL,
                what=f"qemu-{machine}-static or qemu-{machine}",
                hint="isobench doctor --install qemu-user",
            )
        with ownership.temporary_folder("probe") as folder:
            program = folder / "answer"
            program.write_bytes(elf.probe_program(machine))
            program.chmod(0o755)
            try:
                done = processes.run([emulator, str(program)], timeout=seconds(20), env=os.environ)
            except OSError as error:
                return Unavailable(lack=Lack.RUNTIME, what=str(error), hint=f"reinstall {emulator}")
        if done.stdout != elf.ANSWER:
            return Unavailable(
                lack=Lack.RUNTIME,
                what=f"{emulator} does not run a program: {processes.last_line(done.stderr)}",
                hint=f"{commands.path(emulator)} --version; then reinstall the package that it"
                " comes from",
            )
        version = (processes.output_of([emulator, "--version"]) or emulator).splitlines()[0]
        return Available(
            version=f"QEMU user mode, {version.removeprefix(f'qemu-{machine} version ')}"
        )

    @contextlib.contextmanager
    def open(self, stage: Stage) -> Iterator[_Session]:
        """Start nothing: every program runs in a new process of the emulator."""
        emulator = _emulator(self._machine())
        if emulator is None:
            raise SessionError(
                "the emulator was removed while isobench ran: it is no longer on PATH",
                hint="isobench doctor --install qemu-user",
            )
        yield _Session(stage=stage, emulator=emulator)

    def launch(self, stage: Stage, command: Command, *, timeout: Nanoseconds) -> Completed:
        """Execute the emulator with the program."""
        with self.open(stage) as session:
            return session.run(command, timeout=timeout)

    def sweep(self, alive: Callable[[str], bool], *, cached: bool) -> Sequence[Leftover]:
        """End processes of killed runs."""
        del cached  # this target keeps nothing between runs
        return processes.sweep(alive)


class Aarch64Target(_QemuUser):
    """ARM programs on this host."""

    name: ClassVar[TargetName] = TargetName("qemu-user-aarch64")
    abi: ClassVar[Abi | None] = Abi.ELF_AARCH64
    expectations: ClassVar[tuple[Expectation, ...]] = _expectations("aarch64")


class Riscv64Target(_QemuUser):
    """RISC-V programs on this host."""

    name: ClassVar[TargetName] = TargetName("qemu-user-riscv64")
    abi: ClassVar[Abi | None] = Abi.ELF_RISCV64
    expectations: ClassVar[tuple[Expectation, ...]] = _expectations("riscv64")
