"""Builds the view of a run from its summary: all texts of a report, and all positions of drawings.

A section is one module here, one template in reports/templates and one line in SECTIONS. Its module
does all rounding and wording, so that the page, the terminal and the Markdown text agree. The
summary has been checked and cleaned where it was read.
"""

from typing import Any, Final

from isobench.report.sections import header
from isobench.report.sections.call_paths import call_paths
from isobench.report.sections.claims import CLAIMS
from isobench.report.sections.data import DATA
from isobench.report.sections.documents import DOCUMENTS
from isobench.report.sections.environment import ENVIRONMENT
from isobench.report.sections.evidence import EVIDENCE
from isobench.report.sections.figures import percent_text
from isobench.report.sections.gaps import GAPS
from isobench.report.sections.limits import LIMITS
from isobench.report.sections.lookup import Lookup, look_up
from isobench.report.sections.method import METHOD
from isobench.report.sections.overview import overview
from isobench.report.sections.parity import PARITY
from isobench.report.sections.ratios import RATIOS
from isobench.report.sections.section import Part, Report, Section
from isobench.report.sections.since import SINCE
from isobench.report.sections.startup import START_UP
from isobench.report.sections.undecided import UNDECIDED
from isobench.report.sections.variations import VARIATIONS
from isobench.storage.schema import Summary

__all__ = ["SECTIONS", "Lookup", "Report", "Section", "build"]

SECTIONS: Final[tuple[Section[Any], ...]] = (
    DOCUMENTS,
    SINCE,
    RATIOS,
    START_UP,
    UNDECIDED,
    VARIATIONS,
    EVIDENCE,
    LIMITS,
    PARITY,
    CLAIMS,
    GAPS,
    METHOD,
    ENVIRONMENT,
    DATA,
)
"""In the order of the page."""


def build(summary: Summary, sections: tuple[Section[Any], ...] = SECTIONS) -> Report:
    """Return the view of a summary with these sections."""
    lookup = look_up(summary)
    views = ((section, section.build(lookup)) for section in sections)
    return Report(
        title=header.TITLE,
        headline=header.headline(lookup),
        machine=header.machine(lookup),
        answers=header.answers(lookup),
        overview=overview(lookup),
        calls=call_paths(lookup),
        remarks=header.remarks(lookup),
        id=lookup.run.id or "unnamed",
        run=header.run_line(lookup),
        banners=tuple(header.banners(lookup)),
        records=header.records(lookup),
        margin=percent_text(lookup.run.margin),
        level=percent_text(lookup.run.level),
        parts=tuple(
            Part(section=section, view=view) for section, view in views if view is not None
        ),
    )
