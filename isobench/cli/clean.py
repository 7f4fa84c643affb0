"""`isobench clean`: remove every trace of isobench but results."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from isobench.cli._inputs import registry_of
from isobench.cli._options import config_option
from isobench.model import Leftover

if TYPE_CHECKING:
    pass


@click.command()
@click.option("--stale", is_flag=True, help="Only what runs that died have left.")
@config_option
def clean(stale: bool, config: Path | None) -> None:
    """Remove every trace of isobench: containers, images, cgroups, caches. Results are yours and
    stay.
    """
    from isobench.run import cleanup

    registry, _ = registry_of(config)
    found: list[Leftover] = []
    cleanup.sweep(registry, everything=not stale, observer=found.append)
    for leftover in found:
        if leftover.failure:
            click.echo(f"not removed: {leftover.what}: {leftover.failure}")
        else:
            click.echo(f"removed {leftover.what}")
    if not found:
        click.echo("nothing to remove")
