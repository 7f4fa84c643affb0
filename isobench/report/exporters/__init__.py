"""What a run can be written as besides its own files.

A new exporter is one module here and one line in EXPORTERS: a function from an `Outcome` to the
text of a file. It is named by module and function and imported when it is used, so that
`isobench --help` does not wait for it.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isobench.report.write import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A kind of file that a run can be written as."""

    name: str
    """The end of its flag: --export-NAME."""
    suffix: str
    """How the names of such files usually end."""
    summary: str
    """What the help says of it."""
    function: str
    """Where it is: "package.module:function"."""

    def __call__(self, outcome: "Outcome") -> str:
        """Return the text of the file."""
        module, _, name = self.function.partition(":")
        export: Callable[[Outcome], str] = getattr(importlib.import_module(module), name)
        return export(outcome)


def _exporter(name: str, suffix: str, summary: str, function: str) -> tuple[str, Exporter]:
    place = f"isobench.report.exporters.{function}"
    return name, Exporter(name=name, suffix=suffix, summary=summary, function=place)


EXPORTERS: Final = dict((
    _exporter("json", ".json", "Copy of summary.json (- for standard output).", "copies:summary"),
    _exporter("csv", ".csv", "All samples as CSV.", "samples:csv"),
    _exporter("markdown", ".md", "Copy of summary.md.", "copies:markdown"),
    _exporter("html", ".html", "Copy of report.html.", "copies:page"),
    _exporter("junit", ".xml", "Cells and claims as JUnit's XML.", "junit:export"),
    _exporter("openmetrics", ".prom", "Ratios and standings as OpenMetrics text.",
              "openmetrics:export"),
))  # fmt: skip
"""All exporters by name, in the order in which help lists them."""
