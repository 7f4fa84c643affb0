"""Facts as texts, clipped where they are long."""

from dataclasses import dataclass
from typing import Final

from isobench.model.wording import NOTHING
from isobench.storage.schema import HostFact

CLIP: Final = 180
"""The most characters of a text in a report."""
# The most characters of its tooltip on the page.
_FULL: Final = 4000
_LINES: Final = str.maketrans({"\n": r"\n", "\t": r"\t"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """A text that may be long."""

    shown: str
    full: str = ""
    """The whole text where `shown` is clipped; else empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A value with a label."""

    label: str
    value: Value
    source: str = ""
    """Where the value was read, for example "/proc/self/status"."""


def value_of(value: HostFact, absent: str = NOTHING, *, clip: int = CLIP) -> Value:
    """Return a fact as one line, cut to `clip` characters; `absent` where there is none."""
    if isinstance(value, bool):
        return Value(shown="yes" if value else "no")
    text = "" if value is None else str(value).translate(_LINES)
    if not text:
        return Value(shown=absent)
    if len(text) <= clip:
        return Value(shown=text)
    cut = text[: clip - 1]
    whole_words = cut.rpartition(" ")[0]
    # A hash or a path is one long word: a text is cut between words only if enough of it stays.
    if len(whole_words) > clip // 2:
        cut = whole_words
    return Value(shown=cut + "\N{HORIZONTAL ELLIPSIS}", full=text[:_FULL])
