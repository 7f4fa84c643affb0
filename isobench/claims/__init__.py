"""Claims: sentences as data, and their status in one run. Pure."""

from isobench.claims.judging import CellFacts, TargetFacts, judge, selects
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
    "selects",
    "to_table",
]
