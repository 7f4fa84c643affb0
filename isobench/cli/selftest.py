"""`isobench selftest`: test the statistics on simulated runs with known ratios."""

import sys
from typing import TYPE_CHECKING

import click

from isobench.cli import _progress
from isobench.cli._exits import GUARANTEE_BROKEN
from isobench.cli._options import color_option
from isobench.config import parameters
from isobench.model.errors import UsageError

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.selftest.guarantees import Result


@click.command()
@click.argument("part", type=click.Choice(["stats"]), default="stats", metavar="[stats]")
@click.option(
    "--replications",
    type=click.IntRange(500, 1_000_000),
    help="Simulated runs for each row of the tables (default 1000).",
)
@click.option("--rigorous", is_flag=True, help="5000 simulated runs for each row: two minutes.")
@click.option("--seed", type=parameters.SEED, default=1, help="Seed of the simulation (1).")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@click.option("--markdown", "as_markdown", is_flag=True, help="Print Markdown, for documents.")
@color_option
def selftest(
    part: str,
    replications: int | None,
    rigorous: bool,
    seed: int,
    as_json: bool,
    as_markdown: bool,
    color: str,
) -> None:
    """Test intervals and verdicts on simulated runs with known ratios. Nothing is measured.

    The exit code is 1 if a guarantee does not hold. The output names it.
    """
    del part  # "stats" is the only part so far
    if as_json and as_markdown:
        raise UsageError("--json and --markdown exclude each other", hint="use one of them")
    if rigorous and replications is not None:
        raise UsageError("--rigorous and --replications exclude each other", hint="use one of them")
    from isobench.report import selftest as view
    from isobench.selftest import simulate

    result = _simulated(
        replications=replications or (simulate.RIGOROUS if rigorous else simulate.REPLICATIONS),
        seed=seed,
        color=color,
    )
    if as_json:
        import json

        click.echo(json.dumps(view.document(result), indent=1))
    elif as_markdown:
        click.echo(view.markdown(result))
    else:
        _show(result, _progress.console_for(color=color))
    sys.exit(GUARANTEE_BROKEN if result.broken else 0)


def _simulated(*, replications: int, seed: int, color: str) -> "Result":
    from isobench.selftest import guarantees, planted, simulate

    shown = _progress.Screen(quiet=False, color=color)
    try:
        simulation = simulate.run(
            replications=replications,
            seed=seed,
            progress=lambda what, done, total: shown.step(f"simulating {what}", done, total),
        )
        shown.step("simulating biases", 1, 1)
        control = planted.run(replications=replications, seed=seed)
    finally:
        shown.close()
    return guarantees.check(simulation, control)


def _show(result: "Result", console: "Console") -> None:
    """Print the tables of a self-test, the notes on them, and the result in a sentence."""
    from rich.table import Table

    from isobench.report import selftest as view

    for figures in view.tables(result):
        console.print(figures.title, style="bold", markup=False)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for place, heading in enumerate(figures.head):
            named = place < 2  # noqa: PLR2004 - the first two columns identify a row
            table.add_column(heading, justify="right" if place else "left", no_wrap=named)
        for row in figures.rows:
            table.add_row(*row)
        console.print(table)
        console.print()
    for line in view.notes(result):
        console.print(f"- {line}", style="dim", markup=False)
    console.print(f"\n{view.sentence(result)}", style="bold", markup=False)
