"""The table of the classes of workloads.

The class is the part of a workload's name before the dot. A class that is not in the table works
too: it is shown last, under its name.
"""

from dataclasses import dataclass
from typing import Final

START_UP: Final = "startup"


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadClass:
    """A class of workloads, and how it is measured and shown."""

    name: str
    title: str
    """Its name in headings."""
    within: str
    """Its name within a sentence, after "in"."""
    plural: bool = False
    """Whether `within` is a plural: "System calls are"."""
    typical: str = ""
    """The workload that represents it where the budget has no room for all of them."""
    lead: str = ""
    """A sentence about its workloads."""
    averaged: bool = True
    """Whether the report shows a mean of its workloads. Cold and warm starts have none: they are
    different quantities.
    """
    overhead: int = 1
    """How long an iteration takes, as a multiple of its timed part."""
    steady: bool = False
    """Whether native's times depend on the processor only, so that a trend shows a drift of the
    machine.
    """
    interruptible: bool = False
    """Whether the time of a turn is that of the processor alone, to which an interruption by other
    programs only adds: then the turns that nothing has interrupted are compared.
    """
    untimed: bool = True
    """Whether a short pass that is not timed comes before each turn of a round, since others have
    used the caches meanwhile. Not for I/O, which it would double.
    """
    duets: bool = False
    """Whether it may be measured at the same time as native, each on its own CPUs."""


# fmt: off
CLASSES: Final = (
    WorkloadClass(name="cpu", title="CPU", within="CPU work", typical="cpu.sieve", steady=True,
                  interruptible=True, duets=True,
                  lead="Work inside the processor: no system calls while the clock runs."),
    WorkloadClass(name="memory", title="Memory", within="memory", interruptible=True),
    WorkloadClass(name="syscall", title="System calls", within="system calls", plural=True,
                  typical="syscall.getppid", interruptible=True,
                  lead="Each operation crosses into the kernel, where filters and translators"
                       " sit."),
    # Files are made before the timed part and read back after it, which takes as long again.
    WorkloadClass(name="io", title="I/O", within="I/O", typical="io.fsync", overhead=2,
                  untimed=False,
                  lead="Files on the scratch file system of each target; Parity shows which one"
                       " that is."),
    WorkloadClass(name="net", title="Network", within="network"),
    WorkloadClass(name="app", title="Applications", within="applications", plural=True),
    WorkloadClass(name=START_UP, title="Start-up", within="start-up",
                  typical="startup.cold", averaged=False),
)
"""The order is that of the report."""
# fmt: on

_BY_NAME: Final = {each.name: each for each in CLASSES}
_RANKS: Final = {each.name: rank for rank, each in enumerate(CLASSES)}
DUETS: Final = tuple(each.name for each in CLASSES if each.duets)
TYPICAL: Final = frozenset(each.typical for each in CLASSES if each.typical)
"""The workloads that represent their classes."""


def get(name: str) -> WorkloadClass:
    """Return a class by name. One that the table does not have gets its name as title."""
    return _BY_NAME.get(name) or WorkloadClass(name=name, title=name, within=name)


def opening(name: str) -> str:
    """Return the name of a class for the beginning of a sentence."""
    known = _BY_NAME.get(name)
    return f"{known.within[0].upper()}{known.within[1:]}" if known else name


def rank(name: str) -> int:
    """Return the position of a class in the report. Classes that the table lacks are last."""
    return _RANKS.get(name, len(CLASSES))
