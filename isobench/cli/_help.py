"""What `isobench --help` prints. It imports nothing heavy, not even click: it answers at once."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

COMMANDS: Final[Mapping[str, str]] = {
    "run": "Measure the same workloads natively and under each target.",
    "report": "Answer again from the records of a run.",
    "verify": "Judge sentences on a run: the documents', or your own.",
    "compare": "Compare runs: what isolation costs in one and the other.",
    "noise": "Show what differences this machine can resolve.",
    "targets": "List what can run here, and what to type for the rest.",
    "workloads": "List what can be measured.",
    "plugins": "List what plug-ins add, and where each is from.",
    "doctor": "Show why a target cannot run; install what it needs.",
    "prepare": "Make what targets keep between runs, in advance.",
    "clean": "Remove every trace of isobench but your results.",
    "selftest": "Try the statistics on runs whose true ratio is known.",
}
"""In the order of --help. A command, its module and its function have one name."""
_ABOUT: Final = (
    "Measure what isolation costs here, with evidence that it was in force.",
    (
        "Runs the same workloads natively and under containers, sandboxes and emulators, and"
        " answers with ratios to native, honest intervals and verdicts."
    ),
)
_OPTIONS: Final = {
    "-V, --version": "Show the version and exit.",
    "-h, --help": "Show this message and exit.",
}
_WIDEST: Final = 80


def text() -> str:
    """Return the help of isobench itself, as wide as the terminal and 80 columns at most."""
    width = max(20, min(shutil.get_terminal_size().columns, _WIDEST)) - 2
    return "\n".join(_lines(width)) + "\n"


def _lines(width: int) -> Iterator[str]:
    yield "Usage: isobench [OPTIONS] [COMMAND] [ARGS]..."
    for paragraph in _ABOUT:
        yield ""
        yield from textwrap.wrap(
            paragraph, width, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False
        )
    for title, rows in (("Options", _OPTIONS), ("Commands", COMMANDS)):
        yield ""
        yield f"{title}:"
        yield from _table(rows, width)


def _table(rows: Mapping[str, str], width: int) -> Iterator[str]:
    """Yield rows of a name and its text, the texts in one column."""
    column = max(map(len, rows)) + 4
    for name, what in rows.items():
        first, *more = textwrap.wrap(what, max(20, width - column), break_on_hyphens=False)
        yield f"  {name}".ljust(column) + first
        for line in more:
            yield " " * column + line
