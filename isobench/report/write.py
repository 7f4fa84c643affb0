"""Writes the summary and the reports of a run: summary.json, summary.md, report.html."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from isobench.config import bounded, held, paths
from isobench.model import commands
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from isobench.model import Claim
    from isobench.storage.reader import Run
    from isobench.storage.schema import Summary

MARKDOWN: Final = "summary.md"
PAGE: Final = "report.html"
MOST_REPORT: Final = 1 << 30
"""Bytes of a report that is exported."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The result of a run."""

    folder: Path
    """The folder with the summary and the reports."""
    source: Path
    """The folder or zip with the records; mostly the same as `folder`."""
    summary: "Summary"
    interrupted: bool = False
    timed_out: bool = False
    claims: "tuple[Claim, ...]" = ()
    """The user's own claims, which were judged as well."""
    resume: str = ""
    """The command that continues the run; empty: it is complete, or nothing was planned."""
    held_folder: held.Folder | None = field(default=None, compare=False, repr=False)
    """`folder`, as it was held when it was written; None: its path is used."""

    @property
    def moved(self) -> str:
        """That the path of `folder` leads elsewhere now, in words; empty: it does not."""
        return "" if self.held_folder is None else self.held_folder.moved()

    def run(self) -> "Run":
        """Read the records again. UsageError as in `reader.load`."""
        from isobench.storage import reader  # noqa: PLC0415 - as in `answer`

        return reader.load(
            self.source, folder=self.held_folder if self.source == self.folder else None
        )

    def text(self, name: str) -> str:
        """Return one of the files that were written. OSError: it cannot be read."""
        most, hint = MOST_REPORT, f"isobench report {commands.path(self.source)}"
        if self.held_folder is None:
            return bounded.read(self.folder / name, most=most, hint=hint).decode()
        return self.held_folder.read(name, most=most, hint=hint).decode()


def answer(
    source: Path,
    target: Path,
    added: "Sequence[Claim]" = (),
    *,
    run: "Run | None" = None,
    folder: held.Folder | None = None,
) -> Outcome:
    """Analyse the records of a run, a folder or a zip, and write summary and reports into `target`.

    The claims in `added` are judged as well as the documents' and the run's own. `run` is what was
    read of `source`; it is read here where it is None. `folder` is the folder `target` where it is
    held already. UsageError: the run is damaged, or `target` cannot be written.
    """
    # These modules import pandas and SciPy, which is slow. Modules that need only `Outcome` import
    # this one, too.
    from isobench.analysis import summary as analysis  # noqa: PLC0415 - see above
    from isobench.storage import documents, reader  # noqa: PLC0415 - see above

    folder = folder or held.writable(target)
    run = run or reader.load(source, folder=folder if source == target else None)
    # The records may be those of an earlier version, or of somebody else: all that is rendered and
    # exported is without secrets, whatever they hold.
    summary = analysis.summarise(run, analysis.claims_of(run, added)).redacted()
    # The summary is written first: if rendering fails, the results are not lost.
    with _named(source, target):
        folder.replace(documents.SUMMARY, documents.written(summary).encode())
        for name, text in rendered(summary).items():
            folder.replace(name, text.encode())
    return Outcome(
        folder=target,
        source=source,
        summary=summary,
        claims=tuple(added),
        resume=run.continuing_command,
        held_folder=folder,
    )


@contextlib.contextmanager
def _named(source: Path, target: Path) -> Iterator[None]:
    """Say what becomes of a run whose report cannot be written into `target`: UsageError."""
    try:
        yield
    except OSError as error:
        # Any other file is one of isobench's own: another folder would not help.
        if not Path(str(error.filename)).is_relative_to(target):
            raise
        raise UsageError(
            f"{error.filename}: {error.strerror or error}",
            hint="what was measured is kept: make room, or name another folder:"
            f" isobench report {commands.path(source)} --output ELSEWHERE",
        ) from None


def rendered(summary: "Summary") -> Mapping[str, str]:
    """Return the reports of a summary without secrets, by the names of their files."""
    from isobench.report import html, markdown, sections  # noqa: PLC0415 - as above
    from isobench.report.sections import of_plugins  # noqa: PLC0415 - as above

    own = sections.SECTIONS
    view = sections.build(summary, (*own, *of_plugins.sections(own)))
    templates = paths.shared("reports") / "templates"
    return {MARKDOWN: markdown.markdown(view), PAGE: html.render(view, templates)}
