"""What a section of a report is, and the report that is made of them."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from isobench.report.sections.lookup import Lookup
from isobench.report.sections.values import Fact

_View = TypeVar("_View")


def _nothing(_: object) -> Iterator[str]:
    yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Generic[_View]):
    """A part of a report: how what it shows is made, and the template that shows it.

    The template gets its view as `view` and the whole report as `report`. All text of a view is
    plain; the page and `markdown` escape it.
    """

    anchor: str
    title: str
    """As the list of contents has it."""
    template: str
    build: Callable[[Lookup], _View | None]
    """None: it has nothing to say of this run, and is left out."""
    markdown: Callable[[_View], Iterable[str]] = _nothing
    """Its paragraphs in summary.md; most have none."""

    def of(self, report: "Report") -> _View | None:
        """Return what the section shows in a report; None where it is left out."""
        for part in report.parts:
            if part.section is self:
                return cast("_View", part.view)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section as it stands in one report."""

    section: Section[Any]
    view: Any

    def markdown(self) -> Iterable[str]:
        """Return its paragraphs in summary.md."""
        return self.section.markdown(self.view)


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """A warning above everything else."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report shows: what stands above all, and its sections in order."""

    headline: str
    remarks: str
    """What is missing, and that the machine was busy; empty where nothing is to be said."""
    id: str
    run: tuple[Fact, ...]
    banners: tuple[Banner, ...]
    records: str
    """The file name of the raw records, safe as a relative link."""
    margin: str
    level: str
    """What counts as near-native and the confidence of intervals, in percent."""
    parts: tuple[Part, ...]
