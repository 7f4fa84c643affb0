"""The commands. No other room prints or sets exit codes.

Functions import heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) where they use them.
Even click takes three times as long to import as Python takes to start, so that `isobench --help`
and `isobench --version` are answered without it.
"""

from __future__ import annotations

import io
import os
import sys

from isobench import TYPE_CHECKING, __version__

# Nothing is imported here that Python has not imported when it started: what interrupts an import
# before `main` is a traceback.
if TYPE_CHECKING:
    from typing import Final, NoReturn

COMPLETING: Final = "_ISOBENCH_COMPLETE"
"""The environment variable by which a shell asks for completions."""
INTERRUPTED: Final = 130
"""The exit code of shells for SIGINT: 128 + 2."""
OWN_FAILURE: Final = 6
"""The exit code for what isobench itself could not do. Python's own for that, 1, would mean a
regression.
"""
LIMITS_HINT: Final = (
    "raise the limits of memory, open files and processes (ulimit -v, -n, -u), or install isobench"
    " again"
)
_LEAST_SPACE: Final = 128 << 20
_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"


def main() -> None:
    """Entry point of the command `isobench`."""
    try:
        _main()
    except KeyboardInterrupt:  # while isobench starts or ends
        _end(INTERRUPTED)
    except (ImportError, OSError, MemoryError) as error:  # before `run_guarded` is there
        print(
            f"isobench: {str(error) or 'not enough memory'}\n    → {LIMITS_HINT}", file=sys.stderr
        )
        _end(OWN_FAILURE)
    except Exception as error:  # noqa: BLE001 - what else fails, such as a stream that was closed
        # Python would end with 1, which says that a claim was refuted.
        from contextlib import suppress

        with suppress(OSError):  # closed as well
            os.write(2, f"isobench: it ends early: {type(error).__name__}\n".encode())
        _end(OWN_FAILURE)
    finally:
        # An interruption inside an exec() of text, as when an import makes a dataclass, is noted in
        # Python, which then ends itself by SIGINT instead of with the exit code. The next exec()
        # forgets it: run_eval_code_obj in Python/pythonrun.c.
        exec("")  # noqa: S102


def _end(code: int) -> NoReturn:
    """End isobench with an exit code. Code of plug-ins that still runs has a bound."""
    from isobench.plugins import stdout

    if stdout.is_protected():
        from isobench.plugins import ending

        ending.end(code)
    sys.exit(code)


def _main() -> None:
    from isobench.plugins import stdout

    _open_standard_streams()
    if _answers_at_once(sys.argv[1:]):
        sys.exit(_unwritten())
    from isobench.cli import _interruptions

    # What follows imports much.
    _interruptions.handle()
    from isobench.cli._errors import run_guarded

    _prepare_for_blas()
    stdout.claim()
    try:
        code = run_guarded(_command)
        # What was found matters more than that it could not be printed.
        code = code or _unwritten()
    finally:
        stdout.release()
    _end(code)


def _prepare_for_blas() -> None:
    """Keep OpenBLAS, which comes with NumPy and with SciPy, from starting threads when it is
    loaded: no matrix here is large. MemoryError: it has too little address space.
    """
    import resource

    # With less, OpenBLAS ends the process itself, with exit code 1.
    space, _ = resource.getrlimit(resource.RLIMIT_AS)
    if space != resource.RLIM_INFINITY and space < _LEAST_SPACE:
        raise MemoryError
    # Each thread takes address space. Without it (ulimit -v), OpenBLAS tries again without end,
    # deaf to signals; and where it cannot start threads (ulimit -u), it raises SIGINT, which looks
    # like a Ctrl-C. It reads the environment of C. os.environ does not change: what isobench starts
    # gets a copy of that, and sees the user's own environment.
    if _BLAS_THREADS not in os.environ:
        os.putenv(_BLAS_THREADS, "1")


def _open_standard_streams() -> None:
    """Open streams that the caller has closed: else a file of a run would get such a number. What
    cannot be printed ends nothing.
    """
    from isobench.plugins import stdout

    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest free number
    for number, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = os.fdopen(number, "w", encoding="utf-8", closefd=False)
        if isinstance(stream, io.TextIOWrapper) and _descriptor(stream) == number:
            setattr(sys, name, stdout.lasting(stream))


def _descriptor(stream: io.TextIOWrapper) -> int | None:
    try:
        return stream.fileno()
    except OSError:  # a stream in memory
        return None


def _unwritten() -> int:
    """Write standard output to its end; return the exit code for that: 0, or 2 where some of it
    could not be written, although its reader has not left.
    """
    from isobench.plugins import stdout

    error = stdout.failure()
    if error is None:
        return 0
    print(f"isobench: standard output: {error.strerror}", file=sys.stderr)
    return 2


def _answers_at_once(words: list[str]) -> bool:
    """Print the help or the version; return whether that was all that the user wanted."""
    if COMPLETING in os.environ or len(words) != 1:
        return False
    if words[0] in ("-h", "--help"):
        from isobench.cli import _help

        answer = _help.text()
    elif words[0] in ("-V", "--version"):
        answer = f"isobench, version {__version__}\n"
    else:
        return False
    sys.stdout.write(answer)
    return True


def _command() -> None:
    """Run the command line with click."""
    # Click's own main() turns Ctrl-C into exit code 1. Here it has a code of its own (130): see
    # `_errors.run_guarded`. So this does what main() does, without it.
    import click

    from isobench.cli._errors import handle_termination, quiet_libraries
    from isobench.cli._front import cli

    quiet_libraries()
    if COMPLETING in os.environ:
        from isobench.cli import _complete

        _complete.answer(cli)
    handle_termination()
    try:
        with cli.make_context("isobench", sys.argv[1:]) as context:
            cli.invoke(context)
    except click.exceptions.Exit as done:
        sys.exit(done.exit_code)
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
