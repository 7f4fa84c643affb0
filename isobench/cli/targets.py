"""`isobench targets`: list what can run here, and what to type for the rest."""

from pathlib import Path

import click

from isobench.cli import _progress
from isobench.cli._inputs import registry_of
from isobench.cli._options import color_option, config_option


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@config_option
@color_option
def targets(as_json: bool, config: Path | None, color: str) -> None:
    """List the targets that can run here, and what to type for the rest."""
    from isobench.run import selection

    registry, _ = registry_of(config)
    found = {name: registry.get(name) for name in registry.names()}
    answers = selection.probe_targets(found, lambda _name, _answer: None, _progress.say)
    rows = [_progress.target_row(name, found[name].technology, answers[name]) for name in found]
    if as_json:
        import json

        click.echo(json.dumps(rows, indent=1))
        return
    _progress.target_table(rows, _progress.console_for(color=color))
