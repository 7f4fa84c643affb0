"""The view of a run as one self-contained page."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from isobench.report.view import Report


def render(view: Report, templates: Path) -> str:
    """Return the page. `templates` is the directory with report.html.j2, its parts and style.css.

    Everything from the view is escaped. A field that a template misspells is an error, not a blank.
    """
    environment = Environment(
        loader=FileSystemLoader(templates),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(report=view)
