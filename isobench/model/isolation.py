"""Types of isolation: what a target is, what it must show, and what it showed."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

Fact = str | int | bool | None
"""A value read from a machine. None: it could not be read."""


_PLAIN_NAME: Final = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*", re.ASCII)
# Members that plug-ins add are kept for the life of the process, and become headings of the report:
# a limit keeps a broken plug-in from filling either.
_LONGEST_NAME: Final = 40


class _ExtensibleEnum(StrEnum):
    """An enumeration that plug-ins can extend: every plain name is a member.

    Iteration yields only the members that are declared here.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Return a new member for a plain name; None, which raises ValueError, for others."""
        if (
            not isinstance(value, str)
            or len(value) > _LONGEST_NAME
            or not _PLAIN_NAME.fullmatch(value)
        ):
            return None
        # msgspec calls `_missing_` for every name that it does not know itself, also for one that
        # was added before.
        if value in cls._value2member_map_:
            return cls(value)
        # Putting the member into the map makes the next look-up return the same object, so that
        # `is` works for it as for declared members. `_missing_` itself stores nothing:
        # https://docs.python.org/3/library/enum.html#enum.Enum._missing_
        member = str.__new__(cls, value)
        member._name_, member._value_ = value, value
        cls._value2member_map_[value] = member
        return member


class Technology(_ExtensibleEnum):
    """The columns of the report. A plug-in adds one with `Technology("unikernel")`."""

    NATIVE = "native"
    VIRTUALIZATION = "virtualization"
    """A machine on a hypervisor: hardware executes its instructions and its kernel."""
    CONTAINERIZATION = "containerization"
    EMULATION = "emulation"
    """Software executes the instructions: of one program, or of a whole machine (TCG)."""
    PARAVIRTUAL = "paravirtual"
    """A kernel of its own, built for another kernel's system calls in place of hardware, without a
    hypervisor: user-mode Linux.
    """
    TRANSLATION = "translation"
    SANDBOX = "sandbox"

    @property
    def heading(self) -> str:
        """Its name as a heading: "Translation layer", "Unikernel"."""
        if self is Technology.TRANSLATION:
            return "Translation layer"
        return self.value.replace("-", " ").capitalize()


class Abi(_ExtensibleEnum):
    """What a payload is built for: an ISA and a system.

    A plug-in adds one with `Abi("s390x-linux")`, and registers its compiler with
    `isobench.payload.build.add_toolchain`.
    """

    ELF_X86_64 = "x86_64-linux"
    ELF_AARCH64 = "aarch64-linux"
    ELF_RISCV64 = "riscv64-linux"
    WASM32 = "wasm32-wasi"
    PE_X86_64 = "x86_64-windows"

    @property
    def machine(self) -> str:
        """The ISA as `uname -m` names it."""
        return self.value.partition("-")[0]

    @property
    def system(self) -> str:
        """The system whose calls a payload makes: "linux", "wasi", "windows"."""
        return self.value.partition("-")[2]

    @property
    def lacks(self) -> Mapping["Need", str]:
        """The needs that its system cannot meet, whatever the target, each with the reason."""
        return _LACKS.get(self.system, {})


class Need(StrEnum):
    """A feature that a workload requires and that some systems, targets or hosts do not have."""

    PARENT = "parent"  # a process can read the number of its parent (getppid)
    PROCESSES = "processes"  # a program can start another
    THREADS = "threads"
    TWO_CPUS = "two-cpus"  # the host gives the run two CPUs at least


# WASI preview 1 is the one that Zig's wasm32-wasi builds for. It has neither processes nor threads:
# https://github.com/WebAssembly/WASI/blob/main/legacy/preview1/docs.md
_LACKS: Final[Mapping[str, Mapping[Need, str]]] = {
    "wasi": {
        Need.PARENT: "WASI has no processes, and so no parent process",
        Need.PROCESSES: "WASI has no processes: a program cannot fork or execute another",
        Need.THREADS: "WASI preview 1 has no threads",
    },
}


def linux_abi(machine: str) -> Abi | None:
    """Return the ABI of Linux programs for an ISA as `uname -m` names it, or None."""
    return next((abi for abi in Abi if (abi.machine, abi.system) == (machine, "linux")), None)


MACHINES: Final = tuple(abi.machine for abi in Abi if abi.system == "linux")
"""The ISAs of Linux machines for which isobench has payloads."""


def host_abi() -> Abi | None:
    """Return the ABI of native programs on this host; None: isobench has no payloads for it."""
    if platform.system() != "Linux":
        return None
    other_names = {"amd64": "x86_64", "arm64": "aarch64"}
    machine = platform.machine().lower()
    return linux_abi(other_names.get(machine, machine))


class Lack(StrEnum):
    """Why a target cannot run."""

    TOOL = "tool"  # a program is not installed
    SERVICE = "service"  # a daemon does not answer
    PERMISSION = "permission"  # it is installed, but this user may not use it
    RUNTIME = "runtime"  # it is installed and answers, but no program starts in it
    DEVICE = "device"
    VERSION = "version"
    PLATFORM = "platform"  # not on this kind of machine
    TIME = "time"  # it does not fit into the budget
    PLUGIN = "plugin"  # the plug-in itself is broken
    UNTRIED = "untried"  # its configuration has commands, and the user has not named the target


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """A session can be opened here."""

    version: str
    """Product and version: "Docker 20.10.24, runc"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """No session can be opened here; `hint` is what to type."""

    lack: Lack
    what: str
    hint: str

    @property
    def reason(self) -> str:
        """What is missing or wrong, as the end of a sentence."""
        return f"{self.what} is not installed" if self.lack is Lack.TOOL else self.what


