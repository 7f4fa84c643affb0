"""Claims: sentences as data, and what one run says about them. Pure."""

from isobench.claims.judging import CellFacts, TargetFacts, judge
from isobench.claims.published import load_published
from isobench.claims.reading import load, load_file, of_table, to_table

__all__ = [
    "CellFacts",
    "TargetFacts",
    "judge",
    "load",
    "load_file",
    "load_published",
    "of_table",
    "to_table",
]
