"""The commands: the only package that prints, and the only one that knows exit codes.

Heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) are imported where they are needed, so
that `isobench --help` answers at once.
"""

import os
import sys

import click

from isobench.cli._errors import guarded
from isobench.cli._front import cli
from isobench.cli._names import COMPLETING
from isobench.plugins import stdout


def main() -> None:
    """Entry point of the command `isobench`."""
    stdout.claim()
    try:
        sys.exit(guarded(_command))
    finally:
        stdout.release()


def _command() -> None:
    """Run click without the end that its own main puts to Ctrl-C and to broken pipes."""
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
