"""The section Claims: the documents' sentences and the user's claims, and their status."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isobench.model import ClaimStatus
from isobench.model.wording import NO_TEST, joined
from isobench.report.markup import escaped, items, quote
from isobench.report.sections.lookup import Lookup, class_title
from isobench.report.sections.marks import CLAIM_MARKS, Mark
from isobench.report.sections.section import Section
from isobench.storage.schema import ClaimResult, PublishedFigure

_ORDER: Final = (
    ClaimStatus.REFUTED,
    ClaimStatus.SUPPORTED,
    ClaimStatus.INCONCLUSIVE,
    ClaimStatus.UNTESTED,
)
_MACHINE: Final = "virtual machine"
# The origin of the documents' claims: the file reports/claims.toml. Summaries of older versions
# have no origins.
_SHIPPED: Final = frozenset({"", "claims.toml"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimAxis:
    """The status of a claim in one class of workloads."""

    name: str
    mark: Mark


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedView:
    """A figure that others have published."""

    figure: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimView:
    """A claim, of the documents or of the user, and its status."""

    id: str
    quote: str
    sentence: str
    mark: Mark
    axes: tuple[ClaimAxis, ...]
    change: str
    """What would change the status; empty: unknown."""
    published: tuple[PublishedView, ...]
    own: bool
    """Whether it is the user's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims of a run."""

    tested: tuple[ClaimView, ...]
    """Refuted claims first, then supported and inconclusive ones."""
    untested: tuple[ClaimView, ...]
    counts: str
    """The number of claims by status, in words."""
    machines: int
    """How many of the untested need a virtual machine, and nothing else."""
    without_test: int
    """How many of them isobench cannot test yet."""

    @property
    def all(self) -> tuple[ClaimView, ...]:
        """All claims, the tested ones first."""
        return (*self.tested, *self.untested)


def claims(lookup: Lookup) -> Claims:
    """Return the claims that were judged on the run."""
    views = {status: [] for status in _ORDER}  # type: dict[ClaimStatus, list[ClaimView]]
    for claim in lookup.claims.values():
        views[claim.status].append(_view(claim))
    untested = views.pop(ClaimStatus.UNTESTED)
    tested = [view for some in views.values() for view in some]
    return Claims(
        tested=tuple(tested),
        untested=tuple(untested),
        counts=claim_counts([*tested, *untested]),
        machines=sum(_MACHINE in one.change for one in untested if NO_TEST not in one.sentence),
        without_test=sum(NO_TEST in one.sentence for one in untested),
    )


def _view(claim: ClaimResult) -> ClaimView:
    axes = tuple(
        ClaimAxis(name=class_title(name), mark=CLAIM_MARKS[status])
        for name, status in claim.axes.items()
    )
    return ClaimView(
        id=claim.id,
        quote=claim.quote,
        sentence=claim.sentence,
        mark=CLAIM_MARKS[claim.status],
        axes=axes if len(axes) > 1 else (),
        change=claim.change,
        published=tuple(map(_published, claim.published)),
        own=claim.origin not in _SHIPPED,
    )


def _published(one: PublishedFigure) -> PublishedView:
    about = f" ({one.conditions})" if one.conditions else ""
    return PublishedView(
        figure=f"{one.subject}, {one.measured}: {one.figure}{about}",
        source=one.source if one.opened else f"{one.source}, cited by others",
    )


def claim_counts(views: Iterable[ClaimView]) -> str:
    """Return the number of claims by status, in words; empty where there are none."""
    counts = Counter(view.mark.word for view in views)
    return joined(f"{counts[word]} {word}" for word in _ORDER if counts[word])


def _markdown(view: Claims) -> Iterator[str]:
    if not view.all:
        return
    yield f"## Claims: {view.counts}"
    if view.tested:
        yield items(
            f"**{claim.mark.word}** {quote(claim.quote)}: {escaped(claim.sentence)}"
            for claim in view.tested
        )


CLAIMS: Final = Section(
    anchor="claims",
    title="Claims",
    template="claims.html.j2",
    build=claims,
    markdown=_markdown,
)
