"""The terminal: how far a run is, and the table of targets."""

import os
import re
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, cast

from isobench.payload import wire

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.model import Availability
    from isobench.model.units import TargetName


_ENDLESS: Final = 4096
"""Columns where nobody looks at a terminal: commands, paths and names of runs stay in one piece."""
_COMMAND: Final = re.compile(
    r"(?<![\w./-])isobench(?= (?:run|report|verify|compare|noise|targets|workloads|selftest|doctor"
    r"|prepare|clean)\b)"
)
"""The name of isobench where a text has a command of its own."""
_NARROW: Final = 80
"""Below so many columns a table leaves out what can be spared."""
_HEIGHT: Final = 25
_BLANK_END: Final = re.compile(r"(?: |\x1b\[[\d;]*m)+$")


def program() -> str:
    """Return what to type to run this very isobench again: its name, or the path of it."""
    called = sys.argv[0] or "isobench"
    if Path(called).name == "__main__.py":
        return f"{sys.executable} -m isobench"
    found = shutil.which("isobench")
    if Path(called).name != "isobench" or (
        found and Path(found).resolve() == Path(called).resolve()
    ):
        return "isobench"
    return called


def as_called(text: str) -> str:
    """Return a text whose commands name the isobench that is running."""
    name = program()
    return text if name == "isobench" else _COMMAND.sub(lambda _: name, text)


class _Trimmed:
    """A stream whose lines end without the blanks that a table is filled up with."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self._held = ""

    def write(self, text: str) -> int:
        """Write text; blanks at its end wait for what follows them."""
        *lines, last = (self._held + text).split("\n")
        kept = last.rstrip(" ")
        self._held = last[len(kept) :]
        self._stream.write("".join(f"{_trimmed(line)}\n" for line in lines) + kept)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _trimmed(line: str) -> str:
    """Return a line without the blanks at its end, its colours as they are."""
    return _BLANK_END.sub(lambda end: end.group().replace(" ", ""), line)


def console_for(*, stderr: bool = False, color: str = "auto") -> "Console":
    """Return a console; "auto" leaves colour to the terminal and to NO_COLOR.

    Off a terminal nothing is wrapped, unless COLUMNS says where, and no line ends in blanks.
    """
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    piped = not stream.isatty()

    forced = {"always": True, "never": False}.get(color)
    return Console(
        file=cast("IO[str]", _Trimmed(stream)) if piped else None,
        width=_ENDLESS if piped and not os.environ.get("COLUMNS") else None,
        # With both given, rich takes them even where TERM=dumb and colour is forced.
        height=_HEIGHT if piped else None,
        stderr=stderr,
        force_terminal=True if forced else None,
        no_color=True if forced is False else None,
        highlight=False,
        soft_wrap=False,
    )


def note(text: str, *, hint: str) -> None:
    """Print on standard error what the user should know, and what to type; nothing ends by it."""
    console = console_for(stderr=True)
    # Not wrapped: what stands here is copied, paths and commands above all.
    console.print(f"isobench: {wire.printable(text)}", markup=False, soft_wrap=True)
    console.print(f"    → {wire.printable(hint)}", markup=False, soft_wrap=True)


class Screen:
    """Shows how far a run is: a bar with the time left on a terminal, a line now and then
    elsewhere.
    """

    def __init__(self, *, quiet: bool, color: str) -> None:
        """Draw nothing yet."""
        self._quiet = quiet
        self._console = console_for(stderr=True, color=color)
        self._bar: Any = None
        self._task: Any = None
        self._began = self._printed = time.monotonic()
        self._phase = ""

    def say(self, text: str) -> None:
        """Print one line."""
        if not self._quiet:
            self._console.print(as_called(text), style="dim", markup=False)

    def probed(self, name: "TargetName", answer: "Availability") -> None:
        """Print what a target answered."""
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
        """Move the bar; off a terminal print a line at most every 20 seconds."""
        if self._quiet:
            return
        if not self._console.is_terminal:
            if time.monotonic() - self._printed > 20:  # noqa: PLR2004 - seconds between lines
                self._printed = time.monotonic()
                self._console.print(f"{done / total:4.0%}  {what}", markup=False)
            return
        if self._bar is None:
            self._start_bar()
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
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def target_row(name: str, technology: str, answer: "Availability") -> dict[str, Any]:
    """Return what a target answered, as `isobench targets --json` prints it."""
    from isobench.model import Available

    able = isinstance(answer, Available)
    # What a plug-in says of itself is no more trusted than what its sessions say.
    return {
        "name": str(name),
        "class": str(technology),
        "available": able,
        "version": answer.version if isinstance(answer, Available) else None,
        "lack": None if isinstance(answer, Available) else str(answer.lack),
        "what": None if isinstance(answer, Available) else wire.printable(answer.what),
        "hint": None if isinstance(answer, Available) else wire.printable(answer.hint),
    }


def target_table(rows: Sequence[Mapping[str, Any]], console: "Console") -> None:
    """Print such rows as a table."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, show_header=True, header_style="bold")
    wide = console.width >= _NARROW
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
    """Print how technologies are reached that are no targets."""
    from rich.table import Table
    from rich.text import Text

    console.print("\nNo target by itself, but:", style="bold")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(ratio=2, overflow="fold")
    table.add_column(ratio=3, overflow="fold")
    for names, way in ways:
        table.add_row(Text(names), Text(way, style="dim"))
    console.print(table)
