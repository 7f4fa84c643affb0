"""The commands as a group of click's, each imported when it is called."""

from importlib import import_module

import click

from isobench.cli import _help


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        del ctx
        return list(_help.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of this name."""
        del ctx
        if cmd_name not in _help.COMMANDS:
            return None
        found = getattr(import_module(f"isobench.cli.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the text that `isobench --help` prints without click."""
        del ctx
        formatter.write(_help.text())
