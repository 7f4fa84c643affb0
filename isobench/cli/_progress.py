"""Output on the terminal: progress, tables of targets, notes."""

import functools
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

import click

from isobench.cli._help import COMMANDS
from isobench.config import redaction
from isobench.model.cleaning import cleaned
from isobench.payload import wire

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.model import Availability
    from isobench.model.units import TargetName


# Columns of output into a pipe or a file. Wrapped at 80 columns, commands and paths broke in the
# middle, and scripts could not read them.
_UNWRAPPED: Final = 4096
# The name of isobench at the beginning of a command in a text. A path or a package name that
# contains "isobench" must not match.
_COMMAND: Final = re.compile(rf"(?<![\w./-])isobench(?= (?:{'|'.join(COMMANDS)})\b)")
# In a narrower terminal, a table leaves out its least important column.
_NARROW: Final = 80
_HEIGHT: Final = 25
_SIZE: Final = re.compile(r"0*[1-9][0-9]{1,3}")
"""Ten columns or lines to 9999."""
# Seconds between two lines of progress where there is no bar, for example in the log of a CI job.
_PROGRESS_INTERVAL: Final = 20
# What a runner of GitHub Actions takes for a command, in what a step prints.
_COMMAND_OF_A_RUNNER: Final = re.compile(r"^(\s*)::")
_OLDER_COMMAND: Final = "##["
"""The beginning of the older form, which counts anywhere in a line."""
# Spaces at the end of a line, with the colour codes between them.
_TRAILING_SPACES: Final = re.compile(r"(?: |\x1b\[[\d;]*m)+$")


def program() -> str:
    """Return what to type to run this isobench again: its name, or else its path."""
    called = sys.argv[0] or "isobench"
    if Path(called).name == "__main__.py":
        return f"{sys.executable} -m isobench"
    # The plain name is right only if PATH leads to this very program: a user of a virtual
    # environment that is not activated must type the path.
    found = shutil.which("isobench")
    if Path(called).name != "isobench" or (
        found and Path(found).resolve() == Path(called).resolve()
    ):
        return "isobench"
    return called


def as_called(text: str) -> str:
    """Return a text with its `isobench` commands as the user must type them."""
    if "isobench" not in text:  # as nearly all texts of a page: PATH need not be searched
        return text
    name = program()
    return text if name == "isobench" else _COMMAND.sub(lambda _: name, text)


