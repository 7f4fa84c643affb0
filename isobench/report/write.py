"""Answer from the records of a run: write its summary, its Markdown and its page."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from isobench.config import paths
from isobench.model import (
    Claim,
)

if TYPE_CHECKING:
    pass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a run has come to."""

    folder: Path
    source: Path
    """Where its records are: `folder`, unless it was answered again from elsewhere."""
    summary: Mapping[str, Any]
    interrupted: bool
    timed_out: bool


def answer_again(source: Path, target: Path, added: Sequence[Claim] = ()) -> Outcome:
    """Answer from the records of an earlier run, a folder or a zip; write into `target`.

    The claims in `added` are judged besides the documents' and the run's own.
    """
    from isobench.storage import run_folder  # noqa: PLC0415 - as above

    summary = answer(
        source,
        lambda name, value: run_folder.write_document(target / name, value),
        lambda name, content: run_folder.write_text(target / name, content),
        added,
    )
    return Outcome(
        folder=target, source=source, summary=summary, interrupted=False, timed_out=False
    )


def answer(
    folder: Path,
    document: Callable[[str, object], None],
    text: Callable[[str, str], None],
    added: Sequence[Claim] = (),
) -> Mapping[str, Any]:
    """Write summary.json, summary.md and report.html of a run; return the summary."""
    from isobench.analysis import summaries  # noqa: PLC0415 - as above
    from isobench.report import html, markdown, sections  # noqa: PLC0415 - as above
    from isobench.storage import run_folder  # noqa: PLC0415 - as above

    run = run_folder.load(folder)
    summary = summaries.summarise(run, summaries.claims_of(run, added))
    document("summary.json", summary)
    decoded: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(summary))
    seen = sections.build(decoded)
    text("summary.md", markdown.markdown(seen))
    text("report.html", html.render(seen, paths.shared("reports") / "templates"))
    return decoded
