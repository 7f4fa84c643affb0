"""Completion in the shell. It offers names only: no target is probed."""

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

import click
from click.shell_completion import shell_complete

from isobench.cli import COMPLETING
from isobench.model.errors import IsobenchError, UsageError


def answer(cli: click.Command) -> None:
    """Answer a shell that asks for its script or for completions, and exit; else do nothing."""
    if instruction := os.environ.get(COMPLETING):
        try:
            sys.exit(shell_complete(cli, {}, "isobench", COMPLETING, instruction))
        except (KeyError, ValueError):  # a shell's variables that are missing or no numbers
            sys.exit(UsageError.exit_code)


def targets(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return completions of the last target in a list with commas."""
    return _completed(incomplete, _targets())


def targets_and_packages(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[str]:
    """Return completions for `isobench doctor`: targets and packages."""
    from isobench.plugins import packages

    return _completed(incomplete, dict.fromkeys([*_targets(), *packages.NAMES]))


def workloads(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return completions of the last workload, or class of workloads, in a list with commas."""
    from isobench.plugins import workload_folders

    found: Iterable[str] = ()
    with contextlib.suppress(IsobenchError, OSError):
        known = workload_folders.find(context.params.get("folders") or ())
        found = dict.fromkeys(name for w in known.values() for name in (w.class_name, w.name))
    return _completed(incomplete, found)


def _targets() -> Sequence[str]:
    from isobench.config import file
    from isobench.plugins.registry import Registry

    # A mistake in the configuration must not print an error into the user's half-typed line. The
    # targets of isobench itself are still offered.
    with contextlib.suppress(IsobenchError, OSError):
        return Registry(file.find().settings.targets).names()
    return Registry().names()


def _completed(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return the text with its last name completed. Names that it already has are not offered."""
    # The shell sees one word, "native,doc": each completion must hold the whole word.
    before, comma, last = incomplete.rpartition(",")
    have = before.split(",")
    return [before + comma + name for name in names if name.startswith(last) and name not in have]
