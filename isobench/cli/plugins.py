"""`isobench plugins list`: list plug-ins, their origin, and whether they load."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import click

from isobench.cli import _progress
from isobench.cli._options import color_option
from isobench.config import redaction

if TYPE_CHECKING:
    from rich.console import Console

    from isobench.plugins.entry_points import Plugin

_LOADED: Final = "loaded"
_BROKEN: Final = "broken"
_REFUSED: Final = "refused"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A plug-in in the list."""

    plugin: "Plugin"
    state: str
    reason: str
    hint: str

    def document(self) -> Mapping[str, str | None]:
        """Return the row for JSON."""
        return {
            "kind": self.plugin.kind,
            "name": self.plugin.name,
            "distribution": self.plugin.distribution,
            "version": self.plugin.version,
            "state": self.state,
            "reason": self.reason or None,
            "hint": self.hint or None,
        }


@click.group()
def plugins() -> None:
    """Show plug-ins: targets, workloads, exporters and sections of the report."""


@plugins.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
@color_option
def list_(as_json: bool, color: str) -> None:
    """List all plug-ins, their origin, and why one is not used.

    isobench's own targets are plug-ins as well.
    """
    rows = [_row(plugin) for plugin in _loaded()]
    if as_json:
        import json

        click.echo(json.dumps([row.document() for row in rows], indent=1))
        return
    _table(rows, _progress.console_for(color=color))


def _loaded() -> "Iterator[Plugin]":
    """Yield the plug-ins of all kinds, after an attempt to load each."""
    from isobench.plugins import entry_points, workload_folders
    from isobench.plugins.entry_points import Kind
    from isobench.plugins.registry import Registry, announced
    from isobench.report.exporters import EXPORTERS, of_plugins
    from isobench.report.sections import SECTIONS
    from isobench.report.sections import of_plugins as sections_of_plugins

    registry = Registry()
    for name in announced():
        registry.get(name)
    workload_folders.of_plugins()
    for exporter in of_plugins.exporters().values():
        exporter.check()
    sections_of_plugins.sections(SECTIONS)
    anchors = frozenset(section.anchor for section in SECTIONS)
    reserved = {Kind.EXPORTER: frozenset(EXPORTERS), Kind.SECTION: anchors}
    for kind in Kind:
        yield from entry_points.every(kind, reserved.get(kind, frozenset()))
    # The table shows all faults. Without this they would be printed as notes as well.
    entry_points.take_unreported()


def _row(plugin: "Plugin") -> Row:
    state = _REFUSED if plugin.refused else _BROKEN if plugin.faults else _LOADED
    reasons = dict.fromkeys(str(fault) for fault in plugin.faults)
    hints = dict.fromkeys(fault.hint for fault in plugin.faults)
    # The texts come from plug-ins, and perhaps from what these have asked.
    reason, hint = (redaction.bare("; ".join(texts)) for texts in (reasons, hints))
    return Row(plugin=plugin, state=state, reason=reason, hint=hint)


def _table(rows: Sequence[Row], console: "Console") -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("kind", "name", "distribution", "state"):
        table.add_column(heading, no_wrap=heading in ("kind", "name"), overflow="fold")
    for row in rows:
        state = Text(row.state, style="green" if row.state == _LOADED else "yellow")
        if row.reason:
            state.append(f": {row.reason}\n→ {row.hint}", style="default")
        name = Text(row.plugin.name, style="bold")
        table.add_row(row.plugin.kind, name, Text(row.plugin.origin), state)
    console.print(table)
