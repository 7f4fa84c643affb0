"""Finds workloads of other distributions. An entry point names a package or a folder that contains
folders of workloads, each with workload.toml and payload.c.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Final

from isobench.model import Workload
from isobench.model.errors import IsobenchError, SessionError
from isobench.model.units import WorkloadName
from isobench.plugins import entry_points, guard
from isobench.plugins.entry_points import Kind, Plugin
from isobench.workloads import loader

FILE: Final = "workload.toml"


def find(folders: Sequence[Path] = ()) -> dict[WorkloadName, Workload]:
    """Return all workloads by name: isobench's own, those of plug-ins, and those in the user's
    `folders`.

    A workload of a plug-in that cannot be used is reported, and the others are returned.
    UsageError: one of `folders` is invalid.
    """
    return loader.find(folders, others=of_plugins())


def of_plugins() -> dict[WorkloadName, Workload]:
    """Return the workloads of all plug-ins by name."""
    found: dict[WorkloadName, Workload] = {}
    own = loader.find()
    for plugin in entry_points.announced(Kind.WORKLOAD).values():
        for workload in of_plugin(plugin):
            if workload.name in own:
                plugin.note(SessionError(f"the name {workload.name} is isobench's own"))
            elif workload.name in found:
                first = found[workload.name].plugin
                plugin.note(SessionError(f"the name {workload.name} is already used by {first}"))
            else:
                found[workload.name] = workload
    return found


def of_plugin(plugin: Plugin) -> list[Workload]:
    """Return the workloads of one plug-in. Errors of the others are added to its faults."""
    try:
        files = plugin.attempt("loading it", guard.LOAD_LIMIT, lambda: _files(plugin.load()))
    except SessionError:
        return []
    return list(_read(plugin, files))


def _files(named: object) -> list[Path]:
    """Return every workload.toml in the package, or the folder, of an entry point."""
    if isinstance(named, ModuleType):
        if not hasattr(named, "__path__"):
            raise TypeError(f"{named.__name__} is a module, not a package that holds folders")
        root = resources.files(named)
    elif isinstance(named, str | os.PathLike):
        root = Path(named)
    else:
        raise TypeError("it is neither a package nor the path of a folder")
    # The files of a package may be within an archive (zipimport), where they have no path.
    found = [each / FILE for each in root.iterdir() if (each / FILE).is_file()]
    if not all(isinstance(each, Path) for each in found):
        raise TypeError("it is in an archive, but the compiler needs files in a folder")
    if not found:
        raise FileNotFoundError(f"there is no folder with {FILE} in {root}")
    return sorted(Path(str(each)) for each in found)


def _read(plugin: Plugin, files: Sequence[Path]) -> Iterator[Workload]:
    for path in files:
        try:
            workload = loader.read(path)
        except IsobenchError as error:
            plugin.note(SessionError(str(error), hint=error.hint))
            continue
        # Such folders hold isobench's own programs: a plug-in could replace the evidence payload.
        if workload.program != workload.name:
            plugin.note(SessionError(f"{path}: source: its folder must not begin with _"))
            continue
        yield replace(workload, plugin=plugin.origin)
