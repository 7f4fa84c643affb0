"""Writes text to a console of rich, whatever its encoding."""

from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from isobench.model.cleaning import cleaned
from isobench.model.wording import NOTHING
from isobench.report.signs import DASH, SPACE, TIMES

_ASCII: Final = str.maketrans(
    {
        TIMES: "x",
        DASH: "-",
        NOTHING: "-",
        SPACE: " ",
        "\N{PLUS-MINUS SIGN}": "+-",
        "\N{MICRO SIGN}": "u",
        "\N{HORIZONTAL ELLIPSIS}": "...",
    }
)


class Writer:
    """A console, and whether its encoding is ASCII."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.ascii_only = console.options.ascii_only

    def text(self, content: str, style: str = "") -> Text:
        """Return content as text, without what controls a terminal; brackets in it are no markup
        of rich.
        """
        # Names of folders may hold anything. The space between a figure and its unit stays.
        content = SPACE.join(cleaned(part, longest=None) for part in content.split(SPACE))
        # The names of targets may hold any character; what ASCII lacks becomes an escape, and no
        # UnicodeEncodeError.
        if self.ascii_only:
            content = content.translate(_ASCII).encode("ascii", "backslashreplace").decode("ascii")
        return Text(content, style=style)

    def command(self, content: str, style: str = "", indent: int = 0) -> None:
        """Print one line that is never wrapped: users copy it."""
        text = self.text(" " * indent + content, style)
        self.console.print(text, soft_wrap=True)

    def line(self, content: str = "", style: str = "", indent: int = 0) -> None:
        """Print one wrapped paragraph; without content, an empty line."""
        if not content:
            self.console.print()
            return
        text = self.text(" ".join(content.splitlines()), style)
        self.console.print(Padding(text, (0, 0, 0, indent), expand=False))
