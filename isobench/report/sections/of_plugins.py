"""Sections of plug-ins. A section that does not load, raises, or makes HTML that the page cannot
include is replaced by a sentence that names the plug-in.

An entry point names a `Section`; its template is a file next to the module. isobench writes the
heading, and shows these sections after its own.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from isobench.model.cleaning import cleaned
from isobench.model.errors import SessionError
from isobench.plugins import entry_points, guard
from isobench.plugins.entry_points import Kind, Plugin
from isobench.report.markup import escaped
from isobench.report.sections.lookup import Lookup, look_up
from isobench.report.sections.section import Section

TEMPLATE: Final = "plugin.html.j2"
"""isobench's own template around the template of a plug-in."""
PATIENCE: Final = 30.0
"""Seconds for each step of a section: its view, its Markdown, its part of the page."""
_LONGEST_TITLE: Final = 60
# Characters. Services that show summary.md refuse long ones: GitHub cuts off comments at 64 KiB and
# job summaries at 1 MiB.
_MOST_MARKDOWN: Final = 100_000
_FILE_NAME: Final = re.compile(r"[\w-][\w.-]*", re.ASCII)
_TAG: Final = re.compile(r"<(?!br>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginView:
    """The view of a section of a plug-in, or the reason why there is none."""

    plugin: Plugin
    title: str
    section: Section[Any] | None = None
    """The section of the plug-in, whose template shows `view`. None: it does not load."""
    view: Any = None
    folder: Traversable | None = None
    """The folder with its template."""
    paragraphs: tuple[str, ...] = ()
    fault: str = ""

    @property
    def apology(self) -> str:
        """The sentence that replaces the section; empty where nothing is wrong."""
        return missing(self.plugin, self.fault) if self.fault else ""


def missing(plugin: Plugin, fault: str) -> str:
    """Return the sentence that replaces a section."""
    return cleaned(f"This section is missing: {fault} ({plugin.info.blame}).")


def sections(own: Iterable[Section[Any]]) -> tuple[Section[Any], ...]:
    """Return the sections of plug-ins. They cannot have the anchor of an `own` section."""
    reserved = frozenset(section.anchor for section in own)
    return tuple(map(_guarded, entry_points.announced(Kind.SECTION, reserved).values()))


def load(plugin: Plugin) -> Section[Any]:
    """Return the section of a plug-in. SessionError: it does not load, or is not a section."""
    return plugin.attempt("loading it", guard.LOAD_LIMIT, lambda: _checked(plugin))


def _checked(plugin: Plugin) -> Section[Any]:
    found = plugin.load()
    if not isinstance(found, Section):
        raise TypeError(f"it is {type(found).__name__}, not a Section")
    if found.anchor != plugin.name:
        raise ValueError(f"its anchor is {found.anchor!r}, and its name {plugin.name!r}")
    if not 0 < len(found.title) <= _LONGEST_TITLE:
        raise ValueError(f"its title must have one to {_LONGEST_TITLE} characters")
    if not _FILE_NAME.fullmatch(found.template):
        raise ValueError(f"its template {found.template!r} is no name of a file")
    if not (place := _folder(plugin) / found.template).is_file():
        raise FileNotFoundError(f"there is no template {place}")
    return found


def _folder(plugin: Plugin) -> Traversable:
    """Return the folder of the module that an entry point names."""
    module = importlib.import_module(plugin.point.module)
    if hasattr(module, "__path__"):
        return resources.files(module)
    if module.__package__:
        return resources.files(module.__package__)
    return Path(str(module.__file__)).parent


def _guarded(plugin: Plugin) -> Section[Any]:
    """Return a section that never raises."""
    try:
        inner = load(plugin)
    except SessionError as error:
        title = plugin.name.replace("-", " ").capitalize()
        broken = PluginView(plugin=plugin, title=title, fault=str(error))
        return _section(plugin, title, lambda _: broken)
    return _section(plugin, cleaned(inner.title), lambda found: _view(plugin, inner, found))


def _section(
    plugin: Plugin, title: str, build: Callable[[Lookup], PluginView | None]
) -> Section[PluginView]:
    return Section(
        anchor=plugin.name, title=title, template=TEMPLATE, build=build, markdown=_markdown
    )


def _view(plugin: Plugin, inner: Section[Any], lookup: Lookup) -> PluginView | None:
    title = cleaned(inner.title)
    # A lookup of its own: if the plug-in changes it, other sections are not affected.
    own = look_up(lookup.summary)
    try:
        view = plugin.attempt("build", PATIENCE, lambda: inner.build(own))
        if view is None:
            return None
        paragraphs = plugin.attempt("markdown", PATIENCE, lambda: _paragraphs(inner, view))
    except SessionError as error:
        return PluginView(plugin=plugin, title=title, fault=str(error))
    return PluginView(
        plugin=plugin,
        title=title,
        section=inner,
        view=view,
        folder=_folder(plugin),
        paragraphs=paragraphs,
    )


def _paragraphs(inner: Section[Any], view: object) -> tuple[str, ...]:
    """Return the Markdown of a section, without HTML and control characters.

    TypeError, ValueError: it is not text, or too long.
    """
    paragraphs = []
    room = _MOST_MARKDOWN
    for each in inner.markdown(view):
        if not isinstance(each, str):
            raise TypeError(f"a paragraph is {type(each).__name__}, not a str")
        room -= len(each)
        if room < 0:
            raise ValueError(f"there are more than {_MOST_MARKDOWN:,} characters")
        paragraphs.append(_TAG.sub("&lt;", cleaned(each, longest=None)))
    return tuple(paragraphs)


def _markdown(view: PluginView) -> Iterator[str]:
    paragraphs = (escaped(view.apology),) if view.fault else view.paragraphs
    if paragraphs:
        yield f"## {escaped(view.title)}"
        yield from paragraphs
