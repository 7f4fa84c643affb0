"""The answers of a run, written beside its records: summary.json, summary.md, report.html."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isobench.config import paths

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.storage.schema import Summary

MARKDOWN: Final = "summary.md"
PAGE: Final = "report.html"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run has come to."""

    folder: Path
    source: Path
    """Where its records are: `folder`, unless it was answered again from elsewhere."""
    summary: "Summary"
    interrupted: bool = False
    timed_out: bool = False


def answer(source: Path, target: Path, added: "Sequence[Claim]" = ()) -> Outcome:
    """Answer from the records of a run, a folder or a zip, and write the answers into `target`.

    The claims in `added` are judged besides the documents' and the run's own. UsageError: the run
    is damaged. OSError: `target` cannot be written to.
    """
    # What follows needs pandas and SciPy; whoever imports this module may only want `Outcome`.
    from isobench.analysis import summary as analysis  # noqa: PLC0415 - see above
    from isobench.report import html, markdown, sections  # noqa: PLC0415 - see above
    from isobench.report.sections import of_plugins  # noqa: PLC0415 - see above
    from isobench.storage import documents, reader  # noqa: PLC0415 - see above

    run = reader.load(source)
    summary = analysis.summarise(run, analysis.claims_of(run, added))
    documents.write_document(target / documents.SUMMARY, summary)
    own = sections.SECTIONS
    view = sections.build(summary, (*own, *of_plugins.sections(own)))
    documents.write_text(target / MARKDOWN, markdown.markdown(view))
    documents.write_text(target / PAGE, html.render(view, paths.shared("reports") / "templates"))
    return Outcome(folder=target, source=source, summary=summary)