Availability = Available | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact and where it was read."""

    key: str
    value: Fact
    source: str

    @property
    def size(self) -> int:
        """How many characters it has."""
        return len(self.key) + len(str(self.value)) + len(self.source)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """All facts of one session, by key."""

    facts: Mapping[str, Evidence]

    def value(self, key: str) -> Fact:
        """Return the fact, or None where it is unknown."""
        found = self.facts.get(key)
        return None if found is None else found.value


class Relation(StrEnum):
    """How a fact inside must relate to the same fact on the host."""

    SAME_AS_HOST = "same"
    UNLIKE_HOST = "unlike"
    EQUALS = "equals"
    ONE_OF = "one-of"
    CONTAINS = "contains"
    OTHER_THAN = "other-than"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a target must show to deserve its name: a relation of a fact inside to the host's."""

    key: str
    relation: Relation
    value: Fact = None
    """For EQUALS and OTHER_THAN: the value. For ONE_OF: the values, separated by spaces. For
    CONTAINS: a part of the value.
    """
    # Not compared: two expectations with different advice demand the same.
    hint: str = field(default="", compare=False)
    """What to change if it is not met, where the configuration can be the cause."""


class Resource(StrEnum):
    """A resource of the host that can be limited."""

    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    IO = "io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits that are set for one instance, all at once."""

    cpus: float
    """Seconds of CPU time per second."""
    memory: int
    """Bytes."""
    processes: int
    write_rate: int
    """Bytes per second written to the disk of the scratch directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """A limit that was set, and how much a program got that demanded more."""

    resource: Resource
    unit: str
    limit: float
    reached: float | None
    """How much the program got with the limit, in `unit`; None where that is not visible."""
    native: float | None
    """How much the same program got natively, without a limit, in `unit`."""
    counted: int | None
    """How often the kernel intervened meanwhile (throttled periods, refusals, kills); None where no
    counter is visible.
    """
    held: bool | None
    """Whether the limit held. None: unknown, for the reason in `why`."""
    why: str = ""

    def __post_init__(self) -> None:
        """Check the limit. ValueError: it is not above 0."""
        if not self.limit > 0:
            message = f"a limit is above 0, not {self.limit:g}"
            raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationCheck:
    """An expectation compared with the evidence."""

    expectation: Expectation
    host: Fact
    inside: Fact
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that a dead run left on this machine."""

    what: str
    """A kind and a name, as in "container isobench-4f2a"."""
    failure: str = ""
    """Why it could not be removed. Empty: it was removed."""

    def __str__(self) -> str:
        """Return it as text for the user."""
        return f"{self.what}: not removed: {self.failure}" if self.failure else self.what
