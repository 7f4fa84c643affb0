"""The text of `isobench --help`. It imports nothing heavy, not even click."""

import shutil
import textwrap
from collections.abc import Iterator, Mapping
from typing import Final

COMMANDS: Final[Mapping[str, str]] = {
    "run": "Measure the same workloads natively and under each target.",
    "report": "Write the report of a run again, from its records.",
    "verify": "Judge claims on a run: the documents' sentences, or your own.",
    "compare": "Compare what isolation costs in two runs.",
    "pack": "Write one file with everything that belongs to a run.",
    "history": "Keep the ratios of runs over time, and find where they change.",
    "noise": "Show the smallest differences that this machine can resolve.",
    "targets": "List what can run here, and what to type for the rest.",
    "workloads": "List what can be measured.",
    "plugins": "List plug-ins, their origin, and whether they load.",
    "doctor": "Show why a target cannot run; install what it needs.",
    "prepare": "Build what targets keep between runs, in advance.",
    "clean": "Remove all files of isobench except your results.",
    "selftest": "Test the statistics on simulated runs with known ratios.",
}
"""Each command with its description, in the order of --help. A command, its module and its function
have the same name.
"""
_ABOUT: Final = (
    "Measure the cost of isolation on this machine, with evidence that it was in force.",
    (
        "Runs the same workloads natively and in containers, sandboxes, virtual machines and"
        " emulators. Reports ratios to native, their intervals, and verdicts."
    ),
)
_OPTIONS: Final = {
    "-V, --version": "Show the version and exit.",
    "-h, --help": "Show this message and exit.",
}
_WIDEST: Final = 80


def text() -> str:
    """Return the help of `isobench`, as wide as the terminal, at most 80 columns."""
    # As wide as click makes the help of the commands.
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
    """Yield lines of two columns: names and their texts."""
    column = max(map(len, rows)) + 4
    for name, what in rows.items():
        # Not broken at hyphens: options and commands are copied from here.
        first, *more = textwrap.wrap(what, max(20, width - column), break_on_hyphens=False)
        yield f"  {name}".ljust(column) + first
        for line in more:
            yield " " * column + line
