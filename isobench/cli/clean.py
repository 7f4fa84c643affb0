"""`isobench clean`: remove every trace of isobench but results."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from isobench.cli._inputs import registry_of
from isobench.cli._options import config_option

if TYPE_CHECKING:
    pass


@click.command()
@click.option("--stale", is_flag=True, help="Only what runs that died have left.")
@config_option
def clean(stale: bool, config: Path | None) -> None:
    """Remove every trace of isobench: containers, images, cgroups, caches. Results are yours and
    stay.
    """
    from isobench.run import lifecycle

    registry, _ = registry_of(config)
    lines: list[str] = []
    lifecycle.sweep(registry, everything=not stale, observer=lines.append)
    for line in lines:
        kept = line.removeprefix("nothing: ")
        click.echo(kept if kept != line else f"removed {line}")
    if not lines:
        click.echo("nothing to remove")
