"""What others have published, to stand beside our figures. Data: see reports/published.toml."""

import re
import tomllib

import msgspec

from isobench.model import Published
from isobench.model.errors import UsageError


class _File(msgspec.Struct, forbid_unknown_fields=True):
    figures: list[Published]


def load_published(text: str, *, origin: str) -> tuple[Published, ...]:
    """Return the figures of a TOML text: an array of tables `[[figures]]` with the fields of
    `Published`. UsageError names the file, and the line or the row.
    """
    try:
        return tuple(msgspec.convert(tomllib.loads(text), _File).figures)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        where = re.search(r"\$\.figures\[(\d+)\]", str(error))
        row = f", figure {int(where[1]) + 1}" if where else ""
        message = f"{origin}{row}: {error}"
        raise UsageError(message, hint="reports/published.toml as shipped is an example") from None
