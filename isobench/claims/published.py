"""Reads published figures, which the report shows next to the measured ones."""

import re
import tomllib

import msgspec

from isobench.model import Published
from isobench.model.errors import UsageError


class _File(msgspec.Struct, forbid_unknown_fields=True):
    figures: list[Published]


def load_published(text: str, *, origin: str) -> tuple[Published, ...]:
    """Return the figures of a TOML text: an array of tables `[[figures]]` with the fields of
    `Published`. UsageError names `origin`, the file, and the line or the number of the figure.
    """
    try:
        return tuple(msgspec.convert(tomllib.loads(text), _File).figures)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        where = re.search(r"\$\.figures\[(\d+)\]", str(error))
        row = f", figure {int(where[1]) + 1}" if where else ""
        message = f"{origin}{row}: {error}"
        hint = "correct it; the file reports/published.toml of the repository is an example"
        raise UsageError(message, hint=hint) from None
