"""A section of a report, and the report that consists of sections."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

from isobench.report.sections.lookup import Lookup
from isobench.report.sections.overview import Overview
from isobench.report.sections.values import Fact

_View = TypeVar("_View")


def _nothing(_: object) -> Iterator[str]:
    yield from ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Section(Generic[_View]):
    """A section: the function that builds its view, and the template that shows the view.

    The template gets the view as `view` and the whole report as `report`. Texts of a view are plain
    text: the page and `markdown` escape them.
    """

    anchor: str
    title: str
    """The title in the list of contents."""
    template: str
    """The name of a file in reports/templates."""
    build: Callable[[Lookup], _View | None]
    """Return the view of a run; None: the section is left out."""
    markdown: Callable[[_View], Iterable[str]] = _nothing
    """Return the paragraphs for summary.md; most sections have none."""

    def of(self, report: "Report") -> _View | None:
        """Return the view of this section in a report; None where it is left out."""
        for part in report.parts:
            if part.section is self:
                return cast("_View", part.view)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section with its view in one report."""

    section: Section[Any]
    view: Any

    def markdown(self) -> Iterable[str]:
        """Return the paragraphs for summary.md."""
        return self.section.markdown(self.view)


@dataclass(frozen=True, slots=True, kw_only=True)
class Banner:
    """A warning at the top of a report."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything that a report shows: its header, and its sections in order."""

    title: str
    headline: str
    """All answers in one paragraph."""
    machine: tuple[Fact, ...]
    """The facts about the machine that every figure depends on."""
    answers: tuple[str, ...]
    """The headline, a sentence for each question."""
    overview: Overview | None
    """None: the summary has none."""
    calls: str
    """What serves system calls in each target; empty: no target has figures for them."""
    remarks: str
    """Sentences on what is missing and that the machine was busy; may be empty."""
    id: str
    run: tuple[Fact, ...]
    """The facts that identify the run."""
    banners: tuple[Banner, ...]
    records: str
    """The file name of the records, safe as a relative link."""
    margin: str
    """The margin of near-native, in percent."""
    level: str
    """The confidence of intervals, in percent."""
    parts: tuple[Part, ...]
