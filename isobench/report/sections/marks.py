"""The marks of verdicts, of claims and of expectations."""

from dataclasses import dataclass, replace
from typing import Final

from isobench.model import ClaimStatus, Status
from isobench.model.wording import TOO_FEW, outcome_text


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """How an outcome is shown. Shape, word and sign say the same as the colour does."""

    kind: str
    """The name of its shape (mark-KIND in _marks.html.j2) and of its colour (is-KIND in CSS)."""
    word: str
    sign: str
    """One character, for tables in a terminal."""


MARKS: Final = {
    mark.kind: mark
    for mark in (
        Mark(kind=Status.NEAR_NATIVE, word="near-native", sign="="),
        Mark(kind=Status.SLOWER, word="slower", sign=">"),
        Mark(kind=Status.FASTER, word="faster", sign="<"),
        Mark(kind=Status.INCONCLUSIVE, word="inconclusive", sign="?"),
        Mark(kind=Status.UNPROVEN, word="unproven", sign="!"),
        Mark(kind="few", word=TOO_FEW, sign="\N{HORIZONTAL ELLIPSIS}"),
        Mark(kind="mixed", word="mixed", sign="~"),
        Mark(kind="gap", word="no number", sign="-"),
        Mark(kind="reference", word="reference", sign=""),
    )
}


def of_metric(mark: Mark) -> Mark:
    """Return the mark of an outcome for a metric that is not time: better and worse."""
    words = {str(status): outcome_text(status, "") for status in Status}
    return replace(mark, word=words.get(mark.kind, mark.word))


AGREEMENTS: Final = {
    ClaimStatus.SUPPORTED: Mark(kind="supported", word="agrees", sign="+"),
    ClaimStatus.REFUTED: Mark(kind="refuted", word="disagrees", sign="x"),
    ClaimStatus.INCONCLUSIVE: Mark(kind="undecided", word="cannot tell", sign="?"),
    ClaimStatus.UNTESTED: Mark(kind="untested", word="not tested", sign="-"),
}
IN_PART: Final = Mark(kind="mixed", word="in part", sign="~")
CLAIM_MARKS: Final = {
    status: Mark(kind=mark.kind, word=status.value, sign=mark.sign)
    for status, mark in AGREEMENTS.items()
}
MET: Final = Mark(kind="supported", word="met", sign="+")
NOT_MET: Final = Mark(kind="refuted", word="not met", sign="x")
