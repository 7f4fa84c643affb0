"""state/<target>-pre.json: a target as the run found it, and its evidence."""

from typing import Literal

from msgspec import Struct, field

from isobench.model import Abi, Evidence, Fact, LimitCheck, Relation, Technology
from isobench.model.units import TargetName


class CheckedExpectation(Struct, frozen=True, kw_only=True):
    """An expectation of a target, compared with the evidence."""

    key: str
    relation: Relation
    expected: Fact = None
    host: Fact = None
    inside: Fact = None
    kept: bool = False


class TargetState(Struct, frozen=True, kw_only=True):
    """A target as the run found it. Without any field: nothing is known of it."""

    name: TargetName | None = None
    technology: Technology | None = field(default=None, name="class")
    status: Literal["available", "unavailable"] = "available"
    version: str | None = None
    reason: str | None = None
    lack: str | None = None
    hint: str | None = None
    abi: Abi | None = None
    starts: dict[str, str] = field(default_factory=dict)
    """What a start of each kind ("cold", "warm", "exec") includes, in the target's sentences."""
    expectations: tuple[CheckedExpectation, ...] = field(default=(), name="promises")
    limits: tuple[LimitCheck, ...] = ()
    facts: tuple[Evidence, ...] = ()
    workloads: dict[str, dict[str, Fact]] = field(default_factory=dict)
    """The facts that payloads reported, by workload."""

    def fact(self, key: str) -> Fact:
        """Return a fact that the evidence payload reported; None where it is unknown."""
        return next((fact.value for fact in self.facts if fact.key == key), None)
