"""Nouns of isolation: what a target is, what it promises, and what was seen."""

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Fact = str | int | bool | None
"""A value read from a machine. None: looked, and could not read it."""


class Technology(StrEnum):
    """The documents' columns, the sandboxes they describe in prose, and the reference."""

    NATIVE = "native"
    VIRTUALIZATION = "virtualization"
    CONTAINERIZATION = "containerization"
    EMULATION = "emulation"
    TRANSLATION = "translation"
    SANDBOX = "sandbox"


class Abi(StrEnum):
    """What a payload is built for."""

    ELF_X86_64 = "x86_64-linux"
    ELF_AARCH64 = "aarch64-linux"
    ELF_RISCV64 = "riscv64-linux"

    @property
    def machine(self) -> str:
        """The ISA as `uname -m` names it."""
        return self.value.partition("-")[0]


def host_abi() -> Abi | None:
    """Return the ABI of programs that run here unaided, or None on a machine isobench has no
    payloads for.
    """
    if platform.system() != "Linux":
        return None
    spelled = {"amd64": "x86_64", "arm64": "aarch64"}
    machine = platform.machine().lower()
    return next((abi for abi in Abi if abi.machine == spelled.get(machine, machine)), None)


class Lack(StrEnum):
    """Why a target cannot run."""

    TOOL = "tool"  # a program is not installed
    SERVICE = "service"  # a daemon does not answer
    PERMISSION = "permission"  # it is there, and refuses this user
    RUNTIME = "runtime"  # it is there and answers, and yet nothing starts in it
    DEVICE = "device"
    VERSION = "version"
    PLATFORM = "platform"  # not on this kind of machine
    PLUGIN = "plugin"  # the plug-in itself is broken


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
class Promise:
    """What a target's name says, as a relation of a fact inside to the host."""

    key: str
    relation: Relation
    value: Fact = None
    """For EQUALS and OTHER_THAN: the value; for ONE_OF: the values, with spaces; for CONTAINS: a
    part of it.
    """
    hint: str = field(default="", compare=False)
    """What to change where it is not kept, if the configuration can have made it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromiseCheck:
    """A promise held against evidence."""

    promise: Promise
    host: Fact
    inside: Fact
    kept: bool
