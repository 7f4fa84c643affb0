"""`isobench` alone: what this is, what to type next, what was found last."""

import click

from isobench import __version__


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, "-V", "--version", prog_name="isobench")
@click.pass_context
def cli(context: click.Context) -> None:
    """Measure what isolation costs here, with evidence that it was in force.

    Runs the same workloads natively and under containers, sandboxes and emulators, and answers
    with ratios to native, honest intervals and verdicts.
    """
    if context.invoked_subcommand is None:
        _front_page(context)


def _front_page(context: click.Context) -> None:
    """Say what this is and what to type next; show the last answer where there is one."""
    import json

    from isobench import places

    def bold(text: str) -> str:
        return click.style(text, bold=True)

    click.echo(
        f"{bold('isobench')} {__version__} - what isolation costs on this machine, with evidence\n"
    )
    click.echo(f"  {bold('isobench run --quick')}      a first look in about a minute")
    click.echo(f"  {bold('isobench run')}              verdicts, in about five minutes")
    click.echo(
        f"  {bold('isobench verify')}           which sentences it supports, which it refutes"
    )
    click.echo(
        f"  {bold('isobench targets')}          what can run here, and what is missing for the rest"
    )
    click.echo(f"  {bold('isobench --help')}           all commands\n")
    latest = places.results() / "latest"
    try:
        summary = json.loads((latest / "summary.json").read_text())
        click.echo(f"Last run ({summary['run']['started']}): {summary['run']['headline']}")
        click.echo(f"  {latest / 'report.html'}")
    except (OSError, ValueError, KeyError, TypeError):
        click.echo("Nothing has been measured in this folder yet.")
    context.exit(0)
