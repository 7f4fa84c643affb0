"""`isobench` without a command: what it is, what to type next, the last result."""

from typing import Final

import click

from isobench import __version__
from isobench.cli._group import Commands

_NEXT: Final = (
    ("run --quick", "first ratios, in about a minute"),
    ("run", "verdicts, in about five minutes"),
    ("verify", "which sentences the last run supports or refutes"),
    ("targets", "what can run here, and what is missing for the rest"),
    ("--help", "all commands"),
)


@click.group(
    cls=Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, "-V", "--version", prog_name="isobench")
@click.pass_context
def cli(context: click.Context) -> None:
    """Measure the cost of isolation on this machine, with evidence that it was in force."""
    if context.invoked_subcommand is None:
        _front_page(context)


def _front_page(context: click.Context) -> None:
    """Print what isobench is, what to type next, and the headline of the last run."""
    from rich.table import Table
    from rich.text import Text

    from isobench.cli import _progress
    from isobench.config import paths
    from isobench.model.errors import UsageError
    from isobench.storage import documents

    # rich and the results are imported and read only here: other commands need not wait for them.
    name = _progress.program()
    console = _progress.console_for()
    console.print(f"[bold]isobench[/] {__version__} - what isolation costs on this machine\n")
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for words, what in _NEXT:
        table.add_row(Text(f"  {name} {words}", style="bold"), what)
    console.print(table)
    console.print()
    latest = paths.results() / "latest"
    try:
        last = documents.read_summary(latest).run
        headline = f"Last run ({last.started}): {last.headline}"
        console.print(_progress.as_called(headline), markup=False)
        console.print(f"  {latest / 'report.html'}", markup=False, soft_wrap=True)
    except UsageError:
        # A damaged last run is as good as none here: this page is not about it.
        console.print("Nothing has been measured in this folder yet.")
    context.exit(0)
