"""The view of a run as one self-contained page."""

import functools
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from isobench.report.sections import Report


def render(view: Report, templates: Path) -> str:
    """Return the page. `templates` is the directory with report.html.j2, its parts and style.css.

    Everything from the view is escaped. A field that a template misspells is an error, not a blank.
    """
    return _environment(templates).get_template("report.html.j2").render(report=view)


@functools.cache
def _environment(templates: Path) -> Environment:
    """Return what compiles the templates, once a process: that takes longer than a page does."""
    return Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
