"""The commands by name, loaded when one is called: `isobench --help` imports none of them."""

from collections.abc import Mapping
from importlib import import_module
from typing import Final

import click

COMMANDS: Final[Mapping[str, str]] = {
    # name: what --help says
    "run": "Measure the same workloads natively and under each target.",
    "report": "Answer again from the records of a run.",
    "verify": "Judge sentences on a run: the documents', or your own.",
    "compare": "Compare runs: what isolation costs in one and the other.",
    "noise": "Show how small an effect this machine can resolve.",
    "targets": "List what can run here, and what to type for the rest.",
    "workloads": "List what can be measured.",
    "doctor": "Say why a target cannot run; install what it needs.",
    "prepare": "Make what targets keep between runs, beforehand.",
    "clean": "Remove every trace of isobench but your results.",
    "selftest": "Try the statistics on runs whose true ratio is known.",
}
"""In the order of --help. A command, its module and its function have one name."""

COMPLETING: Final = "_ISOBENCH_COMPLETE"
"""The variable of a shell that asks what a half-typed word may become."""


class Commands(click.Group):
    """A group whose commands are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return all names."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command, or None where there is none of this name."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        found = getattr(import_module(f"isobench.cli.{cmd_name}"), cmd_name)
        assert isinstance(found, click.Command)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write what each command is for."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))
