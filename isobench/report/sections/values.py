"""Texts of a report: facts as words, clipped where they are long."""

from dataclasses import dataclass
from typing import Final

from isobench.model.wording import NOTHING
from isobench.storage.schema import HostFact

CLIP: Final = 180
_FULL: Final = 4000
_LINES: Final = str.maketrans({"\n": r"\n", "\t": r"\t"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """Text that may be long: what is shown, and the whole of it where that is more (else empty)."""

    shown: str
    full: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """A labelled value; `source` says where it was read."""

    label: str
    value: Value
    source: str = ""


def value_of(value: HostFact, absent: str = NOTHING) -> Value:
    """Return text or a fact as one line, clipped where long; `absent` where there is none."""
    if isinstance(value, bool):
        return Value(shown="yes" if value else "no")
    text = "" if value is None else str(value).translate(_LINES)
    if not text:
        return Value(shown=absent)
    if len(text) <= CLIP:
        return Value(shown=text)
    cut = text[: CLIP - 1]
    whole_words = cut.rpartition(" ")[0]
    if len(whole_words) > CLIP // 2:
        cut = whole_words
    return Value(shown=cut + "\N{HORIZONTAL ELLIPSIS}", full=text[:_FULL])
