"""What claims ask of one run: cells at each claim's margin, level and reference, and facts."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import numpy as np

from isobench import claims as claiming
from isobench.analysis.cells import Analysis, Cell, quantile_bounds
from isobench.config import paths
from isobench.model import (
    FEW_CODES,
    Cause,
    Claim,
    ClaimKind,
    ClaimVerdict,
    Published,
    Status,
    TargetStatus,
    Technology,
    Verdict,
)
from isobench.model.units import TargetName
from isobench.storage.documents import METADATA
from isobench.storage.reader import Run
from isobench.storage.schema import ClaimResult, PublishedFigure, TargetSummary

_USUAL: Final = 0.95
_MEDIAN: Final = 0.5
_OF_RUN: Final = "-of-this-run"
"""What is added to the id of a claim of run.json that a claim of the documents has."""
_NOISE: Final = frozenset({"noise-floor", "control-bias"})
_MOST_CONTRASTS: Final = 5_000
"""Estimates at a margin, a level or a reference of its own that the claims of a run may ask for all
together. Each takes some milliseconds.
"""
_COMPARING: Final = (ClaimKind.EQUIVALENT, ClaimKind.ORDER, ClaimKind.BOUND)


def documents_claims() -> tuple[Claim, ...]:
    """Return the claims of the documents, as shipped."""
    return _documents_claims(paths.shared("reports") / "claims.toml")


@functools.cache
def _documents_claims(path: Any) -> tuple[Claim, ...]:  # noqa: ANN401 - a path of any kind
    return claiming.load(path.read_text(encoding="utf-8"), origin=str(path))


def claims_of(run: Run, added: Sequence[Claim] = ()) -> tuple[Claim, ...]:
    """Return the claims to judge on a run: the documents', those it was made with, and those added.

    A user may put a sentence of the documents otherwise: an added claim takes the place of one with
    its id. A claim of run.json does not, since anybody may have made the run.
    """
    own = claiming.of_table(run.metadata.claims, origin=METADATA)
    added = [_as_recorded(claim, own) for claim in added]
    chosen = {claim.id: claim for claim in documents_claims()}
    given = {claim.id for claim in added}
    for claim in own:
        if claim.id not in chosen:
            chosen[claim.id] = claim
        elif claim.id not in given:
            name = f"{claim.id}{_OF_RUN}"
            chosen[name] = replace(claim, id=name)
    chosen |= {claim.id: claim for claim in added}
    return tuple(chosen.values())


def _as_recorded(claim: Claim, own: Sequence[Claim]) -> Claim:
    """Return a claim as run.json has it, if that is the same: a report looks the same each time."""
    return next((one for one in own if one == replace(claim, origin=one.origin)), claim)


def published_figures() -> tuple[Published, ...]:
    """Return the figures that others have published, as shipped."""
    path = paths.shared("reports") / "published.toml"
    return claiming.load_published(path.read_text(encoding="utf-8"), origin=str(path))


def judge_claims(
    claims: Sequence[Claim], analysis: Analysis, targets: Sequence[TargetSummary]
) -> tuple[ClaimResult, ...]:
    """Return how each claim stands after a run whose targets are these."""
    technologies = {item.name: item.technology for item in targets}
    asked = {name: _Asked(analysis.of(name), technologies) for name in analysis.metrics}
    facts = [
        # A target without evidence may not be what its name says, whatever numbers it has.
        replace(one, status=TargetStatus.UNPROVEN) if analysis.run.evidence_fault(one.name) else one
        for one in map(_facts, targets)
    ]
    judged = [*_judged(claims, asked, facts)]
    figures = published_figures()
    shipped = {claim.id: claim.origin for claim in documents_claims()}
    return tuple(
        ClaimResult(
            id=each.claim.id,
            status=each.status,
            sentence=each.sentence,
            quote=each.claim.quote,
            kind=each.claim.kind,
            axes=dict(each.axes),
            change=each.change,
            origin=each.claim.origin.rpartition("/")[2],
            # A user may put a sentence of the documents otherwise: that one is the user's.
            is_documents=shipped.get(each.claim.id) == each.claim.origin,
            published=tuple(_beside(each.claim.id, figures)) if each.claim.id in shipped else (),
        )
        for each in judged
    )


def _judged(
    claims: Sequence[Claim],
    asked: Mapping[str, "_Asked"],
    facts: Sequence[claiming.TargetFacts],
) -> Iterator[ClaimVerdict]:
    """Yield how each claim stands. One that asks for more estimates than there is time for is not
    tested: anybody may have written the claims of a run.
    """
    left = _MOST_CONTRASTS
    for claim in claims:
        # No workload may have its metric.
        own = asked.get(claim.metric)
        wanted = 0 if own is None else own.contrasts(claim)
        if own is None or wanted > left:
            verdict = claiming.judge(claim, [], facts)
        else:
            verdict = claiming.judge(claim, list(own.cells(claim)), facts)
        if wanted > left:
            why = f"of {wanted:,} comparisons of its own, {left:,} are left to the claims of a run"
            verdict = replace(verdict, sentence=f"Not tested: {why}.")
        else:
            left -= wanted
        yield verdict


def _facts(item: TargetSummary) -> claiming.TargetFacts:
    """Return what claims about evidence ask of a target."""
    return claiming.TargetFacts(
        name=item.name,
        technology=item.technology,
        status=item.status,
        variation=item.variation_of is not None,
        relations=_relations(item),
        values={fact.key: str(fact.value).lower() for fact in item.facts},
        limits=item.limits,
    )


def _beside(name: str, figures: Sequence[Published]) -> Iterator[PublishedFigure]:
    """Yield what others have published that speaks to a claim of the documents."""
    for figure in figures:
        if name in figure.claims:
            yield PublishedFigure(
                subject=figure.subject,
                measured=figure.measured,
                figure=figure.figure,
                source=figure.source,
                conditions=figure.conditions,
                opened=figure.opened,
            )


def _relations(item: TargetSummary) -> dict[str, str]:
    """Return how facts stand to the host's; those that only the host side has, by their value."""
    own = {fact.key: fact.value for fact in item.facts if fact.key.startswith("host.")}
    values = {key: str(value).lower() for key, value in own.items()}
    return values | {k: v for k, v in item.evidence.items() if v != "unknown" or k not in own}


