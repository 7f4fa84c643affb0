"""The outcomes and how each is marked: a slug for shape and colour, a word, an ASCII sign."""

from typing import Final

from isobench.model import ClaimStanding, Standing
from isobench.report.sections.shapes import Mark

MARKS: Final = {
    mark.kind: mark
    for mark in (
        Mark(kind=Standing.NEAR_NATIVE, word="near-native", sign="="),
        Mark(kind=Standing.SLOWER, word="slower", sign=">"),
        Mark(kind=Standing.FASTER, word="faster", sign="<"),
        Mark(kind=Standing.INCONCLUSIVE, word="inconclusive", sign="?"),
        Mark(kind=Standing.UNPROVEN, word="unproven", sign="!"),
        Mark(kind="few", word="too few blocks", sign="\N{HORIZONTAL ELLIPSIS}"),
        Mark(kind="mixed", word="mixed", sign="~"),
        Mark(kind="gap", word="no number", sign="-"),
        Mark(kind="reference", word="reference", sign=""),
    )
}
FEW_CODES: Final = frozenset({"few-blocks", "no-estimate", "quick"})
"""Doubts of cells that lack blocks for a verdict, and nothing else."""
AGREEMENTS: Final = {
    ClaimStanding.SUPPORTED: Mark(kind="supported", word="agrees", sign="+"),
    ClaimStanding.REFUTED: Mark(kind="refuted", word="disagrees", sign="x"),
    ClaimStanding.INCONCLUSIVE: Mark(kind="undecided", word="cannot tell", sign="?"),
    ClaimStanding.UNTESTED: Mark(kind="untested", word="not tested", sign="-"),
}
IN_PART: Final = Mark(kind="mixed", word="in part", sign="~")
CLAIM_MARKS: Final = {
    standing: Mark(kind=mark.kind, word=standing.value, sign=mark.sign)
    for standing, mark in AGREEMENTS.items()
}
KEPT: Final = Mark(kind="supported", word="kept", sign="+")
BROKEN: Final = Mark(kind="refuted", word="not kept", sign="x")
