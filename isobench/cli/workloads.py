"""`isobench workloads`: what can be measured."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isobench.cli import _progress
from isobench.cli._options import color_option, folder_option

if TYPE_CHECKING:
    pass


@click.command()
@click.option("--json", "as_json", is_flag=True, help="For scripts.")
@folder_option
@color_option
def workloads(as_json: bool, folders: Sequence[Path], color: str) -> None:
    """List the workloads: what can be measured."""
    from isobench.workloads import loader as module

    found = module.find(folders)
    if as_json:
        import json

        rows = [
            {"name": w.name, "class": w.group, "metrics": list(w.metrics), "summary": w.summary}
            for w in found.values()
        ]
        click.echo(json.dumps(rows, indent=1))
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("workload", "what it does", "one operation"):
        table.add_column(heading, no_wrap=heading == "workload", overflow="fold")
    for workload in found.values():
        table.add_row(workload.name, workload.summary, workload.operation)
    _progress.console_for(color=color).print(table)
