"""Errors and signals: errors become a message and an exit code, signals end a run in order."""

import atexit
import errno
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from isobench.cli import INTERRUPTED, LIMITS_HINT, OWN_FAILURE, _interruptions
from isobench.config import redaction
from isobench.model.cleaning import cleaned
from isobench.model.errors import IsobenchError, UsageError

if TYPE_CHECKING:
    from rich.console import Console


def _failed(error: IsobenchError) -> int:
    """Print an error and its hint; return its exit code."""
    try:
        _print_coloured(error)
    except (ImportError, OSError, MemoryError):
        # What ends isobench, such as a lack of memory or of descriptors, ends rich as well.
        _print_plain(str(error), error.hint)
    return error.exit_code


def _print_coloured(error: IsobenchError) -> None:
    from isobench.cli import _progress

    console = _progress.console_for(stderr=True)
    console.print("[bold red]isobench:[/] ", end="")
    _print_whole(console, str(error))
    if error.hint:
        console.print("    [green]→[/] ", end="")
        _print_whole(console, error.hint)


def _print_plain(text: str, hint: str) -> None:
    """Print an error and its hint with nothing but what is loaded."""
    print(f"isobench: {redaction.bare(text)}", file=sys.stderr)
    if hint:
        print(f"    → {redaction.bare(hint)}", file=sys.stderr)


def _print_whole(console: "Console", text: str) -> None:
    """Print a text of bounded length without wrapping it: users copy paths and commands from it."""
    from isobench.cli import _progress

    # Whatever it names was cleaned where it was read; this is the last place.
    console.print(cleaned(_progress.as_called(text)), markup=False, soft_wrap=True)


_NEEDED: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD)
_REPORT_HINT: Final = (
    "this is a bug of isobench: report it with these lines, the command and what isobench --version"
    " prints"
)
_LACKS: Final = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_INSTALL_HINT: Final = "a file of isobench or of a package it needs is missing: install it again"
_PATHS_HINT: Final = (
    "isobench writes to its cache (XDG_CACHE_HOME) and its results (ISOBENCH_RESULTS_DIR,"
    " --output): name writable folders"
)


def run_guarded(function: Callable[[], Any]) -> int:
    """Run a command and return its exit code. Errors that a user can fix become a message."""
    try:
        function()
    except SystemExit as done:
        return done.code if isinstance(done.code, int) else 0
    except KeyboardInterrupt:
        return _interrupted()
    except Exception as error:  # noqa: BLE001 - Python's own exit code for it is 1: a regression
        if _interruptions.has_ended_import():
            return _interrupted()
        return _failed(error) if isinstance(error, IsobenchError) else _unexpected(error)
    return 0


def _interrupted() -> int:
    print("interrupted", file=sys.stderr)
    return INTERRUPTED


def _unexpected(error: Exception) -> int:
    """Print an exception that is no IsobenchError; return its exit code."""
    try:
        known = _of_surroundings(error)
    except (ImportError, OSError, MemoryError):  # no room even for what would explain it
        _print_plain(str(error) or "not enough memory", LIMITS_HINT)
        return OWN_FAILURE
    if known is not None:
        return _failed(known)
    _print_harmless("".join(traceback.format_exception(error)))
    _print_plain(f"{type(error).__name__}, which it does not expect", _REPORT_HINT)
    return OWN_FAILURE


def _of_surroundings(error: Exception) -> IsobenchError | None:
    """Return the error to report where the machine, a folder or the installation is at fault."""
    is_lack = isinstance(error, MemoryError | ImportError | RuntimeError)
    if is_lack or (isinstance(error, OSError) and error.errno in _LACKS):
        from isobench.plugins import guard

        # The system refuses memory, a file, a thread or a process.
        if (of_machine := guard.machine_error(error)) is not None:
            return of_machine
    if isinstance(error, ModuleNotFoundError):
        return UsageError(str(error), hint=_INSTALL_HINT)
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else "a file, or the working folder: "
        own = Path(str(error.filename)).is_relative_to(Path(__file__).parents[1])
        hint = "a file of isobench is missing: install isobench again" if own else _PATHS_HINT
        return UsageError(f"{place}{error.strerror or error}", hint=hint)
    return None


def _print_harmless(text: str) -> None:
    """Print a text of others on standard error: no secrets, nothing that controls a terminal or a
    runner.
    """
    shown = redaction.text(text).rstrip()
    try:
        from isobench.cli import _progress

        shown = _progress.harmless(shown)
    except (ImportError, OSError, MemoryError):  # no room for more, or Python ends
        shown = cleaned(shown, longest=None)
    print(shown, file=sys.stderr)


def quiet_libraries() -> None:
    """Let nothing that a library logs reach the terminal, and its warnings and lost exceptions only
    without secrets and without what controls a terminal.
    """
    # Libraries log what servers and programs send. Without a handler, Python prints
    # warnings and errors; with this one, logging.basicConfig() adds none either. Whoever wants the
    # messages in a file can still add a handler.
    root = logging.getLogger()
    if not any(isinstance(one, logging.NullHandler) for one in root.handlers):
        root.addHandler(logging.NullHandler())
    logging.lastResort = logging.NullHandler()
    warnings.showwarning = _show_warning
    if sys.unraisablehook is sys.__unraisablehook__:
        sys.unraisablehook = _show_unraisable
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = _show_lost


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = warnings.formatwarning(message, category, filename, lineno, line)
    if file is None:
        _print_harmless(text)
    else:
        file.write(text)


def _show_unraisable(unraisable: Any) -> None:
    error = unraisable.exc_value or unraisable.exc_type()
    _print_harmless("".join(traceback.format_exception(error)))


def _show_lost(lost: Any) -> None:
    if lost.exc_type is not SystemExit:
        error = lost.exc_value or lost.exc_type()
        _print_harmless("".join(traceback.format_exception(error)))


def handle_termination() -> None:
    """Handle SIGTERM and SIGHUP like Ctrl-C: results are kept, and nothing is left behind."""
    atexit.register(_ignore_interruptions)
    _interruptions.handle()
    # A program inherits what its parent ignores and blocks: execve(2). Without SIGCHLD no exit code
    # of a child is known, and without SIGALRM no wait ends.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _NEEDED)
    sys.unraisablehook = _repeat_interruption(sys.unraisablehook)


def _ignore_interruptions() -> None:
    """Let no second Ctrl-C interrupt what is removed when isobench ends, nor change its exit code:
    Python gives signals their default back while it ends.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


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
