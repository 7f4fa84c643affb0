"""The view of a run: each string that a report shows and each place that it draws, from a summary.

A section is one module here, one template in reports/templates and one line in SECTIONS. All
rounding and wording of a section happens in its module, so that the page, the terminal and the
Markdown text say the same. A summary from outside has been checked and cleaned where it was read.
"""

from typing import Any, Final

from isobench.report.sections import above
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
from isobench.report.sections.parity import PARITY
from isobench.report.sections.ratios import RATIOS
from isobench.report.sections.section import Part, Report, Section
from isobench.report.sections.startup import START_UP
from isobench.report.sections.variations import VARIATIONS
from isobench.storage.schema import Summary

__all__ = ["SECTIONS", "Lookup", "Report", "Section", "build"]

SECTIONS: Final[tuple[Section[Any], ...]] = (
    DOCUMENTS,
    RATIOS,
    START_UP,
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
    """Return what a report of this summary shows, in these sections."""
    found = look_up(summary)
    views = ((section, section.build(found)) for section in sections)
    return Report(
        headline=above.headline(found),
        remarks=above.remarks(found),
        id=found.run.id or "unnamed",
        run=above.run_line(found),
        banners=tuple(above.banners(found)),
        records=above.records(found),
        margin=percent_text(found.run.margin),
        level=percent_text(found.run.level),
        parts=tuple(
            Part(section=section, view=view) for section, view in views if view is not None
        ),
    )
