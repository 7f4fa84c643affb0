"""Options that several commands share."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from isobench.cli import _complete
from isobench.cli._exits import FAILURES
from isobench.config import parameters, redaction
from isobench.plugins.entry_points import Plugin
from isobench.report.exporters import EXPORTERS, of_plugins
from isobench.report.exporters.of_plugins import PluginExporter


def _redact(_context: click.Context, _param: click.Parameter, value: bool) -> None:
    if value:
        redaction.leave_out_names()


config_option = click.option(
    "--config",
    type=parameters.PathName(path_type=Path),
    help="Configuration file to use instead of isobench.toml.",
)
targets_option = click.option(
    "-t", "--targets", multiple=True, callback=parameters.names_of, metavar="NAMES",
    shell_complete=_complete.targets,
    help="Targets, separated by commas; native is always measured. Default: all that can run here.",
)  # fmt: skip
workloads_option = click.option(
    "-w", "--workloads", multiple=True, callback=parameters.names_of, metavar="NAMES",
    shell_complete=_complete.workloads,
    help="Workloads or classes (cpu, syscall, io, startup), separated by commas.",
)  # fmt: skip
folder_option = click.option(
    "--workload-folder", "folders", multiple=True, type=parameters.PathName(path_type=Path),
    help="A folder with your own workloads.",
)  # fmt: skip
color_option = click.option(
    "--color",
    type=click.Choice(["auto", "always", "never"]),
    default="auto",
    help="Colours in the output. NO_COLOR is respected.",
)


def fail_on_option(
    kinds: Sequence[str] = FAILURES,
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return the option --fail-on of a command that knows these kinds of findings."""
    return click.option(
        "--fail-on", multiple=True, callback=parameters.names_of, metavar="KINDS",
        help=f"Exit with an error code for these findings: {', '.join(kinds)}.",
    )  # fmt: skip


claims_option = click.option(
    "--claims", type=parameters.PathName(path_type=Path), metavar="FILE",
    help="TOML file with your own claims, as [[claims]] tables.",
)  # fmt: skip
redact_option = click.option(
    "--redact", is_flag=True, expose_value=False, callback=_redact,
    help="Also leave the names of this host and its users out of all files and output. Secrets are"
    " always left out.",
)  # fmt: skip
run_argument = click.argument(
    "path", metavar="[RUN]", required=False, type=parameters.PathName(path_type=Path)
)
output_option = click.option(
    "-o",
    "--output",
    type=parameters.PathName(path_type=Path),
    help="Folder for the files of the report.",
)


store_option = click.option(
    "--store", type=parameters.PathName(path_type=Path), metavar="DIR",
    help="The folder of the store. Default: isobench/history in $XDG_DATA_HOME.",
)  # fmt: skip


def export_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --export-NAME, one for each exporter, and --redact."""
    command = redact_option(command)
    for exporter in reversed(EXPORTERS.values()):
        option = click.option(
            f"--export-{exporter.name}",
            type=parameters.PathName(allow_dash=True),
            help=exporter.summary,
        )
        command = option(command)
    return command


class Exporting(click.Command):
    """A command with `export_options`, and with an option for each exporter of a plug-in."""

    # Plug-ins are searched when the command is used, not when its module is imported: a search of
    # all installed distributions takes time.

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return all parameters; options of plug-ins come before --help."""
        *own, last = super().get_params(ctx)
        return [*own, *_plugin_options(), last]


class _PluginOption(click.Option):
    """An option whose exporter is loaded only when it is used or its help is shown."""

    def __init__(self, exporter: PluginExporter) -> None:
        super().__init__([f"--export-{exporter.name}"], type=parameters.PathName(allow_dash=True))
        self.exporter = exporter

    def get_help_record(self, ctx: click.Context) -> tuple[str, str] | None:
        """Return the option and its text in the help."""
        self.help = self.exporter.summary
        return super().get_help_record(ctx)


def _plugin_options() -> list[_PluginOption]:
    return [_plugin_option(each.plugin) for each in of_plugins.exporters().values()]


@functools.cache
def _plugin_option(plugin: Plugin) -> _PluginOption:
    # One object for one plug-in: click compares parameters by identity.
    return _PluginOption(PluginExporter(plugin=plugin))


def document_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of commands that print a sheet: --export-…, --redact, --color, --quiet."""
    command = redact_option(command)
    quiet = click.option("-q", "--quiet", is_flag=True, help="Print only the closing sentence.")
    command = quiet(color_option(command))
    for kind, name in (("markdown", "Markdown"), ("csv", "CSV"), ("json", "JSON")):
        text = f"Write the result as {name} (- for standard output)."
        option = click.option(
            f"--export-{kind}", type=parameters.PathName(allow_dash=True), help=text
        )
        command = option(command)
    return command
