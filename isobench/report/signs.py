"""Typographic signs of the page and the terminal."""

from typing import Final

TIMES: Final = "\N{MULTIPLICATION SIGN}"
DASH: Final = "\N{EN DASH}"
SPACE: Final = "\N{NO-BREAK SPACE}"
