"""The commands: the only package that prints, and the only one that knows exit codes.

Heavy libraries (pandas, SciPy, Docker's SDK, rich, jinja2) are imported where they are needed, so
that `isobench --help` answers at once.
"""

import sys

import click

from isobench import stdout
from isobench.cli import _complete, answering, comparing, looking, measuring, simulating
from isobench.cli._door import guarded
from isobench.cli.front import cli

for command in (
    measuring.run,
    answering.report,
    answering.verify,
    comparing.compare,
    comparing.noise,
    looking.targets,
    looking.workloads,
    simulating.selftest,
    looking.doctor,
    looking.prepare,
    looking.clean,
):
    cli.add_command(command)


def main() -> None:
    """Entry point of the command `isobench`."""
    stdout.claim()
    try:
        sys.exit(guarded(_command))
    finally:
        stdout.release()


def _command() -> None:
    """Run click without the end that its own main puts to Ctrl-C and to broken pipes."""
    _complete.answer(cli)  # as its main would
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
