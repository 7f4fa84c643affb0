"""From anything that a summary may hold to text, numbers, mappings and moments."""

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from isobench.report.sections.figures import NOTHING
from isobench.report.sections.shapes import Value

CLIP: Final = 180
_FULL: Final = 4000


def clean(value: object) -> str:
    """Return a value as one line of text; control and direction characters are shown."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return listed(f"{clean(key)} {clean(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return listed(map(clean, value))
    text = str(value)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escaped(letter) for letter in text)


def _escaped(letter: str) -> str:
    if unicodedata.category(letter) == "Zs":
        return " "
    return letter.encode("unicode_escape").decode("ascii")


def value_of(value: object, absent: str = NOTHING) -> Value:
    """Return anything as text, clipped where long; `absent` where there is none."""
    text = clean(value)
    if not text:
        return Value(shown=absent)
    if len(text) <= CLIP:
        return Value(shown=text)
    cut = text[: CLIP - 1]
    whole_words = cut.rpartition(" ")[0]
    if len(whole_words) > CLIP // 2:
        cut = whole_words
    return Value(shown=cut + "\N{HORIZONTAL ELLIPSIS}", full=text[:_FULL])


def number_of(value: object) -> float | None:
    """Return a finite number, or None for anything else, truth values included."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def amount_of(value: object) -> float | None:
    """Return a number that is not negative: a time, a count, a share."""
    number = number_of(value)
    return number if number is not None and number >= 0 else None


def mapping_of(value: object) -> Mapping[str, Any]:
    """Return a mapping, or an empty one for anything else."""
    return value if isinstance(value, Mapping) else {}


def items_of(value: object) -> Sequence[Mapping[str, Any]]:
    """Return the mappings of a list; none for anything else."""
    found = value if isinstance(value, list | tuple) else ()
    return [item for item in found if isinstance(item, Mapping)]


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: "1 block", "2 blocks"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def listed(names: Iterable[str]) -> str:
    """Return names as one text, with commas."""
    return ", ".join(names)


def moment_of(value: object) -> datetime | None:
    """Return a moment of ISO 8601 in UTC, or None; one without a zone is taken to be in UTC."""
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
