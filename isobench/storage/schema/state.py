"""state/<target>-pre.json: what a target is here, and what it showed of itself."""

from typing import Literal

from msgspec import Struct, field

from isobench.model import Abi, Evidence, Fact, LimitCheck, Relation, Technology
from isobench.model.units import TargetName


class CheckedExpectation(Struct, frozen=True, kw_only=True):
    """What a target's name says of a fact, compared with what was seen."""

    key: str
    relation: Relation
    expected: Fact = None
    host: Fact = None
    inside: Fact = None
    kept: bool = False


class TargetState(Struct, frozen=True, kw_only=True):
    """A target as a run found it; without any field, one of which nothing is known."""

    name: TargetName | None = None
    technology: Technology | None = field(default=None, name="class")
    status: Literal["available", "unavailable"] = "available"
    version: str | None = None
    reason: str | None = None
    lack: str | None = None
    hint: str | None = None
    abi: Abi | None = None
    starts: dict[str, str] = field(default_factory=dict)
    """What each kind of start spans, in the target's own sentences."""
    expectations: tuple[CheckedExpectation, ...] = field(default=(), name="promises")
    limits: tuple[LimitCheck, ...] = ()
    facts: tuple[Evidence, ...] = ()
    workloads: dict[str, dict[str, Fact]] = field(default_factory=dict)
    """What payloads saw beside their figures, by workload."""

    def fact(self, key: str) -> Fact:
        """Return what the evidence payload saw of one fact; None where it is unknown."""
        return next((fact.value for fact in self.facts if fact.key == key), None)