class _Asked:
    """The cells of one metric of a run as claims ask for them."""

    def __init__(self, analysis: Analysis, technologies: Mapping[TargetName, Technology]) -> None:
        self._analysis = analysis
        self._technologies = technologies
        self._wrong = {
            (g.target, g.workload) for g in analysis.run.gaps if g.cause is Cause.WRONG_ANSWER
        }

    def cells(self, claim: Claim) -> Iterator[claiming.CellFacts]:
        """Yield the cells that a claim may speak of."""
        references = self._references(claim)
        for cell, technology in self._chosen(claim):
            for reference in references:
                if reference != cell.target:
                    facts = self._cell(claim, cell, technology, reference)
                    if facts is not None:
                        yield facts
        if claim.kind is ClaimKind.CHECKSUM:
            yield from self._unmeasured_answers(claim)

    def contrasts(self, claim: Claim) -> int:
        """Return for how many estimates of its own a claim asks."""
        usual = self._is_usual(claim)
        references = self._references(claim)
        own = [name for name in references if not usual or name != self._analysis.reference]
        if claim.kind not in _COMPARING or not own:
            return 0
        return len(own) * sum(1 for _ in self._chosen(claim))

    def _chosen(self, claim: Claim) -> Iterator[tuple[Cell, Technology]]:
        for cell in self._analysis.cells:
            technology = self._technologies.get(cell.target)
            if technology is None or claim.technology not in {"", technology}:
                continue
            if claim.targets and cell.target not in claim.targets:
                continue
            if claiming.selects(claim, cell.workload):
                yield cell, technology

    def _margin(self, claim: Claim) -> float:
        return self._analysis.margin if claim.margin is None else 1 + claim.margin

    def _is_usual(self, claim: Claim) -> bool:
        """Return whether a claim has the margin and the level at which cells are judged anyway."""
        return self._margin(claim) == self._analysis.margin and claim.level == _USUAL

    def _unmeasured_answers(self, claim: Claim) -> Iterator[claiming.CellFacts]:
        """Yield the cells with wrong answers alone: they have no value, and refute a claim."""
        known = {(cell.target, cell.workload) for cell in self._analysis.cells}
        for target, workload in sorted(self._wrong - known):
            technology = self._technologies.get(target)
            if technology is not None and claim.technology in {"", technology}:
                yield claiming.CellFacts(
                    target=target,
                    technology=technology,
                    workload=workload,
                    status=Status.UNPROVEN,
                    checks_equal=False,
                )

    def _references(self, claim: Claim) -> list[TargetName]:
        """Return the targets that the claim compares with: one by name, or those of a
        technology.
        """
        if claim.reference in {"native", self._analysis.reference}:
            return [self._analysis.reference]
        return [
            name
            for name in self._analysis.targets
            if claim.reference in {name, self._technologies.get(name)}
        ]

    def _cell(
        self, claim: Claim, cell: Cell, technology: Technology, reference: TargetName
    ) -> claiming.CellFacts | None:
        judged = self._verdict(claim, cell, reference)
        if judged is None:
            return None
        verdict, margin, needed = judged
        estimate = verdict.estimate
        value, low, high = self._seconds(claim, cell)
        checked = (cell.target, cell.workload) not in self._wrong if cell.inside else None
        host = self._analysis.host_check(cell.workload, cell.target, reference)
        return claiming.CellFacts(
            target=cell.target,
            technology=technology,
            workload=cell.workload,
            metric=cell.metric.name,
            status=verdict.status,
            reference=reference,
            ratio=estimate.ratio if estimate else None,
            interval=estimate.interval if estimate else None,
            sided=estimate.interval if estimate else None,
            margin=margin,
            seen=None if host is None else host.possible,
            is_hidden=host is not None and host.is_hidden,
            value_seconds=value,
            lower_seconds=low,
            upper_seconds=high,
            checks_equal=checked,
            is_unproven=any(doubt.blocks and doubt.code not in _NOISE for doubt in verdict.doubts),
            has_too_few=verdict.status is Status.UNPROVEN
            and any(doubt.code in FEW_CODES for doubt in verdict.doubts),
            advice=_advice(verdict, needed),
        )

    def _verdict(
        self, claim: Claim, cell: Cell, reference: TargetName
    ) -> tuple[Verdict, float, int | None] | None:
        """Return the verdict at the claim's margin, that margin, and blocks that would decide."""
        margin = self._margin(claim)
        usual = self._is_usual(claim)
        compares = claim.kind in _COMPARING
        if not compares or (usual and reference == self._analysis.reference):
            return cell.verdict, self._analysis.margin, cell.needed
        # A cell that left early was looked at often: no level below that of its leaving holds.
        least = self._analysis.level(cell.workload, cell.target, reference)
        found = self._analysis.contrast(
            cell.workload,
            cell.target,
            reference=reference,
            margin=margin,
            level=max(least, 2 * claim.level - 1),
        )
        return None if found is None else (found[0], margin, found[1])

    def _seconds(self, claim: Claim, cell: Cell) -> tuple[float, float | None, float | None]:
        """Return the quantile that the claim bounds, and its bounds."""
        is_median = claim.quantile == _MEDIAN
        if (is_median and claim.level == _USUAL) or claim.kind is not ClaimKind.BOUND:
            return (cell.value, *cell.bounds)
        values, blocks = self._analysis.values(cell.workload, cell.target), None
        if not is_median:  # of single values, as in the report: a median of a block has no tail
            singles = self._analysis.singles(cell.workload, cell.target)
            values = singles["amount"].to_numpy(float)
            blocks = singles["block"].to_numpy(np.int64)
        bounds = quantile_bounds(
            values,
            self._analysis.uncertainty(cell.workload, cell.target),
            quantile=claim.quantile,
            confidence=claim.level,
            blocks=blocks,
        )
        return (float(np.quantile(values, claim.quantile)), *bounds)


def _advice(verdict: Verdict, needed: int | None) -> str:
    """Return what would decide an open cell."""
    if verdict.status not in {Status.INCONCLUSIVE, Status.UNPROVEN}:
        return ""
    if needed is not None and not any(doubt.blocks for doubt in verdict.doubts):
        return f"about {needed} blocks would decide"
    blocking = [doubt for doubt in verdict.doubts if doubt.blocks]
    return next((doubt.advice for doubt in (*blocking, *verdict.doubts)), "")
