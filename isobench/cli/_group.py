"""The group of commands. A command is imported when it is used."""

from importlib import import_module

import click

from isobench.cli import _help
from isobench.config.suggestions import suggestion


class Commands(click.Group):
    """A group that imports a command when it is used."""

    # Importing all commands took two thirds of the time of `isobench --help`.

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        del ctx
        return list(_help.COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command; None where no command has this name."""
        del ctx
        if cmd_name not in _help.COMMANDS:
            return None
        found = getattr(import_module(f"isobench.cli.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return a command and its arguments. UsageError: no command has this name."""
        # click suggests only commands that are imported.
        name = args[0]
        is_unknown = name not in _help.COMMANDS and not name.startswith("-")
        if is_unknown and (near := suggestion(name, _help.COMMANDS)):
            ctx.fail(f"No such command {name!r}: {near}")
        return super().resolve_command(ctx, args)

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the same text that `isobench --help` prints without click."""
        del ctx
        formatter.write(_help.text())
