"""The section Evidence: the expectations of each target, and the facts from inside."""

from dataclasses import dataclass
from typing import Final

from isobench.model import Relation
from isobench.model.wording import counted
from isobench.report.sections.lookup import Heading, Lookup, heading_of, is_control
from isobench.report.sections.marks import MARKS, MET, NOT_MET, Mark
from isobench.report.sections.phrases import missing_of, version_of
from isobench.report.sections.section import Section
from isobench.report.sections.values import Fact, Value, value_of
from isobench.storage.schema import CheckedExpectation, TargetSummary

_UNREAD: Final = "could not be read"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectationView:
    """An expectation of a target, compared with the evidence."""

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
    expectations: tuple[ExpectationView, ...]
    facts: tuple[Fact, ...]


def proofs(lookup: Lookup) -> tuple[Proof, ...]:
    """Return the evidence of each target but the control; also of targets that could not run."""
    # The control is native, whose evidence is here already.
    return tuple(_proof(lookup, one) for one in lookup.targets if not is_control(one.name))


def _proof(lookup: Lookup, target: TargetSummary) -> Proof:
    expectations = tuple(map(_expectation, target.expectations))
    met = sum(expectation.mark is MET for expectation in expectations)
    all_met = target.measured and met == len(expectations) and bool(target.facts)
    return Proof(
        target=heading_of(target),
        version=version_of(target) if target.measured else missing_of(lookup, target).reason,
        status=target.status,
        verdict=_verdict(target, met),
        mark=MET if all_met else NOT_MET if target.measured or expectations else MARKS["gap"],
        expectations=expectations,
        facts=tuple(
            Fact(label=fact.key, value=value_of(fact.value, _UNREAD), source=fact.source)
            for fact in target.facts
        ),
    )


def _verdict(target: TargetSummary, met: int) -> str:
    if target.expectations:
        return f"{met} of {counted(len(target.expectations), 'expectation')} met"
    if not target.facts and target.measured:
        return "the evidence is lost"
    return "no expectations" if target.measured else target.status


def _expectation(expectation: CheckedExpectation) -> ExpectationView:
    return ExpectationView(
        key=expectation.key,
        relation=_words(expectation.relation, value_of(expectation.expected, "").shown),
        host=value_of(expectation.host, _UNREAD),
        inside=value_of(expectation.inside, _UNREAD),
        mark=MET if expectation.kept else NOT_MET,
    )


def _words(relation: Relation, wanted: str) -> str:
    match relation:
        case Relation.SAME_AS_HOST:
            return "same as on the host"
        case Relation.UNLIKE_HOST:
            return "different from the host"
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
