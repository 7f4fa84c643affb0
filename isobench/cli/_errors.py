"""Errors and signals: errors become a message and an exit code, signals end a run in order."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, NoReturn

from isobench.cli._exits import INTERRUPTED
from isobench.model.cleaning import cleaned
from isobench.model.errors import IsobenchError, UsageError
from isobench.plugins import stdout

if TYPE_CHECKING:
    from rich.console import Console


def _fail(error: IsobenchError) -> NoReturn:
    """Print an error and its hint; exit with its code."""
    from isobench.cli import _progress

    console = _progress.console_for(stderr=True)
    console.print("[bold red]isobench:[/] ", end="")
    _print_whole(console, str(error))
    if error.hint:
        console.print("    [green]→[/] ", end="")
        _print_whole(console, error.hint)
    sys.exit(error.exit_code)


def _print_whole(console: "Console", text: str) -> None:
    """Print a text of bounded length without wrapping it: users copy paths and commands from it."""
    from isobench.cli import _progress

    # Whatever it names was cleaned where it was read; this is the last place.
    console.print(cleaned(_progress.as_called(text)), markup=False, soft_wrap=True)


_PATHS_HINT: Final = (
    "isobench writes to its cache (XDG_CACHE_HOME) and its results (ISOBENCH_RESULTS_DIR,"
    " --output): name writable folders"
)


def run_guarded(function: Callable[[], Any], stderr: IO[str] | None = None) -> int:
    """Run a command and return its exit code. Errors that a user can fix exit with a message."""
    try:
        function()
    except IsobenchError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=stderr or sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            place = f"{error.filename}: " if error.filename else "a file, or standard output: "
            own = Path(str(error.filename)).is_relative_to(Path(__file__).parents[1])
            hint = "a file of isobench is missing: install isobench again" if own else _PATHS_HINT
            _fail(UsageError(f"{place}{error.strerror or error}", hint=hint))
        # The reader has left, as in `isobench targets | head`. Without this, Python's own flush at
        # the end would fail as well and print an error.
        stdout.discard(sys.stdout.fileno())
        return 0
    return 0


def handle_termination() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C: results are kept, and nothing is left behind."""

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # nohup starts a program with SIGHUP ignored, and it must stay so. Likewise a shell without job
    # control starts background jobs with SIGINT ignored; Python then installs no handler for it.
    # Nothing ignores SIGTERM by convention: it always ends a run.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)
    sys.unraisablehook = _repeat_interruption(sys.unraisablehook)


def _repeat_interruption(default: Callable[[Any], Any]) -> Callable[[Any], None]:
    """Return a hook for `sys.unraisablehook` that repeats a lost KeyboardInterrupt."""

    def hook(unraisable: Any) -> None:
        # A signal that arrives while a finalizer runs (`__del__`) raises its exception there, and
        # Python discards exceptions of finalizers: a Ctrl-C would be lost, and the run go on. The
        # timer sends the signal again when the finalizer has ended.
        if issubclass(unraisable.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            default(unraisable)

    return hook
