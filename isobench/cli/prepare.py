"""`isobench prepare`: build what targets keep between runs."""

from collections.abc import Sequence
from pathlib import Path

import click

from isobench.cli import _complete, _progress
from isobench.cli._inputs import registry_of
from isobench.cli._options import color_option, config_option
from isobench.model.errors import UnavailableError
from isobench.model.units import TargetName


@click.command()
@click.argument("names", nargs=-1, metavar="[TARGETS]...", shell_complete=_complete.targets)
@config_option
@color_option
def prepare(names: Sequence[str], config: Path | None, color: str) -> None:
    """Build what targets keep between runs, such as the guests of virtual machines.

    A run does this by itself. Use this command to do it earlier, for example while there is a
    network.
    """
    from isobench.config.options import RunOptions
    from isobench.model import Available
    from isobench.plugins.api import Preparer
    from isobench.run import selection

    console = _progress.console_for(color=color)
    registry, _ = registry_of(config, names)
    wanted = [TargetName(name) for name in names] or registry.names()
    found = {name: registry.get(name) for name in wanted}
    found = {name: target for name, target in found.items() if isinstance(target, Preparer)}
    answers = selection.probe_targets(found, lambda _name, _answer: None, _progress.say)
    options = RunOptions(require=tuple(names))
    chosen = selection.Chosen(targets=found, answers=answers, workloads={})
    for name, answer in answers.items():
        if names and not isinstance(answer, Available):
            raise UnavailableError(f"{name} cannot run here: {answer.reason}", hint=answer.hint)
    made = selection.prepare(chosen, options, lambda line: console.print(line, markup=False))
    for name in made.able:
        console.print(f"{name} is ready", markup=False, highlight=False)
    if not made.able:
        console.print("nothing to prepare", markup=False, highlight=False)
