"""The commands: the only room that prints, and the only one that knows exit codes.

Heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) are imported where they are needed.
Click alone takes three times as long as Python's own start: what needs no command line is answered
before it is imported.
"""

import os
import sys
from typing import Final

from isobench import __version__

COMPLETING: Final = "_ISOBENCH_COMPLETE"
"""The variable of a shell that asks what a half-typed word may become."""


def main() -> None:
    """Entry point of the command `isobench`."""
    if _answers_at_once(sys.argv[1:]):
        sys.exit(0)
    from isobench.cli._errors import guarded
    from isobench.plugins import stdout

    stdout.claim()
    try:
        sys.exit(guarded(_command))
    finally:
        stdout.release()


def _answers_at_once(words: list[str]) -> bool:
    """Print the help or the version where nothing else is asked for."""
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
    except BrokenPipeError:  # the reader has left (`isobench --help | head -1`): nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _command() -> None:
    """Run click without the end that its own main puts to Ctrl-C and to broken pipes."""
    import click

    from isobench.cli._front import cli

    if COMPLETING in os.environ:  # as its main would
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
