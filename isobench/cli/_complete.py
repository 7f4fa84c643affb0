"""What the shell offers when a name is half typed: names alone, nothing is probed."""

import contextlib
import os
import sys
from collections.abc import Iterable, Sequence

import click
from click.shell_completion import shell_complete

from isobench.cli import COMPLETING
from isobench.model.errors import IsobenchError


def answer(cli: click.Command) -> None:
    """Answer a shell that asks for its script or for names, and leave; else do nothing."""
    if instruction := os.environ.get(COMPLETING):
        sys.exit(shell_complete(cli, {}, "isobench", COMPLETING, instruction))


def targets(_context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of targets that the last of some names with commas may become."""
    return _continued(incomplete, _targets())


def targets_and_packages(
    _context: click.Context, _param: click.Parameter, incomplete: str
) -> list[str]:
    """Return names that `isobench doctor` knows."""
    from isobench.plugins import packages

    return _continued(incomplete, dict.fromkeys([*_targets(), *packages.NAMES]))


def workloads(context: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the names of workloads, and of their classes, that the last name may become."""
    from isobench.plugins import workload_folders

    found: Iterable[str] = ()
    with contextlib.suppress(IsobenchError, OSError):
        known = workload_folders.find(context.params.get("folders") or ())
        found = dict.fromkeys(name for w in known.values() for name in (w.class_name, w.name))
    return _continued(incomplete, found)


def _targets() -> Sequence[str]:
    from isobench.config import file
    from isobench.plugins.registry import Registry

    with contextlib.suppress(IsobenchError, OSError):
        return Registry(file.find().settings.targets).names()
    return Registry().names()


def _continued(incomplete: str, names: Iterable[str]) -> list[str]:
    """Return what was typed with its last name completed; a name that is there already is not
    offered once more.
    """
    before, comma, last = incomplete.rpartition(",")
    have = before.split(",")
    return [before + comma + name for name in names if name.startswith(last) and name not in have]
