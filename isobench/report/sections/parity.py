"""The section Parity: differences between native and each target other than the isolation."""

from dataclasses import dataclass
from typing import Final

from isobench.report.sections.lookup import REFERENCE, Heading, Lookup, heading_of, is_control
from isobench.report.sections.section import Section
from isobench.report.sections.values import Value, value_of
from isobench.storage.schema import TargetSummary

_UNKNOWN: Final = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """A difference between native and a target other than the isolation."""

    label: str
    native: Value
    target: Value


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """The differences of one target."""

    target: Heading
    differences: tuple[Difference, ...]


def parity(lookup: Lookup) -> tuple[Parity, ...]:
    """Return the differences of each target with numbers."""
    return tuple(
        _of_target(target)
        for target in lookup.targets
        if target.measured and not is_control(target.name) and target.name != REFERENCE
    )


def _of_target(target: TargetSummary) -> Parity:
    differences = tuple(
        Difference(
            label=one.label,
            native=value_of(one.native, _UNKNOWN),
            target=value_of(one.target, _UNKNOWN),
        )
        for one in target.parity
    )
    return Parity(target=heading_of(target), differences=differences)


PARITY: Final = Section(anchor="parity", title="Parity", template="parity.html.j2", build=parity)
