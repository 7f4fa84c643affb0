"""`isobench workloads`: list what can be measured."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from isobench.cli import _progress
from isobench.cli._inputs import report_plugins
from isobench.cli._options import color_option, folder_option
from isobench.model.errors import PayloadError

if TYPE_CHECKING:
    from isobench.model import Workload


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@folder_option
@color_option
def workloads(as_json: bool, folders: Sequence[Path], color: str) -> None:
    """List the workloads."""
    from isobench.plugins import workload_folders

    found = workload_folders.find(folders)
    report_plugins()
    if as_json:
        import json

        rows = [
            {
                "name": w.name,
                "class": w.class_name,
                "metrics": list(w.metrics),
                "summary": w.summary,
            }
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
    console = _progress.console_for(color=color)
    console.print(table)
    for line in _uncompiled(found.values()):
        console.print(line, markup=False, soft_wrap=True)


def _uncompiled(found: "Iterable[Workload]") -> Iterator[str]:
    """Yield the error of a run of these workloads where a compiler is needed and missing."""
    from isobench.model import host_abi
    from isobench.payload import build

    host = host_abi()
    if host is None:
        return
    try:
        build.demand(build.jobs(build.programs(found), [host]))
    except PayloadError as error:
        yield f"\n{error}"
        yield f"    → {_progress.as_called(error.hint)}"
