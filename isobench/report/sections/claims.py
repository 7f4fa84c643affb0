"""The documents' sentences and how each stands after this run."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, Final

from isobench.model import ClaimStatus
from isobench.report.sections.marks import CLAIM_MARKS
from isobench.report.sections.run import Run, class_title
from isobench.report.sections.shapes import Axis, ClaimView, Mark, PublishedView
from isobench.report.sections.values import clean, items_of, listed, mapping_of

_CLAIM_ORDER: Final = (
    ClaimStatus.REFUTED,
    ClaimStatus.SUPPORTED,
    ClaimStatus.INCONCLUSIVE,
    ClaimStatus.UNTESTED,
)


def claim_views(run: Run) -> tuple[ClaimView, ...]:
    """Return the claims, contradicted ones first: they are what a reader cannot get elsewhere."""
    found = [_claim(item) for item in run.claims.values()]
    order = {CLAIM_MARKS[status].word: place for place, status in enumerate(_CLAIM_ORDER)}
    return tuple(sorted(found, key=lambda claim: order[claim.mark.word]))


def _claim_mark(spelled: object) -> Mark:
    known = {status.value: mark for status, mark in CLAIM_MARKS.items()}
    return known.get(clean(spelled), CLAIM_MARKS[ClaimStatus.INCONCLUSIVE])


def _claim(item: Mapping[str, Any]) -> ClaimView:
    axes = tuple(
        Axis(
            name=class_title(clean(name)),
            mark=_claim_mark(status),
            text="",
            agreement=_claim_mark(status),
        )
        for name, status in mapping_of(item.get("axes")).items()
    )
    return ClaimView(
        id=clean(item.get("id")),
        quote=clean(item.get("quote")),
        sentence=clean(item.get("sentence")),
        mark=_claim_mark(item.get("standing")),
        axes=axes if len(axes) > 1 else (),
        change=clean(item.get("change")),
        published=tuple(map(_published, items_of(item.get("published")))),
        own=clean(item.get("origin")) not in {"", "claims.toml"},
    )


def _published(item: Mapping[str, Any]) -> PublishedView:
    subject, measured, figure = (clean(item.get(key)) for key in ("subject", "measured", "figure"))
    conditions = clean(item.get("conditions"))
    told = "" if item.get("opened") else ", as told by others"
    about = f" ({conditions})" if conditions else ""
    return PublishedView(
        figure=f"{subject}, {measured}: {figure}{about}", source=clean(item.get("source")) + told
    )


def claim_counts(claims: Iterable[ClaimView]) -> str:
    """Return how many claims stand how, in words; empty text for none."""
    counts = Counter(claim.mark.word for claim in claims)
    return listed(f"{counts[word]} {word}" for word in _CLAIM_ORDER if counts[word])
