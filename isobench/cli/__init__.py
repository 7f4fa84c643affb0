"""The commands. No other room prints or sets exit codes.

Functions import heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) where they use them.
Even click takes three times as long to import as Python takes to start, so that `isobench --help`
and `isobench --version` are answered without it.
"""

import io
import os
import sys
from typing import Final

from isobench import __version__

COMPLETING: Final = "_ISOBENCH_COMPLETE"
"""The environment variable by which a shell asks for completions."""


def main() -> None:
    """Entry point of the command `isobench`."""
    _open_standard_streams()
    if _answers_at_once(sys.argv[1:]):
        sys.exit(0)
    from isobench.cli._errors import run_guarded
    from isobench.plugins import stdout

    stdout.claim()
    try:
        sys.exit(run_guarded(_command))
    finally:
        _flush()
        stdout.release()


def _open_standard_streams() -> None:
    """Open streams that the caller has closed: else a file of a run would get such a number."""
    for number, flags in enumerate((os.O_RDONLY, os.O_WRONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, flags)  # the lowest free number
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # what a locale lacks, it gets as an escape
            stream.reconfigure(errors="backslashreplace")


def _flush() -> None:
    """Write what is left of standard output. Python does so at its end, with an error of its own.

    SystemExit with 2: it cannot be written, and the reason is not that its reader has left.
    """
    from isobench.plugins import stdout

    try:
        sys.stdout.flush()
    except OSError as error:
        stdout.discard(sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):
            print(f"isobench: standard output: {error.strerror}", file=sys.stderr)
            sys.exit(2)


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
    try:
        sys.stdout.write(answer)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has left, as in `isobench --help | head -1`
        from isobench.plugins import stdout

        stdout.discard(sys.stdout.fileno())
    return True


def _command() -> None:
    """Run the command line with click."""
    # Click's own main() turns Ctrl-C and broken pipes into exit code 1. Here they have codes of
    # their own (130, and 0): see `_errors.run_guarded`. So this does what main() does, without it.
    import click

    from isobench.cli._front import cli

    if COMPLETING in os.environ:
        from isobench.cli import _complete

        _complete.answer(cli)
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
