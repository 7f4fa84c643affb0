"""The classes of workloads: the one table of them.

A class is what stands before the dot of a workload's name. One that the table does not have works
too: it comes last and is called by its name.
"""

from dataclasses import dataclass
from typing import Final

START_UP: Final = "startup"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadClass:
    """A class of workloads, and how it is treated."""

    name: str
    title: str
    """At the head of a table or a sentence."""
    within: str
    """After "in": within a sentence."""
    typical: str = ""
    """The workload that stands for it where there is no time for all of them."""
    lead: str = ""
    """A sentence on what its workloads have in common."""
    averaged: bool = True
    """Whether its workloads have a mean. Kinds of start have none: they are different things."""
    overhead: int = 1
    """How many times as long as its timed part an iteration takes."""
    steady: bool = False
    """Whether native's times show a drift of the machine itself: nothing else is in them."""
    duets: bool = False
    """Whether it may be measured at the same time as native, each on a CPU of its own."""


# fmt: off
CLASSES: Final = (
    WorkloadClass(name="cpu", title="CPU", within="CPU work", typical="cpu.sieve", steady=True,
                  duets=True,
                  lead="Work inside the processor: no system calls while the clock runs."),
    WorkloadClass(name="memory", title="Memory", within="memory"),
    WorkloadClass(name="syscall", title="System calls", within="system calls",
                  typical="syscall.getppid",
                  lead="Each operation crosses into the kernel, where filters and translators"
                       " sit."),
    # Files are made and read back around the timed part: as long again.
    WorkloadClass(name="io", title="I/O", within="I/O", typical="io.fsync", overhead=2,
                  lead="Files on the scratch file system of each target; which one that is stands"
                       " under Parity."),
    WorkloadClass(name="net", title="Network", within="network"),
    WorkloadClass(name="app", title="Applications", within="applications"),
    WorkloadClass(name=START_UP, title="Start-up", within="start-up",
                  typical="startup.cold", averaged=False),
)
"""In the order in which they are shown."""
# fmt: on

_BY_NAME: Final = {each.name: each for each in CLASSES}
_RANKS: Final = {each.name: rank for rank, each in enumerate(CLASSES)}
DUETS: Final = tuple(each.name for each in CLASSES if each.duets)
TYPICAL: Final = frozenset(each.typical for each in CLASSES if each.typical)
"""The typical workloads of all classes."""


def get(name: str) -> WorkloadClass:
    """Return a class by name; one that the table does not have is called by its name."""
    return _BY_NAME.get(name) or WorkloadClass(name=name, title=name, within=name)


def opening(name: str) -> str:
    """Return what a class is called at the beginning of a sentence."""
    known = _BY_NAME.get(name)
    return f"{known.within[0].upper()}{known.within[1:]}" if known else name


def rank(name: str) -> int:
    """Return the place of a class in the order in which classes are shown; others come last."""
    return _RANKS.get(name, len(CLASSES))
