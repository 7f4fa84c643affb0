"""`isobench clean`: remove all files of isobench except results."""

from pathlib import Path

import click

from isobench.cli._inputs import registry_of
from isobench.cli._options import config_option
from isobench.cli._outputs import leftover_text
from isobench.cli._progress import say
from isobench.model import Leftover
from isobench.model.errors import LeftoverError


@click.command()
@click.option("--stale", is_flag=True, help="Remove only what killed runs have left behind.")
@config_option
def clean(stale: bool, config: Path | None) -> None:
    """Remove all containers, images, cgroups and caches of isobench. Your results stay.

    The exit code is 6 if something cannot be removed.
    """
    from isobench.run import cleanup

    registry, _ = registry_of(config)
    found: list[Leftover] = []
    cleanup.sweep(registry, everything=not stale, observer=found.append)
    for leftover in found:
        say(leftover_text(leftover))
    if not found:
        click.echo("nothing to remove")
    if failed := sum(bool(leftover.failure) for leftover in found):
        raise LeftoverError(
            f"{failed} of {len(found)} could not be removed", hint="the lines above show why"
        )
