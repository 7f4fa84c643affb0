"""The way in and the ways out: errors become a line and an exit code, signals an orderly end."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Final, NoReturn

from isobench.cli._exits import INTERRUPTED
from isobench.model.errors import IsobenchError, UsageError


def _fail(error: IsobenchError) -> NoReturn:
    """Print what is wrong and the way out; leave with its exit code."""
    from isobench.cli import _progress

    console = _progress.console_for(stderr=True)
    console.print("[bold red]isobench:[/] ", end="")
    # Not wrapped: what stands here is copied, paths and commands above all.
    console.print(_progress.as_called(str(error)), markup=False, soft_wrap=True)
    if error.hint:
        console.print("    [green]→[/] ", end="")
        console.print(_progress.as_called(error.hint), markup=False, soft_wrap=True)
    sys.exit(error.exit_code)


_PLACES_HINT: Final = (
    "isobench writes to its cache (XDG_CACHE_HOME) and to its results (ISOBENCH_RESULTS_DIR,"
    " --output): name folders that can be written"
)


def guarded(function: Callable[[], Any], stderr: IO[str] | None = None) -> int:
    """Run a command; turn whatever a user can mend into a line and an exit code."""
    try:
        function()
    except IsobenchError as error:
        _fail(error)
    except KeyboardInterrupt:
        print("interrupted", file=stderr or sys.stderr)
        return INTERRUPTED
    except OSError as error:
        if not isinstance(error, BrokenPipeError):
            place = f"{error.filename}: " if error.filename else ""
            own = Path(str(error.filename)).is_relative_to(Path(__file__).parents[1])
            hint = "isobench is not whole: install it anew" if own else _PLACES_HINT
            _fail(UsageError(f"{place}{error.strerror or error}", hint=hint))
        # Whoever read us has left (`isobench targets | head`): nothing is wrong.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def heed_termination() -> None:
    """Treat a request to end like Ctrl-C: what was measured is kept, nothing is left behind.

    A hangup that was ignored when isobench was started (nohup) stays ignored. So does Ctrl-C where
    a shell without job control ignores it for a background job: Python leaves it alone by itself.
    SIGTERM ends a run in any case.
    """

    def interrupt(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signal.signal(signal.SIGHUP, interrupt)

    usual = sys.unraisablehook

    def again(fault: Any) -> None:
        """Repeat an interruption that came while Python was tidying up an object, where no
        exception gets through: it would be lost.
        """
        if issubclass(fault.exc_type, KeyboardInterrupt):
            threading.Timer(0.01, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            usual(fault)

    sys.unraisablehook = again
