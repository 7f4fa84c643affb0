"""Sections of other distributions, behind the guard: one that does not load, raises or says
something that no page can hold leaves a sentence in its place, with whose fault it is.

An entry point names a `Section`; its template is a file beside the module. isobench writes the
heading itself, and shows these sections after all of its own.
"""

import importlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Final

from isobench.model.errors import SessionError
from isobench.plugins import entry_points, guard
from isobench.plugins.entry_points import Kind, Plugin
from isobench.report.markup import escaped
from isobench.report.sections.lookup import Lookup, look_up
from isobench.report.sections.section import Section
from isobench.storage.cleaning import cleaned

TEMPLATE: Final = "plugin.html.j2"
"""isobench's own template around a plug-in's."""
PATIENCE: Final = 30.0
"""Seconds within which a section must have made its view, its Markdown, and its part of the page.
"""
_LONGEST_TITLE: Final = 60
_MOST_MARKDOWN: Final = 100_000
"""Characters: services that show summaries refuse long ones."""
_FILE_NAME: Final = re.compile(r"[\w-][\w.-]*", re.ASCII)
_TAG: Final = re.compile(r"<(?!br>)")


@dataclass(frozen=True, slots=True, kw_only=True)
class PluginView:
    """What a section of a plug-in's shows, or why it shows nothing."""

    plugin: Plugin
    title: str
    section: Section[Any] | None = None
    """The plug-in's own; its template shows `view`. None: it does not load."""
    view: Any = None
    folder: Traversable | None = None
    """Where its template is."""
    paragraphs: tuple[str, ...] = ()
    fault: str = ""

    @property
    def apology(self) -> str:
        """A sentence in place of the section; empty where nothing is wrong."""
        return missing(self.plugin, self.fault) if self.fault else ""


def missing(plugin: Plugin, fault: str) -> str:
    """Return the sentence that stands in place of a section."""
    return cleaned(f"This section is missing: {fault} ({plugin.info.blame}).")


def sections(own: Iterable[Section[Any]]) -> tuple[Section[Any], ...]:
    """Return the sections of plug-ins; no name of isobench's `own` can be taken."""
    reserved = frozenset(section.anchor for section in own)
    return tuple(map(_guarded, entry_points.announced(Kind.SECTION, reserved).values()))


def load(plugin: Plugin) -> Section[Any]:
    """Return the section that a plug-in adds. SessionError: it does not load, or is none."""
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


def _view(plugin: Plugin, inner: Section[Any], found: Lookup) -> PluginView | None:
    title = cleaned(inner.title)
    own = look_up(found.summary)  # of its own: what it changes in there spoils nobody else's
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
    """Return its Markdown without HTML, without what controls a terminal, and not too long."""
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
    said = (escaped(view.apology),) if view.fault else view.paragraphs
    if said:
        yield f"## {escaped(view.title)}"
        yield from said