class _Trimmed:
    """A stream that removes spaces at the ends of lines. rich fills the lines of tables with them,
    which makes a mess of diffs and of text that is copied.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._pending = ""

    def write(self, text: str) -> int:
        """Write text. Spaces at its end are written when more text of the same line follows."""
        *lines, last = (self._pending + text).split("\n")
        kept = last.rstrip(" ")
        self._pending = last[len(kept) :]
        self._stream.write("".join(f"{_trimmed(line)}\n" for line in lines) + kept)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _trimmed(line: str) -> str:
    """Return a line without the spaces at its end, and which is no command of a runner: a name in
    it may come from somebody else. Its colour codes stay.
    """
    kept = _TRAILING_SPACES.sub(lambda end: end.group().replace(" ", ""), line)
    return _without_command(kept)


def _without_command(line: str) -> str:
    return _COMMAND_OF_A_RUNNER.sub(r"\1: :", line).replace(_OLDER_COMMAND, "## [")


def harmless(text: str) -> str:
    """Return a text for standard output, which may be a terminal or the log of a job: without what
    controls a terminal, and without commands of a runner.
    """
    lines = cleaned(text.replace("\r\n", "\n"), longest=None).split("\n")
    return "\n".join(map(_without_command, lines))


@functools.cache
def _redacting_console() -> "type[Console]":
    """Return a class of consoles that print no secrets."""
    from rich.console import Console
    from rich.text import Text

    def bare_object(one: Any) -> Any:
        if isinstance(one, str):
            return redaction.bare(one)
        if isinstance(one, Text):
            plain = redaction.bare(one.plain)
            return one if plain == one.plain else Text(plain, style=one.style)
        return one

    class Redacting(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            super().print(*map(bare_object, objects), **options)

    return Redacting


def say(text: str) -> None:
    """Print a line on standard output."""
    click.echo(harmless(redaction.text(text)))


def console_for(*, stderr: bool = False, color: str = "auto") -> "Console":
    """Return a console. With "auto", the terminal and NO_COLOR decide about colours.

    Output into a pipe or a file is wrapped only where COLUMNS is set.
    """
    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()
    environment = _environment()

    forced = {"always": True, "never": False}.get(color)
    return _redacting_console()(
        file=cast("IO[str]", _Trimmed(stream)) if piped else None,
        width=_UNWRAPPED if piped and not environment.get("COLUMNS") else None,
        # Without a height, rich ignores the width and takes 80 columns where TERM=dumb and colour
        # is forced.
        height=_HEIGHT if piped else None,
        stderr=stderr,
        # None leaves the decision to rich: it looks at the stream, at TERM and at NO_COLOR.
        force_terminal=True if forced else None,
        no_color=True if forced is False else None,
        # rich would colour numbers and paths within the text, where colour means nothing.
        highlight=False,
        soft_wrap=False,
        _environ=environment,
    )


def _environment() -> Mapping[str, str]:
    """Return the environment without sizes of a terminal that none can have."""
    # rich takes any digits, superscripts too, and fills lines of a table to any width.
    return {
        name: value
        for name, value in os.environ.items()
        if name not in ("COLUMNS", "LINES") or _SIZE.fullmatch(value)
    }


def note(text: str, *, hint: str) -> None:
    """Print a note and its hint on standard error, with commands as the user must type them."""
    console = console_for(stderr=True)
    # Not wrapped: users copy paths and commands from here.
    console.print(f"isobench: {wire.printable(as_called(text))}", markup=False, soft_wrap=True)
    console.print(f"    → {wire.printable(as_called(hint))}", markup=False, soft_wrap=True)


class Screen:
    """Shows the progress of a run: a bar on a terminal, else a line every 20 seconds."""

    def __init__(self, *, quiet: bool, color: str) -> None:
        """Draw nothing yet. `quiet`: draw nothing at all."""
        self._quiet = quiet
        self._console = console_for(stderr=True, color=color)
        # Imported and drawn at the first step: rich.progress is slow to import.
        self._bar: Any = None
        self._task: Any = None
        self._printed = time.monotonic()
        self._phase = ""

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(as_called(text), style="dim", markup=False)

    def probed(self, name: "TargetName", answer: "Availability") -> None:
        """Print the result of probing a target."""
        from isobench.model import Available

        if self._quiet:
            return
        if isinstance(answer, Available):
            self._console.print(f"  [green]✓[/] [bold]{name}[/]  ", end="")
            self._console.print(answer.version, style="dim", markup=False)
        else:
            self._console.print(f"  [yellow]–[/] [bold]{name}[/]  ", end="")
            what = wire.printable(as_called(f"{answer.reason} → {answer.hint}"))
            self._console.print(what, style="dim", markup=False)

    def step(self, what: str, done: float, total: float) -> None:
        """Move the bar, or print a line of progress."""
        if self._quiet:
            return
        # Colour may be forced in the log of a CI job.
        if not (self._console.is_terminal and self._console.file.isatty()):
            if time.monotonic() - self._printed > _PROGRESS_INTERVAL:
                self._printed = time.monotonic()
                self._console.print(f"{done / total:4.0%}  {what}", markup=False)
            return
        if self._bar is None:
            self._start_bar()
        # "pilot: …", "block 3: …": each phase has its own total. Without a reset, rich would
        # compute the time left from the speed of the phase before.
        phase = what.partition(":")[0].partition(" ")[0]
        if phase != self._phase:
            self._phase = phase
            self._bar.reset(self._task)
        self._bar.update(self._task, description=what, completed=done, total=total)

    def _start_bar(self) -> None:
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeRemainingColumn,
        )

        self._bar = Progress(
            # The bar is short, and comes first: descriptions differ in length, and would move it.
            BarColumn(24),
            TaskProgressColumn(),
            TimeRemainingColumn(compact=True),
            TextColumn("{task.description}", style="dim", markup=False),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("", total=1.0)
        self._bar.start()

    def close(self) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def target_row(name: str, technology: str, answer: "Availability") -> dict[str, Any]:
    """Return the result of probing a target, in the form of `isobench targets --json`."""
    from isobench.model import Available

    available = isinstance(answer, Available)
    # The texts come from plug-ins: escape sequences in them must not reach the terminal.
    return {
        "name": str(name),
        "class": str(technology),
        "available": available,
        "version": _shown(answer.version) if isinstance(answer, Available) else None,
        "lack": None if isinstance(answer, Available) else str(answer.lack),
        "what": None if isinstance(answer, Available) else _shown(answer.what),
        "hint": None if isinstance(answer, Available) else _shown(answer.hint),
    }


def _shown(text: str) -> str:
    return redaction.text(wire.printable(text))


def target_table(rows: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print rows of `target_row` as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    wide = console.width >= _NARROW
    # "fold" breaks a long word. The default of rich cuts it with an ellipsis, and with it the
    # command that the user should type.
    headings = ("", "target", "class", "what") if wide else ("", "target", "what")
    for heading in headings:
        table.add_column(heading, no_wrap=heading in ("", "target"), overflow="fold")
    for row in rows:
        if row["available"]:
            mark, what = Text("✓", style="green"), Text(row["version"], style="dim")
        else:
            mark = Text("–", style="yellow")
            what = Text(as_called(f"{row['what']} ({row['lack']})\n→ {row['hint']}"))
        kind = (row["class"],) if wide else ()
        table.add_row(mark, Text(row["name"], style="bold"), *kind, what)
    console.print(table)


def ways_table(ways: Sequence[tuple[str, str]], console: "Console") -> None:
    """Print how technologies can be measured that are not targets themselves."""
    from rich.table import Table
    from rich.text import Text

    console.print("\nNot targets themselves, but measurable:", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(ratio=2, overflow="fold")
    table.add_column(ratio=3, overflow="fold")
    for names, way in ways:
        table.add_row(Text(names), Text(way, style="dim"))
    console.print(table)
