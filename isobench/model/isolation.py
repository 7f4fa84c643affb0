"""Nouns of isolation: what a target is, what must be seen of it, and what was seen."""

import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

Fact = str | int | bool | None
"""A value read from a machine. None: looked, and could not read it."""


_PLAIN: Final = re.compile(r"[a-z][a-z0-9_]*(-[a-z0-9_]+)*", re.ASCII)
_LONGEST_NAME: Final = 40


class _Open(StrEnum):
    """An enumeration to which plug-ins add: every plain name is a member.

    Iteration yields the members that are declared here, and no others.
    """

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        """Return the member of a name that is not declared, or None for no plain name."""
        if not isinstance(value, str) or len(value) > _LONGEST_NAME or not _PLAIN.fullmatch(value):
            return None
        if value in cls._value2member_map_:  # msgspec asks here, not the class
            return cls(value)
        member = str.__new__(cls, value)
        member._name_, member._value_ = value, value
        cls._value2member_map_[value] = member
        return member


class Technology(_Open):
    """The documents' columns, the sandboxes they describe in prose, and the reference.

    A plug-in of another technology has a column of its own: `Technology("unikernel")`.
    """

    NATIVE = "native"
    VIRTUALIZATION = "virtualization"
    CONTAINERIZATION = "containerization"
    EMULATION = "emulation"
    TRANSLATION = "translation"
    SANDBOX = "sandbox"

    @property
    def heading(self) -> str:
        """Its name as a heading: "Translation layer", "Unikernel"."""
        if self is Technology.TRANSLATION:
            return "Translation layer"
        return self.value.replace("-", " ").capitalize()


class Abi(_Open):
    """What a payload is built for: an ISA and a system.

    A plug-in names another one, `Abi("s390x-linux")`, and says how payloads are built for it:
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
        """Whose calls a payload makes: "linux", "wasi", "windows"."""
        return self.value.partition("-")[2]

    @property
    def lacks(self) -> Mapping["Need", str]:
        """What its system has not at all, and so no target of it can give, with the reason."""
        return _LACKS.get(self.system, {})


class Need(StrEnum):
    """What a workload cannot do without, and not every system, target or host has."""

    PARENT = "parent"  # a process knows whose child it is
    PROCESSES = "processes"  # a program starts another
    THREADS = "threads"
    TWO_CPUS = "two-cpus"  # the host gives the run two CPUs at least


_LACKS: Final[Mapping[str, Mapping[Need, str]]] = {
    "wasi": {
        Need.PARENT: "WASI has no processes, and so no parent whose number could be asked for",
        Need.PROCESSES: "WASI has no processes: nothing can be forked or executed",
        Need.THREADS: "WASI preview 1 has no threads",
    },
}


def linux_abi(machine: str) -> Abi | None:
    """Return the ABI of Linux programs for an ISA as `uname -m` names it, or None."""
    return next((abi for abi in Abi if (abi.machine, abi.system) == (machine, "linux")), None)


MACHINES: Final = tuple(abi.machine for abi in Abi if abi.system == "linux")
"""The ISAs of Linux machines that isobench has payloads for."""


def host_abi() -> Abi | None:
    """Return the ABI of programs that run here unaided, or None on a machine isobench has no
    payloads for.
    """
    if platform.system() != "Linux":
        return None
    spelled = {"amd64": "x86_64", "arm64": "aarch64"}
    machine = platform.machine().lower()
    return linux_abi(spelled.get(machine, machine))


class Lack(StrEnum):
    """Why a target cannot run."""

    TOOL = "tool"  # a program is not installed
    SERVICE = "service"  # a daemon does not answer
    PERMISSION = "permission"  # it is there, and refuses this user
    RUNTIME = "runtime"  # it is there and answers, and yet nothing starts in it
    DEVICE = "device"
    VERSION = "version"
    PLATFORM = "platform"  # not on this kind of machine
    TIME = "time"  # the budget has no room for it
    PLUGIN = "plugin"  # the plug-in itself is broken
    UNTRIED = "untried"  # its configuration has commands, and nobody has named it


@dataclass(frozen=True, slots=True, kw_only=True)
class Available:
    """A session can be opened here."""

    version: str
    """Which version of what, in words: "Docker 20.10.24, runc"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unavailable:
    """No session can be opened here; `hint` is what to type."""

    lack: Lack
    what: str
    hint: str

    @property
    def reason(self) -> str:
        """What is wrong, as the end of a sentence."""
        return f"{self.what} is not installed" if self.lack is Lack.TOOL else self.what


Availability = Available | Unavailable


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """One fact and where it was read."""

    key: str
    value: Fact
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """All facts of one session, by key."""

    facts: Mapping[str, Evidence]

    def value(self, key: str) -> Fact:
        """Return the fact, or None where it is unknown."""
        found = self.facts.get(key)
        return None if found is None else found.value


class Relation(StrEnum):
    """How a fact inside must stand to the same fact outside."""

    SAME_AS_HOST = "same"
    UNLIKE_HOST = "unlike"
    EQUALS = "equals"
    ONE_OF = "one-of"
    CONTAINS = "contains"
    OTHER_THAN = "other-than"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What a target's name says, as a relation of a fact inside to the host."""

    key: str
    relation: Relation
    value: Fact = None
    """For EQUALS and OTHER_THAN: the value; for ONE_OF: the values, with spaces; for CONTAINS: a
    part of it.
    """
    hint: str = field(default="", compare=False)
    """What to change where it is not kept, if the configuration can have made it."""


class Resource(StrEnum):
    """What of a host's resources a limit is about."""

    CPU = "cpu"
    MEMORY = "memory"
    PROCESSES = "processes"
    IO = "io"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits to be set for an instance, all of them."""

    cpus: float
    """Seconds of CPU time a second."""
    memory: int
    """Bytes."""
    processes: int
    write_rate: int
    """Bytes a second that go to the disk beneath the scratch directory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitCheck:
    """A limit that was set, and how far a program came that pushed past it."""

    resource: Resource
    unit: str
    limit: float
    reached: float | None
    """How far it came with the limit; None where that was not to be seen."""
    native: float | None
    """How far the same program came natively, without one."""
    counted: int | None
    """What the kernel counted meanwhile of its own interventions: throttled periods, refusals,
    kills; None where no counter is in sight.
    """
    held: bool | None
    """Whether the limit held; None: unknown, for the reason in `why`."""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationCheck:
    """An expectation held against evidence."""

    expectation: Expectation
    host: Fact
    inside: Fact
    kept: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftover:
    """Something that a run which has died had left on this machine."""

    what: str
    """A kind and a name, as in "container isobench-4f2a"."""
    failure: str = ""
    """Why it could not be removed; empty: it was removed."""

    def __str__(self) -> str:
        """Return it in words."""
        return f"{self.what}: not removed: {self.failure}" if self.failure else self.what
