"""The section Environment: the machine, the compiler and the command of a run."""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isobench.report.sections.lookup import Lookup
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact, Value, value_of
from isobench.report.signs import SPACE
from isobench.storage.schema import HostFact

_LABELS: Final = {
    "cpu": "Processor",
    "cpus": "CPUs usable",
    "memory_bytes": "Memory",
    "kernel": "Kernel",
    "os": "Operating system",
    "virtualization": "Virtualized by",
    "kvm": "KVM",
    "clock_source": "Clock source",
    "filesystem": "File system",
    "load": "Load at the start",
    "cpu_group": "Cgroup of native",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """The view of the environment."""

    facts: tuple[Fact, ...]
    """The host, the compiler and the command."""
    details: tuple[Fact, ...]
    """Facts of the host that come in families, such as "mitigation.spectre_v2"."""


def environment(lookup: Lookup) -> Environment:
    """Return the environment of a run."""
    values = [(key, _host(key, value)) for key, value in (lookup.run.host or {}).items()]
    facts = (Fact(label=_label(key), value=value) for key, value in values if "." not in key)
    return Environment(
        facts=(*facts, *_made_with(lookup)),
        details=tuple(Fact(label=key, value=value) for key, value in values if "." in key),
    )


def _label(key: str) -> str:
    return _LABELS.get(key, key.replace("_", " ").capitalize())


def _made_with(lookup: Lookup) -> Iterator[Fact]:
    run = lookup.run
    command = None if run.argv is None else shlex.join(("isobench", *run.argv))
    for label, value in (
        ("Compiler of the payloads", run.compiler),
        ("Compiler flags", run.flags),
        ("isobench", run.tool_version),
        ("Command", command),
    ):
        if value:
            yield Fact(label=label, value=value_of(value))


def _host(key: str, value: HostFact) -> Value:
    if value is None or isinstance(value, str | bool):
        return value_of(value, "not known")
    if key.endswith("_bytes"):
        return Value(shown=f"{value / 2**30:.3g}{SPACE}GiB")
    return Value(shown=f"{value:.0f}" if float(value).is_integer() else f"{value:.3g}")


ENVIRONMENT: Final = Section(
    anchor="environment", title="Environment", template="environment.html.j2", build=environment
)
