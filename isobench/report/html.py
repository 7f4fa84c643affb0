"""Renders the view of a run as one self-contained page."""

import base64
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, FunctionLoader, StrictUndefined

from isobench.model.cleaning import cleaned
from isobench.model.errors import SessionError
from isobench.report import fragment
from isobench.report.sections import Report
from isobench.report.sections.of_plugins import PATIENCE, PluginView, missing


@dataclass(frozen=True, slots=True)
class Fragment:
    """The HTML of a plug-in's template, or the sentence that replaces it."""

    html: str
    fault: str = ""


def render(view: Report, templates: Path) -> str:
    """Return the page. `templates` is the folder with report.html.j2, its parts and style.css.

    A template of a plug-in may fail: then a sentence is shown in its place.
    """
    environment = _environment(templates)
    fragments = {
        part.section.anchor: _fragment(environment, view, part.view)
        for part in view.parts
        if isinstance(part.view, PluginView)
    }
    page = environment.get_template("report.html.j2")
    script = (templates / "report.js").read_text(encoding="utf-8")
    return page.render(report=view, fragments=fragments, script=script, hash=policy_hash(script))


def policy_hash(script: str) -> str:
    """Return the hash by which a page's policy allows a script, and no other."""
    digest = hashlib.sha256(script.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def rendered(templates: Path, name: str, **values: object) -> str:
    """Return a page of its own, from a template in the folder `templates`."""
    return _environment(templates).get_template(name).render(values)


@functools.cache
def _environment(templates: Path) -> Environment:
    # Cached, because compiling the templates takes longer than rendering a page.
    made = Environment(
        loader=FileSystemLoader(templates),
        # The texts of a view are plain text, and may come from a stranger's run.
        autoescape=True,
        # A misspelt field in a template is an error. By default it would be an empty text.
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["arrows"] = _arrows
    return made


def _arrows(text: str) -> str:
    """Return a text with real arrows, which no line break can take apart."""
    return text.replace(" -> ", "\N{NO-BREAK SPACE}\N{RIGHTWARDS ARROW} ")


def _fragment(environment: Environment, report: Report, view: PluginView) -> Fragment:
    if view.fault or view.section is None or view.folder is None:
        return Fragment("", view.apology)
    # The plug-in's own templates come first, so that their names need not differ from isobench's.
    loader = ChoiceLoader([FunctionLoader(_reader(view.folder)), environment.loader])  # type: ignore[list-item]
    own, template = environment.overlay(loader=loader), view.section.template

    def make() -> str:
        marks = environment.get_template("_marks.html.j2").make_module({"report": report})
        made = own.get_template(template).render(view=view.view, report=report, marks=marks)
        return fragment.checked(cleaned(made, longest=None))

    try:
        return Fragment(view.plugin.attempt(f"its template {template}", PATIENCE, make))
    except SessionError as error:
        return Fragment("", missing(view.plugin, str(error)))


def _reader(folder: Traversable) -> Callable[[str], str | None]:
    """Return a function that reads a template in a folder; it returns None for other names."""

    def read(name: str) -> str | None:
        place = folder / name
        inside = "/" not in name and "\\" not in name
        return place.read_text("utf-8") if inside and place.is_file() else None

    return read
