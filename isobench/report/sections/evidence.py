"""Evidence: which expectations of each target's name were met, and what was seen inside."""

from dataclasses import dataclass
from typing import Final

from isobench.model import Relation
from isobench.model.wording import counted
from isobench.report.sections.lookup import Heading, Lookup, heading_of, is_control
from isobench.report.sections.marks import BROKEN, KEPT, MARKS, Mark
from isobench.report.sections.phrases import missing_of, version_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact, Value, value_of
from isobench.storage.schema import CheckedExpectation, TargetSummary

_UNREAD: Final = "could not be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An expectation of a target's name, compared with what was seen."""

    key: str
    relation: str
    host: Value
    inside: Value
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """The evidence of one target."""

    target: Heading
    version: Value
    status: str
    verdict: str
    mark: Mark
    expectations: tuple[Kept, ...]
    facts: tuple[Fact, ...]


def proofs(found: Lookup) -> tuple[Proof, ...]:
    """Return the evidence of each target, those that could not run included, the control not."""
    return tuple(_proof(found, one) for one in found.targets if not is_control(one.name))


def _proof(found: Lookup, target: TargetSummary) -> Proof:
    expectations = tuple(map(_kept, target.expectations))
    kept = sum(expectation.mark is KEPT for expectation in expectations)
    whole = target.measured and kept == len(expectations)
    return Proof(
        target=heading_of(target),
        version=version_of(target) if target.measured else missing_of(found, target).reason,
        status=target.status,
        verdict=_verdict(target, kept),
        mark=KEPT if whole else BROKEN if target.measured or expectations else MARKS["gap"],
        expectations=expectations,
        facts=tuple(
            Fact(label=fact.key, value=value_of(fact.value, _UNREAD), source=fact.source)
            for fact in target.facts
        ),
    )


def _verdict(target: TargetSummary, kept: int) -> str:
    if target.expectations:
        return f"{kept} of {counted(len(target.expectations), 'expectation')} met"
    return "nothing is expected" if target.measured else target.status


def _kept(expectation: CheckedExpectation) -> Kept:
    return Kept(
        key=expectation.key,
        relation=_words(expectation.relation, value_of(expectation.expected, "").shown),
        host=value_of(expectation.host, _UNREAD),
        inside=value_of(expectation.inside, _UNREAD),
        mark=KEPT if expectation.kept else BROKEN,
    )


def _words(relation: Relation, wanted: str) -> str:
    match relation:
        case Relation.SAME_AS_HOST:
            return "as on the host"
        case Relation.UNLIKE_HOST:
            return "unlike the host"
        case Relation.EQUALS:
            return f"is {wanted}"
        case Relation.ONE_OF:
            return f"is one of {', '.join(wanted.split())}"
        case Relation.CONTAINS:
            return f"contains {wanted}"
        case Relation.OTHER_THAN:
            return f"is not {wanted}"


EVIDENCE: Final = Section(
    anchor="evidence", title="Evidence", template="evidence.html.j2", build=proofs
)
