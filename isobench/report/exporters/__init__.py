"""The exporters: other formats in which the results of a run can be written.

A new exporter is one module here and one line in EXPORTERS. It is a function that takes an
`Outcome` and returns the content of a file, a text mostly.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from isobench.report.write import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Exporter:
    """A format in which the results of a run can be written."""

    name: str
    """The end of its flag: --export-NAME."""
    suffix: str
    """The usual suffix of such files."""
    summary: str
    """The help text of its option."""
    # A name and not the function itself: importing all exporters would slow down every command.
    function: str
    """The function, as "package.module:function"."""

    def __call__(self, outcome: "Outcome") -> str | bytes:
        """Return the content of the file."""
        module, _, name = self.function.partition(":")
        export: Callable[[Outcome], str | bytes] = getattr(importlib.import_module(module), name)
        return export(outcome)


def _exporter(name: str, suffix: str, summary: str, function: str) -> tuple[str, Exporter]:
    place = f"isobench.report.exporters.{function}"
    return name, Exporter(name=name, suffix=suffix, summary=summary, function=place)


EXPORTERS: Final = dict((
    _exporter("json", ".json", "Copy of summary.json (- for standard output).", "copies:summary"),
    _exporter("csv", ".csv", "All samples as CSV.", "samples:csv"),
    _exporter("markdown", ".md", "Copy of summary.md.", "copies:markdown"),
    _exporter("html", ".html", "Copy of report.html.", "copies:page"),
    _exporter("junit", ".xml", "Cells and claims as JUnit XML.", "junit:export"),
    _exporter("openmetrics", ".prom", "Ratios and verdicts as OpenMetrics text.",
              "openmetrics:export"),
    _exporter("pytest-benchmark", ".json", "Times as JSON that `pytest-benchmark compare` reads.",
              "pytest_benchmark:export"),
    _exporter("hyperfine", ".json", "Times as hyperfine's JSON.", "hyperfine:export"),
    _exporter("github-action-benchmark", ".json", "Ratios for github-action-benchmark"
              " (customSmallerIsBetter).", "continuous:github_action_benchmark"),
    _exporter("bencher", ".json", "Ratios in Bencher Metric Format.", "continuous:bencher"),
    _exporter("parquet", ".parquet", "All samples as Parquet (needs isobench[history]).",
              "parquet:export"),
))  # fmt: skip
"""All exporters by name, in the order of the help."""
