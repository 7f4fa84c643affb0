"""Checks the HTML that the template of a plug-in makes, so that it cannot break the page around it.

The template engine has already escaped all values. The HTML of the template itself must consist of
elements for text and pictures, each of them closed.
"""

from html.parser import HTMLParser
from typing import Final

MOST: Final = 1_000_000
"""The most characters of one section."""
_VOID: Final = frozenset({"br", "col", "hr", "wbr"})
# Not among them: scripts, styles, forms, frames and images, since the page is one file that loads
# nothing; h1, h2 and section, which would change the outline of the page.
# fmt: off
_ELEMENTS: Final = _VOID | {
    "a", "abbr", "b", "bdi", "code", "em", "i", "kbd", "mark", "q", "s", "samp", "small", "span",
    "strong", "sub", "sup", "time", "u", "var",
    "caption", "colgroup", "dd", "details", "div", "dl", "dt", "figcaption", "figure", "h3", "h4",
    "h5", "h6", "li", "meter", "ol", "p", "pre", "summary", "table", "tbody", "td", "tfoot", "th",
    "thead", "tr", "ul",
    "circle", "desc", "ellipse", "g", "line", "path", "polygon", "polyline", "rect", "svg", "text",
    "title", "tspan", "use",
}
# fmt: on


class _Checker(HTMLParser):
    """Raises ValueError at the first construct that a section must not contain."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=False)
        self.open: list[str] = []
        # The number of "<" in complete tags. Some versions of Python's parser ignore an incomplete
        # tag at the end: comparing this number with that of all "<" finds it.
        self.seen = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._take(tag, attrs)
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # Browsers read <div/> as an open <div>. Only elements of SVG can end with "/>": see
        # https://html.spec.whatwg.org/multipage/syntax.html#start-tags
        self._take(tag, attrs)
        if tag not in _VOID and "svg" not in self.open:
            raise ValueError(f"<{tag}/> leaves <{tag}> open")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            raise ValueError(f"</{tag}> ends what is not open")
        self.seen += 1

    def handle_comment(self, data: str) -> None:
        raise ValueError(f"a comment does not belong here: {data[:40]}")

    def handle_decl(self, decl: str) -> None:
        raise ValueError(f"a declaration does not belong here: {decl[:40]}")

    def handle_pi(self, data: str) -> None:
        raise ValueError(f"an instruction does not belong here: {data[:40]}")

    def unknown_decl(self, data: str) -> None:
        raise ValueError(f"a declaration does not belong here: {data[:40]}")

    def _take(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen += (self.get_starttag_text() or "").count("<")
        if tag not in _ELEMENTS:
            raise ValueError(f"<{tag}> does not belong here")
        for name, _ in attrs:
            if name.startswith("on"):
                raise ValueError(f"<{tag} {name}> does not belong here")


def checked(html: str) -> str:
    """Return HTML that the page can include. ValueError: it cannot; says why."""
    if len(html) > MOST:
        raise ValueError(f"it has {len(html):,} characters, and {MOST:,} are the most")
    checker = _Checker()
    checker.feed(html)
    checker.close()
    if checker.seen != html.count("<"):
        raise ValueError("a tag is not complete")
    if checker.open:
        raise ValueError(f"<{checker.open[-1]}> is left open")
    return html
